"""How staged rows come into a lake: commands into a file of their own, all else beside the other changes."""

from collections.abc import Sequence

import pyarrow as pa

from ingest.plans.changes import Entry
from ingest.warehouse.engines.duckdb.applying import DuckDBApplying
from ingest.warehouse.engines.iceberg.mirror import MirrorSession
from ingest.warehouse.engines.iceberg.statements import statement


class LakeApplying(DuckDBApplying):
    """Implements `ingest.warehouse.engines.common.applying.Applying`."""

    session: MirrorSession

    def _numbers(self, many: int) -> list[int]:
        """Behind all that any host has given."""
        sql = "SELECT greatest((SELECT max(file_no) FROM mirrored), (SELECT max(file_no) FROM changes))"
        ((last,),) = self.session.rows(sql)
        return list(range((last or 0) + 1, (last or 0) + 1 + many))

    def insert_commands(self, taken: Sequence[Entry]) -> None:
        stages = [self.session.brought.stage_of(entry.staged.staged_no) for entry in taken]
        numbered = {"file_no": [entry.row.file_no for entry in taken], "stage_no": stages}
        with self.session.table("taken_stages", pa.table(numbered)):
            self.session.run("enter_stages")
        DuckDBApplying.insert_commands(self, taken)

    def may_be_here(self) -> bool:
        self.session.look_near()
        return DuckDBApplying.may_be_here(self)

    def put(self, table: str, name: str) -> int:
        if table == "command_rows":
            self.session.run("shadow_staged")
            return self.session.bring([entry.staged.staged_no for entry in self.taken], name)
        self.session.connection.execute(f"CREATE OR REPLACE TEMP VIEW incoming AS {statement(name)}")
        self.session.rows(statement(f"told_{name}"))
        return DuckDBApplying.put(self, table, name)
