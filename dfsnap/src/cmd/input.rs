//! How verbs that read a dump are told which one, and what of it.

use crate::edit::{Edit, EditArgs};
use crate::filter::{Filter, FilterArgs};
use crate::source::{Place, SourceOptions};
use clap::Args;

/// A dump, whatever it is
#[derive(Debug, Args)]
pub struct InputArgs {
    /// RDB file, file or base name of a DFS set, AOF file or folder, JSON, URL of a server; `-` is standard input
    #[arg(value_name = "SRC", index = 1, value_parser = Place::parse, help_heading = None::<&str>)]
    pub source: Place,
}

/// A dump whose keys are chosen and changed on the way. Goes last: what follows it would stand under its headings.
#[derive(Debug, Args)]
pub struct ChangedArgs {
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub edit: EditArgs,
}

impl ChangedArgs {
    /// With expiries counted from `now_ms`.
    pub fn options(&self, now_ms: i64) -> SourceOptions {
        SourceOptions {
            filter: Filter::new(&self.filter, now_ms),
            edit: Edit::new(&self.edit, now_ms),
            ..SourceOptions::default()
        }
    }
}
