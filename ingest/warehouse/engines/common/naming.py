"""Settings that say whom a name means hold backwards: rows that were loaded under others get new keys and identities.

Nothing is judged again. What a row asks for stands in it as sent, so its keys are made as loading would make them;
then the first rows of all facts, and whom aliases join, are found again.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import pyarrow as pa

from ingest.core.facts import fact_of, keys
from ingest.settings import Source
from ingest.warehouse.engines.common.session import Session

ROWS_AT_ONCE = 20_480
_KEYS = pa.schema(
    [
        ("people_space", pa.string()), ("person_key", pa.string()), ("event_key", pa.string()),
        ("alias_key", pa.string()), ("command_id", pa.uuid()),
    ]
)  # fmt: skip
_RENAMED = pa.schema(
    [("file_no", pa.int64()), ("people_space", pa.string()), ("to_space", pa.string()), ("to_match", pa.string())]
)
_KEPT_APART = ("from_space", "to_space", "to_match", "at")  # no columns of the table
_log = logging.getLogger(__name__)


def name_anew(session: Session, sources: Mapping[str, Source], rename: Callable[[Session, pa.Table], None]) -> int:
    """Give the rows of files whose source's `people_space` or `match` has changed what they would be loaded with now.

    Files of sources that the settings do not name stay as they are. `rename` is the engine's: it puts rows made by
    `renamed` in the place of those of some files (file_no, people_space, to_space, to_match). How many files changed.
    """
    groups = session.fetch("SELECT DISTINCT source, format, people_space, match FROM ledger WHERE match IS NOT NULL")
    changed = [
        group | {"to_space": to.people_space, "to_match": to.match}
        for group in groups
        if group["source"] in sources
        and (to := sources[group["source"]].naming(group["format"])) != (group["people_space"], group["match"])
    ]
    if not changed:
        return 0
    for named in {(group["source"], group["to_space"], group["to_match"]) for group in changed}:
        _log.warning("%s: its names are matched again, in people_space %s by match %s", *named)
    with session.table("changed", pa.Table.from_pylist(changed)):
        files = session.fetch(
            "SELECT l.file_no, l.people_space, c.to_space, c.to_match"
            " FROM ledger AS l JOIN changed AS c USING (source, format, people_space, match)"
        )
    of_files = pa.Table.from_pylist(files, _RENAMED)
    with session.table("renamed", of_files):
        rename(session, of_files)
        session.run("rename_files")
    for space, match in {(group["to_space"], group["to_match"]) for group in changed}:
        session.run("enter_people_space", people_space=space, match=match)
    session.mark_first_anew()
    session.join_persons_anew()
    return len(files)


def renamed(batch: pa.RecordBatch) -> pa.Table:
    """Some rows as they are to be: `batch` is of `rows_to_rename`."""
    columns = zip(*map(_keys, batch.to_pylist()), strict=True)
    made = [pa.array(column, field.type) for column, field in zip(columns, _KEYS, strict=True)]
    kept = [name for name in batch.schema.names[: -len(_KEPT_APART)] if name not in _KEYS.names]
    return pa.table([*(batch[name] for name in kept), *made], names=[*kept, *_KEYS.names])


def _keys(row: dict[str, Any]) -> tuple[str | None, str | None, str | None, str | None, bytes]:
    """people_space, person_key, event_key, alias_key and command_id of one row under the settings of now."""
    to_space = row["to_space"]
    # Spaces of a file's own besides the source's (accounts) are named after it.
    own = row["people_space"] and to_space + row["people_space"].removeprefix(row["from_space"])
    identity = orjson.loads(row["identity"] or "[]")
    fact = fact_of(row["properties"].encode())
    return own, *keys(
        row["to_match"],
        row["kind"],
        own or to_space,
        row["person"],
        row["at"],
        row["event"],
        row["alias"],
        fact,
        identity,
    )
