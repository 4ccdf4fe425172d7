//! REPLICAOF, PSYNC, SYNC, REPLCONF, ROLE and WAIT.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dfsnap_formats::resp::{Reply, split_words};
use dfsnap_replica::Phase;
use tokio::io::AsyncReadExt;

use super::connection::{Connection, query_limit};
use super::socket::Socket;
use crate::command::blocking::{AfterError, End};
use crate::command::{CommandError, Session};
use crate::journal::Seq;
use crate::keyspace::value::canonical_i64;
use crate::log::LogState;
use crate::replication::{self, Filter, SyncRequest, failover};
use crate::world::{Control, FailoverStage, World};

/// Runs one of these commands.
pub async fn run(
    connection: &mut Connection,
    session: Session,
    args: &[&[u8]],
) -> Result<(), CommandError> {
    match session {
        Session::Replicaof => replicaof(connection, args[1], args[2]).await,
        Session::Failover => begin_failover(connection, args),
        Session::Replconf => replconf(connection, &args[1..]),
        Session::Psync => psync(connection, args).await,
        Session::Sync => {
            check_sync(connection)?;
            connection.takeover = Some(SyncRequest::Sync);
            Ok(())
        }
        Session::Role => {
            role(&connection.thread.world, &mut connection.out);
            Ok(())
        }
        Session::Wait => wait(connection, args).await,
        Session::Waitaof => wait_aof(connection, args).await,
        other => unreachable!("{other:?} is not about replication"),
    }
}

async fn replicaof(
    connection: &mut Connection,
    host: &[u8],
    port: &[u8],
) -> Result<(), CommandError> {
    let world = connection.thread.world.clone();
    if world.failover() != FailoverStage::None {
        return Err(CommandError::new(
            "REPLICAOF not allowed while failing over.",
        ));
    }
    if host.eq_ignore_ascii_case(b"no") && port.eq_ignore_ascii_case(b"one") {
        if world.is_replica.load(Ordering::Relaxed) {
            world
                .change_config(|config| config.store("replicaof", &[]))
                .map_err(CommandError::new)?;
            become_primary(&world).await;
        }
        connection.out.ok();
        return Ok(());
    }
    let port = canonical_i64(port).and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| CommandError::new("Invalid master port"))?;
    let host = String::from_utf8_lossy(host).into_owned();
    let is_same = world.link(|link| link.primary.as_ref() == Some(&(host.clone(), port)));
    if is_same {
        connection
            .out
            .simple("OK Already connected to specified master");
        return Ok(());
    }
    let text = port.to_string();
    world
        .change_config(|config| config.store("replicaof", &[&host, &text]))
        .map_err(CommandError::new)?;
    change_role(&world, move |control| {
        replication::follow(control, host, port, None)
    })
    .await;
    connection.out.ok();
    Ok(())
}

/// Changes the role on the control thread, and waits for it: the client's next command runs in the new one.
async fn change_role(world: &World, change: impl FnOnce(&Rc<Control>) + Send + 'static) {
    let (done, is_done) = tokio::sync::oneshot::channel();
    world.on_control(move |control| {
        change(&control);
        // The client may have gone.
        let _ = done.send(());
    });
    // The control thread ends with the process.
    let _ = is_done.await;
}

/// Ends the link to the primary, and waits until what it has brought is applied and this server is a primary.
async fn become_primary(world: &World) {
    change_role(world, replication::promote).await;
    loop {
        let promoted = world.promoted.notified();
        let is_other = world.link(|link| link.primary.is_some());
        if is_other || !world.is_replica.load(Ordering::Relaxed) {
            return;
        }
        promoted.await;
    }
}

/// FAILOVER.
fn begin_failover(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
    let (wish, is_abort) = failover_wish(&args[1..])?;
    let world = connection.thread.world.clone();
    if world.failover() != FailoverStage::None {
        if !is_abort {
            return Err(CommandError::new("FAILOVER already in progress."));
        }
        world.on_control(|control| failover::abort(&control, "manually aborted"));
        connection.out.ok();
        return Ok(());
    }
    if is_abort {
        return Err(CommandError::new("No failover in progress."));
    }
    if world.is_replica.load(Ordering::Relaxed) {
        return Err(CommandError::new(
            "FAILOVER is not valid when server is a replica.",
        ));
    }
    let states: Vec<(bool, &'static str)> = world.log.with(|log| {
        let replicas = log.replicas.values();
        replicas
            .map(|replica| {
                let is_target = (wish.target.as_ref())
                    .is_some_and(|(host, port)| *host == replica.ip && *port == replica.port);
                (is_target, replica.state)
            })
            .collect()
    });
    if states.is_empty() {
        return Err(CommandError::new("FAILOVER requires connected replicas."));
    }
    if wish.is_forced && (wish.timeout.is_none() || wish.target.is_none()) {
        return Err(CommandError::new(
            "FAILOVER with force option requires both a timeout and target HOST and IP.",
        ));
    }
    if wish.target.is_some() {
        match states.iter().find(|(is_target, _)| *is_target) {
            None => {
                return Err(CommandError::new(
                    "FAILOVER target HOST and PORT is not a replica.",
                ));
            }
            Some((_, "online")) => {}
            Some(_) => return Err(CommandError::new("FAILOVER target replica is not online.")),
        }
    }
    if !world.change_failover(FailoverStage::None, FailoverStage::WaitingForSync) {
        return Err(CommandError::new("FAILOVER already in progress."));
    }
    world.on_control(move |control| failover::start(&control, wish));
    connection.out.ok();
    Ok(())
}

