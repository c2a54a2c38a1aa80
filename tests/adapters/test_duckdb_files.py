"""What may stand where the warehouse should be, and who may do what with it: each a sentence, or it works."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from ingest.core.matching import IGNORED_IDENTITIES
from ingest.errors import ConfigError, IngestError
from ingest.warehouse.engines.duckdb.session import connect
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.support import ROOT, World, lines, record

ANOTHER_USER = 54_321


@pytest.fixture
def path(tmp_path: Path, empty_warehouse: Path) -> Path:
    return Path(shutil.copy(empty_warehouse, tmp_path / "warehouse.duckdb"))


def warehouse_at(path: Path) -> DuckDBWarehouse:
    return DuckDBWarehouse(path, lock_timeout_seconds=0.2, ignored_identities=IGNORED_IDENTITIES)


def read(warehouse: DuckDBWarehouse) -> object:
    return warehouse.files({})


def write(warehouse: DuckDBWarehouse) -> object:
    with warehouse.writing() as connection:
        return connection.execute("SELECT 1").fetchall()


both = pytest.mark.parametrize("use", [read, write])


def log_of(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def kill_after_commits(path: Path, files: int = 2) -> None:
    """What a load that is killed right after its commit leaves: the file as it was, and a log beside it."""
    script = f"""
import os, duckdb
connection = duckdb.connect({str(path)!r})
for number in range({files}):
    connection.execute("INSERT INTO polled_sources VALUES (?, now())", [str(number)])
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert log_of(path).stat().st_size


def polled(path: Path) -> int:
    with warehouse_at(path).reading() as connection:
        return int(connection.execute("SELECT count(*) FROM polled_sources").fetchall()[0][0])


# --- what is no warehouse --------------------------------------------------------------------------------------------


def sqlite(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")


def encrypted(path: Path) -> None:
    path.unlink()
    with connect() as connection:
        connection.execute("SET force_mbedtls_unsafe = true")
        connection.execute(f"ATTACH '{path}' AS locked (ENCRYPTION_KEY 'secret')")


def flipped(at: int) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)

    return flip


@both
@pytest.mark.parametrize(("make", "sentence"), [
    pytest.param(sqlite, "is an SQLite database. Name another file in INGEST_WAREHOUSE.", id="SQLite"),
    pytest.param(lambda path: path.write_bytes(os.urandom(5_000)), "is no DuckDB file. Name another", id="random"),
    pytest.param(lambda path: path.write_bytes(b"x"), "is no DuckDB file. Name another", id="a byte"),
    pytest.param(lambda path: os.truncate(path, 10_000), "put back a snapshot; the next poll", id="cut in its head"),
    pytest.param(lambda path: os.truncate(path, 200_000), "put back a snapshot; the next poll", id="cut"),
    pytest.param(flipped(12_400), "put back a snapshot; the next poll", id="a bit of its first block"),
    pytest.param(encrypted, "cannot be opened", id="encrypted"),
])  # fmt: skip
def test_what_is_no_warehouse_is_said_and_left_alone(
    path: Path, use: Callable[[DuckDBWarehouse], object], make: Callable[[Path], None], sentence: str
) -> None:
    make(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError) as said:
        use(warehouse_at(path))
    assert sentence in str(said.value)
    assert str(path) in str(said.value)
    assert "\n" not in str(said.value)
    assert path.read_bytes() == before


@both
@pytest.mark.parametrize(("where", "sentence"), [
    pytest.param("", "is a folder. Name a file in INGEST_WAREHOUSE.", id="a folder"),
    pytest.param("fifo", "is no file. Name a file", id="a pipe"),
    pytest.param("/dev/null", "is no file. Name a file", id="a device, which must not be removed as an empty file"),
    pytest.param("warehouse.duckdb/below", "Not a directory", id="below a file"),
    pytest.param("missing/below", "does not exist. Make it first.", id="a folder that is missing"),
    pytest.param("x" * 300, "File name too long", id="too long a name"),
    pytest.param("loop/below", "Too many levels of symbolic links", id="links in a circle"),
])  # fmt: skip
def test_where_no_warehouse_can_be(
    path: Path, use: Callable[[DuckDBWarehouse], object], where: str, sentence: str
) -> None:
    os.mkfifo(path.parent / "fifo")
    (path.parent / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=sentence):
        use(warehouse_at(path.parent / where))
    assert Path("/dev/null").exists()


def test_where_no_file_can_be_there_is_nothing_to_read_and_no_load() -> None:
    nowhere = warehouse_at(Path("/proc/warehouse.duckdb"))
    assert read(nowhere) == []
    with pytest.raises(ConfigError, match="nothing can be written there"):
        write(nowhere)


