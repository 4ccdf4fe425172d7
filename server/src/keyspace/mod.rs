//! The keyspace of one shard: databases of entries, and the one door to change them.
//!
//! Commands, expiry, eviction, FLUSH, loading and replication all change entries here and nowhere else:
//! [`Keyspace::update`], [`Keyspace::insert`], [`Keyspace::remove`]. Passing the door runs the observer on the entry as it was and
//! stamps it with the epoch.
//!
//! Invariants
//! - An entry whose version is below the newest cut is shown to the observer before it changes or goes.
//! - Versions never exceed the epoch; an entry that moves keeps its version.
//! - The expiry index of a database holds exactly the entries that have an expiry.

pub mod blob;
pub mod entry;
pub mod eviction;
pub mod expiry;
pub mod hash;
pub mod release;
pub mod settings;
pub mod table;
pub mod value;
pub mod watch;

use std::any::Any;
use std::collections::HashSet;

use blob::Blob;
use entry::{Access, Entry, Version};
use expiry::{ExpiryIndex, FieldExpiryIndex};
use table::{Cursor, Place, Table};
use value::Value;
use watch::{Presence, WatchTable};

/// The number of a database, as in SELECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DbIndex(pub u32);

/// Names a table for as long as it lives, whatever database number it stands under (SWAPDB) or none (FLUSHALL during a snapshot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u32);

/// A place in a primary's stream: how many of its bytes are applied, and the database selected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamPlace {
    /// Bytes.
    pub offset: u64,
    /// Selected behind them.
    pub db: DbIndex,
}

/// A key with its hash, so that a command hashes once.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The key's bytes.
    pub bytes: &'a [u8],
    /// [`hash::of`] of the bytes.
    pub hash: u64,
}

impl<'a> Key<'a> {
    /// Hashes `bytes`.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Key<'a> {
        Key {
            bytes,
            hash: hash::of(bytes),
        }
    }
}

/// The shard of a key, of `shards`.
#[inline]
pub fn shard_of(hash: u64, shards: usize) -> usize {
    // The low half: the table orders by the high bits.
    ((u64::from(hash as u32) * shards as u64) >> 32) as usize
}

/// The shard of a key's bytes.
pub fn shard_of_key(key: &[u8], shards: usize) -> usize {
    shard_of(hash::of(key), shards)
}

/// What must see entries before they change: snapshots.
pub trait Observer: Any + Send {
    /// The entry is about to change or go, and its version is below the newest cut. Must not wait.
    fn before_update(&mut self, table: TableId, entry: &Entry);
    /// A walk meets an entry whose version is below the newest cut. True: it is saved and is to be stamped; false: it is saved later,
    /// and must not change until then.
    fn meets(&mut self, table: TableId, entry: &Entry) -> bool;
    /// A whole table has left the keyspace (FLUSH). Gives it back if no snapshot needs it.
    fn detached(&mut self, table: TableId, entries: Table<Entry>) -> Option<Table<Entry>>;
    /// Whether an entry whose version is below the newest cut may change now, or the write should wait: what it adds has no room,
    /// or the entry is so large that it is saved in slices.
    fn admits(&self, table: TableId, entry: &Entry) -> bool;
    /// Whether the keyspace may leave its shard now. If not, what stands against it comes to its end, and nothing new that would
    /// begins before it has left.
    fn may_leave(&self) -> bool;
    /// For the module that knows what this is.
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// For the module that knows what this is.
    fn as_any(&self) -> &dyn Any;
}

/// One database of one shard.
pub struct Database {
    id: TableId,
    entries: Table<Entry>,
    expiry: ExpiryIndex,
    field_expiry: FieldExpiryIndex,
}

impl Database {
    fn new(id: TableId) -> Database {
        Database {
            id,
            entries: Table::new(),
            expiry: ExpiryIndex::default(),
            field_expiry: FieldExpiryIndex::default(),
        }
    }

    /// The table's name.
    pub fn id(&self) -> TableId {
        self.id
    }

    /// Its entries, to read.
    pub fn entries(&self) -> &Table<Entry> {
        &self.entries
    }

