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

use dfsnap_formats::resp::{Protocol, Reply};

use super::stack::{Kind, Stack};

/// Tables nested deeper end a reply with an error.
const DEPTH_MAX: usize = 1000;

/// Puts the first of the replies on top, as a value. Returns those behind it; `None`: it is no reply. May raise.
pub fn push_reply<'r>(stack: &mut Stack, reply: &'r [u8], protocol: Protocol) -> Option<&'r [u8]> {
    stack.reserve(6);
    let (line, rest) = line_of(reply)?;
    let (marker, line) = line.split_first()?;
    match marker {
        b'+' => push_named(stack, b"ok", line),
        b'-' => push_named(stack, b"err", line),
        b'(' => push_named(stack, b"big_number", line),
        b':' => stack.push_number(number(line)? as f64),
        b'_' => push_null(stack, protocol),
        b'#' => stack.push_boolean(line == b"t"),
        b',' => {
            let number = std::str::from_utf8(line).ok()?.parse().ok()?;
            stack.push_table(0, 1);
            stack.push_bytes(b"double");
            stack.push_number(number);
            stack.set_pair(-3);
        }
        b'$' | b'=' | b'!' => return push_bulk(stack, *marker, number(line)?, rest, protocol),
        b'*' | b'>' | b'%' | b'~' | b'|' => {
            return push_aggregate(stack, *marker, number(line)?, rest, protocol);
        }
        _ => return None,
    }
    Some(rest)
}

/// Up to the end of the line, and what stands behind it.
fn line_of(reply: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = reply.iter().position(|byte| *byte == b'\r')?;
    Some((&reply[..end], reply.get(end + 2..)?))
}

fn number(line: &[u8]) -> Option<i64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

fn push_null(stack: &Stack, protocol: Protocol) {
    match protocol {
        Protocol::Resp2 => stack.push_boolean(false),
        Protocol::Resp3 => stack.push_nil(),
    }
}

/// A table of one text.
fn push_named(stack: &mut Stack, name: &[u8], text: &[u8]) {
    stack.push_table(0, 1);
    stack.push_bytes(name);
    stack.push_bytes(text);
    stack.set_pair(-3);
}

fn push_bulk<'r>(
    stack: &mut Stack,
    marker: u8,
    len: i64,
    rest: &'r [u8],
    protocol: Protocol,
) -> Option<&'r [u8]> {
    let Ok(len) = usize::try_from(len) else {
        push_null(stack, protocol);
        return Some(rest);
    };
    let bytes = rest.get(..len)?;
    match marker {
        b'$' => stack.push_bytes(bytes),
        b'!' => push_named(stack, b"err", bytes),
        _ => {
            stack.push_table(0, 1);
            stack.push_bytes(b"verbatim_string");
            stack.push_table(0, 2);
            for (name, text) in [
                (&b"format"[..], bytes.get(..3)?),
                (b"string", bytes.get(4..)?),
            ] {
                stack.push_bytes(name);
                stack.push_bytes(text);
                stack.set_pair(-3);
            }
            stack.set_pair(-3);
        }
    }
    rest.get(len + 2..)
}

fn push_aggregate<'r>(
    stack: &mut Stack,
    marker: u8,
    len: i64,
    mut rest: &'r [u8],
    protocol: Protocol,
) -> Option<&'r [u8]> {
    let Ok(len) = usize::try_from(len) else {
        push_null(stack, protocol);
        return Some(rest);
    };
    match marker {
        b'|' => {
            // What is said of a reply is not for scripts.
            for _ in 0..2 * len {
                rest = push_reply(stack, rest, protocol)?;
                stack.pop(1);
            }
            return push_reply(stack, rest, protocol);
        }
        b'%' | b'~' => {
            let is_map = marker == b'%';
            stack.push_table(0, 1);
            stack.push_bytes(if is_map { b"map" } else { b"set" });
            stack.push_table(0, len);
            for _ in 0..len {
                rest = push_reply(stack, rest, protocol)?;
                match is_map {
                    true => rest = push_reply(stack, rest, protocol)?,
                    false => stack.push_boolean(true),
                }
                stack.set_pair(-3);
            }
            stack.set_pair(-3);
        }
        _ => {
            stack.push_table(len, 0);
            for place in 1..=len {
                rest = push_reply(stack, rest, protocol)?;
                stack.set_place(-2, place);
            }
        }
    }
    Some(rest)
}

