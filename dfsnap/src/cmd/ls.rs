//! `dfsnap ls`: the keys of a dump with what is known about them.

use crate::cmd::input::InputArgs;
use crate::filter::{Filter, FilterArgs};
use crate::report::{self, Failure, Outcome};
use crate::source::{Key, Record, Source, SourceOptions};
use clap::Args;
use dfsnap_formats::csv;
use dfsnap_formats::error::Shown;
use dfsnap_formats::rdb::count::element_count;
use dfsnap_formats::rdb::type_code;
use serde::Serialize;
use std::io::{self, BufWriter, IsTerminal, Write};

/// List the keys of a dump, in stored order, with type, encoding, elements, bytes and expiry
///
/// Bytes are those of the stored value; `-` where it is not stored as one, as in JSON.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LsArgs {
    #[command(flatten)]
    pub input: InputArgs,
    /// A line of JSON for each key
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Comma-separated values with a heading
    #[arg(long)]
    pub csv: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
}

const EXAMPLES: &str = "\
Examples:
  All keys of one kind that never expire:
    dfsnap ls dump.rdb --match 'session:*' --ttl none
  The largest values, for a spreadsheet:
    dfsnap ls dump.rdb --csv --size '>1mb' > large.csv
  For a program:
    dfsnap ls --json dump.rdb | jq -r .key";

/// A line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    db: u32,
    /// With backslashes where it is not printable ASCII.
    key: String,
    r#type: &'static str,
    encoding: Option<&'a str>,
    elements: u64,
    /// Of the value as it is stored; none where it is not.
    bytes: Option<u64>,
    expire_at_ms: Option<i64>,
}

pub fn run(args: &LsArgs) -> Result<Outcome, Failure> {
    let now_ms = report::now_ms();
    let options = SourceOptions {
        filter: Filter::new(&args.filter, now_ms),
        is_silent: io::stdout().is_terminal(),
        ..SourceOptions::default()
    };
    let source = Source::open(&args.input.source, &options)?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut row = Vec::new();
    if args.csv {
        csv::header(&mut row);
    } else if !args.json {
        row.extend_from_slice(b"  db  type    elements      bytes  expires in  key\n");
    }
    let mut unwritten = None;
    let result = source.for_each(&mut |record: Record<'_>| {
        let Record::Key(key) = record else {
            return Ok(());
        };
        match (args.csv, args.json) {
            (true, _) => csv_row(key, &mut row)?,
            (_, true) => json_line(key, &mut row)?,
            _ => text_line(key, now_ms, &mut row)?,
        }
        let written = out.write_all(&row);
        row.clear();
        written.map_err(|error| {
            let failure = Failure::output(&error);
            unwritten = Some(error);
            failure
        })
    });
    let written = match (result, unwritten) {
        (_, Some(error)) => Err(error),
        (Err(failure), None) => return Err(failure),
        (Ok(()), None) => out.write_all(&row).and_then(|()| out.flush()),
    };
    match written {
        // Whoever reads has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Failure::output(&error));
        }
        _ => {}
    }
    Ok(Outcome {
        text: String::new(),
        finding: false,
    })
}

/// Elements, and bytes of the stored value.
fn measure(key: Key<'_>) -> Result<(u64, Option<u64>), Failure> {
    if let Some(record) = key.record() {
        let count = element_count(record.flavor, record.type_code, record.value);
        let bytes = Some(record.value.len() as u64);
        return match count {
            Ok(count) => Ok((count, bytes)),
            Err(_) => key
                .entry()
                .map(|entry| (entry.map_or(0, |e| e.value.count() as u64), bytes)),
        };
    }
    let is_string = key.head.kind == dfsnap_formats::value::Kind::String;
    let mut count = 0;
    key.parts(|part| {
        count += match part {
            dfsnap_formats::parts::Part::Bytes(bytes) if is_string => bytes.len() as u64,
            dfsnap_formats::parts::Part::StreamEnd(_) => 0,
            _ => 1,
        };
        Ok(())
    })?;
    Ok((count, None))
}

