//! What a command's row says.

use super::{Args, CommandError, Handler};

/// One command.
pub struct Command {
    /// Lower case.
    pub name: &'static str,
    /// Number of words with the name; negative = at least that many.
    pub arity: i32,
    /// Properties, as COMMAND shows them.
    pub flags: Flags,
    /// Where the keys are.
    pub keys: KeySpec,
    /// How it runs.
    pub run: Run,
    /// Family.
    pub group: Group,
    /// First Redis version with it.
    pub since: &'static str,
    /// One line of help.
    pub summary: &'static str,
}

/// Properties of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// A write that takes constant or logarithmic time.
    pub const WRITE_FAST: Flags = Flags::WRITE.with(Flags::FAST);
    /// A write that may need memory.
    pub const WRITE_OOM: Flags = Flags::WRITE.with(Flags::DENYOOM);
    /// A write that may need memory and takes constant or logarithmic time.
    pub const WRITE_OOM_FAST: Flags = Flags::WRITE_OOM.with(Flags::FAST);
    /// A read that takes constant or logarithmic time.
    pub const READ_FAST: Flags = Flags::READONLY.with(Flags::FAST);

    /// Nothing special.
    pub const NONE: Flags = Flags(0);
    /// May change the dataset.
    pub const WRITE: Flags = Flags(1);
    /// Reads only.
    pub const READONLY: Flags = Flags(1 << 1);
    /// Refused when memory is short.
    pub const DENYOOM: Flags = Flags(1 << 2);
    /// For administrators.
    pub const ADMIN: Flags = Flags(1 << 3);
    /// Not inside scripts.
    pub const NOSCRIPT: Flags = Flags(1 << 4);
    /// Allowed while a dataset is being loaded.
    pub const LOADING: Flags = Flags(1 << 5);
    /// Allowed on a replica whose link is down and that may not serve stale data.
    pub const STALE: Flags = Flags(1 << 6);
    /// Constant or logarithmic time.
    pub const FAST: Flags = Flags(1 << 7);
    /// Allowed before AUTH.
    pub const NO_AUTH: Flags = Flags(1 << 8);
    /// Cannot be queued in MULTI.
    pub const NO_MULTI: Flags = Flags(1 << 9);
    /// May block its client.
    pub const BLOCKING: Flags = Flags(1 << 10);
    /// Key positions cannot be told from the row alone.
    pub const MOVABLEKEYS: Flags = Flags(1 << 11);
    /// About publish and subscribe.
    pub const PUBSUB: Flags = Flags(1 << 12);
    /// Not shown by MONITOR.
    pub const SKIP_MONITOR: Flags = Flags(1 << 13);
    /// Its keys may be missing.
    pub const NO_MANDATORY_KEYS: Flags = Flags(1 << 14);
    /// Allowed on a node of a cluster that is about to get the slot.
    pub const ASKING: Flags = Flags(1 << 15);
    /// Refused while a full sync is loaded beside the dataset that is served.
    pub const NO_ASYNC_LOADING: Flags = Flags(1 << 16);
    /// Not shown. Goes to replicas although it does not change the dataset.
    pub const MAY_REPLICATE: Flags = Flags(1 << 17);
    /// Not shown. It has subcommands, and its second word is one.
    pub const CONTAINER: Flags = Flags(1 << 18);

    const NAMES: [&'static str; 17] = [
        "write",
        "readonly",
        "denyoom",
        "admin",
        "noscript",
        "loading",
        "stale",
        "fast",
        "no_auth",
        "no_multi",
        "blocking",
        "movablekeys",
        "pubsub",
        "skip_monitor",
        "no_mandatory_keys",
        "asking",
        "no_async_loading",
    ];

    /// Both sets together.
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names, as COMMAND shows them: of those that are shown.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Flags::NAMES
            .iter()
            .enumerate()
            .filter(move |(bit, _)| self.0 >> bit & 1 == 1)
            .map(|(_, name)| *name)
    }
}

