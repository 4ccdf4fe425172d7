//! `dfsnap follow`: the stream of changes of a live server, or of each node of a cluster, transaction by transaction.

mod nodes;

use crate::edit::EditArgs;
use crate::filter::FilterArgs;
use crate::live::following::{End, Following};
use crate::live::snapshot::stream_db;
use crate::live::{Client, Url, stop, url::Secrets};
use crate::passage::{self, Passage};
use crate::report::{Failure, Outcome};
use clap::Args;
use dfsnap_replica::{Command, Event, Position, ReplId, Transaction};
use serde::Serialize;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Print the changes of a live server as they happen, transactions whole
///
/// Follows the server as a replica does. Without --from it begins now: the server sends all its data first, which is
/// read and left out, because only then it is certain where the stream begins. With --from it goes on from a position
/// that an earlier run printed, as long as the server's backlog reaches back to it.
///
/// Of a cluster all primaries are followed side by side; each has a stream and a position of its own.
///
/// With filters only the commands are printed that may concern a key that passes: also FLUSHALL, scripts, and commands of modules.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct FollowArgs {
    /// Server: redis://[USER:PASSWORD@]HOST[:PORT], unix:PATH, or redis+cluster://HOST[:PORT] for all nodes of a cluster
    #[arg(value_name = "URL")]
    pub url: String,
    /// Print a line of JSON for each transaction
    #[arg(long)]
    pub json: bool,
    /// Go on from here: replication id, offset, and the database selected there; of a cluster for each node
    #[arg(long, value_name = "[NODE=]ID:OFFSET[:DB]", value_delimiter = ',', value_parser = Start::parse)]
    pub from: Vec<Start>,
    /// End after so many transactions
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Connect so often in a row before giving up
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub attempts: u32,
    /// File whose first line is the password; otherwise DFSNAP_PASSWORD
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    #[command(flatten)]
    pub filter: FilterArgs,
}

const EXAMPLES: &str = "\
Examples:
  What is being written right now?
    dfsnap follow redis://db:6379
  Every write to keys of users, for a program:
    dfsnap follow redis://db --json --match 'user:*' | jq -c '.commands[].words'
  Go on where the last run ended:
    dfsnap follow redis://db --from 8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb:1057:0
  All nodes of a cluster:
    dfsnap follow redis+cluster://node:6379 --json";

/// A position, and of a cluster the node whose it is.
#[derive(Debug, Clone)]
pub struct Start {
    /// As in `host:port`.
    node: Option<String>,
    position: Position,
}

impl Start {
    fn parse(text: &str) -> Result<Self, String> {
        let (node, text) = match text.split_once('=') {
            Some((node, text)) => (Some(node.to_owned()), text),
            None => (None, text),
        };
        Ok(Start {
            node,
            position: position(text)?,
        })
    }
}

/// `ID:OFFSET` or `ID:OFFSET:DB`; behind a full resync the database is 0.
pub fn position(text: &str) -> Result<Position, String> {
    let whole = match text.matches(':').count() {
        1 => format!("{text}:0"),
        _ => text.to_owned(),
    };
    whole.parse().map_err(|_| {
        "wanted a replication id of 40 characters, an offset and perhaps a database, with : between them".to_owned()
    })
}

pub fn run(args: &FollowArgs) -> Result<Outcome, Failure> {
    stop::listen();
    passage::check(&args.filter)?;
    let url = Url::open(&args.url, Secrets::new(args.password_file.as_deref()))?;
    if url.db.is_some() {
        return Err(Failure {
            message: "the address names a database, but the stream is of all of them".to_owned(),
            advice: "an address without /DB; --db prints the changes of one".to_owned(),
        });
    }
    match url.is_cluster {
        true => nodes::follow(args, &url)?,
        false => one(args, &url)?,
    }
    Ok(Outcome {
        text: String::new(),
        finding: false,
    })
}

