//! The parts of an RDB file, appended to a buffer.
//!
//! The server's serializer and `encode` build entries from these; whoever owns the buffer writes it out and keeps the
//! checksum. Nothing here allocates but the buffer itself.
//!
//! ```
//! use dfsnap_formats::{checksum::redis_crc, rdb::{type_code, writer}};
//! let mut file = Vec::new();
//! writer::header(&mut file, 10);
//! writer::aux(&mut file, b"redis-ver", b"7.0.15");
//! writer::select_db(&mut file, 0);
//! writer::key(&mut file, type_code::STRING, b"greeting", None);
//! writer::string(&mut file, b"hello", None);
//! writer::eof(&mut file);
//! let crc = redis_crc(&file);
//! writer::checksum(&mut file, crc);
//! assert!(file.starts_with(b"REDIS0010"));
//! ```

use super::decode_dragonfly::{EXPIRY_EPOCH_S, NO_EXPIRY};
use super::shape::{MASK_MEMCACHED, MASK_STICKY};
use super::{Flavor, length, opcode};
use crate::encoding::canonical_int;
use crate::lzf::LzfEncoder;

/// Shortest string that is tried with LZF, and what it must save, as in Redis.
const LZF_LEN_MIN: usize = 21;
const LZF_SAVING_MIN: usize = 4;

/// `REDIS` and four digits.
pub fn header(out: &mut Vec<u8>, version: u16) {
    header_of(out, Flavor::Redis, version);
}

/// The magic of either flavor. Versions have at most four digits under `REDIS`, three under `VALKEY`.
pub fn header_of(out: &mut Vec<u8>, flavor: Flavor, version: u16) {
    let (magic, digits): (&[u8], u32) = match flavor {
        Flavor::Redis | Flavor::Dragonfly => (b"REDIS", 4),
        Flavor::Valkey => (b"VALKEY", 3),
    };
    assert!(
        version < 10u16.pow(digits),
        "version {version} takes more than {digits} digits"
    );
    out.extend_from_slice(magic);
    for digit in (0..digits).rev() {
        out.push(b'0' + (version / 10u16.pow(digit) % 10) as u8);
    }
}

pub fn aux(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(opcode::AUX);
    string(out, name, None);
    string(out, value, None);
}

pub fn aux_int(out: &mut Vec<u8>, name: &[u8], value: i64) {
    out.push(opcode::AUX);
    string(out, name, None);
    string_int(out, value);
}

pub fn select_db(out: &mut Vec<u8>, db: u32) {
    out.push(opcode::SELECT_DB);
    length::put(out, u64::from(db));
}

/// A hint for the database selected last: keys, and those of them with an expiry.
pub fn resize_db(out: &mut Vec<u8>, keys: u64, expires: u64) {
    out.push(opcode::RESIZE_DB);
    length::put(out, keys);
    length::put(out, expires);
}

/// A hint before the keys of a slot; readers of version 12 know it.
pub fn slot_info(out: &mut Vec<u8>, slot: u16, keys: u64, expires: u64) {
    out.push(opcode::SLOT_INFO);
    length::put(out, u64::from(slot));
    length::put(out, keys);
    length::put(out, expires);
}

/// Absolute expiry of the next key.
pub fn expire_ms(out: &mut Vec<u8>, at_ms: i64) {
    out.push(opcode::EXPIRE_MS);
    millis(out, at_ms);
}

/// LFU counter of the next key.
pub fn freq(out: &mut Vec<u8>, counter: u8) {
    out.extend_from_slice(&[opcode::FREQ, counter]);
}

/// Seconds since the last access of the next key.
pub fn idle(out: &mut Vec<u8>, seconds: u64) {
    out.push(opcode::IDLE);
    length::put(out, seconds);
}

/// Dragonfly: what else is known of the next key. Writes nothing where there is nothing.
pub fn key_mask(out: &mut Vec<u8>, sticky: bool, memcached_flags: Option<u32>) {
    let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
    let mask = bit(sticky, MASK_STICKY) | bit(memcached_flags.is_some(), MASK_MEMCACHED);
    if mask != 0 {
        out.push(opcode::KEY_MASK);
        out.extend_from_slice(&mask.to_le_bytes());
        out.extend(memcached_flags.iter().flat_map(|flags| flags.to_le_bytes()));
    }
}

