//! The debugger of scripts, as clients see it, beside a real server; and what others see of it.

#[path = "debugger/random.rs"]
mod random;

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dfsnap_tests::client::{Client, Reply, frame};
use dfsnap_tests::link::RawReplica;
use dfsnap_tests::process::{Server, has_program};
use dfsnap_tests::{seconds, seed, wait_for};

const SESSIONS: &str = include_str!("debugger/sessions.txt");
/// For each of what must come soon.
const LIMIT: Duration = Duration::from_secs(20);

/// What is sent in a session.
enum Request {
    /// Words.
    Words(Vec<Vec<u8>>),
    /// Bytes as they are, and whether a reply is read then.
    Raw(Vec<u8>, bool),
}

/// A session: its name, its first command, and what follows.
struct Session {
    name: &'static str,
    command: Vec<Vec<u8>>,
    requests: Vec<Request>,
}

/// What escapes in a text stand for.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().expect("an escaped character") {
                b'n' => b'\n',
                b'r' => b'\r',
                b'0' => 0,
                other => other,
            },
            byte => byte,
        });
    }
    bytes
}

/// The words of a request: apart by blanks, or in quotes.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let end = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.find(|c| {
                    let is_end = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    is_end
                });
                let end = end.expect("a closing quote");
                words.push(unescaped(&quoted[..end]));
                end + 2
            }
            None => {
                let end = rest.find(' ').unwrap_or(rest.len());
                words.push(rest.as_bytes()[..end].to_vec());
                end
            }
        };
        rest = rest[end..].trim_start();
    }
    words
}

fn sessions() -> Vec<Session> {
    let mut sessions = Vec::new();
    let parts = SESSIONS.split("\n== ").skip(1);
    for part in parts {
        let (name, rest) = part.split_once('\n').expect("a session has lines");
        let (mut command, mut script, mut args) = ("EVAL", Vec::new(), "0");
        let mut requests = Vec::new();
        for line in rest.lines().filter(|line| !line.is_empty()) {
            if let Some(text) = line.strip_prefix("| ") {
                script.push(text.to_owned());
            } else if let Some(text) = line.strip_prefix("|r ") {
                script.push(format!("{text}\r"));
            } else if let Some(text) = line.strip_prefix("> ") {
                args = text;
            } else if let Some(text) = line.strip_prefix("% ") {
                command = text;
            } else if let Some(text) = line.strip_prefix("! ") {
                requests.push(Request::Raw(unescaped(text), true));
            } else if let Some(text) = line.strip_prefix("~! ") {
                requests.push(Request::Raw(unescaped(text), false));
            } else {
                requests.push(Request::Words(words(line)));
            }
        }
        let script = script.join("\n").into_bytes();
        let command = [vec![command.into(), script], words(args)].concat();
        sessions.push(Session {
            name,
            command,
            requests,
        });
    }
    sessions
}

/// The bytes of one reply; `None` if the connection has ended.
fn raw_reply(client: &mut Client) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n") {
        match client.read(&mut byte) {
            Ok(0) => return None,
            Ok(_) => bytes.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("no reply: {error}"),
        }
    }
    let number = std::str::from_utf8(&bytes[1..bytes.len() - 2]).map(str::parse::<i64>);
    let count = match (bytes[0], number) {
        (b'*', Ok(Ok(count))) => count,
        (b'%', Ok(Ok(count))) => 2 * count,
        _ => 0,
    };
    for _ in 0..count {
        bytes.extend(raw_reply(client)?);
    }
    Some(bytes)
}

/// A reply to be compared: where things are in memory differs.
fn comparable(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    let mut parts = text.split("0x");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown += "0x";
        shown += part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    shown
}

fn debugging(server: &Server, mode: &str) -> Client {
    let mut client = server.client();
    switch_on(&mut client, mode);
    client
}

fn switch_on(client: &mut Client, mode: &str) {
    client.stream.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(client.call(&["SCRIPT", "DEBUG", mode]).text(), "OK");
}

