"""`ingest doctor`: each thing that can be out of order is said, with what to do, and nothing is touched."""

import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest import doctor
from ingest.doctor import Check, examine
from ingest.settings import spans_hosts
from tests.adapters.odd_store import odd_store
from tests.conftest import S3
from tests.support import ROOT, lines, record
from tests.test_cli import GOOD, Shell, ingest
from tests.test_staging import largest_file

__all__ = ["ingest"]  # a fixture


def checks_of(ingest: Shell, **part: float) -> dict[str, Check]:
    return {check.name: check for check in examine(os.environ, **part)}


def states(checks: dict[str, Check]) -> dict[str, str]:
    return {name: check.state for name, check in checks.items()}


@pytest.fixture
def website(ingest: Shell, s3: S3) -> Shell:
    """A source with a file."""
    s3.put("web/1.json", lines(*GOOD))
    ingest.config({"name": "web", "bucket": s3.bucket, "prefix": "web/"})
    return ingest


@pytest.fixture(autouse=True)
def _no_airflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "no-airflow"))
    for name in ("AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def contents(folder: Path) -> dict[str, str]:
    return {str(one): sha256(one.read_bytes()).hexdigest() for one in folder.rglob("*") if one.is_file()}


# --- all of it -------------------------------------------------------------------------------------------------------


def test_all_is_well(website: Shell) -> None:
    ran = website("doctor")
    assert (ran.code, ran.out.decode().splitlines()[-1]) == (0, "All is well.")
    told = website.json("doctor")["checks"]
    assert all(one.keys() == {"name", "state", "message", "remedy"} for one in told)
    found = {one["name"]: one["state"] for one in told}
    assert [found[f"web: {what}"] for what in ("list", "read", "versions")] == ["ok"] * 3
    assert {found[name] for name in ("program", "settings", "credentials", "staging", "warehouse", "clock")} == {"ok"}
    for line, one in zip(ran.out.decode().splitlines(), told, strict=False):
        assert line.startswith(("ok  ", "!!  ", "!   ", "-   "))
        assert one["name"] in line
        assert "\x1b" not in line


@pytest.mark.slow
def test_nothing_is_touched(website: Shell, s3: S3) -> None:
    before = contents(website.folder)
    checks_of(website)
    assert contents(website.folder) == before
    assert [one["Key"] for one in s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]] == ["web/1.json"]

    website("poll")
    (website.folder / "warehouse.duckdb.lock").unlink()
    before = contents(website.folder)
    assert "1 file, last load 20" in checks_of(website)["warehouse"].message
    assert contents(website.folder) == before


def test_a_problem_is_exit_1_a_warning_is_not(ingest: Shell) -> None:
    ran = ingest("doctor")
    assert ran.code == 0
    assert "!   settings" in ran.out.decode()
    assert f"there is no ingest.toml in {ingest.folder}: `ingest init` writes one" in ran.out.decode()
    ingest.config({"name": "web", "bucket": "b", "prefix": "/x"}, nonsense=1)
    ran = ingest("doctor")
    assert ran.code == 1
    assert "!!  settings" in ran.out.decode()


