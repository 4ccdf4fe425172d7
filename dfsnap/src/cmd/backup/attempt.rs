//! A full resync into a file, as often as it takes: a link that is cut begins again.

use super::check::{Check, Counts};
use super::copy::Copy;
use crate::live::{Client, FeedError, Snapshot, Url, snapshot};
use crate::out::OutFile;
use crate::report::{self, Failure};
use crate::source::progress::Progress;
use dfsnap_formats::rdb::reader::{Options, RdbError, RdbReader};
use dfsnap_replica::Disconnect;
use std::path::Path;
use std::time::Duration;

/// Why an attempt came to nothing.
pub enum Attempt {
    /// Another one may do better.
    Again(String),
    Failed(Failure),
}

/// The pause before another attempt: it doubles from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Tries at most so often; the answer is what came of it, and of which attempt.
pub fn until<T>(
    url: &Url,
    attempts_max: u32,
    mut attempt: impl FnMut() -> Result<T, Attempt>,
) -> Result<(T, u32), Failure> {
    // An address that leads nowhere is no link that was cut.
    drop(Client::connect(url)?);
    let mut attempts = 0;
    loop {
        attempts += 1;
        match attempt() {
            Ok(done) => return Ok((done, attempts)),
            Err(Attempt::Failed(failure)) => return Err(failure),
            Err(Attempt::Again(why)) if attempts >= attempts_max => {
                return Err(Failure {
                    message: format!("{url}: gave up after {attempts} attempts: {why}"),
                    advice: "the server's log; or more --attempts".to_owned(),
                });
            }
            Err(Attempt::Again(why)) => {
                eprintln!("note: attempt {attempts} of {attempts_max}: {why}; starting over");
            }
        }
        std::thread::sleep(
            PAUSE_MIN
                .saturating_mul(1 << attempts.min(10))
                .min(PAUSE_MAX),
        );
    }
}

/// Checks the payload and writes it; the file appears when both are done.
pub fn to_file(url: &Url, snapshot: &mut Snapshot, path: &Path) -> Result<(Counts, u64), Attempt> {
    let origin = snapshot.facts().origin;
    let mut file = OutFile::create(path).map_err(Attempt::Failed)?;
    let mut bytes = 0;
    let write = |piece: &[u8]| {
        bytes += piece.len() as u64;
        file.write(piece).map_err(snapshot::carry)
    };
    let progress = Progress::new(snapshot.facts().bytes, false);
    let copy = Copy::new(progress.watch(Box::new(&mut *snapshot)), write, origin);
    let mut reader = RdbReader::new(copy, Options::default());
    let mut check = Check::default();
    let failed = |error| Attempt::of_read(url, path, error);
    check.all(&mut reader).map_err(failed)?;
    let (version, end) = (reader.header().version, reader.offset());
    let (_, mut copy) = reader.into_parts();
    let at_end = |source| {
        failed(RdbError::Io {
            offset: end,
            source,
        })
    };
    std::io::copy(&mut copy, &mut std::io::sink()).map_err(at_end)?;
    if copy.read != end {
        let sent = copy.read;
        return Err(Attempt::Failed(Failure {
            message: format!("{url}: sent {sent} bytes, but the dump in them ends after {end}"),
            advice: "dfsnap backup --scan, and a report of this to the makers of the server"
                .to_owned(),
        }));
    }
    copy.finish(version).map_err(at_end)?;
    drop(progress);
    // Whoever follows the link afterwards wants it to live until then.
    let committed = file.commit_while(&mut || snapshot.beat());
    committed.map_err(Attempt::Failed)?;
    Ok((check.counts, bytes))
}

impl Attempt {
    pub fn of_feed(url: &Url, error: FeedError) -> Attempt {
        match error {
            FeedError::Lost(why) if may_pass(&why) => Attempt::Again(why.to_string()),
            error => Attempt::Failed(error.into_failure(&url.to_string())),
        }
    }

    /// Reading failed: the link, the disk that the bytes go to on the way, or the data.
    pub fn of_read(url: &Url, path: &Path, error: RdbError) -> Attempt {
        let name = url.to_string();
        match &error {
            RdbError::Io { offset, source } => match snapshot::lost(source) {
                Some(why) if may_pass(why) => {
                    Attempt::Again(format!("after {}: {why}", report::bytes(*offset)))
                }
                _ => Attempt::Failed(
                    snapshot::failure(&name, source)
                        .unwrap_or_else(|| Failure::write(path, source)),
                ),
            },
            RdbError::Checksum { .. } => Attempt::Again(error.to_string()),
            _ => Attempt::Failed(Failure {
                message: format!("{name}: {error}"),
                advice: "the server holds or sends damaged data: look at the key with redis-cli; --scan shows whether DUMP is sound".to_owned(),
            }),
        }
    }
}

/// What a later attempt may not meet again.
fn may_pass(why: &Disconnect) -> bool {
    why.is_passing()
        || matches!(
            why,
            Disconnect::NotReady { .. } | Disconnect::SyncFailed { .. }
        )
}
