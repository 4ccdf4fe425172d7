//! Our server starts on every dump of the corpus that loads and holds what real servers held, and refuses every other.
//!
//! The corpus lies beside the workspace (`shared/corpus/rdb`); without it these tests say so and pass. Real servers loaded it
//! with their clock in 2009. Where a key has expired since, the wanted values come from the file less the expired keys, by
//! the reader that `formats/tests/corpus.rs` holds to the manifest.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dfsnap_formats::digest::ScoreForm;
use dfsnap_tests::dump::Dump;
use dfsnap_tests::process::{Kind, Server};

/// What the clock of the servers that loaded the corpus said: 2009-06-01.
const ORACLE_CLOCK_MS: i64 = 1_243_814_400_000;
const WORKERS: usize = 4;

type Row = HashMap<String, String>;

fn corpus() -> Option<(PathBuf, Vec<Row>)> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let folder = above
        .map(|folder| folder.join("shared/corpus/rdb"))
        .find(|folder| folder.join("MANIFEST.tsv").exists());
    let Some(folder) = folder else {
        println!("skipped: no shared/corpus/rdb beside the workspace");
        return None;
    };
    let text = std::fs::read_to_string(folder.join("MANIFEST.tsv")).expect("the manifest");
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().expect("a head line").split('\t').collect();
    let row = |line: &str| {
        let values = line.split('\t').map(str::to_owned);
        names
            .iter()
            .map(|name| (*name).to_owned())
            .zip(values)
            .collect()
    };
    let rows: Vec<Row> = lines.map(row).collect();
    Some((
        folder,
        rows.into_iter()
            .filter(|row| row["format"] == "RDB")
            .collect(),
    ))
}

/// Runs `check` for every row, several at a time; what it finds is reported together.
fn for_each(rows: &[Row], check: impl Fn(&Row) -> Result<(), String> + Sync) {
    let next = AtomicUsize::new(0);
    let findings = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(finding) = check(row) {
                        let line = format!("{} ({}): {finding}", row["file"], row["expected"]);
                        findings.lock().expect("no panic").push(line);
                    }
                }
            });
        }
    });
    let findings = findings.into_inner().expect("no panic");
    let count = findings.len();
    assert!(
        count == 0,
        "{count} of {} files:\n{}",
        rows.len(),
        findings.join("\n")
    );
}

/// A server on a copy of the file; its folder goes with it.
fn start_on(path: &Path) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(path, folder.path().join("dump.rdb")).expect("a copy");
    let args = [
        "--threads",
        "2",
        "--databases",
        "1024",
        "--active-expire-effort",
        "1",
    ];
    Server::spawn_in(Kind::Ours, folder, &args)
}

fn last_lines(server: &Server) -> String {
    let log = server.log();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

fn is_untouched(server: &Server, path: &Path) -> Result<(), String> {
    let bytes = |path: &Path| std::fs::read(path).map_err(|error| error.to_string());
    match bytes(&server.dump())? == bytes(path)? {
        true => Ok(()),
        false => Err("the file has changed".to_owned()),
    }
}

/// `db:keys` of a file by database, or `none`.
fn sizes_of(dump: &Dump) -> String {
    let mut sizes = BTreeMap::new();
    for key in &dump.keys {
        *sizes.entry(key.db).or_insert(0) += 1;
    }
    show_sizes(sizes.into_iter())
}

fn show_sizes(sizes: impl Iterator<Item = (u32, i64)>) -> String {
    let sizes: Vec<String> = sizes
        .filter(|(_, keys)| *keys > 0)
        .map(|(db, keys)| format!("{db}:{keys}"))
        .collect();
    match sizes.is_empty() {
        true => "none".to_owned(),
        false => sizes.join(" "),
    }
}

/// DBSIZE of every database that INFO names and of those that it ought to.
fn sizes_in(server: &Server) -> Result<String, String> {
    let mut client = server.client();
    let info = client.ask("INFO keyspace").text();
    let named = info.lines().filter_map(|line| {
        let (db, _) = line.strip_prefix("db")?.split_once(':')?;
        db.parse::<u32>().ok()
    });
    let mut sizes = Vec::new();
    for db in named {
        client.ask(&format!("SELECT {db}"));
        let keys = client.ask("DBSIZE").number().ok_or("DBSIZE is no number")?;
        sizes.push((db, keys));
    }
    Ok(show_sizes(sizes.into_iter()))
}

/// What a server must show for a file: sizes, digest in the old form, in the new one.
fn wanted(row: &Row, path: &Path) -> Result<(String, String, String), String> {
    let mut dump = Dump::read(path)?;
    dump.expire(ORACLE_CLOCK_MS);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let has_expired = dump.expire(now.as_millis() as i64);
    let column = |name: &str, computed: String| match &row[name] {
        value if value.is_empty() || has_expired => computed,
        value => value.trim_start_matches("(file) ").to_owned(),
    };
    Ok((
        column("dbsizes", sizes_of(&dump)),
        column("digest_redis70", dump.digest(ScoreForm::Legacy)),
        column("digest_redis_unstable", dump.digest(ScoreForm::Short)),
    ))
}

fn loads(row: &Row, path: &Path) -> Result<(), String> {
    let mut server = start_on(path);
    if !server.comes_up() {
        return Err(format!("does not load: {}", last_lines(&server)));
    }
    let (sizes, legacy, short) = wanted(row, path)?;
    let found = sizes_in(&server)?;
    if found != sizes {
        return Err(format!("has {found} keys, wanted {sizes}"));
    }
    for (command, want) in [("DEBUG DIGEST LEGACY", legacy), ("DEBUG DIGEST", short)] {
        let digest = server.client().ask(command).text();
        if digest != want {
            return Err(format!("{command}: {digest}, wanted {want}"));
        }
    }
    server.kill();
    is_untouched(&server, path)
}

fn is_refused(path: &Path) -> Result<(), String> {
    let mut server = start_on(path);
    if server.comes_up() {
        return Err("loads".to_owned());
    }
    let status = server.wait_until_ended(Duration::from_secs(10));
    let (log, shown) = (server.log(), last_lines(&server));
    if status.code() != Some(1) {
        return Err(format!("ended with {status}: {shown}"));
    }
    for word in ["dump.rdb", "offset "] {
        if !log.contains(word) {
            return Err(format!("does not say {word:?}: {shown}"));
        }
    }
    if log.contains("panicked") {
        return Err(format!("panics: {shown}"));
    }
    is_untouched(&server, path)
}

#[test]
fn every_file_that_loads_is_served_as_real_servers_serve_it() {
    let Some((folder, mut rows)) = corpus() else {
        return;
    };
    rows.retain(|row| row["expected"] == "loads");
    println!("{} files that load", rows.len());
    for_each(&rows, |row| loads(row, &folder.join(&row["file"])));
}

#[test]
fn every_other_file_is_refused_by_name_and_offset_and_left_alone() {
    let Some((folder, mut rows)) = corpus() else {
        return;
    };
    // Written by others than the servers that we replace: reading them is for tools.
    let for_tools = ["loads", "pre-ga", "enterprise", "newer"];
    rows.retain(|row| !for_tools.contains(&row["expected"].as_str()));
    println!("{} files to refuse", rows.len());
    for_each(&rows, |row| is_refused(&folder.join(&row["file"])));
}
