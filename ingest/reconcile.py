"""Do the landing, the ledger and the tables agree? Every difference is named and explained.

First version: what is pending for too long, what keeps being retried, and what no rule takes.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ingest.errors import IngestError
from ingest.pipeline import Pipeline

_STUCK_AFTER = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it should be."""

    source: str
    what: str  # pending, retrying, unreachable
    key: str
    explanation: str


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was compared and what was found."""

    compared: dict[str, int]  # source → objects that a rule takes
    ignored: dict[str, int]  # source → objects that no rule takes
    differences: list[Difference]


def reconcile(pipeline: Pipeline, stuck_after: timedelta = _STUCK_AFTER) -> Reconciliation:
    """Compare every source's landing with the ledger."""
    now = datetime.now(UTC)
    compared: dict[str, int] = {}
    ignored: dict[str, int] = {}
    differences: list[Difference] = []
    for name in pipeline.settings.sources:
        try:
            found = pipeline.discover(name)
        except IngestError as error:
            differences.append(Difference(name, "unreachable", "", str(error)))
            continue
        compared[name], ignored[name] = found.matching, found.ignored
        for file in found.pending:
            waited = now - file.last_modified
            if waited > stuck_after:
                explanation = f"Waiting for {waited} since {file.last_modified:%Y-%m-%d %H:%M} UTC. Is its DAG paused?"
                differences.append(Difference(name, "pending", file.key, explanation))
    for row in pipeline.warehouse.files({"state": "retrying"}):
        explanation = f"{row['attempts']} attempts, next at {row['next_try_at']:%Y-%m-%d %H:%M} UTC: {row['error']}"
        differences.append(Difference(row["source"], "retrying", row["key"], explanation))
    return Reconciliation(compared, ignored, differences)
