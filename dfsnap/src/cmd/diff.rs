//! `dfsnap diff`: what differs between two datasets, dumps or live servers in any mix.
//!
//! First pass: a digest of every value, brought together by key. Second pass, for the keys that are shown: the elements
//! of values that differ, brought together likewise. Memory is that of `compare::pairs` and of what is shown.

mod elements;
mod show;

use crate::compare::pairs::{Note, Pairs, Side};
use crate::compare::value::Elements;
use crate::filter::{self, Filter, FilterArgs};
use crate::report::{self, Failure, Outcome};
use crate::source::{Place, Record, Source, SourceOptions};
use clap::Args;
use dfsnap_formats::value::Kind;
use std::collections::BTreeMap;

/// Compare two datasets: which keys were added, removed, changed, and what in them
///
/// A and B are dumps of any format or live servers, in any mix. Encodings do not matter, nor the order of members, LRU
/// and LFU, and counters of streams. What does not fit into --memory goes to a temporary file (TMPDIR).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DiffArgs {
    /// What was: dump or URL of a server; one of the two may be `-`
    #[arg(value_name = "A", value_parser = Place::parse)]
    pub a: Place,
    /// What is
    #[arg(value_name = "B", value_parser = Place::parse)]
    pub b: Place,
    /// Do not compare when keys expire
    #[arg(long)]
    pub ignore_expiry: bool,
    /// Keys of each sort to show; all are counted
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// Elements to show of each value that differs; 0 spares the second pass
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub elements: usize,
    /// Memory for comparing; more goes to disk
    #[arg(long, value_name = "BYTES", default_value = "64mb", value_parser = filter::bytes)]
    pub memory: u64,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
}

const EXAMPLES: &str = "\
Exit code: 0 the same, 1 different, 2 an error.

Examples:
  What happened between two backups:
    dfsnap diff monday.rdb tuesday.rdb
  Whether a migration from Dragonfly brought everything:
    dfsnap diff dump-summary.dfs redis://new-host:6379 --ignore-expiry
  Only the sessions, for a program:
    dfsnap diff a.rdb b.rdb --match 'session:*' --json | jq '.changed[].key'";

/// Function libraries are compared beside the keys of databases.
const FUNCTIONS: u32 = u32::MAX;
const FUNCTION_KIND: u8 = 255;

/// A key, or a function library.
type Name = (u32, Vec<u8>);

/// A key that is on one side only.
#[derive(Debug, Clone, Copy)]
struct Lone {
    kind: u8,
}

/// A key that is on both sides and differs.
#[derive(Debug, Clone)]
struct Changed {
    kinds: (u8, u8),
    value: bool,
    expiries: Option<(Option<i64>, Option<i64>)>,
    elements: elements::Changes,
}

/// Names in order, the first of them.
struct First<T> {
    limit: usize,
    count: u64,
    shown: BTreeMap<Name, T>,
}

impl<T> First<T> {
    fn new(limit: usize) -> Self {
        First {
            limit,
            count: 0,
            shown: BTreeMap::new(),
        }
    }

    fn add(&mut self, group: u32, name: &[u8], what: T) {
        self.count += 1;
        self.shown.insert((group, name.to_vec()), what);
        if self.shown.len() > self.limit {
            self.shown.pop_last();
        }
    }
}

/// What came of the comparison.
struct Differences {
    /// Keys of A and of B.
    keys: (u64, u64),
    added: First<Lone>,
    removed: First<Lone>,
    changed: First<Changed>,
    /// Keys that differ in type, value, expiry.
    by_type: u64,
    by_value: u64,
    by_expiry: u64,
    ignore_expiry: bool,
}

impl Differences {
    fn is_empty(&self) -> bool {
        self.added.count + self.removed.count + self.changed.count == 0
    }

    fn pair(&mut self, a: Option<Note<'_>>, b: Option<Note<'_>>) {
        let is_key = |note: &Note<'_>| u64::from(note.group != FUNCTIONS);
        self.keys.0 += a.as_ref().map_or(0, is_key);
        self.keys.1 += b.as_ref().map_or(0, is_key);
        match (a, b) {
            (None, Some(b)) => self.added.add(b.group, b.name, Lone { kind: b.kind }),
            (Some(a), None) => self.removed.add(a.group, a.name, Lone { kind: a.kind }),
            (Some(a), Some(b)) => self.both(&a, &b),
            (None, None) => {}
        }
    }

