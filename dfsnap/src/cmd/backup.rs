//! `dfsnap backup`: what a live server holds, into a file or a set that appears whole or not at all.
//!
//! A full resync gives the server's state at one offset of its stream. Its bytes are checked as they arrive, down to the
//! last element of the last value; a link that is cut begins again, and nothing is left of what came before.

pub mod attempt;
mod check;
mod copy;
mod keep;
pub mod scan;

use crate::filter::{Filter, FilterArgs};
use crate::live::cluster::Nodes;
use crate::live::snapshot::After;
use crate::live::{self, Client, Snapshot, Url, server, url::Secrets};
use crate::report::{self, Failure, Outcome};
use crate::sink::{Output, Sink, SinkOptions};
use crate::source::progress::Progress;
use crate::source::{Key, Record};
use attempt::Attempt;
use check::{Check, Counts};
use clap::{Args, ValueEnum};
use dfsnap_formats::rdb::parts::PartWalk;
use dfsnap_formats::rdb::reader::{Options, RdbReader, Record as RdbRecord};
use dfsnap_formats::rdb::target::Target;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Back up a live server: all its data at one moment, checked while it is written
///
/// Follows the server as a replica would, so the server needs no configuration, and its data are those of one offset of
/// its replication stream, which is noted in the backup. Every value is checked down to its last element. The backup
/// appears under its name when it is complete and on the disk, and not before; a link that is cut begins again.
///
/// Memory does not grow with the data as RDB; as DFS or with a filter it holds the largest value, with --scan 16 bytes a key.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BackupArgs {
    /// Server: redis://[USER:PASSWORD@]HOST[:PORT], unix:PATH, or redis+cluster://HOST[:PORT] for all nodes of a cluster
    #[arg(value_name = "URL")]
    pub url: String,
    /// File to write; the base name of a set with --format dfs; a folder with --every or --keep
    #[arg(value_name = "DEST")]
    pub dest: PathBuf,
    /// What to write
    #[arg(long, value_enum, default_value_t = Form::Rdb)]
    pub format: Form,
    /// Shards of a DFS set
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub shards: u16,
    /// Read key by key (SCAN, DUMP, PTTL) where replication is not allowed; this is no point in time
    #[arg(long)]
    pub scan: bool,
    /// Back up again and again, as in 30s, 15m, 6h, 1d, until a signal comes
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub every: Option<Duration>,
    /// Keep so many backups in the folder and remove older ones, after each success
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: Option<u32>,
    /// Write what is left of what a DFS set cannot hold, as functions
    #[arg(long)]
    pub allow_loss: bool,
    /// Begin so often before giving up, when the link is cut
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub attempts: u32,
    /// File whose first line is the password; otherwise DFSNAP_PASSWORD
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// One file, which Redis, Valkey, KeyDB and Dragonfly load
    Rdb,
    /// Dragonfly's set of files, with a manifest of checksums
    Dfs,
}

const EXAMPLES: &str = "\
Examples:
  One backup, the password from the environment:
    DFSNAP_PASSWORD=… dfsnap backup redis://db:6379 /backup/db.rdb
  Every six hours, the last 28 of them kept:
    dfsnap backup redis://db /backup/db --every 6h --keep 28
  From a service that allows no replication:
    dfsnap backup redis://cache.example --scan cache.rdb";

#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    format: Form,
    server: String,
    bytes: u64,
    #[serde(flatten)]
    counts: Counts,
    /// False: read key by key.
    is_point_in_time: bool,
    replication: Option<Place>,
    attempts: u32,
    seconds: f64,
    /// Older backups that went.
    removed: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Place {
    id: String,
    offset: u64,
}

pub fn run(args: &BackupArgs) -> Result<Outcome, Failure> {
    let url = Url::open(&args.url, Secrets::new(args.password_file.as_deref()))?;
    if url.db.is_some() && !args.scan {
        return Err(Failure {
            message: "the address names a database, but replication is of all of them".to_owned(),
            advice: "an address without /DB; or --scan, which reads one database".to_owned(),
        });
    }
    if url.is_cluster && args.scan {
        return Err(Failure {
            message: "--scan reads one server, and the address stands for a cluster".to_owned(),
            advice: "redis:// and --scan for each node".to_owned(),
        });
    }
    match args.every {
        Some(every) => run_every(args, &url, every),
        None => run_once(args, &url),
    }
}