    /// Its expiring entries.
    pub fn expiry(&self) -> &ExpiryIndex {
        &self.expiry
    }
}

/// All databases of one shard.
pub struct Keyspace {
    databases: Vec<Database>,
    next_table: u32,
    epoch: Version,
    /// The newest cut that some snapshot still needs, 0 if none: the only thing a write looks at when no snapshot runs.
    cut: Version,
    observer: Box<dyn Observer>,
    /// Who goes next when memory is short.
    eviction: eviction::Pool,
    /// Of a replica: what of the primary's stream is applied here. The highest of all shards counts.
    pub place: Option<StreamPlace>,
    /// It is a replica's: a client's command that was let through before runs as one of a replica's client. Changed on all shards at
    /// once.
    pub is_follower: bool,
    /// Of a replica: a full sync is loaded here, and its client's commands see nothing of it. Changed on all shards at once.
    pub is_closed: bool,
    /// Keys that connections watch.
    pub watches: WatchTable,
    /// Of a replica: keys that its own clients have made expire. What the primary has made, the primary removes.
    pub own_expiring: HashSet<(DbIndex, Blob)>,
    /// Counters.
    pub stats: Stats,
    /// Databases were emptied or changed places, and those who wait for keys do not know yet.
    has_moved: bool,
}

/// Counters of one shard, summed by INFO.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Lookups that found a key.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Entries removed because their time had come.
    pub expired: u64,
    /// Fields of hashes removed because their time had come.
    pub expired_fields: u64,
    /// Entries removed to make room.
    pub evicted: u64,
    /// Commands that changed something, since the last save.
    pub changes: u64,
}

impl Keyspace {
    /// An empty keyspace of `databases` databases, watched by `observer`.
    pub fn new(databases: u32, observer: Box<dyn Observer>) -> Keyspace {
        Keyspace {
            databases: (0..databases).map(|n| Database::new(TableId(n))).collect(),
            next_table: databases,
            epoch: 1,
            cut: 0,
            observer,
            eviction: eviction::Pool::default(),
            place: None,
            is_follower: false,
            is_closed: false,
            watches: WatchTable::default(),
            own_expiring: HashSet::new(),
            stats: Stats::default(),
            has_moved: false,
        }
    }

    /// Whether databases were emptied or changed places since the last call.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// Number of databases.
    pub fn database_count(&self) -> u32 {
        self.databases.len() as u32
    }

    /// A database, to read.
    #[inline]
    pub fn database(&self, db: DbIndex) -> &Database {
        &self.databases[db.0 as usize]
    }

    /// The current epoch.
    pub fn epoch(&self) -> Version {
        self.epoch
    }

    /// The newest cut that a snapshot still needs, 0 if none.
    pub fn cut(&self) -> Version {
        self.cut
    }

    /// Begins a new epoch, and returns it: the cut of a snapshot that starts now.
    pub fn advance_epoch(&mut self) -> Version {
        self.epoch = self
            .epoch
            .checked_add(1)
            .expect("four thousand million snapshots");
        self.cut = self.epoch;
        self.epoch
    }

    /// Says which cut is the newest that a snapshot still needs; 0 for none.
    pub fn set_cut(&mut self, cut: Version) {
        assert!(cut <= self.epoch, "cut {cut} after epoch {}", self.epoch);
        self.cut = cut;
    }

    /// The observer.
    pub fn observer(&self) -> &dyn Observer {
        &*self.observer
    }

    /// The observer, to change.
    pub fn observer_mut(&mut self) -> &mut dyn Observer {
        &mut *self.observer
    }

    /// The entry of a key, expired or not.
    #[inline]
    pub fn get(&self, db: DbIndex, key: Key<'_>) -> Option<&Entry> {
        self.databases[db.0 as usize]
            .entries
            .find(key.hash, key.bytes)
    }

    /// Where the entry of a key is, until the next change.
    #[inline]
    pub fn locate(&self, db: DbIndex, key: Key<'_>) -> Option<Place> {
        self.databases[db.0 as usize]
            .entries
            .locate(key.hash, key.bytes)
    }

