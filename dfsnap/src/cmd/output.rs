//! How verbs that write dumps are told what to write.

use crate::sink::{Compression, Output, SinkOptions};
use clap::Args;
use dfsnap_formats::rdb::target::Target;
use std::path::Path;

/// The form of what is written
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Format; told by the ending of the name, where it has one
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
}

/// A target by name or version.
fn parse_target(text: &str) -> Result<Target, String> {
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

impl OutputArgs {
    pub fn output(&self, place: &Path) -> Output {
        self.to
            .or_else(|| Output::of_name(place))
            .unwrap_or(Output::Rdb)
    }

    pub fn options(&self, place: &Path) -> SinkOptions {
        const SHARDS: u16 = 4;
        let output = self.output(place);
        // The newest that a format can say, where it is for no product in particular; files for servers stay loadable by
        // old ones as far as the data allows.
        let newest = match output {
            Output::Dfs => Target::DRAGONFLY,
            _ => Target::by_name("redis-7.4").unwrap_or_default(),
        };
        SinkOptions {
            output,
            target: self.target.unwrap_or(newest),
            compression: self.compression,
            allow_loss: self.allow_loss,
            shards: SHARDS,
            use_restore: false,
            check: false,
            encodings: false,
        }
    }
}

/// The ending of file names of a format. Sets are named without.
pub fn ending(output: Output) -> &'static str {
    match output {
        Output::Rdb => ".rdb",
        Output::Dfs => "",
        Output::Aof => ".aof",
        Output::Json => ".json",
        Output::Ndjson => ".ndjson",
        Output::Csv => ".csv",
        Output::Resp => ".resp",
    }
}
