//! Where each command's keys are and what it does with them, as COMMAND shows it.
//!
//! `KeySpec` of a command's row finds keys to lock; these rows say more (read or written, found how) and are for clients: COMMAND INFO
//! and COMMAND GETKEYSANDFLAGS.

/// Where some keys of a command are.
pub struct KeyPlace {
    /// RO, RW, OW or RM, then what becomes of the value, in lower case.
    pub flags: &'static str,
    /// Where to begin.
    pub begin: Begin,
    /// How to go on from there.
    pub find: Find,
}

/// Where to look for the first key.
#[derive(Clone, Copy)]
pub enum Begin {
    /// At this word.
    Index(i32),
    /// Behind this word, looked for from a word on (negative: from the end, backwards).
    Keyword(&'static str, i32),
    /// Only the command itself knows.
    Unknown,
}

/// Where the other keys are.
#[derive(Clone, Copy)]
pub enum Find {
    /// Up to `last` (counted from the first key; negative: from the end of the command), every `step`th; with a `limit` of n only the first
    /// nth part of what is left.
    Range { last: i32, step: i32, limit: i32 },
    /// The word where it begins says how many follow.
    Count,
    /// Only the command itself knows.
    Unknown,
}

const fn range(flags: &'static str, index: i32, last: i32, step: i32) -> KeyPlace {
    KeyPlace {
        flags,
        begin: Begin::Index(index),
        find: Find::Range {
            last,
            step,
            limit: 0,
        },
    }
}

const fn counted(flags: &'static str, index: i32) -> KeyPlace {
    KeyPlace {
        flags,
        begin: Begin::Index(index),
        find: Find::Count,
    }
}

const fn behind(
    flags: &'static str,
    keyword: &'static str,
    from: i32,
    last: i32,
    limit: i32,
) -> KeyPlace {
    KeyPlace {
        flags,
        begin: Begin::Keyword(keyword, from),
        find: Find::Range {
            last,
            step: 1,
            limit,
        },
    }
}

const fn unknown(flags: &'static str) -> KeyPlace {
    KeyPlace {
        flags,
        begin: Begin::Unknown,
        find: Find::Unknown,
    }
}

/// By command, subcommands as `container|subcommand`; in order of names.
#[rustfmt::skip]
const PLACES: &[(&str, &[KeyPlace])] = &[
    ("append", &[range("RW insert", 1, 0, 1)]),
    ("bitcount", &[range("RO access", 1, 0, 1)]),
    ("bitfield", &[range("RW access update variable_flags", 1, 0, 1)]),
    ("bitfield_ro", &[range("RO access", 1, 0, 1)]),
    ("bitop", &[range("OW update", 2, 0, 1), range("RO access", 3, -1, 1)]),
    ("bitpos", &[range("RO access", 1, 0, 1)]),
    ("blmove", &[range("RW access delete", 1, 0, 1), range("RW insert", 2, 0, 1)]),
    ("blmpop", &[counted("RW access delete", 2)]),
    ("blpop", &[range("RW access delete", 1, -2, 1)]),
    ("brpop", &[range("RW access delete", 1, -2, 1)]),
    ("brpoplpush", &[range("RW access delete", 1, 0, 1), range("RW insert", 2, 0, 1)]),
    ("bzmpop", &[counted("RW access delete", 2)]),
    ("bzpopmax", &[range("RW access delete", 1, -2, 1)]),
    ("bzpopmin", &[range("RW access delete", 1, -2, 1)]),
    ("copy", &[range("RO access", 1, 0, 1), range("OW update", 2, 0, 1)]),
    ("decr", &[range("RW access update", 1, 0, 1)]),
    ("decrby", &[range("RW access update", 1, 0, 1)]),
    ("del", &[range("RM delete", 1, -1, 1)]),
    ("dump", &[range("RO access", 1, 0, 1)]),
    ("eval", &[counted("RW access update", 2)]),
    ("eval_ro", &[counted("RO access", 2)]),
    ("evalsha", &[counted("RW access update", 2)]),
    ("evalsha_ro", &[counted("RO access", 2)]),
    ("exists", &[range("RO", 1, -1, 1)]),
    ("expire", &[range("RW update", 1, 0, 1)]),
    ("expireat", &[range("RW update", 1, 0, 1)]),
    ("expiretime", &[range("RO access", 1, 0, 1)]),
    ("fcall", &[counted("RW access update", 2)]),
    ("fcall_ro", &[counted("RO access", 2)]),
    ("geoadd", &[range("RW update", 1, 0, 1)]),
    ("geodist", &[range("RO access", 1, 0, 1)]),
    ("geohash", &[range("RO access", 1, 0, 1)]),
    ("geopos", &[range("RO access", 1, 0, 1)]),
    ("georadius", &[range("RO access", 1, 0, 1), behind("OW update", "STORE", 6, 0, 0), behind("OW update", "STOREDIST", 6, 0, 0)]),
    ("georadius_ro", &[range("RO access", 1, 0, 1)]),
    ("georadiusbymember", &[range("RO access", 1, 0, 1), behind("OW update", "STORE", 5, 0, 0), behind("OW update", "STOREDIST", 5, 0, 0)]),
    ("georadiusbymember_ro", &[range("RO access", 1, 0, 1)]),
    ("geosearch", &[range("RO access", 1, 0, 1)]),
    ("geosearchstore", &[range("OW update", 1, 0, 1), range("RO access", 2, 0, 1)]),
    ("get", &[range("RO access", 1, 0, 1)]),
    ("getbit", &[range("RO access", 1, 0, 1)]),
    ("getdel", &[range("RW access delete", 1, 0, 1)]),
    ("getex", &[range("RW access update", 1, 0, 1)]),
    ("getrange", &[range("RO access", 1, 0, 1)]),
    ("getset", &[range("RW access update", 1, 0, 1)]),
    ("hdel", &[range("RW delete", 1, 0, 1)]),
    ("hexists", &[range("RO", 1, 0, 1)]),
    ("hexpire", &[range("RW update", 1, 0, 1)]),
    ("hexpireat", &[range("RW update", 1, 0, 1)]),
    ("hexpiretime", &[range("RO access", 1, 0, 1)]),
    ("hget", &[range("RO access", 1, 0, 1)]),
    ("hgetall", &[range("RO access", 1, 0, 1)]),
    ("hincrby", &[range("RW access update", 1, 0, 1)]),
    ("hincrbyfloat", &[range("RW access update", 1, 0, 1)]),
    ("hkeys", &[range("RO access", 1, 0, 1)]),
    ("hlen", &[range("RO", 1, 0, 1)]),
    ("hmget", &[range("RO access", 1, 0, 1)]),
    ("hmset", &[range("RW update", 1, 0, 1)]),
    ("hpersist", &[range("RW update", 1, 0, 1)]),
    ("hpexpire", &[range("RW update", 1, 0, 1)]),
    ("hpexpireat", &[range("RW update", 1, 0, 1)]),
    ("hpexpiretime", &[range("RO access", 1, 0, 1)]),
    ("hpttl", &[range("RO access", 1, 0, 1)]),
    ("hrandfield", &[range("RO access", 1, 0, 1)]),
    ("hscan", &[range("RO access", 1, 0, 1)]),
    ("hset", &[range("RW update", 1, 0, 1)]),
    ("hsetnx", &[range("RW insert", 1, 0, 1)]),
    ("hstrlen", &[range("RO", 1, 0, 1)]),
    ("httl", &[range("RO access", 1, 0, 1)]),
    ("hvals", &[range("RO access", 1, 0, 1)]),
    ("incr", &[range("RW access update", 1, 0, 1)]),
    ("incrby", &[range("RW access update", 1, 0, 1)]),
    ("incrbyfloat", &[range("RW access update", 1, 0, 1)]),
    ("lcs", &[range("RO access", 1, 1, 1)]),
    ("lindex", &[range("RO access", 1, 0, 1)]),
    ("linsert", &[range("RW insert", 1, 0, 1)]),
    ("llen", &[range("RO", 1, 0, 1)]),
    ("lmove", &[range("RW access delete", 1, 0, 1), range("RW insert", 2, 0, 1)]),
    ("lmpop", &[counted("RW access delete", 1)]),
    ("lpop", &[range("RW access delete", 1, 0, 1)]),
    ("lpos", &[range("RO access", 1, 0, 1)]),
    ("lpush", &[range("RW insert", 1, 0, 1)]),
    ("lpushx", &[range("RW insert", 1, 0, 1)]),
    ("lrange", &[range("RO access", 1, 0, 1)]),
    ("lrem", &[range("RW delete", 1, 0, 1)]),
    ("lset", &[range("RW update", 1, 0, 1)]),
    ("ltrim", &[range("RW delete", 1, 0, 1)]),
    ("memory|usage", &[range("RO", 2, 0, 1)]),
    ("mget", &[range("RO access", 1, -1, 1)]),
    ("migrate", &[range("RW access delete", 3, 0, 1), behind("RW access delete incomplete", "KEYS", -2, -1, 0)]),
    ("move", &[range("RW access update", 1, 0, 1)]),
    ("mset", &[range("OW update", 1, -1, 2)]),
    ("msetnx", &[range("OW insert", 1, -1, 2)]),
    ("object|encoding", &[range("RO", 2, 0, 1)]),
    ("object|freq", &[range("RO", 2, 0, 1)]),
    ("object|idletime", &[range("RO", 2, 0, 1)]),
    ("object|refcount", &[range("RO", 2, 0, 1)]),
    ("persist", &[range("RW update", 1, 0, 1)]),
    ("pexpire", &[range("RW update", 1, 0, 1)]),
    ("pexpireat", &[range("RW update", 1, 0, 1)]),
    ("pexpiretime", &[range("RO access", 1, 0, 1)]),
    ("pfadd", &[range("RW insert", 1, 0, 1)]),
    ("pfcount", &[range("RW access", 1, -1, 1)]),
    ("pfdebug", &[range("RW access", 2, 0, 1)]),
    ("pfmerge", &[range("RW access insert", 1, 0, 1), range("RO access", 2, -1, 1)]),
    ("psetex", &[range("OW update", 1, 0, 1)]),
    ("pttl", &[range("RO access", 1, 0, 1)]),
    ("rename", &[range("RW access delete", 1, 0, 1), range("OW update", 2, 0, 1)]),
    ("renamenx", &[range("RW access delete", 1, 0, 1), range("OW insert", 2, 0, 1)]),
    ("restore", &[range("OW update", 1, 0, 1)]),
    ("restore-asking", &[range("OW update", 1, 0, 1)]),
    ("rpop", &[range("RW access delete", 1, 0, 1)]),
    ("rpoplpush", &[range("RW access delete", 1, 0, 1), range("RW insert", 2, 0, 1)]),
    ("rpush", &[range("RW insert", 1, 0, 1)]),
    ("rpushx", &[range("RW insert", 1, 0, 1)]),
    ("sadd", &[range("RW insert", 1, 0, 1)]),
    ("scard", &[range("RO", 1, 0, 1)]),
    ("sdiff", &[range("RO access", 1, -1, 1)]),
    ("sdiffstore", &[range("OW update", 1, 0, 1), range("RO access", 2, -1, 1)]),
    ("set", &[range("RW access update variable_flags", 1, 0, 1)]),
    ("setbit", &[range("RW access update", 1, 0, 1)]),
    ("setex", &[range("OW update", 1, 0, 1)]),
    ("setnx", &[range("OW insert", 1, 0, 1)]),
    ("setrange", &[range("RW update", 1, 0, 1)]),
    ("sinter", &[range("RO access", 1, -1, 1)]),
    ("sintercard", &[counted("RO access", 1)]),
    ("sinterstore", &[range("OW update", 1, 0, 1), range("RO access", 2, -1, 1)]),
    ("sismember", &[range("RO", 1, 0, 1)]),
    ("smembers", &[range("RO access", 1, 0, 1)]),
    ("smismember", &[range("RO access", 1, 0, 1)]),
    ("smove", &[range("RW access delete", 1, 0, 1), range("RW insert", 2, 0, 1)]),
    ("sort", &[range("RO access", 1, 0, 1), unknown("RO access"), unknown("OW update")]),
    ("sort_ro", &[range("RO access", 1, 0, 1), unknown("RO access")]),
    ("spop", &[range("RW access delete", 1, 0, 1)]),
    ("spublish", &[range("not_key", 1, 0, 1)]),
    ("srandmember", &[range("RO access", 1, 0, 1)]),
    ("srem", &[range("RW delete", 1, 0, 1)]),
    ("sscan", &[range("RO access", 1, 0, 1)]),
    ("ssubscribe", &[range("not_key", 1, -1, 1)]),
    ("strlen", &[range("RO", 1, 0, 1)]),
    ("substr", &[range("RO access", 1, 0, 1)]),
    ("sunion", &[range("RO access", 1, -1, 1)]),
    ("sunionstore", &[range("OW update", 1, 0, 1), range("RO access", 2, -1, 1)]),
    ("sunsubscribe", &[range("not_key", 1, -1, 1)]),
    ("touch", &[range("RO", 1, -1, 1)]),
    ("ttl", &[range("RO access", 1, 0, 1)]),
    ("type", &[range("RO", 1, 0, 1)]),
    ("unlink", &[range("RM delete", 1, -1, 1)]),
    ("watch", &[range("RO", 1, -1, 1)]),
    ("xack", &[range("RW update", 1, 0, 1)]),
    ("xadd", &[range("RW update", 1, 0, 1)]),
    ("xautoclaim", &[range("RW delete", 1, 0, 1)]),
    ("xclaim", &[range("RW update", 1, 0, 1)]),
    ("xdel", &[range("RW delete", 1, 0, 1)]),
    ("xgroup|create", &[range("RW insert", 2, 0, 1)]),
    ("xgroup|createconsumer", &[range("RW insert", 2, 0, 1)]),
    ("xgroup|delconsumer", &[range("RW delete", 2, 0, 1)]),
    ("xgroup|destroy", &[range("RW delete", 2, 0, 1)]),
    ("xgroup|setid", &[range("RW update", 2, 0, 1)]),
    ("xinfo|consumers", &[range("RO access", 2, 0, 1)]),
    ("xinfo|groups", &[range("RO access", 2, 0, 1)]),
    ("xinfo|stream", &[range("RO access", 2, 0, 1)]),
    ("xlen", &[range("RO", 1, 0, 1)]),
    ("xpending", &[range("RO access", 1, 0, 1)]),
    ("xrange", &[range("RO access", 1, 0, 1)]),
    ("xread", &[behind("RO access", "STREAMS", 1, -1, 2)]),
    ("xreadgroup", &[behind("RO access", "STREAMS", 4, -1, 2)]),
    ("xrevrange", &[range("RO access", 1, 0, 1)]),
    ("xsetid", &[range("RW update", 1, 0, 1)]),
    ("xtrim", &[range("RW delete", 1, 0, 1)]),
    ("zadd", &[range("RW update", 1, 0, 1)]),
    ("zcard", &[range("RO", 1, 0, 1)]),
    ("zcount", &[range("RO access", 1, 0, 1)]),
    ("zdiff", &[counted("RO access", 1)]),
    ("zdiffstore", &[range("OW update", 1, 0, 1), counted("RO access", 2)]),
    ("zincrby", &[range("RW access update", 1, 0, 1)]),
    ("zinter", &[counted("RO access", 1)]),
    ("zintercard", &[counted("RO access", 1)]),
    ("zinterstore", &[range("OW update", 1, 0, 1), counted("RO access", 2)]),
    ("zlexcount", &[range("RO access", 1, 0, 1)]),
    ("zmpop", &[counted("RW access delete", 1)]),
    ("zmscore", &[range("RO access", 1, 0, 1)]),
    ("zpopmax", &[range("RW access delete", 1, 0, 1)]),
    ("zpopmin", &[range("RW access delete", 1, 0, 1)]),
    ("zrandmember", &[range("RO access", 1, 0, 1)]),
    ("zrange", &[range("RO access", 1, 0, 1)]),
    ("zrangebylex", &[range("RO access", 1, 0, 1)]),
    ("zrangebyscore", &[range("RO access", 1, 0, 1)]),
    ("zrangestore", &[range("OW update", 1, 0, 1), range("RO access", 2, 0, 1)]),
    ("zrank", &[range("RO access", 1, 0, 1)]),
    ("zrem", &[range("RW delete", 1, 0, 1)]),
    ("zremrangebylex", &[range("RW delete", 1, 0, 1)]),
    ("zremrangebyrank", &[range("RW delete", 1, 0, 1)]),
    ("zremrangebyscore", &[range("RW delete", 1, 0, 1)]),
    ("zrevrange", &[range("RO access", 1, 0, 1)]),
    ("zrevrangebylex", &[range("RO access", 1, 0, 1)]),
    ("zrevrangebyscore", &[range("RO access", 1, 0, 1)]),
    ("zrevrank", &[range("RO access", 1, 0, 1)]),
    ("zscan", &[range("RO access", 1, 0, 1)]),
    ("zscore", &[range("RO access", 1, 0, 1)]),
    ("zunion", &[counted("RO access", 1)]),
    ("zunionstore", &[range("OW update", 1, 0, 1), counted("RO access", 2)]),
];

/// The places of a command's keys, or of one of its subcommands'.
pub fn of(name: &str, subcommand: Option<&[u8]>) -> &'static [KeyPlace] {
    let find = |wanted: &str| {
        let at = PLACES.binary_search_by(|(name, _)| (*name).cmp(wanted));
        at.ok().map(|at| PLACES[at].1)
    };
    let of_subcommand = || {
        let word = String::from_utf8_lossy(subcommand?).to_lowercase();
        find(&format!("{name}|{word}"))
    };
    find(name).or_else(of_subcommand).unwrap_or_default()
}

