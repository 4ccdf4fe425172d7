//! Commands about the session, and those about the server as a whole that a connection carries out.

use std::sync::atomic::Ordering;

use dfsnap_formats::resp::Protocol;

use super::connection::Connection;
use super::flow::ReplyMode;
use super::greeting::{Greeting, describe_server};
use super::redaction::redacted;
use super::transaction::Transaction;
use crate::clock::now_ms;
use crate::command::call::Words;
use crate::command::{Command, CommandError, Flags, Run, Session};
use crate::keyspace::DbIndex;
use crate::keyspace::value::canonical_i64;
use crate::stats::{activity, subcommand_name};

/// Commands that are counted by their subcommands.
const CONTAINERS: [&str; 8] = [
    "client", "cluster", "command", "config", "latency", "memory", "module", "slowlog",
];

/// Says, while a session command does something on this thread, that it runs here; not while it waits.
async fn said<R>(name: &'static str, running: impl Future<Output = R>) -> R {
    let mut running = std::pin::pin!(running);
    std::future::poll_fn(|context| {
        let _doing = activity::begin(name);
        running.as_mut().poll(context)
    })
    .await
}

impl Connection {
    /// Runs a session command; its reply goes behind what is in `out`.
    pub(super) async fn run_session(
        &mut self,
        command: &'static Command,
        session: Session,
        words: Words,
    ) {
        let started = std::time::Instant::now();
        let start = self.out.len();
        let shown = words.clone();
        let result = said(command.name, self.try_session(session, words)).await;
        if let Err(error) = &result {
            self.out.truncate(start);
            self.out.error(&error.0);
        }
        let nanos = started.elapsed().as_nanos() as u64;
        self.note_session(command, &shown, nanos, result.err());
    }

    /// Counts a command that the connection itself carried out. What waits for others is not slow for it.
    pub(super) fn note_session(
        &mut self,
        command: &'static Command,
        words: &Words,
        nanos: u64,
        error: Option<CommandError>,
    ) {
        let thread = self.thread.clone();
        let mut shard = thread.shard.borrow_mut();
        let is_unknown =
            (error.as_ref()).is_some_and(|error| error.0.contains("unknown subcommand"));
        if let Some(error) = &error {
            shard.stats.error(&error.0);
        }
        let name = match words.iter().nth(1) {
            Some(word) if CONTAINERS.contains(&command.name) && !is_unknown => {
                subcommand_name(command.name, word)
            }
            _ => command.name,
        };
        if CONTAINERS.contains(&command.name) {
            self.client.change_texts(|texts| texts.command = name);
        }
        let recorder = shard.settings.recorder.clone();
        let tracks = recorder.tracks_latency();
        shard.stats.ran(name, nanos, error.is_some(), tracks);
        let waits = matches!(
            command.run,
            Run::Session(
                Session::Wait | Session::Waitaof | Session::Exec | Session::Psync | Session::Sync
            )
        );
        if !waits {
            let is_fast = command.flags.has(Flags::FAST);
            words.with(|words| {
                let words = redacted(command, words);
                recorder.ran(&words, nanos, self.client.id, is_fast);
            });
        }
    }

