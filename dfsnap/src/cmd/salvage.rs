//! `dfsnap salvage`: everything that can be read of a damaged dump, as a sound one, and what could not.
//!
//! Each format has its lenient reader; `Salvage` takes what they hand out, drops what a server would refuse (keys that
//! are there twice), and keeps account of what is lost.

mod aof;
mod dfs;
mod text;

use crate::check::keys::SeenKeys;
use crate::cmd::output::OutputArgs;
use crate::edit::{Edit, EditArgs};
use crate::filter::{Filter, FilterArgs};
use crate::report::{self, Failure, Outcome};
use crate::sink::{Output, Sink, Written};
use crate::source::layout::Layout;
use crate::source::{Key, Record, is_empty};
use clap::Args;
use dfsnap_formats::dataset::{Entry, Item};
use dfsnap_formats::error::Shown;
use dfsnap_formats::rdb::lenient::{LenientReader, Salvaged, Skipped};
use dfsnap_formats::rdb::parts::PartWalk;
use dfsnap_formats::rdb::reader::Options;
use dfsnap_formats::rdb::record::{RdbError, Record as RdbRecord};
use dfsnap_formats::rdb::target::Target;
use serde::Serialize;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// Save everything readable of a damaged dump as a sound one, and list what was lost
///
/// Damage inside a value costs that key; where records no longer follow each other, the next place is looked for from
/// which they do. A wrong checksum alone costs nothing. Of keys that are there twice the first is kept. Commands of an
/// append-only file behind damage are applied to what there is, so that keys may have older values. Losses are listed whatever the
/// filter lets pass: what is lost does not tell which key it was.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SalvageArgs {
    /// Damaged dump: RDB file, DFS set, append-only file or directory, JSON; `-` is standard input
    pub path: PathBuf,
    /// Where the sound dump goes
    #[arg(short, long, value_name = "DST")]
    pub output: PathBuf,
    /// How many losses to list; all are counted
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
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
Exit code: 0 nothing was lost, 1 something was, 2 an error.

Examples:
  A dump that the server refuses to load:
    dfsnap salvage dump.rdb -o salvaged.rdb
  What is left of a set of Dragonfly's without two of its files:
    dfsnap salvage dump-summary.dfs -o salvaged.rdb
  The log of a server that lost power, as a dump:
    dfsnap salvage appendonlydir -o salvaged.rdb
  Which keys to restore from elsewhere:
    dfsnap salvage dump.rdb -o salvaged.rdb --json | jq -r '.lost[].key'";

/// A piece of the dump that is in no other.
#[derive(Debug, Serialize)]
struct Lost {
    file: String,
    /// Bytes of the file: the first, and the one behind the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
    /// Where it is known whose value it was; more keys may be in the range.
    #[serde(skip_serializing_if = "Option::is_none")]
    db: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    why: String,
}

impl Lost {
    fn range(file: &str, from: u64, to: u64, why: String) -> Self {
        Lost {
            file: file.to_owned(),
            from: Some(from),
            to: Some(to),
            db: None,
            key: None,
            why,
        }
    }

    fn whole(file: &str, why: String) -> Self {
        Lost {
            file: file.to_owned(),
            from: None,
            to: None,
            db: None,
            key: None,
            why,
        }
    }

    fn of_key(mut self, db: Option<u32>, key: &[u8]) -> Self {
        self.db = db;
        self.key = Some(report::key(key));
        self
    }
}

#[derive(Debug, Default, Serialize)]
struct Report {
    path: String,
    /// Nothing was lost.
    whole: bool,
    keys: u64,
    bytes: u64,
    files: Vec<PathBuf>,
    lost_count: u64,
    lost_bytes: u64,
    /// The first of them.
    lost: Vec<Lost>,
    /// What was odd and cost nothing.
    notes: Vec<String>,
}

/// What is taken on the way from the readers to the sink.
struct Salvage {
    sink: Sink,
    seen: SeenKeys,
    filter: Filter,
    edit: Edit,
    walk: PartWalk,
    limit: usize,
    /// Keys and functions that were met, whether they pass the filter or not, also those whose value is lost.
    met: u64,
    report: Report,
}

