"""The world of tests of actions."""

import shutil
from pathlib import Path

import pytest

from tests.actions.acting import SOURCES
from tests.support import World
from tests.test_exactly_once import warehouse_at


@pytest.fixture
def world(tmp_path: Path, empty_warehouse: Path) -> World:
    return World(warehouse_at(Path(shutil.copy(empty_warehouse, tmp_path / "warehouse.duckdb"))), SOURCES)
