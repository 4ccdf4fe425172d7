//! Bits of strings. Bit 0 is the highest bit of the first byte.

use std::borrow::Cow;

use super::strings::{is_long_way, peek_string, string_mut};
use super::words::{index_range, int, is};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::keyspace::value::Value;

const BITOP: KeySpec = KeySpec::Range {
    first: 2,
    last: -1,
    step: 1,
};

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("bitcount", -2, Flags::READONLY, KeySpec::ONE, bitcount)
        .about(Group::Bitmap, "2.6.0", "The number of bits that are set."),
    Command::keyed("bitfield", -2, Flags::WRITE_OOM, KeySpec::ONE, bitfield)
        .about(Group::Bitmap, "3.2.0", "Reads and changes numbers of any width."),
    Command::keyed("bitfield_ro", -2, Flags::READ_FAST, KeySpec::ONE, bitfield_ro)
        .about(Group::Bitmap, "6.0.0", "Reads numbers of any width."),
    Command::keyed("bitop", -4, Flags::WRITE_OOM, BITOP, bitop)
        .about(Group::Bitmap, "2.6.0", "Joins strings bit by bit and stores the result."),
    Command::keyed("bitpos", -3, Flags::READONLY, KeySpec::ONE, bitpos)
        .about(Group::Bitmap, "2.8.7", "The first bit that is set, or not set."),
    Command::keyed("getbit", 3, Flags::READ_FAST, KeySpec::ONE, getbit)
        .about(Group::Bitmap, "2.2.0", "A bit."),
    Command::keyed("setbit", 4, Flags::WRITE_OOM, KeySpec::ONE, setbit)
        .about(Group::Bitmap, "2.2.0", "Sets a bit."),
];

/// Where a bit is; `#n` is the n-th field of `width` bits.
fn bit_offset(exec: &Exec<'_>, word: &[u8], width: Option<u32>) -> Result<usize, CommandError> {
    let (text, factor) = match (word, width) {
        ([b'#', text @ ..], Some(width)) => (text, u64::from(width)),
        _ => (word, 1),
    };
    let last = int(text)
        .ok()
        .and_then(|number| u64::try_from(number).ok())
        .and_then(|number| number.checked_mul(factor))
        .filter(|offset| offset / 8 < exec.settings.string_bytes_max);
    let offset = last.and_then(|offset| usize::try_from(offset).ok());
    offset.ok_or(CommandError::text(
        "ERR bit offset is not an integer or out of range",
    ))
}

fn bit_at(bytes: &[u8], offset: usize) -> bool {
    bytes
        .get(offset / 8)
        .is_some_and(|byte| byte >> (7 - offset % 8) & 1 == 1)
}

fn getbit(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let offset = bit_offset(exec, args[2], None)?;
    let bytes = exec.read_string(args[1])?;
    let bit = bytes.is_some_and(|bytes| bit_at(&bytes, offset));
    exec.reply.int(i64::from(bit));
    Ok(Effect::None)
}

fn setbit(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let offset = bit_offset(exec, args[2], None)?;
    let bit = match args[3] {
        b"0" => false,
        b"1" => true,
        _ => {
            return Err(CommandError::text(
                "ERR bit is not an integer or out of range",
            ));
        }
    };
    let (old, grows) = match peek_string(exec, args[1])? {
        Some(bytes) => (bit_at(&bytes, offset), bytes.len() <= offset / 8),
        None => (false, true),
    };
    let changes = grows || old != bit;
    if grows && is_long_way(exec, args[1], offset / 8 + 1) {
        return Ok(Effect::Aside);
    }
    if changes {
        let bytes = string_mut(exec, args[1]);
        if bytes.len() <= offset / 8 {
            bytes.resize(offset / 8 + 1, 0);
        }
        let mask = 0x80 >> (offset % 8);
        match bit {
            true => bytes[offset / 8] |= mask,
            false => bytes[offset / 8] &= !mask,
        }
    }
    exec.reply.int(i64::from(old));
    Ok(Effect::verbatim_if(changes))
}

/// BYTE or BIT at the end of a range; true for BIT.
fn unit(word: Option<&&[u8]>) -> Result<bool, CommandError> {
    match word {
        None => Ok(false),
        Some(word) if is(word, "bit") => Ok(true),
        Some(word) if is(word, "byte") => Ok(false),
        Some(_) => Err(CommandError::SYNTAX),
    }
}

