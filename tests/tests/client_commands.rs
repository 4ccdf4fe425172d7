//! CLIENT and what watches clients: tracking, pause, replies switched off, MONITOR, SLOWLOG, LATENCY; compared with a real server where
//! it can be.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::process::{Server, has_program};
use dfsnap_tests::wait_for;

const LIMIT: Duration = Duration::from_secs(20);

/// Sends a line and reads so many replies.
fn read(client: &mut Client, line: &str, replies: usize) -> Vec<Reply> {
    let words: Vec<&str> = line.split_whitespace().collect();
    client.send(&words).expect("a server that reads");
    (0..replies)
        .map(|_| {
            client
                .reply()
                .unwrap_or_else(|error| panic!("{line}: {error}"))
        })
        .collect()
}

/// Runs lines against both servers, each with as many replies as `name> line` has `>`, and compares.
fn compare(title: &str, script: &str, threads: &str) {
    if !has_program("redis-server") {
        return;
    }
    let servers = [Server::redis(&[]), Server::ours(&["--threads", threads])];
    let told = servers.each_ref().map(|server| {
        let mut clients = std::collections::BTreeMap::new();
        let mut told = Vec::new();
        for line in script
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            let end = line.find('>').expect("name> command");
            let (name, rest) = line.split_at(end);
            let command = rest.trim_start_matches('>');
            let replies = rest.len() - command.len();
            let client = clients.entry(name.to_owned()).or_insert_with(|| {
                let mut client = server.client();
                let limit = client.stream.set_read_timeout(Some(LIMIT));
                limit.expect("a limit");
                if name.ends_with('3') {
                    client.call(&["HELLO", "3"]);
                }
                client
            });
            // `?` reads what came by itself.
            let got = match command.trim() {
                "?" => {
                    let reply = client.reply();
                    vec![reply.unwrap_or_else(|error| panic!("{title}: {error} after {told:?}"))]
                }
                command => read(client, command, replies - 1),
            };
            told.push((line.to_owned(), got));
        }
        told
    });
    for (wanted, got) in told[0].iter().zip(&told[1]) {
        assert_eq!(got, wanted, "{title}");
    }
}

#[test]
fn tracking_tells_of_what_was_read() {
    let script = "
        w>> SET a 1
        c3>> CLIENT TRACKING on
        c3>> GET a
        c3>> MGET a b c
        w>> SET a 2
        c3> ?
        w>> SET a 3
        c3>> GET a
        w>> DEL a b
        c3> ?
        c3>> GET a
        c3>>> SET a 4
        w>> HSET h f 1
        c3>> HGETALL h
        w>> EXPIRE h 100
        c3> ?
        c3>> HGETALL h
        w>> FLUSHALL
        c3> ?
        c3>> TTL none
        c3>> CLIENT TRACKINGINFO
        c3>> CLIENT GETREDIR
        c3>> CLIENT TRACKING off
        c3>> CLIENT TRACKINGINFO
        c3>> GET a
        w>> SET a 1
        c3>> CLIENT TRACKING on NOLOOP
        c3>> GET a
        c3>> SET a 5
        c3>> GET a
        w>> SET a 6
        c3> ?
        c3>> CLIENT TRACKING off
        c3>> CLIENT TRACKING on BCAST PREFIX x: PREFIX y:
        c3>> CLIENT TRACKING on BCAST PREFIX z: PREFIX x:1
        c3>> CLIENT TRACKING on BCAST PREFIX z:
        c3>> CLIENT TRACKINGINFO
        c3>> CLIENT TRACKING on
        w>> SET other 1
        w>> SET x:1 1
        c3> ?
        w>> SET z:1 1
        c3> ?
        c3>> CLIENT TRACKING off
        c3>> CLIENT TRACKING on OPTIN
        c3>> GET other
        w>> SET other 2
        c3>> CLIENT CACHING no
        c3>> CLIENT CACHING yes
        c3>> CLIENT TRACKINGINFO
        c3>> CLIENT CACHING yes
        c3>> GET other
        c3>> GET x:1
        w>> SET x:1 2
        w>> SET other 3
        c3> ?
        c3>> CLIENT TRACKING on OPTOUT
        c3>> CLIENT TRACKING off
        c3>> CLIENT TRACKING on OPTOUT
        c3>> CLIENT CACHING no
        c3>> GET other
        c3>> GET x:1
        w>> SET other 4
        w>> SET x:1 3
        c3> ?
        c3>> MULTI
        c3>> GET x:1
        c3>> EXEC
        w>> RENAME x:1 x:2
        c3> ?
    ";
    for threads in ["1", "4"] {
        compare("tracking", script, threads);
    }
}

