//! A real server loads the AOFs that we write, and its own AOFs mean to us what they mean to it.
//!
//! Needs `redis-server` 7.0 or later in the path; says so and passes without it.

mod support;

use dfsnap_formats::aof::manifest::Manifest;
use dfsnap_formats::aof::reader::{AofReader, Options, Unit};
use dfsnap_formats::aof::replay::{self, Replay};
use dfsnap_formats::aof::writer::{self, Form, Place};
use dfsnap_formats::commands;
use dfsnap_formats::dataset::{Entry, Item};
use dfsnap_formats::digest::ScoreForm;
use dfsnap_formats::rdb::dump::Payload;
use dfsnap_formats::rdb::reader::RdbReader;
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::resp::{Frame, encode_command};
use dfsnap_formats::value::{StreamValue, Value};
use std::path::{Path, PathBuf};
use support::Key;
use support::aof::contents;
use support::commands::{Commands, REWRITTEN, TEMPLATES, UNLOGGED};
use support::listing::Line;
use support::server::Server;

/// Of the servers that there are here.
const VERSION: u16 = 10;

/// Golden dumps, and the corpus where it is there.
fn dumps() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![here.join("tests/golden")];
    let corpora = here
        .ancestors()
        .map(|folder| folder.join("shared/corpus/rdb"));
    folders.extend(corpora.flat_map(|c| ["generated", "crafted", "collected"].map(|f| c.join(f))));
    let files = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok());
    let files = files.flatten().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|ending| ending == "rdb"))
        .collect()
}

/// What 7.0 can hold of a dump; None where it does not read.
fn items_of(path: &Path) -> Option<Vec<Item>> {
    let bytes = std::fs::read(path).unwrap();
    let mut reader = RdbReader::new(&bytes[..], Default::default());
    let mut replay = Replay::new(replay::Options::default());
    while let Some(record) = reader.next().ok()? {
        if let Some(mut item) = Item::of_record(&record, &Default::default()).ok()? {
            if let Item::Entry(entry) = &mut item {
                entry.attributes.meta_classes = 0;
                if let Value::Stream(stream) = &mut entry.value {
                    stream.idempotence = None;
                }
            }
            replay.load(item);
        }
    }
    let mut items = replay.into_items();
    items.retain(|item| match item {
        Item::Entry(entry) => {
            entry.db < 2000
                && match &entry.value {
                    Value::Hash(hash) => !hash.has_field_expiry(),
                    Value::Module(_) | Value::Json(_) | Value::Sketch(_) => false,
                    _ => true,
                }
        }
        _ => false,
    });
    Some(items)
}

#[test]
fn directories_we_write_load_and_mean_the_same() {
    let Some(mut server) = Server::with_aof() else {
        return;
    };
    let options = commands::Options {
        version: VERSION,
        ..Default::default()
    };
    let forms = [
        Form::Rdb {
            target: Target::of_version(VERSION).unwrap(),
            place: Place::Base,
        },
        Form::Commands(options),
    ];
    let (mut loaded, mut findings) = (0, Vec::new());
    for path in dumps() {
        let Some(items) = items_of(&path) else {
            continue;
        };
        for form in forms {
            // Every file begins in database 0.
            let increments = [b"0", b"1"].map(|member| {
                let mut out = Vec::new();
                let words = [&b"SADD"[..], b"later", member];
                writer::Log::default().command(&mut out, 7, Some(1_700_000_000), &words);
                out
            });
            let files = writer::directory(b"appendonly.aof", form, &items, increments).unwrap();
            let mut replay = Replay::new(replay::Options::default());
            for file in &files {
                std::fs::write(
                    server.aof().join(std::str::from_utf8(&file.name).unwrap()),
                    &file.bytes,
                )
                .unwrap();
                if !file.name.ends_with(b"manifest") {
                    support::aof::read_file(&mut replay, &file.bytes, Options::default()).unwrap();
                }
            }
            assert_eq!(
                replay.refused(),
                0,
                "{}: {:?}",
                path.display(),
                replay.last_refusal()
            );
            let want = contents(&replay.into_items()).digest(ScoreForm::Legacy);
            assert_eq!(
                server.ask(&["DEBUG", "LOADAOF"]),
                Frame::Simple(b"OK".to_vec())
            );
            match server.digest() {
                got if got == want => loaded += 1,
                got => findings.push(format!(
                    "{} as {form:?}: {got}, want {want}",
                    path.display()
                )),
            }
        }
    }
    println!("{loaded} directories");
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(loaded > 30, "{loaded} directories");
}