def test_every_wrong_setting_is_a_check(ingest: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest.config({"name": "web", "bucket": "acme", "prefix": "/x"}, nonsense=1)
    monkeypatch.setenv("INGEST_WAREHOUSE", "mysql://x")
    told = [check.message for check in examine(os.environ) if (check.name, check.state) == ("settings", "problem")]
    assert [any(word in one for one in told) for word in ("nonsense", "prefix", "INGEST_WAREHOUSE")] == [True] * 3
    assert len(told) == 3


@pytest.mark.slow
def test_what_hangs_is_given_up_and_the_rest_is_said(ingest: Shell, s3: S3) -> None:
    s3.put("web/1.json", lines(*GOOD))
    code = "import os; from ingest.doctor import examine; print(*examine(os.environ, part_seconds=2), sep='\\n')"
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, and never answers
        silent = f"http://127.0.0.1:{server.getsockname()[1]}"
        ingest.config(
            {"name": "web", "bucket": s3.bucket, "prefix": "web/"},
            {"name": "silent", "bucket": "acme", "endpoint_url": silent},
        )
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        # In a process of its own, which has to end while that connection is waited for, for 20 s.
        ran = subprocess.run(
            [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=15, check=False
        )
    assert ran.returncode == 0, ran.stderr
    assert "Check(name='silent', state='problem', message='not finished after 2 s'" in ran.stdout
    assert "Check(name='web: read', state='ok'" in ran.stdout


def test_one_part_that_breaks_is_said_and_the_rest_goes_on(website: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Iterator[Check]:
        yield Check("staging", "ok", "half of it")
        raise KeyError("st_dev")

    monkeypatch.setattr(doctor, "_staging", broken)
    found = checks_of(website)
    assert (found["staging"].state, "KeyError: 'st_dev'" in found["staging"].message) == ("problem", True)
    assert states(found)["web: read"] == "ok"


def test_on_a_terminal_it_is_in_colour(website: Shell) -> None:
    import pty

    ours, theirs = pty.openpty()
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "ingest", "doctor"], env=environ, stdout=theirs, stdin=theirs)
    os.close(theirs)
    shown = b""
    try:
        while came := os.read(ours, 4096):
            shown += came
    except OSError:  # it has ended
        pass
    assert process.wait(30) == 0
    assert b"\x1b[32mok\x1b[0m  web: list" in shown


# --- stores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quirks", "name", "state", "says"), [
    pytest.param({"list": (403, "AccessDenied")}, "web: list", "problem", "grant s3:ListBucket", id="list"),
    pytest.param({"versioning": (403, "AccessDenied")}, "web: versions", "warning", "s3:GetBucketVersioning",
                 id="versions"),
    pytest.param({"versioning": "Enabled", "versions": (403, "AccessDenied")}, "web: versions", "warning",
                 "s3:ListBucketVersions", id="to list versions"),
    pytest.param({"get": (403, "AccessDenied")}, "web: read", "problem", "grant s3:GetObject", id="read"),
])  # fmt: skip
def test_a_right_that_is_missing_is_named(
    quirks: dict[str, Any], name: str, state: str, says: str, ingest: Shell, s3: S3
) -> None:
    with odd_store({"web/1.json": lines(*GOOD)}, **quirks) as store:
        ingest.config({"name": "web", "bucket": "acme", "prefix": "web/", "endpoint_url": store.endpoint})
        found = checks_of(ingest)[name]
    assert (found.state, says in found.remedy) == (state, True), found


@pytest.mark.parametrize(("source", "says"), [
    pytest.param({"bucket": "no-such-bucket"}, "there is no such bucket", id="no bucket"),
    pytest.param({"endpoint_url": "http://127.0.0.1:9"}, "nothing answers at http://127.0.0.1:9", id="no store"),
    pytest.param({"bucket": "file", "prefix": "/no/such"}, "/no/such: there is no such file", id="no folder"),
])  # fmt: skip
def test_what_cannot_be_reached_is_named(source: dict[str, str], says: str, ingest: Shell, s3: S3) -> None:
    ingest.config({"name": "web", "bucket": s3.bucket, "prefix": "web/"} | source)
    found = checks_of(ingest)["web: list"]
    assert (found.state, says in f"{found.message}: {found.remedy}") == ("problem", True), found


def test_files_that_no_rule_takes_are_named(ingest: Shell, s3: S3) -> None:
    s3.put("web/a.csv")
    ingest.config({"name": "web", "bucket": s3.bucket, "prefix": "web/"})
    found = checks_of(ingest)
    assert (found["web: list"].state, found["web: read"].state) == ("warning", "skipped")
    assert "web/a.csv" in found["web: list"].message


def test_a_file_of_another_format_is_named(ingest: Shell, s3: S3) -> None:
    s3.put("web/a.json", b'{"visitor":{"id":"ann"},"actions":[]}')
    ingest.config({"name": "web", "bucket": s3.bucket, "prefix": "web/"})
    found = checks_of(ingest)["web: read"]
    assert (found.state, "would be rejected (wrong_format)" in found.message) == ("warning", True)


