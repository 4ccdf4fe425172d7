//! How much memory the process uses.

use tikv_jemalloc_ctl::{epoch, stats, thread};

/// Bytes allocated, as the allocator counts them.
pub fn used() -> u64 {
    // Statistics are refreshed by advancing the epoch; a failure leaves the old figures.
    let _ = epoch::advance();
    stats::allocated::read().map_or(0, |bytes| bytes as u64)
}

/// Bytes that this thread has allocated less those it has freed: what a shard's entries and connections take, exact but for
/// what one thread allocates and another frees.
pub fn of_this_thread() -> u64 {
    let bytes = || -> Result<u64, tikv_jemalloc_ctl::Error> {
        Ok(thread::allocatedp::read()?
            .get()
            .saturating_sub(thread::deallocatedp::read()?.get()))
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
