//! What whoever started the process wants of it: that the command returns (`daemonize`), its id in a file (`pidfile`), and to hear when it is
//! ready (`supervised systemd`).
//!
//! `main` goes into the background before anything else, while there is one thread; the server says the rest when it comes up and when it ends.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::Config;

/// Set for the process that has gone into the background.
const IN_BACKGROUND: &str = "DFSNAP_IN_BACKGROUND";
/// Where a process that runs in the background has its id if nothing else is said.
const DEFAULT_PIDFILE: &str = "/var/run/redis.pid";

/// The file is there, and ours.
static HAS_PIDFILE: AtomicBool = AtomicBool::new(false);

/// Goes on in the background if the configuration says so: starts the same program again, for which there is no terminal. True: this process has
/// nothing more to do. Whoever supervises the process wants it where it is.
pub fn go_to_background(config: &Config) -> std::io::Result<bool> {
    if !config.daemonize || is_supervised(config) {
        return Ok(false);
    }
    if std::env::var_os(IN_BACKGROUND).is_some() {
        // Nobody's terminal ends it.
        rustix::process::setsid()?;
        return Ok(false);
    }
    let mut args = std::env::args_os();
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command
        .args(args)
        .env(IN_BACKGROUND, "yes")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
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

/// Tells systemd, if that is who supervises, how things stand. A failure is in the log.
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
    let sent = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
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
