//! Where a replica stands: which history, how many of its bytes, and the database selected there.

use std::fmt;
use std::str::FromStr;

/// Names one history of a dataset. Servers compare it without regard to case.
#[derive(Clone, Copy)]
pub struct ReplId([u8; 40]);

impl ReplId {
    /// 40 printable bytes; servers write hex digits but check nothing.
    pub fn parse(text: &[u8]) -> Option<ReplId> {
        let id: [u8; 40] = text.try_into().ok()?;
        id.iter().all(u8::is_ascii_graphic).then_some(ReplId(id))
    }

    pub fn as_bytes(&self) -> &[u8; 40] {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a replication id is ASCII")
    }
}

impl PartialEq for ReplId {
    fn eq(&self, other: &ReplId) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for ReplId {}

impl fmt::Display for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplId({self})")
    }
}

/// A replica's place in its primary's stream.
///
/// The database belongs to it: after a partial resync the stream goes on in the database selected where it
/// broke off, without a SELECT. Whoever stores a position stores all three. The text form is
/// `<replid>:<offset>:<db>`.
///
/// ```
/// use dfsnap_replica::Position;
/// let text = "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb:1057:2";
/// let position: Position = text.parse().unwrap();
/// assert_eq!((position.offset, position.db), (1057, 2));
/// assert_eq!(position.to_string(), text);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub replid: ReplId,
    /// Bytes of the stream processed; the next byte wanted is `offset + 1`.
    pub offset: u64,
    pub db: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.replid, self.offset, self.db)
    }
}

/// A text that is not `<replid>:<offset>:<db>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("replication position: wanted <40 characters>:<offset>:<db>, found {0:?}")]
pub struct BadPosition(String);

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Position, BadPosition> {
        let parse = || {
            let mut parts = text.splitn(3, ':');
            let replid = ReplId::parse(parts.next()?.as_bytes())?;
            let offset = parts.next()?.parse().ok()?;
            let db = parts.next()?.parse().ok()?;
            Some(Position { replid, offset, db })
        };
        parse().ok_or_else(|| BadPosition(text.chars().take(100).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replication_ids_compare_without_case() {
        let lower = ReplId::parse(b"8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb").unwrap();
        let upper = ReplId::parse(b"8371B4FB1155B71F4A04D3E1BC3E18C4A990AEEB").unwrap();
        assert_eq!(lower, upper);
    }

    #[test]
    fn replication_ids_have_40_printable_bytes() {
        let rows: &[(&str, &[u8])] = &[
            ("empty", b""),
            ("39", &[b'a'; 39]),
            ("41", &[b'a'; 41]),
            ("blank", &[b' '; 40]),
        ];
        for (name, text) in rows {
            assert!(ReplId::parse(text).is_none(), "{name}");
        }
    }

    #[test]
    fn positions_that_are_none_are_refused() {
        for text in [
            "",
            "a:1:0",
            "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb:-1:0",
            "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb:1",
        ] {
            assert!(text.parse::<Position>().is_err(), "{text:?}");
        }
    }
}
