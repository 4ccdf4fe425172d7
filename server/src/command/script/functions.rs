//! Libraries of functions: FUNCTION and FCALL.
//!
//! What a library registers is told by running it. That is done once in an interpreter of its own, to check it, and again
//! on each thread that calls one of its functions.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};

use dfsnap_formats::checksum::redis_crc;
use dfsnap_formats::glob;
use dfsnap_formats::input::Cursor;
use dfsnap_formats::lzf::LzfEncoder;
use dfsnap_formats::rdb::{opcode, writer};
use dfsnap_formats::resp::Reply;
use mlua::{Function, Table, Value};

use super::interpreter::{Code, Interpreter, Registrar};
use super::library::{self, Fault, one};
use super::shebang::{self, Flags};
use super::{
    Args, CommandError, CommandResult, Effect, Exec, Group, KeySpec, Run, help, running, terms,
    unknown_subcommand, with_interpreter,
};
use crate::command::call::Words;
use crate::command::words::{int, is};
use crate::command::{Command, Flags as CommandFlags};
use crate::libraries::{self, Codes};

/// Runs what changes libraries, with all shards, so that a snapshot's cut has it or has it not.
pub static CHANGE: Command = Command {
    name: "function",
    arity: -2,
    flags: CommandFlags::WRITE.with(CommandFlags::NOSCRIPT),
    keys: KeySpec::None,
    run: Run::Global(change),
    group: Group::Scripting,
    since: "7.0.0",
    summary: "Changes libraries of functions.",
};

/// One function of a library.
#[derive(Clone, Debug)]
struct Registered {
    name: Vec<u8>,
    description: Option<Vec<u8>>,
    flags: Flags,
}

/// What the libraries of a generation have registered, by library.
struct Index {
    generation: u64,
    libraries: BTreeMap<String, Vec<Registered>>,
    /// Library of each function.
    functions: HashMap<Vec<u8>, (String, Flags)>,
}

static INDEX: LazyLock<RwLock<Arc<Index>>> = LazyLock::new(|| {
    RwLock::new(Arc::new(Index {
        generation: 0,
        libraries: BTreeMap::new(),
        functions: HashMap::new(),
    }))
});
/// Functions that touched a key they were not given.
static UNDECLARED: Mutex<Option<HashSet<Vec<u8>>>> = Mutex::new(None);

struct Calls {
    interpreter: RefCell<Option<Interpreter>>,
    functions: RefCell<HashMap<Vec<u8>, Code>>,
}

thread_local! {
    static CALLS: Calls = Calls {
        interpreter: RefCell::new(None),
        functions: RefCell::default(),
    };
}

/// Whether a function has touched a key it was not given.
pub fn is_undeclared(name: &[u8]) -> bool {
    let known = UNDECLARED.lock().unwrap_or_else(PoisonError::into_inner);
    known
        .as_ref()
        .is_some_and(|known| known.contains(&key_of(name)))
}

/// What a function says of itself.
pub fn flags_of(name: &[u8]) -> Option<Flags> {
    let functions = &index().functions;
    functions.get(&key_of(name)).map(|(_, flags)| *flags)
}

fn set_undeclared(name: &[u8]) {
    let mut known = UNDECLARED.lock().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_default().insert(key_of(name));
}

