//! One Lua interpreter: the world that scripts see, compiled scripts, and how one runs.
//!
//! Each thread has one for scripts and one for functions; neither is shared. What a script could leave behind for the next is
//! closed off by the prelude, which gives scripts stand-ins that refuse changes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use mlua::{Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Value, VmState};

use super::library::{self, ReplyError, one};
use super::stack::{self, Stack};
use super::store::Sha;
use super::{bits, calls, debugger, host::Host, json, msgpack, packing, running};
use crate::command::CommandError;

/// Where the registry keeps `string.format`.
pub const FORMAT: &str = "dfsnap.format";

/// The chunk name of the prelude: its frames are not the script's.
const PRELUDE: &str = "=prelude";

/// Instructions between two looks at the clock.
const HOOK_INSTRUCTIONS: u32 = 100_000;

/// Runs between two steps of the collector, as in Redis: left to itself it lets as much again pile up as is in use.
const RUNS_PER_STEP: u32 = 50;

/// The interpreter of one thread.
pub struct Interpreter {
    /// The state.
    pub lua: Lua,
    /// What scripts see as their globals.
    pub world: Table,
    run: Function,
    set_loading: Function,
    handler: Function,
    /// What `world` stands for.
    globals: Table,
    is_eval: bool,
    runs: Cell<u32>,
    /// Compiled code. Lua holds it: of what Rust holds itself there can be some 8 000 values at a time.
    code: Table,
    compiled: HashMap<Sha, Code, foldhash::fast::RandomState>,
    /// Of the scripts or libraries it knows.
    pub generation: u64,
}

/// A compiled script or function of one interpreter: where it is kept.
#[derive(Clone, Copy, Debug)]
pub struct Code(usize);

/// How a run ended with an error: the text, and where.
pub struct Raised {
    /// The whole error, code and all.
    pub text: Vec<u8>,
    /// The chunk and the line.
    pub place: Option<(Vec<u8>, i64)>,
}

