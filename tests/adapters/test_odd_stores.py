"""What S3Store makes of stores, proxies and gateways that are not quite S3: it loses nothing and trusts nothing."""

import base64
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ingest.adapters.s3 import S3Store, make_client
from ingest.core.source import SourceFile
from ingest.errors import ConfigError, IngestError, ListingDoubted, ObjectGone, TransientError
from tests.adapters.odd_store import Odd, odd_store

BODY = b'{"_p":"ann","_t":1393344604,"plan":"pro"}\n'
FIVE = {f"l/{number}.json": BODY + b"\n" * number for number in range(5)}


def store_of(odd: Odd, **more: Any) -> S3Store:
    return S3Store(odd.client(), **more)


def listed(store: S3Store, prefix: str = "l/") -> tuple[list[SourceFile], ListingDoubted | None]:
    """What a listing gave before it ended, and the doubt at its end."""
    found: list[SourceFile] = []
    try:
        for file in store.list("b", prefix):
            found.append(file)  # noqa: PERF402 - what came before the doubt counts
    except ListingDoubted as doubt:
        return found, doubt
    return found, None


# --- listings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "quirks",
    [
        pytest.param({}, id="plain"),
        pytest.param({"no_token": True}, id="no token"),
        pytest.param({"no_truncated": True}, id="token alone"),
        pytest.param({"no_truncated": True, "no_token": True}, id="neither"),
        pytest.param({"versioning": "Enabled"}, id="versions"),
        pytest.param({"versioning": "Enabled", "no_token": True}, id="versions without a marker"),
        pytest.param({"versioning": "Enabled", "no_latest": True}, id="versions, none of them current"),
        pytest.param({"versioning": "Enabled", "versions": (404, "NoSuchKey")}, id="versions unknown, 404"),
        pytest.param({"versioning": "Enabled", "versions": (400, "Whatever")}, id="versions unknown, 400"),
        pytest.param({"versioning": (500, "InternalError")}, id="versioning fails"),
        pytest.param({"versioning": (418, "Teapot")}, id="versioning refused in words of its own"),
        pytest.param({"without": ["ETag"]}, id="no ETag"),
        pytest.param({"without": ["Size"]}, id="no size"),
        pytest.param({"without": ["LastModified"]}, id="no time"),
    ],
)
def test_every_object_is_listed_once(quirks: dict[str, Any]) -> None:
    with odd_store(FIVE, page=2, **quirks) as odd:
        found, doubt = listed(store_of(odd))
        assert [(file.key, file.size_bytes) for file in found] == [(key, len(body)) for key, body in FIVE.items()]
        assert doubt is None
        assert len({file.file_id for file in found}) == 5
        assert [b"".join(store_of(odd).read(file)) for file in found] == list(FIVE.values())


@pytest.mark.parametrize(
    ("quirks", "cut", "sentence"),
    [
        pytest.param({"no_token": True, "ignores_marks": True}, True, "circles", id="no way on"),
        pytest.param({"same_token": True, "ignores_marks": True}, True, "circles", id="the same page again"),
        pytest.param({"versioning": "Enabled", "ignores_marks": True}, True, "circles", id="versions in circles"),
        pytest.param({"repeats": True}, False, "repeats itself", id="each key twice"),
    ],
)
def test_a_listing_that_proves_nothing_says_so(quirks: dict[str, Any], cut: bool, sentence: str) -> None:
    with odd_store(FIVE, page=2, **quirks) as odd:
        found, doubt = listed(store_of(odd))
    assert {file.key for file in found} >= {"l/0.json", "l/1.json"}
    assert doubt is not None
    assert doubt.cut is cut
    assert any(word in str(doubt) for word in sentence.split("|"))
    assert cut or len(found) == len({file.key for file in found})


def test_an_object_without_a_time_holds_up_no_neighbour() -> None:
    with odd_store(FIVE, untimed="l/2.json", head=(403, "AccessDenied")) as odd:
        found, doubt = listed(store_of(odd))
    assert [file.key for file in found] == [key for key in FIVE if key != "l/2.json"]
    assert doubt is not None
    assert doubt.cut
    assert str(doubt).startswith("s3://b/l/2.json: the listing does not give its size and time")


@pytest.mark.slow
def test_pages_of_nothing_come_to_an_end() -> None:
    with odd_store(FIVE, nothing=True) as odd:
        found, doubt = listed(store_of(odd))
    assert found == []
    assert doubt is not None
    assert "page after page of nothing" in str(doubt)


