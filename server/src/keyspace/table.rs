//! The hash table of the keyspace, of large hashes and of large sets.
//!
//! Extendible hashing: a directory of a power-of-two number of places points at segments; a segment has 64 buckets, each a
//! short vector of items with one-byte fingerprints. The first bits of the hash choose the place, the next six
//! the bucket:
//!
//! ```text
//!  hash  | directory bits (depth of the segment) | 6 bits: bucket | rest …      | 8 low bits: fingerprint |
//! ```
//!
//! So the order of buckets is the order of hash prefixes, and an item's place in a walk never changes: a cursor is a
//! hash value, and it stays valid when segments split and merge. An item that is present throughout a walk is
//! returned exactly once.
//!
//! Growth splits one segment (64 buckets of about a dozen items); nothing is ever rehashed as a whole. When two
//! sibling segments are sparse they merge, so memory comes back. Who knows how many items come ([`Table::expect`])
//! gets a directory of that size with places that are vacant until their first item comes, and nothing is split.
//!
//! Invariants
//! - Every item sits in the bucket that its hash names; `items` and `fingerprints` of a bucket run in step.
//! - A segment of depth d stands in 2^(directory depth - d) neighbouring places of the directory.
//! - A vacant place is one segment without items, as deep as the directory.

use super::hash;

/// An item of a [`Table`]: something that can name its key.
pub trait Keyed {
    /// The key's bytes. They must not change while the item is in a table.
    fn key(&self) -> &[u8];

    /// Reads what a look-up of this item reads, so that it is in the cache then.
    #[inline]
    fn warm(&self) {
        std::hint::black_box(self.key().first().copied());
    }
}

/// Where a walk stands: everything whose hash is below it has been returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u64);

impl Cursor {
    /// The start of a walk.
    pub const START: Cursor = Cursor(0);
}

/// Where an item is, until the table changes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    segment: u32,
    bucket: u32,
    slot: u32,
}

const BUCKET_BITS: u32 = 6;
const BUCKETS: usize = 1 << BUCKET_BITS;
/// A bucket that would grow past this splits its segment.
const BUCKET_ITEMS_MAX: usize = 24;
/// Two siblings with at most this many items together become one segment: half of what a full one holds.
const MERGE_ITEMS: usize = BUCKETS * 5;
/// Items of a bucket, on average, in a table that was told how many items come: at 13, one segment of ten is split
/// in the end, at 15 two of three.
const EXPECTED_ITEMS_MAX: usize = 13;
/// No announcement makes a directory deeper.
const EXPECTED_DEPTH_MAX: u32 = 24;
/// In the directory: no segment yet.
const VACANT: u32 = u32::MAX;
/// A bucket of a segment this deep may exceed `BUCKET_ITEMS_MAX`: more bits of the hash would not part its items.
const DEPTH_MAX: u32 = 40;

/// Aligned to a cache line: a lookup that misses the cache pays for one line of it, not for two.
#[repr(align(64))]
struct Bucket<T> {
    items: Vec<T>,
    /// Low byte of the hash of each item. Entries past `items.len()` are meaningless.
    fingerprints: [u8; BUCKET_ITEMS_MAX],
}

impl<T> Default for Bucket<T> {
    fn default() -> Self {
        Bucket {
            items: Vec::new(),
            fingerprints: [0; BUCKET_ITEMS_MAX],
        }
    }
}

impl<T: Keyed> Bucket<T> {
    #[inline]
    fn position(&self, hash: u64, key: &[u8]) -> Option<usize> {
        let known = self.items.len().min(BUCKET_ITEMS_MAX);
        let mut candidates = self.candidates(hash as u8) & ((1u32 << known) - 1);
        while candidates != 0 {
            let at = candidates.trailing_zeros() as usize;
            if self.items[at].key() == key {
                return Some(at);
            }
            candidates &= candidates - 1;
        }
        (known..self.items.len()).find(|&at| self.items[at].key() == key)
    }

    /// One bit for each fingerprint that equals `wanted`, compared eight at a time.
    #[inline]
    fn candidates(&self, wanted: u8) -> u32 {
        const LOW: u64 = 0x0101_0101_0101_0101;
        const REST: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        let mut bits = 0;
        for (i, eight) in self.fingerprints.as_chunks::<8>().0.iter().enumerate() {
            let difference = u64::from_le_bytes(*eight) ^ (LOW * u64::from(wanted));
            // The top bit of each byte that is zero, exactly; then the eight top bits side by side.
            let zeros = !(((difference & REST) + REST) | difference | REST) >> 7;
            let side_by_side = zeros.wrapping_mul(0x0102_0408_1020_4080) >> 56;
            bits |= (side_by_side as u32) << (8 * i);
        }
        bits
    }

