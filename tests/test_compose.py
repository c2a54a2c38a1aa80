"""docker-compose.yml keeps the Compose specification, and Dockerfile does what it says of itself.

No engine runs in the tests: no image is built and no container is started.
"""

import base64
import json
import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jsonschema
import pytest
import yaml

from ingest.demo.postgres import programs
from ingest.settings import spans_hosts
from tests import postgres

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "tests/data/compose-spec.json").read_text())


# What the size team has in .env, beside the secrets.
TEAM = {
    "COMPOSE_PROFILES": "team",
    "AIRFLOW_EXECUTOR": "CeleryExecutor",
    "INGEST_WAREHOUSE": "postgresql://landfall@warehouse/landfall",
}


@pytest.fixture
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


def test_compose_file_is_valid(compose: dict[str, Any]) -> None:
    jsonschema.Draft201909Validator(SCHEMA).validate(compose)


def test_everything_it_names_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert set(service.get("depends_on", ())) <= set(compose["services"])
        named = {volume.split(":")[0] for volume in service.get("volumes", ())}
        assert named <= set(compose["volumes"])
    for config in compose["configs"].values():
        assert (ROOT / config["file"]).is_file()


def test_every_long_running_service_has_a_health_check(compose: dict[str, Any]) -> None:
    assert {name for name, service in compose["services"].items() if "healthcheck" not in service} == {
        "setup",
        "warehouse-setup",
    }


def values(compose: dict[str, Any]) -> dict[str, str]:
    return {
        name: str(value) for one in compose["services"].values() for name, value in one.get("environment", {}).items()
    }


def required(compose: dict[str, Any]) -> set[str]:
    """The variables without which nothing starts."""
    return set(re.findall(r"\$\{(\w+):\?[^}]+\}", json.dumps(compose)))


def test_no_secret_has_a_default(compose: dict[str, Any]) -> None:
    needed = required(compose)
    assert not {name for name in needed if f"${{{name}:-" in json.dumps(compose)}
    for name, value in values(compose).items():
        if re.search(r"PASSWORD$|SECRET|FERNET", name):
            assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{name} has a default"
    for name, secret in (("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", ":{}@"), ("AIRFLOW_CONN_AWS_DEFAULT", '"{}"')):
        assert re.search(secret.format(r"\$\{\w+:\?[^}]+\}"), values(compose)[name]), name


