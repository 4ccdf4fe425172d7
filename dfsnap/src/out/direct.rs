//! Bytes into a file, past the page cache where the file system can do that.
//!
//! A dump is written once, synced, and not read again by whoever wrote it: to copy it into the cache first took more time than
//! to make it. Full chunks go to a thread of their own, which waits for the disk while the next one is made. Whoever makes many small pieces
//! puts them into the chunk itself, which it borrows.
//!
//! Where files are in memory there is nothing to wait for: the one chunk is small, and copied while it is still in a near cache.
//!
//! Invariants
//! - At most two chunks of a file are in memory.
//! - Chunks are written in order, those for a disk at multiples of their size; only the last bytes go through the cache.
//! - After an error nothing more is written.

use rustix::fs::{FsWord, OFlags, fcntl_getfl, fcntl_setfl, fstatfs};
use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

const CHUNK_BYTES: usize = 1 << 20;
/// For a file in memory: half of what the cache of a core holds, or less.
const NEAR_CHUNK_BYTES: usize = 128 << 10;
/// What disks want of memory, offset and length; more than most of them do.
const ALIGNMENT: usize = 4096;
/// Chunks that are being written, or wait for it: one is written while the other is filled.
const CHUNKS_AWAY: usize = 1;

const _: () = assert!(CHUNK_BYTES.is_multiple_of(ALIGNMENT));

/// What may be behind a full chunk: pieces do not end where it does.
const MORE_BYTES: usize = 64 << 10;

pub(super) struct Writer {
    file: File,
    place: Place,
    chunk: Chunk,
    /// Bytes of the chunks before.
    passed_on: u64,
    worker: Option<Worker>,
    is_failed: bool,
}

/// Where the bytes of a file end up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Disk,
    Memory,
}

/// Memory whose used part begins at a multiple of the alignment.
#[derive(Default)]
struct Chunk {
    /// What is before `start` is nothing. Lent: empty.
    room: Vec<u8>,
    start: usize,
}

struct Worker {
    full: SyncSender<Chunk>,
    free: Receiver<Chunk>,
    thread: JoinHandle<io::Result<()>>,
}

impl Place {
    fn of(file: &File) -> Place {
        // Of tmpfs and ramfs.
        const IN_MEMORY: [FsWord; 2] = [0x0102_1994, 0x8584_58F6];
        match fstatfs(file) {
            Ok(found) if IN_MEMORY.contains(&found.f_type) => Place::Memory,
            _ => Place::Disk,
        }
    }

    fn chunk_bytes(self) -> usize {
        match self {
            Place::Disk => CHUNK_BYTES,
            Place::Memory => NEAR_CHUNK_BYTES,
        }
    }
}

impl Chunk {
    /// Room for `bytes` and what may be behind them.
    fn new(bytes: usize) -> Self {
        let mut room: Vec<u8> = Vec::with_capacity(ALIGNMENT + bytes + MORE_BYTES);
        let start = room.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        room.resize(start, 0);
        Chunk { room, start }
    }

    fn bytes(&self) -> &[u8] {
        // Lent: none.
        self.room.get(self.start..).unwrap_or_default()
    }

    fn len(&self) -> usize {
        self.bytes().len()
    }

    fn clear(&mut self) {
        self.room.truncate(self.start);
    }

    /// Whether it is as it was made for `bytes`: one that grew is somewhere else.
    fn is_in_place(&self, bytes: usize) -> bool {
        self.len() <= bytes + MORE_BYTES && self.bytes().as_ptr().align_offset(ALIGNMENT) == 0
    }

    /// Takes what there is room for until it has `full` bytes; the answer is what is left.
    fn take<'b>(&mut self, bytes: &'b [u8], full: usize) -> &'b [u8] {
        let room = full.saturating_sub(self.len());
        let (taken, rest) = bytes.split_at(bytes.len().min(room));
        self.room.extend_from_slice(taken);
        rest
    }
}