    async fn try_session(&mut self, session: Session, words: Words) -> Result<(), CommandError> {
        let args: Vec<Vec<u8>> = words.iter().map(<[u8]>::to_vec).collect();
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        match session {
            Session::Acl => super::acl::acl(self, &args).await,
            Session::Auth => self.auth(&args),
            Session::Client => super::client::client(self, &args).await,
            Session::Command => super::commands::command(&mut self.out, &args),
            Session::Config => {
                super::introspection::config(self, &args).await?;
                // What was set holds on all threads before the reply says so.
                self.thread.world.links.call_all(|_| ()).await;
                Ok(())
            }
            Session::Debug => super::debug::debug(self, &args).await,
            Session::Discard => self.discard(),
            Session::Echo => {
                self.out.bulk(args[1]);
                Ok(())
            }
            Session::Exec => {
                self.is_in_exec = true;
                let result = self.exec().await;
                self.is_in_exec = false;
                if self.thread.world.hub.has_monitors()
                    && let Some(command) = crate::command::table::find(args[0])
                {
                    self.show_to_monitors(command, &args);
                }
                result
            }
            Session::Hello => self.hello(&args),
            Session::Info => {
                let text = crate::info::info(&self.thread.world, &args[1..]).await;
                // It is a little longer or shorter each time: a buffer that grows by doubling would stay at twice what it takes.
                self.out.buf_mut().reserve_exact(text.len() + 32);
                self.out.verbatim(b"txt", text.as_bytes());
                Ok(())
            }
            Session::Monitor => {
                self.monitor();
                Ok(())
            }
            Session::Memory => super::memory::memory(self, words).await,
            Session::Migrate => super::migrate::migrate(self, &args).await,
            Session::Module => super::modules::module(self, &args),
            Session::Latency => super::observation::latency(self, &args).await,
            Session::Slowlog => super::observation::slowlog(self, &args),
            Session::Cluster => super::cluster::cluster(self, &args).await,
            Session::ClusterMode => super::cluster::mode(&self.thread.world, &mut self.out),
            Session::Multi => self.multi(),
            Session::Ping => self.ping(&args),
            Session::Quit => {
                self.out.ok();
                self.is_closing = true;
                Ok(())
            }
            Session::Reset => {
                self.reset();
                Ok(())
            }
            Session::Script => match args.as_slice() {
                [_, name, mode] if name.eq_ignore_ascii_case(b"debug") => self.script_debug(mode),
                _ => crate::command::script::script(&args, &mut self.out),
            },
            Session::Function => super::functions::function(self, words).await,
            Session::Subscribe
            | Session::Psubscribe
            | Session::Ssubscribe
            | Session::Unsubscribe
            | Session::Punsubscribe
            | Session::Sunsubscribe => {
                self.change_subscriptions(session, &args[1..]);
                Ok(())
            }
            Session::Select => self.select(args[1]),
            Session::Time => {
                self.time();
                Ok(())
            }
            Session::Unwatch => {
                self.forget_watches();
                self.out.ok();
                Ok(())
            }
            Session::Watch => {
                self.watch(words).await;
                Ok(())
            }
            Session::Bgrewriteaof
            | Session::Bgsave
            | Session::Lastsave
            | Session::Save
            | Session::Shutdown => super::persistence::run(self, session, &args).await,
            Session::Psync
            | Session::Sync
            | Session::Replconf
            | Session::Replicaof
            | Session::Failover
            | Session::Role
            | Session::Wait
            | Session::Waitaof => super::replicas::run(self, session, &args).await,
        }
    }

    fn ping(&mut self, args: &[&[u8]]) -> Result<(), CommandError> {
        match args {
            [_] | [_, _] if self.is_resp2_subscriber() => {
                self.out.array(2);
                self.out.bulk(b"pong");
                self.out.bulk(args.get(1).copied().unwrap_or_default());
            }
            [_] => self.out.simple("PONG"),
            [_, text] => self.out.bulk(text),
            _ => return Err(CommandError::wrong_arity("ping")),
        }
        Ok(())
    }

    fn monitor(&mut self) {
        if !std::mem::replace(&mut self.is_monitor, true) {
            self.thread.world.hub.add_monitor(&self.client.outbox);
            self.client.is_monitor.store(true, Ordering::Relaxed);
        }
        self.out.ok();
    }

    fn multi(&mut self) -> Result<(), CommandError> {
        if self.transaction.is_some() {
            return Err(CommandError::new("MULTI calls can not be nested"));
        }
        self.transaction = Some(Transaction::default());
        self.client.multi.store(0, Ordering::Relaxed);
        self.out.ok();
        Ok(())
    }