#[test]
fn tracking_is_redirected_to_an_old_protocol() {
    let server = Server::ours(&["--threads", "2"]);
    let (mut listener, mut client, mut writer) =
        (server.client(), server.client(), server.client());
    let id = listener.ask("CLIENT ID").number().expect("an id");
    read(&mut listener, "SUBSCRIBE __redis__:invalidate", 1);
    client.ask(&format!("CLIENT TRACKING on REDIRECT {id}"));
    assert_eq!(client.ask("CLIENT GETREDIR"), Reply::Int(id));
    client.call(&["GET", "a"]);
    writer.ask("SET a 1");
    let message = listener.reply().unwrap();
    assert_eq!(message.items()[1].text(), "__redis__:invalidate");
    assert_eq!(message.items()[2].items()[0].text(), "a");
    drop(listener);
    wait_for("the target is gone", LIMIT, || {
        let info = client.ask("CLIENT TRACKINGINFO");
        let flags = info.items()[1].items().to_vec();
        flags
            .contains(&Reply::Text(b"broken_redirect".to_vec()))
            .then_some(())
    });
}

/// Such a client used to get a message amid its replies; and what was read before everything went counted on while nobody tracked.
#[test]
fn an_old_protocol_hears_only_as_a_subscriber_and_nothing_outlives_flushall() {
    for threads in ["1", "2"] {
        let server = Server::ours(&["--threads", threads]);
        let (mut client, mut writer) = (server.client(), server.client());
        client.ask("CLIENT TRACKING on");
        client.call(&["GET", "a"]);
        writer.ask("SET a 1");
        assert_eq!(client.ask("PING").text(), "PONG");
        client.call(&["GET", "a"]);
        assert_eq!(client.info("tracking_total_keys").as_deref(), Some("1"));
        client.ask("CLIENT TRACKING off");
        writer.ask("FLUSHALL");
        assert_eq!(client.info("tracking_total_keys").as_deref(), Some("0"));
    }
}

#[test]
fn commands_go_by_the_names_that_they_are_given() {
    if !has_program("redis-server") {
        return;
    }
    let args = [
        "--rename-command",
        "FLUSHDB",
        "badger",
        "--rename-command",
        "PTTL",
        "",
        "--rename-command",
        "CONFIG",
        "b840fc02d524045429941cc15f59e41cb7be6c52",
        "--save",
        "",
    ];
    let ours: Vec<&str> = args.iter().copied().chain(["--threads", "2"]).collect();
    let mut clients =
        [Server::redis(&args), Server::ours(&ours)].map(|server| (server.client(), server));
    for line in [
        "SET a 1",
        "FLUSHDB",
        "BADGER a b c",
        "badger",
        "DBSIZE",
        "PTTL a",
        "CONFIG GET port",
        "B840fc02d524045429941cc15f59e41cb7be6c52 GET maxmemory",
        "COMMAND INFO flushdb",
        "COMMAND INFO pttl",
        "EVAL return^redis.pcall('pttl',KEYS[1]) 1 a",
        "EVAL return^redis.pcall('badger') 1 a",
    ] {
        let [theirs, ours] = clients.each_mut().map(|(client, _)| {
            let words: Vec<String> = line.split(' ').map(|word| word.replace('^', " ")).collect();
            client.call(&words)
        });
        assert_eq!(theirs, ours, "{line}");
    }
    // The number of commands is less by one.
    let [(_, _), (ours, server)] = &mut clients;
    let all = Server::ours(&[])
        .client()
        .ask("COMMAND COUNT")
        .number()
        .expect("a number");
    assert_eq!(ours.ask("COMMAND COUNT").number(), Some(all - 1));
    assert!(server.is_running());
}

