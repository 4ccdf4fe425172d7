//! How far a restore came, in a file: what goes on from it does not begin again.
//!
//! Invariants
//! - The number in the file is never above what the server has acknowledged.
//! - A checkpoint of another dump, server or filter is refused, not misread.

use crate::out::OutFile;
use crate::report::{self, Failure};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The dump, as it was: a changed file is another dump.
    pub source: String,
    /// The server, until it restarts.
    pub target: String,
    /// What decides which keys come, and what becomes of them.
    pub options: String,
    /// The clock when the restore began: filters by expiry go by it.
    pub began_at_ms: i64,
    /// So many of the first keys are restored.
    pub keys_done: u64,
}

#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    pub state: State,
    written: Instant,
}

const INTERVAL: Duration = Duration::from_secs(1);

impl Checkpoint {
    /// What is in the file, if it is about the same restore; a new one where there is no file.
    pub fn open(path: &Path, new: State) -> Result<Checkpoint, Failure> {
        let state = match std::fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => new,
            Err(error) => return Err(Failure::open(path, &error)),
            Ok(text) => State::parse(&text)
                .and_then(|old| old.merged(&new))
                .map_err(|why| Failure {
                    message: format!("{}: {why}", path.display()),
                    advice: "remove it to begin anew; or --checkpoint with another file".to_owned(),
                })?,
        };
        Ok(Checkpoint {
            path: path.to_owned(),
            state,
            written: Instant::now(),
        })
    }

    /// Notes progress, once a second; `idle` as in `write`.
    pub fn note(&mut self, keys_done: u64, idle: &mut dyn FnMut()) -> Result<(), Failure> {
        self.state.keys_done = keys_done;
        match self.written.elapsed() >= INTERVAL {
            true => self.write(idle),
            false => Ok(()),
        }
    }

    /// `idle` is called while the disk is waited for.
    pub fn write(&mut self, idle: &mut dyn FnMut()) -> Result<(), Failure> {
        let mut file = OutFile::create(&self.path)?;
        file.write(report::json(&self.state).as_bytes())?;
        let committed = file.commit_while(idle);
        self.written = Instant::now();
        committed
    }

    /// The restore is complete.
    pub fn remove(self) -> Result<(), Failure> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::write(&self.path, &error))
            }
            _ => Ok(()),
        }
    }
}

impl State {
    fn parse(text: &[u8]) -> Result<State, String> {
        serde_json::from_slice(text).map_err(|error| format!("no checkpoint: {error}"))
    }

    fn merged(self, new: &State) -> Result<State, String> {
        let differing = [
            ("dump", &self.source, &new.source),
            ("server", &self.target, &new.target),
            ("choice of options", &self.options, &new.options),
        ];
        for (what, old, new) in differing {
            if old != new {
                return Err(format!(
                    "a checkpoint of another {what}: {old}, and now {new}"
                ));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(source: &str) -> State {
        State {
            source: source.to_owned(),
            target: "h:1".to_owned(),
            options: String::new(),
            began_at_ms: 7,
            keys_done: 0,
        }
    }

    /// It used to count from their beginning: on a disk that took longer than the interval, every record was followed by another
    /// write, and a restore of some thousand keys came to no end.
    #[test]
    fn the_interval_counts_from_the_end_of_a_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let mut checkpoint = Checkpoint::open(&path, state("a")).unwrap();
        let mut slow = Some(INTERVAL * 11 / 10);
        let mut wait = || std::thread::sleep(slow.take().unwrap_or_default());
        checkpoint.write(&mut wait).unwrap();
        checkpoint.note(5, &mut || {}).unwrap();
        let written = State::parse(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(written.keys_done, 0);
    }

    #[test]
    fn checkpoint_goes_on_and_is_of_one_restore() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        let mut first = Checkpoint::open(&path, state("a")).unwrap();
        first.state.keys_done = 12;
        first.write(&mut || {}).unwrap();
        let again = Checkpoint::open(
            &path,
            State {
                began_at_ms: 9,
                ..state("a")
            },
        )
        .unwrap();
        assert_eq!((again.state.keys_done, again.state.began_at_ms), (12, 7));
        let failure = Checkpoint::open(&path, state("b")).unwrap_err();
        assert!(
            failure.message.contains("another dump: a, and now b"),
            "{}",
            failure.message
        );
        std::fs::write(&path, b"{").unwrap();
        assert!(Checkpoint::open(&path, state("a")).is_err());
        again.remove().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
