//! A simulated server: its data, its log, its link to a primary, and those it serves.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use dfsnap_formats::resp::{RequestDecoder, encode_command};
use dfsnap_replica::{Disconnect, Event, Form, Link, LinkConfig, Phase, Position, ReplId, Step};

use super::model::Fault;
use crate::journal::{Records, Seq};
use crate::keyspace::DbIndex;
use crate::log::{Archive, Disk, Held, LogState, ReplicaInfo};

/// Why a payload was not taken.
pub const NO_ROOM: &str = "no room on the disk";

/// What keys hold, by database.
pub type Data = BTreeMap<(u32, String), i64>;

/// Small, so that places get lost.
const BACKLOG_BYTES: u64 = 2_500;
const TIMEOUT_MS: u64 = 8_000;
/// Of the backlog on disk.
const ARCHIVE_BYTES: u64 = 4_000;
const SEGMENT_BYTES: u64 = 1_000;

/// One way of a connection: bytes that were sent and have not arrived.
#[derive(Default)]
pub struct Pipe {
    pub bytes: VecDeque<u8>,
    /// Nothing arrives any more, and nobody is told.
    pub is_stalled: bool,
}

/// A replica's end of a connection.
pub struct Following {
    /// Which connection it is, everywhere.
    pub id: u64,
    pub link: Link,
    input: Vec<u8>,
    payload: Vec<u8>,
    origin: Option<(ReplId, u64)>,
    /// A payload has begun, and what was there before it still is.
    pub keeps_data: bool,
}

/// What becomes of a payload while it comes, as `repl-diskless-load` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It goes to a file, which needs room.
    File,
    /// It is loaded beside what is there.
    Aside,
    /// What is there goes first.
    Instead,
}

/// A primary's end.
pub struct Serving {
    pub id: u64,
    decoder: RequestDecoder,
    input: Vec<u8>,
    takes_replid: bool,
    stage: Stage,
    heard_at_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Handshake,
    /// The payload is sent, the stream waits for the first ACK.
    AwaitAck(u64),
    Online(u64),
}

/// A unit that was received and not applied yet.
struct Waiting {
    commands: Vec<(u32, Vec<String>)>,
    end: u64,
    db: u32,
}

/// What a server leaves on its disk.
#[derive(Clone)]
pub struct Saved {
    pub data: Data,
    pub replid: String,
    pub offset: u64,
    pub db: u32,
}

pub struct Node {
    pub name: usize,
    pub log: LogState,
    directory: Option<PathBuf>,
    pub data: Data,
    /// Whom it follows; `None`: it is a primary.
    pub primary: Option<usize>,
    pub following: Option<Following>,
    pub serving: Vec<Serving>,
    queue: VecDeque<Waiting>,
    /// Of its primary's stream: what is in `data`, and the database selected there.
    pub applied: u64,
    pub applied_db: u32,
    /// Where a new link goes on.
    pub position: Option<Position>,
    pub saved: Option<Saved>,
    /// No writes: a failover goes on.
    pub is_paused: bool,
    /// The next link asks its primary to take over.
    pub asks_to_take_over: bool,
    /// Its data are being replaced or were never there.
    pub has_data: bool,
    /// How the next payload is taken.
    pub way: Way,
    /// There is no room on its disk.
    pub is_disk_full: bool,
    /// Bytes of the stream that were read from its disk.
    pub read_from_disk: u64,
    pub fault: Option<Fault>,
}

/// What a step of a node has to tell the cluster.
pub enum Told {
    /// Data and log are at this place of this history.
    At {
        replid: String,
        offset: u64,
    },
    /// It was asked to take over, and has.
    TookOver,
    /// Its own request to take over was granted.
    HandedOver,
    /// A full sync began, or a partial one.
    Full,
    Partial,
    /// A payload found no room.
    NoRoom,
}

impl Node {
    /// `directory`: of the older part of its backlog, if that is on disk.
    pub fn new(name: usize, replid: String, directory: Option<&Path>) -> Node {
        let mut log = LogState::new(replid, BACKLOG_BYTES);
        if let Some(directory) = directory {
            log.archive = Archive::by_hand(directory, SEGMENT_BYTES);
            log.archive.set_limit(ARCHIVE_BYTES);
        }
        Node {
            name,
            log,
            directory: directory.map(Path::to_owned),
            data: Data::new(),
            primary: None,
            following: None,
            serving: Vec::new(),
            queue: VecDeque::new(),
            applied: 0,
            applied_db: 0,
            position: None,
            saved: None,
            is_paused: false,
            asks_to_take_over: false,
            has_data: true,
            way: Way::File,
            is_disk_full: false,
            read_from_disk: 0,
            fault: None,
        }
    }

