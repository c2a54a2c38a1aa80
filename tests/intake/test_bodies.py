"""What is stored of a body: the same JSON on one line, or nothing at all."""

import asyncio
import json
import signal
import zlib
from contextlib import suppress
from typing import Any

import orjson
import pytest
import uvicorn
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from ingest.core import jsontext
from ingest.core.formats import FORMATS, open_format
from ingest.core.formats.kissmetrics_octal import is_object
from ingest.documents import documents
from ingest.intake import bodies, server
from ingest.intake.bodies import (
    Body,
    Refused,
    Shape,
    array,
    check,
    check_within,
    lines,
    object_with,
    room_of,
    unpacked,
    visits,
)
from ingest.intake.vendors import CALLS
from ingest.settings import Settings
from tests.intake.serving import gzipped

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(JSON, max_size=5), st.sampled_from([None, 0, 2, "\t"]), st.booleans())
def test_a_document_is_stored_as_it_was_on_one_line(value: list[Any], indent: Any, ascii_only: bool) -> None:
    sent = json.dumps(value, indent=indent, ensure_ascii=ascii_only).replace("\\n", "\\n").encode("utf-8", "replace")
    body = array(b"\r\n " + sent + b" \n")
    assert body.content.count(b"\n") == 1
    assert body.content.endswith(b"\n")
    assert json.loads(body.content) == json.loads(sent)
    assert body.items == len(value)
    assert body.content.rstrip(b"\n") == sent.replace(b"\n", b" ")


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), min_size=1, max_size=5), st.sampled_from([None, 1]))
def test_visits_are_stored_one_a_line(values: list[dict[str, Any]], indent: int | None) -> None:
    sent = "\n".join(json.dumps(value, indent=indent) for value in values).encode()
    body = visits(sent)
    assert [json.loads(line) for line in body.content.splitlines()] == values
    assert (body.items, body.alone) == (len(values), False)


def test_a_broken_visit_among_sound_ones_is_stored_as_sent_and_stands_alone() -> None:
    """As the first example of Woopra's page: its brackets never close."""
    sent = b'{"visitor":{"id":"a"},"actions":[{"name":"x"}]\n{"visitor":{"id":"b"}}\n'
    body = visits(sent)
    assert body == Body(sent, 2, alone=True)
    assert len(list(documents([body.content], 1000))) == 2


@pytest.mark.parametrize(
    ("shape", "sent", "said"),
    [
        (array, b"{}", "The body has to be a JSON array."),
        (array, b"[1,]", "The body is not JSON (line 1, column"),
        (array, b"[\n1,\nNaN]", "The body is not JSON (line 3, column"),
        (array, b'["\xff"]', "The body is not UTF-8: byte 3 "),
        (array, "[1]".encode("utf-16"), "The body is not UTF-8: byte 1 "),
        (visits, b'{"visitor":"\xff"}', "The body is not UTF-8: byte 13 "),
        (lines, b'{"_p":"\xff"}', "The body is not UTF-8: byte 8 "),
        (array, b'["\\ud800"]', "The body is not JSON"),
        (array, b"[" * 100_000, "The body is not JSON"),
        (object_with("users"), b"[]", 'a JSON object with an array "users"'),
        (object_with("users"), b'{"users":{}}', 'a JSON object with an array "users"'),
        (visits, b"[]", "JSON objects, one a line"),
        (visits, b'{"visitor"', "JSON objects, one a line"),
        (lines, b"1\n2\n[]", "JSON objects, one a line"),
    ],
)
def test_shapes(shape: Shape, sent: bytes, said: str) -> None:
    with pytest.raises(Refused) as refused:
        shape(sent)
    assert refused.value.status == 400
    assert said in str(refused.value)


ODD = [b'[{"a":1e999}]', b'[1e-999,{"a":-1E400}]', b"[1" + b"0" * 400 + b"]"]


@pytest.mark.parametrize("sent", ODD)
def test_what_is_json_to_the_judge_is_json_here(sent: bytes) -> None:
    """Whatever another decoder makes of it: one number that no double holds refuses its item, not the call."""
    assert array(sent) == Body(sent + b"\n", sent.count(b"},") + sent.count(b"e-999,") + 1)
    assert object_with("users")(b'{"users":%b}' % sent).content == b'{"users":%b}\n' % sent
    line = b'{"visitor":{"id":"a"},"actions":%b}' % sent
    assert visits(line) == Body(line + b"\n", 1)


