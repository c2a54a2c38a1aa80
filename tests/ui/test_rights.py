"""Who may see and do what: the table in docs/pages.md, each cell of it asked of the real application.

Airflow's auth manager is a real one that has rights for each DAG (tests/ui/rights.py). Three files, uploads and runs
are asked for: of `website`, of `shop`, and of `one_off`, which belongs to no source.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import boto3
import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from httpx import Response

from ingest.adapters.s3 import S3Store
from ingest.airflow.dags import COMMON
from tests.airflow.conftest import Job
from tests.conftest import S3
from tests.support import ROOT as CHECKOUT
from tests.ui.conftest import ROOT, Site
from tests.ui.producers import text_of

KINDS: Final = ("website", "shop", "one_off")
KEYS: Final = {"website": "landing/w.json", "shop": "shop/s.json", "one_off": "elsewhere/o.json"}
MANY: Final = {"action": "undo", "reason": "all wrong"}
WORDS: Final = {401: "login", 403: "no", 404: "not there", 303: "done"}
PAGES: Final = CHECKOUT / "docs/pages.md"


def table() -> dict[str, dict[str, str]]:
    """The table of the docs: by row, then by column."""
    found = PAGES.read_text(encoding="utf-8").partition("| page, call or DAG |")[2].partition("\n\n")[0]
    head, _, *rows = ["| page, call or DAG |" + found.partition("\n")[0], *found.partition("\n")[2].splitlines()]
    columns = [cell.strip().replace("`", "") for cell in head.strip("|").split("|")][1:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {name: dict(zip(columns, told, strict=True)) for name, *told in cells}


def secret(kind: str, of: str = "file") -> str:
    """A raw line that does not parse."""
    return f"raw {of} of {kind}"


def lines(kind: str, of: str = "file") -> str:
    good = {"_p": "ann", "_t": 1_700_000_000, "_n": f"{of} of {kind}"}
    in_milliseconds = good | {"_p": secret(kind, of), "_t": 1_700_000_000_000}
    return f"{json.dumps(good)}\n{secret(kind, of)}\n{json.dumps(in_milliseconds)}\n"


@dataclass
class World:
    """What is asked for, by kind."""

    site: Site
    files: dict[str, str] = field(default_factory=dict)  # ids
    uploads: dict[str, str] = field(default_factory=dict)  # keys
    runs: dict[str, str] = field(default_factory=dict)  # ids, of the DAG of each
    loaded: str = ""  # the id of a run of ingest_one_off
    checked: str = ""  # the same


Ask = Callable[[World, TestClient, str], str]


def plain(response: Response) -> str:
    return WORDS.get(response.status_code) or {200: "yes"}[response.status_code]


def shown(response: Response, told: str, raw: str) -> str:
    """What a page shows of one file."""
    if response.status_code != 200:
        return plain(response)
    text = text_of(response.text)
    return "lines" if raw in text else "counts" if told in text else "not there"


def of_file(path: str = "", **more: Any) -> Ask:
    def ask(world: World, client: TestClient, kind: str) -> str:
        found = client.get(f"{ROOT}/files/{world.files[kind]}{path}", **more)
        return shown(found, KEYS[kind], secret(kind))

    return ask


def post_file(path: str, **more: Any) -> Ask:
    def ask(world: World, client: TestClient, kind: str) -> str:
        return plain(client.post(f"{ROOT}/files/{world.files[kind]}{path}", **more))

    return ask


def of_run(run: Callable[[World], str], *, tab: bool = False, upload: bool = False) -> Ask:
    """A run of `ingest_one_off` over files of every kind."""

    def ask(world: World, client: TestClient, kind: str) -> str:
        run_id = quote(run(world), safe="")
        address = f"?dag_id=ingest_one_off&run_id={run_id}" if tab else f"/ingest_one_off/{run_id}"
        key = world.uploads[kind] if upload else KEYS[kind]
        return shown(client.get(f"{ROOT}/run{address}"), key, secret(kind, "upload" if upload else "file"))

    return ask


def of_own_run(world: World, client: TestClient, kind: str) -> str:
    return plain(client.get(f"{ROOT}/run/ingest_{kind}/{quote(world.runs[kind], safe='')}"))


def to_fix(_: World, client: TestClient, kind: str) -> str:
    answer = client.get(f"{ROOT}/to-fix?dag_id=ingest_{kind}")
    return (
        "counts" if answer.status_code == 200 and answer.json()["open"] else plain(answer).replace("yes", "not there")
    )


def offered(_: World, client: TestClient, kind: str) -> str:
    page = client.get(f"{ROOT}/upload")
    return plain(page) if page.status_code != 200 or f'<option value="{kind}">' in page.text else "not there"


def put(_: World, client: TestClient, kind: str) -> str:
    return plain(client.put(f"{ROOT}/upload/file?name=x.json&source={kind}", content=lines(kind, "other upload")))


def begin(world: World, client: TestClient, kind: str) -> str:
    return plain(client.post(f"{ROOT}/upload/check", data={"key": world.uploads[kind], "source": kind}))


def trigger(dag_id: str = "") -> Ask:
    """As Airflow's own form does."""

    def ask(_: World, client: TestClient, kind: str) -> str:
        path = f"/api/v2/dags/{dag_id or f'ingest_{kind}'}/dagRuns"
        conf: dict[str, Any] = {"action": "undo"} if dag_id == "ingest_action" else {}  # no action is chosen beforehand
        if dag_id == "" and kind == "one_off":
            conf = {"files": ["s3://nowhere/x.json"]}
        return plain(client.post(path, json={"logical_date": None, "conf": conf}))

    return ask


