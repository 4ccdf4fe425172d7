//! `struct`: values as bytes in a layout that a format string gives.
//!
//! ```text
//!  > <   big, little endian      !n  align to at most n      x  a byte of nothing
//!  b B   1 byte                  h H  2 bytes                l L T  8 bytes       iN IN  N bytes, 4 without N
//!  f d   float, double           s    text up to a zero      cN     N bytes, c0: all, or as many as the number before says
//! ```

use mlua::{Lua, MultiValue, Table, Value};

use super::library::{
    Fault, Outcome, bad_argument, function, number_argument, one, optional_number, string_argument,
};

const INT_BYTES_MAX: usize = 32;
const ALIGN_MAX: usize = 8;

/// The library.
pub fn library(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", function(lua, pack)?)?;
    table.raw_set("unpack", function(lua, unpack)?)?;
    table.raw_set("size", function(lua, size)?)?;
    Ok(table)
}

/// One value of a format: its letter, its bytes, and how many bytes of nothing stand before it.
struct Item {
    option: u8,
    bytes: usize,
    padding: usize,
}

struct Format {
    letters: Vec<u8>,
    at: usize,
    is_big: bool,
    align: usize,
    function: &'static str,
}

impl Format {
    fn new(letters: Vec<u8>, function: &'static str) -> Format {
        Format {
            letters,
            at: 0,
            is_big: false,
            align: 1,
            function,
        }
    }

    fn number(&mut self, default: usize) -> Result<usize, Fault> {
        let start = self.at;
        let mut number = 0usize;
        while let Some(digit) = self
            .letters
            .get(self.at)
            .filter(|byte| byte.is_ascii_digit())
        {
            number = number
                .checked_mul(10)
                .and_then(|number| number.checked_add(usize::from(digit - b'0')))
                .filter(|number| *number <= i32::MAX as usize)
                .ok_or("integral size overflow")?;
            self.at += 1;
        }
        Ok(if self.at == start { default } else { number })
    }

    /// The next value; `len` is what stands before it, for the alignment.
    fn next(&mut self, len: usize) -> Result<Option<Item>, Fault> {
        while let Some(&option) = self.letters.get(self.at) {
            self.at += 1;
            let bytes = match option {
                b'b' | b'B' | b'x' => 1,
                b'h' | b'H' => 2,
                b'l' | b'L' | b'T' | b'd' => 8,
                b'f' => 4,
                b's' => 0,
                b'c' => self.number(1)?,
                b'i' | b'I' => {
                    let bytes = self.number(4)?;
                    if bytes > INT_BYTES_MAX {
                        return Err(format!(
                            "integral size {bytes} is larger than limit of {INT_BYTES_MAX}"
                        ));
                    }
                    bytes
                }
                b' ' => continue,
                b'>' => {
                    self.is_big = true;
                    continue;
                }
                b'<' => {
                    self.is_big = false;
                    continue;
                }
                b'!' => {
                    let align = self.number(ALIGN_MAX)?;
                    if !align.is_power_of_two() {
                        return Err(format!("alignment {align} is not a power of 2"));
                    }
                    self.align = align;
                    continue;
                }
                _ => {
                    let problem = format!("invalid format option '{}'", option as char);
                    return Err(bad_argument(1, self.function, &problem));
                }
            };
            let unit = bytes.min(self.align);
            let is_aligned = unit.is_power_of_two() && option != b'c';
            let padding = if is_aligned {
                len.wrapping_neg() & (unit - 1)
            } else {
                0
            };
            return Ok(Some(Item {
                option,
                bytes,
                padding,
            }));
        }
        Ok(None)
    }
}

fn put_bytes(out: &mut Vec<u8>, little: &[u8], is_big: bool) {
    let start = out.len();
    out.extend_from_slice(little);
    if is_big {
        out[start..].reverse();
    }
}

fn pack(lua: &Lua, args: &[Value]) -> Outcome {
    let mut format = Format::new(string_argument(lua, args, 1, "pack")?, "pack");
    let mut out = Vec::new();
    let mut at = 2;
    while let Some(item) = format.next(out.len())? {
        out.resize(out.len() + item.padding, 0);
        match item.option {
            b'x' => out.push(0),
            b'f' => {
                let number = number_to_pack(args, at)? as f32;
                put_bytes(&mut out, &number.to_le_bytes(), format.is_big);
                at += 1;
            }
            b'd' => {
                let number = number_to_pack(args, at)?;
                put_bytes(&mut out, &number.to_le_bytes(), format.is_big);
                at += 1;
            }
            b's' | b'c' => {
                let text = string_argument(lua, args, at, "pack")?;
                let len = if item.bytes == 0 {
                    text.len()
                } else {
                    item.bytes
                };
                if text.len() < len {
                    return Err(bad_argument(at + 1, "pack", "string too short"));
                }
                out.extend_from_slice(&text[..len]);
                if item.option == b's' {
                    out.push(0);
                }
                at += 1;
            }
            _ => {
                let number = integer(number_to_pack(args, at)?);
                let mut little = [0; INT_BYTES_MAX];
                little[..8].copy_from_slice(&number.to_le_bytes());
                put_bytes(&mut out, &little[..item.bytes], format.is_big);
                at += 1;
            }
        }
    }
    let text = lua.create_string(&out).map_err(|error| error.to_string())?;
    one(lua, text)
}

