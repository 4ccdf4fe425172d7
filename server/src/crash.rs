//! The last words of a process that ends by SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGABRT: what happened where, and what each shard was running.
//!
//! `main` says where the log goes, and `crash-log-enabled` whether there is a report at all. The handler runs at any moment, on a thread that
//! may hold any lock: it takes no memory and no locks, and writes by system calls alone what it finds in atomics, in constants and in what
//! was opened when it was installed. Then the signal takes its course, so that the exit status is its own and there is a core dump where
//! there would be one without us.
//!
//! Invariants
//! - One thread reports; another that crashes meanwhile waits for the end that is coming.
//! - A fault within the report ends the process at once: its signals are blocked there, and the kernel does not wait.
//! - The stack is read through `/proc/self/mem`: what is not there to read is an error, not another fault.

use std::ffi::{c_int, c_void};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};

use crate::command::table;
use crate::stats::activity;
use crate::world::World;

/// The signals that are reported, with their names.
const SIGNALS: [(c_int, &str); 5] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGABRT, "SIGABRT"),
];

/// Bytes of the stack that are looked through, and addresses that are shown of it at most.
const STACK_BYTES_MAX: u64 = 32 << 10;
const ADDRESSES_MAX: usize = 40;

const SIGNAL_STACK_BYTES: usize = 64 << 10;

/// Where the report goes.
static LOG: OnceLock<File> = OnceLock::new();
/// What the handler needs to have at hand.
static AT_HAND: OnceLock<AtHand> = OnceLock::new();
static WORLD: OnceLock<Arc<World>> = OnceLock::new();
static IS_REPORTING: AtomicBool = AtomicBool::new(false);

struct AtHand {
    /// What each of [`SIGNALS`] did before us.
    before: [libc::sigaction; SIGNALS.len()],
    /// The memory of this process.
    memory: Option<File>,
    /// Where the program's file lies in it, and its code.
    program: Option<(u64, Range<u64>)>,
}

/// Says where the log goes.
pub fn set_log(log: File) {
    let _ = LOG.set(log);
}

/// Says whom to ask how things stood.
pub fn set_world(world: &Arc<World>) {
    let _ = WORLD.set(world.clone());
}

/// Reports crashes from now on, or no longer.
pub fn enable(is_wanted: bool) {
    let at_hand = AT_HAND.get_or_init(|| AtHand {
        before: SIGNALS.map(|(signal, _)| action_of(signal)),
        memory: File::open("/proc/self/mem").ok(),
        program: program(),
    });
    for ((signal, _), before) in SIGNALS.into_iter().zip(at_hand.before) {
        act(signal, if is_wanted { our_action() } else { before });
    }
}

/// Gives this thread a stack for signals on which a report has room; the one that it came with is as small as can be.
pub fn take_stack() {
    let stack: &'static mut [u8] = Box::leak(vec![0; SIGNAL_STACK_BYTES].into_boxed_slice());
    let stack = libc::stack_t {
        ss_sp: stack.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: stack.len(),
    };
    // SAFETY: the memory is this thread's alone from now on, and stays as long as the process.
    unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) };
}

/// An action that is the system's own.
fn default_action() -> libc::sigaction {
    // SAFETY: the struct is plain data, and zeros mean SIG_DFL with no flags and an empty mask.
    unsafe { std::mem::zeroed() }
}

fn our_action() -> libc::sigaction {
    let mut action = default_action();
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_signal;
    action.sa_sigaction = handler as libc::sighandler_t;
    // On the stack for signals, since the thread's own may be used up.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    for (signal, _) in SIGNALS {
        // SAFETY: the set is ours, and the number is a signal's.
        unsafe { libc::sigaddset(&mut action.sa_mask, signal) };
    }
    action
}

fn action_of(signal: c_int) -> libc::sigaction {
    let mut action = default_action();
    // SAFETY: no new action is given, and the old one is written to a struct of its type.
    unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    action
}

fn act(signal: c_int, action: libc::sigaction) {
    // SAFETY: the action is the system's, one that was in force before, or ours: `on_signal` has the signature that SA_SIGINFO asks for and
    // does only what may be done in a handler, as its comments argue.
    unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
}

