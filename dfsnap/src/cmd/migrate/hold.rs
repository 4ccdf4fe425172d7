//! Expiries while a migration runs: TO lets no key go by its own clock.
//!
//! TO is behind FROM: by all of the copy, by an interruption, or by a moment. Why that matters: 1. a session has a second to live, and is read, so that
//! FROM gives it another half hour; 2. TO hears of that two seconds later, when its own clock has removed the session; 3. the half hour is given to a
//! key that is not there, and what follows (RENAME, LSET) is refused. A replica does not remove keys by its own clock for this reason, and so
//! TO must not: it gets every expiry moved far into the future, by a number that tells at sight that it was moved. FROM says by DEL when a key goes.
//! At the end all expiries are moved back, and what is over by then goes at once.
//!
//! Expiries of fields of hashes are not held: who asks for them has no order of keys to walk along.
//!
//! Invariants
//! - To hold what is held, or to release what is released, changes nothing: either can be interrupted and done again.
//! - Of two expiries the one that ends first ends first when both are held (policies of eviction go by it).

use super::fine;
use crate::cmd::backup::scan;
use crate::live::{Client, Url, server, stop};
use crate::report::{self, Failure};
use dfsnap_formats::resp::Frame;
use std::borrow::Cow;

/// What is added to an expiry in TO, in milliseconds: some 35,000 years.
const HELD_MS: i64 = 1 << 50;
/// Expiries from here on, in the year 3084, stay as they are: no migration takes so long.
const LASTING_MS: i64 = 1 << 45;

/// The expiry that a key gets in TO until the end; Unix milliseconds, or a time from now.
pub fn held(ms: i64) -> i64 {
    match ms {
        ..LASTING_MS => HELD_MS + ms.max(0),
        _ => ms,
    }
}

/// The expiry that a key had before it was held, if it is held.
fn released(at_ms: i64) -> Option<i64> {
    let held = HELD_MS..HELD_MS + LASTING_MS;
    held.contains(&at_ms).then(|| at_ms - HELD_MS)
}

/// A change of FROM with its expiry held; None: it sets none.
///
/// Relative times stay relative, since an older server knows no others for some of these. Conditions (`GT`, `NX`) go: what FROM sends was done there.
pub fn command<'c>(words: &[&'c [u8]]) -> Option<Vec<Cow<'c, [u8]>>> {
    let name = words.first()?;
    // Of each name the first letter, and that only few begin with it, is what most commands end at.
    match name.first()?.to_ascii_uppercase() {
        b'S' | b'P' | b'E' | b'G' | b'R' => {}
        _ => return None,
    }
    let key = words.get(1)?;
    match name.to_ascii_uppercase().as_slice() {
        b"PEXPIREAT" | b"PEXPIRE" => Some(plain(&[name, key, &held_text(words.get(2)?, 1)?])),
        b"EXPIREAT" => Some(plain(&[
            b"PEXPIREAT",
            key,
            &held_text(words.get(2)?, 1000)?,
        ])),
        b"EXPIRE" => Some(plain(&[b"PEXPIRE", key, &held_text(words.get(2)?, 1000)?])),
        b"PSETEX" => Some(plain(&[
            name,
            key,
            &held_text(words.get(2)?, 1)?,
            words.get(3)?,
        ])),
        b"SETEX" => {
            let text = held_text(words.get(2)?, 1000)?;
            Some(plain(&[b"PSETEX", key, &text, words.get(3)?]))
        }
        b"SET" => with_option(words, 3),
        b"GETEX" => with_option(words, 2),
        b"RESTORE" | b"RESTORE-ASKING" => {
            let text = held_text(words.get(2)?, 1)?;
            // 0: none.
            if number(words[2])? == 0 {
                return None;
            }
            let mut held: Vec<Cow<'c, [u8]>> = words.iter().copied().map(Cow::Borrowed).collect();
            held[2] = Cow::Owned(text);
            Some(held)
        }
        _ => None,
    }
}

