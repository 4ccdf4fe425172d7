//! A set of rules: commands, key patterns, channel patterns. A user has one, and may have more beside it.

use dfsnap_formats::glob;

use super::catalog::{self, READ, WRITE};
use crate::command::{Args, Command, KeySpec};
use crate::keyspace::value::canonical_i64;

/// Why a rule is refused, in Redis' words.
pub type Refused = &'static str;

pub(super) const UNKNOWN: Refused = "Unknown command or category name in ACL";
pub(super) const SYNTAX: Refused = "Syntax error";
const FIRST_ARG: Refused = "Allowing first-arg of a subcommand is not supported";
const ALL_KEYS: Refused = "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to start with an empty list of patterns";
const ALL_CHANNELS: Refused = "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try 'resetchannels' to start with an empty list of channels";

/// What stands in the way of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The command itself: its full name.
    Command(String),
    /// A key.
    Key(Vec<u8>),
    /// A channel.
    Channel(Vec<u8>),
}

/// The rules.
#[derive(Clone, Debug)]
pub struct Selector {
    /// All commands that are not named are allowed.
    base: bool,
    /// Rules about commands in their order: allowed or not, and the name.
    rules: Vec<(bool, String)>,
    /// One for each command of the catalog.
    allowed: Vec<bool>,
    /// Commands allowed with this first argument only.
    first_args: Vec<(usize, String)>,
    keys: Vec<(u8, Vec<u8>)>,
    has_all_keys: bool,
    channels: Vec<Vec<u8>>,
    has_all_channels: bool,
}

impl Selector {
    /// Nothing is allowed.
    pub fn new(has_all_channels: bool) -> Selector {
        Selector {
            base: false,
            rules: Vec::new(),
            allowed: vec![false; catalog::all().len()],
            first_args: Vec::new(),
            keys: Vec::new(),
            has_all_keys: false,
            channels: Vec::new(),
            has_all_channels,
        }
    }

    /// Whether all keys may be read.
    pub fn reads_all_keys(&self) -> bool {
        let reads_all = |(flags, pattern): &(u8, Vec<u8>)| flags & READ != 0 && pattern == b"*";
        self.has_all_keys || self.keys.iter().any(reads_all)
    }

    /// Whether everything is allowed.
    pub fn allows_everything(&self) -> bool {
        self.base && self.rules.is_empty() && self.has_all_keys && self.has_all_channels
    }

    /// Applies a rule.
    pub fn apply(&mut self, rule: &[u8]) -> Result<(), Refused> {
        let text = String::from_utf8_lossy(rule).into_owned();
        let lower = text.to_lowercase();
        match lower.as_str() {
            "allcommands" | "+@all" => self.set_all(true),
            "nocommands" | "-@all" => self.set_all(false),
            "allkeys" | "~*" => {
                self.has_all_keys = true;
                self.keys.clear();
            }
            "resetkeys" => {
                self.has_all_keys = false;
                self.keys.clear();
            }
            "allchannels" | "&*" => {
                self.has_all_channels = true;
                self.channels.clear();
            }
            "resetchannels" => {
                self.has_all_channels = false;
                self.channels.clear();
            }
            _ => match rule.first() {
                Some(b'~' | b'%') => self.add_key(rule)?,
                Some(b'&') => self.add_channel(&rule[1..])?,
                Some(b'+') if lower.starts_with("+@") => self.set_category(&lower[1..], true)?,
                Some(b'-') if lower.starts_with("-@") => self.set_category(&lower[1..], false)?,
                Some(b'+') => self.set_command(&lower[1..], true)?,
                Some(b'-') => self.set_command(&lower[1..], false)?,
                _ => return Err(SYNTAX),
            },
        }
        Ok(())
    }

    fn set_all(&mut self, is_allowed: bool) {
        self.base = is_allowed;
        self.rules.clear();
        self.first_args.clear();
        self.allowed.fill(is_allowed);
    }

    fn add_key(&mut self, rule: &[u8]) -> Result<(), Refused> {
        if self.has_all_keys {
            return Err(ALL_KEYS);
        }
        let (flags, pattern) = if rule[0] == b'~' {
            (READ | WRITE, &rule[1..])
        } else {
            let tilde = rule.iter().position(|byte| *byte == b'~').ok_or(SYNTAX)?;
            let mut flags = 0;
            for letter in &rule[1..tilde] {
                flags |= match letter.to_ascii_uppercase() {
                    b'R' if flags & READ == 0 => READ,
                    b'W' if flags & WRITE == 0 => WRITE,
                    _ => return Err(SYNTAX),
                };
            }
            if flags == 0 {
                return Err(SYNTAX);
            }
            (flags, &rule[tilde + 1..])
        };
        if has_blank(pattern) {
            return Err(SYNTAX);
        }
        match self.keys.iter_mut().find(|(_, known)| known == pattern) {
            Some((known, _)) => *known |= flags,
            None => self.keys.push((flags, pattern.to_vec())),
        }
        Ok(())
    }

