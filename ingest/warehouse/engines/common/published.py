"""What pages ask, in the words that the conditions of each engine have."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

from ingest.ports import FilesWanted


def filters(wanted: FilesWanted) -> dict[str, Any]:
    """The conditions that files are to meet, each with its value: those only that are asked for."""
    may_be_id = re.fullmatch("[0-9a-fA-F]{1,64}", wanted.text)
    found = {
        "sources": list(wanted.sources),
        "states": list(wanted.states) or None,
        "since": wanted.since and _midnight(wanted.since),
        "until": wanted.until and _midnight(wanted.until) + timedelta(days=1),
        "id_begins" if may_be_id else "text": wanted.text or None,
        "run_id": wanted.run_id,
        "sha256": wanted.sha256,
        "code": wanted.code,
        "file_ids": None if wanted.file_ids is None else list(wanted.file_ids),
        "with_failures": wanted.with_failures or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
