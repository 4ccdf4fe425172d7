//! Scripts and functions: EVAL, FCALL and their kin.
//!
//! A script is one run, as a MULTI block is. With all its keys on one shard it runs there; with keys of several shards their
//! entries are gathered on one; without keys, or when it has been seen to touch others than it declares, it runs with all
//! shards. Replicas get what it did, not the script.
//!
//! ```text
//!  EVAL ─► store (SHA-1 → text, all threads) ─► interpreter of this thread ─► host: redis.call ─► runner ─► handler
//!                                                    └ prelude.lua, libraries         └ effects, gathered
//! ```

mod bits;
mod calls;
mod convert;
pub mod debugger;
pub mod functions;
mod host;
mod interpreter;
mod json;
mod library;
mod msgpack;
mod packing;
pub mod running;
pub mod shebang;
mod stack;
pub mod store;

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use dfsnap_formats::resp::Reply;

use super::call::Words;
use super::exec::Actor;
use super::reference;
use super::runner::MASTER_DOWN;
use super::words::int;
use super::{
    Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec, Run, Session,
};
use crate::keyspace::Keyspace;
use host::{Host, Terms};
use interpreter::{Code, Interpreter, Raised};
use store::{Script, Sha};

const KEYS: KeySpec = KeySpec::Counted {
    dest: None,
    count: 2,
};
const FLAGS: Flags = Flags::NOSCRIPT
    .with(Flags::STALE)
    .with(Flags::SKIP_MONITOR)
    .with(Flags::MAY_REPLICATE)
    .with(Flags::NO_MANDATORY_KEYS)
    .with(Flags::MOVABLEKEYS);
const FLAGS_RO: Flags = Flags::NOSCRIPT
    .with(Flags::STALE)
    .with(Flags::SKIP_MONITOR)
    .with(Flags::READONLY)
    .with(Flags::NO_MANDATORY_KEYS)
    .with(Flags::MOVABLEKEYS);

const fn row(
    name: &'static str,
    flags: Flags,
    handler: super::Handler,
    since: &'static str,
    summary: &'static str,
) -> Command {
    Command {
        name,
        arity: -3,
        flags,
        keys: KEYS,
        run: Run::Script(handler),
        group: Group::Scripting,
        since,
        summary,
    }
}

/// The rows. SCRIPT and FUNCTION stand with the commands that connections run.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    row("eval", FLAGS, eval, "2.6.0", "Runs a script."),
    row("eval_ro", FLAGS_RO, eval_ro, "7.0.0", "Runs a script that only reads."),
    row("evalsha", FLAGS, evalsha, "2.6.0", "Runs a script by its SHA-1."),
    row("evalsha_ro", FLAGS_RO, evalsha_ro, "7.0.0", "Runs a script that only reads by its SHA-1."),
    row("fcall", FLAGS, functions::fcall, "7.0.0", "Calls a function."),
    row("fcall_ro", FLAGS_RO, functions::fcall_ro, "7.0.0", "Calls a function that only reads."),
];

/// No script of this SHA.
const NO_SCRIPT: CommandError = CommandError::text("NOSCRIPT No matching script. Please use EVAL.");

/// Runs commands of connections in a script or a transaction: the command and its words.
pub type SessionRunner = fn(Session, Args<'_>, Within<'_>) -> Result<(), CommandError>;

/// Where such a command runs.
pub struct Within<'a> {
    /// The id of the client.
    pub client_id: u64,
    /// What the run has: of all shards, for commands that need everything.
    pub keyspaces: &'a mut [Box<Keyspace>],
    /// Where the reply goes.
    pub reply: &'a mut Reply,
}

/// DEBUG SET-DISABLE-DENY-SCRIPTS: scripts may run what is not for them.
static ALLOWS_DENIED: AtomicBool = AtomicBool::new(false);