fn one(args: &FollowArgs, url: &Url) -> Result<(), Failure> {
    let from = match args.from.as_slice() {
        [] => None,
        [
            Start {
                node: None,
                position,
            },
        ] => Some(*position),
        _ => {
            return Err(Failure {
                message: "--from: a server has one position, and no nodes".to_owned(),
                advice: "--from ID:OFFSET:DB; or redis+cluster:// for the nodes of a cluster"
                    .to_owned(),
            });
        }
    };
    // An address that leads nowhere is no link that was lost.
    drop(Client::connect(url)?);
    let left = Arc::new(AtomicU64::new(args.count.unwrap_or(u64::MAX)));
    let mut printer = Printer::new(args, url, from, BufWriter::new(io::stdout()), left);
    let mut following = Following::new(url, from, args.attempts);
    let ended = printer.follow(&mut following);
    printer.flush()?;
    if let Some(position) = following.position() {
        eprintln!("note: ended at {position}; --from goes on there");
    }
    ended
}

struct Printer<W> {
    passage: Passage,
    /// Gets transactions whole.
    out: W,
    lines: Vec<u8>,
    json: bool,
    replid: Option<ReplId>,
    /// Transactions until the end, of all nodes; there are never so many as the highest number.
    left: Arc<AtomicU64>,
    /// The end of the last unit.
    printed_to: Option<u64>,
    /// Nobody reads any more.
    is_closed: bool,
    name: String,
    /// Lines say which node they are of.
    is_node: bool,
    /// The stream has not begun, so that nothing is left out by beginning with all data.
    may_resync: bool,
    /// The beginning of a payload.
    head: Vec<u8>,
    /// The payload is read: the database that the stream begins in.
    loaded: Option<u32>,
}

const HEAD_BYTES: usize = 64 << 10;

impl<W: Write> Printer<W> {
    fn new(
        args: &FollowArgs,
        url: &Url,
        from: Option<Position>,
        out: W,
        left: Arc<AtomicU64>,
    ) -> Self {
        Printer {
            passage: Passage::new(&args.filter, &EditArgs::default()),
            out,
            lines: Vec::new(),
            json: args.json,
            replid: from.map(|position| position.replid),
            left,
            printed_to: None,
            is_closed: false,
            name: url.to_string(),
            is_node: false,
            may_resync: from.is_none(),
            head: Vec::new(),
            loaded: None,
        }
    }

    fn follow(&mut self, following: &mut Following) -> Result<(), Failure> {
        while self.left.load(Ordering::Relaxed) > 0 && !self.is_closed {
            let step = following.step(&mut |event| self.event(event));
            if let Some(db) = self.loaded.take() {
                following.loaded(db);
            }
            if let Some(offset) = self.printed_to.take() {
                following.applied(offset);
            }
            match step {
                Ok(crate::live::feed::Step::Event) => {}
                Ok(crate::live::feed::Step::Quiet) => self.flush()?,
                Err(End::Stopped) => return Ok(()),
                Err(End::Failed(failure)) => return Err(failure),
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>) -> Result<(), Failure> {
        match event {
            Event::PayloadStart(_) if !self.may_resync => Err(Failure {
                message: format!(
                    "{}: the server cannot go on from this position: its backlog is too short, or it has another history",
                    self.name
                ),
                advice: "without --from it begins now, and what came in between is not seen; a larger repl-backlog-size helps the next time".to_owned(),
            }),
            Event::PayloadStart(start) => {
                eprintln!("note: {}: passing over the data, then changes follow", self.name);
                self.head.clear();
                self.replid = start.origin.map(|(replid, _)| replid);
                Ok(())
            }
            Event::PayloadBytes(bytes) => {
                let room = HEAD_BYTES - self.head.len();
                self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
                Ok(())
            }
            Event::PayloadEnd => {
                self.may_resync = false;
                self.loaded = Some(stream_db(&self.head));
                Ok(())
            }
            Event::Continue { replid, .. } => {
                self.may_resync = false;
                self.replid = Some(replid);
                Ok(())
            }
            Event::Transaction(unit) => {
                self.printed_to = Some(unit.end_offset);
                let commands: Vec<Command<'_>> = unit
                    .commands()
                    .filter(|command| self.is_wanted(command))
                    .collect();
                match commands.is_empty() {
                    true => Ok(()),
                    false => self.unit(&unit, &commands),
                }
            }
        }
    }

    fn is_wanted(&self, command: &Command<'_>) -> bool {
        self.passage.is_open() || {
            let words: Vec<&[u8]> = command.words().collect();
            self.passage.concerns(command.db, &words)
        }
    }

    fn unit(&mut self, unit: &Transaction<'_>, commands: &[Command<'_>]) -> Result<(), Failure> {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        if taken.is_err() {
            // Another node had the last one.
            return Ok(());
        }
        let node = self.is_node.then_some(self.name.as_str());
        self.lines.clear();
        let made = match self.json {
            true => write_json(&mut self.lines, self.replid, node, unit, commands),
            false => write_text(&mut self.lines, node, unit.end_offset, commands),
        };
        let written = made.and_then(|()| self.out.write_all(&self.lines));
        self.note(written)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.out.flush();
        self.note(flushed)
    }

    /// A reader that has seen enough is no failure.
    fn note(&mut self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            written => written.map_err(|error| Failure::output(&error)),
        }
    }
}