impl Salvage {
    fn lost(&mut self, lost: Lost) {
        self.report.lost_count += 1;
        self.met += u64::from(lost.key.is_some());
        if let (Some(from), Some(to)) = (lost.from, lost.to) {
            self.report.lost_bytes += to - from;
        }
        if self.report.lost.len() < self.limit {
            self.report.lost.push(lost);
        }
    }

    fn note(&mut self, note: String) {
        const NOTES_MAX: usize = 100;
        if self.report.notes.len() < NOTES_MAX {
            self.report.notes.push(note);
        }
    }

    /// A record that was checked; one that stands in a blob has no place of its own.
    fn record(
        &mut self,
        path: &Path,
        file: &str,
        is_placed: bool,
        record: &RdbRecord<'_>,
    ) -> Result<(), Failure> {
        let key = match record {
            RdbRecord::Key(key) => key,
            RdbRecord::Aux { name, value } => {
                return self.sink.record(Record::Aux { name, value });
            }
            other => {
                return match Item::of_record(other, &Default::default()) {
                    Ok(Some(item)) => self.item(file, &item),
                    Ok(None) => Ok(()),
                    Err(error) => {
                        self.lost(Lost::whole(file, error.to_string()));
                        Ok(())
                    }
                };
            }
        };
        self.met += 1;
        if is_empty(key) || !self.filter.passes_record(key) {
            return Ok(());
        }
        if !self.seen.insert(key.db, key.key) {
            let (from, to) = (key.offset, key.value_offset + key.value.len() as u64);
            self.twice(file, is_placed.then_some((from, to)), key.db, key.key);
            return Ok(());
        }
        let Salvage {
            sink, edit, walk, ..
        } = self;
        edit.record(key, |key| {
            sink.record(Record::Key(Key::stored(path, key, walk)))
        })
    }

    fn twice(&mut self, file: &str, range: Option<(u64, u64)>, db: u32, key: &[u8]) {
        let why = format!("key {} in db {db} was there before", Shown(key));
        let lost = match range {
            Some((from, to)) => Lost::range(file, from, to, why),
            None => Lost::whole(file, why),
        };
        self.lost(lost.of_key(Some(db), key));
    }

    fn item(&mut self, file: &str, item: &Item) -> Result<(), Failure> {
        match item {
            Item::Aux { name, value } => self.sink.record(Record::Aux { name, value }),
            Item::Function { code } => {
                self.met += 1;
                self.sink.record(Record::Function(code))
            }
            Item::ModuleAux { module, when, raw } => self.sink.record(Record::ModuleAux {
                module: *module,
                when: *when,
                raw,
            }),
            Item::Entry(entry) => {
                self.met += 1;
                self.entry(file, entry)
            }
        }
    }

    fn entry(&mut self, file: &str, entry: &Entry) -> Result<(), Failure> {
        if !self.filter.passes_entry(entry) {
            return Ok(());
        }
        if !self.seen.insert(entry.db, &entry.key) {
            self.twice(file, None, entry.db, &entry.key);
            return Ok(());
        }
        let edited = self.edit.entry(entry)?;
        let key = Key::data(Path::new(file), &edited);
        self.sink.record(Record::Key(key))
    }

    /// A range that a lenient reader of RDB files passed over.
    fn skipped(&mut self, file: &str, skipped: &Skipped) {
        if let RdbError::Checksum { .. } = skipped.why {
            self.note(format!("{file}: {}; nothing is lost by it", skipped.why));
            return;
        }
        let why = skipped.why.to_string();
        let lost = Lost::range(file, skipped.from, skipped.to, why);
        self.lost(match &skipped.why {
            RdbError::Value { db, key, .. } => lost.of_key(Some(*db), key),
            _ => lost,
        });
    }

