//! `oom-score-adj`: tells the kernel how soon this process may be ended when memory runs out.
//!
//! Called when the server starts, when the setting changes, and when the server becomes a primary or a replica. What is in
//! `/proc/self/oom_score_adj` before is kept, added to, and put back when the setting is `no` again.

use std::io;
use std::sync::{Mutex, PoisonError};

use crate::config::Config;
use crate::config::words::OomScoreAdj;

const PATH: &str = "/proc/self/oom_score_adj";

/// What stood there before this server wrote to it; `None` while it has not.
static BEFORE: Mutex<Option<i64>> = Mutex::new(None);

/// Writes what the configuration says for a server in this role.
pub fn apply(config: &Config, is_replica: bool) -> io::Result<()> {
    let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(score) = score(config, is_replica, &mut before)? else {
        return Ok(());
    };
    std::fs::write(PATH, score.to_string()).inspect_err(|error| {
        tracing::warn!(%error, score, "Unable to write oom_score_adj");
    })
}

/// The score to write; `None`: none.
fn score(config: &Config, is_replica: bool, before: &mut Option<i64>) -> io::Result<Option<i64>> {
    if config.oom_score_adj == OomScoreAdj::No {
        return Ok(before.take());
    }
    let base = match *before {
        Some(base) => base,
        None => *before.insert(read()?),
    };
    // The third value is for a process that saves: here none does.
    let adjustment = config.oom_score_adj_values[usize::from(is_replica)];
    Ok(Some(match config.oom_score_adj {
        OomScoreAdj::Absolute => adjustment,
        _ => (base + adjustment).clamp(-1000, 1000),
    }))
}

fn read() -> io::Result<i64> {
    let text = std::fs::read_to_string(PATH)?;
    let number = text.trim().parse();
    number.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_goes_from_what_was_there_and_back_to_it() {
        let mut config = Config::default();
        let mut before = Some(22);
        let set = |config: &mut Config, how: &str, values: &str| {
            let pairs = [("oom-score-adj", how), ("oom-score-adj-values", values)];
            config.set(&pairs, true).expect("valid");
        };
        for (name, how, values, is_replica, want) in [
            ("of a primary", "yes", "10 20 30", false, Some(32)),
            ("of a replica", "relative", "10 20 30", true, Some(42)),
            ("as it is", "absolute", "10 20 30", false, Some(10)),
            (
                "no more than there is",
                "yes",
                "2000 2000 2000",
                false,
                Some(1000),
            ),
            ("no less either", "yes", "-2000 0 0", false, Some(-1000)),
            ("given back", "no", "10 20 30", false, Some(22)),
            ("given back once", "no", "10 20 30", false, None),
        ] {
            set(&mut config, how, values);
            let got = score(&config, is_replica, &mut before).expect("nothing is read");
            assert_eq!(got, want, "{name}");
        }
    }
}
