"""The audit of locked packages: what fails it, what is said where nothing could be audited."""

import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import ROOT, module_at


@pytest.fixture
def audit() -> ModuleType:
    return module_at(ROOT / ".ci" / "audit.py")


def package(name: str, *vulns: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": [*vulns], **more}


def vuln(id: str, *fixed: str, aliases: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"id": id, "fix_versions": [*fixed], "aliases": [*aliases]}


UNSEEN = {"name": "c", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(("found", "ignored", "code", "said"), [
    pytest.param([package("a")], set(), 0, "0 known vulnerabilities in 1 packages", id="none"),
    pytest.param([package("a", vuln("PYSEC-1", "1.1"))], set(), 1, "a 1.0: PYSEC-1: fixed in 1.1", id="one"),
    pytest.param([package("a", vuln("PYSEC-1"))], set(), 1, "a 1.0: PYSEC-1: not fixed yet", id="without a fix"),
    pytest.param([package("a", vuln("P", aliases=("CVE-1",)))], {"CVE-1"}, 0, "0 known", id="ignored by an alias"),
    pytest.param([package("a"), UNSEEN], set(), 2, "not every package", id="one that nobody looked at is not sound"),
    pytest.param([], set(), 2, "not every package", id="nothing at all"),
])  # fmt: skip
def test_what_fails(audit: ModuleType, found: Any, ignored: set[str], code: int, said: str) -> None:
    sentences, ended = audit.verdict(found, ignored)
    assert ended == code
    assert said in "\n".join(sentences)


def test_what_was_ignored_is_looked_at_again_after_its_day(audit: ModuleType) -> None:
    entries = [
        {"id": "A", "reason": "r", "until": date(2026, 1, 1)},
        {"id": "B", "reason": "r", "until": date(2027, 1, 1)},
    ]
    assert audit.still_ignored(entries, date(2026, 6, 1)) == {"B"}
    for wrong in ({"id": "A", "until": date(2027, 1, 1)}, {"id": "A", "reason": "r", "until": "soon"}):
        with pytest.raises(SystemExit, match="must have id, reason and until"):
            audit.still_ignored([wrong], date(2026, 6, 1))


def test_a_database_out_of_reach_is_said_and_fails_nothing(tmp_path: Path) -> None:
    """No host answers at this port, wherever this runs."""
    script = (ROOT / ".ci" / "audit.py").read_text().replace("https://api.osv.dev/", "http://127.0.0.1:9/")
    (tmp_path / "audit.py").write_text(script)
    (tmp_path / "audit-ignored.toml").write_bytes((ROOT / ".ci" / "audit-ignored.toml").read_bytes())
    done = subprocess.run([sys.executable, tmp_path / "audit.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert done.stdout.startswith("audit: nothing was audited")


def test_the_lock_that_is_audited_holds_all_the_others() -> None:
    pinned = {
        path.name: set(re.findall(r"^[a-z0-9._-]+==[^ ;\\]+", path.read_text(), re.MULTILINE))
        for path in ROOT.glob("requirements*.txt")
    }
    assert len(pinned) == 4
    for name, pins in pinned.items():
        assert pins <= pinned["requirements-dev.txt"], name
    assert json.dumps([*pinned["requirements-dev.txt"]]).count("pip-audit==") == 1
