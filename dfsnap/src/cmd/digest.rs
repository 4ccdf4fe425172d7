//! `dfsnap digest`: the DEBUG DIGEST of the data in a dump or a server.

use crate::filter::{Filter, FilterArgs};
use crate::keydigest;
use crate::report::{self, Failure, Outcome};
use crate::source::{Place, Record, Source, SourceOptions};
use clap::Args;
use dfsnap_formats::digest::{DatasetDigest, ScoreForm};

/// Print the DEBUG DIGEST of the data in a dump or a server
///
/// The same 40 digits that a server prints after loading the dump. They do not cover exact expiry times, stream
/// groups, LRU and LFU, functions, and encodings.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DigestArgs {
    /// Dump of any format, or URL of a server; `-` is standard input
    #[arg(value_name = "PATH|URL", value_parser = Place::parse)]
    pub source: Place,
    /// Print scores as Redis up to 7.0 did, for comparing with such a server
    #[arg(long)]
    pub legacy: bool,
    /// Leave out keys that have expired by then, as a server with that clock does when it loads the dump
    #[arg(long, value_name = "UNIX_MS")]
    pub expired_at: Option<i64>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
}

const EXAMPLES: &str = "\
Examples:
  Compare a dump with a server of version 7.2 or later:
    test \"$(dfsnap digest dump.rdb)\" = \"$(redis-cli debug digest)\"
  With a server of version 7.0 or older:
    dfsnap digest --legacy dump.rdb
  Whether a set of Dragonfly's holds what an RDB file does:
    test \"$(dfsnap digest dump-summary.dfs)\" = \"$(dfsnap digest dump.rdb)\"";

#[derive(Default)]
struct Sum {
    dataset: DatasetDigest,
    keys: u64,
    /// By now.
    expired: u64,
}

pub fn run(args: &DigestArgs) -> Result<Outcome, Failure> {
    let form = match args.legacy {
        true => ScoreForm::Legacy,
        false => ScoreForm::Short,
    };
    let now_ms = report::now_ms();
    let options = SourceOptions {
        filter: Filter::new(&args.filter, now_ms),
        ..SourceOptions::default()
    };
    let mut sum = Sum::default();
    Source::open(&args.source, &options)?.for_each(&mut |record| {
        let Record::Key(key) = record else {
            return Ok(());
        };
        let (db, expire_at_ms) = (key.head.db, key.head.attributes.expire_at_ms);
        let gone = |time| expire_at_ms.is_some_and(|at_ms| at_ms <= time);
        if args.expired_at.is_some_and(gone) {
            return Ok(());
        }
        if let Some(digest) = keydigest::of_key(key, form)? {
            sum.keys += 1;
            sum.expired += u64::from(gone(now_ms));
            sum.dataset.add(db, digest);
        }
        Ok(())
    })?;
    if sum.expired > 0 && args.expired_at.is_none() {
        eprintln!(
            "note: {} keys have expired by now and are counted; a server drops them on loading",
            sum.expired
        );
        eprintln!("try: --expired-at {now_ms} leaves them out");
    }
    let digest = sum.dataset.finish().to_string();
    let text = match args.json {
        true => report::json(&serde_json::json!({
            "digest": digest,
            "legacy": args.legacy,
            "keys": sum.keys,
            "expired": sum.expired,
        })),
        false => format!("{digest}\n"),
    };
    Ok(Outcome {
        text,
        finding: false,
    })
}
