//! The debugger of scripts: stops a script before its lines, and does what the developer at the other end says.
//!
//! A session is one script on a thread of its own (`net/debugging` starts it), so at the prompt nobody waits but that thread. It asks for
//! bytes of the client and gives bytes to it through two channels. Called by `interpreter` (a script begins), by Lua before each line, by
//! `calls` and `library` (what commands replied), and by `redis.breakpoint` and `redis.debug`.
//!
//! ```text
//!  Lua, before a line ─► hook ─► stops here? ─► log, "* Stopped at …" ─► prompt: a request ─► log of its answer ─► the next
//!                                   └ no: on                               └ step, continue: on
//! ```
//!
//! Invariants
//! - The session of a thread is never borrowed while Lua runs: what runs may look at it.
//! - What the client is shown travels as arrays of status lines, one for each stop and each request.
//! - Room on Lua's stack is made before anything is held that must be dropped. From there on Lua raises for want of memory alone, where this
//!   process has come to its end anyway; all else runs under protected calls.
//! - When the client has gone, the script runs to its end without stops. One that does not end then is ended.

mod request;
pub mod run;
mod session;
mod text;

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::time::Instant;

use dfsnap_formats::resp::Protocol;

use super::stack::{Frame, Kind, OnLine, OnStack, Stack};
use super::{calls, convert};
use request::{HELP, WORDS_MAX, leading_int};
use session::Session;
pub use session::{Line, OwnMemory};
use text::{ROOM, put_reply, put_value, short_number};

/// Instructions between two looks at the clock.
const HOOK_INSTRUCTIONS: i32 = 100_000;
/// Words of a command that are shown.
const WORDS_SHOWN: usize = 10;

/// The chunk of what the developer has evaluated.
const EVALUATED: &CStr = c"@ldb_eval";
/// Where the registry keeps the globals of scripts.
pub const WORLD: &str = "dfsnap.world";
/// Where the registry keeps what makes of an error what it stands for.
pub const RAISED: &str = "dfsnap.raised";

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
    /// Whether there is one: each command of a script asks.
    static IS_HERE: Cell<bool> = const { Cell::new(false) };
}

/// What is raised in the script: an error as a command replies it. Nothing of it must be dropped.
pub type Fault = &'static [u8];

/// Begins the session of a script on this thread.
pub fn begin(line: Line, script: &[u8], memory: OwnMemory) {
    SESSION.set(Some(Session::new(line, script, memory)));
    IS_HERE.set(true);
}

/// Ends it: the client hears of that. What it has allocated is there until the script's interpreter goes.
pub fn end() -> OwnMemory {
    IS_HERE.set(false);
    let Some(mut session) = SESSION.take() else {
        return OwnMemory::default();
    };
    session.log("<endsession>");
    session.show();
    session.into_memory()
}

fn with<R>(run: impl FnOnce(&mut Session) -> R) -> Option<R> {
    SESSION.with_borrow_mut(|session| session.as_mut().map(run))
}

/// Whether the script of this thread is debugged.
#[inline]
pub fn is_here() -> bool {
    IS_HERE.get()
}

/// Whether it is, on a copy of the dataset: what it does must leave no trace.
pub fn is_forked() -> bool {
    with(|session| session.is_forked()).unwrap_or(false)
}

/// Stops the script that is about to run on this stack, if it is debugged.
pub fn watch(stack: &mut Stack) {
    if is_here() {
        stack.hook::<EachLine>(HOOK_INSTRUCTIONS);
    }
}

/// Whether commands and what they reply are shown.
#[inline]
pub fn shows_commands() -> bool {
    is_here() && with(|session| session.is_stepping).unwrap_or(false)
}

/// Shows a command that the script calls.
pub fn note_command(words: &[&[u8]]) {
    let mut text = b"<redis>".to_vec();
    for word in words.iter().take(WORDS_SHOWN) {
        text.push(b' ');
        text.extend_from_slice(word);
    }
    if words.len() > WORDS_SHOWN {
        let more = words.len() - WORDS_SHOWN - 1;
        text.extend(format!(" ... ({more} more)").bytes());
    }
    note(text);
}

