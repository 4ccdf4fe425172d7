//! Streams: their entries and counters.

use super::store::Data;
use super::table::Command;
use super::words::{Reader, count, int, stream_id};
use super::{Args, Done, NO_KEY, Problem, Replay, SYNTAX, Stop};
use crate::encoding::stream::StreamId;
use crate::value::Idempotence;
use std::collections::BTreeMap;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("XADD", -5, add),
    Command::run("XTRIM", -4, trim),
    Command::run("XDEL", -3, delete),
    Command::run("XSETID", -3, setid),
];

/// A stream while commands change it.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    pub entries: BTreeMap<StreamId, Pairs>,
    pub last_id: StreamId,
    pub max_deleted_id: StreamId,
    pub entries_added: u64,
    pub groups: BTreeMap<Vec<u8>, Group>,
    /// As loaded: commands up to 8.0 know nothing of it.
    pub idempotence: Option<Box<Idempotence>>,
}

/// Fields and values of an entry, in order.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug, Clone)]
pub struct Group {
    pub last_id: StreamId,
    /// -1: unknown.
    pub entries_read: i64,
    pub pending: BTreeMap<StreamId, Pending>,
    pub consumers: BTreeMap<Vec<u8>, Consumer>,
}

#[derive(Debug, Clone)]
pub struct Pending {
    /// One of the group's.
    pub consumer: Vec<u8>,
    pub delivered_at_ms: i64,
    pub deliveries: u64,
}

#[derive(Debug, Clone, Copy)]
pub struct Consumer {
    pub seen_at_ms: i64,
    /// -1: never.
    pub active_at_ms: i64,
}

pub(super) fn empty() -> Data {
    Data::Stream(Box::default())
}

/// What XADD and XTRIM remove from the old end.
#[derive(Debug, Clone, Copy)]
enum Trim {
    /// All but so many.
    Length(usize),
    /// All below.
    Id(StreamId),
}

impl Trim {
    /// The strategy at hand, if one of its names comes next. LIMIT means nothing to a file: servers log what they did.
    fn take(words: &mut Reader<'_>) -> Result<Option<Trim>, Stop> {
        let by_length = words.skip("MAXLEN");
        if !by_length && !words.skip("MINID") {
            return Ok(None);
        }
        if words.skip("~") {
            let why = "trims as far as suits the server's own nodes";
            return Err(Stop::Failed(Problem::Undetermined(why)));
        }
        words.skip("=");
        let word = words.next()?;
        Ok(Some(match by_length {
            true => Trim::Length(count(word)?),
            false => Trim::Id(stream_id(word, 0)?),
        }))
    }

    fn apply(self, stream: &mut Stream) {
        let goes = |stream: &Stream| match self {
            Trim::Length(most) => stream.entries.len() > most,
            Trim::Id(least) => {
                let first = stream.entries.first_key_value();
                first.is_some_and(|(id, _)| *id < least)
            }
        };
        while goes(stream) {
            stream.entries.pop_first();
        }
    }
}

/// Options before the id of XADD, or behind the key of XTRIM.
fn options(words: &mut Reader<'_>, is_add: bool) -> Result<(Option<Trim>, bool), Stop> {
    let (mut trim, mut limit, mut make) = (None, false, true);
    loop {
        if words.skip("LIMIT") {
            count(words.next()?)?;
            limit = true;
        } else if is_add && words.skip("NOMKSTREAM") {
            make = false;
        } else if let Some(found) = Trim::take(words)? {
            if trim.replace(found).is_some() {
                return Err(SYNTAX);
            }
        } else {
            break;
        }
    }
    if limit && trim.is_none() {
        return Err(SYNTAX);
    }
    Ok((trim, make))
}

