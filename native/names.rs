//! The keys under which names match: what `ingest.core.matching` decides, by the same tables.

use std::collections::HashSet;

/// How Python's `lower` and `strip` take the 256 characters of a page: the character that each becomes, or a number
/// that is of none, where it becomes several or what its neighbours say.
pub type Page = [u32; 256];
pub const SPACE: u32 = 1 << 31; // is stripped

pub enum Doubt {
    Unsure,
    Unknown(u32), // the page is not there yet
}

pub struct Names {
    pub exact: bool, // names are compared as they are, but for the space around them
    pub ignored: HashSet<Vec<u8>>,
    pub pages: Vec<Option<Box<Page>>>,
}

const MOST_CHARACTERS: usize = 255;

impl Names {
    /// Put the key of a name (UTF-8 without NUL) into `key`, using `scratch`. `ignores`: it may stand for nobody.
    pub fn fold(&self, name: &[u8], ignores: bool, key: &mut Vec<u8>, scratch: &mut Vec<u8>) -> Result<(), Doubt> {
        if name.is_ascii() {
            if name.len() > MOST_CHARACTERS {
                return Err(Doubt::Unsure);
            }
            scratch.clear();
            scratch.extend(stripped(name).iter().map(u8::to_ascii_lowercase));
            if scratch.is_empty() || (ignores && self.ignored.contains(scratch.as_slice())) {
                return Err(Doubt::Unsure);
            }
            key.clear();
            if self.exact {
                key.extend_from_slice(stripped(name));
            } else if scratch.iter().any(|&byte| is_spaced(byte)) {
                scratch.iter_mut().filter(|byte| is_spaced(**byte)).for_each(|byte| *byte = b' ');
                key.extend_from_slice(stripped(scratch));
            } else {
                key.extend_from_slice(scratch);
            }
            return Ok(());
        }
        let text = std::str::from_utf8(name).map_err(|_| Doubt::Unsure)?;
        if name.len() > MOST_CHARACTERS && text.chars().count() > MOST_CHARACTERS {
            return Err(Doubt::Unsure);
        }
        self.lower(text, false, scratch)?;
        if scratch.is_empty() || (ignores && self.ignored.contains(scratch.as_slice())) {
            return Err(Doubt::Unsure);
        }
        key.clear();
        if self.exact {
            let (begin, end) = self.strip(text, false)?;
            key.extend_from_slice(text[begin..end].as_bytes());
            Ok(())
        } else {
            self.lower(text, true, key)
        }
    }

    fn seen(&self, character: char, spaced: bool) -> Result<u32, Doubt> {
        if spaced && (character == ',' || character == ':') {
            return Ok(SPACE | ' ' as u32);
        }
        let number = character as u32;
        match self.pages.get(number as usize >> 8) {
            Some(Some(page)) => Ok(page[number as usize & 255]),
            _ => Err(Doubt::Unknown(number >> 8)),
        }
    }

    /// Where what is left begins and ends once the space around it is gone.
    fn strip(&self, text: &str, spaced: bool) -> Result<(usize, usize), Doubt> {
        let (mut begin, mut end) = (text.len(), 0);
        for (at, character) in text.char_indices() {
            if self.seen(character, spaced)? & SPACE == 0 {
                begin = begin.min(at);
                end = at + character.len_utf8();
            }
        }
        Ok((begin.min(end), end))
    }

    fn lower(&self, text: &str, spaced: bool, into: &mut Vec<u8>) -> Result<(), Doubt> {
        into.clear();
        let (begin, end) = self.strip(text, spaced)?;
        for character in text[begin..end].chars() {
            let seen = self.seen(character, spaced)?;
            let lowered = char::from_u32(seen & !SPACE);
            let mut bytes = [0; 4];
            into.extend_from_slice(lowered.ok_or(Doubt::Unsure)?.encode_utf8(&mut bytes).as_bytes());
        }
        Ok(())
    }
}

fn is_spaced(byte: u8) -> bool {
    byte == b',' || byte == b':'
}

fn is_space(byte: &u8) -> bool {
    matches!(byte, 9..=13 | 28..=32) // what Python strips
}

fn stripped(name: &[u8]) -> &[u8] {
    let begin = name.iter().position(|byte| !is_space(byte)).unwrap_or(name.len());
    let end = name.iter().rposition(|byte| !is_space(byte)).map_or(begin, |last| last + 1);
    &name[begin..end]
}