def test_a_block_that_is_damaged_is_said_when_it_is_read(tmp_path: Path) -> None:
    world = World(DuckDBWarehouse(tmp_path / "w.duckdb"))
    world.bring("1.json", body=b"".join(lines(record(f"p{n}", n, os.urandom(40).hex())) for n in range(20_000)))
    content = bytearray((tmp_path / "w.duckdb").read_bytes())
    block = 262_144
    for start in range(12_288 + block, len(content), block):  # the first one holds the list of tables
        content[start + 100] ^= 1
    (tmp_path / "w.duckdb").write_bytes(content)
    asked: list[Callable[[], object]] = [
        lambda: world.rows("SELECT * FROM command_rows"),
        lambda: world.warehouse.files({"file_id": ["x"]}),
        world.warehouse.disagreements,
    ]
    for ask in asked:
        with pytest.raises(IngestError, match=r"w.duckdb (could not be|cannot be)"):
            ask()


def test_a_database_of_another_program_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "theirs.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE events (a INT)")
    kill = (
        f"import os, duckdb; c = duckdb.connect({str(path)!r}); c.execute('INSERT INTO events VALUES (1)'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", kill], check=False)
    before = path.read_bytes(), log_of(path).read_bytes()
    for use in (read, write):
        with pytest.raises(ConfigError, match="is a database of another program, with events in it"):
            use(warehouse_at(path))
    assert (path.read_bytes(), log_of(path).read_bytes()) == before


def test_nothing_is_fetched() -> None:
    """What an engine lacks it would look for on the network; so all of ours are made in one place, which forbids it."""
    for setting in ("autoinstall_known_extensions", "autoload_known_extensions"):
        assert connect().execute(f"SELECT current_setting('{setting}')").fetchall() == [(False,)]
    made = [
        path.name
        for path in (ROOT / "ingest").rglob("*.py")
        for line in path.read_text().splitlines()
        if "duckdb.connect(" in line
    ]
    assert made == ["session.py"]


# --- its log ---------------------------------------------------------------------------------------------------------


def test_the_log_of_a_killed_load_is_read_and_taken_up(path: Path) -> None:
    kill_after_commits(path)
    assert polled(path) == 2
    assert log_of(path).exists()  # who reads leaves it
    write(warehouse_at(path))
    assert (polled(path), log_of(path).exists()) == (2, False)


@both
@pytest.mark.parametrize("damage", [
    pytest.param(lambda log: log.write_bytes(b"x" * 300), id="other bytes"),
    pytest.param(lambda log: log.write_bytes(bytes(log.stat().st_size)), id="zeros"),
    pytest.param(flipped(0), id="a bit of its beginning"),
    pytest.param(flipped(80), id="a bit of a commit"),
])  # fmt: skip
def test_a_damaged_log_is_said_with_the_way_out(
    path: Path, use: Callable[[DuckDBWarehouse], object], damage: Callable[[Path], None]
) -> None:
    """The engine itself would take some of these for no log at all, and what was committed for lost."""
    kill_after_commits(path)
    damage(log_of(path))
    before = path.read_bytes(), log_of(path).read_bytes()
    with pytest.raises(ConfigError, match=r"warehouse.duckdb.wal.* move \S+/warehouse.duckdb.wal away"):
        use(warehouse_at(path))
    assert (path.read_bytes(), log_of(path).read_bytes()) == before
    log_of(path).rename(path.with_name("away"))
    assert polled(path) == 0


@pytest.mark.parametrize("kept", [0, 3])
def test_a_log_that_was_not_even_begun_is_none(path: Path, kept: int) -> None:
    kill_after_commits(path)
    os.truncate(log_of(path), kept)
    assert polled(path) == 0
    write(warehouse_at(path))


def test_a_log_that_ends_in_a_commit_holds_those_before(path: Path) -> None:
    """As a kill leaves it that comes while a commit is written."""
    kill_after_commits(path)
    os.truncate(log_of(path), log_of(path).stat().st_size - 1)
    assert polled(path) == 1


# --- who may only read -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that another user can look into, unlike the tests' own."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    for one in (made, *made.rglob("*")):
        one.chmod(0o755)
    shutil.rmtree(made)


def as_reader(folder: Path, *arguments: str, hidden: str | None = None) -> "subprocess.CompletedProcess[bytes]":
    """`ingest` of a user who may read what is there, and write nothing of it."""
    for one in folder.rglob("*"):
        one.chmod(0o555 if one.is_dir() else 0o444)
    folder.chmod(0o555)
    if hidden:
        (folder / hidden).chmod(0)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "INGEST_WAREHOUSE": f"duckdb:///{folder}/warehouse.duckdb"}
    another = {"user": ANOTHER_USER, "group": ANOTHER_USER, "extra_groups": []} if os.geteuid() == 0 else {}
    command = [sys.executable, "-m", "ingest", *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, check=False, **another)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def loaded(folder: Path) -> Path:
    world = World(DuckDBWarehouse(folder / "warehouse.duckdb"))
    world.bring("1.json", record("ann", 0, "x"), "no json")
    return folder


