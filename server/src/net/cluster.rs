//! The cluster protocol of one node that owns all slots (`cluster-enabled yes`): cluster clients work, and nobody is redirected.
//!
//! The node's id is kept in `cluster-config-file`, so that it is the same after a restart. Keys of one command must be in one slot, as in
//! every cluster.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use dfsnap_formats::resp::Reply;
use dfsnap_formats::slot::{SLOTS, slot};

use super::connection::Connection;
use crate::clock::{now_ms, random_hex_40};
use crate::command::CommandError;
use crate::command::slots::CROSS_SLOT;
use crate::config::Config;
use crate::keyspace::table::Cursor;
use crate::keyspace::value::canonical_i64;
use crate::keyspace::{DbIndex, Keyspace};
use crate::snapshot::file::{Backend, FileWriter};
use crate::world::World;

pub const DISABLED: CommandError =
    CommandError::text("ERR This instance has cluster support disabled");
const INVALID_SLOT: CommandError = CommandError::text("ERR Invalid slot");
const ONE_NODE: CommandError =
    CommandError::text("ERR This cluster has one node, which owns all slots and keeps them");

/// Keys looked at in one go when the keys of a slot are looked for.
const KEYS_PER_STEP: usize = 5_000;

/// The id of this node: from its file, or a new one that is written there.
pub fn load_node_id(config: &Config) -> anyhow::Result<String> {
    let name = config.value("cluster-config-file").unwrap_or("nodes.conf");
    let path = PathBuf::from(&config.dir).join(name);
    if let Ok(text) = std::fs::read_to_string(&path) {
        let id = text.split_whitespace().next().unwrap_or_default();
        let is_id = id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        anyhow::ensure!(
            is_id,
            "{}: its first word is no node id; move it away for a new one",
            path.display()
        );
        return Ok(id.to_owned());
    }
    let id = random_hex_40();
    let text = format!(
        "{id} :0@0 myself,master - 0 0 1 connected 0-{}\nvars currentEpoch 1 lastVoteEpoch 0\n",
        SLOTS - 1
    );
    let failed = |error| anyhow::anyhow!("cannot write {}: {error}", path.display());
    let mut writer = FileWriter::create(&path, Backend::Threads).map_err(failed)?;
    writer.append(text.as_bytes()).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(id)
}

/// Whether the keys of several commands are in one slot.
pub fn check_all<'k>(keys: impl Iterator<Item = &'k [u8]>) -> Result<(), CommandError> {
    let mut slots = keys.map(slot);
    match slots.next() {
        Some(first) if slots.any(|other| other != first) => Err(CROSS_SLOT),
        _ => Ok(()),
    }
}

/// READONLY, READWRITE and ASKING: nothing to do where all slots are.
pub fn mode(world: &World, out: &mut Reply) -> Result<(), CommandError> {
    enabled(world)?;
    out.ok();
    Ok(())
}

fn enabled(world: &World) -> Result<(), CommandError> {
    if world.hub.is_cluster.load(Ordering::Relaxed) {
        Ok(())
    } else {
        Err(DISABLED)
    }
}

/// Subcommands with the number of their words, negative: at least.
const SUBCOMMANDS: &[(&str, i32)] = &[
    ("addslots", -3),
    ("addslotsrange", -4),
    ("bumpepoch", 2),
    ("count-failure-reports", 3),
    ("countkeysinslot", 3),
    ("delslots", -3),
    ("delslotsrange", -4),
    ("failover", -2),
    ("flushslots", 2),
    ("forget", 3),
    ("getkeysinslot", 4),
    ("help", 2),
    ("info", 2),
    ("keyslot", 3),
    ("links", 2),
    ("meet", -4),
    ("myid", 2),
    ("myshardid", 2),
    ("nodes", 2),
    ("replicas", 3),
    ("replicate", 3),
    ("reset", -2),
    ("saveconfig", 2),
    ("set-config-epoch", 3),
    ("setslot", -4),
    ("shards", 2),
    ("slaves", 3),
    ("slots", 2),
];

