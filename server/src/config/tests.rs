use std::ffi::OsString;
use std::path::Path;

use super::load::{Invocation, Loaded, from_args, from_text, texts};
use super::rows::Access;
use super::sources::Sources;
use super::words::SaveRule;
use super::*;

fn load(text: &str) -> Loaded {
    from_text(text, Path::new("test.conf")).unwrap()
}

fn run(args: &[&str]) -> Result<Loaded, String> {
    let args: Vec<String> = args.iter().map(|s| s.to_string()).collect();
    match from_args(&args, Sources::default()).map_err(|error| error.to_string())? {
        Invocation::Run(loaded) => Ok(*loaded),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn rows_accept_their_defaults_and_have_unique_names() {
    let mut seen = std::collections::HashSet::new();
    for row in ROWS {
        for name in [Some(row.name), row.alias].into_iter().flatten() {
            assert!(seen.insert(name), "{name} twice");
            assert_eq!(name, name.to_ascii_lowercase());
        }
        let words: Vec<&str> = match row.kind.has_words() {
            true => row.default.split(' ').collect(),
            false => vec![row.default],
        };
        assert_eq!(
            row.kind.canonical(&words, row.default).as_deref(),
            Ok(row.default),
            "{}",
            row.name
        );
        assert!(
            !row.help.is_empty() && !row.help.ends_with('.'),
            "{}",
            row.name
        );
    }
    for field in FIELDS {
        assert_eq!(
            ROWS[row_index(field).unwrap()].name,
            *field,
            "fields use the name, not the alias"
        );
    }
}

/// Names that `CONFIG GET *` of redis-server 7.0.15 prints, and what 7.2 added.
const REDIS_NAMES: &str = "acl-pubsub-default aclfile acllog-max-len active-defrag-cycle-max \
    active-defrag-cycle-min active-defrag-ignore-bytes active-defrag-max-scan-fields active-defrag-threshold-lower \
    active-defrag-threshold-upper active-expire-effort activedefrag activerehashing always-show-logo \
    aof-disable-auto-gc aof-load-truncated aof-rewrite-incremental-fsync aof-timestamp-enabled \
    aof-use-rdb-preamble aof_rewrite_cpulist appenddirname appendfilename appendfsync appendonly \
    auto-aof-rewrite-min-size auto-aof-rewrite-percentage bgsave_cpulist bind bind-source-addr bio_cpulist \
    busy-reply-threshold client-output-buffer-limit client-query-buffer-limit \
    cluster-allow-pubsubshard-when-down cluster-allow-reads-when-down cluster-allow-replica-migration \
    cluster-announce-bus-port cluster-announce-hostname cluster-announce-ip cluster-announce-port \
    cluster-announce-tls-port cluster-config-file cluster-enabled cluster-link-sendbuf-limit \
    cluster-migration-barrier cluster-node-timeout cluster-port cluster-preferred-endpoint-type \
    cluster-replica-no-failover cluster-replica-validity-factor cluster-require-full-coverage \
    cluster-slave-no-failover cluster-slave-validity-factor crash-log-enabled crash-memcheck-enabled \
    daemonize databases dbfilename dir disable-thp dynamic-hz enable-debug-command enable-module-command \
    enable-protected-configs hash-max-listpack-entries hash-max-listpack-value hash-max-ziplist-entries \
    hash-max-ziplist-value hll-sparse-max-bytes hz ignore-warnings io-threads io-threads-do-reads \
    jemalloc-bg-thread latency-monitor-threshold latency-tracking latency-tracking-info-percentiles \
    lazyfree-lazy-eviction lazyfree-lazy-expire lazyfree-lazy-server-del lazyfree-lazy-user-del \
    lazyfree-lazy-user-flush lfu-decay-time lfu-log-factor list-compress-depth list-max-listpack-size \
    list-max-ziplist-size logfile loglevel lua-time-limit masterauth masteruser maxclients maxmemory \
    maxmemory-clients maxmemory-eviction-tenacity maxmemory-policy maxmemory-samples min-replicas-max-lag \
    min-replicas-to-write min-slaves-max-lag min-slaves-to-write no-appendfsync-on-rewrite \
    notify-keyspace-events oom-score-adj oom-score-adj-values pidfile port proc-title-template \
    propagation-error-behavior protected-mode proto-max-bulk-len rdb-del-sync-files \
    rdb-save-incremental-fsync rdbchecksum rdbcompression repl-backlog-size repl-backlog-ttl \
    repl-disable-tcp-nodelay repl-diskless-load repl-diskless-sync repl-diskless-sync-delay \
    repl-diskless-sync-max-replicas repl-ping-replica-period repl-ping-slave-period repl-timeout \
    replica-announce-ip replica-announce-port replica-announced replica-ignore-disk-write-errors \
    replica-ignore-maxmemory replica-lazy-flush replica-priority replica-read-only \
    replica-serve-stale-data replicaof requirepass sanitize-dump-payload save server_cpulist \
    set-max-intset-entries set-proc-title shutdown-on-sigint shutdown-on-sigterm shutdown-timeout \
    slave-announce-ip slave-announce-port slave-ignore-maxmemory slave-lazy-flush slave-priority \
    slave-read-only slave-serve-stale-data slaveof slowlog-log-slower-than slowlog-max-len socket-mark-id \
    stop-writes-on-bgsave-error stream-node-max-bytes stream-node-max-entries supervised syslog-enabled \
    syslog-facility syslog-ident tcp-backlog tcp-keepalive timeout tls-auth-clients tls-ca-cert-dir \
    tls-ca-cert-file tls-cert-file tls-ciphers tls-ciphersuites tls-client-cert-file tls-client-key-file \
    tls-client-key-file-pass tls-cluster tls-dh-params-file tls-key-file tls-key-file-pass tls-port \
    tls-prefer-server-ciphers tls-protocols tls-replication tls-session-cache-size \
    tls-session-cache-timeout tls-session-caching tracking-table-max-keys unixsocket unixsocketperm \
    zset-max-listpack-entries zset-max-listpack-value zset-max-ziplist-entries zset-max-ziplist-value \
    locale-collate set-max-listpack-entries set-max-listpack-value cluster-announce-human-nodename server-cpulist \
    bio-cpulist aof-rewrite-cpulist bgsave-cpulist";

#[test]
fn every_name_of_redis_is_known() {
    let missing: Vec<&str> = REDIS_NAMES
        .split_whitespace()
        .filter(|name| row_index(name).is_none())
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn get_matches_patterns_and_aliases_each_name_once() {
    let config = Config::default();
    let names = |patterns: &[&[u8]]| {
        config
            .get(patterns)
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&[b"MAXMEMORY"]), ["maxmemory"]);
    assert_eq!(
        names(&[b"slave-pri*", b"replica-priority", b"*-priority"]),
        ["replica-priority", "slave-priority"]
    );
    assert_eq!(names(&[b"nosuch"]), [""; 0]);
    // Four are shown to those alone who know their names.
    assert_eq!(config.get(&[b"*"]).len(), config.to_pairs().len() - 4);
    assert_eq!(config.get(&[b"RDB-key-save-delay"]).len(), 1);
    assert_eq!(
        config.get(&[b"maxmemory-policy"]),
        [("maxmemory-policy", "noeviction")]
    );
}

#[test]
fn set_refuses_with_the_texts_clients_know() {
    let about = |name: &str, reason: &str| {
        format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}")
    };
    let unknown =
        |name: &str| format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'");
    type Row<'a> = (&'a [(&'a str, &'a str)], String);
    let rows: &[Row] = &[
        (
            &[("port", "abc")],
            about("port", "argument couldn't be parsed into an integer"),
        ),
        (
            &[("maxmemory", "x")],
            about("maxmemory", "argument must be a memory value"),
        ),
        (
            &[("databases", "5")],
            about("databases", "can't set immutable config"),
        ),
        (
            &[("databases", "16")],
            about("databases", "can't set immutable config"),
        ),
        (
            &[("load-lenient", "yes")],
            about("load-lenient", "can't set immutable config"),
        ),
        (
            &[("slaveof", "x")],
            about("slaveof", "can't set immutable config"),
        ),
        (
            &[("dir", "/tmp")],
            about("dir", "can't set protected config"),
        ),
        (&[("nosuch", "1")], unknown("nosuch")),
        (&[("nosuch", "1"), ("databases", "5")], unknown("nosuch")),
        (
            &[("databases", "5"), ("nosuch", "1")],
            about("databases", "can't set immutable config"),
        ),
        (
            &[("hz", "20"), ("HZ", "30")],
            about("hz", "duplicate parameter"),
        ),
        (
            &[("hz", "20"), ("timeout", "-1")],
            about(
                "timeout",
                "argument must be between 0 and 2147483647 inclusive",
            ),
        ),
        (&[("save", "abc")], about("save", "Invalid save parameters")),
    ];
    for (pairs, want) in rows {
        let mut config = Config::default();
        assert_eq!(config.set(pairs, true).unwrap_err(), *want, "{pairs:?}");
        assert_eq!(
            config.to_pairs(),
            Config::default().to_pairs(),
            "{pairs:?}: nothing changed"
        );
    }
}

