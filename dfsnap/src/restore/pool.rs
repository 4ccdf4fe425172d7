//! Connections that send batches side by side, and the account of what is done.
//!
//! A connection that is lost is made again and its batch sent again; a key that a node of a cluster sends elsewhere goes there, all of
//! its commands together. The account moves in the order in which batches
//! were handed over: what is done has nothing undone before it.

use super::encode::{Encoded, Role, Sent as Command, unsayable, value_of};
use super::{Existing, Options};
use crate::live::client::Lost;
use crate::live::cluster::{Redirect, redirect};
use crate::live::{Client, Url, server, stop};
use crate::report::{self, Failure};
use dfsnap_formats::dataset::Entry;
use dfsnap_formats::resp::{Frame, RequestDecoder};
use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub struct Pool {
    /// None: closed.
    /// For each node.
    to: Option<Vec<SyncSender<(u64, Encoded)>>>,
    from: Receiver<(u64, Done)>,
    workers: Vec<JoinHandle<()>>,
    next_number: u64,
    /// Batches that are done while an earlier one is not: their ends by number.
    ahead: BTreeMap<u64, u64>,
    next_done: u64,
    done: u64,
}

/// What came of some batches.
#[derive(Debug, Default)]
pub struct Sent {
    pub restored: u64,
    pub skipped: u64,
    pub converted: u64,
    /// So many of the first keys are done with.
    pub done: u64,
    pub failure: Option<Failure>,
}

/// What came of one batch.
#[derive(Debug, Default)]
struct Done {
    end: u64,
    restored: u64,
    skipped: u64,
    converted: u64,
    failure: Option<Failure>,
}

/// Attempts to connect again, and the pause between them.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);
/// A key that is sent on more often is where nobody knows.
const REDIRECTS_MAX: usize = 8;

impl Pool {
    pub fn start(nodes: &[Url], options: &Options) -> Result<Pool, Failure> {
        let count = options.connections.div_ceil(nodes.len()).max(1);
        let (answers, from) = channel();
        let (mut to, mut workers) = (Vec::new(), Vec::new());
        for url in nodes {
            let (to_node, jobs) = sync_channel(count);
            let jobs = Arc::new(Mutex::new(jobs));
            for _ in 0..count {
                let mut client = Client::connect(url)?;
                let version = server::ask(&mut client)?.target.version();
                let worker = Worker {
                    url: url.clone(),
                    client: Some(client),
                    others: HashMap::new(),
                    existing: options.existing,
                    version,
                };
                let (jobs, answers) = (Arc::clone(&jobs), answers.clone());
                workers.push(std::thread::spawn(move || worker.run(&jobs, &answers)));
            }
            to.push(to_node);
        }
        Ok(Pool {
            to: Some(to),
            from,
            workers,
            next_number: 0,
            ahead: BTreeMap::new(),
            next_done: 0,
            done: 0,
        })
    }

    /// Hands a batch over; waits while all connections to the node are busy. The answer is what was finished meanwhile.
    pub fn send(&mut self, node: usize, batch: Encoded) -> Result<Sent, Failure> {
        let number = self.next_number;
        self.next_number += 1;
        let to = self.to.as_ref().expect("open until it is drained");
        // When no connection is left, the answers say why.
        let _ = to[node].send((number, batch));
        let mut sent = Sent::default();
        while let Ok((number, done)) = self.from.try_recv() {
            self.add(number, done, &mut sent);
        }
        sent.done = self.done;
        Ok(sent)
    }

    /// Waits for everything that was handed over.
    pub fn drain(&mut self) -> Sent {
        self.to = None;
        let mut sent = Sent::default();
        while let Ok((number, done)) = self.from.recv() {
            self.add(number, done, &mut sent);
        }
        for worker in self.workers.drain(..) {
            if worker.join().is_err() && sent.failure.is_none() {
                sent.failure = Some(Failure {
                    message: "a connection ended in a way that is a bug of dfsnap".to_owned(),
                    advice: "report the lines above; the same command goes on".to_owned(),
                });
            }
        }
        sent.done = self.done;
        sent
    }

    fn add(&mut self, number: u64, done: Done, sent: &mut Sent) {
        sent.restored += done.restored;
        sent.skipped += done.skipped;
        sent.converted += done.converted;
        if done.failure.is_some() {
            sent.failure = sent.failure.take().or(done.failure);
            return;
        }
        self.ahead.insert(number, done.end);
        while let Some(end) = self.ahead.remove(&self.next_done) {
            self.next_done += 1;
            self.done = self.done.max(end);
        }
    }
}

