//! Records of a dump into a live server, over several connections.
//!
//! `encode` turns each key into the commands that carry it, `pool` sends them, `direct` those of large values, `checkpoint` notes how far that went,
//! `compare` looks whether all of it is there.
//!
//! Invariants
//! - A key appears on the server whole: by one RESTORE, or under another name that is changed at the end.
//! - In a cluster each key goes to the node that has its slot, and on to where that node sends it.
//! - Sending a batch twice leaves what sending it once does; so lost connections and restarts repeat what they must.

pub mod checkpoint;
pub mod compare;
pub mod direct;
pub mod encode;
pub mod pool;

use crate::live::cluster::Nodes;
use crate::live::{Client, Url, server, stop};
use crate::report::{self, Failure};
use crate::source::{Record, Source};
use checkpoint::Checkpoint;
use dfsnap_formats::resp::Frame;
use direct::Direct;
use encode::{Encoded, Encoder};
use pool::{Pool, Sent};
use std::time::{Duration, Instant};

/// What is done about keys that the server has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Replace,
    Skip,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub existing: Existing,
    pub allow_loss: bool,
    /// Commands of each type instead of RESTORE.
    pub use_commands: bool,
    /// Values of more stored bytes go in parts.
    pub parts_over: u64,
    pub connections: usize,
    /// Keys a second.
    pub rate: Option<u32>,
}

/// What came of the records so far.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Tally {
    /// Keys that the server took.
    pub restored: u64,
    /// Keys that were there already.
    pub skipped: u64,
    /// Keys that were past their expiry.
    pub expired: u64,
    /// Of those restored: as data, because the server stores them in another way.
    pub converted: u64,
    /// Of those restored: in parts, because they are large.
    pub in_parts: u64,
    pub functions: u64,
    /// What the server cannot hold, and how often.
    pub losses: std::collections::BTreeMap<String, u64>,
    /// Of those, the ones that are no hints: without --allow-loss they end a restore.
    pub data_losses: u64,
}

/// Takes records and sends them.
pub struct Loader {
    encoder: Encoder,
    pool: Pool,
    nodes: Nodes,
    /// For what must go in order: large values and functions. One for each node.
    direct: Vec<Direct>,
    /// One for each node. All of them go out together: what is done has nothing undone before it.
    batches: Vec<Encoded>,
    /// Keys taken so far, keys of batches that went out, and that many of the first keys are done with.
    taken: u64,
    sent: u64,
    done: u64,
    tally: Tally,
    rate: Option<Rate>,
}

struct Rate {
    keys_per_second: f64,
    began: Instant,
    sent: u64,
}

/// A batch goes out when it has this many bytes or commands.
const BATCH_BYTES: usize = 512 << 10;
const BATCH_COMMANDS: usize = 500;

impl Loader {
    pub fn start(url: &Url, options: &Options) -> Result<Loader, Failure> {
        let nodes = Nodes::of(url)?;
        let mut clients = nodes.connect()?;
        let server = server::oldest(&mut clients)?;
        let is_node = nodes.is_cluster();
        let direct = nodes.urls.iter().zip(clients);
        let direct = direct.map(|(url, client)| Direct::new(url, client, is_node));
        let direct: Vec<Direct> = direct.collect();
        Ok(Loader {
            encoder: Encoder::new(server, options),
            pool: Pool::start(&nodes.urls, options)?,
            batches: direct.iter().map(|_| Encoded::default()).collect(),
            nodes,
            direct,
            taken: 0,
            sent: 0,
            done: 0,
            tally: Tally::default(),
            rate: options.rate.map(|keys_per_second| Rate {
                keys_per_second: f64::from(keys_per_second),
                began: Instant::now(),
                sent: 0,
            }),
        })
    }

    /// The first keys were restored before, by another process.
    pub fn skip_first(&mut self, keys: u64) {
        self.done = keys;
    }

    /// So many of the first keys are done with.
    pub fn done(&self) -> u64 {
        self.done
    }

