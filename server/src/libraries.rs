//! The code of function libraries, by name: what snapshots carry and all threads run.
//!
//! `command::script::functions` checks and changes it, within a run that holds all shards; a snapshot reads it in its cut.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

/// Code by the library's name.
pub type Codes = BTreeMap<String, Arc<Vec<u8>>>;

static CODES: LazyLock<RwLock<Arc<Codes>>> = LazyLock::new(RwLock::default);
/// Grows with each change.
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// All libraries as they are now.
pub fn all() -> Arc<Codes> {
    CODES.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Puts other libraries in place of all.
pub fn replace(codes: Codes) {
    *CODES.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(codes);
    GENERATION.fetch_add(1, Ordering::Release);
}

/// Of the libraries that are there now.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}
