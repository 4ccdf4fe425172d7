//! A snapshot taken under writes is the state at one point of the history, transactions whole.
//!
//! Writers set strings, lists, hashes, sets and sorted sets in single commands, MSET and MULTI, let keys expire and delete
//! them, while BGSAVE runs again and again and another client asks for full copies. Every file is checked against the
//! history (`dfsnap_tests::point`), and a real server must load it and find the same contents.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dfsnap_formats::digest::ScoreForm;
use dfsnap_tests::client::Client;
use dfsnap_tests::dump::{Cell, Dump, part};
use dfsnap_tests::point::{Operation, Window, check};
use dfsnap_tests::process::{Kind, Server, has_program};
use dfsnap_tests::{SetOnDrop, seconds, seed, wait_for, words};
use fastrand::Rng;

const WRITERS: usize = 6;
/// String keys of a writer.
const SLOTS: u64 = 300;
/// Dumps checked where nobody asked for more.
const DUMPS_CHECKED: usize = 24;
/// Keys that nobody touches: they make the walk long enough for writes to get ahead of it.
const STILL_KEYS: usize = 8_000;

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock after 1970").as_millis() as i64
}

struct Writer {
    name: String,
    client: Client,
    rng: Rng,
    /// What the writer's cells hold.
    model: BTreeMap<String, Cell>,
    operations: Vec<Operation>,
    /// Elements pushed since the list was made.
    pushed: u64,
}

type Changes = Vec<(String, Option<Cell>)>;

fn set(name: String, text: &str, expire_at_ms: Option<i64>) -> (String, Option<Cell>) {
    let text = text.to_owned();
    (name, Some(Cell { text, expire_at_ms }))
}

impl Writer {
    fn new(port: u16, w: usize, seed: u64) -> Writer {
        Writer {
            name: format!("w{w}"),
            client: Client::connect(port).expect("a connection"),
            rng: Rng::with_seed(seed.wrapping_add(w as u64)),
            model: BTreeMap::new(),
            operations: Vec::new(),
            pushed: 0,
        }
    }

    fn key(&mut self) -> String {
        format!("{}:{}", self.name, self.rng.u64(..SLOTS))
    }

    /// A value that says which operation wrote it, sometimes long.
    fn text(&mut self, step: usize) -> String {
        let pad = match self.rng.u32(..400) {
            // Saved in slices.
            0 => 400_000,
            1..4 => 9_000,
            4..40 => 300,
            _ => 8,
        };
        format!("{step}:{}", "x".repeat(pad))
    }

    /// The commands of the next operation and what they do to the model.
    fn next(&mut self) -> (Vec<Vec<Vec<u8>>>, bool, Changes) {
        let step = self.operations.len() + 1;
        let text = self.text(step);
        match self.rng.u32(..100) {
            0..30 => self.set_one(&text),
            30..45 => self.set_many(&text, false),
            45..65 => self.set_many(&text, true),
            65..72 => self.delete(),
            72..80 => self.change_one(),
            _ => self.grow(step, &text),
        }
    }

    fn set_one(&mut self, text: &str) -> (Vec<Vec<Vec<u8>>>, bool, Changes) {
        let step = self.operations.len();
        match self.rng.u32(..4) {
            0 => {
                // Each such key is written once, so that it does not matter when it is removed.
                let at_ms = now_ms() + self.rng.i64(1..150);
                let key = format!("{}:e{step}", self.name);
                let command = words!["SET", key, text, "PXAT", at_ms];
                let change = set(format!("0:{key}"), text, Some(at_ms));
                (vec![command], false, vec![change])
            }
            1 => {
                let (key, at_ms) = (self.key(), now_ms() + 3_600_000);
                let command = words!["SET", key, text, "PXAT", at_ms];
                let change = set(format!("0:{key}"), text, Some(at_ms));
                (vec![command], false, vec![change])
            }
            _ => {
                let key = self.key();
                let change = set(format!("0:{key}"), text, None);
                (vec![words!["SET", key, text]], false, vec![change])
            }
        }
    }