    pub fn record(&mut self, record: Record<'_>) -> Result<(), Failure> {
        match record {
            Record::Aux { .. } | Record::Header(_) | Record::End(_) | Record::Behind(_) => Ok(()),
            Record::Function(code) => self.function(code),
            Record::ModuleAux { module, .. } => self
                .encoder
                .lose_module_aux(&module.name(), &mut self.tally),
            Record::Key(key) => {
                self.taken += 1;
                if self.taken <= self.done {
                    return Ok(());
                }
                self.nodes.check_db(key.head.db)?;
                let now_ms = report::now_ms();
                let node = self.nodes.of_key(key.head.key);
                let batch = &mut self.batches[node];
                let large = self.encoder.key(
                    key,
                    now_ms,
                    batch,
                    &mut self.direct[node],
                    &mut self.tally,
                )?;
                let full = batch.bytes.len() >= BATCH_BYTES
                    || batch.commands.len() >= BATCH_COMMANDS
                    || self.rate.is_some() && batch.keys >= 10;
                if let (true, Some(rate)) = (large, &mut self.rate) {
                    rate.sent += 1;
                }
                match full || large {
                    true => self.send(),
                    false => Ok(()),
                }
            }
        }
    }

    fn function(&mut self, code: &[u8]) -> Result<(), Failure> {
        let words = self.encoder.function(code, &mut self.tally)?;
        let Some(words) = words else { return Ok(()) };
        let mut is_new = false;
        for client in self.direct.iter_mut().map(Direct::own) {
            match client.call(&words)? {
                Frame::Error(text) if text.windows(14).any(|part| part == b"already exists") => {}
                Frame::Error(text) => {
                    let advice = "look at the library: FUNCTION LOAD refuses it";
                    return Err(client.lost(&text, advice).into());
                }
                _ => is_new = true,
            }
        }
        self.tally.functions += u64::from(is_new);
        Ok(())
    }

    /// Hands what is there to connections, and takes note of what others have finished.
    fn send(&mut self) -> Result<(), Failure> {
        let filled: Vec<usize> = (0..self.batches.len())
            .filter(|&node| !self.batches[node].commands.is_empty())
            .collect();
        // One that is empty tells of keys that needed no commands.
        let nodes = if filled.is_empty() { vec![0] } else { filled };
        let last = nodes.len() - 1;
        for (at, node) in nodes.into_iter().enumerate() {
            let mut batch = std::mem::take(&mut self.batches[node]);
            batch.end = if at == last { self.taken } else { self.sent };
            if let Some(rate) = &mut self.rate {
                rate.sent += batch.keys;
                let due = Duration::from_secs_f64(rate.sent as f64 / rate.keys_per_second);
                std::thread::sleep(due.saturating_sub(rate.began.elapsed()));
            }
            let sent = self.pool.send(node, batch)?;
            self.note(sent)?;
        }
        self.sent = self.taken;
        Ok(())
    }

