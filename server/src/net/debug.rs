//! DEBUG.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dfsnap_formats::resp::{Protocol, Reply};

use super::admission::is_loading;
use super::connection::Connection;
use crate::clock::now_ms;
use crate::command::CommandError;
use crate::command::runner::{LOADING, encoded};
use crate::command::script::{self, functions::Onto};
use crate::digest;
use crate::keyspace::blob::Blob;
use crate::keyspace::entry::Entry;
use crate::keyspace::value::{Value, canonical_i64};
use crate::keyspace::{DbIndex, Key, Keyspace, shard_of_key};
use crate::saving::{self, Started, Wish};
use crate::shard::queue::Mode;
use crate::snapshot::fault::{self, Fault};
use crate::snapshot::serializer::{self, Dialect};
use crate::world::World;

/// What DEBUG HELP says.
const HELP: [&str; 29] = [
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CHANGE-REPL-ID, REPLICATE <word> [...]",
    "    A new replication id; a command for replicas alone.",
    "CONFIG-REWRITE-FORCE-ALL",
    "    CONFIG REWRITE with every directive.",
    "DIGEST [LEGACY], DIGEST-VALUE <key> [...]",
    "    A digest of the dataset, of the values of keys.",
    "ERROR <text>, LOG <text>, PROTOCOL <type>, STRINGMATCH-LEN <len> <pattern>",
    "    Replies with an error, logs a line, replies with a value of a type, matches a pattern.",
    "FILE-OPERATIONS, FILE-FAULT <n> <kind>",
    "    Counts operations on files; has one of them fail.",
    "MALLCTL <name>, MALLCTL-STR <name> [VOID]",
    "    A control of the allocator: its number, its text, or what it does.",
    "OBJECT <key>",
    "    How the value is kept.",
    "PAUSE-CRON <0|1>",
    "    Whether what is done now and then is left.",
    "POPULATE <count> [<prefix>] [<size>]",
    "    Makes string keys.",
    "PANIC, ASSERT, SEGFAULT",
    "    Ends the server as a bug would.",
    "RELOAD [NOSAVE] [NOFLUSH] [MERGE]",
    "    Saves and loads.",
    "SET-ACTIVE-EXPIRE <0|1>, SET-DISABLE-DENY-SCRIPTS <0|1>, SET-SKIP-CHECKSUM-VALIDATION <0|1>",
    "    Whether expired keys go by themselves, scripts may run all, checksums count.",
    "SLEEP <seconds>",
    "    Stops the server for a while.",
    "HELP",
    "    This text.",
];

