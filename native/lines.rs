//! Which Kissmetrics lines are beyond doubt, and their rows: `ingest.core.formats.kissmetrics_fast`, in another language.
//!
//! It may only accept what the judge accepts as one command without a warning, and gives the same row. Whatever it is
//! not sure of is doubtful: the judge decides that.

use crate::json::{quote, skip_white, string_end, unescape, value, Value};
use crate::names::{Doubt, Names};

const MOST_BYTES: usize = 8192; // of a value
const MOST_NAME: usize = 255; // bytes of a property's name: characters are never more
const TRANSPORT: [&[u8]; 7] = [b"_k", b"_d", b"_c", b"_u", b"_ip", b"_ua", b"_server_timestamp"];
const PROPERTIES: usize = 6; // among the columns of texts
const RECORD: i8 = 0;
const SET: i8 = 1;
const ALIAS: i8 = 2;

pub struct Rules {
    pub names: Names,
    pub people_space: Vec<u8>, // as JSON
    pub time_from: i64,
    pub time_until: i64,
}

/// A column of texts in Arrow's layout. `valid` has a bit a row.
#[derive(Default)]
pub struct Texts {
    pub ends: Vec<i32>, // of the rows, behind a 0
    pub text: Vec<u8>,
    pub valid: Vec<u8>,
    pub nulls: usize,
}

impl Texts {
    fn new() -> Texts {
        Texts { ends: vec![0], ..Texts::default() }
    }

    fn push(&mut self, text: Option<&[u8]>) {
        let row = self.ends.len() - 1;
        if row % 8 == 0 {
            self.valid.push(0);
        }
        match text {
            Some(text) => {
                self.text.extend_from_slice(text);
                self.valid[row / 8] |= 1 << (row % 8);
            }
            None => self.nulls += 1,
        }
        self.ends.push(self.text.len() as i32);
    }
}

#[derive(Default)]
pub struct Rows {
    pub lines: Vec<i64>,
    pub kinds: Vec<i8>,
    pub times: Vec<i64>,
    pub texts: Vec<Texts>, // person, person_key, event, event_key, alias, alias_key, properties
    pub ids: Vec<u8>,
    pub doubtful: Vec<[i64; 3]>, // place among the lines, offset, length without its \n
    pub unknown: Vec<u32>,       // pages that were missed: with them more lines may be beyond doubt
    pub many: i64,               // lines, doubtful ones among them
    pub counted: [i64; 3],       // rows by kind
}

/// What is used for one line after the other.
#[derive(Default)]
struct Desk {
    members: Vec<(usize, usize, Value)>, // begin and end of the name
    person: Vec<u8>,
    person_key: Vec<u8>,
    event: Vec<u8>,
    event_key: Vec<u8>,
    alias: Vec<u8>,
    alias_key: Vec<u8>,
    properties: Vec<u8>,
    scratch: Vec<u8>,
    facts: Vec<u8>, // what the ids are the digests of
    ends: Vec<usize>,
}

/// Judge whole lines, the last of which may lack its `\n`.
pub fn judge(text: &[u8], first_line: i64, rules: &Rules) -> Rows {
    let mut rows = Rows { texts: (0..7).map(|_| Texts::new()).collect(), ..Rows::default() };
    let mut desk = Desk::default();
    rows.texts[PROPERTIES].text.reserve(text.len());
    desk.facts.reserve(2 * text.len());
    let all_valid = std::str::from_utf8(text).is_ok();
    let (mut begin, mut place) = (0, 0);
    while begin < text.len() {
        let end = newline(text, begin);
        let line = &text[begin..end];
        let judged = if all_valid || std::str::from_utf8(line).is_ok() {
            one(line, rules, &mut desk)
        } else {
            Err(Doubt::Unsure)
        };
        match judged {
            Ok((kind, at)) => {
                rows.lines.push(first_line + place);
                rows.kinds.push(kind);
                rows.counted[kind as usize] += 1;
                rows.times.push(at * 1_000_000);
                let (event, alias) = (kind == RECORD, kind == ALIAS);
                let columns = [
                    Some(desk.person.as_slice()),
                    told(&desk.person_key, desk.person_key != desk.person),
                    told(&desk.event, event),
                    told(&desk.event_key, event && desk.event_key != desk.event),
                    told(&desk.alias, alias),
                    told(&desk.alias_key, alias && desk.alias_key != desk.alias),
                    Some(&desk.properties),
                ];
                for (column, text) in rows.texts.iter_mut().zip(columns) {
                    column.push(text);
                }
            }
            Err(doubt) => {
                rows.doubtful.push([place, begin as i64, (end - begin) as i64]);
                if let Doubt::Unknown(page) = doubt {
                    if !rows.unknown.contains(&page) {
                        rows.unknown.push(page);
                    }
                }
            }
        }
        begin = end + 1;
        place += 1;
    }
    rows.many = place;
    rows.ids = crate::blake2b::digests(&desk.facts, &desk.ends);
    rows
}