/// Lets scripts run commands that are not for scripts, or not.
pub fn allow_denied(is_allowed: bool) {
    ALLOWS_DENIED.store(is_allowed, Ordering::Relaxed);
}

/// Tells whether clients may write now.
pub type WriteCheck = fn() -> Result<(), CommandError>;

/// Tells whether this server's data is too old to be shown.
pub type StaleCheck = fn() -> bool;

static STALE_CHECK: OnceLock<StaleCheck> = OnceLock::new();

/// Introduces who knows whether data is too old.
pub fn set_stale_check(check: StaleCheck) {
    let _ = STALE_CHECK.set(check);
}

fn is_stale() -> bool {
    STALE_CHECK.get().is_some_and(|check| check())
}

static WRITE_CHECK: OnceLock<WriteCheck> = OnceLock::new();

/// Introduces who knows whether clients may write.
pub fn set_write_check(check: WriteCheck) {
    let _ = WRITE_CHECK.set(check);
}

fn check_write() -> Result<(), CommandError> {
    WRITE_CHECK.get().map_or(Ok(()), |check| check())
}

static SESSION_RUNNER: OnceLock<SessionRunner> = OnceLock::new();

/// Introduces who runs commands of connections for scripts.
pub fn set_session_runner(runner: SessionRunner) {
    let _ = SESSION_RUNNER.set(runner);
}

/// Who runs them, if that is known.
pub fn session_runner() -> Option<SessionRunner> {
    SESSION_RUNNER.get().copied()
}

thread_local! {
    static INTERPRETER: RefCell<Option<Interpreter>> = const { RefCell::new(None) };
}

/// Bytes of memory of all interpreters for scripts, and for functions.
static MEMORY: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Bytes of memory of all interpreters for scripts, and for functions.
pub fn memory_bytes() -> (u64, u64) {
    let [scripts, functions] = &MEMORY;
    (
        scripts.load(Ordering::Relaxed),
        functions.load(Ordering::Relaxed),
    )
}

/// Uses a thread's interpreter, and keeps count of its memory. One of an older generation is replaced by what `make` makes.
fn with_interpreter<R>(
    slot: &RefCell<Option<Interpreter>>,
    kind: usize,
    generation: u64,
    make: impl FnOnce() -> mlua::Result<Interpreter>,
    run: impl FnOnce(&mut Interpreter) -> R,
) -> Result<R, CommandError> {
    let mut slot = slot.borrow_mut();
    let before = slot.as_ref().map_or(0, Interpreter::bytes);
    if slot.as_ref().is_none_or(|old| old.generation != generation) {
        *slot = None;
        let mut made = make()
            .map_err(|error| CommandError::new(format!("cannot start an interpreter: {error}")))?;
        made.generation = generation;
        *slot = Some(made);
    }
    let interpreter = slot.as_mut().expect("it was just made");
    let result = run(interpreter);
    let after = interpreter.bytes();
    MEMORY[kind].fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
    if running_was_killed() {
        // Its hook raises an error at every instruction.
        MEMORY[kind].fetch_sub(after, Ordering::Relaxed);
        *slot = None;
    }
    Ok(result)
}

thread_local! {
    static WAS_KILLED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn running_was_killed() -> bool {
    WAS_KILLED.replace(false)
}

fn eval(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    run_text(exec, args, false)
}

fn eval_ro(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    run_text(exec, args, true)
}

fn evalsha(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    run_known(exec, args, false)
}

fn evalsha_ro(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    run_known(exec, args, true)
}

fn run_text(exec: &mut Exec<'_>, args: Args<'_>, is_ro: bool) -> CommandResult {
    let (keys, rest) = keys_and_rest(args)?;
    let sha = store::sha1_hex(args[1]);
    let script = match store::find(&sha) {
        Some(script) => script,
        None => compiled(sha, args[1])?,
    };
    run(exec, sha, &script, keys, rest, is_ro)
}

fn run_known(exec: &mut Exec<'_>, args: Args<'_>, is_ro: bool) -> CommandResult {
    let sha = store::sha(args[1]).ok_or(NO_SCRIPT)?;
    let (keys, rest) = keys_and_rest(args)?;
    let script = store::find(&sha).ok_or(NO_SCRIPT)?;
    run(exec, sha, &script, keys, rest, is_ro)
}

/// The keys of a script or function, and its other arguments.
fn keys_and_rest<'a>(args: Args<'a>) -> Result<(Args<'a>, Args<'a>), CommandError> {
    let count = int(args[2])?;
    if count > args.len() as i64 - 3 {
        return Err(CommandError::new(
            "Number of keys can't be greater than number of args",
        ));
    }
    let count = usize::try_from(count)
        .map_err(|_| CommandError::new("Number of keys can't be negative"))?;
    Ok(args[3..].split_at(count))
}

