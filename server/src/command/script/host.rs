//! What a running script asks of the server: `redis.call` and its kin.
//!
//! The commands of a script run as those of a MULTI block do, on the entries that the script's own run has. Their effects
//! are gathered and become those of the script.
//!
//! Invariants
//! - Without all shards, a script touches only the keys it has declared. At another it stops before that command runs, what it has written is
//!   put back, and it starts over with all shards. What was too much to keep, or what others have heard of, cannot be put back: then it is told
//!   so, and the next run begins with all shards.
//! - A script that has written is never refused a write for reasons of the server: half of it would stay.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dfsnap_formats::resp::{Protocol, Reply};
use dfsnap_formats::slot::slot;
use mlua::{MultiValue, Value};

use super::Within;
use super::calls::number_word;
use super::convert;
use super::debugger;
use super::interpreter::Asked;
use super::library::{Fault, ReplyError, array_index};
use super::running::Running;
use super::stack::Stack;
use crate::command::acl::{Denied, log};
use crate::command::eviction::OUT_OF_MEMORY;
use crate::command::exec::Actor;
use crate::command::runner::Commit;
use crate::command::slots::{self, CROSS_SLOT};
use crate::command::{Command, CommandError, Exec, Flags, Run, Session, inner, reference, table};
use crate::keyspace::DbIndex;
use crate::keyspace::entry::Access;
use crate::keyspace::value::Value as Data;

/// Entries that ACL LOG keeps of what scripts were refused.
const LOG_LEN: usize = 128;

/// Replicas get what the script writes.
const TO_REPLICAS: u8 = 2;
const TO_ALL: u8 = 3;

/// One run of a script, seen from its commands.
pub struct Host<'r, 'e> {
    exec: &'r mut Exec<'e>,
    db: DbIndex,
    /// The protocol of replies to the script.
    pub protocol: Protocol,
    replicates: u8,
    /// It has asked for a key that it does not declare.
    pub has_strayed: bool,
    /// What its commands did.
    pub commit: Commit,
    terms: Terms,
    /// The keys it may touch; `None`: all.
    declared: Option<Vec<(DbIndex, Vec<u8>)>>,
    /// In a cluster: the slot of the keys that it has declared or met first.
    slot: Option<u16>,
    has_written: bool,
    undo: Undo,
    running: Arc<Running>,
    /// Texts of errors of its commands: in the statistics each stands once.
    pub counted: Vec<Vec<u8>>,
    /// What the last command replied.
    pub reply: Reply,
    /// It was refused, and has not run.
    pub is_refused: bool,
}

/// Values of at most so many bytes are kept for an undo, each and all together.
const UNDO_BYTES_MAX: usize = 256 * 1024;

/// What the keys that a script has written held before. While the script has its own shard's keys alone it may meet one that it does not
/// declare; then all is put back, and it starts over with all shards.
#[derive(Default)]
struct Undo {
    entries: Vec<(DbIndex, Vec<u8>, Option<Kept>)>,
    bytes: usize,
    is_impossible: bool,
}

struct Kept {
    value: Data,
    expire_at_ms: Option<i64>,
    access: Access,
}

impl Undo {
    fn is_possible(&self) -> bool {
        !self.is_impossible
    }

    fn give_up(&mut self) {
        self.is_impossible = true;
        self.entries.clear();
    }

    fn keep(&mut self, exec: &mut Exec<'_>, db: DbIndex, key: &[u8]) {
        let is_kept = |(kept_db, kept, _): &(DbIndex, Vec<u8>, Option<Kept>)| {
            *kept_db == db && kept.as_slice() == key
        };
        if self.is_impossible || self.entries.iter().any(is_kept) {
            return;
        }
        let entry = exec.peek_in(db, key);
        self.bytes += entry.map_or(0, |entry| entry.memory_bytes());
        if self.bytes > UNDO_BYTES_MAX {
            return self.give_up();
        }
        let kept = entry.map(|entry| Kept {
            value: entry.value().clone(),
            expire_at_ms: entry.expire_at_ms(),
            access: entry.access(),
        });
        self.entries.push((db, key.to_vec(), kept));
    }

    fn run(&mut self, exec: &mut Exec<'_>) {
        for (db, key, kept) in std::mem::take(&mut self.entries).into_iter().rev() {
            let Some(kept) = kept else {
                exec.remove_in(db, &key);
                continue;
            };
            let mut entry = exec.set_in(db, &key, kept.value);
            entry.set_expire_at_ms(kept.expire_at_ms);
            entry.set_access(kept.access);
        }
    }
}

