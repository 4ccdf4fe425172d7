//! Publish and subscribe: who listens to which channel, and the way of a message to them.
//!
//! One [`Hub`] for all threads. A subscriber is known by its [`Outbox`]; publishing puts the message, shared, into the outbox of each.
//! Connections bring subscriptions, commands and keyspace events publish.
//!
//! Invariants
//! - Messages that one thread publishes reach a subscriber in that order.
//! - Publishing never waits: a subscriber that does not read is ended by its output limit.

pub mod outbox;
pub mod tracking;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dfsnap_formats::glob;

use crate::config::words::EventClasses;
use outbox::{Limits, Outbox, Push};
use tracking::Tracking;

/// What a subscription is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A channel by name (SUBSCRIBE).
    Channel,
    /// All channels that match a pattern (PSUBSCRIBE).
    Pattern,
    /// A shard channel by name (SSUBSCRIBE).
    Shard,
}

/// A channel or a pattern.
pub type Name = Arc<[u8]>;

/// A published message.
#[derive(Debug)]
pub struct Message {
    /// Where it was published.
    pub channel: Vec<u8>,
    /// What.
    pub payload: Vec<u8>,
}

type Subscribers = HashMap<Name, Vec<Arc<Outbox>>>;

/// All subscriptions. Shared by all threads.
#[derive(Default)]
pub struct Hub {
    channels: RwLock<Subscribers>,
    patterns: RwLock<Subscribers>,
    shard_channels: RwLock<Subscribers>,
    /// Of patterns, so that nobody looks for them in vain.
    pattern_count: AtomicUsize,
    /// `notify-keyspace-events`, as [`EventClasses::bits`].
    events: AtomicU16,
    /// `client-output-buffer-limit pubsub`.
    pub limits: Limits,
    /// Clients that keep copies of keys.
    pub tracking: Tracking,
    monitors: RwLock<Vec<Arc<Outbox>>>,
    monitor_count: AtomicUsize,
    /// CLIENT PAUSE is on: nothing expires meanwhile.
    pub is_paused: std::sync::atomic::AtomicBool,
    /// PUBLISH is not for replicas: this is a node of a cluster.
    pub is_cluster: std::sync::atomic::AtomicBool,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}

