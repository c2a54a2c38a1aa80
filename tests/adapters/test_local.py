"""LocalStore: a path, a folder, standard input; and a file that changes under our hands."""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from ingest.adapters.local import LocalStore
from ingest.adapters.stores import Stores
from ingest.core.source import SourceFile
from ingest.disk import opened
from ingest.errors import ConfigError, IngestError, ListingDoubted, ObjectGone, TransientError

BODY = b'{"_p":"ann","_t":1393344604,"plan":"pro"}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.json"
    path.write_bytes(BODY)
    os.utime(path, ns=(0, 1_393_344_604_123_456_789))
    return path


def content(store: LocalStore, file: SourceFile) -> bytes:
    return b"".join(store.read(file))


def test_a_file(file: Path) -> None:
    store = LocalStore()
    found = store.describe("file", str(file))
    assert (found.bucket, found.key, found.uri, found.size_bytes) == ("file", str(file), str(file), len(BODY))
    assert found.etag == sha256(BODY).hexdigest()
    assert found.last_modified == datetime.fromtimestamp(1_393_344_604, UTC) + timedelta(microseconds=123_456)
    assert content(store, found) == BODY


def test_the_key_is_the_absolute_path(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    (file.parent / "sub").mkdir()
    store = LocalStore()
    assert {store.describe("file", path).key for path in ("a.json", "./a.json", "sub/../a.json")} == {str(file)}
    assert [found.key for found in store.list("file", ".")] == [str(file)]


def test_a_folder_is_listed_whole(tmp_path: Path) -> None:
    for name in ("b.json", "a/1.json", "a/deep/2.json.gz", "notes.txt", "empty.json", "ä ö/3.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"" if "empty" in name else BODY)
    (tmp_path / "nowhere.json").symlink_to(tmp_path / "missing")
    (tmp_path / "link.json").symlink_to(tmp_path / "b.json")
    os.mkfifo(tmp_path / "fifo.json")
    store = LocalStore()
    listed = list(store.list("file", f"{tmp_path}/"))
    names = {str(Path(found.key).relative_to(tmp_path)) for found in listed}
    assert names == {
        "b.json", "a/1.json", "a/deep/2.json.gz", "notes.txt", "empty.json", "ä ö/3.json", "link.json"
    }  # fmt: skip
    assert all(content(store, found) == Path(found.key).read_bytes() for found in listed)


def test_a_prefix_may_be_one_file(file: Path) -> None:
    assert [found.key for found in LocalStore().list("file", str(file))] == [str(file)]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: path.write_bytes(BODY + BODY), id="longer"),
        pytest.param(lambda path: path.write_bytes(BODY.replace(b"pro", b"duo")), id="as long, changed later"),
        pytest.param(lambda path: path.unlink(), id="deleted"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="now a folder"),
    ],
)
def test_a_file_that_changed_since_it_was_listed(file: Path, change: object) -> None:
    store = LocalStore()
    found = store.describe("file", str(file))
    change(file)  # type: ignore[operator]
    with pytest.raises(TransientError, match=f"^{file}: "):
        content(store, found)


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "growing.json"
    path.write_bytes(BODY * 20_000)
    store = LocalStore()
    pieces = store.read(store.describe("file", str(path)))
    next(pieces)
    with path.open("ab") as more:
        more.write(BODY)
    with pytest.raises(ObjectGone, match="has changed"):
        list(pieces)


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        pytest.param("missing.json", ObjectGone, "no such file", id="missing"),
        pytest.param("missing/a.json", ObjectGone, "no such file", id="folder missing"),
        pytest.param("", IngestError, "folder", id="a folder"),
        pytest.param("a.json/b.json", TransientError, "cannot be read", id="below a file"),
    ],
)
def test_what_is_no_file(file: Path, name: str, error: type[IngestError], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        LocalStore().describe("file", str(file.parent / name))


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        list(LocalStore().list("file", str(tmp_path / "missing")))


def test_an_unreadable_file_does_not_hide_its_neighbours(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = file.parent / "secret.json"
    secret.write_bytes(BODY)

    def refuse(path: Path, **how: bool) -> int:  # root may read everything, so the mode bits prove nothing
        if path == secret:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, **how)

    monkeypatch.setattr("ingest.adapters.local.opened", refuse)
    store = LocalStore()
    with pytest.raises(TransientError, match="change its permissions"):
        store.describe("file", str(secret))
    readable, unreadable = store.list("file", str(file.parent))
    assert content(store, readable) == BODY
    with pytest.raises(TransientError, match="change its permissions"):
        content(store, unreadable)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.json"
    with open(name, "wb") as broken:  # noqa: PTH123 - pathlib has no bytes paths
        broken.write(BODY)
    with pytest.raises(IngestError, match="rename"):
        LocalStore().describe("file", os.fsdecode(name))


def test_a_name_that_is_no_text_holds_up_no_neighbour(file: Path) -> None:
    file.with_name(os.fsdecode(b"\xff.json")).write_bytes(b"{}")
    listing = LocalStore().list("file", f"{file.parent}/")
    assert next(listing).key == str(file)
    with pytest.raises(ListingDoubted, match="this file name is not UTF-8") as caught:
        list(listing)
    assert caught.value.cut


def test_standard_input_can_be_read_again() -> None:
    store = LocalStore(io.BytesIO(BODY * 10_000))
    found = store.describe("file", "-")
    assert (found.bucket, found.key, found.size_bytes) == ("file", "-", len(BODY) * 10_000)
    assert found.etag == sha256(BODY * 10_000).hexdigest()
    assert abs(datetime.now(UTC) - found.last_modified) < timedelta(minutes=1)
    assert store.describe("file", "-") is found
    assert content(store, found) == content(store, found) == BODY * 10_000


def test_a_pipe_is_kept_like_standard_input() -> None:
    """As a shell hands it in for <(…)."""
    end, begin = os.pipe()
    os.write(begin, BODY)
    os.close(begin)
    store = LocalStore()
    found = store.describe("file", f"/dev/fd/{end}")
    assert store.describe("file", f"/dev/fd/{end}") is found
    os.close(end)
    assert content(store, found) == content(store, found) == BODY


@pytest.mark.parametrize("way", ["receive", "write", "copy"])
def test_what_was_written_has_its_name_after_a_power_cut(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A name is on the disk once its folder is, and a new folder once the one above it is."""
    new = tmp_path / "new" / "er" / "x.json"
    kept: list[tuple[Path, bool]] = []

    def sync(handle: int) -> None:
        kept.append((Path(f"/proc/self/fd/{handle}").readlink(), new.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    store = LocalStore()
    for again in (False, True):
        kept.clear()
        if way == "receive":
            store.receive("file", str(new), [b"{}"])
        elif way == "write":
            store.write("file", str(new), file)
        else:
            store.copy(store.describe("file", str(file)), [str(new)], sha256(file.read_bytes()).hexdigest())
        if not again:
            assert {(new.parent, True), (new.parent.parent, True), (tmp_path, True)} <= set(kept)
        elif way != "write":
            assert (new.parent, True) in kept
            assert (tmp_path, True) not in kept


def test_stores_ask_the_store_of_the_bucket(file: Path) -> None:
    asked: list[str] = []

    class Fake:
        def list(self, bucket: str, prefix: str) -> Iterator[SourceFile]:
            asked.append(f"list {bucket}/{prefix}")
            return iter(())

        def describe(self, bucket: str, key: str) -> SourceFile:
            raise ObjectGone(f"{bucket}/{key}")

        def read(self, file: SourceFile) -> Iterator[bytes]:
            return iter([file.key.encode()])

        def copy(self, file: SourceFile, to_keys: Sequence[str], sha256: str) -> str:
            asked.append(f"copy {file.key} to {to_keys} {sha256}")
            return to_keys[0]

        def remove(self, file: SourceFile, own_prefix: str) -> bool:
            asked.append(f"remove {file.key} {own_prefix}")
            return True

        def write(self, bucket: str, key: str, content: Path) -> None:
            asked.append(f"write {bucket}/{key} {content.name}")

        def receive(self, bucket: str, key: str, pieces: Iterable[bytes]) -> None:
            asked.append(f"receive {bucket}/{key} {b''.join(pieces).decode()}")

    def open_s3() -> Fake:
        asked.append("opened")
        return Fake()

    stores = Stores(open_s3)
    found = stores.describe("file", str(file))
    assert b"".join(stores.read(found)) == BODY
    assert list(stores.list("file", str(file))) == [found]
    assert asked == []
    assert list(stores.list("acme", "landing/")) == []
    with pytest.raises(ObjectGone, match="acme/key"):
        stores.describe("acme", "key")
    elsewhere = SourceFile(bucket="acme", key="a", etag="e", last_modified=datetime.now(UTC), size_bytes=1)
    assert stores.copy(elsewhere, ["b"], "5") == "b"
    assert stores.remove(elsewhere, "archive/")
    stores.write("acme", "c", file)
    stores.receive("acme", "d", [b"x", b"y"])
    assert asked == [
        "opened", "list acme/landing/", "copy a to ['b'] 5", "remove a archive/", "write acme/c a.json",
        "receive acme/d xy",
    ]  # fmt: skip
