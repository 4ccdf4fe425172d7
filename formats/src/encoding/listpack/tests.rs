//! Listpacks byte by byte, against a plain list, and damaged.

use super::*;
use proptest::prelude::*;

fn pack(texts: &[&[u8]]) -> Listpack {
    texts.iter().copied().collect()
}

fn texts(pack: &Listpack) -> Vec<Vec<u8>> {
    pack.iter().map(Element::to_vec).collect()
}

#[test]
fn entry_has_the_bytes_that_redis_writes() {
    let rows: &[(&str, &[u8], &[u8])] = &[
        ("0", b"0", &[0, 1]),
        ("127", b"127", &[0x7F, 1]),
        ("128 is 13 bit", b"128", &[0xC0, 0x80, 2]),
        ("-1 is 13 bit", b"-1", &[0xDF, 0xFF, 2]),
        ("-4096 is 13 bit", b"-4096", &[0xD0, 0, 2]),
        ("4095 is 13 bit", b"4095", &[0xCF, 0xFF, 2]),
        ("4096 is 16 bit", b"4096", &[0xF1, 0, 0x10, 3]),
        ("-32768 is 16 bit", b"-32768", &[0xF1, 0, 0x80, 3]),
        ("32768 is 24 bit", b"32768", &[0xF2, 0, 0x80, 0, 4]),
        ("-8388608 is 24 bit", b"-8388608", &[0xF2, 0, 0, 0x80, 4]),
        ("8388608 is 32 bit", b"8388608", &[0xF3, 0, 0, 0x80, 0, 5]),
        (
            "2^31 is 64 bit",
            b"2147483648",
            &[0xF4, 0, 0, 0, 0x80, 0, 0, 0, 0, 9],
        ),
        ("text", b"ab", &[0x82, b'a', b'b', 3]),
        ("empty text", b"", &[0x80, 1]),
        ("-0 is text", b"-0", &[0x82, b'-', b'0', 3]),
        ("007 is text", b"007", &[0x83, b'0', b'0', b'7', 4]),
    ];
    for (name, text, entry) in rows {
        let pack = pack(&[text]);
        assert_eq!(
            &pack.as_bytes()[HEADER..pack.byte_len() - 1],
            *entry,
            "{name}"
        );
        assert_eq!(texts(&pack), [text.to_vec()], "{name}");
    }
}

#[test]
fn backlen_width_is_strict_at_its_limits() {
    // 5 bytes of header make an entry of len + 5 bytes.
    let rows: &[(usize, &[u8])] = &[
        (16382, &[0x7F, 0xFE]),
        (16383, &[0x00, 0xFF, 0xFF]),
        (16384, &[0x01, 0x80, 0x80]),
        (2_097_150, &[0x7F, 0xFF, 0xFE]),
        (2_097_151, &[0x00, 0xFF, 0xFF, 0xFF]),
    ];
    for (size, backlen) in rows {
        let text = vec![b'x'; size - 5];
        let mut pack = pack(&[b"before", &text]);
        assert!(
            pack.as_bytes().ends_with(&[*backlen, &[END]].concat()),
            "{size}"
        );
        assert_eq!(check(pack.as_bytes()), Ok(2), "{size}");
        assert_eq!(pack.get(-2), Some(Element::Str(b"before")), "{size}");
        pack.delete_range(-1, 1);
        assert_eq!(texts(&pack), [b"before".to_vec()], "{size}");
    }
}

#[test]
fn count_is_unknown_from_65535_on_and_known_again_when_split() {
    let mut pack = Listpack::new();
    for number in 0..65534 {
        pack.push_back(Element::Int(number));
    }
    assert_eq!(pack.count(), 65534);
    pack.push_back(Element::Int(65534));
    assert_eq!((pack.count(), pack.len()), (COUNT_UNKNOWN, 65535));
    pack.push_back(Element::Int(65535));
    assert_eq!(pack.get(65535), Some(Element::Int(65535)));
    assert_eq!(pack.get(-65536), Some(Element::Int(0)));
    assert_eq!((pack.get(65536), pack.get(-65537)), (None, None));
    pack.delete_range(0, 6);
    assert_eq!((pack.count(), pack.len()), (COUNT_UNKNOWN, 65530));
    assert_eq!(check(pack.as_bytes()), Ok(65530));
    let tail = pack.split_off(30);
    assert_eq!((pack.count(), tail.count()), (30, 65500));
    pack.delete_range(0, 30);
    assert_eq!(pack, Listpack::new());
}

#[test]
fn damage_is_an_error_with_both_numbers() {
    let sound = pack(&[b"ab", b"300"]).into_bytes();
    let rows: &[(&str, usize, u8, &str)] = &[
        (
            "total",
            0,
            15,
            "offset 0: listpack total bytes: wanted 14, found 15",
        ),
        ("count", 4, 3, "offset 4: listpack count: wanted 2, found 3"),
        (
            "length",
            6,
            0x90,
            "offset 6: listpack element bytes: wanted 18, found 7",
        ),
        (
            "encoding",
            6,
            0xF5,
            "offset 6: listpack encoding byte, at most: wanted 244, found 245",
        ),
        (
            "backlen",
            9,
            4,
            "offset 9: listpack backlen: wanted 3, found 4",
        ),
        (
            "backlen bit",
            9,
            0x83,
            "offset 9: listpack backlen byte: wanted 3, found 131",
        ),
        (
            "end",
            13,
            0,
            "offset 13: listpack end byte: wanted 255, found 0",
        ),
    ];
    assert_eq!(sound.len(), 14);
    for (name, at, byte, message) in rows {
        let mut bytes = sound.clone();
        bytes[*at] = *byte;
        let error = Listpack::from_bytes(bytes).unwrap_err();
        assert_eq!(error.to_string(), *message, "{name}");
    }
    for len in 0..sound.len() {
        assert!(
            Listpack::from_bytes(sound[..len].to_vec()).is_err(),
            "cut at {len}"
        );
    }
}

