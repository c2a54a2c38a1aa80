"""Each vendor's call: its success, its refusals in its own words, its key; and that a refused body leaves nothing."""

import bz2
import json
import random
import socket
from collections.abc import Callable
from typing import Any

import httpx
import jsonschema
import orjson
import pytest
from fastapi.testclient import TestClient

from ingest.intake.app import make_app, too_many_calls
from ingest.intake.bodies import BUSY_SECONDS
from ingest.intake.vendors import Call
from ingest.settings import load_settings
from ingest.wiring import stores_of
from tests.intake.serving import READY, Served, World, basic, bodies_of, gzipped, key_of

calls = pytest.mark.parametrize("call", READY, ids=lambda call: call.path)
WRONG: dict[str, list[bytes]] = {  # of which nothing may be stored
    "/kissmetrics/{source}": [b"plain words", b'{\n "_p": "a",\n "_t": 1393344604\n}', b"[1,2]", b"\xff\xfe"],
    "/rest/{version}/logs/import": [b'{"visitor":', b"[]", b"7"],
    "/rest/{version}/import": [b"visitor"],
    "/v1/accounts/{licence}/bulk-users": [
        b"[]",
        b'{"events":[]}',
        b'{"users":{}}',
        b'{"users":[],"x":1}',
        b'{"users":[],}',
        b"\xff",
    ],
    "/v1/accounts/{licence}/bulk-events": [b'{"users":[]}', b"null"],
    "/1.0/visitorEvents": [b'{"view":{}}', b"[", b'[{"view":NaN}]'],
    "/analytics/v1/batch": [b'{"type":"user"}', b"[]]"],
}
SUCCESS: dict[str, Any] = {
    "kissmetrics": {"stored": True}, "woopra": {"success": True}, "webengage": {"response": {"status": "queued"}},
    "retailrocket": None, "vitally": {"message": "Success."},
}  # fmt: skip


def message(call: Call, answer: httpx.Response) -> str:
    """What a refusal says, out of the vendor's envelope."""
    told = answer.json()
    jsonschema.validate(told, dict(call.error_schema))
    if call.format == "webengage":
        assert told.keys() == {"response"}
        assert told["response"]["status"] == "error"
        return str(told["response"]["message"])
    return str(told["error"])


@calls
def test_the_example_is_stored_and_loaded(world: World, call: Call) -> None:
    with world.serve() as served:
        for method in call.methods:
            answer = served.call(call, method=method)
            assert answer.status_code == 200, answer.text
            assert (answer.json() if answer.content else None) == SUCCESS[call.format]
            (*_, stored) = world.stored(call.format)  # it is there when the answer comes
            kept = [json.loads(line) for line in stored.splitlines()]
            sent = bodies_of(call)
            assert kept == ([json.loads(line) for line in sent.splitlines()] if call.media_type.endswith("ndjson") else [call.example])  # fmt: skip  # noqa: E501
    results = world.poll(call.format)
    assert [result.state for result in results] == ["loaded"] * len(call.methods)
    assert all(result.counts.items and not result.counts.failed for result in results)
    assert world.poll(call.format) == []


