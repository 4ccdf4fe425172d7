//! A replica of ours: the sync it asks for, then the log.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dfsnap_formats::resp::RequestDecoder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use super::sync::{self, Ask, Filter, Sync};
use crate::command::row::{Command, Flags};
use crate::command::{reference, table};
use crate::log::{FullSync, Held, ReplicaInfo};
use crate::memory::NotCounted;
use crate::threads;
use crate::world::{Client, Control, World};

/// Bytes written at once: the time limit is for so many.
const WRITE_BYTES: usize = 64 << 10;

/// What a peer told about itself by REPLCONF.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// `listening-port`
    pub port: u16,
    /// `ip-address`; empty = the address it connects from.
    pub ip: String,
    /// `capa eof`: takes a payload that ends at a mark.
    pub takes_mark: bool,
    /// `capa psync2`: wants the name in `+CONTINUE`.
    pub takes_replid: bool,
    /// `rdb-only`: wants nothing behind the payload.
    pub is_rdb_only: bool,
    /// `rdb-filter-only`
    pub filter: Filter,
}

/// What PSYNC or SYNC asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncRequest {
    /// The history and the offset of the first byte wanted; `None` for a full sync.
    Psync(Option<(String, u64)>),
    /// The old form: a payload without a line in front.
    Sync,
}

/// Serves a replica until its connection ends. `behind`: what came behind its request.
pub async fn serve_replica(
    world: &Arc<World>,
    socket: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
    (request, behind): (SyncRequest, Vec<u8>),
    client: Arc<Client>,
) {
    client.is_replica.store(true, Ordering::Relaxed);
    let ip = if peer.ip.is_empty() {
        client
            .addr
            .rsplit_once(':')
            .map_or(client.addr.clone(), |(ip, _)| ip.to_owned())
    } else {
        peer.ip.clone()
    };
    let replica = Replica {
        world: world.clone(),
        id: client.id,
        name: format!("{ip}:{}", peer.port),
        peer,
        sync: OnceCell::new(),
    };
    let info = ReplicaInfo {
        ip,
        port: replica.peer.port,
        state: "wait_bgsave",
        // Until it has a place in the stream it needs nothing of it.
        sent: u64::MAX,
        acked: 0,
        acked_in_file: 0,
        acked_at: Instant::now(),
    };
    world.log.with(|log| log.replicas.insert(client.id, info));
    let end = tokio::select! {
        // Who is killed gets nothing more.
        biased;
        () = client.outbox.kill.notified() => Ok(()),
        end = replica.serve(socket, request, behind) => end,
    };
    world.change_replicas(|log| log.remove_replica(client.id));
    match end {
        Ok(()) => tracing::info!("Connection with replica {} lost: closed", replica.name),
        Err(error) => tracing::warn!("Connection with replica {} lost: {error}", replica.name),
    }
}

struct Replica {
    world: Arc<World>,
    id: u64,
    name: String,
    peer: Peer,
    /// Its full sync, if it needs one. Here it outlives what is said of the link's end.
    sync: OnceCell<Sync>,
}

impl Replica {
    fn change(&self, change: impl FnOnce(&mut ReplicaInfo)) {
        self.world.change_replicas(|log| {
            log.replicas.get_mut(&self.id).map(change);
        });
    }

    async fn serve(
        &self,
        mut socket: impl AsyncRead + AsyncWrite + Unpin,
        request: SyncRequest,
        behind: Vec<u8>,
    ) -> std::io::Result<()> {
        let mut input = AckReader::new(self.name.clone(), behind);
        input.take_up()?;
        let position = match self.partial(&request) {
            Some((position, replid)) => {
                let line = if self.peer.takes_replid {
                    format!("+CONTINUE {replid}\r\n")
                } else {
                    "+CONTINUE\r\n".into()
                };
                write(&mut socket, line.as_bytes()).await?;
                position
            }
            None => {
                let position = self.full(&mut socket, &request, &mut input).await?;
                if self.peer.is_rdb_only {
                    return Ok(());
                }
                position
            }
        };
        self.change(|info| {
            info.state = "online";
            info.acked_at = Instant::now();
        });
        tracing::info!(
            offset = position,
            "Synchronization with replica {} succeeded",
            self.name
        );
        let (reader, writer) = tokio::io::split(socket);
        tokio::select! {
            end = self.send_log(writer, position) => end,
            end = self.read_acks(reader, input, request == SyncRequest::Sync) => end,
        }
    }

