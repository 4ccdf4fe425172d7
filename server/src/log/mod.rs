//! The replication log: records in the order of their numbers, as the byte stream that replicas read.

mod backlog;

pub use backlog::Backlog;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dfsnap_formats::resp::encode_command;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::clock::random_hex_40;
use crate::journal::{Record, Seq, Unit};
use crate::keyspace::DbIndex;

/// The log, shared by the merger, the replicas' connections and INFO.
pub struct Log {
    state: Mutex<LogState>,
    /// Told whenever the log has grown or a mark was met.
    pub grown: Notify,
}

/// What the log knows.
pub struct LogState {
    /// Name of this history.
    pub replid: String,
    /// Name of the history before, and up to which offset it is the same.
    pub replid2: String,
    /// -1 if there is none.
    pub second_offset: i64,
    /// The bytes; `None` before the first replica.
    pub backlog: Option<Backlog>,
    /// Where the stream ends while there is no backlog.
    pub offset_without_backlog: u64,
    /// Selected in the stream; `None` forces a SELECT.
    pub db: Option<DbIndex>,
    /// Offset and selected database at each mark that somebody waits for.
    pub marks: HashMap<u64, (u64, Option<DbIndex>)>,
    /// The last record that is in the stream.
    pub merged: Seq,
    /// Replicas by the id of their client: what each has of the stream.
    pub replicas: BTreeMap<u64, ReplicaInfo>,
    /// Of a replica: bytes of the stream that are applied. What comes behind is kept for replicas of this one.
    pub applied: Option<u64>,
    /// `repl-backlog-size`
    pub backlog_bytes: u64,
    /// Full syncs served.
    pub sync_full: u64,
    /// Partial syncs served.
    pub sync_partial_ok: u64,
    /// Partial syncs refused.
    pub sync_partial_err: u64,
}

/// A connected replica, as INFO shows it.
#[derive(Clone, Debug)]
pub struct ReplicaInfo {
    /// Its address for others.
    pub ip: String,
    /// The port it listens on.
    pub port: u16,
    /// `wait_bgsave`, `send_bulk` or `online`.
    pub state: &'static str,
    /// Bytes of the stream that it needs no more: what was written to its socket; `u64::MAX` while it needs none.
    pub sent: u64,
    /// Offset it says it has applied.
    pub acked: u64,
    /// Offset up to which it says that its append-only file is synced; 0: it has none.
    pub acked_in_file: u64,
    /// When it last said so.
    pub acked_at: Instant,
}

/// Why a replica gets all the data instead of what it lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FullSync {
    /// It has nothing to go on from.
    #[error("it asked for one")]
    Asked,
    /// It followed somebody else.
    #[error("replication ID mismatch (it asked for {asked}, ours are {replid} and {replid2})")]
    OtherHistory {
        asked: String,
        replid: String,
        replid2: String,
    },
    /// It has more of the history before than this server took over.
    #[error(
        "it asked for offset {wanted} of the history before, {replid2}, which is ours up to {second_offset} only"
    )]
    BehindPromotion {
        wanted: u64,
        replid2: String,
        second_offset: i64,
    },
    /// There is no backlog.
    #[error("lack of backlog: it asked for offset {wanted}, and there is none")]
    NoBacklog { wanted: u64 },
    /// What it lacks is gone, or it has more than there is.
    #[error("lack of backlog: it asked for offset {wanted}, and {first} to {next} are at hand")]
    NotHeld {
        wanted: u64,
        /// The first that can be given.
        first: u64,
        /// The next that will come.
        next: u64,
    },
}

impl LogState {
    /// Whether the stream can go on for a replica that asks for this history from this offset on: then the offset before. This is all
    /// there is to the answer to PSYNC.
    pub fn answer(&self, asked: Option<(&str, u64)>) -> Result<u64, FullSync> {
        let Some((replid, wanted)) = asked else {
            return Err(FullSync::Asked);
        };
        if !replid.eq_ignore_ascii_case(&self.replid) {
            if !replid.eq_ignore_ascii_case(&self.replid2) {
                return Err(FullSync::OtherHistory {
                    asked: replid.to_owned(),
                    replid: self.replid.clone(),
                    replid2: self.replid2.clone(),
                });
            }
            if !i64::try_from(wanted).is_ok_and(|wanted| wanted <= self.second_offset) {
                return Err(FullSync::BehindPromotion {
                    wanted,
                    replid2: self.replid2.clone(),
                    second_offset: self.second_offset,
                });
            }
        }
        let Some(backlog) = &self.backlog else {
            return Err(FullSync::NoBacklog { wanted });
        };
        let (start, end) = (backlog.start(), backlog.end());
        match wanted.checked_sub(1) {
            Some(position) if position >= start && position <= end => Ok(position),
            _ => Err(FullSync::NotHeld {
                wanted,
                first: start + 1,
                next: end + 1,
            }),
        }
    }