    fn note(&mut self, sent: Sent) -> Result<(), Failure> {
        self.tally.restored += sent.restored;
        self.tally.skipped += sent.skipped;
        self.tally.converted += sent.converted;
        self.done = self.done.max(sent.done);
        match sent.failure {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Sends what is left and waits until everything is answered.
    pub fn finish(&mut self) -> Result<Tally, Failure> {
        self.send()?;
        let sent = self.pool.drain();
        self.note(sent)?;
        Ok(self.tally.clone())
    }

    /// What was sent is waited for, and what is not sent is not.
    pub fn stop(&mut self) {
        let sent = self.pool.drain();
        // What failed comes again when the work goes on.
        let _ = self.note(sent);
    }
}

/// Everything of a source, noting progress; `each` is called before every record, and while a disk is waited for. After a failure the checkpoint says
/// how far it came, and so does the message; after success it is the caller's to remove.
pub fn run(
    source: Source,
    url: &Url,
    options: &Options,
    checkpoint: &mut Option<Checkpoint>,
    each: &mut dyn FnMut(),
) -> Result<Tally, Failure> {
    let mut loader = Loader::start(url, options)?;
    if let Some(checkpoint) = checkpoint {
        loader.skip_first(checkpoint.state.keys_done);
        checkpoint.write(each)?;
    }
    let loaded = source.for_each(&mut |record| {
        each();
        if stop::requested() {
            return Err(Failure {
                message: "stopped by a signal".to_owned(),
                advice: String::new(),
            });
        }
        loader.record(record)?;
        match checkpoint {
            Some(checkpoint) => checkpoint.note(loader.done(), each),
            None => Ok(()),
        }
    });
    let finished = loaded.and_then(|()| loader.finish());
    finished.map_err(|failure| interrupted(failure, &mut loader, checkpoint))
}

/// Notes how far it came, and says so.
fn interrupted(
    failure: Failure,
    loader: &mut Loader,
    checkpoint: &mut Option<Checkpoint>,
) -> Failure {
    loader.stop();
    let done = loader.done();
    if let Some(checkpoint) = checkpoint {
        checkpoint.state.keys_done = done;
        // A checkpoint that cannot be written is an older one, which is as good.
        let _ = checkpoint.write(&mut || {});
    }
    let advice = match (failure.advice.as_str(), checkpoint.is_some()) {
        ("", true) => "the same command goes on from there".to_owned(),
        ("", false) => "run the command again; --checkpoint FILE lets it go on".to_owned(),
        (advice, true) => format!("{advice}; then the same command goes on from there"),
        (advice, false) => advice.to_owned(),
    };
    Failure {
        message: format!("{}; the first {done} keys are restored", failure.message),
        advice,
    }
}

/// Keys of all nodes.
pub fn keys_of_all(clients: &mut [Client]) -> Result<u64, Failure> {
    clients.iter_mut().map(keys_of).sum()
}

/// Keys in all databases of a server.
pub fn keys_of(client: &mut Client) -> Result<u64, Failure> {
    let reply = client.ask(&["INFO", "keyspace"], "a user with +info")?;
    let text = String::from_utf8_lossy(reply.as_bytes().unwrap_or_default()).into_owned();
    let counts = text.lines().filter_map(|line| {
        let (_, fields) = line.strip_prefix("db")?.split_once(':')?;
        let mut fields = fields.split(',');
        let keys = fields.find_map(|field| field.strip_prefix("keys="))?;
        keys.parse::<u64>().ok()
    });
    Ok(counts.sum())
}

/// What a restore would do: reads the whole source, and writes nothing.
pub fn look(source: Source, url: &Url, options: &Options) -> Result<(Tally, u64), Failure> {
    let nodes = Nodes::of(url)?;
    let mut clients = nodes.connect()?;
    let server = server::oldest(&mut clients)?;
    let encoder = Encoder::new(
        server,
        &Options {
            allow_loss: true,
            ..options.clone()
        },
    );
    let mut tally = Tally::default();
    let asked = clients.into_iter().map(|client| Asked {
        client,
        db: None,
        there: 0,
    });
    let mut asked: Vec<Asked> = asked.collect();
    source.for_each(&mut |record| match record {
        Record::Aux { .. } | Record::Header(_) | Record::End(_) | Record::Behind(_) => Ok(()),
        Record::Function(code) => {
            let words = encoder.function(code, &mut tally)?;
            tally.functions += u64::from(words.is_some());
            Ok(())
        }
        Record::ModuleAux { module, .. } => encoder.lose_module_aux(&module.name(), &mut tally),
        Record::Key(key) => {
            nodes.check_db(key.head.db)?;
            asked[nodes.of_key(key.head.key)].ask(key.head.db, key.head.key)?;
            encoder.look(key, report::now_ms(), &mut tally)
        }
    })?;
    let there: Result<u64, Failure> = asked.into_iter().map(Asked::finish).sum();
    Ok((tally, there?))
}

/// Counts the keys that are there already.
struct Asked {
    client: Client,
    db: Option<u32>,
    there: u64,
}

impl Asked {
    fn ask(&mut self, db: u32, key: &[u8]) -> Result<(), Failure> {
        if self.db != Some(db) {
            self.replies()?;
            let select = ["SELECT", &db.to_string()];
            self.client
                .ask(&select, "a server with as many databases, or --db")?;
            self.db = Some(db);
        }
        self.client.push(&[&b"EXISTS"[..], key])?;
        match self.client.pending() >= BATCH_COMMANDS {
            true => self.replies(),
            false => Ok(()),
        }
    }

    fn replies(&mut self) -> Result<(), Failure> {
        while self.client.pending() > 0 {
            self.there += u64::from(self.client.reply()? == Frame::Int(1));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<u64, Failure> {
        self.replies()?;
        Ok(self.there)
    }
}