/// CLUSTER and its subcommands.
pub async fn cluster(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
    let world = connection.thread.world.clone();
    let name = String::from_utf8_lossy(args[1]).to_lowercase();
    let Some((_, arity)) = SUBCOMMANDS.iter().find(|(known, _)| *known == name) else {
        return Err(CommandError::new(format!(
            "unknown subcommand '{}'. Try CLUSTER HELP.",
            String::from_utf8_lossy(args[1])
        )));
    };
    let words = args.len() as i32;
    if !(words == *arity || *arity < 0 && words >= -arity) {
        return Err(CommandError::wrong_arity(&format!("cluster|{name}")));
    }
    enabled(&world)?;
    let node = Node::of(connection);
    let out = &mut connection.out;
    match name.as_str() {
        "myid" => out.bulk(node.id.as_bytes()),
        "myshardid" => {
            // One node, one shard: its name is the node's, turned round.
            let id: String = node.id.chars().rev().collect();
            out.bulk(id.as_bytes());
        }
        "keyslot" => out.int(i64::from(slot(args[2]))),
        "countkeysinslot" => {
            let slot = parse_slot(args[2])?.ok_or(INVALID_SLOT)?;
            let count = keys_in_slot(&world, slot, usize::MAX).await.len();
            connection.out.int(count as i64);
        }
        "getkeysinslot" => {
            let slot = parse_slot(args[2])?;
            let count = canonical_i64(args[3]).ok_or(CommandError::NOT_INTEGER)?;
            let (Some(slot), Ok(count)) = (slot, usize::try_from(count)) else {
                return Err(CommandError::text("ERR Invalid slot or number of keys"));
            };
            let keys = keys_in_slot(&world, slot, count).await;
            connection.out.array(keys.len());
            keys.iter().for_each(|key| connection.out.bulk(key));
        }
        "info" => out.verbatim(b"txt", INFO.as_bytes()),
        "nodes" => out.verbatim(b"txt", (node.line() + "\n").as_bytes()),
        "slots" => node.reply_slots(connection),
        "shards" => node.reply_shards(connection),
        "links" => out.array(0),
        "replicas" | "slaves" => {
            node.known(args[2])?;
            out.array(0);
        }
        "count-failure-reports" => {
            node.known(args[2])?;
            out.int(0);
        }
        "addslots" | "addslotsrange" => {
            check_slots(&name, &args[2..])?;
            // They are this node's already: who sets up a cluster goes on.
            out.ok();
        }
        "bumpepoch" => out.simple("STILL 1"),
        "saveconfig" => out.ok(),
        "help" => {
            out.array(HELP.len());
            HELP.iter().for_each(|line| out.simple(line));
        }
        _ => return Err(ONE_NODE),
    }
    Ok(())
}

const INFO: &str = "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\n\
    cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:1\r\ncluster_size:1\r\n\
    cluster_current_epoch:1\r\ncluster_my_epoch:1\r\ncluster_stats_messages_sent:0\r\n\
    cluster_stats_messages_received:0\r\ntotal_cluster_links_buffer_limit_exceeded:0\r\n";

const HELP: [&str; 27] = [
    "CLUSTER <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ADDSLOTS <slot> [<slot> ...]",
    "    Nothing: all slots are this node's.",
    "ADDSLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...]",
    "    Nothing: all slots are this node's.",
    "COUNTKEYSINSLOT <slot>",
    "    The number of keys in a slot.",
    "GETKEYSINSLOT <slot> <count>",
    "    Keys of a slot.",
    "INFO",
    "    The state of the cluster.",
    "KEYSLOT <key>",
    "    The slot of a key.",
    "MYID",
    "    The id of this node.",
    "MYSHARDID",
    "    The id of this node's shard.",
    "NODES",
    "    The nodes, a line each.",
    "REPLICAS <node-id>",
    "    The replicas of a node.",
    "SHARDS",
    "    Slots and nodes of each shard.",
    "SLOTS",
    "    Ranges of slots with their nodes.",
    "HELP",
    "    This text.",
];

