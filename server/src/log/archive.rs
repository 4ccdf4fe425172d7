//! The older part of the backlog, on disk (`repl-backlog-disk-limit`): a replica that was away for an hour goes on with what it lacks.
//!
//! The log hands over what it lets go of in memory; a thread of its own writes it to files that have no name, so that nothing stays
//! behind however the process ends. Replicas read from there until they are near enough for memory.
//!
//! Invariants
//! - What is here ends where memory begins: there is no gap.
//! - Files take at most the limit and one segment; what waits to be written takes at most `PENDING_BYTES_MAX` of memory.
//! - When the disk fails, all of it goes, and the backlog is in memory alone: as without a disk, and never wrong. It is tried again later.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::backlog::Piece;

/// Bytes that may wait for the disk.
const PENDING_BYTES_MAX: u64 = 64 << 20;
/// Bytes written at once.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes read at once.
const READ_BYTES: u64 = 256 << 10;
/// A segment has at least and at most so many bytes; between them, an eighth of the limit.
const SEGMENT_BYTES: (u64, u64) = (1 << 20, 64 << 20);
/// After a failure the disk is left alone for so long.
const RETRY: Duration = Duration::from_secs(60);

/// Bytes of the stream on disk, and on their way there.
pub struct Archive {
    state: Mutex<State>,
    filled: Condvar,
    directory: PathBuf,
}

#[derive(Default)]
struct State {
    segments: VecDeque<Segment>,
    /// What is not written yet, behind the segments.
    pending: VecDeque<Arc<[u8]>>,
    pending_bytes: u64,
    /// Offset behind all of it.
    end: u64,
    limit: u64,
    failure: Option<(Instant, String)>,
    has_thread: bool,
    /// Bytes of a segment, if they do not go by the limit.
    segment_bytes: Option<u64>,
    /// Grows when all is let go of: what the thread has in hand then belongs nowhere.
    generation: u64,
}

struct Segment {
    file: Arc<File>,
    /// Offset before its first byte.
    start: u64,
    len: u64,
}

/// Where bytes of the archive are.
pub enum Held {
    /// Not written yet.
    InMemory(Piece),
    /// So many bytes of this file from this place on.
    InFile(Arc<File>, u64, usize),
}