VISIT = b'{"visitor":{"id":"a } {"},"actions":[{"name":"x"}]}'
SHORT = VISIT.replace(b"}]", b"]")  # a bracket short


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (VISIT + VISIT, [VISIT, VISIT]),
        (b" " + VISIT + b" \r\n" + VISIT + b"\t" + VISIT + b"\n", [VISIT] * 3),
        (VISIT.replace(b",", b",\n") + VISIT, [VISIT.replace(b",", b", "), VISIT]),
        (SHORT + VISIT, [SHORT, VISIT]),
        (VISIT + SHORT + VISIT, [VISIT, SHORT, VISIT]),
        (VISIT + VISIT + SHORT, [VISIT, VISIT, SHORT]),
    ],
)
def test_objects_one_behind_the_other_are_told_apart(sent: bytes, stored: list[bytes]) -> None:
    found = visits(sent)
    assert found == Body(b"".join(one + b"\n" for one in stored), len(stored), alone=SHORT in stored)
    assert [block.data for block in documents([found.content], len(sent) + 9)] == stored


def test_lines_one_behind_the_other_are_told_apart() -> None:
    line = b'{"_p":"a } {","_t":1393344604,"_n":"x"}'
    assert lines(line + line).content == b"%b\n%b\n" % (line, line)
    assert lines(line + b" " + line + b"\r\n" + line).content.split() == (line + b"\n").split() * 3
    broken = line + b"x" + line + b"\n"
    assert lines(broken + line).content == broken + line + b"\n"  # as it was sent
    with pytest.raises(Refused):
        lines(broken)


@pytest.mark.parametrize(
    "broken", [b"{", b"[", b'{"', b'{"a":', b"{\n", b'"\n{', b'{}{"', b"{} {", b"[{},\n{", b'{"a":1}{', b"}\n{", b"{}x"]
)
@pytest.mark.parametrize("shape", [visits, lines, array])
def test_broken_bodies_take_time_as_they_are_long(monkeypatch: pytest.MonkeyPatch, shape: Shape, broken: bytes) -> None:
    read = [0]
    end_of, decoded = jsontext.end_of, bodies._decoded

    def reading(text: str, start: int) -> tuple[int | None, int]:
        found = end_of(text, start)
        read[0] += found[1] - start
        return found

    def decoding(text: bytes) -> object:
        read[0] += len(text)
        return decoded(text)

    def repairing(line: bytes) -> bool:
        read[0] += len(line)
        return is_object(line)

    monkeypatch.setattr(bodies, "end_of", reading)
    monkeypatch.setattr(bodies, "_decoded", decoding)
    monkeypatch.setattr(bodies, "is_object", repairing)
    sent = broken * (100_000 // len(broken))
    with suppress(Refused):
        shape(sent)
    assert read[0] <= 25 * len(sent)


def test_lines_stay_as_they_are() -> None:
    sent = b'\r\n{"_p":"a\\302\\251","_t":1,"x":1}\r\nnot json'  # the first as Kissmetrics exports it
    assert lines(sent).content == sent + b"\n"
    assert lines(b"{}\n").content == b"{}\n"


@pytest.mark.parametrize("call", [call for call in CALLS if call.format in FORMATS], ids=lambda call: call.path)
def test_what_is_plainly_of_another_format_is_refused(call: Any) -> None:
    """Else it would stand first in an object one day, and what others sent would be refused with it."""
    for other in CALLS:
        sent = other.example.encode() if isinstance(other.example, str) else orjson.dumps(other.example)
        body, said = None, ""
        try:
            body = check(sent, call.shape, call.format)
        except Refused as refused:
            said = str(refused)
        assert "--format" not in said, "a client has no command line"
        assert body is not None or other.path != call.path
        assert body is None or open_format(call.format).refusal(body.content) is None


@given(st.lists(st.binary(max_size=500), min_size=1, max_size=4))
def test_gzip_comes_out_as_it_went_in(members: list[bytes]) -> None:
    grown: list[int] = []
    assert unpacked(b"".join(map(gzipped, members)), 10_000, 200, grown.append) == b"".join(members)
    assert sum(grown) == sum(map(len, members))


def test_a_bomb_is_refused_before_it_has_grown() -> None:
    grown: list[int] = []
    with pytest.raises(Refused) as refused:
        unpacked(gzipped(b"\0" * (40 << 20)), 64 << 20, 200, grown.append)
    assert refused.value.status == 413
    assert sum(grown) < 9 << 20


def test_many_tiny_members_are_unpacked_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """What zlib leaves over of a slice it copies, for each member: of all that follows it would be too much."""
    given: list[int] = []
    engine = zlib.decompressobj

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._engine = engine(wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            given.append(len(data))
            return self._engine.decompress(data, most)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._engine, name)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    members = gzipped(b"7") * 20_000
    assert unpacked(members, 10**6, 200, lambda _: None) == b"7" * 20_000
    assert sum(given) <= len(given) * (64 << 10)


@given(st.binary(max_size=300))
def test_any_bytes_are_unpacked_or_refused(sent: bytes) -> None:
    for body in (sent, gzipped(b"[]")[:-1] + sent[:1], b"\x1f\x8b\x08" + sent):
        with suppress(Refused):
            unpacked(body, 1000, 200, lambda _: None)


def test_there_is_room_for_what_a_body_is_while_it_is_looked_at() -> None:
    settings = Settings(warehouse_url="duckdb:///x")
    held: list[int] = []
    sent = b"[" + b"[0,0,0]," * 1000 + b"0]"
    check_within(sent, array, "vitally", settings, held.append)
    assert held[0] > 100 * 4000
    assert sum(held) == 0
    with pytest.raises(Refused):
        check_within(sent[:-1], array, "vitally", settings, held.append)
    assert sum(held) == 0
    lines_of = b'{"_p":"a","_t":1393344604,"_n":"x"}\n' * 1000
    check_within(lines_of, lines, "kissmetrics", settings, held.append)
    assert sum(held) == 0


def test_a_body_that_holds_too_much_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsontext, "_VALUES_ALLOWED", 100)
    settings = Settings(warehouse_url="duckdb:///x", max_document_bytes=1000)
    assert check_within(b'["' + b"," * 200 + b'"]', array, "vitally", settings, lambda _: None).items == 1
    with pytest.raises(Refused) as refused:
        check_within(b"[" + b"0," * 100 + b"0", array, "vitally", settings, lambda _: None)
    assert refused.value.status == 413
    assert "more than 100 values" in str(refused.value)


