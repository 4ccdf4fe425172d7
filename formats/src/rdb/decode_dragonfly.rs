//! Dragonfly's own types: documents, and hashes and sets whose parts expire.
//!
//! A part of `decode`.

use super::decode::Decoder;
use crate::encoding::canonical_int;
use crate::encoding::listpack::Element;
use crate::error::{Damage, Problem};
use crate::input::Cursor;
use crate::value::{SetMember, SetValue, Value};

/// Expiries of fields and members count from here: 2023-02-01, in Unix seconds.
pub(crate) const EXPIRY_EPOCH_S: i64 = 1_675_209_600;
/// Instead of an expiry.
pub(super) const NO_EXPIRY: i64 = -1;

impl Decoder<'_, '_> {
    pub(super) fn json(&mut self) -> Result<Value, Damage> {
        let start = self.cursor.clone();
        let text = self.cursor.string("json")?;
        match text.is_empty() {
            false => Ok(Value::Json(text)),
            true => {
                let (wanted, found) = (1, 0);
                Err(start.damage("json", Problem::Differs { wanted, found }))
            }
        }
    }

    pub(super) fn hash_expiring(&mut self) -> Result<Option<Value>, Damage> {
        let count = self.cursor.count(3, "hash")?;
        self.fields(count, |decoder| {
            let field = decoder.cursor.string("hash field")?;
            let value = decoder.cursor.string("hash value")?;
            let expiry = relative_expiry(&mut decoder.cursor, "hash field expiry")?;
            Ok((field, value, expiry))
        })
    }

    pub(super) fn set_expiring(&mut self) -> Result<Option<Value>, Damage> {
        let count = self.cursor.count(2, "set")?;
        let mut members = Vec::with_capacity(count.min(self.cursor.left() / 8));
        for _ in 0..count {
            members.push(SetMember {
                member: self.cursor.string("set member")?,
                expire_at_ms: relative_expiry(&mut self.cursor, "set member expiry")?,
            });
        }
        let names = members.iter().map(|member| Element::Str(&member.member));
        self.unique("set", names, count)?;
        Ok((count > 0).then_some(Value::Set(SetValue::Expiring(members))))
    }
}

/// A decimal number of 32 bits as a string.
pub(super) fn relative_expiry(
    cursor: &mut Cursor<'_>,
    reading: &'static str,
) -> Result<Option<i64>, Damage> {
    let start = cursor.clone();
    let text = cursor.string(reading)?;
    match canonical_int(&text) {
        Some(NO_EXPIRY) => Ok(None),
        Some(seconds) if (0..1 << 32).contains(&seconds) => {
            Ok(Some((EXPIRY_EPOCH_S + seconds) * 1000))
        }
        _ => {
            let wanted = "seconds of 32 bits, or -1";
            Err(start.damage(
                reading,
                Problem::Text {
                    wanted,
                    found: text,
                },
            ))
        }
    }
}
