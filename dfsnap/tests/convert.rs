//! `convert`, `ls` and `get` as users see them: every form and back, losses, names, half files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../formats/tests/golden")
        .join(name)
}

fn dfsnap(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dfsnap"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Standard output of a run that must be fine.
fn fine(args: &[&str]) -> String {
    let output = dfsnap(args);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

fn digest(path: &Path) -> String {
    fine(&["digest", text(path)]).trim().to_owned()
}

/// Sound dumps of the repository, and of the corpus where it is there, without values of modules.
fn dumps() -> Vec<PathBuf> {
    let mut folders = vec![golden("")];
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let corpus = above
        .map(|folder| folder.join("shared/corpus/rdb"))
        .find(|folder| folder.exists());
    match corpus {
        Some(corpus) => folders.push(corpus.join("generated")),
        None => println!("skipped: no shared/corpus/rdb beside the workspace"),
    }
    let mut dumps: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rdb"))
        .filter(|path| dfsnap(&["verify", text(path)]).status.code() == Some(0))
        .filter(|path| !text(path).contains("module"))
        .collect();
    dumps.sort();
    // Each goes to four forms and back, each time by processes of its own.
    dumps.into_iter().step_by(3).collect()
}

#[test]
fn every_form_leads_back_to_the_same_data() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ways, mut refused) = (0, 0);
    for dump in dumps() {
        let want = digest(&dump);
        for form in ["dfs", "aof", "json", "ndjson"] {
            let there = folder.path().join(format!("way.{form}"));
            let there = if form == "dfs" {
                folder.path().join("way")
            } else {
                there
            };
            let output = dfsnap(&[
                "convert",
                text(&dump),
                text(&there),
                "--to",
                form,
                "--encodings",
                "--target",
                if form == "dfs" {
                    "dragonfly"
                } else {
                    "redis-7.4"
                },
            ]);
            if output.status.code() == Some(2) {
                // Only for what the form cannot hold, and then nothing is there.
                let err = String::from_utf8_lossy(&output.stderr);
                assert!(
                    err.contains("cannot hold everything"),
                    "{dump:?} to {form}: {err}"
                );
                assert_eq!(
                    std::fs::read_dir(folder.path())
                        .unwrap()
                        .filter(|entry| { entry.as_ref().unwrap().path().is_file() })
                        .count(),
                    0,
                    "{dump:?} to {form} left something"
                );
                refused += 1;
                continue;
            }
            let back = folder.path().join("back.rdb");
            fine(&["convert", text(&there), text(&back)]);
            // A replayed sorted set has lost the sign of a zero, as it has on a server that packs it.
            if form != "aof" || !has_signed_zero(&dump, folder.path()) {
                assert_eq!(digest(&back), want, "{} to {form}", dump.display());
            }
            assert_eq!(
                fine(&["ls", "--json", text(&back)]).lines().count(),
                fine(&["ls", "--json", text(&dump)]).lines().count()
            );
            ways += 1;
            std::fs::remove_file(&back).unwrap();
            match there.is_dir() {
                true => std::fs::remove_dir_all(&there).unwrap(),
                false => {
                    for entry in std::fs::read_dir(folder.path()).unwrap() {
                        std::fs::remove_file(entry.unwrap().path()).unwrap();
                    }
                }
            }
        }
    }
    assert!(ways > 20, "{ways} ways, {refused} refused");
}

fn has_signed_zero(dump: &Path, folder: &Path) -> bool {
    let lines = folder.join("signs.ndjson");
    fine(&["convert", text(dump), text(&lines)]);
    let found = std::fs::read_to_string(&lines).unwrap().contains(":-0");
    std::fs::remove_file(&lines).unwrap();
    found
}

#[test]
fn losses_are_named_and_refused_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dst = folder.path().join("old.rdb");
    let source = golden("hash_metadata_v12.rdb");
    let args = [
        "convert",
        text(&source),
        text(&dst),
        "--target",
        "redis-6.2",
    ];
    let output = dfsnap(&args);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err.contains("when its fields expire") && err.contains("try: --allow-loss"),
        "{err}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let said = fine(&[&args[..], &["--allow-loss", "--json"]].concat());
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["keys"], &said["losses"]["when its fields expire"]),
        (&1.into(), &1.into())
    );
    assert!(std::fs::read(&dst).unwrap().starts_with(b"REDIS0009"));
}

#[test]
fn what_is_there_stays_when_a_dump_turns_out_to_be_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let dst = folder.path().join("kept.rdb");
    std::fs::write(&dst, b"before").unwrap();
    for source in ["ziplist_bad_prevlen.rdb", "checksum_wrong.rdb"] {
        let output = dfsnap(&["convert", text(&golden(source)), text(&dst), "--check"]);
        assert_eq!(output.status.code(), Some(2), "{source}");
        assert_eq!(std::fs::read(&dst).unwrap(), b"before", "{source}");
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "{source}"
        );
    }
}