/// All that a server says in a session, up to the end of the connection.
fn transcript(server: &Server, (protocol, mode): (&str, &str), session: &Session) -> Vec<String> {
    let mut client = server.client();
    client.call(&["HELLO", protocol]);
    switch_on(&mut client, mode);
    let mut said = Vec::new();
    client.send(&session.command).expect("the server reads");
    said.extend(raw_reply(&mut client).map(|reply| comparable(&reply)));
    for request in &session.requests {
        let (bytes, is_read) = match request {
            Request::Words(words) => {
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                (frame(&words), true)
            }
            Request::Raw(bytes, is_read) => (bytes.clone(), *is_read),
        };
        if client.send_raw(&bytes).is_err() {
            said.push("gone".into());
            break;
        }
        if is_read {
            let reply = raw_reply(&mut client);
            said.push(reply.map_or("gone".into(), |reply| comparable(&reply)));
        }
    }
    match client.rest() {
        Ok(rest) => said.push(comparable(&rest)),
        Err(error) => panic!(
            "{:?}, {}: {error}; so far: {said:#?}",
            server.kind, session.name
        ),
    }
    said
}

#[test]
fn sessions_are_those_of_redis_byte_for_byte() {
    if !has_program("redis-server") {
        return;
    }
    let threshold = ["--busy-reply-threshold", "200"];
    let redis = Server::redis(&threshold);
    let sessions = sessions();
    assert!(sessions.len() > 50, "{} sessions", sessions.len());
    for threads in ["1", "3"] {
        let ours = Server::ours(&[&threshold[..], &["--threads", threads]].concat());
        let mut differences = Vec::new();
        for how in [("2", "YES"), ("2", "SYNC"), ("3", "YES"), ("3", "SYNC")] {
            for session in &sessions {
                let [theirs, ours] = [&redis, &ours].map(|server| {
                    server.client().ask("FLUSHALL");
                    server.client().ask("SCRIPT FLUSH");
                    transcript(server, how, session)
                });
                if theirs != ours {
                    let pairs = theirs.iter().zip(&ours);
                    let at = pairs.take_while(|(theirs, ours)| theirs == ours).count();
                    differences.push(format!(
                        "{how:?}, {}, reply {at}\n  redis {:?}\n   ours {:?}",
                        session.name,
                        theirs.get(at),
                        ours.get(at)
                    ));
                }
            }
        }
        assert!(
            differences.is_empty(),
            "{threads} threads, {} of {}:\n{}",
            differences.len(),
            4 * sessions.len(),
            differences.join("\n")
        );
    }
}

#[test]
fn random_sessions_are_those_of_redis() {
    if !has_program("redis-server") {
        return;
    }
    let mut random = fastrand::Rng::with_seed(seed("random_sessions_are_those_of_redis"));
    let servers = [Server::redis(&[]), Server::ours(&["--threads", "2"])];
    let end = Instant::now() + seconds(3);
    while Instant::now() < end {
        let script = random::script(&mut random);
        let mode = if random.u8(..4) == 0 { "YES" } else { "SYNC" };
        let mut clients = servers.each_ref().map(|server| {
            server.client().ask("FLUSHALL");
            let mut client = debugging(server, mode);
            client
                .send(&["EVAL", &script, "1", "key", "arg"])
                .expect("it reads");
            client
        });
        let mut said = Vec::new();
        loop {
            let [theirs, ours] = clients.each_mut().map(raw_reply);
            let [theirs, ours] = [theirs, ours].map(|reply| reply.expect("an answer"));
            let [theirs, ours] = [theirs, ours].map(|reply| comparable(&reply));
            assert_eq!(ours, theirs, "{mode}\n{script}\n{said:#?}");
            if theirs.contains("<endsession>") {
                break;
            }
            let request = match said.len() {
                // It comes to its end.
                60.. if said.len() % 2 == 0 => "b 0".to_owned(),
                60.. => "c".to_owned(),
                _ => random::request(&mut random, script.lines().count()),
            };
            for client in &mut clients {
                client.send(&words(&request)).expect("it reads");
            }
            said.push((theirs, request));
        }
        let [theirs, ours] = clients.map(|mut client| {
            let rest = client.rest().expect("the reply");
            comparable(&rest)
        });
        assert_eq!(ours, theirs, "{mode}\n{script}\n{said:#?}");
    }
}

