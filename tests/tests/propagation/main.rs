//! What a primary puts on the replication stream, row by row beside a real server.
//!
//! Each row is a short session that runs on both servers, each with a replica in its rawest form attached. What the two replicas
//! read is compared word by word. Times are compared to ten seconds, ids of stream entries without their clock. A row in which
//! 7.0 and ours differ on purpose names what ours sends.

mod rows;

use std::time::{Duration, SystemTime};

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::link::RawReplica;
use dfsnap_tests::process::{Kind, Server, has_program};
use dfsnap_tests::wait_for;

const LIMIT: Duration = Duration::from_secs(30);

/// A session on both servers.
struct Row {
    name: &'static str,
    /// Commands, one a line; see [`Side::run_line`].
    session: &'static str,
    /// What ours sends, one command a line, where that differs from 7.0 on purpose.
    ours: Option<&'static str>,
}

/// One of the servers.
struct Side {
    server: Server,
    replica: RawReplica,
    clients: [Client; 2],
    marker: Client,
    /// A client whose command waits, and its name.
    waiting: Option<Client>,
    marks: u32,
}

impl Side {
    fn start(kind: Kind) -> Side {
        let threads: &[&str] = match kind {
            Kind::Ours => &["--threads", "2"],
            Kind::Redis => &[],
        };
        let args = [threads, &["--repl-ping-replica-period", "3600"]].concat();
        let server = Server::spawn(kind, &args);
        server.wait_until_ready();
        let replica = RawReplica::full(server.port).expect("a full sync");
        Side {
            clients: [server.client(), server.client()],
            marker: server.client(),
            replica,
            server,
            waiting: None,
            marks: 0,
        }
    }

    /// Runs a session; what it put on the stream, in words.
    fn run(&mut self, row: &Row) -> String {
        self.clients = [self.server.client(), self.server.client()];
        self.marker.ask("FLUSHALL");
        self.marker.ask("FUNCTION FLUSH");
        self.read_to_mark();
        let began_ms = now_ms();
        for line in row.session.lines().map(str::trim) {
            if !line.is_empty() {
                self.run_line(row.name, line);
            }
        }
        if let Some(mut client) = self.waiting.take() {
            client.reply().expect("the reply to what waited");
        }
        let commands = self.read_to_mark();
        self.marker.ask("DEBUG SET-ACTIVE-EXPIRE 1");
        let lines: Vec<String> = commands
            .iter()
            .map(|words| {
                let words: Vec<_> = words.iter().map(|word| shown(word, began_ms)).collect();
                words.join(" ")
            })
            .collect();
        lines.join("\n")
    }

    /// A line is a command of the first client, or of the second (`2: `), or one that will wait (`b: `, after which the next lines run
    /// once it does), or `past <ms>`: until so much later, or `scan all`: SCAN to its end. Words stand in `'…'` where they have spaces.
    fn run_line(&mut self, name: &str, line: &str) {
        if let Some(ms) = line.strip_prefix("past ") {
            let until = now_ms() + ms.parse::<i64>().expect("a number");
            return wait_for(line, LIMIT, || (now_ms() > until).then_some(()));
        }
        if line == "scan all" {
            let mut cursor = "0".to_owned();
            loop {
                cursor = self.clients[0].call(&["SCAN", &cursor]).items()[0].text();
                if cursor == "0" {
                    return;
                }
            }
        }
        if let Some(command) = line.strip_prefix("b: ") {
            let mut client = self.server.client();
            client.send(&self.words(command)).expect("sent");
            self.waiting = Some(client);
            let marker = &mut self.marker;
            return wait_for(name, LIMIT, || {
                (marker.info("blocked_clients")? != "0").then_some(())
            });
        }
        let (client, command) = match line.strip_prefix("2: ") {
            Some(command) => (1, command),
            None => (0, line),
        };
        let words = self.words(command);
        self.clients[client].call(&words);
    }

    /// Words of a line; `{…}` stands for a time or for what DUMP gives.
    fn words(&mut self, command: &str) -> Vec<Vec<u8>> {
        let mut words = Vec::new();
        for (i, part) in command.split('\'').enumerate() {
            if i % 2 == 1 {
                words.push(part.as_bytes().to_vec());
            } else {
                words.extend(part.split_whitespace().map(|word| self.word(word)));
            }
        }
        words
    }

    fn word(&mut self, word: &str) -> Vec<u8> {
        let Some(inner) = word.strip_prefix('{').and_then(|w| w.strip_suffix('}')) else {
            return word.as_bytes().to_vec();
        };
        if let Some(key) = inner.strip_prefix("dump:") {
            return match self.clients[0].call(&["DUMP", key]) {
                Reply::Text(text) => text,
                other => panic!("DUMP {key}: {other:?}"),
            };
        }
        let (base, seconds) = match inner.split_at(2) {
            ("ms", seconds) => (1000, seconds),
            ("s:", seconds) => (1, seconds),
            _ => panic!("{word}"),
        };
        let seconds: i64 = seconds.parse().expect("a number");
        let at_ms = now_ms() + seconds * 1000;
        (at_ms * base / 1000).to_string().into_bytes()
    }