#[test]
fn refusals_are_those_of_redis() {
    compare(
        "refusals",
        "
        c>> CLIENT TRACKING on REDIRECT 999
        c>> CLIENT TRACKING on REDIRECT x
        c>> CLIENT TRACKING on PREFIX a
        c>> CLIENT TRACKING on BCAST OPTIN
        c>> CLIENT TRACKING on OPTIN OPTOUT
        c>> CLIENT TRACKING on BCAST PREFIX a PREFIX ab
        c>> CLIENT TRACKING foo
        c>> CLIENT TRACKING on foo
        c>> CLIENT TRACKING
        c>> CLIENT CACHING yes
        c>> CLIENT GETREDIR
        c>> CLIENT TRACKINGINFO
        c>> CLIENT NO-EVICT foo
        c>> CLIENT NO-EVICT on
        c>> CLIENT PAUSE x
        c>> CLIENT PAUSE -1
        c>> CLIENT PAUSE 0 foo
        c>> CLIENT PAUSE
        c>> CLIENT UNPAUSE
        c>> CLIENT REPLY foo
        c>> CLIENT REPLY
        c>> CLIENT KILL
        c>> CLIENT KILL type foo
        c>> CLIENT KILL id x
        c>> CLIENT KILL user nosuch
        c>> CLIENT KILL skipme foo
        c>> CLIENT KILL foo bar
        c>> CLIENT UNBLOCK x
        c>> CLIENT UNBLOCK 1 foo
        c>> CLIENT LIST type foo
        c>> CLIENT LIST foo
        c>> CLIENT FOO
        c>> CLIENT
        c>> SLOWLOG GET x
        c>> SLOWLOG GET -2
        c>> SLOWLOG FOO
        c>> SLOWLOG LEN x
        c>> SLOWLOG RESET
        c>> LATENCY FOO
        c>> LATENCY LATEST
        c>> LATENCY HISTORY x
        c>> LATENCY RESET
        c>> LATENCY GRAPH x
        c>> LATENCY HISTOGRAM nosuch
        c>> MONITOR x
    ",
        "2",
    );
}

#[test]
fn replies_are_switched_off_and_on() {
    compare(
        "replies",
        "
        c>> PING
        c> CLIENT REPLY OFF
        c> SET a 1
        c> PING
        c> NOSUCH
        c>> CLIENT REPLY ON
        c>> GET a
        c> CLIENT REPLY SKIP
        c> SET a 2
        c>> GET a
        c> CLIENT REPLY SKIP
        c> NOSUCH
        c>> MULTI
        c>> GET a
        c>> EXEC
    ",
        "2",
    );
}

#[test]
fn a_pause_holds_up_writes_or_all() {
    let server = Server::ours(&["--threads", "2"]);
    let (mut control, mut client) = (server.client(), server.client());
    control.ask("CLIENT PAUSE 100000 WRITE");
    client.call(&["GET", "a"]);
    client.send(&["SET", "a", "1"]).unwrap();
    wait_for("it is held up", LIMIT, || {
        (control.info("blocked_clients")? == "1").then_some(())
    });
    assert_eq!(control.call(&["GET", "a"]), Reply::Nil);
    control.ask("CLIENT UNPAUSE");
    assert_eq!(client.reply().unwrap().text(), "OK");
    control.ask("SET b 1 PX 1");
    client.ask("MULTI");
    client.ask("SET a 2");
    control.ask("CLIENT PAUSE 100000 WRITE");
    client.send(&["EXEC"]).unwrap();
    wait_for("it is held up", LIMIT, || {
        (control.info("blocked_clients")? == "1").then_some(())
    });
    wait_for("its time is past", LIMIT, || {
        (control.call(&["GET", "b"]) == Reply::Nil).then_some(())
    });
    control.ask("CLIENT UNPAUSE");
    assert_eq!(client.reply().unwrap().items()[0].text(), "OK");
    control.ask("CLIENT PAUSE 50 ALL");
    assert_eq!(control.ask("GET a").text(), "2", "a pause ends by itself");
}