    /// The entry at a place just located.
    #[inline]
    pub fn at(&self, db: DbIndex, place: Place) -> &Entry {
        self.databases[db.0 as usize].entries.at(place)
    }

    /// Notes that an entry was used. Not a change.
    #[inline]
    pub fn touch(&mut self, db: DbIndex, place: Place, access: Access) {
        self.databases[db.0 as usize]
            .entries
            .at_mut(place)
            .set_access(access);
    }

    /// [`Keyspace::update`] of an entry just located.
    #[inline]
    pub fn update_at(&mut self, db: DbIndex, place: Place, hash: u64) -> EntryMut<'_> {
        let database = &mut self.databases[db.0 as usize];
        let entry = database.entries.at_mut(place);
        if entry.version() < self.cut {
            self.observer.before_update(database.id, entry);
        }
        entry.stamp(self.epoch);
        EntryMut {
            entry,
            expiry: &mut database.expiry,
            field_expiry: &mut database.field_expiry,
            hash,
        }
    }

    /// The door to a changing entry: runs the observer, stamps the entry and hands it out.
    #[inline]
    pub fn update(&mut self, db: DbIndex, key: Key<'_>) -> Option<EntryMut<'_>> {
        let place = self.locate(db, key)?;
        Some(self.update_at(db, place, key.hash))
    }

    /// The door for a key that is not there.
    pub fn insert(
        &mut self,
        db: DbIndex,
        key: Key<'_>,
        value: Value,
        access: Access,
    ) -> EntryMut<'_> {
        let database = &mut self.databases[db.0 as usize];
        let entry = Entry::new(Blob::new(key.bytes), value, self.epoch, access);
        let entry = database.entries.insert(key.hash, entry);
        EntryMut::of_new(
            entry,
            &mut database.expiry,
            &mut database.field_expiry,
            key.hash,
        )
    }

    /// [`Keyspace::insert`] for who does not know whether the key is there: then nothing is changed, and there is `None`.
    pub fn insert_new(
        &mut self,
        db: DbIndex,
        key: Key<'_>,
        value: Value,
        access: Access,
    ) -> Option<EntryMut<'_>> {
        let database = &mut self.databases[db.0 as usize];
        let entry = Entry::new(Blob::new(key.bytes), value, self.epoch, access);
        let entry = database.entries.insert_new(key.hash, entry).ok()?;
        Some(EntryMut::of_new(
            entry,
            &mut database.expiry,
            &mut database.field_expiry,
            key.hash,
        ))
    }

    /// Says that so many entries more are coming into a database.
    pub fn expect(&mut self, db: DbIndex, entries: usize) {
        self.databases[db.0 as usize].entries.expect(entries);
    }

    /// See [`Table::warm`].
    #[inline]
    pub fn warm(&self, db: DbIndex, hash: u64) {
        self.databases[db.0 as usize].entries.warm(hash);
    }

    /// See [`Table::warm_item`].
    #[inline]
    pub fn warm_entry(&self, db: DbIndex, hash: u64) {
        self.databases[db.0 as usize].entries.warm_item(hash);
    }

    /// The door out: runs the observer and takes the entry away.
    pub fn remove(&mut self, db: DbIndex, key: Key<'_>) -> Option<Entry> {
        let database = &mut self.databases[db.0 as usize];
        if self.cut > 0 {
            let entry = database.entries.find(key.hash, key.bytes)?;
            if entry.version() < self.cut {
                self.observer.before_update(database.id, entry);
            }
        }
        let entry = database.entries.remove(key.hash, key.bytes)?;
        database.expiry.change(key.hash, entry.expire_at_ms(), None);
        if !database.field_expiry.is_empty() {
            database.field_expiry.forget(key.hash);
        }
        Some(entry)
    }

    /// Whether a write to this key may go on, or must wait until the observer has room.
    #[inline]
    pub fn admits_write(&self, db: DbIndex, key: Key<'_>) -> bool {
        self.cut == 0
            || self.get(db, key).is_none_or(|entry| {
                entry.version() >= self.cut || self.observer.admits(self.database(db).id, entry)
            })
    }

    /// Puts an entry back that [`Keyspace::remove`] took out, of this keyspace or of another shard's, keeping its version.
    pub fn put_back(&mut self, db: DbIndex, entry: Entry) {
        let database = &mut self.databases[db.0 as usize];
        let hash = hash::of(entry.key());
        database.expiry.change(hash, None, entry.expire_at_ms());
        if let Some(at) = first_field_expiry(entry.value()) {
            database.field_expiry.note(hash, at);
        }
        database.entries.insert(hash, entry);
    }

    /// Takes entries out for a run elsewhere, which gives them back by [`Keyspace::take_back`]. The observer sees them first.
    pub fn lend(&mut self, keys: &[(DbIndex, Blob)]) -> Vec<(DbIndex, Entry)> {
        for (db, key) in keys {
            self.update(*db, Key::new(key));
        }
        self.take_out(keys)
    }

    /// [`Keyspace::put_back`] of several.
    pub fn take_back(&mut self, entries: Vec<(DbIndex, Entry)>) {
        for (db, entry) in entries {
            self.put_back(db, entry);
        }
    }

    /// [`Keyspace::remove`] of several keys.
    pub fn take_out(&mut self, keys: &[(DbIndex, Blob)]) -> Vec<(DbIndex, Entry)> {
        keys.iter()
            .filter_map(|(db, key)| Some((*db, self.remove(*db, Key::new(key))?)))
            .collect()
    }

    /// An empty keyspace in the same epoch and role, for a run on lent entries: what passes its door is stamped as here.
    pub fn beside(&self) -> Keyspace {
        let mut beside = Keyspace::new(self.database_count(), Box::new(NoObserver));
        beside.epoch = self.epoch;
        beside.is_follower = self.is_follower;
        beside.is_closed = self.is_closed;
        beside
    }

    /// Takes over what a run on lent entries has noted: what expired, and what is this replica's own to remove. Lookups have been counted
    /// here.
    pub fn adopt_notes(&mut self, beside: &mut Keyspace) {
        self.stats.expired += beside.stats.expired;
        self.stats.expired_fields += beside.stats.expired_fields;
        self.own_expiring.extend(beside.own_expiring.drain());
    }

    /// Walks the entries of a database without changing them; see [`Table::scan`].
    pub fn scan(&self, db: DbIndex, cursor: Cursor, visit: impl FnMut(&Entry)) -> Option<Cursor> {
        self.database(db).entries.scan(cursor, visit)
    }

    /// Shows the observer every entry of the next bucket whose version is below `cut`, and stamps them: one step of a
    /// snapshot's traverser.
    pub fn save_bucket(&mut self, table: TableId, cursor: Cursor) -> Option<Cursor> {
        let database = self
            .databases
            .iter_mut()
            .find(|database| database.id == table)?;
        let (observer, epoch, cut) = (&mut self.observer, self.epoch, self.cut);
        database.entries.scan_mut(cursor, |entry| {
            if entry.version() < cut && observer.meets(table, entry) {
                entry.stamp(epoch);
            }
        })
    }

    /// An entry of a table under a database number, with the observer: for a snapshot that saves it in slices.
    pub fn entry_of(
        &mut self,
        table: TableId,
        key: Key<'_>,
    ) -> Option<(&mut dyn Observer, &mut Entry)> {
        let database = self
            .databases
            .iter_mut()
            .find(|database| database.id == table)?;
        let entry = database.entries.find_mut(key.hash, key.bytes)?;
        Some((&mut *self.observer, entry))
    }

    /// Whether a table is still under a database number.
    pub fn has_table(&self, table: TableId) -> bool {
        self.databases.iter().any(|database| database.id == table)
    }

    /// Empties a database and returns its entries, for the caller to drop where it does not hurt; `None` if a snapshot keeps them.
    pub fn flush(&mut self, db: DbIndex) -> Option<Table<Entry>> {
        let new = Database::new(TableId(self.next_table));
        self.replace(db, new)
    }

    /// Puts the databases of another keyspace, which nobody observed, in place of all of this one's. Entries of these are returned as by
    /// [`Keyspace::flush`].
    pub fn take_over(&mut self, other: Keyspace) -> Vec<Table<Entry>> {
        assert_eq!(
            self.databases.len(),
            other.databases.len(),
            "databases of two keyspaces"
        );
        self.own_expiring.clear();
        let mut old = Vec::new();
        for (n, new) in other.databases.into_iter().enumerate() {
            // Snapshots tell tables by their names, and know none of these.
            let id = TableId(self.next_table);
            old.extend(self.replace(DbIndex(n as u32), Database { id, ..new }));
        }
        old
    }

    /// `new` has the name that is given to a table next.
    fn replace(&mut self, db: DbIndex, new: Database) -> Option<Table<Entry>> {
        self.next_table += 1;
        let old = &self.databases[db.0 as usize];
        mark_watched(&mut self.watches, db, old, &new);
        self.has_moved = true;
        let old = std::mem::replace(&mut self.databases[db.0 as usize], new);
        if self.cut > 0 {
            self.observer.detached(old.id, old.entries)
        } else {
            Some(old.entries)
        }
    }

    /// Those who wait for keys are to look again: entries have come that passed no command.
    pub fn note_moved(&mut self) {
        self.has_moved = true;
    }

    /// Whoever watches these keys, which have changed, hears of it.
    #[inline]
    pub fn mark_touched(&mut self, touched: &[(DbIndex, Blob)]) {
        if self.watches.is_empty() {
            return;
        }
        let (watches, databases) = (&mut self.watches, &self.databases);
        watches.mark(touched, |db, key| {
            let entries = &databases[db.0 as usize].entries;
            entries.find(hash::of(key), key).is_some()
        });
    }

    /// Exchanges two databases.
    pub fn swap(&mut self, a: DbIndex, b: DbIndex) {
        let [one, other] = [a, b].map(|db| &self.databases[db.0 as usize]);
        mark_watched(&mut self.watches, a, one, other);
        mark_watched(&mut self.watches, b, other, one);
        self.has_moved = true;
        self.databases.swap(a.0 as usize, b.0 as usize);
    }

    /// Takes up to `max` fields whose time is past out of a hash just located, and returns their names. The caller removes a
    /// hash that has none left.
    pub fn lapse_at(
        &mut self,
        db: DbIndex,
        place: Place,
        hash: u64,
        now_ms: i64,
        max: usize,
    ) -> Vec<Blob> {
        let mut entry = self.update_at(db, place, hash);
        let gone = match entry.value() {
            Value::Hash(fields) => fields.lapse(now_ms, max),
            _ => Vec::new(),
        };
        self.stats.expired_fields += gone.len() as u64;
        gone
    }

    /// A hash with a field whose time is past at `now_ms`.
    pub fn first_lapsed(&mut self, db: DbIndex, now_ms: i64) -> Option<Blob> {
        let database = &mut self.databases[db.0 as usize];
        while let Some((at, hash)) = database.field_expiry.first().filter(|&(at, _)| at < now_ms) {
            let entry = database.entries.find_by_hash(hash, |entry| {
                hash::of(entry.key()) == hash && first_field_expiry(entry.value()).is_some()
            });
            let first = entry.and_then(|entry| first_field_expiry(entry.value()));
            if first == Some(at) {
                return entry.map(|entry| entry.key().clone());
            }
            database.field_expiry.forget(hash);
            if let Some(first) = first {
                database.field_expiry.note(hash, first);
            }
        }
        None
    }

    /// The key that expires first, if it has expired by `now_ms`.
    pub fn first_expired(&self, db: DbIndex, now_ms: i64) -> Option<Blob> {
        let database = self.database(db);
        let (at, hash) = database.expiry.first().filter(|&(at, _)| at < now_ms)?;
        let entry = database.entries.find_by_hash(hash, |entry| {
            entry.expire_at_ms() == Some(at) && hash::of(entry.key()) == hash
        });
        Some(
            entry
                .expect("the expiry index names an entry")
                .key()
                .clone(),
        )
    }
}

