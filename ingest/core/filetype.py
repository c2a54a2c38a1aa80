r"""What a file is that holds no JSON, by its first bytes.

In:     the first bytes of a file, unpacked: 64 KiB, or all there are.
Sure:   what begins as JSON does is no other kind, whatever follows: `{` or `[` behind white space and perhaps a BOM,
        and then what JSON has there. Text is a table (CSV) only if nothing else fits: see `_is_table`.
Own:    a table, since libraries know hundreds of kinds that nobody sends, and neither raw snappy nor UTF-16 without a
        mark, and none knows what to do.
"""

import codecs
import csv
import re
import zlib
from typing import Final, NamedTuple

from ingest.core.formats.kissmetrics_octal import read_repaired
from ingest.core.jsontext import Undecodable, parse

HEAD_BYTES: Final = 1 << 16  # how much of a file is looked at; a shorter head is the whole file

BOM: Final = b"\xef\xbb\xbf"
_REPACK: Final = "unpack it, or pack it with gzip or zstd instead"
_ARCHIVE: Final = "unpack it and send the .json files in it"
_EXPORT: Final = "export it as JSON, one object a line"
_UTF8: Final = "save it as UTF-8"
_NO_DATA: Final = "send the file of events that was meant instead"
_TAG: Final = rb"\s*+(?:<!--.*?-->\s*+)*+<"  # possessive: what stands before a tag is read once


class Kind(NamedTuple):
    """A kind of file. Both follow "It is": `name`, a colon, `remedy`."""

    name: str
    remedy: str