def test_a_directory_bucket_lists_folders_only() -> None:
    with odd_store(FIVE | {"other/1.json": BODY}, directory=True) as odd:
        found, _ = listed(store_of(odd), "l/1")
        assert [file.key for file in found] == ["l/1.json"]
        assert store_of(odd).describe("b", "l/3.json").key == "l/3.json"
        with pytest.raises(ObjectGone):
            store_of(odd).describe("b", "l/9.json")


def test_blank_marks_tell_versions_apart_by_size_and_time() -> None:
    with odd_store({"a.json": BODY}, without=["ETag"]) as odd:
        (before,), _ = listed(store_of(odd), "")
        odd.objects["a.json"] = BODY * 2
        (after,), _ = listed(store_of(odd), "")
    assert (before.etag, after.etag) == ("", "")
    assert before.file_id != after.file_id


def test_a_console_is_no_store() -> None:
    with (
        odd_store({"a.json": BODY}, web_page=True) as odd,
        pytest.raises(TransientError, match=r"like an S3 API.*endpoint"),
    ):
        list(store_of(odd).list("b", ""))


# --- reading ---------------------------------------------------------------------------------------------------------


def checksum(body: bytes) -> str:
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


@pytest.mark.parametrize(
    ("quirks", "sentence"),
    [
        pytest.param({"answers": BODY[:-9]}, "33 bytes came, and 42 were listed", id="shorter"),
        pytest.param({"answers": BODY[:-9], "no_length": True}, "33 bytes came", id="ends early, no length"),
        pytest.param({"answers": b"", "no_length": True}, "0 bytes came", id="nothing, no length"),
        pytest.param({"answers": BODY + BODY}, "84 bytes came", id="longer, and the length is told"),
        pytest.param({"listed_sizes": {"a.json": 99}}, "42 bytes came, and 99 were listed", id="the listing says more"),
        pytest.param(
            {"answers": b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>Oh no.</Message></Error>"},
            "InternalError: Oh no", id="an error page as 200",
        ),
        pytest.param(
            {"answers": b"<Error><Code>SlowDown</Code><Message>Later, please</Message></Error>", "no_length": True},
            "SlowDown: Later, please", id="an error page as 200, no length",
        ),
        pytest.param({"headers": {"x-amz-checksum-crc32": checksum(b"other")}}, "checksum", id="other checksum"),
        pytest.param({"get": (412, "PreconditionFailed")}, "lists it, and answers 412", id="412 for ever"),
        pytest.param({"get": (404, "NoSuchKey")}, "lists it, and answers 404", id="404 for ever"),
        pytest.param({"get": (400, "KMS.DisabledException")}, "KMS key is disabled", id="key disabled"),
        pytest.param({"get": (400, "InvalidRequest", "SSE is needed")}, "SSE is needed.*SSE-C", id="customer's key"),
        pytest.param({"get": (500, "InternalError", "Oh no")}, "InternalError: Oh no: trying again", id="broken"),
        pytest.param({"get": (409, "Conflict")}, "Trying again does not help", id="refused"),
    ],
)  # fmt: skip
def test_what_is_read_is_what_was_listed(quirks: dict[str, Any], sentence: str) -> None:
    with odd_store({"a.json": BODY}, **quirks) as odd:
        (file,), _ = listed(store_of(odd), "")
        with pytest.raises(TransientError, match=rf"^s3://b/a\.json: .*{sentence}") as caught:
            list(store_of(odd).read(file))
    assert type(caught.value) is TransientError


@pytest.mark.parametrize(
    "quirks",
    [
        pytest.param({"no_length": True}, id="no length"),
        pytest.param({"answers": BODY * 3, "no_length": True}, id="unpacked on the way"),
        pytest.param({"answers": BODY * 3, "headers": {"Content-Encoding": "gzip"}}, id="unpacked, and named"),
        pytest.param({"etag": "W/&quot;x&quot;".replace("&quot;", "")}, id="weak ETag"),
        pytest.param({"headers": {"x-amz-checksum-crc32": checksum(BODY)}}, id="right checksum"),
        pytest.param({"headers": {"x-amz-checksum-crc32": "AAAAAA==-3"}}, id="checksum of parts"),
    ],
)
def test_what_is_odd_and_whole_is_read(quirks: dict[str, Any]) -> None:
    with odd_store({"a.json": BODY}, **quirks) as odd:
        (file,), _ = listed(store_of(odd), "")
        assert b"".join(store_of(odd).read(file)) == quirks.get("answers", BODY)


def test_a_store_that_does_not_compare_gives_no_other_version() -> None:
    with odd_store({"a.json": BODY}, ignores_if_match=True) as odd:
        (file,), _ = listed(store_of(odd), "")
        odd.objects["a.json"] = BODY.swapcase()
        with pytest.raises(ObjectGone, match="overwritten"):
            list(store_of(odd).read(file))


def test_gone_is_what_the_listing_says_too() -> None:
    with odd_store({"a.json": BODY}) as odd:
        (file,), _ = listed(store_of(odd), "")
        del odd.objects["a.json"]
        with pytest.raises(ObjectGone):
            list(store_of(odd).read(file))


def test_a_version_that_may_no_longer_be_asked_for_is_read_by_its_etag() -> None:
    with odd_store({"a.json": BODY}) as odd:
        (plain,), _ = listed(store_of(odd), "")
        odd.quirks["versioning"] = "Enabled"
        (seen,), _ = listed(store_of(odd), "")
        assert seen.version_id
        assert seen.is_same(plain)
        assert b"".join(store_of(odd).read(seen)) == BODY


# --- slow is a fault, too --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quirk", ["slow_body", "slow_list"])
def test_an_answer_that_trickles_is_given_up(quirk: str) -> None:
    with odd_store({"a.json": BODY * 100}) as odd:
        (file,), _ = listed(store_of(odd), "")
        odd.quirks[quirk] = True
        store = store_of(odd, patience_seconds=0.2)
        with pytest.raises(TransientError, match="less than 1,024 bytes a second"):
            list(store.read(file) if quirk == "slow_body" else store.list("b", ""))


def test_a_copy_may_take_its_time() -> None:
    """Meanwhile the store sends blanks, so that nobody thinks it dead."""
    with odd_store({"a.json": BODY}, slow_copy=True) as odd:
        (file,), _ = listed(store_of(odd), "")
        store = store_of(odd, patience_seconds=0.2)
        assert store.copy(file, ["done/a.json"], sha256(BODY).hexdigest()) == "done/a.json"


def test_a_small_object_may_take_its_time() -> None:
    """The end of a body is no fault, however long it took."""
    with odd_store({"a.json": BODY[:20]}, slow_body=True) as odd:
        (file,), _ = listed(store_of(odd), "")
        assert b"".join(store_of(odd, patience_seconds=1.0).read(file)) == BODY[:20]


@pytest.mark.parametrize("quirks", [{"silent": 3.0}, {"slow_headers": True}], ids=["nothing comes", "headers trickle"])
def test_a_time_out_is_what_it_says(quirks: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    with odd_store({"a.json": BODY}) as odd:
        (file,), _ = listed(store_of(odd), "")
        odd.quirks |= quirks
        odd.requests.clear()
        store = S3Store(make_client(endpoint_url=odd.endpoint, read_timeout_seconds=0.3))
        with pytest.raises(TransientError, match=r"did not answer in time.*read_timeout"):
            list(store.read(file))
        assert len(odd.requests) == 1  # five attempts would be five times as long


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 100, (8 << 20) + 1])
def test_what_is_written_carries_a_checksum(size: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    with odd_store(object_lock=True) as odd:
        store = S3Store(make_client(endpoint_url=odd.endpoint))
        if size <= 8 << 20:
            store.receive("b", "a.json", [b"x" * size])
        report = tmp_path / "report"
        report.write_bytes(b"y" * size)
        store.write("b", "report.json", report)
        store.write("b", "report.json", report)  # it is there already
        assert odd.objects["report.json"] == b"y" * size
        assert sum(command == "PUT" and "report" in path for command, path, _ in odd.requests) == 1


def test_the_user_decides_on_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    sent = {}
    for chosen in ("", "when_supported"):
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", chosen)
        with odd_store() as odd:
            S3Store(make_client(endpoint_url=odd.endpoint)).receive("b", "a.json", [BODY])
            sent[chosen] = {name.lower() for name in odd.requests[-1][2]}
    assert "content-md5" in sent[""]
    assert not any(name.startswith("x-amz-checksum") for name in sent[""])
    assert any(name.startswith(("x-amz-checksum", "x-amz-trailer")) for name in sent["when_supported"])


def test_the_requester_pays_where_that_is_set() -> None:
    with odd_store({"a.json": BODY}) as odd:
        for pays in (True, False):
            odd.requests.clear()
            (file,), _ = listed(store_of(odd, requester_pays=pays), "")
            list(store_of(odd, requester_pays=pays).read(file))
            assert {headers.get("x-amz-request-payer") for _, _, headers in odd.requests} == {
                "requester" if pays else None
            }


def test_a_put_that_nobody_took_is_no_success() -> None:
    with odd_store(web_page=True) as odd, pytest.raises(TransientError, match="S3 API"):
        store_of(odd).receive("b", "a.json", [BODY])


# --- taking away -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quirk", "take"),
    [
        ("copy_says_gone", lambda store, file: store.copy(file, ["done/a.json"], "0" * 64)),
        ("delete_says_gone", lambda store, file: store.remove(file, "done/")),
    ],
)
def test_nothing_is_written_off_on_a_false_word(quirk: str, take: Callable[[S3Store, SourceFile], object]) -> None:
    with odd_store({"a.json": BODY}, **{quirk: True}) as odd:
        (file,), _ = listed(store_of(odd), "")
        with pytest.raises(TransientError, match="412") as caught:
            take(store_of(odd), file)
        assert type(caught.value) is TransientError