    /// MSET, or a MULTI block that takes a number and writes in several commands.
    fn set_many(&mut self, text: &str, is_block: bool) -> (Vec<Vec<Vec<u8>>>, bool, Changes) {
        let count = self.rng.usize(2..7);
        let mut keys: Vec<String> = (0..count).map(|_| self.key()).collect();
        keys.sort();
        keys.dedup();
        let mut mset = words!["MSET"];
        for key in &keys {
            mset.extend(words![key, text]);
        }
        let mut changes: Changes = Vec::new();
        for key in &keys {
            changes.push(set(format!("0:{key}"), text, None));
        }
        if !is_block {
            return (vec![mset], false, changes);
        }
        let mut commands = vec![words!["INCR", "order"], mset];
        let key = format!("{}:h", self.name);
        commands.push(words!["HSET", key, "last", text]);
        changes.push(set(part(&format!("0:{key}"), "last"), text, None));
        (commands, true, changes)
    }

    fn delete(&mut self) -> (Vec<Vec<Vec<u8>>>, bool, Changes) {
        let key = match self.rng.u32(..60) {
            0 => format!("{}:h", self.name),
            1 => format!("{}:z", self.name),
            2 => format!("{}:s", self.name),
            3 => {
                self.pushed = 0;
                format!("{}:l", self.name)
            }
            _ => self.key(),
        };
        let name = format!("0:{key}");
        let prefix = part(&name, "");
        let gone = self.model.range(name.clone()..);
        let gone = gone
            .take_while(|(cell, _)| cell.starts_with(&name))
            .filter(|(cell, _)| **cell == name || cell.starts_with(&prefix));
        let changes = gone.map(|(cell, _)| (cell.clone(), None)).collect();
        let command = if self.rng.bool() { "DEL" } else { "UNLINK" };
        (vec![words![command, key]], false, changes)
    }

    /// Renames, copies, or gives another expiry to a key that is there.
    fn change_one(&mut self) -> (Vec<Vec<Vec<u8>>>, bool, Changes) {
        let step = self.operations.len();
        let (from, to) = (self.key(), self.key());
        let (name, other) = (format!("0:{from}"), format!("0:{to}"));
        let at_ms = now_ms() + 7_200_000;
        let Some(cell) = self.model.get(&name).filter(|_| name != other) else {
            let text = format!("{step}:new");
            let change = set(name, &text, None);
            return (vec![words!["SET", from, text]], false, vec![change]);
        };
        let with = |expire_at_ms| set(name.clone(), &cell.text, expire_at_ms);
        let (command, changes) = match self.rng.u32(..4) {
            0 => {
                let moved = vec![(name.clone(), None), (other, Some(cell.clone()))];
                (words!["RENAME", from, to], moved)
            }
            1 => {
                let copied = vec![(other, Some(cell.clone()))];
                (words!["COPY", from, to, "REPLACE"], copied)
            }
            2 => (words!["PEXPIREAT", from, at_ms], vec![with(Some(at_ms))]),
            _ => (words!["PERSIST", from], vec![with(None)]),
        };
        (vec![command], false, changes)
    }

    /// Collections become large, so that they are walked in slices.
    fn grow(&mut self, step: usize, text: &str) -> (Vec<Vec<Vec<u8>>>, bool, Changes) {
        let count = self.rng.usize(1..40);
        let mut changes: Changes = Vec::new();
        let kind = ["h", "l", "s", "z"][self.rng.usize(..4)];
        let key = format!("{}:{kind}", self.name);
        let name = format!("0:{key}");
        let verb = ["HSET", "RPUSH", "SADD", "ZADD"][match kind {
            "h" => 0,
            "l" => 1,
            "s" => 2,
            _ => 3,
        }];
        let mut command = words![verb, key];
        for _ in 0..count {
            let member = self.rng.u64(..2_000).to_string();
            match kind {
                "h" => {
                    command.extend(words![member, text]);
                    changes.push(set(part(&name, &member), text, None));
                }
                "l" => {
                    command.extend(words![text]);
                    changes.push(set(part(&name, &self.pushed.to_string()), text, None));
                    self.pushed += 1;
                }
                "s" => {
                    let member = format!("{step}-{member}");
                    command.extend(words![member]);
                    changes.push(set(part(&name, &member), "", None));
                }
                _ => {
                    command.extend(words![step, member]);
                    changes.push(set(part(&name, &member), &step.to_string(), None));
                }
            }
        }
        (vec![command], false, changes)
    }