/// What the words of FAILOVER ask for, and whether they ask to give one up.
fn failover_wish(words: &[&[u8]]) -> Result<(failover::Wish, bool), CommandError> {
    let (mut wish, mut is_abort) = (failover::Wish::default(), false);
    let mut rest = words;
    while let [word, left @ ..] = rest {
        let number = |word: &[u8]| canonical_i64(word).ok_or(CommandError::NOT_INTEGER);
        rest = match (word.to_ascii_lowercase().as_slice(), left) {
            (b"timeout", [ms, left @ ..]) if wish.timeout.is_none() => {
                let ms = u64::try_from(number(ms)?).ok().filter(|ms| *ms > 0);
                let ms = ms.ok_or(CommandError::new("FAILOVER timeout must be greater than 0"))?;
                wish.timeout = Some(Duration::from_millis(ms));
                left
            }
            (b"abort", []) if words.len() == 1 => {
                is_abort = true;
                left
            }
            (b"to", [host, port, left @ ..]) if wish.target.is_none() => {
                // A port that is none belongs to no replica.
                let port = u16::try_from(number(port)?).unwrap_or(0);
                wish.target = Some((String::from_utf8_lossy(host).into_owned(), port));
                left
            }
            (b"force", left) if !wish.is_forced => {
                wish.is_forced = true;
                left
            }
            _ => return Err(CommandError::SYNTAX),
        };
    }
    Ok((wish, is_abort))
}

fn replconf(connection: &mut Connection, options: &[&[u8]]) -> Result<(), CommandError> {
    if !options.len().is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    for pair in options.chunks_exact(2) {
        let (option, value) = (pair[0].to_ascii_lowercase(), pair[1]);
        let number = || canonical_i64(value).ok_or(CommandError::NOT_INTEGER);
        match option.as_slice() {
            b"listening-port" => {
                connection.peer.port =
                    u16::try_from(number()?).map_err(|_| CommandError::NOT_INTEGER)?;
            }
            b"ip-address" if value.len() >= 256 => {
                return Err(CommandError::new(format!(
                    "REPLCONF ip-address provided by replica instance is too long: {} bytes",
                    value.len()
                )));
            }
            b"ip-address" => connection.peer.ip = String::from_utf8_lossy(value).into_owned(),
            b"capa" if value.eq_ignore_ascii_case(b"eof") => connection.peer.takes_mark = true,
            b"capa" if value.eq_ignore_ascii_case(b"psync2") => connection.peer.takes_replid = true,
            b"capa" => {}
            // From a connection that is no replica these mean nothing, and get no reply.
            b"ack" | b"getack" => return Ok(()),
            b"rdb-only" => {
                connection.peer.is_rdb_only = match number()? {
                    0 => false,
                    1 => true,
                    _ => {
                        return Err(CommandError::new(
                            "value is out of range, value must between 0 and 1",
                        ));
                    }
                };
            }
            b"rdb-filter-only" => connection.peer.filter = filter(value)?,
            _ => {
                let option = String::from_utf8_lossy(pair[0]);
                return Err(CommandError::new(format!(
                    "Unrecognized REPLCONF option: {option}"
                )));
            }
        }
    }
    connection.out.ok();
    Ok(())
}

/// What `rdb-filter-only` lets through: a list with quotes, of which one word is known.
fn filter(list: &[u8]) -> Result<Filter, CommandError> {
    let (mut text, mut words) = (Vec::new(), Vec::new());
    split_words(list, &mut text, &mut words)
        .map_err(|_| CommandError::new("Missing rdb-filter-only values"))?;
    let mut filter = Filter::Nothing;
    for word in words.into_iter().map(|at| &text[at]) {
        if !word.eq_ignore_ascii_case(b"functions") {
            let word = String::from_utf8_lossy(word);
            return Err(CommandError::new(format!(
                "Unsupported rdb-filter-only option: {word}"
            )));
        }
        filter = Filter::Functions;
    }
    Ok(filter)
}