/// Shows what it replied.
pub fn note_reply(reply: &[u8]) {
    let is_error = reply.first() == Some(&b'-');
    if is_error && let Some(end) = reply.iter().position(|byte| *byte == b'\r') {
        note([b"<error> ", &reply[..end]].concat());
    }
    let mut text = b"<reply> ".to_vec();
    // Of what is no reply there is nothing to show.
    let _ = put_reply(&mut text, reply);
    with(|session| session.log_cut(text));
}

/// Shows an error that the server raises in the script. A code of its own it shows, the general one not.
pub fn note_error(text: &[u8]) {
    if shows_commands() {
        let shown = match text.strip_prefix(b"ERR ") {
            Some(text) => text.to_vec(),
            None => [b"-", text].concat(),
        };
        note([b"<error> ", shown.as_slice()].concat());
    }
}

/// Shows an error that the script has made itself, if commands are shown.
pub fn note_made_error(text: &[u8]) {
    if shows_commands() {
        note([b"<error> -", text].concat());
    }
}

fn note(line: Vec<u8>) {
    with(|session| session.push(line));
}

/// `redis.breakpoint`: stops before the next line. Tells whether anybody debugs.
pub struct Breakpoint;

impl OnStack for Breakpoint {
    fn run(stack: &mut Stack) -> i32 {
        let is_here = with(|session| session.has_called = true).is_some();
        stack.push_boolean(is_here);
        1
    }
}

/// `redis.debug`: shows values.
pub struct Debug;

impl OnStack for Debug {
    fn run(stack: &mut Stack) -> i32 {
        let Some(at) = with(|session| session.at) else {
            return 0;
        };
        stack.reserve(ROOM);
        let mut text = format!("<debug> line {at}: ").into_bytes();
        let count = stack.len();
        for place in 1..=count {
            if place > 1 {
                text.extend(b", ");
            }
            stack.push_copy(place);
            put_value(&mut text, stack);
            stack.pop(1);
        }
        note(text);
        0
    }
}

/// Called by Lua.
struct EachLine;

impl OnLine for EachLine {
    fn run(stack: &mut Stack, is_line: bool) -> bool {
        match stop(stack, is_line) {
            Ok(()) => false,
            Err(fault) => {
                convert::push_reply(stack, fault, Protocol::Resp2);
                true
            }
        }
    }
}

const TIMEOUT: Fault = b"-ERR timeout during Lua debugging with client closing connection\r\n";
const ABORTED: Fault = b"-ERR script aborted for user request\r\n";

/// Whether a frame is the script's own.
fn is_of_script(chunk: &[u8]) -> bool {
    const NAME: &[u8] = b"user_script";
    chunk.windows(NAME.len()).any(|part| part == NAME)
}

/// Stops the script before a line, if it is to stop there.
fn stop(stack: &mut Stack, is_line: bool) -> Result<(), Fault> {
    with(Session::note_memory);
    if with(|session| session.is_over).unwrap_or(false) {
        return Err(TIMEOUT);
    }
    if !is_line && with(|session| session.is_alone() && session.is_late()).unwrap_or(false) {
        return give_up(stack);
    }
    let Some(frame) = stack.frame(0).filter(|frame| is_of_script(&frame.chunk)) else {
        return Ok(());
    };
    let line = frame.line.into();
    drop(frame);
    let Some(is_timeout) = with(|session| session.stops_at(line, is_line)).flatten() else {
        return Ok(());
    };
    stack.reserve(ROOM + WORDS_MAX as i32);
    let is_there = prompt(stack)?;
    if !is_there && is_timeout {
        return give_up(stack);
    }
    // One whose client has gone is not asked again how long it has: stops of its own would keep it alive for ever.
    let is_last = !is_there;
    with(|session| {
        if !std::mem::replace(&mut session.has_gone_on_alone, is_last) {
            session.running_since = Instant::now();
        }
    });
    calls::with_run(|host| host.renew_clock());
    Ok(())
}

