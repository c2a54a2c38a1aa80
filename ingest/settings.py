"""Settings: `ingest.toml` and the environment, read once at the edge and handed down whole.

Nothing below reads the environment. Every wrong setting is named at the start, all at once, each in a sentence: where
it stands, what it says, what it has to be. That stands beside each setting, in SOURCE_SETTINGS and TOP_SETTINGS.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from ingest.core.address import ACCESS_POINT
from ingest.core.formats import FORMATS, open_format
from ingest.core.matching import IGNORED_IDENTITIES, Match, Naming
from ingest.core.source import LOCAL_BUCKET, ONE_OFF, intake_folder
from ingest.errors import ConfigError

CONFIG_NAME: Final = "ingest.toml"
_ON_ONE_HOST = "LocalExecutor|SequentialExecutor|InProcessExecutor|DebugExecutor"
COMPLETED_IMPORTS: Final = "completed_imports/"
UPLOAD_AT_MOST: Final = 10_000 * (8 << 20)  # S3 takes 10,000 parts, and we send parts of 8 MiB
CHECK_REPORT: Final = ".check.json"  # what the key of such a report has behind that of the file
RESERVED_NAMES: Final = (ONE_OFF, "reconcile", "action")  # the names of our other DAGs
NOTIFY_TYPES: Final = ("smtp", "slack", "http", "https")  # ways to tell people: see ingest.airflow.notify
_PRESETS: Final = ("@once", "@continuous", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
_SECONDS_AT_MOST: Final = 366 * 86_400  # of a schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One `[[source]]` of ingest.toml: where files are dropped and how they are judged."""

    name: str
    bucket: str
    prefix: str = ""
    pattern: str | None = None  # a base name or a glob, see ingest.discovery; None: *.json and *.json.gz
    format: str = "kissmetrics"
    schedule: str | int | None = "@hourly"  # Airflow's, or seconds
    changed_file: Literal["new_version", "replace", "hold"] = "new_version"
    existing_files: Literal["load", "skip"] = "load"
    same_bytes: Literal["skip", "load"] = "skip"
    max_failed_share: float | None = None
    max_failed_lines: int | None = None
    strict: bool = False
    nested: Literal["fail", "flatten"] = "fail"
    people_space: str | None = None  # None: the format's name
    match: Match | None = None  # None: the format's own
    after_load: Literal["keep", "archive", "delete"] = "keep"
    archive_prefix: str = COMPLETED_IMPORTS
    expect_every: timedelta | None = None
    notify: tuple[str, ...] = ()
    report_prefix: str = ""
    aws_conn_id: str = "aws_default"  # in Airflow; outside of it the next two
    endpoint_url: str | None = None  # None: boto3's own
    profile: str | None = None
    requester_pays: bool = False
    intake_keys: tuple[str, ...] = ()  # hashed, see ingest.intake.keys; none: nothing comes over HTTP

    def owns(self, bucket: str, key: str) -> bool:
        """Whether an object lies where only the settings of this source reach it."""
        is_apart = bool(self.endpoint_url or self.profile or self.requester_pays)
        return is_apart and self.bucket == bucket and key.startswith((self.prefix, self.archive_prefix))

    def naming(self, format: str) -> Naming:
        """Whom names mean in files of this source that have this format."""
        return Naming(self.people_space or format, self.match or open_format(format).match)

    def writes_below(self) -> list[str]:
        """Prefixes in its bucket that we write to, as its settings are."""
        # Before a first object is taken out, one of our own is made and deleted in the archive: can the store compare?
        written = [self.within(self.archive_prefix)] * (self.after_load != "keep")
        written += [self.within(self.report_prefix)] * bool(self.report_prefix)
        return written + [intake_folder(self.prefix)] * bool(self.intake_keys)

    def deletes_below(self) -> list[str]:
        """Prefixes in its bucket that we delete from, as its settings are."""
        return [self.prefix, self.within(self.archive_prefix)] if self.after_load != "keep" else []

    def within(self, prefix: str) -> str:
        """Where a prefix of ours begins in the bucket: on this machine, in the source's own folder."""
        return f"{self.prefix.rstrip('/')}/{prefix}" if prefix and self.bucket == LOCAL_BUCKET else prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a person may decide."""

    sources: Mapping[str, Source] = field(default_factory=dict)
    config_path: Path | None = None
    warehouse_url: str = field(repr=False)  # may carry a password
    lock_timeout_seconds: float = 60.0
    read_timeout_seconds: float = 60.0  # for which the store may not answer
    max_line_bytes: int = 1_048_576
    max_document_bytes: int = 67_108_864
    time_from: int = 1_230_768_000
    future_seconds: int = 86_400
    processes: int = 0  # judging processes; 0: one for each core
    native: bool = True  # the native core judges lines, where there is one
    # What one file may take, before it is put off: a file of 10 GB passes.
    max_unpacked_bytes: int = 256 << 30
    max_process_bytes: int = 4 << 30  # memory of a judging process; its libraries reserve one GB
    max_file_seconds: float = 3 * 3600.0  # to read and judge it
    max_query_bytes: int = 2 << 30  # memory of the engine for a statement of `ingest sql`
    max_query_seconds: float = 600.0  # for one
    staging_folder: Path | None = None  # None: the system's temporary folder
    mirror_folder: Path | None = None  # of lakes; None: the user's folder for caches
    ignored_identities: frozenset[str] = IGNORED_IDENTITIES
    allowed_buckets: tuple[str, ...] = ()
    uploads_bucket: str | None = None
    uploads_prefix: str = "uploads/"
    uploads_max_bytes: int = 5 << 30
    uploads_max_decompressed_bytes: int = 50 << 30
    uploads_max_ratio: float = 200.0  # of decompressed to stored bytes
    intake_max_body_bytes: int = 10 << 20  # as sent
    intake_max_decompressed_bytes: int = 64 << 20
    intake_max_ratio: float = 200.0  # of decompressed to sent bytes
    intake_vendor_limits: bool = False  # refuse what the vendor would: items a call, calls a minute
    problems: tuple[str, ...] = ()  # what was wrong, when only the sound sources were asked for
    unsound: tuple[Source, ...] = ()  # as far as they could be read: what belongs to them is still nobody else's

    def own_prefixes(self, bucket: str) -> tuple[str, ...]:
        """Where the program itself writes in a bucket, for whichever source: none of it is anybody's source file."""
        prefixes = {COMPLETED_IMPORTS}
        for source in self.sources.values():
            if source.bucket == bucket:
                prefixes |= {source.within(source.archive_prefix), source.within(source.report_prefix)}
        if self.uploads_bucket == bucket:
            prefixes.add(self.uploads_prefix)
        return tuple(sorted(filter(None, prefixes)))

    def is_upload(self, bucket: str, key: str) -> bool:
        return bucket == self.uploads_bucket and key.startswith(self.uploads_prefix)


