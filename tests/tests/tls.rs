//! TLS: clients, settings and links, with the machine's redis-cli and redis-server at the other end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dfsnap_tests::client::{Client, Reply, frame};
use dfsnap_tests::pki::Pki;
use dfsnap_tests::process::{Kind, Server, free_port, has_program};
use dfsnap_tests::{tunnel, wait_for};
use dfsnap_tls::{ClientSettings, Connector, Identity, PeerCheck, Suites, Trust};

const LIMIT: Duration = Duration::from_secs(60);

/// A server of ours with a port for TLS.
fn ours(pki: &Pki, more: &[&str]) -> (Server, u16) {
    of_kind(Kind::Ours, pki, more)
}

fn of_kind(kind: Kind, pki: &Pki, more: &[&str]) -> (Server, u16) {
    let tls_port = free_port();
    let args = pki.server_args("server", tls_port);
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    args.extend(more);
    let server = Server::spawn(kind, &args);
    server.wait_until_ready();
    (server, tls_port)
}

/// A client's settings that fit `ours`.
fn settings(pki: &Pki) -> ClientSettings {
    pki.sign("client");
    ClientSettings {
        identity: Some(Identity {
            cert_file: pki.path("client.crt"),
            key_file: pki.path("client.key"),
            key_password: None,
        }),
        trust: Trust {
            ca_file: Some(pki.path("ca.crt")),
            ca_dir: None,
        },
        suites: Suites::default(),
        check: PeerCheck::Name,
    }
}

/// A port that leads to a port with TLS.
fn tunnel(pki: &Pki, tls_port: u16) -> u16 {
    let connector = Connector::new(&settings(pki)).expect("settings");
    tunnel::open(connector, tls_port)
}

/// redis-cli, which has no limit of its own for a handshake.
fn tls_redis_cli() -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", "redis-cli", "--tls"]);
    command
}

fn redis_cli(pki: &Pki, tls_port: u16, more: &[&str]) -> Output {
    let mut command = tls_redis_cli();
    command.args(["-h", "127.0.0.1", "-p", &tls_port.to_string()]);
    command.args(["--cacert", &pki.text("ca.crt")]);
    command.args(more).stdin(Stdio::null());
    command.output().expect("redis-cli")
}