    /// The backlog's thread has its turn.
    pub fn write_archive(&self) {
        let disk = match (self.is_disk_full, self.fault) {
            (false, _) => Disk::Takes,
            (true, Some(Fault::LosesWhatTheDiskRefused)) => Disk::Loses,
            (true, _) => Disk::Refuses,
        };
        self.log.archive.write_some(disk);
    }

    /// There is room again, and what failed is tried again.
    pub fn clear_disk(&mut self) {
        self.is_disk_full = false;
        if self.directory.is_some() {
            self.log.archive.set_limit(ARCHIVE_BYTES);
        }
    }

    /// Commits a transaction, as a primary.
    pub fn write(&mut self, db: u32, commands: &[Vec<String>]) {
        let mut effects = Vec::new();
        for words in commands {
            apply(&mut self.data, db, words);
            let mut bytes = Vec::new();
            encode_command(&mut bytes, words);
            effects.push((DbIndex(db), bytes));
        }
        if self.log.backlog.is_some() {
            self.log.commit(&Records::of_effects(Seq(1), &effects));
        }
    }

    /// PING, of a primary with replicas.
    pub fn ping(&mut self) {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, &["ping"]);
        self.log.push(bytes);
    }

    /// REPLICAOF: the next link asks to go on from here.
    pub fn follow(&mut self, primary: usize) {
        self.apply_all();
        self.position = self.own_end();
        if self.primary.is_none() {
            // As a primary it has applied all that its log says.
            self.applied = self.log.offset();
            self.applied_db = self.log.db.map_or(0, |db| db.0);
        }
        self.primary = Some(primary);
        self.following = None;
        self.log.applied = Some(self.applied);
    }

    fn own_end(&self) -> Option<Position> {
        let (replid, offset, db) = self.log.own_end()?;
        Some(Position {
            replid: ReplId::parse(replid.as_bytes())?,
            offset,
            db,
        })
    }

    /// REPLICAOF NO ONE.
    pub fn promote(&mut self, replid: String) {
        self.apply_all();
        self.primary = None;
        self.following = None;
        self.position = None;
        self.log.promote(replid);
    }

    /// Whether it can serve a sync.
    fn serves(&self) -> bool {
        let is_up = (self.following.as_ref()).is_some_and(|f| f.link.phase() == Phase::Stream);
        self.primary.is_none() || is_up
    }

    /// Opens a link.
    pub fn connect(&mut self, id: u64, now_ms: u64) {
        let config = LinkConfig {
            timeout_ms: TIMEOUT_MS,
            databases: 4,
            failover: self.asks_to_take_over,
            unit_bytes_max: 1 << 20,
            ..LinkConfig::default()
        };
        self.following = Some(Following {
            id,
            link: Link::begin(config, self.position, now_ms),
            input: Vec::new(),
            payload: Vec::new(),
            origin: None,
            keeps_data: false,
        });
    }

    /// The link ended.
    pub fn disconnected(&mut self, why: &Disconnect) {
        if let Some(following) = self.following.take() {
            let keeps_data = following.keeps_data;
            // As `dfsnap_replica::Follower` does it.
            self.position = match following.link.position() {
                None if keeps_data => self.position,
                position => position,
            };
            if !why.keeps_position() && !keeps_data {
                self.position = None;
            }
        }
    }

    /// Bytes came from the primary, or time passed.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        now_ms: u64,
        told: &mut Vec<Told>,
    ) -> Result<(), Disconnect> {
        let Some(mut following) = self.following.take() else {
            return Ok(());
        };
        if !bytes.is_empty() {
            following.link.received(now_ms);
            following.input.extend_from_slice(bytes);
        }
        let result = self.poll(&mut following, told);
        self.following = Some(following);
        result
    }

    fn poll(&mut self, following: &mut Following, told: &mut Vec<Told>) -> Result<(), Disconnect> {
        let mut consumed = 0;
        loop {
            let input = std::mem::take(&mut following.input);
            let Step {
                consumed: used,
                event,
            } = following.link.poll(&input[consumed..])?;
            consumed += used;
            let Some(event) = event else {
                following.input = input;
                break;
            };
            let mut loaded = None;
            match event {
                Event::PayloadStart(start) => {
                    assert!(matches!(start.form, Form::Mark(_)));
                    following.origin = start.origin;
                    following.payload.clear();
                    // Units of the link before are applied first.
                    self.apply_all();
                    following.keeps_data = self.way != Way::Instead;
                    if !following.keeps_data {
                        self.forget_data();
                    }
                    if self.fault == Some(Fault::AdoptsEarly)
                        && let Some((replid, offset)) = start.origin
                    {
                        self.log.adopt(replid.as_str(), offset, 0);
                    }
                }
                Event::PayloadBytes(_) if self.way == Way::File && self.is_disk_full => {
                    told.push(Told::NoRoom);
                    return Err(Disconnect::NotApplied(NO_ROOM.into()));
                }
                Event::PayloadBytes(bytes) => following.payload.extend_from_slice(bytes),
                Event::PayloadEnd => {
                    following.keeps_data = false;
                    loaded = Some(self.load(following, told));
                }
                Event::Continue {
                    replid,
                    renamed_from,
                } => {
                    told.push(Told::Partial);
                    if renamed_from.is_some() {
                        self.log.continue_as(replid.as_str().to_owned());
                        // They learn the new name when they come back.
                        self.serving.clear();
                    }
                }
                Event::Transaction(unit) => {
                    let commands = unit.commands().map(|command| {
                        let words = command
                            .words()
                            .map(|w| String::from_utf8_lossy(w).into_owned());
                        (command.db, words.collect())
                    });
                    self.queue.push_back(Waiting {
                        commands: commands.collect(),
                        end: unit.end_offset,
                        db: unit.db,
                    });
                    self.log.forward(unit.raw, unit.db);
                }
            }
            if let Some(db) = loaded {
                following.link.loaded(db);
            }
            following.input = input;
        }
        following.input.drain(..consumed);
        if following.link.phase() != Phase::Handshake && std::mem::take(&mut self.asks_to_take_over)
        {
            told.push(Told::HandedOver);
        }
        if following.link.phase() == Phase::Stream {
            let offset = match self.fault {
                Some(Fault::AcksEarly) => self.log.offset(),
                _ => self.applied,
            };
            following.link.applied(offset);
        }
        Ok(())
    }

    /// The data go, and what replicas of this one followed.
    fn forget_data(&mut self) {
        self.data.clear();
        self.has_data = false;
        self.log.forget(format!("{:?>40}", self.name));
        self.serving.clear();
        self.log.replicas.clear();
    }

    /// Takes over a payload; the database selected in its stream.
    fn load(&mut self, following: &Following, told: &mut Vec<Told>) -> u32 {
        let (replid, offset) = following.origin.expect("a primary that knows PSYNC");
        let text = String::from_utf8_lossy(&following.payload);
        let mut lines = text.lines();
        let db = lines
            .next()
            .and_then(|line| line.parse().ok())
            .expect("a database");
        self.data = lines
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let number = |at: usize| words[at].parse::<i64>().expect("a number");
                ((number(0) as u32, words[1].to_owned()), number(2))
            })
            .collect();
        self.queue.clear();
        // Replicas of this one followed a history that ends here.
        self.serving.clear();
        self.log.replicas.clear();
        self.log.adopt(replid.as_str(), offset, db);
        (self.applied, self.applied_db, self.has_data) = (offset, db, true);
        told.push(Told::At {
            replid: replid.as_str().to_owned(),
            offset,
        });
        db
    }

    /// Applies some of what was received. What is acknowledged is applied.
    pub fn apply_some(&mut self, count: usize, told: &mut Vec<Told>) {
        for _ in 0..count {
            let Some(unit) = self.queue.pop_front() else {
                break;
            };
            for (db, words) in &unit.commands {
                apply(&mut self.data, *db, words);
            }
            (self.applied, self.applied_db) = (unit.end, unit.db);
            told.push(Told::At {
                replid: self.log.replid.clone(),
                offset: unit.end,
            });
        }
        self.log.applied = Some(self.applied);
        let applied = self.applied;
        if let Some(following) = self
            .following
            .as_mut()
            .filter(|f| f.link.phase() == Phase::Stream)
        {
            following.link.applied(applied);
        }
    }

    fn apply_all(&mut self) {
        self.apply_some(usize::MAX, &mut Vec::new());
        if self.primary.is_none() {
            self.log.applied = None;
        }
    }

    /// A replica connects.
    pub fn accept(&mut self, id: u64, now_ms: u64) {
        self.serving.push(Serving {
            id,
            decoder: RequestDecoder::new(1 << 20),
            input: Vec::new(),
            takes_replid: false,
            stage: Stage::Handshake,
            heard_at_ms: now_ms,
        });
    }

    /// A replica's connection ended.
    pub fn drop_serving(&mut self, id: u64) {
        self.serving.retain(|serving| serving.id != id);
        self.log.remove_replica(id);
    }

    /// Bytes came from a replica; what is to be sent goes to `out`. False: the connection ends.
    pub fn serve(
        &mut self,
        id: u64,
        bytes: &[u8],
        now_ms: u64,
        new_id: &mut dyn FnMut() -> String,
        told: &mut Vec<Told>,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(at) = self.serving.iter().position(|serving| serving.id == id) else {
            return false;
        };
        let mut serving = self.serving.remove(at);
        if !bytes.is_empty() {
            serving.heard_at_ms = now_ms;
        }
        serving.input.extend_from_slice(bytes);
        let mut used = 0;
        let mut stays = true;
        while stays {
            let Ok(Some(len)) = serving.decoder.decode(&serving.input[used..]) else {
                break;
            };
            let words: Vec<String> = serving
                .decoder
                .words(&serving.input[used..])
                .map(|word| String::from_utf8_lossy(word).to_ascii_lowercase())
                .collect();
            used += len;
            stays = self.request(&mut serving, &words, new_id, told, out);
        }
        serving.input.drain(..used);
        // Promotion and a new name end all connections, this one too if it was there before.
        if stays {
            self.serving.push(serving);
        } else {
            self.log.remove_replica(id);
        }
        stays
    }

    fn request(
        &mut self,
        serving: &mut Serving,
        words: &[String],
        new_id: &mut dyn FnMut() -> String,
        told: &mut Vec<Told>,
        out: &mut Vec<u8>,
    ) -> bool {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match (words.as_slice(), serving.stage) {
            ([], _) => {}
            (["ping"], Stage::Handshake) => out.extend(b"+PONG\r\n"),
            (["replconf", "ack", offset], stage) => {
                let offset = offset.parse().unwrap_or(0);
                if let Stage::AwaitAck(position) = stage {
                    serving.stage = Stage::Online(position);
                    if let Some(info) = self.log.replicas.get_mut(&serving.id) {
                        info.state = "online";
                    }
                }
                self.log.acknowledged(serving.id, offset, 0, Instant::now());
            }
            (["replconf", options @ ..], Stage::Handshake) => {
                serving.takes_replid |= options.contains(&"psync2");
                out.extend(b"+OK\r\n");
            }
            (["psync", replid, wanted, rest @ ..], Stage::Handshake) => {
                if rest == ["failover"] {
                    let is_same =
                        self.primary.is_some() && replid.eq_ignore_ascii_case(&self.log.replid);
                    if !is_same {
                        out.extend(b"-ERR PSYNC FAILOVER replid must match my replid.\r\n");
                        return true;
                    }
                    self.promote(new_id());
                    self.serving.clear();
                    self.log.replicas.clear();
                    told.push(Told::TookOver);
                }
                if !self.serves() || self.is_paused {
                    out.extend(b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n");
                    return false;
                }
                let asked = wanted.parse().ok().map(|wanted| (*replid, wanted));
                self.sync(serving, asked.filter(|_| *replid != "?"), new_id, told, out);
            }
            _ => panic!("node {}: {words:?} in {:?}", self.name, serving.stage),
        }
        true
    }

    fn sync(
        &mut self,
        serving: &mut Serving,
        asked: Option<(&str, u64)>,
        new_id: &mut dyn FnMut() -> String,
        told: &mut Vec<Told>,
        out: &mut Vec<u8>,
    ) {
        let info = |sent: u64, state: &'static str| ReplicaInfo {
            ip: String::new(),
            port: 0,
            state,
            sent,
            acked: 0,
            acked_in_file: 0,
            acked_at: Instant::now(),
        };
        if self.fault == Some(Fault::GoesOnTooFar) {
            self.log.second_offset = i64::MAX;
        }
        if let Ok(position) = self.log.answer(asked) {
            let name = format!("+CONTINUE {}\r\n", self.log.replid);
            out.extend(if serving.takes_replid {
                name.as_bytes()
            } else {
                b"+CONTINUE\r\n"
            });
            serving.stage = Stage::Online(position);
            self.log
                .replicas
                .insert(serving.id, info(position, "online"));
            return;
        }
        told.push(Told::Full);
        // The cut: as the server does it, with the place of a replica's data, or a mark in a primary's log.
        let (offset, db) = if self.primary.is_some() {
            (self.applied, self.applied_db)
        } else {
            self.log.open(new_id());
            self.log.commit(&Records::of_mark(Seq(1), serving.id));
            let (offset, _) = self.log.marks.remove(&serving.id).expect("just set");
            (offset, 0)
        };
        self.log
            .replicas
            .insert(serving.id, info(offset, "send_bulk"));
        let mark = format!("{:0>40}", serving.id);
        out.extend(
            format!(
                "+FULLRESYNC {} {offset}\r\n$EOF:{mark}\r\n{db}\n",
                self.log.replid
            )
            .bytes(),
        );
        for ((db, key), value) in &self.data {
            out.extend(format!("{db} {key} {value}\n").bytes());
        }
        out.extend(mark.bytes());
        serving.stage = Stage::AwaitAck(offset);
    }

    /// The next piece of the log for a replica. `None`: nothing to send; an error ends the connection.
    pub fn feed(&mut self, id: u64) -> Result<Option<Vec<u8>>, &'static str> {
        let Some(serving) = self.serving.iter_mut().find(|serving| serving.id == id) else {
            return Err("it is not served any more");
        };
        let Stage::Online(position) = serving.stage else {
            return Ok(None);
        };
        let bytes = match self.log.next_for(position)? {
            None => return Ok(None),
            Some(Held::InMemory((piece, at))) => piece[at..].to_vec(),
            Some(Held::InFile(file, at, len)) => {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, at)
                    .map_err(|_| "a file of the backlog is short")?;
                self.read_from_disk += len as u64;
                bytes
            }
        };
        let position = position + bytes.len() as u64;
        serving.stage = Stage::Online(position);
        if let Some(info) = self.log.replicas.get_mut(&id) {
            info.sent = position;
        }
        Ok(Some(bytes))
    }

    /// Replicas that have been silent for too long.
    pub fn silent(&self, now_ms: u64) -> Vec<u64> {
        let is_silent = |serving: &&Serving| now_ms - serving.heard_at_ms > TIMEOUT_MS;
        self.serving
            .iter()
            .filter(is_silent)
            .map(|serving| serving.id)
            .collect()
    }

    pub fn serves_connection(&self, id: u64) -> bool {
        self.serving.iter().any(|serving| serving.id == id)
    }

    pub fn is_online(&self, id: u64) -> bool {
        let is_it =
            |serving: &Serving| serving.id == id && matches!(serving.stage, Stage::Online(_));
        self.serving.iter().any(is_it)
    }

    /// What a replica is believed to have.
    pub fn acked(&self, id: u64) -> Option<u64> {
        self.log.replicas.get(&id).map(|info| info.acked)
    }

    /// What at least one replica has.
    pub fn most_acked(&self) -> u64 {
        let online = self
            .log
            .replicas
            .values()
            .filter(|info| info.state == "online");
        online.map(|info| info.acked).max().unwrap_or(0)
    }

    /// Whether all that was received is applied.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// What it would save now: data and the place of the cut.
    pub fn snapshot(&self) -> Option<Saved> {
        let (replid, end, db) = self.log.own_end()?;
        let (offset, db) = match self.primary {
            Some(_) => (self.applied, self.applied_db),
            None => (end, db),
        };
        Some(Saved {
            data: self.data.clone(),
            replid: replid.to_owned(),
            offset,
            db,
        })
    }

    /// It ends and starts again with what it had saved.
    pub fn restart(&mut self, new_id: &mut dyn FnMut() -> String) {
        let mut fresh = Node::new(self.name, new_id(), self.directory.as_deref());
        (fresh.is_disk_full, fresh.read_from_disk) = (self.is_disk_full, self.read_from_disk);
        fresh.primary = self.primary;
        fresh.saved = self.saved.clone();
        if let Some(saved) = &self.saved {
            fresh.data = saved.data.clone();
            if fresh.primary.is_some() {
                fresh.log.adopt(&saved.replid, saved.offset, saved.db);
                (fresh.applied, fresh.applied_db) = (saved.offset, saved.db);
                fresh.position = fresh.own_end();
            } else {
                fresh.log.resume(new_id(), &saved.replid, saved.offset);
            }
        } else {
            fresh.has_data = fresh.primary.is_none();
        }
        *self = fresh;
    }
}

fn apply(data: &mut Data, db: u32, words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["INCR", key] => *data.entry((db, (*key).to_owned())).or_default() += 1,
        ["SET", key, value] => {
            let value = value.parse().expect("a number");
            data.insert((db, (*key).to_owned()), value);
        }
        ["DEL", key] => {
            data.remove(&(db, (*key).to_owned()));
        }
        other => panic!("{other:?}"),
    }
}
