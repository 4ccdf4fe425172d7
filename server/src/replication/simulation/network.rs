//! The simulated network: connections that deliver late, in pieces or not at all, break at both ends or at one, and come anew.

use dfsnap_replica::Disconnect;

use super::model::Cluster;
use super::node::{Pipe, Way};

/// Bytes on the way before a sender waits.
const PIPE_BYTES: usize = 700;

pub(super) struct Connection {
    pub(super) id: u64,
    pub(super) replica: usize,
    pub(super) primary: usize,
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    /// The primary has closed it: what is on the way still arrives.
    pub(super) is_closing: bool,
    /// The replica has given it up; until then the primary does not know, and what is on the way still arrives.
    pub(super) half_open_until_ms: Option<u64>,
}

impl Cluster {
    pub(super) fn connect(&mut self, at: usize) {
        let Some(primary) = self.nodes[at].primary else {
            return;
        };
        let id = self.next_connection;
        self.next_connection += 1;
        self.nodes[at].way = [Way::File, Way::Aside, Way::Instead][self.rng.usize(..3)];
        self.nodes[at].connect(id, self.now_ms);
        self.nodes[primary].accept(id, self.now_ms);
        self.connections.push(Connection {
            id,
            replica: at,
            primary,
            up: Pipe::default(),
            down: Pipe::default(),
            is_closing: false,
            half_open_until_ms: None,
        });
    }

    /// A node's link has ended.
    pub(super) fn disconnected(&mut self, at: usize, why: &Disconnect) {
        let node = &mut self.nodes[at];
        if node.following.as_ref().is_some_and(|f| f.keeps_data) {
            self.count("payloads cut that left the data");
        }
        self.nodes[at].disconnected(why);
    }

    /// Bytes leave nodes for the network.
    pub(super) fn send(&mut self) {
        for connection in &mut self.connections {
            let replica = &mut self.nodes[connection.replica];
            if let Some(following) = replica.following.as_mut().filter(|f| f.id == connection.id) {
                connection
                    .up
                    .bytes
                    .extend(following.link.output().drain(..));
            }
            while connection.down.bytes.len() < PIPE_BYTES {
                match self.nodes[connection.primary].feed(connection.id) {
                    Ok(Some(bytes)) => connection.down.bytes.extend(bytes),
                    Ok(None) => break,
                    Err(_) => {
                        connection.is_closing = true;
                        break;
                    }
                }
            }
        }
    }

    /// Some bytes of some connection arrive.
    pub(super) fn deliver_one(&mut self) -> Result<(), String> {
        if self.connections.is_empty() {
            return Ok(());
        }
        let at = self.rng.usize(..self.connections.len());
        let most = self.rng.usize(1..900);
        if self.rng.bool() {
            self.deliver_up(at, most)
        } else {
            self.deliver_down(at, most)
        }
    }

    pub(super) fn deliver_up(&mut self, at: usize, most: usize) -> Result<(), String> {
        let connection = &mut self.connections[at];
        let bytes = take(&mut connection.up, most);
        if bytes.is_empty() || connection.is_closing {
            return Ok(());
        }
        let (id, primary) = (connection.id, connection.primary);
        let (mut told, mut out) = (Vec::new(), Vec::new());
        let mut next = self.next_replid;
        let mut new_id = || {
            next += 1;
            format!("{:0>40}", format!("{next}x"))
        };
        let node = &mut self.nodes[primary];
        let stays = node.serve(id, &bytes, self.now_ms, &mut new_id, &mut told, &mut out);
        self.next_replid = next;
        let connection = &mut self.connections[at];
        connection.down.bytes.extend(out);
        connection.is_closing |= !stays;
        self.hear(primary, told)
    }

    pub(super) fn deliver_down(&mut self, at: usize, most: usize) -> Result<(), String> {
        let connection = &mut self.connections[at];
        let bytes = take(&mut connection.down, most);
        let (id, replica) = (connection.id, connection.replica);
        if bytes.is_empty() {
            return Ok(());
        }
        let node = &mut self.nodes[replica];
        if node.following.as_ref().is_none_or(|f| f.id != id) {
            return Ok(());
        }
        let mut told = Vec::new();
        let result = node.receive(&bytes, self.now_ms, &mut told);
        self.hear(replica, told)?;
        match result {
            Ok(()) => Ok(()),
            Err(why) => self.lost(replica, &why),
        }
    }

    /// Ends that are gone are noticed at the other end; what a primary has closed first arrives.
    pub(super) fn reconcile(&mut self) {
        let mut at = 0;
        while at < self.connections.len() {
            let connection = &self.connections[at];
            let (id, replica, primary) = (connection.id, connection.replica, connection.primary);
            let is_followed = (self.nodes[replica].following.as_ref()).is_some_and(|f| f.id == id);
            let is_served = self.nodes[primary].serves_connection(id);
            let is_drained = connection.down.bytes.is_empty() && !connection.down.is_stalled;
            let is_half_open =
                (connection.half_open_until_ms).is_some_and(|until_ms| until_ms > self.now_ms);
            if is_half_open && is_served && !connection.is_closing {
                at += 1;
                continue;
            }
            if is_followed && (is_served && !connection.is_closing || !is_drained) {
                at += 1;
                continue;
            }
            if is_followed {
                let why = Disconnect::Connection("closed by the primary".into());
                self.disconnected(replica, &why);
            }
            self.nodes[primary].drop_serving(id);
            self.connections.swap_remove(at);
        }
    }

    pub(super) fn cut(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.connections.len());
        let connection = self.connections.swap_remove(at);
        self.count("connections cut");
        let why = Disconnect::Connection("cut".into());
        if self.nodes[connection.replica]
            .following
            .as_ref()
            .is_some_and(|f| f.id == connection.id)
        {
            self.disconnected(connection.replica, &why);
        }
        self.nodes[connection.primary].drop_serving(connection.id);
    }

    /// A replica takes its link for lost and opens another, while the primary still hears of the old one.
    pub(super) fn half_open(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.connections.len());
        let until_ms = self.now_ms + self.rng.u64(500..6_000);
        let connection = &mut self.connections[at];
        let (id, replica) = (connection.id, connection.replica);
        let is_followed = (self.nodes[replica].following.as_ref()).is_some_and(|f| f.id == id);
        if !is_followed || connection.is_closing {
            return;
        }
        connection.half_open_until_ms = Some(until_ms);
        self.count("connections open at one end only");
        self.disconnected(replica, &Disconnect::Connection("taken for lost".into()));
        self.connect(replica);
    }

    pub(super) fn stall(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.connections.len());
        let is_up = self.rng.bool();
        let connection = &mut self.connections[at];
        let pipe = if is_up {
            &mut connection.up
        } else {
            &mut connection.down
        };
        pipe.is_stalled = true;
        self.count("connections stalled");
    }
}

fn take(pipe: &mut Pipe, most: usize) -> Vec<u8> {
    if pipe.is_stalled {
        return Vec::new();
    }
    let count = pipe.bytes.len().min(most);
    pipe.bytes.drain(..count).collect()
}
