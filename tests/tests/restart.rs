//! What a server leaves behind when it ends, in order or not: the dump is whole, and the next start finds what was saved.

use std::path::Path;
use std::time::Duration;

use dfsnap_tests::dump::Dump;
use dfsnap_tests::process::{Kind, Server};
use dfsnap_tests::{seed, wait_for};
use fastrand::Rng;

const RULES: &[&str] = &["--threads", "2", "--save", "3600", "1"];

/// Names of the files in a folder that are neither the dump nor the log.
fn others(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name != "dump.rdb" && name != "server.log")
        .collect()
}

fn fill(server: &Server, name: &str, rng: &mut Rng) {
    let mut client = server.client();
    for i in 0..60 {
        client.ask(&format!("SET {name}:{i} {}", rng.u64(..)));
        client.ask(&format!("ZADD z {} {name}:{i}", rng.u32(..1000)));
        client.ask(&format!("SET {name}:t:{i} {i} EX 10000"));
        client.ask(&format!("XADD stream * {name} {i}"));
    }
    client.ask("SELECT 5");
    client.ask(&format!("RPUSH list:{name} a b c"));
}

#[test]
fn sigterm_saves_by_the_rules_and_the_next_start_has_it_all() {
    let mut rng = Rng::with_seed(seed("sigterm"));
    let mut server = Server::ours(RULES);
    for round in 0..3 {
        fill(&server, &format!("round{round}"), &mut rng);
        let digest = server.digest();
        let status = server.terminate();
        assert_eq!(status.code(), Some(0), "{}", server.log());
        assert_eq!(others(server.folder()), Vec::<String>::new());
        server.restart();
        assert_eq!(server.digest(), digest, "round {round}");
    }
}

#[test]
fn without_rules_sigterm_saves_nothing_and_shutdown_save_does() {
    let mut server = Server::ours(&["--threads", "2"]);
    server.client().ask("SET k v");
    assert_eq!(server.terminate().code(), Some(0));
    assert!(!server.dump().exists());
    server.restart();
    assert_eq!(server.client().ask("DBSIZE").number(), Some(0));
    server.client().ask("SET k v");
    let _ = server.client().send(&["SHUTDOWN", "SAVE"]);
    assert_eq!(
        server.wait_until_ended(Duration::from_secs(20)).code(),
        Some(0)
    );
    server.restart();
    assert_eq!(server.client().ask("GET k").text(), "v");
}

#[test]
fn a_killed_save_leaves_the_last_whole_dump() {
    let mut rng = Rng::with_seed(seed("killed"));
    let mut server = Server::ours(&["--threads", "2"]);
    fill(&server, "first", &mut rng);
    server.client().ask("DEBUG POPULATE 20000 many 300");
    server.client().ask("SAVE");
    let mut saved = server.digest();
    let (mut kept, mut replaced) = (0, 0);
    for round in 0..8 {
        fill(&server, &format!("round{round}"), &mut rng);
        let digest = server.digest();
        let mut client = server.client();
        client.ask("BGSAVE");
        let written: u64 = 1 + rng.u64(..30_000);
        wait_for("some progress, or the end", Duration::from_secs(30), || {
            let done = client
                .info("current_save_keys_processed")?
                .parse::<u64>()
                .ok()?;
            let is_over = client.info("rdb_bgsave_in_progress")? == "0";
            (done >= written || is_over).then_some(())
        });
        server.kill();
        if let Err(error) = Dump::read(&server.dump()) {
            panic!("round {round}: {error}");
        }
        server.restart();
        assert_eq!(
            others(server.folder()),
            Vec::<String>::new(),
            "leftovers are removed"
        );
        let found = server.digest();
        match (found == digest, found == saved) {
            (true, _) => replaced += 1,
            (false, true) => kept += 1,
            (false, false) => panic!("round {round}: {found} is neither {saved} nor {digest}"),
        }
        saved = found;
    }
    println!("{kept} times the old dump, {replaced} times the new one");
}

#[test]
fn a_dump_that_cannot_be_written_is_an_error_and_writes_stop() {
    let server = Server::ours(RULES);
    let mut client = server.client();
    client.ask("SET k v");
    // Root writes everywhere, but not over a folder.
    std::fs::create_dir(server.dump()).expect("a folder in the dump's place");
    std::fs::write(server.dump().join("x"), "x").expect("a file in it");
    let reply = client.call(&["SAVE"]);
    assert!(reply.is_error(), "{reply:?}");
    assert_eq!(
        client.info("rdb_last_bgsave_status").as_deref(),
        Some("err")
    );
    let reply = client.call(&["SET", "k", "w"]);
    assert!(format!("{reply:?}").contains("MISCONF"), "{reply:?}");
    assert_eq!(client.ask("GET k").text(), "v");
    std::fs::remove_dir_all(server.dump()).expect("room again");
    client.ask("SAVE");
    client.ask("SET k w");
}

/// Each of 200 000 records says that a million million keys follow. There is one.
#[test]
fn announced_keys_cost_no_more_than_the_file_has_room_for() {
    let mut dump = b"REDIS0010\xfe\x00".to_vec();
    let mut announcement = vec![0xfb];
    for _ in 0..2 {
        announcement.push(0x81);
        announcement.extend_from_slice(&1_000_000_000_000u64.to_be_bytes());
    }
    dump.extend(announcement.repeat(200_000));
    dump.extend_from_slice(b"\x00\x01k\x01v\xff");
    // No checksum.
    dump.extend_from_slice(&[0; 8]);
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("dump.rdb"), &dump).expect("a file");
    let server = Server::spawn_in(Kind::Ours, folder, &["--threads", "2"]);
    server.wait_until_ready();
    let mut client = server.client();
    assert_eq!(client.ask("GET k").text(), "v");
    // A key takes three bytes at least, and a place in the table less than sixty-four.
    let most = dump.len() as u64 / 3 * 64;
    let used: u64 = client
        .info("used_memory")
        .expect("a line")
        .parse()
        .expect("a number");
    assert!(used < most, "{used} bytes for one key");
}

/// The next save, be it that of SIGTERM, used to write over the damaged file, and over what `salvage` would have found in it.
#[test]
fn a_damaged_file_that_was_loaded_stays_under_a_second_name() {
    let server = Server::ours(&["--rdbcompression", "no"]);
    fill(&server, "a", &mut Rng::with_seed(seed("a damaged file")));
    server.client().ask("SAVE");
    let mut damaged = std::fs::read(server.dump()).expect("the dump");
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xF9);
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("dump.rdb"), &damaged).expect("a dump");
    let args = ["--load-lenient", "yes", "--save", "3600 1"];
    let mut server = Server::spawn_in(Kind::Ours, folder, &args);
    let kept = server.folder().join("dump.rdb.damaged");
    for round in 0..2 {
        assert!(server.comes_up(), "{}", server.log());
        assert!(
            std::fs::read(&kept).expect("the damaged one") == damaged,
            "{round}"
        );
        if round == 0 {
            // As it was: nothing is named a second time.
            server.kill();
            server.restart_soon();
        }
    }
    server.client().ask("SET k v");
    server.terminate();
    assert!(std::fs::read(server.dump()).expect("the dump") != damaged);
    assert!(std::fs::read(&kept).expect("the damaged one") == damaged);
    assert!(!server.folder().join("dump.rdb.damaged-2").exists());
    // Another damage of the same name.
    damaged[middle] ^= 1;
    std::fs::write(server.dump(), &damaged).expect("a dump");
    server.restart();
    let second = server.folder().join("dump.rdb.damaged-2");
    assert!(std::fs::read(&second).expect("the second one") == damaged);
}
