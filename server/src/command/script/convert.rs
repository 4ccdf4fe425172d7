//! Between replies of commands and values of scripts.
//!
//! | reply | script, RESP2 | script, RESP3 | reply of a script |
//! | --- | --- | --- | --- |
//! | integer | number | number | number, without its fraction |
//! | string | string | string | string |
//! | status, error | `{ok=…}`, `{err=…}` | the same | the same |
//! | array | table | table | table up to its first nil |
//! | null | `false` | `nil` | `nil`, and `false` under RESP2 |
//! | map, set | – | `{map={…}}`, `{set={…}}` | the same |
//! | double, boolean | – | `{double=…}`, `true` | the same; `true` is 1 under RESP2 |
//! | big number, verbatim | – | `{big_number=…}`, `{verbatim_string={…}}` | the same |

use dfsnap_formats::resp::{Frame, Protocol, Reply};
use mlua::{Lua, Table, Value};

/// Tables nested deeper end a reply with an error.
const DEPTH_MAX: usize = 1000;

/// A reply that is one string, number or status, as a value. `None`: it is another, or more.
pub fn single_value(lua: &Lua, reply: &[u8]) -> mlua::Result<Option<Value>> {
    let line = match reply.iter().position(|byte| *byte == b'\r') {
        Some(end) if end > 0 => &reply[1..end],
        _ => return Ok(None),
    };
    let number = || std::str::from_utf8(line).ok()?.parse::<i64>().ok();
    let value = match reply[0] {
        b':' => number().map(|number| Value::Number(number as f64)),
        b'+' if reply.len() == line.len() + 3 => {
            let table = lua.create_table_with_capacity(0, 1)?;
            table.raw_set("ok", lua.create_string(line)?)?;
            Some(Value::Table(table))
        }
        b'$' => {
            let start = line.len() + 3;
            let bytes = number()
                .and_then(|len| usize::try_from(len).ok())
                .and_then(|len| reply.get(start..start + len));
            match bytes {
                Some(bytes) => Some(Value::String(lua.create_string(bytes)?)),
                None => None,
            }
        }
        _ => None,
    };
    Ok(value)
}

/// A reply as a value.
pub fn to_value(lua: &Lua, frame: Frame, protocol: Protocol) -> mlua::Result<Value> {
    let single = |name: &str, value: Value| -> mlua::Result<Value> {
        let table = lua.create_table_with_capacity(0, 1)?;
        table.raw_set(name, value)?;
        Ok(Value::Table(table))
    };
    let string = |bytes: &[u8]| Ok::<_, mlua::Error>(Value::String(lua.create_string(bytes)?));
    match frame {
        Frame::Simple(text) => single("ok", string(&text)?),
        Frame::Error(text) => single("err", string(&text)?),
        Frame::Int(number) => Ok(Value::Number(number as f64)),
        Frame::Bulk(bytes) => string(&bytes),
        Frame::Null if protocol == Protocol::Resp3 => Ok(Value::Nil),
        Frame::Null => Ok(Value::Boolean(false)),
        Frame::Array(items) | Frame::Push(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (at, item) in items.into_iter().enumerate() {
                table.raw_set(at + 1, to_value(lua, item, protocol)?)?;
            }
            Ok(Value::Table(table))
        }
        Frame::Map(pairs) => {
            let table = lua.create_table_with_capacity(0, pairs.len())?;
            for (key, value) in pairs {
                let key = to_value(lua, key, protocol)?;
                table.raw_set(key, to_value(lua, value, protocol)?)?;
            }
            single("map", Value::Table(table))
        }
        Frame::Set(items) => {
            let table = lua.create_table_with_capacity(0, items.len())?;
            for item in items {
                table.raw_set(to_value(lua, item, protocol)?, true)?;
            }
            single("set", Value::Table(table))
        }
        Frame::Double(number) => single("double", Value::Number(number)),
        Frame::Boolean(is_true) => Ok(Value::Boolean(is_true)),
        Frame::BigNumber(digits) => single("big_number", string(&digits)?),
        Frame::Verbatim { ext, text } => {
            let table = lua.create_table_with_capacity(0, 2)?;
            table.raw_set("format", string(&ext)?)?;
            table.raw_set("string", string(&text)?)?;
            single("verbatim_string", Value::Table(table))
        }
    }
}

