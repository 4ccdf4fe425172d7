//! The scripts that clients have sent, by the SHA-1 of their text. All threads share them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use sha1::{Digest as _, Sha1};

use super::shebang::Flags;

/// A SHA-1 in lower-case hex.
pub type Sha = [u8; 40];

/// A script that compiles.
#[derive(Debug)]
pub struct Script {
    /// The whole text.
    pub body: Vec<u8>,
    /// Where the Lua begins: behind the shebang line.
    pub code_at: usize,
    /// What the shebang line says; `None` without one.
    pub flags: Option<Flags>,
}

impl Script {
    /// The Lua.
    pub fn code(&self) -> &[u8] {
        &self.body[self.code_at..]
    }
}

#[derive(Default)]
struct Known {
    scripts: HashMap<Sha, Arc<Script>, foldhash::fast::RandomState>,
    /// Those that touched a key they had not declared: they need all shards.
    undeclared: HashSet<Sha>,
}

static KNOWN: LazyLock<RwLock<Known>> = LazyLock::new(RwLock::default);
/// Grows with each flush: interpreters of an older generation start anew.
static GENERATION: AtomicU64 = AtomicU64::new(1);
static BODY_BYTES: AtomicU64 = AtomicU64::new(0);

fn read() -> RwLockReadGuard<'static, Known> {
    KNOWN.read().unwrap_or_else(PoisonError::into_inner)
}

fn write() -> RwLockWriteGuard<'static, Known> {
    KNOWN.write().unwrap_or_else(PoisonError::into_inner)
}

/// The SHA-1 of a text in hex.
pub fn sha1_hex(text: &[u8]) -> Sha {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [0; 40];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(Sha1::digest(text)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    hex
}

/// The SHA that a word names, in any case.
pub fn sha(word: &[u8]) -> Option<Sha> {
    let mut sha: Sha = word.try_into().ok()?;
    sha.make_ascii_lowercase();
    Some(sha)
}

/// The script of a SHA.
pub fn find(sha: &Sha) -> Option<Arc<Script>> {
    read().scripts.get(sha).cloned()
}

/// Keeps a script.
pub fn insert(sha: Sha, script: Arc<Script>) {
    let bytes = script.body.len() as u64;
    if write().scripts.insert(sha, script).is_none() {
        BODY_BYTES.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Forgets all scripts.
pub fn flush() {
    let mut known = write();
    known.scripts.clear();
    known.undeclared.clear();
    BODY_BYTES.store(0, Ordering::Relaxed);
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Of the scripts that are there now.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// How many scripts there are, and the bytes of their texts.
pub fn size() -> (u64, u64) {
    let count = read().scripts.len() as u64;
    (count, BODY_BYTES.load(Ordering::Relaxed))
}

/// Whether a script has touched a key it had not declared.
pub fn is_undeclared(sha: &Sha) -> bool {
    read().undeclared.contains(sha)
}

/// Notes that a script touches keys it does not declare.
pub fn set_undeclared(sha: Sha) {
    write().undeclared.insert(sha);
}
