//! The payloads of DUMP and RESTORE: one value with its type, and a footer.
//!
//! ```text
//! payload = type u8 | value | version u16 LE | crc u64 LE
//! ```
//! The checksum covers everything before it and is never left out. Key and expiry are not part of it.

use super::decode::{DecodeLimits, decode};
use super::encode::{EncodeError, encode};
use super::target::Target;
use super::{Flavor, VERSION_VALKEY};
use crate::checksum::redis_crc;
use crate::error::Damage;
use crate::lzf::LzfEncoder;
use crate::value::Value;

const FOOTER: usize = 10;

/// A payload whose footer is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    pub version: u16,
    pub type_code: u8,
    /// The stored value.
    pub value: &'a [u8],
}

/// Why a payload is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    #[error("payload: wanted at least {wanted} bytes, found {found}")]
    Short { wanted: usize, found: usize },
    #[error("payload: RDB version {version}: wanted at most {newest}")]
    Version { version: u16, newest: u16 },
    #[error(
        "payload: checksum: {computed:016x} computed over the bytes before, but {stored:016x} is stored"
    )]
    Checksum { stored: u64, computed: u64 },
    #[error("payload: {0}")]
    Value(Damage),
    #[error("payload: an empty collection")]
    Empty,
}

impl<'a> Payload<'a> {
    /// Checks the footer of `bytes`; versions above `version_max` are refused, but for the one of Valkey.
    pub fn parse(bytes: &'a [u8], version_max: u16) -> Result<Self, DumpError> {
        let payload = Payload::parse_unchecked(bytes, version_max)?;
        let (body, crc) = bytes.split_last_chunk::<8>().ok_or_else(|| short(bytes))?;
        let (stored, computed) = (u64::from_le_bytes(*crc), redis_crc(body));
        if stored != computed {
            return Err(DumpError::Checksum { stored, computed });
        }
        Ok(payload)
    }

    /// The same whatever the checksum is: for tests of damage that a checksum would hide.
    pub fn parse_unchecked(bytes: &'a [u8], version_max: u16) -> Result<Self, DumpError> {
        let Some((body, _)) = bytes.split_last_chunk::<8>() else {
            return Err(short(bytes));
        };
        let Some((body, version)) = body.split_last_chunk::<2>() else {
            return Err(short(bytes));
        };
        let [type_code, value @ ..] = body else {
            return Err(short(bytes));
        };
        let version = u16::from_le_bytes(*version);
        if version > version_max && version != VERSION_VALKEY {
            let newest = version_max;
            return Err(DumpError::Version { version, newest });
        }
        Ok(Payload {
            version,
            type_code: *type_code,
            value,
        })
    }

    /// Whose numbering the type follows.
    pub fn flavor(&self) -> Flavor {
        match self.version {
            VERSION_VALKEY => Flavor::Valkey,
            _ => Flavor::Redis,
        }
    }

    /// The value in it. Offsets in errors count from the start of the payload.
    pub fn decode(&self, limits: &DecodeLimits) -> Result<Value, DumpError> {
        decode(self.flavor(), self.type_code, self.value, limits)
            .map_err(|damage| DumpError::Value(damage.moved(1)))?
            .ok_or(DumpError::Empty)
    }
}

fn short(bytes: &[u8]) -> DumpError {
    DumpError::Short {
        wanted: FOOTER + 1,
        found: bytes.len(),
    }
}

/// The payload of `value` for a target.
///
/// ```
/// use dfsnap_formats::rdb::{dump::{Payload, payload}, target::Target};
/// use dfsnap_formats::value::Value;
/// let value = Value::String(b"hello".to_vec());
/// let bytes = payload(&value, Target::default(), None).unwrap();
/// let back = Payload::parse(&bytes, 12).unwrap();
/// assert_eq!(back.decode(&Default::default()).unwrap(), value);
/// ```
pub fn payload(
    value: &Value,
    target: Target,
    lzf: Option<&mut LzfEncoder>,
) -> Result<Vec<u8>, EncodeError> {
    let mut out = vec![0];
    out[0] = encode(value, target, &mut out, lzf)?;
    seal(&mut out, target.version());
    Ok(out)
}

/// Makes a payload of `out`, which holds a type and a value, by appending the footer.
pub fn seal(out: &mut Vec<u8>, version: u16) {
    out.extend_from_slice(&version.to_le_bytes());
    let crc = redis_crc(out);
    out.extend_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn footer_is_checked_to_the_last_bit() {
        let target = Target::of_version(11).unwrap();
        let bytes = payload(&Value::String(b"some text".to_vec()), target, None).unwrap();
        assert_eq!(Payload::parse(&bytes, 11).unwrap().version, 11);
        assert_eq!(
            Payload::parse(&bytes, 10),
            Err(DumpError::Version {
                version: 11,
                newest: 10
            })
        );
        for cut in 0..bytes.len() {
            assert!(Payload::parse(&bytes[..cut], 12).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Payload::parse(&damaged, 12).is_err(), "flipped at {at}");
        }
    }

    #[test]
    fn payload_of_redis_7_reads() {
        // DUMP of a key with the value `v`, by 7.0.15.
        let bytes = b"\x00\x01v\x0a\x00\x91\x08\xce\xb2\x19\x38\x8a\xce";
        let payload = Payload::parse(bytes, 12).unwrap();
        let value = Value::String(b"v".to_vec());
        assert_eq!(payload.decode(&DecodeLimits::default()), Ok(value));
        let mut sealed = bytes[..3].to_vec();
        seal(&mut sealed, 10);
        assert_eq!(sealed, bytes);
    }

    #[test]
    fn empty_collections_are_no_payload() {
        let mut bytes = vec![super::super::type_code::LIST, 0];
        seal(&mut bytes, 10);
        let payload = Payload::parse(&bytes, 12).unwrap();
        assert_eq!(
            payload.decode(&DecodeLimits::default()),
            Err(DumpError::Empty)
        );
    }
}
