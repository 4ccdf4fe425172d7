//! Connections: from socket bytes to commands and back.

pub mod acl;
mod admission;
mod blocking;
mod client;
pub mod cluster;
pub mod commands;
pub mod connection;
mod debug;
pub mod emergency;
mod flow;
mod functions;
mod introspection;
pub mod listener;
mod memory;
mod migrate;
mod modules;
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
