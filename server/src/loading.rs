//! Loading the dataset: at the start, and again on DEBUG RELOAD.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::command::script::functions;
use crate::config::RDB_VERSION_MAX;
use crate::keyspace::flush_all;
use crate::snapshot::load::{self, LoadOptions, Loaded};
use crate::tx::Coordinator;
use crate::world::World;

/// Loads the RDB file if there is one, on a thread that may block. The error names the file.
pub fn from_file(world: &Arc<World>, path: &Path) -> Result<Option<Loaded>, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(&error)),
    };
    let total = file.metadata().map_err(|error| named(&error))?.len();
    world.load_progress.begin(total);
    let options = LoadOptions {
        drops_expired: world.config().replicaof.is_none(),
        databases: world.config().databases,
        version_max: RDB_VERSION_MAX,
    };
    let loaded = load::load(file, &world.links, options, &world.load_progress)
        .map_err(|error| named(&error))?;
    functions::load(loaded.functions.clone()).map_err(|error| named(&error))?;
    world.persistence.change(|state| {
        state.load_expired = loaded.expired;
        state.load_keys = loaded.keys;
    });
    Ok(Some(loaded))
}

/// Drops everything, if `flushes`, and loads the RDB file.
pub async fn reload(
    world: &Arc<World>,
    coordinator: &Coordinator,
    flushes: bool,
) -> Result<(), String> {
    if flushes {
        coordinator
            .global(Box::new(|keyspaces| (flush_all(keyspaces), Vec::new())))
            .await;
    }
    let (world, path) = (world.clone(), world.rdb_path());
    tokio::task::spawn_blocking(move || from_file(&world, &path))
        .await
        .expect("loading does not panic")
        .map(|_| ())
}