impl Interpreter {
    /// A fresh one. `is_eval` for scripts, not for functions.
    pub fn new(is_eval: bool) -> mlua::Result<Interpreter> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
        let options = LuaOptions::new().catch_rust_panics(false);
        let lua = Lua::new_with(libraries, options)?;
        let format: Function = lua.globals().get::<Table>("string")?.get("format")?;
        lua.set_named_registry_value(FORMAT, format)?;
        let host = host_table(&lua)?;
        let raised: Function = host.get("raised")?;
        lua.set_named_registry_value(debugger::RAISED, raised)?;
        let globals = lua.globals();
        let (world, run, set_loading): (Table, Function, Function) = lua
            .load(include_str!("prelude.lua"))
            .set_name(PRELUDE)
            .call((host, is_eval))?;
        lua.set_named_registry_value(debugger::WORLD, world.clone())?;
        let handler = lua.create_function(|lua, raised: Value| located(lua, raised))?;
        let triggers = HookTriggers::new().every_nth_instruction(HOOK_INSTRUCTIONS);
        lua.set_global_hook(triggers, |lua, _| {
            if running::look_up() {
                // A script that catches the error must not go on: the next instruction raises it again.
                lua.set_app_data(KilledAt(place(lua)));
                let triggers = HookTriggers::new().every_nth_instruction(1);
                lua.set_global_hook(triggers, |_, _| Err(killed()))?;
                return Err(killed());
            }
            Ok(VmState::Continue)
        })?;
        let code = lua.create_table()?;
        Ok(Interpreter {
            lua,
            code,
            world,
            run,
            set_loading,
            handler,
            globals,
            is_eval,
            runs: Cell::new(0),
            compiled: HashMap::default(),
            generation: 0,
        })
    }

    /// Compiles code as a function in the world of scripts. The error is Lua's text.
    pub fn compile(&self, code: &[u8], name: &str) -> Result<Function, String> {
        if code.first() == Some(&0x1b) {
            return Err(format!("{}: compiled code is not allowed", &name[1..]));
        }
        let chunk = self
            .lua
            .load(code)
            .set_name(name)
            .set_mode(mlua::chunk::ChunkMode::Text)
            .set_environment(self.world.clone());
        chunk.into_function().map_err(|error| match error {
            mlua::Error::SyntaxError { message, .. } => message,
            error => error.to_string(),
        })
    }

    /// Compiles the script of a SHA, if it is not known.
    pub fn know_script(&mut self, sha: &Sha, code: &[u8]) -> Result<(), CommandError> {
        if self.compiled.contains_key(sha) {
            return Ok(());
        }
        let function = self.compile(code, "@user_script").map_err(|text| {
            CommandError::new(format!("Error compiling script (new function): {text}"))
        })?;
        let code = self
            .keep(function)
            .map_err(|error| CommandError::new(format!("cannot keep a script: {error}")))?;
        self.compiled.insert(*sha, code);
        Ok(())
    }

    /// The compiled script of a SHA that is known.
    pub fn script(&self, sha: &Sha) -> Code {
        self.compiled[sha]
    }

    /// Keeps a function as long as the interpreter lives.
    pub fn keep(&self, function: Function) -> mlua::Result<Code> {
        self.code.raw_push(function)?;
        Ok(Code(self.code.raw_len()))
    }

    /// Runs a function as a script, with its keys and other arguments. What it returns goes into the reply of the run; `Err` is what it raised.
    pub fn run(
        &self,
        Code(place): Code,
        (keys, rest): (&[&[u8]], &[&[u8]]),
        host: &mut Host<'_, '_>,
    ) -> Result<(), Raised> {
        let mut is_done = false;
        let ended = calls::lending(host, || {
            let args = (&self.handler, &self.code, &self.globals);
            stack::on::<Value>(&self.lua, args, |stack| {
                // At 1, 2 and 3.
                let (handler, code, globals) = (1, 2, 3);
                stack.push_place(code, place);
                if self.is_eval {
                    for (name, words) in [(&b"KEYS"[..], keys), (b"ARGV", rest)] {
                        stack.push_bytes(name);
                        push_list(stack, words);
                        stack.set_pair(globals);
                    }
                } else {
                    push_list(stack, keys);
                    push_list(stack, rest);
                }
                debugger::watch(stack);
                is_done = stack.call(if self.is_eval { 0 } else { 2 }, handler);
                if is_done {
                    calls::with_run(|host| host.put_value(stack));
                    stack.keep(0);
                } else {
                    stack.keep_top();
                }
            })
        });
        self.runs.set(self.runs.get() + 1);
        if self.runs.get() == RUNS_PER_STEP {
            self.runs.set(0);
            // What a finalizer raises, if there were any, is of no interest here.
            let _ = self.lua.gc_step();
        }
        if let Some(KilledAt(place)) = self.lua.remove_app_data() {
            let text = KILLED.as_bytes().to_vec();
            return Err(Raised { text, place });
        }
        match ended {
            Ok(_) if is_done => Ok(()),
            Ok(raised) => Err(raised_of(&raised)),
            Err(error) => Err(Raised {
                text: format!("ERR {error}").into_bytes(),
                place: None,
            }),
        }
    }

    /// Runs a function outside of any command. `Err` is what it raised.
    pub fn run_bare(&self, function: &Function) -> Result<(), Raised> {
        let args = (function, &self.handler);
        match self.run.call::<(bool, Value)>(args) {
            Ok((true, _)) => Ok(()),
            Ok((false, raised)) => Err(raised_of(&raised)),
            Err(error) => Err(Raised {
                text: format!("ERR {error}").into_bytes(),
                place: None,
            }),
        }
    }

    /// Says whether a library registers its functions now: then it sees little else.
    pub fn set_loading(&self, is_loading: bool) -> mlua::Result<()> {
        self.set_loading.call(is_loading)
    }

    /// Bytes of memory that it uses.
    pub fn bytes(&self) -> u64 {
        self.lua.used_memory() as u64
    }
}

/// Puts a table of words on top.
fn push_list(stack: &mut Stack, words: &[&[u8]]) {
    stack.push_table(words.len(), 0);
    for (place, word) in (1..).zip(words) {
        stack.push_bytes(word);
        stack.set_place(-2, place);
    }
}

const KILLED: &str = "ERR Script killed by user with SCRIPT KILL.";

