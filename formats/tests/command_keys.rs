//! Which words of a command are keys: as a real server tells it, for every command that it calls a write.

mod support;

use dfsnap_formats::command_keys::{Reach, reach};
use dfsnap_formats::resp::Frame;
use std::collections::BTreeSet;
use support::server::Server;

/// What servers rewrite before they send it on, so that no stream has it.
const REWRITTEN: [&str; 12] = [
    "blmove",
    "blmpop",
    "blpop",
    "brpop",
    "brpoplpush",
    "bzmpop",
    "bzpopmax",
    "bzpopmin",
    "lmpop",
    "migrate",
    "xreadgroup",
    "zmpop",
];

fn text(frame: &Frame) -> String {
    String::from_utf8_lossy(frame.as_bytes().unwrap_or_default()).into_owned()
}

fn of(words: &[&str]) -> Option<Reach> {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    reach(&words)
}

#[test]
fn every_write_of_a_server_is_known() {
    let Some(mut server) = Server::start("redis-server", &[]) else {
        return;
    };
    let reply = server.ask(&["COMMAND"]);
    let (mut known, mut missing) = (0, Vec::new());
    for row in reply.as_slice().unwrap() {
        let row = row.as_slice().unwrap();
        let name = text(&row[0]);
        let flags: BTreeSet<String> = row[2].as_slice().unwrap().iter().map(text).collect();
        if !flags.contains("write") || REWRITTEN.contains(&name.as_str()) {
            continue;
        }
        let words = [name.as_str(), "2", "2", "2", "2", "2", "2"];
        if of(&words).is_none() {
            missing.push(name.clone());
        }
        if let (Frame::Int(1), Frame::Int(1), false) =
            (&row[3], &row[4], flags.contains("movablekeys"))
            && name != "move"
        {
            assert_eq!(of(&words), Some(Reach::Key(1)), "{name}");
        }
        known += 1;
    }
    assert!(missing.is_empty(), "{missing:?}");
    assert!(known > 80, "{known}");
}

#[test]
fn keys_are_those_that_a_server_finds() {
    let Some(mut server) = Server::start("redis-server", &[]) else {
        return;
    };
    let commands = [
        "DEL a b c",
        "MSET a 1 b 2",
        "MSETNX a 1 b 2",
        "SET a b",
        "SUNIONSTORE d a b",
        "SINTERSTORE d a",
        "SDIFFSTORE d a b c",
        "PFMERGE d a b",
        "BITOP AND d a b",
        "ZRANGESTORE d a 0 -1",
        "GEOSEARCHSTORE d a FROMMEMBER m BYRADIUS 1 m",
        "ZUNIONSTORE d 2 a b WEIGHTS 1 2",
        "ZINTERSTORE d 1 a",
        "ZDIFFSTORE d 2 a b",
        "GEORADIUS a 1 2 3 m STORE d",
        "GEORADIUS a 1 2 3 m STOREDIST d COUNT 1",
        "GEORADIUSBYMEMBER a m 3 m STORE d",
        "SORT a BY nosort LIMIT 0 10 ALPHA STORE d",
        "COPY a d",
        "COPY a d DB 3 REPLACE",
        "RENAME a d",
        "RENAMENX a d",
        "LMOVE a d LEFT RIGHT",
        "RPOPLPUSH a d",
        "SMOVE a d m",
        "MOVE a 3",
        "EVAL x 2 a b c",
        "FCALL f 0 a",
        "XGROUP CREATE a g $",
        "XGROUP DESTROY a g",
        "PFDEBUG GETREG a",
        "RESTORE a 0 x REPLACE",
        "XADD a 1-1 f v",
    ];
    for command in commands {
        let words: Vec<&str> = command.split(' ').collect();
        let reply = server.ask(&[&["COMMAND", "GETKEYS"], &words[..]].concat());
        // A server answers with an error where there are none.
        let want: BTreeSet<String> = reply
            .as_slice()
            .map_or_else(BTreeSet::new, |keys| keys.iter().map(text).collect());
        let places: Vec<usize> = match of(&words).unwrap_or_else(|| panic!("{command}")) {
            Reach::Key(at) => vec![at],
            Reach::Each { first, step } => (first..words.len()).step_by(step).collect(),
            Reach::Store { to, from, .. } => from.chain([to]).collect(),
            Reach::Move { from, to, .. } => vec![from, to],
            Reach::Script { keys } => keys.collect(),
            other => panic!("{command}: {other:?}"),
        };
        let found: BTreeSet<String> = places.into_iter().map(|at| words[at].to_owned()).collect();
        assert_eq!(found, want, "{command}");
    }
}
