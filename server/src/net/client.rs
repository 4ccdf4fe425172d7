//! CLIENT.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use dfsnap_formats::resp::Reply;

use super::connection::Connection;
use super::tracking::{is_broken, redirection};
use crate::clock::now_ms;
use crate::command::blocking::{AfterError, End};
use crate::command::{CommandError, acl, table};
use crate::keyspace::value::canonical_i64;
use crate::world::{Client, ClientTexts, World};

const UNBLOCKED: CommandError = CommandError::text("UNBLOCKED client unblocked via CLIENT UNBLOCK");
/// Subcommands that show themselves as the client's last command.
const SHOWN: [&str; 2] = ["client|info", "client|list"];

/// What CLIENT HELP says.
const HELP: [&str; 47] = [
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CACHING (YES|NO)",
    "    Whether keys of the next command are tracked, in OPTIN and OPTOUT modes.",
    "GETNAME",
    "    The name of this connection.",
    "GETREDIR",
    "    The id of the client that gets the invalidations.",
    "HELP",
    "    This text.",
    "ID",
    "    The id of this connection.",
    "INFO",
    "    This connection, as LIST shows it.",
    "KILL <ip:port>",
    "    Ends the connection made from this address.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Ends connections. Options are:",
    "    * ADDR (<ip:port>|<unixsocket>:0)",
    "    * ID <client-id>",
    "    * LADDR (<ip:port>|<unixsocket>:0)",
    "    * MAXAGE <seconds>",
    "    * SKIPME (YES|NO)",
    "      Spares this connection (default: yes).",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "    * USER <username>",
    "LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB)] [ID <client-id> [...]]",
    "    All connections, or those of a type or with these ids.",
    "NO-EVICT (ON|OFF)",
    "    Protects this connection when clients take too much memory.",
    "NO-TOUCH (ON|OFF)",
    "    Commands of this connection do not count as a use of keys.",
    "PAUSE <timeout> [WRITE|ALL]",
    "    Holds up all commands, or those that write, for some milliseconds.",
    "REPLY (ON|OFF|SKIP)",
    "    Whether replies are sent on this connection.",
    "SETINFO <option> <value>",
    "    Says which library is at work: LIB-NAME, LIB-VER.",
    "SETNAME <name>",
    "    Names this connection.",
    "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]] [OPTIN] [OPTOUT] [NOLOOP]",
    "    Tells this connection when keys change that it has read.",
    "TRACKINGINFO",
    "    What this connection tracks.",
    "UNBLOCK <clientid> [TIMEOUT|ERROR]",
    "    Ends a connection's wait.",
    "UNPAUSE",
    "    Ends a pause.",
];

const NO_SUCH_CLIENT: CommandError = CommandError::text("ERR No such client");

/// CLIENT and its subcommands.
pub async fn client(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
    let client = connection.client.clone();
    let world = connection.thread.world.clone();
    if let Some(result) = of_any(&world, &client, args, &mut connection.out) {
        connection.is_closing |= client.must_end.load(Ordering::Relaxed);
        if args[1].eq_ignore_ascii_case(b"kill") && !connection.is_in_exec {
            world.killed_are_gone(client.id).await;
        }
        return result;
    }
    let subcommand = args[1].to_ascii_lowercase();
    match (subcommand.as_slice(), args.len()) {
        (b"no-touch", 3) => {
            let is_on = on_or_off(args[2])?;
            client.is_no_touch.store(is_on, Ordering::Relaxed);
            connection.renew_caller();
            connection.out.ok();
        }
        (b"reply", 3) => connection.set_reply_mode(args[2])?,
        (b"tracking", 3..) => connection.set_tracking(&args[2..])?,
        (b"caching", 3) => connection.set_caching(args[2])?,
        (b"getredir", 2) => connection.reply_redirection(),
        (b"trackinginfo", 2) => connection.reply_tracking_info(),
        (
            b"id" | b"getname" | b"setname" | b"setinfo" | b"info" | b"kill" | b"unblock"
            | b"no-evict" | b"no-touch" | b"reply" | b"pause" | b"unpause" | b"tracking"
            | b"caching" | b"getredir" | b"trackinginfo" | b"help",
            _,
        ) => {
            return Err(CommandError::wrong_arity(&format!(
                "client|{}",
                String::from_utf8_lossy(&subcommand)
            )));
        }
        _ => {
            let name = String::from_utf8_lossy(args[1]);
            return Err(CommandError::new(format!(
                "unknown subcommand '{name}'. Try CLIENT HELP."
            )));
        }
    }
    Ok(())
}

