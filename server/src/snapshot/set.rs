//! Saving to a DFS set: a file for each shard, written side by side, then the summary, then our manifest.
//!
//! ```text
//! cut ─► shard 0 ─► thread: blobs ─► temp file ─► sealed ┐                       names given: shards, summary,
//!        shard 1 ─► thread: blobs ─► temp file ─► sealed ┼─► summary, manifest ─► directory synced,
//!        …                                               ┘   sealed too           manifest named, directory synced
//! ```
//! Invariants
//! - Before every file is durable under a temporary name, none has its own.
//! - Every file can be reached in the directory under its name: of one that is elsewhere (`Target::others`) a symbolic link is there.
//! - The manifest comes last. While it has its temporary name only, that tells what an interrupted save left behind
//!   (`catalog::Naming::remove_leftovers`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dfsnap_formats::dfs::manifest::{BLOCK_BYTES, FileEntry, Manifest, Replication, Summer, Sums};
use dfsnap_formats::dfs::names::{Member, Name, SnapshotId, check_base};
use dfsnap_formats::dfs::writer::{Compression, Identity, Options, ShardFile, Summary};
use tokio::sync::mpsc::unbounded_channel;

use super::fault;
use super::feed::Feed;
use super::file::{self, Backend, FileWriter};
use super::hook::Span;
use super::priority;
use super::save::{self, Place, Plan, Progress, Sinks, Space, on_thread};
use crate::journal::Journal;
use crate::keyspace::{DbIndex, hash};
use crate::tx::Coordinator;

/// Bytes that are gathered before they go to the file.
const BUFFER_BYTES: usize = 256 * 1024;

/// Where a set goes and how.
pub struct Target {
    /// The directory of the summary and the manifest, where the set is looked for.
    pub directory: PathBuf,
    /// Directories that the files of the shards go to in turn, on devices of their own; none: all are in `directory`.
    pub others: Vec<PathBuf>,
    /// What the names of its files start with.
    pub base: String,
    /// How files are written.
    pub backend: Backend,
    /// How blobs are.
    pub compression: Compression,
    /// Databases there are.
    pub databases: u32,
    /// How entries are written.
    pub plan: Plan,
    /// Room on the devices for all files together.
    pub space: Space,
}

