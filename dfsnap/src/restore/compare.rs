//! Whether everything that a dump holds is on a server, value by value.
//!
//! Values are compared by their digests, so that encodings do not matter; expiries to a second, because a server that
//! takes relative times counts from the moment when it got them.
//!
//! Memory: the payload of the largest value, as the server sends it.

use super::encode::may_have_field_expiry;
use crate::keydigest;
use crate::live::cluster::{self, Nodes};
use crate::live::{Client, Url, server};
use crate::report::{self, Failure};
use crate::source::{Key, Record, Source};
use dfsnap_formats::digest::{DatasetDigest, Digest, ScoreForm, key_digest};
use dfsnap_formats::rdb::loss;
use dfsnap_formats::rdb::parts::PartWalk;
use dfsnap_formats::rdb::target::{Feature, Target};
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

/// Keys asked for at once, and bytes of their values as the dump has them: no more than those of one large value are on their way
/// beyond that.
const BATCH: usize = 200;
const BATCH_BYTES: u64 = 1 << 20;
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
    walk: PartWalk,
}

/// Keys that one node is to be asked for.
struct Asking {
    client: Client,
    db: Option<u32>,
    waiting: Vec<Wanted>,
    waiting_bytes: u64,
}

impl Asking {
    fn is_full(&self) -> bool {
        self.waiting.len() >= BATCH || self.waiting_bytes >= BATCH_BYTES
    }
}

pub fn compare(source: Source, url: &Url) -> Result<Comparison, Failure> {
    let nodes = Nodes::of(url)?;
    let mut clients = nodes.connect()?;
    let target = server::oldest(&mut clients)?.target;
    let asking = clients.into_iter().map(|client| Asking {
        client,
        db: None,
        waiting: Vec::new(),
        waiting_bytes: 0,
    });
    let mut comparing = Comparing {
        nodes,
        asking: asking.collect(),
        target,
        found: Comparison::default(),
        digests: Default::default(),
        walk: PartWalk::default(),
    };
    source.for_each(&mut |record| match record {
        Record::Key(key) => {
            let node = comparing.nodes.of_key(key.head.key);
            comparing.want(node, key)?;
            match comparing.asking[node].is_full() {
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
    fn want(&mut self, node: usize, key: Key<'_>) -> Result<(), Failure> {
        let head = key.head;
        let expire_at_ms = head.attributes.expire_at_ms;
        if expire_at_ms.is_some_and(|at_ms| at_ms <= report::now_ms()) {
            return Ok(());
        }
        let (db, name) = (head.db, head.key.to_vec());
        let bytes = match key.record() {
            Some(record) => record.value.len() as u64,
            None if key.large_record().is_some() => BATCH_BYTES,
            // Of data it is not known; most are small.
            None => BATCH_BYTES / BATCH as u64,
        };
        if let Some(digest) = self.digest(key)? {
            self.asking[node].waiting_bytes += bytes;
            self.asking[node].waiting.push(Wanted {
                db,
                key: name,
                expire_at_ms,
                digest,
            });
        }
        Ok(())
    }

    /// That of what the server can hold of a key. None: nothing.
    fn digest(&self, key: Key<'_>) -> Result<Option<Digest>, Failure> {
        let knows_expiry = self.target.knows(Feature::FieldExpiry);
        let may_lose = !knows_expiry && key.type_code.is_some_and(may_have_field_expiry);
        if keydigest::is_walked(&key) && !may_lose {
            return keydigest::of_key(key, ScoreForm::Short);
        }
        let expires = key.head.attributes.expire_at_ms.is_some();
        let Some(entry) = key.entry()? else {
            return Ok(None);
        };
        let value = loss::without(&entry.value, self.target);
        Ok(value.map(|value| key_digest(&entry.key, &value, expires, ScoreForm::Short)))
    }

    fn ask(&mut self, node: usize) -> Result<(), Failure> {
        let waiting = std::mem::take(&mut self.asking[node].waiting);
        self.asking[node].waiting_bytes = 0;
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
        let expires = expire_at_ms.is_some();
        let digest = match dumped {
            Frame::Bulk(payload) => keydigest::of_payload(
                &wanted.key,
                payload,
                expires,
                ScoreForm::Short,
                &mut self.walk,
            ),
            _ => None,
        };
        let Some(digest) = digest else {
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