/// Subcommands for which it does not matter where the client's connection is; `None`: another.
pub fn of_any(
    world: &World,
    client: &Client,
    args: &[&[u8]],
    out: &mut Reply,
) -> Option<Result<(), CommandError>> {
    let subcommand = args[1].to_ascii_lowercase();
    if let Some(name) = SHOWN
        .iter()
        .find(|name| name.as_bytes()[7..] == *subcommand)
    {
        client.change_texts(|texts| texts.command = name);
    }
    let result = match (subcommand.as_slice(), args.len()) {
        (b"id", 2) => {
            out.int(client.id as i64);
            Ok(())
        }
        (b"getname", 2) => {
            let name = client.texts().name;
            if name.is_empty() {
                out.null();
            } else {
                out.bulk(name.as_bytes());
            }
            Ok(())
        }
        (b"setname", 3) => checked_name(args[2]).map(|name| {
            rename(world, client, name);
            out.ok();
        }),
        (b"setinfo", 4) => set_info(client, args[2], args[3]).map(|()| out.ok()),
        (b"info", 2) => {
            let line = describe(client) + "\n";
            out.verbatim(b"txt", line.as_bytes());
            Ok(())
        }
        (b"list", _) => list(world, &args[2..], out),
        (b"kill", 3..) => kill(world, client, &args[2..], out),
        (b"unblock", 3 | 4) => unblock(world, &args[2..], out),
        (b"no-evict", 3) => on_or_off(args[2]).map(|is_on| {
            client.is_no_evict.store(is_on, Ordering::Relaxed);
            out.ok();
        }),
        (b"pause", 3 | 4) => super::flow::pause_clients(world, &args[2..]).map(|()| out.ok()),
        (b"unpause", 2) => {
            world.change_pause(|pause| *pause = None);
            out.ok();
            Ok(())
        }
        (b"help", 2) => {
            out.array(HELP.len());
            HELP.iter().for_each(|line| out.simple(line));
            Ok(())
        }
        _ => return None,
    };
    Some(result)
}

fn on_or_off(word: &[u8]) -> Result<bool, CommandError> {
    match word.to_ascii_lowercase().as_slice() {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(CommandError::SYNTAX),
    }
}

/// Gives the client a name, also where slow commands are noted.
pub fn rename(world: &World, client: &Client, name: String) {
    world.recorder.set_client(client.id, &client.addr, &name);
    client.change_texts(|texts| texts.name = name);
}

/// A client name without blanks, line breaks and other special characters.
pub fn checked_name(name: &[u8]) -> Result<String, CommandError> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        Ok(String::from_utf8_lossy(name).into_owned())
    } else {
        Err(CommandError::new(
            "Client names cannot contain spaces, newlines or special characters.",
        ))
    }
}

fn set_info(client: &Client, option: &[u8], value: &[u8]) -> Result<(), CommandError> {
    let is_name = option.eq_ignore_ascii_case(b"lib-name");
    if !is_name && !option.eq_ignore_ascii_case(b"lib-ver") {
        let option = String::from_utf8_lossy(option);
        return Err(CommandError::new(format!("Unrecognized option '{option}'")));
    }
    if !value.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        let option = if is_name { "lib-name" } else { "lib-ver" };
        return Err(CommandError::new(format!(
            "{option} cannot contain spaces, newlines or special characters."
        )));
    }
    let value = String::from_utf8_lossy(value).into_owned();
    client.change_texts(|texts| {
        if is_name {
            texts.lib_name = value
        } else {
            texts.lib_ver = value
        }
    });
    Ok(())
}

