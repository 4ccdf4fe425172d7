//! `convert` between every two forms: a dump goes into each form, from there into each, and what arrives has the digest of what left.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const FORMS: [&str; 6] = ["rdb", "dfs", "aof", "json", "ndjson", "resp"];
/// Of all dumps that are there, as many go all ways.
const DUMPS: usize = 16;

fn dfsnap(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dfsnap"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text_at(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn fine(args: &[&str]) -> String {
    let output = dfsnap(args);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

/// Sound dumps of the repository, and of the corpus where it is there, spread over all of them.
fn dumps() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = root
        .ancestors()
        .map(|folder| folder.join("shared/corpus/rdb/generated"));
    let folders = [
        Some(root.join("../formats/tests/golden")),
        corpus.into_iter().find(|folder| folder.exists()),
    ];
    let mut dumps: Vec<PathBuf> = folders
        .iter()
        .flatten()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rdb"))
        // What modules store is in few forms; the sign of a zero is lost where commands are replayed.
        .filter(|path| !text_at(path).contains("module") && !text_at(path).contains("double"))
        .filter(|path| path.metadata().unwrap().len() < 300_000)
        .collect();
    dumps.sort();
    let step = (dumps.len() / DUMPS).max(1);
    let sound = |path: &PathBuf| dfsnap(&["verify", text_at(path)]).status.code() == Some(0);
    dumps.into_iter().step_by(step).filter(sound).collect()
}

/// Into a folder of its own. None: the form cannot hold it, and nothing is there.
fn converted(from: &Path, form: &str, folder: &Path) -> Option<PathBuf> {
    std::fs::create_dir_all(folder).unwrap();
    let name = if form == "dfs" {
        "set".to_owned()
    } else {
        format!("dump.{form}")
    };
    let to = folder.join(name);
    let target = if form == "dfs" {
        "dragonfly"
    } else {
        "redis-7.4"
    };
    let output = dfsnap(&[
        "convert",
        text_at(from),
        text_at(&to),
        "--to",
        form,
        "--encodings",
        "--target",
        target,
    ]);
    if output.status.code() == Some(2) {
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(
            err.contains("cannot hold everything"),
            "{from:?} to {form}: {err}"
        );
        assert_eq!(
            std::fs::read_dir(folder).unwrap().count(),
            0,
            "{from:?} to {form} left something"
        );
        return None;
    }
    assert_eq!(
        output.status.code(),
        Some(0),
        "{from:?} to {form}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(to)
}

fn has_signed_zero(dump: &Path, folder: &Path) -> bool {
    let lines = folder.join("signs.ndjson");
    fine(&["convert", text_at(dump), text_at(&lines)]);
    std::fs::read_to_string(&lines).unwrap().contains(":-0")
}

#[test]
fn every_form_leads_to_every_form() {
    let mut arrived = std::collections::BTreeMap::new();
    for dump in dumps() {
        let folder = tempfile::tempdir().unwrap();
        if has_signed_zero(&dump, folder.path()) {
            continue;
        }
        let want = fine(&["digest", text_at(&dump)]);
        for first in FORMS {
            let way = folder.path().join(first);
            let Some(there) = converted(&dump, first, &way) else {
                continue;
            };
            assert_eq!(
                fine(&["digest", text_at(&there)]),
                want,
                "{dump:?} to {first}"
            );
            for second in FORMS {
                let Some(end) = converted(&there, second, &way.join(second)) else {
                    continue;
                };
                assert_eq!(
                    fine(&["digest", text_at(&end)]),
                    want,
                    "{dump:?} to {first} to {second}"
                );
                *arrived.entry((first, second)).or_insert(0) += 1;
            }
        }
    }
    for first in FORMS {
        for second in FORMS {
            let count = arrived.get(&(first, second)).copied().unwrap_or(0);
            assert!(count >= 5, "{first} to {second}: {count} dumps");
        }
    }
}

/// Values above four megabytes go in pieces, also into a set.
#[test]
fn large_values_go_every_way() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("large.aof");
    let mut commands = Vec::new();
    let mut push = |words: &[&[u8]]| {
        commands.extend(format!("*{}\r\n", words.len()).bytes());
        for word in words {
            commands.extend(format!("${}\r\n", word.len()).bytes());
            commands.extend_from_slice(word);
            commands.extend(b"\r\n");
        }
    };
    for n in 0..7_000 {
        let text = format!("{n}:{}", "wort".repeat(n % 397));
        push(&[b"RPUSH", b"list", text.as_bytes()]);
        push(&[b"HSET", b"hash", text.as_bytes(), b"1"]);
        push(&[b"ZADD", b"zset", n.to_string().as_bytes(), text.as_bytes()]);
        push(&[b"SADD", b"set", text.as_bytes()]);
    }
    let text: Vec<u8> = (0..5_000_000u32)
        .map(|n| (n.wrapping_mul(n) % 251) as u8)
        .collect();
    push(&[b"SET", b"text", &text]);
    push(&[b"EXPIREAT", b"hash", b"9000000000"]);
    push(&[b"SET", b"small", b"1"]);
    std::fs::write(&log, commands).unwrap();
    let want = fine(&["digest", text_at(&log)]);
    let dump = converted(&log, "rdb", &folder.path().join("rdb")).unwrap();
    for form in ["rdb", "dfs", "ndjson"] {
        let way = folder.path().join(form).join("on");
        let there = converted(&dump, form, &way).unwrap();
        assert_eq!(fine(&["digest", text_at(&there)]), want, "to {form}");
        let back = converted(&there, "rdb", &way.join("back")).unwrap();
        assert_eq!(fine(&["digest", text_at(&back)]), want, "from {form}");
        assert!(
            fine(&["verify", text_at(&there)]).contains("0 findings"),
            "{form}"
        );
    }
}