#[test]
fn find_looks_only_at_its_stride() {
    let pack = pack(&[b"a", b"b", b"b", b"7", b"7", b"x"]);
    let first = pack.first().unwrap();
    let place = pack.find(first, b"b", 2).unwrap();
    assert_eq!(
        pack.prev(place).map(|place| pack.at(place)),
        Some(Element::Str(b"b"))
    );
    let place = pack.find(first, b"7", 2).unwrap();
    assert_eq!(
        pack.next(place).map(|place| pack.at(place)),
        Some(Element::Str(b"x"))
    );
    assert_eq!(pack.find(first, b"x", 2), None);
    assert_eq!(pack.find(first, b"07", 1), None);
    assert!(pack.find(first, b"x", 1).is_some());
}

#[derive(Debug, Clone)]
enum Op {
    Insert(usize, Vec<u8>),
    Replace(usize, Vec<u8>),
    Delete(usize, usize),
    SplitAppend(usize),
    SplitFront(usize),
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        (any::<i64>(), 0u32..64)
            .prop_map(|(number, shift)| (number >> shift).to_string().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..80),
        (4000usize..17000).prop_map(|len| vec![b'v'; len]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (any::<usize>(), text()).prop_map(|(at, text)| Op::Insert(at, text)),
        2 => (any::<usize>(), text()).prop_map(|(at, text)| Op::Replace(at, text)),
        2 => (any::<usize>(), 0usize..4).prop_map(|(at, count)| Op::Delete(at, count)),
        1 => any::<usize>().prop_map(Op::SplitAppend),
        1 => any::<usize>().prop_map(Op::SplitFront),
    ]
}

fn apply(op: &Op, pack: &mut Listpack, model: &mut Vec<Vec<u8>>) {
    let len = model.len();
    match op {
        Op::Insert(at, text) => {
            let at = at % (len + 1);
            let place = pack.seek(at as i64).unwrap_or(pack.end());
            pack.insert(place, Element::parse(text));
            model.insert(at, text.clone());
        }
        Op::Replace(at, text) if len > 0 => {
            let at = at % len;
            pack.replace(
                pack.seek(at as i64 - len as i64).unwrap(),
                Element::parse(text),
            );
            model[at] = text.clone();
        }
        Op::Delete(at, count) if len > 0 => {
            let at = at % len;
            pack.delete_range(at as i64, *count);
            model.drain(at..len.min(at + count));
        }
        Op::SplitAppend(at) => {
            let tail = pack.split_off(at % (len + 1));
            pack.append(&tail);
        }
        Op::SplitFront(at) => {
            let at = at % (len + 1);
            let mut tail = pack.split_off(at);
            tail.append(pack);
            *pack = tail;
            model.rotate_left(at);
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn any_operations_agree_with_a_vector(ops in prop::collection::vec(op(), 0..40)) {
        let mut pack = Listpack::new();
        let mut model: Vec<Vec<u8>> = Vec::new();
        for op in &ops {
            apply(op, &mut pack, &mut model);
            prop_assert_eq!(check(pack.as_bytes()), Ok(model.len()));
        }
        prop_assert_eq!(texts(&pack), model.clone());
        prop_assert_eq!(pack.len(), model.len());
        let backwards: Vec<_> = pack.iter().rev().map(Element::to_vec).collect();
        prop_assert!(backwards.iter().eq(model.iter().rev()));
        for (index, text) in model.iter().enumerate() {
            prop_assert!(pack.get(index as i64).unwrap().eq_bytes(text));
            prop_assert_eq!(pack.get(index as i64 - model.len() as i64).unwrap().text_len(), text.len());
        }
        // The same elements pushed in order are the same bytes: there is one form for each list.
        let again: Listpack = model.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(again, pack);
    }

    #[test]
    fn any_bytes_are_refused_or_readable(mut bytes in prop::collection::vec(any::<u8>(), 7..60)) {
        let total = bytes.len() as u32;
        bytes[..4].copy_from_slice(&total.to_le_bytes());
        bytes[4..6].copy_from_slice(&[0xFF, 0xFF]);
        *bytes.last_mut().unwrap() = END;
        if let Ok(pack) = Listpack::from_bytes(bytes) {
            let forwards = texts(&pack);
            let mut backwards: Vec<_> = pack.iter().rev().map(Element::to_vec).collect();
            backwards.reverse();
            prop_assert_eq!(forwards, backwards);
        }
    }

    #[test]
    fn any_damaged_byte_is_refused_or_readable(elements in prop::collection::vec(text(), 1..6), at in any::<usize>(), byte in any::<u8>()) {
        let pack: Listpack = elements.iter().map(Vec::as_slice).collect();
        let mut bytes = pack.into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(pack) = Listpack::from_bytes(bytes) {
            prop_assert_eq!(pack.iter().count(), pack.iter().rev().count());
        }
    }
}

#[test]
fn elements_of_every_form_are_passed_as_they_are_taken() {
    let long = vec![b'x'; 5000];
    let pack = pack(&[
        b"7",
        b"-1",
        b"4096",
        b"32768",
        b"8388608",
        b"2147483648",
        b"",
        &long[..63],
        &long[..64],
        &long[..4095],
        &long,
        b"127",
    ]);
    for count in 0..=pack.len() + 1 {
        let (mut passed, mut taken) = (pack.iter(), pack.iter());
        passed.pass(count);
        taken.by_ref().take(count).for_each(drop);
        assert_eq!(passed.pos(), taken.pos(), "{count}");
        assert!(passed.eq(taken), "{count}");
    }
}
