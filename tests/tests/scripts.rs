//! Scripts and functions, as clients and replicas see them, beside a real server.

use std::time::Duration;

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::process::{Server, has_program};
use dfsnap_tests::wait_for;

const ONE_LINE: &str = include_str!("scripts/one_line.txt");
const COMMANDS: &str = include_str!("scripts/commands.txt");

/// The lines of a file that are not comments.
fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The words of a line, each in quotes with `\\`, `\"` and `\n`.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut chars = line.chars();
    while let Some(quote) = chars.next() {
        if quote != '"' {
            continue;
        }
        let mut word = String::new();
        while let Some(c) = chars.next().filter(|c| *c != '"') {
            match c {
                '\\' => match chars.next().expect("an escaped character") {
                    'n' => word.push('\n'),
                    other => word.push(other),
                },
                c => word.push(c),
            }
        }
        words.push(word);
    }
    words
}

/// The bytes that a server replies.
fn raw(client: &mut Client, words: &[String]) -> String {
    client.send(words).expect("the server reads");
    client
        .send(&["PING", "~~mark~~"])
        .expect("the server reads");
    let mut bytes = Vec::new();
    let mark = b"$8\r\n~~mark~~\r\n";
    while !bytes.ends_with(mark) {
        let mut chunk = [0; 4096];
        let read = client.read(&mut chunk).expect("the server answers");
        assert!(read > 0, "the server hung up at {words:?}");
        bytes.extend_from_slice(&chunk[..read]);
    }
    bytes.truncate(bytes.len() - mark.len());
    bytes.escape_ascii().to_string()
}

#[test]
fn replies_are_those_of_redis() {
    if !has_program("redis-server") {
        println!("redis-server is not installed: nothing to compare with");
        return;
    }
    let one_line = lines(ONE_LINE).map(|line| vec!["EVAL".into(), line.into(), "0".into()]);
    let bank: Vec<Vec<String>> = one_line.chain(lines(COMMANDS).map(words)).collect();
    let redis = Server::redis(&[]);
    for threads in ["1", "2"] {
        let ours = Server::ours(&["--threads", threads]);
        for protocol in ["2", "3"] {
            let mut clients = [redis.client(), ours.client()];
            for client in &mut clients {
                for line in ["FLUSHALL", "FUNCTION FLUSH", "SCRIPT FLUSH"] {
                    client.ask(line);
                }
                let hello = ["HELLO".to_owned(), protocol.to_owned()];
                raw(client, &hello);
            }
            let mut differences = Vec::new();
            for words in &bank {
                let [theirs, ours] = clients.each_mut().map(|client| raw(client, words));
                if theirs != ours {
                    differences.push(format!("{words:?}\n  redis {theirs}\n   ours {ours}"));
                }
            }
            assert!(
                differences.is_empty(),
                "{threads} threads, RESP{protocol}, {} of {}:\n{}",
                differences.len(),
                bank.len(),
                differences.join("\n")
            );
        }
    }
}

fn eval(client: &mut Client, script: &str, keys: &[&str]) -> Reply {
    let count = keys.len().to_string();
    let mut words = vec!["EVAL", script, &count];
    words.extend(keys);
    client.call(&words)
}

