//! Every command that an AOF may hold, by name.

use super::{Args, Done, Replay};
use super::{
    bits, functions, geo, hash_expiry, hashes, hyperloglog, keys, lists, sets, sort, stream_claims,
    stream_groups, streams, strings, zset_algebra, zset_ranges, zsets,
};
use std::sync::LazyLock;

pub type Run = fn(&mut Replay, Args<'_>) -> Done;

/// One command.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    pub name: &'static str,
    /// Number of words; negative: at least so many.
    pub arity: i32,
    pub action: Action,
}

#[derive(Debug, Clone, Copy)]
pub enum Action {
    Run(Run),
    /// Known, and without effect on the data.
    Nothing,
    Multi,
    Exec,
    /// Its effect is that of a script.
    Script,
}

impl Command {
    pub const fn run(name: &'static str, arity: i32, run: Run) -> Command {
        let action = Action::Run(run);
        Command {
            name,
            arity,
            action,
        }
    }

    const fn other(name: &'static str, action: Action) -> Command {
        let arity = -1;
        Command {
            name,
            arity,
            action,
        }
    }

    pub fn fits(&self, words: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        match self.arity < 0 {
            true => words >= arity,
            false => words == arity,
        }
    }
}

/// The command of this name, in whatever case.
pub fn find(name: &[u8]) -> Option<&'static Command> {
    static TABLE: LazyLock<Vec<Command>> = LazyLock::new(|| {
        let families = FAMILIES.iter().flat_map(|family| family.iter().copied());
        let idle = NOTHING
            .split_whitespace()
            .map(|name| Command::other(name, Action::Nothing));
        let scripts = SCRIPTS
            .split_whitespace()
            .map(|name| Command::other(name, Action::Script));
        let groups = [
            Command::other("MULTI", Action::Multi),
            Command::other("EXEC", Action::Exec),
        ];
        let mut commands: Vec<_> = families.chain(idle).chain(scripts).chain(groups).collect();
        commands.sort_by_key(|command| command.name);
        commands
    });
    let mut upper = [0; NAME_MAX];
    let upper = upper.get_mut(..name.len())?;
    upper.copy_from_slice(name);
    upper.make_ascii_uppercase();
    let found = TABLE.binary_search_by(|command| command.name.as_bytes().cmp(upper));
    found.ok().map(|at| &TABLE[at])
}

/// Longest name; `RESTORE-ASKING` and `GEORADIUSBYMEMBER_RO` are the longest ones.
const NAME_MAX: usize = 24;

const FAMILIES: &[&[Command]] = &[
    strings::COMMANDS,
    bits::COMMANDS,
    keys::COMMANDS,
    lists::COMMANDS,
    sets::COMMANDS,
    zsets::COMMANDS,
    zset_ranges::COMMANDS,
    zset_algebra::COMMANDS,
    hashes::COMMANDS,
    hash_expiry::COMMANDS,
    streams::COMMANDS,
    stream_groups::COMMANDS,
    stream_claims::COMMANDS,
    hyperloglog::COMMANDS,
    geo::COMMANDS,
    sort::COMMANDS,
    functions::COMMANDS,
];

/// What scripts did was logged in place of them from Redis 5 on where `lua-replicate-commands` was set, and always from 7.
const SCRIPTS: &str = "EVAL EVALSHA FCALL";

/// Messages, questions and administration: a group of a client may hold them, and old servers logged it whole.
const NOTHING: &str = "
    PUBLISH SPUBLISH SCRIPT PING ECHO TIME AUTH HELLO QUIT RESET CLIENT CONFIG COMMAND INFO ACL LATENCY MEMORY
    SLOWLOG MODULE MONITOR OBJECT DEBUG WAIT WAITAOF WATCH UNWATCH DISCARD ASKING READONLY READWRITE CLUSTER ROLE REPLCONF
    SAVE BGSAVE BGREWRITEAOF LASTSAVE LOLWUT SUBSCRIBE UNSUBSCRIBE PSUBSCRIBE PUNSUBSCRIBE SSUBSCRIBE SUNSUBSCRIBE PUBSUB
    EVAL_RO EVALSHA_RO FCALL_RO DBSIZE KEYS SCAN RANDOMKEY EXISTS TYPE TTL PTTL EXPIRETIME PEXPIRETIME TOUCH DUMP SORT_RO
    GET MGET GETRANGE SUBSTR STRLEN LCS GETBIT BITCOUNT BITPOS BITFIELD_RO LLEN LINDEX LRANGE LPOS SCARD SISMEMBER
    SMISMEMBER SMEMBERS SRANDMEMBER SINTER SINTERCARD SUNION SDIFF SSCAN HGET HMGET HGETALL HKEYS HVALS HLEN HEXISTS
    HSTRLEN HSCAN HRANDFIELD HTTL HPTTL HEXPIRETIME HPEXPIRETIME ZCARD ZCOUNT ZLEXCOUNT ZSCORE ZMSCORE ZRANK ZREVRANK
    ZRANGE ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE ZRANGEBYLEX ZREVRANGEBYLEX ZRANDMEMBER ZSCAN ZINTER ZINTERCARD ZUNION
    ZDIFF XLEN XRANGE XREVRANGE XREAD XINFO XPENDING GEOPOS GEODIST GEOHASH GEOSEARCH GEORADIUS_RO GEORADIUSBYMEMBER_RO
    PFSELFTEST";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_there_once_and_short_enough() {
        let families = FAMILIES
            .iter()
            .flat_map(|family| family.iter().map(|c| c.name));
        let others = [NOTHING, SCRIPTS]
            .into_iter()
            .flat_map(str::split_whitespace);
        let mut names: Vec<&str> = families.chain(others).collect();
        assert!(names.iter().all(|name| name.len() <= NAME_MAX));
        names.sort_unstable();
        let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{twice:?}");
        assert_eq!(find(b"set").map(|command| command.name), Some("SET"));
        assert!(find(b"nosuch").is_none());
    }
}
