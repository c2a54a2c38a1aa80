"""How a command ends that could not do all it was asked for: in a sentence, with an exit code that is true."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from ingest import unforeseen
from ingest.cli import cli
from ingest.cli.streams import OutputFailed
from tests.conftest import S3
from tests.support import ROOT, lines, record
from tests.test_cli import GOOD, Shell, ingest

__all__ = ["ingest"]  # a fixture

NAMED_LOG = re.compile(r"The trace is in (\S+\.log)")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ingest", *arguments]


def environ(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


# --- errors that nobody foresaw --------------------------------------------------------------------------------------


def deep() -> None:
    deep()


def raises(error: BaseException) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(("run", "sentence"), [
    pytest.param(raises(KeyError("ETag")), "Something went wrong: KeyError: 'ETag'.", id="of ours"),
    pytest.param(raises(ValueError("two\nlines \x1b[31m")), r"ValueError: two lines \x1b[31m.", id="made visible"),
    pytest.param(raises(ValueError("x" * 5_000)), "xxx….", id="not too long"),
    pytest.param(raises(MemoryError()), "There is not enough memory for this.", id="memory"),
    pytest.param(deep, "Something is nested too deeply for this.", id="recursion"),
    pytest.param(raises(PermissionError(13, "Permission denied", "/a")), "/a: Permission denied.", id="of the system"),
    pytest.param(raises(BrokenPipeError(32, "Broken pipe")), "Broken pipe.", id="a socket that was closed"),
    pytest.param(raises(EOFError("cut")), "EOFError: cut.", id="the end of a file, which is no Ctrl-C"),
    pytest.param(raises(ModuleNotFoundError("No module named 'duckdb'")), "No module named", id="not installed"),
])  # fmt: skip
def test_what_nobody_foresaw_is_one_sentence_that_names_a_log(
    ingest: Shell, monkeypatch: pytest.MonkeyPatch, run: Callable[[], None], sentence: str
) -> None:
    monkeypatch.setitem(cli.commands, "fail", click.Command("fail", callback=lambda **_: run(), params=[JSON]))
    ran, told = ingest("fail"), ingest("fail", "--json")
    assert (ran.code, ran.out, told.code, [*told.json]) == (2, b"", 2, ["error"])
    for text in (ran.err, told.json["error"]):
        assert sentence in text
        assert "Traceback" not in text
        named = NAMED_LOG.search(text)
        assert named
        log = Path(named[1])
        assert log.stat().st_mode & 0o777 == 0o600
        assert "Traceback" in log.read_text()
    assert len(ran.err.splitlines()) == 1


JSON = click.Option(["--json", "as_json"], is_flag=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_of_an_import_is_a_signal(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """A module in C makes an ImportError of what comes while it begins."""
    (tmp_path / "run.py").write_text("""
import signal, sys
import click
from ingest.cli import cli, main
@cli.command()
@click.argument("number")
def begin(number):
    try:
        signal.raise_signal(int(number))
    except BaseException as stopped:
        raise ImportError("initialization failed") from stopped
sys.argv[1:] = ["begin", *sys.argv[1:]]
main()
""")
    ran = subprocess.run(
        [sys.executable, "run.py", str(int(number))], cwd=tmp_path, env=environ(), capture_output=True, check=False
    )
    assert (ran.returncode, b"stopped" in ran.stderr) == (code, True)


def test_an_answer_that_is_no_json_is_said(ingest: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest.cli.output import write_json

    monkeypatch.setitem(
        cli.commands, "fail", click.Command("fail", callback=lambda **_: write_json({1: 2**99}), params=[JSON])
    )
    told = ingest("fail", "--json")
    assert (told.code, [*told.json]) == (2, ["error"])


def failed() -> Exception:
    try:
        raise KeyError("ETag")
    except KeyError as error:
        return error


def logs(folder: Path) -> list[Path]:
    return sorted(folder.rglob("landfall-error-*.log"))


def test_logs_are_few_and_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(unforeseen, "LOG_CHARACTERS", 100)
    for _ in range(unforeseen.LOGS_KEPT + 5):
        said = unforeseen.said(failed())
    kept = logs(tmp_path)
    assert len(kept) == unforeseen.LOGS_KEPT
    assert NAMED_LOG.findall(said)[0] in map(str, kept)
    assert {"left out" in log.read_text() and log.stat().st_size < 1_000 for log in kept} == {True}


@pytest.mark.parametrize(("state", "home"), [
    pytest.param(None, "here", id="the home"),
    pytest.param("relative", "here", id="a folder that is no whole path"),
    pytest.param("here", "/nonexistent", id="the folder for states"),
])  # fmt: skip
def test_where_logs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str | None, home: str) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / home))
    monkeypatch.delenv("XDG_STATE_HOME")
    if state:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / state) if state == "here" else state)
    unforeseen.said(failed())
    (log,) = logs(tmp_path)
    assert log.parent == tmp_path / ("here/landfall" if state == "here" else "here/.local/state/landfall")


def test_logs_go_elsewhere_or_nowhere_rather_than_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert str(logs(tmp_path)) not in unforeseen.said(failed())
    assert len(logs(tmp_path)) == 1
    monkeypatch.setattr("tempfile.tempdir", "/proc")
    assert unforeseen.said(failed()).endswith("No log of it could be written: report it, if it comes again.")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError


def test_an_error_that_cannot_be_told_is_named(tmp_path: Path) -> None:
    assert "Something went wrong: Unspeakable." in unforeseen.said(Unspeakable())


# --- one source is no reason to leave the others ---------------------------------------------------------------------


@pytest.fixture
def one_is_broken(ingest: Shell, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Two sources, of which the first meets what nobody foresaw."""
    from ingest.adapters.stores import Stores

    odd = {"name": "odd", "bucket": "odd", "after_load": "archive"}
    ingest.config(odd, {"name": "web", "bucket": s3.bucket})
    s3.put("1.json", lines(*GOOD))
    listed = Stores.list

    def list(self: Stores, bucket: str, prefix: str, *more: Any) -> Any:
        if bucket == "odd":
            raise KeyError("ETag")
        return listed(self, bucket, prefix, *more)

    monkeypatch.setattr(Stores, "list", list)
    return ingest