#[test]
fn set_changes_fields_and_says_what_changed() {
    let mut config = Config::default();
    let pairs = [
        ("maxmemory", "1gb"),
        ("hz", "10"),
        ("Maxmemory-Policy", "ALLKEYS-LFU"),
        ("save", "900 1  300 10"),
    ];
    assert_eq!(
        config.set(&pairs, false).unwrap(),
        ["maxmemory", "maxmemory-policy", "save"]
    );
    assert_eq!(config.maxmemory, 1 << 30);
    assert_eq!(config.maxmemory_policy, MaxmemoryPolicy::AllkeysLfu);
    assert_eq!(
        config.save,
        [
            SaveRule {
                seconds: 900,
                changes: 1
            },
            SaveRule {
                seconds: 300,
                changes: 10
            }
        ]
    );
    assert_eq!(config.value("save"), Some("900 1 300 10"));
    config
        .set(
            &[
                ("save", ""),
                ("slave-priority", "1"),
                ("replica-priority", "2"),
            ],
            false,
        )
        .unwrap();
    assert_eq!((config.save.len(), config.replica_priority), (0, 2));
    config
        .set(&[("client-output-buffer-limit", "replica 1mb 0 0")], false)
        .unwrap();
    assert_eq!(
        config.client_output_buffer_limit.replica.hard_bytes,
        1 << 20
    );
    assert_eq!(
        config.client_output_buffer_limit.pubsub.soft_seconds, 60,
        "other classes stay"
    );
}

