"""`people_space` and `match` hold backwards: a warehouse whose settings changed is as if loaded under the new ones."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest.core.matching import IGNORED_IDENTITIES
from ingest.errors import ConfigError
from ingest.ports import Audit
from ingest.redrive import redrive
from ingest.settings import Source
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests import postgres
from tests.support import World, alias, everything, record, rows

OLD = Source(name="web", bucket="bucket", match="exact", people_space="ours")
SHOP = Source(name="shop", bucket="bucket", people_space="shop")
# `duplicates` tells what was there when a file came, and the settings of then are part of that.
THEN = ("duplicates", "redriven_at")


def world(folder: Path, web: Source, shop: Source = SHOP) -> World:
    sources = {source.name: source for source in (web, shop)}
    warehouse = DuckDBWarehouse(folder / "w.duckdb", ignored_identities=IGNORED_IDENTITIES, sources=sources)
    return World(warehouse, list(sources.values()))


def load_all(there: World) -> None:
    """Names that differ by case and commas, aliases, transport names, a redrive, an undone file, two sources."""
    price = '{"_p": "%s", "_t": 1393344604, "_n": "%s", "price": 1.10, "big": 12345678901234567890123%s}'
    first = price % ("Ann,1", "Signed Up", ', "_ip": "1.2.3.4"')
    there.bring("a.json", first, alias("Ann,1", "KEY 7"), source="web")
    there.bring(
        "b.json", price % ("ann 1", "signed up", ""), price % ("ann 1", "signed up", ', "_k": "key"'),
        record("bob", 1, "SIGNED UP", _secret="kept"), '{"_p": "x"', source="web",
    )  # fmt: skip
    there.bring("c.json", price % ("ann 1", "signed up", ""), alias("key 7", "carl"), source="shop")
    gone = there.bring("d.json", record("gone", 2, "left"), alias("bob", "gone"), source="web")
    there.warehouse.undo([gone.file_id], Audit("test"))
    (b,) = there.warehouse.files({"key": "b.json"})
    redrive(there.pipeline, b["file_id"], b'4\t{"_p": "Bob", "_t": 1393344604, "_n": "mended"}\n', Audit("test"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "now",
    [
        pytest.param({"match": "kissmetrics"}, id="match"),
        pytest.param({"match": "kissmetrics", "people_space": "shop"}, id="shared with another source"),
        pytest.param({"people_space": None, "match": None}, id="settings taken away"),
        pytest.param({"people_space": "elsewhere"}, id="space"),
    ],
)
def test_a_changed_setting_is_as_if_it_had_always_been_so(tmp_path: Path, now: Mapping[str, Any]) -> None:
    (tmp_path / "changed").mkdir()
    (tmp_path / "always").mkdir()
    new = replace(OLD, **now)
    load_all(world(tmp_path / "changed", OLD))
    load_all(world(tmp_path / "always", new))
    changed = everything(world(tmp_path / "changed", new).warehouse, THEN)
    assert changed == everything(world(tmp_path / "always", new).warehouse, THEN)
    assert changed != everything(world(tmp_path / "changed", OLD).warehouse, THEN)
    again = everything(world(tmp_path / "changed", OLD).warehouse, THEN)  # and back
    load_all(world(tmp_path, OLD))
    assert again == everything(world(tmp_path, OLD).warehouse, THEN)
    assert world(tmp_path, OLD).warehouse.disagreements() == []


def test_sources_without_settings_stay_as_they_are(tmp_path: Path) -> None:
    """Such as where a person asks the warehouse without an ingest.toml."""
    load_all(world(tmp_path, OLD))
    before = everything(world(tmp_path, OLD).warehouse)
    bare = DuckDBWarehouse(tmp_path / "w.duckdb", ignored_identities=IGNORED_IDENTITIES)
    assert everything(bare) == before


def test_a_change_that_fails_half_way_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest.warehouse.engines.common import naming
    from ingest.warehouse.engines.common.session import Session

    load_all(world(tmp_path, OLD))
    before = everything(world(tmp_path, OLD).warehouse)

    def fail(*_: object) -> None:
        raise RuntimeError("killed")

    new = replace(OLD, match="kissmetrics")
    for module, name in ((naming, "_keys"), (Session, "join_persons_anew")):
        with monkeypatch.context() as broken:
            broken.setattr(module, name, fail)
            with pytest.raises(RuntimeError):
                everything(world(tmp_path, new).warehouse)
        assert everything(world(tmp_path, OLD).warehouse) == before


# --- on a server: for all loaders, and when somebody says so ---------------------------------------------------------


def on_server(url: str, web: Source) -> World:
    sources = {source.name: source for source in (web, SHOP)}
    return World(postgres.warehouse(url, sources=sources), list(sources.values()))


@pytest.mark.parametrize(
    "now",
    [{"match": "kissmetrics", "people_space": "shop"}, {"people_space": None, "match": None}],
    ids=["shared", "taken away"],
)
def test_two_hosts_do_not_rename_to_and_fro(postgres_server: postgres.Server, now: Mapping[str, Any]) -> None:
    changed, always, new = postgres_server.new(), postgres_server.new(), replace(OLD, **now)
    load_all(on_server(changed, OLD))
    load_all(on_server(always, new))
    before = everything(on_server(changed, OLD).warehouse, THEN)
    with pytest.raises(ConfigError, match=r"match of source web is .* there, .* here\..*`ingest rematch`"):
        on_server(changed, new).bring("e.json", record("ann", 1, "x"))
    assert everything(on_server(changed, new).warehouse, THEN) == before
    assert on_server(changed, new).warehouse.rematch() == 4
    assert everything(on_server(changed, new).warehouse, THEN) == everything(on_server(always, new).warehouse, THEN)
    with pytest.raises(ConfigError, match="source web"):
        on_server(changed, OLD).bring("e.json", record("ann", 1, "x"))
    assert on_server(changed, new).bring("e.json", record("ann", 1, "x")).state == "loaded"
    assert on_server(changed, new).warehouse.disagreements() == []


def test_names_that_mean_nobody_are_settled_too(postgres_server: postgres.Server) -> None:
    url = postgres_server.new()
    first = World(postgres.warehouse(url))
    first.bring("a.json", alias("ann", "nobody"), alias("bob", "nobody"))
    other = replace(first.warehouse, ignored_identities=IGNORED_IDENTITIES | {"nobody"})  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="ignored_identities"):
        World(other).bring("b.json", record("ann", 1, "x"))
    assert other.rematch() == 0
    assert {row["person_id"] for row in rows(other, "SELECT person_id FROM identities")} == {"ann", "bob", "nobody"}
