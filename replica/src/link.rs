//! A replica's link to its primary as a value: bytes in, bytes and events out.
//!
//! The caller owns the connection, the read buffer and the clock. It tells the link what arrived
//! ([`Link::received`]), asks for events until there are none ([`Link::poll`]), writes what [`Link::output`]
//! holds, calls [`Link::tick`] every second, and reports what it did: [`Link::loaded`], [`Link::applied`].
//!
//! Invariants
//! - Bytes are consumed as the caller takes events: who stops polling stops reading, and so the primary.
//! - [`Link::position`] is where a new link may go on: never inside a unit, never inside a payload.
//! - An ACK carries what was reported as applied; the one answering GETACK, the offset before the GETACK.

use dfsnap_formats::resp::encode_command;

use crate::handshake::{Handshake, LinkConfig, Next, text};
use crate::payload::{Form, Part, Payload};
use crate::position::{Position, ReplId};
use crate::stream::{Stream, Transaction};

/// One connection to a primary, from PING to its end.
///
/// ```
/// use dfsnap_replica::{Event, Link, LinkConfig};
/// let mut link = Link::begin(LinkConfig::default(), None, 0);
/// assert_eq!(link.output(), b"*1\r\n$4\r\nPING\r\n");
/// link.output().clear();
/// let step = link.poll(b"+PONG\r\n").unwrap();
/// assert_eq!((step.consumed, step.event), (7, None));
/// assert!(link.output().starts_with(b"*3\r\n$8\r\nREPLCONF\r\n"));
/// ```
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    state: State,
    out: Vec<u8>,
    /// When bytes last arrived, on the caller's clock.
    heard_at_ms: u64,
    payload_bytes_read: u64,
}

/// States are named for what they await.
#[derive(Debug)]
enum State {
    Handshake {
        handshake: Handshake,
        position: Option<Position>,
    },
    AwaitHeader {
        origin: Option<Origin>,
        /// Where the last link was: nothing is replaced yet.
        position: Option<Position>,
    },
    AwaitPayload {
        origin: Option<Origin>,
        form: Form,
        payload: Payload,
    },
    AwaitLoaded {
        origin: Option<Origin>,
        form: Form,
    },
    AwaitCommand {
        replid: Option<ReplId>,
        stream: Box<Stream>,
        acks: Acks,
    },
    Finished,
}

/// The history a payload belongs to and the offset at its cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    replid: ReplId,
    offset: u64,
}

#[derive(Debug, Default)]
struct Acks {
    /// What the caller applied: at most what was handed over.
    applied_offset: u64,
    /// What was said last.
    acked_offset: u64,
    /// A GETACK waits until this much is applied.
    due_at: Option<u64>,
}

/// What a full resync begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadStart {
    pub form: Form,
    /// The history and the offset at the cut; `None` from a primary that only knows SYNC.
    pub origin: Option<(ReplId, u64)>,
}

/// What the caller acts on.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// The data held so far will be replaced; the old position is gone.
    PayloadStart(PayloadStart),
    /// The next bytes of the RDB.
    PayloadBytes(&'b [u8]),
    /// The RDB is complete. The stream begins once the caller reports [`Link::loaded`].
    PayloadEnd,
    /// The stream goes on from the position asked for. The caller reports what is applied ([`Link::applied`]); until then nothing is
    /// acknowledged.
    Continue {
        /// The name of the history from here on.
        replid: ReplId,
        /// The name it had: replicas of ours must learn the new one.
        renamed_from: Option<ReplId>,
    },
    Transaction(Transaction<'b>),
}

/// What one poll found.
#[derive(Debug, PartialEq, Eq)]
pub struct Step<'b> {
    /// Bytes of the input that are done with once the event was handled.
    pub consumed: usize,
    /// `None`: more input is needed, or the caller's report.
    pub event: Option<Event<'b>>,
}

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disconnect {
    #[error("the primary is not ready: {reply}")]
    NotReady { reply: String },
    #[error("{step}: refused: {reply}")]
    Refused { step: &'static str, reply: String },
    /// Who was asked to take over does not.
    #[error("the primary does not take over: {reply}")]
    FailoverRefused { reply: String },
    #[error("full resync failed at the primary: {reply}")]
    SyncFailed { reply: String },
    #[error("{step}: unexpected {found:?}")]
    BadReply { step: &'static str, found: String },
    #[error("{awaited}: nothing came for {silent_ms} ms, the limit is {limit_ms} ms")]
    Timeout {
        awaited: &'static str,
        silent_ms: u64,
        limit_ms: u64,
    },
    #[error("replication stream, offset {offset}: {reason}")]
    Corrupt { offset: u64, reason: String },
    #[error(
        "the primary uses database {db}, but there are only {databases} here; raise `databases`"
    )]
    DatabaseOutOfRange { db: u32, databases: u32 },
    /// The caller's socket failed or closed.
    #[error("connection to the primary: {0}")]
    Connection(String),
    /// The caller could not use the payload or a command; only a full resync helps.
    #[error("cannot apply: {0}")]
    NotApplied(String),
}

