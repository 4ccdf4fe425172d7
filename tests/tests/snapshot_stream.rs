//! Every snapshot is the replication stream up to its place: a link records the whole stream, all kinds of writes go on, and for each
//! file, of either form, the stream is replayed up to the offset that the file names. The digests must be equal.
//!
//! The replay is that of `formats::aof`, which shares no code with the server's commands.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dfsnap_formats::aof::replay::{Options, Replay};
use dfsnap_formats::dataset::{Entry, Item};
use dfsnap_formats::dfs::manifest::Manifest;
use dfsnap_formats::digest::{DatasetDigest, ScoreForm, key_digest};
use dfsnap_tests::client::Client;
use dfsnap_tests::dump::Dump;
use dfsnap_tests::load::Load;
use dfsnap_tests::process::Server;
use dfsnap_tests::{SetOnDrop, seconds, seed, wait_for};
use fastrand::Rng;

const LIMIT: Duration = Duration::from_secs(60);
const WRITERS: usize = 3;

/// What came over a link.
struct Recorded {
    /// The offset of the snapshot that the link began with.
    start: u64,
    payload: Vec<u8>,
    stream: Arc<Mutex<Vec<u8>>>,
}

/// Opens a replication link and keeps all that comes, until the server is gone or `is_over`.
fn record(server: &Server, is_over: Arc<AtomicBool>) -> Recorded {
    let mut link = Client::connect(server.port).expect("a connection");
    link.call(&["REPLCONF", "capa", "eof", "capa", "psync2"]);
    link.send(&["PSYNC", "?", "-1"]).expect("sent");
    let line = link.line().expect("a reply");
    let start = line.rsplit(' ').next().and_then(|text| text.parse().ok());
    let start: u64 = start.unwrap_or_else(|| panic!("{line}"));
    let mark = loop {
        let line = link.line().expect("the payload's head");
        if let Some(mark) = line.trim().strip_prefix("$EOF:") {
            break mark.as_bytes().to_vec();
        }
    };
    let mut payload = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while !payload.ends_with(&mark) {
        let count = link.read(&mut buffer).expect("the payload");
        payload.extend_from_slice(&buffer[..count]);
    }
    payload.truncate(payload.len() - mark.len());
    let stream = Arc::new(Mutex::new(Vec::new()));
    let shared = stream.clone();
    std::thread::spawn(move || {
        let mut offset = start;
        let mut acked = Instant::now() - LIMIT;
        link.stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a timeout");
        while !is_over.load(Ordering::Relaxed) {
            if acked.elapsed() > Duration::from_millis(500) {
                acked = Instant::now();
                let ack = format!(
                    "*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n${}\r\n{offset}\r\n",
                    offset.to_string().len()
                );
                if link.stream.write_all(ack.as_bytes()).is_err() {
                    return;
                }
            }
            match link.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    offset += count as u64;
                    shared.lock().unwrap().extend_from_slice(&buffer[..count]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    });
    Recorded {
        start,
        payload,
        stream,
    }
}

/// The number behind `mark` at `at`, and what follows its line.
fn number(bytes: &[u8], at: usize, mark: u8) -> Option<(usize, usize)> {
    assert_eq!(*bytes.get(at)?, mark, "a command in the stream");
    let end = at + bytes[at..].windows(2).position(|two| two == b"\r\n")?;
    let text = std::str::from_utf8(&bytes[at + 1..end]).expect("a number");
    Some((text.parse().expect("a number"), end + 2))
}

/// The words of the command at the start of `bytes`, and its length.
fn command(bytes: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let (count, mut at) = number(bytes, 0, b'*')?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (len, start) = number(bytes, at, b'$')?;
        words.push(bytes.get(start..start + len)?);
        at = start + len + 2;
    }
    Some((words, at))
}

fn digest<'a>(entries: impl Iterator<Item = &'a Entry>) -> String {
    let mut dataset = DatasetDigest::default();
    for entry in entries {
        let expires = entry.attributes.expire_at_ms.is_some();
        let digest = key_digest(&entry.key, &entry.value, expires, ScoreForm::Short);
        dataset.add(entry.db, digest);
    }
    dataset.finish().to_string()
}

fn digest_of_items(items: &[Item]) -> String {
    digest(items.iter().filter_map(|item| match item {
        Item::Entry(entry) => Some(entry),
        _ => None,
    }))
}