/// DEBUG and its subcommands.
pub async fn debug(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
    check_allowed(&connection.thread.world, connection.is_local())?;
    let subcommand = args[1].to_ascii_lowercase();
    let changes_keys = matches!(subcommand.as_slice(), b"populate" | b"reload");
    if changes_keys && is_loading(&connection.thread.world) {
        // What it made would stand in the way of the keys that are still to come.
        return Err(LOADING);
    }
    match (subcommand.as_slice(), &args[2..]) {
        (b"sleep", [seconds]) => {
            sleep(connection, duration(seconds)?).await;
            connection.out.ok();
        }
        (b"segfault", []) => {
            // The end that a bug of this kind would be, for tests of what stands by.
            crate::crash::fault();
        }
        (b"panic", []) => panic!("called by DEBUG PANIC"),
        (b"assert", []) => panic!("called by DEBUG ASSERT"),
        (b"set-active-expire", [word]) => {
            let is_on = word != b"0";
            connection
                .thread
                .world
                .links
                .call_all(move |shard| shard.is_expiring = is_on)
                .await;
            connection.out.ok();
        }
        (b"digest", words) => digest(connection, words).await?,
        (b"digest-value", keys @ [_, ..]) => {
            let mut digests = Vec::new();
            for key in keys {
                let digest = look(connection, key, |entry, _| digest::of_value(entry)).await;
                digests.push(digest.unwrap_or_else(|| "0".repeat(40)));
            }
            connection.out.array(digests.len());
            digests
                .iter()
                .for_each(|digest| connection.out.simple(digest));
        }
        (b"object", [key]) => {
            let line = look(connection, key, describe_value).await;
            connection
                .out
                .simple(&line.ok_or(CommandError::NO_SUCH_KEY)?);
        }
        (b"protocol", [kind]) => protocol(&mut connection.out, kind)?,
        (b"error", [text]) => return Err(error_of(text)),
        (b"set-disable-deny-scripts", [word]) => {
            script::allow_denied(*word != b"0");
            connection.out.ok();
        }
        (b"pause-cron", [word]) => {
            let world = &connection.thread.world;
            world.is_cron_paused.store(*word != b"0", Ordering::Relaxed);
            connection.out.ok();
        }
        (b"stringmatch-len", [len, pattern]) => {
            let len = canonical_i64(len).ok_or(CommandError::NOT_INTEGER)?;
            let len = usize::try_from(len).map_err(|_| CommandError::NOT_POSITIVE)?;
            let text = vec![b'a'; len];
            let fits = dfsnap_formats::glob::matches(pattern, &text);
            connection.out.int(i64::from(fits));
        }
        // Elements of any length are kept the same way here: the limit has nothing to change.
        (b"quicklist-packed-threshold", [_]) => connection.out.ok(),
        // Replies are written from a buffer that goes with them: there is none to resize.
        (b"replybuffer", [word, _]) if word.eq_ignore_ascii_case(b"resizing") => {
            connection.out.ok();
        }
        (b"populate", [count, rest @ ..]) if rest.len() <= 2 => {
            populate(connection, count, rest).await?
        }
        (b"reload", words) => reload(connection, words).await?,
        (b"file-operations", []) => connection.out.int(fault::count() as i64),
        (b"file-fault", [nth, kind]) => {
            let nth = canonical_i64(nth).and_then(|nth| u64::try_from(nth).ok());
            let kind = Fault::parse(&String::from_utf8_lossy(kind));
            let (Some(nth), Some(kind)) = (nth, kind) else {
                return Err(CommandError::SYNTAX);
            };
            fault::arm(nth, kind);
            connection.out.ok();
        }
        (b"set-skip-checksum-validation", [word]) => {
            crate::command::dump::skip_checksums(*word != b"0");
            connection.out.ok();
        }
        (b"log", [text]) => {
            tracing::warn!("DEBUG LOG: {}", String::from_utf8_lossy(text));
            connection.out.ok();
        }
        (b"replicate", words @ [_, ..]) => {
            let effect = (connection.db, encoded(words));
            let mut shard = connection.thread.shard.borrow_mut();
            if shard.journal.is_active() {
                shard.record(&[effect]);
                shard.post_records();
            }
            connection.out.ok();
        }
        (b"config-rewrite-force-all", []) => {
            let world = &connection.thread.world;
            world.rewrite_config(true).map_err(CommandError::new)?;
            connection.out.ok();
        }
        (b"mallctl", [name]) => {
            let number = crate::memory::control(name)
                .map_err(|error| CommandError::new(error.to_string()))?;
            connection.out.int(number);
        }
        (b"mallctl-str", [name]) => {
            let text = crate::memory::control_text(name)
                .map_err(|error| CommandError::new(error.to_string()))?;
            connection.out.bulk(text.as_bytes());
        }
        (b"mallctl-str", [name, b"VOID"]) => {
            crate::memory::control_act(name)
                .map_err(|error| CommandError::new(error.to_string()))?;
            connection.out.ok();
        }
        (b"change-repl-id", []) => {
            connection
                .thread
                .world
                .log
                .with(|log| log.rename(crate::clock::random_hex_40()));
            connection.out.ok();
        }
        (b"help", []) => {
            connection.out.array(HELP.len());
            HELP.iter().for_each(|line| connection.out.simple(line));
        }
        _ => return Err(unknown(args[1])),
    }
    Ok(())
}

/// Whether the configuration allows DEBUG.
pub fn check_allowed(world: &World, is_local: bool) -> Result<(), CommandError> {
    if world.config().enable_debug_command.allows(is_local) {
        return Ok(());
    }
    Err(CommandError::new(
        "DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local \
         connection, otherwise you need to set this option in the configuration file, and then restart the server.",
    ))
}

/// Subcommands in a script or a transaction, with what that has.
pub fn within(
    world: &World,
    args: &[&[u8]],
    keyspaces: &mut [Box<Keyspace>],
    out: &mut Reply,
) -> Result<(), CommandError> {
    match (args[1].to_ascii_lowercase().as_slice(), &args[2..]) {
        (b"sleep", [seconds]) => {
            // It is there to block everything.
            let duration = duration(seconds)?;
            stop_links(world, duration);
            std::thread::sleep(duration);
            out.ok();
        }
        (b"digest", words) => {
            let is_legacy = is_legacy_digest(words)?;
            out.simple(&digest::of_keyspaces(keyspaces, now_ms(), is_legacy));
        }
        (b"protocol", [kind]) => protocol(out, kind)?,
        (b"error", [text]) => return Err(error_of(text)),
        _ => return Err(unknown(args[1])),
    }
    Ok(())
}

