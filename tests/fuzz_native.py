"""Fuzz the native core: mutated lines, of which the core, Python's fast decoder and the judge must say the same.

    python -m tests.fuzz_native --minutes 600

Guided by coverage where a rustc has the runtime for it (that of rustup has, Debian's has none): lines that reach a new
part of the core are mutated further. The core is then fuzzed twice: as it is loaded, and as it is built for that.
"""

import argparse
import ctypes
import os
import random
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingest.core.formats import Fast
from ingest.core.native import library
from tests.core.agreement import FAST, RULES, agree, native
from tests.core.odd import ODD, corpus, odd

SOURCES = Path(__file__).parent.parent / "native"
AT_ONCE = 200  # lines, as one block
_VALUE = re.compile(rb'(?<=:)("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null)')
_SURE = [text.encode() for sure, _ in ODD.values() for text in sure if _VALUE.fullmatch(b":" + text.encode(), 1)]
_TOKENS = [
    *(text.encode() for sure, doubtful in ODD.values() for text in sure + doubtful if len(text) < 40),
    *(bytes([byte]) for byte in b'"\\{}[]:,\r\t \x00\x1f\x7f'),
    b'"_p":', b'"_t":', b'"_n":', b'"_p2":', b"1393344604", b"\\u",
    "é".encode(), "İ".encode(), b"\xff", b"\xe6\x97",
]  # fmt: skip
# The counters that `-C instrument-coverage` makes, of which nothing but the runtime knows.
_COUNTERS = """
extern "C" { fn __llvm_profile_begin_counters() -> *mut u64; fn __llvm_profile_end_counters() -> *mut u64; }
#[no_mangle]
pub unsafe extern "C" fn landfall_counters(end: bool) -> *mut u64 {
    if end { __llvm_profile_end_counters() } else { __llvm_profile_begin_counters() }
}
"""


def build(sources: Path, made: Path, *options: str) -> bool:
    """A core as it is shipped, but not optimized. False: no rustc here knows an option."""
    found = [shutil.which("rustc", path=path) for path in (os.environ["PATH"], "/usr/bin")]
    assert any(found), "there is no rustc here"
    options = ("--edition=2021", "--crate-type=cdylib", "-Copt-level=0", "-Cdebug-assertions=off", *options)
    for rustc in filter(None, found):
        command = [rustc, *options, "-o", str(made), str(sources / "lib.rs")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return True
    return False


class Covered:
    """A core that tells which of its parts ran; the ordinary one, which tells none, where none can be built."""

    def __init__(self, folder: Path) -> None:
        os.environ["LLVM_PROFILE_FILE"] = os.devnull  # else it is left where one works
        shutil.copytree(SOURCES, folder / "native")
        with (folder / "native/lib.rs").open("a") as file:
            file.write(_COUNTERS)
        if build(folder / "native", folder / "covered.so", "-Cinstrument-coverage"):
            self.core = library(folder / "covered.so")
            assert self.core
            self.core.landfall_counters.restype = ctypes.c_void_p
            begin, end = self.core.landfall_counters(False), self.core.landfall_counters(True)
            self.counters = (ctypes.c_uint64 * ((end - begin) // 8)).from_address(begin)
        else:
            self.core, self.counters = library(), (ctypes.c_uint64 * 0)()

    def forget(self) -> None:
        ctypes.memset(self.counters, 0, ctypes.sizeof(self.counters))

    def reached(self) -> frozenset[int]:
        return frozenset(number for number, times in enumerate(self.counters) if times)


@dataclass
class Told:
    """What came of it."""

    lines: int = 0
    sure: int = 0  # of which the core was sure
    only_core: int = 0  # was sure; Python's fast decoder was not
    seconds: float = 0
    found: list[bytes] = field(default_factory=list)  # reached a part that nothing before had
    reached: int = 0
    parts: int = 0

    def __str__(self) -> str:
        return (
            f"{self.lines:,} lines in {self.seconds:.0f} s, {self.lines / self.seconds:,.0f} a second; "
            f"the core was sure of {self.sure:,}, Python was not of {self.only_core:,} of these; "
            f"{self.reached} of {self.parts} parts were reached, {len(self.found)} lines were kept for a new one"
        )


def mutated(line: bytes, lines: Sequence[bytes], at: random.Random) -> bytes:
    """`line` with up to four changes; most often a value takes the place of another."""
    for _ in range(1 + min(3, int(at.expovariate(2)))):
        begin = at.randrange(len(line) + 1)
        end = begin + min(int(at.expovariate(0.2)), len(line) - begin)
        match at.randrange(12):
            case 0 | 1 | 2 | 3 | 4 | 5 if found := list(_VALUE.finditer(line)):
                begin, end = at.choice(found).span()
                line = line[:begin] + at.choice(at.choice((_SURE, _TOKENS))) + line[end:]
            case 6:
                line = line[:begin] + line[end:]
            case 7:
                line = line[:end] + line[begin:]
            case 8 if line:
                begin = at.randrange(len(line))
                line = line[:begin] + bytes([line[begin] ^ 1 << at.randrange(8)]) + line[begin + 1 :]
            case 9:
                other = at.choice(lines)
                line = line[:begin] + other[at.randrange(len(other) + 1) :]
            case 10 if b"," in line:
                members = line.strip(b"{}").split(b",")
                at.shuffle(members)
                line = b"{" + b",".join(members + at.choice(lines).strip(b"{}").split(b",")[-1:]) + b"}"
            case _:
                line = line[:begin] + at.choice(_TOKENS) + line[begin:]
    return line.replace(b"\n", b"")


def fuzz(seconds: float, seed: int, folder: Path) -> Told:
    """Fuzz so long. An AssertionError names the line of which they say different things."""
    at = random.Random(seed)
    told, lines = Told(), corpus()
    lines += 2 * [line for line, sure in odd() if sure]  # what is right is mutated more often
    covered = Covered(folder)
    decoders = [[*fast, native(rules, covered.core)] for fast, rules in zip(FAST, RULES, strict=True)]
    told.parts = len(covered.counters)
    seen: frozenset[int] = frozenset()
    for number in range(len(RULES)):
        agree(lines, number, decoders)
        seen |= covered.reached()
    begin = time.monotonic()
    while (spent := time.monotonic() - begin) < seconds:
        number = at.choice((0, 0, 1, 2, 3))
        some = [mutated(at.choice(lines), lines, at) for _ in range(AT_ONCE)]
        if number == 2:  # received before the times in the corpus
            some = [line.replace(b"1393344604", b"1393344603") for line in some]
        covered.forget()
        try:
            answers = agree(some, number, decoders)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, rules {number}: {culprit(some, number, decoders)!r}") from error
        told.lines += len(some)
        told.sure += sum(core for _, core, _ in answers)
        told.only_core += sum(core and not fast for fast, core, _ in answers)
        assert all(core == other for _, core, other in answers), (some, answers)
        if covered.reached() - seen:
            for line in some:
                covered.forget()
                decoders[number][2]([line], 7)
                if new := covered.reached() - seen:
                    seen |= new
                    told.found.append(line)
                    lines.append(line)
    told.seconds, told.reached = spent, len(seen)
    return told


def culprit(some: Sequence[bytes], number: int, decoders: list[list[Fast]]) -> object:
    """The first line of which they disagree alone, or all."""
    for line in some:
        try:
            agree([line], number, decoders)
        except AssertionError:
            return line
    return some


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    asked = parser.parse_args()
    print("seed", asked.seed)
    with tempfile.TemporaryDirectory() as made:
        told = fuzz(60 * asked.minutes, asked.seed, Path(made))
    print(told, *told.found, sep="\n")
