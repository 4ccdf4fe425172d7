//! The simulated cluster: clock, faults, clients, and the checkers that look on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use dfsnap_replica::{Disconnect, Phase};
use fastrand::Rng;

use super::network::Connection;
use super::node::{Data, NO_ROOM, Node, Told};

/// Faults of the protocol code that are put in to see that they are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What has arrived is acknowledged before it is applied.
    AcksEarly,
    /// A replica goes on from behind the place where the histories parted.
    GoesOnTooFar,
    /// A failover does not wait for the target.
    HandsOverEarly,
    /// The history of a payload is taken over before its data are.
    AdoptsEarly,
    /// What a full disk did not take is thought to be there.
    LosesWhatTheDiskRefused,
}

impl Fault {
    pub const ALL: [Fault; 5] = [
        Fault::AcksEarly,
        Fault::GoesOnTooFar,
        Fault::HandsOverEarly,
        Fault::AdoptsEarly,
        Fault::LosesWhatTheDiskRefused,
    ];
}

/// What happened, counted.
pub const COUNTERS: [&str; 14] = [
    "writes",
    "full syncs",
    "partial syncs",
    "connections cut",
    "connections stalled",
    "restarts",
    "promotions",
    "planned failovers",
    "writes acknowledged by WAIT",
    "payloads cut that left the data",
    "payloads without room",
    "disks full",
    "bytes of the stream read from disk",
    "connections open at one end only",
];

pub(super) const NODES: usize = 4;

struct Failover {
    from: usize,
    to: usize,
    ends_ms: u64,
    is_asking: bool,
}

pub struct Cluster {
    pub(super) rng: Rng,
    pub(super) now_ms: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) connections: Vec<Connection>,
    pub(super) next_connection: u64,
    pub(super) next_replid: u64,
    next_write: i64,
    /// Data of primaries at places of their histories.
    known: BTreeMap<(String, u64), Data>,
    /// Where a history comes from: the one before, and up to which offset they are the same.
    parents: BTreeMap<String, (String, u64)>,
    /// Writes of a primary that a replica is not known to have, with the offset behind them.
    unacked: BTreeMap<usize, Vec<(i64, u64)>>,
    /// Writes that WAIT has acknowledged.
    safe: BTreeMap<usize, BTreeSet<i64>>,
    failover: Option<Failover>,
    /// Nothing breaks any more.
    is_settling: bool,
    /// Of backlogs on disk: their files have no names.
    directory: Option<PathBuf>,
    pub fault: Option<Fault>,
    pub trace: Vec<String>,
    pub counters: [u64; COUNTERS.len()],
}

impl Cluster {
    pub fn new(seed: u64) -> Cluster {
        let mut cluster = Cluster {
            rng: Rng::with_seed(seed),
            now_ms: 1_000,
            nodes: Vec::new(),
            connections: Vec::new(),
            next_connection: 1,
            next_replid: 1,
            next_write: 1,
            known: BTreeMap::new(),
            parents: BTreeMap::new(),
            unacked: BTreeMap::new(),
            safe: BTreeMap::new(),
            failover: None,
            is_settling: false,
            directory: Some(std::env::temp_dir()),
            fault: None,
            trace: Vec::new(),
            counters: Default::default(),
        };
        for name in 0..NODES {
            let replid = cluster.new_replid();
            let directory = cluster.directory.as_deref().filter(|_| name % 2 == 0);
            cluster.nodes.push(Node::new(name, replid, directory));
        }
        for name in 1..NODES {
            let primary = cluster.rng.usize(..name);
            cluster.follow(name, primary);
        }
        cluster
    }

    pub(super) fn note(&mut self, text: String) {
        self.trace.push(format!("{} ms: {text}", self.now_ms));
    }

    pub(super) fn count(&mut self, name: &str) {
        let at = COUNTERS.iter().position(|known| *known == name);
        self.counters[at.expect("a counter")] += 1;
    }

    fn new_replid(&mut self) -> String {
        self.next_replid += 1;
        format!("{:0>40}", format!("{}x", self.next_replid))
    }