fn unknown(subcommand: &[u8]) -> CommandError {
    let name = String::from_utf8_lossy(subcommand);
    CommandError::new(format!(
        "unknown subcommand or wrong number of arguments for '{name}'. Try DEBUG HELP."
    ))
}

fn error_of(text: &[u8]) -> CommandError {
    CommandError(String::from_utf8_lossy(text).into_owned().into())
}

fn duration(seconds: &[u8]) -> Result<Duration, CommandError> {
    let seconds: f64 = std::str::from_utf8(seconds)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(CommandError::NOT_FLOAT)?;
    Duration::try_from_secs_f64(seconds.max(0.0)).map_err(|_| CommandError::NOT_FLOAT)
}

/// Looks at an entry of the selected database; `None` if there is none.
async fn look<R: Send + 'static>(
    connection: &Connection,
    key: &[u8],
    look: impl FnOnce(&Entry, i64) -> R + Send + 'static,
) -> Option<R> {
    let (db, key) = (connection.db, Blob::new(key));
    let shard = shard_of_key(&key, connection.thread.world.links.shards());
    let keys = std::iter::once((db, key.clone())).collect();
    connection
        .thread
        .coordinator
        .single(shard, keys, Mode::Shared, move |shard| {
            let now_ms = shard.now_ms;
            let keyspace = shard.keyspace.as_ref()?;
            // One whose time has come is shown as well, as by Redis.
            let entry = keyspace.get(db, Key::new(&key))?;
            Some(look(entry, now_ms))
        })
        .await
}

/// The line of DEBUG OBJECT.
fn describe_value(entry: &Entry, now_ms: i64) -> String {
    let mut bytes = Vec::new();
    serializer::value(&mut bytes, entry.value(), Dialect::Rdb, None);
    let idle_s = entry.access().idle_s(now_ms);
    let seconds = (now_ms / 1000) as u64;
    format!(
        "Value at:0x0 refcount:1 encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{idle_s}",
        entry.value().encoding_name(),
        bytes.len(),
        seconds.saturating_sub(u64::from(idle_s)) & 0xff_ffff,
    )
}

