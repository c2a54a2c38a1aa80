"""A file that a person sends: hostile or not, it is in the bucket whole or not at all, and the server does not grow.

Most of what is refused here is refused late, when parts of it are in the store already.
"""

import bz2
import gzip
import io
import json
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from hashlib import sha256
from itertools import repeat
from pathlib import Path
from threading import Event
from typing import Any

import orjson
import pyarrow as pa
import pytest
from botocore.awsrequest import AWSResponse

from ingest.adapters.local import LocalStore
from ingest.adapters.s3 import PART_BYTES
from ingest.errors import ConfigError, IngestError, TooLarge, TransientError, UploadRefused
from ingest.pipeline import Pipeline
from ingest.report import Most, check_report
from ingest.settings import UPLOAD_AT_MOST, Settings
from ingest.uploads import Stored, keep_check_report, read_check_report, store_upload, upload_key
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.conftest import S3
from tests.support import lines, record

AT = datetime(2026, 11, 24, 11, 11, 12, tzinfo=timezone(timedelta(hours=1)))
SETTINGS = Settings(warehouse_url="", uploads_bucket="acme")
NOISE = b'["' + random.Random(1).randbytes(3 * PART_BYTES + 12_345)  # JSON as it seems, which no compressor can shorten
EVENTS = lines(*(record(f"p{n}", n, "Signed up") for n in range(1_000)))
MEMBER = gzip.compress(b" " * (64 << 20))  # 64 KB
TOKEN = "0123456789ab"


def zstd(data: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return packed


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("events.json", NOISE)
    return file.getvalue()


def cut(data: bytes, size: int = 65_536) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.fixture
def pipeline(s3: S3, tmp_path: Path) -> Pipeline:
    settings = Settings(warehouse_url="", uploads_bucket=s3.bucket, processes=1)
    return Pipeline(settings, lambda _: s3.store, DuckDBWarehouse(tmp_path / "w.duckdb"))


def limited(pipeline: Pipeline, **limits: Any) -> Pipeline:
    return replace(pipeline, settings=replace(pipeline.settings, **limits))


def send(pipeline: Pipeline, pieces: Iterable[bytes], name: str = "events.json") -> Stored:
    return store_upload(pipeline, pieces, name, by="ann", at=AT)


def body(s3: S3, key: str) -> bytes:
    return s3.client.get_object(Bucket=s3.bucket, Key=key)["Body"].read()


def assert_nothing_is_left(s3: S3) -> None:
    assert list(s3.store.list(s3.bucket, "")) == []
    assert s3.client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads", []) == []


# --- the key ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("events.json", "events"),
        ("Events of May.JSON.GZ", "Events-of-May"),
        ("2026-11.ndjson.zst", "2026-11"),
        ("../../etc/passwd", "passwd"),
        (r"C:\Users\ann\..\export.json", "export"),
        ("..", "upload"),
        ("/", "upload"),
        ("", "upload"),
        (".json", "upload"),
        (".htaccess", "htaccess"),
        ("<script>alert(1)</script>.json", "script"),
        ("<script>.json", "script"),
        ("=cmd|' /C calc'!A0", "C-calc-A0"),
        ("a\0b.json", "a-b"),
        ("a\r\nSet-Cookie: x.json", "a-Set-Cookie-x"),
        ("données.json", "donnees"),
        ("日本.json", "upload"),
        ("\udcff.json", "upload"),
        ("x" * 300 + ".json", "x" * 60),
        ("x" * 59 + "..." + "y" * 9, "x" * 59),
        ("report.json.check.json", "report.json.check"),
    ],
)
def test_a_key_keeps_only_what_is_harmless_of_a_name(name: str, safe: str) -> None:
    assert upload_key(SETTINGS, name, AT, TOKEN) == f"uploads/2026/11/24/20261124T101112Z-{TOKEN}-{safe}.json"
    assert upload_key(SETTINGS, name, AT, TOKEN, packed=True).endswith(f"-{safe}.json.gz")