@calls
def test_keys(served: Served, call: Call) -> None:
    before = len(served.world.stored(call.format))
    path = call.path.format(source=call.format, version="3.7", licence="in~~1")
    answers = [served.http.request(call.methods[0], path, content=bodies_of(call))]
    answers += [
        served.http.post(path, content=b"{}", headers={b"Authorization": header})
        for header in (b"Basic", b"Bearer", b"Basic :", b"Basic \xff", b"Basic YQ==", b"Bearer: x", b"", b"Digest x")
    ]
    answers += [
        served.call(call, key=wrong)
        for wrong in ("x", f"{key_of(call.format)}x", key_of(call.format)[:-1], "sha256:00")
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert message(call, answer) == "The key is missing or not known here."
        assert ("www-authenticate" in answer.headers) == (call.scheme != "apiKey")
    for other in {other.format for other in READY} - {call.format}:
        assert served.call(call, key=key_of(other)).status_code == 401
    assert len(served.world.stored(call.format)) == before
    assert served.call(call, key=f"next-{key_of(call.format)}").status_code == 200  # rotation: both hold
    assert len(served.world.stored(call.format)) == before + 1


@pytest.mark.skipif("vitally" not in {call.format for call in READY}, reason="the format is not there yet")
@pytest.mark.parametrize(
    "header", ["Basic {key}", "basic {key}", "Bearer {key}", basic(key_of("vitally"), ""), basic("", key_of("vitally"))]
)
def test_vitallys_token_in_each_way_that_clients_send_it(served: Served, header: str) -> None:
    (call,) = (call for call in READY if call.format == "vitally")
    headers = {"Authorization": header.format(key=key_of("vitally"))}
    assert served.http.post(call.path, content=bodies_of(call), headers=headers).status_code == 200


def test_a_key_opens_only_the_source_that_is_named(served: Served) -> None:
    headers = {"Authorization": f"Bearer {key_of('kissmetrics')}"}
    for name in ("woopra", "nobody", "kissmetrics2"):
        assert served.http.post(f"/kissmetrics/{name}", content=b"{}", headers=headers).status_code == 401


@calls
def test_wrong_bodies(served: Served, call: Call) -> None:
    before = len(served.world.stored(call.format))
    for body in [b"", b" \n ", *WRONG[call.path]]:
        answer = served.call(call, body)
        assert answer.status_code == 400, body
        assert message(call, answer).startswith(("The body", "The file")), body
    assert len(served.world.stored(call.format)) == before


@calls
@pytest.mark.parametrize(
    ("wrap", "headers", "said"),
    [
        pytest.param(bz2.compress, {}, "The body is bzip2 data: unpack it", id="bzip2"),
        pytest.param(lambda body: b"PK\3\4" + body, {}, "The body is a ZIP archive: unpack it", id="ZIP"),
        pytest.param(lambda body: body.decode().encode("utf-16"), {}, "The body is text in UTF-16", id="UTF-16"),
        pytest.param(lambda body: b"\x1e" + body, {}, "The body is a JSON text sequence", id="json-seq"),
        pytest.param(lambda _: b"<html><body>503</body></html>", {}, "The body is an HTML page", id="HTML"),
        pytest.param(gzipped, {}, "with Content-Encoding: gzip", id="gzip that nobody announced"),
        pytest.param(
            lambda body: gzipped(gzipped(body)), {"Content-Encoding": "gzip"}, "The body is packed: pack it once",
            id="gzip in gzip",
        ),
    ],
)  # fmt: skip
def test_what_is_no_json_is_named(
    served: Served, call: Call, wrap: Callable[[bytes], bytes], headers: dict[str, str], said: str
) -> None:
    before = len(served.world.stored(call.format))
    answer = served.call(call, wrap(bodies_of(call)), headers=headers)
    assert (answer.status_code, said in message(call, answer)) == (400, True), answer.text
    assert len(served.world.stored(call.format)) == before


@calls
def test_a_bad_item_is_stored_and_comes_up_in_the_report(world: World, call: Call) -> None:
    bad: dict[str, bytes] = {
        "kissmetrics": b'{"_t":1}\n{"_p":"a","_t":1393344604,"_n":"x"}',
        "woopra": b'{"visitor":{}}\n{"visitor":{"id":"a"},"actions":[{"name":"x","time":1444077951001}]}',
        "webengage": b'{"events":[{"userId":"a","eventName":"x"},7]}' if call.path.endswith("events")
        else b'{"users":[{"userId":"a","company":"b"},{"userId":"a","size":1e999}]}',
        "retailrocket": b'[7,{"view":{"sessionExternalId":"a","productId":1,"timestamp":"2026-01-05T10:00:00Z"}}]',
        "vitally": b'[1e999,{"type":"track","userId":"a","event":"e","properties":{},"messageId":"m"}]',
    }  # fmt: skip
    with world.serve() as served:
        assert served.call(call, bad[call.format]).status_code == 200
    (result,) = world.poll(call.format)
    assert result.state == "loaded"
    assert result.counts.failed == 1
    assert result.counts.records + result.counts.sets == 1


@calls
def test_gzip(served: Served, call: Call) -> None:
    sent = bodies_of(call)
    for encoding in ("gzip", "X-GZIP"):
        assert served.call(call, gzipped(sent), headers={"Content-Encoding": encoding}).status_code == 200
    two = gzipped(sent[:9]) + gzipped(sent[9:])  # members, as some programs write them
    assert served.call(call, two, headers={"Content-Encoding": "gzip"}).status_code == 200
    plain = served.call(call)
    assert plain.status_code == 200
    *_, first, second, third, last = served.world.stored(call.format)
    assert first == second == third == last


@calls
@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"not gzip", "gzip", 400),
        (gzipped(b"[1,2]" * 999)[:-9], "gzip", 400),
        (gzipped(b"[]") + b"more", "gzip", 400),
        (b"", "gzip", 400),
        (gzipped(b" " * 50_000_000), "gzip", 413),
        (b"[]", "br", 415),
        (b"[" + b" " * 300_000 + b"]", "identity", 413),
    ],
    ids=["no gzip", "cut", "trailing", "empty", "bomb", "other encoding", "too large"],
)
def test_bodies_that_cannot_be_read(served: Served, call: Call, body: bytes, encoding: str, status: int) -> None:
    before = len(served.world.stored(call.format))
    answer = served.call(call, body, headers={"Content-Encoding": encoding})
    assert answer.status_code == status
    assert message(call, answer)
    assert len(served.world.stored(call.format)) == before


