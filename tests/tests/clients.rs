//! Tools and libraries made for Redis work against the server unmodified, and nonsense gets what a real server says to it.

use std::collections::HashMap;
use std::net::Shutdown;
use std::process::{Command, Stdio};

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::dump::Dump;
use dfsnap_tests::process::{Server, has_program};
use redis::Commands;

/// Runs a program against the server; what it printed on both outputs.
fn output_of(server: &Server, program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(["-p", &server.port.to_string()])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}: {text}",
        output.status
    );
    text
}

/// Some keys of every type, and a biggest of each.
fn fill(client: &mut Client) {
    for i in 0..300 {
        client.ask(&format!("SET string:{i} {}", "x".repeat(i + 1)));
        client.ask(&format!("HSET hash:{} field:{i} {i}", i % 7));
        client.ask(&format!("RPUSH list:{} {i}", i % 5));
        client.ask(&format!("SADD set:{} {i}", i % 3));
        client.ask(&format!("ZADD zset:{} {i} member:{i}", i % 4));
        client.ask(&format!("XADD stream * field {i}"));
    }
}

const KEYS: usize = 300 + 7 + 5 + 3 + 4 + 1;

#[test]
fn redis_cli_finds_big_keys() {
    if !has_program("redis-cli") {
        return;
    }
    let server = Server::ours(&["--threads", "2"]);
    fill(&mut server.client());
    let text = output_of(&server, "redis-cli", &["--bigkeys"]);
    for wanted in [
        &format!("Sampled {KEYS} keys in the keyspace!"),
        "Biggest string found '\"string:299\"' has 300 bytes",
        "Biggest   list found",
        "has 60 items",
        "Biggest stream found '\"stream\"' has 300 entries",
    ] {
        assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
    }
    let text = output_of(&server, "redis-cli", &["--memkeys"]);
    assert!(
        text.contains(&format!("Sampled {KEYS} keys in the keyspace!")),
        "{text}"
    );
    let text = output_of(&server, "redis-cli", &["--scan", "--pattern", "hash:*"]);
    assert_eq!(text.lines().count(), 7, "{text}");
}

