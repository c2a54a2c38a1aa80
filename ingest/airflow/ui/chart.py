"""A picture of the last days: lines loaded by source, and below the line those that failed, on one scale.

SVG from a template, no script.

Out: where each bar stands, in the units of the drawing (see templates/chart.svg).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final

from ingest.ports import Day

WIDTH: Final = 960
HEIGHT: Final = 160  # of the highest bar above the line and the lowest below it, together
_COLOURS: Final = 6  # sources with a colour of their own: those with most lines; the others share one
_DAYS_AT_LEAST: Final = 14
_Cell = tuple[date, str]  # a day of a source


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle with words for whoever points at it."""

    x: float
    y: float
    width: float
    height: float
    style: str  # classes: c0 … c5 or other, and failed
    title: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws."""

    bars: list[Bar]
    ticks: list[tuple[float, str]]  # (x, day)
    legend: list[tuple[str, str]]  # (class, source)
    most_loaded: int  # on a day
    most_failed: int
    zero: float  # where the line between them is
    summary: str
    caption: str = "Lines a day"


def to_fix(days: Sequence[Day]) -> Chart | None:
    """The picture of what is left to fix, by the day on which its files came; None if there is nothing to draw."""
    drawn = chart([replace(day, lines=day.open, failed=0) for day in days if day.open], "to fix")
    return drawn and replace(drawn, caption="Lines to fix, by the day of their files")


def chart(days: Sequence[Day], what: str = "loaded") -> Chart | None:
    """The picture of these days; None if there is nothing to draw. `what`: the lines above the line are."""
    if not days:
        return None
    loaded, failed, of_source = Counter[_Cell](), Counter[_Cell](), Counter[str]()
    for day in days:
        loaded[day.day, day.source] += day.lines
        failed[day.day, day.source] += day.failed
        of_source[day.source] += day.lines
    dates = sorted({day.day for day in days})
    first, last = dates[0], dates[-1]
    shown = max(_DAYS_AT_LEAST, (last - first).days + 1)
    # Days far apart: only those that have any.
    axis = dates if shown > 60 else [last - timedelta(days=back) for back in range(shown - 1, -1, -1)]
    by_size = sorted(of_source, key=lambda source: (-of_source[source], source))
    styles = {source: f"c{rank}" if rank < _COLOURS else "other" for rank, source in enumerate(by_size)}
    most_loaded, most_failed = _most(loaded), _most(failed)
    scale = HEIGHT / max(1, most_loaded + most_failed)
    zero = round(most_loaded * scale, 2)
    step = WIDTH / len(axis)
    width = round(min(step * 0.7, 40), 2)
    every = -(-len(axis) // 10)  # at most ten days are named
    bars, ticks = list[Bar](), list[tuple[float, str]]()
    for place, each in enumerate(axis):
        x = round(place * step + (step - width) / 2, 2)
        if (len(axis) - 1 - place) % every == 0:
            ticks.append((round(x + width / 2, 2), f"{each:%b} {each.day}"))
        above = below = zero
        for source in by_size:
            if number := loaded[each, source]:
                height = round(max(1.0, number * scale), 2)
                above -= height
                told = f"{each}: {number:,} lines of {source} {what}"
                bars.append(Bar(x, round(above, 2), width, height, styles[source], told))
            if number := failed[each, source]:
                height = round(max(1.0, number * scale), 2)
                told = f"{each}: {number:,} lines of {source} failed"
                bars.append(Bar(x, round(below, 2), width, height, f"{styles[source]} failed", told))
                below += height
    legend = [(styles[source], source) for source in by_size[:_COLOURS]]
    legend += [("other", "others")] * (len(by_size) > _COLOURS)
    failed_too = f", {failed.total():,} failed" if what == "loaded" else ""
    summary = f"{of_source.total():,} lines {what}{failed_too}, between {first} and {last}"
    return Chart(bars, ticks, legend, most_loaded, most_failed, zero, summary)


def _most(cells: Counter[_Cell]) -> int:
    """On a day."""
    days = Counter[date]()
    for (day, _), number in cells.items():
        days[day] += number
    return max(days.values(), default=0)
