"""Failed lines as pages show them: one by one, or grouped by the rule that they break, with the first of each group.

Raw lines, values and names of properties are for those who may run the DAG of their source: others are told of line
numbers, codes and counts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from ingest.core.formats import FORMATS
from ingest.core.schema import Meaning, codes
from ingest.ports import FailureGroup, ReadModel

LINES: Final = 20  # on a page
_SAMPLED: Final = 8  # groups that show their first lines
_SAMPLES: Final = 3
_FAILURES: Final = 10  # of one line
_COLUMNS: Final = ("", "/_p", "/_t", "/_n", "/_p2")  # places that tell nothing of what was sent


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed line as a page shows it; without `raw` and messages for those who may not see them."""

    file_id: str
    line: int
    item: str
    byte_offset: int
    byte_length: int
    mendable: bool
    failures: list[dict[str, Any]]
    more_failures: int
    raw: bytes | None
    without_text: bool  # it is not copied for pages: its file has too much of it
    redriven_at: datetime | None
    redriven_by: str | None
    redriven_by_whom: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """Failed lines that break one rule."""

    code: str
    meaning: Meaning
    lines: int
    open: int
    first_line: int
    places: list[tuple[str | None, int]]  # (pointer, lines); None: somewhere that whoever looks may not know
    more_places: int
    samples: list[Failed]

    @property
    def states_values(self) -> bool:
        """Whether failures of this rule say what to send, as far as samples show."""
        return any("send" in one for line in self.samples for one in line.failures)


def meanings(format: str) -> dict[str, Meaning]:
    """What each code of a format says; nothing where an older ledger names a format that is no more."""
    return codes(format) if format in FORMATS else {}


def explained(numbers: Mapping[str, Any], format: str) -> list[tuple[str, int, Meaning]]:
    """How many items have each code, and what it means."""
    known = meanings(format)
    return [(code, int(number), known.get(code, Meaning("", ""))) for code, number in numbers.items()]


def visible_pointer(pointer: str | None, *, shows_raw: bool) -> str | None:
    """A place as far as whoever looks may know it."""
    return pointer if shows_raw or pointer in _COLUMNS else None


def first_failures(failures: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """As many failures of a line as a page shows, and how many more places there are of rules that it does not show."""
    more = sum(1 + failure.get("more", 0) for failure in failures[_FAILURES:])
    return [dict(failure) for failure in failures[:_FAILURES]], more


def failed_lines(
    found: Sequence[Mapping[str, Any]], formats: Mapping[str, str], history: Sequence[Mapping[str, Any]], *,
    shows_raw: bool,
) -> list[Failed]:  # fmt: skip
    """Rows of `failed_lines` as a page shows them; `formats` are those of their files, by file_id."""
    whom = {one["at"]: one["by"] for one in history if one["action"] == "redrive"}  # written down in one transaction
    shown = []
    for one in found:
        known = meanings(formats[one["file_id"]])
        failures = [{"code": code, "message": " ".join(known.get(code, ())), "pointer": ""} for code in one["codes"]]
        has_text = one["failures"] is not None
        if shows_raw and has_text:
            failures = json.loads(one["failures"])
        shown.append(Failed(
            one["file_id"], one["line"], one["item"] if shows_raw else "", one["byte_offset"], one["byte_length"],
            one["mendable"], *first_failures(failures),
            one["raw"] if shows_raw else None, shows_raw and not has_text, one["redriven_at"], one["redriven_by"],
            whom.get(one["redriven_at"]),
        ))  # fmt: skip
    return shown


def groups_of(
    published: ReadModel, groups: Sequence[FailureGroup], formats: Mapping[str, str],
    history: Sequence[Mapping[str, Any]], *, shows_raw: bool,
) -> list[Group]:  # fmt: skip
    """Groups of failed lines of these files, the first ones with samples, which tell only what is wrong besides."""
    known = {code: meaning for format in set(formats.values()) for code, meaning in meanings(format).items()}
    shown = []
    for number, group in enumerate(groups):
        meaning = known.get(group.code) or Meaning(group.places[0].message if shows_raw and group.places else "", "")
        found = published.failed_lines(list(formats), code=group.code, limit=_SAMPLES) if number < _SAMPLED else []
        told = failed_lines(found, formats, history, shows_raw=shows_raw)
        places: list[tuple[str | None, int]] = [
            (one.pointer, one.lines) for one in group.places if shows_raw or one.pointer in _COLUMNS
        ]
        shown.append(Group(
            group.code, meaning, group.lines, group.open, group.first_line,
            places or [(None, group.lines)] * bool(group.places), group.more_places if shows_raw else 0,
            [_brief(failed, group.code, meaning) for failed in told],
        ))  # fmt: skip
    return shown


def _brief(failed: Failed, code: str, meaning: Meaning) -> Failed:
    """A sample in its group: what the group says already is left out."""
    failures = [
        one | {"message": one["message"].removeprefix(meaning.problem).removesuffix(meaning.remedy).strip()}
        for one in failed.failures
        if one["code"] == code
    ]
    return replace(failed, failures=failures, more_failures=0)
