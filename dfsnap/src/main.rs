//! `dfsnap`: looks into dumps of the Redis family.
//!
//! `cli` says what can be asked, a module of `cmd` does it, `report` turns results into text or JSON and failures into
//! a message with a next step.
//!
//! Exit code: 0 fine, 1 a finding, 2 an error.
#![forbid(unsafe_code)]

mod check;
mod cli;
mod cmd;
mod compare;
mod edit;
mod filter;
mod keydigest;
mod live;
mod memory;
mod out;
mod passage;
mod report;
mod restore;
mod sink;
mod source;
mod tally;

use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    out::clean_up_when_interrupted();
    if cli.progress {
        source::progress::force();
    }
    live::tls::keep(cli.tls);
    let result = match cli.command {
        Command::Backup(args) => cmd::backup::run(&args),
        Command::Convert(args) => cmd::convert::run(&args),
        Command::Get(args) => cmd::get::run(&args),
        Command::Ls(args) => cmd::ls::run(&args),
        Command::Follow(args) => cmd::follow::run(&args),
        Command::Migrate(args) => cmd::migrate::run(&args),
        Command::Restore(args) => cmd::restore::run(&args),
        Command::Inspect(args) => cmd::inspect::run(&args),
        Command::Report(args) => cmd::report::run(&args),
        Command::Digest(args) => cmd::digest::run(&args),
        Command::Verify(args) => cmd::verify::run(&args),
        Command::Salvage(args) => cmd::salvage::run(&args),
        Command::Diff(args) => cmd::diff::run(&args),
        Command::Merge(args) => cmd::merge::run(&args),
        Command::Split(args) => cmd::split::run(&args),
        Command::Completions(args) => cmd::manual::completions(&args),
        Command::Man(args) => cmd::manual::man(&args),
    };
    report::exit(result)
}