    /// Adds an item. `expected`: how many items the bucket will have, 0 if nobody knows.
    fn push(&mut self, hash: u64, item: T, expected: usize) {
        let at = self.items.len();
        if at == self.items.capacity() {
            let wanted = growth::<T>(at.max(expected.saturating_sub(1)));
            self.items.reserve_exact(wanted - at);
        }
        if at < BUCKET_ITEMS_MAX {
            self.fingerprints[at] = hash as u8;
        }
        self.items.push(item);
    }

    fn take(&mut self, at: usize) -> T {
        let last = self.items.len() - 1;
        let item = self.items.swap_remove(at);
        if at < BUCKET_ITEMS_MAX {
            self.fingerprints[at] = if last < BUCKET_ITEMS_MAX {
                self.fingerprints[last]
            } else if at < last {
                hash::of(self.items[at].key()) as u8
            } else {
                0
            };
        }
        if last * 2 < self.items.capacity() && self.items.capacity() > 4 {
            self.items.shrink_to(growth::<T>(last));
        }
        item
    }
}

/// The next capacity above `len` items. It fills the allocator's size classes, which lie a fifth apart.
fn growth<T>(len: usize) -> usize {
    let bytes = (len + 1) * size_of::<T>();
    let class = if bytes <= 128 {
        bytes.next_multiple_of(16)
    } else {
        let step = (bytes - 1).ilog2() - 2;
        bytes.next_multiple_of(1 << step)
    };
    (class / size_of::<T>()).max(len + 1)
}

struct Segment<T> {
    /// How many leading bits of the hash all items of this segment share.
    depth: u32,
    len: usize,
    buckets: [Bucket<T>; BUCKETS],
}

impl<T: Keyed> Segment<T> {
    fn new(depth: u32) -> Box<Segment<T>> {
        Box::new(Segment {
            depth,
            len: 0,
            buckets: std::array::from_fn(|_| Bucket::default()),
        })
    }

    fn bucket_index(&self, hash: u64) -> usize {
        ((hash << self.depth) >> (64 - BUCKET_BITS)) as usize
    }
}

/// A hash table whose walks survive growth and shrinking; see the module documentation.
pub struct Table<T> {
    /// 2^depth places; each names a segment of `segments`, or is [`VACANT`].
    directory: Vec<u32>,
    depth: u32,
    segments: Vec<Option<Box<Segment<T>>>>,
    free: Vec<u32>,
    len: usize,
    /// Items there will be, as far as somebody said so.
    expected: usize,
}

impl<T: Keyed> Default for Table<T> {
    fn default() -> Self {
        Table::new()
    }
}

impl<T: Keyed> Table<T> {
    /// An empty table. It allocates with its first item.
    pub fn new() -> Table<T> {
        Table {
            directory: Vec::new(),
            depth: 0,
            segments: Vec::new(),
            free: Vec::new(),
            len: 0,
            expected: 0,
        }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the table has no items.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of heap memory of the table itself, without what the items own.
    pub fn heap_bytes(&self) -> usize {
        let items: usize = self
            .segments
            .iter()
            .flatten()
            .flat_map(|s| &s.buckets)
            .map(|b| b.items.capacity())
            .sum();
        self.directory.capacity() * size_of::<u32>()
            + self.segments.iter().flatten().count() * size_of::<Segment<T>>()
            + items * size_of::<T>()
    }

    /// The part of that which holds no items: known without a walk.
    pub fn frame_bytes(&self) -> usize {
        self.directory.capacity() * size_of::<u32>() + self.segments.len() * size_of::<Segment<T>>()
    }

    #[inline]
    fn place(&self, hash: u64) -> usize {
        // Two shifts: a directory of depth 0 would shift by 64.
        ((hash >> 1) >> (63 - self.depth)) as usize
    }

    #[inline]
    fn segment_of(&self, hash: u64) -> Option<&Segment<T>> {
        let index = *self.directory.get(self.place(hash))?;
        self.segments.get(index as usize)?.as_deref()
    }

    #[inline]
    fn segment_of_mut(&mut self, hash: u64) -> Option<&mut Segment<T>> {
        let index = *self.directory.get(self.place(hash))?;
        self.segments.get_mut(index as usize)?.as_deref_mut()
    }

    /// Where the item with this key is. `hash` is [`hash::of`]`(key)`.
    #[inline]
    pub fn locate(&self, hash: u64, key: &[u8]) -> Option<Place> {
        let segment_index = *self.directory.get(self.place(hash))?;
        let segment = self.segments.get(segment_index as usize)?.as_deref()?;
        let bucket = segment.bucket_index(hash);
        let slot = segment.buckets[bucket].position(hash, key)?;
        Some(Place {
            segment: segment_index,
            bucket: bucket as u32,
            slot: slot as u32,
        })
    }

    /// The item at a place, which must come from [`Table::locate`] with no change in between.
    #[inline]
    pub fn at(&self, place: Place) -> &T {
        let segment = self.segments[place.segment as usize]
            .as_deref()
            .expect("a place names a segment");
        &segment.buckets[place.bucket as usize].items[place.slot as usize]
    }

    /// [`Table::at`], to change anything but the item's key.
    #[inline]
    pub fn at_mut(&mut self, place: Place) -> &mut T {
        let segment = self.segments[place.segment as usize]
            .as_deref_mut()
            .expect("a place names a segment");
        &mut segment.buckets[place.bucket as usize].items[place.slot as usize]
    }

    /// The item with this key. `hash` is [`hash::of`]`(key)`.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<&T> {
        let segment = self.segment_of(hash)?;
        let bucket = &segment.buckets[segment.bucket_index(hash)];
        bucket.position(hash, key).map(|i| &bucket.items[i])
    }

