//! What `decode` refuses, what it skips, and what it normalizes, one claim a row.

use dfsnap_formats::encoding::intset::Intset;
use dfsnap_formats::encoding::listpack::{Element, Listpack};
use dfsnap_formats::encoding::stream::StreamId;
use dfsnap_formats::error::Damage;
use dfsnap_formats::rdb::decode::{DecodeLimits, decode};
use dfsnap_formats::rdb::{Flavor, type_code, writer};
use dfsnap_formats::value::{HashValue, ListNode, SetValue, Value, ZSetValue, list_elements};

fn redis(code: u8, raw: &[u8]) -> Result<Option<Value>, Damage> {
    decode(Flavor::Redis, code, raw, &DecodeLimits::default())
}

/// A listpack as a stored string.
fn pack(texts: &[&str]) -> Vec<u8> {
    let pack: Listpack = texts.iter().map(|text| text.as_bytes()).collect();
    blob(pack.as_bytes())
}

fn blob(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    writer::raw_string(&mut out, bytes, None);
    out
}

fn zset_2(members: &[(&str, f64)]) -> Vec<u8> {
    let mut out = vec![members.len() as u8];
    for (member, score) in members {
        writer::string(&mut out, member.as_bytes(), None);
        writer::double(&mut out, *score);
    }
    out
}

const EMPTY_ZIPLIST: &[u8] = b"\x0b\0\0\0\x0a\0\0\0\0\0\xff";

#[test]
fn empty_collections_are_skipped_in_every_type() {
    let ziplist = blob(EMPTY_ZIPLIST);
    let rows: [(u8, Vec<u8>); 18] = [
        (type_code::LIST, vec![0]),
        (type_code::SET, vec![0]),
        (type_code::ZSET, vec![0]),
        (type_code::HASH, vec![0]),
        (type_code::ZSET_2, vec![0]),
        (type_code::LIST_ZIPLIST, ziplist.clone()),
        (type_code::ZSET_ZIPLIST, ziplist.clone()),
        (type_code::HASH_ZIPLIST, ziplist.clone()),
        (type_code::LIST_QUICKLIST, vec![0]),
        (type_code::LIST_QUICKLIST, [vec![1], ziplist].concat()),
        (type_code::HASH_LISTPACK, pack(&[])),
        (type_code::ZSET_LISTPACK, pack(&[])),
        (type_code::LIST_QUICKLIST_2, vec![0]),
        (
            type_code::LIST_QUICKLIST_2,
            [vec![1, 2], pack(&[])].concat(),
        ),
        (type_code::SET_LISTPACK, pack(&[])),
        (type_code::HASH_METADATA, vec![0; 9]),
        (type_code::HASH_LISTPACK_EX_PRE_GA, pack(&[])),
        (
            type_code::HASH_LISTPACK_EX,
            [vec![0; 8], pack(&[])].concat(),
        ),
    ];
    for (code, raw) in rows {
        assert_eq!(redis(code, &raw), Ok(None), "type {code}, {raw:?}");
    }
    assert_eq!(
        redis(type_code::STRING, &[0]),
        Ok(Some(Value::String(vec![])))
    );
    let stream = redis(type_code::STREAM, &[0, 0, 0, 0, 0]).unwrap().unwrap();
    assert_eq!(stream.count(), 0);
}