# What a setting may be: a reader that gives the value or raises ValueError, and the words for it.

Reader = Callable[[Any], Any]


class Allowed(NamedTuple):
    """One kind of value; of a setting also what it is for, as docs/reference/settings.md has it."""

    read: Reader
    words: str
    secret: bool = False  # a wrong value is not told: it may be a password
    about: str = ""
    default: str = ""  # in words, where the value alone would not tell

    def tells(self, about: str, default: str = "") -> "Allowed":
        return self._replace(about=about, default=default)


def _text(pattern: str = r".*\S.*") -> Reader:
    def read(value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value, re.DOTALL):
            return value
        raise ValueError

    return read


def _number(kind: type[int] | type[float], least: float, most: float = float("inf")) -> Reader:
    def read(value: Any) -> int | float:
        number = kind(value) if isinstance(value, str) else value  # the environment has only text
        if not isinstance(number, (kind, int)) or isinstance(number, bool) or not least <= number <= most:
            raise ValueError
        return number

    return read


def _list(read: Reader) -> Reader:
    def read_all(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError  # noqa: TRY004 - one kind of error for every wrong value
        return tuple(map(read, value))

    return read_all


def _choice(*names: str) -> Allowed:
    return Allowed(_text("|".join(map(re.escape, names))), " or ".join(f'"{name}"' for name in names))


def _flag(value: Any) -> bool:
    if value in ("true", "false"):  # of a variable
        return bool(value == "true")
    if isinstance(value, bool):
        return value
    raise ValueError


def _duration(value: Any) -> timedelta:
    """`90`, `"90"`, `"90s"`, `"30m"`, `"24h"`, `"7d"`."""
    units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?) *([smhd]?)", str(value)) if not isinstance(value, bool) else None
    if not found or not float(found[1]):
        raise ValueError
    return timedelta(seconds=float(found[1]) * units[found[2]])