    /// The item with this key, to change anything but its key.
    #[inline]
    pub fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut T> {
        let segment = self.segment_of_mut(hash)?;
        let bucket = segment.bucket_index(hash);
        let bucket = &mut segment.buckets[bucket];
        bucket.position(hash, key).map(|i| &mut bucket.items[i])
    }

    /// The first item of this hash's bucket that `wanted` accepts: for an index that knows only hashes.
    pub fn find_by_hash(&self, hash: u64, wanted: impl Fn(&T) -> bool) -> Option<&T> {
        let segment = self.segment_of(hash)?;
        segment.buckets[segment.bucket_index(hash)]
            .items
            .iter()
            .find(|item| wanted(item))
    }

    /// Says that `items` more items are coming: room in the directory for them, memory only as they come.
    pub fn expect(&mut self, items: usize) {
        self.expected = self.expected.max(self.len).saturating_add(items);
        let segments = self.expected / (BUCKETS * EXPECTED_ITEMS_MAX);
        if segments == 0 {
            return;
        }
        let depth = segments.next_power_of_two().ilog2().min(EXPECTED_DEPTH_MAX);
        if self.directory.is_empty() {
            self.directory.push(VACANT);
        }
        while self.depth < depth {
            self.deepen();
        }
    }

    /// Reads what an insertion of this hash will look at, so that it is in the cache then. Several such reads, one after
    /// another, wait for memory together; insertions would wait one by one.
    #[inline]
    pub fn warm(&self, hash: u64) {
        if let Some(segment) = self.segment_of(hash) {
            let last = segment.buckets[segment.bucket_index(hash)].items.last();
            std::hint::black_box(last.map_or(0, |item| item.key().len()));
        }
    }

    /// The same for a look-up of a key that is probably there.
    #[inline]
    pub fn warm_item(&self, hash: u64) {
        if let Some(segment) = self.segment_of(hash) {
            let bucket = &segment.buckets[segment.bucket_index(hash)];
            let candidates = bucket.candidates(hash as u8);
            let place = candidates.trailing_zeros() as usize;
            // Without one like it, an insertion looks at the end.
            if let Some(item) = bucket.items.get(place).or(bucket.items.last()) {
                item.warm();
            }
        }
    }

    /// Adds an item whose key is not in the table.
    ///
    /// Panics in debug builds if the key is there already: the caller has looked.
    pub fn insert(&mut self, hash: u64, item: T) -> &mut T {
        debug_assert!(
            self.find(hash, item.key()).is_none(),
            "insert of a key that is there"
        );
        self.make_room(hash);
        self.push(hash, item)
    }

    /// Adds an item unless its key is there already: then the item comes back.
    pub fn insert_new(&mut self, hash: u64, item: T) -> Result<&mut T, T> {
        self.make_room(hash);
        if self.find(hash, item.key()).is_some() {
            return Err(item);
        }
        Ok(self.push(hash, item))
    }

