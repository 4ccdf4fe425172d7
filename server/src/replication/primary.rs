//! A replica of ours: the sync it asks for, then the log.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dfsnap_formats::resp::RequestDecoder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::spool::{Spool, blocking, nameless};
use crate::log::ReplicaInfo;
use crate::snapshot::save::{self, Begun};
use crate::tx::Coordinator;
use crate::world::{Client, World};

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
}

/// What PSYNC or SYNC asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncRequest {
    /// The history and the offset of the first byte wanted; `None` for a full sync.
    Psync(Option<(String, u64)>),
    /// The old form: a payload without a line in front.
    Sync,
}

/// Serves a replica until its connection ends.
pub async fn serve_replica(
    world: &Arc<World>,
    coordinator: Coordinator,
    socket: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
    request: SyncRequest,
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
        coordinator,
        id: client.id,
        name: format!("{ip}:{}", peer.port),
        peer,
    };
    // Until it has a place in the stream it needs all that comes.
    let sent = world.log.with(|log| log.offset());
    let info = ReplicaInfo {
        ip,
        port: replica.peer.port,
        state: "wait_bgsave",
        sent,
        acked: 0,
        acked_at: Instant::now(),
    };
    world.log.with(|log| log.replicas.insert(client.id, info));
    let end = tokio::select! {
        end = replica.serve(socket, request) => end,
        () = client.outbox.kill.notified() => Ok(()),
    };
    world.log.with(|log| log.replicas.remove(&client.id));
    match end {
        Ok(()) => tracing::info!(
            replica = replica.name,
            "Connection with replica lost: closed"
        ),
        Err(error) => {
            tracing::warn!(replica = replica.name, %error, "Connection with replica lost")
        }
    }
}

struct Replica {
    world: Arc<World>,
    coordinator: Coordinator,
    id: u64,
    name: String,
    peer: Peer,
}

impl Replica {
    fn change(&self, change: impl FnOnce(&mut ReplicaInfo)) {
        self.world
            .log
            .with(|log| log.replicas.get_mut(&self.id).map(change));
    }