/// Compiles a script that is not known yet, and keeps it.
fn compiled(sha: Sha, body: &[u8]) -> Result<Arc<Script>, CommandError> {
    let (code_at, flags) = shebang::of_script(body)?;
    let script = Arc::new(Script {
        body: body.to_vec(),
        code_at,
        flags,
    });
    on_this_thread(|interpreter| interpreter.know_script(&sha, script.code()))??;
    if !debugger::is_forked() {
        store::insert(sha, script.clone());
    }
    Ok(script)
}

/// Forgets the interpreter of this thread, which is about to end.
pub fn leave_thread() {
    if let Some(interpreter) = INTERPRETER.take() {
        MEMORY[0].fetch_sub(interpreter.bytes(), Ordering::Relaxed);
    }
}

fn on_this_thread<R>(run: impl FnOnce(&mut Interpreter) -> R) -> Result<R, CommandError> {
    INTERPRETER
        .with(|slot| with_interpreter(slot, 0, store::generation(), || Interpreter::new(true), run))
}

/// Whether a script or function of these flags may run now, and on which terms. `None`: it says nothing of itself.
fn terms(
    exec: &Exec<'_>,
    flags: Option<shebang::Flags>,
    is_ro: bool,
) -> Result<Terms, CommandError> {
    let Some(flags) = flags else {
        if exec.actor != Actor::Link && is_stale() {
            return Err(MASTER_DOWN);
        }
        return Ok(Terms {
            is_read_only: is_ro,
            allows_oom: exec.actor == Actor::Link,
            allows_cross_slot: true,
        });
    };
    if !flags.no_writes {
        if exec.actor == Actor::ReplicaClient && exec.settings.replica_read_only {
            return Err(CommandError::text(
                "READONLY You can't write against a read only replica.",
            ));
        }
        if exec.actor == Actor::Client
            && let Err(error) = check_write()
        {
            if !error.0.starts_with("MISCONF") {
                return Err(error);
            }
            return Err(CommandError::text(
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Writable \
                 scripts are blocked. Use 'no-writes' flag for read only scripts.",
            ));
        }
        if is_ro {
            return Err(CommandError::new(
                "Can not execute a script with write flag using *_ro command.",
            ));
        }
    }
    let allows_oom = flags.allow_oom || flags.no_writes || exec.actor == Actor::Link;
    if !allows_oom && exec.is_out_of_memory() {
        return Err(CommandError::text(
            "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
        ));
    }
    Ok(Terms {
        is_read_only: is_ro || flags.no_writes,
        allows_oom,
        allows_cross_slot: flags.allow_cross_slot_keys,
    })
}

/// What a script or function says of itself, if it is known and says anything: by the words of the command that runs it.
pub fn declared_flags(args: Args<'_>) -> Option<shebang::Flags> {
    let name = args[0].to_ascii_lowercase();
    if name.starts_with(b"fcall") {
        return functions::flags_of(args.get(1)?);
    }
    if !name.starts_with(b"evalsha") {
        return shebang::of_script(args.get(1)?).ok()?.1;
    }
    store::find(&store::sha(args.get(1)?)?)?.flags
}

