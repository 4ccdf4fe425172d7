//! A replica in the rawest form: a socket that does the handshake, reads the payload and then commands, as bytes count them.
//!
//! Tests use it to see exactly what a primary sends. It shares no code with the server or with `dfsnap-replica`.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection to a primary that has asked for the stream.
pub struct RawReplica {
    stream: TcpStream,
    /// Bytes read and not used yet.
    buffer: Vec<u8>,
    /// `FULLRESYNC` or `CONTINUE` and what follows it.
    pub answer: String,
    /// The payload of a full sync.
    pub payload: Vec<u8>,
    /// Bytes of the stream handed out so far, and the offset it began at.
    pub offset: u64,
}

impl RawReplica {
    /// A full sync with all that a real replica says of itself.
    pub fn full(port: u16) -> io::Result<RawReplica> {
        let mut replica = RawReplica::connect(port)?;
        replica.say(&["REPLCONF", "capa", "eof", "capa", "psync2"])?;
        expect(&replica.line()?, "+OK")?;
        replica.sync(&["PSYNC", "?", "-1"])?;
        Ok(replica)
    }

    /// Connected, and nothing said.
    pub fn connect(port: u16) -> io::Result<RawReplica> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(RawReplica {
            stream,
            buffer: Vec::new(),
            answer: String::new(),
            payload: Vec::new(),
            offset: 0,
        })
    }

    /// Sends a command.
    pub fn say(&mut self, words: &[&str]) -> io::Result<()> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.stream.write_all(&crate::client::frame(&words))
    }

    /// Sends PSYNC or SYNC, and reads up to where the stream begins.
    pub fn sync(&mut self, request: &[&str]) -> io::Result<()> {
        self.say(request)?;
        if request[0].eq_ignore_ascii_case("PSYNC") {
            self.answer = self.full_line()?;
            if self.answer.starts_with("+CONTINUE") {
                let wanted: u64 = request[2].parse().map_err(io::Error::other)?;
                self.offset = wanted - 1;
                return Ok(());
            }
            let offset = self.answer.rsplit(' ').next().unwrap_or_default();
            self.offset = offset
                .parse()
                .map_err(|_| io::Error::other(self.answer.clone()))?;
        }
        self.read_payload()
    }

    /// Reads the payload in either form, and acknowledges it.
    pub fn read_payload(&mut self) -> io::Result<()> {
        let header = self.full_line()?;
        match header.strip_prefix("$EOF:") {
            Some(mark) => {
                let mark = mark.as_bytes().to_vec();
                let mut searched = 0;
                let end = loop {
                    let rest = &self.buffer[searched..];
                    let found = rest.windows(mark.len()).position(|w| w == mark);
                    if let Some(at) = found {
                        break searched + at;
                    }
                    searched = (searched + rest.len()).saturating_sub(mark.len());
                    self.fill()?;
                };
                self.payload = self.buffer[..end].to_vec();
                self.buffer.drain(..end + mark.len());
            }
            None => {
                let length = header.strip_prefix('$').and_then(|text| text.parse().ok());
                let length: usize = length.ok_or_else(|| io::Error::other(header.clone()))?;
                while self.buffer.len() < length {
                    self.fill()?;
                }
                self.payload = self.buffer[..length].to_vec();
                self.buffer.drain(..length);
            }
        }
        self.ack()
    }

    /// Says how much it has.
    pub fn ack(&mut self) -> io::Result<()> {
        let offset = self.offset.to_string();
        self.say(&["REPLCONF", "ACK", &offset])
    }

    /// The history that the primary named.
    pub fn replid(&self) -> &str {
        self.answer.split(' ').nth(1).unwrap_or_default()
    }

    /// One line without its end; empty lines only keep the connection alive.
    pub fn full_line(&mut self) -> io::Result<String> {
        loop {
            let line = self.line()?;
            if !line.is_empty() {
                return Ok(line);
            }
        }
    }

    /// One line without its end.
    pub fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&b| b == b'\n') {
                let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..=end);
                return Ok(line.trim_end().to_owned());
            }
            self.fill()?;
        }
    }

    /// The next command of the stream. An ACK goes out while nothing comes, as a real replica sends one each second: the first may
    /// be lost.
    pub fn command(&mut self) -> io::Result<Vec<Vec<u8>>> {
        loop {
            if let Some((words, len)) = parse(&self.buffer)? {
                self.buffer.drain(..len);
                self.offset += len as u64;
                return Ok(words);
            }
            self.stream
                .set_read_timeout(Some(Duration::from_millis(200)))?;
            let mut patience = 300;
            loop {
                match self.fill() {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock && patience > 0 => {
                        patience -= 1;
                        self.ack()?;
                    }
                    Err(error) => return Err(error),
                }
            }
            self.stream
                .set_read_timeout(Some(Duration::from_secs(60)))?;
        }
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.buffer.extend_from_slice(&bytes[..read]);
                Ok(())
            }
        }
    }
}

fn expect(line: &str, wanted: &str) -> io::Result<()> {
    if line == wanted {
        return Ok(());
    }
    Err(io::Error::other(format!("{line:?} instead of {wanted:?}")))
}

/// A command of words and the bytes it takes; `None` if it is not complete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Vec<Vec<u8>>, usize)>> {
    let mut at = 0;
    let Some(count) = number(bytes, &mut at, b'*')? else {
        return Ok(None);
    };
    let mut words = Vec::new();
    for _ in 0..count {
        let Some(len) = number(bytes, &mut at, b'$')? else {
            return Ok(None);
        };
        if bytes.len() < at + len + 2 {
            return Ok(None);
        }
        words.push(bytes[at..at + len].to_vec());
        at += len + 2;
    }
    Ok(Some((words, at)))
}

fn number(bytes: &[u8], at: &mut usize, mark: u8) -> io::Result<Option<usize>> {
    let rest = &bytes[*at..];
    let Some(end) = rest.windows(2).position(|w| w == b"\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&rest[..end]).unwrap_or_default();
    let number = text
        .strip_prefix(char::from(mark))
        .and_then(|text| text.parse().ok());
    *at += end + 2;
    number
        .map(Some)
        .ok_or_else(|| io::Error::other(format!("{text:?} in the stream")))
}
