//! `dfsnap migrate`: one live server into another, a full copy and then every change, until it is told to switch.
//!
//! ```text
//! full resync -> copy.rdb, checked -> restore, checkpointed -> stream: MULTI, changes, position, EXEC
//! ```
//! Invariants
//! - The position is written to the target in the same transaction as the changes before it: a change is applied once,
//!   whatever is lost on the way.
//! - A transaction of the source is within one transaction of the target.
//! - No key goes at the target by its own clock while changes follow: expiries are held (`hold`), and released at the end.

mod apply;
mod hold;
mod names;

use crate::cmd::backup::attempt::{self, Attempt};
use crate::cmd::follow::position;
use crate::edit::{Edit, EditArgs};
use crate::filter::{Filter, FilterArgs};
use crate::live::client::info_field;
use crate::live::following::Following;
use crate::live::snapshot::{self, After};
use crate::live::{Client, Url, cluster, server, stop, url::Secrets};
use crate::out::OutFile;
use crate::passage::{self, Passage};
use crate::report::{self, Failure, Outcome};
use crate::restore::checkpoint::{Checkpoint, State};
use crate::restore::{self, Existing, Options, Tally, keys_of};
use crate::source::{Place, Source, SourceOptions};
use apply::{Applied, Applier, Ways};
use clap::Args;
use dfsnap_formats::rdb::reader::{self, RdbReader, Record};
use dfsnap_formats::resp::Frame;
use dfsnap_replica::{Position, ReplId};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// Migrate one live server into another: full copy, then every change, until told to switch
///
/// The copy is a full resync into a file, checked, and a restore that goes on where it was interrupted. Then changes are
/// applied as they come, each transaction whole and once, also when a link is lost or this command is started again.
/// Ctrl-C ends it behind a transaction and prints the position; the key dfsnap:position on the target remembers it.
///
/// With filters TO gets the keys that pass, and of the changes those of such keys, under the names and in the databases of --rename
/// and --to-db. A change that cannot be cut to them (RENAME of a key that does not pass to one that does, a script that is sent as a
/// script) ends the migration behind what came before, and says so.
///
/// While it follows, no key expires at TO by itself: TTL there tells some 35,000 years, and FROM says when a key goes. Keys get their
/// expiries back at the end.
///
/// To switch: stop the writers, press Ctrl-C, run it again with --until-caught-up, and let the clients use TO. Where FROM is gone for good, --finish makes
/// what TO has ready for use.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct MigrateArgs {
    /// Server to copy from: redis://[USER:PASSWORD@]HOST[:PORT] or unix:PATH
    #[arg(value_name = "FROM")]
    pub source: String,
    /// Server to copy to, which must hold no keys
    #[arg(value_name = "TO")]
    pub target: String,
    /// Remove everything from the target first (FLUSHALL)
    #[arg(long)]
    pub flush: bool,
    /// End for good when the target has everything that was written so far: keys get their expiries back, and the key
    /// dfsnap:position goes
    #[arg(long)]
    pub until_caught_up: bool,
    /// End for good with what the target has, without a look at FROM
    #[arg(long, conflicts_with_all = ["flush", "until_caught_up", "from"])]
    pub finish: bool,
    /// No copy: apply changes from this position on
    #[arg(long, value_name = "ID:OFFSET[:DB]", value_parser = position)]
    pub from: Option<Position>,
    /// Folder for the copy, its checkpoint, and the position that was reached
    #[arg(long, value_name = "DIR", default_value = "dfsnap-migration")]
    pub state: PathBuf,
    /// Connections that copy side by side
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub connections: u16,
    /// Copy what is left of what the target cannot hold
    #[arg(long)]
    pub allow_loss: bool,
    /// Connect so often in a row before giving up
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub attempts: u32,
    /// File whose first line is the password of FROM; otherwise DFSNAP_PASSWORD
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// File whose first line is the password of TO; otherwise DFSNAP_TARGET_PASSWORD
    #[arg(long, value_name = "FILE")]
    pub target_password_file: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub edit: EditArgs,
}

const EXAMPLES: &str = "\
Examples:
  Follow the old server until Ctrl-C:
    dfsnap migrate redis://old:6379 redis://new:6379
  Copy, catch up, and end:
    dfsnap migrate redis://old redis://new --until-caught-up
  Go on after an interruption: the same command in the same folder
    dfsnap migrate redis://old redis://new
  FROM is gone for good: let clients use what TO has
    dfsnap migrate redis://old redis://new --finish
  The keys of one tenant into a server of its own, without their prefix:
    dfsnap migrate redis://old redis://new --match 'acme:*' --rename '^acme:=>'";