#[test]
fn protected_directives_need_permission() {
    for (setting, is_local, is_allowed) in [
        ("yes", false, true),
        ("local", true, true),
        ("local", false, false),
    ] {
        let mut config = load(&format!("enable-protected-configs {setting}")).config;
        assert_eq!(
            config.set(&[("dbfilename", "x.rdb")], is_local).is_ok(),
            is_allowed,
            "{setting} {is_local}"
        );
    }
}

#[test]
fn files_have_comments_quotes_and_a_last_word() {
    let loaded = load(
        "# comment\n\n  port 7000 \nPort 7001\nrequirepass \"a b\\x21\"\nmasterauth 'it\\'s'\nsave 900 1\nsave 300 10 60 5\n\
         bind 127.0.0.1 -::1\nslaveof primary 6380\nrename-command CONFIG \"\"\nuser bob on nopass ~*\n\
         client-output-buffer-limit replica 1gb 0 0\nhash-max-ziplist-entries 7\nnosuch thing\n",
    );
    let config = &loaded.config;
    assert_eq!(config.port, 7001);
    assert_eq!(config.requirepass.as_deref(), Some("a b!"));
    assert_eq!(config.masterauth.as_deref(), Some("it's"));
    assert_eq!(
        config.value("save"),
        Some("900 1 300 10 60 5"),
        "the first line replaces the default, others add"
    );
    assert_eq!(config.bind, ["127.0.0.1", "-::1"]);
    assert_eq!(
        config.replicaof.as_ref().map(|p| (p.host.as_str(), p.port)),
        Some(("primary", 6380))
    );
    assert_eq!(
        config.renamed_commands,
        [("CONFIG".to_owned(), String::new())]
    );
    assert_eq!(config.users[0].join(" "), "bob on nopass ~*");
    assert_eq!(
        config.client_output_buffer_limit.replica.hard_bytes,
        1 << 30
    );
    assert_eq!(config.hash_max_listpack_entries, 7);
    assert_eq!(
        loaded.warnings,
        ["test.conf:15: unknown directive \"nosuch\" is ignored"]
    );
}