/// Whoever watches a key of this database hears of a change: what is in `old` gives way to what is in `new`.
fn mark_watched(watches: &mut WatchTable, db: DbIndex, old: &Database, new: &Database) {
    if watches.is_empty() {
        return;
    }
    let now_ms = crate::clock::now_ms();
    let presence = |database: &Database, key: &[u8]| {
        let entry = database.entries.find(hash::of(key), key);
        match entry {
            None => Presence::Absent,
            Some(entry) if entry.is_expired(now_ms) => Presence::Expired,
            Some(_) => Presence::Live,
        }
    };
    watches.mark_database(db, |key| presence(old, key), |key| presence(new, key));
}

/// When the first field of a hash expires.
#[inline]
fn first_field_expiry(value: &Value) -> Option<i64> {
    match value {
        Value::Hash(fields) => fields.first_expiry_ms(),
        _ => None,
    }
}

/// Empties all databases of these shards. What no snapshot keeps is dropped on the release thread.
pub fn flush_all(keyspaces: &mut [Box<Keyspace>]) {
    for keyspace in keyspaces {
        for db in (0..keyspace.database_count()).map(DbIndex) {
            if let Some(entries) = keyspace.flush(db) {
                release::drop_later(entries);
            }
        }
    }
}

/// An entry that may be changed: the observer has seen it as it was.
pub struct EntryMut<'a> {
    entry: &'a mut Entry,
    expiry: &'a mut ExpiryIndex,
    field_expiry: &'a mut FieldExpiryIndex,
    hash: u64,
}

