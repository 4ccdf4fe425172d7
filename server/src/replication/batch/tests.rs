use dfsnap_formats::resp::encode_command;
use dfsnap_replica::{Event, Link, LinkConfig, Position};

use super::*;
use crate::keyspace::shard_of_key;

/// A command of the stream: its database and its words.
type Words<'a> = (u32, &'a str);

fn encoded(commands: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands {
        encode_command(&mut bytes, &command.split(' ').collect::<Vec<_>>());
    }
    bytes
}

/// Calls `visit` with each unit of a stream that goes on in database 0.
fn units(stream: &[u8], mut visit: impl FnMut(&Transaction<'_>)) {
    let position = Position {
        replid: dfsnap_replica::ReplId::parse(&[b'a'; 40]).expect("forty letters"),
        offset: 1000,
        db: 0,
    };
    let mut link = Link::begin(LinkConfig::default(), Some(position), 0);
    // To PING, to two REPLCONF in one, to PSYNC.
    for reply in [&b"+PONG\r\n"[..], b"+OK\r\n+OK\r\n", b"+CONTINUE\r\n"] {
        let step = link.poll(reply).expect("an answer as it should be");
        assert_eq!(step.consumed, reply.len());
    }
    let mut at = 0;
    loop {
        let step = link.poll(&stream[at..]).expect("a stream as it should be");
        at += step.consumed;
        match step.event {
            Some(Event::Transaction(unit)) => visit(&unit),
            None => break,
            Some(event) => panic!("{event:?}"),
        }
    }
    assert_eq!(at, stream.len());
}

/// What each shard has to run, as text.
fn shown(batch: &Batch) -> Vec<Vec<String>> {
    let part = |part: &Part| {
        let mut calls = Vec::new();
        part.visit(&batch.bytes, |call, words| {
            let words: Vec<_> = words
                .iter()
                .map(|word| String::from_utf8_lossy(word))
                .collect();
            calls.push(format!("{}> {}", call.db.0, words.join(" ")));
        });
        calls
    };
    batch.parts.iter().map(part).collect()
}

/// What each shard should have to run: commands with `stride` words for each key are split.
fn wanted(shards: usize, commands: &[(Words<'_>, usize)]) -> Vec<Vec<String>> {
    let shard = |shard| {
        let calls = commands.iter().filter_map(|&((db, text), stride)| {
            let words: Vec<&str> = text.split(' ').collect();
            let own: Vec<&str> = match stride {
                0 => words[1..].to_vec(),
                _ => words[1..]
                    .chunks(stride)
                    .filter(|group| shard_of_key(group[0].as_bytes(), shards) == shard)
                    .flatten()
                    .copied()
                    .collect(),
            };
            let is_here = match (words[0], stride) {
                ("PUBLISH", _) => shard == 0,
                (_, 0) => shard_of_key(words[1].as_bytes(), shards) == shard,
                _ => !own.is_empty(),
            };
            is_here.then(|| format!("{db}> {} {}", words[0], own.join(" ")))
        });
        calls.collect()
    };
    (0..shards).map(shard).collect()
}

#[test]
fn each_shard_gets_its_commands_in_order() {
    let stream = [
        "SET a 1",
        "MSET a 2 b 3 c 4 d 5 e 6",
        "PING",
        "SELECT 3",
        "INCR b",
        "MULTI",
        "SET c 1",
        "DEL a b c d",
        "PUBLISH news x",
        "EXEC",
        "DEL a",
        "REPLCONF GETACK *",
    ];
    let commands = [
        ((0, "SET a 1"), 0),
        ((0, "MSET a 2 b 3 c 4 d 5 e 6"), 2),
        ((3, "INCR b"), 0),
        ((3, "SET c 1"), 0),
        ((3, "DEL a b c d"), 1),
        ((3, "PUBLISH news x"), 0),
        ((3, "DEL a"), 1),
    ];
    let stream = encoded(&stream);
    for shards in 1..5 {
        let mut gathering = Gathering::new(shards);
        units(&stream, |unit| {
            assert_eq!(gathering.add(unit).unwrap(), Gathered::Taken);
        });
        assert_eq!(gathering.len(), stream.len());
        let batch = gathering.take().expect("units are in");
        assert_eq!(*batch.bytes, *stream, "{shards} shards: as it came");
        let end = StreamPlace {
            offset: 1000 + stream.len() as u64,
            db: DbIndex(3),
        };
        assert_eq!(batch.end, end);
        assert_eq!(shown(&batch), wanted(shards, &commands), "{shards} shards");
        assert!(gathering.take().is_none(), "it is out");
    }
}

#[test]
fn a_unit_over_shards_is_alone_and_nothing_of_it_is_in() {
    let far = (0..100)
        .map(|n| format!("far{n}"))
        .find(|far| shard_of_key(far.as_bytes(), 2) != shard_of_key(b"a", 2))
        .expect("half of them are");
    let rows: [(&str, &[&str]); 3] = [
        ("a command over two shards", &[&format!("RENAME a {far}")]),
        (
            "within a block",
            &["MULTI", "SET a 1", &format!("RENAME a {far}"), "EXEC"],
        ),
        ("about everything", &["FLUSHALL"]),
    ];
    for (name, commands) in rows {
        let mut gathering = Gathering::new(2);
        let before = encoded(&["SET a 1"]);
        units(&before, |unit| {
            gathering.add(unit).unwrap();
        });
        units(&encoded(commands), |unit| {
            assert_eq!(gathering.add(unit).unwrap(), Gathered::IsAlone, "{name}");
            let alone = alone(unit).unwrap();
            let expected = commands.len().saturating_sub(2).max(1);
            assert_eq!(alone.calls.len(), expected, "{name}");
            assert_eq!(alone.len, unit.raw.len(), "{name}");
        });
        let batch = gathering.take().expect("what came before");
        assert_eq!(*batch.bytes, *before, "{name}");
        assert_eq!(shown(&batch), wanted(2, &[((0, "SET a 1"), 0)]), "{name}");
    }
}

#[test]
fn what_cannot_be_applied_is_told() {
    let rows = [
        ("NOSUCH a", "does not know"),
        ("SET a", "with 2 words"),
        ("MSET a 1 b", "with 4 words"),
        ("SUBSCRIBE a", "no place in a stream"),
    ];
    for (command, want) in rows {
        let mut gathering = Gathering::new(2);
        units(&encoded(&[command]), |unit| {
            let error = gathering.add(unit).unwrap_err().to_string();
            assert!(error.contains(want), "{command}: {error}");
        });
        assert!(gathering.take().is_none(), "{command}");
    }
}

#[test]
fn only_shards_that_are_concerned_have_jobs() {
    let mut gathering = Gathering::new(4);
    let mut batches = Vec::new();
    for command in ["PING", "SET a 1", "INCR a"] {
        units(&encoded(&[command]), |unit| {
            gathering.add(unit).unwrap();
        });
        batches.extend(gathering.take());
    }
    assert_eq!(batches.len(), 3);
    let shards: Vec<usize> = jobs(batches).iter().map(|job| job.shard).collect();
    assert_eq!(shards, [shard_of_key(b"a", 4)]);
    assert!(jobs(Vec::new()).is_empty());
}

/// A value of 32 MiB used to cost a replica 32 MiB for ever beside the value itself.
#[test]
fn the_room_of_a_long_unit_is_given_back() {
    let value = "v".repeat(1 << 20);
    let mut gathering = Gathering::new(2);
    for command in [format!("set k {value}"), "set k v".to_owned()] {
        units(&encoded(&[&command]), |unit| {
            let added = gathering.add(unit).expect("a sound unit");
            assert_eq!(added, Gathered::Taken);
        });
        let batch = gathering.take().expect("a unit is in");
        assert!(batch.bytes.len() > command.len());
        assert!(gathering.bytes.capacity() <= KEPT_BYTES);
    }
}
