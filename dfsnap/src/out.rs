//! Files that appear whole or not at all, also when the process is interrupted.
//!
//! A file is written beside its place under a temporary name; `commit` syncs it, gives it its name, and syncs the folder.
//! What was not committed is removed: when it goes out of scope, and by the thread that waits for signals. Files that belong together get
//! their names while that thread waits.

mod direct;

use crate::live::stop;
use crate::report::Failure;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Temporary files that are to go if the process is told to end.
static PENDING: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn pending() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    PENDING
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Held while files that belong together get their names: an interrupt comes before the first or after the last.
static NAMING: Mutex<()> = Mutex::new(());

fn naming() -> std::sync::MutexGuard<'static, ()> {
    NAMING
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// From now on an interrupt removes what is not whole, and then ends the process as it would have, unless a verb has
/// something to finish first.
pub fn clean_up_when_interrupted() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGXFSZ]) else {
        return;
    };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            // A file that may not grow any more (ulimit -f): now that somebody listens, the write fails and says so.
            if signal == SIGXFSZ {
                continue;
            }
            if stop::remember() {
                continue;
            }
            let _all_are_named = naming();
            let mut pending = pending();
            for path in pending.drain(..) {
                // There is nobody left to tell.
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
            }
            eprintln!("interrupted: nothing half was left");
            std::process::exit(128 + signal);
        }
    });
}

/// A file on its way to its place.
pub struct OutFile {
    file: To,
    temporary: PathBuf,
    /// As it was asked for.
    place: PathBuf,
    /// The same, behind links.
    end: PathBuf,
    is_committed: bool,
}

enum To {
    Direct(Box<direct::Writer>),
    /// One of many files that are written at a time, which must not take much memory each.
    Buffered(BufWriter<File>, u64),
}

/// Of a file that is one of many. Most of what is written comes in larger pieces, which pass by the buffer.
const BUFFER_BYTES: usize = 64 << 10;
/// Files at a time that are not many.
const FEW_FILES: usize = 8;

