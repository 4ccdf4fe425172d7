//! The state of a debugging session: the script's lines, the breakpoints, and what is to be shown.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, UnboundedSender};

use super::Fault;
use super::request::{Parsed, leading_int, parse};
use crate::command::script::running;
use crate::keyspace::value::canonical_i64;
use crate::memory::{self, NotCounted};

/// So many bytes that are no request yet end the session.
const PENDING_BYTES_MAX: usize = 1 << 20;
const BREAKPOINTS_MAX: usize = 64;
/// Of lines to be shown at once: a script may say more between two stops than anybody reads.
const LOG_BYTES_MAX: usize = 4 << 20;
/// Longer lines of values and replies are cut; 0: none.
const MAXLEN_DEFAULT: usize = 256;
const MAXLEN_MIN: usize = 60;
/// How long a script runs before it is taken for an endless one, where `busy-reply-threshold` says nothing.
const THRESHOLD: Duration = Duration::from_secs(5);

/// The client of a session, as its thread sees it.
pub struct Line {
    /// What it sends, at most a kilobyte at a time. Closed when it has gone.
    pub input: Receiver<Vec<u8>>,
    /// What it is sent.
    pub output: UnboundedSender<Vec<u8>>,
}

/// What a session on a copy of the dataset has allocated: nobody's keys are evicted for it.
#[derive(Default)]
pub struct OwnMemory {
    copy: Option<Copy>,
}

struct Copy {
    not_counted: NotCounted,
    /// Bytes of the copy as it was made.
    bytes: i64,
    /// What this thread had allocated before.
    before: i64,
}

impl OwnMemory {
    /// Of a session that begins on this thread, on a copy of so many bytes.
    pub fn of_copy(not_counted: NotCounted) -> OwnMemory {
        let copy = Copy {
            bytes: not_counted.get() as i64,
            before: memory::balance_of_this_thread(),
            not_counted,
        };
        OwnMemory { copy: Some(copy) }
    }

    /// Looks at what this thread has allocated since, and freed.
    pub fn note(&mut self) {
        if let Some(copy) = &mut self.copy {
            memory::tell();
            let grown = memory::balance_of_this_thread() - copy.before;
            copy.not_counted.set((copy.bytes + grown).max(0) as u64);
        }
    }

    /// The bytes that do not count, to go with what has them.
    pub fn into_not_counted(mut self) -> NotCounted {
        self.note();
        self.copy
            .map_or_else(NotCounted::default, |copy| copy.not_counted)
    }
}

/// One debugged script.
pub struct Session {
    line: Line,
    source: Vec<Vec<u8>>,
    /// Lines to be shown at the next stop, or as the answer to a request.
    log: Vec<Vec<u8>>,
    log_bytes: usize,
    /// Lines that were too many.
    left_out: usize,
    memory: OwnMemory,
    /// The beginning of a request.
    pending: Vec<u8>,
    breakpoints: Vec<i64>,
    /// It stops at the next line, and shows commands and replies until then.
    pub(super) is_stepping: bool,
    /// `redis.breakpoint()` was called.
    pub(super) has_called: bool,
    /// The line that the script is at.
    pub(super) at: i64,
    maxlen: usize,
    has_hinted: bool,
    /// Since the script began, or left the prompt.
    pub(super) running_since: Instant,
    /// It has left a prompt where nobody was.
    pub(super) has_gone_on_alone: bool,
    /// The script is to end at once, whatever it catches.
    pub(super) is_over: bool,
}

impl Session {
    /// For a script. It stops before its first line.
    pub(super) fn new(line: Line, script: &[u8], memory: OwnMemory) -> Session {
        let ends = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let source = match script.iter().rposition(|byte| !ends(byte)) {
            Some(last) => {
                let lines = script[..=last].split(|byte| *byte == b'\n');
                lines.map(<[u8]>::to_vec).collect()
            }
            None => Vec::new(),
        };
        Session {
            line,
            source,
            log: Vec::new(),
            log_bytes: 0,
            left_out: 0,
            memory,
            pending: Vec::new(),
            breakpoints: Vec::new(),
            is_stepping: true,
            has_called: false,
            at: 0,
            maxlen: MAXLEN_DEFAULT,
            has_hinted: false,
            running_since: Instant::now(),
            has_gone_on_alone: false,
            is_over: false,
        }
    }