/// Checks the slots that CLUSTER ADDSLOTS or ADDSLOTSRANGE names, each at most once.
fn check_slots(subcommand: &str, words: &[&[u8]]) -> Result<(), CommandError> {
    let parse = |word: &[u8]| {
        let number = canonical_i64(word).and_then(|number| u16::try_from(number).ok());
        let slot = number.filter(|slot| *slot < SLOTS);
        slot.ok_or(CommandError::text("ERR Invalid or out of range slot"))
    };
    let mut is_named = vec![false; usize::from(SLOTS)];
    let mut note = |slot: u16| match std::mem::replace(&mut is_named[usize::from(slot)], true) {
        true => Err(CommandError::new(format!(
            "Slot {slot} specified multiple times"
        ))),
        false => Ok(()),
    };
    if subcommand == "addslots" {
        let slots: Result<Vec<u16>, _> = words.iter().map(|word| parse(word)).collect();
        return slots?.into_iter().try_for_each(note);
    }
    if !words.len().is_multiple_of(2) {
        return Err(CommandError::wrong_arity("cluster|addslotsrange"));
    }
    for range in words.chunks_exact(2) {
        let (first, last) = (parse(range[0])?, parse(range[1])?);
        if first > last {
            return Err(CommandError::new(format!(
                "start slot number {first} is greater than end slot number {last}"
            )));
        }
        (first..=last).try_for_each(&mut note)?;
    }
    Ok(())
}

/// A slot; `None` if there is none of this number.
fn parse_slot(word: &[u8]) -> Result<Option<u16>, CommandError> {
    let number = canonical_i64(word).ok_or(CommandError::NOT_INTEGER)?;
    Ok(u16::try_from(number).ok().filter(|slot| *slot < SLOTS))
}

/// Keys of a slot, up to `count`. Walks all keys, some at a time.
async fn keys_in_slot(world: &World, wanted: u16, count: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for shard in 0..world.links.shards() {
        let mut place = Some(Cursor(0));
        while let Some(from) = place {
            if found.len() >= count {
                break;
            }
            let step = world
                .links
                .call(shard, move |shard| {
                    let now_ms = shard.now_ms;
                    let Some(keyspace) = &shard.keyspace else {
                        // Lent for a moment.
                        return (Vec::new(), Some(from));
                    };
                    walk(keyspace, from, wanted, now_ms)
                })
                .await;
            let Some((keys, next)) = step else { break };
            found.extend(keys);
            place = next;
        }
    }
    found.truncate(count);
    found
}

fn walk(
    keyspace: &Keyspace,
    from: Cursor,
    wanted: u16,
    now_ms: i64,
) -> (Vec<Vec<u8>>, Option<Cursor>) {
    let (mut keys, mut seen, mut place) = (Vec::new(), 0, Some(from));
    while let Some(at) = place {
        if seen >= KEYS_PER_STEP {
            break;
        }
        place = keyspace.scan(DbIndex(0), at, |entry| {
            seen += 1;
            if slot(entry.key()) == wanted && !entry.is_expired(now_ms) {
                keys.push(entry.key().to_vec());
            }
        });
        seen += 1;
    }
    (keys, place)
}

/// This node, as the client that asks can reach it.
struct Node {
    id: String,
    ip: String,
    /// For the client that asks: with TLS or without, as it is connected.
    port: u16,
    /// Without TLS, and with it; 0: there is none.
    ports: [u16; 2],
    bus_port: u16,
    hostname: String,
    prefers: String,
    offset: u64,
}

