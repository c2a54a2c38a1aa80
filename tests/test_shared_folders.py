"""Folders that are not ours alone: nothing in them is waited for or followed, and nothing of ours is open to others."""

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ingest import unforeseen
from ingest.adapters.local import LocalStore
from ingest.disk import no_more_open_than, opened, private_folder
from ingest.errors import ConfigError, IngestError
from ingest.staging import staging_folder
from ingest.transfer import export
from ingest.warehouse.engines.duckdb import published as duckdb_published
from ingest.warehouse.engines.duckdb import snapshot as duckdb_snapshot
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.support import ROOT, World, lines, record
from tests.test_exactly_once import warehouse_at

pytestmark = pytest.mark.timeout(60)  # what waits for a pipe does so for ever


def other_kinds(path: Path) -> dict[str, Callable[[], object]]:
    """What anybody may put under a name, by what it is."""
    return {
        "a pipe": lambda: os.mkfifo(path),
        "a link": lambda: path.symlink_to("/etc/passwd"),
        "a link to nothing": lambda: path.symlink_to(path.parent / "nothing"),
        "a socket": lambda: socket.socket(socket.AF_UNIX).bind(str(path)),
        "a device": lambda: path.symlink_to("/dev/zero"),
        "a folder": path.mkdir,
    }


KINDS = [*other_kinds(Path())]


@pytest.mark.parametrize("kind", KINDS)
def test_only_plain_files_are_opened_and_at_once(tmp_path: Path, kind: str) -> None:
    other_kinds(tmp_path / "a")[kind]()
    with pytest.raises(OSError, match=r"plain file|a link"):
        opened(tmp_path / "a")


# --- what killed processes left --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_of_another_kind_is_left_alone(tmp_path: Path, kind: str) -> None:
    left = tmp_path / "landfall-left"
    left.mkdir()
    other_kinds(left / "owned")[kind]()
    with staging_folder(tmp_path):
        pass
    assert os.path.lexists(left / "owned")


@pytest.mark.parametrize("whose", ["another user's", "open to others", "a link"])
def test_what_is_not_ours_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    left = tmp_path / "landfall-left"
    at = tmp_path / "elsewhere" if whose == "a link" else left
    at.mkdir()
    (at / "owned").touch()
    if whose == "a link":
        left.symlink_to(at)
    if whose == "open to others":
        at.chmod(0o777)
    if whose == "another user's":
        monkeypatch.setattr("os.geteuid", lambda: 12_345)
    with staging_folder(tmp_path) as ours:
        assert ours.stat().st_mode & 0o777 == 0o700
    assert (at / "owned").exists()


def test_a_pipe_in_the_temporary_folder_holds_up_no_load(tmp_path: Path) -> None:
    """The whole command, as it was hung by this."""
    left = tmp_path / "tmp" / "landfall-left"
    left.mkdir(parents=True)
    os.mkfifo(left / "owned")
    (tmp_path / "a.json").write_bytes(lines(record("ann", 0, "x")))
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-m", "ingest", "load", "a.json"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr


def test_a_link_among_the_logs_of_errors_hides_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "landfall-error-a.log").symlink_to("nothing")
    assert f"The trace is in {tmp_path}/landfall-error-" in unforeseen.said(KeyError("x"))


# --- beside the warehouse --------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(warehouse_at(tmp_path / "w.duckdb"))
    world.bring("a.json", record("ann", 0, "x"), "no json")
    return world


def beside(world: World) -> Path:
    assert isinstance(world.warehouse, DuckDBWarehouse)
    return world.warehouse.path


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "a folder"])
@pytest.mark.parametrize("name", [".lock", ".wal"])
def test_what_is_beside_the_warehouse_is_not_waited_for(world: World, name: str, kind: str) -> None:
    path = beside(world).with_name(f"w.duckdb{name}")
    path.unlink(missing_ok=True)
    other_kinds(path)[kind]()
    with pytest.raises(ConfigError, match=r"w\.duckdb\.(lock|wal) can"):
        world.warehouse.files({})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [".published", ".published.new"])
def test_what_is_in_the_place_of_the_copy_is_not_waited_for(world: World, name: str, kind: str) -> None:
    if (name, kind) == (".published", "a folder"):  # a folder there is no doing of others, and is said
        return
    other_kinds(beside(world).with_name(f"w.duckdb{name}"))[kind]()
    with world.warehouse.published() as published:
        assert published.states(["one_off"]) == [("one_off", "loaded", 1)]


def modes(folder: Path) -> dict[str, int]:
    found = {}
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            found[str(path.relative_to(folder))] = path.stat().st_mode & 0o777
    return found


@pytest.fixture
def closed(world: World) -> Iterator[World]:
    """A warehouse that only its owner may read, of somebody who lets others read what he makes."""
    beside(world).chmod(0o600)
    before = os.umask(0o022)
    yield world
    assert os.umask(before) == 0o022


def open_to_others(folder: Path) -> set[str]:
    """What others may read of it: what is in a folder of our own they may not, whatever its mode."""
    found = modes(folder)
    closed = {name for name, mode in found.items() if not mode & 0o077}
    return {name for name in found if name not in closed and not closed & {*map(str, Path(name).parents)}}


def test_the_log_has_the_mode_of_the_warehouse(closed: World, tmp_path: Path) -> None:
    assert isinstance(closed.warehouse, DuckDBWarehouse)
    with closed.warehouse.writing() as connection:
        connection.execute("PRAGMA disable_checkpoint_on_shutdown; SET wal_autocheckpoint = '1TB'")
        connection.execute("UPDATE ledger SET attempts = 2")
    assert modes(tmp_path)["w.duckdb.wal"] == 0o600
    assert open_to_others(tmp_path) == set()


