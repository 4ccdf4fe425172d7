//! What the words of a command say: numbers, options, counts.

use dfsnap_formats::double;

use super::{Args, CommandError};
use crate::keyspace::value::canonical_i64;

/// An integer, or the error that it is none.
pub fn int(word: &[u8]) -> Result<i64, CommandError> {
    canonical_i64(word).ok_or(CommandError::NOT_INTEGER)
}

/// A count that must not be negative.
pub fn count(word: &[u8]) -> Result<usize, CommandError> {
    let number = canonical_i64(word).ok_or(CommandError::NOT_POSITIVE)?;
    usize::try_from(number).map_err(|_| CommandError::NOT_POSITIVE)
}

/// A float, or the error that it is none.
pub fn float(word: &[u8]) -> Result<f64, CommandError> {
    double::parse(word)
        .filter(|number| !number.is_nan())
        .ok_or(CommandError::NOT_FLOAT)
}

/// Whether a word is this option, in any case.
pub fn is(word: &[u8], option: &str) -> bool {
    word.eq_ignore_ascii_case(option.as_bytes())
}

/// The cursor of a SCAN command.
pub fn cursor(word: &[u8]) -> Result<u64, CommandError> {
    std::str::from_utf8(word)
        .ok()
        .filter(|text| !text.starts_with('+'))
        .and_then(|text| match text.strip_prefix('-') {
            // As strtoul reads it.
            Some(negative) => negative.parse::<u64>().ok().map(u64::wrapping_neg),
            None => text.parse().ok(),
        })
        .ok_or(CommandError::INVALID_CURSOR)
}

/// The keys of a command with a count of keys at word `at`, and the words after them.
pub fn counted_keys<'a>(
    args: Args<'a>,
    at: usize,
    too_few: &str,
) -> Result<(Args<'a>, Args<'a>), CommandError> {
    let number = int(args[at])?;
    if number < 1 {
        return Err(CommandError::new(too_few));
    }
    let rest = &args[at + 1..];
    match usize::try_from(number) {
        Ok(number) if number <= rest.len() => Ok(rest.split_at(number)),
        _ => Err(CommandError::SYNTAX),
    }
}

/// An end of a range of indexes: clamps `start..=stop`, each counted from the end if negative, to a length.
pub fn index_range(start: i64, stop: i64, len: usize) -> std::ops::Range<usize> {
    let len = len as i64;
    let start = if start < 0 {
        start.saturating_add(len).max(0)
    } else {
        start
    };
    let stop = if stop < 0 {
        stop.saturating_add(len)
    } else {
        stop.min(len - 1)
    };
    if start > stop || start >= len {
        0..0
    } else {
        start as usize..stop as usize + 1
    }
}

/// The options of HSCAN, SSCAN and ZSCAN.
#[derive(Default)]
pub struct ScanOptions<'a> {
    /// MATCH: only names that fit this pattern.
    pub pattern: Option<&'a [u8]>,
    /// COUNT: about how many to look at.
    pub count: usize,
    /// NOVALUES, of HSCAN: the fields alone.
    pub is_without_values: bool,
}

impl<'a> ScanOptions<'a> {
    /// Reads the options of HSCAN, which are one more.
    pub fn parse_for_fields(args: Args<'a>, at: usize) -> Result<ScanOptions<'a>, CommandError> {
        ScanOptions::parse_words(args, at, true)
    }

    /// Reads the options from word `at` on.
    pub fn parse(args: Args<'a>, at: usize) -> Result<ScanOptions<'a>, CommandError> {
        ScanOptions::parse_words(args, at, false)
    }

    fn parse_words(
        args: Args<'a>,
        at: usize,
        is_of_fields: bool,
    ) -> Result<ScanOptions<'a>, CommandError> {
        let mut options = ScanOptions {
            count: 10,
            ..ScanOptions::default()
        };
        let mut words = args[at..].iter();
        while let Some(word) = words.next() {
            if is_of_fields && is(word, "novalues") {
                options.is_without_values = true;
                continue;
            }
            let value = *words.next().ok_or(CommandError::SYNTAX)?;
            if is(word, "match") {
                options.pattern = Some(value).filter(|pattern| *pattern != b"*");
            } else if is(word, "count") {
                let count = int(value)?;
                options.count = usize::try_from(count)
                    .ok()
                    .filter(|&count| count > 0)
                    .ok_or(CommandError::SYNTAX)?;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        Ok(options)
    }

    /// Whether a name fits the pattern.
    pub fn fits(&self, name: &[u8]) -> bool {
        self.pattern
            .is_none_or(|pattern| dfsnap_formats::glob::matches(pattern, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_ranges_are_clamped() {
        let rows = [
            (0, -1, 5, 0..5),
            (-100, 100, 5, 0..5),
            (1, 2, 5, 1..3),
            (-2, -1, 5, 3..5),
            (3, 1, 5, 0..0),
            (5, 9, 5, 0..0),
            (0, -6, 5, 0..0),
            (0, 0, 0, 0..0),
            (i64::MIN, i64::MAX, 2, 0..2),
        ];
        for (start, stop, len, want) in rows {
            assert_eq!(
                index_range(start, stop, len),
                want,
                "{start} {stop} of {len}"
            );
        }
    }

    #[test]
    fn cursors_are_any_u64() {
        let rows = [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("-1", Some(u64::MAX)),
            ("x", None),
            ("", None),
            ("+1", None),
        ];
        for (text, want) in rows {
            assert_eq!(cursor(text.as_bytes()).ok(), want, "{text:?}");
        }
    }
}
