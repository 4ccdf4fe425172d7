//! Connections of a thread that a script does not let go of.
//!
//! A script is one run, and while it runs its thread serves nobody. Once it is overdue (`busy-reply-threshold`) its
//! interpreter looks up now and then, and from there the requests of this thread's idle connections are answered: BUSY to
//! most, SCRIPT KILL and its kin are done. What these may not answer stays in the socket for later.
//!
//! Invariants
//! - Only whole requests are taken from a socket, and only from connections that wait for one: to them nothing has happened.
//! - Nothing here waits.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dfsnap_formats::resp::{Protocol, Reply, RequestDecoder};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

use super::greeting::{Greeting, describe_server};
use super::socket::{Socket, TlsSocket};
use crate::command::script::{functions, running, script};
use crate::command::{Command, CommandError, Run, Session, acl, table};
use crate::world::{Client, World};

/// Requests longer than this wait.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Requests of one connection that are answered in one go.
const REQUESTS_MAX: usize = 64;
/// How often sockets are looked at.
const PERIOD: Duration = Duration::from_millis(5);

thread_local! {
    static DOORS: RefCell<Vec<Rc<Door>>> = const { RefCell::new(Vec::new()) };
    static REPLICAS: RefCell<Vec<Rc<ReplicaDoor>>> = const { RefCell::new(Vec::new()) };
    static LAST_LOOK: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A connection of this thread.
pub struct Door {
    way: Way,
    client: Arc<Client>,
    world: Arc<World>,
    /// It waits for a request, and has read nothing of one.
    pub is_idle: Cell<bool>,
    /// It has logged in.
    pub is_authenticated: Cell<bool>,
    /// What has become of its transaction meanwhile; the connection takes it over.
    pub multi: Cell<Multi>,
    /// The protocol that it has asked for meanwhile; the connection takes it over.
    pub protocol: Cell<Option<Protocol>>,
}

/// What the requests that were answered here did to a connection's transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Multi {
    /// Nothing.
    #[default]
    Untouched,
    /// The one that was open can no longer be executed.
    Spoiled,
    /// The one that was open is gone.
    Closed,
    /// A new one has been opened. The keys watched for the one before are watched no longer.
    Opened { is_spoiled: bool, closes: bool },
}

/// How bytes are seen without being taken.
enum Way {
    /// In the kernel's buffer.
    Plain(RawFd),
    /// In the session's.
    Tls(Rc<TlsSocket>),
}

/// Keeps a connection known while it is served.
pub struct Guard(pub Rc<Door>);

/// Makes a connection known on its thread.
pub fn enter(socket: &Socket, client: Arc<Client>, world: Arc<World>) -> Guard {
    let way = match socket {
        Socket::Tls(socket) => Way::Tls(socket.clone()),
        socket => Way::Plain(socket.as_raw_fd()),
    };
    let door = Rc::new(Door {
        way,
        client,
        world,
        is_idle: Cell::new(false),
        is_authenticated: Cell::new(false),
        multi: Cell::default(),
        protocol: Cell::default(),
    });
    DOORS.with_borrow_mut(|doors| doors.push(door.clone()));
    Guard(door)
}

impl Drop for Guard {
    fn drop(&mut self) {
        DOORS.with_borrow_mut(|doors| doors.retain(|door| !Rc::ptr_eq(door, &self.0)));
    }
}

/// The connection of a replica of this thread: whether it is there is all that can be told while a script runs.
pub struct ReplicaDoor {
    socket: RawFd,
    id: u64,
    world: Arc<World>,
}

/// Keeps a replica's connection known while it is served.
pub struct ReplicaGuard(Rc<ReplicaDoor>);

/// Makes a replica's connection known on its thread.
pub fn enter_replica(socket: &Socket, id: u64, world: Arc<World>) -> ReplicaGuard {
    let door = Rc::new(ReplicaDoor {
        socket: socket.as_raw_fd(),
        id,
        world,
    });
    REPLICAS.with_borrow_mut(|doors| doors.push(door.clone()));
    ReplicaGuard(door)
}

