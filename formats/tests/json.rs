//! What is written as JSON comes back as it was: any item, every file of the corpus; and damage is an error.

#[path = "support/arbitrary.rs"]
mod arbitrary;
mod support;

use arbitrary::{items, same};
use dfsnap_formats::dataset::Item;
use dfsnap_formats::digest::{DatasetDigest, ScoreForm, key_digest};
use dfsnap_formats::error::Damage;
use dfsnap_formats::json::{Buffer, Form, JsonError, JsonReader, Options, Writer, WriterOptions};
use dfsnap_formats::parts::Head;
use dfsnap_formats::rdb::large::Next;
use dfsnap_formats::rdb::parts::PartWalk;
use dfsnap_formats::rdb::reader::{Options as RdbOptions, RdbReader};
use dfsnap_formats::rdb::record::{RdbError, Record};
use proptest::prelude::*;
use std::io::Read;
use std::path::PathBuf;
use support::Random;

fn written(items: &[Item], options: WriterOptions) -> Vec<u8> {
    let mut writer = Writer::new(options);
    let mut out = Buffer::new();
    items.iter().for_each(|item| writer.item(item, &mut out));
    writer.finish(&mut out);
    out.into()
}

/// The same through `begin`, `part`, `end`, as if values were larger than memory.
fn written_in_parts(items: &[Item], form: Form, piece: usize) -> Vec<u8> {
    use dfsnap_formats::parts::Part;
    let mut writer = Writer::new(WriterOptions {
        form,
        encodings: false,
    });
    let (mut out, mut drained) = (Buffer::new(), Vec::new());
    for item in items {
        match item {
            Item::Entry(entry) => {
                writer.begin(&entry.head());
                let parts = entry.value.for_each_part(|part| {
                    match part {
                        Part::Bytes(bytes) => bytes
                            .chunks(piece)
                            .for_each(|piece| writer.part(&Part::Bytes(piece), &mut out)),
                        part => writer.part(&part, &mut out),
                    }
                    drained.extend_from_slice(&out);
                    out.clear();
                    Ok::<(), ()>(())
                });
                parts.unwrap();
                writer.end(&mut out);
            }
            item => writer.item(item, &mut out),
        }
    }
    writer.finish(&mut out);
    drained.extend_from_slice(&out);
    drained
}

fn read_all(source: impl Read) -> Result<Vec<Item>, JsonError> {
    let mut reader = JsonReader::new(source, Options::default());
    let mut items = Vec::new();
    while let Some(item) = reader.next()? {
        items.push(item);
    }
    Ok(items)
}

/// Gives a few bytes at a time.
struct Dripping<'a>(&'a [u8], usize);

impl Read for Dripping<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let len = self.1.min(self.0.len()).min(into.len());
        let (now, later) = self.0.split_at(len);
        into[..len].copy_from_slice(now);
        self.0 = later;
        Ok(len)
    }
}

const FORMS: [Form; 2] = [Form::Lines, Form::Document];

fn check_same(got: &[Item], want: &[Item]) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        prop_assert!(same(got, want), "got {:?}\nwant {:?}", got, want);
    }
    Ok(())
}