def test_what_would_be_written_is_named_and_not_tried(ingest: Shell, s3: S3) -> None:
    s3.put("web/1.json", lines(*GOOD))
    source = {"name": "web", "bucket": s3.bucket, "prefix": "web/", "after_load": "archive", "report_prefix": "reports"}
    ingest.config(source | {"intake_keys": [f"sha256:{'0' * 64}"]})
    found = checks_of(ingest)
    assert (found["web: write"].state, found["web: delete"].state) == ("skipped", "skipped")
    for place in ("completed_imports/", "reports/", "web/intake/"):
        assert f"s3://{s3.bucket}/{place}" in found["web: write"].message
    assert f"s3:DeleteObject below s3://{s3.bucket}/web/" in found["web: delete"].message
    assert s3.client.list_objects_v2(Bucket=s3.bucket)["KeyCount"] == 1


def test_the_bucket_of_uploads_is_tried(ingest: Shell, s3: S3) -> None:
    (ingest.folder / "ingest.toml").write_text('[uploads]\nbucket = "no-such-bucket"', encoding="utf-8")
    assert checks_of(ingest)["uploads: list"].state == "problem"
    (ingest.folder / "ingest.toml").write_text(f'[uploads]\nbucket = "{s3.bucket}"', encoding="utf-8")
    found = checks_of(ingest)
    assert (found["uploads: list"].state, found["uploads: write"].state) == ("ok", "skipped")


