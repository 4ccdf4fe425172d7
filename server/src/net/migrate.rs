//! MIGRATE: moves keys to another server.
//!
//! The values travel while other commands run here. So the keys are watched meanwhile: only if none has changed since it was
//! sent are they removed. Else all are sent again; and where that keeps happening, all clients' writes wait for the last try, as
//! in Redis for the first.
//!
//! Invariants
//! - A key is removed here only when the other server has said that it has it, with the value that it has at its removal.
//! - Each key is at any time on at least one of the servers.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use dfsnap_formats::resp::{Frame, FrameDecoder, FrameLimits, encode_command};
use dfsnap_tls::Connector;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connection::Connection;
use super::handshake::shake_hands;
use super::socket::{Socket, TlsSocket};
use crate::command::block::Watch;
use crate::command::call::{Call, Words};
use crate::command::words::{int, is};
use crate::command::{CommandError, table};
use crate::pubsub::tracking::Caller;
use crate::world::{MIGRATE_SOCKETS, WriteHold};

const CONNECTING: CommandError =
    CommandError::text("IOERR error or timeout connecting to the client");
const WRITING: CommandError =
    CommandError::text("IOERR error or timeout writing to target instance");
const READING: CommandError =
    CommandError::text("IOERR error or timeout reading to target instance");

/// Tries while clients may write.
const FREE_TRIES: u32 = 3;
/// A connection that has not been used for this long is closed.
const IDLE: Duration = Duration::from_secs(10);

thread_local! {
    /// Connections that MIGRATE has used of late, by host and port.
    static IDLE_TARGETS: RefCell<Vec<IdleTarget>> = const { RefCell::new(Vec::new()) };
}

struct IdleTarget {
    name: (Vec<u8>, Vec<u8>),
    since: Instant,
    target: Option<Target>,
}

impl Drop for IdleTarget {
    fn drop(&mut self) {
        MIGRATE_SOCKETS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps a connection for the next MIGRATE to the same server.
fn keep(request: &Request<'_>, target: Target) {
    let name = (request.host.to_vec(), request.port.to_vec());
    let since = Instant::now();
    MIGRATE_SOCKETS.fetch_add(1, Ordering::Relaxed);
    IDLE_TARGETS.with_borrow_mut(|all| {
        all.retain(|known| known.name != name);
        all.push(IdleTarget {
            name,
            since,
            target: Some(target),
        });
    });
    tokio::task::spawn_local(async move {
        tokio::time::sleep(IDLE).await;
        IDLE_TARGETS.with_borrow_mut(|all| all.retain(|known| known.since.elapsed() < IDLE));
    });
}

/// The connection that is kept to this server, if there is one and the other side has not closed it.
fn kept(request: &Request<'_>) -> Option<Target> {
    let name = (request.host, request.port);
    let mut target = IDLE_TARGETS.with_borrow_mut(|all| {
        let is_it = |known: &IdleTarget| (&*known.name.0, &*known.name.1) == name;
        let at = all.iter().position(is_it)?;
        let mut kept = all.swap_remove(at);
        kept.target.take()
    })?;
    // Nothing was asked: whatever there is to read, an end or words, speaks against it.
    let mut byte = [0];
    let mut context = Context::from_waker(Waker::noop());
    let is_open = Pin::new(&mut target.stream)
        .poll_read(&mut context, &mut ReadBuf::new(&mut byte))
        .is_pending();
    target.is_ready = false;
    is_open.then_some(target)
}

/// What MIGRATE was told.
struct Request<'a> {
    host: &'a [u8],
    port: &'a [u8],
    db: i64,
    timeout: Duration,
    copies: bool,
    replaces: bool,
    /// The words of AUTH, without it.
    login: &'a [&'a [u8]],
    keys: Vec<&'a [u8]>,
}

impl<'a> Request<'a> {
    fn parse(args: &'a [&'a [u8]]) -> Result<Request<'a>, CommandError> {
        let mut request = Request {
            host: args[1],
            port: args[2],
            db: 0,
            timeout: Duration::ZERO,
            copies: false,
            replaces: false,
            login: &[],
            keys: vec![args[3]],
        };
        let mut at = 6;
        while let Some(word) = args.get(at) {
            let left = args.len() - at - 1;
            match *word {
                word if is(word, "copy") => request.copies = true,
                word if is(word, "replace") => request.replaces = true,
                word if is(word, "auth") && left >= 1 => {
                    request.login = &args[at + 1..at + 2];
                    at += 1;
                }
                word if is(word, "auth2") && left >= 2 => {
                    request.login = &args[at + 1..at + 3];
                    at += 2;
                }
                word if is(word, "keys") => {
                    if !args[3].is_empty() {
                        return Err(CommandError::new(
                            "When using MIGRATE KEYS option, the key argument must be set to the empty string",
                        ));
                    }
                    request.keys = args[at + 1..].to_vec();
                    break;
                }
                _ => return Err(CommandError::SYNTAX),
            }
            at += 1;
        }
        let timeout_ms = int(args[5])?;
        request.db = int(args[4])?;
        let timeout_ms = u64::try_from(timeout_ms).unwrap_or(0);
        request.timeout = Duration::from_millis(if timeout_ms == 0 { 1000 } else { timeout_ms });
        Ok(request)
    }
}

