"""A warehouse that is moved: everything arrives, or nothing does."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingest import transfer
from ingest.core.matching import IGNORED_IDENTITIES
from ingest.errors import IngestError, TransientError
from ingest.ports import Audit, Warehouse
from ingest.settings import Source
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests import postgres
from tests.conftest import S3
from tests.support import ROOT, TABLES, World, alias, everything, put, record, rows

HOSTILE = 'it\'s "quoted"; DROP TABLE ledger; -- \u202e\\ é 🎈'
INNER = ("failed_line_rows", "person_links", "people_spaces", "history")


def silent(_name: str, _rows: int) -> None:
    pass


def warehouse_in(folder: Path, name: str = "warehouse.duckdb") -> DuckDBWarehouse:
    folder.mkdir(exist_ok=True)
    return DuckDBWarehouse(folder / name, ignored_identities=IGNORED_IDENTITIES, lock_timeout_seconds=1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A warehouse with something in every table, in a folder with a hostile name."""
    world = World(warehouse_in(tmp_path / 'it\'s a "source"; --'), [Source(name="web", bucket="bucket")])
    first = record("Ann", 0, "Paid", price=1)
    world.bring(
        "9.json", first, alias("Ann", "bob", 1), alias("bob", "cy", 2), "no json", b"\xff\x00 raw", source="web"
    )
    world.bring("10.json", first, record("cy", 3, HOSTILE, **{HOSTILE: HOSTILE}), put("dan", 4, a="1"), source="web")
    world.bring(f"{HOSTILE}.json", '{"_p":"eve","_t":1393344603,"_n":"x","n":1.10,"big":123456789012345678901}')
    world.store.broken["b.json"] = "it broke off"
    world.bring("b.json", record("ann", 9, "x"), source="web")
    with world.warehouse.writing() as connection:  # type: ignore[attr-defined]
        connection.execute("INSERT INTO history VALUES ('f', 'undo', now(), 'me', ?, NULL)", [HOSTILE])
    return world


@pytest.fixture
def target(tmp_path: Path) -> DuckDBWarehouse:
    return warehouse_in(tmp_path / "it's the target", 'a "b".duckdb')


@pytest.fixture(params=["duckdb", "postgres"])
def any_target(request: pytest.FixtureRequest, target: DuckDBWarehouse) -> Warehouse:
    if request.param == "duckdb":
        return target
    return postgres.warehouse(request.getfixturevalue("postgres_server").new())


def shown(warehouse: Any) -> Mapping[str, Any]:
    return everything(warehouse, tables=(*TABLES, *INNER, "accounts", "full_rows"))


def is_empty(warehouse: Warehouse) -> bool:
    with warehouse.tables() as tables:
        return not any(reader.read_all().num_rows for _, reader in tables)


# --- copy ------------------------------------------------------------------------------------------------------------


def test_a_copy_shows_the_same(world: World, any_target: Warehouse) -> None:
    told: list[tuple[str, int]] = []
    copied = transfer.copy(world.warehouse, any_target, lambda name, more: told.append((name, more)))
    before = shown(world.warehouse)
    assert all(before[name] for name in before if name != "accounts")
    assert shown(any_target) == before
    for volatile in ("SELECT * FROM ledger ORDER BY file_no", "SELECT command_id, is_first, file_no FROM full_rows"):
        assert sorted(map(repr, rows(any_target, volatile))) == sorted(map(repr, rows(world.warehouse, volatile)))
    assert {name: more for name, more in copied.items() if more} == dict(told)
    assert (copied["command_rows"], copied["failed_line_rows"], copied["ledger"]) == (7, 2, 4)


def test_tables_are_given_in_types_that_every_engine_knows(world: World) -> None:
    plain = {pa.string(), pa.int32(), pa.int64(), pa.bool_(), pa.binary(), pa.timestamp("us", "UTC")}
    with world.warehouse.tables() as tables:
        found = {
            field.type.value_type if pa.types.is_list(field.type) else field.type
            for _, reader in tables
            for field in reader.read_all().schema
        }
    assert found <= plain


