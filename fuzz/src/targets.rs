//! What is fuzzed: every parser, and what must hold of all that it accepts.
//!
//! The fuzzer calls these with bytes that it finds, and `formats/tests/mutation.rs` with damaged copies of real files.

use dfsnap_formats::aof::manifest::Manifest;
use dfsnap_formats::aof::reader::{AofReader, End, Unit};
use dfsnap_formats::aof::{reader, replay};
use dfsnap_formats::commands::Commands;
use dfsnap_formats::dfs::manifest::Manifest as SetManifest;
use dfsnap_formats::dfs::reader::{DfsReader, Options as DfsOptions};
use dfsnap_formats::encoding::intset::Intset;
use dfsnap_formats::encoding::listpack::{Element, Listpack};
use dfsnap_formats::encoding::stream::{StreamId, check_node};
use dfsnap_formats::encoding::ziplist::{self, Ziplist};
use dfsnap_formats::encoding::zipmap::Zipmap;
use dfsnap_formats::error::Damage;
use dfsnap_formats::json::{
    Buffer, JsonError, JsonReader, Options as JsonOptions, Writer, WriterOptions,
};
use dfsnap_formats::lzf::{Expander, LzfEncoder, expand};
use dfsnap_formats::rdb::Flavor;
use dfsnap_formats::rdb::decode::{DecodeLimits, decode};
use dfsnap_formats::rdb::dump::Payload;
use dfsnap_formats::rdb::encode::encode;
use dfsnap_formats::rdb::large::Next;
use dfsnap_formats::rdb::lenient::{LenientReader, Salvaged};
use dfsnap_formats::rdb::loss;
use dfsnap_formats::rdb::parts::{Duplicates, PartWalk};
use dfsnap_formats::rdb::push::{PushReader, Pushed};
use dfsnap_formats::rdb::reader::{Options, RdbError, RdbReader, Record};
use dfsnap_formats::rdb::stored::for_each_stored;
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::resp::{FrameDecoder, FrameLimits, RequestDecoder};
use dfsnap_formats::value::Value;

/// Takes any bytes; panics only if something does not hold that must.
type Check = fn(&[u8]);

pub const TARGETS: &[(&str, Check)] = &[
    ("rdb", rdb),
    ("rdb-lenient", rdb_lenient),
    ("value", value),
    ("dump", dump),
    ("listpack", listpack),
    ("ziplist", ziplist),
    ("zipmap", zipmap),
    ("intset", intset),
    ("stream-node", stream_node),
    ("lzf", lzf),
    ("request", request),
    ("frame", frame),
    ("aof", aof),
    ("manifest", manifest),
    ("dfs", dfs),
    ("dfs-lenient", dfs_lenient),
    ("dfs-manifest", dfs_manifest),
    ("json", json),
];

/// A whole file: pulled, pushed, and with large values in pieces, it has the same keys.
pub fn rdb(data: &[u8]) {
    let pulled = keys(data);
    let mut reader = RdbReader::new(data, Options::default());
    let mut streamed = Vec::new();
    let mut walk = PartWalk::new(Duplicates::Find);
    while let Ok(Some(next)) = reader.next_within(40) {
        match next {
            Next::Record(Record::Key(key)) => streamed.push(key.key.to_vec()),
            Next::Record(_) => {}
            Next::Large(key) => {
                streamed.push(key.key.to_vec());
                let taken: Result<(), RdbError> = reader.large_parts(&mut walk, |_| Ok(()));
                if matches!(taken, Err(error) if !matches!(error, RdbError::Value { .. })) {
                    break;
                }
            }
        }
    }
    // A value that breaks off has a key when it comes in pieces.
    assert!(streamed.starts_with(&pulled), "{streamed:?} {pulled:?}");
    let mut reader = PushReader::new(Options::default());
    let mut pushed = Vec::new();
    'pieces: for piece in data.chunks(1 + data.len() / 3) {
        reader.feed(piece);
        loop {
            match reader.next(usize::MAX) {
                Ok(Pushed::Found(Next::Record(Record::Key(key)))) => pushed.push(key.key.to_vec()),
                Ok(Pushed::Found(_)) => {}
                Ok(Pushed::Hungry) => break,
                Ok(Pushed::End) | Err(_) => break 'pieces,
            }
        }
    }
    assert_eq!(pulled, pushed);
}

/// The keys up to the first error; every value is looked at in all ways.
fn keys(data: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = RdbReader::new(data, Options::default());
    let mut keys = Vec::new();
    while let Ok(Some(record)) = reader.next() {
        if let Record::Key(key) = record {
            all_ways(key.flavor, key.type_code, key.value);
            keys.push(key.key.to_vec());
        }
    }
    keys
}

