"""Is everything right? What somebody would look at by hand, one thing after the other, each tried and said in a line.

In:      the environment, as every command reads it.
Out:     checks, each with a state and what to do. Wrong settings are checks too.
Decides: nothing is changed: no warehouse and no object is made. What cannot be tried without that (to write, to delete)
         is named with the right that it needs. All parts run side by side, each for a limited time, so that a store or
         a disk that hangs ends nothing. Airflow is looked at from outside: importing it would write its settings.
"""

import os
import platform
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from configparser import Error as ConfigFileError
from configparser import RawConfigParser
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import ingest
from ingest.core import native
from ingest.core.formats.guess import refusal
from ingest.core.source import LOCAL_BUCKET
from ingest.discovery import Selection
from ingest.disk import free_space, has_room
from ingest.errors import ConfigError, IngestError, ListingDoubted, ObjectGone, TransientError
from ingest.ports import ObjectStore, Warehouse
from ingest.reading import HEAD_BYTES, decompressed, peek
from ingest.settings import CONFIG_NAME, Settings, Source, load_settings, spans_hosts
from ingest.text import count
from ingest.unforeseen import said
from ingest.wiring import stores_of, warehouse_at

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from ingest.warehouse.engines.common.look import Look
    from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse

State = Literal["ok", "warning", "problem", "skipped"]