/// Where a script was when it was ended.
struct KilledAt(Option<(Vec<u8>, i64)>);

/// The error of a script that was ended.
fn killed() -> mlua::Error {
    mlua::Error::external(ReplyError(KILLED.into()))
}

/// What the handler made of an error.
fn raised_of(raised: &Value) -> Raised {
    let text_of = |value: Value| match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        _ => None,
    };
    let Value::Table(table) = raised else {
        let text = text_of(raised.clone()).unwrap_or_else(|| b"execution failure".to_vec());
        return Raised {
            text: [b"ERR ", text.as_slice()].concat(),
            place: None,
        };
    };
    let field = |name: &str| table.raw_get::<Value>(name).unwrap_or(Value::Nil);
    let text = text_of(field("err")).unwrap_or_else(|| b"ERR unknown error".to_vec());
    let line = library::number(&field("line")).map(|line| line as i64);
    let place = text_of(field("source")).zip(line);
    Raised { text, place }
}

/// The message handler: makes a table of whatever was raised, with the place in the script.
fn located(lua: &Lua, raised: Value) -> mlua::Result<Value> {
    let raised = match raised {
        Value::Error(error) => library::raised(lua, &error)?,
        raised => raised,
    };
    let table = match raised {
        Value::Table(table) => table,
        raised => {
            let text = match library::text(lua, &raised) {
                Some(text) => text,
                None => raised.to_string().unwrap_or_default().into_bytes(),
            };
            let table = lua.create_table()?;
            table.raw_set(
                "err",
                lua.create_string([b"ERR ", text.as_slice()].concat())?,
            )?;
            table
        }
    };
    if let Some((source, line)) = place(lua) {
        table.raw_set("source", lua.create_string(source)?)?;
        table.raw_set("line", line)?;
    }
    Ok(Value::Table(table))
}

/// Where the script is: the innermost frame of Lua that is not the prelude's.
fn place(lua: &Lua) -> Option<(Vec<u8>, i64)> {
    for level in 0..64 {
        let found = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let is_script = source.what != "C" && source.what != "tail";
            let name = source.source?.into_owned();
            let line = frame.current_line()? as i64;
            (is_script && name != PRELUDE).then_some((name.into_bytes(), line))
        })?;
        if found.is_some() {
            return found;
        }
    }
    None
}

fn host_table(lua: &Lua) -> mlua::Result<Table> {
    let host = lua.create_table()?;
    host.raw_set("cjson", json::library(lua)?)?;
    host.raw_set("cmsgpack", msgpack::library(lua)?)?;
    host.raw_set("struct", packing::library(lua)?)?;
    host.raw_set("bit", bits::library(lua)?)?;
    host.raw_set("null", Value::NULL)?;
    let version = crate::config::REDIS_VERSION;
    let number = version
        .split('.')
        .filter_map(|part| part.parse::<u32>().ok())
        .fold(0, |number, part| number << 8 | part);
    host.raw_set("version", version)?;
    host.raw_set("version_number", number)?;
    let random = Rc::new(RefCell::new(fastrand::Rng::new()));
    let seeded = random.clone();
    host.raw_set(
        "random",
        lua.create_function(move |_, ()| Ok(random.borrow_mut().f64()))?,
    )?;
    host.raw_set(
        "seed",
        lua.create_function(move |_, seed: f64| {
            seeded.borrow_mut().seed(seed as i64 as u64);
            Ok(())
        })?,
    )?;
    host.raw_set(
        "raised",
        lua.create_function(|lua, error: Value| match &error {
            Value::Error(inner) => library::raised(lua, inner),
            _ => Ok(error),
        })?,
    )?;
    host.raw_set("breakpoint", stack::function::<debugger::Breakpoint>(lua)?)?;
    host.raw_set("debug", stack::function::<debugger::Debug>(lua)?)?;
    host.raw_set("redis", redis_table(lua)?)?;
    Ok(host)
}

/// What a script asks of the server with `redis.…`, beside commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// `redis.setresp`
    SetProtocol,
    /// `redis.set_repl`
    SetReplication,
    /// `redis.acl_check_cmd`
    CheckAcl,
}

