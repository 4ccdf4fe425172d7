//! The command line: one struct a verb. `--help` comes from here.

use crate::cmd::backup::BackupArgs;
use crate::cmd::convert::ConvertArgs;
use crate::cmd::diff::DiffArgs;
use crate::cmd::digest::DigestArgs;
use crate::cmd::follow::FollowArgs;
use crate::cmd::get::GetArgs;
use crate::cmd::ls::LsArgs;
use crate::cmd::merge::MergeArgs;
use crate::cmd::migrate::MigrateArgs;
use crate::cmd::restore::RestoreArgs;
use crate::cmd::salvage::SalvageArgs;
use crate::cmd::split::SplitArgs;
use crate::cmd::verify::VerifyArgs;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Look into dumps of Redis, Valkey, KeyDB and Dragonfly
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
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
    Digest(DigestArgs),
    Verify(VerifyArgs),
    Salvage(SalvageArgs),
    Diff(DiffArgs),
    Merge(MergeArgs),
    Split(SplitArgs),
}

/// Show what a dump contains: writer, databases, types, encodings, expiries, biggest keys
///
/// Reads the file once, without decoding values; memory does not grow with the file.
#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
pub struct InspectArgs {
    /// RDB file; `-` is standard input
    pub file: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// How many of the biggest keys to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// Count expiries from this time instead of now
    #[arg(long, value_name = "UNIX_MS")]
    pub at: Option<i64>,
}

const INSPECT_EXAMPLES: &str = "\
Examples:
  The file of a running server's last save:
    dfsnap inspect /var/lib/redis/dump.rdb
  A compressed backup, without unpacking it first:
    zstd -dc backup.rdb.zst | dfsnap inspect -
  Keys of database 0, for a program:
    dfsnap inspect --json dump.rdb | jq '.databases[0].keys'";
