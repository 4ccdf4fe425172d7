//! How much memory the process uses.
//!
//! Whoever must know at every command whether memory is short cannot ask the allocator each time. So there is an estimate: its
//! last word, and what the shards' threads have allocated and freed since, each thread telling its own part.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tikv_jemalloc_ctl::{epoch, stats, thread};

/// Bytes allocated: the allocator's last word, and what threads have told since.
static ESTIMATE: AtomicI64 = AtomicI64::new(0);
/// When the allocator was last asked, Unix ms.
static ASKED_MS: AtomicI64 = AtomicI64::new(0);
/// Bytes that eviction must not make room for: a snapshot on its way to its sink.
static NOT_COUNTED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// What this thread has told so far.
    static TOLD: Cell<i64> = const { Cell::new(0) };
}

/// Tells what this thread has allocated and freed since it last told.
pub fn tell() {
    let now = thread_balance();
    let change = now - TOLD.replace(now);
    if change != 0 {
        ESTIMATE.fetch_add(change, Ordering::Relaxed);
    }
}

/// Asks the allocator, unless that was done in this millisecond.
pub fn ask(now_ms: i64) {
    if ASKED_MS.swap(now_ms, Ordering::Relaxed) != now_ms {
        tell();
        ESTIMATE.store(used() as i64, Ordering::Relaxed);
    }
}

/// Bytes in use that count against `maxmemory`, estimated.
pub fn counted() -> u64 {
    let used = ESTIMATE.load(Ordering::Relaxed).max(0) as u64;
    used.saturating_sub(NOT_COUNTED.load(Ordering::Relaxed))
}

/// Bytes in use that do not count against `maxmemory`.
pub fn not_counted() -> u64 {
    NOT_COUNTED.load(Ordering::Relaxed)
}

/// These bytes do not count, until [`count_again`].
pub fn do_not_count(bytes: u64) {
    NOT_COUNTED.fetch_add(bytes, Ordering::Relaxed);
}

/// Undoes [`do_not_count`].
pub fn count_again(bytes: u64) {
    NOT_COUNTED.fetch_sub(bytes, Ordering::Relaxed);
}

/// Bytes allocated, as the allocator counts them.
pub fn used() -> u64 {
    // Statistics are refreshed by advancing the epoch; a failure leaves the old figures.
    let _ = epoch::advance();
    stats::allocated::read().map_or(0, |bytes| bytes as u64)
}

/// What was in use when the server had started, before any key.
static AT_START: AtomicU64 = AtomicU64::new(0);

/// The server has started: what is in use now is not for keys.
pub fn note_start() {
    AT_START.store(used(), Ordering::Relaxed);
}

/// Bytes that were in use when the server had started.
pub fn at_start() -> u64 {
    AT_START.load(Ordering::Relaxed)
}

/// Has the allocator give unused pages of all its arenas back to the system.
pub fn purge() {
    // MALLCTL_ARENAS_ALL
    const NAME: &CStr = c"arena.4096.purge";
    // SAFETY: the name ends with a zero byte, and this control reads and writes nothing, so that all pointers are null and the
    // length is 0. Threads that allocate meanwhile do not matter to it.
    unsafe {
        tikv_jemalloc_sys::mallctl(
            NAME.as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
        );
    }
}

/// The allocator's own report.
pub fn allocator_report() -> String {
    extern "C" fn append(report: *mut c_void, piece: *const c_char) {
        // SAFETY: jemalloc hands back the pointer that it was given below, to a vector that nobody else uses meanwhile.
        let report = unsafe { &mut *report.cast::<Vec<u8>>() };
        // SAFETY: a piece is a string of the allocator, ended by a zero byte, that lives as long as this call.
        let piece = unsafe { CStr::from_ptr(piece) };
        report.extend_from_slice(piece.to_bytes());
    }
    let mut report: Vec<u8> = Vec::new();
    // SAFETY: the function and the pointer are used during this call alone; no options are a null pointer.
    unsafe {
        tikv_jemalloc_sys::malloc_stats_print(
            Some(append),
            std::ptr::from_mut(&mut report).cast(),
            std::ptr::null(),
        );
    }
    String::from_utf8_lossy(&report).into_owned()
}

/// Bytes that this thread has allocated less those it has freed: what a shard's entries and connections take, exact but for
/// what one thread allocates and another frees.
pub fn of_this_thread() -> u64 {
    thread_balance().max(0) as u64
}

/// May be negative: a thread may free what another has allocated.
fn thread_balance() -> i64 {
    let bytes = || -> Result<i64, tikv_jemalloc_ctl::Error> {
        let (allocated, freed) = (
            thread::allocatedp::read()?.get(),
            thread::deallocatedp::read()?.get(),
        );
        Ok(allocated.wrapping_sub(freed) as i64)
    };
    bytes().unwrap_or(0)
}

/// Bytes in pages the allocator has, active and resident.
pub fn allocator() -> (u64, u64) {
    let read =
        |value: Result<usize, tikv_jemalloc_ctl::Error>| value.map_or(0, |bytes| bytes as u64);
    (read(stats::active::read()), read(stats::resident::read()))
}

/// Resident bytes of the process, as the kernel counts them.
pub fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Bytes of memory of the machine.
pub fn of_machine() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}
