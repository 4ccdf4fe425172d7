//! What can be wrong with the settings: all of it is for the operator to put right.

use std::path::{Path, PathBuf};

/// Why no TLS can be had with these settings.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file or folder cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Unreadable {
        /// Of the setting.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file holds something else than what it is for.
    #[error("{path}: {reason}", path = path.display())]
    Unusable {
        /// Of the setting.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate and a key that do not belong together.
    #[error("{key}: this key is not that of the certificate {cert}", key = key.display(), cert = cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A word that is not known or cannot be honoured.
    #[error("{setting}: {reason}")]
    Setting {
        /// Its name, as in Redis' configuration.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Peers are to be checked, and nothing says whom to trust.
    #[error("no certificates that are trusted: a file or a folder of them is needed")]
    NoTrust,
    /// The library refused what all checks let pass.
    #[error("{0}")]
    Library(#[from] rustls::Error),
}

impl TlsError {
    pub(crate) fn unusable(path: &Path, reason: impl Into<String>) -> TlsError {
        TlsError::Unusable {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}
