//! Passwords: in no output, no file and no list of processes, whatever verb gets one in whatever way.

mod servers;

use servers::{Redis, command};
use std::path::Path;
use std::process::{Output, Stdio};

const SECRET: &str = "zwiebelkuchen";

fn holds(bytes: &[u8]) -> bool {
    let found = bytes.windows(SECRET.len());
    found.into_iter().any(|window| window == SECRET.as_bytes())
}

/// Nothing in the folder and in what was printed.
fn assert_silent(args: &[&str], folder: &Path, output: &Output) {
    assert!(!holds(&output.stdout) && !holds(&output.stderr), "{args:?}");
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => assert!(!holds(&std::fs::read(&path).unwrap()), "{args:?}: {path:?}"),
            }
        }
    }
}

#[test]
fn no_verb_shows_a_password() {
    let settings = ["--requirepass", SECRET];
    let (Some(source), Some(target)) = (Redis::start(&settings), Redis::start(&settings)) else {
        return;
    };
    for redis in [&source, &target] {
        redis.text(&["AUTH", SECRET]);
    }
    source.text(&["SET", "k", "v"]);
    source.text(&["SET", "l", "w"]);
    let at = |port: u16, password: &str| format!("redis://:{password}@127.0.0.1:{port}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for password in [SECRET, "wrong-zwiebelkuchen"] {
        let (from, to) = (at(source.port, password), at(target.port, password));
        let rows: [&[&str]; 17] = [
            &["backup", &from, "b.rdb"],
            &["backup", &from, "b.rdb", "--json"],
            &["backup", &from, "set", "--format", "dfs"],
            &["backup", &from, "s.rdb", "--scan"],
            &["inspect", &from, "--json"],
            &["ls", &from, "--json"],
            &["get", &from, "k"],
            &["get", &from, "nothing"],
            &["digest", &from, "--json"],
            &["diff", &from, &to],
            &["diff", &from, &to, "--json"],
            &["convert", &from, "c.ndjson", "--json"],
            &["report", &from, "-o", "r.html"],
            &["split", &from, "--by", "db", "-o", "parts"],
            &[
                "restore",
                &from,
                &to,
                "--flush",
                "--verify",
                "--json",
                "--checkpoint",
                "mark",
            ],
            &["restore", &from, &to],
            &[
                "migrate",
                &from,
                &to,
                "--flush",
                "--until-caught-up",
                "--state",
                "state",
            ],
        ];
        for args in rows {
            let _ = std::fs::remove_dir_all(path.join("parts"));
            let output = command(args).current_dir(path).output().unwrap();
            assert_silent(args, path, &output);
            if password != SECRET {
                assert_eq!(output.status.code(), Some(2), "{args:?}");
            }
        }
    }
    // A note that a restore leaves when the server goes away: by a rate that takes longer than the test.
    source.call(&["DEBUG", "POPULATE", "3000"]);
    let to = at(target.port, SECRET);
    let from = at(source.port, SECRET);
    let args = [
        "restore",
        &from,
        &to,
        "--flush",
        "--rate",
        "100",
        "--checkpoint",
        "mark",
    ];
    let child = command(&args)
        .current_dir(path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    servers::wait_for("some keys", || target.text(&["DBSIZE"]) != "0");
    target.call(&["CONFIG", "SET", "maxmemory", "1"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(path.join("mark").exists());
    assert_silent(&args, path, &output);
}

#[test]
fn two_servers_may_have_two_passwords_in_two_files() {
    let (other, settings) = ("apfelkuchen", |secret| ["--requirepass", secret]);
    let source = Redis::start(&settings(SECRET));
    let (Some(source), Some(target)) = (source, Redis::start(&settings(other))) else {
        return;
    };
    source.text(&["AUTH", SECRET]);
    target.text(&["AUTH", other]);
    source.text(&["SET", "k", "v"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("from"), SECRET).unwrap();
    std::fs::write(folder.path().join("to"), format!("{other}\r\nx")).unwrap();
    let from = format!("{}?password-file=from", source.url());
    let to = format!("redis://127.0.0.1:{}?password-file=to", target.port);
    let rows: [(&[&str], i32); 4] = [
        (&["diff", &from, &to], 1),
        (&["restore", &from, &to], 0),
        (&["diff", &from, &to], 0),
        (&["diff", &from, &from.replace("=from", "=to")], 2),
    ];
    for (args, want) in rows {
        let ran = command(args).current_dir(folder.path()).output();
        let output = ran.unwrap();
        assert_eq!(
            output.status.code(),
            Some(want),
            "{args:?}: {}",
            servers::err(&output)
        );
    }
}

#[test]
fn a_list_of_processes_shows_no_password_that_came_otherwise() {
    let Some(redis) = Redis::start(&["--requirepass", SECRET]) else {
        return;
    };
    redis.text(&["AUTH", SECRET]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let url = redis.url();
    let (by_file, by_variable) = (
        vec!["follow", &url, "--password-file", file.to_str().unwrap()],
        vec!["follow", &url],
    );
    for args in [by_file, by_variable] {
        let mut command = command(&args);
        if args.len() == 2 {
            command.env("DFSNAP_PASSWORD", SECRET);
        }
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        servers::wait_for("a follower", || redis.info("connected_slaves") == "1");
        let words = std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
        assert!(!words.is_empty() && !holds(&words));
        let clients = redis.text(&["CLIENT", "LIST"]);
        assert!(!holds(clients.as_bytes()));
        let sent = std::process::Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(!holds(&output.stdout) && !holds(&output.stderr));
        servers::wait_for("no follower", || redis.info("connected_slaves") == "0");
    }
}