/// A request over many pieces used to be read from its beginning with each of them: a megabyte took minutes.
#[test]
fn long_requests_are_those_of_redis() {
    if !has_program("redis-server") {
        return;
    }
    let many = |count: usize, bytes: usize| {
        let words = vec![vec![b'x'; bytes]; count];
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        frame(&words)
    };
    let long = many(1024, 1000);
    let without_end = many(1024, 1024);
    let (redis, ours) = (Server::redis(&[]), Server::ours(&[]));
    for (name, bytes, steps) in [("long", long, 1), ("too long", without_end, 0)] {
        let [theirs, ours] = [&redis, &ours].map(|server| {
            let mut client = begin(server, "SYNC", "return 1");
            client.send_raw(&bytes).expect("the server reads");
            let mut said = vec![client.reply().expect("an answer")];
            said.extend((0..steps).map(|_| client.call(&["s"])));
            said
        });
        assert_eq!(ours, theirs, "{name}");
    }
}

#[test]
fn a_session_has_the_rights_of_its_user() {
    if !has_program("redis-server") {
        return;
    }
    let (redis, ours) = (Server::redis(&[]), Server::ours(&["--threads", "2"]));
    let script = "redis.pcall('set','own:1','v')\nredis.pcall('set','other','v')\nredis.pcall('incr','own:2')\nredis.pcall('publish','a','b')\nreturn 1";
    for mode in ["YES", "SYNC"] {
        let [theirs, ours] = [&redis, &ours].map(|server| {
            let mut client = server.client();
            let rights = "ACL SETUSER few on nopass ~own:* &own +@all -incr";
            client.ask(rights);
            client.ask("AUTH few none");
            switch_on(&mut client, mode);
            client.call(&["EVAL", script, "0"]);
            let steps = (0..4).map(|_| ask(&mut client, &["s"]));
            let mut said: Vec<_> = steps.collect();
            said.push(ask(&mut client, &["r", "get", "other"]));
            said.push(ask(&mut client, &["r", "get", "own:1"]));
            said.push(ask(&mut client, &["c"]));
            said
        });
        assert_eq!(ours, theirs, "{mode}");
    }
    // On a copy nothing is noted either.
    let mut client = ours.client();
    client.ask("ACL LOG RESET");
    client.ask("AUTH few none");
    switch_on(&mut client, "YES");
    client.call(&["EVAL", script, "0"]);
    ask(&mut client, &["c"]);
    let log = ours.client().ask("ACL LOG");
    assert!(log.items().is_empty(), "{log:?}");
}

#[test]
fn what_is_refused_is_refused_as_in_redis() {
    if !has_program("redis-server") {
        return;
    }
    let pipeline = |words: &[&[&str]]| {
        let frames = words.iter().map(|words| {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            frame(&words)
        });
        frames.collect::<Vec<_>>().concat()
    };
    let sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    let rows: [(&str, &[&[&str]]); 9] = [
        ("no mode", &[&["SCRIPT", "DEBUG"]]),
        ("no such mode", &[&["SCRIPT", "DEBUG", "maybe"]]),
        ("two modes", &[&["SCRIPT", "DEBUG", "yes", "no"]]),
        (
            "behind a command",
            &[&["PING"], &["SCRIPT", "DEBUG", "YES"]],
        ),
        (
            "in a transaction",
            &[&["MULTI"], &["SCRIPT", "DEBUG", "YES"], &["EXEC"]],
        ),
        (
            "in a script",
            &[&["EVAL", "return redis.call('script','debug','yes')", "0"]],
        ),
        ("switched off", &[&["SCRIPT", "DEBUG", "No"]]),
        (
            "by its digest",
            &[&["SCRIPT", "DEBUG", "YES"], &["EVALSHA", sha, "0"]],
        ),
        (
            "by no digest",
            &[&["SCRIPT", "DEBUG", "SYNC"], &["EVALSHA", "e0", "0"]],
        ),
    ];
    let (redis, ours) = (Server::redis(&[]), Server::ours(&["--threads", "2"]));
    for (name, words) in rows {
        let [theirs, ours] = [&redis, &ours].map(|server| {
            let mut client = server.client();
            client.send_raw(&pipeline(words)).expect("it reads");
            let replies = words.iter().filter_map(|_| raw_reply(&mut client));
            replies.map(|reply| comparable(&reply)).collect::<Vec<_>>()
        });
        assert_eq!(ours, theirs, "{name}");
        assert_eq!(ours.len(), words.len(), "{name}");
    }
}

