//! Whether a history of transactions is strictly serializable: there is one order of all of them that explains every reply
//! and never puts a transaction before one that was acknowledged before it was sent.
//!
//! The search of Wing, Gong and Lowe: take any transaction that may come next, run it on a model, compare the reply, go on;
//! step back where nothing fits; never look twice at the same place with the same model. A connection sends one
//! transaction after the other, so a place is how far each connection has come.

use std::collections::HashSet;
use std::time::Instant;

use crate::client::Reply;

/// Keys are small numbers, values are numbers.
pub type Key = usize;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Get(Key),
    Set(Key, i64),
    GetSet(Key, i64),
    Incr(Key),
    Del(Vec<Key>),
    Mget(Vec<Key>),
    Mset(Vec<(Key, i64)>),
    Rename(Key, Key),
    FlushAll,
}

/// A transaction of one connection, with its replies: one for each action.
#[derive(Debug, Clone)]
pub struct Step {
    pub sent: Instant,
    pub acked: Instant,
    pub actions: Vec<Action>,
    pub replies: Vec<Reply>,
}

/// What the keys hold.
pub type Model = Vec<Option<i64>>;

/// The words of the command.
pub fn words(action: &Action) -> Vec<Vec<u8>> {
    let key = |key: &Key| format!("key:{key}");
    let words: Vec<String> = match action {
        Action::Get(k) => vec!["GET".into(), key(k)],
        Action::Set(k, value) => vec!["SET".into(), key(k), value.to_string()],
        Action::GetSet(k, value) => vec!["GETSET".into(), key(k), value.to_string()],
        Action::Incr(k) => vec!["INCR".into(), key(k)],
        Action::Del(keys) => [vec!["DEL".into()], keys.iter().map(key).collect()].concat(),
        Action::Mget(keys) => [vec!["MGET".into()], keys.iter().map(key).collect()].concat(),
        Action::Mset(pairs) => {
            let pairs = pairs
                .iter()
                .flat_map(|(k, value)| [key(k), value.to_string()]);
            std::iter::once("MSET".to_owned()).chain(pairs).collect()
        }
        Action::Rename(from, to) => vec!["RENAME".into(), key(from), key(to)],
        Action::FlushAll => vec!["FLUSHALL".into()],
    };
    words.into_iter().map(String::into_bytes).collect()
}

/// Runs an action on the model.
fn run(action: &Action, model: &mut Model) -> Reply {
    let shown = |value: Option<i64>| match value {
        None => Reply::Nil,
        Some(value) => Reply::Text(value.to_string().into_bytes()),
    };
    let ok = || Reply::Text(b"OK".to_vec());
    match action {
        Action::Get(key) => shown(model[*key]),
        Action::Set(key, value) => {
            model[*key] = Some(*value);
            ok()
        }
        Action::GetSet(key, value) => shown(model[*key].replace(*value)),
        Action::Incr(key) => {
            let value = model[*key].unwrap_or(0) + 1;
            model[*key] = Some(value);
            Reply::Int(value)
        }
        Action::Del(keys) => {
            let gone = keys.iter().filter(|&&key| model[key].take().is_some());
            Reply::Int(gone.count() as i64)
        }
        Action::Mget(keys) => Reply::Array(keys.iter().map(|&key| shown(model[key])).collect()),
        Action::Mset(pairs) => {
            pairs
                .iter()
                .for_each(|&(key, value)| model[key] = Some(value));
            ok()
        }
        Action::Rename(from, to) => match model[*from].take() {
            None => Reply::Error("ERR no such key".to_owned()),
            value => {
                model[*to] = value;
                ok()
            }
        },
        Action::FlushAll => {
            model.fill(None);
            ok()
        }
    }
}