/// Ends a script that goes on and on, with nobody there who could say so.
fn give_up(stack: &mut Stack) -> Result<(), Fault> {
    with(|session| session.is_over = true);
    // From now on at each instruction: it may catch this.
    stack.hook::<EachLine>(1);
    Err(TIMEOUT)
}

/// Does what the client says, until the script is to go on. False: the client has gone.
fn prompt(stack: &mut Stack) -> Result<bool, Fault> {
    loop {
        let request = with(Session::next_request).unwrap_or(Ok(None));
        let Some(words) = request? else {
            return Ok(false);
        };
        if !carry_out(stack, &words)? {
            return Ok(true);
        }
        with(|session| {
            session.note_memory();
            session.show();
        });
    }
}

/// Carries out a request. False: the script goes on, and there is nothing to show.
fn carry_out(stack: &mut Stack, words: &[Vec<u8>]) -> Result<bool, Fault> {
    let name = words[0].to_ascii_lowercase();
    match (name.as_slice(), &words[1..]) {
        (b"h" | b"help", _) => {
            with(|session| HELP.iter().for_each(|line| session.log(line)));
        }
        (b"s" | b"step" | b"n" | b"next", _) => {
            with(|session| session.is_stepping = true);
            return Ok(false);
        }
        (b"c" | b"continue", _) => return Ok(false),
        (b"t" | b"trace", _) => trace(stack),
        (b"m" | b"maxlen", args) => {
            with(|session| session.set_maxlen(args));
        }
        (b"b" | b"break", args) => {
            with(|session| session.set_breakpoints(args));
        }
        (b"e" | b"eval", args) => evaluate(stack, &args.join(&b' ')),
        (b"a" | b"abort", _) => return Err(ABORTED),
        (b"r" | b"redis", args @ [_, ..]) => run_command(stack, args),
        (b"p" | b"print", [name]) => print(stack, name),
        (b"p" | b"print", _) => print_all(stack),
        (b"l" | b"list", args) => {
            with(|session| {
                let around = args.first().map_or(0, |word| leading_int(word));
                let around = if around > 0 { around } else { session.at };
                let context = args.get(1).map_or(5, |word| leading_int(word));
                session.list(around, context);
            });
        }
        (b"w" | b"whole", _) => {
            with(|session| session.list(1, 1_000_000));
        }
        _ => {
            let text = "<error> Unknown Redis Lua debugger command or wrong number of arguments.";
            with(|session| session.log(text));
        }
    }
    Ok(true)
}

/// Shows who called whom.
fn trace(stack: &Stack) {
    let frames = (0..).map_while(|level| Some((level, stack.frame(level)?)));
    for (level, frame) in frames.filter(|(_, frame)| is_of_script(&frame.chunk)) {
        let mut text = if level == 0 { "In " } else { "From " }.as_bytes().to_vec();
        text.extend(frame.name.as_deref().unwrap_or(b"top level"));
        text.push(b':');
        with(|session| {
            session.push(text);
            session.log_source(frame.line.into());
        });
    }
}

/// Shows the variable of this name that is nearest.
fn print(stack: &mut Stack, name: &[u8]) {
    let bottom = stack.len();
    let is_ours = |frame: &Frame| frame.chunk == b"prelude";
    let levels = (0..).map_while(|level| Some((level, stack.frame(level)?)));
    let levels: Vec<i32> = levels
        .filter_map(|(level, frame)| (!is_ours(&frame)).then_some(level))
        .collect();
    for level in levels {
        for number in 1.. {
            match stack.push_local(level, number) {
                None => break,
                Some(found) if found == name => {
                    show_value(stack, b"<value> ".to_vec());
                    return stack.keep(bottom);
                }
                Some(_) => stack.keep(bottom),
            }
        }
    }
    match name {
        b"KEYS" => stack.push_global(c"KEYS"),
        b"ARGV" => stack.push_global(c"ARGV"),
        _ => return note(b"No such variable.".to_vec()),
    }
    show_value(stack, b"<value> ".to_vec());
    stack.keep(bottom);
}

