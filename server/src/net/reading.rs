//! What a connection waits for between two rounds of requests, and the buffer that it reads into.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::connection::{Connection, READ_BYTES, query_limit};
use super::socket::Socket;
use super::transaction::Transaction;
use crate::config::Config;
use crate::config::words::MemoryLimit;

/// What a connection was woken by.
pub enum SocketEvent {
    /// So many bytes came; none: the client has gone.
    Read(usize),
    /// There is something to write that the client did not ask for.
    Pushes,
    /// The client has been silent for too long.
    Idle,
}

/// When so much of a long word has come, there is room for all of it.
const WELL_ON_ITS_WAY: usize = 1 << 20;

/// Reads what is there. `pending`: so much is missing of a word whose beginning is in the buffer. A buffer that was let go of comes back only
/// when there is something.
async fn read_into(
    socket: &mut Socket,
    buffer: &mut Vec<u8>,
    pending: Option<usize>,
) -> std::io::Result<usize> {
    if buffer.capacity() == 0 {
        socket.readable().await?;
    }
    let known = buffer.len();
    match pending {
        // No more room than a long word needs, and not all at once for one that is only announced. Of one that is on its way, what has come
        // would be copied again and again.
        Some(missing) if known >= WELL_ON_ITS_WAY => buffer.reserve_exact(missing.max(1)),
        Some(missing) if known.max(missing) >= READ_BYTES => {
            buffer.reserve_exact(missing.min(known.max(READ_BYTES)).max(1));
        }
        _ => buffer.reserve(READ_BYTES),
    }
    socket.read_buf(buffer).await
}

/// How much of a client's requests is taken in while its replies cannot be written. With `maxmemory-clients` it is nothing: it would be
/// disconnected for that.
pub(super) fn room_while_writing(config: &Config) -> usize {
    match config.maxmemory_clients {
        MemoryLimit::Bytes(0) | MemoryLimit::Percent(0) => query_limit(config),
        _ => 0,
    }
}

/// Writes all of `bytes`. While that must wait, what comes is added to `buffer`, as long as that has less than `room`.
pub(super) async fn write_reading(
    socket: &mut Socket,
    bytes: &[u8],
    buffer: &mut Vec<u8>,
    room: usize,
) -> std::io::Result<()> {
    let (mut at, mut is_open, mut piece) = (0, true, Vec::new());
    poll_fn(|context| {
        loop {
            match Pin::new(&mut *socket).poll_write(context, &bytes[at..])? {
                Poll::Ready(0) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                Poll::Ready(written) => {
                    at += written;
                    if at == bytes.len() {
                        return Poll::Ready(Ok(()));
                    }
                    continue;
                }
                Poll::Pending => {}
            }
            if !is_open || buffer.len() >= room {
                return Poll::Pending;
            }
            piece.resize(READ_BYTES, 0);
            let mut read = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut *socket).poll_read(context, &mut read))?;
            // Its end is met again when all is written.
            is_open = !read.filled().is_empty();
            buffer.extend_from_slice(read.filled());
        }
    })
    .await
}

impl Connection {
    /// Writes the replies with more requests to come: one that sends them all before it reads a reply would wait for ever, as this end does for it.
    /// They are taken in meanwhile, to run when the replies are out. Returns whether something was.
    pub(super) async fn write_and_read(
        &mut self,
        socket: &mut Socket,
        buffer: &mut Vec<u8>,
    ) -> std::io::Result<bool> {
        let before = buffer.len();
        self.write_out(socket, Some(&mut *buffer)).await?;
        let read = buffer.len() - before;
        let counters = &self.thread.world.counters;
        counters.net_input.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read > 0)
    }

    /// Waits for requests, for pushes to write, or for the client to be silent for too long.
    pub(super) async fn next_event(
        &mut self,
        socket: &mut Socket,
        buffer: &mut Vec<u8>,
        pending: Option<usize>,
    ) -> std::io::Result<SocketEvent> {
        let limit = self.idle_limit();
        let idle = tokio::time::sleep(limit.unwrap_or_default());
        tokio::pin!(idle);
        let outbox = self.client.outbox.clone();
        loop {
            tokio::select! {
                read = read_into(socket, buffer, pending) => return Ok(SocketEvent::Read(read?)),
                () = &mut idle, if limit.is_some() => return Ok(SocketEvent::Idle),
                () = outbox.filled.notified() => {
                    if self.client.is_silent.swap(false, Ordering::Relaxed) && buffer.is_empty() {
                        *buffer = Vec::new();
                        self.show_buffer(buffer);
                    }
                    if !outbox.is_empty() {
                        return Ok(SocketEvent::Pushes);
                    }
                }
            }
        }
    }

    /// What CLIENT LIST shows of the query buffer.
    pub(super) fn show_buffer(&self, buffer: &Vec<u8>) {
        let [used, free] = &self.client.query_bytes;
        used.store(buffer.len(), Ordering::Relaxed);
        free.store(buffer.capacity() - buffer.len(), Ordering::Relaxed);
    }

    /// Says what the client takes. False if it is disconnected for it.
    #[inline]
    pub(super) fn note_memory(&mut self) -> bool {
        let multi = self.transaction.as_ref().map_or(0, Transaction::bytes);
        let kept = self.out.buf_mut().capacity()
            + multi
            + self.watched_bytes
            + self.subscriptions.bytes()
            + self.tracking.bytes();
        self.client.multi_bytes.store(multi, Ordering::Relaxed);
        self.client.kept_bytes.store(kept, Ordering::Relaxed);
        self.thread.world.note_client_memory(&self.client)
    }

    /// How long the client may be silent (`timeout`): those that listen may be for ever.
    fn idle_limit(&self) -> Option<Duration> {
        let seconds = self.thread.world.config().timeout;
        let is_limited = seconds > 0 && !self.is_monitor && self.subscriptions.is_empty();
        is_limited.then(|| Duration::from_secs(seconds))
    }
}