    /// `master_repl_offset`
    pub fn offset(&self) -> u64 {
        self.backlog
            .as_ref()
            .map_or(self.offset_without_backlog, Backlog::end)
    }

    /// Replicas that are online and were heard of in so many seconds.
    pub fn good_replicas(&self, max_lag_s: u64) -> usize {
        let is_good = |replica: &&ReplicaInfo| {
            replica.state == "online" && replica.acked_at.elapsed().as_secs() <= max_lag_s
        };
        self.replicas.values().filter(is_good).count()
    }

    /// Adds bytes to the stream and lets go of what nobody needs.
    pub fn push(&mut self, bytes: &[u8]) {
        let needed = self
            .replicas
            .values()
            .map(|replica| replica.sent)
            .chain(self.applied)
            .min()
            .unwrap_or(u64::MAX);
        if let Some(backlog) = &mut self.backlog {
            backlog.push(bytes);
            backlog.trim(self.backlog_bytes, needed);
        }
    }

    /// Starts the backlog, with a new name for the history if there was none.
    pub fn open(&mut self) {
        if self.backlog.is_none() {
            self.replid = random_hex_40();
            self.replid2 = "0".repeat(40);
            self.second_offset = -1;
            self.backlog = Some(Backlog::new(self.offset_without_backlog));
            self.db = None;
        }
    }

    /// Takes over a primary's history at this place: its bytes follow.
    pub fn adopt(&mut self, replid: &str, offset: u64, db: u32) {
        self.replid = replid.to_owned();
        self.replid2 = "0".repeat(40);
        self.second_offset = -1;
        self.backlog = Some(Backlog::new(offset));
        self.applied = Some(offset);
        self.db = Some(DbIndex(db));
    }

    /// A primary that starts again: its history goes on from what it saved, under a new name.
    pub fn resume(&mut self, replid: &str, offset: u64) {
        self.replid = random_hex_40();
        self.replid2 = replid.to_owned();
        self.second_offset = offset as i64 + 1;
        self.backlog = Some(Backlog::new(offset));
        self.db = None;
    }

    /// The history goes on under a new name: the primary's, or our own after promotion.
    pub fn rename(&mut self, replid: String) {
        self.replid2 = std::mem::replace(&mut self.replid, replid);
        self.second_offset = self.offset() as i64 + 1;
        self.db = None;
    }
}

impl Log {
    /// A log without a backlog.
    pub fn new(backlog_bytes: u64) -> Log {
        Log {
            state: Mutex::new(LogState {
                replid: random_hex_40(),
                replid2: "0".repeat(40),
                second_offset: -1,
                backlog: None,
                offset_without_backlog: 0,
                db: None,
                marks: HashMap::new(),
                merged: Seq(0),
                replicas: BTreeMap::new(),
                applied: None,
                backlog_bytes,
                sync_full: 0,
                sync_partial_ok: 0,
                sync_partial_err: 0,
            }),
            grown: Notify::new(),
        }
    }

