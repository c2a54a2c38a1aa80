"""Loaders on many hosts: processes that load files which share facts and persons, and what has to come of it."""

import os
import subprocess
import sys
from pathlib import Path

from ingest.ports import Warehouse
from tests.support import ROOT, alias, lines, record, rows
from tests.test_exactly_once import broken_promises

FILES = 16
LINES = 600
PERSONS = 50


def shared_file(folder: Path, number: int) -> Path:
    """Half of its facts are in the next file as well; one line in a hundred is bad; an alias joins it to the next."""
    path = folder / f"{number:02d}.json"
    content = [
        record(f"p{n % PERSONS}", n * 10, "x", of=n) for n in range(number * LINES // 2, (number + 2) * LINES // 2)
    ]
    bad = [f'{{"_p":"bad {n}"}}' for n in range(LINES // 100)]
    path.write_bytes(lines(*content, *bad, alias(f"link {number:02d}", f"link {number + 1:02d}")))
    return path


def loader(url: str, folder: Path, files: list[Path], **more: str) -> "subprocess.Popen[bytes]":
    ours = {"INGEST_WAREHOUSE": url, "PYTHONPATH": str(ROOT), "INGEST_PROCESSES": "1", **more}
    command = [sys.executable, "-m", "ingest", "load", "--json", *map(str, files)]
    return subprocess.Popen(
        command, env=os.environ | ours, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def is_whole(warehouse: Warehouse) -> None:
    """Every file once, every fact once, all persons joined."""
    assert broken_promises(warehouse) == {}
    assert warehouse.disagreements() == []
    (counted,) = rows(
        warehouse,
        "SELECT count(*) AS files, sum(records)::bigint AS records, sum(failed)::bigint AS failed,"
        " sum(aliases)::bigint AS aliases, sum(duplicates)::bigint AS duplicates FROM ledger WHERE state = 'loaded'",
    )
    assert counted == {
        "files": FILES, "records": FILES * LINES, "failed": FILES * LINES // 100, "aliases": FILES,
        "duplicates": (FILES - 1) * LINES // 2,
    }  # fmt: skip
    assert rows(warehouse, "SELECT count(*) AS n FROM events") == [{"n": (FILES + 1) * LINES // 2}]
    linked = rows(warehouse, "SELECT DISTINCT person_id FROM identities WHERE identity_key LIKE 'link%'")
    assert linked == [{"person_id": "link 00"}]
