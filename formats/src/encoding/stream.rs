//! The nodes of a stream: entries that follow a master entry, in one listpack.
//!
//! ```text
//! live, deleted, F, field_1 … field_F, 0                                           master entry
//! flags, ms, seq, [ n, n × (field, value) | F values for the master's fields ], lp_count      per entry
//! ```
//! flags: 1 = deleted, 2 = the master's fields. ms and seq are added to the node's id, each on its own, with
//! wrap-around. lp_count is the number of elements of the entry before it.

use super::listpack::{self, Checking, Element, Packed};
use super::{BlobError, canonical_int};
use crate::error::Problem;

/// The id of a stream entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    pub ms: u64,
    pub seq: u64,
}

impl StreamId {
    pub const MIN: StreamId = StreamId { ms: 0, seq: 0 };
    pub const MAX: StreamId = StreamId {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    pub fn new(ms: u64, seq: u64) -> Self {
        StreamId { ms, seq }
    }

    /// The 16 bytes of the stored form, big endian.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let wide = u128::from_be_bytes(bytes);
        StreamId {
            ms: (wide >> 64) as u64,
            seq: wide as u64,
        }
    }

    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

pub const FLAG_DELETED: i64 = 1;
pub const FLAG_SAME_FIELDS: i64 = 2;

/// What a sound node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeSummary {
    pub live: u64,
    pub deleted: u64,
    /// Id of the first entry that is not deleted.
    pub first_live: Option<StreamId>,
}

/// Checks that `pack` is a listpack and a node: the master entry, the structure of every entry, and both counts.
pub fn check_node(master: StreamId, pack: &[u8]) -> Result<NodeSummary, NodeDamage> {
    let mut entries = CheckingEntries::new(master, pack)?;
    while entries.step()?.is_some() {}
    entries.finish()
}

/// What was read, and what is wrong with it.
pub type NodeDamage = (&'static str, Problem);

/// The entries of a node in bytes from outside, each checked as it comes, in one pass. `finish` checks what can be told only
/// behind the last one.
#[derive(Debug, Clone)]
pub struct CheckingEntries<'a> {
    master: StreamId,
    elements: Checking<'a>,
    pack_len: usize,
    /// The master's fields: where they are and how many.
    master_fields: listpack::Iter<'a>,
    field_count: i64,
    /// What the node says of itself.
    live: i64,
    deleted: i64,
    seen: NodeSummary,
}

impl<'a> CheckingEntries<'a> {
    /// Checks the master entry.
    pub fn new(master: StreamId, pack: &'a [u8]) -> Result<Self, NodeDamage> {
        let mut elements = Checking::new(pack).map_err(in_pack)?;
        let pack_len = pack.len();
        let live = number(&mut elements, "stream node, live entries")?;
        let deleted = number(&mut elements, "stream node, deleted entries")?;
        let field_count = number(&mut elements, "stream node, master fields")?;
        for (reading, count) in [
            ("stream node, live entries", live),
            ("stream node, deleted entries", deleted),
            ("stream node, master fields", field_count),
        ] {
            in_range(reading, count, pack_len)?;
        }
        let master_fields = elements.unchecked();
        skip(
            &mut elements,
            field_count as usize,
            "stream node, master field",
        )?;
        let end = number(&mut elements, "stream node, end of the master entry")?;
        equal("stream node, end of the master entry", 0, end)?;
        Ok(CheckingEntries {
            master,
            elements,
            pack_len,
            master_fields,
            field_count,
            live,
            deleted,
            seen: NodeSummary {
                live: 0,
                deleted: 0,
                first_live: None,
            },
        })
    }