#[derive(Debug, Serialize)]
struct Report {
    source: String,
    target: String,
    /// None: it went on from a position.
    copied: Option<Tally>,
    #[serde(flatten)]
    applied: Applied,
    position: Option<String>,
    /// Everything that the source had written when it ended.
    is_caught_up: bool,
    /// Keys that got their expiries back; None: the target is not ready for use.
    released: Option<u64>,
    seconds: f64,
}

pub fn run(args: &MigrateArgs) -> Result<Outcome, Failure> {
    stop::listen();
    let began = Instant::now();
    passage::check(&args.filter)?;
    if args.edit.set_ttl.is_some() {
        return Err(Failure {
            message: "--set-ttl: FROM sends the end of an expiry as a deletion, which TO would follow".to_owned(),
            advice: "dfsnap restore FROM TO --set-ttl copies without following; or set expiries on TO after the switch".to_owned(),
        });
    }
    let mut passage = Passage::new(&args.filter, &args.edit);
    let source = Url::open(&args.source, Secrets::new(args.password_file.as_deref()))?;
    let secrets = Secrets {
        file: args.target_password_file.as_deref(),
        variable: "DFSNAP_TARGET_PASSWORD",
    };
    let target = Url::open(&args.target, secrets)?;
    cluster::refuse(&source)?;
    cluster::refuse(&target)?;
    if args.finish {
        return finish(args, &source, &target, began);
    }
    if source.db.or(target.db).is_some() {
        return Err(Failure {
            message: "an address names a database, but all of them are migrated".to_owned(),
            advice: "addresses without /DB".to_owned(),
        });
    }
    // Addresses that lead nowhere are no links that were lost.
    let mut from = Client::connect(&source)?;
    let nodes = cluster::primaries(&mut from)?;
    if nodes > 1 {
        eprintln!(
            "note: {source} is one of {nodes} nodes of a cluster: what the others have is not migrated"
        );
    }
    let mut client = Client::connect(&target)?;
    cluster::refuse_part(&mut client)?;
    let to = server::ask(&mut client)?;
    server::refuse_same(&server::ask(&mut from)?, &to, &target)?;
    drop(from);
    let ways = Ways {
        until_caught_up: args.until_caught_up,
        holds: hold::is_understood(&to.product),
    };
    if !ways.holds {
        eprintln!(
            "note: {target} takes no expiry that is far off: keys expire there by its own clock, also where FROM gives them more time meanwhile"
        );
    }
    let (mut following, start, copied) =
        match args.from.or(apply::remembered(&mut client, &passage)?) {
            Some(position) => {
                eprintln!("note: going on at {position}");
                let following = Following::new(&source, Some(position), args.attempts);
                (following, position, None)
            }
            None => {
                let (following, position, tally) =
                    copy(args, (&source, &target), &passage, ways, &mut client)?;
                (following, position, Some(tally))
            }
        };
    drop(client);
    if passage.names.is_some() {
        names::note(&source, &mut passage, &mut || following.beat())?;
    }
    let mut applier = Applier::new((&source, &target), following, start, passage, ways);
    let mut notes = Notes::start(&args.state);
    let ended = applier.run(&mut |position| notes.take(position));
    notes.end()?;
    let position = applier.position();
    note_position(&args.state, position)?;
    let is_caught_up = ended?;
    // What is left in the folder is of use for --from only.
    let released = match is_caught_up && args.until_caught_up && !stop::requested() {
        true => Some(applier.finish()?),
        false => None,
    };
    let report = Report {
        source: source.to_string(),
        target: target.to_string(),
        copied,
        applied: applier.applied().clone(),
        position: Some(position.to_string()),
        is_caught_up,
        released,
        seconds: began.elapsed().as_secs_f64(),
    };
    Ok(report.outcome(args.json))
}

/// Makes what the target has ready for use, whatever has become of the source.
fn finish(
    args: &MigrateArgs,
    source: &Url,
    target: &Url,
    began: Instant,
) -> Result<Outcome, Failure> {
    let mut client = Client::connect(target)?;
    let has_position = apply::remembers(&mut client)?;
    let checkpoint = args.state.join("copy.rdb.restoring");
    if !has_position && checkpoint.exists() {
        return Err(Failure {
            message: format!(
                "{target} has a part of a copy: {} tells how much",
                checkpoint.display()
            ),
            advice: "the same command without --finish goes on; or --flush begins again".to_owned(),
        });
    }
    let released = apply::finish(&mut client, target, &mut || {})?;
    if !has_position && released == 0 {
        return Err(Failure {
            message: format!("{target}: no migration goes there, and no expiry is held"),
            advice: "is it the TO that the migration had?".to_owned(),
        });
    }
    let report = Report {
        source: source.to_string(),
        target: target.to_string(),
        copied: None,
        applied: Applied::default(),
        position: None,
        is_caught_up: false,
        released: Some(released),
        seconds: began.elapsed().as_secs_f64(),
    };
    Ok(report.outcome(args.json))
}