#[test]
fn monitors_see_all_commands_but_no_passwords() {
    let server = Server::ours(&["--threads", "2"]);
    let (mut monitor, mut client) = (server.client(), server.client());
    assert_eq!(read(&mut monitor, "MONITOR", 1)[0].text(), "OK");
    client.call(&["SET", "a", "x\"\n\u{1}"]);
    client.call(&["AUTH", "default", "secret"]);
    client.ask("SELECT 3");
    client.ask("MULTI");
    client.ask("GET a");
    client.ask("EXEC");
    client.ask("CONFIG GET port");
    client.ask("PING");
    let addr = client.stream.local_addr().unwrap();
    for wanted in [
        format!("[0 {addr}] \"SET\" \"a\" \"x\\\"\\n\\x01\""),
        format!("[0 {addr}] \"AUTH\" \"(redacted)\" \"(redacted)\""),
        format!("[0 {addr}] \"SELECT\" \"3\""),
        format!("[3 {addr}] \"MULTI\""),
        format!("[3 {addr}] \"GET\" \"a\""),
        format!("[3 {addr}] \"EXEC\""),
        format!("[3 {addr}] \"PING\""),
    ] {
        let line = monitor.reply().unwrap().text();
        let (_, shown) = line.split_once(' ').expect("a time");
        assert_eq!(shown, wanted);
    }
}

#[test]
fn slow_commands_are_noted() {
    let server = Server::ours(&["--threads", "2", "--slowlog-log-slower-than", "0"]);
    let mut client = server.client();
    client.ask("CLIENT SETNAME me");
    client.ask("SLOWLOG RESET");
    client.ask("SET a 1");
    client.call(&["AUTH", "default", "secret"]);
    let entries = client.ask("SLOWLOG GET 10");
    let commands: Vec<Vec<String>> = entries
        .items()
        .iter()
        .map(|entry| entry.items()[3].items().iter().map(Reply::text).collect())
        .collect();
    assert_eq!(commands[1], ["SET", "a", "1"]);
    assert_eq!(commands[0], ["AUTH", "(redacted)", "(redacted)"]);
    assert_eq!(entries.items()[1].items()[5].text(), "me");
    assert_eq!(
        entries.items()[1].items()[4].text(),
        client.stream.local_addr().unwrap().to_string()
    );
    // A wait is logged when it ends, as its client gave it; what MIGRATE does for its keys is not.
    let mut waiting = server.client();
    waiting
        .send(&["BLPOP", "l", "0"])
        .expect("the server reads");
    wait_for("it waits", LIMIT, || {
        (client.info("blocked_clients").as_deref() == Some("1")).then_some(())
    });
    client.ask("RPUSH l x");
    waiting.reply().expect("the element");
    client.ask("MIGRATE 127.0.0.1 1 none 0 100");
    client.ask("CONFIG SET slowlog-log-slower-than -1");
    let entries = client.ask("SLOWLOG GET 3");
    let first_words = |at: usize| entries.items()[at].items()[3].items()[0].text();
    assert_eq!(
        [first_words(0), first_words(1), first_words(2)],
        ["MIGRATE", "BLPOP", "RPUSH"]
    );
    client.ask("CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 1");
    client.ask("PING");
    client.ask("GET a");
    assert_eq!(client.ask("SLOWLOG LEN"), Reply::Int(1));
}

