//! Random commands of every family, sound ones and wrong ones.
//!
//! A template is words with holes: `{…}` is filled by its kind, `(a|b|)` is one of the choices, whose words `,` parts; `^`
//! is a blank inside a word.

use super::Random;

/// What a real server and a file may both hold.
pub const TEMPLATES: &[&str] = &[
    // strings
    "SET {s} {v}",
    "SET {k} {v}",
    "SET {s} {v} (NX|XX|) (GET|) (KEEPTTL|PXAT,{at}|)",
    "SETNX {s} {v}",
    "GETSET {s} {v}",
    "GETDEL {s}",
    "GETEX {s} (PERSIST|PXAT,{at}|)",
    "APPEND {s} {v}",
    "SETRANGE {s} {n} {v}",
    "INCR {s}",
    "DECR {s}",
    "INCRBY {s} {i}",
    "DECRBY {s} {i}",
    "INCRBYFLOAT {s} {f}",
    "MSET {s} {v} {s} {v}",
    "MSETNX {s} {v} {s} {v}",
    "SETBIT {s} {i} (0|1)",
    "BITOP (AND|OR|XOR) {s} {s} {s} {s}",
    "BITOP NOT {s} {s}",
    "BITFIELD {s} (OVERFLOW,SAT|OVERFLOW,WRAP|) (SET|INCRBY) (u8|i5|u63|i64|u1) {n} {i}",
    "BITFIELD {s} SET (u4|i12) #{n} {i} GET u8 0 OVERFLOW SAT INCRBY (i8|u2) #{n} {i}",
    // keys
    "DEL {k}",
    "UNLINK {k} {k}",
    "RENAME {k} {k}",
    "RENAMENX {k} {k}",
    "MOVE {k} {db}",
    "COPY {k} {k} (DB,{db}|) (REPLACE|)",
    "PEXPIREAT {k} {at} (NX|XX|GT|LT|)",
    "EXPIREAT {k} 4000000000 (NX|XX|GT|LT|)",
    "PERSIST {k}",
    "SELECT {db}",
    "SWAPDB {db} {db}",
    "SORT (l|e|z){n} (BY,w*|BY,nosort|BY,h*->f1|) (LIMIT,{n},{n}|) (GET,#|GET,s*|GET,h*->f1|) (ASC|DESC|) STORE {l}",
    "SORT (l|e|z){n} (BY,nosort|) (LIMIT,{n},{n}|) (GET,#|) (ASC|DESC|) ALPHA STORE {l}",
    // lists
    "LPUSH {l} {v} {v} {v}",
    "RPUSH {l} {i} {v}",
    "RPUSH {k} {v}",
    "LPUSHX {l} {v}",
    "RPUSHX {l} {v}",
    "LINSERT {l} (BEFORE|AFTER) {v} {v}",
    "LPOP {l} ({n}|)",
    "RPOP {l} ({n}|)",
    "LSET {l} {i} {v}",
    "LREM {l} (-1|0|1|2) {v}",
    "LTRIM {l} {n} (-1|-2|3|9)",
    "RPOPLPUSH {l} {l}",
    "LMOVE {l} {l} (LEFT|RIGHT) (LEFT|RIGHT)",
    "LMPOP 2 {l} {l} (LEFT|RIGHT) (COUNT,2|)",
    // sets
    "SADD {e} {m} {m} {m}",
    "SADD {e} {i} {i}",
    "SADD {k} {m}",
    "SREM {e} {m} {m}",
    "SMOVE {e} {e} {m}",
    "SUNIONSTORE {e} {e} {e}",
    "SINTERSTORE {e} {e} {e}",
    "SDIFFSTORE {e} {e} {e}",
    // sorted sets
    "ZADD {z} {f} {m} {f} {m} {f} {m}",
    "ZADD {k} {f} {m}",
    "ZADD {z} (NX|XX|GT|LT|) (CH|) {f} {m} {i} {m}",
    "ZADD {z} (NX|XX|GT|LT|) INCR {f} {m}",
    "ZINCRBY {z} {f} {m}",
    "ZREM {z} {m} {m}",
    "ZPOPMIN {z} ({n}|)",
    "ZPOPMAX {z} ({n}|)",
    "ZMPOP 2 {z} {z} (MIN|MAX) (COUNT,2|)",
    "ZREMRANGEBYSCORE {z} (-inf|{f}|({f}) (+inf|{f}|({f})",
    "ZREMRANGEBYRANK {z} ({n}|-2) (-1|-3|{n})",
    "ZREMRANGEBYLEX {z} (-|[m1|(m2) (+|[m3|(m4)",
    "ZUNIONSTORE {z} 2 {z} {z} (WEIGHTS,{f},{f}|) (AGGREGATE,MIN|AGGREGATE,MAX|AGGREGATE,SUM|)",
    "ZUNIONSTORE {z} 3 {z} {e} {z}",
    "ZINTERSTORE {z} 2 {z} {z} (WEIGHTS,2,{f}|) (AGGREGATE,MIN|AGGREGATE,MAX|)",
    "ZINTERSTORE {z} 2 {e} {z}",
    "ZDIFFSTORE {z} 2 {z} {z}",
    "ZRANGESTORE {z} {z} {n} (-1|2|5) (REV|)",
    "ZRANGESTORE {z} {z} (-inf|{f}) (+inf|{f}) BYSCORE (LIMIT,{n},{n}|)",
    "ZRANGESTORE {z} {z} (+inf|{f}) (-inf|{f}) BYSCORE REV (LIMIT,{n},-1|)",
    "GEOADD {q} (NX|XX|) (CH|) 13.361389 38.115556 {place} 15.087269 37.502669 {place}",
    "GEOADD {q} {f} {n} {place}",
    "GEOSEARCHSTORE {z} {q} FROMLONLAT 15 37 (BYRADIUS,200,km|BYBOX,400,400,km|BYRADIUS,9000,mi) (ASC|DESC|) (COUNT,1|) (STOREDIST|)",
    "GEOSEARCHSTORE {z} {q} FROMMEMBER {place} BYRADIUS 100000 ft",
    "GEORADIUS {q} 15 37 200 km (ASC|DESC|) (COUNT,2|) (STORE|STOREDIST) {z}",
    "GEORADIUSBYMEMBER {q} {place} 100 mi STORE {z}",
    // hashes
    "HSET {h} {m} {v} {m} {v}",
    "HSET {k} {m} {v}",
    "HMSET {h} f1 {i} {m} {v}",
    "HSETNX {h} {m} {v}",
    "HINCRBY {h} (f1|{m}) {i}",
    "HINCRBYFLOAT {h} (f1|{m}) {f}",
    "HDEL {h} {m} {m} f1",
    // streams
    "XADD {x} {id} {m} {v}",
    "XADD {x} {id} a {v} b {i}",
    "XADD {x} NOMKSTREAM {id} a {v}",
    "XADD {x} (MAXLEN,=,{n}|MAXLEN,{n}|MINID,{oldid}) {id} a {v}",
    "XADD {x} {oldid} a 1",
    "XTRIM {x} (MAXLEN,{n}|MINID,=,{oldid})",
    "XDEL {x} {oldid} {oldid}",
    "XSETID {x} (999-0|{oldid})",
    "XSETID {x} 999-0 ENTRIESADDED (1000|3) MAXDELETEDID (5-0|0-0|1000-0)",
    "XGROUP CREATE {x} {g} (0|$|{oldid}) (MKSTREAM|) (ENTRIESREAD,{n}|)",
    "XGROUP CREATE {x} {g} 0",
    "XGROUP SETID {x} {g} (0|$|{oldid}) (ENTRIESREAD,{n}|)",
    "XGROUP DESTROY {x} {g}",
    "XGROUP CREATECONSUMER {x} {g} {c}",
    "XGROUP DELCONSUMER {x} {g} {c}",
    "XACK {x} {g} {oldid} {oldid}",
    "XCLAIM {x} {g} {c} 0 {oldid} {oldid} TIME 1700000000000 RETRYCOUNT {n} (FORCE|) (JUSTID|) (LASTID,{oldid}|)",
    "XCLAIM {x} {g} {c} 0 {oldid} TIME 1600000000000 FORCE (JUSTID|)",
    // the rest
    "PFADD {p} {m} {v} {i}",
    "PFADD {p}",
    "PFMERGE {p} {p} {p}",
    "PFCOUNT {p}",
    "PFADD {s} {m}",
    "FUNCTION LOAD (REPLACE|) #!lua^name=lib{n}\nredis.register_function('f{n}',function()return^1^end)",
    "FUNCTION DELETE lib{n}",
    "FLUSHDB",
];