/// A key with its payload, and its time to live in milliseconds, 0: for ever.
struct Dumped {
    key: Vec<u8>,
    payload: Vec<u8>,
    ttl_ms: i64,
}

/// MIGRATE.
pub async fn migrate(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
    let request = Request::parse(args)?;
    // The client's own watches are not touched by ours.
    let watched = std::mem::take(&mut connection.watched);
    let dirty = std::mem::take(&mut connection.dirty);
    let result = send(connection, &request).await;
    connection.forget_watches();
    (connection.watched, connection.dirty) = (watched, dirty);
    result
}

async fn send(connection: &mut Connection, request: &Request<'_>) -> Result<(), CommandError> {
    let mut target = None;
    let mut replaces = request.replaces;
    let mut has_moved = false;
    let mut tries = 0;
    let mut hold = None;
    loop {
        if tries == FREE_TRIES {
            hold = Some(WriteHold::begin(&connection.thread.world).await);
        }
        tries += 1;
        connection.forget_watches();
        if !request.copies {
            connection.watch_keys(&request.keys).await;
        }
        let dumped = dump(connection, &request.keys).await;
        if dumped.is_empty() {
            connection
                .out
                .simple(if has_moved { "OK" } else { "NOKEY" });
            return Ok(());
        }
        let connected = match &mut target {
            Some(target) => target,
            empty => empty.insert(match kept(request) {
                Some(target) => target,
                None => {
                    let tls = connection.thread.world.cluster_tls();
                    Target::connect(request, tls).await?
                }
            }),
        };
        let is_cluster = connection.is_cluster;
        let refusal = connected
            .restore(request, &dumped, replaces, is_cluster)
            .await?;
        if !request.copies {
            let arrived: Vec<&[u8]> = (dumped.iter().zip(&refusal.has_key))
                .filter(|(_, has_key)| **has_key)
                .map(|(dumped, _)| dumped.key.as_slice())
                .collect();
            if !arrived.is_empty() && !remove(connection, &arrived).await {
                // One has changed under way. What is there now is ours to replace.
                has_moved = true;
                replaces = true;
                continue;
            }
        }
        drop(hold);
        if let Some(target) = target.take() {
            keep(request, target);
        }
        return match refusal.first {
            None => {
                connection.out.ok();
                Ok(())
            }
            Some(text) => Err(CommandError::new(format!(
                "Target instance replied with error: {text}"
            ))),
        };
    }
}

/// The keys that are there, all as they are at one moment.
async fn dump(connection: &mut Connection, keys: &[&[u8]]) -> Vec<Dumped> {
    let row = |name: &[u8]| table::own(name).expect("a command of this server");
    let db = connection.db;
    let calls = keys.iter().flat_map(|key| {
        [&b"dump"[..], b"pttl"].map(|name| Call {
            command: row(name),
            db,
            words: Words::new([name, key]),
        })
    });
    let replies = run(connection, calls.collect(), None)
        .await
        .unwrap_or_default();
    let mut decoder = FrameDecoder::new(FrameLimits::default());
    let mut frames = replies
        .iter()
        .map(|reply| decoder.decode(reply).ok().flatten().map(|(frame, _)| frame));
    let mut dumped = Vec::new();
    for key in keys {
        let (payload, ttl) = (frames.next().flatten(), frames.next().flatten());
        if let (Some(Frame::Bulk(payload)), Some(Frame::Int(ttl))) = (payload, ttl) {
            dumped.push(Dumped {
                key: key.to_vec(),
                payload,
                // 0 would be for ever.
                ttl_ms: if ttl == -1 { 0 } else { ttl.max(1) },
            });
        }
    }
    dumped
}

/// Removes keys, unless a watched one has changed.
async fn remove(connection: &mut Connection, keys: &[&[u8]]) -> bool {
    let call = Call {
        command: table::own(b"del").expect("a command of this server"),
        db: connection.db,
        words: Words::new([&b"DEL"[..]].into_iter().chain(keys.iter().copied())),
    };
    let watches = connection.watches();
    run(connection, vec![call], Some(watches)).await.is_some()
}

