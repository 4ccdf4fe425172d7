//! The stream of changes of a primary, over as many links as it takes.
//!
//! A link that is lost is made again and asks to go on from its position. When the primary cannot, it begins a full
//! resync; the taker sees that by `Event::PayloadStart` and decides.

use super::feed::{Feed, FeedError, Step, failure_of};
use super::stop;
use super::url::Url;
use crate::report::Failure;
use dfsnap_replica::{Event, LinkConfig, Phase, Position};
use std::time::Duration;

pub struct Following {
    url: Url,
    /// None: lost.
    feed: Option<Feed>,
    /// What the next link goes on from; None: a full resync.
    position: Option<Position>,
    /// Links in a row that did not reach the stream.
    failures: u32,
    attempts: u32,
}

/// Why following ended.
#[derive(Debug)]
pub enum End {
    /// A signal came; everything that was given is whole.
    Stopped,
    Failed(Failure),
}

const PAUSE: Duration = Duration::from_millis(500);

impl Following {
    /// From a position, or from a full resync. Gives up after so many links in a row that came to nothing.
    pub fn new(url: &Url, position: Option<Position>, attempts: u32) -> Following {
        Following {
            url: url.clone(),
            feed: None,
            position,
            failures: 0,
            attempts,
        }
    }

    /// Over a link that has just brought its payload.
    pub fn over(feed: Feed, url: &Url, position: Option<Position>, attempts: u32) -> Following {
        Following {
            feed: Some(feed),
            ..Following::new(url, position, attempts)
        }
    }

    /// Where a new link would go on.
    pub fn position(&self) -> Option<Position> {
        match &self.feed {
            Some(feed) => feed.position().or(self.position),
            None => self.position,
        }
    }

    /// The next event, or a fifth of a second of silence.
    pub fn step(
        &mut self,
        take: &mut dyn FnMut(Event<'_>) -> Result<(), Failure>,
    ) -> Result<Step, End> {
        let stepped = match self.link() {
            Ok(feed) => feed.step(take),
            Err(error) => Err(error),
        };
        stepped.or_else(|error| self.lost(error).map(|()| Step::Quiet))
    }

    /// The next event that has arrived already.
    pub fn ready(
        &mut self,
        take: &mut dyn FnMut(Event<'_>) -> Result<(), Failure>,
    ) -> Result<bool, End> {
        let Some(feed) = &mut self.feed else {
            return Ok(false);
        };
        let found = feed.ready(take);
        found.or_else(|error| self.lost(error).map(|()| false))
    }

    /// The payload is dealt with.
    pub fn loaded(&mut self, db: u32) {
        if let Some(feed) = &mut self.feed {
            feed.loaded(db);
        }
    }

    /// Everything up to this offset is dealt with.
    pub fn applied(&mut self, offset: u64) {
        if let Some(feed) = &mut self.feed {
            feed.applied(offset);
        }
    }

    /// A sign of life while the caller is busy. What is lost now is found with the next step.
    pub fn beat(&mut self) {
        if let Some(feed) = &mut self.feed
            && feed.beat().is_err()
        {
            self.feed = None;
        }
    }

    fn link(&mut self) -> Result<&mut Feed, FeedError> {
        if self.feed.is_none() {
            let feed = Feed::connect(&self.url, LinkConfig::default(), self.position)?;
            self.feed = Some(feed);
        }
        Ok(self.feed.as_mut().expect("made above"))
    }

    fn lost(&mut self, error: FeedError) -> Result<(), End> {
        let why = match error {
            FeedError::Stopped => return Err(End::Stopped),
            FeedError::Failed(failure) => return Err(End::Failed(failure)),
            FeedError::Lost(why) => why,
        };
        let was_up = match &self.feed {
            Some(feed) if feed.phase() == Phase::Stream => {
                self.position = feed.position();
                true
            }
            _ => false,
        };
        self.feed = None;
        if !why.keeps_position() {
            return Err(End::Failed(failure_of(&self.url.to_string(), &why)));
        }
        self.failures = if was_up { 1 } else { self.failures + 1 };
        if self.failures >= self.attempts {
            return Err(End::Failed(failure_of(&self.url.to_string(), &why)));
        }
        eprintln!("note: {}: {why}; connecting again", self.url);
        if stop::requested() {
            return Err(End::Stopped);
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }
}
