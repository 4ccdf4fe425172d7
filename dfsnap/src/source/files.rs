//! Which files belong to what was named, and what they hold: told by content, not by name.

use super::layout::Layout;
use super::place::Place;
use super::{Bytes, Kind};
use crate::live::{self, Url, cluster::Nodes, url::Secrets};
use crate::report::Failure;
use dfsnap_formats::aof::manifest::Manifest;
use dfsnap_formats::aof::reader::{End, Unit};
use dfsnap_formats::dfs::names::{Member, Name};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// An append-only file, or the parts of one in the order in which they are loaded.
#[derive(Debug, Clone)]
pub struct AofFiles {
    parts: Vec<PathBuf>,
}

impl AofFiles {
    pub fn paths(&self) -> Vec<PathBuf> {
        self.parts.clone()
    }

    pub(super) fn name(&self) -> String {
        let first = self.parts.first();
        first.map_or_else(String::new, |path| path.display().to_string())
    }
}

/// Bytes that are looked at to tell what a file is.
const SNIFFED: usize = 16;

/// What is at a place.
pub(super) fn open(place: &Place) -> Result<Kind, Failure> {
    match place {
        Place::Stdin => by_content(Path::new("-"), Box::new(io::stdin().lock()), None),
        Place::Url(url) => of_server(url),
        Place::Path(path) => match Layout::of(path)? {
            Layout::Set { folder, base } => Ok(Kind::Dfs(set_in(&folder, &base)?)),
            Layout::Directory { folder, manifest } => parts_of(&folder.join(manifest)),
            Layout::Stream(path) => {
                let (bytes, len) = open_file(&path)?;
                by_content(&path, bytes, len)
            }
        },
    }
}

/// What a server holds now, by a full resync.
fn of_server(text: &str) -> Result<Kind, Failure> {
    let url = Url::open(text, Secrets::new(None))?;
    if let Some(db) = url.db {
        return Err(Failure {
            message: format!(
                "{url}: a server is read as a whole, and the address names a database"
            ),
            advice: format!("an address without it, and --db {db}"),
        });
    }
    match url.is_cluster {
        true => Ok(Kind::Cluster(Nodes::of(&url)?.urls)),
        false => Ok(Kind::Rdb {
            bytes: Box::new(live::snapshot::snapshot(&url)?),
            len: None,
        }),
    }
}

/// A file and its size.
pub(super) fn open_file(path: &Path) -> Result<(Bytes, Option<u64>), Failure> {
    let file = File::open(path).map_err(|error| Failure::open(path, &error))?;
    let meta = file
        .metadata()
        .map_err(|error| Failure::open(path, &error))?;
    let len = meta.is_file().then_some(meta.len());
    Ok((Box::new(file), len))
}

fn by_content(path: &Path, mut bytes: Bytes, len: Option<u64>) -> Result<Kind, Failure> {
    let mut start = Vec::new();
    (&mut bytes)
        .take(SNIFFED as u64)
        .read_to_end(&mut start)
        .map_err(|error| Failure::open(path, &error))?;
    let first = start
        .iter()
        .find(|byte| !byte.is_ascii_whitespace())
        .copied();
    let bytes: Bytes = Box::new(io::Cursor::new(start).chain(bytes));
    Ok(match first {
        Some(b'*' | b'#') => match path.to_str() {
            Some("-") => {
                return Err(Failure {
                    message: "-: an append-only file cannot be read from standard input".to_owned(),
                    advice: "name the file".to_owned(),
                });
            }
            _ => Kind::Aof(AofFiles {
                parts: vec![path.to_owned()],
            }),
        },
        Some(b'{' | b'[') => Kind::Json { bytes, len },
        _ if is_preamble_of_commands(path, len) => Kind::Aof(AofFiles {
            parts: vec![path.to_owned()],
        }),
        _ => Kind::Rdb { bytes, len },
    })
}

/// Append-only files with an RDB file in front go by their name: only behind its end it shows what they are.
fn is_preamble_of_commands(path: &Path, len: Option<u64>) -> bool {
    len.is_some() && path.extension() == Some(OsStr::new("aof"))
}

/// The files of the set `base` in a folder, the summary last.
fn set_in(folder: &Path, base: &str) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder).map_err(|error| Failure::open(folder, &error))?;
    let mut shards = Vec::new();
    let mut summary = None;
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        match Name::parse(&name) {
            Some(found) if found.base == base && !found.is_temporary => match found.member {
                Member::Shard(shard) => shards.push((shard, folder.join(&name))),
                Member::Summary => summary = Some(folder.join(&name)),
                _ => {}
            },
            _ => {}
        }
    }
    shards.sort();
    let shards = shards.into_iter().map(|(_, path)| path);
    Ok(shards.chain(summary).collect())
}

/// The parts that a manifest lists.
fn parts_of(manifest: &Path) -> Result<Kind, Failure> {
    let text = std::fs::read(manifest).map_err(|error| Failure::open(manifest, &error))?;
    let parsed = Manifest::parse(&text).map_err(|error| Failure {
        message: format!("{}: {error}", manifest.display()),
        advice:
            "compare it with the files in its folder; a server writes it anew with BGREWRITEAOF"
                .to_owned(),
    })?;
    let folder = manifest.parent().unwrap_or(Path::new("."));
    let parts = parsed
        .files_to_load()
        .map(|file| folder.join(OsStr::from_bytes(&file.name)));
    Ok(Kind::Aof(AofFiles {
        parts: parts.collect(),
    }))
}

/// A file that ends inside of something is cut, as servers do it, if it is the last one.
pub(super) fn check_end(path: &Path, unit: &Unit<'_>, files: &AofFiles) -> Result<(), Failure> {
    let Unit::End(End::Cut {
        good_bytes,
        cut_bytes,
        what,
    }) = unit
    else {
        return Ok(());
    };
    let name = path.display();
    let what =
        format!("{name}: ends inside {what}: {good_bytes} bytes are whole, {cut_bytes} more");
    if files.parts.last().is_some_and(|last| last == path) {
        eprintln!("note: {what} are left out, as servers do");
        return Ok(());
    }
    Err(Failure {
        message: format!("{what}, and other files follow it"),
        advice: format!("dfsnap salvage {name} -o FILE keeps what is whole"),
    })
}
