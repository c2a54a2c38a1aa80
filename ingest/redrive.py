"""Failed lines, mended, on their way back: a source file of its own whose lines stand where the original's stood.

In:     a file with failed lines, and the mended ones as LINE[/ITEM]<TAB>text; without them the kept lines are judged
        again under today's rules.
Out:    one loaded redrive that holds what is right now. What is still wrong stays open in the original, and only there.
Of a rejected file nothing was loaded, so the whole of it is judged, with the mended lines that are right in their
places. What was right of it then and is wrong by today's rules becomes an open line of the original as well.
Memory: the mended lines (the kept ones of a loaded file, if none are sent), and the places of those that are open.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from ingest.core import jsontext
from ingest.core.commands import Item
from ingest.core.formats import open_format
from ingest.core.lifecycle import KEEPS_LINES
from ingest.core.placed import Place, placed
from ingest.core.source import SourceFile
from ingest.documents import documents
from ingest.errors import IngestError, StaleRedrive, TransientError
from ingest.handout import parse_fixed
from ingest.judging import FAILED
from ingest.pipeline import Pipeline
from ingest.ports import Audit, FileResult, Redrive, Staging
from ingest.reading import Block, decompressed
from ingest.report import batches
from ingest.staging import stage, staging_folder

_TOLD_AT_MOST = 10
_OF_THE_FILE: Final = frozenset({"wrong_format", "document_not_lines"})  # codes of the one failure of a whole file
_SHOWN_AT_MOST = 1_000  # lines that are still wrong
_SHOWN_BYTES = 4 << 20  # of them all
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    of: str  # file_id of the original
    result: FileResult | None  # of the redrive; None: no line of it could be loaded
    # Lines that are still wrong, as `failed_lines` has them: the first ones, and how many there are.
    refused: list[dict[str, Any]] = field(default_factory=list)
    still_wrong: int = 0
    already: int = 0  # lines that were mended before
    fixed: int = 0  # lines of the original that this redrive closed
    open: int = 0  # lines of the original that are open now, those that are still wrong among them
    not_failed: int = 0  # lines that were sent, and do not fail: passed over
    error: str | None = None  # why nothing was loaded, or lines were not judged


def redrive(
    pipeline: Pipeline, reference: str, fixed: bytes | None, note: Audit, *, passes_over: bool = False
) -> Outcome:
    """Judge failed lines of a file again, and load those that are right now.

    With `passes_over`, lines that do not fail are counted only. It is for lines that were kept for this file: since
    then the file may have been loaded again by other rules, which accept some.

    Raises:
        IngestError: no such file, none of its lines can be mended, or `fixed` holds no line or is not in the shape.
        TransientError: the warehouse did not answer. Nothing was written; safe to run again.
    """
    original = pipeline.warehouse.find_file(reference)
    sent = None if fixed is None else parse_fixed(fixed)
    for _ in range(_ATTEMPTS):
        if original["state"] not in KEEPS_LINES:
            only = "only lines of loaded and rejected files can be fixed"
            raise IngestError(f"{original['key']} is {original['state']}: {only}.")
        attempt = _Attempt(pipeline, original, note, passes_over)
        try:
            return attempt.run(sent)
        except StaleRedrive:
            original = pipeline.warehouse.find_file(original["file_id"])
    raise TransientError(f"The failed lines of {original['key']} keep changing: others fix them too. Run again.")


def judge_mended(
    pipeline: Pipeline,
    original: Mapping[str, Any],
    mended: Mapping[Place, bytes],
    contexts: Mapping[Place, bytes | None],
) -> Iterator[tuple[Place, list[Item]]]:
    """What each of these lines is by the rules of their file, in order; no item for a blank one. Nothing is loaded.

    `original` is the ledger row of their file, `contexts` are the failed lines' own: only items of documents need them.
    """
    file = SourceFile.of_row(original)
    rules, format = pipeline.rules(file), open_format(file.format)
    for place, raw in sorted(mended.items()):
        if not raw.strip():
            yield place, []
        elif place[1]:
            yield place, format.judge_item(raw, place[1], contexts.get(place), rules)
        else:
            yield place, list(format.judge(raw, rules))


@dataclass(slots=True)
class _Attempt:
    """One try, against what is open now."""

    pipeline: Pipeline
    original: dict[str, Any]
    note: Audit
    passes_over: bool

    def run(self, sent: Mapping[Place, bytes] | None) -> Outcome:
        # The first redrive of a rejected file brings all of it; after that only lines are missing.
        redrives = self.pipeline.warehouse.files({"redrive_of": self.original["file_id"], "state": "loaded"}, limit=1)
        whole = self.original["state"] == "rejected" and not redrives
        open_places, mended_before = set[Place](), set[Place]()
        lines: dict[Place, dict[str, Any]] = {}  # to be judged, `raw` being their text
        cut = 0
        with self.pipeline.warehouse.failed_lines(self.original["file_id"]) as rows:
            for row in rows:
                place = (row["line"], row["item"])
                if row["redriven_by"]:
                    mended_before.add(place)
                    continue
                open_places.add(place)
                if sent is not None and not row["mendable"] and not _OF_THE_FILE.isdisjoint(row["codes"]):
                    why = f"{self.original['key']} was refused as a whole, so it has no single lines to fix."
                    raise IngestError(f"{why} Correct the file, send it again, and ignore this one.")
                if sent is not None and place in sent:
                    lines[place] = row | {"raw": sent[place]}
                elif sent is None and not whole and row["mendable"]:
                    lines[place] = row
                cut += sent is None and not whole and not row["mendable"]
        unknown = sorted((sent or {}).keys() - open_places - mended_before)
        if unknown and not self.passes_over:
            shown = ", ".join(f"{line}{item}" for line, item in unknown[:_TOLD_AT_MOST])
            raise IngestError(f"These are no failed lines of {self.original['key']}, so they cannot be fixed: {shown}.")
        wrong = _Wrong()
        right = self._right(lines, wrong)
        loaded = self._whole(right, wrong, open_places) if whole else self._lines(right)
        error = loaded.error
        if cut:
            were = "line was" if cut == 1 else "lines were"
            remedy = "send the whole text, or force the file"
            error = f"{cut:,} open {were} not judged again, since only the beginning is kept: {remedy}."
        already, fixed = len(mended_before & (sent or {}).keys()), loaded.closed
        if loaded.result and loaded.result.already:  # somebody sent the same lines at the same time
            already, fixed = already + len(right), 0
        left = len(open_places) - loaded.closed + loaded.new
        return Outcome(
            self.original["file_id"], loaded.result, wrong.rows, len(wrong.places), already, fixed, left,
            len(unknown), error,
        )  # fmt: skip

    def _right(self, lines: Mapping[Place, dict[str, Any]], wrong: "_Wrong") -> dict[Place, dict[str, Any]]:
        """Those of these lines of which everything is right. A blank one mends nothing."""
        right: dict[Place, dict[str, Any]] = {}
        texts = {place: row["raw"] for place, row in lines.items()}
        contexts = {place: row["context"] for place, row in lines.items()}
        for place, items in judge_mended(self.pipeline, self.original, texts, contexts):
            if failures := [failure for item in items for failure in item.failures]:
                codes = list(dict.fromkeys(failure.code for failure in failures))
                told = orjson.dumps([one.told() for one in failures]).decode()
                wrong.add(lines[place] | {"codes": codes, "failures": told})
            elif items:
                right[place] = lines[place]
            else:
                wrong.add(lines[place])
        return right

    def _lines(self, right: Mapping[Place, dict[str, Any]]) -> "_Loaded":
        """Of a loaded file: the mended lines alone."""
        if not right:
            return _Loaded()
        lines = right.items()
        blocks = [Block(line, row["byte_offset"], row["raw"], (), item, row["context"]) for (line, item), row in lines]
        mending = self._mending(right)
        with staging_folder(self.pipeline.settings.staging_folder) as folder:
            staging = stage(
                [mending], _unread, self.pipeline.rules, folder,
                processes=1, limits=self.pipeline.limits, blocks_of=lambda _: blocks,
            )  # fmt: skip
            result = self._load(staging, Redrive(self.original["file_id"], list(right)))
        return _Loaded(result, closed=len(right))

    def _whole(self, right: Mapping[Place, dict[str, Any]], wrong: "_Wrong", open_places: set[Place]) -> "_Loaded":
        """Of a rejected file: all of it, with the mended lines in place, if it is now within the limits."""
        file = SourceFile.of_row(self.original)
        pipeline, edits = self.pipeline, _Edits()

        def mended(_: SourceFile) -> Iterator[bytes]:
            content = decompressed(pipeline.read(file, self.original))
            if not right:
                return content
            if open_format(file.format).documents:
                return _spliced(content, right, pipeline.settings.max_document_bytes, edits)
            return _substituted(content, {line: row["raw"] for (line, _), row in right.items()}, edits)

        mending = replace(self._mending(right), size_bytes=file.size_bytes)
        with staging_folder(pipeline.settings.staging_folder) as folder:
            staging = stage(
                [mending], mended, pipeline.rules, folder,
                processes=pipeline.settings.processes, limits=pipeline.limits,
            )  # fmt: skip
            staged = pipeline.by_policies(staging.files[0], "new")
            still, new = _sifted(staging.failed, open_places, wrong, edits, folder / "new.parquet")
            if staged.outcome != "loaded":
                return _Loaded(error=staged.error)
            # A place is closed where something of it was accepted. Where an item fell into others, or fails with all of
            # its document by now, those are accepted or open: mended twice, it would be brought twice.
            failing = still | new
            told = {above for place in (*_among(staging.commands, open_places), *failing) for above in _upwards(place)}
            left = sorted(open_places - still)
            closed = [place for place in left if place in told or not failing.isdisjoint(_upwards(place))]
            wrong.forget(closed)
            counts = replace(
                staged.counts,
                lines=staged.counts.lines - sum(not item for _, item in failing),
                items=staged.counts.items - len(failing),
                failed=0,  # they are the original's
            )
            mends = Redrive(self.original["file_id"], closed, failed=len(new), whole_of=len(open_places))
            staging = replace(staging, failed=[folder / "new.parquet"], files=[replace(staged, counts=counts)])
            result = self._load(staging, mends)
        return _Loaded(result, closed=len(closed), new=len(new))

    def _mending(self, lines: Mapping[Place, Mapping[str, Any]]) -> SourceFile:
        """The source file that these lines are: the same lines of the same file are the same source file."""
        original = SourceFile.of_row(self.original)
        places = sorted(lines.items())
        text = b"".join(placed(place, row["raw"]) for place, row in places)
        digest = sha256(original.file_id.encode() + text).hexdigest()
        return replace(
            original, key=f"{original.key}#{digest[:12]}", etag=digest, version_id=None, size_bytes=len(text),
            mends=original.key, known_as=None,
        )  # fmt: skip

    def _load(self, staging: Staging, mends: Redrive) -> FileResult:
        (staged,) = staging.files
        staging = replace(staging, files=[replace(staged, redrive=mends, skip_same_bytes=False)])
        (result,) = self.pipeline.warehouse.load(staging, uuid4().hex, self.note.run_id, intent="again", note=self.note)
        return result


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What was loaded, and what that makes of the open lines of the original."""

    result: FileResult | None = None
    error: str | None = None
    closed: int = 0
    new: int = 0  # lines that were right when the original was rejected, and are open now


