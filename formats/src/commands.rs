//! Entries as commands: what a client would send to a server to get the same data.
//!
//! Base files of an AOF are made of them, and so is what `redis-cli --pipe` takes. The words are handed out one command
//! at a time; how they travel is the caller's business (`resp::encode_command` makes requests of them).
//!
//! What commands cannot carry: the encoding of a value, the idle time and the LFU counter of a key unless it travels as
//! [`Form::Restore`], what only Dragonfly knows about a key, when a stream consumer was last seen, which entries producers
//! may not add again, data of modules beside the keys, and aux fields.
//!
//! Invariants
//! - An item that cannot be expressed gives an error before its first command, never half of its commands.
//! - Applied to a database without the key, in this order, the commands leave the value that was given.

use crate::dataset::{Entry, Item};
use crate::double::DoubleText;
use crate::encoding::listpack::Element;
use crate::encoding::stream::StreamId;
use crate::rdb::dump;
use crate::rdb::encode::EncodeError;
use crate::rdb::target::Target;
use crate::value::{
    HashValue, PendingEntry, SetValue, StreamGroup, StreamValue, Value, list_elements,
};

/// How items become commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// RDB version of the servers that will take the commands: which commands they know, and which payloads.
    pub version: u16,
    /// Most elements that one command names; at least 1.
    pub batch: usize,
    /// The keys and libraries may be there already and are to be replaced.
    pub replace: bool,
    pub form: Form,
}

/// In which form values travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The commands of each type; RESTORE where a type has none.
    Native,
    /// RESTORE for every key.
    Restore,
}

impl Default for Options {
    /// For the newest servers, in the form and the batches of a rewrite by Redis.
    fn default() -> Self {
        Options {
            version: 12,
            batch: 64,
            replace: false,
            form: Form::Native,
        }
    }
}

/// Why an item has no commands for the servers that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandsError {
    #[error("RDB version {version} is not written, and so its servers get no commands")]
    Version { version: u16 },
    #[error(
        "a hash whose fields expire needs HPEXPIREAT, which servers have from RDB version {VERSION_FIELD_EXPIRY} on, but {version} was asked for"
    )]
    FieldExpiry { version: u16 },
    #[error(
        "a function library needs FUNCTION LOAD, which servers have from RDB version {VERSION_FUNCTIONS} on, but {version} was asked for"
    )]
    Function { version: u16 },
    #[error(
        "a set whose members expire is known to Dragonfly alone, and no command sets their absolute times"
    )]
    MemberExpiry,
    #[error("{0}")]
    Payload(#[from] EncodeError),
}

/// Takes the words of one command.
pub type Sink<'a> = dyn FnMut(&[&[u8]]) + 'a;

/// Turns items into commands, with SELECT wherever the database changes.
///
/// ```
/// use dfsnap_formats::commands::{Commands, Options};
/// use dfsnap_formats::dataset::{Entry, Item};
/// use dfsnap_formats::resp::encode_command;
/// use dfsnap_formats::value::Value;
/// let mut out = Vec::new();
/// let item = Item::Entry(Entry::new(2, b"k", Value::String(b"v".to_vec())));
/// Commands::new(Options::default()).item(&item, &mut |words| encode_command(&mut out, words)).unwrap();
/// assert_eq!(out, b"*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n");
/// ```
#[derive(Debug, Clone)]
pub struct Commands {
    options: Options,
    /// Selected last; None: nothing yet.
    db: Option<u32>,
}

impl Commands {
    pub fn new(options: Options) -> Self {
        Commands { options, db: None }
    }

    /// The commands for one item. Aux fields and data of modules beside the keys have none.
    pub fn item(&mut self, item: &Item, sink: &mut Sink<'_>) -> Result<(), CommandsError> {
        let Item::Entry(entry) = item else {
            return of_item(item, &self.options, sink);
        };
        let plan = Plan::of(&entry.value, &self.options)?;
        if self.db != Some(entry.db) {
            self.db = Some(entry.db);
            sink(&[b"SELECT", entry.db.to_string().as_bytes()]);
        }
        plan.send(entry, &self.options, sink);
        Ok(())
    }
}