/// Sends a request of the debugger, and reads what it shows.
fn ask(client: &mut Client, request: &[&str]) -> Vec<String> {
    shown(client.call(request))
}

fn shown(reply: Reply) -> Vec<String> {
    reply.items().iter().map(Reply::text).collect()
}

/// Begins a session: the script stands before its first line.
fn begin(server: &Server, mode: &str, script: &str) -> Client {
    let mut client = debugging(server, mode);
    let stop = shown(client.call(&["EVAL", script, "0"]));
    assert_eq!(stop[0], "* Stopped at 1, stop reason = step over");
    client
}

/// The next unit of a replica's stream that is no PING and no SELECT.
fn next_command(replica: &mut RawReplica) -> Vec<String> {
    loop {
        let words = replica.command().expect("the stream goes on");
        let words: Vec<String> = words
            .iter()
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        if !matches!(words[0].as_str(), "PING" | "SELECT") {
            return words;
        }
    }
}

#[test]
fn a_session_on_a_copy_leaves_no_trace() {
    for threads in ["1", "3"] {
        let server = Server::ours(&["--threads", threads, "--notify-keyspace-events", "KEA"]);
        let mut other = server.client();
        other.ask("SET k before");
        other.ask("RPUSH l a b c");
        other.ask("HSET h f v");
        other.ask("SELECT 3");
        other.ask("SET in3 x PX 100000000");
        other.ask("SELECT 0");
        let mut replica = RawReplica::full(server.port).expect("a full sync");
        let mut listener = server.client();
        listener.ask("PSUBSCRIBE *");
        let digest = server.digest();
        let script = "redis.call('set','k','inside')\nredis.call('publish','news','text')\nreturn redis.call('get','k')";
        let mut session = begin(&server, "YES", script);
        assert_eq!(ask(&mut session, &["s"])[1], "<reply> \"+OK\"");
        assert_eq!(
            ask(&mut session, &["r", "get", "k"])[1],
            "<reply> \"inside\""
        );
        assert_eq!(
            other.ask("GET k").text(),
            "before",
            "others see the old value"
        );
        let lines = ask(&mut session, &["r", "lrange", "l", "0", "-1"]);
        assert_eq!(lines[1], "<reply> [\"a\",\"b\",\"c\"]");
        assert_eq!(ask(&mut session, &["r", "dbsize"])[1], "<reply> 3");
        assert_eq!(other.ask("SET new 1").text(), "OK", "others are served");
        other.ask("DEL h");
        let lines = ask(&mut session, &["r", "mget", "new", "k"]);
        assert_eq!(lines[1], "<reply> [NULL,\"inside\"]", "it sees one moment");
        assert_eq!(
            ask(&mut session, &["r", "hget", "h", "f"])[1],
            "<reply> \"v\""
        );
        other.ask("DEL new");
        other.ask("HSET h f v");
        assert_eq!(ask(&mut session, &["r", "flushall"])[1], "<reply> \"+OK\"");
        assert_eq!(ask(&mut session, &["r", "dbsize"])[1], "<reply> 0");
        ask(&mut session, &["r", "set", "left", "over"]);
        let mut end = ask(&mut session, &["c"]);
        assert_eq!(end.pop().as_deref(), Some("<endsession>"));
        assert!(matches!(session.reply(), Ok(Reply::Nil)), "its reply");
        assert!(session.rest().expect("it is closed").is_empty());
        assert_eq!(server.digest(), digest, "{threads} threads");
        other.ask("SET mark 1");
        for want in ["set new 1", "del h", "del new", "hset h f v", "set mark 1"] {
            let words = next_command(&mut replica).join(" ");
            assert_eq!(words.to_lowercase(), want, "what replicas hear");
        }
        let mut heard = Vec::new();
        listener.reply().expect("the confirmation was read");
        while heard.last().map(String::as_str) != Some("mark") {
            let push = listener.reply().expect("a message");
            heard.push(push.items()[3].text());
        }
        let about = |name: &str| heard.iter().any(|text| text == name);
        assert!(!about("k") && !about("left") && !about("text"), "{heard:?}");
    }
}

