//! CLIENT TRACKING, CACHING, GETREDIR and TRACKINGINFO of a connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::connection::Connection;
use super::transaction::WORD_BYTES;
use crate::command::CommandError;
use crate::keyspace::value::canonical_i64;
use crate::pubsub::tracking::{Caller, Options, Tracker};

/// What a connection tracks.
#[derive(Default)]
pub struct TrackingState {
    tracker: Option<Arc<Tracker>>,
    /// CLIENT CACHING for the next command.
    caching: Option<bool>,
}

impl TrackingState {
    /// About the bytes that its prefixes take.
    pub fn bytes(&self) -> usize {
        let prefixes = self.tracker.iter().flat_map(|tracker| &tracker.prefixes);
        // Each stands here and in the table of prefixes.
        prefixes.map(|prefix| 2 * (prefix.len() + WORD_BYTES)).sum()
    }

    /// Whether CLIENT CACHING said something about the next command.
    #[inline]
    pub fn is_caching_set(&self) -> bool {
        self.caching.is_some()
    }
}

impl Connection {
    /// Keeps `self.caller` up to date with what the connection wants.
    pub(super) fn renew_caller(&mut self) {
        let state = &self.tracking;
        let reads_for = state.tracker.as_ref().filter(|tracker| {
            let options = tracker.options;
            !(options.is_broadcast
                || options.opts_in && state.caching != Some(true)
                || options.opts_out && state.caching == Some(false))
        });
        self.caller = Caller {
            id: self.client.id,
            is_no_touch: self.client.is_no_touch.load(Ordering::Relaxed),
            is_inner: false,
            reads_for: reads_for.cloned(),
        };
    }

    /// A command has run: CLIENT CACHING counts no more.
    #[inline]
    pub(super) fn forget_caching(&mut self) {
        if self.tracking.caching.is_some() && self.transaction.is_none() {
            self.tracking.caching = None;
            self.renew_caller();
        }
    }

    /// CLIENT TRACKING.
    pub(super) fn set_tracking(&mut self, args: &[&[u8]]) -> Result<(), CommandError> {
        let wanted = Wanted::parse(self, &args[1..])?;
        match args[0].to_ascii_lowercase().as_slice() {
            b"on" => {
                wanted.check(self.tracking.tracker.as_deref())?;
                self.start_tracking(wanted);
            }
            b"off" => self.stop_tracking(),
            _ => return Err(CommandError::SYNTAX),
        }
        self.out.ok();
        Ok(())
    }

    fn start_tracking(&mut self, mut wanted: Wanted) {
        if let Some(old) = self.tracking.tracker.take() {
            // A client that broadcasts may add prefixes.
            wanted.prefixes.extend(old.prefixes.iter().cloned());
            self.thread.world.hub.tracking.stop(&old);
        }
        wanted.prefixes.sort();
        let tracker = Arc::new(Tracker::new(
            self.client.outbox.clone(),
            wanted.redirect,
            wanted.options,
            wanted.prefixes,
        ));
        self.thread.world.hub.tracking.start(&tracker);
        self.client
            .change_texts(|texts| texts.tracker = Some(tracker.clone()));
        self.tracking.tracker = Some(tracker);
        self.renew_caller();
    }

    /// CLIENT TRACKING OFF, RESET and the end of the connection.
    pub(super) fn stop_tracking(&mut self) {
        if let Some(tracker) = self.tracking.tracker.take() {
            self.thread.world.hub.tracking.stop(&tracker);
            self.client.change_texts(|texts| texts.tracker = None);
        }
        self.tracking.caching = None;
        self.renew_caller();
    }

    /// CLIENT CACHING.
    pub(super) fn set_caching(&mut self, word: &[u8]) -> Result<(), CommandError> {
        let options = self
            .tracking
            .tracker
            .as_ref()
            .map(|tracker| tracker.options);
        let options = options.ok_or(CommandError::text(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ))?;
        self.tracking.caching = Some(if word.eq_ignore_ascii_case(b"yes") {
            if !options.opts_in {
                return Err(CommandError::text(
                    "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
                ));
            }
            true
        } else if word.eq_ignore_ascii_case(b"no") {
            if !options.opts_out {
                return Err(CommandError::text(
                    "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
                ));
            }
            false
        } else {
            return Err(CommandError::SYNTAX);
        });
        self.renew_caller();
        self.out.ok();
        Ok(())
    }

    /// CLIENT GETREDIR.
    pub(super) fn reply_redirection(&mut self) {
        let id = redirection(self.tracking.tracker.as_deref());
        self.out.int(id);
    }