/// One transaction, as a program reads it.
#[derive(Serialize)]
struct Line<'u> {
    /// Of a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'u str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replid: Option<String>,
    /// Of the stream behind this transaction.
    offset: u64,
    /// Selected behind it: with the two above, the position to go on from.
    db: u32,
    commands: Vec<LineCommand<'u>>,
}

#[derive(Serialize)]
struct LineCommand<'u> {
    db: u32,
    words: Vec<Word<'u>>,
}

/// Text, or `{"base64":"…"}` as in the JSON form of dumps.
#[derive(Serialize)]
#[serde(untagged)]
enum Word<'u> {
    Text(&'u str),
    Bytes { base64: String },
}

fn write_json(
    out: &mut impl Write,
    replid: Option<ReplId>,
    node: Option<&str>,
    unit: &Transaction<'_>,
    commands: &[Command<'_>],
) -> io::Result<()> {
    let word = |bytes| match std::str::from_utf8(bytes) {
        Ok(text) => Word::Text(text),
        Err(_) => Word::Bytes {
            base64: base64(bytes),
        },
    };
    let line = Line {
        node,
        replid: replid.map(|replid| replid.to_string()),
        offset: unit.end_offset,
        db: unit.db,
        commands: commands
            .iter()
            .map(|command| LineCommand {
                db: command.db,
                words: command.words().map(word).collect(),
            })
            .collect(),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

/// Bytes of a word that people see.
const SHOWN_MAX: usize = 200;

fn write_text(
    out: &mut impl Write,
    node: Option<&str>,
    end_offset: u64,
    commands: &[Command<'_>],
) -> io::Result<()> {
    let count = commands.len();
    let before = node.map_or(String::new(), |node| format!("{node} "));
    if count > 1 {
        writeln!(
            out,
            "{before}{end_offset:>12}  transaction of {count} commands"
        )?;
    }
    for command in commands {
        match count {
            1 => write!(out, "{before}{end_offset:>12}  db{}", command.db)?,
            _ => write!(out, "{before}{:>12}  db{}", "", command.db)?,
        }
        for (at, word) in command.words().enumerate() {
            let shown = &word[..word.len().min(SHOWN_MAX)];
            match at {
                0 => write!(out, "  {}", shown.escape_ascii())?,
                _ => write!(out, " \"{}\"", shown.escape_ascii())?,
            }
            if shown.len() < word.len() {
                write!(out, "… ({} bytes)", word.len())?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            out.push(match at <= chunk.len() {
                true => char::from(ALPHABET[(bits >> (18 - 6 * at)) as usize & 63]),
                false => '=',
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let rows = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, want) in rows {
            assert_eq!(base64(bytes.as_bytes()), want);
        }
    }

    #[test]
    fn positions_may_leave_out_the_database() {
        let id = "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb";
        assert_eq!(position(&format!("{id}:7")).unwrap().db, 0);
        assert_eq!(position(&format!("{id}:7:3")).unwrap().db, 3);
        assert!(position("x:7").is_err());
    }
}
