"""Failed lines, mended, on their way back: a source file of its own whose lines stand where the original's stood.

In:     a file with failed lines, and the mended ones as LINE[/ITEM]<TAB>text; without them the kept lines are judged
        again under today's rules.
Out:    one loaded redrive that holds what is right now. What is still wrong stays open in the original, and only there.
Of a rejected file nothing was loaded, so the whole of it is judged, with the mended lines in their places.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from secrets import token_hex
from typing import Any, Final
from uuid import uuid4

import orjson
from pyarrow import parquet

from ingest.core import jsontext
from ingest.core.commands import Item
from ingest.core.formats import open_format
from ingest.core.source import ONE_OFF, SourceFile
from ingest.documents import documents
from ingest.errors import ConfigError, IngestError, StaleRedrive, TransientError
from ingest.pipeline import Pipeline, split_address
from ingest.ports import FileResult, Note, Redrive, Staging
from ingest.reading import Block, decompressed
from ingest.staging import stage, staging_folder

Place = tuple[int, str]  # (line, item)

MENDED_AT_MOST: Final = 8 << 20  # bytes that are sent at once from a page
_KEPT: Final = ".mended.txt"  # what a key ends with, so that it is no source file
_SHAPE = re.compile(rb"([0-9]{1,15})(/[^\t\r\n]*)?\t(.*)", re.DOTALL)
_TOLD_AT_MOST = 10
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a redrive."""

    of: str  # file_id of the original
    result: FileResult | None  # of the redrive; None: no line of it could be loaded
    refused: list[dict[str, Any]] = field(
        default_factory=list
    )  # lines that are still wrong, as `failed_lines` has them
    already: int = 0  # lines that were mended before
    error: str | None = None  # why nothing was loaded


def redrive(pipeline: Pipeline, reference: str, fixed: bytes | None, note: Note) -> Outcome:
    """Judge failed lines of a file again, and load those that are right now.

    Raises:
        IngestError: no such file, none of its lines can be mended, or `fixed` is not in the shape.
        TransientError: the warehouse did not answer. Nothing was written; safe to run again.
    """
    original = pipeline.warehouse.find_file(reference)
    for _ in range(_ATTEMPTS):
        if original["state"] not in ("loaded", "rejected"):
            raise IngestError(
                f"{original['key']} is {original['state']}: only lines of loaded and rejected files can be mended."
            )
        attempt = _Attempt(pipeline, original, note)
        try:
            return attempt.run(fixed)
        except StaleRedrive:
            original = pipeline.warehouse.find_file(original["file_id"])
    raise TransientError(f"The failed lines of {original['key']} keep changing: others mend them too. Run again.")


