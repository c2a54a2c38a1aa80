"""Actions on files that were dealt with: which files a person means, and what is done to them.

An action is all or nothing in the warehouse, is refused for files in the wrong state with a sentence for each, and
leaves its line in `history`.
"""

import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from ingest.core.address import is_s3, split_address
from ingest.core.lifecycle import ENDS, TAKES, Action, State, refusal
from ingest.core.source import SourceFile
from ingest.discovery import owner_of, takes
from ingest.errors import ConfigError, IngestError
from ingest.pipeline import Pipeline
from ingest.ports import ActionResult, Audit

_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400}


def chosen(
    pipeline: Pipeline, references: Sequence[str], action: Action, source: str | None = None, since: str | None = None
) -> tuple[list[dict[str, Any]], list[SourceFile]]:
    """The ledger rows that an action means, oldest first; for `ignore` also objects that no row tells of yet.

    Either files by id, unique prefix of one or s3:// URI; or those of a source, dealt with since a day or for so long
    (`2026-11-01`, `7d`), in the states that the action takes.

    Raises:
        IngestError: no such file, or neither files nor a source.
    """
    if references and (source or since):
        raise ConfigError("Name files, or --source with --since: not both.")
    if references:
        rows, new = [], []
        for reference in references:
            try:
                rows.append(pipeline.warehouse.find_file(reference))
            except IngestError:
                if action != "ignore" or not is_s3(reference):
                    raise
                new.append(_pending(pipeline, reference))
        return list({row["file_id"]: row for row in rows}.values()), new
    if not source:
        raise ConfigError(
            "Name files by their ids or s3:// addresses, or a source: --source NAME, with --since if not all of it is"
            " meant."
        )
    if source not in ("one_off", *pipeline.settings.sources):
        pipeline.source(source)
    begin = when(since) if since else datetime.min.replace(tzinfo=UTC)
    rows = [row for state in TAKES[action] for row in pipeline.warehouse.files({"source": source, "state": state})]
    at = [row for row in rows if (row["loaded_at"] or row["next_try_at"] or begin) >= begin and not row["redrive_of"]]
    return sorted(at, key=lambda row: row["file_no"]), []


def act(
    pipeline: Pipeline, action: Action, rows: Sequence[Mapping[str, Any]], new: Sequence[SourceFile], note: Audit
) -> list[ActionResult]:
    """Do it. Raises TransientError: the warehouse did not answer. Nothing was done; safe to run again."""
    ids = [row["file_id"] for row in rows]
    ways: Mapping[Action, Callable[[], list[ActionResult]]] = {
        "undo": lambda: pipeline.warehouse.undo(ids, note),
        "ignore": lambda: pipeline.warehouse.ignore(ids, new, note),
        "force": lambda: _load(pipeline, "force", rows, note),
        "release": lambda: _load(pipeline, "release", rows, note),
        "retry": lambda: _retry(pipeline, rows, note),
    }
    by_id = {row["file_id"]: row for row in rows}
    return [_warned(action, result, by_id.get(result.file_id)) for result in ways[action]()]


def would(
    action: Action, rows: Sequence[Mapping[str, Any]], new: Sequence[SourceFile], redrives: Sequence[Mapping[str, Any]]
) -> list[ActionResult]:
    """What the action would take on. `redrives`: rows of those that are loaded."""
    redriven = {one["redrive_of"] for one in redrives}
    taken = [_warned(action, _result(row, row["state"], _objection(action, row, redriven)), row) for row in rows]
    return taken + [ActionResult(file.file_id, file.bucket, file.key, "pending", "ignored") for file in new]


def failed(action: Action, result: ActionResult) -> bool:
    """Whether the file is not as the action was to leave it."""
    return result.error is not None and result.state != ENDS.get(action)


def when(since: str) -> datetime:
    """`2026-11-01`, `2026-11-01T12:00Z`, or `30m`, `24h`, `7d` ago. Raises ConfigError."""
    if found := re.fullmatch(r"(\d{1,6})([mhd])", since):
        return datetime.now(UTC) - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    try:
        at = datetime.fromisoformat(since)
    except ValueError:
        raise ConfigError(f"--since is a day such as 2026-11-01, or a duration such as 7d, not {since!r}.") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _load(
    pipeline: Pipeline, action: Literal["force", "release"], rows: Sequence[Mapping[str, Any]], note: Audit
) -> list[ActionResult]:
    outcome: dict[str, tuple[State, str | None]]
    outcome = {row["file_id"]: (row["state"], why) for row in rows if (why := _objection(action, row))}
    files = [SourceFile.of_row(row) for row in rows if row["file_id"] not in outcome]
    for pack in pipeline.pack(files):
        results = pipeline.load(pack, run_id=note.run_id, intent=action, note=note)
        outcome |= {result.file_id: (result.state, result.error) for result in results}
    return [_result(row, *outcome[row["file_id"]]) for row in rows]


def _retry(pipeline: Pipeline, rows: Sequence[Mapping[str, Any]], note: Audit) -> list[ActionResult]:
    results = pipeline.warehouse.retry([row["file_id"] for row in rows], note)
    waiting = {result.file_id for result in results if result.error is None}
    files = [SourceFile.of_row(row) for row in rows if row["file_id"] in waiting]
    loaded = {one.file_id: one for pack in pipeline.pack(files) for one in pipeline.load(pack, run_id=note.run_id)}
    now = ((one, loaded.get(one.file_id)) for one in results)
    return [replace(one, state=done.state, error=done.error) if done else one for one, done in now]


def _objection(action: Action, row: Mapping[str, Any], redriven: Container[str] = ()) -> str | None:
    return refusal(action, row["state"], is_redrive=bool(row["redrive_of"]), is_redriven=row["file_id"] in redriven)


def _warned(action: Action, result: ActionResult, row: Mapping[str, Any] | None) -> ActionResult:
    """The same, and that nothing is left to load the file from, where that is so."""
    if action != "undo" or result.error or row is None or not row["deleted_at"]:
        return result
    if row["archived_to"] or row["version_id"] or row["redrive_of"]:
        return result
    gone = f"Its object was taken out of the landing on {row['deleted_at']:%Y-%m-%d}"
    return replace(result, warning=f"{gone}: it can only come back if its producer sends it again.")


def _result(row: Mapping[str, Any], state: State, error: str | None) -> ActionResult:
    return ActionResult(row["file_id"], row["bucket"], row["key"], row["state"], state, error=error)


def _pending(pipeline: Pipeline, uri: str) -> SourceFile:
    """An object that the ledger does not know, as the source that would take it."""
    bucket, key = split_address(uri)
    source = pipeline.settings.sources.get(owner_of(pipeline.settings, bucket, key) or "")
    if source and takes(source, key, pipeline.settings.own_prefixes(bucket)):
        return pipeline.store_of(source.name).describe(bucket, key).for_source(source.name, source.format)
    raise IngestError(f"No file {uri} is in the ledger, and no source would take it.")
