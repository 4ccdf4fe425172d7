//! SORT and SORT_RO.
//!
//! Patterns name keys that the command does not list, so a sort runs with all shards at once.

use std::cmp::Ordering;

use dfsnap_formats::double;
use dfsnap_formats::encoding::listpack::Element;

use super::collection::elements;
use super::script::running;
use super::words::{int, is};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::keyspace::value::list::{End, List};
use crate::keyspace::value::{Collection, Value};

const SORT: KeySpec = KeySpec::Custom(sort_keys);

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("sort", -2, Flags::WRITE_OOM.with(Flags::MOVABLEKEYS), SORT, sort).everywhere()
        .about(Group::Generic, "1.0.0", "The elements of a collection in order."),
    Command::keyed("sort_ro", -2, Flags::READONLY.with(Flags::MOVABLEKEYS), KeySpec::ONE, sort).everywhere()
        .about(Group::Generic, "7.0.0", "The elements of a collection in order, never stored."),
];

/// Whether a command of this module works on no other keys than its words name.
pub fn is_bound(command: &Command, args: Args<'_>) -> bool {
    COMMANDS.iter().any(|row| row.name == command.name)
        // Options that do not parse name nothing either.
        && Request::parse(args).is_ok_and(|request| !request.names_keys())
}

fn sort_keys(args: Args<'_>, positions: &mut Vec<usize>) {
    positions.push(1);
    let last = (2..args.len().saturating_sub(1)).rfind(|at| is(args[*at], "store"));
    positions.extend(last.map(|at| at + 1));
}

#[derive(Default)]
struct Request<'a> {
    by: Option<&'a [u8]>,
    get: Vec<&'a [u8]>,
    limit: Option<(i64, i64)>,
    is_descending: bool,
    is_alpha: bool,
    store: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    fn parse(args: Args<'a>) -> Result<Request<'a>, CommandError> {
        let mut request = Request::default();
        let mut words = &args[2..];
        loop {
            words = match words {
                [] => return Ok(request),
                [word, rest @ ..] if is(word, "asc") => {
                    request.is_descending = false;
                    rest
                }
                [word, rest @ ..] if is(word, "desc") => {
                    request.is_descending = true;
                    rest
                }
                [word, rest @ ..] if is(word, "alpha") => {
                    request.is_alpha = true;
                    rest
                }
                [word, start, count, rest @ ..] if is(word, "limit") => {
                    request.limit = Some((int(start)?, int(count)?));
                    rest
                }
                [word, key, rest @ ..] if is(word, "store") && is(args[0], "sort") => {
                    request.store = Some(key);
                    rest
                }
                [word, pattern, rest @ ..] if is(word, "by") => {
                    request.by = Some(pattern);
                    rest
                }
                [word, pattern, rest @ ..] if is(word, "get") => {
                    request.get.push(pattern);
                    rest
                }
                _ => return Err(CommandError::SYNTAX),
            };
        }
    }

    /// Whether it looks up keys that its words do not name.
    fn names_keys(&self) -> bool {
        let names = |pattern: &&[u8]| pattern.contains(&b'*');
        self.by.iter().chain(&self.get).any(names)
    }

    /// The part of `len` sorted elements that is asked for.
    fn window(&self, len: usize) -> std::ops::Range<usize> {
        let (start, count) = self.limit.unwrap_or((0, -1));
        let start = usize::try_from(start.max(0)).unwrap_or(usize::MAX).min(len);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        start..start.saturating_add(count).min(len)
    }
}

/// What an element is ordered by.
enum Weight {
    Number(f64),
    Text(Option<Vec<u8>>),
}

fn sort(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let mut request = Request::parse(args)?;
    let is_dont_sort = request.by.is_some_and(|by| !by.contains(&b'*'));
    let len = exec.peek(args[1]).map(|entry| elements(entry.value()));
    if exec.is_too_long(len.unwrap_or(0)) && !request.names_keys() {
        return Ok(Effect::Aside);
    }
    let (mut elements, is_set) = match exec.read(args[1]).map(|entry| entry.value()) {
        None => (Vec::new(), false),
        Some(Value::List(list)) => (list.iter().map(Element::to_vec).collect(), false),
        Some(Value::Set(set)) => (set.iter().map(Element::to_vec).collect(), true),
        Some(Value::ZSet(set)) => (
            set.iter().map(|(member, _)| member.to_vec()).collect(),
            false,
        ),
        Some(_) => return Err(CommandError::WRONG_TYPE),
    };
    if is_dont_sort && is_set && (request.store.is_some() || running::is_here()) {
        // A set has no order of its own: replicas must store the same list, and scripts go on with the same elements.
        (request.by, request.is_alpha) = (None, true);
        put_in_order(exec, &mut elements, &request)?;
    } else if !is_dont_sort {
        put_in_order(exec, &mut elements, &request)?;
    } else if !is_set && request.is_descending {
        // Lists and sorted sets have an order of their own.
        elements.reverse();
    }
    let window = request.window(elements.len());
    let mut output: Vec<Option<Vec<u8>>> = Vec::new();
    for element in elements.drain(window) {
        if request.get.is_empty() {
            output.push(Some(element));
            continue;
        }
        for pattern in &request.get {
            output.push(look_up(exec, pattern, &element));
        }
    }
    let Some(destination) = request.store else {
        exec.reply.array(output.len());
        for element in &output {
            match element {
                Some(element) => exec.reply.bulk(element),
                None => exec.reply.null(),
            }
        }
        return Ok(Effect::None);
    };
    exec.reply.int(output.len() as i64);
    let gone = exec
        .remove(destination)
        .map(crate::keyspace::release::drop_entry);
    if output.is_empty() {
        return Ok(Effect::verbatim_if(gone.is_some()));
    }
    let limits = &exec.settings.limits;
    let mut list = List::new();
    for element in &output {
        list.push(End::Right, element.as_deref().unwrap_or(b""), limits);
    }
    exec.set(destination, list.into_value());
    Ok(Effect::Verbatim)
}

