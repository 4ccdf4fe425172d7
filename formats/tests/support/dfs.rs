//! Sets of files in memory: reading them, writing them, and what an entry means in full.

use super::corpus::{self, Row};
use super::{Contents, Key};
use dfsnap_formats::dataset::{Entry, Item};
use dfsnap_formats::dfs::manifest::{FileEntry, Manifest, Replication};
use dfsnap_formats::dfs::names::{Member, Name, SnapshotId};
use dfsnap_formats::dfs::reader::{DfsReader, Options};
use dfsnap_formats::dfs::set::{Depth, Found, FoundFile};
use dfsnap_formats::dfs::writer::{self, Identity, ShardFile, Summary, WriteError};
use dfsnap_formats::rdb::Flavor;
use dfsnap_formats::value::{HashField, HashValue, SetValue, StreamValue, Value};
use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

/// Name and bytes of each file.
pub type Files = Vec<(String, Vec<u8>)>;

/// The entries of one file, in order; an error tells what a person would be told.
pub fn entries(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let mut reader = DfsReader::new(bytes, Options::default());
    let mut entries = Vec::new();
    let mut ended = false;
    while let Some(placed) = reader.next().map_err(|error| error.to_string())? {
        ended |= matches!(placed.record, dfsnap_formats::rdb::record::Record::End(_));
        let item = Item::of_record(&placed.record, &Default::default());
        if let Some(Item::Entry(entry)) = item.map_err(|error| error.to_string())? {
            entries.push(entry);
        }
    }
    assert!(ended, "a file without an end was read without an error");
    Ok(entries)
}

/// All files of a set as one dataset.
pub fn contents(files: &Files) -> Result<Contents, String> {
    let mut keys = Vec::new();
    let mut names = HashSet::new();
    for (name, bytes) in files {
        for entry in entries(bytes).map_err(|error| format!("{name}: {error}"))? {
            if !names.insert((entry.db, entry.key.clone())) {
                return Err(format!("{name}: key {:?} is there twice", entry.key));
            }
            keys.push(Key {
                db: entry.db,
                key: entry.key,
                expire_at_ms: entry.attributes.expire_at_ms,
                value: entry.value,
            });
        }
    }
    Ok(Contents {
        flavor: Flavor::Dragonfly,
        keys,
        bytes: files.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
    })
}

pub const SNAPSHOT_ID: SnapshotId = SnapshotId([0x5A; 16]);
pub const BLOCK_BYTES: u64 = 512;

pub fn identity() -> Identity {
    Identity {
        snapshot_id: SNAPSHOT_ID,
        created_at_s: 1_785_000_000,
        used_memory: 0,
        writer_version: None,
    }
}

/// Spreads entries over shards. Those that cannot be written come back with the reason.
pub fn write(
    entries: &[Entry],
    shards: u16,
    options: writer::Options,
) -> (Files, Vec<(usize, WriteError)>) {
    let mut files: Vec<(ShardFile, Vec<u8>)> = (0..shards)
        .map(|id| {
            let mut out = Vec::new();
            (ShardFile::start(&identity(), id, options, &mut out), out)
        })
        .collect();
    let mut refused = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let sum: usize = entry.key.iter().map(|byte| usize::from(*byte)).sum();
        let (shard, out) = &mut files[sum % usize::from(shards)];
        if let Err(error) = shard.entry(entry, out) {
            refused.push((at, error));
        }
    }
    let mut named: Files = Vec::new();
    for (id, (shard, mut out)) in files.into_iter().enumerate() {
        shard.finish(&mut out);
        named.push((Name::of("dump", Member::Shard(id as u16)), out));
    }
    let mut out = Vec::new();
    Summary::default().write(&identity(), shards, &mut out);
    named.push((Name::of("dump", Member::Summary), out));
    (named, refused)
}

pub fn examine(name: &str, bytes: &[u8]) -> FoundFile {
    FoundFile::examine(name, bytes, BLOCK_BYTES, Depth::Values).unwrap()
}

pub fn found(base: &str, files: &Files) -> Found {
    let mut found = Found::new(base);
    files
        .iter()
        .for_each(|(name, bytes)| found.add(examine(name, bytes)));
    found
}

pub fn manifest(files: &Files) -> Manifest {
    let files = files.iter().map(|(name, bytes)| {
        let file = examine(name, bytes);
        FileEntry {
            name: name.clone(),
            keys: file.keys,
            sums: file.sums,
            runs: Vec::new(),
        }
    });
    Manifest {
        snapshot_id: SNAPSHOT_ID,
        replication: Some(Replication {
            id: "0123456789".repeat(4),
            offset: 4711,
            db: None,
        }),
        block_bytes: BLOCK_BYTES,
        hash_seed: None,
        files: files.collect(),
    }
}

/// What differs between two lists of meanings: the first of either that the other has not.
pub fn difference(got: &[String], want: &[String]) -> Option<String> {
    let lacks =
        |a: &[String], b: &[String]| a.iter().find(|it| b.binary_search(it).is_err()).cloned();
    match (lacks(got, want), lacks(want, got)) {
        (None, None) if got.len() == want.len() => None,
        (more, less) => Some(format!("got {more:?}\nwant {less:?}")),
    }
}

