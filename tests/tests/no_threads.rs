//! A system that has no thread to give: what needs one is refused, and everything else goes on.

use std::fs::File;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dfsnap_tests::client::{Client, Reply};
use dfsnap_tests::process::{free_port, our_binary};
use dfsnap_tests::wait_for;
use rustix::process::geteuid;

const LIMIT: Duration = Duration::from_secs(60);
/// The user that owns nothing.
const NOBODY: u32 = 65534;

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// `None`: it cannot run as somebody whose threads the system limits.
    fn start(folder: &Path, args: &[&str]) -> Option<Server> {
        let port = free_port();
        let log = File::create(folder.join("server.log")).expect("a log");
        let mut command = Command::new(our_binary());
        if geteuid().is_root() {
            // Root may have as many threads as it likes.
            for path in [folder, &folder.join("users.acl")] {
                chown(path, Some(NOBODY), None).expect("nobody's folder");
            }
            command.uid(NOBODY);
        }
        let child = command
            .args(["--port", &port.to_string(), "--dir"])
            .arg(folder)
            .args(["--bind", "127.0.0.1", "--save", "", "--threads", "2"])
            .args(["--enable-debug-command", "yes"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(log)
            .spawn();
        let child = match child {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                println!("skipped: the server cannot be run as nobody from where it is: {error}");
                return None;
            }
            Err(error) => panic!("a server: {error}"),
        };
        let server = Server { child, port };
        wait_for("the server", LIMIT, || {
            let mut client = Client::connect(port).ok()?;
            (!client.try_call(&["PING"]).ok()?.is_error()).then_some(())
        });
        Some(server)
    }

    /// From now on the process gets no thread: its user has more than it may have.
    fn take_threads_away(&self) {
        let mut command = Command::new("prlimit");
        if geteuid().is_root() {
            // It need not have the right to limit somebody else.
            command.uid(NOBODY);
        }
        let pid = self.child.id().to_string();
        let status = command.args(["--nproc=1:1", "--pid", &pid]).status();
        assert!(status.is_ok_and(|status| status.success()), "prlimit");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn refused(client: &mut Client, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let reply = client.call(&words);
    assert!(reply.is_error(), "{line}: {reply:?}");
    assert_eq!(client.ask("PING").text(), "PONG", "after {line}");
}

#[test]
fn what_needs_a_thread_is_refused_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(
        folder.path().join("users.acl"),
        "user default on nopass ~* &* +@all\n",
    )
    .expect("users");
    let Some(server) = Server::start(folder.path(), &["--aclfile", "users.acl"]) else {
        return;
    };
    let mut client = Client::connect(server.port).expect("a client");
    client.ask("DEBUG POPULATE 30000 k 10");
    let script = "for i = 1, 60000 do redis.call('ZADD', KEYS[1], i, i) end";
    client.call(&["EVAL", script, "1", "large"]);
    assert_eq!(client.ask("SAVE").text(), "OK");
    let keys = client.ask("DBSIZE").number();
    let digest = client.ask("DEBUG DIGEST").text();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("its address").port();

    server.take_threads_away();

    for line in [
        "SAVE",
        "SAVE DF",
        "ACL SAVE",
        "ACL LOAD",
        "DEBUG RELOAD NOSAVE",
        "DEBUG RELOAD",
    ] {
        refused(&mut client, line);
    }
    refused(
        &mut client,
        &format!("MIGRATE localhost {silent} k:1 0 1000"),
    );
    refused(&mut client, "BGSAVE");
    assert_eq!(client.info("rdb_last_bgsave_status"), Some("err".into()));
    client.ask("CONFIG SET stop-writes-on-bgsave-error no");
    client.ask(&format!("REPLICAOF localhost {silent}"));
    wait_for("a link that does not come up", LIMIT, || {
        let log = std::fs::read_to_string(folder.path().join("server.log")).ok()?;
        log.contains("thread").then_some(())
    });
    client.ask("REPLICAOF NO ONE");
    // Run beside its shard, and freed there: those threads are as old as the server.
    let union = client.call(&["ZUNIONSTORE", "copy", "2", "large", "large"]);
    assert_eq!(union, Reply::Int(60_000));
    assert_eq!(client.ask("DEL copy").number(), Some(1));
    assert_eq!(client.ask("DBSIZE").number(), keys);
    assert_eq!(client.ask("DEBUG DIGEST").text(), digest);
}
