//! Values made of loose elements are as sound as those that were stored: they can be stored, and read with every check.

#[path = "support/arbitrary.rs"]
mod arbitrary;

use arbitrary::{Meaning, ids, meaning, value};
use dfsnap_formats::assemble::{StreamBuilder, StreamCounters};
use dfsnap_formats::encoding::stream::{StreamId, check_node};
use dfsnap_formats::rdb::decode::decode;
use dfsnap_formats::rdb::encode::encode;
use dfsnap_formats::rdb::target::Target;
use dfsnap_formats::value::Value;
use proptest::prelude::*;

proptest! {
    #[test]
    fn values_can_be_stored_and_read_with_every_check(value in value()) {
        // Their bytes are opaque, and those here are made up.
        prop_assume!(!matches!(value, Value::Sketch(_)));
        // Redis' forms have no expiry before 1970, nor can a server come to one.
        let before_1970 = match meaning(&value) {
            Meaning::Hash(fields) => fields.values().any(|(_, at_ms)| at_ms.is_some_and(|at_ms| at_ms < 0)),
            Meaning::Set(members) => members.values().any(|at_ms| at_ms.is_some_and(|at_ms| at_ms < 0)),
            _ => false,
        };
        prop_assume!(!before_1970);
        for target in [Target::of_version(12).unwrap(), Target::VALKEY_9, Target::DRAGONFLY] {
            let mut stored = Vec::new();
            // What the version does not know at all.
            let Ok(code) = encode(&value, target, &mut stored, None) else {
                continue;
            };
            let again = decode(target.flavor(), code, &stored, &Default::default());
            let again = again.map_err(|damage| TestCaseError::fail(damage.to_string()))?;
            prop_assert_eq!(again.map(|value| value.kind()), Some(value.kind()));
        }
    }

    #[test]
    fn streams_of_any_length_are_cut_into_sound_nodes(ids in ids(), widths in prop::collection::vec(0usize..300, 3)) {
        let mut stream = StreamBuilder::default();
        let texts = |index: usize| {
            let value = "v".repeat(widths[index % widths.len()]);
            let field = if index.is_multiple_of(7) { "other" } else { "field" };
            vec![field.as_bytes().to_vec(), value.into_bytes()]
        };
        for (index, id) in ids.iter().enumerate() {
            stream.push(*id, &texts(index)).unwrap();
        }
        let value = stream.finish(&StreamCounters::default(), Vec::new(), None).unwrap();
        let Value::Stream(stream) = &value else { panic!("{value:?}") };
        for (master, pack) in &stream.nodes {
            let summary = check_node(*master, pack.as_bytes()).unwrap();
            prop_assert!((1..=100).contains(&summary.live));
            prop_assert_eq!(summary.first_live, Some(*master));
        }
        let Meaning::Stream(entries, ..) = meaning(&value) else { panic!("{value:?}") };
        let want: Vec<_> = ids.iter().enumerate().map(|(index, id)| (*id, texts(index))).collect();
        prop_assert_eq!(entries, want);
        prop_assert_eq!(stream.last_id, ids.last().copied().unwrap_or(StreamId::MIN));
    }
}