    /// Waits for a request. `None`: the client has gone.
    pub(super) fn next_request(&mut self) -> Result<Option<Vec<Vec<u8>>>, Fault> {
        loop {
            match parse(&self.pending) {
                Parsed::Request(words) => {
                    // What came in one piece with it is no request: one answer is read before the next is asked for.
                    self.pending.clear();
                    return Ok(Some(words));
                }
                Parsed::Nonsense => {
                    self.pending.clear();
                    return Err(b"-ERR protocol error\r\n");
                }
                Parsed::Incomplete => {}
            }
            let Some(bytes) = self.line.input.blocking_recv() else {
                self.pending.clear();
                self.is_stepping = false;
                self.breakpoints.clear();
                return Ok(None);
            };
            self.pending.extend(bytes);
            if self.pending.len() > PENDING_BYTES_MAX {
                self.pending = Vec::new();
                return Err(b"-ERR max client buffer reached\r\n");
            }
        }
    }

    /// Notes that the script is at a line, or somewhere in it. If it stops there, that is noted for the client, and the answer is whether it
    /// stops for having run too long.
    pub(super) fn stops_at(&mut self, line: i64, is_line: bool) -> Option<bool> {
        self.at = line;
        let is_breakpoint = self.has_called || self.breakpoints.contains(&line);
        let mut is_timeout = false;
        if !is_line && !self.is_stepping && !is_breakpoint {
            if !self.is_late() {
                return None;
            }
            is_timeout = true;
            self.is_stepping = true;
        }
        if !self.is_stepping && !is_breakpoint {
            return None;
        }
        let reason = match (self.has_called, is_breakpoint, is_timeout) {
            (true, ..) => "redis.breakpoint() called",
            (_, true, _) => "break point",
            (.., true) => "timeout reached, infinite loop?",
            _ => "step over",
        };
        self.is_stepping = false;
        self.has_called = false;
        self.begin_log();
        self.log(&format!("* Stopped at {line}, stop reason = {reason}"));
        self.log_source(line);
        self.show();
        Some(is_timeout)
    }

    /// The client has gone, and all it has sent is done.
    pub(super) fn is_alone(&self) -> bool {
        self.line.input.is_closed() && self.line.input.is_empty() && self.pending.is_empty()
    }

    pub(super) fn is_late(&self) -> bool {
        self.running_since.elapsed() >= threshold()
    }

    /// Whether it works on a copy of the dataset.
    pub(super) fn is_forked(&self) -> bool {
        self.memory.copy.is_some()
    }

    /// Looks at how much memory the script has taken by now.
    pub(super) fn note_memory(&mut self) {
        self.memory.note();
    }

    pub(super) fn into_memory(self) -> OwnMemory {
        self.memory
    }

    pub(super) fn log(&mut self, line: &str) {
        self.push(line.as_bytes().to_vec());
    }

    /// Says how many lines were too many, if there were any; there is room again for those that follow.
    pub(super) fn begin_log(&mut self) {
        if self.left_out > 0 {
            let text = format!("<error> {} lines more are not shown.", self.left_out);
            self.log.push(text.into_bytes());
        }
        (self.log_bytes, self.left_out) = (0, 0);
    }

    pub(super) fn push(&mut self, line: Vec<u8>) {
        let bytes = self.log_bytes + line.len() + size_of::<Vec<u8>>();
        if bytes > LOG_BYTES_MAX && !self.log.is_empty() {
            self.left_out += 1;
            return;
        }
        self.log_bytes = bytes;
        self.log.push(line);
    }

