//! Commands that wait for a key: what they wait for, who serves them, and how the wait ends.
//!
//! A blocking command first runs like any other ([`attempt`]). If it found nothing it says so in `exec.wait`; while its keys are
//! still held, a [`Waiter`] is put in the queues of all their shards, so no write can come in between. From then on whoever changes
//! one of the keys serves it inside its own commit (`shard::waits`): the waiter's command runs there, for that one key.
//!
//! Invariants
//! - Whoever takes the answer out of the waiter's state ends the wait, and is the only one: a shard that serves, the connection
//!   whose time is over or whose client has gone, CLIENT UNBLOCK. So nobody takes two elements, and none is taken for
//!   somebody who waits no more.
//! - A move whose destination cannot be reached from the serving run is tried as a transaction of its own ([`Blocked::retry`]);
//!   the waiter keeps its place at the head of the queue meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use dfsnap_formats::resp::{Protocol, Reply};
use smallvec::smallvec;
use tokio::sync::oneshot;

use super::call::{Call, Words, mode};
use super::exec::Actor;
use super::expiry::remove_expired;
use super::runner::{Commit, commit_on_shard, run_on_shard, run_uncommitted};
use super::{Command, CommandError};
use crate::keyspace::blob::Blob;
use crate::keyspace::value::Value;
use crate::keyspace::value::stream::{Stream, StreamId};
use crate::keyspace::{DbIndex, Key, shard_of};
use crate::pubsub::tracking::Caller;
use crate::shard::link::{Answer, question};
use crate::shard::queue::{Footprint, Mode};
use crate::shard::waits::{self, Verdict, WaitKind};
use crate::shard::{After, Shard, fingerprint};
use crate::tx::{AtHome, Coordinator, GatherEnd, Touched};

/// What a command that found nothing waits for.
#[derive(Debug)]
pub struct Wait {
    /// Milliseconds; 0: for ever.
    pub timeout_ms: u64,
    /// What makes a key ready.
    pub wants: Wants,
    /// The keys, each with the words that belong to it alone.
    pub keys: Vec<WaitKey>,
    /// The words before a key in the command that serves it.
    pub before: Vec<Vec<u8>>,
    /// The words after it and its own.
    pub after: Vec<Vec<u8>>,
}

/// A key to wait for.
#[derive(Clone, Debug)]
pub struct WaitKey {
    /// The key.
    pub key: Blob,
    /// Entries behind this id are wanted (XREAD).
    pub after_id: StreamId,
}

/// What makes a key ready.
#[derive(Clone, Debug)]
pub enum Wants {
    /// A list is there.
    List,
    /// A sorted set is there.
    SortedSet,
    /// A stream has entries behind the key's id.
    Entries,
    /// A stream has entries that this group has not got, or can have none any more: key or group are gone.
    Group(Vec<u8>),
}

impl Wants {
    fn kind(&self) -> WaitKind {
        match self {
            Wants::List => WaitKind::List,
            Wants::SortedSet => WaitKind::SortedSet,
            Wants::Entries | Wants::Group(_) => WaitKind::Stream,
        }
    }

    /// Whether a value is what is waited for.
    fn is_met(&self, value: Option<&Value>, after_id: StreamId) -> bool {
        let has_entries = |stream: &Stream, id: StreamId| {
            id.next()
                .is_some_and(|from| stream.range(from, StreamId::MAX).next().is_some())
        };
        match (self, value) {
            (Wants::List, Some(Value::List(_))) | (Wants::SortedSet, Some(Value::ZSet(_))) => true,
            (Wants::Entries, Some(Value::Stream(stream))) => has_entries(stream, after_id),
            (Wants::Group(name), Some(Value::Stream(stream))) => stream
                .groups
                .get(name.as_slice())
                .is_none_or(|group| has_entries(stream, group.last_id)),
            (Wants::Group(_), _) => true,
            _ => false,
        }
    }
}

/// How a wait ended.
#[derive(Debug)]
pub enum End {
    /// With this reply.
    Served(Vec<u8>),
    /// As if the time were over.
    TimedOut,
    /// With this error; the connection may have to end with it.
    Error(CommandError, AfterError),
    /// It has not: the key is ready, and is to be had by a transaction of its own.
    Retry,
}

/// What becomes of a connection whose wait ended with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterError {
    /// It goes on.
    Stays,
    /// It ends.
    Closes,
}

