//! Ids of stream entries.

use dfsnap_formats::encoding::canonical_int;

/// Names an entry: milliseconds, then a sequence number within them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Unix milliseconds, by custom.
    pub ms: u64,
    /// Number within the millisecond.
    pub seq: u64,
}

impl StreamId {
    /// The lowest id; no entry has it.
    pub const MIN: StreamId = StreamId { ms: 0, seq: 0 };
    /// The highest id.
    pub const MAX: StreamId = StreamId {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    /// An id of these parts.
    pub const fn new(ms: u64, seq: u64) -> StreamId {
        StreamId { ms, seq }
    }

    /// The id of these sixteen bytes, as a node's key is stored.
    pub fn from_be_bytes(bytes: [u8; 16]) -> StreamId {
        let both = u128::from_be_bytes(bytes);
        StreamId {
            ms: (both >> 64) as u64,
            seq: both as u64,
        }
    }

    /// The sixteen bytes that a node's key is stored as.
    pub fn to_be_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }

    /// The id after this one.
    pub fn next(self) -> Option<StreamId> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(StreamId { ms: self.ms, seq }),
            None => Some(StreamId {
                ms: self.ms.checked_add(1)?,
                seq: 0,
            }),
        }
    }

    /// The id before this one.
    pub fn previous(self) -> Option<StreamId> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(StreamId { ms: self.ms, seq }),
            None => Some(StreamId {
                ms: self.ms.checked_sub(1)?,
                seq: u64::MAX,
            }),
        }
    }

    /// Reads `ms-seq`, or `ms` alone with `seq_default` as its second part.
    pub fn parse(text: &[u8], seq_default: u64) -> Option<StreamId> {
        let (ms, seq) = match text.iter().position(|&byte| byte == b'-') {
            Some(dash) => (&text[..dash], Some(&text[dash + 1..])),
            None => (text, None),
        };
        Some(StreamId {
            ms: part(ms)?,
            seq: seq.map_or(Some(seq_default), part)?,
        })
    }
}

/// A part of an id: the decimal text of a u64.
pub fn part(text: &[u8]) -> Option<u64> {
    if let Some(number) = canonical_int(text) {
        return u64::try_from(number).ok();
    }
    let is_plain = matches!(text, [b'1'..=b'9', ..])
        && text.len() <= 20
        && text.iter().all(u8::is_ascii_digit);
    is_plain
        .then(|| std::str::from_utf8(text).ok()?.parse().ok())
        .flatten()
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_as_in_redis() {
        let rows: &[(&str, Option<(u64, u64)>)] = &[
            ("1-2", Some((1, 2))),
            ("5", Some((5, 9))),
            ("0-0", Some((0, 0))),
            (
                "18446744073709551615-18446744073709551615",
                Some((u64::MAX, u64::MAX)),
            ),
            ("18446744073709551616-0", None),
            ("1-", None),
            ("-1", None),
            ("", None),
            ("1-2-3", None),
            ("+1-1", None),
            ("a-1", None),
        ];
        for (text, want) in rows {
            let want = want.map(|(ms, seq)| StreamId::new(ms, seq));
            assert_eq!(StreamId::parse(text.as_bytes(), 9), want, "{text:?}");
        }
    }

    #[test]
    fn neighbours_cross_the_millisecond() {
        let id = StreamId::new(7, u64::MAX);
        assert_eq!(id.next(), Some(StreamId::new(8, 0)));
        assert_eq!(StreamId::new(8, 0).previous(), Some(id));
        assert_eq!(
            (StreamId::MAX.next(), StreamId::MIN.previous()),
            (None, None)
        );
        assert_eq!(StreamId::from_be_bytes(id.to_be_bytes()), id);
    }
}