#[test]
fn a_session_on_the_dataset_holds_all_others_and_is_kept() {
    for threads in ["1", "3"] {
        let server = Server::ours(&["--threads", threads]);
        let mut other = server.client();
        other.ask("SET k before");
        let mut replica = RawReplica::full(server.port).expect("a full sync");
        let mut blocked = server.client();
        let id = blocked.ask("CLIENT ID").number().expect("a number");
        blocked.send(&["BLPOP", "queue", "0"]).expect("it reads");
        wait_for("a client that waits for an element", LIMIT, || {
            let list = other.ask("CLIENT LIST").text();
            let line = format!("id={id} ");
            let line = list.lines().find(|known| known.starts_with(&line))?;
            line.contains("cmd=blpop").then_some(())
        });
        let script = "redis.call('set','k','inside')\nredis.call('rpush','queue','y')\nreturn redis.call('get','k')";
        let mut session = begin(&server, "SYNC", script);
        let mut waiting = server.client();
        waiting.send(&["GET", "k"]).expect("it reads");
        assert_eq!(
            other.ask("PING").text(),
            "PONG",
            "what needs no key is served"
        );
        ask(&mut session, &["s"]);
        assert_eq!(
            ask(&mut session, &["r", "set", "more", "1"])[1],
            "<reply> \"+OK\""
        );
        let stream = &waiting.stream;
        stream.set_nonblocking(true).unwrap();
        let read = waiting.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(read, Err(ErrorKind::WouldBlock), "who needs a key waits");
        waiting.stream.set_nonblocking(false).unwrap();
        assert_eq!(ask(&mut session, &["c"]), ["<endsession>"]);
        assert_eq!(session.reply().unwrap().text(), "inside");
        assert_eq!(waiting.reply().unwrap().text(), "inside");
        assert_eq!(other.ask("GET more").text(), "1");
        let element = blocked.reply().expect("an element");
        assert_eq!(element.items()[1].text(), "y", "who waits is served");
        for want in [
            "multi",
            "set k inside",
            "set more 1",
            "rpush queue y",
            "exec",
            "lpop queue",
        ] {
            let words = next_command(&mut replica).join(" ");
            assert_eq!(words.to_lowercase(), want, "what replicas hear");
        }
        // An abort keeps what was done, in this mode.
        let mut session = begin(&server, "SYNC", "redis.call('set','k','again')\nreturn 1");
        ask(&mut session, &["s"]);
        assert_eq!(ask(&mut session, &["a"]), ["<endsession>"]);
        assert!(session.reply().unwrap().is_error());
        assert_eq!(other.ask("GET k").text(), "again");
    }
}

