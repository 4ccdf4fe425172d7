//! `dfsnap`: looks into dumps of the Redis family.
//!
//! `cli` says what can be asked, a module of `cmd` does it, `report` turns results into text or JSON and failures into
//! a message with a next step.
//!
//! Exit code: 0 fine, 1 a finding, 2 an error.
#![forbid(unsafe_code)]

mod cli;
mod cmd;
mod report;

use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Inspect(args) => cmd::inspect::run(&args),
        Command::Digest(args) => cmd::digest::run(&args),
        Command::Verify(args) => cmd::verify::run(&args),
    };
    report::exit(result)
}