impl Writer {
    /// Over an empty file.
    pub(super) fn new(file: File) -> Self {
        let place = Place::of(&file);
        Writer::at(place, file)
    }

    fn at(place: Place, file: File) -> Self {
        Writer {
            file,
            place,
            chunk: Chunk::new(place.chunk_bytes()),
            passed_on: 0,
            worker: None,
            is_failed: false,
        }
    }

    /// Bytes that it took.
    pub(super) fn len(&self) -> u64 {
        self.passed_on + self.chunk.len() as u64
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.check()?;
        let full = self.place.chunk_bytes();
        while !bytes.is_empty() {
            bytes = self.chunk.take(bytes, full);
            if self.chunk.len() == full {
                self.pass_on()?;
            }
        }
        Ok(())
    }

    /// The memory that is filled next, for who puts bytes behind what is in it until it has the length that comes with it; then it is to be
    /// exchanged for the next one, and at the end given back. Nothing else is written meanwhile.
    pub(super) fn lend(&mut self) -> (Vec<u8>, usize) {
        (
            std::mem::take(&mut self.chunk.room),
            self.chunk.start + self.place.chunk_bytes(),
        )
    }

    pub(super) fn give_back(&mut self, room: Vec<u8>) -> io::Result<()> {
        self.chunk.room = room;
        self.check()?;
        let full = self.place.chunk_bytes();
        if self.chunk.len() < full {
            return Ok(());
        }
        match self.chunk.is_in_place(full) {
            true => self.pass_on(),
            false => {
                let grown = std::mem::replace(&mut self.chunk, Chunk::new(full));
                self.write(grown.bytes())
            }
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.is_failed {
            true => Err(io::Error::other("writing failed before")),
            false => Ok(()),
        }
    }

    /// Everything is on disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if let Some(worker) = self.worker.take() {
            worker.end()?;
        }
        // What is left has any length.
        let _ = set_direct(&self.file, false);
        self.write_here()?;
        self.file.sync_all()
    }

    /// Writes the full chunk, or hands it to the thread and takes another.
    fn pass_on(&mut self) -> io::Result<()> {
        let passed = match self.place {
            Place::Disk => self.try_to_pass_on(),
            Place::Memory => self.write_here(),
        };
        self.is_failed = passed.is_err();
        passed
    }

    fn write_here(&mut self) -> io::Result<()> {
        self.file.write_all(self.chunk.bytes())?;
        self.passed_on += self.chunk.len() as u64;
        self.chunk.clear();
        Ok(())
    }

    fn try_to_pass_on(&mut self) -> io::Result<()> {
        let worker = match &self.worker {
            Some(worker) => worker,
            None => self.worker.insert(Worker::start(&self.file)?),
        };
        let sent = worker.free.recv().ok().and_then(|mut free| {
            free.clear();
            free.room
                .extend_from_slice(&self.chunk.bytes()[CHUNK_BYTES..]);
            let mut full = std::mem::replace(&mut self.chunk, free);
            full.room.truncate(full.start + CHUNK_BYTES);
            worker.full.send(full).ok()
        });
        match (sent, self.worker.take_if(|_| sent.is_none())) {
            (None, Some(worker)) => {
                worker.end()?;
                Err(io::Error::other("the thread that writes ended"))
            }
            _ => {
                self.passed_on += CHUNK_BYTES as u64;
                Ok(())
            }
        }
    }
}

impl Worker {
    fn start(file: &File) -> io::Result<Worker> {
        // What cannot do it writes through the cache, as always.
        let _ = set_direct(file, true);
        let mut file = file.try_clone()?;
        let (full, chunks) = sync_channel::<Chunk>(CHUNKS_AWAY);
        let (done, free) = sync_channel(CHUNKS_AWAY);
        for _ in 0..CHUNKS_AWAY {
            let _ = done.send(Chunk::new(CHUNK_BYTES));
        }
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                for chunk in chunks {
                    write_chunk(&mut file, chunk.bytes())?;
                    // Nobody asks for it behind the last one.
                    let _ = done.send(chunk);
                }
                Ok(())
            })?;
        Ok(Worker { full, free, thread })
    }

    /// Waits until all is written.
    fn end(self) -> io::Result<()> {
        let Worker { full, free, thread } = self;
        drop((full, free));
        let ended = thread.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread that writes ended")))
    }
}

