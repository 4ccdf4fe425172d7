//! `dfsnap get`: one value.

use crate::cmd::input::InputArgs;
use crate::filter::Filter;
use crate::report::{self, Failure, Outcome};
use crate::source::{Record, Source, SourceOptions};
use clap::{Args, ValueEnum};
use dfsnap_formats::dataset::Entry;
use dfsnap_formats::encoding::listpack::Element;
use dfsnap_formats::error::Shown;
use dfsnap_formats::json::{Writer, WriterOptions};
use dfsnap_formats::parts::Part;
use dfsnap_formats::rdb::dump;
use dfsnap_formats::rdb::target::Target;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::Write as _;

/// Print one value of a dump
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GetArgs {
    #[command(flatten)]
    pub input: InputArgs,
    /// The key; backslash escapes as `ls` prints them
    #[arg(index = 2)]
    pub key: String,
    /// Its database; the first that has the key where it is left out
    #[arg(long, value_name = "N")]
    pub db: Option<u32>,
    /// How it is printed
    #[arg(long = "as", value_name = "FORM", default_value = "text")]
    pub form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people
    Text,
    /// The line of JSON that convert writes
    Json,
    /// The bytes of a string, nothing else
    Raw,
    /// The payload that DUMP gives, for RESTORE
    Dump,
}

const EXAMPLES: &str = "\
Examples:
  Look at a hash:
    dfsnap get dump.rdb user:17
  Put one key back into a server:
    dfsnap get dump.rdb user:17 --as dump | redis-cli -x restore user:17 0
  An image that was stored as a string:
    dfsnap get dump.rdb logo --as raw > logo.png";

pub fn run(args: &GetArgs) -> Result<Outcome, Failure> {
    let key = unescape(&args.key)?;
    let options = SourceOptions {
        filter: Filter::exact(args.db, &key),
        wanted: Some(key.clone()),
        ..SourceOptions::default()
    };
    let mut found: Option<Entry> = None;
    let read = Source::open(&args.input.source, &options)?.for_each(&mut |record| {
        let Record::Key(key) = record else {
            return Ok(());
        };
        found = key.entry()?.map(|entry| entry.into_owned());
        match &found {
            None => Ok(()),
            // What follows need not be read: this ends the walk, and is told to nobody.
            Some(_) => Err(Failure {
                message: "found".to_owned(),
                advice: String::new(),
            }),
        }
    });
    let Some(entry) = found else {
        read?;
        return Err(Failure {
            message: format!("{}: no key {}", args.input.source, Shown(&key)),
            advice: format!("dfsnap ls {} lists the keys", args.input.source),
        });
    };
    let text = match args.form {
        Form::Text => text(&entry),
        Form::Json => {
            let mut out = Vec::new();
            Writer::new(WriterOptions::default()).entry(&entry, &mut out);
            String::from_utf8_lossy(&out).into_owned()
        }
        Form::Raw => {
            print_bytes(&raw(&entry)?)?;
            String::new()
        }
        Form::Dump => {
            print_bytes(&payload(&entry)?)?;
            String::new()
        }
    };
    Ok(Outcome {
        text,
        finding: false,
    })
}

fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::write(
            std::path::Path::new("standard output"),
            &error,
        )),
        _ => Ok(()),
    }
}

fn raw(entry: &Entry) -> Result<Vec<u8>, Failure> {
    use dfsnap_formats::value::Value;
    match &entry.value {
        Value::String(bytes) | Value::Json(bytes) => Ok(bytes.clone()),
        value => Err(Failure {
            message: format!(
                "key {}: a {}, not a string",
                Shown(&entry.key),
                value.kind().name()
            ),
            advice: "--as json, or --as dump".to_owned(),
        }),
    }
}

