//! What commands come to, above all those that no server at hand knows, and the ends of a group.

use super::*;
use crate::aof::reader::{AofReader, Options as ReaderOptions};
use crate::value::{SetValue, ZSetValue, list_elements};

const NOW_MS: i64 = 1_700_000_000_000;

fn with_clock() -> Replay {
    Replay::new(Options {
        now_ms: Some(NOW_MS),
        ..Options::default()
    })
}

fn apply(replay: &mut Replay, command: &str) -> Result<(), ReplayError> {
    let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
    replay.apply(&words)
}

/// All entries as text: `db/key=value`, and `@` with the expiry of a key or a field.
fn shown(replay: Replay) -> Vec<String> {
    let text = |bytes: Vec<u8>| bytes.escape_ascii().to_string();
    let expiry = |at_ms: Option<i64>| at_ms.map_or(String::new(), |at_ms| format!("@{at_ms}"));
    let entry = |entry: Entry| {
        let value = match &entry.value {
            Value::String(bytes) => bytes.escape_ascii().to_string(),
            Value::List(nodes) => {
                let elements: Vec<_> = list_elements(nodes).map(|e| text(e.to_vec())).collect();
                elements.join(" ")
            }
            Value::Set(set) => {
                let mut members: Vec<_> = set.members().map(|m| text(m.to_vec())).collect();
                members.sort();
                members.join(" ")
            }
            Value::ZSet(zset) => {
                let members = zset
                    .members()
                    .map(|(m, score)| format!("{}:{score}", text(m.to_vec())));
                members.collect::<Vec<_>>().join(" ")
            }
            Value::Hash(hash) => {
                let fields = hash.fields().map(|field| {
                    let (name, value) = (text(field.field.to_vec()), text(field.value.to_vec()));
                    format!("{name}:{value}{}", expiry(field.expire_at_ms))
                });
                fields.collect::<Vec<_>>().join(" ")
            }
            other => format!("{other:?}"),
        };
        let key = text(entry.key);
        format!(
            "{}/{key}={value}{}",
            entry.db,
            expiry(entry.attributes.expire_at_ms)
        )
    };
    let items = replay.into_items().into_iter();
    items
        .map(|item| match item {
            Item::Entry(found) => entry(found),
            Item::Function { code } => text(code),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn commands_come_to_what_servers_come_to() {
    #[rustfmt::skip]
    let rows: &[(&str, &[&str], &[&str])] = &[
        ("expired keys stay", &["SET a 1 PXAT 5", "PEXPIREAT a 3"], &["0/a=1@3"]),
        ("relative expiries count from the clock", &["SET a 1 EX 10", "SETEX b 1 x", "EXPIRE b 5 GT"], &["0/a=1@1700000010000", "0/b=x@1700000005000"]),
        ("fields expire", &["HSET h a 1 b 2 c 3", "HPEXPIREAT h 9 FIELDS 2 a b", "HPEXPIREAT h 7 GT FIELDS 1 a", "HPERSIST h FIELDS 1 b"], &["0/h=a:1@9 b:2 c:3"]),
        ("a new value takes the expiry of a field", &["HSET h a 1 b 2", "HPEXPIREAT h 9 FIELDS 2 a b", "HSET h a 5", "HINCRBY h b 1"], &["0/h=a:5 b:3@9"]),
        ("HSETEX", &["HSETEX h PXAT 9 FIELDS 2 a 1 b 2", "HSETEX h KEEPTTL FIELDS 1 a 5", "HSETEX h FIELDS 1 b 6", "HSETEX h FIELDS 1 d 4 FXX PXAT 3", "HSETEX h FNX PXAT 4 FIELDS 2 a 7 c 7"], &["0/h=a:5@9 b:6"]),
        ("HGETEX and HGETDEL", &["HSET h a 1 b 2 c 3", "HGETEX h FIELDS 1 a PXAT 9", "HGETEX h FIELDS 1 a", "HGETDEL h FIELDS 2 b x"], &["0/h=a:1@9 c:3"]),
        ("a hash that lost its fields goes", &["HSET h a 1", "HGETDEL h FIELDS 1 a"], &[]),
        ("databases", &["SELECT 2", "SET a 1", "MOVE a 5", "SET a 2", "SWAPDB 2 0"], &["0/a=2", "5/a=1"]),
        ("copies take the expiry along", &["SET a 1 PXAT 5", "COPY a b DB 3", "PERSIST a"], &["0/a=1", "3/b=1@5"]),
        ("a group takes effect with its end", &["MULTI", "SET a 1", "INCR a", "EXEC"], &["0/a=2"]),
        ("an open group never does", &["SET a 1", "MULTI", "SET a 2"], &["0/a=1"]),
        ("blocking commands do not wait", &["RPUSH l a b", "BLPOP x l 0", "BRPOPLPUSH x l 0"], &["0/l=b"]),
        ("messages change nothing", &["PUBLISH c m", "SCRIPT LOAD x", "GET a"], &[]),
        ("the older name of RESTORE's twin", &["RESTORE-ASKING a 0 x"], &[]),
    ];
    for (name, commands, want) in rows {
        let mut replay = with_clock();
        for command in *commands {
            apply(&mut replay, command).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert_eq!(shown(replay), *want, "{name}");
    }
}

#[test]
fn what_a_client_would_get_an_error_for_changes_nothing() {
    #[rustfmt::skip]
    let rows = [
        "LPUSH s x", "SADD s x", "HSET s a 1", "ZADD s 1 x", "XADD s 1-1 a b", "INCR s", "APPEND l x", "SETBIT s -1 1",
        "SET s x NX XX", "SET s x PXAT 0", "SETRANGE s -1 x", "RENAME nosuch s", "LSET l 5 x", "HINCRBY h a 1", "ZADD z nan m",
        "ZADD z 1", "EXPIRE s x", "RESTORE s 0 x", "COPY s s", "MOVE s 0", "SELECT -1", "EXEC", "SINTERSTORE s s",
        "XGROUP CREATE nosuch g 0", "XSETID nosuch 1-1", "PFADD s x", "HEXPIRE h -1 FIELDS 1 a", "HEXPIRE h 1 FIELDS 2 a",
        "FUNCTION LOAD x", "FUNCTION DELETE x", "BITOP NOT s s s", "GEOADD z 999 0 m", "GET", "SET s",
    ];
    for command in rows {
        let mut replay = with_clock();
        for before in ["SET s v", "RPUSH l a", "HSET h a x", "ZADD z 1 m"] {
            apply(&mut replay, before).unwrap();
        }
        let want = shown(replay.clone());
        apply(&mut replay, command).unwrap();
        let expected = u64::from(command != "GET");
        assert_eq!(replay.refused(), expected, "{command}");
        assert_eq!(shown(replay), want, "{command}");
    }
}

#[test]
fn what_the_file_does_not_say_is_an_error_with_its_place() {
    let rows = [
        (
            "EVAL x 0",
            "offset 7: \"EVAL\" in db 3: a script: what it did is not in the file",
        ),
        ("FCALL f 0", "a script"),
        (
            "nosuch a",
            "offset 7: \"nosuch\" in db 3: no command of this name is known",
        ),
        ("XGROUP nosuch a", "no command of this name"),
        ("EXPIRE s 1", "no clock was given"),
        ("XADD x * a b", "no clock was given"),
        ("SPOP e", "left to chance"),
        ("XADD x MAXLEN ~ 1 2-2 a b", "nodes"),
        ("XREADGROUP GROUP g c STREAMS x >", "claims"),
        (
            "SETRANGE s 9999999999 x",
            "the string would take 10000000000 bytes, at most 536870912",
        ),
        ("SORT e BY x* ALPHA STORE l", "hash table"),
    ];
    for (command, want) in rows {
        let mut replay = Replay::new(Options::default());
        for before in ["SELECT 3", "SET s v", "SADD e a b c", "XADD x 1-1 a b"] {
            apply(&mut replay, before).unwrap();
        }
        let before = shown(replay.clone());
        let error = apply(replay.at(7), command).expect_err(command).to_string();
        assert!(error.contains(want), "{command}: {error}");
        assert_eq!(shown(replay), before, "{command}");
    }
}

/// An RDB file may hold a database beyond those of any server. Its SELECT used to be refused, and the keys that followed
/// went to the database before.
#[test]
fn every_database_that_a_dump_holds_can_be_selected() {
    let mut replay = Replay::new(Options::default());
    for command in ["SELECT 4294967295", "SET a 1", "SELECT 4294967296"] {
        apply(&mut replay, command).unwrap();
    }
    assert_eq!(replay.refused(), 1);
    assert_eq!(shown(replay), ["4294967295/a=1"]);
}

#[test]
fn timestamps_in_the_file_are_the_clock() {
    let file = b"#TS:100\r\n*3\r\n$5\r\nSETEX\r\n$1\r\na\r\n$1\r\n7\r\n*4\r\n$5\r\nSETEX\r\n$1\r\na\r\n$1\r\n7\r\n$1\r\nx\r\n";
    let mut replay = Replay::new(Options::default());
    let mut reader = AofReader::new(&file[..], ReaderOptions::default());
    while let Some(unit) = reader.next().unwrap() {
        replay.unit(&unit).unwrap();
    }
    assert_eq!(replay.refused(), 1, "a SETEX without a value");
    assert_eq!(shown(replay), ["0/a=x@107000"]);
}

#[test]
fn values_take_the_form_that_servers_choose() {
    let mut replay = Replay::new(Options::default());
    for number in 0..600 {
        apply(&mut replay, &format!("SADD ints {number}")).unwrap();
        apply(&mut replay, &format!("ZADD large {number} m{number}")).unwrap();
    }
    apply(&mut replay, "SADD few 1 2 3").unwrap();
    apply(&mut replay, "SADD words a b 1").unwrap();
    apply(&mut replay, "ZADD small 1.5 a -0 b").unwrap();
    let entries: Vec<_> = replay.into_items();
    let value = |name: &[u8]| {
        let found = entries.iter().find_map(|item| match item {
            Item::Entry(entry) if entry.key == name => Some(entry.value.clone()),
            _ => None,
        });
        found.unwrap()
    };
    assert!(matches!(value(b"ints"), Value::Set(SetValue::Members(_))));
    assert!(matches!(value(b"few"), Value::Set(SetValue::Intset(_))));
    assert!(matches!(value(b"words"), Value::Set(SetValue::Listpack(_))));
    assert!(matches!(
        value(b"large"),
        Value::ZSet(ZSetValue::Members(_))
    ));
    // A pack would lose the sign of the zero.
    assert!(matches!(
        value(b"small"),
        Value::ZSet(ZSetValue::Members(_))
    ));
}

#[test]
fn functions_come_first_and_can_be_restored() {
    let code = |name: &str| format!("#!lua name={name}\nreturn");
    let mut payload = vec![crate::rdb::opcode::FUNCTION2];
    crate::rdb::writer::string(&mut payload, code("b").as_bytes(), None);
    crate::rdb::dump::seal(&mut payload, 10);
    let mut replay = Replay::new(Options::default());
    let one = code("a");
    replay.apply(&[b"SET", b"k", b"v"]).unwrap();
    replay
        .apply(&[b"FUNCTION", b"LOAD", one.as_bytes()])
        .unwrap();
    replay
        .apply(&[b"FUNCTION", b"LOAD", one.as_bytes()])
        .unwrap();
    replay
        .apply(&[b"FUNCTION", b"LOAD", b"REPLACE", one.as_bytes()])
        .unwrap();
    replay.apply(&[b"FUNCTION", b"RESTORE", &payload]).unwrap();
    replay.apply(&[b"FUNCTION", b"RESTORE", &payload]).unwrap();
    assert_eq!(replay.refused(), 2);
    let want = ["#!lua name=a\\nreturn", "#!lua name=b\\nreturn", "0/k=v"];
    assert_eq!(shown(replay.clone()), want);
    replay
        .apply(&[b"FUNCTION", b"RESTORE", &payload, b"FLUSH"])
        .unwrap();
    assert_eq!(shown(replay), want[1..]);
}