impl Disconnect {
    /// May the next link ask to go on from the position of this one?
    pub fn keeps_position(&self) -> bool {
        !matches!(self, Disconnect::Corrupt { .. } | Disconnect::NotApplied(_))
    }

    /// Will the next link probably do better? Not if what was sent was the trouble.
    pub fn is_passing(&self) -> bool {
        matches!(self, Disconnect::Connection(_) | Disconnect::Timeout { .. })
    }
}

/// Where a link is, for INFO and ROLE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Handshake,
    /// The primary prepares its snapshot.
    AwaitPayload,
    Payload,
    /// The RDB is here and being loaded.
    Loading,
    Stream,
    /// Only the RDB was wanted, and it is complete.
    Finished,
}

/// What a link can tell about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub phase: Phase,
    pub position: Option<Position>,
    pub applied_offset: Option<u64>,
    /// Known in the length form only.
    pub payload_bytes_total: Option<u64>,
    pub payload_bytes_read: u64,
    /// On the caller's clock.
    pub heard_at_ms: u64,
    /// PSYNC was sent, or more: the primary may have acted on it whether its answer comes or not.
    pub has_asked: bool,
}

/// Replies of the handshake come from memory; a primary that takes longer is stuck.
const HANDSHAKE_TIMEOUT_MS: u64 = 5_000;
const LINE_BYTES_MAX: usize = 64 * 1024;

impl Link {
    /// A connection was made. `position`: what to go on from, if anything.
    pub fn begin(config: LinkConfig, position: Option<Position>, now_ms: u64) -> Link {
        let mut out = Vec::new();
        let handshake = Handshake::begin(&mut out);
        let state = State::Handshake {
            handshake,
            position,
        };
        Link {
            config,
            state,
            out,
            heard_at_ms: now_ms,
            payload_bytes_read: 0,
        }
    }

    /// Bytes to send; the caller removes what it wrote.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Bytes arrived, whatever they are.
    pub fn received(&mut self, now_ms: u64) {
        self.heard_at_ms = now_ms;
    }

    /// False while the caller's report is awaited: reading on would only fill memory.
    pub fn wants_input(&self) -> bool {
        !matches!(self.state, State::AwaitLoaded { .. } | State::Finished)
    }

    /// Bytes still missing of the word being received.
    pub fn pending_bulk(&self) -> Option<usize> {
        match &self.state {
            State::AwaitCommand { stream, .. } => stream.pending_bulk(),
            _ => None,
        }
    }