    /// One thing happens.
    pub fn step(&mut self) -> Result<(), String> {
        for node in &mut self.nodes {
            node.fault = self.fault;
        }
        match self.rng.u32(..1_100) {
            0..520 => {
                for _ in 0..3 {
                    self.deliver_one()?;
                    self.send();
                }
            }
            520..680 => self.write(),
            680..820 => self.tick()?,
            820..930 => {
                let (node, count) = (self.rng.usize(..NODES), self.rng.usize(1..9));
                self.apply(node, count)?;
            }
            930..945 => self.cut(),
            945..950 => self.stall(),
            950..965 => self.save(),
            965..971 => self.restart(),
            971..975 => self.promote_any(),
            975..983 => self.repoint(),
            983..1_000 => self.begin_failover(),
            1_000..1_010 => self.half_open(),
            1_010..1_080 => {
                let at = self.rng.usize(..NODES);
                self.nodes[at].write_archive();
            }
            1_080..1_088 => self.fill_disk(),
            _ => {
                let at = self.rng.usize(..NODES);
                self.nodes[at].clear_disk();
            }
        }
        self.go_on()
    }

    /// What follows from every step: replies leave, ended connections are noticed, failovers go on, checkers look.
    fn go_on(&mut self) -> Result<(), String> {
        self.send();
        self.reconcile();
        self.drive_failover()?;
        self.reconcile();
        self.check_acks()
    }

    fn primaries(&self) -> Vec<usize> {
        let is_primary = |node: &&Node| node.primary.is_none();
        self.nodes
            .iter()
            .filter(is_primary)
            .map(|node| node.name)
            .collect()
    }

    fn write(&mut self) {
        let primaries = self.primaries();
        let Some(&at) = self.rng.choice(&primaries) else {
            return;
        };
        if self.nodes[at].is_paused {
            return;
        }
        let (number, db) = (self.next_write, self.rng.u32(..3));
        self.next_write += 1;
        let word = |text: &str| text.to_owned();
        let incr = |key: &str| vec![word("INCR"), word(key)];
        let set = |key: &str, value: i64| vec![word("SET"), word(key), value.to_string()];
        let pair = self.rng.u32(..3);
        // Each write is a key of its own as well; few are kept, so that payloads stay small.
        let commands = match self.rng.u32(..4) {
            0 => vec![incr("count")],
            1 => vec![
                set(&format!("a{pair}"), number),
                set(&format!("b{pair}"), number),
            ],
            2 => vec![set(&format!("w{}", number % 7), number), incr("count")],
            _ => vec![
                vec![word("DEL"), format!("a{pair}")],
                vec![word("DEL"), format!("b{pair}")],
            ],
        };
        self.nodes[at].write(
            db,
            &[commands, vec![set(&format!("last{}", number % 5), number)]].concat(),
        );
        self.count("writes");
        self.learn(at);
        let offset = self.nodes[at].log.offset();
        if self.nodes[at].log.backlog.is_some() {
            self.unacked.entry(at).or_default().push((number, offset));
        }
    }

    /// A primary's data are known at this place of its history.
    fn learn(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.primary.is_none() && node.log.backlog.is_some() {
            let place = (node.log.replid.clone(), node.log.offset());
            self.known.insert(place, node.data.clone());
        }
    }

    /// What a primary had at an offset of a history, or of the one it comes from.
    fn known_at(&self, replid: &str, offset: u64) -> Option<&Data> {
        let from = (replid.to_owned(), 0);
        let to = (replid.to_owned(), offset);
        if let Some((_, data)) = self.known.range(from..=to).next_back() {
            return Some(data);
        }
        let (parent, until) = self.parents.get(replid)?;
        self.known_at(parent, offset.min(*until))
    }

    fn apply(&mut self, at: usize, count: usize) -> Result<(), String> {
        // After each unit: a look at the end would not see what was wrong on the way.
        for _ in 0..count {
            let mut told = Vec::new();
            self.nodes[at].apply_some(1, &mut told);
            if told.is_empty() {
                break;
            }
            self.hear(at, told)?;
        }
        Ok(())
    }

