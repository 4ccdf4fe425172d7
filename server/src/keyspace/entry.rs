//! An entry of the keyspace: a key, its value, when it expires, and the epoch of its last write.

use super::blob::Blob;
use super::table::Keyed;
use super::value::Value;

/// The epoch of an entry's last write. It grows by one at every cut, and starts at 1.
pub type Version = u32;

/// One key with its value. Forty bytes in its table, plus what key and value own.
///
/// An expiry is rare and takes an allocation of its own, so that entries without one do not pay for it.
#[derive(Debug)]
pub struct Entry {
    key: Blob,
    content: Content,
    version: Version,
    access: Access,
}

const _: () = assert!(size_of::<Entry>() == 40);

#[derive(Debug)]
enum Content {
    Plain(Value),
    Timed(Box<Timed>),
}

#[derive(Debug)]
struct Timed {
    value: Value,
    expire_at_ms: i64,
}

/// When and how often an entry was used, in the 24 + 8 bits of Redis' LRU clock and LFU counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Access(pub u32);

impl Access {
    /// Last use at `now_ms`, in whole seconds modulo 2^24.
    pub fn at(now_ms: i64) -> Access {
        Access(((now_ms / 1000) as u32) & 0xff_ffff)
    }

    /// A new entry under an LFU policy: counter 5, as Redis starts it, so that it is not the first to go.
    pub fn new_lfu(now_ms: i64) -> Access {
        Access(lfu_minutes(now_ms) << 8 | 5)
    }

    /// The LFU counter after decay: one less for each `decay_minutes` passed.
    pub fn lfu_counter(self, now_ms: i64, decay_minutes: u32) -> u8 {
        let passed = lfu_minutes(now_ms).wrapping_sub(self.0 >> 8) & 0xffff;
        let periods = passed.checked_div(decay_minutes).unwrap_or(0);
        (self.0 as u8).saturating_sub(periods.min(255) as u8)
    }

    /// This entry after one more use under an LFU policy: the counter grows with probability 1 / (base * factor + 1).
    pub fn used(
        self,
        now_ms: i64,
        log_factor: u32,
        decay_minutes: u32,
        random: &mut fastrand::Rng,
    ) -> Access {
        let mut counter = self.lfu_counter(now_ms, decay_minutes);
        let base = f64::from(counter.saturating_sub(5));
        if counter < 255 && random.f64() < 1.0 / (base * f64::from(log_factor) + 1.0) {
            counter += 1;
        }
        Access(lfu_minutes(now_ms) << 8 | u32::from(counter))
    }

    /// Seconds since the last use.
    pub fn idle_s(self, now_ms: i64) -> u32 {
        Access::at(now_ms).0.wrapping_sub(self.0) & 0xff_ffff
    }
}

fn lfu_minutes(now_ms: i64) -> u32 {
    (now_ms / 60_000) as u32 & 0xffff
}

impl Entry {
    /// An entry that has just been written.
    pub fn new(key: Blob, value: Value, version: Version, access: Access) -> Entry {
        Entry {
            key,
            content: Content::Plain(value),
            version,
            access,
        }
    }

    /// The key.
    pub fn key(&self) -> &Blob {
        &self.key
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> &Value {
        match &self.content {
            Content::Plain(value) => value,
            Content::Timed(timed) => &timed.value,
        }
    }

    /// The value, to change. Reached only through the door, `Keyspace::update`.
    #[inline]
    pub(super) fn value_mut(&mut self) -> &mut Value {
        match &mut self.content {
            Content::Plain(value) => value,
            Content::Timed(timed) => &mut timed.value,
        }
    }

    /// Takes the value out for good.
    pub fn into_value(self) -> Value {
        match self.content {
            Content::Plain(value) => value,
            Content::Timed(timed) => timed.value,
        }
    }

    /// Bytes of memory it takes: its place in the table, and all it owns.
    pub fn memory_bytes(&self) -> usize {
        let timed = match &self.content {
            Content::Plain(_) => 0,
            Content::Timed(_) => size_of::<Timed>(),
        };
        size_of::<Entry>() + self.key.heap_bytes() + timed + self.value().heap_bytes()
    }

    /// When the entry expires, in Unix milliseconds.
    #[inline]
    pub fn expire_at_ms(&self) -> Option<i64> {
        match &self.content {
            Content::Plain(_) => None,
            Content::Timed(timed) => Some(timed.expire_at_ms),
        }
    }

    pub(super) fn set_expire_at_ms(&mut self, expire_at_ms: Option<i64>) {
        match (&mut self.content, expire_at_ms) {
            (Content::Timed(timed), Some(at)) => timed.expire_at_ms = at,
            (Content::Plain(value), Some(expire_at_ms)) => {
                let value = std::mem::replace(value, Value::Int(0));
                self.content = Content::Timed(Box::new(Timed {
                    value,
                    expire_at_ms,
                }));
            }
            (Content::Timed(timed), None) => {
                self.content = Content::Plain(std::mem::replace(&mut timed.value, Value::Int(0)));
            }
            (Content::Plain(_), None) => {}
        }
    }

    /// The epoch of the last write.
    #[inline]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Says that all snapshots up to this cut have the entry. Not a change.
    pub fn mark_saved(&mut self, epoch: Version) {
        self.version = epoch;
    }

    pub(super) fn stamp(&mut self, version: Version) {
        self.version = version;
    }

    /// When the entry was last used.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Notes a use. Not a change: observers do not hear of it.
    pub fn set_access(&mut self, access: Access) {
        self.access = access;
    }

    /// Whether the entry is past its time at `now_ms`.
    #[inline]
    pub fn is_expired(&self, now_ms: i64) -> bool {
        self.expire_at_ms().is_some_and(|at| now_ms > at)
    }
}

impl Keyed for Entry {
    #[inline]
    fn key(&self) -> &[u8] {
        self.key.as_slice()
    }

    #[inline]
    fn warm(&self) {
        std::hint::black_box(self.key().first().copied());
        if let Value::Str(text) = self.value() {
            std::hint::black_box(text.as_slice().first().copied());
        }
    }
}
