//! The nodes of a Redis Cluster, and which of them has a key.
//!
//! An address `redis+cluster://` names any node. What is asked here is `CLUSTER SLOTS`, which every version knows; replicas are
//! left alone.

use super::Client;
use super::client::info_field;
use super::url::Url;
use crate::report::Failure;
use dfsnap_formats::resp::Frame;
use dfsnap_formats::slot::{SLOTS, slot};
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// The primaries behind an address: all of a cluster's, or one server.
#[derive(Debug, Clone)]
pub struct Nodes {
    pub urls: Vec<Url>,
    /// By slot: who has it. None: one server, which has all.
    owners: Option<Vec<u16>>,
}

/// Where a node says that a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// None: where we are, on another port.
    pub host: Option<String>,
    pub port: u16,
    /// Only for this one command: the slot is on its way.
    pub is_ask: bool,
}

impl Nodes {
    /// Asks the node of a cluster; another address stands for itself.
    pub fn of(url: &Url) -> Result<Nodes, Failure> {
        if !url.is_cluster {
            return Ok(Nodes {
                urls: vec![url.clone()],
                owners: None,
            });
        }
        let mut client = Client::connect(url)?;
        let advice = "a node of a cluster, and a user with +cluster; redis:// without +cluster for a server by itself";
        let reply = client.ask(&["CLUSTER", "SLOTS"], advice)?;
        let rows = reply.as_slice().unwrap_or_default();
        let mut nodes = Nodes {
            urls: Vec::new(),
            owners: None,
        };
        let mut owners: Vec<Option<u16>> = vec![None; usize::from(SLOTS)];
        for row in rows {
            nodes.note(url, row, &mut owners).ok_or_else(|| Failure {
                message: format!("{url}: its reply to CLUSTER SLOTS cannot be understood"),
                advice: advice.to_owned(),
            })?;
        }
        let missing = owners.iter().filter(|owner| owner.is_none()).count();
        if missing > 0 {
            return Err(Failure {
                message: format!("{url}: nobody has {missing} of the {SLOTS} slots"),
                advice: "mend the cluster first: redis-cli --cluster fix".to_owned(),
            });
        }
        nodes.owners = Some(owners.into_iter().flatten().collect());
        Ok(nodes)
    }

    /// `[first slot, last slot, [host, port, …], …]`
    fn note(&mut self, url: &Url, row: &Frame, owners: &mut [Option<u16>]) -> Option<()> {
        let [first, last, node, ..] = row.as_slice()? else {
            return None;
        };
        let [host, port, ..] = node.as_slice()? else {
            return None;
        };
        let (Frame::Int(first), Frame::Int(last), Frame::Int(port)) = (first, last, port) else {
            return None;
        };
        let host = host
            .as_bytes()
            .filter(|host| !host.is_empty() && *host != b"?");
        let host = host.map(|host| String::from_utf8_lossy(host).into_owned());
        let node = url.at(host.as_deref(), u16::try_from(*port).ok()?);
        let name = node.to_string();
        let known = self.urls.iter().position(|known| known.to_string() == name);
        let at = known.unwrap_or_else(|| {
            self.urls.push(node);
            self.urls.len() - 1
        });
        let range = usize::try_from(*first).ok()?..=usize::try_from(*last).ok()?;
        owners.get_mut(range)?.fill(Some(at as u16));
        Some(())
    }

    /// The place in `urls` of the node that has a key.
    pub fn of_key(&self, key: &[u8]) -> usize {
        match &self.owners {
            None => 0,
            Some(owners) => usize::from(owners[usize::from(slot(key))]),
        }
    }

    pub fn is_cluster(&self) -> bool {
        self.owners.is_some()
    }

    /// A connection to each.
    pub fn connect(&self) -> Result<Vec<Client>, Failure> {
        let connect = |url| Client::connect(url).map_err(Failure::from);
        self.urls.iter().map(connect).collect()
    }

    /// A cluster has one database.
    pub fn check_db(&self, db: u32) -> Result<(), Failure> {
        match self.is_cluster() && db != 0 {
            false => Ok(()),
            true => Err(Failure {
                message: format!("a cluster has only database 0, and the dump has keys in {db}"),
                advice: "--db 0 leaves the others out, --to-db 0 puts all together".to_owned(),
            }),
        }
    }
}