def test_clients_that_hang_up_end_nothing(world: World) -> None:
    """Two calls at once, and gone before the answers: they are written to a connection that is closed."""
    with world.serve() as served:
        port = served.http.base_url.port
        assert port
        for client in range(40):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(
                    b"POST /kissmetrics/kissmetrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" * 2
                )
                if client % 2:
                    connection.recv(1)
            assert served.http.get("/health").status_code == 200
            assert served.process.poll() is None


@calls
def test_what_nobody_foresaw_is_answered_in_the_vendors_words(
    world: World, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(*_: object) -> bytes:
        raise KeyError("Content-Length")

    monkeypatch.setattr("ingest.intake.bodies.read", read)
    settings = load_settings(world.environment)
    app = make_app(settings, stores_of(settings, somebody_waits=True))
    with TestClient(app, raise_server_exceptions=False) as http:
        answer = Served(world, None, world.folder, http).call(call)  # type: ignore[arg-type]  # there is no process
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, str(BUSY_SECONDS))
    assert "send it again" in message(call, answer)


def test_limits_hold_whatever_the_length_says(served: Served) -> None:
    """The size is counted where no Content-Length tells it, and where the unpacked size is within the ratio."""
    (call,) = (call for call in READY if call.format == "kissmetrics")
    pieces = (b'{"_p":"a","_t":1393344604,"_n":"x"}\n' * 1000 for _ in range(9))
    headers = {"Authorization": f"Bearer {key_of('kissmetrics')}"}
    answer = served.http.post("/kissmetrics/kissmetrics", content=pieces, headers=headers)
    assert answer.status_code == 413
    noise = random.Random(7).randbytes(5_000).hex().encode()
    unpacked = b'{"a":"%b"}\n' % noise * 320  # 3.2 MB
    assert served.call(call, gzipped(unpacked), headers={"Content-Encoding": "gzip"}).status_code == 413
    assert served.call(call, gzipped(unpacked[:2_000_000]), headers={"Content-Encoding": "gzip"}).status_code == 200


def test_a_body_that_ends_early_leaves_nothing(served: Served) -> None:
    before = len(served.world.stored("kissmetrics"))
    line = b'{"_p":"a","_t":1393344604,"_n":"x"}\n'
    head = f"POST /kissmetrics/kissmetrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key_of('kissmetrics')}\r\n"
    with socket.create_connection((served.http.base_url.host, served.http.base_url.port or 0)) as connection:
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n".encode() + line)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert len(served.world.stored("kissmetrics")) == before