#[test]
fn a_client_with_tls_gets_what_others_get() {
    let pki = Pki::new();
    let (server, tls_port) = ours(&pki, &["--threads", "2"]);
    let mut plain = server.client();
    let port = tunnel(&pki, tls_port);
    let mut client = Client::connect(port).expect("a tunnel");
    // A value of many records, and its reply.
    let large: Vec<u8> = (0..20_000_000u32).map(|n| (n * 31 % 251) as u8).collect();
    assert_eq!(client.call(&[&b"SET"[..], b"large", &large]).text(), "OK");
    assert!(plain.call(&["GET", "large"]) == Reply::Text(large.clone()));
    assert!(client.call(&["GET", "large"]) == Reply::Text(large));
    // A pipeline over both threads, deeper than any buffer.
    let mut pipeline = Vec::new();
    for n in 0..20_000 {
        let key = format!("key:{n}");
        pipeline.extend(frame(&[b"SET", key.as_bytes(), key.as_bytes()]));
        pipeline.extend(frame(&[b"GET", key.as_bytes()]));
    }
    let mut writer = client.stream.try_clone().expect("a socket");
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(&pipeline).expect("room"));
        for n in 0..20_000 {
            assert_eq!(client.reply().expect("a reply").text(), "OK");
            assert_eq!(client.reply().expect("a reply").text(), format!("key:{n}"));
        }
    });
    // Blocked, and served by somebody without TLS.
    client.send(&["BLPOP", "list", "0"]).expect("room");
    wait_for("a blocked client", LIMIT, || {
        (plain.info("blocked_clients")? == "1").then_some(())
    });
    plain.ask("RPUSH list x");
    assert_eq!(client.reply().expect("a reply").items()[1].text(), "x");
    // Messages, and what a monitor sees.
    client.send(&["SUBSCRIBE", "news"]).expect("room");
    client.reply().expect("a subscription");
    let mut monitor = Client::connect(port).expect("a tunnel");
    monitor.ask("MONITOR");
    assert_eq!(plain.ask("PUBLISH news hello"), Reply::Int(1));
    assert_eq!(
        client.reply().expect("a message").items()[2].text(),
        "hello"
    );
    let seen = monitor.line().expect("a command");
    assert!(seen.ends_with(r#""PUBLISH" "news" "hello""#), "{seen}");
    // The end of a connection is seen at once.
    drop((client, monitor));
    wait_for("one client", LIMIT, || {
        (plain.info("connected_clients")? == "1").then_some(())
    });
}

#[test]
fn redis_cli_is_let_in_by_its_certificate() {
    if !has_program("redis-cli") {
        return;
    }
    let pki = Pki::new();
    let other = Pki::new();
    pki.sign("client");
    other.sign("client");
    let (cert, key) = (pki.text("client.crt"), pki.text("client.key"));
    let good = ["--cert", &cert, "--key", &key];
    let (cert, key) = (other.text("client.crt"), other.text("client.key"));
    let bad = ["--cert", &cert, "--key", &key];
    let rows: [(&str, &[&str], bool); 7] = [
        ("yes", &good, true),
        ("yes", &[], false),
        ("yes", &bad, false),
        ("optional", &good, true),
        ("optional", &[], true),
        ("optional", &bad, false),
        ("no", &[], true),
    ];
    let (server, tls_port) = ours(&pki, &[]);
    for (setting, cert, want) in rows {
        server
            .client()
            .ask(&format!("CONFIG SET tls-auth-clients {setting}"));
        let output = redis_cli(&pki, tls_port, &[cert, &["PING"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text == "PONG\n", want, "{setting} {cert:?}: {output:?}");
    }
    let log = server.log();
    assert!(log.contains("Error accepting a client connection"), "{log}");
    // Old clients, and ciphers by name.
    let rows = [
        (
            "TLSv1.3",
            "--tls-ciphers",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            true,
        ),
        (
            "TLSv1.2",
            "--tls-ciphers",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            true,
        ),
        (
            "TLSv1.2",
            "--tls-ciphers",
            "ECDHE-ECDSA-AES128-SHA256",
            false,
        ),
    ];
    for (protocols, option, cipher, want) in rows {
        server
            .client()
            .ask(&format!("CONFIG SET tls-protocols {protocols}"));
        let output = redis_cli(&pki, tls_port, &[option, cipher, "PING"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text == "PONG\n", want, "{protocols} {cipher}: {output:?}");
    }
}

#[test]
fn certificates_change_for_new_connections_or_not_at_all() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (server, tls_port) = ours(&pki, &["--tls-auth-clients", "no"]);
    let mut plain = server.client();
    let port = tunnel(&pki, tls_port);
    let mut early = Client::connect(port).expect("a tunnel");
    early.ask("PING");
    let junk = pki.text("junk");
    std::fs::write(&junk, "nothing").expect("a file");
    other.sign("server");
    let refused = [
        ("tls-cert-file", junk.clone()),
        ("tls-cert-file", pki.text("missing")),
        ("tls-cert-file", other.text("server.crt")),
        ("tls-key-file", junk.clone()),
        ("tls-ca-cert-file", junk),
        ("tls-protocols", "TLSv1.0".to_owned()),
        ("tls-ciphers", "NO-SUCH-CIPHER".to_owned()),
        ("tls-ciphersuites", "NO_SUCH_CIPHER".to_owned()),
    ];
    for (name, value) in refused {
        let name = name.to_owned();
        let before = plain.call(&["CONFIG", "GET", &name]);
        let reply = plain.call(&["CONFIG", "SET", &name, &value]);
        let want = format!(
            "ERR CONFIG SET failed (possibly related to argument '{name}') - Unable to update TLS configuration. Check server logs."
        );
        assert_eq!(reply, Reply::Error(want));
        assert_eq!(plain.call(&["CONFIG", "GET", &name]), before);
        Client::connect(port).expect("a tunnel").ask("PING");
    }
    // Both at once, from another authority.
    let (cert, key) = (other.text("server.crt"), other.text("server.key"));
    let set = [
        "CONFIG",
        "SET",
        "tls-cert-file",
        &cert,
        "tls-key-file",
        &key,
    ];
    assert_eq!(plain.call(&set).text(), "OK");
    early.ask("PING");
    let mut stranger = Client::connect(port).expect("a tunnel");
    assert!(
        stranger.try_call(&["PING"]).is_err(),
        "nobody believes it here"
    );
    let theirs = tunnel(&other, tls_port);
    Client::connect(theirs).expect("a tunnel").ask("PING");
    // The same name, another file: read again.
    let third = Pki::new();
    third.sign("server");
    std::fs::copy(third.path("server.crt"), &cert).expect("a file");
    std::fs::copy(third.path("server.key"), &key).expect("a file");
    Client::connect(theirs).expect("a tunnel").ask("PING");
    assert_eq!(plain.call(&set).text(), "OK");
    Client::connect(tunnel(&third, tls_port))
        .expect("a tunnel")
        .ask("PING");
}

#[test]
fn ports_open_and_close_while_running() {
    let pki = Pki::new();
    let server = Server::ours(&[]);
    let mut plain = server.client();
    let tls_port = free_port();
    // Without a certificate there is no TLS.
    let reply = plain.call(&["CONFIG", "SET", "tls-port", &tls_port.to_string()]);
    let want = "ERR CONFIG SET failed (possibly related to argument 'tls-port') - Unable to update TLS configuration. Check server logs.";
    assert_eq!(reply, Reply::Error(want.into()));
    assert!(server.log().contains("No tls-cert-file configured!"));
    let args = pki.server_args("server", tls_port);
    let mut words = vec!["CONFIG".to_owned(), "SET".to_owned()];
    words.extend(
        args.iter()
            .map(|word| word.trim_start_matches("--").to_owned()),
    );
    assert_eq!(plain.call(&words).text(), "OK");
    let port = tunnel(&pki, tls_port);
    let mut client = Client::connect(port).expect("a tunnel");
    client.ask("CONFIG SET port 0");
    assert_eq!(client.info("tcp_port"), Some(tls_port.to_string()));
    assert!(TcpStream::connect(("127.0.0.1", server.port)).is_err());
    Client::connect(port).expect("a tunnel").ask("PING");
    client.ask(&format!("CONFIG SET port {} tls-port 0", server.port));
    server.client().ask("PING");
    assert!(TcpStream::connect(("127.0.0.1", tls_port)).is_err());
    client.ask("PING");
}

#[test]
fn a_server_without_what_tls_needs_does_not_start() {
    let pki = Pki::new();
    let tls_port = free_port().to_string();
    pki.sign("server");
    let (cert, key) = (pki.text("server.crt"), pki.text("server.key"));
    let rows: [(&[&str], &str); 3] = [
        (&["--tls-port", &tls_port], "No tls-cert-file configured!"),
        (
            &["--tls-port", &tls_port, "--tls-cert-file", &cert],
            "No tls-key-file configured!",
        ),
        (
            &[
                "--tls-port",
                &tls_port,
                "--tls-cert-file",
                &cert,
                "--tls-key-file",
                &key,
            ],
            "Either tls-ca-cert-file or tls-ca-cert-dir must be specified",
        ),
    ];
    for (args, want) in rows {
        let mut server = Server::spawn(Kind::Ours, args);
        let status = server.wait_until_ended(LIMIT);
        let log = server.log();
        assert!(!status.success() && log.contains(want), "{log}");
        assert!(
            log.contains("Failed to configure TLS. Check logs for more info."),
            "{log}"
        );
    }
}

#[test]
fn who_does_not_shake_hands_keeps_nobody_waiting() {
    let pki = Pki::new();
    let (server, tls_port) = ours(&pki, &["--threads", "1"]);
    let silent: Vec<TcpStream> = (0..50)
        .map(|_| TcpStream::connect(("127.0.0.1", tls_port)).expect("a connection"))
        .collect();
    let mut half = TcpStream::connect(("127.0.0.1", tls_port)).expect("a connection");
    half.write_all(&[22, 3, 1, 2]).expect("room");
    let port = tunnel(&pki, tls_port);
    Client::connect(port).expect("a tunnel").ask("PING");
    // Commands without TLS are answered by an alert, and the connection ends.
    let mut wrong = TcpStream::connect(("127.0.0.1", tls_port)).expect("a connection");
    wrong.write_all(b"PING\r\n").expect("room");
    let mut answer = Vec::new();
    wrong.set_read_timeout(Some(LIMIT)).expect("a timeout");
    // The rest may have been reset.
    let _ = wrong.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    // They count as clients.
    let mut plain = server.client();
    plain.ask("CONFIG SET maxclients 40");
    let mut late = Client::connect(port).expect("a tunnel");
    assert!(late.try_call(&["PING"]).is_err());
    drop((silent, half));
    wait_for("room again", LIMIT, || {
        let mut client = Client::connect(port).ok()?;
        client.try_call(&["PING"]).ok()
    });
}

#[test]
fn a_script_that_holds_the_thread_is_killed_through_tls() {
    let pki = Pki::new();
    let (server, tls_port) = ours(&pki, &["--threads", "1", "--busy-reply-threshold", "50"]);
    let port = tunnel(&pki, tls_port);
    let mut idle = Client::connect(port).expect("a tunnel");
    idle.ask("PING");
    let mut holder = Client::connect(port).expect("a tunnel");
    holder
        .send(&["EVAL", "while true do end", "0"])
        .expect("room");
    wait_for("BUSY", LIMIT, || {
        let reply = idle.try_call(&["GET", "x"]).ok()?;
        match reply {
            Reply::Error(text) => text.starts_with("BUSY").then_some(()),
            _ => None,
        }
    });
    assert_eq!(idle.ask("SCRIPT KILL").text(), "OK");
    let Reply::Error(text) = holder.reply().expect("an end") else {
        panic!("it was killed");
    };
    assert!(text.contains("Script killed by user"), "{text}");
    idle.ask("SET x 1");
    drop(server);
}

#[test]
fn a_client_that_does_not_read_is_dropped() {
    let pki = Pki::new();
    let limit = "pubsub 1000000 0 0";
    let (server, tls_port) = ours(&pki, &["--client-output-buffer-limit", limit]);
    let mut plain = server.client();
    let mut lazy = Client::connect(tunnel(&pki, tls_port)).expect("a tunnel");
    lazy.ask("SUBSCRIBE news");
    let text = "x".repeat(1_000_000);
    wait_for("nobody listens", LIMIT, || {
        let heard = plain.call(&["PUBLISH", "news", &text]);
        (heard == Reply::Int(0)).then_some(())
    });
}

/// A primary and a replica of these kinds, linked by TLS, while the primary is written to.
fn follow(primary: Kind, replica: Kind, diskless: &str) {
    let what = format!("{replica:?} follows {primary:?}, diskless {diskless}");
    let pki = Pki::new();
    let link = ["--tls-replication", "yes", "--repl-diskless-sync", diskless];
    let (primary, primary_tls) = of_kind(primary, &pki, &link);
    let mut writer = primary.client();
    for n in 0..2_000 {
        writer.ask(&format!("SET before:{n} {n}"));
        writer.ask(&format!("RPUSH list {n} {}", "x".repeat(n % 300)));
    }
    let (replica, _) = of_kind(replica, &pki, &link);
    let mut reader = replica.client();
    reader.ask(&format!("REPLICAOF 127.0.0.1 {primary_tls}"));
    for n in 0..2_000 {
        writer.ask(&format!("SET after:{n} {n}"));
    }
    wait_for(&format!("{what}: up"), LIMIT, || {
        (reader.info("master_link_status")? == "up").then_some(())
    });
    writer.ask("INCR last");
    wait_for(&format!("{what}: caught up"), LIMIT, || {
        (reader.ask("GET last") == Reply::Text(b"1".to_vec())).then_some(())
    });
    assert_eq!(writer.ask("WAIT 1 10000"), Reply::Int(1), "{what}");
    assert_eq!(primary.digest(), replica.digest(), "{what}");
    // The place goes on over a lost link.
    writer.ask("CLIENT KILL TYPE replica");
    writer.ask("INCR last");
    wait_for(&format!("{what}: caught up again"), LIMIT, || {
        (reader.ask("GET last") == Reply::Text(b"2".to_vec())).then_some(())
    });
    assert_eq!(writer.info("sync_full").as_deref(), Some("1"), "{what}");
}

#[test]
fn ours_follows_ours_over_tls() {
    follow(Kind::Ours, Kind::Ours, "yes");
}

#[test]
fn redis_follows_ours_over_tls() {
    if has_program("redis-server") {
        follow(Kind::Ours, Kind::Redis, "yes");
        follow(Kind::Ours, Kind::Redis, "no");
    }
}

#[test]
fn ours_follows_redis_over_tls() {
    if has_program("redis-server") {
        follow(Kind::Redis, Kind::Ours, "yes");
        follow(Kind::Redis, Kind::Ours, "no");
    }
}

#[test]
fn a_link_to_a_stranger_is_not_made() {
    let (pki, other) = (Pki::new(), Pki::new());
    let link = ["--tls-replication", "yes", "--tls-auth-clients", "no"];
    let (primary, primary_tls) = ours(&other, &link);
    primary.client().ask("SET x 1");
    let (replica, _) = ours(&pki, &link);
    let mut reader = replica.client();
    reader.ask(&format!("REPLICAOF 127.0.0.1 {primary_tls}"));
    wait_for("a refusal", LIMIT, || {
        replica
            .log()
            .contains("invalid peer certificate")
            .then_some(())
    });
    assert_eq!(reader.info("master_link_status").as_deref(), Some("down"));
    // Told whom to trust, the next attempt succeeds.
    let trust = other.text("ca.crt");
    reader.ask(&format!("CONFIG SET tls-ca-cert-file {trust}"));
    wait_for("a link", LIMIT, || {
        (reader.info("master_link_status")? == "up").then_some(())
    });
}

#[test]
fn a_cluster_tells_each_client_its_own_port() {
    let pki = Pki::new();
    let (server, tls_port) = ours(&pki, &["--cluster-enabled", "yes"]);
    let mut plain = server.client();
    let mut client = Client::connect(tunnel(&pki, tls_port)).expect("a tunnel");
    let port_of = |reply: Reply| reply.items()[0].items()[2].items()[1].number();
    assert_eq!(
        port_of(plain.ask("CLUSTER SLOTS")),
        Some(i64::from(server.port))
    );
    assert_eq!(
        port_of(client.ask("CLUSTER SLOTS")),
        Some(i64::from(tls_port))
    );
    let shards = client.ask("CLUSTER SHARDS");
    let node = shards.items()[0].items()[3].items()[0].items().to_vec();
    let ports: Vec<Option<i64>> = [3, 5].map(|at| node[at].number()).to_vec();
    assert_eq!(
        ports,
        [Some(i64::from(server.port)), Some(i64::from(tls_port))]
    );
}

#[test]
fn keys_migrate_over_tls() {
    let pki = Pki::new();
    let (from, _) = ours(&pki, &["--tls-cluster", "yes"]);
    let kinds: &[Kind] = match has_program("redis-server") {
        true => &[Kind::Ours, Kind::Redis],
        false => &[Kind::Ours],
    };
    for kind in kinds {
        let (to, tls_port) = of_kind(*kind, &pki, &[]);
        let mut client = from.client();
        let large = "x".repeat(3_000_000);
        client.call(&["SET", "large", &large]);
        client.ask("RPUSH list a b c");
        let migrated = format!("MIGRATE 127.0.0.1 {tls_port} \"\" 0 20000 KEYS large list");
        let words: Vec<String> = migrated
            .split(' ')
            .map(|word| word.trim_matches('"').to_owned())
            .collect();
        assert_eq!(client.call(&words), Reply::Text(b"OK".to_vec()));
        assert_eq!(client.ask("DBSIZE"), Reply::Int(0));
        assert_eq!(
            to.client().call(&["STRLEN", "large"]),
            Reply::Int(3_000_000)
        );
        assert_eq!(to.client().ask("LLEN list"), Reply::Int(3));
    }
}

/// Three real Sentinels, which speak TLS alone, fail over a group of ours that does too.
#[test]
fn sentinels_fail_over_a_group_that_speaks_tls() {
    if !has_program("redis-sentinel") {
        return;
    }
    let pki = Pki::new();
    let link = ["--tls-replication", "yes", "--replica-priority", "10"];
    let (mut primary, primary_tls) = ours(&pki, &link);
    let (replica, replica_tls) = ours(&pki, &link);
    let mut writer = primary.client();
    writer.ask("SET before 1");
    replica
        .client()
        .ask(&format!("REPLICAOF 127.0.0.1 {primary_tls}"));
    wait_for("a link", LIMIT, || {
        (replica.client().info("master_link_status")? == "up").then_some(())
    });
    // Once: one that starts reads the files of all.
    pki.sign("sentinel");
    let sentinels: Vec<Sentinel> = (0..3).map(|_| Sentinel::start(&pki, primary_tls)).collect();
    wait_for(
        "Sentinels that know each other and the replica",
        LIMIT,
        || {
            sentinels
                .iter()
                .all(|sentinel| {
                    sentinel.knows("num-slaves", 1) && sentinel.knows("num-other-sentinels", 2)
                })
                .then_some(())
        },
    );
    primary.kill();
    wait_for("a new primary", Duration::from_secs(120), || {
        let is_primary = info(&replica, "role")? == "master";
        let all_know = sentinels
            .iter()
            .all(|sentinel| sentinel.primary_port() == replica_tls);
        (is_primary && all_know).then_some(())
    });
    assert_eq!(
        replica.client().ask("GET before"),
        Reply::Text(b"1".to_vec())
    );
    // The old one comes back as a replica, linked by TLS.
    primary.restart();
    wait_for(
        "the old primary to follow",
        Duration::from_secs(120),
        || {
            let is_up = info(&primary, "master_link_status")? == "up";
            let port = info(&primary, "master_port")?;
            (is_up && port == replica_tls.to_string()).then_some(())
        },
    );
}

/// A line of INFO, over a connection that a Sentinel may cut.
fn info(server: &Server, name: &str) -> Option<String> {
    let mut client = Client::connect(server.port).ok()?;
    let Ok(Reply::Text(text)) = client.try_call(&["INFO", "replication"]) else {
        return None;
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.map(str::to_owned)
}

/// A redis-sentinel without a plain port.
struct Sentinel {
    process: std::process::Child,
    port: u16,
    pki: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Sentinel {
    fn start(pki: &Pki, primary: u16) -> Sentinel {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let config = format!(
            "port 0\ntls-port {port}\ntls-replication yes\ntls-cert-file {cert}\ntls-key-file {key}\ntls-ca-cert-file {ca}\ndir {dir}\n\
             sentinel monitor group 127.0.0.1 {primary} 2\nsentinel down-after-milliseconds group 1500\n\
             sentinel failover-timeout group 10000\n",
            cert = pki.text("sentinel.crt"),
            key = pki.text("sentinel.key"),
            ca = pki.text("ca.crt"),
            dir = folder.path().display(),
        );
        let path = folder.path().join("sentinel.conf");
        std::fs::write(&path, config).expect("a file");
        let process = Command::new("redis-sentinel")
            .arg(&path)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-sentinel");
        let pki = [
            "--cacert",
            &pki.text("ca.crt"),
            "--cert",
            &pki.text("sentinel.crt"),
            "--key",
            &pki.text("sentinel.key"),
        ];
        Sentinel {
            process,
            port,
            pki: pki.map(str::to_owned).to_vec(),
            _folder: folder,
        }
    }

    /// What it says of the group, name and value in turn.
    fn says(&self) -> Vec<String> {
        let output = tls_redis_cli()
            .args(["-p", &self.port.to_string()])
            .args(&self.pki)
            .args(["SENTINEL", "MASTER", "group"])
            .output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn value(&self, name: &str) -> Option<u64> {
        let lines = self.says();
        let at = lines.iter().position(|line| line == name)?;
        lines.get(at + 1)?.parse().ok()
    }

    fn knows(&self, name: &str, count: u64) -> bool {
        self.value(name) == Some(count)
    }

    fn primary_port(&self) -> u16 {
        self.value("port")
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(0)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