/// The commands for one item, without SELECT: the database is the caller's business.
pub fn of_item(item: &Item, options: &Options, sink: &mut Sink<'_>) -> Result<(), CommandsError> {
    match item {
        Item::Entry(entry) => {
            Plan::of(&entry.value, options)?.send(entry, options, sink);
        }
        Item::Function { code } => {
            let version = options.version;
            if version < VERSION_FUNCTIONS {
                return Err(CommandsError::Function { version });
            }
            match options.replace {
                true => sink(&[b"FUNCTION", b"LOAD", b"REPLACE", code]),
                false => sink(&[b"FUNCTION", b"LOAD", code]),
            }
        }
        Item::Aux { .. } | Item::ModuleAux { .. } => {}
    }
    Ok(())
}

/// First version with functions, with counters of streams and of their groups: Redis 7.0.
const VERSION_FUNCTIONS: u16 = 10;
const VERSION_STREAM_COUNTERS: u16 = 10;
/// First version with expiry of hash fields: Redis 7.4.
const VERSION_FIELD_EXPIRY: u16 = 12;

/// The decision about a value, made before the first command.
enum Plan {
    Native,
    Restore(Vec<u8>),
}

impl Plan {
    fn of(value: &Value, options: &Options) -> Result<Plan, CommandsError> {
        let version = options.version;
        let target = Target::of_version(version).ok_or(CommandsError::Version { version })?;
        let is_native = options.form == Form::Native
            && match value {
                Value::Module(_) | Value::Sketch(_) => false,
                Value::Stream(stream) => stream_is_sayable(stream),
                _ => true,
            };
        if !is_native {
            return Ok(Plan::Restore(dump::payload(value, target, None)?));
        }
        match value {
            Value::Hash(hash) if version < VERSION_FIELD_EXPIRY && hash.has_field_expiry() => {
                Err(CommandsError::FieldExpiry { version })
            }
            Value::Set(SetValue::Expiring(members))
                if members.iter().any(|member| member.expire_at_ms.is_some()) =>
            {
                Err(CommandsError::MemberExpiry)
            }
            _ => Ok(Plan::Native),
        }
    }

    fn send(self, entry: &Entry, options: &Options, sink: &mut Sink<'_>) {
        let mut sender = Sender {
            key: &entry.key,
            options,
            sink,
        };
        match self {
            Plan::Restore(payload) => sender.restore(entry, &payload),
            Plan::Native => {
                if options.replace && !matches!(entry.value, Value::String(_)) {
                    (sender.sink)(&[b"DEL", &entry.key]);
                }
                sender.value(&entry.value);
            }
        }
        if let Some(at_ms) = entry.attributes.expire_at_ms {
            (sender.sink)(&[b"PEXPIREAT", &entry.key, at_ms.to_string().as_bytes()]);
        }
    }
}

struct Sender<'e, 's, 'f> {
    key: &'e [u8],
    options: &'e Options,
    sink: &'s mut Sink<'f>,
}