PART_SECONDS: Final = 30.0  # that each part may take; they run side by side
CLOCK_SECONDS: Final = 60.0  # that ours may differ from the store's: S3 itself refuses from 900 on
AIRFLOW_LEAST: Final = (3, 3)
TOO_NEW: Final = {("duckdb", 2): "`ingest sql` has no memory there"}
EXTRAS: Final[Mapping[str, Sequence[str]]] = {  # of pyproject.toml, with what each brings to be imported
    "airflow": ("airflow",), "postgres": ("adbc_driver_postgresql",), "iceberg": ("pyiceberg", "sqlalchemy"),
    "serve": ("fastapi", "uvicorn"), "demo": ("moto", "psutil"),
}  # fmt: skip
_LISTED: Final = 1000  # objects of a source: a page
_LOCK_SECONDS: Final = 3.0
_LITTLE_BYTES: Final = 2 << 30
_STS_SECONDS: Final = 5
_IN_MEMORY: Final = ("tmpfs", "ramfs")
_OF_THE_NETWORK: Final = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs", "ceph", "glusterfs")
_UNREAD: Final = (OSError, UnicodeDecodeError, ConfigFileError)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `remedy` is empty where nothing is to be done, or the message itself says it."""

    name: str
    state: State
    message: str
    remedy: str = ""


Checks = Iterator[Check]
Clocks = dict[str, float]  # by how many seconds our clock was ahead of each store's, by its address


class _Part(threading.Thread):
    """Some checks, made beside the others. A daemon: one that hangs does not keep the program from ending."""

    def __init__(self, name: str, look: Callable[[], Checks]) -> None:
        super().__init__(name=name, daemon=True)
        self._look = look
        self.checks: list[Check] = []

    def run(self) -> None:
        try:
            self.checks.extend(self._look())
        except Exception as error:  # noqa: BLE001 - what is out of order is what we look for
            self.checks.append(_failed(self.name, error))


def examine(environ: Mapping[str, str], *, part_seconds: float = PART_SECONDS) -> list[Check]:
    settings = load_settings(environ, sound_only=True)
    clocks: Clocks = {}
    # Each (profile, endpoint) by which a store is reached.
    reached = [(one.profile, one.endpoint_url) for one in settings.sources.values() if one.bucket != LOCAL_BUCKET]
    reached += [(None, None)] * bool(settings.uploads_bucket)
    parts = [
        _Part("program", partial(_program, settings.native)),
        _Part("settings", partial(_settings, settings)),
        *(
            _Part(_named("credentials", profile, endpoint), partial(_credentials, profile, endpoint))
            for profile, endpoint in dict.fromkeys(reached)
        ),
        *(_Part(name, partial(_source, source, settings, clocks)) for name, source in settings.sources.items()),
        _Part("uploads", partial(_uploads, settings, clocks)),
        _Part("staging", partial(_staging, settings)),
        _Part("warehouse", partial(_warehouse, settings)),
        _Part("airflow", partial(_airflow, environ)),
    ]
    for part in parts:
        part.start()
    deadline = time.monotonic() + part_seconds
    checks: list[Check] = []
    for part in parts:
        part.join(max(0.0, deadline - time.monotonic()))
        checks += part.checks
        if part.is_alive():
            sentence = f"not finished after {part_seconds:g} s"
            checks.append(Check(part.name, "problem", sentence, "see why it hangs: the network, the store or the disk"))
    return [*checks, *_clock(clocks)]


def _failed(name: str, error: Exception) -> Check:
    """What an error says; what to do is apart, where one of ours has it after a colon, as most do."""
    sentence = said(error)
    parts = sentence.split(": ") if isinstance(error, IngestError) else []
    for number in range(2, len(parts)):
        message = ": ".join(parts[:number])
        if message.count("(") == message.count(")"):  # not within what the store said
            return Check(name, "problem", message, ": ".join(parts[number:]))
    return Check(name, "problem", sentence)


# --- the program and its settings -------------------------------------------------------------------------------------


def _program(may_use_core: bool) -> Checks:
    python = platform.python_version()
    yield Check("program", "ok", f"Landfall {ingest.__version__}, Python {python}, {native.told(may_use_core)}")
    with suppress(metadata.PackageNotFoundError):
        wanted = metadata.metadata("landfall-ingest")["Requires-Python"] or ""
        end = re.search(r"<(\d+)\.(\d+)", wanted)
        if end and sys.version_info[:2] >= tuple(map(int, end.groups())):
            yield Check("python", "warning", f"Python {python} was never tried with it", f"use one that is {wanted}")
    for (package, first), why in TOO_NEW.items():
        with suppress(metadata.PackageNotFoundError):
            if int((version := metadata.version(package)).partition(".")[0]) >= first:
                message = f"{package} {version} is installed, and {why}"
                yield Check(package, "problem", message, f"install one before {first}")
    there = [name for name, modules in EXTRAS.items() if all(map(find_spec, modules))]
    absent = ", ".join(name for name in EXTRAS if name not in there)
    yield Check("extras", "ok", (", ".join(there) or "none") + f"; not installed: {absent}" * bool(absent))


def _settings(settings: Settings) -> Checks:
    for problem in settings.problems:
        yield Check("settings", "problem", problem)
    if settings.config_path is None:
        yield Check("settings", "warning", f"there is no {CONFIG_NAME} in {Path.cwd()}", "`ingest init` writes one")
    elif not settings.problems:
        sources = f"{count(len(settings.sources), 'source')} ({', '.join(settings.sources)})"
        if settings.sources:
            yield Check("settings", "ok", f"{settings.config_path}: {sources}")
        else:
            message = f"{settings.config_path} has no [[source]]"
            yield Check("settings", "warning", message, "`ingest init --add` adds one")


# --- stores -----------------------------------------------------------------------------------------------------------


def _named(what: str, profile: str | None, endpoint: str | None) -> str:
    of = " at ".join(filter(None, [profile, endpoint]))
    return f"{what} ({of})" if of else what


def _credentials(profile: str | None, endpoint: str | None) -> Checks:
    import boto3
    from botocore import exceptions as aws
    from botocore.config import Config

    from ingest.adapters.s3_client import make_client

    name = _named("credentials", profile, endpoint)
    remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role"
    try:
        session = boto3.Session(profile_name=profile)
        credentials = session.get_credentials()
        keys = credentials and credentials.get_frozen_credentials()
    except aws.BotoCoreError as error:
        yield Check(name, "problem", f"they cannot be used ({error})", remedy)
        return
    if not credentials or not keys or not keys.access_key:
        yield Check(name, "problem", "there are none", remedy)
        return
    found = f"from {credentials.method}" if credentials.method else "found"
    config = Config(connect_timeout=_STS_SECONDS, read_timeout=_STS_SECONDS, retries={"total_max_attempts": 1})
    sts = session.client("sts", region_name=session.region_name or "us-east-1", config=config)
    store = make_client(profile, endpoint)
    if _is_aws(sts.meta.endpoint_url) and not _is_aws(store.meta.endpoint_url):
        yield Check(name, "ok", f"{found}. Whose they are is not asked: the store is not AWS")
        return
    try:
        yield Check(name, "ok", f"{sts.get_caller_identity()['Arn']}, {found}")
    except aws.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException"):
            yield Check(name, "problem", f"{found}, and AWS does not take them ({code})", "renew or correct them")
        else:  # no S3 needs it
            yield Check(name, "ok", f"{found}. Whose they are is not known: STS answers {code}")
    except aws.BotoCoreError as error:
        yield Check(name, "ok", f"{found}. Whose they are is not known: STS does not answer ({type(error).__name__})")


def _is_aws(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _client(source: Source | None, clocks: Clocks) -> "S3Client":
    """A client that reads the time off every answer that it gets."""
    from ingest.adapters.s3_client import make_client

    profile, endpoint = (source.profile, source.endpoint_url) if source else (None, None)
    client = make_client(profile, endpoint, somebody_waits=True)
    host = urlsplit(client.meta.endpoint_url).netloc

    def heard(http_response: Any, **_: object) -> None:
        with suppress(TypeError, ValueError):
            ahead = (datetime.now(UTC) - parsedate_to_datetime(http_response.headers.get("Date"))).total_seconds()
            # It is whole seconds, and answers take time: the least difference is nearest to the truth.
            clocks[host] = min(ahead, clocks.get(host, ahead), key=abs)

    events: Any = client.meta.events
    events.register("after-call.s3", heard)
    return client


def _source(source: Source, settings: Settings, clocks: Clocks) -> Checks:
    made: list[S3Client] = []

    def client_for(source: Source | None) -> "S3Client":
        made.append(_client(source, clocks))
        return made[-1]

    store = stores_of(settings, client_for)(source.name)
    is_listed = True
    for check in _landing(source, settings, store):
        yield check
        is_listed = is_listed and (check.name != f"{source.name}: list" or check.state != "problem")
    if made and is_listed:
        yield from _versions(source.name, made[0], source.bucket, source.prefix)
    yield from _written(source.name, source.bucket, "write", source.writes_below())
    yield from _written(source.name, source.bucket, "delete", source.deletes_below())


def _landing(source: Source, settings: Settings, store: ObjectStore) -> Checks:
    """Whether it can be listed, and a file of it read."""
    name = f"{source.name}: list"
    selection = Selection(source, settings.own_prefixes(source.bucket))
    place = source.prefix if source.bucket == LOCAL_BUCKET else f"s3://{source.bucket}/{source.prefix}"
    files = []
    try:
        for file in selection.sift(islice(store.list(source.bucket, source.prefix), _LISTED)):
            files.append(file)  # noqa: PERF402 - those before an error are wanted
    except ListingDoubted as error:
        yield Check(name, "warning", str(error))
    except IngestError as error:
        yield _failed(name, error)
        return
    met = len(files) + selection.ignored
    if met and not files:
        such = ", ".join(selection.ignored_names[:3])
        which = f"no file, and {count(met, 'object')} that no rule takes, such as {such}"
        yield Check(name, "warning", f"{place}: {which}", "set `pattern`, or correct `prefix`")
    elif not files:
        yield Check(name, "ok", f"{place}: nothing is there yet")
    else:
        least = "at least " * (met >= _LISTED)
        ignored = f", {selection.ignored:,} that no rule takes" * bool(selection.ignored)
        yield Check(name, "ok", f"{place}: {least}{count(len(files), 'file')}{ignored}")
    name = f"{source.name}: read"
    if not files:
        yield Check(name, "skipped", "not tried: there is no file")
        return
    file = next((one for one in files if one.size_bytes), files[0])
    try:
        head, _ = peek(decompressed(store.read(file)), HEAD_BYTES)
    except ObjectGone:
        yield Check(name, "skipped", f"not tried: {file.uri} was deleted in the meantime")
    except IngestError as error:
        yield _failed(name, error)
    else:
        if refused := refusal(source.format, head):
            why = refused.failures[0]
            yield Check(name, "warning", f"{file.uri} can be read, and would be rejected ({why.code}): {why.message}")
        else:
            yield Check(name, "ok", file.uri)


def _versions(name: str, client: "S3Client", bucket: str, prefix: str) -> Checks:
    from botocore import exceptions as aws
    from botocore.parsers import ResponseParserError

    name = f"{name}: versions"
    try:
        status = client.get_bucket_versioning(Bucket=bucket).get("Status")
        if status:
            client.list_object_versions(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except aws.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        right = "s3:ListBucketVersions" if error.operation_name == "ListObjectVersions" else "s3:GetBucketVersioning"
        message = f"they cannot be seen ({code}), so the bucket is read as one that keeps none"
        yield Check(name, "warning", message, f"grant {right} on the bucket, if it keeps versions")
    except (aws.BotoCoreError, ResponseParserError):
        yield Check(name, "skipped", "the store does not say whether it keeps any")
    else:
        yield Check(name, "ok", "can be seen" if status else "the bucket keeps none")


def _written(name: str, bucket: str, doing: Literal["write", "delete"], prefixes: Sequence[str]) -> Checks:
    if not prefixes:
        return
    name = f"{name}: {doing}"
    if bucket != LOCAL_BUCKET:
        below = " and ".join(f"s3://{bucket}/{one}" for one in prefixes)
        right = "s3:PutObject" if doing == "write" else "s3:DeleteObject"
        yield Check(name, "skipped", f"not tried, since nothing is changed here. Needs {right} below {below}")
        return
    for prefix in prefixes:
        folder = Path(prefix)
        there = next(one for one in (folder, *folder.parents) if one.exists())
        if os.access(there, os.W_OK | os.X_OK):
            yield Check(name, "ok", f"{folder}")
        else:
            yield Check(name, "problem", f"{there} may not be written by this user", "change its permissions or owner")


def _uploads(settings: Settings, clocks: Clocks) -> Checks:
    bucket, prefix = settings.uploads_bucket, settings.uploads_prefix
    if not bucket:
        return
    store = stores_of(settings, lambda source: _client(source, clocks))("")
    try:
        next(iter(store.list(bucket, prefix)), None)
    except ListingDoubted as error:
        yield Check("uploads: list", "warning", str(error))
    except IngestError as error:
        yield _failed("uploads: list", error)
    else:
        yield Check("uploads: list", "ok", f"s3://{bucket}/{prefix}")
    yield from _written("uploads", bucket, "write", [prefix])


def _clock(clocks: Clocks) -> Checks:
    for host, ahead in clocks.items():
        if abs(ahead) <= CLOCK_SECONDS:
            yield Check("clock", "ok", f"{abs(ahead):.0f} s from that of {host}")
            continue
        how = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} that of {host}"
        remedy = "set it, with NTP say; or the store's, if that one is wrong. S3 refuses from 900 s on"
        yield Check("clock", "problem", f"this machine's clock is {how}", remedy)


# --- this machine -----------------------------------------------------------------------------------------------------


def _staging(settings: Settings) -> Checks:
    folder = settings.staging_folder or Path(tempfile.gettempdir())
    yield from _disk("staging", folder, "free some space, or set `staging` in ingest.toml to a folder with more room")


def _disk(name: str, folder: Path, remedy: str) -> Checks:
    if not folder.is_dir():
        yield Check(name, "problem", f"there is no folder {folder}", "make it")
        return
    told = f"{folder}, {free_space(folder)} free{' in memory' * (_file_system(folder) in _IN_MEMORY)}"
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"this user may not write to {folder}"
        yield Check(name, "problem", message, "change its permissions, or run as its owner")
    elif not has_room(folder):
        yield Check(name, "problem", f"nothing can be written to {told}", remedy)
    elif shutil.disk_usage(folder).free < _LITTLE_BYTES:
        yield Check(name, "warning", f"{told}, which is little: a load takes what its files have unpacked", remedy)
    else:
        yield Check(name, "ok", told)


def _file_system(folder: Path) -> str:
    """What kind of file system a folder lies on; empty where the system does not say."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    at, found, kind = Path(os.path.realpath(folder)), "", ""
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        point = before.split(" ")[4].replace(r"\040", " ")
        if at.is_relative_to(point) and len(point) >= len(found):
            found, kind = point, after.partition(" ")[0]
    return kind