    fn rdb(&mut self, path: &Path, source: impl Read, bytes: Option<u64>) -> Result<(), Failure> {
        let file = path.display().to_string();
        let options = Options {
            source_bytes: bytes,
            ..Options::default()
        };
        let mut reader = LenientReader::new(source, options);
        let fail = |error: RdbError| Failure::read(path, &error);
        while let Some(next) = reader.next().map_err(fail)? {
            match next {
                Salvaged::Record(record) => self.record(path, &file, true, &record)?,
                Salvaged::Skipped(skipped) => self.skipped(&file, &skipped),
            }
        }
        Ok(())
    }
}

pub fn run(args: &SalvageArgs) -> Result<Outcome, Failure> {
    let layout = Layout::of(&args.path)?;
    let mut stream = match &layout {
        Layout::Stream(path) => Some(Stream::open(path)?),
        _ => None,
    };
    let mut options = args.form.options(&args.output);
    let is_valkey = stream.as_ref().is_some_and(|stream| stream.is_valkey());
    if is_valkey && args.form.target.is_none() && options.output != Output::Dfs {
        options.target = Target::VALKEY_9;
    }
    let mut salvage = Salvage {
        sink: Sink::create(&args.output, &options)?,
        seen: SeenKeys::default(),
        filter: Filter::new(&args.filter, report::now_ms()),
        edit: Edit::new(&args.edit, report::now_ms()),
        walk: PartWalk::default(),
        limit: args.limit,
        met: 0,
        report: Report {
            path: args.path.display().to_string(),
            ..Report::default()
        },
    };
    match (&layout, stream.take()) {
        (Layout::Set { folder, base }, _) => dfs::salvage(&mut salvage, folder, base)?,
        (Layout::Directory { folder, manifest }, _) => {
            aof::directory(&mut salvage, folder, manifest)?;
        }
        (Layout::Stream(path), Some(stream)) => match stream.kind() {
            Some(b'*' | b'#') => aof::files(&mut salvage, std::slice::from_ref(path))?,
            _ if path.extension().is_some_and(|end| end == "aof") => {
                aof::files(&mut salvage, std::slice::from_ref(path))?;
            }
            Some(b'{' | b'[') => text::salvage(&mut salvage, path, stream.whole())?,
            _ => {
                let bytes = stream.bytes;
                let stream = stream.mended(&mut salvage, path);
                salvage.rdb(path, stream.whole(), bytes)?;
            }
        },
        (Layout::Stream(_), None) => unreachable!("opened above"),
    }
    finish(args, salvage)
}

fn finish(args: &SalvageArgs, salvage: Salvage) -> Result<Outcome, Failure> {
    // An empty dump is not what is left of one that cannot be read.
    if salvage.met == 0 && salvage.report.lost_count > 0 {
        let path = salvage.report.path;
        let why = salvage.report.lost.first().map(|lost| lost.why.as_str());
        return Err(Failure {
            message: format!(
                "{path}: nothing of it can be read: {}",
                why.unwrap_or("damaged")
            ),
            advice: format!("dfsnap verify {path} lists all damage; or another copy"),
        });
    }
    let (written, losses) = salvage.sink.finish()?;
    let Written {
        keys, bytes, files, ..
    } = written;
    let mut report = Report {
        whole: salvage.report.lost_count == 0,
        keys,
        bytes,
        files,
        ..salvage.report
    };
    for (what, count) in losses.counts() {
        report.notes.push(format!(
            "the target has no place for: {what} ({count} keys)"
        ));
    }
    let finding = !report.whole;
    // What goes to standard output is the dump.
    let is_piped = args.output.as_os_str() == "-";
    let text = match args.json {
        true => report::json(&report),
        false => text(&report, args),
    };
    if is_piped {
        eprint!("{text}");
    }
    Ok(Outcome {
        text: if is_piped { String::new() } else { text },
        finding,
    })
}

