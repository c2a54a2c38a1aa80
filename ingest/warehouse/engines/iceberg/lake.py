"""The one table of a lake: its files, what is in them, and commits against the snapshot that was read.

Rows are only ever added. A commit names data files that are there already; it holds if nobody else committed since the
snapshot that it was planned on, whatever that was. An answer that is lost is looked for: each commit has an id of its
own in the summary of its snapshot.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from json import JSONDecodeError
from typing import Any, Final, Literal
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import dataset, fs, parquet
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import (
    CommitFailedException,
    ForbiddenError,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    NotInstalledError,
    TableAlreadyExistsError,
    UnauthorizedError,
)
from pyiceberg.io.pyarrow import PyArrowFileIO, parquet_file_to_data_file
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.types import PrimitiveType
from pyiceberg.utils.config import Config

from ingest.errors import ConfigError, IngestError, TransientError
from ingest.warehouse.engines.duckdb.session import connect
from ingest.warehouse.engines.iceberg.statements import changes

TABLE: Final = "landfall"
COMMANDS: Final = (
    "part", "stage_no", "line", "item_no", "item", "kind", "people_space", "person", "person_key", "occurred_at",
    "event", "event_key", "alias", "alias_key", "properties", "time_source", "command_id", "identity",
)  # fmt: skip
_GROUP_ROWS, _GROUP_BYTES = 122_880, 64 << 20  # of a row group of Parquet, at most
_COMMIT = "landfall.commit"  # in the summary of a snapshot: the id of the commit
_PROPERTIES = {
    "commit.retry.num-retries": "0",  # whoever was not first plans again
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "20",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "write.parquet.row-group-limit": str(_GROUP_ROWS),
    "write.parquet.compression-codec": "zstd",
}
_LASTING = (ValueError, ForbiddenError, NotInstalledError, UnauthorizedError)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


Part = Literal["changes", "commands"]


class ConflictError(Exception):
    """Somebody else committed meanwhile."""


@dataclass(frozen=True, slots=True)
class CommandFile:
    """A data file of commands, and what its rows lie between."""

    path: str
    first_at: datetime | None
    last_at: datetime | None
    first_stage: int | None
    last_stage: int | None


@dataclass(frozen=True, slots=True)
class Lake:
    """Where the table is, and how to get at it."""

    catalog: str
    namespace: str

    @property
    def name(self) -> str:
        return f"iceberg://{self.catalog}/{self.namespace}"

    def find(self) -> "LakeTable | None":
        """The table as it is now; None: nobody has made it yet.

        Raises:
            ConfigError: no such catalog is described, or the table is another program's.
            TransientError: the catalog did not answer.
        """
        with self.reached(), suppress(NoSuchTableError, NoSuchNamespaceError):
            table = self._catalog().load_table((*self.namespace.split("."), TABLE))
            if not {*COMMANDS, "change", "seq"} <= {field.name for field in table.schema().fields}:
                raise ConfigError(
                    f"The table {TABLE} in {self.name} is of another program. Name another namespace in"
                    " INGEST_WAREHOUSE."
                )
            return LakeTable(self, table)
        return None

    def make(self) -> "LakeTable":
        """The same, made if it is not there."""
        if found := self.find():
            return found
        namespace = tuple(self.namespace.split("."))
        with self.reached():
            catalog = self._catalog()
            with suppress(NamespaceAlreadyExistsError):
                catalog.create_namespace(namespace)
            with (
                suppress(TableAlreadyExistsError),
                catalog.create_table_transaction((*namespace, TABLE), _schema(), properties=_PROPERTIES) as made,
                made.update_spec() as spec,
            ):
                spec.add_identity("part")
            return LakeTable(self, catalog.load_table((*namespace, TABLE)))

    def _catalog(self) -> Catalog:
        described = Config().get_catalog_config(self.catalog)
        if described is None:
            raise ConfigError(
                f"INGEST_WAREHOUSE: no catalog {self.catalog} is described. Describe it in .pyiceberg.yaml or by"
                f" variables: PYICEBERG_CATALOG__{self.catalog.upper()}__URI, __WAREHOUSE and what else it needs."
            )
        return _opened(self.catalog, os.getpid(), *sorted((key, str(value)) for key, value in described.items()))

    @contextmanager
    def reached(self) -> Iterator[None]:
        """What goes wrong with catalog or store, in a sentence.

        Raises:
            ConfigError: it would go wrong again.
            TransientError: it may not.
        """
        try:
            yield
        except (IngestError, ConflictError, NoSuchTableError, NoSuchNamespaceError, duckdb.Error):
            raise
        except Exception as error:  # of a catalog of any kind, and of any store
            reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
            if isinstance(error, _LASTING) and not isinstance(error, JSONDecodeError):  # which an answer may be cut by
                raise ConfigError(f"{self.name} cannot be used as it is described: {reason}.") from error
            raise TransientError(f"{self.name} did not answer: {reason}. Run again.") from error


@dataclass(frozen=True, slots=True)
class LakeTable:
    """The table as it was when it was looked at."""

    lake: Lake
    table: Table

    @property
    def table_id(self) -> str:
        return str(self.table.metadata.table_uuid)

    @property
    def snapshot_id(self) -> int | None:
        return self.table.metadata.current_snapshot_id

    def files_since(self, snapshot_id: int | None) -> "tuple[list[str], list[CommandFile]] | None":
        """Data files that were added since a snapshot (None: all of them): of changes, in no order; and of commands.

        None: they cannot be told, since files were put together meanwhile, or the snapshot is not known any more.
        """
        with self.lake.reached():
            since = None if snapshot_id is None else self._snapshots_since(snapshot_id)
            if since is None and snapshot_id is not None:
                return None
            new = None if since is None else {snapshot.snapshot_id for snapshot in since}
            changes, commands = self._files(new)
            return [file.file_path for file in changes], [self.bounds(file) for file in commands]

    def data_files(self) -> tuple[list[DataFile], list[DataFile]]:
        """All of them: of changes, and of commands in the order of their times."""
        with self.lake.reached():
            changes, commands = self._files(None)
        return changes, sorted(commands, key=lambda file: self.bounds(file).first_at or _EPOCH)

    def _files(self, new: set[int] | None) -> tuple[list[DataFile], list[DataFile]]:
        """Files of changes and of commands that these snapshots have added; None: all that there are."""
        found: dict[str, list[DataFile]] = {"changes": [], "commands": []}
        current = self.table.current_snapshot()
        for manifest in current.manifests(self.table.io) if current else ():
            if new is None or manifest.added_snapshot_id in new:
                for entry in manifest.fetch_manifest_entry(self.table.io, discard_deleted=True):
                    if new is None or entry.snapshot_id in new:
                        found[entry.data_file.partition[0]].append(entry.data_file)
        return found["changes"], found["commands"]

    def objects(self) -> set[str]:
        """Paths of all objects that any snapshot knows, and of what tells of the snapshots."""
        metadata, io = self.table.metadata, self.table.io
        found = {self.table.metadata_location, *(one.metadata_file for one in metadata.metadata_log)}
        seen: set[str] = set()
        for snapshot in metadata.snapshots:
            found.add(snapshot.manifest_list)
            for manifest in snapshot.manifests(io):
                if manifest.manifest_path not in seen:
                    seen.add(manifest.manifest_path)
                    found |= {
                        entry.data_file.file_path for entry in manifest.fetch_manifest_entry(io, discard_deleted=True)
                    }
        return {self.path(path) for path in found | seen}

    def _snapshots_since(self, snapshot_id: int) -> list[Snapshot] | None:
        """Those behind it, newest first; None: see `files_since`."""
        since: list[Snapshot] = []
        snapshot = self.table.current_snapshot()
        while snapshot is not None and snapshot.snapshot_id != snapshot_id:
            if snapshot.summary is None or snapshot.summary.operation != Operation.APPEND:
                return None
            since.append(snapshot)
            parent = snapshot.parent_snapshot_id
            snapshot = None if parent is None else self.table.snapshot_by_id(parent)
        return None if snapshot is None else since

    def bounds(self, file: DataFile) -> CommandFile:
        """What the rows of a file lie between."""

        def bound(of: Mapping[int, bytes] | None, name: str) -> Any:
            field = self.table.schema().find_field(name)
            found = (of or {}).get(field.field_id)
            assert isinstance(field.field_type, PrimitiveType)
            return None if found is None else from_bytes(field.field_type, found)

        def at(of: Mapping[int, bytes] | None) -> datetime | None:
            microseconds = bound(of, "occurred_at")
            return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)

        low, high = file.lower_bounds, file.upper_bounds
        return CommandFile(file.file_path, at(low), at(high), bound(low, "stage_no"), bound(high, "stage_no"))

    # --- reading -----------------------------------------------------------------------------------------------------

    def commands(self, files: Iterable[CommandFile]) -> dataset.Dataset:
        """Commands of some files. What a statement cannot want of them is not read: each file's bounds are told."""
        at, stage = pc.field("occurred_at"), pc.field("stage_no")
        fragments, system = [], self.file_system()
        for file in files:
            known = None
            if file.first_at is not None and file.first_stage is not None:
                known = (
                    (at >= pa.scalar(file.first_at, pa.timestamp("us", "UTC")))
                    & (at <= pa.scalar(file.last_at, pa.timestamp("us", "UTC")))
                    & (stage >= file.first_stage) & (stage <= file.last_stage)
                )  # fmt: skip
            fragments.append(_PARQUET.make_fragment(self.path(file.path), system, partition_expression=known))
        return dataset.FileSystemDataset(fragments, _stored(_arrow(COMMANDS)), _PARQUET, system)

    def changes(self, paths: Sequence[str]) -> dataset.Dataset:
        """Rows of files of changes."""
        system = self.file_system()
        return dataset.dataset(
            [self.path(path) for path in paths], _stored(_schema()), format=_PARQUET, filesystem=system
        )

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(self, part: Part, rows: Iterable[pa.RecordBatch]) -> tuple[str, int]:
        """Write rows into a data file, which no snapshot knows yet; its path, and how many they are."""
        path = f"{self.table.location().rstrip('/')}/data/part={part}/{uuid4()}.parquet"
        schema, count = self._with_ids(_arrow(COMMANDS) if part == "commands" else _schema()), 0
        system, place = self.file_system(), self.path(path)
        with self.lake.reached():
            if isinstance(system, fs.LocalFileSystem):
                system.create_dir(place.rpartition("/")[0], recursive=True)
            with parquet.ParquetWriter(place, schema, filesystem=system, compression="zstd") as file:
                for batch in _gathered(rows):
                    columns = [_as(batch[field.name], field.type) for field in schema]
                    file.write_table(pa.table(columns, schema=schema), row_group_size=_GROUP_ROWS)
                    count += batch.num_rows
        return path, count

    def command_file(self, path: str) -> CommandFile:
        """What the rows of a file that was written lie between."""
        with self.lake.reached():
            return self.bounds(parquet_file_to_data_file(self.table.io, self.table.metadata, path))

    def commit(self, paths: Sequence[str], instead_of: Sequence[DataFile] = ()) -> int:
        """Make files visible, in place of others; the id of the snapshot that has them.

        Raises:
            ConflictError: somebody else committed first. Nothing was.
            TransientError: the catalog did not answer, and does not tell whether it is committed. Look again later.
        """
        commit_id = str(uuid4())
        try:
            with self.lake.reached():
                files = [parquet_file_to_data_file(self.table.io, self.table.metadata, path) for path in paths]
                with self.table.transaction() as transaction:
                    update = transaction.update_snapshot(snapshot_properties={_COMMIT: commit_id})
                    with update.overwrite() if instead_of else update.fast_append() as snapshot:
                        for file in files:
                            snapshot.append_data_file(file)
                        for file in instead_of:
                            snapshot.delete_data_file(file)
        except (TransientError, CommitFailedException) as error:
            # Whatever was answered: it may be there.
            now = self.lake.make()
            for made in now.table.snapshots():
                if made.summary and made.summary.additional_properties.get(_COMMIT) == commit_id:
                    return made.snapshot_id
            cause = error.__cause__ if isinstance(error, TransientError) else error
            if isinstance(cause, CommitFailedException):
                raise ConflictError from error
            raise
        assert self.snapshot_id is not None
        return self.snapshot_id

    def _with_ids(self, schema: pa.Schema) -> pa.Schema:
        """With the ids that the table has for its fields."""
        own = self.table.schema()

        def told(field: pa.Field) -> pa.Field:
            found = own.find_field(field.name)
            kind = field.type
            if pa.types.is_list(kind):
                element = own.find_field(f"{field.name}.element").field_id
                kind = pa.list_(pa.field("element", kind.value_type, metadata=_id(element)))
            return pa.field(field.name, kind, metadata=_id(found.field_id))

        return pa.schema([told(field) for field in schema])

    def file_system(self) -> fs.FileSystem:
        io = self.table.io
        assert isinstance(io, PyArrowFileIO)
        scheme, netloc, _ = PyArrowFileIO.parse_location(self.table.location())
        return io.fs_by_scheme(scheme, netloc)

    @staticmethod
    def path(path: str) -> str:
        return PyArrowFileIO.parse_location(path)[2]


