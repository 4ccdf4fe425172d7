//! Random commands, sound and wrong, sent to this server and to a real redis-server: replies, datasets, events and waits must be the same.
//!
//! Four connections at each server: two write, one has few rights, one listens to keyspace events and messages. Replies are compared as they
//! come, types and all. Left to each server are only the order of unordered collections, and how many digits of a score are shown: those
//! follow 7.2, and Debian's server is a 7.0.
//!
//! A report has every kind of reply that differs; `DFSNAP_HISTORY=name` stops at the first one of a command and shows what came before.
//! By default it sends the same three thousand commands in each mode.
//! `DFSNAP_SECONDS=n` lets each mode run for longer (2), `DFSNAP_SEED=n` repeats a run. `long_random_runs` (`--ignored --nocapture`) goes
//! on for twenty minutes, or `DFSNAP_SECONDS`, with a new seed every ten seconds, and tells all seeds that found something.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use dfsnap_tests::client::{Client, Reply, frame};
use dfsnap_tests::process::{Server, has_program};
use dfsnap_tests::wait_for;

#[path = "../../formats/tests/support/commands.rs"]
#[expect(dead_code, reason = "what only a file may hold is not sent")]
mod commands;
mod differential_templates;

use commands::Commands;
use differential_templates::{BLOCKING, READS, SERVER, UNORDERED};

/// What `commands` takes its choices from.
pub struct Random(pub u64);

impl Random {
    /// A number from 0 to below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// A reply with its type.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Raw {
    mark: char,
    text: String,
    items: Vec<Raw>,
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.mark, self.text)?;
        if !self.items.is_empty() {
            f.debug_list().entries(&self.items).finish()?;
        }
        Ok(())
    }
}

impl Raw {
    fn read(client: &mut Client) -> Raw {
        Raw::try_read(client).expect("a reply")
    }

    fn try_read(client: &mut Client) -> std::io::Result<Raw> {
        let line = client.line()?;
        let (mark, text) = line.split_at(1);
        let mark = mark.chars().next().expect("a type");
        let mut raw = Raw {
            mark,
            text: text.to_owned(),
            items: Vec::new(),
        };
        let count = text.parse::<i64>().unwrap_or(0);
        match mark {
            '$' | '=' if count >= 0 => {
                let mut bytes = vec![0; count as usize + 2];
                let mut filled = 0;
                while filled < bytes.len() {
                    let read = client.read(&mut bytes[filled..])?;
                    assert!(read > 0, "the server hung up inside a reply");
                    filled += read;
                }
                bytes.truncate(count as usize);
                raw.text = bytes.escape_ascii().to_string();
            }
            '$' | '=' => raw.text = "null".into(),
            '*' | '~' | '>' | '%' | '|' => {
                let count = match mark {
                    '%' => count * 2,
                    // The reply comes behind its attributes.
                    '|' => count * 2 + 1,
                    _ => count,
                };
                raw.items = (0..count)
                    .map(|_| Raw::try_read(client))
                    .collect::<std::io::Result<_>>()?;
            }
            _ => {}
        }
        Ok(raw)
    }

    fn sort(&mut self) {
        self.items.sort();
        self.items.iter_mut().for_each(Raw::sort);
    }

    /// Numbers that are equal are the same however they are written.
    fn same(&self, other: &Raw) -> bool {
        let number = |raw: &Raw| {
            raw.text
                .parse::<f64>()
                .ok()
                .filter(|_| ['$', ','].contains(&raw.mark))
        };
        let is_close = |a: f64, b: f64| a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
        let is_equal_number =
            matches!((number(self), number(other)), (Some(a), Some(b)) if is_close(a, b));
        self.mark == other.mark
            && (self.text == other.text || is_equal_number)
            && self.items.len() == other.items.len()
            && self.items.iter().zip(&other.items).all(|(a, b)| a.same(b))
    }
}

/// One server with its connections.
struct Side {
    writers: [Client; 2],
    limited: Client,
    listener: Client,
    control: Client,
    ids: [String; 2],
}