    /// Sees to it that there is a segment for this hash, with room in its bucket.
    fn make_room(&mut self, hash: u64) {
        if self.directory.is_empty() {
            self.directory.push(VACANT);
        }
        let place = self.place(hash);
        if self.directory[place] == VACANT {
            self.directory[place] = self.keep(Segment::new(self.depth));
        }
        while self.is_full(hash) {
            self.split(self.place(hash));
        }
    }

    fn push(&mut self, hash: u64, item: T) -> &mut T {
        let expected = match self.len < self.expected {
            true => most_items(self.expected >> (self.depth + BUCKET_BITS)),
            false => 0,
        };
        self.len += 1;
        let segment = self
            .segment_of_mut(hash)
            .expect("room was made for this hash");
        segment.len += 1;
        let bucket = segment.bucket_index(hash);
        let bucket = &mut segment.buckets[bucket];
        bucket.push(hash, item, expected);
        bucket.items.last_mut().expect("just pushed")
    }

    fn is_full(&self, hash: u64) -> bool {
        self.segment_of(hash).is_some_and(|segment| {
            segment.buckets[segment.bucket_index(hash)].items.len() >= BUCKET_ITEMS_MAX
                && segment.depth < DEPTH_MAX
        })
    }

    /// Takes the item with this key out.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> Option<T> {
        let segment = self.segment_of_mut(hash)?;
        let bucket = segment.bucket_index(hash);
        let bucket = &mut segment.buckets[bucket];
        let at = bucket.position(hash, key)?;
        let item = bucket.take(at);
        segment.len -= 1;
        let is_sparse = segment.len * 2 < MERGE_ITEMS;
        self.len -= 1;
        if is_sparse {
            self.merge(self.place(hash));
        }
        Some(item)
    }

    /// Splits the segment at `place` by the next bit of its items' hashes.
    fn split(&mut self, mut place: usize) {
        let index = self.directory[place];
        let mut old = self.segments[index as usize]
            .take()
            .expect("a place names a segment");
        let depth = old.depth;
        if depth == self.depth {
            self.deepen();
            place *= 2;
        }
        let mut halves = [Segment::new(depth + 1), Segment::new(depth + 1)];
        for bucket in &mut old.buckets {
            for item in std::mem::take(&mut bucket.items) {
                let hash = hash::of(item.key());
                let half = &mut halves[((hash << depth) >> 63) as usize];
                let bucket = half.bucket_index(hash);
                half.buckets[bucket].push(hash, item, 0);
                half.len += 1;
            }
        }
        let [low, high] = halves;
        self.segments[index as usize] = Some(low);
        let high_index = self.keep(high);
        let span = 1usize << (self.depth - depth);
        let first = place & !(span - 1);
        self.directory[first + span / 2..first + span].fill(high_index);
    }

    /// Doubles the directory.
    fn deepen(&mut self) {
        self.directory = self.directory.iter().flat_map(|&s| [s, s]).collect();
        self.depth += 1;
    }

    fn keep(&mut self, segment: Box<Segment<T>>) -> u32 {
        match self.free.pop() {
            Some(index) => {
                self.segments[index as usize] = Some(segment);
                index
            }
            None => {
                self.segments.push(Some(segment));
                (self.segments.len() - 1) as u32
            }
        }
    }

    /// Joins the segment at `place` with its sibling while the two fit well into one.
    fn merge(&mut self, place: usize) {
        let index = self.directory[place];
        let Some(depth) = self.segments[index as usize].as_ref().map(|s| s.depth) else {
            return;
        };
        if depth == 0 {
            if self.len == 0 {
                *self = Table::new();
            }
            return;
        }
        let span = 1usize << (self.depth - depth);
        let first = place & !(span - 1);
        let sibling_first = first ^ span;
        let sibling = self.directory[sibling_first];
        let of = |index: u32| {
            self.segments
                .get(index as usize)?
                .as_ref()
                .map(|s| (s.depth, s.len))
        };
        let (Some((_, len)), Some((sibling_depth, sibling_len))) = (of(index), of(sibling)) else {
            return;
        };
        if sibling_depth != depth || len + sibling_len > MERGE_ITEMS {
            return;
        }
        let mut joined = Segment::new(depth - 1);
        for from in [index, sibling] {
            let mut segment = self.segments[from as usize]
                .take()
                .expect("a place names a segment");
            for bucket in &mut segment.buckets {
                for item in std::mem::take(&mut bucket.items) {
                    let hash = hash::of(item.key());
                    let bucket = joined.bucket_index(hash);
                    joined.buckets[bucket].push(hash, item, 0);
                    joined.len += 1;
                }
            }
        }
        self.segments[index as usize] = Some(joined);
        self.free.push(sibling);
        let low = first.min(sibling_first);
        self.directory[low..low + 2 * span].fill(index);
        self.shrink_directory();
    }

    /// Halves the directory while no segment needs its last bit; places that are still vacant do not.
    fn shrink_directory(&mut self) {
        while self.depth > 0 && self.segments.iter().flatten().all(|s| s.depth < self.depth) {
            self.directory = self.directory.iter().step_by(2).copied().collect();
            self.depth -= 1;
        }
    }

    /// One step of a walk: calls `visit` for each item of the next bucket and returns where the walk stands then, or
    /// `None` at its end. Empty buckets are passed over, at most 1024 of them.
    pub fn scan(&self, cursor: Cursor, mut visit: impl FnMut(&T)) -> Option<Cursor> {
        let mut from = cursor.0;
        for _ in 0..1024 {
            let depth = self.depth;
            let Some(segment) = self.segment_of(from) else {
                from = end_of_prefix(from, depth)?;
                continue;
            };
            let index = segment.bucket_index(from);
            let width = 64 - BUCKET_BITS - segment.depth;
            let start = (from >> width) << width;
            let next = start.checked_add(1 << width);
            let bucket = &segment.buckets[index];
            for item in &bucket.items {
                // A merge widens buckets: then a cursor can stand inside one.
                if from == start || hash::of(item.key()) >= from {
                    visit(item);
                }
            }
            from = next?;
            if !bucket.items.is_empty() {
                break;
            }
        }
        Some(Cursor(from))
    }

    /// Like [`Table::scan`], with items to change: anything but their keys.
    pub fn scan_mut(&mut self, cursor: Cursor, mut visit: impl FnMut(&mut T)) -> Option<Cursor> {
        let mut from = cursor.0;
        for _ in 0..1024 {
            let depth = self.depth;
            let Some(segment) = self.segment_of_mut(from) else {
                from = end_of_prefix(from, depth)?;
                continue;
            };
            let index = segment.bucket_index(from);
            let width = 64 - BUCKET_BITS - segment.depth;
            let start = (from >> width) << width;
            let next = start.checked_add(1 << width);
            let bucket = &mut segment.buckets[index];
            for item in &mut bucket.items {
                if from == start || hash::of(item.key()) >= from {
                    visit(item);
                }
            }
            from = next?;
            if !bucket.items.is_empty() {
                break;
            }
        }
        Some(Cursor(from))
    }

    /// All items, in the order of [`Table::scan`].
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let mut last = None;
        self.directory
            .iter()
            .filter(move |&&index| last.replace(index) != Some(index))
            .flat_map(|&index| self.segments.get(index as usize)?.as_deref())
            .flat_map(|segment| segment.buckets.iter())
            .flat_map(|bucket| bucket.items.iter())
    }

    /// An item chosen at random, near enough to evenly: a random bucket, then a random item of it, where buckets
    /// are accepted in proportion to their fill.
    pub fn random(&self, mut random: impl FnMut() -> u64) -> Option<&T> {
        if self.len == 0 {
            return None;
        }
        for _ in 0..512 {
            let Some(segment) = self.segment_of(random()) else {
                continue;
            };
            // A shallow segment stands for more of the hash range, and has its share of items: no correction.
            let slot = random() as usize % (BUCKETS * BUCKET_ITEMS_MAX);
            if let Some(item) = segment.buckets[slot / BUCKET_ITEMS_MAX]
                .items
                .get(slot % BUCKET_ITEMS_MAX)
            {
                return Some(item);
            }
        }
        let skip = random() as usize % self.len;
        self.iter().nth(skip)
    }
}

