"""What producers send, well or ill meant, and what a person reads of it on a page."""

import json
import re
from html import unescape
from typing import Final

from tests.airflow.conftest import Job

# What a producer may send to whoever looks at it.
HOSTILE: Final = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</textarea><script>alert(2)</script>", "{{7*7}}",
    "{% raw %}", "${7*7}", "\x1b[31mred\x1b[0m", "\u202egnp.exe", "=cmd|' /C calc'!A0", "javascript:alert(1)",
    "\u200bzero\ufeff", "&lt;b&gt;",
)  # fmt: skip


def load(job: Job, name: str, *lines: dict[str, object] | str | bytes, body: bytes | None = None) -> str:
    """Put a file of these lines (or this `body`) under landing/ and load what is there, without a run; its file_id."""
    job.s3.put(f"landing/{name}", b"".join(_bytes(line) + b"\n" for line in lines) if body is None else body)
    job.ask(lambda pipeline: pipeline.load(pipeline.discover("website").pending))
    return file_id_of(job, f"landing/{name}")


def file_id_of(job: Job, key: str) -> str:
    """Of the newest file with this key."""
    return str(next(row["file_id"] for row in job.ledger() if row["key"] == key))


def _bytes(line: dict[str, object] | str | bytes) -> bytes:
    if isinstance(line, dict):
        return json.dumps(line, ensure_ascii=False).encode()
    return line.encode() if isinstance(line, str) else line


def text_of(html: str) -> str:
    """What a person reads: without tags, and spaces told once."""
    apart = re.sub(r"<(?!/?(code|mark|span|a|strong|time)\b)[^>]*>", " ", html)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", "", apart)))
