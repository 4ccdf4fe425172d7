//! A round of a connection: commands that travel to shards together, and the places of their replies.
//!
//! The connection works off what is in its buffer; what cannot run at once is put into the round here, and when the buffer is worked off
//! the round is settled: one message to each shard, and replies in the order of requests.
//!
//! Invariants
//! - While a round has places, each reply that is written gets one.
//! - Words of a request over a megabyte are not copied: they travel in the buffer that they came in.

use dfsnap_formats::resp::{Reply, RequestDecoder};

use super::connection::{Barrier, Connection, READ_BYTES};
use super::thread::client_actor;
use crate::command::Command;
use crate::command::aside::MOST_ELEMENTS;
use crate::command::call::{Batch, Call, Words, works_on_one_key};
use crate::keyspace::release::drop_buffer;
use crate::shard::Shard;
use crate::shard::link::question;

/// Commands of a round that are on their way to a shard.
#[derive(Default)]
pub(super) struct Round {
    /// Length of `out` when the first command left.
    pub(super) start: usize,
    pub(super) slots: Vec<Slot>,
    pub(super) batches: Vec<(usize, Vec<Call>)>,
}

/// Where the next reply of a round is.
pub(super) enum Slot {
    /// In `out`, up to this length.
    Here(usize),
    /// The next one of this batch.
    There(usize),
}

impl Connection {
    /// Takes a request of so many bytes that they are not copied: who needs its words for longer gets the buffer itself, and what is
    /// behind them is left.
    pub(super) fn take_large(
        &mut self,
        shard: &mut Shard,
        decoder: &RequestDecoder,
        buffer: &mut Vec<u8>,
        request: std::ops::Range<usize>,
    ) -> Option<Barrier> {
        let start = buffer.as_ptr().addr();
        let place = |word: &[u8]| {
            let from = word.as_ptr().addr() - start;
            (from as u32, (from + word.len()) as u32)
        };
        let places = decoder.words(&buffer[request.start..]).map(place).collect();
        let rest = buffer.split_off(request.end);
        let request = Words::within(std::mem::replace(buffer, rest), places);
        self.is_large = true;
        let mut barrier = request.with(|words| self.take(shard, words));
        self.is_large = false;
        let last_calls = self
            .round
            .batches
            .iter_mut()
            .filter_map(|(_, calls)| calls.last_mut());
        let lacking = match &mut barrier {
            Some(barrier) => Some(&mut barrier.words),
            None => last_calls
                .map(|call| &mut call.words)
                .find(|words| words.is_empty()),
        };
        match lacking {
            Some(words) => *words = request,
            None => drop_buffer(request.into_bytes()),
        }
        barrier
    }

    /// The words of a request, for longer than it is looked at. Those of a large one are put there by `take_large`.
    pub(super) fn kept(&self, words: &[&[u8]]) -> Words {
        match self.is_large {
            true => Words::default(),
            false => Words::new(words.iter().copied()),
        }
    }

    /// Whether the words of a command are so many, or so long, that it is not run here.
    #[inline]
    pub(super) fn must_leave(&self, command: &Command, words: &[&[u8]]) -> bool {
        (self.is_large || words.len() > MOST_ELEMENTS)
            && works_on_one_key(command)
            && !self.tracking.is_caching_set()
    }

    /// Writes a reply in its place in the round.
    pub(super) fn reply_here(&mut self, write: impl FnOnce(&mut Reply)) {
        write(&mut self.out);
        self.close_slot();
    }

    #[inline]
    pub(super) fn close_slot(&mut self) {
        if !self.round.slots.is_empty() {
            self.round.slots.push(Slot::Here(self.out.len()));
        }
    }

    pub(super) fn send_later(&mut self, shard: usize, command: &'static Command, words: &[&[u8]]) {
        let call = Call {
            command,
            db: self.db,
            words: self.kept(words),
        };
        if self.round.slots.is_empty() {
            self.round.start = self.out.len();
        }
        self.round.slots.push(Slot::There(shard));
        match self
            .round
            .batches
            .iter_mut()
            .find(|(known, _)| *known == shard)
        {
            Some((_, calls)) => calls.push(call),
            None => self.round.batches.push((shard, vec![call])),
        }
    }

    /// Sends what is to travel, waits for the replies and puts everything in order.
    pub(super) async fn settle_round(&mut self) {
        if self.round.slots.is_empty() {
            return;
        }
        let round = std::mem::take(&mut self.round);
        let actor = client_actor(&self.thread.world);
        let mut waiting = Vec::with_capacity(round.batches.len());
        for (shard, calls) in round.batches {
            let (done, replies) = question();
            let reply = Reply::new(self.out.protocol());
            let batch = Batch::new(calls, actor, self.caller.clone(), reply, done);
            self.thread
                .coordinator
                .here()
                .tell(shard, move |shard| batch.run(shard));
            waiting.push((shard, replies));
        }
        let mut arrived = Vec::with_capacity(waiting.len());
        for (shard, replies) in waiting {
            let Ok(replies) = replies.await else {
                self.is_closing = true;
                return;
            };
            arrived.push((shard, replies, 0));
        }
        if round.slots.len() == 1 && self.out.is_empty() {
            // Nothing stands before it or behind it.
            let (_, replies, _) = arrived.swap_remove(0);
            return self.put_reply(replies.bytes);
        }
        let local = self.out.buf_mut().split_off(round.start);
        let mut local_at = 0;
        for slot in round.slots {
            match slot {
                Slot::Here(end) => {
                    let end = end - round.start;
                    self.out.raw(&local[local_at..end]);
                    local_at = end;
                }
                Slot::There(shard) => {
                    let (_, replies, next) = arrived
                        .iter_mut()
                        .find(|(known, ..)| *known == shard)
                        .expect("a batch for each slot");
                    let start = if *next == 0 {
                        0
                    } else {
                        replies.ends[*next - 1]
                    };
                    self.out.raw(&replies.bytes[start..replies.ends[*next]]);
                    *next += 1;
                }
            }
        }
    }

    /// Puts a reply behind the others. A large one is not copied if it is the only one.
    pub(super) fn put_reply(&mut self, reply: Vec<u8>) {
        if self.out.is_empty() && reply.len() > READ_BYTES {
            *self.out.buf_mut() = reply;
        } else {
            self.out.raw(&reply);
        }
    }
}
