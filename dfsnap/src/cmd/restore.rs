//! `dfsnap restore`: a dump into a live server, checkpointed, and looked at afterwards when asked.

use crate::cmd::input::ChangedArgs;
use crate::live::cluster::Nodes;
use crate::live::{Client, Url, server, stop, url::Secrets};
use crate::report::{self, Failure, Outcome};
use crate::restore::checkpoint::{Checkpoint, State};
use crate::restore::compare::{Comparison, compare};
use crate::restore::{self, Existing, Options, Tally, keys_of_all, look};
use crate::source::{Place, Source};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Restore a dump into a live server: checkpointed, resumable, checked afterwards with --verify
///
/// Keys travel by RESTORE in the version that the server understands, and by plain commands where it understands none;
/// large values travel in parts under a temporary name. Each key appears whole. The server must hold no keys unless one
/// of --replace, --flush and --skip-existing says what becomes of them.
///
/// A restore that is interrupted leaves a checkpoint beside SRC; the same command goes on from there.
///
/// Memory does not grow with the data, but for values that have to be converted and, with --verify, the largest value.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RestoreArgs {
    /// Server: redis://[USER:PASSWORD@]HOST[:PORT], unix:PATH, or redis+cluster://HOST[:PORT] for all nodes of a cluster
    #[arg(value_name = "URL", index = 2)]
    pub url: String,
    /// Replace keys that are there; others stay
    #[arg(long, conflicts_with_all = ["flush", "skip_existing"])]
    pub replace: bool,
    /// Remove everything from the server first (FLUSHALL)
    #[arg(long, conflicts_with = "skip_existing")]
    pub flush: bool,
    /// Leave keys alone that are there
    #[arg(long)]
    pub skip_existing: bool,
    /// Keys a second, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Connections that send side by side
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub connections: u16,
    /// Commands of each type instead of RESTORE
    #[arg(long)]
    pub commands: bool,
    /// Values of more stored bytes travel in parts, under a temporary name: 64kb, 16mb
    #[arg(long, value_name = "SIZE", default_value = "16mb", value_parser = crate::filter::bytes)]
    pub parts_over: u64,
    /// Restore what is left of what the server cannot hold
    #[arg(long)]
    pub allow_loss: bool,
    /// Tell what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Afterwards compare every value and expiry with what is on the server
    #[arg(long)]
    pub verify: bool,
    /// Note progress here instead of beside SRC
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// File whose first line is the password of the server; otherwise DFSNAP_PASSWORD
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub dump: ChangedArgs,
}

const EXAMPLES: &str = "\
Examples:
  Into an empty server, and look whether all of it is there:
    dfsnap restore backup.rdb redis://new:6379 --verify
  What would happen, without doing it:
    dfsnap restore backup.rdb redis://new:6379 --dry-run
  Bring back what was deleted by mistake, and touch nothing else:
    dfsnap restore backup.rdb redis://db --skip-existing --match 'user:*'
  While the server works for others:
    dfsnap restore backup.rdb redis://db --replace --rate 5000 --connections 1";

#[derive(Debug, Serialize)]
struct Report {
    source: String,
    server: String,
    product: String,
    dry_run: bool,
    /// Keys that an earlier run had restored.
    resumed_after: u64,
    #[serde(flatten)]
    tally: Tally,
    /// Of a dry run: keys of the source that are on the server.
    already_there: Option<u64>,
    verified: Option<Comparison>,
    seconds: f64,
    #[serde(skip)]
    is_refused: bool,
}

