"""What is no JSON is named, as real programs write it; what begins as JSON does is never taken for anything else."""

import bz2
import codecs
import gzip
import io
import json
import lzma
import pickle
import random
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import feather, orc, parquet

from ingest.core.filetype import HEAD_BYTES, kind_of
from ingest.core.formats import FORMATS, open_format
from ingest.core.jsontext import Undecodable, parse
from tests.core.bodies import retailrocket_bodies, vitally_bodies, webengage_bodies, woopra_visits
from tests.core.lines import any_json, lines

EVENTS = [{"_p": f"person{n % 97}@example.com", "_t": 1393344604 + n, "_n": "Signed up", "n": n} for n in range(2_000)]
TEXT = "".join(json.dumps(event) + "\n" for event in EVENTS)
DATA = TEXT.encode()
TABLE = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, DATA)
    return file.getvalue()


def tarred(format: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        member = tarfile.TarInfo("exporté/events.json")
        member.size = len(DATA)
        archive.addfile(member, io.BytesIO(DATA))
    return file.getvalue()


def packed(codec: str, data: bytes = DATA) -> bytes:
    made: bytes = pa.compress(data, codec=codec, asbytes=True)
    return made


def hadoop(codec: str) -> bytes:
    block = packed(codec, DATA[:50_000])
    return (50_000).to_bytes(4, "big") + len(block).to_bytes(4, "big") + block


def written(write: object, *arguments: object) -> bytes:
    file = io.BytesIO()
    write(TABLE, file, *arguments)  # type: ignore[operator]
    return file.getvalue()


def sqlite() -> bytes:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (a)")
    return database.serialize()


KINDS = [
    pytest.param(zipped("events.json"), "a ZIP archive", id="ZIP"),
    pytest.param(zipped(), "a ZIP archive", id="ZIP of nothing"),
    pytest.param(zipped("[Content_Types].xml", "xl/workbook.xml"), "an Office document", id="xlsx"),
    pytest.param(zipped("docProps/app.xml", "xl/workbook.xml"), "an Office document", id="xlsx of openpyxl"),
    pytest.param(zipped("[Content_Types].xml", "word/document.xml"), "an Office document", id="docx"),
    pytest.param(gzip.compress(DATA), "packed twice", id="gzip within packed data"),
    pytest.param(packed("zstd"), "packed twice", id="zstd within packed data"),
    pytest.param(b"\x27\xb5\x2f\xfd" + DATA, "zstd data from before", id="zstd 0.7"),
    pytest.param(bz2.compress(DATA), "bzip2", id="bzip2"),
    pytest.param(bz2.compress(b""), "bzip2", id="bzip2 of nothing"),
    pytest.param(lzma.compress(DATA), "xz", id="xz"),
    pytest.param(lzma.compress(DATA, format=lzma.FORMAT_ALONE), "lzma", id="lzma"),
    pytest.param(packed("lz4"), "lz4", id="lz4"),
    pytest.param(b"\x02\x21\x4c\x18" + DATA, "lz4", id="lz4 of old"),
    pytest.param(packed("lz4_raw"), "binary data", id="lz4 without a frame"),
    pytest.param(hadoop("lz4_raw"), "Hadoop", id="lz4 of Hadoop"),
    pytest.param(packed("snappy"), "snappy", id="snappy without a frame"),
    pytest.param(packed("snappy", DATA[:200]), "snappy", id="snappy of some lines"),
    pytest.param(packed("snappy", b"[" + DATA), "snappy", id="snappy of an array"),
    pytest.param(b"\xff\x06\0\0sNaPpY" + DATA, "snappy", id="snappy"),
    pytest.param(hadoop("snappy"), "Hadoop", id="snappy of Hadoop"),
    *(pytest.param(zlib.compress(DATA, level), "zlib", id=f"zlib {level}") for level in (1, 5, 6, 9)),
    pytest.param(packed("brotli"), "binary data", id="brotli"),
    pytest.param(pickle.dumps(EVENTS), "binary data", id="pickle"),
    pytest.param(random.Random(2).randbytes(HEAD_BYTES), "binary data", id="noise"),
    *(
        pytest.param(tarred(format), "a tar archive", id=f"tar {format}")
        for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    ),
    pytest.param(written(parquet.write_table), "a Parquet file", id="Parquet"),
    pytest.param(written(orc.write_table), "an ORC file", id="ORC"),
    pytest.param(written(feather.write_feather), "an Arrow file", id="Arrow"),
    pytest.param(b"Obj\x01\x04\x16avro.schema", "an Avro file", id="Avro"),
    pytest.param(sqlite(), "an SQLite database", id="SQLite"),
    pytest.param(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504), "an old Office document", id="xls"),
    pytest.param(rb"{\rtf1\ansi {\fonttbl}", "RTF", id="RTF"),
    pytest.param(b"%PDF-1.7\n%\xe2\xe3", "a PDF document", id="PDF"),
    pytest.param(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image", id="PNG"),
    pytest.param(b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image", id="JPEG"),
    pytest.param(b"GIF89a\1\0\1\0", "a GIF image", id="GIF"),
    pytest.param(b"RIFF\x24\0\0\0WEBPVP8 ", "a WebP image", id="WebP"),
    pytest.param(b"<!DOCTYPE html>\n<html>", "an HTML page", id="HTML"),
    pytest.param(b"\xef\xbb\xbf\n <!-- a --><!-- b -->\n<HTML lang='en'>", "an HTML page", id="HTML behind comments"),
    pytest.param(b'<?xml version="1.0"?>\n<Error/>', "an XML document", id="XML"),
    pytest.param(b"<Error><Code>NoSuchKey</Code></Error>", "an XML document", id="an error of S3"),
    *(
        pytest.param(TEXT.encode(encoding), "text in UTF-16", id=encoding)
        for encoding in ("utf-16", "utf-16-le", "utf-16-be")
    ),
    *(
        pytest.param(TEXT.encode(encoding), "text in UTF-32", id=encoding)
        for encoding in ("utf-32", "utf-32-le", "utf-32-be")
    ),
    pytest.param(codecs.BOM_UTF16_BE + "[]".encode("utf-16-be"), "text in UTF-16", id="utf-16-be with its mark"),
    pytest.param("".join("\x1e" + line for line in TEXT.splitlines(True)).encode(), "RFC 7464", id="json-seq"),
    pytest.param(bytes(100_000), "nothing but zero bytes", id="zeros"),
    pytest.param(b"_p,_t,_n\nann,1393344604,x\nbob,1393344605,y\n", "a table (CSV)", id="CSV"),
    pytest.param(b"\xef\xbb\xbfPerson;Time;Event name\r\n" + b"ann;1;x\r\n" * 9, "a table (CSV)", id="CSV of Excel"),
    pytest.param(b"_p\t_t\tplan.name\nann\t1\t\n\n\t2\tpro", "a table (TSV)", id="TSV"),
    pytest.param(
        b'"_p","_t","note"\n"ann","1","says ""hi, \n you"""\n"bob","2","caf\xe9"\n', "a table (CSV)", id="CSV, quoted"
    ),
    pytest.param(b"_p,_t,json\n" + b'ann,1,"{""a"": 1}"\n' * 9_000, "a table (CSV)", id="CSV with JSON in it, cut off"),
]


@pytest.mark.parametrize(("content", "name"), KINDS)
def test_what_is_no_json_is_named_by_every_format(content: bytes, name: str) -> None:
    for format in FORMATS:
        refused = open_format(format).refusal(content[:HEAD_BYTES])
        assert refused
        (failure,) = refused.failures
        assert failure.code == "wrong_format"
        assert name in failure.message
        assert failure.message.startswith("The file does not hold what its format says. It is ")


def test_a_duckdb_file_is_named(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "x.duckdb")) as database:
        database.execute("CREATE TABLE t (a INT)")
    kind = kind_of((tmp_path / "x.duckdb").read_bytes()[:HEAD_BYTES])
    assert kind
    assert kind.name == "a DuckDB database"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\n \r\n", id="blank lines"),
        pytest.param(b"_p,_t,_n\nann,1393344604,x\n", id="CSV of one row"),
        pytest.param(b"_p,_t\n" + b"ann,1393344604\n" * 9, id="two columns"),
        pytest.param(b"_p,_t,_n\nann,1,x\nann,1\nann,1,y\n", id="a row that is short"),
        pytest.param(b"_p,_t,_n\n" + b"ann,1,x\n" * 9 + b'{"_p":"ann"}\n', id="CSV, and a line that is none"),
        pytest.param(b"ann,1393344604,x\nbob,1393344605,y\ncy,1393344606,z\n", id="no row of names"),
        pytest.param(b"ann@example.com,a,x\nbob@example.com,b,y\ncy@example.com,c,z\n", id="data in the first row"),
        pytest.param(b"not,JSON,at all\n" * 9, id="a broken line again and again"),
        pytest.param(b"_p,_p,_n\nann,1,x\nbob,1,x\n", id="a name twice"),
        pytest.param(b"No, sorry, no events\nNot now, nor then, ever\nWe, too, wait\n", id="sentences"),
        pytest.param(b'"_p": "ann", "_t": 1, "_n": "x"}\n"_p": "bob", "_t": 1, "_n": "y"}\n' * 9, id="lines without {"),
        pytest.param(b"_p: ann, _t: 1, _n: x\n_p: bob, _t: 2, _n: y\n" * 9, id="neither quotes nor braces"),
        pytest.param(b"_p=ann,_t=1,_n=x\n_p=bob,_t=2,_n=y\n_p=cy,_t=2,_n=y\n", id="names in each line"),
        pytest.param(b"2026-11-28 INFO a,b,c\n" * 2 + b"2026-11-28 INFO d,e,f\n", id="a log"),
        pytest.param(b"no JSON\n" + DATA, id="a broken line, and sound ones"),
        pytest.param(b"\0" * 20 + DATA, id="zeros, and sound lines"),
        pytest.param(b"\xff\0\1\2" * 20 + b"\n" + DATA, id="a line of noise, and sound ones"),
        pytest.param(b"\xff\0\1\2" * 200 + b"\n" + DATA[:300], id="mostly noise, and sound lines"),
        pytest.param(b'\x06\x04{"\x0e\x09\0', id="snappy that copies what was never there"),
        pytest.param("naïve café, \x9c\n".encode("windows-1252", "replace") * 40, id="windows-1252"),
        pytest.param(b"ORCHID\nORC", id="a word that begins as ORC does"),
        pytest.param(b"PAR1S,x\n", id="a word that begins as Parquet does"),
        pytest.param(b"x^2 + y^2\n", id="a formula that begins as zlib does"),
        pytest.param(b'xd{"_p":"ann","_t":1393344604,"_n":"x"}\n', id="letters that begin as snappy does"),
        pytest.param(b"<3 { }\n", id="no tag"),
        pytest.param(b"\x1b[31mred\x1b[0m \t\f" * 20, id="colours of a terminal"),
    ],
)
def test_what_may_be_lines_is_judged_as_lines(content: bytes) -> None:
    assert kind_of(content[:HEAD_BYTES]) is None


