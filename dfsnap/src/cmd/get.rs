//! `dfsnap get`: one value, or those of all keys that pass a filter.

use crate::cmd::input::InputArgs;
use crate::filter::{Filter, FilterArgs};
use crate::report::{self, Failure, Outcome};
use crate::source::{Record, Source, SourceOptions};
use clap::{Args, ValueEnum};
use dfsnap_formats::dataset::Entry;
use dfsnap_formats::encoding::listpack::Element;
use dfsnap_formats::error::Shown;
use dfsnap_formats::json::{Buffer, Writer, WriterOptions};
use dfsnap_formats::parts::Part;
use dfsnap_formats::rdb::dump;
use dfsnap_formats::rdb::target::Target;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

/// Print one value of a dump, or the values of all keys that pass a filter
///
/// With KEY nothing is read behind it, and of a set only what may have it. With filters as well, KEY is printed if it passes. Without KEY every
/// key that passes is printed, in stored order.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GetArgs {
    #[command(flatten)]
    pub input: InputArgs,
    /// The key; backslash escapes as `ls` prints them. Of several databases that have it the first, or that of --db
    #[arg(index = 2)]
    pub key: Option<String>,
    /// How it is printed
    #[arg(long = "as", value_name = "FORM", default_value = "text")]
    pub form: Form,
    #[command(flatten)]
    pub filter: FilterArgs,
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
    dfsnap get dump.rdb logo --as raw > logo.png
  All sessions that do not expire:
    dfsnap get dump.rdb --match 'session:*' --ttl none --as json";

pub fn run(args: &GetArgs) -> Result<Outcome, Failure> {
    let key = args.key.as_deref().map(unescape).transpose()?;
    let filter = Filter::new(&args.filter, report::now_ms());
    if key.is_none() {
        several(args, &filter)?;
    }
    let options = SourceOptions {
        filter: match &key {
            Some(key) => filter.only(key),
            None => filter,
        },
        wanted: key.clone(),
        is_silent: key.is_none() && std::io::stdout().is_terminal(),
        ..SourceOptions::default()
    };
    let (mut found, mut is_done) = (0u64, false);
    let read = Source::open(&args.input.source, &options)?.for_each(&mut |record| {
        let Record::Key(record) = record else {
            return Ok(());
        };
        let Some(entry) = record.entry()? else {
            return Ok(());
        };
        found += 1;
        is_done = !print(&entry, args.form)? || key.is_some();
        match is_done {
            false => Ok(()),
            // What follows need not be read: this ends the walk, and is told to nobody.
            true => Err(Failure {
                message: "found".to_owned(),
                advice: String::new(),
            }),
        }
    });
    if !is_done {
        read?;
    }
    match (found, &key) {
        (0, Some(key)) => Err(Failure {
            message: format!("{}: no key {}", args.input.source, Shown(key)),
            advice: format!("dfsnap ls {} lists the keys", args.input.source),
        }),
        (0, None) => Err(Failure {
            message: format!("{}: no key passes the filter", args.input.source),
            advice: format!("dfsnap ls {} lists the keys", args.input.source),
        }),
        _ => Ok(Outcome {
            text: String::new(),
            finding: false,
        }),
    }
}

/// Without a key there must be a filter, and a form that tells where a value ends.
fn several(args: &GetArgs, filter: &Filter) -> Result<(), Failure> {
    if filter.is_open() {
        return Err(Failure {
            message: "neither a key nor a filter says what is wanted".to_owned(),
            advice: format!(
                "dfsnap get {0} KEY; or --match PATTERN; dfsnap convert {0} OUT.ndjson prints all",
                args.input.source
            ),
        });
    }
    match args.form {
        Form::Text | Form::Json => Ok(()),
        Form::Raw | Form::Dump => Err(Failure {
            message: "--as raw and --as dump are of one key: several would run into each other"
                .to_owned(),
            advice: "name the key; or --as json".to_owned(),
        }),
    }
}

/// False: nobody reads any more.
fn print(entry: &Entry, form: Form) -> Result<bool, Failure> {
    let bytes = match form {
        Form::Text => text(entry).into_bytes(),
        Form::Json => {
            let mut out = Buffer::new();
            Writer::new(WriterOptions::default()).entry(entry, &mut out);
            out.into()
        }
        Form::Raw => raw(entry)?,
        Form::Dump => payload(entry)?,
    };
    match std::io::stdout().lock().write_all(&bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::output(&error)),
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
