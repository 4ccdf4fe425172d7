//! What the shards send to a sink, in an order that a file can have: nothing stands between two parts of one entry.
//!
//! Invariants
//! - While an entry of one shard is partly delivered, everything else waits here, within the budgets of the shards.
//! - Room is given back as a chunk is delivered.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use super::hook::{Chunk, Piece, Span};
use crate::shard::link::Links;

/// The chunks of a snapshot for one sink.
pub struct Feed {
    receiver: UnboundedReceiver<Piece>,
    links: Arc<Links>,
    /// Shards that have more to send.
    shards_left: usize,
    /// The shard of which an entry is partly delivered.
    open: Option<usize>,
    held: VecDeque<Chunk>,
}

/// The snapshot ended before it was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot was aborted")]
pub struct Aborted;

impl Feed {
    /// The chunks of so many shards.
    pub fn new(receiver: UnboundedReceiver<Piece>, links: Arc<Links>, shards: usize) -> Feed {
        Feed {
            receiver,
            links,
            shards_left: shards,
            open: None,
            held: VecDeque::new(),
        }
    }

    /// The next chunk, waiting for it; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Chunk>, Aborted> {
        loop {
            if let Some(chunk) = self.take_held() {
                return Ok(Some(self.deliver(chunk)));
            }
            if self.shards_left == 0 {
                return Ok(None);
            }
            let piece = self.receiver.recv().await.ok_or(Aborted)?;
            self.hold(piece);
        }
    }

    /// [`Feed::next`] on a thread that may block.
    pub fn blocking_next(&mut self) -> Result<Option<Chunk>, Aborted> {
        loop {
            if let Some(chunk) = self.take_held() {
                return Ok(Some(self.deliver(chunk)));
            }
            if self.shards_left == 0 {
                return Ok(None);
            }
            let piece = self.receiver.blocking_recv().ok_or(Aborted)?;
            self.hold(piece);
        }
    }

    fn hold(&mut self, piece: Piece) {
        match piece {
            Piece::Chunk(chunk) => self.held.push_back(chunk),
            Piece::End => self.shards_left -= 1,
        }
    }

    /// The first chunk that may come now. A shard's chunks are in its order, so its next part is the first that is one.
    fn take_held(&mut self) -> Option<Chunk> {
        let Some(shard) = self.open else {
            return self.held.pop_front();
        };
        let at = self.held.iter().position(|chunk| {
            chunk.budget.shard == shard && matches!(chunk.span, Span::Middle | Span::Last)
        })?;
        self.held.remove(at)
    }

    fn deliver(&mut self, chunk: Chunk) -> Chunk {
        self.open = match chunk.span {
            Span::Whole | Span::Last => None,
            Span::First | Span::Middle => Some(chunk.budget.shard),
        };
        if chunk.budget.give_back(chunk.bytes.len() as u64) {
            self.links
                .send(chunk.budget.shard, Box::new(|shard| shard.room_made()));
        }
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::DbIndex;
    use crate::snapshot::hook::Budget;
    use tokio::sync::mpsc::unbounded_channel;

    #[test]
    fn parts_of_an_entry_stay_together_and_all_else_keeps_its_order() {
        let (sender, receiver) = unbounded_channel();
        let (links, _inboxes) = Links::new(2);
        let mut feed = Feed::new(receiver, Arc::new(links), 2);
        let budgets: Vec<_> = (0..2).map(|s| Arc::new(Budget::new(s, 1 << 20))).collect();
        let send = |shard: usize, span, name: &str| {
            let chunk = Chunk {
                db: DbIndex(0),
                bytes: name.into(),
                span,
                keys: 0,
                budget: budgets[shard].clone(),
            };
            sender.send(Piece::Chunk(chunk)).unwrap();
        };
        send(0, Span::Whole, "a");
        send(0, Span::First, "b1");
        send(1, Span::First, "c1");
        send(0, Span::Whole, "d");
        send(1, Span::Whole, "e");
        send(0, Span::Middle, "b2");
        send(1, Span::Last, "c2");
        send(0, Span::Last, "b3");
        sender.send(Piece::End).unwrap();
        sender.send(Piece::End).unwrap();
        let mut names = Vec::new();
        while let Some(chunk) = feed.blocking_next().unwrap() {
            names.push(String::from_utf8(chunk.bytes).unwrap());
        }
        assert_eq!(names.join(" "), "a b1 b2 b3 c1 c2 d e");
    }

    #[test]
    fn a_feed_whose_senders_have_gone_is_aborted() {
        let (sender, receiver) = unbounded_channel::<Piece>();
        let (links, _inboxes) = Links::new(1);
        let mut feed = Feed::new(receiver, Arc::new(links), 1);
        drop(sender);
        assert!(matches!(feed.blocking_next(), Err(Aborted)));
    }
}