fn put_in_order(
    exec: &mut Exec<'_>,
    elements: &mut Vec<Vec<u8>>,
    request: &Request<'_>,
) -> Result<(), CommandError> {
    const NOT_DOUBLE: CommandError =
        CommandError::text("ERR One or more scores can't be converted into double");
    let mut weighted = Vec::with_capacity(elements.len());
    for element in elements.drain(..) {
        let text = match request.by {
            Some(pattern) => look_up(exec, pattern, &element),
            None => Some(element.clone()),
        };
        let weight = match (request.is_alpha, text) {
            (true, text) => Weight::Text(text),
            // A key that is missing weighs nothing.
            (false, None) => Weight::Number(0.0),
            (false, Some(text)) => Weight::Number(number_in(&text).ok_or(NOT_DOUBLE)?),
        };
        weighted.push((weight, element));
    }
    weighted.sort_by(|(a, x), (b, y)| {
        let order = match (a, b) {
            (Weight::Number(a), Weight::Number(b)) => a
                .partial_cmp(b)
                .unwrap_or(Ordering::Equal)
                .then_with(|| x.cmp(y)),
            (Weight::Text(a), Weight::Text(b)) => a.cmp(b),
            _ => unreachable!("all weights are of one kind"),
        };
        if request.is_descending {
            order.reverse()
        } else {
            order
        }
    });
    elements.extend(weighted.into_iter().map(|(_, element)| element));
    Ok(())
}

/// What Redis takes a weight for: `strtod` reads it as a C string, which ends at a zero byte; nothing is zero.
fn number_in(text: &[u8]) -> Option<f64> {
    let end = text.iter().position(|byte| *byte == 0);
    let text = &text[..end.unwrap_or(text.len())];
    if text.is_empty() {
        return Some(0.0);
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let digits = text.iter().position(|byte| !is_blank(byte))?;
    double::parse(&text[digits..]).filter(|number| !number.is_nan())
}

/// The string that a pattern names for an element: `#` the element itself, `a*b` a key, `a*b->f` a field of a hash.
fn look_up(exec: &mut Exec<'_>, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    if pattern == b"#" {
        return Some(element.to_vec());
    }
    let star = pattern.iter().position(|byte| *byte == b'*')?;
    let (head, tail) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = tail
        .windows(2)
        .position(|pair| pair == b"->")
        .filter(|at| at + 2 < tail.len());
    let (tail, field) = match arrow {
        Some(at) => (&tail[..at], Some(&tail[at + 2..])),
        None => (tail, None),
    };
    let key = [head, element, tail].concat();
    let clock = exec.field_clock();
    let value = exec.read(&key)?.value();
    match (value, field) {
        (Value::Hash(hash), Some(field)) => hash.at(clock).get(field).map(Element::to_vec),
        (_, Some(_)) => None,
        (value, None) => value.as_string().map(|bytes| bytes.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, compare_with_redis};

    #[test]
    fn replies_are_those_of_redis() {
        compare_with_redis(
            r#"
            SET str v
            RPUSH l 3 1 2 10
            RPUSH w banana apple cherry
            RPUSH odd "" 0x10 "\x001" "-3\x00x" " 7" "\t1"
            SORT odd
            RPUSH blank " " 1
            SORT blank
            SADD s 5 3 9
            ZADD z 3 a 1 b 2 c
            MSET w_1 30 w_2 20 w_3 10 o_1 x o_2 y
            HSET h_1 f 5 g one
            HSET h_2 f 4 g two
            SORT l
            SORT l DESC
            SORT l ALPHA
            SORT l ALPHA DESC
            SORT w ALPHA
            SORT w
            SORT s
            SORT s DESC LIMIT 0 2
            SORT l LIMIT 1 2
            SORT l LIMIT -1 2
            SORT l LIMIT 5 2
            SORT l LIMIT 1 -1
            SORT l LIMIT x 1
            SORT l BY w_*
            SORT l BY w_* DESC
            SORT l BY h_*->f
            SORT l BY nosort
            SORT l BY nosort LIMIT 1 2
            SORT z BY nosort
            SORT z BY nosort DESC
            SORT z BY nosort DESC LIMIT 0 1
            SORT z ALPHA
            SORT l GET # GET o_* GET h_*->g
            SORT l BY o_* ALPHA
            SORT l GET nope
            SORT none
            SORT none STORE d
            SORT str
            SORT l STORE d
            LRANGE d 0 -1
            SORT l GET o_* STORE d
            LRANGE d 0 -1
            SORT s BY nosort STORE d
            LRANGE d 0 -1
            SORT none STORE d
            EXISTS d
            SORT l FOO
            SORT l BY
            SORT_RO l DESC
            SORT_RO l STORE d
        "#,
        );
    }

    #[test]
    fn effects_are_what_replicas_need() {
        let mut bench = Bench::new();
        bench.run("RPUSH l 2 1");
        for (line, want) in [
            ("SORT l", ""),
            ("SORT none STORE d", ""),
            ("SORT l STORE d", "SORT l STORE d"),
        ] {
            assert_eq!(bench.effect(line), want, "{line}");
        }
    }
}
