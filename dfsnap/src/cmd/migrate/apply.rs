//! Changes of the source into transactions of the target.
//!
//! ```text
//! MULTI | SELECT 0, DEL position | one or more transactions of the source | SELECT 0, SET position | EXEC, WATCH position
//! ```
//! The position goes first and comes back last, so that SWAPDB and the like do not take it elsewhere.
//!
//! Expiries are held until the end (`hold`). Of changes that do not pass the filter nothing is sent, and the position is set at least each second all the same.
//!
//! Why a change is applied once: 1. a connection is lost, and the transaction that was on its way may still arrive;
//! 2. the next connection watches the position, reads it, and sends what is not there again; 3. whichever of the two comes
//! second finds the position changed since it was watched, and does nothing.

use super::{fine, hold};
use crate::live::client::{Lost, info_field};
use crate::live::feed::Step;
use crate::live::following::{End, Following};
use crate::live::{Client, Url, stop};
use crate::passage::Passage;
use crate::report::{self, Failure};
use dfsnap_formats::resp::{Frame, encode_command};
use dfsnap_replica::{Event, Position, ReplId, Transaction};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Where the target remembers how far it is, in database 0.
const KEY: &str = "dfsnap:position";
/// Transactions of the source are put together up to so much.
const GROUP_BYTES: usize = 256 << 10;
const GROUP_COMMANDS: usize = 1000;
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);
/// How often the source is asked how far it is, and the position noted.
const ASK_EVERY: Duration = Duration::from_millis(100);
const NOTE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default, Clone, Serialize)]
pub struct Applied {
    pub transactions: u64,
    pub commands: u64,
}

pub struct Applier {
    source: Url,
    target: Url,
    following: Following,
    /// None: lost.
    client: Option<Client>,
    /// Asked how far the source is.
    source_client: Option<Client>,
    /// What the target has.
    position: Position,
    /// What it knows that it has: the same, but for changes that did not pass.
    remembered: Position,
    remembered_at: Instant,
    passage: Passage,
    group: Group,
    applied: Applied,
    ways: Ways,
    has_caught_up: bool,
}

/// How changes are applied, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Ways {
    pub until_caught_up: bool,
    /// Expiries are held.
    pub holds: bool,
}

/// Whole transactions of the source, not applied yet.
struct Group {
    bytes: Vec<u8>,
    /// Encoded in `bytes`, SELECT included.
    commands: usize,
    /// Of the source.
    changes: u64,
    transactions: u64,
    /// Selected behind its last command.
    db: Option<u32>,
    replid: ReplId,
    end: Option<(u64, u32)>,
    holds: bool,
}

/// The position that the target remembers. It must come of the same options.
pub fn remembered(client: &mut Client, passage: &Passage) -> Result<Option<Position>, Failure> {
    let reply = client.call(&["GET", KEY])?;
    let frame = match fine(client, reply)? {
        Frame::Null => return Ok(None),
        frame => frame,
    };
    let text = String::from_utf8_lossy(frame.as_bytes().unwrap_or_default()).into_owned();
    let (position, typed) = text.split_once('\n').unwrap_or((&text, ""));
    if typed != passage.typed() {
        let shown = |typed: &str| match typed {
            "" => "no filter".to_owned(),
            typed => format!("\"{typed}\""),
        };
        return Err(Failure {
            message: format!(
                "{}: this migration began with {}, and now there is {}",
                client.name(),
                shown(typed),
                shown(passage.typed())
            ),
            advice: format!(
                "the options that it began with; or begin again: DEL {KEY} there, and --flush"
            ),
        });
    }
    position.parse().map(Some).map_err(|_| Failure {
        message: format!("{}: the key {KEY} holds no position", client.name()),
        advice: format!("DEL {KEY} there, if nothing needs it"),
    })
}

pub fn remember(client: &mut Client, position: Position, passage: &Passage) -> Result<(), Failure> {
    let reply = client.call(&["SET", KEY, &noted(position, passage)])?;
    fine(client, reply).map(drop)
}

/// The position, and below it the options where there are any.
fn noted(position: Position, passage: &Passage) -> String {
    match passage.typed() {
        "" => position.to_string(),
        typed => format!("{position}\n{typed}"),
    }
}

impl Applier {
    pub fn new(
        (source, target): (&Url, &Url),
        following: Following,
        position: Position,
        passage: Passage,
        ways: Ways,
    ) -> Applier {
        Applier {
            source: source.clone(),
            target: target.clone(),
            following,
            client: None,
            source_client: None,
            position,
            remembered: position,
            remembered_at: Instant::now(),
            passage,
            group: Group {
                bytes: Vec::new(),
                commands: 0,
                changes: 0,
                transactions: 0,
                db: None,
                replid: position.replid,
                end: None,
                holds: ways.holds,
            },
            applied: Applied::default(),
            ways,
            has_caught_up: false,
        }
    }