/// The bits of a range given in bytes or bits, either end counted from the end if negative.
fn bit_range(start: i64, stop: i64, is_bits: bool, len: usize) -> std::ops::Range<usize> {
    let units = if is_bits { len * 8 } else { len };
    if start < 0 && stop < 0 && start > stop {
        return 0..0;
    }
    let range = index_range(start, stop.max(-(units as i64)), units);
    if is_bits {
        range
    } else {
        range.start * 8..range.end * 8
    }
}

fn bitcount(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (mut start, mut stop, mut is_bits) = (0, -1, false);
    match &args[2..] {
        [] => {}
        [first, last, rest @ ..] if rest.len() <= 1 => {
            (start, stop, is_bits) = (int(first)?, int(last)?, unit(rest.first())?);
        }
        _ => return Err(CommandError::SYNTAX),
    }
    let len = exec.read_string(args[1])?.map_or(0, |bytes| bytes.len());
    let range = bit_range(start, stop, is_bits, len);
    if exec.is_too_large(range.len() / 8) {
        return Ok(Effect::Aside);
    }
    let count = with_string(exec, args[1], |bytes| count_ones(bytes, range));
    exec.reply.int(count as i64);
    Ok(Effect::None)
}

/// Works on the bytes of a string that has been looked up; those of a key that is not there are none.
fn with_string<R>(exec: &Exec<'_>, key: &[u8], work: impl FnOnce(&[u8]) -> R) -> R {
    let bytes = exec.found(key).and_then(|entry| entry.value().as_string());
    work(&bytes.unwrap_or(Cow::Borrowed(b"")))
}

fn count_ones(bytes: &[u8], range: std::ops::Range<usize>) -> u64 {
    let (first, last) = (range.start.div_ceil(8), range.end / 8);
    if first > last {
        return range.filter(|at| bit_at(bytes, *at)).count() as u64;
    }
    let whole = &bytes[first..last];
    let (words, rest) = whole.as_chunks::<8>();
    let ones: u64 = words
        .iter()
        .map(|word| u64::from(u64::from_ne_bytes(*word).count_ones()))
        .sum();
    let ones = ones
        + rest
            .iter()
            .map(|byte| u64::from(byte.count_ones()))
            .sum::<u64>();
    let edges = (range.start..first * 8).chain(last * 8..range.end);
    ones + edges.filter(|at| bit_at(bytes, *at)).count() as u64
}

fn bitpos(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let wanted = match int(args[2])? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::text("ERR The bit argument must be 1 or 0.")),
    };
    let (mut start, mut stop, mut is_bits) = (0, -1, false);
    let has_end = args.len() > 4;
    match &args[3..] {
        [] => {}
        [first] => start = int(first)?,
        [first, last, rest @ ..] if rest.len() <= 1 => {
            (start, stop, is_bits) = (int(first)?, int(last)?, unit(rest.first())?);
        }
        _ => return Err(CommandError::SYNTAX),
    }
    let Some(len) = exec.read_string(args[1])?.map(|bytes| bytes.len()) else {
        exec.reply.int(if wanted { -1 } else { 0 });
        return Ok(Effect::None);
    };
    let range = bit_range(start, stop, is_bits, len);
    let is_empty = range.is_empty();
    if exec.is_too_large(range.len() / 8) {
        return Ok(Effect::Aside);
    }
    let found = with_string(exec, args[1], |bytes| find_bit(bytes, range, wanted));
    let number = match found {
        Some(at) => at as i64,
        // Without an end the string goes on with zeros for ever.
        None if !wanted && !has_end && !is_empty => len as i64 * 8,
        None => -1,
    };
    exec.reply.int(number);
    Ok(Effect::None)
}

/// How many bytes are `dull` before the first that is not.
fn dull_len(bytes: &[u8], dull: u8) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    let dull_word = [dull; 8];
    let same = words.iter().take_while(|word| **word == dull_word).count();
    let rest: &[u8] = match same == words.len() {
        true => rest,
        false => &words[same],
    };
    same * 8 + rest.iter().take_while(|byte| **byte == dull).count()
}

