//! `maxmemory-clients`: what all clients take together is bounded; above that the largest are disconnected.
//!
//! Each connection says what it takes when it has read and when it has run something (`net::connection`). An outbox that grows has all
//! clients looked at again, by whichever connection comes next.
//!
//! Invariants
//! - Without a limit nothing is added up.
//! - `total` is the sum of what the clients have noted.
//! - Replicas, the link to a primary and monitors are neither counted nor disconnected. Clients with NO-EVICT are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::{Client, World};

/// What clients take together.
#[derive(Debug, Default)]
pub struct ClientMemory {
    /// Bytes, as they were last noted.
    total: AtomicI64,
}

impl World {
    /// Notes what a client takes now, and disconnects clients if it is too much. False if this client is among them.
    #[inline]
    pub fn note_client_memory(&self, client: &Client) -> bool {
        let limit = self.hub.limits.clients_bytes.load(Ordering::Relaxed);
        if limit == 0 {
            return true;
        }
        let total = self.add_client_memory(client);
        let has_grown = self.hub.limits.has_grown.swap(false, Ordering::Relaxed);
        if has_grown || total > i64::try_from(limit).unwrap_or(i64::MAX) {
            self.evict_clients(limit);
        }
        !client.is_evicted()
    }

    /// The limit has changed.
    pub fn check_client_memory(&self) {
        let limit = self.hub.limits.clients_bytes.load(Ordering::Relaxed);
        if limit > 0 {
            self.evict_clients(limit);
        }
    }

    /// Returns the total with what this client takes now.
    fn add_client_memory(&self, client: &Client) -> i64 {
        let now = match client.counts() {
            true => client.memory() as i64,
            false => 0,
        };
        let change = now - client.noted.swap(now, Ordering::Relaxed);
        self.client_memory
            .total
            .fetch_add(change, Ordering::Relaxed)
            + change
    }

    /// A client has gone.
    pub(super) fn forget_client_memory(&self, client: &Client) {
        let noted = client.noted.swap(0, Ordering::Relaxed);
        self.client_memory.total.fetch_sub(noted, Ordering::Relaxed);
    }

    /// Looks at all clients, and disconnects the largest until the others fit.
    fn evict_clients(&self, limit: u64) {
        let mut clients: Vec<(i64, Arc<Client>)> = Vec::new();
        let mut total = 0;
        for client in self.clients() {
            self.add_client_memory(&client);
            let bytes = client.noted.load(Ordering::Relaxed);
            total += bytes;
            if bytes > 0 && !client.is_no_evict.load(Ordering::Relaxed) {
                clients.push((bytes, client));
            }
        }
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        if total <= limit {
            return;
        }
        clients.sort_by_key(|(bytes, client)| (-bytes, client.id));
        for (bytes, client) in clients {
            if total <= limit {
                break;
            }
            tracing::info!(
                client = client.id,
                addr = client.addr,
                bytes,
                "Evicting client: maxmemory-clients"
            );
            total -= bytes;
            client.was_evicted.store(true, Ordering::Relaxed);
            client.kill();
            // Nobody sees it any more, though its connection has yet to notice.
            self.remove_client(client.id);
            self.counters
                .evicted_clients
                .fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Client {
    /// Whether it was disconnected to make room.
    pub fn is_evicted(&self) -> bool {
        self.was_evicted.load(Ordering::Relaxed)
    }

    /// Whether what it takes counts against the limit.
    fn counts(&self) -> bool {
        let others = [
            &self.is_replica,
            &self.is_primary,
            &self.is_monitor,
            &self.was_evicted,
        ];
        !others.iter().any(|flag| flag.load(Ordering::Relaxed))
    }
}
