//! Strings as bits: bit 0 is the highest one of the first byte.

use super::store::Data;
use super::strings::empty;
use super::table::Command;
use super::words::{Reader, int, is};
use super::{Args, Done, Replay, SYNTAX, Stop};

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("SETBIT", 4, setbit),
    Command::run("BITOP", -4, bitop),
    Command::run("BITFIELD", -2, bitfield),
];

const NO_OFFSET: Stop = Stop::Refused("no offset of a bit");

fn offset(word: &[u8]) -> Result<u64, Stop> {
    let number = crate::encoding::canonical_int(word).ok_or(NO_OFFSET)?;
    u64::try_from(number).map_err(|_| NO_OFFSET)
}

fn setbit(replay: &mut Replay, args: Args<'_>) -> Done {
    let at = offset(args[2])?;
    let bit = match int(args[3])? {
        0 => false,
        1 => true,
        _ => return Err(Stop::Refused("no bit")),
    };
    let bytes = grown(replay, args[1], at + 1)?;
    put_bits(bytes, at, 1, u64::from(bit));
    Ok(())
}

/// The string, with at least so many bits.
fn grown<'r>(replay: &'r mut Replay, key: &[u8], bits: u64) -> Result<&'r mut Vec<u8>, Stop> {
    let wanted = bits.div_ceil(8);
    let old = replay
        .get(key, Data::string)?
        .map_or(0, |bytes| bytes.len());
    if wanted > old as u64 {
        replay.check_length(wanted)?;
    }
    let bytes = replay.get_or_make(key, Data::string, empty)?;
    if (bytes.len() as u64) < wanted {
        bytes.resize(wanted as usize, 0);
    }
    Ok(bytes)
}

fn get_bits(bytes: &[u8], at: u64, width: u32) -> u64 {
    (at..at + u64::from(width)).fold(0, |number, at| {
        let byte = usize::try_from(at / 8).ok().and_then(|at| bytes.get(at));
        number << 1 | u64::from(byte.copied().unwrap_or(0) >> (7 - at % 8) & 1)
    })
}

/// The bits must be there.
fn put_bits(bytes: &mut [u8], at: u64, width: u32, number: u64) {
    for place in 0..width {
        let at = at + u64::from(place);
        let mask = 0x80 >> (at % 8);
        let byte = &mut bytes[(at / 8) as usize];
        match number >> (width - 1 - place) & 1 {
            0 => *byte &= !mask,
            _ => *byte |= mask,
        }
    }
}

fn bitop(replay: &mut Replay, args: Args<'_>) -> Done {
    let (name, target, sources) = (args[1], args[2], &args[3..]);
    let join: fn(u8, u8) -> u8 = if is(name, "AND") {
        |a, b| a & b
    } else if is(name, "OR") {
        |a, b| a | b
    } else if is(name, "XOR") {
        |a, b| a ^ b
    } else if is(name, "NOT") && sources.len() == 1 {
        |a, _| a
    } else {
        return Err(SYNTAX);
    };
    let mut result: Vec<u8> = Vec::new();
    for (index, key) in sources.iter().enumerate() {
        let source = replay
            .get(key, Data::string)?
            .map_or(&[][..], |bytes| bytes);
        if result.len() < source.len() {
            // What was joined so far ends in zeros.
            result.resize(source.len(), 0);
        }
        for (at, byte) in result.iter_mut().enumerate() {
            let other = source.get(at).copied().unwrap_or(0);
            *byte = if index == 0 {
                other
            } else {
                join(*byte, other)
            };
        }
    }
    if is(name, "NOT") {
        result.iter_mut().for_each(|byte| *byte = !*byte);
    }
    if result.is_empty() {
        replay.remove(target);
    } else {
        replay.put(target, Data::String(result));
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy)]
struct FieldType {
    is_signed: bool,
    width: u32,
}

enum Change {
    Set(i64),
    Add(i64),
}

fn field_type(word: &[u8]) -> Result<FieldType, Stop> {
    let refused = Stop::Refused("no type of a bit field");
    let (is_signed, digits) = match word {
        [b'i', digits @ ..] => (true, digits),
        [b'u', digits @ ..] => (false, digits),
        _ => return Err(refused),
    };
    let most = if is_signed { 64 } else { 63 };
    match crate::encoding::canonical_int(digits) {
        Some(width) if (1..=most).contains(&width) => Ok(FieldType {
            is_signed,
            width: width as u32,
        }),
        _ => Err(refused),
    }
}

fn field_offset(word: &[u8], width: u32) -> Result<u64, Stop> {
    match word {
        [b'#', digits @ ..] => offset(digits)?
            .checked_mul(u64::from(width))
            .filter(|at| i64::try_from(*at).is_ok())
            .ok_or(NO_OFFSET),
        digits => offset(digits),
    }
}

fn bitfield(replay: &mut Replay, args: Args<'_>) -> Done {
    let mut words = Reader::new(&args[2..]);
    let mut overflow = Overflow::Wrap;
    let mut changes = Vec::new();
    let mut bits = 0;
    while !words.is_empty() {
        if words.skip("OVERFLOW") {
            let word = words.next()?;
            overflow = if is(word, "WRAP") {
                Overflow::Wrap
            } else if is(word, "SAT") {
                Overflow::Saturate
            } else if is(word, "FAIL") {
                Overflow::Fail
            } else {
                return Err(Stop::Refused("no kind of overflow"));
            };
            continue;
        }
        let name = words.next()?;
        let kind = words.next()?;
        let place = words.next()?;
        let is_read = is(name, "GET");
        let number = match is_read {
            true => &b"0"[..],
            false => words.next()?,
        };
        if !is_read && !is(name, "SET") && !is(name, "INCRBY") {
            return Err(SYNTAX);
        }
        let kind = field_type(kind)?;
        let at = field_offset(place, kind.width)?;
        if !is_read {
            let number = int(number)?;
            let change = match is(name, "SET") {
                true => Change::Set(number),
                false => Change::Add(number),
            };
            bits = bits.max(at.saturating_add(u64::from(kind.width)));
            changes.push((kind, at, change, overflow));
        }
    }
    if changes.is_empty() {
        return Ok(());
    }
    let bytes = grown(replay, args[1], bits)?;
    for (kind, at, change, overflow) in changes {
        let old = get_bits(bytes, at, kind.width);
        if let Some(new) = kind.changed(old, change, overflow) {
            put_bits(bytes, at, kind.width, new);
        }
    }
    Ok(())
}

impl FieldType {
    /// The bits after a change; None: it fails.
    fn changed(self, old: u64, change: Change, overflow: Overflow) -> Option<u64> {
        let (low, high) = match self.is_signed {
            true => (-1i128 << (self.width - 1), (1i128 << (self.width - 1)) - 1),
            false => (0, (1i128 << self.width) - 1),
        };
        let old = match self.is_signed && old >> (self.width - 1) == 1 {
            true => i128::from(old) - (1i128 << self.width),
            false => i128::from(old),
        };
        let new = match change {
            // An unsigned field takes the number's bits.
            Change::Set(number) if !self.is_signed => i128::from(number as u64),
            Change::Set(number) => i128::from(number),
            Change::Add(number) => old + i128::from(number),
        };
        let new = match overflow {
            _ if (low..=high).contains(&new) => new,
            Overflow::Wrap => new,
            Overflow::Saturate => new.clamp(low, high),
            Overflow::Fail => return None,
        };
        let mask = u64::MAX >> (64 - self.width);
        Some(new as u64 & mask)
    }
}
