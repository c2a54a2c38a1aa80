"""Whether a locked package has a known vulnerability: the locks held against the database of OSV by pip-audit.

Exit 0: none, or the database cannot be reached from here, which is said. 1: there are some, each is named with the
version that has the fix. 2: the audit itself failed.
What was looked at and does not concern us is in audit-ignored.toml, with a reason and the day until which that holds.
"""

import json
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
LOCK = FOLDER.parent / "requirements-dev.txt"  # every other lock holds a part of it
DATABASE = "https://api.osv.dev/"


def main() -> int:
    """Run the audit; the exit code."""
    ignored = still_ignored(
        tomllib.loads((FOLDER / "audit-ignored.toml").read_text()).get("ignored", []), datetime.now(UTC).date()
    )
    if why := unreachable():
        print(f"audit: nothing was audited, since {DATABASE} cannot be reached from here ({why}).")
        return 0
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--require-hashes", "--disable-pip"]
    options = ["--vulnerability-service", "osv", "--format", "json", "--aliases", "on", "--progress-spinner", "off"]
    ran = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    try:
        found = json.loads(ran.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"audit: pip-audit failed:\n{ran.stderr.strip()}")
        return 2
    sentences, code = verdict(found, ignored)
    print("\n".join(sentences))
    return code


def unreachable() -> str:
    """Why the database cannot be asked; empty if it can. Any answer of it will do."""
    try:
        with urllib.request.urlopen(DATABASE, timeout=20):
            return ""
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        return str(getattr(error, "reason", error))


def still_ignored(entries: Iterable[Mapping[str, Any]], today: date) -> set[str]:
    """The ids of those whose day has not come. Each must say why, and until when."""
    for entry in entries:
        if set(entry) != {"id", "reason", "until"} or not isinstance(entry["until"], date):
            raise SystemExit(f"audit-ignored.toml: {dict(entry)} must have id, reason and until = 2026-12-31.")
    return {entry["id"] for entry in entries if entry["until"] >= today}


def verdict(found: Sequence[Mapping[str, Any]], ignored: set[str]) -> tuple[list[str], int]:
    """What is said of the packages as pip-audit told them, and the exit code."""
    sentences = []
    for package in found:
        for one in package.get("vulns", ()):
            if not ignored & {one["id"], *one["aliases"]}:
                fixed = f"fixed in {' or '.join(one['fix_versions'])}" if one["fix_versions"] else "not fixed yet"
                names = ", ".join([one["id"], *one["aliases"]])
                sentences.append(f"{package['name']} {package['version']}: {names}: {fixed}")
    skipped = [f"{package['name']}: {package['skip_reason']}" for package in found if "vulns" not in package]
    if not found or skipped:  # a package that nobody looked at is not a sound one
        return [*sentences, *skipped, "audit: not every package could be looked at."], 1 if sentences else 2
    counted = f"{len(sentences)} known vulnerabilities in {len(found)} packages, {len(ignored)} reviewed and ignored"
    return [*sentences, f"audit: {counted}."], int(bool(sentences))


if __name__ == "__main__":
    sys.exit(main())
