//! Lua's own stack, for what crosses it all the time: `redis.call`, and what a script returns.
//!
//! The `mlua` crate gives each value that Rust sees a place of its own and calls back under guard; for a script of one command that is
//! more work than the command. Here words are read where Lua holds them, and values are made where Lua wants them. Called by
//! `calls` (a command of a script), `convert` (values) and `interpreter` (a run).
//!
//! Invariants
//! - Lua raises an error by a jump to the protected call below it, and drops nothing on its way. So who calls a method that may raise (those that
//!   make a value, a table or room) holds nothing then that must be dropped.
//! - A place counts from 1 at the bottom, from -1 at the top, and is one that is there.

use std::ffi::{CStr, c_char, c_int};

use mlua::ffi;
use mlua::{FromLuaMulti, Function, IntoLuaMulti, Lua};

/// The stack of one call.
pub struct Stack(*mut ffi::lua_State);

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Nothing, or `nil`.
    Nil,
    /// A boolean.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// A string: [`Stack::bytes`].
    String,
    /// A table.
    Table,
    /// Anything else.
    Other,
}

/// A function for scripts that works on the stack: its arguments are all that is there. It returns how many values at the top are its results.
pub trait OnStack {
    /// Runs it.
    fn run(stack: &mut Stack) -> i32;
}

/// Makes a function of it.
pub fn function<F: OnStack>(lua: &Lua) -> mlua::Result<Function> {
    unsafe extern "C-unwind" fn entry<F: OnStack>(state: *mut ffi::lua_State) -> c_int {
        F::run(&mut Stack(state))
    }
    // SAFETY: Lua calls it with a state that lives, and there are as many results on the stack as it says.
    unsafe { lua.create_c_function(entry::<F>) }
}

/// Runs something with a stack that holds `args` alone, under a protected call. What it leaves there is the result.
pub fn on<R: FromLuaMulti>(
    lua: &Lua,
    args: impl IntoLuaMulti,
    run: impl FnOnce(&mut Stack),
) -> mlua::Result<R> {
    // SAFETY: the state lives for the call, and what `run` raises ends in the protected call.
    unsafe { lua.exec_raw(args, |state| run(&mut Stack(state))) }
}

impl Stack {
    /// How many values there are.
    pub fn len(&self) -> i32 {
        // SAFETY: the state lives as long as the call whose stack this is; so in all methods.
        unsafe { ffi::lua_gettop(self.0) }
    }

    /// What stands at a place.
    pub fn kind(&self, at: i32) -> Kind {
        // SAFETY: as above; a place that is not there has a type of its own.
        match unsafe { ffi::lua_type(self.0, at) } {
            ffi::LUA_TNONE | ffi::LUA_TNIL => Kind::Nil,
            ffi::LUA_TBOOLEAN => Kind::Boolean(self.boolean(at)),
            ffi::LUA_TNUMBER => Kind::Number(self.number(at)),
            ffi::LUA_TSTRING => Kind::String,
            ffi::LUA_TTABLE => Kind::Table,
            _ => Kind::Other,
        }
    }

    fn boolean(&self, at: i32) -> bool {
        // SAFETY: as above.
        unsafe { ffi::lua_toboolean(self.0, at) != 0 }
    }

    fn number(&self, at: i32) -> f64 {
        // SAFETY: as above.
        unsafe { ffi::lua_tonumber(self.0, at) }
    }

    /// The bytes of a string; of anything else none. They stay where they are as long as the string is on the stack.
    pub fn bytes(&self, at: i32) -> &[u8] {
        if self.kind(at) != Kind::String {
            return b"";
        }
        let mut len = 0;
        // SAFETY: as above; of a string nothing is made or moved.
        let bytes = unsafe { ffi::lua_tolstring(self.0, at, &mut len) };
        // SAFETY: Lua says so many bytes are there, and does not move a string. What pops it takes the stack mutably.
        unsafe { std::slice::from_raw_parts(bytes.cast(), len) }
    }

    /// Makes room for so many more values. May raise.
    pub fn reserve(&self, count: i32) {
        // SAFETY: as above; the text ends with a zero.
        unsafe { ffi::luaL_checkstack(self.0, count, c"a reply".as_ptr()) }
    }

    /// Puts a string on top. May raise, as all that follow up to [`Stack::set_pair`].
    pub fn push_bytes(&self, bytes: &[u8]) {
        let start: *const c_char = bytes.as_ptr().cast();
        // SAFETY: as above; so many bytes are there, and Lua copies them.
        unsafe { ffi::lua_pushlstring(self.0, start, bytes.len()) };
    }

    /// Puts an empty table on top, with room for so many places and so many names.
    pub fn push_table(&self, places: usize, names: usize) {
        let (places, names) = (size_hint(places), size_hint(names));
        // SAFETY: as above.
        unsafe { ffi::lua_createtable(self.0, places, names) }
    }