    /// CLIENT TRACKINGINFO.
    pub(super) fn reply_tracking_info(&mut self) {
        let (tracker, caching) = (self.tracking.tracker.clone(), self.tracking.caching);
        let mut flags = vec!["off"];
        if let Some(tracker) = &tracker {
            let options = tracker.options;
            flags = vec!["on"];
            let more = [
                ("bcast", options.is_broadcast),
                ("optin", options.opts_in),
                ("caching-yes", options.opts_in && caching == Some(true)),
                ("optout", options.opts_out),
                ("caching-no", options.opts_out && caching == Some(false)),
                ("noloop", options.is_no_loop),
                ("broken_redirect", is_broken(tracker)),
            ];
            flags.extend(
                more.iter()
                    .filter(|(_, is_set)| *is_set)
                    .map(|(name, _)| *name),
            );
        }
        let out = &mut self.out;
        out.map(3);
        out.bulk(b"flags");
        out.set(flags.len());
        flags.iter().for_each(|flag| out.bulk(flag.as_bytes()));
        out.bulk(b"redirect");
        out.int(redirection(tracker.as_deref()));
        out.bulk(b"prefixes");
        let prefixes = tracker
            .as_ref()
            .map_or(&[][..], |tracker| &tracker.prefixes);
        // Who hears of all keys has one prefix, of no bytes.
        let everything = [Vec::new()];
        let is_of_all =
            prefixes.is_empty() && tracker.as_ref().is_some_and(|t| t.options.is_broadcast);
        let prefixes = if is_of_all { &everything[..] } else { prefixes };
        out.array(prefixes.len());
        prefixes.iter().for_each(|prefix| out.bulk(prefix));
    }
}

/// Whether the client that is to get the messages has gone.
pub fn is_broken(tracker: &Tracker) -> bool {
    tracker
        .redirect
        .as_ref()
        .is_some_and(|target| !target.is_open())
}

/// The id that CLIENT GETREDIR and CLIENT LIST show: -1 without tracking, 0 without redirection.
pub fn redirection(tracker: Option<&Tracker>) -> i64 {
    tracker.map_or(-1, |tracker| {
        tracker
            .redirect
            .as_ref()
            .map_or(0, |target| target.client_id as i64)
    })
}

/// The options of CLIENT TRACKING.
struct Wanted {
    options: Options,
    redirect: Option<Arc<crate::pubsub::outbox::Outbox>>,
    prefixes: Vec<Vec<u8>>,
}

impl Wanted {
    fn parse(connection: &Connection, args: &[&[u8]]) -> Result<Wanted, CommandError> {
        let mut wanted = Wanted {
            options: Options::default(),
            redirect: None,
            prefixes: Vec::new(),
        };
        let mut words = args.iter();
        while let Some(word) = words.next() {
            let has_more = words.len() > 0;
            match word.to_ascii_lowercase().as_slice() {
                b"redirect" if has_more => {
                    if wanted.redirect.is_some() {
                        return Err(CommandError::text(
                            "ERR A client can only redirect to a single other client",
                        ));
                    }
                    let id = words.next().and_then(|word| canonical_i64(word));
                    let id = id.ok_or(CommandError::NOT_INTEGER)?;
                    let clients = connection.thread.world.clients();
                    let target = clients.iter().find(|client| client.id as i64 == id);
                    let target = target.ok_or(CommandError::text(
                        "ERR The client ID you want redirect to does not exist",
                    ))?;
                    wanted.redirect = Some(target.outbox.clone());
                }
                b"prefix" if has_more => {
                    wanted
                        .prefixes
                        .extend(words.next().map(|word| word.to_vec()));
                }
                b"bcast" => wanted.options.is_broadcast = true,
                b"optin" => wanted.options.opts_in = true,
                b"optout" => wanted.options.opts_out = true,
                b"noloop" => wanted.options.is_no_loop = true,
                _ => return Err(CommandError::SYNTAX),
            }
        }
        Ok(wanted)
    }

    fn check(&self, old: Option<&Tracker>) -> Result<(), CommandError> {
        let options = self.options;
        if !options.is_broadcast && !self.prefixes.is_empty() {
            return Err(CommandError::text(
                "ERR PREFIX option requires BCAST mode to be enabled",
            ));
        }
        if old.is_some_and(|old| old.options.is_broadcast != options.is_broadcast) {
            return Err(CommandError::text(
                "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.",
            ));
        }
        if options.is_broadcast && (options.opts_in || options.opts_out) {
            return Err(CommandError::text(
                "ERR OPTIN and OPTOUT are not compatible with BCAST",
            ));
        }
        if options.opts_in && options.opts_out {
            return Err(CommandError::text(
                "ERR You can't specify both OPTIN mode and OPTOUT mode",
            ));
        }
        if old.is_some_and(|old| {
            options.opts_in && old.options.opts_out || options.opts_out && old.options.opts_in
        }) {
            return Err(CommandError::text(
                "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.",
            ));
        }
        self.check_prefixes(old)
    }

    fn check_prefixes(&self, old: Option<&Tracker>) -> Result<(), CommandError> {
        let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
        let refused = |prefix: &[u8], what: &str, other: &[u8]| {
            CommandError::new(format!(
                "Prefix '{}' overlaps with {what} prefix '{}'. Prefixes for a single client must not overlap.",
                String::from_utf8_lossy(prefix),
                String::from_utf8_lossy(other)
            ))
        };
        for (i, prefix) in self.prefixes.iter().enumerate() {
            for known in old.iter().flat_map(|old| &old.prefixes) {
                if overlap(prefix, known) {
                    return Err(refused(prefix, "an existing", known));
                }
            }
            for other in &self.prefixes[i + 1..] {
                if overlap(prefix, other) {
                    return Err(refused(prefix, "another provided", other));
                }
            }
        }
        Ok(())
    }
}