/// The server's own value and expiry of each key.
fn compare_keys(server: &mut Server, items: &[Item], groups: bool) -> Vec<String> {
    let mut findings = Vec::new();
    let mut db = None;
    for item in items {
        let Item::Entry(entry) = item else { continue };
        if db != Some(entry.db) {
            server.ask(&["SELECT", &entry.db.to_string()]);
            db = Some(entry.db);
        }
        let words = |name: &str| vec![name.as_bytes().to_vec(), entry.key.clone()];
        let replies = server.send(&[words("PEXPIRETIME"), words("DUMP")]);
        let at_ms = entry.attributes.expire_at_ms;
        if replies[0] != Frame::Int(at_ms.unwrap_or(-1)) {
            findings.push(format!(
                "{}: expires {:?}, server {:?}",
                entry.key.escape_ascii(),
                at_ms,
                replies[0]
            ));
        }
        let Some(payload) = replies[1].as_bytes() else {
            findings.push(format!("{}: not there", entry.key.escape_ascii()));
            continue;
        };
        let theirs = Payload::parse(payload, 12)
            .unwrap()
            .decode(&Default::default())
            .unwrap();
        let (got, want) = (
            line(entry, &entry.value, groups),
            line(entry, &theirs, groups),
        );
        if got != want {
            findings.push(format!(
                "{}: {:?}\n  server {theirs:?}",
                entry.key.escape_ascii(),
                entry.value
            ));
        }
    }
    for db in 0..3u32 {
        server.ask(&["SELECT", &db.to_string()]);
        let there = server.ask(&["KEYS", "*"]);
        for key in there.as_slice().unwrap().iter().filter_map(Frame::as_bytes) {
            let is_it = |item: &Item| matches!(item, Item::Entry(e) if e.db == db && e.key == key);
            if !items.iter().any(is_it) {
                findings.push(format!("{}: only the server has it", key.escape_ascii()));
            }
        }
    }
    findings
}

/// What can be compared: consumers are not seen at the same time here and there.
fn line(entry: &Entry, value: &Value, groups: bool) -> (Line, Option<StreamValue>) {
    let mut value = value.clone();
    let mut counters = None;
    if let Value::Stream(stream) = &mut value {
        for consumer in stream
            .groups
            .iter_mut()
            .flat_map(|group| &mut group.consumers)
        {
            consumer.seen_at_ms = 0;
            consumer.active_at_ms = -1;
        }
        if !groups {
            stream.groups.clear();
        }
        stream.groups.sort_by(|a, b| a.name.cmp(&b.name));
        let nodes = Vec::new();
        counters = Some(StreamValue {
            nodes,
            ..stream.clone()
        });
    }
    let key = Key {
        db: entry.db,
        key: entry.key.clone(),
        expire_at_ms: entry.attributes.expire_at_ms,
        value,
    };
    (Line::of(&key), counters)
}

