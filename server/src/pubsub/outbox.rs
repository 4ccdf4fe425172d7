//! What a client gets without having asked: messages, invalidations, lines of MONITOR.
//!
//! Any thread puts it in; the client's connection takes it out and writes it in the client's protocol, between two replies. A client
//! that lets too much pile up is ended.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dfsnap_formats::resp::{Protocol, Reply};
use tokio::sync::Notify;

use super::{Message, Name};
use crate::clock::now_ms;

/// One thing to write.
#[derive(Clone, Debug)]
pub enum Push {
    /// Published to a channel.
    Message(Arc<Message>),
    /// Published to a channel that matches this pattern.
    PatternMessage(Name, Arc<Message>),
    /// Published to a shard channel.
    ShardMessage(Arc<Message>),
    /// These keys have changed, for a client that keeps copies (`None`: all have).
    Invalidate {
        keys: Option<Vec<Vec<u8>>>,
        /// The copies are another client's, which has its messages sent here.
        is_redirected: bool,
    },
    /// The client that got the invalidations has gone.
    RedirectionBroken(u64),
    /// A line of MONITOR.
    Line(Arc<str>),
}

/// How much may wait in an outbox. Zero: anything.
#[derive(Debug, Default)]
pub struct Limits {
    /// More than this ends the client at once, bytes.
    pub hard_bytes: AtomicU64,
    /// More than this for long ends it, bytes.
    pub soft_bytes: AtomicU64,
    /// How long, milliseconds.
    pub soft_ms: AtomicI64,
    /// What all clients may take together (`maxmemory-clients`).
    pub clients_bytes: AtomicU64,
    /// An outbox has grown by much since clients were last looked at.
    pub has_grown: AtomicBool,
}

/// An outbox that has grown past a multiple of this has clients looked at, bytes.
const GROWTH: usize = 64 << 10;

/// A client's outbox.
#[derive(Debug)]
pub struct Outbox {
    /// The client's id.
    pub client_id: u64,
    queue: Mutex<VecDeque<Push>>,
    /// Told when there is something to take.
    pub filled: Notify,
    /// Told to end the connection.
    pub kill: Notify,
    /// The connection has gone.
    is_closed: AtomicBool,
    /// Bytes that wait.
    bytes: AtomicUsize,
    /// Since when it is above the soft limit, Unix ms; 0 if it is not.
    above_since_ms: AtomicI64,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(client_id: u64) -> Outbox {
        Outbox {
            client_id,
            queue: Mutex::default(),
            filled: Notify::new(),
            kill: Notify::new(),
            is_closed: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            above_since_ms: AtomicI64::new(0),
        }
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the connection is there.
    pub fn is_open(&self) -> bool {
        !self.is_closed.load(Ordering::Relaxed)
    }

    /// The connection has gone.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Number of pushes that wait.
    pub fn len(&self) -> usize {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Adds something; ends the client if it is too much.
    pub fn push(&self, push: Push, limits: &Limits) {
        let size = push.size();
        let bytes = self.bytes.fetch_add(size, Ordering::Relaxed) + size;
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(push);
        self.filled.notify_one();
        if bytes / GROWTH != (bytes - size) / GROWTH
            && limits.clients_bytes.load(Ordering::Relaxed) > 0
        {
            limits.has_grown.store(true, Ordering::Relaxed);
        }
        self.check_size(bytes, limits);
    }

    /// Ends the client if more waits than its limits allow. Asked at every push, and now and then when there are none.
    pub fn check(&self, limits: &Limits) {
        let bytes = self.bytes();
        if bytes > 0 {
            self.check_size(bytes, limits);
        }
    }

    fn check_size(&self, bytes: usize, limits: &Limits) {
        if self.is_above(bytes as u64, limits) {
            tracing::warn!(
                client = self.client_id,
                bytes,
                "closing client: output buffer limit"
            );
            self.kill.notify_one();
        }
    }

    fn is_above(&self, bytes: u64, limits: &Limits) -> bool {
        let hard = limits.hard_bytes.load(Ordering::Relaxed);
        let soft = limits.soft_bytes.load(Ordering::Relaxed);
        if hard > 0 && bytes > hard {
            return true;
        }
        if soft == 0 || bytes <= soft {
            self.above_since_ms.store(0, Ordering::Relaxed);
            return false;
        }
        let now = now_ms();
        match self.above_since_ms.load(Ordering::Relaxed) {
            0 => {
                self.above_since_ms.store(now, Ordering::Relaxed);
                false
            }
            since => now - since > limits.soft_ms.load(Ordering::Relaxed),
        }
    }

    /// Takes everything and writes it behind what is in `out`, up to about `limit` bytes. `is_subscriber`: the client has
    /// subscribed to something.
    pub fn drain(&self, out: &mut Reply, limit: usize, is_subscriber: bool) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while out.len() < limit
            && let Some(push) = queue.pop_front()
        {
            self.bytes.fetch_sub(push.size(), Ordering::Relaxed);
            push.write(out, is_subscriber);
        }
        if !queue.is_empty() {
            self.filled.notify_one();
        }
    }
}

impl Push {
    /// About the bytes it takes.
    fn size(&self) -> usize {
        64 + match self {
            Push::Message(message) | Push::ShardMessage(message) => {
                message.channel.len() + message.payload.len()
            }
            Push::PatternMessage(pattern, message) => {
                pattern.len() + message.channel.len() + message.payload.len()
            }
            Push::Invalidate { keys, .. } => keys.iter().flatten().map(|key| key.len() + 32).sum(),
            Push::RedirectionBroken(_) => 0,
            Push::Line(line) => line.len(),
        }
    }

    fn write(&self, out: &mut Reply, is_subscriber: bool) {
        match self {
            Push::Message(message) => {
                out.push(3);
                out.bulk(b"message");
                out.bulk(&message.channel);
                out.bulk(&message.payload);
            }
            Push::PatternMessage(pattern, message) => {
                out.push(4);
                out.bulk(b"pmessage");
                out.bulk(pattern);
                out.bulk(&message.channel);
                out.bulk(&message.payload);
            }
            Push::ShardMessage(message) => {
                out.push(3);
                out.bulk(b"smessage");
                out.bulk(&message.channel);
                out.bulk(&message.payload);
            }
            Push::Invalidate {
                keys,
                is_redirected,
            } => {
                // RESP2 has no word for it but the message of a channel; a client that listens to none could not tell it from a reply.
                if out.protocol() == Protocol::Resp3 || *is_redirected && is_subscriber {
                    write_invalidation(out, keys.as_deref());
                }
            }
            Push::RedirectionBroken(id) => {
                if out.protocol() == Protocol::Resp3 {
                    out.push(2);
                    out.bulk(b"tracking-redir-broken");
                    out.int(*id as i64);
                }
            }
            Push::Line(line) => out.simple(line),
        }
    }
}

/// In RESP3 a push of its own kind; a RESP2 client gets it as a message of a channel that it has subscribed to.
fn write_invalidation(out: &mut Reply, keys: Option<&[Vec<u8>]>) {
    if out.protocol() == Protocol::Resp3 {
        out.push(2);
        out.bulk(b"invalidate");
    } else {
        out.push(3);
        out.bulk(b"message");
        out.bulk(b"__redis__:invalidate");
    }
    match keys {
        None => out.null(),
        Some(keys) => {
            out.array(keys.len());
            keys.iter().for_each(|key| out.bulk(key));
        }
    }
}