#[test]
fn a_script_reaches_keys_of_all_shards_declared_or_not() {
    let server = Server::ours(&["--threads", "3"]);
    let mut client = server.client();
    for n in 0..20 {
        let (a, b) = (format!("a:{n}"), format!("b:{n}"));
        let declared = "redis.call('set',KEYS[1],'1') return redis.call('incrby',KEYS[2],'5')";
        assert_eq!(eval(&mut client, declared, &[&a, &b]).number(), Some(5));
        let undeclared = format!(
            "local x = redis.call('get',KEYS[1]) redis.call('set','u:{n}',x) return redis.call('get','u:{n}')"
        );
        assert_eq!(eval(&mut client, &undeclared, &[&a]).text(), "1");
        assert_eq!(eval(&mut client, &undeclared, &[&a]).text(), "1", "again");
        let keyless = format!("return redis.call('mget','a:{n}','b:{n}','u:{n}')");
        assert_eq!(eval(&mut client, &keyless, &[]).items().len(), 3);
    }
    // What it has written before is put back, and is done again with all shards: once in the end.
    let late = "local n = redis.call('incr',KEYS[1]) redis.call('rpush',KEYS[2],n) \
                return {n, redis.call('llen',KEYS[2]), redis.call('get','other:' .. KEYS[1])}";
    for n in 0..20 {
        let (a, b) = (format!("late:{n}"), format!("list:{n}"));
        client.ask(&format!("RPUSH {b} first"));
        let script = format!("{late} -- {n}");
        let reply = eval(&mut client, &script, &[&a, &b]);
        assert_eq!(
            reply.items(),
            [Reply::Int(1), Reply::Int(2), Reply::Nil],
            "{a}"
        );
        let list = client.ask(&format!("LRANGE {b} 0 -1"));
        assert_eq!(list.items()[1].text(), "1");
    }
    // What others have heard cannot be taken back. The next run begins with all shards.
    let told = "redis.call('publish','c','m') redis.call('set',KEYS[1],'x') return redis.call('get','other:' .. KEYS[1])";
    let is_refused =
        |reply: &Reply| matches!(reply, Reply::Error(text) if text.contains("did not declare"));
    assert!(is_refused(&eval(&mut client, told, &["told:1"])));
    assert_eq!(eval(&mut client, told, &["told:1"]), Reply::Nil);
    client.ask("MULTI");
    eval(
        &mut client,
        "return redis.call('set',KEYS[1],'in')",
        &["m:1"],
    );
    eval(&mut client, "return redis.call('get','m:1')", &["m:2"]);
    client.ask("GET m:1");
    let block = client.ask("EXEC");
    assert_eq!(block.items()[1].text(), "in");
    assert_eq!(block.items()[2].text(), "in");
}

#[test]
fn replicas_get_what_a_script_did() {
    for replica_is_redis in [false, true] {
        let primary = Server::ours(&["--threads", "2"]);
        let replica = if replica_is_redis {
            Server::redis(&[])
        } else {
            Server::ours(&["--threads", "2"])
        };
        let mut client = primary.client();
        client.call(&[
            "FUNCTION",
            "LOAD",
            "#!lua name=early\nredis.register_function('early', function() return 1 end)",
        ]);
        let mut reader = replica.client();
        reader.ask(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        wait_for("the link", Duration::from_secs(20), || {
            reader
                .ask("INFO replication")
                .text()
                .contains("master_link_status:up")
                .then_some(())
        });
        let random = "for i=1,50 do redis.call('sadd','s',math.random(1,1000)) redis.call('spop','s') redis.call('incr','n') end";
        eval(&mut client, random, &[]);
        eval(
            &mut client,
            "redis.call('set','t',redis.call('time')[1]) error('late')",
            &[],
        );
        eval(
            &mut client,
            "redis.call('select',3) redis.call('set','in3',1)",
            &[],
        );
        eval(
            &mut client,
            "redis.set_repl(redis.REPL_NONE) redis.call('set','gone',1) redis.call('del','gone') redis.set_repl(redis.REPL_ALL) redis.call('set','kept',1)",
            &["gone", "kept"],
        );
        client.call(&[
            "FUNCTION",
            "LOAD",
            "#!lua name=late\nredis.register_function('late', function(keys) return redis.call('incr',keys[1]) end)",
        ]);
        client.call(&["FCALL", "late", "1", "counted"]);
        wait_for("the same data", Duration::from_secs(20), || {
            let has_late = reader.call(&["FUNCTION", "LIST"]).items().len() == 2;
            (has_late && primary.digest() == replica.digest()).then_some(())
        });
        let refused = reader.call(&["FCALL", "late", "1", "counted"]);
        assert!(matches!(refused, Reply::Error(text) if text.starts_with("READONLY")));
        let refused = eval(&mut reader, "return redis.call('set','x',1)", &["x"]);
        assert!(matches!(refused, Reply::Error(text) if text.starts_with("READONLY")));
        assert_eq!(
            eval(&mut reader, "return redis.call('get','n')", &["n"]).text(),
            "50"
        );
    }
}

#[test]
fn libraries_are_in_the_dump_and_in_payloads() {
    let mut server = Server::ours(&["--threads", "2"]);
    let mut client = server.client();
    let code = "#!lua name=lib\nredis.register_function('f', function(keys) return redis.call('incr',keys[1]) end)";
    assert_eq!(client.call(&["FUNCTION", "LOAD", code]).text(), "lib");
    client.ask("SAVE");
    client.ask("FUNCTION FLUSH");
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.call(&["FCALL", "f", "1", "k"]).number(), Some(1));
    client.ask("DEBUG RELOAD");
    assert_eq!(client.call(&["FCALL", "f", "1", "k"]).number(), Some(2));
    client.ask("FLUSHALL");
    assert_eq!(client.call(&["FCALL", "f", "1", "k"]).number(), Some(1));
    if has_program("redis-server") {
        // The real server loads our dump.
        client.ask("SAVE");
        let redis = Server::redis(&[]);
        let mut theirs = redis.client();
        std::fs::copy(server.dump(), redis.dump()).expect("the dump is copied");
        theirs.ask("DEBUG RELOAD NOSAVE");
        assert_eq!(theirs.call(&["FCALL", "f", "1", "k"]).number(), Some(2));
    }
}