    /// A line that may be long: it is cut, and the first time it is said how to have it whole.
    pub(super) fn log_cut(&mut self, mut line: Vec<u8>) {
        let is_cut = self.maxlen > 0 && line.len() > self.maxlen;
        if is_cut {
            line.truncate(self.maxlen);
            line.extend(b" ...");
        }
        self.push(line);
        if is_cut && !std::mem::replace(&mut self.has_hinted, true) {
            self.log("<hint> The above reply was trimmed. Use 'maxlen 0' to disable trimming.");
        }
    }

    /// Shows a line of the script, with its number and what there is to say of it.
    pub(super) fn log_source(&mut self, line: i64) {
        let source = usize::try_from(line - 1).ok();
        let source = source.and_then(|at| self.source.get(at));
        let source = source.map_or(
            &b"<out of range source code line>"[..],
            // What is behind a zero is not shown.
            |source| source.split(|byte| *byte == 0).next().unwrap_or_default(),
        );
        let mark = match (self.at == line, self.breakpoints.contains(&line)) {
            (true, true) => "->#",
            (true, false) => "-> ",
            (false, true) => "  #",
            (false, false) => "   ",
        };
        let text = [format!("{mark}{line:<3} ").as_bytes(), source].concat();
        self.push(text);
    }

    /// Shows the lines that are no farther from one than so many; from line 0 none is far.
    pub(super) fn list(&mut self, around: i64, context: i64) {
        for line in 1..=self.source.len() as i64 {
            if around == 0 || (around - line).abs() <= context {
                self.log_source(line);
            }
        }
    }

    pub(super) fn set_maxlen(&mut self, args: &[Vec<u8>]) {
        if let [len] = args {
            self.has_hinted = true;
            let len = leading_int(len);
            self.maxlen = match usize::try_from(len) {
                Ok(0) => 0,
                Ok(len) => len.max(MAXLEN_MIN),
                Err(_) => MAXLEN_MIN,
            };
        }
        match self.maxlen {
            0 => self.log("<value> replies are unlimited."),
            len => self.log(&format!("<value> replies are truncated at {len} bytes.")),
        }
    }

    pub(super) fn set_breakpoints(&mut self, args: &[Vec<u8>]) {
        if args.is_empty() {
            if self.breakpoints.is_empty() {
                return self.log("No breakpoints set. Use 'b <line>' to add one.");
            }
            self.log(&format!("{} breakpoints set:", self.breakpoints.len()));
            for line in self.breakpoints.clone() {
                self.log_source(line);
            }
        }
        for word in args {
            let Some(line) = canonical_i64(word) else {
                let text = [b"Invalid argument:'", word.as_slice(), b"'"].concat();
                self.push(text);
                continue;
            };
            if line == 0 {
                self.breakpoints.clear();
                self.log("All breakpoints removed.");
            } else if line < 0 {
                let wanted = line.checked_neg();
                match self.breakpoints.iter().position(|at| Some(*at) == wanted) {
                    Some(place) => {
                        self.breakpoints.remove(place);
                        self.log("Breakpoint removed.");
                    }
                    None => self.log("No breakpoint in the specified line."),
                }
            } else if self.breakpoints.len() == BREAKPOINTS_MAX {
                self.log("Too many breakpoints set.");
            } else if line > self.source.len() as i64 || self.breakpoints.contains(&line) {
                self.log("Wrong line number.");
            } else {
                self.breakpoints.push(line);
                self.list(line, 1);
            }
        }
    }

    /// Sends what is to be shown.
    pub(super) fn show(&mut self) {
        self.begin_log();
        let mut bytes = format!("*{}\r\n", self.log.len()).into_bytes();
        for line in self.log.drain(..) {
            bytes.push(b'+');
            bytes.extend(line.iter().map(|byte| match byte {
                b'\r' | b'\n' => b' ',
                byte => *byte,
            }));
            bytes.extend(b"\r\n");
        }
        // Whether anybody is there is seen when the next request is waited for.
        let _ = self.line.output.send(bytes);
    }
}

fn threshold() -> Duration {
    match running::threshold_ms() {
        0 => THRESHOLD,
        ms => Duration::from_millis(ms),
    }
}