_PARQUET = dataset.ParquetFileFormat()


@cache
def _opened(name: str, _process: int, *described: tuple[str, str]) -> Catalog:
    try:
        return load_catalog(name, **dict(described))
    except Exception:  # noqa: BLE001 - of any kind: another loader may have made its tables in the same moment
        return load_catalog(name, **dict(described))


@cache
def _schema() -> pa.Schema:
    """The columns of the table: see schemas/warehouse/iceberg/lake.sql."""
    with connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET arrow_lossless_conversion = true")
        connection.execute(changes())
        made = connection.sql("SELECT * FROM changes").to_arrow_table().schema
    return pa.schema([field.with_type(pa.bool_()) if field.type == pa.bool8() else field for field in made])


def _arrow(names: Iterable[str]) -> pa.Schema:
    return pa.schema([_schema().field(name) for name in names])


@cache
def no_commands() -> pa.Table:
    return _stored(_arrow(COMMANDS)).empty_table()


def _stored(schema: pa.Schema) -> pa.Schema:
    """With bytes for UUIDs."""
    return pa.schema([field.with_type(pa.binary(16)) if field.type == pa.uuid() else field for field in schema])


def _id(number: int) -> dict[str, str]:
    return {"PARQUET:field_id": str(number)}


def _as(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == pa.bool8():  # so the engine tells the true and the false, where it tells UUIDs
        column = column.storage
    return column if column.type == kind else column.cast(kind)


def _gathered(rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches of a row group each, or of many bytes."""
    waiting: list[pa.RecordBatch] = []
    for batch in rows:
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= _GROUP_ROWS or sum(one.nbytes for one in waiting) >= _GROUP_BYTES:
            yield pa.concat_batches(waiting)
            waiting = []
    if waiting:
        yield pa.concat_batches(waiting)