struct Worker {
    url: Url,
    /// None: lost.
    client: Option<Client>,
    /// To nodes where this one has sent us, by address.
    others: HashMap<String, Client>,
    existing: Existing,
    version: u16,
}

type Jobs = Mutex<Receiver<(u64, Encoded)>>;

impl Worker {
    fn run(mut self, jobs: &Jobs, answers: &Sender<(u64, Done)>) {
        loop {
            let job = match jobs.lock() {
                Ok(jobs) => jobs.recv(),
                Err(_) => return,
            };
            let Ok((number, batch)) = job else { return };
            let done = self.batch(&batch);
            let failed = done.failure.is_some();
            if answers.send((number, done)).is_err() || failed {
                return;
            }
        }
    }

    fn batch(&mut self, batch: &Encoded) -> Done {
        let mut attempts = 0;
        loop {
            let lost = match self.attempt(batch) {
                Ok(done) => return done,
                Err(lost) => lost,
            };
            self.client = None;
            self.others.clear();
            attempts += 1;
            if !lost.is_passing || attempts >= ATTEMPTS || stop::requested() {
                return Done {
                    failure: Some(lost.failure),
                    ..Done::default()
                };
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn attempt(&mut self, batch: &Encoded) -> Result<Done, Lost> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.url)?,
        };
        let mut done = Done {
            end: batch.end,
            ..Done::default()
        };
        client.push_encoded(&batch.bytes, batch.commands.len())?;
        let (mut refused, mut elsewhere) = (Vec::new(), Vec::new());
        for (at, command) in batch.commands.iter().enumerate() {
            let reply = client.reply()?;
            match moved(command, &reply) {
                Some(redirect) => elsewhere.push((at, redirect)),
                None => self.judge(&client, command, &reply, &mut done, &mut refused)?,
            }
        }
        let mut behind = 0;
        for (at, redirect) in elsewhere {
            // The commands of a key go together: the first of them that is sent away takes the others along.
            if at >= behind {
                behind = self.elsewhere(batch, at, redirect, &mut done)?;
            }
        }
        for command in refused {
            self.by_commands(&mut client, batch, command, &mut done)?;
        }
        self.client = Some(client);
        Ok(done)
    }

    /// Sends all commands of the key at `at` to where it is. The answer is the place behind them.
    fn elsewhere(
        &mut self,
        batch: &Encoded,
        at: usize,
        mut redirect: Redirect,
        done: &mut Done,
    ) -> Result<usize, Lost> {
        let key = &batch.commands[at].key;
        let is_other = |command: &Command| command.key != *key || command.role == Role::Select;
        let before = batch.commands[..at].iter().rposition(is_other);
        let from = before.map_or(0, |before| before + 1);
        let after = batch.commands[at..].iter().position(is_other);
        let to = after.map_or(batch.commands.len(), |after| at + after);
        for _ in 0..REDIRECTS_MAX {
            let url = self.url.at(redirect.host.as_deref(), redirect.port);
            let name = url.to_string();
            let mut client = match self.others.remove(&name) {
                Some(client) => client,
                None => Client::connect(&url)?,
            };
            let commands = &batch.commands[from..to];
            for command in commands {
                if redirect.is_ask {
                    client.push(&["ASKING"])?;
                }
                client.push_encoded(&batch.bytes[command.at.clone()], 1)?;
            }
            let (mut next, mut refused) = (None, Vec::new());
            for command in commands {
                if redirect.is_ask {
                    client.reply()?;
                }
                let reply = client.reply()?;
                match moved(command, &reply) {
                    Some(redirect) => next = next.or(Some(redirect)),
                    None => self.judge(&client, command, &reply, done, &mut refused)?,
                }
            }
            for command in refused {
                self.by_commands(&mut client, batch, command, done)?;
            }
            self.others.insert(name, client);
            match next {
                None => return Ok(to),
                Some(next) => redirect = next,
            }
        }
        let text = format!("key {}: sent from node to node", report::key(key));
        let client = Client::connect(&self.url)?;
        Err(Lost {
            is_passing: true,
            ..client.lost(text.as_bytes(), "redis-cli --cluster check shows why")
        })
    }