impl Target {
    /// A set that is there is never written over: its files would be replaced one by one.
    fn check_is_new(&self) -> io::Result<()> {
        for folder in std::iter::once(&self.directory).chain(&self.others) {
            for file in std::fs::read_dir(folder)? {
                let file = file?;
                let name = file.file_name();
                let parsed = name.to_str().and_then(Name::parse);
                if parsed.is_some_and(|parsed| parsed.base == self.base) {
                    return Err(io::Error::other(format!(
                        "{} is there already; save under another name",
                        file.path().display()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Where the file of a shard goes.
    fn folder_of(&self, shard: usize) -> &Path {
        match self.others.len() {
            0 => &self.directory,
            others => &self.others[shard % others],
        }
    }

    /// The room that the file of each shard needs, with all that go to the same directory.
    fn spaces(&self, shards: usize) -> Vec<Space> {
        let folders: Vec<&Path> = (0..shards).map(|shard| self.folder_of(shard)).collect();
        let space = |folder: &&Path| {
            let files = folders.iter().filter(|other| *other == folder).count();
            Space {
                directory: folder.to_path_buf(),
                wanted: self.space.wanted / shards as u64 * files as u64,
                kept: self.space.kept,
            }
        };
        folders.iter().map(space).collect()
    }
}

/// One file of the set, being written.
struct Part {
    file: FileWriter,
    shard: ShardFile,
    space: Space,
    /// What is not in the file yet.
    out: Vec<u8>,
    summer: Summer,
}

/// A file that is durable under its temporary name.
struct Sealed {
    file: FileWriter,
    keys: u64,
    sums: Sums,
}

impl Part {
    fn create(target: &Target, identity: &Identity, number: u16, space: Space) -> io::Result<Part> {
        let name = Name::of(&target.base, Member::Shard(number));
        let options = Options {
            compression: target.compression,
            databases: target.databases,
            ..Options::default()
        };
        let mut out = Vec::new();
        Ok(Part {
            file: FileWriter::create(&space.directory.join(name), target.backend)?,
            shard: ShardFile::start(identity, number, options, &mut out),
            space,
            out,
            summer: Summer::new(BLOCK_BYTES),
        })
    }

    fn flush(&mut self) -> io::Result<u64> {
        let bytes = self.out.len() as u64;
        self.summer.update(&self.out);
        self.file.append(&self.out)?;
        self.out.clear();
        Ok(bytes)
    }

    /// Writes all that a shard sends.
    fn write(mut self, mut feed: Feed, progress: &Progress) -> io::Result<Sealed> {
        while let Some(chunk) = feed.blocking_next().map_err(io::Error::other)? {
            if progress.is_cancelled.load(Ordering::Relaxed) {
                return Err(io::Error::other("cancelled"));
            }
            let (db, bytes) = (chunk.db.0, &chunk.bytes[..]);
            match chunk.span {
                Span::Whole => self.shard.records(db, bytes, chunk.keys, &mut self.out),
                Span::First => self.shard.first_part(db, bytes, &mut self.out),
                Span::Middle | Span::Last => self.shard.part(bytes, &mut self.out),
            }
            progress.keys.fetch_add(chunk.keys, Ordering::Relaxed);
            if self.out.len() >= BUFFER_BYTES {
                let written = self.flush()?;
                let bytes = progress.bytes.fetch_add(written, Ordering::Relaxed);
                self.space.check_on_the_way(bytes, written)?;
            }
        }
        let Part {
            mut file,
            shard,
            mut out,
            mut summer,
            ..
        } = self;
        let keys = shard.finish(&mut out);
        summer.update(&out);
        file.append(&out)?;
        progress
            .bytes
            .fetch_add(out.len() as u64, Ordering::Relaxed);
        file.seal()?;
        Ok(Sealed {
            file,
            keys,
            sums: summer.finish(),
        })
    }
}

/// Saves a set. Returns its bytes. `place` finds the place of the cut in the replication log, if there is one.
pub(super) async fn save(
    coordinator: &Coordinator,
    journal: &Arc<Journal>,
    progress: Arc<Progress>,
    target: Target,
    at_cut: impl FnOnce(),
    place: impl AsyncFnOnce(Place) -> (String, u64, Option<DbIndex>),
) -> Result<(u64, u64), String> {
    let named = target.directory.join(&target.base).display().to_string();
    let failed =
        move |what: &str, error: &dyn std::fmt::Display| format!("{named}: {what}: {error}");
    check_base(&target.base).map_err(|error| failed("cannot be saved", &error))?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| failed("no random numbers for its id", &error))?;
    let identity = Identity {
        snapshot_id: SnapshotId(id),
        created_at_s: crate::clock::now_ms() / 1000,
        used_memory: crate::memory::used(),
        writer_version: None,
    };
    let shards = coordinator.shards();
    // The files are there before the cut: a full disk or a missing directory costs no walk.
    let (target, parts) = {
        let identity = identity.clone();
        on_thread(move || {
            let spaces = target.spaces(shards);
            let parts: io::Result<Vec<Part>> =
                spaces.iter().try_for_each(Space::check).and_then(|()| {
                    target.check_is_new()?;
                    (0..u16::MAX)
                        .zip(spaces)
                        .map(|(number, space)| Part::create(&target, &identity, number, space))
                        .collect()
                });
            (target, parts)
        })
        .await
        .map_err(|error| failed("cannot create the temporary files", &error))?
    };
    let mut parts = parts.map_err(|error| failed("cannot create the temporary files", &error))?;
    let cut = save::cut(
        coordinator,
        journal,
        &target.plan,
        Sinks::PerShard,
        |_, _| at_cut(),
    )
    .await;
    if !cut.libraries.is_empty() {
        // Dragonfly stops loading at one, and to leave them out would be a backup that lacks something.
        save::abort(coordinator, cut.id).await;
        let libraries = format!(
            "{} function libraries have no place in a DFS set; save an RDB file (SAVE RDB) instead",
            cut.libraries.len()
        );
        return Err(failed("cannot be saved", &libraries));
    }
    for (part, census) in parts.iter_mut().zip(&cut.censuses) {
        for (db, keys, expires) in &census.databases {
            part.shard.announce(db.0, *keys, *expires);
        }
    }
    let keys = cut.censuses.iter().flat_map(|census| &census.databases);
    progress
        .keys_total
        .store(keys.map(|(_, keys, _)| keys).sum(), Ordering::Relaxed);
    progress.cut.notify_one();
    let replication = match cut.known_place() {
        None => None,
        Some(known) => {
            let (id, offset, db) = place(known).await;
            Some(Replication {
                id,
                offset,
                db: db.map(|db| db.0),
            })
        }
    };
    let abort = async || save::abort(coordinator, cut.id).await;
    let written = write_parts(parts, cut.feeds, &progress, abort).await;
    let sealed = written.map_err(|error| failed("cannot write", &error))?;
    let bytes = on_thread(move || complete(&target, &identity, replication, sealed))
        .await
        .flatten()
        .map_err(|error| failed("cannot complete the set", &error))?;
    Ok((bytes, cut.changes))
}

/// Each file on a thread of its own. The first error aborts the snapshot, which ends all: no thread is left when this returns.
async fn write_parts(
    parts: Vec<Part>,
    feeds: Vec<Feed>,
    progress: &Arc<Progress>,
    abort: impl AsyncFn(),
) -> io::Result<Vec<Sealed>> {
    let count = parts.len();
    let (sender, mut receiver) = unbounded_channel();
    let mut failure = None;
    for (number, (part, feed)) in parts.into_iter().zip(feeds).enumerate() {
        let (sender, progress) = (sender.clone(), progress.clone());
        let started = std::thread::Builder::new()
            .name(format!("snapshot-{number}"))
            .spawn(move || {
                crate::memory::count_this_thread();
                priority::background();
                let _ = sender.send((number, part.write(feed, &progress)));
            });
        if let Err(error) = started {
            // What has been started ends with the snapshot.
            abort().await;
            failure = Some(error);
            break;
        }
    }
    drop(sender);
    let mut sealed: Vec<Option<Sealed>> = (0..count).map(|_| None).collect();
    while let Some((number, written)) = receiver.recv().await {
        match written {
            Ok(written) => sealed[number] = Some(written),
            Err(error) => {
                if failure.is_none() {
                    abort().await;
                }
                failure.get_or_insert(error);
            }
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    sealed
        .into_iter()
        .map(|sealed| sealed.ok_or_else(|| io::Error::other("a thread that wrote it has panicked")))
        .collect()
}

/// Writes the summary and the manifest, and gives all files their names.
fn complete(
    target: &Target,
    identity: &Identity,
    replication: Option<Replication>,
    mut sealed: Vec<Sealed>,
) -> io::Result<u64> {
    let shards = u16::try_from(sealed.len()).unwrap_or(u16::MAX);
    let mut text = Vec::new();
    Summary::default().write(identity, shards, &mut text);
    sealed.push(Sealed {
        sums: Sums::of(&text, BLOCK_BYTES),
        file: whole_file(target, Member::Summary, &text)?,
        keys: 0,
    });
    let files = sealed.iter().map(|sealed| FileEntry {
        name: name_of(sealed.file.path()),
        keys: sealed.keys,
        sums: sealed.sums.clone(),
        runs: Vec::new(),
    });
    let manifest = Manifest {
        snapshot_id: identity.snapshot_id,
        replication,
        block_bytes: BLOCK_BYTES,
        hash_seed: Some(hash::seed()),
        files: files.collect(),
    };
    let bytes = manifest.bytes();
    let manifest = whole_file(target, Member::Manifest, manifest.to_json().as_bytes())?;
    let mut named = Vec::new();
    let publish = || -> io::Result<()> {
        for sealed in sealed {
            let path = sealed.file.path().to_owned();
            sealed.file.publish()?;
            named.push(path.clone());
            if file::directory_of(&path) != target.directory {
                let link = target.directory.join(name_of(&path));
                fault::operation()?;
                std::os::unix::fs::symlink(&path, &link)?;
                named.push(link);
            }
        }
        for other in &target.others {
            file::sync_directory(other)?;
        }
        file::sync_directory(&target.directory)
    };
    let published = publish().and_then(|()| {
        let path = manifest.path().to_owned();
        manifest.publish()?;
        named.push(path);
        file::sync_directory(&target.directory)
    });
    if let Err(error) = published {
        // The manifest first: what is left of the set is never taken for whole.
        for path in named.into_iter().rev() {
            let _ = std::fs::remove_file(path);
        }
        return Err(error);
    }
    Ok(bytes)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// A small file, durable under its temporary name.
fn whole_file(target: &Target, member: Member, text: &[u8]) -> io::Result<FileWriter> {
    let path = target.directory.join(Name::of(&target.base, member));
    let mut file = FileWriter::create(&path, target.backend)?;
    file.append(text)?;
    file.seal()?;
    Ok(file)
}
