"""A small object of the worst kind, loaded and shown: how large all becomes that is kept of it."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.support import ROOT, World, record

READ = """
import sys
from pathlib import Path
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from ingest.ports import FilesWanted
with DuckDBWarehouse(Path(sys.argv[1])).published() as published:
    for row in sorted(published.files(FilesWanted(sources=("one_off",))).rows, key=lambda row: row["key"]):
        groups = [(group.code, group.lines) for group in published.failure_groups([row["file_id"]])]
        print(row["key"], groups, len(published.failed_lines([row["file_id"]], limit=100)))
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10)
"""


@pytest.mark.slow
def test_twenty_kilobytes_of_mistakes_harm_nobody(tmp_path: Path) -> None:
    """They gave 850 MB of failures; then no copy for pages could be made, in 4 GB."""
    world = World(DuckDBWarehouse(tmp_path / "w.duckdb"))
    line = '{"_p":"ann","_t":1393344603,' + ",".join(f'"x{n}":[]' for n in range(88_000)) + "}"
    body = bytes(pa.Codec("zstd", compression_level=19).compress(b"\n".join([line.encode()] * 40), asbytes=True))
    assert len(body) < 33_000
    small = world.bring("a.json", record("ann", 0, "x"), "no json")
    large = world.bring("b.json", body=body)
    assert (small.counts.failed, large.counts.failed) == (1, 40)
    with world.warehouse.failed_lines(large.file_id) as rows:
        assert sum(len(row["failures"]) for row in rows) < 200_000
    command = [sys.executable, "-c", READ, str(tmp_path / "w.duckdb")]
    *told, peak_mb = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    assert told == ["a.json [('not_json', 1)] 1", "b.json [('nested_value', 40)] 40"]
    assert int(peak_mb) < 350
