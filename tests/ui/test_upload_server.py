"""Uploads to a real web server: it does not grow with what is sent, and who goes away leaves nothing behind.

The store is a third process, so that what it holds is not counted.
"""

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.airflow.conftest import Job
from tests.support import ROOT as CHECKOUT
from tests.ui.conftest import ROOT

pytestmark = pytest.mark.slow
SERVER = """
import socket, uvicorn
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
app = create_app()
listening = socket.create_server(("127.0.0.1", 0))
token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ann", role="admin"))
print("READY", listening.getsockname()[1], token, flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
"""
LINE = b'{"_p":"ann","_t":1393344604,"_n":"Signed up","n":"%s"}\n' % (b"x" * 965)


@dataclass(frozen=True)
class Server:
    pid: int
    port: int
    token: str
    log: Path

    def peak_bytes(self) -> int:
        """The most memory that it ever had."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found
        return int(found[1]) << 10

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)

    def headers(self, **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Accept": "application/json", **more}

    def send(self, size: int) -> tuple[int, bytes]:
        connection = self.connect()
        connection.request(
            "PUT", f"{ROOT}/upload/file?name=big.json", pieces(size), self.headers(**{"Content-Length": str(size)})
        )
        answer = connection.getresponse()
        return answer.status, answer.read()


def pieces(size: int) -> Iterator[bytes]:
    block = LINE * (65_536 // len(LINE))
    for start in range(0, size, len(block)):
        yield block[: size - start]


@pytest.fixture
def store(job: Job, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 server in a process of its own, with a bucket `uploads`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    endpoint = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWS_DEFAULT", os.environ["AIRFLOW_CONN_AWS_DEFAULT"].replace(job.s3.endpoint, endpoint)
    )
    try:
        client = boto3.client("s3", config=Config(retries={"total_max_attempts": 10, "mode": "standard"}))
        client.create_bucket(Bucket="uploads")
        job.write('[uploads]\nbucket = "uploads"\n')
        yield client
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def server(store: Any, tmp_path: Path) -> Iterator[Server]:
    log = tmp_path / "server.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdout=written, stderr=subprocess.STDOUT, cwd=CHECKOUT
        )
    try:
        while not (found := re.search(r"^READY (\d+) (\S+)$", log.read_text(), re.MULTILINE)):
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        yield Server(process.pid, int(found[1]), found[2], log)
    finally:
        process.terminate()
        process.wait()


def keys(store: Any) -> list[str]:
    assert store.list_multipart_uploads(Bucket="uploads").get("Uploads", []) == []
    return [found["Key"] for found in store.list_objects_v2(Bucket="uploads").get("Contents", [])]


def test_the_server_does_not_grow_with_what_is_sent(server: Server, store: Any) -> None:
    size = int(os.environ.get("LANDFALL_UPLOAD_BYTES", str(256 << 20)))
    status, told = server.send(len(LINE))  # all is imported and connected
    assert status == 200, told
    before = server.peak_bytes()
    begun = time.monotonic()
    status, told = server.send(size)
    grown = server.peak_bytes() - before
    print(f"{size:,} bytes in {time.monotonic() - begun:.1f} s; the server had {before:,} bytes and grew by {grown:,}")
    assert status == 200, told
    assert sorted(found["Size"] for found in store.list_objects_v2(Bucket="uploads")["Contents"]) == [len(LINE), size]
    assert grown < 64 << 20


def test_who_goes_away_leaves_nothing(server: Server, store: Any) -> None:
    connection = server.connect()
    connection.putrequest("PUT", f"{ROOT}/upload/file?name=x.json")
    for name, value in server.headers(**{"Content-Length": str(100 << 20)}).items():
        connection.putheader(name, value)
    connection.endheaders()
    for piece in pieces(30 << 20):
        connection.send(piece)
    assert connection.sock
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.close()
    assert server.send(len(LINE))[0] == 200
    until = time.monotonic() + 60
    while store.list_multipart_uploads(Bucket="uploads").get("Uploads") and time.monotonic() < until:
        time.sleep(0.1)  # for the server to notice
    assert len(keys(store)) == 1
    assert "Traceback" not in server.log.read_text()


def test_a_refusal_is_heard_by_who_still_sends(server: Server, store: Any, job: Job) -> None:
    job.write('[uploads]\nbucket = "uploads"\nmax_bytes = 9000000\n')
    status, told = server.send(30_000_000)
    assert (status, b"larger than 9,000,000 bytes" in told) == (413, True)
    connection = server.connect()
    headers = server.headers(**{"Transfer-Encoding": "chunked"})
    connection.request("PUT", f"{ROOT}/upload/file?name=x", pieces(30_000_000), headers, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, b"larger than 9,000,000 bytes" in answer.read()) == (413, True)
    assert keys(store) == []
