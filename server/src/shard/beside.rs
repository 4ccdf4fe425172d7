//! The thread beside a shard: for runs that would hold up the shard's own.

use std::io;
use std::sync::mpsc::{Sender, channel};

type Job = Box<dyn FnOnce() + Send>;

/// The way to the thread, which runs one job after the other as long as there is its shard.
pub struct Beside(Sender<Job>);

impl Beside {
    /// Starts the thread beside this shard. Error: the system gives none.
    pub fn start(shard: usize) -> io::Result<Beside> {
        let (sender, jobs) = channel::<Job>();
        std::thread::Builder::new()
            .name(format!("aside-{shard}"))
            .spawn(move || {
                crate::memory::count_this_thread();
                jobs.into_iter().for_each(|run| run());
            })?;
        Ok(Beside(sender))
    }

    /// Runs a job behind those that are there.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        if self.0.send(Box::new(job)).is_err() {
            unreachable!("the thread runs as long as its shard");
        }
    }
}
