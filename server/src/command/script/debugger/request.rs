//! What the debugger is asked for: requests as they come from the client, and the help.
//!
//! Read as forgivingly as Redis does: what stands before a request is passed over, and a number is what a word begins with.

/// Words of a request.
pub const WORDS_MAX: i64 = 1024;
/// Bytes of a word.
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

/// A request: an array of strings, as clients send commands, wherever it begins. Asked again when more has come, so it goes from word to word
/// without a look at their bytes.
pub fn parse(bytes: &[u8]) -> Parsed {
    if bytes.is_empty() {
        return Parsed::Incomplete;
    }
    // Behind a zero nothing is looked for.
    let mut text = bytes.iter().take_while(|byte| **byte != 0);
    let Some(start) = text.position(|byte| *byte == b'*') else {
        return Parsed::Nonsense;
    };
    let mut at = start + 1;
    let Some(count) = number_line(bytes, &mut at) else {
        return Parsed::Incomplete;
    };
    if !(1..=WORDS_MAX).contains(&count) {
        return Parsed::Nonsense;
    }
    let mut places = Vec::new();
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
            Some(b"\r\n") => places.push(at..end),
            Some(_) => return Parsed::Nonsense,
        }
        at = end + 2;
    }
    let words = places.into_iter().map(|place| bytes[place].to_vec());
    Parsed::Request(words.collect())
}

/// The number that a line begins with, and moves behind that line. `None`: it has no end yet.
fn number_line(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let rest = &bytes[*at..];
    let mut pairs = rest.windows(2);
    let end = pairs.position(|pair| pair == b"\r\n" || pair[0] == 0)?;
    if rest[end] == 0 {
        return None;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(bytes: &[u8]) -> String {
        match parse(bytes) {
            Parsed::Request(words) => words.join(&b' ').escape_ascii().to_string(),
            Parsed::Incomplete => "incomplete".into(),
            Parsed::Nonsense => "nonsense".into(),
        }
    }

    #[test]
    fn requests_are_found() {
        let rows: [(&str, &[u8], &str); 12] = [
            ("one word", b"*1\r\n$1\r\ns\r\n", "s"),
            ("two", b"*2\r\n$1\r\nb\r\n$2\r\n-1\r\n", "b -1"),
            ("zero bytes", b"*1\r\n$3\r\na\0b\r\n", "a\\x00b"),
            ("behind others", b"xyz*1\r\n$1\r\ns\r\n", "s"),
            ("behind a zero", b"\0*1\r\n$1\r\ns\r\n", "nonsense"),
            ("no number", b"*x\r\n", "nonsense"),
            ("a zero in a number", b"*1\0\r\n$1\r\ns\r\n", "incomplete"),
            (
                "a number that is too large",
                b"*99999999999999999999\r\n",
                "nonsense",
            ),
            ("a negative number", b"*-1\r\n", "nonsense"),
            ("no words", b"*1\r\n", "incomplete"),
            ("no length", b"*1\r\nx\r\n", "nonsense"),
            ("a word that goes on", b"*1\r\n$1\r\nsxx", "nonsense"),
        ];
        for (name, bytes, want) in rows {
            assert_eq!(outcome(bytes), want, "{name}");
        }
        let whole = b"*2\r\n$1\r\nb\r\n$2\r\n-1\r\n";
        for end in 0..whole.len() {
            assert_eq!(outcome(&whole[..end]), "incomplete", "{end}");
        }
    }

    #[test]
    fn numbers_are_what_words_begin_with() {
        let rows = [
            ("5", 5),
            (" -7x", -7),
            ("+3", 3),
            ("x", 0),
            ("", 0),
            ("99999999999", i64::from(i32::MAX)),
        ];
        for (word, want) in rows {
            assert_eq!(leading_int(word.as_bytes()), want, "{word:?}");
        }
    }
}
