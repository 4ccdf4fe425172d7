//! Writing a file that appears whole or not at all.
//!
//! Bytes are gathered in aligned blocks of one MiB. Where the kernel allows it they go through an io_uring with registered
//! buffers, several in flight, past the page cache (O_DIRECT); else through `pwrite` on this thread. Both keep the same
//! promise: a temporary name first; then the data synced, the file renamed, and its directory synced.
//!
//! Runs on a thread of its own: it waits for the disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use io_uring::{IoUring, opcode, types};

use super::fault;
use crate::memory::NotCounted;

/// Size of a block, a multiple of what O_DIRECT wants.
const BLOCK_BYTES: usize = 1 << 20;
/// Address, length and offset of a direct write are multiples of this.
const ALIGN: usize = 4096;
/// Blocks in flight at once.
const BLOCKS: usize = 4;
/// Of a writer.
const BUFFERS_BYTES: u64 = (BLOCKS * (BLOCK_BYTES + ALIGN)) as u64;

/// How files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// io_uring where it works, else threads.
    Auto,
    /// io_uring, or an error.
    Uring,
    /// Blocking calls on a thread.
    Threads,
}

/// What was last used: 0 nothing yet, 1 io_uring, 2 direct pwrite, 3 buffered pwrite.
static USED: AtomicU8 = AtomicU8::new(0);

/// The backend that wrote the last file, for INFO.
pub fn backend_in_use() -> &'static str {
    match USED.load(Ordering::Relaxed) {
        1 => "io_uring",
        2 => "threads-direct",
        3 => "threads-buffered",
        _ => "none",
    }
}

/// A block of memory aligned for direct I/O.
struct Block {
    memory: Vec<u8>,
    start: usize,
    /// Bytes filled so far.
    len: usize,
}

impl Block {
    fn new() -> Block {
        let memory = vec![0; BLOCK_BYTES + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        Block {
            memory,
            start,
            len: 0,
        }
    }

    fn room(&self) -> usize {
        BLOCK_BYTES - self.len
    }

    fn push(&mut self, bytes: &[u8]) {
        let at = self.start + self.len;
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// The first `len` bytes of the block's room, padded with zeros past what was filled.
    fn padded(&mut self, len: usize) -> &[u8] {
        let (start, filled) = (self.start, self.len);
        self.memory[start + filled..start + len].fill(0);
        &self.memory[start..start + len]
    }
}

enum Way {
    Uring {
        ring: Box<IoUring>,
        in_flight: [Option<(u64, usize)>; BLOCKS],
    },
    Direct,
    Buffered,
}

/// A file being written under a temporary name.
pub struct FileWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    blocks: Vec<Block>,
    /// The block being filled.
    current: usize,
    /// Where the current block goes in the file.
    offset: u64,
    way: Way,
    is_finished: bool,
    /// The blocks. Behind them: it counts again what has gone.
    _not_counted: NotCounted,
}

impl FileWriter {
    /// Starts writing what will be `path`. Leftovers of an earlier try under the temporary name are replaced.
    pub fn create(path: &Path, backend: Backend) -> io::Result<FileWriter> {
        let temporary = temporary_name(path);
        fault::operation()?;
        let open = |flags: i32| {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .custom_flags(flags)
                .open(&temporary)
        };
        let (file, is_direct) = match open(libc::O_DIRECT) {
            Ok(file) => (file, true),
            // Some file systems (tmpfs, overlays) refuse direct I/O.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (open(0)?, false),
            Err(error) => return Err(error),
        };
        let mut not_counted = NotCounted::default();
        not_counted.set(BUFFERS_BYTES);
        let mut blocks: Vec<Block> = (0..BLOCKS).map(|_| Block::new()).collect();
        let way = match backend {
            Backend::Threads => None,
            Backend::Auto | Backend::Uring if !is_direct => None,
            Backend::Auto => make_ring(&mut blocks).ok(),
            Backend::Uring => Some(make_ring(&mut blocks)?),
        };
        let way = match way {
            Some(ring) => Way::Uring {
                ring: Box::new(ring),
                in_flight: [None; BLOCKS],
            },
            None if is_direct => Way::Direct,
            None => Way::Buffered,
        };
        let number = match way {
            Way::Uring { .. } => 1,
            Way::Direct => 2,
            Way::Buffered => 3,
        };
        if USED.swap(number, Ordering::Relaxed) != number {
            tracing::info!(backend = backend_in_use(), "files are written by");
        }
        Ok(FileWriter {
            path: path.to_owned(),
            temporary,
            file,
            blocks,
            current: 0,
            offset: 0,
            way,
            is_finished: false,
            _not_counted: not_counted,
        })
    }