    /// Whether the stream can go on from where the replica is, and under which name.
    fn partial(&self, request: &SyncRequest) -> Option<(u64, String)> {
        let SyncRequest::Psync(asked) = request else {
            tracing::info!("Full resync requested by replica {} (SYNC)", self.name);
            self.world.log.with(|log| log.sync_full += 1);
            return None;
        };
        self.world.log.with(|log| {
            let asked = asked
                .as_ref()
                .map(|(replid, wanted)| (replid.as_str(), *wanted));
            match log.answer(asked) {
                Ok(position) => {
                    log.sync_partial_ok += 1;
                    if let Some(info) = log.replicas.get_mut(&self.id) {
                        // What it has received may not be applied yet: only its ACK says so.
                        info.sent = position;
                    }
                    tracing::info!(
                        "Partial resynchronization request from {} accepted. Sending {} bytes of backlog starting from offset {}.",
                        self.name,
                        log.offset() - position,
                        position + 1
                    );
                    Some((position, log.replid.clone()))
                }
                Err(FullSync::Asked) => {
                    log.sync_full += 1;
                    tracing::info!("Full resync requested by replica {}", self.name);
                    None
                }
                Err(why) => {
                    log.sync_full += 1;
                    log.sync_partial_err += 1;
                    tracing::info!(
                        "Partial resynchronization not accepted: {why}: full resync of replica {}",
                        self.name
                    );
                    None
                }
            }
        })
    }

    /// Sends a snapshot. Returns the offset where the stream goes on.
    async fn full(
        &self,
        socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
        request: &SyncRequest,
        input: &mut AckReader,
    ) -> std::io::Result<u64> {
        let (mut reader, mut writer) = tokio::io::split(&mut *socket);
        let sync = self.wait_for_sync(&mut reader, &mut writer, input).await?;
        let sync = self.sync.get_or_init(|| sync);
        input.last_ack = None;
        // Nothing is due from it meanwhile, but its end: one that goes is not waited for until there is something to send.
        let sent = tokio::select! {
            sent = self.send_payload(&mut writer, request, sync) => sent?,
            end = input.read_on(&mut reader) => return Err(end),
        };
        sync.leave();
        if sent && !self.peer.is_rdb_only {
            // Bytes glued to the mark would be lost: the stream waits for the first ACK.
            let limit = || self.time_limit();
            while input.last_ack.is_none() {
                in_time(&limit, ("full sync", "ACK"), input.read(&mut reader)).await?;
            }
        }
        Ok(sync.offset)
    }

    /// Waits, with others, until a snapshot has begun.
    async fn wait_for_sync(
        &self,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
        input: &mut AckReader,
    ) -> std::io::Result<Sync> {
        let (answer, mut begun) = oneshot::channel();
        let ask = Ask {
            id: self.id,
            filter: self.peer.filter,
            takes_mark: self.peer.takes_mark,
            is_rdb_only: self.peer.is_rdb_only,
            answer,
        };
        self.world
            .on_control(move |control| sync::join(&control, ask));
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.tick().await;
        loop {
            tokio::select! {
                sync = &mut begun => return sync.map_err(|_| std::io::Error::other("no snapshot for it")),
                _ = tick.tick() => write(writer, b"\n").await?,
                // Nothing is due, but its end.
                read = input.read(reader) => read?,
            }
        }
    }