    /// Looks at the bytes received and not consumed yet. After an error the link is over.
    pub fn poll<'b>(&mut self, input: &'b [u8]) -> Result<Step<'b>, Disconnect> {
        let mut consumed = 0;
        loop {
            let rest = &input[consumed..];
            let event = match &mut self.state {
                State::Handshake { .. } | State::AwaitHeader { .. } => {
                    let Some(line_len) = self.line_len(rest)? else {
                        return Ok(Step {
                            consumed,
                            event: None,
                        });
                    };
                    consumed += line_len;
                    match trimmed(&rest[..line_len]) {
                        b"" => continue, // keeps the connection alive, means nothing
                        line => match self.reply(line)? {
                            None => continue,
                            event => event,
                        },
                    }
                }
                State::AwaitPayload { payload, .. } => match payload.next(rest) {
                    Part::Short => None,
                    Part::Bytes(n) => {
                        consumed += n;
                        self.payload_bytes_read += n as u64;
                        Some(Event::PayloadBytes(&rest[..n]))
                    }
                    Part::End(n) => {
                        consumed += n;
                        self.end_payload();
                        Some(Event::PayloadEnd)
                    }
                },
                State::AwaitLoaded { .. } | State::Finished => None,
                State::AwaitCommand { stream, .. } => match stream.next(rest)? {
                    None => None,
                    Some(unit) => {
                        consumed += unit.raw.len();
                        if unit.asks_ack {
                            self.ack_at(unit.start_offset());
                        }
                        Some(Event::Transaction(unit))
                    }
                },
            };
            return Ok(Step { consumed, event });
        }
    }

    /// The payload is loaded; `db` is the RDB's `repl-stream-db`, 0 without one. The stream begins.
    pub fn loaded(&mut self, db: u32) {
        let State::AwaitLoaded { origin, form } = self.state else {
            return;
        };
        let start = origin.map_or(0, |origin| origin.offset);
        let stream = Box::new(Stream::new(start, db, &self.config));
        let acks = Acks {
            applied_offset: stream.offset(),
            ..Acks::default()
        };
        self.state = State::AwaitCommand {
            replid: origin.map(|origin| origin.replid),
            stream,
            acks,
        };
        // After a mark the primary waits for this before it sends anything.
        if origin.is_some() || matches!(form, Form::Mark(_)) {
            self.ack();
        }
    }

    /// Everything up to `offset` (a unit's `end_offset`) was applied.
    pub fn applied(&mut self, offset: u64) {
        let State::AwaitCommand { acks, .. } = &mut self.state else {
            return;
        };
        acks.applied_offset = acks.applied_offset.max(offset);
        if acks
            .due_at
            .is_some_and(|due_at| due_at <= acks.applied_offset)
        {
            acks.due_at = None;
            self.ack();
        }
    }

    /// Once a second, while the caller reads.
    pub fn tick(&mut self, now_ms: u64) -> Result<(), Disconnect> {
        let silent_ms = now_ms.saturating_sub(self.heard_at_ms);
        let limit_ms = match &self.state {
            State::Handshake {
                handshake: Handshake::AwaitSync,
                ..
            } => self.config.timeout_ms,
            State::Handshake { .. } => HANDSHAKE_TIMEOUT_MS,
            State::AwaitLoaded { .. } | State::Finished => u64::MAX,
            _ => self.config.timeout_ms,
        };
        if silent_ms > limit_ms {
            return Err(Disconnect::Timeout {
                awaited: self.awaited(),
                silent_ms,
                limit_ms,
            });
        }
        self.heartbeat();
        Ok(())
    }

    /// Whether the primary has asked for an ACK, and gets it once the caller has applied more.
    pub fn is_asked_for_ack(&self) -> bool {
        matches!(&self.state, State::AwaitCommand { acks, .. } if acks.due_at.is_some())
    }

    /// Whether anything was received that is not acknowledged.
    pub fn owes_ack(&self) -> bool {
        match &self.state {
            State::AwaitCommand {
                replid: Some(_),
                stream,
                acks,
            } => acks.acked_offset < stream.offset(),
            _ => false,
        }
    }

    /// Nothing has come for a while: the primary hears at once what is applied. One that waits for it, to hand over its role or to end,
    /// would else wait for the next second.
    pub fn quiet(&mut self) {
        if let State::AwaitCommand { acks, .. } = &self.state
            && acks.acked_offset < acks.applied_offset
        {
            self.ack();
        }
    }

    /// Once a second, while the caller is busy with an event and does not read: silence is not the primary's.
    pub fn tick_busy(&mut self, now_ms: u64) {
        self.heard_at_ms = now_ms;
        match self.state {
            State::AwaitPayload { .. } => self.out.push(b'\n'),
            _ => self.heartbeat(),
        }
    }

    fn heartbeat(&mut self) {
        match &self.state {
            State::AwaitLoaded { .. } => self.out.push(b'\n'),
            State::AwaitCommand {
                replid: Some(_), ..
            } => self.ack(),
            _ => {}
        }
    }

    /// Where the next link may go on; `None` means a full resync.
    pub fn position(&self) -> Option<Position> {
        match &self.state {
            State::Handshake { position, .. } | State::AwaitHeader { position, .. } => *position,
            State::AwaitCommand { replid, stream, .. } => replid.map(|replid| Position {
                replid,
                offset: stream.offset(),
                db: stream.db(),
            }),
            _ => None,
        }
    }

    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Handshake { .. } => Phase::Handshake,
            State::AwaitHeader { .. } => Phase::AwaitPayload,
            State::AwaitPayload { .. } => Phase::Payload,
            State::AwaitLoaded { .. } => Phase::Loading,
            State::AwaitCommand { .. } => Phase::Stream,
            State::Finished => Phase::Finished,
        }
    }

    pub fn status(&self) -> Status {
        let payload_bytes_total = match &self.state {
            State::AwaitPayload { form, .. } | State::AwaitLoaded { form, .. } => form_len(*form),
            _ => None,
        };
        let applied_offset = match &self.state {
            State::AwaitCommand { acks, .. } => Some(acks.applied_offset),
            _ => None,
        };
        Status {
            phase: self.phase(),
            position: self.position(),
            applied_offset,
            payload_bytes_total,
            payload_bytes_read: self.payload_bytes_read,
            heard_at_ms: self.heard_at_ms,
            has_asked: match &self.state {
                State::Handshake { handshake, .. } => *handshake == Handshake::AwaitSync,
                _ => true,
            },
        }
    }

    fn awaited(&self) -> &'static str {
        match &self.state {
            State::Handshake { handshake, .. } => handshake.name(),
            State::AwaitHeader { .. } => "payload header",
            State::AwaitPayload { .. } => "payload",
            State::AwaitLoaded { .. } => "end of loading",
            State::AwaitCommand { .. } => "replication stream",
            State::Finished => "nothing",
        }
    }

    /// Bytes of the first line with its end; `None` when it is not complete.
    fn line_len(&self, input: &[u8]) -> Result<Option<usize>, Disconnect> {
        let end = input.iter().take(LINE_BYTES_MAX).position(|&b| b == b'\n');
        if end.is_none() && input.len() >= LINE_BYTES_MAX {
            return Err(Disconnect::BadReply {
                step: self.awaited(),
                found: text(&input[..64]),
            });
        }
        Ok(end.map(|end| end + 1))
    }

    /// A line of the handshake or the header of the payload.
    fn reply<'b>(&mut self, line: &[u8]) -> Result<Option<Event<'b>>, Disconnect> {
        match self.state {
            State::Handshake {
                handshake,
                position,
            } => {
                let next =
                    handshake.handle(line, &self.config, position.as_ref(), &mut self.out)?;
                Ok(self.handshaken(next, position))
            }
            State::AwaitHeader { .. } if line.starts_with(b"-") => {
                Err(Disconnect::SyncFailed { reply: text(line) })
            }
            State::AwaitHeader { origin, .. } => match Form::parse(line) {
                Some(form) => {
                    self.state = State::AwaitPayload {
                        origin,
                        form,
                        payload: Payload::new(form),
                    };
                    let origin = origin.map(|origin| (origin.replid, origin.offset));
                    Ok(Some(Event::PayloadStart(PayloadStart { form, origin })))
                }
                None => Err(Disconnect::BadReply {
                    step: self.awaited(),
                    found: text(line),
                }),
            },
            _ => unreachable!("poll reads lines in the handshake and for the header only"),
        }
    }

    fn handshaken<'b>(&mut self, next: Next, position: Option<Position>) -> Option<Event<'b>> {
        match (next, position) {
            (Next::Await(handshake), _) => {
                self.state = State::Handshake {
                    handshake,
                    position,
                };
                None
            }
            (Next::Continue { replid }, Some(asked)) => {
                let replid = replid.unwrap_or(asked.replid);
                let stream = Box::new(Stream::new(asked.offset, asked.db, &self.config));
                // What was received of the last link may not be applied yet: the caller says what is.
                let acks = Acks::default();
                self.state = State::AwaitCommand {
                    replid: Some(replid),
                    stream,
                    acks,
                };
                let renamed_from = (replid != asked.replid).then_some(asked.replid);
                Some(Event::Continue {
                    replid,
                    renamed_from,
                })
            }
            (Next::FullResync { replid, offset }, _) => {
                self.state = State::AwaitHeader {
                    origin: Some(Origin { replid, offset }),
                    position,
                };
                None
            }
            (Next::Sync | Next::Continue { .. }, _) => {
                self.state = State::AwaitHeader {
                    origin: None,
                    position,
                };
                None
            }
        }
    }

    fn end_payload(&mut self) {
        if let State::AwaitPayload { origin, form, .. } = self.state {
            self.state = match self.config.rdb_only {
                true => State::Finished,
                false => State::AwaitLoaded { origin, form },
            };
        }
    }

    /// GETACK: answer when what came before it is applied.
    fn ack_at(&mut self, offset: u64) {
        let State::AwaitCommand { acks, .. } = &mut self.state else {
            return;
        };
        if acks.applied_offset >= offset {
            self.ack();
        } else {
            acks.due_at = Some(offset);
        }
    }

    fn ack(&mut self) {
        let State::AwaitCommand { replid, acks, .. } = &mut self.state else {
            return;
        };
        acks.acked_offset = acks.applied_offset;
        let offset = match replid {
            Some(_) => acks.applied_offset.to_string(),
            None => "-1".to_owned(),
        };
        encode_command(&mut self.out, &["REPLCONF", "ACK", &offset]);
    }
}

fn form_len(form: Form) -> Option<u64> {
    match form {
        Form::Length(len) => Some(len),
        Form::Mark(_) => None,
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests;
