//! What the debugger is asked for: requests as they come from the client, and the help.
//!
//! Read as forgivingly as Redis does: what stands before a request is passed over, and a number is what a word begins with.

/// Words of the debugger's commands: their number, and the length of each.
const WORDS_MAX: i64 = 1024;
const WORD_BYTES_MAX: i64 = 1024;

/// The help, line by line.
pub const HELP: [&str; 30] = [
    "Redis Lua debugger help:",
    "[h]elp               Show this help.",
    "[s]tep               Run current line and stop again.",
    "[n]ext               Alias for step.",
    "[c]ontinue           Run till next breakpoint.",
    "[l]ist               List source code around current line.",
    "[l]ist [line]        List source code around [line].",
    "                     line = 0 means: current position.",
    "[l]ist [line] [ctx]  In this form [ctx] specifies how many lines",
    "                     to show before/after [line].",
    "[w]hole              List all source code. Alias for 'list 1 1000000'.",
    "[p]rint              Show all the local variables.",
    "[p]rint <var>        Show the value of the specified variable.",
    "                     Can also show global vars KEYS and ARGV.",
    "[b]reak              Show all breakpoints.",
    "[b]reak <line>       Add a breakpoint to the specified line.",
    "[b]reak -<line>      Remove breakpoint from the specified line.",
    "[b]reak 0            Remove all breakpoints.",
    "[t]race              Show a backtrace.",
    "[e]val <code>        Execute some Lua code (in a different callframe).",
    "[r]edis <cmd>        Execute a Redis command.",
    "[m]axlen [len]       Trim logged Redis replies and Lua var dumps to len.",
    "                     Specifying zero as <len> means unlimited.",
    "[a]bort              Stop the execution of the script. In sync",
    "                     mode dataset changes will be retained.",
    "",
    "Debugger functions you can call from Lua scripts:",
    "redis.debug()        Produce logs in the debugger console.",
    "redis.breakpoint()   Stop execution like if there was a breakpoint in the",
    "                     next line of code.",
];

/// What has come so far is.
pub enum Parsed {
    /// A request: its words.
    Request(Vec<Vec<u8>>),
    /// The beginning of one.
    Incomplete,
    /// None, and it will not become one.
    Nonsense,
}

/// A request: an array of strings, as clients send commands, wherever it begins.
pub fn parse(bytes: &[u8]) -> Parsed {
    if bytes.is_empty() {
        return Parsed::Incomplete;
    }
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let Some(start) = text.iter().position(|byte| *byte == b'*') else {
        return Parsed::Nonsense;
    };
    let mut at = start + 1;
    let Some(count) = number_line(bytes, &mut at) else {
        return Parsed::Incomplete;
    };
    if !(1..=WORDS_MAX).contains(&count) {
        return Parsed::Nonsense;
    }
    let mut words = Vec::new();
    for _ in 0..count {
        match bytes.get(at) {
            None | Some(0) => return Parsed::Incomplete,
            Some(b'$') => at += 1,
            Some(_) => return Parsed::Nonsense,
        }
        let Some(len) = number_line(bytes, &mut at) else {
            return Parsed::Incomplete;
        };
        if !(1..=WORD_BYTES_MAX).contains(&len) {
            return Parsed::Nonsense;
        }
        let end = at + len as usize;
        match bytes.get(end..end + 2) {
            None => return Parsed::Incomplete,
            Some(b"\r\n") => words.push(bytes[at..end].to_vec()),
            Some(_) => return Parsed::Nonsense,
        }
        at = end + 2;
    }
    Parsed::Request(words)
}

/// The number that a line begins with, and moves behind that line. `None`: it has no end yet.
fn number_line(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let rest = bytes[*at..].split(|byte| *byte == 0).next()?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    *at += end + 2;
    Some(leading_int(&rest[..end]))
}

/// The number that a word begins with, as C reads it; 0 if there is none.
pub fn leading_int(word: &[u8]) -> i64 {
    let word = word.trim_ascii_start();
    let (is_negative, digits) = match word.first() {
        Some(b'-') => (true, &word[1..]),
        Some(b'+') => (false, &word[1..]),
        _ => (false, word),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let number = digits.fold(0i64, |number, digit| {
        number
            .saturating_mul(10)
            .saturating_add(i64::from(digit - b'0'))
    });
    // Far above any line, and within what C's own would hold.
    let number = number.min(i64::from(i32::MAX));
    if is_negative { -number } else { number }
}
