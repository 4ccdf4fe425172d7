//! A pull parser over the text of one item: exact JSON, borrowed where no escape forces a copy.
//!
//! `item` walks values with it and knows what it wants; `skip` walks what it does not want, and checks it as strictly.
//!
//! Invariants
//! - `at` stands between tokens; an error leaves it where the token began that was not wanted.
//! - Depth is bounded by `DEPTH_MAX`: nothing here recurses further.

use super::DEPTH_MAX;
use crate::error::{Damage, Problem};
use std::borrow::Cow;

#[derive(Debug, Clone)]
pub(crate) struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    /// At most `DEPTH_MAX`.
    depth_max: usize,
}

/// What stands next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

/// How much of what was found an error shows.
const FOUND_MAX: usize = 24;

impl<'a> Parser<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Parser {
            bytes,
            at: 0,
            depth: 0,
            depth_max: DEPTH_MAX,
        }
    }

    /// Distance from the start of the text.
    pub(crate) fn offset(&self) -> u64 {
        self.at as u64
    }

    /// The text of the next value, which is skipped.
    pub(crate) fn raw(&mut self, reading: &'static str) -> Result<&'a [u8], Damage> {
        self.blank();
        let start = self.at;
        self.skip(reading)?;
        Ok(&self.bytes[start..self.at])
    }

    /// Error: the next token is not what was wanted.
    pub(crate) fn unwanted(&self, reading: &'static str, wanted: &'static str) -> Damage {
        let left = &self.bytes[self.at.min(self.bytes.len())..];
        let problem = match left {
            [] => Problem::Truncated { wanted: 1, left: 0 },
            left => Problem::Text {
                wanted,
                found: left[..left.len().min(FOUND_MAX)].to_vec(),
            },
        };
        Damage::new(self.at as u64, reading, problem)
    }

    pub(crate) fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn next_byte(&mut self) -> Option<u8> {
        self.blank();
        self.bytes.get(self.at).copied()
    }

    /// Whether `byte` stood next; then it is passed.
    fn pass(&mut self, byte: u8) -> bool {
        let stands = self.next_byte() == Some(byte);
        self.at += usize::from(stands);
        stands
    }

    pub(crate) fn peek(&mut self, reading: &'static str) -> Result<Token, Damage> {
        Ok(match self.next_byte() {
            Some(b'{') => Token::Object,
            Some(b'[') => Token::Array,
            Some(b'"') => Token::String,
            Some(b'-' | b'0'..=b'9') => Token::Number,
            Some(b't') => Token::True,
            Some(b'f') => Token::False,
            Some(b'n') => Token::Null,
            _ => return Err(self.unwanted(reading, "a value")),
        })
    }

    /// Nothing but blanks may follow.
    pub(crate) fn finish(&mut self, reading: &'static str) -> Result<(), Damage> {
        match self.next_byte() {
            None => Ok(()),
            Some(_) => Err(self.unwanted(reading, "the end of the text")),
        }
    }

    // Containers.

    fn open(
        &mut self,
        bracket: u8,
        reading: &'static str,
        wanted: &'static str,
    ) -> Result<(), Damage> {
        if !self.pass(bracket) {
            return Err(self.unwanted(reading, wanted));
        }
        self.depth += 1;
        if self.depth > self.depth_max {
            let wanted = match self.depth_max {
                DEPTH_MAX => "at most 128 brackets within brackets",
                _ => "fewer brackets within brackets",
            };
            let found = self.depth as u64;
            let problem = Problem::Number { wanted, found };
            return Err(Damage::new(self.at as u64 - 1, reading, problem));
        }
        Ok(())
    }

    /// Gives each member's name to `member`, which must pass its value.
    pub(crate) fn members(
        &mut self,
        reading: &'static str,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        self.open(b'{', reading, "an object")?;
        let mut first = true;
        while !self.pass(b'}') {
            if !first && !self.pass(b',') {
                return Err(self.unwanted(reading, "a comma or a closing brace"));
            }
            first = false;
            if self.next_byte() != Some(b'"') {
                return Err(self.unwanted(reading, "a name in quotes"));
            }
            let name = self.string(reading)?;
            if !self.pass(b':') {
                return Err(self.unwanted(reading, "a colon"));
            }
            member(self, name)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// An object with members of these names, at most 32, each at most once; `member` gets the index of the name.
    pub(crate) fn object(
        &mut self,
        reading: &'static str,
        names: &[&str],
        mut member: impl FnMut(&mut Self, usize) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        let mut seen = 0u32;
        self.members(reading, |parser, name| {
            let at = parser.at as u64;
            let Some(index) = names.iter().position(|known| *known == name) else {
                let wanted = "a member that it may have";
                let found = name.into_owned().into_bytes();
                return Err(Damage::new(at, reading, Problem::Text { wanted, found }));
            };
            if seen & 1 << index != 0 {
                let twice = name.into_owned().into_bytes();
                return Err(Damage::new(at, reading, Problem::Duplicate(twice)));
            }
            seen |= 1 << index;
            member(parser, index)
        })
    }

    /// `element` must pass one each time it is called.
    pub(crate) fn elements(
        &mut self,
        reading: &'static str,
        mut element: impl FnMut(&mut Self) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        self.open(b'[', reading, "an array")?;
        let mut first = true;
        while !self.pass(b']') {
            if !first && !self.pass(b',') {
                return Err(self.unwanted(reading, "a comma or a closing bracket"));
            }
            first = false;
            element(self)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Passes a value of any kind.
    pub(crate) fn skip(&mut self, reading: &'static str) -> Result<(), Damage> {
        match self.peek(reading)? {
            Token::Object => self.members(reading, |parser, _| parser.skip(reading)),
            Token::Array => self.elements(reading, |parser| parser.skip(reading)),
            Token::String => self.string(reading).map(drop),
            Token::Number => self.number(reading).map(drop),
            Token::True | Token::False => self.boolean(reading).map(drop),
            Token::Null => self.null(reading),
        }
    }

    // Scalars.

    /// A string without its quotes and escapes.
    pub(crate) fn string(&mut self, reading: &'static str) -> Result<Cow<'a, str>, Damage> {
        if self.next_byte() != Some(b'"') {
            return Err(self.unwanted(reading, "a string"));
        }
        let start = self.at + 1;
        let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
        let run = |from: usize| {
            let rest = self.bytes.get(from..)?;
            rest.iter().position(special).map(|len| from + len)
        };
        let mut end = run(start);
        if let Some(end) = end
            && self.bytes[end] == b'"'
        {
            let text = self.utf8(start, end, reading)?;
            self.at = end + 1;
            return Ok(Cow::Borrowed(text));
        }
        let mut out = String::new();
        let mut from = start;
        while let Some(stop) = end {
            out.push_str(self.utf8(from, stop, reading)?);
            match self.bytes[stop] {
                b'"' => {
                    self.at = stop + 1;
                    return Ok(Cow::Owned(out));
                }
                b'\\' => {
                    let (character, len) = self.escape(stop, reading)?;
                    out.push(character);
                    from = stop + len;
                    end = run(from);
                }
                found => {
                    let wanted = "no control character within a string";
                    let problem = Problem::Byte { wanted, found };
                    return Err(Damage::new(stop as u64, reading, problem));
                }
            }
        }
        let left = (self.bytes.len() - start) as u64;
        let problem = Problem::Truncated {
            wanted: left + 1,
            left,
        };
        Err(Damage::new(start as u64, reading, problem))
    }

    fn utf8(&self, from: usize, to: usize, reading: &'static str) -> Result<&'a str, Damage> {
        let bytes = &self.bytes[from..to];
        std::str::from_utf8(bytes).map_err(|error| {
            let at = from + error.valid_up_to();
            let wanted = "UTF-8, and other bytes as {\"base64\":…}";
            let found = self.bytes[at..to.min(at + 4)].to_vec();
            Damage::new(at as u64, reading, Problem::Text { wanted, found })
        })
    }

    /// The character that the escape at `at` stands for, and the length of the escape.
    fn escape(&self, at: usize, reading: &'static str) -> Result<(char, usize), Damage> {
        const HIGH: u32 = 0xD800;
        const LOW: u32 = 0xDC00;
        let bad = || {
            let left = &self.bytes[at..];
            let wanted = "an escape of JSON";
            let found = left[..left.len().min(12)].to_vec();
            Damage::new(at as u64, reading, Problem::Text { wanted, found })
        };
        let simple = match self.bytes.get(at + 1).ok_or_else(bad)? {
            b'u' => {
                let unit = self.hex4(at + 2).ok_or_else(bad)?;
                if let Some(character) = char::from_u32(unit) {
                    return Ok((character, 6));
                }
                // Two halves of a character beyond 16 bits.
                let second = match self.bytes.get(at + 6..at + 8) {
                    Some(b"\\u") => self.hex4(at + 8),
                    _ => None,
                };
                return match (unit, second) {
                    (HIGH..LOW, Some(second @ LOW..=0xDFFF)) => {
                        let code = 0x1_0000 + ((unit - HIGH) << 10) + (second - LOW);
                        char::from_u32(code).map(|c| (c, 12)).ok_or_else(bad)
                    }
                    _ => Err(bad()),
                };
            }
            byte @ (b'"' | b'\\' | b'/') => char::from(*byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            _ => return Err(bad()),
        };
        Ok((simple, 2))
    }

    fn hex4(&self, at: usize) -> Option<u32> {
        let digits = self.bytes.get(at..at + 4)?;
        digits.iter().try_fold(0, |value, byte| {
            Some(value << 4 | char::from(*byte).to_digit(16)?)
        })
    }

    /// The text of a number.
    pub(crate) fn number(&mut self, reading: &'static str) -> Result<&'a str, Damage> {
        self.blank();
        let start = self.at;
        let bytes = self.bytes;
        let digits = |at: &mut usize| {
            let from = *at;
            while bytes.get(*at).is_some_and(u8::is_ascii_digit) {
                *at += 1;
            }
            *at - from
        };
        let bad = |parser: &Self| Err(parser.unwanted(reading, "a number"));
        let mut at = start + usize::from(bytes.get(start) == Some(&b'-'));
        let leading_zero = bytes.get(at) == Some(&b'0');
        let integral = digits(&mut at);
        if integral == 0 || leading_zero && integral > 1 {
            return bad(self);
        }
        if bytes.get(at) == Some(&b'.') {
            at += 1;
            if digits(&mut at) == 0 {
                return bad(self);
            }
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            at += 1;
            at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
            if digits(&mut at) == 0 {
                return bad(self);
            }
        }
        self.at = at;
        // Digits, signs and points are ASCII.
        Ok(std::str::from_utf8(&bytes[start..at]).unwrap_or_default())
    }

    pub(crate) fn integer<T: std::str::FromStr>(
        &mut self,
        reading: &'static str,
        wanted: &'static str,
    ) -> Result<T, Damage> {
        let start = self.clone();
        let text = match self.next_byte() {
            Some(b'-' | b'0'..=b'9') => self.number(reading)?,
            _ => return Err(self.unwanted(reading, wanted)),
        };
        text.parse().map_err(|_| {
            let mut start = start;
            start.blank();
            start.unwanted(reading, wanted)
        })
    }

    pub(crate) fn boolean(&mut self, reading: &'static str) -> Result<bool, Damage> {
        if self.word(b"true") {
            Ok(true)
        } else if self.word(b"false") {
            Ok(false)
        } else {
            Err(self.unwanted(reading, "true or false"))
        }
    }

    pub(crate) fn null(&mut self, reading: &'static str) -> Result<(), Damage> {
        match self.word(b"null") {
            true => Ok(()),
            false => Err(self.unwanted(reading, "a value")),
        }
    }

    fn word(&mut self, word: &[u8]) -> bool {
        self.blank();
        let stands = self.bytes[self.at..].starts_with(word);
        self.at += if stands { word.len() } else { 0 };
        stands
    }
}

/// Whether `text` can stand as a value in an item, and is then the same bytes when it is read: one value of JSON on one
/// line, without blanks around it, and not too deep.
pub(crate) fn is_document(text: &[u8]) -> bool {
    let mut parser = Parser::new(text);
    // What stands around it in an item.
    parser.depth = 4;
    let blank = |byte: Option<&u8>| byte.is_none_or(|byte| *byte == b' ');
    !text.iter().any(|byte| *byte < 0x20)
        && !blank(text.first())
        && !blank(text.last())
        && parser.skip("document").is_ok()
        && parser.at == text.len()
}

/// Whether `text` is one value of JSON in UTF-8 with whole characters, and no deeper than `depth_max` brackets.
pub(crate) fn check_document(text: &[u8], depth_max: usize) -> Result<(), Damage> {
    let mut parser = Parser::new(text);
    parser.depth_max = depth_max.min(DEPTH_MAX);
    parser.skip("document")?;
    parser.finish("document")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &[u8]) -> Result<(), String> {
        let mut parser = Parser::new(text);
        let parsed = parser.skip("text").and_then(|()| parser.finish("text"));
        parsed.map_err(|damage| damage.to_string())
    }

    #[test]
    fn strings_lose_their_escapes() {
        let rows = [
            (r#""plain""#, "plain"),
            (r#"  "a\"\\\/\b\f\n\r\t" "#, "a\"\\/\u{8}\u{c}\n\r\t"),
            (r#""\u00e4\u20ac""#, "ä€"),
            (r#""\ud83d\ude00!""#, "😀!"),
            (r#""ä\n€""#, "ä\n€"),
        ];
        for (json, text) in rows {
            assert_eq!(Parser::new(json.as_bytes()).string("text").unwrap(), text);
        }
    }

    #[test]
    fn errors_name_the_place_and_what_stands_there() {
        let rows: [(&[u8], &str); 14] = [
            (b"", "offset 0: text: wanted 1 bytes, 0 left"),
            (b"\"ab", "offset 1: text: wanted 3 bytes, 2 left"),
            (
                b"\"a\nb\"",
                "offset 2: text: wanted no control character within a string, found 0x0a",
            ),
            (
                b"\"\\x\"",
                r#"offset 1: text: wanted an escape of JSON, found "\\x\"""#,
            ),
            (
                b"\"\\ud800\"",
                r#"offset 1: text: wanted an escape of JSON, found "\\ud800\"""#,
            ),
            (
                b"\"\\ud800\\u0041\"",
                r#"offset 1: text: wanted an escape of JSON, found "\\ud800\\u0041""#,
            ),
            (
                b"\"\xff\"",
                r#"offset 1: text: wanted UTF-8, and other bytes as {"base64":…}, found "\xff""#,
            ),
            (b"01", r#"offset 0: text: wanted a number, found "01""#),
            (b"-", r#"offset 0: text: wanted a number, found "-""#),
            (b"1.", r#"offset 0: text: wanted a number, found "1.""#),
            (
                b"[1 2]",
                r#"offset 3: text: wanted a comma or a closing bracket, found "2]""#,
            ),
            (
                b"{1:2}",
                r#"offset 1: text: wanted a name in quotes, found "1:2}""#,
            ),
            (
                b"{\"a\" 2}",
                r#"offset 5: text: wanted a colon, found "2}""#,
            ),
            (
                b"1 1",
                r#"offset 2: text: wanted the end of the text, found "1""#,
            ),
        ];
        for (json, message) in rows {
            assert_eq!(whole(json).unwrap_err(), message, "{}", json.escape_ascii());
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert_eq!(whole(&nested(DEPTH_MAX)), Ok(()));
        assert!(whole(&nested(DEPTH_MAX + 1)).is_err());
        assert!(whole(&vec![b'['; 1_000_000]).is_err());
        assert!(is_document(&nested(DEPTH_MAX - 4)));
        assert!(!is_document(&nested(DEPTH_MAX - 3)));
    }

    #[test]
    fn documents_are_one_value_on_one_line() {
        let rows: [(&[u8], bool); 9] = [
            (br#"{"a": [1, 2.50, "\n", null, true]}"#, true),
            (b"1", true),
            (b"\"\"", true),
            (b"", false),
            (b" 1", false),
            (b"1 ", false),
            (b"[1,\n2]", false),
            (b"1 2", false),
            (b"{", false),
        ];
        for (text, fits) in rows {
            assert_eq!(is_document(text), fits, "{}", text.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn takes_what_another_parser_takes(text in r#"[\[\]{}:,"\\ 0-9.eE+truefalsn-]{0,12}"#) {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // Numbers too large for a double are fine as long as nobody asks for them.
            let too_large = theirs.as_ref().is_err_and(|e| e.to_string().contains("out of range"));
            prop_assume!(!too_large);
            prop_assert_eq!(whole(text.as_bytes()).is_ok(), theirs.is_ok());
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes: Vec<u8>) {
            let _ = whole(&bytes);
            let quoted = [b"\"", &bytes[..], b"\""].concat();
            let _ = whole(&quoted);
        }
    }
}
