//! How the debugger shows things: values of Lua and replies.
//!
//! Invariants
//! - Nothing here raises an error in Lua, so what is being put together may be held: the caller has made [`ROOM`] on the stack before.

use crate::command::script::stack::{Kind, Stack};

/// Tables in tables are shown down to this depth.
const DEPTH_MAX: usize = 10;
/// Places on the stack that showing a value takes at most: of each table itself, what it stands for, a key and a value.
pub const ROOM: i32 = 4 * DEPTH_MAX as i32 + 4;

/// Appends bytes in quotes.
pub fn put_quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'\\' | b'"' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0x07 => out.extend(b"\\a"),
            0x08 => out.extend(b"\\b"),
            b' '..=b'~' => out.push(byte),
            byte => out.extend(format!("\\x{byte:02x}").bytes()),
        }
    }
    out.push(b'"');
}

/// A number in at most six digits, as C's `%g` writes it.
pub fn short_number(number: f64) -> String {
    if number.is_nan() {
        let sign = if number.is_sign_negative() { "-" } else { "" };
        return format!("{sign}nan");
    }
    if number.is_infinite() {
        return if number < 0.0 { "-inf" } else { "inf" }.into();
    }
    if number == 0.0 {
        return if number.is_sign_negative() { "-0" } else { "0" }.into();
    }
    // Six digits, rounded, and the exponent that they have then.
    let scientific = format!("{number:.5e}");
    let (digits, exponent) = scientific.split_once('e').expect("an exponent");
    let exponent: i32 = exponent.parse().expect("digits");
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..6).contains(&exponent) {
        let decimals = usize::try_from(5 - exponent).unwrap_or(0);
        return trimmed(&format!("{number:.decimals$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(digits), exponent.abs())
}

/// Appends the value on top.
pub fn put_value(out: &mut Vec<u8>, stack: &mut Stack) {
    put(out, stack, 0);
}

fn put(out: &mut Vec<u8>, stack: &mut Stack, depth: usize) {
    if depth == DEPTH_MAX {
        out.extend(b"<max recursion level reached! Nested table?>");
        return;
    }
    match stack.kind(-1) {
        Kind::String => put_quoted(out, stack.bytes(-1)),
        Kind::Boolean(is_true) => out.extend(is_true.to_string().bytes()),
        Kind::Number(number) => out.extend(short_number(number).bytes()),
        Kind::Nil => out.extend(b"nil"),
        Kind::Table => put_table(out, stack, depth + 1),
        Kind::Other => {
            let (kind, place) = stack.object(-1);
            out.extend(format!("\"{kind}@{place:#x}\"").bytes());
        }
    }
}

/// Appends the table on top: as a list if its keys are 1, 2, 3 and so on in the order that it is walked.
fn put_table(out: &mut Vec<u8>, stack: &mut Stack, depth: usize) {
    let bottom = stack.len();
    push_real(stack);
    let (mut list, mut pairs) = (Vec::new(), Vec::new());
    let (mut is_list, mut count) = (true, 0);
    stack.push_nil();
    while stack.next(-2) {
        if count > 0 {
            list.extend(b"; ");
            pairs.extend(b"; ");
        }
        count += 1;
        let mut value = Vec::new();
        put(&mut value, stack, depth);
        is_list &= stack.kind(-2) == Kind::Number(f64::from(count));
        if is_list {
            list.extend(&value);
        }
        stack.pop(1);
        pairs.push(b'[');
        put(&mut pairs, stack, depth);
        pairs.extend(b"]=");
        pairs.extend(value);
    }
    stack.keep(bottom);
    out.push(b'{');
    out.extend(if is_list { list } else { pairs });
    out.push(b'}');
}

/// Puts the table on top there once more, or the one that it stands in for.
fn push_real(stack: &mut Stack) {
    let bottom = stack.len();
    if stack.push_meta(-1) {
        stack.push_place(-1, 1);
        if stack.kind(-1) == Kind::Table {
            return;
        }
        stack.keep(bottom);
    }
    stack.push_copy(-1);
}

/// Appends a reply of a command, and gives what stands behind it; `None` if it is none.
pub fn put_reply<'r>(out: &mut Vec<u8>, reply: &'r [u8]) -> Option<&'r [u8]> {
    let (marker, rest) = reply.split_first()?;
    let end = rest.iter().position(|byte| *byte == b'\r')?;
    let (line, rest) = (&rest[..end], rest.get(end + 2..)?);
    let len = || std::str::from_utf8(line).ok()?.parse::<i64>().ok();
    match marker {
        b':' => out.extend(line),
        b'+' | b'-' => put_quoted(out, &reply[..=end]),
        b'_' => out.extend(b"(null)"),
        b'#' => out.extend(if line == b"t" {
            &b"#true"[..]
        } else {
            b"#false"
        }),
        b',' => {
            out.extend(b"(double) ");
            out.extend(line);
        }
        b'$' => {
            let Ok(len) = usize::try_from(len()?) else {
                out.extend(b"NULL");
                return Some(rest);
            };
            put_quoted(out, rest.get(..len)?);
            return rest.get(len + 2..);
        }
        b'*' => {
            let Ok(len) = usize::try_from(len()?) else {
                out.extend(b"NULL");
                return Some(rest);
            };
            return put_elements(out, rest, (len, 1), [b"[", b"]"]);
        }
        b'~' => return put_elements(out, rest, (usize::try_from(len()?).ok()?, 1), [b"~(", b")"]),
        b'%' => return put_elements(out, rest, (usize::try_from(len()?).ok()?, 2), [b"{", b"}"]),
        _ => return None,
    }
    Some(rest)
}

