"""`ingest serve` as a process of its own, with a source for each format, and what it left in the bucket."""

import base64
import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import httpx
from botocore.config import Config

from ingest.core.formats import FORMATS
from ingest.intake.vendors import CALLS, Call
from ingest.settings import load_settings
from ingest.wiring import open_pipeline
from tests.support import ROOT, Rows, rows

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

READY = [call for call in CALLS if call.format in FORMATS]
_buckets = count(1)


def key_of(format: str) -> str:
    """The key of the source of a format; it has a second one, for rotation."""
    return f"key-of-{format}"


def bodies_of(call: Call) -> bytes:
    """The example of a call."""
    return call.example.encode() if isinstance(call.example, str) else json.dumps(call.example, indent=1).encode()


@dataclass
class World:
    """A bucket, an ingest.toml with a source for each format, a warehouse: all of a test's own."""

    folder: Path
    endpoint: str
    bucket: str
    client: "S3Client"

    @property
    def environment(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "INGEST_"))} | {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "INGEST_CONFIG": str(self.folder / "ingest.toml"),
            "PYTHONPATH": str(ROOT),
        }

    @contextmanager
    def serve(self, *options: str, expect: int = 0, limits: str = "") -> Iterator["Served"]:
        """A running instance; at the end it is told to stop, unless the test has done so, and ends as `expect` says.

        `limits`: statements that change those of `connection`.
        """
        number = len(list(self.folder.glob("log*")))
        log = self.folder / f"log{number}"
        start = f"from ingest.intake import connection; {limits}; from ingest.__main__ import main; main()"
        command = [sys.executable, *(["-c", start] if limits else ["-m", "ingest"])]
        command += ["serve", "--port", "0", "--json", *options]
        with log.open("wb") as err, subprocess.Popen(
            command, env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, stderr=err
        ) as process:  # fmt: skip
            try:
                assert process.stdout
                ready = process.stdout.readline()
                assert ready, log.read_text()
                with httpx.Client(base_url=f"http://127.0.0.1:{json.loads(ready)['port']}", timeout=60) as client:
                    yield Served(self, process, log, client)
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                assert process.wait(60) == expect, log.read_text()
            finally:
                process.kill()

    def stored(self, source: str) -> list[bytes]:
        """The objects of a source, in order of their names."""
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"landing/{source}/").get("Contents", [])
        keys = sorted(entry["Key"] for entry in found)
        return [self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys]

    def lines(self, source: str) -> list[bytes]:
        return [line for body in self.stored(source) for line in body.splitlines()]

    def poll(self, *sources: str) -> list[Any]:
        """What the job would do now. Gives the results, by key."""
        with self.pipeline() as pipeline:
            results = []
            for source in sources or tuple(pipeline.settings.sources):
                pipeline.begin_poll(source)
                results += pipeline.load(pipeline.discover(source).pending)
            return sorted(results, key=lambda result: result.key)

    def rows(self, sql: str) -> Rows:
        with self.pipeline() as pipeline:
            return rows(pipeline.warehouse, sql)

    @contextmanager
    def pipeline(self) -> Iterator[Any]:
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            with open_pipeline(load_settings(os.environ)) as pipeline:
                yield pipeline
        finally:
            os.environ.clear()
            os.environ.update(before)


@dataclass
class Served:
    """One instance, and the vendors' calls to it."""

    world: World
    process: "subprocess.Popen[bytes]"
    log: Path
    http: httpx.Client

    def call(self, call: Call, body: bytes | None = None, key: str | None = None, **more: Any) -> httpx.Response:
        """A vendor's call, authorized as its pages say."""
        key = key_of(call.format) if key is None else key
        headers = more.pop("headers", {}) | authorization(call, key)
        params = more.pop("params", {}) | ({"apiKey": key, "partnerId": "p"} if call.scheme == "apiKey" else {})
        body = bodies_of(call) if body is None else body
        path = call.path.format(source=call.format, version="3.7", licence="in~~1")
        method = more.pop("method", call.methods[0])
        return self.http.request(method, path, content=body, headers=headers, params=params, **more)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)


def authorization(call: Call, key: str) -> dict[str, str]:
    match call.scheme:
        case "bearer":
            return {"Authorization": f"Bearer {key}"}
        case "password":
            return {"Authorization": basic("app", key)}
        case "token":
            return {"Authorization": f"Basic {key}"}
        case _:
            return {}


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def gzipped(body: bytes) -> bytes:
    engine = zlib.compressobj(wbits=31)
    return engine.compress(body) + engine.flush()


def make_world(folder: Path, endpoint: str, more: str = "", formats: Sequence[str] = FORMATS) -> World:
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test",
        config=Config(retries={"mode": "standard"}),
    )  # fmt: skip
    bucket = f"intake-{os.getpid()}-{next(_buckets)}"
    client.create_bucket(Bucket=bucket)
    (folder / "ingest.toml").write_text(toml({format: {"format": format} for format in formats}, bucket, more))
    return World(folder, endpoint, bucket, client)


def toml(sources: Mapping[str, Mapping[str, str]], bucket: str, more: str = "") -> str:
    text = f"processes = 1\n{more}\n"
    for name, settings in sources.items():
        hashed = [f'"sha256:{sha256(key.encode()).hexdigest()}"' for key in (key_of(name), f"next-{key_of(name)}")]
        text += f'[[source]]\nname = "{name}"\nbucket = "{bucket}"\nprefix = "landing/{name}/"\n'
        text += f"intake_keys = [{', '.join(hashed)}]\n"
        text += "".join(f'{setting} = "{value}"\n' for setting, value in settings.items())
    return text
