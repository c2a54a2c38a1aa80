"""A load with the native core is the load without it, and a core that fails is done without."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ingest import judging
from ingest.cli import cli
from ingest.core.commands import Rules
from ingest.core.formats import kissmetrics_native
from ingest.core.native import library, line_ends
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.support import ROOT, Rows, World, alias, everything, lines, module_at, put, record

generate = module_at(ROOT / "bench" / "generate.py")
ODD = [
    record("  Ann, of X: ", 1, "é  Event"), alias("Zoë", "İ"), put(7, 2, a="\u00e9\n", _ip="::1"), "", "\r",
    '{"_p":"a","_t":1393344604,"_n":"x","a":1e5}', '{"_p":"b","_t":"1393344604","_n":"x"}', record("b", 3, "x"),
]  # fmt: skip


def body() -> bytes:
    """Enough lines for the core, with what it is unsure of among them: some of it is right."""
    generated = [*generate.lines(1_500, 0.02), *ODD, *generate.lines(500, 0.5, 2), *ODD]
    return lines(*(line.rstrip("\n") if isinstance(line, str) else line for line in generated)) + b'{"_p":"\xff"}\r\n'


def loaded(folder: Path, *, native: bool) -> dict[str, Rows]:
    world = World(DuckDBWarehouse(folder / f"{native}.duckdb"))
    file = world.put("a.json", body=body())
    pipeline = replace(world.pipeline, settings=replace(world.pipeline.settings, native=native))
    (result,) = pipeline.load([file])
    assert (result.state, result.counts.blank) == ("loaded", 4)
    assert result.counts.failed > 100
    return everything(world.warehouse)


def test_the_core_changes_nothing_but_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_core = loaded(tmp_path, native=True)
    monkeypatch.setattr(kissmetrics_native, "Native", lambda *_: pytest.fail("it is turned off"))
    assert loaded(tmp_path, native=False) == with_core


class Broken:
    """A core that has gone wrong."""

    def __init__(self, core: object, rules: Rules) -> None:
        pass

    def judge(self, *_: Any) -> None:
        return None


def test_python_judges_what_the_core_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    with_core = loaded(tmp_path, native=True)
    monkeypatch.setattr(kissmetrics_native, "Native", Broken)
    judging._core.cache_clear()
    try:
        assert loaded(tmp_path / "broken", native=True) == with_core
    finally:
        judging._core.cache_clear()


def test_who_asks_is_told_which_judges() -> None:
    assert library(), "there is no native core here: make native"
    assert "(native core)" in CliRunner().invoke(cli, ["--version"]).output


@pytest.mark.parametrize("data", [b"", b"\n", b"a", b"\n" * 1_000, b"x\r\n\xff" * 999])
def test_lines_are_counted_alike(data: bytes) -> None:
    assert line_ends(data, native=True) == line_ends(data, native=False) == data.count(b"\n")


def test_a_processor_without_wide_registers_gives_the_same(tmp_path: Path) -> None:
    rustc = shutil.which("rustc", path=f"/usr/bin:{os.environ['PATH']}")  # Debian's first
    assert rustc
    made = str(tmp_path / "tests")
    for command in ([rustc, "--edition", "2021", "--test", "-o", made, str(ROOT / "native/blake2b.rs")], [made]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
