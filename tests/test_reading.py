"""Any bytes, in any pieces: the same lines, numbers and offsets as the obvious model."""

import base64
import gzip
import hashlib
import random
import resource
import sys
from collections.abc import Iterator
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import TransientError
from ingest.reading import BOM, HEAD_BYTES, STEP_BYTES, Block, Digest, blocks, decompressed, peek

SKIPPED = b"\x50\x2a\x4d\x18\x04\0\0\0size"  # a frame of zstd without content, as pzstd writes one before each other
LINES = b'{"_p":"ann","_t":1393344604,"_n":"Signed up"}\n{"_p":"bob","_t":1393344605,"plan":"pro"}\n'
NOISE = random.Random(1).randbytes(300_000)  # what no compressor can shorten


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return packed


def cut(data: bytes, *sizes: int) -> Iterator[bytes]:
    """`data` in pieces of these sizes, again and again."""
    at = turn = 0
    while at < len(data):
        yield data[at : at + sizes[turn % len(sizes)]]
        at += sizes[turn % len(sizes)]
        turn += 1


def model(data: bytes, max_line_bytes: int) -> list[tuple[int, int, bytes | tuple[int, bytes, str]]]:
    """(number, offset, line with its end; or length, head and hash where it is too long)."""
    offset = len(BOM) if data.startswith(BOM) else 0
    found: list[tuple[int, int, bytes | tuple[int, bytes, str]]] = []
    parts = data[offset:].split(b"\n")
    for number, part in enumerate(parts, 1):
        line = part.removesuffix(b"\r")
        whole = part if number == len(parts) else part + b"\n"
        if len(line) > max_line_bytes:
            found.append((number, offset, (len(line), line[:HEAD_BYTES], hashlib.sha256(line).hexdigest())))
        elif whole:
            found.append((number, offset, whole))
        offset += len(whole)
    return found


def lines_of(found: list[Block]) -> list[tuple[int, int, bytes | tuple[int, bytes, str]]]:
    lines: list[tuple[int, int, bytes | tuple[int, bytes, str]]] = []
    for block in found:
        assert bool(block.data) != bool(block.long)
        for long in block.long:
            assert (block.first_line, block.offset) == (long.line, long.offset)
            lines.append((long.line, long.offset, (long.length, long.head, long.sha256)))
        offset = block.offset
        for number, line in enumerate(block.data.split(b"\n"), block.first_line):
            if whole := block.data[offset - block.offset :][: len(line) + 1]:
                lines.append((number, offset, whole))
            offset += len(whole)
    return lines


@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bb", b"{}", BOM, b"\0", b"x" * 9]), max_size=60).map(
            b"".join
        ),
    ),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    max_line_bytes=st.integers(1, 40),
    block_bytes=st.integers(1, 80),
)
def test_any_bytes_give_the_lines_of_the_model(
    data: bytes, sizes: list[int], max_line_bytes: int, block_bytes: int
) -> None:
    found = list(blocks(cut(data, *sizes), max_line_bytes, block_bytes))
    assert lines_of(found) == model(data, max_line_bytes)
    for block, following in pairwise(found):
        assert not block.data or block.data.endswith(b"\n"), "only the last line of a file may lack its end"
        assert following.first_line > block.first_line


@pytest.mark.parametrize(
    ("line", "length"),
    [
        pytest.param(b"x" * 100, None, id="at the limit, no end"),
        pytest.param(b"x" * 100 + b"\n", None, id="at the limit"),
        pytest.param(b"x" * 100 + b"\r\n", None, id="at the limit, CRLF"),
        pytest.param(b"x" * 101, 101, id="one over, no end"),
        pytest.param(b"x" * 101 + b"\n", 101, id="one over"),
        pytest.param(b"x" * 101 + b"\r\n", 101, id="one over, CRLF"),
        pytest.param(b"x" * 100 + b"\r\r\n", 101, id="only one CR belongs to the end"),
        pytest.param(b"x" * 70_000 + b"\n", 70_000, id="longer than what is kept"),
    ],
)
@pytest.mark.parametrize("size", [1, 99, 100, 101, 102, 103, 1 << 20])
@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
def test_the_limit_of_a_line(line: bytes, length: int | None, size: int, block_bytes: int) -> None:
    data = b"before\n" + line + (b"after\n" if line.endswith(b"\n") else b"")
    found = list(blocks(cut(data, size), 100, block_bytes))
    assert lines_of(found) == model(data, 100)
    assert [long.length for block in found for long in block.long] == ([length] if length else [])


