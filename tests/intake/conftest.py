"""One instance for the tests of a module that only call it, and worlds for those that do more."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.intake.serving import Served, World, make_world


@pytest.fixture(scope="module")
def served(moto_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    limits = "[intake]\nmax_body_bytes = 200_000\nmax_decompressed_bytes = 3_000_000"
    with make_world(tmp_path_factory.mktemp("intake"), moto_endpoint, limits).serve() as served:
        yield served


@pytest.fixture
def world(moto_endpoint: str, tmp_path: Path) -> World:
    return make_world(tmp_path, moto_endpoint)


@pytest.fixture
def new_world(moto_endpoint: str, tmp_path: Path) -> Callable[[str], World]:
    """A world with more settings at the top of its ingest.toml."""
    return lambda more: make_world(tmp_path, moto_endpoint, more)
