//! Failures of files on demand: how tests see what becomes of a save or a load when its n-th operation fails.
//!
//! `DEBUG FILE-FAULT n kind` arms the n-th operation from then on; `DEBUG FILE-OPERATIONS` tells how many there were. Unarmed, an
//! operation costs one addition to a counter that nobody else touches.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device reports an error.
    Io = 1,
    /// The device is full.
    NoSpace = 2,
    /// A write takes fewer bytes than it was given, a read gives fewer. No failure: whoever asked must ask again.
    Short = 3,
    /// The process is killed.
    Kill = 4,
}

static COUNT: AtomicU64 = AtomicU64::new(0);
/// The operation that fails; 0 = none.
static ARMED: AtomicU64 = AtomicU64::new(0);
static KIND: AtomicU8 = AtomicU8::new(0);

impl Fault {
    /// `eio`, `enospc`, `short` or `kill`.
    pub fn parse(name: &str) -> Option<Fault> {
        Some(match name.to_ascii_lowercase().as_str() {
            "eio" => Fault::Io,
            "enospc" => Fault::NoSpace,
            "short" => Fault::Short,
            "kill" => Fault::Kill,
            _ => return None,
        })
    }
}

/// Operations so far.
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Lets the `nth` operation from now fail, 1 being the next; 0 disarms.
pub fn arm(nth: u64, fault: Fault) {
    KIND.store(fault as u8, Ordering::Relaxed);
    let armed = if nth == 0 { 0 } else { count() + nth };
    ARMED.store(armed, Ordering::Relaxed);
}

/// Stands before every operation on a file. The answer tells whether a transfer is to be short.
pub fn operation() -> io::Result<bool> {
    let number = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    if ARMED.load(Ordering::Relaxed) != number {
        return Ok(false);
    }
    match KIND.load(Ordering::Relaxed) {
        1 => Err(io::Error::from_raw_os_error(libc::EIO)),
        2 => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        3 => Ok(true),
        _ => {
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            // The signal is on its way.
            loop {
                std::thread::park();
            }
        }
    }
}

/// A file to read, with faults.
pub struct FaultyRead<R>(pub R);

impl<R: io::Read> io::Read for FaultyRead<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let room = if operation()? {
            out.len().min(1)
        } else {
            out.len()
        };
        self.0.read(&mut out[..room])
    }
}
