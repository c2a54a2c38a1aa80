"""Any documents, however they are printed and cut: the same ones again, each where it stood."""

import json
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import documents as module
from ingest import judging
from ingest.core import jsontext
from ingest.core.commands import Rules
from ingest.core.source import SourceFile
from ingest.documents import documents
from ingest.ports import StagedFile, StagedRows
from ingest.reading import BOM, HEAD_BYTES, Block
from ingest.report import batches
from ingest.staging import stage
from tests.core.test_bodies import BODIES, MANY
from tests.support import ARRIVAL, MemoryStore
from tests.test_reading import cut

LIMIT = 1 << 20
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a,:[]{}"\\\n\u2028é'), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from('ab"]{,'), inner, max_size=3),
    max_leaves=6,
)
BODY = st.lists(JSON, max_size=3) | st.dictionaries(st.sampled_from('ab"]{,'), JSON, max_size=3)
SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=4)
ENDS = st.sampled_from(["\n", "\n", "\r\n", "\n\n", "\n \t\r\n", " \n"])


@st.composite
def printed(draw: st.DrawFn, values: st.SearchStrategy[object] = JSON) -> str:
    """A document as somebody's program prints it."""
    indent = draw(st.sampled_from([None, None, 0, 1, "\t"]))
    text = json.dumps(draw(values), indent=indent, ensure_ascii=draw(st.booleans()))
    if indent is not None and draw(st.booleans()):  # a bracket on a line of its own
        text = text.replace(": {\n", ":\n{\n").replace(": [\n", ":\n[\n")
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))


def at_once(data: bytes, max_bytes: int = LIMIT) -> list[Block]:
    return list(documents([data], max_bytes))


def told(found: Sequence[Block]) -> list[tuple[int, int, bytes]]:
    assert all(bool(block.data) != bool(block.long) for block in found)
    return [(block.first_line, block.offset, block.data) for block in found]


@settings(deadline=None)
@given(st.sampled_from([b"", BOM]), st.lists(st.tuples(ENDS, printed(), ENDS), max_size=5), SIZES, st.booleans())
def test_sound_documents_are_found_where_they_stand(
    head: bytes, parts: list[tuple[str, str, str]], sizes: list[int], ends: bool
) -> None:
    data, expected = head, []
    for before, text, after in parts:
        data += before.encode()
        expected.append((data.count(b"\n") + 1, len(data), text.encode()))
        data += (text + after).encode()
    if not ends:
        data = data.rstrip(b" \t\r\n")
    assert told(list(documents(cut(data, *sizes), LIMIT))) == expected


@settings(deadline=None)
@given(
    st.lists(st.tuples(BODY, st.none() | st.floats(0, 1), st.sampled_from(["", ",", "]", "}", '"', "x"])), max_size=6)
)
def test_a_broken_line_swallows_no_sound_one(lines: list[tuple[object, float | None, str]]) -> None:
    """Each line is a document, or one that was cut off somewhere behind its first bracket."""
    data, sound = b"", []
    for value, share, tail in lines:
        text = json.dumps(value)
        if share is not None:
            text = text[: 1 + int(share * (len(text) - 1))] + tail
        if _is_json(text):
            sound.append((data.count(b"\n") + 1, len(data), text.encode()))
        data += text.encode() + b"\n"
    found = told(at_once(data))
    assert [one for one in sound if one not in found] == []


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]",:\\a1 \n\r'), max_size=60).map(str.encode), SIZES)
def test_any_bytes_are_kept_in_order(data: bytes, sizes: list[int]) -> None:
    found = list(documents(cut(data, *sizes), LIMIT))
    assert found == at_once(data)
    assert all(data[block.offset :].startswith(block.data) for block in found)
    for before, after in pairwise(found):
        assert before.offset + len(before.data) < after.offset
        assert before.first_line < after.first_line
    left = data.removeprefix(BOM)
    for block in found:
        left = left.replace(block.data, b"", 1)
        assert block.first_line == data[: block.offset].count(b"\n") + 1
    assert not left.strip(b" \t\r\n")


