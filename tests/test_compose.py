"""docker-compose.yml keeps the Compose specification, and Dockerfile does what it says of itself.

No engine runs in the tests: no image is built and no container is started.
"""

import base64
import json
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


def test_the_example_names_every_variable_and_is_filled_in_by_make_secrets(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    example = (ROOT / ".env.example").read_text()
    named = dict(re.findall(r"^(?:# )?([A-Z0-9_]+)=(.*)$", example, re.MULTILINE))
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", json.dumps(compose)))
    assert named == dict.fromkeys(required(compose), "") | defaults
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
    del own["store"], own["setup"]
    assert own.pop("dag-processor")[1].startswith("airflow jobs check")
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
    assert len(images) == 3
    for image in images:
        assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image), image


def test_only_this_machine_is_listened_to(compose: dict[str, Any]) -> None:
    ports = [port for one in compose["services"].values() for port in one.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
