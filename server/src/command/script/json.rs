//! `cjson`: JSON.

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Lua, Table, Value};

use super::library::{
    Fault, Outcome, Shape, bad_argument, function, number, one, string_argument, type_name,
};

/// What scripts may set; it stays set.
struct Config {
    sparse_convert: bool,
    sparse_ratio: usize,
    sparse_safe: usize,
    encode_depth_max: usize,
    decode_depth_max: usize,
    precision: usize,
    keeps_buffer: bool,
    encode_invalid: Invalid,
    decode_invalid: bool,
}

/// What becomes of NaN and infinity.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Invalid {
    Refused,
    Written,
    Null,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_depth_max: 1000,
            decode_depth_max: 1000,
            precision: 14,
            keeps_buffer: true,
            encode_invalid: Invalid::Refused,
            decode_invalid: true,
        }
    }
}

type Shared = Rc<RefCell<Config>>;

/// The library.
pub fn library(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let config = Shared::default();
    let put = |name: &str, run: fn(&Lua, &[Value], &Shared) -> Outcome| {
        let config = config.clone();
        let made = function(lua, move |lua, args| run(lua, args, &config))?;
        table.raw_set(name, made)
    };
    put("encode", |lua, args, config| {
        if args.len() != 1 {
            return Err(bad_argument(1, "encode", "expected 1 argument"));
        }
        let mut out = Vec::new();
        encode(lua, &mut out, &args[0], &config.borrow(), 0)?;
        let text = lua.create_string(&out).map_err(|error| error.to_string())?;
        one(lua, text)
    })?;
    put("decode", |lua, args, config| {
        if args.len() != 1 {
            return Err(bad_argument(1, "decode", "expected 1 argument"));
        }
        let text = string_argument(lua, args, 1, "decode")?;
        one(lua, decode(lua, &text, &config.borrow())?)
    })?;
    put("encode_sparse_array", |_, args, config| {
        let mut config = config.borrow_mut();
        if let Some(value) = args.first() {
            config.sparse_convert = flag(value, 1, "encode_sparse_array")?;
        }
        if args.len() > 1 {
            config.sparse_ratio = count(args, 2, 0, "encode_sparse_array")?;
        }
        if args.len() > 2 {
            config.sparse_safe = count(args, 3, 0, "encode_sparse_array")?;
        }
        Ok(mlua::MultiValue::from_iter([
            Value::Boolean(config.sparse_convert),
            Value::Number(config.sparse_ratio as f64),
            Value::Number(config.sparse_safe as f64),
        ]))
    })?;
    put("encode_max_depth", |lua, args, config| {
        if !args.is_empty() {
            config.borrow_mut().encode_depth_max = count(args, 1, 1, "encode_max_depth")?;
        }
        one(lua, config.borrow().encode_depth_max as f64)
    })?;
    put("decode_max_depth", |lua, args, config| {
        if !args.is_empty() {
            config.borrow_mut().decode_depth_max = count(args, 1, 1, "decode_max_depth")?;
        }
        one(lua, config.borrow().decode_depth_max as f64)
    })?;
    put("encode_number_precision", |lua, args, config| {
        if !args.is_empty() {
            let precision = count(args, 1, 1, "encode_number_precision")?;
            if precision > 14 {
                let problem = "expected integer between 1 and 14";
                return Err(bad_argument(1, "encode_number_precision", problem));
            }
            config.borrow_mut().precision = precision;
        }
        one(lua, config.borrow().precision as f64)
    })?;
    put("encode_keep_buffer", |lua, args, config| {
        if let Some(value) = args.first() {
            config.borrow_mut().keeps_buffer = flag(value, 1, "encode_keep_buffer")?;
        }
        one(lua, config.borrow().keeps_buffer)
    })?;
    put("encode_invalid_numbers", |lua, args, config| {
        match args.first() {
            None => {}
            Some(Value::String(word)) if word.as_bytes() == b"null" => {
                config.borrow_mut().encode_invalid = Invalid::Null;
            }
            Some(value) => {
                let is_on = flag(value, 1, "encode_invalid_numbers")?;
                config.borrow_mut().encode_invalid = if is_on {
                    Invalid::Written
                } else {
                    Invalid::Refused
                };
            }
        }
        match config.borrow().encode_invalid {
            Invalid::Refused => one(lua, false),
            Invalid::Written => one(lua, true),
            Invalid::Null => one(lua, "null"),
        }
    })?;
    put("decode_invalid_numbers", |lua, args, config| {
        if let Some(value) = args.first() {
            config.borrow_mut().decode_invalid = flag(value, 1, "decode_invalid_numbers")?;
        }
        one(lua, config.borrow().decode_invalid)
    })?;
    Ok(table)
}