/// What a script returned, as its reply. `protocol` is the script's own, the reply has that of the client.
pub fn put_value(reply: &mut Reply, value: &Value, protocol: Protocol) -> mlua::Result<()> {
    put(reply, value, protocol, 0)
}

fn put(reply: &mut Reply, value: &Value, protocol: Protocol, depth: usize) -> mlua::Result<()> {
    match value {
        Value::String(bytes) => reply.bulk(&bytes.as_bytes()),
        Value::Boolean(is_true) if protocol == Protocol::Resp3 => reply.boolean(*is_true),
        Value::Boolean(true) => reply.int(1),
        Value::Boolean(false) => reply.null(),
        Value::Integer(number) => reply.int(*number),
        Value::Number(number) => reply.int(truncated(*number)),
        Value::Table(_) if depth > DEPTH_MAX => reply.error("ERR reached lua stack limit"),
        Value::Table(table) => put_table(reply, table, protocol, depth + 1)?,
        _ => reply.null(),
    }
    Ok(())
}

/// The number without its fraction; one that does not fit is the least, as the processor makes it.
fn truncated(number: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&number) {
        number as i64
    } else {
        i64::MIN
    }
}

/// Line ends would break a reply of one line.
fn one_line(text: &[u8]) -> Vec<u8> {
    let blank = |byte: &u8| match byte {
        b'\r' | b'\n' => b' ',
        byte => *byte,
    };
    text.iter().map(blank).collect()
}

fn put_table(
    reply: &mut Reply,
    table: &Table,
    protocol: Protocol,
    depth: usize,
) -> mlua::Result<()> {
    if let Value::String(text) = table.raw_get("err")? {
        reply.error_bytes(&one_line(&text.as_bytes()));
        return Ok(());
    }
    if let Value::String(text) = table.raw_get("ok")? {
        reply.raw(b"+");
        reply.raw(&one_line(&text.as_bytes()));
        reply.raw(b"\r\n");
        return Ok(());
    }
    match table.raw_get("double")? {
        Value::Number(number) => {
            reply.double(number);
            return Ok(());
        }
        Value::Integer(number) => {
            reply.double(number as f64);
            return Ok(());
        }
        _ => {}
    }
    if let Value::Table(map) = table.raw_get("map")? {
        let mark = reply.begin_map();
        let mut count = 0;
        for pair in map.pairs::<Value, Value>() {
            let (key, value) = pair?;
            put(reply, &key, protocol, depth)?;
            put(reply, &value, protocol, depth)?;
            count += 1;
        }
        reply.end(mark, count);
        return Ok(());
    }
    if let Value::Table(set) = table.raw_get("set")? {
        let mark = reply.begin_set();
        let mut count = 0;
        for pair in set.pairs::<Value, Value>() {
            put(reply, &pair?.0, protocol, depth)?;
            count += 1;
        }
        reply.end(mark, count);
        return Ok(());
    }
    if let Value::String(digits) = table.raw_get("big_number")? {
        reply.big_number(&one_line(&digits.as_bytes()));
        return Ok(());
    }
    if let Value::Table(verbatim) = table.raw_get("verbatim_string")? {
        let (text, format): (Value, Value) =
            (verbatim.raw_get("string")?, verbatim.raw_get("format")?);
        if let (Value::String(text), Value::String(format)) = (text, format)
            && let Ok(format) = <[u8; 3]>::try_from(&*format.as_bytes())
        {
            reply.verbatim(&format, &text.as_bytes());
            return Ok(());
        }
    }
    let mark = reply.begin_array();
    let mut count = 0;
    loop {
        let value: Value = table.raw_get(count + 1)?;
        if value.is_nil() {
            break;
        }
        put(reply, &value, protocol, depth)?;
        count += 1;
    }
    reply.end_array(mark, count);
    Ok(())
}
