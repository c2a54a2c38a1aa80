"""The vendors' own clients, unchanged, told another host; where there is none, the call as the vendor documents it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ingest.core.formats import FORMATS
from tests.intake.serving import World, key_of

# WebEngage's own migration tool, from PyPI: `we --migrate users -f FILE -lc LICENCE`.
WE = [sys.executable, "-c", "from historical_data_migration.migration import main; main()"]


def migrate(world: World, url: str, kind: str, path: Path, key: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": "/usr/bin:/bin", "WE_API_BASE_URL": url, "WE_API_KEY": key, "PYTHONIOENCODING": "utf-8"}
    command = [*WE, "--migrate", kind, "-f", str(path), "-lc", "in~~1234c456"]
    return subprocess.run(command, env=environment, cwd=world.folder, capture_output=True, text=True, check=False)


def write_csv(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.skipif("webengage" not in FORMATS, reason="the format is not there yet")
def test_webengage_migration(world: World) -> None:
    """60 users and 60 events in batches of 25, a bad row among them, and then the same file once more."""
    users = [[f"u{n}", f"Ünal {n}", f"u{n}@example.com", "gold" if n % 2 else "", str(n)] for n in range(60)]
    users[7][0] = "x" * 101  # the tool itself refuses it
    of_users = write_csv(world.folder / "users.csv", [["userId", "firstName", "email", "plan", "age"], *users])
    events = [[f"u{n}", "Added to Cart", f"2024-09-15T18:{n:02d}:00+0530", str(n), '["a", 1]'] for n in range(60)]
    of_events = write_csv(world.folder / "events.csv", [["userId", "eventName", "eventTime", "qty", "tags"], *events])
    with world.serve() as served:
        url = str(served.http.base_url)
        told = migrate(world, url, "users", of_users, key_of("webengage"))
        assert "Queued by WebEngage            : 59" in told.stdout, told.stdout + told.stderr
        for _ in range(2):
            told = migrate(world, url, "events", of_events, key_of("webengage"))
            assert "Queued by WebEngage            : 60" in told.stdout, told.stdout + told.stderr
            assert "API requests / 429 responses   : 3 / 0" in told.stdout
        stopped = migrate(world, url, "events", of_events, "wrong")
        assert "401" in stopped.stdout
        assert "The key is missing or not known here." in stopped.stdout
    results = world.poll("webengage")
    assert {result.state for result in results} == {"loaded"}
    assert sum(result.counts.sets for result in results) == 59
    assert sum(result.counts.records for result in results) == 120
    (found,) = world.rows("SELECT count(*) AS n, min(occurred_at) AS first FROM events WHERE event = 'Added to Cart'")
    assert found["n"] == 60  # the second time they are facts that were there
    assert found["first"].isoformat() == "2024-09-15T12:30:00+00:00"
    (person,) = world.rows("SELECT properties FROM people WHERE person_id = 'u9'")
    assert json.loads(person["properties"]).items() >= {"firstName": "Ünal 9", "plan": "gold", "age": 9}.items()


@pytest.mark.slow
@pytest.mark.skipif("woopra" not in FORMATS, reason="the format is not there yet")
def test_woopras_import_as_documented(world: World) -> None:
    """`curl -u APPID:SECRET -X PUT …/rest/2.4/logs/import?website=… --data-binary @FILE`: its page's own two lines."""
    page = (
        '{"visitor":{"email":"ann@example.com"}, "actions":[{"time":1444077951001, "name":"purchase", "properties":'
        '{"price":20, "currency":"$"}}]\n'  # a bracket short, as it is printed
        '{"visitor":{"email":"bob@example.com", "username": "test2"}, "actions":[{"time":1444077951891, '
        '"name":"signup", "properties":{"campaign": true}}]}\n'
    )
    with world.serve() as served, httpx.Client(auth=("app-id", key_of("woopra"))) as client:
        for method, path, params in (
            ("PUT", "/rest/2.4/logs/import", {"website": "mybusiness.com"}),
            ("POST", "/rest/3.7/import", {"project": "mybusiness.com"}),
        ):
            answer = client.request(method, f"{served.http.base_url}{path}", params=params, content=page)
            assert (answer.status_code, answer.json()) == (200, {"success": True})
    results = world.poll("woopra")
    assert [(result.counts.lines, result.counts.failed) for result in results] == [(2, 1), (2, 1)]
    assert world.rows("SELECT person, event FROM events") == [{"person": "bob@example.com", "event": "signup"}]


@pytest.mark.slow
@pytest.mark.skipif("retailrocket" not in FORMATS, reason="the format is not there yet")
def test_retail_rocket_order(world: World) -> None:
    """Batches of one visitor, one after the other, to two instances in turn: read back in order, though times tie."""
    expected = []
    with world.serve() as one, world.serve() as other:
        for batch in range(20):
            at = {"sessionExternalId": "5e8c1f", "timestamp": "2026-01-05T10:00:00Z"}
            ids = range(batch * 5, batch * 5 + 5)
            body = [{"view" if n % 3 else "addToBasket": at | {"productId": n % 7, "stockId": str(n)}} for n in ids]
            expected += [(next(iter(item)), str(n)) for n, item in zip(ids, body, strict=True)]
            served = (one, other)[batch % 2]
            params = {"apiKey": key_of("retailrocket"), "partnerId": "shop"}
            answer = served.http.post("/1.0/visitorEvents", params=params, json=body)
            assert (answer.status_code, answer.content) == (200, b"")
    assert {result.state for result in world.poll("retailrocket")} == {"loaded"}
    found = world.rows("SELECT event, properties ->> 'stockId' AS stock FROM events ORDER BY position")
    assert [(row["event"], row["stock"]) for row in found] == expected