#[test]
fn redis_cli_takes_a_dump() {
    if !has_program("redis-cli") {
        return;
    }
    let server = Server::ours(&["--threads", "2"]);
    fill(&mut server.client());
    let path = server.folder().join("copy.rdb");
    output_of(
        &server,
        "redis-cli",
        &["--rdb", path.to_str().expect("a text")],
    );
    let dump = Dump::read(&path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(dump.keys.len(), KEYS);
    let digest = dump.digest(dfsnap_formats::digest::ScoreForm::Legacy);
    assert_eq!(digest, server.digest());
}

#[test]
fn redis_benchmark_runs() {
    if !has_program("redis-benchmark") {
        return;
    }
    let server = Server::ours(&["--threads", "2"]);
    let tests =
        "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset";
    for pipeline in ["1", "16"] {
        let args = [
            "-q", "-n", "2000", "-r", "1000", "-c", "20", "-P", pipeline, "-t", tests,
        ];
        let text = output_of(&server, "redis-benchmark", &args);
        let results = text.matches("requests per second").count();
        assert!(
            results >= 15 && !text.contains("rror"),
            "{results} results:\n{text}"
        );
    }
}

#[test]
fn the_redis_crate_is_served_in_both_protocols() {
    let server = Server::ours(&["--threads", "2"]);
    for protocol in ["resp2", "resp3"] {
        let url = format!("redis://127.0.0.1:{}/0?protocol={protocol}", server.port);
        let client = redis::Client::open(url).expect("an address");
        let mut connection = client.get_connection().expect("a connection");
        let () = connection.set("name", "value").expect("SET");
        let value: Option<String> = connection.get("name").expect("GET");
        assert_eq!(value.as_deref(), Some("value"), "{protocol}");
        let () = connection
            .hset_multiple("map", &[("a", 1), ("b", 2)])
            .expect("HSET");
        let map: HashMap<String, i64> = connection.hgetall("map").expect("HGETALL");
        assert_eq!(
            map,
            HashMap::from([("a".into(), 1), ("b".into(), 2)]),
            "{protocol}"
        );
        let () = connection.zadd("ranks", "one", 1.5).expect("ZADD");
        let ranks: Vec<(String, f64)> = connection
            .zrange_withscores("ranks", 0, -1)
            .expect("ZRANGE");
        assert_eq!(ranks, [("one".to_owned(), 1.5)], "{protocol}");
        let mut pipe = redis::pipe();
        pipe.atomic()
            .incr("count", 1)
            .ignore()
            .incr("count", 1)
            .del("count");
        let (count, gone): (i64, i64) = pipe.query(&mut connection).expect("a block");
        assert_eq!((count, gone), (2, 1), "{protocol}");
        let keys: Vec<String> = connection
            .scan_match("na*")
            .expect("SCAN")
            .map(|key| key.expect("a key"))
            .collect();
        assert_eq!(keys, ["name"], "{protocol}");
        let error = connection
            .lpush::<_, _, i64>("name", 1)
            .expect_err("a string is no list");
        assert_eq!(error.code(), Some("WRONGTYPE"), "{protocol}");
    }
}

/// Sends bytes and nothing more; all that comes back until the server closes.
fn answer(server: &Server, bytes: &[u8]) -> String {
    let mut client = server.client();
    client.send_raw(bytes).expect("sent");
    // A server that has closed already has no other half to close.
    let _ = client.stream.shutdown(Shutdown::Write);
    let rest = client.rest().unwrap_or_default();
    String::from_utf8_lossy(&rest).into_owned()
}

#[test]
fn malformed_requests_get_what_a_real_server_answers() {
    let ours = Server::ours(&["--threads", "2"]);
    let redis = has_program("redis-server").then(|| Server::redis(&[]));
    let long = "x".repeat(70_000);
    let ok = "+PONG\r\n";
    let rows: [(&str, &[u8], &str); 29] = [
        ("a request", b"*1\r\n$4\r\nPING\r\n", ok),
        ("an inline request", b"PING\r\n", ok),
        ("a line without CR", b"PING\n", ok),
        ("empty lines", b"\r\n\r\nPING\r\n", ok),
        ("an empty array", b"*0\r\nPING\r\n", ok),
        ("a null array", b"*-1\r\nPING\r\n", ok),
        ("quotes", b"ECHO \"a\\x41\\n\"\r\n", "$3\r\naA\n\r\n"),
        ("single quotes", b"ECHO 'a\\'b'\r\n", "$3\r\na'b\r\n"),
        (
            "open quotes",
            b"ECHO \"a\r\nPING\r\n",
            "-ERR Protocol error: unbalanced quotes in request\r\n",
        ),
        (
            "text behind quotes",
            b"ECHO \"a\"b\r\nPING\r\n",
            "-ERR Protocol error: unbalanced quotes in request\r\n",
        ),
        (
            "letters for a count",
            b"*a\r\nPING\r\n",
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            "a leading zero",
            b"*01\r\nPING\r\n",
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            "a blank",
            b"* 1\r\nPING\r\n",
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            "too many words",
            b"*2147483648\r\n",
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            "letters for a length",
            b"*1\r\n$abc\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            "a negative length",
            b"*1\r\n$-1\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            "a length over 512 MB",
            b"*1\r\n$536870913\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            "a line for a word",
            b"*1\r\n+PING\r\n",
            "-ERR Protocol error: expected '$', got '+'\r\n",
        ),
        (
            "a word after the error",
            b"*1\r\n$4\r\nPING\r\n*1\r\nx\r\n",
            "+PONG\r\n-ERR Protocol error: expected '$', got 'x'\r\n",
        ),
        (
            "a line without end",
            long.as_bytes(),
            "-ERR Protocol error: too big inline request\r\n",
        ),
        (
            "a browser",
            b"POST / HTTP/1.1\r\nHost: x\r\n\r\nPING\r\n",
            "",
        ),
        ("half a request", b"*2\r\n$3\r\nGET\r\n$3\r\nk", ""),
        (
            "two bytes that are not read",
            b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n",
            "+PONG\r\n+PONG\r\n",
        ),
        (
            "an unknown command",
            b"NoSuch x 'y z'\r\n",
            "-ERR unknown command 'NoSuch', with args beginning with: 'x' 'y z' \r\n",
        ),
        (
            "an unknown subcommand",
            b"config foo\r\n",
            "-ERR unknown subcommand 'foo'. Try CONFIG HELP.\r\n",
        ),
        (
            "too few words",
            b"GET\r\n",
            "-ERR wrong number of arguments for 'get' command\r\n",
        ),
        (
            "too few words for a subcommand",
            b"CONFIG GET\r\n",
            "-ERR wrong number of arguments for 'config|get' command\r\n",
        ),
        (
            "a container alone",
            b"client\r\n",
            "-ERR wrong number of arguments for 'client' command\r\n",
        ),
        (
            "EXEC alone",
            b"EXEC\r\nDISCARD\r\n",
            "-ERR EXEC without MULTI\r\n-ERR DISCARD without MULTI\r\n",
        ),
    ];
    for (name, bytes, want) in rows {
        assert_eq!(answer(&ours, bytes), want, "{name}");
        if let Some(redis) = &redis {
            assert_eq!(answer(redis, bytes), want, "{name}, of a real server");
        }
    }
    assert_eq!(ours.client().ask("PING").text(), "PONG");
}

fn resident_bytes(server: &Server) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("its status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    let kilobytes: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kilobytes << 10
}

#[test]
fn huge_declared_lengths_reserve_nothing() {
    let server = Server::ours(&["--threads", "2"]);
    let before = resident_bytes(&server);
    let requests: [&[u8]; 4] = [
        b"*2147483647\r\n$3\r\nSET\r\n",
        b"*3\r\n$3\r\nSET\r\n$536870912\r\nabc",
        b"*2\r\n$536870911\r\nabc",
        b"*1048576\r\n$536870912\r\nabc",
    ];
    let clients: Vec<Client> = (0..100)
        .map(|i| {
            let mut client = server.client();
            client.send_raw(requests[i % requests.len()]).expect("sent");
            client
        })
        .collect();
    // Both threads have read what was sent before.
    for _ in 0..20 {
        assert_eq!(server.client().ask("PING").text(), "PONG");
    }
    let grown = resident_bytes(&server).saturating_sub(before);
    assert!(
        grown < 64 << 20,
        "{} connections took {grown} bytes",
        clients.len()
    );
    for words in [
        vec!["SETRANGE", "k", "536870911", "ab"],
        vec!["SETBIT", "k", "4294967296", "1"],
        vec!["RESTORE", "k", "0", "\u{1}\u{1}"],
        vec!["LMPOP", "99999999999", "l", "LEFT"],
        vec!["SRANDMEMBER", "none", "-9223372036854775808"],
    ] {
        let reply = server.client().call(&words);
        assert!(
            reply.is_error() || reply == Reply::Array(Vec::new()),
            "{words:?}: {reply:?}"
        );
    }
}

#[test]
fn config_and_info_are_in_the_form_that_tools_parse() {
    let server = Server::ours(&[]);
    let mut client = server.client();
    let config = client.ask("CONFIG GET *");
    let pairs: HashMap<String, String> = config
        .items()
        .chunks(2)
        .map(|pair| (pair[0].text(), pair[1].text()))
        .collect();
    assert!(pairs.len() > 150, "{} settings", pairs.len());
    for (name, want) in [
        ("maxmemory", "0"),
        ("databases", "16"),
        ("zset-max-listpack-entries", "128"),
    ] {
        assert_eq!(pairs.get(name).map(String::as_str), Some(want), "{name}");
    }
    client.ask("CONFIG SET maxmemory 100mb");
    assert_eq!(
        client.ask("CONFIG GET maxmemory").items()[1].text(),
        "104857600"
    );
    assert!(client.call(&["CONFIG", "SET", "maxmemory", "x"]).is_error());
    client.ask("SET k v");
    let info = client.ask("INFO everything").text();
    let mut sections = Vec::new();
    for line in info.split("\r\n").filter(|line| !line.is_empty()) {
        match line.strip_prefix("# ") {
            Some(section) => sections.push(section),
            None => assert!(
                line.split_once(':')
                    .is_some_and(|(name, _)| !name.contains(' ')),
                "{line:?}"
            ),
        }
    }
    for section in [
        "Server",
        "Clients",
        "Memory",
        "Persistence",
        "Stats",
        "Replication",
        "CPU",
        "Keyspace",
    ] {
        assert!(
            sections.contains(&section),
            "{section} is not among {sections:?}"
        );
    }
    let keyspace = client.ask("INFO keyspace").text();
    assert_eq!(keyspace, "# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n");
}