    async fn serve(
        &self,
        mut socket: impl AsyncRead + AsyncWrite + Unpin,
        request: SyncRequest,
    ) -> std::io::Result<()> {
        let mut input = AckReader::new();
        let position = match self.partial(&request) {
            Some((position, replid)) => {
                let line = if self.peer.takes_replid {
                    format!("+CONTINUE {replid}\r\n")
                } else {
                    "+CONTINUE\r\n".into()
                };
                socket.write_all(line.as_bytes()).await?;
                socket.flush().await?;
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
        tracing::info!(replica = self.name, offset = position, "Replica is online");
        let (reader, writer) = tokio::io::split(socket);
        tokio::select! {
            end = self.send_log(writer, position) => end,
            end = self.read_acks(reader, input) => end,
        }
    }

    /// Whether the stream can go on from where the replica is, and under which name.
    fn partial(&self, request: &SyncRequest) -> Option<(u64, String)> {
        let SyncRequest::Psync(asked) = request else {
            return None;
        };
        self.world.log.with(|log| {
            let Some((replid, wanted)) = asked else {
                log.sync_full += 1;
                tracing::info!(replica = self.name, "Full resync requested by replica");
                return None;
            };
            let is_same = replid.eq_ignore_ascii_case(&log.replid);
            let was_same = replid.eq_ignore_ascii_case(&log.replid2)
                && i64::try_from(*wanted).is_ok_and(|w| w <= log.second_offset);
            let held = log
                .backlog
                .as_ref()
                .map(|backlog| (backlog.start(), backlog.end()));
            let is_held = held.is_some_and(|(start, end)| *wanted > start && *wanted <= end + 1);
            if (is_same || was_same) && is_held {
                log.sync_partial_ok += 1;
                let position = wanted - 1;
                if let Some(info) = log.replicas.get_mut(&self.id) {
                    info.sent = position;
                    info.acked = position;
                }
                tracing::info!(
                    replica = self.name,
                    offset = wanted,
                    "Partial resynchronization request accepted"
                );
                return Some((position, log.replid.clone()));
            }
            log.sync_full += 1;
            log.sync_partial_err += 1;
            tracing::info!(
                replica = self.name,
                asked = %format!("{replid}:{wanted}"),
                ours = %format!("{}:{held:?}", log.replid),
                "Full resync: the place asked for is not in the backlog"
            );
            None
        })
    }

    /// Sends a snapshot. Returns the offset where the stream goes on.
    async fn full(
        &self,
        socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
        request: &SyncRequest,
        input: &mut AckReader,
    ) -> std::io::Result<u64> {
        let plan = self.world.snapshot_plan();
        let world = self.world.clone();
        let id = self.id;
        let mut begun = save::begin(
            &self.coordinator,
            &self.world.journal,
            plan,
            move |keyspaces, journal| {
                let place = keyspaces.iter().filter_map(|keyspace| keyspace.place).max();
                if !world.is_replica.load(Ordering::Relaxed) {
                    journal.set_active(true);
                }
                world.log.with(|log| {
                    log.open();
                    // From here on nothing may be let go of that this replica needs.
                    let offset = place.map_or(log.offset(), |place| place.offset);
                    if let Some(info) = log.replicas.get_mut(&id) {
                        info.sent = offset;
                    }
                });
            },
        )
        .await;
        let result = self.send_payload(socket, request, input, &mut begun).await;
        if result.is_err() {
            save::abort(&self.coordinator, begun.id).await;
        }
        result
    }

    async fn send_payload(
        &self,
        socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
        request: &SyncRequest,
        input: &mut AckReader,
        begun: &mut Begun,
    ) -> std::io::Result<u64> {
        // A stream begins without a database, and its first command selects one. That of a primary's stream, which goes on, does not.
        let (offset, db) = match begun.place {
            Some(place) if !begun.is_marked => (place.offset, place.db.0),
            _ => (self.world.log.mark(begun.id.0).await.0, 0),
        };
        let replid = self.world.log.with(|log| log.replid.clone());
        self.change(|info| {
            info.sent = offset;
            info.state = "send_bulk";
        });
        begun.stream.add_aux("repl-stream-db", db.to_string());
        begun.stream.add_aux("repl-id", replid.clone());
        begun.stream.add_aux("repl-offset", offset.to_string());
        if matches!(request, SyncRequest::Psync(_)) {
            socket
                .write_all(format!("+FULLRESYNC {replid} {offset}\r\n").as_bytes())
                .await?;
        }
        let (mut reader, mut writer) = tokio::io::split(&mut *socket);
        if self.peer.takes_mark {
            let mark = crate::clock::random_hex_40();
            writer
                .write_all(format!("$EOF:{mark}\r\n").as_bytes())
                .await?;
            self.send_through_spool(&mut writer, begun).await?;
            writer.write_all(mark.as_bytes()).await?;
            writer.flush().await?;
            if !self.peer.is_rdb_only {
                // Bytes glued to the mark would be lost: the stream waits for the first ACK.
                while input.last_ack.is_none() {
                    input.read(&mut reader).await?;
                }
            }
        } else {
            self.send_with_length(&mut writer, begun).await?;
        }
        Ok(offset)
    }

    /// Sends a payload. The snapshot goes on however slow the peer is.
    async fn send_through_spool(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        begun: &mut Begun,
    ) -> std::io::Result<()> {
        let spool = Spool::new(Path::new(&self.world.config().dir));
        let take = async {
            while let Some(bytes) = begun.stream.next().await.map_err(std::io::Error::other)? {
                spool.push(bytes).await?;
            }
            spool.end();
            Ok(())
        };
        let give = async {
            while let Some(bytes) = spool.pop().await? {
                writer.write_all(&bytes).await?;
            }
            std::io::Result::Ok(())
        };
        tokio::try_join!(take, give)?;
        if spool.spilled() > 0 {
            tracing::info!(
                replica = self.name,
                bytes = spool.spilled(),
                "the replica was slower than the snapshot: part of the payload went through a file"
            );
        }
        Ok(())
    }

    /// For a peer that needs the length first: the payload goes to a file, then to the peer.
    async fn send_with_length(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        begun: &mut Begun,
    ) -> std::io::Result<()> {
        let file = Arc::new(nameless(Path::new(&self.world.config().dir))?);
        let mut bytes_total = 0u64;
        while let Some(bytes) = begun.stream.next().await.map_err(std::io::Error::other)? {
            let (file, at) = (file.clone(), bytes_total);
            bytes_total += bytes.len() as u64;
            blocking(move || std::os::unix::fs::FileExt::write_all_at(&*file, &bytes, at)).await?;
            writer.write_all(b"\n").await?;
            writer.flush().await?;
        }
        writer
            .write_all(format!("${bytes_total}\r\n").as_bytes())
            .await?;
        let mut at = 0;
        while at < bytes_total {
            let (file, len) = (file.clone(), (bytes_total - at).min(1 << 20) as usize);
            let bytes = blocking(move || {
                let mut bytes = vec![0; len];
                std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes, at).map(|()| bytes)
            })
            .await?;
            at += bytes.len() as u64;
            writer.write_all(&bytes).await?;
        }
        writer.flush().await
    }

    /// Sends the log from `position` on, for ever.
    async fn send_log(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        mut position: u64,
    ) -> std::io::Result<()> {
        loop {
            let grown = self.world.log.grown.notified();
            let next = self.world.log.with(|log| {
                let backlog = log.backlog.as_ref().ok_or("the backlog is gone")?;
                if position < backlog.start() || position > backlog.end() {
                    return Err("its place is no longer in the backlog");
                }
                Ok(backlog.after(position))
            });
            match next.map_err(std::io::Error::other)? {
                None => grown.await,
                Some((piece, at)) => {
                    let bytes = &piece[at..];
                    writer.write_all(bytes).await?;
                    writer.flush().await?;
                    position += bytes.len() as u64;
                    self.change(|info| info.sent = position);
                }
            }
        }
    }

    async fn read_acks(
        &self,
        mut reader: impl AsyncRead + Unpin,
        mut input: AckReader,
    ) -> std::io::Result<()> {
        let limit = Duration::from_secs(self.world.config().repl_timeout);
        loop {
            if let Some(acked) = input.last_ack.take() {
                self.change(|info| {
                    info.acked = info.acked.max(acked);
                    info.acked_at = Instant::now();
                });
                self.world.log.grown.notify_waiters();
            }
            match tokio::time::timeout(limit, input.read(&mut reader)).await {
                Ok(result) => result?,
                Err(_) => {
                    return Err(std::io::Error::other(format!(
                        "no ACK for {} s",
                        limit.as_secs()
                    )));
                }
            }
        }
    }
}

/// Reads what a replica sends: ACKs and empty lines.
struct AckReader {
    decoder: RequestDecoder,
    buffer: Vec<u8>,
    last_ack: Option<u64>,
}

impl AckReader {
    fn new() -> AckReader {
        AckReader {
            decoder: RequestDecoder::new(1024),
            buffer: Vec::new(),
            last_ack: None,
        }
    }

