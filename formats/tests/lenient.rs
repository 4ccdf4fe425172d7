//! What a lenient reader gets out of damaged files, and what it says about the rest.

mod support;

use dfsnap_formats::rdb::lenient::{LenientReader, Salvaged};
use dfsnap_formats::rdb::reader::{Options, RdbReader, Record};
use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use support::Random;

#[derive(Debug, Clone, PartialEq)]
struct Key {
    range: Range<u64>,
    db: u32,
    key: Vec<u8>,
    type_code: u8,
    value: Vec<u8>,
}

impl Key {
    fn what(&self) -> (&[u8], u8, &[u8]) {
        (&self.key, self.type_code, &self.value)
    }
}

/// Everything that is sound of a file: its keys, and how many bytes were skipped.
struct Rescue {
    keys: Vec<Key>,
    skipped: Vec<Range<u64>>,
    covered: u64,
}

fn rescue(bytes: &[u8], options: Options) -> Option<Rescue> {
    let mut reader = LenientReader::new(bytes, options);
    let mut rescue = Rescue {
        keys: Vec::new(),
        skipped: Vec::new(),
        covered: 0,
    };
    loop {
        match reader.next() {
            Ok(Some(Salvaged::Record(Record::Key(key)))) => rescue.keys.push(Key {
                range: key.offset..key.value_offset + key.value.len() as u64,
                db: key.db,
                key: key.key.to_vec(),
                type_code: key.type_code,
                value: key.value.to_vec(),
            }),
            Ok(Some(Salvaged::Record(_))) => {}
            Ok(Some(Salvaged::Skipped(skipped))) => {
                assert!(skipped.from <= skipped.to, "{skipped:?}");
                rescue.skipped.push(skipped.from..skipped.to);
            }
            Ok(None) => break,
            Err(_) => return None,
        }
        assert!(reader.offset() >= rescue.covered, "it never goes back");
        rescue.covered = reader.offset();
    }
    Some(rescue)
}

fn files() -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths = support::golden_dumps();
    if let Some(corpus) = support::corpus::corpus() {
        paths.extend(support::rdb_files(&corpus));
    }
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn a_sound_file_loses_nothing() {
    for (path, bytes) in files() {
        let mut reader = RdbReader::new(&bytes[..], Options::default());
        let mut keys = 0;
        let strict = loop {
            match reader.next() {
                Ok(Some(Record::Key(key))) => match key.decode(&Default::default()) {
                    Ok(_) => keys += 1,
                    Err(_) => break false,
                },
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        if strict {
            let rescue = rescue(&bytes, Options::default()).unwrap();
            assert_eq!(rescue.keys.len(), keys, "{}", path.display());
            assert_eq!(rescue.skipped, [], "{}", path.display());
        }
    }
}

/// Runs of one byte, flipped bits and a cut, somewhere in the keys.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) -> Range<u64> {
    let at = random.below(bytes.len() - 1);
    let len = 1 + random.below(40).min(bytes.len() - at - 1);
    match random.below(4) {
        0 => bytes[at..at + len].fill(0),
        1 => bytes[at..at + len].fill(0xFF),
        2 => bytes[at..at + len]
            .iter_mut()
            .for_each(|byte| *byte ^= 0x55),
        _ => {
            let end = bytes.len() as u64;
            bytes.truncate(at);
            return at as u64..end;
        }
    }
    at as u64..(at + len) as u64
}

#[test]
fn damage_costs_what_it_touches_and_little_more() {
    let mut random = Random(0x5A1);
    let (mut behind, mut back) = (0, 0);
    for (path, bytes) in files() {
        let Some(sound) = rescue(&bytes, Options::default()) else {
            continue;
        };
        if !sound.skipped.is_empty() || sound.keys.is_empty() {
            continue;
        }
        for turn in 0..if bytes.len() > 100_000 { 1 } else { 4 } {
            let mut damaged = bytes.clone();
            let touched = damage(&mut damaged, &mut random);
            let options = Options {
                source_bytes: (turn % 2 == 0).then_some(damaged.len() as u64),
                ..Options::default()
            };
            let Some(rescue) = rescue(&damaged, options) else {
                assert!(touched.start < 9, "{}", path.display());
                continue;
            };
            let name = || format!("{}, damaged {touched:?}", path.display());
            let saved: HashSet<_> = rescue
                .keys
                .iter()
                .map(|key| (key.range.start, key.what()))
                .collect();
            let found: HashSet<_> = rescue.keys.iter().map(Key::what).collect();
            for key in &sound.keys {
                // A record before the damage may have gone with what stands between it and the key.
                if key.range.end <= touched.start {
                    let known = saved.contains(&(key.range.start, key.what()));
                    assert!(known, "{}: {key:?}", name());
                } else if key.range.start > touched.end {
                    behind += 1;
                    back += usize::from(found.contains(&key.what()));
                }
            }
            let last = rescue.skipped.last().map_or(0, |range| range.end);
            assert!(rescue.covered >= last, "{}", name());
        }
    }
    println!("{back} of {behind} keys behind the damage came back");
    assert!(back * 10 >= behind * 9, "{back} of {behind} came back");
}

#[test]
fn what_is_reported_and_what_is_handed_out_is_the_whole_file() {
    let mut random = Random(0xC0FE);
    for (path, bytes) in files() {
        if bytes.len() < 20 || bytes.len() > 200_000 {
            continue;
        }
        let mut damaged = bytes.clone();
        damage(&mut damaged, &mut random);
        if let Some(rescue) = rescue(&damaged, Options::default()) {
            let pairs = rescue.keys.iter();
            let pairs = pairs.flat_map(|key| rescue.skipped.iter().map(move |range| (key, range)));
            for (key, skipped) in pairs {
                let apart = key.range.end <= skipped.start || skipped.end <= key.range.start;
                assert!(apart, "{}: {key:?} in {skipped:?}", path.display());
            }
        }
    }
}
