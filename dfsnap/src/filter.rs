//! Which keys a verb looks at.

use clap::Args;
use dfsnap_formats::dataset::{Attributes, Entry};
use dfsnap_formats::glob;
use dfsnap_formats::parts::Head;
use dfsnap_formats::rdb::encode::encode;
use dfsnap_formats::rdb::record::KeyRecord;
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::slot::{SLOTS, slot};
use regex::bytes::Regex;
use std::ops::RangeInclusive;

/// Which keys; all conditions must hold
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Filter")]
pub struct FilterArgs {
    /// Only these databases
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub db: Vec<u32>,
    /// Only keys that match this pattern, as KEYS has it
    #[arg(long = "match", value_name = "GLOB")]
    pub glob: Option<String>,
    /// Only keys in which this expression matches
    #[arg(long, value_name = "REGEX", value_parser = Regex::new)]
    pub regex: Option<Regex>,
    /// Only these types: string, list, set, zset, hash, stream, module
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = kind)]
    pub kind: Vec<String>,
    /// Only keys that expire like this: none, any, expired, <1h, >7d
    #[arg(long, value_name = "TTL", value_parser = parse_ttl, allow_hyphen_values = true)]
    pub ttl: Option<Ttl>,
    /// Only keys whose stored value has this many bytes: >1mb, <100
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub size: Option<Size>,
    /// Only keys of these slots: 0-8191,9000
    #[arg(long, value_name = "SLOTS", value_delimiter = ',', value_parser = parse_slots)]
    pub slot: Vec<RangeInclusive<u16>>,
}

impl FilterArgs {
    /// The options that only a value or an expiry answers, which a stream of changes does not tell.
    pub fn needs_values(&self) -> Vec<&'static str> {
        let options = [
            ("--type", !self.kind.is_empty()),
            ("--ttl", self.ttl.is_some()),
            ("--size", self.size.is_some()),
        ];
        let given = options.into_iter().filter(|(_, is_given)| *is_given);
        given.map(|(name, _)| name).collect()
    }

    /// The options that names and databases answer, as they are typed.
    pub fn names_as_typed(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut option = |name: &str, value: String| words.push(format!("{name} {value}"));
        if !self.db.is_empty() {
            let numbers = self.db.iter().map(u32::to_string);
            option("--db", numbers.collect::<Vec<_>>().join(","));
        }
        if let Some(glob) = &self.glob {
            option("--match", glob.clone());
        }
        if let Some(regex) = &self.regex {
            option("--regex", regex.to_string());
        }
        if !self.slot.is_empty() {
            let ranges = self.slot.iter();
            let ranges = ranges.map(|range| format!("{}-{}", range.start(), range.end()));
            option("--slot", ranges.collect::<Vec<_>>().join(","));
        }
        words
    }
}

/// How long a key lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    None,
    Any,
    Expired,
    /// Milliseconds from now.
    Below(i64),
    Above(i64),
}

/// Bytes of a stored value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Below(u64),
    Above(u64),
}

const KINDS: [&str; 7] = ["string", "list", "set", "zset", "hash", "stream", "module"];

fn kind(text: &str) -> Result<String, String> {
    match KINDS.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("there are {}", KINDS.join(", "))),
    }
}

/// A duration with a unit: `90s`, `15m`, `2h`, `7d`; milliseconds.
pub fn duration_ms(text: &str) -> Result<i64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        unit => return Err(format!("{unit}: wanted ms, s, m, h or d")),
    };
    let number: i64 = digits
        .parse()
        .map_err(|_| format!("{text}: wanted a number and a unit"))?;
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("{text}: too long"))
}

fn parse_ttl(text: &str) -> Result<Ttl, String> {
    match text {
        "none" => Ok(Ttl::None),
        "any" => Ok(Ttl::Any),
        "expired" => Ok(Ttl::Expired),
        _ => match text.split_at_checked(1) {
            Some(("<", rest)) => duration_ms(rest).map(Ttl::Below),
            Some((">", rest)) => duration_ms(rest).map(Ttl::Above),
            _ => Err("wanted none, any, expired, <DURATION or >DURATION".to_owned()),
        },
    }
}

/// Bytes with a unit: `100`, `64kb`, `1mb`, `2gb`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        unit => return Err(format!("{unit}: wanted kb, mb or gb")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text}: wanted a number and a unit"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text}: too large"))
}

