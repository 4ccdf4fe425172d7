//! What a target cannot hold of a dump: told key by key, allowed or refused as a whole.

use crate::report::{self, Failure};
use dfsnap_formats::rdb::loss::Loss;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Keys that are named in a message; all are counted.
const NAMED_MAX: usize = 20;

/// The losses of one dump.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    allowed: bool,
    /// By what is lost; the flag tells whether it is data.
    counts: BTreeMap<(bool, String), u64>,
    /// The first of those that block the way.
    named: Vec<String>,
    blocking: u64,
    /// Keys of which nothing is left.
    keys: u64,
}

impl Losses {
    pub(super) fn new(allowed: bool) -> Self {
        Losses {
            allowed,
            ..Losses::default()
        }
    }

    pub(super) fn note(&mut self, db: u32, key: &[u8], loss: Loss) {
        self.keys += u64::from(matches!(loss, Loss::Key(_)));
        self.add(db, key, &loss.to_string(), loss.is_data());
    }

    /// A reason that is no `Loss`: the whole item is left out.
    pub(super) fn refuse(&mut self, db: u32, key: &[u8], reason: &str) {
        self.keys += 1;
        self.add(db, key, reason, true);
    }

    pub(super) fn refuse_item(&mut self, what: &str, reason: &str) {
        self.count(reason, true);
        self.name(format!("{what}: {reason}"));
    }

    fn add(&mut self, db: u32, key: &[u8], what: &str, is_data: bool) {
        self.count(what, is_data);
        if is_data {
            self.name(format!("db {db}, key {}: {what}", report::key(key)));
        }
    }

    fn count(&mut self, what: &str, is_data: bool) {
        *self.counts.entry((is_data, what.to_owned())).or_default() += 1;
    }

    fn name(&mut self, text: String) {
        self.blocking += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(text);
        }
    }

    /// Keys that are not in the dump.
    pub(super) fn keys(&self) -> u64 {
        self.keys
    }

    /// What was lost, and of how many keys; hints and estimates as well.
    pub fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts
            .iter()
            .map(|((_, what), count)| (what.as_str(), *count))
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.allowed || self.blocking == 0 {
            return Ok(());
        }
        let mut message = format!(
            "the target cannot hold everything: {} losses, and none was allowed",
            self.blocking
        );
        for named in &self.named {
            let _ = write!(message, "\n  {named}");
        }
        let more = self.blocking - self.named.len() as u64;
        if more > 0 {
            let _ = write!(message, "\n  and {more} more");
        }
        Err(Failure {
            message,
            advice: "--allow-loss writes what is left; or --target with a newer version".to_owned(),
        })
    }
}
