//! A replication link that is driven by whoever reads from it: one socket, one clock, no thread.
//!
//! `dfsnap_replica::Link` knows the protocol. Here bytes are moved between it and the socket, whenever the reader wants
//! the next event; while nobody reads, nothing is read from the primary either.
//!
//! Invariants
//! - An event is given once and is done with when its taker returns.
//! - The primary gets a sign of life every second as long as `step` or `beat` is called that often.

use super::client::{interrupted, unreachable_server};
use super::socket::{Socket, is_timeout};
use super::stop;
use super::url::Url;
use crate::report::Failure;
use dfsnap_replica::{Auth, Disconnect, Event, Link, LinkConfig, Phase, Position};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

pub struct Feed {
    link: Link,
    socket: Socket,
    input: Vec<u8>,
    /// Bytes of `input` that arrived, and how many of them are done with.
    filled: usize,
    consumed: usize,
    began: Instant,
    ticked_at_ms: u64,
}

/// Why no more events come.
#[derive(Debug)]
pub enum FeedError {
    Lost(Disconnect),
    /// A signal came.
    Stopped,
    /// The taker of an event could not go on.
    Failed(Failure),
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Event,
    /// Nothing for a fifth of a second.
    Quiet,
}

const READ_BYTES: usize = 256 << 10;
const TICK: Duration = Duration::from_millis(200);
const TICK_MS: u64 = 1000;

impl Feed {
    /// Connects. The handshake follows with the first steps.
    pub fn connect(
        url: &Url,
        config: LinkConfig,
        position: Option<Position>,
    ) -> Result<Feed, FeedError> {
        let auth = url.password.as_ref().map(|password| Auth {
            user: url.user.clone(),
            password: password.clone(),
        });
        let write_limit = Duration::from_millis(config.timeout_ms);
        let socket = Socket::connect(url).map_err(lost)?;
        socket.set_timeouts(TICK, write_limit).map_err(lost)?;
        Ok(Feed {
            link: Link::begin(LinkConfig { auth, ..config }, position, 0),
            socket,
            input: Vec::new(),
            filled: 0,
            consumed: 0,
            began: Instant::now(),
            ticked_at_ms: 0,
        })
    }

    /// Gives the next event to `take`, or moves bytes until there is one; returns after a fifth of a second of silence.
    pub fn step(
        &mut self,
        take: &mut dyn FnMut(Event<'_>) -> Result<(), Failure>,
    ) -> Result<Step, FeedError> {
        loop {
            if self.ready(take)? {
                return Ok(Step::Event);
            }
            if stop::requested() {
                return Err(FeedError::Stopped);
            }
            if !self.exchange()? {
                return Ok(Step::Quiet);
            }
        }
    }

    /// As `step`, of what has arrived already; false: no whole event has.
    pub fn ready(
        &mut self,
        take: &mut dyn FnMut(Event<'_>) -> Result<(), Failure>,
    ) -> Result<bool, FeedError> {
        let input = &self.input[self.consumed..self.filled];
        let found = self.link.poll(input).map_err(FeedError::Lost)?;
        let is_event = found.event.is_some();
        if let Some(event) = found.event {
            take(event).map_err(FeedError::Failed)?;
        }
        self.consumed += found.consumed;
        Ok(is_event)
    }

    /// The caller is busy with something that takes long: the primary learns that we are still there.
    pub fn beat(&mut self) -> Result<(), FeedError> {
        let now_ms = self.now_ms();
        if now_ms - self.ticked_at_ms >= TICK_MS {
            self.ticked_at_ms = now_ms;
            self.link.tick_busy(now_ms);
            self.write()?;
        }
        Ok(())
    }

    /// The payload is dealt with; the stream begins in this database.
    pub fn loaded(&mut self, db: u32) {
        self.link.loaded(db);
    }

    /// Everything up to this offset was applied.
    pub fn applied(&mut self, offset: u64) {
        self.link.applied(offset);
    }

    pub fn position(&self) -> Option<Position> {
        self.link.position()
    }

    pub fn phase(&self) -> Phase {
        self.link.phase()
    }

    /// Writes what is to be written and reads what is there; false: nothing came.
    fn exchange(&mut self) -> Result<bool, FeedError> {
        let now_ms = self.now_ms();
        if now_ms - self.ticked_at_ms >= TICK_MS {
            self.ticked_at_ms = now_ms;
            self.link.tick(now_ms).map_err(FeedError::Lost)?;
        }
        self.write()?;
        if !self.link.wants_input() {
            return Ok(false);
        }
        self.make_room();
        match self.socket.read(&mut self.input[self.filled..]) {
            Ok(0) => {
                let why = "closed by the primary".to_owned();
                Err(FeedError::Lost(Disconnect::Connection(why)))
            }
            Ok(n) => {
                self.filled += n;
                let now_ms = self.now_ms();
                self.link.received(now_ms);
                Ok(true)
            }
            Err(error) if is_timeout(&error) => Ok(false),
            Err(error) => Err(lost(error)),
        }
    }

    fn write(&mut self) -> Result<(), FeedError> {
        let out = self.link.output();
        self.socket.write_all(out).map_err(lost)?;
        out.clear();
        self.socket.flush().map_err(lost)
    }

    fn make_room(&mut self) {
        if self.consumed > 0 {
            self.input.copy_within(self.consumed..self.filled, 0);
            self.filled -= self.consumed;
            self.consumed = 0;
        }
        if self.filled == self.input.len() {
            // By the bytes that came, not by what the primary announces.
            let len = (self.filled * 2).max(READ_BYTES);
            self.input.resize(len, 0);
        } else if self.filled == 0 && self.input.len() > 16 * READ_BYTES {
            self.input = vec![0; READ_BYTES];
        }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

impl FeedError {
    /// For a caller that does not try again.
    pub fn into_failure(self, name: &str) -> Failure {
        match self {
            FeedError::Lost(why) => failure_of(name, &why),
            FeedError::Stopped => interrupted(name),
            FeedError::Failed(failure) => failure,
        }
    }
}

/// What to do about a link that ended.
pub fn failure_of(name: &str, why: &Disconnect) -> Failure {
    let advice = match why {
        Disconnect::NotReady { reply } if reply.contains("LOADING") => {
            "wait until the server has loaded its data"
        }
        Disconnect::NotReady { .. } => {
            "the server is a replica without its primary; ask the primary"
        }
        Disconnect::Refused { reply, .. } if reply.contains("NOPERM") => {
            "a user with +psync +replconf +ping (ACL SETUSER); or --scan, which needs only reading"
        }
        Disconnect::Refused { .. } => {
            "put the password into DFSNAP_PASSWORD or into a file for --password-file"
        }
        Disconnect::SyncFailed { .. } => {
            "the server's log says why; where replication is not offered, backup --scan reads key by key"
        }
        Disconnect::FailoverRefused { .. } => "ask it as an ordinary replica",
        Disconnect::BadReply { .. } => "is this a server of the Redis family, and its plain port?",
        Disconnect::Timeout { .. } => "the server's log; it may be busy with another snapshot",
        Disconnect::Corrupt { .. }
        | Disconnect::NotApplied(_)
        | Disconnect::DatabaseOutOfRange { .. } => "start over with a full copy",
        Disconnect::Connection(reason) => return unreachable_server(name, reason),
    };
    Failure {
        message: format!("{name}: {why}"),
        advice: advice.to_owned(),
    }
}

fn lost(error: std::io::Error) -> FeedError {
    FeedError::Lost(Disconnect::Connection(error.to_string()))
}
