//! `dfsnap merge`: several dumps as one, by a stated rule for keys that several have.
//!
//! First pass: every key of every dump is noted, and the notes are brought together by key (`compare::pairs`). Which of
//! the keys that several have are left out becomes one bit a key. Second pass: the dumps are copied into one, without
//! those. Collections that are united wait in memory until the end.

mod union;

use super::output::OutputArgs;
use crate::compare::pairs::{Note, Pairs, Side};
use crate::compare::value::Elements;
use crate::edit::{Edit, EditArgs};
use crate::filter::{self, Filter, FilterArgs};
use crate::report::{self, Failure, Outcome};
use crate::sink::{Sink, Written};
use crate::source::{Key, Place, Record, Source, SourceOptions};
use clap::{Args, ValueEnum};
use dfsnap_formats::rdb::record::ModuleId;
use dfsnap_formats::value::Kind;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use union::Unions;

/// Merge dumps into one
///
/// A key that several dumps have with the same value and expiry is no conflict. For others --on-conflict says which one
/// counts, and --union which collections are united instead. The result appears whole or not at all.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct MergeArgs {
    /// Dumps of any format, each of which is read twice
    #[arg(value_name = "PATH", required = true, num_args = 1..=255, value_parser = Place::parse)]
    pub sources: Vec<Place>,
    /// Where the merged dump goes
    #[arg(short, long, value_name = "DST")]
    pub output: PathBuf,
    /// Which dump counts where several have a key with different contents
    #[arg(long, value_name = "RULE", default_value = "error")]
    pub on_conflict: OnConflict,
    /// Types of which all members are kept: set, hash, zset. Where dumps differ in a field or score, --on-conflict decides
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    pub union: Vec<Unite>,
    /// Memory for finding conflicts, of which more goes to disk, and for values that are united
    #[arg(long, value_name = "BYTES", default_value = "64mb", value_parser = filter::bytes)]
    pub memory: u64,
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
  The dumps of the masters of a cluster, which have no key in common:
    dfsnap merge node1.rdb node2.rdb node3.rdb -o all.rdb
  Yesterday's backup with what changed since:
    dfsnap merge yesterday.rdb today.rdb -o both.rdb --on-conflict last
  Two halves of the same sets and hashes:
    dfsnap merge a.rdb b.rdb -o c.rdb --union set,hash --on-conflict first";

/// Which dump counts
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnConflict {
    /// The first that has the key
    First,
    /// The last that has it
    Last,
    /// The one whose key lives longest; of those that live as long the last
    NewestExpiry,
    /// None: conflicts are listed, and nothing is written
    Error,
}

/// Collections that can be united
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Unite {
    Set,
    Hash,
    Zset,
}

impl Unite {
    fn kind(self) -> Kind {
        match self {
            Unite::Set => Kind::Set,
            Unite::Hash => Kind::Hash,
            Unite::Zset => Kind::ZSet,
        }
    }
}

/// What is done with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Leave,
    Unite,
}

/// A fate for each key of a dump, by its place in the dump; two bits each.
#[derive(Default)]
struct Fates {
    bits: Vec<u64>,
    count: u64,
}

impl Fates {
    fn push(&mut self) -> u64 {
        if self.count.is_multiple_of(32) {
            self.bits.push(0);
        }
        self.count += 1;
        self.count - 1
    }

    fn set(&mut self, at: u64, fate: Fate) {
        let bits = match fate {
            Fate::Keep => 0,
            Fate::Leave => 1,
            Fate::Unite => 2,
        };
        let word = &mut self.bits[(at / 32) as usize];
        *word = *word & !(3 << (at % 32 * 2)) | bits << (at % 32 * 2);
    }

    fn get(&self, at: u64) -> Fate {
        match self
            .bits
            .get((at / 32) as usize)
            .map(|word| word >> (at % 32 * 2) & 3)
        {
            Some(1) => Fate::Leave,
            Some(2) => Fate::Unite,
            _ => Fate::Keep,
        }
    }
}

#[derive(Default)]
struct Counts {
    /// Keys that several have, with the same contents, and with different ones.
    same: u64,
    conflicts: u64,
    united: u64,
    /// The first conflicts.
    named: Vec<String>,
}

/// What stands beside the keys, of all dumps.
#[derive(Default)]
struct Beside {
    /// Of the first dump alone.
    aux: Vec<(Vec<u8>, Vec<u8>)>,
    functions: BTreeMap<Vec<u8>, Vec<u8>>,
    modules: BTreeMap<(u64, u64), Vec<u8>>,
    module_order: Vec<(ModuleId, u64)>,
}

const NAMED_MAX: usize = 20;
/// Aux fields that say where one dump lies in a replication stream, which the merged one does not.
const AUX_LEFT_OUT: [&[u8]; 3] = [b"repl-id", b"repl-offset", b"repl-stream-db"];

