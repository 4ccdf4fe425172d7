//! Puts the parts together: threads, listener, loading, and the end.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;

use crate::clock::now_ms;
use crate::command::script::running;
use crate::command::table;
use crate::config::load::Loaded;
use crate::journal::Journal;
use crate::keyspace::{Keyspace, release};
use crate::net::{emergency, listener, thread};
use crate::replication;
use crate::saving;
use crate::service;
use crate::shard::Shard;
use crate::shard::beside::Beside;
use crate::shard::link::{Inbox, Links};
use crate::snapshot::catalog::Naming;
use crate::snapshot::hook::Saver;
use crate::stats::rates::Sampler;
use crate::threads;
use crate::tx::{Coordinator, Here};
use crate::world::{Control, World, settings};

/// What systemd hears when the server is up.
const READY: &str = "READY=1\nSTATUS=Ready to accept connections";

/// Runs the server until it is told to end. Returns only on an error, which says what to do.
pub fn run(loaded: Loaded) -> anyhow::Result<()> {
    let config = loaded.config;
    std::env::set_current_dir(&config.dir)
        .map_err(|error| anyhow::anyhow!("cannot change to dir {}: {error}", config.dir))?;
    let shards = match config.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let node_id = if config.cluster_enabled {
        crate::net::cluster::load_node_id(&config)?
    } else {
        String::new()
    };
    crate::memory::count_this_thread();
    let (links, inboxes) = Links::new(shards);
    let (journal, records) = Journal::new();
    let (control_sender, mut control_tasks) = unbounded_channel();
    let world = Arc::new(World::new(
        config,
        loaded.path,
        node_id,
        Arc::new(links),
        Arc::new(journal),
        control_sender,
    ));
    world.is_loading.store(true, Ordering::Relaxed);
    crate::crash::set_world(&world);
    table::rename(&world.config().renamed_commands).map_err(|error| anyhow::anyhow!("{error}"))?;
    crate::net::acl::load_users(&world).map_err(|error| anyhow::anyhow!("{error}"))?;
    running::set_on_overdue(emergency::answer_idle);
    crate::command::script::set_write_check(crate::net::scripts::check_write);
    crate::command::script::set_stale_check(crate::net::scripts::is_stale);
    crate::command::script::set_session_runner(crate::net::scripts::run);
    world.configure_tls().map_err(|error| {
        anyhow::anyhow!("{error}\nFailed to configure TLS. Check logs for more info.")
    })?;
    let unstarted = |error| anyhow::anyhow!("cannot start a thread of the server: {error}");
    release::start().map_err(unstarted)?;
    spawn_shards(&world, inboxes).map_err(unstarted)?;

    let runtime = Builder::new_current_thread()
        .on_thread_start(crate::memory::count_this_thread)
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let listeners = listener::start(&world)?;
        let here = Here {
            shard: None,
            links: world.links.clone(),
        };
        let control = Rc::new(Control {
            world: world.clone(),
            coordinator: Coordinator::new(here),
            follower: Default::default(),
            listeners: listeners.into(),
        });
        tokio::task::spawn_local(crate::log::merge(world.log.clone(), records));
        tokio::task::spawn_local(signals(world.clone())?);
        crate::watchdog::follow_config(&world);
        service::write_pidfile(&world.config());
        service::tell(&world.config(), "STATUS=Redis is loading...");
        crate::memory::note_start();
        let loaded = load(&world).await;
        let position = loaded.inspect_err(|_| service::remove_pidfile(&world.config()))?;
        warn_of_memory(&world);
        let primary = world.config().replicaof.clone();
        if let Some(position) = position {
            replication::resume(&control, position, primary.is_some()).await;
        }
        let _ = world.apply_oom_score();
        tokio::task::spawn_local(saving::by_rules(control.clone()));
        tokio::task::spawn_local(ping_replicas(world.clone()));
        tokio::task::spawn_local(replication::watch_links(world.clone()));
        tokio::task::spawn_local(watch_outboxes(world.clone()));
        tokio::task::spawn_local(sample_rates(world.clone()));
        tokio::task::spawn_local(correct_memory());
        if let Some(primary) = primary {
            replication::follow(&control, primary.host, primary.port, None);
        }
        crate::proc_title::apply(&world.config(), world.config_path.as_deref());
        // Only now, so that no write is let in that its role or too few replicas forbid.
        world.judge_links();
        world.is_loading.store(false, Ordering::Relaxed);
        tracing::info!("Server initialized");
        tracing::info!("Ready to accept connections");
        service::tell(&world.config(), READY);
        while let Some(task) = control_tasks.recv().await {
            task(control.clone());
        }
        Ok(())
    })
}