#[test]
fn broken_files_say_where() {
    let rows = [
        (
            "port 1\nport abc",
            "test.conf:2: port abc: argument couldn't be parsed into an integer",
        ),
        ("requirepass \"open", "test.conf:1: unbalanced quotes"),
        ("port", "test.conf:1: port: wrong number of arguments"),
        (
            "port 1 2",
            "test.conf:1: port 1 2: wrong number of arguments",
        ),
        (
            "strict-config yes\nnosuch 1",
            "test.conf:2: unknown directive \"nosuch\" (strict-config is on)",
        ),
        ("include", "test.conf:1: include: wrong number of arguments"),
        (
            "include /no/such/file",
            "test.conf:1: cannot read /no/such/file: No such file or directory (os error 2)",
        ),
    ];
    for (text, want) in rows {
        assert_eq!(
            from_text(text, Path::new("test.conf"))
                .unwrap_err()
                .to_string(),
            want
        );
    }
}

#[test]
fn command_line_wins_over_the_file_and_its_includes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(
        path("main.conf"),
        format!("port 1\ninclude {}\ntimeout 5\n", path("more-*.conf")),
    )
    .unwrap();
    std::fs::write(path("more-1.conf"), "port 2\nhz 50\n").unwrap();
    std::fs::write(path("more-2.conf"), "port 3\n").unwrap();
    let loaded = run(&[&path("main.conf")]).unwrap();
    assert_eq!(
        (loaded.config.port, loaded.config.hz, loaded.config.timeout),
        (3, 50, 5)
    );
    assert_eq!(loaded.path.unwrap(), Path::new(&path("main.conf")));
    let loaded = run(&[
        &path("main.conf"),
        "--port",
        "4",
        "--save",
        "",
        "--list-max-listpack-size",
        "-1",
    ])
    .unwrap();
    assert_eq!(
        (loaded.config.port, loaded.config.list_max_listpack_size),
        (4, -1)
    );
    assert_eq!(loaded.config.save, []);

    std::fs::write(
        path("loop.conf"),
        format!("include {}\n", path("loop.conf")),
    )
    .unwrap();
    assert!(
        run(&[&path("loop.conf")])
            .unwrap_err()
            .contains("nested more than 16 deep")
    );
}

#[test]
fn command_line_takes_the_forms_in_use() {
    assert_eq!(
        run(&["--port 7000", "--save 60 1000", "--appendonly", "yes"])
            .unwrap()
            .config
            .port,
        7000
    );
    assert_eq!(
        run(&["--save", "900", "1", "--save", "300 10"])
            .unwrap()
            .config
            .save
            .len(),
        2
    );
    assert!(
        run(&["--nosuch", "1", "--strict-config", "yes"])
            .unwrap_err()
            .contains("unknown directive \"nosuch\"")
    );
    assert_eq!(
        run(&["--port"]).unwrap_err(),
        "command line: 'port': wrong number of arguments"
    );
    let title = |args: &[&str]| {
        let config = run(args).unwrap().config;
        let title = config.value("proc-title-template").unwrap().to_owned();
        (title, config.value("save").unwrap().to_owned(), config.port)
    };
    for (args, wanted) in [
        (
            &[
                "--proc-title-template",
                "--my--title",
                "--save",
                "--port",
                "7000",
            ][..],
            ("--my--title", "", 7000),
        ),
        (
            &[
                "--proc-title-template --my--title",
                "--port",
                "7000",
                "--save",
            ],
            ("--my--title", "", 7000),
        ),
        (
            &[
                "--proc-title-template",
                "--save",
                "--save",
                "",
                "--port",
                "7000",
            ],
            ("--save", "", 7000),
        ),
    ] {
        let (title, save, port) = title(args);
        assert_eq!((title.as_str(), save.as_str(), port), wanted, "{args:?}");
    }
    for (args, wanted) in [
        (
            &["--port", "6379", "6380"][..],
            "'port \"6379\" \"6380\"': wrong number of arguments",
        ),
        (
            &["--port", "--bla", "--loglevel", "verbose"],
            "'port \"--bla\"': argument couldn't be parsed into an integer",
        ),
        (
            &["--shutdown-on-sigint"],
            "'shutdown-on-sigint': argument(s) must be one of the following",
        ),
        (
            &["--replicaof", "--127.0.0.1", "--abc"],
            "'replicaof \"--127.0.0.1\"': wrong number of arguments",
        ),
    ] {
        let error = run(args).unwrap_err();
        assert!(error.contains(wanted), "{args:?}: {error}");
    }
    assert!(matches!(
        from_args(&["--help".to_owned()], Sources::default()),
        Ok(Invocation::Help)
    ));
    assert!(matches!(
        from_args(&["-v".to_owned()], Sources::default()),
        Ok(Invocation::Version)
    ));
    use std::os::unix::ffi::OsStringExt;
    let args = ["a.conf".into(), OsString::from_vec(b"--a\xff".to_vec())];
    assert_eq!(
        texts(args.into_iter()).unwrap_err().to_string(),
        "command line: argument 2 is not UTF-8: \"--a\\xFF\""
    );
    let config = run(&[]).unwrap().config;
    let here = std::env::current_dir().unwrap();
    assert_eq!(
        config.dir,
        here.to_str().unwrap(),
        "the folder is shown as it is"
    );
    assert_eq!(config.rewrite(""), "", "and nothing has changed");
}

