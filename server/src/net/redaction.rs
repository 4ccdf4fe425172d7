//! Commands as others may see them: MONITOR and the slow log get them without passwords.

use smallvec::SmallVec;

use crate::command::{Command, Run, Session};

/// Settings whose values are nobody's business.
const SECRETS: [&str; 5] = [
    "masterauth",
    "masteruser",
    "requirepass",
    "tls-key-file-pass",
    "tls-client-key-file-pass",
];

/// The words of a command without the passwords in them.
pub fn redacted<'w>(command: &Command, words: &[&'w [u8]]) -> SmallVec<[&'w [u8]; 8]> {
    let mut hidden = Vec::new();
    let mut words: SmallVec<[&'w [u8]; 8]> = SmallVec::from_slice(words);
    let places = |option: &str| {
        let is_it = |word: &&[u8]| word.eq_ignore_ascii_case(option.as_bytes());
        words.iter().position(is_it)
    };
    let is = |at: usize, wanted: &str| {
        (words.get(at)).is_some_and(|word| word.eq_ignore_ascii_case(wanted.as_bytes()))
    };
    let secret = match command.run {
        Run::Session(Session::Auth) => 1..words.len(),
        Run::Session(Session::Hello) => {
            places("auth").map_or(0..0, |at| at + 1..words.len().min(at + 3))
        }
        Run::Session(Session::Acl)
            if ["setuser", "deluser", "getuser"]
                .iter()
                .any(|name| is(1, name)) =>
        {
            2..words.len()
        }
        Run::Session(Session::Migrate) => match (places("auth"), places("auth2")) {
            (_, Some(at)) => at + 1..words.len().min(at + 3),
            (Some(at), _) => at + 1..words.len().min(at + 2),
            _ => 0..0,
        },
        Run::Session(Session::Config) if is(1, "set") => {
            for at in (2..words.len()).step_by(2) {
                if SECRETS.iter().any(|name| is(at, name)) && at + 1 < words.len() {
                    hidden.push(at + 1);
                }
            }
            0..0
        }
        _ => 0..0,
    };
    hidden.extend(secret);
    for at in hidden {
        words[at] = b"(redacted)".as_slice();
    }
    words
}