enum State {
    /// Whoever takes the answer ends the wait.
    Waiting(Answer<End>),
    /// A transaction of its own is on its way.
    Underway,
    Over,
}

/// A blocked client, as shards see it.
pub struct Waiter {
    command: &'static Command,
    db: DbIndex,
    wait: Box<Wait>,
    actor: Actor,
    caller: Caller,
    protocol: Protocol,
    state: Mutex<State>,
}

impl Waiter {
    fn state<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the answer, and leaves this state: `None` if somebody else has.
    fn take_answer(&self, leave: State) -> Option<Answer<End>> {
        self.state(|state| match state {
            State::Waiting(_) => match std::mem::replace(state, leave) {
                State::Waiting(answer) => Some(answer),
                _ => None,
            },
            _ => None,
        })
    }

    /// Ends the wait from outside; false if it is over already.
    pub fn end(&self, end: End) -> bool {
        match self.take_answer(State::Over) {
            Some(answer) => {
                answer.give_now(end);
                true
            }
            None => false,
        }
    }

    /// The command that takes what is wanted from one key.
    fn call(&self, key: &WaitKey) -> Call {
        let own = match self.wait.wants {
            Wants::Entries => Some(key.after_id.to_string().into_bytes()),
            Wants::Group(_) => Some(b">".to_vec()),
            Wants::List | Wants::SortedSet => None,
        };
        let key: &[u8] = &key.key;
        let words = (self.wait.before.iter().map(Vec::as_slice))
            .chain(std::iter::once(key))
            .chain(own.as_deref())
            .chain(self.wait.after.iter().map(Vec::as_slice));
        Call {
            command: self.command,
            db: self.db,
            words: Words::new(words),
        }
    }

    /// A key that comes with its time past goes at once, as if the command had met it.
    fn expire(&self, shard: &mut Shard, key: &Blob) {
        let (db, now_ms) = (self.db, shard.now_ms);
        let is_expired = shard
            .keyspace
            .as_ref()
            .and_then(|keyspace| keyspace.get(db, Key::new(key)))
            .is_some_and(|entry| entry.is_expired(now_ms));
        if is_expired && self.actor == Actor::Client && shard.admits_write(db, Key::new(key)) {
            remove_expired(shard, db, key);
        }
    }

    /// Whether the run that holds `key` may run the command there: its other key, if there is one, must be here and free.
    fn is_reachable(&self, shard: &Shard, call: &Call, key: &Blob) -> bool {
        call.keys().iter().all(|(db, other)| {
            let known = Key::new(other);
            other == key
                || (shard_of(known.hash, shard.links.shards()) == shard.index
                    && shard.is_key_free(*db, known, Mode::Exclusive)
                    && shard.admits_write(*db, known))
        })
    }
}

impl waits::Waiter for Waiter {
    fn serve(&self, shard: &mut Shard, db: DbIndex, key: &Blob) -> Verdict {
        match self.state(|state| match state {
            State::Waiting(_) => None,
            State::Underway => Some(Verdict::Underway),
            State::Over => Some(Verdict::Gone),
        }) {
            None => {}
            Some(verdict) => return verdict,
        }
        let Some(wait_key) = self.wait.keys.iter().find(|other| other.key == *key) else {
            return Verdict::Gone;
        };
        let now_ms = shard.now_ms;
        self.expire(shard, key);
        let value = shard
            .keyspace
            .as_ref()
            .and_then(|keyspace| keyspace.get(db, Key::new(key)))
            .filter(|entry| self.actor == Actor::Link || !entry.is_expired(now_ms))
            .map(|entry| entry.value());
        if !self.wait.wants.is_met(value, wait_key.after_id) {
            return Verdict::NotReady;
        }
        let call = self.call(wait_key);
        if !self.is_reachable(shard, &call, key) {
            return match self.take_answer(State::Underway) {
                Some(answer) => {
                    answer.give(shard, End::Retry);
                    Verdict::Underway
                }
                None => Verdict::Gone,
            };
        }
        let Some(answer) = self.take_answer(State::Over) else {
            return Verdict::Gone;
        };
        let mut reply = Reply::new(self.protocol);
        shard.caller = self.caller.clone();
        run_on_shard(shard, self.actor, |runner, commit| {
            call.words
                .with(|args| runner.run(call.command, call.db, args, &mut reply, commit));
        });
        answer.give(shard, End::Served(reply.take()));
        Verdict::Served
    }
}

