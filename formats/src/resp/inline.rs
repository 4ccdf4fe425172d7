//! Words of a line, with quotes: inline requests, configuration files and `rdb-filter-only` lists.
//!
//! Rules: blanks separate; `"…"` knows `\n \r \t \b \a \xHH` and `\` before any other byte means that byte;
//! `'…'` knows `\'` only; a closing quote must be followed by a blank or the end; a NUL ends the line.

use std::ops::Range;

/// A quote without its partner, or a closing quote with something stuck to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unbalanced quotes in request")]
pub struct UnbalancedQuotes;

/// Appends the unquoted words of `line` to `text` and where each of them stands to `words`.
///
/// ```
/// use dfsnap_formats::resp::split_words;
/// let (mut text, mut words) = (Vec::new(), Vec::new());
/// split_words(br#"set  'a b' "\x41\n""#, &mut text, &mut words).unwrap();
/// let words: Vec<&[u8]> = words.into_iter().map(|at| &text[at]).collect();
/// assert_eq!(words, [&b"set"[..], b"a b", b"A\n"]);
/// ```
pub fn split_words(
    line: &[u8],
    text: &mut Vec<u8>,
    words: &mut Vec<Range<usize>>,
) -> Result<(), UnbalancedQuotes> {
    let line = match line.iter().position(|&b| b == 0) {
        Some(end) => &line[..end],
        None => line,
    };
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|&b| is_blank(b)) {
            at += 1;
        }
        if at == line.len() {
            return Ok(());
        }
        let start = text.len();
        at = word(line, at, text)?;
        words.push(start..text.len());
    }
}

/// Appends one word that starts at `at`; returns where it ends.
fn word(line: &[u8], mut at: usize, text: &mut Vec<u8>) -> Result<usize, UnbalancedQuotes> {
    while let Some(&byte) = line.get(at) {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => break,
            b'"' => return closed(line, double_quoted(line, at + 1, text)?),
            b'\'' => return closed(line, single_quoted(line, at + 1, text)?),
            _ => text.push(byte),
        }
        at += 1;
    }
    Ok(at)
}

/// `at` is just after a closing quote.
fn closed(line: &[u8], at: usize) -> Result<usize, UnbalancedQuotes> {
    match line.get(at) {
        Some(&byte) if !is_blank(byte) => Err(UnbalancedQuotes),
        _ => Ok(at),
    }
}

fn double_quoted(
    line: &[u8],
    mut at: usize,
    text: &mut Vec<u8>,
) -> Result<usize, UnbalancedQuotes> {
    loop {
        match line[at..] {
            [] => return Err(UnbalancedQuotes),
            [b'"', ..] => return Ok(at + 1),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                text.push(hex(high) << 4 | hex(low));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                text.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                at += 2;
            }
            [byte, ..] => {
                text.push(byte);
                at += 1;
            }
        }
    }
}

fn single_quoted(
    line: &[u8],
    mut at: usize,
    text: &mut Vec<u8>,
) -> Result<usize, UnbalancedQuotes> {
    loop {
        match line[at..] {
            [] => return Err(UnbalancedQuotes),
            [b'\'', ..] => return Ok(at + 1),
            [b'\\', b'\'', ..] => {
                text.push(b'\'');
                at += 2;
            }
            [byte, ..] => {
                text.push(byte);
                at += 1;
            }
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
        let (mut text, mut words) = (Vec::new(), Vec::new());
        split_words(line, &mut text, &mut words).ok()?;
        Some(words.into_iter().map(|at| text[at].to_vec()).collect())
    }

    #[test]
    fn lines_split_as_the_quotes_say() {
        type Row = (
            &'static str,
            &'static [u8],
            Option<&'static [&'static [u8]]>,
        );
        let rows: &[Row] = &[
            ("empty", b"", Some(&[])),
            ("blanks only", b" \t ", Some(&[])),
            ("plain", b"get  key", Some(&[b"get", b"key"])),
            (
                "double quotes",
                br#"set k "a b""#,
                Some(&[b"set", b"k", b"a b"]),
            ),
            ("empty word", br#"set k """#, Some(&[b"set", b"k", b""])),
            ("quote in the middle", br#"a"b c""#, Some(&[b"ab c"])),
            (
                "escapes",
                br#""\n\r\t\b\a\x00\xfF\q\\\"""#,
                Some(&[b"\n\r\t\x08\x07\x00\xffq\\\""]),
            ),
            ("broken hex", br#""\xg1""#, Some(&[b"xg1"])),
            ("single quotes", br"'a\'b\n'", Some(&[br"a'b\n"])),
            ("NUL ends", b"a b\0c d", Some(&[b"a", b"b"])),
            ("open double", br#"set "k"#, None),
            ("open single", b"set 'k", None),
            ("ends in a backslash", br#""a\"#, None),
            ("stuck after the quote", br#""a"b"#, None),
            ("stuck after the single quote", b"'a'b", None),
        ];
        for (name, line, want) in rows {
            let want = want.map(|words| words.iter().map(|w| w.to_vec()).collect::<Vec<_>>());
            assert_eq!(split(line), want, "{name}");
        }
    }
}
