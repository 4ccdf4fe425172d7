//! Dropping what takes long to drop, on a thread of its own.

use std::any::Any;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

static PENDING: AtomicU64 = AtomicU64::new(0);
static RELEASED: AtomicU64 = AtomicU64::new(0);

/// Drops `garbage` soon, on the release thread.
pub fn drop_later<T: Send + 'static>(garbage: T) {
    static QUEUE: OnceLock<Sender<Box<dyn Any + Send>>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (sender, receiver) = channel::<Box<dyn Any + Send>>();
        std::thread::Builder::new()
            .name("release".into())
            .spawn(move || {
                for garbage in receiver {
                    drop(garbage);
                    PENDING.fetch_sub(1, Ordering::Relaxed);
                    RELEASED.fetch_add(1, Ordering::Relaxed);
                }
            })
            .expect("a thread for releasing memory");
        sender
    });
    PENDING.fetch_add(1, Ordering::Relaxed);
    if queue.send(Box::new(garbage)).is_err() {
        unreachable!("the release thread runs as long as the process");
    }
}

/// Objects still to be dropped, and dropped so far.
pub fn counters() -> (u64, u64) {
    (
        PENDING.load(Ordering::Relaxed),
        RELEASED.load(Ordering::Relaxed),
    )
}
