//! The levels at which a value can be read say the same: as data, in parts, and in parts of one that is never whole.
//!
//! Runs over the golden dumps, and over the corpus where it lies beside the workspace.

mod support;

use dfsnap_formats::encoding::listpack::Element;
use dfsnap_formats::error::Damage;
use dfsnap_formats::parts::Part;
use dfsnap_formats::rdb::decode::DecodeLimits;
use dfsnap_formats::rdb::large::Next;
use dfsnap_formats::rdb::parts::{Duplicates, PartWalk};
use dfsnap_formats::rdb::reader::{KeyRecord, Options, RdbError, RdbReader, Record};
use dfsnap_formats::value::{StreamValue, Value};
use std::io::{self, Read};
use std::path::PathBuf;
use support::Random;

/// Golden dumps, and those of the corpus.
fn dumps() -> Vec<(PathBuf, Vec<u8>)> {
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

fn text(element: Element<'_>) -> String {
    element.to_vec().escape_ascii().to_string()
}

/// Parts as text. The pieces of a string become one.
#[derive(Default, PartialEq, Debug)]
struct Shown {
    string: Option<Vec<u8>>,
    parts: Vec<String>,
}

impl Shown {
    fn take(&mut self, part: Part<'_>) {
        let shown = match part {
            Part::Bytes(bytes) => {
                let string = self.string.get_or_insert_default();
                return string.extend_from_slice(bytes);
            }
            Part::ListElement(element) => text(element),
            Part::SetMember {
                member,
                expire_at_ms,
            } => format!("{} {expire_at_ms:?}", text(member)),
            Part::HashField(field) => format!(
                "{} {} {:?}",
                text(field.field),
                text(field.value),
                field.expire_at_ms
            ),
            Part::ZSetMember { member, score } => {
                format!("{} {:016x}", text(member), score.to_bits())
            }
            Part::StreamEntry(entry) => {
                let pairs = entry.pairs();
                let pairs: Vec<_> = pairs.map(|(f, v)| (text(f), text(v))).collect();
                format!("{} {pairs:?}", entry.id)
            }
            Part::StreamEnd(stream) => {
                let end = StreamValue {
                    nodes: Vec::new(),
                    ..stream.clone()
                };
                format!("{end:?}")
            }
            Part::Whole(value) => format!("{value:?}"),
        };
        self.parts.push(shown);
    }

    fn of(value: Option<Value>) -> Shown {
        let mut shown = Shown::default();
        if let Some(value) = value {
            let done: Result<(), Damage> = value.for_each_part(|part| {
                shown.take(part);
                Ok(())
            });
            done.unwrap();
        }
        shown
    }
}

fn in_parts(walk: &mut PartWalk, key: &KeyRecord<'_>) -> Result<Shown, RdbError> {
    let mut shown = Shown::default();
    walk.value(key.flavor, key.type_code, key.value, |part| {
        shown.take(part);
        Ok(())
    })
    .map_err(|damage: Damage| key.damaged(damage))?;
    Ok(shown)
}

#[test]
fn parts_of_a_value_are_those_of_its_data() {
    let mut walk = PartWalk::new(Duplicates::Find);
    let limits = DecodeLimits::default();
    let mut keys = 0;
    for (path, bytes) in dumps() {
        let mut reader = RdbReader::new(&bytes[..], Options::default());
        while let Ok(Some(record)) = reader.next() {
            let Record::Key(key) = record else { continue };
            keys += 1;
            let name = || format!("{}: {}", path.display(), key.key.escape_ascii());
            match (key.decode(&limits), in_parts(&mut walk, &key)) {
                (Ok(value), Ok(parts)) => assert_eq!(parts, Shown::of(value), "{}", name()),
                (Err(_), Err(_)) => {}
                (Ok(_), Err(error)) => panic!("{}: damaged in parts: {error}", name()),
                (Err(error), Ok(_)) => panic!("{}: in parts it passes: {error}", name()),
            }
        }
    }
    assert!(keys > 10, "{keys} keys");
}

/// Whoever only checks a value and does not unpack what is compared with nothing meets the same damage, also where a byte is another one.
#[test]
fn checks_find_what_reading_finds() {
    /// Of each dump the first.
    const KEYS_MAX: usize = 150;
    let mut walk = PartWalk::new(Duplicates::Find);
    let mut random = Random(7);
    let (mut sound, mut damaged) = (0, 0);
    for (path, bytes) in dumps() {
        let mut reader = RdbReader::new(&bytes[..], Options::default());
        let mut seen = 0;
        while let Ok(Some(record)) = reader.next() {
            let Record::Key(key) = record else { continue };
            seen += 1;
            if seen > KEYS_MAX {
                break;
            }
            let turns = match key.value.len() {
                ..300 => 8,
                300..20_000 => 3,
                _ => 1,
            };
            for turn in 0..turns {
                let mut value = key.value.to_vec();
                if turn > 0 && !value.is_empty() {
                    let at = random.below(value.len());
                    value[at] = random.below(256) as u8;
                }
                let key = KeyRecord {
                    value: &value,
                    ..key.clone()
                };
                let read = in_parts(&mut walk, &key);
                let checked = walk.check(key.flavor, key.type_code, key.value);
                let name = || format!("{}: {}, {turn}", path.display(), key.key.escape_ascii());
                match (read, checked) {
                    (Ok(shown), Ok(counts)) => {
                        let parts = shown.parts.len() + usize::from(shown.string.is_some());
                        assert_eq!(counts.parts, parts as u64, "{}", name());
                        sound += 1;
                    }
                    (Err(read), Err(checked)) => {
                        assert_eq!(
                            key.damaged(checked).to_string(),
                            read.to_string(),
                            "{}",
                            name()
                        );
                        damaged += 1;
                    }
                    (read, checked) => panic!("{}: {read:?}, {checked:?}", name()),
                }
            }
        }
    }
    assert!(sound > 100 && damaged > 100, "{sound} and {damaged}");
}

/// What a file comes to when no value of more than `limit` bytes is read as a whole.
fn stream(source: impl Read, limit: usize) -> Result<Vec<(Vec<u8>, Shown)>, RdbError> {
    let mut reader = RdbReader::new(source, Options::default());
    let mut walk = PartWalk::new(Duplicates::Find);
    let mut keys = Vec::new();
    let mut large = None;
    loop {
        if let Some((name, mut shown)) = large.take() {
            let result = reader.large_parts(&mut walk, |part| {
                Shown::take(&mut shown, part);
                Ok(())
            });
            match result {
                Ok(()) => keys.push((name, shown)),
                Err(RdbError::Io { .. }) => large = Some((name, shown)),
                Err(error) => return Err(error),
            }
            continue;
        }
        match reader.next_within(limit) {
            Ok(Some(Next::Record(Record::Key(key)))) => {
                keys.push((key.key.to_vec(), in_parts(&mut walk, &key)?));
            }
            Ok(Some(Next::Record(_))) => {}
            Ok(Some(Next::Large(key))) => large = Some((key.key.to_vec(), Shown::default())),
            Ok(None) => return Ok(keys),
            Err(RdbError::Io { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Has nothing to give every other time, then few bytes.
struct Stutter<'a>(&'a [u8], bool, usize);

impl Read for Stutter<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let step = self.2.min(out.len()) as u64;
        (&mut self.0).take(step).read(out)
    }
}

#[test]
fn values_in_a_stream_have_the_parts_of_whole_ones() {
    for (path, bytes) in dumps() {
        let whole = stream(&bytes[..], usize::MAX);
        for limit in [0, 1, 20, 300] {
            if bytes.len() > 300_000 && limit != 300 {
                continue;
            }
            let step = if bytes.len() > 20_000 { 4099 } else { 7 };
            let streamed = stream(Stutter(&bytes, false, step), limit);
            match (&whole, &streamed) {
                (Ok(whole), Ok(streamed)) => {
                    assert_eq!(whole.len(), streamed.len(), "{}", path.display());
                    for (whole, streamed) in whole.iter().zip(streamed) {
                        assert!(
                            whole == streamed,
                            "{}, limit {limit}: {}",
                            path.display(),
                            whole.0.escape_ascii()
                        );
                    }
                }
                (Err(_), Err(_)) => {}
                (Ok(_), Err(error)) => panic!("{}, limit {limit}: {error}", path.display()),
                (Err(error), Ok(_)) => {
                    panic!("{}, limit {limit}: passes: {error}", path.display())
                }
            }
        }
    }
}

/// Keys with their stored values, put together from pieces where they are larger than `limit`.
type Stored = Vec<(Vec<u8>, Vec<u8>)>;

fn stored(bytes: &[u8], limit: usize, skip: bool) -> Result<Stored, RdbError> {
    let mut reader = RdbReader::new(bytes, Options::default());
    let mut keys = Vec::new();
    while let Some(next) = reader.next_within(limit)? {
        match next {
            Next::Record(Record::Key(key)) => keys.push((key.key.to_vec(), key.value.to_vec())),
            Next::Record(_) => {}
            Next::Large(key) => {
                keys.push((key.key.to_vec(), Vec::new()));
                if !skip {
                    let value = &mut keys.last_mut().unwrap().1;
                    reader.large_bytes(|piece| {
                        value.extend_from_slice(piece);
                        Ok::<(), RdbError>(())
                    })?;
                }
            }
        }
    }
    Ok(keys)
}

#[test]
fn stored_bytes_come_whole_in_pieces_or_not_at_all() {
    for (path, bytes) in dumps() {
        let whole = stored(&bytes, usize::MAX, false);
        let pieces = stored(&bytes, 10, false);
        let skipped = stored(&bytes, 10, true);
        match (whole, pieces, skipped) {
            (Ok(whole), Ok(pieces), Ok(skipped)) => {
                assert!(whole == pieces, "{}", path.display());
                for ((name, value), (skipped, rest)) in whole.iter().zip(&skipped) {
                    assert_eq!(name, skipped, "{}", path.display());
                    assert!(rest.is_empty() || value == rest, "{}", path.display());
                }
            }
            (Err(_), Err(_), Err(_)) => {}
            (whole, pieces, skipped) => panic!(
                "{}: {:?}, {:?}, {:?}",
                path.display(),
                whole.err(),
                pieces.err(),
                skipped.err()
            ),
        }
    }
}

#[test]
fn damage_is_noticed_at_every_level() {
    let mut random = Random(0x1E7E1);
    let limits = DecodeLimits::default();
    let mut walk = PartWalk::new(Duplicates::Find);
    for (path, bytes) in dumps() {
        let turns = match bytes.len() {
            0 => 0,
            1..50_000 => 20,
            _ => 1,
        };
        for _ in 0..turns {
            let mut damaged = bytes.clone();
            let at = random.below(bytes.len());
            damaged[at] ^= 1 << random.below(8);
            let mut reader = RdbReader::new(&damaged[..], Options::default());
            while let Ok(Some(record)) = reader.next() {
                let Record::Key(key) = record else { continue };
                let decoded = key.decode(&limits);
                let parts = in_parts(&mut walk, &key);
                assert_eq!(
                    decoded.is_ok(),
                    parts.is_ok(),
                    "{}, byte {at}: {:?}, {:?}",
                    path.display(),
                    decoded.err(),
                    parts.err()
                );
            }
            // In a stream it must only come to an end.
            let _ = stream(&damaged[..], 16);
        }
    }
}
