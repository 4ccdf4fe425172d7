//! Loading the dataset: at the start, and again on DEBUG RELOAD.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::command::script::functions::{self, Onto};
use crate::config::RDB_VERSION_MAX;
use crate::keyspace::flush_all;
use crate::snapshot::catalog::{Found, Kind, Naming};
use crate::snapshot::fault::FaultyRead;
use crate::snapshot::load::{self, LoadOptions, Loaded};
use crate::snapshot::load_set;
use crate::threads;
use crate::tx::Coordinator;
use crate::world::World;

/// Loads the newest snapshot if there is one, on a thread that may block. The error names the file.
pub fn newest(world: &Arc<World>) -> Result<Option<Loaded>, String> {
    read_newest(world, Onto::Nothing)
}

fn read_newest(world: &Arc<World>, onto: Onto) -> Result<Option<Loaded>, String> {
    let (directory, naming, options) = {
        let config = world.config();
        let options = LoadOptions {
            drops_expired: config.replicaof.is_none(),
            databases: config.databases,
            version_max: RDB_VERSION_MAX,
            lenient: config.load_lenient,
            merges: onto == Onto::Merge,
            into_successor: false,
        };
        let directory = PathBuf::from(&config.dir);
        (directory, Naming::new(&config.dbfilename), options)
    };
    let found = naming
        .list(&directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let Some(newest) = found.first() else {
        return Ok(None);
    };
    tracing::info!(snapshot = %newest, "loading");
    let loaded = load_one(world, newest, options)?;
    functions::load(loaded.functions.clone(), onto)
        .map_err(|error| format!("{newest}: {error}"))?;
    world.persistence.change(|state| {
        state.load_expired = loaded.expired;
        state.load_keys = loaded.keys;
        state.last_bytes = loaded.bytes;
    });
    if loaded.lost > 0 {
        tracing::error!(
            lost = loaded.lost,
            "loaded what could be read of a damaged snapshot (load-lenient): each loss is above"
        );
        keep_damaged(newest);
    }
    Ok(Some(loaded))
}

/// Gives a damaged file a second name if the next save would write over it: there may be more to be had from it. A set is never written over,
/// nor is a file with the time in its name.
fn keep_damaged(found: &Found) {
    if found.kind != Kind::Rdb || found.is_timed {
        return;
    }
    let kept = (1..).find_map(|number: u32| {
        let mut name = found.path.clone().into_os_string();
        name.push(".damaged");
        if number > 1 {
            name.push(format!("-{number}"));
        }
        match std::fs::hard_link(&found.path, &name) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                is_same_file(&found.path, Path::new(&name)).then_some(Ok(name))
            }
            linked => Some(linked.map(|()| name)),
        }
    });
    match kept {
        Some(Ok(name)) => tracing::warn!(
            "the damaged file stays as {}, since a save writes over {found}",
            Path::new(&name).display()
        ),
        Some(Err(error)) => tracing::error!(
            %error,
            "{found} cannot be given a second name: the next save writes over the damaged file"
        ),
        None => unreachable!("there is no end of numbers"),
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let place = |path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((place(one), place(other)), (Ok(one), Ok(other)) if one == other)
}

fn load_one(world: &Arc<World>, found: &Found, options: LoadOptions) -> Result<Loaded, String> {
    let (links, progress) = (&world.links, &world.load_progress);
    match &found.kind {
        Kind::Rdb => {
            let named =
                |error: &dyn std::fmt::Display| format!("{}: {error}", found.path.display());
            let unread = |error: load::LoadError| named(&error.in_words_of_redis());
            let file = File::open(&found.path).map_err(|error| named(&error))?;
            progress.begin(file.metadata().map_err(|error| named(&error))?.len());
            load::load(FaultyRead(file), links, options, progress).map_err(unread)
        }
        Kind::Set(base) => {
            let threads = links.shards();
            load_set::load((&found.path, base), threads, links, options, progress)
                .map_err(|error| error.to_string())
        }
    }
}

/// Loads the newest snapshot onto what is there. After an error of loading onto nothing, nothing is there.
pub async fn reload(
    world: &Arc<World>,
    coordinator: &Coordinator,
    onto: Onto,
) -> Result<(), String> {
    let flushes = onto == Onto::Nothing;
    let world = world.clone();
    let load = threads::start_held("load", move || read_newest(&world, onto))
        .map_err(|error| error.to_string())?;
    if flushes {
        drop_all(coordinator).await;
    }
    let loaded = load.go().await;
    if loaded.is_err() && flushes {
        // Half a dataset is worse than none.
        drop_all(coordinator).await;
    }
    loaded.map(|_| ())
}

async fn drop_all(coordinator: &Coordinator) {
    coordinator
        .global(Box::new(|keyspaces| (flush_all(keyspaces), Vec::new())))
        .await;
}