    fn step(&mut self) {
        let (commands, is_block, mut changes) = self.next();
        let mut seen = std::collections::HashSet::new();
        changes.reverse();
        changes.retain(|(name, _)| seen.insert(name.clone()));
        let sent = Instant::now();
        let reply = match is_block {
            true => self.client.transaction(&commands).expect("EXEC"),
            false => self.client.call(&commands[0]),
        };
        let acked = Instant::now();
        let what = summary(&commands);
        assert!(!reply.is_error(), "{what}: {reply:?}");
        let order = is_block.then(|| reply.items()[0].number().expect("INCR") as u64);
        for (name, cell) in &changes {
            match cell {
                Some(cell) => self.model.insert(name.clone(), cell.clone()),
                None => self.model.remove(name),
            };
        }
        self.operations.push(Operation {
            sent,
            acked,
            order,
            changes,
            what,
        });
    }

    fn run(mut self, is_over: &AtomicBool) -> Vec<Operation> {
        while !is_over.load(Ordering::Relaxed) {
            self.step();
        }
        self.operations
    }
}

fn summary(commands: &[Vec<Vec<u8>>]) -> String {
    let words = commands.iter().flat_map(|command| command.iter().take(3));
    let words: Vec<String> = words
        .map(|word| String::from_utf8_lossy(&word[..word.len().min(20)]).into_owned())
        .collect();
    words.join(" ")
}

/// A dump and when its cut can have been.
struct Taken {
    path: PathBuf,
    window: Window,
}

fn save(server: &Server, client: &mut Client, number: usize, parked: &mut i64) -> Taken {
    let saves = client.info("rdb_saves");
    let from = Instant::now();
    client.ask("BGSAVE");
    let window = Window {
        from,
        to: Instant::now(),
        to_ms: now_ms(),
    };
    wait_for("BGSAVE", Duration::from_secs(60), || {
        let status = client.info("rdb_last_bgsave_status");
        assert_eq!(status.as_deref(), Some("ok"), "{}", server.log());
        let waiting = client.info("current_save_parked").unwrap_or_default();
        *parked = (*parked).max(waiting.parse().unwrap_or_default());
        (client.info("rdb_saves") != saves).then_some(())
    });
    let path = server.folder().join(format!("saved-{number}.rdb"));
    std::fs::rename(server.dump(), &path).expect("the file is there");
    Taken { path, window }
}

/// A full copy over a replication link, as backups take it.
fn copy(server: &Server, number: usize) -> Taken {
    let path = server.folder().join(format!("copied-{number}.rdb"));
    let from = Instant::now();
    let output = Command::new("redis-cli")
        .args(["-p", &server.port.to_string(), "--rdb"])
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .expect("redis-cli runs");
    let window = Window {
        from,
        to: Instant::now(),
        to_ms: now_ms(),
    };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "redis-cli --rdb: {text}\n{}",
        server.log()
    );
    Taken { path, window }
}

/// A real server, told that it is a replica so that it keeps expired keys, finds in the file what we find.
fn loads_in_redis(path: &Path, dump: &Dump) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(path, folder.path().join("dump.rdb")).expect("a copy");
    let redis = Server::spawn_in(Kind::Redis, folder, &["--replicaof", "127.0.0.1 1"]);
    redis.wait_until_ready();
    assert_eq!(
        redis.digest(),
        dump.digest(ScoreForm::Legacy),
        "{}",
        path.display()
    );
}