pub fn rdb_lenient(data: &[u8]) {
    let mut reader = LenientReader::new(data, Options::default());
    let mut at = 0;
    while let Ok(Some(salvaged)) = reader.next() {
        if let Salvaged::Skipped(skipped) = salvaged {
            assert!(
                at <= skipped.to && skipped.from <= skipped.to,
                "{at} {skipped:?}"
            );
        }
        assert!(reader.offset() >= at);
        at = reader.offset();
    }
}

/// A stored value: two bytes choose flavor and type.
pub fn value(data: &[u8]) {
    if let [flavor, code, raw @ ..] = data {
        let flavor = match flavor % 3 {
            0 => Flavor::Redis,
            1 => Flavor::Valkey,
            _ => Flavor::Dragonfly,
        };
        all_ways(flavor, *code, raw);
    }
}

/// Decoded, in parts and in pieces; and what was decoded is stored again for every target.
fn all_ways(flavor: Flavor, code: u8, raw: &[u8]) {
    let limits = DecodeLimits::default();
    let decoded = decode(flavor, code, raw, &limits);
    let mut parts = 0u64;
    let walked = PartWalk::new(Duplicates::Find).value(flavor, code, raw, |_| {
        parts += 1;
        Ok::<(), Damage>(())
    });
    assert_eq!(
        decoded.is_ok(),
        walked.is_ok(),
        "type {code}: {decoded:?}, {walked:?}"
    );
    let _ = for_each_stored(flavor, code, raw, |_| Ok::<(), Damage>(()));
    let Ok(Some(value)) = decoded else { return };
    let mut again = 0;
    let counted: Result<(), ()> = value.for_each_part(|_| {
        again += 1;
        Ok(())
    });
    assert_eq!((counted, again), (Ok(()), parts), "type {code}");
    for version in [6, 7, 9, 10, 12, 80] {
        let target = Target::of_version(version).expect("a version that is written");
        stored_again(&value, target);
    }
    stored_again(&value, Target::DRAGONFLY);
}

fn stored_again(value: &Value, target: Target) {
    let Some(kept) = loss::without(value, target) else {
        return;
    };
    let mut stored = Vec::new();
    let code = match encode(&kept, target, &mut stored, Some(&mut LzfEncoder::new())) {
        Ok(code) => code,
        Err(error) => panic!("{target}: {error}: {kept:?}"),
    };
    let back = decode(target.flavor(), code, &stored, &DecodeLimits::default());
    match back {
        Ok(Some(back)) => assert_eq!(back.count(), kept.count(), "{target}: {kept:?}"),
        other => panic!("{target}, type {code}: {other:?} of {kept:?}"),
    }
}

pub fn dump(data: &[u8]) {
    if let Ok(payload) = Payload::parse(data, 12) {
        let _ = payload.decode(&DecodeLimits::default());
    }
    // What the checksum keeps from being looked at.
    if let Some((body, _)) = data.split_last_chunk::<10>() {
        let mut sealed = body.to_vec();
        dfsnap_formats::rdb::dump::seal(&mut sealed, 12);
        if let Ok(payload) = Payload::parse(&sealed, 12) {
            let _ = payload.decode(&DecodeLimits::default());
        }
    }
}

pub fn listpack(data: &[u8]) {
    if let Ok(pack) = Listpack::from_bytes(data.to_vec()) {
        let forwards: Vec<_> = pack.iter().map(Element::to_vec).collect();
        let mut backwards: Vec<_> = pack.iter().rev().map(Element::to_vec).collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
        assert_eq!(pack.len(), forwards.len());
    }
}

pub fn ziplist(data: &[u8]) {
    if let Ok(list) = Ziplist::new(data) {
        let texts: Vec<_> = list.iter().map(Element::to_vec).collect();
        let again = ziplist::pack(list.iter());
        let again = Ziplist::new(&again).expect("what we pack is sound");
        assert_eq!(again.iter().map(Element::to_vec).collect::<Vec<_>>(), texts);
    }
}

pub fn zipmap(data: &[u8]) {
    if let Ok(map) = Zipmap::new(data) {
        assert_eq!(map.iter().count(), map.len());
    }
}

pub fn intset(data: &[u8]) {
    if let Ok(set) = Intset::from_bytes(data.to_vec()) {
        assert!(set.iter().all(|number| set.contains(number)));
    }
}

pub fn stream_node(data: &[u8]) {
    let _ = check_node(StreamId::new(5, 5), data);
}

/// Two bytes are the announced length.
pub fn lzf(data: &[u8]) {
    let Some((len, packed)) = data.split_first_chunk::<2>() else {
        return;
    };
    let len = usize::from(u16::from_le_bytes(*len));
    let mut whole = Vec::new();
    let at_once = expand(packed, len, &mut whole).is_ok();
    let mut expander = Expander::new(packed.len() as u64, len as u64);
    let mut pieces = Vec::new();
    let mut in_pieces = true;
    for piece in packed.chunks(7) {
        match expander.expand(piece) {
            Ok(bytes) => pieces.extend_from_slice(bytes),
            Err(_) => in_pieces = false,
        }
        if !in_pieces {
            break;
        }
    }
    in_pieces &= expander.finish().is_ok();
    // A length that no input can have is refused at once only where all the bytes are there.
    if at_once {
        assert!(in_pieces && whole == pieces);
    }
    let mut packed_again = Vec::new();
    if LzfEncoder::new().compress(data, data.len(), &mut packed_again) {
        let mut back = Vec::new();
        expand(&packed_again, data.len(), &mut back).expect("what we pack expands");
        assert_eq!(back, data);
    }
}

