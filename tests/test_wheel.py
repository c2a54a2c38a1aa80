"""The wheel, in environments of its own: bare, and in an Airflow that is there. See docs/airflow.md."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GOOD = '{"_p": "ann", "_t": 1700000000, "_n": "Signed Up"}\n'

pytestmark = pytest.mark.slow


CORES = {"pure": "no native core: Python judges every line", "native": "native core"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both that `make wheel` makes."""
    made = {}
    for core in CORES:
        folder = tmp_path_factory.mktemp(core)
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
        subprocess.run(build, check=True, capture_output=True, env=os.environ | {"LANDFALL_WHEEL": core})
        (made[core],) = folder.glob("*.whl")
    assert made["pure"].name.endswith("-py3-none-any.whl")
    assert not made["native"].name.endswith("-any.whl")
    return made


def environment(folder: Path, wheel: Path, requirements: str) -> Path:
    """A virtual environment with the wheel and what one of our locks names. Gives its `bin`."""
    venv.create(folder, with_pip=False)
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--python", str(folder / "bin/python")]
    subprocess.run([*uv, "--require-hashes", "-r", str(ROOT / requirements)], check=True)
    subprocess.run([*uv, "--no-deps", str(wheel)], check=True)
    return folder / "bin"


def run(folder: Path, *command: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command away from the checkout, so that nothing is found there by chance."""
    here = {"PATH": os.environ["PATH"], "HOME": str(folder)} | variables
    words = [str(part) for part in command]
    return subprocess.run(words, cwd=folder, env=here, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("core", CORES)
def test_without_airflow_the_command_checks_and_loads(core: str, wheels: dict[str, Path], tmp_path: Path) -> None:
    bin_folder = environment(tmp_path / "venv", wheels[core], "requirements.txt")
    # Enough for the native core, with what it leaves to Python.
    (tmp_path / "events.json").write_text(GOOD + "no json\n" + GOOD.replace("ann", "bob") * 1000)

    version = run(tmp_path, bin_folder / "ingest", "--version")
    doctor = run(tmp_path, bin_folder / "ingest", "doctor", "--json")
    off = run(tmp_path, bin_folder / "ingest", "doctor", "--json", INGEST_NATIVE="false")
    checked = run(tmp_path, bin_folder / "ingest", "check", "events.json", "--json")
    loaded = run(tmp_path, bin_folder / "ingest", "load", "events.json", "--json")
    demo = run(tmp_path, bin_folder / "ingest", "demo")

    assert f"({CORES[core]})" in version.stdout
    assert told(doctor).endswith(f", {CORES[core]}")
    assert told(off).endswith(": Python judges every line")
    assert checked.returncode == 1, checked.stderr
    assert [failure["codes"] for failure in json.loads(checked.stdout)["failures"]] == [["not_json"]]
    assert loaded.returncode == 1, loaded.stderr
    (file,) = json.loads(loaded.stdout)["files"]
    assert (file["state"], file["records"], file["failed"]) == ("loaded", 1001, 1)
    assert (tmp_path / "warehouse.duckdb").exists()
    assert demo.returncode == 2
    assert "landfall-ingest[airflow,demo]" in demo.stderr


def told(doctor: subprocess.CompletedProcess[str]) -> str:
    """What it says of the program."""
    return next(str(one["message"]) for one in json.loads(doctor.stdout)["checks"] if one["name"] == "program")


def test_in_an_airflow_that_is_there_the_two_lines_make_the_dags(wheels: dict[str, Path], tmp_path: Path) -> None:
    bin_folder = environment(tmp_path / "venv", wheels["native"], "requirements-airflow.txt")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags/landfall.py").write_text((ROOT / "dags/landfall.py").read_text())
    (tmp_path / "ingest.toml").write_text('[[source]]\nname = "website"\nbucket = "acme"\nschedule = "@hourly"\n')
    variables = {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "INGEST_CONFIG": str(tmp_path / "ingest.toml"),
    }

    assert run(tmp_path, bin_folder / "airflow", "db", "migrate", **variables).returncode == 0
    # A worker's application: a newer Celery than the provider knows could not be imported.
    celery = "from airflow.providers.celery.executors.celery_executor import app"
    assert run(tmp_path, bin_folder / "python", "-c", celery, **variables).returncode == 0
    reserialized = run(tmp_path, bin_folder / "airflow", "dags", "reserialize", **variables)
    listed = run(tmp_path, bin_folder / "airflow", "dags", "list", "--output", "json", **variables)

    assert reserialized.returncode == 0, reserialized.stderr
    dags = {dag["dag_id"]: dag["is_paused"] for dag in json.loads(listed.stdout.splitlines()[-1])}
    assert dags == dict.fromkeys(("ingest_website", "ingest_one_off", "ingest_action", "ingest_reconcile"), "False")
