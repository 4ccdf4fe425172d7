//! The texts that a configuration is read from, and how they get from a process to the one that goes on for it in the background.
//!
//! `config::load` reads every file, and the standard input, through [`Sources`], which keeps what was read. Some of it can be read only once (a
//! pipe), and it may hold a password: so the process in the background reads nothing again but takes the texts that it is handed.
//!
//! Invariants
//! - What is handed over is whole, or an error: a mark in front, a length before each part, nothing behind the last.
//! - Whoever was handed texts reads those, in the order in which they were read first, and no file.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

/// In front of what is handed over. Then for each text its name and its bytes, each behind its length (u64, little endian).
const MARK: &[u8] = b"dfsnap configuration 1\n";

/// The texts of a configuration.
#[derive(Debug, Default)]
pub struct Sources {
    /// What was read, by name.
    read: Vec<(PathBuf, Vec<u8>)>,
    /// What is left of the texts that another process has read; `None` in a process that reads them itself.
    handed: Option<VecDeque<(PathBuf, Vec<u8>)>>,
}

impl Sources {
    /// The text of this name: by `read`, unless another process has read it.
    pub fn text(
        &mut self,
        name: &Path,
        read: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> io::Result<String> {
        let bytes = match &mut self.handed {
            None => {
                let bytes = read()?;
                self.read.push((name.to_owned(), bytes.clone()));
                bytes
            }
            Some(handed) => match handed.pop_front() {
                Some((of, bytes)) if of == name => bytes,
                other => {
                    let got = other.map_or("nothing more".into(), |(of, _)| format!("{of:?}"));
                    return Err(invalid(format!("the texts handed over have {got} here")));
                }
            },
        };
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What was read, for a process that goes on with it.
    pub fn hand_over(&self) -> Vec<u8> {
        let mut bytes = MARK.to_vec();
        for (name, text) in &self.read {
            for part in [name.as_os_str().as_encoded_bytes(), text] {
                bytes.extend((part.len() as u64).to_le_bytes());
                bytes.extend(part);
            }
        }
        bytes
    }

    /// The texts that another process has read.
    pub fn handed_over(bytes: &[u8]) -> io::Result<Sources> {
        use std::os::unix::ffi::OsStrExt;
        let mut rest = bytes
            .strip_prefix(MARK)
            .ok_or_else(|| invalid("no configuration was handed over".to_owned()))?;
        let mut handed = VecDeque::new();
        while !rest.is_empty() {
            let name = part(&mut rest)?;
            let text = part(&mut rest)?;
            let name = std::ffi::OsStr::from_bytes(name);
            handed.push_back((PathBuf::from(name), text.to_vec()));
        }
        Ok(Sources {
            read: Vec::new(),
            handed: Some(handed),
        })
    }
}

/// Takes a length and what it counts.
fn part<'a>(rest: &mut &'a [u8]) -> io::Result<&'a [u8]> {
    let left = rest.len();
    let taken = rest.split_first_chunk::<8>().and_then(|(len, behind)| {
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
        behind.split_at_checked(len)
    });
    let (part, behind) = taken.ok_or_else(|| {
        invalid(format!(
            "what was handed over ends early, {left} bytes left"
        ))
    })?;
    *rest = behind;
    Ok(part)
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_handed_over_whole_and_in_order_or_not_at_all() {
        let texts = [("/a", "port 1\n"), ("/b", ""), ("/a", "\0x")];
        let mut sources = Sources::default();
        for (name, text) in texts {
            let read = || Ok(text.as_bytes().to_vec());
            assert_eq!(sources.text(Path::new(name), read).unwrap(), text);
        }
        let never = || -> io::Result<Vec<u8>> { panic!("it was read already") };
        let bytes = sources.hand_over();
        let mut handed = Sources::handed_over(&bytes).unwrap();
        for (name, text) in texts {
            assert_eq!(handed.text(Path::new(name), never).unwrap(), text);
        }
        assert!(handed.text(Path::new("/a"), never).is_err(), "one too many");
        let mut handed = Sources::handed_over(&bytes).unwrap();
        assert!(handed.text(Path::new("/b"), never).is_err(), "another name");
        // Cut anywhere it is an error, or (between two texts) too little.
        for end in 0..bytes.len() {
            let Ok(mut handed) = Sources::handed_over(&bytes[..end]) else {
                continue;
            };
            let all = texts.map(|(name, _)| handed.text(Path::new(name), never).is_ok());
            assert!(all.contains(&false), "{end} bytes");
        }
    }
}