def _warehouse(settings: Settings) -> Checks:
    from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse

    try:
        warehouse = warehouse_at(settings.warehouse_url, replace(settings, lock_timeout_seconds=_LOCK_SECONDS))
    except ConfigError as error:
        if not settings.problems:  # else it was said with them
            yield _failed("warehouse", error)
        return
    if isinstance(warehouse, DuckDBWarehouse):
        yield from _file(warehouse)
    else:
        yield from _lake(warehouse) if settings.warehouse_url.startswith("iceberg:") else _server(warehouse)


def _lake(warehouse: Warehouse) -> Checks:
    from ingest.warehouse.engines.iceberg.look import look
    from ingest.warehouse.engines.iceberg.warehouse import IcebergWarehouse

    assert isinstance(warehouse, IcebergWarehouse)
    room = _disk("warehouse: mirror", warehouse.mirror.path.parent, "free some space there, or set mirrors")
    yield from _shared(warehouse.name, partial(look, warehouse), {"settings": warehouse.check_settled}, room)


def _server(warehouse: Warehouse) -> Checks:
    from ingest.warehouse.engines.postgres.look import look
    from ingest.warehouse.engines.postgres.warehouse import PostgresWarehouse

    assert isinstance(warehouse, PostgresWarehouse)
    checks = {"settings": warehouse.check_settled, "role": warehouse.check_role}
    yield from _shared(warehouse.name, partial(look, warehouse), checks)