    fn discard(&mut self) -> Result<(), CommandError> {
        if self.transaction.take().is_none() {
            return Err(CommandError::new("DISCARD without MULTI"));
        }
        self.client.multi.store(-1, Ordering::Relaxed);
        self.forget_watches();
        self.out.ok();
        Ok(())
    }

    fn database(&self, word: &[u8]) -> Result<DbIndex, CommandError> {
        let number = canonical_i64(word).ok_or(CommandError::NOT_INTEGER)?;
        let count = self.thread.world.config().databases;
        u32::try_from(number)
            .ok()
            .filter(|&n| n < count)
            .map(DbIndex)
            .ok_or(CommandError::DB_INDEX)
    }

    fn select(&mut self, word: &[u8]) -> Result<(), CommandError> {
        self.db = self.database(word)?;
        self.client.db.store(self.db.0, Ordering::Relaxed);
        self.out.ok();
        Ok(())
    }

    /// What a SELECT inside MULTI means for the commands behind it. Its reply is written later.
    pub(super) fn preview_select(&mut self, words: &Words) {
        if let Some(Ok(db)) = words.iter().nth(1).map(|word| self.database(word)) {
            self.db = db;
        }
    }

    fn auth(&mut self, args: &[&[u8]]) -> Result<(), CommandError> {
        let user = match args {
            [_, password] => {
                if crate::command::acl::default_user().is_nopass {
                    return Err(CommandError::new(
                        "AUTH <password> called without any password configured for the default user. Are you sure \
                         your configuration is correct?",
                    ));
                }
                self.user_of(b"default", password)?
            }
            [_, user, password] => self.user_of(user, password)?,
            _ => return Err(CommandError::SYNTAX),
        };
        self.become_user(user);
        self.out.ok();
        Ok(())
    }

    fn hello(&mut self, args: &[&[u8]]) -> Result<(), CommandError> {
        let greeting = Greeting::parse(args)?;
        match greeting.credentials {
            Some((name, password)) => {
                let user = self.user_of(name, password)?;
                self.become_user(user);
            }
            None if !self.is_authenticated => {
                return Err(CommandError::text(
                    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                     <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
                     same time",
                ));
            }
            None => {}
        }
        let world = self.thread.world.clone();
        if let Some(name) = greeting.name {
            super::client::rename(&world, &self.client, name);
        }
        if let Some(protocol) = greeting.protocol {
            self.set_protocol(protocol);
        }
        describe_server(&mut self.out, &world, &self.client);
        Ok(())
    }

    pub(super) fn set_protocol(&mut self, protocol: Protocol) {
        self.out.set_protocol(protocol);
        self.client.resp.store(
            if protocol == Protocol::Resp3 { 3 } else { 2 },
            Ordering::Relaxed,
        );
    }

    fn reset(&mut self) {
        self.transaction = None;
        self.client.multi.store(-1, Ordering::Relaxed);
        self.forget_watches();
        self.forget_subscriptions();
        self.stop_tracking();
        self.thread.world.hub.remove_monitor(&self.client.outbox);
        self.is_monitor = false;
        self.client.is_monitor.store(false, Ordering::Relaxed);
        self.client.is_no_touch.store(false, Ordering::Relaxed);
        self.client.is_no_evict.store(false, Ordering::Relaxed);
        self.reply_mode = ReplyMode::On;
        self.is_muted = false;
        self.renew_caller();
        self.db = DbIndex(0);
        self.client.db.store(0, Ordering::Relaxed);
        self.become_default();
        super::client::rename(&self.thread.world, &self.client, String::new());
        self.set_protocol(Protocol::Resp2);
        self.out.simple("RESET");
    }

    fn time(&mut self) {
        let micros = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or_else(|_| now_ms() as u128 * 1000, |since| since.as_micros());
        self.out.array(2);
        self.out.bulk((micros / 1_000_000).to_string().as_bytes());
        self.out.bulk((micros % 1_000_000).to_string().as_bytes());
    }
}
