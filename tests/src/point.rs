//! Whether a dump is the state at one point of a history, transactions whole.
//!
//! Every writer has keys of its own, so that what it did so far decides what they hold: the dump must show each writer
//! after some number of its operations. That number must fit what is known from outside: operations that took a number from
//! the counter `order` in the same MULTI are in if and only if their number is at most the counter's value in the dump, and
//! there must be one moment, within the time in which the cut can have been taken, that no operation that is in was sent
//! after and no operation that is out was acknowledged before.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use crate::dump::Cell;

/// One operation of a writer: a command or a MULTI block.
#[derive(Debug, Clone)]
pub struct Operation {
    pub sent: Instant,
    pub acked: Instant,
    /// What INCR on `order` replied, if it was part of this.
    pub order: Option<u64>,
    /// The cells it wrote, and removed.
    pub changes: Vec<(String, Option<Cell>)>,
    /// What it was, for messages.
    pub what: String,
}

/// When the cut can have been taken.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub from: Instant,
    pub to: Instant,
    /// Unix time of `to`: what expired later must be in the dump.
    pub to_ms: i64,
}

/// What is left of a dump once the writers' cells are taken out, or what is wrong with it.
pub type Verdict = Result<BTreeMap<String, Cell>, String>;

/// Checks a dump. Cells of writer `w` have names that begin with `0:w<w>:`; the counter is `0:order`.
pub fn check(
    mut cells: BTreeMap<String, Cell>,
    writers: &[Vec<Operation>],
    window: Window,
) -> Verdict {
    let order = match cells.remove("0:order") {
        None => 0,
        Some(cell) => cell
            .text
            .parse()
            .map_err(|_| format!("order is {:?}", cell.text))?,
    };
    let mut moments = vec![(window.from, window.to)];
    for (w, operations) in writers.iter().enumerate() {
        let prefix = format!("0:w{w}:");
        let own = cells.extract_if(prefix.clone().., |name, _| name.starts_with(&prefix));
        let own: HashMap<String, Cell> = own.collect();
        let lengths = matching_prefixes(&own, operations, window.to_ms).map_err(|closest| {
            format!("writer {w}: no number of its operations leads to this: {closest}")
        })?;
        let within: Vec<usize> = lengths
            .iter()
            .copied()
            .filter(|&length| fits_order(operations, length, order))
            .collect();
        if within.is_empty() {
            return Err(format!(
                "writer {w}: after {lengths:?} operations, which does not fit order = {order}: a transaction is torn, or a number is"
            ));
        }
        let allowed: Vec<(Instant, Instant)> = within
            .iter()
            .map(|&length| span(operations, length, window))
            .collect();
        let left = intersect(&moments, &allowed);
        if left.is_empty() {
            return Err(format!(
                "writer {w}: after {within:?} operations (next: {}), at {} before the window's end; the others leave {}",
                operations
                    .get(within[0])
                    .map_or("none", |operation| &operation.what),
                show(&allowed, window),
                show(&moments, window),
            ));
        }
        moments = left;
    }
    Ok(cells)
}

fn show(moments: &[(Instant, Instant)], window: Window) -> String {
    let spans: Vec<String> = moments
        .iter()
        .map(|&(from, to)| {
            format!(
                "{:?}..{:?}",
                window.to.saturating_duration_since(from),
                window.to.saturating_duration_since(to)
            )
        })
        .collect();
    spans.join(", ")
}

