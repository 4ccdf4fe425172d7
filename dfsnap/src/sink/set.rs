//! A DFS set: shard files, the summary, and our manifest, which comes last.

use super::{Compression, Losses, SinkOptions};
use crate::out::OutFile;
use crate::report::{self, Failure};
use crate::source::Key;
use dfsnap_formats::dataset::Item;
use dfsnap_formats::dfs::manifest::{BLOCK_BYTES, FileEntry, Manifest, Replication, Summer};
use dfsnap_formats::dfs::names::{Member, Name, SnapshotId, check_base};
use dfsnap_formats::dfs::writer::{self, Identity, Options, ShardFile, Summary, WriteError};
use dfsnap_formats::rdb::loss::{self, Loss};
use dfsnap_formats::rdb::record::KeyRecord;
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::slot::slot;
use std::path::{Path, PathBuf};

/// Level of zstd: that of Dragonfly.
const ZSTD_LEVEL: i32 = 2;
/// Bytes that are kept before they go to a file, which has a chunk of its own.
const BUFFER_BYTES: usize = 256 << 10;
/// Notes about which run has which keys, of all files together.
const INDEX_BYTES: usize = 4 << 20;
/// Values of more are not compressed, and pass without being copied into a run.
const PASSED_BYTES: usize = 1 << 20;

pub(super) struct SetSink {
    base: String,
    folder: PathBuf,
    identity: Identity,
    shards: Vec<Shard>,
    summary: Summary,
    replication: (Option<String>, Option<u64>, Option<u32>),
}

struct Shard {
    file: OutFile,
    writer: ShardFile,
    out: Vec<u8>,
    summer: Summer,
}