/// Shows the variables of the innermost function.
fn print_all(stack: &mut Stack) {
    let (bottom, mut count) = (stack.len(), 0);
    for number in 1.. {
        let Some(name) = stack.push_local(0, number) else {
            break;
        };
        if name != b"(*temporary)" {
            show_value(stack, [b"<value> ", name.as_slice(), b" = "].concat());
            count += 1;
        }
        stack.keep(bottom);
    }
    if count == 0 {
        note(b"No local variables in the current context.".to_vec());
    }
}

/// Shows the value on top.
fn show_value(stack: &mut Stack, mut text: Vec<u8>) {
    put_value(&mut text, stack);
    with(|session| session.log_cut(text));
}

/// Runs code: an expression, whose value is shown, or a statement. It runs in a coroutine: there it can be ended, which nothing that a hook
/// calls in its own state can.
fn evaluate(stack: &mut Stack, code: &[u8]) {
    let bottom = stack.len();
    let expression = [b"return ", code].concat();
    let is_compiled = code.first() == Some(&0x1b);
    let is_good = !is_compiled
        && (stack.load(&expression, EVALUATED) || {
            stack.keep(bottom);
            stack.load(code, EVALUATED)
        });
    if is_compiled {
        note(b"<error> ldb_eval: compiled code is not allowed".to_vec());
    } else if is_good {
        stack.push_registered(c"dfsnap.world");
        stack.set_globals();
        let mut aside = stack.push_coroutine();
        assert!(aside.has_room(ROOM), "a fresh stack has room");
        aside.push_registered(c"dfsnap.raised");
        stack.push_copy(bottom + 1);
        stack.move_to(&mut aside, 1);
        with(|session| session.running_since = Instant::now());
        aside.hook::<WhileEvaluated>(HOOK_INSTRUCTIONS);
        if aside.call(0, 1) {
            show_value(&mut aside, b"<retval> ".to_vec());
        } else {
            show_error(&mut aside);
        }
        aside.keep(0);
    } else {
        show_error(stack);
    }
    stack.keep(bottom);
}

/// Called by Lua while the developer's code runs.
struct WhileEvaluated;

impl OnLine for WhileEvaluated {
    fn run(stack: &mut Stack, is_line: bool) -> bool {
        with(Session::note_memory);
        let must_end = !is_line && with(|session| session.is_late()).unwrap_or(true);
        if must_end {
            // At each instruction from now on: it may catch this.
            stack.hook::<WhileEvaluated>(1);
            stack.push_bytes(b"timeout reached, infinite loop?");
        }
        must_end
    }
}

/// Shows the error on top: a text, or the text in a table.
fn show_error(stack: &mut Stack) {
    if stack.kind(-1) == Kind::Table {
        stack.push_bytes(b"err");
        stack.get(-2);
    }
    let text = match stack.kind(-1) {
        Kind::String => stack.bytes(-1).to_vec(),
        Kind::Number(number) => short_number(number).into_bytes(),
        _ => b"(error object is not a string)".to_vec(),
    };
    note([b"<error> ", text.as_slice()].concat());
}

/// Runs a command as the script would, and shows what it replies.
fn run_command(stack: &mut Stack, words: &[Vec<u8>]) {
    let bottom = stack.len();
    stack.push_registered(c"dfsnap.raised");
    stack.push_global(c"redis");
    stack.push_field(c"call");
    words.iter().for_each(|word| stack.push_bytes(word));
    with(|session| session.is_stepping = true);
    // What it raises has been shown.
    let count = i32::try_from(words.len()).unwrap_or(i32::MAX);
    let _ = stack.call(count, bottom + 1);
    with(|session| session.is_stepping = false);
    stack.keep(bottom);
}