/// What `MOVED 3999 host:port` and `ASK 3999 host:port` say.
pub fn redirect(error: &[u8]) -> Option<Redirect> {
    let text = std::str::from_utf8(error).ok()?;
    let mut words = text.split_whitespace();
    let is_ask = match words.next()? {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    let (host, port) = words.nth(1)?.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    Some(Redirect {
        host: (!host.is_empty() && host != "?").then(|| host.to_owned()),
        port: port.parse().ok()?,
        is_ask,
    })
}

/// What has to stand in braces for a name to be in the same slot as `key`.
pub fn tag_beside(key: &[u8]) -> u32 {
    static TAGS: OnceLock<Vec<u32>> = OnceLock::new();
    let tags = TAGS.get_or_init(|| {
        let mut tags = vec![None; usize::from(SLOTS)];
        let mut left = tags.len();
        for number in 0u32.. {
            let tag = &mut tags[usize::from(slot(number.to_string().as_bytes()))];
            if tag.is_none() {
                *tag = Some(number);
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        tags.into_iter().flatten().collect()
    });
    tags[usize::from(slot(key))]
}

/// For verbs that apply the changes of one server to another.
pub fn refuse(url: &Url) -> Result<(), Failure> {
    match url.is_cluster {
        false => Ok(()),
        true => Err(Failure {
            message: format!("{url}: a whole cluster is not migrated"),
            advice: "while writers stand still: dfsnap restore FROM TO --verify copies a cluster into another, or into a server; dfsnap follow prints what is written meanwhile".to_owned(),
        }),
    }
}

/// How many primaries share the slots of the cluster that a server is a node of; 1: it has all that there is.
pub fn primaries(client: &mut Client) -> Result<usize, Failure> {
    let info = client.call(&["INFO", "cluster"])?;
    let info = String::from_utf8_lossy(info.as_bytes().unwrap_or_default()).into_owned();
    if info_field(&info, "cluster_enabled") != Some("1") {
        return Ok(1);
    }
    let reply = client.ask(&["CLUSTER", "SLOTS"], "a user with +cluster")?;
    let rows = reply.as_slice().unwrap_or_default().iter();
    let nodes = rows.filter_map(|row| row.as_slice()?.get(2));
    let names: BTreeSet<String> = nodes.map(|node| format!("{node:?}")).collect();
    Ok(names.len().max(1))
}

/// For the same verbs, of a plain address: a node that has not all slots takes a part of the keys only.
pub fn refuse_part(client: &mut Client) -> Result<(), Failure> {
    match primaries(client)? {
        1 => Ok(()),
        nodes => Err(Failure {
            message: format!(
                "{}: this is one of {nodes} nodes of a cluster, and a whole cluster is not migrated",
                client.name()
            ),
            advice: "while writers stand still: dfsnap restore FROM redis+cluster://TO --verify; a server without cluster-enabled takes all keys".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_name_a_node() {
        let at = |host: Option<&str>, port, is_ask| {
            Some(Redirect {
                host: host.map(str::to_owned),
                port,
                is_ask,
            })
        };
        let rows = [
            (
                "MOVED 3999 127.0.0.1:6381",
                at(Some("127.0.0.1"), 6381, false),
            ),
            ("ASK 1 [::1]:7", at(Some("::1"), 7, true)),
            ("ASK 1 fe80::1:7", at(Some("fe80::1"), 7, true)),
            ("MOVED 1 :7", at(None, 7, false)),
            ("MOVED 1 ?:7", at(None, 7, false)),
            ("MOVED 1", None),
            ("ERR x", None),
        ];
        for (text, want) in rows {
            assert_eq!(redirect(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn tags_lead_to_the_slot_of_the_key() {
        for key in [&b"a"[..], b"{b}c", b"}{", b"", b"\xff\0"] {
            let name = format!("temporary:{{{}}}", tag_beside(key));
            assert_eq!(slot(name.as_bytes()), slot(key), "{key:?}");
        }
    }
}