fn plain(words: &[&[u8]]) -> Vec<Cow<'static, [u8]>> {
    words.iter().map(|word| Cow::Owned(word.to_vec())).collect()
}

/// `EX`, `PX`, `EXAT` or `PXAT` at `from` or behind, and the number behind it.
fn with_option<'c>(words: &[&'c [u8]], from: usize) -> Option<Vec<Cow<'c, [u8]>>> {
    for at in from..words.len().saturating_sub(1) {
        let (option, unit): (&[u8], i64) = match words[at].to_ascii_uppercase().as_slice() {
            b"PXAT" => (b"PXAT", 1),
            b"EXAT" => (b"PXAT", 1000),
            b"PX" => (b"PX", 1),
            b"EX" => (b"PX", 1000),
            _ => continue,
        };
        let mut held: Vec<Cow<'c, [u8]>> = words.iter().copied().map(Cow::Borrowed).collect();
        held[at] = Cow::Owned(option.to_vec());
        held[at + 1] = Cow::Owned(held_text(words[at + 1], unit)?);
        return Some(held);
    }
    None
}

fn number(word: &[u8]) -> Option<i64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// None: no number, or more than a server takes; TO says what it thinks of it.
fn held_text(word: &[u8], unit_ms: i64) -> Option<Vec<u8>> {
    let ms = number(word)?.checked_mul(unit_ms)?;
    Some(held(ms).to_string().into_bytes())
}

/// Whether the server takes expiries that are so far off.
pub fn is_understood(product: &str) -> bool {
    // Eight years are the most there.
    !product.starts_with("Dragonfly")
}

const BATCH: &str = "1000";
const ADVICE: &str = "a user of TO with +scan +pexpiretime +pttl +time +pexpireat";

/// Gives all keys of TO their expiries back; how many had one that was held. `beat` is called in between.
pub fn release(client: &mut Client, url: &Url, beat: &mut dyn FnMut()) -> Result<u64, Failure> {
    let mut count = 0;
    for (db, _) in scan::databases(client, url)? {
        client.ask(&["SELECT", &db.to_string()], "a user of TO with +select")?;
        let mut cursor = b"0".to_vec();
        loop {
            beat();
            if stop::requested() {
                return Err(Failure {
                    message: format!(
                        "stopped by a signal; {count} keys have their expiries back, others not yet"
                    ),
                    advice: "the same command goes on".to_owned(),
                });
            }
            let reply = client.ask(&[&b"SCAN"[..], &cursor, b"COUNT", BATCH.as_bytes()], ADVICE)?;
            let Some([next, keys]) = reply.as_slice() else {
                return Err(client
                    .lost(b"SCAN: an answer that no server gives", ADVICE)
                    .into());
            };
            let keys = keys.as_slice().unwrap_or_default();
            let keys: Vec<&[u8]> = keys.iter().filter_map(Frame::as_bytes).collect();
            count += release_keys(client, &keys)?;
            cursor = next.as_bytes().unwrap_or(b"0").to_vec();
            if cursor == b"0" {
                break;
            }
        }
    }
    Ok(count)
}

fn release_keys(client: &mut Client, keys: &[&[u8]]) -> Result<u64, Failure> {
    let expiries = expiries(client, keys)?;
    let mut count = 0;
    for (key, at_ms) in keys.iter().zip(expiries) {
        if let Some(at_ms) = released(at_ms) {
            client.push(&[&b"PEXPIREAT"[..], key, at_ms.to_string().as_bytes()])?;
            count += 1;
        }
    }
    for _ in 0..count {
        let reply = client.reply()?;
        fine(client, reply)?;
    }
    Ok(count)
}