impl Sender<'_, '_, '_> {
    /// The expiry follows in a command of its own: RESTORE takes none before 1970.
    fn restore(&mut self, entry: &Entry, payload: &[u8]) {
        let mut words: Vec<&[u8]> = vec![b"RESTORE", self.key, b"0", payload];
        if self.options.replace {
            words.push(b"REPLACE");
        }
        let idle = entry.attributes.idle_s.map(|idle_s| idle_s.to_string());
        let freq = entry.attributes.freq.map(|freq| freq.to_string());
        if let Some(idle) = &idle {
            words.extend([&b"IDLETIME"[..], idle.as_bytes()]);
        } else if let Some(freq) = &freq {
            words.extend([&b"FREQ"[..], freq.as_bytes()]);
        }
        (self.sink)(&words);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::String(bytes) => (self.sink)(&[b"SET", self.key, bytes]),
            Value::List(nodes) => {
                self.batches(b"RPUSH", 1, list_elements(nodes).map(Element::to_vec));
            }
            Value::Set(set) => self.batches(b"SADD", 1, set.members().map(Element::to_vec)),
            Value::ZSet(zset) => {
                let words = zset.members().flat_map(|(member, score)| {
                    let score = DoubleText::score(score).as_bytes().to_vec();
                    [score, member.to_vec()]
                });
                self.batches(b"ZADD", 2, words);
            }
            Value::Hash(hash) => self.hash(hash),
            Value::Stream(stream) => self.stream(stream),
            Value::Json(text) => (self.sink)(&[b"JSON.SET", self.key, b"$", text]),
            Value::Module(_) | Value::Sketch(_) => {
                unreachable!("a plan says RESTORE for values without commands of their own")
            }
        }
    }

    /// `name key word …`, as many commands as it takes; an element has `width` words.
    fn batches(&mut self, name: &[u8], width: usize, words: impl Iterator<Item = Vec<u8>>) {
        let most = self.options.batch.max(1).saturating_mul(width);
        let mut batch = Vec::new();
        for word in words {
            batch.push(word);
            if batch.len() == most {
                self.named(&[name, self.key], &batch);
                batch.clear();
            }
        }
        if !batch.is_empty() {
            self.named(&[name, self.key], &batch);
        }
    }

    fn named(&mut self, head: &[&[u8]], words: &[Vec<u8>]) {
        let words: Vec<&[u8]> = head
            .iter()
            .copied()
            .chain(words.iter().map(Vec::as_slice))
            .collect();
        (self.sink)(&words);
    }

    fn hash(&mut self, hash: &HashValue) {
        let words = hash
            .fields()
            .flat_map(|field| [field.field.to_vec(), field.value.to_vec()]);
        self.batches(b"HMSET", 2, words);
        if !hash.has_field_expiry() {
            return;
        }
        let mut expiring: Vec<(i64, Vec<u8>)> = hash
            .fields()
            .filter_map(|field| Some((field.expire_at_ms?, field.field.to_vec())))
            .collect();
        expiring.sort();
        for same in expiring.chunk_by(|a, b| a.0 == b.0) {
            let at_ms = same[0].0.to_string();
            for batch in same.chunks(self.options.batch.max(1)) {
                let count = batch.len().to_string();
                let mut words: Vec<&[u8]> = vec![b"HPEXPIREAT", self.key, at_ms.as_bytes()];
                words.extend([&b"FIELDS"[..], count.as_bytes()]);
                words.extend(batch.iter().map(|(_, field)| field.as_slice()));
                (self.sink)(&words);
            }
        }
    }

    /// 1. The entries, and a stand-in for every message that is gone but still pending, in order of their ids.
    /// 2. The groups with their pending lists: XCLAIM takes only messages that are there.
    /// 3. XDEL of the stand-ins behind the first entry, XTRIM of those before it, which leaves the highest deleted id alone.
    /// 4. XSETID, which sets all counters, whatever the commands before did to them; but a highest deleted id of 0-0 it
    ///    takes for none given.
    fn stream(&mut self, stream: &StreamValue) {
        let gone = gone_but_pending(stream);
        let mut stand_ins = gone.iter().copied().peekable();
        let mut is_there = false;
        for entry in stream.entries() {
            while let Some(id) = stand_ins.next_if(|id| *id < entry.id) {
                self.stand_in(id);
            }
            let mut words = vec![entry.id.to_string().into_bytes()];
            for (field, value) in entry.pairs() {
                words.extend([field.to_vec(), value.to_vec()]);
            }
            self.named(&[b"XADD", self.key], &words);
            is_there = true;
        }
        for id in stand_ins {
            self.stand_in(id);
        }
        if !is_there && gone.is_empty() {
            // The id must be above 0-0; XSETID puts it right.
            let id = stream.last_id.max(StreamId::new(0, 1)).to_string();
            let words: [&[u8]; 7] = [
                b"XADD",
                self.key,
                b"MAXLEN",
                b"0",
                id.as_bytes(),
                b"x",
                b"y",
            ];
            (self.sink)(&words);
        }
        for group in &stream.groups {
            self.group(group);
        }
        let (before, behind) = gone.split_at(before_first(stream, &gone));
        for batch in behind.chunks(self.options.batch.max(1)) {
            let ids: Vec<Vec<u8>> = batch.iter().map(|id| id.to_string().into_bytes()).collect();
            self.named(&[b"XDEL", self.key], &ids);
        }
        if !before.is_empty() {
            let length = stream.length.to_string();
            (self.sink)(&[b"XTRIM", self.key, b"MAXLEN", length.as_bytes()]);
        }
        self.counters(stream);
    }

    fn stand_in(&mut self, id: StreamId) {
        (self.sink)(&[b"XADD", self.key, id.to_string().as_bytes(), b"x", b"y"]);
    }

    fn counters(&mut self, stream: &StreamValue) {
        let last_id = stream.last_id.to_string();
        let added = stream.entries_added.to_string();
        let deleted = stream.max_deleted_id.to_string();
        let mut words: Vec<&[u8]> = vec![b"XSETID", self.key, last_id.as_bytes()];
        if self.options.version >= VERSION_STREAM_COUNTERS {
            words.extend([&b"ENTRIESADDED"[..], added.as_bytes()]);
            words.extend([&b"MAXDELETEDID"[..], deleted.as_bytes()]);
        }
        (self.sink)(&words);
    }

    fn group(&mut self, group: &StreamGroup) {
        let last_id = group.last_id.to_string();
        let read = group.entries_read.to_string();
        let mut words: Vec<&[u8]> = vec![b"XGROUP", b"CREATE", self.key, &group.name];
        words.push(last_id.as_bytes());
        if self.options.version >= VERSION_STREAM_COUNTERS {
            words.extend([&b"ENTRIESREAD"[..], read.as_bytes()]);
        }
        (self.sink)(&words);
        let mut has_pending = vec![false; group.consumers.len()];
        for entry in &group.pending {
            has_pending[entry.consumer as usize] = true;
        }
        for (consumer, _) in group.consumers.iter().zip(has_pending).filter(|c| !c.1) {
            (self.sink)(&[
                b"XGROUP",
                b"CREATECONSUMER",
                self.key,
                &group.name,
                &consumer.name,
            ]);
        }
        let alike = |a: &PendingEntry, b: &PendingEntry| {
            (a.consumer, a.delivered_at_ms, a.deliveries)
                == (b.consumer, b.delivered_at_ms, b.deliveries)
        };
        for same in group.pending.chunk_by(alike) {
            for batch in same.chunks(self.options.batch.max(1)) {
                self.claim(group, batch);
            }
        }
    }

    /// Pending entries of one consumer, delivered at one time and equally often.
    fn claim(&mut self, group: &StreamGroup, batch: &[PendingEntry]) {
        let consumer = &group.consumers[batch[0].consumer as usize].name;
        let ids: Vec<String> = batch.iter().map(|entry| entry.id.to_string()).collect();
        let at_ms = batch[0].delivered_at_ms.to_string();
        let deliveries = batch[0].deliveries.to_string();
        let mut words: Vec<&[u8]> = vec![b"XCLAIM", self.key, &group.name, consumer, b"0"];
        words.extend(ids.iter().map(String::as_bytes));
        words.extend([&b"TIME"[..], at_ms.as_bytes()]);
        words.extend([&b"RETRYCOUNT"[..], deliveries.as_bytes()]);
        words.extend([&b"JUSTID"[..], b"FORCE"]);
        (self.sink)(&words);
    }
}

