//! The handshake of a replica: PING, AUTH, REPLCONF, PSYNC, each answered by one line.
//!
//! Invariants
//! - PSYNC goes out alone, after every earlier reply arrived: a primary refuses it while it still owes one.
//! - Empty lines keep the connection alive and mean nothing.

use dfsnap_formats::resp::encode_command;

use crate::link::Disconnect;
use crate::position::{Position, ReplId};

/// Credentials for the primary (`masteruser`, `masterauth`).
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    pub user: Option<String>,
    pub password: Vec<u8>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("user", &self.user)
            .field("password", &"***")
            .finish()
    }
}

/// What a link asks for and tells about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConfig {
    pub auth: Option<Auth>,
    /// Shown in the primary's INFO and ROLE.
    pub listening_port: u16,
    pub announce_ip: Option<String>,
    /// Told to primaries that ask (Valkey 8 and later); others refuse it, which is ignored.
    pub version: Option<String>,
    /// Accept a payload that ends at a mark. Without it the primary must know the length first.
    pub accepts_mark: bool,
    /// Only the RDB is wanted: the link ends with the payload.
    pub rdb_only: bool,
    /// The primary is asked to be promoted while its own primary (we) steps down.
    pub failover: bool,
    /// Silence that ends the link, during the payload and in the stream (`repl-timeout`).
    pub timeout_ms: u64,
    /// Databases that exist here; a SELECT beyond them ends the link instead of hitting the wrong one.
    pub databases: u32,
    /// A unit (command or MULTI block) longer than this ends the link.
    pub unit_bytes_max: usize,
}

impl Default for LinkConfig {
    fn default() -> LinkConfig {
        LinkConfig {
            auth: None,
            listening_port: 0,
            announce_ip: None,
            version: None,
            accepts_mark: true,
            rdb_only: false,
            failover: false,
            timeout_ms: 60_000,
            databases: u32::MAX,
            unit_bytes_max: 4 << 30,
        }
    }
}

/// States are named for the reply they await.
#[expect(clippy::enum_variant_names, reason = "every state awaits something")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    AwaitPong,
    /// Replies to AUTH (first, if sent) and to the REPLCONFs.
    AwaitReplies {
        auth_sent: bool,
        left: usize,
    },
    AwaitSync,
}

/// What a reply leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Await(Handshake),
    /// A payload follows, of this history from this offset on.
    FullResync {
        replid: ReplId,
        offset: u64,
    },
    /// The stream goes on where it broke off, perhaps under a new name.
    Continue {
        replid: Option<ReplId>,
    },
    /// The primary does not know PSYNC; a payload follows, and offsets mean nothing.
    Sync,
}

impl Handshake {
    pub fn begin(out: &mut Vec<u8>) -> Handshake {
        encode_command(out, &["PING"]);
        Handshake::AwaitPong
    }

    pub fn name(self) -> &'static str {
        match self {
            Handshake::AwaitPong => "reply to PING",
            Handshake::AwaitReplies {
                auth_sent: true, ..
            } => "reply to AUTH",
            Handshake::AwaitReplies { .. } => "reply to REPLCONF",
            Handshake::AwaitSync => "reply to PSYNC",
        }
    }

    /// `line` is one reply without its line end, not empty.
    pub fn handle(
        self,
        line: &[u8],
        config: &LinkConfig,
        position: Option<&Position>,
        out: &mut Vec<u8>,
    ) -> Result<Next, Disconnect> {
        match self {
            Handshake::AwaitPong => {
                let is_fine = line.starts_with(b"+")
                    || [&b"-NOAUTH"[..], b"-NOPERM", b"-ERR operation not permitted"]
                        .iter()
                        .any(|accepted| line.starts_with(accepted));
                if !is_fine {
                    return Err(Disconnect::NotReady { reply: text(line) });
                }
                let left = introduce(config, out);
                Ok(Next::Await(Handshake::AwaitReplies {
                    auth_sent: config.auth.is_some(),
                    left,
                }))
            }
            Handshake::AwaitReplies { auth_sent, left } => {
                if auth_sent && line.starts_with(b"-") {
                    return Err(Disconnect::Refused {
                        step: self.name(),
                        reply: text(line),
                    });
                }
                if left > 1 {
                    return Ok(Next::Await(Handshake::AwaitReplies {
                        auth_sent: false,
                        left: left - 1,
                    }));
                }
                ask(config, position, out);
                Ok(Next::Await(Handshake::AwaitSync))
            }
            Handshake::AwaitSync if config.failover && position.is_some() && is_refusal(line) => {
                Err(Disconnect::FailoverRefused { reply: text(line) })
            }
            Handshake::AwaitSync => synced(line, position.is_some(), out),
        }
    }
}

