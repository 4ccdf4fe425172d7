//! Real servers for the tests of verbs that talk to one, a proxy that cuts links, and the binary under test.
//! Tests are skipped, with a line saying so, where no redis-server is installed.

#![allow(dead_code, reason = "every test file uses a part of it")]

use dfsnap_formats::resp::{Frame, FrameDecoder, encode_command};
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub struct Redis {
    process: Child,
    pub port: u16,
    pub folder: TempDir,
    connection: RefCell<Option<Connection>>,
}

impl Redis {
    pub fn start(settings: &[&str]) -> Option<Redis> {
        Redis::start_in(tempfile::tempdir().unwrap(), settings)
    }

    /// With what the folder holds: `dump.rdb` is loaded.
    pub fn start_in(folder: TempDir, settings: &[&str]) -> Option<Redis> {
        let port = free_port();
        let started = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--unixsocket", "s", "--save", "", "--dir"])
            .arg(folder.path())
            .args(["--repl-diskless-sync-delay", "0"])
            .args(["--repl-backlog-size", "64mb"])
            .args(["--repl-ping-replica-period", "3600"])
            .args(["--enable-debug-command", "yes"])
            .args(settings)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            eprintln!("skipped: redis-server is not installed");
            return None;
        };
        let redis = Redis {
            process,
            port,
            folder,
            connection: RefCell::new(None),
        };
        wait_for("redis-server to start", || {
            UnixStream::connect(redis.socket()).is_ok()
        });
        wait_for(
            "redis-server to load",
            || !matches!(redis.call(&["PING"]), Frame::Error(text) if text.starts_with(b"LOADING")),
        );
        Some(redis)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub fn url(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    pub fn call<W: AsRef<[u8]>>(&self, words: &[W]) -> Frame {
        let mut connection = self.connection.borrow_mut();
        let connection = connection.get_or_insert_with(|| Connection::new(&self.socket()));
        connection.call(words)
    }

    pub fn text(&self, words: &[&str]) -> String {
        match self.call(words) {
            Frame::Int(number) => number.to_string(),
            frame => {
                let bytes = frame.as_bytes();
                let bytes = bytes.unwrap_or_else(|| panic!("{words:?}: {frame:?}"));
                String::from_utf8_lossy(bytes).into_owned()
            }
        }
    }

    pub fn digest(&self) -> String {
        self.text(&["DEBUG", "DIGEST"])
    }

    pub fn info(&self, field: &str) -> String {
        let text = self.text(&["INFO"]);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_default().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client.
pub struct Connection {
    socket: UnixStream,
    decoder: FrameDecoder,
    input: Vec<u8>,
}

impl Connection {
    pub fn new(socket: &Path) -> Connection {
        let socket = UnixStream::connect(socket).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Connection {
            socket,
            decoder: FrameDecoder::default(),
            input: Vec::new(),
        }
    }

    pub fn send<W: AsRef<[u8]>>(&mut self, words: &[W]) {
        let mut request = Vec::new();
        encode_command(&mut request, words);
        self.socket.write_all(&request).unwrap();
    }

    pub fn reply(&mut self) -> Frame {
        loop {
            if let Some((frame, consumed)) = self.decoder.decode(&self.input).unwrap() {
                self.input.drain(..consumed);
                return frame;
            }
            let mut bytes = [0; 16384];
            let n = self.socket.read(&mut bytes).unwrap();
            assert!(n > 0, "redis-server closed the connection");
            self.input.extend_from_slice(&bytes[..n]);
        }
    }

    pub fn call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Frame {
        self.send(words);
        self.reply()
    }
}

/// Some of everything, in three databases.
pub fn fill(redis: &Redis) {
    let rows: &[&[&str]] = &[
        &["SET", "string", "value"],
        &["SET", "number", "-12"],
        &["SET", "expiring", "x", "EX", "5000"],
        &["SET", "binary", "\u{1}\u{0}\n\"é"],
        &["RPUSH", "list", "a", "b", "3", ""],
        &["SADD", "set", "a", "b"],
        &["SADD", "intset", "1", "2", "70000"],
        &["HSET", "hash", "f", "v", "g", "17"],
        &["ZADD", "zset", "1.5", "a", "-inf", "b", "3", "c"],
        &["XADD", "stream", "5-1", "f", "v"],
        &["XADD", "stream", "6-1", "f", "w", "g", "x"],
        &["XADD", "stream", "7-1", "f", "y"],
        &["XGROUP", "CREATE", "stream", "group", "0"],
        &[
            "XREADGROUP",
            "GROUP",
            "group",
            "eve",
            "COUNT",
            "2",
            "STREAMS",
            "stream",
            ">",
        ],
        &["XACK", "stream", "group", "5-1"],
        &["XDEL", "stream", "5-1"],
        &["PFADD", "sketch", "a", "b", "c"],
        &[
            "FUNCTION",
            "LOAD",
            "#!lua name=lib\nredis.register_function('f', function() return 1 end)",
        ],
        &["SELECT", "3"],
        &["SET", "elsewhere", "1"],
        &["SELECT", "9"],
        &["DEBUG", "POPULATE", "3000", "many", "40"],
        &["SELECT", "0"],
    ];
    for row in rows {
        let reply = redis.call(row);
        assert!(!matches!(reply, Frame::Error(_)), "{row:?}: {reply:?}");
    }
    for key in 0..4 {
        let words = |i: u32| format!("{}:{i}", "w".repeat((i % 90) as usize));
        for i in 0..700 {
            let (a, b) = (words(i), words(i * 7 + key));
            redis.call(&["HSET", &format!("big-hash:{key}"), &a, &b]);
            redis.call(&["RPUSH", &format!("big-list:{key}"), &b]);
            redis.call(&["ZADD", &format!("big-zset:{key}"), &i.to_string(), &a]);
            redis.call(&["SADD", &format!("big-set:{key}"), &b]);
        }
    }
}

/// Clients that write until they are told to stop: single commands and transactions over two databases.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<u64>>,
    written: Arc<AtomicUsize>,
}

impl Load {
    pub fn start(redis: &Redis, writers: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicUsize::new(0));
        let start = |writer: usize| {
            let (socket, stop) = (redis.socket(), Arc::clone(&stop));
            let written = Arc::clone(&written);
            thread::spawn(move || {
                let mut connection = Connection::new(&socket);
                let mut round = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    write_round(&mut connection, writer, round);
                    round += 1;
                    written.fetch_add(1, Ordering::Relaxed);
                }
                round
            })
        };
        let writers = (0..writers).map(start).collect();
        let load = Load {
            stop,
            writers,
            written,
        };
        load.wait_for_more(50);
        load
    }

