//! Reaching a collection of one type: looked up, checked, changed, and its key removed when it is empty.

use dfsnap_formats::encoding::listpack::Element;
use dfsnap_formats::resp::Reply;

use super::words::int;
use super::{CommandError, Exec};
use crate::keyspace::table::Cursor;
use crate::keyspace::value::{Collection, Value};

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

/// The number of elements of a value; a string has none.
pub fn elements(value: &Value) -> usize {
    match value {
        Value::Int(_) | Value::Str(_) | Value::Raw(_) => 0,
        Value::List(list) => list.len(),
        Value::Set(set) => set.len(),
        Value::ZSet(set) => set.len(),
        Value::Hash(hash) => hash.len(),
        Value::Stream(stream) => usize::try_from(stream.len()).unwrap_or(usize::MAX),
    }
}

/// Writes the text of an element.
#[inline]
pub fn bulk(reply: &mut Reply, element: Element<'_>) {
    match element {
        Element::Str(bytes) => reply.bulk(bytes),
        Element::Int(number) => reply.bulk_int(number),
    }
}

/// Bits of a cursor of HSCAN, SSCAN and ZSCAN that clients get to see: every client can count to 2^53.
const CURSOR_BITS: u32 = 53;

/// Walks a collection for HSCAN, SSCAN or ZSCAN: calls `step` until about `count` elements were seen, and returns the
/// cursor to reply. `step` adds what it saw to the number it is given.
pub fn scan(
    from: u64,
    count: usize,
    mut step: impl FnMut(Cursor, &mut usize) -> Option<Cursor>,
) -> u64 {
    let mut place = Cursor(from << (64 - CURSOR_BITS));
    let mut seen = 0;
    loop {
        match step(place, &mut seen) {
            None => return 0,
            Some(next) => place = next,
        }
        // Places are wider apart than what a cursor leaves out, but for a hash that fails: then it goes on.
        if seen >= count && place.0 << CURSOR_BITS == 0 {
            return place.0 >> (64 - CURSOR_BITS);
        }
    }
}

/// How many elements at random a command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// Different ones.
    Distinct(usize),
    /// Each chosen anew.
    Repeating(usize),
}

impl Sample {
    /// How many.
    pub fn count(self) -> usize {
        match self {
            Sample::Distinct(count) | Sample::Repeating(count) => count,
        }
    }

    /// The count of SRANDMEMBER, HRANDFIELD and ZRANDMEMBER: negative for repeating ones.
    pub fn parse(word: &[u8]) -> Result<Sample, CommandError> {
        const RANGE: CommandError = CommandError::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        );
        let number = int(word)?;
        if number == i64::MIN {
            return Err(RANGE);
        }
        let count = usize::try_from(number.unsigned_abs()).map_err(|_| RANGE)?;
        Ok(if number < 0 {
            Sample::Repeating(count)
        } else {
            Sample::Distinct(count)
        })
    }
}

/// `count` different numbers below `len`, in random order.
pub fn distinct_indexes(count: usize, len: usize, random: &mut fastrand::Rng) -> Vec<usize> {
    let count = count.min(len);
    if count * 3 >= len {
        let mut all: Vec<usize> = (0..len).collect();
        random.shuffle(&mut all);
        all.truncate(count);
        return all;
    }
    let mut seen = std::collections::HashSet::with_capacity(count);
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count {
        let index = random.usize(..len);
        if seen.insert(index) {
            chosen.push(index);
        }
    }
    chosen
}
