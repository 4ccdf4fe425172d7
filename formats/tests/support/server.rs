//! A real `redis-server` in a folder of its own, behind a unix socket.

use dfsnap_formats::resp::{Frame, FrameDecoder, encode_command};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub struct Server {
    process: Child,
    pub folder: PathBuf,
    link: UnixStream,
    received: Vec<u8>,
    replies: FrameDecoder,
}

/// How long a server may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);
static STARTED: AtomicU32 = AtomicU32::new(0);

impl Server {
    /// With these settings on top. None: there is no such program here; says so.
    pub fn start(program: &str, settings: &[&str]) -> Option<Server> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("dfsnap-formats-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("socket");
        let started = Command::new(program)
            .args(["--port", "0", "--save", "", "--enable-debug-command", "yes"])
            .args(["--databases", "2000", "--logfile", "log"])
            .args(settings)
            .arg("--dir")
            .arg(&folder)
            .arg("--unixsocket")
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            std::fs::remove_dir_all(&folder).unwrap();
            println!("skipped: no {program} in the path");
            return None;
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(link) = UnixStream::connect(&socket) {
                return Some(Server {
                    process,
                    folder,
                    link,
                    received: Vec::new(),
                    replies: FrameDecoder::default(),
                });
            }
            assert!(
                Instant::now() < deadline,
                "no redis-server on {}",
                socket.display()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// One that logs every command at once, and removes nothing by itself.
    pub fn with_aof() -> Option<Server> {
        let settings = [
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--auto-aof-rewrite-percentage",
            "0",
        ];
        let mut server = Server::start("redis-server", &settings)?;
        server.ask(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
        Some(server)
    }

    pub fn send(&mut self, commands: &[Vec<Vec<u8>>]) -> Vec<Frame> {
        let mut out = Vec::new();
        commands
            .iter()
            .for_each(|words| encode_command(&mut out, words));
        self.link.write_all(&out).unwrap();
        commands.iter().map(|_| self.reply()).collect()
    }

    pub fn ask(&mut self, words: &[&str]) -> Frame {
        let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        self.send(&[words]).remove(0)
    }

    fn reply(&mut self) -> Frame {
        loop {
            if let Some((frame, size)) = self.replies.decode(&self.received).unwrap() {
                self.received.drain(..size);
                return frame;
            }
            let mut bytes = [0; 1 << 16];
            match self.link.read(&mut bytes).unwrap() {
                0 => panic!("the server is gone: {}", self.log_tail()),
                read => self.received.extend_from_slice(&bytes[..read]),
            }
        }
    }

    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    pub fn digest(&mut self) -> String {
        match self.ask(&["DEBUG", "DIGEST"]) {
            Frame::Simple(text) => String::from_utf8(text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Where the files of the AOF are.
    pub fn aof(&self) -> PathBuf {
        self.folder.join("appendonlydir")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing more can be done about a server or a folder that will not go.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
