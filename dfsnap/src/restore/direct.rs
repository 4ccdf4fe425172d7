//! Connections for what goes in order and not in batches: large values in parts, and functions.
//!
//! In a cluster a slot may have moved since it was asked who has it. A value in parts cannot be sent again from the middle, so it is found out
//! before the first part where its slot is, and a slot that is on its way is waited for.

use crate::live::client::Lost;
use crate::live::cluster::{redirect, tag_beside};
use crate::live::{Client, Url, stop};
use crate::report::{self, Failure};
use dfsnap_formats::resp::Frame;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The connection to one node, and to those where it has sent us.
pub struct Direct {
    url: Url,
    client: Client,
    /// Of a cluster.
    is_node: bool,
    others: HashMap<String, Client>,
}

/// How long a slot may be on its way, and the pause before the next look.
const WAIT_MAX: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

impl Direct {
    pub fn new(url: &Url, client: Client, is_node: bool) -> Self {
        Direct {
            url: url.clone(),
            client,
            is_node,
            others: HashMap::new(),
        }
    }

    pub fn own(&mut self) -> &mut Client {
        &mut self.client
    }

    /// The connection to who has the slot of `key`.
    pub fn of(&mut self, key: &[u8]) -> Result<&mut Client, Failure> {
        let Some(name) = self.node_of(key)? else {
            return Ok(&mut self.client);
        };
        Ok(self.others.get_mut(&name).expect("connected above"))
    }

    /// None: our own.
    fn node_of(&mut self, key: &[u8]) -> Result<Option<String>, Lost> {
        if !self.is_node {
            return Ok(None);
        }
        // Nobody has this name: whoever has its slot and does not give it away says so.
        let probe = format!("dfsnap:restoring:none:{{{}}}", tag_beside(key));
        let began = Instant::now();
        let mut at: Option<String> = None;
        loop {
            let client = match &at {
                None => &mut self.client,
                Some(name) => self.others.get_mut(name).expect("connected below"),
            };
            let Frame::Error(text) = client.call(&["EXISTS", &probe])? else {
                return Ok(at);
            };
            let found = redirect(&text);
            let is_passing = text.starts_with(b"TRYAGAIN") || text.starts_with(b"CLUSTERDOWN");
            if found.is_none() && !is_passing || began.elapsed() > WAIT_MAX || stop::requested() {
                let what = format!("key {}: ", report::key(key));
                let text = [what.as_bytes(), &text].concat();
                return Err(client.lost(&text, "redis-cli --cluster check shows why"));
            }
            match found.filter(|found| !found.is_ask) {
                Some(moved) => {
                    let url = self.url.at(moved.host.as_deref(), moved.port);
                    let name = url.to_string();
                    if !self.others.contains_key(&name) {
                        self.others.insert(name.clone(), Client::connect(&url)?);
                    }
                    at = Some(name);
                }
                None => std::thread::sleep(PAUSE),
            }
        }
    }
}