/// An entry as a DFS set holds it: members expire at whole seconds, documents are no module's, hints are gone.
pub fn as_dragonfly(mut entry: Entry) -> Entry {
    let second = |at_ms: &mut Option<i64>| {
        *at_ms = at_ms.map(|at_ms| (at_ms.div_euclid(1000) + i64::from(at_ms % 1000 != 0)) * 1000);
        *at_ms = at_ms.map(|at_ms| at_ms.max(1_675_209_600_000));
    };
    match &mut entry.value {
        Value::Hash(hash) if hash.has_field_expiry() => {
            let fields = hash.fields().map(|field| HashField {
                field: field.field.to_vec(),
                value: field.value.to_vec(),
                expire_at_ms: field.expire_at_ms,
            });
            let mut fields: Vec<_> = fields.collect();
            fields
                .iter_mut()
                .for_each(|field| second(&mut field.expire_at_ms));
            entry.value = Value::Hash(HashValue::Fields(fields));
        }
        Value::Set(SetValue::Expiring(members)) => members
            .iter_mut()
            .for_each(|member| second(&mut member.expire_at_ms)),
        // How long ids are to be kept, where none is kept: what is kept makes the entry refused.
        Value::Stream(stream) => stream.idempotence = None,
        Value::Module(module) => {
            if let Some(text) = module.json() {
                entry.value = Value::Json(text);
            }
        }
        _ => {}
    }
    entry.attributes.idle_s = None;
    entry.attributes.freq = None;
    entry.attributes.meta_classes = 0;
    entry
}

/// All that an entry says, whatever the forms its value takes: equal texts are equal entries.
pub fn meaning(entry: &Entry) -> String {
    let mut out = format!(
        "{} {:?} {:?} ",
        entry.db,
        text(&entry.key),
        entry.attributes
    );
    let value = match &entry.value {
        Value::String(bytes) => format!("string {}", text(bytes)),
        Value::List(nodes) => {
            let elements = dfsnap_formats::value::list_elements(nodes);
            format!(
                "list {:?}",
                elements.map(|it| text(&it.to_vec())).collect::<Vec<_>>()
            )
        }
        Value::Set(set) => {
            let mut members: Vec<(String, Option<i64>)> = match set {
                SetValue::Expiring(members) => members
                    .iter()
                    .map(|member| (text(&member.member), member.expire_at_ms))
                    .collect(),
                set => set
                    .members()
                    .map(|member| (text(&member.to_vec()), None))
                    .collect(),
            };
            members.sort();
            format!("set {members:?}")
        }
        Value::Hash(hash) => {
            let fields = hash.fields();
            let mut fields: Vec<_> = fields
                .map(|it| {
                    (
                        text(&it.field.to_vec()),
                        text(&it.value.to_vec()),
                        it.expire_at_ms,
                    )
                })
                .collect();
            fields.sort();
            format!("hash {fields:?}")
        }
        Value::ZSet(zset) => {
            let members = zset.members();
            let mut members: Vec<_> = members
                .map(|(member, score)| (text(&member.to_vec()), score))
                .collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            format!("zset {members:?}")
        }
        Value::Stream(stream) => meaning_of_stream(stream),
        other => format!("{other:?}"),
    };
    out.push_str(&value);
    out
}

fn meaning_of_stream(stream: &StreamValue) -> String {
    let mut out = String::from("stream");
    for entry in stream.entries() {
        let pairs: Vec<_> = entry
            .pairs()
            .map(|(field, value)| (text(&field.to_vec()), text(&value.to_vec())))
            .collect();
        write!(out, " {} {pairs:?}", entry.id).unwrap();
    }
    let StreamValue {
        nodes,
        length,
        last_id,
        first_id,
        max_deleted_id,
        entries_added,
        groups,
        idempotence,
    } = stream;
    write!(
        out,
        " {} nodes {length} {last_id} {first_id} {max_deleted_id} {entries_added} {groups:?} {idempotence:?}",
        nodes.len()
    )
    .unwrap();
    out
}

/// A character a byte: as good as the bytes, and printed much faster.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Folder name, row and files of each set of the corpus.
pub fn sets(folder: &Path) -> Vec<(Row, Files)> {
    let rows = corpus::manifest(folder).into_iter();
    let rows = rows.filter(|row| row["format"] == "DFS");
    rows.map(|row| {
        let set = std::fs::read_dir(folder.join(&row["file"])).unwrap();
        let mut files: Files = set
            .map(|file| {
                let file = file.unwrap();
                let name = file.file_name().into_string().unwrap();
                (name, std::fs::read(file.path()).unwrap())
            })
            .collect();
        files.sort();
        (row, files)
    })
    .collect()
}

/// A set of these members.
pub fn members(names: &[&str]) -> Value {
    let members = names.iter().map(|name| name.as_bytes().to_vec());
    Value::Set(SetValue::Members(members.collect()))
}
