//! What all threads share: configuration, counters, and the state that INFO tells about.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use dfsnap_replica::{LinkTls, Phase};
use dfsnap_tls::{Acceptor, Connector};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use crate::clock::{now_ms, random_hex_40};
use crate::command::acl;
use crate::command::block::Context;
use crate::command::script::running;
use crate::config::words::MemoryLimit;
use crate::config::{Config, TlsUnconfigured};
use crate::journal::Journal;
use crate::keyspace::settings::Settings;
use crate::keyspace::value::Limits;
use crate::log::{Log, LogState};
use crate::pubsub::Hub;
use crate::shard::link::Links;
use crate::snapshot::file::{Backend, FileWriter};
use crate::snapshot::load::LoadProgress;
use crate::snapshot::save::{Persistence, Plan};
use crate::snapshot::serializer::{self, Dialect, Format, Usage};
use crate::snapshot::stream::Preamble;
use crate::stats::rates::Rates;
use crate::stats::{Recorder, ThreadReport};
use crate::tx::Coordinator;

mod client;
mod client_memory;
mod ending;
mod pause;
mod payloads;

pub use client::{Client, ClientTexts};
pub use client_memory::ClientMemory;
pub use ending::{Attempt, Ending};
pub use pause::{Pause, WriteHold};
pub use payloads::{PayloadMade, Payloads};

/// The control thread: what waits, schedules and speaks to primaries runs here.
pub struct Control {
    /// What all threads share.
    pub world: Arc<World>,
    /// Transactions over all shards.
    pub coordinator: Coordinator,
    /// The task of the link to a primary.
    pub follower: RefCell<Option<JoinHandle<()>>>,
    /// The tasks that take TCP connections.
    pub listeners: RefCell<Vec<JoinHandle<()>>>,
}

/// Runs on the control thread.
pub type ControlTask = Box<dyn FnOnce(Rc<Control>) + Send>;

/// Shared by all threads.
pub struct World {
    config: RwLock<Config>,
    /// For clients who connect with TLS, if the configuration has it.
    tls: RwLock<Option<Acceptor>>,
    /// For links to primaries; `None`: they go without TLS.
    pub link_tls: LinkTls,
    /// The same for what MIGRATE sends to other nodes.
    cluster_tls: RwLock<Option<Connector>>,
    /// The configuration file, if there is one.
    pub config_path: Option<PathBuf>,
    /// The way to the shards.
    pub links: Arc<Links>,
    /// Where commits are recorded.
    pub journal: Arc<Journal>,
    /// The replication log.
    pub log: Arc<Log>,
    /// The id of this node of a cluster, forty hex digits; empty without one.
    pub node_id: String,
    /// Subscriptions.
    pub hub: Arc<Hub>,
    /// Slow commands.
    pub recorder: Arc<Recorder>,
    /// CLIENT PAUSE.
    pub pause: Mutex<Option<Pause>>,
    /// How many have writes wait until they are done.
    pub write_holds: AtomicU32,
    /// Told when it is changed.
    pub pause_changed: Notify,
    /// A client's connection has ended.
    client_gone: Notify,
    failover: Mutex<FailoverStage>,
    /// Told when a failover goes on or ends.
    pub failover_changed: Notify,
    /// Told when this server has become a primary.
    pub promoted: Notify,
    /// The link to a primary, if there is one.
    pub link: Mutex<LinkState>,
    /// What is known of saves.
    pub persistence: Persistence,
    /// Snapshots that are being made for replicas.
    pub payloads: Payloads,
    /// Of the load in progress.
    pub load_progress: LoadProgress,
    /// Runs things on the control thread.
    pub control: UnboundedSender<ControlTask>,
    /// What clients take together.
    pub client_memory: ClientMemory,
    /// Connected clients by id.
    pub clients: Mutex<BTreeMap<u64, Arc<Client>>>,
    next_client_id: AtomicU64,
    /// Counters for INFO.
    pub counters: Counters,
    /// Of each shard's thread, as it was up to a second ago.
    pub reports: Mutex<Vec<ThreadReport>>,
    /// DEBUG PAUSE-CRON: nothing that is done now and then is done.
    pub is_cron_paused: AtomicBool,
    /// Of the last second and a half.
    pub rates: Rates,
    /// When the process started.
    pub started: Instant,
    /// Forty random hex digits, new for each run.
    pub run_id: String,
    /// A dataset is being loaded: most commands wait for it.
    pub is_loading: AtomicBool,
    /// A full sync is loaded beside the dataset that is served, which it will replace: clients read on.
    pub is_loading_successor: AtomicBool,
    /// This server is a replica.
    pub is_replica: AtomicBool,
    /// Commands may not write because the last save failed and the configuration says so.
    pub refuses_writes: AtomicBool,
    /// Commands may not write because too few replicas keep up: `min-replicas-to-write`.
    pub lacks_replicas: AtomicBool,
    /// The link to the primary is down, and old data is not to be served: `replica-serve-stale-data no`.
    pub is_stale: AtomicBool,
    /// Attempts to end the process.
    pub ending: Ending,
}

