"""Settings that say whom a name means hold backwards: rows that were loaded under others get new keys and identities.

Nothing is judged again. What a row asks for stands in it as sent, so its keys are made as loading would make them;
then the first rows of all facts, and whom aliases join, are found again.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from ingest.core.rows import fact_of, keys
from ingest.settings import Source
from ingest.warehouse.engines.duckdb.rows import Rows
from ingest.warehouse.engines.duckdb.statements import statement

_ROWS_AT_ONCE = 20_480
_KEYS = pa.schema(
    [
        ("people_space", pa.string()), ("person_key", pa.string()), ("event_key", pa.string()),
        ("alias_key", pa.string()), ("command_id", pa.uuid()),
    ]
)  # fmt: skip
_KEPT_APART = ("from_space", "to_space", "to_match", "at")  # no columns of the table
_log = logging.getLogger(__name__)


def name_anew(rows: Rows, sources: Mapping[str, Source]) -> None:
    """Give the rows of files whose source's `people_space` or `match` has changed what they would be loaded with now.

    Files of sources that the settings do not name stay as they are.
    """
    connection = rows.connection
    groups = rows.fetch("SELECT DISTINCT source, format, people_space, match FROM ledger WHERE match IS NOT NULL", {})
    changed = [
        group | {"to_space": to.people_space, "to_match": to.match}
        for group in groups
        if group["source"] in sources
        and (to := sources[group["source"]].naming(group["format"])) != (group["people_space"], group["match"])
    ]
    if not changed:
        return
    for named in {(group["source"], group["to_space"], group["to_match"]) for group in changed}:
        _log.warning("names_matched_anew source=%s people_space=%s match=%s", *named)
    with rows.table("changed", pa.Table.from_pylist(changed)):
        renamed = connection.sql(
            "SELECT l.file_no, l.people_space, c.to_space, c.to_match"
            " FROM ledger AS l JOIN changed AS c USING (source, format, people_space, match)"
        ).to_arrow_table()
    with rows.table("renamed", renamed):
        connection.execute("DELETE FROM command_rows WHERE file_no IN (SELECT file_no FROM renamed)")
        for rows_anew in _renamed_rows(connection, renamed):
            some_rows = rows_anew  # noqa: F841 - the engine finds it by its name
            connection.execute("INSERT INTO command_rows BY NAME SELECT * FROM some_rows")
        connection.execute(
            "UPDATE ledger SET people_space = r.to_space, match = r.to_match"
            " FROM renamed AS r WHERE ledger.file_no = r.file_no"
        )
    for space, match in {(group["to_space"], group["to_match"]) for group in changed}:
        connection.execute(statement("enter_people_space"), {"people_space": space, "match": match})
    connection.execute(statement("wrong_first"))
    connection.execute(statement("mark_first"))
    rows.join_persons_anew()


def _renamed_rows(connection: duckdb.DuckDBPyConnection, renamed: pa.Table) -> Iterator[pa.Table]:
    """The rows as they are to be. Another session reads them: it sees what was committed, whatever is done here."""
    with connection.cursor() as cursor:
        cursor.register("renamed", renamed)
        for batch in cursor.sql(statement("rows_to_rename")).to_arrow_reader(_ROWS_AT_ONCE):
            columns = zip(*map(_keys, batch.to_pylist()), strict=True)
            made = [pa.array(column, field.type) for column, field in zip(columns, _KEYS, strict=True)]
            kept = [name for name in batch.schema.names[: -len(_KEPT_APART)] if name not in _KEYS.names]
            yield pa.table([*(batch[name] for name in kept), *made], names=[*kept, *_KEYS.names])


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