/// Whether this server can serve a sync now.
fn check_sync(connection: &Connection) -> Result<(), CommandError> {
    let world = &connection.thread.world;
    if world.failover() != FailoverStage::None {
        return Err(CommandError::text(
            "NOMASTERLINK Can't SYNC while failing over",
        ));
    }
    let is_connected = || world.link(|link| link.state.phase == Some(Phase::Stream));
    if world.is_replica.load(Ordering::Relaxed) && !is_connected() {
        return Err(CommandError::text(
            "NOMASTERLINK Can't SYNC while not connected with my master",
        ));
    }
    if !connection.out.is_empty() {
        return Err(CommandError::new(
            "SYNC and PSYNC are invalid with pending output",
        ));
    }
    if connection.peer.filter != Filter::Everything && !connection.peer.takes_mark {
        return Err(CommandError::new(
            "Filtered replica requires EOF capability",
        ));
    }
    Ok(())
}

async fn psync(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
    if (args.get(3)).is_some_and(|word| word.eq_ignore_ascii_case(b"failover")) {
        take_over(connection, args[1]).await?;
    }
    check_sync(connection)?;
    let Some(offset) = canonical_i64(args[2]) else {
        tracing::warn!(
            "Replica {} asks for synchronization but with a wrong offset",
            connection.client.addr
        );
        return Err(CommandError::NOT_INTEGER);
    };
    let asked = match (args[1], u64::try_from(offset)) {
        (b"?", _) | (_, Err(_)) => None,
        (replid, Ok(offset)) => Some((String::from_utf8_lossy(replid).into_owned(), offset)),
    };
    connection.takeover = Some(SyncRequest::Psync(asked));
    Ok(())
}

/// PSYNC … FAILOVER: the primary of this server asks it to become one, if both have the same history.
async fn take_over(connection: &Connection, replid: &[u8]) -> Result<(), CommandError> {
    let world = &connection.thread.world;
    tracing::warn!(
        replid = %String::from_utf8_lossy(replid),
        "Failover request received"
    );
    if !world.is_replica.load(Ordering::Relaxed) {
        return Err(CommandError::new(
            "PSYNC FAILOVER can't be sent to a master.",
        ));
    }
    let own = world.log.with(|log| log.replid.clone());
    if !replid.eq_ignore_ascii_case(own.as_bytes()) {
        return Err(CommandError::new(
            "PSYNC FAILOVER replid must match my replid.",
        ));
    }
    world
        .change_config(|config| config.store("replicaof", &[]))
        .map_err(CommandError::new)?;
    become_primary(world).await;
    tracing::warn!(
        client = connection.client.addr,
        "MASTER MODE enabled (failover request)"
    );
    Ok(())
}

/// The word for a link's state in ROLE.
fn link_word(phase: Option<Phase>) -> &'static str {
    match phase {
        None => "connect",
        Some(Phase::Handshake) => "handshake",
        Some(Phase::AwaitPayload | Phase::Payload | Phase::Loading | Phase::Finished) => "sync",
        Some(Phase::Stream) => "connected",
    }
}

/// ROLE.
pub fn role(world: &World, out: &mut Reply) {
    let primary = world.link(|link| {
        link.primary
            .clone()
            .map(|primary| (primary, link.state.clone()))
    });
    if let Some(((host, port), state)) = primary {
        out.array(5);
        out.bulk(b"slave");
        out.bulk(host.as_bytes());
        out.int(i64::from(port));
        out.bulk(link_word(state.phase).as_bytes());
        out.int(state.offset.map_or(-1, |offset| offset as i64));
        return;
    }
    world.log.with(|log| {
        out.array(3);
        out.bulk(b"master");
        out.int(log.offset() as i64);
        let online: Vec<_> = log
            .replicas
            .values()
            .filter(|replica| replica.state == "online")
            .collect();
        out.array(online.len());
        for replica in online {
            out.array(3);
            out.bulk(replica.ip.as_bytes());
            out.bulk(replica.port.to_string().as_bytes());
            out.bulk(replica.acked.to_string().as_bytes());
        }
    });
}

async fn wait(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
    let world = connection.thread.world.clone();
    if world.is_replica.load(Ordering::Relaxed) {
        return Err(CommandError::new(
            "WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be \
             writable (which is not the default) writes to replicas are just local and are not propagated.",
        ));
    }
    let wanted = canonical_i64(args[1]).ok_or(CommandError::NOT_INTEGER)?;
    let timeout_ms = timeout(args[2])?;
    wait_for(connection, wanted, timeout_ms, false).await;
    Ok(())
}

