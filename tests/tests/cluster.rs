//! The cluster protocol of a node that owns all slots, compared with a real one that does.

use std::time::Duration;

use dfsnap_tests::client::Reply;
use dfsnap_tests::process::{Server, has_program};
use dfsnap_tests::wait_for;

#[test]
fn a_node_with_all_slots_answers_as_redis() {
    if !has_program("redis-server") {
        return;
    }
    let redis = Server::redis(&["--cluster-enabled", "yes"]);
    let ours = Server::ours(&["--cluster-enabled", "yes", "--threads", "2"]);
    let mut clients = [redis.client(), ours.client()];
    clients[0].ask("CLUSTER ADDSLOTSRANGE 0 16383");
    wait_for("its state", Duration::from_secs(20), || {
        let text = clients[0].ask("CLUSTER INFO").text();
        text.starts_with("cluster_state:ok").then_some(())
    });
    for line in [
        "CLUSTER KEYSLOT foo",
        "CLUSTER COUNTKEYSINSLOT 16384",
        "CLUSTER COUNTKEYSINSLOT x",
        "CLUSTER GETKEYSINSLOT 0 -1",
        "CLUSTER GETKEYSINSLOT 99999 1",
        "CLUSTER GETKEYSINSLOT 0 x",
        "CLUSTER REPLICAS x",
        "CLUSTER LINKS",
        "CLUSTER FOO",
        "CLUSTER SLOTS x",
        "CLUSTER",
        "READONLY",
        "READWRITE",
        "ASKING",
        "MSET a 1 b 2",
        "MSET {x}a 1 {x}b 2",
        "SET a 1",
        "CLUSTER COUNTKEYSINSLOT 15495",
        "CLUSTER GETKEYSINSLOT 15495 10",
        "SELECT 1",
        "SELECT 0",
        "SWAPDB 0 1",
        "MOVE a 1",
        "COPY a {a}b DB 1",
        "COPY a {a}b",
        "SORT a BY x*",
        "SORT l GET #",
        "SSUBSCRIBE a b",
        "REPLICAOF 127.0.0.1 1",
        "MULTI",
        "SET a 1",
        "MSET a 1 b 1",
        "EXEC",
        "MULTI",
        "SET a 1",
        "SET b 1",
        "EXEC",
        "INFO cluster",
        "CLUSTER ADDSLOTS 1 x",
        "CLUSTER ADDSLOTS 16384",
        "CLUSTER ADDSLOTSRANGE 1 2 3",
        "CLUSTER ADDSLOTSRANGE 5 4",
        "CLUSTER ADDSLOTSRANGE -1 4",
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [wanted, got] = clients.each_mut().map(|client| client.call(&words));
        assert_eq!(got, wanted, "{line}");
    }
}

/// Whoever sets up a cluster gives its node the slots. This one has them already.
#[test]
fn slots_are_given_once_more_without_complaint_and_a_wrong_wish_is_told() {
    let server = Server::ours(&["--cluster-enabled", "yes"]);
    let mut client = server.client();
    for (line, wanted) in [
        ("CLUSTER ADDSLOTSRANGE 0 16383", "OK"),
        ("CLUSTER ADDSLOTSRANGE 0 99 200 16383", "OK"),
        ("CLUSTER ADDSLOTS 0 1 16383", "OK"),
        (
            "CLUSTER ADDSLOTS 7 7",
            "ERR Slot 7 specified multiple times",
        ),
        (
            "CLUSTER ADDSLOTSRANGE 0 9 5 6",
            "ERR Slot 5 specified multiple times",
        ),
        (
            "CLUSTER DELSLOTS 1",
            "ERR This cluster has one node, which owns all slots and keeps them",
        ),
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let reply = client.call(&words);
        let text = match reply {
            Reply::Error(text) => text,
            reply => reply.text(),
        };
        assert_eq!(text, wanted, "{line}");
    }
}

