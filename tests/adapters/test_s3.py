"""S3Store against a real server: what is listed, what is pinned, and what each refusal means."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config

from ingest.adapters.s3 import S3Store, make_client
from ingest.errors import ConfigError, IngestError, ObjectGone, TransientError
from tests.conftest import S3

ODD_KEYS = [
    "a b.json", "a+b.json", "a%20b.json", "a%2Bb.json", "%.json", "ä/ö.json", "日本/😀.json", "a\tb.json", "a\rb.json",
    "a\x01b.json", "a&b<c>.json", "a'b\"c.json", "a//b.json", " lead.json", "trail .json ", "folder/", "q?x=1#y.json",
    "a\\b.json", "-", "..json",
]  # fmt: skip


@pytest.mark.parametrize("versioned", [False, True])
def test_odd_keys_come_out_as_they_went_in(s3: S3, versioned: bool) -> None:
    if versioned:
        s3.keep_versions()
    keys = [key for key in ODD_KEYS if key.isprintable() or not versioned]  # moto breaks at those, see the next test
    for key in keys:
        s3.put(key, key.encode())
    listed = list(s3.store.list(s3.bucket, ""))
    assert sorted(file.key for file in listed) == sorted(keys)
    for file in listed:
        assert b"".join(s3.store.read(file)) == file.key.encode()
        assert s3.store.describe(s3.bucket, file.key) == file
        assert (file.version_id is not None) == versioned


@pytest.mark.slow
def test_more_than_one_page(s3: S3) -> None:
    keys = [f"landing/{number}.json" for number in range(1_050)]
    for key in keys:
        s3.put(key)
    s3.put("other/1.json")
    before = list(s3.store.list(s3.bucket, "landing/"))
    assert sorted(file.key for file in before) == sorted(keys)
    s3.keep_versions()  # from now on another call lists them; they stay the source files that they were
    assert list(s3.store.list(s3.bucket, "landing/")) == before


def test_what_a_listing_tells(s3: S3) -> None:
    s3.put("a.json", b"12345")
    s3.put("frozen.json", StorageClass="GLACIER")
    plain, frozen = s3.store.list(s3.bucket, "")
    assert (plain.bucket, plain.key, plain.size_bytes, plain.version_id) == (s3.bucket, "a.json", 5, None)
    assert plain.etag == "827ccb0eea8a706c4c34a16891f84e7b"
    assert plain.last_modified.utcoffset() is not None
    assert str(plain.last_modified.tzinfo) == "UTC"
    assert (plain.storage_class, frozen.storage_class) == ("STANDARD", "GLACIER")


def test_an_empty_listing(s3: S3) -> None:
    assert list(s3.store.list(s3.bucket, "nothing/")) == []


def test_only_the_current_version_counts(s3: S3) -> None:
    s3.put("before.json", b"from before versions were kept")
    s3.keep_versions()
    s3.put("a.json", b"old")
    s3.put("a.json", b"new")
    s3.put("deleted.json")
    s3.client.delete_object(Bucket=s3.bucket, Key="deleted.json")
    s3.put("deleted.json.gz")
    listed = {file.key: file for file in s3.store.list(s3.bucket, "")}
    assert sorted(listed) == ["a.json", "before.json", "deleted.json.gz"]
    assert b"".join(s3.store.read(listed["a.json"])) == b"new"
    assert listed["a.json"].version_id
    assert listed["before.json"].version_id is None
    assert b"".join(s3.store.read(listed["before.json"])) == b"from before versions were kept"
    with pytest.raises(ObjectGone):
        s3.store.describe(s3.bucket, "deleted.json")


def test_suspended_versions(s3: S3) -> None:
    s3.keep_versions()
    s3.put("a.json", b"kept")
    s3.put("b.json", b"kept")
    s3.keep_versions("Suspended")
    s3.put("b.json", b"no longer kept")
    first, second = s3.store.list(s3.bucket, "")
    assert first.version_id
    assert second.version_id is None
    assert b"".join(s3.store.read(second)) == b"no longer kept"


def test_a_version_is_read_after_it_was_overwritten_or_deleted(s3: S3) -> None:
    s3.keep_versions()
    s3.put("a.json", b"old")
    (file,) = s3.store.list(s3.bucket, "")
    s3.put("a.json", b"new")
    assert b"".join(s3.store.read(file)) == b"old"
    s3.client.delete_object(Bucket=s3.bucket, Key="a.json")
    assert b"".join(s3.store.read(file)) == b"old"
    assert file.version_id
    s3.client.delete_object(Bucket=s3.bucket, Key="a.json", VersionId=file.version_id)
    with pytest.raises(ObjectGone):
        list(s3.store.read(file))


def test_gone_between_listing_and_reading(s3: S3) -> None:
    s3.put("deleted.json", b"1")
    s3.put("replaced.json", b"1")
    deleted, replaced = s3.store.list(s3.bucket, "")
    s3.client.delete_object(Bucket=s3.bucket, Key="deleted.json")
    s3.put("replaced.json", b"2")
    for file in (deleted, replaced):
        with pytest.raises(ObjectGone, match=f"^{file.uri}: "):
            list(s3.store.read(file))
    assert s3.store.describe(s3.bucket, "replaced.json") != replaced


def test_describe_is_not_led_astray(s3: S3) -> None:
    for key in ("a.json.gz", "a.json/b"):
        s3.put(key)
    with pytest.raises(ObjectGone, match=f"s3://{s3.bucket}/a.json: "):
        s3.store.describe(s3.bucket, "a.json")


def test_an_archived_object_says_so(s3: S3) -> None:
    s3.put("frozen.json", StorageClass="DEEP_ARCHIVE")
    (file,) = s3.store.list(s3.bucket, "")
    with pytest.raises(TransientError, match="restore it"):
        list(s3.store.read(file))


def test_no_such_bucket(s3: S3) -> None:
    for call in (lambda: list(s3.store.list("no-such-bucket", "")), lambda: s3.store.describe("no-such-bucket", "a")):
        with pytest.raises(ConfigError, match=r"s3://no-such-bucket/.*: there is no such bucket"):
            call()


def test_large_objects_come_in_pieces(s3: S3) -> None:
    s3.put("large.json", bytes(3_000_000))
    (file,) = s3.store.list(s3.bucket, "")
    sizes = [len(piece) for piece in s3.store.read(file)]
    assert sum(sizes) == 3_000_000
    assert max(sizes) <= 1 << 20


def test_boto3_settings_are_honoured(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client()
    assert client.meta.endpoint_url == s3.endpoint
    assert client.meta.config.retries == {"mode": "standard", "total_max_attempts": 5}  # type: ignore[attr-defined]
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "9")
    assert make_client().meta.config.retries == {"mode": "adaptive", "total_max_attempts": 9}  # type: ignore[attr-defined]
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match="nobody"):
        make_client()


def test_no_credentials(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto_endpoint)
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
        list(S3Store(make_client()).list("bucket", ""))


def test_a_store_that_is_not_there(s3: S3) -> None:
    with pytest.raises(TransientError, match=r"s3://bucket/: nothing answers at http://127\.0\.0\.1:9"):
        list(S3Store(client_of("http://127.0.0.1:9")).list("bucket", ""))


# A store that refuses: it lists one object, `a.json`, and answers one kind of call as it is told.

LISTING = (
    b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a.json</Key><Size>100</Size><ETag>&quot;e&quot;"
    b"</ETag><LastModified>2026-01-02T03:04:05.678Z</LastModified></Contents></ListBucketResult>"
)
VERSIONS = (
    b"<ListVersionsResult><IsTruncated>false</IsTruncated><Version><Key>a.json</Key><Size>100</Size>"
    b"<ETag>&quot;e&quot;</ETag><VersionId>v1</VersionId><IsLatest>true</IsLatest>"
    b"<LastModified>2026-01-02T03:04:05.678Z</LastModified></Version></ListVersionsResult>"
)
VERSIONING = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"


@contextmanager
def refusing_store(answers: dict[str, tuple[int, str] | bytes]) -> Iterator[S3Store]:
    """`answers`: for versioning, versions, list, head or get, a status and error code, or a body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = self.path.partition("?")[2].split("&")
            if "versioning" in query:
                self.answer(answers.get("versioning", b"<VersioningConfiguration/>"))
            elif "versions" in query:
                self.answer(answers.get("versions", VERSIONS))
            elif any(part.startswith("list-type") for part in query):
                self.answer(answers.get("list", LISTING))
            else:
                self.answer(answers["get"], size=100)

        def do_HEAD(self) -> None:
            self.answer(answers["head"], size=100)

        def answer(self, what: tuple[int, str] | bytes, size: int | None = None) -> None:
            body = f"<Error><Code>{what[1]}</Code></Error>".encode() if isinstance(what, tuple) else what
            self.send_response(what[0] if isinstance(what, tuple) else 200)
            self.send_header("Content-Length", str(size if size and isinstance(what, bytes) else len(body)))
            self.send_header("ETag", '"e"')
            self.send_header("Last-Modified", "Fri, 02 Jan 2026 03:04:05 GMT")
            self.send_header("x-amz-version-id", "v1")
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield S3Store(client_of(f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        server.server_close()


def client_of(endpoint: str) -> Any:
    return boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=2),
    )  # fmt: skip