fn point_in_time(threads: usize, args: &[&str]) {
    let name = format!("point_in_time, {threads} threads, {args:?}");
    let seed = seed(&name);
    let threads = threads.to_string();
    let server = Server::ours(&[&["--threads", &threads], args].concat());
    let mut client = server.client();
    client.ask(&format!("DEBUG POPULATE {STILL_KEYS} still 400"));
    let is_over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|w| {
            let (writer, is_over) = (Writer::new(server.port, w, seed), is_over.clone());
            std::thread::spawn(move || writer.run(&is_over))
        })
        .collect();
    let end = Instant::now() + seconds(5);
    let has_redis = has_program("redis-cli") && has_program("redis-server");
    let mut taken = Vec::new();
    let mut parked = 0;
    std::thread::scope(|scope| {
        let copies = scope.spawn(|| {
            let mut copies = Vec::new();
            while has_redis && Instant::now() < end {
                copies.push(copy(&server, copies.len()));
            }
            copies
        });
        while Instant::now() < end {
            taken.push(save(&server, &mut client, taken.len(), &mut parked));
        }
        taken.extend(copies.join().expect("copies"));
    });
    is_over.store(true, Ordering::Relaxed);
    let writers: Vec<_> = writers
        .into_iter()
        .map(|writer| writer.join().expect("a writer"))
        .collect();
    let total: usize = writers.iter().map(Vec::len).sum();
    println!(
        "{name}: {total} operations, {} dumps, at most {parked} writers parked",
        taken.len()
    );
    // Replaying the history for each of them is what takes time.
    if std::env::var("DFSNAP_SECONDS").is_err() {
        let stride = taken.len().div_ceil(DUMPS_CHECKED);
        taken = taken.into_iter().step_by(stride).collect();
    }
    for Taken { path, window } in &taken {
        let dump = Dump::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let rest = check(dump.cells(), &writers, *window)
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(rest.len(), STILL_KEYS, "{file}: keys that nobody wrote");
    }
    for i in if has_redis {
        vec![0, taken.len() / 2, taken.len() - 1]
    } else {
        Vec::new()
    } {
        let dump = Dump::read(&taken[i].path).expect("it was read before");
        loads_in_redis(&taken[i].path, &dump);
    }
}

#[test]
fn a_dump_is_one_point_of_the_history_with_one_thread_and_files_on_threads() {
    point_in_time(1, &["--io-backend", "threads"]);
}

#[test]
fn a_dump_is_one_point_of_the_history_with_two_threads_and_little_room() {
    point_in_time(2, &["--snapshot-buffer-limit", "64kb"]);
}

#[test]
fn a_dump_is_one_point_of_the_history_with_four_threads() {
    point_in_time(4, &["--snapshot-buffer-limit", "1mb"]);
}

/// Takes a full copy as a replica that reads nothing of it before `meanwhile` has run.
fn slow_copy(server: &Server, mut meanwhile: impl FnMut()) -> (Vec<u8>, Window) {
    let mut replica = server.client();
    assert_eq!(replica.call(&["REPLCONF", "capa", "eof"]).text(), "OK");
    let from = Instant::now();
    replica.send(&["PSYNC", "?", "-1"]).expect("PSYNC");
    let mut line = || loop {
        let line = replica.line().expect("a line");
        if !line.is_empty() {
            return line;
        }
    };
    assert!(line().starts_with("+FULLRESYNC "));
    let window = Window {
        from,
        to: Instant::now(),
        to_ms: now_ms(),
    };
    let mark = line()
        .strip_prefix("$EOF:")
        .expect("the EOF form")
        .to_owned();
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 512 << 10]);
    meanwhile();
    while !bytes.ends_with(mark.as_bytes()) {
        let read = replica.read(&mut piece).expect("more of the payload");
        assert!(read > 0, "the payload ends without its mark");
        bytes.extend_from_slice(&piece[..read]);
    }
    bytes.truncate(bytes.len() - mark.len());
    (bytes, window)
}