def test_rows_keep_their_order(world: World, target: DuckDBWarehouse) -> None:
    world.bring("many.json", *(record("ann", n, f"e{n}") for n in range(5000)))
    transfer.copy(world.warehouse, target, silent)
    sql = "SELECT file_no, line, item_no FROM command_rows"
    assert rows(target, sql) == rows(world.warehouse, sql)


def test_a_poll_of_the_copy_loads_nothing_and_goes_on(world: World, any_target: Warehouse) -> None:
    transfer.copy(world.warehouse, any_target, silent)
    files = [file for file, _ in world.store.objects.values() if file.key != "b.json"]
    copied = World(any_target, world.sources, world.store, _tick=100)
    assert any_target.unseen(files, files[0].last_modified) == []
    before = shown(any_target)
    assert all(result.already for result in copied.load(*files))
    assert shown(any_target) == before
    # What is loaded next does not take the number of another file, and knows the facts and persons that were there.
    new = copied.bring("new.json", record("Ann", 0, "Paid", price=1), alias("cy", "zoe"), record("zoe", 7, "x"))
    assert (new.state, new.counts.duplicates) == ("loaded", 1)
    assert (
        copied.count("ledger") == len({row["file_no"] for row in rows(any_target, "SELECT file_no FROM ledger")}) == 5
    )
    assert rows(any_target, "SELECT DISTINCT person_id FROM events WHERE person IN ('Ann', 'cy', 'zoe')") == [
        {"person_id": "ann"}
    ]
    # The broken file is tried again, as from the source.
    world.store.broken.clear()
    (retried,) = copied.load(world.store.objects["bucket", "b.json"][0])
    assert retried.state == "loaded"


def test_a_copy_comes_back_from_a_server_as_it_was(
    world: World, target: DuckDBWarehouse, postgres_server: postgres.Server
) -> None:
    between = postgres.warehouse(postgres_server.new())
    transfer.copy(world.warehouse, between, silent)
    before = shown(between)
    told = list[str]()
    assert transfer.copy(world.warehouse, between, silent, told.append)["ledger"] == world.count("ledger")
    assert told == [f"{between.name} holds a complete copy of this warehouse already: nothing is left to be done."]
    assert shown(between) == before
    transfer.copy(between, target, silent)
    assert shown(target) == shown(world.warehouse)
    assert between.save(target.path.with_name("snapshot.duckdb"))[1] == 4
    assert shown(warehouse_in(target.path.parent, "snapshot.duckdb")) == before


def test_a_new_warehouse_is_copied_too(tmp_path: Path, target: DuckDBWarehouse) -> None:
    transfer.copy(warehouse_in(tmp_path), target, silent)
    assert is_empty(target)
    assert World(target).bring("a.json", record("ann", 0, "x")).state == "loaded"


def test_a_target_that_is_not_empty_is_refused(world: World, target: DuckDBWarehouse) -> None:
    World(target).bring("other.json", record("zoe", 0, "x"))
    before, size = shown(target), target.path.read_bytes()
    with pytest.raises(IngestError, match="is not empty"):
        transfer.copy(world.warehouse, target, silent)
    assert (shown(target), target.path.read_bytes()) == (before, size)


def test_a_file_of_another_program_is_left_alone(world: World, target: DuckDBWarehouse) -> None:
    with duckdb.connect(str(target.path)) as connection:
        connection.execute('CREATE TABLE "my ""table" AS SELECT 1 AS x')
    before = target.path.read_bytes()
    with pytest.raises(IngestError, match="is a database of another program"):
        transfer.copy(world.warehouse, target, silent)
    assert target.path.read_bytes() == before


def test_who_copies_again_is_told_whether_it_was_done(world: World, target: DuckDBWarehouse) -> None:
    transfer.copy(world.warehouse, target, silent)
    told = list[str]()
    transfer.copy(world.warehouse, target, silent, told.append)
    assert "holds a complete copy of this warehouse already" in "".join(told)
    ((file_id,),) = ([row["file_id"]] for row in world.rows("SELECT file_id FROM ledger WHERE key = '10.json'"))
    world.warehouse.undo([file_id], Audit("tester"))
    with pytest.raises(
        IngestError, match=r"no copy of this warehouse as it is now \(for one, command_rows has 7 rows there"
    ):
        transfer.copy(world.warehouse, target, silent)