/// How many operations of a writer lead to these cells: every number that does, or what differs least.
fn matching_prefixes(
    own: &HashMap<String, Cell>,
    operations: &[Operation],
    cut_ms: i64,
) -> Result<Vec<usize>, String> {
    let is_same = |name: &str, wanted: Option<&Cell>| match (own.get(name), wanted) {
        (None, None) => true,
        (Some(found), Some(wanted)) => found == wanted,
        (None, Some(wanted)) => wanted.expire_at_ms.is_some_and(|at_ms| at_ms <= cut_ms),
        (Some(_), None) => false,
    };
    let mut state: HashMap<&str, &Cell> = HashMap::new();
    let mut differing = own.len();
    let mut lengths = Vec::new();
    let mut closest = (differing, 0);
    for length in 0..=operations.len() {
        if length > 0 {
            for (name, cell) in &operations[length - 1].changes {
                let was_same = is_same(name, state.get(name.as_str()).copied());
                match cell {
                    Some(cell) => state.insert(name, cell),
                    None => state.remove(name.as_str()),
                };
                let now_same = is_same(name, cell.as_ref());
                differing = differing + usize::from(was_same) - usize::from(now_same);
            }
        }
        if differing == 0 {
            lengths.push(length);
        }
        closest = closest.min((differing, length));
    }
    match lengths.is_empty() {
        false => Ok(lengths),
        true => Err(explain(own, operations, closest)),
    }
}

fn explain(
    own: &HashMap<String, Cell>,
    operations: &[Operation],
    closest: (usize, usize),
) -> String {
    let (differing, length) = closest;
    let mut state: BTreeMap<&str, &Cell> = BTreeMap::new();
    for operation in &operations[..length] {
        for (name, cell) in &operation.changes {
            match cell {
                Some(cell) => state.insert(name, cell),
                None => state.remove(name.as_str()),
            };
        }
    }
    let short = |cell: Option<&Cell>| match cell {
        None => "nothing".to_owned(),
        Some(cell) => {
            let text: String = cell.text.chars().take(24).collect();
            format!("{text:?} (expires {:?})", cell.expire_at_ms)
        }
    };
    let mut names: Vec<&str> = state
        .keys()
        .copied()
        .chain(own.keys().map(String::as_str))
        .collect();
    names.sort_unstable();
    names.dedup();
    let examples: Vec<String> = names
        .into_iter()
        .filter(|name| own.get(*name) != state.get(name).copied())
        .take(4)
        .map(|name| {
            let wanted = state.get(name).copied();
            format!(
                "{name:?}: found {}, wanted {}",
                short(own.get(name)),
                short(wanted)
            )
        })
        .collect();
    let around: Vec<&str> = operations
        [length.saturating_sub(2)..(length + 2).min(operations.len())]
        .iter()
        .map(|operation| operation.what.as_str())
        .collect();
    format!(
        "closest is {length} of {}, where {differing} cells differ: {}; around: {}",
        operations.len(),
        examples.join("; "),
        around.join(" | ")
    )
}

fn fits_order(operations: &[Operation], length: usize, order: u64) -> bool {
    let (inside, outside) = operations.split_at(length);
    let last = inside.iter().rev().find_map(|operation| operation.order);
    let next = outside.iter().find_map(|operation| operation.order);
    last.is_none_or(|last| last <= order) && next.is_none_or(|next| next > order)
}

/// The moments at which exactly the first `length` operations can have happened.
fn span(operations: &[Operation], length: usize, window: Window) -> (Instant, Instant) {
    let from = match length {
        0 => window.from,
        _ => operations[length - 1].sent,
    };
    let to = operations
        .get(length)
        .map_or(window.to, |operation| operation.acked);
    (from, to)
}

