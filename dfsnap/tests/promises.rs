//! What every verb promises to programs: each exit code it can end with, and that `docs/cli.md` names each field of its `--json`.

mod dumps;
mod servers;

use dumps::{dfsnap, expiring, hash, in_db, mixed, rdb, set, string, write};
use serde_json::Value;
use servers::{Redis, command, succeed};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use tempfile::tempdir;

/// A sound dump, another one, a damaged one, one with a function, and what is no dump.
fn scene(folder: &Path) {
    let entries = mixed(50);
    write(folder, "a.rdb", &rdb(&entries));
    let mut other = entries.clone();
    other[3] = string("key:3", "changed");
    other[4] = expiring(other[4].clone(), 4_000_000_000_000);
    other.push(in_db(hash("more", &[("f", "1")]), 2));
    other.retain(|entry| entry.key != b"list");
    let place = other.iter().position(|entry| entry.key == b"set").unwrap();
    other[place] = set("set", &["one", "four"]);
    write(folder, "b.rdb", &rdb(&other));
    let mut bytes = rdb(&entries);
    let at = bytes
        .windows(8)
        .position(|text| text == b"value 7 ")
        .unwrap();
    bytes[at] ^= 1;
    write(folder, "damaged.rdb", &bytes);
    let at = bytes
        .windows(6)
        .position(|text| text == b"\x05key:7")
        .unwrap();
    bytes[at - 1] = 0x63;
    write(folder, "broken.rdb", &bytes);
    write(
        folder,
        "nothing",
        b"no dump at all, whatever one takes for one",
    );
}

#[test]
fn exit_codes_tell_fine_from_findings_from_errors() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    scene(folder);
    let nobody = "unix:/nowhere/socket";
    let rows: [(&[&str], i32); 44] = [
        (&["inspect", "a.rdb"], 0),
        (&["inspect", "broken.rdb"], 2),
        (&["inspect", "missing.rdb"], 2),
        (&["inspect", nobody], 2),
        (&["ls", "a.rdb"], 0),
        (&["ls", "broken.rdb"], 2),
        (&["ls", "a.rdb", "--json", "--csv"], 2),
        (&["get", "a.rdb", "key:1"], 0),
        (&["get", "a.rdb", "no such key"], 2),
        (&["verify", "a.rdb"], 0),
        (&["verify", "damaged.rdb"], 1),
        (&["verify", "broken.rdb"], 1),
        (&["verify", "nothing"], 2),
        (&["verify", "missing.rdb"], 2),
        (&["convert", "a.rdb", "c.ndjson"], 0),
        (&["convert", "damaged.rdb", "d.rdb"], 2),
        (&["convert", "a.rdb", "no ending"], 2),
        (&["convert", "a.rdb", "/nowhere/c.rdb"], 2),
        (&["diff", "a.rdb", "a.rdb"], 0),
        (&["diff", "a.rdb", "b.rdb"], 1),
        (&["diff", "a.rdb", "broken.rdb"], 2),
        (&["merge", "a.rdb", "a.rdb", "-o", "m.rdb"], 0),
        (&["merge", "a.rdb", "b.rdb", "-o", "m2.rdb"], 2),
        (
            &[
                "merge",
                "a.rdb",
                "b.rdb",
                "-o",
                "m2.rdb",
                "--on-conflict",
                "last",
            ],
            0,
        ),
        (&["split", "a.rdb", "--by", "db", "-o", "parts"], 0),
        (&["split", "broken.rdb", "--by", "db", "-o", "parts2"], 2),
        (&["split", "a.rdb", "--by", "color", "-o", "parts2"], 2),
        (&["digest", "a.rdb"], 0),
        (&["digest", "broken.rdb"], 2),
        (&["salvage", "a.rdb", "-o", "s.rdb"], 0),
        (&["salvage", "broken.rdb", "-o", "s.rdb"], 1),
        (&["salvage", "missing.rdb", "-o", "s.rdb"], 2),
        (&["report", "a.rdb", "-o", "r.html"], 0),
        (&["report", "broken.rdb", "-o", "r2.html"], 2),
        (&["backup", nobody, "k.rdb"], 2),
        (&["restore", "a.rdb", nobody], 2),
        (&["migrate", nobody, nobody, "--state", "state"], 2),
        (&["follow", nobody], 2),
        (&["completions", "bash"], 0),
        (&["completions", "csh"], 2),
        (&["man", "verify"], 0),
        (&["man", "nothing"], 2),
        (&["nothing"], 2),
        (&["--version"], 0),
    ];
    for (args, want) in rows {
        let run = dfsnap(folder, args);
        assert_eq!(run.code, Some(want), "{args:?}: {}{}", run.out, run.err);
        let is_ours = run.err.starts_with("error: ") && !run.err.contains("Usage:");
        if want == 2 && is_ours && !run.err.contains("[possible values") {
            assert!(run.err.contains("\ntry: "), "{args:?}: {}", run.err);
        }
    }
    let Some(redis) = Redis::start(&[]) else {
        return;
    };
    redis.call(&["SET", "key:1", "here"]);
    let (dump, url) = (folder.join("a.rdb"), redis.url());
    let dump = dump.to_str().unwrap();
    let rows: [(&[&str], i32); 5] = [
        (&["restore", dump, &url], 2),
        (&["restore", dump, &url, "--dry-run"], 1),
        (&["restore", dump, &url, "--replace", "--dry-run"], 0),
        (&["restore", dump, &url, "--replace", "--verify"], 0),
        (&["restore", dump, &url, "--skip-existing", "--verify"], 0),
    ];
    for (args, want) in rows {
        let run = dfsnap(folder, args);
        assert_eq!(run.code, Some(want), "{args:?}: {}{}", run.out, run.err);
    }
    redis.call(&["SET", "key:1", "another"]);
    let run = dfsnap(
        folder,
        &["restore", dump, &url, "--skip-existing", "--verify"],
    );
    assert_eq!(run.code, Some(1), "{}{}", run.out, run.err);
}

