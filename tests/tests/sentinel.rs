//! Real Sentinels, three of them, watch a group of servers: they find its replicas, fail over when the primary is gone, and make the old
//! primary a replica when it is back. Groups of ours, and mixed ones.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::process::{Kind, Server, free_port, has_program};
use dfsnap_tests::wait_for;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(90);

/// A Sentinel; it ends with this value.
struct Sentinel {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Sentinel {
    fn watching(primary: &Server) -> Sentinel {
        let (port, folder) = (free_port(), TempDir::new().expect("a folder"));
        let config = format!(
            "port {port}\nbind 127.0.0.1\nlogfile sentinel.log\n\
             sentinel monitor group 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds group 1500\n\
             sentinel failover-timeout group 20000\n\
             sentinel parallel-syncs group 2\n",
            primary.port
        );
        let path = folder.path().join("sentinel.conf");
        fs::write(&path, config).expect("a file");
        let child = Command::new("redis-sentinel")
            .arg(&path)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-sentinel runs");
        Sentinel {
            child,
            port,
            folder,
        }
    }

    fn client(&self) -> Client {
        wait_for("a Sentinel", LIMIT, || Client::connect(self.port).ok())
    }

    fn primary_port(&self) -> u16 {
        let reply = self
            .client()
            .call(&["SENTINEL", "get-master-addr-by-name", "group"]);
        reply.items()[1].number().expect("a port") as u16
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("sentinel.log")).unwrap_or_default()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("log of the Sentinel on {}:\n{}", self.port, self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number that a Sentinel tells of the group under this name.
fn told(reply: &Reply, name: &str) -> Option<i64> {
    let items = reply.items();
    let at = items
        .iter()
        .position(|item| *item == Reply::Text(name.into()))?;
    items[at + 1].number()
}

fn start(kind: Kind, args: &[&str]) -> Server {
    let own: &[&str] = if kind == Kind::Ours {
        &["--threads", "2"]
    } else {
        &[]
    };
    let server = Server::spawn(kind, &[own, args].concat());
    server.wait_until_ready();
    server
}

/// A field of INFO; `None` also while a Sentinel cuts connections, as it does when it changes a role.
fn field(server: &Server, name: &str) -> Option<String> {
    let mut client = Client::connect(server.port).ok()?;
    let Reply::Text(text) = client.try_call(&["INFO", "everything"]).ok()? else {
        return None;
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned())
}

/// The reply to one command, if the connection lives so long.
fn once(server: &Server, words: &[&str]) -> Option<Reply> {
    Client::connect(server.port).ok()?.try_call(words).ok()
}

fn fails_over(kinds: [Kind; 3]) {
    if !has_program("redis-sentinel") || !has_program("redis-server") {
        return;
    }
    let mut first = start(kinds[0], &[]);
    let address = format!("127.0.0.1 {}", first.port);
    let replicas = [kinds[1], kinds[2]].map(|kind| start(kind, &["--replicaof", &address]));
    first.client().ask("SET k before");
    let sentinels = [(); 3].map(|()| Sentinel::watching(&first));
    for sentinel in &sentinels {
        let mut client = sentinel.client();
        wait_for("everybody knows everybody", LIMIT, || {
            let reply = client.call(&["SENTINEL", "master", "group"]);
            let counts = (
                told(&reply, "num-slaves")?,
                told(&reply, "num-other-sentinels")?,
            );
            (counts == (2, 2)).then_some(())
        });
    }
    wait_for("both replicas are up", LIMIT, || {
        let is_up = |server| field(server, "master_link_status").as_deref() == Some("up");
        replicas.iter().all(is_up).then_some(())
    });
    first.kill();
    let port = wait_for("a failover", LIMIT, || {
        let ports = sentinels.each_ref().map(Sentinel::primary_port);
        let is_agreed = ports.iter().all(|port| *port == ports[0]);
        (is_agreed && ports[0] != first.port).then_some(ports[0])
    });
    let promoted = replicas.iter().find(|server| server.port == port);
    let other = replicas.iter().find(|server| server.port != port);
    let (promoted, other) = (promoted.expect("a replica"), other.expect("a replica"));
    wait_for("it is a primary", LIMIT, || {
        (field(promoted, "role")? == "master").then_some(())
    });
    wait_for("what was there is there", LIMIT, || {
        (once(promoted, &["GET", "k"])? == Reply::Text(b"before".to_vec())).then_some(())
    });
    wait_for("it takes writes", LIMIT, || {
        (!once(promoted, &["SET", "k", "after"])?.is_error()).then_some(())
    });
    let follows = |server: &Server| {
        wait_for("it follows the new primary", LIMIT, || {
            let is_told = field(server, "master_port")? == port.to_string();
            let is_up = field(server, "master_link_status")? == "up";
            let value = once(server, &["GET", "k"])?;
            (is_told && is_up && value == Reply::Text(b"after".to_vec())).then_some(())
        });
    };
    follows(other);
    let full = wait_for("its count", LIMIT, || field(promoted, "sync_full"));
    assert_eq!(full, "0", "the other replica went on with what it lacked");
    first.restart();
    follows(&first);
}

#[test]
fn a_group_of_ours() {
    fails_over([Kind::Ours; 3]);
}

#[test]
fn a_mixed_group() {
    fails_over([Kind::Ours, Kind::Redis, Kind::Ours]);
    fails_over([Kind::Redis, Kind::Ours, Kind::Ours]);
}
