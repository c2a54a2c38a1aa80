"""What a client may do before its key is looked at, and what it reads when it is refused or the process ends."""

import http.client
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
import requests

from ingest.intake.bodies import BUSY_SECONDS
from ingest.intake.connection import HEAD_BYTES
from ingest.intake.lately import Notices, shown
from tests.intake.serving import READY, Served, World, authorization, bodies_of, key_of

LARGE = 50 << 20
PATH = "/kissmetrics/kissmetrics"
WRONG = ("401", '{"error":"The key is missing or not known here."}')


def address(served: Served) -> tuple[str, int]:
    return served.http.base_url.host, served.http.base_url.port or 0


def connect(served: Served) -> socket.socket:
    connection = socket.create_connection(address(served), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_answer(connection: socket.socket) -> bytes:
    """One answer; the connection may stay open."""
    read = b""
    while not (found := re.search(rb"content-length: (\d+)\r\n(.*\r\n)?\r\n", read, re.DOTALL)) or (
        len(read) < found.end() + int(found[1])
    ):
        piece = connection.recv(65536)
        assert piece, read
        read += piece
    return read


def send_forever(connection: socket.socket, piece: bytes) -> None:
    while True:
        connection.sendall(piece)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    read = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            read += piece
    return read


# --- early refusals --------------------------------------------------------------------------------------------------


def by_curl(*options: str) -> Callable[[Served, str, Path], tuple[str, str]]:
    def send(served: Served, key: str, body: Path) -> tuple[str, str]:
        url = f"http://{address(served)[0]}:{address(served)[1]}{PATH}"
        command = [
            "curl",
            "--silent",
            "--show-error",
            "--write-out",
            "\n%{http_code}",
            "-H",
            f"Authorization: Bearer {key}",
        ]
        ran = subprocess.run([*command, *options, f"@{body}", url], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        said, _, status = ran.stdout.rpartition("\n")
        return status, said

    return send


def by_http_client(served: Served, key: str, body: Path) -> tuple[str, str]:
    """It sends all, and reads then."""
    client = http.client.HTTPConnection(*address(served), timeout=60)
    client.request("POST", PATH, body.read_bytes(), {"Authorization": f"Bearer {key}"})
    answer = client.getresponse()
    return str(answer.status), answer.read().decode()


def by_requests(served: Served, key: str, body: Path) -> tuple[str, str]:
    url = f"http://{address(served)[0]}:{address(served)[1]}{PATH}"
    with body.open("rb") as file:
        answer = requests.post(url, data=file, headers={"Authorization": f"Bearer {key}"}, timeout=60)
    return str(answer.status_code), answer.text


def by_requests_in_pieces(served: Served, key: str, body: Path) -> tuple[str, str]:
    url = f"http://{address(served)[0]}:{address(served)[1]}{PATH}"
    with body.open("rb") as file:
        piece = file.read(65536)
    pieces = (piece for _ in range(300))
    answer = requests.post(url, data=pieces, headers={"Authorization": f"Bearer {key}"}, timeout=60)
    return str(answer.status_code), answer.text


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.json"
    path.write_bytes(b'{"_p":"a","_t":1393344604,"_n":"x"}\n' * (LARGE // 36))
    return path


@pytest.mark.parametrize(
    "send",
    [
        pytest.param(by_curl("--data-binary"), id="curl, which asks first"),
        pytest.param(by_curl("-H", "Expect:", "--data-binary"), id="curl, which does not"),
        pytest.param(by_curl("-HTransfer-Encoding: chunked", "-HExpect:", "--data-binary"), id="curl in chunks"),
        pytest.param(by_http_client, id="http.client"),
        pytest.param(by_requests, id="requests"),
        pytest.param(by_requests_in_pieces, id="requests in chunks"),
    ],
)  # fmt: skip
def test_who_is_refused_while_sending_reads_why(
    served: Served, large: Path, send: Callable[[Served, str, Path], tuple[str, str]]
) -> None:
    for _ in range(3):  # it is a race that is lost now and then
        assert send(served, "wrong", large) == WRONG
        status, said = send(served, key_of("kissmetrics"), large)
        assert (status, "larger than 200,000 bytes" in said) == ("413", True)
    assert served.http.get("/health").status_code == 200


def test_who_waits_to_be_asked_for_the_body_is_not_asked(served: Served) -> None:
    with connect(served) as client:
        client.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n".encode())
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in head.lower()
    assert body.decode() == WRONG[1]


def test_a_refused_body_is_not_taken_for_ever(world: World) -> None:
    with world.serve(limits="connection._DRAINED_BYTES = 100_000") as served, connect(served) as client:
        client.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".encode())
        assert b"401" in read_answer(client)
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            send_forever(client, b"x" * 65536)
    with world.serve(limits="connection._DRAIN_SECONDS = 0.1") as served, connect(served) as client:
        client.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n".encode())
        assert b"401" in read_answer(client)
        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            send_forever(client, b"x")


def test_a_small_refused_body_leaves_the_connection_open(served: Served) -> None:
    with connect(served) as client:
        for _ in range(2):
            client.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]".encode())
            assert b"HTTP/1.1 401" in read_answer(client)


# --- heads -----------------------------------------------------------------------------------------------------------

POST = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n"
CHUNKED = f"{POST}Authorization: Bearer {key_of('kissmetrics')}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n"


@pytest.mark.parametrize(
    ("begin", "more", "status"),
    [
        pytest.param(f"{POST}x: ", "a" * 4096, 431, id="one long header"),
        pytest.param(POST, "a:\r\n" * 64, 431, id="many headers"),
        pytest.param(POST + "a" * 100, "a" * 4096, 431, id="a name that does not end"),
        pytest.param(f"POST {PATH}?apiKey=secret", "a" * 4096, 414, id="a long address"),
        pytest.param("", "\r\n" * 4096, 431, id="empty lines"),
        pytest.param(f"{CHUNKED}0\r\nx: ", "a" * 4096, 431, id="behind the body"),
        pytest.param(f"{CHUNKED}0\r\n", "a:\r\n" * 64, 431, id="many behind the body"),
        pytest.param(f"{CHUNKED}2;", "a" * 4096, 431, id="beside a chunk"),
        pytest.param("NOTHING", "\x01" * 4096, 400, id="no HTTP at all"),
    ],
)
def test_a_head_is_limited(served: Served, begin: str, more: str, status: int) -> None:
    with connect(served) as client:
        client.sendall(begin.encode())
        with suppress(OSError):
            for _ in range(200):
                client.sendall(more.encode())
                client.setblocking(False)
                with suppress(BlockingIOError):
                    if client.recv(1, socket.MSG_PEEK):
                        break
                client.settimeout(60)
        client.settimeout(60)
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"connection: close" in head
    assert body.startswith(b'{"error":"')


def test_a_head_within_the_limits_is_read(served: Served) -> None:
    """In whatever pieces it comes."""
    (call,) = (call for call in READY if call.format == "kissmetrics")
    headers = {f"x-{number}": "a" * 300 for number in range(90)}
    assert served.call(call, headers=headers).status_code == 200
    body = bodies_of(call)
    fields = authorization(call, key_of("kissmetrics")) | headers | {"Content-Length": str(len(body)), "Host": "x"}
    lines = [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    sent = "\r\n".join(lines).encode()
    assert len(sent) < HEAD_BYTES
    with connect(served) as client:
        for number in range(0, len(sent), 97):
            client.sendall(sent[number : number + 97])
        client.sendall(body)
        assert read_answer(client).startswith(b"HTTP/1.1 200 ")


def test_who_offers_another_protocol_is_served_all_the_same(served: Served) -> None:
    """As Java's own client and `curl --http2` do."""
    before = len(served.world.stored("kissmetrics"))
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    body = '{"_p":"a","_t":1393344604,"_n":"x"}\n'
    sent = f"{POST}Authorization: Bearer {key_of('kissmetrics')}\r\n{offer}Content-Length: {len(body)}\r\n\r\n{body}"
    with connect(served) as client:
        for _ in range(2):
            client.sendall(sent[:-9].encode())
            client.sendall(sent[-9:].encode())
            assert read_answer(client).startswith(b"HTTP/1.1 200 ")
    assert served.world.stored("kissmetrics")[before:] == [body.encode()] * 2
    with connect(served) as client:
        client.sendall(sent.encode() * 2)
        for _ in range(2):
            assert read_answer(client).startswith(b"HTTP/1.1 200 ")
    with connect(served) as client:
        client.sendall(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_all(client).startswith(b"HTTP/1.1 400 ")


def test_a_key_behind_the_body_is_none(served: Served) -> None:
    """A proxy that looks at keys does not look there."""
    key = key_of("kissmetrics")
    with connect(served) as client:
        client.sendall(
            f"{POST}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
        )
        assert read_answer(client).startswith(b"HTTP/1.1 401 ")


def test_the_vendor_is_known_by_the_address(served: Served) -> None:
    with connect(served) as client:
        client.sendall(b"POST /v1/accounts/x/bulk-users HTTP/1.1\r\n" + b"a:\r\n" * 200)
        assert b'{"response":{"status":"error","message":"The head of the request is longer' in read_all(client)


def test_a_flood_of_heads_takes_little_memory(world: World) -> None:
    """Sixty clients with 1.5 MB of the smallest headers each: what was held of them was ten times as much."""
    with world.serve() as served:
        before = memory(served)

        def flood(_: int) -> None:
            with connect(served) as client, suppress(OSError):
                client.sendall(POST.encode())
                for _ in range(24):
                    client.sendall(b"a:\r\n" * 16384)

        with ThreadPoolExecutor(60) as pool:
            list(pool.map(flood, range(60)))
        assert served.http.get("/health").status_code == 200
        assert memory(served) - before < 40 << 20


def memory(served: Served) -> int:
    """The most that the process had so far, in bytes."""
    (line,) = (line for line in Path(f"/proc/{served.process.pid}/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) << 10


def test_who_never_ends_the_head_is_given_up(world: World) -> None:
    with world.serve(limits="connection._HEAD_SECONDS = 0.3") as served, ExitStack() as stack:
        silent, slow, empty, late = (stack.enter_context(connect(served)) for _ in range(4))
        slow.sendall(b"POST /v1/accounts/x/bulk-users HTTP/1.1\r\nHost:")
        empty.sendall(b"\r\n")
        late.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(late).startswith(b"HTTP/1.1 200 ")
        late.sendall(b"GET /health HTTP/1.1\r\n")
        assert read_all(silent) == b""
        assert b"HTTP/1.1 408 " in (told := read_all(slow))
        assert b'{"response":{"status":"error","message":"The head of the request was not whole' in told
        assert read_all(empty) == b""
        assert b"HTTP/1.1 408 " in read_all(late)


def test_the_slowest_make_room(world: World) -> None:
    limits = "connection._CROWDED = 8; connection._SLOW_SECONDS = -1; connection.CONNECTIONS = 12"
    with world.serve(limits=limits) as served, ExitStack() as stack:
        slow = [stack.enter_context(connect(served)) for _ in range(30)]
        for client in slow:
            with suppress(OSError):
                client.sendall(b"POST /x HTTP/1.1\r\nX-")
        for _ in range(5):
            with connect(served) as client:
                client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert read_answer(client).startswith(b"HTTP/1.1 200 ")
        assert read_all(slow[0]) == b""


def test_few_requests_wait_behind_another(served: Served) -> None:
    """What came before there were too many is answered."""
    with connect(served) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
        answers = read_all(client)
    assert 10 < answers.count(b"HTTP/1.1 200 ") < 40
    assert served.http.get("/health").status_code == 200


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hanging_store() -> Iterator[tuple[str, threading.Event]]:
    """A store that takes connections and never answers; and whether one has come."""
    came, kept = threading.Event(), []

    def take(at: socket.socket) -> None:
        with suppress(OSError):
            while True:
                kept.append(at.accept()[0])
                came.set()

    with socket.create_server(("127.0.0.1", 0)) as at:
        threading.Thread(target=take, args=(at,), daemon=True).start()
        yield f"http://127.0.0.1:{at.getsockname()[1]}", came
        at.shutdown(socket.SHUT_RDWR)
    for connection in kept:
        connection.close()


@pytest.mark.slow
def test_told_to_stop_while_the_store_hangs(world: World, hanging_store: tuple[str, threading.Event]) -> None:
    """Who waits for the store, and who has not sent all, gets the vendor's words; and the process ends in time."""
    endpoint, came = hanging_store
    with replace(world, endpoint=endpoint).serve("--stop-seconds", "1") as served, ThreadPoolExecutor(9) as pool:
        waiting = [pool.submit(served.call, call) for call in READY]
        assert came.wait(60)
        with connect(served) as half:
            half.sendall(
                f"{POST}Authorization: Bearer {key_of('kissmetrics')}\r\nContent-Length: 99\r\n\r\n{{".encode()
            )
            with connect(served) as other:  # answered: so what came before was read
                other.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert read_all(other)
            served.stop()
            begun = monotonic()
            told = read_all(half)
        for call, one in zip(READY, waiting, strict=True):
            answer = one.result(60)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, str(BUSY_SECONDS))
            assert answer.json() == call.error("It is stopping: send it again.")
        assert b"HTTP/1.1 503 " in told
        assert b'{"error":"It is stopping: send it again."}' in told
        assert served.process.wait(60) == 0
        assert monotonic() - begun < 15  # a put is waited for over a minute
    assert "Traceback" not in served.log.read_text()


# --- the log ---------------------------------------------------------------------------------------------------------


def test_a_client_that_calls_what_is_not_there_is_seen(world: World) -> None:
    with world.serve() as served:
        for _ in range(5):
            assert served.http.post("/track/ce?apiKey=secret").status_code == 404
            assert served.http.get("/analytics/v1/batch").status_code == 405
            assert served.http.post("/analytics/v1/batch").status_code == 401
        for odd in ("/%0a2026 forged%1b[31m", "/" + "y" * 5000):
            assert served.http.get(odd).status_code == 404
    log = served.log.read_text()
    assert log.count("no_such_call status=404 path='/track/ce' from=127.0.0.1 times=1\n") == 1
    assert log.count("no_such_call status=405 path='/analytics/v1/batch' from=127.0.0.1 times=1\n") == 1
    assert log.count("refused call=/analytics/v1/batch status=401 from=127.0.0.1 times=1\n") == 1
    assert "path='/\\n2026 forged\\x1b[31m'" in log
    assert "y" * 90 in log
    assert "y" * 100 not in log
    assert "secret" not in log


def test_what_strangers_do_is_told_once_a_minute() -> None:
    now = [0.0]
    notices = Notices(lambda: now[0])
    assert [notices.tell("a") for _ in range(4)] == [1, 0, 0, 0]
    assert notices.tell("b") == 1
    now[0] = 59.9
    assert notices.tell("a") == 0
    now[0] = 60
    assert (notices.tell("a"), notices.tell("a")) == (5, 0)


def test_of_many_kinds_few_are_remembered() -> None:
    now = [0.0]
    notices = Notices(lambda: now[0])
    assert sum(notices.tell(str(number)) for number in range(5000)) == 1001  # those beyond are one kind
    assert len(notices._seen) <= 1001
    now[0] = 60
    assert notices.tell("another") == 1
    assert len(notices._seen) == 1


def test_what_strangers_send_is_shown_inert() -> None:
    assert shown("a\n\x1b[2J\u202e\xe9") == "'a\\n\\x1b[2J\\u202e\\xe9'"
    assert len(shown("x" * 10**6)) == 102
