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

    /// Only this key.
    pub fn exact(db: Option<u32>, key: &[u8]) -> Self {
        Filter {
            args: FilterArgs {
                db: db.into_iter().collect(),
                ..FilterArgs::default()
            },
            key: Some(key.to_vec()),
            now_ms: 0,
            is_open: false,
        }
    }

    /// Whether every key passes.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    pub fn passes_record(&self, record: &KeyRecord<'_>) -> bool {
        self.is_open || self.passes(&Head::of_key(record), || record.value.len() as u64)
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
        let glob = args.glob.as_ref();
        (args.db.is_empty() || args.db.contains(&head.db))
            && self.key.as_ref().is_none_or(|key| key == head.key)
            && glob.is_none_or(|glob| glob::matches(glob.as_bytes(), head.key))
            && args
                .regex
                .as_ref()
                .is_none_or(|regex| regex.is_match(head.key))
            && (args.kind.is_empty() || args.kind.iter().any(|kind| kind == head.kind.name()))
            && args.ttl.is_none_or(|ttl| self.lives(ttl, &head.attributes))
            && (args.slot.is_empty()
                || args
                    .slot
                    .iter()
                    .any(|range| range.contains(&slot(head.key))))
            && args.size.is_none_or(|size| match size {
                Size::Below(limit) => stored_bytes() < limit,
                Size::Above(limit) => stored_bytes() > limit,
            })
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
    fn units_are_read_and_nonsense_is_refused() {
        assert_eq!(duration_ms("2h"), Ok(7_200_000));
        assert_eq!(duration_ms("15"), Ok(15_000));
        assert_eq!(bytes("64kb"), Ok(65_536));
        assert!(duration_ms("2 fortnights").is_err() && duration_ms("99999999999999999d").is_err());
        assert!(parse_ttl("soon").is_err() && parse_size("5").is_err());
        assert!(parse_slots("16384").is_err() && parse_slots("1-x").is_err());
    }
}
