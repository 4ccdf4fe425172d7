//! Scripts that take too long: who runs, what was asked of them, and how they end.
//!
//! A script is one run on one thread. After `busy-reply-threshold` it counts as overdue; from then on clients are told BUSY
//! and may ask for its end. A script that has written cannot be ended: half of it would stay.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::command::call::Words;

/// One run of a script or function.
#[derive(Debug)]
pub struct Running {
    /// The function's name; `None` for a script.
    pub function: Option<String>,
    /// The words of a function's command.
    pub words: Words,
    /// When it began.
    pub started: Instant,
    /// It has called a command that writes.
    pub has_written: AtomicBool,
    /// It came from the primary: it must end by itself.
    pub is_from_primary: bool,
    /// The shard whose thread it runs on.
    shard: Option<usize>,
    is_killed: AtomicBool,
    is_overdue: AtomicBool,
    /// It is ended by itself after half a second.
    is_limited: bool,
}

/// How long a library may take to register its functions.
pub const LOAD_LIMIT: Duration = Duration::from_millis(500);

static OVERDUE: Mutex<Vec<Arc<Running>>> = Mutex::new(Vec::new());
static OVERDUE_COUNT: AtomicUsize = AtomicUsize::new(0);
/// `busy-reply-threshold`, ms; 0 for never.
static THRESHOLD_MS: AtomicU64 = AtomicU64::new(5000);

thread_local! {
    static CURRENT: RefCell<Option<Arc<Running>>> = const { RefCell::new(None) };
}

static ON_OVERDUE: OnceLock<fn()> = OnceLock::new();

/// Introduces what is called, now and then, by an overdue script on the thread that it holds.
pub fn set_on_overdue(call: fn()) {
    let _ = ON_OVERDUE.set(call);
}

/// The shards whose threads overdue scripts hold.
pub fn held_shards() -> Vec<usize> {
    if OVERDUE_COUNT.load(Ordering::Relaxed) == 0 {
        return Vec::new();
    }
    overdue()
        .iter()
        .filter_map(|running| running.shard)
        .collect()
}

/// Sets `busy-reply-threshold`.
pub fn set_threshold_ms(ms: u64) {
    THRESHOLD_MS.store(ms, Ordering::Relaxed);
}

/// `busy-reply-threshold`, ms; 0 for never.
pub fn threshold_ms() -> u64 {
    THRESHOLD_MS.load(Ordering::Relaxed)
}

/// Says who runs on this thread, until the guard is dropped.
pub fn begin(mut running: Running) -> Guard {
    running.shard = crate::shard::link::own_shard();
    let running = Arc::new(running);
    CURRENT.set(Some(running.clone()));
    Guard(running)
}

/// Whether a script or function runs on this thread.
pub fn is_here() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

impl Running {
    /// A run that begins now.
    pub fn new(function: Option<String>, words: Words, is_from_primary: bool) -> Running {
        Running {
            function,
            words,
            started: Instant::now(),
            has_written: AtomicBool::new(false),
            is_from_primary,
            shard: None,
            is_killed: AtomicBool::new(false),
            is_overdue: AtomicBool::new(false),
            is_limited: false,
        }
    }

    /// The same for a library that registers its functions: that may not take long.
    pub fn limited(self) -> Running {
        Running {
            is_limited: true,
            ..self
        }
    }

    /// Somebody has asked for its end.
    pub fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Relaxed)
    }
}

/// Ends the run on this thread when dropped.
pub struct Guard(pub Arc<Running>);

impl Drop for Guard {
    fn drop(&mut self) {
        CURRENT.set(None);
        if self.0.is_overdue.load(Ordering::Relaxed) {
            let mut overdue = OVERDUE.lock().unwrap_or_else(PoisonError::into_inner);
            overdue.retain(|known| !Arc::ptr_eq(known, &self.0));
            OVERDUE_COUNT.store(overdue.len(), Ordering::Relaxed);
        }
    }
}

/// Called now and then while a script runs on this thread. Returns whether it must end.
pub fn look_up() -> bool {
    let Some(running) = CURRENT.with_borrow(Clone::clone) else {
        return false;
    };
    if running.is_limited {
        return running.started.elapsed() > LOAD_LIMIT;
    }
    let threshold_ms = THRESHOLD_MS.load(Ordering::Relaxed);
    if threshold_ms == 0 || running.started.elapsed() < Duration::from_millis(threshold_ms) {
        return running.is_killed();
    }
    if !running.is_overdue.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "Slow script detected: still in execution after {} milliseconds. You can try killing the script using the {} \
             command.",
            running.started.elapsed().as_millis(),
            if running.function.is_some() {
                "FUNCTION KILL"
            } else {
                "SCRIPT KILL"
            }
        );
        let mut overdue = OVERDUE.lock().unwrap_or_else(PoisonError::into_inner);
        overdue.push(running.clone());
        OVERDUE_COUNT.store(overdue.len(), Ordering::Relaxed);
    }
    if let Some(call) = ON_OVERDUE.get() {
        call();
    }
    running.is_killed()
}

/// The refusal of commands while a script is overdue; `None` if none is.
#[inline]
pub fn busy() -> Option<&'static str> {
    (OVERDUE_COUNT.load(Ordering::Relaxed) > 0).then(busy_text)
}

fn busy_text() -> &'static str {
    let is_script = |running: &Arc<Running>| running.function.is_none();
    if overdue().iter().any(is_script) {
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
    } else {
        "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
    }
}

/// Those that are overdue.
pub fn overdue() -> Vec<Arc<Running>> {
    OVERDUE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// SCRIPT KILL and FUNCTION KILL: asks overdue runs to end. `Err` says why none can.
pub fn kill(functions: bool) -> Result<(), &'static str> {
    let overdue = overdue();
    if overdue.is_empty() {
        return Err("NOTBUSY No scripts in execution right now.");
    }
    let of_kind: Vec<_> = overdue
        .iter()
        .filter(|running| running.function.is_some() == functions)
        .collect();
    if of_kind.is_empty() {
        return Err(if functions {
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        } else {
            "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        });
    }
    if of_kind.iter().any(|running| running.is_from_primary) {
        return Err(
            "UNKILLABLE The busy script was sent by a master instance in the context of replication and cannot be killed.",
        );
    }
    let mut is_any = false;
    for running in of_kind {
        if !running.has_written.load(Ordering::Relaxed) {
            running.is_killed.store(true, Ordering::Relaxed);
            is_any = true;
        }
    }
    if is_any {
        Ok(())
    } else {
        Err(
            "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the \
             script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
        )
    }
}