# The first that matches at the start of the file counts.
_KINDS: Final = [
    (re.compile(pattern, re.DOTALL), Kind(name, remedy))
    for pattern, name, remedy in (
        (rb"\0{4,}+\Z", "nothing but zero bytes", "it was not written, so send it again"),
        # Packed. What is packed once was unpacked before it came here.
        (rb"\x1f\x8b|\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", "packed twice", "unpack it once and send that"),
        (rb"[\x1e\x22-\x27]\xb5\x2f\xfd", "zstd data from before zstd 1.0", "pack it with a current zstd"),
        (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", "bzip2 data", _REPACK),
        (rb"\xfd7zXZ\0", "xz data", _REPACK),
        (rb"\x5d\0\0[\0-\x80]|LZIP[\0\x01]", "lzma data", _REPACK),
        (rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18", "lz4 data", _REPACK),
        (rb"\xff\x06\0\0sNaPpY|\x82SNAPPY\0", "snappy data", _REPACK),
        (rb"\x89LZO\0\r\n\x1a\n", "lzop data", _REPACK),
        (rb"\x1f[\x9d\xa0]", "data of the old compress (.Z)", _REPACK),
        # Archives.
        (rb"PK\x03\x04.{26}(\[Content_Types\]\.xml|_rels/|docProps/|xl/|word/|ppt/|mimetypeapplication/vnd\.oasis)",
         "an Office document (Excel's .xlsx, .docx, .ods …)", _EXPORT),
        (rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a ZIP archive", _ARCHIVE),
        (rb".{100}[0-7 ]{6}[0-7 \0].{150}ustar[\0 ]", "a tar archive", _ARCHIVE),
        (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _ARCHIVE),
        (rb"Rar!\x1a\x07", "a RAR archive", _ARCHIVE),
        # Tables and databases. Magics that could be words are followed by what text never has.
        (rb"PAR[1E][^\t -~]", "a Parquet file", _EXPORT),
        (rb"Obj\x01", "an Avro file", _EXPORT),
        (rb"ORC[^ -~]", "an ORC file", _EXPORT),
        (rb"ARROW1\0|FEA1[^\t -~]", "an Arrow file", _EXPORT),
        (rb"SQLite format 3\0", "an SQLite database", _EXPORT),
        (rb".{8}DUCK..\0\0", "a DuckDB database", _EXPORT),
        # Documents and pictures.
        (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (.xls, .doc)", _EXPORT),
        (rb"\{\\rtf", "formatted text (RTF)", "save it as plain text in UTF-8"),
        (rb"%PDF-", "a PDF document", _NO_DATA),
        (rb"\x89PNG\r\n\x1a\n", "a PNG image", _NO_DATA),
        (rb"\xff\xd8\xff", "a JPEG image", _NO_DATA),
        (rb"GIF8[79]a", "a GIF image", _NO_DATA),
        (rb"RIFF.{4}WEBP", "a WebP image", _NO_DATA),
        (rb"II\*\0|MM\0\*", "a TIFF image", _NO_DATA),
        (rb"BM.{4}\0{4}", "a BMP image", _NO_DATA),
        (rb"\0\0\0.ftyp", "an image or a video (HEIC, AVIF, MP4)", _NO_DATA),
        (_TAG + rb"(?i:!doctype\s+html|html|head|body)[\s>]",
         "an HTML page", "perhaps the error or the login page of a website; export the events again"),
        (_TAG + rb"(?:\?xml\s|!DOCTYPE\s|[A-Za-z_][\w:.-]*+(?:\s[^<>]*+|/)?>)",
         "an XML document", f"{_EXPORT}; if it is an error page, export the events again"),
        # Text in another encoding, with its mark or without: JSON begins with characters of ASCII.
        (rb"\xff\xfe\0\0|\0\0\xfe\xff|([\t-~]\0\0\0|\0\0\0[\t-~]){2}", "text in UTF-32", _UTF8),
        (rb"\xff\xfe|\xfe\xff|([\t-~]\0){2}|(\0[\t-~]){2}", "text in UTF-16", _UTF8),
        (rb"(?!\0{4}|.{4}\0{4})(\0[\0-\x0f]..){2}.{1,6}?[\[{]", "snappy or lz4 data in Hadoop's block format", _REPACK),
        (rb"\x1e", "a JSON text sequence (RFC 7464), with a record separator before each object",
         r"remove them with tr -d '\036' < FILE > FIXED.json"),
    )
]  # fmt: skip
_SNAPPY: Final = Kind("snappy data", _REPACK)
_ZLIB: Final = Kind("zlib data (deflate)", _REPACK)
_BINARY: Final = Kind("binary data of a kind that is not known here", "send JSON, as it is or packed with gzip or zstd")
_ZLIB_BEGINS: Final = (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")
_BINARY_FROM: Final = 64  # bytes; of less little can be said
_CONTROLS: Final = bytes({*range(32)} - {*b"\t\n\f\r\x1b"})  # what text does not hold
_CONTROLS_SHARE: Final = 0.04  # of all bytes; in packed data it is a tenth
_TABLES: Final = {separator: Kind(name, _EXPORT) for separator, name in (
    (",", "a table (CSV)"), (";", "a table (CSV)"), ("\t", "a table (TSV)"))}  # fmt: skip
_COLUMNS_FROM: Final = 3  # of a table: a comma stands in many a sentence
_ROWS_FROM: Final = 3  # of a table, with that of its names
_COLUMN: Final = re.compile(r"(?=.*[^\W\d])[\w.#/()%&$-]+( [\w.#/()%&$-]+)*")  # a name in the first row
_BEGINS_JSON: Final = re.compile(rb"[ \t\r\n]*(\Z|[\[{][ \t\r\n]*(\Z|[\[{\"\]}0-9tfn-]))")


def kind_of(head: bytes) -> Kind | None:
    """The kind of file that `head` begins, where it surely is none of JSON."""
    head = head.removeprefix(BOM)
    if _BEGINS_JSON.match(head):
        return None
    for pattern, kind in _KINDS:
        if pattern.match(head):
            return kind
    if head.startswith(_ZLIB_BEGINS) and _is_zlib(head):
        return _ZLIB
    if _is_raw_snappy(head):
        return _SNAPPY
    if _is_binary(head):
        return _BINARY
    return next((kind for separator, kind in _TABLES.items() if _is_table(head, separator)), None)


def _is_table(head: bytes, separator: str) -> bool:
    """Whether these are rows as wide as the names in the first. Strict: broken lines are helped line by line."""
    lines = head.decode(errors="replace").splitlines(keepends=True)
    if len(head) >= HEAD_BYTES:
        lines.pop()  # cut, perhaps
    if any(line.lstrip().startswith(("{", "[")) for line in lines):
        return False
    try:
        rows = [row for row in csv.reader(lines, delimiter=separator, strict=True) if row]
    except csv.Error:
        return False
    if len(rows) < _ROWS_FROM or len(rows[0]) < _COLUMNS_FROM or rows[0] in rows[1:]:
        return False
    named = len(set(rows[0])) == len(rows[0]) and all(map(_COLUMN.fullmatch, rows[0]))
    return named and all(len(row) == len(rows[0]) for row in rows)


def _is_zlib(head: bytes) -> bool:
    """Whether these bytes can be unpacked and hold JSON: the first two may be text as well."""
    try:
        return zlib.decompressobj().decompress(head, 64).lstrip().startswith((b"{", b"["))
    except zlib.error:
        return False


def _is_binary(head: bytes) -> bool:
    """Whether these bytes are no text at all, and no line among them is an object."""
    controls = len(head) - len(head.translate(None, _CONTROLS))
    if len(head) < _BINARY_FROM or controls < _CONTROLS_SHARE * len(head):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # of which the last character may be cut
    except UnicodeDecodeError:
        return not any(map(_is_object, head.split(b"\n")))
    return False


def _is_object(line: bytes) -> bool:
    try:
        return line.lstrip().startswith(b"{") and bool(read_repaired(line, parse))
    except Undecodable:
        return False


def _is_raw_snappy(head: bytes) -> bool:
    """Whether these bytes read as raw snappy of JSON, which has no magic: a length, then literals and copies."""
    length = at = 0
    while at < min(len(head), 5):
        length |= (head[at] & 0x7F) << 7 * at
        at += 1
        if head[at - 1] < 0x80:
            break
    made = 0
    while at < len(head):
        tag = head[at]
        kind, size = tag & 3, (tag >> 2) + 1
        if kind == 0:
            extra = max(0, size - 60)
            if extra:
                size = int.from_bytes(head[at + 1 : at + 1 + extra], "little") + 1
            at += 1 + extra
            if not made and not head[at : at + size].lstrip().startswith((b"{", b"[")):
                return False
            at += size
        else:
            if kind == 1:
                size, extra, high = (tag >> 2 & 7) + 4, 1, tag >> 5 << 8
            else:
                extra, high = (2 if kind == 2 else 4), 0
            offset = high + int.from_bytes(head[at + 1 : at + 1 + extra], "little")
            at += 1 + extra
            if at <= len(head) and not 0 < offset <= made:
                return False
        made += size
        if made > length:
            return False
    return bool(made) and (made == length or len(head) >= HEAD_BYTES)
