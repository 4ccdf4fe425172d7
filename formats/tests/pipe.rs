//! What `redis-cli --pipe` sends to a real server leaves the same data there.
//!
//! Needs `redis-server` and `redis-cli` in the path (7.0 or later); says so and passes without them.

mod support;

use dfsnap_formats::commands::{Form, Options};
use dfsnap_formats::dataset::{Entry, Item};
use dfsnap_formats::digest::{DatasetDigest, ScoreForm, key_digest};
use dfsnap_formats::rdb::reader::{Options as RdbOptions, RdbReader};
use dfsnap_formats::resp::{PipeError, PipeWriter};
use dfsnap_formats::value::Value;
use std::collections::HashSet;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use support::server::Server;

const DATABASES: u32 = 2000;
/// Larger dumps say nothing more and take their time.
const DUMP_BYTES_MAX: usize = 300_000;

/// Empties the server, pipes `requests` in, and gives the last line of redis-cli.
fn pipe(server: &mut Server, requests: &[u8]) -> String {
    server.ask(&["FLUSHALL"]);
    server.ask(&["FUNCTION", "FLUSH"]);
    let file = server.folder.join("requests");
    std::fs::write(&file, requests).unwrap();
    let output = Command::new("redis-cli")
        .arg("-s")
        .arg(server.folder.join("socket"))
        .arg("--pipe")
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    format!("{}{errors}", text.lines().last().unwrap_or("nothing"))
}

/// What a server of version 10 can hold of a dump, without what would expire while the test runs.
fn items(bytes: &[u8], alive_at_ms: i64) -> Option<Vec<Item>> {
    let mut reader = RdbReader::new(bytes, RdbOptions::default());
    let mut items = Vec::new();
    let mut names = HashSet::new();
    while let Some(record) = reader.next().ok()? {
        let item = Item::of_record(&record, &Default::default()).ok()?;
        if let Some(Item::Entry(entry)) = &item {
            let expires = entry.attributes.expire_at_ms;
            let alive = expires.is_none_or(|at_ms| at_ms > alive_at_ms);
            let fresh = names.insert((entry.db, entry.key.clone()));
            if !alive || !fresh || entry.db >= DATABASES || !fits(entry) {
                continue;
            }
        }
        items.extend(item);
    }
    Some(items)
}

fn fits(entry: &Entry) -> bool {
    match &entry.value {
        Value::Module(_) | Value::Json(_) | Value::Sketch(_) => false,
        Value::Hash(hash) => !hash.has_field_expiry(),
        // Servers lose the sign of zero when they pack what ZADD brings.
        Value::ZSet(zset) => {
            let zero = |(_, score): (_, f64)| score == 0.0 && score.is_sign_negative();
            !zset.members().any(zero)
        }
        _ => true,
    }
}

#[test]
fn what_is_piped_in_has_the_same_digest() {
    if Command::new("redis-cli").arg("--version").output().is_err() {
        println!("skipped: no redis-cli in the path");
        return;
    }
    let Some(mut server) = Server::start("redis-server", &[]) else {
        return;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let soon = now.as_millis() as i64 + 3_600_000;
    let mut paths = support::golden_dumps();
    if let Some(corpus) = support::corpus::corpus() {
        paths.extend(support::rdb_files(&corpus));
    }
    let (mut piped, mut findings) = (0, Vec::new());
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        let small = bytes.len() <= DUMP_BYTES_MAX;
        let Some(items) = small.then(|| items(&bytes, soon)).flatten() else {
            continue;
        };
        for form in [Form::Native, Form::Restore] {
            let options = Options {
                version: 10,
                form,
                ..Options::default()
            };
            let mut writer = PipeWriter::new(Vec::new(), options);
            let mut dataset = DatasetDigest::default();
            for item in &items {
                match writer.item(item) {
                    Ok(()) => {}
                    // What 7.0 does not know is refused as a whole.
                    Err(PipeError::Item(_)) => continue,
                    Err(error) => panic!("{}: {error}", path.display()),
                }
                if let Item::Entry(entry) = item {
                    let expires = entry.attributes.expire_at_ms.is_some();
                    let digest = key_digest(&entry.key, &entry.value, expires, ScoreForm::Legacy);
                    dataset.add(entry.db, digest);
                }
            }
            let requests = writer.requests();
            let said = pipe(&mut server, &writer.finish().unwrap());
            let want = format!("errors: 0, replies: {requests}");
            let (got, digest) = (server.digest(), dataset.finish());
            if said != want || got != digest.to_string() {
                let path = path.display();
                findings.push(format!(
                    "{path}, {form:?}: {said}, want {want}; {got}, want {digest}"
                ));
            }
            piped += 1;
        }
    }
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
    println!("{piped} pipes");
    assert!(piped > 30, "{piped} pipes");
}