/// What five of six buckets do not exceed where there are so many items on average. A bucket that grows leaves a hole in memory
/// that others of its kind, who grow at the same time, do not fill: better a few unused slots.
fn most_items(average: usize) -> usize {
    average + average / 3
}

/// The first hash behind those that share the first `depth` bits with `hash`.
fn end_of_prefix(hash: u64, depth: u32) -> Option<u64> {
    // Two shifts: of a prefix without bits all 64 are left.
    let last = hash | (u64::MAX >> 1 >> depth << 1) | 1;
    last.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    struct Item(Vec<u8>, u64);

    impl Keyed for Item {
        fn key(&self) -> &[u8] {
            &self.0
        }
    }

    fn key(n: u32) -> Vec<u8> {
        format!("key:{n}").into_bytes()
    }

    fn insert(table: &mut Table<Item>, n: u32) {
        let key = key(n);
        table.insert(hash::of(&key), Item(key, u64::from(n)));
    }

    fn walk(table: &Table<Item>) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        let mut cursor = Some(Cursor::START);
        while let Some(at) = cursor {
            cursor = table.scan(at, |item| seen.push(item.0.clone()));
        }
        seen
    }

    proptest! {
        #[test]
        fn table_agrees_with_a_map(
            ops in prop::collection::vec((any::<bool>(), 0u32..3000), 1..6000),
            announced in prop::collection::btree_map(0usize..6000, 0usize..40_000, 0..3),
        ) {
            let mut table = Table::new();
            let mut model = BTreeMap::new();
            for (step, (is_insert, n)) in ops.into_iter().enumerate() {
                if let Some(&items) = announced.get(&step) {
                    table.expect(items);
                }
                let key = key(n);
                let hash = hash::of(&key);
                table.warm(hash);
                prop_assert_eq!(table.find(hash, &key).map(|i: &Item| i.1), model.get(&n).copied());
                if is_insert {
                    let is_new = model.insert(n, u64::from(n)).is_none();
                    prop_assert_eq!(table.insert_new(hash, Item(key, u64::from(n))).is_ok(), is_new);
                } else {
                    prop_assert_eq!(table.remove(hash, &key).map(|i| i.1), model.remove(&n));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let seen: BTreeSet<_> = walk(&table).into_iter().collect();
            prop_assert_eq!(seen, model.keys().map(|&n| self::key(n)).collect::<BTreeSet<_>>());
            prop_assert_eq!(table.iter().count(), model.len());
        }

        /// Items 0..500 stay throughout; others come and go in bulk, so that segments split and merge during the walk.
        #[test]
        fn walk_returns_what_stays_exactly_once(
            waves in prop::collection::vec((any::<bool>(), 1u32..20_000), 1..12),
            announced in prop::sample::select(vec![0usize, 500, 20_000, 300_000]),
        ) {
            let mut table = Table::new();
            table.expect(announced);
            for n in 0..500 {
                insert(&mut table, n);
            }
            let mut others = BTreeSet::new();
            let mut waves = waves.into_iter().cycle();
            let mut seen = BTreeMap::<Vec<u8>, u32>::new();
            let mut cursor = Some(Cursor::START);
            let mut steps = 0;
            while let Some(at) = cursor {
                cursor = table.scan(at, |item| *seen.entry(item.0.clone()).or_default() += 1);
                steps += 1;
                if steps % 40 == 0 && steps < 600 {
                    let (grow, upto) = waves.next().expect("a cycle");
                    for n in 500..500 + upto {
                        if grow && others.insert(n) {
                            insert(&mut table, n);
                        } else if !grow && others.remove(&n) {
                            let key = key(n);
                            table.remove(hash::of(&key), &key).expect("it was there");
                        }
                    }
                }
            }
            for n in 0..500 {
                prop_assert_eq!(seen.get(&key(n)), Some(&1), "item {}", n);
            }
        }
    }

    #[test]
    fn memory_comes_back_when_items_go() {
        let mut table = Table::new();
        for n in 0..100_000 {
            insert(&mut table, n);
        }
        let full = table.heap_bytes();
        for n in 0..99_900 {
            let key = key(n);
            table.remove(hash::of(&key), &key).expect("it was there");
        }
        assert_eq!(table.len(), 100);
        assert!(
            table.heap_bytes() * 50 < full,
            "{} of {full} bytes left",
            table.heap_bytes()
        );
        assert_eq!(walk(&table).len(), 100);
    }

    #[test]
    fn hardly_a_segment_splits_when_the_number_was_announced() {
        let mut table = Table::new();
        table.expect(100_000);
        let (segments, empty) = (1 << table.depth, table.heap_bytes());
        assert!(empty < 4096, "{empty} bytes before the first item");
        for n in 0..100_000 {
            insert(&mut table, n);
        }
        let split = table.segments.len() - segments;
        assert!(split * 4 < segments, "{split} of {segments} segments split");
    }

    #[test]
    fn random_reaches_every_item() {
        let mut table = Table::new();
        table.expect(2000);
        for n in 0..200 {
            insert(&mut table, n);
        }
        let mut seed = fastrand::Rng::with_seed(7);
        let seen: BTreeSet<_> = (0..20_000)
            .map(|_| table.random(|| seed.u64(..)).expect("not empty").1)
            .collect();
        assert_eq!(seen.len(), 200);
    }
}
