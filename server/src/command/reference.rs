//! What COMMAND and COMMAND DOCS tell beyond a command's row: its subcommands, and how it is written.
//!
//! Tables in text, read when somebody first asks. `subcommands.tsv` has a row for each subcommand, `syntax.tsv` one for each command and
//! subcommand with arguments or tips, `history.tsv` one for each change that is no new argument.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::{Args, CommandError};

/// A subcommand (`config|get`).
#[derive(Debug)]
pub struct Subcommand {
    /// Its full name.
    pub name: &'static str,
    /// Number of words with both names; negative = at least that many.
    pub arity: i32,
    /// Names of its properties.
    pub flags: Vec<&'static str>,
    /// First version with it.
    pub since: &'static str,
    /// One line of help.
    pub summary: &'static str,
}

/// How a command is written.
#[derive(Debug, Default)]
pub struct Syntax {
    /// What it costs, as `O(…)`; empty if that depends.
    pub cost: &'static str,
    /// Hints for proxies and clients.
    pub tips: Vec<&'static str>,
    /// `deprecated` or `syscmd`.
    pub doc_flags: Vec<&'static str>,
    /// First version in which others should be used instead.
    pub deprecated_since: &'static str,
    /// Its arguments in their order.
    pub arguments: Vec<Argument>,
}

/// One argument.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Argument {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The word in front of it, or for [`Kind::Token`] the word itself.
    pub token: Option<&'static str>,
    /// First version with it, if that is not the command's.
    pub since: Option<&'static str>,
    /// First version in which it is out of use.
    pub deprecated_since: Option<&'static str>,
    /// It may be left out.
    pub is_optional: bool,
    /// There may be several.
    pub is_multiple: bool,
    /// Each of several has the word in front of it.
    pub repeats_token: bool,
}

/// What an argument is.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Any word.
    #[default]
    Text,
    /// A whole number.
    Integer,
    /// A number.
    Double,
    /// A key of the command's nth key specification.
    Key(i64),
    /// A pattern.
    Pattern,
    /// A Unix time.
    UnixTime,
    /// A fixed word.
    Token,
    /// One of these.
    OneOf(Vec<Argument>),
    /// All of these.
    Block(Vec<Argument>),
}

impl Kind {
    /// As COMMAND DOCS calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Text => "string",
            Kind::Integer => "integer",
            Kind::Double => "double",
            Kind::Key(_) => "key",
            Kind::Pattern => "pattern",
            Kind::UnixTime => "unix-time",
            Kind::Token => "pure-token",
            Kind::OneOf(_) => "oneof",
            Kind::Block(_) => "block",
        }
    }
}

/// The rows of a table: its lines without the comments, cut at tabs.
fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split('\t').collect())
}

fn list(words: &'static str) -> Vec<&'static str> {
    words.split(',').filter(|word| !word.is_empty()).collect()
}

static SUBCOMMANDS: LazyLock<BTreeMap<&'static str, Subcommand>> = LazyLock::new(|| {
    let rows = rows(include_str!("subcommands.tsv")).map(|row| {
        let [name, arity, flags, since, summary] = row[..] else {
            panic!("subcommands.tsv: a row of five: {row:?}");
        };
        let arity = arity.parse().expect("subcommands.tsv: a number of words");
        let subcommand = Subcommand {
            name,
            arity,
            flags: list(flags),
            since,
            summary,
        };
        (name, subcommand)
    });
    rows.collect()
});

static SYNTAX: LazyLock<BTreeMap<&'static str, Syntax>> = LazyLock::new(|| {
    let rows = rows(include_str!("syntax.tsv")).map(|row| {
        let column = |at: usize| row.get(at).copied().unwrap_or_default();
        let syntax = Syntax {
            cost: column(1),
            tips: list(column(2)),
            doc_flags: list(column(3)),
            deprecated_since: column(4),
            arguments: Parser(column(5)).sequence(),
        };
        (column(0), syntax)
    });
    rows.collect()
});

/// Command, version, what changed.
static HISTORY: LazyLock<Vec<(&'static str, &'static str, &'static str)>> = LazyLock::new(|| {
    let rows = rows(include_str!("history.tsv")).map(|row| {
        let [name, version, what] = row[..] else {
            panic!("history.tsv: a row of three: {row:?}");
        };
        (name, version, what)
    });
    rows.collect()
});

/// The subcommand of this full name, in lower case.
pub fn subcommand(name: &str) -> Option<&'static Subcommand> {
    SUBCOMMANDS.get(name)
}

/// The subcommands of a command.
pub fn subcommands_of(command: &str) -> impl Iterator<Item = &'static Subcommand> {
    let prefix = format!("{command}|");
    SUBCOMMANDS
        .values()
        .filter(move |subcommand| subcommand.name.starts_with(&prefix))
}

