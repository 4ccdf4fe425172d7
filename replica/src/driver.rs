//! The one file with a socket and a clock: connects, reads, writes, ticks, tries again.
//!
//! Runs on the thread that polls it and needs no `Send`. A receiver that takes its time is waited for; the
//! primary meanwhile gets its ACKs or newlines and the socket is left alone.
//!
//! Invariants
//! - A call of [`Apply`] that was begun is finished: neither a broken socket nor `stop` cancels it.
//! - A lost link is tried again at once, then every second, with the position when it still holds.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dfsnap_tls::Connector;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};

use crate::apply::{Apply, ApplyError};
use crate::handshake::LinkConfig;
use crate::link::{Disconnect, Event, Link, Phase, Step};
use crate::position::Position;

mod resolve;
mod wire;

pub use resolve::resolve;
pub use wire::TcpWire;
use wire::Wire;

/// How links are encrypted; `None`: not at all. Whoever holds it too may change it: the next link is as it says then.
pub type LinkTls = Arc<RwLock<Option<Connector>>>;

/// Follows one primary.
#[derive(Debug)]
pub struct Follower {
    /// A name or an address.
    pub host: String,
    pub port: u16,
    pub config: LinkConfig,
    pub tls: LinkTls,
    /// The address that links come from, where the primary can be reached from it; `None`: any.
    pub source: Option<IpAddr>,
    /// What the next link goes on from; `None` means a full resync.
    pub position: Option<Position>,
    /// Attempts in a row that may fail before [`Follower::follow`] gives up; `None`: never.
    pub attempts_max: Option<u32>,
}

/// Why following ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `stop` was ready.
    Stopped,
    /// Only the RDB was wanted.
    PayloadComplete,
}

/// Why following ended badly.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("{host}:{port}: gave up after {attempts} attempts: {last}")]
    GaveUp {
        host: String,
        port: u16,
        attempts: u32,
        last: Disconnect,
    },
    #[error("cannot apply what the primary sent: {0}")]
    Apply(#[source] io::Error),
}

/// How one link ended.
enum Outcome {
    End(End),
    Lost(Disconnect),
    /// The receiver gave up before it applied what follows `position`.
    Failed {
        error: io::Error,
        position: Option<Position>,
    },
}

const SECOND: Duration = Duration::from_secs(1);
/// After so long without a byte what was received is acknowledged.
const QUIET: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 64 * 1024;
/// A bulk that announces more gets room in steps of this.
const READ_BYTES_MAX: usize = 1 << 20;

impl Follower {
    pub fn new(host: impl Into<String>, port: u16, config: LinkConfig) -> Follower {
        Follower {
            host: host.into(),
            port,
            config,
            tls: LinkTls::default(),
            source: None,
            position: None,
            attempts_max: None,
        }
    }

