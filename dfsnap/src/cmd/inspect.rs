//! `dfsnap inspect`: what a dump contains.

use crate::cmd::input::InputArgs;
use crate::filter::{Filter, FilterArgs};
use crate::report::{self, Failure, Outcome};
use crate::source::{Source, SourceOptions};
use crate::tally::summary::Summary;
use crate::tally::{self, Options};
use clap::Args;
use std::fmt::Write as _;

/// Show what a dump contains: writer, databases, types, memory, expiries, biggest keys and prefixes
///
/// Reads the dump once, without decoding values; memory does not grow with it. Memory per key is what MEMORY USAGE with
/// SAMPLES 0 tells after Redis 7.0 has loaded the dump, estimated within 10 %.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// How many of the biggest keys and of the heaviest prefixes to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// How many parts a prefix has at most; parts end with a colon
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub prefix_depth: usize,
    #[command(flatten)]
    pub of: SummaryArgs,
}

const EXAMPLES: &str = "\
Examples:
  The file of a running server's last save:
    dfsnap inspect /var/lib/redis/dump.rdb
  A compressed backup, without unpacking it first:
    zstd -dc backup.rdb.zst | dfsnap inspect -
  Which kinds of sessions never expire, and what do they take?
    dfsnap inspect dump.rdb --match 'session:*' --ttl none --prefix-depth 3
  Keys of database 0, for a program:
    dfsnap inspect --json dump.rdb | jq '.databases[0].keys'";

/// What `inspect` and `report` count, and of what
#[derive(Debug, Args)]
pub struct SummaryArgs {
    #[command(flatten)]
    pub input: InputArgs,
    /// Weigh one key in N; keys, stored bytes and expiries are still counted whole
    #[arg(long, value_name = "1/N", default_value = "1/1", value_parser = parse_sample)]
    pub sample: u64,
    /// Count expiries from this time instead of now
    #[arg(long, value_name = "UNIX_MS")]
    pub at: Option<i64>,
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// `1/100`, or `100`.
fn parse_sample(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix("1/").unwrap_or(text);
    match number.parse() {
        Ok(count @ 1..) => Ok(count),
        _ => Err(format!("{text}: wanted 1/N, as 1/100")),
    }
}

pub fn run(args: &InspectArgs) -> Result<Outcome, Failure> {
    let options = Options {
        top: args.top,
        at_ms: args.of.at_ms(),
        prefix_depth: args.prefix_depth,
        prefixes: args.top,
        sample: args.of.sample,
    };
    let summary = args.of.summarize(&options)?;
    Ok(Outcome {
        text: match args.json {
            true => report::json(&summary),
            false => text(&summary),
        },
        finding: false,
    })
}

impl SummaryArgs {
    /// When expiries are counted from.
    pub fn at_ms(&self) -> i64 {
        self.at.unwrap_or_else(report::now_ms)
    }

    /// Reads the dump.
    pub fn summarize(&self, options: &Options) -> Result<Summary, Failure> {
        let place = &self.input.source;
        let source_options = SourceOptions {
            filter: Filter::new(&self.filter, options.at_ms),
            counts_behind: true,
            ..SourceOptions::default()
        };
        let source = Source::open(place, &source_options)?;
        tally::summarize(source, place.to_string(), options)
    }
}

fn text(summary: &Summary) -> String {
    let mut out = format!("{}\n", summary.file);
    head(summary, &mut out);
    tables(summary, &mut out);
    out
}

fn head(summary: &Summary, out: &mut String) {
    let mut line = |name: &str, value: String| {
        writeln!(out, "  {name:<10} {value}").expect("writing to a string");
    };
    let version = match (summary.magic, summary.version) {
        (Some(magic), Some(version)) => format!(", {magic} version {version}"),
        _ => String::new(),
    };
    line("format", format!("{}{version}", summary.format));
    let writer = summary.writer.as_deref().unwrap_or("not said");
    line("writer", writer.to_owned());
    if summary.files > 1 {
        line("files", summary.files.to_string());
    }
    if summary.bytes > 0 {
        let size = report::bytes(summary.bytes);
        line("size", format!("{size} ({} bytes)", summary.bytes));
    }
    if let Some(checksum) = summary.checksum {
        line("checksum", checksum.to_owned());
    }
    line("keys", summary.keys.to_string());
    let sampled = match summary.sample {
        1 => String::new(),
        n => format!(", from one key in {n}"),
    };
    let memory = report::bytes(summary.memory.total);
    line("memory", format!("about {memory} in Redis 7.0{sampled}"));
    if summary.functions > 0 {
        line("functions", format!("{} libraries", summary.functions));
    }
    for (module, times) in &summary.module_aux {
        line("module aux", format!("{module}, {times} times"));
    }
    for (name, aux) in &summary.aux {
        let times = match aux.times {
            1 => String::new(),
            times => format!(" (last of {times})"),
        };
        line("aux", format!("{name} = {}{times}", aux.value));
    }
    for warning in &summary.warnings {
        line("warning", warning.message.clone());
    }
}

fn tables(summary: &Summary, out: &mut String) {
    let mut section = |title: &str, heading: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            let table = report::table(heading, &rows);
            write!(out, "\n{title}\n{table}").expect("writing to a string");
        }
    };
    let rows = summary.databases.iter().map(|db| {
        vec![
            db.db.to_string(),
            db.keys.to_string(),
            db.expires.to_string(),
            report::bytes(db.bytes),
            report::bytes(db.memory),
        ]
    });
    let heading = ["db", "keys", "with expiry", "stored", "memory"];
    section("Databases", &heading, rows.collect());

    let rows = summary.types.iter().map(|sum| {
        vec![
            format!("{}, {}", sum.kind, sum.encoding),
            sum.keys.to_string(),
            sum.expires.to_string(),
            report::bytes(sum.bytes),
            report::bytes(sum.memory),
        ]
    });
    let heading = ["stored as", "keys", "with expiry", "stored", "memory"];
    section("Types", &heading, rows.collect());

    let buckets = summary.expiry.buckets();
    let rows = buckets.map(|(name, keys)| vec![name.to_owned(), keys.to_string()]);
    section("Expiry", &["keys that expire", "keys"], rows.collect());

    let rows = summary.prefixes.iter().map(|prefix| {
        vec![
            prefix.prefix.clone(),
            prefix.keys.to_string(),
            report::bytes(prefix.bytes),
            report::bytes(prefix.memory),
        ]
    });
    let heading = ["prefix", "keys", "stored", "memory"];
    section("Heaviest prefixes", &heading, rows.collect());

    let rows = summary.biggest.iter().map(|big| {
        vec![
            big.key.clone(),
            big.db.to_string(),
            big.kind.clone(),
            big.elements
                .map_or("-".to_owned(), |count| count.to_string()),
            report::bytes(big.bytes),
            report::bytes(big.memory),
        ]
    });
    let heading = ["key", "db", "type", "elements", "stored", "memory"];
    section("Biggest keys", &heading, rows.collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_fractions() {
        assert_eq!(parse_sample("1/100"), Ok(100));
        assert_eq!(parse_sample("7"), Ok(7));
        assert!(parse_sample("1/0").is_err() && parse_sample("2/3").is_err());
    }
}
