//! What init scripts and supervisors rely on: the pid file, systemd's notice, the background, and what SIGTERM does.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dfsnap_tests::client::Client;
use dfsnap_tests::process::{Server, free_port, our_binary};
use dfsnap_tests::wait_for;

const LIMIT: Duration = Duration::from_secs(30);

fn start(folder: &Path, port: u16, args: &[&str], env: &[(&str, &str)]) -> Child {
    Command::new(our_binary())
        .args(["--port", &port.to_string(), "--dir"])
        .arg(folder)
        .args(["--bind", "127.0.0.1", "--save", ""])
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("a server")
}

fn kill(pid: u32) {
    let killed = Command::new("kill").arg(pid.to_string()).status();
    assert!(killed.is_ok_and(|status| status.success()), "kill");
}

fn pid_in(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[test]
fn the_pid_file_is_there_while_the_server_runs() {
    let mut server = Server::ours(&["--pidfile", "server.pid"]);
    let path = server.folder().join("server.pid");
    assert_eq!(pid_in(&path), Some(server.pid()));
    server.terminate();
    assert!(!path.exists());
}

#[test]
fn systemd_hears_when_the_server_is_ready_and_when_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(LIMIT)).expect("a limit");
    let hear = || {
        let mut bytes = [0; 256];
        let len = socket.recv(&mut bytes).expect("a notice");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let env = [("NOTIFY_SOCKET", path.to_str().expect("a path"))];
    // In the background nobody could supervise it.
    let args = ["--supervised", "auto", "--daemonize", "yes"];
    let mut child = start(folder.path(), free_port(), &args, &env);
    assert!(hear().starts_with("STATUS="));
    assert!(hear().starts_with("READY=1\n"));
    kill(child.id());
    assert_eq!(hear(), "STOPPING=1");
    assert!(child.wait().expect("its end").success());
}

#[test]
fn in_the_background_the_command_returns_and_the_server_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (port, path) = (free_port(), folder.path().join("d.pid"));
    let args = [
        "--daemonize",
        "yes",
        "--pidfile",
        "d.pid",
        "--logfile",
        "d.log",
    ];
    let mut child = start(folder.path(), port, &args, &[]);
    let first = child.id();
    assert!(child.wait().expect("its end").success());
    let mut client = wait_for("the server", LIMIT, || Client::connect(port).ok());
    assert_eq!(client.ask("PING").text(), "PONG");
    let pid = wait_for("its id", LIMIT, || pid_in(&path));
    assert_ne!(pid, first);
    assert_eq!(client.info("process_id"), Some(pid.to_string()));
    kill(pid);
    wait_for("its end", LIMIT, || (!path.exists()).then_some(()));
    let log = std::fs::read_to_string(folder.path().join("d.log")).expect("a log");
    assert!(log.contains("Ready to accept connections"), "{log}");
}

#[test]
fn sigterm_does_what_was_asked_for() {
    for (flags, rules, is_saved) in [
        ("default", "", false),
        ("default", "900 1", true),
        ("nosave", "900 1", false),
        ("save", "", true),
        ("save now force", "", true),
    ] {
        let mut server = Server::ours(&["--save", rules]);
        let mut client = server.client();
        client.call(&["CONFIG", "SET", "shutdown-on-sigterm", flags]);
        client.ask("SET a 1");
        assert!(server.terminate().success());
        assert_eq!(
            server.dump().exists(),
            is_saved,
            "{flags:?} with rules {rules:?}"
        );
    }
}
