//! `dfsnap convert`: any dump in any other form.

use crate::edit::{Edit, EditArgs};
use crate::filter::{Filter, FilterArgs};
use crate::report::{self, Failure, Outcome};
use crate::sink::{Compression, Losses, Output, Sink, SinkOptions, Written};
use crate::source::{Place, Record, Source, SourceOptions};
use clap::Args;
use dfsnap_formats::rdb::target::Target;
use std::fmt::Write;
use std::path::PathBuf;

/// Convert a dump: any format to any other, up and down versions
///
/// Values are copied as they are stored where the target knows their form, and looked into only with --check. What the
/// target cannot hold is listed and refused, unless --allow-loss is given. The result appears whole or not at all.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConvertArgs {
    /// RDB file, file or base name of a DFS set, AOF file or folder, JSON, URL of a server; `-` is standard input
    #[arg(value_name = "SRC", value_parser = Place::parse)]
    pub source: Place,
    /// File, base name of a set, folder for an AOF; `-` is standard output
    #[arg(value_name = "DST")]
    pub target_path: PathBuf,
    /// Format; told by the ending of DST where it has one
    #[arg(long, value_name = "FORMAT")]
    pub to: Option<Output>,
    /// Product or RDB version that is to load it: redis-6.2, valkey-8, dragonfly, 10
    #[arg(long, value_name = "TARGET", value_parser = parse_target)]
    pub target: Option<Target>,
    /// Compression; what the format's own servers use where it is left out
    #[arg(long, value_name = "METHOD")]
    pub compression: Option<Compression>,
    /// Write what is left of what the target cannot hold
    #[arg(long)]
    pub allow_loss: bool,
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
    pub filter: FilterArgs,
    #[command(flatten)]
    pub edit: EditArgs,
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

/// A target by name or version.
pub fn parse_target(text: &str) -> Result<Target, String> {
    Target::by_name(text)
        .or_else(|| text.parse().ok().and_then(Target::of_version))
        .ok_or_else(|| {
            let names: Vec<_> = Target::names().collect();
            format!(
                "there are {}, and versions 6 to 12 and 80",
                names.join(", ")
            )
        })
}

pub fn run(args: &ConvertArgs) -> Result<Outcome, Failure> {
    let output = args.to.or_else(|| Output::of_name(&args.target_path));
    let output = output.ok_or_else(|| Failure {
        message: format!(
            "{}: the name does not tell the format",
            args.target_path.display()
        ),
        advice: "--to rdb, dfs, aof, json, ndjson, csv or resp".to_owned(),
    })?;
    let options = SinkOptions {
        output,
        target: args.target.unwrap_or_else(|| default_target(output)),
        compression: args.compression,
        allow_loss: args.allow_loss,
        shards: args.shards,
        use_restore: args.restore,
        encodings: args.encodings,
        check: args.check,
    };
    let source_options = SourceOptions {
        filter: Filter::new(&args.filter, report::now_ms()),
        edit: Edit::new(&args.edit, report::now_ms()),
        ..SourceOptions::default()
    };
    let source = Source::open(&args.source, &source_options)?;
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

/// The newest that a format can say, where it is for no product in particular; files for servers stay loadable by old
/// ones as far as the data allows.
fn default_target(output: Output) -> Target {
    match output {
        Output::Dfs => Target::DRAGONFLY,
        _ => Target::by_name("redis-7.4").unwrap_or_default(),
    }
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
