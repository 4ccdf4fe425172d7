//! The two 64-bit checksums: Redis' own for RDB files and DUMP payloads, CRC-64/XZ for our manifests and blocks.
//!
//! Readers and writers of both sides of a dump use them. They differ in polynomial, start and end, so that a value
//! of one is never a value of the other; hence two types.

use crc_fast::CrcAlgorithm::Crc64Redis;

/// Redis' CRC-64 ("Jones"): reflected, starts at 0, no final xor. The check value of `123456789` is e9c6d914c4b8d9ca.
///
/// ```
/// use dfsnap_formats::checksum::RedisCrc;
/// let mut crc = RedisCrc::new();
/// crc.update(b"12345");
/// crc.update(b"6789");
/// assert_eq!(crc.value(), 0xe9c6_d914_c4b8_d9ca);
/// ```
#[derive(Debug, Clone)]
pub struct RedisCrc {
    digest: crc_fast::Digest,
}

impl RedisCrc {
    pub fn new() -> Self {
        RedisCrc {
            digest: crc_fast::Digest::new(Crc64Redis),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
    }

    /// The checksum of everything seen so far. More may follow.
    pub fn value(&self) -> u64 {
        self.digest.finalize()
    }

    /// Appends the bytes behind `other`, `other_len` long, whose checksum alone is `other`.
    pub fn append(&mut self, other: u64, other_len: u64) {
        let joined = redis_crc_combine(self.value(), other, other_len);
        self.digest = crc_fast::Digest::new_with_init_state(Crc64Redis, joined);
    }
}

impl Default for RedisCrc {
    fn default() -> Self {
        RedisCrc::new()
    }
}

/// Redis' CRC-64 of `bytes`.
pub fn redis_crc(bytes: &[u8]) -> u64 {
    crc_fast::checksum(Crc64Redis, bytes)
}

/// The checksum of A followed by B, from the checksum of each and the length of B in bytes.
pub fn redis_crc_combine(first: u64, second: u64, second_len: u64) -> u64 {
    crc_fast::checksum_combine(Crc64Redis, first, second, second_len)
}

/// CRC-64/XZ. The check value of `123456789` is 995dc9bbdf1939fa.
#[derive(Clone, Default)]
pub struct XzCrc {
    digest: crc64fast::Digest,
}

impl XzCrc {
    pub fn new() -> Self {
        XzCrc::default()
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.digest.write(bytes);
    }

    /// The checksum of everything seen so far. More may follow.
    pub fn value(&self) -> u64 {
        self.digest.sum64()
    }
}

impl std::fmt::Debug for XzCrc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "XzCrc({:016x})", self.value())
    }
}

/// CRC-64/XZ of `bytes`.
pub fn xz_crc(bytes: &[u8]) -> u64 {
    let mut crc = XzCrc::new();
    crc.update(bytes);
    crc.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, a bit at a time.
    fn plain_redis_crc(bytes: &[u8]) -> u64 {
        let mut crc = 0u64;
        for byte in bytes {
            crc ^= u64::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 {
                    crc >> 1 ^ 0x95ac_9329_ac4b_c9b5
                } else {
                    crc >> 1
                };
            }
        }
        crc
    }

    fn noise(len: usize) -> Vec<u8> {
        (0..len as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect()
    }

    #[test]
    fn check_values_are_those_of_the_two_definitions() {
        assert_eq!(redis_crc(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(xz_crc(b"123456789"), 0x995d_c9bb_df19_39fa);
        assert_eq!(redis_crc(b""), 0);
    }

    #[test]
    fn redis_crc_is_its_definition_at_every_length() {
        let bytes = noise(5000);
        for len in (0..300).chain([511, 512, 513, 1023, 1024, 4096, 5000]) {
            assert_eq!(
                redis_crc(&bytes[..len]),
                plain_redis_crc(&bytes[..len]),
                "{len}"
            );
        }
    }

    #[test]
    fn parts_give_the_checksum_of_the_whole() {
        let bytes = noise(3000);
        let whole = redis_crc(&bytes);
        for cut in [0, 1, 7, 128, 1500, 2999, 3000] {
            let (head, tail) = bytes.split_at(cut);
            let tail_crc = redis_crc(tail);
            assert_eq!(
                redis_crc_combine(redis_crc(head), tail_crc, tail.len() as u64),
                whole,
                "{cut}"
            );
            let mut streamed = RedisCrc::new();
            streamed.update(head);
            streamed.append(tail_crc, tail.len() as u64);
            assert_eq!(streamed.value(), whole, "{cut}");
            streamed.update(b"more");
            let longer = [&bytes[..], b"more"].concat();
            assert_eq!(streamed.value(), redis_crc(&longer), "{cut}");
        }
    }
}
