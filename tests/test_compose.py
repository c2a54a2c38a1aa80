"""docker-compose.yml keeps the Compose specification. No engine runs in the tests: no container is started."""

import base64
import json
import re
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


def test_every_secret_can_be_set_from_outside(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            if re.search(r"PASSWORD$|SECRET|FERNET|ROOT_USER", name):
                assert value.startswith("${"), f"{name} is fixed"


def test_the_default_keys_have_the_form_that_airflow_demands(compose: dict[str, Any]) -> None:
    environment = compose["services"]["scheduler"]["environment"]
    fernet = environment["AIRFLOW__CORE__FERNET_KEY"].split(":-")[1].rstrip("}")
    assert len(base64.urlsafe_b64decode(fernet)) == 32
    connection = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", environment["AIRFLOW_CONN_AWS_DEFAULT"])
    assert json.loads(connection)["conn_type"] == "aws"