proptest! {
    #[test]
    fn items_come_back(items in items()) {
        for form in FORMS {
            let text = written(&items, WriterOptions { form, encodings: false });
            let again = read_all(&text[..]);
            prop_assert!(again.is_ok(), "{}: {}", text.escape_ascii(), again.unwrap_err());
            check_same(&again.unwrap(), &items)?;
        }
    }

    #[test]
    fn with_encodings_values_come_back_in_the_same_form(items in items()) {
        let text = written(&items, WriterOptions { encodings: true, ..Default::default() });
        prop_assert_eq!(read_all(&text[..]).unwrap(), items);
    }

    #[test]
    fn parts_say_what_whole_values_say(items in items(), piece in 1usize..30) {
        for form in FORMS {
            let whole = written_in_parts(&items, form, usize::MAX);
            let plain = WriterOptions { form, encodings: false };
            // Only whole values tell their form where the sign of zero hangs on it.
            let plain = String::from_utf8(written(&items, plain)).unwrap();
            let plain = plain.replace(",\"encoding\":\"skiplist\"}", "}");
            let plain = plain.replace(",\"encoding\":\"listpack\"}", "}");
            prop_assert_eq!(String::from_utf8(whole).unwrap(), plain);
            let in_pieces = written_in_parts(&items, form, piece);
            check_same(&read_all(&in_pieces[..]).unwrap(), &items)?;
        }
    }

    #[test]
    fn every_line_is_json_for_others_too(items in items()) {
        for form in FORMS {
            let text = written(&items, WriterOptions { form, encodings: true });
            let values = serde_json::Deserializer::from_slice(&text).into_iter::<serde_json::Value>();
            for value in values {
                prop_assert!(value.is_ok(), "{}: {:?}", text.escape_ascii(), value);
            }
        }
        let lines = written(&items, WriterOptions::default());
        prop_assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), items.len());
    }

    #[test]
    fn any_cut_of_the_input_reads_alike(items in items(), step in 1usize..9) {
        for form in FORMS {
            let text = written(&items, WriterOptions { form, encodings: false });
            check_same(&read_all(Dripping(&text, step)).unwrap(), &items)?;
        }
    }

    #[test]
    fn damage_is_an_error_or_other_items(items in items(), cut: prop::sample::Index, at: prop::sample::Index, byte: u8) {
        for form in FORMS {
            let text = written(&items, WriterOptions { form, encodings: false });
            if text.is_empty() {
                continue;
            }
            let cut = cut.index(text.len());
            let short = read_all(&text[..cut]);
            if form == Form::Document && cut > 0 && cut + 1 < text.len() {
                prop_assert!(short.is_err(), "cut at {}", cut);
            }
            let mut damaged = text.clone();
            damaged[at.index(text.len())] = byte;
            let _ = read_all(&damaged[..]);
        }
    }
}

// The corpus.

/// Golden dumps, and those of the corpus where it is there.
fn dumps() -> Vec<PathBuf> {
    let mut paths = support::golden_dumps();
    if let Some(corpus) = support::corpus::corpus() {
        paths.extend(support::rdb_files(&corpus));
    }
    paths
}

fn read_rdb(bytes: &[u8]) -> Option<Vec<Item>> {
    let mut reader = RdbReader::new(bytes, RdbOptions::default());
    let mut items = Vec::new();
    while let Some(record) = reader.next().ok()? {
        items.extend(Item::of_record(&record, &Default::default()).ok()?);
    }
    Some(items)
}

fn digest(items: &[Item]) -> String {
    let mut dataset = DatasetDigest::default();
    for item in items {
        if let Item::Entry(entry) = item {
            let expires = entry.attributes.expire_at_ms.is_some();
            let key = key_digest(&entry.key, &entry.value, expires, ScoreForm::Short);
            dataset.add(entry.db, key);
        }
    }
    dataset.finish().to_string()
}

#[test]
fn every_dump_comes_back_through_lines_and_document() {
    let (mut files, mut count) = (0, 0);
    for path in dumps() {
        let Some(items) = read_rdb(&std::fs::read(&path).unwrap()) else {
            continue;
        };
        for (form, encodings) in [
            (Form::Lines, false),
            (Form::Lines, true),
            (Form::Document, false),
        ] {
            let text = written(&items, WriterOptions { form, encodings });
            let again = read_all(&text[..]).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert_eq!(again.len(), items.len(), "{}", path.display());
            for (got, want) in again.iter().zip(&items) {
                assert!(
                    same(got, want),
                    "{}:\n got {got:?}\nwant {want:?}",
                    path.display()
                );
            }
            assert_eq!(
                digest(&again),
                digest(&items),
                "{}, {form:?}, {encodings}",
                path.display()
            );
        }
        files += 1;
        count += items.len();
    }
    println!("{files} files, {count} items");
    assert!(files > 10, "{files} files");
}

const DAMAGE: &[u8] = b"\"\\{}[],:0-9eE. \n\x00\xff";