    /// Follows until `stop` is ready, the payload is complete (`rdb_only`), or nothing helps.
    pub async fn follow(
        &mut self,
        apply: &mut impl Apply,
        stop: impl Future<Output = ()>,
    ) -> Result<End, FollowError> {
        let mut stop = pin!(stop);
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let (outcome, was_up) = self.one_link(apply, stop.as_mut()).await;
            let why = match outcome {
                Outcome::End(end) => return Ok(end),
                Outcome::Failed { error, position } => {
                    self.position = position;
                    return Err(FollowError::Apply(error));
                }
                Outcome::Lost(why) => why,
            };
            if !why.keeps_position() && !apply.keeps_data() {
                self.position = None;
            }
            apply.disconnected(&why);
            failures = if was_up { 0 } else { failures + 1 };
            if self.attempts_max.is_some_and(|max| failures >= max) {
                let host = self.host.clone();
                return Err(FollowError::GaveUp {
                    host,
                    port: self.port,
                    attempts: failures,
                    last: why,
                });
            }
            // At once after a link that worked; a primary that sends the same useless byte again must not be asked
            // a thousand times a second.
            if !was_up || began.elapsed() < SECOND || !why.is_passing() {
                tokio::select! {
                    () = stop.as_mut() => return Ok(End::Stopped),
                    () = sleep(SECOND) => {}
                }
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let addresses = resolve(&self.host, self.port).await?;
        if let Some(source) = self.source {
            let reachable = |address: &SocketAddr| address.is_ipv4() == source.is_ipv4();
            for address in addresses.iter().copied().filter(reachable) {
                let socket = match address {
                    SocketAddr::V4(_) => TcpSocket::new_v4()?,
                    SocketAddr::V6(_) => TcpSocket::new_v6()?,
                };
                if socket.bind(SocketAddr::new(source, 0)).is_ok() {
                    return socket.connect(address).await;
                }
            }
        }
        TcpStream::connect(&*addresses).await
    }

    /// One connection from its beginning to its end; true when it reached the stream.
    async fn one_link(
        &mut self,
        apply: &mut impl Apply,
        mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> (Outcome, bool) {
        let connected = tokio::select! {
            () = stop.as_mut() => return (Outcome::End(End::Stopped), false),
            connected = timeout(CONNECT_TIMEOUT, self.connect()) => connected,
        };
        let socket = match connected {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return (Outcome::Lost(lost(&error)), false),
            Err(_) => {
                let limit_ms = CONNECT_TIMEOUT.as_millis() as u64;
                let why = Disconnect::Timeout {
                    awaited: "connect",
                    silent_ms: limit_ms,
                    limit_ms,
                };
                return (Outcome::Lost(why), false);
            }
        };
        let _ = socket.set_nodelay(true); // late ACKs are the only loss
        let connector = self
            .tls
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let wire = match Wire::new(socket, connector.as_ref(), &self.host) {
            Ok(wire) => wire,
            Err(error) => return (Outcome::Lost(lost(&error)), false),
        };
        apply.configure(&mut self.config);
        let mut connection = Connection::new(wire, self.config.clone(), self.position);
        let outcome = connection.run(apply, stop).await;
        // How far it came.
        apply.observe(&connection.link.status());
        self.position = match connection.link.position() {
            // It ended amid a payload, and what was there before still is.
            None if apply.keeps_data() => self.position,
            position => position,
        };
        // Who has taken over is not asked again.
        self.config.failover &= connection.link.phase() == Phase::Handshake;
        (outcome, connection.seen.was_up)
    }
}

/// A link with its socket, its read buffer and its clock.
struct Connection {
    wire: Wire,
    link: Link,
    input: Vec<u8>,
    /// Bytes of `input` that are done with.
    consumed: usize,
    began: Instant,
    ticker: Interval,
    seen: Seen,
    /// The socket failed while a receiver worked; told when the work is done.
    broken: Option<Disconnect>,
}

/// What the receiver was told about the link.
struct Seen {
    phase: Phase,
    was_up: bool,
}

impl Seen {
    fn observe(&mut self, link: &Link, apply: &mut impl Apply) {
        if link.phase() != self.phase {
            self.phase = link.phase();
            self.was_up |= self.phase == Phase::Stream;
            apply.observe(&link.status());
        }
    }
}

impl Connection {
    fn new(wire: Wire, config: LinkConfig, position: Option<Position>) -> Connection {
        let began = Instant::now();
        let mut ticker = interval_at(began + SECOND, SECOND);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Connection {
            wire,
            link: Link::begin(config, position, 0),
            input: Vec::new(),
            consumed: 0,
            began,
            ticker,
            seen: Seen {
                phase: Phase::Handshake,
                was_up: false,
            },
            broken: None,
        }
    }

    async fn run(
        &mut self,
        apply: &mut impl Apply,
        mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> Outcome {
        apply.observe(&self.link.status());
        loop {
            loop {
                match self.event(apply).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(outcome) => return outcome,
                }
            }
            if let Err(outcome) = self.gathered(apply).await {
                return outcome;
            }
            if self.seen.phase == Phase::Finished {
                return Outcome::End(End::PayloadComplete);
            }
            self.report_applied(apply);
            if let Err(why) = self.write() {
                return Outcome::Lost(why);
            }
            self.make_room();
            let waited = tokio::select! {
                biased;
                () = stop.as_mut() => return Outcome::End(End::Stopped),
                () = apply.progress(), if self.link.is_asked_for_ack() => Ok(()),
                () = sleep(QUIET), if self.link.owes_ack() => {
                    self.report_applied(apply);
                    self.link.quiet();
                    Ok(())
                }
                _ = self.ticker.tick() => {
                    apply.observe(&self.link.status());
                    self.link.tick(now_ms(self.began))
                }
                ready = self.wire.readable() => ready.map_err(|error| lost(&error)).and_then(|()| self.read()),
                ready = self.wire.writable(), if self.wire.wants_write() || !self.link.output().is_empty() => ready.map_err(|error| lost(&error)),
            };
            if let Err(why) = waited {
                return Outcome::Lost(why);
            }
        }
    }

    /// Takes the next event and has it applied; false when there is none.
    async fn event(&mut self, apply: &mut impl Apply) -> Result<bool, Outcome> {
        let before = self.link.position();
        let Step { consumed, event } = self
            .link
            .poll(&self.input[self.consumed..])
            .map_err(Outcome::Lost)?;
        self.consumed += consumed;
        let Some(event) = event else { return Ok(false) };
        self.seen.observe(&self.link, apply);
        let mut beat = Beat {
            link: &mut self.link,
            wire: &mut self.wire,
            ticker: &mut self.ticker,
            began: self.began,
            broken: &mut self.broken,
        };
        let applied = match event {
            Event::PayloadStart(start) => beat.during(apply.begin_payload(start)).await,
            Event::PayloadBytes(bytes) => beat.during(apply.payload(bytes)).await,
            Event::PayloadEnd => beat
                .during(apply.end_payload())
                .await
                .map(|db| self.link.loaded(db)),
            Event::Continue {
                replid,
                renamed_from,
            } => {
                apply.continued(replid, renamed_from);
                Ok(())
            }
            Event::Transaction(unit) => {
                let end_offset = unit.end_offset;
                let applied = match apply.gather(&unit) {
                    Ok(true) => Ok(()),
                    Ok(false) => beat.during(apply.transaction(unit)).await,
                    Err(error) => Err(error),
                };
                applied.map(|()| self.link.applied(apply.applied_offset(end_offset)))
            }
        };
        applied.map_err(|error| failed(error, before))?;
        self.seen.observe(&self.link, apply);
        match self.broken.take() {
            Some(why) => Err(Outcome::Lost(why)),
            None => Ok(true),
        }
    }

    /// Nothing is left to hand over: what was gathered goes on its way.
    async fn gathered(&mut self, apply: &mut impl Apply) -> Result<(), Outcome> {
        let position = self.link.position();
        let mut beat = Beat {
            link: &mut self.link,
            wire: &mut self.wire,
            ticker: &mut self.ticker,
            began: self.began,
            broken: &mut self.broken,
        };
        let gathered = beat.during(apply.gathered()).await;
        gathered.map_err(|error| failed(error, position))?;
        self.broken
            .take()
            .map_or(Ok(()), |why| Err(Outcome::Lost(why)))
    }

    /// Receivers that apply later are asked again before every wait.
    fn report_applied(&mut self, apply: &mut impl Apply) {
        if let Some(position) = self
            .link
            .position()
            .filter(|_| self.seen.phase == Phase::Stream)
        {
            self.link.applied(apply.applied_offset(position.offset));
        }
    }

    fn write(&mut self) -> Result<(), Disconnect> {
        write_some(&mut self.wire, self.link.output())
    }

    fn make_room(&mut self) {
        if self.consumed > 0 {
            self.input.drain(..self.consumed);
            self.consumed = 0;
        }
        if self.input.is_empty() && self.input.capacity() > 4 * READ_BYTES_MAX {
            self.input = Vec::new();
        }
        let wanted = self
            .link
            .pending_bulk()
            .unwrap_or(0)
            .clamp(READ_BYTES, READ_BYTES_MAX);
        self.input.reserve(wanted);
    }

    fn read(&mut self) -> Result<(), Disconnect> {
        match self.wire.try_read(&mut self.input) {
            Ok(0) => Err(Disconnect::Connection("closed by the primary".into())),
            Ok(_) => {
                self.link.received(now_ms(self.began));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(lost(&error)),
        }
    }
}

/// What keeps a link alive while a receiver works.
struct Beat<'c> {
    link: &'c mut Link,
    wire: &'c mut Wire,
    ticker: &'c mut Interval,
    began: Instant,
    broken: &'c mut Option<Disconnect>,
}

impl Beat<'_> {
    async fn during<T>(
        &mut self,
        work: impl Future<Output = Result<T, ApplyError>>,
    ) -> Result<T, ApplyError> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = work.as_mut() => return done,
                _ = self.ticker.tick(), if self.broken.is_none() => {
                    // A peer that reads nothing gets no second heartbeat on top of the first.
                    if self.link.output().is_empty() {
                        self.link.tick_busy(now_ms(self.began));
                    }
                    *self.broken = write_some(self.wire, self.link.output()).err();
                }
            }
        }
    }
}

/// Writes what the socket takes now.
fn write_some(wire: &mut Wire, out: &mut Vec<u8>) -> Result<(), Disconnect> {
    let later = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock => Ok(0),
        _ => Err(lost(&error)),
    };
    while !out.is_empty() {
        match wire.try_write(out).or_else(later)? {
            0 => break,
            written => drop(out.drain(..written)),
        }
    }
    wire.try_flush().or_else(|error| later(error).map(|_| ()))
}

/// `position`: before what could not be applied.
fn failed(error: ApplyError, position: Option<Position>) -> Outcome {
    match error {
        ApplyError::Resync(reason) => Outcome::Lost(Disconnect::NotApplied(reason)),
        ApplyError::Stop(error) => Outcome::Failed { error, position },
    }
}

fn lost(error: &io::Error) -> Disconnect {
    Disconnect::Connection(error.to_string())
}

fn now_ms(began: Instant) -> u64 {
    began.elapsed().as_millis() as u64
}
