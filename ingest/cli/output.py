"""What a terminal shows: JSON on stdout, tables for people, progress and sentences on stderr."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import orjson

Row = Sequence[object]


def say(sentence: str) -> None:
    """One sentence to whoever watches; never part of the output."""
    click.echo(sentence, err=True)


def write_json(document: object) -> None:
    """The one JSON document of `--json`."""
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def write_table(title: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """A table; numbers to the right, control characters of producers made visible."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", expand=False)
    rows = [list(row) for row in rows]
    for place, name in enumerate(columns):
        numbers = bool(rows) and all(isinstance(row[place], (int, float)) for row in rows)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    Console().print(table)


def _shown(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    text = str(cell)
    # An escape sequence in a producer's line must not reach the terminal.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def progress(label: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, nothing elsewhere. Gives a function to be called with the bytes that were read."""
    if not sys.stderr.isatty() or total_bytes < 1 << 20:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total_bytes)
        yield lambda size: bar.update(task, advance=size)


def shortened(text: str, length: int = 100) -> str:
    """`text`, cut where it would fill the screen."""
    return text if len(text) <= length else text[: length - 1] + "…"


def count(number: int, noun: str) -> str:
    """1 line, 2 lines."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def value(row: dict[str, Any], name: str) -> Any:
    """A cell as people read it."""
    cell = row[name]
    return cell.strftime("%Y-%m-%d %H:%M:%S") if hasattr(cell, "strftime") else cell