/// Family of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the names of the families in Redis' documentation"
)]
pub enum Group {
    Generic,
    String,
    List,
    Set,
    SortedSet,
    Hash,
    Stream,
    Bitmap,
    HyperLogLog,
    Geo,
    PubSub,
    Transactions,
    Scripting,
    Connection,
    Server,
    Cluster,
}

/// Where a command's keys stand among its words.
#[derive(Clone, Copy)]
pub enum KeySpec {
    /// No keys.
    None,
    /// From word `first` to word `last` (negative: counted from the end), every `step`th.
    Range {
        /// Position of the first key; 1 is the word after the name.
        first: usize,
        /// Position of the last key; -1 is the last word.
        last: isize,
        /// Distance between keys.
        step: usize,
    },
    /// A destination key at `dest` if there is one, a count at `count`, and that many keys after it.
    Counted {
        /// Position of a key before the count.
        dest: Option<usize>,
        /// Position of the count.
        count: usize,
    },
    /// Found by a function that gets all words and pushes positions.
    Custom(fn(Args<'_>, &mut Vec<usize>)),
}

impl KeySpec {
    /// One key, the first word after the name.
    pub const ONE: KeySpec = KeySpec::Range {
        first: 1,
        last: 1,
        step: 1,
    };
    /// The first two words.
    pub const TWO: KeySpec = KeySpec::Range {
        first: 1,
        last: 2,
        step: 1,
    };
    /// Every word.
    pub const ALL: KeySpec = KeySpec::Range {
        first: 1,
        last: -1,
        step: 1,
    };

    /// Calls `visit` with the position of each key. Words that do not form the command give fewer keys; the handler
    /// then refuses it.
    pub fn visit(&self, args: Args<'_>, mut visit: impl FnMut(usize)) {
        match *self {
            KeySpec::None => {}
            KeySpec::Range { first, last, step } => {
                let last = if last < 0 {
                    args.len().saturating_sub(last.unsigned_abs())
                } else {
                    last as usize
                };
                (first..=last.min(args.len().saturating_sub(1)))
                    .step_by(step)
                    .for_each(visit);
            }
            KeySpec::Counted { dest, count } => {
                if let Some(dest) = dest.filter(|&dest| dest < args.len()) {
                    visit(dest);
                }
                let number = args
                    .get(count)
                    .and_then(|word| crate::keyspace::value::canonical_i64(word))
                    .unwrap_or(0);
                // More than there are words: the command will say so, and touches none.
                let number = usize::try_from(number)
                    .ok()
                    .filter(|number| *number <= args.len().saturating_sub(count + 1))
                    .unwrap_or(0);
                (count + 1..count + 1 + number).for_each(visit);
            }
            KeySpec::Custom(find) => {
                let mut positions = Vec::new();
                find(args, &mut positions);
                positions.into_iter().for_each(visit);
            }
        }
    }
}

/// How a command runs.
#[derive(Clone, Copy)]
pub enum Run {
    /// On its keys, as one run on one shard. Keys of other shards are lent to that shard for the run.
    Keys(Handler),
    /// Like `Keys`, but a command whose keys are on several shards may run on each with that shard's keys only, and the
    /// replies are merged. `stride` words belong to each key (MSET: 2).
    Split {
        /// Runs the command on a subset of its keys.
        handler: Handler,
        /// Words that go with each key.
        stride: usize,
        /// How replies become one.
        merge: Merge,
    },
    /// With all shards at once, nothing else running anywhere.
    Global(Handler),
    /// On the one shard that a cursor in word `n` names (SCAN).
    Cursor(Handler),
    /// A script: on its keys as one run on one shard, or with all shards if it has none or touches others.
    Script(Handler),
    /// By the connection itself: about the session, or about the server as a whole.
    Session(Session),
}

/// How the replies of a split command become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Integers are added.
    Sum,
    /// All say OK.
    Ok,
    /// One element for each key, in the order of the keys.
    Elements,
}

/// Commands that the connection runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the command of that name")]
pub enum Session {
    Acl,
    /// ASKING, READONLY and READWRITE.
    ClusterMode,
    Auth,
    Bgrewriteaof,
    Bgsave,
    Client,
    Cluster,
    Command,
    Config,
    Debug,
    Discard,
    Echo,
    Exec,
    Function,
    Hello,
    Info,
    Lastsave,
    Memory,
    Migrate,
    Module,
    Latency,
    Monitor,
    Multi,
    Ping,
    Psubscribe,
    Psync,
    Punsubscribe,
    Quit,
    Replconf,
    Replicaof,
    /// FAILOVER.
    Failover,
    Reset,
    Role,
    Save,
    Script,
    Select,
    Shutdown,
    Slowlog,
    Ssubscribe,
    Subscribe,
    Sunsubscribe,
    Sync,
    Time,
    Unsubscribe,
    Unwatch,
    Wait,
    Waitaof,
    Watch,
}

impl Command {
    /// A command that runs on its keys; [`Command::about`] completes the row.
    pub const fn keyed(
        name: &'static str,
        arity: i32,
        flags: Flags,
        keys: KeySpec,
        handler: Handler,
    ) -> Command {
        Command {
            name,
            arity,
            flags,
            keys,
            run: Run::Keys(handler),
            group: Group::Generic,
            since: "",
            summary: "",
        }
    }

