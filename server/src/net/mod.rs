//! Connections: from socket bytes to commands and back.

mod blocking;
mod client;
pub mod connection;
mod debug;
mod introspection;
mod persistence;
mod replicas;
pub mod session;
mod subscriptions;
pub mod thread;
mod transaction;
