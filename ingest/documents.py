"""From the bytes of a stored object to blocks of one document each: JSON that may span lines, or stand one a line.

In:     pieces of the decompressed bytes, of any size.
Out:    a block for each document, without the white space around it; blank lines between documents are nothing.
Decides: a document ends with the line in which its last bracket closes. Broken ones are not closed, so one ends too
        where a line begins with a bracket that could not stand there, and whole documents that begin a line within it
        are taken out of it: what follows a broken document is not lost.
Memory: a document over the limit is never held: only its head, length and hash.
Time:   grows with the bytes and no faster, whatever they are.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from hashlib import sha256

from ingest.core.jsontext import end_of, holds_more, values_allowed
from ingest.reading import BOM, HEAD_BYTES, Block, LongLine, peek

_WHITE = b" \t\r\n"
_STRING = re.compile(rb'"(?:[^"\\\n]++|\\.)*+(["\n])?', re.DOTALL)  # group 1 ends it: no line end stands within one
_OPENING, _CLOSING = (b"{", b"["), (b"}", b"]")
_LINE_OF_ITS_OWN = re.compile(r"\n[\[{]")
_LINE_END = re.compile(r"[ \t\r]*(\n|$)")
_SEGMENT_BYTES = 1 << 20  # of a line that does not end, this much is looked at at once
_READ_AT_MOST = 16  # times its length a broken document is read, at most, to find others in it


def documents(pieces: Iterable[bytes], max_bytes: int) -> Iterator[Block]:
    """Cut the content into documents. One over `max_bytes` is a block without data and with `long`."""
    head, pieces = peek(pieces, len(BOM))
    offset, line = 0, 1
    document: _Document | None = None
    for segment, begins_line in _segments(pieces):
        text = segment
        if offset == 0 and head == BOM:
            text = segment.removeprefix(BOM)
        stripped = text.lstrip(_WHITE)
        if document and begins_line and document.cannot_go_on(stripped):
            yield from document.close()
            document = None
        if document is None and stripped:
            document = _Document(line, offset + len(segment) - len(stripped), max_bytes)
            text = stripped
        if document:
            document.add(text)
        offset += len(segment)
        if segment.endswith(b"\n"):
            line += 1
            if document and document.is_closed:
                yield from document.close()
                document = None
    if document:
        yield from document.close()


def _segments(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Lines with their ends, and whether each begins one: a very long line comes in parts."""
    rest, begins = bytearray(), True
    for piece in pieces:
        rest += piece
        if b"\n" in piece:
            *lines, last = bytes(rest).split(b"\n")
            for line in lines:
                yield line + b"\n", begins
                begins = True
            rest = bytearray(last)
        if len(rest) > _SEGMENT_BYTES:
            escapes = len(rest) - len(rest.rstrip(b"\\"))
            cut = len(rest) - escapes % 2  # what a backslash escapes stays with it
            yield bytes(rest[:cut]), begins
            rest, begins = rest[cut:], False
    if rest:
        yield bytes(rest), begins


class _Document:
    def __init__(self, line: int, offset: int, max_bytes: int) -> None:
        self._line, self._offset, self._max = line, offset, max_bytes
        self._depth = 0
        self._in_string = False
        self._last = b""  # the last byte that is not white
        self._length = 0  # up to there
        self._read = 0  # with the white space behind it
        self._kept = bytearray()  # what was read, for as long as it is within the limit
        self._head = bytearray()
        self._hash = sha256()  # of what was read
        self._solid_hash = self._hash  # of its length

    @property
    def is_closed(self) -> bool:
        """Whether all of its brackets are; also where there is none, or one too many."""
        return self._depth <= 0

    def cannot_go_on(self, line: bytes) -> bool:
        """Whether this line cannot belong to it: an object or array follows something that none can follow."""
        return line[:1] in (b"{", b"[") and self._last not in (b",", b"[", b":")

    def add(self, part: bytes) -> None:
        """Take the next part: a line with its end, or a part of one that ends with no escape."""
        self._look(part)
        solid = part.rstrip(_WHITE)
        self._hash.update(solid)
        if solid:
            self._last = solid[-1:]
            self._length = self._read + len(solid)
            self._solid_hash = self._hash.copy()
        self._hash.update(part[len(solid) :])
        self._read += len(part)
        self._head += part[: HEAD_BYTES - len(self._head)]
        if self._length <= self._max:
            self._kept += part[: self._max - len(self._kept)]  # white space beyond the limit may be what ends it
        else:
            self._kept.clear()

    def _look(self, part: bytes) -> None:
        part = b'"' + part if self._in_string else part
        self._in_string = False
        # Without an escape every second part is outside of strings: cut so in a fifth of the time.
        outside = _STRING.sub(b"", part) if b"\\" in part else b"".join(part.split(b'"')[::2])
        self._depth += sum(map(outside.count, _OPENING)) - sum(map(outside.count, _CLOSING))
        if not part.endswith(b"\n") or part.endswith(b"\\\n"):  # no other line ends within a string
            ends = deque((string[1] for string in _STRING.finditer(part)), maxlen=1)
            self._in_string = ends == deque([None])

    def close(self) -> Iterator[Block]:
        """What it came to: a block, or several where it was broken and others stood in it."""
        if self._length > self._max:
            head, digest = bytes(self._head[: self._length]), self._solid_hash.hexdigest()
            long = LongLine(self._line, self._offset, self._length, head, digest)
            yield Block(self._line, self._offset, b"", (long,))
            return
        block = Block(self._line, self._offset, bytes(self._kept[: self._length]))
        if self.is_closed or holds_more(block.data, values_allowed(self._max)):  # which nobody decodes
            yield block
        else:
            yield from _taken_apart(block)


def _taken_apart(broken: Block) -> Iterator[Block]:
    """A document that never ends, and those whose lines stand in it: it was cut off where one could follow.

    What looks like one is read to its end, or to where it breaks. Where that comes to some times the length of all,
    the rest stays one broken document.
    """
    text = broken.data.decode("latin-1")  # a character a byte, and no other brackets or quotes than in UTF-8
    line_no, counted = broken.first_line, 0

    def part(start: int, end: int) -> Iterator[Block]:
        nonlocal line_no, counted
        if data := broken.data[start:end].strip(_WHITE):
            start = broken.data.index(data, start)
            line_no, counted = line_no + broken.data.count(b"\n", counted, start), start
            yield Block(line_no, broken.offset + start, data)

    begin = at = 0
    left = _READ_AT_MOST * len(text)
    while left > 0 and (line := _LINE_OF_ITS_OWN.search(text, at)):
        start, at = line.end() - 1, line.end()
        end, read_to = end_of(text, start)
        left -= read_to - start
        if end and _LINE_END.match(text, end):
            yield from part(begin, start)
            yield from part(start, end)
            begin = at = end
    yield from part(begin, len(text))