/// Where this program's file begins in memory, and where its code is.
fn program() -> Option<(u64, Range<u64>)> {
    let path = std::fs::read_link("/proc/self/exe").ok()?;
    let path = path.to_str()?;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let mut base = None;
    for line in maps.lines().filter(|line| line.ends_with(path)) {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let base = *base.get_or_insert(number(start)?);
        if words.next()?.contains('x') {
            return Some((base, number(start)?..number(end)?));
        }
    }
    None
}

/// Called by the kernel.
extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid `siginfo_t`, ours while the handler runs.
    let info = unsafe { &*info };
    // A positive code is the kernel's own: the instruction faulted, and would again. Others were sent.
    let is_fault = info.si_code > 0 && signal != libc::SIGABRT;
    if IS_REPORTING.swap(true, Ordering::AcqRel) {
        loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
    }
    if let Some(log) = LOG.get() {
        report(log, signal, info, is_fault, place(context));
    }
    // Whoever was there before us may end with it.
    act(libc::SIGABRT, default_action());
    let known = SIGNALS.iter().position(|(known, _)| *known == signal);
    let before = known.and_then(|at| Some(AT_HAND.get()?.before[at]));
    match before {
        // Back at the instruction it faults again. Whoever was there before us tells of a stack that is used up.
        Some(before) if is_fault => act(signal, before),
        _ => {
            act(signal, default_action());
            if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
                let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
            }
        }
    }
}

/// The instruction and the stack pointer of the interrupted code, where they are known.
fn place(context: *mut c_void) -> Option<(u64, u64)> {
    // SAFETY: with SA_SIGINFO the kernel passes a valid `ucontext_t`, ours while the handler runs.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    #[cfg(target_arch = "x86_64")]
    return Some((
        registers.gregs[libc::REG_RIP as usize] as u64,
        registers.gregs[libc::REG_RSP as usize] as u64,
    ));
    #[cfg(target_arch = "aarch64")]
    return Some((registers.pc, registers.sp));
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = registers;
        None
    }
}

