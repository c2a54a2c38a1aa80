"""The command line as SPEC 5 promises it: what it prints, what it returns, what it refuses."""

import base64
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import duckdb
import pytest

from ingest.cli import main
from ingest.core.lifecycle import STATES, State
from tests.conftest import S3
from tests.support import ROOT, START, alias, lines, put, record

CHECKED = {
    "file", "format", "lines", "blank", "records", "sets", "aliases", "failed", "repaired", "warnings", "events",
    "persons", "first_time", "last_time", "preview", "failures",
}  # fmt: skip
LOADED = {
    "file_id", "bucket", "key", "state", "lines", "blank", "records", "sets", "aliases", "failed", "repaired",
    "duplicates",
}  # fmt: skip
GOOD = (record("ann", 0, "x"), put("ann", 1, a=1), alias("ann", "bob", 2))
BAD = (*GOOD, "", "no json", '{"_p":"ann"}')


@dataclass(frozen=True)
class Ran:
    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """Runs `ingest` in a folder of its own."""

    folder: Path
    run: Callable[..., Ran]

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Ran:
        return self.run(arguments, stdin)

    def json(self, *arguments: str) -> Any:
        ran = self(*arguments, "--json")
        assert ran.code == 0, ran.err
        return ran.json

    def file(self, name: str, *content: Any, body: bytes | None = None) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lines(*content) if body is None else body)
        return name

    def config(self, *sources: dict[str, Any], **top: Any) -> None:
        text = [f"{name} = {json.dumps(value)}" for name, value in top.items()]
        for source in sources:
            text += ["[[source]]", *(f"{name} = {json.dumps(value)}" for name, value in source.items())]
        (self.folder / "ingest.toml").write_text("\n".join(text), encoding="utf-8")