@pytest.mark.parametrize(
    ("sent", "extension"), [(EVENTS, ".json"), (gzip.compress(EVENTS), ".json.gz"), (zstd(EVENTS), ".json.gz")]
)
def test_the_extension_is_told_by_the_bytes(pipeline: Pipeline, sent: bytes, extension: str) -> None:
    key = send(pipeline, cut(sent, 1), "events.txt").key
    assert re.fullmatch(rf"uploads/2026/11/24/20261124T101112Z-[0-9a-f]{{12}}-events\.txt{re.escape(extension)}", key)


# --- what arrives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, len(NOISE)])
@pytest.mark.parametrize("step", [65_536, 20_000_000], ids=["as a server gives it", "at once"])
def test_what_is_sent_arrives(s3: S3, pipeline: Pipeline, size: int, step: int) -> None:
    sent = NOISE[:size]
    stored = send(pipeline, cut(sent, step))
    assert (stored.size_bytes, stored.sha256) == (size, sha256(sent).hexdigest())
    assert stored.uri == f"s3://{s3.bucket}/{stored.key}"
    assert body(s3, stored.key) == sent
    assert s3.client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads", []) == []


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_what_is_packed_arrives_as_it_was_sent(s3: S3, pipeline: Pipeline, pack: Callable[[bytes], bytes]) -> None:
    sent = pack(NOISE) + pack(EVENTS)
    stored = send(pipeline, cut(sent, 10_007))
    assert body(s3, stored.key) == sent
    assert stored.sha256 == sha256(sent).hexdigest()


def test_the_same_file_twice_is_two_objects_of_which_one_is_loaded(s3: S3, pipeline: Pipeline) -> None:
    first = send(pipeline, cut(EVENTS))
    (loaded,) = pipeline.load(pipeline.locate(first.uri))
    assert (loaded.state, loaded.counts.records) == ("loaded", 1_000)
    second = send(pipeline, cut(EVENTS))
    assert second.key != first.key
    (copy,) = pipeline.load(pipeline.locate(second.uri))
    assert (copy.state, copy.duplicate_of) == ("duplicate", loaded.file_id)


# --- what is refused -------------------------------------------------------------------------------------------------

LONG = gzip.compress(NOISE, 1)  # parts of it are in the store before its end is seen
REFUSED: list[Any] = [
    pytest.param(list, {}, UploadRefused, "is empty", id="empty"),
    pytest.param(lambda: [b"", b""], {}, UploadRefused, "is empty", id="empty pieces"),
    pytest.param(lambda: cut(gzip.compress(b"")), {}, UploadRefused, "is empty", id="nothing in it"),
    pytest.param(lambda: cut(zstd(b"")), {}, UploadRefused, "is empty", id="nothing in it, zstd"),
    pytest.param(lambda: cut(NOISE), {"uploads_max_bytes": len(NOISE) - 1}, TooLarge, "max_bytes", id="too large"),
    pytest.param(lambda: repeat(NOISE[:65_536]), {"uploads_max_bytes": 20 << 20}, TooLarge, "max_bytes", id="endless"),
    pytest.param(
        lambda: cut(LONG + gzip.compress(EVENTS)), {"uploads_max_decompressed_bytes": len(NOISE) + len(EVENTS) - 1},
        TooLarge, "max_decompressed_bytes", id="too large unpacked",
    ),
    pytest.param(
        lambda: cut(zstd(NOISE) + zstd(EVENTS)), {"uploads_max_decompressed_bytes": len(NOISE) + len(EVENTS) - 1},
        TooLarge, "max_decompressed_bytes", id="too large unpacked, zstd",
    ),
    pytest.param(lambda: repeat(MEMBER, 160), {}, TooLarge, "200 times its size", id="a bomb of 10 GB"),
    pytest.param(lambda: cut(zstd(b" " * 300_000_000)), {}, TooLarge, "200 times its size", id="a bomb of zstd"),
    pytest.param(lambda: cut(LONG[:-5]), {}, UploadRefused, "cut off", id="cut off"),
    pytest.param(lambda: cut(gzip.compress(EVENTS)[:5]), {}, UploadRefused, "cut off", id="cut off in its head"),
    pytest.param(lambda: cut(zstd(NOISE)[:-5]), {}, UploadRefused, "cut off", id="cut off, zstd"),
    pytest.param(lambda: cut(LONG[:-8] + b"\0" * 8), {}, UploadRefused, "damaged", id="wrong checksum"),
    pytest.param(lambda: cut(LONG + NOISE[:100]), {}, UploadRefused, "damaged", id="something behind it"),
    pytest.param(lambda: cut(b"\x28\xb5\x2f\xfd\0\0\7" + NOISE), {}, UploadRefused, "damaged", id="almost zstd"),
    pytest.param(lambda: cut(gzip.compress(LONG)), {}, UploadRefused, "packed twice", id="gzip in gzip"),
    pytest.param(lambda: cut(zstd(MEMBER), 1), {}, UploadRefused, "packed twice", id="a bomb in zstd"),
    pytest.param(lambda: cut(zipped()), {}, UploadRefused, "is a ZIP archive: unpack it", id="ZIP"),
    pytest.param(lambda: cut(gzip.compress(zipped())), {}, UploadRefused, "is a ZIP archive", id="ZIP in gzip"),
    pytest.param(lambda: cut(bz2.compress(NOISE), 1), {}, UploadRefused, "bzip2", id="bzip2, byte by byte"),
    pytest.param(lambda: cut(EVENTS.decode().encode("utf-16")), {}, UploadRefused, "UTF-16", id="UTF-16"),
    pytest.param(
        lambda: cut(b"\x28\xb5\x2f\xfd\0\xa8\1\0\0"), {}, UploadRefused, "window of 2,048 MiB", id="a window too long"
    ),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("pieces", "limits", "error", "words"), REFUSED)