#[test]
fn a_replica_that_stands_still_holds_nobody_up_and_gets_one_point() {
    let seed = seed("slow replica");
    let limit = ["--snapshot-buffer-limit", "64kb"];
    // Zeros would shrink to nothing, and fit into the sockets.
    let server =
        Server::ours(&[&["--threads", "2", "--rdbcompression", "no"], &limit[..]].concat());
    let mut client = server.client();
    client.ask("DEBUG POPULATE 12000 still 4000");
    let is_over = AtomicBool::new(false);
    let (mut copied, mut writers) = (None, Vec::new());
    std::thread::scope(|scope| {
        let over = SetOnDrop(&is_over);
        let threads: Vec<_> = (0..WRITERS)
            .map(|w| {
                let (writer, is_over) = (Writer::new(server.port, w, seed), &is_over);
                scope.spawn(move || writer.run(is_over))
            })
            .collect();
        // Something to save: a writer parks only on a key that was there at the cut.
        wait_for("100 blocks", Duration::from_secs(30), || {
            (client.call(&["GET", "order"]).number()? > 100).then_some(())
        });
        copied = Some(slow_copy(&server, || {
            let mut blocks = || client.call(&["GET", "order"]).number();
            let before = blocks();
            // Each writer has by then met keys that were to be saved first.
            wait_for(
                "writes while the replica reads nothing",
                Duration::from_secs(30),
                || (blocks()? > before? + 1_000).then_some(()),
            );
        }));
        drop(over);
        writers.extend(
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a writer")),
        );
    });
    let (bytes, window) = copied.expect("a copy");
    let dump = Dump::parse(&bytes[..]).expect("a whole payload");
    let rest = check(dump.cells(), &writers, window).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(rest.len(), 12_000, "keys that nobody wrote");
    let log = server.log();
    assert!(
        log.contains("through a file"),
        "{} MB did:\n{log}",
        bytes.len() >> 20
    );
}

/// What a counting writer saw: its own counter after each operation, and the shared one if the operation was a block.
struct Count {
    sent: Instant,
    acked: Instant,
    own: u64,
    total: Option<u64>,
    /// FLUSHALLs that came before it.
    flushes: usize,
}

/// Counts with INCR, every third time in a block with the shared counter. A counter that starts again tells of a FLUSHALL.
fn count(
    port: u16,
    w: usize,
    is_over: &AtomicBool,
    progress: &std::sync::atomic::AtomicUsize,
) -> Vec<Count> {
    let mut client = Client::connect(port).expect("a connection");
    let own = words!["INCR", format!("c{w}")];
    let mut counts: Vec<Count> = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let sent = Instant::now();
        let (number, total) = if counts.len().is_multiple_of(3) {
            let block = [
                own.clone(),
                words!["INCR", "total"],
                words!["LPUSH", format!("l{w}"), "x"],
            ];
            let reply = client.transaction(&block).expect("EXEC");
            let numbers: Vec<u64> = reply
                .items()
                .iter()
                .map(|item| item.number().unwrap() as u64)
                .collect();
            (numbers[0], Some(numbers[1]))
        } else {
            (client.call(&own).number().expect("INCR") as u64, None)
        };
        let last = counts
            .last()
            .map_or((0, 0), |last| (last.own, last.flushes));
        counts.push(Count {
            sent,
            acked: Instant::now(),
            own: number,
            total,
            flushes: last.1 + usize::from(number != last.0 + 1),
        });
        progress.fetch_add(1, Ordering::Relaxed);
    }
    counts
}

