//! A dataset in memory that the commands of an AOF are applied to, so that the file can be turned into entries.
//!
//! Converters feed it the units of `aof::reader`, tests feed it commands. It does what a server does that loads the file:
//! commands inside MULTI … EXEC take effect with the EXEC, an open group never; a command that a client would get an
//! error for changes nothing and is counted; nothing expires.
//!
//! Invariants
//! - A command is applied whole or not at all, whatever its words are; only a HyperLogLog that is damaged may have taken
//!   some elements of the PFADD that finds it out.
//! - No collection but a stream is empty, no field or member is there twice, no score is NaN.
//! - What depends on something outside the file (a clock, chance, a script) is an error, unless the caller gave a clock.
//! - The same commands give the same items, in the same order.

mod bits;
mod functions;
mod geo;
mod hash_expiry;
mod hashes;
mod hyperloglog;
mod keys;
mod lists;
mod sets;
mod sort;
mod store;
mod stream_claims;
mod stream_groups;
mod stream_nodes;
mod streams;
mod strings;
mod table;
#[cfg(test)]
mod tests;
mod words;
mod zset_algebra;
mod zset_ranges;
mod zsets;

use super::reader::{Unit, Words};
use crate::dataset::{Entry, Item};
use crate::error::Shown;
use crate::rdb::decode::DecodeLimits;
use crate::rdb::record::RdbError;
use crate::value::{Kind, Value};
use std::collections::BTreeMap;
use store::{Data, Db, Slot};

/// What the file does not say.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Unix milliseconds for whatever counts from "now". None: such a command is an error until a timestamp came by.
    pub now_ms: Option<i64>,
    /// Timestamps in the file set the clock.
    pub follow_timestamps: bool,
    /// How many databases there are (`databases`, 16 unless configured): SELECT of another is refused, as by the server.
    /// None: as many as have a number.
    pub databases: Option<u32>,
    /// Longest string that a command may make where it does not bring the bytes itself, as SETRANGE does.
    pub string_bytes_max: usize,
    /// For the preamble and for RESTORE.
    pub limits: DecodeLimits,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            now_ms: None,
            follow_timestamps: true,
            databases: None,
            string_bytes_max: 512 << 20,
            limits: DecodeLimits::default(),
        }
    }
}

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("offset {offset}: {} in db {db}: {problem}", Shown(command))]
    Command {
        /// Of the command, as given to `at`.
        offset: u64,
        db: u32,
        /// First word.
        command: Vec<u8>,
        problem: Problem,
    },
    #[error("in the preamble: {0}")]
    Preamble(#[from] RdbError),
}

