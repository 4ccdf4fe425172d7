//! The command line: one struct a verb. `--help` comes from here.

use crate::cmd::backup::BackupArgs;
use crate::cmd::convert::ConvertArgs;
use crate::cmd::follow::FollowArgs;
use crate::cmd::get::GetArgs;
use crate::cmd::ls::LsArgs;
use crate::cmd::migrate::MigrateArgs;
use crate::cmd::restore::RestoreArgs;
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
    dfsnap digest dump.rdb; redis-cli debug digest";

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

/// Print the DEBUG DIGEST of the data in a dump
///
/// The same 40 digits that a server prints after loading the file. They do not cover exact expiry times, stream
/// groups, LRU and LFU, functions, and encodings.
#[derive(Debug, Args)]
#[command(after_help = DIGEST_EXAMPLES)]
pub struct DigestArgs {
    /// RDB file; `-` is standard input
    pub file: PathBuf,
    /// Print scores as Redis up to 7.0 did, for comparing with such a server
    #[arg(long)]
    pub legacy: bool,
    /// Leave out keys that have expired by then, as a server with that clock does when it loads the file
    #[arg(long, value_name = "UNIX_MS")]
    pub expired_at: Option<i64>,
}

const DIGEST_EXAMPLES: &str = "\
Examples:
  Compare a dump with a server of version 7.2 or later:
    test \"$(dfsnap digest dump.rdb)\" = \"$(redis-cli debug digest)\"
  With a server of version 7.0 or older:
    dfsnap digest --legacy dump.rdb";

/// Check a dump completely: structure, checksum, every element of every value, duplicates
///
/// Finds more than a server does when it loads the file. Takes about 40 bytes of memory a key.
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub struct VerifyArgs {
    /// RDB file; `-` is standard input
    pub file: PathBuf,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// How many findings and warnings to show of each kind; all are counted
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  Before trusting a backup:
    dfsnap verify backup.rdb && echo sound
  As it is being written elsewhere:
    ssh db cat /var/lib/redis/dump.rdb | dfsnap verify -";
