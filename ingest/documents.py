"""From the bytes of a stored object to blocks of one document each: JSON that may span lines, or stand one a line.

In:     pieces of the decompressed bytes, of any size.
Out:    a block for each document, without the white space around it; blank lines between documents are nothing.
Decides: a document ends with the line in which its last bracket closes. Broken ones are not closed, so one ends too
        where a line begins with a bracket that could not stand there, and whole documents that begin a line within it
        are taken out of it: what follows a broken document is not lost.
Memory: a document over the limit is never held: only its head, length and hash.
"""

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256

from ingest.core.jsontext import end_of
from ingest.reading import BOM, HEAD_BYTES, Block, LongLine, peek

_WHITE = b" \t\r\n"
_STRING_REST = re.compile(rb'(?:[^"\\\n]|\\.)*', re.DOTALL)
_TOKEN = re.compile(rb'["\[\]{}]')
_LINE_OF_ITS_OWN = re.compile(r"\n[\[{]")
_LINE_END = re.compile(r"[ \t\r]*(\n|$)")
_SEGMENT_BYTES = 1 << 20  # of a line that does not end, this much is looked at at once


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
    rest, begins = b"", True
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line + b"\n", begins
            begins = True
        if len(rest) > _SEGMENT_BYTES:
            cut = len(rest.rstrip(b"\\"))  # what a backslash escapes stays with it
            if cut:
                yield rest[:cut], begins
                rest, begins = rest[cut:], False
    if rest:
        yield rest, begins


class _Document:
    """One document, as far as it was read."""

    def __init__(self, line: int, offset: int, max_bytes: int) -> None:
        self._line, self._offset, self._max = line, offset, max_bytes
        self._depth = 0
        self._in_string = False
        self._last = b""  # the last byte that is not white
        self._kept: list[bytes] | None = []
        self._head = b""
        self._length = 0  # without white space at the end, which is in `_white`
        self._white = b""
        self._hash = sha256()

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
        text = self._white + part
        solid = text.rstrip(_WHITE)
        self._white = text[len(solid) :]
        self._last = solid[-1:] or self._last
        self._length += len(solid)
        self._hash.update(solid)
        self._head += solid[: HEAD_BYTES - len(self._head)]
        if self._kept is not None:
            self._kept.append(solid)
            if self._length > self._max:
                self._kept = None

    def _look(self, part: bytes) -> None:
        at = 0
        while True:
            if self._in_string:
                found = _STRING_REST.match(part, at)
                assert found  # it matches nothing, too
                at = found.end()
                if at == len(part):
                    return
                self._in_string = False  # at its quote; or at a line's end, where no string may go on
                at += 1
            token = _TOKEN.search(part, at)
            if token is None:
                return
            at = token.end()
            match token[0]:
                case b'"':
                    self._in_string = True
                case b"{" | b"[":
                    self._depth += 1
                case _:
                    self._depth -= 1

    def close(self) -> Iterator[Block]:
        """What it came to: a block, or several where it was broken and others stood in it."""
        if self._kept is None:
            long = LongLine(self._line, self._offset, self._length, self._head, self._hash.hexdigest())
            yield Block(self._line, self._offset, b"", (long,))
        elif self.is_closed:
            yield Block(self._line, self._offset, b"".join(self._kept))
        else:
            yield from _taken_apart(Block(self._line, self._offset, b"".join(self._kept)))


def _taken_apart(broken: Block) -> Iterator[Block]:
    """A document that never ends, and those whose lines stand in it: it was cut off where one could follow."""
    text = broken.data.decode("latin-1")  # a character a byte, and no other brackets or quotes than in UTF-8

    def part(start: int, end: int) -> Iterator[Block]:
        if data := broken.data[start:end].strip(_WHITE):
            start = broken.data.index(data, start)
            yield Block(broken.first_line + broken.data.count(b"\n", 0, start), broken.offset + start, data)

    begin = at = 0
    while line := _LINE_OF_ITS_OWN.search(text, at):
        end, at = end_of(text, line.end() - 1), line.end()
        if end and _LINE_END.match(text, end):
            yield from part(begin, line.end() - 1)
            yield from part(line.end() - 1, end)
            begin = at = end
    yield from part(begin, len(text))