/// Writes what stands on top, which a script returned, as its reply. `protocol` is the script's own, the reply has that of the client. May raise.
pub fn put_value(reply: &mut Reply, stack: &mut Stack, protocol: Protocol) {
    put(reply, stack, protocol, 0);
}

fn put(reply: &mut Reply, stack: &mut Stack, protocol: Protocol, depth: usize) {
    match stack.kind(-1) {
        Kind::String => reply.bulk(stack.bytes(-1)),
        Kind::Boolean(is_true) if protocol == Protocol::Resp3 => reply.boolean(is_true),
        Kind::Boolean(true) => reply.int(1),
        Kind::Boolean(false) | Kind::Nil | Kind::Other => reply.null(),
        Kind::Number(number) => reply.int(truncated(number)),
        Kind::Table if depth > DEPTH_MAX => reply.error("ERR reached lua stack limit"),
        Kind::Table => put_table(reply, stack, protocol, depth + 1),
    }
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

/// Puts what the table on top has under a name above it.
fn push_field(stack: &mut Stack, name: &[u8]) -> Kind {
    stack.push_bytes(name);
    stack.get(-2);
    stack.kind(-1)
}

fn put_table(reply: &mut Reply, stack: &mut Stack, protocol: Protocol, depth: usize) {
    stack.reserve(6);
    let table = stack.len();
    if !put_special(reply, stack, protocol, depth) {
        let mark = reply.begin_array();
        let mut count = 0;
        loop {
            stack.push_place(table, count + 1);
            if stack.kind(-1) == Kind::Nil {
                break;
            }
            put(reply, stack, protocol, depth);
            stack.pop(1);
            count += 1;
        }
        reply.end_array(mark, count);
    }
    stack.keep(table);
}

/// Writes the table on top if it stands for something that is no array.
fn put_special(reply: &mut Reply, stack: &mut Stack, protocol: Protocol, depth: usize) -> bool {
    if push_field(stack, b"err") == Kind::String {
        reply.error_bytes(stack.bytes(-1));
        return true;
    }
    stack.pop(1);
    if push_field(stack, b"ok") == Kind::String {
        reply.raw(b"+");
        reply.raw(&one_line(stack.bytes(-1)));
        reply.raw(b"\r\n");
        return true;
    }
    stack.pop(1);
    if let Kind::Number(number) = push_field(stack, b"double") {
        reply.double(number);
        return true;
    }
    stack.pop(1);
    if push_field(stack, b"map") == Kind::Table {
        let mark = reply.begin_map();
        let count = put_pairs(reply, stack, protocol, depth, true);
        reply.end(mark, count);
        return true;
    }
    stack.pop(1);
    if push_field(stack, b"set") == Kind::Table {
        let mark = reply.begin_set();
        let count = put_pairs(reply, stack, protocol, depth, false);
        reply.end(mark, count);
        return true;
    }
    stack.pop(1);
    if push_field(stack, b"big_number") == Kind::String {
        reply.big_number(&one_line(stack.bytes(-1)));
        return true;
    }
    stack.pop(1);
    if push_field(stack, b"verbatim_string") == Kind::Table {
        let text = push_field(stack, b"string");
        stack.push_copy(-2);
        let format = push_field(stack, b"format");
        if text == Kind::String
            && format == Kind::String
            && let Ok(format) = <&[u8; 3]>::try_from(stack.bytes(-1))
        {
            reply.verbatim(format, stack.bytes(-3));
            return true;
        }
        stack.pop(3);
    }
    stack.pop(1);
    false
}

/// Writes the keys of the table on top, each with its value or alone. Returns how many there are.
fn put_pairs(
    reply: &mut Reply,
    stack: &mut Stack,
    protocol: Protocol,
    depth: usize,
    has_values: bool,
) -> usize {
    let mut count = 0;
    stack.push_nil();
    while stack.next(-2) {
        stack.push_copy(-2);
        put(reply, stack, protocol, depth);
        stack.pop(1);
        if has_values {
            put(reply, stack, protocol, depth);
        }
        stack.pop(1);
        count += 1;
    }
    count
}