@settings(deadline=None)
@given(st.lists(printed(), min_size=1, max_size=5), st.integers(1, 20), SIZES)
def test_over_the_limit_only_length_hash_and_head_are_kept(texts: list[str], limit: int, sizes: list[int]) -> None:
    data = "\n".join(texts).encode()
    for block, text in zip(documents(cut(data, *sizes), limit), map(str.encode, texts), strict=True):
        if len(text) <= limit:
            assert block.data == text
        else:
            (long,) = block.long
            assert (block.data, long.length, long.head, long.sha256) == (
                b"", len(text), text[:HEAD_BYTES], sha256(text).hexdigest(),
            )  # fmt: skip
            assert (long.line, long.offset) == (block.first_line, block.offset)
        assert data[block.offset :].startswith(text)


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("step", [(1 << 20) + 1, (1 << 20) + 2, 1 << 22])
def test_a_long_document_in_long_lines(indent: int | None, step: int) -> None:
    """Lines of megabytes come in parts, and backslashes fall on their borders."""
    long = json.dumps({"a": ['\\"{[' * 400_000, {"b": "\\" * 1_000_000}]}, indent=indent).encode()
    data = b"{}\n" + long + b"\r\n7"
    expected = [(1, 0, b"{}"), (2, 3, long), (3 + long.count(b"\n"), 5 + len(long), b"7")]
    assert told(list(documents(cut(data, step), LIMIT * 16))) == expected
    blocks = list(documents(cut(data, step), LIMIT))
    assert [block.first_line for block in blocks] == [line for line, _, _ in expected]
    (kept,) = blocks[1].long
    assert (kept.length, kept.head, kept.sha256) == (len(long), long[:HEAD_BYTES], sha256(long).hexdigest())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('{"a":1\n{"b":2}', ['{"a":1', '{"b":2}'], id="one bracket short"),
        pytest.param('{"a":[\n{"b":2}\n{"c":3}', ['{"a":[', '{"b":2}', '{"c":3}'], id="cut off where one may follow"),
        pytest.param('{"a":1,\n{"b":2}\nx\n', ['{"a":1,', '{"b":2}', "x"], id="and rubbish behind"),
        pytest.param('{"a":"x,\n{"b":2}', ['{"a":"x,', '{"b":2}'], id="cut off in a string"),
        pytest.param(
            '{"a":\n{\n "b":[\n{}\n]\n}\n{"c":3}',
            ['{"a":', '{\n "b":[\n{}\n]\n}', '{"c":3}'],
            id="before a printed one",
        ),
        pytest.param('{"a":[\n{"b":2},\n{"c":3},\n', ['{"a":[\n{"b":2},\n{"c":3},'], id="cut off after elements"),
        pytest.param('[\n  {"a":1},\n  {"b":2}\n', ['[\n  {"a":1},\n  {"b":2}'], id="an indented document cut off"),
        pytest.param('{"a":1}}\n{"b":2}', ['{"a":1}}', '{"b":2}'], id="one bracket too many"),
        pytest.param('{"a":1} {"b":2}\n[]', ['{"a":1} {"b":2}', "[]"], id="two on a line"),
        pytest.param("x\n[]", ["x", "[]"], id="no bracket at all"),
        pytest.param(" \n\t\n", [], id="nothing"),
    ],
)
def test_broken_documents(text: str, expected: list[str]) -> None:
    assert [block.data.decode() for block in at_once(text.encode())] == expected


# --- as much work as there are bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("white", ["\n", "\t\r\n"])
@pytest.mark.parametrize("end", ['"b":2}', ""])
def test_white_space_is_looked_at_once(white: str, end: str) -> None:
    """Half a megabyte of blank lines: minutes, if each had all before it looked at again."""
    text = '{"a":1,' + white * 500_000 + end
    (found,) = told(at_once(text.encode(), 10 * LIMIT))
    assert found == (1, 0, text.strip().encode())
    (block,) = at_once(text.encode(), 6)
    (long,) = block.long
    whole = text.strip().encode()
    assert (long.length, long.head, long.sha256) == (len(whole), whole[:HEAD_BYTES], sha256(whole).hexdigest())


def test_white_space_over_the_limit_is_no_part_of_a_document() -> None:
    assert told(at_once(b"{}" + b" " * 100 + b"\n7\n", 10)) == [(1, 0, b"{}"), (2, 103, b"7")]


@pytest.mark.parametrize("odd", [0, 1])
def test_a_line_of_backslashes_is_cut_as_any_other(odd: int) -> None:
    pieces = [b'["' + b"\\" * odd, *[b"\\" * (1 << 18)] * 32, b'"]\n']
    segments = [segment for segment, _ in module._segments(pieces)]
    assert b"".join(segments) == b"".join(pieces)
    assert max(map(len, segments)) < 2 << 20
    assert all((len(one) - len(one.rstrip(b"\\"))) % 2 == 0 for one in segments)
    (block,) = documents(pieces, LIMIT)
    assert block.long[0].length == sum(map(len, pieces)) - 1