fn flag(value: &Value, at: usize, function: &str) -> Result<bool, Fault> {
    match value {
        Value::Boolean(is_on) => Ok(*is_on),
        Value::String(word) if word.as_bytes() == b"on" => Ok(true),
        Value::String(word) if word.as_bytes() == b"off" => Ok(false),
        Value::String(_) | Value::Number(_) | Value::Integer(_) => {
            let word = value.to_string().unwrap_or_default();
            Err(bad_argument(
                at,
                function,
                &format!("invalid option '{word}'"),
            ))
        }
        value => {
            let problem = format!("string expected, got {}", type_name(Some(value)));
            Err(bad_argument(at, function, &problem))
        }
    }
}

fn count(args: &[Value], at: usize, min: usize, function: &str) -> Result<usize, Fault> {
    let value = args.get(at - 1).and_then(number);
    let fits = |number: &f64| *number >= min as f64 && *number <= f64::from(i32::MAX);
    value
        .filter(fits)
        .map(|number| number as usize)
        .ok_or_else(|| {
            let problem = format!("expected integer between {min} and {}", i32::MAX);
            bad_argument(at, function, &problem)
        })
}

fn encode(
    lua: &Lua,
    out: &mut Vec<u8>,
    value: &Value,
    config: &Config,
    depth: usize,
) -> Result<(), Fault> {
    match value {
        Value::String(text) => put_string(out, &text.as_bytes()),
        Value::Integer(number) => put_number(lua, out, *number as f64, config)?,
        Value::Number(number) => put_number(lua, out, *number, config)?,
        Value::Boolean(is_true) => {
            out.extend_from_slice(if *is_true { b"true" } else { b"false" });
        }
        Value::Nil => out.extend_from_slice(b"null"),
        Value::LightUserData(data) if data.0.is_null() => out.extend_from_slice(b"null"),
        Value::Table(table) => put_table(lua, out, table, config, depth + 1)?,
        value => {
            return Err(format!(
                "Cannot serialise {}: type not supported",
                type_name(Some(value))
            ));
        }
    }
    Ok(())
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'/' => out.extend_from_slice(b"\\/"),
            8 => out.extend_from_slice(b"\\b"),
            9 => out.extend_from_slice(b"\\t"),
            10 => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            13 => out.extend_from_slice(b"\\r"),
            0..=31 | 127 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            byte => out.push(byte),
        }
    }
    out.push(b'"');
}

fn put_number(lua: &Lua, out: &mut Vec<u8>, number: f64, config: &Config) -> Result<(), Fault> {
    if !number.is_finite() {
        match config.encode_invalid {
            Invalid::Refused => {
                return Err("Cannot serialise number: must not be NaN or Inf".into());
            }
            Invalid::Null => out.extend_from_slice(b"null"),
            Invalid::Written if number.is_nan() => out.extend_from_slice(b"nan"),
            Invalid::Written if number > 0.0 => out.extend_from_slice(b"inf"),
            Invalid::Written => out.extend_from_slice(b"-inf"),
        }
        return Ok(());
    }
    if number.fract() == 0.0
        && number.abs() < 1e14
        && config.precision == 14
        && !(number == 0.0 && number.is_sign_negative())
    {
        out.extend_from_slice(itoa::Buffer::new().format(number as i64).as_bytes());
        return Ok(());
    }
    // Lua's own formatting is C's: %.14g and the like.
    let format: mlua::Function = lua
        .named_registry_value(super::interpreter::FORMAT)
        .map_err(|error| error.to_string())?;
    let text: mlua::LuaString = format
        .call((format!("%.{}g", config.precision), number))
        .map_err(|error| error.to_string())?;
    out.extend_from_slice(&text.as_bytes());
    Ok(())
}

fn put_table(
    lua: &Lua,
    out: &mut Vec<u8>,
    table: &Table,
    config: &Config,
    depth: usize,
) -> Result<(), Fault> {
    if depth > config.encode_depth_max {
        return Err(format!("Cannot serialise, excessive nesting ({depth})"));
    }
    let Shape {
        len,
        max,
        mut is_array,
    } = Shape::of(table)?;
    let is_sparse = config.sparse_ratio > 0
        && max > len.saturating_mul(config.sparse_ratio)
        && max > config.sparse_safe;
    if is_array && is_sparse {
        if !config.sparse_convert {
            return Err("Cannot serialise table: excessively sparse array".into());
        }
        is_array = false;
    }
    if is_array && max > 0 {
        out.push(b'[');
        for at in 1..=max {
            if at > 1 {
                out.push(b',');
            }
            let value: Value = table.raw_get(at).map_err(|error| error.to_string())?;
            encode(lua, out, &value, config, depth)?;
        }
        out.push(b']');
        return Ok(());
    }
    out.push(b'{');
    for (at, pair) in table.pairs::<Value, Value>().enumerate() {
        let (key, value) = pair.map_err(|error| error.to_string())?;
        if at > 0 {
            out.push(b',');
        }
        match &key {
            Value::String(text) => put_string(out, &text.as_bytes()),
            Value::Integer(_) | Value::Number(_) => {
                out.push(b'"');
                put_number(lua, out, number(&key).expect("it is a number"), config)?;
                out.push(b'"');
            }
            key => {
                return Err(format!(
                    "Cannot serialise {}: table key must be a number or string",
                    type_name(Some(key))
                ));
            }
        }
        out.push(b':');
        encode(lua, out, &value, config, depth)?;
    }
    out.push(b'}');
    Ok(())
}

