//! JSON as far as lines beyond doubt have it: where strings and numbers end, and how texts are spelled canonically.

/// A value of a property, by where it stands in its line.
#[derive(Clone, Copy)]
pub enum Value {
    Text { begin: usize, end: usize, escaped: bool }, // without the quotes
    Integer { begin: usize, end: usize },
    Fraction { begin: usize, end: usize },
    True,
    False,
    Null,
}

const MOST_FRACTION: usize = 20; // characters: surely in range

pub fn skip_white(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Where the string that begins behind a quote ends, and whether it holds a backslash. None: it does not, or holds a
/// raw control character.
pub fn string_end(text: &[u8], mut at: usize) -> Option<(usize, bool)> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let mut escaped = false;
    loop {
        while let Some(eight) = text.get(at..at + 8) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(eight);
            let word = u64::from_le_bytes(bytes);
            let (quote, slash) = (word ^ ONES * b'"' as u64, word ^ ONES * b'\\' as u64);
            let found = (quote.wrapping_sub(ONES) & !quote)
                | (slash.wrapping_sub(ONES) & !slash)
                | (word.wrapping_sub(ONES * 0x20) & !word);
            // What stands behind the first find may be none; the first is one.
            if found & HIGHS != 0 {
                at += (found & HIGHS).trailing_zeros() as usize / 8;
                break;
            }
            at += 8;
        }
        match *text.get(at)? {
            b'"' => return Some((at, escaped)),
            b'\\' => {
                escaped = true;
                at += 2;
            }
            byte if byte < 0x20 => return None,
            _ => at += 1,
        }
    }
}

/// A value that is none of an object or array, and where it ends.
pub fn value(text: &[u8], at: usize) -> Option<(Value, usize)> {
    match *text.get(at)? {
        b'"' => {
            let (end, escaped) = string_end(text, at + 1)?;
            Some((Value::Text { begin: at + 1, end, escaped }, end + 1))
        }
        b't' if text[at..].starts_with(b"true") => Some((Value::True, at + 4)),
        b'f' if text[at..].starts_with(b"false") => Some((Value::False, at + 5)),
        b'n' if text[at..].starts_with(b"null") => Some((Value::Null, at + 4)),
        b'-' | b'0'..=b'9' => number(text, at),
        _ => None,
    }
}

fn number(text: &[u8], begin: usize) -> Option<(Value, usize)> {
    let digits = |mut at: usize| {
        let from = at;
        while matches!(text.get(at), Some(b'0'..=b'9')) {
            at += 1;
        }
        (at, at - from)
    };
    let first = begin + (text[begin] == b'-') as usize;
    let (end, many) = digits(first);
    if many == 0 || (many > 1 && text[first] == b'0') {
        return None;
    }
    if text.get(end) == Some(&b'.') {
        let (last, behind) = digits(end + 1);
        if behind == 0 || last - begin > MOST_FRACTION {
            return None;
        }
        return Some((Value::Fraction { begin, end: last }, last));
    }
    // -0 is 0 to some and -0 to others.
    if first > begin && text[first] == b'0' {
        return None;
    }
    let digits = std::str::from_utf8(&text[begin..end]).ok()?;
    let is_64_bits = many <= 18 || digits.parse::<i64>().is_ok() || digits.parse::<u64>().is_ok();
    is_64_bits.then_some((Value::Integer { begin, end }, end))
}

/// What a string with escapes says. None: an escape that there is not, half a surrogate pair, or U+0000.
pub fn unescape(text: &[u8], into: &mut Vec<u8>) -> Option<()> {
    into.clear();
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        at += 1;
        if byte != b'\\' {
            into.push(byte);
            continue;
        }
        let escape = *text.get(at)?;
        at += 1;
        let plain = match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = hex4(text, at)?;
                at += 4;
                if (0xD800..0xDC00).contains(&code) {
                    if text.get(at..at + 2) != Some(b"\\u") {
                        return None;
                    }
                    let low = hex4(text, at + 2).filter(|low| (0xDC00..0xE000).contains(low))?;
                    at += 6;
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                }
                let character = char::from_u32(code).filter(|&character| character != '\0')?;
                let mut bytes = [0; 4];
                into.extend_from_slice(character.encode_utf8(&mut bytes).as_bytes());
                continue;
            }
            _ => return None,
        };
        into.push(plain);
    }
    Some(())
}

fn hex4(text: &[u8], at: usize) -> Option<u32> {
    text.get(at..at + 4)?.iter().try_fold(0, |sum, &byte| Some(sum << 4 | (byte as char).to_digit(16)?))
}

/// A text as JSON, as orjson spells it.
pub fn quote(text: &[u8], into: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    into.push(b'"');
    let mut from = 0;
    for (at, &byte) in text.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        into.extend_from_slice(&text[from..at]);
        from = at + 1;
        match byte {
            b'"' | b'\\' => into.extend_from_slice(&[b'\\', byte]),
            8 => into.extend_from_slice(b"\\b"),
            9 => into.extend_from_slice(b"\\t"),
            10 => into.extend_from_slice(b"\\n"),
            12 => into.extend_from_slice(b"\\f"),
            13 => into.extend_from_slice(b"\\r"),
            _ => into.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[byte as usize >> 4], HEX[byte as usize & 15]]),
        }
    }
    into.extend_from_slice(&text[from..]);
    into.push(b'"');
}
