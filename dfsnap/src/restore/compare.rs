//! Whether everything that a dump holds is on a server, value by value.
//!
//! Values are compared by their digests, so that encodings do not matter; expiries to a second, because a server that
//! takes relative times counts from the moment when it got them.

use super::encode::value_of;
use crate::live::cluster::{self, Nodes};
use crate::live::{Client, Url, server};
use crate::report::{self, Failure};
use crate::source::{Record, Source};
use dfsnap_formats::digest::{DatasetDigest, Digest, ScoreForm, key_digest};
use dfsnap_formats::rdb::loss;
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::resp::Frame;

#[derive(Debug, Default, serde::Serialize)]
pub struct Comparison {
    pub compared: u64,
    pub equal: u64,
    /// The first keys that differ, and how.
    pub differing: Vec<String>,
    pub digest_of_source: String,
    pub digest_of_target: String,
}

/// Keys asked for at once.
const BATCH: usize = 200;
const NAMED_MAX: usize = 20;
/// Expiries may differ by so much.
const EXPIRY_TOLERANCE_MS: i64 = 1000;

struct Wanted {
    db: u32,
    key: Vec<u8>,
    expire_at_ms: Option<i64>,
    digest: Digest,
}

struct Comparing {
    nodes: Nodes,
    /// One for each node.
    asking: Vec<Asking>,
    target: Target,
    found: Comparison,
    digests: [DatasetDigest; 2],
}

/// Keys that one node is to be asked for.
struct Asking {
    client: Client,
    db: Option<u32>,
    waiting: Vec<Wanted>,
}

pub fn compare(source: Source, url: &Url) -> Result<Comparison, Failure> {
    let nodes = Nodes::of(url)?;
    let mut clients = nodes.connect()?;
    let target = server::oldest(&mut clients)?.target;
    let asking = clients.into_iter().map(|client| Asking {
        client,
        db: None,
        waiting: Vec::new(),
    });
    let mut comparing = Comparing {
        nodes,
        asking: asking.collect(),
        target,
        found: Comparison::default(),
        digests: Default::default(),
    };
    source.for_each(&mut |record| match record {
        Record::Key(key) => {
            let Some(entry) = key.entry()? else {
                return Ok(());
            };
            let node = comparing.nodes.of_key(&entry.key);
            comparing.want(node, &entry);
            match comparing.asking[node].waiting.len() >= BATCH {
                true => comparing.ask(node),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    })?;
    for node in 0..comparing.asking.len() {
        comparing.ask(node)?;
    }
    let [source, target] = comparing.digests;
    comparing.found.digest_of_source = source.finish().to_string();
    comparing.found.digest_of_target = target.finish().to_string();
    Ok(comparing.found)
}

impl Comparing {
    fn want(&mut self, node: usize, entry: &dfsnap_formats::dataset::Entry) {
        let expire_at_ms = entry.attributes.expire_at_ms;
        if expire_at_ms.is_some_and(|at_ms| at_ms <= report::now_ms()) {
            return;
        }
        if let Some(value) = loss::without(&entry.value, self.target) {
            let expires = expire_at_ms.is_some();
            self.asking[node].waiting.push(Wanted {
                db: entry.db,
                key: entry.key.clone(),
                expire_at_ms,
                digest: key_digest(&entry.key, &value, expires, ScoreForm::Short),
            });
        }
    }

    fn ask(&mut self, node: usize) -> Result<(), Failure> {
        let waiting = std::mem::take(&mut self.asking[node].waiting);
        for same in waiting.chunk_by(|a, b| a.db == b.db) {
            let db = same[0].db;
            let Asking {
                client, db: known, ..
            } = &mut self.asking[node];
            if *known != Some(db) {
                let select = ["SELECT", &db.to_string()];
                client.ask(&select, "a server with as many databases")?;
                *known = Some(db);
            }
            for wanted in same {
                client.push(&["TIME"])?;
                client.push(&[&b"PTTL"[..], &wanted.key])?;
                client.push(&[&b"DUMP"[..], &wanted.key])?;
            }
            for wanted in same {
                let client = &mut self.asking[node].client;
                let now_ms = server::time_ms(&client.reply()?);
                let left = client.reply()?;
                let dumped = client.reply()?;
                if let Frame::Error(text) = &dumped
                    && cluster::redirect(text).is_some()
                {
                    let advice = "compare again when no slots move";
                    return Err(client.lost(text, advice).into());
                }
                self.look(wanted, now_ms, &left, &dumped);
            }
        }
        Ok(())
    }

    fn look(&mut self, wanted: &Wanted, now_ms: Option<i64>, left: &Frame, dumped: &Frame) {
        let now_ms = now_ms.unwrap_or_else(report::now_ms);
        let expire_at_ms = match left {
            Frame::Int(left @ 0..) => Some(now_ms + left),
            _ => None,
        };
        let value = match dumped {
            Frame::Bulk(payload) => value_of(payload),
            _ => None,
        };
        let Some(value) = value else {
            if wanted.expire_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                return; // expired while it was compared
            }
            self.found.compared += 1;
            self.digests[0].add(wanted.db, wanted.digest);
            self.differs(wanted, "is not there");
            return;
        };
        self.found.compared += 1;
        self.digests[0].add(wanted.db, wanted.digest);
        let expires = expire_at_ms.is_some();
        let digest = key_digest(&wanted.key, &value, expires, ScoreForm::Short);
        self.digests[1].add(wanted.db, digest);
        let apart = match (wanted.expire_at_ms, expire_at_ms) {
            (Some(a), Some(b)) => (a - b).abs() > EXPIRY_TOLERANCE_MS,
            (a, b) => a.is_some() != b.is_some(),
        };
        match (apart, digest == wanted.digest) {
            (true, _) => self.differs(wanted, "has another expiry"),
            (false, false) => self.differs(wanted, "has another value"),
            (false, true) => self.found.equal += 1,
        }
    }

    fn differs(&mut self, wanted: &Wanted, how: &str) {
        if self.found.differing.len() < NAMED_MAX {
            let key = report::key(&wanted.key);
            self.found
                .differing
                .push(format!("db {}, key {key} {how}", wanted.db));
        }
    }
}
