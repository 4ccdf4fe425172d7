//! The way from one thread to the shards: messages in order, each a function that runs with the shard.
//!
//! Waking a sleeping thread costs far more than a message. So a shard's thread collects what it sends during a turn and sends it
//! at the turn's end, one bundle for each shard, and answers travel the same way: they wake their task on its own
//! thread.
//!
//! Invariants
//! - Two messages from one thread to one shard run in order.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::Shard;
use super::queue::TxId;

/// What travels to a shard.
pub type Message = Box<dyn FnOnce(&mut Shard) + Send>;

/// The inbox of one shard: bundles of messages.
pub type Inbox = UnboundedReceiver<Vec<Message>>;

/// What a shard's thread has sent in this turn.
struct Outbox {
    shard: usize,
    bundles: Vec<Vec<Message>>,
    /// Told with the first message of a turn.
    filled: Rc<Notify>,
    is_empty: bool,
}

thread_local! {
    static OUTBOX: RefCell<Option<Outbox>> = const { RefCell::new(None) };
}

/// Collects what this thread, a shard's, sends from now on. The future it returns must run on this thread as long as it sends.
pub fn collect_messages(links: Arc<Links>, shard: usize) -> impl Future<Output = ()> {
    let filled = Rc::new(Notify::new());
    OUTBOX.set(Some(Outbox {
        shard,
        bundles: (0..links.shards()).map(|_| Vec::new()).collect(),
        filled: filled.clone(),
        is_empty: true,
    }));
    async move {
        loop {
            // Behind everything that is ready to run: all of it shares the bundles.
            filled.notified().await;
            links.send_collected();
        }
    }
}

/// The shard of this thread, if it is a shard's.
pub fn own_shard() -> Option<usize> {
    OUTBOX.with_borrow(|outbox| outbox.as_ref().map(|outbox| outbox.shard))
}

/// Brings one value back to the thread that waits for it.
pub struct Answer<T> {
    sender: oneshot::Sender<T>,
    asker: Option<usize>,
}

/// An answer to give, and the end where this thread waits for it.
pub fn question<T>() -> (Answer<T>, oneshot::Receiver<T>) {
    let (sender, receiver) = oneshot::channel();
    (
        Answer {
            sender,
            asker: own_shard(),
        },
        receiver,
    )
}

impl<T: Send + 'static> Answer<T> {
    /// Gives the answer from any thread, waking the asker's by itself.
    pub fn give_now(self, value: T) {
        let _ = self.sender.send(value);
    }

    /// Gives the answer from a shard's thread. The asker may have stopped waiting.
    pub fn give(self, from: &Shard, value: T) {
        let sender = self.sender;
        match self.asker {
            Some(asker) if asker != from.index => from.links.send(
                asker,
                Box::new(move |_| {
                    let _ = sender.send(value);
                }),
            ),
            _ => {
                let _ = sender.send(value);
            }
        }
    }
}

/// The way to all shards, and the counter that orders transactions. Shared by all threads.
pub struct Links {
    inboxes: Vec<UnboundedSender<Vec<Message>>>,
    tx_ids: AtomicU64,
    /// Which shards had no key left to evict when they last looked.
    exhausted: Vec<AtomicBool>,
}

impl Links {
    /// Links to `shards` shards, and their inboxes in order.
    pub fn new(shards: usize) -> (Links, Vec<Inbox>) {
        let (inboxes, receivers) = (0..shards).map(|_| unbounded_channel()).unzip();
        (
            Links {
                inboxes,
                tx_ids: AtomicU64::new(1),
                exhausted: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            },
            receivers,
        )
    }

    /// Number of shards.
    pub fn shards(&self) -> usize {
        self.inboxes.len()
    }

    /// An id above all that were taken before.
    pub fn next_tx_id(&self) -> TxId {
        TxId(self.tx_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Notes whether a shard has no key left to evict.
    pub fn set_exhausted(&self, shard: usize, is_exhausted: bool) {
        self.exhausted[shard].store(is_exhausted, Ordering::Relaxed);
    }

    /// Whether no shard had a key left to evict when it last looked.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted
            .iter()
            .all(|shard| shard.load(Ordering::Relaxed))
    }

    /// Sends a function to a shard. Two messages from one thread to one shard run in order.
    pub fn send(&self, shard: usize, message: Message) {
        let unsent = OUTBOX.with_borrow_mut(|outbox| {
            let Some(outbox) = outbox else {
                return Some(message);
            };
            outbox.bundles[shard].push(message);
            if std::mem::take(&mut outbox.is_empty) {
                outbox.filled.notify_one();
            }
            None
        });
        if let Some(message) = unsent {
            // A shard's thread ends only with the process.
            let _ = self.inboxes[shard].send(vec![message]);
        }
    }

    fn send_collected(&self) {
        OUTBOX.with_borrow_mut(|outbox| {
            let Some(outbox) = outbox else { return };
            outbox.is_empty = true;
            for (inbox, bundle) in self.inboxes.iter().zip(&mut outbox.bundles) {
                if !bundle.is_empty() {
                    let _ = inbox.send(std::mem::take(bundle));
                }
            }
        });
    }

    /// Runs a function on a shard and brings its result back; `None` when the server is going down.
    pub async fn call<R: Send + 'static>(
        &self,
        shard: usize,
        run: impl FnOnce(&mut Shard) -> R + Send + 'static,
    ) -> Option<R> {
        let (answer, receiver) = question();
        self.send(
            shard,
            Box::new(move |shard| {
                let result = run(shard);
                answer.give(shard, result);
            }),
        );
        receiver.await.ok()
    }

    /// Runs a function on every shard and brings the results back in order of shards. A keyspace may be with a transaction on everything.
    pub async fn call_all<R: Send + 'static>(
        &self,
        run: impl Fn(&mut Shard) -> R + Send + Clone + 'static,
    ) -> Option<Vec<R>> {
        self.ask_all(run, |shard, message| message(shard)).await
    }

    /// Waits until what was on its way from thread to thread when this was called has arrived: commands that were let through before a
    /// flag said no.
    pub async fn settled(&self) {
        // From a connection to a shard, from there to another, and one more.
        for _ in 0..3 {
            self.call_all(|_| ()).await;
        }
    }

    /// [`Links::call_all`], on each shard when its keyspace is there.
    pub async fn look_at_all<R: Send + 'static>(
        &self,
        run: impl Fn(&mut Shard) -> R + Send + Clone + 'static,
    ) -> Option<Vec<R>> {
        self.ask_all(run, Shard::when_here).await
    }

    async fn ask_all<R: Send + 'static>(
        &self,
        run: impl Fn(&mut Shard) -> R + Send + Clone + 'static,
        deliver: fn(&mut Shard, Message),
    ) -> Option<Vec<R>> {
        let mut receivers = Vec::with_capacity(self.shards());
        for shard in 0..self.shards() {
            let (answer, receiver) = question();
            let run = run.clone();
            self.send(
                shard,
                Box::new(move |shard| {
                    let message = move |shard: &mut Shard| {
                        let result = run(shard);
                        answer.give(shard, result);
                    };
                    deliver(shard, Box::new(message));
                }),
            );
            receivers.push(receiver);
        }
        let mut results = Vec::with_capacity(receivers.len());
        for receiver in receivers {
            results.push(receiver.await.ok()?);
        }
        Some(results)
    }
}