/// The line of CLIENT LIST about a client.
pub fn describe(client: &Client) -> String {
    let now = now_ms();
    let texts = client.texts();
    let mut line = String::with_capacity(256);
    let flags = flags(client, &texts);
    let _ = write!(
        line,
        "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={flags} db={} sub={} psub={} ssub={} multi={} qbuf={} \
         qbuf-free={} argv-mem=0 multi-mem={} rbs=0 rbp=0 obl=0 oll={} omem={} tot-mem={} events=r cmd={} user={} redir={} resp={} \
         lib-name={} lib-ver={}",
        client.id,
        client.addr,
        client.laddr,
        texts.name,
        (now - client.connected_ms) / 1000,
        (now - client.active_ms.load(Ordering::Relaxed)) / 1000,
        client.db.load(Ordering::Relaxed),
        client.subscriptions[0].load(Ordering::Relaxed),
        client.subscriptions[1].load(Ordering::Relaxed),
        client.subscriptions[2].load(Ordering::Relaxed),
        client.multi.load(Ordering::Relaxed),
        client.query_bytes[0].load(Ordering::Relaxed),
        client.query_bytes[1].load(Ordering::Relaxed),
        client.multi_bytes.load(Ordering::Relaxed),
        client.outbox.len(),
        client.outbox.bytes(),
        client.memory(),
        last_command(client, &texts),
        texts.user,
        redirection(texts.tracker.as_deref()),
        client.resp.load(Ordering::Relaxed),
        texts.lib_name,
        texts.lib_ver,
    );
    line
}

/// The name of its last command, with the subcommand if it has any.
fn last_command(client: &Client, texts: &ClientTexts) -> &'static str {
    let addr = client.last_command.load(Ordering::Relaxed);
    let known = table::all().find(|command| std::ptr::from_ref(*command).addr() == addr);
    known.map_or("NULL", |command| match texts.command.split_once('|') {
        Some((container, _)) if container == command.name => texts.command,
        _ => command.name,
    })
}

/// The letters of CLIENT LIST.
fn flags(client: &Client, texts: &ClientTexts) -> String {
    let tracker = texts.tracker.as_deref();
    let is_set = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Relaxed);
    let flags: String = [
        (is_set(&client.is_replica), 'S'),
        (is_set(&client.is_primary), 'M'),
        (is_set(&client.is_monitor), 'O'),
        (client.is_subscriber(), 'P'),
        (client.multi.load(Ordering::Relaxed) >= 0, 'x'),
        (client.is_blocked(), 'b'),
        (tracker.is_some(), 't'),
        (tracker.is_some_and(is_broken), 'R'),
        (
            tracker.is_some_and(|tracker| tracker.options.is_broadcast),
            'B',
        ),
        (client.addr.ends_with(":0"), 'U'),
        (is_set(&client.is_no_evict), 'e'),
        (is_set(&client.is_no_touch), 'T'),
    ]
    .iter()
    .filter(|(is_set, _)| *is_set)
    .map(|(_, letter)| *letter)
    .collect();
    if flags.is_empty() {
        "N".to_owned()
    } else {
        flags
    }
}

/// Whether a client is of a type that CLIENT LIST TYPE names.
fn has_type(client: &Client, name: &[u8]) -> Result<bool, CommandError> {
    let is_replica = client.is_replica.load(Ordering::Relaxed);
    let is_primary = client.is_primary.load(Ordering::Relaxed);
    match name.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(!is_replica && !is_primary && !client.is_subscriber()),
        b"replica" | b"slave" => Ok(is_replica),
        b"pubsub" => Ok(!is_replica && client.is_subscriber()),
        b"master" => Ok(is_primary),
        _ => Err(CommandError::new(format!(
            "Unknown client type '{}'",
            String::from_utf8_lossy(name)
        ))),
    }
}