/// The keys of a command with what it does to each, as far as the words tell.
pub fn keys<'a>(name: &str, words: &[&'a [u8]]) -> Vec<(&'a [u8], &'static str)> {
    let mut keys = Vec::new();
    for place in of(name, words.get(1).copied()) {
        let flags = narrowed(name, words, place.flags);
        for at in positions(place, words) {
            keys.push((words[at], flags));
        }
    }
    keys
}

/// What a command whose words decide what it does to its key does with these.
fn narrowed(name: &str, words: &[&[u8]], flags: &'static str) -> &'static str {
    let has = |option: &str, from: usize| {
        let mut rest = words.iter().skip(from);
        rest.any(|word| word.eq_ignore_ascii_case(option.as_bytes()))
    };
    match name {
        "set" if has("get", 3) => "RW access update",
        "set" => "OW update",
        "bitfield" if has("set", 2) || has("incrby", 2) => "RW access update",
        "bitfield" => "RO access",
        _ => flags,
    }
}

fn positions(place: &KeyPlace, words: &[&[u8]]) -> Vec<usize> {
    let len = words.len() as i32;
    let first = match place.begin {
        Begin::Index(index) => index,
        Begin::Keyword(keyword, from) => {
            let is_it = |at: &i32| words[*at as usize].eq_ignore_ascii_case(keyword.as_bytes());
            let found = if from >= 0 {
                (from..len).find(is_it)
            } else {
                (1..=len + from).rev().find(is_it)
            };
            match found {
                Some(at) => at + 1,
                None => return Vec::new(),
            }
        }
        Begin::Unknown => return Vec::new(),
    };
    if first >= len {
        return Vec::new();
    }
    let (first, last, step) = match place.find {
        Find::Range { last, step, limit } => {
            let last = match last {
                last @ 0.. => first + last,
                last if limit <= 1 => len + last,
                last => first + (len - first) / limit + last,
            };
            (first, last, step)
        }
        Find::Count => {
            let count = crate::keyspace::value::canonical_i64(words[first as usize]);
            let count = count
                .and_then(|count| i32::try_from(count).ok())
                .unwrap_or(0);
            (first + 1, first.saturating_add(count), 1)
        }
        Find::Unknown => return Vec::new(),
    };
    (first..=last.min(len - 1))
        .step_by(step as usize)
        .map(|at| at as usize)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table;

    #[test]
    fn names_are_in_order_and_every_command_with_keys_has_places() {
        assert!(PLACES.is_sorted_by(|a, b| a.0 < b.0));
        // They came after the table was made; their keys are where those of their relatives are.
        let newer = ["hgetdel", "hgetex", "hsetex"];
        for command in table::all() {
            let has_keys = !matches!(command.keys, crate::command::KeySpec::None);
            let is_container = PLACES.iter().any(|(name, _)| {
                name.strip_prefix(command.name)
                    .is_some_and(|rest| rest.starts_with('|'))
            });
            let has_places = !of(command.name, None).is_empty() || is_container;
            let is_newer = newer.contains(&command.name);
            assert!(!has_keys || has_places || is_newer, "{}", command.name);
        }
    }

    #[test]
    fn keys_are_found_as_the_row_finds_them() {
        for line in [
            "mset a 1 b 2",
            "blpop a b 0",
            "zunionstore d 2 a b weights 1 2",
            "xreadgroup group g c streams a b > >",
            "xread count 1 streams a b 0 0",
            "lmpop 2 a b left",
            "bitop and d a b",
            "rename a b",
            "sintercard 2 a b",
            "geosearchstore d s fromlonlat 1 1 bybox 1 1 m",
            "object encoding a",
            "xgroup create a g $",
        ] {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let command = table::find(words[0]).expect("a command");
            let mut wanted = Vec::new();
            command.keys.visit(&words, |at| wanted.push(words[at]));
            let got: Vec<&[u8]> = keys(command.name, &words)
                .iter()
                .map(|(key, _)| *key)
                .collect();
            assert_eq!(got, wanted, "{line}");
        }
    }
}