def test_a_table_that_is_not_ours_is_named(world: World, target: DuckDBWarehouse) -> None:
    with duckdb.connect(str(world.warehouse.path)) as connection:  # type: ignore[attr-defined]
        connection.execute("CREATE TABLE mine AS SELECT 1 AS x")
    with pytest.raises(IngestError, match="table mine is not one of"):
        transfer.copy(world.warehouse, target, silent)
    assert is_empty(target)


def test_a_warehouse_is_not_copied_onto_itself(world: World) -> None:
    before = shown(world.warehouse)
    with pytest.raises(IngestError, match="is the warehouse that would be copied"):
        transfer.copy(world.warehouse, world.warehouse, silent)
    assert shown(world.warehouse) == before


class Failing:
    """A session whose `left`-th statement from now fails."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, left: list[int], error: Exception) -> None:
        self.connection, self.left, self.error = connection, left, error

    def execute(self, *arguments: Any) -> duckdb.DuckDBPyConnection:
        self.left[0] -= 1
        if self.left[0] == 0:
            raise self.error
        # The statement names a variable of its caller, which the engine does not look for beyond one frame.
        some_rows = sys._getframe(1).f_locals.get("some_rows")  # noqa: F841
        return self.connection.execute(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("error", "raised"), [
    pytest.param(duckdb.IOException("disk full"), TransientError, id="disk"),
    pytest.param(duckdb.ConstraintException("refused"), IngestError, id="refused"),
    pytest.param(KeyboardInterrupt(), KeyboardInterrupt, id="ctrl-c"),
])  # fmt: skip
def test_a_copy_that_breaks_off_anywhere_leaves_nothing(
    world: World, target: DuckDBWarehouse, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception]
) -> None:
    with target.writing():
        pass
    writing = DuckDBWarehouse.writing
    left = [0]

    @contextmanager
    def failing(self: DuckDBWarehouse) -> Iterator[Any]:
        with writing(self) as connection:
            yield Failing(connection, left, error)

    monkeypatch.setattr(DuckDBWarehouse, "writing", failing)
    for step in range(1, 100):
        left[0] = step
        try:
            transfer.copy(world.warehouse, target, silent)
        except raised:
            assert is_empty(target), step
        else:
            break
    assert step > 2 * len(INNER)
    assert shown(target) == shown(world.warehouse)


def test_a_source_that_breaks_off_leaves_nothing(world: World, target: DuckDBWarehouse) -> None:
    class Broken(DuckDBWarehouse):
        @contextmanager
        def tables(self) -> Iterator[Any]:
            def batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
                yield from reader
                raise OSError("the disk went away")

            with super().tables() as tables:
                yield ((n, pa.RecordBatchReader.from_batches(r.schema, batches(r))) for n, r in tables)

    with pytest.raises(TransientError, match="the disk went away"):
        transfer.copy(Broken(world.warehouse.path), target, silent)  # type: ignore[attr-defined]
    assert is_empty(target)


def test_a_copy_that_is_killed_leaves_nothing(world: World, target: DuckDBWarehouse) -> None:
    child = os.fork()
    if child == 0:
        transfer.copy(world.warehouse, target, lambda name, _: os._exit(9) if name == "ledger" else None)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert is_empty(target)
    transfer.copy(world.warehouse, target, silent)
    assert shown(target) == shown(world.warehouse)


def test_long_lines_go_in_pieces() -> None:
    batch = pa.record_batch({"raw": ["x" * (1 << 20)] * 40})
    reader = pa.RecordBatchReader.from_batches(batch.schema, [batch, batch.slice(0, 1), batch.slice(0, 0)])
    pieces = list(transfer.gathered(reader))
    assert sum(piece.num_rows for piece in pieces) == 41
    assert max(piece.num_rows for piece in pieces) <= 32


# --- export ----------------------------------------------------------------------------------------------------------


def test_an_export_is_read_by_others(world: World, tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE.replace("/", "")
    exported = transfer.export(world.warehouse, folder, silent)
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.parquet" for name in transfer.EXPORTED)
    for name in transfer.EXPORTED:
        path = folder / f"{name}.parquet"
        found = pq.read_table(path)
        here = rows(world.warehouse, f"SELECT * FROM {name}")
        assert found.num_rows == exported[name] == len(here)
        assert sorted(map(repr, found.to_pylist())) == sorted(map(repr, here))
        with duckdb.connect() as connection:
            file = str(path).replace("'", "''")
            types = dict(
                connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE FROM '{file}')").fetchall()
            )
            assert connection.execute(f"SELECT count(*) FROM '{file}'").fetchall() == [(len(here),)]
        assert types.get("command_id", "VARCHAR") == "VARCHAR"
        assert types.get("properties", "VARCHAR") == types.get("kind", "VARCHAR") == "VARCHAR"
        assert types.get("occurred_at", "TIMESTAMP WITH TIME ZONE") == "TIMESTAMP WITH TIME ZONE"
        assert {f.type for f in found.schema if pa.types.is_timestamp(f.type)} <= {pa.timestamp("us", "UTC")}
        compressions = {
            pq.ParquetFile(path).metadata.row_group(n).column(0).compression
            for n in range(pq.ParquetFile(path).metadata.num_row_groups)
        }
        assert compressions <= {"ZSTD"}
    (annotation,) = {
        pq.ParquetFile(folder / "events.parquet").schema.column(n).logical_type.type
        for n, name in enumerate(pq.ParquetFile(folder / "events.parquet").schema.names)
        if name == "command_id"
    }
    assert annotation == "STRING"  # Spark refuses UUID


def test_an_export_of_some_tables(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    transfer.export(world.warehouse, folder, silent)
    assert transfer.export(world.warehouse, folder, silent, tables=["people", "events", "people"]) == {
        "events": 3, "people": 3,
    }  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["events.parquet", "people.parquet"]  # of one moment
    before = contents(folder)
    with pytest.raises(IngestError, match=r"There is no table nope to export. Known: ledger, commands"):
        transfer.export(world.warehouse, folder, silent, tables=["events", "nope"])
    assert contents(folder) == before


def marker(s3: S3) -> Any:
    return json.loads(s3.client.get_object(Bucket=s3.bucket, Key="bi/export.manifest")["Body"].read())


def to_s3(world: World, s3: S3, tmp_path: Path, progress: Any = silent, **more: Any) -> dict[str, int]:
    aside = tmp_path / "aside"
    aside.mkdir(exist_ok=True)
    return transfer.export_to_store(world.warehouse, s3.store, s3.bucket, "bi/", aside, progress, **more)


def test_an_export_to_a_bucket_says_that_it_is_complete(world: World, tmp_path: Path, s3: S3) -> None:
    rows = to_s3(world, s3, tmp_path)
    told = marker(s3)
    assert (told["complete"], list(told["tables"])) == (True, list(transfer.EXPORTED))
    for name, of in told["tables"].items():
        body = s3.client.get_object(Bucket=s3.bucket, Key=f"bi/{of['object']}")["Body"].read()
        assert (len(body), sha256(body).hexdigest()) == (of["size_bytes"], of["sha256"])
        assert pq.read_table(pa.BufferReader(body)).num_rows == of["rows"] == rows[name]
    again = to_s3(world, s3, tmp_path, tables=["events"])
    assert (again, list(marker(s3)["tables"])) == ({"events": 3}, ["events"])
    assert marker(s3)["export"] != told["export"]


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, 5))
def test_an_export_to_a_bucket_that_breaks_off_is_not_complete(
    world: World, tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Whatever is put last, of marker, two tables, marker."""
    to_s3(world, s3, tmp_path)
    before, receive, puts = marker(s3), s3.store.receive, []

    def failing(bucket: str, key: str, pieces: Any) -> None:
        puts.append(key)
        if len(puts) == step:
            raise TransientError("the store went away")
        receive(bucket, key, pieces)

    monkeypatch.setattr(s3.store, "receive", failing)
    with pytest.raises(TransientError, match="went away"):
        to_s3(world, s3, tmp_path, tables=["events", "people"])
    assert puts[0] == "bi/export.manifest"
    assert marker(s3) == before if step == 1 else not marker(s3)["complete"]


