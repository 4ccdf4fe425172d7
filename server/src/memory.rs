//! How much memory the process uses.
//!
//! The allocator counts for each thread what it has allocated and freed; the sum over all threads is what is in use, to the byte.
//! (Its own figure counts what threads keep for their next allocations, some hundred kilobytes that nobody uses.) Whoever must know
//! at every command whether memory is short does not look at all threads each time: each shard tells its own part when a
//! command has run, and what the others have is added as it was when the sum was last made.
//!
//! Invariants
//! - Each thread enters itself ([`count_this_thread`]) before it works, and is taken out, with its balance kept, before its memory goes.
//! - Nobody waits for another in [`look`]: a shard that finds somebody else summing goes by what it knows.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::io;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tikv_jemalloc_ctl::{epoch, raw, stats};

/// Where the allocator counts for one thread: in that thread's own memory.
#[derive(Clone, Copy)]
struct Counters {
    allocated: *const u64,
    freed: *const u64,
}

/// The threads that are counted.
struct Threads {
    live: Vec<Counters>,
    /// The balance of those that have ended, and what was found missing.
    ended: i64,
}

// SAFETY: the pointers are only read, under the lock of `THREADS`, and a thread takes its own out under that lock before it ends.
unsafe impl Send for Threads {}

static THREADS: Mutex<Threads> = Mutex::new(Threads {
    live: Vec::new(),
    ended: 0,
});
/// What threads have told.
static TOLD_BY_ALL: AtomicI64 = AtomicI64::new(0);
/// What was in use beyond that when all were last summed.
static NOT_TOLD: AtomicI64 = AtomicI64::new(0);
/// Bytes that eviction must not make room for: a snapshot on its way to its sink, and what is about to be freed.
static NOT_COUNTED: AtomicU64 = AtomicU64::new(0);
/// A sum that differs from the allocator's figure by more than this is put right.
const DRIFT_BYTES: u64 = 256 << 10;

impl Counters {
    /// This thread's; `None` with another allocator.
    fn of_this_thread() -> Option<Counters> {
        // SAFETY: the names end with a zero byte, and both controls write a pointer.
        let read = |name: &[u8]| unsafe { raw::read::<*const u64>(name) };
        Some(Counters {
            allocated: read(b"thread.allocatedp\0").ok()?,
            freed: read(b"thread.deallocatedp\0").ok()?,
        })
    }

    /// May be negative: a thread may free what another has allocated.
    fn balance(self) -> i64 {
        // SAFETY: the thread lives: it is this one, or it is in `THREADS` and cannot leave while the caller holds the lock. It goes
        // on counting meanwhile: its aligned words are written whole, and an older or a newer value are both right.
        let read = |counter: *const u64| unsafe { counter.read_volatile() };
        let (allocated, freed) = (read(self.allocated), read(self.freed));
        allocated.wrapping_sub(freed) as i64
    }
}

impl Threads {
    fn sum(&self) -> i64 {
        let live = self.live.iter();
        live.map(|thread| thread.balance()).sum::<i64>() + self.ended
    }
}

fn threads() -> MutexGuard<'static, Threads> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This thread's place among those that are counted.
struct Entered {
    counters: Option<Counters>,
    /// What it has told so far.
    told: Cell<i64>,
}

impl Entered {
    fn new() -> Entered {
        let counters = Counters::of_this_thread();
        threads().live.extend(counters);
        Entered {
            counters,
            told: Cell::new(0),
        }
    }

    fn balance(&self) -> i64 {
        self.counters.map_or(0, Counters::balance)
    }
}

impl Drop for Entered {
    /// The thread ends: what it holds will be freed by others.
    fn drop(&mut self) {
        let Some(own) = self.counters else { return };
        let mut threads = threads();
        threads.ended += own.balance();
        threads
            .live
            .retain(|thread| thread.allocated != own.allocated);
    }
}

thread_local! {
    static ENTERED: Entered = Entered::new();
}

