"""What a load makes of staged files: which are its to enter, as what, and what leaves, stays or is open again for that.

In:     judged files; rows of the ledger and fixed lines, read through a `Reader`; which staged lines fail.
Out:    what changes, and what became of each file.
Pure:   no engine, no clock, no file: the same files and rows give the same changes, so it can be planned again.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime

import orjson

from ingest.core.lifecycle import COMPARED, KEEPS_LINES, LOADED_AS, REOPENS, SAME_AGAIN, Intent, State, next_try
from ingest.core.source import SourceFile
from ingest.errors import StaleRedrive
from ingest.plans.changes import Changes, Draft, Entry, LedgerRow, MendedLine, Mending, Place, Reader, same_file
from ingest.ports import COUNTED, Audit, FileResult, Redrive, StagedFile, Staging

_STALE = "Somebody fixed, undid or loaded these lines again in the meantime."
_HELD = "The object has changed since it was loaded, and changed_file is hold."

# Of a staged file (its number) the lines in these places of which some failed: place → SHA-256 of the raw line.
Failing = Callable[[int, Collection[Place]], dict[Place, str]]


@dataclass(frozen=True, slots=True)
class Order:
    """Who loads what, and how."""

    load_id: str
    run_id: str | None
    intent: Intent
    note: Audit


def plan_load(
    reader: Reader, staging: Staging, order: Order, failing: Failing, now: datetime
) -> tuple[Changes, list[FileResult]]:
    """What becomes of these files, in their order. Their numbers of duplicates are the engine's to find.

    Raises:
        StaleRedrive: a line that a redrive fixes is not open any more, or its file is not what it was.
    """
    draft = Draft(reader, Changes(order.note, now, staging))
    plan = _Load(draft, order, failing, now)
    files = plan.met(staging.files)
    for staged, file in zip(staging.files, files, strict=True):
        plan.claim(staged, file)
    plan.compare()
    for entry in plan.entries:
        if entry.inherited or (entry.mended and entry.state in KEEPS_LINES):
            plan.keep_mended(entry)
    plan.enter()
    return draft.changes, [plan.results[file.file_id] for file in files]


@dataclass(slots=True)
class _Entry:
    """A staged file on its way into the ledger."""

    staged: StagedFile
    file: SourceFile
    former: LedgerRow | None
    state: State
    error: str
    original: LedgerRow | None = None  # of a redrive: the file that it mends
    duplicate_of: str | None = None
    replaced_by: str | None = None
    replaces: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    # Lines that redrives mended, of its former rows and of other versions of its key.
    mended: list[MendedLine] = field(default_factory=list)
    inherited: list[LedgerRow] = field(default_factory=list)  # redrives of loaded files whose place it takes
    kept: list[MendedLine] = field(default_factory=list)  # of the mended lines those that fail as they did

    @property
    def place(self) -> tuple[str, str]:
        """The bucket and key under which its lines stand."""
        return self.file.bucket, self.file.mends or self.file.key


@dataclass(slots=True)
class _Load:
    """The steps of a plan, in order."""

    draft: Draft
    order: Order
    failing: Failing
    now: datetime
    entries: list[_Entry] = field(default_factory=list)
    results: dict[str, FileResult] = field(default_factory=dict)
    before: dict[str, LedgerRow] = field(default_factory=dict)  # by file_id
    of_key: dict[tuple[str, str], list[LedgerRow]] = field(default_factory=dict)  # in the order in which they came
    marked: dict[int, set[Place]] = field(default_factory=lambda: defaultdict(set))  # open lines that this load mends

    # --- whose they are ----------------------------------------------------------------------------------------------

    def met(self, staged: Sequence[StagedFile]) -> list[SourceFile]:
        """The files as the ledger knows them: who has no row there may get one, under another id."""
        self.before = self.draft.by_id([one.file.file_id for one in staged])
        self.of_key = defaultdict(list)
        for row in self.draft.reader.ledger("key", {one.file.mends or one.file.key for one in staged}):
            if row.redrive_of is None:
                self.of_key[row.bucket, row.key].append(row)
        return [self._met(one) for one in staged]

    def _met(self, staged: StagedFile) -> SourceFile:
        file = staged.file
        if file.file_id in self.before or file.mends:
            return file
        rows = self.of_key[file.bucket, file.key]
        row = same_file(rows, file)
        if row is None and (row := self._same_again(rows, staged.sha256)):
            # The ledger knows it by how it looks now.
            row = replace(row, etag=file.etag, version_id=file.version_id, last_modified=file.last_modified)
            self.draft.put([row])
        if row is None:
            return file
        self.before[row.file_id] = row
        return replace(file, known_as=row.file_id)

    def _same_again(self, rows: Iterable[LedgerRow], sha256: str) -> LedgerRow | None:
        """The file whose key was handled last in these very bytes, and that did not end up loaded.

        It is the same file, whatever the store calls it now (the same bytes sent again in parts, ETags that it began to
        give, …). Bytes that are loaded, or of which a redrive is, are no change, either: see `compare`.
        """
        read = [row for row in rows if row.state != "retrying"]
        if not read or not sha256 or read[-1].sha256 != sha256 or read[-1].state not in SAME_AGAIN:
            return None
        return None if self.draft.redrives_of([read[-1].file_id]) else read[-1]

    def claim(self, staged: StagedFile, file: SourceFile) -> None:
        """Whether a file is this load's to enter. Nobody else writes now, so what is read stays true."""
        row = self.before.get(file.file_id)
        if row and row.is_settled(file, self.order.intent):
            self.results[file.file_id] = row.result(already=True)
            return
        if row and row.is_settled(file) and staged.outcome == "retrying":
            # What is there stays until there is something better.
            self.results[file.file_id] = replace(row.result(), state="retrying", error=staged.error)
            return
        entry = _Entry(staged, file, row, staged.outcome, staged.error)
        changes = self.draft.changes
        if row and row.is_final:
            if row.state == "rejected":  # the first redrive of a rejected file holds all of it
                self.draft.take_away(self.draft.redrives_of([row.file_id]), "undone")
            else:
                entry.mended = self.draft.mended_lines([row.file_no])
            changes.leaving.append(row.file_no)
        if self.order.note.is_named or (row and (row.is_final or self.order.intent != "new")):
            changes.tell(LOADED_AS[self.order.intent], [file.file_id])
        if staged.redrive:
            self._mend(entry, staged.redrive)
        self.entries.append(entry)

    def _mend(self, entry: _Entry, redrive: Redrive) -> None:
        """The lines that a redrive mends. Raises StaleRedrive if they, or their file, are not as they were."""
        reader, changes = self.draft.reader, self.draft.changes
        original = next(iter(self.draft.rows("file_id", [redrive.of], KEEPS_LINES)), None)
        if not original:
            raise StaleRedrive(_STALE)
        file_no, marked = original.file_no, self.marked[original.file_no]
        # Of a rejected file the first redrive holds all.
        is_unloaded = original.state == "rejected" and not self.draft.redrives_of([redrive.of])
        if (reader.open_lines(file_no) - len(marked) if is_unloaded else None) != redrive.whole_of:
            raise StaleRedrive(_STALE)
        if not marked.isdisjoint(redrive.lines) or reader.open_lines(file_no, redrive.lines) != len(redrive.lines):
            raise StaleRedrive(_STALE)
        marked.update(redrive.lines)
        entry.original = original
        changes.mended.append(Mending(file_no, redrive.lines, entry.file.file_id))
        if redrive.failed:
            self.draft.put([replace(original, failed=original.failed + redrive.failed)])
        changes.tell("redrive", [redrive.of])

    # --- what was under their keys, and their bytes ------------------------------------------------------------------

    def compare(self) -> None:
        """What the policies make of files whose key, or whose bytes, are in the ledger already."""
        new = [entry for entry in self.entries if entry.state in KEEPS_LINES]
        gone: set[str] = set()
        for entry in new:  # what is replaced first: copies of that are no copies any more
            policy, redrive = entry.staged.changed_file, entry.staged.redrive
            versions = [
                row for row in self.of_key[entry.place]
                if row.state in COMPARED and row.file_id != entry.file.file_id
                and (row.state != "replaced" or row.replaced_by)  # else its object was gone before it was loaded
                and not (redrive and row.file_id == redrive.of)
            ]  # fmt: skip
            newest = versions[-1] if versions else None
            is_same = newest is not None and newest.sha256 == entry.staged.sha256
            holds = policy == "hold" and self.order.intent in ("new", "again")
            if newest and is_same and self.order.intent != "force" and not redrive and self._is_there(newest):
                # No change, whatever the ETag, and whatever today's limits would make of it.
                entry.state, entry.duplicate_of = "duplicate", newest.duplicate_of or newest.file_id
                entry.error = ""
            elif newest and holds and (not is_same or newest.state == "held"):
                if not redrive:
                    entry.state, entry.error = "held", _HELD
            elif policy == "replace" and entry.state == "loaded":
                if later := self._later(versions, entry):
                    entry.state, entry.replaced_by = "replaced", later.file_id
                    self.draft.changes.tell("replace", [entry.file.file_id])
                else:
                    self._replace(versions, entry)
                    gone.update(entry.replaces)
            if entry.state == "loaded" and not redrive:
                there = [row.file_no for row in versions if row.state in KEEPS_LINES]
                entry.mended = self.draft.mended_lines(there) + entry.mended
        self._find_copies([entry for entry in new if entry.state == "loaded" and not entry.staged.redrive], gone)

    def _later(self, versions: Sequence[LedgerRow], entry: _Entry) -> LedgerRow | None:
        """The version that is there and came after this one, which was slow to be read: it would never come again."""
        is_named = entry.former is not None and entry.former.state in REOPENS["again"]
        if entry.staged.redrive or is_named or self.order.intent not in ("new", "again"):
            return None
        later = (row for row in versions if row.version_id and row.last_modified > entry.file.last_modified)
        return next((row for row in later if self._is_there(row)), None)

    def _is_there(self, row: LedgerRow) -> bool:
        """Whether what a file says is loaded: by itself, as another one, or by a redrive that holds all of it."""
        return row.state in ("loaded", "duplicate") or (
            row.state == "rejected" and bool(self.draft.redrives_of([row.file_id]))
        )

    def _find_copies(self, entries: Sequence[_Entry], gone: AbstractSet[str]) -> None:
        """Bytes that are loaded under another key are not loaded again, unless that is asked for."""
        may_be = {
            entry.staged.sha256 for entry in entries
            if self.order.intent != "force" and entry.file.size_bytes and entry.staged.skip_same_bytes
        }  # fmt: skip
        there = defaultdict(list)
        for row in self.draft.reader.ledger("sha256", may_be, ("loaded",)) if may_be else ():
            if row.redrive_of is None and row.file_id not in gone:
                there[row.source, row.sha256].append(row)
        in_this_load: dict[tuple[str, str], str] = {}
        for entry in entries:
            file, sha256 = entry.file, entry.staged.sha256
            if self.order.intent != "force" and file.size_bytes and entry.staged.skip_same_bytes:
                loaded = [row.file_id for row in there[file.source, sha256] if (row.bucket, row.key) != entry.place]
                original = loaded[0] if loaded else in_this_load.get((file.source, sha256))
                if original:
                    entry.state, entry.duplicate_of = "duplicate", original
                    continue
            in_this_load[file.source, sha256] = file.file_id

    def _replace(self, versions: Sequence[LedgerRow], entry: _Entry) -> None:
        """Take away the other versions of a key, and what redrives of them brought: see `keep_mended`."""
        file, gone = entry.file, [row for row in versions if row.state == "loaded"]
        loaded = {row.file_id for row in gone}
        redrives = self.draft.redrives_of([row.file_id for row in versions])
        entry.inherited += [one for one in redrives if one.redrive_of in loaded]
        brought = [one for one in redrives if one.redrive_of not in loaded]  # one of a rejected file may hold all of it
        for some in (gone, brought):
            entry.replaces += self.draft.take_away(some, "replaced", file.file_id)
        copies = self.draft.rows("duplicate_of", entry.replaces, ("duplicate",))
        entry.copies = tuple(copy.file_id for copy in copies if (copy.bucket, copy.key) != (file.bucket, file.key))

    # --- what was fixed of them --------------------------------------------------------------------------------------

    def keep_mended(self, entry: _Entry) -> None:
        """Lines that fail as they did before stay mended, though their file is put anew, or its object was changed.

        A redrive of this file, or of one whose place it takes, is this file's from now on. One that mended other lines,
        too, goes: those may be accepted now. A redrive of a version that stays is that version's.
        """
        mended = {(line.place, line.raw_sha256): line for line in entry.mended}
        places = {place for place, _ in mended}
        failing = self.failing(entry.staged.staged_no, places) if mended and entry.state in KEEPS_LINES else {}
        entry.kept = [line for (place, sha256), line in mended.items() if failing.get(place) == sha256]
        still = {line.place for line in entry.kept}
        stale = {line.redriven_by for line in entry.mended if line.place not in still}
        if stale:
            ours = self.draft.redrives_of([entry.file.file_id])
            self.draft.take_away([one for one in ours if one.file_id in stale], "undone")
        holds = {line.redriven_by for line in entry.mended} - stale
        self.draft.put(
            replace(one, redrive_of=entry.file.file_id)
            for one in self.draft.by_id([one.file_id for one in entry.inherited if one.file_id in holds]).values()
        )
        lost = [one for one in entry.inherited if one.file_id not in holds]
        entry.replaces += self.draft.take_away(lost, "replaced", entry.file.file_id)

    # --- what the ledger says ----------------------------------------------------------------------------------------

    def enter(self) -> None:
        changes = self.draft.changes
        for entry in self.entries:
            row = self._row(entry)
            # What a redrive that went had mended is open.
            kept = tuple(line for line in entry.kept if line.redriven_by not in changes.reopened)
            lines_of = entry.original.file_no if entry.original else None
            changes.ledger.pop(row.file_id, None)
            changes.entries.append(Entry(row, entry.staged, lines_of, kept))
            self.results[row.file_id] = replace(
                row.result(), fixed=len(kept), replaces=entry.replaces, copies=entry.copies
            )

    def _row(self, entry: _Entry) -> LedgerRow:
        file, staged, former, order = entry.file, entry.staged, entry.former, self.order
        attempts = (former.attempts if former else 0) + 1
        retrying = entry.state == "retrying"
        return LedgerRow(
            file_id=file.file_id, source=file.source, bucket=file.bucket, key=file.key, etag=file.etag,
            version_id=file.version_id, last_modified=file.last_modified, sha256=staged.sha256 or None,
            size_bytes=file.size_bytes, format=file.format, people_space=staged.people_space, state=entry.state,
            **{name: getattr(staged.counts, name) for name in COUNTED if name != "duplicates"},
            warnings=orjson.dumps(staged.counts.warnings).decode(), load_id=order.load_id, run_id=order.run_id,
            loaded_at=None if retrying else self.now, attempts=attempts,
            next_try_at=next_try(attempts, self.now) if retrying else None, duplicate_of=entry.duplicate_of,
            replaced_by=entry.replaced_by, redrive_of=staged.redrive.of if staged.redrive else None,
            archived_to=former.archived_to if former else None, deleted_at=former.deleted_at if former else None,
            error=entry.error or None, position=file.position, match=staged.match, read_bytes=staged.read_bytes,
        )  # fmt: skip