    /// Takes the top, and puts it at a place of the table at `table`.
    pub fn set_place(&mut self, table: i32, place: usize) {
        // SAFETY: as above; the caller has put a table there.
        unsafe { ffi::lua_rawseti(self.0, table, place as ffi::lua_Integer) }
    }

    /// Takes the top and the key below it, and puts them into the table at `table`.
    pub fn set_pair(&mut self, table: i32) {
        // SAFETY: as above.
        unsafe { ffi::lua_rawset(self.0, table) }
    }

    /// Puts a number on top.
    pub fn push_number(&self, number: f64) {
        // SAFETY: as above.
        unsafe { ffi::lua_pushnumber(self.0, number) }
    }

    /// Puts a boolean on top.
    pub fn push_boolean(&self, is_true: bool) {
        // SAFETY: as above.
        unsafe { ffi::lua_pushboolean(self.0, c_int::from(is_true)) }
    }

    /// Puts `nil` on top.
    pub fn push_nil(&self) {
        // SAFETY: as above.
        unsafe { ffi::lua_pushnil(self.0) }
    }

    /// Puts what stands at a place on top, once more.
    pub fn push_copy(&self, at: i32) {
        // SAFETY: as above.
        unsafe { ffi::lua_pushvalue(self.0, at) }
    }

    /// Takes a key from the top, and puts what the table at `table` holds of it in its place.
    pub fn get(&mut self, table: i32) {
        // SAFETY: as above; the caller has put a table there.
        unsafe { ffi::lua_rawget(self.0, table) };
    }

    /// Puts what a table holds at a place on top.
    pub fn push_place(&self, table: i32, place: usize) {
        // SAFETY: as above.
        unsafe { ffi::lua_rawgeti(self.0, table, place as ffi::lua_Integer) };
    }

    /// Takes a key from the top, and puts the next key of the table at `table` and its value there; nothing behind the last.
    pub fn next(&mut self, table: i32) -> bool {
        // SAFETY: as above.
        unsafe { ffi::lua_next(self.0, table) != 0 }
    }

    /// Takes so many values away.
    pub fn pop(&mut self, count: i32) {
        // SAFETY: as above; the caller has put them there.
        unsafe { ffi::lua_pop(self.0, count) }
    }

    /// Leaves the top alone on the stack.
    pub fn keep_top(&mut self) {
        // SAFETY: as above; there is a top.
        unsafe { ffi::lua_replace(self.0, 1) };
        self.keep(1);
    }

    /// Leaves the lowest values only.
    pub fn keep(&mut self, count: i32) {
        // SAFETY: as above.
        unsafe { ffi::lua_settop(self.0, count) }
    }

    /// Calls the function below the `args` values at the top, in place of which is then its one result. If it raises, that is what
    /// the function at `handler` makes of it, and the answer is false.
    pub fn call(&mut self, args: i32, handler: i32) -> bool {
        // SAFETY: as above; the caller has put function, arguments and handler there.
        unsafe { ffi::lua_pcall(self.0, args, 1, handler) == ffi::LUA_OK }
    }

    /// Raises what is on top.
    pub fn raise(&mut self) -> ! {
        // SAFETY: as above; functions for scripts run under a protected call.
        unsafe { ffi::lua_error(self.0) }
    }
}

/// What is called while a script runs: before each line, and every so many instructions.
pub trait OnLine {
    /// Calls it with the stack of the function whose line it is. True: it has put an error on top, to be raised.
    fn run(stack: &mut Stack, is_line: bool) -> bool;
}

/// A function that is at work.
#[derive(Debug)]
pub struct Frame {
    /// The chunk, as messages show it.
    pub chunk: Vec<u8>,
    /// By which name it was called, if that is known.
    pub name: Option<Vec<u8>>,
    /// The line it is at; -1 if it is no function of Lua.
    pub line: i32,
}

/// Looking at what runs, and running something in between: for the debugger.
impl Stack {
    /// Calls `F` from now on, in this state and in the coroutines that it makes.
    pub fn hook<F: OnLine>(&mut self, instructions: i32) {
        unsafe extern "C-unwind" fn entry<F: OnLine>(
            state: *mut ffi::lua_State,
            event: *mut ffi::lua_Debug,
        ) {
            // SAFETY: Lua calls a hook with a state and an event that live.
            let is_line = unsafe { (*event).event } == ffi::LUA_HOOKLINE;
            let mut stack = Stack(state);
            if F::run(&mut stack, is_line) {
                stack.raise();
            }
        }
        let mask = ffi::LUA_MASKCOUNT | ffi::LUA_MASKLINE;
        // SAFETY: as above.
        unsafe { ffi::lua_sethook(self.0, Some(entry::<F>), mask, instructions) };
    }

