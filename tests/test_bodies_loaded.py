"""Bodies of Woopra and WebEngage in a real warehouse: each fact once, and what was mended in its place."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from ingest import preview
from ingest.core.commands import Failure, Item
from ingest.core.formats.woopra import FORMAT as WOOPRA_FORMAT
from ingest.core.source import SourceFile
from ingest.errors import IngestError
from ingest.ports import Audit
from ingest.redrive import Outcome, redrive
from ingest.report import line_to_mend
from ingest.settings import Source
from tests.support import World, everything
from tests.test_exactly_once import broken_promises, warehouse_at

NOTE = Audit(by="ann", reason="it was wrong", run_id="run 7")
MS = 1_444_077_951_001
LIMITED = Source(name="limited", bucket="bucket", format="woopra", max_failed_lines=0)


@pytest.fixture
def world(tmp_path: Path, empty_warehouse: Path) -> World:
    return World(warehouse_at(Path(shutil.copy(empty_warehouse, tmp_path / "warehouse.duckdb"))), [LIMITED])


def put(world: World, key: str, format: str, *documents: Any, **more: Any) -> SourceFile:
    """An object with these documents, one a line; text as it is."""
    texts = [one.encode() if isinstance(one, str) else orjson.dumps(one) for one in documents]
    body = b"\n".join(texts) + b"\n"
    file = world.put(key, body=body, **more)
    return world.store.put(replace(file, format=format), body)


def visit(who: Mapping[str, Any], *actions: Any, **fields: Any) -> dict[str, Any]:
    return {"visitor": who, "actions": list(actions), **fields}


def action(name: str, ms: int | None = MS, **properties: Any) -> dict[str, Any]:
    return {"name": name, "time": ms, "properties": properties}


def counts(world: World, file: SourceFile) -> tuple[int, ...]:
    row = world.warehouse.find_file(file.file_id)
    return tuple(row[name] for name in ("lines", "items", "records", "sets", "aliases", "failed", "duplicates"))


def events(world: World) -> list[tuple[str, str, int, str]]:
    rows = world.rows("SELECT person_id, event, line, item FROM events ORDER BY position, event")
    return [(row["person_id"], row["event"], row["line"], row["item"]) for row in rows]


def mend(world: World, file: SourceFile, mended: Mapping[str, Any] | None) -> Outcome:
    text = b"".join(place.encode() + b"\t" + orjson.dumps(to) + b"\n" for place, to in (mended or {}).items())
    return redrive(world.pipeline, file.file_id, None if mended is None else text, NOTE)


def failed(world: World, file: SourceFile) -> dict[str, dict[str, Any]]:
    with world.warehouse.failed_lines(file.file_id) as rows:
        return {f"{row['line']}{row['item'] or ''}": row for row in rows}


WOOPRA = [
    visit({"id": "ann", "email": "a@b", "plan": "pro"}, action("view"), action("buy", MS + 5, price=1.10), city="Rome"),
    visit({"email": "a@b"}, action("leave", MS + 9)),
]
WEBENGAGE = [
    {"events": [{"userId": "ann", "eventName": name, "eventTime": "2018-09-15T18:29:00-0800"} for name in ("x", "y")]},
]


@pytest.mark.parametrize(("format", "documents", "facts"), [("woopra", WOOPRA, 3), ("webengage", WEBENGAGE, 2)])
def test_loaded_twice_it_is_there_once(world: World, format: str, documents: list[Any], facts: int) -> None:
    file = put(world, "a.json", format, *documents)
    (first,) = world.load(file)
    once = everything(world.warehouse)
    (second,) = world.load(file)
    assert (first.state, second.state, second.already) == ("loaded", "loaded", True)
    assert everything(world.warehouse) == once
    assert world.count("events") == facts
    # The same bytes under another name, and the same bodies in other bytes.
    assert world.load(put(world, "b.json", format, *documents))[0].state == "duplicate"
    other = put(world, "c.json", format, *(orjson.dumps(one, option=orjson.OPT_INDENT_2).decode() for one in documents))
    assert world.load(other)[0].state == "loaded"
    assert counts(world, other)[-1] == sum(counts(world, other)[2:5])
    assert world.count("events") == facts


def test_rows_know_their_document_and_their_person(world: World) -> None:
    file = put(world, "a.json", "woopra", *WOOPRA)
    world.load(file)
    assert counts(world, file) == (2, 4, 3, 1, 1, 0, 0)
    assert events(world) == [
        ("a@b", "view", 1, "/actions/0"), ("a@b", "buy", 1, "/actions/1"), ("a@b", "leave", 2, "/actions/0"),
    ]  # fmt: skip
    (person,) = world.rows("SELECT identities, properties FROM people")
    assert sorted(person["identities"]) == ["a@b", "ann"]
    assert orjson.loads(person["properties"])["plan"] == "pro"
    visits = world.rows("SELECT properties ->> 'visit.id' AS visit, count(*) AS n FROM events GROUP BY ALL ORDER BY n")
    assert [row["n"] for row in visits] == [1, 2]


def test_exports_that_overlap_add_only_what_is_new(world: World) -> None:
    one, two = visit({"id": "ann"}, action("view"), action("buy", MS + 5)), visit({"id": "bob"}, action("view"))
    longer = visit({"id": "ann"}, action("view"), action("buy", MS + 5), action("leave", MS + 9))
    world.load(put(world, "1.json", "woopra", one))
    later = put(world, "2.json", "woopra", longer, two)
    world.load(later)
    assert counts(world, later) == (2, 4, 4, 0, 0, 0, 2)
    assert [event for _, event, *_ in events(world)] == ["view", "buy", "leave", "view"]
    visits = world.rows("SELECT DISTINCT person, properties ->> 'visit.id' AS visit FROM events")
    assert len(visits) == 2
    world.load(put(world, "1.json", "webengage", *WEBENGAGE, bucket="other"))
    both = {"events": [*WEBENGAGE[0]["events"], {"userId": "ann", "eventName": "z", "eventTime": "2018-09-16T00:00Z"}]}
    world.load(put(world, "2.json", "webengage", both, bucket="other"))
    assert world.count("events", "people_space = 'webengage'") == 3


@pytest.mark.parametrize(
    ("format", "document"),
    [
        ("woopra", visit({"id": "ann"}, action("view", None))),
        ("webengage", {"events": [{"userId": "ann", "eventName": "view"}]}),
    ],
)
def test_an_untimed_event_in_three_files_is_three(world: World, format: str, document: Any) -> None:
    files = [put(world, f"{n}.json", format, document, arrived=0) for n in range(3)]
    assert [result.state for result in world.load(*files)] == ["loaded"] * 3
    world.load(*files)
    assert world.count("events") == 3
    assert world.count("commands", "time_source = 'received'") == 3


def test_a_plan_that_goes_there_and_back_ends_where_it_ended(world: World) -> None:
    for number, plan in enumerate(("gold", "silver", "gold")):
        user = {"users": [{"userId": "ann", "attributes": {"plan": plan}}]}
        world.load(put(world, f"{number}.json", "webengage", user))
    (person,) = world.rows("SELECT properties FROM people")
    assert orjson.loads(person["properties"]) == {"plan": "gold"}
    assert world.count("commands") == 3


@pytest.mark.parametrize("changed", [{"name": "buy"}, {"time": MS + 7}])
def test_a_mended_action_is_there_once_with_its_person_and_visit(world: World, changed: dict[str, Any]) -> None:
    wrong = action("buy", MS + 7, price=1.10) | ({"name": None} if "name" in changed else {"time": MS // 1000})
    file = put(
        world, "a.json", "woopra",
        visit({"id": "bob"}, action("view")),
        visit({"id": "ann", "email": "a@b"}, action("view"), wrong, city="Rome", lng=12.50),
    )  # fmt: skip
    world.load(file)
    assert counts(world, file) == (2, 4, 2, 1, 1, 1, 0)
    assert list(failed(world, file)) == ["2/actions/1"]
    still = mend(world, file, {"2/actions/1": {"name": "buy", "time": 5}})
    assert (still.result, [row["codes"] for row in still.refused]) == (None, [["time_in_seconds"]])

    outcome = mend(world, file, {"2/actions/1": wrong | changed})
    assert outcome.result
    assert not outcome.refused
    once = everything(world.warehouse)
    again = mend(world, file, {"2/actions/1": wrong | changed})
    assert (again.result, again.already) == (None, 1)
    assert everything(world.warehouse) == once

    (bought,) = world.rows("SELECT * FROM events WHERE event = 'buy'")
    (seen,) = world.rows("SELECT * FROM events WHERE event = 'view' AND line = 2")
    assert (bought["person"], bought["person_id"], bought["line"], bought["item"]) == ("ann", "a@b", 2, "/actions/1")
    fields, properties = orjson.loads(seen["properties"]), orjson.loads(bought["properties"])
    assert properties == {**fields, "price": 1.1}
    assert fields["visit.city"] == "Rome"
    assert "12.5" in bought["properties"]
    assert failed(world, file)["2/actions/1"]["redriven_by"] == outcome.result.file_id
    # Whoever sends the whole visit as it should have been adds nothing.
    sound = visit(
        {"id": "ann", "email": "a@b"}, action("view"), action("buy", MS + 7, price=1.10), city="Rome", lng=12.50
    )
    whole = put(world, "b.json", "woopra", sound)
    world.load(whole)
    assert counts(world, whole)[-1] == 4


def test_a_mended_visit_brings_all_of_its_items(world: World) -> None:
    file = put(world, "a.json", "woopra", visit({}, action("view"), action("buy")))
    world.load(file)
    assert counts(world, file) == (1, 1, 0, 0, 0, 1, 0)
    outcome = mend(world, file, {"1": visit({"id": "ann", "plan": "pro"}, action("view"), action("buy"))})
    assert outcome.result
    assert (outcome.result.counts.records, outcome.result.counts.sets) == (2, 1)
    assert [event for _, event, *_ in events(world)] == ["view", "buy"]


def test_mended_users_and_events(world: World) -> None:
    body = {
        "users": [{"a": 1}, {"userId": "ann"}],
        "events": [{"userId": "ann", "eventName": "we_x"}, {"userId": "ann", "eventName": "y", "eventTime": "soon"}],
    }
    file = put(world, "a.json", "webengage", orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())
    world.load(file)
    assert list(failed(world, file)) == ["1/events/0", "1/events/1", "1/users/0"]
    # What `ingest failures --lines` shows can be sent back, one line each, though the body spans lines.
    shown = b"".join(line_to_mend(row) for row in failed(world, file).values())
    assert shown.count(b"\n") == 3
    edited = shown.replace(b"we_x", b"x").replace(b"soon", b"2018-09-15T18:29:00Z").replace(b'"a": 1', b'"userId": "b"')
    outcome = redrive(world.pipeline, file.file_id, edited, NOTE)
    assert outcome.result
    assert not outcome.refused
    assert (outcome.result.counts.records, outcome.result.counts.sets) == (2, 1)
    assert sorted(event for _, event, *_ in events(world)) == ["x", "y"]
    places = world.rows("SELECT item FROM commands ORDER BY position")
    assert [row["item"] for row in places] == ["/users/0", "/users/1", "/events/0", "/events/1"]


def test_of_a_rejected_file_all_is_judged_with_the_mended_items_in_place(world: World) -> None:
    parted = visit({"id": "änn", "plan": "pro"}, action("view"), 7, {"name": None})
    spread = orjson.dumps(parted, option=orjson.OPT_INDENT_2).decode()
    after = visit({"id": "bob"}, action("view"))
    file = put(world, "a.json", "woopra", '{"visitor":{"id":', spread, after, source="limited")
    assert world.load(file)[0].state == "rejected"
    assert world.count("commands") == 0
    last = 3 + spread.count("\n")
    assert list(failed(world, file)) == ["1", "2/actions/1", "2/actions/2"]

    some = mend(world, file, {"2/actions/1": action("buy", MS + 1)})
    assert (some.result, world.count("commands")) == (None, 0)

    sound = visit({"id": "cid"}, action("view"))
    mended = {"2/actions/2": action("leave", MS + 2), "1": sound, "2/actions/1": action("buy", MS + 1)}
    outcome = mend(world, file, mended)
    assert outcome.result
    assert not outcome.refused
    assert events(world) == [
        ("cid", "view", 1, "/actions/0"), ("änn", "view", 2, "/actions/0"), ("änn", "buy", 2, "/actions/1"),
        ("änn", "leave", 2, "/actions/2"), ("bob", "view", last, "/actions/0"),
    ]  # fmt: skip
    visits = world.rows("SELECT DISTINCT properties ->> 'visit.id' AS visit FROM events WHERE line = 2")
    assert len(visits) == 1
    assert all(row["redriven_by"] == outcome.result.file_id for row in failed(world, file).values())
    once = everything(world.warehouse)
    assert mend(world, file, mended).already == 3
    assert everything(world.warehouse) == once


def test_a_large_document_is_not_judged_for_a_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = visit({"id": "ann"}, action("view")), visit({"id": "bob"}, *[action("view")] * 30)
    file = put(world, "a.json", "woopra", small, large, small)
    world.load(file)
    row = world.warehouse.find_file(file.file_id)
    shown = preview.preview(world.pipeline, row, 1)
    assert [(line.number, len(line.items), line.more_items) for line in shown.lines] == [
        (1, 1, 0),
        (2, 20, 10),
        (3, 1, 0),
    ]
    for name, limit in (("_JUDGED_BYTES", 500), ("_JUDGED_VALUES", 50)):
        with monkeypatch.context() as patched:
            patched.setattr(preview, name, limit)
            shown = preview.preview(world.pipeline, row, 1)
            assert ([line.number for line in shown.lines], shown.following) == ([1], 2)
            assert [line.number for line in preview.preview(world.pipeline, row, 3).lines] == [3]
            with pytest.raises(IngestError, match="in line 2 holds more than is judged for a page"):
                preview.preview(world.pipeline, row, 2)


def view(product: object) -> dict[str, Any]:
    return {"view": {"sessionExternalId": "ann", "productId": product, "timestamp": "2018-09-15T18:29:00Z"}}


@pytest.mark.parametrize("most", [0, None])  # rejected, and loaded
def test_a_mended_body_with_a_wrong_item_stays_open_as_a_whole(world: World, most: int | None) -> None:
    world.sources = (Source(name="limited", bucket="bucket", format="retailrocket", max_failed_lines=most),)
    file = put(world, "a.json", "retailrocket", [view(1)], "[nothing", [view(2)], source="limited")
    assert world.load(file)[0].state == ("loaded" if most is None else "rejected")
    world.sources = (Source(name="limited", bucket="bucket", format="retailrocket", max_failed_lines=1),)
    outcome = mend(world, file, {"2": [view(3), view({})]})
    assert [(row["line"], row["codes"]) for row in outcome.refused] == [(2, ["shape_wrong"])]
    assert [place for place, row in failed(world, file).items() if not row["redriven_by"]] == ["2"]
    assert [line for *_, line, _ in events(world)] == [1, 3]
    assert bool(outcome.result) == (most is not None)  # one wrong body is within the limit by now

    assert mend(world, file, {"2": [view(3), view(4)]}).result
    assert [(line, item) for *_, line, item in events(world)] == [
        (1, "/0/view"), (2, "/0/view"), (2, "/1/view"), (3, "/0/view")
    ]  # fmt: skip


def test_a_body_that_falls_into_items_is_closed_and_its_wrong_items_are_open(world: World) -> None:
    """Mended as a whole it would bring its right items a second time."""
    file = put(world, "a.json", "retailrocket", [view("x" * 300), view(1), view(2)], source="limited")
    small, pipeline = replace(world.pipeline.settings, max_document_bytes=300), world.pipeline
    assert replace(pipeline, settings=small).load([file])[0].state == "rejected"
    assert [row["codes"] for row in failed(world, file).values()] == [["document_too_large"]]
    world.sources = (replace(LIMITED, format="retailrocket", max_failed_lines=1),)
    first = mend(world, file, None)
    assert first.result
    assert {place: row["redriven_by"] for place, row in failed(world, file).items()} == {
        "1": first.result.file_id, "1/0/view": None,
    }  # fmt: skip
    assert world.warehouse.disagreements() == []
    assert mend(world, file, {"1/0/view": view(3)["view"]}).result
    assert [item for *_, item in events(world)] == ["/0/view", "/1/view", "/2/view"]
    assert broken_promises(warehouse_at(Path(world.warehouse.name.removeprefix("duckdb:///")))) == {}


def test_a_visit_that_fails_as_a_whole_by_now_takes_its_open_action_along(world: World) -> None:
    """Mended by itself besides, the action would be there twice."""
    spaced = visit({"id": "ann", "gender": "unheard of"}, action("view"), {"name": None})
    file = put(world, "a.json", "woopra", spaced, visit({"id": "bob"}, action("view")), source="limited")
    assert world.load(file)[0].state == "rejected"
    assert list(failed(world, file)) == ["1/actions/1"]
    world.sources = [replace(LIMITED, max_failed_lines=1)]

    def refuse_visits(judge: Any, unit: bytes, rules: Any) -> list[Item]:
        whole = Item(failures=(Failure("shape_wrong", "No."),))
        return [whole] if b"unheard" in unit else judge(unit, rules)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WOOPRA_FORMAT, "judge", partial(refuse_visits, WOOPRA_FORMAT.judge), raising=False)
        outcome = mend(world, file, None)
    assert outcome.result
    by = {place: row["redriven_by"] for place, row in failed(world, file).items()}
    assert by == {"1": None, "1/actions/1": outcome.result.file_id}
    assert mend(world, file, {"1": visit({"id": "ann"}, action("view"), action("buy"))}).result
    assert sorted((line, item) for *_, line, item in events(world)) == [
        (1, "/actions/0"), (1, "/actions/1"), (2, "/actions/0")
    ]  # fmt: skip


def test_what_fails_only_now_stands_where_it_stands_in_the_object(world: World) -> None:
    spread = orjson.dumps([view("ä"), {"view": {}}, view(1)], option=orjson.OPT_INDENT_2).replace(b"\n", b"\r\n")
    untimed = {"view": {"sessionExternalId": "bob", "productId": 5}}
    documents = [b"  " + spread, b"[broken", orjson.dumps([view(3), {"view": {}}, untimed]), orjson.dumps([untimed])]
    body = b"\xef\xbb\xbf\r\n" + b"\r\n \r\n".join(documents)
    limited = Source(name="limited", bucket="bucket", format="retailrocket", max_failed_lines=0)
    world.sources = [limited]
    file = replace(world.put("a.json", body=body, source="limited"), format="retailrocket")
    world.store.put(file, body)
    assert world.load(file)[0].state == "rejected"
    world.sources = [replace(limited, max_failed_lines=5, strict=True)]
    first, second, broken, third = failed(world, file)
    mended = {place: view(9)["view"] | {"note": "é" * 40} for place in (first, second, third)}
    outcome = mend(world, file, mended)
    assert outcome.result
    assert not outcome.already
    still = {place: row for place, row in failed(world, file).items() if not row["redriven_by"]}
    assert [row["codes"] for row in still.values()] == [["not_json"], ["no_time"], ["no_time"]]
    assert broken in still
    for row in still.values():
        assert body[row["byte_offset"] :][: row["byte_length"]] == row["raw"]


def test_a_file_of_another_format_is_refused_once(world: World) -> None:
    file = put(world, "a.json", "webengage", *WOOPRA)
    (result,) = world.load(file)
    assert (result.state, world.count("commands")) == ("rejected", 0)
    (row,) = failed(world, file).values()
    assert (row["codes"], row["raw"]) == (["wrong_format"], world.store.objects["bucket", "a.json"][1])
    assert "woopra" in row["failures"]