/// What came of the first run of a blocking command.
pub enum Attempted {
    /// It need not wait.
    Replied(Vec<u8>),
    /// It waits.
    Waits(Blocked),
}

/// The connection's end of a wait. Dropping it ends the wait.
pub struct Blocked {
    /// The other end.
    pub waiter: Arc<Waiter>,
    /// Where the end arrives.
    pub end: oneshot::Receiver<End>,
    /// Milliseconds; 0: for ever.
    pub timeout_ms: u64,
    coordinator: Coordinator,
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let before = self
            .waiter
            .state(|state| std::mem::replace(state, State::Over));
        // It was at the head of a queue and about to take something: now those behind it may.
        let was_underway = matches!(before, State::Underway);
        let shards = self.coordinator.shards();
        let (db, kind) = (self.waiter.db, self.waiter.wait.wants.kind());
        for shard in 0..shards {
            let is_theirs = move |key: &WaitKey| shard_of(Key::new(&key.key).hash, shards) == shard;
            if !self.waiter.wait.keys.iter().any(is_theirs) {
                continue;
            }
            let waiter = self.waiter.clone();
            self.coordinator.here().tell(shard, move |shard| {
                let known: Arc<dyn waits::Waiter> = waiter.clone();
                for key in waiter.wait.keys.iter().filter(|key| is_theirs(key)) {
                    shard.waits.remove(db, &key.key, kind, &known);
                    if was_underway {
                        offer_again(shard, db, key.key.clone());
                    }
                }
            });
        }
    }
}

impl Blocked {
    /// Ends the wait because its time is over or its client has gone; false if it has ended already.
    pub fn cancel(&mut self) -> bool {
        self.waiter.take_answer(State::Over).is_some()
    }

    /// Tries to take what is wanted in a transaction of its own, after [`End::Retry`]. The reply, or nothing if
    /// somebody else was faster: then the wait goes on.
    pub async fn retry(&mut self) -> Option<Vec<u8>> {
        let (answer, end) = question();
        let waiter = self.waiter.clone();
        let call = waiter.call(&waiter.wait.keys[0]);
        let reply = run(&self.coordinator, call, move |shard, call| {
            waiter.run_again(shard, call, answer)
        })
        .await;
        self.end = end;
        reply
    }
}

impl Waiter {
    fn run_again(
        &self,
        shard: &mut Shard,
        call: &Call,
        answer: Answer<End>,
    ) -> GatherEnd<Option<Vec<u8>>> {
        shard.caller = self.caller.clone();
        let (reply, touched, wait) = run_first(shard, call, self.actor, self.protocol);
        let is_over = wait.is_none();
        self.state(|state| {
            *state = if is_over {
                State::Over
            } else {
                State::Waiting(answer)
            }
        });
        // Those behind it were kept waiting.
        let keys: Vec<_> = self
            .wait
            .keys
            .iter()
            .map(|key| (self.db, key.key.clone()))
            .collect();
        shard.waits.mark(&keys);
        GatherEnd {
            result: is_over.then_some(reply),
            touched,
            at_home: None,
        }
    }
}

/// Runs a blocking command; if it found nothing, a waiter stands in the queues of its keys when this returns.
pub async fn attempt(
    coordinator: Coordinator,
    call: Call,
    actor: Actor,
    caller: Caller,
    protocol: Protocol,
) -> Attempted {
    let (answer, end) = question();
    let attempted = run(&coordinator, call, move |shard, call| {
        shard.caller = caller.clone();
        let (reply, touched, wait) = run_first(shard, call, actor, protocol);
        // When the wait ends it is logged as the client gave it.
        let caller = Caller {
            is_inner: true,
            ..caller
        };
        let waiter = wait.map(|wait| {
            Arc::new(Waiter {
                command: call.command,
                db: call.db,
                wait,
                actor,
                caller,
                protocol,
                state: Mutex::new(State::Waiting(answer)),
            })
        });
        let at_home = waiter.clone().map(|waiter| -> AtHome {
            Arc::new(move |shard: &mut Shard| stand_in_line(shard, &waiter))
        });
        GatherEnd {
            result: waiter.ok_or(reply),
            touched,
            at_home,
        }
    })
    .await;
    match attempted {
        Err(reply) => Attempted::Replied(reply),
        Ok(waiter) => Attempted::Waits(Blocked {
            timeout_ms: waiter.wait.timeout_ms,
            waiter,
            end,
            coordinator,
        }),
    }
}