def _seconds(value: Any) -> float:
    return _duration(value).total_seconds()


def _schedule(value: Any) -> Any:
    if not isinstance(value, str):
        return _number(int, 1, _SECONDS_AT_MOST)(value)
    if value not in _PRESETS:
        # What Airflow itself reads schedules with, so that the two never differ. Where a schedule is one of the names
        # above, it is not even imported.
        from croniter import croniter

        croniter(value).get_next()  # raises a ValueError, also for days that never come: 30 February
    return value


def _pattern(value: Any) -> str:
    pattern: str = _text()(value)
    if "[" in re.sub(r"\[!?\]?[^]]*\]", "", pattern):  # would be taken for itself, which nobody means
        raise ValueError
    return pattern


def _folder_prefix(value: Any) -> str:
    return f"{_text('[^/].*')(value).rstrip('/')}/"


def _endpoint(value: Any) -> str:
    return str(_text(r"https?://[^/\s]+/?")(value)).rstrip("/")


def _unless_empty(read: Reader, otherwise: Any = None) -> Reader:
    return lambda value: read(value) if value != "" else otherwise


def _s3_bucket(value: Any) -> Any:
    if value == LOCAL_BUCKET:
        raise ValueError
    return BUCKET.read(value)


def _table(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise ValueError


def _identities(value: Any) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in _list(_text())(value))


def _day(value: Any) -> int:
    """A date, or seconds since 1970, as seconds."""
    if isinstance(value, str) and not value.isdecimal():
        value = date.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return int(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp())
    return int(_number(int, 0)(value))


ANY = Allowed(lambda value: value, "anything")
BUCKET = Allowed(
    _text(rf"[A-Za-z0-9][A-Za-z0-9._-]{{2,254}}|{ACCESS_POINT}|file"),
    "a bucket's name, without s3://, or the ARN of an access point",
)
COUNT = Allowed(_number(int, 0), "a whole number, 0 or more")
SIZE = Allowed(_number(int, 1), "a whole number of bytes, 1 or more")
SHARE = Allowed(_number(float, 0, 1), "a number from 0 to 1")
RATIO = Allowed(_number(float, 1, 1e9), "a number, 1 or more")
DURATION = Allowed(_duration, 'a duration such as "30m" or "24h", or seconds')
SECONDS = Allowed(_seconds, DURATION.words)
FOLDER = Allowed(_folder_prefix, "a prefix that does not begin with /")
FLAG = Allowed(_flag, "true or false")

