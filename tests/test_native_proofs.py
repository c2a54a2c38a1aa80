"""The proofs of the native core, proven: what is taken from it is noticed, and fuzzing reaches what it accepts."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from zlib import crc32

import pytest

from ingest.core.native import library
from tests.core.agreement import FAST, RULES, agree, native
from tests.core.odd import corpus, odd
from tests.fuzz_native import SOURCES, build, fuzz

pytestmark = pytest.mark.slow
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload([__name__])

# File, what stands there once, and what takes its place.
CHANGES = [
    # lines.rs
    ("lines", "MOST_BYTES: usize = 8192", "MOST_BYTES: usize = 8193"),
    ("lines", "MOST_BYTES: usize = 8192", "MOST_BYTES: usize = 8191"),
    ("lines", "MOST_NAME: usize = 255", "MOST_NAME: usize = 256"),
    ("lines", "MOST_NAME: usize = 255", "MOST_NAME: usize = 254"),
    *(("lines", f'b"{name}"', 'b"_?"') for name in ("_k", "_d", "_c", "_u", "_ip", "_ua", "_server_timestamp")),
    *(("lines", f'b"{name}" =>', 'b"_?" =>') for name in ("_p", "_t", "_n", "_p2")),
    ("lines", "row % 8 == 0", "row % 16 == 0"),
    ("lines", "1 << (row % 8)", "1"),
    ("lines", "None => self.nulls += 1", "None => {}"),
    ("lines", "all_valid || std::str::from_utf8(line).is_ok()", "true"),
    ("lines", "first_line + place", "first_line"),
    ("lines", "rows.counted[kind as usize] += 1", "rows.counted[0] += 1"),
    ("lines", "at * 1_000_000", "at * 1_000"),
    ("lines", "told(&desk.person_key, desk.person_key != desk.person)", "told(&desk.person_key, true)"),
    ("lines", "event && desk.event_key != desk.event", "event"),
    ("lines", "alias && desk.alias_key != desk.alias", "alias"),
    ("lines", "event && desk.event_key", "desk.event_key"),
    ("lines", "alias && desk.alias_key", "desk.alias_key"),
    ("lines", "told(&desk.event, event)", "told(&desk.event, true)"),
    ("lines", "told(&desk.alias, alias)", "told(&desk.alias, true)"),
    ("lines", "begin as i64, (end - begin)", "begin as i64, (end - begin + 1)"),
    ("lines", "at + found.trailing_zeros() as usize / 8", "at + 7"),
    ("lines", "ONES * b'\\n' as u64", "ONES * b'\\r' as u64"),
    ("lines", "slot.replace(value).is_none().then_some(true)", "{ slot.replace(value); Some(true) }"),
    ("lines", "rules.time_from..=rules.time_until", "i64::MIN..=rules.time_until"),
    ("lines", "rules.time_from..=rules.time_until", "rules.time_from + 1..=rules.time_until"),
    ("lines", "rules.time_from..=rules.time_until", "rules.time_from..=rules.time_until + 1"),
    ("lines", "rules.time_from..=rules.time_until", "rules.time_from..rules.time_until"),
    ("lines", "!matches!(value, None | Some(Value::Null))", "value.is_some()"),
    ("lines", "kind != SET && is_there(alias) && (kind", "kind == ALIAS && (kind"),
    ("lines", "(kind == RECORD || !desk.members.is_empty())", "kind == RECORD"),
    ("lines", "name(line, person, true, person_text)", "name(line, person, false, person_text)"),
    ("lines", "name(line, event, false, event_text)", "name(line, event, true, event_text)"),
    ("lines", "name(line, alias, true, alias_text)", "name(line, alias, false, alias_text)"),
    ("lines", "fold(person_text, true,", "fold(person_text, false,"),
    ("lines", "fold(event_text, false,", "fold(event_text, true,"),
    ("lines", "fold(alias_text, true,", "fold(alias_text, false,"),
    ("lines", "line[one.0..one.1].cmp(&line[other.0..other.1])", "one.0.cmp(&other.0)"),
    ("lines", "line[two[0].0..two[0].1] == line[two[1].0..two[1].1]", "false"),
    ("lines", "kind == ALIAS && second < first", "false"),
    ("lines", "kind == ALIAS && second < first", "kind == ALIAS && second > first"),
    ("lines", "at.to_string()", "(at + 1).to_string()"),
    ("lines", "quote(event_key, facts)", "quote(event_text, facts)"),
    ("lines", "facts.extend_from_slice(&rules.people_space)", 'facts.extend_from_slice(b"\\"kissmetrics\\"")'),
    ("lines", "if members.iter().any(|member| member.0 < member.1 && is_transport(member))", "if false"),
    ("lines", "kind == SET && facts[said..] == *b\"{}\"", "false"),
    ("lines", "kind == SET && facts[said..]", "facts[said..]"),
    ("lines", "facts.truncate(begun); // a set", "// a set"),
    ("lines", "line.get(at) != Some(&b'{')", "false"),
    ("lines", "        if line.get(at) != Some(&b'\"') {", "        if false {"),
    ("lines", "if escaped || end - begin", "if end - begin"),
    ("lines", "|| line.get(at) != Some(&b':')", ""),
    ("lines", "Some(b'}') => break", "Some(b'}' | b']') => break"),
    ("lines", "Some(b',') => at", "Some(b',' | b';') => at"),
    ("lines", "(skip_white(line, at + 1) == line.len()).then_some(())", "Some(())"),
    ("lines", "_ => None,\n    }\n}\n\n/// Put the text",
     "Value::Null => Some(1393344604),\n        _ => None,\n    }\n}\n\n/// Put the text"),
    ("lines", "Value::Integer { begin, end } => std::str",
     "Value::Integer { begin, end } | Value::Text { begin, end, .. } => std::str"),
    ("lines", "if number > 0 {", "if true {"),
    ("lines", "quote(scratch, into)", "into.extend_from_slice(&line[begin - 1..end + 1])"),
    # json.rs
    ("json", "MOST_FRACTION: usize = 20", "MOST_FRACTION: usize = 21"),
    ("json", "MOST_FRACTION: usize = 20", "MOST_FRACTION: usize = 19"),
    ("json", "Some(b' ' | b'\\t' |", "Some(b'\\t' |"),
    ("json", "b' ' | b'\\t' |", "b' ' |"),
    ("json", "b'\\t' | b'\\r' |", "b'\\t' |"),
    ("json", "b'\\t' | b'\\r' |", "b'\\t' | b'\\r' | b'\\x0c' |"),
    ("json", "(quote.wrapping_sub(ONES) & !quote)", "0"),
    ("json", "(slash.wrapping_sub(ONES) & !slash)", "0"),
    ("json", "ONES * 0x20", "ONES * 0x1f"),
    ("json", "byte if byte < 0x20 => return None", "byte if byte < 0x1f => return None"),
    ("json", "byte if byte < 0x20 => return None", "byte if byte <= 0x20 => return None"),
    ("json", "escaped = true", "escaped = false"),
    ("json", "at += 2;\n", "at += 1;\n"),
    ("json", 'starts_with(b"true")', 'starts_with(b"tru")'),
    ("json", 'starts_with(b"false")', 'starts_with(b"fals")'),
    ("json", 'starts_with(b"null")', 'starts_with(b"nul")'),
    ("json", "many == 0 || ", ""),
    ("json", "(many > 1 && text[first] == b'0')", "false"),
    ("json", "behind == 0 || ", ""),
    ("json", "many <= 18 ||", "many <= 19 ||"),
    ("json", "many <= 18 ||", "many <= 20 ||"),
    ("json", "|| digits.parse::<i64>().is_ok()", ""),
    ("json", "|| digits.parse::<u64>().is_ok()", ""),
    ("json", 'if text.get(at..at + 2) != Some(b"\\\\u")', "if false"),
    ("json", "(0xDC00..0xE000).contains(low)", "true"),
    ("json", "(0xDC00..0xE000).contains(low)", "(0xDC00..0xE001).contains(low)"),
    ("json", "(0xD800..0xDC00).contains(&code)", "(0xD800..0xDBFF).contains(&code)"),
    ("json", "(code - 0xD800) << 10", "(code - 0xD800) << 9"),
    ("json", "character != '\\0'", "true"),
    ("json", "_ => return None,\n        };\n        into.push(plain)",
     "_ => escape,\n        };\n        into.push(plain)"),
    ("json", "to_digit(16)", "to_digit(17)"),
    *(("json", f"b'{letter}' => {code}", f"b'{letter}' => b'?'")
     for letter, code in (("b", "8"), ("f", "12"), ("n", "b'\\n'"), ("r", "b'\\r'"), ("t", "b'\\t'"))),
    ("json", "byte >= 0x20 && byte != b'\"'", "byte != b'\"'"),
    ("json", "byte >= 0x20 && byte != b'\"'", "byte >= 0x20"),
    ("json", "byte != b'\"' && byte != b'\\\\'", "byte != b'\"'"),
    *(("json", f'        {code} => into', "        99 => into") for code in (8, 9, 10, 12, 13)),
    ("json", "HEX[byte as usize >> 4]", "b'0'"),
    ("json", "abcdef", "ABCDEF"),
    ("json", "first > begin && text[first] == b'0'", "false"),
    # names.rs
    ("names", "MOST_CHARACTERS: usize = 255", "MOST_CHARACTERS: usize = 256"),
    ("names", "MOST_CHARACTERS: usize = 255", "MOST_CHARACTERS: usize = 254"),
    ("names", "if name.len() > MOST_CHARACTERS {", "if false {"),
    ("names", "name.len() > MOST_CHARACTERS && text", "false && text"),
    ("names", "name.len() > MOST_CHARACTERS && text.chars().count() > MOST_CHARACTERS", "name.len() > MOST_CHARACTERS"),
    ("names", "map(u8::to_ascii_lowercase)", "copied()"),
    ("names", "key.extend_from_slice(stripped(name))", "key.extend_from_slice(name)"),
    ("names", "key.extend_from_slice(stripped(scratch))", "key.extend_from_slice(scratch)"),
    ("names", "if scratch.iter().any(|&byte| is_spaced(byte))", "if false"),
    ("names", "spaced && (character == ',' || character == ':')", "spaced && character == ':'"),
    ("names", "spaced && (character == ',' || character == ':')", "spaced && character == ','"),
    ("names", "spaced && (character == ',' || character == ':')", "(character == ',' || character == ':')"),
    ("names", "number as usize & 255", "number as usize & 127"),
    ("names", "self.seen(character, spaced)? & SPACE == 0", "true"),
    ("names", "end = at + character.len_utf8()", "end = at + 1"),
    ("names", "char::from_u32(seen & !SPACE)", "Some(character)"),
    ("names", "self.lower(text, true, key)", "self.lower(text, false, key)"),
    ("names", "self.lower(text, false, scratch)", "self.lower(text, true, scratch)"),
    ("names", "byte == b',' || byte == b':'", "byte == b','"),
    ("names", "byte == b',' || byte == b':'", "byte == b':'"),
    ("names", "9..=13 | 28..=32", "9..=13 | 32"),
    ("names", "9..=13 | 28..=32", "9..=14 | 28..=32"),
    ("names", "9..=13 | 28..=32", "10..=13 | 28..=32"),
    ("names", "9..=13 | 28..=32", "9..=13 | 27..=32"),
    ("names", "9..=13 | 28..=32", "9..=12 | 28..=32"),
    # lib.rs
    ("lib", "names.ignored.insert(rest[..size].to_vec())", "let _ = rest"),
    ("lib", "taken.copy_from_slice(from_raw_parts(page, 256))",
     "taken[..128].copy_from_slice(from_raw_parts(page, 128))"),
    # blake2b.rs
    ("blake2b", "LANES: usize = 4", "LANES: usize = 8"),
    ("blake2b", "0x0101_0000 ^ DIGEST as u64", "0x0101_0000"),
    ("blake2b", "one.end.min(one.at + BLOCK)", "one.end.min(one.at + BLOCK - 1)"),
    ("blake2b", "(until - one.begin) as u64", "until as u64"),
    ("blake2b", "if until == one.end { !0 }", "if until + BLOCK > one.end { !0 }"),
    ("blake2b", "mix!(3, 4, 9, 14,", "mix!(3, 4, 9, 15,"),
    ("blake2b", "let s = &SIGMA[round % 10];\n        mix!", "let s = &SIGMA[round % 9];\n        mix!"),
]  # fmt: skip


def judge_corpus(built: Path) -> None:
    """Ends well if this core says of every line what it must."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # a panic's words
    both = [[real, native(rules, library(built))] for (_, real), rules in zip(FAST, RULES, strict=True)]
    lines, sure = zip(*odd(), strict=True)
    assert [core for _, core in agree(list(lines), 0, both)] == list(sure)
    for number in range(len(RULES)):
        assert all(real == core for real, core in agree(corpus(), number, both))