@pytest.fixture
def ingest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Shell:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    # That of the test process stays as it is.
    monkeypatch.setattr("ingest.cli.signal", SimpleNamespace(signal=lambda *_: None, SIGTERM=signal.SIGTERM))

    def run(arguments: tuple[str, ...], stdin: bytes) -> Ran:
        capfdbinary.readouterr()
        monkeypatch.setattr(sys, "argv", ["ingest", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as end:
            main()
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        code = end.value.code
        assert code is None or isinstance(code, int)
        return Ran(code or 0, captured.out, captured.err.decode())

    return Shell(folder, run)


# --- check -----------------------------------------------------------------------------------------------------------


def test_check_tells_all(ingest: Shell) -> None:
    ingest.file("a.json", record("Ann", 0, "x", _ip="::1", b=1), *BAD, body=None)
    ran = ingest("check", "a.json", "--json")
    assert ran.code == 1
    report = ran.json
    assert report.keys() >= CHECKED
    assert report["file"] == str(ingest.folder / "a.json")
    assert (report["format"], report["lines"], report["blank"], report["failed"]) == ("kissmetrics", 7, 1, 2)
    assert (report["records"], report["sets"], report["aliases"], report["repaired"]) == (2, 1, 1, 0)
    assert (report["events"], report["warnings"], report["persons"]) == ({"x": 2}, {}, 1)
    assert (report["first_time"], report["last_time"]) == ("2014-02-25T16:10:03Z", "2014-02-25T16:10:05Z")
    assert [entry["kind"] for entry in report["preview"]] == ["record", "record", "set", "alias"]
    first = report["preview"][0]
    assert (first["person"], first["event"], first["properties"]) == ("Ann", "x", {"_ip": "::1", "b": 1})
    bad = [(f["line"], f["item"], f["codes"], f["raw"]) for f in report["failures"]]
    assert bad == [(6, "", ["not_json"], "no json"), (7, "", ["time_missing", "no_command"], '{"_p":"ann"}')]
    body = (ingest.folder / "a.json").read_bytes()
    for failed in report["failures"]:
        assert body[failed["byte_offset"] :][: failed["byte_length"]].decode() == failed["raw"]
        assert [failure["code"] for failure in failed["failures"]] == failed["codes"]
        assert all(failure["message"] and "pointer" in failure for failure in failed["failures"])


def test_check_shows_ten_commands(ingest: Shell) -> None:
    ingest.file("a.json", *(record("ann", n, "x") for n in range(30)))
    report = ingest.json("check", "a.json")
    assert [entry["line"] for entry in report["preview"]] == list(range(1, 11))
    assert ingest("check", "a.json").code == 0


def test_a_rule_that_is_broken_everywhere_is_told_by_its_first_places(ingest: Shell) -> None:
    name = ingest.file("a.json", record("ann", 0, "x", **{f"x{n}": [] for n in range(2_000)}))
    (line,) = ingest("check", name, "--json").json["failures"]
    assert [failure.get("more") for failure in line["failures"]] == [*[None] * 9, 1_990]
    assert b"nested_value at 1,990 more places" in ingest("check", name).out


def test_check_shows_bytes_that_are_no_text(ingest: Shell) -> None:
    ingest.file("a.json", body=b'{"_p":"\xff"}\n')
    (failed,) = ingest("check", "a.json", "--json").json["failures"]
    assert base64.b64decode(failed["raw_base64"]) == b'{"_p":"\xff"}'
    assert isinstance(failed["raw"], str)


def test_check_keeps_every_digit(ingest: Shell) -> None:
    ingest.file("a.json", f'{{"_p":"a","_t":{START},"a":1.10,"b":9223372036854775808,"c":{"9" * 30}}}')
    out = re.sub(rb"\s", b"", ingest("check", "a.json", "--json").out)
    assert b'"properties":{"a":1.10,"b":9223372036854775808,"c":%b}' % (b"9" * 30) in out


def test_check_reads_standard_input(ingest: Shell) -> None:
    ran = ingest("check", "-", "--json", stdin=lines(*BAD))
    assert (ran.code, ran.json["lines"], ran.json["failed"]) == (1, 6, 2)
    assert ingest("check", "-", "--json", stdin=gzip.compress(lines(*GOOD))).json["records"] == 1
    assert ingest("check", "-", "--json", stdin=b"").json["first_time"] is None


def test_check_needs_no_warehouse(ingest: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest.file("a.json", *GOOD)
    monkeypatch.setenv("INGEST_WAREHOUSE", "duckdb:////nowhere/at/all.duckdb")
    assert ingest("check", "a.json").code == 0
    assert [path.name for path in ingest.folder.iterdir()] == ["a.json"]
    ran = ingest("load", "a.json")
    assert (ran.code, ran.out) == (2, b"")
    assert "/nowhere/at" in ran.err


@pytest.mark.parametrize("arguments", [
    pytest.param(("check", "missing.json"), id="no such file"),
    pytest.param(("check", "a.json", "--format", "csv"), id="no such format"),
    pytest.param(("check", "a.json", "--source", "web"), id="no such source"),
    pytest.param(("check", "ftp://host/a.json"), id="no such address"),
    pytest.param(("check", "s3://"), id="no bucket"),
    pytest.param(("check",), id="no argument"),
    pytest.param(("check", "a.json", "--nonsense"), id="no such option"),
    pytest.param(("nonsense",), id="no such command"),
    pytest.param(("load", "missing.json"), id="load: no such file"),
    pytest.param(("load", "empty/"), id="load: nothing under a prefix"),
    pytest.param(("failures", "abc"), id="failures: no such file"),
    pytest.param(("poll",), id="poll: no source"),
    pytest.param(("poll", "web"), id="poll: no such source"),
    pytest.param(("sources", "web"), id="sources: no such source"),
    pytest.param(("sql", "select 1 from nowhere"), id="sql: no such table"),
    pytest.param(("sql", "selec 1"), id="sql: no SQL"),
    pytest.param(("check", ""), id="check: an empty path"),
    pytest.param(("load", ""), id="load: an empty path"),
    pytest.param(("load", "a.json", "--source", ""), id="load: an empty source"),
    pytest.param(("failures", ""), id="failures: an empty id"),
    pytest.param(("redrive", ""), id="redrive: an empty id"),
    pytest.param(("undo", ""), id="undo: an empty id"),
    pytest.param(("undo", "--source", "one_off", "--since", ""), id="undo: an empty time"),
    pytest.param(("export", "--to", ""), id="export: an empty folder"),
    pytest.param(("copy", "--to", " "), id="copy: a blank URL"),
    pytest.param(("files", "--state", "nope"), id="files: no such state"),
])  # fmt: skip
def test_what_cannot_be_done_is_said_in_a_sentence(ingest: Shell, arguments: tuple[str, ...]) -> None:
    ingest.file("a.json", *GOOD)
    (ingest.folder / "empty").mkdir()
    ran, told = ingest(*arguments), ingest(*arguments, "--json")
    assert (ran.code, told.code) == (2, 2)
    assert ran.out == b""
    (sentence,) = {told.json.get("error"), *told.json.get("errors", ())} - {None}
    assert sentence
    for one in (ran, told):
        assert sentence in one.err
        assert "Traceback" not in one.err


def test_several_sentences_are_told_one_by_one_in_json(ingest: Shell) -> None:
    ingest.config(colour="red", max_line_bytes=0)
    told = ingest("files", "--json").json
    assert [sentence.split(" ")[1] for sentence in told["errors"]] == ["colour:", "max_line_bytes"]
    assert told["error"] == "\n".join(told["errors"])


@pytest.mark.parametrize("command", ["undo", "failures", "redrive", "release", "ignore"])
def test_an_empty_id_is_no_beginning_of_one(ingest: Shell, command: str) -> None:
    ingest.file("a.json", *BAD)
    ingest("load", "a.json")
    ran = ingest(command, "", "--json")
    assert (ran.code, "is empty" in ran.json["error"]) == (2, True)
    assert [file["state"] for file in ingest.json("files")["files"]] == ["loaded"]


def test_a_broken_file_cannot_be_checked(ingest: Shell) -> None:
    ingest.file("a.json", body=gzip.compress(lines(*GOOD))[:-9])
    ran = ingest("check", "a.json", "--json")
    assert (ran.code, [*ran.json]) == (2, ["error"])
    assert ran.err.strip()


# --- load, files, failures -------------------------------------------------------------------------------------------


def test_load_and_load_again(ingest: Shell) -> None:
    ingest.file("a.json", *BAD)
    first = ingest("load", "a.json", "--json")
    assert first.code == 1
    assert "warehouse.duckdb" in first.err
    (file,) = first.json["files"]
    assert file.keys() >= LOADED
    assert {name: file[name] for name in LOADED - {"file_id"}} == {
        "bucket": "file", "key": str(ingest.folder / "a.json"), "state": "loaded", "lines": 6, "blank": 1, "records": 1,
        "sets": 1, "aliases": 1, "failed": 2, "repaired": 0, "duplicates": 0,
    }  # fmt: skip
    again = ingest("load", "a.json", "--json")
    assert again.code == 0
    assert again.json["files"] == [file | {"already": True}]
    assert ingest("load", "a.json").code == 0
    assert ingest("load", "a.json", "--force").code == 1


def test_load_takes_folders_in_natural_order_and_several_paths(ingest: Shell) -> None:
    for number in (10, 9, 1):
        ingest.file(f"landing/{number}.json", record("ann", number, "x"))
    ingest.file("landing/deeper/11.JSON.GZ", body=gzip.compress(lines(record("ann", 11, "x"))))
    ingest.file("landing/notes.txt", "no")
    ingest.file("other.txt", record("ann", 0, "x"))
    files = ingest.json("load", "landing", "other.txt")["files"]
    names = [os.path.relpath(file["key"], ingest.folder) for file in files]
    assert names == ["landing/1.json", "landing/9.json", "landing/10.json", "landing/deeper/11.JSON.GZ", "other.txt"]
    assert {file["state"] for file in files} == {"loaded"}


def test_what_is_passed_over_below_a_folder_is_named(ingest: Shell) -> None:
    ingest.file("landing/a.json", *GOOD)
    for name in ("x.csv", "c.jsonl"):
        ingest.file(f"landing/{name}", *GOOD)
    ran = ingest("load", "landing", "--json")
    assert (ran.code, len(ran.json["files"])) == (0, 1)
    assert "2 objects left out (not named .json or .json.gz): " in ran.err
    for name in ("x.csv", "c.jsonl"):
        assert f"landing/{name}" in ran.err
    assert "left out" not in ingest("load", "landing/a.json", "landing/x.csv").err


def test_what_is_missing_does_not_hold_up_the_others(ingest: Shell, s3: S3) -> None:
    ingest.file("good.json", *GOOD)
    s3.put("a.json", lines(record("bob", 0, "x")))
    missing = ["nope.json", f"s3://{s3.bucket}/gone.json", "s3://no-such-bucket-anywhere/a/"]
    ran = ingest("load", missing[0], "good.json", *missing[1:], f"s3://{s3.bucket}/a.json", "--json")
    assert (ran.code, [file["state"] for file in ran.json["files"]]) == (2, ["loaded", "loaded"])
    assert len(ran.json["errors"]) == 3
    for name, sentence in zip(missing, ran.json["errors"], strict=True):
        assert name in sentence
        assert f"ingest: {sentence}" in ran.err
    shown = ingest("load", "nope.json", "good.json")
    assert (shown.code, b"already loaded" in shown.out) == (2, True)
    assert (ingest("load", "nope.json").code, ingest("load", "nope.json").out) == (2, b"")


def test_a_dry_run_loads_nothing(ingest: Shell) -> None:
    ingest.file("a.json", *BAD)
    ran = ingest("load", "a.json", "--dry-run", "--json")
    assert (ran.code, ran.json["files"][0]["records"], ran.json["files"][0]["failed"]) == (1, 1, 2)
    assert ingest.json("files") == {"files": []}


@pytest.mark.parametrize(("content", "code", "state"), [
    pytest.param({"body": lines(*GOOD)}, 0, "loaded", id="all loaded"),
    pytest.param({"body": b""}, 0, "loaded", id="empty"),
    pytest.param({"body": lines(*BAD)}, 1, "rejected", id="over its limit"),
    pytest.param({"body": b"{\n}\n"}, 1, "rejected", id="no lines"),
    pytest.param({"body": gzip.compress(lines(*GOOD))[:-9]}, 2, "retrying", id="broken"),
])  # fmt: skip
def test_exit_codes_of_load(ingest: Shell, content: Any, code: int, state: str) -> None:
    ingest.config({"name": "web", "bucket": "acme-events", "max_failed_lines": 1})
    ingest.file("b.json", **content)
    ran = ingest("load", "b.json", "--source", "web", "--json")
    assert (ran.code, [file["state"] for file in ran.json["files"]]) == (code, [state])
    table = ingest("load", "b.json", "--source", "web")
    assert table.code == code
    assert state.encode() in table.out
    (entry,) = ingest.json("files", "--state", state)["files"]
    assert entry["source"] == "web"
    assert bool(entry["error"]) == (state != "loaded")


def test_files(ingest: Shell) -> None:
    ingest.file("a.json", *GOOD)
    ingest.file("b.json", *BAD)
    ingest("load", "a.json", "b.json")
    listed = ingest.json("files")["files"]
    assert [Path(file["key"]).name for file in listed] == ["b.json", "a.json"]
    assert listed[0].keys() >= LOADED | {"load_id", "loaded_at", "sha256", "source", "attempts", "error"}
    at = datetime.fromisoformat(listed[0]["loaded_at"])
    assert listed[0]["loaded_at"].endswith("Z")
    assert at.utcoffset() is not None
    assert len(ingest.json("files", "--limit", "1")["files"]) == 1
    assert ingest.json("files", "--state", "rejected") == {"files": []}
    nobody = ingest("files", "--source", "nobody", "--json")
    assert (nobody.code, "no source nobody" in nobody.json["error"]) == (2, True)
    assert "no source nobody" in nobody.err
    assert "no source" not in ingest("files", "--source", "one_off").err
    assert len(ingest.json("files", "--source", "one_off")["files"]) == 2
    assert b"loaded" in ingest("files").out


def test_files_can_be_asked_for_by_every_state() -> None:
    assert {*STATES, "gone"} == {*get_args(State)}


def test_failures(ingest: Shell) -> None:
    ingest.file("a.json", body=lines(*BAD) + b"\xff\ttab\r\n")
    (file,) = ingest("load", "a.json", "--json").json["files"]
    told = ingest.json("failures", file["file_id"])
    assert told.keys() >= {"file_id", "failures"}
    assert [(one["line"], one["codes"]) for one in told["failures"]] == [
        (5, ["not_json"]), (6, ["time_missing", "no_command"]), (7, ["not_utf8"]),
    ]  # fmt: skip
    assert base64.b64decode(told["failures"][2]["raw_base64"]) == b"\xff\ttab"
    shape = {"line", "item", "byte_offset", "byte_length", "codes", "failures", "raw"}
    assert all(one.keys() >= shape for one in told["failures"])
    raw = ingest("failures", file["file_id"][:8], "--lines")
    assert raw.code == 0
    assert raw.out == b'5\tno json\n6\t{"_p":"ann"}\n7\t\xff\ttab\n'
    ingest.file("lines.txt", body=raw.out)
    unchanged = ingest("redrive", file["file_id"], "lines.txt", "--json")
    assert (unchanged.json["files"], unchanged.json["still_wrong"]) == ([], 3)
    shown = ingest("failures", file["file_id"])
    assert b"not_json" in shown.out
    named = file["file_id"][:8]
    assert f"ingest failures {named} --lines > fix.txt, edit it, ingest redrive {named} fix.txt" in shown.err
    both = ingest("failures", file["file_id"], "--lines", "--json")
    assert (both.code, "not both" in both.json["error"]) == (2, True)


def test_why_a_failed_line_cannot_be_mended(ingest: Shell) -> None:
    ingest.config(max_line_bytes=100)
    ingest.file("document.json", body=b'{\n"a": 1\n}\n')
    ingest.file("long.json", "no json", "x" * 200, *GOOD)
    (document, long) = ingest("load", "document.json", "long.json", "--json").json["files"]
    ran = ingest("failures", document["file_id"], "--lines")
    assert (ran.code, ran.out) == (0, b"")
    assert "The file was refused as a whole (document_not_lines)" in ran.err
    assert "To fix them" not in ingest("failures", document["file_id"]).err
    ingest.file("fixed.txt", body=b'1\t{"_p":"ann","_t":1393344604,"_n":"x"}\n')
    fixed = ingest("redrive", document["file_id"], "fixed.txt", "--json")
    assert (fixed.code, "refused as a whole" in fixed.json["error"]) == (2, True)
    assert ingest("sql", "select count(*) as n from commands", "--json").json == [{"n": 3}], "of the other file only"
    assert "too long" not in ran.err
    ran = ingest("failures", long["file_id"], "--lines")
    assert ran.out == b"1\tno json\n"
    assert "1 more failed line, too long to keep whole" in ran.err


def test_a_terminal_is_not_told_what_to_do(ingest: Shell) -> None:
    """An escape sequence in a producer's line is shown, not obeyed."""
    ingest.file("a.json", body=b"\x1b]0;owned\x07 [bold]x[/bold]\n")
    shown = ingest("check", "a.json").out
    assert b"\x1b]0" not in shown
    assert b"[bold]" in shown


# --- settings --------------------------------------------------------------------------------------------------------


def test_every_wrong_setting_is_named_at_once(ingest: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest.file("a.json", *GOOD)
    ingest.config(
        {"name": "Web", "bucket": "s3://x", "format": "csv"}, {"name": "action", "bucket": "acme", "speed": 1},
        max_line_bytes=0, colour="red",
    )  # fmt: skip
    monkeypatch.setenv("INGEST_NONSENSE", "1")
    monkeypatch.setenv("INGEST_WAREHOUSE", "mysql://me:secret@host/x")
    for command in ("check", "load"):
        ran = ingest(command, "a.json")
        assert (ran.code, ran.out) == (2, b"")
        for wrong in (
            "Web",
            "s3://x",
            "csv",
            "action",
            "speed",
            "max_line_bytes",
            "colour",
            "INGEST_NONSENSE",
            "INGEST_WAREHOUSE",
        ):
            assert wrong in ran.err, wrong
        assert "secret" not in ran.err


def test_without_a_config_the_warehouse_is_here_and_with_one_beside_it(
    ingest: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest.file("a.json", *GOOD)
    assert ingest("load", "a.json").code == 0
    assert (ingest.folder / "warehouse.duckdb").exists()
    ingest.file("etc/ingest.toml", "")
    monkeypatch.setenv("INGEST_CONFIG", str(ingest.folder / "etc/ingest.toml"))
    assert ingest("load", "a.json").code == 0
    assert (ingest.folder / "etc/warehouse.duckdb").exists()
    monkeypatch.setenv("INGEST_WAREHOUSE", "duckdb:///other.duckdb")
    ingest("load", "a.json")
    assert (ingest.folder / "etc/other.duckdb").exists()
    monkeypatch.setenv("INGEST_CONFIG", "missing.toml")
    assert ingest("files").code == 2


# --- sql -------------------------------------------------------------------------------------------------------------


def test_sql_on_a_new_warehouse(ingest: Shell) -> None:
    tables = "ledger commands failed_lines history events identities people accounts kissmetrics_events"
    for table in tables.split():
        assert ingest.json("sql", f"select * from {table}") == []


def test_sql_answers_in_json(ingest: Shell) -> None:
    ingest.file("a.json", record("ann", 0.25, "x", a=1.5), "\\")
    ingest("load", "a.json")
    assert ingest.json("sql", "select person, occurred_at, properties, line from events") == [
        {"person": "ann", "occurred_at": "2014-02-25T16:10:03.250000Z", "properties": {"a": 1.5}, "line": 1}
    ]
    (failed,) = ingest.json("sql", "select raw, codes, failures, redriven_at from failed_lines")
    assert (base64.b64decode(failed["raw"]), failed["codes"], failed["redriven_at"]) == (b"\\", ["not_json"], None)
    assert failed["failures"][0]["code"] == "not_json"
    select = "select {'at': occurred_at, 'raw': 'a'::blob} as s, [occurred_at] as l, 'nan'::double as n from events"
    at = "2014-02-25T16:10:03.250000Z"
    assert ingest.json("sql", select) == [{"s": {"at": at, "raw": "YQ=="}, "l": [at], "n": None}]
    exact = ingest("sql", "select 1.10::decimal(4,2) as d, 9223372036854775807::hugeint * 4 as h", "--json").out
    assert b"".join(exact.split()) == b'[{"d":1.10,"h":36893488147419103228}]'
    assert b"ann" in ingest("sql", "with e as (select person from events) select * from e").out
    assert ingest("sql", "describe events").code == 0


@pytest.mark.parametrize(("select", "values"), [
    pytest.param("'infinity'::timestamp", ["infinity"], id="infinity"),
    pytest.param("timestamptz '-infinity'", ["-infinity"], id="with a zone"),
    pytest.param("'-infinity'::date", ["-infinity"], id="a day"),
    pytest.param("timestamp '20000-01-01'", ["20000-01-01T00:00:00.000000"], id="later than Python"),
    pytest.param("date '0044-01-01 (BC)'", ["-0043-01-01"], id="earlier than Python"),
    pytest.param("timestamp_ns '2020-01-01 00:00:00.123456789'", ["2020-01-01T00:00:00.123456789"], id="nanoseconds"),
    pytest.param("{'d': ['infinity'::date, null]}", [{"d": ["infinity", None]}], id="in a list in a struct"),
    pytest.param("map {'k': 'infinity'::date}", [[["k", "infinity"]]], id="in a map"),
    pytest.param("union_value(u := 'infinity'::date)", ["infinity"], id="in a union"),
    pytest.param("1 as a, 2 as a, 3 as b", [1, 2, 3], id="a name that comes twice"),
    pytest.param("json_object('k', 1e400)", ['{"k":Infinity}'], id="JSON that is none"),
])  # fmt: skip
def test_sql_answers_whatever_it_is_asked(ingest: Shell, select: str, values: list[Any]) -> None:
    (row,) = ingest.json("sql", f"select {select}")
    assert list(row.values()) == values
    assert ingest("sql", f"select {select}").code == 0


def test_sql_that_fails_on_the_way_is_said(ingest: Shell) -> None:
    late = "select case when range = 300000 then 'x' else '1' end::int from range(400000)"
    for statement in (late, "select {'a': 1}::variant"):
        ran = ingest("sql", statement, "--json")
        assert (ran.code, ran.json["error"].startswith("The warehouse refused the statement: ")) == (2, True)


def test_sql_takes_any_text_and_pivots(ingest: Shell) -> None:
    ingest.file("a.json", record("ann", 0, "x"), record("ann", 1, "y"))
    ingest("load", "a.json")
    assert ingest.json("sql", "-- how many\nselect count(*) as n from events") == [{"n": 2}]
    assert ingest.json("sql", "--json is no option here\nselect 1 as n") == [{"n": 1}]
    pivoted = "pivot (select person, event from events) on event using count(*)"
    assert ingest.json("sql", pivoted) == [{"person": "ann", "x": 1, "y": 1}]
    assert ingest("sql", f"create temp type t as enum ('a'); {pivoted}").code == 2


def test_sql_cannot_read_the_file_of_the_warehouse(ingest: Shell) -> None:
    ingest("load", ingest.file("a.json", *GOOD))
    path = ingest.folder / "warehouse.duckdb"
    for statement in (f"from read_blob('{path}')", f"from '{path}'", f"explain from read_text('{path}')"):
        ran = ingest("sql", statement, "--json")
        assert (ran.code, "disabled" in ran.json["error"]) == (2, True)


@pytest.mark.parametrize("made", [
    "create table ledger (a int)", "create view Events as select 1 as a", "create table schema_version (a int)",
])  # fmt: skip
def test_the_database_of_another_program_is_left_alone(ingest: Shell, made: str) -> None:
    with duckdb.connect(str(ingest.folder / "warehouse.duckdb")) as connection:
        connection.execute(made)
    ingest.file("a.json", *GOOD)
    for arguments in (("load", "a.json"), ("sql", "select 1")):
        ran = ingest(*arguments, "--json")
        (sentence,) = {ran.json.get("error"), *ran.json.get("errors", ())} - {None}
        assert (ran.code, "warehouse.duckdb is a database of another program, with " in sentence) == (2, True)
    with duckdb.connect(str(ingest.folder / "warehouse.duckdb")) as connection:
        assert len(connection.sql("show tables").fetchall()) == 1


def test_a_database_may_hold_other_tables_as_well(ingest: Shell) -> None:
    with duckdb.connect(str(ingest.folder / "warehouse.duckdb")) as connection:
        connection.execute("create table mine (a int)")
    assert ingest.json("sql", "select * from mine, events") == []


def test_sql_on_a_file_of_no_bytes(ingest: Shell) -> None:
    ingest.file("warehouse.duckdb", body=b"")
    assert ingest.json("sql", "select * from events") == []


REFUSED = [
    "insert into history values ('a', 'b', now(), 'c', 'd', 'e')", "delete from ledger",
    "update ledger set state = 'x'", "drop table ledger", "create table mine (a int)", "truncate ledger",
    "select 1; select 2", "select 1; drop table ledger", "", "copy ledger to 'stolen.csv'", "attach 'other.duckdb'",
    "install httpfs", "load httpfs", "set memory_limit = '1GB'", "pragma enable_profiling",
    "select * from read_csv('/etc/passwd')", "select * from '/etc/passwd'", "from 'a.json'",
    "select * from read_text('/etc/passwd')", "select * from glob('/etc/*')",
    "select * from read_blob('/etc/passwd')", "select * from read_parquet('s3://bucket/x')",
    "select * from read_json('https://example.com/x')", "select getenv('HOME')", "export database 'out'",
    "checkpoint", "begin", "call pragma_version()", "vacuum", "explain analyze delete from ledger",
    "select nextval('file_numbers')",
]  # fmt: skip


@pytest.mark.parametrize("statement", REFUSED)
def test_sql_refuses(ingest: Shell, statement: str) -> None:
    ingest.file("a.json", *GOOD)
    ran = ingest("sql", statement, "--json")
    assert (ran.code, [*ran.json]) == (2, ["error"])
    assert ran.err.strip()
    assert {path.name for path in ingest.folder.iterdir()} <= {"a.json", "warehouse.duckdb", "warehouse.duckdb.lock"}


# --- S3 --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_load_of_a_prefix(ingest: Shell, s3: S3) -> None:
    for name in ("10", "9", "1"):
        s3.put(f"landing/{name}.json", lines(record("ann", int(name), "x")))
    s3.put("landing/a b+c%é.json.gz", gzip.compress(lines(record("ann", 50, "x"))))
    s3.put("landing/notes.txt", b"no")
    s3.put("elsewhere/2.json", lines(*GOOD))
    where = f"s3://{s3.bucket}/landing/"
    files = ingest.json("load", where)["files"]
    assert [file["key"].removeprefix("landing/") for file in files] == [
        "1.json",
        "9.json",
        "10.json",
        "a b+c%é.json.gz",
    ]
    assert {(file["bucket"], file["state"], file["already"]) for file in files} == {(s3.bucket, "loaded", False)}
    assert {file["already"] for file in ingest.json("load", where)["files"]} == {True}
    assert ingest.json("load", f"s3://{s3.bucket}/elsewhere/2.json")["files"][0]["aliases"] == 1
    assert ingest.json("check", f"s3://{s3.bucket}/elsewhere/2.json")["records"] == 1
    assert ingest("failures", f"s3://{s3.bucket}/landing/9.json", "--lines").out == b""
    for missing in (
        f"s3://{s3.bucket}/landing/none.json",
        f"s3://{s3.bucket}/none/",
        "s3://no-such-bucket-anywhere/a/",
    ):
        assert ingest("load", missing).code == 2


def test_load_of_a_prefix_takes_nothing_of_what_the_program_wrote(ingest: Shell, s3: S3) -> None:
    own = {"archive_prefix": "in/arch/", "report_prefix": "in/rep/"}
    ingest.config({"name": "web", "bucket": s3.bucket, "prefix": "in/", **own})
    with (ingest.folder / "ingest.toml").open("a") as config:
        config.write(f'\n[uploads]\nbucket = "{s3.bucket}"\n')
    for number, key in enumerate(("in/a", "in/arch/2026/01/01/in/b", "in/rep/c.report", "uploads/d", "uploads/d.check",
                                  "completed_imports/2026/01/01/in/e")):  # fmt: skip
        s3.put(f"{key}.json", lines(record("ann", number, "x")))
    for prefix, taken in (("in/", ["in/a.json"]), ("", ["in/a.json", "uploads/d.json"])):
        files = ingest.json("load", f"s3://{s3.bucket}/{prefix}", "--dry-run")["files"]
        assert [file["key"] for file in files] == taken
    assert ingest("load", f"s3://{s3.bucket}/in/arch/").code == 2


@pytest.mark.slow
def test_what_a_source_has_loaded_stays_its_own_when_it_is_loaded_by_name(ingest: Shell, s3: S3) -> None:
    ingest.config({"name": "visits", "bucket": s3.bucket, "prefix": "in/", "format": "woopra"})
    visit = b'{"visitor":{"id":"ann"},"actions":[{"time":1393344603000,"name":"x"}]}'
    s3.put("in/a.json", visit)
    ingest.json("poll")
    of = {"source": "visits", "format": "woopra", "state": "loaded"}
    for more in (["in/a.json", "--force"], ["in/", "--force"], ["in/a.json", "--force", "--format", "auto"], ["in/"]):
        ran = ingest("load", f"s3://{s3.bucket}/{more[0]}", *more[1:], "--json")
        assert (ran.code, [file["state"] for file in ran.json["files"]]) == (0, ["loaded"])
        assert "belongs to the source" not in ran.err
        (row,) = ingest.json("files")["files"]
        assert {name: row[name] for name in of} == of
    s3.put("in/new.json", visit + b" ")
    s3.put("elsewhere.json", lines(*GOOD))
    assert "belongs to the source" not in ingest("load", f"s3://{s3.bucket}/elsewhere.json").err
    belongs = "1 file belongs to the source visits, and is taken by its rules, as woopra."
    for command in (
        ("check", "in/new.json"), ("check", "in/new.json", "--format", "kissmetrics"), ("load", "in/"),
        ("load", "in/a.json", "--force", "--format", "kissmetrics"),
    ):  # fmt: skip
        ran = ingest(command[0], f"s3://{s3.bucket}/{command[1]}", *command[2:], "--json")
        assert (ran.code, f"s3://{s3.bucket}/{command[1]}: {belongs}" in ran.err) == (0, True)
    files = {row["key"]: row["source"] for row in ingest.json("files")["files"]}
    assert files == {"in/a.json": "visits", "in/new.json": "visits", "elsewhere.json": "one_off"}


def test_who_forgets_the_slash_of_a_prefix_is_told(ingest: Shell, s3: S3) -> None:
    s3.put("in/a.json", lines(*GOOD))
    for command in ("load", "check"):
        ran = ingest(command, f"s3://{s3.bucket}/in")
        assert ran.code == 2
        assert f"s3://{s3.bucket}/in/ (with a slash) for all that lies below it" in ran.err
        assert "with a slash" not in ingest(command, f"s3://{s3.bucket}/i").err


def test_what_is_there_at_the_first_poll_may_be_skipped(ingest: Shell) -> None:
    landing = ingest.folder / "landing"
    ingest.config({"name": "web", "bucket": "file", "prefix": str(landing), "existing_files": "skip"})
    ingest.file("landing/old.json", *GOOD)
    (source,) = ingest.json("sources")["sources"]
    assert (source["pending"], source["skipped_by_first_poll"]) == (1, 1)  # to look is not to poll
    assert b"The first poll loads none of these" in ingest("sources").out
    assert ingest.json("poll") == {"files": []}
    assert ingest.json("sources")["sources"][0]["skipped_by_first_poll"] == 0
    ingest.file("landing/new.json", record("bob", 0, "y"))
    assert [Path(file["key"]).name for file in ingest.json("poll")["files"]] == ["new.json"]
    states = {Path(file["key"]).name: file["state"] for file in ingest.json("files")["files"]}
    assert states == {"old.json": "ignored", "new.json": "loaded"}
    assert [file["state"] for file in ingest.json("load", "landing/old.json", "--source", "web")["files"]] == ["loaded"]


def test_poll_and_sources(ingest: Shell, s3: S3) -> None:
    ingest.config(
        {"name": "web", "bucket": s3.bucket, "prefix": "web/"},
        {"name": "shop", "bucket": s3.bucket, "prefix": "shop/", "max_failed_lines": 0},
    )
    for number in (10, 2):
        s3.put(f"web/{number}.json", lines(record("ann", number, "x")))
    s3.put("web/readme.txt", b"hello")
    s3.put("web/completed_imports/2026/01/01/1.json", lines(record("ann", 1, "x")))
    s3.put("shop/1.json", lines(*BAD))

    found = {source["name"]: source for source in ingest.json("sources")["sources"]}
    told = [[found[name][what] for what in ("reachable", "matching", "pending", "ignored")] for name in ("web", "shop")]
    assert told == [[True, 2, 2, 2], [True, 1, 1, 0]]
    assert found["web"]["ignored_names"] == ["web/completed_imports/2026/01/01/1.json", "web/readme.txt"]
    assert found["shop"]["judged"][0]["failed"] == 2
    assert ingest.json("files") == {"files": []}

    first = ingest("poll", "--json")
    assert first.code == 1
    assert [(f["source"], f["key"], f["state"]) for f in first.json["files"]] == [
        ("web", "web/2.json", "loaded"), ("web", "web/10.json", "loaded"), ("shop", "shop/1.json", "rejected"),
    ]  # fmt: skip
    assert "readme.txt" in first.err
    assert ingest.json("poll") == {"files": []}

    s3.put("web/3.json.gz", gzip.compress(lines(*GOOD))[:-9])
    s3.put("web/4.json", lines(record("ann", 4, "x")))
    broken = ingest("poll", "web", "--json")
    assert (broken.code, [(f["key"], f["state"]) for f in broken.json["files"]]) == (
        2, [("web/3.json.gz", "retrying"), ("web/4.json", "loaded")],
    )  # fmt: skip
    waiting = ingest("poll", "--json")  # it is not due, and not forgotten
    assert (waiting.code, waiting.json["files"]) == (2, [])
    (error,) = waiting.json["errors"]
    assert "web/3.json.gz" in error
    assert "Not loaded yet" in error
    assert ingest("sources", "web", "--json").json["sources"][0]["pending"] == 0


def test_rights_that_are_not_tried_are_told(ingest: Shell, s3: S3) -> None:
    ingest.config(
        {"name": "kept", "bucket": s3.bucket, "prefix": "kept/"},
        {"name": "moved", "bucket": s3.bucket, "prefix": "moved/", "after_load": "archive", "report_prefix": "told/"},
        {"name": "here", "bucket": "file", "prefix": str(ingest.folder), "after_load": "delete"},
        {"name": "gone", "bucket": "no-such-bucket-anywhere", "report_prefix": "told/"},
    )
    s3.put("moved/1.json", lines(*GOOD))
    told = {source["name"]: source["rights"] for source in ingest("sources", "--json").json["sources"]}
    bucket, archive = f"s3://{s3.bucket}", "completed_imports/"
    assert told["kept"] == {"list": True, "read": None}
    assert told["moved"] == {
        "list": True, "read": True,
        "write": {"tried": False, "needs": "s3:PutObject", "below": [f"{bucket}/{archive}", f"{bucket}/told/"]},
        "delete": {"tried": False, "needs": "s3:DeleteObject", "below": [f"{bucket}/moved/", f"{bucket}/{archive}"]},
    }  # fmt: skip
    here = f"{ingest.folder}/{archive}"
    assert told["here"]["write"] == {"tried": False, "needs": "to write", "below": [here]}
    assert told["gone"]["list"] is False
    assert f"Needs s3:DeleteObject below {bucket}/moved/ and {bucket}/{archive}".encode() in ingest("sources").out
    assert [found["Key"] for found in s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]] == ["moved/1.json"]


def test_a_source_out_of_reach_does_not_hold_up_the_others(ingest: Shell, s3: S3) -> None:
    ingest.config({"name": "gone", "bucket": "no-such-bucket-anywhere"}, {"name": "web", "bucket": s3.bucket})
    s3.put("1.json", lines(*GOOD))
    ran = ingest("poll", "--json")
    assert (ran.code, [file["state"] for file in ran.json["files"]]) == (2, ["loaded"])
    assert "gone" in ran.err
    assert [error.partition(":")[0] for error in ran.json["errors"]] == ["gone"]
    tried = ingest("sources", "--json")
    assert (tried.code, [source["reachable"] for source in tried.json["sources"]]) == (2, [False, True])


# --- real processes --------------------------------------------------------------------------------------------------


def real(*arguments: str, cwd: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, *arguments]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, check=False, env=environ)


def test_the_command_and_the_module_are_one(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(lines(*BAD))
    ran = real("-m", "ingest", "check", "a.json", "--json", cwd=tmp_path)
    assert (ran.returncode, json.loads(ran.stdout)["failed"], ran.stderr) == (1, 2, b"")
    assert real("-m", "ingest", "check", "-", cwd=tmp_path, stdin=lines(*GOOD)).returncode == 0
    assert real("-m", "ingest", "check", "b.json", cwd=tmp_path).returncode == 2


def test_a_process_that_is_told_to_stop_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ingest", "check", "-", "--json"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        process.stdin.write(b" " * (1 << 20))  # more than a pipe holds: it is at work
        process.terminate()
        out, err = process.communicate()
    assert (process.returncode, json.loads(out)["error"]) == (143, err.decode().removeprefix("ingest: ").strip())
    assert err.startswith(b"ingest: stopped.")


def test_checking_a_file_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(lines(*BAD))
    script = (
        "import sys; from ingest.cli import cli; cli.main(['check', 'a.json', '--json'], standalone_mode=False);"
        "heavy = {'duckdb', 'boto3', 'botocore', 'airflow', 'pyarrow.compute', 'multiprocessing'};"
        "print(*sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    ran = real("-c", script, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, b"\n")


def test_check_works_where_nothing_may_be_written(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir(mode=0o500)
    (tmp_path / "a.json").write_bytes(lines(*GOOD))
    assert real("-m", "ingest", "check", "../a.json", cwd=here).returncode == 0
    assert list(here.iterdir()) == []
