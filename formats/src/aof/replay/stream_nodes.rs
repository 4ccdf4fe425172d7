//! Streams on their way from stored nodes to maps, and back.

use super::streams::{Consumer, Group, Pairs, Pending, Stream};
use crate::encoding::listpack::{Element, Listpack};
use crate::encoding::stream::{FLAG_SAME_FIELDS, StreamId};
use crate::value::{PendingEntry, StreamConsumer, StreamGroup, StreamValue};

/// What a server holds after loading the value.
pub fn of_value(value: &StreamValue) -> Stream {
    let entries = value.entries().map(|entry| {
        let pairs = entry.pairs();
        let pairs: Pairs = pairs
            .map(|(field, value)| (field.to_vec(), value.to_vec()))
            .collect();
        (entry.id, pairs)
    });
    let groups = value
        .groups
        .iter()
        .map(|group| (group.name.clone(), of_group(group)));
    Stream {
        entries: entries.collect(),
        last_id: value.last_id,
        max_deleted_id: value.max_deleted_id,
        entries_added: value.entries_added,
        groups: groups.collect(),
        idempotence: value.idempotence.clone(),
    }
}

fn of_group(group: &StreamGroup) -> Group {
    let consumers = group.consumers.iter().map(|consumer| {
        let known = Consumer {
            seen_at_ms: consumer.seen_at_ms,
            active_at_ms: consumer.active_at_ms,
        };
        (consumer.name.clone(), known)
    });
    let pending = group.pending.iter().filter_map(|entry| {
        let consumer = group.consumers.get(entry.consumer as usize)?;
        let pending = Pending {
            consumer: consumer.name.clone(),
            delivered_at_ms: entry.delivered_at_ms,
            deliveries: entry.deliveries,
        };
        Some((entry.id, pending))
    });
    Group {
        last_id: group.last_id,
        entries_read: group.entries_read,
        pending: pending.collect(),
        consumers: consumers.collect(),
    }
}

pub fn into_value(stream: Stream) -> StreamValue {
    let first_id = stream
        .entries
        .first_key_value()
        .map_or(StreamId::MIN, |(id, _)| *id);
    StreamValue {
        length: stream.entries.len() as u64,
        last_id: stream.last_id,
        first_id,
        max_deleted_id: stream.max_deleted_id,
        entries_added: stream.entries_added,
        idempotence: stream.idempotence,
        groups: stream.groups.into_iter().map(into_group).collect(),
        nodes: nodes(stream.entries.into_iter()),
    }
}

fn into_group((name, group): (Vec<u8>, Group)) -> StreamGroup {
    let names: Vec<&Vec<u8>> = group.consumers.keys().collect();
    let pending = group.pending.iter().filter_map(|(id, entry)| {
        Some(PendingEntry {
            id: *id,
            delivered_at_ms: entry.delivered_at_ms,
            deliveries: entry.deliveries,
            consumer: names.binary_search(&&entry.consumer).ok()? as u32,
        })
    });
    StreamGroup {
        name,
        last_id: group.last_id,
        entries_read: group.entries_read,
        pending: pending.collect(),
        consumers: group
            .consumers
            .iter()
            .map(|(name, consumer)| StreamConsumer {
                name: name.clone(),
                seen_at_ms: consumer.seen_at_ms,
                active_at_ms: consumer.active_at_ms,
            })
            .collect(),
    }
}

/// As servers pack them unless told otherwise.
const NODE_ENTRIES_MAX: usize = 100;
const NODE_BYTES_MAX: usize = 4096;

fn nodes(entries: impl Iterator<Item = (StreamId, Pairs)>) -> Vec<(StreamId, Listpack)> {
    let mut nodes = Vec::new();
    let mut node: Vec<(StreamId, Pairs)> = Vec::new();
    let mut bytes = 0;
    for (id, pairs) in entries {
        let more: usize = pairs
            .iter()
            .map(|(field, value)| field.len() + value.len())
            .sum();
        if node.len() == NODE_ENTRIES_MAX || !node.is_empty() && bytes + more > NODE_BYTES_MAX {
            nodes.extend(pack(&node));
            node.clear();
            bytes = 0;
        }
        bytes += more;
        node.push((id, pairs));
    }
    nodes.extend(pack(&node));
    nodes
}

/// One node; None without entries. Its id is that of the first entry, whose fields are the master's.
fn pack(node: &[(StreamId, Pairs)]) -> Option<(StreamId, Listpack)> {
    let (master, fields) = node.first()?;
    let int = |number: usize| Element::Int(number as i64);
    let mut pack = Listpack::new();
    pack.push_back(int(node.len()));
    pack.push_back(int(0));
    pack.push_back(int(fields.len()));
    for (field, _) in fields {
        pack.push_back(Element::parse(field));
    }
    pack.push_back(int(0));
    for (id, pairs) in node {
        let names = pairs.iter().map(|(field, _)| field);
        let is_same = names.eq(fields.iter().map(|(field, _)| field));
        pack.push_back(Element::Int(if is_same { FLAG_SAME_FIELDS } else { 0 }));
        pack.push_back(Element::Int(id.ms.wrapping_sub(master.ms) as i64));
        pack.push_back(Element::Int(id.seq.wrapping_sub(master.seq) as i64));
        if !is_same {
            pack.push_back(int(pairs.len()));
        }
        for (field, value) in pairs {
            if !is_same {
                pack.push_back(Element::parse(field));
            }
            pack.push_back(Element::parse(value));
        }
        let elements = if is_same {
            pairs.len() + 3
        } else {
            2 * pairs.len() + 4
        };
        pack.push_back(int(elements));
    }
    Some((*master, pack))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::stream::check_node;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nodes_hold_the_entries(
            entries in prop::collection::btree_map(
                any::<(u64, u64)>(),
                prop::collection::vec((0u8..3, "[a-z0-9]{0,40}"), 1..4),
                0..300,
            ),
        ) {
            let stream = Stream {
                entries: entries
                    .into_iter()
                    .map(|((ms, seq), pairs)| {
                        let pairs = pairs.into_iter().map(|(field, value)| (vec![field], value.into_bytes()));
                        (StreamId::new(ms, seq), pairs.collect())
                    })
                    .collect(),
                ..Stream::default()
            };
            let want = stream.entries.clone();
            let value = into_value(stream);
            for (id, pack) in &value.nodes {
                prop_assert!(check_node(*id, pack.as_bytes()).is_ok());
            }
            prop_assert_eq!(of_value(&value).entries, want);
        }
    }
}
