//! Transactions: who may run when, on one shard and over several.

pub mod queue;
