"""A terminal obeys nothing that producers wrote, files and pipes get every byte, and `sql` ends whatever it is."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from fcntl import LOCK_EX
from pathlib import Path
from resource import RLIMIT_DATA, getrlimit
from typing import IO, Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.text import inert
from tests.support import ROOT, lines, record

# An escape sequence, one of the 8-bit kind, what turns writing around, and a character that two units of UTF-16 make.
HOSTILE = "\x1b]0;owned\x07 \x9b31m \u202eevil \x7f \U000e0041"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\U000e0041]")
SENT = lines(
    record("ann", 0, HOSTILE), json.dumps({"_p": f"bad {HOSTILE}"}, ensure_ascii=False), f"no json {HOSTILE}",
    b"no \x9b31m utf-8",
)  # fmt: skip


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ingest", *arguments]


def environ(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "TERM": "dumb", **more}


def peak_kib(folder: Path, *arguments: str) -> int:
    """The most memory of the command; its output is in the file `rows`. wait4 tells that of whoever forked, too."""
    script = """
import atexit, re, sys
from pathlib import Path
status = Path("/proc/self/status")
atexit.register(lambda: Path("peak").write_text(re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())[1]))
from ingest.cli import main
main()
"""
    (folder / "run.py").write_text(script)
    with (folder / "rows").open("wb") as out:
        run = [sys.executable, "run.py", *arguments]
        subprocess.run(run, cwd=folder, env=environ(), stdout=out, check=True)
    return int((folder / "peak").read_text())


def on_a_terminal(folder: Path, *arguments: str, **more: str) -> str:
    """What a terminal gets of both outputs of the command."""
    return terminal(folder, command(*arguments), **more)


def terminal(folder: Path, command: list[str], **more: str) -> str:
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=folder, env=environ(**more), stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        written = b""
        try:
            while piece := os.read(ours, 1 << 16):
                written += piece
        except OSError:  # so a terminal tells that nobody holds it any more
            pass
    os.close(ours)
    return written.decode().replace("\r\n", "\n")


def in_a_pipe(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*arguments), cwd=folder, env=environ(**more), capture_output=True, check=False)


FILE = f"a{HOSTILE}.json"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where such a file was loaded."""
    folder = tmp_path_factory.mktemp("here")
    (folder / FILE).write_bytes(SENT)
    assert in_a_pipe(folder, "load", FILE).returncode == 1
    return folder


@pytest.fixture(scope="module")
def file_id(here: Path) -> str:
    (file,) = json.loads(in_a_pipe(here, "files", "--json").stdout)["files"]
    return str(file["file_id"])


@pytest.mark.parametrize("arguments", [
    ("check", "{file}"), ("check", "{file}", "--json"), ("load", "{file}"), ("load", "{file}", "--force"), ("files",),
    ("files", "--json"), ("failures", "{id}"), ("failures", "{id}", "--lines"), ("failures", "{id}", "--json"),
    ("redrive", "{id}"), ("undo", "{id}", "--dry-run"), ("load", "{file}.gone"), ("load", "{file}", "{file}"),
    ("sql", "select event, properties from events"), ("sql", "select * from commands", "--json"), ("reconcile",),
    ("sql", "pivot (select person, event from events) on event using count(*)"),
    ("sql", "select raw from failed_lines", "--json"), ("snapshot", "{file}.copy"), ("failures", "{file}"),
    ("undo", "{file}", "--{file}"), ("poll", "{file}"), ("export", "--to", "{file}"), ("files", "{file}"),
])  # fmt: skip
def test_a_terminal_obeys_nothing_that_a_producer_wrote(here: Path, file_id: str, arguments: tuple[str, ...]) -> None:
    written = on_a_terminal(here, *(argument.format(file=FILE, id=file_id) for argument in arguments))
    assert written
    assert OBEYED.findall(written) == []


def test_a_warning_is_as_harmless(tmp_path: Path) -> None:
    script = f"""
import logging
from ingest.cli import cli, main
cli.commands["files"].callback = lambda **_: logging.getLogger("ingest").warning("key=%s", {HOSTILE!r})
main()
"""
    written = terminal(tmp_path, [sys.executable, "-c", script, "files"])
    assert written.startswith("key=\\x1b]0;owned")
    assert OBEYED.findall(written) == []


def test_lines_on_a_terminal_mean_the_same_and_in_a_pipe_are_the_same(here: Path, file_id: str) -> None:
    piped = in_a_pipe(here, "failures", file_id, "--lines").stdout
    assert piped == b"".join(b"%d\t%b\n" % (n, line) for n, line in enumerate(SENT.split(b"\n")[1:4], 2))
    shown = on_a_terminal(here, "failures", file_id, "--lines").splitlines()
    (line,) = [line for line in shown if line.startswith("2\t")]
    assert r"\u001b]0;owned\u0007 \u009b31m \u202eevil \u007f \udb40\udc41" in line
    assert json.loads(line.partition("\t")[2]) == json.loads(SENT.split(b"\n")[1])
    (line,) = [line for line in shown if line.startswith("4\t")]
    assert line == r"4" + "\t" + r"no \x9b31m utf-8"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(anything, st.sampled_from([(", ", ": "), (",\r", ":\t"), ("\n,", " : ")]))
