//! What init scripts and supervisors rely on: the pid file, systemd's notice, the background, and what SIGTERM does.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
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

/// A client of the server that nobody holds, once that has loaded.
fn client_when_ready(port: u16, password: Option<&str>) -> Client {
    let mut client = wait_for("the server", LIMIT, || Client::connect(port).ok());
    if let Some(password) = password {
        assert!(client.call(&["PING"]).is_error(), "it has a password");
        client.ask(&format!("AUTH {password}"));
    }
    wait_for("its data", LIMIT, || {
        (!client.call(&["PING"]).is_error()).then_some(())
    });
    client
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
    let mut client = client_when_ready(port, None);
    let pid = wait_for("its id", LIMIT, || pid_in(&path));
    assert_ne!(pid, first);
    assert_eq!(client.info("process_id"), Some(pid.to_string()));
    kill(pid);
    wait_for("its end", LIMIT, || (!path.exists()).then_some(()));
    let log = std::fs::read_to_string(folder.path().join("d.log")).expect("a log");
    assert!(log.contains("Ready to accept connections"), "{log}");
}

/// The process in the background used to read the configuration again, found nothing, and served the default port without a password.
#[test]
fn in_the_background_holds_what_can_be_read_only_once() {
    for path in ["-", "/dev/stdin"] {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let included = folder.path().join("more.conf");
        std::fs::write(&included, "requirepass s3cret\n").expect("a file");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\npidfile d.pid\nsave \"\"\ninclude {}\n",
            folder.path().display(),
            included.display()
        );
        let mut child = Command::new(our_binary())
            .args([path, "--daemonize", "yes"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a server");
        let mut input = child.stdin.take().expect("its input");
        // More than a pipe holds.
        let comments = "# nothing\n".repeat(20_000);
        input
            .write_all(format!("{comments}{text}").as_bytes())
            .expect("a configuration");
        drop(input);
        assert!(child.wait().expect("its end").success(), "{path}");
        let mut client = client_when_ready(port, Some("s3cret"));
        let pid = client.info("process_id").expect("its id");
        kill(pid.parse().expect("a number"));
        let path = folder.path().join("d.pid");
        wait_for("its end", LIMIT, || (!path.exists()).then_some(()));
    }
}

#[test]
fn nothing_goes_on_in_the_background_without_a_configuration_that_says_so() {
    let mark = "dfsnap configuration 1\n";
    for (input, wanted) in [
        ("", "no configuration was handed over"),
        ("port 1\n", "no configuration was handed over"),
        (&format!("{mark}\u{1}"), "ends early, 1 bytes left"),
        (mark, "does not say \"daemonize yes\""),
    ] {
        let mut child = Command::new(our_binary())
            .arg("--in-background-with-configuration-on-stdin")
            .args(["--port", &free_port().to_string()])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a server");
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(input.as_bytes()).expect("a text");
        drop(stdin);
        let output = child.wait_with_output().expect("its end");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{input:?}: {error}");
        assert!(error.contains(wanted), "{input:?}: {error}");
    }
}

/// The server used to wait for ever, before it had loaded anything, for one that does not read.
#[test]
fn a_supervisor_that_does_not_read_holds_nothing_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let _reader = UnixDatagram::bind(&path).expect("a socket");
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("a mode");
    while filler.send_to(b"full", &path).is_ok() {}
    let port = free_port();
    let env = [("NOTIFY_SOCKET", path.to_str().expect("a path"))];
    let args = ["--supervised", "systemd", "--logfile", "d.log"];
    let mut child = start(folder.path(), port, &args, &env);
    client_when_ready(port, None);
    kill(child.id());
    assert!(child.wait().expect("its end").success());
    let log = std::fs::read_to_string(folder.path().join("d.log")).expect("a log");
    let warnings = log.matches("cannot tell systemd").count();
    assert_eq!(warnings, 3, "{log}");
}

/// It used to panic.
#[test]
fn an_argument_that_is_no_text_is_refused() {
    let output = Command::new(our_binary())
        .arg(std::ffi::OsStr::from_bytes(b"\xff.conf"))
        .output()
        .expect("a server");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("argument 1 is not UTF-8"), "{error}");
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
