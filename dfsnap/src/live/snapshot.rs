//! The payload of a full resync as a stream of bytes: what a live server holds, read like an RDB file.
//!
//! Everything that reads dumps can read a server through it. The primary's stream of changes is not wanted; the link
//! ends with the payload.

use super::feed::{Feed, FeedError, Step, failure_of};
use super::url::Url;
use crate::report::Failure;
use dfsnap_formats::rdb::reader::{Options, RdbReader, Record};
use dfsnap_replica::{Disconnect, Event, LinkConfig, PayloadStart, ReplId};
use std::io::{self, Read};

/// What is known about a payload before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The history and its offset at the cut. None: from a primary that only knows SYNC.
    pub origin: Option<(ReplId, u64)>,
    /// None: it ends at a mark.
    pub bytes: Option<u64>,
}

/// The bytes of an RDB file, as they arrive. A link that is lost is an error that `lost` recognizes.
pub struct Snapshot {
    feed: Feed,
    facts: Facts,
    /// Arrived and not taken: from `taken` on.
    ready: Vec<u8>,
    taken: usize,
    is_complete: bool,
}

/// Asks the server for all it holds, and waits until the first bytes are on their way.
pub fn snapshot(url: &Url) -> Result<Snapshot, Failure> {
    let name = url.to_string();
    begin(url, After::End).map_err(|error| error.into_failure(&name))
}

/// What becomes of the link behind the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    End,
    /// The stream of changes follows: see `Snapshot::into_feed`.
    Stream,
}

/// As `snapshot`, for callers that try again.
pub fn begin(url: &Url, after: After) -> Result<Snapshot, FeedError> {
    let config = LinkConfig {
        rdb_only: after == After::End,
        ..LinkConfig::default()
    };
    let mut feed = Feed::connect(url, config, None)?;
    let mut start = None;
    while start.is_none() {
        feed.step(&mut |event| {
            if let Event::PayloadStart(found) = event {
                start = Some(Facts::of(found));
            }
            Ok(())
        })?;
    }
    Ok(Snapshot {
        feed,
        facts: start.expect("the loop ends with it"),
        ready: Vec::new(),
        taken: 0,
        is_complete: false,
    })
}

impl Facts {
    pub fn of(start: PayloadStart) -> Facts {
        Facts {
            origin: start.origin,
            bytes: match start.form {
                dfsnap_replica::Form::Length(bytes) => Some(bytes),
                dfsnap_replica::Form::Mark(_) => None,
            },
        }
    }
}

impl Snapshot {
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// A sign of life while the caller is busy. What is lost now is found when the link is used again.
    pub fn beat(&mut self) {
        let _ = self.feed.beat();
    }

    /// The link, behind the payload; it waits for `Feed::loaded`.
    pub fn into_feed(self) -> Feed {
        assert!(self.is_complete, "a payload that was not read to its end");
        self.feed
    }

    fn refill(&mut self) -> Result<(), FeedError> {
        self.ready.clear();
        self.taken = 0;
        while self.ready.is_empty() && !self.is_complete {
            let (ready, is_complete) = (&mut self.ready, &mut self.is_complete);
            let step = self.feed.step(&mut |event| {
                match event {
                    Event::PayloadBytes(bytes) => ready.extend_from_slice(bytes),
                    Event::PayloadEnd => *is_complete = true,
                    _ => {}
                }
                Ok(())
            })?;
            debug_assert!(matches!(step, Step::Event | Step::Quiet));
        }
        Ok(())
    }
}

impl Read for Snapshot {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.ready.len() {
            self.refill()
                .map_err(|error| io::Error::other(Ended(error)))?;
        }
        let ready = &self.ready[self.taken..];
        let n = ready.len().min(buf.len());
        buf[..n].copy_from_slice(&ready[..n]);
        self.taken += n;
        Ok(n)
    }
}

/// A feed error on its way through `Read`.
#[derive(Debug)]
struct Ended(FeedError);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            FeedError::Lost(why) => why.fmt(f),
            FeedError::Stopped => f.write_str("stopped by a signal"),
            FeedError::Failed(failure) => f.write_str(&failure.message),
        }
    }
}

impl std::error::Error for Ended {}

/// The link was lost while a snapshot was read: why.
pub fn lost(error: &io::Error) -> Option<&Disconnect> {
    match ended(error)? {
        FeedError::Lost(why) => Some(why),
        _ => None,
    }
}

/// The failure for an error of `Snapshot::read`; None: it is another reader's.
pub fn failure(name: &str, error: &io::Error) -> Option<Failure> {
    Some(match ended(error)? {
        FeedError::Lost(why) => failure_of(name, why),
        FeedError::Stopped => super::client::interrupted(name),
        FeedError::Failed(failure) => Failure {
            message: failure.message.clone(),
            advice: failure.advice.clone(),
        },
    })
}

/// A failure that goes through `Read` to whoever asks `failure` for it.
pub fn carry(failure: Failure) -> io::Error {
    io::Error::other(Ended(FeedError::Failed(failure)))
}

fn ended(error: &io::Error) -> Option<&FeedError> {
    error
        .get_ref()?
        .downcast_ref::<Ended>()
        .map(|ended| &ended.0)
}

/// The database that is selected where the stream behind a dump goes on, by what stands at the beginning of the dump.
pub fn stream_db(head: &[u8]) -> u32 {
    let options = Options {
        check_crc: false,
        ..Options::default()
    };
    let mut reader = RdbReader::new(head, options);
    // Whatever ends the fields ends the search; a primary that says nothing sends a SELECT first.
    while let Ok(Some(record @ (Record::Header(_) | Record::Aux { .. }))) = reader.next() {
        if let Record::Aux { name, value } = record
            && name[..] == *b"repl-stream-db"
        {
            let text = std::str::from_utf8(&value).unwrap_or_default();
            return text.parse().unwrap_or(0);
        }
    }
    0
}