/// Appends so many elements of so many values each, between two marks.
fn put_elements<'r>(
    out: &mut Vec<u8>,
    mut rest: &'r [u8],
    (len, width): (usize, usize),
    [open, close]: [&[u8]; 2],
) -> Option<&'r [u8]> {
    out.extend(open);
    for at in 0..len {
        if at > 0 {
            out.push(b',');
        }
        for value in 0..width {
            if value > 0 {
                out.extend(b" => ");
            }
            rest = put_reply(out, rest)?;
        }
    }
    out.extend(close);
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_c_writes_them() {
        let rows = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (3.5, "3.5"),
            (0.1, "0.1"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.23457e+06"),
            (999_999.5, "1e+06"),
            (0.0001, "0.0001"),
            (0.000_01, "1e-05"),
            (1e20, "1e+20"),
            (1e100, "1e+100"),
            (-2.5e-7, "-2.5e-07"),
            (100_000.0, "100000"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (number, want) in rows {
            assert_eq!(short_number(number), want, "{number}");
        }
    }

    #[test]
    fn replies_are_shown_as_people_read_them() {
        let rows = [
            ("number", ":5\r\n", "5"),
            ("status", "+OK\r\n", "\"+OK\""),
            ("error", "-ERR no\r\n", "\"-ERR no\""),
            ("bulk", "$3\r\na\"b\r\n", "\"a\\\"b\""),
            ("none", "$-1\r\n", "NULL"),
            ("no array", "*-1\r\n", "NULL"),
            ("array", "*2\r\n:1\r\n*1\r\n$1\r\nx\r\n", "[1,[\"x\"]]"),
            ("empty", "*0\r\n", "[]"),
            ("set", "~2\r\n:1\r\n:2\r\n", "~(1,2)"),
            (
                "map",
                "%2\r\n:1\r\n_\r\n:2\r\n#t\r\n",
                "{1 => (null),2 => #true}",
            ),
            ("double", ",1.5\r\n", "(double) 1.5"),
        ];
        for (name, reply, want) in rows {
            let mut out = Vec::new();
            let rest = put_reply(&mut out, reply.as_bytes());
            assert_eq!(rest, Some(&b""[..]), "{name}");
            assert_eq!(String::from_utf8(out).unwrap(), want, "{name}");
        }
    }

    #[test]
    fn short_replies_are_no_panic() {
        let whole = b"*2\r\n$3\r\nabc\r\n%1\r\n:1\r\n,2\r\n";
        for end in 0..whole.len() {
            assert_eq!(put_reply(&mut Vec::new(), &whole[..end]), None, "{end}");
        }
    }
}