ASKED: Final[dict[str, Ask]] = {
    "`GET /static/{name}`": lambda _, client, kind: plain(client.get(f"{ROOT}/static/landfall.css")),
    "`GET /`": lambda _, client, kind: shown(client.get(f"{ROOT}/"), KEYS[kind], secret(kind)),
    "`GET /failures`": lambda _, client, kind: shown(client.get(f"{ROOT}/failures"), KEYS[kind], secret(kind)),
    "`GET /files/{file_id}`": of_file(),
    "`GET /files/{file_id}/lines`": of_file("/lines"),
    "`GET /files/{file_id}/lines.{kind}`": of_file("/lines.csv"),
    "`GET /files/{file_id}/mend`": of_file("/mend"),
    "`POST /files/{file_id}/mend`": post_file("/mend", data={"do": "again"}),
    "`GET /files/{file_id}/mended`": lambda world, client, kind: plain(
        client.get(f"{ROOT}/files/{world.files[kind]}/mended")
    ).replace("done", "to `mend`"),
    "`POST /files/{file_id}/mended`": post_file("/mended?do=check", files={"file": ("x", b"2\tx\n")}),
    "`GET /files/{file_id}/fix`": of_file("/fix?code=time_in_milliseconds"),
    "`POST /files/{file_id}/fix`": post_file("/fix", data={"find": "raw", "put": "x", "do": "preview"}),
    "`GET /files/{file_id}/act/{action}`": of_file("/act/undo"),
    "`POST /files/{file_id}/act/{action}`": post_file("/act/undo"),
    "`GET /act`": lambda _, client, kind: plain(client.get(f"{ROOT}/act?source={kind}&action=undo")),
    "`POST /act`": lambda _, client, kind: plain(client.post(f"{ROOT}/act", data=MANY | {"source": kind})),
    "`GET /run/{dag_id}/{run_id}`: a run of the source's DAG": of_own_run,
    "`GET /run/{dag_id}/{run_id}`: a load by `ingest_one_off`": of_run(lambda world: world.loaded),
    "`GET /run/{dag_id}/{run_id}`: a check of uploads": of_run(lambda world: world.checked, upload=True),
    "`GET /run`: failed lines of that load": of_run(lambda world: world.loaded, tab=True),
    "`GET /to-fix`": to_fix,
    "`GET /upload`": offered,
    "`PUT /upload/file`": put,
    "`POST /upload/{action}`": begin,
    "run the source's DAG, or `ingest_one_off`": trigger(),
    "run `ingest_action`, on any file": trigger("ingest_action"),
    "run `ingest_reconcile`": trigger("ingest_reconcile"),
}  # fmt: skip


def summary(told: dict[str, str]) -> str:
    """What a cell says: one word, or which kind of file is another case."""
    words = list(told.values())
    if len(set(words)) == 1:
        return words[0]
    odd = [kind for kind in KINDS if words.count(told[kind]) == 1]
    if len(odd) > 1:
        return "; ".join(f"`{kind}`: {told[kind]}" for kind in KINDS)
    return f"`{odd[0]}`: {told[odd[0]]}; else {next(word for word in words if word != told[odd[0]])}"