def raw(content: bytes, last: bool = False) -> bytes:
    """A block of a zstd frame, not packed."""
    return (len(content) << 3 | last).to_bytes(3, "little") + content


def repeated(byte: bytes, times: int) -> bytes:
    """A block of a zstd frame that stands for a byte some times."""
    return (times << 3 | 1 << 1).to_bytes(3, "little") + byte


def zstd_frame(window: int, *blocks: bytes) -> bytes:
    """A zstd frame that asks for a window: 0x88 is one of 128 MiB, 0xa8 of 2 GiB (RFC 8878, 3.1.1.1.2)."""
    return b"\x28\xb5\x2f\xfd\0" + bytes([window]) + b"".join(blocks)


CHECKED = base64.b64decode("KLUv/QRYGQAAe30KutMRnA==")  # printf '{}\n' | zstd
EVIL = [
    pytest.param(b"", b"", id="empty"),
    pytest.param(BOM, BOM, id="a BOM alone"),
    pytest.param(b"\n", b"\n", id="one blank line"),
    pytest.param(LINES, LINES, id="plain"),
    pytest.param(LINES[:-1], LINES[:-1], id="no final newline"),
    pytest.param(BOM + LINES, BOM + LINES, id="BOM"),
    pytest.param(LINES.replace(b"\n", b"\r\n"), LINES.replace(b"\n", b"\r\n"), id="CRLF"),
    pytest.param(LINES.decode().encode("utf-16"), LINES.decode().encode("utf-16"), id="UTF-16"),
    pytest.param(b'{"_p":"a\0b"}\n', b'{"_p":"a\0b"}\n', id="NUL"),
    pytest.param(b"\x1f", b"\x1f", id="half of gzip's first bytes"),
    pytest.param(b"\x28\xb5\x2f", b"\x28\xb5\x2f", id="three of zstd's first bytes"),
    pytest.param(b"PK\x03\x04" + LINES, b"PK\x03\x04" + LINES, id="zip is not unpacked"),
    pytest.param(gzip.compress(LINES), LINES, id="gzip"),
    pytest.param(gzip.compress(b""), b"", id="gzip of nothing"),
    pytest.param(gzip.compress(BOM + LINES), BOM + LINES, id="gzip with a BOM"),
    pytest.param(gzip.compress(LINES) + gzip.compress(LINES), LINES * 2, id="two gzip members"),
    pytest.param(gzip.compress(LINES[:9]) + gzip.compress(LINES[9:]), LINES, id="a line over two members"),
    pytest.param(gzip.compress(LINES) + gzip.compress(b"") + gzip.compress(LINES), LINES * 2, id="an empty member"),
    pytest.param(gzip.compress(LINES) + bytes(3000), LINES, id="gzip padded with zeros"),
    pytest.param(gzip.compress(gzip.compress(LINES)), gzip.compress(LINES), id="gzip in gzip is unpacked once"),
    pytest.param(gzip.compress(NOISE), NOISE, id="gzip of noise"),
    pytest.param(zstd(LINES), LINES, id="zstd"),
    pytest.param(zstd(b""), b"", id="zstd of nothing"),
    pytest.param(zstd(LINES) + zstd(LINES), LINES * 2, id="two zstd frames"),
    pytest.param(zstd(LINES[:9]) + zstd(b"") + zstd(LINES[9:]), LINES, id="a line over frames"),
    pytest.param(zstd(NOISE), NOISE, id="zstd of noise"),
    pytest.param(SKIPPED + zstd(LINES) + SKIPPED + zstd(LINES), LINES * 2, id="as pzstd writes it"),
    pytest.param(zstd(LINES) + b"\x5e\x2a\x4d\x18\x09\0\0\0seektable", LINES, id="zstd with a table behind it"),
    pytest.param(SKIPPED + SKIPPED, b"", id="zstd frames without content alone"),
    pytest.param(SKIPPED[:4] + bytes(4) + zstd(LINES), LINES, id="one that is empty"),
    pytest.param(SKIPPED[:4] + b"\0\0\1\0" + NOISE[:65_536] + zstd(LINES), LINES, id="one that is long"),
    pytest.param(CHECKED * 2 + SKIPPED + CHECKED, b"{}\n" * 3, id="zstd with checksums"),
    pytest.param(zstd_frame(0x88, raw(b"{}"), raw(b"\n", True)), b"{}\n", id="zstd's largest window"),
    pytest.param(zstd_frame(0, raw(b""), repeated(b"7", 300), raw(b"", True)), b"7" * 300, id="zstd's other blocks"),
]


