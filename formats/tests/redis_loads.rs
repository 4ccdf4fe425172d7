//! A real server loads what we write, and then holds the same data.
//!
//! Needs `redis-server` in the path (any version from 7.0 on); says so and passes without it. The server checks every
//! pack it loads (`sanitize-dump-payload yes`). `DFSNAP_SERVERS=path:path` names other servers to be asked as well, of
//! Redis or Valkey; each gets every version that it loads.

mod support;

use dfsnap_formats::dataset::Item;
use dfsnap_formats::digest::{DatasetDigest, ScoreForm, key_digest};
use dfsnap_formats::rdb::file::RdbWriter;
use dfsnap_formats::rdb::reader::{Options, RdbReader};
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::resp::Frame;
use dfsnap_formats::value::Value;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};
use support::server::Server;

const DATABASES: u32 = 2000;

/// The version of the payloads that a server makes, which is the newest that it loads.
fn rdb_version(server: &mut Server) -> u16 {
    assert!(is_ok(&server.ask(&["SET", "version", "1"])));
    match server.ask(&["DUMP", "version"]) {
        Frame::Bulk(payload) => {
            let end = payload.len() - 8;
            u16::from_le_bytes(payload[end - 2..end].try_into().unwrap())
        }
        other => panic!("{other:?}"),
    }
}

fn is_ok(reply: &Frame) -> bool {
    matches!(reply, Frame::Simple(text) if text == b"OK")
}

/// Loads `file` in place of everything and gives the digest.
fn load(server: &mut Server, file: &[u8]) -> Result<String, String> {
    std::fs::write(server.folder.join("dump.rdb"), file).unwrap();
    match server.ask(&["DEBUG", "RELOAD", "NOSAVE"]) {
        reply if is_ok(&reply) => Ok(server.digest()),
        reply => Err(format!("{reply:?}")),
    }
}

/// Golden dumps, and those of the corpus where it is there.
fn dumps() -> Vec<PathBuf> {
    let mut paths = support::golden_dumps();
    if let Some(corpus) = support::corpus::corpus() {
        paths.extend(support::rdb_files(&corpus));
    }
    paths
}

/// What a dump holds that a server can be asked about later.
fn items(bytes: &[u8], alive_at_ms: i64) -> Result<Vec<Item>, String> {
    let mut reader = RdbReader::new(bytes, Options::default());
    let mut items = Vec::new();
    let mut names = HashSet::new();
    while let Some(record) = reader.next().map_err(|error| error.to_string())? {
        let item = Item::of_record(&record, &Default::default()).map_err(|e| e.to_string())?;
        match item {
            Some(Item::Entry(entry)) => {
                let expires = entry.attributes.expire_at_ms;
                if !names.insert((entry.db, entry.key.clone())) {
                    return Err("a key is there twice".to_owned());
                }
                // Keys that expire while the test runs would come and go.
                let alive = expires.is_none_or(|at_ms| at_ms > alive_at_ms);
                if alive && entry.db < DATABASES && !matches!(entry.value, Value::Module(_)) {
                    items.push(Item::Entry(entry));
                }
            }
            Some(function @ Item::Function { .. }) => items.insert(0, function),
            _ => {}
        }
    }
    Ok(items)
}

/// The file for `target` with all that it can hold without loss of data, and the digest that it must have.
fn write(items: &[Item], target: Target, form: ScoreForm) -> (Vec<u8>, String) {
    let mut writer = RdbWriter::new(target);
    writer.aux(b"redis-ver", b"7.0.15");
    let mut dataset = DatasetDigest::default();
    for item in items {
        let kept = writer.item(item).is_ok();
        if let (true, Item::Entry(entry)) = (kept, item) {
            let expires = entry.attributes.expire_at_ms.is_some();
            let key = key_digest(&entry.key, &entry.value, expires, form);
            dataset.add(entry.db, key);
        }
    }
    writer.finish();
    (writer.take(), dataset.finish().to_string())
}

#[test]
fn what_we_write_for_any_version_loads_and_means_the_same() {
    let others = std::env::var("DFSNAP_SERVERS").unwrap_or_default();
    let others = others.split(':').filter(|path| !path.is_empty());
    for program in std::iter::once("redis-server").chain(others) {
        if let Some(server) = Server::start(program, &["--sanitize-dump-payload", "yes"]) {
            all_versions_load(server, program);
        }
    }
}

fn all_versions_load(mut server: Server, program: &str) {
    let newest = rdb_version(&mut server);
    // Servers from 7.2 on print scores in a way of their own.
    let form = match newest {
        ..=10 => ScoreForm::Legacy,
        _ => ScoreForm::Short,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let soon = now.as_millis() as i64 + 3_600_000;
    let (mut loaded, mut findings) = (0, Vec::new());
    for path in dumps() {
        let Ok(items) = items(&std::fs::read(&path).unwrap(), soon) else {
            continue;
        };
        for target in (6..=newest).filter_map(Target::of_version) {
            let (file, want) = write(&items, target, form);
            match load(&mut server, &file) {
                Ok(got) if got == want => loaded += 1,
                other => findings.push(format!(
                    "{}, {target}: {other:?}, want {want}",
                    path.display()
                )),
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    println!("{program}: {loaded} files up to version {newest}");
    assert!(loaded > 75, "{loaded} files");
}
