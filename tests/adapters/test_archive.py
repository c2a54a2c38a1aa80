"""What a store does after a load: copies that are verified, deletes that never hit another version, reports.

moto ignores CopySourceIfMatch, so the copy of an object that is overwritten at that very moment is made here, and it is
the verification that refuses it; a real S3 would not even copy. moto does compare the ETag of a delete.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.awsrequest import AWSResponse
from botocore.exceptions import EndpointConnectionError

from ingest.adapters import s3 as adapter
from ingest.adapters.local import LocalStore
from ingest.adapters.s3 import PROBE_NAME
from ingest.core.source import SourceFile
from ingest.errors import ConfigError, ObjectGone, TransientError
from tests.adapters.test_s3 import ODD_KEYS
from tests.conftest import S3

BODY = b'{"_p":"ann","_t":1393344604,"plan":"pro"}\n'
HASH = sha256(BODY).hexdigest()
ARCHIVE = "completed_imports/"
COPY = f"{ARCHIVE}2026/01/02/a.json"
SECOND = f"{ARCHIVE}2026/01/02/a.{HASH[:8]}.json"


@pytest.fixture(params=[False, True], ids=["unversioned", "versioned"])
def versioned(request: pytest.FixtureRequest, s3: S3) -> bool:
    if request.param:
        s3.keep_versions()
    return bool(request.param)


def put(s3: S3, key: str = "a.json", body: bytes = BODY) -> SourceFile:
    s3.put(key, body)
    return s3.store.describe(s3.bucket, key)


def content(s3: S3, key: str) -> bytes | None:
    if key not in keys(s3):
        return None
    return s3.client.get_object(Bucket=s3.bucket, Key=key)["Body"].read()


def keys(s3: S3) -> list[str]:
    return [file.key for file in s3.store.list(s3.bucket, "")]


def calls(s3: S3, operation: str) -> list[str]:
    """The keys of all requests of one kind from now on."""
    seen: list[str] = []
    s3.client.meta.events.register(f"before-call.s3.{operation}", lambda params, **_: seen.append(params["url_path"]))
    return seen


def just_before(s3: S3, operation: str, act: Callable[[], object], key: str = "a.json") -> None:
    """Somebody does something between our last look and this request of ours; once."""
    left = [act]

    def meddle(params: dict[str, Any], **_: object) -> None:
        if params["url_path"].endswith(key) and left:
            left.pop()()

    s3.client.meta.events.register(f"before-call.s3.{operation}", meddle)


def ignore_conditions(s3: S3) -> None:
    """A store that deletes whatever the If-Match says."""

    def forget(params: dict[str, Any], **_: object) -> None:
        params["headers"].pop("If-Match", None)

    s3.client.meta.events.register("before-call.s3.DeleteObject", forget)


def answer(s3: S3, operation: str, status: int, code: str) -> None:
    """What the store says to this kind of request."""

    class Raw:
        def stream(self, **_: object) -> list[bytes]:
            return [f"<Error><Code>{code}</Code></Error>".encode() if operation != "HeadObject" else b""]

    def refuse(request: Any, **_: object) -> AWSResponse:
        return AWSResponse(request.url, status, {}, Raw())  # type: ignore[arg-type]

    s3.client.meta.events.register(f"before-send.s3.{operation}", refuse)  # type: ignore[arg-type]


# --- copy ------------------------------------------------------------------------------------------------------------


def test_a_copy_has_the_bytes_and_the_original_stays(s3: S3, versioned: bool) -> None:
    file = put(s3)
    assert s3.store.copy(file, [COPY, SECOND], HASH) == COPY
    assert (content(s3, COPY), content(s3, "a.json")) == (BODY, BODY)


def test_odd_keys_are_archived(s3: S3, versioned: bool) -> None:
    for key in [*filter(str.isprintable, ODD_KEYS), "…/100 % + more/ü.json.gz"]:
        file = put(s3, key, key.encode())
        to = f"{ARCHIVE}2026/01/02/{key}"
        assert s3.store.copy(file, [to], sha256(key.encode()).hexdigest()) == to
        assert content(s3, to) == key.encode()
        assert s3.store.remove(file, ARCHIVE)
        assert key not in keys(s3)


def test_a_taken_name_is_left_alone(s3: S3) -> None:
    file = put(s3)
    s3.put(COPY, b"another file of that day")
    assert s3.store.copy(file, [COPY, SECOND], HASH) == SECOND
    assert (content(s3, COPY), content(s3, SECOND)) == (b"another file of that day", BODY)
    s3.put(SECOND, b"and another one")
    with pytest.raises(ConfigError, match=f"{COPY} and {SECOND} are taken"):
        s3.store.copy(file, [COPY, SECOND], HASH)
    s3.put(COPY, BODY.swapcase())  # as long, and still other bytes
    with pytest.raises(ConfigError, match="are taken"):
        s3.store.copy(file, [COPY, SECOND], HASH)
    assert content(s3, "a.json") == BODY


def test_the_copy_of_a_former_try_is_used(s3: S3, versioned: bool) -> None:
    file = put(s3)
    s3.put(COPY, b"another file of that day")
    s3.store.copy(file, [COPY, SECOND], HASH)
    copied = calls(s3, "CopyObject")
    assert s3.store.copy(file, [COPY, SECOND], HASH) == SECOND
    s3.client.delete_object(Bucket=s3.bucket, Key="a.json")
    assert s3.store.copy(file, [COPY, SECOND], HASH) == SECOND  # it died after the delete
    assert copied == []


def test_large_objects_are_copied_in_parts(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "_COPYING", TransferConfig(multipart_threshold=6 << 20, multipart_chunksize=5 << 20))
    body = os.urandom(11 << 20)
    file = put(s3, "large.json", body)
    parts = calls(s3, "UploadPartCopy")
    assert s3.store.copy(file, [COPY], sha256(body).hexdigest()) == COPY
    assert len(parts) == 3
    assert s3.store.describe(s3.bucket, COPY).etag != file.etag  # so it was read back
    with pytest.raises(TransientError, match="differs"):
        s3.store.copy(file, ["elsewhere.json"], sha256(b"what it should have been").hexdigest())


def test_overwritten_before_the_copy(s3: S3, versioned: bool) -> None:
    file = put(s3)
    s3.put("a.json", b"new")
    if versioned:
        assert s3.store.copy(file, [COPY], HASH) == COPY
        assert content(s3, COPY) == BODY
    else:
        with pytest.raises(ObjectGone, match=f"s3://{s3.bucket}/a.json: .*before it could be archived"):
            s3.store.copy(file, [COPY], HASH)
    assert content(s3, "a.json") == b"new"


def test_overwritten_while_it_is_copied(s3: S3) -> None:
    file = put(s3)
    just_before(s3, "CopyObject", lambda: s3.put("a.json", b"new"), COPY)
    with pytest.raises(
        TransientError, match="the copy differs"
    ):  # a store that ignores CopySourceIfMatch, as moto does
        s3.store.copy(file, [COPY], HASH)
    assert content(s3, "a.json") == b"new"


def test_the_copy_is_pinned(s3: S3) -> None:
    seen: list[dict[str, str]] = []
    s3.client.meta.events.register("before-call.s3.CopyObject", lambda params, **_: seen.append(params["headers"]))
    file = put(s3)
    s3.store.copy(file, ["1.json"], HASH)
    s3.keep_versions()
    version = put(s3)
    s3.store.copy(version, ["2.json"], HASH)
    assert seen[0]["x-amz-copy-source-if-match"] == f'"{file.etag}"'
    assert seen[1]["x-amz-copy-source"] == f"{s3.bucket}/a.json?versionId={version.version_id}"


def test_keys_that_are_too_long(s3: S3) -> None:
    file = put(s3)
    longest = f"{ARCHIVE}{'ä' * ((1024 - len(ARCHIVE)) // 2)}"
    longest += "x" * (1024 - len(longest.encode()))
    assert s3.store.copy(file, [longest], HASH) == longest
    for call in (
        lambda: s3.store.copy(file, [f"{longest}x"], HASH),
        lambda: s3.store.write(s3.bucket, f"{longest}x", Path(__file__)),
    ):
        with pytest.raises(ConfigError, match=r"S3 takes keys of 1,024 bytes, this one has 1,025: shorten it"):
            call()
    assert content(s3, "a.json") == BODY


# --- remove ----------------------------------------------------------------------------------------------------------


def test_removed_and_no_trace_of_the_trial(s3: S3, versioned: bool) -> None:
    file, other = put(s3), put(s3, "b.json")
    probes = calls(s3, "PutObject")
    assert s3.store.remove(file, ARCHIVE)
    assert s3.store.remove(other, ARCHIVE)
    assert probes == [f"/{ARCHIVE}{PROBE_NAME}"]  # the answer is remembered
    assert keys(s3) == []
    kept = s3.client.list_object_versions(Bucket=s3.bucket)
    assert [one["Key"] for one in kept.get("Versions", [])] == (["a.json", "b.json"] if versioned else [])
    assert [one["Key"] for one in kept.get("DeleteMarkers", [])] == (["a.json", "b.json"] if versioned else [])
    assert s3.store.remove(file, ARCHIVE)  # it is gone: nothing to do


def test_an_overwritten_key_stays(s3: S3, versioned: bool) -> None:
    file = put(s3)
    s3.put("a.json", b"new")
    assert not s3.store.remove(file, ARCHIVE)
    assert content(s3, "a.json") == b"new"


def test_overwritten_just_before_the_delete(s3: S3, versioned: bool) -> None:
    file = put(s3)
    just_before(s3, "DeleteObject", lambda: s3.put("a.json", b"new"))
    assert not s3.store.remove(file, ARCHIVE)
    assert content(s3, "a.json") == b"new"


def test_the_same_bytes_sent_again_are_another_version(s3: S3) -> None:
    s3.keep_versions()
    file, again = put(s3), put(s3)
    assert file.etag == again.etag
    assert not s3.store.remove(file, ARCHIVE)
    assert s3.store.describe(s3.bucket, "a.json") == again
    assert s3.store.remove(again, ARCHIVE)
    assert keys(s3) == []


def test_a_version_from_before_versions_were_kept(s3: S3) -> None:
    file = put(s3)
    s3.keep_versions()
    assert s3.store.remove(s3.store.describe(s3.bucket, "a.json"), ARCHIVE)
    assert keys(s3) == []
    s3.put("a.json", b"new")
    assert not s3.store.remove(file, ARCHIVE)


def test_a_store_without_conditions_and_versions_deletes_nothing(s3: S3) -> None:
    ignore_conditions(s3)
    file = put(s3)
    probes = calls(s3, "PutObject")
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"^s3://{s3.bucket}: .*nothing is deleted"):
            s3.store.remove(file, ARCHIVE)
    assert len(probes) == 1
    assert keys(s3) == ["a.json"]


@pytest.mark.parametrize("code", ["NotImplemented", "InvalidArgument"])
def test_a_store_that_refuses_conditions_deletes_nothing(s3: S3, code: str) -> None:
    answer(s3, "DeleteObject", 501 if code == "NotImplemented" else 400, code)
    with pytest.raises(ConfigError, match="nothing is deleted"):
        s3.store.remove(put(s3), ARCHIVE)


def test_a_store_without_conditions_deletes_the_version(s3: S3) -> None:
    s3.keep_versions()
    ignore_conditions(s3)
    file = put(s3)
    just_before(s3, "DeleteObject", lambda: s3.put("a.json", b"new"))
    assert s3.store.remove(file, ARCHIVE)
    assert content(s3, "a.json") == b"new"
    newer = s3.store.describe(s3.bucket, "a.json")
    put(s3, "a.json2")  # another key that begins alike
    assert s3.store.remove(newer, ARCHIVE)
    assert keys(s3) == ["a.json2"]


def test_a_store_without_conditions_brings_no_older_version_to_light(s3: S3) -> None:
    s3.keep_versions()
    ignore_conditions(s3)
    s3.put("a.json", b"older")
    file = put(s3)
    with pytest.raises(ConfigError, match="an older version would come to light"):
        s3.store.remove(file, ARCHIVE)
    assert s3.store.describe(s3.bucket, "a.json") == file


# --- write -----------------------------------------------------------------------------------------------------------


def test_a_report_is_put_once(s3: S3, tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.write_bytes(b"1")
    written = calls(s3, "PutObject")
    for body in (b"1", b"1", b"2", b"22", b"22"):
        report.write_bytes(body)
        s3.store.write(s3.bucket, "reports/a b.json", report)
        assert content(s3, "reports/a b.json") == body
    assert len(written) == 3


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "call", "sentence"),
    [
        pytest.param("CopyObject", "copy", "we may not write it: grant s3:PutObject", id="copy"),
        pytest.param("PutObject", "remove", f"{PROBE_NAME}: we may not write or delete it", id="probe"),
        pytest.param("HeadObject", "copy", "we may not write it: grant s3:PutObject", id="look"),
        pytest.param("PutObject", "write", "we may not write it: grant s3:PutObject", id="report"),
    ],
)  # fmt: skip
def test_denied(s3: S3, tmp_path: Path, operation: str, call: str, sentence: str) -> None:
    file = put(s3)
    assert act(s3, "remove", replace(file, key="other.json"), tmp_path) or operation == "PutObject"
    if operation == "PutObject" and call == "remove":
        s3.store._compares.clear()
    answer(s3, operation, 403, "AccessDenied")
    with pytest.raises(TransientError, match=sentence):
        act(s3, call, file, tmp_path)
    assert s3.client.get_object(Bucket=s3.bucket, Key="a.json")["Body"].read() == BODY


def test_delete_denied(s3: S3) -> None:
    file = put(s3)
    s3.store.remove(replace(file, key="other.json"), ARCHIVE)  # only to try the store
    answer(s3, "DeleteObject", 403, "AccessDenied")
    with pytest.raises(TransientError, match=r"a\.json: we may not delete it: grant s3:DeleteObject"):
        s3.store.remove(file, ARCHIVE)
    assert content(s3, "a.json") == BODY


@pytest.mark.parametrize("call", ["copy", "remove", "write"])
def test_the_store_is_away(s3: S3, tmp_path: Path, call: str) -> None:
    file = put(s3)

    def fail(request: Any, **_: object) -> None:
        raise EndpointConnectionError(endpoint_url=request.url)

    s3.client.meta.events.register("before-send.s3", fail)
    with pytest.raises(TransientError, match="trying again can help"):
        act(s3, call, file, tmp_path)


def act(s3: S3, call: str, file: SourceFile, folder: Path) -> object:
    if call == "copy":
        return s3.store.copy(file, [COPY], HASH)
    if call == "remove":
        return s3.store.remove(file, ARCHIVE)
    (folder / "report").write_bytes(BODY)
    s3.store.write(s3.bucket, "report.json", folder / "report")
    return None


# --- the local disk --------------------------------------------------------------------------------------------------


@pytest.fixture
def local(tmp_path: Path) -> tuple[LocalStore, SourceFile, Path]:
    """A store, a file, and where its copy may go."""
    path = tmp_path / "ä b+%.json"
    path.write_bytes(BODY)
    path.chmod(0o640)
    store = LocalStore()
    return store, store.describe("file", str(path)), tmp_path / ARCHIVE / "2026/01/02" / path.name


def test_local_files_move(local: tuple[LocalStore, SourceFile, Path]) -> None:
    store, file, to = local
    assert store.copy(file, [str(to)], HASH) == str(to)
    assert store.copy(file, [str(to)], HASH) == str(to)
    assert (to.read_bytes(), to.stat().st_mode & 0o777, list(to.parent.iterdir())) == (BODY, 0o640, [to])
    assert store.remove(file, ARCHIVE)
    assert store.remove(file, ARCHIVE)
    assert not Path(file.key).exists()
    assert store.copy(file, [str(to)], HASH) == str(to)


def test_a_taken_local_name_is_left_alone(local: tuple[LocalStore, SourceFile, Path]) -> None:
    store, file, to = local
    to.parent.mkdir(parents=True)
    to.write_bytes(b"another")
    second = to.with_name("second.json")
    assert store.copy(file, [str(to), str(second)], HASH) == str(second)
    assert (to.read_bytes(), second.read_bytes()) == (b"another", BODY)
    second.write_bytes(b"another, too")
    with pytest.raises(ConfigError, match="are taken"):
        store.copy(file, [str(to), str(second)], HASH)


def test_a_local_file_that_was_overwritten_stays(local: tuple[LocalStore, SourceFile, Path]) -> None:
    store, file, to = local
    Path(file.key).write_bytes(b"new")
    with pytest.raises(ObjectGone):
        store.copy(file, [str(to)], HASH)
    assert list(to.parent.iterdir()) == []
    assert not store.remove(file, ARCHIVE)
    assert Path(file.key).read_bytes() == b"new"


def test_a_local_file_is_copied_as_it_was_loaded(local: tuple[LocalStore, SourceFile, Path]) -> None:
    store, file, to = local
    status = Path(file.key).stat()
    Path(file.key).write_bytes(BODY.swapcase())
    os.utime(file.key, ns=(status.st_atime_ns, status.st_mtime_ns))  # other bytes, and nothing shows it
    with pytest.raises(ObjectGone, match="overwritten"):
        store.copy(file, [str(to)], HASH)
    assert list(to.parent.iterdir()) == []


def test_a_local_folder_that_cannot_be_made(local: tuple[LocalStore, SourceFile, Path]) -> None:
    store, file, to = local
    to.parents[3].write_bytes(b"a file where the folder should be")
    for call in (lambda: store.copy(file, [str(to)], HASH), lambda: store.write("file", str(to), Path(file.key))):
        with pytest.raises(TransientError, match="cannot be written"):
            call()
    assert Path(file.key).read_bytes() == BODY


def test_a_local_report(local: tuple[LocalStore, SourceFile, Path], tmp_path: Path) -> None:
    store, file, to = local
    store.write("file", str(to), Path(file.key))
    before = to.stat()
    store.write("file", str(to), Path(file.key))
    assert (to.read_bytes(), to.stat().st_ino) == (BODY, before.st_ino)
    Path(file.key).write_bytes(b"2")
    store.write("file", str(to), Path(file.key))
    assert to.read_bytes() == b"2"
