//! Servers as processes: ours and the machine's, each in its own folder on its own port, gone when dropped.

use std::fs::File;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::client::Client;
use crate::wait_for;

/// How long a server may take to start: sanitizers and busy machines are slow.
const START_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Redis,
}

/// A running server.
pub struct Server {
    pub kind: Kind,
    pub port: u16,
    child: Child,
    args: Vec<String>,
    folder: TempDir,
}

/// A port that nobody has. Below the range for outgoing connections, which could take it in between.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 11_000 + (std::process::id() % 190) as u16 * 100;
    for _ in 0..19_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 11_000 + (start - 11_000 + step) % 19_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 11000 and 30000");
}

/// Our server's binary; it is built when it is missing or older than the sources.
pub fn our_binary() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var("DFSNAP_SERVER") {
        Ok(path) => path.into(),
        Err(_) => up_to_date("dfsnap-server", "server/src"),
    })
    .clone()
}

/// The command line tool, likewise.
pub fn our_tool() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| up_to_date("dfsnap", "dfsnap/src"))
        .clone()
}

fn up_to_date(name: &str, sources: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps/test");
    let binary = profile.join(name);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let newest = [sources, "formats/src", "replica/src", "tls/src"]
        .iter()
        .filter_map(|folder| newest_in(&workspace.join(folder)))
        .max();
    let built = binary.metadata().and_then(|data| data.modified()).ok();
    if built < newest {
        build(name, workspace, profile);
    }
    binary
}

fn newest_in(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .flatten()
        .filter_map(|entry| match entry.file_type().ok()?.is_dir() {
            true => newest_in(&entry.path()),
            false => entry.metadata().ok()?.modified().ok(),
        })
        .max()
}

fn build(name: &str, workspace: &Path, profile: &Path) {
    let mut cargo = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    cargo.args(["build", "--bin", name, "--target-dir"]);
    cargo
        .arg(profile.parent().unwrap())
        .current_dir(workspace)
        .stdout(Stdio::null());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "building {name}: {status}");
}

/// Whether the machine has this program; says so when not.
pub fn has_program(name: &str) -> bool {
    let found = Command::new(name)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let is_here = !matches!(found, Err(error) if error.kind() == ErrorKind::NotFound);
    if !is_here {
        println!("skipped: no {name} on this machine");
    }
    is_here
}

impl Server {
    /// Our server, ready.
    pub fn ours(args: &[&str]) -> Server {
        let server = Server::spawn(Kind::Ours, args);
        server.wait_until_ready();
        server
    }

    /// The machine's redis-server, ready.
    pub fn redis(args: &[&str]) -> Server {
        let server = Server::spawn(Kind::Redis, args);
        server.wait_until_ready();
        server
    }

    /// A server of which nobody knows yet whether it will come up.
    pub fn spawn(kind: Kind, args: &[&str]) -> Server {
        let folder = TempDir::new().expect("a temporary folder");
        Server::spawn_in(kind, folder, args)
    }

    /// The same in a folder that may hold a dump already.
    pub fn spawn_in(kind: Kind, folder: TempDir, args: &[&str]) -> Server {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let port = free_port();
        let child = launch(kind, port, folder.path(), &args);
        Server {
            kind,
            port,
            child,
            args,
            folder,
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The dump file.
    pub fn dump(&self) -> PathBuf {
        self.folder().join("dump.rdb")
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.folder().join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.port)
            .unwrap_or_else(|error| panic!("port {}: {error}\n{}", self.port, self.log()))
    }

    /// Waits until it answers PING.
    pub fn wait_until_ready(&self) {
        wait_for(
            &format!("{:?} with {:?}: ready", self.kind, self.args),
            START_LIMIT,
            || {
                let Ok(mut client) = Client::connect(self.port) else {
                    let log = self.log();
                    let has_ended = log.contains("aborting") || !self.is_running();
                    assert!(!has_ended, "it did not start:\n{log}");
                    return None;
                };
                let reply = client.try_call(&["PING"]).ok()?;
                (reply.text_or_empty() == "PONG").then_some(())
            },
        );
    }

    /// Waits until it answers PING, or has ended: whether it answers.
    pub fn comes_up(&self) -> bool {
        wait_for("ready or ended", START_LIMIT, || {
            if !self.is_running() {
                return Some(false);
            }
            let mut client = Client::connect(self.port).ok()?;
            let reply = client.try_call(&["PING"]).ok()?;
            (reply.text_or_empty() == "PONG").then_some(true)
        })
    }

    /// Whether the process is there and not a zombie.
    pub fn is_running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        stat.is_ok_and(|text| {
            !text
                .rsplit_once(')')
                .is_some_and(|(_, rest)| rest.starts_with(" Z"))
        })
    }

    /// Waits until the process has ended by itself.
    pub fn wait_until_ended(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the server's end", limit, || {
            child.try_wait().expect("its status")
        })
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and its exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        let killed = Command::new("kill").arg(self.pid().to_string()).status();
        assert!(killed.is_ok_and(|status| status.success()), "kill");
        self.wait_until_ended(Duration::from_secs(30))
    }

    /// Starts it again in the same folder, on the same port, after it has ended.
    pub fn restart(&mut self) {
        self.restart_soon();
        self.wait_until_ready();
    }

    /// The same, and does not wait until it answers.
    pub fn restart_soon(&mut self) {
        self.child = launch(self.kind, self.port, self.folder.path(), &self.args);
    }

    /// DEBUG DIGEST in the form that Redis 7.0 prints.
    pub fn digest(&self) -> String {
        let command = match self.kind {
            Kind::Ours => "DEBUG DIGEST LEGACY",
            Kind::Redis => "DEBUG DIGEST",
        };
        self.client().ask(command).text()
    }
}

impl crate::client::Reply {
    fn text_or_empty(&self) -> String {
        match self {
            crate::client::Reply::Text(text) => String::from_utf8_lossy(text).into_owned(),
            _ => String::new(),
        }
    }
}

fn launch(kind: Kind, port: u16, folder: &Path, args: &[String]) -> Child {
    let program = match kind {
        Kind::Ours => our_binary(),
        Kind::Redis => "redis-server".into(),
    };
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("server.log"))
        .expect("a log file");
    let mut command = Command::new(&program);
    command
        .args(["--port", &port.to_string(), "--dir"])
        .arg(folder)
        .env("RUST_BACKTRACE", "0")
        .args(["--bind", "127.0.0.1", "--save", ""])
        .args(["--enable-debug-command", "yes"])
        .args(["--repl-diskless-sync-delay", "0"])
        .args(args);
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log file"))
        .stderr(log);
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(25)..].join("\n  ");
            println!(
                "log of {:?} on port {}, its end:\n  {tail}",
                self.kind, self.port
            );
        }
        self.kill();
    }
}