fn run_once(args: &BackupArgs, url: &Url) -> Result<Outcome, Failure> {
    let report = one(args, url)?;
    let text = match args.json {
        true => report::json(&report),
        false => report.text(),
    };
    Ok(Outcome {
        text,
        finding: false,
    })
}

/// A failure is told at once and the next backup made all the same, until a signal ends the process.
fn run_every(args: &BackupArgs, url: &Url, every: Duration) -> Result<Outcome, Failure> {
    let began = Instant::now();
    let mut round = 0u32;
    loop {
        match run_once(args, url) {
            Ok(outcome) => {
                let mut out = std::io::stdout().lock();
                let printed = out
                    .write_all(outcome.text.as_bytes())
                    .and_then(|()| out.flush());
                printed.map_err(|error| Failure::output(&error))?;
            }
            Err(failure) => {
                eprintln!("error: {}", failure.message);
                eprintln!("try: {}", failure.advice);
            }
        }
        // Backups that take longer than the interval skip what they missed.
        while began.elapsed() >= every.saturating_mul(round) {
            round += 1;
        }
        std::thread::sleep(every.saturating_mul(round).saturating_sub(began.elapsed()));
    }
}

/// One backup and, when it is there, the removal of older ones.
fn one(args: &BackupArgs, url: &Url) -> Result<Report, Failure> {
    let in_folder = args.every.is_some() || args.keep.is_some();
    let path = match in_folder {
        false => args.dest.clone(),
        true => {
            std::fs::create_dir_all(&args.dest)
                .map_err(|error| Failure::write(&args.dest, &error))?;
            keep::path_at(
                &args.dest,
                report::now_ms() / 1000,
                args.format == Form::Dfs,
            )
        }
    };
    let began = Instant::now();
    let mut report = match (args.scan, url.is_cluster) {
        (true, _) => by_scan(args, url, &path)?,
        (false, true) => by_nodes(args, url, &path)?,
        (false, false) => by_attempts(args, url, &path)?,
    };
    report.seconds = began.elapsed().as_secs_f64();
    if let Some(count) = args.keep {
        report.removed = keep::trim(&args.dest, count as usize)?;
    }
    Ok(report)
}

fn by_attempts(args: &BackupArgs, url: &Url, path: &Path) -> Result<Report, Failure> {
    let (report, attempts) = attempt::until(url, args.attempts, || by_resync(args, url, path))?;
    Ok(Report { attempts, ..report })
}

/// All nodes of a cluster in one dump, each as it is at its own moment.
fn by_nodes(args: &BackupArgs, url: &Url, path: &Path) -> Result<Report, Failure> {
    eprintln!("note: each node of a cluster is saved at its own moment");
    let (report, attempts) = attempt::until(url, args.attempts, || {
        let nodes = Nodes::of(url).map_err(Attempt::Failed)?;
        let mut sink = begin(args, path, newest(args.format)).map_err(Attempt::Failed)?;
        let mut taking = Taking::new(args);
        for node in &nodes.urls {
            let begun = live::snapshot::begin(node, After::End);
            let snapshot = begun.map_err(|error| Attempt::of_feed(node, error))?;
            taking.all(node, path, snapshot, &mut sink)?;
        }
        let (written, _) = sink.finish().map_err(Attempt::Failed)?;
        Ok(Report {
            file: path.to_owned(),
            format: args.format,
            server: format!("cluster of {url}, {} nodes", nodes.urls.len()),
            bytes: written.bytes,
            counts: taking.check.counts,
            is_point_in_time: false,
            replication: None,
            attempts: 1,
            seconds: 0.0,
            removed: Vec::new(),
        })
    })?;
    Ok(Report { attempts, ..report })
}

