//! What a server is: its product and version, and the newest payloads of RESTORE that it takes.
//!
//! Nothing is written to find out. Servers with functions tell by FUNCTION DUMP, whose payload has the same footer;
//! others by the DUMP of any key; an empty one by the version that it names.

use super::client::{Client, Lost, info_field};
use super::url::Url;
use crate::report::Failure;
use dfsnap_formats::rdb::target::{Target, VERSION_WRITTEN_MAX};
use dfsnap_formats::resp::Frame;

#[derive(Debug, Clone)]
pub struct Server {
    /// As in `Redis 7.0.15`.
    pub product: String,
    /// Another one after every start.
    pub run_id: String,
    /// What DUMP writes and RESTORE reads there.
    pub target: Target,
    /// Whether RESTORE takes absolute expiry times, idle times and counters: from 5.0 on.
    pub has_absolute_expiry: bool,
}

/// Where nothing says otherwise: every server since 2.8 takes it.
const VERSION_UNKNOWN: u16 = 6;

pub fn ask(client: &mut Client) -> Result<Server, Lost> {
    let info = match client.call(&["INFO", "server"])? {
        Frame::Bulk(text) | Frame::Verbatim { text, .. } => {
            String::from_utf8_lossy(&text).into_owned()
        }
        _ => String::new(),
    };
    let redis = info_field(&info, "redis_version").unwrap_or("");
    let (product, version, by_name) = match (
        info_field(&info, "valkey_version"),
        info_field(&info, "dragonfly_version"),
    ) {
        (Some(version), _) => ("Valkey", version, named("valkey", version)),
        (_, Some(version)) => ("Dragonfly", version, Target::of_version(9)),
        _ => ("Redis", redis, named("redis", redis)),
    };
    let dumped = payload_version(client)?.map(|version| {
        Target::of_version(version)
            .or(Target::of_version(VERSION_WRITTEN_MAX).filter(|_| version > VERSION_WRITTEN_MAX))
    });
    let unknown = Target::of_version(VERSION_UNKNOWN).expect("a version that is written");
    let target = dumped.flatten().or(by_name).unwrap_or(unknown);
    Ok(Server {
        product: format!("{product} {version}").trim_end().to_owned(),
        run_id: info_field(&info, "run_id").unwrap_or("").to_owned(),
        target,
        has_absolute_expiry: target.version() >= 9,
    })
}

/// For verbs that would read from a server what they have just removed there.
pub fn refuse_same(from: &Server, to: &Server, url: &Url) -> Result<(), Failure> {
    match from.run_id == to.run_id && !to.run_id.is_empty() {
        false => Ok(()),
        true => Err(Failure {
            message: format!("{url}: this server is the source as well"),
            advice: "two addresses that lead to two servers".to_owned(),
        }),
    }
}

/// What all of these are at least.
pub fn oldest(clients: &mut [Client]) -> Result<Server, Lost> {
    let mut oldest: Option<Server> = None;
    for client in clients {
        let server = ask(client)?;
        let is_older = |known: &Server| server.target.version() < known.target.version();
        if oldest.as_ref().is_none_or(is_older) {
            oldest = Some(server);
        }
    }
    Ok(oldest.expect("an address leads to a server"))
}

/// The reply to TIME, in Unix milliseconds.
pub fn time_ms(reply: &Frame) -> Option<i64> {
    let [seconds, micros] = reply.as_slice()? else {
        return None;
    };
    let number = |frame: &Frame| {
        let text = std::str::from_utf8(frame.as_bytes()?).ok()?;
        text.parse::<i64>().ok()
    };
    Some(number(seconds)? * 1000 + number(micros)? / 1000)
}

/// `7.0.15` is `redis-7.0`, and what is newer than all names is the newest.
fn named(product: &str, version: &str) -> Option<Target> {
    let mut numbers = version.split('.');
    let (major, minor) = (numbers.next()?, numbers.next()?);
    Target::by_name(&format!("{product}-{major}.{minor}"))
        .or_else(|| Target::by_name(&format!("{product}-{major}")))
        .or_else(|| {
            let is_newer = major.parse::<u32>().is_ok_and(|major| major > 8);
            is_newer.then_some(Target::of_version(VERSION_WRITTEN_MAX))?
        })
}

/// The version in the footer of a payload; None: there is none to be had.
fn payload_version(client: &mut Client) -> Result<Option<u16>, Lost> {
    if let Frame::Bulk(payload) = client.call(&["FUNCTION", "DUMP"])? {
        return Ok(footer(&payload));
    }
    if let Frame::Bulk(key) = client.call(&["RANDOMKEY"])?
        && let Frame::Bulk(payload) = client.call(&[&b"DUMP"[..], &key])?
    {
        return Ok(footer(&payload));
    }
    Ok(None)
}

fn footer(payload: &[u8]) -> Option<u16> {
    let at = payload.len().checked_sub(10)?;
    Some(u16::from_le_bytes([payload[at], payload[at + 1]]))
}