    fn both(&mut self, a: &Note<'_>, b: &Note<'_>) {
        let is_type = a.kind != b.kind;
        let is_value = !is_type && a.digest != b.digest;
        let is_expiry = !self.ignore_expiry && a.expire_at_ms != b.expire_at_ms;
        if !(is_type || is_value || is_expiry) {
            return;
        }
        self.by_type += u64::from(is_type);
        self.by_value += u64::from(is_value);
        self.by_expiry += u64::from(is_expiry);
        let changed = Changed {
            kinds: (a.kind, b.kind),
            value: is_value,
            expiries: is_expiry.then_some((a.expire_at_ms, b.expire_at_ms)),
            elements: elements::Changes::default(),
        };
        self.changed.add(a.group, a.name, changed);
    }
}

pub fn run(args: &DiffArgs) -> Result<Outcome, Failure> {
    if args.a == Place::Stdin && args.b == Place::Stdin {
        return Err(Failure {
            message: "standard input cannot be both sides".to_owned(),
            advice: "save one of them to a file".to_owned(),
        });
    }
    let options = SourceOptions {
        filter: Filter::new(&args.filter, report::now_ms()),
        ..SourceOptions::default()
    };
    let mut pairs = Pairs::new(args.memory);
    for (side, place) in [(Side::A, &args.a), (Side::B, &args.b)] {
        read(place, &options, side, &mut pairs)?;
    }
    let mut differences = Differences {
        keys: (0, 0),
        added: First::new(args.limit),
        removed: First::new(args.limit),
        changed: First::new(args.limit),
        by_type: 0,
        by_value: 0,
        by_expiry: 0,
        ignore_expiry: args.ignore_expiry,
    };
    pairs.join(&mut |a, b| {
        differences.pair(a, b);
        Ok(())
    })?;
    let can_read_again = args.a != Place::Stdin && args.b != Place::Stdin;
    if args.elements > 0 && can_read_again {
        elements::compare(args, &options, &mut differences)?;
    }
    Ok(Outcome {
        text: match args.json {
            true => show::json(args, &differences),
            false => show::text(args, &differences),
        },
        finding: !differences.is_empty(),
    })
}

/// First pass over one side.
fn read(
    place: &Place,
    options: &SourceOptions,
    side: Side,
    pairs: &mut Pairs,
) -> Result<(), Failure> {
    let mut elements = Elements::new(false);
    Source::open(place, options)?.for_each(&mut |record| {
        elements.begin();
        match record {
            Record::Key(key) => {
                let head = key.head;
                key.parts(|part| {
                    elements.take(&part);
                    Ok(())
                })?;
                pairs.push(&Note {
                    side,
                    group: head.db,
                    kind: head.kind as u8,
                    expire_at_ms: head.attributes.expire_at_ms,
                    digest: elements.digest(),
                    name: head.key,
                    shown: b"",
                })
            }
            Record::Function(code) => {
                elements.take(&dfsnap_formats::parts::Part::Bytes(code));
                pairs.push(&Note {
                    side,
                    group: FUNCTIONS,
                    kind: FUNCTION_KIND,
                    expire_at_ms: None,
                    digest: elements.digest(),
                    name: library(code),
                    shown: b"",
                })
            }
            Record::Aux { .. }
            | Record::ModuleAux { .. }
            | Record::Header(_)
            | Record::End(_)
            | Record::Behind(_) => Ok(()),
        }
    })
}

/// The name in `#!lua name=…`, or the whole first line.
pub(super) fn library(code: &[u8]) -> &[u8] {
    let line = code.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| byte.is_ascii_whitespace());
    words
        .find_map(|word| word.strip_prefix(b"name="))
        .unwrap_or(line)
}

fn kind_name(kind: u8) -> &'static str {
    const KINDS: [Kind; 7] = [
        Kind::String,
        Kind::List,
        Kind::Set,
        Kind::ZSet,
        Kind::Hash,
        Kind::Module,
        Kind::Stream,
    ];
    let found = KINDS.iter().find(|known| **known as u8 == kind);
    found.map_or("function", |kind| kind.name())
}