fn text(report: &Report, args: &SalvageArgs) -> String {
    let mut out = String::new();
    for lost in &report.lost {
        let range = match (lost.from, lost.to) {
            (Some(from), Some(to)) => format!(" bytes {from} to {to}:"),
            _ => String::new(),
        };
        out.push_str(&format!("lost: {}:{range} {}\n", lost.file, lost.why));
    }
    let hidden = report.lost_count - report.lost.len() as u64;
    if hidden > 0 {
        out.push_str(&format!("lost: {hidden} more; --limit lists them\n"));
    }
    for note in &report.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    let verdict = match report.lost_count {
        0 => "nothing lost".to_owned(),
        count => format!(
            "{count} losses, {} in the ranges above",
            report::bytes(report.lost_bytes)
        ),
    };
    out.push_str(&format!(
        "{}: {verdict}; {} keys written to {}\n",
        report.path,
        report.keys,
        args.output.display()
    ));
    out
}

/// A file or standard input whose first bytes were looked at.
struct Stream {
    first: Vec<u8>,
    rest: Box<dyn Read>,
    bytes: Option<u64>,
}

impl Stream {
    fn open(path: &Path) -> Result<Self, Failure> {
        const FIRST_BYTES: u64 = 64;
        let mut rest = report::open(path)?;
        let mut first = Vec::new();
        let read = (&mut rest).take(FIRST_BYTES).read_to_end(&mut first);
        read.map_err(|error| crate::check::unreadable(path, &error))?;
        let meta = std::fs::metadata(path).ok().filter(|meta| meta.is_file());
        Ok(Stream {
            first,
            rest,
            bytes: meta.map(|meta| meta.len()),
        })
    }

    fn kind(&self) -> Option<u8> {
        self.first.trim_ascii_start().first().copied()
    }

    fn is_valkey(&self) -> bool {
        self.first.starts_with(b"VALKEY")
    }

    /// With a header that can be read, where enough is left of it to tell which it was.
    fn mended(mut self, salvage: &mut Salvage, path: &Path) -> Self {
        if let Some(header) = self.first.first_chunk_mut::<HEADER_BYTES>()
            && let Some(mended) = mended_header(header)
        {
            salvage.note(format!(
                "{}: offset 0: the header {} was read as {}",
                path.display(),
                Shown(&header[..]),
                Shown(mended)
            ));
            *header = *mended;
        }
        self
    }

    fn whole(self) -> impl Read {
        Cursor::new(self.first).chain(self.rest)
    }
}

const HEADER_BYTES: usize = 9;

/// The header that a damaged one was, probably. None: it is sound, or nothing like one.
fn mended_header(found: &[u8; HEADER_BYTES]) -> Option<&'static [u8; HEADER_BYTES]> {
    const NEWEST: u32 = 13;
    let version = |digits: &[u8]| {
        let text = std::str::from_utf8(digits).ok()?;
        text.parse::<u32>().ok()
    };
    let alike = |magic: &[u8]| found.iter().zip(magic).filter(|(a, b)| a == b).count();
    let is_sound = match found.first_chunk::<5>() {
        Some(b"REDIS") => {
            version(&found[5..]).is_some_and(|version| (1..=NEWEST).contains(&version))
        }
        _ => found == b"VALKEY080",
    };
    match (alike(b"VALKEY080"), alike(b"REDIS0012")) {
        _ if is_sound => None,
        (7.., _) => Some(b"VALKEY080"),
        (_, 5..) => Some(b"REDIS0012"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_mended_where_enough_is_left() {
        let rows: [(&[u8; 9], Option<&[u8; 9]>); 8] = [
            (b"REDIS0011", None),
            (b"VALKEY080", None),
            (b"REDIS9911", Some(b"REDIS0012")),
            (b"rEDIS0009", Some(b"REDIS0012")),
            (b"RE\0IS000\0", Some(b"REDIS0012")),
            (b"VALK\0Y080", Some(b"VALKEY080")),
            (b"no dump a", None),
            (b"\0\0\0\0\0\0\0\0\0", None),
        ];
        for (found, want) in rows {
            assert_eq!(mended_header(found), want, "{}", Shown(found));
        }
    }
}