    fn add_channel(&mut self, pattern: &[u8]) -> Result<(), Refused> {
        if self.has_all_channels {
            return Err(ALL_CHANNELS);
        }
        if has_blank(pattern) {
            return Err(SYNTAX);
        }
        if !self.channels.iter().any(|known| known == pattern) {
            self.channels.push(pattern.to_vec());
        }
        Ok(())
    }

    fn set_category(&mut self, name: &str, is_allowed: bool) -> Result<(), Refused> {
        self.effect_of(name, is_allowed)?;
        self.note(name.to_owned(), is_allowed);
        Ok(())
    }

    fn set_command(&mut self, name: &str, is_allowed: bool) -> Result<(), Refused> {
        self.effect_of(name, is_allowed)?;
        self.note(name.to_owned(), is_allowed);
        Ok(())
    }

    /// Does what a rule says, without noting it.
    fn effect_of(&mut self, name: &str, is_allowed: bool) -> Result<(), Refused> {
        if name.starts_with('@') {
            self.allow_category(name, is_allowed)
        } else {
            self.allow_command(name, is_allowed)
        }
    }

    fn allow_category(&mut self, name: &str, is_allowed: bool) -> Result<(), Refused> {
        let bit = catalog::category(&name.as_bytes()[1..]).ok_or(UNKNOWN)?;
        for (at, known) in catalog::all().iter().enumerate() {
            if known.categories >> bit & 1 == 1 {
                self.allow(at, is_allowed);
            }
        }
        Ok(())
    }

    fn allow(&mut self, at: usize, is_allowed: bool) {
        self.allowed[at] = is_allowed;
        self.first_args.retain(|(known, _)| *known != at);
    }

    fn allow_command(&mut self, name: &str, is_allowed: bool) -> Result<(), Refused> {
        if let Some(at) = catalog::position(name) {
            self.allow(at, is_allowed);
            let prefix = format!("{name}|");
            for (at, known) in catalog::all().iter().enumerate() {
                if known.name.starts_with(&prefix) {
                    self.allow(at, is_allowed);
                }
            }
            return Ok(());
        }
        // The name of a command with its first argument.
        let (command, argument) = name.split_once('|').ok_or(UNKNOWN)?;
        let at = catalog::position(command).ok_or(UNKNOWN)?;
        if let Some((sub, _)) = argument.split_once('|') {
            let is_sub = catalog::position(&format!("{command}|{sub}")).is_some();
            return Err(if is_sub { FIRST_ARG } else { UNKNOWN });
        }
        if argument.is_empty() {
            return Err(SYNTAX);
        }
        if !is_allowed || catalog::is_container(command) {
            return Err(UNKNOWN);
        }
        self.first_args.push((at, argument.to_owned()));
        Ok(())
    }

    /// Adds a rule to those that are shown; earlier ones about the same, or a part of it, have no effect any more.
    fn note(&mut self, name: String, is_allowed: bool) {
        let prefix = format!("{name}|");
        self.rules
            .retain(|(_, known)| *known != name && !known.starts_with(&prefix));
        self.rules.push((is_allowed, name));
        self.drop_idle_rules();
    }

    /// Drops the rules without which the others allow the same.
    fn drop_idle_rules(&mut self) {
        let mut at = 0;
        while at < self.rules.len() {
            let mut rules = self.rules.clone();
            rules.remove(at);
            let mut without = Selector::new(false);
            without.set_all(self.base);
            let is_same = rules
                .iter()
                .all(|(is_allowed, name)| without.effect_of(name, *is_allowed).is_ok())
                && without.allowed == self.allowed
                && without.first_args == self.first_args;
            if is_same {
                self.rules = rules;
            } else {
                at += 1;
            }
        }
    }

    /// The rules about commands.
    pub fn describe_commands(&self) -> String {
        let mut text = String::from(if self.base { "+@all" } else { "-@all" });
        for (is_allowed, name) in &self.rules {
            text.push_str(if *is_allowed { " +" } else { " -" });
            text.push_str(name);
        }
        text
    }

    /// The key patterns.
    pub fn describe_keys(&self) -> Vec<u8> {
        if self.has_all_keys {
            return b"~*".to_vec();
        }
        let patterns = self.keys.iter().map(|(flags, pattern)| {
            let sign: &[u8] = match *flags {
                READ => b"%R~",
                WRITE => b"%W~",
                _ => b"~",
            };
            [sign, pattern].concat()
        });
        patterns.collect::<Vec<_>>().join(&b' ')
    }