#[test]
fn a_client_that_vanishes_leaves_a_server_that_serves() {
    let scripts = [
        ("one that ends", "redis.call('set','k','1')\nreturn 1"),
        ("an endless one", "while true do end"),
        (
            "one that catches everything",
            "while true do pcall(function() while true do end end) end",
        ),
        (
            "one with a breakpoint",
            "while true do redis.breakpoint() end",
        ),
    ];
    let server = Server::ours(&["--threads", "2", "--busy-reply-threshold", "100"]);
    for mode in ["YES", "SYNC"] {
        for (name, script) in scripts {
            for is_running in [false, true] {
                let mut session = wait_for("room for a session", LIMIT, || {
                    let mut session = debugging(&server, mode);
                    let stop = session.call(&["EVAL", script, "0"]);
                    (!stop.is_error()).then_some(session)
                });
                if is_running {
                    session.send(&["c"]).expect("it reads");
                }
                drop(session);
                let mut other = server.client();
                other.stream.set_read_timeout(Some(LIMIT)).unwrap();
                let reply = other.try_call(&["SET", "other", "1"]);
                let is_served = reply.is_ok_and(|reply| reply.text() == "OK");
                assert!(is_served, "{mode}, {name}");
            }
        }
    }
    // One that is killed.
    let mut session = begin(&server, "SYNC", "return 1");
    let mut other = server.client();
    let list = other.ask("CLIENT LIST").text();
    let line = list.lines().find(|line| line.contains("cmd=eval"));
    let id = line.and_then(|line| line.strip_prefix("id=")?.split(' ').next());
    let id = id.expect("it is in the list").to_owned();
    assert_eq!(other.call(&["CLIENT", "KILL", "ID", &id]).number(), Some(1));
    assert!(session.reply().is_err());
    assert_eq!(other.ask("SET other 2").text(), "OK");
}

/// Neither the copy nor what the script makes of it makes others' keys go, or gives them room that is not there.
#[test]
fn the_memory_of_a_copy_is_nobodys_concern() {
    let server = Server::ours(&["--threads", "2"]);
    let mut other = server.client();
    let value = "v".repeat(100_000);
    let fill = |other: &mut Client, keys: std::ops::Range<usize>| {
        for key in keys {
            let reply = other.call(&["SET", &format!("k{key}"), &value]);
            assert!(!reply.is_error(), "{reply:?}");
        }
    };
    fill(&mut other, 0..100);
    let number = |other: &mut Client, name: &str| -> i64 {
        let text = other.info(name).expect("a line of INFO");
        text.parse().expect("a number")
    };
    // There is room for a hundred keys more.
    let limit = number(&mut other, "used_memory") + 10_000_000;
    other.call(&["CONFIG", "SET", "maxmemory", &limit.to_string()]);
    other.ask("CONFIG SET maxmemory-policy allkeys-lru");
    let script = "for i = 1, 400 do redis.call('set', 'n' .. i, string.rep('y', 100000)) end\nlocal x = 1\nreturn x";
    let mut session = begin(&server, "YES", script);
    ask(&mut session, &["b", "2"]);
    let lines = ask(&mut session, &["c"]);
    let stop = &lines[lines.len() - 2];
    assert!(stop.starts_with("* Stopped at 2"), "{stop}");
    fill(&mut other, 100..150);
    assert_eq!(number(&mut other, "evicted_keys"), 0, "there is room");
    fill(&mut other, 150..400);
    let keys = other.ask("DBSIZE").number().expect("a number");
    assert!((150..=220).contains(&keys), "{keys} keys in room for 200");
    ask(&mut session, &["r", "flushall"]);
    fill(&mut other, 400..500);
    let keys = other.ask("DBSIZE").number().expect("a number");
    assert!((150..=220).contains(&keys), "{keys} keys in room for 200");
    ask(&mut session, &["c"]);
    fill(&mut other, 500..600);
    let keys = other.ask("DBSIZE").number().expect("a number");
    assert!((150..=220).contains(&keys), "{keys} keys in room for 200");
}

/// What a script says between two stops is kept as far as somebody may read it.
#[test]
fn what_is_said_between_stops_has_a_limit() {
    let server = Server::ours(&[]);
    let script =
        "for i = 1, 20000 do redis.debug(string.rep('x', 1000)) end\nlocal x = 1\nreturn x";
    let mut session = begin(&server, "YES", script);
    ask(&mut session, &["b", "2"]);
    let lines = ask(&mut session, &["c"]);
    assert!((1_000..5_000).contains(&lines.len()), "{}", lines.len());
    let told = &lines[lines.len() - 3..];
    assert!(told[0].ends_with("lines more are not shown."), "{told:?}");
    assert!(told[1].starts_with("* Stopped at 2"), "{told:?}");
    ask(&mut session, &["s"]);
    assert!(ask(&mut session, &["p", "x"])[0].contains("<value>"));
}