READING = [
    ("sql", "select count(*) as n from people"), ("files",), ("failures", "s3://bucket/1.json"), ("reconcile",),
]  # fmt: skip
WRITING = [("load", "a.json"), ("load", "a.json", "--force"), ("undo", "s3://bucket/1.json")]


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
@pytest.mark.parametrize("without", ["warehouse.duckdb.lock", None])
def test_who_may_only_read_reads(loaded: Path, arguments: tuple[str, ...], without: str | None) -> None:
    if without:
        (loaded / without).unlink()
    ran = as_reader(loaded, *arguments, "--json")
    assert (ran.returncode, ran.stdout[:1] in (b"{", b"[")) == (0, True), ran.stderr


@pytest.mark.parametrize("arguments", WRITING, ids=" ".join)
@pytest.mark.parametrize("without", ["warehouse.duckdb.lock", None])
def test_who_may_only_read_is_told_so(loaded: Path, arguments: tuple[str, ...], without: str | None) -> None:
    (loaded / "a.json").write_bytes(lines(record("eve", 0, "x")))
    if without:
        (loaded / without).unlink()
    before = (loaded / "warehouse.duckdb").read_bytes()
    ran = as_reader(loaded, *arguments)
    assert (ran.returncode, b"may only be read by this user" in ran.stderr) == (2, True), ran.stderr
    assert (loaded / "warehouse.duckdb").read_bytes() == before


def test_who_may_only_read_exports_to_another_place(loaded: Path) -> None:
    with tempfile.TemporaryDirectory() as elsewhere:
        Path(elsewhere).chmod(0o777)
        ran = as_reader(loaded, "export", "--to", f"{elsewhere}/export", "--json")
        assert ran.returncode == 0, ran.stderr
        assert (Path(elsewhere) / "export/people.parquet").exists()


def test_who_may_only_read_sees_what_a_killed_load_committed(loaded: Path) -> None:
    kill_after_commits(loaded / "warehouse.duckdb")
    ran = as_reader(loaded, "sql", "select count(*) as n from polled_sources", "--json")
    assert (ran.returncode, b'"n": 2' in ran.stdout) == (0, True), ran.stderr


def test_who_may_only_read_need_not_know_the_settings_of_who_loads(loaded: Path) -> None:
    """Persons are then those that they were by the settings of the last load."""
    (loaded / "ingest.toml").write_text('[[source]]\nname = "web"\nbucket = "acme"\nmatch = "exact"\n')
    assert as_reader(loaded, "files").returncode == 0


def older(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE schema_version SET views = 'older'")


def test_an_older_one_would_have_to_be_changed_first_and_that_is_said(loaded: Path) -> None:
    older(loaded / "warehouse.duckdb")
    ran = as_reader(loaded, "files")
    assert (ran.returncode, b"is not of this version of Landfall" in ran.stderr) == (2, True), ran.stderr


@pytest.mark.parametrize("change", [
    pytest.param(Path.unlink, id="none"),
    pytest.param(lambda path: path.write_bytes(b""), id="one that was hardly begun"),
])  # fmt: skip
def test_who_reads_what_is_not_made_yet_finds_nothing_and_is_told(loaded: Path, change: Callable[[Path], None]) -> None:
    change(loaded / "warehouse.duckdb")
    ran = as_reader(loaded, "files", "--json")
    assert (ran.returncode, json.loads(ran.stdout), b"(not made yet)" in ran.stderr) == (0, {"files": []}, True)


@pytest.mark.parametrize("hidden", ["warehouse.duckdb", "warehouse.duckdb.wal"])
def test_who_may_not_even_read_is_told_so(loaded: Path, hidden: str) -> None:
    kill_after_commits(loaded / "warehouse.duckdb")
    ran = as_reader(loaded, "files", hidden=hidden)
    assert (ran.returncode, f"{hidden} ".encode() in ran.stderr, b"Traceback" in ran.stderr) == (2, True, False)


def test_a_warehouse_that_could_not_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    """A file of a few bytes, from a full disk, would be taken for a damaged warehouse for ever."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))"
    script = f"{limit}; from ingest.cli import main; main()"
    path = tmp_path / "warehouse.duckdb"
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "INGEST_WAREHOUSE": f"duckdb:///{path}"}
    (tmp_path / "a.json").write_bytes(lines(record("ann", 0, "x")))
    done = subprocess.run(
        [sys.executable, "-c", script, "load", "a.json"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert not path.exists()
    assert read(warehouse_at(path)) == []