def test_a_warehouse_that_breaks_off_leaves_the_export_in_a_bucket(world: World, tmp_path: Path, s3: S3) -> None:
    to_s3(world, s3, tmp_path)
    before = marker(s3)

    def full(name: str, _rows: int) -> None:
        raise OSError(28, f"No space left on device for {name}")

    with pytest.raises(OSError, match="No space"):
        to_s3(world, s3, tmp_path, full)
    assert marker(s3) == before


def test_a_former_export_is_replaced_and_anything_else_refused(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    transfer.export(world.warehouse, folder, silent)
    world.bring("more.json", record("ann", 5, "x"))
    assert transfer.export(world.warehouse, folder, silent)["ledger"] == 5
    assert pq.read_metadata(folder / "ledger.parquet").num_rows == 5
    (folder / "mine.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(IngestError, match=r"something else than an export \('mine.txt'\)"):
        transfer.export(world.warehouse, folder, silent)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_an_export_that_breaks_off_leaves_the_former_one(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    transfer.export(world.warehouse, folder, silent)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    world.bring("more.json", record("ann", 5, "x"))

    def full(name: str, _rows: int) -> None:
        if name == "people":
            raise OSError(28, "No space left on device")

    with pytest.raises(IngestError, match="No space left"):
        transfer.export(world.warehouse, folder, full)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    child = os.fork()
    if child == 0:
        transfer.export(world.warehouse, folder, lambda name, _: os._exit(9) if name == "people" else None)
        os._exit(0)
    os.waitpid(child, 0)
    assert {path.name: path.read_bytes() for path in folder.rglob("*.parquet")} == before  # hidden ones are found, too
    notices: list[str] = []
    assert transfer.export(world.warehouse, folder, silent, notices.append)["ledger"] == 5
    assert notices == [f"{folder / '.unfinished'} was left by an export that was stopped: it is removed."]
    assert len(list(folder.iterdir())) == len(transfer.EXPORTED)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.slow
def test_an_export_that_fails_at_any_rename_leaves_the_former_one(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, replaced, left = tmp_path / "out", Path.replace, [0]
    transfer.export(world.warehouse, folder, silent)
    before, of_former = contents(folder), {path.stat().st_ino for path in folder.iterdir()}
    world.bring("more.json", record("ann", 5, "x"))

    def failing(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] == 0:
            raise PermissionError(1, "Operation not permitted")
        moved = replaced(self, target)
        there = {path.stat().st_ino for path in folder.iterdir() if path.is_file()}
        assert there <= of_former or not there & of_former  # never some of these beside some of those
        return moved

    monkeypatch.setattr(Path, "replace", failing)
    for step in range(1, 2 * len(transfer.EXPORTED) + 2):
        left[0] = step
        with pytest.raises(IngestError, match=r"is as it was before: .*Operation not permitted"):
            transfer.export(world.warehouse, folder, silent)
        assert contents(folder) == before
        assert len(list(folder.iterdir())) == len(before)
    assert transfer.export(world.warehouse, folder, silent)["ledger"] == 5
    assert contents(folder).keys() == before.keys()
    assert len(list(folder.iterdir())) == len(before)


@pytest.mark.slow
@pytest.mark.parametrize("last", [1, 5, 9, 10, 14, 18, 19])
def test_an_export_that_is_killed_at_a_rename_is_made_up_for(world: World, tmp_path: Path, last: int) -> None:
    folder, replaced, renames = tmp_path / "out", Path.replace, list[Path]()
    transfer.export(world.warehouse, folder, silent)
    before = contents(folder)
    world.bring("more.json", record("ann", 5, "x"))

    def dying(self: Path, target: Path) -> Path:
        moved = replaced(self, target)
        renames.append(self)
        return os._exit(9) if len(renames) == last else moved

    def full(_name: str, _rows: int) -> None:
        raise OSError(28, "No space left on device")

    child = os.fork()
    if child == 0:
        Path.replace = dying  # type: ignore[method-assign,assignment]
        transfer.export(world.warehouse, folder, silent)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not [path for path in folder.rglob("*.parquet") if path.parent != folder]
    with pytest.raises(IngestError, match="is as it was before"):
        transfer.export(world.warehouse, folder, full)
    assert (contents(folder) == before) == (last < 19)  # the last one: the new export is there
    assert len(list(folder.iterdir())) == len(before)


@pytest.mark.slow
def test_an_export_shows_one_moment_and_is_alone(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, refused = transfer._write, list[type[Exception]]()

    def meddle(warehouse: Warehouse, name: str, *more: Any) -> int:
        if name == "commands":  # no query is at work now
            for attempt in (
                lambda: world.bring("meanwhile.json", record("ann", 5, "x")),
                lambda: transfer.export(world.warehouse, tmp_path / "out", silent),
            ):
                try:
                    attempt()
                except IngestError as error:
                    refused.append(type(error))
        return write(warehouse, name, *more)

    monkeypatch.setattr(transfer, "_write", meddle)
    transfer.export(world.warehouse, tmp_path / "out", silent)
    assert refused == [TransientError, IngestError]


# --- the command line ------------------------------------------------------------------------------------------------


def ingest(world: World, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environ = os.environ | {
        "INGEST_WAREHOUSE": f"duckdb:///{world.warehouse.path}",  # type: ignore[attr-defined]
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "ingest", *arguments]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, check=False)


@pytest.mark.slow
def test_the_commands(world: World, tmp_path: Path) -> None:
    ran = ingest(world, tmp_path, "copy", "--to", "duckdb:///copy.duckdb", "--json")
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["to"]) == (0, f"duckdb:///{tmp_path}/copy.duckdb")
    assert (told["tables"]["ledger"], told["tables"]["command_rows"]) == (4, 7)
    assert shown(warehouse_in(tmp_path, "copy.duckdb")) == shown(world.warehouse)

    ran = ingest(world, tmp_path, "export", "--to", "out", "--json")
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["to"], list(told["tables"])) == (0, "out", list(transfer.EXPORTED))
    assert ingest(world, tmp_path, "export", "--to", "out").stdout.startswith(b"out: ")


@pytest.mark.slow
def test_the_command_exports_to_a_bucket(world: World, tmp_path: Path, s3: S3) -> None:
    ran = ingest(world, tmp_path, "export", "--to", f"s3://{s3.bucket}/bi/", "--table", "events", "--json")
    told = json.loads(ran.stdout)
    assert (ran.returncode, told) == (0, {"to": f"s3://{s3.bucket}/bi/", "tables": {"events": 3}})
    assert sorted(one["Key"] for one in s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]) == [
        "bi/events.parquet", "bi/export.manifest",
    ]  # fmt: skip
    (tmp_path / "ingest.toml").write_text(f'[[source]]\nname = "web"\nbucket = "{s3.bucket}"\nprefix = "in/"\n')
    for address, said in (
        (f"s3://{s3.bucket}/bi", f"Write s3://{s3.bucket}/bi/ (with a slash)"),
        (f"s3://{s3.bucket}/in/bi/", "lies in the landing of the source web"),
        ("s3://no-such-bucket-anywhere/bi/", "no-such-bucket-anywhere"),
    ):
        ran = ingest(world, tmp_path, "export", "--to", address)
        assert (ran.returncode, said in ran.stderr.decode()) == (2, True), ran.stderr


@pytest.mark.parametrize(("arguments", "said"), [
    pytest.param(("export", "--to", "out", "--table", "nope"), "There is no table nope to export", id="no such table"),
    pytest.param(("copy",), "Missing option '--to'", id="nowhere"),
    pytest.param(("copy", "--to", "duckdb:///no/where.duckdb"), "does not exist", id="no such folder"),
    pytest.param(("copy", "--to", "postgresql://me:hunter2@127.0.0.1:1/db"), "does not answer", id="password"),
    pytest.param(("copy", "--to", "hunter2"), "--to: no warehouse is known", id="no URL"),
    pytest.param(("copy", "--to", "duckdb:///link.duckdb"), "would be copied", id="itself through a link"),
    pytest.param(("export", "--to", "no/where"), "No such file", id="no such folder to export to"),
    pytest.param(("export", "--to", "a-file"), "a-file is a file. Name a folder.", id="a file"),
])  # fmt: skip
def test_what_cannot_be_done_is_said(world: World, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "link.duckdb").symlink_to(world.warehouse.path)  # type: ignore[attr-defined]
    (tmp_path / "a-file").write_text("")
    ran = ingest(world, tmp_path, *arguments)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert said in ran.stderr.decode()
    assert b"hunter2" not in ran.stderr
    assert b"Traceback" not in ran.stderr
