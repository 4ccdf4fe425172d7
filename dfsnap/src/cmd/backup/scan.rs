//! A backup where PSYNC is not allowed: SCAN through every database, DUMP and the expiry of every key.
//!
//! It is no point in time: keys that change while it runs are there as they were when their turn came, and a
//! transaction may be in it by half. What was there all the time is in it once.
//!
//! Memory: 13 to 19 bytes for each key, because SCAN may give a key twice and no loader takes it twice.

use crate::check::keys::SeenKeys;
use crate::live::client::Lost;
use crate::live::{Client, Url, server};
use crate::report::{self, Failure};
use crate::source::progress::Progress;
use crate::source::{Key, Record};
use dfsnap_formats::rdb::dump::Payload;
use dfsnap_formats::rdb::parts::PartWalk;
use dfsnap_formats::rdb::reader::KeyRecord;
use dfsnap_formats::rdb::record::Attributes;
use dfsnap_formats::resp::Frame;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

/// Takes what a scan finds.
pub type Take<'t> = dyn FnMut(Record<'_>) -> Result<(), Failure> + 't;

/// Keys asked for at once.
const BATCH: &str = "500";
/// Any version: what is in the payload is looked at later, by its type.
const VERSION_ANY: u16 = u16::MAX;

/// Functions first, then the keys of one database after the other.
pub fn scan(mut client: Client, url: &Url, take: &mut Take<'_>) -> Result<(), Failure> {
    functions(&mut client, take)?;
    let mut seen = Seen::default();
    let mut walk = PartWalk::default();
    let databases = databases(&mut client, url)?;
    let progress = Progress::of_keys(databases.iter().map(|(_, keys)| keys).sum());
    let mut take = |record: Record<'_>| {
        progress.add(1);
        take(record)
    };
    for (db, _) in databases {
        let select = client.call(&["SELECT", &db.to_string()])?;
        if let (Frame::Error(text), true) = (select, db > 0) {
            return Err(client
                .lost(&text, "a user that may use every database")
                .into());
        }
        database(&mut client, db, &mut seen, &mut walk, &mut take)?;
    }
    Ok(())
}

/// Those with keys, and how many; the one of the address where there is one.
pub fn databases(client: &mut Client, url: &Url) -> Result<Vec<(u32, u64)>, Lost> {
    if let Some(db) = url.db {
        let keys = match client.call(&["DBSIZE"])? {
            Frame::Int(keys) => keys.unsigned_abs(),
            _ => 0,
        };
        return Ok(vec![(db, keys)]);
    }
    let info = client.ask(
        &["INFO", "keyspace"],
        "an address with a database, which needs no INFO",
    )?;
    let info = String::from_utf8_lossy(info.as_bytes().unwrap_or_default()).into_owned();
    let rows = info.lines().filter_map(|line| {
        let (db, fields) = line.strip_prefix("db")?.split_once(':')?;
        let keys = fields.strip_prefix("keys=")?.split(',').next()?;
        Some((db.parse().ok()?, keys.parse().ok()?))
    });
    Ok(rows.collect())
}

/// Servers without functions answer with an error, and have none.
fn functions(client: &mut Client, take: &mut Take<'_>) -> Result<(), Failure> {
    let reply = client.call(&["FUNCTION", "LIST", "WITHCODE"])?;
    for library in reply.as_slice().unwrap_or_default() {
        let fields = library.as_slice().unwrap_or_default();
        let code = fields
            .chunks_exact(2)
            .find(|pair| pair[0].as_bytes() == Some(b"library_code"))
            .and_then(|pair| pair[1].as_bytes());
        if let Some(code) = code {
            take(Record::Function(code))?;
        }
    }
    Ok(())
}

fn database(
    client: &mut Client,
    db: u32,
    seen: &mut Seen,
    walk: &mut PartWalk,
    take: &mut Take<'_>,
) -> Result<(), Failure> {
    let mut cursor = b"0".to_vec();
    loop {
        let reply = client.ask(
            &[&b"SCAN"[..], &cursor, b"COUNT", BATCH.as_bytes()],
            "a user with +scan +dump +pttl +time",
        )?;
        let Some([next, keys]) = reply.as_slice() else {
            return Err(strange(client, "SCAN"));
        };
        let fresh: Vec<&[u8]> = keys
            .as_slice()
            .unwrap_or_default()
            .iter()
            .filter_map(Frame::as_bytes)
            .filter(|key| seen.is_new(db, key))
            .collect();
        batch(client, db, &fresh, walk, take)?;
        cursor = next.as_bytes().unwrap_or(b"0").to_vec();
        if cursor == b"0" {
            return Ok(());
        }
    }
}

fn batch(
    client: &mut Client,
    db: u32,
    keys: &[&[u8]],
    walk: &mut PartWalk,
    take: &mut Take<'_>,
) -> Result<(), Failure> {
    for key in keys {
        // An expiry is told as what is left of it, at that moment of that clock.
        client.push(&["TIME"])?;
        client.push(&[&b"PTTL"[..], key])?;
        client.push(&[&b"DUMP"[..], key])?;
    }
    for key in keys {
        let now_ms = server::time_ms(&client.reply()?).unwrap_or_else(report::now_ms);
        let left = client.reply()?;
        let payload = match client.reply()? {
            Frame::Bulk(payload) => payload,
            Frame::Null => continue, // gone since SCAN
            Frame::Error(text) => {
                let advice = "a user with +dump; every key must be readable for a backup";
                return Err(client.lost(&text, advice).into());
            }
            _ => return Err(strange(client, "DUMP")),
        };
        let expire_at_ms = match left {
            Frame::Int(left @ 0..) => Some(now_ms + left),
            Frame::Int(_) => None,
            Frame::Error(text) => return Err(client.lost(&text, "a user with +pttl").into()),
            _ => return Err(strange(client, "PTTL")),
        };
        let parsed = Payload::parse(&payload, VERSION_ANY).map_err(|error| Failure {
            message: format!("{}: key {}: {error}", client.name(), report::key(key)),
            advice: "the link between here and the server changes bytes, or the server does"
                .to_owned(),
        })?;
        let record = KeyRecord {
            db,
            key,
            attributes: Attributes {
                expire_at_ms,
                ..Attributes::default()
            },
            flavor: parsed.flavor(),
            type_code: parsed.type_code,
            offset: 0,
            value_offset: 1,
            value: parsed.value,
        };
        let name = client.name().to_owned();
        take(Record::Key(Key::stored(Path::new(&name), &record, walk)))?;
    }
    Ok(())
}

fn strange(client: &Client, command: &str) -> Failure {
    Failure {
        message: format!(
            "{}: an answer to {command} that no server gives",
            client.name()
        ),
        advice: "is there a proxy in between? ask the server itself".to_owned(),
    }
}

/// Keys that were taken, as 80 bits of two hashes that nobody outside can foresee.
#[derive(Default)]
struct Seen {
    hashers: [RandomState; 2],
    keys: SeenKeys<u16>,
}

impl Seen {
    fn is_new(&mut self, db: u32, key: &[u8]) -> bool {
        let [hash, tag] = self
            .hashers
            .each_ref()
            .map(|hasher| hasher.hash_one((db, key)));
        self.keys.insert_hash(hash, tag as u16)
    }
}