/// A line on the stack; what is too long is cut off.
struct Line {
    bytes: [u8; 160],
    len: usize,
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = &mut self.bytes[self.len..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}

/// Writes a line by one system call. Not inlined: a line of its own at each place would be more than the stack for signals holds.
#[inline(never)]
fn say(log: &File, text: std::fmt::Arguments<'_>) {
    let mut line = Line {
        bytes: [0; 160],
        len: 0,
    };
    let _ = line.write_fmt(text);
    let end = line.len.min(line.bytes.len() - 1);
    line.bytes[end] = b'\n';
    let mut log = log;
    let _ = log.write(&line.bytes[..=end]);
}

fn report(
    log: &File,
    signal: c_int,
    info: &libc::siginfo_t,
    is_fault: bool,
    place: Option<(u64, u64)>,
) {
    let named = SIGNALS.iter().find(|(known, _)| *known == signal);
    let name = named.map_or("", |(_, name)| name);
    say(
        log,
        format_args!("\n=== DFSNAP BUG REPORT START: Cut & paste starting from here ==="),
    );
    say(
        log,
        format_args!(
            "dfsnap {} crashed by signal: {signal} ({name}), si_code: {}",
            env!("CARGO_PKG_VERSION"),
            info.si_code
        ),
    );
    if is_fault {
        // SAFETY: for these signals, when the kernel itself sends them, the union holds an address.
        let address = unsafe { info.si_addr() };
        say(
            log,
            format_args!("Accessing address: {:#x}", address.addr()),
        );
    } else if matches!(info.si_code, libc::SI_USER | libc::SI_TKILL) {
        // SAFETY: for signals that a process sends, the union holds its id.
        let sender = unsafe { info.si_pid() };
        say(log, format_args!("Killed by PID: {sender}"));
    }
    if let Some((instruction, stack)) = place {
        say(
            log,
            format_args!("Crashed running the instruction at: {instruction:#x}"),
        );
        report_stack(log, instruction, stack);
    }
    say(log, format_args!("\n------ RUNNING ------"));
    report_thread(log);
    if let Some(world) = WORLD.get() {
        for shard in 0..world.links.shards().min(activity::PLACES_MAX) {
            report_shard(log, shard);
        }
        report_state(log, world);
    }
    say(log, format_args!("\n=== DFSNAP BUG REPORT END ==="));
}

/// Addresses in the program's code that lie on the stack: where calls return to, and some that lay there before.
fn report_stack(log: &File, instruction: u64, stack: u64) {
    let at_hand = AT_HAND.get();
    let Some((base, code)) = at_hand.and_then(|at_hand| at_hand.program.as_ref()) else {
        return;
    };
    say(log, format_args!("\n------ STACK TRACE ------"));
    say(
        log,
        format_args!(
            "Places in the program's file, the innermost first (addr2line -e dfsnap-server):"
        ),
    );
    if code.contains(&instruction) {
        say(log, format_args!("{:#x}", instruction - base));
    }
    let Some(memory) = at_hand.and_then(|at_hand| at_hand.memory.as_ref()) else {
        return;
    };
    let (stack, mut shown) = (stack & !7, 0);
    let mut words = [0; 256];
    let pieces = (0..STACK_BYTES_MAX).step_by(words.len());
    for from in pieces {
        let read = rustix::io::pread(memory.as_fd(), &mut words, stack + from).unwrap_or(0);
        for word in words[..read].as_chunks::<8>().0 {
            let word = u64::from_ne_bytes(*word);
            if code.contains(&word) && shown < ADDRESSES_MAX {
                say(log, format_args!("{:#x}", word - base));
                shown += 1;
            }
        }
        if read < words.len() || shown == ADDRESSES_MAX {
            return;
        }
    }
}

fn report_thread(log: &File) {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut name = [0; 32];
    let read = rustix::fs::open("/proc/thread-self/comm", flags, Mode::empty())
        .and_then(|file| rustix::io::read(&file, &mut name));
    let name = std::str::from_utf8(&name[..read.unwrap_or(0)]).unwrap_or_default();
    say(log, format_args!("Thread: {}", name.trim_end()));
}

fn report_shard(log: &File, shard: usize) {
    let running = activity::of_shard(shard);
    let known = running
        .and_then(|address| table::all().find(|command| command.name.as_ptr().addr() == address));
    match (running, known) {
        (_, Some(command)) => say(
            log,
            format_args!("Shard {shard}: command '{}'", command.name),
        ),
        (Some(_), None) => say(log, format_args!("Shard {shard}: a command")),
        (None, None) => say(log, format_args!("Shard {shard}: no command")),
    }
}

/// What INFO would tell, of what is there without asking anybody.
fn report_state(log: &File, world: &World) {
    let is = |flag: &AtomicBool| u8::from(flag.load(Ordering::Relaxed));
    let counters = &world.counters;
    let role = match world.is_replica.load(Ordering::Relaxed) {
        true => "slave",
        false => "master",
    };
    say(log, format_args!("\n------ INFO OUTPUT ------"));
    say(
        log,
        format_args!("redis_version:{}", crate::config::REDIS_VERSION),
    );
    say(log, format_args!("run_id:{}", world.run_id));
    say(log, format_args!("process_id:{}", std::process::id()));
    say(
        log,
        format_args!("uptime_in_seconds:{}", world.started.elapsed().as_secs()),
    );
    say(log, format_args!("role:{role}"));
    say(log, format_args!("loading:{}", is(&world.is_loading)));
    say(
        log,
        format_args!(
            "total_connections_received:{}",
            counters.connections.load(Ordering::Relaxed)
        ),
    );
    say(
        log,
        format_args!(
            "total_commands_processed:{}",
            counters.commands.load(Ordering::Relaxed)
        ),
    );
    say(
        log,
        format_args!(
            "used_memory_peak:{}",
            counters.memory_peak.load(Ordering::Relaxed)
        ),
    );
}

/// DEBUG SEGFAULT: reads memory that may not be read.
pub fn fault() {
    let length = 4096;
    // SAFETY: a new mapping at a place that the kernel chooses touches nothing that is there.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page != libc::MAP_FAILED {
        // SAFETY: the page is there and nobody's. The processor refuses to read it, and the kernel sends SIGSEGV: that is what was asked for.
        unsafe { page.cast::<u8>().read_volatile() };
    }
}
