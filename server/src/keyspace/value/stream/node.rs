//! A node of a stream: a listpack of entries, in the layout that Redis stores.
//!
//! ```text
//! live | deleted | F | field_1 … field_F | 0                                            master entry
//! flags | ms delta | seq delta | n | field | value | … | elements before this one       an entry with its own fields
//! flags | ms delta | seq delta | value_1 … value_F | elements before this one           flag 2: the master's fields
//! ```
//! Flag 1 marks a deleted entry, which stays in place. Ids are the node's id plus the deltas, each part on its own.

use dfsnap_formats::encoding::listpack::{Element, Listpack, Pos};

use super::StreamId;

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// Entries of a stream that share the fields of the first of them.
#[derive(Debug, Clone)]
pub struct Node {
    /// The id that the deltas are added to: that of the first entry.
    pub id: StreamId,
    pack: Listpack,
}

/// Where an entry is in its node.
#[derive(Debug, Clone, Copy)]
pub struct EntryAt {
    /// Its id.
    pub id: StreamId,
    flags: Pos,
    /// The number of fields, or the first value of an entry with the master's fields.
    content: Pos,
    is_deleted: bool,
    has_same_fields: bool,
}

/// An entry: its id and its fields with their values.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// Its id.
    pub id: StreamId,
    pack: &'a Listpack,
    at: EntryAt,
}

impl Node {
    /// A node whose first entry is this one.
    pub fn new(id: StreamId, fields: &[(&[u8], &[u8])], bytes_hint: usize) -> Node {
        let mut pack = Listpack::with_capacity(bytes_hint);
        pack.push_back(Element::Int(1));
        pack.push_back(Element::Int(0));
        pack.push_back(Element::Int(fields.len() as i64));
        for (field, _) in fields {
            pack.push_back(Element::parse(field));
        }
        pack.push_back(Element::Int(0));
        let mut node = Node { id, pack };
        node.push_entry(id, fields, true);
        node
    }

    /// A node read from a dump, which must have been checked.
    pub fn from_pack(id: StreamId, pack: Listpack) -> Node {
        Node { id, pack }
    }

    /// The bytes to save.
    pub fn pack(&self) -> &Listpack {
        &self.pack
    }

    /// Entries that are not deleted.
    pub fn live(&self) -> u64 {
        self.number(0)
    }

    /// Entries that are deleted and still take room.
    pub fn deleted(&self) -> u64 {
        self.number(1)
    }

    fn number(&self, index: i64) -> u64 {
        self.pack
            .get(index)
            .and_then(Element::as_int)
            .and_then(|number| u64::try_from(number).ok())
            .unwrap_or(0)
    }

    fn set_number(&mut self, index: i64, number: u64) {
        let place = self
            .pack
            .seek(index)
            .expect("a node begins with its counts");
        self.pack.replace(place, Element::Int(number as i64));
    }

    /// Adds an entry behind the others.
    pub fn push(&mut self, id: StreamId, fields: &[(&[u8], &[u8])]) {
        let same = self.master_len() == fields.len()
            && self
                .pack
                .iter()
                .skip(3)
                .zip(fields)
                .all(|(master, (field, _))| master.eq_bytes(field));
        self.push_entry(id, fields, same);
        self.set_number(0, self.live() + 1);
    }

    fn push_entry(&mut self, id: StreamId, fields: &[(&[u8], &[u8])], same: bool) {
        let count = fields.len() as i64;
        self.pack
            .push_back(Element::Int(if same { SAME_FIELDS } else { 0 }));
        self.pack
            .push_back(Element::Int(id.ms.wrapping_sub(self.id.ms) as i64));
        self.pack
            .push_back(Element::Int(id.seq.wrapping_sub(self.id.seq) as i64));
        if !same {
            self.pack.push_back(Element::Int(count));
        }
        for (field, value) in fields {
            if !same {
                self.pack.push_back(Element::parse(field));
            }
            self.pack.push_back(Element::parse(value));
        }
        self.pack
            .push_back(Element::Int(if same { count + 3 } else { 2 * count + 4 }));
    }

    fn master_len(&self) -> usize {
        self.number(2) as usize
    }

    /// The first entry of the node, deleted or not.
    pub fn first(&self) -> Option<EntryAt> {
        let after_master = i64::try_from(self.master_len()).ok()?.checked_add(4)?;
        self.entry_at(self.pack.seek(after_master)?)
    }

    /// The last entry of the node, deleted or not.
    pub fn last(&self) -> Option<EntryAt> {
        self.entry_ending(self.pack.last()?)
    }

    /// The entry after this one.
    pub fn after(&self, entry: EntryAt) -> Option<EntryAt> {
        let elements = match entry.has_same_fields {
            true => self.master_len(),
            false => 1 + 2 * self.own_len(entry),
        };
        let mut place = entry.content;
        // One more for the element that counts them.
        for _ in 0..=elements {
            place = self.pack.next(place)?;
        }
        self.entry_at(place)
    }