    /// Sends a payload; whether it ends at a mark.
    async fn send_payload(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        request: &SyncRequest,
        sync: &Sync,
    ) -> std::io::Result<bool> {
        if matches!(request, SyncRequest::Psync(_)) {
            let line = format!("+FULLRESYNC {} {}\r\n", sync.replid, sync.offset);
            write(writer, line.as_bytes()).await?;
        }
        let is_filtered = self.peer.filter != Filter::Everything;
        let is_diskless = self.world.config().repl_diskless_sync || is_filtered;
        if !self.peer.takes_mark || !is_diskless {
            return self.send_with_length(writer, sync).await.map(|()| false);
        }
        let mark = crate::clock::random_hex_40();
        write(writer, format!("$EOF:{mark}\r\n").as_bytes()).await?;
        self.send_bytes(writer, sync).await?;
        write(writer, mark.as_bytes()).await?;
        Ok(true)
    }

    /// Sends the payload as it comes. The snapshot goes on however slow the peer is.
    async fn send_bytes(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        sync: &Sync,
    ) -> std::io::Result<()> {
        let limit = || self.time_limit();
        while let Some((piece, at)) = sync.payload.next(self.id).await? {
            for bytes in piece[at..].chunks(WRITE_BYTES) {
                in_time(&limit, ("full sync", "byte taken"), write(writer, bytes)).await?;
            }
            sync.payload.advance(self.id, piece.len() - at);
        }
        let spilled = sync.payload.spilled();
        if spilled > 0 {
            tracing::info!(
                replica = self.name,
                bytes = spilled,
                "part of the payload went through a file"
            );
        }
        in_time(&limit, ("full sync", "byte taken"), writer.flush()).await
    }

    /// For a peer that needs the length first: it waits until the payload is complete.
    async fn send_with_length(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        sync: &Sync,
    ) -> std::io::Result<()> {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.tick().await;
        let len = {
            let len = sync.payload.len();
            tokio::pin!(len);
            loop {
                tokio::select! {
                    len = &mut len => break len,
                    _ = tick.tick() => write(writer, b"\n").await?,
                }
            }
        };
        match len {
            Ok(len) => {
                // Until here it waits for the save; one that takes the payload as it comes does so to its end.
                self.change(|info| info.state = "send_bulk");
                write(writer, format!("${len}\r\n").as_bytes()).await?;
            }
            Err(error) => {
                let line = b"-ERR BGSAVE failed, replication can't continue\r\n";
                write(writer, line).await?;
                return Err(error);
            }
        }
        self.send_bytes(writer, sync).await
    }

    /// How long a replica may be silent: `repl-timeout`.
    fn time_limit(&self) -> Duration {
        Duration::from_secs(self.world.config().repl_timeout)
    }

    /// Sends the log from `position` on, for ever.
    async fn send_log(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        mut position: u64,
    ) -> std::io::Result<()> {
        // What is on its way to a replica must not cost keys, as what it lags by: not even while it grows.
        let mut not_counted = NotCounted::default();
        not_counted.set(WRITE_BYTES as u64);
        let mut together = Vec::with_capacity(WRITE_BYTES);
        loop {
            let grown = self.world.log.grown.notified();
            let next = (self.world.log).with(|log| {
                // All before it is in the socket.
                if let Some(info) = log.replicas.get_mut(&self.id) {
                    info.sent = position;
                }
                together.clear();
                log.gather_for(position, &mut together, WRITE_BYTES);
                match together.is_empty() {
                    true => log.next_for(position),
                    false => Ok(None),
                }
            });
            match next.map_err(std::io::Error::other)? {
                None if !together.is_empty() => {
                    write(&mut writer, &together).await?;
                    position += together.len() as u64;
                }
                None => {
                    grown.await;
                    // What others do in this turn goes with it.
                    tokio::task::yield_now().await;
                }
                Some(held) => {
                    position += match held {
                        Held::InMemory((piece, at)) => {
                            write(&mut writer, &piece[at..]).await?;
                            piece.len() - at
                        }
                        Held::InFile(file, at, len) => {
                            let bytes = read_at(file, at, len).await?;
                            write(&mut writer, &bytes).await?;
                            len
                        }
                    } as u64;
                }
            }
        }
    }

