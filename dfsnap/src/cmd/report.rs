//! `dfsnap report`: the numbers of `inspect` as one page that opens without a network.

use crate::cmd::inspect::SummaryArgs;
use crate::out::OutFile;
use crate::report::{self, Failure, Outcome};
use crate::tally::Options;
use crate::tally::summary::Summary;
use clap::Args;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value, context};
use std::path::PathBuf;

/// Write a page about a dump: memory by type and prefix, sizes, expiries, biggest keys
///
/// One HTML file that needs nothing else, with the numbers of `inspect`: open it in a browser, send it, keep it. The
/// biggest keys can be sorted and searched in it. It contains names of keys, but no values.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// Where the page goes
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
    /// How many of the biggest keys it lists
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub top: usize,
    /// How many parts a prefix has at most; parts end with a colon
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub prefix_depth: usize,
    #[command(flatten)]
    pub of: SummaryArgs,
}

const EXAMPLES: &str = "\
Examples:
  Where has the memory gone?
    dfsnap report /var/lib/redis/dump.rdb -o report.html
  Of one application's keys, one level deeper:
    dfsnap report dump.rdb --match 'shop:*' --prefix-depth 4 -o shop.html";

/// Prefixes that the treemap has tiles for.
const PREFIXES: usize = 300;

pub fn run(args: &ReportArgs) -> Result<Outcome, Failure> {
    let options = Options {
        top: args.top,
        at_ms: args.of.at_ms(),
        prefix_depth: args.prefix_depth,
        prefixes: PREFIXES,
        sample: args.of.sample,
    };
    let summary = args.of.summarize(&options)?;
    let mut file = OutFile::create(&args.output)?;
    file.write(page(&summary).as_bytes())?;
    file.commit()?;
    Ok(Outcome {
        text: format!("{}\n", args.output.display()),
        finding: false,
    })
}

/// The page; all text in it is escaped.
fn page(summary: &Summary) -> String {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.add_filter("bytes", report::bytes);
    env.add_filter("round", |size| {
        report::bytes(size).replace(".00 ", " ").replace(".0 ", " ")
    });
    env.add_filter("count", count);
    env.add_filter("percent", percent);
    env.add_filter("color", |kind: String| color(&kind));
    let expiry: Vec<_> = summary.expiry.buckets().collect();
    let values = context! {
        summary => Value::from(Serde(summary)),
        at => report::date(summary.expiry.at_ms),
        stored => summary.types.iter().map(|sum| sum.bytes).sum::<u64>(),
        expiring => summary.types.iter().map(|sum| sum.expires).sum::<u64>(),
        sizes_max => summary.sizes.iter().map(|class| class.keys).max(),
        expiry_max => expiry.iter().map(|(_, keys)| *keys).max(),
        expiry => Value::from(Serde(&expiry)),
        dfsnap => env!("CARGO_PKG_VERSION"),
        data => context! {
            keys => summary.keys,
            memory => Value::from(Serde(&summary.memory)),
            prefixes => Value::from(Serde(&summary.prefixes)),
            biggest => Value::from(Serde(&summary.biggest)),
        },
    };
    env.render_str(include_str!("report.html"), values)
        .expect("the template fits its values, as its test shows")
}

/// `1234567` as `1,234,567`.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.2}", part as f64 * 100.0 / whole.max(1) as f64)
}

/// Each type has its colour, `--c0` to `--c7`.
fn color(kind: &str) -> usize {
    const KINDS: [&str; 7] = ["string", "list", "set", "zset", "hash", "stream", "module"];
    KINDS.iter().position(|known| *known == kind).unwrap_or(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::summary::Big;

    #[test]
    fn counts_and_shares_are_readable() {
        let rows = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, want) in rows {
            assert_eq!(count(number), want);
        }
        assert_eq!(
            (percent(1, 3), percent(0, 0)),
            ("33.33".to_owned(), "0.00".to_owned())
        );
    }

    #[test]
    fn an_empty_dump_has_a_page_and_names_of_keys_are_no_markup() {
        assert!(page(&Summary::default()).contains("No key has a prefix"));
        let mut summary = Summary {
            file: "<b>.rdb".to_owned(),
            ..Summary::default()
        };
        summary.biggest.push(Big {
            memory: 1,
            bytes: 1,
            db: 0,
            key: "</script><script>alert(1)</script>".to_owned(),
            kind: "string".to_owned(),
            encoding: "plain".to_owned(),
            elements: None,
            expire_at_ms: None,
        });
        let page = page(&summary);
        assert!(page.contains("&lt;b&gt;.rdb") && !page.contains("<b>.rdb"));
        assert!(!page.contains("alert(1)</script>"));
    }
}
