"""From the bytes of a stored object to blocks of whole lines: what is a line, and where does it stand?

In:     pieces of the stored bytes, of any size.
Out:    blocks that know their first line and their offset, so that each can be judged on its own.
Decides: compression is known by the first bytes, never by the name; a line ends at `\\n` and nowhere else, and a `\\r`
        before that (or at the very end) belongs to the line end; a BOM at the start is no part of the first line.
Memory: flat, whatever the file holds: no line longer than the limit is ever held, nor what a bomb unpacks to.
"""

import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from ingest.core.native import line_ends
from ingest.errors import TransientError

STEP_BYTES = 1 << 20  # the most that is unpacked at once
_GZIP_STEP_BYTES = 64 << 10  # of packed bytes: zlib copies what it leaves over, for each of many tiny members
HEAD_BYTES = 1 << 16  # what is kept of a line that is too long
BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = tuple(bytes([first]) + b"\x2a\x4d\x18" for first in range(0x50, 0x60))  # a zstd frame without content
MAGIC_BYTES = len(_ZSTD)  # how many of the first bytes tell a compression
_WINDOW_BYTES = (1 << 27) + 1  # the largest that libzstd unpacks unless it is told otherwise, which pyarrow does not
_GZIP_FORMAT = 31  # zlib's number for a gzip member with the largest window