fn json_line(key: Key<'_>, row: &mut Vec<u8>) -> Result<(), Failure> {
    let (head, code) = (key.head, key.type_code);
    let name = report::key(head.key);
    let (elements, bytes) = measure(key)?;
    let line = Line {
        db: head.db,
        key: name,
        r#type: head.kind.name(),
        encoding: code.map(type_code::name),
        elements,
        bytes,
        expire_at_ms: head.attributes.expire_at_ms,
    };
    serde_json::to_writer(&mut *row, &line).expect("plain structs always serialize");
    row.push(b'\n');
    Ok(())
}

fn csv_row(key: Key<'_>, row: &mut Vec<u8>) -> Result<(), Failure> {
    let stored = key.record().map(|record| record.value.len() as u64);
    if let Some(entry) = key.entry()? {
        csv::Row::of_entry(&entry, stored).append_to(row);
    }
    Ok(())
}

fn text_line(key: Key<'_>, now_ms: i64, row: &mut Vec<u8>) -> Result<(), Failure> {
    let head = key.head;
    let (elements, bytes) = measure(key)?;
    // Hundreds of thousands of lines a second: columns are put together by hand.
    let mut digits = itoa::Buffer::new();
    to_the_right(digits.format(head.db), 4, row);
    row.extend_from_slice(b"  ");
    let kind = head.kind.name();
    row.extend_from_slice(kind.as_bytes());
    row.resize(row.len() + 6usize.saturating_sub(kind.len()) + 2, b' ');
    to_the_right(digits.format(elements), 8, row);
    row.extend_from_slice(b"  ");
    to_the_right(bytes.map_or("-", |bytes| digits.format(bytes)), 9, row);
    row.extend_from_slice(b"  ");
    match head.attributes.expire_at_ms {
        None => to_the_right("-", 10, row),
        Some(at_ms) if at_ms <= now_ms => to_the_right("past", 10, row),
        Some(at_ms) => to_the_right(&span(at_ms - now_ms), 10, row),
    }
    row.extend_from_slice(b"  ");
    shown(head.key, row);
    row.push(b'\n');
    Ok(())
}

fn to_the_right(text: &str, width: usize, row: &mut Vec<u8>) {
    row.resize(row.len() + width.saturating_sub(text.len()), b' ');
    row.extend_from_slice(text.as_bytes());
}

/// As `Shown`.
fn shown(key: &[u8], row: &mut Vec<u8>) {
    const SHORT: usize = 64;
    let stands_for_itself = |byte: &u8| matches!(byte, b' '..=b'~') && !b"\"'\\".contains(byte);
    if key.len() <= SHORT && key.iter().all(stands_for_itself) {
        row.push(b'"');
        row.extend_from_slice(key);
        row.push(b'"');
    } else {
        write!(row, "{}", Shown(key)).expect("writing to memory");
    }
}

/// A time of so many milliseconds, to two places: `2d 4h`.
fn span(ms: i64) -> String {
    const UNITS: [(i64, &str); 5] = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
        (1, "ms"),
    ];
    let first = UNITS
        .iter()
        .position(|(unit, _)| ms >= *unit)
        .unwrap_or(UNITS.len() - 1);
    let (unit, name) = UNITS[first];
    let mut text = format!("{}{name}", ms / unit);
    if let Some((smaller, name)) = UNITS.get(first + 1).filter(|(smaller, _)| *smaller > 1) {
        let rest = ms % unit / smaller;
        if rest > 0 {
            text.push_str(&format!(" {rest}{name}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_everywhere() {
        for key in [
            &b"user:1"[..],
            b"",
            b"it's",
            b"a\"b",
            b"back\\slash",
            b"\x7f",
            b"\n",
            "gr\u{fc}n".as_bytes(),
            &[b'x'; 64],
            &[b'x'; 65],
        ] {
            let mut row = b"  ".to_vec();
            shown(key, &mut row);
            assert_eq!(row, format!("  {}", Shown(key)).as_bytes());
        }
    }

    #[test]
    fn spans_show_two_places() {
        let rows = [
            (5, "5ms"),
            (61_000, "1m 1s"),
            (7_200_000, "2h"),
            (187_200_000, "2d 4h"),
            (59_999, "59s"),
        ];
        for (ms, want) in rows {
            assert_eq!(span(ms), want);
        }
    }
}
