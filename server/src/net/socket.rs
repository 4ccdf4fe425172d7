//! A client's socket: TCP, with TLS on it or not, or Unix.
//!
//! A TLS session is shared with `emergency`, which looks into it while a script holds the thread. It is borrowed inside a poll only.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use dfsnap_replica::TcpWire;
use dfsnap_tls::Session;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Any kind.
pub enum Socket {
    /// Over the network.
    Tcp(TcpStream),
    /// Over the network, encrypted.
    Tls(Rc<TlsSocket>),
    /// Through a file.
    Unix(UnixStream),
}

/// A TCP connection and the session on it.
pub struct TlsSocket {
    tcp: TcpStream,
    /// Its handshake is done.
    pub session: RefCell<Session>,
}

impl TlsSocket {
    /// Around a session whose handshake is done.
    pub fn new(tcp: TcpStream, session: Session) -> TlsSocket {
        TlsSocket {
            tcp,
            session: RefCell::new(session),
        }
    }

    /// Does `what` with the session as soon as the socket lets it.
    fn poll<T>(
        &self,
        context: &mut Context<'_>,
        is_write: bool,
        mut what: impl FnMut(&mut Session, &mut TcpWire<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let mut session = self.session.borrow_mut();
            match what(&mut session, &mut TcpWire(&self.tcp)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            if is_write {
                ready!(self.tcp.poll_write_ready(context))?;
                continue;
            }
            // The peer may wait for words of the protocol before it says more.
            let may_write = session.wants_write() && {
                let ready = self.tcp.poll_write_ready(context)?;
                ready.is_ready()
            };
            if !may_write {
                ready!(self.tcp.poll_read_ready(context))?;
            }
        }
    }
}

impl AsFd for TlsSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl Drop for TlsSocket {
    fn drop(&mut self) {
        self.session.get_mut().close(&mut TcpWire(&self.tcp));
    }
}

impl Socket {
    /// Waits until there is something to read, or the peer has gone.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.readable().await,
            Socket::Tls(socket) => {
                poll_fn(|context| {
                    socket.poll(context, false, |session, wire| {
                        session.peek(wire).map(|_| ())
                    })
                })
                .await
            }
            Socket::Unix(stream) => stream.readable().await,
        }
    }
}

impl Socket {
    /// Whether the peer has neither closed nor said anything.
    pub fn is_quiet(&self) -> bool {
        let read = match self {
            Socket::Tcp(stream) => stream.try_read(&mut [0]).map(|_| ()),
            Socket::Unix(stream) => stream.try_read(&mut [0]).map(|_| ()),
            Socket::Tls(socket) => {
                let mut session = socket.session.borrow_mut();
                session.peek(&mut TcpWire(&socket.tcp)).map(|_| ())
            }
        };
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Socket::Tcp(stream) => stream.as_raw_fd(),
            Socket::Tls(socket) => socket.tcp.as_raw_fd(),
            Socket::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Tls(socket) => {
                let room = buffer.initialize_unfilled();
                let read = socket.poll(context, false, |session, wire| session.read(wire, room));
                read.map_ok(|read| buffer.advance(read))
            }
            Socket::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Tls(socket) => {
                socket.poll(context, true, |session, wire| session.write(wire, bytes))
            }
            Socket::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    /// With TLS, what was written may still wait here: a flush ends each bundle of writes.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Socket::Tls(socket) => socket.poll(context, true, |session, wire| session.flush(wire)),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            // It says goodbye when it is dropped.
            Socket::Tls(_) => Poll::Ready(Ok(())),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
