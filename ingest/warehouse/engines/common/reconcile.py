"""Does the warehouse agree with itself? What its tables say of each other, and what of it can be fixed."""

from datetime import UTC, datetime
from typing import Any

from ingest.plans.changes import Applied, Changes
from ingest.ports import Audit
from ingest.warehouse.engines.common.applying import Applying, TablesReader
from ingest.warehouse.engines.common.session import Session

_NOT_LOADED = """
    SELECT DISTINCT redriven_by FROM failed_line_rows
    WHERE redriven_by IS NOT NULL AND redriven_by NOT IN (SELECT file_id FROM ledger WHERE state = 'loaded')"""


def disagreements(session: Session) -> list[dict[str, Any]]:
    """See `ingest.ports.Warehouse.disagreements`."""
    found = session.fetch(session.statement("disagreements"))
    session.run("wrong_first")
    ((wrong_first,),) = session.rows("SELECT count(*) FROM wrong_first")
    unjoined = session.joining(session.named("unjoined_aliases"))
    ((unfounded,),) = session.named("unfounded_links")
    of_no_file = {"first_rows": wrong_first, "person_links": len(unjoined) + unfounded}
    return found + [
        {"file_id": None, "source": None, "key": None, "what": what, "expected": "0", "found": str(number)}
        for what, number in of_no_file.items()
        if number
    ]


def repair(session: Session, applying: type[Applying], note: Audit) -> Applied:
    """See `ingest.ports.Warehouse.repair`. Needs the warehouse for itself."""
    found = disagreements(session)
    what = {one["what"] for one in found}
    ids = {name: [one["file_id"] for one in found if one["what"] == name] for name in what}
    changes = Changes(note, datetime.now(UTC))
    left_over = TablesReader(session).ledger("file_id", ids.get("leftover_rows", ()))
    changes.leaving = [row.file_no for row in left_over]
    changes.reopened = {by for (by,) in session.rows(_NOT_LOADED)}
    changes.tell("repair", dict.fromkeys([*ids.get("leftover_rows", ()), *ids.get("redriven_by", ())]))
    applied = applying(session, changes).run()
    if "first_rows" in what:
        session.mark_first_anew()  # taking rows away has changed it
    if "person_links" in what:
        session.join_persons_anew()
    return applied
