//! Threads of their own for work that may block, so that a task can wait for it without holding up a shard.
//!
//! A system may have no thread to give. That is an error like any other here, where the blocking threads of the runtime would panic.

use std::io;

use tokio::sync::oneshot;

/// What a thread will have made.
pub struct Answer<T>(oneshot::Receiver<T>);

impl<T> Answer<T> {
    /// Waits for it. Panics if the work has.
    pub async fn wait(self) -> T {
        self.0
            .await
            .expect("the thread answers, or the process has panicked")
    }
}

/// Starts `work` on a thread of this name (15 bytes are shown by the system).
pub fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Answer<T>> {
    let (sender, answer) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            crate::memory::count_this_thread();
            // Whoever asked may have gone.
            let _ = sender.send(work());
        })
        .map_err(|error| io::Error::new(error.kind(), format!("no thread for it: {error}")))?;
    Ok(Answer(answer))
}

/// The same, once [`Held::go`] is called. Dropped before, the thread ends without having done anything.
pub fn start_held<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Held<T>> {
    let (go, gone) = oneshot::channel::<()>();
    let answer = start(name, move || gone.blocking_recv().ok().map(|()| work()))?;
    Ok(Held { go, answer })
}

/// A thread that waits for its turn: whoever is about to give something up for its work knows that there is one.
pub struct Held<T> {
    go: oneshot::Sender<()>,
    answer: Answer<Option<T>>,
}

impl<T> Held<T> {
    /// Lets the work begin, and waits for it.
    pub async fn go(self) -> T {
        let _ = self.go.send(()); // the thread waits for it
        self.answer.wait().await.expect("it was told to begin")
    }
}

/// Runs `work` on a thread of its own, and waits for it.
pub async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    Ok(start(name, work)?.wait().await)
}