pub fn run(args: &MergeArgs) -> Result<Outcome, Failure> {
    let once = |place: &&Place| !matches!(place, Place::Path(_));
    if let Some(place) = args.sources.iter().find(once) {
        return Err(Failure {
            message: format!("{place}: is read twice, and must not change in between"),
            advice: "save it to a file first".to_owned(),
        });
    }
    let options = SourceOptions {
        filter: Filter::new(&args.filter, report::now_ms()),
        edit: Edit::new(&args.edit, report::now_ms()),
        ..SourceOptions::default()
    };
    let mut pairs = Pairs::new(args.memory);
    let (mut fates, mut beside, mut counts) = (Vec::new(), Beside::default(), Counts::default());
    for (side, place) in (0..).zip(&args.sources) {
        let noted = note(args, place, &options, Side(side), &mut pairs, &mut beside)?;
        fates.push(noted);
    }
    pairs.join_all(&mut |same| {
        decide(args, same, &mut fates, &mut counts);
        Ok(())
    })?;
    if args.on_conflict == OnConflict::Error && counts.conflicts > 0 {
        return Err(conflicts(&counts));
    }
    let mut sink = Sink::create(&args.output, &args.form.options(&args.output))?;
    beside.write(&mut sink)?;
    let mut unions = Unions::new(args.memory, args.on_conflict);
    for (place, fates) in args.sources.iter().zip(&fates) {
        copy(place, &options, fates, &mut sink, &mut unions)?;
    }
    for entry in unions.into_entries() {
        let key = Key::data(Path::new("united"), &entry);
        sink.record(Record::Key(key))?;
    }
    let (written, _) = sink.finish()?;
    Ok(outcome(args, &written, &counts))
}

/// First pass over one dump.
fn note(
    args: &MergeArgs,
    place: &Place,
    options: &SourceOptions,
    side: Side,
    pairs: &mut Pairs,
    beside: &mut Beside,
) -> Result<Fates, Failure> {
    let mut elements = Elements::new(false);
    let mut fates = Fates::default();
    Source::open(place, options)?.for_each(&mut |record| {
        let key = match record {
            Record::Key(key) => key,
            other => return beside.note(args, place, side, other),
        };
        let head = key.head;
        elements.begin();
        key.parts(|part| {
            elements.take(&part);
            Ok(())
        })?;
        pairs.push(&Note {
            side,
            group: head.db,
            kind: head.kind as u8,
            expire_at_ms: head.attributes.expire_at_ms,
            digest: elements.digest(),
            name: head.key,
            shown: &fates.push().to_be_bytes(),
        })
    })?;
    Ok(fates)
}

/// The place of a key in its dump.
fn place_of(note: &Note<'_>) -> u64 {
    u64::from_be_bytes(note.shown.try_into().unwrap_or_default())
}