def test_a_copy_that_is_wrong_goes_and_the_original_stays() -> None:
    with odd_store({"a.json": BODY}, copies=BODY[:20]) as odd:
        (file,), _ = listed(store_of(odd), "")
        with pytest.raises(TransientError, match="the copy differs"):
            store_of(odd).copy(file, ["done/a.json"], sha256(BODY).hexdigest())
        assert odd.objects == {"a.json": BODY}


def test_a_copy_is_proven_by_its_bytes() -> None:
    """Not by an ETag and a length, which a store may have taken over with nothing behind them."""
    with odd_store({"a.json": BODY, "done/a.json": bytes(len(BODY))}, etag="constant") as odd:
        (file, _), _ = listed(store_of(odd), "")
        with pytest.raises(ConfigError, match="taken by other objects"):
            store_of(odd).copy(file, ["done/a.json"], sha256(BODY).hexdigest())


def test_who_lost_the_probe_knows_nothing_of_conditions() -> None:
    with odd_store({"a.json": BODY}, probe_vanishes=True) as odd:
        (file,), _ = listed(store_of(odd), "")
        with pytest.raises(TransientError, match="other processes keep removing it"):
            store_of(odd).remove(file, "done/")
        assert "a.json" in odd.objects


def test_what_head_does_not_find_and_the_listing_shows_is_not_gone() -> None:
    with odd_store({"a.json": BODY}, head=(404, "")) as odd:
        (file,), _ = listed(store_of(odd), "")
        with pytest.raises(TransientError, match="lists it, and does not find it"):
            store_of(odd).remove(file, "done/")