def test_what_is_refused_leaves_nothing(
    s3: S3,
    pipeline: Pipeline,
    pieces: Callable[[], Iterable[bytes]],
    limits: dict[str, Any],
    error: type[IngestError],
    words: str,
) -> None:
    with pytest.raises(error, match=words) as caught:
        send(limited(pipeline, **limits), pieces())
    assert type(caught.value) is error
    assert_nothing_is_left(s3)


@pytest.mark.parametrize("filler", [gzip.compress(b"") * 3_000, bytes(65_536)], ids=["empty members", "padding"])
def test_packed_data_that_holds_nothing_does_not_wait_in_memory(s3: S3, pipeline: Pipeline, filler: bytes) -> None:
    given = 0

    def endless() -> Iterator[bytes]:
        nonlocal given
        yield LONG
        while given < 16 << 20:
            given += len(filler)
            yield filler

    with pytest.raises(UploadRefused, match="stretches of nothing"):
        send(pipeline, endless())
    assert given < 10 << 20
    assert_nothing_is_left(s3)


def test_padding_as_of_tapes_is_taken_and_kept(s3: S3, pipeline: Pipeline) -> None:
    sent = gzip.compress(EVENTS) + bytes(1 << 20)
    assert body(s3, send(pipeline, cut(sent)).key) == sent


def test_blanks_pack_well_and_are_no_bomb(pipeline: Pipeline) -> None:
    assert send(pipeline, [MEMBER]).size_bytes == len(MEMBER)  # 64 MiB, a thousand times its size


@pytest.mark.parametrize("limits", [{"uploads_max_bytes": len(LONG)}, {"uploads_max_decompressed_bytes": len(NOISE)}])
def test_just_within_a_limit(pipeline: Pipeline, limits: dict[str, Any]) -> None:
    assert send(limited(pipeline, **limits), cut(LONG)).size_bytes == len(LONG)