fn decode(lua: &Lua, text: &[u8], config: &Config) -> Result<Value, Fault> {
    // The first two bytes of any text are ASCII.
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err("JSON parser does not support UTF-16 or UTF-32".into());
    }
    let mut parser = Parser {
        lua,
        text,
        at: 0,
        config,
    };
    let token = parser.next();
    let value = parser.value(token, 0)?;
    let token = parser.next();
    if !matches!(token.kind, Kind::End) {
        return Err(token.unexpected("the end"));
    }
    Ok(value)
}

enum Kind {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

struct Token {
    kind: Kind,
    /// Where it stands, from 0.
    at: usize,
}

impl Token {
    fn unexpected(&self, wanted: &str) -> Fault {
        let found = match self.kind {
            Kind::ObjectBegin => "T_OBJ_BEGIN",
            Kind::ObjectEnd => "T_OBJ_END",
            Kind::ArrayBegin => "T_ARR_BEGIN",
            Kind::ArrayEnd => "T_ARR_END",
            Kind::Text(_) => "T_STRING",
            Kind::Number(_) => "T_NUMBER",
            Kind::Boolean(_) => "T_BOOLEAN",
            Kind::Null => "T_NULL",
            Kind::Colon => "T_COLON",
            Kind::Comma => "T_COMMA",
            Kind::End => "T_END",
            Kind::Error(text) => text,
        };
        format!(
            "Expected {wanted} but found {found} at character {}",
            self.at + 1
        )
    }
}

struct Parser<'a> {
    lua: &'a Lua,
    text: &'a [u8],
    at: usize,
    config: &'a Config,
}

