"""End to end: real Airflow with its scheduler, an S3 server, the warehouse, as `make demo EXIT=1` runs them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

COMMAND = [str(Path(sys.executable).parent / "ingest"), "demo"]


def of_session(session: int) -> list[psutil.Process]:
    """Processes of a demo: those in its own session, and in those of the parts that it started."""
    return [process for process in psutil.process_iter() if _belongs(process, session)]


def _belongs(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session or any(parent.pid == session for parent in process.parents())
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def still_running(seen: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in seen if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
@pytest.mark.parametrize("warehouse", ["duckdb", "postgres"])
def test_the_scheduler_loads_every_expected_row_and_nothing_is_left_behind(warehouse: str) -> None:
    command = [*COMMAND, "--exit", "--warehouse", warehouse]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    seen: set[psutil.Process] = set()
    while demo.poll() is None:
        seen |= set(of_session(demo.pid))
        time.sleep(2)
    out, err = demo.communicate()

    assert demo.returncode == 0, err
    assert "run scheduled__" in err
    assert "Every expected row is there" in err
    assert "time_in_milliseconds" in out
    assert ("postgresql://landfall@127.0.0.1:" in err) is (warehouse == "postgres")
    assert len(seen) > 5  # it did look at the demo's own
    assert still_running(list(seen)) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_is_stopped_nothing_is_left_behind(number: signal.Signals, tmp_path: Path) -> None:
    here = os.environ | {"TMPDIR": str(tmp_path)}  # killed outright, it cannot clear its folder
    demo = subprocess.Popen(COMMAND, env=here, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert demo.stderr
    for line in demo.stderr:
        if "dropped in" in line:  # everything runs
            break
    seen = of_session(demo.pid)
    assert len(seen) > 5

    demo.send_signal(number)
    _, rest = demo.communicate(timeout=60)

    if number != signal.SIGKILL:
        assert (demo.returncode, list(tmp_path.iterdir())) == (130, []), rest
    until = time.monotonic() + 60
    while still_running(seen) and time.monotonic() < until:
        time.sleep(0.5)
    assert still_running(seen) == []
