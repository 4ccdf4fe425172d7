//! How far reading is: a line on standard error for everything that takes more than a second.
//!
//! `Source` counts the bytes that it reads, `check`, `salvage` and `backup` those that they read themselves, a scan its keys; all show the same
//! line. There is none where standard error is no terminal, unless `--progress` asks for it: then it comes as a line of its own every second.

use crate::report;
use std::cell::RefCell;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// `--progress` was given.
static IS_FORCED: AtomicBool = AtomicBool::new(false);

/// Shows progress also where standard error is no terminal.
pub fn force() {
    IS_FORCED.store(true, Ordering::Relaxed);
}

/// Nothing is shown before, as most work is done by then.
const SILENT: Duration = Duration::from_secs(1);
/// A terminal shows a new line so often, a file gets one so often.
const ON_TERMINAL: Duration = Duration::from_millis(100);
const IN_FILE: Duration = Duration::from_secs(1);

/// The progress of one source, which may have several files.
#[derive(Clone)]
pub struct Progress(Option<Rc<RefCell<State>>>);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    Keys,
}

struct State {
    is_terminal: bool,
    unit: Unit,
    done: u64,
    /// None: it is not known how much there is.
    total: Option<u64>,
    started: Instant,
    next_at: Instant,
    /// There is a line on the terminal that has to go.
    is_shown: bool,
}

impl Progress {
    /// `is_silent`: the terminal shows the results while they come.
    pub fn new(total: Option<u64>, is_silent: bool) -> Self {
        Progress::of(Unit::Bytes, total, is_silent)
    }

    /// Of so many keys, which `add` counts.
    pub fn of_keys(total: u64) -> Self {
        Progress::of(Unit::Keys, Some(total), false)
    }

    fn of(unit: Unit, total: Option<u64>, is_silent: bool) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let is_forced = IS_FORCED.load(Ordering::Relaxed);
        if !is_forced && (is_silent || !is_terminal) {
            return Progress(None);
        }
        let started = Instant::now();
        Progress(Some(Rc::new(RefCell::new(State {
            is_terminal,
            unit,
            done: 0,
            total,
            started,
            next_at: started + SILENT,
            is_shown: false,
        }))))
    }

    /// Of files that are read one after another.
    pub fn of_files(paths: impl Iterator<Item = PathBuf>) -> Self {
        let sizes = paths.map(|path| path.metadata().ok().map(|meta| meta.len()));
        Progress::new(Some(sizes.flatten().sum()), false)
    }

    /// So much more is done.
    pub fn add(&self, count: u64) {
        if let Some(state) = &self.0 {
            state.borrow_mut().add(count);
        }
    }

    /// The same bytes, counted.
    pub fn watch<'r>(&self, bytes: Box<dyn Read + 'r>) -> Box<dyn Read + 'r> {
        match &self.0 {
            None => bytes,
            Some(state) => Box::new(Watched {
                bytes,
                state: Rc::clone(state),
            }),
        }
    }
}

struct Watched<'r> {
    bytes: Box<dyn Read + 'r>,
    state: Rc<RefCell<State>>,
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(into)?;
        self.state.borrow_mut().add(count as u64);
        Ok(count)
    }
}

impl State {
    fn add(&mut self, count: u64) {
        self.done += count;
        let now = Instant::now();
        if now < self.next_at {
            return;
        }
        let line = line(self.unit, self.done, self.total, now - self.started);
        // There is no one to tell that standard error is gone.
        let mut out = io::stderr().lock();
        let _ = match self.is_terminal {
            true => write!(out, "\r{line}\x1b[K").and_then(|()| out.flush()),
            false => writeln!(out, "{line}"),
        };
        self.is_shown = self.is_terminal;
        self.next_at = now
            + match self.is_terminal {
                true => ON_TERMINAL,
                false => IN_FILE,
            };
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// `[#######·············] 37 %  1.20 GiB of 3.20 GiB  412 MiB/s  5 s left`
fn line(unit: Unit, done: u64, total: Option<u64>, time: Duration) -> String {
    const CELLS: u64 = 20;
    let amount = |count: u64| match unit {
        Unit::Bytes => report::bytes(count),
        Unit::Keys => format!("{count} keys"),
    };
    let rate = (done as f64 / time.as_secs_f64().max(0.001)) as u64;
    let rate_shown = amount(rate);
    let Some(total) = total.filter(|total| *total >= done && *total > 0) else {
        let so_far = amount(done);
        return format!("{so_far}  {rate_shown}/s  {} s", time.as_secs());
    };
    let full = (u128::from(done) * u128::from(CELLS) / u128::from(total)) as usize;
    let percent = u128::from(done) * 100 / u128::from(total);
    let left = (total - done).checked_div(rate);
    format!(
        "[{}{}] {percent:>3} %  {} of {}  {rate_shown}/s  {} left",
        "#".repeat(full),
        "-".repeat(CELLS as usize - full),
        amount(done),
        amount(total),
        left.map_or("unknown".to_owned(), seconds),
    )
}

fn seconds(count: u64) -> String {
    match count {
        0..60 => format!("{count} s"),
        60..3600 => format!("{} min {} s", count / 60, count % 60),
        _ => format!("{} h {} min", count / 3600, count % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_share_rate_and_time_left() {
        let mib = 1 << 20;
        let rows = [
            (
                line(
                    Unit::Bytes,
                    25 * mib,
                    Some(100 * mib),
                    Duration::from_secs(5),
                ),
                "[#####---------------]  25 %  25.0 MiB of 100 MiB  5.00 MiB/s  15 s left",
            ),
            (
                line(Unit::Bytes, mib, Some(7300 * mib), Duration::from_secs(1)),
                "[--------------------]   0 %  1.00 MiB of 7.13 GiB  1.00 MiB/s  2 h 1 min left",
            ),
            (
                line(Unit::Bytes, 10 * mib, None, Duration::from_secs(10)),
                "10.0 MiB  1.00 MiB/s  10 s",
            ),
            (
                line(Unit::Keys, 50, Some(200), Duration::from_secs(10)),
                "[#####---------------]  25 %  50 keys of 200 keys  5 keys/s  30 s left",
            ),
            (
                line(Unit::Bytes, 0, Some(10), Duration::ZERO),
                "[--------------------]   0 %  0 B of 10 B  0 B/s  unknown left",
            ),
        ];
        for (shown, want) in rows {
            assert_eq!(shown, want);
        }
    }
}
