"""Which objects under a source's prefix are source files.

In:     a listing, as the store gives it.
Out:    the objects that the source takes, stamped with it; and the count and first names of those that no rule takes.
Decides: *.json and *.json.gz in any case, or the source's pattern alone; never what this program put there itself,
         which is passed over without a word, nor another's completed_imports/, which is named.
         Folder markers (keys that end in `/`) are no objects to people, and are passed over without a word.
Pure:   no I/O. Which of the taken are new is the ledger's to say.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from ingest.core.identity import natural
from ingest.core.source import SourceFile
from ingest.settings import COMPLETED_IMPORTS, Source

NAMES_KEPT = 20
_DEFAULT = re.compile(r"\.json(\.gz)?\Z", re.IGNORECASE)
_EXTENSION = re.compile(r"(\.json)?(\.[^.]*)?\Z", re.IGNORECASE)


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
    if source.pattern is None:
        return "taken" if _DEFAULT.search(key) else "ignored"
    pattern = _glob(source.pattern)
    return "taken" if fnmatchcase(below if "/" in pattern else key.rpartition("/")[2], pattern) else "ignored"


def takes(source: Source, key: str, own: Iterable[str] = ()) -> bool:
    """Whether the object is one of the source's files."""
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
        """How many objects no rule takes, and the first of them."""
        more = ", …" * (self.ignored > NAMES_KEPT)
        which = "that no rule takes" if self.source.pattern else "that are no .json or .json.gz"
        if any(COMPLETED_IMPORTS in name for name in self.ignored_names):
            which += f", or lie in {COMPLETED_IMPORTS}"
        objects = f"{self.ignored:,} object{'s' * (self.ignored > 1)}"
        return f"{objects} {which}, passed over: {', '.join(self.ignored_names)}{more}"

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know of the files taken."""
        if not self.unmarked:
            return ()
        files = f"{self.unmarked:,} object{'s' * (self.unmarked > 1)}"
        return (f"The store gives {files} no ETag: they are told apart by size, time and bytes, and never deleted",)

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


def _glob(pattern: str) -> str:
    """A base name stands for its family, as in Kissmetrics: `accounts.json` for `accounts*.json`."""
    if any(sign in pattern for sign in "*?["):
        return pattern
    return _EXTENSION.sub(lambda extension: f"*{extension[0]}", pattern, count=1)
