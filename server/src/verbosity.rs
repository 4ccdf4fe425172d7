//! `loglevel`, while the server runs: what `main` has made to write the log is told of another level.

use std::sync::OnceLock;

use crate::config::words::LogLevel;

/// Takes another level.
type Setter = Box<dyn Fn(LogLevel) + Send + Sync>;

static SETTER: OnceLock<Setter> = OnceLock::new();

/// Introduces what takes another level.
pub fn introduce(setter: Setter) {
    let _ = SETTER.set(setter);
}

/// From now on lines of this level and above are logged.
pub fn set(level: LogLevel) {
    if let Some(setter) = SETTER.get() {
        setter(level);
    }
}