    /// The entry before this one.
    pub fn before(&self, entry: EntryAt) -> Option<EntryAt> {
        self.entry_ending(self.pack.prev(entry.flags)?)
    }

    fn own_len(&self, entry: EntryAt) -> usize {
        let count = self.pack.at(entry.content).as_int();
        count
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(0)
    }

    /// The entry whose flags are at `flags`.
    fn entry_at(&self, flags: Pos) -> Option<EntryAt> {
        let ms = self.pack.next(flags)?;
        let seq = self.pack.next(ms)?;
        let content = self.pack.next(seq)?;
        let bits = self.pack.at(flags).as_int()?;
        let id = StreamId {
            ms: self.id.ms.wrapping_add(self.pack.at(ms).as_int()? as u64),
            seq: self.id.seq.wrapping_add(self.pack.at(seq).as_int()? as u64),
        };
        Some(EntryAt {
            id,
            flags,
            content,
            is_deleted: bits & DELETED != 0,
            has_same_fields: bits & SAME_FIELDS != 0,
        })
    }

    /// The entry whose last element, the count of the others, is at `count`. The master entry ends with a count of 0.
    fn entry_ending(&self, count: Pos) -> Option<EntryAt> {
        let elements = self.pack.at(count).as_int().filter(|&count| count > 0)?;
        let mut flags = count;
        for _ in 0..elements {
            flags = self.pack.prev(flags)?;
        }
        self.entry_at(flags)
    }

    /// Marks an entry deleted; true if it was not. The node may then have no live entry.
    pub fn delete(&mut self, entry: EntryAt) -> bool {
        if entry.is_deleted {
            return false;
        }
        let bits = self.pack.at(entry.flags).as_int().unwrap_or(0);
        self.pack.replace(entry.flags, Element::Int(bits | DELETED));
        self.set_number(0, self.live() - 1);
        self.set_number(1, self.deleted() + 1);
        true
    }

    /// Marks live entries deleted, from the first on, while `is_over` says so. Returns how many.
    pub fn delete_while(&mut self, mut is_over: impl FnMut(StreamId) -> bool) -> u64 {
        let mut deleted = 0;
        let mut next = self.first();
        while let Some(entry) = next {
            if !entry.is_deleted {
                if !is_over(entry.id) {
                    break;
                }
                // Flags are at most 3: the element keeps its size and no place moves.
                let bits = self.pack.at(entry.flags).as_int().unwrap_or(0);
                self.pack.replace(entry.flags, Element::Int(bits | DELETED));
                deleted += 1;
            }
            next = self.after(entry);
        }
        if deleted > 0 {
            self.set_number(0, self.live() - deleted);
            self.set_number(1, self.deleted() + deleted);
        }
        deleted
    }

    /// The live entries with ids in `from..=to`, ascending.
    pub fn range(&self, from: StreamId, to: StreamId) -> impl Iterator<Item = Entry<'_>> {
        std::iter::successors(self.first(), |entry| self.after(*entry))
            .skip_while(move |entry| entry.id < from)
            .take_while(move |entry| entry.id <= to)
            .filter(|entry| !entry.is_deleted)
            .map(|at| self.entry(at))
    }

    /// The live entries with ids in `from..=to`, descending.
    pub fn range_back(&self, from: StreamId, to: StreamId) -> impl Iterator<Item = Entry<'_>> {
        std::iter::successors(self.last(), |entry| self.before(*entry))
            .skip_while(move |entry| entry.id > to)
            .take_while(move |entry| entry.id >= from)
            .filter(|entry| !entry.is_deleted)
            .map(|at| self.entry(at))
    }

    /// The live entry with this id.
    pub fn find(&self, id: StreamId) -> Option<EntryAt> {
        self.range(id, id).next().map(|entry| entry.at)
    }

    fn entry(&self, at: EntryAt) -> Entry<'_> {
        Entry {
            id: at.id,
            pack: &self.pack,
            at,
        }
    }
}

impl<'a> Entry<'a> {
    /// Number of fields.
    pub fn len(&self) -> usize {
        let place = match self.at.has_same_fields {
            true => self.pack.seek(2),
            false => Some(self.at.content),
        };
        let count = place.and_then(|place| self.pack.at(place).as_int());
        count
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(0)
    }

    /// Whether the entry has no fields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The fields with their values.
    pub fn fields(&self) -> impl Iterator<Item = (Element<'a>, Element<'a>)> + use<'a> {
        let mut left = self.len();
        let mut values = self.pack.iter_from(self.at.content);
        let mut names = None;
        if self.at.has_same_fields {
            names = self.pack.seek(3).map(|place| self.pack.iter_from(place));
        } else {
            values.next();
        }
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let name = match &mut names {
                Some(names) => names.next()?,
                None => values.next()?,
            };
            Some((name, values.next()?))
        })
    }
}
