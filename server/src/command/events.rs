//! Keyspace events: what a command that changed something is called for those who listen (`notify-keyspace-events`).
//!
//! Events come from what replicas get: the words of the effect say what happened. Where those words have another name than the event,
//! the received command decides. A key that is gone after its event gets `del` behind it.

use super::words::is;
use super::{Args, Command, Effect};
use crate::keyspace::DbIndex;
use crate::keyspace::blob::Blob;
use crate::keyspace::value::canonical_i64;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its class, a letter of `notify-keyspace-events`.
    pub class: u8,
    /// Its name.
    pub name: &'static str,
    /// The database.
    pub db: DbIndex,
    /// The key.
    pub key: Blob,
}

/// Commands that are about their first key alone.
#[rustfmt::skip]
const SIMPLE: &[(&str, u8, &str)] = &[
    ("append", b'$', "append"),
    ("bitfield", b'$', "setbit"),
    ("decr", b'$', "incrby"),
    ("decrby", b'$', "incrby"),
    ("expire", b'g', "expire"),
    ("expireat", b'g', "expire"),
    ("geoadd", b'z', "zadd"),
    ("getset", b'$', "set"),
    ("hdel", b'h', "hdel"),
    ("hexpire", b'h', "hexpire"),
    ("hexpireat", b'h', "hexpire"),
    ("hincrby", b'h', "hincrby"),
    ("hincrbyfloat", b'h', "hincrbyfloat"),
    ("hmset", b'h', "hset"),
    ("hpersist", b'h', "hpersist"),
    ("hpexpire", b'h', "hexpire"),
    ("hpexpireat", b'h', "hexpire"),
    ("hset", b'h', "hset"),
    ("hsetex", b'h', "hset"),
    ("hsetnx", b'h', "hset"),
    ("incr", b'$', "incrby"),
    ("incrby", b'$', "incrby"),
    ("incrbyfloat", b'$', "incrbyfloat"),
    ("linsert", b'l', "linsert"),
    ("lpop", b'l', "lpop"),
    ("lpush", b'l', "lpush"),
    ("lpushx", b'l', "lpush"),
    ("lrem", b'l', "lrem"),
    ("lset", b'l', "lset"),
    ("ltrim", b'l', "ltrim"),
    ("persist", b'g', "persist"),
    ("pexpire", b'g', "expire"),
    ("pexpireat", b'g', "expire"),
    ("pfadd", b'$', "pfadd"),
    ("pfmerge", b'$', "pfadd"),
    ("restore", b'g', "restore"),
    ("rpop", b'l', "rpop"),
    ("rpush", b'l', "rpush"),
    ("rpushx", b'l', "rpush"),
    ("sadd", b's', "sadd"),
    ("setbit", b'$', "setbit"),
    ("setnx", b'$', "set"),
    ("setrange", b'$', "setrange"),
    ("spop", b's', "spop"),
    ("srem", b's', "srem"),
    ("xadd", b't', "xadd"),
    ("xdel", b't', "xdel"),
    ("xsetid", b't', "xsetid"),
    ("xtrim", b't', "xtrim"),
    ("zincrby", b'z', "zincr"),
    ("zpopmax", b'z', "zpopmax"),
    ("zpopmin", b'z', "zpopmin"),
    ("zrem", b'z', "zrem"),
    ("zremrangebylex", b'z', "zremrangebylex"),
    ("zremrangebyrank", b'z', "zremrangebyrank"),
    ("zremrangebyscore", b'z', "zremrangebyscore"),
];

/// Commands that leave their result in a key, or remove it if there is none.
#[rustfmt::skip]
const STORES: &[(&str, u8, &str)] = &[
    ("bitop", b'$', "set"),
    ("georadius", b'z', "georadiusstore"),
    ("georadiusbymember", b'z', "georadiusstore"),
    ("geosearchstore", b'z', "geosearchstore"),
    ("sdiffstore", b's', "sdiffstore"),
    ("sinterstore", b's', "sinterstore"),
    ("sort", b'l', "sortstore"),
    ("sunionstore", b's', "sunionstore"),
    ("zdiffstore", b'z', "zdiffstore"),
    ("zinterstore", b'z', "zinterstore"),
    ("zrangestore", b'z', "zrangestore"),
    ("zunionstore", b'z', "zunionstore"),
];

/// Commands whose event is that of the received command, whatever replicas get.
const BY_NAME: [&str; 3] = ["hincrbyfloat", "incrbyfloat", "spop"];

/// What is known of a command that ran.
pub struct Ran<'a> {
    /// The command as it was received.
    pub command: &'a Command,
    /// Its words.
    pub args: Args<'a>,
    /// The database it ran in.
    pub db: DbIndex,
    /// Keys that passed the door, in order.
    pub touched: &'a [(DbIndex, Blob)],
}

/// Gathers the events of a command that ran. `exists` tells which keys are there now.
pub fn of(ran: &Ran<'_>, effect: &Effect, exists: impl Fn(DbIndex, &[u8]) -> bool) -> Vec<Event> {
    let mut events = Events {
        ran,
        exists,
        events: Vec::new(),
    };
    match effect {
        // The commands of a unit have told of theirs.
        Effect::None | Effect::Aside | Effect::Passed | Effect::Unit { .. } => {}
        Effect::Verbatim => events.add(ran.args),
        Effect::Commands(_) if BY_NAME.contains(&ran.command.name) => events.add(ran.args),
        Effect::Commands(commands) => {
            let delivers = matches!(ran.command.name, "xreadgroup" | "xclaim" | "xautoclaim");
            for words in commands {
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                // Of what was delivered only a new consumer is an event.
                if !delivers || is(words[1], "createconsumer") {
                    events.add(&words);
                }
            }
        }
    }
    events.events
}