def test_pieces_of_a_byte_are_put_together_once() -> None:
    """As gzip gives them that has a member for each byte."""
    text = b'["' + b"x" * (1 << 20) + b'"]'
    assert told(list(documents(cut(text, 1), 2 * LIMIT))) == [(1, 0, text)]


@pytest.mark.parametrize("line", ["[\n", '["a",\n', '{"a":\n', "[\n[\n[0],\n"])
@pytest.mark.parametrize("rest", ["0," * 20_000, '"' + "x" * 40_000, "[" * 40_000])
def test_a_broken_document_is_read_a_few_times_at_most(monkeypatch: pytest.MonkeyPatch, line: str, rest: str) -> None:
    read: list[int] = []

    def counting(text: str, start: int) -> tuple[int | None, int]:
        found = jsontext.end_of(text, start)
        read.append(found[1] - start)
        return found

    monkeypatch.setattr(module, "end_of", counting)
    data = (line * 900 + rest).encode()
    found = at_once(data)
    assert b"".join(block.data for block in found).split() == data.split()
    assert 0 < sum(read) <= (module._READ_AT_MOST + 1) * len(data)


@pytest.mark.parametrize("line", ["[{},\n{", '},\n{"a":[\n', '"\n{', "[[1,\n["])
def test_openings_that_never_close_take_time_as_they_are_long(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """The decoder goes through all that it was given when it says where the mistake is."""
    given: list[int] = []

    class Counting:
        def raw_decode(self, text: str, start: int = 0) -> tuple[object, int]:
            given.append(len(text))
            return decoder.raw_decode(text, start)

    decoder = jsontext._DECODER
    monkeypatch.setattr(jsontext, "_DECODER", Counting())
    data = (line * 10_000).encode()
    found = b"".join(block.data for block in documents([data], 1 << 20))
    assert b"".join(found.split()) == b"".join(data.split())
    assert sum(given) <= len(given) * 4096 + 16 * 2 * len(data)


def test_a_broken_document_of_too_many_values_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"[\n[1],\n[" + b"2," * 50
    monkeypatch.setattr(jsontext, "_VALUES_ALLOWED", 60)
    assert len(at_once(text, 200)) == 1
    monkeypatch.setattr(module, "end_of", None)
    monkeypatch.setattr(jsontext, "_VALUES_ALLOWED", 10)
    assert told(at_once(text, 200)) == [(1, 0, text)]


@pytest.mark.parametrize(
    ("text", "end", "read_to"),
    [
        ("[1] ", 3, 3),
        ("[1x]", None, 2),
        ("[1,", None, 3),
        ('["aaa', None, 5),
        ("[" * 5000, None, 5000),
        ("[9", None, 2),
        *(  # over the end of what is read at once
            (f"[{' ' * white}{word}{rest}", end and white + end, white + read_to)
            for white in range(4078, 4100)
            for word, rest, end, read_to in (
                ('"\\ud83d\\ude00"', "]", 16, 16), ("-1.5e300", "]", 10, 10), ("null", "]", 6, 6), ("[{}]", "]", 6, 6),
                ('"\\ud83d\\ude00"', "x", None, 15), ("false", "x", None, 6), ("[]", ",", None, 4),
            )
        ),
    ],
)  # fmt: skip
def test_it_is_known_how_far_a_value_was_read(text: str, end: int | None, read_to: int) -> None:
    assert jsontext.end_of(text, 0) == (end, read_to)


# --- staged ----------------------------------------------------------------------------------------------------------


class Staged:
    """A file of documents, judged, and the rows that it became."""

    def __init__(self, body: bytes, format: str, **rules: Any) -> None:
        store = MemoryStore()
        file = store.put(
            SourceFile(
                bucket="b", key="1.json", etag="1", last_modified=ARRIVAL, size_bytes=len(body), format=format
            ), body,
        )  # fmt: skip
        chosen = Rules(received_at=file.received_at, file_id=file.file_id, people_space="p", match="exact", **rules)
        with TemporaryDirectory() as folder:
            result = stage([file], store.read, lambda _: chosen, Path(folder), processes=1)
            self.file: StagedFile = result.files[0]
            self.commands = [row for batch in batches(result.commands) for row in batch.to_pylist()]
            self.failed = [row for batch in batches(result.failed) for row in batch.to_pylist()]


def check(staged: Staged, body: bytes) -> None:
    """What holds for every file of documents."""
    counts = staged.file.counts
    if staged.file.outcome == "rejected":  # of another format
        assert (counts.lines, counts.items, counts.failed, len(staged.failed)) == (1, 1, 1, 1)
        assert staged.failed[0]["codes"] == ["wrong_format"]
        return
    accepted = {(row["line"], row["item"]) for row in staged.commands}
    refused = [(row["line"], row["item"]) for row in staged.failed]
    assert len(refused) == len(set(refused)) == counts.failed
    assert not accepted & set(refused)
    assert counts.items == len(accepted) + counts.failed
    assert counts.lines == len(at_once(body))
    assert len(staged.commands) == counts.records + counts.sets + counts.aliases
    for row in staged.failed:
        assert row["codes"]
        assert row["raw"] == body[row["byte_offset"] :][: row["byte_length"]]
        assert row["raw_sha256"] == sha256(row["raw"]).hexdigest()
        assert row["mendable"]
        assert bool(row["context"]) == bool(row["item"])


def files(format: str) -> st.SearchStrategy[bytes]:
    texts = BODIES[format]() | printed()
    lines = st.lists(st.tuples(ENDS, texts | st.just('{"visitor":{"id":"a"'), ENDS).map("".join), max_size=4)
    return st.tuples(st.sampled_from(["", "\ufeff"]), lines.map("".join)).map(lambda parts: "".join(parts).encode())


@pytest.mark.parametrize("format", BODIES)
def test_what_is_staged_adds_up_and_every_failed_item_is_found_in_the_file(format: str) -> None:
    @settings(deadline=None, max_examples=80)
    @given(files(format), st.booleans())
    def check_one(body: bytes, strict: bool) -> None:
        check(Staged(body, format, strict=strict), body)

    check_one()


@pytest.mark.parametrize("format", BODIES)
def test_what_a_document_becomes_is_written_in_parts(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = {
        "woopra": b'{"name":"x"}', "retailrocket": b'{"search":{"sessionExternalId":"a","searchPhrase":"x"}}',
        "vitally": b'{"type":"user","userId":"a","messageId":"m"}', "webengage": b'{"userId":"a","eventName":"x"}',
    }[format]  # fmt: skip
    body = MANY[format] % b",".join([sound, b"0"] * 20)
    body = body + b"\n" + body
    whole = Staged(body, format)
    monkeypatch.setattr(judging, "_ROWS_BYTES", 5000)
    written: list[int] = []
    write = judging.write

    def counting(
        path: Path, schema: Any, columns: Sequence[Sequence[object]], staged_nos: frozenset[int]
    ) -> StagedRows:
        written.append(len(columns[0]))
        return write(path, schema, columns, staged_nos)

    monkeypatch.setattr(judging, "write", counting)
    parts = Staged(body, format)
    check(parts, body)
    assert (parts.commands, parts.failed, parts.file.counts) == (whole.commands, whole.failed, whole.file.counts)
    assert sum(written) == len(whole.commands) + len(whole.failed)
    assert max(written) < 10


def test_an_item_is_found_behind_bytes_of_every_width() -> None:
    visit = '{"visitor":{"id":"é😀"}, "actions": [ {"name":"ü"},\r\n {"name" : ""}, 7 ] }'
    body = BOM + b"\r\n" + visit.encode() + b"\r\n" + visit.encode()
    staged = Staged(body, "woopra")
    check(staged, body)
    assert [(row["line"], row["item"], row["raw"]) for row in staged.failed] == [
        (2, "/actions/1", b'{"name" : ""}'), (2, "/actions/2", b"7"),
        (4, "/actions/1", b'{"name" : ""}'), (4, "/actions/2", b"7"),
    ]  # fmt: skip
    assert (staged.file.counts.lines, staged.file.counts.items, staged.file.counts.records) == (2, 6, 2)


def test_a_document_over_the_limit_fails_alone() -> None:
    small = b'{"visitor":{"id":"a"},"actions":[{"name":"x"}]}'
    large = b'{"visitor":{"id":"a"},\n"actions":[{"name":"' + b"x" * 300 + b'"}]}'
    staged = Staged(b"\n".join([small, large, small]), "woopra", max_document_bytes=100)
    (row,) = staged.failed
    assert (row["line"], row["item"], row["byte_offset"], row["byte_length"]) == (2, "", len(small) + 1, len(large))
    assert (row["codes"], row["mendable"], row["raw"]) == (["document_too_large"], False, large)
    assert "100 are allowed" in row["failures"]
    assert [(row["line"], row["event"]) for row in staged.commands] == [(1, "x"), (4, "x")]
    assert (staged.file.counts.lines, staged.file.counts.items, staged.file.counts.failed) == (3, 3, 1)
