//! The payload of a full sync between the snapshot that makes it and the replicas that take it, each at its own pace.
//!
//! `replication::sync` has a thread put the bytes in; connections of replicas (`replication::primary`) take them out. The snapshot's
//! budget is small, and writes wait while it is spent, so what comes is taken at once, however slow the replicas are: a mebibyte stays in
//! memory, and what somebody still needs besides goes to a file without a name, which is gone with this value.
//!
//! Invariants
//! - Each reader gets all bytes in the order in which they went in.
//! - Memory holds at most `MEMORY_BYTES` and one piece, whatever the number of readers.
//! - Once nobody reads any more, putting in fails: nobody pays for a snapshot that no one wants.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::log::nameless;
use crate::threads;

/// Bytes kept in memory.
const MEMORY_BYTES: u64 = 1 << 20;
/// Bytes read from the file at once.
const READ_BYTES: u64 = 256 << 10;

/// One snapshot's bytes, shared by all replicas that were waiting for it.
pub struct Payload {
    state: Mutex<State>,
    changed: Notify,
    directory: PathBuf,
}

#[derive(Default)]
struct State {
    /// The last pieces; the first begins at `memory_start`.
    memory: VecDeque<Arc<[u8]>>,
    memory_start: u64,
    /// Bytes put in so far.
    written: u64,
    /// Holds all from the given place to `written`, if there is one.
    spill: Option<(Arc<File>, u64)>,
    /// Bytes that went through a file.
    spilled: u64,
    /// How far each reader is, by the id of its client.
    readers: BTreeMap<u64, u64>,
    /// Those who left with all of it.
    served: Vec<u64>,
    /// No more will come, because all is there or something failed.
    end: Option<Result<(), String>>,
}

/// What a reader finds.
enum Found {
    Bytes(Arc<[u8]>, usize),
    InFile(Arc<File>, u64, usize),
    End,
    NotYet,
}