def test_other_paths_and_methods(served: Served) -> None:
    for method, path, status in (
        ("GET", "/", 404), ("POST", "/analytics/v1/batch//", 404), ("GET", "/analytics/v1/batch", 405),
        ("POST", "/analytics/v1/batch/", 401), ("GET", "/analytics/v1/batch/", 405), ("POST", "//", 404),
        ("GET", "/docs", 404), ("POST", "/kissmetrics/a/b", 404), ("GET", "/health", 200),
    ):  # fmt: skip
        answer = served.http.request(method, path)
        assert answer.status_code == status, path
        assert answer.json()
        assert (answer.headers.get("allow") is not None) == (status == 405)
    for host in ("[", "a b", "\xff", ""):  # whatever it says
        assert served.http.get("/nothing", headers={b"Host": host.encode("latin-1")}).status_code == 404
    assert served.http.head("/health").status_code == 200
    assert served.http.get("/rest/2.4/import").headers["allow"] == "POST, PUT"
    for method, path, status in (("GET", "/v1/accounts/x/bulk-users", 405), ("POST", "/v1/accounts/x/bulk", 404)):
        answer = served.http.request(method, path)
        assert answer.status_code == status
        assert answer.json()["response"].keys() == {"status", "message"}


@pytest.mark.slow
def test_vendor_limits(new_world: Callable[[str], World]) -> None:
    world = new_world("[intake]\nvendor_limits = true")
    with world.serve() as served:
        for call in READY:
            if call.most_items:
                member = call.path.rpartition("-")[2]
                item = (call.example if isinstance(call.example, list) else call.example[member])[0]

                def body(count: int) -> bytes:
                    items = [item] * count  # noqa: B023 - called in this very round
                    return orjson.dumps({member: items} if call.format == "webengage" else items)  # noqa: B023

                assert served.call(call, body(call.most_items)).status_code == 200
                answer = served.call(call, body(call.most_items + 1))
                assert answer.status_code == 400
                assert f"{call.most_items} are allowed" in message(call, answer)
        woopra = [call for call in READY if call.format == "woopra"]
        told = [served.call(woopra[n % 2]) for n in range(301)]  # both paths count
        assert {answer.status_code for answer in told[:-1]} == {200}
        assert told[-1].status_code == 429
        assert 1 <= int(told[-1].headers["retry-after"]) <= 60
        assert message(woopra[0], told[-1]).startswith("Too many calls: wait ")


def test_one_second_is_told_as_one() -> None:
    assert [str(too_many_calls(n)) for n in (1, 2)] == [f"Too many calls: wait {n}." for n in ("1 second", "2 seconds")]


def test_neither_keys_nor_bodies_are_logged(world: World) -> None:
    with world.serve() as served:
        for call in READY:
            served.call(call)
            served.call(call, b"[secret-body")
            served.call(call, key="secret-key")
            served.call(call, gzipped(b"secret-body"), headers={"Content-Encoding": "gzip", "X-Y": "secret-header"})
        served.http.get("/nothing?apiKey=secret-query")
        with socket.create_connection((served.http.base_url.host, served.http.base_url.port or 0)) as connection:
            connection.sendall(b"POST /?apiKey=secret-query BROKEN secret-line\r\n\r\n")
            connection.recv(4096)
        world.client.delete_bucket(Bucket=remove_all(world))
        assert served.call(READY[0]).status_code == 503  # and that is logged, too
    log = served.log.read_text()
    assert "stored source=" in log
    assert "not_stored source=" in log
    assert "status=401" in log
    for word in ("secret", "key-of", "apiKey=", "ann@example.com", "johndoe", "Basic", "Bearer"):
        assert word not in log, word


def remove_all(world: World) -> str:
    for entry in world.client.list_objects_v2(Bucket=world.bucket).get("Contents", []):
        world.client.delete_object(Bucket=world.bucket, Key=entry["Key"])
    return world.bucket