fn add(replay: &mut Replay, args: Args<'_>) -> Done {
    let mut words = Reader::new(&args[2..]);
    let (trim, make) = options(&mut words, true)?;
    let id = words.next()?;
    let pairs = words.left().chunks_exact(2);
    if words.is_empty() || !pairs.remainder().is_empty() {
        return Err(Stop::Refused("a field without a value"));
    }
    let bytes = { words.left().iter() }.map(|word| word.len() + ELEMENT_OVERHEAD);
    if bytes.sum::<usize>() > ENTRY_BYTES_MAX {
        return Err(Stop::Refused("an entry that is too large for a node"));
    }
    let pairs: Pairs = pairs
        .map(|pair| (pair[0].to_vec(), pair[1].to_vec()))
        .collect();
    let stream = replay.get(args[1], Data::stream)?;
    if stream.is_none() && !make {
        return Ok(());
    }
    let last_id = stream.map_or(StreamId::MIN, |stream| stream.last_id);
    let id = next_id(replay, id, last_id)?;
    if id <= last_id {
        return Err(Stop::Refused("an id that is not above the last one"));
    }
    let stream = replay.get_or_make(args[1], Data::stream, empty)?;
    stream.entries.insert(id, pairs);
    stream.last_id = id;
    stream.entries_added = stream.entries_added.wrapping_add(1);
    if let Some(trim) = trim {
        trim.apply(stream);
    }
    Ok(())
}

/// Most bytes of a stream's node, which holds an entry whole; and what each element may take besides its text.
const ENTRY_BYTES_MAX: usize = 1 << 30;
const ELEMENT_OVERHEAD: usize = 16;

/// The id that a word of XADD stands for.
fn next_id(replay: &Replay, word: &[u8], last_id: StreamId) -> Result<StreamId, Stop> {
    let exhausted = Stop::Refused("no id is left");
    let after_last = || match last_id {
        StreamId::MAX => Err(exhausted),
        StreamId { ms, seq: u64::MAX } => Ok(StreamId::new(ms + 1, 0)),
        StreamId { ms, seq } => Ok(StreamId::new(ms, seq + 1)),
    };
    match word {
        b"*" => {
            let now_ms = u64::try_from(replay.now_ms()?).unwrap_or(0);
            match now_ms > last_id.ms {
                true => Ok(StreamId::new(now_ms, 0)),
                false => after_last(),
            }
        }
        [ms @ .., b'-', b'*'] => {
            let ms = stream_id(ms, 0)?.ms;
            match ms == last_id.ms {
                true if last_id.seq == u64::MAX => Err(Stop::Refused("no id is left")),
                true => after_last(),
                false => Ok(StreamId::new(ms, 0)),
            }
        }
        word => stream_id(word, 0),
    }
}

fn trim(replay: &mut Replay, args: Args<'_>) -> Done {
    let mut words = Reader::new(&args[2..]);
    let (trim, _) = options(&mut words, false)?;
    words.end()?;
    let trim = trim.ok_or(SYNTAX)?;
    if let Some(stream) = replay.get(args[1], Data::stream)? {
        trim.apply(stream);
    }
    Ok(())
}

fn delete(replay: &mut Replay, args: Args<'_>) -> Done {
    let ids = args[2..].iter().map(|word| stream_id(word, 0));
    let ids = ids.collect::<Result<Vec<_>, Stop>>()?;
    if let Some(stream) = replay.get(args[1], Data::stream)? {
        for id in ids {
            if stream.entries.remove(&id).is_some() {
                stream.max_deleted_id = stream.max_deleted_id.max(id);
            }
        }
    }
    Ok(())
}

fn setid(replay: &mut Replay, args: Args<'_>) -> Done {
    let id = stream_id(args[2], 0)?;
    let mut words = Reader::new(&args[3..]);
    let (mut added, mut deleted) = (None, StreamId::MIN);
    while !words.is_empty() {
        if words.skip("ENTRIESADDED") {
            let number = u64::try_from(int(words.next()?)?);
            added = Some(number.map_err(|_| Stop::Refused("a counter below 0"))?);
        } else if words.skip("MAXDELETEDID") {
            deleted = stream_id(words.next()?, 0)?;
        } else {
            return Err(SYNTAX);
        }
    }
    let stream = replay.get(args[1], Data::stream)?.ok_or(NO_KEY)?;
    let last = stream.entries.last_key_value().map(|(id, _)| *id);
    let length = stream.entries.len() as u64;
    // An id below the highest deleted one is taken: servers of 7.0 take and log it.
    if id < deleted || last.is_some_and(|last| id < last) {
        return Err(Stop::Refused("an id below one that was there"));
    }
    if added.is_some_and(|added| added < length) {
        return Err(Stop::Refused("fewer entries added than there are"));
    }
    stream.last_id = id;
    stream.entries_added = added.unwrap_or(stream.entries_added);
    if deleted != StreamId::MIN {
        stream.max_deleted_id = deleted;
    }
    Ok(())
}