/// How far a planned failover (FAILOVER) is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailoverStage {
    /// None goes on.
    #[default]
    None,
    /// Writes wait until a replica has everything.
    WaitingForSync,
    /// This server follows that replica, which is asked to take over.
    InProgress,
}

impl FailoverStage {
    /// The word in INFO.
    pub fn name(self) -> &'static str {
        match self {
            FailoverStage::None => "no-failover",
            FailoverStage::WaitingForSync => "waiting-for-sync",
            FailoverStage::InProgress => "failover-in-progress",
        }
    }
}

/// Server-wide counters. Not on the path of a single command except where noted.
#[derive(Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections refused.
    pub rejected: AtomicU64,
    /// Connections whose TLS handshake goes on.
    pub handshaking: AtomicUsize,
    /// Commands run; each thread adds once per turn.
    pub commands: AtomicU64,
    /// Bytes read from clients.
    pub net_input: AtomicU64,
    /// Bytes written to clients.
    pub net_output: AtomicU64,
    /// Reads from sockets that gave something.
    pub reads: AtomicU64,
    /// Writes to sockets.
    pub writes: AtomicU64,
    /// Clients disconnected because of `maxmemory-clients`.
    pub evicted_clients: AtomicU64,
    /// Most memory seen in use, bytes.
    pub memory_peak: AtomicU64,
}