    /// Looks at or changes the log. Never held across anything that waits.
    pub fn with<R>(&self, run: impl FnOnce(&mut LogState) -> R) -> R {
        run(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a command that is not about the dataset (PING, GETACK).
    pub fn push_command(&self, words: &[&[u8]]) {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, words);
        self.with(|state| state.push(&bytes));
        self.grown.notify_waiters();
    }

    /// Waits until every record up to this one is in the stream; then the stream's offset.
    pub async fn offset_after(&self, seq: Seq) -> u64 {
        loop {
            let grown = self.grown.notified();
            if let Some(offset) = self.with(|state| (state.merged >= seq).then(|| state.offset())) {
                return offset;
            }
            grown.await;
        }
    }

    /// Waits for a mark; then the offset there and the selected database.
    pub async fn mark(&self, mark: u64) -> (u64, Option<DbIndex>) {
        loop {
            let grown = self.grown.notified();
            if let Some(place) = self.with(|state| state.marks.remove(&mark)) {
                return place;
            }
            grown.await;
        }
    }
}

/// Puts records into the log in the order of their numbers, as long as the process runs.
pub async fn merge(log: Arc<Log>, mut records: UnboundedReceiver<Vec<Record>>) {
    let mut early: BTreeMap<Seq, Unit> = BTreeMap::new();
    let mut next = Seq(1);
    let mut arrived = Vec::new();
    while records.recv_many(&mut arrived, 1024).await > 0 {
        for record in arrived.drain(..).flatten() {
            let old = early.insert(record.seq, record.unit);
            assert!(old.is_none(), "record {:?} came twice", record.seq);
        }
        log.with(|state| {
            let mut bytes = Vec::new();
            while let Some(unit) = early.remove(&next) {
                append(state, &mut bytes, unit);
                state.merged = next;
                next = Seq(next.0 + 1);
            }
            state.push(&bytes);
        });
        log.grown.notify_waiters();
        tokio::task::yield_now().await;
    }
}

/// Adds a unit to `bytes`, which go to the stream together.
fn append(state: &mut LogState, bytes: &mut Vec<u8>, unit: Unit) {
    match unit {
        Unit::Mark(mark) => {
            // A cut for a replica: the stream must name its database anew, for it starts with none.
            let db = state.db.take();
            let offset = state.offset() + bytes.len() as u64;
            state.marks.insert(mark, (offset, db));
        }
        Unit::Effects(effects) => {
            let is_block = effects.len() > 1;
            for (i, (db, effect)) in effects.iter().enumerate() {
                if state.db != Some(*db) {
                    encode_command(bytes, &[b"SELECT".as_slice(), db.0.to_string().as_bytes()]);
                    state.db = Some(*db);
                }
                if is_block && i == 0 {
                    encode_command(bytes, &[b"MULTI"]);
                }
                bytes.extend_from_slice(effect);
            }
            if is_block {
                encode_command(bytes, &[b"EXEC"]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(db: u32, texts: &[&str]) -> Unit {
        Unit::Effects(
            texts
                .iter()
                .map(|text| (DbIndex(db), text.as_bytes().to_vec()))
                .collect(),
        )
    }

    #[tokio::test(flavor = "current_thread")]
    async fn records_enter_in_order_with_select_and_multi() {
        let log = Arc::new(Log::new(1 << 20));
        log.with(LogState::open);
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        sender
            .send(vec![Record {
                seq: Seq(3),
                unit: effects(1, &["d"]),
            }])
            .unwrap();
        sender
            .send(vec![
                Record {
                    seq: Seq(2),
                    unit: effects(0, &["b", "c"]),
                },
                Record {
                    seq: Seq(1),
                    unit: effects(0, &["a"]),
                },
                Record {
                    seq: Seq(4),
                    unit: Unit::Mark(9),
                },
                Record {
                    seq: Seq(5),
                    unit: effects(1, &["e"]),
                },
            ])
            .unwrap();
        drop(sender);
        merge(log.clone(), receiver).await;
        let stream = log.with(|state| {
            let backlog = state.backlog.as_ref().unwrap();
            let mut all = Vec::new();
            while let Some((piece, at)) = backlog.after(all.len() as u64) {
                all.extend_from_slice(&piece[at..]);
            }
            String::from_utf8(all).unwrap()
        });
        let select = |db: u32| format!("*2\r\n$6\r\nSELECT\r\n$1\r\n{db}\r\n");
        let before_mark = format!(
            "{}a*1\r\n$5\r\nMULTI\r\nbc*1\r\n$4\r\nEXEC\r\n{}d",
            select(0),
            select(1)
        );
        assert_eq!(stream, format!("{before_mark}{}e", select(1)));
        assert_eq!(
            log.mark(9).await,
            (before_mark.len() as u64, Some(DbIndex(1)))
        );
    }
}