    async fn read_acks(
        &self,
        mut reader: impl AsyncRead + Unpin,
        mut input: AckReader,
        is_old: bool,
    ) -> std::io::Result<()> {
        // Those that know nothing but SYNC say nothing.
        let limit = || match is_old {
            true => Duration::MAX,
            false => self.time_limit(),
        };
        loop {
            let in_file = input.last_file_ack.take().unwrap_or(0);
            if let Some(acked) = input.last_ack.take() {
                self.world
                    .log
                    .with(|log| log.acknowledged(self.id, acked, in_file, Instant::now()));
                self.world.log.grown.notify_waiters();
            }
            in_time(&limit, ("streaming sync", "ACK"), input.read(&mut reader)).await?;
        }
    }
}

/// Bytes of a file, read on a thread that may block.
async fn read_at(file: Arc<File>, at: u64, len: usize) -> std::io::Result<Vec<u8>> {
    let read = move || {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at).map(|()| bytes)
    };
    threads::run("backlog-read", read).await.flatten()
}

/// Waits for something for no longer than `limit` says, which may change meanwhile.
async fn in_time<T>(
    limit: impl Fn() -> Duration,
    (phase, what): (&str, &str),
    work: impl Future<Output = std::io::Result<T>>,
) -> std::io::Result<T> {
    let began = Instant::now();
    let mut work = std::pin::pin!(work);
    loop {
        let left = limit().saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(std::io::Error::other(format!(
                "Disconnecting timedout replica ({phase}): no {what} for {} s (repl-timeout)",
                began.elapsed().as_secs()
            )));
        }
        let left = left.min(Duration::from_secs(1));
        if let Ok(result) = tokio::time::timeout(left, work.as_mut()).await {
            return result;
        }
    }
}

/// Writes all of it. With TLS it may wait in the session until it is flushed.
async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

/// Reads what a replica sends: ACKs and empty lines.
struct AckReader {
    /// The replica, for the log.
    name: String,
    decoder: RequestDecoder,
    buffer: Vec<u8>,
    last_ack: Option<u64>,
    /// What it has in its append-only file, if it has one.
    last_file_ack: Option<u64>,
}

impl AckReader {
    fn new(name: String, buffer: Vec<u8>) -> AckReader {
        AckReader {
            name,
            decoder: RequestDecoder::new(1024),
            buffer,
            last_ack: None,
            last_file_ack: None,
        }
    }