/// On which terms a script runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// It may not write.
    pub is_read_only: bool,
    /// It may write though memory is short.
    pub allows_oom: bool,
    /// In a cluster, its commands may have keys of one slot each.
    pub allows_cross_slot: bool,
}

impl<'r, 'e> Host<'r, 'e> {
    /// For a script with these keys.
    pub fn new(
        exec: &'r mut Exec<'e>,
        keys: &[&[u8]],
        terms: Terms,
        running: Arc<Running>,
    ) -> Host<'r, 'e> {
        let has_all = exec.has_all_shards();
        let db = exec.db;
        let declared = (!has_all).then(|| keys.iter().map(|key| (db, key.to_vec())).collect());
        Host {
            exec,
            db,
            protocol: Protocol::Resp2,
            replicates: TO_ALL,
            has_strayed: false,
            commit: Commit::default(),
            terms,
            declared,
            slot: keys.first().map(|key| slot(key)),
            has_written: false,
            undo: Undo::default(),
            running,
            counted: Vec::new(),
            reply: Reply::default(),
            is_refused: false,
        }
    }

    /// The server's answer to one request with its arguments.
    pub fn answer(&mut self, asked: Asked, args: MultiValue) -> mlua::Result<Value> {
        let args: Vec<Value> = args.into_iter().collect();
        let result = match asked {
            Asked::SetProtocol => self.set_protocol(&args),
            Asked::SetReplication => self.set_replication(&args),
            Asked::CheckAcl => self.may_run(&args),
        };
        match result {
            Ok(value) => Ok(value),
            Err(text) => ReplyError::raise(format!("ERR {text}")),
        }
    }