    async fn read(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
        if reader.read_buf(&mut self.buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = 0;
        while let Some(consumed) = self
            .decoder
            .decode(&self.buffer[at..])
            .map_err(std::io::Error::other)?
        {
            let request = &self.buffer[at..];
            let words: Vec<&[u8]> = self.decoder.words(request).collect();
            match words.as_slice() {
                [name, option, offset, ..]
                    if name.eq_ignore_ascii_case(b"replconf")
                        && option.eq_ignore_ascii_case(b"ack") =>
                {
                    self.last_ack = std::str::from_utf8(offset)
                        .ok()
                        .and_then(|text| text.parse().ok())
                        .or(self.last_ack);
                }
                [name, ..]
                    if name.eq_ignore_ascii_case(b"psync")
                        || name.eq_ignore_ascii_case(b"sync") => {}
                [name, ..] => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    return Err(std::io::Error::other(format!(
                        "a replica must not send {name}"
                    )));
                }
                [] => {}
            }
            at += consumed;
        }
        self.buffer.drain(..at);
        Ok(())
    }
}

/// Ten times a second, looks whether replicas keep up: too few of them stop writes (`min-replicas-to-write`). Drops replicas that lag by more than `client-output-buffer-limit replica` allows: what they lack is in memory.
pub async fn watch_links(world: Arc<World>) {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let mut over_since: BTreeMap<u64, Instant> = BTreeMap::new();
    loop {
        tick.tick().await;
        world.judge_links();
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
            let end = log.offset();
            let replicas = log.replicas.iter();
            replicas
                .map(|(id, replica)| (*id, end.saturating_sub(replica.sent)))
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