@pytest.mark.parametrize("sent", [NOISE, LONG, zstd(NOISE)], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("after", [0, 1, 128, 129, 300])
@pytest.mark.parametrize("gone", [ConnectionResetError("gone"), KeyboardInterrupt()], ids=["reset", "told to stop"])
def test_a_client_that_goes_away_leaves_nothing(
    s3: S3, pipeline: Pipeline, sent: bytes, after: int, gone: BaseException
) -> None:
    def pieces() -> Iterator[bytes]:
        for number, piece in enumerate(cut(sent)):
            if number == after:
                raise gone
            yield piece

    with pytest.raises(type(gone)) as caught:
        send(pipeline, pieces())
    assert caught.value is gone
    assert_nothing_is_left(s3)


@pytest.mark.parametrize("operation", ["PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
def test_a_store_that_refuses_keeps_nothing(s3: S3, pipeline: Pipeline, operation: str) -> None:
    answered = 0

    def refuse(request: Any, **_: object) -> AWSResponse | None:
        nonlocal answered
        answered += 1
        if operation == "UploadPart" and answered < 2:
            return None
        text = b"<Error><Code>AccessDenied</Code></Error>"
        return AWSResponse(request.url, 403, {}, _Raw(text))  # type: ignore[arg-type]

    s3.client.meta.events.register(f"before-send.s3.{operation}", refuse)  # type: ignore[arg-type]
    with pytest.raises(TransientError, match="s3:PutObject and s3:AbortMultipartUpload"):
        send(pipeline, cut(EVENTS if operation == "PutObject" else NOISE))
    assert answered
    s3.client.meta.events.unregister(f"before-send.s3.{operation}", refuse)  # type: ignore[arg-type]
    assert_nothing_is_left(s3)


class _Raw:
    """The body of an answer."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self.text


def test_two_parts_at_once_and_no_more(s3: S3, pipeline: Pipeline) -> None:
    """How far the reading gets ahead of the store, which takes nothing before the third part is there."""
    go_on = Event()
    done: list[int] = []
    ahead: list[int] = []

    def wait(**_: object) -> None:
        go_on.wait(60)

    s3.client.meta.events.register("before-send.s3.UploadPart", wait)
    s3.client.meta.events.register("after-call.s3.UploadPart", lambda **_: done.append(PART_BYTES))

    def pieces() -> Iterator[bytes]:
        given = 0
        for piece in cut(NOISE + NOISE):
            given += len(piece)
            ahead.append(given - sum(done))
            if given == 3 * PART_BYTES:
                go_on.set()
            yield piece

    send(pipeline, pieces())
    assert len(done) == 7
    assert max(ahead) <= 3 * PART_BYTES + 65_536


def test_without_a_bucket_a_setting_is_asked_for(pipeline: Pipeline) -> None:
    with pytest.raises(ConfigError, match=r"bucket of \[uploads\]"):
        send(limited(pipeline, uploads_bucket=None), cut(EVENTS))
    with pytest.raises(ConfigError, match="there is no such bucket"):
        send(limited(pipeline, uploads_bucket="nowhere-at-all"), cut(EVENTS))


def test_the_largest_upload_fits_in_as_many_parts_as_s3_takes() -> None:
    assert UPLOAD_AT_MOST == 10_000 * PART_BYTES


def test_a_local_store_takes_all_or_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield NOISE
        raise UploadRefused("enough")

    path = tmp_path / "a" / "b.json"
    with pytest.raises(UploadRefused):
        LocalStore().receive("file", str(path), broken())
    assert list(path.parent.iterdir()) == []
    LocalStore().receive("file", str(path), cut(EVENTS))
    assert path.read_bytes() == EVENTS
    assert list(path.parent.iterdir()) == [path]


# --- memory ----------------------------------------------------------------------------------------------------------

STREAM = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from ingest.settings import load_settings
from ingest.uploads import store_upload
from ingest.wiring import open_pipeline

size, kind = int(sys.argv[1]), sys.argv[2]
line = b'{"_p":"ann","_t":1393344604,"_n":"Signed up","n":"%s"}\\n' % (b"x" * 40)
piece = (line * (65536 // len(line) + 1))[:65536]

def pieces():
    if kind == "plain":
        for _ in range(size // len(piece)):
            yield bytes(bytearray(piece))  # a new object each time, as from a socket
        return
    import random, zlib
    packer, noise, sent = zlib.compressobj(1, wbits=31), random.Random(1), 0
    while sent < size:
        packed = packer.compress(noise.randbytes(32768) + piece[:32768])
        sent += len(packed)
        yield packed
    yield packer.flush()

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

with open_pipeline(load_settings({"INGEST_CONFIG": sys.argv[3]})) as pipeline:
    def send(pieces):
        return store_upload(pipeline, pieces, "events.json", by="ann", at=datetime.now(UTC))
    send([line])  # clients are made, the warehouse is opened
    before = peak()
    stored = send(pieces())
    print(stored.size_bytes, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_a_server_does_not_grow_with_what_is_sent(s3: S3, tmp_path: Path, kind: str) -> None:
    (tmp_path / "ingest.toml").write_text(f'[uploads]\nbucket = "{s3.bucket}"\n')
    size = 256 << 20
    ran = subprocess.run(
        [sys.executable, "-c", STREAM, str(size), kind, str(tmp_path / "ingest.toml")],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    stored, grown = map(int, ran.stdout.split())
    assert stored >= size
    assert grown < 64 << 20


# --- the report of a check -------------------------------------------------------------------------------------------


def check(pipeline: Pipeline, uri: str, most: Most | None = None) -> dict[str, Any]:
    """What the task `check` does with one file."""
    (file,) = pipeline.locate(uri)
    with pipeline.judged([file]) as staging:
        report = check_report(staging, most)
        keep_check_report(pipeline, file, report, staging.folder)
    return report


def test_the_report_of_a_check_lies_beside_the_upload(s3: S3, pipeline: Pipeline) -> None:
    stored = send(pipeline, cut(lines(record("ann", 0, "x", a=1), b'{"_p":"ann","_t":1393344604,"b":1.10}', "no json")))
    assert read_check_report(pipeline, stored.bucket, stored.key) is None
    check(pipeline, stored.uri)
    report = read_check_report(pipeline, stored.bucket, stored.key)
    assert report is not None
    assert (report["file"], report["lines"], report["records"], report["sets"]) == (stored.uri, 3, 1, 1)
    assert (report["failed"], report["codes"], len(report["failures"])) == (1, {"not_json": 1}, 1)
    assert str(report["preview"][1]["properties"]["b"]) == "1.10"
    assert isinstance(report["preview"][1]["properties"]["b"], Decimal)

    day = stored.uri.rpartition("/")[0] + "/"
    assert [file.uri for file in pipeline.locate(day)] == [stored.uri]  # the report is nobody's source file
    check(pipeline, stored.uri)
    assert len(list(s3.store.list(s3.bucket, ""))) == 2


def test_no_report_of_what_is_no_upload(s3: S3, pipeline: Pipeline) -> None:
    s3.put("landing/1.json", EVENTS)
    s3.put("landing/2.json.check.json", b"{}")
    check(pipeline, f"s3://{s3.bucket}/landing/1.json")
    assert [file.key for file in s3.store.list(s3.bucket, "landing/")] == [
        "landing/1.json",
        "landing/2.json.check.json",
    ]
    assert read_check_report(pipeline, s3.bucket, "landing/2.json") is None
    assert read_check_report(pipeline, "another-bucket", "uploads/2.json") is None


@pytest.mark.parametrize("text", [b"", b"no json", b"[1]", b"7", b"[" * 100_000, b"\xff"])
def test_what_is_no_report_is_said(s3: S3, pipeline: Pipeline, text: bytes) -> None:
    s3.put("uploads/1.json.check.json", text)
    with pytest.raises(IngestError, match="no report of a check"):
        read_check_report(pipeline, s3.bucket, "uploads/1.json")


def test_a_report_holds_so_much_and_counts_all(s3: S3, pipeline: Pipeline) -> None:
    bad = [f"no json {n}" for n in range(1_200)]
    stored = send(pipeline, cut(lines(*bad, *(record("ann", n, f"event {n % 50}") for n in range(200)))))
    whole = check(pipeline, stored.uri)
    assert (len(whole["failures"]), len(whole["events"])) == (1_200, 50)
    report = check(pipeline, stored.uri, Most(events=3))
    assert (report["failed"], report["codes"]) == (1_200, {"not_json": 1_200})
    assert report["failures"] == whole["failures"][:1_000]
    assert list(report["events"].values()) == [4, 4, 4]
    few = check(pipeline, stored.uri, Most(bytes=500))
    for part in (few["failures"], few["preview"], [few["events"]]):
        assert 100 < len(orjson.dumps(part)) < 550
    assert check(pipeline, stored.uri, Most(names=2))["events"] == {"event 0": 4, "event 1": 4}
    assert json.loads(body(s3, f"{stored.key}.check.json"))["failed"] == 1_200


def test_persons_are_counted_on_disk_where_there_are_many(
    s3: S3, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.report._Distinct._HELD", 100)
    stored = send(pipeline, cut(lines(*(record(f"p{n % 777}", n, "x") for n in range(30_000)))))
    assert check(pipeline, stored.uri)["persons"] == 777