/// A file, and the place in the stream that it names.
fn placed(path: &Path) -> (u64, Dump) {
    let dump = Dump::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let manifest = PathBuf::from(format!("{}-manifest.json", path.display()));
    let offset = match std::fs::read(manifest) {
        Ok(text) => {
            let manifest = Manifest::parse(&text).expect("a manifest");
            manifest.replication.expect("its place").offset
        }
        Err(_) => dump.aux["repl-offset"].parse().expect("an offset"),
    };
    (offset, dump)
}

/// Values that are saved in slices, one of each type.
fn fill(client: &mut Client) {
    client.ask("DEBUG POPULATE 3000 still 100");
    client.ask("SETRANGE big:s 400000 x");
    for chunk in 0..100 {
        let item = |i: u32| format!("{:0>60}", chunk * 50 + i);
        let list: String = (0..50).map(|i| format!(" {}", item(i))).collect();
        let pairs: String = (0..50)
            .map(|i| format!(" {i}{chunk} {}", item(i)))
            .collect();
        client.ask(&format!("RPUSH big:l{list}"));
        client.ask(&format!("SADD big:e{list}"));
        client.ask(&format!("HSET big:h{pairs}"));
        client.ask(&format!("ZADD big:z{pairs}"));
    }
}

/// Changes, moves and replaces the large values.
fn change_large(client: &mut Client, rng: &mut Rng) {
    let n = rng.u32(..5_000);
    let line = match rng.u32(..16) {
        0..3 => format!("SETRANGE big:s {n} changed"),
        3..5 => format!("LSET big:l {} changed{n}", n % 1_000),
        5..7 => format!("HSET big:h field{n} value{n}"),
        7..9 => format!("ZADD big:z {n} member{n}"),
        9..11 => format!("SREM big:e {n:0>60}"),
        11 => format!("RPUSH big:l {n}"),
        12 => "RENAME big:s big:t".to_owned(),
        13 => "RENAME big:t big:s".to_owned(),
        14 => "COPY big:h big:h2 REPLACE".to_owned(),
        _ => "SUNIONSTORE big:e2 big:e s:none".to_owned(),
    };
    let words: Vec<&str> = line.split(' ').collect();
    client.call(&words);
}

/// Saves once, of the form that the number says; now and then with a copy over a link at the same time.
fn save(server: &Server, client: &mut Client, number: usize) -> PathBuf {
    let (command, name) = match number % 2 {
        0 => ("RDB", format!("{number}.rdb")),
        _ => ("DF", number.to_string()),
    };
    let saves = client.info("rdb_saves");
    let overlapping = (number % 5 == 4).then(|| {
        let mut link = Client::connect(server.port).expect("a connection");
        link.call(&["REPLCONF", "capa", "eof"]);
        link.send(&["PSYNC", "?", "-1"]).expect("sent");
        link
    });
    client.call(&["BGSAVE", command, &name]);
    wait_for("the save", LIMIT, || {
        let status = client.info("rdb_last_bgsave_status");
        assert_eq!(status.as_deref(), Some("ok"), "{}", server.log());
        (client.info("rdb_saves") != saves).then_some(())
    });
    drop(overlapping);
    server.folder().join(name)
}

