//! What is lost when a dataset is written for an older version or another product, and values without it.
//!
//! Converters ask first (`of_entry`), tell or refuse, and write what is left (`without`). Nothing is lost on the way
//! that is not in the list.

use super::Flavor;
use super::decode_dragonfly::EXPIRY_EPOCH_S;
use super::target::{Feature, Target};
use super::type_code;
use crate::dataset::{Entry, Item};
use crate::encoding::listpack::{Element, Listpack};
use crate::encoding::stream::StreamId;
use crate::value::{HashField, HashValue, ModuleValue, SetValue, StreamValue, Value};
use std::borrow::Cow;

/// Something that a target cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// The key: its type is not known there.
    Key(&'static str),
    /// When fields of a hash expire. The fields stay.
    FieldExpiry,
    /// When members of a set expire. The members stay.
    MemberExpiry,
    Function,
    ModuleAux,
    /// What keeps entries of a stream from being added twice.
    Idempotence,
    /// Metadata that modules attached to the key.
    KeyMetadata,
    /// That the key is exempt from eviction.
    Sticky,
    MemcachedFlags,
    /// Exactly when fields or members expire: Dragonfly counts whole seconds, from 2023 to 2159.
    ExpiryPrecision,
    /// How often and how long ago the key was used.
    AccessHint,
    /// Counters of a stream beyond its length and last id; readers estimate them.
    StreamCounters,
    /// When consumers last got something; readers take the time they last tried.
    ConsumerActivity,
}

impl Loss {
    /// Whether the dataset is another one without it. The others are hints and estimates.
    pub fn is_data(self) -> bool {
        !matches!(
            self,
            Loss::AccessHint | Loss::StreamCounters | Loss::ConsumerActivity
        )
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Loss::Key(what) => return write!(f, "the key: a {what} is not known there"),
            Loss::FieldExpiry => "when its fields expire",
            Loss::MemberExpiry => "when its members expire",
            Loss::Function => "a function library",
            Loss::ModuleAux => "data of a module beside the keys",
            Loss::Idempotence => "ids by which the stream knows entries that come again",
            Loss::KeyMetadata => "metadata of modules at the key",
            Loss::Sticky => "that it is exempt from eviction",
            Loss::MemcachedFlags => "memcached flags",
            Loss::ExpiryPrecision => "exactly when its fields or members expire",
            Loss::AccessHint => "when or how often it was used",
            Loss::StreamCounters => "counters of the stream",
            Loss::ConsumerActivity => "when consumers last got something",
        })
    }
}

/// What `target` cannot hold of an item.
pub fn of_item(item: &Item, target: Target) -> Vec<Loss> {
    let unless = |feature, loss| match target.knows(feature) {
        true => Vec::new(),
        false => vec![loss],
    };
    match item {
        Item::Entry(entry) => of_entry(entry, target),
        Item::Function { .. } => unless(Feature::Functions, Loss::Function),
        Item::ModuleAux { .. } => unless(Feature::ModuleAux, Loss::ModuleAux),
        // Written by those who know it, ignored by others.
        Item::Aux { .. } => Vec::new(),
    }
}

/// What `target` cannot hold of an entry. A key that is lost is the only loss.
///
/// ```
/// use dfsnap_formats::dataset::Entry;
/// use dfsnap_formats::rdb::{loss::{Loss, of_entry}, target::Target};
/// use dfsnap_formats::value::{StreamValue, Value};
/// let entry = Entry::new(0, b"events", Value::Stream(StreamValue::default()));
/// let redis_4 = Target::by_name("redis-4.0").unwrap();
/// assert_eq!(of_entry(&entry, redis_4), [Loss::Key("stream")]);
/// assert_eq!(of_entry(&entry, Target::default()), []);
/// ```
pub fn of_entry(entry: &Entry, target: Target) -> Vec<Loss> {
    let mut losses = of_value(&entry.value, target);
    if losses.iter().any(|loss| matches!(loss, Loss::Key(_))) {
        return losses;
    }
    let attributes = &entry.attributes;
    let hinted = attributes.idle_s.is_some() || attributes.freq.is_some();
    let is_dragonfly = target.flavor() == Flavor::Dragonfly;
    let more = [
        (attributes.meta_classes > 0, Loss::KeyMetadata),
        (attributes.sticky && !is_dragonfly, Loss::Sticky),
        (
            attributes.memcached_flags.is_some() && !is_dragonfly,
            Loss::MemcachedFlags,
        ),
        (
            hinted && !target.knows(Feature::AccessHints),
            Loss::AccessHint,
        ),
    ];
    losses.extend(
        more.into_iter()
            .filter_map(|(is_lost, loss)| is_lost.then_some(loss)),
    );
    losses
}

