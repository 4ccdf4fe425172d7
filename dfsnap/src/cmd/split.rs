//! `dfsnap split`: one dump as several, by slot, database, prefix or hash.
//!
//! The folder appears with all of its files in it, or not at all. Function libraries and data of modules are in every
//! part, since any of the servers that load them may need them.

use super::output::{OutputArgs, ending};
use crate::edit::{Edit, EditArgs};
use crate::filter::{Filter, FilterArgs};
use crate::out::OutFolder;
use crate::report::{self, Failure, Outcome};
use crate::sink::{Output, Sink, SinkOptions};
use crate::source::{Place, Record, Source, SourceOptions};
use clap::{Args, ValueEnum};
use dfsnap_formats::dataset::Item;
use dfsnap_formats::parts::Head;
use dfsnap_formats::slot::{SLOTS, slot};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Split a dump into several: by slot, by database, by prefix of the key, or into equal shards
///
/// The folder DIR appears with all of its files, or not at all. Function libraries are in every file.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SplitArgs {
    /// Dump of any format, or URL of a server; `-` is standard input
    #[arg(value_name = "PATH", value_parser = Place::parse)]
    pub source: Place,
    /// What decides where a key goes
    #[arg(long, value_name = "WHAT")]
    pub by: By,
    /// Into how many: --by slot and --by shards
    #[arg(short = 'n', long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=PARTS_MAX as i64))]
    pub parts: u16,
    /// What ends a level of a prefix: --by prefix
    #[arg(long, value_name = "TEXT", default_value = ":")]
    pub separator: String,
    /// Levels of a prefix: --by prefix
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub prefix_depth: usize,
    /// Folder that is made for the files
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub form: OutputArgs,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub edit: EditArgs,
}

const EXAMPLES: &str = "\
Examples:
  For a cluster of three that owns the slots in equal ranges:
    dfsnap split dump.rdb --by slot -n 3 -o parts
  A file for each database:
    dfsnap split dump.rdb --by db -o parts
  A file for each kind of key, as in user:17 and session:4:
    dfsnap split dump.rdb --by prefix -o parts
  Eight files of about one size, to be loaded at a time:
    dfsnap split dump.rdb --by shards -n 8 -o parts --to ndjson";

/// What decides where a key goes
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Equal ranges of the slots of a cluster
    Slot,
    /// Database
    Db,
    /// What stands before a separator in the key
    Prefix,
    /// Hash of the key; keys with the same {tag} stay together
    Shards,
}

/// Files that are open at a time.
const PARTS_MAX: usize = 256;
/// Bytes that all parts together may hold in memory.
const HELD_MAX: usize = 16 << 20;

#[derive(Debug, Serialize)]
struct PartReport {
    file: String,
    keys: u64,
    bytes: u64,
}

struct Split<'a> {
    args: &'a SplitArgs,
    folder: OutFolder,
    options: SinkOptions,
    parts: BTreeMap<String, Sink>,
    /// What every part gets, also those that begin later.
    shared: Vec<Item>,
    /// Bytes of keys and values since all parts were relieved.
    held: usize,
}

pub fn run(args: &SplitArgs) -> Result<Outcome, Failure> {
    let form = OutputArgs {
        // A folder has no ending that would tell.
        to: Some(args.form.to.unwrap_or(Output::Rdb)),
        ..args.form.clone()
    };
    let mut split = Split {
        args,
        folder: OutFolder::create(&args.output)?,
        options: SinkOptions {
            // A set in each part: one file is enough.
            shards: 1,
            ..form.options(&args.output)
        },
        parts: BTreeMap::new(),
        shared: Vec::new(),
        held: 0,
    };
    let by_number = matches!(args.by, By::Slot | By::Shards);
    for number in (0..args.parts).filter(|_| by_number) {
        split.part(&number_name(args, number))?;
    }
    let options = SourceOptions {
        filter: Filter::new(&args.filter, report::now_ms()),
        edit: Edit::new(&args.edit, report::now_ms()),
        ..SourceOptions::default()
    };
    let source = Source::open(&args.source, &options)?;
    source.for_each(&mut |record| split.record(record))?;
    split.finish()
}

