//! What is measured of commands: how often, how long, how they failed; the slow ones; the latency monitor.
//!
//! Counts are kept by each shard for what its thread ran ([`CommandStats`]) and summed when somebody asks. Slow commands are rare and
//! go to one [`Recorder`].

pub mod activity;
pub mod histogram;
pub mod latency;
pub mod rates;
pub mod slowlog;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use histogram::Histogram;
use latency::LatencyMonitor;
use slowlog::Slowlog;

/// Of one command.
#[derive(Clone, Debug, Default)]
pub struct OneCommand {
    /// Runs.
    pub calls: u64,
    /// Nanoseconds in all.
    pub nanos: u64,
    /// Refused before they ran.
    pub rejected: u64,
    /// Runs that ended with an error.
    pub failed: u64,
    /// How long runs took.
    pub histogram: Histogram,
}

/// Of one thread.
#[derive(Clone, Debug, Default)]
pub struct CommandStats {
    /// By the address of the name: a name that is the same at two addresses is one again when they are summed.
    by_command:
        hashbrown::HashMap<usize, (&'static str, Box<OneCommand>), foldhash::fast::RandomState>,
    errors: HashMap<String, u64>,
}

impl CommandStats {
    #[inline]
    fn of(&mut self, name: &'static str) -> &mut OneCommand {
        let entry = self.by_command.entry(name.as_ptr().addr());
        &mut entry.or_insert_with(|| (name, Box::default())).1
    }

    /// A command ran.
    #[inline]
    pub fn ran(&mut self, name: &'static str, nanos: u64, has_failed: bool, is_tracked: bool) {
        let one = self.of(name);
        one.calls += 1;
        one.nanos += nanos;
        one.failed += u64::from(has_failed);
        if is_tracked {
            one.histogram.add(nanos);
        }
    }

    /// A command was refused.
    pub fn rejected(&mut self, name: &'static str) {
        self.of(name).rejected += 1;
    }

    /// An error was replied.
    pub fn error(&mut self, text: &str) {
        let code = text.split(' ').next().unwrap_or_default();
        // An error that scripts make up may have any code: there is an end to them.
        let has_room = self.errors.len() < 128;
        match self.errors.get_mut(code) {
            Some(count) => *count += 1,
            None if has_room => {
                self.errors.insert(code.to_owned(), 1);
            }
            None => {}
        }
    }

    /// Adds those of another thread.
    pub fn add(&mut self, other: &CommandStats) {
        for (name, other) in other.by_command.values() {
            let one = self.named(name);
            one.calls += other.calls;
            one.nanos += other.nanos;
            one.rejected += other.rejected;
            one.failed += other.failed;
            one.histogram.merge(&other.histogram);
        }
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
    }

    /// The place of a name, wherever it stands.
    fn named(&mut self, name: &'static str) -> &mut OneCommand {
        let known = self.by_command.values().find(|(known, _)| *known == name);
        let name = known.map_or(name, |(known, _)| known);
        self.of(name)
    }

    /// Each command that was called or refused, by name.
    pub fn commands(&self) -> BTreeMap<&'static str, &OneCommand> {
        self.by_command
            .values()
            .map(|(name, one)| (*name, &**one))
            .collect()
    }

    /// Each error code, with how often it was replied.
    pub fn errors(&self) -> BTreeMap<&str, u64> {
        self.errors
            .iter()
            .map(|(code, count)| (code.as_str(), *count))
            .collect()
    }
}

/// What is known of a thread without asking it: as it was when it last said so.
#[derive(Clone, Debug, Default)]
pub struct ThreadReport {
    /// Bytes it has allocated, less those it has freed.
    pub memory: u64,
    /// Writes that wait for a snapshot.
    pub parked: u64,
    /// Transactions that have a place in its queue.
    pub queued: u64,
    /// Keys that clients wait for.
    pub awaited: u64,
    /// Its commands.
    pub commands: CommandStats,
}

/// The name under which a subcommand is counted. Each is kept for ever, so only those that exist may come here.
pub fn subcommand_name(container: &str, word: &[u8]) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let name = format!(
        "{container}|{}",
        String::from_utf8_lossy(word).to_lowercase()
    );
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    match names.get(name.as_str()) {
        Some(name) => name,
        None => {
            let name: &'static str = name.leak();
            names.insert(name);
            name
        }
    }
}

/// What is rare enough for one place.
#[derive(Debug, Default)]
pub struct Recorder {
    /// SLOWLOG.
    pub slowlog: Slowlog,
    /// LATENCY.
    pub latency: LatencyMonitor,
    /// `latency-tracking`.
    pub tracks_latency: AtomicBool,
    names: Mutex<HashMap<u64, (String, String)>>,
}

impl Recorder {
    /// A client came, or has another name.
    pub fn set_client(&self, id: u64, addr: &str, name: &str) {
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, (addr.to_owned(), name.to_owned()));
    }

    /// A client has gone.
    pub fn forget_client(&self, id: u64) {
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    /// Address and name of a client.
    fn client(&self, id: u64) -> (String, String) {
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
            .unwrap_or_default()
    }

    /// Whether histograms are kept.
    #[inline]
    pub fn tracks_latency(&self) -> bool {
        self.tracks_latency.load(Ordering::Relaxed)
    }

    /// A command ran; if it took long it is noted.
    #[inline]
    pub fn ran(&self, args: &[&[u8]], nanos: u64, client: u64, is_fast: bool) {
        if self.slowlog.is_slow(nanos) {
            let (addr, name) = self.client(client);
            self.slowlog.push(args, nanos / 1000, addr, name);
        }
        let event = if is_fast { "fast-command" } else { "command" };
        self.latency.add(event, nanos);
    }
}