    /// The same row for a command that may run on each shard with that shard's keys.
    pub const fn split(mut self, stride: usize, merge: Merge) -> Command {
        if let Run::Keys(handler) = self.run {
            self.run = Run::Split {
                handler,
                stride,
                merge,
            };
        }
        self
    }

    /// The same row for a command that runs with all shards at once.
    pub const fn everywhere(mut self) -> Command {
        if let Run::Keys(handler) = self.run {
            self.run = Run::Global(handler);
        }
        self
    }

    /// The same row with what the reference says of the command.
    pub const fn about(
        mut self,
        group: Group,
        since: &'static str,
        summary: &'static str,
    ) -> Command {
        self.group = group;
        self.since = since;
        self.summary = summary;
        self
    }

    /// Whether this many words are allowed.
    pub fn arity_fits(&self, words: usize) -> bool {
        if self.arity >= 0 {
            words == self.arity as usize
        } else {
            words >= self.arity.unsigned_abs() as usize
        }
    }

    /// The arity error of this command.
    pub fn wrong_arity(&self) -> CommandError {
        CommandError::wrong_arity(self.name)
    }

    /// The ACL categories, with their `@`.
    pub fn categories(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        let has = |flag| self.flags.has(flag);
        let by_flag = [
            (Flags::WRITE, "@write"),
            (Flags::READONLY, "@read"),
            (Flags::ADMIN, "@admin"),
            (Flags::ADMIN, "@dangerous"),
        ];
        names.extend(
            by_flag
                .iter()
                .filter(|(flag, _)| has(*flag))
                .map(|(_, name)| *name),
        );
        names.push(if has(Flags::FAST) { "@fast" } else { "@slow" });
        if has(Flags::BLOCKING) {
            names.push("@blocking");
        }
        names.extend(match self.group {
            Group::Generic if !matches!(self.keys, KeySpec::None) => Some("@keyspace"),
            Group::Generic | Group::Server | Group::Cluster => None,
            Group::String => Some("@string"),
            Group::List => Some("@list"),
            Group::Set => Some("@set"),
            Group::SortedSet => Some("@sortedset"),
            Group::Hash => Some("@hash"),
            Group::Stream => Some("@stream"),
            Group::Bitmap => Some("@bitmap"),
            Group::HyperLogLog => Some("@hyperloglog"),
            Group::Geo => Some("@geo"),
            Group::PubSub => Some("@pubsub"),
            Group::Transactions => Some("@transaction"),
            Group::Scripting => Some("@scripting"),
            Group::Connection => Some("@connection"),
        });
        names
    }

    /// Whether it may change the dataset.
    pub fn is_write(&self) -> bool {
        self.flags.has(Flags::WRITE)
    }
}
