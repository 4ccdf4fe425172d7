//! The second pass: which elements differ in the values that are shown.

use super::{DiffArgs, Differences, FUNCTIONS, Name};
use crate::compare::pairs::{Note, Pairs, Side};
use crate::compare::value::Elements;
use crate::report::Failure;
use crate::source::{Place, Record, Source, SourceOptions};
use std::collections::{BTreeMap, HashMap};

/// The elements of one value that differ.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    pub added: u64,
    pub removed: u64,
    pub changed: u64,
    /// By name, the first of them.
    pub shown: BTreeMap<Vec<u8>, Change>,
}

/// How an element differs, with the beginning of what belongs to it on each side.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Added(Vec<u8>),
    Removed(Vec<u8>),
    Changed(Vec<u8>, Vec<u8>),
}

/// Fills in `elements` of the keys that are shown. A side that changed since the first pass may have none.
pub(super) fn compare(
    args: &DiffArgs,
    options: &SourceOptions,
    differences: &mut Differences,
) -> Result<(), Failure> {
    let shown = differences.changed.shown.iter();
    let names: Vec<Name> = shown
        .filter(|((group, _), changed)| changed.value && *group != FUNCTIONS)
        .map(|(name, _)| name.clone())
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let numbers: HashMap<(u32, &[u8]), u32> = (0..)
        .zip(&names)
        .map(|(number, (db, key))| ((*db, &key[..]), number))
        .collect();
    let mut pairs = Pairs::new(args.memory);
    for (side, place) in [(Side::A, &args.a), (Side::B, &args.b)] {
        read(place, options, side, &numbers, &mut pairs)?;
    }
    pairs.join(&mut |a, b| {
        let group = a.or(b).map_or(0, |note| note.group);
        if let Some(name) = names.get(group as usize)
            && let Some(changed) = differences.changed.shown.get_mut(name)
        {
            changed.elements.pair(a, b, args.elements);
        }
        Ok(())
    })
}

fn read(
    place: &Place,
    options: &SourceOptions,
    side: Side,
    numbers: &HashMap<(u32, &[u8]), u32>,
    pairs: &mut Pairs,
) -> Result<(), Failure> {
    let mut elements = Elements::new(true);
    Source::open(place, options)?.for_each(&mut |record| {
        let Record::Key(key) = record else {
            return Ok(());
        };
        let head = key.head;
        let Some(&group) = numbers.get(&(head.db, head.key)) else {
            return Ok(());
        };
        let kind = head.kind as u8;
        elements.begin();
        let note = |named: crate::compare::value::Named<'_>, pairs: &mut Pairs| {
            pairs.push(&Note {
                side,
                group,
                kind,
                expire_at_ms: None,
                digest: named.hash,
                name: named.name,
                shown: named.shown,
            })
        };
        key.parts(|part| match elements.take(&part) {
            Some(named) => note(named, pairs),
            None => Ok(()),
        })?;
        match elements.string() {
            Some(named) => note(named, pairs),
            None => Ok(()),
        }
    })
}

impl Changes {
    fn pair(&mut self, a: Option<Note<'_>>, b: Option<Note<'_>>, limit: usize) {
        let (name, change) = match (a, b) {
            (None, Some(b)) => {
                self.added += 1;
                (b.name, Change::Added(b.shown.to_vec()))
            }
            (Some(a), None) => {
                self.removed += 1;
                (a.name, Change::Removed(a.shown.to_vec()))
            }
            (Some(a), Some(b)) if a.digest != b.digest => {
                self.changed += 1;
                let change = Change::Changed(a.shown.to_vec(), b.shown.to_vec());
                (a.name, change)
            }
            _ => return,
        };
        self.shown.insert(name.to_vec(), change);
        if self.shown.len() > limit {
            self.shown.pop_last();
        }
    }

    pub fn count(&self) -> u64 {
        self.added + self.removed + self.changed
    }
}
