//! What a running command sees of the world: entries, the clock, the limits, and its reply.
//!
//! A run is atomic: nothing else touches these entries until the handler returns, and the clock stands still.
//!
//! Invariants
//! - On a primary an expired key is removed when a command meets it, and that removal goes to replicas before the
//!   command's own effect.
//! - On a replica an expired key is absent for clients, and present for commands from the primary.
//! - The same holds for fields of hashes. Not all of them go when a command meets their hash, so commands look at hashes
//!   through [`Exec::field_clock`], and take out the fields they name first ([`Exec::lapse_fields`]).

use std::time::Instant;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dfsnap_formats::resp::Reply;
use smallvec::SmallVec;

use super::acl::User;
use super::blocking::Wait;
use super::events::Event;
use super::runner::Runner;
use super::{CommandError, Effect};
use crate::keyspace::entry::{Access, Entry};
use crate::keyspace::release;
use crate::keyspace::settings::Settings;
use crate::keyspace::table::Place;
use crate::keyspace::value::{Type, Value};
use crate::keyspace::{DbIndex, EntryMut, Key, Keyspace, blob::Blob, shard_of};
use crate::pubsub::tracking::Caller;
use crate::stats::CommandStats;

/// On whose behalf a command runs: decides what happens to expired keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A client of a primary: expired keys go.
    Client,
    /// A client of a replica: expired keys are hidden, the primary removes them.
    ReplicaClient,
    /// The link to the primary, or a loading file: no key is expired.
    Link,
}

/// Fields past their time that a look at their hash takes out.
const LAPSES_AT_ONCE: usize = 1024;

#[inline]
fn has_lapsed(entry: &Entry, now_ms: i64) -> bool {
    match entry.value() {
        Value::Hash(hash) => hash.first_expiry_ms().is_some_and(|at| at < now_ms),
        _ => false,
    }
}

/// The context of a running command.
pub struct Exec<'a> {
    /// The shard of the command's keys, or all shards in a global run.
    keyspaces: &'a mut [Box<Keyspace>],
    /// The selected database.
    pub db: DbIndex,
    /// The clock, Unix milliseconds; the same throughout a run.
    pub now_ms: i64,
    /// On whose behalf.
    pub actor: Actor,
    /// Settings.
    pub settings: &'a Settings,
    /// Where the reply goes.
    pub reply: &'a mut Reply,
    /// Keys that met their end by expiry during this run, with their database: their removals precede the effect.
    pub expired: SmallVec<[(DbIndex, Blob); 1]>,
    /// Keyspace events that the words of the effect do not tell of: new keys, missed keys, trims.
    pub events: SmallVec<[Event; 1]>,
    /// Removed last: a command that puts another value in its place makes no new key.
    removed: Option<(DbIndex, Blob)>,
    /// The command only reads: a key that it looks for in vain is a miss, however it looks.
    pub notes_misses: bool,
    /// A look at a key is no use of it (CLIENT NO-TOUCH).
    pub is_no_touch: bool,
    /// A database was emptied.
    pub has_flushed: bool,
    /// Fields that met their end likewise: database, key, field.
    pub lapsed: Vec<(DbIndex, Blob, Blob)>,
    /// Keys that passed the door, if anybody watches keys.
    pub touched: Option<Vec<(DbIndex, Blob)>>,
    /// Random numbers.
    pub random: &'a mut fastrand::Rng,
    /// Set by a blocking command that found nothing: what it waits for. Where it may not wait, its reply counts.
    pub wait: Option<Box<Wait>>,
    /// The id of the client; 0: none.
    pub client_id: u64,
    /// Of a script: on whose behalf, for tracking and the slow log.
    pub caller: Caller,
    /// Of a script: where its commands are measured.
    pub stats: Option<&'a mut CommandStats>,
    /// Whose rights bound what a script does.
    pub user: Option<Arc<User>>,
    /// Whether effects are wanted.
    pub is_journaling: bool,
    /// Over how many elements a command may run here; see [`super::aside`].
    pub most_elements: usize,
    /// A script has met a key that it did not declare, before it wrote: it must run again, with all shards.
    pub needs_everything: bool,
    /// A script has asked for a key that it does not declare.
    pub has_strayed: bool,
    /// When the last command within this one ended: the next is timed from there.
    nested_mark: Option<Instant>,
}

