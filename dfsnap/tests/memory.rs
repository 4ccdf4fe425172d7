//! Estimated memory against MEMORY USAGE of a real server, which has loaded the same dump.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Debug, PartialEq)]
enum Reply {
    Text(String),
    Number(i64),
    Null,
}

/// A server without data; it ends with the value.
struct Server {
    child: Child,
    socket: BufReader<UnixStream>,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Server {
    /// None: there is no redis-server here.
    fn start() -> Option<Server> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let spawned = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--enable-debug-command", "yes"])
            .arg("--unixsocket")
            .arg(&path)
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = spawned else {
            println!("skipped: no redis-server");
            return None;
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let socket = loop {
            assert!(Instant::now() < deadline, "the server does not answer");
            match UnixStream::connect(&path) {
                Ok(socket) => break BufReader::new(socket),
                Err(_) => std::thread::yield_now(),
            }
        };
        let mut server = Server {
            child,
            socket,
            folder,
        };
        // It listens before it looks for a dump to load, which the test is about to put there.
        assert_eq!(server.call(&[b"PING"]), Reply::Text("PONG".to_owned()));
        Some(server)
    }

    fn dump(&self) -> PathBuf {
        self.folder.path().join("dump.rdb")
    }

    fn send(&mut self, words: &[&[u8]]) {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.socket.get_mut().write_all(&request).unwrap();
    }

    fn call(&mut self, words: &[&[u8]]) -> Reply {
        self.send(words);
        let mut line = String::new();
        self.socket.read_line(&mut line).unwrap();
        let line = line.trim_end();
        match line.split_at(1) {
            (":", number) => Reply::Number(number.parse().unwrap()),
            ("$" | "*", "-1") => Reply::Null,
            ("$", len) => {
                let mut bytes = vec![0; len.parse::<usize>().unwrap() + 2];
                self.socket.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
            ("-", error) => panic!("{error}"),
            (_, text) => Reply::Text(text.to_owned()),
        }
    }

    fn save(&mut self) {
        assert_eq!(self.call(&[b"SAVE"]), Reply::Text("OK".to_owned()));
    }

    /// Loads what `dump` holds.
    fn reload(&mut self) {
        let reply = self.call(&[b"DEBUG", b"RELOAD", b"NOSAVE"]);
        assert_eq!(reply, Reply::Text("OK".to_owned()));
    }

    /// MEMORY USAGE of a key; None: it has expired.
    fn usage(&mut self, db: u64, key: &str) -> Option<i64> {
        self.call(&[b"SELECT", db.to_string().as_bytes()]);
        match self.call(&[b"MEMORY", b"USAGE", key.as_bytes(), b"SAMPLES", b"0"]) {
            Reply::Number(usage) => Some(usage),
            _ => None,
        }
    }
}

/// Every key of a dump with what it is and its estimate.
fn estimates(dump: &Path) -> Vec<(u64, String, String, u64)> {
    let output = Command::new(env!("CARGO_BIN_EXE_dfsnap"))
        .args(["inspect", "--json", "--top", "1000000"])
        .arg(dump)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let biggest = report["biggest"].as_array().unwrap().iter();
    let row = |big: &serde_json::Value| {
        let text = |name: &str| big[name].as_str().unwrap().to_owned();
        let what = format!("{}, {}", text("type"), text("encoding"));
        let memory = big["memory"].as_u64().unwrap();
        (big["db"].as_u64().unwrap(), text("key"), what, memory)
    };
    biggest.map(row).collect()
}

/// So often a dump is loaded. The levels of a sorted set's nodes are drawn anew each time, which
/// is more than a tenth of a small set once in some hundred loads; the median is not.
const LOADS: usize = 5;

/// Has the server load its dump, and compares all keys; gives their number.
fn compare(server: &mut Server, name: &str) -> usize {
    let mut estimates = estimates(&server.dump());
    estimates.retain(|(_, key, ..)| !key.contains('\\'));
    let mut usages = vec![Vec::with_capacity(LOADS); estimates.len()];
    for _ in 0..LOADS {
        server.reload();
        for ((db, key, ..), usages) in estimates.iter().zip(&mut usages) {
            usages.extend(server.usage(*db, key));
        }
    }
    let mut wrong = Vec::new();
    let mut compared = 0;
    let (mut sum, mut sum_estimated) = (0, 0);
    for ((_, key, what, estimated), mut usages) in estimates.into_iter().zip(usages) {
        if usages.is_empty() {
            continue;
        }
        usages.sort_unstable();
        let usage = usages[usages.len() / 2];
        compared += 1;
        sum += usage;
        sum_estimated += estimated as i64;
        let difference = (estimated as f64 - usage as f64).abs() / usage as f64;
        if difference > 0.1 {
            wrong.push(format!(
                "{key} ({what}): {usages:?}, but estimated {estimated}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{name}: {} of {compared}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    println!("{name}: {compared} keys take {sum} bytes, estimated {sum_estimated}");
    compared
}

#[test]
fn golden_dumps_take_what_a_server_says() {
    let Some(mut server) = Server::start() else {
        return;
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden");
    let names = [
        "redis-2.8.24--tiny.rdb",
        "redis-4.0.14--tiny.rdb",
        "redis-7.0.15--tiny.rdb",
        "redis-7.0.15--multidb.rdb",
        "redis-7.0.15--expiry.rdb",
        "quicklist2_mixed_nodes.rdb",
        "quicklist_v1.rdb",
        "stream_v1.rdb",
        "stream_v2.rdb",
        "ziplist_hash_zset.rdb",
        "zset_v1_special_scores.rdb",
    ];
    let mut compared = 0;
    for name in names {
        std::fs::copy(golden.join(name), server.dump()).unwrap();
        compared += compare(&mut server, name);
    }
    assert!(compared > 50, "{compared}");
}

/// A text of so many characters that LZF cannot pack (`dense`), or can.
fn text(len: usize, seed: usize, dense: bool) -> Vec<u8> {
    let mut state = (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match dense {
            true => b'a' + (state >> 33) as u8 % 26,
            false => b'x',
        }
    };
    (0..len).map(|_| next()).collect()
}

/// Every type in many sizes: packed and not, elements short and long, numbers and texts.
fn fill(server: &mut Server) {
    let counts = [
        1, 2, 3, 5, 17, 64, 100, 128, 129, 200, 512, 513, 600, 1025, 3000,
    ];
    let lens = [1, 7, 20, 31, 32, 44, 45, 64, 65, 150, 256, 1000];
    for len in [
        1,
        8,
        12,
        13,
        20,
        43,
        44,
        45,
        60,
        61,
        100,
        300,
        4000,
        70_000,
        1 << 20,
    ] {
        for dense in [true, false] {
            let key = format!("string:{len}:{dense}");
            server.call(&[b"SET", key.as_bytes(), &text(len, len, dense)]);
        }
        let key = format!("{}{len}", "k".repeat(len % 5000));
        server.call(&[b"SET", key.as_bytes(), b"v"]);
    }
    for number in [0, 7, 10_000, -1, 1 << 20, i64::MAX, i64::MIN] {
        let key = format!("number:{number}");
        server.call(&[b"SET", key.as_bytes(), number.to_string().as_bytes()]);
    }
    for count in counts {
        for len in lens {
            if count * len > 300_000 {
                continue;
            }
            for dense in [true, false] {
                collections(server, count, len, dense);
            }
        }
        numbers(server, count);
        stream(server, count);
    }
}

fn collections(server: &mut Server, count: usize, len: usize, dense: bool) {
    let mut adds = Adds::new(&format!("{count}:{len}:{dense}"));
    for i in 0..count {
        let value = text(len, i + 1, dense);
        let mut member = format!("{i:05}").into_bytes();
        member.extend_from_slice(value.get(5..).unwrap_or_default());
        adds.add(&member, &value, &(i as f64 * 1.37).to_string());
    }
    adds.send(server);
}

fn numbers(server: &mut Server, count: usize) {
    for (name, factor) in [("short", 1), ("middle", 100_003), ("long", 10_000_000_019)] {
        let mut adds = Adds::new(&format!("of-numbers:{name}:{count}"));
        for i in 0..count as i64 {
            let number = (i * factor).to_string();
            adds.add(number.as_bytes(), number.as_bytes(), &number);
        }
        adds.send(server);
    }
}

/// Commands that make a list, a set, a sorted set and a hash.
struct Adds([Vec<Vec<u8>>; 4]);

impl Adds {
    fn new(name: &str) -> Self {
        let start = |(verb, kind)| vec![Vec::from(verb), format!("{kind}:{name}").into_bytes()];
        let verbs = [
            ("RPUSH", "list"),
            ("SADD", "set"),
            ("ZADD", "zset"),
            ("HSET", "hash"),
        ];
        Adds(verbs.map(start))
    }

    fn add(&mut self, member: &[u8], value: &[u8], score: &str) {
        let [list, set, zset, hash] = &mut self.0;
        list.push(value.to_vec());
        set.push(member.to_vec());
        zset.extend([score.as_bytes().to_vec(), member.to_vec()]);
        hash.extend([member.to_vec(), value.to_vec()]);
    }

    fn send(&self, server: &mut Server) {
        for words in &self.0 {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            server.call(&words);
        }
    }
}

fn stream(server: &mut Server, count: usize) {
    for (name, step) in [("dense", 1), ("sparse", 100_000)] {
        let key = format!("stream:{name}:{count}").into_bytes();
        for i in 1..=count {
            let id = format!("{}-{}", i * step, i % 3).into_bytes();
            let value = text(i % 50, i, true);
            server.call(&[b"XADD", &key, &id, b"field", &value, b"other", b"12"]);
        }
        let group = [b"groups:".as_slice(), &key].concat();
        server.call(&[b"COPY", &key, &group]);
        for name in [b"first".as_slice(), b"second"] {
            server.call(&[b"XGROUP", b"CREATE", &group, name, b"0"]);
        }
        read_as(server, &group, count / 2 + 1);
    }
}

fn read_as(server: &mut Server, key: &[u8], count: usize) {
    let script = b"redis.call('XREADGROUP','GROUP','first',ARGV[1],'COUNT',ARGV[2],'STREAMS',KEYS[1],'>') return 1";
    for consumer in [b"a".as_slice(), b"another-consumer"] {
        let half = (count / 2 + 1).to_string();
        server.call(&[b"EVAL", script, b"1", key, consumer, half.as_bytes()]);
    }
}

#[test]
fn keys_of_every_type_and_size_take_what_a_server_says() {
    let Some(mut server) = Server::start() else {
        return;
    };
    fill(&mut server);
    server.save();
    let compared = compare(&mut server, "keys of every type and size");
    assert!(compared > 900, "{compared}");
}