    async fn read(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
        if reader.read_buf(&mut self.buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.take_up()
    }

    /// Reads on and on; why that ended.
    async fn read_on(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> std::io::Error {
        loop {
            if let Err(error) = self.read(reader).await {
                return error;
            }
        }
    }

    /// Takes note of the commands that are there whole.
    fn take_up(&mut self) -> std::io::Result<()> {
        let mut at = 0;
        while let Some(consumed) = self
            .decoder
            .decode(&self.buffer[at..])
            .map_err(std::io::Error::other)?
        {
            let request = &self.buffer[at..];
            let words: Vec<&[u8]> = self.decoder.words(request).collect();
            match words.as_slice() {
                [name, option, offset, rest @ ..]
                    if name.eq_ignore_ascii_case(b"replconf")
                        && option.eq_ignore_ascii_case(b"ack") =>
                {
                    let number = |word| std::str::from_utf8(word).ok()?.parse().ok();
                    self.last_ack = number(offset).or(self.last_ack);
                    if let [option, offset] = rest
                        && option.eq_ignore_ascii_case(b"fack")
                    {
                        self.last_file_ack = number(offset).or(self.last_file_ack);
                    }
                }
                [name, ..]
                    if name.eq_ignore_ascii_case(b"psync")
                        || name.eq_ignore_ascii_case(b"sync") => {}
                [] => {}
                words => return Err(unanswered(&self.name, words)),
            }
            at += consumed;
        }
        self.buffer.drain(..at);
        Ok(())
    }
}

/// The reply to such a command would stand in the stream: the link ends instead.
fn unanswered(replica: &str, words: &[&[u8]]) -> std::io::Error {
    let command = table::find(words[0]);
    let name = command.map_or("<unknown>".to_owned(), |command| {
        let second = words.get(1).map(|word| String::from_utf8_lossy(word));
        let full = second.map(|word| format!("{}|{}", command.name, word.to_lowercase()));
        full.filter(|full| reference::subcommand(full).is_some())
            .unwrap_or_else(|| command.name.to_owned())
    });
    let is_about_keys =
        |command: &Command| command.is_write() || command.flags.has(Flags::READONLY);
    if command.is_some_and(is_about_keys) {
        tracing::error!(
            "== CRITICAL == This master is sending an error to its replica: '-ERR Replica can't interact with the keyspace' \
             after processing the command '{name}'"
        );
    }
    std::io::Error::other(format!(
        "Replica generated a reply to command '{name}', disconnecting it: {replica}"
    ))
}

/// Ten times a second, looks whether replicas keep up: too few of them stop writes (`min-replicas-to-write`). Drops replicas that lag by more than `client-output-buffer-limit replica` allows: what they lack is in memory.
pub async fn watch_links(world: Arc<World>) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut over_since: BTreeMap<u64, Instant> = BTreeMap::new();
    let mut alone_since = Instant::now();
    loop {
        tick.tick().await;
        world.judge_links();
        let is_kept = world.is_replica.load(Ordering::Relaxed)
            || (world.log).with(|log| log.backlog.is_none() || !log.replicas.is_empty());
        let ttl_s = world.config().repl_backlog_ttl;
        if is_kept || ttl_s == 0 {
            alone_since = Instant::now();
        } else if alone_since.elapsed() > Duration::from_secs(ttl_s) {
            alone_since = Instant::now();
            world.on_control(|control| {
                tokio::task::spawn_local(async move { close_backlog(&control).await });
            });
        }
        let (limit, backlog_bytes) = {
            let config = world.config();
            let limit = config.client_output_buffer_limit.replica;
            (limit, config.repl_backlog_size)
        };
        // What is in the backlog anyway costs nothing more.
        let at_least = |bytes: u64| {
            if bytes == 0 {
                u64::MAX
            } else {
                bytes.max(backlog_bytes)
            }
        };
        let (hard, soft) = (at_least(limit.hard_bytes), at_least(limit.soft_bytes));
        let lags: Vec<(u64, u64)> = world.log.with(|log| {
            let replicas = log.replicas.iter();
            replicas
                .map(|(id, replica)| (*id, log.held_for(replica.sent)))
                .collect()
        });
        over_since.retain(|id, _| lags.iter().any(|(known, lag)| known == id && *lag > soft));
        for (id, lag) in lags {
            let is_long = lag > soft && {
                let since = over_since.entry(id).or_insert_with(Instant::now);
                since.elapsed().as_secs() >= limit.soft_seconds
            };
            if lag <= hard && !is_long {
                continue;
            }
            let client = world.clients().into_iter().find(|client| client.id == id);
            if let Some(client) = client {
                tracing::warn!(
                    replica = client.addr,
                    lag_bytes = lag,
                    hard_bytes = hard,
                    soft_bytes = soft,
                    "a replica lags too far behind and is dropped (client-output-buffer-limit)"
                );
                client.outbox.kill.notify_one();
            }
        }
    }
}

/// Nobody has followed this primary for `repl-backlog-ttl`: it keeps no log any more.
async fn close_backlog(control: &Control) {
    let world = control.world.clone();
    control
        .coordinator
        .global(Box::new(move |_| {
            let is_replica = world.is_replica.load(Ordering::Relaxed);
            let is_closed = world.log.with(|log| {
                let may_close = !is_replica && log.replicas.is_empty();
                if may_close {
                    log.close(crate::clock::random_hex_40());
                }
                may_close
            });
            if is_closed {
                world.journal.set_active(false);
                tracing::info!("Replication backlog freed: no replicas for repl-backlog-ttl");
            }
            ((), Vec::new())
        }))
        .await;
}