fn intersect(a: &[(Instant, Instant)], b: &[(Instant, Instant)]) -> Vec<(Instant, Instant)> {
    let mut both = Vec::new();
    for &(a_from, a_to) in a {
        for &(b_from, b_to) in b {
            let (from, to) = (a_from.max(b_from), a_to.min(b_to));
            if from <= to {
                both.push((from, to));
            }
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn cell(text: &str) -> Cell {
        Cell {
            text: text.to_owned(),
            expire_at_ms: None,
        }
    }

    /// Writer `w` sets `a` and `b` to 1, 2, 3 in transactions numbered as given, 10 ms each, `late_ms` after the start.
    fn writer(start: Instant, w: usize, orders: &[u64], late_ms: u64) -> Vec<Operation> {
        let at = |ms| start + Duration::from_millis(ms);
        let step = |(i, &order): (usize, &u64)| {
            let sent_ms = late_ms + i as u64 * 20;
            let text = (i + 1).to_string();
            Operation {
                sent: at(sent_ms),
                acked: at(sent_ms + 10),
                order: Some(order),
                changes: ["a", "b"]
                    .map(|key| (format!("0:w{w}:{key}"), Some(cell(&text))))
                    .to_vec(),
                what: String::new(),
            }
        };
        orders.iter().enumerate().map(step).collect()
    }

    fn verdict(found: &[(&str, &str)], window_ms: (u64, u64)) -> Verdict {
        let start = Instant::now();
        let writers = [
            writer(start, 0, &[1, 3, 5], 0),
            writer(start, 1, &[2, 4, 6], 5),
        ];
        let cells = found
            .iter()
            .map(|(name, text)| ((*name).to_owned(), cell(text)));
        let window = Window {
            from: start + Duration::from_millis(window_ms.0),
            to: start + Duration::from_millis(window_ms.1),
            to_ms: 0,
        };
        check(cells.collect(), &writers, window)
    }

    #[test]
    fn only_one_point_of_the_history_passes() {
        let whole: &[(&str, &str)] = &[
            ("0:order", "3"),
            ("0:w0:a", "2"),
            ("0:w0:b", "2"),
            ("0:w1:a", "1"),
            ("0:w1:b", "1"),
        ];
        let with = |name: &str, text: &'static str| -> Vec<(&str, &str)> {
            let change =
                |&(n, t): &(&'static str, &'static str)| (n, if n == name { text } else { t });
            whole
                .iter()
                .map(change)
                .filter(|(_, text)| *text != "gone")
                .collect()
        };
        type Row<'a> = (&'a str, Vec<(&'a str, &'a str)>, (u64, u64), &'a str);
        let rows: [Row; 8] = [
            ("whole", whole.to_vec(), (20, 35), ""),
            (
                "torn transaction",
                with("0:w0:b", "1"),
                (20, 35),
                "no number",
            ),
            ("lost entry", with("0:w1:a", "gone"), (20, 35), "no number"),
            ("counter behind", with("0:order", "2"), (20, 35), "torn"),
            ("counter ahead", with("0:order", "4"), (20, 35), "torn"),
            (
                "cut before it was asked for",
                whole.to_vec(),
                (40, 50),
                "window",
            ),
            (
                "cut after it was reported",
                whole.to_vec(),
                (0, 15),
                "window",
            ),
            ("unknown value", with("0:w0:a", "7"), (20, 35), "no number"),
        ];
        for (name, found, window, want) in rows {
            match verdict(&found, window) {
                Ok(_) => assert_eq!(want, "", "{name}"),
                Err(error) => assert!(!want.is_empty() && error.contains(want), "{name}: {error}"),
            }
        }
    }

    #[test]
    fn writers_at_different_moments_do_not_pass() {
        let start = Instant::now();
        let mut writers = [
            writer(start, 0, &[1, 2, 3], 0),
            writer(start, 1, &[4, 5, 6], 0),
        ];
        for operation in writers.iter_mut().flatten() {
            operation.order = None;
        }
        let cells = [
            ("0:w0:a", "1"),
            ("0:w0:b", "1"),
            ("0:w1:a", "3"),
            ("0:w1:b", "3"),
        ];
        let cells = cells.map(|(name, text)| (name.to_owned(), cell(text)));
        let window = Window {
            from: start,
            to: start + Duration::from_secs(1),
            to_ms: 0,
        };
        // Writer 0's second operation was acknowledged at 30 ms, writer 1's third was sent at 40.
        assert!(check(cells.into(), &writers, window).is_err());
    }

    #[test]
    fn expired_before_the_cut_may_be_missing_later_must_be_there() {
        let start = Instant::now();
        let mut writers = [writer(start, 0, &[1], 0)];
        for (_, cell) in &mut writers[0][0].changes {
            cell.as_mut().unwrap().expire_at_ms = Some(100);
        }
        for (to_ms, want) in [(100, true), (99, false)] {
            let window = Window {
                from: start,
                to: start + Duration::from_secs(1),
                to_ms,
            };
            let cells = BTreeMap::from([("0:order".to_owned(), cell("1"))]);
            assert_eq!(check(cells, &writers, window).is_ok(), want, "{to_ms}");
        }
    }
}
