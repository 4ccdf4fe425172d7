//! A payload between the snapshot that makes it and the replica that takes it: what the replica is too slow for goes to a file.
//!
//! The snapshot's budget is small, and writes wait while it is spent. So what comes is taken at once, however slow the replica is: a mebibyte
//! stays in memory, the rest in a file without a name, which is gone with this value.
//!
//! Invariants
//! - Bytes come out in the order in which they went in.
//! - Memory holds at most `MEMORY_BYTES` and one piece.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

/// Bytes kept in memory.
const MEMORY_BYTES: usize = 1 << 20;
/// Bytes read from the file at once.
const READ_BYTES: u64 = 256 << 10;

/// Bytes on their way from one task to another of the same thread.
pub struct Spool {
    state: RefCell<State>,
    changed: Notify,
    directory: PathBuf,
}

#[derive(Default)]
struct State {
    memory: VecDeque<Vec<u8>>,
    memory_bytes: usize,
    file: Option<Arc<File>>,
    /// Bytes of the file that are written and that are read: what is between comes behind `memory`.
    written: u64,
    read: u64,
    /// No more will come.
    is_ended: bool,
}

impl Spool {
    /// An empty one; its file would be in this directory.
    pub fn new(directory: &Path) -> Spool {
        Spool {
            state: RefCell::default(),
            changed: Notify::new(),
            directory: directory.to_owned(),
        }
    }

    /// Adds bytes at the end.
    pub async fn push(&self, bytes: Vec<u8>) -> io::Result<()> {
        if let Some((file, at)) = self.place()? {
            let len = bytes.len() as u64;
            blocking(move || file.write_all_at(&bytes, at)).await?;
            self.state.borrow_mut().written = at + len;
        } else {
            let mut state = self.state.borrow_mut();
            state.memory_bytes += bytes.len();
            state.memory.push_back(bytes);
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Where the next bytes go in the file; `None`: they stay in memory.
    fn place(&self) -> io::Result<Option<(Arc<File>, u64)>> {
        let mut state = self.state.borrow_mut();
        if state.read == state.written && state.memory_bytes < MEMORY_BYTES {
            return Ok(None);
        }
        let file = match &state.file {
            Some(file) => file.clone(),
            None => state
                .file
                .insert(Arc::new(nameless(&self.directory)?))
                .clone(),
        };
        Ok(Some((file, state.written)))
    }

    /// No more will come.
    pub fn end(&self) {
        self.state.borrow_mut().is_ended = true;
        self.changed.notify_one();
    }

    /// The next bytes, waiting for them; `None` at the end.
    pub async fn pop(&self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let from_file = {
                let mut state = self.state.borrow_mut();
                if let Some(bytes) = state.memory.pop_front() {
                    state.memory_bytes -= bytes.len();
                    return Ok(Some(bytes));
                }
                let len = (state.written - state.read).min(READ_BYTES);
                match &state.file {
                    Some(file) if len > 0 => Some((file.clone(), state.read, len)),
                    _ if state.is_ended => return Ok(None),
                    _ => None,
                }
            };
            let Some((file, at, len)) = from_file else {
                self.changed.notified().await;
                continue;
            };
            let read = move || {
                let mut bytes = vec![0; len as usize];
                file.read_exact_at(&mut bytes, at).map(|()| bytes)
            };
            let bytes = blocking(read).await?;
            self.state.borrow_mut().read = at + len;
            return Ok(Some(bytes));
        }
    }

    /// Bytes that went through the file so far.
    pub fn spilled(&self) -> u64 {
        self.state.borrow().written
    }
}

/// A file that has no name: whatever happens, nothing stays behind.
pub fn nameless(directory: &Path) -> io::Result<File> {
    let name = format!(
        "temp-{}-{}",
        std::process::id(),
        crate::clock::random_hex_40()
    );
    let path = directory.join(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Runs file I/O on a thread that may block.
pub async fn blocking<R: Send + 'static>(run: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(run)
        .await
        .expect("file I/O does not panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn bytes_keep_their_order_through_memory_and_file() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path());
        let mut random = fastrand::Rng::with_seed(5);
        let (mut wanted, mut found) = (Vec::new(), Vec::new());
        for round in 0..200u32 {
            let bytes = vec![round as u8; random.usize(1..60_000)];
            wanted.extend_from_slice(&bytes);
            spool.push(bytes).await.unwrap();
            // At first the reader stands still, then it is faster than the writer.
            for _ in 0..if round < 100 { 0 } else { random.usize(..4) } {
                let has_more = found.len() < wanted.len();
                if has_more {
                    found.extend(spool.pop().await.unwrap().expect("more"));
                }
            }
        }
        spool.end();
        while let Some(bytes) = spool.pop().await.unwrap() {
            found.extend(bytes);
        }
        assert!(found == wanted);
        assert!(spool.spilled() > 0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