    /// What a node has to tell is checked and noted.
    pub(super) fn hear(&mut self, at: usize, told: Vec<Told>) -> Result<(), String> {
        for told in told {
            match told {
                Told::At { replid, offset } => {
                    let Some(wanted) = self.known_at(&replid, offset) else {
                        return Err(format!(
                            "node {at} is at {replid}:{offset}, which no primary had"
                        ));
                    };
                    if *wanted != self.nodes[at].data {
                        return Err(format!(
                            "node {at} at {replid}:{offset} has\n  {:?}\nits primary had\n  {wanted:?}",
                            self.nodes[at].data
                        ));
                    }
                }
                Told::Full => {
                    self.count("full syncs");
                    self.learn(at);
                }
                Told::Partial => self.count("partial syncs"),
                Told::NoRoom => self.count("payloads without room"),
                Told::TookOver => self.took_over(at)?,
                Told::HandedOver => {
                    self.note(format!("node {at} has handed over"));
                    self.nodes[at].is_paused = false;
                    self.failover = None;
                }
            }
        }
        Ok(())
    }

    /// A replica was asked to take over and did: it has all that WAIT has acknowledged.
    fn took_over(&mut self, at: usize) -> Result<(), String> {
        self.note(format!("node {at} takes over"));
        self.count("planned failovers");
        self.renamed(at);
        let Some(from) = self.failover.as_ref().map(|failover| failover.from) else {
            return Ok(());
        };
        let safe = self.safe.remove(&from).unwrap_or_default();
        let newest = self.nodes[at].data.values().copied().max().unwrap_or(0);
        match safe.last() {
            // Numbers of writes grow, and the key of the last five is never deleted.
            Some(&last) if last > newest => Err(format!(
                "write {last} was acknowledged by WAIT; node {at} took over and has {newest} as its last"
            )),
            _ => {
                self.safe.insert(at, safe);
                Ok(())
            }
        }
    }

    /// A node's history goes on under a new name.
    fn renamed(&mut self, at: usize) {
        let log = &self.nodes[at].log;
        let until = u64::try_from(log.second_offset - 1).unwrap_or(0);
        self.parents
            .insert(log.replid.clone(), (log.replid2.clone(), until));
        self.learn(at);
    }

    fn forget_waits(&mut self, at: usize) {
        self.unacked.remove(&at);
        self.safe.remove(&at);
    }

    fn tick(&mut self) -> Result<(), String> {
        self.now_ms += if self.is_settling {
            1_000
        } else {
            self.rng.u64(50..900)
        };
        for at in 0..NODES {
            for id in self.nodes[at].silent(self.now_ms) {
                self.nodes[at].drop_serving(id);
            }
            let has_replicas = !self.nodes[at].log.replicas.is_empty();
            let is_primary = self.nodes[at].primary.is_none() && !self.nodes[at].is_paused;
            if is_primary && has_replicas && (self.is_settling || self.rng.u32(..4) == 0) {
                self.nodes[at].ping();
                self.learn(at);
            }
            let now_ms = self.now_ms;
            let ticked = self.nodes[at]
                .following
                .as_mut()
                .map(|f| f.link.tick(now_ms));
            match ticked {
                None => self.connect(at),
                Some(Ok(())) => {}
                Some(Err(why)) => self.lost(at, &why)?,
            }
        }
        Ok(())
    }

    pub(super) fn lost(&mut self, at: usize, why: &Disconnect) -> Result<(), String> {
        self.note(format!("node {at}: {why}"));
        let is_wrong = match why {
            Disconnect::NotApplied(why) => why != NO_ROOM,
            Disconnect::Corrupt { .. } | Disconnect::BadReply { .. } => true,
            _ => false,
        };
        if is_wrong {
            return Err(format!("node {at}: {why}"));
        }
        self.disconnected(at, why);
        if matches!(why, Disconnect::FailoverRefused { .. }) {
            self.abort_failover();
        }
        Ok(())
    }