impl OutFile {
    /// Begins the file that will be at `place`. What is there stays until `commit`; who may read it may read the new one.
    pub fn create(place: &Path) -> Result<Self, Failure> {
        let failure = |error: &io::Error| Failure::write(place, error);
        let (end, permissions) = behind_links(place)?;
        let name = end
            .file_name()
            .ok_or_else(|| failure(&io::ErrorKind::IsADirectory.into()))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".tmp-{}", std::process::id()));
        let temporary = end.with_file_name(hidden);
        let at_a_time = {
            let mut pending = pending();
            pending.push(temporary.clone());
            pending.len()
        };
        let file = File::create(&temporary).map_err(|error| failure(&error))?;
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)
                .map_err(|error| failure(&error))?;
        }
        Ok(OutFile {
            file: match at_a_time {
                ..=FEW_FILES => To::Direct(Box::new(direct::Writer::new(file))),
                _ => To::Buffered(BufWriter::with_capacity(BUFFER_BYTES, file), 0),
            },
            temporary,
            place: place.to_owned(),
            end,
            is_committed: false,
        })
    }

    pub fn place(&self) -> &Path {
        &self.place
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = match &mut self.file {
            To::Direct(file) => file.write(bytes),
            To::Buffered(file, len) => {
                *len += bytes.len() as u64;
                file.write_all(bytes)
            }
        };
        written.map_err(|error| Failure::write(&self.place, &error))
    }

    /// Bytes that it took.
    pub fn len(&self) -> u64 {
        match &self.file {
            To::Direct(file) => file.len(),
            To::Buffered(_, len) => *len,
        }
    }

    /// Memory for who makes many small pieces, so that they are not copied on their way: they go behind what is in it. When it has the length
    /// that comes with it, and at the end, it is to be given back. None: there is none, and `write` takes the pieces.
    pub fn lend(&mut self) -> Option<(Vec<u8>, usize)> {
        match &mut self.file {
            To::Direct(file) => Some(file.lend()),
            To::Buffered(..) => None,
        }
    }

    pub fn give_back(&mut self, room: Vec<u8>) -> Result<(), Failure> {
        let taken = match &mut self.file {
            To::Direct(file) => file.give_back(room),
            To::Buffered(..) => Ok(()),
        };
        taken.map_err(|error| Failure::write(&self.place, &error))
    }

    /// Everything is on disk, still under the temporary name.
    fn sync(&mut self) -> io::Result<()> {
        match &mut self.file {
            To::Direct(file) => file.sync(),
            To::Buffered(file, _) => {
                file.flush()?;
                file.get_ref().sync_all()
            }
        }
    }

    /// Makes the file appear.
    pub fn commit(self) -> Result<(), Failure> {
        OutFile::commit_all(vec![self])
    }

    /// Gives the file its name; it is synced.
    fn name(&mut self) -> Result<(), Failure> {
        let named =
            std::fs::rename(&self.temporary, &self.end).and_then(|()| sync_folder(&self.end));
        self.is_committed = named.is_ok();
        named.map_err(|error| Failure::write(&self.place, &error))
    }

    /// The same; `idle` is called at once, and again and again while the disk is waited for, which can take half a minute.
    pub fn commit_while(self, idle: &mut dyn FnMut()) -> Result<(), Failure> {
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
        std::thread::scope(|scope| {
            let committing = scope.spawn(|| self.commit());
            idle();
            while !committing.is_finished() {
                std::thread::sleep(PAUSE);
                idle();
            }
            let ended = committing.join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Makes several files appear, the last one last: it tells that all are there.
    pub fn commit_all(mut files: Vec<OutFile>) -> Result<(), Failure> {
        for file in &mut files {
            file.sync()
                .map_err(|error| Failure::write(&file.place, &error))?;
        }
        let _together = naming();
        files.iter_mut().try_for_each(OutFile::name)
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if !self.is_committed {
            // It may be gone already; what else is wrong with it was said.
            let _ = std::fs::remove_file(&self.temporary);
        }
        pending().retain(|path| *path != self.temporary);
    }
}

/// Where a file has to be that goes by `place`, so that links stay links, and what may be done with the file that is there. A device, a pipe
/// or a folder is never replaced.
fn behind_links(place: &Path) -> Result<(PathBuf, Option<Permissions>), Failure> {
    refuse_dash(place)?;
    let meta = match place.metadata() {
        Ok(meta) => meta,
        // Nothing, or a link to nothing. Whatever else is wrong comes up when the file is made.
        Err(_) => {
            let folder = place.parent().unwrap_or(Path::new(""));
            let end = std::fs::read_link(place).map(|to| folder.join(to));
            return Ok((end.unwrap_or(place.to_owned()), None));
        }
    };
    if meta.is_dir() {
        let error = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(Failure::write(place, &error));
    }
    if !meta.is_file() {
        return Err(Failure {
            message: format!(
                "{}: a device, a pipe or a socket, which a file does not replace",
                place.display()
            ),
            advice: "the name of a file; convert, merge and salvage write to standard output for -"
                .to_owned(),
        });
    }
    let end = match place.is_symlink() {
        true => place
            .canonicalize()
            .map_err(|error| Failure::write(place, &error))?,
        false => place.to_owned(),
    };
    Ok((end, Some(meta.permissions())))
}

/// `-` is standard output, for verbs that can write to it; here it is none.
pub fn refuse_dash(place: &Path) -> Result<(), Failure> {
    match place.as_os_str() == "-" {
        false => Ok(()),
        true => Err(Failure {
            message: "-: this is no single stream for standard output".to_owned(),
            advice: "the name of a file; ./- for one of that name".to_owned(),
        }),
    }
}

/// A folder on its way to its place, with all that is written into it.
pub struct OutFolder {
    temporary: PathBuf,
    place: PathBuf,
    is_committed: bool,
}

impl OutFolder {
    /// Begins the folder that will be at `place`, where there must be nothing, or an empty folder.
    pub fn create(place: &Path) -> Result<Self, Failure> {
        let failure = |error: &io::Error| Failure::write(place, error);
        refuse_dash(place)?;
        let name = place
            .file_name()
            .ok_or_else(|| failure(&io::ErrorKind::AlreadyExists.into()))?;
        let is_empty = match std::fs::read_dir(place) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(failure(&error)),
        };
        if !is_empty {
            return Err(Failure {
                message: format!("{}: the folder is not empty", place.display()),
                advice: "name a folder that is not there; it appears with all of its files"
                    .to_owned(),
            });
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".tmp-{}", std::process::id()));
        let temporary = place.with_file_name(hidden);
        {
            // Held while the folder is made, so that an interrupt finds it.
            let mut pending = pending();
            std::fs::create_dir(&temporary).map_err(|error| failure(&error))?;
            pending.insert(0, temporary.clone());
        }
        Ok(OutFolder {
            temporary,
            place: place.to_owned(),
            is_committed: false,
        })
    }

    /// Where files are written until the folder appears.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Makes the folder appear with the files in it, which were committed before.
    pub fn commit(mut self) -> Result<(), Failure> {
        let done =
            std::fs::rename(&self.temporary, &self.place).and_then(|()| sync_folder(&self.place));
        self.is_committed = done.is_ok();
        done.map_err(|error| Failure::write(&self.place, &error))
    }
}