/// A script whose commands have keys of several slots would not run in a cluster of several nodes: it is told here already.
#[test]
fn scripts_keep_to_one_slot_as_in_redis() {
    if !has_program("redis-server") {
        return;
    }
    let redis = Server::redis(&["--cluster-enabled", "yes"]);
    redis.client().ask("CLUSTER ADDSLOTSRANGE 0 16383");
    wait_for("its state", Duration::from_secs(20), || {
        let text = redis.client().ask("CLUSTER INFO").text();
        text.starts_with("cluster_state:ok").then_some(())
    });
    let set = |keys: &[&str]| {
        let calls = keys
            .iter()
            .map(|key| format!("redis.call('set', '{key}', 1) "));
        calls.collect::<String>() + "return 'done'"
    };
    let two = set(&["foo", "bar"]);
    let library = |flags: &str| {
        format!(
            "#!lua name=l\nredis.register_function{{function_name='f', callback=function(keys) {two} end{flags}}}"
        )
    };
    let (strict, wide) = (library(""), library(", flags={'allow-cross-slot-keys'}"));
    let flag = format!("#!lua flags=allow-cross-slot-keys\n{two}");
    let (plain, tagged) = (format!("#!lua\n{two}"), set(&["{x}a", "{x}b"]));
    let rows: &[&[&str]] = &[
        &["EVAL", &two, "0"],
        &["EVAL", &two, "1", "foo"],
        &["EVAL", &plain, "0"],
        &["EVAL", &plain, "1", "foo"],
        &["EVAL", &format!("#!lua\n{}", set(&["foo"])), "1", "bar"],
        &["EVAL", &format!("#!lua\n{tagged}"), "1", "{x}c"],
        &["EVAL", &flag, "0"],
        &["EVAL", "return redis.call('mset', 'foo', 1, 'bar', 1)", "0"],
        &[
            "EVAL",
            "return redis.pcall('mset', 'foo', 1, 'bar', 1)",
            "0",
        ],
        &["EVAL", "return redis.call('select', 1)", "0"],
        &["EVAL", "return redis.call('select', 0)", "0"],
        &[
            "EVAL",
            "return redis.call('mset', '{x}foo', 1, '{x}bar', 1)",
            "0",
        ],
        &["FUNCTION", "LOAD", "REPLACE", &strict],
        &["FCALL", "f", "0"],
        &["FUNCTION", "LOAD", "REPLACE", &wide],
        &["FCALL", "f", "0"],
        &["EXISTS", "foo"],
    ];
    for threads in ["1", "3"] {
        let ours = Server::ours(&["--cluster-enabled", "yes", "--threads", threads]);
        redis.client().ask("FLUSHALL");
        let mut clients = [redis.client(), ours.client()];
        for row in rows {
            let [wanted, got] = clients.each_mut().map(|client| client.call(row));
            assert_eq!(got, wanted, "{row:?}, {threads} threads");
        }
    }
}

#[test]
fn a_node_keeps_its_id_and_names_itself() {
    let mut server = Server::ours(&["--cluster-enabled", "yes"]);
    let id = server.client().ask("CLUSTER MYID").text();
    server.terminate();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.ask("CLUSTER MYID").text(), id);
    let port = i64::from(server.port);
    let slots = client.ask("CLUSTER SLOTS");
    let range = slots.items()[0].items();
    assert_eq!(range[..2], [Reply::Int(0), Reply::Int(16383)]);
    let node = range[2].items();
    assert_eq!(node[0].text(), "127.0.0.1");
    assert_eq!(node[1], Reply::Int(port));
    assert_eq!(node[2].text(), id);
    let nodes = client.ask("CLUSTER NODES").text();
    let wanted = format!("{id} 127.0.0.1:{port}@{} myself,master - 0 ", port + 10_000);
    assert!(nodes.starts_with(&wanted), "{nodes}");
    client.ask("CONFIG SET cluster-announce-ip 10.0.0.1");
    assert!(client.ask("CLUSTER NODES").text().contains(" 10.0.0.1:"));
}

#[test]
fn redis_cli_finds_the_cluster_whole() {
    let server = Server::ours(&["--cluster-enabled", "yes", "--threads", "2"]);
    let Some(output) = has_program("redis-cli").then(|| {
        std::process::Command::new("redis-cli")
            .args(["--cluster", "check", &format!("127.0.0.1:{}", server.port)])
            .output()
            .expect("redis-cli")
    }) else {
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("All 16384 slots covered."), "{text}");
}