impl<'a> Exec<'a> {
    /// A context over `keyspaces`: one shard's, or all of them in order.
    pub fn new(
        keyspaces: &'a mut [Box<Keyspace>],
        db: DbIndex,
        now_ms: i64,
        actor: Actor,
        settings: &'a Settings,
        reply: &'a mut Reply,
        random: &'a mut fastrand::Rng,
    ) -> Exec<'a> {
        Exec {
            keyspaces,
            db,
            now_ms,
            actor,
            settings,
            reply,
            expired: SmallVec::new(),
            events: SmallVec::new(),
            notes_misses: false,
            removed: None,
            is_no_touch: false,
            has_flushed: false,
            lapsed: Vec::new(),
            touched: None,
            random,
            wait: None,
            client_id: 0,
            caller: Caller::default(),
            stats: None,
            user: None,
            is_journaling: false,
            most_elements: usize::MAX,
            needs_everything: false,
            has_strayed: false,
            nested_mark: None,
        }
    }

    /// Whether this run has all shards.
    pub fn has_all_shards(&self) -> bool {
        self.keyspaces.len() == self.settings.shards
    }

    /// Whether commands that need memory are refused.
    pub fn is_out_of_memory(&self) -> bool {
        super::eviction::is_out_of_memory(self.settings, self.actor)
    }

    /// Runs commands within this one, on the same entries and at the same time.
    pub fn nested(&mut self) -> Runner<'_> {
        Runner {
            keyspaces: self.keyspaces,
            settings: self.settings,
            random: self.random,
            now_ms: self.now_ms,
            actor: self.actor,
            caller: self.caller.clone(),
            stats: self.stats.as_deref_mut().expect("a runner runs scripts"),
            mark: self.nested_mark.insert(Instant::now()),
            may_wait: false,
            most_elements: usize::MAX,
            is_journaling: self.is_journaling,
            is_watched: self.touched.is_some(),
            user: None,
        }
    }

    /// Takes over the keys that commands within this one touched.
    pub fn adopt_touched(&mut self, keys: Vec<(DbIndex, Blob)>) {
        if let Some(touched) = &mut self.touched {
            touched.extend(keys);
        }
    }

    /// The keyspaces and the reply.
    pub fn parts(&mut self) -> (&mut [Box<Keyspace>], &mut Reply) {
        (&mut *self.keyspaces, &mut *self.reply)
    }

    /// All keyspaces this run may touch.
    pub fn keyspaces(&mut self) -> &mut [Box<Keyspace>] {
        self.keyspaces
    }

    /// The keyspace that holds a key.
    #[inline]
    pub fn keyspace(&mut self, hash: u64) -> &mut Keyspace {
        match self.keyspaces.len() {
            1 => &mut self.keyspaces[0],
            n => &mut self.keyspaces[shard_of(hash, n)],
        }
    }

    /// All keyspaces of this run, and the reply.
    pub fn keyspaces_with_reply(&mut self) -> (&[Box<Keyspace>], &mut Reply) {
        (self.keyspaces, self.reply)
    }

    /// Number of shards of the server.
    pub fn shards(&self) -> usize {
        self.settings.shards
    }

    /// The keyspace of a shard, which is among those of this run.
    pub fn keyspace_of_shard(&mut self, shard: usize) -> &mut Keyspace {
        let at = if self.keyspaces.len() == 1 { 0 } else { shard };
        &mut self.keyspaces[at]
    }

    /// Whether a run over so many elements must not be on this thread: then the handler does nothing and returns [`Effect::Aside`].
    pub fn is_too_long(&self, elements: usize) -> bool {
        elements > self.most_elements
    }

    /// The same of a run over so many bytes of a string.
    #[inline]
    pub fn is_too_large(&self, bytes: usize) -> bool {
        bytes / super::aside::BYTES_OF_AN_ELEMENT > self.most_elements
    }

    /// Number of databases.
    pub fn database_count(&self) -> u32 {
        self.keyspaces[0].database_count()
    }

    /// Where the key's entry is, if it is there for this run. Removes it if its time has come and this run may do that.
    #[inline]
    fn live(&mut self, db: DbIndex, key: Key<'_>) -> Option<Place> {
        let (now_ms, actor) = (self.now_ms, self.actor);
        let keyspace = self.keyspace(key.hash);
        let place = keyspace.locate(db, key)?;
        let entry = keyspace.at(db, place);
        if !entry.is_expired(now_ms) {
            // While a snapshot has no room for the hash as it was, its fields are only hidden.
            let lapses = actor == Actor::Client && has_lapsed(entry, now_ms);
            if lapses && keyspace.admits_write(db, key) {
                return self.lapse(db, key, place);
            }
            return Some(place);
        }
        match self.actor {
            Actor::Link => Some(place),
            Actor::ReplicaClient => None,
            // While clients are paused nothing goes, not even that.
            Actor::Client if self.settings.hub.is_paused.load(Ordering::Relaxed) => None,
            Actor::Client => {
                let keyspace = self.keyspace(key.hash);
                if let Some(entry) = keyspace.remove(db, key) {
                    release::drop_entry(entry);
                }
                keyspace.stats.expired += 1;
                self.expired.push((db, Blob::new(key.bytes)));
                self.note_touch(db, key);
                None
            }
        }
    }

    /// Takes fields whose time is past out of a hash, not too many at once. `None` if none are left and the key is gone.
    #[cold]
    fn lapse(&mut self, db: DbIndex, key: Key<'_>, place: Place) -> Option<Place> {
        let now_ms = self.now_ms;
        let keyspace = self.keyspace(key.hash);
        let gone = keyspace.lapse_at(db, place, key.hash, now_ms, LAPSES_AT_ONCE);
        self.note_lapsed(db, key, gone);
        let keyspace = self.keyspace(key.hash);
        if keyspace.at(db, place).value().is_empty_collection() {
            keyspace.remove(db, key);
            return None;
        }
        Some(place)
    }

    fn note_lapsed(&mut self, db: DbIndex, key: Key<'_>, fields: Vec<Blob>) {
        let names = fields
            .into_iter()
            .map(|field| (db, Blob::new(key.bytes), field));
        self.lapsed.extend(names);
        self.note_touch(db, key);
    }

    /// The clock by which fields of hashes are there or not: a command of the primary sees them all.
    pub fn field_clock(&self) -> i64 {
        match self.actor {
            Actor::Link => i64::MIN,
            Actor::Client | Actor::ReplicaClient => self.now_ms,
        }
    }

    /// Takes these fields out of a hash if their time is past. For commands that will write them: most have gone when the
    /// hash was looked up, but not all if there were many.
    pub fn lapse_fields(&mut self, key: &[u8], fields: &[&[u8]]) {
        let (db, now_ms, known) = (self.db, self.now_ms, Key::new(key));
        if self.actor != Actor::Client {
            return;
        }
        let Some(place) = self.live(db, known) else {
            return;
        };
        let entry = self.keyspace(known.hash).at(db, place);
        if !has_lapsed(entry, now_ms) {
            return;
        }
        let mut entry = self.keyspace(known.hash).update_at(db, place, known.hash);
        let Value::Hash(hash) = entry.value() else {
            return;
        };
        let mut gone = Vec::new();
        for field in fields {
            if hash.expire_at_ms(field).is_some_and(|at| at < now_ms) {
                hash.remove(field);
                gone.push(Blob::new(field));
            }
        }
        self.keyspace(known.hash).stats.expired_fields += gone.len() as u64;
        self.note_lapsed(db, known, gone);
    }

    #[inline]
    fn note_touch(&mut self, db: DbIndex, key: Key<'_>) {
        if let Some(touched) = &mut self.touched {
            touched.push((db, Blob::new(key.bytes)));
        }
    }

    /// A key that was looked for is not there. Said once for each key.
    fn note_miss(&mut self, db: DbIndex, key: &[u8]) {
        let is_known = |event: &Event| event.class == b'm' && event.key.as_slice() == key;
        if !self.events.iter().any(is_known) {
            self.notify(b'm', "keymiss", db, key);
        }
    }

    /// Notes a keyspace event, if its class is published.
    #[inline]
    pub fn notify(&mut self, class: u8, name: &'static str, db: DbIndex, key: &[u8]) {
        if self.settings.hub.has_event(class) {
            self.events.push(Event {
                class,
                name,
                db,
                key: Blob::new(key),
            });
        }
    }

    fn next_access(&mut self, old: Access) -> Access {
        if self.settings.lfu {
            old.used(
                self.now_ms,
                self.settings.lfu_log_factor,
                self.settings.lfu_decay_time,
                self.random,
            )
        } else {
            Access::at(self.now_ms)
        }
    }

    fn first_access(&self) -> Access {
        if self.settings.lfu {
            Access::new_lfu(self.now_ms)
        } else {
            Access::at(self.now_ms)
        }
    }

    /// The entry of a key, for a command that reads it: counts a hit or a miss and notes the use.
    #[inline]
    pub fn read(&mut self, key: &[u8]) -> Option<&Entry> {
        self.read_with_reply(key).0
    }

    /// [`Exec::read`], with the reply to write to while the entry is borrowed.
    #[inline]
    pub fn read_with_reply(&mut self, key: &[u8]) -> (Option<&Entry>, &mut Reply) {
        let key = Key::new(key);
        let db = self.db;
        let Some(place) = self.live(db, key) else {
            self.keyspace(key.hash).stats.misses += 1;
            self.note_miss(db, key.bytes);
            return (None, self.reply);
        };
        let old = self.keyspace(key.hash).at(db, place).access();
        let access = self.next_access(old);
        let Exec {
            keyspaces, reply, ..
        } = self;
        let at = if keyspaces.len() == 1 {
            0
        } else {
            shard_of(key.hash, keyspaces.len())
        };
        let keyspace = &mut keyspaces[at];
        keyspace.stats.hits += 1;
        if access != old && !self.is_no_touch {
            keyspace.touch(db, place, access);
        }
        (Some(keyspace.at(db, place)), reply)
    }

    /// The entry of a key, without noting a use or counting (OBJECT, TTL, TYPE, EXISTS, and looks before a write).
    #[inline]
    pub fn peek(&mut self, key: &[u8]) -> Option<&Entry> {
        self.peek_in(self.db, key)
    }

    /// [`Exec::peek`] in another database.
    pub fn peek_in(&mut self, db: DbIndex, key: &[u8]) -> Option<&Entry> {
        let key = Key::new(key);
        let Some(place) = self.live(db, key) else {
            if self.notes_misses {
                self.note_miss(db, key.bytes);
            }
            return None;
        };
        Some(self.keyspace(key.hash).at(db, place))
    }

    /// The entry of a key that this run has looked up and found: several can be held at once.
    pub fn found(&self, key: &[u8]) -> Option<&Entry> {
        let key = Key::new(key);
        let at = match self.keyspaces.len() {
            1 => 0,
            n => shard_of(key.hash, n),
        };
        self.keyspaces[at].get(self.db, key)
    }

    /// The type of a key, if it is there.
    pub fn kind(&mut self, key: &[u8]) -> Option<Type> {
        self.peek(key).map(|entry| entry.value().kind())
    }

    /// The bytes of a string key; an error if it holds another type.
    #[inline]
    pub fn read_string(&mut self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, CommandError> {
        match self.read(key) {
            None => Ok(None),
            Some(entry) => entry
                .value()
                .as_string()
                .map(Some)
                .ok_or(CommandError::WRONG_TYPE),
        }
    }

    /// The door: the entry of a key, to change it. Call it only when something is sure to change.
    #[inline]
    pub fn update(&mut self, key: &[u8]) -> Option<EntryMut<'_>> {
        let key = Key::new(key);
        let db = self.db;
        let place = self.live(db, key)?;
        let old = self.keyspace(key.hash).at(db, place).access();
        let access = self.next_access(old);
        self.note_touch(db, key);
        let mut entry = self.keyspace(key.hash).update_at(db, place, key.hash);
        entry.set_access(access);
        Some(entry)
    }

    /// A key that this command has removed and makes again counts as new.
    pub fn forget_removed(&mut self) {
        self.removed = None;
    }

    /// Sets a key to a new value, whatever was there, and clears its expiry. Returns the entry.
    pub fn set(&mut self, key: &[u8], value: Value) -> EntryMut<'_> {
        self.set_in(self.db, key, value)
    }

    /// [`Exec::set`] in another database.
    pub fn set_in(&mut self, db: DbIndex, key: &[u8], value: Value) -> EntryMut<'_> {
        let key = Key::new(key);
        let access = self.first_access();
        self.note_touch(db, key);
        // A replica's client does not see an expired entry, but it is there to be replaced.
        let place = self
            .live(db, key)
            .or_else(|| self.keyspace(key.hash).locate(db, key));
        let is_back = (self.removed.as_ref()).is_some_and(|(removed_db, removed)| {
            *removed_db == db && removed.as_slice() == key.bytes
        });
        if place.is_none() && !is_back {
            self.notify(b'n', "new", db, key.bytes);
        }
        let keyspace = self.keyspace(key.hash);
        let Some(place) = place else {
            return keyspace.insert(db, key, value, access);
        };
        let mut entry = keyspace.update_at(db, place, key.hash);
        release::drop_value(entry.replace_value(value));
        entry.set_expire_at_ms(None);
        entry.set_access(access);
        entry
    }

    /// The door for a write that creates the key if it is missing: the value made by `new`, or the one that is there.
    pub fn update_or_insert(&mut self, key: &[u8], new: impl FnOnce() -> Value) -> EntryMut<'_> {
        if self.peek(key).is_none() {
            return self.set(key, new());
        }
        self.update(key).expect("it is there")
    }

    /// Removes a key. Returns its entry if it was there (an expired one was not).
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        self.remove_in(self.db, key)
    }

    /// The effect of having removed a key because it was given a time that is past.
    pub fn deletion(&self, key: &[u8]) -> Effect {
        let is_unlink = self.settings.expire_as_unlink;
        let name: &[u8] = if is_unlink { b"UNLINK" } else { b"DEL" };
        Effect::command(&[name, key])
    }

    /// [`Exec::remove`] in another database.
    pub fn remove_in(&mut self, db: DbIndex, key: &[u8]) -> Option<Entry> {
        let key = Key::new(key);
        self.live(db, key)?;
        self.note_touch(db, key);
        if self.settings.hub.has_event(b'n') {
            self.removed = Some((db, Blob::new(key.bytes)));
        }
        self.keyspace(key.hash).remove(db, key)
    }

    /// Empties a database. What no snapshot keeps is dropped by the thread that runs `drop_later`.
    pub fn flush(&mut self, db: DbIndex) {
        self.has_flushed = true;
        for keyspace in self.keyspaces.iter_mut() {
            if let Some(entries) = keyspace.flush(db) {
                crate::keyspace::release::drop_later(entries);
            }
        }
    }

    /// Removes a collection that has become empty. Returns whether it did.
    pub fn remove_if_empty(&mut self, key: &[u8]) -> bool {
        let is_empty = self
            .peek(key)
            .is_some_and(|entry| entry.value().is_empty_collection());
        if is_empty {
            self.remove(key);
        }
        is_empty
    }
}