@pytest.mark.parametrize(("ahead", "state", "says"), [
    (-200, "problem", " s behind that of"), (200, "problem", " s ahead of that of"), (20, "ok", " s from that of"),
])  # fmt: skip
def test_a_clock_that_is_wrong_is_said(
    ahead: int, state: str, says: str, website: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def date(*_: object) -> str:
        return formatdate(time.time() - ahead, usegmt=True)

    monkeypatch.setattr(http.server.BaseHTTPRequestHandler, "date_time_string", date)
    found = checks_of(website)["clock"]
    assert (found.state, says in found.message) == (state, True), found


# --- credentials -----------------------------------------------------------------------------------------------------


def test_no_credentials_are_a_problem(website: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = checks_of(website)["credentials"]
    assert (found.state, "AWS_PROFILE" in found.remedy) == ("problem", True)


def test_who_we_are_is_asked_where_sts_is(website: Shell, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3.endpoint)
    found = checks_of(website)["credentials"]
    assert (found.state, found.message) == ("ok", "arn:aws:sts::123456789012:user/moto, from env")


@pytest.mark.parametrize(("code", "state"), [
    pytest.param("InvalidClientTokenId", "problem", id="keys that AWS does not know"),
    pytest.param("AccessDenied", "ok", id="it may not be asked"),
    pytest.param("NotImplemented", "ok", id="another store's"),
    pytest.param(None, "ok", id="nothing answers"),
])  # fmt: skip
def test_sts_alone_is_no_problem(code: str | None, state: str, website: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with answers(403, f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>") as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", address if code else "http://127.0.0.1:9")
        found = checks_of(website)["credentials"]
    assert found.state == state, found


def test_keys_of_another_store_are_not_sent_to_aws(website: Shell) -> None:
    found = checks_of(website)["credentials"]
    assert found.message == "from env. Whose they are is not asked: the store is not AWS"


def test_each_profile_has_its_own_credentials(ingest: Shell, s3: S3) -> None:
    ingest.config(
        {"name": "a", "bucket": s3.bucket, "prefix": "a/"},
        {"name": "b", "bucket": s3.bucket, "prefix": "b/", "profile": "absent"},
    )
    found = states(checks_of(ingest))
    assert (found["credentials"], found["credentials (absent)"]) == ("ok", "problem")
    assert (found["a: list"], found["b: list"]) == ("ok", "problem")


@contextmanager
def answers(status: int, body: str) -> Iterator[str]:
    """The address of a server that answers so, whatever it is asked."""
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


# --- this machine ----------------------------------------------------------------------------------------------------


def test_a_staging_folder_that_is_not_there_is_said(website: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_STAGING", "/no/such")
    assert checks_of(website)["staging"].message == "there is no folder /no/such"


def test_a_disk_that_takes_no_more_is_said(website: Shell) -> None:
    with largest_file(1 << 20):  # stands for a full one
        found = checks_of(website)
    for name, remedy in (("staging", "`staging` in ingest.toml"), ("warehouse: disk", "free some space")):
        assert (found[name].state, remedy in found[name].remedy) == ("problem", True), found[name]


def test_little_room_is_said(website: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LITTLE_BYTES", 1 << 62)
    assert {checks_of(website)[name].state for name in ("staging", "warehouse: disk")} == {"warning"}


def test_a_folder_in_memory_is_named(website: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_STAGING", "/dev/shm")
    assert "free in memory" in checks_of(website)["staging"].message


def test_the_kind_of_a_file_system_is_known() -> None:
    assert doctor._file_system(Path("/dev/shm")) == "tmpfs"
    assert doctor._file_system(Path("/proc")) == "proc"
    assert doctor._file_system(ROOT) not in ("", "proc")


def foreign(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE ledger (a INTEGER)")


@pytest.mark.parametrize(("make", "says"), [
    pytest.param(lambda path: path.mkdir(), "is a folder", id="a folder"),
    pytest.param(lambda path: path.write_bytes(b"x" * 5000), "is no DuckDB file", id="something else"),
    pytest.param(foreign, "is a database of another program", id="another program's"),
])  # fmt: skip
def test_what_is_no_warehouse_is_said_and_left_alone(make: Any, says: str, website: Shell) -> None:
    make(website.folder / "warehouse.duckdb")
    before = contents(website.folder)
    found = checks_of(website)["warehouse"]
    assert (found.state, says in found.message) == ("problem", True), found
    assert contents(website.folder) == before


def test_a_damaged_log_is_said(website: Shell) -> None:
    website("poll")
    (website.folder / "warehouse.duckdb.wal").write_bytes(b"no log at all")
    found = checks_of(website)["warehouse"]
    assert (found.state, "is damaged" in found.message) == ("problem", True)


def test_who_holds_the_warehouse_is_named(website: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LOCK_SECONDS", 0.1)
    website("poll")
    held = "import duckdb,sys; c=duckdb.connect('warehouse.duckdb'); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        found = checks_of(website)["warehouse"]
        other.communicate()
    assert found.state == "warning"
    assert f"is held by process {other.pid} (python" in found.message


@pytest.mark.slow
def test_what_waits_for_a_person_is_counted(website: Shell, s3: S3) -> None:
    website.config({"name": "web", "bucket": s3.bucket, "prefix": "web/", "changed_file": "hold"})
    s3.put("web/1.json", lines(*GOOD, "no json", "nor this"))
    s3.put("web/2.json", lines("no json"))
    s3.put("web/3.json.gz", b"\x1f\x8b\x08 cut off")
    website("poll")
    s3.put("web/1.json", lines(*GOOD, "no json"))
    website("poll")
    ran = website("doctor")
    assert (ran.code, ran.out.decode().splitlines()[-1]) == (0, "4 warnings.")
    found = checks_of(website)
    assert {name: one.message for name, one in found.items() if one.state == "warning"} == {
        "files: retrying": "1 file could not be loaded yet",
        "files: rejected": "1 file is rejected, so nothing of that is loaded",
        "files: held": "1 file is held: another version of the key is loaded",
        "failed lines": "2 failed lines of 1 loaded file are open",
    }
    assert all(one.remedy for one in found.values() if one.state == "warning")
    for file in website.json("files")["files"]:
        if file["state"] in ("retrying", "held"):
            website("ignore", file["file_id"])
        else:  # of the rejected file too: it is loaded then
            numbers = {"loaded": (4, 5), "rejected": (1,)}[file["state"]]
            fixed = b"".join(b"%d\t" % number + lines(record("cy", number, "x")) for number in numbers)
            assert website("redrive", file["file_id"], "-", stdin=fixed).code == 0
    assert website("doctor").out.decode().splitlines()[-1] == "All is well."


def test_another_user_is_named(website: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    website("poll")
    os.chown(website.folder / "warehouse.duckdb", 12_345, -1)
    found = checks_of(website)["warehouse: user"]
    assert (found.state, found.remedy) == ("warning", "run loads as user 12345")


# --- the program and Airflow -----------------------------------------------------------------------------------------


def test_packages_that_are_too_new_are_named(website: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for package, first in doctor.TOO_NEW:
        assert re.search(rf'"{package}[^"]*,<{first}"', project)
    about = tmp_path / "site" / "duckdb-2.0.0.dist-info" / "METADATA"
    about.parent.mkdir(parents=True)
    about.write_text("Metadata-Version: 2.1\nName: duckdb\nVersion: 2.0.0\n", encoding="utf-8")
    assert "duckdb" not in checks_of(website)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert checks_of(website)["duckdb"].state == "problem"


def test_extras_are_those_of_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in doctor.EXTRAS:
        assert f"\n{name} = [" in project
    least = ".".join(map(str, doctor.AIRFLOW_LEAST))
    assert f'"apache-airflow>={least},' in project


@pytest.fixture
def airflow_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    home = tmp_path / "airflow"
    (home / "dags").mkdir(parents=True)
    monkeypatch.setenv("AIRFLOW_HOME", str(home))
    return home


def test_airflow_is_looked_at_from_outside(website: Shell, airflow_home: Path) -> None:
    found = checks_of(website)
    assert "with our pages" in found["airflow"].message
    assert (found["airflow: dags"].state, "two lines" in found["airflow: dags"].remedy) == ("warning", True)
    shutil.copy(ROOT / "dags" / "landfall.py", airflow_home / "dags")
    assert checks_of(website)["airflow: dags"].state == "ok"
    assert {one.name for one in airflow_home.iterdir()} == {"dags"}


@pytest.mark.parametrize(("executor", "is_wide"), [
    ("LocalExecutor", False), ("airflow.executors.local_executor.LocalExecutor", False), ("team=LocalExecutor", False),
    ("CeleryExecutor", True), ("LocalExecutor, KubernetesExecutor", True),
    ("mine:a.b.LocalExecutor;CeleryExecutor", True),
])  # fmt: skip
def test_an_executor_of_many_hosts_needs_a_server(
    executor: str, is_wide: bool, website: Shell, airflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (airflow_home / "airflow.cfg").write_text(f"[core]\nexecutor = {executor}\n", encoding="utf-8")
    monkeypatch.setenv("INGEST_WAREHOUSE", "duckdb:///w.duckdb")
    found = checks_of(website).get("airflow: executor")
    assert (found is not None) == is_wide
    assert not spans_hosts("postgresql://u@h/d", executor)
    if found:
        assert (found.state, "ingest copy" in found.remedy) == ("problem", True)


@pytest.mark.parametrize("where", ["dags", "plugins", "config", "elsewhere"])
def test_a_folder_that_has_our_name_is_a_problem(where: str, website: Shell, airflow_home: Path) -> None:
    if where == "elsewhere":
        settings = f"[core]\ndags_folder = {airflow_home}/elsewhere\n"
        (airflow_home / "airflow.cfg").write_text(settings, encoding="utf-8")
    (airflow_home / where / "ingest").mkdir(parents=True)
    found = checks_of(website)["airflow: name"]
    assert (found.state, f"{airflow_home}/{where}/ingest" in found.message) == ("problem", True)
    assert "ModuleNotFoundError" in found.message


def test_two_packages_of_one_name_end_as_it_says(tmp_path: Path) -> None:
    """What the check and docs/airflow.md say of it: the first on the path is taken, and hides the other."""
    other = tmp_path / "ingest"
    other.mkdir()
    (other / "__init__.py").touch()
    (other / "theirs.py").touch()
    for first, second, lost in ((ROOT, tmp_path, "ingest.theirs"), (tmp_path, ROOT, "ingest.airflow")):
        code = f"import sys; sys.path[:0] = [{str(first)!r}, {str(second)!r}]; import {lost}"
        ran = subprocess.run(
            [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert f"ModuleNotFoundError: No module named '{lost}'" in ran.stderr
