//! Strings, names and times in text: every form that one can have.
//!
//! A part of `item`; the counterpart of `text`.

use super::base64;
use super::parser::{Parser, Token};
use super::text::BASE64_PREFIX;
use crate::encoding::canonical_int;
use crate::error::{Damage, Problem};
use std::borrow::Cow;

pub(super) fn millis(parser: &mut Parser<'_>, reading: &'static str) -> Result<i64, Damage> {
    parser.integer(reading, "Unix milliseconds")
}

/// A string in any of its forms; an integer stands for its digits.
pub(super) fn bytes<'a>(
    parser: &mut Parser<'a>,
    reading: &'static str,
) -> Result<Cow<'a, [u8]>, Damage> {
    match plain(parser, reading)? {
        Some(bytes) => Ok(bytes),
        None => marked(parser, reading, false).map(|(bytes, _)| bytes),
    }
}

/// A string in any of its forms, or one with an expiry.
pub(super) fn expiring<'a>(
    parser: &mut Parser<'a>,
    reading: &'static str,
) -> Result<(Cow<'a, [u8]>, Option<i64>), Damage> {
    match plain(parser, reading)? {
        Some(bytes) => Ok((bytes, None)),
        None => marked(parser, reading, true),
    }
}

/// None: an object, which says what it is.
fn plain<'a>(
    parser: &mut Parser<'a>,
    reading: &'static str,
) -> Result<Option<Cow<'a, [u8]>>, Damage> {
    parser.blank();
    let start = parser.clone();
    match parser.peek(reading)? {
        Token::String => Ok(Some(into_bytes(parser.string(reading)?))),
        Token::Object => Ok(None),
        Token::Number => {
            let number = parser.number(reading)?.as_bytes();
            match canonical_int(number) {
                Some(_) => Ok(Some(Cow::Borrowed(number))),
                None => Err(start.unwanted(reading, "a string, or an integer")),
            }
        }
        _ => Err(start.unwanted(reading, "a string, an integer, or {\"base64\":…}")),
    }
}

/// `{"base64":…}`, `{"pieces":[…]}`, or `{"value":…,"expire_at_ms":…}` where something may expire.
fn marked<'a>(
    parser: &mut Parser<'a>,
    reading: &'static str,
    may_expire: bool,
) -> Result<(Cow<'a, [u8]>, Option<i64>), Damage> {
    const NAMES: [&str; 4] = ["base64", "pieces", "value", "expire_at_ms"];
    let start = parser.clone();
    let names = if may_expire { &NAMES[..] } else { &NAMES[..2] };
    let (mut found, mut forms, mut expire_at_ms, mut has_value) = (None, 0, None, false);
    parser.object(reading, names, |parser, index| {
        forms += u32::from(index != 3);
        match index {
            0 => found = Some(Cow::Owned(base64_text(parser, reading)?)),
            1 => found = Some(Cow::Owned(pieces(parser, reading)?)),
            2 => {
                found = Some(bytes(parser, reading)?);
                has_value = true;
            }
            _ => expire_at_ms = Some(millis(parser, reading)?),
        }
        Ok(())
    })?;
    match found {
        Some(bytes) if forms == 1 && (has_value || expire_at_ms.is_none()) => {
            Ok((bytes, expire_at_ms))
        }
        _ => Err(start.unwanted(
            reading,
            "either base64, or pieces, or a value with its expiry",
        )),
    }
}

fn base64_text(parser: &mut Parser<'_>, reading: &'static str) -> Result<Vec<u8>, Damage> {
    parser.blank();
    let start = parser.clone();
    let text = parser.string(reading)?;
    base64::decode(text.as_bytes()).ok_or_else(|| start.unwanted(reading, "base64 with padding"))
}

/// A string whose pieces stand one by one; they have no pieces themselves.
fn pieces(parser: &mut Parser<'_>, reading: &'static str) -> Result<Vec<u8>, Damage> {
    let mut whole = Vec::new();
    parser.elements(reading, |parser| {
        match plain(parser, reading)? {
            Some(piece) => whole.extend_from_slice(&piece),
            None => {
                let start = parser.clone();
                let mut piece = None;
                parser.object(reading, &["base64"], |parser, _| {
                    piece = Some(base64_text(parser, reading)?);
                    Ok(())
                })?;
                let piece = piece.ok_or_else(|| start.unwanted(reading, "a member base64"))?;
                whole.extend_from_slice(&piece);
            }
        }
        Ok(())
    })?;
    Ok(whole)
}

/// What a name stands for.
pub(super) fn name_bytes<'a>(
    parser: &Parser<'a>,
    name: Cow<'a, str>,
    reading: &'static str,
) -> Result<Cow<'a, [u8]>, Damage> {
    let Some(text) = name.as_bytes().strip_prefix(BASE64_PREFIX) else {
        return Ok(into_bytes(name));
    };
    base64::decode(text).map(Cow::Owned).ok_or_else(|| {
        let wanted = "base64 with padding behind base64:";
        let found = name.as_bytes().to_vec();
        Damage::new(parser.offset(), reading, Problem::Text { wanted, found })
    })
}

fn into_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}