    fn fill_disk(&mut self) {
        let at = self.rng.usize(..NODES);
        self.nodes[at].is_disk_full = true;
        self.count("disks full");
    }

    fn save(&mut self) {
        let at = self.rng.usize(..NODES);
        let node = &mut self.nodes[at];
        if node.has_data
            && let Some(saved) = node.snapshot()
        {
            node.saved = Some(saved);
        }
    }

    fn restart(&mut self) {
        let at = self.rng.usize(..NODES);
        self.note(format!("node {at} starts again"));
        self.count("restarts");
        // Its sockets are closed by its system.
        for connection in &mut self.connections {
            if connection.replica == at {
                connection.half_open_until_ms = None;
            }
        }
        self.end_failover_of(at);
        self.forget_waits(at);
        let mut next = self.next_replid;
        let mut new_id = || {
            next += 1;
            format!("{:0>40}", format!("{next}x"))
        };
        self.nodes[at].restart(&mut new_id);
        self.next_replid = next;
        if self.nodes[at].primary.is_none() && self.nodes[at].log.backlog.is_some() {
            self.renamed(at);
        }
    }

    fn promote_any(&mut self) {
        let at = self.rng.usize(..NODES);
        if self.nodes[at].primary.is_some() && self.nodes[at].has_data {
            self.end_failover_of(at);
            self.promote(at);
        }
    }

    fn promote(&mut self, at: usize) {
        self.note(format!("node {at} is promoted"));
        self.count("promotions");
        self.forget_waits(at);
        let replid = self.new_replid();
        let has_history = self.nodes[at].log.backlog.is_some();
        self.nodes[at].promote(replid);
        self.nodes[at].serving.clear();
        self.nodes[at].log.replicas.clear();
        if has_history {
            self.renamed(at);
        }
    }

    fn repoint(&mut self) {
        let (at, to) = (self.rng.usize(..NODES), self.rng.usize(..NODES));
        // A primary with replicas of its own stays one now and then.
        let is_kept = self.nodes[at].primary.is_none() && self.rng.bool();
        if !is_kept {
            self.follow(at, to);
        }
    }

    /// Unless that would make a circle.
    fn follow(&mut self, at: usize, to: usize) {
        let mut above = to;
        for _ in 0..NODES {
            if above == at {
                return;
            }
            above = self.nodes[above].primary.unwrap_or(above);
        }
        // While a failover goes on, its two follow each other.
        if self.nodes[above].primary.is_some() {
            return;
        }
        if self.nodes[at].primary == Some(to) {
            return;
        }
        self.note(format!("node {at} follows {to}"));
        self.end_failover_of(at);
        self.forget_waits(at);
        self.nodes[at].follow(to);
    }

    fn begin_failover(&mut self) {
        if self.failover.is_some() {
            return;
        }
        let online: Vec<(usize, usize)> = self
            .connections
            .iter()
            .filter(|c| {
                self.nodes[c.primary].primary.is_none() && self.nodes[c.primary].is_online(c.id)
            })
            .map(|c| (c.primary, c.replica))
            .collect();
        if let Some(&(from, to)) = self.rng.choice(&online) {
            self.note(format!("node {from} is to hand over to {to}"));
            self.nodes[from].is_paused = true;
            self.failover = Some(Failover {
                from,
                to,
                ends_ms: self.now_ms + 20_000,
                is_asking: false,
            });
        }
    }

    fn drive_failover(&mut self) -> Result<(), String> {
        let Some(failover) = &self.failover else {
            return Ok(());
        };
        let (from, to) = (failover.from, failover.to);
        if self.now_ms > failover.ends_ms {
            self.abort_failover();
            return Ok(());
        }
        if failover.is_asking {
            return Ok(());
        }
        let has_all = self.connections.iter().any(|connection| {
            (connection.primary, connection.replica) == (from, to)
                && (self.nodes[from].acked(connection.id) == Some(self.nodes[from].log.offset())
                    || self.fault == Some(Fault::HandsOverEarly))
        });
        if has_all {
            self.note(format!("node {from} asks {to} to take over"));
            self.nodes[from].follow(to);
            self.nodes[from].asks_to_take_over = true;
            // The target does not follow its own replica once it has taken over; until then both wait for each other.
            if let Some(failover) = &mut self.failover {
                failover.is_asking = true;
            }
        }
        Ok(())
    }