/// What a server does not log although it changes something: the string grows, and then nothing is written.
pub const UNLOGGED: &[&str] = &[
    "BITFIELD {s} OVERFLOW FAIL (SET|INCRBY) (u8|i5|u63|i64|u1) {n} {i}",
    "BITFIELD {s} SET (u4|i12) #{n} {i} GET u8 0 OVERFLOW FAIL INCRBY (i8|u2) #{n} {i}",
];

/// What a server turns into something else before it logs it, so that a file never holds it.
pub const REWRITTEN: &[&str] = &[
    "SET {s} {v} (EX|PX) 100000",
    "SETEX {s} 1000 {v}",
    "PSETEX {s} 1000000 {v}",
    "GETEX {s} EX 1000",
    "EXPIRE {k} 1000 (NX|XX|GT|LT|)",
    "PEXPIRE {k} 1000000",
    "EXPIRE {k} -1",
    "PEXPIREAT {k} 1",
    "SPOP {e}",
    "SPOP {e} {n}",
    "SRANDMEMBER {e}",
    "BLPOP {l} {l} 0.001",
    "BRPOP {l} {l} 0.001",
    "BLMOVE {l} {l} LEFT RIGHT 0.001",
    "BRPOPLPUSH {l} {l} 0.001",
    "BLMPOP 0.001 2 {l} {l} LEFT COUNT 2",
    "BZPOPMIN {z} {z} 0.001",
    "BZMPOP 0.001 1 {z} MAX",
    "XADD {x} * a {v}",
    "XADD {x} MAXLEN ~ {n} * a {v}",
    "XTRIM {x} MAXLEN ~ {n}",
    "XREADGROUP GROUP {g} {c} COUNT {n} (NOACK|) STREAMS {x} >",
    "XREADGROUP GROUP {g} {c} STREAMS {x} 0",
    "XAUTOCLAIM {x} {g} {c} 0 0",
    "EVAL return^redis.call('set',KEYS[1],ARGV[1]) 1 {k} {v}",
    "EVAL redis.call('incr',KEYS[1]);redis.call('select',ARGV[1]);return^redis.call('rpush',KEYS[1],'x') 1 {k} {db}",
    "MULTI",
    "EXEC",
    "DISCARD",
    "FLUSHALL",
    "FUNCTION FLUSH",
    "PUBLISH channel {v}",
];