#[test]
fn damage_is_named() {
    let text_nan = [1, 1, b'm', 253];
    let text_bad = [1, 1, b'm', 3, b'1', b'.', b'x'];
    let late = [&[0xFF; 7][..], &[0x7F, 1, 2, 1, b'f', 1, b'v']].concat();
    let rows: [(&str, u8, Vec<u8>, &str); 24] = [
        (
            "set",
            type_code::SET,
            b"\x02\x01a\x01a".to_vec(),
            "\"a\" is there twice",
        ),
        (
            "set, text and integer",
            type_code::SET,
            b"\x02\xc0\x07\x017".to_vec(),
            "\"7\" is there twice",
        ),
        (
            "set, listpack",
            type_code::SET_LISTPACK,
            pack(&["x", "1", "x"]),
            "\"x\" is there twice",
        ),
        (
            "hash",
            type_code::HASH,
            b"\x02\x01f\x01a\x01f\x01b".to_vec(),
            "\"f\" is there twice",
        ),
        (
            "hash, listpack",
            type_code::HASH_LISTPACK,
            pack(&["f", "a", "f", "b"]),
            "\"f\" is there twice",
        ),
        (
            "hash, odd",
            type_code::HASH_LISTPACK,
            pack(&["f", "a", "g"]),
            "wanted an even number of elements, found 3",
        ),
        (
            "zset",
            type_code::ZSET_2,
            zset_2(&[("m", 1.0), ("m", 2.0)]),
            "\"m\" is there twice",
        ),
        (
            "zset, NaN",
            type_code::ZSET_2,
            zset_2(&[("m", f64::NAN)]),
            "wanted a number, found \"nan\"",
        ),
        (
            "zset, NaN as text",
            type_code::ZSET,
            text_nan.to_vec(),
            "wanted a number, found \"nan\"",
        ),
        (
            "zset, rubbish",
            type_code::ZSET,
            text_bad.to_vec(),
            "offset 3: zset score: wanted a number, found \"1.x\"",
        ),
        (
            "zset, packed rubbish",
            type_code::ZSET_LISTPACK,
            pack(&["m", "1.5x"]),
            "wanted a number, found \"1.5x\"",
        ),
        (
            "zset, packed nan",
            type_code::ZSET_LISTPACK,
            pack(&["m", "nan"]),
            "wanted a number, found \"nan\"",
        ),
        (
            "zset, odd",
            type_code::ZSET_LISTPACK,
            pack(&["m", "1", "n"]),
            "wanted an even number",
        ),
        (
            "intset, empty",
            type_code::SET_INTSET,
            blob(Intset::new().as_bytes()),
            "wanted 1, found 0",
        ),
        (
            "listpack of no bytes",
            type_code::SET_LISTPACK,
            vec![0],
            "in the blob: offset 0",
        ),
        (
            "container",
            type_code::LIST_QUICKLIST_2,
            b"\x01\x03\x01x".to_vec(),
            "wanted container 1 (plain) or 2 (packed), found 3",
        ),
        (
            "plain node, empty",
            type_code::LIST_QUICKLIST_2,
            b"\x01\x01\x00".to_vec(),
            "list, plain node: wanted 1, found 0",
        ),
        (
            "triples",
            type_code::HASH_LISTPACK_EX,
            [vec![0; 8], pack(&["f", "v"])].concat(),
            "wanted a multiple of three",
        ),
        (
            "no time",
            type_code::HASH_LISTPACK_EX,
            [vec![0; 8], pack(&["f", "v", "x"])].concat(),
            "wanted an expiry in milliseconds, or 0, found \"x\"",
        ),
        (
            "time before 1970",
            type_code::HASH_LISTPACK_EX,
            [vec![0; 8], pack(&["f", "v", "-1"])].concat(),
            "found \"-1\"",
        ),
        (
            "time too late",
            type_code::HASH_METADATA,
            late,
            "wanted a time that fits 63 bits",
        ),
        (
            "count beyond the bytes",
            type_code::SET,
            vec![0x81, 0, 0, 0, 1, 0, 0, 0, 0],
            "wanted 4294967296 bytes, 0 left",
        ),
        (
            "bytes behind",
            type_code::STRING,
            b"\x01ab".to_vec(),
            "offset 2: bytes behind the value: wanted 0, found 1",
        ),
        (
            "unknown type",
            8,
            vec![0],
            "wanted a type of value, found 8",
        ),
    ];
    for (name, code, raw, want) in rows {
        let error = redis(code, &raw).expect_err(name).to_string();
        assert!(error.contains(want), "{name}: {error}");
    }
}

/// A stream of one entry with one group; the group's pending entry, the consumers and their entries are as given.
fn stream(pending: &[u64], consumers: &[(&str, &[u64])]) -> Vec<u8> {
    let mut out = vec![1];
    writer::raw_string(&mut out, &StreamId::new(5, 0).to_bytes(), None);
    out.extend(pack(&["1", "0", "1", "f", "0", "2", "0", "0", "v", "4"]));
    out.extend([1, 5, 0]);
    out.extend([1, 1, b'g', 5, 0, pending.len() as u8]);
    for ms in pending {
        writer::stream_id(&mut out, *ms, 0);
        writer::millis(&mut out, 1000);
        out.push(1);
    }
    out.push(consumers.len() as u8);
    for (name, ids) in consumers {
        writer::string(&mut out, name.as_bytes(), None);
        writer::millis(&mut out, 2000);
        out.push(ids.len() as u8);
        ids.iter()
            .for_each(|ms| writer::stream_id(&mut out, *ms, 0));
    }
    out
}

