//! Connections: from socket bytes to commands and back.

mod blocking;
mod client;
pub mod cluster;
pub mod connection;
mod debug;
mod flow;
mod introspection;
pub mod listener;
mod observation;
mod persistence;
mod replicas;
pub mod session;
pub mod socket;
mod subscriptions;
pub mod thread;
mod tracking;
mod transaction;
