"""What only a server meets: loaders on many hosts at once, connections that are lost, kill -9 of either side."""

import os
import random
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from adbc_driver_manager import OperationalError, dbapi

from ingest.errors import ConfigError, IngestError, TransientError
from ingest.ports import Audit, FilesWanted, QueryLimits, Staging
from ingest.redrive import redrive
from ingest.warehouse.engines.postgres import applying, session
from ingest.warehouse.engines.postgres.look import look
from ingest.warehouse.engines.postgres.session import PostgresSession, _make
from ingest.warehouse.engines.postgres.warehouse import PostgresWarehouse
from tests import postgres
from tests.loaders import FILES, is_whole, loader, shared_file
from tests.postgres import Server
from tests.support import ROOT, World, alias, everything, loads_that_meet_everything, record
from tests.test_exactly_once import broken_promises

KILLS = 12  # of clients, and one of the server


@pytest.fixture
def empty(postgres_server: Server) -> PostgresWarehouse:
    return postgres.warehouse(postgres_server.new())


# --- many loaders ----------------------------------------------------------------------------------------------------


def test_loaders_at_once_on_the_same_files_and_facts(postgres_server: Server, tmp_path: Path) -> None:
    """Each file is taken by two of them, and half of its facts are in a file that others load meanwhile."""
    url = postgres_server.new()
    files = [shared_file(tmp_path, number) for number in range(FILES)]
    loaders = [loader(url, tmp_path, part) for part in (files[::2], files[1::2], files[::-2], files[::-1])]
    for one in loaders:
        _, err = one.communicate(timeout=120)
        assert one.returncode in (0, 1), err  # some failed lines, or all there already
    is_whole(postgres.warehouse(url))


def bring_before(world: World) -> None:
    world.bring("before.json", *(record("ann", n, "x") for n in (1, 4, 9)), arrived=0)


def bring_after(world: World) -> None:
    world.bring("after.json", *(record("ann", n, "x") for n in (2, 3, 4, 8)), arrived=900)


def bring_others(world: World) -> None:
    world.bring("others.json", record("ann", 100, "x"))


def undo_what_was_there(world: World) -> None:
    (row,) = world.warehouse.files({"key": "there.json"})
    world.warehouse.undo([row["file_id"]], Audit("ann", ""))


@pytest.mark.parametrize("few", [10_000, 0], ids=["one by one", "many"])
@pytest.mark.parametrize(
    ("first", "then", "duplicates"),
    [  # what others do before the load has looked again, and before it has the lock
        pytest.param(bring_others, None, 3, id="other facts"),
        pytest.param(bring_before, None, 4, id="a row that comes before"),
        pytest.param(None, bring_before, 4, id="the same at the last moment"),
        pytest.param(bring_after, bring_before, 5, id="one after, one before"),
        pytest.param(bring_before, bring_after, 5, id="one before, one after"),
        pytest.param(undo_what_was_there, None, 1, id="rows go"),
        pytest.param(bring_after, undo_what_was_there, 4, id="rows come, others go"),
    ],
)
def test_what_others_commit_while_rows_come_in(
    empty: PostgresWarehouse,
    monkeypatch: pytest.MonkeyPatch,
    few: int,
    first: Callable[[World], None] | None,
    then: Callable[[World], None] | None,
    duplicates: int,
) -> None:
    monkeypatch.setattr(applying, "_FEW", few)
    world = World(empty)
    world.bring("there.json", *(record("ann", n, "x") for n in (1, 2)), arrived=300)
    file = world.put("ours.json", *(record("ann", n, "x") for n in (1, 2, 3, 4, 4)), arrived=200)
    with world.pipeline.judged([file]) as staging, monkeypatch.context() as patch:
        meanwhile = {"came_since": first, "lock": then}
        for name in meanwhile:
            call = getattr(PostgresSession, name)

            def others_first(*arguments: Any, name: str = name, call: Callable[..., Any] = call) -> Any:
                if act := meanwhile.pop(name, None):
                    act(world)
                return call(*arguments)

            patch.setattr(PostgresSession, name, others_first)
        (result,) = empty.load(staging, "ours", None)
    assert not meanwhile
    assert result.counts.duplicates == duplicates
    assert broken_promises(empty) == {}
    assert empty.disagreements() == []