#[test]
fn pending_entries_have_exactly_one_owner() {
    let sound = redis(
        type_code::STREAM,
        &stream(&[5, 3], &[("a", &[5]), ("b", &[3])]),
    );
    let Ok(Some(Value::Stream(value))) = sound else {
        panic!("{sound:?}")
    };
    let group = &value.groups[0];
    let pending: Vec<_> = group
        .pending
        .iter()
        .map(|entry| (entry.id.ms, entry.consumer))
        .collect();
    assert_eq!(pending, [(3, 1), (5, 0)]);
    assert_eq!(
        (group.entries_read, value.entries_added, value.first_id.ms),
        (1, 1, 5)
    );
    assert_eq!(group.consumers[0].active_at_ms, 2000);

    let rows = [
        (
            "nobody's",
            stream(&[5], &[]),
            "wanted a consumer that owns it, found \"5-0\"",
        ),
        (
            "of two",
            stream(&[5], &[("a", &[5]), ("b", &[5])]),
            "wanted an entry that no other consumer owns",
        ),
        (
            "not of the group",
            stream(&[], &[("a", &[5])]),
            "wanted an entry that is pending in the group",
        ),
        (
            "twice",
            stream(&[5, 5], &[("a", &[5])]),
            "\"5-0\" is there twice",
        ),
        (
            "consumer twice",
            stream(&[], &[("a", &[]), ("a", &[])]),
            "\"a\" is there twice",
        ),
    ];
    for (name, raw, want) in rows {
        let error = redis(type_code::STREAM, &raw).expect_err(name).to_string();
        assert!(error.contains(want), "{name}: {error}");
    }
    let no_nodes = redis(type_code::STREAM, &[0, 7, 0, 0, 0]).unwrap_err();
    assert!(
        no_nodes.to_string().contains("wanted 7, found 0"),
        "{no_nodes}"
    );
}

#[test]
fn old_forms_become_packs_of_sane_size() {
    let mut long = Vec::new();
    writer::len(&mut long, 30_001);
    for i in 0..30_000 {
        writer::string(&mut long, i.to_string().as_bytes(), None);
    }
    writer::raw_string(&mut long, &[b'x'; 20_000], None);
    let Ok(Some(Value::List(nodes))) = redis(type_code::LIST, &long) else {
        panic!("no list")
    };
    assert_eq!(list_elements(&nodes).count(), 30_001);
    assert!(nodes.len() > 10 && nodes.len() < 40, "{}", nodes.len());
    for node in &nodes[..nodes.len() - 1] {
        let ListNode::Packed(pack) = node else {
            panic!("{node:?}")
        };
        assert!(pack.byte_len() <= DecodeLimits::default().list_node_bytes);
    }
    assert_eq!(nodes.last(), Some(&ListNode::Plain(vec![b'x'; 20_000])));

    let zipmap = blob(b"\x01\x01f\x02\x0042\xff");
    let want: Listpack = [&b"f"[..], b"42"].into_iter().collect();
    let hash = redis(type_code::HASH_ZIPMAP, &zipmap).unwrap();
    assert_eq!(hash, Some(Value::Hash(HashValue::Listpack(want))));
}

