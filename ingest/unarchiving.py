"""What the archive holds and the ledger does not know: files that were loaded, archived, and lost with a warehouse.

A warehouse that is put back from an older backup lacks exactly what was archived after that. The landing shows none of
it any more, so no poll would ever find it.

In:      listings of the archive. A name, `<archive_prefix>YYYY/MM/DD/<key>`, says the day of the load and the key.
Out:     the copies that no row of the ledger knows, as the source files that they were; and those files, loaded.
Decides: which source file a copy is: its key, the ETag, size and time of the copy, which is a little later than the
         object came. The version id of the object is not known any more.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from ingest.core.source import LOCAL_BUCKET, SourceFile
from ingest.discovery import ARCHIVED, HASHED, takes, versions_apart
from ingest.errors import IngestError
from ingest.ports import ArchivedCopy, Audit, Mark, ObjectStore
from ingest.reading import Digest
from ingest.text import count

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline
    from ingest.settings import Source

_DAYS_EACH: Final = 2  # of more a poll lists the months, so that a source that was idle costs little
_PER_POLL: Final = 10_000  # copies: reconcile looks at all of them
_AT_ONCE: Final = 10_000  # files that are brought back in one round
_NAMED: Final = 3
_FOUND: Final = "It was found in the archive, and the ledger did not know it."
_OLDER: Final = "It was found in the archive, and a newer version of its object is loaded, which takes its place."


def look_at_poll(pipeline: "Pipeline", name: str, now: datetime | None = None) -> str | None:
    """A sentence if the archive of a source holds what its ledger does not know; call it before a poll loads.

    Only the days since its last load are listed, which is what a warehouse from a backup lacks: one request where
    nothing is wrong. What cannot be listed is for reconcile to say; so is all of a folder on this machine, whose files
    would have to be read.
    """
    source = pipeline.source(name)
    if source.after_load != "archive" or source.bucket == LOCAL_BUCKET:
        return None
    known = pipeline.warehouse.files({"source": name, "state": ["loaded", "duplicate"]}, limit=1)
    since = known[0]["loaded_at"].astimezone(UTC).date() if known else None
    folders = _folders(source, since, (now or datetime.now(UTC)).date())
    listed = (copy for folder in folders for copy in pipeline.store_of(name).list(source.bucket, folder))
    try:
        copies = copies_of(pipeline, islice(listed, _PER_POLL), [source])
        unknown = list(islice(pipeline.warehouse.unknown_copies(copies), _NAMED + _PER_POLL))
    except IngestError:
        return None
    if not unknown:
        return None
    names = ", ".join(copy.file.key for copy in unknown[:_NAMED]) + ", …" * (len(unknown) > _NAMED)
    holds = f"Its archive holds {count(len(unknown), 'file')} that the ledger does not know ({names})."
    remedy = "`ingest reconcile` names them all, `ingest reconcile --repair` loads them again."
    return f"{holds} Was the warehouse put back from an older backup? {remedy}"


def _folders(source: "Source", since: date | None, today: date) -> Iterator[str]:
    """The parts of the archive to list: days (and in them what is of this source), months, or years."""
    prefix = source.within(source.archive_prefix)
    if since is None or since > today:  # nothing was loaded yet: whatever lies there is unknown
        yield prefix
    elif (today - since).days < _DAYS_EACH:
        for day in range(since.toordinal(), today.toordinal() + 1):
            yield f"{prefix}{date.fromordinal(day):%Y/%m/%d}/{source.prefix}"
    elif since.year == today.year:
        yield from (f"{prefix}{today.year:04d}/{month:02d}/" for month in range(since.month, today.month + 1))
    else:
        yield from (f"{prefix}{year:04d}/" for year in range(since.year, today.year + 1))


class Archive(NamedTuple):
    """A prefix to list, and the sources that archive there and reach it in the same way."""

    bucket: str
    prefix: str
    sources: Sequence["Source"]

    def listed(self, pipeline: "Pipeline") -> Iterator[SourceFile]:
        """Everything in it. Raises as `ObjectStore.list` does."""
        return pipeline.store_of(self.sources[0].name).list(self.bucket, self.prefix)


def archives(pipeline: "Pipeline") -> list[Archive]:
    """Those that sources write now."""
    found: dict[tuple[str | None, ...], list[Source]] = {}
    for source in pipeline.settings.sources.values():
        if source.after_load == "archive":
            reached = (source.endpoint_url, source.profile, source.aws_conn_id)
            found.setdefault((source.bucket, source.within(source.archive_prefix), *reached), []).append(source)
    return [Archive(one[0].bucket, one[0].within(one[0].archive_prefix), one) for one in found.values()]


def copies_of(
    pipeline: "Pipeline", listed: Iterable[SourceFile], sources: Sequence["Source"]
) -> Iterator[ArchivedCopy]:
    """Those of the listed objects that are copies of files of these sources, which share an archive."""
    owners = [(source, pipeline.settings.own_prefixes(source.bucket)) for source in sources]
    return filter(None, (_copy_of(copy, owners) for copy in listed))


def _copy_of(copy: SourceFile, owners: Iterable[tuple["Source", tuple[str, ...]]]) -> ArchivedCopy | None:
    for source, own in owners:
        prefix = source.within(source.archive_prefix)
        if not (copy.key.startswith(prefix) and (told := ARCHIVED.fullmatch(copy.key[len(prefix) :]))):
            continue
        key = f"{source.prefix.rstrip('/')}/{told[4]}" if source.bucket == LOCAL_BUCKET else told[4]
        try:
            day = date(int(told[1]), int(told[2]), int(told[3]))
        except ValueError:
            continue
        hashed = HASHED.search(key)
        plain_key = f"{key[: hashed.start()]}{hashed[2]}" if hashed else key
        if key.startswith(source.prefix) and (takes(source, key, own) or takes(source, plain_key, own)):
            file = replace(copy, key=key, version_id=None).for_source(source.name, source.format)
            return ArchivedCopy(copy, day, file, plain_key)
    return None


def bring_back(pipeline: "Pipeline", note: Audit) -> None:
    """Load every file that only the archive has, oldest first; each is in the ledger afterwards, as archived.

    A file that cannot be loaded stays unknown, which reconcile reports.

    Raises:
        TransientError: the warehouse did not answer. What was loaded stays loaded; safe to run again.
    """
    for archive in archives(pipeline):
        tried = set[str]()
        while True:
            copies_there = copies_of(pipeline, archive.listed(pipeline), archive.sources)
            unknown = pipeline.warehouse.unknown_copies(copies_there)
            try:
                copies = list(islice((one for one in unknown if one.copy.key not in tried), _AT_ONCE))
            except Exception:  # noqa: BLE001 - the other archives are read all the same
                break  # reconcile says that it cannot be listed
            if not copies:
                break
            tried.update(one.copy.key for one in copies)
            _load(pipeline, copies, note)


def _load(pipeline: "Pipeline", copies: Sequence[ArchivedCopy], note: Audit) -> None:
    named = [one for copy in copies if (one := _named(pipeline, copy))]
    in_order = sorted(named, key=lambda one: (one.copy.last_modified, one.file.key))
    by_id = {one.file.file_id: one for one in reversed(in_order)}
    reading = replace(pipeline, store_of=lambda name: cast(ObjectStore, _FromArchive(pipeline.store_of(name), by_id)))
    # Versions of one key one after the other, so that each meets those before it in the ledger.
    for files in versions_apart([one.file for one in in_order if by_id[one.file.file_id] is one]):
        older = [file for file in files if _is_replaced(pipeline, file)]
        if older:
            pipeline.warehouse.ignore([], older, replace(note, reason=_OLDER))
        done = [file.file_id for file in older]
        for pack in pipeline.pack([file for file in files if file not in older]):
            results = reading.load(pack, run_id=note.run_id, note=note)
            done += [result.file_id for result in results if result.state not in ("retrying", "gone")]
        now = datetime.now(UTC)
        marks = [Mark(one, archived_to=by_id[one].copy.key, deleted_at=now, reason=_FOUND) for one in done]
        pipeline.warehouse.mark(marks, note)


def _named(pipeline: "Pipeline", copy: ArchivedCopy) -> ArchivedCopy | None:
    """The copy with the key of its file, of which the hash of the bytes is no part; None: it cannot be read now."""
    if copy.plain_key == copy.file.key:
        return copy
    digest = Digest()
    try:
        for _ in digest.over(pipeline.store_of(copy.file.source).read(copy.copy)):
            pass
    except IngestError:
        return None
    is_hash = HASHED.sub(rf".{digest.hexdigest()[:8]}\2", copy.file.key) == copy.file.key
    return replace(copy, file=replace(copy.file, key=copy.plain_key)) if is_hash else copy  # else its key is like that


def _is_replaced(pipeline: "Pipeline", file: SourceFile) -> bool:
    """Whether a version that came later has its place already: loading this one would take that away."""
    if pipeline.source(file.source).changed_file != "replace":
        return False
    rows = pipeline.warehouse.files({"bucket": file.bucket, "key": file.key, "state": ["loaded"]})
    return any(row["last_modified"] > file.last_modified for row in rows if not row["redrive_of"])


@dataclass(frozen=True, slots=True)
class _FromArchive:
    """The store of a source, in which some files are read from their copies."""

    store: ObjectStore
    copies: Mapping[str, ArchivedCopy]  # by file_id

    def read(self, file: SourceFile) -> Iterator[bytes]:
        copy = self.copies.get(file.file_id)
        return self.store.read(copy.copy if copy else file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)