SOURCE_SETTINGS: Final[Mapping[str, Allowed]] = {
    "name": Allowed(
        _text(rf"(?!({'|'.join(RESERVED_NAMES)})\Z)[a-z0-9_]+"),
        f"made of small letters, digits and _ ({', '.join(RESERVED_NAMES)} are taken)",
    ).tells("What the source is called. Its DAG is `ingest_<name>`."),
    "bucket": BUCKET.tells("Where files are dropped. The bucket `file`, with a folder as prefix, is this machine."),
    "prefix": Allowed(_text(".*"), "a text").tells("Only what lies below it is taken.", "the whole bucket"),
    "pattern": Allowed(_pattern, 'a base name or a glob, such as "accounts*.json", each [ with its ]').tells(
        "Which names are taken. It decides alone: no other name is.", "`*.json` and `*.json.gz`, in any case"
    ),
    "format": _choice(*FORMATS).tells("What the files hold."),
    "schedule": Allowed(
        _schedule,
        f"what Airflow takes ({', '.join(_PRESETS)}, or cron such as 5 * * * *), or a whole number of seconds, 1 to"
        f" {_SECONDS_AT_MOST:,}",
    ).tells("When Airflow polls."),
    "changed_file": _choice("new_version", "replace", "hold").tells(
        "What becomes of another version of a file: it is loaded as well, takes the place of the former one, or waits"
        " for `ingest release`."
    ),
    "existing_files": _choice("load", "skip").tells("`skip`: what is there at the first poll is entered as `ignored`."),
    "same_bytes": _choice("skip", "load").tells(
        "`skip`: a file with the bytes of one that is loaded is entered as `duplicate`, unless it came over HTTP."
    ),
    "max_failed_share": SHARE.tells("A file with a greater share of failed lines is `rejected`.", "off"),
    "max_failed_lines": COUNT.tells("A file with more failed lines is `rejected`.", "off"),
    "strict": FLAG.tells("Warnings are failures."),
    "nested": _choice("fail", "flatten").tells(
        "Of Kissmetrics lines. `flatten`: objects in properties become `a.b`, as in the other formats."
    ),
    "people_space": Allowed(_text(), "a name").tells(
        "Sources with the same one share their persons. A change holds for files that are loaded already, too.",
        "the format",
    ),
    "match": _choice("kissmetrics", "exact").tells(
        "Which names are the same. `kissmetrics`: case, `,` and `:` do not count. A change holds for files that are"
        " loaded already, too.",
        "`kissmetrics` for that format, `exact` for the others",
    ),
    "after_load": _choice("keep", "archive", "delete").tells(
        "What becomes of a loaded object. `archive` moves it to `archive_prefix`; `delete` waits until no failed line"
        " is open."
    ),
    "archive_prefix": FOLDER.tells("Where archived objects go. Nothing is loaded from there."),
    "expect_every": DURATION.tells("After so long without a file `reconcile` reports the source, in red.", "off"),
    "notify": Allowed(
        _list(_text(rf"({'|'.join(NOTIFY_TYPES)}):[^\s/]\S*")),
        f'a list of Airflow connections with their types ({", ".join(NOTIFY_TYPES)}), such as ["smtp:ops_mail"]',
    ).tells("Who gets a notice of a run that met failed lines or could not load a file.", "nobody"),
    "report_prefix": Allowed(_unless_empty(_folder_prefix, ""), "a prefix that does not begin with /").tells(
        "Where the report of a file with failures, and its lines to fix, are put. Nothing is loaded from there.",
        "no reports",
    ),
    "aws_conn_id": Allowed(_text(), "the name of an Airflow connection").tells(
        "In Airflow: the connection to the store."
    ),
    "endpoint_url": Allowed(
        _unless_empty(_endpoint), "the address of a store, such as https://minio.example.com:9000"
    ).tells("Outside Airflow: the store of this source.", "boto3's own settings"),
    "profile": Allowed(_unless_empty(_text()), "the name of an AWS profile").tells(
        "Outside Airflow: the AWS profile of this source.", "boto3's own settings"
    ),
    "requester_pays": FLAG.tells("The bucket is a Requester Pays bucket, and you agree to pay."),
    "intake_keys": Allowed(
        _list(_text(r"sha256:[0-9a-f]{64}")),
        'a list of hashed keys, ["sha256:…"]; `ingest serve --new-key` makes one',
        secret=True,
    ).tells("Keys of clients that send over HTTP.", "none: the source has no address"),
}