fn find_bit(bytes: &[u8], range: std::ops::Range<usize>, wanted: bool) -> Option<usize> {
    let dull = if wanted { 0x00 } else { 0xFF };
    let mut at = range.start;
    while at < range.end {
        if at.is_multiple_of(8) && at + 8 <= range.end && bytes[at / 8] == dull {
            at += 8 * dull_len(&bytes[at / 8..range.end / 8], dull);
            continue;
        }
        if bit_at(bytes, at) == wanted {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// How BITOP joins strings.
#[derive(Clone, Copy, PartialEq)]
enum Join {
    And,
    Or,
    Xor,
    Not,
}

fn bitop(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (name, destination, keys) = (args[1], args[2], &args[3..]);
    let join = match name {
        name if is(name, "and") => Join::And,
        name if is(name, "or") => Join::Or,
        name if is(name, "xor") => Join::Xor,
        name if is(name, "not") => Join::Not,
        _ => return Err(CommandError::SYNTAX),
    };
    if join == Join::Not && keys.len() != 1 {
        return Err(CommandError::text(
            "ERR BITOP NOT must be called with a single source key.",
        ));
    }
    let mut bytes = 0;
    for key in keys {
        bytes += exec.read_string(key)?.map_or(0, |source| source.len());
    }
    if exec.is_too_large(bytes) {
        return Ok(Effect::Aside);
    }
    let source = |key: &&[u8]| exec.found(key).and_then(|entry| entry.value().as_string());
    let sources: Vec<_> = keys.iter().filter_map(source).collect();
    let result = joined(join, &sources, keys.len());
    let len = result.len();
    let is_changed = if len == 0 {
        exec.remove(destination).is_some()
    } else {
        // However short it is, Redis keeps it in a form of its own.
        exec.set(destination, Value::Raw(Box::new(result)));
        true
    };
    exec.reply.int(len as i64);
    Ok(Effect::verbatim_if(is_changed))
}

/// The strings joined. Of `count` there are some that are not there, or as short: what is missing counts as zeros.
fn joined(join: Join, sources: &[Cow<'_, [u8]>], count: usize) -> Vec<u8> {
    let len = sources.iter().map(|source| source.len()).max().unwrap_or(0);
    let Some((first, others)) = sources.split_first() else {
        return Vec::new();
    };
    if join == Join::And && sources.len() < count {
        return vec![0; len];
    }
    let mut result = Vec::with_capacity(len);
    if join == Join::Not {
        result.extend(first.iter().map(|byte| !byte));
        return result;
    }
    result.extend_from_slice(first);
    result.resize(len, 0);
    for other in others {
        let pairs = result.iter_mut().zip(other.iter());
        match join {
            Join::And => pairs.for_each(|(byte, other)| *byte &= other),
            Join::Or => pairs.for_each(|(byte, other)| *byte |= other),
            Join::Xor | Join::Not => pairs.for_each(|(byte, other)| *byte ^= other),
        }
        if join == Join::And {
            result[other.len()..].fill(0);
        }
    }
    result
}

// BITFIELD.

#[derive(Clone, Copy)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy)]
enum Access {
    Get,
    Set(i64),
    Add(i64),
}

/// One operation of a BITFIELD.
struct Field {
    is_signed: bool,
    width: u32,
    offset: usize,
    access: Access,
    overflow: Overflow,
}

impl Field {
    /// Reads `i8` or `u63`.
    fn kind(word: &[u8]) -> Result<(bool, u32), CommandError> {
        let parsed = word.split_first().and_then(|(sign, width)| {
            let is_signed = match sign {
                b'i' | b'I' => true,
                b'u' | b'U' => false,
                _ => return None,
            };
            let width = u32::try_from(int(width).ok()?).ok()?;
            (1..=if is_signed { 64 } else { 63 })
                .contains(&width)
                .then_some((is_signed, width))
        });
        parsed.ok_or(CommandError::text(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
        ))
    }

    /// The number as it stands; what lies behind the end of the string is zero.
    fn get(&self, bytes: &[u8]) -> i64 {
        let raw = (0..self.width as usize).fold(0u64, |raw, at| {
            raw << 1 | u64::from(bit_at(bytes, self.offset + at))
        });
        self.wrapped(i128::from(raw))
    }

    fn put(&self, bytes: &mut [u8], number: i64) {
        for at in 0..self.width as usize {
            let bit = number as u64 >> (self.width as usize - 1 - at) & 1 == 1;
            let (byte, mask) = ((self.offset + at) / 8, 0x80 >> ((self.offset + at) % 8));
            match bit {
                true => bytes[byte] |= mask,
                false => bytes[byte] &= !mask,
            }
        }
    }

    /// The lowest bits of a number, read as this field's type.
    fn wrapped(&self, number: i128) -> i64 {
        let shift = 64 - self.width;
        let bits = (number as u64) << shift;
        if self.is_signed {
            bits as i64 >> shift
        } else {
            (bits >> shift) as i64
        }
    }

    /// The number to store for one that may not fit; `None` if it is not to be stored.
    fn fit(&self, number: i128) -> Option<i64> {
        let (min, max) = match self.is_signed {
            true => (
                -(1i128 << (self.width - 1)),
                (1i128 << (self.width - 1)) - 1,
            ),
            false => (0, (1i128 << self.width) - 1),
        };
        match self.overflow {
            _ if (min..=max).contains(&number) => Some(number as i64),
            Overflow::Wrap => Some(self.wrapped(number)),
            Overflow::Saturate => Some(number.clamp(min, max) as i64),
            Overflow::Fail => None,
        }
    }

    /// A word of the command as a number that this field could be set to.
    fn given(&self, number: i64) -> i128 {
        if self.is_signed {
            i128::from(number)
        } else {
            i128::from(number as u64)
        }
    }
}

fn parse_fields(exec: &Exec<'_>, args: Args<'_>) -> Result<Vec<Field>, CommandError> {
    let (mut fields, mut overflow) = (Vec::new(), Overflow::Wrap);
    let mut words = &args[2..];
    while let [word, rest @ ..] = words {
        let operands = match word {
            word if is(word, "get") && rest.len() >= 2 => 2,
            word if (is(word, "set") || is(word, "incrby")) && rest.len() >= 3 => 3,
            word if is(word, "overflow") && !rest.is_empty() => {
                overflow = match rest[0] {
                    how if is(how, "wrap") => Overflow::Wrap,
                    how if is(how, "sat") => Overflow::Saturate,
                    how if is(how, "fail") => Overflow::Fail,
                    _ => return Err(CommandError::text("ERR Invalid OVERFLOW type specified")),
                };
                words = &rest[1..];
                continue;
            }
            _ => return Err(CommandError::SYNTAX),
        };
        let (is_signed, width) = Field::kind(rest[0])?;
        let offset = bit_offset(exec, rest[1], Some(width))?;
        let access = match word {
            word if is(word, "get") => Access::Get,
            word if is(word, "set") => Access::Set(int(rest[2])?),
            _ => Access::Add(int(rest[2])?),
        };
        fields.push(Field {
            is_signed,
            width,
            offset,
            access,
            overflow,
        });
        words = &rest[operands..];
    }
    Ok(fields)
}

fn bitfield(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let fields = parse_fields(exec, args)?;
    let written = fields
        .iter()
        .filter(|field| !matches!(field.access, Access::Get));
    let Some(end) = written
        .map(|field| (field.offset + field.width as usize).div_ceil(8))
        .max()
    else {
        return reply_fields(exec, args[1], &fields);
    };
    let len = peek_string(exec, args[1])?.map_or(0, |bytes| bytes.len());
    if len < end && is_long_way(exec, args[1], end) {
        return Ok(Effect::Aside);
    }
    let bytes = string_mut(exec, args[1]);
    let mut changes = bytes.len() < end;
    if changes {
        bytes.resize(end, 0);
    }
    let mut results = Vec::with_capacity(fields.len());
    for field in &fields {
        let old = field.get(bytes);
        let wanted = match field.access {
            Access::Get => {
                results.push(Some(old));
                continue;
            }
            Access::Set(number) => field.given(number),
            Access::Add(step) => i128::from(old) + i128::from(step),
        };
        let new = field.fit(wanted);
        if let Some(new) = new {
            changes |= new != old;
            field.put(bytes, new);
        }
        results.push(match field.access {
            Access::Set(_) => new.map(|_| old),
            _ => new,
        });
    }
    exec.reply.array(results.len());
    for result in results {
        match result {
            Some(number) => exec.reply.int(number),
            None => exec.reply.null(),
        }
    }
    Ok(Effect::verbatim_if(changes))
}

fn bitfield_ro(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let fields = parse_fields(exec, args)?;
    if fields
        .iter()
        .any(|field| !matches!(field.access, Access::Get))
    {
        return Err(CommandError::text(
            "ERR BITFIELD_RO only supports the GET subcommand",
        ));
    }
    reply_fields(exec, args[1], &fields)
}

fn reply_fields(exec: &mut Exec<'_>, key: &[u8], fields: &[Field]) -> CommandResult {
    let bytes = exec.read_string(key)?.unwrap_or(Cow::Borrowed(b""));
    let numbers: Vec<i64> = fields.iter().map(|field| field.get(&bytes)).collect();
    exec.reply.array(numbers.len());
    numbers
        .into_iter()
        .for_each(|number| exec.reply.int(number));
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::{Bench, compare_with_redis};
    use proptest::prelude::*;

    #[test]
    fn replies_are_those_of_redis() {
        compare_with_redis(
            r#"
            RPUSH l 1
            SET s foobar
            SETBIT b 7 1
            SETBIT b 7 0
            SETBIT b 100 1
            SETBIT b -1 1
            SETBIT b 4294967296 1
            SETBIT b x 1
            SETBIT b 1 2
            SETBIT l 1 1
            GETBIT b 100
            GETBIT b 101
            GETBIT b 99999
            GETBIT none 1
            GETBIT l 1
            GETBIT b x
            BITCOUNT s
            BITCOUNT s 0 0
            BITCOUNT s 1 1
            BITCOUNT s -2 -1
            BITCOUNT s -1 -2
            BITCOUNT s -100 -50
            BITCOUNT s 5 30 BIT
            BITCOUNT s 5 6 BIT
            BITCOUNT s -9 -2 BIT
            BITCOUNT s 0 -1 BYTE
            BITCOUNT s 0 -1 FOO
            BITCOUNT s 0
            BITCOUNT s x 1
            BITCOUNT none
            BITCOUNT none 0 1
            BITCOUNT l
            SET ones "\xff\xff\xff"
            SET zeros "\x00\x00\x00"
            SET mix "\x00\x0f\xff"
            BITPOS ones 0
            BITPOS ones 0 0 -1
            BITPOS ones 0 1
            BITPOS ones 0 5
            BITPOS ones 1
            BITPOS zeros 1
            BITPOS zeros 0
            BITPOS zeros 0 2
            BITPOS mix 1
            BITPOS mix 1 2
            BITPOS mix 1 0 0
            BITPOS mix 1 13 -1 BIT
            BITPOS mix 0 12 15 BIT
            BITPOS mix 0 12 15 FOO
            BITPOS mix 1 3 1
            BITPOS mix 2
            BITPOS mix x
            BITPOS none 0
            BITPOS none 1
            BITPOS l 1
            BITOP AND d s mix
            GET d
            BITOP OR d s mix none
            GET d
            BITOP XOR d s mix ones
            GET d
            BITOP NOT d s
            GET d
            BITOP NOT d s mix
            BITOP FOO d s
            BITOP AND d none none2
            EXISTS d
            BITOP AND d s l
            BITFIELD f SET u8 0 255 GET u8 0 GET i8 0
            BITFIELD f INCRBY u8 0 10
            BITFIELD f OVERFLOW SAT INCRBY u8 0 300 OVERFLOW FAIL INCRBY u8 0 1 GET u8 0
            BITFIELD f SET i5 100 -7 GET i5 100 GET u4 #25
            BITFIELD f OVERFLOW SAT SET i8 #3 1000 INCRBY i8 #3 -1000 GET i8 #3
            BITFIELD f OVERFLOW WRAP INCRBY i8 #3 -1 GET i8 #3
            BITFIELD f SET i64 0 -9223372036854775808 INCRBY i64 0 -1
            BITFIELD f OVERFLOW FAIL INCRBY i64 0 1 SET u2 200 9
            BITFIELD f OVERFLOW SAT SET u8 0 -1
            BITFIELD f SET u63 3 9223372036854775807 GET u63 3
            BITFIELD f GET u64 0
            BITFIELD f GET u0 0
            BITFIELD f GET x8 0
            BITFIELD f GET u8 -1
            BITFIELD f GET u8 x
            BITFIELD f SET u8 0 x
            BITFIELD f SET u8 0
            BITFIELD f OVERFLOW foo
            BITFIELD f FOO
            BITFIELD f
            BITFIELD none GET u8 0
            BITFIELD l GET u8 0
            BITFIELD l SET u8 0 1
            GET f
            BITFIELD_RO f GET u8 0 GET u8 8
            BITFIELD_RO f SET u8 0 1
            SET n 10
            SETBIT n 0 1
            OBJECT ENCODING n
        "#,
        );
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        let rows = [
            ("SETBIT b 7 1", "SETBIT b 7 1"),
            ("SETBIT b 7 1", ""),
            ("BITFIELD b GET u8 0", ""),
            ("BITFIELD b SET u8 0 1", ""),
            ("BITFIELD b INCRBY u8 0 1", "BITFIELD b INCRBY u8 0 1"),
            ("BITOP NOT c b", "BITOP NOT c b"),
        ];
        for (line, want) in rows {
            assert_eq!(bench.effect(line), want, "{line}");
        }
    }

    proptest! {
        #[test]
        fn counts_and_finds_agree_with_single_bits(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 0..40), a in 0usize..330, b in 0usize..330) {
            let range = a.min(b).min(bytes.len() * 8)..a.max(b).min(bytes.len() * 8);
            let ones = range.clone().filter(|at| bit_at(&bytes, *at)).count() as u64;
            prop_assert_eq!(count_ones(&bytes, range.clone()), ones);
            for wanted in [false, true] {
                prop_assert_eq!(find_bit(&bytes, range.clone(), wanted), range.clone().find(|at| bit_at(&bytes, *at) == wanted));
            }
        }
    }
}
