"""Commands that look after the whole: `reconcile`."""

from ingest.cli.base import cli, json_option, opened_pipeline
from ingest.cli.output import count, write_json, write_table


@cli.command()
@json_option
def reconcile(as_json: bool) -> int:
    """Name what waits or fails for too long.

    Holds the landing of every source against the ledger. Exit code 1 if something is not as it should be.
    """
    from dataclasses import asdict

    from ingest.reconcile import reconcile as compare

    with opened_pipeline() as pipeline:
        outcome = compare(pipeline)
    if as_json:
        write_json(asdict(outcome))
    else:
        rows = [(d.source, d.what, d.key, d.explanation) for d in outcome.differences]
        write_table(count(len(rows), "difference"), ("source", "what", "key", "explanation"), rows)
    return 1 if outcome.differences else 0