#[test]
fn commands_errors_and_latencies_are_counted() {
    let server = Server::ours(&["--threads", "2"]);
    let mut client = server.client();
    client.ask("CONFIG RESETSTAT");
    client.ask("SET a 1");
    client.ask("MSET a 1 b 2 c 3 d 4");
    client.call(&["LPUSH", "a", "x"]);
    client.call(&["GET"]);
    client.call(&["NOSUCH"]);
    client.call(&["CONFIG", "GET", "port"]);
    for (name, start, end) in [
        ("cmdstat_set", "calls=1,", "rejected_calls=0,failed_calls=0"),
        (
            "cmdstat_lpush",
            "calls=1,",
            "rejected_calls=0,failed_calls=1",
        ),
        ("cmdstat_get", "calls=0,", "rejected_calls=1,failed_calls=0"),
        ("cmdstat_config|get", "calls=1,", "failed_calls=0"),
        ("errorstat_WRONGTYPE", "count=1", ""),
        ("errorstat_ERR", "count=2", ""),
        ("latency_percentiles_usec_set", "p50=", ""),
    ] {
        let value = client.info(name).unwrap_or_else(|| panic!("no {name}"));
        assert!(
            value.starts_with(start) && value.ends_with(end),
            "{name}:{value}"
        );
    }
    let histogram = client.ask("LATENCY HISTOGRAM set");
    assert_eq!(histogram.items()[0].text(), "set");
    client.ask("CONFIG RESETSTAT");
    assert_eq!(client.info("cmdstat_set"), None);
    client.ask("CONFIG SET latency-monitor-threshold 1");
    client.ask("DEBUG SLEEP 0.005");
    let latest = client.ask("LATENCY LATEST");
    assert_eq!(latest.items()[0].items()[0].text(), "command");
    assert_eq!(client.ask("LATENCY RESET"), Reply::Int(1));
}

#[test]
fn unix_sockets_and_idle_clients() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let path_text = path.to_str().expect("a text");
    let server = Server::ours(&["--threads", "2", "--unixsocket", path_text]);
    let mut stream = UnixStream::connect(&path).expect("a socket");
    use std::io::{Read, Write};
    stream.write_all(b"PING\r\nCLIENT LIST\r\n").unwrap();
    let mut text = [0; 256];
    let mut got = String::new();
    while !got.contains(":0 laddr=") {
        let read = stream.read(&mut text).unwrap();
        assert!(read > 0, "{got}");
        got.push_str(&String::from_utf8_lossy(&text[..read]));
    }
    assert!(got.starts_with("+PONG\r\n"), "{got}");
    let mut client = server.client();
    client.ask("CONFIG SET timeout 1");
    // The one that was asked last is idle from now on; the setting holds from its next request on.
    stream.write_all(b"PING\r\n").unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn keys_and_their_places_are_those_of_redis() {
    compare(
        "keys",
        "
        c>> COMMAND GETKEYSANDFLAGS SET a b
        c>> COMMAND GETKEYSANDFLAGS SET a b GET
        c>> COMMAND GETKEYSANDFLAGS LMOVE a b LEFT LEFT
        c>> COMMAND GETKEYSANDFLAGS ZUNIONSTORE d 2 a b
        c>> COMMAND GETKEYSANDFLAGS MSET a 1 b 2
        c>> COMMAND GETKEYSANDFLAGS XREAD STREAMS a b 0 0
        c>> COMMAND GETKEYSANDFLAGS BITFIELD a GET u8 0
        c>> COMMAND GETKEYSANDFLAGS BLPOP a b 0
        c>> COMMAND GETKEYSANDFLAGS NOSUCH a
        c>> COMMAND GETKEYSANDFLAGS GET a b c
        c>> COMMAND GETKEYSANDFLAGS PING x
        c>> COMMAND GETKEYSANDFLAGS
        c>> COMMAND GETKEYS MSET a 1 b 2
        c>> COMMAND LIST FILTERBY PATTERN xrang*
        c>> COMMAND LIST FILTERBY MODULE none
        c>> COMMAND LIST FILTERBY foo bar
        c>> COMMAND LIST FILTERBY
        c>> COMMAND LIST foo
        c>> COMMAND COUNT x
        c>> COMMAND FOO
    ",
        "2",
    );
    if !has_program("redis-server") {
        return;
    }
    let (redis, ours) = (Server::redis(&[]), Server::ours(&[]));
    let mut clients = [redis.client(), ours.client()];
    for name in [
        "get",
        "set",
        "mset",
        "lmove",
        "blpop",
        "zunionstore",
        "xread",
        "xreadgroup",
        "rename",
        "sort_ro",
        "bitop",
        "georadius",
        "sintercard",
        "lmpop",
        "del",
        "copy",
        "geosearchstore",
        "smove",
    ] {
        let [wanted, got] = clients.each_mut().map(|client| {
            let reply = client.call(&["COMMAND", "INFO", name]);
            reply.items()[0].items()[8].clone()
        });
        // Redis tells a remark about some places.
        if !format!("{wanted:?}").contains("[110, 111, 116, 101, 115]") {
            assert_eq!(got, wanted, "{name}");
        }
    }
}

