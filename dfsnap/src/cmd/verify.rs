//! `dfsnap verify`: is a dump sound, down to the last element?
//!
//! `check` finds, this prints. Findings make exit code 1, warnings do not.

use crate::check::keys::Keys;
use crate::check::rdb::File;
use crate::check::{self, Report};
use crate::filter::{Filter, FilterArgs};
use crate::report::{self, Failure, Outcome};
use crate::source::layout::Layout;
use clap::Args;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// Check a dump completely: structure, checksums, every element of every value, duplicates, missing files
///
/// Reads RDB files, DFS sets (any file of one, or its base name), append-only files and their directories, JSON and
/// NDJSON. Finds more than a server does when it loads the dump. Takes about 12 bytes of memory a key, and 8 for each
/// member of the largest collection.
///
/// With filters only keys that pass are looked into, compared with each other and counted. The structure, all checksums and what files say
/// about each other are always checked whole, and so are the commands of append-only files.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// Dump; `-` is standard input
    pub path: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// How many findings of each kind and how many warnings to show; all are counted
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    #[command(flatten)]
    pub filter: FilterArgs,
}

const EXAMPLES: &str = "\
Exit code: 0 sound, 1 something was found, 2 the check could not run.

Examples:
  Before trusting a backup:
    dfsnap verify backup.rdb && echo sound
  A set of Dragonfly's, by its name: every file, and whether they belong together:
    dfsnap verify /backups/dump-2026-11-26
  The append-only files of a server:
    dfsnap verify /var/lib/redis/appendonlydir
  As it is being written elsewhere:
    ssh db cat /var/lib/redis/dump.rdb | dfsnap verify -
  Are the keys of one tenant sound?
    dfsnap verify dump.rdb --match 'acme:*'
  Which keys are damaged, for a program:
    dfsnap verify --json --limit 1000000 dump.rdb | jq -r '.findings[].key'";

pub fn run(args: &VerifyArgs) -> Result<Outcome, Failure> {
    let mut report = Report::new(&args.path, args.limit);
    let now_ms = report::now_ms();
    let mut keys = Keys::new(now_ms, Filter::new(&args.filter, now_ms));
    match Layout::of(&args.path)? {
        Layout::Set { folder, base } => {
            report.format = "dfs";
            check::dfs::check(&folder, &base, &mut keys, &mut report)?;
        }
        Layout::Directory { folder, manifest } => {
            report.format = "aof";
            check::aof::directory(&folder, &manifest, &mut keys, &mut report)?;
        }
        Layout::Stream(path) => stream(&path, &mut keys, &mut report)?,
    }
    report.sound = report.finding_count == 0;
    let finding = !report.sound;
    let text = match args.json {
        true => report::json(&report),
        false => text(&report),
    };
    Ok(Outcome { text, finding })
}

/// A file whose first bytes say what it is.
fn stream(path: &Path, keys: &mut Keys, report: &mut Report) -> Result<(), Failure> {
    const FIRST_BYTES: u64 = 64;
    let mut source = report::open(path)?;
    let mut first = Vec::new();
    let read = (&mut source).take(FIRST_BYTES).read_to_end(&mut first);
    read.map_err(|error| check::unreadable(path, &error))?;
    let name = path.display().to_string();
    let meta = std::fs::metadata(path).ok().filter(|meta| meta.is_file());
    let file = File {
        path,
        name: &name,
        bytes: meta.map(|meta| meta.len()),
    };
    report.files = 1;
    let kind = first.trim_ascii_start().first().copied();
    // A server that has just begun its log leaves it empty, and the first byte may be the damage.
    let is_dump = first.starts_with(b"REDIS") || first.starts_with(b"VALKEY");
    let is_log = !is_dump && path.extension().is_some_and(|end| end == "aof");
    let source = Cursor::new(first).chain(source);
    match kind {
        _ if is_log => log(&file, source, report),
        Some(b'*' | b'#') => log(&file, source, report),
        Some(b'{' | b'[') => {
            report.format = "json";
            check::text::check(&file, source, keys, report)
        }
        _ => {
            report.format = "rdb";
            check::rdb::check(&file, source, keys, report)
        }
    }
}

fn log(file: &File<'_>, source: impl Read, report: &mut Report) -> Result<(), Failure> {
    report.format = "aof";
    let clock = &mut check::aof::Clock::default();
    check::aof::commands(file, 0, true, source, clock, report)
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for (word, list, count) in [
        ("damage", &report.findings, report.finding_count),
        ("warning", &report.warnings, report.warning_count),
    ] {
        for finding in list {
            out.push_str(&format!("{word}: {}: {}\n", finding.file, finding.message));
        }
        let hidden = count - list.len() as u64;
        if hidden > 0 {
            out.push_str(&format!("{word}: {hidden} more; --limit shows them\n"));
        }
    }
    for (name, count) in [
        (
            "empty collections, which servers skip",
            report.empty_collections,
        ),
        ("keys that have expired by now", report.expired),
    ] {
        if count > 0 {
            out.push_str(&format!("note: {count} {name}\n"));
        }
    }
    let verdict = match (report.sound, report.complete) {
        (true, _) => "sound",
        (false, true) => "damaged",
        (false, false) => "damaged, and not readable to its end",
    };
    let commands = match report.commands {
        0 => String::new(),
        count => format!(", {count} commands"),
    };
    out.push_str(&format!(
        "{}: {verdict}; {} keys{commands}, {} in {} {}, {} findings, {} warnings\n",
        report.path,
        report.keys,
        report::bytes(report.bytes),
        report.files,
        if report.files == 1 { "file" } else { "files" },
        report.finding_count,
        report.warning_count,
    ));
    out
}
