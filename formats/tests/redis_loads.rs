//! A real server loads what we write, and then holds the same data.
//!
//! Needs `redis-server` in the path (any version from 7.0 on); says so and passes without it. The server checks every
//! pack it loads (`sanitize-dump-payload yes`).

mod support;

use dfsnap_formats::checksum::redis_crc;
use dfsnap_formats::digest::ScoreForm;
use dfsnap_formats::lzf::LzfEncoder;
use dfsnap_formats::rdb::encode::encode;
use dfsnap_formats::rdb::writer;
use dfsnap_formats::value::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Contents, read};

const VERSION: u16 = 10;

struct Server {
    process: Child,
    folder: PathBuf,
    link: BufReader<UnixStream>,
}

impl Server {
    fn start() -> Option<Server> {
        let folder = std::env::temp_dir().join(format!("dfsnap-loads-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("socket");
        let started = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--enable-debug-command", "yes"])
            .args([
                "--sanitize-dump-payload",
                "yes",
                "--databases",
                "2000",
                "--dir",
            ])
            .arg(&folder)
            .arg("--unixsocket")
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            println!("skipped: no redis-server in the path");
            return None;
        };
        for _ in 0..200 {
            if let Ok(link) = UnixStream::connect(&socket) {
                let link = BufReader::new(link);
                return Some(Server {
                    process,
                    folder,
                    link,
                });
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("redis-server does not listen on {}", socket.display());
    }

    /// The first line of the reply.
    fn ask(&mut self, command: &str) -> String {
        let request = format!("{command}\r\n");
        self.link.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        self.link.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Loads `file` in place of everything and gives the digest.
    fn load(&mut self, file: &[u8]) -> Result<String, String> {
        std::fs::write(self.folder.join("dump.rdb"), file).unwrap();
        let reply = self.ask("DEBUG RELOAD NOSAVE");
        match reply.as_str() {
            "+OK" => Ok(self.ask("DEBUG DIGEST")),
            _ => Err(reply),
        }
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

/// What 7.0 can hold of `contents`, as a file.
fn write(contents: &Contents, lzf: &mut LzfEncoder) -> Vec<u8> {
    let mut file = Vec::new();
    writer::header(&mut file, VERSION);
    writer::aux(&mut file, b"redis-ver", b"7.0.15");
    for key in &contents.keys {
        writer::select_db(&mut file, key.db);
        if let Some(at_ms) = key.expire_at_ms {
            writer::expire_ms(&mut file, at_ms);
        }
        let mut stored = Vec::new();
        let code = encode(&key.value, VERSION, &mut stored, Some(lzf)).unwrap();
        writer::key(&mut file, code, &key.key, Some(lzf));
        file.extend_from_slice(&stored);
    }
    writer::eof(&mut file);
    let crc = redis_crc(&file);
    writer::checksum(&mut file, crc);
    file
}

/// Golden dumps, and the corpus where it is there.
fn dumps() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![here.join("tests/golden")];
    let corpora = here
        .ancestors()
        .map(|folder| folder.join("shared/corpus/rdb"));
    folders.extend(corpora.flat_map(|c| ["generated", "crafted", "collected"].map(|f| c.join(f))));
    let files = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok());
    let files = files.flatten().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|ending| ending == "rdb"))
        .collect()
}

#[test]
fn what_we_write_loads_and_means_the_same() {
    let Some(mut server) = Server::start() else {
        return;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    // Keys that expire while the test runs would come and go.
    let soon = now.as_millis() as i64 + 3_600_000;
    let mut lzf = LzfEncoder::new();
    let (mut loaded, mut findings) = (0, Vec::new());
    for path in dumps() {
        let Ok(mut contents) = read(&std::fs::read(&path).unwrap()[..]) else {
            continue;
        };
        contents.expire(soon);
        contents.keys.retain(|key| {
            key.db < 2000
                && match &key.value {
                    Value::Hash(hash) => !hash.has_field_expiry(),
                    Value::Module(_) | Value::Json(_) | Value::Sketch(_) => false,
                    _ => true,
                }
        });
        let file = write(&contents, &mut lzf);
        let again = read(&file[..]).unwrap();
        let want = again.digest(ScoreForm::Legacy);
        assert_eq!(
            want,
            contents.digest(ScoreForm::Legacy),
            "{}",
            path.display()
        );
        match server.load(&file) {
            Ok(got) if got == format!("+{want}") => loaded += 1,
            other => findings.push(format!("{}: {other:?}, want {want}", path.display())),
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    assert!(loaded > 15, "{loaded} files");
}