fn parse_size(text: &str) -> Result<Size, String> {
    match text.split_at_checked(1) {
        Some(("<", rest)) => bytes(rest).map(Size::Below),
        Some((">", rest)) => bytes(rest).map(Size::Above),
        _ => Err("wanted <BYTES or >BYTES".to_owned()),
    }
}

fn parse_slots(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| match text.parse::<u16>() {
        Ok(slot) if slot < SLOTS => Ok(slot),
        _ => Err(format!("{text}: wanted a slot, 0 to {}", SLOTS - 1)),
    };
    Ok(number(first)?..=number(last)?)
}

/// The conditions, and what time it is.
#[derive(Debug, Clone)]
pub struct Filter {
    args: FilterArgs,
    key: Option<Vec<u8>>,
    now_ms: i64,
    /// Nothing is left out.
    is_open: bool,
}

impl Default for Filter {
    /// Every key.
    fn default() -> Self {
        Filter::new(&FilterArgs::default(), 0)
    }
}

impl Filter {
    pub fn new(args: &FilterArgs, now_ms: i64) -> Self {
        let is_open = args.db.is_empty()
            && args.glob.is_none()
            && args.regex.is_none()
            && args.kind.is_empty()
            && args.ttl.is_none()
            && args.size.is_none()
            && args.slot.is_empty();
        Filter {
            args: args.clone(),
            key: None,
            now_ms,
            is_open,
        }
    }

    /// Of the keys that pass only those of this name.
    pub fn only(self, key: &[u8]) -> Self {
        Filter {
            key: Some(key.to_vec()),
            is_open: false,
            ..self
        }
    }