TOP_SETTINGS: Final[Mapping[str, Allowed]] = {  # at the top of ingest.toml
    "max_line_bytes": SIZE.tells("A longer line fails. It is never held in memory."),
    "max_document_bytes": SIZE.tells(
        "A larger body, in the formats of documents, fails. It may hold a value for each 12 bytes of this, and a"
        " million in any case."
    ),
    "time_from": Allowed(_day, "a day such as 2009-01-01, or seconds since 1970").tells(
        "Earlier times fail, as `time_too_old`.", "2009-01-01"
    ),
    "max_future": Allowed(lambda value: int(_seconds(value)), DURATION.words).tells(
        "Times that are later than the file by more than this fail, as `time_in_future`.", "24h"
    ),
    "lock_timeout": SECONDS.tells("How long to wait for a DuckDB file that another program holds.", "60s"),
    "read_timeout": SECONDS.tells(
        "How long the store may not answer. What comes at less than 1 KiB a second is given up, too.", "60s"
    ),
    "processes": Allowed(COUNT.read, "a whole number; 0 is one for each core").tells("How many processes judge lines."),
    "native": FLAG.tells("Whether the native core judges lines, where one was built.", "true"),
    "max_unpacked_bytes": SIZE.tells("A file that is larger once it is unpacked is `retrying`.", "256 GiB"),
    "max_process_bytes": Allowed(_number(int, 2 << 30), f"a whole number of bytes, {2 << 30:,} or more").tells(
        "A file that makes a judging process take more memory is `retrying`.", "4 GiB"
    ),
    "max_file_time": SECONDS.tells("A file that takes longer to read and judge is `retrying`.", "3h"),
    "max_query_bytes": Allowed(_number(int, 64 << 20), f"a whole number of bytes, {64 << 20:,} or more").tells(
        "`ingest sql` ends a statement that needs more memory.", "2 GiB"
    ),
    "max_query_time": SECONDS.tells("`ingest sql` ends a statement that takes longer.", "10m"),
    "staging": Allowed(lambda value: Path(_text()(value)), "a folder").tells(
        "Where judged rows wait until they are loaded.", "the system's temporary folder"
    ),
    "mirrors": Allowed(lambda value: Path(_text()(value)), "a folder").tells(
        "Where this host keeps what it knows of a warehouse in Iceberg. It may be deleted.",
        "`landfall` in the user's cache",
    ),
    "ignored_identities": Allowed(_identities, "a list of names").tells(
        "Names that stand for nobody, and so join no persons.", "anonymous, guest, null and the like"
    ),
    "allowed_buckets": Allowed(_list(BUCKET.read), "a list of bucket names").tells(
        "More buckets that people may load from in Airflow.", "only those of sources"
    ),
    "uploads": Allowed(_table, "a table with bucket, prefix and limits: [uploads]"),
    "intake": Allowed(_table, "a table with limits: [intake]"),
    "source": Allowed(_list(_table), "tables that each begin with [[source]], in two pairs of brackets"),
}
UPLOADS_SETTINGS: Final[Mapping[str, Allowed]] = {
    "bucket": Allowed(_s3_bucket, "the name of an S3 bucket, without s3://").tells(
        "Where pasted lines, uploaded files and fixed lines are put.", "none: nothing can be uploaded"
    ),
    "prefix": FOLDER.tells("Below which they are put. No source takes files from there."),
    "max_bytes": Allowed(_number(int, 1, UPLOAD_AT_MOST), f"a whole number of bytes, 1 to {UPLOAD_AT_MOST:,}").tells(
        "The largest file that may be uploaded.", "5 GiB"
    ),
    "max_decompressed_bytes": SIZE.tells("The same once it is unpacked.", "50 GiB"),
    "max_ratio": RATIO.tells("How many times its size a file may unpack to, beyond the first 64 MiB."),
}
INTAKE_SETTINGS: Final[Mapping[str, Allowed]] = {
    "max_body_bytes": SIZE.tells("The largest body, as it is sent.", "10 MiB"),
    "max_decompressed_bytes": SIZE.tells("The same once it is unpacked.", "64 MiB"),
    "max_ratio": RATIO.tells("How many times its size a body may unpack to."),
    "vendor_limits": FLAG.tells("Refuse what the vendor itself would: too many items a call, or calls a minute."),
}
VARIABLES: Final[Mapping[str, Allowed]] = {  # in the environment, which goes before the file
    "INGEST_CONFIG": ANY.tells("The path of the settings.", "`ingest.toml` in the working folder"),
    "INGEST_WAREHOUSE": ANY.tells(
        "The warehouse. `duckdb:///x` is relative to the folder of `ingest.toml`, `duckdb:////x` is not.",
        "`duckdb:///warehouse.duckdb`",
    ),
} | {
    f"INGEST_{name.upper()}": allowed
    for name, allowed in TOP_SETTINGS.items()
    if name not in {"ignored_identities", "allowed_buckets", "uploads", "intake", "source"}
}
FIELDS: Final = {
    "max_future": "future_seconds",
    "max_file_time": "max_file_seconds",
    "max_query_time": "max_query_seconds",
    "lock_timeout": "lock_timeout_seconds",
    "read_timeout": "read_timeout_seconds",
    "staging": "staging_folder",
    "mirrors": "mirror_folder",
}


