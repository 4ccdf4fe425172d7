//! The socket of a link: plain, or with TLS on it. The driver waits for it and reads and writes what goes at once.

use std::io::{self, Read, Write};

use dfsnap_tls::{Connector, Session};
use tokio::net::TcpStream;

/// A non-blocking socket for [`Session`]s: what cannot go at once is `WouldBlock`.
pub struct TcpWire<'s>(pub &'s TcpStream);

impl Read for TcpWire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for TcpWire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The socket of one link.
pub(super) struct Wire {
    socket: TcpStream,
    session: Option<Session>,
}

impl Wire {
    /// A session with TLS begins with the first bytes, in the name of `host`.
    pub(super) fn new(
        socket: TcpStream,
        connector: Option<&Connector>,
        host: &str,
    ) -> io::Result<Wire> {
        let session = connector.map(|connector| connector.begin(host));
        Ok(Wire {
            socket,
            session: session.transpose().map_err(io::Error::other)?,
        })
    }

    /// Waits until there may be something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self.has_read_ahead() {
            true => Ok(()),
            false => self.socket.readable().await,
        }
    }

    fn has_read_ahead(&self) -> bool {
        self.session.as_ref().is_some_and(Session::has_read_ahead)
    }

    /// Waits until something may be written.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Whether bytes that were taken still wait for the socket.
    pub(super) fn wants_write(&self) -> bool {
        self.session.as_ref().is_some_and(Session::wants_write)
    }

    /// Reads what is there into the room of `buffer`.
    pub(super) fn try_read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let Some(session) = &mut self.session else {
            return self.socket.try_read_buf(buffer);
        };
        let len = buffer.len();
        buffer.resize(buffer.capacity(), 0);
        let read = session.read(&mut TcpWire(&self.socket), &mut buffer[len..]);
        buffer.truncate(len + *read.as_ref().unwrap_or(&0));
        read
    }

    /// Writes what goes at once.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.session {
            Some(session) => session.write(&mut TcpWire(&self.socket), bytes),
            None => self.socket.try_write(bytes),
        }
    }

    /// Goes on with what was taken and waits.
    pub(super) fn try_flush(&mut self) -> io::Result<()> {
        match &mut self.session {
            Some(session) => session.flush(&mut TcpWire(&self.socket)),
            None => Ok(()),
        }
    }
}
