//! A port without TLS in front of one with it, so that clients that speak none can be used.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use dfsnap_tls::{Connector, Session};
use rustix::event::{PollFd, PollFlags, poll};

const CHUNK_BYTES: usize = 64 * 1024;

/// Opens a tunnel to a port of this machine; it is there until the process ends. Returns its port.
pub fn open(connector: Connector, to: u16) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for plain in listener.incoming().flatten() {
            let connector = connector.clone();
            std::thread::spawn(move || {
                // Either end learns of an error by being closed.
                let _ = TcpStream::connect(("127.0.0.1", to)).and_then(|wire| {
                    let session = connector.begin("localhost").map_err(io::Error::other)?;
                    pump(plain, wire, session)
                });
            });
        }
    });
    port
}

/// What did not go at once.
fn later(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn pump(mut plain: TcpStream, mut wire: TcpStream, mut session: Session) -> io::Result<()> {
    for socket in [&plain, &wire] {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
    }
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let mut has_moved = false;
        if up.is_empty()
            && let Some(read) = later(plain.read(&mut chunk))?
        {
            if read == 0 {
                session.close(&mut wire);
                return Ok(());
            }
            up.extend_from_slice(&chunk[..read]);
        }
        if !up.is_empty()
            && let Some(written) = later(session.write(&mut wire, &up))?
        {
            up.drain(..written);
            has_moved = true;
        }
        if down.is_empty()
            && let Some(read) = later(session.read(&mut wire, &mut chunk))?
        {
            if read == 0 {
                return Ok(());
            }
            down.extend_from_slice(&chunk[..read]);
        }
        if !down.is_empty()
            && let Some(written) = later(plain.write(&down))?
        {
            down.drain(..written);
            has_moved = true;
        }
        later(session.flush(&mut wire).map(|()| 0))?;
        if has_moved {
            continue;
        }
        let flags = |reads: bool, writes: bool| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reads);
            flags.set(PollFlags::OUT, writes);
            flags
        };
        let mut sockets = [
            PollFd::new(&plain, flags(up.is_empty(), !down.is_empty())),
            // The wire may have taken all that the session held since it refused more.
            PollFd::new(
                &wire,
                flags(down.is_empty(), session.wants_write() || !up.is_empty()),
            ),
        ];
        poll(&mut sockets, None)?;
    }
}