impl Parser<'_> {
    fn value(&mut self, token: Token, depth: usize) -> Result<Value, Fault> {
        Ok(match token.kind {
            Kind::Text(text) => {
                let text = self.lua.create_string(&text);
                Value::String(text.map_err(|error| error.to_string())?)
            }
            Kind::Number(number) => Value::Number(number),
            Kind::Boolean(is_true) => Value::Boolean(is_true),
            Kind::Null => Value::NULL,
            Kind::ObjectBegin => self.object(depth + 1)?,
            Kind::ArrayBegin => self.array(depth + 1)?,
            _ => return Err(token.unexpected("value")),
        })
    }

    fn descend(&self, depth: usize) -> Result<Table, Fault> {
        if depth > self.config.decode_depth_max {
            return Err(format!(
                "Found too many nested data structures ({depth}) at character {}",
                self.at
            ));
        }
        self.lua.create_table().map_err(|error| error.to_string())
    }

    fn object(&mut self, depth: usize) -> Result<Value, Fault> {
        let table = self.descend(depth)?;
        let mut token = self.next();
        if matches!(token.kind, Kind::ObjectEnd) {
            return Ok(Value::Table(table));
        }
        loop {
            let Kind::Text(name) = &token.kind else {
                return Err(token.unexpected("object key string"));
            };
            let name = self
                .lua
                .create_string(name)
                .map_err(|error| error.to_string())?;
            let colon = self.next();
            if !matches!(colon.kind, Kind::Colon) {
                return Err(colon.unexpected("colon"));
            }
            let first = self.next();
            let value = self.value(first, depth)?;
            table
                .raw_set(name, value)
                .map_err(|error| error.to_string())?;
            token = self.next();
            match token.kind {
                Kind::ObjectEnd => return Ok(Value::Table(table)),
                Kind::Comma => token = self.next(),
                _ => return Err(token.unexpected("comma or object end")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Fault> {
        let table = self.descend(depth)?;
        let mut token = self.next();
        if matches!(token.kind, Kind::ArrayEnd) {
            return Ok(Value::Table(table));
        }
        for at in 1.. {
            let value = self.value(token, depth)?;
            table
                .raw_set(at, value)
                .map_err(|error| error.to_string())?;
            token = self.next();
            match token.kind {
                Kind::ArrayEnd => break,
                Kind::Comma => token = self.next(),
                _ => return Err(token.unexpected("comma or array end")),
            }
        }
        Ok(Value::Table(table))
    }

    fn next(&mut self) -> Token {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let at = self.at;
        let rest = &self.text[at..];
        let (kind, len) = match rest.first() {
            None | Some(0) => (Kind::End, 0),
            Some(b'{') => (Kind::ObjectBegin, 1),
            Some(b'}') => (Kind::ObjectEnd, 1),
            Some(b'[') => (Kind::ArrayBegin, 1),
            Some(b']') => (Kind::ArrayEnd, 1),
            Some(b',') => (Kind::Comma, 1),
            Some(b':') => (Kind::Colon, 1),
            Some(b'"') => return self.string(),
            _ if rest.starts_with(b"true") => (Kind::Boolean(true), 4),
            _ if rest.starts_with(b"false") => (Kind::Boolean(false), 5),
            _ if rest.starts_with(b"null") => (Kind::Null, 4),
            Some(b'-' | b'0'..=b'9' | b'i' | b'I' | b'n' | b'N') => self.number(rest),
            Some(_) => (Kind::Error("invalid token"), 0),
        };
        self.at += len;
        Token { kind, at }
    }

    /// The longest number that stands here, as C reads it.
    fn number(&self, rest: &[u8]) -> (Kind, usize) {
        let is_part =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let longest = rest
            .iter()
            .position(|byte| !is_part(byte))
            .unwrap_or(rest.len());
        let found = (1..=longest).rev().find_map(|len| {
            let text = &rest[..len];
            let number = dfsnap_formats::double::parse(text);
            let digits = text.strip_prefix(b"-").unwrap_or(text);
            let nan = digits.eq_ignore_ascii_case(b"nan").then_some(f64::NAN);
            Some((number.or(nan)?, len))
        });
        let is_plain = |len: usize| {
            let digits = rest[..len].strip_prefix(b"-").unwrap_or(&rest[..len]);
            let has_zero = digits.len() > 1
                && digits[0] == b'0'
                && digits[1] != b'.'
                && !digits[1].eq_ignore_ascii_case(&b'e');
            digits.first().is_some_and(u8::is_ascii_digit) && !has_zero
        };
        match found {
            Some((_, len)) if !self.config.decode_invalid && !is_plain(len) => {
                (Kind::Error("invalid number"), 0)
            }
            Some((number, len)) => (Kind::Number(number), len),
            None if rest[0] == b'-' || rest[0].is_ascii_digit() => {
                (Kind::Error("invalid number"), 0)
            }
            None => (Kind::Error("invalid token"), 0),
        }
    }

    fn string(&mut self) -> Token {
        let start = self.at;
        let error = |text, at| Token {
            kind: Kind::Error(text),
            at,
        };
        let mut out = Vec::new();
        let mut at = start + 1;
        loop {
            match self.text.get(at) {
                None | Some(0) => return error("unexpected end of string", at),
                Some(b'"') => break,
                Some(b'\\') => {
                    let plain = match self.text.get(at + 1) {
                        Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
                        Some(b'b') => 8,
                        Some(b't') => 9,
                        Some(b'n') => 10,
                        Some(b'f') => 12,
                        Some(b'r') => 13,
                        Some(b'u') => {
                            let Some((code, len)) = code_point(&self.text[at..]) else {
                                return error("invalid unicode escape code", at);
                            };
                            out.extend_from_slice(code.encode_utf8(&mut [0; 4]).as_bytes());
                            at += len;
                            continue;
                        }
                        _ => return error("invalid escape code", at),
                    };
                    out.push(plain);
                    at += 2;
                }
                Some(byte) => {
                    out.push(*byte);
                    at += 1;
                }
            }
        }
        self.at = at + 1;
        Token {
            kind: Kind::Text(out),
            at: start,
        }
    }
}

/// The character of `\uXXXX`, or of two of them that are a surrogate pair, and the bytes it takes.
fn code_point(text: &[u8]) -> Option<(char, usize)> {
    let unit = |text: &[u8]| {
        let digits = text.strip_prefix(b"\\u")?.get(..4)?;
        let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
        let digits = std::str::from_utf8(digits).ok().filter(|_| is_hex)?;
        u32::from_str_radix(digits, 16).ok()
    };
    let first = unit(text)?;
    match first {
        0xd800..=0xdbff => {
            let second = unit(&text[6..]).filter(|unit| (0xdc00..=0xdfff).contains(unit))?;
            let code = 0x10000 + ((first & 0x3ff) << 10 | (second & 0x3ff));
            Some((char::from_u32(code)?, 12))
        }
        code => Some((char::from_u32(code)?, 6)),
    }
}
