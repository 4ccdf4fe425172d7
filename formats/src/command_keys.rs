//! Which words of a command are keys, and what the command does with them.
//!
//! For whoever has a stream of commands, as replicas get it, and wants a part of it: keys of one kind, under other names, in other databases.
//! Known are the commands that change something and that servers put into their streams, not those that they rewrite before (BLPOP comes
//! as LPOP, MIGRATE as DEL).
//!
//! Invariant: what is not known for certain is None. A key that is overlooked would be a change that goes astray.

use std::ops::Range;

/// What a command has to do with keys. Numbers are places among its words, of which the name is number 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// No key: messages, functions and scripts that are kept.
    Nothing,
    /// One key.
    Key(usize),
    /// Keys that have nothing to do with each other; each takes `step` words, of which it is the first.
    Each { first: usize, step: usize },
    /// The key `to` gets what is made of the keys `from`, which stay as they are.
    Store {
        to: usize,
        from: Range<usize>,
        /// The word with the database of `to`; None: that of the command.
        to_db: Option<usize>,
        /// More keys are read, whose names come of patterns.
        has_patterns: bool,
    },
    /// Something goes from one key to another, or a key to another name or database.
    Move {
        from: usize,
        to: usize,
        /// As above.
        to_db: Option<usize>,
    },
    /// All keys of the database.
    Database,
    /// All keys of all databases.
    All,
    /// The databases in these two words change places.
    Swap(usize, usize),
    /// These keys, and whatever else the script does.
    Script { keys: Range<usize> },
}

/// What a command reaches. None: it is not known, or no server would take it.
///
/// ```
/// use dfsnap_formats::command_keys::{Reach, reach};
/// assert_eq!(reach(&[b"set", b"k", b"v"]), Some(Reach::Key(1)));
/// assert_eq!(reach(&[b"DEL", b"a", b"b"]), Some(Reach::Each { first: 1, step: 1 }));
/// assert_eq!(reach(&[b"FLUSHALL"]), Some(Reach::All));
/// assert_eq!(reach(&[b"MY.COMMAND", b"k"]), None);
/// ```
pub fn reach(words: &[&[u8]]) -> Option<Reach> {
    let name = words.first()?.to_ascii_uppercase();
    let found = match &name[..] {
        b"DEL" | b"UNLINK" | b"PFCOUNT" => each(words, 1)?,
        b"MSET" | b"MSETNX" => each(words, 2)?,
        b"JSON.MSET" => each(words, 3)?,
        b"SUNIONSTORE" | b"SINTERSTORE" | b"SDIFFSTORE" | b"PFMERGE" => store(1, 2..words.len()),
        b"BITOP" => store(2, 3..words.len()),
        b"ZRANGESTORE" | b"GEOSEARCHSTORE" => store(1, 2..3),
        b"ZUNIONSTORE" | b"ZINTERSTORE" | b"ZDIFFSTORE" => store(1, counted(words, 2)?),
        b"GEORADIUS" => radius(words, 6)?,
        b"GEORADIUSBYMEMBER" => radius(words, 5)?,
        b"SORT" => sort(words)?,
        b"COPY" => copy(words)?,
        b"RENAME" | b"RENAMENX" | b"LMOVE" | b"RPOPLPUSH" | b"SMOVE" => Reach::Move {
            from: 1,
            to: 2,
            to_db: None,
        },
        b"MOVE" => Reach::Move {
            from: 1,
            to: 1,
            to_db: Some(2),
        },
        b"FLUSHDB" => Reach::Database,
        b"FLUSHALL" => Reach::All,
        b"SWAPDB" => Reach::Swap(1, 2),
        b"EVAL" | b"EVALSHA" | b"FCALL" => Reach::Script {
            keys: counted(words, 2)?,
        },
        b"PUBLISH" | b"SPUBLISH" | b"FUNCTION" | b"SCRIPT" => Reach::Nothing,
        b"XGROUP" | b"PFDEBUG" => Reach::Key(2),
        name if is_of_one_key(name) => Reach::Key(1),
        _ => return None,
    };
    let last = match &found {
        Reach::Nothing | Reach::Database | Reach::All | Reach::Each { .. } => 0,
        Reach::Key(at) => *at,
        Reach::Store {
            to, from, to_db, ..
        } => (*to).max(from.end - 1).max(to_db.unwrap_or(0)),
        Reach::Move { from, to, to_db } => (*from).max(*to).max(to_db.unwrap_or(0)),
        Reach::Swap(a, b) => (*a).max(*b),
        Reach::Script { keys } => keys.end - 1,
    };
    (last < words.len()).then_some(found)
}