#[test]
fn the_port_can_be_changed_and_a_taken_one_is_refused() {
    let server = Server::ours(&["--threads", "2"]);
    let mut client = server.client();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_port = taken.local_addr().unwrap().port();
    let reply = client.call(&["CONFIG", "SET", "port", &taken_port.to_string()]);
    let wanted = "ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port. Check server logs.";
    assert_eq!(reply, Reply::Error(wanted.into()));
    assert_eq!(
        server.client().ask("PING").text(),
        "PONG",
        "the old port is back"
    );
    let port = dfsnap_tests::process::free_port();
    client.ask(&format!("CONFIG SET port {port}"));
    let mut other = Client::connect(port).expect("a server");
    assert_eq!(other.ask("PING").text(), "PONG");
    assert!(
        Client::connect(server.port).is_err(),
        "the old port is closed"
    );
    client.ask("SET a 1");
}

#[test]
fn a_wait_for_replicas_ends_with_its_client_by_unblock_or_in_time() {
    let server = Server::ours(&["--threads", "2"]);
    let mut control = server.client();
    let blocked = |control: &mut Client, wanted: &str| {
        wait_for(wanted, LIMIT, || {
            (control.info("blocked_clients")? == wanted).then_some(())
        });
    };
    let mut client = server.client();
    let id = client.ask("CLIENT ID").number().expect("an id");
    client.ask("SET a 1");
    for (how, wanted) in [
        ("TIMEOUT", Reply::Int(0)),
        (
            "ERROR",
            Reply::Error("UNBLOCKED client unblocked via CLIENT UNBLOCK".into()),
        ),
    ] {
        client.send(&["WAIT", "1", "0"]).unwrap();
        blocked(&mut control, "1");
        assert_eq!(
            control.ask(&format!("CLIENT UNBLOCK {id} {how}")),
            Reply::Int(1)
        );
        assert_eq!(client.reply().unwrap(), wanted, "{how}");
    }
    assert_eq!(client.ask("WAIT 1 10"), Reply::Int(0));
    client.ask("MULTI");
    client.ask("WAIT 1 0");
    assert_eq!(client.ask("EXEC"), Reply::Array(vec![Reply::Int(0)]));
    // A muted client's reply stays away also when it was waited for.
    read(&mut client, "CLIENT REPLY SKIP", 0);
    read(&mut client, "BLPOP none 0.01", 0);
    assert_eq!(client.ask("ECHO x").text(), "x");
    client.send(&["WAIT", "1", "0"]).unwrap();
    blocked(&mut control, "1");
    drop(client);
    blocked(&mut control, "0");
}

/// A client that sends all of a long pipeline before it reads a reply waited for ever, and the server for it: neither read any more.
#[test]
fn a_client_may_send_all_before_it_reads_anything() {
    const LIMIT: Option<Duration> = Some(Duration::from_secs(60));
    let server = Server::ours(&["--threads", "2"]);
    let word = vec![b'x'; 10_000];
    let request = dfsnap_tests::client::frame(&[b"ECHO", &word]);
    let wanted = [b"$10000\r\n".as_slice(), &word, b"\r\n"].concat();
    for count in [900, 1_500, 3_000] {
        let mut stream =
            std::net::TcpStream::connect(("127.0.0.1", server.port)).expect("connected");
        stream.set_write_timeout(LIMIT).expect("a limit");
        stream.set_read_timeout(LIMIT).expect("a limit");
        for n in 0..count {
            stream
                .write_all(&request)
                .unwrap_or_else(|error| panic!("request {n} of {count}: {error}"));
        }
        // What came while replies were written must run without anything behind it.
        let mut reply = vec![0; wanted.len()];
        for n in 0..count {
            stream
                .read_exact(&mut reply)
                .unwrap_or_else(|error| panic!("reply {n} of {count}: {error}"));
            assert!(reply == wanted, "reply {n} of {count}");
        }
    }
}