    pub fn position(&self) -> Position {
        self.position
    }

    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// Until a signal comes, or everything is there when that is wanted. The answer is whether everything is there.
    pub fn run(
        &mut self,
        note: &mut dyn FnMut(Position) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let (mut asked, mut noted) = (Instant::now(), Instant::now());
        loop {
            let more = match self.gather() {
                Ok(more) => more,
                Err(End::Stopped) => {
                    self.apply()?;
                    self.note()?;
                    return self.is_caught_up();
                }
                Err(End::Failed(failure)) => return Err(failure),
            };
            self.apply()?;
            if noted.elapsed() >= NOTE_EVERY {
                noted = Instant::now();
                note(self.position)?;
            }
            if !more
                && asked.elapsed() >= ASK_EVERY
                && (self.ways.until_caught_up || !self.has_caught_up)
            {
                asked = Instant::now();
                let is_caught_up = self.is_caught_up()?;
                if is_caught_up && !self.has_caught_up {
                    self.has_caught_up = true;
                    eprintln!("note: caught up at {}", self.position);
                }
                if is_caught_up && self.ways.until_caught_up {
                    self.note()?;
                    return Ok(true);
                }
            }
            if self.remembered_at.elapsed() >= NOTE_EVERY {
                self.note()?;
            }
            if stop::requested() {
                self.note()?;
                return self.is_caught_up();
            }
        }
    }

    /// Takes what has arrived; true: there may be more.
    fn gather(&mut self) -> Result<bool, End> {
        let name = self.source.to_string();
        let (group, passage) = (&mut self.group, &mut self.passage);
        let mut take = |event: Event<'_>| group.take(event, &name, passage);
        if self.following.step(&mut take)? == Step::Quiet {
            return Ok(false);
        }
        loop {
            let (group, passage) = (&mut self.group, &mut self.passage);
            if group.is_full() {
                return Ok(true);
            }
            let mut take = |event: Event<'_>| group.take(event, &name, passage);
            if !self.following.ready(&mut take)? {
                return Ok(false);
            }
        }
    }

    /// Everything gathered, as one transaction.
    fn apply(&mut self) -> Result<(), Failure> {
        let Some((offset, db)) = self.group.end.take() else {
            return Ok(());
        };
        let end = Position {
            replid: self.group.replid,
            offset,
            db,
        };
        if self.group.commands > 0 {
            self.send(end)?;
            self.applied.transactions += self.group.transactions;
            self.applied.commands += self.group.changes;
            self.group.clear();
        }
        self.position = end;
        self.following.applied(offset);
        Ok(())
    }

    /// Lets the target know that it has what did not pass as well.
    fn note(&mut self) -> Result<(), Failure> {
        match self.position == self.remembered || self.passage.is_open() {
            true => Ok(()),
            false => self.send(self.position),
        }
    }

    /// The group, until it is certain that the target has it.
    fn send(&mut self, end: Position) -> Result<(), Failure> {
        let request = self.group.request(&noted(end, &self.passage));
        let commands = self.group.commands + FRAME_COMMANDS;
        let mut attempts = 0;
        loop {
            let lost = match self.attempt(&request, commands, end) {
                Ok(()) => {
                    self.remembered = end;
                    self.remembered_at = Instant::now();
                    return Ok(());
                }
                Err(lost) => lost,
            };
            self.client = None;
            attempts += 1;
            if !lost.is_passing || attempts >= ATTEMPTS {
                return Err(lost.failure);
            }
            eprintln!("note: {}; connecting again", lost.failure.message);
            std::thread::sleep(PAUSE);
            self.following.beat();
        }
    }

    fn attempt(&mut self, request: &[u8], commands: usize, end: Position) -> Result<(), Lost> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => {
                let mut client = Client::connect(&self.target)?;
                client.ask(&["WATCH", KEY], "a user with +@transaction")?;
                let known = remembered(&mut client, &self.passage).map_err(|failure| Lost {
                    failure,
                    is_passing: false,
                })?;
                if known.is_some_and(|known| known.offset >= end.offset) {
                    self.client = Some(client);
                    return Ok(());
                }
                client
            }
        };
        client.push_encoded(request, commands)?;
        let mut refusal = None;
        for _ in 0..commands - 2 {
            if let Frame::Error(text) = client.reply()? {
                refusal.get_or_insert(text);
            }
        }
        let executed = client.reply()?;
        client.reply()?;
        match executed {
            Frame::Array(replies) => {
                let mut errors = replies.into_iter().filter_map(|reply| match reply {
                    Frame::Error(text) => Some(text),
                    _ => None,
                });
                refusal = errors.next();
            }
            Frame::Error(text) => {
                refusal.get_or_insert(text);
            }
            _ => {
                let text = b"the key dfsnap:position was changed by another connection";
                return Err(Lost {
                    is_passing: true,
                    ..client.lost(text, "end other migrations into this target")
                });
            }
        }
        match refusal {
            None => {
                self.client = Some(client);
                Ok(())
            }
            Some(text) => {
                let text = [&b"refuses a change: "[..], &text].concat();
                let advice = "the target must know every command of the source, hold what was copied, and have room; dfsnap follow --from POSITION shows the change";
                Err(client.lost(&text, advice))
            }
        }
    }

    /// Whether the target has everything that the source has written.
    fn is_caught_up(&mut self) -> Result<bool, Failure> {
        let Some(client) = &mut self.source_client else {
            // Not worth an end when it fails: the link says itself when the source is gone.
            self.source_client = Client::connect(&self.source).ok();
            return match self.source_client {
                Some(_) => self.is_caught_up(),
                None => Ok(false),
            };
        };
        let info = match client.call(&["INFO", "replication"]) {
            Ok(reply) => reply,
            Err(_) => {
                self.source_client = None;
                return Ok(false);
            }
        };
        let text = String::from_utf8_lossy(info.as_bytes().unwrap_or_default()).into_owned();
        let offset = info_field(&text, "master_repl_offset").and_then(|text| text.parse().ok());
        Ok(offset.is_some_and(|offset: u64| self.position.offset >= offset))
    }

    /// The target is on its own now. How many keys got their expiries back.
    pub fn finish(&mut self) -> Result<u64, Failure> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.target)?,
        };
        let following = &mut self.following;
        finish(&mut client, &self.target, &mut || following.beat())
    }
}