fn by_resync(args: &BackupArgs, url: &Url, path: &Path) -> Result<Report, Attempt> {
    let mut snapshot =
        live::snapshot::begin(url, After::End).map_err(|error| Attempt::of_feed(url, error))?;
    let origin = snapshot.facts().origin;
    let is_copied = args.format == Form::Rdb && Filter::new(&args.filter, 0).is_open();
    let (counts, bytes) = match is_copied {
        true => attempt::to_file(url, &mut snapshot, path)?,
        false => by_records(args, url, snapshot, path)?,
    };
    Ok(Report {
        file: path.to_owned(),
        format: args.format,
        server: url.to_string(),
        bytes,
        counts,
        is_point_in_time: true,
        replication: origin.map(|(replid, offset)| Place {
            id: replid.to_string(),
            offset,
        }),
        attempts: 1,
        seconds: 0.0,
        removed: Vec::new(),
    })
}

/// Key by key: into a set, or what passes a filter.
fn by_records(
    args: &BackupArgs,
    url: &Url,
    snapshot: Snapshot,
    path: &Path,
) -> Result<(Counts, u64), Attempt> {
    let mut sink = begin(args, path, newest(args.format)).map_err(Attempt::Failed)?;
    let mut taking = Taking::new(args);
    if let (Some((replid, offset)), true) = (snapshot.facts().origin, taking.filter.is_open()) {
        let offset = offset.to_string();
        let place = [
            (&b"repl-id"[..], &replid.as_bytes()[..]),
            (b"repl-offset", offset.as_bytes()),
        ];
        for (name, value) in place {
            let told = sink.record(Record::Aux { name, value });
            told.map_err(Attempt::Failed)?;
        }
    }
    taking.all(url, path, snapshot, &mut sink)?;
    let (written, _) = sink.finish().map_err(Attempt::Failed)?;
    Ok((taking.check.counts, written.bytes))
}

/// Loaded by old servers as well, as far as the data allow.
fn newest(form: Form) -> Target {
    match form {
        Form::Rdb => Target::by_name("redis-7.4").unwrap_or_default(),
        Form::Dfs => Target::DRAGONFLY,
    }
}

/// Records of one server or several on their way into a dump.
struct Taking {
    check: Check,
    filter: Filter,
    walk: PartWalk,
    /// Servers that are done with.
    servers: usize,
    /// Libraries, which every node of a cluster has.
    functions: BTreeSet<Vec<u8>>,
}

impl Taking {
    fn new(args: &BackupArgs) -> Self {
        Taking {
            check: Check::default(),
            filter: Filter::new(&args.filter, report::now_ms()),
            walk: PartWalk::default(),
            servers: 0,
            functions: BTreeSet::new(),
        }
    }

    /// Everything that a server sends. What all of a cluster's nodes say is taken from the first.
    fn all(
        &mut self,
        url: &Url,
        path: &Path,
        snapshot: Snapshot,
        sink: &mut Sink,
    ) -> Result<(), Attempt> {
        let progress = Progress::new(snapshot.facts().bytes, false);
        let mut reader = RdbReader::new(progress.watch(Box::new(snapshot)), Options::default());
        let name = url.to_string();
        let failed = |error| Attempt::of_read(url, path, error);
        let is_first = self.servers == 0;
        loop {
            let taken = match reader.next().map_err(failed)? {
                None => break,
                Some(RdbRecord::Key(key)) if !self.filter.passes_record(&key) => Ok(()),
                Some(RdbRecord::Key(key)) => {
                    self.check.key(&key).map_err(failed)?;
                    let key = Key::stored(Path::new(&name), &key, &mut self.walk);
                    sink.record(Record::Key(key))
                }
                Some(RdbRecord::Function { code }) if !self.functions.insert(code.to_vec()) => {
                    Ok(())
                }
                Some(RdbRecord::Aux { .. } | RdbRecord::ModuleAux { .. }) if !is_first => Ok(()),
                // Whoever loads a part of the data must not go on from its place as if it had all.
                Some(RdbRecord::Aux { name, .. })
                    if !self.filter.is_open() && name.starts_with(b"repl-") =>
                {
                    Ok(())
                }
                Some(record) => {
                    self.check.record(&record);
                    match &record {
                        RdbRecord::Aux { name, value } => sink.record(Record::Aux { name, value }),
                        RdbRecord::Function { code } => sink.record(Record::Function(code)),
                        RdbRecord::ModuleAux { module, when, raw } => {
                            sink.record(Record::ModuleAux {
                                module: *module,
                                when: *when,
                                raw,
                            })
                        }
                        _ => Ok(()),
                    }
                }
            };
            taken.map_err(Attempt::Failed)?;
        }
        self.servers += 1;
        Ok(())
    }
}

