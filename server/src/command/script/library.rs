//! What the libraries of scripts have in common: their functions, how these raise errors, and their arguments.
//!
//! An error of a Rust function travels as an object that scripts cannot read. Whatever hands errors to scripts (`pcall`,
//! `xpcall`, `coroutine.resume`) and the handler of a run make of it what it stands for, with [`raised`].

use mlua::{Function, IntoLua, Lua, MultiValue, Value};

/// The text of an error that a script sees.
pub type Fault = String;

/// What a library's function gives back.
pub type Outcome = Result<MultiValue, Fault>;

/// An error that scripts see as `{err=…}`.
#[derive(Debug)]
pub struct ReplyError(pub Vec<u8>);

impl std::fmt::Display for ReplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl std::error::Error for ReplyError {}

impl ReplyError {
    /// Raises it.
    pub fn raise<T>(text: impl Into<Vec<u8>>) -> mlua::Result<T> {
        let text = text.into();
        super::debugger::note_error(&text);
        Err(mlua::Error::external(ReplyError(text)))
    }
}

/// A function for scripts. Its errors are texts that begin with the place of the call, as those of Lua's own functions.
pub fn function(
    lua: &Lua,
    run: impl Fn(&Lua, &[Value]) -> Outcome + 'static,
) -> mlua::Result<Function> {
    lua.create_function(move |lua, args: MultiValue| {
        let args: Vec<Value> = args.into_iter().collect();
        run(lua, &args).map_err(|text| mlua::Error::RuntimeError(format!("{}{text}", caller(lua))))
    })
}

/// A function for scripts whose errors are replies.
pub fn reply_function(
    lua: &Lua,
    run: impl Fn(&Lua, &[Value]) -> Outcome + 'static,
) -> mlua::Result<Function> {
    lua.create_function(move |lua, args: MultiValue| {
        let args: Vec<Value> = args.into_iter().collect();
        run(lua, &args).or_else(|text| ReplyError::raise(format!("ERR {text}")))
    })
}

/// Where a function of ours was called: `user_script:1: `, or nothing if not by Lua code.
fn caller(lua: &Lua) -> String {
    let place = lua.inspect_stack(1, |frame| {
        let name = frame.source().short_src?.into_owned();
        Some(format!("{name}:{}: ", frame.current_line()?))
    });
    place.flatten().unwrap_or_default()
}

/// What an error stands for in scripts: `{err=…}`, or a text.
pub fn raised(lua: &Lua, error: &mlua::Error) -> mlua::Result<Value> {
    match error {
        mlua::Error::CallbackError { cause, .. } => raised(lua, cause),
        mlua::Error::ExternalError(inner) => match inner.downcast_ref::<ReplyError>() {
            Some(ReplyError(text)) => {
                let table = lua.create_table_with_capacity(0, 1)?;
                table.raw_set("err", lua.create_string(text)?)?;
                Ok(Value::Table(table))
            }
            None => Ok(Value::String(lua.create_string(inner.to_string())?)),
        },
        mlua::Error::RuntimeError(text) => Ok(Value::String(lua.create_string(text)?)),
        error => Ok(Value::String(lua.create_string(error.to_string())?)),
    }
}

/// One result.
pub fn one(lua: &Lua, value: impl IntoLua) -> Outcome {
    let value = value.into_lua(lua).map_err(|error| error.to_string())?;
    Ok(MultiValue::from_iter([value]))
}

/// The fault of an argument, in Lua's words. Counts from 1.
pub fn bad_argument(at: usize, function: &str, problem: &str) -> Fault {
    format!("bad argument #{at} to '{function}' ({problem})")
}

/// The type of an argument, as Lua names it.
pub fn type_name(value: Option<&Value>) -> &'static str {
    match value {
        None => "no value",
        Some(Value::Nil) => "nil",
        Some(Value::Boolean(_)) => "boolean",
        Some(Value::LightUserData(_) | Value::UserData(_) | Value::Error(_)) => "userdata",
        Some(Value::Integer(_) | Value::Number(_)) => "number",
        Some(Value::String(_)) => "string",
        Some(Value::Table(_)) => "table",
        Some(Value::Function(_)) => "function",
        Some(Value::Thread(_)) => "thread",
        Some(_) => "userdata",
    }
}

/// The bytes of a string, or of a number as Lua writes it.
pub fn text(lua: &Lua, value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(_) | Value::Number(_) => {
            let text = lua.coerce_string(value.clone()).ok()??;
            Some(text.as_bytes().to_vec())
        }
        _ => None,
    }
}

/// A string argument.
pub fn string_argument(
    lua: &Lua,
    args: &[Value],
    at: usize,
    function: &str,
) -> Result<Vec<u8>, Fault> {
    let value = args.get(at - 1);
    value.and_then(|value| text(lua, value)).ok_or_else(|| {
        let problem = format!("string expected, got {}", type_name(value));
        bad_argument(at, function, &problem)
    })
}

/// A number, or a string that is one.
pub fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) => Some(*number),
        Value::String(text) => {
            let text = text.as_bytes();
            dfsnap_formats::double::parse(text.trim_ascii())
        }
        _ => None,
    }
}

/// A number argument.
pub fn number_argument(args: &[Value], at: usize, function: &str) -> Result<f64, Fault> {
    let value = args.get(at - 1);
    value.and_then(number).ok_or_else(|| {
        let problem = format!("number expected, got {}", type_name(value));
        bad_argument(at, function, &problem)
    })
}

/// A number argument that may be missing.
pub fn optional_number(
    args: &[Value],
    at: usize,
    function: &str,
    default: f64,
) -> Result<f64, Fault> {
    match args.get(at - 1) {
        None | Some(Value::Nil) => Ok(default),
        Some(_) => number_argument(args, at, function),
    }
}

/// A key of a table as a place in an array, counted from 1.
pub fn array_index(key: &Value) -> Option<usize> {
    match key {
        Value::Integer(number) => usize::try_from(*number).ok().filter(|at| *at > 0),
        Value::Number(number) if *number >= 1.0 && number.fract() == 0.0 && *number < 9e15 => {
            Some(*number as usize)
        }
        _ => None,
    }
}

/// What the keys of a table are.
///
/// Found by a walk of its own: each value that Rust holds takes one of Lua's few places for that, so a large table is walked
/// twice and never held.
pub struct Shape {
    /// Number of keys.
    pub len: usize,
    /// The largest that is a place in an array.
    pub max: usize,
    /// All are.
    pub is_array: bool,
}

impl Shape {
    /// The shape of a table.
    pub fn of(table: &mlua::Table) -> Result<Shape, Fault> {
        let mut shape = Shape {
            len: 0,
            max: 0,
            is_array: true,
        };
        for pair in table.pairs::<Value, Value>() {
            let (key, _) = pair.map_err(|error| error.to_string())?;
            match array_index(&key) {
                Some(at) => shape.max = shape.max.max(at),
                None => shape.is_array = false,
            }
            shape.len += 1;
        }
        Ok(shape)
    }
}
