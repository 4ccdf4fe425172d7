//! SUBSCRIBE and its relatives: what a connection listens to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dfsnap_formats::resp::Protocol;

use super::connection::Connection;
use super::transaction::WORD_BYTES;
use crate::command::{Command, CommandError, Run, Session};
use crate::pubsub::{Kind, Name};

/// The names that a connection has subscribed to.
#[derive(Default)]
pub struct Subscriptions {
    channels: BTreeSet<Name>,
    patterns: BTreeSet<Name>,
    shard_channels: BTreeSet<Name>,
    /// Of the names, here and where messages look for those who listen.
    bytes: usize,
}

impl Subscriptions {
    fn of(&mut self, kind: Kind) -> &mut BTreeSet<Name> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shard_channels,
        }
    }

    /// The number that a confirmation shows: shard channels are counted apart.
    fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.shard_channels.len(),
            Kind::Channel | Kind::Pattern => self.channels.len() + self.patterns.len(),
        }
    }

    /// About the bytes they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn insert(&mut self, kind: Kind, name: Name) -> bool {
        let bytes = bytes_of(&name);
        let is_new = self.of(kind).insert(name);
        self.bytes += if is_new { bytes } else { 0 };
        is_new
    }

    fn remove(&mut self, kind: Kind, name: &Name) -> bool {
        let was_there = self.of(kind).remove(name);
        self.bytes -= if was_there { bytes_of(name) } else { 0 };
        was_there
    }

    /// Whether there are none at all.
    pub fn is_empty(&self) -> bool {
        self.count(Kind::Channel) + self.count(Kind::Shard) == 0
    }
}

fn bytes_of(name: &Name) -> usize {
    name.len() + 4 * WORD_BYTES
}

impl Connection {
    /// Whether only commands about subscriptions are allowed now: RESP2 cannot tell messages from replies.
    pub(super) fn refuses_in_subscriber_mode(&self, command: &Command) -> Option<CommandError> {
        if !self.is_resp2_subscriber() {
            return None;
        }
        let is_allowed = matches!(
            command.run,
            Run::Session(
                Session::Subscribe
                    | Session::Psubscribe
                    | Session::Ssubscribe
                    | Session::Unsubscribe
                    | Session::Punsubscribe
                    | Session::Sunsubscribe
                    | Session::Ping
                    | Session::Quit
                    | Session::Reset
            )
        );
        (!is_allowed).then(|| {
            CommandError::new(format!(
                "Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                command.name
            ))
        })
    }

    /// Whether messages and replies would be hard to tell apart.
    pub(super) fn is_resp2_subscriber(&self) -> bool {
        !self.subscriptions.is_empty() && self.out.protocol() == Protocol::Resp2
    }

    /// Runs one of the six commands.
    pub(super) fn change_subscriptions(&mut self, session: Session, names: &[&[u8]]) {
        // Confirmations are no replies: they are sent whatever CLIENT REPLY says.
        self.is_muted = false;
        match session {
            Session::Subscribe => self.subscribe(Kind::Channel, b"subscribe", names),
            Session::Psubscribe => self.subscribe(Kind::Pattern, b"psubscribe", names),
            Session::Ssubscribe => self.subscribe(Kind::Shard, b"ssubscribe", names),
            Session::Unsubscribe => self.unsubscribe(Kind::Channel, b"unsubscribe", names),
            Session::Punsubscribe => self.unsubscribe(Kind::Pattern, b"punsubscribe", names),
            _ => self.unsubscribe(Kind::Shard, b"sunsubscribe", names),
        }
        self.show_subscriptions();
    }

    fn subscribe(&mut self, kind: Kind, word: &[u8], names: &[&[u8]]) {
        let world = self.thread.world.clone();
        for name in names {
            let name: Name = Arc::from(*name);
            if self.subscriptions.insert(kind, name.clone()) {
                world.hub.subscribe(kind, &name, &self.client.outbox);
            }
            self.confirm(kind, word, Some(&name));
        }
    }

    fn unsubscribe(&mut self, kind: Kind, word: &[u8], names: &[&[u8]]) {
        let names: Vec<Name> = if names.is_empty() {
            self.subscriptions.of(kind).iter().cloned().collect()
        } else {
            names.iter().map(|name| Arc::from(*name)).collect()
        };
        if names.is_empty() {
            self.confirm(kind, word, None);
        }
        let world = self.thread.world.clone();
        for name in names {
            if self.subscriptions.remove(kind, &name) {
                world.hub.unsubscribe(kind, &name, &self.client.outbox);
            }
            self.confirm(kind, word, Some(&name));
        }
    }

    fn confirm(&mut self, kind: Kind, word: &[u8], name: Option<&[u8]>) {
        let count = self.subscriptions.count(kind);
        self.out.push(3);
        self.out.bulk(word);
        match name {
            Some(name) => self.out.bulk(name),
            None => self.out.null(),
        }
        self.out.int(count as i64);
    }

    /// Ends all subscriptions without a word.
    pub(super) fn forget_subscriptions(&mut self) {
        for kind in [Kind::Channel, Kind::Pattern, Kind::Shard] {
            for name in std::mem::take(self.subscriptions.of(kind)) {
                self.thread
                    .world
                    .hub
                    .unsubscribe(kind, &name, &self.client.outbox);
            }
        }
        self.subscriptions.bytes = 0;
        self.show_subscriptions();
    }

    /// What CLIENT LIST shows.
    fn show_subscriptions(&self) {
        let shown = &self.client.subscriptions;
        for (shown, names) in shown.iter().zip([
            &self.subscriptions.channels,
            &self.subscriptions.patterns,
            &self.subscriptions.shard_channels,
        ]) {
            shown.store(names.len() as u32, Ordering::Relaxed);
        }
    }
}
