"""`ingest demo`: the whole job on this machine, watched from outside, then shown in a few tables.

Nothing is faked but the cloud: an S3 server (moto), Airflow's own scheduler with the scheduled DAG, the embedded
warehouse, one on a Postgres server, or a lake in that S3. All of it is on loopback, in a temporary folder, and gone at
the end.
"""

import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Final

from ingest.cli.output import say
from ingest.errors import IngestError
from ingest.unforeseen import causes

_NEEDED: Final = {"postgres": {"adbc_driver_postgresql": "postgres"}, "iceberg": {"pyiceberg": "iceberg"}}


def run(exit_when_done: bool, *, warehouse: str = "duckdb", as_json: bool = False) -> int:
    """Run the demo. 0: every expected row is there; 1: one is not. Without `exit_when_done` it stays up until Ctrl-C.

    Raises:
        IngestError: it cannot run here, or a part of it died.
    """
    needed = {"airflow": "airflow", "moto": "demo"} | _NEEDED.get(warehouse, {})
    if missing := [name for name in needed if find_spec(name) is None]:
        extras = ",".join(needed.values())
        raise IngestError(f"The demo needs {' and '.join(missing)}: pip install 'landfall-ingest[{extras}]'.")
    from ingest.demo.play import play
    from ingest.demo.postgres import programs
    from ingest.demo.processes import ProcessDied
    from ingest.demo.stack import running_stack

    if warehouse == "postgres":
        programs()
    folder = Path(tempfile.mkdtemp(prefix="landfall-demo-"))
    started = time.monotonic()
    status = 130  # stopped before it had shown anything

    def tell(sentence: str) -> None:
        say(f"{time.monotonic() - started:5.0f} s  {sentence}")

    try:
        with _stopped_by_signals(), running_stack(folder, tell, warehouse) as (stack, processes):
            status = 0 if play(stack, processes, tell, stays=not exit_when_done, as_json=as_json) else 1
            while not exit_when_done:
                time.sleep(1)
                processes.check()
    except _Stopped:
        pass
    except Exception as error:
        if isinstance(error, (ProcessDied, TimeoutError)):
            raise IngestError(f"{error}\nEverything it wrote is kept in {folder}.") from error
        if not any(isinstance(one, _Stopped) for one in causes(error)):
            raise
    tell("ended; no process is left behind")
    if status == 1:
        say(f"Everything it wrote is kept in {folder}.")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return status


class _Stopped(BaseException):  # no Exception: nothing on its way up may take it for a failure of its own
    """Ctrl-C, or a signal that asks for an end."""


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """The first signal becomes an exception; later ones are ignored, so that the end itself is not cut short."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(_number: int, _frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped

    before = {each: signal.signal(each, stop) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