BEGIN = st.integers(0, len(KINDS) - 1).map(lambda number: KINDS[number].values[0][:600])  # type: ignore[index]
JSON = st.one_of(
    lines(), *(body.map(str.encode) for body in (woopra_visits(), webengage_bodies(), retailrocket_bodies(),
    vitally_bodies(), any_json().map(lambda text: f"[{text}]"))),
)  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.text(" \t\r\n", max_size=4).map(str.encode),
    JSON,
    BEGIN | st.binary(max_size=600),
    st.sampled_from([b"", b"\n", b"\r\n"]),
)
def test_what_begins_as_json_is_no_other_kind_whatever_follows(
    mark: bytes, space: bytes, text: bytes, rest: bytes, end: bytes
) -> None:
    with suppress(Undecodable):
        parse(text)
        whole = mark + space + text + end + rest
        assert kind_of(whole) is None
        for size in range(len(mark + space), len(whole) - len(rest)):  # wherever the head is cut
            assert kind_of(whole[:size]) is None


@settings(deadline=None, max_examples=200)
@given(BEGIN, st.binary(max_size=300), st.integers(0, 600))
def test_any_bytes_have_a_kind_or_none(magic: bytes, rest: bytes, size: int) -> None:
    kind_of(magic[:size] + rest)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"<!-- x -->" * 6_000],
        [b"<!--" * 16_000],
        [b" " * HEAD_BYTES],
        [b"\xff\xff\x03" + b"\xf0" * HEAD_BYTES],
        [b"\x80\x80\x04\x04{{", b"\x01\x01" * 32_000],
    ],
    ids=["comments", "open comments", "blanks", "a long literal", "copies"],
)
def test_it_is_cheap_whatever_comes(pieces: Sequence[bytes]) -> None:
    """Each byte is looked at some times: were it many more, this would not end."""
    kind_of(b"".join(pieces)[:HEAD_BYTES])