/// Whether the command of these words may write or publish, as far as can be told before it runs.
pub fn may_replicate(command: &Command, args: Args<'_>) -> bool {
    if let Run::Script(_) = command.run
        && let Some(flags) = declared_flags(args)
    {
        return !flags.no_writes;
    }
    command.is_write() || command.flags.has(Flags::MAY_REPLICATE)
}

/// Whether the command of these words may run on a replica that has lost its primary and may not show old data.
pub fn allows_stale(command: &Command, args: Args<'_>) -> bool {
    match command.run {
        // What says nothing of itself, or is not known, is told when it is to run.
        Run::Script(_) => declared_flags(args).is_none_or(|flags| flags.allow_stale),
        _ if command.flags.has(Flags::CONTAINER) => {
            reference::subcommand_has(command.name, args, "stale")
        }
        _ => command.flags.has(Flags::STALE),
    }
}

/// Whether the command of these words writes, or says that it may.
pub fn may_write(command: &Command, args: Args<'_>) -> bool {
    match command.run {
        Run::Script(_) => declared_flags(args).is_some_and(|flags| !flags.no_writes),
        _ if command.flags.has(Flags::CONTAINER) => {
            reference::subcommand_has(command.name, args, "write")
        }
        _ => command.is_write(),
    }
}

fn run(
    exec: &mut Exec<'_>,
    sha: Sha,
    script: &Script,
    keys: &[&[u8]],
    rest: &[&[u8]],
    is_ro: bool,
) -> CommandResult {
    let terms = terms(exec, script.flags, is_ro)?;
    let run = running::Running::new(None, Words::default(), exec.actor == Actor::Link);
    let effect = on_this_thread(|interpreter| {
        interpreter.know_script(&sha, script.code())?;
        let code = interpreter.script(&sha);
        let name = std::str::from_utf8(&sha).expect("hex digits");
        run_code(exec, interpreter, code, (keys, rest), terms, run, name)
    })??;
    if exec.has_strayed {
        store::set_undeclared(sha);
    }
    Ok(effect)
}

/// Runs a compiled script or function on an interpreter, and makes one effect of what it did. What it raised is its reply.
fn run_code(
    exec: &mut Exec<'_>,
    interpreter: &Interpreter,
    code: Code,
    (keys, rest): (&[&[u8]], &[&[u8]]),
    terms: Terms,
    run: running::Running,
    name: &str,
) -> CommandResult {
    let guard = running::begin(run);
    let start = exec.reply.len();
    let mut host = Host::new(exec, keys, terms, guard.0.clone());
    let ended = interpreter.run(code, (keys, rest), &mut host);
    let commit = std::mem::take(&mut host.commit);
    let (has_strayed, counted) = (host.has_strayed, std::mem::take(&mut host.counted));
    drop(host);
    let error = match &ended {
        Ok(()) => exec.reply.as_bytes()[start..].strip_prefix(b"-"),
        Err(raised) => Some(raised.text.as_slice()),
    };
    let has_counted = |text: &[u8]| counted.iter().any(|known| text.starts_with(known));
    let own_error = error.filter(|text| !has_strayed && !has_counted(text));
    if let (Some(text), Some(stats)) = (own_error, &mut exec.stats) {
        stats.error(&String::from_utf8_lossy(text.trim_ascii_end()));
    }
    exec.has_strayed |= has_strayed;
    WAS_KILLED.set(guard.0.is_killed());
    if let Err(raised) = ended {
        exec.reply.truncate(start);
        exec.reply.error_bytes(&raised_text(&raised, name));
    }
    exec.adopt_touched(commit.touched);
    if commit.changes == 0 && commit.effects.is_empty() {
        return Ok(Effect::None);
    }
    Ok(Effect::Unit {
        effects: commit.effects.into_vec(),
        changes: commit.changes,
    })
}