@pytest.mark.parametrize(("stored", "content"), EVIL)
@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 30])
def test_content(stored: bytes, content: bytes, size: int) -> None:
    if size < 4096:
        stored_pieces = cut(stored, size) if len(stored) < 10_000 else cut(stored, size * 1000)
    else:
        stored_pieces = cut(stored, size)
    digest = Digest()
    assert b"".join(decompressed(digest.over(stored_pieces))) == content
    assert (digest.size_bytes, digest.hexdigest()) == (len(stored), hashlib.sha256(stored).hexdigest())


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(b"\x1f\x8b", id="gzip: first bytes only"),
        pytest.param(b"\x1f\x8bhello", id="gzip: first bytes, then text"),
        pytest.param(gzip.compress(LINES)[:-1], id="gzip: last byte missing"),
        pytest.param(gzip.compress(LINES)[:-8], id="gzip: checksum missing"),
        pytest.param(gzip.compress(NOISE)[:150_000], id="gzip: half"),
        pytest.param(gzip.compress(LINES) + gzip.compress(LINES)[:12], id="gzip: second member cut off"),
        pytest.param(gzip.compress(LINES) + b"\x1f", id="gzip: one byte of a second member"),
        pytest.param(gzip.compress(LINES) + b"hello", id="gzip: text behind it"),
        pytest.param(gzip.compress(LINES) + b"\0\0hello", id="gzip: zeros and text behind it"),
        pytest.param(flipped(gzip.compress(LINES), 30), id="gzip: a wrong byte"),
        pytest.param(flipped(gzip.compress(LINES), -6), id="gzip: wrong checksum"),
        pytest.param(zstd(LINES)[:4], id="zstd: first bytes only"),
        pytest.param(zstd(LINES)[:-1], id="zstd: last byte missing"),
        pytest.param(zstd(NOISE)[:150_000], id="zstd: half"),
        pytest.param(zstd(LINES) + zstd(LINES)[:9], id="zstd: second frame cut off"),
        pytest.param(zstd(LINES) + b"hello", id="zstd: text behind it"),
        pytest.param(zstd(LINES) + bytes(30), id="zstd: zeros behind it"),
        pytest.param(zstd(LINES) + b"\x28", id="zstd: one byte of a second frame"),
        pytest.param(zstd(LINES) + SKIPPED[:-1], id="zstd: what holds nothing is cut off"),
        pytest.param(SKIPPED + b"\x04\x22\x4d\x18" + LINES, id="zstd: lz4 behind what holds nothing"),
        pytest.param(flipped(CHECKED, -1), id="zstd: wrong checksum"),
        pytest.param(CHECKED[:-1], id="zstd: checksum cut off"),
        pytest.param(zstd_frame(0, b"\7\0\0"), id="zstd: a block of no kind"),
        pytest.param(zstd_frame(0, raw(b"{}")), id="zstd: no last block"),
    ],
)
@pytest.mark.parametrize("size", [1, 4096, 1 << 30])
def test_broken_archives_can_be_tried_again(stored: bytes, size: int) -> None:
    with pytest.raises(TransientError, match=r"^The (gzip|zstd) data is .*: send the file again\.$"):
        list(decompressed(cut(stored, max(size, len(stored) // 1000))))


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        pytest.param(zstd_frame(0xA8, raw(b"{}", True)), "a window of 2,048 MiB", id="--long=31"),
        pytest.param(zstd_frame(0x89, raw(b"{}", True)), "a window of 144 MiB", id="just too long"),
        pytest.param(
            b"\x28\xb5\x2f\xfd\xe0" + (1 << 28).to_bytes(8, "little") + raw(b"{}", True),
            "a window of 256 MiB", id="a single segment",
        ),
        pytest.param(
            b"\x28\xb5\x2f\xfd\x23\x07\0\0\0\3" + raw(b"{}\n", True), "with a dictionary (-D)", id="a dictionary"
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [b"", SKIPPED, zstd(LINES), CHECKED + SKIPPED])
@pytest.mark.parametrize("size", [1, 1 << 30])
def test_what_a_zstd_frame_needs_is_said(frame: bytes, said: str, before: bytes, size: int) -> None:
    with pytest.raises(TransientError) as error:
        list(decompressed(cut(before + frame, size)))
    assert said in str(error.value)
    assert str(error.value).endswith(" send the file again.")


@given(st.lists(st.sampled_from([SKIPPED, CHECKED, zstd(LINES), zstd(b""), zstd(b"7" * 70_000)])), st.data())
def test_any_frames_of_zstd_are_read_in_any_pieces(frames: list[bytes], data: st.DataObject) -> None:
    holds = {CHECKED: b"{}\n", zstd(LINES): LINES, zstd(b"7" * 70_000): b"7" * 70_000}
    stored = b"".join(frames)
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    assert b"".join(decompressed(cut(stored, *sizes))) == b"".join(holds.get(frame, b"") for frame in frames)
    whole = {0}
    for frame in frames:
        whole.add(max(whole) + len(frame))
    at = data.draw(st.integers(0, len(stored)))
    if at not in whole and at > 4:
        with pytest.raises(TransientError):
            list(decompressed(cut(stored[:at], *sizes)))


def test_the_beginning_of_many_tiny_pieces_is_found_in_one_pass() -> None:
    class Piece(bytes):
        asked = 0

        def __len__(self) -> int:
            Piece.asked += 1
            return 1

    head, pieces = peek([Piece(b"7")] * 2_000, 1_000)
    assert (head, len(list(pieces))) == (b"7" * 1_000, 2_000)
    assert Piece.asked <= 2_000


@pytest.mark.parametrize("packed", [gzip.compress(b""), zstd(b"")], ids=["gzip", "zstd"])
def test_an_error_of_the_store_passes_through(packed: bytes) -> None:
    def broken() -> Iterator[bytes]:
        yield packed[:8]
        raise TransientError("the store went away")

    with pytest.raises(TransientError, match="the store went away"):
        list(decompressed(broken()))


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_bomb_is_unpacked_in_small_steps(pack: object) -> None:
    size = 300_000_000
    bomb = pack(bytes(size))  # type: ignore[operator]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    digest = Digest()
    (found,) = blocks(decompressed(digest.over([bomb])), 1 << 20)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert [(long.length, len(long.head)) for long in found.long] == [(size, HEAD_BYTES)]
    assert grown < 40_000_000
    assert max(map(len, decompressed([bomb]))) <= STEP_BYTES
