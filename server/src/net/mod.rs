//! Connections: from socket bytes to commands and back.

pub mod acl;
mod blocking;
mod client;
pub mod cluster;
pub mod connection;
mod debug;
pub mod emergency;
mod flow;
mod functions;
mod handshake;
mod introspection;
pub mod listener;
mod observation;
mod persistence;
mod reading;
mod replicas;
pub mod scripts;
pub mod session;
pub mod socket;
mod subscriptions;
pub mod thread;
mod tracking;
mod transaction;
