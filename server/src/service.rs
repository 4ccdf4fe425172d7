//! What whoever started the process wants of it: that the command returns (`daemonize`), its id in a file (`pidfile`), and to hear when it is
//! ready (`supervised systemd`).
//!
//! `main` goes into the background before anything else, while there is one thread; the server says the rest when it comes up and when it ends.
//! The process in the background is the same program with the same arguments behind a word of ours, and is handed the configuration as it was
//! read on its standard input: not all of it can be read again.

use std::env::ArgsOs;
use std::io::{self, Read, Write};
use std::iter::Peekable;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::Config;
use crate::config::load::Loaded;
use crate::config::sources::Sources;

/// The first argument of the process that has gone into the background.
const IN_BACKGROUND: &str = "--in-background-with-configuration-on-stdin";
/// Where a process that runs in the background has its id if nothing else is said.
const DEFAULT_PIDFILE: &str = "/var/run/redis.pid";

/// The file is there, and ours.
static HAS_PIDFILE: AtomicBool = AtomicBool::new(false);

/// How this process was started.
pub struct Start {
    /// Those after the program's name that are the user's.
    pub args: Peekable<ArgsOs>,
    /// Those handed over, if this process goes on in the background for another.
    pub sources: Sources,
    pub is_in_background: bool,
}

impl Start {
    /// Reads the standard input if this process goes on for another.
    pub fn of_this_process() -> io::Result<Start> {
        let mut args = std::env::args_os();
        args.next();
        let mut args = args.peekable();
        let is_in_background = args.next_if(|arg| arg == IN_BACKGROUND).is_some();
        let sources = if is_in_background {
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes)?;
            Sources::handed_over(&bytes)?
        } else {
            Sources::default()
        };
        Ok(Start {
            args,
            sources,
            is_in_background,
        })
    }
}

/// Goes on in the background if the configuration says so: starts the same program again, for which there is no terminal, and hands it the
/// configuration. True: this process has nothing more to do. Whoever supervises the process wants it where it is.
pub fn go_to_background(loaded: &Loaded, is_in_background: bool) -> io::Result<bool> {
    let config = &loaded.config;
    let wants_background = config.daemonize && !is_supervised(config);
    if is_in_background {
        if !wants_background {
            return Err(io::Error::other(
                "the configuration that was handed over does not say \"daemonize yes\"",
            ));
        }
        // Nobody's terminal ends it.
        rustix::process::setsid()?;
        return Ok(false);
    }
    if !wants_background {
        return Ok(false);
    }
    let mut args = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    let mut child = command
        .arg(IN_BACKGROUND)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(&loaded.sources.hand_over())?;
    Ok(true)
}

/// Whether somebody is to hear from the process.
fn is_supervised(config: &Config) -> bool {
    match config.value("supervised") {
        Some("systemd") => true,
        Some("auto") => std::env::var_os("NOTIFY_SOCKET").is_some(),
        _ => false,
    }
}

/// Tells systemd, if that is who supervises, how things stand. A failure is in the log, and so is a receiver that does not take what it was told
/// before: the server waits for nobody.
pub fn tell(config: &Config, state: &str) {
    if !is_supervised(config) {
        return;
    }
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        tracing::warn!("systemd supervision requested, but NOTIFY_SOCKET is not set");
        return;
    };
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&name),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::warn!(%error, ?name, "cannot tell systemd of the server's state");
    }
}

fn pidfile(config: &Config) -> Option<PathBuf> {
    let is_in_background = config.daemonize && !is_supervised(config);
    let default = is_in_background.then(|| DEFAULT_PIDFILE.to_owned());
    config.pidfile.clone().or(default).map(PathBuf::from)
}

/// Writes the process's id where the configuration says. The server runs without it too.
pub fn write_pidfile(config: &Config) {
    let Some(path) = pidfile(config) else { return };
    match std::fs::write(&path, format!("{}\n", std::process::id())) {
        Ok(()) => HAS_PIDFILE.store(true, Ordering::Relaxed),
        Err(error) => tracing::warn!(path = %path.display(), "Failed to write PID file: {error}"),
    }
}

/// The process ends.
pub fn remove_pidfile(config: &Config) {
    if let Some(path) = pidfile(config).filter(|_| HAS_PIDFILE.swap(false, Ordering::Relaxed)) {
        tracing::info!("Removing the pid file.");
        let _ = std::fs::remove_file(path);
    }
}