/// The span of moments at which the cut can have been if there had been `flushes` FLUSHALLs, by one writer's counters.
fn span_of(
    counts: &[Count],
    flushes: usize,
    found: u64,
    total: u64,
) -> Option<(Option<Instant>, Option<Instant>)> {
    let position = match found {
        0 => counts.partition_point(|count| count.flushes < flushes),
        _ => {
            1 + counts
                .iter()
                .position(|count| count.flushes == flushes && count.own == found)?
        }
    };
    let (inside, outside) = counts.split_at(position);
    let of_flush = |count: &&Count| count.flushes == flushes;
    let last = inside
        .iter()
        .rev()
        .take_while(of_flush)
        .find_map(|count| count.total);
    let next = outside
        .iter()
        .take_while(of_flush)
        .find_map(|count| count.total);
    let fits = last.is_none_or(|last| last <= total) && next.is_none_or(|next| next > total);
    fits.then(|| {
        (
            inside.last().map(|count| count.sent),
            outside.first().map(|count| count.acked),
        )
    })
}

#[test]
fn a_dump_has_all_or_nothing_of_a_flush() {
    seed("flush");
    let server = Server::ours(&["--threads", "2", "--snapshot-buffer-limit", "64kb"]);
    let is_over = AtomicBool::new(false);
    let progress: Vec<std::sync::atomic::AtomicUsize> =
        (0..WRITERS).map(|_| Default::default()).collect();
    let end = Instant::now() + seconds(5);
    let mut taken: Vec<Taken> = Vec::new();
    let mut flushed = Vec::new();
    let mut counts: Vec<Vec<Count>> = Vec::new();
    std::thread::scope(|scope| {
        let over = SetOnDrop(&is_over);
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                let (server, is_over, progress) = (&server, &is_over, &progress[w]);
                scope.spawn(move || count(server.port, w, is_over, progress))
            })
            .collect();
        let flusher = scope.spawn(|| {
            let mut client = server.client();
            let mut flushed = Vec::new();
            // A writer that has not begun would not see the first flush.
            for progress in &progress {
                wait_for("a writer's first step", Duration::from_secs(30), || {
                    (progress.load(Ordering::Relaxed) > 0).then_some(())
                });
            }
            while Instant::now() < end {
                client.ask(&format!("DEBUG POPULATE {STILL_KEYS} still 200"));
                let sent = Instant::now();
                client.ask("FLUSHALL");
                flushed.push((sent, Instant::now()));
                // Every writer sees every flush.
                for progress in &progress {
                    let seen = progress.load(Ordering::Relaxed);
                    wait_for("a writer's step", Duration::from_secs(30), || {
                        (progress.load(Ordering::Relaxed) > seen + 2).then_some(())
                    });
                }
            }
            flushed
        });
        let mut client = server.client();
        while Instant::now() < end {
            taken.push(save(&server, &mut client, taken.len(), &mut 0));
        }
        flushed = flusher.join().expect("the flusher");
        drop(over);
        counts.extend(
            writers
                .into_iter()
                .map(|writer| writer.join().expect("a writer")),
        );
    });
    println!("{} dumps, {} flushes", taken.len(), flushed.len());
    for Taken { path, window } in &taken {
        let cells = Dump::read(path).expect("a whole file").cells();
        let number = |name: String| {
            cells
                .get(&name)
                .map_or(0, |cell| cell.text.parse::<u64>().expect("a number"))
        };
        let total = number("0:total".to_owned());
        let fits = |flushes: usize| {
            let mut from = flushes
                .checked_sub(1)
                .map_or(window.from, |last| flushed[last].0.max(window.from));
            let mut to = flushed
                .get(flushes)
                .map_or(window.to, |next| next.1.min(window.to));
            for (w, counts) in counts.iter().enumerate() {
                let found = number(format!("0:c{w}"));
                let Some((after, before)) = span_of(counts, flushes, found, total) else {
                    return false;
                };
                from = after.map_or(from, |after| from.max(after));
                to = before.map_or(to, |before| to.min(before));
                let blocks = counts.iter().filter(|count| {
                    count.flushes == flushes && count.own <= found && count.total.is_some()
                });
                let pushed = cells
                    .keys()
                    .filter(|name| name.starts_with(&format!("0:l{w}\0")))
                    .count();
                if blocks.count() != pushed {
                    return false;
                }
            }
            from <= to
        };
        assert!(
            (0..=flushed.len()).any(fits),
            "{}: not one point: total {total}",
            path.display()
        );
    }
}