def test_one_of_the_largest_bodies_always_finds_room() -> None:
    settings = Settings(warehouse_url="duckdb:///x")
    with room_of(settings).share() as grow:
        grow(settings.intake_max_body_bytes)
        grow(settings.intake_max_decompressed_bytes)
        body = b'["' + b"," * (6 << 20) + b'"]'  # signs enough for as many values as there may be
        check_within(body, array, "vitally", settings, grow)
        grow(settings.intake_max_decompressed_bytes)


@pytest.mark.parametrize(
    ("pause", "said"), [(0.02, "The body was not whole after 0.3 seconds"), (5, "Nothing came for 0.2 seconds")]
)
def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch, pause: float, said: str) -> None:
    monkeypatch.setattr(bodies, "_BODY_SECONDS", 0.3)
    monkeypatch.setattr(bodies, "_SILENT_SECONDS", 0.2)

    async def trickle() -> dict[str, Any]:
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": b"x", "more_body": True}

    request = Request({"type": "http", "method": "POST", "headers": []}, trickle)
    with pytest.raises(Refused, match=said) as refused:
        asyncio.run(bodies.read(request, Settings(warehouse_url="duckdb://"), lambda _: None))
    assert refused.value.status == 408


def test_more_connections_than_there_are_files_for_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[uvicorn.Config] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: asked.append(self.config))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with server.listen("127.0.0.1", 0) as at:
        server.run(FastAPI(), at, lambda: None)
    assert 0 < (asked[0].limit_concurrency or 0) < 1024


def test_what_is_joined_without_end_is_refused_at_once() -> None:
    """A hundred kilobytes of gzip became millions of objects."""
    for shape, body in ((lines, b"{}" * 200_000), (visits, b"}{" * 200_000), (visits, b'{"a":"}{}{}{' * 60_000)):
        with pytest.raises(Refused, match="one behind the other") as refused:
            check(body, shape, "kissmetrics" if shape is lines else "woopra")
        assert refused.value.status == 413
    with pytest.raises(Refused, match="JSON objects"):
        check(b"{1}\n" * 50_000 + b"{}\n", lines, "kissmetrics")
    assert check(b"{}\n" * 150_000, lines, "kissmetrics").items == 150_000