fn index() -> Arc<Index> {
    INDEX.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Under which a function is found: its name in any case.
fn key_of(name: &[u8]) -> Vec<u8> {
    name.to_ascii_lowercase()
}

/// Puts these libraries in place of all, with what they register.
fn install(codes: Codes, found: BTreeMap<String, Vec<Registered>>) {
    libraries::replace(codes);
    let functions = found
        .iter()
        .flat_map(|(library, functions)| {
            functions
                .iter()
                .map(|function| (key_of(&function.name), (library.clone(), function.flags)))
        })
        .collect();
    let index = Index {
        generation: libraries::generation(),
        libraries: found,
        functions,
    };
    *INDEX.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
    *UNDECLARED.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// What becomes of what is there when a snapshot is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// It has gone before.
    Nothing,
    /// It stays, and what comes again is an error.
    Present,
    /// It stays, but for what comes again.
    Merge,
}

/// Libraries that were found to be good.
#[derive(Default)]
pub struct Prepared(New);

/// Puts the libraries of a dataset in place of all. The error is for the operator.
pub fn load(codes: Vec<Vec<u8>>, onto: Onto) -> Result<(), String> {
    prepare(codes, onto).map(put)
}

/// Runs the libraries of a dataset, which tells what they register. The error is for the operator.
pub fn prepare(codes: Vec<Vec<u8>>, onto: Onto) -> Result<Prepared, String> {
    let mut new = match onto {
        Onto::Nothing => (Codes::new(), BTreeMap::new()),
        Onto::Present | Onto::Merge => ((*libraries::all()).clone(), index().libraries.clone()),
    };
    for code in codes {
        add(&mut new, &code, onto == Onto::Merge).map_err(|error| error.0.into_owned())?;
    }
    Ok(Prepared(new))
}

/// Puts libraries in place of all. Waits for nothing.
pub fn put(Prepared(new): Prepared) {
    let is_same = new.0.is_empty() && libraries::all().is_empty();
    if !is_same {
        install(new.0, new.1);
    }
}

/// How many libraries and functions there are, and the bytes of their code.
pub fn size() -> (u64, u64, u64) {
    let index = index();
    let bytes = libraries::all()
        .values()
        .map(|code| code.len() as u64)
        .sum();
    (
        index.libraries.len() as u64,
        index.functions.len() as u64,
        bytes,
    )
}

/// The libraries that will be there, and what they register.
type New = (Codes, BTreeMap<String, Vec<Registered>>);

/// Adds a library; its name. A function may be in one library only.
fn add(new: &mut New, code: &[u8], replaces: bool) -> Result<String, CommandError> {
    let (code_at, name) = shebang::of_library(code)?;
    if new.0.contains_key(&name) && !replaces {
        return Err(CommandError::new(format!(
            "Library '{name}' already exists"
        )));
    }
    let registered = registered_by(&code[code_at..])?;
    for function in &registered {
        let is_same = |known: &Registered| known.name.eq_ignore_ascii_case(&function.name);
        let others = new.1.iter().filter(|(library, _)| **library != name);
        if others.flat_map(|(_, known)| known).any(is_same) {
            let function = String::from_utf8_lossy(&function.name).into_owned();
            return Err(CommandError::new(format!(
                "Function {function} already exists"
            )));
        }
    }
    new.0.insert(name.clone(), Arc::new(code.to_vec()));
    new.1.insert(name.clone(), registered);
    Ok(name)
}

/// Runs a library in an interpreter of its own, and says what it registers.
fn registered_by(code: &[u8]) -> Result<Vec<Registered>, CommandError> {
    let broken =
        |error: mlua::Error| CommandError::new(format!("cannot start an interpreter: {error}"));
    let interpreter = Interpreter::new(false).map_err(broken)?;
    let found = run_library(&interpreter, code)?;
    if found.is_empty() {
        return Err(CommandError::new("No functions registered"));
    }
    Ok(found.into_iter().map(|(function, _)| function).collect())
}

/// Runs a library's code; the functions it registers.
fn run_library(
    interpreter: &Interpreter,
    code: &[u8],
) -> Result<Vec<(Registered, Function)>, CommandError> {
    let function = interpreter
        .compile(code, "@user_function")
        .map_err(|text| CommandError::new(format!("Error compiling function: {text}")))?;
    let found: Rc<RefCell<Vec<(Registered, Function)>>> = Rc::default();
    let sink = found.clone();
    let broken = |error: mlua::Error| CommandError::new(error.to_string());
    let register = library::reply_function(&interpreter.lua, move |lua, args| {
        let (registered, callback) = registration(args)?;
        if !shebang::is_name(&registered.name) {
            return Err(
                "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long"
                    .into(),
            );
        }
        let mut found = sink.borrow_mut();
        let is_same = |known: &Registered| known.name.eq_ignore_ascii_case(&registered.name);
        if found.iter().any(|(known, _)| is_same(known)) {
            return Err("Function already exists in the library".into());
        }
        found.push((registered, callback));
        one(lua, Value::Nil)
    })
    .map_err(broken)?;
    interpreter.lua.set_app_data(Registrar(register));
    let guard = running::begin(running::Running::new(None, Words::default(), false).limited());
    interpreter.set_loading(true).map_err(broken)?;
    let ended = interpreter.run_bare(&function);
    let is_late = guard.0.started.elapsed() > running::LOAD_LIMIT;
    drop(guard);
    if is_late {
        return Err(CommandError::new("FUNCTION LOAD timeout"));
    }
    interpreter.set_loading(false).map_err(broken)?;
    interpreter.lua.remove_app_data::<Registrar>();
    if let Err(raised) = ended {
        let text = String::from_utf8_lossy(&raised.text).into_owned();
        return Err(CommandError::new(format!(
            "Error registering functions: {text}"
        )));
    }
    Ok(found.take())
}

/// The arguments of `redis.register_function`.
fn registration(args: &[Value]) -> Result<(Registered, Function), Fault> {
    match args {
        [Value::Table(named)] => named_registration(named),
        [_] => Err(
            "calling redis.register_function with a single argument is only applicable to Lua table (representing named \
             arguments)."
                .into(),
        ),
        [name, callback] => {
            let Some(name) = text_of(name) else {
                return Err("first argument to redis.register_function must be a string".into());
            };
            let Value::Function(callback) = callback else {
                return Err("second argument to redis.register_function must be a function".into());
            };
            let registered = Registered {
                name,
                description: None,
                flags: Flags::default(),
            };
            Ok((registered, callback.clone()))
        }
        _ => Err("wrong number of arguments to redis.register_function".into()),
    }
}

/// A string, or a number as one.
fn text_of(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(number) => Some(number.to_string().into_bytes()),
        Value::Number(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}

fn named_registration(named: &Table) -> Result<(Registered, Function), Fault> {
    let (mut name, mut description, mut callback) = (None, None, None);
    let mut flags = Flags::default();
    for pair in named.pairs::<Value, Value>() {
        let (key, value) = pair.map_err(|error| error.to_string())?;
        let Value::String(key) = key else {
            return Err(
                "named argument key given to redis.register_function is not a string".into(),
            );
        };
        let text = |what: &str| match &value {
            Value::String(text) => Ok(text.as_bytes().to_vec()),
            _ => Err(format!(
                "{what} argument given to redis.register_function must be a string"
            )),
        };
        match &*key.as_bytes() {
            b"function_name" => name = Some(text("function_name")?),
            b"description" => description = Some(text("description")?),
            b"callback" => match value {
                Value::Function(function) => callback = Some(function),
                _ => {
                    return Err(
                        "callback argument given to redis.register_function must be a function"
                            .into(),
                    );
                }
            },
            b"flags" => match value {
                Value::Table(table) => read_flags(&table, &mut flags)?,
                _ => {
                    return Err(
                        "flags argument to redis.register_function must be a table representing function flags".into(),
                    );
                }
            },
            _ => return Err("unknown argument given to redis.register_function".into()),
        }
    }
    let name = name.ok_or("redis.register_function must get a function name argument")?;
    let callback = callback.ok_or("redis.register_function must get a callback argument")?;
    let registered = Registered {
        name,
        description,
        flags,
    };
    Ok((registered, callback))
}

fn read_flags(table: &Table, flags: &mut Flags) -> Result<(), Fault> {
    for at in 1.. {
        match table.raw_get::<Value>(at) {
            Ok(Value::String(name)) if flags.set(&name.as_bytes()) => {}
            Ok(Value::Nil) => break,
            _ => return Err("unknown flag given".into()),
        }
    }
    Ok(())
}

/// FCALL.
pub fn fcall(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    call(exec, args, false)
}

/// FCALL_RO.
pub fn fcall_ro(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    call(exec, args, true)
}

fn call(exec: &mut Exec<'_>, args: Args<'_>, is_ro: bool) -> CommandResult {
    let index = index();
    let key = key_of(args[1]);
    let Some((_, flags)) = index.functions.get(&key) else {
        return Err(CommandError::new("Function not found"));
    };
    if int(args[2]).is_err() {
        return Err(CommandError::new("Bad number of keys provided"));
    }
    let (keys, rest) = super::keys_and_rest(args)?;
    let terms = terms(exec, Some(*flags), is_ro)?;
    let name = String::from_utf8_lossy(args[1]);
    let words = Words::new(args.iter().copied());
    let is_from_primary = exec.actor == crate::command::exec::Actor::Link;
    let run = running::Running::new(Some(name.clone().into_owned()), words, is_from_primary);
    let effect = CALLS.with(|calls| {
        with_interpreter(
            &calls.interpreter,
            1,
            index.generation,
            || {
                let interpreter = Interpreter::new(false)?;
                let mut functions = calls.functions.borrow_mut();
                functions.clear();
                for code in libraries::all().values() {
                    let found = shebang::of_library(code)
                        .and_then(|(code_at, _)| run_library(&interpreter, &code[code_at..]))
                        .map_err(|error| mlua::Error::runtime(error.0))?;
                    for (known, function) in found {
                        functions.insert(key_of(&known.name), interpreter.keep(function)?);
                    }
                }
                Ok(interpreter)
            },
            |interpreter| {
                let code = calls.functions.borrow().get(&key).copied();
                let code = code.ok_or(CommandError::text("ERR Function not found"))?;
                super::run_code(exec, interpreter, code, (keys, rest), terms, run, &name)
            },
        )
    })??;
    if exec.has_strayed {
        set_undeclared(args[1]);
    }
    Ok(effect)
}

/// Whether a FUNCTION command changes libraries, and so runs with all shards.
pub fn is_change(args: &[&[u8]]) -> bool {
    ["load", "delete", "flush", "restore"]
        .iter()
        .any(|name| is(args[1], name))
}

/// FUNCTION LOAD, DELETE, FLUSH and RESTORE.
fn change(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let name = args[1].to_ascii_lowercase();
    let mut new: New = ((*libraries::all()).clone(), index().libraries.clone());
    match (name.as_slice(), &args[2..]) {
        (b"load", [options @ .., code]) => {
            let mut replaces = false;
            for option in options {
                if !is(option, "replace") {
                    let option = String::from_utf8_lossy(option).into_owned();
                    return Err(CommandError::new(format!("Unknown option given: {option}")));
                }
                replaces = true;
            }
            let name = add(&mut new, code, replaces)?;
            install(new.0, new.1);
            exec.reply.bulk(name.as_bytes());
        }
        (b"delete", [name]) => {
            let name = String::from_utf8_lossy(name).into_owned();
            if new.0.remove(&name).is_none() {
                return Err(CommandError::new("Library not found"));
            }
            new.1.remove(&name);
            install(new.0, new.1);
            exec.reply.ok();
        }
        (b"flush", words) if words.len() <= 1 => {
            let is_known = |word: &&[u8]| is(word, "sync") || is(word, "async");
            if !words.iter().all(is_known) {
                return Err(CommandError::new(
                    "FUNCTION FLUSH only supports SYNC|ASYNC option",
                ));
            }
            install(Codes::new(), BTreeMap::new());
            exec.reply.ok();
        }
        (b"restore", [payload, rest @ ..]) if rest.len() <= 1 => {
            restore(&mut new, payload, rest.first().copied())?;
            install(new.0, new.1);
            exec.reply.ok();
        }
        (b"flush", _) | (b"restore", [_, ..]) => {
            let name = String::from_utf8_lossy(args[1]);
            return Err(CommandError::new(format!(
                "unknown subcommand or wrong number of arguments for '{name}'. Try FUNCTION HELP."
            )));
        }
        _ => {
            let name = String::from_utf8_lossy(&name).into_owned();
            return Err(CommandError::wrong_arity(&format!("function|{name}")));
        }
    }
    Ok(Effect::Verbatim)
}

fn restore(new: &mut New, payload: &[u8], policy: Option<&[u8]>) -> Result<(), CommandError> {
    let replaces = match policy {
        None => false,
        Some(word) if is(word, "append") => false,
        Some(word) if is(word, "replace") => true,
        Some(word) if is(word, "flush") => {
            *new = (Codes::new(), BTreeMap::new());
            false
        }
        Some(_) => {
            return Err(CommandError::new(
                "Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
    };
    const WRONG: CommandError =
        CommandError::text("ERR DUMP payload version or checksum are wrong");
    let body_len = payload.len().checked_sub(10).ok_or(WRONG)?;
    let (body, footer) = payload.split_at(body_len);
    let version = u16::from_le_bytes([footer[0], footer[1]]);
    let stored = u64::from_le_bytes(footer[2..].try_into().expect("eight bytes"));
    if version > crate::config::RDB_VERSION_MAX || redis_crc(&payload[..body_len + 2]) != stored {
        return Err(WRONG);
    }
    let mut cursor = Cursor::new(body);
    let unreadable = |_| CommandError::new("failed loading functions payload");
    while cursor.left() > 0 {
        let kind = cursor.u8("function record").map_err(unreadable)?;
        if kind != opcode::FUNCTION2 {
            return Err(CommandError::new("given type is not a function"));
        }
        let code = cursor.string("function library").map_err(unreadable)?;
        add(new, &code, replaces).map_err(|error| {
            let text = error.0.strip_prefix("ERR Library '").and_then(|rest| {
                let name = rest.strip_suffix("' already exists")?;
                Some(format!("Library {name} already exists"))
            });
            text.map_or(error, CommandError::new)
        })?;
    }
    Ok(())
}

/// FUNCTION DUMP, LIST, STATS, KILL and HELP.
pub fn look(args: Args<'_>, reply: &mut Reply) -> Result<(), CommandError> {
    let name = args[1].to_ascii_lowercase();
    match (name.as_slice(), &args[2..]) {
        (b"dump", []) => reply.bulk(&dump()),
        (b"list", words) => list(words, reply)?,
        (b"stats", []) => stats(reply)?,
        (b"kill", []) => {
            running::kill(true).map_err(CommandError::text)?;
            reply.ok();
        }
        (b"help", []) => help(reply, HELP),
        (b"dump" | b"stats" | b"kill" | b"help", _) => {
            let name = String::from_utf8_lossy(&name).into_owned();
            return Err(CommandError::wrong_arity(&format!("function|{name}")));
        }
        _ => return Err(unknown_subcommand("FUNCTION", args[1])),
    }
    Ok(())
}

fn dump() -> Vec<u8> {
    let mut payload = Vec::new();
    let mut lzf = LzfEncoder::default();
    for code in libraries::all().values() {
        writer::function2(&mut payload, code, Some(&mut lzf));
    }
    // What Redis 7.0 takes.
    payload.extend(10u16.to_le_bytes());
    let crc = redis_crc(&payload);
    payload.extend(crc.to_le_bytes());
    payload
}

fn list(words: &[&[u8]], reply: &mut Reply) -> Result<(), CommandError> {
    let (mut pattern, mut with_code) = (None, false);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if !with_code && is(word, "withcode") {
            with_code = true;
        } else if pattern.is_none() && is(word, "libraryname") {
            let given = words.next();
            pattern = Some(given.ok_or(CommandError::new("library name argument was not given"))?);
        } else {
            let word = String::from_utf8_lossy(word).into_owned();
            return Err(CommandError::new(format!("Unknown argument {word}")));
        }
    }
    let (index, codes) = (index(), libraries::all());
    let chosen: Vec<_> = index
        .libraries
        .iter()
        .filter(|(name, _)| {
            pattern.is_none_or(|pattern| glob::matches_ignoring_case(pattern, name.as_bytes()))
        })
        .collect();
    reply.array(chosen.len());
    for (name, functions) in chosen {
        reply.map(if with_code { 4 } else { 3 });
        reply.bulk(b"library_name");
        reply.bulk(name.as_bytes());
        reply.bulk(b"engine");
        reply.bulk(b"LUA");
        reply.bulk(b"functions");
        reply.array(functions.len());
        for function in functions {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(&function.name);
            reply.bulk(b"description");
            match &function.description {
                Some(text) => reply.bulk(text),
                None => reply.null(),
            }
            reply.bulk(b"flags");
            let flags = function.flags.names();
            reply.set(flags.len());
            flags.iter().for_each(|flag| reply.simple(flag));
        }
        if with_code {
            reply.bulk(b"library_code");
            reply.bulk(codes.get(name).map_or(&[], |code| code.as_slice()));
        }
    }
    Ok(())
}

fn stats(reply: &mut Reply) -> Result<(), CommandError> {
    let index = index();
    let overdue = running::overdue();
    if let Some(busy) = running::busy()
        && overdue.iter().any(|running| running.function.is_none())
    {
        return Err(CommandError::text(busy));
    }
    reply.map(2);
    reply.bulk(b"running_script");
    match overdue.first() {
        None => reply.null(),
        Some(running) => {
            reply.map(3);
            reply.bulk(b"name");
            let name = running.function.clone().unwrap_or_default();
            reply.bulk(name.as_bytes());
            reply.bulk(b"command");
            reply.array(running.words.len());
            running.words.iter().for_each(|word| reply.bulk(word));
            reply.bulk(b"duration_ms");
            reply.int(running.started.elapsed().as_millis() as i64);
        }
    }
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(b"LUA");
    reply.map(2);
    reply.bulk(b"libraries_count");
    reply.int(index.libraries.len() as i64);
    reply.bulk(b"functions_count");
    reply.int(index.functions.len() as i64);
    Ok(())
}

const HELP: &[&str] = &[
    "FUNCTION <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "DELETE <library-name>",
    "    Remove a library and its functions.",
    "DUMP",
    "    All libraries, for RESTORE.",
    "FLUSH [ASYNC|SYNC]",
    "    Remove all libraries.",
    "KILL",
    "    End the function that runs now.",
    "LIST [LIBRARYNAME <pattern>] [WITHCODE]",
    "    The libraries and their functions.",
    "LOAD [REPLACE] <code>",
    "    Add a library.",
    "RESTORE <payload> [FLUSH|APPEND|REPLACE]",
    "    Add the libraries of a payload that DUMP gave.",
    "STATS",
    "    What runs, and how many there are.",
    "HELP",
    "    This text.",
];