/// What `target` cannot hold of a value.
pub fn of_value(value: &Value, target: Target) -> Vec<Loss> {
    let is_dragonfly = target.flavor() == Flavor::Dragonfly;
    match value {
        Value::String(_) | Value::List(_) | Value::ZSet(_) => Vec::new(),
        Value::Set(SetValue::Expiring(members)) => {
            let expiries = members.iter().filter_map(|member| member.expire_at_ms);
            of_expiries(expiries, is_dragonfly, is_dragonfly, Loss::MemberExpiry)
        }
        Value::Set(_) => Vec::new(),
        Value::Hash(hash) => {
            let expiries = hash.fields().filter_map(|field| field.expire_at_ms);
            let knows = target.knows(Feature::FieldExpiry);
            of_expiries(expiries, knows, is_dragonfly, Loss::FieldExpiry)
        }
        Value::Stream(stream) => of_stream(stream, target),
        Value::Json(_) if target.knows(Feature::ModuleValues) || is_dragonfly => Vec::new(),
        Value::Json(_) => vec![Loss::Key("JSON document")],
        Value::Sketch(_) if is_dragonfly => Vec::new(),
        Value::Sketch(sketch) => vec![Loss::Key(type_code::name(sketch.type_code))],
        Value::Module(module) => match is_dragonfly {
            true if module.json().is_some() => Vec::new(),
            false if target.knows(Feature::ModuleValues) => Vec::new(),
            _ => vec![Loss::Key("module value")],
        },
    }
}

fn of_expiries(
    mut expiries: impl Iterator<Item = i64>,
    is_known: bool,
    in_seconds: bool,
    loss: Loss,
) -> Vec<Loss> {
    let is_lost = match (is_known, in_seconds) {
        (true, false) => return Vec::new(),
        (false, _) => expiries.next().map(|_| loss),
        (true, true) => expiries
            .any(|at_ms| at_ms % 1000 != 0 || !expiry_range_ms().contains(&at_ms))
            .then_some(Loss::ExpiryPrecision),
    };
    is_lost.into_iter().collect()
}

/// What Dragonfly's expiries of fields and members can say.
fn expiry_range_ms() -> std::ops::RangeInclusive<i64> {
    EXPIRY_EPOCH_S * 1000..=(EXPIRY_EPOCH_S + i64::from(u32::MAX)) * 1000
}

fn of_stream(stream: &StreamValue, target: Target) -> Vec<Loss> {
    if !target.knows(Feature::Streams) {
        return vec![Loss::Key("stream")];
    }
    let mut losses = Vec::new();
    // No version that is written knows it.
    if stream
        .idempotence
        .as_ref()
        .is_some_and(|known| !known.producers.is_empty())
    {
        losses.push(Loss::Idempotence);
    }
    if !target.knows(Feature::StreamCounters) && has_counters_of_its_own(stream) {
        losses.push(Loss::StreamCounters);
    }
    let mut consumers = stream.groups.iter().flat_map(|group| &group.consumers);
    if !target.knows(Feature::ConsumerActivity)
        && consumers.any(|consumer| consumer.active_at_ms != consumer.seen_at_ms)
    {
        losses.push(Loss::ConsumerActivity);
    }
    losses
}

/// Whether the counters differ from what a reader of version 9 makes up.
fn has_counters_of_its_own(stream: &StreamValue) -> bool {
    stream.entries_added != stream.length
        || stream.max_deleted_id != StreamId::MIN
        || stream.groups.iter().any(|group| {
            group.entries_read != super::decode_stream::entries_read(stream, group.last_id)
        })
}

/// The value as `target` can hold it, without what `of_value` lists. None: it cannot hold anything of it.
pub fn without(value: &Value, target: Target) -> Option<Cow<'_, Value>> {
    let losses = of_value(value, target);
    if losses.iter().any(|loss| matches!(loss, Loss::Key(_))) {
        return None;
    }
    let is_dragonfly = target.flavor() == Flavor::Dragonfly;
    Some(match value {
        Value::Stream(stream) if losses.contains(&Loss::Idempotence) => {
            Cow::Owned(Value::Stream(StreamValue {
                idempotence: None,
                ..stream.clone()
            }))
        }
        Value::Hash(hash) if losses.contains(&Loss::FieldExpiry) => {
            Cow::Owned(Value::Hash(lasting(hash)))
        }
        Value::Set(SetValue::Expiring(members)) if !is_dragonfly => {
            let members = members.iter().map(|member| member.member.clone());
            Cow::Owned(Value::Set(SetValue::Members(members.collect())))
        }
        Value::Json(text) if !is_dragonfly => Cow::Owned(Value::Module(ModuleValue::of_json(text))),
        Value::Module(module) if is_dragonfly => match module.json() {
            Some(text) => Cow::Owned(Value::Json(text)),
            None => Cow::Borrowed(value),
        },
        value => Cow::Borrowed(value),
    })
}

/// The same fields, none of which expires.
fn lasting(hash: &HashValue) -> HashValue {
    match hash {
        HashValue::ListpackEx(pack) => {
            let kept = pack.iter().enumerate().filter(|(at, _)| at % 3 != 2);
            let mut lasting = Listpack::with_capacity(pack.byte_len());
            kept.for_each(|(_, element): (usize, Element<'_>)| lasting.push_back(element));
            HashValue::Listpack(lasting)
        }
        hash => HashValue::Fields(
            hash.fields()
                .map(|field| HashField {
                    field: field.field.to_vec(),
                    value: field.value.to_vec(),
                    expire_at_ms: None,
                })
                .collect(),
        ),
    }
}