impl<'a> EntryMut<'a> {
    fn of_new(
        entry: &'a mut Entry,
        expiry: &'a mut ExpiryIndex,
        field_expiry: &'a mut FieldExpiryIndex,
        hash: u64,
    ) -> EntryMut<'a> {
        let mut entry = EntryMut {
            entry,
            expiry,
            field_expiry,
            hash,
        };
        entry.note_field_expiry();
        entry
    }

    /// The entry, to read.
    pub fn entry(&self) -> &Entry {
        self.entry
    }

    /// The value, to change.
    pub fn value(&mut self) -> &mut Value {
        self.entry.value_mut()
    }

    /// The value, to change, for as long as the keyspace is borrowed.
    pub fn into_value(self) -> &'a mut Value {
        self.entry.value_mut()
    }

    /// Puts another value in place and returns the old one. The expiry stays.
    pub fn replace_value(&mut self, value: Value) -> Value {
        let old = std::mem::replace(self.entry.value_mut(), value);
        self.note_field_expiry();
        old
    }

    /// Sets or clears the expiry of a field, if the value is a hash with that field.
    pub fn set_field_expire_at_ms(&mut self, field: &[u8], at: Option<i64>) {
        if let Value::Hash(fields) = self.entry.value_mut() {
            fields.set_expire_at_ms(field, at);
        }
        if let Some(at) = at {
            self.field_expiry.note(self.hash, at);
        }
    }

    fn note_field_expiry(&mut self) {
        if let Some(at) = first_field_expiry(self.entry.value()) {
            self.field_expiry.note(self.hash, at);
        }
    }

    /// Sets or clears the expiry, in Unix milliseconds.
    pub fn set_expire_at_ms(&mut self, at: Option<i64>) {
        self.expiry.change(self.hash, self.entry.expire_at_ms(), at);
        self.entry.set_expire_at_ms(at);
    }

    /// Notes a use.
    pub fn set_access(&mut self, access: Access) {
        self.entry.set_access(access);
    }
}

/// An observer with nothing to observe.
pub struct NoObserver;

impl Observer for NoObserver {
    fn before_update(&mut self, _: TableId, _: &Entry) {}
    fn meets(&mut self, _: TableId, _: &Entry) -> bool {
        true
    }
    fn detached(&mut self, _: TableId, entries: Table<Entry>) -> Option<Table<Entry>> {
        Some(entries)
    }
    fn admits(&self, _: TableId, _: &Entry) -> bool {
        true
    }
    fn may_leave(&self) -> bool {
        true
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