@pytest.fixture(scope="module")
def world(
    airflow_db: None, moto_endpoint: str, of: Callable[[str], TestClient], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL_S3": moto_endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1", "INGEST_PROCESSES": "1",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("rights")
        patch.setenv("INGEST_CONFIG", str(folder / "ingest.toml"))
        extra = {"region_name": "us-east-1", "endpoint_url": moto_endpoint}
        connection = {"conn_type": "aws", "login": "test", "password": "test", "extra": extra}
        patch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
        patch.setattr("ingest.warehouse.engines.duckdb.published._QUICK_SECONDS", 3600.0)
        patch.setitem(COMMON["default_args"], "retries", 0)
        client = boto3.client("s3")
        client.create_bucket(Bucket="rights")
        made = World(Site(Job(folder, S3(moto_endpoint, client, "rights", S3Store(client))), of))
        fill(made)
        yield made


def fill(world: World) -> None:
    site, job = world.site, world.site.job
    source = '[[source]]\nname = "{}"\nbucket = "rights"\nprefix = "{}/"\n'
    job.write(f'{source.format("website", "landing")}{source.format("shop", "shop")}[uploads]\nbucket = "rights"\n')
    site.know_dags(anew=True)
    admin = site.of("admin")
    for kind, key in KEYS.items():
        job.s3.put(key, lines(kind).encode())
        sent = admin.put(f"{ROOT}/upload/file?name={kind}.json&source={kind}", content=lines(kind, "upload"))
        world.uploads[kind] = sent.json()["key"]
        conf = {"files": ["s3://nowhere/x.json"]} if kind == "one_off" else {}
        begun = admin.post(f"/api/v2/dags/ingest_{kind}/dagRuns", json={"logical_date": None, "conf": conf})
        assert begun.status_code == 200, begun.text
        world.runs[kind] = begun.json()["dag_run_id"]
    loaded = job.run("ingest_one_off", files=[f"s3://rights/{key}" for key in KEYS.values()])
    uploads = [f"s3://rights/{key}" for key in world.uploads.values()]
    checked = job.run("ingest_one_off", files=uploads, action="check")
    assert loaded.state == checked.state == "success"
    assert "raw " not in json.dumps([loaded.returned, checked.returned])  # whoever may read a DAG may read its XComs
    world.loaded, world.checked = loaded.run_id, checked.run_id
    rows = {row["key"]: row for row in job.ledger()}
    assert {key: row["source"] for key, row in rows.items()} == {key: kind for kind, key in KEYS.items()}
    world.files |= {kind: rows[key]["file_id"] for kind, key in KEYS.items()}


@pytest.fixture(scope="module")
def answers(world: World) -> dict[tuple[str, str], str]:
    """What came of every call, by row and column."""
    found = {}
    for who in next(iter(table().values())):
        client = world.site.of(who)
        for name, ask in ASKED.items():
            found[name, who] = summary({kind: ask(world, client, kind) for kind in KINDS})
    return found


@pytest.mark.parametrize(
    ("name", "who", "told"),
    [pytest.param(name, who, told, id=f"{name} – {who}") for name, row in table().items() for who, told in row.items()],
)
def test_who_may_see_and_do_what(answers: dict[tuple[str, str], str], name: str, who: str, told: str) -> None:
    assert answers[name, who] == told


def test_every_page_and_call_is_in_the_table() -> None:
    from ingest.airflow.ui.app import make_app

    routes = [route for route in make_app().routes if isinstance(route, APIRoute)]
    calls = {f"{method} {route.path}" for route in routes for method in route.methods}
    assert {found[1] for name in ASKED if (found := re.match("`([A-Z]+ [^`]*)`", name))} == calls
    assert list(table()) == list(ASKED)


def test_a_file_that_may_not_be_seen_is_as_one_that_is_not_there(world: World) -> None:
    """No answer tells the two apart."""
    client = world.site.of("runs ingest_website")
    ways = ("", "/lines", "/lines.txt", "/mend", "/act/undo")

    def told(file_id: str) -> list[tuple[int, str]]:
        answers = [client.get(f"{ROOT}/files/{file_id}{way}", headers={"Accept": "application/json"}) for way in ways]
        answers.append(client.post(f"{ROOT}/files/{file_id}/mend", data={"do": "again"}))
        return [(answer.status_code, answer.text.replace(file_id, "")) for answer in answers]

    assert told(world.files["shop"]) == told("0" * 32)
