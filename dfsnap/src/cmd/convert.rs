//! `dfsnap convert`: any dump in any other form.

use crate::cmd::input::ChangedArgs;
use crate::cmd::output::OutputArgs;
use crate::report::{self, Failure, Outcome};
use crate::sink::{Losses, Output, Sink, SinkOptions, Written};
use crate::source::{Record, Source, SourceOptions};
use clap::Args;
use std::fmt::Write;
use std::path::PathBuf;

/// Convert a dump: any format to any other, up and down versions
///
/// Values are copied as they are stored where the target knows their form, and looked into only with --check. What the
/// target cannot hold is listed and refused, unless --allow-loss is given. The result appears whole or not at all.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConvertArgs {
    /// File, base name of a set, folder for an AOF; `-` is standard output
    #[arg(value_name = "DST", index = 2)]
    pub target_path: PathBuf,
    /// Files of a DFS set
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub shards: u16,
    /// For --to resp: RESTORE commands instead of those of each type
    #[arg(long)]
    pub restore: bool,
    /// Look into values also where they are copied as they are stored
    #[arg(long)]
    pub check: bool,
    /// For JSON: say how each value is stored, so that it is stored that way again
    #[arg(long)]
    pub encodings: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub form: OutputArgs,
    #[command(flatten)]
    pub dump: ChangedArgs,
}

const EXAMPLES: &str = "\
Examples:
  Go back to an older Redis:
    dfsnap convert dump.rdb old.rdb --target redis-6.2
  From Dragonfly to Redis, and what would be lost on the way:
    dfsnap convert snap-summary.dfs dump.rdb
  Into a running server, without a file:
    dfsnap convert dump.rdb - --to resp | redis-cli --pipe
  The users of database 1 as lines of JSON:
    dfsnap convert dump.rdb users.ndjson --db 1 --match 'user:*'";

pub fn run(args: &ConvertArgs) -> Result<Outcome, Failure> {
    let is_told = args.form.to.is_some() || Output::of_name(&args.target_path).is_some();
    if !is_told {
        return Err(Failure {
            message: format!(
                "{}: the name does not tell the format",
                args.target_path.display()
            ),
            advice: "--to rdb, dfs, aof, json, ndjson, csv or resp".to_owned(),
        });
    }
    let options = SinkOptions {
        shards: args.shards,
        use_restore: args.restore,
        encodings: args.encodings,
        check: args.check,
        ..args.form.options(&args.target_path)
    };
    let source_options = SourceOptions {
        streams: options.takes_pieces(),
        ..args.dump.options(report::now_ms())
    };
    let source = Source::open(&args.dump.input.source, &source_options)?;
    let mut sink = Sink::create(&args.target_path, &options)?;
    source.for_each(&mut |record: Record<'_>| sink.record(record))?;
    let (written, losses) = sink.finish()?;
    if args.target_path.as_os_str() == "-" {
        return Ok(Outcome {
            text: String::new(),
            finding: false,
        });
    }
    Ok(Outcome {
        text: match args.json {
            true => as_json(&written, &losses),
            false => as_text(&written, &losses),
        },
        finding: false,
    })
}

fn as_json(written: &Written, losses: &Losses) -> String {
    let losses: std::collections::BTreeMap<_, _> = losses.counts().collect();
    report::json(&serde_json::json!({
        "keys": written.keys,
        "functions": written.functions,
        "bytes": written.bytes,
        "files": written.files,
        "losses": losses,
    }))
}

fn as_text(written: &Written, losses: &Losses) -> String {
    let mut text = String::new();
    for file in &written.files {
        let _ = writeln!(text, "{}", file.display());
    }
    let _ = writeln!(text, "  keys       {}", written.keys);
    if written.functions > 0 {
        let _ = writeln!(text, "  functions  {}", written.functions);
    }
    let _ = writeln!(text, "  size       {}", report::bytes(written.bytes));
    for (what, count) in losses.counts() {
        let _ = writeln!(text, "  lost       {count} times {what}");
    }
    text
}
