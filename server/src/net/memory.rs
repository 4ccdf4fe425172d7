//! MEMORY: what the process takes and what for. MEMORY USAGE looks at a key where that is: `command::memory`.

use super::connection::Connection;
use super::observation::{help, unknown, wrong_arity};
use crate::command::call::{Call, Words};
use crate::command::inner;
use crate::command::{CommandError, table};
use crate::info::Memory;
use crate::memory;
use crate::world::World;

/// Below this MEMORY DOCTOR has nothing to say.
const SMALL_BYTES: u64 = 5 * 1024 * 1024;
/// Clients whose buffers take more than this on the average are worth a word.
const CLIENT_BYTES: u64 = 200 * 1024;

/// MEMORY and its subcommands.
pub async fn memory(connection: &mut Connection, words: Words) -> Result<(), CommandError> {
    let args: Vec<Vec<u8>> = words.iter().map(<[u8]>::to_vec).collect();
    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    match (args[1].to_ascii_lowercase().as_slice(), &args[2..]) {
        (b"usage", [_, ..]) => {
            let command = table::own(b"memory").and_then(|row| inner::row(row, &args));
            let call = Call {
                command: command.expect("the row of MEMORY USAGE"),
                db: connection.db,
                words,
            };
            let reply = connection.run_everywhere(vec![call]).await;
            connection.out.raw(&reply);
        }
        (b"stats", []) => stats(connection).await,
        (b"doctor", []) => {
            let text = diagnosis(&connection.thread.world).await;
            connection.out.verbatim(b"txt", text.as_bytes());
        }
        (b"malloc-stats", []) => {
            let text = memory::allocator_report();
            connection.out.verbatim(b"txt", text.as_bytes());
        }
        (b"purge", []) => {
            memory::purge();
            connection.out.ok();
        }
        (b"help", []) => help(
            connection,
            &[
                "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
                "DOCTOR",
                "    What is unusual about the memory of this server.",
                "MALLOC-STATS",
                "    The allocator's own figures.",
                "PURGE",
                "    Gives pages that the allocator keeps back to the system.",
                "STATS",
                "    What memory is used for, in bytes.",
                "USAGE <key> [SAMPLES <count>]",
                "    Bytes that a key and its value take.",
                "HELP",
                "    This text.",
            ],
        ),
        (b"usage" | b"stats" | b"doctor" | b"malloc-stats" | b"purge" | b"help", _) => {
            return Err(wrong_arity("memory", args[1]));
        }
        _ => return Err(unknown("MEMORY", args[1])),
    }
    Ok(())
}

async fn stats(connection: &mut Connection) {
    let world = connection.thread.world.clone();
    let memory = Memory::of(&world).await;
    let scripts = crate::command::script::memory_bytes();
    let out = &mut connection.out;
    let mut whole = vec![
        ("peak.allocated", memory.peak),
        ("total.allocated", memory.used),
        ("startup.allocated", memory.startup),
        ("replication.backlog", memory.backlog),
        ("clients.slaves", memory.replicas),
        ("clients.normal", memory.clients),
        ("cluster.links", 0),
        ("aof.buffer", 0),
        ("lua.caches", scripts.0),
        ("functions.caches", scripts.1),
    ];
    let last = [
        ("overhead.total", memory.overhead()),
        ("keys.count", memory.keys()),
        (
            "keys.bytes-per-key",
            memory.used.saturating_sub(memory.startup) / memory.keys().max(1),
        ),
        ("dataset.bytes", memory.dataset()),
    ];
    let databases: Vec<_> = (memory.databases.iter().enumerate())
        .filter(|(_, tables)| tables.keys > 0)
        .collect();
    out.map(whole.len() + databases.len() + last.len() + 13);
    let put = |out: &mut dfsnap_formats::resp::Reply, name: &str, bytes: u64| {
        out.bulk(name.as_bytes());
        out.int(bytes as i64);
    };
    whole
        .drain(..)
        .for_each(|(name, bytes)| put(out, name, bytes));
    for (db, tables) in databases {
        out.bulk(format!("db.{db}").as_bytes());
        out.map(3);
        put(out, "overhead.hashtable.main", tables.main_bytes);
        put(out, "overhead.hashtable.expires", tables.expiry_bytes);
        put(out, "overhead.hashtable.slot-to-keys", 0);
    }
    last.iter().for_each(|(name, bytes)| put(out, name, *bytes));
    let ratio = |out: &mut dfsnap_formats::resp::Reply, name: &str, ratio: f64| {
        out.bulk(name.as_bytes());
        out.double(ratio);
    };
    ratio(out, "dataset.percentage", memory.dataset_percentage());
    ratio(out, "peak.percentage", memory.peak_percentage());
    put(out, "allocator.allocated", memory.used);
    put(out, "allocator.active", memory.allocator.active);
    put(out, "allocator.resident", memory.allocator.resident);
    ratio(
        out,
        "allocator-fragmentation.ratio",
        share(memory.allocator.active, memory.used),
    );
    put(
        out,
        "allocator-fragmentation.bytes",
        memory.allocator.active.saturating_sub(memory.used),
    );
    ratio(
        out,
        "allocator-rss.ratio",
        share(memory.allocator.resident, memory.allocator.active),
    );
    put(
        out,
        "allocator-rss.bytes",
        memory
            .allocator
            .resident
            .saturating_sub(memory.allocator.active),
    );
    ratio(
        out,
        "rss-overhead.ratio",
        share(memory.resident, memory.allocator.resident),
    );
    out.bulk(b"rss-overhead.bytes");
    out.int(memory.resident as i64 - memory.allocator.resident as i64);
    ratio(out, "fragmentation", share(memory.resident, memory.used));
    out.bulk(b"fragmentation.bytes");
    out.int(memory.resident as i64 - memory.used as i64);
}

/// `part` by `whole`, as a ratio.
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// What MEMORY DOCTOR says.
async fn diagnosis(world: &World) -> String {
    let memory = Memory::of(world).await;
    if memory.used < SMALL_BYTES {
        return "The server is nearly empty: there is too little memory in use to say anything about it.\n"
            .into();
    }
    let mut findings = Vec::new();
    if share(memory.peak, memory.used) > 1.5 {
        findings.push(format!(
            "Peak: at {} bytes, once more than half as much again was in use as now ({}). Pages of that time may still be \
             resident: MEMORY PURGE gives back what can be given back.",
            memory.peak, memory.used
        ));
    }
    if share(memory.resident, memory.used) > 1.4 && memory.resident > memory.used + SMALL_BYTES {
        findings.push(format!(
            "Fragmentation: {} bytes are resident for {} in use, of which {} are in the allocator's pages.",
            memory.resident, memory.used, memory.allocator.active
        ));
    }
    let clients = world.client_count().max(1) as u64;
    if memory.clients / clients > CLIENT_BYTES {
        findings.push(format!(
            "Clients: their buffers take {} bytes on the average. Look for large omem and qbuf in CLIENT LIST, and see \
             client-output-buffer-limit and maxmemory-clients.",
            memory.clients / clients
        ));
    }
    let (scripts, bytes) = crate::command::script::store::size();
    if scripts > 1000 {
        findings.push(format!(
            "Scripts: {scripts} are kept ({bytes} bytes). Pass what differs in KEYS and ARGV, so that the text stays the same."
        ));
    }
    if findings.is_empty() {
        return "Nothing is unusual about the memory of this server.\n".into();
    }
    let mut text = String::from("Found:\n");
    for finding in findings {
        text.push_str(&format!("\n * {finding}\n"));
    }
    text
}