impl Archive {
    /// An empty one. Its files would be in this directory.
    pub fn new(directory: &Path) -> Arc<Archive> {
        Arc::new(Archive {
            state: Mutex::default(),
            filled: Condvar::new(),
            directory: directory.to_owned(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how many bytes files may take; 0: there are none.
    pub fn set_limit(&self, limit: u64) {
        let mut state = self.state();
        state.limit = limit;
        state.failure = None;
        if limit == 0 {
            state.clear();
        }
        state.evict();
    }

    /// Whether it takes what memory lets go of.
    pub fn is_taking(&self) -> bool {
        let mut state = self.state();
        if state
            .failure
            .as_ref()
            .is_some_and(|(at, _)| at.elapsed() > RETRY)
        {
            state.failure = None;
        }
        state.limit > 0 && state.failure.is_none()
    }

    /// Takes a piece that began behind `start`.
    pub fn take(self: &Arc<Self>, start: u64, piece: Arc<[u8]>) {
        let mut state = self.state();
        if state.is_empty() || state.end != start {
            state.clear();
            state.end = start;
        }
        state.end += piece.len() as u64;
        state.pending_bytes += piece.len() as u64;
        state.pending.push_back(piece);
        if state.pending_bytes > PENDING_BYTES_MAX {
            let waiting = state.pending_bytes;
            state.fail(format!("the disk is too slow: {waiting} bytes wait for it"));
            return;
        }
        if !std::mem::replace(&mut state.has_thread, true) {
            let archive = self.clone();
            let spawned = std::thread::Builder::new()
                .name("backlog".into())
                .spawn(move || {
                    crate::memory::count_this_thread();
                    archive.write();
                });
            if let Err(error) = spawned {
                state.has_thread = false;
                state.fail(format!("no thread for it: {error}"));
            }
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Lets go of everything: the history ends.
    pub fn clear(&self) {
        self.state().clear();
    }

    /// Offset before the first byte, if this leads up to `end`, where memory begins.
    pub fn start(&self, end: u64) -> Option<u64> {
        let state = self.state();
        (!state.is_empty() && state.end == end).then(|| state.start())
    }

    /// The bytes behind `offset`; `None`: they are not here.
    pub fn after(&self, offset: u64) -> Option<Held> {
        let state = self.state();
        if state.is_empty() || offset < state.start() || offset >= state.end {
            return None;
        }
        for segment in &state.segments {
            if offset < segment.start + segment.len {
                let at = offset - segment.start;
                let len = (segment.len - at).min(READ_BYTES) as usize;
                return Some(Held::InFile(segment.file.clone(), at, len));
            }
        }
        let mut start = state.written_end();
        for piece in &state.pending {
            let end = start + piece.len() as u64;
            if offset < end {
                return Some(Held::InMemory((piece.clone(), (offset - start) as usize)));
            }
            start = end;
        }
        None
    }

    /// Bytes in files, the limit, and why there are none, if something failed.
    pub fn describe(&self) -> (u64, u64, Option<String>) {
        let state = self.state();
        let failure = state.failure.as_ref().map(|(_, text)| text.clone());
        (state.written(), state.limit, failure)
    }

    /// The thread: writes what waits, as long as the process runs.
    fn write(&self) {
        loop {
            let order = {
                let mut state = self.state();
                while state.pending.is_empty() {
                    state = self
                        .filled
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                state.order()
            };
            let written = order.write(&self.directory);
            self.written(&order, written);
        }
    }

    /// What has become of an order.
    fn written(&self, order: &Order, written: io::Result<Option<File>>) {
        let mut state = self.state();
        if state.generation != order.generation {
            return;
        }
        match written {
            Ok(file) => {
                let bytes = order.bytes.len() as u64;
                state.written_out(file.map(Arc::new), bytes, order.pieces);
            }
            Err(error) => state.fail(format!("cannot write: {error}")),
        }
    }
}

/// What is written at once.
struct Order {
    bytes: Vec<u8>,
    /// How many of those that wait these are.
    pieces: usize,
    generation: u64,
    /// The last segment and its end; `None`: a new one begins.
    place: Option<(Arc<File>, u64)>,
}

impl Order {
    /// The answer is the file of a new segment.
    fn write(&self, directory: &Path) -> io::Result<Option<File>> {
        if let Some((file, at)) = &self.place {
            file.write_all_at(&self.bytes, *at)?;
            return Ok(None);
        }
        let file = nameless(directory)?;
        file.write_all_at(&self.bytes, 0)?;
        Ok(Some(file))
    }
}

/// For simulations, in which nothing happens by itself.
#[cfg(test)]
impl Archive {
    /// One whose bytes are written by [`Archive::write_some`] alone, in segments of at most so many.
    pub fn by_hand(directory: &Path, segment_bytes: u64) -> Arc<Archive> {
        let archive = Archive::new(directory);
        {
            let mut state = archive.state();
            state.has_thread = true;
            state.segment_bytes = Some(segment_bytes);
        }
        archive
    }

    /// Writes some of what waits.
    pub fn write_some(&self, disk: Disk) {
        let mut order = {
            let state = self.state();
            if state.pending.is_empty() {
                return;
            }
            state.order()
        };
        if disk == Disk::Loses {
            order.bytes.fill(0);
        }
        let written = match disk {
            Disk::Refuses => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Disk::Takes | Disk::Loses => order.write(&self.directory),
        };
        self.written(&order, written);
    }
}

/// What a simulated disk does with what is written.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    Takes,
    /// It is full.
    Refuses,
    /// It is full, and nobody notices: a fault that is put in.
    Loses,
}

impl State {
    fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.pending.is_empty()
    }

    fn written(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    fn written_end(&self) -> u64 {
        self.end - self.pending_bytes
    }

    fn start(&self) -> u64 {
        let first = self.segments.front().map(|segment| segment.start);
        first.unwrap_or(self.written_end())
    }

    /// What is to be written next. Something waits.
    fn order(&self) -> Order {
        let mut bytes = Vec::new();
        let mut pieces = 0;
        for piece in &self.pending {
            if pieces > 0 && bytes.len() + piece.len() > WRITE_BYTES {
                break;
            }
            bytes.extend_from_slice(piece);
            pieces += 1;
        }
        let (least, most) = SEGMENT_BYTES;
        let segment_bytes =
            (self.segment_bytes).unwrap_or_else(|| (self.limit / 8).clamp(least, most));
        let last = self.segments.back().filter(|last| last.len < segment_bytes);
        Order {
            bytes,
            pieces,
            generation: self.generation,
            place: last.map(|last| (last.file.clone(), last.len)),
        }
    }

    /// The first pieces that waited are in a file.
    fn written_out(&mut self, file: Option<Arc<File>>, bytes: u64, pieces: usize) {
        let start = self.written_end();
        if let Some(file) = file {
            self.segments.push_back(Segment {
                file,
                start,
                len: 0,
            });
        }
        if let Some(last) = self.segments.back_mut() {
            last.len += bytes;
        }
        self.pending.drain(..pieces);
        self.pending_bytes -= bytes;
        self.evict();
    }

    /// Whole segments only: a reader may be in the middle of one, and has its file.
    fn evict(&mut self) {
        while self.segments.len() > 1 && self.written() > self.limit {
            self.segments.pop_front();
        }
    }

    fn clear(&mut self) {
        self.segments.clear();
        self.pending.clear();
        self.pending_bytes = 0;
        self.generation += 1;
    }

    fn fail(&mut self, why: String) {
        tracing::error!(
            why,
            "the backlog on disk failed: what is in memory must do (repl-backlog-disk-limit)"
        );
        self.clear();
        self.failure = Some((Instant::now(), why));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// All bytes from `offset` on.
    fn read(archive: &Archive, mut offset: u64) -> Vec<u8> {
        let mut found = Vec::new();
        while let Some(held) = archive.after(offset) {
            let bytes = match held {
                Held::InMemory((piece, at)) => piece[at..].to_vec(),
                Held::InFile(file, at, len) => {
                    let mut bytes = vec![0; len];
                    file.read_exact_at(&mut bytes, at).unwrap();
                    bytes
                }
            };
            offset += bytes.len() as u64;
            found.extend(bytes);
        }
        found
    }

    #[test]
    fn every_byte_is_found_until_the_limit_is_reached_and_no_file_has_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(directory.path());
        archive.set_limit(8 << 20);
        let mut random = fastrand::Rng::with_seed(3);
        let (first, mut all) = (1_000, Vec::new());
        for _ in 0..600 {
            let piece: Vec<u8> = (0..random.usize(1..60_000))
                .map(|_| random.u8(..))
                .collect();
            archive.take(first + all.len() as u64, piece.clone().into());
            all.extend(piece);
            let (_, _, failure) = archive.describe();
            assert_eq!(failure, None);
            // What is not written yet is not let go of: on a slow disk the writer is given time.
            wait("the disk", || archive.state().pending_bytes < 4 << 20);
        }
        wait("all is written", || archive.state().pending.is_empty());
        let (bytes, limit, _) = archive.describe();
        assert!(bytes <= limit + (1 << 20), "{bytes} bytes on disk");
        let end = first + all.len() as u64;
        let start = archive.start(end).expect("it leads up to the end");
        assert!(end - start >= limit - (2 << 20));
        assert!(read(&archive, start) == all[(start - first) as usize..]);
        let middle = start + (end - start) / 2 + 17;
        assert!(read(&archive, middle) == all[(middle - first) as usize..]);
        assert!(archive.after(start - 1).is_none() && archive.after(end).is_none());
        assert_eq!(archive.start(end + 1), None, "a gap before memory");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        // Another history.
        archive.take(5, b"abc".as_slice().into());
        assert_eq!(archive.start(8), Some(5));
        assert_eq!(read(&archive, 6), b"bc");
        archive.set_limit(0);
        assert_eq!(archive.start(8), None);
    }

    #[test]
    fn a_disk_that_fails_leaves_memory_alone() {
        let directory = tempfile::tempdir().unwrap();
        let archive = Archive::new(&directory.path().join("missing"));
        archive.set_limit(1 << 20);
        assert!(archive.is_taking());
        archive.take(0, b"abc".as_slice().into());
        wait("the failure", || !archive.is_taking());
        let (bytes, _, failure) = archive.describe();
        assert_eq!((bytes, archive.start(3)), (0, None));
        assert!(failure.unwrap().contains("cannot write"));
        archive.set_limit(2 << 20);
        assert!(archive.is_taking(), "set anew, it is tried anew");
    }
}
