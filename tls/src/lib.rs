//! TLS for both ends of a Redis connection.
//!
//! [`Acceptor`] and [`Connector`] are made from settings as Redis names them (files, protocols, ciphers) and begin
//! [`Session`]s. A session is the protocol as a value: whoever has a socket gives it to `read`, `write` and `flush`, which never
//! wait for more than the socket does. The server puts it behind its own non-blocking sockets, `replica` behind its link, the
//! tool behind a blocking one.
//!
//! Invariants
//! - An acceptor or a connector that could be made works: files were read, key and certificate belong together.
//! - A setting that cannot be honoured is an error that names it; nothing is silently weaker than what was asked for.
//! - Passwords of keys are in no error and no `Debug` text.
#![forbid(unsafe_code)]

mod accept;
mod connect;
mod error;
mod files;
mod key;
mod session;
mod store;
mod suites;
mod verify;

pub use accept::{Acceptor, ClientAuth, ServerSettings, SessionLimits};
pub use connect::{ClientSettings, Connector, PeerCheck};
pub use error::TlsError;
pub use files::{Identity, KeyPassword, Trust};
pub use session::Session;
pub use suites::Suites;
