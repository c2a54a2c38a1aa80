"""Actions by command, also of several processes at a time."""

import getpass
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.actions.acting import (
    X,
    events,
    shape,
    shown,
)
from tests.support import Line, World, alias, lines, record
from tests.test_exactly_once import broken_promises, environment, warehouse_at


@dataclass
class Shell:
    """A folder with files, a warehouse of its own, and `ingest` in a process."""

    folder: Path

    @property
    def warehouse(self) -> Path:
        return self.folder / "warehouse.duckdb"

    def start(self, *words: str | Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "ingest", *map(str, words)]
        return subprocess.Popen(
            command, env=environment(self.folder), cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str | Path) -> tuple[int, Any, str]:
        """Exit code, the JSON document, and what was said."""
        with self.start(*words, "--json") as process:
            out, said = process.communicate(timeout=120)
        assert "Traceback" not in said, said
        return process.returncode, json.loads(out) if out else None, said

    def file(self, name: str, *content: Line) -> Path:
        path = self.folder / name
        path.write_bytes(lines(*content))
        return path

    def id_of(self, path: Path) -> str:
        _, told, _ = self.run("load", path)
        return str(told["files"][0]["file_id"])

    def world(self) -> World:
        return World(warehouse_at(self.warehouse))


@pytest.fixture
def shell(tmp_path: Path, empty_warehouse: Path) -> Shell:
    shutil.copy(empty_warehouse, tmp_path / "warehouse.duckdb")
    return Shell(tmp_path)


def test_undo_and_load_by_command(shell: Shell) -> None:
    path = shell.file("a.json", X, "bad")
    file_id = shell.id_of(path)
    before = shown(shell.warehouse)
    code, told, _ = shell.run("undo", file_id[:8], "--dry-run")
    assert (code, [one["state"] for one in told["files"]]) == (0, ["loaded"])
    assert shown(shell.warehouse) == before
    code, told, said = shell.run("undo", file_id[:8], "--reason", "the wrong day")
    assert (code, [(one["file_id"], one["before"], one["state"], one["error"]) for one in told["files"]]) == (
        0,
        [(file_id, "loaded", "undone", None)],
    )
    assert "warehouse.duckdb" in said
    history = shell.world().warehouse.history(file_id)
    assert [(row["action"], row["reason"]) for row in history] == [("load", None), ("undo", "the wrong day")]
    assert {row["by"] for row in history} == {getpass.getuser()}
    code, told, _ = shell.run("load", shell.folder)  # not by name
    assert (code, [one["state"] for one in told["files"]]) == (0, ["undone"])
    code, told, _ = shell.run("load", path)
    assert (code, [one["state"] for one in told["files"]]) == (1, ["loaded"])
    after = shown(shell.warehouse)
    assert after | {"history": []} == before | {"history": []}


@pytest.mark.slow
def test_refusals_by_command(shell: Shell) -> None:
    file_id = shell.id_of(shell.file("a.json", X))
    for action in ("release", "ignore"):
        code, told, said = shell.run(action, file_id)
        assert (code, told["files"][0]["state"]) == (2, "loaded")
        assert "loaded" in told["files"][0]["error"]
        assert told["files"][0]["error"] in said
    for words in (["undo"], ["undo", "nothing"], ["undo", file_id, "--source", "one_off"], ["redrive", "nothing"]):
        code, told, said = shell.run(*words)
        assert (code, list(told)) == (2, ["error"])
        assert said.strip().splitlines()[-1].endswith(".")


@pytest.mark.slow
def test_a_file_without_open_lines_says_where_they_are_by_command(shell: Shell) -> None:
    path = shell.file("a.json", X, "bad", "worse")
    original = shell.id_of(path)
    shutil.copy(path, shell.folder / "b.json")
    with shell.start("load", shell.folder / "b.json") as process:
        _, said = process.communicate(timeout=60)
    assert f"The failed lines: ingest failures {original[:8]}" in said
    rows = {row["state"]: row["file_id"] for row in shell.world().warehouse.files({})}
    copy = rows["duplicate"]
    code, told, _ = shell.run("failures", copy)
    assert (code, told["open"], told["failures"], told["see_file"]) == (0, 0, [], original)
    for more in ([], ["--lines"]):
        with shell.start("failures", copy, *more) as process:
            out, said = process.communicate(timeout=60)
        assert (
            f"Its bytes are loaded as another file, which holds the failed lines. See: ingest failures {original[:8]}"
            in (said if more else out)
        )
        assert "bad" not in out
    code, told, _ = shell.run("failures", original)
    assert (told["open"], len(told["failures"]), told["note"], told["see_file"]) == (2, 2, None, None)


