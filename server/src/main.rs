//! `dfsnap-server`: reads the configuration, starts the log, runs the server.

use std::io::Write;
use std::process::ExitCode;

use dfsnap_server::config::load::{Invocation, from_args};
use dfsnap_server::config::{self, REDIS_VERSION};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let loaded = match from_args(&args) {
        Ok(Invocation::Run(loaded)) => *loaded,
        Ok(Invocation::Help) => {
            print(&config::help());
            return ExitCode::SUCCESS;
        }
        Ok(Invocation::Version) => {
            print(&format!(
                "dfsnap-server v={} redis={REDIS_VERSION} bits=64",
                env!("CARGO_PKG_VERSION")
            ));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("\n*** FATAL CONFIG FILE ERROR ***\n{error}");
            return ExitCode::from(1);
        }
    };
    if let Err(error) = start_log(&loaded.config) {
        eprintln!("{error}");
        return ExitCode::from(1);
    }
    end_on_panic();
    tell_of_abort();
    tracing::info!(" PID: {}", std::process::id());
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match dfsnap_server::server::run(loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(1)
        }
    }
}

/// A panic is a bug, and a shard without its thread would leave its clients waiting for ever: the process ends at once, with
/// what was wrong and where in the log. What is on disk stays whole.
fn end_on_panic() {
    let show = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tracing::error!("ASSERTION FAILED: {info}");
        show(info);
        std::process::abort();
    }));
}

/// SIGABRT is how a supervisor ends a process that it takes for stuck, for the sake of its core dump: the log says so before. This is on a
/// thread of its own, since those that serve may be the ones that are stuck; without it the process just ends.
fn tell_of_abort() {
    use tokio::signal::unix::{SignalKind, signal};
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        runtime.block_on(async {
            let kind = SignalKind::from_raw(rustix::process::Signal::ABORT.as_raw());
            signal(kind)?.recv().await;
            tracing::error!(
                "dfsnap {} crashed by signal: {} (SIGABRT)",
                env!("CARGO_PKG_VERSION"),
                kind.as_raw_value()
            );
            std::process::abort()
        })
    };
    let spawned = std::thread::Builder::new()
        .name("abort".into())
        .spawn(move || -> std::io::Result<()> { run() });
    if let Err(error) = spawned {
        tracing::warn!(%error, "nobody waits for SIGABRT");
    }
}

/// Prints a text. Whoever reads it may stop early, as `head` does.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Sends the log where `logfile` says, at `loglevel`.
fn start_log(config: &config::Config) -> Result<(), String> {
    use dfsnap_server::config::words::LogLevel;
    let level = match config.loglevel {
        LogLevel::Debug => "trace",
        LogLevel::Verbose => "debug",
        LogLevel::Notice => "info",
        LogLevel::Warning => "warn",
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_target(false);
    match &config.logfile {
        None => log.with_ansi(false).init(),
        Some(path) => {
            let file = std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .map_err(|error| format!("Can't open the log file {path}: {error}"))?;
            log.with_ansi(false)
                .with_writer(std::sync::Mutex::new(file))
                .init();
        }
    }
    Ok(())
}
