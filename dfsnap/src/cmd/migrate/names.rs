//! The names that keys of FROM get, for those that are there before changes are applied: so that none of them becomes another.
//!
//! They are asked for while changes go on. A key that was there at the position, and is gone by now, is met in the stream.

use crate::cmd::backup::scan;
use crate::live::client::Lost;
use crate::live::{Client, Url};
use crate::passage::Passage;
use crate::report::Failure;
use dfsnap_formats::resp::Frame;

/// Names asked for at once.
const BATCH: &str = "1000";

/// Takes note of all keys that pass; `beat` is called in between.
pub fn note(source: &Url, passage: &mut Passage, beat: &mut dyn FnMut()) -> Result<(), Failure> {
    let mut client = Client::connect(source)?;
    for (db, _) in scan::databases(&mut client, source)? {
        let advice = "a user that may use every database";
        client.ask(&["SELECT", &db.to_string()], advice)?;
        let mut cursor = b"0".to_vec();
        loop {
            beat();
            let (next, keys) = page(&mut client, &cursor)?;
            for key in keys.iter().filter_map(Frame::as_bytes) {
                let taken = passage.is_there(db, key);
                taken.map_err(|refused| Failure {
                    message: format!("{source}: {}", refused.why),
                    advice: refused.advice.to_owned(),
                })?;
            }
            cursor = next;
            if cursor == b"0" {
                break;
            }
        }
    }
    Ok(())
}

fn page(client: &mut Client, cursor: &[u8]) -> Result<(Vec<u8>, Vec<Frame>), Lost> {
    let words = [&b"SCAN"[..], cursor, b"COUNT", BATCH.as_bytes()];
    let reply = client.ask(&words, "a user with +scan, for --rename and --to-db")?;
    match reply {
        Frame::Array(parts) => match <[Frame; 2]>::try_from(parts) {
            Ok([Frame::Bulk(next), Frame::Array(keys)]) => Ok((next, keys)),
            _ => Err(strange(client)),
        },
        _ => Err(strange(client)),
    }
}

fn strange(client: &Client) -> Lost {
    client.lost(
        b"SCAN: an answer that no server gives",
        "is there a proxy in between? ask the server itself",
    )
}
