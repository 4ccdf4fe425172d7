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
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [wanted, got] = clients.each_mut().map(|client| client.call(&words));
        assert_eq!(got, wanted, "{line}");
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
