"""Does the warehouse agree with itself? What its tables say of each other, and what of it can be fixed."""

from datetime import UTC, datetime
from typing import Any

import duckdb

from ingest.plans.changes import Changes
from ingest.ports import Note
from ingest.warehouse.engines.duckdb.apply import DuckDBReader, apply
from ingest.warehouse.engines.duckdb.errors import could_not_write
from ingest.warehouse.engines.duckdb.rows import Rows
from ingest.warehouse.engines.duckdb.session import DuckDBFile
from ingest.warehouse.engines.duckdb.statements import statement

_NOT_LOADED = """
    SELECT DISTINCT redriven_by FROM failed_line_rows
    WHERE redriven_by IS NOT NULL AND redriven_by NOT IN (SELECT file_id FROM ledger WHERE state = 'loaded')"""


def disagreements(warehouse: DuckDBFile) -> list[dict[str, Any]]:
    """See `ingest.ports.Warehouse.disagreements`."""
    with warehouse.reading() as connection:
        return _disagreements(Rows(connection, warehouse.ignored_identities))


def _disagreements(rows: Rows) -> list[dict[str, Any]]:
    found = rows.fetch(statement("disagreements"), {})
    rows.connection.execute(statement("wrong_first"))
    ((wrong_first,),) = rows.connection.execute("SELECT count(*) FROM wrong_first").fetchall()
    unjoined = rows.joining(rows.connection.execute(statement("unjoined_aliases")).fetchall())
    ((unfounded,),) = rows.connection.execute(statement("unfounded_links")).fetchall()
    of_no_file = {"first_rows": wrong_first, "person_links": len(unjoined) + unfounded}
    return found + [
        {"file_id": None, "source": None, "key": None, "what": what, "expected": "0", "found": str(number)}
        for what, number in of_no_file.items()
        if number
    ]


def repair(warehouse: DuckDBFile, note: Note) -> None:
    """See `ingest.ports.Warehouse.repair`."""
    try:
        with warehouse.writing() as connection:
            rows = Rows(connection, warehouse.ignored_identities)
            found = _disagreements(rows)
            what = {one["what"] for one in found}
            ids = {name: [one["file_id"] for one in found if one["what"] == name] for name in what}
            changes = Changes(note, datetime.now(UTC))
            left_over = DuckDBReader(rows).ledger("file_id", ids.get("leftover_rows", ()))
            changes.leaving = [row.file_no for row in left_over]
            changes.reopened = {by for (by,) in connection.execute(_NOT_LOADED).fetchall()}
            changes.tell("repair", dict.fromkeys([*ids.get("leftover_rows", ()), *ids.get("redriven_by", ())]))
            apply(rows, changes)
            if "first_rows" in what:
                connection.execute(statement("wrong_first"))  # taking rows away has changed it
                connection.execute(statement("mark_first"))
            if "person_links" in what:
                rows.join_persons_anew()
    except duckdb.Error as error:
        raise could_not_write(warehouse, error) from error