fn write_chunk(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                if !count.is_multiple_of(ALIGNMENT) {
                    set_direct(file, false)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // It took the flag, and cannot do it.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && is_direct(file) => {
                set_direct(file, false)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_direct(file: &File) -> bool {
    fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::DIRECT))
}

fn set_direct(file: &File, on: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, on);
    Ok(fcntl_setfl(file, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: [Place; 2] = [Place::Disk, Place::Memory];

    #[test]
    fn files_of_any_length_written_in_any_pieces_hold_what_was_written() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let bytes: Vec<u8> = (0..3 * CHUNK_BYTES as u32 + 5000)
            .map(|i| (i.wrapping_mul(i) >> 9) as u8)
            .collect();
        let chunk = CHUNK_BYTES;
        let lens = [
            0,
            1,
            4096,
            chunk - 1,
            chunk,
            chunk + 1,
            3 * chunk,
            bytes.len(),
        ];
        let pieces = [977, 4096, 100_000, 2 * chunk + 7];
        for (place, len, piece) in PLACES.into_iter().flat_map(|place| {
            lens.into_iter()
                .flat_map(move |len| pieces.map(move |piece| (place, len, piece)))
        }) {
            let path = folder.path().join("file");
            let mut writer = Writer::at(place, File::create(&path).unwrap());
            for piece in bytes[..len].chunks(piece) {
                writer.write(piece).unwrap();
            }
            assert_eq!(writer.len(), len as u64);
            writer.sync().unwrap();
            let written = std::fs::read(&path).unwrap();
            let case = format!("{place:?}: {len} bytes in pieces of {piece}");
            assert!(written == bytes[..len], "{case}");
        }
    }

    #[test]
    fn what_is_put_into_lent_memory_is_written_wherever_it_ends() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let bytes: Vec<u8> = (0..5 * CHUNK_BYTES as u32 + 5000)
            .map(|i| (i.wrapping_mul(i) >> 9) as u8)
            .collect();
        // Those that stay within the memory, and those that make it grow.
        let pieces = [
            1777,
            50_000,
            MORE_BYTES,
            CHUNK_BYTES / 2 + 3,
            2 * CHUNK_BYTES + 1,
        ];
        for (place, piece) in PLACES
            .into_iter()
            .flat_map(|place| pieces.map(move |piece| (place, piece)))
        {
            let path = folder.path().join("file");
            let mut writer = Writer::at(place, File::create(&path).unwrap());
            writer.write(&bytes[..100]).unwrap();
            let (mut room, mut full) = writer.lend();
            for piece in bytes[100..].chunks(piece) {
                room.extend_from_slice(piece);
                if room.len() >= full {
                    writer.give_back(room).unwrap();
                    (room, full) = writer.lend();
                }
            }
            writer.give_back(room).unwrap();
            assert_eq!(writer.len(), bytes.len() as u64);
            writer.sync().unwrap();
            let written = std::fs::read(&path).unwrap();
            assert!(written == bytes, "{place:?}, pieces of {piece}");
        }
    }

    #[test]
    fn an_error_of_the_disk_comes_out_and_stays() {
        for place in PLACES {
            let full = File::options().write(true).open("/dev/full").unwrap();
            let mut writer = Writer::at(place, full);
            let piece = vec![0; CHUNK_BYTES];
            let failed = (0..10).find_map(|_| writer.write(&piece).err());
            let error = failed.or_else(|| writer.sync().err()).unwrap();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{place:?}");
        }
    }
}