    fn set_protocol(&mut self, args: &[Value]) -> Result<Value, Fault> {
        let [version] = args else {
            return Err("redis.setresp() requires one argument.".into());
        };
        self.protocol = match array_index(version) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            _ => return Err("RESP version must be 2 or 3.".into()),
        };
        Ok(Value::Nil)
    }

    fn set_replication(&mut self, args: &[Value]) -> Result<Value, Fault> {
        let [flags] = args else {
            return Err("redis.set_repl() requires two arguments.".into());
        };
        let flags = super::library::number(flags).unwrap_or(0.0);
        if !(0.0..=3.0).contains(&flags) {
            return Err(
                "Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE."
                    .into(),
            );
        }
        self.replicates = flags as u8;
        Ok(Value::Nil)
    }

    fn may_run(&mut self, args: &[Value]) -> Result<Value, Fault> {
        let words: Option<Vec<Vec<u8>>> = args.iter().map(word).collect();
        let words = words.ok_or("Lua redis lib command arguments must be strings or integers")?;
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        if words.is_empty() {
            return Err("Please specify at least one argument for this redis lib call".into());
        }
        let command = table::find(words[0]).filter(|command| command.arity_fits(words.len()));
        let Some(command) = command else {
            return Err("Invalid command passed to redis.acl_check_cmd()".into());
        };
        let is_allowed = self
            .exec
            .user
            .as_ref()
            .is_none_or(|user| user.check(command, &words).is_ok());
        Ok(Value::Boolean(is_allowed))
    }

    /// Whether the script's user may run the command.
    fn check_rights(&self, command: &'static Command, words: &[&[u8]]) -> Result<(), CommandError> {
        let Some(user) = &self.exec.user else {
            return Ok(());
        };
        user.check(command, words).map_err(|denied| {
            if !debugger::is_forked() {
                let what = log::What::Command(&denied);
                log::note(&what, "lua", &user.name, String::new(), LOG_LEN);
            }
            CommandError::text(match denied {
                Denied::Command(_) => {
                    "ERR The user executing the script can't run this command or subcommand"
                }
                Denied::Key(_) => {
                    "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments"
                }
                Denied::Channel(_) => {
                    "ERR The user executing the script can't publish to the channel mentioned in the command"
                }
            })
        })
    }

    /// A command was refused before it ran.
    fn count_refused(&mut self, name: &[u8], error: &CommandError) {
        if self.has_strayed {
            return;
        }
        self.counted.push(error.0.as_bytes().to_vec());
        if let Some(stats) = &mut self.exec.stats {
            stats.error(&error.0);
            if let Some(command) = table::find(name) {
                stats.rejected(command.name);
            }
        }
    }

    /// Keeps the text of an error that a command replied: it has been counted.
    fn note_error(&mut self, reply: &Reply) {
        if let Some(text) = reply.as_bytes().strip_prefix(b"-") {
            self.counted.push(text.trim_ascii_end().to_vec());
        }
    }

    /// Writes what the script returned, which is on top.
    pub fn put_value(&mut self, stack: &mut Stack) {
        convert::put_value(self.exec.reply, stack, self.protocol);
    }

    /// The script has waited for its developer: what it does from now on is done now.
    pub fn renew_clock(&mut self) {
        self.exec.now_ms = crate::clock::now_ms();
    }

    /// Runs the command of these words. What it replies is in [`Host::reply`], in the protocol of the script.
    pub fn call(&mut self, words: &[&[u8]]) {
        let mut reply = std::mem::take(&mut self.reply);
        reply.clear();
        reply.set_protocol(self.protocol);
        let admitted = self.admitted(words);
        self.is_refused = admitted.is_err();
        match admitted {
            Ok(command) => {
                if let Err(error) = self.run(command, words, &mut reply) {
                    reply.clear();
                    reply.error(&error.0);
                }
                self.note_error(&reply);
            }
            Err(error) => {
                self.count_refused(words[0], &error);
                reply.error(&error.0);
            }
        }
        self.reply = reply;
    }

    /// The command of these words, if the script may run it now.
    fn admitted(&mut self, words: &[&[u8]]) -> Result<&'static Command, CommandError> {
        let refusal = |text: &str| CommandError::new(text);
        let command = table::find(words[0])
            .ok_or_else(|| refusal("Unknown Redis command called from script"))?;
        if !command.arity_fits(words.len()) {
            return Err(refusal(
                "Wrong number of args calling Redis command from script",
            ));
        }
        if command.flags.has(Flags::CONTAINER)
            && let Err(error) = reference::check_subcommand(command.name, words)
        {
            return Err(refusal(if error.0.starts_with("ERR unknown") {
                "Unknown Redis command called from script"
            } else {
                "Wrong number of args calling Redis command from script"
            }));
        }
        let is_denied = command.flags.has(Flags::NOSCRIPT)
            || command.flags.has(Flags::CONTAINER) && reference::is_noscript(command.name, words);
        if is_denied && !super::ALLOWS_DENIED.load(Ordering::Relaxed) {
            return Err(refusal("This Redis command is not allowed from script"));
        }
        let may_write = command.is_write() || command.flags.has(Flags::MAY_REPLICATE);
        if self.terms.is_read_only && may_write {
            return Err(refusal(
                "Write commands are not allowed from read-only scripts.",
            ));
        }
        if !command.flags.has(Flags::STALE) && super::is_stale() && self.exec.actor != Actor::Link {
            return Err(refusal("Can not execute the command on a stale replica"));
        }
        self.check_rights(command, words)?;
        self.check_slot(command, words)?;
        let has_block = || words.iter().any(|word| word.eq_ignore_ascii_case(b"block"));
        if command.flags.has(Flags::BLOCKING) && has_block() {
            return Err(refusal(&format!(
                "{} command is not allowed with BLOCK option from scripts",
                String::from_utf8_lossy(words[0])
            )));
        }
        self.reach(command, words)?;
        if command.is_write() && !self.has_written {
            let settings = self.exec.settings;
            if self.exec.actor == Actor::ReplicaClient && settings.replica_read_only {
                return Err(CommandError::text(
                    "READONLY You can't write against a read only replica.",
                ));
            }
            if self.exec.actor == Actor::Client {
                super::check_write()?;
            }
            let needs_memory = command.flags.has(Flags::DENYOOM) && !self.terms.allows_oom;
            if needs_memory && self.exec.is_out_of_memory() {
                return Err(OUT_OF_MEMORY);
            }
        }
        if self.declared.is_some() {
            self.keep_for_undo(command, words);
        }
        if command.is_write() {
            self.has_written = true;
            self.running.has_written.store(true, Ordering::Relaxed);
        }
        Ok(command)
    }

    /// Checks that the command may run in a cluster. What comes from a primary has run in one.
    fn check_slot(&mut self, command: &Command, words: &[&[u8]]) -> Result<(), CommandError> {
        let is_cluster = self.exec.settings.hub.is_cluster.load(Ordering::Relaxed);
        if !is_cluster || self.exec.actor == Actor::Link {
            return Ok(());
        }
        let found = slots::check(command, words).map_err(|error| {
            let text = "Script attempted to access a non local key in a cluster node";
            if error == CROSS_SLOT {
                CommandError::new(text)
            } else {
                error
            }
        })?;
        let is_other = |slot| *self.slot.get_or_insert(slot) != slot;
        if !self.terms.allows_cross_slot && found.is_some_and(is_other) {
            let text = "Script attempted to access keys that do not hash to the same slot";
            return Err(CommandError::new(text));
        }
        Ok(())
    }

    /// Checks that the command's keys are within reach.
    fn reach(&mut self, command: &'static Command, words: &[&[u8]]) -> Result<(), CommandError> {
        let Some(declared) = &self.declared else {
            return Ok(());
        };
        let run = inner::row(command, words).map_or(command.run, |row| row.run);
        let mut is_declared = match run {
            Run::Global(_) | Run::Cursor(_) | Run::Script(_) => false,
            Run::Keys(_) | Run::Split { .. } | Run::Session(_) => true,
        };
        let db = self.db;
        command.keys.visit(words, |at| {
            let is_known = |(known_db, key): &(DbIndex, Vec<u8>)| {
                *known_db == db && key.as_slice() == words[at]
            };
            is_declared &= declared.iter().any(is_known);
        });
        if is_declared {
            return Ok(());
        }
        self.has_strayed = true;
        if self.has_written && !self.undo.is_possible() {
            return Err(CommandError::new(
                "Script attempted to access a key that it did not declare after it had written: declare all keys in KEYS",
            ));
        }
        self.undo.run(self.exec);
        self.commit = Commit::default();
        self.exec.needs_everything = true;
        Err(CommandError::new("The script starts over with all shards"))
    }

    /// Keeps what a command is about to change, as long as that is little.
    fn keep_for_undo(&mut self, command: &Command, words: &[&[u8]]) {
        let tells_others = command.flags.has(Flags::MAY_REPLICATE) && !command.is_write()
            || command.is_write() && self.exec.settings.hub.has_events();
        if tells_others {
            // What others have heard cannot be taken back.
            self.undo.give_up();
        } else if command.is_write() {
            let db = self.db;
            let (exec, undo) = (&mut *self.exec, &mut self.undo);
            command
                .keys
                .visit(words, |at| undo.keep(exec, db, words[at]));
        }
    }

    fn run(
        &mut self,
        command: &'static Command,
        words: &[&[u8]],
        reply: &mut Reply,
    ) -> Result<(), CommandError> {
        let command = match (inner::row(command, words), command.run) {
            (Some(row), _) => row,
            (None, Run::Session(session)) => {
                let result = self.session(session, words, reply);
                if let Some(stats) = &mut self.exec.stats {
                    if let Err(error) = &result {
                        stats.error(&error.0);
                    }
                    stats.ran(command.name, 0, result.is_err(), false);
                }
                return result;
            }
            (None, _) => command,
        };
        let effects_before = self.commit.effects.len();
        let (db, commit) = (self.db, &mut self.commit);
        let hub = &self.exec.settings.hub;
        if hub.has_monitors() && !command.flags.has(Flags::SKIP_MONITOR) {
            hub.monitor(db.0, "lua", words);
        }
        self.exec.nested().run(command, db, words, reply, commit);
        if self.replicates & TO_REPLICAS == 0 {
            self.commit.effects.truncate(effects_before);
        }
        Ok(())
    }

    /// Commands that a connection runs by itself, where they mean something in a script.
    fn session(
        &mut self,
        session: Session,
        words: &[&[u8]],
        reply: &mut Reply,
    ) -> Result<(), CommandError> {
        match session {
            Session::Ping => match words {
                [_] => reply.simple("PONG"),
                [_, text] => reply.bulk(text),
                _ => return Err(CommandError::wrong_arity("ping")),
            },
            Session::Select => {
                let number = crate::command::words::int(words[1])?;
                let count = self.exec.database_count();
                let db = u32::try_from(number).ok().filter(|db| *db < count);
                self.db = DbIndex(db.ok_or(CommandError::DB_INDEX)?);
                reply.ok();
            }
            session => {
                let Some(runner) = super::session_runner() else {
                    return Err(CommandError::new(
                        "This Redis command is not allowed from script",
                    ));
                };
                let within = Within {
                    client_id: self.exec.client_id,
                    keyspaces: self.exec.keyspaces(),
                    reply,
                };
                runner(session, words, within)?;
            }
        }
        Ok(())
    }
}

/// An argument as a word of a command.
fn word(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(number) => Some(number.to_string().into_bytes()),
        Value::Number(number) => Some(number_word(*number)),
        _ => None,
    }
}