def passes(change: tuple[str, str, str], folder: Path) -> bool:
    """Whether the core with this change passes for the real one."""
    name, old, new = change
    shutil.copytree(SOURCES, folder)
    source = folder / f"{name}.rs"
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace(old, new), encoding="utf-8")
    assert build(folder, folder / "core.so"), f"this does not build: {change}"
    # In a process of its own, which may break or never end.
    child = FORKS.Process(target=judge_corpus, args=[folder / "core.so"])
    child.start()
    child.join(30)
    child.kill()
    child.join()
    return child.exitcode == 0


def test_each_check_stands_once() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in SOURCES.glob("*.rs")}
    assert [(name, old) for name, old, _ in CHANGES if texts[name].count(old) != 1] == []


def test_each_check_is_missed(tmp_path: Path) -> None:
    assert passes(("lines", "\0", ""), tmp_path / "unchanged")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        passed = list(pool.map(passes, CHANGES, (tmp_path / str(number) for number in range(len(CHANGES)))))
    assert [change for change, unnoticed in zip(CHANGES, passed, strict=True) if unnoticed] == []


def test_fuzzing_for_a_while(tmp_path: Path) -> None:
    # The same lines each time, until the core is another: chance is for hours of it by hand.
    told = fuzz(60, crc32(b"".join(path.read_bytes() for path in sorted(SOURCES.glob("*.rs")))), tmp_path)
    print(told)
    # A fuzzer most of whose lines nobody accepts proves nothing.
    assert told.sure > told.lines / 10
    assert told.lines > 100_000