    /// Whether every key passes.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    pub fn passes_record(&self, record: &KeyRecord<'_>) -> bool {
        self.is_open || self.passes(&Head::of_key(record), || record.value.len() as u64)
    }

    /// A key of which only that is known: its value takes more than `whole_bytes`.
    pub fn passes_large(&self, record: &KeyRecord<'_>) -> bool {
        self.is_open || self.passes(&Head::of_key(record), || u64::MAX)
    }

    /// Up to so many bytes, and at least `least`, a value has to be there as a whole for its size to be told.
    pub fn whole_bytes(&self, least: usize) -> usize {
        match self.args.size {
            None => least,
            Some(Size::Below(limit) | Size::Above(limit)) => {
                least.max(usize::try_from(limit).unwrap_or(usize::MAX))
            }
        }
    }

    /// A key of which nothing else is known. What `needs_values` tells is not looked at.
    pub fn passes_name(&self, db: u32, key: &[u8]) -> bool {
        self.is_open || self.passes_db(db) && self.has_name(key)
    }

    pub fn passes_db(&self, db: u32) -> bool {
        self.args.db.is_empty() || self.args.db.contains(&db)
    }

    /// Whether there are names that do not pass.
    pub fn asks_for_names(&self) -> bool {
        let args = &self.args;
        args.glob.is_some() || args.regex.is_some() || !args.slot.is_empty() || self.key.is_some()
    }

    pub fn passes_entry(&self, entry: &Entry) -> bool {
        self.is_open
            || self.passes(&entry.head(), || {
                let mut stored = Vec::new();
                // What no target can hold counts as nothing.
                let _ = encode(&entry.value, Target::default(), &mut stored, None);
                stored.len() as u64
            })
    }

    fn passes(&self, head: &Head<'_>, stored_bytes: impl FnOnce() -> u64) -> bool {
        let args = &self.args;
        self.passes_db(head.db)
            && (args.kind.is_empty() || args.kind.iter().any(|kind| kind == head.kind.name()))
            && args.ttl.is_none_or(|ttl| self.lives(ttl, &head.attributes))
            && self.has_name(head.key)
            && args.size.is_none_or(|size| match size {
                Size::Below(limit) => stored_bytes() < limit,
                Size::Above(limit) => stored_bytes() > limit,
            })
    }

    fn has_name(&self, key: &[u8]) -> bool {
        let args = &self.args;
        let slots = &args.slot;
        self.key.as_ref().is_none_or(|only| only == key)
            && args
                .glob
                .as_ref()
                .is_none_or(|glob| glob::matches(glob.as_bytes(), key))
            && args.regex.as_ref().is_none_or(|regex| regex.is_match(key))
            && (slots.is_empty() || slots.iter().any(|range| range.contains(&slot(key))))
    }

    fn lives(&self, ttl: Ttl, attributes: &Attributes) -> bool {
        let left = attributes
            .expire_at_ms
            .map(|at_ms| at_ms.saturating_sub(self.now_ms));
        match (ttl, left) {
            (Ttl::None, left) => left.is_none(),
            (_, None) => false,
            (Ttl::Any, Some(_)) => true,
            (Ttl::Expired, Some(left)) => left <= 0,
            (Ttl::Below(limit), Some(left)) => left > 0 && left < limit,
            (Ttl::Above(limit), Some(left)) => left > limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfsnap_formats::value::Value;

    fn passes(args: FilterArgs, db: u32, key: &[u8], expire_at_ms: Option<i64>) -> bool {
        let mut entry = Entry::new(db, key, Value::String(b"twelve bytes".to_vec()));
        entry.attributes.expire_at_ms = expire_at_ms;
        Filter::new(&args, 1_000_000).passes_entry(&entry)
    }

    #[test]
    fn every_condition_must_hold() {
        let glob = |pattern: &str| FilterArgs {
            glob: Some(pattern.to_owned()),
            ..FilterArgs::default()
        };
        let ttl = |text: &str| FilterArgs {
            ttl: Some(parse_ttl(text).unwrap()),
            ..FilterArgs::default()
        };
        let size = |text: &str| FilterArgs {
            size: Some(parse_size(text).unwrap()),
            ..FilterArgs::default()
        };
        let db = FilterArgs {
            db: vec![3],
            ..FilterArgs::default()
        };
        let slots = FilterArgs {
            slot: vec![parse_slots("12000-13000").unwrap()],
            ..FilterArgs::default()
        };
        let soon = Some(1_030_000);
        assert!(passes(FilterArgs::default(), 0, b"a", None));
        assert!(
            passes(glob("user:*"), 0, b"user:1", None) && !passes(glob("x*"), 0, b"user:1", None)
        );
        assert!(passes(db.clone(), 3, b"a", None) && !passes(db, 0, b"a", None));
        assert!(passes(ttl("none"), 0, b"a", None) && !passes(ttl("none"), 0, b"a", soon));
        assert!(passes(ttl("<1m"), 0, b"a", soon) && !passes(ttl(">1m"), 0, b"a", soon));
        assert!(passes(ttl("expired"), 0, b"a", Some(5)) && !passes(ttl("expired"), 0, b"a", soon));
        assert!(passes(size(">5"), 0, b"a", None) && !passes(size(">1kb"), 0, b"a", None));
        assert!(passes(slots.clone(), 0, b"foo", None) && !passes(slots, 0, b"bar", None));
    }

    #[test]
    fn a_value_too_large_to_be_read_whole_is_above_every_limit() {
        use dfsnap_formats::rdb::Flavor;
        let large = KeyRecord {
            db: 0,
            key: b"k",
            attributes: Attributes::default(),
            flavor: Flavor::Redis,
            type_code: 0,
            offset: 0,
            value_offset: 0,
            value: b"",
        };
        for (text, want, whole) in [(">100mb", true, 100 << 20), ("<5", false, 4 << 20)] {
            let args = FilterArgs {
                size: Some(parse_size(text).unwrap()),
                ..FilterArgs::default()
            };
            let filter = Filter::new(&args, 0);
            assert_eq!(filter.passes_large(&large), want, "{text}");
            assert_eq!(filter.whole_bytes(4 << 20), whole, "{text}");
        }
        assert!(Filter::default().passes_large(&large));
    }

    #[test]
    fn units_are_read_and_nonsense_is_refused() {
        assert_eq!(duration_ms("2h"), Ok(7_200_000));
        assert_eq!(duration_ms("15"), Ok(15_000));
        assert_eq!(bytes("64kb"), Ok(65_536));
        assert!(duration_ms("2 fortnights").is_err() && duration_ms("99999999999999999d").is_err());
        assert!(parse_ttl("soon").is_err() && parse_size("5").is_err());
        assert!(parse_slots("16384").is_err() && parse_slots("1-x").is_err());
    }
}