/// Type byte and key; the value follows.
pub fn key(out: &mut Vec<u8>, type_code: u8, key: &[u8], lzf: Option<&mut LzfEncoder>) {
    out.push(type_code);
    string(out, key, lzf);
}

/// A function library; its code starts with `#!lua name=…`.
pub fn function2(out: &mut Vec<u8>, code: &[u8], lzf: Option<&mut LzfEncoder>) {
    out.push(opcode::FUNCTION2);
    string(out, code, lzf);
}

/// A length, count, or number that is stored like one.
#[inline]
pub fn len(out: &mut Vec<u8>, value: u64) {
    length::put(out, value);
}

/// A string: as an integer if its text is the canonical decimal of an i32, compressed if an encoder is given and that
/// saves something, otherwise as it is.
#[inline]
pub fn string(out: &mut Vec<u8>, bytes: &[u8], lzf: Option<&mut LzfEncoder>) {
    if bytes.len() <= 11
        && let Some(number) = canonical_int(bytes)
        && let Ok(number) = i32::try_from(number)
    {
        return integer(out, number);
    }
    raw_string(out, bytes, lzf);
}

/// A string that is never an integer: packed blobs, and text known to be none.
#[inline]
pub fn raw_string(out: &mut Vec<u8>, bytes: &[u8], lzf: Option<&mut LzfEncoder>) {
    if let Some(lzf) = lzf
        && bytes.len() >= LZF_LEN_MIN
        && compressed(out, bytes, lzf)
    {
        return;
    }
    length::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The decimal text of `value`, in the integer form where that is possible.
pub fn string_int(out: &mut Vec<u8>, value: i64) {
    match i32::try_from(value) {
        Ok(number) => integer(out, number),
        Err(_) => raw_string(out, itoa::Buffer::new().format(value).as_bytes(), None),
    }
}

fn integer(out: &mut Vec<u8>, number: i32) {
    let special = |form| 0xC0 | form;
    if let Ok(number) = i8::try_from(number) {
        out.extend_from_slice(&[special(length::INT8), number as u8]);
    } else if let Ok(number) = i16::try_from(number) {
        out.push(special(length::INT16));
        out.extend_from_slice(&number.to_le_bytes());
    } else {
        out.push(special(length::INT32));
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// The compressed form, if it is short enough. The lengths stand first but are known last, so they are turned to
/// the front.
fn compressed(out: &mut Vec<u8>, bytes: &[u8], lzf: &mut LzfEncoder) -> bool {
    let start = out.len();
    if !lzf.compress(bytes, bytes.len() - LZF_SAVING_MIN, out) {
        return false;
    }
    let packed = out.len() - start;
    out.push(0xC0 | length::LZF);
    length::put(out, packed as u64);
    length::put(out, bytes.len() as u64);
    let header = out.len() - start - packed;
    out[start..].rotate_right(header);
    true
}

/// A score, type 5.
#[inline]
pub fn double(out: &mut Vec<u8>, number: f64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// Unix milliseconds.
#[inline]
pub fn millis(out: &mut Vec<u8>, at_ms: i64) {
    out.extend_from_slice(&at_ms.to_le_bytes());
}

/// When a field or member expires, as Dragonfly stores it: seconds since 2023-02-01, rounded up, within 32 bits.
pub fn dragonfly_expiry(out: &mut Vec<u8>, expire_at_ms: Option<i64>) {
    let seconds = expire_at_ms.map_or(NO_EXPIRY, |at_ms| {
        let seconds = at_ms.div_euclid(1000) + i64::from(at_ms.rem_euclid(1000) != 0);
        (seconds - EXPIRY_EPOCH_S).clamp(0, i64::from(u32::MAX))
    });
    string_int(out, seconds);
}

/// A stream id in its raw form of 16 bytes.
pub fn stream_id(out: &mut Vec<u8>, ms: u64, seq: u64) {
    out.extend_from_slice(&ms.to_be_bytes());
    out.extend_from_slice(&seq.to_be_bytes());
}

/// The mark behind the last record. The checksum covers it, and follows it from version 5 on.
pub fn eof(out: &mut Vec<u8>) {
    out.push(opcode::EOF);
}

/// The last eight bytes of a file. Zero says that none was computed.
pub fn checksum(out: &mut Vec<u8>, crc: u64) {
    out.extend_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn header_has_its_digits() {
        assert_eq!(written(|out| header(out, 10)), b"REDIS0010");
        assert_eq!(
            written(|out| header_of(out, Flavor::Valkey, 80)),
            b"VALKEY080"
        );
    }

    #[test]
    fn strings_take_the_form_that_redis_takes() {
        let rows: [(&str, &[u8], &[u8]); 12] = [
            ("empty", b"", &[0]),
            ("text", b"ab", &[2, b'a', b'b']),
            ("int8", b"-128", &[0xC0, 0x80]),
            ("int16", b"128", &[0xC1, 0x80, 0]),
            ("int16 negative", b"-129", &[0xC1, 0x7F, 0xFF]),
            ("int32", b"32768", &[0xC2, 0, 0x80, 0, 0]),
            ("int32 lowest", b"-2147483648", &[0xC2, 0, 0, 0, 0x80]),
            ("beyond int32", b"2147483648", b"\x0a2147483648"),
            ("leading zero", b"01", b"\x0201"),
            ("plus", b"+1", b"\x02+1"),
            ("minus zero", b"-0", b"\x02-0"),
            ("minus", b"-", b"\x01-"),
        ];
        for (name, text, want) in rows {
            assert_eq!(written(|out| string(out, text, None)), want, "{name}");
        }
        assert_eq!(written(|out| raw_string(out, b"12", None)), b"\x0212");
        assert_eq!(written(|out| string_int(out, -7)), [0xC0, 0xF9]);
        assert_eq!(
            written(|out| string_int(out, i64::MIN)),
            b"\x14-9223372036854775808"
        );
    }

    #[test]
    fn compression_starts_at_21_bytes_and_must_save_four() {
        let mut lzf = LzfEncoder::new();
        let run = written(|out| string(out, &[b'a'; 21], Some(&mut lzf)));
        assert_eq!(run[0], 0xC3);
        let mut back = Vec::new();
        crate::lzf::expand(&run[3..], 21, &mut back).unwrap();
        assert_eq!(
            (run[1] as usize, run[2], back),
            (run.len() - 3, 21, vec![b'a'; 21])
        );

        let short = written(|out| string(out, &[b'a'; 20], Some(&mut lzf)));
        assert_eq!(short[0], 20);
        let mixed: Vec<u8> = (0..60).collect();
        let plain = written(|out| string(out, &mixed, Some(&mut lzf)));
        assert_eq!((plain[0], plain.len()), (60, 61));
    }

    #[test]
    fn records_have_their_bytes() {
        let rows: [(&str, Vec<u8>, &[u8]); 9] = [
            (
                "aux",
                written(|o| aux(o, b"a", b"1")),
                &[250, 1, b'a', 0xC0, 1],
            ),
            (
                "aux_int",
                written(|o| aux_int(o, b"a", 300)),
                &[250, 1, b'a', 0xC1, 44, 1],
            ),
            ("select", written(|o| select_db(o, 64)), &[254, 0x40, 64]),
            ("resize", written(|o| resize_db(o, 3, 1)), &[251, 3, 1]),
            ("slot", written(|o| slot_info(o, 5, 3, 1)), &[244, 5, 3, 1]),
            (
                "expire",
                written(|o| expire_ms(o, -2)),
                &[252, 0xFE, 255, 255, 255, 255, 255, 255, 255],
            ),
            ("freq", written(|o| freq(o, 9)), &[249, 9]),
            ("idle", written(|o| idle(o, 9)), &[248, 9]),
            (
                "eof",
                written(|o| {
                    eof(o);
                    checksum(o, 1)
                }),
                &[255, 1, 0, 0, 0, 0, 0, 0, 0],
            ),
        ];
        for (name, got, want) in rows {
            assert_eq!(got, want, "{name}");
        }
    }
}
