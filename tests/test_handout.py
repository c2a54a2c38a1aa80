"""Handed out and taken back: any line comes back as it was, nothing of it runs anywhere, edits are taken exactly."""

import csv
import io
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.placed import Place, on_one_line
from ingest.core.schema import Meaning
from ingest.errors import IngestError
from ingest.handout import as_csv, as_text, changed, inert, parse_fixed
from tests.ui.producers import HOSTILE

FAILURE = {"code": "time_missing", "message": "=There is no _t. Add it.", "pointer": "", "got": None, "send": 5}
MEANINGS = {"time_missing": Meaning("There is no _t.", "Add it.")}


def failed(raw: bytes, line: int = 1, item: str = "") -> dict[str, Any]:
    return {"line": line, "item": item, "raw": raw, "failures": json.dumps([FAILURE])}


def table(content: bytes, separator: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=separator))


def saved(rows: list[dict[str, str]], separator: str) -> bytes:
    """As a spreadsheet saves it."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0], delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


ANY_LINE = st.binary(max_size=60) | st.text(alphabet="=+-@;\"', \t\r\x1b\x9b\\{}é漢a1", max_size=30).map(str.encode)


@given(st.lists(ANY_LINE, min_size=1, max_size=5))
def test_what_comes_back_as_it_was_handed_out_is_unchanged(raws: list[bytes]) -> None:
    lines = [failed(raw, number, "/1" * (number % 2)) for number, raw in enumerate(raws, 1)]
    for content, more in ((b"".join(as_text(lines)), b"99\tmore"), (b"".join(as_csv(lines, MEANINGS)), b"99,,,more")):
        assert changed(parse_fixed(content + more), lines) == {(99, ""): b"more"}


@given(st.text(max_size=60).filter(lambda text: "\n" not in text))
def test_an_edited_cell_is_taken_exactly(text: str) -> None:
    rows = table(b"".join(as_csv([failed(b"broken"), failed(b"more", 2)], MEANINGS)))
    rows[0]["raw"] = f"'{text}"
    for separator in ",;\t":
        returned = parse_fixed(saved(rows, separator))
        edited = {} if text == "broken" else {(1, ""): text.encode(errors="surrogatepass")}
        assert changed(returned, [failed(b"broken"), failed(b"more", 2)]) == edited


@pytest.mark.parametrize("raw", [*HOSTILE, "'quoted", '";=1+1', '{"a":"x;=HYPERLINK(1)", "b":-1}', "\t@SUM", "-2+3"])
def test_no_cell_runs(raw: str) -> None:
    content = b"".join(as_csv([failed(raw.encode(), 7, "/3/order")], MEANINGS))
    assert b"\x1b" not in content
    for separator in ",;":  # whichever of them the spreadsheet takes for the end of a cell
        for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=separator):
            assert not [cell for cell in row if cell.lstrip(' "').startswith(("=", "+", "-", "@"))]
    (told,) = table(content)
    assert (told["place"], told["problem"], told["remedy"]) == (
        "line 7/3/order", "time_missing: =There is no _t.", "Add it. Send 5."
    )  # fmt: skip
    try:
        value = json.loads(raw)
    except ValueError:
        return
    assert json.loads(told["raw"]) == value, "to JSON it means the same"


@pytest.mark.parametrize("name", ["x;=1+1", "x\r=1+1", 'x;"\n @SUM', "\x1b[31m"])
def test_no_name_in_a_problem_runs(name: str) -> None:
    """A pointer holds names that a producer chose. Behind the first cell nothing is quoted to who ends cells at `;`."""
    raw = f'{{"x": "\r=1+1", "{name}": {{}}}}'.encode()
    failure = FAILURE | {"pointer": f"/{name}"}
    content = b"".join(as_csv([failed(raw) | {"failures": json.dumps([failure])}], MEANINGS))
    assert b"\x1b" not in content
    for separator in ",;":
        for row in csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=separator):
            assert not [cell for cell in row if cell.lstrip(' "').startswith(("=", "+", "-", "@"))]
    assert changed(parse_fixed(content + b"9,,,more"), [failed(on_one_line(raw))]).keys() == {(9, "")}


def test_what_is_neither_text_nor_csv_is_named() -> None:
    content = b"".join(as_csv([failed(b"broken")], MEANINGS)).decode("utf-8-sig")
    for sent, kind in (
        (content.encode("utf-16"), "text in UTF-16"),
        (b"PK\x03\x04" + b"\0" * 26 + b"[Content_Types].xml", "an Office document"),
        (b"who,where,when\n1,2,3\n4,5,6\n", "a table (CSV)"),
    ):
        with pytest.raises(IngestError, match=f"What was sent is {re.escape(kind)}"):
            parse_fixed(sent)


def test_a_line_that_is_no_text_is_in_the_text_only() -> None:
    lines = [failed(b"\xff"), failed(b"more", 2)]
    assert parse_fixed(b"".join(as_csv(lines, MEANINGS))).keys() == {(2, "")}
    assert parse_fixed(b"".join(as_text(lines))) == {(1, ""): b"\xff", (2, ""): b"more"}


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"place,raw\nnine,x\n", "Row 2 of the table does not say which line it is: its place is 'nine'"),
        (b'place;raw\n1;"a\nb"\n', "Row 2 of the table: a fixed line has to stay one line"),
        (b"place,raw\n1,a\n1,b\n", "Line 1 stands twice"),
        (b"\xef\xbb\xbfplace,raw\n,\n", "There is no line"),
        (b"raw,problem\nx,y\n", "begin with their number and a tab"),
    ],
)
def test_a_wrong_table_is_one_sentence(sent: bytes, told: str) -> None:
    with pytest.raises(IngestError, match=told):
        parse_fixed(sent)


def test_columns_may_come_in_any_order_and_others_may_go() -> None:
    expected: dict[Place, bytes] = {(1, ""): b"{}", (2, "/1"): b"=x"}
    assert parse_fixed(b"raw;x;place\r\n{};;1\r\n'=x;;line 2/1\r\n;;\r\n") == expected


@given(ANY_LINE)
def test_text_keeps_its_shape(raw: bytes) -> None:
    assert b"\n" not in inert(on_one_line(raw))