/// Checks that a container's second word is one of its subcommands, with as many words as that takes.
pub fn check_subcommand(container: &str, words: Args<'_>) -> Result<(), CommandError> {
    let Some(word) = words.get(1) else {
        return Ok(());
    };
    let name = format!(
        "{container}|{}",
        String::from_utf8_lossy(word).to_lowercase()
    );
    let Some(subcommand) = subcommand(&name) else {
        let word = String::from_utf8_lossy(&word[..word.len().min(128)]).into_owned();
        let container = container.to_uppercase();
        return Err(CommandError::new(format!(
            "unknown subcommand '{word}'. Try {container} HELP."
        )));
    };
    let wanted = subcommand.arity.unsigned_abs() as usize;
    let fits = words.len() == wanted || subcommand.arity < 0 && words.len() > wanted;
    if fits {
        Ok(())
    } else {
        Err(CommandError::wrong_arity(&name))
    }
}

/// Whether these words name a subcommand that scripts may not run.
pub fn is_noscript(container: &str, words: Args<'_>) -> bool {
    subcommand_has(container, words, "noscript")
}

/// Whether these words name a subcommand with this property.
pub fn subcommand_has(container: &str, words: Args<'_>, property: &str) -> bool {
    let Some(word) = words.get(1) else {
        return false;
    };
    let name = format!(
        "{container}|{}",
        String::from_utf8_lossy(word).to_lowercase()
    );
    subcommand(&name).is_some_and(|subcommand| subcommand.flags.contains(&property))
}

/// How a command or subcommand is written.
pub fn syntax(name: &str) -> Option<&'static Syntax> {
    SYNTAX.get(name)
}

/// What changed in a command or subcommand: versions, oldest first, each with what it brought.
pub fn history(name: &str) -> Vec<(&'static str, String)> {
    let mut changes: Vec<(&str, String)> = HISTORY
        .iter()
        .filter(|(command, _, _)| *command == name)
        .map(|(_, version, what)| (*version, (*what).to_owned()))
        .collect();
    let mut arrivals = Vec::new();
    if let Some(syntax) = syntax(name) {
        note_arrivals(&syntax.arguments, &mut arrivals);
    }
    arrivals.sort_by_key(|(since, _)| *since);
    for arrived in arrivals.chunk_by(|a, b| a.0 == b.0) {
        let names: Vec<String> = arrived
            .iter()
            .map(|(_, name)| format!("`{name}`"))
            .collect();
        changes.push((arrived[0].0, format!("Takes {}.", names.join(", "))));
    }
    let numbers = |version: &str| -> Vec<u32> {
        version.split('.').map(|n| n.parse().unwrap_or(0)).collect()
    };
    changes.sort_by_key(|(version, _)| numbers(version));
    changes
}

/// Arguments that came later than their command: since when, and what they are called.
fn note_arrivals(arguments: &[Argument], arrivals: &mut Vec<(&'static str, &'static str)>) {
    for argument in arguments {
        match (&argument.kind, argument.since) {
            (_, Some(since)) => arrivals.push((since, argument.token.unwrap_or(argument.name))),
            (Kind::OneOf(parts) | Kind::Block(parts), None) => note_arrivals(parts, arrivals),
            _ => {}
        }
    }
}