/// `room`: bytes above what is used at first that evictions keep to.
fn snapshots_are_prefixes(name: &str, args: &[&str], room: Option<u64>) {
    let seed = seed(name);
    let mut rng = Rng::with_seed(seed);
    let server = Server::ours(args);
    let mut client = server.client();
    fill(&mut client);
    if let Some(room) = room {
        // More to evict than buffers of connections, the backlog and saves ever take.
        client.ask("DEBUG POPULATE 60000 more 100");
        let used: u64 = client.info("used_memory").unwrap().parse().unwrap();
        client.ask("CONFIG SET maxmemory-policy allkeys-random");
        client.ask(&format!("CONFIG SET maxmemory {}", used + room));
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let recorded = record(&server, is_over.clone());
    let load = Load::new(seed, &mut [server.client()]);
    let steps = Arc::new(AtomicUsize::new(0));
    let is_written = Arc::new(AtomicBool::new(false));
    let mut files = Vec::new();
    std::thread::scope(|scope| {
        let _stop = SetOnDrop(&is_written);
        for w in 0..WRITERS as u64 {
            let (mut load, mut client) = (load.fork(seed.wrapping_add(w)), server.client());
            let (is_written, steps) = (&is_written, &steps);
            let mut rng = rng.fork();
            scope.spawn(move || {
                while !is_written.load(Ordering::Relaxed) {
                    match room {
                        None => load.step(&mut client),
                        // After a FLUSHALL there is nothing to evict while a snapshot keeps what was flushed: a write
                        // may be refused then, and a block would be as a whole.
                        Some(_) => drop(client.call(&load.command())),
                    }
                    if rng.u32(..10) == 0 {
                        change_large(&mut client, &mut rng);
                    }
                    steps.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let end = Instant::now() + seconds(5);
        while Instant::now() < end {
            files.push(save(&server, &mut client, files.len()));
        }
    });
    let mut placed: Vec<_> = files.iter().map(|file| (file, placed(file))).collect();
    placed.sort_by_key(|(_, (offset, _))| *offset);
    let last = placed.last().expect("a snapshot").1.0;
    wait_for("the whole stream", LIMIT, || {
        let len = recorded.stream.lock().unwrap().len() as u64;
        (recorded.start + len >= last).then_some(())
    });
    is_over.store(true, Ordering::Relaxed);
    let evicted = client.info("evicted_keys").unwrap_or_default();
    println!(
        "{name}: {} steps, {} snapshots, {evicted} keys evicted",
        steps.load(Ordering::Relaxed),
        files.len()
    );
    assert_eq!(room.is_some(), evicted != "0", "{evicted} evicted");
    let mut replay = Replay::new(Options::default());
    for key in Dump::parse(&recorded.payload[..]).expect("a payload").keys {
        let mut entry = Entry::new(key.db, &key.key, key.value);
        entry.attributes.expire_at_ms = key.expire_at_ms;
        replay.load(Item::Entry(entry));
    }
    let stream = recorded.stream.lock().unwrap();
    let mut at = 0;
    for (file, (offset, dump)) in placed {
        let to = (offset - recorded.start) as usize;
        while at < to {
            let (words, len) = command(&stream[at..]).expect("a whole command");
            let name = words[0].to_ascii_lowercase();
            if name != b"ping" && name != b"replconf" {
                let applied = replay.at(at as u64).apply(&words);
                applied.unwrap_or_else(|error| panic!("{error}"));
            }
            at += len;
        }
        assert_eq!(at, to, "{}: inside a command", file.display());
        let items = replay.clone().into_items();
        let wanted = digest_of_items(&items);
        if dump.digest(ScoreForm::Short) != wanted {
            panic!("{}: {}", file.display(), difference(&dump, &items));
        }
    }
    assert_eq!(replay.refused(), 0, "{:?}", replay.last_refusal());
}

/// The keys that differ.
fn difference(dump: &Dump, items: &[Item]) -> String {
    let mut differing = Vec::new();
    let name = |db: u32, key: &[u8]| format!("{db}/{}", String::from_utf8_lossy(key));
    for item in items {
        let Item::Entry(entry) = item else { continue };
        let found = dump
            .keys
            .iter()
            .find(|key| key.db == entry.db && key.key == entry.key);
        match found {
            None => differing.push(format!("{} is missing", name(entry.db, &entry.key))),
            Some(key) if key.expire_at_ms != entry.attributes.expire_at_ms => {
                let at = (key.expire_at_ms, entry.attributes.expire_at_ms);
                differing.push(format!("{} expires at {at:?}", name(entry.db, &entry.key)));
            }
            Some(key) => {
                let of = |value| key_digest(&key.key, value, false, ScoreForm::Short);
                if of(&key.value) != of(&entry.value) {
                    differing.push(name(key.db, &key.key));
                }
            }
        }
    }
    for key in &dump.keys {
        let is_there = items.iter().any(
            |item| matches!(item, Item::Entry(entry) if entry.db == key.db && entry.key == key.key),
        );
        if !is_there {
            differing.push(format!("{} is too many", name(key.db, &key.key)));
        }
    }
    differing.join(", ")
}

#[test]
fn with_one_thread() {
    snapshots_are_prefixes("one thread", &["--threads", "1"], None);
}

#[test]
fn with_two_threads_and_little_room() {
    let args = ["--threads", "2", "--snapshot-buffer-limit", "64kb"];
    snapshots_are_prefixes("two threads, little room", &args, None);
}

#[test]
fn with_four_threads_and_files_on_threads() {
    let args = ["--threads", "4", "--io-backend", "threads"];
    snapshots_are_prefixes("four threads", &args, None);
}

#[test]
fn with_evictions() {
    let args = [
        "--threads",
        "2",
        "--snapshot-buffer-limit",
        "256kb",
        "--repl-backlog-size",
        "16kb",
    ];
    snapshots_are_prefixes("evictions", &args, Some(400_000));
}