#[test]
fn a_script_that_does_not_end_can_be_ended() {
    // Whoever asks for its end may sit on the thread that the script holds.
    for threads in ["1", "2"] {
        end_scripts(&Server::ours(&[
            "--threads",
            threads,
            "--busy-reply-threshold",
            "50",
        ]));
    }
}

/// A connection that the server has taken.
fn served(server: &Server) -> Client {
    let mut client = server.client();
    assert_eq!(client.call(&["PING"]).text(), "PONG");
    client
}

fn end_scripts(server: &Server) {
    let mut asker = served(server);
    for script in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local f = function() while true do end end while true do coroutine.wrap(f)() end",
    ] {
        // A thread that a script holds takes no new connections.
        let (mut runner, mut other) = (served(server), served(server));
        let runs_elsewhere = |client: &mut Client| {
            client
                .send(&["EVAL", script, "0"])
                .expect("the server reads");
        };
        runs_elsewhere(&mut runner);
        let mut killer = None;
        wait_for("BUSY", Duration::from_secs(20), || {
            for client in [&mut asker, &mut other] {
                let reply = client.call(&["PING"]);
                if matches!(&reply, Reply::Error(text) if text.starts_with("BUSY")) {
                    killer = Some(client.call(&["SCRIPT", "KILL"]));
                    return Some(());
                }
            }
            None
        });
        assert_eq!(killer.expect("somebody asked").text(), "OK", "{script}");
        let end = runner.reply().expect("the script's end");
        assert!(
            matches!(&end, Reply::Error(text) if text.starts_with("ERR Script killed by user with SCRIPT KILL.")),
            "{script}: {end:?}"
        );
        assert_eq!(asker.call(&["PING"]).text(), "PONG");
    }
    let not_busy = asker.call(&["SCRIPT", "KILL"]);
    assert!(matches!(not_busy, Reply::Error(text) if text.starts_with("NOTBUSY")));
}

