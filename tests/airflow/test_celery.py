"""Several hosts for real: Airflow with the CeleryExecutor, Redis, Postgres, and two workers, of which one is killed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from ingest.airflow.names import MOUNTED
from ingest.settings import load_settings
from ingest.wiring import open_pipeline
from tests import postgres
from tests.airflow.celery import PACK_FILES, WORKERS, running_team
from tests.conftest import S3
from tests.support import alias, everything, lines, put, record
from tests.test_exactly_once import broken_promises

FILES = 6 * PACK_FILES
# Loads that have copied their rows and wait for their turn to enter them in the ledger.
_IN_THE_MIDDLE = """\
SELECT count(*) FROM pg_locks AS waits JOIN pg_locks AS holds USING (pid)
WHERE waits.locktype = 'advisory' AND NOT waits.granted
AND holds.relation = 'command_rows'::regclass AND holds.mode = 'RowExclusiveLock'"""


def content(number: int) -> bytes:
    """Five lines, or thousands. Other files have some of its facts, and all of its persons."""
    size = 5 * 4 ** (number % 6)
    facts = [record(f"p{n % 40}", n * 10, "x", of=n) for n in range(number * size // 3, number * size // 3 + size)]
    about = [put(f"p{number}", number, plan=f"plan {number}"), alias(f"p{number}", f"p{number} elsewhere")]
    return lines(*facts, *about, '{"_p": "bad"}')


@pytest.mark.slow
def test_two_workers_load_and_one_is_killed_in_the_middle(s3: S3, tmp_path: Path) -> None:
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
        expected = everything(pipeline.warehouse)
    assert [row["state"] for row in expected["ledger"]] == ["loaded"] * FILES

    with postgres.server() as server:
        url = server.new()
        warehouse = postgres.warehouse(url, sources=settings.sources)

        def both_are_in_the_middle() -> bool:
            return server.sql(_IN_THE_MIDDLE, urlsplit(url).path[1:]).strip() == "2"

        with running_team(tmp_path / "team", server, url, s3.endpoint, config.read_text()) as team:

            @contextmanager
            def both_held() -> Iterator[None]:
                with warehouse.writing() as session:
                    session.lock()
                    team.wait_for(both_are_in_the_middle, "a load by each worker")
                    yield

            with both_held():
                pass  # and each has loaded
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
            assert everything(warehouse) == expected

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