/// Ids that a group has pending although their messages are gone, ascending.
fn gone_but_pending(stream: &StreamValue) -> Vec<StreamId> {
    let groups = stream.groups.iter().flat_map(|group| &group.pending);
    let mut ids: Vec<StreamId> = groups.map(|entry| entry.id).collect();
    ids.sort();
    ids.dedup();
    let mut live = stream.entries().map(|entry| entry.id).peekable();
    ids.retain(|id| {
        while live.next_if(|other| other < id).is_some() {}
        live.peek() != Some(id)
    });
    ids
}

/// How many of the ids `gone` are below the first entry.
fn before_first(stream: &StreamValue, gone: &[StreamId]) -> usize {
    match stream.entries().next() {
        Some(first) => gone.partition_point(|id| *id < first.id),
        None => gone.len(),
    }
}

/// Whether XADD, XCLAIM and XSETID take what is in the stream: no entry without fields or out of order, no id 0-0, no
/// number beyond those of a command, and counters that agree with the entries.
fn stream_is_sayable(stream: &StreamValue) -> bool {
    let mut before = StreamId::MIN;
    let mut count = 0;
    let entries_are = stream.entries().all(|entry| {
        let is_next = entry.id > before && entry.pairs().next().is_some();
        before = entry.id;
        count += 1;
        is_next
    });
    let pending_are = stream.groups.iter().all(|group| {
        group.entries_read >= -1
            && group.pending.iter().all(|entry| {
                entry.id > StreamId::MIN
                    && entry.delivered_at_ms >= 0
                    && i64::try_from(entry.deliveries).is_ok()
            })
    });
    let gone = gone_but_pending(stream);
    let behind = &gone[before_first(stream, &gone)..];
    entries_are
        && pending_are
        && behind.iter().all(|id| *id <= stream.max_deleted_id)
        && before <= stream.last_id
        && stream.max_deleted_id <= stream.last_id
        && stream.length == count
        && stream.entries_added >= count
        && i64::try_from(stream.entries_added).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::dump::Payload;
    use crate::value::{HashField, ModuleValue, StreamConsumer};

    fn texts(item: &Item, options: Options) -> Result<Vec<String>, CommandsError> {
        let mut lines = Vec::new();
        Commands::new(options).item(item, &mut |words| {
            let words: Vec<_> = words.iter().map(|w| w.escape_ascii().to_string()).collect();
            lines.push(words.join(" "));
        })?;
        Ok(lines)
    }

    fn entry(value: Value, expire_at_ms: Option<i64>) -> Item {
        let mut entry = Entry::new(1, b"k", value);
        entry.attributes.expire_at_ms = expire_at_ms;
        Item::Entry(entry)
    }

    fn hash() -> Value {
        let field = |field: &[u8], expire_at_ms| HashField {
            field: field.to_vec(),
            value: b"v".to_vec(),
            expire_at_ms,
        };
        let fields = vec![
            field(b"a", Some(9)),
            field(b"b", None),
            field(b"c", Some(8)),
            field(b"d", Some(9)),
        ];
        Value::Hash(HashValue::Fields(fields))
    }

    #[test]
    fn an_entry_becomes_commands_in_batches() {
        let options = Options {
            batch: 2,
            ..Options::default()
        };
        let members = [&b"x"[..], b"y", b"z"].map(<[u8]>::to_vec).to_vec();
        let set = Value::Set(SetValue::Members(members));
        let rows: [(&str, Value, &[&str]); 2] = [
            ("set", set, &["SADD k x y", "SADD k z"]),
            (
                "hash whose fields expire",
                hash(),
                &[
                    "HMSET k a v b v",
                    "HMSET k c v d v",
                    "HPEXPIREAT k 8 FIELDS 1 c",
                    "HPEXPIREAT k 9 FIELDS 2 a d",
                ],
            ),
        ];
        for (name, value, want) in rows {
            let want: Vec<&str> = ["SELECT 1"]
                .into_iter()
                .chain(want.iter().copied())
                .chain(["PEXPIREAT k -5"])
                .collect();
            assert_eq!(
                texts(&entry(value, Some(-5)), options).unwrap(),
                want,
                "{name}"
            );
        }
    }

    #[test]
    fn a_message_that_is_gone_stays_pending() {
        let stream = StreamValue {
            last_id: StreamId::new(9, 0),
            entries_added: 4,
            groups: vec![StreamGroup {
                name: b"g".to_vec(),
                last_id: StreamId::new(5, 0),
                entries_read: -1,
                pending: vec![PendingEntry {
                    id: StreamId::new(5, 0),
                    delivered_at_ms: 77,
                    deliveries: 3,
                    consumer: 1,
                }],
                consumers: [b"idle", b"busy"]
                    .map(|name| StreamConsumer {
                        name: name.to_vec(),
                        seen_at_ms: 0,
                        active_at_ms: -1,
                    })
                    .to_vec(),
            }],
            ..StreamValue::default()
        };
        let want = [
            "SELECT 1",
            "XADD k 5-0 x y",
            "XGROUP CREATE k g 5-0 ENTRIESREAD -1",
            "XGROUP CREATECONSUMER k g idle",
            "XCLAIM k g busy 0 5-0 TIME 77 RETRYCOUNT 3 JUSTID FORCE",
            "XTRIM k MAXLEN 0",
            "XSETID k 9-0 ENTRIESADDED 4 MAXDELETEDID 0-0",
        ];
        let item = entry(Value::Stream(stream), None);
        assert_eq!(texts(&item, Options::default()).unwrap(), want);
    }

    #[test]
    fn what_cannot_be_said_is_an_error_without_commands() {
        let old = Options {
            version: 11,
            ..Options::default()
        };
        let mut commands = 0;
        for item in [entry(hash(), None), Item::Function { code: Vec::new() }] {
            let options = match item {
                Item::Function { .. } => Options { version: 9, ..old },
                _ => old,
            };
            let error = Commands::new(options).item(&item, &mut |_| commands += 1);
            assert!(error.is_err());
        }
        assert_eq!(commands, 0);
    }

    #[test]
    fn values_without_commands_are_restored() {
        let module = Value::Module(ModuleValue::of_json(b"{}"));
        let mut seen = Vec::new();
        let options = Options {
            replace: true,
            ..Options::default()
        };
        of_item(&entry(module.clone(), None), &options, &mut |words| {
            seen.push(words.iter().map(|w| w.to_vec()).collect::<Vec<_>>());
        })
        .unwrap();
        let [words] = seen.as_slice() else {
            panic!("one command, not {seen:?}")
        };
        assert_eq!(
            (&words[0][..], &words[4][..]),
            (&b"RESTORE"[..], &b"REPLACE"[..])
        );
        let payload = Payload::parse(&words[3], 12).unwrap();
        assert_eq!(payload.decode(&Default::default()).unwrap(), module);
    }
}
