//! A connected client, as all threads see it: CLIENT LIST shows it, others end it, unblock it, send it messages.
//!
//! Its connection (`net::connection`) keeps it up to date.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::command::blocking::{End, Waiter};
use crate::pubsub::outbox::Outbox;
use crate::pubsub::tracking::Tracker;

/// One connected client, as CLIENT LIST shows it.
pub struct Client {
    /// Its id, never used twice.
    pub id: u64,
    /// Its address.
    pub addr: String,
    /// The address it connected to.
    pub laddr: String,
    /// When it connected, Unix ms.
    pub connected_ms: i64,
    /// When it last sent something, Unix ms.
    pub active_ms: AtomicI64,
    /// Its database.
    pub db: AtomicU32,
    /// Words that describe it: name, library.
    pub texts: Mutex<ClientTexts>,
    /// What it gets without having asked.
    pub outbox: Arc<Outbox>,
    /// Its channels, patterns and shard channels.
    pub subscriptions: [AtomicU32; 3],
    /// It is in MULTI, with this many commands; -1 if not.
    pub multi: AtomicI64,
    /// Protocol version, 2 or 3.
    pub resp: AtomicU32,
    /// It is a replica of ours.
    pub is_replica: AtomicBool,
    /// It is the link to our primary.
    pub is_primary: AtomicBool,
    /// Bytes of requests that wait in its buffer, and bytes of the buffer that are free.
    pub query_bytes: [AtomicUsize; 2],
    /// Bytes of replies, of commands behind MULTI, and of names that it watches, listens to or tracks.
    pub kept_bytes: AtomicUsize,
    /// Bytes of commands behind MULTI alone.
    pub multi_bytes: AtomicUsize,
    /// What counts of it against `maxmemory-clients`.
    pub(super) noted: AtomicI64,
    /// It was disconnected because of that.
    pub(super) was_evicted: AtomicBool,
    /// Address of its last command's row.
    pub last_command: AtomicUsize,
    /// It has sent nothing for a while: its buffer may go.
    pub is_silent: AtomicBool,
    /// It monitors.
    pub is_monitor: AtomicBool,
    /// CLIENT NO-TOUCH.
    pub is_no_touch: AtomicBool,
    /// CLIENT NO-EVICT.
    pub is_no_evict: AtomicBool,
    /// Its connection is to end, or does.
    pub(super) is_killed: AtomicBool,
    /// It has ended itself: its connection goes when the reply is written.
    pub must_end: AtomicBool,
    /// Its command waits for the end of a pause.
    pub is_postponed: AtomicBool,
    /// What it is blocked for.
    pub waiter: Mutex<Option<Arc<Waiter>>>,
    /// Ends its wait for replicas (WAIT).
    ack_wait: Mutex<Option<oneshot::Sender<End>>>,
}

/// What a client says of itself.
#[derive(Clone, Default)]
pub struct ClientTexts {
    /// CLIENT SETNAME.
    pub name: String,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: String,
    /// CLIENT SETINFO LIB-VER.
    pub lib_ver: String,
    /// Its last command.
    pub command: &'static str,
    /// Its user.
    pub user: String,
    /// What it tracks.
    pub tracker: Option<Arc<Tracker>>,
}

impl Client {
    pub(super) fn new(id: u64, addr: String, laddr: String, now_ms: i64) -> Client {
        Client {
            id,
            addr,
            laddr,
            connected_ms: now_ms,
            active_ms: AtomicI64::new(now_ms),
            db: AtomicU32::new(0),
            texts: Mutex::default(),
            outbox: Arc::new(Outbox::new(id)),
            subscriptions: Default::default(),
            multi: AtomicI64::new(-1),
            resp: AtomicU32::new(2),
            is_primary: AtomicBool::new(false),
            is_replica: AtomicBool::new(false),
            query_bytes: Default::default(),
            kept_bytes: AtomicUsize::new(0),
            multi_bytes: AtomicUsize::new(0),
            noted: AtomicI64::new(0),
            was_evicted: AtomicBool::new(false),
            last_command: AtomicUsize::new(0),
            is_silent: AtomicBool::new(false),
            is_monitor: AtomicBool::new(false),
            is_no_touch: AtomicBool::new(false),
            is_no_evict: AtomicBool::new(false),
            is_killed: AtomicBool::new(false),
            must_end: AtomicBool::new(false),
            is_postponed: AtomicBool::new(false),
            waiter: Mutex::default(),
            ack_wait: Mutex::default(),
        }
    }

    /// What it says of itself.
    pub fn texts(&self) -> ClientTexts {
        self.texts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Asks the connection to let go of its buffer if the client has sent nothing for a while.
    pub fn shrink_if_silent(&self, now_ms: i64) {
        const SILENT_MS: i64 = 2_000;
        let [used, free] = &self.query_bytes;
        let is_silent = now_ms - self.active_ms.load(Ordering::Relaxed) > SILENT_MS;
        let has_buffer = used.load(Ordering::Relaxed) == 0 && free.load(Ordering::Relaxed) > 0;
        if is_silent && has_buffer && !self.is_silent.swap(true, Ordering::Relaxed) {
            self.outbox.filled.notify_one();
        }
    }

    /// About the bytes of memory it takes.
    pub fn memory(&self) -> usize {
        let [used, free] = &self.query_bytes;
        std::mem::size_of::<Client>()
            + used.load(Ordering::Relaxed)
            + free.load(Ordering::Relaxed)
            + self.kept_bytes.load(Ordering::Relaxed)
            + self.outbox.bytes()
    }

    /// Whether it is on this machine.
    pub fn is_local(&self) -> bool {
        if self.addr.ends_with(":0") {
            return true;
        }
        let ip = self.addr.rsplit_once(':').map_or("", |(ip, _)| ip);
        ip.trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
    }

    /// Ends its connection.
    pub fn kill(&self) {
        self.is_killed.store(true, Ordering::Relaxed);
        self.outbox.kill.notify_one();
    }

    /// Whether it has subscribed to anything.
    pub fn is_subscriber(&self) -> bool {
        self.subscriptions
            .iter()
            .any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// Whether it waits for a key, or for the end of a pause.
    pub fn is_blocked(&self) -> bool {
        let waits_for_replicas = self
            .ack_wait
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some();
        if self.is_postponed.load(Ordering::Relaxed) || waits_for_replicas {
            return true;
        }
        self.waiter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// It waits for replicas from now on; the wait's end from outside arrives at what is returned.
    pub fn begin_ack_wait(&self) -> oneshot::Receiver<End> {
        let (sender, receiver) = oneshot::channel();
        *self.ack_wait.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// It waits for replicas no more.
    pub fn end_ack_wait(&self) {
        self.ack_wait
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Ends its wait for a key or for replicas; false if it does not wait.
    pub fn unblock(&self, end: End) -> bool {
        let ack_wait = self
            .ack_wait
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(sender) = ack_wait {
            return sender.send(end).is_ok();
        }
        self.waiter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .is_some_and(|waiter| waiter.end(end))
    }

    /// Changes what it says of itself.
    pub fn change_texts(&self, change: impl FnOnce(&mut ClientTexts)) {
        change(&mut self.texts.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
