"""Several hosts for real: Airflow with the CeleryExecutor, Redis, Postgres, and two workers, of which one is killed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from adbc_driver_postgresql import dbapi

from ingest.airflow.names import MOUNTED
from ingest.ports import Warehouse
from ingest.settings import Source, load_settings
from ingest.wiring import open_pipeline
from tests import iceberg, postgres
from tests.airflow.celery import PACK_FILES, WORKERS, running_team
from tests.conftest import S3
from tests.support import Rows, alias, everything, lines, put, record
from tests.test_exactly_once import broken_promises

FILES = 8 * PACK_FILES


class OnPostgres:
    """The warehouse on the server. A load that is held has copied its rows, and waits for its turn to enter them."""

    _WAITING = """\
SELECT count(*) FROM pg_locks AS waits JOIN pg_locks AS holds USING (pid)
WHERE waits.locktype = 'advisory' AND NOT waits.granted
AND holds.relation = 'command_rows'::regclass AND holds.mode = 'RowExclusiveLock'"""

    def __init__(self, server: postgres.Server, sources: Mapping[str, Source]) -> None:
        self.server = server
        self.url = server.new()
        self.warehouse = postgres.warehouse(self.url, sources=sources)

    def waiting(self) -> int:
        return int(self.server.sql(self._WAITING, urlsplit(self.url).path[1:]))

    @contextmanager
    def held(self) -> Iterator[None]:
        with self.warehouse.writing() as session:
            session.lock()
            yield


class InALake:
    """The catalog on the server, the table in a bucket. A load that is held has written its rows, and is to commit."""

    _WAITING = """\
SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE '%iceberg_tables%'"""

    def __init__(self, server: postgres.Server, sources: Mapping[str, Source], url: str, mirrors: Path) -> None:
        self.server = server
        self.url = url
        self.warehouse = iceberg.warehouse(url, mirrors, sources=sources)
        self.warehouse.lake.make()

    def waiting(self) -> int:
        return int(self.server.sql(self._WAITING, "lake"))

    @contextmanager
    def held(self) -> Iterator[None]:
        with dbapi.connect(self.server.url("lake", "postgres")) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM iceberg_tables FOR UPDATE")
            cursor.fetchall()
            yield
            connection.rollback()


def content(number: int) -> bytes:
    """Five lines, or thousands. Other files have some of its facts, and all of its persons."""
    size = 5 * 4 ** (number % 6)
    facts = [record(f"p{n % 40}", n * 10, "x", of=n) for n in range(number * size // 3, number * size // 3 + size)]
    about = [put(f"p{number}", number, plan=f"plan {number}"), alias(f"p{number}", f"p{number} elsewhere")]
    return lines(*facts, *about, '{"_p": "bad"}')


def in_any_order(warehouse: Warehouse) -> tuple[dict[str, Rows], int]:
    """All that it shows. Whose facts were there already tells who came first: of these the sum."""
    found = everything(warehouse, ["duplicates"])
    return found, sum(row["duplicates"] for row in warehouse.files({}))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["postgres", "iceberg"])
def test_two_workers_load_and_one_is_killed_in_the_middle(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    for number in range(FILES):
        s3.put(f"landing/{number:02d}.json", content(number))
    config = tmp_path / "ingest.toml"
    config.write_text(
        'lock_timeout = "300s"\n'  # nobody may give up while this test holds the lock
        f'[[source]]\nname = "website"\nbucket = "{s3.bucket}"\nprefix = "landing/"\nschedule = "@once"\n'
    )
    settings = load_settings(
        {"INGEST_CONFIG": str(config), "INGEST_WAREHOUSE": f"duckdb:///{tmp_path}/one_host.duckdb"}
    )
    with open_pipeline(settings) as pipeline:
        pipeline.load(pipeline.discover("website").pending)
        expected = in_any_order(pipeline.warehouse)
    assert [row["state"] for row in expected[0]["ledger"]] == ["loaded"] * FILES

    with postgres.server() as server:
        place: OnPostgres | InALake
        if engine == "postgres":
            place = OnPostgres(server, settings.sources)
        else:
            uri = server.bare("lake").replace("://", "+psycopg2://")
            url = iceberg.describe(monkeypatch, tmp_path, uri=uri, s3=s3)
            place = InALake(server, settings.sources, url, tmp_path / "ours")
        warehouse = place.warehouse
        with running_team(tmp_path / "team", server, place.url, s3.endpoint, config.read_text()) as team:

            @contextmanager
            def both_held() -> Iterator[None]:
                with place.held():
                    team.wait_for(lambda: place.waiting() == len(WORKERS), "a load by each worker")
                    yield

            def each_has_loaded() -> bool:
                return {one["hostname"] for one in team.loads() if one["state"] == "success"} == set(WORKERS)

            with both_held():
                pass
            team.wait_for(each_has_loaded, "a load by each worker that is done")
            with both_held():
                (held,) = [one for one in team.loads() if (one["hostname"], one["state"]) == ("one", "running")]
                team.kill_host("one")
            team.wait_for(lambda: team.run()["state"] not in ("queued", "running"), "the end of the run")

            assert team.run()["state"] == "success"
            assert [(one["hostname"], one["state"]) for one in team.tries(held)] == [
                ("one", "failed"),
                ("two", "success"),
            ]
            assert {one["hostname"] for one in team.loads() if one["try_number"] == 1} == set(WORKERS)
            assert any((team.stack.folder / "one" / "staging").iterdir())  # what was judged there was nowhere else
            assert broken_promises(warehouse) == {}
            assert in_any_order(warehouse) == expected

            pages = f"{team.stack.url}{MOUNTED}/"
            login = {"Authorization": f"Bearer {team.stack.token}"}
            assert [httpx.get(pages, headers=sent).status_code for sent in ({}, login)] == [401, 200]
            started = psutil.Process().children(recursive=True)
        assert [one for one in started if is_left(one)] == []


def is_left(process: psutil.Process) -> bool:
    """Whether a process is there still, that is not Python's own: what tracks resources of ours lives as long as we."""
    try:
        return process.is_running() and "resource_tracker" not in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
