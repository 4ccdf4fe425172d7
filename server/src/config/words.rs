//! Types of settings whose values are words, and of those with a structure of their own.
//!
//! Each reads the canonical text a [`super::kind::Kind`] has accepted, so reading it back cannot fail.

/// Reads a value from the canonical text of its row.
pub trait FromText: Sized {
    fn from_text(text: &str) -> Option<Self>;
}

macro_rules! word_enum {
    ($(#[$doc:meta])* $type:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type { $($variant),* }

        impl $type {
            pub const NAMES: &[&str] = &[$($word),*];

            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $word),* }
            }
        }

        impl FromText for $type {
            fn from_text(text: &str) -> Option<Self> {
                match text { $($word => Some($type::$variant),)* _ => None }
            }
        }
    };
}

word_enum! {
    /// Which keys go when memory is full.
    MaxmemoryPolicy {
        VolatileLru = "volatile-lru",
        VolatileLfu = "volatile-lfu",
        VolatileRandom = "volatile-random",
        VolatileTtl = "volatile-ttl",
        AllkeysLru = "allkeys-lru",
        AllkeysLfu = "allkeys-lfu",
        AllkeysRandom = "allkeys-random",
        NoEviction = "noeviction",
    }
}

word_enum! {
    /// How the kernel's score of this process is set.
    OomScoreAdj {
        No = "no",
        Yes = "yes",
        Relative = "relative",
        Absolute = "absolute",
    }
}

impl MaxmemoryPolicy {
    /// Access bits count accesses instead of remembering the last one.
    pub fn is_lfu(self) -> bool {
        matches!(
            self,
            MaxmemoryPolicy::VolatileLfu | MaxmemoryPolicy::AllkeysLfu
        )
    }

    /// Access bits decide who goes.
    pub fn uses_access(self) -> bool {
        self.is_lfu()
            || matches!(
                self,
                MaxmemoryPolicy::VolatileLru | MaxmemoryPolicy::AllkeysLru
            )
    }

    /// Only keys with an expiry are candidates.
    pub fn is_volatile(self) -> bool {
        self.as_str().starts_with("volatile")
    }
}

word_enum! {
    /// Least severe lines that are logged.
    LogLevel { Debug = "debug", Verbose = "verbose", Notice = "notice", Warning = "warning" }
}
word_enum! {
    /// When append-only files are synced.
    AppendFsync { EverySecond = "everysec", Always = "always", No = "no" }
}
word_enum! {
    /// How a replica loads a payload.
    ReplDisklessLoad { Disabled = "disabled", OnEmptyDb = "on-empty-db", SwapDb = "swapdb" }
}
word_enum! {
    /// Who may use a dangerous command.
    Privilege { No = "no", Yes = "yes", Local = "local" }
}

impl Privilege {
    pub fn allows(self, is_local: bool) -> bool {
        self == Privilege::Yes || (self == Privilege::Local && is_local)
    }
}

word_enum! {
    /// Which loaded values are checked element by element.
    SanitizeDump { No = "no", Yes = "yes", Clients = "clients" }
}
word_enum! {
    /// Channels a new user may use.
    AclPubsub { AllChannels = "allchannels", ResetChannels = "resetchannels" }
}
word_enum! {
    /// What a command that fails in the stream does.
    PropagationErrors { Ignore = "ignore", Panic = "panic", PanicOnReplicas = "panic-on-replicas" }
}
word_enum! {
    /// How files are read and written.
    IoBackend { Auto = "auto", IoUring = "io-uring", Threads = "threads" }
}

word_enum! {
    /// How blobs of DFS files are compressed.
    SnapshotCompression { None = "none", Lz4 = "lz4", Zstd = "zstd" }
}

/// Take a snapshot when so many seconds passed since the last and so many changes were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaveRule {
    pub seconds: u64,
    pub changes: u64,
}

impl FromText for Vec<SaveRule> {
    fn from_text(text: &str) -> Option<Vec<SaveRule>> {
        let numbers: Option<Vec<u64>> = text
            .split_whitespace()
            .map(|word| word.parse().ok())
            .collect();
        Some(
            numbers?
                .chunks_exact(2)
                .map(|rule| SaveRule {
                    seconds: rule[0],
                    changes: rule[1],
                })
                .collect(),
        )
    }
}

/// Unsent bytes that disconnect a client. 0 means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputLimit {
    pub hard_bytes: u64,
    pub soft_bytes: u64,
    /// How long the soft limit may be exceeded.
    pub soft_seconds: u64,
}

/// Limits by class of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputLimits {
    pub normal: OutputLimit,
    pub replica: OutputLimit,
    pub pubsub: OutputLimit,
}

impl OutputLimits {
    /// The limit of a class by the name it has in the configuration.
    pub fn class_mut(&mut self, name: &str) -> Option<&mut OutputLimit> {
        match name.to_ascii_lowercase().as_str() {
            "normal" => Some(&mut self.normal),
            "slave" | "replica" => Some(&mut self.replica),
            "pubsub" => Some(&mut self.pubsub),
            _ => None,
        }
    }

    /// Classes and limits as the configuration writes them.
    pub fn lines(&self) -> [String; 3] {
        [
            ("normal", self.normal),
            ("slave", self.replica),
            ("pubsub", self.pubsub),
        ]
        .map(|(name, limit)| {
            format!(
                "{name} {} {} {}",
                limit.hard_bytes, limit.soft_bytes, limit.soft_seconds
            )
        })
    }
}

impl FromText for OutputLimits {
    fn from_text(text: &str) -> Option<OutputLimits> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut limits = OutputLimits::default();
        for group in words.chunks(4) {
            let [class, hard, soft, seconds] = group else {
                return None;
            };
            *limits.class_mut(class)? = OutputLimit {
                hard_bytes: hard.parse().ok()?,
                soft_bytes: soft.parse().ok()?,
                soft_seconds: seconds.parse().ok()?,
            };
        }
        Some(limits)
    }
}

