"""Which objects under a source's prefix are source files, and which source an object belongs to, however it is named.

In:     a listing, as the store gives it; or the address of an object.
Out:    the objects that the source takes, stamped with it; and the count and first names of those that no rule takes.
        The owner of an address; what an object is that the program itself wrote.
Decides: *.json and *.json.gz in any case, or the source's pattern alone; never what this program put there itself,
         which is passed over without a word, nor another's completed_imports/, which is named.
         Folder markers (keys that end in `/`) are no objects to people, and are passed over without a word.
Pure:   no I/O. Which of the taken are new is the ledger's to say; and a file of the ledger keeps its source.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, Literal

from ingest.core.matching import natural
from ingest.core.source import LOCAL_BUCKET, SourceFile
from ingest.settings import CHECK_REPORT, COMPLETED_IMPORTS, Settings, Source
from ingest.text import count

NAMES_KEPT = 20
_DEFAULT = re.compile(r"\.json(\.gz)?\Z", re.IGNORECASE)
_EXTENSION = re.compile(r"(\.json)?(\.[^.]*)?\Z", re.IGNORECASE)
MENDED: Final = ".mended.txt"  # what the key of mended lines that wait for their run ends with
MAY_LOAD: Final = ".may-load"  # what the key of the word that an upload for a source may be loaded ends with
UPLOADS_OF_SOURCES: Final = "sources/"  # below the prefix for uploads: in it a folder for each source
ARCHIVED: Final = re.compile(r"(\d{4})/(\d{2})/(\d{2})/(.+)", re.DOTALL)  # below the prefix of an archive
# What tells the copy of another version apart, where both were loaded on one day: see `ingest.archiving`.
HASHED: Final = re.compile(r"\.([0-9a-f]{8})((?:\.json)?(?:\.[^./]*)?)\Z")
_SENT: Final = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{12}"
# Names that nobody else gives, wherever they are: settings may have changed since.
_OWN_NAMES: Final = {
    re.compile(f"{_SENT}-.*{re.escape(MENDED)}"): "holds fixed lines for a redrive",
    re.compile(f"{_SENT}-.*{re.escape(MAY_LOAD)}"): "says that an upload may be loaded",
    re.compile(
        rf"({_SENT}-.+|pasted-[0-9T-]{{17}}-[0-9a-f]{{12}})\.json(\.gz)?{re.escape(CHECK_REPORT)}"
    ): "is the report of a check",
    re.compile(r".+\.[0-9a-f]{8}\.(report\.json|lines\.tsv)", re.DOTALL): "is the report of a load",
    re.compile(r"\.landfall-(probe|[0-9a-f]{32})"): "is a file that this program only works with",
}


def owner_of(settings: Settings, bucket: str, key: str) -> str | None:
    """The source that an object belongs to; None: nobody's, so that a load of it may name any.

    What was uploaded for a source is that source's, as are its archive and what lies below its prefix. Of several
    sources it is the one that takes it; then the one with the longest prefix; then the first in ingest.toml.
    """
    uploads = f"{settings.uploads_prefix}{UPLOADS_OF_SOURCES}"
    if settings.is_upload(bucket, key):
        name, slash, _ = key.removeprefix(uploads).partition("/")
        return name if key.startswith(uploads) and slash else None
    # What belongs to a source whose settings are wrong can be loaded by nobody.
    return _owner_among(settings.sources.values(), bucket, key) or _owner_among(settings.unsound, bucket, key)


def _owner_among(sources: Iterable[Source], bucket: str, key: str) -> str | None:
    sources = [source for source in sources if source.bucket == bucket]
    # On this machine an archive lies in its source's own folder. The default may have been used before.
    archives = {COMPLETED_IMPORTS, *(source.archive_prefix for source in sources)} if bucket != LOCAL_BUCKET else set()
    for prefix in sorted(archives, key=len, reverse=True):
        if key.startswith(prefix) and (found := ARCHIVED.fullmatch(key, len(prefix))):
            archiving = [source for source in sources if prefix in (COMPLETED_IMPORTS, source.archive_prefix)]
            if owner := _owner(archiving, found[4], HASHED.sub(r"\2", found[4])):
                return owner.name
    found_below = _owner(sources, key)
    return found_below.name if found_below else None


def _owner(sources: Iterable[Source], *keys: str) -> Source | None:
    """`keys`: what the object may have been called when it came."""
    above = [source for source in sources if _lies_below(source, keys[0])]
    # Of equals it is the first.
    return max(above, key=lambda one: (any(takes(one, key) for key in keys), len(one.prefix)), default=None)


def _lies_below(source: Source, key: str) -> bool:
    """Whether a key of its bucket lies below the source's prefix. On this machine that is a folder, or one file."""
    if source.bucket != LOCAL_BUCKET:
        return key.startswith(source.prefix)
    folder = os.path.abspath(source.prefix)  # noqa: PTH100 - Path.resolve follows links
    return key == folder or key.startswith(f"{folder.rstrip('/')}/")


