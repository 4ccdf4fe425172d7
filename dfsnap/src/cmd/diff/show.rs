//! Differences as text and as JSON.

use super::elements::{Change, Changes};
use super::{Changed, DiffArgs, Differences, FUNCTIONS, First, Lone, Name, kind_name};
use crate::report;
use dfsnap_formats::value::Kind;
use serde_json::{Value, json};

pub(super) fn text(args: &DiffArgs, differences: &Differences) -> String {
    let mut out = String::new();
    for (sign, word, lone) in [
        ('-', "removed", &differences.removed),
        ('+', "added", &differences.added),
    ] {
        for (name, one) in &lone.shown {
            let line = format!("{sign} {} ({})\n", shown_name(name), kind_name(one.kind));
            out.push_str(&line);
        }
        hidden(&mut out, word, lone);
    }
    for (name, changed) in &differences.changed.shown {
        out.push_str(&format!("~ {}: {}\n", shown_name(name), how(changed)));
        let kind = changed.kinds.0;
        for (element, change) in &changed.elements.shown {
            out.push_str(&format!("    {}\n", element_line(kind, element, change)));
        }
        let more = changed.elements.count() - changed.elements.shown.len() as u64;
        if more > 0 && !changed.elements.shown.is_empty() {
            out.push_str(&format!("    and {more} more\n"));
        }
    }
    hidden(&mut out, "changed", &differences.changed);
    let (a, b) = differences.keys;
    let verdict = match differences.is_empty() {
        true => "the same".to_owned(),
        false => format!(
            "{} removed, {} added, {} changed ({} in type, {} in value, {} in expiry)",
            differences.removed.count,
            differences.added.count,
            differences.changed.count,
            differences.by_type,
            differences.by_value,
            differences.by_expiry,
        ),
    };
    out.push_str(&format!(
        "{} ({a} keys), {} ({b} keys): {verdict}\n",
        args.a, args.b
    ));
    out
}

fn hidden<T>(out: &mut String, word: &str, first: &First<T>) {
    let more = first.count - first.shown.len() as u64;
    if more > 0 {
        out.push_str(&format!("  {more} more {word}; --limit shows them\n"));
    }
}

fn shown_name((group, name): &Name) -> String {
    let name = report::key(name);
    match *group {
        FUNCTIONS => format!("library {name}"),
        db => format!("db {db} {name}"),
    }
}

/// In which way a key differs.
fn how(changed: &Changed) -> String {
    let mut parts = Vec::new();
    let (a, b) = changed.kinds;
    if a != b {
        parts.push(format!("{} became {}", kind_name(a), kind_name(b)));
    }
    if changed.value {
        let elements = &changed.elements;
        let counts = match elements.count() {
            0 => String::new(),
            _ if a == Kind::String as u8 => String::new(),
            _ => format!(
                ": {} removed, {} added, {} changed",
                elements.removed, elements.added, elements.changed
            ),
        };
        parts.push(format!("{}{counts}", kind_name(a)));
    }
    if let Some((a, b)) = changed.expiries {
        let shown = |at_ms: Option<i64>| at_ms.map_or("never".to_owned(), |at| at.to_string());
        parts.push(format!("expires {}, was {}", shown(b), shown(a)));
    }
    parts.join("; ")
}

/// Names of list elements are positions.
fn element_name(kind: u8, name: &[u8]) -> String {
    match <[u8; 8]>::try_from(name) {
        Ok(index) if kind == Kind::List as u8 => format!("[{}]", u64::from_be_bytes(index)),
        _ => report::key(name),
    }
}

fn element_line(kind: u8, name: &[u8], change: &Change) -> String {
    let name = element_name(kind, name);
    let value = |shown: &[u8]| match shown {
        [] => None,
        shown => Some(format!("\"{}\"", report::key(shown))),
    };
    let (sign, values) = match change {
        Change::Removed(shown) => ("-", value(shown)),
        Change::Added(shown) => ("+", value(shown)),
        Change::Changed(a, b) if a == b => {
            let values = value(a).map(|a| format!("{a} … differs further on"));
            ("~", values)
        }
        Change::Changed(a, b) => {
            let quoted = |shown: &[u8]| format!("\"{}\"", report::key(shown));
            ("~", Some(format!("{} became {}", quoted(a), quoted(b))))
        }
    };
    let words = [Some(sign.to_owned()), Some(name), values];
    let words: Vec<String> = words
        .into_iter()
        .flatten()
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ")
}

pub(super) fn json(args: &DiffArgs, differences: &Differences) -> String {
    let lone = |first: &First<Lone>| -> Vec<Value> {
        let shown = first.shown.iter();
        shown
            .map(|(name, one)| with_name(name, json!({ "type": kind_name(one.kind) })))
            .collect()
    };
    let changed = differences.changed.shown.iter();
    let changed: Vec<Value> = changed
        .map(|(name, changed)| with_name(name, changed_json(changed)))
        .collect();
    report::json(&json!({
        "same": differences.is_empty(),
        "a": { "name": args.a.to_string(), "keys": differences.keys.0 },
        "b": { "name": args.b.to_string(), "keys": differences.keys.1 },
        "removed_count": differences.removed.count,
        "added_count": differences.added.count,
        "changed_count": differences.changed.count,
        "changed_type_count": differences.by_type,
        "changed_value_count": differences.by_value,
        "changed_expiry_count": differences.by_expiry,
        "removed": lone(&differences.removed),
        "added": lone(&differences.added),
        "changed": changed,
    }))
}

fn with_name((group, name): &Name, mut members: Value) -> Value {
    if *group != FUNCTIONS {
        members["db"] = json!(group);
    }
    members["key"] = json!(report::key(name));
    members
}

fn changed_json(changed: &Changed) -> Value {
    let (a, b) = changed.kinds;
    let mut out = json!({ "type": kind_name(b), "value": changed.value || a != b });
    if a != b {
        out["type_before"] = json!(kind_name(a));
    }
    out["expiry"] = json!(changed.expiries.is_some());
    if let Some((a, b)) = changed.expiries {
        out["expire_at_ms_before"] = json!(a);
        out["expire_at_ms"] = json!(b);
    }
    if changed.elements.count() > 0 {
        out["elements"] = elements_json(a, &changed.elements);
    }
    out
}

fn elements_json(kind: u8, changes: &Changes) -> Value {
    let shown = changes.shown.iter().map(|(name, change)| {
        let (word, a, b) = match change {
            Change::Removed(a) => ("removed", Some(a), None),
            Change::Added(b) => ("added", None, Some(b)),
            Change::Changed(a, b) => ("changed", Some(a), Some(b)),
        };
        let text = |shown: Option<&Vec<u8>>| shown.map(|shown| report::key(shown));
        json!({
            "change": word,
            "name": element_name(kind, name),
            "before": text(a),
            "after": text(b),
        })
    });
    json!({
        "removed": changes.removed,
        "added": changes.added,
        "changed": changes.changed,
        "shown": shown.collect::<Vec<_>>(),
    })
}
