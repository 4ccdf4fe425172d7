//! Salvaging JSON: an item that is damaged is lost alone, text that is no items with all behind it.

use super::{Lost, Salvage};
use crate::check::Counted;
use crate::report::Failure;
use dfsnap_formats::json::{JsonError, JsonReader, Options};
use std::io::Read;
use std::path::Path;

pub(super) fn salvage(
    salvage: &mut Salvage,
    path: &Path,
    source: impl Read,
) -> Result<(), Failure> {
    let file = path.display().to_string();
    let mut counted = Counted::new(source);
    let mut reader = JsonReader::new(&mut counted, Options::default());
    let cut = loop {
        let from = reader.offset();
        match reader.next() {
            Ok(None) => return Ok(()),
            Ok(Some(item)) => salvage.item(&file, &item)?,
            Err(error @ JsonError::Io { .. }) => return Err(Failure::json(&file, &error)),
            Err(error @ JsonError::Item { .. }) => {
                let why = error.to_string();
                let lost = Lost::range(&file, from, reader.offset(), why);
                salvage.lost(match &error {
                    JsonError::Item { key: Some(key), .. } => lost.of_key(None, key),
                    _ => lost,
                });
            }
            Err(error) => break (from, error),
        }
    };
    drop(reader);
    let copied = std::io::copy(&mut counted, &mut std::io::sink());
    copied.map_err(|error| crate::check::unreadable(path, &error))?;
    let (from, why) = cut;
    salvage.lost(Lost::range(&file, from, counted.bytes, why.to_string()));
    Ok(())
}