#[test]
fn packs_out_of_order_come_as_members_and_fields() {
    let sorted = redis(
        type_code::ZSET_LISTPACK,
        &pack(&["b", "1", "c", "1", "a", "2.5"]),
    )
    .unwrap();
    assert!(matches!(sorted, Some(Value::ZSet(ZSetValue::Listpack(_)))));
    let turned = redis(type_code::ZSET_LISTPACK, &pack(&["c", "1", "b", "1"])).unwrap();
    let want = ZSetValue::Members(vec![(b"c".to_vec(), 1.0), (b"b".to_vec(), 1.0)]);
    assert_eq!(turned, Some(Value::ZSet(want)));

    let expiring = |texts: &[&str]| {
        let raw = [vec![0; 8], pack(texts)].concat();
        redis(type_code::HASH_LISTPACK_EX, &raw).unwrap().unwrap()
    };
    let sorted = expiring(&["f", "v", "5", "g", "w", "6", "h", "x", "0"]);
    assert!(matches!(sorted, Value::Hash(HashValue::ListpackEx(_))));
    let turned = expiring(&["f", "v", "0", "g", "w", "6"]);
    let Value::Hash(hash @ HashValue::Fields(_)) = &turned else {
        panic!("{turned:?}")
    };
    let expiries: Vec<_> = hash.fields().map(|field| field.expire_at_ms).collect();
    assert_eq!(expiries, [None, Some(6)]);
}

#[test]
fn type_22_depends_on_the_magic() {
    let mut valkey = b"\x02\x01f\x01v".to_vec();
    writer::millis(&mut valkey, -1);
    valkey.extend(b"\x01g\x01w");
    writer::millis(&mut valkey, 77);
    let value = decode(
        Flavor::Valkey,
        type_code::HASH_22,
        &valkey,
        &DecodeLimits::default(),
    );
    let Ok(Some(Value::Hash(hash))) = value else {
        panic!("{value:?}")
    };
    let expiries: Vec<_> = hash.fields().map(|field| field.expire_at_ms).collect();
    assert_eq!(expiries, [None, Some(77)]);
    let redis = redis(type_code::HASH_22, b"\x02\x00\x01f\x01v\x40\x4d\x01g\x01w").unwrap();
    assert_eq!(redis, Some(Value::Hash(hash)));
}

#[test]
fn duplicates_of_large_collections_are_left_to_a_loader_that_asks_for_it() {
    let limits = DecodeLimits {
        check_duplicates: false,
        ..DecodeLimits::default()
    };
    let value = decode(Flavor::Redis, type_code::SET, b"\x02\x01a\x01a", &limits).unwrap();
    let members = vec![b"a".to_vec(), b"a".to_vec()];
    assert_eq!(value, Some(Value::Set(SetValue::Members(members))));
    let packed = pack(&["x", "x"]);
    assert!(decode(Flavor::Redis, type_code::SET_LISTPACK, &packed, &limits).is_err());
}

#[test]
fn members_read_the_same_in_every_form() {
    let texts = [&b"1"[..], b"2", b"30"];
    let mut intset = Intset::new();
    texts.iter().for_each(|text| {
        intset.insert(std::str::from_utf8(text).unwrap().parse().unwrap());
    });
    let forms = [
        SetValue::Intset(intset),
        SetValue::Listpack(texts.into_iter().collect()),
        SetValue::Members(texts.iter().map(|text| text.to_vec()).collect()),
    ];
    for form in forms {
        let members: Vec<_> = form.members().map(Element::to_vec).collect();
        assert_eq!(members, texts, "{form:?}");
        assert_eq!(form.len(), 3);
    }
}

/// It used to be taken as a time before 1970, which no other form of a hash can hold: written for another version the
/// value did not load. Found by fuzzing.
#[test]
fn negative_expiry_of_valkey_is_damage() {
    let raw = |at_ms: i64| [&b"\x01\x01f\x01v"[..], &at_ms.to_le_bytes()].concat();
    let limits = DecodeLimits::default();
    for (at_ms, is_sound) in [
        (-1, true),
        (0, true),
        (5, true),
        (-2, false),
        (i64::MIN, false),
    ] {
        let value = decode(Flavor::Valkey, type_code::HASH_22, &raw(at_ms), &limits);
        assert_eq!(value.is_ok(), is_sound, "{at_ms}: {value:?}");
    }
}

/// Bytes behind an empty collection passed, since nothing was made of it. Found by fuzzing.
#[test]
fn bytes_behind_an_empty_collection_are_damage() {
    let limits = DecodeLimits::default();
    assert_eq!(
        decode(Flavor::Redis, type_code::SET, &[0], &limits),
        Ok(None)
    );
    assert!(decode(Flavor::Redis, type_code::SET, &[0, 7], &limits).is_err());
}