def parse_fixed(fixed: bytes) -> dict[Place, bytes]:
    """Mended lines by their places; the last of two with one place counts.

    Raises:
        IngestError: a line is not in the shape.
    """
    mended: dict[Place, bytes] = {}
    wrong: list[int] = []
    for number, line in enumerate(fixed.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        text = line.removesuffix(b"\r")
        if not text.strip():
            continue
        if found := _SHAPE.fullmatch(text):
            mended[int(found[1]), (found[2] or b"").decode(errors="replace")] = found[3]
        else:
            wrong.append(number)
    if wrong:
        shown = ", ".join(map(str, wrong[:_TOLD_AT_MOST])) + " …" * (len(wrong) > _TOLD_AT_MOST)
        raise IngestError(
            f"Mended lines begin with their number and a tab, as `ingest failures FILE_ID --lines` writes them:"
            f" see line {shown} of what was sent."
        )
    return mended


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


def keep_mended(pipeline: Pipeline, file_id: str, text: bytes, at: datetime) -> str:
    """Put mended lines into the bucket for uploads, under a key of our own making; its address.

    It is what a run of `ingest_action` is told where the lines are too many for Airflow's database.

    Raises:
        ConfigError: there is no bucket for uploads.
        TransientError: the store did not answer, or refused.
    """
    settings = pipeline.settings
    if settings.uploads_bucket is None:
        raise ConfigError(
            "So many mended lines need a bucket to wait in: let an operator set bucket of [uploads] in ingest.toml, or"
            " send fewer at a time."
        )
    at = at.astimezone(UTC)
    name = f"{at:%Y%m%dT%H%M%SZ}-{token_hex(6)}-{file_id[:12]}{_KEPT}"
    key = f"{settings.uploads_prefix}{at:%Y/%m/%d}/{name}"
    pipeline.store_of(ONE_OFF).receive(settings.uploads_bucket, key, [text])
    return f"s3://{settings.uploads_bucket}/{key}"


def read_mended(pipeline: Pipeline, address: str) -> bytes:
    """What `keep_mended` has put there.

    Raises:
        ConfigError: any other address.
        TransientError: the store did not answer, or refused; ObjectGone: nothing is there.
    """
    bucket, key = split_address(address)
    if not pipeline.settings.is_upload(bucket, key) or not key.endswith(_KEPT):
        raise ConfigError(f"{address} does not hold mended lines: they are read from the prefix of [uploads] only.")
    store = pipeline.store_of(ONE_OFF)
    file = store.describe(bucket, key)
    if file.size_bytes > MENDED_AT_MOST:
        raise ConfigError(f"{address} holds more than {MENDED_AT_MOST:,} bytes: send fewer lines at a time.")
    return b"".join(store.read(file))


@dataclass(slots=True)
class _Attempt:
    """One try, against what is open now."""

    pipeline: Pipeline
    original: dict[str, Any]
    note: Note

    def run(self, fixed: bytes | None) -> Outcome:
        open_lines: dict[Place, dict[str, Any]] = {}
        mended_before: set[Place] = set()
        with self.pipeline.warehouse.failed_lines(self.original["file_id"]) as rows:
            for row in rows:
                if row["redriven_by"]:
                    mended_before.add((row["line"], row["item"]))
                else:
                    open_lines[row["line"], row["item"]] = row
        if fixed is None:
            wanted = {place: row["raw"] for place, row in open_lines.items() if row["mendable"]}
        else:
            wanted = parse_fixed(fixed)
            if unknown := sorted(wanted.keys() - open_lines.keys() - mended_before):
                shown = ", ".join(f"{line}{item}" for line, item in unknown[:_TOLD_AT_MOST])
                raise IngestError(
                    f"Of {self.original['key']} these lines did not fail, so they cannot be mended: {shown}."
                )
        already = len(wanted.keys() & mended_before)
        wanted = {place: raw for place, raw in wanted.items() if place in open_lines}
        # The first redrive of a rejected file brings all of it; after that only lines are missing.
        redrives = self.pipeline.warehouse.files({"redrive_of": self.original["file_id"], "state": "loaded"}, limit=1)
        whole = self.original["state"] == "rejected" and not redrives
        outcome = self._whole(wanted, open_lines) if whole else self._lines(wanted, open_lines)
        return replace(outcome, already=outcome.already + already)

    def _lines(self, wanted: Mapping[Place, bytes], open_lines: Mapping[Place, dict[str, Any]]) -> Outcome:
        """Of a loaded file: the mended lines alone."""
        file = SourceFile.of_row(self.original)
        refused, blocks = [], []
        accepted: dict[Place, bytes] = {}
        contexts = {place: open_lines[place]["context"] for place in wanted}
        for place, items in judge_mended(self.pipeline, self.original, wanted, contexts):
            raw = wanted[place]
            if failures := [failure for item in items for failure in item.failures]:
                codes = list(dict.fromkeys(failure.code for failure in failures))
                told = {"raw": raw, "codes": codes, "failures": orjson.dumps(failures).decode()}
                refused.append(open_lines[place] | told)
            elif items:
                accepted[place] = raw
                blocks.append(Block(place[0], open_lines[place]["byte_offset"], raw, (), place[1], contexts[place]))
        if not accepted:
            return Outcome(self.original["file_id"], None, refused)
        mending = self._mending(file, accepted)
        with staging_folder(self.pipeline.settings.staging_folder) as folder:
            staging = stage([mending], _unread, self.pipeline.rules, folder, processes=1, blocks_of=lambda _: blocks)
            result = self._load(staging, list(accepted))
            already = len(accepted) if result.already else 0  # somebody sent the same lines at the same time
            return Outcome(self.original["file_id"], result, refused, already)

    def _whole(self, wanted: Mapping[Place, bytes], open_lines: Mapping[Place, dict[str, Any]]) -> Outcome:
        """Of a rejected file: all of it, with the mended lines in place, if it is now within the limits."""
        file = SourceFile.of_row(self.original)
        pipeline = self.pipeline

        def substituted(_: SourceFile) -> Iterator[bytes]:
            content = decompressed(pipeline.store_for(file.source, file.bucket, file.key).read(file))
            if open_format(file.format).documents:
                return _spliced(content, wanted, pipeline.settings.max_document_bytes)
            by_line = {line: raw for (line, _), raw in wanted.items()}
            return _substituted(content, by_line, pipeline.settings.max_line_bytes)

        mending = replace(self._mending(file, wanted), size_bytes=file.size_bytes)
        with staging_folder(pipeline.settings.staging_folder) as folder:
            processes = pipeline.settings.processes
            staging = stage([mending], substituted, pipeline.rules, folder, processes=processes)
            (staged,) = staging.files
            pipeline.apply_policies(staged, "new")
            refused = [row for path in staging.failed for row in parquet.read_table(path).to_pylist()]
            if staged.outcome != "loaded":
                return Outcome(self.original["file_id"], None, refused, error=staged.error)
            wrong = {(row["line"], row["item"]) for row in refused}
            staged.counts.lines -= sum(not row["item"] for row in refused)
            staged.counts.items -= len(refused)
            staged.counts.failed = 0
            result = self._load(replace(staging, failed=[]), [place for place in open_lines if place not in wrong])
            return Outcome(self.original["file_id"], result, refused)

    def _mending(self, original: SourceFile, lines: Mapping[Place, bytes]) -> SourceFile:
        """The source file that these lines are: the same lines of the same file are the same source file."""
        text = b"".join(b"%d%b\t%b\n" % (line, item.encode(), raw) for (line, item), raw in sorted(lines.items()))
        digest = sha256(original.file_id.encode() + text).hexdigest()
        return replace(
            original, key=f"{original.key}#{digest[:12]}", etag=digest, version_id=None, size_bytes=len(text),
            mends=original.key,
        )  # fmt: skip

    def _load(self, staging: Staging, lines: list[Place]) -> FileResult:
        (staged,) = staging.files
        staged.redrive = Redrive(self.original["file_id"], lines)
        staged.skip_same_bytes = False
        (result,) = self.pipeline.warehouse.load(staging, uuid4().hex, self.note.run_id, intent="again", note=self.note)
        return result


def _unread(_: SourceFile) -> Iterator[bytes]:
    raise AssertionError("its lines are given")


def _spliced(content: Iterator[bytes], wanted: Mapping[Place, bytes], max_bytes: int) -> Iterator[bytes]:
    """Documents with some, or some items of theirs, in place of others; each begins in the line where it did."""
    by_line: dict[int, list[tuple[str, bytes]]] = {}
    for (line, item), raw in wanted.items():
        by_line.setdefault(line, []).append((item, raw))
    at = 1
    for block in documents(content, max_bytes):
        text = block.data
        if block.long:
            raise IngestError("A document over max_document_bytes cannot be put in its place: split the file.")
        for item, raw in by_line.get(block.first_line, ()):
            if not item:
                text = raw
            elif where := jsontext.place(text.decode("utf-8", "surrogateescape"), item):
                characters = text.decode("utf-8", "surrogateescape")
                before, after = characters[: where[0]], characters[where[1] :]
                text = before.encode("utf-8", "surrogateescape") + raw + after.encode("utf-8", "surrogateescape")
        yield b"\n" * (block.first_line - at) + text + b"\n"
        at = max(at, block.first_line) + text.count(b"\n") + 1


def _substituted(content: Iterator[bytes], by_line: Mapping[int, bytes], max_line_bytes: int) -> Iterator[bytes]:
    """The content with some lines in place of others. A line too long to be held passes by piece."""
    number, rest = 1, b""
    passing = False  # inside a long line that nothing takes the place of
    for piece in content:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield (line if passing else by_line.get(number, line)) + b"\n"
            number, passing = number + 1, False
        if len(rest) > 2 * max_line_bytes and number not in by_line:
            yield rest
            rest, passing = b"", True
    if rest or number in by_line:
        yield rest if passing else by_line.get(number, rest)