def _shared(
    name: str, look: Callable[[], "Look"], checks: Mapping[str, Callable[[], None]], more: Iterable[Check] = ()
) -> Checks:
    """A warehouse that other hosts load into, too."""
    try:
        seen = look()
    except IngestError as error:
        yield _failed("warehouse", error)
        return
    yield Check("warehouse", "ok", f"{_told(seen, name)} ({seen.place})")
    for of, check in checks.items():
        try:
            check()
        except IngestError as error:
            yield _failed(f"warehouse: {of}", error)
    yield from more
    yield from _waiting(seen)


def _file(warehouse: "DuckDBWarehouse") -> Checks:
    from ingest.warehouse.engines.duckdb.look import look
    from ingest.warehouse.engines.duckdb.session import holder_of

    path, seen = warehouse.path, None
    try:
        seen = look(warehouse)
    except TransientError as error:
        if pid := holder_of(path):
            message = f"{path} is held by process {pid}{_program_of(pid)}"
            yield Check("warehouse", "warning", message, "if that is a load, wait for it; else close the file there")
        else:
            yield _failed("warehouse", error)
    except ConfigError as error:
        yield _failed("warehouse", error)
        return
    else:
        told = _told(seen, str(path)) if seen else f"{path} is not there yet: the first load makes it"
        yield Check("warehouse", "ok", told)
    yield from _owner(path)
    if _file_system(path.parent) in _OF_THE_NETWORK:
        message = f"{path.parent} is on a network, where locks do not hold"
        yield Check("warehouse: disk", "problem", message, "keep the warehouse on a disk of this machine")
    else:
        yield from _disk("warehouse: disk", path.parent, "free some space there")
    if seen:
        yield from _waiting(seen)