pub fn run(args: &RestoreArgs) -> Result<Outcome, Failure> {
    stop::listen();
    let url = Url::open(&args.url, Secrets::new(args.password_file.as_deref()))?;
    if url.db.is_some() {
        return Err(Failure {
            message: "the address names a database, but keys go into those of the dump".to_owned(),
            advice: "an address without /DB; --db restores one database".to_owned(),
        });
    }
    if args.verify && args.dump.input.source == Place::Stdin {
        return Err(Failure {
            message: "--verify reads SRC twice, and standard input can be read once".to_owned(),
            advice: "a file; or dfsnap diff afterwards".to_owned(),
        });
    }
    let report = match args.dry_run {
        true => rehearse(args, &url)?,
        false => carry_out(args, &url)?,
    };
    let differs = |found: &Comparison| found.equal != found.compared;
    let finding = report.is_refused || report.verified.as_ref().is_some_and(differs);
    let text = match args.json {
        true => report::json(&report),
        false => report.text(),
    };
    Ok(Outcome { text, finding })
}

fn options(args: &RestoreArgs) -> Options {
    Options {
        existing: match args.skip_existing {
            true => Existing::Skip,
            false => Existing::Replace,
        },
        allow_loss: args.allow_loss,
        use_commands: args.commands,
        parts_over: args.parts_over,
        connections: usize::from(args.connections),
        rate: args.rate,
    }
}

fn open_source(args: &RestoreArgs, now_ms: i64) -> Result<Source, Failure> {
    Source::open(&args.dump.input.source, &args.dump.options(now_ms))
}

fn rehearse(args: &RestoreArgs, url: &Url) -> Result<Report, Failure> {
    let began = Instant::now();
    let mut clients = Nodes::of(url)?.connect()?;
    let server = server::oldest(&mut clients)?;
    let keys = keys_of_all(&mut clients)?;
    let source = open_source(args, report::now_ms())?;
    let (tally, already_there) = look(source, url, &options(args))?;
    let says_what = args.replace || args.flush || args.skip_existing;
    Ok(Report {
        source: args.dump.input.source.to_string(),
        server: url.to_string(),
        product: server.product,
        dry_run: true,
        resumed_after: 0,
        is_refused: tally.data_losses > 0 && !args.allow_loss || keys > 0 && !says_what,
        tally,
        already_there: Some(already_there),
        verified: None,
        seconds: began.elapsed().as_secs_f64(),
    })
}

fn carry_out(args: &RestoreArgs, url: &Url) -> Result<Report, Failure> {
    let began = Instant::now();
    let nodes = Nodes::of(url)?;
    let mut clients = nodes.connect()?;
    let server = server::oldest(&mut clients)?;
    let path = args
        .checkpoint
        .clone()
        .or_else(|| beside(&args.dump.input.source));
    let new = State {
        source: identity_of(&args.dump.input.source),
        target: match nodes.is_cluster() {
            true => format!("cluster of {url}, {} nodes", nodes.urls.len()),
            false => format!("{url}, run {}", server.run_id),
        },
        options: format!(
            "replace {}, flush {}, skip existing {}, filter {:?}, changes {:?}",
            args.replace, args.flush, args.skip_existing, args.dump.filter, args.dump.edit
        ),
        began_at_ms: report::now_ms(),
        keys_done: 0,
    };
    let resumes = path.as_ref().is_some_and(|path| path.exists());
    let mut checkpoint = match &path {
        Some(path) => Some(Checkpoint::open(path, new.clone())?),
        None => None,
    };
    let state = checkpoint
        .as_ref()
        .map_or(&new, |checkpoint| &checkpoint.state);
    let (resumed_after, began_at_ms) = (state.keys_done, state.began_at_ms);
    if resumes {
        eprintln!("note: going on after {resumed_after} keys");
    } else {
        refuse_itself(&args.dump.input.source, &mut clients, url)?;
        make_room(args, &mut clients)?;
    }
    drop(clients);
    let source = open_source(args, began_at_ms)?;
    let tally = restore::run(source, url, &options(args), &mut checkpoint, &mut || {})?;
    if let Some(checkpoint) = checkpoint {
        checkpoint.remove()?;
    }
    let verified = match args.verify {
        true => Some(compare(open_source(args, began_at_ms)?, url)?),
        false => None,
    };
    Ok(Report {
        source: args.dump.input.source.to_string(),
        server: url.to_string(),
        product: server.product,
        dry_run: false,
        resumed_after,
        tally,
        already_there: None,
        verified,
        seconds: began.elapsed().as_secs_f64(),
        is_refused: false,
    })
}

