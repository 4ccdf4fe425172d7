//! A connected socket, TCP (with TLS or without) or Unix, with timeouts.

use super::url::{Endpoint, Url};
use dfsnap_tls::Session;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Tls(TcpStream, Box<Session>),
    Unix(UnixStream),
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Socket {
    /// Tries every address of the host; the error is that of the last one.
    pub fn connect(url: &Url) -> io::Result<Socket> {
        match &url.endpoint {
            Endpoint::Unix(path) => UnixStream::connect(path).map(Socket::Unix),
            Endpoint::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                        Ok(socket) => {
                            socket.set_nodelay(true)?;
                            return match &url.tls {
                                Some(tls) => shake_hands(socket, tls.begin()?),
                                None => Ok(Socket::Tcp(socket)),
                            };
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    /// How long one read or one write may wait.
    pub fn set_timeouts(&self, read: Duration, write: Duration) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) | Socket::Tls(socket, _) => {
                socket.set_read_timeout(Some(read))?;
                socket.set_write_timeout(Some(write))
            }
            Socket::Unix(socket) => {
                socket.set_read_timeout(Some(read))?;
                socket.set_write_timeout(Some(write))
            }
        }
    }
}

/// Nothing came within the timeout of a read.
pub fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.read(buf),
            Socket::Tls(socket, session) => session.read(socket, buf).map_err(of_tls),
            Socket::Unix(socket) => socket.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.write(buf),
            Socket::Tls(socket, session) => session.write(socket, buf).map_err(of_tls),
            Socket::Unix(socket) => socket.write(buf),
        }
    }

    /// With TLS, what the server did not take within a timeout may still be here.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Socket::Tls(socket, session) => session.flush(socket).map_err(of_tls),
            Socket::Tcp(_) | Socket::Unix(_) => Ok(()),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Socket::Tls(socket, session) = self {
            session.close(socket);
        }
    }
}

/// Here already, so that a certificate that is refused is told as such.
fn shake_hands(mut socket: TcpStream, mut session: Session) -> io::Result<Socket> {
    socket.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    socket.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    session
        .handshake(&mut socket)
        .map_err(|error| match is_timeout(&error) {
            true => io::Error::new(error.kind(), "TLS: no handshake within 5 seconds"),
            false => of_tls(error),
        })?;
    Ok(Socket::Tls(socket, Box::new(session)))
}

/// Marks what the protocol says, so that the advice fits it.
fn of_tls(error: io::Error) -> io::Error {
    use io::ErrorKind::{InvalidData, UnexpectedEof};
    match error.kind() {
        kind @ (InvalidData | UnexpectedEof) => io::Error::new(kind, format!("TLS: {error}")),
        _ => error,
    }
}
