//! Loading a DFS set, whoever wrote it: its files side by side, each read by one of several threads.
//!
//! Invariants
//! - Nothing is loaded of a set of which a file is missing, of another size than the manifest says, or not in it.
//! - A set counts as loaded only when every file was read to its last byte, of one snapshot, with the checksums of the manifest if there
//!   is one. What was inserted before a mistake showed is for the caller to drop.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dfsnap_formats::dfs::manifest::{BLOCK_BYTES, Manifest, Summer, SummingReader};
use dfsnap_formats::dfs::names::{Member, Name};
use dfsnap_formats::dfs::reader::{DfsReader, Options, Padding};
use dfsnap_formats::dfs::set::{Facts, Finding, Found, FoundFile};

use super::fault::FaultyRead;
use super::load::{LoadError, LoadOptions, LoadProgress, Loaded, Loader};
use crate::keyspace::hash;
use crate::shard::link::Links;

/// The files of a set, before any of them is read.
struct Files {
    directory: PathBuf,
    base: String,
    /// Names and sizes of the shards and the summary.
    members: Vec<(String, u64)>,
    manifest: Option<Manifest>,
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> LoadError {
    move |error| LoadError::Set(format!("{}: {error}", path.display()))
}

impl Files {
    fn list(directory: &Path, base: &str) -> Result<Files, LoadError> {
        let mut files = Files {
            directory: directory.to_owned(),
            base: base.to_owned(),
            members: Vec::new(),
            manifest: None,
        };
        for file in std::fs::read_dir(directory).map_err(io_error(directory))? {
            let file = file.map_err(io_error(directory))?;
            let name = file.file_name().to_string_lossy().into_owned();
            let Some(parsed) = Name::parse(&name).filter(|n| n.base == base && !n.is_temporary)
            else {
                continue;
            };
            let path = file.path();
            if parsed.member == Member::Manifest {
                let text = read_whole(&path).map_err(io_error(&path))?;
                let manifest = Manifest::parse(&text)
                    .map_err(|error| LoadError::Set(format!("{}: {error}", path.display())))?;
                files.manifest = Some(manifest);
            } else {
                // Through a link, which stands for a file in another directory: without that the file is missing.
                match std::fs::metadata(&path) {
                    Ok(file) => files.members.push((name, file.len())),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(io_error(&path)(error)),
                }
            }
        }
        files.members.sort();
        Ok(files)
    }

    /// What the names and sizes alone tell.
    fn check(&self) -> Result<(), LoadError> {
        let mut findings = Vec::new();
        let summary = Name::of(&self.base, Member::Summary);
        if !self.members.iter().any(|(name, _)| *name == summary) {
            findings.push(Finding::NoSummary { file: summary });
        }
        let listed = self.manifest.iter().flat_map(|manifest| &manifest.files);
        for entry in listed {
            let file = entry.name.clone();
            match self.members.iter().find(|(name, _)| *name == file) {
                None => findings.push(Finding::Missing { file }),
                Some((_, bytes)) if *bytes != entry.sums.bytes => findings.push(Finding::Number {
                    file,
                    what: "bytes",
                    found: *bytes,
                    wanted: entry.sums.bytes,
                }),
                Some(_) => {}
            }
        }
        self.refuse(&findings)
    }

    fn refuse(&self, findings: &[Finding]) -> Result<(), LoadError> {
        if findings.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> = findings.iter().map(Finding::to_string).collect();
        Err(LoadError::Set(format!(
            "the set {} in {} is not whole: {}",
            self.base,
            self.directory.display(),
            texts.join("; ")
        )))
    }

    fn bytes(&self) -> u64 {
        self.members.iter().map(|(_, bytes)| bytes).sum()
    }
}

fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    FaultyRead(File::open(path)?).read_to_end(&mut text)?;
    Ok(text)
}