/// Absolute expiries; below zero where there is none.
fn expiries(client: &mut Client, keys: &[&[u8]]) -> Result<Vec<i64>, Failure> {
    let mut found = Vec::with_capacity(keys.len());
    let mut is_known = true;
    for key in keys {
        client.push(&[&b"PEXPIRETIME"[..], key])?;
    }
    for _ in keys {
        match client.reply()? {
            Frame::Int(at_ms) => found.push(at_ms),
            Frame::Error(text) if text.starts_with(b"ERR unknown command") => is_known = false,
            reply => drop(fine(client, reply)?),
        }
    }
    if is_known {
        return Ok(found);
    }
    // Before 7.0 servers say what is left of it, at that moment of their clock.
    for key in keys {
        client.push(&["TIME"])?;
        client.push(&[&b"PTTL"[..], key])?;
    }
    found.clear();
    for _ in keys {
        let now_ms = server::time_ms(&client.reply()?).unwrap_or_else(report::now_ms);
        let left = client.reply()?;
        match fine(client, left)? {
            Frame::Int(left @ 0..) => found.push(now_ms.saturating_add(left)),
            _ => found.push(-1),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries_are_held_and_released() {
        for ms in [0, 1, 1_700_000_000_000, LASTING_MS - 1] {
            assert_eq!(released(held(ms)), Some(ms));
            assert_eq!(released(ms), None);
            assert_eq!(held(held(ms)), held(ms), "{ms}: once");
        }
        assert_eq!(held(-5), HELD_MS);
        for ms in [LASTING_MS, HELD_MS + LASTING_MS, i64::MAX] {
            assert_eq!((held(ms), released(ms)), (ms, None), "{ms}");
        }
    }

    #[test]
    fn commands_that_set_an_expiry_set_it_held() {
        let rows = [
            ("PEXPIREAT k 1700000000000", "PEXPIREAT k 1127599906842624"),
            (
                "pexpireat k 1700000000000 GT",
                "pexpireat k 1127599906842624",
            ),
            ("EXPIREAT k 1700000000", "PEXPIREAT k 1127599906842624"),
            ("EXPIRE k 10 NX", "PEXPIRE k 1125899906852624"),
            ("PEXPIRE k 10", "PEXPIRE k 1125899906842634"),
            ("SETEX k 10 v", "PSETEX k 1125899906852624 v"),
            ("PSETEX k 10 v", "PSETEX k 1125899906842634 v"),
            (
                "SET k v PXAT 1700000000000",
                "SET k v PXAT 1127599906842624",
            ),
            (
                "SET k v nx exat 1700000000 GET",
                "SET k v nx PXAT 1127599906842624 GET",
            ),
            ("SET k v EX 10", "SET k v PX 1125899906852624"),
            ("SET k EX PX 10", "SET k EX PX 1125899906842634"),
            ("GETEX k EX 10", "GETEX k PX 1125899906852624"),
            (
                "RESTORE k 1700000000000 payload REPLACE ABSTTL",
                "RESTORE k 1127599906842624 payload REPLACE ABSTTL",
            ),
            ("RESTORE k 10 payload", "RESTORE k 1125899906842634 payload"),
        ];
        for (given, want) in rows {
            let words: Vec<&[u8]> = given.split(' ').map(str::as_bytes).collect();
            let held = command(&words).unwrap_or_else(|| panic!("{given}: sets none"));
            assert_eq!(held.join(&b' '), want.as_bytes(), "{given}");
        }
    }

    #[test]
    fn other_commands_stay_as_they_are() {
        let rows = [
            "SET k v",
            "SET k v KEEPTTL",
            "SET k PX",
            "SET k PX 10",
            "PERSIST k",
            "GETEX k PERSIST",
            "RESTORE k 0 payload",
            "PEXPIREAT k never",
            "EXPIRE k 9223372036854775807",
            "PEXPIREAT k",
            "RPUSH l EX 10",
            "HPEXPIREAT h 1700000000000 FIELDS 1 f",
            "SETEX",
            "",
        ];
        for given in rows {
            let words: Vec<&[u8]> = given.split(' ').map(str::as_bytes).collect();
            assert_eq!(command(&words), None, "{given}");
        }
        assert_eq!(command(&[]), None);
    }
}
