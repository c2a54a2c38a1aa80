"""The commands that the vendors print, run by curl itself: only host, port and key are others."""

import json
import subprocess

import pytest

from tests.intake.serving import World, basic, key_of

# As printed on each page; {url} stands for the vendor's host, {key} for what the reader fills in.
WOOPRA_FILE = (
    '{"visitor":{"email":"ann@example.com"}, "actions":[{"time":1444077951001, "name":"purchase", "properties":'
    '{"price":20, "currency":"$"}}]}\n'
    '{"visitor":{"email":"bob@example.com", "username": "test2"}, "actions":[{"time":1444077951891, "name":"signup", '
    '"properties":{"campaign": true}}]}\n'
)
WOOPRA = """curl -X PUT --user appID:{key} '{url}/rest/2.4/logs/import?website=mybusiness.com' -d @2015-02-01.log"""
VITALLY = """curl -X POST {url}/analytics/v1/batch \\
  -H "Authorization: Basic {key}" \\
  -H "Content-Type: application/json" \\
  -d '[
   {
    "type": "organization",
    "organizationId": "abcdefg",
    "traits": {
      "name": "World Cup",
      "sport": "futbol"
    },
    "messageId": "7ac1c682-a54b-4d0d-9f56-d6d3618f4915",
    "timestamp": "2018-05-15T12:31:12.123Z"
  },
  {
    "type": "user",
    "userId": "32",
    "accountId": "123456",
    "organizationId": "abcdefg",
    "traits": {
      "name": "Lionel Messi",
      "number": 10
    },
    "messageId": "7ac1c682-a54b-4d0d-9f56-d6d3618f4915",
    "timestamp": "2018-05-15T12:31:12.123Z"
  },
  {
    "type": "track",
    "userId": "32",
    "event": "scored-goal",
    "properties": {
      "minute": 14
    },
    "messageId": "7ac1c682-a54b-4d0d-9f56-d6d3618f4915",
    "timestamp": "2018-05-15T12:31:12.123Z"
  }
]'"""
USERS = """{
"users": [
{
"userId": "johndoe",
"firstName": "John",
"birthDate": "1986-08-19T15:45:00-0800",
"attributes": {
"Age": "31",
"Twitter username": "@origjohndoe86"
}
}
]
}"""
EVENTS = """{
"events": [
{
"userId": "johndoe",
"eventName": "Added to Cart",
"eventTime": "2018-09-15T18:29:00-0800",
"eventData": {
"Product ID": 1337,
"Price": 39.8
}
}
]
}"""
WEBENGAGE = (
    """curl -X POST {url}/v1/accounts/~1341056/bulk-%s -H 'Authorization: Bearer {key}' """
    """-H 'Content-Type: application/json' -d '%s'"""
)
RETAIL_ROCKET = (
    """curl --request POST --url '{url}/1.0/visitorEvents%s?apiKey={key}&partnerId=58a1b2' """
    """--header 'Content-Type: application/json' --data '[{"view": {"sessionExternalId": "5e8c1f", "productId": 41, """
    """"timestamp": "2026-01-05T10:00:00Z"}}, {"addToBasket": {"sessionExternalId": "5e8c1f", "productId": 41, """
    """"timestamp": "2026-01-05T10:00:00Z"}}]'"""
)
QUEUED = {"response": {"status": "queued"}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "command", "answer", "counts"),
    [
        pytest.param("woopra", WOOPRA, {"success": True}, (2, 2, 1), id="woopra"),
        pytest.param("woopra", WOOPRA.replace("-d", "--data-binary"), {"success": True}, (2, 2, 1), id="its lines"),
        pytest.param("woopra", WOOPRA.replace("import?", "import/?"), {"success": True}, (2, 2, 1), id="with a slash"),
        pytest.param("webengage", WEBENGAGE % ("users", USERS), QUEUED, (1, 0, 1), id="webengage's users"),
        pytest.param("webengage", WEBENGAGE % ("events", EVENTS), QUEUED, (1, 1, 0), id="webengage's events"),
        pytest.param("webengage", WEBENGAGE % ("events/", EVENTS), QUEUED, (1, 1, 0), id="webengage with a slash"),
        pytest.param("retailrocket", RETAIL_ROCKET % "", None, (1, 2, 0), id="retail rocket"),
        pytest.param("retailrocket", RETAIL_ROCKET % "/", None, (1, 2, 0), id="retail rocket with a slash"),
        pytest.param("vitally", VITALLY, {"message": "Success."}, (1, 1, 2), id="vitally"),
        pytest.param("vitally", VITALLY.replace("/batch", "/batch/"), {"message": "Success."}, (1, 1, 2), id="a slash"),
    ],
)  # fmt: skip
def test_a_printed_command_is_stored_and_loaded(
    world: World, format: str, command: str, answer: object, counts: tuple[int, int, int]
) -> None:
    (world.folder / "2015-02-01.log").write_text(WOOPRA_FILE)
    with world.serve() as served:
        url = str(served.http.base_url).rstrip("/")
        told = run(world, command.replace("{url}", url).replace("{key}", key_of(format)))
        refused = run(world, command.replace("{url}", url).replace("{key}", "wrong"))
    assert told[0] == "200", told
    assert (json.loads(told[1]) if told[1] else None) == answer
    assert refused[0] == "401"
    assert "The key is missing or not known here." in refused[1]
    (result,) = world.poll(format)
    assert (result.state, result.counts.failed) == ("loaded", 0)
    assert (result.counts.lines, result.counts.records, result.counts.sets) == counts


def test_woopras_first_line_as_it_is_printed(world: World) -> None:
    """A bracket short, and joined with the second by curl: it fails alone."""
    (world.folder / "2015-02-01.log").write_text(WOOPRA_FILE.replace('"$"}}]', '"$"}]', 1))
    with world.serve() as served:
        url = str(served.http.base_url).rstrip("/")
        for command in (WOOPRA, WOOPRA.replace("-d", "--data-binary")):
            told = run(world, command.replace("{url}", url).replace("{key}", key_of("woopra")))
            assert told == ("200", '{"success":true}')
    results = world.poll("woopra")
    assert [(one.counts.lines, one.counts.failed, one.counts.records) for one in results] == [(2, 1, 1), (2, 1, 1)]


def test_vitallys_token_is_base64_too(world: World) -> None:
    with world.serve() as served:
        url = str(served.http.base_url).rstrip("/")
        key = basic(key_of("vitally"), "").removeprefix("Basic ")
        told = run(world, VITALLY.replace("{url}", url).replace("{key}", key))
    assert told == ("200", '{"message":"Success."}')


def run(world: World, command: str) -> tuple[str, str]:
    """The status, and what was answered."""
    ran = subprocess.run(
        ["/bin/bash", "-c", f"{command} --silent --show-error --write-out '\\n%{{http_code}}'"],
        cwd=world.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    body, _, status = ran.stdout.rpartition("\n")
    return status, body