/// DEBUG PROTOCOL: a reply of each kind, for the authors of clients.
fn protocol(out: &mut Reply, kind: &[u8]) -> Result<(), CommandError> {
    let is_resp3 = out.protocol() == Protocol::Resp3;
    match kind.to_ascii_lowercase().as_slice() {
        b"string" => out.bulk(b"Hello World"),
        b"integer" => out.int(12345),
        #[expect(clippy::approx_constant, reason = "what Redis replies")]
        b"double" => out.double(3.141),
        b"null" => out.null(),
        b"array" => {
            out.array(3);
            (0..3).for_each(|n| out.int(n));
        }
        b"set" => {
            out.set(3);
            (0..3).for_each(|n| out.int(n));
        }
        b"map" => {
            out.map(3);
            for n in 0..3 {
                out.int(n);
                out.boolean(n == 1);
            }
        }
        b"attrib" => {
            if is_resp3 {
                out.raw(b"|1\r\n");
                out.bulk(b"key-popularity");
                out.array(2);
                out.bulk(b"key:123");
                out.int(90);
            }
            out.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            if !is_resp3 {
                return Err(CommandError::new("RESP2 is not supported by this command"));
            }
            out.push(2);
            out.bulk(b"server-cpu-usage");
            out.int(42);
        }
        b"verbatim" => out.verbatim(b"txt", b"This is a verbatim\nstring"),
        b"bignum" => out.big_number(b"1234567999999999999999999999999999999"),
        b"true" => out.boolean(true),
        b"false" => out.boolean(false),
        _ => {
            return Err(CommandError::new(
                "Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

/// Stops the thread of the links to other servers for so long, once it has done what it was told before.
fn stop_links(world: &World, duration: Duration) {
    world.on_control(move |_| {
        tokio::task::spawn_local(async move {
            // A link that was killed is closed by then.
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
            std::thread::sleep(duration);
        });
    });
}

/// Holds all shards, as a server that does nothing else.
async fn sleep(connection: &mut Connection, duration: Duration) {
    stop_links(&connection.thread.world, duration);
    let coordinator = connection.thread.coordinator.clone();
    coordinator
        .global(Box::new(|_| {
            // DEBUG SLEEP is there to block everything.
            std::thread::sleep(duration);
            ((), Vec::new())
        }))
        .await;
}

fn is_legacy_digest(words: &[&[u8]]) -> Result<bool, CommandError> {
    match words {
        [] => Ok(false),
        [word] if word.eq_ignore_ascii_case(b"legacy") => Ok(true),
        _ => Err(CommandError::SYNTAX),
    }
}

async fn digest(connection: &mut Connection, words: &[&[u8]]) -> Result<(), CommandError> {
    let is_legacy = is_legacy_digest(words)?;
    let coordinator = connection.thread.coordinator.clone();
    let now_ms = crate::clock::now_ms();
    let hex = coordinator
        .global(Box::new(move |keyspaces| {
            (
                crate::digest::of_keyspaces(keyspaces, now_ms, is_legacy),
                Vec::new(),
            )
        }))
        .await;
    connection.out.simple(&hex);
    Ok(())
}

/// Makes `count` string keys `prefix:n`, leaving those that are there.
async fn populate(
    connection: &mut Connection,
    count: &[u8],
    rest: &[&[u8]],
) -> Result<(), CommandError> {
    let count = canonical_i64(count)
        .and_then(|count| u64::try_from(count).ok())
        .ok_or(CommandError::NOT_POSITIVE)?;
    let prefix = rest
        .first()
        .map_or_else(|| b"key".to_vec(), |prefix| prefix.to_vec());
    let size = match rest.get(1) {
        None => None,
        Some(size) => Some(
            canonical_i64(size)
                .and_then(|size| usize::try_from(size).ok())
                .ok_or(CommandError::NOT_POSITIVE)?,
        ),
    };
    let db = connection.db;
    let shards = connection.thread.world.links.shards();
    let mut start = 0;
    while start < count {
        // Piece by piece, so that others run in between.
        let end = count.min(start + 20_000);
        let prefix = prefix.clone();
        connection
            .thread
            .coordinator
            .global(Box::new(move |keyspaces| {
                for n in start..end {
                    insert_one(keyspaces, shards, db, &prefix, n, size);
                }
                ((), Vec::new())
            }))
            .await;
        start = end;
    }
    connection.out.ok();
    Ok(())
}

fn insert_one(
    keyspaces: &mut [Box<crate::keyspace::Keyspace>],
    shards: usize,
    db: DbIndex,
    prefix: &[u8],
    n: u64,
    size: Option<usize>,
) {
    let name = [prefix, b":", n.to_string().as_bytes()].concat();
    let key = crate::keyspace::Key::new(&name);
    let keyspace = &mut keyspaces[crate::keyspace::shard_of(key.hash, shards)];
    if keyspace.get(db, key).is_some() {
        return;
    }
    let mut value = format!("value:{n}").into_bytes();
    if let Some(size) = size {
        value.resize(size, 0);
    }
    let access = crate::keyspace::entry::Access::at(crate::clock::now_ms());
    keyspace.insert(db, key, Value::string(&value), access);
}

/// Saves and loads again. Writes that come in between would be lost, so none are taken meanwhile.
async fn reload(connection: &mut Connection, words: &[&[u8]]) -> Result<(), CommandError> {
    let (mut saves, mut flushes, mut merges) = (true, true, false);
    for word in words {
        match word.to_ascii_lowercase().as_slice() {
            b"nosave" => saves = false,
            b"noflush" => flushes = false,
            b"merge" => merges = true,
            _ => {
                return Err(CommandError::new(
                    "DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
                ));
            }
        }
    }
    let onto = match (flushes, merges) {
        (true, _) => Onto::Nothing,
        (false, true) => Onto::Merge,
        (false, false) => Onto::Present,
    };
    let world = connection.thread.world.clone();
    let coordinator = connection.thread.coordinator.clone();
    world.is_loading.store(true, Ordering::Relaxed);
    // In a task of its own: it ends, and the server serves again, whatever becomes of the client.
    let task = tokio::task::spawn_local(async move {
        let result = async {
            if saves {
                match saving::start(&world, Wish::default()) {
                    Started::Running { done, .. } => done
                        .await
                        .unwrap_or_else(|_| Err("the control thread has gone".into()))?,
                    Started::Busy => return Err("Background save already in progress".to_owned()),
                }
            }
            crate::loading::reload(&world, &coordinator, onto).await
        }
        .await;
        world.is_loading.store(false, Ordering::Relaxed);
        result
    });
    let result = task.await.unwrap_or_else(|error| Err(error.to_string()));
    result.map_err(|error| {
        CommandError::new(format!("Error trying to load the RDB dump: {error}"))
    })?;
    connection.out.ok();
    Ok(())
}