impl Counters {
    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        for counter in [
            &self.connections,
            &self.rejected,
            &self.commands,
            &self.net_input,
            &self.net_output,
            &self.reads,
            &self.writes,
            &self.evicted_clients,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

impl World {
    /// A world around this configuration.
    pub fn new(
        config: Config,
        config_path: Option<PathBuf>,
        node_id: String,
        links: Arc<Links>,
        journal: Arc<Journal>,
        control: UnboundedSender<ControlTask>,
    ) -> World {
        running::set_threshold_ms(config.busy_reply_threshold);
        World {
            log: Arc::new(Log::new(
                config.repl_backlog_size,
                config.repl_backlog_disk_limit,
            )),
            node_id,
            hub: Arc::new(hub_of(&config)),
            recorder: Arc::new(recorder_of(&config)),
            pause: Mutex::default(),
            write_holds: AtomicU32::new(0),
            pause_changed: Notify::new(),
            client_gone: Notify::new(),
            failover: Mutex::default(),
            failover_changed: Notify::new(),
            promoted: Notify::new(),
            link: Mutex::default(),
            persistence: Persistence::default(),
            payloads: Payloads::default(),
            load_progress: LoadProgress::new(config.key_load_delay),
            control,
            config: RwLock::new(config),
            tls: RwLock::default(),
            link_tls: LinkTls::default(),
            cluster_tls: RwLock::default(),
            config_path,
            links,
            journal,
            client_memory: ClientMemory::default(),
            clients: Mutex::default(),
            next_client_id: AtomicU64::new(1),
            counters: Counters::default(),
            reports: Mutex::default(),
            is_cron_paused: AtomicBool::new(false),
            rates: Rates::default(),
            started: Instant::now(),
            run_id: random_hex_40(),
            is_loading: AtomicBool::new(false),
            is_loading_successor: AtomicBool::new(false),
            is_replica: AtomicBool::new(false),
            refuses_writes: AtomicBool::new(false),
            lacks_replicas: AtomicBool::new(false),
            is_stale: AtomicBool::new(false),
            ending: Ending::default(),
        }
    }

    /// The configuration, to read. Not held across anything that waits.
    pub fn config(&self) -> RwLockReadGuard<'_, Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes TLS anew as the configuration says; if that fails, it stays as it was. Those who are connected keep what they have.
    pub fn configure_tls(&self) -> Result<(), TlsUnconfigured> {
        let (ends, is_for_links, is_for_cluster) = {
            let config = self.config();
            let ends = config.uses_tls().then(|| config.tls_ends()).transpose()?;
            (ends, config.tls_replication, config.tls_cluster)
        };
        let (acceptor, connector) = ends.map_or((None, None), |(acceptor, connector)| {
            (Some(acceptor), connector)
        });
        let (link, cluster) = (
            connector.clone().filter(|_| is_for_links),
            connector.filter(|_| is_for_cluster),
        );
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
        *self
            .link_tls
            .write()
            .unwrap_or_else(PoisonError::into_inner) = link;
        *self
            .cluster_tls
            .write()
            .unwrap_or_else(PoisonError::into_inner) = cluster;
        Ok(())
    }

    /// What begins sessions with clients.
    pub fn tls(&self) -> Option<Acceptor> {
        self.tls
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What begins sessions with other nodes, if they are spoken to with TLS.
    pub fn cluster_tls(&self) -> Option<Connector> {
        let connector = self.cluster_tls.read();
        connector.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is known of replicas. Whether there are enough of them for a write is decided in the same breath: who sees that a
    /// replica is online may write.
    pub fn change_replicas(&self, change: impl FnOnce(&mut LogState)) {
        let (wanted, max_lag_s) = {
            let config = self.config();
            (
                config.min_replicas_to_write as usize,
                config.min_replicas_max_lag,
            )
        };
        self.log.with(|log| {
            change(log);
            let is_replica = self.is_replica.load(Ordering::Relaxed);
            let lacks =
                wanted > 0 && max_lag_s > 0 && !is_replica && log.good_replicas(max_lag_s) < wanted;
            self.lacks_replicas.store(lacks, Ordering::Relaxed);
        });
    }

    /// Looks again whether the links to replicas and to the primary let commands run.
    pub fn judge_links(&self) {
        self.change_replicas(|_| {});
        let serves_stale = self.config().replica_serve_stale_data;
        let is_stale = self.is_replica.load(Ordering::Relaxed)
            && !serves_stale
            && self.link(|link| link.state.phase != Some(Phase::Stream));
        self.is_stale.store(is_stale, Ordering::Relaxed);
    }

    /// Tells the kernel how soon it may end this process. A failure is in the log.
    pub fn apply_oom_score(&self) -> std::io::Result<()> {
        let is_replica = self.is_replica.load(Ordering::Relaxed);
        crate::oom_score::apply(&self.config(), is_replica)
    }

    /// How far a planned failover is.
    pub fn failover(&self) -> FailoverStage {
        *self.failover.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a failover from one stage to another; false if it is not at the first.
    pub fn change_failover(&self, from: FailoverStage, to: FailoverStage) -> bool {
        {
            let mut stage = self.failover.lock().unwrap_or_else(PoisonError::into_inner);
            if *stage != from {
                return false;
            }
            *stage = to;
        }
        // Writes wait as long as it goes on.
        self.change_pause(|_| ());
        self.failover_changed.notify_waiters();
        true
    }

    /// Changes the configuration, and tells the shards what they need to know of it.
    pub fn change_config<R>(&self, change: impl FnOnce(&mut Config) -> R) -> R {
        let (result, new) = {
            let mut config = self.config.write().unwrap_or_else(PoisonError::into_inner);
            let result = change(&mut config);
            tell_hub(&self.hub, &config);
            tell_recorder(&self.recorder, &config);
            (
                result,
                Arc::new(settings(
                    &config,
                    self.links.shards(),
                    &self.hub,
                    &self.recorder,
                )),
            )
        };
        running::set_threshold_ms(self.config().busy_reply_threshold);
        self.broadcast_settings(new);
        result
    }

    fn broadcast_settings(&self, settings: Arc<Settings>) {
        for shard in 0..self.links.shards() {
            let settings = settings.clone();
            self.links
                .send(shard, Box::new(move |shard| shard.settings = settings));
        }
    }

    /// Runs something on the control thread, which may wait for anything but never for long.
    pub fn on_control(&self, task: impl FnOnce(Rc<Control>) + Send + 'static) {
        // The control thread ends with the process.
        let _ = self.control.send(Box::new(task));
    }

    /// What a block of commands needs to run.
    pub fn block_context(&self) -> Context {
        Context {
            settings: Arc::new(settings(
                &self.config(),
                self.links.shards(),
                &self.hub,
                &self.recorder,
            )),
            journal: self.journal.clone(),
        }
    }

    /// How a snapshot of this server is written now.
    pub fn snapshot_plan(&self) -> Plan {
        let config = self.config();
        let settings = settings(&config, self.links.shards(), &self.hub, &self.recorder);
        let policy = config.maxmemory_policy.as_str();
        let usage = if settings.lfu {
            Usage::Frequency(now_ms(), settings.lfu_decay_time)
        } else if policy.ends_with("lru") {
            Usage::Idle(now_ms())
        } else {
            Usage::None
        };
        let used = crate::memory::used();
        Plan {
            format: Format {
                dialect: Dialect::Rdb,
                compresses: config.rdbcompression,
                usage,
            },
            preamble: Preamble {
                version: serializer::version_needed(),
                aux: vec![
                    ("redis-ver", crate::config::REDIS_VERSION.to_owned()),
                    ("redis-bits", "64".to_owned()),
                    ("ctime", (now_ms() / 1000).to_string()),
                    ("used-mem", used.to_string()),
                ],
                libraries: Default::default(),
            },
            buffer_bytes: config.snapshot_buffer_limit,
            has_checksum: config.rdbchecksum,
            is_paced: false,
        }
    }

    /// A configuration file's text with the users of now; they are in the ACL file if there is one.
    fn with_users(&self, text: String) -> String {
        let is_user = |line: &&str| {
            let first = line.split_whitespace().next();
            first.is_some_and(|word| word.eq_ignore_ascii_case("user"))
        };
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| !is_user(line))
            .map(str::to_owned)
            .collect();
        let users = acl::all();
        let is_plain = users.len() == 1 && users[0].root().allows_everything();
        if self.config().aclfile.is_none() && !is_plain {
            let users = users.iter().map(|user| user.describe());
            lines.extend(users.map(|line| format!("user {}", String::from_utf8_lossy(&line))));
        }
        lines.join("\n") + "\n"
    }

    /// CONFIG REWRITE: writes what differs from the file into it, or `all` that there is, as a whole or not at all.
    pub fn rewrite_config(&self, all: bool) -> Result<(), String> {
        let path = self
            .config_path
            .as_ref()
            .ok_or("The server is running without a config file")?;
        let failed = |error: std::io::Error| format!("Rewriting config file: {error}");
        let old = std::fs::read_to_string(path).map_err(failed)?;
        let new = match all {
            true => self.config().rewrite_all(&old),
            false => self.config().rewrite(&old),
        };
        let new = self.with_users(new);
        let mut writer = FileWriter::create(path, Backend::Threads).map_err(failed)?;
        writer.append(new.as_bytes()).map_err(failed)?;
        writer.finish().map_err(failed)?;
        self.config
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .rewritten();
        Ok(())
    }

    /// The state of the link to a primary.
    pub fn link<R>(&self, look: impl FnOnce(&mut LinkState) -> R) -> R {
        look(&mut self.link.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Registers a client.
    pub fn add_client(&self, addr: String, laddr: String) -> Arc<Client> {
        let id = self.next_client_id.fetch_add(1, Ordering::Relaxed);
        let client = Arc::new(Client::new(id, addr, laddr, now_ms()));
        self.recorder.set_client(id, &client.addr, "");
        self.clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(client.id, client.clone());
        client
    }

    /// Number of connected clients, replicas among them.
    pub fn client_count(&self) -> usize {
        self.clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Forgets a client.
    pub fn remove_client(&self, id: u64) {
        self.recorder.forget_client(id);
        let gone = self
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        if let Some(client) = gone {
            self.forget_client_memory(&client);
            self.client_gone.notify_waiters();
        }
    }

    /// Waits until the connections of clients that were killed have ended, but for one's own: who has killed them, and looks, sees none of
    /// them. Not for longer than a second: a thread may be busy.
    pub async fn killed_are_gone(&self, own: u64) {
        let clients = self.clients();
        let killed = clients
            .iter()
            .filter(|client| client.id != own && client.is_killed.load(Ordering::Relaxed));
        let all_gone = async {
            // One after another, so that thousands are not looked through each time that one of them goes.
            for client in killed {
                loop {
                    let gone = self.client_gone.notified();
                    tokio::pin!(gone);
                    gone.as_mut().enable();
                    if self.client(client.id).is_none() {
                        break;
                    }
                    gone.await;
                }
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), all_gone).await;
    }

    /// The client of this id.
    pub fn client(&self, id: u64) -> Option<Arc<Client>> {
        let clients = self.clients.lock();
        clients
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    /// All clients in order of id.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }
}

fn hub_of(config: &Config) -> Hub {
    let hub = Hub::default();
    tell_hub(&hub, config);
    hub
}

fn recorder_of(config: &Config) -> Recorder {
    let recorder = Recorder::default();
    tell_recorder(&recorder, config);
    recorder
}

/// What the slow log needs of a configuration.
fn tell_recorder(recorder: &Recorder, config: &Config) {
    let slowlog = &recorder.slowlog;
    slowlog
        .threshold_us
        .store(config.slowlog_log_slower_than, Ordering::Relaxed);
    slowlog
        .len_max
        .store(config.slowlog_max_len, Ordering::Relaxed);
    recorder
        .latency
        .threshold_ms
        .store(config.latency_monitor_threshold, Ordering::Relaxed);
    recorder
        .tracks_latency
        .store(config.latency_tracking, Ordering::Relaxed);
}

/// What subscriptions need of a configuration.
fn tell_hub(hub: &Hub, config: &Config) {
    hub.is_cluster
        .store(config.cluster_enabled, Ordering::Relaxed);
    hub.set_events(config.notify_keyspace_events);
    let keys_max = usize::try_from(config.tracking_table_max_keys).unwrap_or(usize::MAX);
    hub.tracking.keys_max.store(keys_max, Ordering::Relaxed);
    let limit = config.client_output_buffer_limit.pubsub;
    let limits = &hub.limits;
    let clients_bytes = match config.maxmemory_clients {
        MemoryLimit::Bytes(bytes) => bytes,
        MemoryLimit::Percent(percent) => (config.maxmemory / 100).saturating_mul(percent),
    };
    limits.clients_bytes.store(clients_bytes, Ordering::Relaxed);
    limits.hard_bytes.store(limit.hard_bytes, Ordering::Relaxed);
    limits.soft_bytes.store(limit.soft_bytes, Ordering::Relaxed);
    let soft_ms = i64::try_from(limit.soft_seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    limits.soft_ms.store(soft_ms, Ordering::Relaxed);
}

/// What the shards need of a configuration.
pub fn settings(
    config: &Config,
    shards: usize,
    hub: &Arc<Hub>,
    recorder: &Arc<Recorder>,
) -> Settings {
    Settings {
        shards,
        limits: Limits {
            hash_listpack_entries: config.hash_max_listpack_entries,
            hash_listpack_value: config.hash_max_listpack_value,
            set_intset_entries: config.set_max_intset_entries,
            set_listpack_entries: config.set_max_listpack_entries,
            set_listpack_value: config.set_max_listpack_value,
            zset_listpack_entries: config.zset_max_listpack_entries,
            zset_listpack_value: config.zset_max_listpack_value,
            list_listpack_size: i64::from(config.list_max_listpack_size),
            stream_node_bytes: config.stream_node_max_bytes,
            stream_node_entries: config.stream_node_max_entries,
        },
        string_bytes_max: config.proto_max_bulk_len as u64,
        sparse_bytes_max: config.hll_sparse_max_bytes,
        expire_as_unlink: config.lazyfree_lazy_expire,
        memory_max: config.maxmemory,
        eviction_policy: config.maxmemory_policy,
        eviction_samples: config.maxmemory_samples as usize,
        eviction_tenacity: config.maxmemory_eviction_tenacity,
        evict_as_unlink: config.lazyfree_lazy_eviction,
        replica_read_only: config.replica_read_only,
        replica_ignores_memory: config.replica_ignore_maxmemory,
        lfu: config.maxmemory_policy.is_lfu(),
        lfu_log_factor: config.lfu_log_factor,
        lfu_decay_time: config.lfu_decay_time,
        save_after_flush: (!config.save.is_empty()).then(|| save_after_flush().clone()),
        save_delay_us: u64::try_from(config.rdb_key_save_delay).unwrap_or(0),
        snapshot_rate: config.snapshot_rate_limit,
        snapshot_cpu_share: config.snapshot_cpu_share,
        reply_bytes_max: match config.client_output_buffer_limit.normal.hard_bytes {
            0 => usize::MAX,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        },
        hub: hub.clone(),
        recorder: recorder.clone(),
    }
}

/// Connections that are kept for the next MIGRATE, of all threads.
pub static MIGRATE_SOCKETS: AtomicUsize = AtomicUsize::new(0);

/// Whether FLUSHALL wants the empty dataset saved.
pub fn save_after_flush() -> &'static Arc<AtomicBool> {
    static WISH: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
    &WISH
}

/// The primary and how the link to it is, for INFO and ROLE.
#[derive(Default)]
pub struct LinkState {
    /// Where the primary is; `None`: this server is one.
    pub primary: Option<(String, u16)>,
    /// Of the link to it.
    pub state: FollowerState,
    /// Ends the link.
    pub stop: Option<Arc<Notify>>,
    /// Which link this is: a late word of an earlier one does not count.
    pub generation: u64,
}

/// How a link is.
#[derive(Clone, Debug, Default)]
pub struct FollowerState {
    /// Last seen.
    pub phase: Option<Phase>,
    /// What is applied.
    pub offset: Option<u64>,
    /// Bytes of the payload in all, if known, and read so far.
    pub payload: (Option<u64>, u64),
    /// When the primary was last heard, Unix ms.
    pub heard_at_ms: i64,
    /// When the link went down, Unix ms; 0 = never up.
    pub down_since_ms: i64,
}
