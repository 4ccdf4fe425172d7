//! Connections: from socket bytes to commands and back.

pub mod acl;
mod blocking;
mod client;
pub mod connection;
mod debug;
pub mod emergency;
mod functions;
mod introspection;
mod persistence;
mod replicas;
pub mod scripts;
pub mod session;
mod subscriptions;
pub mod thread;
mod transaction;