struct Events<'a, F> {
    ran: &'a Ran<'a>,
    exists: F,
    events: Vec<Event>,
}

impl<F: Fn(DbIndex, &[u8]) -> bool> Events<'_, F> {
    fn push(&mut self, class: u8, name: &'static str, key: &[u8]) {
        self.push_in(class, name, self.ran.db, key);
    }

    fn push_in(&mut self, class: u8, name: &'static str, db: DbIndex, key: &[u8]) {
        self.events.push(Event {
            class,
            name,
            db,
            key: Blob::new(key),
        });
    }

    fn push_del_if_gone(&mut self, key: &[u8]) {
        if !(self.exists)(self.ran.db, key) {
            self.push(b'g', "del", key);
        }
    }

    fn add(&mut self, words: Args<'_>) {
        let name = words[0].to_ascii_lowercase();
        let find = |table: &[(&str, u8, &'static str)]| {
            let row = table.iter().find(|row| row.0.as_bytes() == name);
            row.map(|row| (row.1, row.2))
        };
        if let Some((class, event)) = find(SIMPLE) {
            self.push(class, event, words[1]);
            self.push_del_if_gone(words[1]);
        } else if let Some((class, event)) = find(STORES) {
            // The destination is the last key that passed the door.
            if let Some((_, dest)) = self.ran.touched.last() {
                if (self.exists)(self.ran.db, dest) {
                    self.push(class, event, dest);
                } else {
                    self.push(b'g', "del", dest);
                }
            }
        } else {
            self.add_special(&name, words);
        }
    }

    fn add_special(&mut self, name: &[u8], words: Args<'_>) {
        match name {
            b"hsetex" => {
                self.push(b'h', "hset", words[1]);
                if words[2].eq_ignore_ascii_case(b"pxat") {
                    self.push(b'h', "hexpire", words[1]);
                }
            }
            b"set" | b"setex" | b"psetex" => {
                self.push(b'$', "set", words[1]);
                let expires = |word: &&[u8]| {
                    ["ex", "px", "exat", "pxat"]
                        .iter()
                        .any(|option| is(word, option))
                };
                if name != b"set" || words.iter().skip(3).any(expires) {
                    self.push(b'g', "expire", words[1]);
                }
            }
            b"mset" | b"msetnx" => {
                for key in words[1..].iter().step_by(2) {
                    self.push(b'$', "set", key);
                }
            }
            b"del" | b"unlink" | b"getdel" => {
                for (at, key) in words.iter().enumerate().skip(1) {
                    // Named twice it is removed once.
                    if words[1..at].contains(key) {
                        continue;
                    }
                    let is_removed = |(db, touched): &(DbIndex, Blob)| {
                        *db == self.ran.db && touched.as_slice() == *key
                    };
                    if self.ran.touched.iter().any(is_removed) {
                        self.push(b'g', "del", key);
                    }
                }
            }
            b"zadd" => {
                let is_number =
                    |word: &[u8]| word.first().is_some_and(|byte| !byte.is_ascii_alphabetic());
                let options = words[2..].iter().take_while(|word| !is_number(word));
                let increments = options.into_iter().any(|word| is(word, "incr"));
                self.push(b'z', if increments { "zincr" } else { "zadd" }, words[1]);
            }
            b"lmove" => self.add_move(words, words[3], words[4]),
            b"rpoplpush" => self.add_move(words, b"right", b"left"),
            // It tells by itself.
            b"smove" => {}
            b"rename" | b"renamenx" => {
                self.push(b'g', "rename_from", words[1]);
                self.push(b'g', "rename_to", words[2]);
            }
            b"move" => {
                self.push(b'g', "move_from", words[1]);
                self.push_in(b'g', "move_to", self.named_db(words[2]), words[1]);
            }
            b"copy" => {
                let option = words
                    .iter()
                    .position(|word| is(word, "db"))
                    .filter(|&at| at > 2);
                let db = option.and_then(|at| words.get(at + 1));
                let db = db.map_or(self.ran.db, |word| self.named_db(word));
                self.push_in(b'g', "copy_to", db, words[2]);
            }
            b"xgroup" => {
                let event = match words[1].to_ascii_lowercase().as_slice() {
                    b"create" => "xgroup-create",
                    b"setid" => "xgroup-setid",
                    b"destroy" => "xgroup-destroy",
                    b"createconsumer" => "xgroup-createconsumer",
                    b"delconsumer" => "xgroup-delconsumer",
                    _ => return,
                };
                self.push(b't', event, words[2]);
            }
            _ => {}
        }
    }

    /// An element went from one list to another: the destination hears first.
    fn add_move(&mut self, words: Args<'_>, from: &[u8], to: &[u8]) {
        let pushed = if is(to, "left") { "lpush" } else { "rpush" };
        let popped = if is(from, "left") { "lpop" } else { "rpop" };
        self.push(b'l', pushed, words[2]);
        self.push(b'l', popped, words[1]);
        self.push_del_if_gone(words[1]);
    }

    fn named_db(&self, word: &[u8]) -> DbIndex {
        canonical_i64(word)
            .and_then(|number| u32::try_from(number).ok())
            .map_or(self.ran.db, DbIndex)
    }
}
