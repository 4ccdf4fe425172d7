//! A proxy between a replica and its primary that cuts the connection once, at a place of the protocol.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before the answer to PSYNC has passed.
    Handshake,
    /// Behind some of the payload.
    Payload,
    /// Behind some of what follows the payload, once the replica has acknowledged something.
    Stream,
}

pub struct Proxy {
    pub port: u16,
    has_cut: Arc<AtomicBool>,
}

impl Proxy {
    /// Leads to this port as long as the process runs.
    pub fn start(to: u16, cut: Option<Cut>) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let has_cut = Arc::new(AtomicBool::new(cut.is_none()));
        let shared = has_cut.clone();
        std::thread::spawn(move || {
            for replica in listener.incoming().flatten() {
                let Ok(primary) = TcpStream::connect(("127.0.0.1", to)) else {
                    continue;
                };
                let cut = cut.filter(|_| !shared.load(Ordering::Relaxed));
                carry(replica, primary, cut, shared.clone());
            }
        });
        Proxy { port, has_cut }
    }

    pub fn has_cut(&self) -> bool {
        self.has_cut.load(Ordering::Relaxed)
    }
}

fn carry(replica: TcpStream, primary: TcpStream, cut: Option<Cut>, has_cut: Arc<AtomicBool>) {
    let ends = (
        replica.try_clone().expect("a socket"),
        primary.try_clone().expect("a socket"),
    );
    let has_acked = Arc::new(AtomicBool::new(false));
    let shared = has_acked.clone();
    std::thread::spawn(move || {
        copy(&ends.0, &ends.1, |bytes| {
            if bytes.windows(3).any(|word| word == b"ACK") {
                shared.store(true, Ordering::Relaxed);
            }
            true
        });
    });
    std::thread::spawn(move || {
        let mut seen = Seen::default();
        copy(&primary, &replica, |bytes| {
            let is_loaded = cut != Some(Cut::Stream) || has_acked.load(Ordering::Relaxed);
            let goes_on = cut.is_none_or(|cut| !(seen.reaches(cut, bytes) && is_loaded));
            if !goes_on {
                has_cut.store(true, Ordering::Relaxed);
            }
            goes_on
        });
    });
}

/// What a primary has sent.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    /// Where the payload begins, and where it ends.
    payload: Option<(usize, Option<usize>)>,
}

impl Seen {
    /// Whether these bytes lead to where the connection is to be cut.
    fn reaches(&mut self, cut: Cut, bytes: &[u8]) -> bool {
        self.bytes.extend_from_slice(bytes);
        let all = &self.bytes;
        let find = |from: usize, word: &[u8]| {
            let rest = &all[from.min(all.len())..];
            rest.windows(word.len())
                .position(|w| w == word)
                .map(|at| from + at)
        };
        if cut == Cut::Handshake {
            return find(0, b"+FULLRESYNC").is_some();
        }
        if self.payload.is_none() {
            let Some(at) = find(0, b"+FULLRESYNC").and_then(|at| find(at, b"$")) else {
                return false;
            };
            let Some(end) = find(at, b"\r\n") else {
                return false;
            };
            let head = &all[at + 1..end];
            let start = end + 2;
            let length = std::str::from_utf8(head)
                .ok()
                .and_then(|text| text.parse::<usize>().ok());
            self.payload = Some((start, length.map(|length| start + length)));
        }
        let Some((start, end)) = &mut self.payload else {
            return false;
        };
        if cut == Cut::Payload {
            return all.len() > *start + 50_000;
        }
        if end.is_none() {
            let mark = &all[*start - 42..*start - 2];
            let tail = all.len().saturating_sub(bytes.len() + 40).max(*start);
            let found = all[tail..].windows(40).position(|w| w == mark);
            *end = found.map(|at| tail + at + 40);
        }
        end.is_some_and(|end| all.len() > end + 20)
    }
}

/// Carries bytes until an end closes or `goes_on` says no; then both ends are closed.
fn copy(mut from: &TcpStream, mut to: &TcpStream, mut goes_on: impl FnMut(&[u8]) -> bool) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut bytes) {
        if read == 0 || !goes_on(&bytes[..read]) || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