/// What happens to a key that one or several dumps have.
fn decide(args: &MergeArgs, same: &[Note<'_>], fates: &mut [Fates], counts: &mut Counts) {
    let [first, others @ ..] = same else { return };
    if others.is_empty() {
        return;
    }
    let mut set = |note: &Note<'_>, fate| fates[usize::from(note.side.0)].set(place_of(note), fate);
    let contents = |note: &Note<'_>| (note.kind, note.digest, note.expire_at_ms);
    if others
        .iter()
        .all(|other| contents(other) == contents(first))
    {
        counts.same += 1;
        others.iter().for_each(|other| set(other, Fate::Leave));
        return;
    }
    let is_united = |unite: &Unite| same.iter().all(|note| note.kind == unite.kind() as u8);
    if args.union.iter().any(is_united) {
        counts.united += 1;
        same.iter().for_each(|note| set(note, Fate::Unite));
        return;
    }
    counts.conflicts += 1;
    if counts.named.len() < NAMED_MAX {
        let names = same
            .iter()
            .map(|note| &args.sources[usize::from(note.side.0)]);
        let names: Vec<String> = names.map(ToString::to_string).collect();
        let key = report::key(first.name);
        counts.named.push(format!(
            "db {}, key {key}: {}",
            first.group,
            names.join(", ")
        ));
    }
    let lives = |note: &&Note<'_>| note.expire_at_ms.unwrap_or(i64::MAX);
    let kept = match args.on_conflict {
        OnConflict::First | OnConflict::Error => Some(first),
        OnConflict::Last => same.last(),
        // Of several that are as large, this gives the last.
        OnConflict::NewestExpiry => same.iter().max_by_key(lives),
    };
    for note in same {
        if kept.is_some_and(|kept| (kept.side, place_of(kept)) != (note.side, place_of(note))) {
            set(note, Fate::Leave);
        }
    }
}

fn conflicts(counts: &Counts) -> Failure {
    let mut message = format!(
        "{} keys have different contents in several dumps, and nothing says which count",
        counts.conflicts
    );
    for named in &counts.named {
        message.push_str(&format!("\n  {named}"));
    }
    let more = counts.conflicts - counts.named.len() as u64;
    if more > 0 {
        message.push_str(&format!("\n  and {more} more"));
    }
    Failure {
        message,
        advice: "--on-conflict first, last or newest-expiry; dfsnap diff shows how they differ"
            .to_owned(),
    }
}

/// Second pass over one dump.
fn copy(
    place: &Place,
    options: &SourceOptions,
    fates: &Fates,
    sink: &mut Sink,
    unions: &mut Unions,
) -> Result<(), Failure> {
    let mut at = 0;
    Source::open(place, options)?.for_each(&mut |record| {
        let Record::Key(key) = record else {
            return Ok(());
        };
        let fate = fates.get(at);
        at += 1;
        match fate {
            Fate::Keep => sink.record(Record::Key(key)),
            Fate::Leave => Ok(()),
            Fate::Unite => match key.entry()? {
                Some(entry) => unions.add(entry.into_owned()),
                None => Ok(()),
            },
        }
    })?;
    match at == fates.count {
        true => Ok(()),
        false => Err(Failure {
            message: format!("{place}: {at} keys, but {} a moment ago", fates.count),
            advice: "merge files that nobody writes to".to_owned(),
        }),
    }
}

impl Beside {
    fn note(
        &mut self,
        args: &MergeArgs,
        place: &Place,
        side: Side,
        record: Record<'_>,
    ) -> Result<(), Failure> {
        let conflict = |what: String| {
            Err(Failure {
                message: format!("{place}: {what} is another than in the dumps before"),
                advice: "--on-conflict first or last".to_owned(),
            })
        };
        let takes_last = matches!(
            args.on_conflict,
            OnConflict::Last | OnConflict::NewestExpiry
        );
        let refuses = args.on_conflict == OnConflict::Error;
        match record {
            Record::Aux { name, value } => {
                if side == Side(0) && !AUX_LEFT_OUT.contains(&name) {
                    self.aux.push((name.to_vec(), value.to_vec()));
                }
            }
            Record::Function(code) => {
                let name = super::diff::library(code);
                match self.functions.get(name) {
                    Some(known) if known == code => {}
                    Some(_) if refuses => {
                        return conflict(format!("library {}", report::key(name)));
                    }
                    Some(_) if !takes_last => {}
                    _ => drop(self.functions.insert(name.to_vec(), code.to_vec())),
                }
            }
            Record::ModuleAux { module, when, raw } => match self.modules.get(&(module.0, when)) {
                Some(known) if known == raw => {}
                Some(_) if refuses => {
                    return conflict(format!("data of module {}", module.name()));
                }
                Some(_) if !takes_last => {}
                known => {
                    if known.is_none() {
                        self.module_order.push((module, when));
                    }
                    self.modules.insert((module.0, when), raw.to_vec());
                }
            },
            Record::Key(_) | Record::Header(_) | Record::End(_) | Record::Behind(_) => {}
        }
        Ok(())
    }

    fn write(&self, sink: &mut Sink) -> Result<(), Failure> {
        for (name, value) in &self.aux {
            sink.record(Record::Aux { name, value })?;
        }
        for code in self.functions.values() {
            sink.record(Record::Function(code))?;
        }
        for (module, when) in &self.module_order {
            let raw = &self.modules[&(module.0, *when)];
            sink.record(Record::ModuleAux {
                module: *module,
                when: *when,
                raw,
            })?;
        }
        Ok(())
    }
}

fn outcome(args: &MergeArgs, written: &Written, counts: &Counts) -> Outcome {
    let text = match args.json {
        true => report::json(&serde_json::json!({
            "keys": written.keys,
            "bytes": written.bytes,
            "files": written.files,
            "same": counts.same,
            "conflicts": counts.conflicts,
            "united": counts.united,
            "conflicts_shown": counts.named,
        })),
        false => format!(
            "{} keys, {} written to {}; {} were in several dumps with the same contents, {} in conflict, {} united\n",
            written.keys,
            report::bytes(written.bytes),
            args.output.display(),
            counts.same,
            counts.conflicts,
            counts.united,
        ),
    };
    // What goes to standard output is the dump.
    match args.output.as_os_str() == "-" {
        true => {
            eprint!("{text}");
            Outcome {
                text: String::new(),
                finding: false,
            }
        }
        false => Outcome {
            text,
            finding: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_are_kept_by_place() {
        let mut fates = Fates::default();
        let places: Vec<u64> = (0..100).map(|_| fates.push()).collect();
        assert_eq!(places[99], 99);
        fates.set(31, Fate::Leave);
        fates.set(32, Fate::Unite);
        fates.set(33, Fate::Leave);
        fates.set(33, Fate::Unite);
        let found = [30, 31, 32, 33, 34, 99, 5000].map(|at| fates.get(at));
        use Fate::{Keep, Leave, Unite};
        assert_eq!(found, [Keep, Leave, Unite, Unite, Keep, Keep, Keep]);
    }
}
