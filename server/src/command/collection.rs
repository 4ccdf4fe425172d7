//! Reaching a collection of one type: looked up, checked, changed, and its key removed when it is empty.

use dfsnap_formats::encoding::listpack::Element;
use dfsnap_formats::resp::Reply;

use super::{CommandError, Exec};
use crate::keyspace::value::Collection;

/// A collection to read, with the reply to write to. Counts a hit or a miss.
#[inline]
pub fn read<'e, T: Collection>(
    exec: &'e mut Exec<'_>,
    key: &[u8],
) -> Result<(Option<&'e T>, &'e mut Reply), CommandError> {
    let (entry, reply) = exec.read_with_reply(key);
    match entry {
        None => Ok((None, reply)),
        Some(entry) => match T::of(entry.value()) {
            Some(collection) => Ok((Some(collection), reply)),
            None => Err(CommandError::WRONG_TYPE),
        },
    }
}

/// A collection to look at before a write.
#[inline]
pub fn peek<'e, T: Collection>(
    exec: &'e mut Exec<'_>,
    key: &[u8],
) -> Result<Option<&'e T>, CommandError> {
    match exec.peek(key) {
        None => Ok(None),
        Some(entry) => T::of(entry.value())
            .map(Some)
            .ok_or(CommandError::WRONG_TYPE),
    }
}

/// The door to a collection that [`peek`] has found.
#[inline]
pub fn update<'e, T: Collection>(exec: &'e mut Exec<'_>, key: &[u8]) -> &'e mut T {
    let entry = exec.update(key).expect("a key that was just looked at");
    T::of_mut(entry.into_value()).expect("a type that was just looked at")
}

/// The door to a collection that is created if its key is missing. The type has been checked.
#[inline]
pub fn update_or_insert<'e, T: Collection>(exec: &'e mut Exec<'_>, key: &[u8]) -> &'e mut T {
    let entry = exec.update_or_insert(key, || T::default().into_value());
    T::of_mut(entry.into_value()).expect("a type that was just looked at")
}

/// Writes the text of an element.
#[inline]
pub fn bulk(reply: &mut Reply, element: Element<'_>) {
    match element {
        Element::Str(bytes) => reply.bulk(bytes),
        Element::Int(number) => reply.bulk_int(number),
    }
}