/// Sends AUTH and the REPLCONFs together; returns how many replies they get, at least one.
fn introduce(config: &LinkConfig, out: &mut Vec<u8>) -> usize {
    let mut sent = 0;
    let mut send = |words: &[&[u8]]| {
        encode_command(out, words);
        sent += 1;
    };
    match &config.auth {
        Some(Auth {
            user: Some(user),
            password,
        }) => send(&[b"AUTH", user.as_bytes(), password]),
        Some(Auth {
            user: None,
            password,
        }) => send(&[b"AUTH", password]),
        None => {}
    }
    send(&[
        b"REPLCONF",
        b"listening-port",
        config.listening_port.to_string().as_bytes(),
    ]);
    if let Some(ip) = &config.announce_ip {
        send(&[b"REPLCONF", b"ip-address", ip.as_bytes()]);
    }
    if config.accepts_mark {
        send(&[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"]);
    } else {
        send(&[b"REPLCONF", b"capa", b"psync2"]);
    }
    if let Some(version) = &config.version {
        send(&[b"REPLCONF", b"version", version.as_bytes()]);
    }
    if config.rdb_only {
        send(&[b"REPLCONF", b"rdb-only", b"1"]);
    }
    sent
}

fn ask(config: &LinkConfig, position: Option<&Position>, out: &mut Vec<u8>) {
    let (replid, next) = match position {
        Some(position) => (
            position.replid.to_string(),
            (position.offset + 1).to_string(),
        ),
        None => ("?".to_owned(), "-1".to_owned()),
    };
    let mut words = vec!["PSYNC", &replid, &next];
    if config.failover && position.is_some() {
        words.push("FAILOVER");
    }
    encode_command(out, &words);
}

/// Who is asked to take over and does not answer with a stream has refused.
fn is_refusal(line: &[u8]) -> bool {
    !line.starts_with(b"+CONTINUE") && !line.starts_with(b"+FULLRESYNC")
}

fn synced(line: &[u8], asked_partial: bool, out: &mut Vec<u8>) -> Result<Next, Disconnect> {
    let step = Handshake::AwaitSync.name();
    let mut words = line.split(|&b| b == b' ').filter(|word| !word.is_empty());
    match words.next() {
        Some(b"+FULLRESYNC") => {
            let replid = words.next().and_then(ReplId::parse);
            let offset = words
                .next()
                .and_then(|w| std::str::from_utf8(w).ok())
                .and_then(|w| w.parse().ok());
            match (replid, offset) {
                (Some(replid), Some(offset)) => Ok(Next::FullResync { replid, offset }),
                _ => Err(Disconnect::BadReply {
                    step,
                    found: text(line),
                }),
            }
        }
        Some(b"+CONTINUE") if asked_partial => match words.next() {
            None => Ok(Next::Continue { replid: None }),
            Some(word) => match ReplId::parse(word) {
                Some(replid) => Ok(Next::Continue {
                    replid: Some(replid),
                }),
                None => Err(Disconnect::BadReply {
                    step,
                    found: text(line),
                }),
            },
        },
        Some(b"+CONTINUE") => Err(Disconnect::BadReply {
            step,
            found: text(line),
        }),
        Some(b"-NOMASTERLINK" | b"-LOADING") => Err(Disconnect::NotReady { reply: text(line) }),
        Some(b"-NOAUTH" | b"-NOPERM" | b"-WRONGPASS") => Err(Disconnect::Refused {
            step,
            reply: text(line),
        }),
        _ => {
            out.extend_from_slice(b"SYNC\r\n");
            Ok(Next::Sync)
        }
    }
}

/// A reply for an error message: its beginning, printable.
pub(crate) fn text(line: &[u8]) -> String {
    let beginning = String::from_utf8_lossy(&line[..line.len().min(200)]);
    beginning
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb";

    fn replid() -> ReplId {
        ReplId::parse(ID.as_bytes()).unwrap()
    }

    /// The commands in `out`, one a line.
    fn commands(out: &mut Vec<u8>) -> String {
        let mut decoder = dfsnap_formats::resp::RequestDecoder::new(1000);
        let (mut text, mut at) = (Vec::new(), 0);
        while let Some(consumed) = decoder.decode(&out[at..]).unwrap() {
            text.push(
                decoder
                    .words(&out[at..])
                    .map(|w| str::from_utf8(w).unwrap())
                    .collect::<Vec<_>>()
                    .join(" "),
            );
            at += consumed;
        }
        out.clear();
        text.join("\n")
    }

    #[test]
    fn replica_with_all_settings_says_what_redis_would() {
        let config = LinkConfig {
            auth: Some(Auth {
                user: Some("usr".into()),
                password: b"sekret".to_vec(),
            }),
            listening_port: 36521,
            announce_ip: Some("10.9.8.7".into()),
            ..LinkConfig::default()
        };
        let mut out = Vec::new();
        let mut state = Handshake::begin(&mut out);
        assert_eq!(commands(&mut out), "PING");
        let mut steps = Vec::new();
        for line in [
            "-NOAUTH Authentication required.",
            "+OK",
            "+OK",
            "-ERR unknown",
            "+OK",
        ] {
            match state
                .handle(line.as_bytes(), &config, None, &mut out)
                .unwrap()
            {
                Next::Await(next) => state = next,
                other => panic!("{other:?} after {line}"),
            }
            steps.push(commands(&mut out));
        }
        let introduction = "AUTH usr sekret\nREPLCONF listening-port 36521\nREPLCONF ip-address 10.9.8.7\nREPLCONF capa eof capa psync2";
        assert_eq!(steps, [introduction, "", "", "", "PSYNC ? -1"]);
        assert_eq!(state, Handshake::AwaitSync);
    }

    #[test]
    fn cached_position_asks_for_the_next_byte() {
        let mut out = Vec::new();
        let position = Position {
            replid: replid(),
            offset: 99,
            db: 0,
        };
        ask(&LinkConfig::default(), Some(&position), &mut out);
        assert_eq!(commands(&mut out), format!("PSYNC {ID} 100"));
        ask(
            &LinkConfig {
                failover: true,
                ..LinkConfig::default()
            },
            Some(&position),
            &mut out,
        );
        assert_eq!(commands(&mut out), format!("PSYNC {ID} 100 FAILOVER"));
    }

    #[test]
    fn psync_replies_lead_where_they_should() {
        type Row = (
            &'static str,
            String,
            bool,
            Result<Next, fn(&Disconnect) -> bool>,
        );
        let rows: Vec<Row> = vec![
            (
                "full",
                format!("+FULLRESYNC {ID} 12"),
                false,
                Ok(Next::FullResync {
                    replid: replid(),
                    offset: 12,
                }),
            ),
            (
                "continue",
                "+CONTINUE".into(),
                true,
                Ok(Next::Continue { replid: None }),
            ),
            (
                "new id",
                format!("+CONTINUE {ID}"),
                true,
                Ok(Next::Continue {
                    replid: Some(replid()),
                }),
            ),
            (
                "unasked",
                "+CONTINUE".into(),
                false,
                Err(|e| matches!(e, Disconnect::BadReply { .. })),
            ),
            (
                "short id",
                "+FULLRESYNC abc 12".into(),
                false,
                Err(|e| matches!(e, Disconnect::BadReply { .. })),
            ),
            (
                "no offset",
                format!("+FULLRESYNC {ID}"),
                false,
                Err(|e| matches!(e, Disconnect::BadReply { .. })),
            ),
            (
                "loading",
                "-LOADING Redis is loading".into(),
                true,
                Err(|e| matches!(e, Disconnect::NotReady { .. })),
            ),
            (
                "no link",
                "-NOMASTERLINK Can't SYNC".into(),
                true,
                Err(|e| matches!(e, Disconnect::NotReady { .. })),
            ),
            (
                "no rights",
                "-NOPERM no".into(),
                false,
                Err(|e| matches!(e, Disconnect::Refused { .. })),
            ),
            (
                "unknown",
                "-ERR unknown command 'PSYNC'".into(),
                false,
                Ok(Next::Sync),
            ),
        ];
        for (name, line, asked_partial, want) in rows {
            let mut out = Vec::new();
            let got = synced(line.as_bytes(), asked_partial, &mut out);
            assert_eq!(out == b"SYNC\r\n", got == Ok(Next::Sync), "{name}");
            match (got, want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{name}"),
                (Err(error), Err(is_expected)) => assert!(is_expected(&error), "{name}: {error:?}"),
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }

    #[test]
    fn refused_password_ends_the_attempt() {
        let config = LinkConfig {
            auth: Some(Auth {
                user: None,
                password: b"x".to_vec(),
            }),
            ..LinkConfig::default()
        };
        let state = Handshake::AwaitReplies {
            auth_sent: true,
            left: 3,
        };
        let error = state
            .handle(b"-WRONGPASS invalid", &config, None, &mut Vec::new())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "reply to AUTH: refused: -WRONGPASS invalid"
        );
    }

    #[test]
    fn primary_that_is_loading_is_not_ready() {
        let error = Handshake::AwaitPong.handle(
            b"-LOADING x",
            &LinkConfig::default(),
            None,
            &mut Vec::new(),
        );
        assert!(matches!(error, Err(Disconnect::NotReady { .. })));
    }
}