const LIBRARY: &str = "#!lua name=lib\n\
    redis.register_function('pass', function(keys, args) return redis.call(unpack(args)) end)\n\
    redis.register_function{function_name='look', flags={'no-writes'}, callback=function(keys, args) return redis.pcall(unpack(args)) end}";

impl Side {
    fn new(server: &Server, protocol: &str) -> Side {
        let connect = || {
            let mut client = server.client();
            client.send(&["HELLO", protocol]).expect("HELLO");
            Raw::read(&mut client);
            client
        };
        let mut control = server.client();
        for line in [
            "FLUSHALL",
            "FUNCTION FLUSH",
            "CONFIG SET notify-keyspace-events KEAn",
            "CONFIG RESETSTAT",
            "ACL SETUSER few on nopass ~s* %R~h* &chan* -@all +@string +@read +@hash +multi +exec +discard +publish +eval +select +config|get",
        ] {
            control.ask(line);
        }
        for user in control.ask("ACL USERS").items() {
            let name = user.text();
            if name != "default" && name != "few" {
                control.call(&["ACL", "DELUSER", &name]);
            }
        }
        let loaded = control.call(&["FUNCTION", "LOAD", LIBRARY]);
        assert!(!loaded.is_error(), "{loaded:?}");
        let mut limited = connect();
        limited.send(&["AUTH", "few", "x"]).expect("AUTH");
        assert_eq!(Raw::read(&mut limited).text, "OK");
        let mut listener = connect();
        for words in [["PSUBSCRIBE", "__key*"], ["SUBSCRIBE", "channel"]] {
            listener.send(&words).expect("SUBSCRIBE");
            Raw::read(&mut listener);
        }
        let mut writers = [connect(), connect()];
        let ids = writers.each_mut().map(|client| {
            client.send(&["CLIENT", "ID"]).expect("CLIENT ID");
            Raw::read(client).text
        });
        Side {
            writers,
            limited,
            listener,
            control,
            ids,
        }
    }

    /// Everything the listener has heard so far.
    fn heard(&mut self, mark: usize) -> Vec<String> {
        let mark = format!("mark {mark}");
        self.control.call(&["PUBLISH", "channel", &mark]);
        let mut heard = Vec::new();
        loop {
            let message = Raw::read(&mut self.listener);
            let words: Vec<&str> = message
                .items
                .iter()
                .map(|item| item.text.as_str())
                .collect();
            if words.last() == Some(&mark.as_str()) {
                return heard;
            }
            heard.push(words.join(" "));
        }
    }

    fn is_blocked(&mut self, writer: usize) -> bool {
        let line = self
            .control
            .call(&["CLIENT", "LIST", "ID", &self.ids[writer]]);
        line.text().contains("flags=b")
    }
}

/// Both servers and what was sent of late.
struct Pair {
    theirs: Side,
    ours: Side,
    history: VecDeque<String>,
    /// Name of the command, and what was sent and replied.
    differences: Vec<(String, String)>,
    title: String,
    marks: usize,
    exact_events: bool,
}

fn shown(words: &[Vec<u8>]) -> String {
    let words: Vec<String> = words
        .iter()
        .map(|word| format!("\"{}\"", word.escape_ascii()))
        .collect();
    words.join(" ")
}

impl Pair {
    fn fail(&self, what: &str, theirs: &dyn std::fmt::Debug, ours: &dyn std::fmt::Debug) -> ! {
        let differences: Vec<&str> = self
            .differences
            .iter()
            .map(|(_, text)| text.as_str())
            .collect();
        println!("{}", differences.join("\n"));
        let history: Vec<&str> = self.history.iter().map(String::as_str).collect();
        panic!(
            "{}: {what}\n{}\nredis: {theirs:?}\n ours: {ours:?}",
            self.title,
            history.join("\n")
        );
    }

    fn note(&mut self, who: &str, words: &[Vec<u8>]) {
        self.history.push_back(format!("{who}: {}", shown(words)));
        if self.history.len()
            > if std::env::var("DFSNAP_HISTORY").is_ok() {
                20_000
            } else {
                100
            }
        {
            self.history.pop_front();
        }
    }