def test_the_secrets_that_are_made_start_it(compose: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    (tmp_path / ".env").write_text("UI_PASSWORD=mine\n")
    for _ in range(2):  # the second time nothing changes
        subprocess.run(["make", "secrets"], cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    made = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())
    assert len((tmp_path / ".env").read_text().splitlines()) == len(made)
    assert made.keys() == required(compose)
    assert made["UI_PASSWORD"] == "mine"
    assert len(base64.urlsafe_b64decode(made["AIRFLOW_FERNET_KEY"])) == 32
    assert all(len(value) >= 32 for name, value in made.items() if name != "UI_PASSWORD")
    connection = re.sub(r"\$\{\w+:[-?]([^}]*)\}", r"\1", values(compose)["AIRFLOW_CONN_AWS_DEFAULT"])
    assert json.loads(connection)["conn_type"] == "aws"


def test_the_example_names_every_variable_and_is_filled_in_by_make_secrets(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    example = (ROOT / ".env.example").read_text()
    named = dict(re.findall(r"^(?:# )?([A-Z0-9_]+)=(.*)$", example, re.MULTILINE))
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", json.dumps(compose)))
    assert named == dict.fromkeys(required(compose), "") | defaults | TEAM
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    (tmp_path / ".env").write_text(example)
    subprocess.run(["make", "secrets"], cwd=tmp_path, capture_output=True, check=True)
    made = [line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines() if line[:1] not in ("", "#")]
    assert sorted(name for name, _ in made) == sorted(required(compose))
    assert all(value for _, value in made)


def stages() -> list[str]:
    """Of the Dockerfile, continued lines in one."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]


def test_the_image_holds_one_environment() -> None:
    build, image = stages()
    assert build.split()[0] == image.split()[0], "the interpreter of the environment is that of the image"
    assert re.findall(r"^COPY --from=build (.*)$", image, re.MULTILINE) == ["/opt/landfall /opt/landfall"]
    assert not re.search(r"\b(pip|uv|venv|apt-get)\b", image)
    assert "PATH=/opt/landfall/bin:$PATH" in image
    ours = (line for line in build.splitlines() if "--python /opt/landfall/bin/python" in line)
    assert all("--require-hashes" in line or "--no-deps" in line for line in ours)


def test_what_the_image_copies_is_there() -> None:
    given = {line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {
        name
        for stage in stages()
        for line in re.findall(r"^COPY (?!--from)(.*)$", stage, re.MULTILINE)
        for name in line.split()[:-1]
    }
    assert copied == given
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("status", [200, 503])
def test_health_checks_ask_with_what_the_image_has(compose: dict[str, Any], status: int) -> None:
    """A slim Python has no curl."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    own = {
        name: one.get("healthcheck", {}).get("test") for name, one in compose["services"].items() if "command" in one
    }
    del own["store"], own["setup"], own["warehouse-setup"]
    assert own.pop("dag-processor")[1].startswith("airflow jobs check")
    assert own.pop("worker")[1].startswith("celery --app airflow.providers.celery.")
    assert own.keys() == {"api-server", "scheduler", "intake"}
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for command, program, *arguments in own.values():
            assert (command, program) == ("CMD", "python")
            here = [re.sub(r"localhost:\d+", f"127.0.0.1:{server.server_port}", word) for word in arguments]
            done = subprocess.run([sys.executable, *here], capture_output=True, check=False)
            assert (done.returncode == 0) is (status == 200), done.stderr
        server.shutdown()


def test_images_are_named_by_digest(compose: dict[str, Any]) -> None:
    images = {one["image"] for one in compose["services"].values() if "build" not in one}
    images |= set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert len(images) == 4
    for image in images:
        assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image


def test_only_this_machine_is_listened_to(compose: dict[str, Any]) -> None:
    ports = [port for one in compose["services"].values() for port in one.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_small_is_one_host_with_a_file_unless_somebody_chooses_team(compose: dict[str, Any], tmp_path: Path) -> None:
    by_default = {name for name, one in compose["services"].items() if "profiles" not in one}
    assert by_default == {"postgres", "store", "setup", "api-server", "scheduler", "dag-processor"}
    for name in by_default:
        assert set(compose["services"][name].get("depends_on", ())) <= by_default, name
    of_team = {name for name, one in compose["services"].items() if one.get("profiles") == ["team"]}
    assert of_team == {"warehouse", "warehouse-setup", "redis", "worker"}

    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for _ in range(2):  # the second time nothing changes
        subprocess.run(["make", "secrets", "TEAM=1"], cwd=tmp_path, capture_output=True, check=True)
    lines = [line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines()]
    assert [one for one in lines if one[0] in TEAM] == [[*pair] for pair in TEAM.items()]

    environment = compose["services"]["scheduler"]["environment"]
    assert environment == compose["services"]["worker"]["environment"]
    for chosen in ({}, TEAM):
        executor, warehouse = (
            re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: chosen.get(found[1], found[2]), environment[name])  # noqa: B023
            for name in ("AIRFLOW__CORE__EXECUTOR", "INGEST_WAREHOUSE")
        )
        assert warehouse.startswith("postgresql:" if chosen else "duckdb:")
        assert not spans_hosts(warehouse, executor)


def test_the_role_that_loads_owns_the_database_and_is_no_superuser(compose: dict[str, Any]) -> None:
    """What the service `warehouse-setup` runs, on a server of the tests."""
    service = compose["services"]["warehouse-setup"]
    (program, *options), (script,) = service["entrypoint"], service["command"]
    with postgres.server() as server:
        for secret in ("it's one", "another"):  # again: it sets the password of .env
            given = dict.fromkeys(service["environment"], secret)
            to_server = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres"}
            path = f"{programs()}:{os.environ['PATH']}"
            postgres.run(program, *options, script, env=os.environ | given | to_server | {"PATH": path})
        asked = "SELECT rolname FROM pg_database d JOIN pg_roles r ON r.oid = datdba WHERE datname = 'landfall'"
        assert server.sql(f"{asked} AND NOT rolsuper AND rolcanlogin").split() == ["landfall"]
        with postgres.warehouse(server.url("landfall", "landfall")).writing():
            pass
