"""Each source has the store that its settings name."""

import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ingest.errors import ConfigError
from ingest.settings import Settings, Source
from ingest.wiring import open_pipeline, stores_of
from tests.adapters.odd_store import odd_store


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")


def test_two_stores_in_one_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profiles = tmp_path / "credentials"
    profiles.write_text("[other]\naws_access_key_id = OTHER\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profiles))
    with odd_store({"1.json": b"{}"}) as one, odd_store({"2.json": b"{}"}) as two:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", one.endpoint)
        there = Source(name="there", bucket="b", endpoint_url=two.endpoint, profile="other", requester_pays=True)
        settings = Settings(warehouse_url="", sources={"here": Source(name="here", bucket="b"), "there": there})
        store_of = stores_of(settings)
        assert [[file.key for file in store_of(name).list("b", "")] for name in ("here", "there", "one_off")] == [
            ["1.json"], ["2.json"], ["1.json"],
        ]  # fmt: skip
        assert {headers.get("x-amz-request-payer") for *_, headers in two.requests} == {"requester"}
        assert all("Credential=OTHER/" in headers["Authorization"] for *_, headers in two.requests)


def test_only_the_source_that_says_so_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    with odd_store({"1.json": b"{}"}) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.endpoint)
        pays = Source(name="pays", bucket="b", requester_pays=True)
        store_of = stores_of(
            Settings(warehouse_url="", sources={"pays": pays, "free": Source(name="free", bucket="b")})
        )
        said = []
        for name in ("pays", "free", "one_off"):
            store.requests.clear()
            list(store_of(name).list("b", ""))
            said.append({headers.get("x-amz-request-payer") for *_, headers in store.requests})
        assert said == [{"requester"}, {None}, {None}]


def test_an_address_is_read_where_its_source_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with odd_store({"l/1.json": b"{}"}) as one, odd_store({"l/1.json": b"{}", "l/2.json": b"{}"}) as two:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", one.endpoint)
        there = Source(name="there", bucket="b", prefix="l/", endpoint_url=two.endpoint)
        with open_pipeline(Settings(warehouse_url="", sources={"there": there})) as pipeline:
            (file,) = pipeline.locate("s3://b/l/2.json", archived=False)
            assert b"".join(pipeline.read(file)) == b"{}"
        assert one.requests == []


@pytest.fixture
def self_signed(tmp_path: Path) -> Iterator[str]:
    """A store whose certificate nobody vouches for; its address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    both = tmp_path / "both.pem"
    both.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_certificate_that_nobody_vouches_for(self_signed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    source = Source(name="web", bucket="b", endpoint_url=self_signed)
    store = stores_of(Settings(warehouse_url="", sources={"web": source}))("web")
    with pytest.raises(ConfigError, match=r"s3://b/: the certificate .* is not trusted .*AWS_CA_BUNDLE"):
        list(store.list("b", ""))