#[test]
fn filters_choose_keys_and_ls_shows_them() {
    let folder = tempfile::tempdir().unwrap();
    let source = golden("redis-7.0.15--multidb.rdb");
    let all = fine(&["ls", "--json", text(&source)]);
    let lines: Vec<serde_json::Value> = all
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let dbs: std::collections::BTreeSet<_> =
        lines.iter().map(|line| line["db"].to_string()).collect();
    assert!(dbs.len() > 1, "{dbs:?}");
    let one = dbs.iter().next_back().unwrap();
    let dst = folder.path().join("one.rdb");
    fine(&["convert", text(&source), text(&dst), "--db", one]);
    let kept = fine(&["ls", "--json", text(&dst)]);
    let want = lines
        .iter()
        .filter(|line| line["db"].as_u64() == one.parse().ok())
        .count();
    assert_eq!(kept.lines().count(), want);
    let csv = fine(&["ls", "--csv", "--type", "string", text(&source)]);
    assert!(csv.starts_with("db,key,type,"), "{csv}");
    assert!(
        csv.lines().skip(1).all(|line| line.contains(",string,")),
        "{csv}"
    );
}

#[test]
fn get_prints_one_value_in_each_form() {
    let source = golden("redis-7.0.15--tiny.rdb");
    let first = fine(&["ls", "--json", "--type", "string", text(&source)]);
    let line: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    let key = line["key"].as_str().unwrap();
    assert!(fine(&["get", text(&source), key]).contains(": string"));
    let json: serde_json::Value =
        serde_json::from_str(&fine(&["get", text(&source), key, "--as", "json"])).unwrap();
    assert_eq!(json["type"], "string");
    let raw = dfsnap(&["get", text(&source), key, "--as", "raw"]);
    assert_eq!(raw.stdout.len() as u64, line["elements"].as_u64().unwrap());
    let dump = dfsnap(&["get", text(&source), key, "--as", "dump"]);
    assert_eq!(
        &dump.stdout[dump.stdout.len() - 10..dump.stdout.len() - 8],
        [10, 0]
    );
    let none = dfsnap(&["get", text(&source), "no such key"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("try: dfsnap ls"));
}

#[test]
fn get_reads_no_further_than_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let source = golden("redis-7.0.15--tiny.rdb");
    let keys = fine(&["ls", "--json", text(&source)]);
    let key = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["key"].as_str().unwrap().to_owned()
    };
    let (first, last) = (keys.lines().next().unwrap(), keys.lines().last().unwrap());
    let cut = folder.path().join("cut.rdb");
    let bytes = std::fs::read(&source).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() - 20]).unwrap();
    let get = |path: &Path, key: &str| fine(&["get", text(path), key]);
    assert_eq!(get(&cut, &key(first)), get(&source, &key(first)));
    // Where it is not found, all was read, and what is wrong is told.
    let missing = dfsnap(&["get", text(&cut), &key(last)]);
    let told = String::from_utf8_lossy(&missing.stderr);
    assert!(
        missing.status.code() == Some(2) && !told.contains("no key"),
        "{told}"
    );
}

/// `convert` to commands, `redis-cli --pipe`, and the server's own digest.
#[test]
fn a_pipe_into_a_real_server_gives_the_same_data() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let server = Command::new("redis-server")
        .args([
            "--port",
            "0",
            "--save",
            "",
            "--enable-debug-command",
            "yes",
            "--dir",
        ])
        .arg(folder.path())
        .arg("--unixsocket")
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn();
    let Ok(mut server) = server else {
        println!("skipped: no redis-server in the path");
        return;
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(
            std::time::Instant::now() < deadline,
            "redis-server does not listen"
        );
        std::thread::yield_now();
    }
    let source = golden("redis-7.0.15--tiny.rdb");
    let commands = dfsnap(&[
        "convert",
        text(&source),
        "-",
        "--to",
        "resp",
        "--target",
        "redis-7.0",
    ]);
    assert_eq!(commands.status.code(), Some(0));
    let script = folder.path().join("commands");
    std::fs::write(&script, &commands.stdout).unwrap();
    let cli = |args: &[&str]| {
        Command::new("redis-cli")
            .arg("-s")
            .arg(&socket)
            .args(args)
            .stdin(std::fs::File::open(&script).unwrap())
            .output()
            .unwrap()
    };
    let piped = String::from_utf8(cli(&["--pipe"]).stdout).unwrap();
    assert!(piped.contains("errors: 0"), "{piped}");
    let got = String::from_utf8(cli(&["debug", "digest"]).stdout).unwrap();
    let want = fine(&["digest", "--legacy", text(&source)]);
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(got.trim(), want.trim());
}
