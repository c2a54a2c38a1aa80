"""What an action makes of files that were dealt with: each a plan, all or nothing, with its lines in `history`.

In:     rows of the ledger, read through a `Reader`.
Out:    what changes, and what is answered.
Pure:   no engine and no clock.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from ingest.core.lifecycle import WAITS, Action, State, refusal
from ingest.core.source import SourceFile
from ingest.plans.changes import Changes, Draft, LedgerRow, Reader, same_file
from ingest.ports import ActionResult, Audit, Mark

_GONE = "Its object was deleted, or another version stands under its key now: nothing of it was loaded."
_SKIPPED = 'It was there at the first poll, and existing_files is "skip".'


def plan_undo(
    reader: Reader, file_ids: Sequence[str], note: Audit, now: datetime
) -> tuple[Changes, list[ActionResult]]:
    """Take the rows of files away, and those of their redrives."""
    draft = Draft(reader, Changes(note, now))
    chosen = draft.by_id(file_ids)
    originals = draft.by_id([row.redrive_of for row in chosen.values() if row.redrive_of])
    redrives = defaultdict(list)
    for redrive in draft.redrives_of([*chosen, *originals]):
        redrives[redrive.redrive_of].append(redrive)
    copies = defaultdict(list)
    for copy in draft.rows("duplicate_of", chosen, ("duplicate",)):
        copies[copy.duplicate_of].append(copy.file_id)
    leaving: dict[str, LedgerRow] = {}
    results = []
    for file_id, found in chosen.items():
        # It may have gone along with another.
        row = replace(found, state="undone") if file_id in leaving else found
        result = _as_asked("undo", row, "undone")
        if result.error:
            results.append(result)
            continue
        along = [one for one in redrives[file_id] if one.file_id not in leaving]
        if row.redrive_of:
            first, *later = [one for one in redrives[row.redrive_of] if one.file_id not in leaving] or [row]
            original = originals.get(row.redrive_of)
            if original and original.state == "rejected" and first.file_id == file_id:
                along = later  # they lean on it: it holds all the rest of the rejected file
        leaving |= {one.file_id: one for one in (row, *along)}
        went_along = tuple(one.file_id for one in along)
        results.append(replace(result, redrives=went_along, duplicates=tuple(copies[file_id])))
    draft.take_away(leaving.values(), "undone")
    return draft.changes, results


def plan_ignore(
    reader: Reader, file_ids: Sequence[str], new: Sequence[SourceFile], note: Audit, now: datetime
) -> tuple[Changes, list[ActionResult]]:
    """Deal with files by not loading them."""
    draft = Draft(reader, Changes(note, now))
    there, unknown = _met(reader, new)
    known = draft.by_id(file_ids) | {row.file_id: row for row in there}
    redriven = {one.redrive_of for one in draft.redrives_of(known)}
    results = [_as_asked("ignore", row, "ignored", is_redriven=file_id in redriven) for file_id, row in known.items()]
    taken = [known[result.file_id] for result in results if not result.error]
    draft.put(replace(row, state="ignored", replaced_by=None) for row in taken)
    changes = draft.changes
    changes.ignored = unknown
    changes.tell("ignore", [row.file_id for row in taken] + [file.file_id for file in changes.ignored])
    results += [ActionResult(f.file_id, f.bucket, f.key, "pending", "ignored") for f in changes.ignored]
    return changes, results


def plan_first_poll(reader: Reader, source: str, there: Sequence[SourceFile], now: datetime) -> tuple[Changes, int]:
    """Enter what the ledger knows under no id as ignored; how many. Nothing, if somebody was quicker."""
    changes = Changes(Audit("ingest", _SKIPPED), now)
    if reader.was_polled(source):
        return changes, 0
    changes.polled = source
    _, changes.ignored = _met(reader, there)
    changes.tell("ignore", [file.file_id for file in changes.ignored])
    return changes, len(changes.ignored)


def _met(reader: Reader, files: Sequence[SourceFile]) -> tuple[list[LedgerRow], list[SourceFile]]:
    """Rows of the ledger that are of these files, under whatever id, and the files that it does not know."""
    rows = {row.file_id: row for row in reader.ledger("file_id", [file.file_id for file in files])}
    of_key = defaultdict(list)
    for row in reader.ledger("key", [file.key for file in files if file.file_id not in rows]):
        of_key[row.key].append(row)
    met = [(file, rows.get(file.file_id) or same_file(of_key[file.key], file)) for file in files]
    return [row for _, row in met if row], [file for file, row in met if not row]


def plan_retry(
    reader: Reader, file_ids: Sequence[str], note: Audit, now: datetime
) -> tuple[Changes, list[ActionResult]]:
    """Not later, but now."""
    draft = Draft(reader, Changes(note, now))
    known = draft.by_id(file_ids)
    results = [_as_asked("retry", row, "retrying") for row in known.values()]
    waiting = [known[result.file_id] for result in results if not result.error]
    draft.put(replace(row, next_try_at=now) for row in waiting)
    draft.changes.tell("retry", [row.file_id for row in waiting])
    return draft.changes, results


def plan_close_gone(reader: Reader, file_ids: Sequence[str], note: Audit, now: datetime) -> tuple[Changes, None]:
    """What waits for an object that is gone is closed."""
    draft = Draft(reader, Changes(note, now))
    waiting = [row for row in draft.by_id(file_ids).values() if row.state in WAITS]
    draft.put(
        replace(row, state="replaced", replaced_by=None, error=_GONE, loaded_at=now, next_try_at=None)
        for row in waiting
    )
    draft.changes.tell("gone", [row.file_id for row in waiting], _GONE)
    return draft.changes, None


def plan_mark(reader: Reader, marks: Sequence[Mark], note: Audit, now: datetime) -> tuple[Changes, None]:
    """Write down where objects went, once: what the ledger knows already stays."""
    draft = Draft(reader, Changes(note, now))
    rows = draft.by_id([mark.file_id for mark in marks])
    for mark in marks:
        row = rows.get(mark.file_id)
        if row and mark.archived_to and not row.archived_to:
            row = replace(row, archived_to=mark.archived_to)
            draft.changes.tell("archived", [row.file_id], mark.reason)
        if row and mark.deleted_at and not row.deleted_at:
            row = replace(row, deleted_at=mark.deleted_at)
            draft.changes.tell("deleted", [row.file_id], mark.reason)
        if row and row is not rows[mark.file_id]:
            rows[mark.file_id] = row
            draft.put([row])
    return draft.changes, None


def plan_notify_once(reader: Reader, file_ids: Sequence[str], note: Audit, now: datetime) -> tuple[Changes, list[str]]:
    """Tell of each file once, unless that was taken back."""
    last = dict(reader.notices(file_ids, note.reason))
    new = [file_id for file_id in dict.fromkeys(file_ids) if last.get(file_id) != "notified"]
    changes = Changes(note, now)
    changes.tell("notified", new)
    return changes, new


def plan_not_notified(_: Reader, file_ids: Sequence[str], note: Audit, now: datetime) -> tuple[Changes, None]:
    """Take that back."""
    changes = Changes(note, now)
    changes.tell("not_notified", file_ids)
    return changes, None


def _as_asked(action: Action, row: LedgerRow, state: State, *, is_redriven: bool = False) -> ActionResult:
    why = refusal(action, row.state, is_redriven=is_redriven)
    return ActionResult(row.file_id, row.bucket, row.key, row.state, row.state if why else state, error=why)