/// Loads the dataset, refusing to start on anything that is not whole. The answer is its place in a replication stream: history,
/// offset, database.
async fn load(world: &Arc<World>) -> anyhow::Result<Option<(String, u64, u32)>> {
    {
        let config = world.config();
        let others: Vec<PathBuf> = config.snapshot_dirs.iter().map(PathBuf::from).collect();
        if let Some(missing) = others.iter().find(|other| !other.is_dir()) {
            anyhow::bail!("snapshot-dirs: {} is no directory", missing.display());
        }
        Naming::new(&config.dbfilename).remove_leftovers(Path::new(&config.dir), &others);
    }
    let started = std::time::Instant::now();
    let shared = world.clone();
    let loaded = threads::run("load", move || crate::loading::newest(&shared)).await?;
    match loaded {
        Ok(None) => Ok(None),
        Ok(Some(loaded)) => {
            tracing::info!(
                "Done loading RDB, keys loaded: {}, keys expired: {}, empty keys skipped: {}.",
                loaded.keys,
                loaded.expired,
                loaded.empty
            );
            tracing::info!(
                bytes = loaded.bytes,
                "DB loaded from disk: {:.3} seconds",
                started.elapsed().as_secs_f64()
            );
            Ok(loaded.replication)
        }
        Err(error) => Err(anyhow::anyhow!(
            "Fatal error loading the DB: {error}\nnothing was changed; try: dfsnap verify FILE\n\
             Terminating server after rdb file reading failure."
        )),
    }
}

/// A dataset is loaded as it was saved, though `maxmemory` may be less.
fn warn_of_memory(world: &World) {
    let (limit, policy) = {
        let config = world.config();
        (config.maxmemory, config.maxmemory_policy.as_str())
    };
    let used = crate::memory::used();
    if limit > 0 && used > limit {
        tracing::warn!(
            used,
            limit,
            policy,
            "the dataset takes more memory than maxmemory allows: keys are evicted or writes refused by the policy"
        );
    }
}

/// Starts the shards, each with the thread beside it, and waits until they run.
fn spawn_shards(world: &Arc<World>, inboxes: Vec<Inbox>) -> std::io::Result<()> {
    let cores = rustix::thread::sched_getaffinity(None).ok();
    let shards = inboxes.len();
    let (started, starts) = std::sync::mpsc::channel();
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let (world, cores, started) = (world.clone(), cores, started.clone());
        let beside = Beside::start(index)?;
        std::thread::Builder::new()
            .name(format!("shard-{index}"))
            // Scripts nest values a thousand deep. Only what is used is taken.
            .stack_size(crate::shard::STACK_BYTES)
            .spawn(move || {
                if let Some(cores) = cores.filter(|cores| shards as u32 <= cores.count()) {
                    pin(index, &cores);
                }
                let make = || {
                    let config = world.config();
                    let keyspace =
                        Box::new(Keyspace::new(config.databases, Box::new(Saver::default())));
                    Shard::new(
                        index,
                        beside,
                        keyspace,
                        Arc::new(settings(&config, shards, &world.hub, &world.recorder)),
                        world.links.clone(),
                        world.journal.clone(),
                    )
                };
                // Its answer is waited for.
                let tell = |start| {
                    started
                        .send(start)
                        .expect("the server waits for its shards")
                };
                thread::run(world.clone(), inbox, make, tell);
            })?;
    }
    starts.iter().take(shards).collect()
}