impl Shard {
    /// Stored bytes of a value whose head was written.
    fn pass(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        for piece in bytes.chunks(BUFFER_BYTES) {
            self.writer.part(piece, &mut self.out);
            if self.out.len() >= BUFFER_BYTES {
                self.drain()?;
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), Failure> {
        self.summer.update(&self.out);
        self.file.write(&self.out)?;
        self.out.clear();
        // One huge entry must not hold its memory for the rest of the file.
        self.out.shrink_to(2 * BUFFER_BYTES);
        Ok(())
    }
}

impl SetSink {
    /// `place` is the base name, or the name of any file of the set.
    pub(super) fn create(place: &Path, options: &SinkOptions) -> Result<Self, Failure> {
        let name = place
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let base = match Name::parse(name) {
            Some(member) => member.base,
            None => name.strip_suffix(".dfs").unwrap_or(name),
        };
        check_base(base).map_err(|error| Failure {
            message: format!("{}: {error}", place.display()),
            advice: "name a set without an ending, as in backup/monday".to_owned(),
        })?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| Failure {
            message: format!("no random numbers for the id of the set: {error}"),
            advice: "check /dev/urandom".to_owned(),
        })?;
        let identity = Identity {
            snapshot_id: SnapshotId(id),
            created_at_s: report::now_ms() / 1000,
            used_memory: 0,
            writer_version: None,
        };
        let file_options = Options {
            compression: match options.compression {
                None | Some(Compression::Lz4) => writer::Compression::Lz4,
                Some(Compression::Zstd) => writer::Compression::Zstd(ZSTD_LEVEL),
                Some(Compression::None | Compression::Lzf) => writer::Compression::None,
            },
            index_bytes_max: INDEX_BYTES / usize::from(options.shards.max(1)),
            ..Options::default()
        };
        let folder = place.parent().unwrap_or(Path::new("")).to_owned();
        let shards = (0..options.shards.max(1)).map(|shard| {
            let file = OutFile::create(&folder.join(Name::of(base, Member::Shard(shard))))?;
            let mut out = Vec::new();
            Ok(Shard {
                file,
                writer: ShardFile::start(&identity, shard, file_options, &mut out),
                out,
                summer: Summer::new(BLOCK_BYTES),
            })
        });
        Ok(SetSink {
            base: base.to_owned(),
            shards: shards.collect::<Result<_, Failure>>()?,
            folder,
            identity,
            summary: Summary::default(),
            replication: (None, None, None),
        })
    }

    pub(super) fn aux(&mut self, name: &[u8], value: &[u8]) {
        self.summary.note(name, value);
        let text = || String::from_utf8_lossy(value).into_owned();
        match name {
            b"repl-id" => self.replication.0 = Some(text()),
            b"repl-offset" => self.replication.1 = text().parse().ok(),
            b"repl-stream-db" => self.replication.2 = text().parse().ok(),
            _ => {}
        }
    }

    pub(super) fn key(&mut self, key: Key<'_>, losses: &mut Losses) -> Result<(), Failure> {
        let count = self.shards.len();
        let shard = &mut self.shards[usize::from(slot(key.head.key)) % count];
        let db = key.head.db;
        let name = key.head.key.to_vec();
        if let Some(record) = key.large_record().filter(|record| has_no_hints(record)) {
            let begun = shard.writer.large_record(record, &mut shard.out);
            match begun {
                Ok(true) => {
                    return key.large_bytes(|bytes| shard.pass(bytes));
                }
                Ok(false) => {}
                Err(error) => {
                    losses.refuse(db, &name, &error.to_string());
                    return Ok(());
                }
            }
        }
        if let Some(record) = key.record().filter(|record| is_passed(record)) {
            match shard.writer.large_record(record, &mut shard.out) {
                Ok(true) => return shard.pass(record.value),
                Ok(false) => {}
                Err(error) => {
                    losses.refuse(db, &name, &error.to_string());
                    return Ok(());
                }
            }
        }
        let written = match key.record() {
            Some(record) if has_no_hints(record) => {
                shard
                    .writer
                    .key_record(record, &Default::default(), &mut shard.out)
            }
            _ => {
                let Some(entry) = key.entry()? else {
                    return Ok(());
                };
                for loss in loss::of_entry(&entry, Target::DRAGONFLY) {
                    // What nothing is left of is refused below, with its reason.
                    if !matches!(loss, Loss::Key(_)) {
                        losses.note(db, &name, loss);
                    }
                }
                shard.writer.entry(&entry, &mut shard.out)
            }
        };
        match written {
            Ok(()) | Err(WriteError::Empty { .. }) => {}
            Err(error) => losses.refuse(db, &name, &error.to_string()),
        }
        if shard.out.len() >= BUFFER_BYTES {
            shard.drain()?;
        }
        Ok(())
    }

    pub(super) fn item(&mut self, item: &Item, losses: &mut Losses) {
        for loss in loss::of_item(item, Target::DRAGONFLY) {
            losses.refuse_item("beside the keys", &loss.to_string());
        }
    }

    pub(super) fn drain(&mut self) -> Result<(), Failure> {
        self.shards.iter_mut().try_for_each(Shard::drain)
    }

    pub(super) fn finish(self) -> Result<(u64, Vec<PathBuf>), Failure> {
        let count = self.shards.len() as u16;
        let mut files = Vec::new();
        let mut entries = Vec::new();
        for (shard, mut open) in (0..).zip(self.shards) {
            let (keys, runs) = open.writer.finish_indexed(&mut open.out);
            open.summer.update(&open.out);
            open.file.write(&open.out)?;
            entries.push(FileEntry {
                name: Name::of(&self.base, Member::Shard(shard)),
                keys,
                sums: open.summer.finish(),
                runs,
            });
            files.push(open.file);
        }
        let mut out = Vec::new();
        self.summary.write(&self.identity, count, &mut out);
        let name = Name::of(&self.base, Member::Summary);
        let mut file = OutFile::create(&self.folder.join(&name))?;
        file.write(&out)?;
        let mut summer = Summer::new(BLOCK_BYTES);
        summer.update(&out);
        entries.push(FileEntry {
            name,
            keys: 0,
            sums: summer.finish(),
            runs: Vec::new(),
        });
        files.push(file);
        let replication = match self.replication {
            (Some(id), Some(offset), db) => Some(Replication { id, offset, db }),
            _ => None,
        };
        let manifest = Manifest {
            snapshot_id: self.identity.snapshot_id,
            replication,
            block_bytes: BLOCK_BYTES,
            hash_seed: None,
            files: entries,
        };
        let bytes = manifest.bytes();
        let name = Name::of(&self.base, Member::Manifest);
        let mut file = OutFile::create(&self.folder.join(name))?;
        file.write(manifest.to_json().as_bytes())?;
        files.push(file);
        let places = files.iter().map(|file| file.place().to_owned()).collect();
        OutFile::commit_all(files)?;
        Ok((bytes, places))
    }
}

/// Dragonfly keeps no idle times and no counters: where there are any, it is told that they are lost.
fn has_no_hints(record: &KeyRecord<'_>) -> bool {
    record.attributes.idle_s.is_none() && record.attributes.freq.is_none()
}

fn is_passed(record: &KeyRecord<'_>) -> bool {
    record.value.len() > PASSED_BYTES && has_no_hints(record)
}