/// Runs a job with all keys of a call, on the shard of its first key.
async fn run<R: Send + 'static>(
    coordinator: &Coordinator,
    call: Call,
    job: impl FnOnce(&mut Shard, &Call) -> GatherEnd<R> + Send + 'static,
) -> R {
    let keys = call.keys();
    let mut places = coordinator.by_shard(keys.iter().map(|(db, key)| (*db, key.as_slice())));
    if places.len() > 1 {
        return coordinator
            .gathered(
                places,
                Box::new(move |shard, finish| {
                    let end = job(shard, &call);
                    finish(shard, end);
                }),
            )
            .await;
    }
    let (shard, keys) = places.pop().unwrap_or_default();
    let mode = mode(call.command);
    coordinator
        .single(shard, keys, mode, move |shard| {
            let end = job(shard, &call);
            shard.announce(&end.touched);
            if let Some(at_home) = end.at_home {
                at_home(shard);
            }
            end.result
        })
        .await
}

/// Runs a call on a shard that has all its keys: its reply, what it touched, and what it waits for.
fn run_first(
    shard: &mut Shard,
    call: &Call,
    actor: Actor,
    protocol: Protocol,
) -> (Vec<u8>, Touched, Option<Box<Wait>>) {
    let mut commit = Commit::default();
    let mut reply = Reply::new(protocol);
    shard.mark = std::time::Instant::now();
    run_uncommitted(shard, actor, &mut commit, |runner, commit| {
        // Watchers may sit on the shards that lent.
        runner.is_watched = true;
        runner.may_wait = true;
        call.words
            .with(|args| runner.run(call.command, call.db, args, &mut reply, commit));
    });
    let touched = std::mem::take(&mut commit.touched);
    let wait = commit.wait.take();
    commit_on_shard(shard, commit);
    (reply.take(), touched, wait)
}

/// Offers a key to those who wait for it, as soon as nobody has it.
fn offer_again(shard: &mut Shard, db: DbIndex, key: Blob) {
    let name = fingerprint(db, Key::new(&key).hash);
    let footprint = Footprint::Keys(smallvec![(name, Mode::Exclusive)]);
    shard.enqueue(
        footprint,
        smallvec![(db, key.clone())],
        Box::new(move |shard| {
            shard.waits.mark(&[(db, key)]);
            shard.announce(&[]);
            After::Release
        }),
    );
}

/// Puts a waiter in the queues of its keys on this shard.
fn stand_in_line(shard: &mut Shard, waiter: &Arc<Waiter>) {
    let kind = waiter.wait.wants.kind();
    let shards = shard.links.shards();
    for key in &waiter.wait.keys {
        if shard_of(Key::new(&key.key).hash, shards) == shard.index {
            shard.waits.add(waiter.db, &key.key, kind, waiter.clone());
        }
    }
}

/// The timeout of a blocking command: seconds, with a fraction, rounded up to milliseconds.
pub fn timeout_ms(word: &[u8]) -> Result<u64, CommandError> {
    let seconds = dfsnap_formats::double::parse(word)
        .filter(|seconds| !seconds.is_nan())
        .ok_or(CommandError::text(
            "ERR timeout is not a float or out of range",
        ))?;
    let ms = (seconds * 1000.0).ceil();
    if ms < 0.0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    // What does not fit behind the present moment in 63 bits of milliseconds.
    if ms >= 9.2e18 {
        return Err(CommandError::text("ERR timeout is out of range"));
    }
    Ok(ms as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_rounded_up() {
        let rows: [(&str, Result<u64, &str>); 9] = [
            ("0", Ok(0)),
            ("1", Ok(1000)),
            ("0.0001", Ok(1)),
            ("1.5", Ok(1500)),
            ("1e1", Ok(10_000)),
            ("-1", Err("ERR timeout is negative")),
            ("x", Err("ERR timeout is not a float or out of range")),
            ("1e19", Err("ERR timeout is out of range")),
            ("inf", Err("ERR timeout is out of range")),
        ];
        for (word, want) in rows {
            let got = timeout_ms(word.as_bytes()).map_err(|error| error.0.into_owned());
            assert_eq!(got, want.map_err(str::to_owned), "{word}");
        }
    }
}
