"""What a small file takes, and what many do.

    python bench/small.py                   `check` and `load` of a file of one line; `load` of a folder of 10,000 files
                                            of 1 KB, and `poll` of as many in a store that takes 30 ms for each request
    python bench/small.py --files 1000      … of fewer

Times are those of whole processes, start included; CPU is theirs alone, without the store's.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from ledger import Handler, served
from run import run, spent

_REQUEST_SECONDS = 0.03
_ROUNDS = 7  # of a single line


def body(number: int) -> bytes:
    """One file: five lines, 1 KB, no two files alike."""
    return b"".join(
        b'{"_p":"visitor%d@example.com","_n":"opened page","_t":%d,"page":"/products/%d","title":"%s","from":"mail"}\n'
        % (number % 3000, 1767225000 + number * 5 + line, line, b"what it is called " * 5)
        for line in range(5)
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--only", choices=["check", "load", "local", "s3"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="landfall-bench-") as name:
        folder = Path(name)
        one, many = folder / "one.json", folder / "many"
        one.write_bytes(body(0).split(b"\n")[0] + b"\n")
        many.mkdir()
        for number in range(arguments.files if arguments.only in (None, "local") else 0):
            (many / f"{number:08d}.json").write_bytes(body(number))
        Handler.files, Handler.body, Handler.delay_seconds = arguments.files, staticmethod(body), _REQUEST_SECONDS
        for what, times, command, more in (
            ("check", _ROUNDS, ["check", str(one)], {}),
            ("load", _ROUNDS, ["load", str(one)], {}),
            ("local", 1, ["load", str(many)], {}),
            ("s3", 1, ["poll"], served(folder)),
        ):
            if arguments.only in (None, what):
                told, files = ("one line", 1) if times > 1 else (f"{arguments.files:,} files", arguments.files)
                _tell(f"{what}, {told}", [_took(command, folder, more) for _ in range(times)], files)


def _took(command: list[str], folder: Path, more: Mapping[str, str]) -> tuple[float, float]:
    """Seconds, and CPU seconds, of a command on an empty warehouse."""
    for left in folder.glob("ours.duckdb*"):
        left.unlink()
    # Compiled once, as where it is installed.
    environment = {
        "INGEST_CONFIG": os.devnull, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "compiled")
    }  # fmt: skip
    before = spent()
    seconds, _ = run([sys.executable, "-m", "ingest", *command], folder, watch=False, more=environment | dict(more))
    return seconds, spent() - before


def _tell(what: str, took: list[tuple[float, float]], files: int) -> None:
    seconds, cpu = (median(some) for some in zip(*took, strict=True))
    rate = f", {files / seconds:,.0f} files/s" if files > 1 else ""
    print(f"{what:20} {seconds:.3f} s, {cpu:.3f} CPU s{rate}", flush=True)


if __name__ == "__main__":
    main()
