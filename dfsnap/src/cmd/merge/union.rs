//! Collections of several dumps as one: all members, and where dumps differ in one, the rule for conflicts.

use super::OnConflict;
use crate::report::Failure;
use dfsnap_formats::dataset::Entry;
use dfsnap_formats::value::{HashField, HashValue, SetMember, SetValue, Value, ZSetValue};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;

/// What has been united so far.
pub(super) struct Unions {
    bytes_max: u64,
    bytes: u64,
    rule: OnConflict,
    keys: BTreeMap<(u32, Vec<u8>), United>,
}

struct United {
    /// Without its value; the expiry is that of the dump that counts.
    entry: Entry,
    members: Members,
}

enum Members {
    /// When each expires.
    Set(BTreeMap<Vec<u8>, Option<i64>>),
    Hash(BTreeMap<Vec<u8>, HashField>),
    ZSet(BTreeMap<Vec<u8>, f64>),
}

/// What a member takes beside its bytes, about.
const MEMBER_BYTES: u64 = 64;

impl Unions {
    pub(super) fn new(bytes_max: u64, rule: OnConflict) -> Self {
        Unions {
            bytes_max,
            bytes: 0,
            rule,
            keys: BTreeMap::new(),
        }
    }

    /// Adds the collection of another dump, the dumps in order.
    pub(super) fn add(&mut self, entry: Entry) -> Result<(), Failure> {
        let name = (entry.db, entry.key.clone());
        let (mut more, empty) = match &entry.value {
            Value::Set(set) => {
                let members = set_members(set);
                (Members::Set(members), Members::Set(BTreeMap::new()))
            }
            Value::Hash(hash) => (Members::Hash(fields(hash)), Members::Hash(BTreeMap::new())),
            Value::ZSet(zset) => {
                let members = zset
                    .members()
                    .map(|(member, score)| (member.to_vec(), score));
                (
                    Members::ZSet(members.collect()),
                    Members::ZSet(BTreeMap::new()),
                )
            }
            // Others are not asked to be united.
            _ => return Ok(()),
        };
        self.bytes += more.bytes();
        if self.bytes > self.bytes_max {
            return Err(Failure {
                message: format!(
                    "collections to unite take more than {} bytes of memory",
                    self.bytes_max
                ),
                advice: "raise --memory, or unite fewer keys at a time with --match".to_owned(),
            });
        }
        let newer = |known: &Entry| {
            let lives = |entry: &Entry| entry.attributes.expire_at_ms.unwrap_or(i64::MAX);
            lives(&entry) >= lives(known)
        };
        match self.keys.entry(name) {
            Place::Vacant(vacant) => {
                let mut members = empty;
                members.unite(&mut more, true);
                vacant.insert(United { entry, members });
            }
            Place::Occupied(mut known) => {
                let known = known.get_mut();
                let counts = match self.rule {
                    OnConflict::First | OnConflict::Error => false,
                    OnConflict::Last => true,
                    OnConflict::NewestExpiry => newer(&known.entry),
                };
                known.members.unite(&mut more, counts);
                if counts {
                    known.entry.attributes = entry.attributes;
                }
            }
        }
        Ok(())
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        self.keys.into_values().map(|united| Entry {
            value: united.members.into_value(),
            ..united.entry
        })
    }
}

fn set_members(set: &SetValue) -> BTreeMap<Vec<u8>, Option<i64>> {
    match set {
        SetValue::Expiring(members) => members
            .iter()
            .map(|member| (member.member.clone(), member.expire_at_ms))
            .collect(),
        set => set
            .members()
            .map(|member| (member.to_vec(), None))
            .collect(),
    }
}

fn fields(hash: &HashValue) -> BTreeMap<Vec<u8>, HashField> {
    hash.fields()
        .map(|field| {
            let owned = HashField {
                field: field.field.to_vec(),
                value: field.value.to_vec(),
                expire_at_ms: field.expire_at_ms,
            };
            (owned.field.clone(), owned)
        })
        .collect()
}

/// Moves members over; those that are there are replaced if the new ones count.
fn unite<T>(known: &mut BTreeMap<Vec<u8>, T>, more: &mut BTreeMap<Vec<u8>, T>, counts: bool) {
    for (name, member) in std::mem::take(more) {
        match known.entry(name) {
            Place::Vacant(vacant) => drop(vacant.insert(member)),
            Place::Occupied(mut place) if counts => drop(place.insert(member)),
            Place::Occupied(_) => {}
        }
    }
}

impl Members {
    fn unite(&mut self, more: &mut Members, counts: bool) {
        match (self, more) {
            (Members::Set(known), Members::Set(more)) => unite(known, more, counts),
            (Members::Hash(known), Members::Hash(more)) => unite(known, more, counts),
            (Members::ZSet(known), Members::ZSet(more)) => unite(known, more, counts),
            // The first pass saw one type only.
            _ => {}
        }
    }

    fn bytes(&self) -> u64 {
        let bytes: usize = match self {
            Members::Set(members) => members.keys().map(Vec::len).sum(),
            Members::ZSet(members) => members.keys().map(Vec::len).sum(),
            Members::Hash(fields) => fields
                .values()
                .map(|field| 2 * field.field.len() + field.value.len())
                .sum(),
        };
        bytes as u64 + self.len() * MEMBER_BYTES
    }

    fn len(&self) -> u64 {
        let len = match self {
            Members::Set(members) => members.len(),
            Members::Hash(fields) => fields.len(),
            Members::ZSet(members) => members.len(),
        };
        len as u64
    }

    fn into_value(self) -> Value {
        match self {
            Members::Set(members) if members.values().any(Option::is_some) => {
                let members = members.into_iter();
                let members = members.map(|(member, expire_at_ms)| SetMember {
                    member,
                    expire_at_ms,
                });
                Value::Set(SetValue::Expiring(members.collect()))
            }
            Members::Set(members) => Value::Set(SetValue::Members(members.into_keys().collect())),
            Members::Hash(fields) => Value::Hash(HashValue::Fields(fields.into_values().collect())),
            Members::ZSet(members) => {
                Value::ZSet(ZSetValue::Members(members.into_iter().collect()))
            }
        }
    }
}