/// A request that is taken in while a long reply is written runs when that is out, though nothing comes behind it.
#[test]
fn a_request_that_comes_during_a_reply_is_answered() {
    const LEN: usize = 40_000_000;
    let server = Server::ours(&["--threads", "1"]);
    let mut control = server.client();
    control.call(&[&b"SET"[..], b"long", &vec![b'x'; LEN]]);
    let mut client = server.client();
    client.send(&["GET", "long"]).unwrap();
    // It is written as far as the sockets hold.
    for _ in 0..200 {
        control.ask("PING");
    }
    client.send(&["ECHO", "behind"]).unwrap();
    for _ in 0..200 {
        control.ask("PING");
    }
    assert_eq!(client.reply().unwrap().text().len(), LEN);
    assert_eq!(client.reply().unwrap().text(), "behind");
}

/// Who is killed has gone when the killer hears of it, whichever thread it was on and whatever it waited for.
#[test]
fn the_killed_are_seen_no_more() {
    let server = Server::ours(&["--threads", "4"]);
    let mut killer = server.client();
    for round in 0..20 {
        let mut victims: Vec<Client> = (0..4).map(|_| server.client()).collect();
        let ids: Vec<i64> = victims
            .iter_mut()
            .map(|victim| victim.ask("CLIENT ID").number().expect("an id"))
            .collect();
        victims[0].ask("SUBSCRIBE channel");
        victims[1].send(&["BLPOP", "nokey", "0"]).expect("it reads");
        victims[2].ask("MULTI");
        for id in ids {
            let id = id.to_string();
            let killed = killer.call(&["CLIENT", "KILL", "ID", &id]);
            assert_eq!(killed, Reply::Int(1), "round {round}");
            let list = killer.ask("CLIENT LIST").text();
            assert!(
                !list
                    .lines()
                    .any(|line| line.starts_with(&format!("id={id} "))),
                "round {round}, {id}: {list}"
            );
        }
        let mut replica = server.client();
        replica.send(&["SYNC"]).expect("it reads");
        wait_for("it is a replica", LIMIT, || {
            let text = killer.ask("INFO replication").text();
            text.contains("state=online").then_some(())
        });
        killer.ask("CLIENT KILL TYPE replica");
        assert_eq!(killer.info("connected_slaves").as_deref(), Some("0"));
    }
}

/// A client that goes amid DEBUG RELOAD leaves a server that serves.
#[test]
fn a_reload_ends_without_its_client() {
    let server = Server::ours(&["--threads", "2", "--enable-debug-command", "yes"]);
    let mut other = server.client();
    other.ask("DEBUG POPULATE 1000 key 10");
    other.ask("CONFIG SET rdb-key-save-delay 1000");
    let mut client = server.client();
    let id = client.ask("CLIENT ID").number().expect("an id").to_string();
    client.send(&["DEBUG", "RELOAD"]).expect("it reads");
    wait_for("it saves", LIMIT, || {
        (other.info("rdb_bgsave_in_progress")? == "1").then_some(())
    });
    assert_eq!(
        other.call(&["CLIENT", "KILL", "ID", &id]),
        Reply::Int(1),
        "it is killed"
    );
    wait_for("the server serves", LIMIT, || {
        (other.call(&["DBSIZE"]) == Reply::Int(1000)).then_some(())
    });
    assert_eq!(other.info("loading").as_deref(), Some("0"));
}