def test_keys_are_decoded_as_s3_encodes_them() -> None:
    encoded = (
        (b"<IsTruncated>", b"<EncodingType>url</EncodingType><IsTruncated>"),
        (b"a.json", b"a+b%2Bc%0A%01%25.json"),
    )
    listing, versions = LISTING, VERSIONS
    for plain, url in encoded:
        listing, versions = listing.replace(plain, url, 1), versions.replace(plain, url, 1)
    for answers in ({"list": listing}, {"versioning": VERSIONING, "versions": versions}):
        with refusing_store(answers) as store:  # type: ignore[arg-type]
            assert [file.key for file in store.list("bucket", "")] == ["a b+c\n\x01%.json"]


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        pytest.param((403, "AccessDenied"), ConfigError, "s3:ListBucket", id="denied"),
        pytest.param((404, "NoSuchBucket"), ConfigError, "no such bucket", id="no bucket"),
        pytest.param((403, "InvalidAccessKeyId"), ConfigError, "access key", id="wrong key"),
        pytest.param((403, "SignatureDoesNotMatch"), ConfigError, "secret key", id="wrong secret"),
        pytest.param((400, "ExpiredToken"), ConfigError, "expired", id="expired"),
        pytest.param((403, "RequestTimeTooSkewed"), ConfigError, "clock", id="clock"),
        pytest.param((503, "SlowDown"), TransientError, "SlowDown", id="throttled"),
        pytest.param((500, "InternalError"), TransientError, "InternalError", id="broken"),
        pytest.param(b"<ListBucketResult>", TransientError, "does not speak like an S3 API", id="half an answer"),
    ],
)
def test_refused_listings(answer: tuple[int, str] | bytes, error: type[IngestError], sentence: str) -> None:
    with refusing_store({"list": answer}) as store, pytest.raises(error, match=f"^s3://bucket/landing/: .*{sentence}"):
        list(store.list("bucket", "landing/"))


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        pytest.param((403, "AccessDenied"), TransientError, "s3:GetObject ", id="denied"),
        pytest.param((404, "NoSuchKey"), TransientError, "lists it, and answers 404", id="gone, and listed"),
        pytest.param((412, "PreconditionFailed"), TransientError, "lists it, and answers 412", id="other, and listed"),
        pytest.param((404, "NoSuchBucket"), ConfigError, "no such bucket", id="no bucket"),
        pytest.param((403, "InvalidObjectState"), TransientError, "restore", id="archived"),
        pytest.param((503, "SlowDown"), TransientError, "SlowDown", id="throttled"),
        pytest.param(b"only half of it", TransientError, "ended early, after 15 of 100", id="short body"),
        pytest.param(b"", TransientError, "ended early, after 0 of 100", id="no body"),
    ],
)
def test_refused_reads(answer: tuple[int, str] | bytes, error: type[IngestError], sentence: str) -> None:
    with refusing_store({"get": answer}) as store:
        (file,) = store.list("bucket", "")
        with pytest.raises(error, match=rf"^s3://bucket/a\.json: .*{sentence}") as caught:
            list(store.read(file))
    assert (error is TransientError) == (type(caught.value) is TransientError)