/// Gives keys their expiries back, and removes the position: in this order, so that whoever is interrupted begins again.
pub fn finish(client: &mut Client, target: &Url, beat: &mut dyn FnMut()) -> Result<u64, Failure> {
    let released = hold::release(client, target, beat)?;
    client.ask(&["SELECT", "0"], "a user with +select")?;
    let reply = client.call(&["DEL", KEY])?;
    fine(client, reply)?;
    Ok(released)
}

/// Whether the target remembers a position, of whatever options.
pub fn remembers(client: &mut Client) -> Result<bool, Failure> {
    let reply = client.call(&["EXISTS", KEY])?;
    Ok(fine(client, reply)? == Frame::Int(1))
}

/// MULTI, SELECT, DEL; SELECT, SET, EXEC, WATCH.
const FRAME_COMMANDS: usize = 7;

impl Group {
    fn take(
        &mut self,
        event: Event<'_>,
        source: &str,
        passage: &mut Passage,
    ) -> Result<(), Failure> {
        match event {
            Event::Transaction(unit) => self.unit(&unit, source, passage),
            Event::Continue { replid, .. } => {
                self.replid = replid;
                Ok(())
            }
            Event::PayloadStart(_) => Err(Failure {
                message: format!("{source}: cannot go on from this position: its backlog is too short, or it has another history"),
                advice: "raise repl-backlog-size and client-output-buffer-limit there, and start over: DEL dfsnap:position on the target, and --flush".to_owned(),
            }),
            Event::PayloadBytes(_) | Event::PayloadEnd => Ok(()),
        }
    }

    fn unit(
        &mut self,
        unit: &Transaction<'_>,
        source: &str,
        passage: &mut Passage,
    ) -> Result<(), Failure> {
        let before = self.changes;
        for command in unit.commands() {
            let words: Vec<&[u8]> = command.words().collect();
            if passage.is_open() {
                self.change(command.db, &words);
                continue;
            }
            let passed = passage.command(command.db, &words);
            let passed = passed.map_err(|refused| Failure {
                message: format!(
                    "{source}: offset {}: {} in database {}: {}",
                    unit.start_offset(),
                    report::key(words[0]),
                    command.db,
                    refused.why
                ),
                advice: refused.advice.to_owned(),
            })?;
            if let Some(sent) = passed {
                let words: Vec<&[u8]> = sent.words.iter().map(AsRef::as_ref).collect();
                self.change(sent.db, &words);
            }
        }
        self.end = Some((unit.end_offset, unit.db));
        self.transactions += u64::from(self.changes > before);
        Ok(())
    }

    fn change(&mut self, db: u32, words: &[&[u8]]) {
        match hold::command(words) {
            Some(held) if self.holds => self.command(db, &held),
            _ => self.command(db, words),
        }
    }

    fn command(&mut self, db: u32, words: &[impl AsRef<[u8]>]) {
        if self.db != Some(db) {
            self.db = Some(db);
            encode_command(&mut self.bytes, &["SELECT", &db.to_string()]);
            self.commands += 1;
        }
        encode_command(&mut self.bytes, words);
        self.commands += 1;
        self.changes += 1;
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= GROUP_BYTES || self.commands >= GROUP_COMMANDS
    }

    fn request(&self, position: &str) -> Vec<u8> {
        let mut request = Vec::with_capacity(self.bytes.len() + position.len() + 250);
        encode_command(&mut request, &["MULTI"]);
        encode_command(&mut request, &["SELECT", "0"]);
        encode_command(&mut request, &["DEL", KEY]);
        request.extend_from_slice(&self.bytes);
        encode_command(&mut request, &["SELECT", "0"]);
        encode_command(&mut request, &["SET", KEY, position]);
        encode_command(&mut request, &["EXEC"]);
        encode_command(&mut request, &["WATCH", KEY]);
        request
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.commands = 0;
        self.changes = 0;
        self.transactions = 0;
        self.db = None;
    }
}