impl Split<'_> {
    fn record(&mut self, record: Record<'_>) -> Result<(), Failure> {
        let item = match record {
            Record::Key(key) => {
                let name = part_name(self.args, &key.head);
                let stored = key.record().map_or(0, |record| record.value.len());
                self.held += key.head.key.len() + stored;
                self.part(&name)?.record(Record::Key(key))?;
                if self.held > HELD_MAX {
                    self.held = 0;
                    self.parts.values_mut().try_for_each(Sink::relieve)?;
                }
                return Ok(());
            }
            Record::Aux { name, value } => Item::Aux {
                name: name.to_vec(),
                value: value.to_vec(),
            },
            Record::Function(code) => Item::Function {
                code: code.to_vec(),
            },
            Record::ModuleAux { module, when, raw } => Item::ModuleAux {
                module,
                when,
                raw: raw.to_vec(),
            },
            Record::Header(_) | Record::End(_) | Record::Behind(_) => return Ok(()),
        };
        for sink in self.parts.values_mut() {
            sink.record(record_of(&item))?;
        }
        self.shared.push(item);
        Ok(())
    }

    /// The part with this name, which begins if it is the first time.
    fn part(&mut self, name: &str) -> Result<&mut Sink, Failure> {
        if !self.parts.contains_key(name) {
            if self.parts.len() == PARTS_MAX {
                return Err(Failure {
                    message: format!("more than {PARTS_MAX} parts, as with {name}"),
                    advice: "--match or --db chooses some of the keys; --by shards makes as many as asked for"
                        .to_owned(),
                });
            }
            let file = format!("{name}{}", ending(self.options.output));
            let mut sink = Sink::create(&self.folder.path().join(file), &self.options)?;
            for item in &self.shared {
                sink.record(record_of(item))?;
            }
            self.parts.insert(name.to_owned(), sink);
        }
        Ok(self.parts.get_mut(name).expect("it was put there above"))
    }

    fn finish(self) -> Result<Outcome, Failure> {
        let Split {
            args,
            folder,
            options,
            parts,
            ..
        } = self;
        parts.values().try_for_each(Sink::check)?;
        let mut reports = Vec::new();
        for (name, sink) in parts {
            let (written, _) = sink.finish()?;
            reports.push(PartReport {
                file: format!("{name}{}", ending(options.output)),
                keys: written.keys,
                bytes: written.bytes,
            });
        }
        folder.commit()?;
        Ok(Outcome {
            text: match args.json {
                true => report::json(&serde_json::json!({
                    "folder": args.output.display().to_string(),
                    "parts": reports,
                })),
                false => text(&args.output, &reports),
            },
            finding: false,
        })
    }
}

/// An item as a source hands it out. Entries are none of what parts share.
fn record_of(item: &Item) -> Record<'_> {
    match item {
        Item::Aux { name, value } => Record::Aux { name, value },
        Item::Function { code } => Record::Function(code),
        Item::ModuleAux { module, when, raw } => Record::ModuleAux {
            module: *module,
            when: *when,
            raw,
        },
        Item::Entry(entry) => Record::Key(crate::source::Key::data(Path::new(""), entry)),
    }
}

/// Where a key goes.
fn part_name(args: &SplitArgs, head: &Head<'_>) -> String {
    match args.by {
        By::Db => format!("db-{}", head.db),
        By::Slot => {
            let slot = slot(head.key);
            let about = u32::from(slot) * u32::from(args.parts) / u32::from(SLOTS);
            let about = about as u16;
            // Borders are rounded: the neighbour may be the one.
            let near = [about.saturating_sub(1), about, about + 1];
            let number = near.into_iter().find(|number| {
                let (first, last) = range(args.parts, *number);
                (first..=last).contains(&slot)
            });
            number_name(args, number.unwrap_or(about))
        }
        By::Shards => number_name(args, slot(head.key) % args.parts),
        By::Prefix => format!("prefix-{}", file_name(prefix(args, head.key))),
    }
}

/// The slots of part `number`, as `redis-cli --cluster create` gives them out.
fn range(parts: u16, number: u16) -> (u16, u16) {
    let border =
        |number: u16| (f64::from(number) * f64::from(SLOTS) / f64::from(parts)).round() as u16;
    (border(number), border(number + 1).saturating_sub(1))
}

fn number_name(args: &SplitArgs, number: u16) -> String {
    match args.by {
        By::Slot => {
            let (first, last) = range(args.parts, number);
            format!("slots-{first:05}-{last:05}")
        }
        _ => format!("shard-{number:03}"),
    }
}

/// What stands before the separator that ends the last level; nothing if there are fewer levels.
fn prefix<'k>(args: &SplitArgs, key: &'k [u8]) -> &'k [u8] {
    let separator = args.separator.as_bytes();
    let mut at = 0;
    for _ in 0..args.prefix_depth.max(1) {
        let rest = &key[at..];
        let found = rest
            .windows(separator.len().max(1))
            .position(|window| window == separator);
        match found {
            Some(found) => at += found + separator.len(),
            None => return &[],
        }
    }
    &key[..at - separator.len()]
}

/// A prefix as a part of a file name: letters, digits, `_` and `.`, others as `%` and two digits.
fn file_name(prefix: &[u8]) -> String {
    const BYTES_MAX: usize = 60;
    if prefix.is_empty() {
        return "%none".to_owned();
    }
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.".contains(byte);
    let mut name = String::new();
    for byte in &prefix[..prefix.len().min(BYTES_MAX)] {
        match plain(byte) {
            true => name.push(char::from(*byte)),
            false => name.push_str(&format!("%{byte:02x}")),
        }
    }
    if prefix.len() > BYTES_MAX {
        name.push_str("%more");
    }
    name
}

fn text(folder: &Path, reports: &[PartReport]) -> String {
    let rows: Vec<Vec<String>> = reports
        .iter()
        .map(|part| {
            vec![
                folder.join(&part.file).display().to_string(),
                part.keys.to_string(),
                report::bytes(part.bytes),
            ]
        })
        .collect();
    report::table(&["file", "keys", "size"], &rows)
}
