//! For tests of commands: a keyspace to run them on, and a real server to compare with.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use dfsnap_formats::resp::{Protocol, Reply};

use super::exec::{Actor, Exec};
use super::{Effect, Run, table};
use crate::keyspace::settings::Settings;
use crate::keyspace::{DbIndex, Keyspace, NoObserver};

/// Runs commands on one keyspace, without connections.
pub struct Bench {
    keyspaces: [Box<Keyspace>; 1],
    pub settings: Settings,
    pub now_ms: i64,
    pub protocol: Protocol,
    pub actor: Actor,
    random: fastrand::Rng,
}

impl Bench {
    pub fn new() -> Bench {
        Bench {
            keyspaces: [Box::new(Keyspace::new(16, Box::new(NoObserver)))],
            settings: Settings::default(),
            now_ms: 1_700_000_000_000,
            protocol: Protocol::Resp2,
            actor: Actor::Client,
            random: fastrand::Rng::with_seed(1),
        }
    }

    /// Runs the command of these words; the reply's bytes and the effect.
    pub fn run_words(&mut self, words: &[Vec<u8>]) -> (Vec<u8>, Effect) {
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let command = table::find(words[0])
            .unwrap_or_else(|| panic!("no command {}", words[0].escape_ascii()));
        let mut reply = Reply::new(self.protocol);
        if !command.arity_fits(words.len()) {
            reply.error(&command.wrong_arity().0);
            return (reply.take(), Effect::None);
        }
        let (Run::Keys(handler)
        | Run::Split { handler, .. }
        | Run::Global(handler)
        | Run::Script(handler)
        | Run::Cursor(handler)) = command.run
        else {
            panic!("{} is not run on a keyspace", command.name)
        };
        let mut exec = Exec::new(
            &mut self.keyspaces,
            DbIndex(0),
            self.now_ms,
            self.actor,
            &self.settings,
            &mut reply,
            &mut self.random,
        );
        match handler(&mut exec, &words) {
            Ok(effect) => {
                let expired = exec
                    .expired
                    .iter()
                    .map(|(_, key)| vec![b"DEL".to_vec(), key.to_vec()])
                    .chain(exec.lapsed.iter().map(|(_, key, field)| {
                        vec![b"HDEL".to_vec(), key.to_vec(), field.to_vec()]
                    }))
                    .collect::<Vec<_>>();
                let effect = match effect {
                    effect if expired.is_empty() => effect,
                    Effect::None => Effect::Commands(expired),
                    effect @ (Effect::Aside | Effect::Unit { .. }) => effect,
                    Effect::Commands(more) => Effect::Commands([expired, more].concat()),
                    Effect::Passed | Effect::Verbatim => {
                        let own = words.iter().map(|word| word.to_vec()).collect();
                        Effect::Commands([expired, vec![own]].concat())
                    }
                };
                (reply.take(), effect)
            }
            Err(error) => {
                reply.clear();
                reply.error(&error.0);
                (reply.take(), Effect::None)
            }
        }
    }

    /// Runs a line of words.
    pub fn run(&mut self, line: &str) -> (String, Effect) {
        let (reply, effect) = self.run_words(&split(line));
        (reply.escape_ascii().to_string(), effect)
    }

    /// Runs a line; only what replicas get, one command after the other.
    pub fn effect(&mut self, line: &str) -> String {
        match self.run(line).1 {
            Effect::None | Effect::Aside => String::new(),
            Effect::Passed | Effect::Verbatim => line.to_string(),
            Effect::Unit { effects, .. } => effects
                .iter()
                .map(|(_, bytes)| bytes.escape_ascii().to_string())
                .collect::<Vec<_>>()
                .join("; "),
            Effect::Commands(commands) => {
                let commands = commands.iter().map(|words| {
                    words
                        .iter()
                        .map(|word| word.escape_ascii().to_string())
                        .collect::<Vec<_>>()
                        .join(" ")
                });
                commands.collect::<Vec<_>>().join("; ")
            }
        }
    }
}

/// The words of a line; `"…"` with `\x00` escapes is one word, and may be empty.
pub fn split(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut bytes = line.trim().bytes().peekable();
    while let Some(byte) = bytes.next() {
        let mut word = Vec::new();
        if byte == b'"' {
            while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
                if byte == b'\\' && bytes.peek() == Some(&b'x') {
                    let hex: String = bytes.by_ref().skip(1).take(2).map(char::from).collect();
                    word.push(u8::from_str_radix(&hex, 16).expect("two hex digits"));
                } else {
                    word.push(byte);
                }
            }
        } else if byte == b' ' {
            continue;
        } else {
            word.push(byte);
            while let Some(byte) = bytes.next_if(|byte| *byte != b' ') {
                word.push(byte);
            }
        }
        words.push(word);
    }
    words
}

/// A real Redis server on a socket of its own.
pub struct Oracle {
    process: Child,
    stream: UnixStream,
    directory: tempfile::TempDir,
}

impl Oracle {
    /// Starts one, if it is installed.
    pub fn start() -> Option<Oracle> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("s");
        let process = Process::new("redis-server")
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) if start.elapsed() > Duration::from_secs(10) => {
                    panic!("redis-server does not answer: {error}")
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a read timeout");
        Some(Oracle {
            process,
            stream,
            directory,
        })
    }

    /// The reply's bytes: what comes before the reply to a PING with a payload of its own.
    pub fn ask(&mut self, words: &[Vec<u8>]) -> Vec<u8> {
        const MARK: &[u8] = b"$8\r\n~~mark~~\r\n";
        let mut request = Vec::new();
        dfsnap_formats::resp::encode_command(&mut request, words);
        dfsnap_formats::resp::encode_command(&mut request, &[&b"PING"[..], b"~~mark~~"]);
        self.stream.write_all(&request).expect("the server reads");
        let mut reply = Vec::new();
        while !reply.ends_with(MARK) {
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).expect("the server answers");
            assert!(read > 0, "the server hung up at {words:?}");
            reply.extend_from_slice(&chunk[..read]);
        }
        reply.truncate(reply.len() - MARK.len());
        reply
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = self.directory.path();
    }
}

/// Runs a script, a command a line, here and on a real server in both protocols; every reply must be the same.
/// `#` begins a comment. Without an installed server it only runs here.
pub fn compare_with_redis(script: &str) {
    let oracle = Oracle::start();
    if oracle.is_none() {
        println!("redis-server is not installed: the script runs without comparison");
    }
    let mut oracle = oracle;
    let mut differences = Vec::new();
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut bench = Bench::new();
        bench.protocol = protocol;
        bench.now_ms = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("a clock after 1970")
            .as_millis() as i64;
        if let Some(oracle) = &mut oracle {
            oracle.ask(&split("FLUSHALL"));
            oracle.ask(&split(if protocol == Protocol::Resp3 {
                "HELLO 3"
            } else {
                "HELLO 2"
            }));
        }
        for line in script
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let words = split(line);
            let ours = bench.run_words(&words).0;
            if let Some(theirs) = oracle.as_mut().map(|oracle| oracle.ask(&words))
                && ours != theirs
            {
                let (ours, theirs) = (ours.escape_ascii(), theirs.escape_ascii());
                differences.push(format!(
                    "{protocol:?} {line}\n   ours {ours}\n  redis {theirs}"
                ));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} replies differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}