def _told(seen: "Look", name: str) -> str:
    if not seen.step:
        return f"{name} is empty: the first load makes its tables"
    last = f"last load {seen.last_load:%Y-%m-%d %H:%M} UTC" if seen.last_load else "nothing loaded yet"
    older = "" if seen.step == seen.newest_step else ". The next command brings its tables up to date"
    return f"{name}, {seen.size_bytes / 1e6:,.1f} MB, {count(seen.files, 'file')}, {last}{older}"


def _waiting(seen: "Look") -> Checks:
    of = count(seen.with_open_lines, "loaded file")
    for name, number, noun, what, remedy in (
        ("files: retrying", seen.retrying, "file", "could not be loaded yet",
         "`ingest files --state retrying` says why"),
        ("files: rejected", seen.rejected, "file", "{are} rejected, so nothing of that is loaded",
         "`ingest files --state rejected` says why; `ingest redrive` with fixed lines, or `ingest ignore`"),
        ("files: held", seen.held, "file", "{are} held: another version of the key is loaded",
         "`ingest files --state held` lists them; `ingest release` or `ingest ignore`"),
        ("failed lines", seen.open_lines, "failed line", f"of {of} {{are}} open",
         "`ingest failures` says which, `ingest redrive` sends them fixed"),
    ):  # fmt: skip
        if number:
            are = "is" if number == 1 else "are"
            yield Check(name, "warning", f"{count(number, noun)} {what.format(are=are)}", remedy)