    /// The function at this level: 0 is the innermost.
    pub fn frame(&self, level: i32) -> Option<Frame> {
        let mut found = self.activation(level)?;
        // SAFETY: as above; the level has been found, and what is asked for needs nothing on the stack.
        unsafe { ffi::lua_getinfo(self.0, c"Snl".as_ptr(), &mut found) };
        let name = found.name;
        // SAFETY: both end with a zero, and live as long as the function.
        let text = |start: *const c_char| unsafe { CStr::from_ptr(start) }.to_bytes().to_vec();
        Some(Frame {
            chunk: text(found.short_src.as_ptr()),
            name: (!name.is_null()).then(|| text(name)),
            line: found.currentline,
        })
    }

    fn activation(&self, level: i32) -> Option<ffi::lua_Debug> {
        // SAFETY: numbers and pointers, for which zero is a value.
        let mut found: ffi::lua_Debug = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        (unsafe { ffi::lua_getstack(self.0, level, &mut found) } != 0).then_some(found)
    }

    /// Puts a local variable on top, and tells its name. They count from 1.
    pub fn push_local(&mut self, level: i32, number: i32) -> Option<Vec<u8>> {
        let found = self.activation(level)?;
        // SAFETY: as above; the level has been found.
        let name = unsafe { ffi::lua_getlocal(self.0, &found, number) };
        // SAFETY: a name ends with a zero, and lives as long as the function.
        (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_bytes().to_vec())
    }

    /// Puts a global variable on top. May raise.
    pub fn push_global(&mut self, name: &CStr) {
        // SAFETY: as above.
        unsafe { ffi::lua_getglobal(self.0, name.as_ptr()) };
    }

    /// Puts a field of what is on top above it. May raise.
    pub fn push_field(&mut self, name: &CStr) {
        // SAFETY: as above; there is a top.
        unsafe { ffi::lua_getfield(self.0, -1, name.as_ptr()) };
    }

    /// Puts on top what the registry keeps under a name.
    pub fn push_registered(&mut self, name: &CStr) {
        // SAFETY: as above.
        unsafe { ffi::lua_getfield(self.0, ffi::LUA_REGISTRYINDEX, name.as_ptr()) };
    }

    /// Puts the metatable of what is at a place on top, if it has one.
    pub fn push_meta(&mut self, at: i32) -> bool {
        // SAFETY: as above.
        unsafe { ffi::lua_getmetatable(self.0, at) != 0 }
    }

    /// Compiles code. On top is the function then, or (false) what is wrong.
    pub fn load(&mut self, code: &[u8], name: &CStr) -> bool {
        let start: *const c_char = code.as_ptr().cast();
        // SAFETY: as above; so many bytes are there.
        unsafe { ffi::luaL_loadbuffer(self.0, start, code.len(), name.as_ptr()) == ffi::LUA_OK }
    }

    /// Takes a table from the top, and makes it the globals of the function below it.
    pub fn set_globals(&mut self) {
        // SAFETY: as above; the caller has put both there.
        unsafe { ffi::lua_setfenv(self.0, -2) };
    }

    /// Puts a new coroutine on top, and gives its stack, which lives as long as that stays there. May raise.
    pub fn push_coroutine(&mut self) -> Stack {
        // SAFETY: as above.
        Stack(unsafe { ffi::lua_newthread(self.0) })
    }

    /// Takes so many values from the top, and puts them on that of another stack of the same interpreter.
    pub fn move_to(&mut self, other: &mut Stack, count: i32) {
        // SAFETY: as above; the caller has put them there.
        unsafe { ffi::lua_xmove(self.0, other.0, count) }
    }

    /// Whether there is room for so many more values.
    pub fn has_room(&self, count: i32) -> bool {
        // SAFETY: as above.
        unsafe { ffi::lua_checkstack(self.0, count) != 0 }
    }

    /// What stands for a value that is neither plain data nor a table: the name of its kind, and where it is.
    pub fn object(&self, at: i32) -> (&'static str, usize) {
        // SAFETY: as above.
        let kind = unsafe { ffi::lua_type(self.0, at) };
        // SAFETY: as above; it is not followed.
        let place = unsafe { ffi::lua_topointer(self.0, at) }.addr();
        let kind = match kind {
            ffi::LUA_TFUNCTION => "function",
            ffi::LUA_TUSERDATA => "userdata",
            ffi::LUA_TTHREAD => "thread",
            ffi::LUA_TLIGHTUSERDATA => "light-userdata",
            _ => "unknown",
        };
        (kind, place)
    }
}

/// A table grows by itself: what it is told of its size need not be true.
fn size_hint(count: usize) -> c_int {
    count.min(1 << 20) as c_int
}
