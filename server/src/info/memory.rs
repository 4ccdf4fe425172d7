//! The section of INFO about memory, and the figures that MEMORY STATS and MEMORY DOCTOR share with it.

use std::sync::atomic::Ordering;

use super::{Put, Totals};
use crate::command::script;
use crate::keyspace::Database;
use crate::memory;
use crate::world::World;

/// What the tables of a database take besides keys and values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tables {
    /// Number of keys.
    pub keys: u64,
    /// Bytes of the table, without the entries in it.
    pub main_bytes: u64,
    /// Bytes of the index of expiry times.
    pub expiry_bytes: u64,
}

impl Tables {
    /// Those of a shard's part of a database.
    pub fn of(database: &Database) -> Tables {
        Tables {
            keys: database.entries().len() as u64,
            main_bytes: database.entries().frame_bytes() as u64,
            expiry_bytes: database.expiry().heap_bytes() as u64,
        }
    }

    pub(super) fn add(&mut self, other: Tables) {
        self.keys += other.keys;
        self.main_bytes += other.main_bytes;
        self.expiry_bytes += other.expiry_bytes;
    }
}

/// What memory is used for, in bytes.
pub struct Memory {
    /// Allocated.
    pub used: u64,
    /// The most that was.
    pub peak: u64,
    /// Allocated when the server had started.
    pub startup: u64,
    /// Resident pages of the process.
    pub resident: u64,
    /// What the allocator says.
    pub allocator: memory::Allocator,
    /// The replication backlog.
    pub backlog: u64,
    /// What is kept beside it for replicas that lag.
    pub replicas: u64,
    /// Buffers of clients.
    pub clients: u64,
    /// Tables by database.
    pub databases: Vec<Tables>,
}

impl Memory {
    /// As it is now.
    pub async fn of(world: &World) -> Memory {
        let totals = super::totals(world).await;
        Memory::with(world, totals.used, totals.tables)
    }

    fn with(world: &World, used: u64, databases: Vec<Tables>) -> Memory {
        let peak = world
            .counters
            .memory_peak
            .fetch_max(used, Ordering::Relaxed);
        let allocator = memory::allocator();
        let (buffers, backlog, has_replicas) = (world.log).with(|log| {
            let buffers = (log.backlog.as_ref()).map_or(0, |backlog| backlog.allocated());
            let has_replicas = !log.replicas.is_empty();
            (buffers, buffers.min(log.backlog_bytes), has_replicas)
        });
        let clients = world.clients();
        Memory {
            used,
            peak: peak.max(used),
            startup: memory::at_start().min(used),
            resident: memory::resident(),
            allocator,
            backlog: if has_replicas { backlog } else { buffers },
            replicas: if has_replicas { buffers - backlog } else { 0 },
            clients: clients.iter().map(|client| client.memory() as u64).sum(),
            databases,
        }
    }

    /// What is not keys and values.
    pub fn overhead(&self) -> u64 {
        let (scripts, functions) = script::memory_bytes();
        let tables = self.databases.iter();
        let tables: u64 = tables
            .map(|tables| tables.main_bytes + tables.expiry_bytes)
            .sum();
        (self.startup + self.backlog + self.replicas + self.clients + scripts + functions + tables)
            .min(self.used)
    }

    /// Keys and values.
    pub fn dataset(&self) -> u64 {
        self.used - self.overhead()
    }

    /// Keys and values, as a part of what came after the start.
    pub fn dataset_percentage(&self) -> f64 {
        let since_start = self.used.saturating_sub(self.startup).max(1);
        (self.dataset() as f64 * 100.0 / since_start as f64).min(100.0)
    }

    /// What is used now, as a part of the most that was.
    pub fn peak_percentage(&self) -> f64 {
        self.used as f64 * 100.0 / self.peak.max(1) as f64
    }

    /// Number of keys.
    pub fn keys(&self) -> u64 {
        self.databases.iter().map(|tables| tables.keys).sum()
    }
}

/// Bytes for people, as Redis prints them.
fn human(bytes: u64) -> String {
    let scaled = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{:.2}K", scaled / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.2}M", scaled / 1_048_576.0),
        _ => format!("{:.2}G", scaled / 1_073_741_824.0),
    }
}

pub(super) fn section(world: &World, totals: &Totals, put: &mut Put<'_>) {
    let now = Memory::with(world, totals.used, totals.tables.clone());
    let config = world.config();
    for (name, bytes) in [
        ("used_memory", now.used),
        ("used_memory_rss", now.resident),
        ("used_memory_peak", now.peak),
        ("total_system_memory", memory::of_machine()),
        ("maxmemory", config.maxmemory),
    ] {
        put(name, &bytes);
        put(&format!("{name}_human"), &human(bytes));
    }
    let percentage = |value: f64| format!("{value:.2}%");
    put("used_memory_peak_perc", &percentage(now.peak_percentage()));
    put("used_memory_overhead", &now.overhead());
    put("used_memory_startup", &now.startup);
    put("used_memory_dataset", &now.dataset());
    put(
        "used_memory_dataset_perc",
        &percentage(now.dataset_percentage()),
    );
    for (shard, bytes) in totals.memory.iter().enumerate() {
        put(&format!("used_memory_shard{shard}"), bytes);
    }
    scripts(put);
    put("allocator_allocated", &now.allocator.allocated);
    put("allocator_active", &now.allocator.active);
    put("allocator_resident", &now.allocator.resident);
    put("maxmemory_policy", &config.maxmemory_policy.as_str());
    for (name, whole, part) in [
        (
            "allocator_frag",
            now.allocator.active,
            now.allocator.allocated,
        ),
        (
            "allocator_rss",
            now.allocator.resident,
            now.allocator.active,
        ),
        ("rss_overhead", now.resident, now.allocator.resident),
        ("mem_fragmentation", now.resident, now.used),
    ] {
        let ratio = whole as f64 / part.max(1) as f64;
        put(&format!("{name}_ratio"), &format!("{ratio:.2}"));
        put(&format!("{name}_bytes"), &(whole as i64 - part as i64));
    }
    put("mem_not_counted_for_evict", &memory::not_counted());
    put("mem_replication_backlog", &now.backlog);
    put(
        "mem_total_replication_buffers",
        &(now.backlog + now.replicas),
    );
    put("mem_clients_slaves", &now.replicas);
    put("mem_clients_normal", &now.clients);
    put("mem_cluster_links", &0);
    put("mem_aof_buffer", &0);
    put("mem_allocator", &"jemalloc");
    put("active_defrag_running", &0);
    let (pending, released) = crate::keyspace::release::counters();
    put("lazyfree_pending_objects", &pending);
    put("lazyfreed_objects", &released);
}

fn scripts(put: &mut Put<'_>) {
    let (lua, lua_functions) = script::memory_bytes();
    let (scripts, script_bytes) = script::store::size();
    let (libraries, functions, library_bytes) = script::functions::size();
    for (name, bytes) in [
        ("used_memory_lua", lua),
        ("used_memory_vm_total", lua + lua_functions),
        ("used_memory_scripts", script_bytes + library_bytes),
    ] {
        put(name, &bytes);
        put(&format!("{name}_human"), &human(bytes));
    }
    for (name, number) in [
        ("used_memory_vm_eval", lua),
        ("used_memory_scripts_eval", script_bytes),
        ("number_of_cached_scripts", scripts),
        ("number_of_functions", functions),
        ("number_of_libraries", libraries),
        ("used_memory_vm_functions", lua_functions),
        ("used_memory_functions", library_bytes),
    ] {
        put(name, &number);
    }
}