/// Names of all fields, but for what is named by the data.
fn fields(value: &Value, free: &[&str], found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                found.insert(name.clone());
                match (free.contains(&name.as_str()), member) {
                    (true, Value::Object(members)) => {
                        members
                            .values()
                            .for_each(|member| fields(member, free, found));
                    }
                    _ => fields(member, free, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, free, found)),
        _ => {}
    }
}

#[test]
fn every_field_of_json_is_documented() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let folder = tempdir().unwrap();
    let folder = folder.path();
    scene(folder);
    let check = |verb: &str, text: &str| {
        let section = docs
            .split("\n## ")
            .find_map(|part| part.strip_prefix(&format!("{verb}\n")));
        let section = section.unwrap_or_else(|| panic!("no section about {verb}"));
        let mut found = BTreeSet::new();
        let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let free = ["aux", "losses", "databases"];
        let mut count = 0;
        for value in values {
            fields(&value.unwrap(), &free, &mut found);
            count += 1;
        }
        assert!(count > 0 && !found.is_empty(), "{verb}: {text}");
        for name in found {
            let is_named = section.contains(&format!("`{name}`"))
                || section.contains(&format!("\"{name}\""))
                || names_in_lists(section).contains(&name);
            assert!(is_named, "docs/cli.md, {verb}: nothing about {name}");
        }
    };
    let rows: [&[&str]; 11] = [
        &["inspect", "a.rdb", "--json"],
        &["ls", "b.rdb", "--json"],
        &["verify", "a.rdb", "--json"],
        &["verify", "damaged.rdb", "--json"],
        &["verify", "broken.rdb", "--json"],
        &["salvage", "broken.rdb", "-o", "s.rdb", "--json"],
        &["diff", "a.rdb", "b.rdb", "--json"],
        &["digest", "a.rdb", "--json"],
        &[
            "merge",
            "a.rdb",
            "b.rdb",
            "-o",
            "m.rdb",
            "--on-conflict",
            "last",
            "--json",
        ],
        &["split", "a.rdb", "--by", "shards", "-o", "parts", "--json"],
        &["convert", "b.rdb", "c.ndjson", "--json"],
    ];
    for args in rows {
        let run = dfsnap(folder, args);
        assert!(run.code < Some(2), "{args:?}: {}", run.err);
        check(args[0], &run.out);
    }
    let (Some(source), Some(target)) = (Redis::start(&[]), Redis::start(&[])) else {
        return;
    };
    servers::fill(&source);
    let (from, to) = (source.url(), target.url());
    let at = |name: &str| folder.join(name).display().to_string();
    check(
        "backup",
        &succeed(&["backup", &from, &at("k.rdb"), "--json"]),
    );
    let restored = ["restore", &from, &to, "--verify", "--allow-loss", "--json"];
    check("restore", &succeed(&restored));
    let state = at("state");
    let migrated = [
        "migrate",
        &from,
        &to,
        "--flush",
        "--until-caught-up",
        "--state",
        &state,
        "--json",
    ];
    check("migrate", &succeed(&migrated));
    let following = command(&["follow", &from, "--json", "--count", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut n = 0;
    servers::wait_for("a follower", || {
        n += 1;
        source.call(&["SET", "k", &n.to_string()]);
        source.info("slave0").contains("state=online")
    });
    source.call(&["SET", "binary", "\u{1}x"]);
    check(
        "follow",
        &servers::out(&following.wait_with_output().unwrap()),
    );
}

/// Names in braces within a line, as in `{db, keys, expires}`.
fn names_in_lists(section: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in section.split('{').skip(1) {
        let list = part.split('}').next().unwrap_or_default();
        found.extend(list.split([',', ' ']).map(|name| name.trim().to_owned()));
    }
    found
}