@dataclass(slots=True)
class _Wrong:
    """What is still wrong: every place, and as much of it as a person reads."""

    places: set[Place] = field(default_factory=set)
    rows: list[dict[str, Any]] = field(default_factory=list)
    _bytes: int = 0

    def add(self, row: dict[str, Any]) -> None:
        """Tell of a line, unless it was told of as it was mended."""
        place = (row["line"], row["item"])
        if place in self.places:
            return
        self.places.add(place)
        self._bytes += len(row["raw"])
        if len(self.rows) < _SHOWN_AT_MOST and self._bytes <= _SHOWN_BYTES:
            self.rows.append(row)

    def forget(self, places: Iterable[Place]) -> None:
        """What was sent for these was wrong, but what had been there is right by the rules of today."""
        self.places.difference_update(places)
        self.rows = [row for row in self.rows if (row["line"], row["item"]) in self.places]


class _Edits:
    """Where a content that was edited stands in the original: the bytes that came or went, by where that was."""

    def __init__(self) -> None:
        self._at, self._shift = [0], [0]

    def add(self, at: int, shift: int) -> None:
        """From byte `at` of the edited content on, a byte of the original is `shift` farther on."""
        if shift != self._shift[-1]:
            self._at.append(at)
            self._shift.append(shift)

    def original(self, at: int) -> int:
        return at + self._shift[bisect_right(self._at, at) - 1]