    pub(super) fn abort_failover(&mut self) {
        let Some(failover) = self.failover.take() else {
            return;
        };
        let from = failover.from;
        self.nodes[from].is_paused = false;
        self.nodes[from].asks_to_take_over = false;
        if failover.is_asking && self.nodes[from].primary == Some(failover.to) {
            self.note(format!("node {from} gives up handing over"));
            let safe = self.safe.remove(&from);
            self.promote(from);
            // It has lost nothing.
            self.safe.extend(safe.map(|safe| (from, safe)));
        }
    }

    fn end_failover_of(&mut self, at: usize) {
        let is_part = (self.failover.as_ref()).is_some_and(|f| f.from == at || f.to == at);
        if is_part {
            self.abort_failover();
        }
    }

    /// What primaries believe of their replicas, and what that means for those who WAIT.
    fn check_acks(&mut self) -> Result<(), String> {
        for connection in &self.connections {
            let (primary, replica) = (
                &self.nodes[connection.primary],
                &self.nodes[connection.replica],
            );
            let is_current = (replica.following.as_ref())
                .is_some_and(|f| f.id == connection.id && f.link.phase() == Phase::Stream);
            let Some(acked) = primary.acked(connection.id).filter(|_| is_current) else {
                continue;
            };
            if acked > replica.applied {
                return Err(format!(
                    "node {} believes that {} has {acked}, it has {}",
                    primary.name, replica.name, replica.applied
                ));
            }
        }
        for at in self.primaries() {
            let most = self.nodes[at].most_acked();
            let Some(unacked) = self.unacked.get_mut(&at) else {
                continue;
            };
            let (acked, rest): (Vec<_>, Vec<_>) =
                unacked.iter().partition(|(_, offset)| *offset <= most);
            *unacked = rest;
            let count = acked.len() as u64;
            let safe = self.safe.entry(at).or_default();
            safe.extend(acked.into_iter().map(|(number, _)| number));
            self.counters[8] += count;
        }
        Ok(())
    }

    /// Nothing breaks any more: all that follow a primary become equal to it.
    pub fn settle(&mut self) -> Result<(), String> {
        self.is_settling = true;
        self.abort_failover();
        for node in &mut self.nodes {
            node.clear_disk();
        }
        for connection in &mut self.connections {
            connection.is_closing |= connection.up.is_stalled || connection.down.is_stalled;
            (connection.up.is_stalled, connection.down.is_stalled) = (false, false);
        }
        for _ in 0..60 {
            self.tick()?;
            self.go_on()?;
            for _ in 0..12 {
                for at in (0..self.connections.len()).rev() {
                    self.deliver_up(at, usize::MAX)?;
                    self.deliver_down(at, usize::MAX)?;
                }
                self.go_on()?;
            }
            for at in 0..NODES {
                self.apply(at, usize::MAX)?;
            }
        }
        let read: u64 = self.nodes.iter().map(|node| node.read_from_disk).sum();
        self.counters[12] = read;
        for at in 0..NODES {
            let above = |node: usize| self.nodes[node].primary.unwrap_or(node);
            let top = (0..NODES).fold(at, |node, _| above(node));
            let (node, primary) = (&self.nodes[at], &self.nodes[top]);
            let is_equal = at == top
                || node.is_idle()
                    && node.data == primary.data
                    && node.applied == primary.log.offset();
            if !is_equal {
                return Err(format!(
                    "node {at} did not become equal to {top}: {} of {}\n  {:?}\n  {:?}",
                    node.applied,
                    primary.log.offset(),
                    node.data,
                    primary.data
                ));
            }
        }
        Ok(())
    }
}
