//! `dfsnap-server`: reads the configuration, starts the log, runs the server.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;

use dfsnap_server::config::load::{self, Invocation, from_args};
use dfsnap_server::config::words::LogLevel;
use dfsnap_server::config::{self, REDIS_VERSION};
use dfsnap_server::{crash, service, verbosity};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let start = match service::Start::of_this_process() {
        Ok(start) => start,
        Err(error) => {
            eprintln!("Can't go on in the background: {error}");
            return ExitCode::from(1);
        }
    };
    let is_in_background = start.is_in_background;
    let invocation = load::texts(start.args).and_then(|args| from_args(&args, start.sources));
    let loaded = match invocation {
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
    match service::go_to_background(&loaded, is_in_background) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Can't go into the background: {error}");
            return ExitCode::from(1);
        }
    }
    if let Err(error) = start_log(&loaded.config) {
        eprintln!("{error}");
        return ExitCode::from(1);
    }
    end_on_panic();
    crash::take_stack();
    crash::enable(loaded.config.crash_log_enabled);
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

/// Prints a text. Whoever reads it may stop early, as `head` does.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Sends the log where `logfile` says, at `loglevel`.
fn start_log(config: &config::Config) -> Result<(), String> {
    let (level, handle) = reload::Layer::new(filter(config.loglevel));
    verbosity::introduce(Box::new(move |level| {
        // The log ends with the process.
        let _ = handle.modify(|filter| *filter = self::filter(level));
    }));
    let lines = fmt::layer().with_target(false).with_ansi(false);
    let log = tracing_subscriber::registry().with(level);
    match &config.logfile {
        None => {
            crash::set_log(again(std::io::stdout().as_fd())?);
            log.with(lines).init();
        }
        Some(path) => {
            // A relative name is one in the folder of all files, as in Redis.
            let path = std::path::Path::new(&config.dir).join(path);
            let file = std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
                .map_err(|error| format!("Can't open the log file {}: {error}", path.display()))?;
            crash::set_log(again(file.as_fd())?);
            log.with(lines.with_writer(std::sync::Mutex::new(file)))
                .init();
        }
    }
    Ok(())
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::TRACE,
        LogLevel::Verbose => LevelFilter::DEBUG,
        LogLevel::Notice => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
    }
}

/// The file of a descriptor, under another that stays open.
fn again(descriptor: BorrowedFd<'_>) -> Result<File, String> {
    let owned = descriptor.try_clone_to_owned();
    let owned = owned.map_err(|error| format!("Can't open the log once more: {error}"))?;
    Ok(File::from(owned))
}