def _sifted(
    failed: Sequence[Path], open_places: set[Place], wrong: _Wrong, edits: _Edits, new_lines: Path
) -> tuple[set[Place], set[Place]]:
    """Of the failed lines of a whole file the places that were open before, and those that are new: their rows go into
    a file of their own."""
    still, new = set[Place](), set[Place]()
    with parquet.ParquetWriter(new_lines, FAILED) as writer:
        for batch in batches(failed):
            rows = batch.to_pylist()
            for row in rows:
                row["byte_offset"] = edits.original(row["byte_offset"])
                wrong.add(row)
            still.update(place for row in rows if (place := (row["line"], row["item"])) in open_places)
            rows = [row for row in rows if (row["line"], row["item"]) not in open_places]
            new.update((row["line"], row["item"]) for row in rows)
            writer.write_table(pa.Table.from_pylist(rows, FAILED))
    return still, new


def _among(commands: Sequence[Path], places: set[Place]) -> Iterator[Place]:
    """The places of accepted items, of the lines of these places only."""
    lines = pa.array({line for line, _ in places}, pa.int64())
    for batch in batches(commands, ["line", "item"]):
        found = batch.filter(pc.is_in(batch["line"], value_set=lines))
        for line, item in zip(found["line"].to_pylist(), found["item"].to_pylist(), strict=True):
            yield line, item or ""