    /// The channel patterns.
    pub fn describe_channels(&self) -> Vec<u8> {
        if self.has_all_channels {
            return b"&*".to_vec();
        }
        let patterns = self
            .channels
            .iter()
            .map(|pattern| [b"&", pattern.as_slice()].concat());
        patterns.collect::<Vec<_>>().join(&b' ')
    }

    /// All rules in one line.
    pub fn describe(&self) -> Vec<u8> {
        let mut parts = vec![self.describe_keys()];
        if !self.has_all_channels {
            parts.push(b"resetchannels".to_vec());
        }
        parts.push(self.describe_channels());
        parts.push(self.describe_commands().into_bytes());
        parts.retain(|part| !part.is_empty());
        parts.join(&b' ')
    }

    /// Whether a command may run.
    pub fn check(&self, command: &'static Command, args: Args<'_>) -> Result<(), Denied> {
        let at = catalog::position_of(command.name, args);
        if !self.allowed[at] && !self.allows_first_arg(command, args) {
            return Err(Denied::Command(catalog::all()[at].name.to_owned()));
        }
        if !self.has_all_keys {
            self.check_keys(at, command, args)?;
        }
        if !self.has_all_channels {
            self.check_channels(command.name, args)?;
        }
        Ok(())
    }

    fn allows_first_arg(&self, command: &Command, args: Args<'_>) -> bool {
        let Some(word) = args.get(1) else {
            return false;
        };
        let at = catalog::position(command.name);
        self.first_args.iter().any(|(known, argument)| {
            Some(*known) == at && argument.as_bytes().eq_ignore_ascii_case(word)
        })
    }

    fn check_keys(&self, at: usize, command: &Command, args: Args<'_>) -> Result<(), Denied> {
        let needs = &catalog::all()[at].keys;
        let mut denied = None;
        let mut index = 0;
        command.keys.visit(args, |word| {
            let mut need = needs[index.min(needs.len() - 1)];
            index += 1;
            need = by_words(command.name, args).unwrap_or(need);
            if denied.is_none() && !self.allows_key(args[word], need) {
                denied = Some(args[word].to_vec());
            }
        });
        // A count that is no number counts as far as it is one: the command will refuse it, but rights come first. What it would do with the
        // keys is not known then.
        if let KeySpec::Counted { count, .. } = command.keys
            && let Some(word) = args.get(count).filter(|word| canonical_i64(word).is_none())
        {
            let digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number = std::str::from_utf8(&word[..digits]).ok();
            let number: usize = number.and_then(|text| text.parse().ok()).unwrap_or(0);
            if number < args.len() - count {
                let keys = &args[count + 1..=count + number];
                denied = keys
                    .iter()
                    .find(|key| !self.allows_key(key, 0))
                    .map(|key| key.to_vec());
            }
        }
        denied.map_or(Ok(()), |key| Err(Denied::Key(key)))
    }

    fn allows_key(&self, key: &[u8], need: u8) -> bool {
        self.keys
            .iter()
            .any(|(flags, pattern)| flags & need == need && glob::matches(pattern, key))
    }

    fn check_channels(&self, name: &str, args: Args<'_>) -> Result<(), Denied> {
        let (channels, is_pattern) = match name {
            "publish" | "spublish" => (&args[1..args.len().min(2)], false),
            "subscribe" | "ssubscribe" => (&args[1..], false),
            "psubscribe" => (&args[1..], true),
            _ => return Ok(()),
        };
        for channel in channels {
            if !self.allows_channel(channel, is_pattern) {
                return Err(Denied::Channel(channel.to_vec()));
            }
        }
        Ok(())
    }
}

impl Selector {
    /// Whether a channel, or a pattern of channels, is allowed.
    pub fn allows_channel(&self, channel: &[u8], is_pattern: bool) -> bool {
        let is_allowed = |pattern: &Vec<u8>| {
            if is_pattern {
                pattern.as_slice() == channel
            } else {
                glob::matches(pattern, channel)
            }
        };
        self.has_all_channels || self.channels.iter().any(is_allowed)
    }
}

/// What a command needs of its key where that depends on its words.
fn by_words(name: &str, args: Args<'_>) -> Option<u8> {
    let has = |word: &str| {
        args.iter()
            .skip(3)
            .any(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    };
    match name {
        "set" if has("get") => Some(READ | WRITE),
        "set" => Some(WRITE),
        "bitfield" => {
            let writes = |arg: &&[u8]| {
                arg.eq_ignore_ascii_case(b"set") || arg.eq_ignore_ascii_case(b"incrby")
            };
            Some(if args.iter().skip(2).any(writes) {
                READ | WRITE
            } else {
                READ
            })
        }
        _ => None,
    }
}

fn has_blank(text: &[u8]) -> bool {
    text.iter()
        .any(|byte| byte.is_ascii_whitespace() || *byte == 0)
}
