"""`ingest sql`: where a statement comes from, and answers as CSV."""

import csv
import io
from pathlib import Path

import pytest

from tests.support import record
from tests.test_cli import Shell, ingest
from tests.test_terminal import in_a_pipe, peak_kib

__all__ = ["ingest"]  # a fixture


def test_a_statement_comes_from_a_file_or_standard_input(ingest: Shell) -> None:
    ingest.file("ask.sql", body=b"\xef\xbb\xbf-- how many\nselect count(*) as n\nfrom ledger;\n")
    assert ingest.json("sql", "-f", "ask.sql") == [{"n": 0}]
    for arguments in (("-",), ("-f", "-"), ("--file", "-")):
        ran = ingest("sql", *arguments, "--json", stdin=b"select 'caf\xc3\xa9' as c")
        assert ran.json == [{"c": "café"}]


@pytest.mark.parametrize(("arguments", "stdin", "said"), [
    ((), b"", "Give one statement"),
    (("select 1", "-f", "ask.sql"), b"", "Give one statement"),
    (("-f", "missing.sql"), b"", "missing.sql cannot be read: No such file"),
    (("-f", "."), b"", ". cannot be read: Is a directory"),
    (("-",), b"select '\xff'", "Standard input is not UTF-8 (byte 8)"),
    (("-",), b"", "Only one statement that reads"),
    (("-",), b"drop table ledger", "Only one statement that reads"),
])  # fmt: skip
def test_what_is_no_statement_is_said(ingest: Shell, arguments: tuple[str, ...], stdin: bytes, said: str) -> None:
    ran = ingest("sql", *arguments, "--json", stdin=stdin)
    assert (ran.code, said in ran.json["error"]) == (2, True), ran.err


def test_one_answer_is_written_in_one_way(ingest: Shell) -> None:
    assert "not both" in ingest("sql", "select 1", "--json", "--csv").json["error"]


def test_csv_is_what_rfc_4180_says(ingest: Shell) -> None:
    select = (
        "select 'a,\"b\"' as \"x,y\", e'two\\r\\nlines' as t, null as n, '' as e, 1.10::decimal(4,2) as d, true as b,"
        " 36893488147419103228::hugeint as h, 'nan'::double as f, [1, 2] as l, '\\xC3\\xA9'::blob as raw,"
        " timestamptz '2026-01-01 00:00:00.5+00' as at, '{\"a\": 1.10}'::json as j, 1.5 as r"
    )
    ran = ingest("sql", select, "--csv")
    assert ran.code == 0
    assert ran.out.decode() == (
        '"x,y",t,n,e,d,b,h,f,l,raw,at,j,r\r\n'
        '"a,""b""","two\r\nlines",,"",1.10,true,36893488147419103228,nan,"[1,2]",w6k=,2026-01-01T00:00:00.500000Z,'
        '"{""a"": 1.10}",1.5\r\n'
    )
    header, row = csv.reader(io.StringIO(ran.out.decode(), newline=""))
    assert (header[0], row[0], row[1]) == ("x,y", 'a,"b"', "two\r\nlines")
    assert ingest("sql", "select 1 as n where false", "--csv").out == b"n\r\n"


def test_csv_tells_what_the_warehouse_holds(ingest: Shell) -> None:
    ingest("load", ingest.file("a.json", record("ann", 0, "=x,y", a="1")))
    assert ingest("sql", "select person, event, properties from events", "--csv").out == (
        b'person,event,properties\r\nann,"=x,y","{""a"":""1""}"\r\n'
    )


@pytest.mark.parametrize(("statement", "said"), [
    ("select * from range(1_000_000_000_000)", "stopped after 1 s"),
    ("select list(range) from range(1_000_000_000)", "more than 67,108,864 bytes of memory"),
])  # fmt: skip
def test_csv_has_the_limits_of_a_statement(tmp_path: Path, statement: str, said: str) -> None:
    limits = {"INGEST_MAX_QUERY_TIME": "1s", "INGEST_MAX_QUERY_BYTES": str(64 << 20)}
    done = in_a_pipe(tmp_path, "sql", statement, "--csv", **limits)
    assert (done.returncode, done.stdout, said in done.stderr.decode()) == (2, b"", True)


@pytest.mark.slow
def test_a_million_rows_of_csv_are_not_held(tmp_path: Path) -> None:
    statement = "select range as n, 'a text of some length' as t from range(1_000_000)"
    assert peak_kib(tmp_path, "sql", statement, "--csv") < 250 << 10
    with (tmp_path / "rows").open("rb") as written:
        assert sum(1 for _ in written) == 1_000_001


def test_in_a_pipe_a_row_is_a_line_with_whole_values(ingest: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    wide = ", ".join(f"'{'long ' * 8}{n}' as column_{n}" for n in range(9))
    shown = ingest("sql", f"select {wide}, 1234 as n union all select {wide}, 5").out.decode()
    title, names, rule, *rows = shown.rstrip("\n").split("\n")
    assert (title, len(names.split()), {*rule}) == ("2 rows", 10, {"─"})
    assert [row.split("  ")[-1].strip() for row in rows] == ["1,234", "5"]
    assert all(f"{'long ' * 8}{n}" in row for row in rows for n in range(9))
    # One long value does not make all others as long.
    long = ingest("sql", "select repeat('x', 1000000) as a, 1 as b union all select 'y', 2 from range(900)").out
    assert 1_000_000 < len(long) < 1_300_000
    ingest.file("a.json", '{"_p": "' + "x" * 300 + '"}')
    assert b"x" * 300 in ingest("check", "a.json").out