def test_json_that_is_inert_means_the_same(value: Any, separators: tuple[str, str]) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    assert json.loads(inert(text)) == value
    assert OBEYED.findall(inert(text)) == []


def test_what_is_inert_costs_no_more_than_it_is_long() -> None:
    begun = time.perf_counter()
    for text in ('"' + '\\"' * 500_000, '"' * 1_000_001, '"a' * 500_000 + "\\"):
        assert inert(text) == text
    assert time.perf_counter() - begun < 5


# --- sql -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("statement", "said"), [
    ("select sum(range) from range(1_000_000_000_000)", "stopped after 1 s"),
    ("select * from range(1_000_000_000_000)", "stopped after 1 s"),
    ("select list(range) from range(1_000_000_000)", "more than 67,108,864 bytes of memory"),
    ("select repeat('x', 1_000_000_000) as one_value", "more than 67,108,864 bytes of memory"),
    ("select range(300_000_000) as one_value", "more than 67,108,864 bytes of memory"),
])  # fmt: skip
@pytest.mark.parametrize("as_json", [True, False])
def test_a_statement_that_asks_for_too_much_is_ended(tmp_path: Path, statement: str, said: str, as_json: bool) -> None:
    seconds = 1 if "stopped" in said else 120
    limits = {"INGEST_MAX_QUERY_TIME": f"{seconds}s", "INGEST_MAX_QUERY_BYTES": str(64 << 20)}
    done = in_a_pipe(tmp_path, "sql", statement, *["--json"] * as_json, **limits)
    assert done.returncode == 2
    assert said in done.stderr.decode().splitlines()[-1]
    assert done.stdout == b"" or said in json.loads(done.stdout)["error"]
    assert as_json == bool(done.stdout)


def test_a_statement_that_cannot_be_stopped_ends_the_process(tmp_path: Path) -> None:
    script = """
import time
from ingest.cli import asking, main
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
asking._GRACE_SECONDS = 0.5
DuckDBWarehouse.query = lambda *_: time.sleep(60)
main()
"""
    arguments = [sys.executable, "-c", script, "sql", "select 1", "--json"]
    more = {"INGEST_MAX_QUERY_TIME": "1s"}
    done = subprocess.run(arguments, cwd=tmp_path, env=environ(**more), capture_output=True, check=False, timeout=40)
    assert (done.returncode, [*json.loads(done.stdout)]) == (2, ["error"])
    assert "could not be stopped" in done.stderr.decode().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_statement_ends_when_somebody_says_so(tmp_path: Path, number: signal.Signals, code: int) -> None:
    endless = "select sum(a.range * b.range) from range(10_000_000) as a, range(10_000_000) as b"
    asking = subprocess.Popen(command("sql", endless), cwd=tmp_path, env=environ(), stderr=subprocess.PIPE)
    process = psutil.Process(asking.pid)
    while process.cpu_times().user < 3:  # it takes less to begin
        assert asking.poll() is None
    asking.send_signal(number)
    _, said = asking.communicate(timeout=20)
    assert asking.returncode == code, said


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [True, False])
def test_a_million_rows_are_not_held(tmp_path: Path, as_json: bool) -> None:
    """In JSON all of them, in a table those that people read."""
    statement = "select range as n, 'a text of some length' as t from range(1_000_000)"
    # Held in JSON, they took 459 MB.
    assert peak_kib(tmp_path, "sql", statement, *["--json"] * as_json) < 250 << 10
    with (tmp_path / "rows").open("rb") as written:
        first = next(written)
        shown = sum(b"a text of some length" in line for line in written)
    assert shown == (1_000_000 if as_json else 1_000)
    assert as_json or first == b"1,000,000 rows, of which these are the first (--json and --csv have all)\n"


def test_who_is_slow_to_read_an_answer_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is the warehouse still locked, nor does the clock of the statement run."""
    from ingest.cli import asking, cli
    from tests.test_exactly_once import warehouse_at

    monkeypatch.setenv("INGEST_WAREHOUSE", f"duckdb:///{tmp_path / 'w.duckdb'}")
    before, seen = getrlimit(RLIMIT_DATA), []

    def taken(waiting: IO[bytes]) -> None:
        with warehouse_at(tmp_path / "w.duckdb").locked(LOCK_EX):
            seen.append((json.loads(waiting.read()), getrlimit(RLIMIT_DATA)))

    monkeypatch.setattr(asking, "write_waiting", taken)
    cli.main(["sql", "select 1 as n", "--json"], standalone_mode=False)
    assert seen == [([{"n": 1}], before)]


def test_limits_are_those_of_the_statement_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest.cli.asking import _held_to
    from ingest.ports import QueryLimits

    before = getrlimit(RLIMIT_DATA)
    with _held_to(QueryLimits(1 << 30, 60)):
        assert getrlimit(RLIMIT_DATA) != before
    assert getrlimit(RLIMIT_DATA) == before