def own_object(settings: Settings, bucket: str, key: str) -> str | None:
    """What an object is that the program itself wrote, in words; None for what may be a source file."""
    if what := _own_name(key.rpartition("/")[2]):
        return what
    if settings.is_upload(bucket, key) and key.endswith(CHECK_REPORT):
        return "is the report of a check"
    if settings.is_upload(bucket, key) and key.endswith(MENDED):
        return "holds fixed lines for a redrive"
    reports = (source.within(source.report_prefix) for source in settings.sources.values() if source.bucket == bucket)
    return "is the report of a load" if key.startswith(tuple(filter(None, reports))) else None


def _own_name(name: str) -> str | None:
    return next((what for pattern, what in _OWN_NAMES.items() if pattern.fullmatch(name)), None)


def verdict(source: Source, key: str, own: Iterable[str] = ()) -> Literal["taken", "own", "ignored"]:
    """What an object under the source's prefix is to it. `own`: Settings.own_prefixes."""
    below = key.removeprefix(source.prefix).lstrip("/")
    if key.endswith("/"):
        return "own"
    ours = (source.within(source.archive_prefix), source.within(source.report_prefix), *own)
    if key.startswith((COMPLETED_IMPORTS, *filter(None, ours))):
        return "own"
    if below.startswith(COMPLETED_IMPORTS):  # somebody else's: never taken, but not ours to be silent of
        return "ignored"
    name = key.rpartition("/")[2]
    if source.pattern is None:
        fits = _DEFAULT.search(key) is not None
    else:
        pattern = _glob(source.pattern)
        fits = fnmatchcase(below if "/" in pattern else name, pattern)
    return "taken" if fits and not _own_name(name) else "ignored"


def takes(source: Source, key: str, own: Iterable[str] = ()) -> bool:
    return verdict(source, key, own) == "taken"


@dataclass(slots=True)
class Selection:
    """Sifts the listing of one source, however long, and counts as it goes."""

    source: Source
    own: tuple[str, ...] = ()  # Settings.own_prefixes
    taken: int = 0
    ignored: int = 0
    ignored_names: list[str] = field(default_factory=list)  # the first NAMES_KEPT
    unmarked: int = 0  # of the taken: the store gives them neither ETag nor version

    @property
    def passed_over(self) -> str:
        more = ", …" * (self.ignored > NAMES_KEPT)
        why = "not named as `pattern` says" if self.source.pattern else "not named .json or .json.gz"
        if any(COMPLETED_IMPORTS in name for name in self.ignored_names):
            why += f", or in {COMPLETED_IMPORTS}"
        return f"{count(self.ignored, 'object')} left out ({why}): {', '.join(self.ignored_names)}{more}"

    @property
    def notices(self) -> tuple[str, ...]:
        if not self.unmarked:
            return ()
        files = f"{self.unmarked:,} object{'s' * (self.unmarked > 1)}"
        return (f"The store gives {files} no ETag: size, time and bytes tell them apart, and they are never deleted",)

    def sift(self, listed: Iterable[SourceFile]) -> Iterator[SourceFile]:
        """The source's files of a listing, in its order."""
        for file in listed:
            match verdict(self.source, file.key, self.own):
                case "taken":
                    self.taken += 1
                    self.unmarked += not (file.etag or file.version_id)
                    yield file.for_source(self.source.name, self.source.format)
                case "ignored":
                    self.ignored += 1
                    if len(self.ignored_names) < NAMES_KEPT:
                        self.ignored_names.append(file.key)


def in_order(files: Iterable[SourceFile]) -> list[SourceFile]:
    """The order in which files are loaded: keys naturally, so `9.json` before `10.json`."""
    return sorted(files, key=lambda file: natural(file.key))


def versions_apart(files: Sequence[SourceFile]) -> list[Sequence[SourceFile]]:
    """Groups that hold one version of a key each, the earliest ones first; files in the order given."""
    seen = Counter[tuple[str, str]]()
    turns: dict[str, int] = {}
    for file in sorted(files, key=lambda one: one.received_at):
        turns[file.file_id] = seen[file.bucket, file.key]
        seen[file.bucket, file.key] += 1
    return [[file for file in files if turns[file.file_id] == turn] for turn in range(max(seen.values(), default=0))]


def _glob(pattern: str) -> str:
    """A base name stands for its family, as in Kissmetrics: `accounts.json` for `accounts*.json`."""
    if any(sign in pattern for sign in "*?["):
        return pattern
    return _EXTENSION.sub(lambda extension: f"*{extension[0]}", pattern, count=1)
