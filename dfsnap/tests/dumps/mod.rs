//! Dumps for tests, made by the writers of `dfsnap_formats`, and how the tool is run on them.
#![allow(dead_code, reason = "each test file uses some of it")]

#[path = "../../../formats/tests/support/corpus.rs"]
pub mod corpus;

use assert_cmd::cargo::cargo_bin_cmd;
use dfsnap_formats::aof::writer::{self as aof, Form, Place};
use dfsnap_formats::dataset::{Entry, Item};
use dfsnap_formats::dfs::index;
use dfsnap_formats::dfs::manifest::{FileEntry, Manifest, Sums};
use dfsnap_formats::dfs::names::{Member, Name, SnapshotId};
use dfsnap_formats::dfs::writer::{Compression, Identity, Options, ShardFile, Summary};
use dfsnap_formats::rdb::file::RdbWriter;
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::value::{HashField, HashValue, SetValue, Value, ZSetValue};
use std::path::{Path, PathBuf};

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../formats/tests/golden")
        .join(name)
}

/// How a run of the tool ended.
pub struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|why| panic!("{why}: {}{}", self.out, self.err))
    }
}

/// Runs the tool inside `folder`.
pub fn dfsnap(folder: &Path, args: &[&str]) -> Run {
    piped(folder, args, b"")
}

pub fn piped(folder: &Path, args: &[&str], input: &[u8]) -> Run {
    let mut command = cargo_bin_cmd!("dfsnap");
    let output = command
        .env_remove("COLUMNS")
        .current_dir(folder)
        .args(args)
        .write_stdin(input)
        .output()
        .unwrap();
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn string(key: &str, value: &str) -> Entry {
    Entry::new(0, key.as_bytes(), Value::String(value.as_bytes().to_vec()))
}

pub fn list(key: &str, elements: &[&str]) -> Entry {
    let nodes = elements
        .iter()
        .map(|e| dfsnap_formats::value::ListNode::Plain(e.as_bytes().to_vec()));
    Entry::new(0, key.as_bytes(), Value::List(nodes.collect()))
}

pub fn set(key: &str, members: &[&str]) -> Entry {
    let members = members
        .iter()
        .map(|member| member.as_bytes().to_vec())
        .collect();
    Entry::new(0, key.as_bytes(), Value::Set(SetValue::Members(members)))
}

pub fn hash(key: &str, fields: &[(&str, &str)]) -> Entry {
    let fields = fields.iter().map(|(field, value)| HashField {
        field: field.as_bytes().to_vec(),
        value: value.as_bytes().to_vec(),
        expire_at_ms: None,
    });
    Entry::new(
        0,
        key.as_bytes(),
        Value::Hash(HashValue::Fields(fields.collect())),
    )
}

pub fn zset(key: &str, members: &[(&str, f64)]) -> Entry {
    let members = members
        .iter()
        .map(|(member, score)| (member.as_bytes().to_vec(), *score));
    Entry::new(
        0,
        key.as_bytes(),
        Value::ZSet(ZSetValue::Members(members.collect())),
    )
}

pub fn expiring(mut entry: Entry, at_ms: i64) -> Entry {
    entry.attributes.expire_at_ms = Some(at_ms);
    entry
}

pub fn in_db(mut entry: Entry, db: u32) -> Entry {
    entry.db = db;
    entry
}

/// Some of every type, `count` strings among them.
pub fn mixed(count: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = (0..count)
        .map(|n| {
            string(
                &format!("key:{n}"),
                &format!("value {n} {}", "x".repeat(n % 50)),
            )
        })
        .collect();
    entries.push(list("list", &["a", "b", "c"]));
    entries.push(set("set", &["one", "two", "three"]));
    entries.push(hash("hash", &[("f", "1"), ("g", "2")]));
    entries.push(zset("zset", &[("m", 1.0), ("n", 2.5)]));
    entries.push(expiring(string("later", "v"), 4_000_000_000_000));
    entries
}

/// An RDB file that Redis 7.0 reads.
pub fn rdb(entries: &[Entry]) -> Vec<u8> {
    let mut writer = RdbWriter::new(Target::default());
    writer.aux(b"redis-ver", b"7.0.15");
    for entry in entries {
        writer.entry(entry).unwrap();
    }
    writer.finish();
    writer.take()
}

pub fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Writes a set with its manifest: entry n goes to shard n % shards.
pub fn dfs(
    folder: &Path,
    base: &str,
    id: u8,
    shards: u16,
    entries: &[Entry],
    compression: Compression,
) {
    let identity = Identity {
        snapshot_id: SnapshotId([id; 16]),
        created_at_s: 1_700_000_000,
        used_memory: 0,
        writer_version: None,
    };
    let options = Options {
        compression,
        run_bytes: 1024,
        ..Options::default()
    };
    let block_bytes = 512;
    let mut files = Vec::new();
    let mut put = |member: Member, keys: u64, runs: Vec<index::Run>, bytes: Vec<u8>| {
        let name = Name::of(base, member);
        write(folder, &name, &bytes);
        let sums = Sums::of(&bytes, block_bytes);
        files.push(FileEntry {
            name,
            keys,
            sums,
            runs,
        });
    };
    for shard in 0..shards {
        let mut bytes = Vec::new();
        let mut file = ShardFile::start(&identity, shard, options, &mut bytes);
        for entry in entries
            .iter()
            .skip(usize::from(shard))
            .step_by(usize::from(shards))
        {
            file.entry(entry, &mut bytes).unwrap();
        }
        let (keys, runs) = file.finish_indexed(&mut bytes);
        put(Member::Shard(shard), keys, runs, bytes);
    }
    let mut bytes = Vec::new();
    Summary::default().write(&identity, shards, &mut bytes);
    put(Member::Summary, 0, Vec::new(), bytes);
    let manifest = Manifest {
        snapshot_id: identity.snapshot_id,
        replication: None,
        block_bytes,
        hash_seed: None,
        files,
    };
    write(
        folder,
        &Name::of(base, Member::Manifest),
        manifest.to_json().as_bytes(),
    );
}

/// Requests as a server logs them.
pub fn commands(requests: &[&[&str]]) -> Vec<u8> {
    let mut out = Vec::new();
    for words in requests {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        dfsnap_formats::resp::encode_command(&mut out, &words);
    }
    out
}

/// Writes the directory of an append-only file.
pub fn aof(folder: &Path, entries: &[Entry], increments: &[Vec<u8>]) {
    std::fs::create_dir_all(folder).unwrap();
    let items: Vec<Item> = entries.iter().cloned().map(Item::Entry).collect();
    let form = Form::Rdb {
        target: Target::default(),
        place: Place::Base,
    };
    let files = aof::directory(b"a.aof", form, &items, increments.iter().cloned()).unwrap();
    for file in files {
        write(
            folder,
            std::str::from_utf8(&file.name).unwrap(),
            &file.bytes,
        );
    }
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
}

/// Changes the byte at `at`.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x41;
    std::fs::write(path, bytes).unwrap();
}

pub fn cut(path: &Path, by: usize) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() - by]).unwrap();
}

/// Where `text` stands in a file.
pub fn find(path: &Path, text: &[u8]) -> usize {
    let bytes = std::fs::read(path).unwrap();
    bytes
        .windows(text.len())
        .position(|window| window == text)
        .unwrap()
}

/// Replaces `from` by `to` in a text file.
pub fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}