/// An error of a script as clients see it.
fn raised_text(raised: &Raised, name: &str) -> Vec<u8> {
    let mut text = raised.text.clone();
    if let Some((source, line)) = &raised.place {
        text.extend_from_slice(format!(" script: {name}, on ").as_bytes());
        text.extend_from_slice(source);
        text.extend_from_slice(format!(":{line}.").as_bytes());
    }
    for byte in &mut text {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    text
}

/// Whether a call needs all shards: it has no keys, or is known to touch others.
pub fn needs_everything(args: &[&[u8]]) -> bool {
    let has_keys = args
        .get(2)
        .and_then(|word| int(word).ok())
        .is_some_and(|count| count > 0);
    if !has_keys {
        return true;
    }
    if args[0].len() >= 5 && args[0][..5].eq_ignore_ascii_case(b"fcall") {
        return functions::is_undeclared(args[1]);
    }
    let is_sha = args[0].len() >= 7 && args[0][..7].eq_ignore_ascii_case(b"evalsha");
    let sha = if is_sha {
        store::sha(args[1])
    } else {
        Some(store::sha1_hex(args[1]))
    };
    sha.is_some_and(|sha| store::is_undeclared(&sha))
}

/// SCRIPT and its subcommands. DEBUG is for a connection to carry out.
pub fn script(args: Args<'_>, reply: &mut Reply) -> Result<(), CommandError> {
    let name = args[1].to_ascii_lowercase();
    match (name.as_slice(), &args[2..]) {
        (b"load", [body]) => {
            let sha = store::sha1_hex(body);
            if store::find(&sha).is_none() {
                compiled(sha, body)?;
            }
            reply.bulk(&sha);
        }
        (b"exists", shas @ [_, ..]) => {
            reply.array(shas.len());
            for word in shas {
                let is_known = store::sha(word).is_some_and(|sha| store::find(&sha).is_some());
                reply.int(i64::from(is_known));
            }
        }
        (b"flush", words) => {
            let is_known = |word: &&[u8]| {
                word.eq_ignore_ascii_case(b"sync") || word.eq_ignore_ascii_case(b"async")
            };
            if words.len() > 1 || !words.iter().all(is_known) {
                return Err(CommandError::new(
                    "SCRIPT FLUSH only support SYNC|ASYNC option",
                ));
            }
            store::flush();
            reply.ok();
        }
        (b"kill", []) => {
            running::kill(false).map_err(CommandError::text)?;
            reply.ok();
        }
        // In a transaction or a script there are always replies before it.
        (b"debug", [_]) => {
            return Err(CommandError::new(
                "SCRIPT DEBUG must be called outside a pipeline",
            ));
        }
        (b"help", []) => help(reply, SCRIPT_HELP),
        (b"load" | b"exists" | b"kill" | b"help", _) => {
            let name = String::from_utf8_lossy(&name).into_owned();
            return Err(CommandError::wrong_arity(&format!("script|{name}")));
        }
        _ => return Err(unknown_subcommand("SCRIPT", args[1])),
    }
    Ok(())
}

fn help(reply: &mut Reply, lines: &[&str]) {
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.simple(line));
}

fn unknown_subcommand(container: &str, name: &[u8]) -> CommandError {
    let name = String::from_utf8_lossy(&name[..name.len().min(128)]).into_owned();
    CommandError::new(format!(
        "unknown subcommand '{name}'. Try {container} HELP."
    ))
}

const SCRIPT_HELP: &[&str] = &[
    "SCRIPT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "DEBUG (YES|SYNC|NO)",
    "    Whether, and how, the scripts of this connection are debugged.",
    "EXISTS <sha1> [<sha1> ...]",
    "    Whether scripts of these SHA-1 are known.",
    "FLUSH [ASYNC|SYNC]",
    "    Forget all scripts.",
    "KILL",
    "    End the script that runs now.",
    "LOAD <script>",
    "    Keep a script without running it.",
    "HELP",
    "    This text.",
];
