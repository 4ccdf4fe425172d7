//! ACL LOG: what was refused lately, the same refusals of a minute as one entry.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use dfsnap_formats::resp::Reply;

use super::Denied;

/// Refusals of the same kind within this are one entry, ms.
const GROUP_MS: i64 = 60_000;

/// One entry.
#[derive(Clone, Debug)]
struct Entry {
    id: u64,
    count: u64,
    reason: &'static str,
    context: &'static str,
    object: Vec<u8>,
    username: Vec<u8>,
    created_ms: i64,
    updated_ms: i64,
    client: String,
}

#[derive(Default)]
struct Log {
    entries: VecDeque<Entry>,
    next_id: u64,
}

static LOG: Mutex<Option<Log>> = Mutex::new(None);

/// How often what was refused: logging in, commands, keys, channels.
static DENIED: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// See [`DENIED`].
pub fn counters() -> [u64; 4] {
    DENIED
        .each_ref()
        .map(|counter| counter.load(Ordering::Relaxed))
}

/// What was refused.
pub enum What<'a> {
    /// Logging in.
    Auth,
    /// A command, because of this.
    Command(&'a Denied),
}

/// Notes a refusal. `context` is `toplevel`, `multi` or `lua`.
pub fn note(what: &What<'_>, context: &'static str, username: &[u8], client: String, max: usize) {
    let (reason, at, object) = match what {
        What::Auth => ("auth", 0, b"AUTH".to_vec()),
        What::Command(Denied::Command(name)) => ("command", 1, name.clone().into_bytes()),
        What::Command(Denied::Key(key)) => ("key", 2, key.clone()),
        What::Command(Denied::Channel(channel)) => ("channel", 3, channel.clone()),
    };
    DENIED[at].fetch_add(1, Ordering::Relaxed);
    let now_ms = crate::clock::now_ms();
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let log = log.get_or_insert_default();
    let is_same = |entry: &Entry| {
        now_ms - entry.created_ms <= GROUP_MS
            && (entry.reason, entry.context) == (reason, context)
            && entry.object == object
            && entry.username == username
    };
    if let Some(at) = log.entries.iter().position(is_same) {
        let mut entry = log.entries.remove(at).expect("it was just found");
        entry.count += 1;
        entry.updated_ms = now_ms;
        entry.client = client;
        log.entries.push_front(entry);
    } else {
        let id = log.next_id;
        log.next_id += 1;
        log.entries.push_front(Entry {
            id,
            count: 1,
            reason,
            context,
            object,
            username: username.to_vec(),
            created_ms: now_ms,
            updated_ms: now_ms,
            client,
        });
    }
    log.entries.truncate(max);
}

/// ACL LOG RESET.
pub fn reset() {
    if let Some(log) = &mut *LOG.lock().unwrap_or_else(PoisonError::into_inner) {
        log.entries.clear();
    }
}

/// ACL LOG.
pub fn show(reply: &mut Reply, count: usize) {
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let entries: Vec<Entry> = log
        .iter()
        .flat_map(|log| log.entries.iter().take(count).cloned())
        .collect();
    drop(log);
    let now_ms = crate::clock::now_ms();
    reply.array(entries.len());
    for entry in entries {
        reply.map(10);
        reply.bulk(b"count");
        reply.int(entry.count as i64);
        for (name, text) in [
            ("reason", entry.reason.as_bytes()),
            ("context", entry.context.as_bytes()),
            ("object", &entry.object),
            ("username", &entry.username),
        ] {
            reply.bulk(name.as_bytes());
            reply.bulk(text);
        }
        reply.bulk(b"age-seconds");
        reply.double((now_ms - entry.created_ms) as f64 / 1000.0);
        reply.bulk(b"client-info");
        reply.bulk(entry.client.as_bytes());
        reply.bulk(b"entry-id");
        reply.int(entry.id as i64);
        reply.bulk(b"timestamp-created");
        reply.int(entry.created_ms);
        reply.bulk(b"timestamp-last-updated");
        reply.int(entry.updated_ms);
    }
}
