"""What a person reads in Airflow: tables for a task's log, the names of mapped tasks, sentences for a red run.

No raw lines and no values: whoever may read a DAG may read its logs.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ingest.core.schema import codes
from ingest.text import count, visible

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline

NAMED_AT_MOST = 20  # files in one sentence or table; the ledger has them all
_EXPLAINED_AT_MOST = 1_000  # failed lines of one file that a table of codes is made from
_LABEL = 180  # Airflow keeps 250 characters of a mapped task's name


def shorten(text: str, length: int = _LABEL) -> str:
    """A text cut in its middle: the end of a key tells more than the folder it is in."""
    return text if len(text) <= length else f"{text[: length // 3]}…{text[-(length - length // 3 - 1) :]}"


def pack_name(keys: Sequence[str]) -> str:
    """What a mapped task is called: the first file, and how many come with it."""
    return shorten(keys[0]) + (f" and {len(keys) - 1:,} more" if len(keys) > 1 else "")


def outcome(results: Iterable[Mapping[str, Any]]) -> str:
    """The end of a mapped task's name, once it is done; empty when there is nothing to say."""
    files = list(results)
    failed = sum(file["failed"] for file in files)
    states = {state: sum(file["state"] == state for file in files) for state in ("retrying", "rejected", "held")}
    said = [count(failed, "failed line")] if failed else []
    said += [f"{number:,} {state}" for state, number in states.items() if number]
    return f": {', '.join(said)}" if said else ""


def log_table(log: logging.Logger, title: str, rows: Sequence[Mapping[str, Any]], *, level: int = logging.INFO) -> None:
    """Write a table to a task's log, a line a row, columns aligned for the log's fixed-width letters."""
    log.log(level, "%s", title)
    if not rows:
        return
    names = list(rows[0])
    cells = [[shorten(_text(row.get(name)), 90) for name in names] for row in rows]
    numeric = [all(isinstance(row.get(name), int | None) for row in rows) for name in names]
    widths = [max(len(name), *(len(line[at]) for line in cells)) for at, name in enumerate(names)]
    for line in [names, ["-" * width for width in widths], *cells]:
        columns = zip(line, widths, numeric, strict=True)
        padded = [text.rjust(width) if right else text.ljust(width) for text, width, right in columns]
        log.log(level, "    %s", "  ".join(padded).rstrip())


def failed_lines_by_code(pipeline: "Pipeline", files: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many failed lines broke which rule, the most frequent first, with a line to look at and what to do."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for file in files[:NAMED_AT_MOST]:
        counts.update(file.get("codes", {}))
        if "codes" in file:  # checked, not loaded: there is nothing to look up
            continue
        with pipeline.warehouse.failed_lines(file["file_id"]) as lines:
            for line in islice(lines, _EXPLAINED_AT_MOST):
                for code in line["codes"]:
                    counts[code] += 1
                    first.setdefault(code, f"line {line['line']} of {file['file']}")
    remedies = {code: meaning.remedy for file in files for code, meaning in codes(file["format"]).items()}
    return [
        {"code": code, "lines": number, "first": first.get(code), "remedy": remedies.get(code)}
        for code, number in counts.most_common()
    ]


def named(sentences: Sequence[str]) -> str:
    """The first few of many, and how many more."""
    more = len(sentences) - NAMED_AT_MOST
    rest = [f"and {more:,} more: see the ledger"] if more > 0 else []
    return "\n".join([*map(visible, sentences[:NAMED_AT_MOST]), *rest])


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else visible(str(value))