    /// Sends a command on a connection of both servers and compares the replies.
    fn call(&mut self, who: usize, words: &[Vec<u8>]) {
        self.note(["first", "second", "limited"][who], words);
        let bytes = frame(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for side in [&mut self.theirs, &mut self.ours] {
            connection(side, who)
                .send_raw(&bytes)
                .expect("the server reads");
        }
        self.compare_replies(who, words);
    }

    fn compare_replies(&mut self, who: usize, words: &[Vec<u8>]) {
        let theirs = Raw::try_read(connection(&mut self.theirs, who));
        let ours = Raw::try_read(connection(&mut self.ours, who));
        let (mut theirs, mut ours) = match (theirs, ours) {
            (Ok(theirs), Ok(ours)) => (theirs, ours),
            (theirs, ours) => {
                println!("{}", self.ours.control.ask("INFO everything").text());
                self.fail("no reply", &theirs, &ours)
            }
        };
        let is_unordered = words.iter().any(|word| {
            UNORDERED
                .iter()
                .any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
        });
        if is_unordered {
            theirs.sort();
            ours.sort();
        }
        if !theirs.same(&ours) && !is_told_otherwise(words, &theirs, &ours) {
            self.differ(words, &theirs, &ours);
        }
    }

    /// Notes a reply that differs; a run goes on, so that one report has them all.
    fn differ(&mut self, words: &[Vec<u8>], theirs: &Raw, ours: &Raw) {
        let last = self.history.back().map_or("", String::as_str);
        let name = String::from_utf8_lossy(&words[0]).to_lowercase();
        if std::env::var("DFSNAP_HISTORY").is_ok_and(|wanted| wanted == name) {
            self.fail("replies differ", theirs, ours);
        }
        let told = self
            .differences
            .iter()
            .filter(|(known, _)| *known == name)
            .count();
        if told < 2 {
            self.differences.push((
                name,
                format!("{last}\n  redis: {theirs:?}\n   ours: {ours:?}"),
            ));
        }
        if self.differences.len() > 30 {
            self.report();
        }
    }

    fn report(&self) {
        let texts: Vec<&str> = self
            .differences
            .iter()
            .map(|(_, text)| text.as_str())
            .collect();
        assert!(
            texts.is_empty(),
            "{}: replies differ\n{}",
            self.title,
            texts.join("\n")
        );
    }

    /// One connection waits for a key, the other writes; then whether the wait has ended, and with what.
    fn wait_and_write(&mut self, commands: &mut Commands) {
        let words = commands.next(&[BLOCKING]);
        self.note("first waits", &words);
        let bytes = frame(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        for side in [&mut self.theirs, &mut self.ours] {
            side.writers[0].send_raw(&bytes).expect("the server reads");
        }
        let has_blocked = [&mut self.theirs, &mut self.ours].map(|side| {
            // It is blocked, or it has a reply: a command of the same connection tells.
            let deadline = Instant::now() + Duration::from_secs(10);
            loop {
                if side.is_blocked(0) {
                    return true;
                }
                side.writers[0]
                    .stream
                    .set_nonblocking(true)
                    .expect("a socket");
                let mut byte = [0];
                let peeked = side.writers[0].stream.peek(&mut byte);
                side.writers[0]
                    .stream
                    .set_nonblocking(false)
                    .expect("a socket");
                if peeked.is_ok_and(|len| len > 0) {
                    return false;
                }
                assert!(Instant::now() < deadline, "neither blocked nor answered");
            }
        });
        if has_blocked[0] != has_blocked[1] {
            self.fail(
                "one waits, the other does not",
                &has_blocked[0],
                &has_blocked[1],
            );
        }
        let mut has_swapped = false;
        for _ in 0..3 {
            let words = commands.next(&[commands::TEMPLATES]);
            has_swapped |= words[0].eq_ignore_ascii_case(b"swapdb");
            self.call(1, &words);
        }
        let unblocked = [&mut self.theirs, &mut self.ours].map(|side| {
            let id = side.ids[0].clone();
            side.control.call(&["CLIENT", "UNBLOCK", &id])
        });
        if unblocked[0] != unblocked[1] {
            self.fail(
                "the wait has ended at one of them",
                &unblocked[0],
                &unblocked[1],
            );
        }
        if has_swapped && words[0].to_ascii_lowercase().starts_with(b"xread") {
            // Of several streams that are there all at once, Redis takes the one that its hash table has first.
            for side in [&mut self.theirs, &mut self.ours] {
                Raw::read(&mut side.writers[0]);
            }
        } else {
            self.compare_replies(0, &words);
        }
        // Who is served beside whose command is no promise.
        let exact = std::mem::replace(&mut self.exact_events, false);
        self.compare_all();
        self.exact_events = exact;
    }

    fn compare_all(&mut self) {
        let digests = [
            self.theirs.control.ask("DEBUG DIGEST").text(),
            // Over scores as a 7.0 shows them.
            self.ours.control.ask("DEBUG DIGEST LEGACY").text(),
        ];
        if digests[0] != digests[1] {
            let [theirs, ours] =
                [&mut self.theirs, &mut self.ours].map(|side| contents(&mut side.control));
            let only = |a: &[String], b: &[String]| {
                a.iter()
                    .filter(|line| !b.contains(line))
                    .cloned()
                    .collect::<Vec<_>>()
            };
            self.fail(
                "datasets differ",
                &only(&theirs, &ours),
                &only(&ours, &theirs),
            );
        }
        self.marks += 1;
        let marks = self.marks;
        let mut heard = [&mut self.theirs, &mut self.ours].map(|side| side.heard(marks));
        if !self.exact_events {
            heard.iter_mut().for_each(|heard| heard.sort());
        }
        if heard[0] != heard[1] {
            let [theirs, ours] = heard;
            let at = theirs
                .iter()
                .zip(&ours)
                .position(|(a, b)| a != b)
                .unwrap_or(theirs.len().min(ours.len()));
            let from = at.saturating_sub(2);
            let cut = |list: &[String]| list.iter().skip(from).take(8).cloned().collect::<Vec<_>>();
            self.fail("events differ", &cut(&theirs), &cut(&ours));
        }
    }
}

fn connection(side: &mut Side, who: usize) -> &mut Client {
    match who {
        0 | 1 => &mut side.writers[who],
        _ => &mut side.limited,
    }
}

fn readable(reply: &Reply) -> String {
    match reply {
        Reply::Text(text) => text.escape_ascii().to_string(),
        Reply::Array(items) => {
            let items: Vec<String> = items.iter().map(readable).collect();
            format!("[{}]", items.join(" "))
        }
        other => format!("{other:?}"),
    }
}

/// A line for each key, with all that the digest looks at.
fn contents(client: &mut Client) -> Vec<String> {
    let mut lines = Vec::new();
    for db in 0..3 {
        client.ask(&format!("SELECT {db}"));
        for key in client.ask("KEYS *").items() {
            let key = key.text();
            let [kind, expiry] =
                ["TYPE", "PEXPIRETIME"].map(|command| client.call(&[command, &key]));
            let look: &[&str] = match kind.text().as_str() {
                "string" => &["GET", &key],
                "list" => &["LRANGE", &key, "0", "-1"],
                "set" => &["SMEMBERS", &key],
                "zset" => &["ZRANGE", &key, "0", "-1", "WITHSCORES"],
                "hash" => &["HGETALL", &key],
                _ => &["XINFO", "STREAM", &key, "FULL"],
            };
            let value = client.call(look);
            lines.push(format!(
                "{db} {key} {} {expiry:?} {}",
                kind.text(),
                readable(&value)
            ));
        }
    }
    client.ask("SELECT 0");
    lines
}

/// Where 7.2 says something in other words than 7.0.
fn is_told_otherwise(words: &[Vec<u8>], theirs: &Raw, ours: &Raw) -> bool {
    let has = |names: &[&str]| {
        let is_one = |word: &Vec<u8>| {
            names
                .iter()
                .any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
        };
        words.iter().any(is_one)
    };
    // What a transaction did is told of item by item.
    if has(&["EXEC"]) && theirs.mark == ours.mark && theirs.items.len() == ours.items.len() {
        let pairs = theirs.items.iter().zip(&ours.items);
        return !theirs.items.is_empty()
            && pairs
                .clone()
                .all(|(a, b)| a.same(b) || is_told_otherwise(words, a, b));
    }
    // A wrong range is an error since 7.2 although there is no such key, or one of another type.
    if has(&["BITCOUNT", "BITPOS", "EXEC"])
        && ours.mark == '-'
        && (ours.text.contains("not an integer") || ours.text.contains("syntax error"))
        && (theirs.mark == ':' || theirs.text.contains("WRONGTYPE"))
    {
        return true;
    }
    // Small sets and lists are packed since 7.2.
    // SORT of a sorted set makes a skip list of its source there, and changes nothing here.
    let larger = ["hashtable", "quicklist", "skiplist"];
    if larger.contains(&theirs.text.as_str()) && ours.text == "listpack" {
        return true;
    }
    // How a number came about is not remembered: a small one counts as one that all share.
    if has(&["REFCOUNT"]) && theirs.mark == ':' && ours.mark == ':' {
        return true;
    }
    // How a short string came about is not remembered.
    if theirs.text == "raw" && ["embstr", "int"].contains(&ours.text.as_str()) {
        return true;
    }
    // Scores are shown as 7.2 does; DEBUG DIGEST LEGACY is compared after every few commands.
    if has(&["DIGEST-VALUE"]) && theirs.mark == '*' && ours.mark == '*' {
        return true;
    }
    let pairs = [
        (
            "UNBLOCKED the stream key no longer exists",
            "NOGROUP No such key",
        ),
        // More milliseconds than a number holds.
        ("ERR timeout is negative", "ERR timeout is out of range"),
    ];
    theirs.mark == '-'
        && ours.mark == '-'
        && pairs
            .iter()
            .any(|(old, new)| theirs.text.starts_with(old) && ours.text.starts_with(new))
}

/// Wraps a command into what runs it from within.
fn wrapped(random: &mut Random, words: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let text = |text: &str| text.as_bytes().to_vec();
    let mut call = match random.below(5) {
        0 => vec![text("FCALL"), text("pass"), text("0")],
        1 => vec![text("FCALL_RO"), text("look"), text("0")],
        2 => vec![
            text("EVAL_RO"),
            text("return redis.pcall(unpack(ARGV))"),
            text("0"),
        ],
        3 => vec![
            text("EVAL"),
            text("redis.setresp(3) return redis.call(unpack(ARGV))"),
            text("0"),
        ],
        _ => vec![
            text("EVAL"),
            text("return redis.call(unpack(ARGV))"),
            text("0"),
        ],
    };
    call.extend(words);
    call
}

fn run(
    redis: &Server,
    threads: &str,
    protocol: &str,
    seed: u64,
    limit: Duration,
    commands_max: usize,
) -> usize {
    let ours = Server::ours(&[
        "--threads",
        threads,
        "--enable-debug-command",
        "yes",
        "--save",
        "",
    ]);
    let mut pair = Pair {
        theirs: Side::new(redis, protocol),
        ours: Side::new(&ours, protocol),
        history: VecDeque::new(),
        differences: Vec::new(),
        title: format!("{threads} threads, RESP{protocol}, DFSNAP_SEED={seed}"),
        marks: 0,
        exact_events: threads == "1",
    };
    let mut commands = Commands::new(seed);
    let started = Instant::now();
    let mut count = 0;
    while (commands_max < usize::MAX || started.elapsed() < limit) && count < commands_max {
        count += 1;
        if count % 50 == 0 {
            // Open transactions end: what follows looks at all.
            for who in 0..3 {
                pair.call(who, &[b"DISCARD".to_vec()]);
            }
            pair.compare_all();
            if count % 200 == 0 {
                pair.wait_and_write(&mut commands);
            }
            continue;
        }
        let words = commands.next(&[commands::TEMPLATES, READS, READS, SERVER]);
        // Over members of different scores what they do is nobody's promise.
        let is_lex = shown(&words[..1]).contains("LEX") || shown(&words).contains("BYLEX");
        let is_wrong = words.get(1).is_some_and(|key| key == b"lex")
            && words[0] == b"ZADD"
            && (words[2] != b"0" || words[4] != b"0");
        if is_lex && words[1] != b"lex" || is_wrong {
            continue;
        }
        // 7.2 asks for an id that is no smaller than those deleted.
        if words[0] == b"XSETID" && words.get(2).is_some_and(|id| id != b"999-0") {
            continue;
        }
        let who = match commands.random.below(12) {
            0..=6 => 0,
            7..=9 => 1,
            _ => 2,
        };
        // 7.2 lets scripts run what may wait, 7.0 does not.
        let is_plain = ![
            "MULTI",
            "EXEC",
            "DISCARD",
            "WATCH",
            "UNWATCH",
            "SELECT",
            "EVAL",
            "BLPOP",
            "BRPOP",
            "BLMOVE",
            "BRPOPLPUSH",
            "MIGRATE",
            "XINFO",
            "WAIT",
            "SLOWLOG",
            "BLMPOP",
            "BZPOPMIN",
            "BZPOPMAX",
            "BZMPOP",
        ]
        .iter()
        .any(|name| words[0].eq_ignore_ascii_case(name.as_bytes()));
        let words = match commands.random.below(10) {
            0 if is_plain => wrapped(&mut commands.random, words),
            _ => words,
        };
        pair.call(who, &words);
    }
    pair.report();
    count
}

/// Threads and protocol.
const MODES: [(&str, &str); 5] = [("1", "2"), ("2", "3"), ("4", "2"), ("1", "3"), ("4", "3")];

#[test]
#[ignore = "twenty minutes"]
fn long_random_runs() {
    if !has_program("redis-server") {
        return;
    }
    let (first, limit) = (
        dfsnap_tests::seed("differential"),
        dfsnap_tests::seconds(1200),
    );
    let redis = Server::redis(&["--enable-debug-command", "yes", "--save", ""]);
    let started = Instant::now();
    let (mut count, mut found) = (0, Vec::new());
    for round in 0.. {
        // Ten are enough to look at.
        if started.elapsed() >= limit || found.len() == 10 {
            break;
        }
        let (threads, protocol) = MODES[round % MODES.len()];
        // Odd, so that it is not zero; a step that has nothing in common with the generator's own.
        let seed = first.wrapping_add((round as u64).wrapping_mul(0x9e37_79b9_7f4a_7c16)) | 1;
        let one = || {
            run(
                &redis,
                threads,
                protocol,
                seed,
                Duration::from_secs(10),
                usize::MAX,
            )
        };
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(one)) {
            Ok(commands) => count += commands,
            Err(_) => found.push(format!(
                "{threads} threads, RESP{protocol}, DFSNAP_SEED={seed}"
            )),
        }
        assert!(redis.is_running(), "redis-server has ended: {found:?}");
    }
    println!(
        "{count} commands in runs without a find, {} s",
        started.elapsed().as_secs()
    );
    assert!(found.is_empty(), "found:\n{}", found.join("\n"));
}

#[test]
fn replies_datasets_and_events_are_those_of_redis() {
    if !has_program("redis-server") {
        return;
    }
    // The same commands each time, unless others are asked for: a long run looks for new ones.
    let is_search = ["DFSNAP_SEED", "DFSNAP_SECONDS"]
        .iter()
        .any(|name| std::env::var(name).is_ok());
    let seed = if is_search {
        dfsnap_tests::seed("differential") | 1
    } else {
        9
    };
    let commands_max = if is_search { usize::MAX } else { 3_000 };
    let limit = dfsnap_tests::seconds(2);
    let redis = Server::redis(&["--enable-debug-command", "yes", "--save", ""]);
    for (threads, protocol) in MODES {
        let count = run(&redis, threads, protocol, seed, limit, commands_max);
        println!("{threads} threads, RESP{protocol}: {count} commands");
    }
    wait_for("redis is alive", Duration::from_secs(5), || {
        redis.is_running().then_some(())
    });
}