def test_redrive_by_command(shell: Shell) -> None:
    path = shell.file("a.json", X, "bad", "worse")
    file_id = shell.id_of(path)
    with shell.start("failures", file_id, "--lines") as process:
        out, _ = process.communicate(timeout=60)
    assert out == "2\tbad\n3\tworse\n"
    fixed = shell.folder / "fixed.txt"
    fixed.write_bytes(out.encode().replace(b"bad\n", lines(record("bob", 1, "x"))))
    code, told, _ = shell.run("redrive", file_id, fixed)
    assert code == 1
    assert [(one["state"], one["records"], one["redrive_of"]) for one in told["files"]] == [("loaded", 1, file_id)]
    assert [(one["line"], one["codes"]) for one in told["failures"]] == [(3, ["not_json"])]
    assert (told["fixed"], told["still_wrong"], told["open"]) == (1, 1, 1)
    after = shown(shell.warehouse)
    fixed.write_bytes(shape({2: record("bob", 1, "x")}))
    code, told, _ = shell.run("redrive", path_uri(file_id), fixed)
    assert (code, told["files"], told["mended_before"]) == (0, [], 1)
    assert shown(shell.warehouse) == after
    with shell.start("redrive", file_id, fixed) as process:
        out, _ = process.communicate(timeout=60)
    before = "1 line fixed before, so what was sent for that is not loaded (to change it, undo its redrive first)"
    assert out == f"{path}: {before}; 1 line still open\n"
    fixed.write_bytes(b"\n")
    code, told, said = shell.run("redrive", file_id, fixed)
    assert (code, list(told), "There is no line in what was sent" in said) == (2, ["error"], True)
    assert shown(shell.warehouse) == after


@pytest.mark.slow
def test_what_a_redrive_by_command_could_not_do(shell: Shell) -> None:
    path = shell.file("a.json", X, record("bob", 1, "x" * (1 << 20)))
    file_id = shell.id_of(path)
    code, told, _ = shell.run("redrive", file_id)
    assert (code, told["files"], told["still_wrong"]) == (1, [], 0)
    assert "1 open line was not judged again" in told["error"]
    with shell.start("redrive", file_id) as process:
        out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, f"{path}: 1 line still open\n")
    assert "or force the file" in said


def path_uri(file_id: str) -> str:
    return file_id[:10]


@pytest.mark.slow
def test_two_processes_that_mend_the_same_lines(shell: Shell) -> None:
    file_id = shell.id_of(shell.file("a.json", X, "bad", "worse", "worst"))
    bob, cat, dan = (record(name, 1, "x") for name in ("bob", "cat", "dan"))
    sent: list[dict[int, Line]] = [{2: bob, 3: cat}, {2: bob, 3: cat}, {3: cat, 4: dan}, {2: bob}]
    processes = []
    for number, mended in enumerate(sent):
        (shell.folder / f"{number}.txt").write_bytes(shape(mended))
        processes.append(shell.start("redrive", file_id, shell.folder / f"{number}.txt", "--json"))
    brought, before = 0, 0
    for process in processes:
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        told = json.loads(out)
        assert not told["error"]
        brought += sum(one["records"] for one in told["files"] if not one["already"])
        before += told["mended_before"]
    assert (brought, before) == (3, 4)
    world = shell.world()
    assert [row["line"] for row in world.rows("SELECT line FROM commands ORDER BY line")] == [1, 2, 3, 4]
    assert sorted(name for name, _ in events(world)) == ["ann", "bob", "cat", "dan"]
    assert world.count("failed_lines", "redriven_by IS NULL") == 0
    assert broken_promises(warehouse_at(shell.warehouse)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("opposite", ["force", "redrive"])
def test_two_processes_that_do_opposite_things(
    shell: Shell, empty_warehouse: Path, tmp_path: Path, opposite: str, first: int
) -> None:
    """They end as one of the two would after the other."""
    path = shell.file("a.json", X, "bad", alias("ann", "bob"))
    file_id = shell.id_of(path)
    (shell.folder / "fixed.txt").write_bytes(shape({2: record("bob", 1, "x")}))
    ways: list[list[str | Path]] = [
        ["undo", file_id],
        ["load", path, "--force"] if opposite == "force" else ["redrive", file_id, "fixed.txt"],
    ]
    start = Path(shutil.copy(shell.warehouse, tmp_path / "start.duckdb"))
    serial = []
    for order in (ways, ways[::-1]):
        shutil.copy(start, shell.warehouse)
        codes = [shell.run(*words)[0] for words in order]
        assert (codes == [0, 2]) == (opposite == "redrive" and order is ways)
        serial.append(shown(shell.warehouse))
    assert serial[0]["ledger"] != serial[1]["ledger"]
    for _ in range(3):
        shutil.copy(start, shell.warehouse)
        both = [shell.start(*words) for words in (ways if first == 0 else ways[::-1])]
        for process in both:
            _, said = process.communicate(timeout=120)
            assert "Traceback" not in said
        assert shown(shell.warehouse) in serial
        assert broken_promises(warehouse_at(shell.warehouse)) == {}