/// Positions on their way to the disk, by a thread of its own: changes are taken and answered while it waits.
struct Notes {
    latest: Option<SyncSender<Position>>,
    thread: Option<JoinHandle<Result<(), Failure>>>,
}

impl Notes {
    fn start(state: &Path) -> Notes {
        let (latest, positions) = sync_channel(1);
        let state = state.to_owned();
        let thread = std::thread::spawn(move || {
            let mut positions = positions.into_iter();
            positions.try_for_each(|position| note_position(&state, position))
        });
        Notes {
            latest: Some(latest),
            thread: Some(thread),
        }
    }

    /// Left out while the one before is being written.
    fn take(&mut self, position: Position) -> Result<(), Failure> {
        let sent = self.latest.as_ref().map(|latest| latest.try_send(position));
        match sent {
            Some(Ok(()) | Err(TrySendError::Full(_))) => Ok(()),
            // The thread failed.
            _ => self.end(),
        }
    }

    /// Waits until what was taken is written.
    fn end(&mut self) -> Result<(), Failure> {
        self.latest = None;
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

/// For people, and for `--from`: what counts is what the target remembers.
fn note_position(state: &Path, position: Position) -> Result<(), Failure> {
    std::fs::create_dir_all(state).map_err(|error| Failure::write(state, &error))?;
    let mut file = OutFile::create(&state.join("position"))?;
    file.write(format!("{position}\n").as_bytes())?;
    file.commit()
}

/// The full copy, or what is left to do of it.
fn copy(
    args: &MigrateArgs,
    (source, target): (&Url, &Url),
    passage: &Passage,
    ways: Ways,
    client: &mut Client,
) -> Result<(Following, Position, Tally), Failure> {
    std::fs::create_dir_all(&args.state).map_err(|error| Failure::write(&args.state, &error))?;
    let path = args.state.join("copy.rdb");
    let checkpoint_path = args.state.join("copy.rdb.restoring");
    let kept = match path.exists() {
        true => kept_position(&path, source)?,
        false => None,
    };
    let resumes = kept.is_some() && checkpoint_path.exists();
    if !resumes {
        make_room(args, client)?;
    }
    let (mut following, position) = match kept {
        Some(position) => {
            eprintln!(
                "note: {} is of {position}; going on with it",
                path.display()
            );
            let following = Following::new(source, Some(position), args.attempts);
            (following, position)
        }
        None => fetch(args, source, &path)?,
    };
    let state = State {
        source: format!("{source} at {position}"),
        target: format!("{target}, run {}", server::ask(client)?.run_id),
        options: format!("allow loss {}, {}", args.allow_loss, passage.typed()),
        began_at_ms: report::now_ms(),
        keys_done: 0,
    };
    let mut checkpoint = Some(Checkpoint::open(&checkpoint_path, state)?);
    let options = Options {
        existing: Existing::Replace,
        allow_loss: args.allow_loss,
        use_commands: false,
        parts_over: PARTS_OVER,
        connections: usize::from(args.connections),
        rate: None,
    };
    let edit = Edit::new(&args.edit, 0);
    let chosen = SourceOptions {
        filter: Filter::new(&args.filter, 0),
        edit: match ways.holds {
            true => edit.with_expiries(hold::held),
            false => edit,
        },
        ..SourceOptions::default()
    };
    let dump = Source::open(&Place::Path(path.clone()), &chosen)?;
    let mut beat = || following.beat();
    let tally = restore::run(dump, target, &options, &mut checkpoint, &mut beat)?;
    apply::remember(client, position, passage)?;
    // From here on the target says where to go on.
    if let Some(checkpoint) = checkpoint {
        checkpoint.remove()?;
    }
    std::fs::remove_file(&path).map_err(|error| Failure::write(&path, &error))?;
    eprintln!("note: {} keys copied; changes follow", tally.restored);
    following.loaded(position.db);
    Ok((following, position, tally))
}

/// As `dfsnap restore` does unless told otherwise.
const PARTS_OVER: u64 = 16 << 20;

fn make_room(args: &MigrateArgs, client: &mut Client) -> Result<(), Failure> {
    if args.flush {
        client.ask(&["FLUSHALL"], "a user with +flushall")?;
        return Ok(());
    }
    match keys_of(client)? {
        0 => Ok(()),
        keys => Err(Failure {
            message: format!("{} holds {keys} keys", client.name()),
            advice: "--flush removes them first; or another target".to_owned(),
        }),
    }
}

/// A full resync into the file; the link stays, and the source keeps what is written meanwhile.
fn fetch(args: &MigrateArgs, source: &Url, path: &Path) -> Result<(Following, Position), Failure> {
    let ((snapshot, origin), _) = attempt::until(source, args.attempts, || {
        let begun = snapshot::begin(source, After::Stream);
        let mut snapshot = begun.map_err(|error| Attempt::of_feed(source, error))?;
        let Some(origin) = snapshot.facts().origin else {
            return Err(Attempt::Failed(Failure {
                message: format!("{source}: knows SYNC but not PSYNC, and so no positions"),
                advice: "dfsnap backup and dfsnap restore copy it without following".to_owned(),
            }));
        };
        attempt::to_file(source, &mut snapshot, path)?;
        Ok((snapshot, origin))
    })?;
    let position = Position {
        replid: origin.0,
        offset: origin.1,
        db: place_of(path)?.map_or(0, |place| place.db),
    };
    let feed = snapshot.into_feed();
    let following = Following::over(feed, source, Some(position), args.attempts);
    Ok((following, position))
}

/// The position of a copy that an earlier run left, if it is one of this source.
fn kept_position(path: &Path, source: &Url) -> Result<Option<Position>, Failure> {
    let Some(position) = place_of(path)? else {
        return Ok(None);
    };
    let mut client = Client::connect(source)?;
    let info = client.ask(&["INFO", "replication"], "a user with +info")?;
    let info = String::from_utf8_lossy(info.as_bytes().unwrap_or_default()).into_owned();
    let names = ["master_replid", "master_replid2"];
    let is_of_it = names
        .iter()
        .any(|name| info_field(&info, name).is_some_and(|id| id == position.replid.as_str()));
    Ok(is_of_it.then_some(position))
}

/// What a dump says about its place.
fn place_of(path: &Path) -> Result<Option<Position>, Failure> {
    let file = std::fs::File::open(path).map_err(|error| Failure::open(path, &error))?;
    let mut reader = RdbReader::new(file, reader::Options::default());
    let (mut replid, mut offset, mut db) = (None, None, 0);
    loop {
        let record = reader.next().map_err(|error| Failure::read(path, &error))?;
        let Some(record @ (Record::Header(_) | Record::Aux { .. })) = record else {
            break;
        };
        let Record::Aux { name, value } = record else {
            continue;
        };
        let text = String::from_utf8_lossy(&value);
        match &name[..] {
            b"repl-id" => replid = ReplId::parse(&value),
            b"repl-offset" => offset = text.parse().ok(),
            b"repl-stream-db" => db = text.parse().unwrap_or(0),
            _ => {}
        }
    }
    Ok(replid
        .zip(offset)
        .map(|(replid, offset)| Position { replid, offset, db }))
}

impl Report {
    fn outcome(&self, as_json: bool) -> Outcome {
        Outcome {
            text: match as_json {
                true => report::json(self),
                false => self.text(),
            },
            finding: false,
        }
    }

    fn text(&self) -> String {
        let mut out = format!("{} -> {}\n", self.source, self.target);
        let mut line = |name: &str, value: String| out.push_str(&format!("  {name:<10} {value}\n"));
        if let Some(tally) = &self.copied {
            line("copied", format!("{} keys", tally.restored));
            if tally.expired > 0 {
                line(
                    "expired",
                    format!("{} keys that are past their expiry", tally.expired),
                );
            }
            for (what, count) in &tally.losses {
                line("lost", format!("{count} times {what}"));
            }
        }
        let applied = &self.applied;
        line(
            "applied",
            format!(
                "{} transactions, {} commands",
                applied.transactions, applied.commands
            ),
        );
        line(
            "caught up",
            if self.is_caught_up { "yes" } else { "no" }.to_owned(),
        );
        if let Some(position) = &self.position {
            line("position", position.clone());
        }
        match self.released {
            Some(keys) => line("released", format!("the expiries of {keys} keys")),
            None => {
                line("go on", "the same command".to_owned());
                line("switch", "the same with --until-caught-up, or with --finish where FROM is gone; until then no key expires at TO".to_owned());
            }
        }
        line("took", format!("{:.1} s", self.seconds));
        out
    }
}

/// The reply to a command that must not be refused.
fn fine(client: &Client, reply: Frame) -> Result<Frame, Failure> {
    match reply {
        Frame::Error(text) => {
            let advice = "a user with +@write +@transaction +select on the target";
            Err(client.lost(&text, advice).into())
        }
        reply => Ok(reply),
    }
}