def load_settings(environ: Mapping[str, str], *, sound_only: bool = False) -> Settings:
    """Read `ingest.toml` and the environment, which goes before it.

    With `sound_only`, wrong settings do not raise: the sound sources are kept, a wrong limit is its default, a wrong
    warehouse stays as it is (opening it says what is wrong, so nothing is loaded elsewhere), and `problems` names all.

    Raises:
        ConfigError: with all problems at once.
    """
    problems: list[str] = []
    ours = {name: value for name, value in environ.items() if name.startswith("INGEST_") and value}
    told = _read(ours, VARIABLES, "", problems)
    named = told.get("INGEST_CONFIG")
    usual = Path(named or CONFIG_NAME).absolute()
    path = usual if named or usual.exists() else None
    found = _read(_read_toml(path, problems), TOP_SETTINGS, f"{path.name}: " if path else "", problems)
    found |= {name: told[variable] for name in TOP_SETTINGS if (variable := f"INGEST_{name.upper()}") in told}
    sources, told_sources = _sources(found.pop("source", ()), problems)
    if (uploads := found.get("uploads")) and "bucket" not in uploads:
        problems.append("[uploads]: bucket is missing.")
    for table, known in (("uploads", UPLOADS_SETTINGS), ("intake", INTAKE_SETTINGS)):
        values = _read(found.pop(table, {}), known, f"[{table}]: ", problems)
        found |= {f"{table}_{name}": value for name, value in values.items()}
    url = told.get("INGEST_WAREHOUSE", "duckdb:///warehouse.duckdb")
    try:
        url = warehouse_url(url, path.parent if path else Path.cwd())
    except ConfigError as error:
        problems += error.problems
    limits = {FIELDS.get(name, name): value for name, value in found.items()}
    settings = Settings(sources=sources, config_path=path, warehouse_url=url, **limits)
    # Airflow's scheduler reads the settings on another machine than its workers: there a load says it.
    if settings.staging_folder and not settings.staging_folder.is_dir() and not sound_only:
        problems.append(f"staging: there is no folder {settings.staging_folder}. Make it first.")
    blocked = _blocked(settings, problems)
    if problems and not sound_only:
        raise ConfigError(*problems)
    sound = {name: source for name, source in sources.items() if name not in blocked}
    unsound = tuple(source for source in told_sources if sound.get(source.name) is not source)
    return replace(settings, sources=sound, problems=tuple(problems), unsound=unsound)


def warehouse_url(url: str, folder: Path, setting: str = "INGEST_WAREHOUSE") -> str:
    """The URL with the path of a DuckDB file made absolute. Raises ConfigError; never repeats a password."""
    scheme, _, rest = url.partition("://")
    if scheme == "duckdb" and rest.startswith("/") and rest.strip("/") not in {"", ":memory:"}:
        return f"duckdb:///{folder / rest[1:]}"
    if scheme == "duckdb":
        raise ConfigError(f"{setting}: a DuckDB warehouse is named duckdb:///file or duckdb:////folder/file.")
    if scheme in {"postgresql", "postgres"}:
        if _is_spelled_wrong(f"postgresql://{rest}"):  # and what libpq says of it would show the password
            raise ConfigError(
                f"{setting}: the URL cannot be read. Write postgresql://user@host:port/database, and in a user or"
                " password %40 for @, %3A for :, %2F for /, %3F for ?, %23 for #, %25 for %, %20 for a space."
            )
        return f"postgresql://{rest}"
    if scheme == "iceberg":
        if not re.fullmatch(r"[A-Za-z0-9_]+/[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", rest):
            raise ConfigError(f"{setting}: a warehouse in Iceberg is named iceberg://catalog/namespace.")
        return url
    raise ConfigError(
        f"{setting}: no warehouse is known by this kind of URL: write duckdb:///file, duckdb:////folder/file,"
        " postgresql://user@host/database, or iceberg://catalog/namespace."
    )


def _is_spelled_wrong(url: str) -> bool:
    """Whether a part of it may stand where it was not meant to, as a part of a password does that is not escaped."""
    if re.search(r"[^!-~]|#|%(?![0-9A-Fa-f]{2})", url):
        return True
    parts = re.fullmatch(r"[^:]+://(?:([^:@/?[\]]*)(?::([^:@/?[\]]*))?@)?([^@/?]*)(/[^@?]*)?(\?.*)?", url)
    hosts = parts[3].split(",") if parts else ()
    is_host = re.compile(r"(\[[^][]*\]|[^][:]*)(:[0-9]*)?").fullmatch
    return not parts or not all(map(is_host, hosts))


