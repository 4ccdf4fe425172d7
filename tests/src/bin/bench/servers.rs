//! Starting servers, asking them, and reading from /proc what they use.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::Plan;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This project's, with so many threads.
    Ours(usize),
    /// The one to compare with.
    Redis,
}

/// A server that runs; it ends with this value.
pub struct Server {
    process: Child,
    port: u16,
    dir: TempDir,
}

/// Where to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this processor only.
    Pinned(usize),
    /// Wherever the kernel likes.
    Anywhere,
}

impl Server {
    /// Starts one on a free port and waits until it answers. If `dump` is given, it is loaded first.
    pub fn start(
        plan: &Plan,
        kind: Kind,
        place: Place,
        dump: Option<&Path>,
    ) -> anyhow::Result<Server> {
        let server = Server::spawn(plan, kind, place, dump)?;
        server.wait_ready(Duration::from_secs(600))?;
        Ok(server)
    }

    /// Starts one and does not wait.
    pub fn spawn(
        plan: &Plan,
        kind: Kind,
        place: Place,
        dump: Option<&Path>,
    ) -> anyhow::Result<Server> {
        let dir = tempfile::tempdir()?;
        if let Some(dump) = dump {
            let here = dir.path().join("dump.rdb");
            std::fs::hard_link(dump, &here)
                .or_else(|_| std::fs::copy(dump, &here).map(|_| ()))
                .context("placing the RDB file")?;
        }
        Server::spawn_in(plan, kind, place, dir)
    }

    /// Starts one over the files of a folder and waits until it answers.
    pub fn start_in(plan: &Plan, kind: Kind, place: Place, dir: TempDir) -> anyhow::Result<Server> {
        let server = Server::spawn_in(plan, kind, place, dir)?;
        server.wait_ready(Duration::from_secs(600))?;
        Ok(server)
    }

    fn spawn_in(plan: &Plan, kind: Kind, place: Place, dir: TempDir) -> anyhow::Result<Server> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let program = match kind {
            Kind::Ours(_) => &plan.server,
            Kind::Redis => &plan.redis,
        };
        let mut command = match place {
            Place::Pinned(cpu) => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(cpu.to_string()).arg(program);
                command
            }
            Place::Anywhere => Command::new(program),
        };
        command.args([
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--logfile",
            "log",
        ]);
        command.args(["--enable-debug-command", "yes", "--rdbcompression", "no"]);
        command.args([
            "--repl-diskless-sync",
            "yes",
            "--repl-diskless-sync-delay",
            "0",
        ]);
        if let Kind::Ours(threads) = kind {
            command.args(["--threads", &threads.to_string()]);
            command.args(["--snapshot-compression", "none"]);
        }
        let process = command
            .arg("--dir")
            .arg(dir.path())
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Server { process, port, dir })
    }

    /// Waits until PING is answered with PONG: the dataset is loaded.
    pub fn wait_ready(&self, limit: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < limit {
            if let Ok(mut connection) = self.connect() {
                while started.elapsed() < limit {
                    match redis::cmd("PING").query::<String>(&mut connection) {
                        Ok(_) => return Ok(()),
                        Err(error) if error.is_io_error() => break,
                        Err(_) => std::thread::sleep(Duration::from_millis(2)),
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!(
            "port {}: no answer within {limit:?}; its log says:\n{}",
            self.port,
            std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
        )
    }

    /// A new connection.
    pub fn connect(&self) -> redis::RedisResult<redis::Connection> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port))?;
        client.get_connection_with_timeout(Duration::from_secs(5))
    }

    /// Runs one command and throws its reply away.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<()> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let mut connection = self.connect()?;
        // Filling a server takes its time.
        connection.set_read_timeout(Some(Duration::from_secs(600)))?;
        command
            .query::<redis::Value>(&mut connection)
            .with_context(|| words.join(" "))?;
        Ok(())
    }

    /// A field of INFO.
    pub fn info(&self, connection: &mut redis::Connection, field: &str) -> anyhow::Result<String> {
        self.info_of("all", connection, field)
    }

    /// The same when it is known in which section it stands: others take their time.
    pub fn info_of(
        &self,
        section: &str,
        connection: &mut redis::Connection,
        field: &str,
    ) -> anyhow::Result<String> {
        let text: String = redis::cmd("INFO").arg(section).query(connection)?;
        text.lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .map(str::to_owned)
            .with_context(|| format!("INFO has no field {field}"))
    }

    /// Sends it a signal, as `kill` names it.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill")
            .args([name, &self.process.id().to_string()])
            .status()?;
        anyhow::ensure!(status.success(), "kill {name}: {status}");
        Ok(())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its folder.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// CPU seconds of the server so far, threads and children that have ended included.
    pub fn cpu_seconds_with_children(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // utime, stime, cutime, cstime, in ticks of 10 ms.
        let fields = stat
            .rsplit_once(')')
            .context("its status")?
            .1
            .split_whitespace();
        let ticks: u64 = fields
            .skip(11)
            .take(4)
            .filter_map(|t| t.parse::<u64>().ok())
            .sum();
        Ok(ticks as f64 / 100.0)
    }

    /// CPU seconds of all its threads so far.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let mut nanoseconds = 0_u64;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            // A thread may end while we look.
            let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let first = text.split(' ').next().unwrap_or_default();
            nanoseconds += first.parse::<u64>().unwrap_or(0);
        }
        Ok(nanoseconds as f64 / 1e9)
    }

    /// Resident bytes of the server itself.
    pub fn rss(&self) -> anyhow::Result<u64> {
        smaps(self.process.id(), "Rss:").context("reading smaps_rollup")
    }

    /// Memory of the server and its children, each shared page counted once.
    pub fn pss(&self) -> u64 {
        let own = self.process.id();
        children(own)
            .into_iter()
            .chain([own])
            .filter_map(|pid| smaps(pid, "Pss:"))
            .sum()
    }
}

/// What a save is watched for. Reading a process's memory holds up its page faults for milliseconds, so the save whose memory
/// is read is not the one that is timed.
#[derive(Clone, Copy, PartialEq)]
pub enum Seen {
    /// For its memory.
    Memory,
    /// For everything else.
    Time,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn smaps(pid: u32, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes = line.trim().strip_suffix("kB")?.trim();
    Some(kilobytes.parse::<u64>().ok()? * 1024)
}

fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}