impl Node {
    fn of(connection: &Connection) -> Node {
        let world = &connection.thread.world;
        let config = world.config();
        let text = |name: &str| config.value(name).unwrap_or_default().to_owned();
        let number = |name: &str| text(name).parse::<u16>().ok().filter(|port| *port != 0);
        let reached = connection.client.laddr.rsplit_once(':');
        let reached = reached.map(|(ip, _)| ip.trim_matches(['[', ']']).to_owned());
        let reached = reached.filter(|ip| ip.parse::<std::net::IpAddr>().is_ok());
        let announced = Some(text("cluster-announce-ip")).filter(|ip| !ip.is_empty());
        let plain_port = number("cluster-announce-port").unwrap_or(config.port);
        let tls_port = number("cluster-announce-tls-port").unwrap_or(config.tls_port);
        let port = if connection.is_tls {
            tls_port
        } else {
            plain_port
        };
        let bus_base = if config.tls_cluster {
            config.tls_port
        } else {
            config.port
        };
        Node {
            id: world.node_id.clone(),
            ip: announced
                .or(reached)
                .unwrap_or_else(|| "127.0.0.1".to_owned()),
            port,
            ports: [plain_port, tls_port],
            bus_port: number("cluster-announce-bus-port")
                .or(number("cluster-port"))
                .unwrap_or(bus_base.wrapping_add(10_000)),
            hostname: text("cluster-announce-hostname"),
            prefers: text("cluster-preferred-endpoint-type"),
            offset: world.log.with(|log| log.offset()),
        }
    }

    /// Refuses any other node's id.
    fn known(&self, id: &[u8]) -> Result<(), CommandError> {
        if id == self.id.as_bytes() {
            return Ok(());
        }
        Err(CommandError::new(format!(
            "Unknown node {}",
            String::from_utf8_lossy(id)
        )))
    }

    /// The line of CLUSTER NODES.
    fn line(&self) -> String {
        let hostname = if self.hostname.is_empty() {
            String::new()
        } else {
            format!(",{}", self.hostname)
        };
        format!(
            "{} {}:{}@{}{hostname} myself,master - 0 {} 1 connected 0-{}",
            self.id,
            self.ip,
            self.port,
            self.bus_port,
            now_ms(),
            SLOTS - 1
        )
    }

    /// What clients are to connect to; `None`: where they are connected already.
    fn endpoint(&self) -> Option<&str> {
        match self.prefers.as_str() {
            "hostname" if self.hostname.is_empty() => Some("?"),
            "hostname" => Some(&self.hostname),
            "unknown-endpoint" => None,
            _ => Some(&self.ip),
        }
    }

    fn reply_slots(&self, connection: &mut Connection) {
        let out = &mut connection.out;
        out.array(1);
        out.array(3);
        out.int(0);
        out.int(i64::from(SLOTS - 1));
        out.array(4);
        match self.endpoint() {
            Some(endpoint) => out.bulk(endpoint.as_bytes()),
            None => out.null(),
        }
        out.int(i64::from(self.port));
        out.bulk(self.id.as_bytes());
        let mut more: Vec<(&str, &str)> = Vec::new();
        if self.prefers != "ip" {
            more.push(("ip", &self.ip));
        }
        if self.prefers != "hostname" && !self.hostname.is_empty() {
            more.push(("hostname", &self.hostname));
        }
        out.map(more.len());
        for (name, value) in more {
            out.bulk(name.as_bytes());
            out.bulk(value.as_bytes());
        }
    }

    fn reply_shards(&self, connection: &mut Connection) {
        let out = &mut connection.out;
        out.array(1);
        out.map(2);
        out.bulk(b"slots");
        out.array(2);
        out.int(0);
        out.int(i64::from(SLOTS - 1));
        out.bulk(b"nodes");
        out.array(1);
        let names: [&[u8]; 2] = [b"port", b"tls-port"];
        let ports = names
            .into_iter()
            .zip(self.ports)
            .filter(|(_, port)| *port != 0);
        let has_name = !self.hostname.is_empty();
        out.map(6 + usize::from(has_name) + ports.clone().count());
        out.bulk(b"id");
        out.bulk(self.id.as_bytes());
        for (name, port) in ports {
            out.bulk(name);
            out.int(i64::from(port));
        }
        out.bulk(b"ip");
        out.bulk(self.ip.as_bytes());
        out.bulk(b"endpoint");
        match self.endpoint() {
            Some(endpoint) => out.bulk(endpoint.as_bytes()),
            None => out.null(),
        }
        if !self.hostname.is_empty() {
            out.bulk(b"hostname");
            out.bulk(self.hostname.as_bytes());
        }
        out.bulk(b"role");
        out.bulk(b"master");
        out.bulk(b"replication-offset");
        out.int(self.offset as i64);
        out.bulk(b"health");
        out.bulk(b"online");
    }
}