def _upwards(place: Place) -> Iterator[Place]:
    """The place, and all that it is a part of."""
    line, item = place
    while item:
        yield line, item
        item = item.rpartition("/")[0]
    yield line, ""


def _unread(_: SourceFile) -> Iterator[bytes]:
    raise AssertionError("its lines are given")


def _spliced(
    content: Iterator[bytes], mended: Mapping[Place, Mapping[str, Any]], max_bytes: int, edits: _Edits
) -> Iterator[bytes]:
    """Documents with some, or some items of theirs, in place of others; each begins in the line where it did."""
    by_line: dict[int, list[tuple[str, bytes]]] = {}
    for (line, item), row in mended.items():
        by_line.setdefault(line, []).append((item, row["raw"]))
    line, at = 1, 0  # where the next byte will stand
    for block in documents(content, max_bytes):
        if block.long:
            raise IngestError("A document over max_document_bytes cannot be put in its place: split the file.")
        lines = max(block.first_line - line, int(at > 0))
        between = b" " * (block.offset - at - lines) + b"\n" * lines  # as long as it was, if that can be
        yield between
        line, at = line + lines, at + len(between)
        edits.add(at, block.offset - at)
        taken = 0  # bytes of the document that were given out, or have others in their place
        for begin, end, raw in sorted(_spots(block.data, by_line.get(block.first_line, ()))):
            if begin < taken:  # the whole document was mended, too
                continue
            part = block.data[taken:begin] + raw
            yield part
            line, at, taken = line + part.count(b"\n"), at + len(part), end
            edits.add(at, block.offset + end - at)
        part = block.data[taken:]
        yield part
        line, at = line + part.count(b"\n"), at + len(part)


def _spots(document: bytes, mended: Iterable[tuple[str, bytes]]) -> Iterator[tuple[int, int, bytes]]:
    """Where mended items stand in a document, in bytes, and what is to stand there."""
    text = document.decode("utf-8", "surrogateescape")
    for item, raw in mended:
        if not item:
            yield 0, len(document), raw
        elif where := jsontext.place(text, item):
            begin, end = (len(text[:character].encode("utf-8", "surrogateescape")) for character in where)
            yield begin, end, raw


def _substituted(content: Iterator[bytes], by_line: Mapping[int, bytes], edits: _Edits) -> Iterator[bytes]:
    """The content with some lines in place of others. No line is held: each comes and goes by the piece."""
    number, begun = 1, False
    at = shift = 0  # of what was given out
    for piece in content:
        parts = piece.split(b"\n")
        for place, part in enumerate(parts):
            if place:
                number, begun, at = number + 1, False, at + 1
            if number in by_line:
                parts[place] = b"" if begun else by_line[number]
                shift += len(part) - len(parts[place])
                edits.add(at + len(parts[place]), shift)
            begun = True
            at += len(parts[place])
        yield b"\n".join(parts)
