"""An action that fails at any step is done or not."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest.core.source import SourceFile
from ingest.errors import IngestError
from ingest.ports import Staging
from tests.actions.acting import NOTE, SOURCES, X, drop, mend, poll, shown
from tests.support import Rows, World, alias, in_order, put, record
from tests.test_exactly_once import Steps, warehouse_at


@dataclass
class Plan:
    """Something that is done to a warehouse; what that shows before and after, and the steps it takes."""

    start: Path
    act: Callable[[Path], object]
    before: dict[str, Rows] = field(default_factory=dict)
    after: dict[str, Rows] = field(default_factory=dict)
    steps: Sequence[str] = ()

    def undisturbed(self) -> "Plan":
        path = self.copy("undisturbed.duckdb")
        with Steps().taken() as steps:
            self.act(path)
        self.before, self.after, self.steps = shown(self.start), shown(path), steps.names
        assert self.before != self.after
        return self

    def copy(self, name: str) -> Path:
        return Path(shutil.copy(self.start, self.start.with_name(name)))


def busy_world(folder: Path) -> tuple[World, dict[str, SourceFile]]:
    """Files that share facts and persons, one of them with mended lines, one held, one about to be replaced."""
    world = World(warehouse_at(folder / "start.duckdb"), SOURCES)
    files = {
        "web": drop(world, "web/1.json", X, "bad", alias("a", "b"), put("ann", 1, plan="x"), "worse", arrived=50),
        "copy": drop(world, "web/2.json", X, alias("b", "c"), alias("c", "d"), arrived=90),
        "old": drop(world, "replace/1.json", X, "bad", alias("d", "e"), record("eve", 1, "x"), arrived=10),
    }
    drop(world, "hold/1.json", X, alias("c", "e"))
    for name in ("web", "replace", "hold"):
        poll(world, name)
    for name in ("web", "old"):
        assert mend(world, files[name], {2: alias("e", "f")}).result
    files["held"] = drop(world, "hold/1.json", record("eve", 1, "x"), "bad", alias("f", "g"), arrived=5)
    poll(world, "hold")
    files["new"] = drop(world, "replace/1.json", record("eve", 2, "x"), "bad", alias("g", "h"), arrived=7)
    return world, files


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Plan]]:
    folder = tmp_path_factory.mktemp("disturbed")
    world, files = busy_world(folder)
    start = folder / "start.duckdb"

    def load(staging: Staging, intent: Any) -> Callable[[Path], object]:
        return lambda path: at(path).load(staging, "load", None, intent=intent, note=NOTE)

    def at(path: Path) -> Any:
        return warehouse_at(path, lock_timeout_seconds=5)

    def mending(path: Path) -> object:
        other = World(at(path), SOURCES, world.store)
        return mend(other, files["web"], {5: alias("g", "a")})

    pipeline = world.pipeline
    with (
        pipeline.judged([files["web"]], "force") as forced,
        pipeline.judged([files["held"]], "release") as released,
        pipeline.judged([files["new"]]) as replacing,
    ):
        ids = [files["copy"].file_id, files["web"].file_id]
        plans = {
            "undo": Plan(start, lambda path: at(path).undo(ids, NOTE)),
            "force": Plan(start, load(forced, "force")),
            "release": Plan(start, load(released, "release")),
            "replace": Plan(start, load(replacing, "new")),
            "redrive": Plan(start, mending),
        }
        yield {name: plan.undisturbed() for name, plan in plans.items()}


@pytest.mark.slow
def test_what_is_disturbed_does_what_it_says(disturbed: dict[str, Plan]) -> None:
    states = {
        name: sorted((row["key"], row["state"]) for row in plan.after["ledger"] if not row["redrive_of"])
        for name, plan in disturbed.items()
    }  # fmt: skip
    usual = [
        ("hold/1.json", "held"), ("hold/1.json", "loaded"), ("replace/1.json", "loaded"), ("web/1.json", "loaded"),
        ("web/2.json", "loaded"),
    ]  # fmt: skip
    assert states["force"] == states["redrive"] == usual
    assert states["undo"] == [*usual[:3], ("web/1.json", "undone"), ("web/2.json", "undone")]
    assert states["release"] == [("hold/1.json", "loaded"), *usual[1:]]
    assert states["replace"] == [*usual[:3], ("replace/1.json", "replaced"), *usual[3:]]
    assert min(len(plan.steps) for plan in disturbed.values()) > 10


ERRORS: Sequence[BaseException] = (KeyboardInterrupt(), duckdb.IOException("no"), MemoryError())


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("what", ["undo", "force", "release", "replace", "redrive"])
def test_an_action_that_fails_at_any_step_is_done_or_not(disturbed: dict[str, Plan], what: str, after: bool) -> None:
    plan = disturbed[what]
    for step, name in enumerate(plan.steps, 1):
        path = plan.copy("error.duckdb")
        # A file that was opened and yet could not be read is no failure that exists.
        error = ERRORS[0] if after and "ATTACH" in name else ERRORS[step % len(ERRORS)]
        with Steps(step, error, after).taken() as steps, suppress(type(error), IngestError):
            plan.act(path)
        assert len(steps.names) >= step
        if path.with_name(f"{path.name}.wal").exists() or path.read_bytes() != plan.start.read_bytes():
            seen = shown(path)
            assert seen in (plan.before, plan.after), f"half of it is seen after step {step}: {steps.names[step - 1]}"
            plan.act(path)
            again, ended = (
                shown(path, history=False),
                {view: plan.after[view] for view in plan.after if view != "history"},
            )
            assert without_duplicates(again) == without_duplicates(ended), f"the second run after step {step}"
        path.unlink()


def without_duplicates(views: dict[str, Rows]) -> dict[str, Rows]:
    """What is forced again finds its copies where they were not before."""
    return views | {"ledger": in_order(views["ledger"], {"duplicates"})}