def test_versions_that_we_may_see() -> None:
    with refusing_store({"versioning": VERSIONING}) as store:
        assert [file.version_id for file in store.list("bucket", "")] == ["v1"]
        assert store.describe("bucket", "a.json").version_id == "v1"


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param({"versioning": (403, "AccessDenied")}, id="may not ask"),
        pytest.param({"versioning": (501, "NotImplemented")}, id="store knows no versions"),
        pytest.param({"versioning": VERSIONING, "versions": (403, "AccessDenied")}, id="may not list versions"),
    ],
)
def test_versions_that_we_may_not_see(answers: dict[str, tuple[int, str] | bytes]) -> None:
    with refusing_store(answers) as store:
        (file,) = store.list("bucket", "")
        assert (file.version_id, file.etag) == (None, "e")
        assert store.describe("bucket", "a.json") == file


def test_who_may_only_read_objects_can_still_load_one() -> None:
    denied = (403, "AccessDenied")
    with refusing_store({"versioning": denied, "list": denied, "head": b""}) as store:
        file = store.describe("bucket", "a.json")
        assert (file.key, file.etag, file.version_id, file.size_bytes) == ("a.json", "e", None, 100)
    answers: dict[str, tuple[int, str] | bytes] = {"versioning": denied, "list": denied, "head": (403, "")}
    with refusing_store(answers) as store, pytest.raises(TransientError, match="s3:GetObject"):
        store.describe("bucket", "a.json")