def _program_of(pid: int) -> str:
    try:
        return f" ({Path(f'/proc/{pid}/comm').read_text(encoding='utf-8', errors='replace').strip()})"
    except OSError:
        return ""


def _owner(path: Path) -> Checks:
    """Whether this user is the one that loads: what root makes there, say, the loading user could not write."""
    names = [path.with_name(path.name + end) for end in ("", ".wal", ".lock", ".published")]
    there = [one for one in names if one.exists()]
    others = [one for one in there if one.stat().st_uid != os.geteuid()]
    stopped = [one for one in others if not os.access(one, os.W_OK)]
    if named := stopped or (others if os.geteuid() == 0 else []):
        owner = _user(named[0].stat().st_uid)
        message = f"{named[0]} belongs to {owner}, and this is {_user(os.geteuid())}"
        yield Check("warehouse: user", "warning", message, f"run loads as {owner}")


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


# --- Airflow ----------------------------------------------------------------------------------------------------------


def _airflow(environ: Mapping[str, str]) -> Checks:
    home = Path(environ.get("AIRFLOW_HOME") or Path.home() / "airflow").expanduser()
    version = ""
    with suppress(metadata.PackageNotFoundError):
        version = metadata.version("apache-airflow")
    if not version and not home.is_dir():
        yield Check("airflow", "skipped", "not installed here")
        return
    if version:
        yield from _version_of_airflow(version)
    dags = Path(_of_airflow(environ, home, "dags_folder") or home / "dags").expanduser()
    executor = _of_airflow(environ, home, "executor") or "LocalExecutor"
    if reason := spans_hosts(environ.get("INGEST_WAREHOUSE", ""), executor):
        what, _, remedy = reason.partition(". ")
        yield Check("airflow: executor", "problem", what, remedy)
    here = Path(ingest.__file__).parent
    folders = (dags, home / "plugins", home / "config")
    for found in (folder / name for folder in folders for name in ("ingest", "ingest.py")):
        if found.exists() and found.resolve() != here:
            yield Check(
                "airflow: name", "problem", f"{found} has the name of our package, and Python takes only one of the"
                " two: DAGs that import the other one end in ModuleNotFoundError", "rename it, and what imports it",
            )  # fmt: skip
    if not dags.is_dir():
        yield Check("airflow: dags", "skipped", f"there is no folder {dags}")
    elif _calls_us(dags):
        yield Check("airflow: dags", "ok", str(dags))
    else:
        message = f"no file in {dags} calls build_dags, so that Airflow has no DAG of Landfall"
        yield Check("airflow: dags", "warning", message, "put the two lines of docs/airflow.md there")


def _version_of_airflow(version: str) -> Checks:
    least = ".".join(map(str, AIRFLOW_LEAST))
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < AIRFLOW_LEAST:
        yield Check("airflow", "problem", f"Airflow {version} is too old", f"use {least} or newer")
        return
    if any(one.name == "landfall" for one in metadata.entry_points(group="airflow.plugins")):
        yield Check("airflow", "ok", f"Airflow {version}, with our pages")
    else:
        message = f"Airflow {version} does not know our pages: the package is on the path, and not installed"
        yield Check("airflow", "problem", message, "install the wheel where Airflow runs")


def _of_airflow(environ: Mapping[str, str], home: Path, name: str) -> str:
    """What Airflow's settings say in the section core; empty where they say nothing."""
    if told := environ.get(f"AIRFLOW__CORE__{name.upper()}"):
        return told
    settings = RawConfigParser(strict=False)
    with suppress(*_UNREAD):
        settings.read(environ.get("AIRFLOW_CONFIG") or home / "airflow.cfg", encoding="utf-8")
        return settings.get("core", name, fallback="")
    return ""


def _calls_us(dags: Path) -> bool:
    for path in islice(dags.rglob("*.py"), 10_000):
        with suppress(*_UNREAD):
            if "ingest.airflow" in path.read_text(encoding="utf-8"):
                return True
    return False
