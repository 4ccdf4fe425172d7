//! A primary by hand: it answers a replica's handshake, and the test says what comes behind PSYNC, and when.
//!
//! It shares no code with the server or with `dfsnap-replica`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Ends the payloads that it sends. No part of it is its own beginning again: it is found at one place only, whatever stands before it.
pub const MARK: &[u8; 40] = b"abcdefghijklmnopqrstuvwxyz0123456789ABCD";

/// Listens for replicas.
pub struct ScriptedPrimary {
    pub port: u16,
    asked: Receiver<Asked>,
}

/// A replica that has sent PSYNC and waits. Its connection is closed when this goes.
pub struct Asked {
    /// The words behind PSYNC.
    pub request: Vec<String>,
    stream: TcpStream,
    acked: Arc<AtomicU64>,
}

impl ScriptedPrimary {
    /// It is there as long as the process runs.
    pub fn start() -> ScriptedPrimary {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (sender, asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                // An error is the replica's end.
                std::thread::spawn(move || serve(stream, &sender));
            }
        });
        ScriptedPrimary { port, asked }
    }

    /// The next replica that asks.
    pub fn asked(&self) -> Asked {
        let limit = Duration::from_secs(60);
        self.asked.recv_timeout(limit).expect("a replica asks")
    }
}

fn serve(stream: TcpStream, sender: &Sender<Asked>) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    let acked = Arc::new(AtomicU64::new(0));
    loop {
        let words = request(&mut input)?;
        match words[0].to_ascii_uppercase().as_str() {
            "PING" => out.write_all(b"+PONG\r\n")?,
            "REPLCONF" if words[1].eq_ignore_ascii_case("ack") => {
                acked.store(words[2].parse().unwrap_or(0), Ordering::Relaxed);
            }
            "REPLCONF" => out.write_all(b"+OK\r\n")?,
            "PSYNC" => {
                let asked = Asked {
                    request: words[1..].to_vec(),
                    stream: out.try_clone()?,
                    acked: acked.clone(),
                };
                sender.send(asked).map_err(io::Error::other)?;
            }
            other => panic!("a replica sent {other}"),
        }
    }
}

/// The next request; empty lines say that the replica is there.
fn request(input: &mut BufReader<TcpStream>) -> io::Result<Vec<String>> {
    let count = loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(text) = line.trim_end().strip_prefix('*') {
            break text.parse::<usize>().map_err(io::Error::other)?;
        }
    };
    let mut words = Vec::new();
    for _ in 0..count {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let len: usize = line.trim_end()[1..].parse().map_err(io::Error::other)?;
        let mut word = vec![0; len + 2];
        input.read_exact(&mut word)?;
        words.push(String::from_utf8_lossy(&word[..len]).into_owned());
    }
    Ok(words)
}

impl Asked {
    /// Sends bytes as they are; false if the replica has gone.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// A full sync of this history begins: what comes before the bytes of a payload that ends at [`MARK`].
    pub fn begin_full(&mut self, replid: &str, offset: u64) {
        let mark = String::from_utf8_lossy(MARK);
        assert!(self.send(format!("+FULLRESYNC {replid} {offset}\r\n$EOF:{mark}\r\n").as_bytes()));
    }

    /// All of a full sync.
    pub fn full(&mut self, replid: &str, offset: u64, payload: &[u8]) {
        self.begin_full(replid, offset);
        assert!(self.send(&[payload, MARK].concat()));
    }

    /// What the replica says it has applied.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Sends a payload, slowly until the test says how it goes on.
    pub fn trickle(mut self, payload: Vec<u8>) -> Trickle {
        let is_over = Arc::new(AtomicBool::new(false));
        let shared = is_over.clone();
        let thread = std::thread::spawn(move || {
            let mut sent = 0;
            for piece in payload.chunks(1024) {
                if shared.load(Ordering::Relaxed) || !self.send(piece) {
                    break;
                }
                sent += piece.len();
                // A peer that reads in one thread looks at its clients between two pieces.
                std::thread::sleep(Duration::from_millis(2));
            }
            (self, payload, sent)
        });
        Trickle { is_over, thread }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// A payload on its way.
pub struct Trickle {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(Asked, Vec<u8>, usize)>,
}

impl Trickle {
    fn stop(self) -> (Asked, Vec<u8>, usize) {
        self.is_over.store(true, Ordering::Relaxed);
        let (asked, payload, sent) = self.thread.join().expect("bytes are sent");
        assert!(sent < payload.len(), "it was to take longer");
        (asked, payload, sent)
    }

    /// The connection is cut.
    pub fn cut(self) {
        self.stop();
    }

    /// The rest, and the mark.
    pub fn finish(self) -> Asked {
        let (mut asked, payload, sent) = self.stop();
        assert!(asked.send(&[&payload[sent..], MARK].concat()));
        asked
    }
}