fn list(world: &World, args: &[&[u8]], out: &mut Reply) -> Result<(), CommandError> {
    let clients = world.clients();
    let mut chosen = Vec::new();
    match args {
        [] => chosen = clients,
        [option, name] if option.eq_ignore_ascii_case(b"type") => {
            for client in clients {
                if has_type(&client, name)? {
                    chosen.push(client);
                }
            }
        }
        [option, ids @ ..] if option.eq_ignore_ascii_case(b"id") && !ids.is_empty() => {
            for id in ids {
                let id = canonical_i64(id).filter(|&id| id > 0);
                let id = id.ok_or_else(|| CommandError::new("Invalid client ID"))? as u64;
                chosen.extend(clients.iter().filter(|client| client.id == id).cloned());
            }
        }
        _ => return Err(CommandError::SYNTAX),
    }
    let text: String = chosen
        .iter()
        .map(|client| describe(client) + "\n")
        .collect();
    out.verbatim(b"txt", text.as_bytes());
    Ok(())
}

fn kill(world: &World, own: &Client, args: &[&[u8]], out: &mut Reply) -> Result<(), CommandError> {
    let clients = world.clients();
    if let [addr] = args {
        let client = clients
            .iter()
            .find(|client| client.addr.as_bytes() == *addr)
            .ok_or(NO_SUCH_CLIENT)?;
        end(own, client);
        out.ok();
        return Ok(());
    }
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::SYNTAX);
    }
    let mut skip_me = true;
    let mut chosen = clients;
    for pair in args.chunks_exact(2) {
        let (option, value) = (pair[0].to_ascii_lowercase(), pair[1]);
        match option.as_slice() {
            b"id" => {
                let id = canonical_i64(value).filter(|&id| id > 0);
                let id = id
                    .ok_or_else(|| CommandError::new("client-id should be greater than 0"))?
                    as u64;
                chosen.retain(|client| client.id == id);
            }
            b"addr" => chosen.retain(|client| client.addr.as_bytes() == value),
            b"laddr" => chosen.retain(|client| client.laddr.as_bytes() == value),
            b"user" => {
                let user = String::from_utf8_lossy(value);
                if acl::find(value).is_none() {
                    return Err(CommandError::new(format!("No such user '{user}'")));
                }
                chosen.retain(|client| client.texts().user == user);
            }
            b"type" => {
                for client in std::mem::take(&mut chosen) {
                    if has_type(&client, value)? {
                        chosen.push(client);
                    }
                }
            }
            b"maxage" => {
                let seconds = canonical_i64(value).ok_or(CommandError::text(
                    "ERR maxage is not an integer or out of range",
                ))?;
                if seconds <= 0 {
                    return Err(CommandError::new("maxage should be greater than 0"));
                }
                let now = now_ms();
                chosen.retain(|client| (now - client.connected_ms) / 1000 >= seconds);
            }
            b"skipme" if value.eq_ignore_ascii_case(b"yes") => skip_me = true,
            b"skipme" if value.eq_ignore_ascii_case(b"no") => skip_me = false,
            _ => return Err(CommandError::SYNTAX),
        }
    }
    chosen.retain(|client| !skip_me || client.id != own.id);
    for client in &chosen {
        end(own, client);
    }
    out.int(chosen.len() as i64);
    Ok(())
}

/// CLIENT UNBLOCK: ends another client's wait, as if its time were over or with an error.
fn unblock(world: &World, args: &[&[u8]], out: &mut Reply) -> Result<(), CommandError> {
    let end = match args.get(1) {
        None => End::TimedOut,
        Some(word) if word.eq_ignore_ascii_case(b"timeout") => End::TimedOut,
        Some(word) if word.eq_ignore_ascii_case(b"error") => {
            End::Error(UNBLOCKED, AfterError::Stays)
        }
        Some(_) => {
            return Err(CommandError::new(
                "CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
            ));
        }
    };
    let id = canonical_i64(args[0]).ok_or(CommandError::NOT_INTEGER)?;
    let clients = world.clients();
    let client = clients.iter().find(|client| client.id as i64 == id);
    let is_unblocked = client.is_some_and(|client| client.unblock(end));
    out.int(i64::from(is_unblocked));
    Ok(())
}

/// Ends a client's connection: another's at once, one's own after the reply.
fn end(own: &Client, client: &Client) {
    if client.id == own.id {
        own.must_end.store(true, Ordering::Relaxed);
    } else {
        client.kill();
    }
}