def test_a_poll_goes_on_with_the_next_source(one_is_broken: Shell) -> None:
    ran = one_is_broken("poll", "--json")
    assert (ran.code, [file["state"] for file in ran.json["files"]]) == (2, ["loaded"])
    (error,) = ran.json["errors"]
    assert error.startswith("odd: Something went wrong: KeyError")
    assert NAMED_LOG.search(error)


def test_every_source_is_tried(one_is_broken: Shell) -> None:
    ran = one_is_broken("sources", "--json")
    assert (ran.code, [source["reachable"] for source in ran.json["sources"]]) == (2, [False, True])
    assert "KeyError" in ran.json["sources"][0]["error"]


def test_every_source_is_compared(one_is_broken: Shell) -> None:
    ran = one_is_broken("reconcile", "--json")
    assert (ran.code, ran.json["compared"]) == (2, {"web": 1})
    (odd,) = (one for one in ran.json["differences"] if one["source"] == "odd")
    assert (odd["what"], "KeyError" in odd["explanation"]) == ("unforeseen", True)
    (archive,) = (one for one in ran.json["information"] if one["what"] == "archive_unlisted")
    assert "KeyError" in archive["explanation"]


def test_what_was_loaded_is_told_whatever_comes_after(ingest: Shell, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that cannot be made for a reason that nobody foresaw."""
    ingest.config({"name": "web", "bucket": s3.bucket, "report_prefix": "reports/"})
    s3.put("1.json", lines(*GOOD, "no json"))

    def report(*_: object) -> None:
        raise KeyError("gone")

    monkeypatch.setattr("ingest.archiving.file_report", report)
    ran = ingest("poll", "--json")
    assert ([file["state"] for file in ran.json["files"]], "KeyError" in ran.err) == (["loaded"], True)


# --- output that nobody reads ----------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "a.json").write_bytes(lines(*(record("ann", at, "x" * 200) for at in range(2_000))))
    return tmp_path


def end(folder: Path, *arguments: str, stdout: Any, stderr: Any = subprocess.PIPE) -> tuple[int, str]:
    with subprocess.Popen(command(*arguments), cwd=folder, env=environ(), stdout=stdout, stderr=stderr) as process:
        if process.stdout:
            process.stdout.close()  # before the first byte of it
        err = process.stderr.read().decode() if process.stderr else ""
    return process.returncode, err


@pytest.mark.parametrize("arguments", [("load", "a.json"), ("load", "a.json", "--json"), ("check", "a.json"), ("-h",)])
def test_who_stops_reading_ends_a_command_quietly(here: Path, arguments: tuple[str, ...]) -> None:
    code, err = end(here, *arguments, stdout=subprocess.PIPE)
    assert code == 141
    assert [line for line in err.splitlines() if not line.startswith("Warehouse: ")] == []


def test_a_load_whose_output_nobody_reads_is_finished(here: Path) -> None:
    end(here, "load", "a.json", "--json", stdout=subprocess.PIPE)
    ran = subprocess.run(command("files", "--json"), cwd=here, env=environ(), capture_output=True, check=True)
    assert [(file["state"], file["lines"]) for file in json.loads(ran.stdout)["files"]] == [("loaded", 2_000)]


@pytest.mark.parametrize("arguments", [("load", "a.json"), ("load", "a.json", "--json"), ("--version",)])
def test_output_that_cannot_be_written_is_said(here: Path, arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        code, err = end(here, *arguments, stdout=full)
    assert (code, err.splitlines()[-1]) == (2, "ingest: the output could not be written: No space left on device.")


def test_no_file_takes_the_place_of_a_closed_output(here: Path) -> None:
    shell = f"exec {sys.executable} -m ingest load a.json >&-"
    ran = subprocess.run(["sh", "-c", shell], cwd=here, env=environ(), capture_output=True, check=False)
    assert (ran.returncode, b"could not be written" in ran.stderr) == (2, True)
    assert (here / "warehouse.duckdb.lock").read_bytes() == b""


@pytest.mark.parametrize("errors", ["/dev/full", "closed", "a pipe"])
def test_sentences_that_cannot_be_said_stop_nothing(here: Path, errors: str) -> None:
    """A full disk, nothing at all, a pipe that nobody reads: the command goes on, and answers."""
    reader, writer = os.pipe()
    os.close(reader)
    where = {"/dev/full": "2>/dev/full", "closed": "2>&-", "a pipe": ""}[errors]
    shell = ["sh", "-c", f"exec {sys.executable} -m ingest load a.json --json {where}"]
    ran = subprocess.run(shell, cwd=here, env=environ(), stdout=subprocess.PIPE, stderr=writer, check=False)
    os.close(writer)
    assert (ran.returncode, json.loads(ran.stdout)["files"][0]["state"]) == (0, "loaded")


def test_output_that_failed_stops_what_goes_on_after_errors() -> None:
    assert not issubclass(OutputFailed, Exception)


# --- connections that others close -----------------------------------------------------------------------------------


class HangingUp(threading.Thread):
    """A store that takes a connection and resets it, sooner or later."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.calls = 0

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            if self.calls % 2:
                connection.recv(100)
            self.calls += 1
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()


def test_a_store_that_hangs_up_ends_no_poll(tmp_path: Path) -> None:
    store = HangingUp()
    store.start()
    sources = "".join(f'[[source]]\nname = "{name}"\nbucket = "acme"\nprefix = "{name}/"\n' for name in ("one", "two"))
    (tmp_path / "ingest.toml").write_text(sources)
    endpoint = f"http://127.0.0.1:{store.listening.getsockname()[1]}"
    reached = environ(
        AWS_ENDPOINT_URL_S3=endpoint, AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s", AWS_DEFAULT_REGION="us-east-1",
        AWS_MAX_ATTEMPTS="2",
    )  # fmt: skip
    ran = subprocess.run(command("poll", "--json"), cwd=tmp_path, env=reached, capture_output=True, check=False)
    store.listening.close()
    assert store.calls, ran.stderr
    assert (ran.returncode, [error.partition(":")[0] for error in json.loads(ran.stdout)["errors"]]) == (
        2,
        ["one", "two"],
    )


def test_no_signal_is_left_to_end_the_process_at_a_closed_connection() -> None:
    """Python ignores SIGPIPE, and every connection of ours counts on that."""
    script = (
        "import signal, sys; from ingest.cli import main; sys.argv = ['ingest', '--version']\n"
        "try: main()\nfinally: print(signal.getsignal(signal.SIGPIPE).name, file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", script], env=environ(), capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, f"{signal.SIG_IGN.name}\n".encode())


def test_stopped_while_it_is_starting(tmp_path: Path) -> None:
    """Ctrl-C while modules are imported, before there is anything that could say so."""
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    ran = subprocess.run(
        command("files"), cwd=tmp_path, env=environ(PYTHONPATH=f"{tmp_path}:{ROOT}"), capture_output=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (130, b"")


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        pytest.param(["check", os.fsdecode(b"\xff.json")], {}, id="a file"),
        pytest.param(["undo", os.fsdecode(b"\xff")], {}, id="an id"),
        pytest.param(["files"], {"INGEST_CONFIG": os.fsdecode(b"\xff.toml")}, id="a setting"),
        pytest.param(["files"], {os.fsdecode(b"INGEST_\xff"): "1"}, id="the name of one"),
    ],
)
def test_what_is_no_text_is_said_as_text(arguments: list[str], variables: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        command(*arguments, "--json"), cwd=tmp_path, env=environ(**variables), capture_output=True, check=False
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]
    assert b"Something went wrong" not in done.stderr
    assert b"Traceback" not in done.stderr