/// Counts this thread from now on, with all it has allocated before. Each thread calls it first.
pub fn count_this_thread() {
    ENTERED.with(|_| ());
}

/// Tells what this thread has allocated and freed since it last told.
#[inline]
pub fn tell() {
    ENTERED.with(|entered| {
        let now = entered.balance();
        let change = now - entered.told.replace(now);
        if change != 0 {
            TOLD_BY_ALL.fetch_add(change, Ordering::Relaxed);
        }
    });
}

/// Looks at all threads, so that [`counted`] is exact, unless somebody else does so now.
pub fn look() {
    tell();
    if let Ok(threads) = THREADS.try_lock() {
        let told = TOLD_BY_ALL.load(Ordering::Relaxed);
        NOT_TOLD.store(threads.sum() - told, Ordering::Relaxed);
    }
}

/// Bytes in use that count against `maxmemory`, by what was told since the last [`look`].
pub fn counted() -> u64 {
    let used = TOLD_BY_ALL.load(Ordering::Relaxed) + NOT_TOLD.load(Ordering::Relaxed);
    (used.max(0) as u64).saturating_sub(NOT_COUNTED.load(Ordering::Relaxed))
}

/// Bytes in use that do not count against `maxmemory`.
pub fn not_counted() -> u64 {
    NOT_COUNTED.load(Ordering::Relaxed)
}

/// These bytes do not count, until [`count_again`].
pub fn do_not_count(bytes: u64) {
    NOT_COUNTED.fetch_add(bytes, Ordering::Relaxed);
}

/// Bytes of one owner that do not count against `maxmemory`. They count again when it is dropped.
#[derive(Debug, Default)]
pub struct NotCounted(u64);

impl NotCounted {
    /// How many.
    pub fn get(&self) -> u64 {
        self.0
    }

    /// So many, from now on.
    pub fn set(&mut self, bytes: u64) {
        if bytes > self.0 {
            do_not_count(bytes - self.0);
        } else {
            count_again(self.0 - bytes);
        }
        self.0 = bytes;
    }
}

impl Drop for NotCounted {
    fn drop(&mut self) {
        count_again(self.0);
    }
}

/// From here on an allocation takes whole pages.
const LARGE_BYTES: usize = (14 << 10) + 1;
/// Of the allocator.
const PAGE_BYTES: usize = 4096;

/// Bytes that the allocator takes for an allocation of so many, at least one: four sizes between one power of two and the next, and pages beyond.
pub fn size_class(bytes: usize) -> usize {
    if bytes <= 8 {
        return 8;
    }
    if bytes <= 128 {
        return bytes.next_multiple_of(16);
    }
    if bytes >= LARGE_BYTES {
        return bytes.next_multiple_of(PAGE_BYTES);
    }
    let step = bytes.next_power_of_two() / 8;
    bytes.next_multiple_of(step)
}

/// Undoes [`do_not_count`].
pub fn count_again(bytes: u64) {
    NOT_COUNTED.fetch_sub(bytes, Ordering::Relaxed);
}

/// Bytes allocated.
pub fn used() -> u64 {
    threads().sum().max(0) as u64
}

/// Bytes allocated as the allocator counts them, those among them that threads keep for their next allocations, bytes in pages
/// it has, and bytes of those that are resident. It looks through all its arenas for that: not for every command.
pub fn allocator() -> Allocator {
    // Statistics are refreshed by advancing the epoch; a failure leaves the old figures.
    let _ = epoch::advance();
    let bytes = |value: Result<usize, tikv_jemalloc_ctl::Error>| value.map_or(0, |n| n as u64);
    // SAFETY: the name (MALLCTL_ARENAS_ALL) ends with a zero byte, and the control writes a `size_t`.
    let cached = unsafe { raw::read::<usize>(b"stats.arenas.4096.tcache_bytes\0") };
    Allocator {
        allocated: bytes(stats::allocated::read()),
        cached: bytes(cached),
        active: bytes(stats::active::read()),
        resident: bytes(stats::resident::read()),
    }
}