/// Why a command cannot be replayed although a server may load it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("no command of this name is known; servers refuse such a file")]
    Unknown,
    #[error("a script: what it did is not in the file")]
    Script,
    #[error("counts from the present time, and no clock was given")]
    NoClock,
    #[error("{0}")]
    Undetermined(&'static str),
    #[error("the string would take {wanted} bytes, at most {most} are allowed")]
    TooLong { wanted: u64, most: u64 },
    #[error("{0} is known to Dragonfly alone and can only be kept as it is")]
    Foreign(&'static str),
}

/// How a command ends that is not applied.
enum Stop {
    /// A client would get this error; loading goes on.
    Refused(&'static str),
    Failed(Problem),
}

type Done = Result<(), Stop>;
type Args<'a> = &'a [&'a [u8]];

/// Whether a command of this name can be in a file of a server without modules.
pub fn is_known(command: &[u8]) -> bool {
    table::find(command).is_some()
}

/// A command that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub offset: u64,
    pub command: Vec<u8>,
    pub why: &'static str,
}

/// The dataset.
///
/// ```
/// use dfsnap_formats::aof::replay::{Options, Replay};
/// use dfsnap_formats::dataset::{Entry, Item};
/// use dfsnap_formats::value::Value;
/// let mut replay = Replay::new(Options::default());
/// replay.apply(&[b"SET", b"n", b"41"]).unwrap();
/// replay.apply(&[b"INCR", b"n"]).unwrap();
/// replay.apply(&[b"LPUSH", b"n", b"x"]).unwrap(); // refused, as by a server
/// assert_eq!(replay.refused(), 1);
/// assert!(replay.apply(&[b"EVAL", b"return 1", b"0"]).is_err());
/// let want = Entry::new(0, b"n", Value::String(b"42".to_vec()));
/// assert_eq!(replay.into_items(), [Item::Entry(want)]);
/// ```
#[derive(Debug, Clone)]
pub struct Replay {
    options: Options,
    now_ms: Option<i64>,
    db: u32,
    dbs: BTreeMap<u32, Db>,
    /// Code by the name of the library.
    functions: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Data of modules beside the keys, as loaded.
    module_data: Vec<Item>,
    /// Of the command at hand.
    offset: u64,
    /// Commands since MULTI, each with its offset.
    group: Option<Vec<Queued>>,
    refused: u64,
    last_refusal: Option<Refusal>,
}

#[derive(Debug, Clone)]
struct Queued {
    offset: u64,
    words: Vec<Vec<u8>>,
}

impl Replay {
    /// An empty dataset, with database 0 selected.
    pub fn new(options: Options) -> Self {
        Replay {
            options,
            now_ms: options.now_ms,
            db: 0,
            dbs: BTreeMap::new(),
            functions: BTreeMap::new(),
            module_data: Vec::new(),
            offset: 0,
            group: None,
            refused: 0,
            last_refusal: None,
        }
    }

    /// Takes a unit of a file: loads records, applies commands, follows timestamps. After the end of one file the next
    /// one goes on in database 0.
    pub fn unit(&mut self, unit: &Unit<'_>) -> Result<(), ReplayError> {
        match unit {
            Unit::Preamble(record) => {
                if let Some(item) = Item::of_record(record, &self.options.limits)? {
                    self.load(item);
                }
            }
            Unit::Command(command) => {
                let words: Vec<&[u8]> = Words::iter(&command.words).collect();
                self.at(command.offset).apply(&words)?;
            }
            Unit::Timestamp { unix_s, .. } if self.options.follow_timestamps => {
                self.now_ms = unix_s.checked_mul(1000).or(self.now_ms);
            }
            Unit::End(_) => {
                self.group = None;
                self.db = 0;
            }
            Unit::Timestamp { .. } | Unit::Annotation { .. } | Unit::Skipped { .. } => {}
        }
        Ok(())
    }

    /// Where the next command stands in its file; for errors.
    pub fn at(&mut self, offset: u64) -> &mut Self {
        self.offset = offset;
        self
    }

    /// What the clock says from now on, in Unix milliseconds.
    pub fn set_now_ms(&mut self, now_ms: i64) {
        self.now_ms = Some(now_ms);
    }

    /// Puts an item there as it is, in place of what has its name.
    pub fn load(&mut self, item: Item) {
        match item {
            Item::Entry(entry) => {
                let slot = Slot {
                    attributes: entry.attributes,
                    data: Data::of_value(entry.value),
                };
                self.dbs
                    .entry(entry.db)
                    .or_default()
                    .insert(entry.key, slot);
            }
            Item::Function { code } => {
                if let Some(name) = functions::library_name(&code) {
                    self.functions.insert(name.to_vec(), code);
                }
            }
            Item::ModuleAux { .. } => self.module_data.push(item),
            Item::Aux { .. } => {}
        }
    }

    /// Applies one command, or keeps it until EXEC. A command without words does nothing.
    pub fn apply(&mut self, args: &[&[u8]]) -> Result<(), ReplayError> {
        let Some(name) = args.first() else {
            return Ok(());
        };
        let command = table::find(name);
        match (&mut self.group, command.map(|command| command.action)) {
            (_, None) => return Err(self.failed(name, Problem::Unknown)),
            (None, Some(table::Action::Multi)) => self.group = Some(Vec::new()),
            (None, Some(table::Action::Exec)) => self.refuse(name, "EXEC without MULTI"),
            (None, Some(_)) => return self.run(args),
            (Some(_), Some(table::Action::Exec)) => {
                for queued in self.group.take().unwrap_or_default() {
                    self.offset = queued.offset;
                    let words: Vec<&[u8]> = queued.words.iter().map(Vec::as_slice).collect();
                    self.run(&words)?;
                }
            }
            (Some(queue), Some(_)) => queue.push(Queued {
                offset: self.offset,
                words: args.iter().map(|word| word.to_vec()).collect(),
            }),
        }
        Ok(())
    }

    fn run(&mut self, args: Args<'_>) -> Result<(), ReplayError> {
        let name = args[0];
        let Some(command) = table::find(name) else {
            return Err(self.failed(name, Problem::Unknown));
        };
        let done = match command.action {
            table::Action::Multi | table::Action::Exec => Err(Stop::Refused("MULTI inside MULTI")),
            table::Action::Nothing => Ok(()),
            table::Action::Script => Err(Stop::Failed(Problem::Script)),
            table::Action::Run(_) if !command.fits(args.len()) => {
                Err(Stop::Refused("wrong number of words"))
            }
            table::Action::Run(run) => run(self, args),
        };
        match done {
            Ok(()) => Ok(()),
            Err(Stop::Failed(problem)) => Err(self.failed(name, problem)),
            Err(Stop::Refused(why)) => {
                self.refuse(name, why);
                Ok(())
            }
        }
    }

    fn failed(&self, name: &[u8], problem: Problem) -> ReplayError {
        ReplayError::Command {
            offset: self.offset,
            db: self.db,
            command: name.to_vec(),
            problem,
        }
    }

    fn refuse(&mut self, name: &[u8], why: &'static str) {
        self.refused += 1;
        self.last_refusal = Some(Refusal {
            offset: self.offset,
            command: name.to_vec(),
            why,
        });
    }

    /// How many commands were refused, as a server refuses them: a wrong type, a bad number, a key that is there.
    /// Servers log no such command, so a sound file has none.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    pub fn last_refusal(&self) -> Option<&Refusal> {
        self.last_refusal.as_ref()
    }

    /// Keys of all databases.
    pub fn len(&self) -> usize {
        self.dbs.values().map(Db::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All there is: functions, data of modules, then entries by database and key. An open group is dropped.
    pub fn into_items(self) -> Vec<Item> {
        let functions = self.functions.into_values();
        let mut items: Vec<Item> = functions.map(|code| Item::Function { code }).collect();
        items.extend(self.module_data);
        for (db, keys) in self.dbs {
            items.extend(keys.into_iter().map(|(key, slot)| {
                Item::Entry(Entry {
                    db,
                    key,
                    attributes: slot.attributes,
                    value: slot.data.into_value(),
                })
            }));
        }
        items
    }

    // What the families of commands build on.

    fn now_ms(&self) -> Result<i64, Stop> {
        self.now_ms.ok_or(Stop::Failed(Problem::NoClock))
    }

    fn keys(&mut self) -> &mut Db {
        self.dbs.entry(self.db).or_default()
    }

    fn data(&mut self, key: &[u8]) -> Option<&mut Data> {
        self.keys().get_mut(key).map(|slot| &mut slot.data)
    }

    fn has(&mut self, key: &[u8]) -> bool {
        self.keys().contains_key(key)
    }

    fn remove(&mut self, key: &[u8]) -> Option<Slot> {
        self.keys().remove(key)
    }

    /// Stores a new value without expiry or anything else; an empty collection removes the key.
    fn put(&mut self, key: &[u8], data: Data) {
        if data.is_empty() {
            self.remove(key);
            return;
        }
        let slot = Slot {
            attributes: Default::default(),
            data,
        };
        self.keys().insert(key.to_vec(), slot);
    }

    /// Removes the key if its collection is empty.
    fn drop_empty(&mut self, key: &[u8]) {
        if self.data(key).is_some_and(|data| data.is_empty()) {
            self.remove(key);
        }
    }

    /// The value, made by `make` where there is none. Another type is refused.
    fn get_or_make<'r, T>(
        &'r mut self,
        key: &[u8],
        get: impl Fn(&mut Data) -> Result<&mut T, Stop>,
        make: impl Fn() -> Data,
    ) -> Result<&'r mut T, Stop> {
        if !self.has(key) {
            let slot = Slot {
                attributes: Default::default(),
                data: make(),
            };
            self.keys().insert(key.to_vec(), slot);
        }
        match self.data(key) {
            Some(data) => get(data),
            None => unreachable!("the key was made above"),
        }
    }

    /// The value of a key that may be missing. Another type is refused.
    fn get<T: ?Sized>(
        &mut self,
        key: &[u8],
        get: impl Fn(&mut Data) -> Result<&mut T, Stop>,
    ) -> Result<Option<&mut T>, Stop> {
        self.data(key).map(get).transpose()
    }

    fn check_length(&self, wanted: u64) -> Done {
        let most = self.options.string_bytes_max as u64;
        if wanted > most {
            return Err(Stop::Failed(Problem::TooLong { wanted, most }));
        }
        Ok(())
    }
}

const WRONG_TYPE: Stop = Stop::Refused("a key of another type");
const SYNTAX: Stop = Stop::Refused("syntax");
const NOT_INT: Stop = Stop::Refused("no integer");
const NOT_FLOAT: Stop = Stop::Refused("no number");
const NO_KEY: Stop = Stop::Refused("no such key");
const OVERFLOW: Stop = Stop::Refused("a number would overflow");

/// Why a value kept as it is does not take a command.
fn kept(value: &Value, wanted: Kind) -> Stop {
    match value.kind() == wanted {
        true => Stop::Failed(Problem::Foreign("a set whose members expire")),
        false => WRONG_TYPE,
    }
}