pub fn request(data: &[u8]) {
    let mut decoder = RequestDecoder::new(1 << 20);
    let mut rest = data;
    while let Ok(Some(size)) = decoder.decode(rest) {
        assert!(size > 0 && size <= rest.len());
        for word in decoder.words(rest) {
            std::hint::black_box(word);
        }
        rest = &rest[size..];
    }
}

pub fn frame(data: &[u8]) {
    let mut decoder = FrameDecoder::new(FrameLimits::default());
    let mut rest = data;
    while let Ok(Some((frame, size))) = decoder.decode(rest) {
        std::hint::black_box(&frame);
        assert!(size > 0 && size <= rest.len());
        rest = &rest[size..];
    }
}

/// A file of commands, strict and lenient: every byte is in a unit or a hole, and what the commands come to can be said
/// in commands again.
pub fn aof(data: &[u8]) {
    for lenient in [false, true] {
        let options = reader::Options {
            lenient,
            ..Default::default()
        };
        let mut reader = AofReader::new(data, options);
        let mut replay = replay::Replay::new(replay::Options {
            now_ms: Some(1_700_000_000_000),
            string_bytes_max: 1 << 16,
            ..Default::default()
        });
        while let Ok(Some(unit)) = reader.next() {
            // What cannot be replayed is no reason to stop.
            let _ = replay.unit(&unit);
            if let Unit::End(End::Cut {
                good_bytes,
                cut_bytes,
                ..
            }) = unit
            {
                assert_eq!(good_bytes + cut_bytes, data.len() as u64);
            }
        }
        let mut again = replay::Replay::new(Default::default());
        let mut commands = Commands::new(Default::default());
        for item in replay.into_items() {
            let mut apply = |words: &[&[u8]]| again.apply(words).expect("commands of our own");
            // A foreign value has none.
            let _ = commands.item(&item, &mut apply);
        }
        assert_eq!(again.refused(), 0, "{:?}", again.last_refusal());
    }
}

/// What is taken is printed so that it reads back.
pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::parse(data)
        && manifest != Manifest::default()
    {
        // With its escapes a name may be longer than a line.
        if let Ok(text) = manifest.print() {
            assert_eq!(Manifest::parse(&text), Ok(manifest));
        }
    }
}

/// A file of a set: its values are looked at in all ways.
pub fn dfs(data: &[u8]) {
    let mut reader = DfsReader::new(data, dfs_options(false));
    while let Ok(Some(placed)) = reader.next() {
        if let Record::Key(key) = placed.record {
            all_ways(key.flavor, key.type_code, key.value);
        }
    }
}

pub fn dfs_lenient(data: &[u8]) {
    let mut reader = DfsReader::new(data, dfs_options(true));
    let mut at = 0;
    while let Ok(Some(_)) = reader.next() {
        assert!(reader.offset() >= at);
        at = reader.offset();
    }
}

/// Blobs that expand to less than the limit on memory under which the targets run.
fn dfs_options(lenient: bool) -> DfsOptions {
    DfsOptions {
        lenient,
        blob_bytes_max: 2 << 20,
        ..DfsOptions::default()
    }
}

pub fn dfs_manifest(data: &[u8]) {
    if let Ok(manifest) = SetManifest::parse(data) {
        let again = SetManifest::parse(manifest.to_json().as_bytes());
        assert_eq!(again.ok(), Some(manifest));
    }
}

/// Items that were read are written, and read again as the same.
pub fn json(data: &[u8]) {
    let mut reader = JsonReader::new(data, JsonOptions::default());
    let mut items = Vec::new();
    let mut failures = 0;
    while failures < 20 {
        match reader.next() {
            Ok(Some(item)) => items.push(item),
            Ok(None) => break,
            Err(JsonError::Item { .. }) => failures += 1,
            Err(_) => break,
        }
    }
    let mut writer = Writer::new(WriterOptions {
        encodings: true,
        ..WriterOptions::default()
    });
    let mut text = Buffer::new();
    items.iter().for_each(|item| writer.item(item, &mut text));
    writer.finish(&mut text);
    let mut reader = JsonReader::new(&text[..], JsonOptions::default());
    for item in items {
        match reader.next() {
            Ok(Some(again)) => assert_eq!(again, item),
            other => panic!("{other:?} instead of {item:?}"),
        }
    }
}