fn timeout(word: &[u8]) -> Result<u64, CommandError> {
    let timeout_ms = canonical_i64(word).ok_or(CommandError::new(
        "timeout is not an integer or out of range",
    ))?;
    u64::try_from(timeout_ms).map_err(|_| CommandError::new("timeout is negative"))
}

/// WAITAOF. This server writes no append-only file; its replicas may.
async fn wait_aof(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
    let local = canonical_i64(args[1]).ok_or(CommandError::NOT_INTEGER)?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::new(
            "value is out of range, value must between 0 and 1",
        ));
    }
    let wanted = canonical_i64(args[2]).ok_or(CommandError::NOT_INTEGER)?;
    if wanted < 0 {
        return Err(CommandError::NOT_POSITIVE);
    }
    let timeout_ms = timeout(args[3])?;
    if connection.thread.world.is_replica.load(Ordering::Relaxed) {
        return Err(CommandError::new(
            "WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local and are not \
             propagated.",
        ));
    }
    if local > 0 {
        return Err(CommandError::new(
            "WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    wait_for(connection, wanted, timeout_ms, true).await;
    Ok(())
}

/// Replies at once if enough replicas have all that is committed so far, else lets the connection wait for them.
async fn wait_for(connection: &mut Connection, wanted: i64, timeout_ms: u64, in_file: bool) {
    let world = connection.thread.world.clone();
    // All that is committed so far, this connection's writes among it.
    connection.thread.shard.borrow_mut().post_records();
    let last = Seq(world.journal.peek().0 - 1);
    let offset = if world.journal.is_active() {
        world.log.offset_after(last).await
    } else {
        0
    };
    let acks = AckWait {
        offset,
        wanted,
        timeout_ms,
        in_file,
    };
    let is_quiet = world.failover() != FailoverStage::None;
    if acks.reached(&world) < wanted && world.journal.is_active() && !is_quiet {
        world.log.push_command(&[b"REPLCONF", b"GETACK", b"*"]);
    }
    if acks.reached(&world) >= wanted || connection.is_in_exec {
        acks.reply(&world, &mut connection.out);
    } else {
        connection.acks = Some(acks);
    }
}

/// What WAIT waits for.
pub struct AckWait {
    offset: u64,
    wanted: i64,
    /// 0: for ever.
    timeout_ms: u64,
    /// In their append-only files, for WAITAOF.
    in_file: bool,
}

impl AckWait {
    /// How many replicas have everything up to the offset.
    fn reached(&self, world: &World) -> i64 {
        world.log.with(|log: &mut LogState| {
            log.replicas
                .values()
                .filter(|replica| {
                    let acked = if self.in_file {
                        replica.acked_in_file
                    } else {
                        replica.acked
                    };
                    replica.state == "online" && acked >= self.offset.max(u64::from(self.in_file))
                })
                .count() as i64
        })
    }

    fn reply(&self, world: &World, out: &mut Reply) {
        if self.in_file {
            out.array(2);
            out.int(0);
        }
        out.int(self.reached(world));
    }
}

impl Connection {
    /// Waits until enough replicas have what the connection wrote, or the time is over: either way the reply is how many have it. What
    /// the client sends meanwhile goes to `buffer`.
    pub(super) async fn wait_acks(
        &mut self,
        socket: &mut Socket,
        buffer: &mut Vec<u8>,
        acks: AckWait,
    ) -> std::io::Result<()> {
        self.write(socket).await?;
        let world = self.thread.world.clone();
        let mut ended = self.client.begin_ack_wait();
        let timeout = Duration::from_millis(acks.timeout_ms.max(1));
        let deadline = tokio::time::sleep(timeout);
        tokio::pin!(deadline);
        loop {
            let grown = world.log.grown.notified();
            if acks.reached(&world) >= acks.wanted {
                break;
            }
            tokio::select! {
                () = grown => {}
                () = &mut deadline, if acks.timeout_ms > 0 => break,
                end = &mut ended => {
                    if let Ok(End::Error(CommandError(text), after)) = end {
                        self.out.error(&text);
                        self.is_closing |= after == AfterError::Closes;
                        return Ok(());
                    }
                    break;
                }
                read = socket.read_buf(buffer) => {
                    if read? == 0 || buffer.len() > query_limit(&world.config()) {
                        self.is_closing = true;
                        self.client.end_ack_wait();
                        return Ok(());
                    }
                }
            }
        }
        self.client.end_ack_wait();
        acks.reply(&world, &mut self.out);
        Ok(())
    }
}