fn told(text: &[u8], is_there: bool) -> Option<&[u8]> {
    is_there.then_some(text)
}

fn newline(text: &[u8], begin: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut at = begin;
    while let Some(eight) = text.get(at..at + 8) {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(eight);
        let word = u64::from_le_bytes(bytes) ^ ONES * b'\n' as u64;
        let found = word.wrapping_sub(ONES) & !word & (ONES << 7);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    text[at..].iter().position(|&byte| byte == b'\n').map_or(text.len(), |more| at + more)
}

/// The kind and the second of a line beyond doubt; the rest of its row is left on the desk.
fn one(line: &[u8], rules: &Rules, desk: &mut Desk) -> Result<(i8, i64), Doubt> {
    let (mut person, mut time, mut event, mut alias) = (None, None, None, None);
    members(line, desk, |name, value| {
        let slot = match name {
            b"_p" => &mut person,
            b"_t" => &mut time,
            b"_n" => &mut event,
            b"_p2" => &mut alias,
            _ => return Some(false),
        };
        slot.replace(value).is_none().then_some(true)
    })
    .ok_or(Doubt::Unsure)?;
    let at = seconds(line, time).filter(|at| (rules.time_from..=rules.time_until).contains(at)).ok_or(Doubt::Unsure)?;
    let is_there = |value: Option<Value>| !matches!(value, None | Some(Value::Null));
    let kind = if is_there(event) { RECORD } else if is_there(alias) { ALIAS } else { SET };
    // An alias comes alone, or it is two commands.
    if kind != SET && is_there(alias) && (kind == RECORD || !desk.members.is_empty()) {
        return Err(Doubt::Unsure);
    }
    let Desk { members, person: person_text, person_key, event: event_text, event_key, alias: alias_text, alias_key, .. } = desk;
    let scratch = &mut desk.scratch;
    name(line, person, true, person_text)?;
    rules.names.fold(person_text, true, person_key, scratch)?;
    if kind == RECORD {
        name(line, event, false, event_text)?;
        rules.names.fold(event_text, false, event_key, scratch)?;
    }
    if kind == ALIAS {
        name(line, alias, true, alias_text)?;
        rules.names.fold(alias_text, true, alias_key, scratch)?;
    }
    members.sort_unstable_by(|one, other| line[one.0..one.1].cmp(&line[other.0..other.1]));
    if members.windows(2).any(|two| line[two[0].0..two[0].1] == line[two[1].0..two[1].1]) {
        return Err(Doubt::Unsure);
    }
    let is_transport = |&(begin, end, _): &(usize, usize, Value)| line[begin] == b'_' && TRANSPORT.contains(&&line[begin..end]);
    desk.properties.clear();
    object(line, members.iter(), &mut desk.properties, scratch).ok_or(Doubt::Unsure)?;

    let begun = desk.facts.len();
    let facts = &mut desk.facts;
    facts.extend_from_slice(match kind {
        RECORD => b"[\"record\",",
        SET => b"[\"set\",",
        _ => b"[\"alias\",",
    });
    facts.extend_from_slice(&rules.people_space);
    facts.push(b',');
    let (mut first, mut second) = (&*person_key, &*alias_key);
    if kind == ALIAS && second < first {
        std::mem::swap(&mut first, &mut second); // an alias has no direction
    }
    quote(first, facts);
    facts.push(b',');
    facts.extend_from_slice(at.to_string().as_bytes());
    facts.extend_from_slice(b"000000,");
    if kind == RECORD {
        quote(event_key, facts);
    } else {
        facts.extend_from_slice(b"null");
    }
    facts.push(b',');
    if kind == ALIAS {
        quote(second, facts);
    } else {
        facts.extend_from_slice(b"null");
    }
    facts.push(b',');
    let said = facts.len();
    if members.iter().any(|member| member.0 < member.1 && is_transport(member)) {
        let others = members.iter().filter(|member| !(member.0 < member.1 && is_transport(member)));
        object(line, others, facts, scratch).ok_or(Doubt::Unsure)?;
    } else {
        facts.extend_from_slice(&desk.properties);
    }
    if kind == SET && facts[said..] == *b"{}" {
        facts.truncate(begun); // a set without properties is none
        return Err(Doubt::Unsure);
    }
    facts.push(b']');
    desk.ends.push(desk.facts.len());
    Ok((kind, at))
}

/// Go through the members of a line that is one flat object; those that `take` does not take (None: refuses) are left on
/// the desk as properties.
fn members(line: &[u8], desk: &mut Desk, mut take: impl FnMut(&[u8], Value) -> Option<bool>) -> Option<()> {
    desk.members.clear();
    let mut at = skip_white(line, 0);
    if line.get(at) != Some(&b'{') {
        return None;
    }
    at = skip_white(line, at + 1);
    loop {
        if line.get(at) != Some(&b'"') {
            return None;
        }
        let begin = at + 1;
        let (end, escaped) = string_end(line, begin)?;
        at = skip_white(line, end + 1);
        if escaped || end - begin > MOST_NAME || line.get(at) != Some(&b':') {
            return None;
        }
        let (found, next) = value(line, skip_white(line, at + 1))?;
        if !take(&line[begin..end], found)? {
            if matches!(found, Value::Text { begin, end, .. } if end - begin > MOST_BYTES) {
                return None;
            }
            desk.members.push((begin, end, found));
        }
        at = skip_white(line, next);
        match line.get(at) {
            Some(b',') => at = skip_white(line, at + 1),
            Some(b'}') => break,
            _ => return None,
        }
    }
    (skip_white(line, at + 1) == line.len()).then_some(())
}

fn seconds(line: &[u8], time: Option<Value>) -> Option<i64> {
    match time? {
        Value::Integer { begin, end } => std::str::from_utf8(&line[begin..end]).ok()?.parse().ok(),
        _ => None,
    }
}

/// Put the text of a name into `into`; an integer stands for its digits, where it may.
fn name(line: &[u8], value: Option<Value>, integers: bool, into: &mut Vec<u8>) -> Result<(), Doubt> {
    match value {
        Some(Value::Text { begin, end, escaped: true }) => unescape(&line[begin..end], into).ok_or(Doubt::Unsure),
        Some(Value::Text { begin, end, .. }) => {
            into.clear();
            into.extend_from_slice(&line[begin..end]);
            Ok(())
        }
        Some(Value::Integer { begin, end }) if integers => {
            into.clear();
            into.extend_from_slice(&line[begin..end]);
            Ok(())
        }
        _ => Err(Doubt::Unsure),
    }
}

/// Properties, sorted by their names, as canonical JSON.
fn object<'a>(
    line: &[u8],
    members: impl Iterator<Item = &'a (usize, usize, Value)>,
    into: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
) -> Option<()> {
    into.push(b'{');
    for (number, &(begin, end, value)) in members.enumerate() {
        if number > 0 {
            into.push(b',');
        }
        into.push(b'"');
        into.extend_from_slice(&line[begin..end]);
        into.extend_from_slice(b"\":");
        match value {
            Value::Text { begin, end, escaped: false } => into.extend_from_slice(&line[begin - 1..end + 1]),
            Value::Text { begin, end, escaped: true } => {
                unescape(&line[begin..end], scratch)?;
                quote(scratch, into);
            }
            Value::Integer { begin, end } | Value::Fraction { begin, end } => into.extend_from_slice(&line[begin..end]),
            Value::True => into.extend_from_slice(b"true"),
            Value::False => into.extend_from_slice(b"false"),
            Value::Null => return None,
        }
    }
    into.push(b'}');
    Some(())
}