    /// Adds bytes at the end.
    pub fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let block = &mut self.blocks[self.current];
            let (now, later) = bytes.split_at(bytes.len().min(block.room()));
            block.push(now);
            bytes = later;
            if block.room() == 0 {
                self.write_block(BLOCK_BYTES)?;
            }
        }
        Ok(())
    }

    /// Bytes appended so far.
    pub fn len(&self) -> u64 {
        self.offset + self.blocks[self.current].len as u64
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes `len` bytes of the current block and goes on to the next.
    fn write_block(&mut self, len: usize) -> io::Result<()> {
        let (current, offset) = (self.current, self.offset);
        let is_short = fault::operation()?;
        let bytes = self.blocks[current].padded(len);
        match &mut self.way {
            Way::Direct | Way::Buffered if is_short => {
                let half = (len / 2).next_multiple_of(ALIGN).min(len);
                self.file.write_all_at(&bytes[..half], offset)?;
                self.file
                    .write_all_at(&bytes[half..], offset + half as u64)?;
            }
            Way::Direct | Way::Buffered => self.file.write_all_at(bytes, offset)?,
            Way::Uring { ring, in_flight } => {
                let given = match is_short {
                    true => (len / 2).next_multiple_of(ALIGN).min(len),
                    false => len,
                };
                let entry = opcode::WriteFixed::new(
                    types::Fd(self.file.as_raw_fd()),
                    bytes.as_ptr(),
                    given as u32,
                    current as u16,
                )
                .offset(offset)
                .build()
                .user_data(current as u64);
                // SAFETY: the block stays where it is and untouched until its completion is taken: `free_block` waits for
                // it before the block is filled again, and `Drop` before the memory goes.
                unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
                in_flight[current] = Some((offset, len));
                ring.submit()?;
            }
        }
        self.offset += self.blocks[current].len as u64;
        self.current = (current + 1) % BLOCKS;
        self.free_block(self.current)?;
        self.blocks[self.current].len = 0;
        Ok(())
    }

    /// Waits until a block is no longer being written. Every completion that came is taken, also behind a failed one.
    fn free_block(&mut self, wanted: usize) -> io::Result<()> {
        let mut result = Ok(());
        loop {
            let Way::Uring { ring, in_flight } = &mut self.way else {
                return result;
            };
            if in_flight[wanted].is_none() {
                return result;
            }
            match ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return result.and(Err(error)),
            }
            let completions: Vec<_> = ring
                .completion()
                .map(|done| (done.user_data() as usize, done.result()))
                .collect();
            for (block, written) in completions {
                let (offset, len) = in_flight[block]
                    .take()
                    .expect("a completion of something in flight");
                let rest = match usize::try_from(written) {
                    Err(_) => Err(io::Error::from_raw_os_error(-written)),
                    Ok(written) if written < len => {
                        // A short write: the rest goes by hand, and tells the reason if it fails.
                        let from = &self.blocks[block];
                        let rest = &from.memory[from.start + written..from.start + len];
                        write_unaligned(&self.temporary, rest, offset + written as u64)
                    }
                    Ok(_) => Ok(()),
                };
                result = result.and(rest);
            }
        }
    }

    /// Makes the file durable under its name: sync, rename, sync of the directory. Returns its length in bytes.
    pub fn finish(mut self) -> io::Result<u64> {
        let len = self.seal()?;
        let directory = directory_of(&self.path).to_owned();
        self.publish()?;
        sync_directory(&directory)?;
        Ok(len)
    }

    /// Makes what was appended durable, still under the temporary name. Returns the length in bytes. Nothing may be appended
    /// afterwards.
    pub fn seal(&mut self) -> io::Result<u64> {
        let len = self.len();
        let rest = self.blocks[self.current].len;
        if rest > 0 {
            let padded = match self.way {
                Way::Buffered => rest,
                Way::Uring { .. } | Way::Direct => rest.next_multiple_of(ALIGN),
            };
            self.write_block(padded)?;
        }
        for block in 0..BLOCKS {
            self.free_block(block)?;
        }
        fault::operation()?;
        self.file.set_len(len)?;
        fault::operation()?;
        self.file.sync_all()?;
        Ok(len)
    }

    /// Gives a sealed file its name. Durable once the directory is synced.
    pub fn publish(mut self) -> io::Result<()> {
        fault::operation()?;
        std::fs::rename(&self.temporary, &self.path)?;
        self.is_finished = true;
        Ok(())
    }

    /// The name that the file gets.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        for block in 0..BLOCKS {
            // The kernel may still read a block: its memory must not go before. A second error tells nothing new.
            while let Way::Uring { in_flight, .. } = &self.way
                && in_flight[block].is_some()
            {
                let _ = self.free_block(block);
            }
        }
        if !self.is_finished {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// The temporary name of a file: in the same directory, told apart by process.
fn temporary_name(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from("temp-");
    name.push(std::process::id().to_string());
    name.push("-");
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

fn write_unaligned(path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all_at(bytes, offset)
}

/// Makes renames in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    fault::operation()?;
    File::open(directory)?.sync_all()
}

/// The directory of a file.
pub fn directory_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn make_ring(blocks: &mut [Block]) -> io::Result<IoUring> {
    let ring = IoUring::builder().build(BLOCKS as u32 * 2)?;
    let buffers: Vec<libc::iovec> = blocks
        .iter_mut()
        .map(|block| libc::iovec {
            iov_base: block.memory[block.start..].as_mut_ptr().cast(),
            iov_len: BLOCK_BYTES,
        })
        .collect();
    // SAFETY: the blocks live as long as the ring: both are owned by the writer, whose memory they never leave, and a block's
    // vector is never resized.
    unsafe { ring.submitter().register_buffers(&buffers) }?;
    Ok(ring)
}

/// The final name of a file that a process that is gone was writing under this temporary name.
pub fn abandoned(temporary: &str) -> Option<&str> {
    let (process, name) = parts_of_temporary(temporary)?;
    (!Path::new("/proc").join(process).exists()).then_some(name)
}

/// The final name of a file that this process writes under this temporary name.
pub fn own(temporary: &str) -> Option<&str> {
    let (process, name) = parts_of_temporary(temporary)?;
    (process == std::process::id().to_string()).then_some(name)
}

/// Process and final name.
fn parts_of_temporary(temporary: &str) -> Option<(&str, &str)> {
    let (process, name) = temporary.strip_prefix("temp-")?.split_once('-')?;
    let is_process = !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit());
    is_process.then_some((process, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back_on_every_backend() {
        let directory = tempfile::tempdir_in(".").unwrap();
        let path = directory.path().join("file");
        for backend in [Backend::Auto, Backend::Threads] {
            for len in [
                0,
                1,
                4095,
                4096,
                4097,
                BLOCK_BYTES - 1,
                BLOCK_BYTES,
                BLOCK_BYTES + 1,
                6 * BLOCK_BYTES + 77,
            ] {
                let content: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
                let mut writer = FileWriter::create(&path, backend).unwrap();
                for piece in content.chunks(100_003) {
                    writer.append(piece).unwrap();
                }
                assert_eq!(writer.finish().unwrap(), len as u64);
                assert!(
                    std::fs::read(&path).unwrap() == content,
                    "{backend:?}, {len} bytes"
                );
            }
        }
    }

    #[test]
    fn a_file_not_finished_leaves_the_old_one() {
        let directory = tempfile::tempdir_in(".").unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"old").unwrap();
        let mut writer = FileWriter::create(&path, Backend::Auto).unwrap();
        writer.append(&vec![1; 3 * BLOCK_BYTES]).unwrap();
        drop(writer);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }
}