def spans_hosts(warehouse_url: str, executor: str) -> str:
    """Why tasks of this executor of Airflow cannot load into this warehouse; empty where they can."""
    names = re.split("[,;]", executor)
    wide = [name for name in names if not re.search(rf"(?:^|[.:=])(?:{_ON_ONE_HOST})$", name.strip())]
    if not wide or not warehouse_url.startswith("duckdb:"):
        return ""
    return (
        f"The executor {wide[0].strip()} runs tasks on several hosts, and a DuckDB warehouse is a file on one of them."
        " Use the LocalExecutor; or a warehouse on a server: copy this one by `ingest copy --to postgresql://…`, and"
        " name that in INGEST_WAREHOUSE."
    )


def _read_toml(path: Path | None, problems: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig")) if path else {}
    except OSError as error:
        problems.append(f"INGEST_CONFIG: {path} cannot be read ({error.strerror}).")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path}: this is not TOML: {error}.")
    return {}


def _read(table: Mapping[str, Any], known: Mapping[str, Allowed], where: str, problems: list[str]) -> dict[str, Any]:
    """The sound values of a table; a problem for each other one."""
    values: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            close = get_close_matches(name, known, n=1, cutoff=0.8)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
            problems.append(f"{where}{name}: there is no such setting; {hint}")
            continue
        try:
            values[name] = known[name].read(value)
        except (ValueError, TypeError, OverflowError):
            instead = "" if known[name].secret else f", not {_shown(value)}"
            problems.append(f"{where}{name} has to be {known[name].words}{instead}.")
    return values


def _sources(tables: Iterable[Mapping[str, Any]], problems: list[str]) -> tuple[dict[str, Source], list[Source]]:
    """The sound sources, by name; of two that would take the same objects the first. And all that have an address."""
    sources: dict[str, Source] = {}
    seen: list[Source] = []  # also those that are wrong otherwise, so that all is told at once
    for number, table in enumerate(tables, 1):
        where = f"source {_shown(table['name'])}: " if "name" in table else f"[[source]] no. {number}: "
        wrong = [f"{where}{name} is missing." for name in ("name", "bucket") if name not in table]
        values = _read(table, SOURCE_SETTINGS, where, wrong)
        prefix, local = values.get("prefix", ""), values.get("bucket") == LOCAL_BUCKET
        if prefix.startswith("/") != local:
            what = "a folder's whole path, which begins with /" if local else "a prefix that does not begin with /"
            wrong.append(f"{where}prefix has to be {what}, not {_shown(prefix)}.")
        if "name" in values and "bucket" in values:
            source = Source(**values)
            wrong += [
                f"{where}its name is taken by another source: each needs its own."
                for other in seen
                if source.name == other.name
            ]
            wrong += [
                f"{where}it would take the files of source {_shown(other.name)}, too: give them prefixes outside each"
                " other, or patterns that tell them apart."
                for other in seen
                if _overlap(source, other)
            ]
            seen.append(source)
            if not wrong:
                sources[source.name] = source
        problems += wrong
    return sources, seen


def _overlap(one: Source, other: Source) -> bool:
    """Two patterns that differ are taken to mean different files."""
    return (
        one.bucket == other.bucket
        and (one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix))
        and (one.pattern is None or other.pattern is None or one.pattern == other.pattern)
    )


def _blocked(settings: Settings, problems: list[str]) -> set[str]:
    """The sources below a prefix that the program writes to: they would never take anything."""
    blocked = set()
    for source in settings.sources.values():
        for prefix in settings.own_prefixes(source.bucket):
            if source.prefix.startswith(prefix):
                blocked.add(source.name)
                problems.append(
                    f"source {_shown(source.name)}: prefix cannot be {_shown(source.prefix)}: the program itself writes"
                    f" to {prefix} and takes no files from there."
                )
    return blocked


def _shown(value: Any) -> str:
    """A wrong value, short and on one line."""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    text = text if text.isprintable() else ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