    /// What comes up to a mark that is set now.
    fn read_to_mark(&mut self) -> Vec<Vec<Vec<u8>>> {
        self.marks += 1;
        let mark = self.marks.to_string();
        self.marker.call(&["PUBLISH", "mark", &mark]);
        let mut commands = Vec::new();
        loop {
            let words = self.replica.command().expect("a command of the stream");
            let is_mark = words[0] == b"PUBLISH" && words[1] == b"mark";
            if is_mark && words[2] == mark.as_bytes() {
                return commands;
            }
            commands.push(words);
        }
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    now.as_millis() as i64
}

/// A word for comparing: times and clocks are relative and round.
fn shown(word: &[u8], began_ms: i64) -> String {
    let Ok(text) = std::str::from_utf8(word) else {
        return "<binary>".into();
    };
    let relative = |text: &str| {
        let is_time = text.len() == 13 && text.bytes().all(|b| b.is_ascii_digit());
        let ms: i64 = is_time.then(|| text.parse().ok()).flatten()?;
        let tens = (ms - began_ms + 5_000).div_euclid(10_000);
        Some(format!("<{}s>", tens * 10))
    };
    if let Some((ms, seq)) = text.split_once('-')
        && let Some(ms) = relative(ms)
    {
        return format!("{ms}-{seq}");
    }
    match relative(text) {
        Some(time) => time,
        None if text.is_empty() => "''".into(),
        None => text.replace('\n', "\\n"),
    }
}

fn compare(rows: &[Row]) {
    if !has_program("redis-server") {
        return;
    }
    let mut redis = Side::start(Kind::Redis);
    let mut ours = Side::start(Kind::Ours);
    let mut differences = Vec::new();
    for row in rows {
        let real = redis.run(row);
        let found = ours.run(row);
        let wanted = match row.ours {
            Some(text) => {
                let lines: Vec<&str> = text.lines().map(str::trim).collect();
                let text = lines.join("\n").trim().to_owned();
                if text == real {
                    differences.push(format!("{}: 7.0 does the same: no exception", row.name));
                }
                text
            }
            None => real.clone(),
        };
        if found != wanted {
            differences.push(format!(
                "{}:\n  7.0:\n    {}\n  ours:\n    {}",
                row.name,
                real.replace('\n', "\n    "),
                found.replace('\n', "\n    ")
            ));
        }
    }
    println!("{} rows", rows.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn strings_and_keys() {
    compare(rows::STRINGS);
    compare(rows::KEYS);
}

#[test]
fn collections() {
    compare(rows::COLLECTIONS);
}

#[test]
fn streams() {
    compare(rows::STREAMS);
}

/// 7.0 refuses these commands; what is sent is what 7.4 sends.
#[test]
fn fields() {
    compare(rows::NEWER);
}

#[test]
fn blocks_scripts_and_databases() {
    compare(rows::UNITS);
    compare(rows::REMOVALS);
}

/// What is evicted is deleted in the stream, in the form that the configuration says. When is not compared: memory is counted by shard.
#[test]
fn evicted_keys_are_deleted_in_the_stream() {
    let mut ours = Side::start(Kind::Ours);
    for (is_lazy, name) in [("no", b"DEL".to_vec()), ("yes", b"UNLINK".to_vec())] {
        let mut client = ours.server.client();
        for i in 0..20 {
            client.ask(&format!("SET key:{i} v"));
        }
        client.ask(&format!("CONFIG SET lazyfree-lazy-eviction {is_lazy}"));
        client.ask("CONFIG SET maxmemory-policy allkeys-random");
        client.ask("CONFIG SET maxmemory 1");
        wait_for("all is evicted", LIMIT, || {
            // Reads make no room.
            client.call(&["SET", "more", "v"]);
            client.call(&["DEL", "more", "other"]);
            (client.ask("DBSIZE").number() == Some(0)).then_some(())
        });
        client.ask("CONFIG SET maxmemory 0");
        let stream = ours.read_to_mark();
        let deleted = |i: usize| {
            let key = format!("key:{i}").into_bytes();
            let wanted = [name.clone(), key];
            stream.iter().filter(|words| **words == wanted).count()
        };
        for i in 0..20 {
            assert_eq!(deleted(i), 1, "key:{i}, lazy: {is_lazy}");
        }
    }
}

/// A read over several shards that met keys past their time used to end the server: nobody held what it had to record.
#[test]
fn a_read_over_shards_deletes_what_is_past_its_time() {
    let mut ours = Side::start(Kind::Ours);
    let mut client = ours.server.client();
    client.ask("DEBUG SET-ACTIVE-EXPIRE 0");
    let keys: Vec<String> = (0..20).map(|i| format!("key:{i}")).collect();
    for key in &keys {
        client.call(&["SET", key, "v", "PX", "1"]);
    }
    ours.read_to_mark();
    let until = now_ms() + 5;
    wait_for("they are past their time", LIMIT, || {
        (now_ms() > until).then_some(())
    });
    let words = [vec!["MGET".to_owned()], keys.clone()].concat();
    client.call(&words);
    let stream = ours.read_to_mark();
    assert_eq!(stream.first(), Some(&vec![b"MULTI".to_vec()]));
    assert_eq!(stream.last(), Some(&vec![b"EXEC".to_vec()]));
    let mut deleted: Vec<_> = stream[1..stream.len() - 1].to_vec();
    let mut wanted: Vec<_> = keys
        .iter()
        .map(|key| vec![b"DEL".to_vec(), key.clone().into_bytes()])
        .collect();
    deleted.sort();
    wanted.sort();
    assert_eq!(deleted, wanted);
}
