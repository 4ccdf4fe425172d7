//! Dropping what takes long to drop, on a thread of its own.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use super::entry::Entry;
use super::value::{Type, Value};

/// Drops an entry: here if that is quick, on the release thread if it is not.
pub fn drop_entry(entry: Entry) {
    if is_slow(entry.value()) {
        let bytes = entry.value().heap_bytes();
        drop_later_counted(entry, bytes);
    }
}

/// Drops a value likewise.
pub fn drop_value(value: Value) {
    if is_slow(&value) {
        let bytes = value.heap_bytes();
        drop_later_counted(value, bytes);
    }
}

/// Whether a value has so many parts that dropping it takes time, or so many bytes that the system takes its pages back.
fn is_slow(value: &Value) -> bool {
    const LARGE_BYTES: usize = 1 << 16;
    /// Redis' own limit: a node is an allocation or two.
    const STREAM_NODES: usize = 64;
    let bytes = value.heap_bytes();
    match value {
        Value::Stream(stream) => bytes > LARGE_BYTES || stream.nodes().len() > STREAM_NODES,
        _ if value.kind() == Type::String => bytes > HUGE_BYTES,
        _ => bytes > LARGE_BYTES,
    }
}

/// A buffer of more bytes is dropped elsewhere.
const HUGE_BYTES: usize = 1 << 20;

/// Drops a buffer: here if that is quick, on the release thread if it is not.
pub fn drop_buffer(buffer: Vec<u8>) {
    if buffer.capacity() > HUGE_BYTES {
        drop_later(buffer);
    }
}

type Garbage = (Box<dyn Any + Send>, u64);

/// The way to the release thread.
static QUEUE: OnceLock<Sender<Garbage>> = OnceLock::new();
static PENDING: AtomicU64 = AtomicU64::new(0);
static RELEASED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_SLOW_FINE: Cell<bool> = const { Cell::new(false) };
}

/// Nobody waits for this thread: what it drops is dropped here, whatever it takes.
pub fn drop_here() {
    IS_SLOW_FINE.set(true);
}

/// Starts the release thread. Until then everything is dropped where it is. Error: the system gives no thread.
pub fn start() -> io::Result<()> {
    let (sender, receiver) = channel::<Garbage>();
    std::thread::Builder::new()
        .name("release".into())
        .spawn(move || {
            crate::memory::count_this_thread();
            for (garbage, bytes) in receiver {
                drop(garbage);
                crate::memory::count_again(bytes);
                PENDING.fetch_sub(1, Ordering::Relaxed);
                RELEASED.fetch_add(1, Ordering::Relaxed);
            }
        })?;
    // A second one would end at once.
    let _ = QUEUE.set(sender);
    Ok(())
}

/// Drops `garbage` soon, on the release thread.
pub fn drop_later<T: Send + 'static>(garbage: T) {
    drop_later_counted(garbage, 0);
}

/// The same for something of which it is known how many bytes it has: they count no more, though they are not free yet.
fn drop_later_counted<T: Send + 'static>(garbage: T, bytes: usize) {
    let Some(queue) = QUEUE.get().filter(|_| !IS_SLOW_FINE.get()) else {
        return drop(garbage);
    };
    PENDING.fetch_add(1, Ordering::Relaxed);
    let bytes = bytes as u64;
    crate::memory::do_not_count(bytes);
    if queue.send((Box::new(garbage), bytes)).is_err() {
        unreachable!("the release thread runs as long as the process");
    }
}

/// Counts what is dropped from zero again.
pub fn reset_counters() {
    RELEASED.store(0, Ordering::Relaxed);
}

/// Objects still to be dropped, and dropped so far.
pub fn counters() -> (u64, u64) {
    (
        PENDING.load(Ordering::Relaxed),
        RELEASED.load(Ordering::Relaxed),
    )
}