    /// So many more rounds have been written.
    pub fn wait_for_more(&self, rounds: usize) {
        let before = self.written.load(Ordering::Relaxed);
        wait_for("writers", || {
            self.written.load(Ordering::Relaxed) >= before + rounds
        });
    }

    /// Rounds of each writer.
    pub fn stop(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let writers = self.writers.into_iter();
        writers.map(|writer| writer.join().unwrap()).collect()
    }
}

/// The two halves of a transaction are the keys `half:N:a` in database 0 and `half:N:b` in database 5: always equal.
fn write_round(connection: &mut Connection, writer: usize, round: u64) {
    let key = |name: &str| format!("{name}:{writer}:{}", round % 50);
    let n = round.to_string();
    let commands: [&[&str]; 13] = [
        &["INCR", &format!("count:{writer}")],
        &["RPUSH", &key("list"), &n],
        &["SADD", &key("set"), &n],
        &["HSET", &key("hash"), &n, "x"],
        &["MULTI"],
        &["SET", &format!("half:{writer}:a"), &n],
        &["SELECT", "5"],
        &["SET", &format!("half:{writer}:b"), &n],
        &["EXEC"],
        &["SPOP", &key("set")],
        &["SET", &key("short"), &n, "PX", "30"],
        &["SELECT", "0"],
        &["DEL", &key("list:old")],
    ];
    commands.iter().for_each(|words| connection.send(words));
    for words in commands {
        let reply = connection.reply();
        assert!(!matches!(reply, Frame::Error(_)), "{words:?}: {reply:?}");
    }
}

/// Passes bytes on, and cuts so many links after some bytes from the server.
pub struct Proxy {
    pub folder: TempDir,
    pub cuts_left: Arc<AtomicUsize>,
}

impl Proxy {
    pub fn start(redis: &Redis, cuts: usize) -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let cuts_left = Arc::new(AtomicUsize::new(cuts));
        let (left, server) = (Arc::clone(&cuts_left), redis.socket());
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, UnixStream::connect(&server)) else {
                    return;
                };
                let left = Arc::clone(&left);
                thread::spawn(move || pass(&client, &server, &left));
            }
        });
        Proxy { folder, cuts_left }
    }

    pub fn url(&self) -> String {
        format!("unix:{}", self.folder.path().join("s").display())
    }
}

fn pass(client: &UnixStream, server: &UnixStream, cuts_left: &AtomicUsize) {
    let (mut up, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut up, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let (mut down, mut out) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let mut bytes = vec![0; 4096];
    let mut passed = 0;
    while let Ok(n @ 1..) = down.read(&mut bytes) {
        let left = cuts_left.load(Ordering::Relaxed);
        passed += n;
        // Another place for each.
        if left > 0 && passed > 500 + left * 9000 {
            cuts_left.store(left - 1, Ordering::Relaxed);
            break;
        }
        if out.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = server.shutdown(std::net::Shutdown::Both);
}

pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        // A sync to a busy disk alone can take half a minute.
        assert!(began.elapsed() < Duration::from_secs(120), "no {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Below the ephemeral ports: a connect to a free one of those can end up connected to itself.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (std::process::id() as u16 % 1000) * 10 + step;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The command line, without a password in the environment.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dfsnap"));
    command.args(args).env_remove("DFSNAP_PASSWORD");
    command
}

pub fn dfsnap(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// Runs and must succeed; the answer is standard output.
pub fn succeed(args: &[&str]) -> String {
    let output = dfsnap(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", err(&output));
    out(&output)
}

pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
