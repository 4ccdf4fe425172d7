//! Connections: from socket bytes to commands and back.

mod client;
pub mod connection;
mod debug;
mod functions;
mod introspection;
mod persistence;
mod replicas;
pub mod scripts;
pub mod session;
pub mod thread;
mod transaction;