/// Reads the arguments of a row of `syntax.tsv`; the file says how they are written.
struct Parser(&'static str);

impl Parser {
    /// Arguments one behind the other, up to a bracket that closes.
    fn sequence(&mut self) -> Vec<Argument> {
        let mut arguments = Vec::new();
        loop {
            self.skip(' ');
            if self.0.is_empty() || self.0.starts_with(['}', ')', ']', '|']) {
                return arguments;
            }
            arguments.push(self.argument());
        }
    }

    fn skip(&mut self, what: char) -> bool {
        let rest = self.0.strip_prefix(what);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Everything up to one of these.
    fn until(&mut self, ends: &[char]) -> &'static str {
        let (word, rest) = self.0.split_at(self.0.find(ends).unwrap_or(self.0.len()));
        self.0 = rest;
        word
    }

    fn argument(&mut self) -> Argument {
        let is_optional = self.skip('[');
        let mut argument = self.bare();
        argument.is_optional = is_optional;
        if is_optional {
            self.skip(']');
        }
        argument
    }

    fn bare(&mut self) -> Argument {
        let mut argument = Argument::default();
        if self.skip('"') {
            argument.token = Some(self.until(&['"']));
            self.skip('"');
            self.skip('.');
        }
        let name = self.until(&[' ', '(', '{', '=', '*', '+', '@', '!', ']', ')', '}', '|']);
        let (name, kind) = typed(name);
        (argument.name, argument.kind) = (name, kind);
        if self.skip('=') {
            argument.kind = Kind::Token;
            argument.token = Some(self.until(&[' ', '@', '!', ']', ')', '}', '|']));
        } else if self.skip('{') {
            argument.kind = Kind::Block(self.sequence());
            self.skip('}');
        } else if self.skip('(') {
            let mut choices = Vec::new();
            while !self.skip(')') && !self.0.is_empty() {
                choices.append(&mut self.sequence());
                self.skip('|');
            }
            argument.kind = Kind::OneOf(choices);
        }
        argument.is_multiple = self.skip('*');
        argument.repeats_token = self.skip('+');
        let version = ['@', '!', ' ', ']', ')', '}', '|'];
        if self.skip('@') {
            argument.since = Some(self.until(&version));
        }
        if self.skip('!') {
            argument.deprecated_since = Some(self.until(&version));
        }
        argument
    }
}

/// A name without the letter for its type.
fn typed(word: &'static str) -> (&'static str, Kind) {
    let Some((name, letter)) = word.rsplit_once(':') else {
        return (word, Kind::Text);
    };
    let key = letter
        .strip_prefix('k')
        .and_then(|number| number.parse().ok());
    match (letter, key) {
        ("i", _) => (name, Kind::Integer),
        ("d", _) => (name, Kind::Double),
        ("p", _) => (name, Kind::Pattern),
        ("u", _) => (name, Kind::UnixTime),
        (_, Some(key)) => (name, Kind::Key(key)),
        _ => (word, Kind::Text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table;

    #[test]
    fn arguments_are_read_as_written() {
        let arguments = Parser("key:k0 [ttl(\"EX\".seconds:i@2.6.12|keep=KEEPTTL)] \"GET\".pattern:p*+ pair{a b:d}* ip:port!2.8.12").sequence();
        let names: Vec<_> = arguments.iter().map(|argument| argument.name).collect();
        assert_eq!(names, ["key", "ttl", "pattern", "pair", "ip:port"]);
        assert_eq!(arguments[0].kind, Kind::Key(0));
        let Kind::OneOf(choices) = &arguments[1].kind else {
            panic!("{:?}", arguments[1]);
        };
        assert!(arguments[1].is_optional);
        assert_eq!(
            (choices[0].token, choices[0].since),
            (Some("EX"), Some("2.6.12"))
        );
        assert_eq!(
            (choices[1].token, &choices[1].kind),
            (Some("KEEPTTL"), &Kind::Token)
        );
        assert!(arguments[2].is_multiple && arguments[2].repeats_token);
        assert!(
            arguments[3].is_multiple
                && matches!(&arguments[3].kind, Kind::Block(both) if both.len() == 2)
        );
        assert_eq!(arguments[4].deprecated_since, Some("2.8.12"));
    }

    #[test]
    fn every_row_is_about_a_command_and_is_read_to_its_end() {
        for (name, syntax) in &*SYNTAX {
            let command = name.split('|').next().unwrap_or_default();
            let is_known = table::find(command.as_bytes()).is_some();
            assert!(is_known || subcommand(name).is_some(), "{name}");
            check(name, &syntax.arguments);
        }
        for row in rows(include_str!("syntax.tsv")) {
            let mut parser = Parser(row.get(5).copied().unwrap_or_default());
            parser.sequence();
            assert_eq!(parser.0, "", "{}", row[0]);
        }
        for command in table::all() {
            let has_rows = syntax(command.name).is_some();
            assert!(has_rows, "{} is not in syntax.tsv", command.name);
        }
    }

    #[test]
    fn history_tells_new_arguments_and_other_changes_oldest_first() {
        let told = |name: &str| {
            let changes = history(name).into_iter();
            changes
                .map(|(version, what)| format!("{version} {what}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(told("bgsave"), ["3.2.2 Takes `SCHEDULE`."]);
        assert_eq!(told("get"), [""; 0]);
        let set = told("set");
        assert!(set[0].starts_with("2.6.12 Takes `"), "{set:?}");
        assert!(
            set.contains(&"7.0.0 `NX` and `GET` may stand together.".to_owned()),
            "{set:?}"
        );
        for (name, _, what) in &*HISTORY {
            let is_known = table::find(name.as_bytes()).is_some() || subcommand(name).is_some();
            assert!(is_known, "{name}: {what}");
        }
    }

    fn check(name: &str, arguments: &[Argument]) {
        for argument in arguments {
            assert!(!argument.name.is_empty(), "{name}: {argument:?}");
            if let Kind::OneOf(parts) | Kind::Block(parts) = &argument.kind {
                assert!(!parts.is_empty(), "{name}: {argument:?}");
                check(name, parts);
            }
        }
    }
}
