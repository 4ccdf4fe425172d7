//! `cmsgpack`: MessagePack.

use mlua::{Lua, MultiValue, Table, Value};

use super::library::{
    Fault, Outcome, Shape, bad_argument, function, number_argument, optional_number,
    string_argument,
};

/// Tables nested deeper are packed as nil.
const PACK_DEPTH_MAX: usize = 16;
/// Values nested deeper are refused.
const UNPACK_DEPTH_MAX: usize = 500;

const BAD_FORMAT: &str = "Bad data format in input.";
const MISSING_BYTES: &str = "Missing bytes in input.";

/// The library.
pub fn library(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", function(lua, pack)?)?;
    table.raw_set(
        "unpack",
        function(lua, |lua, args| {
            let input = string_argument(lua, args, 1, "unpack")?;
            unpack(lua, &input, 0, usize::MAX, false)
        })?,
    )?;
    table.raw_set(
        "unpack_one",
        function(lua, |lua, args| {
            let input = string_argument(lua, args, 1, "unpack_one")?;
            let from = optional_number(args, 2, "unpack_one", 0.0)?;
            unpack_from(lua, &input, from, 1.0)
        })?,
    )?;
    table.raw_set(
        "unpack_limit",
        function(lua, |lua, args| {
            let input = string_argument(lua, args, 1, "unpack_limit")?;
            let limit = number_argument(args, 2, "unpack_limit")?;
            let from = optional_number(args, 3, "unpack_limit", 0.0)?;
            unpack_from(lua, &input, from, limit)
        })?,
    )?;
    Ok(table)
}

fn unpack_from(lua: &Lua, input: &[u8], from: f64, limit: f64) -> Outcome {
    if from < 0.0 || limit < 0.0 {
        return Err(format!(
            "Invalid request to unpack with offset of {from} and limit of {}.",
            input.len()
        ));
    }
    if from as usize > input.len() {
        return Err(format!(
            "Start offset {from} greater than input length {}.",
            input.len()
        ));
    }
    let limit = if limit as usize == 0 {
        usize::MAX
    } else {
        limit as usize
    };
    unpack(lua, input, from as usize, limit, true)
}

fn pack(lua: &Lua, args: &[Value]) -> Outcome {
    if args.is_empty() {
        return Err(bad_argument(0, "pack", "MessagePack pack needs input."));
    }
    let mut out = Vec::new();
    for value in args {
        put(&mut out, value, 0)?;
    }
    let text = lua.create_string(&out).map_err(|error| error.to_string())?;
    Ok(MultiValue::from_iter([Value::String(text)]))
}

