//! HELLO: what a client asks for with it, and what it is told of the server.
//!
//! `session` answers it, and `emergency` where a script holds the client's thread.

use std::sync::atomic::Ordering;

use dfsnap_formats::resp::{Protocol, Reply};

use super::client::checked_name;
use crate::command::CommandError;
use crate::keyspace::value::canonical_i64;
use crate::world::{Client, World};

/// The wishes of a HELLO.
#[derive(Default)]
pub(super) struct Greeting<'w> {
    /// `None`: as before.
    pub protocol: Option<Protocol>,
    /// User and password.
    pub credentials: Option<(&'w [u8], &'w [u8])>,
    /// The client's name.
    pub name: Option<String>,
}

impl<'w> Greeting<'w> {
    /// From the words of the command.
    pub fn parse(words: &[&'w [u8]]) -> Result<Greeting<'w>, CommandError> {
        let mut greeting = Greeting::default();
        let mut rest = words[1..].iter();
        if let Some(version) = rest.next() {
            let version = canonical_i64(version).ok_or_else(|| {
                CommandError::new("Protocol version is not an integer or out of range")
            })?;
            greeting.protocol = match version {
                2 => Some(Protocol::Resp2),
                3 => Some(Protocol::Resp3),
                _ => return Err(CommandError::text("NOPROTO unsupported protocol version")),
            };
        }
        while let Some(option) = rest.next() {
            let left = rest.as_slice();
            if option.eq_ignore_ascii_case(b"auth") && left.len() >= 2 {
                greeting.credentials = Some((left[0], left[1]));
                rest = left[2..].iter();
            } else if option.eq_ignore_ascii_case(b"setname") && !left.is_empty() {
                greeting.name = Some(checked_name(left[0])?);
                rest = left[1..].iter();
            } else {
                let option = String::from_utf8_lossy(option);
                return Err(CommandError::new(format!(
                    "Syntax error in HELLO option '{option}'"
                )));
            }
        }
        Ok(greeting)
    }
}

/// The reply, in the protocol that `out` has.
pub(super) fn describe_server(out: &mut Reply, world: &World, client: &Client) {
    let is_replica = world.is_replica.load(Ordering::Relaxed);
    let mode: &[u8] = match world.config().cluster_enabled {
        true => b"cluster",
        false => b"standalone",
    };
    let protocol = out.protocol();
    out.map(7);
    out.bulk(b"server");
    out.bulk(b"redis");
    out.bulk(b"version");
    out.bulk(crate::config::REDIS_VERSION.as_bytes());
    out.bulk(b"proto");
    out.int(if protocol == Protocol::Resp3 { 3 } else { 2 });
    out.bulk(b"id");
    out.int(client.id as i64);
    out.bulk(b"mode");
    out.bulk(mode);
    out.bulk(b"role");
    out.bulk(if is_replica { b"replica" } else { b"master" });
    out.bulk(b"modules");
    out.array(0);
}
