"""A load into a lake that is stopped at any of its steps: it is as before, or done, and may be run again."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyarrow import parquet
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO

from ingest.errors import IngestError
from ingest.ports import Staging
from ingest.warehouse.engines.iceberg.lake import Lake, LakeTable
from ingest.warehouse.engines.iceberg.warehouse import IcebergWarehouse
from tests import iceberg
from tests.support import everything, loads_that_meet_everything
from tests.test_exactly_once import Counting, Steps, broken_promises

# What a load asks of catalog and store; and our own steps on the way there.
WORLD = (
    (SqlCatalog, "load_table"), (SqlCatalog, "commit_table"), (PyArrowFileIO, "new_input"),
    (PyArrowFileIO, "new_output"), (parquet.ParquetWriter, "__init__"), (parquet.ParquetWriter, "write_table"),
    (parquet.ParquetWriter, "close"),
)  # fmt: skip
OURS = (
    (Lake, "find"), (Lake, "make"), (LakeTable, "files_since"), (LakeTable, "commands"), (LakeTable, "changes"),
    (LakeTable, "write"), (LakeTable, "command_file"), (LakeTable, "commit"),
)  # fmt: skip


@dataclass
class LakeSteps(Steps):
    """As `Steps`, and what is done with the lake are steps, too. The error is chosen by whose step it is."""

    chosen: dict[str, type[BaseException]] = field(default_factory=dict)
    raised: BaseException | None = None

    def fail(self) -> None:
        whose = self.names[self.fail_at - 1].partition(" ")[0]
        self.raised = self.chosen.get(whose, self.chosen["engine"])("no")
        raise self.raised

    @contextmanager
    def taken(self) -> Iterator["LakeSteps"]:
        connect = duckdb.connect
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(duckdb, "connect", lambda *arguments, **more: Counting(connect(*arguments, **more), self))
            for whose, places in (("world", WORLD), ("ours", OURS)):
                for owner, name in places:
                    step = self.counted(f"{whose} {owner.__name__}.{name}", getattr(owner, name))
                    patch.setattr(owner, name, step)
            yield self

    def counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **more: self.run(name, call, *arguments, **more)


@dataclass
class Disturbed:
    """A load, judged and waiting; the lake that it starts from, and what that shows before and after it."""

    warehouse: IcebergWarehouse
    catalog: Path
    mirror: Path  # as it is at the start
    staging: Staging
    force: bool
    at: str = ""

    def __post_init__(self) -> None:
        shutil.copy(self.warehouse.mirror.path, self.mirror)
        with sqlite3.connect(self.catalog) as connection:
            ((self.at,),) = connection.execute("SELECT metadata_location FROM iceberg_tables").fetchall()

    def begin(self) -> None:
        """No file of a lake is ever changed: it is as it was once its catalog says so."""
        self.warehouse.mirror.remove()
        shutil.copy(self.mirror, self.warehouse.mirror.path)
        with sqlite3.connect(self.catalog) as connection:
            connection.execute("UPDATE iceberg_tables SET metadata_location = ?", (self.at,))
        connection.close()

    def load(self) -> None:
        self.warehouse.load(self.staging, "load", None, intent="force" if self.force else "new")


@pytest.fixture
def disturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Disturbed]]:
    url = iceberg.describe(monkeypatch, tmp_path)
    (catalog,) = (tmp_path / f"{url.split('/')[2]}.db",)
    warehouse = iceberg.warehouse(url, tmp_path / "mirrors", lock_timeout_seconds=5)
    with loads_that_meet_everything(warehouse) as (first, second):
        new = Disturbed(warehouse, catalog, tmp_path / "new", first, force=False)
        new.load()
        yield [new, Disturbed(warehouse, catalog, tmp_path / "forced", second, force=True)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_an_error_at_every_step(disturbed: list[Disturbed], tmp_path: Path, after: bool) -> None:
    chosen: list[dict[str, type[BaseException]]] = [
        {"engine": KeyboardInterrupt, "world": ConnectionError, "ours": KeyboardInterrupt},
        {"engine": duckdb.IOException, "world": OSError, "ours": MemoryError},
        {"engine": MemoryError, "world": KeyboardInterrupt, "ours": KeyboardInterrupt},
    ]
    for plan in disturbed:
        plan.begin()
        before = everything(plan.warehouse)
        with LakeSteps().taken() as undisturbed:
            plan.load()
        done = everything(plan.warehouse)
        assert before != done
        assert {name.partition(" ")[0] for name in undisturbed.names} >= {"world", "ours"}
        for step, name in enumerate(undisturbed.names, 1):
            plan.begin()
            steps = LakeSteps(step, after=after, chosen=chosen[step % len(chosen)])
            with steps.taken(), suppress(KeyboardInterrupt, MemoryError, duckdb.IOException, IngestError):
                plan.load()
            assert steps.raised, f"nothing failed at {step}, {name}"
            assert everything(plan.warehouse) in (before, done), f"half of a load is seen after {step}, {name}"
            plan.load()
            assert everything(plan.warehouse) == done, f"the second run after {step}, {name}"
            if step % 10 == 0:
                other = iceberg.warehouse(plan.warehouse.name, tmp_path / f"host {step} {plan.force}")
                assert everything(other) == done, f"another host after {step}, {name}"
        assert broken_promises(plan.warehouse) == {}
