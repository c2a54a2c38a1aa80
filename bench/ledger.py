"""How long a poll takes when the ledger and the bucket are large already, and what else meets every file.

    python bench/ledger.py [--files 1000000]      a bucket of so many known files and 100 new ones: `ingest poll`
    python bench/ledger.py --after-load delete    … that all keep a failed line; `archive`: that wait to be deleted
    python bench/ledger.py --reconcile            `ingest reconcile` of so many files, landing and archive
    python bench/ledger.py --undo                 one of so many files is undone, then a thousand

The store is a small S3 server of our own on loopback: it lists and gives objects, nothing else, but fast.
"""

import argparse
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import duckdb
import pyarrow as pa
from run import run

from ingest.core.source import SourceFile
from ingest.ports import Audit
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse

BUCKET, PREFIX, NEW, AT_ONCE = "large", "landing/", 100, 50_000
ARCHIVE = "completed_imports/2026/01/01/"
WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)


def body(number: int) -> bytes:
    """One file."""
    return b'{"_p":"person %d","_t":1767225000,"_n":"x"}\n' % number


def key(number: int) -> str:
    """Its key: listed in this order."""
    return f"{PREFIX}{number:08d}.json"


class Handler(BaseHTTPRequestHandler):
    """ListObjectsV2, GetBucketVersioning and GetObject of a bucket that is made up as it is asked for."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer goes out in one piece: the second of two would wait for the first to be acknowledged
    files = 0
    body = staticmethod(body)
    delay_seconds = 0.0

    def do_GET(self) -> None:
        """Answer."""
        time.sleep(self.delay_seconds)
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        if "versioning" in query:
            return self._answer(b"<VersioningConfiguration/>")
        if "list-type" not in query:
            number = int(re.findall(r"(\d+)\.json", unquote(url.path))[0])
            content = self.body(number)
            return self._answer(content, f'"{md5(content).hexdigest()}"')
        begin = int(query.get("continuation-token", ["0"])[0])
        prefix = query["prefix"][0]
        archived = ARCHIVE if prefix.startswith(ARCHIVE) else ""
        end = min(begin + 1000, self.files)
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < self.files else ""
        entries = "".join(
            f"<Contents><Key>{archived}{key(n)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{md5(self.body(n)).hexdigest()}&quot;</ETag><Size>{len(self.body(n))}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for n in range(begin, end)
        )
        return self._answer(
            f"<ListBucketResult><Name>{BUCKET}</Name><Prefix>{prefix}</Prefix><KeyCount>{end - begin}</KeyCount>"
            f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{entries}</ListBucketResult>".encode()
        )

    def _answer(self, content: bytes, etag: str | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        if etag:
            self.send_header("ETag", etag)
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def rows(files: int) -> Iterator[pa.Table]:
    """Ledger rows of files that were loaded."""
    for begin in range(0, files, AT_ONCE):
        found = [
            SourceFile(
                bucket=BUCKET, key=key(n), etag=md5(body(n)).hexdigest(), last_modified=WRITTEN,
                size_bytes=len(body(n)), source="large",
            )
            for n in range(begin, min(begin + AT_ONCE, files))
        ]  # fmt: skip
        names = ("file_id", "bucket", "key", "etag", "last_modified", "size_bytes", "source", "format", "position")
        yield pa.table({name: [getattr(file, name) for file in found] for name in names})


def fill(warehouse: DuckDBWarehouse, files: int, after_load: str) -> None:
    """A ledger of so many loaded files of a line each; every other one repeats what the one before it says."""
    warehouse.files({})  # makes the tables
    with duckdb.connect(str(warehouse.path)) as connection:
        for table in rows(files):
            connection.register("entries", table)
            connection.execute(
                "INSERT INTO ledger BY NAME SELECT *, nextval('file_numbers') AS file_no, 'loaded' AS state,"
                " 'kissmetrics' AS people_space, now() AS loaded_at, 1 AS records FROM entries"
            )
        connection.execute(
            "INSERT INTO command_rows BY NAME SELECT file_no, 1 AS line, 0 AS item_no, 'record' AS kind,"
            " 'person ' || file_no AS person, TIMESTAMPTZ '2026-01-01' + to_seconds(file_no // 2) AS occurred_at,"
            " 'x' AS event, '{}' AS properties, 'event' AS time_source,"
            " md5((file_no // 2)::VARCHAR)::UUID AS command_id,"
            " file_no % 2 = 0 OR file_no = 1 AS is_first FROM ledger ORDER BY file_no"
        )
        if after_load == "archive":
            connection.execute(f"UPDATE ledger SET archived_to = '{ARCHIVE}' || key")
        if after_load == "delete":
            connection.execute(
                "INSERT INTO failed_line_rows BY NAME SELECT file_no, 2 AS line, '' AS item, 0 AS byte_offset,"
                " 0 AS byte_length, ''::BLOB AS raw, '' AS raw_sha256, TRUE AS mendable, ['not_json'] AS codes,"
                " '[]' AS failures FROM ledger"
            )
            connection.execute("UPDATE ledger SET failed = 1")


def undo(warehouse: DuckDBWarehouse, files: int) -> None:
    """Take one file away, then a thousand from all over."""
    for number in (1, 1000):
        step = files // number
        there = [row["file_id"] for row in warehouse.files({"state": "loaded"})]
        begin = time.perf_counter()
        done = warehouse.undo(there[:: max(step, 1)][:number], Audit("bench"))
        print(f"undo of {len(done):,} of {files:,} files: {time.perf_counter() - begin:.2f} s", flush=True)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--after-load", choices=["keep", "archive", "delete"], default="keep")
    parser.add_argument("--reconcile", action="store_true")
    parser.add_argument("--undo", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="landfall-bench-") as name:
        warehouse = DuckDBWarehouse(Path(name) / "ours.duckdb")
        fill(warehouse, arguments.files, "archive" if arguments.reconcile else arguments.after_load)
        if arguments.undo:
            undo(warehouse, arguments.files)
        elif arguments.reconcile:
            ask("reconcile", ["everything"], Path(name), arguments.files, "keep")
        else:
            ask("poll", [f"{NEW} new", "nothing new"], Path(name), arguments.files, arguments.after_load)


def ask(command: str, times: list[str], folder: Path, known: int, after_load: str) -> None:
    """Run a command on a bucket with new files, for each of `times`."""
    Handler.files = known + NEW
    environment = served(folder, after_load)
    for what in times:
        seconds, peak = run([sys.executable, "-m", "ingest", command], folder, watch=True, more=environment)
        print(
            f"{command} of {known + NEW:,} files, {what}: {seconds:.1f} s, peak memory {peak / 1e6:,.0f} MB", flush=True
        )


def served(folder: Path, after_load: str = "keep") -> dict[str, str]:
    """What a command has to be told of the bucket as a source, which a server gives from now on."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (folder / "ingest.toml").write_text(
        f'[[source]]\nname = "large"\nbucket = "{BUCKET}"\nprefix = "{PREFIX}"\nafter_load = "{after_load}"\n'
    )
    return {
        "INGEST_CONFIG": str(folder / "ingest.toml"), "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench",
    }  # fmt: skip


if __name__ == "__main__":
    main()
