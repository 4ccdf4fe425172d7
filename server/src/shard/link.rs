//! The way from one thread to the shards: messages in order, each a function that runs with the shard.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::Shard;
use super::queue::TxId;

/// What travels to a shard.
pub type Message = Box<dyn FnOnce(&mut Shard) + Send>;

/// The inbox of one shard.
pub type Inbox = UnboundedReceiver<Message>;

/// The way to all shards, and the counter that orders transactions. Shared by all threads.
pub struct Links {
    inboxes: Vec<UnboundedSender<Message>>,
    tx_ids: AtomicU64,
}

impl Links {
    /// Links to `shards` shards, and their inboxes in order.
    pub fn new(shards: usize) -> (Links, Vec<Inbox>) {
        let (inboxes, receivers) = (0..shards).map(|_| unbounded_channel()).unzip();
        (
            Links {
                inboxes,
                tx_ids: AtomicU64::new(1),
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

    /// Sends a function to a shard. Two messages from one thread to one shard run in order.
    pub fn send(&self, shard: usize, message: Message) {
        // A shard's thread ends only with the process.
        let _ = self.inboxes[shard].send(message);
    }

    /// Runs a function on a shard and brings its result back; `None` when the server is going down.
    pub async fn call<R: Send + 'static>(
        &self,
        shard: usize,
        run: impl FnOnce(&mut Shard) -> R + Send + 'static,
    ) -> Option<R> {
        let (sender, receiver) = oneshot::channel();
        self.send(
            shard,
            Box::new(move |shard| {
                let _ = sender.send(run(shard));
            }),
        );
        receiver.await.ok()
    }

    /// Runs a function on every shard and brings the results back in order of shards.
    pub async fn call_all<R: Send + 'static>(
        &self,
        run: impl Fn(&mut Shard) -> R + Send + Clone + 'static,
    ) -> Option<Vec<R>> {
        let mut receivers = Vec::with_capacity(self.shards());
        for shard in 0..self.shards() {
            let (sender, receiver) = oneshot::channel();
            let run = run.clone();
            self.send(
                shard,
                Box::new(move |shard| {
                    let _ = sender.send(run(shard));
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