def test_nothing_is_deleted_that_nothing_can_tell_apart() -> None:
    with odd_store({"a.json": BODY}, without=["ETag"]) as odd:
        (file,), _ = listed(store_of(odd), "")
        with pytest.raises(ConfigError, match="nothing is deleted"):
            store_of(odd).remove(file, "done/")
        assert "a.json" in odd.objects


# --- what the store says is told -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error", "sentence"),
    [
        pytest.param((403, "AccessDenied", "Explicit deny"), ConfigError, "s3:ListBucket.*Explicit deny", id="denied"),
        pytest.param((301, "PermanentRedirect"), ConfigError, "another region.*AWS_DEFAULT_REGION", id="elsewhere"),
        pytest.param((400, "Odd", "This is not done here"), TransientError, "Odd: This is not done here", id="odd"),
        pytest.param((503, "SlowDown", "Later"), TransientError, "SlowDown: Later: trying again", id="slow down"),
        pytest.param((429, "TooMany", "Later"), TransientError, "TooMany: Later: trying again can help", id="too many"),
    ],
)
def test_the_words_of_the_store_are_told(answer: tuple[Any, ...], error: type[IngestError], sentence: str) -> None:
    with odd_store(list=answer) as odd, pytest.raises(error, match=f"^s3://b/l/: .*{sentence}"):
        list(store_of(odd).list("b", "l/"))
