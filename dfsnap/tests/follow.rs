//! `dfsnap follow` against a real server: what is printed, from where, and over links that are lost.

mod servers;

use servers::{Load, Proxy, Redis, command, dfsnap, err, fill, out, wait_for};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::atomic::Ordering;

/// Starts and waits until the server counts it as a replica that is up to date.
fn follow(redis: &Redis, url: &str, args: &[&str]) -> Child {
    let args = [&["follow", url], args].concat();
    let child = command(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("replica", || redis.info("slave0").contains("state=online"));
    child
}

#[test]
fn changes_are_printed_whole_and_go_on_from_a_position() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    fill(&redis);
    let child = follow(&redis, &redis.url(), &["--json", "--count", "3"]);
    redis.call(&["SET", "a", "1"]);
    redis.call(&["MULTI"]);
    redis.call(&["INCR", "a"]);
    redis.call(&["SELECT", "3"]);
    redis.call(&[&b"SET"[..], b"b", b"\xff\x00"]);
    redis.call(&["EXEC"]);
    redis.call(&["DEL", "elsewhere"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let lines: Vec<serde_json::Value> = out(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let want = serde_json::json!([
        [{"db": 0, "words": ["SET", "a", "1"]}],
        [{"db": 0, "words": ["INCR", "a"]}, {"db": 3, "words": ["SET", "b", {"base64": "/wA="}]}],
        [{"db": 3, "words": ["DEL", "elsewhere"]}],
    ]);
    let found: Vec<_> = lines.iter().map(|line| line["commands"].clone()).collect();
    assert_eq!(serde_json::Value::from(found), want);
    assert_eq!(
        lines[2]["offset"].as_u64().unwrap().to_string(),
        redis.info("master_repl_offset")
    );

    // What was printed first is a position; from there the others come again.
    let text = |at: usize, field: &str| lines[at][field].to_string().trim_matches('"').to_owned();
    let from = format!(
        "{}:{}:{}",
        text(0, "replid"),
        text(0, "offset"),
        text(0, "db")
    );
    let again = dfsnap(&["follow", &redis.url(), "--from", &from, "--count", "2"]);
    assert_eq!(again.status.code(), Some(0), "{}", err(&again));
    let printed = out(&again);
    assert!(printed.contains("transaction of 2 commands"), "{printed}");
    assert!(
        printed.contains("db3  SET \"b\" \"\\xff\\x00\""),
        "{printed}"
    );
    assert!(printed.contains("db3  DEL \"elsewhere\""), "{printed}");
    assert!(!printed.contains("\"a\" \"1\""), "{printed}");
}

#[test]
fn position_that_is_gone_is_an_error_and_not_a_gap() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let from = format!("{}:5:0", "a".repeat(40));
    let output = dfsnap(&["follow", &redis.url(), "--from", &from]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("cannot go on"), "{}", err(&output));
    let output = dfsnap(&["follow", &redis.url(), "--from", "x:5"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn lost_links_leave_no_gap_and_nothing_twice() {
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    let proxy = Proxy::start(&redis, 0);
    let mut child = follow(&redis, &proxy.url(), &["--json"]);
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let reading = std::thread::spawn(move || {
        let lines = stdout.lines().map(Result::unwrap);
        lines
            .take_while(|line| !line.contains("\"last\""))
            .collect::<Vec<String>>()
    });
    proxy.cuts_left.store(5, Ordering::Relaxed);
    let load = Load::start(&redis, 1);
    wait_for("five cuts", || proxy.cuts_left.load(Ordering::Relaxed) == 0);
    load.stop();
    redis.call(&["SET", "last", "1"]);
    let mut counts = Vec::new();
    for line in reading.join().unwrap() {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let commands = line["commands"].as_array().unwrap();
        let halves: Vec<_> = commands
            .iter()
            .filter(|command| command["words"][1].to_string().contains("half:0:"))
            .collect();
        assert!([0, 2].contains(&halves.len()), "half a transaction: {line}");
        if let [a, b] = halves[..] {
            assert_eq!(a["words"][2], b["words"][2], "{line}");
            counts.push(a["words"][2].as_str().unwrap().parse::<usize>().unwrap());
        }
    }
    let want: Vec<usize> = (0..counts.len()).collect();
    assert_eq!(counts, want);
    assert!(counts.len() > 50);
    let signalled = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(signalled.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let position = format!(
        "{}:{}:",
        redis.info("master_replid"),
        redis.info("master_repl_offset")
    );
    assert!(err(&output).contains(&position), "{}", err(&output));
}

#[test]
fn help_of_verbs_for_live_servers_ends_with_examples() {
    for verb in ["backup", "restore", "follow", "migrate"] {
        let output = dfsnap(&[verb, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{verb}");
        let text = out(&output);
        let (options, examples) = text
            .split_once("\nExamples:\n")
            .unwrap_or_else(|| panic!("{verb}: {text}"));
        assert!(
            options.contains("--password-file") && options.contains("--json"),
            "{verb}"
        );
        assert!(examples.matches("dfsnap ").count() >= 3, "{verb}");
        let short = out(&dfsnap(&[verb, "-h"]));
        assert!(short.len() < text.len(), "{verb}: two lengths");
    }
}
