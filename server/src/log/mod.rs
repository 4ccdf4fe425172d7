//! The replication log: records in the order of their numbers, as the byte stream that replicas read.

mod archive;
mod backlog;

#[cfg(test)]
pub use archive::Disk;
pub use archive::{Archive, Held, nameless};
pub use backlog::{Backlog, Piece};

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dfsnap_formats::resp::encode_command;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::clock::random_hex_40;
use crate::journal::{Posted, Records, Seq, Unit};
use crate::keyspace::DbIndex;
use crate::memory::NotCounted;

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
    /// What memory has let go of.
    pub archive: Arc<Archive>,
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
        let start = self.first().unwrap_or(backlog.start());
        let end = backlog.end();
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
    pub fn push(&mut self, bytes: impl Into<Arc<[u8]>> + AsRef<[u8]>) {
        if let Some(backlog) = &mut self.backlog {
            backlog.push(bytes, self.backlog_bytes);
            self.trim();
        }
    }

    /// Lets go of what nobody needs.
    pub fn trim(&mut self) {
        let needed = self
            .replicas
            .values()
            .map(|replica| replica.sent)
            .chain(self.applied)
            .min()
            .unwrap_or(u64::MAX);
        let Some(backlog) = &mut self.backlog else {
            return;
        };
        if self.archive.is_taking() {
            // There it is found by whoever needs it, and memory stays small.
            let archive = &self.archive;
            backlog.trim(self.backlog_bytes, u64::MAX, |start, piece| {
                archive.take(start, piece);
            });
        } else {
            backlog.trim(self.backlog_bytes, needed, |_, _| ());
        }
    }

    /// Adds what was committed, in order: the simulation has one thread.
    #[cfg(test)]
    pub fn commit(&mut self, records: &Records) {
        let (mut bytes, mut at) = (Vec::new(), 0);
        while records.seq_at(at).is_some() {
            let (unit, next) = records.unit_at(at);
            append(self, &mut bytes, unit);
            at = next;
        }
        self.push(bytes);
    }

    /// Of a replica: adds units of its primary's stream as they came. `db` is selected behind them.
    pub fn forward(&mut self, raw: impl Into<Arc<[u8]>> + AsRef<[u8]>, db: u32) {
        self.push(raw);
        self.db = Some(DbIndex(db));
    }

    /// The bytes behind `position` for a replica that has all up to it; `None`: it has all there is. An error says that it cannot go on.
    pub fn next_for(&self, position: u64) -> Result<Option<Held>, &'static str> {
        let backlog = self.backlog.as_ref().ok_or("the backlog is gone")?;
        if position >= backlog.start() && position <= backlog.end() {
            return Ok(backlog.after(position).map(Held::InMemory));
        }
        match self.archive.after(position) {
            Some(held) if position < backlog.start() => Ok(Some(held)),
            _ => Err("its place is no longer in the backlog"),
        }
    }

    /// Adds to `together` what is in memory behind `position`, as long as it is in short pieces and less than `limit` in all: one write instead of
    /// many. Nothing, if the first piece is long or alone.
    pub fn gather_for(&self, mut position: u64, together: &mut Vec<u8>, limit: usize) {
        let Some(backlog) = &self.backlog else {
            return;
        };
        while let Some((piece, at)) = backlog.after(position) {
            let bytes = &piece[at..];
            let next = position + bytes.len() as u64;
            let is_alone = together.is_empty() && next == backlog.end();
            if is_alone || together.len() + bytes.len() > limit {
                return;
            }
            together.extend_from_slice(bytes);
            position = next;
        }
    }

    /// Offset before the first byte at hand, on disk or in memory.
    pub fn first(&self) -> Option<u64> {
        let start = self.backlog.as_ref()?.start();
        Some(self.archive.start(start).unwrap_or(start))
    }

    /// CONFIG RESETSTAT.
    pub fn reset_counters(&mut self) {
        (self.sync_full, self.sync_partial_ok, self.sync_partial_err) = (0, 0, 0);
    }

    /// A replica has gone.
    pub fn remove_replica(&mut self, id: u64) {
        self.replicas.remove(&id);
        self.trim();
    }

    /// Bytes in memory that a replica needs which has all up to `sent`.
    pub fn held_for(&self, sent: u64) -> u64 {
        let lag = self.offset().saturating_sub(sent);
        match &self.backlog {
            Some(backlog) if self.archive.is_taking() => lag.min(backlog.len()),
            _ => lag,
        }
    }

    /// A replica says that it has applied so much. It may not take back what it said.
    pub fn acknowledged(&mut self, id: u64, offset: u64, in_file: u64, now: Instant) {
        if let Some(info) = self.replicas.get_mut(&id) {
            info.acked_in_file = info.acked_in_file.max(in_file);
            info.acked = info.acked.max(offset);
            info.acked_at = now;
        }
    }

    /// History, offset and database from which a link can go on: the end of what is here, whatever the role was.
    pub fn own_end(&self) -> Option<(&str, u64, u32)> {
        let backlog = self.backlog.as_ref()?;
        Some((&self.replid, backlog.end(), self.db.map_or(0, |db| db.0)))
    }

    /// Starts the backlog, if there is none, with this name for the history.
    pub fn open(&mut self, replid: String) {
        if self.backlog.is_none() {
            self.replid = replid;
            self.replid2 = "0".repeat(40);
            self.second_offset = -1;
            self.archive.clear();
            self.backlog = Some(Backlog::new(self.offset_without_backlog));
            self.db = None;
        }
    }

    /// Ends the history: nobody has asked for it for long. The offset stays.
    pub fn close(&mut self, replid: String) {
        self.offset_without_backlog = self.offset();
        self.backlog = None;
        self.archive.clear();
        self.replid = replid;
        self.replid2 = "0".repeat(40);
        self.second_offset = -1;
    }

    /// The dataset that the history is about goes: what is left has another name, so that nobody takes it for that history's.
    pub fn forget(&mut self, replid: String) {
        self.close(replid);
        self.applied = None;
    }

    /// Takes over a primary's history at this place: its bytes follow.
    pub fn adopt(&mut self, replid: &str, offset: u64, db: u32) {
        self.replid = replid.to_owned();
        self.replid2 = "0".repeat(40);
        self.second_offset = -1;
        self.archive.clear();
        self.backlog = Some(Backlog::new(offset));
        self.applied = Some(offset);
        self.db = Some(DbIndex(db));
    }

    /// A primary that starts again: its history goes on from what it saved, under a new name.
    pub fn resume(&mut self, new_replid: String, replid: &str, offset: u64) {
        self.replid = new_replid;
        self.replid2 = replid.to_owned();
        self.second_offset = offset as i64 + 1;
        self.archive.clear();
        self.backlog = Some(Backlog::new(offset));
        self.db = None;
    }

    /// The history goes on under a new name. The next command of ours selects its database anew: replicas that come may have none.
    pub fn rename(&mut self, replid: String) {
        self.continue_as(replid);
        self.db = None;
    }

    /// The primary's history goes on under a new name. What is selected in its stream stays.
    pub fn continue_as(&mut self, replid: String) {
        self.replid2 = std::mem::replace(&mut self.replid, replid);
        self.second_offset = self.offset() as i64 + 1;
    }

    /// A replica becomes a primary: its history goes on under a new name.
    pub fn promote(&mut self, replid: String) {
        if self.backlog.is_some() {
            self.rename(replid);
        }
        self.applied = None;
    }

    /// A log without a backlog.
    pub fn new(replid: String, backlog_bytes: u64) -> LogState {
        LogState {
            replid,
            replid2: "0".repeat(40),
            second_offset: -1,
            backlog: None,
            archive: Archive::new(Path::new(".")),
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
        }
    }
}