@dataclass(frozen=True, slots=True)
class LongLine:
    """A line over the limit: all that is kept of it. `length` and `sha256` are of the whole line without its end."""

    line: int
    offset: int
    length: int
    head: bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines (only the last of a file may lack its `\\n`), or a single long line and then no data."""

    first_line: int  # 1-based
    offset: int  # of the first line, in the decompressed file, a BOM counted
    data: bytes
    long: tuple[LongLine, ...] = ()
    item: str = ""  # of a mended item of a document: its path; `data` is its text
    context: bytes | None = None  # and what of its document it is judged with


class Digest:
    """SHA-256 and size of the pieces that it was led over."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._hash = hashlib.sha256()

    def over(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._hash.update(piece)
            self.size_bytes += len(piece)
            yield piece

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def is_compressed(head: bytes) -> bool:
    return head.startswith((_GZIP, _ZSTD, *_SKIPPABLE))


def decompressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The content, in pieces of at most STEP_BYTES where it was compressed. Reads `pieces` to their end.

    Raises:
        TransientError: compressed data that is cut off or damaged, or needs what we have not. Pieces given out before
            are worth nothing.
    """
    head, pieces = peek(pieces, MAGIC_BYTES)
    if head.startswith(_GZIP):
        return gunzipped(pieces)
    if is_compressed(head):
        return _unzstd(_sliced(pieces, STEP_BYTES))
    return iter(pieces)


def blocks(
    pieces: Iterable[bytes], max_line_bytes: int, block_bytes: int = 1 << 20, *, native: bool = False
) -> Iterator[Block]:
    """Cut the content into blocks of about `block_bytes`; a longer line than `max_line_bytes` is a block of its own.

    `native`: the native core may count lines.
    """
    head, pieces = peek(pieces, len(BOM))
    cutter = _Cutter(max_line_bytes, block_bytes, len(BOM) if head == BOM else 0, native)
    for piece in _sliced(pieces, block_bytes):
        yield from cutter.feed(piece)
    yield from cutter.finish()


class _Cutter:
    """Collects pieces: `_whole` up to the last line end seen, `_rest` after it, `_long` while inside a long line."""

    def __init__(self, max_line_bytes: int, block_bytes: int, skip: int, native: bool) -> None:
        self._max = max_line_bytes
        self._block_bytes = block_bytes
        self._skip = skip  # bytes of the BOM still to come
        self._native = native
        self._line = 1  # where the next block begins
        self._offset = skip
        self._whole: list[bytes] = []
        self._whole_bytes = 0
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._long: _LongLineReader | None = None

    def feed(self, piece: bytes) -> Iterator[Block]:
        if self._skip:
            self._skip, piece = max(0, self._skip - len(piece)), piece[self._skip :]
        if self._long:
            end = piece.find(b"\n") + 1
            self._long.add(piece[:end] if end else piece)
            if not end:
                return
            yield self._close_long(self._long)
            piece = piece[end:]
        if cut := piece.rfind(b"\n") + 1:
            self._whole += self._rest
            self._whole.append(piece[:cut])
            self._whole_bytes += self._rest_bytes + cut
            self._rest = [piece[cut:]]
            self._rest_bytes = len(piece) - cut
        else:
            self._rest.append(piece)
            self._rest_bytes += len(piece)
        too_long = self._rest_bytes > self._max + 1  # with one byte over, that byte may be the \r of a line end
        if too_long or self._whole_bytes >= self._block_bytes:
            yield from self._lines(b"".join(self._whole))
            self._whole, self._whole_bytes = [], 0
        if too_long:
            self._long = _LongLineReader()
            for part in self._rest:
                self._long.add(part)
            self._rest, self._rest_bytes = [], 0

    def finish(self) -> Iterator[Block]:
        if self._long:
            yield self._close_long(self._long)
        yield from self._lines(b"".join(self._whole + self._rest))

    def _lines(self, data: bytes) -> Iterator[Block]:
        """Blocks of `data`, which begins with a line and ends with one: looks at single lines only near a long one."""
        begin = at = 0
        while len(data) - at > self._max:
            # Up to a newline at most `_max` bytes on, no line can be too long.
            if (end := data.rfind(b"\n", at, at + self._max + 1) + 1) == 0:
                end = (data.find(b"\n", at) + 1) or len(data)
                if _length(data[at:end]) > self._max:
                    if begin < at:
                        yield self._block(data[begin:at])
                    long = _LongLineReader()
                    long.add(data[at:end])
                    yield self._close_long(long)
                    begin = end
            at = end
        if begin < len(data):
            yield self._block(data[begin:])

    def _block(self, data: bytes) -> Block:
        block = Block(self._line, self._offset, data)
        self._line += line_ends(data, self._native)
        self._offset += len(data)
        return block

    def _close_long(self, long: "_LongLineReader") -> Block:
        self._long = None
        line = long.line(self._line, self._offset)
        self._line += 1
        self._offset += long.read_bytes
        return Block(line.line, line.offset, b"", (line,))


class _LongLineReader:
    """Reads one line to its end, keeping its head, hash and length. Holds back the `\\r` that may begin its end."""

    def __init__(self) -> None:
        self.read_bytes = 0  # with the line end
        self._hash = hashlib.sha256()
        self._length = 0
        self._head = b""
        self._held = b""

    def add(self, part: bytes) -> None:
        """Take the next part, which ends with the line's `\\n` or somewhere before."""
        self.read_bytes += len(part)
        part = self._held + part
        self._held = part[_length(part) :]
        part = part[: len(part) - len(self._held)]
        self._hash.update(part)
        self._length += len(part)
        self._head += part[: HEAD_BYTES - len(self._head)]

    def line(self, line: int, offset: int) -> LongLine:
        return LongLine(line, offset, self._length, self._head, self._hash.hexdigest())


def _length(line: bytes) -> int:
    """How long a line is without its end."""
    return len(line.removesuffix(b"\n").removesuffix(b"\r"))


def gunzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Any number of gzip members; zeros behind them (padding of tapes and disks) are no data.

    Raises:
        TransientError: as `decompressed`.
    """
    member = zlib.decompressobj(_GZIP_FORMAT)
    begun = False  # whether anything of this member was read
    for piece in _sliced(pieces, _GZIP_STEP_BYTES):
        rest = piece
        while rest := rest if begun else rest.lstrip(b"\0"):
            begun = True
            try:
                content = member.decompress(rest, STEP_BYTES)
            except zlib.error as error:
                raise TransientError(
                    "The gzip data is damaged, or followed by something else: send the file again."
                ) from error
            if content:
                yield content
            rest = member.unconsumed_tail
            if member.eof:
                rest = member.unused_data
                member, begun = zlib.decompressobj(_GZIP_FORMAT), False
    if begun:
        raise TransientError("The gzip data is cut off before its end: send the file again.")


def _unzstd(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Any number of zstd frames, those without content too."""
    import pyarrow as pa  # here, because it takes a third of a second and hardly a file needs it

    try:
        with pa.CompressedInputStream(pa.PythonFile(_Readable(_frames(pieces)), "r"), "zstd") as stream:
            while content := stream.read(STEP_BYTES):
                yield content
    except OSError as error:  # pyarrow's only class for this; a store's own errors pass through as they are
        raise TransientError(
            "The zstd data is damaged, or was packed with a dictionary, which is not taken: send the file again."
        ) from error


def _frames(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same pieces, each once the headers of the zstd frames in it were read: they say why one is not unpacked."""
    frames = _ZstdFrames()
    for piece in pieces:
        frames.look(piece)
        yield piece
    frames.finish()


class _ZstdFrames:
    """Where zstd's frames and the blocks in them begin, and what unpacking each frame takes.

    Source: RFC 8878, "Zstandard Compression and the 'application/zstd' Media Type", section 3.
    """

    def __init__(self) -> None:
        self._skip = 0  # bytes that are still to come of what was read last
        self._held = b""  # the beginning of a header
        self._in_frame = False
        self._checksum_bytes = 0  # of the frame that is read

    def look(self, piece: bytes) -> None:
        if self._skip >= len(piece):
            self._skip -= len(piece)
            return
        data, at = self._held + piece[self._skip :], 0
        while size := self._block(data, at) if self._in_frame else self._header(data, at):
            at += size
        self._skip = max(0, at - len(data))
        self._held = data[at:]

    def finish(self) -> None:
        if self._skip or self._held or self._in_frame:
            raise TransientError("The zstd data is cut off before its end: send the file again.")

    def _block(self, data: bytes, at: int) -> int:
        """How many bytes the block takes that begins at `at`, with what ends its frame; 0 if more has to be read."""
        if len(data) < at + 3:
            return 0
        header = int.from_bytes(data[at : at + 3], "little")
        is_last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == 3:
            raise TransientError("The zstd data is damaged: send the file again.")
        self._in_frame = not is_last
        return 3 + (1 if kind == 1 else size) + (self._checksum_bytes if is_last else 0)  # of kind 1 one byte repeats

    def _header(self, data: bytes, at: int) -> int:
        """The same for the header of the frame that begins at `at`, or all of a skippable one."""
        if len(data) < at + MAGIC_BYTES + 1:
            return 0
        if data.startswith(_SKIPPABLE, at):
            return 8 + int.from_bytes(data[at + 4 : at + 8], "little") if len(data) >= at + 8 else 0
        if not data.startswith(_ZSTD, at):
            raise TransientError("The zstd data is damaged, or followed by something else: send the file again.")
        told = data[at + 4]
        is_single = bool(told & 0x20)  # one segment: its window is its content
        window_at = at + 5
        dictionary_at = window_at + (not is_single)
        size_at = dictionary_at + (0, 1, 2, 4)[told & 3]
        end = size_at + ((1 if is_single else 0), 2, 4, 8)[told >> 6]
        if len(data) < end:
            return 0
        if is_single:
            window = int.from_bytes(data[size_at:end], "little") + (256 if told >> 6 == 1 else 0)
        else:
            exponent, mantissa = divmod(data[window_at], 8)
            window = (8 + mantissa) << (7 + exponent)  # eighths of 2^(10 + exponent)
        if any(data[dictionary_at:size_at]):
            raise TransientError(
                "The zstd data was packed with a dictionary (-D), which is not taken: pack it without one and send the"
                " file again."
            )
        if window > _WINDOW_BYTES:
            raise TransientError(
                f"The zstd data needs a window of {window >> 20:,} MiB to be unpacked (--long), and at most"
                f" {_WINDOW_BYTES >> 20} MiB are taken: pack it without --long, or with --long=27, and send the file"
                " again."
            )
        self._in_frame, self._checksum_bytes = True, told & 4
        return end - at


class _Readable(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._held and (piece := next(self._pieces, None)) is not None:
            self._held = piece
        data, self._held = self._held[:size], self._held[size:]
        return data


def peek(pieces: Iterable[bytes], size: int) -> tuple[bytes, Iterator[bytes]]:
    """The first `size` bytes (fewer if there are no more), and all pieces as if none had been taken."""
    rest = iter(pieces)
    taken: list[bytes] = []
    taken_bytes = 0
    while taken_bytes < size and (piece := next(rest, None)) is not None:
        taken.append(piece)
        taken_bytes += len(piece)
    return b"".join(taken)[:size], chain(taken, rest)


def _sliced(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    for piece in pieces:
        if len(piece) <= size:
            yield piece
        else:
            for start in range(0, len(piece), size):
                yield piece[start : start + size]
