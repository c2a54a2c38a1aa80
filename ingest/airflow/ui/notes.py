"""The note of a run: how many lines it left to fix.

A task cannot write the note of its run. A listener of a plugin, which the scheduler calls when a run has ended, can.
"""

from collections.abc import Sequence
from typing import Any

from airflow.listeners import hookimpl

from ingest.airflow.names import has_files
from ingest.text import count


@hookimpl
def on_dag_run_success(dag_run: Any) -> None:
    """Write the note of a run that loaded files."""
    if has_files(dag_run.dag_id):
        from ingest.airflow.ui import internals

        internals.note(dag_run, left_to_fix, "return_value", "load")


on_dag_run_failed = on_dag_run_success


def left_to_fix(loads: Sequence[Any]) -> str:
    """What loading tasks left to fix; nothing where all is well. What somebody else's DAG returned is passed over."""
    results = [one for load in loads if isinstance(load, list) for one in load]
    files = [one for one in results if isinstance(one, dict) and "failed" in one]
    left = [number for one in files if (number := one["failed"] - one.get("fixed", 0)) > 0]
    return f"{count(sum(left), 'line')} to fix in {count(len(left), 'file')}: see the tab Failed lines." if left else ""