impl Log {
    /// A log without a backlog.
    pub fn new(backlog_bytes: u64, disk_limit: u64) -> Log {
        let state = LogState::new(random_hex_40(), backlog_bytes);
        state.archive.set_limit(disk_limit);
        Log {
            state: Mutex::new(state),
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
        self.with(|state| state.push(bytes));
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

/// Bytes of a piece of the log, or little more: a piece is shared with whoever reads it, and goes as a whole.
const PIECE_BYTES: usize = 64 << 10;

/// Puts records into the log in the order of their numbers, as long as the process runs.
pub async fn merge(log: Arc<Log>, mut records: UnboundedReceiver<Posted>) {
    let mut merger = Merger::default();
    let mut arrived = Vec::new();
    while records.recv_many(&mut arrived, 1024).await > 0 {
        for posted in &mut arrived {
            merger.add(std::mem::take(&mut posted.records), 0);
        }
        log.with(|state| merger.emit(state));
        // What they took is the log's now.
        arrived.clear();
        log.grown.notify_waiters();
        tokio::task::yield_now().await;
    }
}

/// Records that are not in the log yet.
#[derive(Default)]
struct Merger {
    /// By the number that each goes on with: the records, and the entry that has it.
    early: BTreeMap<Seq, (Records, usize)>,
    /// The last that is in the log.
    last: Seq,
    buffer: Vec<u8>,
    /// The buffer: keys must not go for what is on its way to the log.
    not_counted: NotCounted,
}

impl Merger {
    /// Takes records from this entry on.
    fn add(&mut self, records: Records, at: usize) {
        if let Some(seq) = records.seq_at(at) {
            let old = self.early.insert(seq, (records, at));
            assert!(old.is_none(), "record {seq:?} came twice");
        }
    }

    /// Adds to the log what comes next.
    fn emit(&mut self, state: &mut LogState) {
        while let Some(first) = self.early.first_entry() {
            if first.key().0 != self.last.0 + 1 {
                break;
            }
            let (records, mut at) = first.remove();
            // As far as they go without those of another thread between them.
            while records
                .seq_at(at)
                .is_some_and(|seq| seq.0 == self.last.0 + 1)
            {
                let (unit, next) = records.unit_at(at);
                append(state, &mut self.buffer, unit);
                (self.last.0, at) = (self.last.0 + 1, next);
                if self.buffer.len() >= PIECE_BYTES {
                    self.push(state);
                }
            }
            self.add(records, at);
        }
        self.push(state);
        state.merged = self.last;
    }

    fn push(&mut self, state: &mut LogState) {
        // In pieces: what is kept is let go of piece by piece, and a long transaction would stay as a whole.
        for piece in self.buffer.chunks(PIECE_BYTES) {
            state.push(piece);
        }
        self.buffer.clear();
        if self.buffer.capacity() > 4 * PIECE_BYTES {
            self.buffer = Vec::new();
        }
        let kept = self.buffer.capacity() as u64;
        if kept != self.not_counted.get() {
            self.not_counted.set(kept);
        }
    }
}

/// Adds a unit to `bytes`, which go to the stream together.
fn append(state: &mut LogState, bytes: &mut Vec<u8>, unit: Unit<'_>) {
    match unit {
        Unit::Mark(mark) => {
            // A cut for a replica: the stream must name its database anew, for it starts with none.
            let db = state.db.take();
            let offset = state.offset() + bytes.len() as u64;
            state.marks.insert(mark, (offset, db));
        }
        Unit::Place(mark) => {
            let offset = state.offset() + bytes.len() as u64;
            state.marks.insert(mark, (offset, state.db));
        }
        Unit::Effects(effects) => {
            let is_block = effects.len() > 1;
            for (i, (db, effect)) in effects.iter().enumerate() {
                if state.db != Some(db) {
                    encode_command(bytes, &[b"SELECT".as_slice(), db.0.to_string().as_bytes()]);
                    state.db = Some(db);
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
    use crate::journal::Journal;

    fn effects(db: u32, texts: &[&str]) -> Vec<(DbIndex, Vec<u8>)> {
        let effect = |text: &&str| (DbIndex(db), text.as_bytes().to_vec());
        texts.iter().map(effect).collect()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn records_enter_in_order_with_select_and_multi() {
        let log = Arc::new(Log::new(1 << 20, 0));
        log.with(|state| state.open("a".repeat(40)));
        let (journal, receiver) = Journal::new();
        journal.post(Records::of_effects(Seq(3), &effects(1, &["d"])));
        let mut records = Records::of_effects(Seq(1), &effects(0, &["a"]));
        // The third comes from another thread.
        records.push_effects(Seq(2), &effects(0, &["b", "c"]));
        records.push_effects(Seq(5), &effects(1, &["e"]));
        records.push_effects(Seq(7), &effects(1, &["f"]));
        journal.post(records);
        journal.post(Records::of_mark(Seq(4), 9));
        // A save used to have the next command select its database once more.
        journal.post(Records::of_place(Seq(6), 10));
        drop(journal);
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
        assert_eq!(stream, format!("{before_mark}{}ef", select(1)));
        assert_eq!(
            log.mark(9).await,
            (before_mark.len() as u64, Some(DbIndex(1)))
        );
        assert_eq!(
            log.mark(10).await,
            (stream.len() as u64 - 1, Some(DbIndex(1)))
        );
    }

    /// A replica whose history got another name used to forget the database selected in the stream: pointed at another server right then,
    /// it took what followed for database 0.
    #[test]
    fn a_new_name_of_the_primarys_history_leaves_the_database_selected() {
        let mut log = LogState::new("a".repeat(40), 1 << 20);
        log.adopt(&"b".repeat(40), 100, 0);
        log.forward(b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n".as_slice(), 3);
        log.continue_as("c".repeat(40));
        assert_eq!(log.own_end(), Some(("c".repeat(40).as_str(), 123, 3)));
        assert_eq!(
            (log.replid2.clone(), log.second_offset),
            ("b".repeat(40), 124)
        );
        // Our own name, after promotion: the next command selects.
        log.promote("d".repeat(40));
        assert_eq!(log.db, None);
    }

    #[test]
    fn short_pieces_go_together() {
        // So small that each is a block of its own.
        let mut log = LogState::new("a".repeat(40), 16);
        log.open("a".repeat(40));
        let gathered = |log: &LogState, position, limit| {
            let mut together = Vec::new();
            log.gather_for(position, &mut together, limit);
            String::from_utf8(together).unwrap()
        };
        assert_eq!(gathered(&log, 0, 8), "", "there is nothing");
        log.push(b"abc".as_slice());
        assert_eq!(gathered(&log, 0, 8), "", "one piece needs no copy");
        log.push(b"def".as_slice());
        log.push(b"ghi".as_slice());
        assert_eq!(gathered(&log, 0, 8), "abcdef");
        assert_eq!(gathered(&log, 1, 8), "bcdefghi");
        assert_eq!(gathered(&log, 3, 2), "", "the first is too long");
        assert_eq!(gathered(&log, 6, 8), "", "one piece needs no copy");
        assert_eq!(gathered(&log, 9, 8), "", "there is no more");
    }

    #[test]
    fn the_answer_to_psync_is_what_is_at_hand_of_histories_that_are_ours() {
        let (own, old, other) = ("a".repeat(40), "b".repeat(40), "c".repeat(40));
        let mut log = LogState::new("x".repeat(40), 10);
        log.resume(own.clone(), &old, 100);
        log.push(b"12345".as_slice());
        assert_eq!(log.answer(None), Err(FullSync::Asked));
        let rows: [(&str, &str, u64, Option<u64>); 10] = [
            ("all of it", &own, 101, Some(100)),
            ("in another case", &own.to_uppercase(), 103, Some(102)),
            ("nothing is missing", &own, 106, Some(105)),
            ("more than there is", &own, 107, None),
            ("what is gone", &own, 100, None),
            ("nothing at all", &own, 0, None),
            ("the history before", &old, 101, Some(100)),
            ("behind where it parted", &old, 102, None),
            ("a huge number", &old, u64::MAX, None),
            ("somebody else's", &other, 101, None),
        ];
        for (name, replid, wanted, position) in rows {
            assert_eq!(log.answer(Some((replid, wanted))).ok(), position, "{name}");
        }
        let text = log.answer(Some((&own, 107))).unwrap_err().to_string();
        assert_eq!(
            text,
            "lack of backlog: it asked for offset 107, and 101 to 106 are at hand"
        );
    }
}
