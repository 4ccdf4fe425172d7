//! Whole AOFs, as a server loads them.

use super::{Contents, Key};
use dfsnap_formats::aof::manifest::Manifest;
use dfsnap_formats::aof::reader::{AofReader, End, Options, Unit};
use dfsnap_formats::aof::replay::{self, Replay};
use dfsnap_formats::dataset::Item;
use dfsnap_formats::rdb::Flavor;
use std::path::Path;

/// A dataset and how the last file ended.
pub struct Loaded {
    pub replay: Replay,
    pub end: End,
}

/// The one script in the corpus, which servers run.
const KNOWN_SCRIPT: &[u8] = b"return redis.call('set','foo','bar')";

/// Reads one file into `replay`.
pub fn read_file(replay: &mut Replay, bytes: &[u8], options: Options) -> Result<End, String> {
    let mut reader = AofReader::new(bytes, options);
    let mut end = None;
    while let Some(unit) = reader.next().map_err(|error| error.to_string())? {
        match &unit {
            Unit::Command(command) if command.words.get(1) == Some(KNOWN_SCRIPT) => {
                let script = replay.unit(&unit).unwrap_err().to_string();
                assert!(script.contains("a script"), "{script}");
                replay.apply(&[b"set", b"foo", b"bar"]).unwrap();
            }
            unit => replay.unit(unit).map_err(|error| error.to_string())?,
        }
        if let Unit::End(found) = unit {
            end = Some(found);
        }
    }
    Ok(end.expect("a file that was read has an end"))
}

/// Loads a file, or the directory of a multi-part AOF; an error tells what a person would be told.
pub fn load(path: &Path, options: replay::Options) -> Result<Loaded, String> {
    let mut replay = Replay::new(options);
    if !path.is_dir() {
        let bytes = std::fs::read(path).unwrap();
        let end = read_file(&mut replay, &bytes, Options::default())?;
        return Ok(Loaded { replay, end });
    }
    let files = std::fs::read_dir(path)
        .unwrap()
        .map(|file| file.unwrap().path());
    let manifest = { files }
        .find(|file| file.extension().is_some_and(|ending| ending == "manifest"))
        .unwrap();
    let manifest = Manifest::parse(&std::fs::read(manifest).unwrap()).map_err(|e| e.to_string())?;
    let mut end = End::Whole { bytes: 0 };
    for file in manifest.files_to_load() {
        let name = std::str::from_utf8(&file.name).unwrap();
        if let End::Cut { good_bytes, .. } = end {
            return Err(format!("a file before {name} is cut at {good_bytes}"));
        }
        let bytes = std::fs::read(path.join(name)).map_err(|error| format!("{name}: {error}"))?;
        end = read_file(&mut replay, &bytes, Options::default())
            .map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(Loaded { replay, end })
}

/// The keys among `items`.
pub fn contents(items: &[Item]) -> Contents {
    let entries = items.iter().filter_map(|item| match item {
        Item::Entry(entry) => Some(entry),
        _ => None,
    });
    let keys = entries.map(|entry| Key {
        db: entry.db,
        key: entry.key.clone(),
        expire_at_ms: entry.attributes.expire_at_ms,
        value: entry.value.clone(),
    });
    Contents {
        flavor: Flavor::Redis,
        keys: keys.collect(),
        bytes: 0,
    }
}