/// A dump as lines without any value in memory, and how many values were damaged.
fn lines_within(bytes: &[u8], value_bytes_max: usize) -> Option<(Vec<u8>, usize)> {
    let mut reader = RdbReader::new(bytes, RdbOptions::default());
    let mut writer = Writer::new(WriterOptions::default());
    let mut walk = PartWalk::default();
    let (mut out, mut damaged) = (Buffer::new(), 0);
    while let Some(next) = reader.next_within(value_bytes_max).ok()? {
        let key = match next {
            Next::Record(Record::Key(key)) => {
                writer.begin(&Head::of_key(&key));
                let parts = walk.value(key.flavor, key.type_code, key.value, |part| {
                    writer.part(&part, &mut out);
                    Ok::<(), Damage>(())
                });
                parts.is_ok()
            }
            Next::Large(key) => {
                writer.begin(&Head::of_key(&key));
                let parts = reader.large_parts(&mut walk, |part| {
                    writer.part(&part, &mut out);
                    Ok::<(), RdbError>(())
                });
                match parts {
                    Ok(()) => true,
                    Err(RdbError::Value { .. }) => false,
                    Err(_) => return None,
                }
            }
            Next::Record(record) => {
                let item = Item::of_record(&record, &Default::default()).ok()?;
                item.iter().for_each(|item| writer.item(item, &mut out));
                continue;
            }
        };
        match key {
            true => writer.end(&mut out),
            false => {
                writer.abandon(&mut out);
                damaged += 1;
            }
        }
    }
    writer.finish(&mut out);
    Some((out.into(), damaged))
}

#[test]
fn values_that_are_never_in_memory_come_back_and_damaged_ones_are_refused() {
    let (mut sound, mut damaged) = (0, 0);
    for path in dumps() {
        let bytes = std::fs::read(&path).unwrap();
        for limit in [0, 100] {
            let Some((text, wrong)) = lines_within(&bytes, limit) else {
                continue;
            };
            let mut reader = JsonReader::new(&text[..], Options::default());
            let (mut items, mut refused) = (Vec::new(), 0);
            loop {
                match reader.next() {
                    Ok(None) => break,
                    Ok(Some(item)) => items.push(item),
                    Err(JsonError::Item { damage, .. }) => {
                        assert_eq!(damage.reading, "item", "{}: {damage}", path.display());
                        refused += 1;
                    }
                    Err(error) => panic!("{}: {error}", path.display()),
                }
            }
            assert!(refused <= wrong, "{}: {refused} of {wrong}", path.display());
            if let Some(want) = read_rdb(&bytes) {
                assert_eq!((items.len(), wrong), (want.len(), 0), "{}", path.display());
                for (got, want) in items.iter().zip(&want) {
                    assert!(same(got, want), "{}", path.display());
                }
                sound += 1;
            }
            damaged += refused;
        }
    }
    println!("{sound} walks, {damaged} damaged values");
    assert!(sound > 20, "{sound} walks");
}

#[test]
fn damage_in_text_never_panics() {
    let mut random = Random(0x7E87);
    for path in dumps() {
        let bytes = std::fs::read(&path).unwrap();
        if bytes.len() > 20_000 {
            continue;
        }
        let Some(items) = read_rdb(&bytes) else {
            continue;
        };
        let text = written(
            &items,
            WriterOptions {
                form: Form::Document,
                encodings: true,
            },
        );
        let tries = if text.len() < 3000 { 60 } else { 8 };
        for _ in 0..tries {
            let cut = random.below(text.len() - 1);
            assert!(
                cut == 0 || read_all(&text[..cut]).is_err(),
                "{} cut at {cut}",
                path.display()
            );
            let mut damaged = text.clone();
            for _ in 0..=random.below(3) {
                damaged[random.below(text.len())] = DAMAGE[random.below(DAMAGE.len())];
            }
            let mut reader = JsonReader::new(&damaged[..], Options::default());
            // Goes on behind an item that is damaged, and ends.
            for _ in 0..items.len() + 2 {
                if let Ok(None) = reader.next() {
                    break;
                }
            }
        }
    }
}