/// The units of a file from `offset` on, but for its end.
fn follow(replay: &mut Replay, bytes: &[u8]) {
    let mut reader = AofReader::new(bytes, Options::default());
    while let Some(unit) = reader.next().unwrap() {
        if !matches!(unit, Unit::End(_)) {
            replay.unit(&unit).unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

/// The commands in `aof` that name one of the keys which findings begin with.
fn story(findings: &[String], aof: &[u8]) -> String {
    let mut story = findings.join("\n");
    let mut reader = AofReader::new(aof, Options::default());
    while let Ok(Some(unit)) = reader.next() {
        let Unit::Command(command) = unit else {
            continue;
        };
        let names = |word: &[u8]| {
            findings
                .iter()
                .any(|line| line.as_bytes().starts_with(&[word, b":"].concat()))
        };
        if command
            .words
            .iter()
            .any(|word| !word.is_empty() && names(word))
            || &command.words[0] == b"SELECT"
        {
            story.push_str(&format!("\n{:?}", command.words));
        }
    }
    story
}

fn files(server: &Server) -> Vec<PathBuf> {
    let manifest = std::fs::read(server.aof().join("appendonly.aof.manifest")).unwrap();
    let manifest = Manifest::parse(&manifest).unwrap();
    let names = manifest
        .files_to_load()
        .map(|file| String::from_utf8(file.name.clone()).unwrap());
    names.map(|name| server.aof().join(name)).collect()
}

fn seed(default: u64) -> u64 {
    std::env::var("DFSNAP_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn what_a_server_logs_is_what_it_holds() {
    let Some(mut server) = Server::with_aof() else {
        return;
    };
    let seed = seed(0x0A0F_5EED);
    println!("seed {seed}");
    let mut commands = Commands::new(seed);
    let mut replay = Replay::new(replay::Options::default());
    let mut read = 0;
    for round in 0..60 {
        let mut batch: Vec<_> = (0..150)
            .map(|_| commands.next(&[TEMPLATES, REWRITTEN]))
            .collect();
        batch.push(vec![b"EXEC".to_vec()]);
        server.send(&batch);
        let increment = std::fs::read(files(&server).pop().unwrap()).unwrap();
        follow(&mut replay, &increment[read..]);
        if let Some(refusal) = replay.last_refusal() {
            let logged = &increment[read..];
            let refused = &logged[refusal.offset as usize..];
            let line = refused[..refused.len().min(120)].escape_ascii();
            let key = refused
                .split(|byte| *byte == b'\n')
                .nth(4)
                .unwrap_or_default();
            let key = format!("{}: {refusal:?}: {line}", key.trim_ascii().escape_ascii());
            panic!("seed {seed}, round {round}: {}", story(&[key], logged));
        }
        let items = replay.clone().into_items();
        let (got, want) = (contents(&items).digest(ScoreForm::Legacy), server.digest());
        let findings = compare_keys(&mut server, &items, false);
        assert!(
            findings.is_empty(),
            "seed {seed}, round {round}: {}",
            story(&findings, &increment[read..])
        );
        assert_eq!(got, want, "seed {seed}, round {round}");
        read = increment.len();
    }
}

#[test]
fn commands_load_as_they_do_on_a_server() {
    let Some(mut server) = Server::with_aof() else {
        return;
    };
    let seed = seed(0x010A_DA0F);
    println!("seed {seed}");
    let mut commands = Commands::new(seed);
    let file = files(&server).pop().unwrap();
    let mut refused = 0;
    for round in 0..150 {
        let mut aof = Vec::new();
        for _ in 0..200 {
            let words = commands.next(&[TEMPLATES, UNLOGGED]);
            encode_command(&mut aof, &words);
        }
        std::fs::write(&file, &aof).unwrap();
        let reply = server.ask(&["DEBUG", "LOADAOF"]);
        assert_eq!(
            reply,
            Frame::Simple(b"OK".to_vec()),
            "seed {seed}, round {round}"
        );
        let mut replay = Replay::new(replay::Options {
            databases: Some(2000),
            ..Default::default()
        });
        follow(&mut replay, &aof);
        refused += replay.refused();
        let items = replay.into_items();
        let (got, want) = (contents(&items).digest(ScoreForm::Legacy), server.digest());
        let findings = compare_keys(&mut server, &items, true);
        assert!(
            findings.is_empty(),
            "seed {seed}, round {round}: {}",
            story(&findings, &aof)
        );
        assert_eq!(got, want, "seed {seed}, round {round}");
    }
    println!("{refused} commands refused");
    assert!(refused > 1000);
}