#[test]
fn there_are_not_too_many_copies() {
    let server = Server::ours(&[]);
    let mut sessions: Vec<Client> = (0..4).map(|_| begin(&server, "YES", "return 1")).collect();
    let mut more = debugging(&server, "YES");
    let reply = more.call(&["EVAL", "return 1", "0"]);
    assert!(reply.is_error(), "{reply:?}");
    assert!(more.rest().expect("it is closed").is_empty());
    assert_eq!(ask(&mut sessions[0], &["s"]), ["<endsession>"]);
    // It counts until its copy is given up.
    wait_for("another session", LIMIT, || {
        let mut client = debugging(&server, "YES");
        let reply = client.call(&["EVAL", "return 1", "0"]);
        (!reply.is_error()).then_some(())
    });
}

#[test]
fn an_evaluation_that_does_not_end_is_ended() {
    let server = Server::ours(&["--busy-reply-threshold", "100"]);
    let mut session = begin(&server, "SYNC", "return 1");
    for code in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
    ] {
        let lines = ask(&mut session, &["e", code]);
        assert!(lines[0].starts_with("<error> "), "{lines:?}");
    }
    // An error that is a table ends redis-server.
    let lines = ask(&mut session, &["e", "redis.call('nosuch')"]);
    assert_eq!(
        lines,
        ["<error> ERR Unknown Redis command called from script"]
    );
    assert_eq!(ask(&mut session, &["s"]), ["<endsession>"]);
    assert_eq!(session.reply().unwrap().number(), Some(1));
}

#[test]
fn a_script_inside_a_transaction_is_not_debugged() {
    let server = Server::ours(&[]);
    let mut client = debugging(&server, "YES");
    client.ask("MULTI");
    assert!(client.call(&["EVAL", "return 1", "0"]).is_error());
    assert!(client.call(&["EXEC"]).is_error());
    client.call(&["SCRIPT", "DEBUG", "NO"]);
    assert_eq!(client.call(&["EVAL", "return 1", "0"]).number(), Some(1));
}

/// What redis-cli prints in a session, with these lines as its input.
fn with_cli(server: &Server, option: &str, script: &str, input: &str) -> String {
    let path = server.folder().join("script.lua");
    std::fs::write(&path, script).expect("a script");
    let mut cli = Command::new("redis-cli")
        .args(["-p", &server.port.to_string(), option, "--eval"])
        .arg(path)
        .args(["key", ",", "arg"])
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("redis-cli runs");
    let mut stdin = cli.stdin.take().expect("its input");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = cli.wait_with_output().expect("it ends");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).replace(&server.port.to_string(), "PORT")
}

#[test]
fn redis_cli_shows_the_same() {
    if !has_program("redis-server") || !has_program("redis-cli") {
        return;
    }
    let (redis, ours) = (Server::redis(&[]), Server::ours(&["--threads", "2"]));
    let script = "local a = 1\nredis.call('set',KEYS[1],ARGV[1])\nredis.debug('here', a)\nreturn redis.call('get',KEYS[1])\n";
    let inputs = [
        "w\ns\np\ns\nb 4\nc\nt\ne a + 1\nr get key\nc\n",
        "help\nabort\n",
        "s\nrestart\ns\ns\ns\nc\n",
        "s\nquit\n",
        "s\n",
    ];
    for option in ["--ldb", "--ldb-sync-mode"] {
        for input in inputs {
            let [theirs, ours] =
                [&redis, &ours].map(|server| with_cli(server, option, script, input));
            assert_eq!(ours, theirs, "{option} {input:?}");
            assert!(ours.contains("Stopped at 1"), "{ours}");
        }
    }
}
