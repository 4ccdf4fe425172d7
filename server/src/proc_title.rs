//! The process's title (`set-proc-title`, `proc-title-template`): what `ps` shows instead of the command line, so that servers on one machine
//! can be told apart.
//!
//! Called when the server starts and when something changes that the title says. The kernel is told where the title lies; the words of the
//! command line stay as they were. A kernel that refuses leaves the command line in sight.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::process::PrctlMmMap;

use crate::config::Config;

/// The title that the kernel shows, with the zero byte that ends it.
static SHOWN: Mutex<Option<Box<[u8]>>> = Mutex::new(None);

/// Directives that a title may say something of.
pub const DIRECTIVES: [&str; 4] = ["proc-title-template", "port", "tls-port", "bind"];

/// Shows what the configuration says, if it wants a title shown.
pub fn apply(config: &Config, config_path: Option<&Path>) {
    if !config.set_proc_title {
        return;
    }
    let program = std::env::args_os().next().unwrap_or_default();
    let file = config_path.map_or("-".to_owned(), |path| path.display().to_string());
    let title = title(config, &program.to_string_lossy(), &file);
    if let Err(error) = show(&title) {
        tracing::debug!(%error, title, "the process's title cannot be set");
    }
}

fn title(config: &Config, program: &str, file: &str) -> String {
    let port = match config.port {
        0 => config.tls_port,
        port => port,
    };
    let socket = config.unixsocket.as_deref().unwrap_or_default();
    let value = |name: &str| match name {
        "title" => program.to_owned(),
        "listen-addr" if port == 0 => format!("unixsocket:{socket}"),
        "listen-addr" => {
            let address = config.bind.first().map_or("*", String::as_str);
            format!("{address}:{port}")
        }
        "server-mode" if config.cluster_enabled => "[cluster]".to_owned(),
        "config-file" => file.to_owned(),
        "port" => config.port.to_string(),
        "tls-port" => config.tls_port.to_string(),
        "unixsocket" => socket.to_owned(),
        _ => String::new(),
    };
    let expanded = crate::config::kind::expand_title(&config.proc_title_template, value);
    let title = expanded.unwrap_or_default();
    title.trim_matches(' ').replace('\0', " ")
}

/// Has the kernel show this title for the process.
fn show(title: &str) -> io::Result<()> {
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bytes = title.as_bytes().to_vec();
    bytes.push(0);
    let bytes = bytes.into_boxed_slice();
    let map = map_with_arguments(&bytes)?;
    // SAFETY: all places are those that the kernel has told of this process, and the end of its heap, so that nothing changes but where the
    // arguments lie. They lie in bytes that stay until the kernel knows of others: `SHOWN` keeps them. Who moves the end of the heap meanwhile
    // is told by the kernel that it cannot, and takes a mapping, as where the heap has met one.
    unsafe { rustix::process::configure_virtual_memory_map(&map) }?;
    *shown = Some(bytes);
    Ok(())
}

/// The memory of this process as the kernel knows it, but for the arguments.
fn map_with_arguments(arguments: &[u8]) -> io::Result<PrctlMmMap> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The fields behind the name of the program, of which the first is the third of all.
    let fields: Vec<&str> = match stat.rsplit_once(')') {
        Some((_, behind)) => behind.split_whitespace().collect(),
        None => Vec::new(),
    };
    let field = |number: usize| {
        let text = fields.get(number - 3).and_then(|text| text.parse().ok());
        text.ok_or(io::Error::from(io::ErrorKind::InvalidData))
    };
    // SAFETY: by 0 the end of the heap is asked for and not moved.
    let brk = unsafe { libc::sbrk(0) };
    let arg_start = arguments.as_ptr().addr() as u64;
    Ok(PrctlMmMap {
        start_code: field(26)?,
        end_code: field(27)?,
        start_stack: field(28)?,
        start_data: field(45)?,
        end_data: field(46)?,
        start_brk: field(47)?,
        brk: brk.addr() as u64,
        arg_start,
        arg_end: arg_start + arguments.len() as u64,
        env_start: field(50)?,
        env_end: field(51)?,
        // These stay as they are.
        auxv: std::ptr::null_mut(),
        auxv_size: 0,
        exe_fd: -1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_says_what_its_template_asks_for() {
        let of = |pairs: &[(&str, &str)]| {
            let mut config = Config::default();
            for (name, value) in pairs {
                let words: Vec<&str> = match *name {
                    "bind" => value.split(' ').collect(),
                    _ => vec![*value],
                };
                config.store(name, &words).expect("a sound value");
            }
            title(&config, "./dfsnap-server", "/etc/d.conf")
        };
        let template = |text| ("proc-title-template", text);
        for (pairs, wanted) in [
            (&[][..], "./dfsnap-server *:6379"),
            (
                &[("bind", "127.0.0.1 ::1"), ("port", "7000")],
                "./dfsnap-server 127.0.0.1:7000",
            ),
            (
                &[("cluster-enabled", "yes")],
                "./dfsnap-server *:6379 [cluster]",
            ),
            (
                &[("port", "0"), ("tls-port", "7001")],
                "./dfsnap-server *:7001",
            ),
            (
                &[("port", "0"), ("unixsocket", "/s")],
                "./dfsnap-server unixsocket:/s",
            ),
            (
                &[
                    template("  a {{b} {port} {tls-port} {unixsocket}{config-file}"),
                    ("unixsocket", "/s"),
                ],
                "a {b} 6379 0 /s/etc/d.conf",
            ),
        ] {
            assert_eq!(of(pairs), wanted);
        }
    }
}
