//! Items go through other formats and come back as they were.

#[path = "support/arbitrary.rs"]
mod arbitrary;

use arbitrary::{entry, item, same, value};
use dfsnap_formats::dataset::{Entry, Item};
use dfsnap_formats::encoding::stream::StreamId;
use dfsnap_formats::json::{JsonReader, Options};
use dfsnap_formats::value::Value;
use proptest::prelude::*;

proptest! {
    #[test]
    fn items_come_back_from_json(item in item()) {
        let text = serde_json::to_string(&item).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Item>(&text).unwrap(), &item);
        // It is the shape of the module `json`, whose reader takes it as it is.
        let mut reader = JsonReader::new(text.as_bytes(), Options::default());
        prop_assert_eq!(reader.next().unwrap(), Some(item));
    }

    #[test]
    fn items_come_back_from_a_tree(item in item()) {
        let tree = serde_json::to_value(&item).unwrap();
        // The tree orders members by name.
        let again = serde_json::from_value::<Item>(tree).unwrap();
        prop_assert!(same(&again, &item), "got {:?}\nwant {:?}", again, item);
    }

    #[test]
    fn items_come_back_from_message_pack(item in item()) {
        let bytes = rmp_serde::to_vec(&item).unwrap();
        prop_assert_eq!(&rmp_serde::from_slice::<Item>(&bytes).unwrap(), &item);
        let named = rmp_serde::to_vec_named(&item).unwrap();
        prop_assert_eq!(rmp_serde::from_slice::<Item>(&named).unwrap(), item);
    }

    #[test]
    fn entries_and_values_stand_alone(entry in entry(), value in value()) {
        let text = serde_json::to_string(&entry).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Entry>(&text).unwrap(), &entry);
        let bytes = rmp_serde::to_vec(&entry).unwrap();
        prop_assert_eq!(&rmp_serde::from_slice::<Entry>(&bytes).unwrap(), &entry);
        let text = serde_json::to_string(&value).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), &value);
        let bytes = rmp_serde::to_vec(&value).unwrap();
        prop_assert_eq!(&rmp_serde::from_slice::<Value>(&bytes).unwrap(), &value);
    }

    #[test]
    fn damaged_message_pack_is_an_error_or_another_item(item in item(), at: prop::sample::Index, byte: u8) {
        let mut bytes = rmp_serde::to_vec(&item).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = rmp_serde::from_slice::<Item>(&bytes);
        prop_assert!(rmp_serde::from_slice::<Item>(&bytes[..at]).is_err());
    }
}

#[test]
fn what_a_value_must_not_be_is_refused_in_every_format() {
    let rows = [
        (
            r#"{"type":"set","value":["a","a"]}"#,
            r#"set: "a" is there twice"#,
        ),
        (
            r#"{"type":"set","value":[]}"#,
            "set: wanted at least one element, found 0",
        ),
        (
            r#"{"type":"zset","value":{"a":"nan"}}"#,
            "zset score: wanted a number",
        ),
        (r#"{"type":"tree","value":1}"#, "type: wanted string, list"),
        (
            r#"{"type":"string"}"#,
            "item: wanted a member value, found \"none\"",
        ),
        (r#"[]"#, "item: wanted an object"),
    ];
    for (text, message) in rows {
        let error = serde_json::from_str::<Value>(text).unwrap_err().to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
    let twice = ("Set", (None::<String>, [("a", None::<i64>), ("a", None)]));
    let twice = std::collections::BTreeMap::from([twice]);
    let bytes = rmp_serde::to_vec(&twice).unwrap();
    let error = rmp_serde::from_slice::<Value>(&bytes)
        .unwrap_err()
        .to_string();
    assert_eq!(error, r#"set: "a" is there twice"#);
}

#[test]
fn ids_are_text_for_people_and_numbers_for_machines() {
    let id = StreamId::new(17, u64::MAX);
    let text = serde_json::to_string(&id).unwrap();
    assert_eq!(text, "\"17-18446744073709551615\"");
    assert_eq!(serde_json::from_str::<StreamId>(&text).unwrap(), id);
    let bytes = rmp_serde::to_vec(&id).unwrap();
    assert_eq!(rmp_serde::from_slice::<StreamId>(&bytes).unwrap(), id);
}