/// Classes of keyspace events, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventClasses(u16);

impl EventClasses {
    /// The letters, in the order in which they are printed; `A` stands for the first ten.
    const LETTERS: &[u8] = b"g$lshzxetdnKEm";
    const ALL: u16 = (1 << 10) - 1;

    /// Is the class with this letter published? `K` and `E`: are channels of that kind?
    pub fn contains(self, letter: u8) -> bool {
        EventClasses::bit(letter).is_some_and(|bit| self.0 & bit != 0)
    }

    /// True when nothing is ever published: no class, or no kind of channel.
    pub fn is_silent(self) -> bool {
        !(self.contains(b'K') || self.contains(b'E'))
    }

    /// All classes as one number.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Undoes [`EventClasses::bits`].
    pub fn from_bits(bits: u16) -> EventClasses {
        EventClasses(bits)
    }

    fn bit(letter: u8) -> Option<u16> {
        EventClasses::LETTERS
            .iter()
            .position(|&l| l == letter)
            .map(|at| 1 << at)
    }

    /// The canonical form: `KEA` prints as `AKE`.
    pub fn to_text(self) -> String {
        let is_all = self.0 & EventClasses::ALL == EventClasses::ALL;
        let from = if is_all { 10 } else { 0 };
        let letters = EventClasses::LETTERS[from..]
            .iter()
            .filter(|&&letter| self.contains(letter));
        let letters = letters.map(|&letter| char::from(letter));
        if is_all {
            std::iter::once('A').chain(letters).collect()
        } else {
            letters.collect()
        }
    }
}

impl FromText for EventClasses {
    fn from_text(text: &str) -> Option<EventClasses> {
        text.bytes()
            .try_fold(EventClasses(0), |classes, letter| match letter {
                b'A' => Some(EventClasses(classes.0 | EventClasses::ALL)),
                _ => EventClasses::bit(letter).map(|bit| EventClasses(classes.0 | bit)),
            })
    }
}

/// What SIGINT and SIGTERM do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShutdownFlags {
    pub save: bool,
    pub nosave: bool,
    pub now: bool,
    pub force: bool,
}

impl ShutdownFlags {
    /// Whether the dataset is to be saved; `None`: as the rules say.
    pub fn saves(self) -> Option<bool> {
        match (self.save, self.nosave) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }
}

impl FromText for ShutdownFlags {
    fn from_text(text: &str) -> Option<ShutdownFlags> {
        let mut flags = ShutdownFlags::default();
        for word in text.split_whitespace() {
            match word {
                "default" => {}
                "save" => flags.save = true,
                "nosave" => flags.nosave = true,
                "now" => flags.now = true,
                "force" => flags.force = true,
                _ => return None,
            }
        }
        Some(flags)
    }
}

/// A limit on the memory of all clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    Bytes(u64),
    /// Of `maxmemory`.
    Percent(u64),
}

impl FromText for MemoryLimit {
    fn from_text(text: &str) -> Option<MemoryLimit> {
        match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().map(MemoryLimit::Percent),
            None => text.parse().ok().map(MemoryLimit::Bytes),
        }
    }
}

/// Three numbers: of a primary, of a replica, of a process that saves.
impl FromText for [i64; 3] {
    fn from_text(text: &str) -> Option<[i64; 3]> {
        let numbers = text.split_whitespace().map(|word| word.parse().ok());
        let numbers: Option<Vec<i64>> = numbers.collect();
        numbers?.try_into().ok()
    }
}

/// The primary to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrimaryAddress {
    pub host: String,
    pub port: u16,
}

/// Settings that may be absent are empty texts.
impl FromText for Option<PrimaryAddress> {
    fn from_text(text: &str) -> Option<Option<PrimaryAddress>> {
        match text.split_once(' ') {
            None => text.is_empty().then_some(None),
            Some((host, port)) => Some(Some(PrimaryAddress {
                host: host.to_owned(),
                port: port.parse().ok()?,
            })),
        }
    }
}

impl FromText for Option<String> {
    fn from_text(text: &str) -> Option<Option<String>> {
        Some((!text.is_empty()).then(|| text.to_owned()))
    }
}

impl FromText for String {
    fn from_text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }
}

impl FromText for Vec<String> {
    fn from_text(text: &str) -> Option<Vec<String>> {
        Some(text.split_whitespace().map(str::to_owned).collect())
    }
}

impl FromText for Vec<f64> {
    fn from_text(text: &str) -> Option<Vec<f64>> {
        text.split_whitespace()
            .map(|word| word.parse().ok())
            .collect()
    }
}

impl FromText for bool {
    fn from_text(text: &str) -> Option<bool> {
        match text {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        }
    }
}

macro_rules! from_decimal {
    ($($type:ty),*) => {
        $(impl FromText for $type {
            fn from_text(text: &str) -> Option<$type> {
                text.parse().ok()
            }
        })*
    };
}
from_decimal!(u16, u32, u64, usize, i32, i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_classes_print_in_one_order() {
        let rows = [
            ("KEA", "AKE"),
            ("g$lshzxetdE", "AE"),
            ("Ex", "xE"),
            ("nmAK", "AnKm"),
            ("mn", "nm"),
            ("", ""),
            ("K$K", "$K"),
        ];
        for (text, want) in rows {
            assert_eq!(
                EventClasses::from_text(text).unwrap().to_text(),
                want,
                "{text}"
            );
        }
        assert_eq!(EventClasses::from_text("KQ"), None);
        assert!(EventClasses::from_text("g$").unwrap().is_silent());
    }
}