/// A number to pack; one that is missing counts as nil.
fn number_to_pack(args: &[Value], at: usize) -> Result<f64, Fault> {
    if args.len() < at {
        return Err(bad_argument(at, "pack", "number expected, got nil"));
    }
    number_argument(args, at, "pack")
}

/// The integer that a number stands for in the two's complement of 64 bits.
fn integer(number: f64) -> i64 {
    if number < 0.0 {
        number as i64
    } else {
        number as u64 as i64
    }
}

fn unpack(lua: &Lua, args: &[Value]) -> Outcome {
    let mut format = Format::new(string_argument(lua, args, 1, "unpack")?, "unpack");
    let data = string_argument(lua, args, 2, "unpack")?;
    let from = optional_number(args, 3, "unpack", 1.0)?;
    if from < 1.0 {
        return Err(bad_argument(3, "unpack", "offset must be 1 or greater"));
    }
    let too_short = || bad_argument(2, "unpack", "data string too short");
    let mut at = from as usize - 1;
    let mut values: Vec<Value> = Vec::new();
    let string = |bytes: &[u8]| -> Result<Value, Fault> {
        let text = lua
            .create_string(bytes)
            .map_err(|error| error.to_string())?;
        Ok(Value::String(text))
    };
    while let Some(item) = format.next(at)? {
        at += item.padding;
        let end = at.checked_add(item.bytes).filter(|end| *end <= data.len());
        let end = end.ok_or_else(too_short)?;
        let bytes = &data[at..end];
        at = end;
        match item.option {
            b'x' => {}
            b'f' => {
                let bytes = ordered::<4>(bytes, format.is_big);
                values.push(Value::Number(f64::from(f32::from_le_bytes(bytes))));
            }
            b'd' => {
                let bytes = ordered::<8>(bytes, format.is_big);
                values.push(Value::Number(f64::from_le_bytes(bytes)));
            }
            b'c' if item.bytes == 0 => {
                let len = match values.pop() {
                    Some(Value::Number(number)) => number,
                    _ => return Err("format 'c0' needs a previous size".into()),
                };
                let end = at.checked_add(len.max(0.0) as usize);
                let end = end.filter(|end| *end <= data.len()).ok_or_else(too_short)?;
                values.push(string(&data[at..end])?);
                at = end;
            }
            b'c' => values.push(string(bytes)?),
            b's' => {
                let zero = data[at..].iter().position(|byte| *byte == 0);
                let len = zero.ok_or("unfinished string in data")?;
                values.push(string(&data[at..at + len])?);
                at += len + 1;
            }
            option => {
                let is_signed = option.is_ascii_lowercase();
                values.push(Value::Number(number_of(bytes, format.is_big, is_signed)));
            }
        }
    }
    values.push(Value::Number((at + 1) as f64));
    Ok(MultiValue::from_vec(values))
}

fn ordered<const N: usize>(bytes: &[u8], is_big: bool) -> [u8; N] {
    let mut ordered: [u8; N] = bytes.try_into().expect("the item has N bytes");
    if is_big {
        ordered.reverse();
    }
    ordered
}

/// The number in these bytes; those above the eighth do not count.
fn number_of(bytes: &[u8], is_big: bool, is_signed: bool) -> f64 {
    let mut little = bytes.to_vec();
    if is_big {
        little.reverse();
    }
    little.truncate(8);
    let is_negative = is_signed && little.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if is_negative { 0xff } else { 0 }; 8];
    wide[..little.len()].copy_from_slice(&little);
    if is_signed {
        i64::from_le_bytes(wide) as f64
    } else {
        u64::from_le_bytes(wide) as f64
    }
}

fn size(lua: &Lua, args: &[Value]) -> Outcome {
    let mut format = Format::new(string_argument(lua, args, 1, "size")?, "size");
    let mut len = 0;
    while let Some(item) = format.next(len)? {
        if item.bytes == 0 {
            let name = if item.option == b's' { "s" } else { "c0" };
            let problem = format!("option '{name}' has no fixed size");
            return Err(bad_argument(1, "size", &problem));
        }
        len += item.padding + item.bytes;
    }
    one(lua, len as f64)
}