/// Loads a set with up to `threads` readers, on a thread that may block. The shards insert meanwhile; nothing else may write.
pub fn load(
    (directory, base): (&Path, &str),
    threads: usize,
    links: &Arc<Links>,
    options: LoadOptions,
    progress: &LoadProgress,
) -> Result<Loaded, LoadError> {
    let files = Files::list(directory, base)?;
    progress.begin(files.bytes());
    if !options.lenient {
        files.check()?;
    }
    if let Some(seed) = files.manifest.as_ref().and_then(|m| m.hash_seed) {
        hash::adopt_seed(seed);
    }
    let block_bytes = files
        .manifest
        .as_ref()
        .map_or(BLOCK_BYTES, |manifest| manifest.block_bytes);
    let shared = Shared {
        files: &files,
        queue: Mutex::new(files.members.iter().collect()),
        has_failed: AtomicBool::new(false),
        block_bytes,
        options,
        progress,
    };
    let readers = threads.clamp(1, files.members.len().max(1));
    let results: Vec<_> = std::thread::scope(|scope| {
        // This thread is one of them, and does it alone if the system has no others to give.
        let others = (1..readers).map_while(|_| {
            let read = || {
                crate::memory::count_this_thread();
                shared.read_files(links)
            };
            std::thread::Builder::new().spawn_scoped(scope, read).ok()
        });
        let others: Vec<_> = others.collect();
        let own = std::iter::once(shared.read_files(links));
        let ended = others.into_iter().map(std::thread::ScopedJoinHandle::join);
        own.chain(ended.map(|result| result.expect("reading does not panic")))
            .collect()
    });
    let mut loaded = Loaded::default();
    let mut found = Found::new(base);
    for result in results {
        let (part, read) = result?;
        loaded.keys += part.keys;
        loaded.expired += part.expired;
        loaded.empty += part.empty;
        loaded.bytes += part.bytes;
        loaded.lost += part.lost;
        read.into_iter().for_each(|file| found.add(file));
    }
    let position = files.manifest.as_ref().and_then(|m| m.replication.clone());
    if let Some(manifest) = files.manifest.clone() {
        found.set_manifest(manifest);
    }
    match found.check() {
        Ok(_) => {}
        Err(findings) if options.lenient => {
            for finding in &findings {
                tracing::warn!(%finding, "the set is not whole");
            }
            loaded.lost += findings.len() as u64;
        }
        Err(findings) => files.refuse(&findings)?,
    }
    // What is not whole is not the state at a position.
    loaded.replication = position
        .filter(|_| loaded.lost == 0)
        .map(|place| (place.id, place.offset, place.db.unwrap_or(0)));
    Ok(loaded)
}

/// What the readers share.
struct Shared<'a> {
    files: &'a Files,
    queue: Mutex<VecDeque<&'a (String, u64)>>,
    /// One has given up: the others need not go on.
    has_failed: AtomicBool,
    block_bytes: u64,
    options: LoadOptions,
    progress: &'a LoadProgress,
}

impl Shared<'_> {
    fn read_files(&self, links: &Arc<Links>) -> Result<(Loaded, Vec<FoundFile>), LoadError> {
        let mut loader = Loader::new(links.clone(), self.options, self.progress);
        let manifest = self.files.manifest.as_ref();
        loader.has_position = manifest.is_some_and(|m| m.replication.is_some());
        let mut read = Vec::new();
        let mut result = Ok(());
        while result.is_ok() && !self.has_failed.load(Ordering::Relaxed) {
            let next = self
                .queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some((name, _)) = next else { break };
            result = self
                .read_file(name, &mut loader)
                .map(|file| read.push(file));
        }
        let result = result.and(loader.drain());
        if result.is_err() {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        result.map(|()| (loader.loaded, read))
    }

    fn read_file(&self, name: &str, loader: &mut Loader) -> Result<FoundFile, LoadError> {
        let path = self.files.directory.join(name);
        let file = File::open(&path).map_err(io_error(&path))?;
        let source_bytes = Some(file.metadata().map_err(io_error(&path))?.len());
        let label: Arc<str> = path.display().to_string().into();
        let mut summing = SummingReader {
            source: FaultyRead(file),
            summer: Summer::new(self.block_bytes),
        };
        let reader_options = Options {
            source_bytes,
            lenient: self.options.lenient,
            ..Options::default()
        };
        let mut reader = DfsReader::new(&mut summing, reader_options);
        let (mut facts, mut keys, mut seen) = (Facts::default(), 0, 0);
        let damage = loop {
            let offset = reader.offset();
            self.progress
                .read
                .fetch_add(offset - seen, Ordering::Relaxed);
            seen = offset;
            let record = match reader.next() {
                Ok(Some(placed)) => placed.record,
                Ok(None) => break None,
                Err(error) if self.options.lenient => break Some(error.to_string()),
                Err(error) => {
                    return Err(LoadError::Set(format!("{}: {error}", path.display())));
                }
            };
            facts.note(&record);
            keys += u64::from(matches!(
                record,
                dfsnap_formats::rdb::reader::Record::Key(_)
            ));
            loader.take(&record, offset, Some(&label))?;
        };
        let padding = match (&damage, reader.padding()) {
            (None, padding) => {
                padding.map_err(|error| LoadError::Set(format!("{}: {error}", path.display())))?
            }
            (Some(_), _) => Padding::default(),
        };
        for skipped in reader.skipped() {
            tracing::warn!(
                file = name,
                from = skipped.offset,
                bytes = skipped.bytes,
                why = %skipped.why,
                "lost bytes of the file"
            );
            loader.loaded.lost += 1;
        }
        loader.loaded.bytes += reader.offset();
        Ok(FoundFile {
            name: name.to_owned(),
            facts,
            keys,
            sums: summing.summer.finish(),
            block_bytes: self.block_bytes,
            padding,
            damage,
        })
    }
}