    /// The next live entry.
    #[inline]
    pub fn next_live(&mut self) -> Result<Option<Entry<'a>>, NodeDamage> {
        while let Some((flags, entry)) = self.step()? {
            if flags & FLAG_DELETED == 0 {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The next entry of any kind, and its flags.
    #[inline]
    fn step(&mut self) -> Result<Option<(i64, Entry<'a>)>, NodeDamage> {
        let elements = &mut self.elements;
        let Some(flags) = elements.next() else {
            return Ok(None);
        };
        let flags = as_number(flags, "stream entry, flags")?;
        if !(0..=3).contains(&flags) {
            let problem = Problem::Number {
                wanted: "flags 0..3",
                found: flags as u64,
            };
            return Err(("stream entry, flags", problem));
        }
        let ms = number(elements, "stream entry, ms")?;
        let seq = number(elements, "stream entry, seq")?;
        let id = StreamId {
            ms: self.master.ms.wrapping_add_signed(ms),
            seq: self.master.seq.wrapping_add_signed(seq),
        };
        let (pairs, elements_before) = if flags & FLAG_SAME_FIELDS != 0 {
            let pairs = Pairs {
                fields: Some(self.master_fields.clone()),
                elements: elements.unchecked(),
                left: self.field_count as usize,
            };
            skip(elements, pairs.left, "stream entry, value")?;
            (pairs, self.field_count + 3)
        } else {
            let count = number(elements, "stream entry, fields")?;
            in_range("stream entry, fields", count, self.pack_len)?;
            let pairs = Pairs {
                fields: None,
                elements: elements.unchecked(),
                left: count as usize,
            };
            skip(elements, 2 * pairs.left, "stream entry, field or value")?;
            (pairs, 2 * count + 4)
        };
        let count = number(elements, "stream entry, number of elements")?;
        equal("stream entry, number of elements", elements_before, count)?;
        if flags & FLAG_DELETED != 0 {
            self.seen.deleted += 1;
        } else {
            self.seen.live += 1;
            self.seen.first_live = self.seen.first_live.or(Some(id));
        }
        Ok(Some((flags, Entry { id, pairs })))
    }

    /// Whether the entries ended where the node does, and were as many as it says.
    pub fn finish(self) -> Result<NodeSummary, NodeDamage> {
        let seen = self.seen;
        self.elements.finish().map_err(in_pack)?;
        equal("stream node, live entries", self.live, seen.live as i64)?;
        let deleted = seen.deleted as i64;
        equal("stream node, deleted entries", self.deleted, deleted)?;
        Ok(seen)
    }
}

fn in_pack(error: BlobError) -> NodeDamage {
    ("stream node", Problem::Blob(error))
}

#[inline(always)]
fn as_number(element: Element<'_>, reading: &'static str) -> Result<i64, NodeDamage> {
    match element {
        Element::Int(number) => Ok(number),
        Element::Str(text) => number_of_text(text, reading),
    }
}

/// A number that a foreign writer left as text.
#[cold]
fn number_of_text(text: &[u8], reading: &'static str) -> Result<i64, NodeDamage> {
    canonical_int(text).ok_or_else(|| {
        let wanted = "an integer";
        let found = text.to_vec();
        (reading, Problem::Text { wanted, found })
    })
}

#[inline(always)]
fn number(elements: &mut Checking<'_>, reading: &'static str) -> Result<i64, NodeDamage> {
    match elements.next() {
        Some(element) => as_number(element, reading),
        None => Err((
            reading,
            Problem::Differs {
                wanted: 1,
                found: 0,
            },
        )),
    }
}

fn skip(
    elements: &mut Checking<'_>,
    count: usize,
    reading: &'static str,
) -> Result<(), NodeDamage> {
    for done in 0..count {
        if elements.next().is_none() {
            let problem = Problem::Differs {
                wanted: count as u64,
                found: done as u64,
            };
            return Err((reading, problem));
        }
    }
    Ok(())
}

fn in_range(reading: &'static str, count: i64, pack_len: usize) -> Result<(), NodeDamage> {
    if (0..=pack_len as i64).contains(&count) {
        return Ok(());
    }
    let wanted = "a count within the node";
    let found = count as u64;
    Err((reading, Problem::Number { wanted, found }))
}

fn equal(reading: &'static str, wanted: i64, found: i64) -> Result<(), NodeDamage> {
    if wanted == found {
        return Ok(());
    }
    let (wanted, found) = (wanted as u64, found as u64);
    Err((reading, Problem::Differs { wanted, found }))
}

/// One entry of a stream.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    pub id: StreamId,
    pairs: Pairs<'a>,
}

impl<'a> Entry<'a> {
    /// Fields and values, in order.
    pub fn pairs(&self) -> Pairs<'a> {
        self.pairs.clone()
    }
}