impl Payload {
    /// An empty one for these readers; its file would be in this directory.
    pub fn new(directory: &Path, readers: impl IntoIterator<Item = u64>) -> Payload {
        let state = State {
            readers: readers.into_iter().map(|id| (id, 0)).collect(),
            ..State::default()
        };
        Payload {
            state: Mutex::new(state),
            changed: Notify::new(),
            directory: directory.to_owned(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more reader, if nothing is let go of yet and the snapshot is still wanted.
    pub fn join(&self, reader: u64) -> bool {
        let mut state = self.state();
        let first = match &state.spill {
            Some((_, start)) => *start,
            None => state.memory_start,
        };
        let is_whole =
            first == 0 && !state.readers.is_empty() && !matches!(state.end, Some(Err(_)));
        if is_whole {
            state.readers.insert(reader, 0);
        }
        is_whole
    }

    /// A reader has gone, or has all. Who has left does not count again.
    pub fn leave(&self, reader: u64) {
        let mut state = self.state();
        let Some(at) = state.readers.remove(&reader) else {
            return;
        };
        if at == state.written && matches!(state.end, Some(Ok(()))) {
            state.served.push(reader);
        }
        state.let_go();
        if state.readers.is_empty() {
            self.changed.notify_waiters();
        }
    }

    /// Waits until nobody reads any more.
    pub async fn unwanted(&self) {
        loop {
            let changed = self.changed.notified();
            if self.state().readers.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Those who left with all of it so far.
    pub fn served(&self) -> Vec<u64> {
        self.state().served.clone()
    }

    /// Adds bytes at the end. Runs on a thread that may block.
    pub fn push(&self, bytes: Vec<u8>) -> io::Result<()> {
        let mut state = self.state();
        if state.readers.is_empty() {
            return Err(io::Error::other("no replica waits for it any more"));
        }
        // Nothing is written under the lock, and readers go on meanwhile: they do not look behind `written`.
        if state.spill.is_none() && state.written - state.memory_start >= MEMORY_BYTES {
            let (pieces, start) = (state.memory.clone(), state.memory_start);
            drop(state);
            let file = Arc::new(nameless(&self.directory)?);
            let mut at = 0;
            for piece in pieces {
                file.write_all_at(&piece, at)?;
                at += piece.len() as u64;
            }
            state = self.state();
            state.spilled += at;
            state.spill = Some((file, start));
        }
        if let Some((file, start)) = state.spill.clone() {
            let at = state.written - start;
            drop(state);
            file.write_all_at(&bytes, at)?;
            state = self.state();
            state.spilled += bytes.len() as u64;
        }
        state.written += bytes.len() as u64;
        state.memory.push_back(bytes.into());
        state.let_go();
        drop(state);
        self.changed.notify_waiters();
        Ok(())
    }

    /// All of it at once: it is in this file already.
    pub fn put_file(&self, file: File, bytes: u64) {
        let mut state = self.state();
        assert_eq!(state.written, 0, "a payload that was begun otherwise");
        state.written = bytes;
        state.spill = Some((Arc::new(file), 0));
        state.let_go();
    }

    /// No more will come.
    pub fn end(&self, result: Result<(), String>) {
        self.state().end = Some(result);
        self.changed.notify_waiters();
    }

    /// The bytes in all, once they are all there.
    pub async fn len(&self) -> io::Result<u64> {
        loop {
            let changed = self.changed.notified();
            {
                let state = self.state();
                match &state.end {
                    None => {}
                    Some(Ok(())) => return Ok(state.written),
                    Some(Err(error)) => return Err(io::Error::other(error.clone())),
                }
            }
            changed.await;
        }
    }

    /// The next bytes for a reader, waiting for them; `None` at the end. What it got before it has used.
    pub async fn next(&self, reader: u64) -> io::Result<Option<(Arc<[u8]>, usize)>> {
        loop {
            let changed = self.changed.notified();
            let found = self.state().find(reader)?;
            match found {
                Found::Bytes(piece, at) => return Ok(Some((piece, at))),
                Found::End => return Ok(None),
                Found::NotYet => changed.await,
                Found::InFile(file, at, len) => {
                    let read = move || {
                        let mut bytes = vec![0; len];
                        file.read_exact_at(&mut bytes, at)
                            .map(|()| Arc::<[u8]>::from(bytes))
                    };
                    let bytes = threads::run("payload-read", read).await.flatten()?;
                    return Ok(Some((bytes, 0)));
                }
            }
        }
    }

    /// A reader has used so many bytes.
    pub fn advance(&self, reader: u64, bytes: usize) {
        let mut state = self.state();
        if let Some(at) = state.readers.get_mut(&reader) {
            *at += bytes as u64;
        }
        state.let_go();
    }

    /// Bytes that went through a file so far.
    pub fn spilled(&self) -> u64 {
        self.state().spilled
    }
}

impl State {
    fn find(&self, reader: u64) -> io::Result<Found> {
        let Some(&at) = self.readers.get(&reader) else {
            return Err(io::Error::other("the payload is not for this replica"));
        };
        if at == self.written {
            return match &self.end {
                None => Ok(Found::NotYet),
                Some(Ok(())) => Ok(Found::End),
                Some(Err(error)) => Err(io::Error::other(error.clone())),
            };
        }
        if at >= self.memory_start {
            let mut start = self.memory_start;
            for piece in &self.memory {
                let end = start + piece.len() as u64;
                if at < end {
                    return Ok(Found::Bytes(piece.clone(), (at - start) as usize));
                }
                start = end;
            }
        }
        let (file, start) = self
            .spill
            .as_ref()
            .expect("what memory lacks is in the file");
        let len = (self.written - at).min(READ_BYTES) as usize;
        Ok(Found::InFile(file.clone(), at - start, len))
    }

    /// Lets go of what is not needed: of all that every reader has, and with a file of all but the last.
    fn let_go(&mut self) {
        let needed = self.readers.values().min().copied().unwrap_or(self.written);
        if self.spill.is_some() && needed == self.written {
            self.spill = None;
        }
        while let Some(first) = self.memory.front() {
            let end = self.memory_start + first.len() as u64;
            let is_used = end <= needed;
            let is_too_much = self.spill.is_some() && self.written - end >= MEMORY_BYTES / 2;
            if !is_used && !is_too_much {
                break;
            }
            self.memory_start = end;
            self.memory.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(payload: &Payload, reader: u64) -> io::Result<Option<Vec<u8>>> {
        let Some((piece, at)) = payload.next(reader).await? else {
            return Ok(None);
        };
        let bytes = piece[at..].to_vec();
        payload.advance(reader, bytes.len());
        Ok(Some(bytes))
    }

    #[tokio::test]
    async fn readers_of_any_pace_get_the_same_bytes_in_bounded_memory() {
        let directory = tempfile::tempdir().unwrap();
        let payload = Payload::new(directory.path(), [1, 2, 3]);
        let mut random = fastrand::Rng::with_seed(7);
        let mut wanted = Vec::new();
        let mut found = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..300 {
            let bytes: Vec<u8> = (0..random.usize(1..60_000))
                .map(|_| random.u8(..))
                .collect();
            wanted.extend_from_slice(&bytes);
            payload.push(bytes).unwrap();
            let held = {
                let state = payload.state();
                state.written - state.memory_start
            };
            assert!(held <= MEMORY_BYTES + 60_000, "{held} bytes in memory");
            // The first keeps up, the second stands still at first, the third comes at the end.
            for (reader, found) in found.iter_mut().enumerate().take(2) {
                let is_fast = reader == 0 || round > 100;
                let takes = if is_fast { random.usize(1..5) } else { 0 };
                for _ in 0..takes {
                    if found.len() < wanted.len() {
                        found.extend(take(&payload, reader as u64 + 1).await.unwrap().unwrap());
                    }
                }
            }
        }
        assert!(payload.spilled() > 0);
        payload.end(Ok(()));
        assert_eq!(payload.len().await.unwrap(), wanted.len() as u64);
        for (reader, found) in found.iter_mut().enumerate() {
            while let Some(bytes) = take(&payload, reader as u64 + 1).await.unwrap() {
                found.extend(bytes);
            }
            assert!(*found == wanted, "reader {reader}");
            payload.leave(reader as u64 + 1);
        }
        assert_eq!(payload.served(), [1, 2, 3]);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(payload.push(vec![1]).is_err(), "nobody is left");
    }

    #[tokio::test]
    async fn a_file_that_is_there_is_read_by_all_who_come() {
        let directory = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..2_000_000).map(|i| (i % 251) as u8).collect();
        std::fs::write(directory.path().join("dump"), &content).unwrap();
        let file = File::open(directory.path().join("dump")).unwrap();
        let payload = Payload::new(directory.path(), [1]);
        payload.put_file(file, content.len() as u64);
        payload.end(Ok(()));
        assert!(payload.join(2), "it stays whole");
        for reader in [1, 2] {
            let mut found = Vec::new();
            while let Some(bytes) = take(&payload, reader).await.unwrap() {
                found.extend(bytes);
            }
            assert!(found == content, "reader {reader}");
            payload.leave(reader);
        }
        assert_eq!(payload.spilled(), 0);
    }

    #[tokio::test]
    async fn who_comes_late_joins_while_all_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let payload = Payload::new(directory.path(), [1]);
        payload.push(b"abc".to_vec()).unwrap();
        assert!(payload.join(2));
        assert_eq!(take(&payload, 1).await.unwrap().unwrap(), b"abc");
        assert_eq!(take(&payload, 2).await.unwrap().unwrap(), b"abc");
        payload.push(b"def".to_vec()).unwrap();
        assert!(!payload.join(3), "the first bytes are gone");
        payload.end(Err("the disk is full".into()));
        take(&payload, 1).await.unwrap();
        let error = take(&payload, 1).await.unwrap_err();
        assert_eq!(error.to_string(), "the disk is full");
    }

    #[tokio::test]
    async fn who_leaves_before_the_end_is_not_served() {
        let directory = tempfile::tempdir().unwrap();
        let payload = Payload::new(directory.path(), [1, 2, 3]);
        payload.push(b"abc".to_vec()).unwrap();
        take(&payload, 1).await.unwrap();
        // All that is there by now, but not all that there will be.
        payload.leave(1);
        payload.end(Ok(()));
        payload.leave(2);
        assert_eq!(take(&payload, 3).await.unwrap().unwrap(), b"abc");
        assert_eq!(take(&payload, 3).await.unwrap(), None);
        for reader in [3, 3, 2, 1] {
            payload.leave(reader);
        }
        assert_eq!(payload.served(), [3]);
        payload.unwanted().await;
    }
}
