//! Verbs that read and write a whole Redis Cluster: three real nodes.

mod servers;

use servers::{Redis, command, dfsnap, err, out, succeed, wait_for};
use std::process::{Command, Stdio};

/// Three nodes with all slots; None where there is no redis-server.
fn cluster() -> Option<Vec<Redis>> {
    let settings = [
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "10000",
    ];
    let nodes: Option<Vec<Redis>> = (0..3).map(|_| Redis::start(&settings)).collect();
    let nodes = nodes?;
    let addresses: Vec<String> = nodes
        .iter()
        .map(|node| format!("127.0.0.1:{}", node.port))
        .collect();
    let created = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(&addresses)
        .arg("--cluster-yes")
        .output()
        .unwrap();
    assert!(created.status.success(), "{}", out(&created));
    wait_for("a cluster", || {
        nodes
            .iter()
            .all(|node| node.text(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
    });
    Some(nodes)
}

fn url(nodes: &[Redis]) -> String {
    format!("redis+cluster://127.0.0.1:{}", nodes[1].port)
}

/// Some of everything, all in one database.
fn fill(redis: &Redis) {
    redis.call(&["DEBUG", "POPULATE", "3000", "many", "40"]);
    redis.call(&[
        "FUNCTION",
        "LOAD",
        "#!lua name=lib\nredis.register_function('f', function() return 1 end)",
    ]);
    for key in 0..40 {
        let name = |kind: &str| format!("{kind}:{{{key}}}");
        for i in 0..key * 20 {
            let text = format!("{i}:{}", "w".repeat(i % 90));
            redis.call(&["RPUSH", &name("list"), &text]);
            redis.call(&["HSET", &name("hash"), &text, "v"]);
            redis.call(&["ZADD", &name("zset"), &i.to_string(), &text]);
            redis.call(&["SADD", &name("set"), &text]);
        }
        redis.call(&["SET", &name("expiring"), "x", "EX", "5000"]);
        redis.call(&["XADD", &name("stream"), "5-1", "f", "v"]);
        // Names that no tag of the plain kind could stand beside.
        redis.call(&["SADD", &format!("}}{{{key}"), "x"]);
    }
}

fn keys_of(nodes: &[Redis]) -> Vec<u64> {
    let size = |node: &Redis| node.text(&["DBSIZE"]).parse().unwrap();
    nodes.iter().map(size).collect()
}

#[test]
fn keys_go_to_their_nodes_and_come_back() {
    let (Some(source), Some(nodes)) = (Redis::start(&[]), cluster()) else {
        return;
    };
    fill(&source);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (dump, url) = (path("dump.rdb"), url(&nodes));
    succeed(&["backup", &source.url(), &dump]);
    let text = succeed(&["restore", &dump, &url, "--dry-run"]);
    assert!(text.contains("nothing was changed"), "{text}");
    for more in [
        &[][..],
        &["--flush", "--commands"],
        &["--replace", "--parts-over", "1kb"],
    ] {
        let text = succeed(&[&["restore", &dump, &url, "--verify"], more].concat());
        assert!(text.contains(" keys are equal"), "{text}");
        let keys = keys_of(&nodes);
        assert!(keys.iter().all(|keys| *keys > 500), "{keys:?}");
        assert_eq!(
            keys.iter().sum::<u64>().to_string(),
            source.text(&["DBSIZE"]),
            "{more:?}"
        );
        // Nothing is left under a temporary name.
        for node in &nodes {
            assert_eq!(
                node.call(&["KEYS", "dfsnap:*"]).as_slice().map(<[_]>::len),
                Some(0)
            );
        }
        succeed(&["diff", &dump, &url]);
    }
    assert_eq!(
        err(&dfsnap(&["restore", &dump, &url]))
            .matches("holds")
            .count(),
        1
    );
    assert_eq!(
        succeed(&["digest", "--legacy", &url]).trim(),
        source.digest()
    );
    assert_eq!(
        nodes[2]
            .call(&["FUNCTION", "LIST"])
            .as_slice()
            .map(<[_]>::len),
        Some(1)
    );

    // The whole cluster in one dump, in both forms, and in another cluster's place.
    // Dragonfly's files have no place for functions.
    for (name, form, loss) in [
        ("back.rdb", "rdb", &[][..]),
        ("back", "dfs", &["--allow-loss"]),
    ] {
        let back = path(name);
        let text = succeed(&[&["backup", &url, &back, "--format", form], loss].concat());
        let wanted = source.digest();
        assert!(text.contains("functions  1 libraries"), "{text}");
        assert_eq!(succeed(&["digest", "--legacy", &back]).trim(), wanted);
        source.call(&["FLUSHALL"]);
        source.call(&["FUNCTION", "FLUSH"]);
        succeed(&["restore", &back, &source.url(), "--verify"]);
        assert_eq!(source.digest(), wanted);
    }
    let text = succeed(&["inspect", &url]);
    assert!(
        text.contains(&format!("keys       {}", source.text(&["DBSIZE"]))),
        "{text}"
    );
}

#[test]
fn keys_are_followed_where_slots_move() {
    let (Some(source), Some(nodes)) = (Redis::start(&[]), cluster()) else {
        return;
    };
    fill(&source);
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.rdb").display().to_string();
    succeed(&["backup", &source.url(), &dump]);
    // One slot is on its way for good: keys that are not there yet belong to the other node.
    let slot = nodes[0].text(&["CLUSTER", "KEYSLOT", "list:{7}"]);
    let id = |node: &Redis| node.text(&["CLUSTER", "MYID"]);
    let slots = nodes[0].text(&["CLUSTER", "NODES"]);
    let owner = slots.lines().find(|line| {
        line.split_whitespace().skip(8).any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| text.parse::<u32>().unwrap_or(u32::MAX);
            (number(first)..=number(last)).contains(&number(&slot))
        })
    });
    let owner_id = owner.unwrap().split_whitespace().next().unwrap().to_owned();
    let from = nodes.iter().find(|node| id(node) == owner_id).unwrap();
    let to = nodes.iter().find(|node| id(node) != owner_id).unwrap();
    to.text(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
    from.text(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    // Others move while keys come.
    let url = url(&nodes);
    let restoring = command(&[
        "restore",
        &dump,
        &url,
        "--rate",
        "1000",
        "--connections",
        "3",
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    wait_for("the first keys", || {
        keys_of(&nodes).iter().sum::<u64>() > 100
    });
    move_empty_slots(&nodes, to, &slot);
    let output = restoring.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(
        keys_of(&nodes).iter().sum::<u64>().to_string(),
        source.text(&["DBSIZE"])
    );
    assert!(
        to.text(&["CLUSTER", "COUNTKEYSINSLOT", &slot])
            .parse::<u32>()
            .unwrap()
            > 0
    );
    assert_eq!(from.text(&["CLUSTER", "COUNTKEYSINSLOT", &slot]), "0");
    to.text(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
    from.text(&["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
    let same = || dfsnap(&["diff", &dump, &url]).status.code() == Some(0);
    wait_for("equal data", same);
}

/// Gives a part of the slots without keys to one node, but for the slot `except`.
fn move_empty_slots(nodes: &[Redis], to: &Redis, except: &str) {
    let id = to.text(&["CLUSTER", "MYID"]);
    for number in (0..16_384).step_by(97) {
        let number = number.to_string();
        let has = |node: &Redis| {
            let count = node.call(&["CLUSTER", "COUNTKEYSINSLOT", &number]);
            count != dfsnap_formats::resp::Frame::Int(0)
        };
        // An empty slot changes hands at once.
        if number == except || nodes.iter().any(has) {
            continue;
        }
        for node in nodes {
            node.call(&["CLUSTER", "SETSLOT", &number, "NODE", &id]);
        }
    }
}

#[test]
fn large_values_go_where_their_slot_is_by_then() {
    let (Some(source), Some(nodes)) = (Redis::start(&["--rdbcompression", "no"]), cluster()) else {
        return;
    };
    // One of them in each slot that moves.
    let slots: std::collections::BTreeSet<u16> = (0..16_384).step_by(97).collect();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0.. {
        let name = format!("list:{number}");
        let slot = dfsnap_formats::slot::slot(name.as_bytes());
        if slots.contains(&slot) && seen.insert(slot) {
            let elements: Vec<String> =
                (0..60).map(|i| format!("{i}:{}", "w".repeat(60))).collect();
            let mut words = vec!["RPUSH", &name];
            words.extend(elements.iter().map(String::as_str));
            source.call(&words);
        }
        if seen.len() == slots.len() {
            break;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.rdb").display().to_string();
    succeed(&["backup", &source.url(), &dump]);
    let url = url(&nodes);
    let args = [
        "restore",
        &dump,
        &url,
        "--parts-over",
        "2kb",
        "--rate",
        "40",
        "--json",
    ];
    let restoring = command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the first keys", || keys_of(&nodes).iter().sum::<u64>() > 3);
    move_empty_slots(&nodes, &nodes[0], "");
    let output = restoring.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let report: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(report["in_parts"], slots.len(), "{report}");
    let keys = keys_of(&nodes);
    assert!(keys[0] > 100, "{keys:?}: no slot was moved in time");
    let same = || dfsnap(&["diff", &dump, &url]).status.code() == Some(0);
    wait_for("equal data", same);
}

#[test]
fn what_a_cluster_cannot_hold_is_refused() {
    let (Some(source), Some(nodes)) = (Redis::start(&[]), cluster()) else {
        return;
    };
    source.call(&["SELECT", "3"]);
    source.call(&["SET", "x", "1"]);
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.rdb").display().to_string();
    succeed(&["backup", &source.url(), &dump]);
    let url = url(&nodes);
    let single = format!("redis+cluster://127.0.0.1:{}", source.port);
    let state = folder.path().join("state").display().to_string();
    let node = format!("redis://127.0.0.1:{}", nodes[0].port);
    let rows: [(&[&str], &str); 6] = [
        (&["restore", &dump, &url], "a cluster has only database 0"),
        (
            &["migrate", &url, &source.url(), "--state", &state],
            "a whole cluster is not migrated",
        ),
        (
            &["migrate", &source.url(), &node, "--state", &state],
            "this is one of 3 nodes of a cluster",
        ),
        (&["restore", &dump, &single], "cluster support disabled"),
        (
            &["migrate", &source.url(), &url, "--state", &state],
            "a whole cluster is not migrated",
        ),
        (
            &["backup", &url, &dump, "--scan"],
            "--scan reads one server",
        ),
    ];
    for (args, want) in rows {
        let output = dfsnap(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(err(&output).contains(want), "{args:?}: {}", err(&output));
    }
    succeed(&[
        "restore",
        &dump,
        &url,
        "--to-db",
        "0",
        "--verify",
        "--checkpoint",
        &state,
    ]);
    // What one node has can be followed, and it is said that there are others.
    source.call(&["FLUSHALL"]);
    let moving = folder.path().join("moving").display().to_string();
    let args = ["migrate", &node, &source.url(), "--state", &moving];
    let output = dfsnap(&[&args[..], &["--until-caught-up"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = err(&output);
    assert!(text.contains("is one of 3 nodes of a cluster"), "{text}");
    nodes[0].text(&["CLUSTER", "DELSLOTS", "0"]);
    let output = dfsnap(&[
        "digest",
        &format!("redis+cluster://127.0.0.1:{}", nodes[0].port),
    ]);
    assert!(
        err(&output).contains("nobody has 1 of the 16384 slots"),
        "{}",
        err(&output)
    );
}

/// Lines of JSON of the streams of all nodes, by node.
fn followed(text: &str) -> std::collections::BTreeMap<String, Vec<serde_json::Value>> {
    let mut found = std::collections::BTreeMap::<_, Vec<_>>::new();
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let node = line["node"].as_str().unwrap().to_owned();
        found.entry(node).or_default().push(line);
    }
    found
}

#[test]
fn the_streams_of_all_nodes_are_followed_and_go_on() {
    let Some(nodes) = cluster() else { return };
    let url = url(&nodes);
    let follow = |from: &str| {
        let mut args = vec!["follow", &url, "--json"];
        if !from.is_empty() {
            args.extend(["--from", from]);
        }
        let child = command(&args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for("all links", || {
            nodes
                .iter()
                .all(|node| node.info("slave0").contains("state=online"))
        });
        child
    };
    let end = |child: std::process::Child| {
        let sent = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        wait_for("no links", || {
            nodes
                .iter()
                .all(|node| node.info("connected_slaves") == "0")
        });
        let told = err(&output);
        let positions = told.lines().last().unwrap().to_owned();
        let positions = positions
            .strip_prefix("note: ended at ")
            .and_then(|rest| rest.strip_suffix("; --from goes on there"));
        (out(&output), positions.unwrap().to_owned())
    };
    // Each key by the node that has it.
    let set = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            let key = format!("key:{number}");
            let is_taken = |node: &&Redis| {
                let reply = node.call(&["SET", &key, &number.to_string()]);
                !matches!(reply, dfsnap_formats::resp::Frame::Error(_))
            };
            assert!(nodes.iter().any(|node| is_taken(&node)));
        }
    };
    let acked = |child: &std::process::Child| {
        let _ = child;
        wait_for("acknowledgements", || {
            nodes.iter().all(|node| {
                let (slave, offset) = (node.info("slave0"), node.info("master_repl_offset"));
                slave.contains(&format!("offset={offset},"))
            })
        });
    };
    let first = follow("");
    set(0..200);
    acked(&first);
    let (text, positions) = end(first);
    set(200..400);
    let second = follow(&positions);
    set(400..600);
    acked(&second);
    let (more, _) = end(second);
    let mut keys = Vec::new();
    for text in [&text, &more] {
        let found = followed(text);
        assert_eq!(found.len(), 3, "{text}");
        for lines in found.values() {
            let offsets: Vec<u64> = lines
                .iter()
                .map(|l| l["offset"].as_u64().unwrap())
                .collect();
            assert!(offsets.is_sorted(), "{offsets:?}");
            let commands = lines
                .iter()
                .flat_map(|line| line["commands"].as_array().unwrap());
            let sets = commands.filter(|command| command["words"][0] == "SET");
            keys.extend(sets.map(|command| command["words"][2].as_str().unwrap().to_owned()));
        }
    }
    // Nothing is missing, and nothing is there twice.
    let mut numbers: Vec<u32> = keys.iter().map(|text| text.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..600).collect::<Vec<u32>>());
    let counted = succeed_with_count(&url, &nodes);
    assert_eq!(counted.lines().count(), 5, "{counted}");
    let output = dfsnap(&[
        "follow",
        &url,
        "--from",
        "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb:7",
    ]);
    assert!(
        err(&output).contains("none of the cluster's primaries"),
        "{}",
        err(&output)
    );
}

/// Follows until five transactions are printed, of whatever node.
fn succeed_with_count(url: &str, nodes: &[Redis]) -> String {
    let child = command(&["follow", url, "--count", "5"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("all links", || {
        nodes
            .iter()
            .all(|node| node.info("slave0").contains("state=online"))
    });
    for number in 0..30 {
        for node in nodes {
            node.call(&["SET", &format!("key:{number}"), "x"]);
        }
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    out(&output)
}