def test_versions_are_forgotten_in_time(empty: PostgresWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looked so long ago that nobody knows what came since looks at everything."""
    monkeypatch.setattr(session, "_VERSIONS_KEPT", 2)
    with empty.writing() as writing:
        for came in ([1, 2], [], [3], None, [4]):
            writing.count_up(came)
        assert [writing.came_since(version) for version in (5, 4, 3, 2)] == [(5, []), (5, [4]), (5, None), (5, None)]
        writing.count_up([5])
        writing.count_up([6, 7])
        assert [writing.came_since(version) for version in (5, 4, 3)] == [
            (7, [5, 6, 7]), (7, [4, 5, 6, 7]), (7, None),
        ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_9_of_loaders_and_of_the_server(tmp_path: Path) -> None:
    """What was committed is there, what was not is not; then the same files again, and all is as if it never was."""
    chance = random.Random(2014)
    files = [shared_file(tmp_path, number) for number in range(FILES)]
    with postgres.server(durable=True) as server:
        url = server.new()
        warehouse = postgres.warehouse(url)
        parts = [files[::2], files[1::2], files[::-2], files[::-1]]
        running = [loader(url, tmp_path, part) for part in parts]
        for kill in range(KILLS):
            time.sleep(chance.uniform(0.3, 1.5))  # it is the moment that is tried, not waited for
            number = chance.randrange(len(parts))
            with suppress(ProcessLookupError):
                os.killpg(running[number].pid, signal.SIGKILL)
            running[number].communicate()
            if kill == KILLS // 2:
                server.kill()
                for one in running:
                    one.communicate(timeout=120)
                server.start()
            assert broken_promises(warehouse) == {}
            running = [
                one if one.poll() is None else loader(url, tmp_path, part)
                for one, part in zip(running, parts, strict=True)
            ]
        for one in running:
            _, err = one.communicate(timeout=120)
            assert one.returncode in (0, 1), err
        is_whole(warehouse)


# --- a failure at every step -----------------------------------------------------------------------------------------


@dataclass
class Steps:
    """What is asked of the server, counted; one of these steps fails."""

    fail_at: int = 0
    error: BaseException = field(default_factory=KeyboardInterrupt)
    after: bool = False  # the step is done, but nobody learns of it
    names: list[str] = field(default_factory=list)

    @contextmanager
    def taken(self) -> Iterator["Steps"]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("execute", "adbc_ingest"):
                patch.setattr(dbapi.Cursor, name, self.counted(name, getattr(dbapi.Cursor, name)))
            yield self

    def counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **more: Any) -> Any:
            self.names.append(f"{name} {arguments[1:2]}")
            fails = len(self.names) == self.fail_at
            if fails and not self.after:
                raise self.error
            result = call(*arguments, **more)
            if fails:
                raise self.error
            return result

        return step


@dataclass
class Disturbed:
    """A load, judged and waiting; the database that it starts from, and what that shows before and after it."""

    server: Server
    start: str
    staging: Staging
    force: bool

    def load(self, warehouse: PostgresWarehouse) -> None:
        warehouse.load(self.staging, "load", None, intent="force" if self.force else "new")

    def again(self) -> PostgresWarehouse:
        return postgres.warehouse(self.server.new(self.start))


@pytest.fixture(scope="module")
def disturbed(postgres_server: Server) -> Iterator[list[Disturbed]]:
    start = postgres_server.new()
    with loads_that_meet_everything(postgres.warehouse(start)) as (first, second):
        plan = Disturbed(postgres_server, start, first, force=False)
        between = postgres_server.new(start)
        plan.load(postgres.warehouse(between))
        yield [plan, Disturbed(postgres_server, between, second, force=True)]


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_an_error_at_every_step(disturbed: list[Disturbed], after: bool) -> None:
    errors: list[Callable[[], BaseException]] = [
        KeyboardInterrupt,
        lambda: OperationalError("no", status_code=5),
        MemoryError,
    ]
    for plan in disturbed:
        undisturbed, steps = plan.again(), Steps()
        before = everything(undisturbed)
        with steps.taken():
            plan.load(undisturbed)
        done = everything(undisturbed)
        assert before != done
        assert broken_promises(undisturbed) == {}
        for step in range(1, len(steps.names) + 1):
            warehouse = plan.again()
            error = errors[step % len(errors)]()
            with Steps(step, error, after).taken(), suppress(type(error), IngestError):
                plan.load(warehouse)
            name = steps.names[step - 1]
            assert everything(warehouse) in (before, done), f"half of a load is seen after {name}"
            plan.load(warehouse)
            assert everything(warehouse) == done, f"the second run after {name}"
            plan.server.drop(warehouse.url)


# --- a connection that is lost ---------------------------------------------------------------------------------------


@contextmanager
def cut_after_commit(url: str) -> Iterator[str]:
    """The server behind a line that breaks when it has committed what was loaded, before it could say so."""
    parts = urlsplit(url)

    def carry(source: socket.socket, to: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if is_answer and b"COMMIT\0" in data and b"warehouse_version" in asked[to]:
                    break
                asked[source] += b"" if is_answer else data
                to.sendall(data)
        for one in (source, to):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # to close it would leave the other thread waiting

    asked: dict[socket.socket, bytes] = {}

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((parts.hostname, parts.port))
                asked[client] = asked[server] = b""
                for ends in ((client, server, False), (server, client, True)):
                    threading.Thread(target=carry, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{listener.getsockname()[1]}"))


def test_a_commit_whose_answer_is_lost_counts_once(empty: PostgresWarehouse) -> None:
    with cut_after_commit(empty.url) as url:
        world = World(postgres.warehouse(url))
        file = world.put("a.json", record("ann", 1, "x"), "bad")
        with pytest.raises(TransientError, match="did not answer to the end"):
            world.load(file)
    world = World(empty, store=world.store)
    (again,) = world.load(file)
    assert (again.already, again.state) == (True, "loaded")
    assert broken_promises(empty) == {}
    assert world.count("events") == 1


# --- tables of a former version --------------------------------------------------------------------------------------


def test_a_warehouse_of_the_first_version_is_brought_up_to_date(postgres_server: Server) -> None:
    """Its failed lines are counted, and loads go on."""
    url = postgres_server.new()
    world = World(postgres.warehouse(url))
    result = world.bring("a.json", record("ann", 1, "x"), "bad", "[]", "bad")
    redrive(world.pipeline, result.file_id, b'2\t{"_p":"ann","_t":1393344700,"_n":"x"}\n', Audit("ann"))
    database = url.rpartition("/")[2]
    postgres_server.sql("CREATE ROLE visitor LOGIN")
    for sql in (
        "DROP FUNCTION count_failures CASCADE", "DROP TABLE failure_counts", "DROP INDEX ledger_failed",
        "CREATE INDEX ledger_failed ON ledger (file_no) INCLUDE (source, state) WHERE failed > 0",
        "ALTER TABLE warehouse_version DROP CONSTRAINT warehouse_version_pkey, DROP COLUMN came",
        "DELETE FROM warehouse_version WHERE version < (SELECT max(version) FROM warehouse_version)",
        "UPDATE schema_version SET step = 1",
    ):  # fmt: skip
        postgres_server.sql(sql, database, "loader")
    postgres_server.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO visitor", database, "loader")
    stranger = postgres.warehouse(postgres_server.url(database, "visitor"))
    with pytest.raises(ConfigError, match=r"older version.*left so: must be owner"), stranger.published():
        pass
    world.bring("b.json", record("bob", 1, "x"), "bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "definitions", lambda: (("one step",), ""))
        with pytest.raises(ConfigError, match="newer"):
            world.warehouse.files({})
    assert broken_promises(world.warehouse) == {}
    with world.warehouse.published() as published:
        groups = published.failure_groups([result.file_id])
    assert [(one.code, one.lines, one.open) for one in groups] == [("not_json", 2, 1), ("not_object", 1, 1)]


# --- texts -----------------------------------------------------------------------------------------------------------


def test_a_text_that_no_server_can_hold_is_equal_to_nothing(empty: PostgresWarehouse) -> None:
    world = World(empty)
    result = world.bring("a.json", record("ann", 1, "x"), "bad")
    with empty.published() as published:
        assert published.files(FilesWanted(sources=("one_off",), text="a\0")).total == 0
        assert published.files(FilesWanted(sources=("one_off",), sha256=empty.files({})[0]["sha256"])).total == 1
        assert published.file("\0") is None
    empty.undo([result.file_id, "\0"], Audit("ann", "a \0 reason"))
    assert [line["reason"] for line in empty.history(result.file_id)] == ["a \ufffd reason"]


# --- the first load --------------------------------------------------------------------------------------------------


def test_two_first_loads_at_once_make_one_warehouse(postgres_server: Server, tmp_path: Path) -> None:
    """Who has waited for the other's tables remembers that there were none, unless it looks at the catalog itself."""
    server = postgres.warehouse(postgres_server.bare("first_loads"))
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with ThreadPoolExecutor() as pool, server.connected() as session:
        session.lock()
        other = pool.submit(World(server).bring, "b.json", record("ann", 2, "x"))
        while postgres_server.sql(waits, "first_loads") != "1\n":
            pass
        _make(session, 0)
        session.rows("COMMIT")
        assert other.result().state == "loaded"
    assert World(server).count("ledger") == 1


def test_who_reads_while_the_first_load_makes_the_tables_reads_them(postgres_server: Server) -> None:
    server = postgres.warehouse(postgres_server.bare("first_look"))
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted"
    with ThreadPoolExecutor() as pool, server.connected() as session:
        _make(session, 0)
        other = pool.submit(World(server).count, "ledger")
        while postgres_server.sql(waits, "first_look") != "1\n":
            pass
        session.rows("COMMIT")
        assert other.result() == 0
    assert server.is_there


def test_a_schema_that_comes_before_the_warehouse_is_named(postgres_server: Server) -> None:
    """Else the next load would begin another warehouse there, and a snapshot would hold nothing."""
    url = postgres_server.bare("shadowed")
    World(postgres.warehouse(url)).bring("a.json", record("ann", 1, "x"))
    postgres_server.sql("CREATE SCHEMA loader", "shadowed", "loader")
    with pytest.raises(ConfigError, match="in the schema public, and another stands before it"):
        World(postgres.warehouse(url)).count("ledger")
    assert World(postgres.warehouse(f"{url}?options=-csearch_path%3Dpublic")).count("ledger") == 1


def test_what_a_database_has_otherwise_changes_nothing(postgres_server: Server) -> None:
    odd = {
        "client_encoding": "LATIN1", "default_transaction_isolation": "serializable", "statement_timeout": "500ms",
        "default_transaction_read_only": "on", "idle_in_transaction_session_timeout": "500ms",
    }  # fmt: skip
    url = postgres_server.bare("odd")
    for name, value in odd.items():
        postgres_server.sql(f"ALTER DATABASE odd SET {name} = '{value}'")
    world = World(postgres.warehouse(url))
    assert world.bring("a.json", record("zoë", 1, "x")).state == "loaded"
    assert world.rows("SELECT person FROM commands") == [{"person": "zoë"}]


def test_a_load_that_began_under_former_settings_is_refused(postgres_server: Server, tmp_path: Path) -> None:
    """`rematch` was run between its first look and its lock."""
    url = postgres_server.bare("began")
    former, now = (replace(postgres.warehouse(url), ignored_identities=frozenset(names)) for names in ((), ("shared",)))
    World(former).bring("a.json", alias("u1", "shared"))
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with ThreadPoolExecutor() as pool, now.connected() as session:
        session.lock()
        late = pool.submit(World(former).bring, "b.json", alias("u2", "shared"))
        while postgres_server.sql(waits, urlsplit(url).path[1:]) != "1\n":
            pass
        session.rows("UPDATE settled SET value = 'shared' WHERE name = 'ignored_identities'")
        session.count_up(None)
        session.rows("COMMIT")
        with pytest.raises(ConfigError, match="ignored_identities is shared there"):
            late.result()
    now.rematch()
    assert World(now).count("ledger") == 1
    assert {row["person_id"] for row in World(now).rows("SELECT person_id FROM identities")} == {"u1", "shared"}


def test_a_place_that_can_hold_no_warehouse_is_named(postgres_server: Server) -> None:
    ours = postgres_server.bare("no_room")
    for url, said in (
        (f"{ours}?options=-csearch_path%3Dnowhere", "no schema of its search_path is there"),
        (ours.replace("//loader@", "//stranger@"), "may not make tables in the schema public"),
        (postgres_server.bare("old_letters", "ENCODING 'SQL_ASCII' LOCALE 'C'"), "its database in SQL_ASCII"),
    ):
        with pytest.raises(ConfigError, match=said):
            look(postgres.warehouse(url))
        with pytest.raises(ConfigError, match=said):
            World(postgres.warehouse(url)).bring("a.json", record("ann", 1, "x"))


# --- rights ----------------------------------------------------------------------------------------------------------


def test_the_roles_of_the_docs_load_and_read(postgres_server: Server) -> None:
    """As printed in docs/postgres.md: who reads has the views, and nothing else."""
    text = (ROOT / "docs/postgres.md").read_text(encoding="utf-8")
    make, grant = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    for statement in filter(str.strip, make.split(";")):  # a database is made in no transaction
        postgres_server.sql(statement)
    owner = postgres.warehouse(postgres_server.url("events", "landfall"))
    World(owner).bring("a.json", record("ann", 1, "x"), "bad")
    postgres_server.sql(grant, "events", "landfall")
    reader = postgres.warehouse(postgres_server.url("events", "analyst"))
    for sql in ("SELECT count(*)::int AS n FROM events", "SELECT count(*)::int AS n FROM people"):
        with reader.query(sql) as answer:
            assert answer.reader.read_all().to_pylist() == [{"n": 1}]
    for sql in ("SELECT * FROM ledger", "SELECT * FROM command_rows"):
        with pytest.raises(IngestError, match="permission denied"), reader.query(sql):
            pass
    with pytest.raises(ConfigError, match="this role"):
        World(reader).bring("b.json", record("ann", 2, "x"))
    assert World(owner).count("ledger") == 1


def test_a_role_that_may_read_the_servers_files_asks_nothing(postgres_server: Server) -> None:
    url = postgres_server.new().replace("//loader@", "//postgres@")
    with pytest.raises(ConfigError, match="server's own files"), postgres.warehouse(url).query("SELECT 1"):
        pass


def test_a_statement_reads_and_comes_to_an_end(empty: PostgresWarehouse) -> None:
    """Numbers are numbers, other types are texts, and nothing is written."""
    sql = "SELECT 1.50::numeric AS a, sum(1) AS a, '1.2.3.4'::inet AS b, interval '1 day' AS c -- the end"
    with empty.query(sql) as answer:
        assert answer.reader.read_all().to_pylist() == [{"a": "1.50", "a_1": 1, "b": "1.2.3.4/32", "c": "1 day"}]
        assert answer.json_columns == {"a"}
    for refused in ("DELETE FROM ledger", "WITH a AS (DELETE FROM ledger RETURNING *) SELECT * FROM a",
                    "SELECT 1; DROP TABLE ledger", "SELECT nextval('file_numbers')", "COMMIT"):  # fmt: skip
        with pytest.raises(IngestError), empty.query(refused) as answer:
            answer.reader.read_all()
    asked, limits = "SELECT pg_sleep(60)::text", QueryLimits(1 << 20, 0.1)
    with pytest.raises(IngestError, match=r"stopped after 0\.1 s"), empty.query(asked, limits) as answer:
        answer.reader.read_all()
    assert empty.files({}) == []