/// For the oldest version that holds the value.
fn payload(entry: &Entry) -> Result<Vec<u8>, Failure> {
    let newest = Target::by_name("redis-7.4").unwrap_or_default();
    dump::payload(&entry.value, Target::default(), None)
        .or_else(|_| dump::payload(&entry.value, newest, None))
        .map_err(|error| Failure {
            message: format!("key {}: {error}", Shown(&entry.key)),
            advice: "--as json".to_owned(),
        })
}

/// The bytes that a text with backslash escapes stands for.
fn unescape(text: &str) -> Result<Vec<u8>, Failure> {
    let bad = |rest: &str| Failure {
        message: format!("{text}: no escape: \\{rest}"),
        advice: "write a backslash as \\\\, any byte as \\x and two digits".to_owned(),
    };
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.extend_from_slice(plain.as_bytes());
        let mut chars = escape.chars();
        let (byte, used) = match chars.next() {
            Some('n') => (b'\n', 1),
            Some('r') => (b'\r', 1),
            Some('t') => (b'\t', 1),
            Some(quote @ ('\\' | '"' | '\'')) => (quote as u8, 1),
            Some('x') => {
                let digits = escape.get(1..3).ok_or_else(|| bad(escape))?;
                (u8::from_str_radix(digits, 16).map_err(|_| bad(escape))?, 3)
            }
            _ => return Err(bad(escape)),
        };
        out.push(byte);
        rest = &escape[used..];
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

fn element(element: Element<'_>) -> String {
    format!("\"{}\"", element.to_vec().escape_ascii())
}

/// A line a part.
fn text(entry: &Entry) -> String {
    let mut out = String::new();
    let head = entry.head();
    let _ = write!(
        out,
        "{} in db {}: {}",
        Shown(head.key),
        head.db,
        head.kind.name()
    );
    if let Some(at_ms) = head.attributes.expire_at_ms {
        let _ = write!(
            out,
            ", expires at {at_ms} ms ({} ms from now)",
            at_ms - report::now_ms()
        );
    }
    out.push('\n');
    let done: Result<(), Infallible> = entry.value.for_each_part(|part| {
        // Writing to a string does not fail.
        let _ = match part {
            Part::Bytes(bytes) => writeln!(out, "  \"{}\"", bytes.escape_ascii()),
            Part::ListElement(item) => writeln!(out, "  {}", element(item)),
            Part::SetMember {
                member,
                expire_at_ms,
            } => writeln!(out, "  {}{}", element(member), expiry(expire_at_ms)),
            Part::HashField(field) => writeln!(
                out,
                "  {}  {}{}",
                element(field.field),
                element(field.value),
                expiry(field.expire_at_ms)
            ),
            Part::ZSetMember { member, score } => writeln!(out, "  {score}  {}", element(member)),
            Part::StreamEntry(entry) => {
                let pairs = entry.pairs();
                let pairs = pairs.map(|(f, v)| format!("{} {}", element(f), element(v)));
                writeln!(
                    out,
                    "  {}  {}",
                    entry.id,
                    pairs.collect::<Vec<_>>().join("  ")
                )
            }
            Part::StreamEnd(stream) => {
                let groups = stream.groups.iter().map(|group| {
                    format!(
                        "\n  group \"{}\": read to {}, {} pending, {} consumers",
                        group.name.escape_ascii(),
                        group.last_id,
                        group.pending.len(),
                        group.consumers.len()
                    )
                });
                let groups: String = groups.collect();
                writeln!(
                    out,
                    "  last id {}, {} added{groups}",
                    stream.last_id, stream.entries_added
                )
            }
            Part::Whole(value) => writeln!(out, "  {value:?}"),
        };
        Ok(())
    });
    match done {
        Ok(()) => out,
    }
}

fn expiry(at_ms: Option<i64>) -> String {
    at_ms.map_or(String::new(), |at_ms| format!("  expires at {at_ms} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(unescape(r"a\x00\\\n").unwrap(), b"a\0\\\n");
        for bad in [r"\", r"\x0", r"\xzz", r"\q"] {
            assert!(unescape(bad).is_err(), "{bad}");
        }
    }
}