fn put(out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<(), Fault> {
    match value {
        Value::String(text) => put_string(out, &text.as_bytes()),
        Value::Boolean(is_true) => out.push(if *is_true { 0xc3 } else { 0xc2 }),
        Value::Integer(number) => put_int(out, *number),
        Value::Number(number) => put_number(out, *number),
        Value::Table(table) if depth < PACK_DEPTH_MAX => put_table(out, table, depth)?,
        _ => out.push(0xc0),
    }
    Ok(())
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        len @ 0..=31 => out.push(0xa0 | len as u8),
        len @ 32..=0xff => out.extend([0xd9, len as u8]),
        len @ 0x100..=0xffff => {
            out.push(0xda);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0xdb);
            out.extend((len as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

fn put_number(out: &mut Vec<u8>, number: f64) {
    // 2^63 and above do not fit.
    if number.fract() == 0.0
        && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number)
    {
        return put_int(out, number as i64);
    }
    let short = number as f32;
    if f64::from(short) == number {
        out.push(0xca);
        out.extend(short.to_be_bytes());
    } else {
        out.push(0xcb);
        out.extend(number.to_be_bytes());
    }
}

fn put_int(out: &mut Vec<u8>, number: i64) {
    match number {
        0..=0x7f => out.push(number as u8),
        0x80..=0xff => out.extend([0xcc, number as u8]),
        0x100..=0xffff => {
            out.push(0xcd);
            out.extend((number as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xce);
            out.extend((number as u32).to_be_bytes());
        }
        0x1_0000_0000.. => {
            out.push(0xcf);
            out.extend((number as u64).to_be_bytes());
        }
        -32..=-1 => out.push(number as u8),
        -128..=-33 => out.extend([0xd0, number as u8]),
        -0x8000..=-129 => {
            out.push(0xd1);
            out.extend((number as i16).to_be_bytes());
        }
        -0x8000_0000..=-0x8001 => {
            out.push(0xd2);
            out.extend((number as i32).to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend(number.to_be_bytes());
        }
    }
}

fn put_count(out: &mut Vec<u8>, count: usize, short: u8, long: u8) {
    match count {
        0..=15 => out.push(short | count as u8),
        16..=0xffff => {
            out.push(long);
            out.extend((count as u16).to_be_bytes());
        }
        _ => {
            out.push(long + 1);
            out.extend((count as u32).to_be_bytes());
        }
    }
}

/// A table whose keys are 1 to n is an array, every other a map.
fn put_table(out: &mut Vec<u8>, table: &Table, depth: usize) -> Result<(), Fault> {
    let shape = Shape::of(table)?;
    if shape.is_array && shape.max == shape.len {
        let max = shape.max;
        put_count(out, max, 0x90, 0xdc);
        for at in 1..=max {
            let value: Value = table.raw_get(at).map_err(|error| error.to_string())?;
            put(out, &value, depth + 1)?;
        }
        return Ok(());
    }
    put_count(out, shape.len, 0x80, 0xde);
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(|error| error.to_string())?;
        put(out, &key, depth + 1)?;
        put(out, &value, depth + 1)?;
    }
    Ok(())
}

fn unpack(lua: &Lua, input: &[u8], from: usize, limit: usize, tells_end: bool) -> Outcome {
    let mut cursor = Cursor { input, at: from };
    let mut values = MultiValue::new();
    while cursor.at < input.len() && values.len() < limit {
        values.push_back(cursor.value(lua, 0)?);
    }
    if tells_end {
        // -1 says that nothing is left.
        let end = if cursor.at < input.len() {
            cursor.at as f64
        } else {
            -1.0
        };
        values.push_front(Value::Number(end));
    }
    Ok(values)
}

struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let bytes = self.input.get(self.at..self.at + N).ok_or(MISSING_BYTES)?;
        self.at += N;
        Ok(bytes.try_into().expect("N bytes"))
    }

    fn len(&mut self, bytes: usize) -> Result<usize, Fault> {
        Ok(match bytes {
            1 => usize::from(u8::from_be_bytes(self.take()?)),
            2 => usize::from(u16::from_be_bytes(self.take()?)),
            _ => u32::from_be_bytes(self.take()?) as usize,
        })
    }

    fn string(&mut self, lua: &Lua, len: usize) -> Result<Value, Fault> {
        let end = self.at.checked_add(len).ok_or(MISSING_BYTES)?;
        let bytes = self.input.get(self.at..end).ok_or(MISSING_BYTES)?;
        self.at = end;
        let text = lua
            .create_string(bytes)
            .map_err(|error| error.to_string())?;
        Ok(Value::String(text))
    }

    fn array(&mut self, lua: &Lua, len: usize, depth: usize) -> Result<Value, Fault> {
        let table = lua.create_table().map_err(|error| error.to_string())?;
        for at in 1..=len {
            let value = self.value(lua, depth + 1)?;
            table
                .raw_set(at, value)
                .map_err(|error| error.to_string())?;
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, lua: &Lua, len: usize, depth: usize) -> Result<Value, Fault> {
        let table = lua.create_table().map_err(|error| error.to_string())?;
        for _ in 0..len {
            let key = self.value(lua, depth + 1)?;
            let value = self.value(lua, depth + 1)?;
            let is_nan = matches!(key, Value::Number(number) if number.is_nan());
            if matches!(key, Value::Nil) || is_nan {
                return Err(BAD_FORMAT.into());
            }
            table
                .raw_set(key, value)
                .map_err(|error| error.to_string())?;
        }
        Ok(Value::Table(table))
    }

    fn value(&mut self, lua: &Lua, depth: usize) -> Result<Value, Fault> {
        if depth > UNPACK_DEPTH_MAX {
            return Err(BAD_FORMAT.into());
        }
        let number = |number: f64| Ok(Value::Number(number));
        match self.take::<1>()?[0] {
            byte @ 0x00..=0x7f => number(f64::from(byte)),
            byte @ 0x80..=0x8f => self.map(lua, usize::from(byte & 15), depth),
            byte @ 0x90..=0x9f => self.array(lua, usize::from(byte & 15), depth),
            byte @ 0xa0..=0xbf => self.string(lua, usize::from(byte & 31)),
            0xc0 => Ok(Value::Nil),
            0xc2 => Ok(Value::Boolean(false)),
            0xc3 => Ok(Value::Boolean(true)),
            byte @ 0xc4..=0xc6 => {
                let len = self.len(1 << (byte - 0xc4))?;
                self.string(lua, len)
            }
            0xca => number(f64::from(f32::from_be_bytes(self.take()?))),
            0xcb => number(f64::from_be_bytes(self.take()?)),
            0xcc => number(f64::from(u8::from_be_bytes(self.take()?))),
            0xcd => number(f64::from(u16::from_be_bytes(self.take()?))),
            0xce => number(f64::from(u32::from_be_bytes(self.take()?))),
            0xcf => number(u64::from_be_bytes(self.take()?) as f64),
            0xd0 => number(f64::from(i8::from_be_bytes(self.take()?))),
            0xd1 => number(f64::from(i16::from_be_bytes(self.take()?))),
            0xd2 => number(f64::from(i32::from_be_bytes(self.take()?))),
            0xd3 => number(i64::from_be_bytes(self.take()?) as f64),
            byte @ 0xd9..=0xdb => {
                let len = self.len(1 << (byte - 0xd9))?;
                self.string(lua, len)
            }
            byte @ 0xdc..=0xdd => {
                let len = self.len(2 << (byte - 0xdc))?;
                self.array(lua, len, depth)
            }
            byte @ 0xde..=0xdf => {
                let len = self.len(2 << (byte - 0xde))?;
                self.map(lua, len, depth)
            }
            byte @ 0xe0.. => number(f64::from(byte as i8)),
            _ => Err(BAD_FORMAT.into()),
        }
    }
}