/// Finds an order, or tells how far the search came.
pub fn check(keys: usize, connections: &[Vec<Step>]) -> Result<(), String> {
    let total: usize = connections.iter().map(Vec::len).sum();
    let mut seen = HashSet::new();
    let mut open = vec![(vec![0; connections.len()], vec![None; keys])];
    let mut furthest = (0, open[0].clone());
    while let Some((place, model)) = open.pop() {
        let done: usize = place.iter().sum();
        if done == total {
            return Ok(());
        }
        if done >= furthest.0 {
            furthest = (done, (place.clone(), model.clone()));
        }
        let next = |c: usize| connections[c].get(place[c]);
        let first_ack = (0..connections.len())
            .filter_map(|c| Some(next(c)?.acked))
            .min();
        for c in 0..connections.len() {
            let Some(step) = next(c) else { continue };
            if first_ack.is_some_and(|acked| acked < step.sent) {
                continue;
            }
            let mut after = model.clone();
            let fits = step
                .actions
                .iter()
                .zip(&step.replies)
                .all(|(action, reply)| run(action, &mut after) == *reply);
            let mut there = place.clone();
            there[c] += 1;
            if fits && seen.insert((there.clone(), after.clone())) {
                open.push((there, after));
            }
        }
    }
    let (done, (place, model)) = furthest;
    let stuck: Vec<String> = connections
        .iter()
        .zip(&place)
        .filter_map(|(steps, &at)| steps.get(at))
        .map(|step| format!("{:?} replied {:?}", step.actions, step.replies))
        .collect();
    Err(format!(
        "no order explains the replies; the longest has {done} of {total} transactions and leaves {model:?}; next:\n  {}",
        stuck.join("\n  ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn text(value: i64) -> Reply {
        Reply::Text(value.to_string().into_bytes())
    }

    fn ok() -> Reply {
        Reply::Text(b"OK".to_vec())
    }

    #[test]
    fn histories_of_one_register_and_two() {
        let start = Instant::now();
        let step = |from: u64, to: u64, action: Action, reply: Reply| Step {
            sent: start + Duration::from_millis(from),
            acked: start + Duration::from_millis(to),
            actions: vec![action],
            replies: vec![reply],
        };
        let both = || Action::Mget(vec![0, 1]);
        let pair = |a, b| Reply::Array(vec![text(a), text(b)]);
        let rows = [
            (
                "a read beside a write may see either",
                vec![
                    vec![step(0, 10, Action::Set(0, 1), ok())],
                    vec![step(5, 8, Action::Get(0), text(1))],
                ],
                true,
            ),
            (
                "a read after a write sees it",
                vec![
                    vec![step(0, 10, Action::Set(0, 1), ok())],
                    vec![step(11, 12, Action::Get(0), Reply::Nil)],
                ],
                false,
            ),
            (
                "two reads agree on an order",
                vec![
                    vec![step(0, 50, Action::Set(0, 1), ok())],
                    vec![
                        step(5, 8, Action::Get(0), text(1)),
                        step(9, 12, Action::Get(0), Reply::Nil),
                    ],
                ],
                false,
            ),
            (
                "MSET is whole",
                vec![
                    vec![
                        step(0, 10, Action::Mset(vec![(0, 1), (1, 1)]), ok()),
                        step(11, 50, Action::Mset(vec![(0, 2), (1, 2)]), ok()),
                    ],
                    vec![step(12, 40, both(), pair(2, 1))],
                ],
                false,
            ),
            (
                "two increments do not give one number",
                vec![
                    vec![step(0, 10, Action::Incr(0), Reply::Int(1))],
                    vec![step(0, 10, Action::Incr(0), Reply::Int(1))],
                ],
                false,
            ),
            (
                "what was renamed is in one place",
                vec![
                    vec![
                        step(0, 10, Action::Set(0, 1), ok()),
                        step(11, 50, Action::Rename(0, 1), ok()),
                    ],
                    vec![step(12, 40, both(), pair(1, 1))],
                ],
                false,
            ),
        ];
        for (name, history, want) in rows {
            assert_eq!(check(2, &history).is_ok(), want, "{name}");
        }
    }
}