/// HELLO used to wait for the script's end.
#[test]
fn a_client_of_a_held_thread_can_introduce_itself() {
    let server = Server::ours(&["--busy-reply-threshold", "50", "--threads", "1"]);
    let (mut runner, mut other) = (served(&server), served(&server));
    let words = ["EVAL", "while true do end", "0"];
    runner.send(&words).expect("the server reads");
    wait_for("BUSY", Duration::from_secs(20), || {
        other.call(&["PING"]).is_error().then_some(())
    });
    let wrong = other.call(&["HELLO", "3", "SETNAME", "a b"]);
    assert!(matches!(&wrong, Reply::Error(text) if text.starts_with("ERR Client names")));
    let hello = other.call(&["HELLO", "3", "SETNAME", "me"]);
    assert_eq!(hello.items()[0].text(), "server");
    assert!(other.call(&["GET", "a"]).is_error());
    assert_eq!(other.call(&["SCRIPT", "KILL"]).text(), "OK");
    assert!(runner.reply().expect("the script's end").is_error());
    assert_eq!(other.call(&["CLIENT", "GETNAME"]).text(), "me");
    // It speaks the new protocol from then on: a map.
    other
        .send(&["CONFIG", "GET", "maxmemory"])
        .expect("the server reads");
    assert_eq!(other.line().expect("a line"), "%1");
}

#[test]
fn shutdown_nosave_ends_a_server_whose_script_does_not() {
    for threads in ["1", "2"] {
        let mut server = Server::ours(&["--threads", threads, "--busy-reply-threshold", "50"]);
        let mut clients = [served(&server), served(&server)];
        let mut runner = served(&server);
        let script = "redis.call('set',KEYS[1],'v') while true do end";
        let words = ["EVAL", script, "1", "k"];
        runner.send(&words).expect("the server reads");
        for client in &mut clients {
            wait_for("BUSY", Duration::from_secs(20), || {
                let reply = client.call(&["PING"]);
                matches!(reply, Reply::Error(text) if text.starts_with("BUSY")).then_some(())
            });
            let refused = client.call(&["SCRIPT", "KILL"]);
            assert!(matches!(refused, Reply::Error(text) if text.starts_with("UNKILLABLE")));
        }
        let [first, _] = &mut clients;
        let _ = first.try_call(&["SHUTDOWN", "NOSAVE"]);
        server.wait_until_ended(Duration::from_secs(20));
    }
}

#[test]
fn scripts_write_no_more_than_clients_may() {
    let rules = ["--save", "3600", "100000", "--dbfilename", "taken.rdb"];
    let server = Server::ours(&rules);
    std::fs::create_dir(server.folder().join("taken.rdb")).expect("a folder in the way");
    let mut client = server.client();
    let said = |reply: Reply| match reply {
        Reply::Error(text) => text,
        reply => reply.text(),
    };
    wait_for("a save that failed", Duration::from_secs(20), || {
        client.call(&["BGSAVE"]);
        let refused = said(client.call(&["SET", "k", "v"]));
        refused.starts_with("MISCONF").then_some(())
    });
    let script = "return redis.call('set',KEYS[1],'v')";
    let refused = said(eval(&mut client, script, &["k"]));
    assert!(
        refused.starts_with("MISCONF Redis is configured"),
        "{refused}"
    );
    let refused = said(eval(&mut client, &format!("#!lua\n{script}"), &["k"]));
    assert!(
        refused.contains("Writable scripts are blocked"),
        "{refused}"
    );
    let reads = "#!lua flags=no-writes\nreturn redis.call('type',KEYS[1])['ok']";
    assert!(!said(eval(&mut client, reads, &["k"])).starts_with("MISCONF"));
}

/// Rust can hold some 8 000 values of an interpreter: the next script was refused when each known one was such a value.
#[test]
fn any_number_of_scripts_can_be_known() {
    let server = Server::ours(&["--threads", "1"]);
    let mut client = server.client();
    for n in 0..10_000 {
        let script = format!("return {n} + #KEYS");
        client.send(&["EVAL", &script, "1", "k"]).unwrap();
        assert_eq!(client.reply().unwrap(), Reply::Int(n + 1), "{n}");
    }
    let reply = client.ask("INFO memory").text();
    assert!(reply.contains("number_of_cached_scripts:10000"), "{reply}");
}