impl Drop for ReplicaGuard {
    fn drop(&mut self) {
        REPLICAS.with_borrow_mut(|doors| doors.retain(|door| !Rc::ptr_eq(door, &self.0)));
    }
}

impl ReplicaDoor {
    /// A replica that has hung up is none from now on. Its connection notices when the script ends.
    fn look(&self) -> rustix::io::Result<()> {
        let socket = again(self.socket)?;
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let mut watched = [PollFd::new(&socket, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        if poll(&mut watched, Some(&now))? > 0 && watched[0].revents().intersects(gone) {
            self.world
                .change_replicas(|log| log.remove_replica(self.id));
        }
        Ok(())
    }
}

/// Called by an overdue script, on the thread that it holds.
pub fn answer_idle() {
    let now = Instant::now();
    let is_due = LAST_LOOK
        .get()
        .is_none_or(|last| now.duration_since(last) >= PERIOD);
    if !is_due {
        return;
    }
    LAST_LOOK.set(Some(now));
    for door in REPLICAS.with_borrow(Clone::clone) {
        let _ = door.look();
    }
    let idle: Vec<Rc<Door>> = DOORS.with_borrow(|doors| {
        let idle = doors.iter().filter(|door| door.is_idle.get());
        idle.cloned().collect()
    });
    for door in idle {
        // A socket that cannot be reached waits for the script's end.
        let _ = match &door.way {
            Way::Plain(socket) => door.answer(*socket).map_err(io::Error::from),
            Way::Tls(socket) => door.answer_tls(socket),
        };
    }
}

/// What becomes of a request.
enum Verdict {
    /// This is the reply.
    Answer(Vec<u8>),
    /// It waits.
    Wait,
}

impl Door {
    fn answer(&self, socket: RawFd) -> rustix::io::Result<()> {
        let socket = again(socket)?;
        let mut bytes = vec![0; REQUEST_BYTES_MAX];
        for _ in 0..REQUESTS_MAX {
            let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            let (read, _) = rustix::net::recv(&socket, bytes.as_mut_slice(), peek)?;
            let Some((consumed, reply)) = self.reply(&bytes[..read]) else {
                break;
            };
            let taken = &mut bytes[..consumed];
            rustix::net::recv(&socket, taken, RecvFlags::DONTWAIT)?;
            rustix::net::send(&socket, &reply, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    fn answer_tls(&self, socket: &TlsSocket) -> io::Result<()> {
        // Nobody else is at work on this thread.
        let mut session = socket.session.borrow_mut();
        let mut wire = KernelWire(socket.as_fd());
        for _ in 0..REQUESTS_MAX {
            let bytes = session.peek(&mut wire)?;
            let Some((consumed, reply)) = self.reply(bytes) else {
                break;
            };
            session.consume(consumed);
            session.write(&mut wire, &reply)?;
        }
        Ok(())
    }

    /// The length of the request in front and the reply to it; `None`: it waits.
    fn reply(&self, bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
        let mut decoder = RequestDecoder::new(REQUEST_BYTES_MAX);
        let consumed = decoder.decode(bytes).ok().flatten()?;
        let words: Vec<&[u8]> = decoder.words(bytes).collect();
        match self.verdict(&words) {
            Verdict::Answer(reply) => Some((consumed, reply)),
            Verdict::Wait => None,
        }
    }

    fn verdict(&self, words: &[&[u8]]) -> Verdict {
        let is_plain = self.is_authenticated.get() && !self.client.is_subscriber();
        let command = words.first().and_then(|name| table::find(name));
        let Some(command) = command.filter(|command| is_plain && command.arity_fits(words.len()))
        else {
            return Verdict::Wait;
        };
        let protocol = match self.client.resp.load(Ordering::Relaxed) {
            3 => Protocol::Resp3,
            _ => Protocol::Resp2,
        };
        let mut reply = Reply::new(protocol);
        let result = match self.allowed(command, words) {
            Err(error) => Err(error),
            Ok(false) => {
                let busy = running::busy().map(CommandError::text);
                busy.map_or(Ok(false), Err)
            }
            Ok(true) => match command.run {
                Run::Session(Session::Script) => script(words, &mut reply).map(|()| true),
                Run::Session(Session::Function) => {
                    functions::look(words, &mut reply).map(|()| true)
                }
                Run::Session(Session::Shutdown) => {
                    super::listener::stop(&self.world);
                    crate::saving::exit(&self.world)
                }
                Run::Session(Session::Multi | Session::Discard) => {
                    self.change_multi(command).map(|()| {
                        reply.ok();
                        true
                    })
                }
                Run::Session(Session::Hello) if !self.is_in_multi() => {
                    self.greet(words, &mut reply)
                }
                _ => Ok(false),
            },
        };
        match result {
            Ok(true) => {}
            Ok(false) => return Verdict::Wait,
            Err(error) => {
                let error = self.refused(command, error);
                reply.clear();
                reply.error(&error.0);
            }
        }
        Verdict::Answer(reply.take())
    }

    /// HELLO. One that logs in waits.
    fn greet(&self, words: &[&[u8]], reply: &mut Reply) -> Result<bool, CommandError> {
        let greeting = Greeting::parse(words)?;
        if greeting.credentials.is_some() {
            return Ok(false);
        }
        if let Some(name) = greeting.name {
            super::client::rename(&self.world, &self.client, name);
        }
        if let Some(protocol) = greeting.protocol {
            let version = if protocol == Protocol::Resp3 { 3 } else { 2 };
            self.client.resp.store(version, Ordering::Relaxed);
            self.protocol.set(Some(protocol));
            reply.set_protocol(protocol);
        }
        describe_server(reply, &self.world, &self.client);
        Ok(true)
    }

    fn is_in_multi(&self) -> bool {
        self.client.multi.load(Ordering::Relaxed) >= 0
    }

    /// MULTI and DISCARD.
    fn change_multi(&self, command: &Command) -> Result<(), CommandError> {
        let opens = matches!(command.run, Run::Session(Session::Multi));
        match (opens, self.is_in_multi()) {
            (true, true) => return Err(CommandError::new("MULTI calls can not be nested")),
            (false, false) => return Err(CommandError::new("DISCARD without MULTI")),
            (true, false) => {
                self.client.multi.store(0, Ordering::Relaxed);
                self.multi.set(Multi::Opened {
                    is_spoiled: false,
                    closes: self.multi.get() == Multi::Closed,
                });
            }
            (false, true) => self.close_multi(),
        }
        Ok(())
    }

    fn close_multi(&self) {
        self.client.multi.store(-1, Ordering::Relaxed);
        self.multi.set(Multi::Closed);
    }

    /// What a refusal does to an open transaction: EXEC ends it, others spoil it.
    fn refused(&self, command: &Command, error: CommandError) -> CommandError {
        if !self.is_in_multi() {
            return error;
        }
        if matches!(command.run, Run::Session(Session::Exec)) {
            self.close_multi();
            return CommandError(
                format!("EXECABORT Transaction discarded because of: {}", error.0).into(),
            );
        }
        self.multi.set(match self.multi.get() {
            Multi::Opened { closes, .. } => Multi::Opened {
                is_spoiled: true,
                closes,
            },
            _ => Multi::Spoiled,
        });
        error
    }

    /// Whether a command may run while a script is overdue; an error if its user may not run it at all.
    fn allowed(&self, command: &'static Command, words: &[&[u8]]) -> Result<bool, CommandError> {
        let name = self.client.texts().user;
        if let Some(user) = acl::find(name.as_bytes()) {
            user.check(command, words)
                .map_err(|denied| acl::refusal(&denied))?;
        }
        Ok(super::admission::is_allowed_when_busy(command, words))
    }
}

/// A socket again, under a descriptor of our own.
fn again(socket: RawFd) -> rustix::io::Result<OwnedFd> {
    let process = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    rustix::process::pidfd_getfd(process, socket, PidfdGetfdFlags::empty())
}

/// A socket as the kernel has it: the runtime, which knows when it is ready, stands still.
struct KernelWire<'s>(BorrowedFd<'s>);

impl Read for KernelWire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (read, _) = rustix::net::recv(self.0, buffer, RecvFlags::DONTWAIT)?;
        Ok(read)
    }
}

impl Write for KernelWire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::net::send(self.0, bytes, flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