/// Makes commands; ids of streams ascend over the life of it.
pub struct Commands {
    pub random: Random,
    next_id: usize,
}

impl Commands {
    pub fn new(seed: u64) -> Self {
        let random = Random(seed);
        Commands { random, next_id: 1 }
    }

    /// A command from one of `templates`. Now and then a word behind the second is a wrong one.
    pub fn next(&mut self, templates: &[&[&str]]) -> Vec<Vec<u8>> {
        let total: usize = templates.iter().map(|group| group.len()).sum();
        let mut at = self.random.below(total);
        let mut template = "";
        for group in templates {
            if at < group.len() {
                template = group[at];
                break;
            }
            at -= group.len();
        }
        let mut words = Vec::new();
        for word in template.split(' ') {
            let chosen = self.choose(word);
            let parts: Vec<&str> = match chosen == word {
                true => vec![word],
                false => chosen.split(',').filter(|part| !part.is_empty()).collect(),
            };
            for part in parts {
                words.push(self.fill(&part.replace('^', " ")));
            }
        }
        if words.len() > 3 && self.random.below(40) == 0 {
            let at = 2 + self.random.below(words.len() - 2);
            words[at] = [&b"x"[..], b"-1", b"", b"1.5", b"99999999999999999999"]
                [self.random.below(5)]
            .to_vec();
        }
        words
    }

    /// Resolves `(a|b|)` anywhere in the word.
    fn choose(&mut self, word: &str) -> String {
        let Some(inner) = word.strip_prefix('(').filter(|rest| rest.contains('|')) else {
            return word.to_owned();
        };
        let (inner, tail) = inner.rsplit_once(')').unwrap();
        let choices: Vec<&str> = inner.split('|').collect();
        format!("{}{tail}", choices[self.random.below(choices.len())])
    }

    fn fill(&mut self, word: &str) -> Vec<u8> {
        let Some((before, rest)) = word.split_once('{') else {
            return word.as_bytes().to_vec();
        };
        let Some((name, after)) = rest.split_once('}').filter(|(name, _)| name.len() < 6) else {
            return word.as_bytes().to_vec();
        };
        let filled = self.hole(name);
        let after = self.fill(after);
        [before.as_bytes(), &filled, &after].concat()
    }

    fn hole(&mut self, name: &str) -> Vec<u8> {
        let n = |random: &mut Random, limit| random.below(limit);
        let random = &mut self.random;
        let text = match name {
            "k" => {
                let kinds = ["s", "l", "e", "z", "h", "x", "p"];
                format!("{}{}", kinds[n(random, 7)], n(random, 4))
            }
            "s" | "l" | "e" | "z" | "h" | "x" | "p" | "q" => {
                // Some keys are of another type than their name says.
                format!("{name}{}", n(random, 4))
            }
            "m" => format!("m{}", n(random, 8)),
            // Few enough that a search with COUNT is determined.
            "place" => format!("m{}", n(random, 6)),
            "v" => match n(random, 8) {
                0 => return vec![0xFF, 0, b'\r', b'\n'],
                1 => n(random, 100).to_string(),
                2 => "long ".repeat(20),
                3 => "1.25".to_owned(),
                other => format!("v{other}"),
            },
            "i" => (n(random, 60) as i64 - 20).to_string(),
            "n" => n(random, 5).to_string(),
            "f" => {
                let numbers = [
                    "1",
                    "2.5",
                    "-3",
                    "0.1",
                    "1e10",
                    "3.14159265358979",
                    "-0.5",
                    "7",
                    "inf",
                ];
                numbers[n(random, numbers.len())].to_owned()
            }
            "at" => (4_000_000_000_000u64 + n(random, 5) as u64 * 1000).to_string(),
            "db" => n(random, 3).to_string(),
            "id" => {
                self.next_id += 1;
                format!("{}-{}", self.next_id, n(&mut self.random, 2))
            }
            "oldid" => {
                let back = n(random, 12);
                format!("{}-{}", self.next_id.saturating_sub(back), n(random, 2))
            }
            "g" => format!("g{}", n(random, 2)),
            "c" => format!("c{}", n(random, 3)),
            other => panic!("no such hole: {other}"),
        };
        text.into_bytes()
    }
}