/// Pins this thread to the `index`th core that the process may use.
fn pin(index: usize, cores: &rustix::thread::CpuSet) {
    let core = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&core| cores.is_set(core))
        .nth(index);
    if let Some(core) = core {
        let mut one = rustix::thread::CpuSet::new();
        one.set(core);
        if let Err(error) = rustix::thread::sched_setaffinity(None, &one) {
            tracing::warn!(core, %error, "cannot pin a shard to its core");
        }
    }
}

/// SIGTERM and SIGINT: the first saves as `shutdown-on-sigterm` and `shutdown-on-sigint` say, else by the rules, and ends the process, the second ends it at once.
fn signals(world: Arc<World>) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        // How many shutdowns had been given up at the last signal.
        let mut signalled = None;
        loop {
            let wanted = tokio::select! {
                _ = terminate.recv() => world.config().shutdown_on_sigterm,
                _ = interrupt.recv() => world.config().shutdown_on_sigint,
            };
            let given_up = world.ending.aborts();
            if signalled.replace(given_up) == Some(given_up) {
                tracing::warn!("a second signal: ending at once");
                saving::remove_unfinished(&world);
                service::remove_pidfile(&world.config());
                std::process::exit(1);
            }
            tracing::info!("User requested shutdown...");
            let world = world.clone();
            tokio::task::spawn_local(async move {
                let ready = match signal_counts(&world).await {
                    true => saving::before_exit(&world, wanted.saves(), wanted.now).await,
                    false => Err(saving::ABORTED.to_owned()),
                };
                match ready {
                    Ok(_hold) => saving::exit(&world),
                    Err(error) if error == saving::ABORTED => {}
                    Err(error) if wanted.force => {
                        tracing::warn!(%error, "Error trying to save the DB; ending without, as shutdown-on-sig* says");
                        saving::exit(&world);
                    }
                    Err(error) => {
                        tracing::error!(%error, "Error trying to save the DB, can't exit; a second signal ends the server without");
                    }
                }
            });
        }
    })
}

/// Waits while nothing is done now and then (DEBUG PAUSE-CRON): Redis looks for signals at such times. False if the shutdown was
/// given up meanwhile.
async fn signal_counts(world: &World) -> bool {
    let attempt = world.ending.begin();
    while world.is_cron_paused.load(Ordering::Relaxed) && !attempt.is_aborted() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    !attempt.is_aborted()
}

/// Keeps the rates of INFO.
async fn sample_rates(world: Arc<World>) {
    let mut sampler = Sampler::default();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tick.tick().await;
        let counters = &world.counters;
        let totals = [
            &counters.commands,
            &counters.net_input,
            &counters.net_output,
        ]
        .map(|counter| counter.load(Ordering::Relaxed));
        sampler.sample(std::time::Instant::now(), totals, &world.rates);
    }
}

/// Keeps the count of memory right.
async fn correct_memory() {
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        crate::memory::correct();
    }
}

/// Ends clients whose outboxes are above the soft limit for too long, also when nothing more comes, and has those that are silent keep
/// no buffers.
async fn watch_outboxes(world: Arc<World>) {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if world.is_cron_paused.load(Ordering::Relaxed) {
            continue;
        }
        for client in world.clients() {
            client.outbox.check(&world.hub.limits);
            client.shrink_if_silent(now_ms());
        }
    }
}

/// Keeps replicas' links alive.
async fn ping_replicas(world: Arc<World>) {
    for second in 1_u64.. {
        // A shorter period counts at once.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let period_s = world.config().repl_ping_replica_period;
        if !second.is_multiple_of(period_s.max(1)) {
            continue;
        }
        let has_replicas = world.log.with(|log| !log.replicas.is_empty());
        // While writes wait, as before a planned end, replicas catch up with what there is.
        let is_quiet = world.is_replica.load(Ordering::Relaxed) || world.pause().is_some();
        if has_replicas && !is_quiet {
            world.log.push_command(&[b"ping"]);
        }
    }
}