impl Hub {
    fn table(&self, kind: Kind) -> &RwLock<Subscribers> {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shard_channels,
        }
    }

    fn read(&self, kind: Kind) -> RwLockReadGuard<'_, Subscribers> {
        self.table(kind)
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, kind: Kind) -> RwLockWriteGuard<'_, Subscribers> {
        self.table(kind)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscription that is not there yet.
    pub fn subscribe(&self, kind: Kind, name: &Name, outbox: &Arc<Outbox>) {
        let mut table = self.write(kind);
        table.entry(name.clone()).or_default().push(outbox.clone());
        if kind == Kind::Pattern {
            self.pattern_count.store(table.len(), Ordering::Relaxed);
        }
    }

    /// Takes a subscription away.
    pub fn unsubscribe(&self, kind: Kind, name: &Name, outbox: &Arc<Outbox>) {
        let mut table = self.write(kind);
        if let Some(subscribers) = table.get_mut(name) {
            subscribers.retain(|other| !Arc::ptr_eq(other, outbox));
            if subscribers.is_empty() {
                table.remove(name);
            }
        }
        if kind == Kind::Pattern {
            self.pattern_count.store(table.len(), Ordering::Relaxed);
        }
    }

    /// Publishes to a channel; how many have got it.
    pub fn publish(&self, channel: &[u8], payload: &[u8]) -> usize {
        let message = || {
            Arc::new(Message {
                channel: channel.to_vec(),
                payload: payload.to_vec(),
            })
        };
        let mut shared = None;
        let mut receivers = 0;
        if let Some(subscribers) = self.read(Kind::Channel).get(channel) {
            let message = shared.get_or_insert_with(message);
            for outbox in subscribers {
                outbox.push(Push::Message(message.clone()), &self.limits);
            }
            receivers += subscribers.len();
        }
        if self.pattern_count.load(Ordering::Relaxed) > 0 {
            for (pattern, subscribers) in self.read(Kind::Pattern).iter() {
                if !glob::matches(pattern, channel) {
                    continue;
                }
                let message = shared.get_or_insert_with(message);
                for outbox in subscribers {
                    let push = Push::PatternMessage(pattern.clone(), message.clone());
                    outbox.push(push, &self.limits);
                }
                receivers += subscribers.len();
            }
        }
        receivers
    }

    /// Publishes to a shard channel; how many have got it.
    pub fn publish_to_shard(&self, channel: &[u8], payload: &[u8]) -> usize {
        let table = self.read(Kind::Shard);
        let Some(subscribers) = table.get(channel) else {
            return 0;
        };
        let message = Arc::new(Message {
            channel: channel.to_vec(),
            payload: payload.to_vec(),
        });
        for outbox in subscribers {
            outbox.push(Push::ShardMessage(message.clone()), &self.limits);
        }
        subscribers.len()
    }

    /// What a client has subscribed to.
    pub fn names_of(&self, kind: Kind, outbox: &Arc<Outbox>) -> Vec<Name> {
        let is_theirs = |subscribers: &[Arc<Outbox>]| {
            subscribers.iter().any(|other| Arc::ptr_eq(other, outbox))
        };
        let table = self.read(kind);
        let theirs = table
            .iter()
            .filter(|(_, subscribers)| is_theirs(subscribers));
        theirs.map(|(name, _)| name.clone()).collect()
    }

    /// Names with subscribers that match a pattern.
    pub fn names(&self, kind: Kind, pattern: Option<&[u8]>) -> Vec<Name> {
        self.read(kind)
            .keys()
            .filter(|name| pattern.is_none_or(|pattern| glob::matches(pattern, name)))
            .cloned()
            .collect()
    }

    /// Number of subscribers of a channel.
    pub fn subscribers(&self, kind: Kind, name: &[u8]) -> usize {
        self.read(kind).get(name).map_or(0, Vec::len)
    }

    /// Number of names with subscribers.
    pub fn len(&self, kind: Kind) -> usize {
        self.read(kind).len()
    }

    /// Whether anybody wants to know which keys a run changes.
    #[inline]
    pub fn wants_touched(&self) -> bool {
        self.has_events() || self.tracking.is_active()
    }

    /// Whether any client monitors.
    #[inline]
    pub fn has_monitors(&self) -> bool {
        self.monitor_count.load(Ordering::Relaxed) > 0
    }

    /// A client gets all commands from now on.
    pub fn add_monitor(&self, outbox: &Arc<Outbox>) {
        let mut monitors = self
            .monitors
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        monitors.push(outbox.clone());
        self.monitor_count.store(monitors.len(), Ordering::Relaxed);
    }

    /// A client gets commands no more.
    pub fn remove_monitor(&self, outbox: &Arc<Outbox>) {
        let mut monitors = self
            .monitors
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        monitors.retain(|other| !Arc::ptr_eq(other, outbox));
        self.monitor_count.store(monitors.len(), Ordering::Relaxed);
    }

    /// Shows a command to those who monitor. `from`: the client's address.
    pub fn monitor(&self, db: u32, from: &str, args: &[&[u8]]) {
        let micros = crate::clock::now_us();
        let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
        let mut line = format!("{seconds}.{micros:06} [{db} {from}]");
        for word in args {
            line.push_str(" \"");
            push_escaped(&mut line, word);
            line.push('"');
        }
        let line: Arc<str> = line.into();
        let monitors = self.monitors.read().unwrap_or_else(PoisonError::into_inner);
        for outbox in monitors.iter() {
            outbox.push(Push::Line(line.clone()), &self.limits);
        }
    }

    /// Which keyspace events are published from now on.
    pub fn set_events(&self, classes: EventClasses) {
        self.events.store(classes.bits(), Ordering::Relaxed);
    }

    /// Whether any event is published.
    #[inline]
    pub fn has_events(&self) -> bool {
        let bits = self.events.load(Ordering::Relaxed);
        bits != 0 && !EventClasses::from_bits(bits).is_silent()
    }

    /// Whether events of a class are published at all.
    #[inline]
    pub fn has_event(&self, class: u8) -> bool {
        let bits = self.events.load(Ordering::Relaxed);
        bits != 0 && {
            let classes = EventClasses::from_bits(bits);
            !classes.is_silent() && classes.contains(class)
        }
    }

    /// Publishes a keyspace event of a class that is published.
    pub fn notify(&self, db: u32, event: &str, key: &[u8]) {
        let classes = EventClasses::from_bits(self.events.load(Ordering::Relaxed));
        if classes.contains(b'K') {
            let channel = [format!("__keyspace@{db}__:").as_bytes(), key].concat();
            self.publish(&channel, event.as_bytes());
        }
        if classes.contains(b'E') {
            let channel = format!("__keyevent@{db}__:{event}");
            self.publish(channel.as_bytes(), key);
        }
    }
}

/// The bytes as people can read them, in double quotes.
fn push_escaped(line: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => {
                line.push('\\');
                line.push(char::from(byte));
            }
            b'\n' => line.push_str("\\n"),
            b'\r' => line.push_str("\\r"),
            b'\t' => line.push_str("\\t"),
            0x07 => line.push_str("\\a"),
            0x08 => line.push_str("\\b"),
            b' '..=b'~' => line.push(char::from(byte)),
            _ => line.push_str(&format!("\\x{byte:02x}")),
        }
    }
}