/// Commands whose first argument is their only key, in order.
#[rustfmt::skip]
const ONE_KEY: [&str; 86] = [
    "APPEND", "BITFIELD", "DECR", "DECRBY", "DELIFEQ", "EXPIRE", "EXPIREAT", "GEOADD", "GETDEL",
    "GETEX", "GETSET", "HDEL", "HEXPIRE", "HEXPIREAT", "HGETDEL", "HGETEX", "HINCRBY",
    "HINCRBYFLOAT", "HMSET", "HPERSIST", "HPEXPIRE", "HPEXPIREAT", "HSET", "HSETEX", "HSETNX",
    "INCR", "INCRBY", "INCRBYFLOAT", "JSON.ARRAPPEND", "JSON.ARRINSERT", "JSON.ARRPOP",
    "JSON.ARRTRIM", "JSON.CLEAR", "JSON.DEL", "JSON.FORGET", "JSON.MERGE", "JSON.NUMINCRBY",
    "JSON.NUMMULTBY", "JSON.SET", "JSON.STRAPPEND", "JSON.TOGGLE", "LINSERT", "LPOP", "LPUSH",
    "LPUSHX", "LREM", "LSET", "LTRIM", "PERSIST", "PEXPIRE", "PEXPIREAT", "PFADD", "PSETEX",
    "RESTORE", "RESTORE-ASKING", "RPOP", "RPUSH", "RPUSHX", "SADD", "SET", "SETBIT", "SETEX",
    "SETNX", "SETRANGE", "SPOP", "SREM", "VADD", "VREM", "VSETATTR", "XACK", "XACKDEL", "XADD",
    "XAUTOCLAIM", "XCLAIM", "XDEL", "XDELEX", "XSETID", "XTRIM", "ZADD", "ZINCRBY", "ZPOPMAX",
    "ZPOPMIN", "ZREM", "ZREMRANGEBYLEX", "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE",
];

fn is_of_one_key(name: &[u8]) -> bool {
    let found = ONE_KEY.binary_search_by(|known| known.as_bytes().cmp(name));
    found.is_ok()
}

fn each(words: &[&[u8]], step: usize) -> Option<Reach> {
    let count = words.len() - 1;
    (count > 0 && count.is_multiple_of(step)).then_some(Reach::Each { first: 1, step })
}

fn store(to: usize, from: Range<usize>) -> Reach {
    Reach::Store {
        to,
        from,
        to_db: None,
        has_patterns: false,
    }
}

/// The keys behind the word that says how many they are.
fn counted(words: &[&[u8]], at: usize) -> Option<Range<usize>> {
    let count: usize = std::str::from_utf8(words.get(at)?).ok()?.parse().ok()?;
    let end = (at + 1).checked_add(count)?;
    (end <= words.len()).then_some(at + 1..end)
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// `GEORADIUS key … [STORE to] [STOREDIST to]`: the last of the two counts.
fn radius(words: &[&[u8]], options: usize) -> Option<Reach> {
    let mut to = None;
    for (at, word) in words.iter().enumerate().skip(options) {
        if is(word, "STORE") || is(word, "STOREDIST") {
            to = Some(at + 1);
        }
    }
    Some(match to {
        Some(to) => store(to, 1..2),
        None => Reach::Nothing,
    })
}

/// `SORT key [BY pattern] [LIMIT offset count] [GET pattern …] [ASC|DESC] [ALPHA] [STORE to]`
fn sort(words: &[&[u8]]) -> Option<Reach> {
    let (mut to, mut has_patterns) = (None, false);
    let mut at = 2;
    while let Some(word) = words.get(at) {
        if is(word, "BY") {
            // Without an asterisk it means: not sorted.
            has_patterns |= words.get(at + 1)?.contains(&b'*');
            at += 1;
        } else if is(word, "GET") {
            has_patterns |= *words.get(at + 1)? != b"#";
            at += 1;
        } else if is(word, "LIMIT") {
            at += 2;
        } else if is(word, "STORE") {
            to = Some(at + 1);
            at += 1;
        }
        at += 1;
    }
    Some(match to {
        None => Reach::Nothing,
        Some(to) => Reach::Store {
            to,
            from: 1..2,
            to_db: None,
            has_patterns,
        },
    })
}

/// `COPY from to [DB db] [REPLACE]`
fn copy(words: &[&[u8]]) -> Option<Reach> {
    let option = words.iter().skip(3).position(|word| is(word, "DB"));
    Some(Reach::Store {
        to: 2,
        from: 1..2,
        to_db: option.map(|at| at + 4),
        has_patterns: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Reach> {
        let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
        reach(&words)
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(ONE_KEY.is_sorted());
    }

    #[test]
    fn keys_are_found_where_options_move_them() {
        let stored = |to, from, has_patterns| {
            Some(Reach::Store {
                to,
                from,
                to_db: None,
                has_patterns,
            })
        };
        let rows = [
            ("zunionstore d 2 a b weights 1 2", stored(1, 3..5, false)),
            ("bitop not d a", stored(2, 3..4, false)),
            ("sunionstore d a b", stored(1, 2..4, false)),
            ("pfmerge d", stored(1, 2..2, false)),
            ("georadius k 1 2 3 m store d", stored(7, 1..2, false)),
            (
                "georadiusbymember k store 3 m storedist d",
                stored(6, 1..2, false),
            ),
            ("georadius k 1 2 3 m", Some(Reach::Nothing)),
            ("sort k by w_* limit 0 1 store d", stored(8, 1..2, true)),
            ("sort k by nosort get # store d", stored(7, 1..2, false)),
            ("sort k limit store get store d", stored(6, 1..2, false)),
            ("eval x 1 k a", Some(Reach::Script { keys: 3..4 })),
            ("eval x 0", Some(Reach::Script { keys: 3..3 })),
            ("xgroup create k g $", Some(Reach::Key(2))),
            ("swapdb 0 1", Some(Reach::Swap(1, 2))),
        ];
        for (text, want) in rows {
            assert_eq!(of(text), want, "{text}");
        }
        let db = of("copy a b replace db 3");
        assert!(matches!(db, Some(Reach::Store { to_db: Some(5), .. })));
    }

    #[test]
    fn commands_that_are_cut_are_not_known() {
        for text in [
            "set",
            "del",
            "mset a",
            "rename a",
            "zunionstore d 3 a b",
            "move k",
            "eval x 2 a",
            "copy a",
            "sort k by",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