/// Fields and values of one entry.
#[derive(Debug, Clone)]
pub struct Pairs<'a> {
    /// The master's fields, where the entry has none of its own.
    fields: Option<listpack::Iter<'a>>,
    elements: listpack::Iter<'a>,
    left: usize,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (Element<'a>, Element<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let field = match &mut self.fields {
            Some(fields) => fields.next()?,
            None => self.elements.next()?,
        };
        Some((field, self.elements.next()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Pairs<'_> {}

/// The live entries of a node that passed `check_node`.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    master: StreamId,
    master_fields: listpack::Iter<'a>,
    field_count: usize,
    elements: listpack::Iter<'a>,
}

impl<'a> Entries<'a> {
    pub fn new(master: StreamId, pack: Packed<'a>) -> Self {
        let mut elements = pack.iter();
        elements.nth(1);
        let field_count = elements
            .next()
            .and_then(Element::as_int)
            .map_or(0, |count| count.max(0) as usize);
        let master_fields = elements.clone();
        elements.nth(field_count);
        Entries {
            master,
            master_fields,
            field_count,
            elements,
        }
    }

    #[inline]
    fn int(&mut self) -> Option<i64> {
        self.elements.next()?.as_int()
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let flags = self.int()?;
            let id = StreamId {
                ms: self.master.ms.wrapping_add_signed(self.int()?),
                seq: self.master.seq.wrapping_add_signed(self.int()?),
            };
            let same = flags & FLAG_SAME_FIELDS != 0;
            let count = if same {
                self.field_count
            } else {
                self.int()?.max(0) as usize
            };
            let pairs = Pairs {
                fields: same.then(|| self.master_fields.clone()),
                elements: self.elements.clone(),
                left: count,
            };
            // Behind the values and the number of elements.
            self.elements
                .pass(if same { count + 1 } else { 2 * count + 1 });
            if flags & FLAG_DELETED == 0 {
                return Some(Entry { id, pairs });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::listpack::Listpack;

    fn node(elements: &[&str]) -> Listpack {
        elements.iter().map(|text| text.as_bytes()).collect()
    }

    const SOUND: [&str; 26] = [
        "2", "1", "2", "temp", "hum", "0", // master
        "2", "0", "0", "20", "55", "5", // same fields
        "3", "1", "0", "21", "56", "5", // deleted
        "0", "5", "-1", "1", "wind", "9", "6", "", // fields of its own
    ];

    #[test]
    fn entries_come_with_their_ids_and_fields() {
        let pack = node(&SOUND[..25]);
        let master = StreamId::new(1000, 3);
        let summary = check_node(master, pack.as_bytes()).unwrap();
        assert_eq!((summary.live, summary.deleted), (2, 1));
        assert_eq!(summary.first_live, Some(master));
        let entries: Vec<_> = Entries::new(master, pack.as_packed())
            .map(|entry| {
                let pairs = entry.pairs().map(|(f, v)| (f.to_vec(), v.to_vec()));
                (entry.id.to_string(), pairs.collect::<Vec<_>>())
            })
            .collect();
        let pair = |f: &str, v: &str| (f.as_bytes().to_vec(), v.as_bytes().to_vec());
        let want = [
            (
                "1000-3".to_owned(),
                vec![pair("temp", "20"), pair("hum", "55")],
            ),
            ("1005-2".to_owned(), vec![pair("wind", "9")]),
        ];
        assert_eq!(entries, want);
        let mut checking = CheckingEntries::new(master, pack.as_bytes()).unwrap();
        for (id, want) in want {
            let entry = checking.next_live().unwrap().unwrap();
            let pairs = entry.pairs().map(|(f, v)| (f.to_vec(), v.to_vec()));
            assert_eq!(
                (entry.id.to_string(), pairs.collect::<Vec<_>>()),
                (id, want)
            );
        }
        assert!(checking.next_live().unwrap().is_none());
        assert_eq!(checking.finish().unwrap(), summary);
    }

    #[test]
    fn every_count_is_checked() {
        for at in [0, 1, 2, 5, 6, 11, 12, 17, 18, 21, 24] {
            let mut elements = SOUND[..25].to_vec();
            elements[at] = "77";
            assert!(
                check_node(StreamId::MIN, node(&elements).as_bytes()).is_err(),
                "{at}"
            );
        }
        for len in 0..25 {
            let cut = node(&SOUND[..len]);
            assert!(
                check_node(StreamId::MIN, cut.as_bytes()).is_err(),
                "cut at {len}"
            );
        }
        assert!(
            check_node(StreamId::MIN, node(&SOUND).as_bytes()).is_err(),
            "one more"
        );
    }

    #[test]
    fn ids_order_by_time_then_sequence_and_keep_their_bytes() {
        let id = StreamId::new(1, u64::MAX);
        assert!(id < StreamId::new(2, 0));
        assert_eq!(StreamId::from_bytes(id.to_bytes()), id);
        assert_eq!(id.to_string(), "1-18446744073709551615");
    }
}