impl Drop for OutFolder {
    fn drop(&mut self) {
        if !self.is_committed {
            // It may be gone already; what else is wrong with it was said.
            let _ = std::fs::remove_dir_all(&self.temporary);
        }
        pending().retain(|path| *path != self.temporary);
    }
}

/// A folder that files are put into one by one. Where it was not there, it goes again unless it is kept.
pub struct MadeFolder {
    path: PathBuf,
    /// The first folder on the way there that had to be made.
    made: Option<PathBuf>,
}

impl MadeFolder {
    pub fn at(path: &Path) -> Result<Self, Failure> {
        let missing = path.ancestors().filter(|path| !path.as_os_str().is_empty());
        let made = missing.take_while(|path| !path.exists()).last();
        let made = made.map(Path::to_owned);
        // Held while it is made, so that an interrupt finds it.
        let mut pending = pending();
        std::fs::create_dir_all(path).map_err(|error| Failure::write(path, &error))?;
        pending.extend(made.clone());
        Ok(MadeFolder {
            path: path.to_owned(),
            made,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it is whole.
    pub fn keep(mut self) {
        self.forget();
    }

    fn forget(&mut self) -> Option<PathBuf> {
        let made = self.made.take()?;
        pending().retain(|path| *path != made);
        Some(made)
    }
}

impl Drop for MadeFolder {
    fn drop(&mut self) {
        let Some(made) = self.forget() else { return };
        let below = self.path.ancestors();
        for folder in below.take_while(|folder| folder.starts_with(&made)) {
            // One that is not empty is somebody else's by now.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

fn sync_folder(place: &Path) -> io::Result<()> {
    let folder = match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_unless_it_is_kept_or_was_there() {
        let base = tempfile::tempdir().unwrap();
        let deep = base.path().join("a/b");
        drop(MadeFolder::at(&deep).unwrap());
        assert!(!base.path().join("a").exists());
        MadeFolder::at(&deep).unwrap().keep();
        drop(MadeFolder::at(&deep).unwrap());
        assert!(deep.exists());
    }

    #[test]
    fn a_file_appears_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("dump.rdb");
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let mut dropped = OutFile::create(&place).unwrap();
        dropped.write(b"half").unwrap();
        assert!(!place.exists() && names() == 1);
        drop(dropped);
        assert_eq!(names(), 0);
        let mut whole = OutFile::create(&place).unwrap();
        whole.write(b"whole").unwrap();
        let mut beats = 0;
        whole.commit_while(&mut || beats += 1).unwrap();
        assert!(beats > 0);
        assert_eq!(
            (std::fs::read(&place).unwrap(), names()),
            (b"whole".to_vec(), 1)
        );
    }
}
