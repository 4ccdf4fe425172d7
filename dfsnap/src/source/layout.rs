//! What a path leads to: a stream, a DFS set or the directory of an append-only file. All verbs ask here.

use crate::report::Failure;
use dfsnap_formats::dfs::names::Name;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// How a dump lies in files.
#[derive(Debug, PartialEq, Eq)]
pub enum Layout {
    /// A file, or standard input for `-`; its first bytes say what it is.
    Stream(PathBuf),
    Set {
        folder: PathBuf,
        base: String,
    },
    Directory {
        folder: PathBuf,
        manifest: String,
    },
}

impl Layout {
    /// By names alone. A base name that is no file is a set if files of one are there.
    pub fn of(path: &Path) -> Result<Layout, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Layout::Stream(path.to_owned()));
        }
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let name = path.file_name().and_then(|name| name.to_str());
        let parsed = name.and_then(Name::parse);
        let is_there = |base: &str| {
            let names = Names::of(&folder).unwrap_or_default();
            names.bases.contains(base)
        };
        if let Some(parsed) = parsed.filter(|parsed| is_there(parsed.base)) {
            let base = parsed.base.to_owned();
            return Ok(Layout::Set { folder, base });
        }
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => in_folder(path),
            Ok(_) => Ok(match name {
                Some(name) if name.ends_with(MANIFEST) => Layout::Directory {
                    folder,
                    manifest: name.to_owned(),
                },
                _ => Layout::Stream(path.to_owned()),
            }),
            Err(error) => match name.filter(|base| is_there(base)) {
                Some(base) => Ok(Layout::Set {
                    base: base.to_owned(),
                    folder,
                }),
                None => Err(Failure::open(path, &error)),
            },
        }
    }
}

const MANIFEST: &str = ".manifest";

/// What a folder holds.
#[derive(Default)]
struct Names {
    bases: BTreeSet<String>,
    manifests: BTreeSet<String>,
}

impl Names {
    fn of(folder: &Path) -> io::Result<Names> {
        let mut names = Names::default();
        for entry in std::fs::read_dir(folder)? {
            let Ok(name) = entry?.file_name().into_string() else {
                continue;
            };
            if name.ends_with(MANIFEST) && !name.starts_with("temp-") {
                names.manifests.insert(name);
            } else if let Some(manifest) = manifest_of(&name) {
                // It may be the one that is missing.
                names.manifests.insert(manifest);
            } else if let Some(parsed) = Name::parse(&name) {
                names.bases.insert(parsed.base.to_owned());
            }
        }
        Ok(names)
    }
}

/// The one dump in a folder.
fn in_folder(folder: &Path) -> Result<Layout, Failure> {
    let names = Names::of(folder).map_err(|error| Failure::open(folder, &error))?;
    let (mut bases, mut manifests) = (names.bases.iter(), names.manifests.iter());
    let folder = folder.to_owned();
    match (
        bases.next(),
        bases.next(),
        manifests.next(),
        manifests.next(),
    ) {
        (None, _, Some(manifest), None) => Ok(Layout::Directory {
            folder,
            manifest: manifest.clone(),
        }),
        (Some(base), None, None, _) => Ok(Layout::Set {
            folder,
            base: base.clone(),
        }),
        (None, _, None, _) => Err(Failure {
            message: format!(
                "{}: a folder without the manifest of an append-only file and without a DFS set",
                folder.display()
            ),
            advice: "name the dump itself".to_owned(),
        }),
        _ => {
            let all = names.bases.iter().chain(&names.manifests);
            let all: Vec<&str> = all.take(5).map(String::as_str).collect();
            Err(Failure {
                message: format!("{}: a folder with several dumps", folder.display()),
                advice: format!("name one of them: {}", all.join(", ")),
            })
        }
    }
}

/// The number in `name.7.incr.aof` or `name.7.base.rdb`.
pub fn number_in(name: &[u8]) -> Option<i64> {
    let name = std::str::from_utf8(name).ok()?;
    split_name(name)?.1.parse().ok()
}

/// The manifest to which a file of this name belongs.
fn manifest_of(name: &str) -> Option<String> {
    number_in(name.as_bytes())?;
    Some(format!("{}{MANIFEST}", split_name(name)?.0))
}

fn split_name(name: &str) -> Option<(&str, &str)> {
    let endings = [".incr.aof", ".base.aof", ".base.rdb"];
    let stem = endings.iter().find_map(|end| name.strip_suffix(end))?;
    stem.rsplit_once('.')
}
