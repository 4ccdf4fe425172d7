//! The command line: one struct a verb. `--help` comes from here.

use crate::cmd::backup::BackupArgs;
use crate::cmd::convert::ConvertArgs;
use crate::cmd::diff::DiffArgs;
use crate::cmd::digest::DigestArgs;
use crate::cmd::follow::FollowArgs;
use crate::cmd::get::GetArgs;
use crate::cmd::inspect::InspectArgs;
use crate::cmd::ls::LsArgs;
use crate::cmd::manual::{CompletionsArgs, ManArgs};
use crate::cmd::merge::MergeArgs;
use crate::cmd::migrate::MigrateArgs;
use crate::cmd::report::ReportArgs;
use crate::cmd::restore::RestoreArgs;
use crate::cmd::salvage::SalvageArgs;
use crate::cmd::split::SplitArgs;
use crate::cmd::verify::VerifyArgs;
use crate::live::tls::TlsArgs;
use clap::{Parser, Subcommand};

/// Look into dumps of Redis, Valkey, KeyDB and Dragonfly
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Show progress on standard error, also where it is no terminal
    #[arg(long, global = true)]
    pub progress: bool,
    #[command(flatten)]
    pub tls: TlsArgs,
}

const EXAMPLES: &str = "\
Exit code: 0 fine, 1 a finding, 2 an error.

Examples:
  What is in this file, and which keys are the biggest?
    dfsnap inspect dump.rdb
  Is it sound, down to the last element?
    dfsnap verify dump.rdb
  Does it hold what that server holds?
    dfsnap digest dump.rdb; redis-cli debug digest
  What is different since yesterday?
    dfsnap diff yesterday.rdb dump.rdb
  The server refuses to load it: what can be saved?
    dfsnap salvage dump.rdb -o salvaged.rdb";

#[derive(Debug, Subcommand)]
pub enum Command {
    Backup(BackupArgs),
    Convert(ConvertArgs),
    Get(GetArgs),
    Ls(LsArgs),
    Follow(FollowArgs),
    Restore(RestoreArgs),
    Migrate(MigrateArgs),
    Inspect(InspectArgs),
    Report(ReportArgs),
    Digest(DigestArgs),
    Verify(VerifyArgs),
    Salvage(SalvageArgs),
    Diff(DiffArgs),
    Merge(MergeArgs),
    Split(SplitArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}