impl Asked {
    const ALL: [(&str, Asked); 3] = [
        ("setresp", Asked::SetProtocol),
        ("set_repl", Asked::SetReplication),
        ("acl_check_cmd", Asked::CheckAcl),
    ];
}

/// The run in progress registers functions with this.
pub struct Registrar(pub Function);

/// `redis`, without its constants.
fn redis_table(lua: &Lua) -> mlua::Result<Table> {
    let redis = lua.create_table()?;
    redis.raw_set("call", calls::function(lua, true)?)?;
    redis.raw_set("pcall", calls::function(lua, false)?)?;
    for (name, asked) in Asked::ALL {
        let ask = lua.create_function(move |_, args: MultiValue| {
            let answered = calls::with_run(|host| host.answer(asked, args));
            answered.unwrap_or_else(|| {
                ReplyError::raise(format!(
                    "ERR redis.{name} can only be called inside a script invocation"
                ))
            })
        })?;
        redis.raw_set(name, ask)?;
    }
    redis.raw_set(
        "register_function",
        lua.create_function(|lua, args: MultiValue| {
            let registrar = lua
                .app_data_ref::<Registrar>()
                .map(|registrar| registrar.0.clone());
            match registrar {
                Some(registrar) => registrar.call::<Value>(args),
                None => ReplyError::raise(
                    "ERR redis.register_function can only be called on FUNCTION LOAD command",
                ),
            }
        })?,
    )?;
    redis.raw_set(
        "sha1hex",
        library::reply_function(lua, |lua, args| {
            let [value] = args else {
                return Err("wrong number of arguments".into());
            };
            let text = library::text(lua, value).unwrap_or_default();
            let hex = super::store::sha1_hex(&text);
            one(lua, String::from_utf8_lossy(&hex).into_owned())
        })?,
    )?;
    redis.raw_set("log", library::reply_function(lua, log)?)?;
    redis.raw_set(
        "status_reply",
        lua.create_function(|lua, args: MultiValue| {
            let table = lua.create_table()?;
            match one_string(&args) {
                Some(text) => table.raw_set("ok", lua.create_string(text)?)?,
                None => {
                    debugger::note_error(WRONG_ARGUMENTS.as_bytes());
                    table.raw_set("err", WRONG_ARGUMENTS)?;
                }
            }
            Ok(table)
        })?,
    )?;
    redis.raw_set(
        "error_reply",
        lua.create_function(|lua, args: MultiValue| {
            let table = lua.create_table()?;
            let Some(text) = one_string(&args) else {
                debugger::note_error(WRONG_ARGUMENTS.as_bytes());
                table.raw_set("err", WRONG_ARGUMENTS)?;
                return Ok(table);
            };
            let text = text.strip_prefix(b"-").unwrap_or(&text);
            debugger::note_made_error(text);
            let text = if text.contains(&b' ') {
                text.to_vec()
            } else {
                [b"ERR ", text].concat()
            };
            table.raw_set("err", lua.create_string(text)?)?;
            Ok(table)
        })?,
    )?;
    Ok(redis)
}

const WRONG_ARGUMENTS: &str = "ERR wrong number or type of arguments";

/// The one argument, if it is a string.
fn one_string(args: &MultiValue) -> Option<Vec<u8>> {
    match args.iter().next() {
        Some(Value::String(text)) if args.len() == 1 => Some(text.as_bytes().to_vec()),
        _ => None,
    }
}

fn log(lua: &Lua, args: &[Value]) -> library::Outcome {
    if args.len() < 2 {
        return Err("redis.log() requires two arguments or more.".into());
    }
    let (Value::Integer(_) | Value::Number(_)) = args[0] else {
        return Err("First argument must be a number (log level).".into());
    };
    let level = library::number(&args[0]).unwrap_or(-1.0);
    let parts: Vec<String> = args[1..]
        .iter()
        .filter_map(|value| library::text(lua, value))
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .collect();
    let text = parts.join(" ");
    match level {
        0.0 => tracing::trace!("{text}"),
        1.0 => tracing::debug!("{text}"),
        2.0 => tracing::info!("{text}"),
        3.0 => tracing::warn!("{text}"),
        _ => return Err("Invalid debug level.".into()),
    }
    Ok(MultiValue::new())
}