/// Runs commands that are part of the migration.
async fn run(
    connection: &mut Connection,
    calls: Vec<Call>,
    watches: Option<Vec<Watch>>,
) -> Option<Vec<Vec<u8>>> {
    let inner = Caller {
        id: connection.client.id,
        is_inner: true,
        ..Caller::default()
    };
    let caller = std::mem::replace(&mut connection.caller, inner);
    let replies = connection.run_block(calls, watches).await;
    connection.caller = caller;
    replies
}

/// What the other server said to the RESTOREs.
struct Answers {
    /// By key.
    has_key: Vec<bool>,
    /// The first error.
    first: Option<String>,
}

/// A connection to the other server.
struct Target {
    stream: Socket,
    buffer: Vec<u8>,
    decoder: FrameDecoder,
    is_ready: bool,
    deadline: Instant,
}

impl Target {
    async fn connect(
        request: &Request<'_>,
        tls: Option<Connector>,
    ) -> Result<Target, CommandError> {
        let deadline = Instant::now() + request.timeout;
        let host = String::from_utf8_lossy(request.host).into_owned();
        let port = int(request.port)
            .ok()
            .and_then(|port| u16::try_from(port).ok());
        let addresses = dfsnap_replica::resolve(&host, port.unwrap_or(0));
        let addresses = tokio::time::timeout_at(deadline, addresses).await;
        // A name that nobody knows is told apart from a server that does not answer.
        let addresses = addresses.map_err(|_| CONNECTING)?.map_err(|_| CONNECTING)?;
        let stream = tokio::time::timeout_at(deadline, TcpStream::connect(&*addresses)).await;
        let stream = stream.map_err(|_| WRITING)?.map_err(|_| WRITING)?;
        let _ = stream.set_nodelay(true);
        let stream = match tls {
            None => Socket::Tcp(stream),
            Some(connector) => {
                let mut session = connector.begin(&host).map_err(|_| CONNECTING)?;
                let shaken = shake_hands(&stream, &mut session);
                let shaken = tokio::time::timeout_at(deadline, shaken).await;
                shaken.map_err(|_| CONNECTING)?.map_err(|_| CONNECTING)?;
                Socket::Tls(Rc::new(TlsSocket::new(stream, session)))
            }
        };
        Ok(Target {
            stream,
            buffer: Vec::new(),
            decoder: FrameDecoder::new(FrameLimits::default()),
            is_ready: false,
            deadline,
        })
    }

    /// Sends the keys and reads what became of each.
    async fn restore(
        &mut self,
        request: &Request<'_>,
        dumped: &[Dumped],
        replaces: bool,
        is_cluster: bool,
    ) -> Result<Answers, CommandError> {
        self.deadline = Instant::now() + request.timeout;
        let mut bytes = Vec::new();
        let mut greetings = 0;
        if !self.is_ready {
            if !request.login.is_empty() {
                let words: Vec<&[u8]> = [&b"AUTH"[..]]
                    .into_iter()
                    .chain(request.login.iter().copied())
                    .collect();
                encode_command(&mut bytes, &words);
                greetings += 1;
            }
            encode_command(
                &mut bytes,
                &[b"SELECT".to_vec(), request.db.to_string().into_bytes()],
            );
            greetings += 1;
        }
        for key in dumped {
            let name: &[u8] = if is_cluster {
                b"RESTORE-ASKING"
            } else {
                b"RESTORE"
            };
            let ttl = key.ttl_ms.to_string();
            let mut words = vec![name, &key.key, ttl.as_bytes(), &key.payload];
            if replaces {
                words.push(b"REPLACE");
            }
            encode_command(&mut bytes, &words);
        }
        let written = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        tokio::time::timeout_at(self.deadline, written)
            .await
            .map_err(|_| WRITING)?
            .map_err(|_| WRITING)?;
        let mut first = None;
        for _ in 0..greetings {
            if let Frame::Error(text) = self.reply().await? {
                first.get_or_insert(text);
            }
        }
        let mut has_key = Vec::with_capacity(dumped.len());
        let is_greeted = first.is_none();
        for _ in dumped {
            match self.reply().await? {
                Frame::Error(text) => {
                    has_key.push(false);
                    first.get_or_insert(text);
                }
                // In another database than was asked for, it has not arrived.
                _ => has_key.push(is_greeted),
            }
        }
        self.is_ready = is_greeted;
        Ok(Answers {
            has_key,
            first: first.map(|text| String::from_utf8_lossy(&text).into_owned()),
        })
    }

    async fn reply(&mut self) -> Result<Frame, CommandError> {
        loop {
            if let Some((frame, len)) = self.decoder.decode(&self.buffer).map_err(|_| READING)? {
                self.buffer.drain(..len);
                return Ok(frame);
            }
            let read = self.stream.read_buf(&mut self.buffer);
            let read = tokio::time::timeout_at(self.deadline, read).await;
            if !read.is_ok_and(|read| read.is_ok_and(|len| len > 0)) {
                return Err(READING);
            }
        }
    }
}