def test_what_does_not_fit_in_memory_is_ours_alone_and_gone_afterwards(closed: World, tmp_path: Path) -> None:
    assert isinstance(closed.warehouse, DuckDBWarehouse)
    with closed.warehouse.reading() as connection:
        connection.execute("SET memory_limit = '60MB'; SET threads = 1")
        connection.execute("SELECT range, hash(range) AS h FROM range(8_000_000) ORDER BY h").fetchone()
        spilled = [name for name in modes(tmp_path) if "duckdb_temp_storage" in name]
        assert spilled
        assert open_to_others(tmp_path) == set()
    assert [name for name in modes(tmp_path) if ".tmp-" in name] == []


def test_the_copy_for_pages_is_never_open(closed: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    for name in ("_copy_tables", "_make_of_these"):
        real = getattr(duckdb_published, name)

        def looked(*arguments: object, real: Callable[..., None] = real) -> None:
            real(*arguments)
            seen.update(open_to_others(tmp_path), {"looked"})

        monkeypatch.setattr(duckdb_published, name, looked)
    with closed.warehouse.published():
        pass
    assert seen == {"looked"}
    assert open_to_others(tmp_path) == set()
    assert modes(tmp_path)["w.duckdb.published"] == modes(tmp_path)["w.duckdb.published.lock"] == 0o600


def test_a_snapshot_is_never_open(closed: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = tmp_path / "to"
    to.mkdir()
    seen: set[str] = set()
    real = duckdb_snapshot._copy

    def looked(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        seen.update(open_to_others(to), {"looked"})

    monkeypatch.setattr(duckdb_snapshot, "_copy", looked)
    closed.warehouse.save(to / "saved.duckdb")
    assert (seen, modes(to)) == ({"looked"}, {"saved.duckdb": 0o600})


def test_copies_and_exports_are_no_more_open(closed: World, tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "INGEST_WAREHOUSE": f"duckdb:///{beside(closed)}"}
    (tmp_path / "to").mkdir()
    command = [sys.executable, "-m", "ingest", "copy", "--to", "duckdb:///to/copy.duckdb"]
    subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, check=True)
    export(closed.warehouse, tmp_path / "to" / "parquet", lambda _name, _rows: None)
    found = modes(tmp_path / "to")
    assert {name: mode for name, mode in found.items() if name != "parquet" and mode != 0o600} == {}
    assert (len(found), found["parquet"]) == (12, 0o700)


def test_who_may_read_the_warehouse_may_read_an_export(closed: World, tmp_path: Path) -> None:
    beside(closed).chmod(0o644)
    (tmp_path / "to").mkdir()
    export(closed.warehouse, tmp_path / "to" / "parquet", lambda _name, _rows: None)
    found = modes(tmp_path / "to")
    assert found.pop("parquet") == 0o755
    assert {mode for name, mode in found.items() if name.endswith(".parquet")} == {0o644}


def test_a_lock_follows_the_mode_of_its_warehouse(world: World, tmp_path: Path) -> None:
    for mode in (0o600, 0o640, 0o660):
        beside(world).chmod(mode)
        world.warehouse.files({})
        assert modes(tmp_path)["w.duckdb.lock"] == mode


def test_several_at_once_keep_the_mask_of_the_strictest() -> None:
    before = os.umask(0o022)
    inside, done = threading.Event(), threading.Event()

    def held() -> None:
        with no_more_open_than(0o600):
            inside.set()
            done.wait()

    other = threading.Thread(target=held)
    with no_more_open_than(0o640):
        other.start()
        inside.wait()
    assert os.umask(0o077) == 0o077  # the first one is over, the other is not
    done.set()
    other.join()
    assert os.umask(before) == 0o022


def test_a_disk_that_takes_no_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as raised, private_folder(tmp_path / "missing", "x-"):
        pass
    assert raised.value.errno == errno.ENOENT


# --- files on this machine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["check", "load"])
@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device"])
def test_a_path_that_is_no_file_is_said(tmp_path: Path, command: str, kind: str) -> None:
    other_kinds(tmp_path / "a.json")[kind]()
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "ingest", command, "a.json"], cwd=tmp_path, env=environ, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"a.json: this is a pipe, a socket or a device, and no file: send what it gives to" in done.stderr


@pytest.mark.parametrize("typed", [
    "ingest load - < sent", "ingest load /dev/stdin < sent", "cat sent | ingest load /dev/stdin",
    "ingest load <(cat sent)", "ingest load /dev/fd/7 7< sent", "ingest load /proc/self/fd/7 7< sent",
])  # fmt: skip
def test_what_was_opened_for_us_is_read(tmp_path: Path, typed: str) -> None:
    (tmp_path / "sent").write_bytes(lines(record("ann", 0, "x")))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    typed = typed.replace("ingest", f"{sys.executable} -m ingest")
    done = subprocess.run(["bash", "-c", typed], cwd=tmp_path, env=environ, capture_output=True, check=False)
    assert (done.returncode, b"1 loaded" in done.stdout) == (0, True), done.stderr


def test_a_file_that_became_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(lines(record("ann", 0, "x")))
    store = LocalStore()
    file = store.describe("file", str(path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(IngestError, match="no plain file"):
        list(store.read(file))


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_in_the_archive_that_is_no_file_is_taken(tmp_path: Path, kind: str) -> None:
    path, archived, other = tmp_path / "a.json", tmp_path / "archived.json", tmp_path / "other.json"
    path.write_bytes(b"{}\n")
    store = LocalStore()
    file = store.describe("file", str(path))
    other_kinds(archived)[kind]()
    assert store.copy(file, [str(archived), str(other)], file.etag) == str(other)
    assert other.read_bytes() == b"{}\n"
