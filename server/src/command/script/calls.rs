//! `redis.call` and `redis.pcall`: from the words on Lua's stack to the value of the reply.
//!
//! ```text
//!  script ─► Lua's stack ─► words, in place ─► Host::call ─► runner ─► reply ─► value on Lua's stack
//! ```
//!
//! Invariants
//! - A run is lent to this thread from its beginning to its end ([`lending`]), and to one of its calls at a time.
//! - While Lua may raise an error, nothing here holds what must be dropped: what a command replied lies with its run.
//! - No script runs while a reply becomes a value: scripts have no finalizers (`newproxy` is not among their globals).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;

use dfsnap_formats::double::DoubleText;
use dfsnap_formats::resp::Protocol;
use mlua::{Function, Lua};
use smallvec::SmallVec;

use super::convert;
use super::debugger;
use super::host::Host;
use super::stack::{self, Kind, OnStack, Stack};

thread_local! {
    /// The run of this thread, when none of its calls has it.
    static RUN: Cell<*mut Host<'static, 'static>> = const { Cell::new(ptr::null_mut()) };
    /// What a command panicked with. Lua's frames are no place for it: it goes on when they are left.
    static PANIC: RefCell<Option<Box<dyn Any + Send>>> = const { RefCell::new(None) };
}

/// Lends a run to the calls of its script while `work` runs.
pub fn lending<R>(host: &mut Host<'_, '_>, work: impl FnOnce() -> R) -> R {
    struct Before(*mut Host<'static, 'static>);
    impl Drop for Before {
        fn drop(&mut self) {
            RUN.set(self.0);
        }
    }
    let before = Before(RUN.replace(ptr::from_mut(host).cast()));
    let result = work();
    drop(before);
    if let Some(panic) = PANIC.take() {
        resume_unwind(panic);
    }
    result
}

/// Calls `work` with the run of this thread; `None` if there is none.
pub fn with_run<R>(work: impl FnOnce(&mut Host<'_, '_>) -> R) -> Option<R> {
    let run = RUN.replace(ptr::null_mut());
    if run.is_null() {
        return None;
    }
    // SAFETY: `lending` has put it there and takes it back before its borrow ends; until it is put back below nobody else finds it.
    let result = work(unsafe { &mut *run });
    RUN.set(run);
    Some(result)
}

/// `redis.call`: an error is raised.
struct Call;

/// `redis.pcall`: an error is a value.
struct Pcall;

/// `redis.call`, or `redis.pcall`.
pub fn function(lua: &Lua, raises: bool) -> mlua::Result<Function> {
    match raises {
        true => stack::function::<Call>(lua),
        false => stack::function::<Pcall>(lua),
    }
}

impl OnStack for Call {
    fn run(stack: &mut Stack) -> i32 {
        put_answer(stack, true)
    }
}

impl OnStack for Pcall {
    fn run(stack: &mut Stack) -> i32 {
        put_answer(stack, false)
    }
}

/// What a command replied. Nothing of it must be dropped.
#[derive(Clone, Copy)]
struct Answer {
    reply: *const [u8],
    protocol: Protocol,
    /// It is an error even for `redis.pcall`.
    is_refusal: bool,
    /// A command has replied, or was refused: then an error is in the statistics already, and its table says so.
    is_counted: bool,
}

fn put_answer(stack: &mut Stack, raises: bool) -> i32 {
    let answer = answer(stack);
    // There may be as many words as the stack has room for.
    stack.keep(0);
    // SAFETY: a reply lies still until the next call of its run, and this one is not over.
    let reply = unsafe { &*answer.reply };
    if convert::push_reply(stack, reply, answer.protocol).is_none() {
        convert::push_reply(stack, NO_REPLY, answer.protocol);
    }
    if answer.is_counted && reply.first() == Some(&b'-') {
        stack.push_bytes(b"ignore_error_stats_update");
        stack.push_boolean(true);
        stack.set_pair(-3);
    }
    if answer.is_refusal || raises && matches!(reply.first(), Some(b'-' | b'!')) {
        stack.raise();
    }
    1
}

/// Runs the command on the stack. Raises nothing: all it needs for that is gone when it returns.
#[inline(never)]
fn answer(stack: &Stack) -> Answer {
    let fault = |text: &'static [u8]| Answer {
        reply: text,
        protocol: Protocol::Resp2,
        is_refusal: false,
        is_counted: false,
    };
    let ran = catch_unwind(AssertUnwindSafe(|| {
        with_words(stack, |words| {
            let is_shown = debugger::shows_commands();
            if is_shown {
                debugger::note_command(words);
            }
            let replied = with_run(|host| {
                host.call(words);
                if is_shown {
                    show_reply(host);
                }
                Answer {
                    reply: host.reply.as_bytes(),
                    protocol: host.protocol,
                    is_refusal: false,
                    is_counted: true,
                }
            });
            replied.unwrap_or(Answer {
                is_refusal: true,
                ..fault(NO_RUN)
            })
        })
    }));
    match ran {
        Ok(Ok(answer)) => answer,
        Ok(Err(text)) => {
            debugger::note_error(text[1..].trim_ascii_end());
            fault(text)
        }
        Err(panic) => {
            PANIC.set(Some(panic));
            fault(NO_REPLY)
        }
    }
}

/// Shows the developer what a command replied, or why it was refused.
fn show_reply(host: &Host<'_, '_>) {
    let reply = host.reply.as_bytes();
    match reply.strip_prefix(b"-") {
        Some(text) if host.is_refused => debugger::note_error(text.trim_ascii_end()),
        _ => debugger::note_reply(reply),
    }
}

/// Calls `run` with the words on the stack: strings where they are, numbers in digits.
fn with_words<R>(stack: &Stack, run: impl FnOnce(&[&[u8]]) -> R) -> Result<R, &'static [u8]> {
    let mut digits = SmallVec::<[u8; 64]>::new();
    // Where the digits of each word end; those of a string are none.
    let mut ends = SmallVec::<[usize; 16]>::new();
    for at in 1..=stack.len() {
        match stack.kind(at) {
            Kind::String => {}
            Kind::Number(number) => put_digits(&mut digits, number),
            _ => return Err(WRONG_WORD),
        }
        ends.push(digits.len());
    }
    if ends.is_empty() {
        return Err(NO_WORD);
    }
    let mut words = SmallVec::<[&[u8]; 16]>::new();
    let mut start = 0;
    for (at, end) in (1..).zip(&ends) {
        words.push(match *end == start {
            true => stack.bytes(at),
            false => &digits[start..*end],
        });
        start = *end;
    }
    Ok(run(&words))
}

/// A number as a word: no digit is lost.
fn put_digits(digits: &mut SmallVec<[u8; 64]>, number: f64) {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if number.fract() == 0.0 && (-LIMIT..LIMIT).contains(&number) {
        digits.extend_from_slice(itoa::Buffer::new().format(number as i64).as_bytes());
    } else {
        digits.extend_from_slice(DoubleText::short(number).as_bytes());
    }
}

/// The number as a word.
pub fn number_word(number: f64) -> Vec<u8> {
    let mut digits = SmallVec::new();
    put_digits(&mut digits, number);
    digits.into_vec()
}

const NO_WORD: &[u8] = b"-ERR Please specify at least one argument for this redis lib call\r\n";
const WRONG_WORD: &[u8] = b"-ERR Lua redis lib command arguments must be strings or integers\r\n";
const NO_RUN: &[u8] = b"-ERR redis.call/pcall can only be called inside a script invocation\r\n";
const NO_REPLY: &[u8] = b"-ERR a command gave no reply\r\n";