#[test]
fn rewrite_keeps_comments_order_and_lines_that_still_hold() {
    let old = "# my server\nport 7000\nmaxmemory 1gb\n\n# saving\nsave 900 1\nsave 300 10\nhz 20\n";
    let mut config = load(old).config;
    assert_eq!(config.rewrite(old), old);
    let pairs = [
        ("port", "7001"),
        ("save", "60 5"),
        ("timeout", "9"),
        ("requirepass", "a \"b\""),
        ("hz", "10"),
    ];
    config.set(&pairs, false).unwrap();
    let new = config.rewrite(old);
    let want = "# my server\nport 7001\nmaxmemory 1gb\n\n# saving\nsave 60 5\nhz 10\n\
                # Generated by CONFIG REWRITE\ntimeout 9\nrequirepass \"a \\\"b\\\"\"\n";
    assert_eq!(new, want);
    config.rewritten();
    assert_eq!(config.rewrite(&new), new, "nothing left to write");
}

#[test]
fn rewrite_overrules_includes_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let old = format!("port 1\ninclude {}\n", path("more.conf"));
    std::fs::write(path("main.conf"), &old).unwrap();
    std::fs::write(path("more.conf"), "port 2\nsave 10 1\nsave 20 2\n").unwrap();
    let mut config = run(&[&path("main.conf")]).unwrap().config;
    config
        .set(&[("port", "3"), ("save", "30 3 40 4")], false)
        .unwrap();
    std::fs::write(path("main.conf"), config.rewrite(&old)).unwrap();
    let again = run(&[&path("main.conf")]).unwrap().config;
    assert_eq!((again.port, again.value("save")), (3, Some("30 3 40 4")));
}

/// What puts back all that CONFIG GET shows, but for what Redis 7.2 cannot set, is not stopped by directives of ours.
#[test]
fn a_directive_of_ours_takes_the_value_that_it_has() {
    let mut config = Config::default();
    for name in ["threads", "snapshot-dirs", "load-lenient", "strict-config"] {
        let value = config.value(name).unwrap().to_owned();
        assert_eq!(
            config.set(&[(name, value.as_str())], false),
            Ok(vec![]),
            "{name}"
        );
    }
}

/// Any change survives a rewrite and a restart.
#[test]
fn rewritten_files_load_to_the_values_in_force() {
    for row in (ROWS.iter()).filter(|row| !matches!(row.access, Access::Fixed | Access::Kept)) {
        for value in [
            "yes",
            "no",
            "1",
            "1mb",
            "99",
            "x y",
            "",
            "900 1",
            "KEA",
            "7 8 9",
            "normal 1 2 3",
            "50 90",
        ] {
            let old = format!(
                "# first\n{}\n# last\n",
                row.kind.lines(row.name, row.default).join("\n")
            );
            let mut config = load(&old).config;
            if config.set(&[(row.name, value)], true).is_err() {
                continue;
            }
            let new = config.rewrite(&old);
            let again = load(&new).config;
            assert_eq!(
                again.value(row.name),
                config.value(row.name),
                "{} = {value:?}:\n{new}",
                row.name
            );
            assert!(
                new.starts_with("# first\n") && new.contains("# last\n"),
                "{new}"
            );
        }
    }
}
