"""docker-compose.yml keeps the Compose specification. No engine runs in the tests: no container is started."""

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "tests/data/compose-spec.json").read_text())


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
    assert {name for name, service in compose["services"].items() if "healthcheck" not in service} == {"setup"}


def values(compose: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for one in compose["services"].values() for name, value in one["environment"].items()}


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


def test_images_are_named_by_digest(compose: dict[str, Any]) -> None:
    images = {one["image"] for one in compose["services"].values() if "build" not in one}
    images |= set(re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert len(images) == 3
    for image in images:
        assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image


def test_only_this_machine_is_listened_to(compose: dict[str, Any]) -> None:
    ports = [port for one in compose["services"].values() for port in one.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