    fn judge<'b>(
        &self,
        client: &Client,
        command: &'b Command,
        reply: &Frame,
        done: &mut Done,
        refused: &mut Vec<&'b Command>,
    ) -> Result<(), Lost> {
        match (command.role, reply) {
            (Role::CleanUp, _) => {}
            (Role::Restore, Frame::Error(text)) if text.starts_with(b"BUSYKEY") => {
                match self.existing {
                    Existing::Skip => done.skipped += 1,
                    Existing::Replace => return Err(self.refusal(client, command, text)),
                }
            }
            (Role::Restore, Frame::Error(text)) if is_about_payload(text) => refused.push(command),
            (_, Frame::Error(text)) if is_passing(text) => {
                return Err(Lost {
                    is_passing: true,
                    ..self.refusal(client, command, text)
                });
            }
            (_, Frame::Error(text)) => return Err(self.refusal(client, command, text)),
            (Role::Appear, Frame::Int(0)) => done.skipped += 1,
            (Role::Restore | Role::Appear, _) => done.restored += 1,
            (Role::Select | Role::Step, _) => {}
        }
        Ok(())
    }

    fn refusal(&self, client: &Client, command: &Command, text: &[u8]) -> Lost {
        let advice = match text {
            _ if command.role == Role::Select => "a server with as many databases, or --db",
            _ if text.starts_with(b"OOM") => "raise maxmemory there; the same command goes on",
            _ if text.starts_with(b"READONLY") => "restore into the primary of that server",
            _ if text.starts_with(b"NOPERM") => "a user with +@write +select +restore",
            _ if text.starts_with(b"MOVED") => {
                "this is one node of a cluster: redis+cluster:// goes to all of them"
            }
            _ => "look at the key with `dfsnap get`, and at the server's log",
        };
        let (db, key) = (command.db, report::key(&command.key));
        let text = String::from_utf8_lossy(text);
        client.lost(format!("db {db}, key {key}: {text}").as_bytes(), advice)
    }

    /// The server does not understand the payload: the same value by the commands of its type.
    fn by_commands(
        &self,
        client: &mut Client,
        batch: &Encoded,
        command: &Command,
        done: &mut Done,
    ) -> Result<(), Lost> {
        let what = format!("db {}, key {}", command.db, report::key(&command.key));
        let bytes = &batch.bytes[command.at.clone()];
        let mut decoder = RequestDecoder::new(usize::MAX >> 1);
        let decoded = decoder
            .decode(bytes)
            .is_ok_and(|consumed| consumed.is_some());
        let value = decoded.then(|| value_of(decoder.word(bytes, 3))).flatten();
        let fatal = |failure: Failure| Lost {
            failure,
            is_passing: false,
        };
        let Some(value) = value else {
            let text = format!("{what}: the server refuses the payload");
            return Err(client.lost(
                text.as_bytes(),
                "dfsnap verify shows whether the value is sound",
            ));
        };
        let entry = Entry {
            db: command.db,
            key: command.key.clone(),
            attributes: command.attributes,
            value,
        };
        let mut native = Encoded::default();
        native
            .native(entry, self.version, self.existing)
            .map_err(|error| fatal(unsayable(&what, &error)))?;
        client.push_encoded(&native.bytes, native.commands.len())?;
        let mut again = Vec::new();
        for command in &native.commands {
            let reply = client.reply()?;
            self.judge(client, command, &reply, done, &mut again)?;
        }
        match again.first() {
            Some(command) => {
                let text = b"the server knows neither the payload nor commands for it: a module is missing there";
                Err(self.refusal(client, command, text))
            }
            None => {
                done.converted += 1;
                Ok(())
            }
        }
    }
}

/// Where a key is, if not here. A clean-up says nothing about a key.
fn moved(command: &Command, reply: &Frame) -> Option<Redirect> {
    match (command.role, reply) {
        (Role::Restore | Role::Step | Role::Appear, Frame::Error(text)) => redirect(text),
        _ => None,
    }
}

/// What a cluster says while slots move or a primary is chosen.
fn is_passing(text: &[u8]) -> bool {
    text.starts_with(b"TRYAGAIN") || text.starts_with(b"CLUSTERDOWN")
}

/// The server cannot read it: a newer type, a version it does not know.
fn is_about_payload(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.contains("Bad data format") || text.contains("payload version or checksum")
}
