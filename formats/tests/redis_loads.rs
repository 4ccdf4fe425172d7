//! A real server loads what we write, and then holds the same data.
//!
//! Needs `redis-server` in the path (any version from 7.0 on); says so and passes without it. The server checks every
//! pack it loads (`sanitize-dump-payload yes`). `DFSNAP_SERVERS=path:path` names other servers to be asked as well, of
//! Redis or Valkey; each gets every version that it loads.

mod support;

use dfsnap_formats::dataset::Item;
use dfsnap_formats::digest::{DatasetDigest, ScoreForm, key_digest};
use dfsnap_formats::rdb::file::RdbWriter;
use dfsnap_formats::rdb::reader::{Options, RdbReader};
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::value::Value;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DATABASES: u32 = 2000;

struct Server {
    process: Child,
    folder: PathBuf,
    link: BufReader<UnixStream>,
}

impl Server {
    fn start(program: &str) -> Option<Server> {
        let folder = std::env::temp_dir().join(format!("dfsnap-loads-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("socket");
        let started = Command::new(program)
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
            println!("skipped: no {program} in the path");
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

    /// The version of the payloads that it makes, which is the newest that it loads.
    fn rdb_version(&mut self) -> u16 {
        assert_eq!(self.ask("SET version 1"), "+OK");
        let len = self.ask("DUMP version");
        let len: usize = len.strip_prefix('$').unwrap().parse().unwrap();
        let mut payload = vec![0; len + 2];
        self.link.read_exact(&mut payload).unwrap();
        u16::from_le_bytes(payload[len - 10..len - 8].try_into().unwrap())
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

/// Golden dumps, and those of the corpus where it is there.
fn dumps() -> Vec<PathBuf> {
    let mut paths = support::golden_dumps();
    if let Some(corpus) = support::corpus::corpus() {
        paths.extend(support::rdb_files(&corpus));
    }
    paths
}

/// What a dump holds that a server can be asked about later.
fn items(bytes: &[u8], alive_at_ms: i64) -> Result<Vec<Item>, String> {
    let mut reader = RdbReader::new(bytes, Options::default());
    let mut items = Vec::new();
    let mut names = HashSet::new();
    while let Some(record) = reader.next().map_err(|error| error.to_string())? {
        let item = Item::of_record(&record, &Default::default()).map_err(|e| e.to_string())?;
        match item {
            Some(Item::Entry(entry)) => {
                let expires = entry.attributes.expire_at_ms;
                if !names.insert((entry.db, entry.key.clone())) {
                    return Err("a key is there twice".to_owned());
                }
                // Keys that expire while the test runs would come and go.
                let alive = expires.is_none_or(|at_ms| at_ms > alive_at_ms);
                if alive && entry.db < DATABASES && !matches!(entry.value, Value::Module(_)) {
                    items.push(Item::Entry(entry));
                }
            }
            Some(function @ Item::Function { .. }) => items.insert(0, function),
            _ => {}
        }
    }
    Ok(items)
}

/// The file for `target` with all that it can hold without loss of data, and the digest that it must have.
fn write(items: &[Item], target: Target, form: ScoreForm) -> (Vec<u8>, String) {
    let mut writer = RdbWriter::new(target);
    writer.aux(b"redis-ver", b"7.0.15");
    let mut dataset = DatasetDigest::default();
    for item in items {
        let kept = writer.item(item).is_ok();
        if let (true, Item::Entry(entry)) = (kept, item) {
            let expires = entry.attributes.expire_at_ms.is_some();
            let key = key_digest(&entry.key, &entry.value, expires, form);
            dataset.add(entry.db, key);
        }
    }
    writer.finish();
    (writer.take(), dataset.finish().to_string())
}

#[test]
fn what_we_write_for_any_version_loads_and_means_the_same() {
    let others = std::env::var("DFSNAP_SERVERS").unwrap_or_default();
    let others = others.split(':').filter(|path| !path.is_empty());
    for program in std::iter::once("redis-server").chain(others) {
        if let Some(server) = Server::start(program) {
            all_versions_load(server, program);
        }
    }
}

fn all_versions_load(mut server: Server, program: &str) {
    let newest = server.rdb_version();
    // Servers from 7.2 on print scores in a way of their own.
    let form = match newest {
        ..=10 => ScoreForm::Legacy,
        _ => ScoreForm::Short,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let soon = now.as_millis() as i64 + 3_600_000;
    let (mut loaded, mut findings) = (0, Vec::new());
    for path in dumps() {
        let Ok(items) = items(&std::fs::read(&path).unwrap(), soon) else {
            continue;
        };
        for target in (6..=newest).filter_map(Target::of_version) {
            let (file, want) = write(&items, target, form);
            match server.load(&file) {
                Ok(got) if got == format!("+{want}") => loaded += 1,
                other => findings.push(format!(
                    "{}, {target}: {other:?}, want {want}",
                    path.display()
                )),
            }
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    println!("{program}: {loaded} files up to version {newest}");
    assert!(loaded > 75, "{loaded} files");
}