/// A server into itself would be flushed, and then read.
fn refuse_itself(source: &Place, clients: &mut [Client], url: &Url) -> Result<(), Failure> {
    let Place::Url(source) = source else {
        return Ok(());
    };
    let source = Url::open(source, Secrets::new(None))?;
    for from in &mut Nodes::of(&source)?.connect()? {
        let from = server::ask(from)?;
        for to in &mut *clients {
            server::refuse_same(&from, &server::ask(to)?, url)?;
        }
    }
    Ok(())
}

/// Before the first key: whoever said nothing about keys that are there must not lose one.
fn make_room(args: &RestoreArgs, clients: &mut [Client]) -> Result<(), Failure> {
    if args.flush {
        for client in clients {
            client.ask(&["FLUSHALL"], "a user with +flushall")?;
        }
        return Ok(());
    }
    let keys = keys_of_all(clients)?;
    if keys > 0 && !args.replace && !args.skip_existing {
        return Err(Failure {
            message: format!("{} holds {keys} keys", clients[0].name()),
            advice: "--replace, --skip-existing or --flush says what becomes of them; --dry-run tells which the dump has too".to_owned(),
        });
    }
    Ok(())
}

fn beside(source: &Place) -> Option<PathBuf> {
    let Place::Path(path) = source else {
        return None;
    };
    let mut name = path.file_name()?.to_owned();
    name.push(".restoring");
    Some(path.with_file_name(name))
}

/// Another file, or the same one changed, is another dump.
fn identity_of(source: &Place) -> String {
    let changed = |path: &Path| {
        let meta = path.metadata().ok()?;
        let modified = meta.modified().ok()?;
        let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(format!(
            ", {} bytes, changed at {} ms",
            meta.len(),
            since.as_millis()
        ))
    };
    match source {
        Place::Path(path) => format!("{}{}", path.display(), changed(path).unwrap_or_default()),
        other => other.to_string(),
    }
}

impl Report {
    fn text(&self) -> String {
        let mut out = format!("{} -> {} ({})\n", self.source, self.server, self.product);
        let mut line = |name: &str, value: String| out.push_str(&format!("  {name:<10} {value}\n"));
        let tally = &self.tally;
        if self.dry_run {
            line("dry run", "nothing was changed".to_owned());
        }
        let would = if self.dry_run {
            "to restore"
        } else {
            "restored"
        };
        line(would, format!("{} keys", tally.restored));
        let rows = [
            (
                "converted",
                tally.converted,
                "keys, which the server stores in another way",
            ),
            ("in parts", tally.in_parts, "large keys"),
            ("skipped", tally.skipped, "keys that were there"),
            ("expired", tally.expired, "keys that are past their expiry"),
            ("functions", tally.functions, "libraries"),
            (
                "resumed",
                self.resumed_after,
                "keys of an earlier run before these",
            ),
            (
                "there",
                self.already_there.unwrap_or(0),
                "keys of the dump are on the server",
            ),
        ];
        for (name, count, what) in rows.into_iter().filter(|row| row.1 > 0) {
            line(name, format!("{count} {what}"));
        }
        for (what, count) in &tally.losses {
            line("lost", format!("{count} times {what}"));
        }
        if self.is_refused {
            line(
                "refused",
                "a restore with these options would be".to_owned(),
            );
        }
        if let Some(found) = &self.verified {
            line(
                "verified",
                format!("{} of {} keys are equal", found.equal, found.compared),
            );
            line("digests", format!("{} of the dump", found.digest_of_source));
            line("", format!("{} of the server", found.digest_of_target));
            for differing in &found.differing {
                line("differs", differing.clone());
            }
        }
        line("took", format!("{:.1} s", self.seconds));
        out
    }
}
