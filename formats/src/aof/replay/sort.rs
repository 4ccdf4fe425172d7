//! SORT … STORE: elements of a collection in order, as a list.

use super::store::Data;
use super::table::Command;
use super::words::{Reader, int};
use super::{Args, Done, NOT_FLOAT, Problem, Replay, SYNTAX, Stop, WRONG_TYPE};
use crate::double;
use std::cmp::Ordering;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("SORT", -2, sort),
];

#[derive(Default)]
struct Options<'a> {
    by: Option<&'a [u8]>,
    get: Vec<&'a [u8]>,
    /// Offset and count, as given.
    limit: Option<(i64, i64)>,
    is_descending: bool,
    alpha: bool,
    target: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(words: Args<'a>) -> Result<Self, Stop> {
        let mut options = Options::default();
        let mut words = Reader::new(words);
        while !words.is_empty() {
            if words.skip("ASC") {
                options.is_descending = false;
            } else if words.skip("DESC") {
                options.is_descending = true;
            } else if words.skip("ALPHA") {
                options.alpha = true;
            } else if words.skip("LIMIT") {
                options.limit = Some((int(words.next()?)?, int(words.next()?)?));
            } else if words.skip("STORE") {
                options.target = Some(words.next()?);
            } else if words.skip("BY") {
                options.by = Some(words.next()?);
            } else if words.skip("GET") {
                options.get.push(words.next()?);
            } else {
                return Err(SYNTAX);
            }
        }
        Ok(options)
    }

    /// The part of `len` elements that LIMIT leaves.
    fn range(&self, len: usize) -> std::ops::Range<usize> {
        let (offset, count) = self.limit.unwrap_or((0, -1));
        let start = usize::try_from(offset).unwrap_or(0).min(len);
        match usize::try_from(count) {
            Ok(count) => start..start.saturating_add(count).min(len),
            Err(_) => start..len,
        }
    }
}

/// An element and what it is ordered by.
struct Candidate {
    element: Vec<u8>,
    weight: Option<Weight>,
}

enum Weight {
    Number(f64),
    Text(Vec<u8>),
}

fn sort(replay: &mut Replay, args: Args<'_>) -> Done {
    let options = Options::parse(&args[2..])?;
    let Some(target) = options.target else {
        return Ok(());
    };
    let is_sorted = options.by.is_none_or(|by| by.contains(&b'*'));
    // The elements of a set come in no order that could be stored.
    let (mut by, mut alpha, mut sorts) = (options.by, options.alpha, is_sorted);
    let elements: Vec<Vec<u8>> = match replay.data(args[1]) {
        None => Vec::new(),
        // Where nothing is sorted, DESC turns the order; servers before 7.0 did so for sorted sets alone.
        Some(Data::List(list)) => match options.is_descending && !is_sorted {
            true => list.iter().rev().cloned().collect(),
            false => list.iter().cloned().collect(),
        },
        Some(Data::Set(set)) => {
            if !is_sorted {
                (by, alpha, sorts) = (None, true, true);
            }
            set.iter().cloned().collect()
        }
        Some(Data::ZSet(zset)) => {
            let members = zset.iter().map(|(member, _)| member.to_vec());
            match options.is_descending && !is_sorted {
                true => members.rev().collect(),
                false => members.collect(),
            }
        }
        Some(_) => return Err(WRONG_TYPE),
    };
    let mut candidates = Vec::with_capacity(elements.len());
    for element in elements {
        let weight = match sorts {
            true => weight(replay, &element, by, alpha)?,
            false => None,
        };
        candidates.push(Candidate { element, weight });
    }
    if sorts {
        candidates.sort_by(|a, b| {
            let order = compare(a, b, by.is_some());
            if options.is_descending {
                order.reverse()
            } else {
                order
            }
        });
    }
    let range = options.range(candidates.len());
    let is_list = matches!(replay.data(args[1]), Some(Data::List(_)));
    if sorts && (!is_list || range.len() < candidates.len()) && has_ties(&candidates, by.is_some())
    {
        let why = "leaves the order of some elements to the server's hash table and sort";
        return Err(Stop::Failed(Problem::Undetermined(why)));
    }
    let mut result = std::collections::VecDeque::new();
    for Candidate { element, .. } in &candidates[range] {
        if options.get.is_empty() {
            result.push_back(element.clone());
        }
        for pattern in &options.get {
            let found = look_up(replay, pattern, element).unwrap_or_default();
            result.push_back(found);
        }
    }
    replay.put(target, Data::List(result));
    Ok(())
}

fn weight(
    replay: &mut Replay,
    element: &[u8],
    by: Option<&[u8]>,
    alpha: bool,
) -> Result<Option<Weight>, Stop> {
    let text = match by {
        Some(pattern) => look_up(replay, pattern, element),
        None => Some(element.to_vec()),
    };
    Ok(match text {
        None if alpha => None,
        None => Some(Weight::Number(0.0)),
        Some(text) if alpha => Some(Weight::Text(text)),
        // C reads nothing as zero, and blanks in front do not matter.
        Some(text) => match text.trim_ascii_start() {
            b"" if text.is_empty() => Some(Weight::Number(0.0)),
            digits => Some(Weight::Number(double::parse(digits).ok_or(NOT_FLOAT)?)),
        },
    })
}

fn compare(a: &Candidate, b: &Candidate, by_pattern: bool) -> Ordering {
    match (&a.weight, &b.weight) {
        (Some(Weight::Number(x)), Some(Weight::Number(y))) => {
            let order = x.partial_cmp(y).unwrap_or(Ordering::Equal);
            order.then_with(|| a.element.cmp(&b.element))
        }
        (Some(Weight::Text(x)), Some(Weight::Text(y))) => x.cmp(y),
        (None, None) if by_pattern => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        _ => a.element.cmp(&b.element),
    }
}

/// Whether different elements compare as equal. They are in order.
fn has_ties(candidates: &[Candidate], by_pattern: bool) -> bool {
    candidates.windows(2).any(|pair| {
        pair[0].element != pair[1].element
            && compare(&pair[0], &pair[1], by_pattern) == Ordering::Equal
    })
}

/// What a pattern of BY or GET stands for: `#`, a key with `*` for the element, or a field of such a hash.
fn look_up(replay: &mut Replay, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    if pattern == b"#" {
        return Some(element.to_vec());
    }
    let star = pattern.iter().position(|byte| *byte == b'*')?;
    let (before, behind) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = behind.windows(2).position(|pair| pair == b"->");
    let arrow = arrow.filter(|at| at + 2 < behind.len());
    let (behind, field) = match arrow {
        Some(at) => (&behind[..at], Some(&behind[at + 2..])),
        None => (behind, None),
    };
    let key = [before, element, behind].concat();
    match (replay.data(&key)?, field) {
        (Data::Hash(hash), Some(field)) => hash.get(field).map(|field| field.value.clone()),
        (Data::String(bytes), None) => Some(bytes.clone()),
        _ => None,
    }
}
