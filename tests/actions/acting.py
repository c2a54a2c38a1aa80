"""What tests of actions share: sources with all policies, and what a person does in few words."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from ingest import actions
from ingest.core.lifecycle import Action
from ingest.core.source import SourceFile
from ingest.ports import ActionResult, Audit, Mark
from ingest.redrive import Outcome, redrive
from ingest.settings import Source
from tests.support import VOLATILE, Line, Rows, World, alias, everything, in_order, lines, put, record

NOTE = Audit(by="ann", reason="it was wrong", run_id="run 7")
X = record("ann", 0, "x", a=1)


def source(name: str, **more: Any) -> Source:
    return Source(**{"name": name, "bucket": "bucket", "prefix": f"{name}/"} | more)


SOURCES = (
    source("web"), source("strict", max_failed_lines=0), source("limit", max_failed_lines=1),
    source("hold", changed_file="hold"), source("replace", changed_file="replace"),
    source("both", changed_file="replace", max_failed_lines=0),
)  # fmt: skip


def drop(world: World, key: str, *content: Line, **more: Any) -> SourceFile:
    """An object in the landing of the source that its key names."""
    return world.put(key, *content, source=key.split("/", maxsplit=1)[0], **more)


def poll(world: World, name: str) -> dict[str, str]:
    """What became of each pending file of a source."""
    results = world.pipeline.load(world.pipeline.discover(name).pending)
    return {result.key: result.state for result in results}


def do(world: World, action: Action, *files: SourceFile | str, note: Audit = NOTE) -> list[ActionResult]:
    names = [file if isinstance(file, str) else file.file_id for file in files]
    rows, new = actions.chosen(world.pipeline, names, action)
    return actions.act(world.pipeline, action, rows, new, note)


def again(world: World, *files: SourceFile) -> list[str]:
    """A person names them."""
    return [result.state for result in world.pipeline.load(files, intent="again", note=NOTE)]


def mend(world: World, file: SourceFile, mended: Mapping[int, Line] | None) -> Outcome:
    return redrive(world.pipeline, file.file_id, None if mended is None else shape(mended), NOTE)


def shape(mended: Mapping[int, Line]) -> bytes:
    return b"".join(b"%d\t%b" % (number, lines(line)) for number, line in mended.items())


def state(world: World, file: SourceFile) -> str:
    return str(world.warehouse.find_file(file.file_id)["state"])


def all_of(world: World, **more: Any) -> dict[str, Rows]:
    """With the history, which nothing that changes nothing may touch."""
    return everything(world.warehouse, **more) | {"history": in_order(world.rows("SELECT * FROM history"))}


def told(world: World, file: SourceFile) -> list[tuple[str, str, str | None, str | None]]:
    rows = world.warehouse.history(file.file_id)
    return [(row["action"], row["by"], row["reason"], row["run_id"]) for row in rows]


def events(world: World) -> list[tuple[str, str]]:
    return sorted((row["person"], row["event"]) for row in world.rows("SELECT person, event FROM events"))


def open_lines(world: World, file: SourceFile) -> list[int]:
    with world.warehouse.failed_lines(file.file_id) as rows:
        return [row["line"] for row in rows if row["redriven_by"] is None]


def mended_by(world: World, file: SourceFile) -> dict[int, str]:
    with world.warehouse.failed_lines(file.file_id) as rows:
        return {row["line"]: row["redriven_by"] for row in rows if row["redriven_by"]}


def accepted_twice(world: World) -> Rows:
    """Lines of a file that it and its redrives, together, brought more than once."""
    return world.rows(
        "SELECT coalesce(redrive_of, file_id) AS file, line, item, kind FROM commands JOIN ledger USING (file_id)"
        " GROUP BY ALL HAVING count(*) > 1"
    )


def archive(world: World, file: SourceFile) -> str:
    """As `after_load` does; its name there."""
    key = f"completed_imports/{file.key}"
    world.store.put(replace(file, key=key), world.store.objects["bucket", file.key][1])
    world.store.remove(file, "")
    world.warehouse.mark([Mark(file.file_id, key, datetime.now(UTC))], NOTE)
    return key


def neighbours(world: World) -> list[SourceFile]:
    """Files that share facts and hold each other's persons together."""
    files = [
        drop(world, "web/1.json", X, alias("ann", "bob"), put("ann", 1, plan="old"), "bad"),
        drop(world, "web/2.json", record("Ann", 0, "X", a=1), alias("bob", "cat"), put("bob", 1, plan="new"), "worse"),
        drop(world, "web/3.json", record("cat", 0, "x"), alias("cat", "dan"), X, alias("bob", "ann"), "worst"),
    ]
    assert set(poll(world, "web").values()) == {"loaded"}
    return files


def path_of(world: World) -> Path:
    return Path(world.warehouse.name.removeprefix("duckdb:///"))


def shown(path: Path, *, history: bool = True) -> dict[str, Rows]:
    """What the views show, over one connection of somebody else's."""
    views = ["ledger", "commands", "failed_lines", "events", "identities", "people"]
    left_out = VOLATILE | {"at", "redriven_at"}
    with duckdb.connect(path, read_only=True) as connection:
        return {
            view: in_order(connection.sql(f"SELECT * FROM {view}").to_arrow_table().to_pylist(), left_out)
            for view in views + ["history"] * history
        }
