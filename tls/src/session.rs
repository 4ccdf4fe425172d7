//! One session: plain bytes on this side, a socket on the other.
//!
//! `wire` is that socket. It may block, time out or be non-blocking; its `WouldBlock` and `TimedOut` come through, and the call
//! can be made again when the socket is ready. The handshake is part of the first reads and writes.
//!
//! Invariants
//! - An error other than `WouldBlock`, `TimedOut` and `Interrupted` is the end of the session.
//! - What `write` took is kept until the wire takes it: `flush`, and every later call, goes on with it.

use std::cell::RefCell;
use std::io::{self, BufRead, ErrorKind, Read, Write};

use rustls::{Connection, HandshakeKind};

/// Read from the wire at once.
const WIRE_READ_BYTES: usize = 64 * 1024;
/// Room that is kept for the next read of the wire.
const KEPT_BYTES_MAX: usize = 4 * 1024;

thread_local! {
    /// What is read from a wire, before it is known how much it is.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; WIRE_READ_BYTES]);
}

/// One end of an encrypted connection.
pub struct Session {
    connection: Connection,
    /// Bytes of the wire, those before `consumed` given to the protocol. It takes them in small steps, each when the plain bytes
    /// of the one before were taken.
    inbound: Vec<u8>,
    consumed: usize,
    /// The last read had no room for more: there may be plain bytes left.
    may_hold_plain: bool,
}

impl Session {
    pub(crate) fn new(connection: Connection) -> Session {
        Session {
            connection,
            inbound: Vec::new(),
            consumed: 0,
            may_hold_plain: false,
        }
    }

    /// The peer has not shown yet who it is.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Bytes wait for the wire to take them.
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// There may be something to read though the wire stays silent.
    pub fn has_read_ahead(&self) -> bool {
        !self.inbound.is_empty() || self.may_hold_plain
    }

    /// The version of TLS and the cipher, once agreed.
    pub fn description(&self) -> Option<String> {
        let version = self.connection.protocol_version()?;
        let suite = self.connection.negotiated_cipher_suite()?;
        Some(format!("{version:?} {:?}", suite.suite()))
    }

    /// Whether an earlier session went on, once that is known.
    pub fn is_resumed(&self) -> Option<bool> {
        let kind = self.connection.handshake_kind()?;
        Some(kind == HandshakeKind::Resumed)
    }

    /// Goes on with the handshake until it is done.
    pub fn handshake(&mut self, wire: &mut (impl Read + Write)) -> io::Result<()> {
        while self.is_handshaking() {
            self.push_until_full(wire)?;
            if !self.is_handshaking() {
                break;
            }
            if self.inbound.is_empty() && self.refill(wire)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.step(wire)?;
        }
        // The last words may be ours; they can wait for the first bytes.
        self.push_until_full(wire)
    }

    /// Reads what there is, at least one byte unless `buffer` is empty; 0: the peer has closed. The wire is read only if nothing is there.
    pub fn read(&mut self, wire: &mut (impl Read + Write), buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        self.may_hold_plain = false;
        loop {
            filled += match self.connection.reader().read(&mut buffer[filled..]) {
                Ok(0) => return Ok(filled),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                // Closed without a word. The framing of what was read shows whether it was whole.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(filled),
                Err(error) => return Err(error),
            };
            if filled == buffer.len() {
                self.may_hold_plain = true;
                return Ok(filled);
            }
            if self.inbound.is_empty() {
                if filled > 0 {
                    return Ok(filled);
                }
                self.push_until_full(wire)?;
                self.refill(wire)?;
            }
            match self.step(wire) {
                // It comes again with the next read.
                Err(_) if filled > 0 => return Ok(filled),
                result => result?,
            }
        }
    }

    /// Bytes that were read and not taken, after reading some if there are none; empty: the peer has closed.
    pub fn peek(&mut self, wire: &mut (impl Read + Write)) -> io::Result<&[u8]> {
        loop {
            match self.connection.reader().fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(&[]),
                Err(error) => return Err(error),
            }
            if self.inbound.is_empty() {
                self.push_until_full(wire)?;
                self.refill(wire)?;
            }
            self.step(wire)?;
        }
        self.connection.reader().into_first_chunk()
    }

    /// Takes bytes that `peek` showed.
    pub fn consume(&mut self, bytes: usize) {
        self.connection.reader().consume(bytes);
    }

    /// Takes some of `bytes` and gives the wire what it takes. `WouldBlock`: nothing was taken, the wire must first take what waits.
    pub fn write(&mut self, wire: &mut (impl Read + Write), bytes: &[u8]) -> io::Result<usize> {
        self.push_until_full(wire)?;
        let taken = self.connection.writer().write(bytes)?;
        if taken == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.push_until_full(wire)?;
        Ok(taken)
    }

    /// Gives the wire all that waits.
    pub fn flush(&mut self, wire: &mut impl Write) -> io::Result<()> {
        while self.connection.wants_write() {
            if self.connection.write_tls(wire)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Tells the peer that nothing follows, if the wire takes it.
    pub fn close(&mut self, wire: &mut impl Write) {
        self.connection.send_close_notify();
        // Whoever does not listen learns it from the socket.
        let _ = self.flush(wire);
    }

    /// As `flush`, as far as the wire goes.
    fn push_until_full(&mut self, wire: &mut impl Write) -> io::Result<()> {
        match self.flush(wire) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(())
            }
            result => result,
        }
    }

    /// Reads once from the wire. Returns how much it was; 0: it has ended.
    fn refill(&mut self, wire: &mut impl Read) -> io::Result<usize> {
        SCRATCH.with_borrow_mut(|scratch| {
            let read = wire.read(scratch)?;
            self.inbound.extend_from_slice(&scratch[..read]);
            Ok(read)
        })
    }

    /// Gives the protocol some of what was read; if there is nothing, that the wire has ended.
    fn step(&mut self, wire: &mut impl Write) -> io::Result<()> {
        let mut rest = &self.inbound[self.consumed..];
        self.consumed += self.connection.read_tls(&mut rest)?;
        if self.consumed == self.inbound.len() {
            self.consumed = 0;
            self.inbound.clear();
            if self.inbound.capacity() > KEPT_BYTES_MAX {
                self.inbound = Vec::new();
            }
        }
        if let Err(error) = self.connection.process_new_packets() {
            // The peer learns why.
            let _ = self.flush(wire);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.description().unwrap_or_default())
    }
}
