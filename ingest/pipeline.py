"""The story of a load: discover, judge, load. Every way in (schedule, upload, command line, dry run) comes this way.

What is written is decided by the warehouse in one transaction; nothing here remembers anything between two calls.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from ingest.archiving import archive
from ingest.core.address import is_file_id, meant, split_address
from ingest.core.commands import Rules
from ingest.core.formats import FORMATS
from ingest.core.formats.guess import AUTO, guess
from ingest.core.lifecycle import WAITS, Intent, is_due
from ingest.core.source import LOCAL_BUCKET, ONE_OFF, SourceFile
from ingest.discovery import ARCHIVED, Selection, in_order, own_object, owner_of, versions_apart
from ingest.errors import ConfigError, IngestError, ListingDoubted, ObjectGone, TransientError
from ingest.ports import Audit, Counts, FileResult, ObjectStore, StagedFile, Staging, Warehouse, as_judged, not_entered
from ingest.read_access import canonical
from ingest.reading import HEAD_BYTES, Digest, decompressed, peek
from ingest.settings import Settings, Source
from ingest.staging import Limits, Progress, TooMuchAtOnce, stage, staging_folder
from ingest.text import count
from ingest.unarchiving import look_at_poll

_PACK_BYTES = 256 << 20
_PACK_FILES = 500
_ID_AT_LEAST = 8  # characters of a file's id, so that no mistyped path is one
_WAITING_TOLD = 20
_MOST_PACKS = 1000  # Airflow maps a task at most 1,024 times


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a source has to load, and what no rule takes."""

    pending: list[SourceFile]
    matching: int  # objects that a rule takes, loaded or not
    ignored: int
    ignored_names: list[str]
    gone: list[str]  # keys of files that waited, and whose objects are gone
    cut: str | None = None  # why there may be more than was listed
    waiting: tuple[str, ...] = ()  # a sentence for each file that could not be loaded and is not yet tried again
    notices: tuple[str, ...] = ()  # what a person should know, and nobody need do anything about

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps files from being loaded: a poll is not well while there is any."""
        told = self.waiting[:_WAITING_TOLD]
        if (more := len(self.waiting) - len(told)) > 0:
            told += (f"{count(more, 'more file')} could not be loaded yet: `ingest files --state retrying`",)
        return (*filter(None, [self.cut]), *told)


@dataclass(frozen=True, slots=True)
class Poll:
    """What a poll is to load, and what it tells before it does."""

    pending: list[SourceFile]
    found: Discovery
    problems: tuple[str, ...]  # sentences; the poll is not well while there is any
    notices: tuple[str, ...]
    left: list[str]  # what former polls have left and what still cannot be archived: see `archive`


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The steps, tied to a world by `ingest.wiring`."""

    settings: Settings
    store_of: Callable[[str], ObjectStore]  # by the name of a source
    warehouse: Warehouse

    # --- discover ----------------------------------------------------------------------------------------------------

    def source(self, name: str) -> Source:
        """The source called `name`. Raises ConfigError if there is none, or its settings are wrong."""
        try:
            return self.settings.sources[name]
        except KeyError:
            if any(source.name == name for source in self.settings.unsound):
                told = "so nothing is taken for it. Correct them in ingest.toml."
                raise ConfigError(f"The settings of the source {name} are wrong, {told}") from None
            known = ", ".join(sorted(self.settings.sources)) or "none"
            raise ConfigError(f"There is no source {name!r} in ingest.toml. Known: {known}.") from None

    def poll(self, name: str, note: Audit, *, dry_run: bool = False) -> Poll:
        """The story of a poll up to its loads: archive what former ones have left, pass over what was there before the
        first one, look whether the archive knows more than the ledger, discover. A dry run changes nothing.
        """
        left = [] if dry_run else archive(self, name, note)
        passed = 0 if dry_run else self.begin_poll(name)
        lost = look_at_poll(self, name)
        found = self.discover(name, None if dry_run else note)
        pending = found.pending
        notices = []
        if passed:
            notices.append(f"{count(passed, 'file')} there before the first poll, entered as ignored")
        if found.gone:
            notices.append(f"{count(len(found.gone), 'file')} waited, but gone by now: {', '.join(found.gone)}")
        notices += found.notices
        if found.ignored:
            notices.append(f"{count(found.ignored, 'object')} that no rule takes: {', '.join(found.ignored_names)}")
        if dry_run and not self.takes_what_is_there(name):
            notices.append(f"the first poll would enter {count(len(pending), 'file')} as ignored")
            pending = []
        return Poll(pending, found, tuple(filter(None, (lost, *found.problems))), tuple(notices), left)

    def discover(self, name: str, note: Audit | None = None) -> Discovery:
        """The landing of a source minus the ledger, in natural key order.

        What waits (retrying, held) and is listed no more is asked for by itself: where its object is gone, nothing can
        come of it any more, and its row is closed if there is a `note`. An older version that is there is tried again.
        A listing that is in doubt proves nothing about what it does not show.
        """
        now = datetime.now(UTC)
        # Read before the listing: what is entered meanwhile is no row that the listing misses.
        waiting = {row["file_id"]: row for row in self.warehouse.files({"source": name, "state": [*WAITS]})}
        keys = {row["key"] for row in waiting.values()}
        selection, files = self._landing(self.source(name))
        doubts: list[ListingDoubted] = []
        met: list[SourceFile] = []

        def seen(listed: Iterable[SourceFile]) -> Iterator[SourceFile]:
            for file in _heard(listed, doubts.append):
                if file.key in keys:
                    met.append(file)
                yield file

        pending = self.warehouse.unseen(seen(files), now)
        put_off = [
            row for row in waiting.values() if row["state"] == "retrying" and not is_due(row["next_try_at"], now)
        ]
        for row in (*({"file_id": file.file_id} for file in self.warehouse.recognise(met)), *put_off):
            waiting.pop(row["file_id"], None)
        # What is new under a key may be what is held there, under another look: only its bytes tell.
        new_keys = {file.key for file in pending}
        unlisted = [
            SourceFile.of_row(row)
            for row in waiting.values()
            if not doubts and (row["state"] == "retrying" or (row["version_id"] is None and row["key"] not in new_keys))
        ]
        is_gone = {file.file_id: self._is_gone(file) for file in unlisted}
        gone = [file for file in unlisted if is_gone[file.file_id]]
        if gone and note:
            self.warehouse.close_gone([file.file_id for file in gone], note)
        pending += self.warehouse.unseen((file for file in unlisted if not is_gone[file.file_id]), now)
        return Discovery(
            in_order(pending), selection.taken, selection.ignored, selection.ignored_names, [file.key for file in gone],
            cut=next((str(doubt) for doubt in doubts if doubt.cut), None),
            waiting=tuple(map(still_waiting, put_off)),
            notices=(*(str(doubt) for doubt in doubts if not doubt.cut), *selection.notices),
        )  # fmt: skip

    def _is_gone(self, file: SourceFile) -> bool:
        """Whether the store says that this version is there no more; whatever else it says proves nothing."""
        try:
            next(self.store_for(file.source, file.bucket, file.key).read(file), None)
        except IngestError as error:
            return isinstance(error, ObjectGone)
        return False

    def begin_poll(self, name: str) -> int:
        """Call before a poll discovers: what is there before the first one may be passed over; how many files are."""
        if self.takes_what_is_there(name):
            return 0

        def demand_whole(doubt: ListingDoubted) -> None:
            if doubt.cut:
                raise doubt

        listed = _heard(self._landing(self.source(name))[1], demand_whole)
        return self.warehouse.first_poll(name, listed, datetime.now(UTC))

    def takes_what_is_there(self, name: str) -> bool:
        """Whether the next poll loads what is there: not the first one of a source that passes that over."""
        return self.source(name).existing_files == "load" or self.warehouse.was_polled(name)

    def _landing(self, source: Source) -> tuple[Selection, Iterator[SourceFile]]:
        """What lies in the landing of a source, and what came of sifting it once all of that was read."""
        selection = Selection(source, self.settings.own_prefixes(source.bucket))
        return selection, selection.sift(self.store_of(source.name).list(source.bucket, source.prefix))

    def locate(
        self,
        address: str,
        source: str | None = None,
        format: str | None = None,
        notice: Callable[[str], object] = lambda _: None,
        doubt: Callable[[str], object] | None = None,
        *,
        archived: bool = True,
    ) -> list[SourceFile]:
        """The source files that a person means by a path, `-`, an s3:// URI, a prefix (ending in `/`) or an id.

        The beginning of an id will do, of as many characters as tables show; a file of that name goes before.

        What belongs to a source stays in it, whatever `source` and `format` say: what the ledger knows keeps its
        source, and may take the place of its rows; else `owner_of` tells. What is nobody's is for `source`, and the
        format `auto` is that which its beginning tells. A copy in the archive means the file that was archived; so does
        its old key where nothing is any more. The warehouse tells these, if `archived`.
        `doubt` is told what is wrong with a listing, of which then all is taken that it showed; else that is raised.
        `notice` is told what is passed over below a prefix, and what belongs to another source than the one named.

        Raises:
            ConfigError: no such source or format, not an address, or an object that the program itself wrote.
            ObjectGone: nothing is there.
        """
        chosen = self.source(source) if source else Source(name=ONE_OFF, bucket="")
        if format and format not in (AUTO, *FORMATS):
            raise ConfigError(f"There is no format {format!r}. Known: {', '.join((*FORMATS, AUTO))}.")
        bucket, _ = split_address(address)
        files = self._there(address, chosen, notice, doubt, archived=archived)
        known: dict[str, dict[str, Any]] = {}
        if archived:
            files = self.warehouse.recognise(files)
            known = self._rows_of("file_id", [file.file_id for file in files])
            files = self._originals(bucket, files, known, lambda text: notice(f"{address}: {text}"))
        located, kept = [], Counter[tuple[str, str]]()
        for file in files:
            row = known.get(file.file_id)
            stamped = self._stamped(file, row, chosen, format)
            located.append(stamped)
            is_nobodys = stamped.source == ONE_OFF
            by_source = stamped.source != chosen.name and (source or not row)
            if by_source or (not is_nobodys and format not in (None, AUTO, stamped.format)):
                kept[stamped.source, stamped.format] += 1
        for (owner, its_format), number in kept.items():
            belong = f"{count(number, 'file')} belong{'s' * (number == 1)} to the source {owner}"
            notice(f"{address}: {belong}, and {'are' if number > 1 else 'is'} taken by its rules, as {its_format}.")
        return in_order(located)

    def _there(
        self,
        address: str,
        chosen: Source,
        notice: Callable[[str], object],
        doubt: Callable[[str], object] | None,
        *,
        archived: bool,
    ) -> list[SourceFile]:
        """What is at an address, or below it; where nothing is any more, what was archived from there last."""
        bucket, key = split_address(address)
        if bucket == LOCAL_BUCKET and key != "-":
            key = canonical(self.settings, key) or os.path.abspath(key)  # noqa: PTH100 - Path.resolve follows links
        store = self.store_for(owner_of(self.settings, bucket, key) or chosen.name, bucket, key)
        if bucket == LOCAL_BUCKET and key != "-" and Path(key).is_dir():
            key += "/"
        if key == "" or key.endswith("/"):
            below = replace(chosen, bucket=bucket, prefix=key)
            # Uploads may be loaded, which no source takes by itself; what the program wrote never is a source file.
            uploads = self.settings.uploads_prefix if bucket == self.settings.uploads_bucket else None
            own = tuple(prefix for prefix in self.settings.own_prefixes(bucket) if prefix != uploads)
            selection = Selection(below, own)
            listed = store.list(bucket, key)
            found = selection.sift(_heard(listed, lambda error: doubt(str(error))) if doubt else listed)
            files = [file for file in found if not own_object(self.settings, bucket, file.key)]
            if selection.ignored:
                notice(f"{address}: {selection.passed_over}")
            if not files and key.startswith(own):
                why = "The program itself writes there, and takes no files from there"
                raise ObjectGone(f"{address}: {why}. Name the file by its key in the landing.")
            if not files:
                raise ObjectGone(f"Nothing under {address} is a .json or .json.gz file.")
            return files
        if what := own_object(self.settings, bucket, key):
            raise ConfigError(f"{address} {what}. The program itself wrote it: it is no source file.")
        try:
            return [store.describe(bucket, key)]
        except ObjectGone:
            if archived and is_file_id(address):
                return [self._of_ledger(address)]
            rows = self.warehouse.files({"bucket": bucket, "key": key}, limit=1) if archived else []
            if rows and rows[0]["archived_to"]:
                return [SourceFile.of_row(rows[0])]
            hint = meant(address)
            with suppress(IngestError):  # it only explains why nothing is where it was looked for
                if next(iter(store.list(bucket, f"{key}/")), None):
                    hint = f" Write {address}/ (with a slash) for all that lies below it."
            if hint:
                raise ObjectGone(f"There is no object {address}.{hint}") from None
            raise

    def _of_ledger(self, file_id: str) -> SourceFile:
        """The source file with this id: that version, whatever stands under its key now."""
        if len(file_id) < _ID_AT_LEAST:
            hint = f"If it is the id of one in the ledger, give {_ID_AT_LEAST} characters of it."
            raise ObjectGone(f"There is no file {file_id} here. {hint}")
        row = self.warehouse.find_file(file_id)
        if row["redrive_of"]:
            of = row["redrive_of"][:_ID_AT_LEAST]
            raise ConfigError(f"{file_id} holds fixed lines of {of}: send them again with `ingest redrive`.")
        return SourceFile.of_row(row)

    def _stamped(
        self, file: SourceFile, row: Mapping[str, Any] | None, chosen: Source, format: str | None
    ) -> SourceFile:
        """The file with the source that it belongs to, and its format. `row` is its own in the ledger, if it has one.

        Only what is nobody's takes the source and the format that a person chose.
        """
        owner = str(row["source"]) if row else owner_of(self.settings, file.bucket, file.key)
        if owner in (None, ONE_OFF):
            name, otherwise = (ONE_OFF, str(row["format"])) if row else (chosen.name, chosen.format)
            file = file.for_source(name, otherwise)
            named = self._guess(file) if format == AUTO else format
            return replace(file, format=named or otherwise)
        # Of a file that it knows the ledger tells the format too, unless its source is named: then it is today's.
        if row and owner != chosen.name:
            return file.for_source(owner, row["format"])
        return file.for_source(owner, self.source(owner).format)

    def _originals(
        self,
        bucket: str,
        files: Sequence[SourceFile],
        known: dict[str, dict[str, Any]],
        notice: Callable[[str], object],
    ) -> list[SourceFile]:
        """The same, where a copy in the archive stands for the file that was archived, whose row then is `known`."""
        strange = [file.key for file in files if file.file_id not in known and ARCHIVED.search(file.key)]
        copies = self._rows_of("archived_to", strange).values()
        copied = {row["archived_to"]: row for row in reversed(copies) if row["bucket"] == bucket}
        found = []
        for file in files:
            row = copied.get(file.key) if file.file_id not in known else None
            if row:
                known[row["file_id"]] = row
                notice(f"{file.key} is the archived copy of {row['key']}, which is taken in its place.")
            found.append(SourceFile.of_row(row) if row else file)
        return found

    def _rows_of(self, column: str, values: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {row["file_id"]: row for row in self.warehouse.files({column: list(values)})} if values else {}

    def _guess(self, file: SourceFile) -> str | None:
        """The format that the beginning of a file tells. Of one that cannot be read nothing: loading it says why."""
        with suppress(ObjectGone, TransientError):
            return guess(peek(decompressed(self.read(file)), HEAD_BYTES)[0])
        return None

    def pack(self, files: Sequence[SourceFile]) -> list[list[SourceFile]]:
        """Files in the order given, in packs worth a task: small ones share one, and there are never too many."""
        total = sum(file.size_bytes for file in files)
        most_bytes = max(_PACK_BYTES, total // _MOST_PACKS * 2)
        most_files = max(_PACK_FILES, len(files) // _MOST_PACKS * 2)
        packs: list[list[SourceFile]] = []
        size = 0
        for file in files:
            if not packs or size + file.size_bytes > most_bytes or len(packs[-1]) >= most_files:
                packs.append([])
                size = 0
            packs[-1].append(file)
            size += file.size_bytes
        return packs

    # --- judge and load ----------------------------------------------------------------------------------------------

    def load(
        self,
        files: Sequence[SourceFile],
        *,
        run_id: str | None = None,
        intent: Intent = "new",
        note: Audit | None = None,
        progress: Progress | None = None,
    ) -> list[FileResult]:
        """Load source files, each whole or not at all: in one transaction, or in several where one asks for too much.

        What the ledger has dealt with is not even read, unless `intent` asks for it.

        Raises:
            TransientError: the world did not answer, for none of them. Nothing was written; safe to run again.
        """

        def write(staging: Staging) -> list[FileResult]:
            results = iter(self.warehouse.load(staging, uuid4().hex, run_id, intent=intent, note=note))
            return [as_judged(one) if one.outcome == "gone" else next(results) for one in staging.files]

        return self._each(files, intent, progress, write)

    def would_load(
        self, files: Sequence[SourceFile], *, intent: Intent = "new", progress: Progress | None = None
    ) -> list[FileResult]:
        """What `load` would do with these files, as far as judging tells; the warehouse stays as it is."""
        return self._each(files, intent, progress, lambda staging: [*map(as_judged, staging.files)])

    def _each(
        self,
        files: Sequence[SourceFile],
        intent: Intent,
        progress: Progress | None,
        deal_with: Callable[[Staging], list[FileResult]],  # by place
    ) -> list[FileResult]:
        """What became of each file: of those that the ledger has not dealt with, once they are judged.

        All are judged together, but for versions of a key: a later one is compared with what came of the earlier one.
        Where that fails, and nobody knows whose doing it was, then in smaller groups: so that none holds up the others.
        """
        files = list({file.file_id: file for file in self.warehouse.recognise(files)}.values())
        outcome = self.warehouse.known(files, intent)
        groups = versions_apart([file for file in files if file.file_id not in outcome])
        unanswered: TransientError | None = None
        done = 0
        while groups:
            group = groups.pop(0)
            try:
                with self.judged(group, intent, progress) as staging:
                    results = deal_with(staging)
                done += 1
            except TooMuchAtOnce as error:
                groups[:0] = error.groups
                continue
            except TransientError as error:
                # What was loaded is told nevertheless; these stay as they were, and the next poll takes them.
                unanswered = error
                results = [not_entered(StagedFile(file, 0, Counts()), str(error)) for file in group]
            # By place: another load may have entered a file under another id in the meantime.
            outcome |= {file.file_id: result for file, result in zip(group, results, strict=True)}
        if unanswered and not done:
            raise unanswered
        return [outcome[file.file_id] for file in files]

    @contextmanager
    def judged(
        self, files: Sequence[SourceFile], intent: Intent = "new", progress: Progress | None = None
    ) -> Iterator[Staging]:
        """Judge files into a folder that is gone afterwards. Raises as `ingest.staging.stage` does."""
        settings = self.settings
        with staging_folder(settings.staging_folder) as folder:
            staging = stage(
                files, self.read, self.rules, folder,
                processes=settings.processes, limits=self.limits, progress=progress,
            )  # fmt: skip
            yield replace(staging, files=[self.by_policies(staged, intent) for staged in staging.files])

    @property
    def limits(self) -> Limits:
        settings = self.settings
        return Limits(settings.max_unpacked_bytes, settings.max_process_bytes, settings.max_file_seconds)

    def store_for(self, source: str, bucket: str, key: str) -> ObjectStore:
        """Where an object of a source is read. An upload is read as it was written, whose rules it may be loaded by.

        A file of no source is read in the store of the source that it lies below, where that has one of its own.
        """
        if self.settings.is_upload(bucket, key):
            return self.store_of(ONE_OFF)
        if source not in self.settings.sources:
            source = next((one.name for one in self.settings.sources.values() if one.owns(bucket, key)), source)
        return self.store_of(source)

    def read(self, file: SourceFile, known: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        """The bytes of exactly this version: as it landed; where it is gone from there, its copy in the archive.

        `known` is its ledger row. Without it the warehouse is asked, if need be.

        Raises:
            ObjectGone: it is nowhere any more; or the copy holds other bytes, which may be found at its end only.
            TransientError: the store or the warehouse did not answer.
        """
        store = self.store_for(file.source, file.bucket, file.key)
        pieces = store.read(file)
        try:
            first = next(pieces, b"")
        except ObjectGone:
            row = known or next(iter(self.warehouse.files({"file_id": file.file_id}, limit=1)), None)
            if not row or not row["archived_to"]:
                raise
            yield from _archived(store, row)
        else:
            yield first
            yield from pieces

    def rules(self, file: SourceFile) -> Rules:
        source = self._source_of(file)
        settings = self.settings
        people_space, match = source.naming(file.format)
        return Rules(
            people_space=people_space,
            match=match,
            ignored_identities=settings.ignored_identities,
            strict=source.strict,
            native=settings.native,
            nested=source.nested,
            max_line_bytes=settings.max_line_bytes,
            max_document_bytes=settings.max_document_bytes,
            time_from=settings.time_from,
            future_seconds=settings.future_seconds,
            received_at=file.received_at,
            file_id=file.file_id,
        )

    def _source_of(self, file: SourceFile) -> Source:
        return self.settings.sources.get(file.source) or Source(name=file.source, bucket=file.bucket)

    def by_policies(self, staged: StagedFile, intent: Intent) -> StagedFile:
        """What the source's settings make of a judged file. To force is a person's word that limits do not hold."""
        source, counts, force = self._source_of(staged.file), staged.counts, intent == "force"
        staged = replace(
            staged,
            changed_file=source.changed_file,
            skip_same_bytes=source.same_bytes == "skip"
            and not force
            and staged.all_timed
            and staged.file.size_bytes > 0
            and not staged.file.is_from_intake,
        )
        if staged.outcome != "loaded" or force:
            return staged
        judged, failed = counts.items, counts.failed
        of = f"{failed} of {judged} lines failed"
        if failed and failed == judged:
            error = "Its only line failed." if judged == 1 else f"All of its {judged} lines failed."
        elif source.max_failed_lines is not None and failed > source.max_failed_lines:
            error = f"{of}; max_failed_lines is {source.max_failed_lines}."
        elif source.max_failed_share is not None and failed > source.max_failed_share * judged:
            error = f"{of}; max_failed_share is {source.max_failed_share}."
        else:
            return staged
        return replace(staged, outcome="rejected", error=error)


def _heard(listed: Iterable[SourceFile], hear: Callable[[ListingDoubted], object]) -> Iterator[SourceFile]:
    """A listing, and in the end what is wrong with it."""
    try:
        yield from listed
    except ListingDoubted as doubt:
        hear(doubt)


def still_waiting(row: Mapping[str, Any]) -> str:
    file, why = SourceFile.of_row(row).uri, str(row["error"])
    told = why if file in why else f"{file}: {why}"
    return f"{told.rstrip('.')}. Not loaded yet; the next try is after {row['next_try_at']:%Y-%m-%d %H:%M} UTC."


def _archived(store: ObjectStore, row: Mapping[str, Any]) -> Iterator[bytes]:
    """The copy of an object in the archive, if it holds what was loaded."""
    copy = store.describe(row["bucket"], row["archived_to"])
    if copy.size_bytes != row["size_bytes"]:
        raise ObjectGone(f"{copy.uri} has {copy.size_bytes:,} bytes, the loaded object had {row['size_bytes']:,}.")
    digest = Digest()
    yield from digest.over(store.read(copy))
    if digest.hexdigest() != row["sha256"]:
        raise ObjectGone(f"{copy.uri} holds other bytes than the loaded object had.")