/// Begins what is written key by key.
fn begin(args: &BackupArgs, path: &Path, target: Target) -> Result<Sink, Failure> {
    let options = SinkOptions {
        output: match args.format {
            Form::Rdb => Output::Rdb,
            Form::Dfs => Output::Dfs,
        },
        target,
        compression: None,
        allow_loss: args.allow_loss,
        shards: args.shards,
        use_restore: false,
        check: false,
        encodings: false,
    };
    Sink::create(path, &options)
}

fn by_scan(args: &BackupArgs, url: &Url, path: &Path) -> Result<Report, Failure> {
    eprintln!("note: --scan reads key by key: the backup is no point in time");
    let mut client = Client::connect(url)?;
    let server = server::ask(&mut client)?;
    let mut sink = begin(args, path, server.target)?;
    let seconds = (report::now_ms() / 1000).to_string();
    sink.record(Record::Aux {
        name: b"ctime",
        value: seconds.as_bytes(),
    })?;
    let mut check = Check::default();
    let filter = Filter::new(&args.filter, report::now_ms());
    scan::scan(client, url, &mut |record| {
        match &record {
            Record::Function(_) => check.counts.functions += 1,
            Record::Key(key) => {
                if let Some(record) = key.record() {
                    if !filter.passes_record(record) {
                        return Ok(());
                    }
                    check.key(record).map_err(|error| Failure {
                        message: format!("{url}: what DUMP gave: {error}"),
                        advice: "the server holds damaged data: look at the key with redis-cli"
                            .to_owned(),
                    })?;
                }
            }
            _ => {}
        }
        sink.record(record)
    })?;
    let (written, _) = sink.finish()?;
    Ok(Report {
        file: path.to_owned(),
        format: args.format,
        server: url.to_string(),
        bytes: written.bytes,
        counts: check.counts,
        is_point_in_time: false,
        replication: None,
        attempts: 1,
        seconds: 0.0,
        removed: Vec::new(),
    })
}

impl Report {
    fn text(&self) -> String {
        let mut out = format!("{}\n", self.file.display());
        let mut line = |name: &str, value: String| out.push_str(&format!("  {name:<10} {value}\n"));
        let counts = &self.counts;
        line("server", self.server.clone());
        line("size", report::bytes(self.bytes));
        let databases = counts.databases.values().filter(|db| db.keys > 0).count();
        line(
            "keys",
            format!(
                "{}, {} with expiry, in {databases} databases",
                counts.keys, counts.expires
            ),
        );
        if counts.functions > 0 {
            line("functions", format!("{} libraries", counts.functions));
        }
        line("checked", "every record and every element".to_owned());
        match (&self.replication, self.is_point_in_time) {
            (Some(place), _) => line("position", format!("{}:{}", place.id, place.offset)),
            (None, true) => line("position", "not told by the server".to_owned()),
            (None, false) => line(
                "position",
                "none: the backup is no point in time".to_owned(),
            ),
        }
        if self.attempts > 1 {
            line("attempts", self.attempts.to_string());
        }
        line("took", format!("{:.1} s", self.seconds));
        for warning in &counts.warnings {
            line("warning", warning.clone());
        }
        for name in &self.removed {
            line("removed", name.clone());
        }
        out
    }
}

/// `90s`, `15m`, `6h`, `1d`
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?}: wanted a number and s, m, h or d, as in 6h");
    let split = text.len().saturating_sub(1);
    if !text.is_char_boundary(split) {
        return Err(wrong());
    }
    let (number, unit) = text.split_at(split);
    let unit_s: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(unit_s).filter(|seconds| *seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}
