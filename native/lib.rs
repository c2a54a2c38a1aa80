//! The core's boundary to C: who calls it gives a block of whole lines, and gets columns in Arrow's layout.
//!
//! Only here, and where a processor's feature is asked for, is anything `unsafe`: the addresses are the caller's word.
//! A panic goes no further than here: then the caller judges the block itself.

mod blake2b;
mod json;
mod lines;
mod names;

use lines::{judge, Rows, Rules, Texts};
use names::{Names, Page};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::slice::from_raw_parts;

/// Addresses of what `landfall_judge` gave. See `ingest/core/native.py`, which has the same fields.
#[repr(C)]
pub struct View {
    rows: usize,
    many: i64,
    counted: [i64; 3],
    lines: *const i64,
    kinds: *const i8,
    times: *const i64,
    ids: *const u8,
    doubtful: *const [i64; 3],
    doubtfuls: usize,
    unknown: *const u32,
    unknowns: usize,
    texts: [Column; 7],
}

#[repr(C)]
pub struct Column {
    ends: *const i32,
    text: *const u8,
    valid: *const u8,
    text_bytes: usize,
    nulls: usize,
}

impl From<&Texts> for Column {
    fn from(texts: &Texts) -> Column {
        Column {
            ends: texts.ends.as_ptr(),
            text: texts.text.as_ptr(),
            valid: texts.valid.as_ptr(),
            text_bytes: texts.text.len(),
            nulls: texts.nulls,
        }
    }
}

/// # Safety
/// `people_space` (JSON) and `ignored` (names, each behind its length as 4 bytes) are readable for their lengths.
#[no_mangle]
pub unsafe extern "C" fn landfall_rules(
    exact: bool, time_from: i64, time_until: i64, people_space: *const u8, people_space_bytes: usize, ignored: *const u8,
    ignored_bytes: usize,
) -> *mut Rules {
    let mut left = from_raw_parts(ignored, ignored_bytes);
    let mut names = Names { exact, ignored: Default::default(), pages: (0..0x1100).map(|_| None).collect() };
    while left.len() >= 4 {
        let (size, rest) = left.split_at(4);
        let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
        names.ignored.insert(rest[..size].to_vec());
        left = &rest[size..];
    }
    let people_space = from_raw_parts(people_space, people_space_bytes).to_vec();
    Box::into_raw(Box::new(Rules { names, people_space, time_from, time_until }))
}

/// # Safety
/// `rules` is of `landfall_rules`; nobody uses it at this moment. `page` has 256 numbers.
#[no_mangle]
pub unsafe extern "C" fn landfall_page(rules: *mut Rules, number: u32, page: *const u32) {
    let mut taken: Page = [0; 256];
    taken.copy_from_slice(from_raw_parts(page, 256));
    let rules = &mut *rules;
    if let Some(slot) = rules.names.pages.get_mut(number as usize) {
        *slot = Some(Box::new(taken));
    }
}

/// # Safety
/// `rules` is of `landfall_rules`; `text` is readable for `bytes`, fewer than 2^31; `view` can be written. What it then
/// tells of is there until `landfall_free` is called with what is returned: null, if the program went wrong.
#[no_mangle]
pub unsafe extern "C" fn landfall_judge(
    rules: *const Rules, text: *const u8, bytes: usize, first_line: i64, view: *mut View,
) -> *mut Rows {
    let (rules, text) = (&*rules, from_raw_parts(text, bytes));
    let rows = match catch_unwind(AssertUnwindSafe(|| judge(text, first_line, rules))) {
        Ok(rows) => Box::new(rows),
        Err(_) => return std::ptr::null_mut(),
    };
    let column = |number: usize| Column::from(&rows.texts[number]);
    *view = View {
        rows: rows.lines.len(),
        many: rows.many,
        counted: rows.counted,
        lines: rows.lines.as_ptr(),
        kinds: rows.kinds.as_ptr(),
        times: rows.times.as_ptr(),
        ids: rows.ids.as_ptr(),
        doubtful: rows.doubtful.as_ptr(),
        doubtfuls: rows.doubtful.len(),
        unknown: rows.unknown.as_ptr(),
        unknowns: rows.unknown.len(),
        texts: [column(0), column(1), column(2), column(3), column(4), column(5), column(6)],
    };
    Box::into_raw(rows)
}

/// How many lines end in a text.
///
/// # Safety
/// `text` is readable for `bytes`.
#[no_mangle]
pub unsafe extern "C" fn landfall_line_ends(text: *const u8, bytes: usize) -> usize {
    // A byte holds what so many add up to: the compiler then counts many side by side.
    let few = from_raw_parts(text, bytes).chunks(u8::MAX as usize);
    few.map(|some| some.iter().map(|&byte| (byte == b'\n') as u8).sum::<u8>() as usize).sum()
}

/// # Safety
/// `rows` is of `landfall_judge`, and given back once.
#[no_mangle]
pub unsafe extern "C" fn landfall_free(rows: *mut Rows) {
    drop(Box::from_raw(rows));
}

/// # Safety
/// `rules` is of `landfall_rules`, and given back once.
#[no_mangle]
pub unsafe extern "C" fn landfall_forget(rules: *mut Rules) {
    drop(Box::from_raw(rules));
}
