//! Function libraries: kept as code, by name.

use super::table::Command;
use super::words::{Reader, is};
use super::{Args, Done, Problem, Replay, SYNTAX, Stop};
use crate::input::Cursor;
use crate::rdb::opcode;
use std::collections::BTreeMap;

#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::run("FUNCTION", -2, function),
];

/// The name in a library's first line, `#!engine name=…`.
pub(super) fn library_name(code: &[u8]) -> Option<&[u8]> {
    let line = code
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let mut words = line.split(|byte| byte.is_ascii_whitespace());
    let name = words.find_map(|word| word.strip_prefix(b"name="))?;
    let is_sound = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    (!name.is_empty() && name.iter().all(is_sound)).then_some(name)
}

fn function(replay: &mut Replay, args: Args<'_>) -> Done {
    let (name, words) = (args[1], &args[2..]);
    if is(name, "LOAD") {
        load(replay, words)
    } else if is(name, "DELETE") {
        let [library] = words else { return Err(SYNTAX) };
        let found = replay.functions.remove(*library);
        found.map(drop).ok_or(Stop::Refused("no such library"))
    } else if is(name, "FLUSH") {
        match words {
            [] => {}
            [word] if is(word, "SYNC") || is(word, "ASYNC") => {}
            _ => return Err(SYNTAX),
        }
        replay.functions.clear();
        Ok(())
    } else if is(name, "RESTORE") {
        restore(replay, words)
    } else if ["LIST", "DUMP", "STATS", "KILL", "HELP"]
        .iter()
        .any(|known| is(name, known))
    {
        Ok(())
    } else {
        Err(Stop::Failed(Problem::Unknown))
    }
}

const NO_LIBRARY: Stop = Stop::Refused("code that does not name its library");
const TWICE: Stop = Stop::Refused("a library of this name is there already");

fn load(replay: &mut Replay, words: Args<'_>) -> Done {
    let mut words = Reader::new(words);
    let replace = words.left().len() > 1 && words.skip("REPLACE");
    let code = words.next()?;
    words.end()?;
    let name = library_name(code).ok_or(NO_LIBRARY)?;
    if !replace && replay.functions.contains_key(name) {
        return Err(TWICE);
    }
    replay.functions.insert(name.to_vec(), code.to_vec());
    Ok(())
}

/// `payload [APPEND|REPLACE|FLUSH]`; a payload of FUNCTION DUMP is records of an RDB file and a footer.
fn restore(replay: &mut Replay, words: Args<'_>) -> Done {
    let (payload, policy) = match words {
        [payload] => (*payload, &b"APPEND"[..]),
        [payload, policy] => (*payload, *policy),
        _ => return Err(SYNTAX),
    };
    let (replace, flush) = (is(policy, "REPLACE"), is(policy, "FLUSH"));
    if !replace && !flush && !is(policy, "APPEND") {
        return Err(SYNTAX);
    }
    let libraries = libraries(payload).ok_or(Stop::Refused("a payload that is damaged"))?;
    if flush {
        replay.functions = libraries;
        return Ok(());
    }
    if !replace
        && libraries
            .keys()
            .any(|name| replay.functions.contains_key(name))
    {
        return Err(TWICE);
    }
    replay.functions.extend(libraries);
    Ok(())
}

fn libraries(payload: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    const FOOTER: usize = 10;
    let body = &payload[..payload.len().checked_sub(FOOTER)?];
    let (sealed, crc) = payload.split_last_chunk::<8>()?;
    if u64::from_le_bytes(*crc) != crate::checksum::redis_crc(sealed) {
        return None;
    }
    let mut libraries = BTreeMap::new();
    let mut cursor = Cursor::new(body);
    while cursor.left() > 0 {
        if cursor.u8("function record").ok()? != opcode::FUNCTION2 {
            return None;
        }
        let code = cursor.string("function library").ok()?;
        let name = library_name(&code)?.to_vec();
        libraries.insert(name, code);
    }
    Some(libraries)
}