/// The allocator's figures, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Allocator {
    /// Given out, to callers and to caches of threads.
    pub allocated: u64,
    /// In caches of threads.
    pub cached: u64,
    /// In pages that it has.
    pub active: u64,
    /// Of those, in memory.
    pub resident: u64,
}

/// Puts the sum right should it have left the allocator's figure: a thread frees a little after it was taken out.
pub fn correct() {
    let figures = allocator();
    let mut threads = threads();
    let missing = figures.allocated as i64 - figures.cached as i64 - threads.sum();
    if missing.unsigned_abs() > DRIFT_BYTES {
        threads.ended += missing;
        drop(threads);
        tracing::debug!(missing, "memory counted anew");
    }
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

/// Reads one of the allocator's controls: a number of eight, four or one bytes.
pub fn control(name: &[u8]) -> io::Result<i64> {
    let name = CString::new(name).map_err(io::Error::other)?;
    for size in [8, 4, 1] {
        let (mut bytes, mut len) = ([0u8; 8], size);
        // SAFETY: the name ends with a zero byte, and the allocator writes no more than the `len` bytes that are there; nothing is
        // set, for which it would need a value.
        let code = unsafe {
            tikv_jemalloc_sys::mallctl(
                name.as_ptr(),
                bytes.as_mut_ptr().cast(),
                &mut len,
                std::ptr::null_mut(),
                0,
            )
        };
        match code {
            0 => return Ok(i64::from_ne_bytes(bytes)),
            // Of another size.
            libc::EINVAL => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

/// Controls of the allocator whose value is a text.
const TEXTS: [&CStr; 7] = [
    c"version",
    c"config.malloc_conf",
    c"opt.dss",
    c"opt.metadata_thp",
    c"opt.percpu_arena",
    c"opt.stats_print_opts",
    c"opt.thp",
];

/// Reads one of the allocator's controls: a text.
pub fn control_text(name: &[u8]) -> io::Result<String> {
    let known = TEXTS.into_iter().find(|known| known.to_bytes() == name);
    let name = known.ok_or(io::Error::from_raw_os_error(libc::ENOENT))?;
    let mut text: *const c_char = std::ptr::null();
    let mut len = size_of_val(&text);
    // SAFETY: the name ends with a zero byte, and the value of these controls is a pointer, for which there is room.
    let code = unsafe {
        tikv_jemalloc_sys::mallctl(
            name.as_ptr(),
            std::ptr::from_mut(&mut text).cast(),
            &mut len,
            std::ptr::null_mut(),
            0,
        )
    };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    if text.is_null() {
        return Ok(String::new());
    }
    // SAFETY: the pointer is to a constant of the allocator's or to an option that it has read at its start: both stay, and end with a zero
    // byte.
    let text = unsafe { CStr::from_ptr(text) };
    Ok(text.to_string_lossy().into_owned())
}

/// Has the allocator do something that has no value: give back what this thread keeps (`thread.tcache.flush`), or the unused pages of an arena
/// (`arena.0.purge`, `arena.0.decay`).
pub fn control_act(name: &[u8]) -> io::Result<()> {
    let text = String::from_utf8_lossy(name);
    let of_arena = text
        .strip_prefix("arena.")
        .and_then(|rest| rest.split_once('.'));
    let is_harmless = match of_arena {
        Some((arena, action)) => {
            arena.parse::<u32>().is_ok() && matches!(action, "purge" | "decay")
        }
        None => matches!(&*text, "thread.tcache.flush" | "thread.idle"),
    };
    if !is_harmless {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let name = CString::new(name).map_err(io::Error::other)?;
    // SAFETY: the name ends with a zero byte, and these controls read and write nothing, so that all pointers are null and the length is 0. No
    // memory that somebody has is touched by them.
    let code = unsafe {
        tikv_jemalloc_sys::mallctl(
            name.as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
        )
    };
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
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
    balance_of_this_thread().max(0) as u64
}

/// The same, negative if it has freed more that others allocated.
pub fn balance_of_this_thread() -> i64 {
    ENTERED.with(Entered::balance)
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

/// Bytes that the process could still have without anything being pushed out: what the machine has left, or the control group that the
/// process is confined to, if that is less. Reads files.
pub fn available() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let of_machine = read("/proc/meminfo").and_then(|text| available_of(&text));
    let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
    // "max" is no number: then there is no limit.
    let limit = number("/sys/fs/cgroup/memory.max");
    let of_group = limit.map(|limit| {
        let used = number("/sys/fs/cgroup/memory.current");
        limit.saturating_sub(used.unwrap_or(0))
    });
    of_machine
        .into_iter()
        .chain(of_group)
        .min()
        .unwrap_or(u64::MAX)
}

/// What the kernel's report says is available.
fn available_of(report: &str) -> Option<u64> {
    let line = report
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_found_in_the_report() {
        let report = "MemTotal:       65536 kB\nMemFree:  1 kB\nMemAvailable:   32768 kB\n";
        assert_eq!(available_of(report), Some(32 << 20));
        assert_eq!(available_of("MemTotal: 5 kB\n"), None);
        assert_eq!(available_of("MemAvailable: much\n"), None);
    }

    #[global_allocator]
    static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

    #[test]
    fn controls_are_read_and_only_harmless_ones_do_something() {
        let version = control_text(b"version").expect("a version");
        assert!(
            version.starts_with(|c: char| c.is_ascii_digit()),
            "{version}"
        );
        for name in [&b"opt.dss"[..], b"opt.thp", b"config.malloc_conf"] {
            assert!(control_text(name).is_ok(), "{}", name.escape_ascii());
        }
        for name in [
            &b"thread.tcache.flush"[..],
            b"arena.0.purge",
            b"arena.0.decay",
        ] {
            assert!(control_act(name).is_ok(), "{}", name.escape_ascii());
        }
        // A number is no text, and these would take memory from under those who have it.
        for name in [&b"arenas.page"[..], b"nosuch", b"version\0"] {
            assert!(control_text(name).is_err(), "{}", name.escape_ascii());
        }
        for name in [
            &b"arena.0.reset"[..],
            b"arena.0.destroy",
            b"arena.x.purge",
            b"",
        ] {
            assert!(control_act(name).is_err(), "{}", name.escape_ascii());
        }
    }

    /// Large ones were taken for up to a fifth more: what waited for a replica that lags was overrated, and `maxmemory` exceeded by as much.
    #[test]
    fn the_size_of_an_allocation_is_known() {
        let small = (1..20_000).step_by(7);
        let large = (20_000..400_000).step_by(1009);
        let sums = (1..128).map(|blocks| blocks * 1024 + 16);
        for bytes in small.chain(large).chain(sums) {
            let counters = Counters::of_this_thread().expect("counters");
            let before = counters.balance();
            let memory = Vec::<u8>::with_capacity(bytes);
            let taken = counters.balance() - before;
            drop(memory);
            assert_eq!(taken, size_class(bytes) as i64, "{bytes}");
        }
    }

    /// Much more than the other tests of this process take meanwhile.
    const BYTES: u64 = 256 << 20;

    /// What an ended thread has allocated used to be lost with its counters, or seen late, in the allocator's next figure.
    #[test]
    fn bytes_of_an_ended_thread_count_until_another_frees_them() {
        count_this_thread();
        let before = used();
        let thread = std::thread::spawn(|| {
            count_this_thread();
            let bytes = vec![0u8; BYTES as usize];
            // Less what it has freed that others allocated.
            assert!(of_this_thread() > BYTES / 2);
            bytes
        });
        let bytes = thread.join().expect("it allocates");
        let with = used();
        assert!(with > before + BYTES / 2, "{before} {with}");
        look();
        assert!(counted() > BYTES / 2);
        drop(bytes);
        let after = used();
        assert!(after < before + BYTES / 2, "{before} {with} {after}");
        look();
        assert!(counted() < with);
    }
}
