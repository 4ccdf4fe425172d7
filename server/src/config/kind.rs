//! Kinds of settings: what a value may be, and its canonical text.
//!
//! Error texts are those of Redis; clients and operators know them.

use std::str::FromStr;

use super::words::{EventClasses, FromText, OutputLimit, OutputLimits};

/// What a value may be.
#[derive(Debug)]
pub enum Kind {
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    /// From 0, but brought between 1 and 500 without complaint.
    Rounds,
    /// Bytes, with units: `1k` = 1000, `1kb` = 1024, and so on to `gb`.
    Memory {
        min: u64,
    },
    /// From 1, but raised to 16 KB without complaint.
    Backlog,
    MemoryOrPercent,
    /// When something happens, as in crontab; empty: never.
    Cron,
    Octal {
        max: u32,
    },
    Enum(&'static [&'static str]),
    /// Several of these words.
    Flags(&'static [&'static str]),
    Text,
    /// A name without a folder.
    FileName,
    HostName,
    /// Absolute paths without blanks.
    Directories,
    Bind,
    Save,
    OutputLimits,
    Events,
    ScoreAdjustments,
    Percentiles,
    ReplicaOf,
    /// Of the process's title; see [`expand_title`].
    Title,
}

const BIND_MAX: usize = 16;

impl Kind {
    /// True when a value is several words: CONFIG SET splits its argument at blanks.
    pub fn has_words(&self) -> bool {
        matches!(
            self,
            Kind::Flags(_)
                | Kind::Bind
                | Kind::Directories
                | Kind::Save
                | Kind::OutputLimits
                | Kind::ScoreAdjustments
                | Kind::Percentiles
                | Kind::ReplicaOf
        )
    }

    /// The canonical text of the value that `words` say; `current` is the one they change.
    pub fn canonical(&self, words: &[&str], current: &str) -> Result<String, String> {
        if self.has_words() {
            return self.canonical_words(words, current);
        }
        let [text] = words else {
            return Err("wrong number of arguments".to_owned());
        };
        self.canonical_word(text)
    }

    fn canonical_word(&self, text: &str) -> Result<String, String> {
        match self {
            Kind::Bool => match text.to_ascii_lowercase() {
                word if word == "yes" || word == "no" => Ok(word),
                _ => Err("argument must be 'yes' or 'no'".to_owned()),
            },
            Kind::Int { min, max } => {
                let n: i64 = integer(text).ok_or("argument couldn't be parsed into an integer")?;
                in_range(n, *min, *max)
            }
            Kind::Memory { min } => in_range(
                memory(text).ok_or("argument must be a memory value")?,
                *min,
                i64::MAX as u64,
            ),
            Kind::Rounds => {
                let n = Kind::Int {
                    min: 0,
                    max: i64::from(i32::MAX),
                }
                .canonical_word(text)?;
                Ok(integer(&n).unwrap_or(1).clamp(1, 500).to_string())
            }
            Kind::Backlog => {
                let bytes = Kind::Memory { min: 1 }.canonical_word(text)?;
                Ok(memory(&bytes).unwrap_or_default().max(16 << 10).to_string())
            }
            Kind::MemoryOrPercent => match text.strip_suffix('%') {
                Some(percent) => match integer(percent) {
                    Some(n @ 0..=100) => Ok(format!("{n}%")),
                    Some(101..) => {
                        Err("percentage argument must be less or equal to 100".to_owned())
                    }
                    _ => Err("argument must be a memory or percent value".to_owned()),
                },
                None => memory(text)
                    .map(|n| n.to_string())
                    .ok_or("argument must be a memory or percent value".to_owned()),
            },
            Kind::Cron => match text.trim() {
                "" => Ok(String::new()),
                text => croner::Cron::from_str(text)
                    .map(|_| text.to_owned())
                    .map_err(|error| format!("argument must be a cron pattern: {error}")),
            },
            Kind::Octal { max } => {
                let is_octal = !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
                let n = is_octal
                    .then(|| u32::from_str_radix(text, 8).ok())
                    .flatten();
                let n = n.ok_or("argument couldn't be parsed as an octal number")?;
                match n <= *max {
                    true => Ok(format!("{n:o}")),
                    false => Err(format!("argument must be between 0 and {max:o} inclusive")),
                }
            }
            Kind::Enum(names) => one_of(names, text).map(str::to_owned),
            Kind::Title => {
                // As where nothing is known of the program, and it is no node of a cluster.
                let value = |name: &str| match name {
                    "title" | "server-mode" => String::new(),
                    name => name.to_owned(),
                };
                let title = expand_title(text, value);
                match title.is_some_and(|title| !title.trim_matches(' ').is_empty()) {
                    true => Ok(text.to_owned()),
                    false => {
                        Err("template format is invalid or contains unknown variables".to_owned())
                    }
                }
            }
            Kind::FileName if text.contains('/') => {
                Err("a name is wanted, not a path; see `dir`".to_owned())
            }
            Kind::HostName
                if !text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')) =>
            {
                Err(
                    "Hostnames may only contain alphanumeric characters, hyphens or dots"
                        .to_owned(),
                )
            }
            Kind::Events => match EventClasses::from_text(text) {
                Some(classes) => Ok(classes.to_text()),
                None => Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned()),
            },
            _ => Ok(text.to_owned()),
        }
    }

    fn canonical_words(&self, words: &[&str], current: &str) -> Result<String, String> {
        // `bind ""`, `save ""`: one empty word says "none".
        let words = if words == [""] { &[] } else { words };
        match self {
            Kind::Flags(names) if words.is_empty() => one_of(names, "").map(str::to_owned),
            Kind::Flags(names) => {
                let flags: Result<Vec<_>, _> =
                    words.iter().map(|word| one_of(names, word)).collect();
                let flags = flags?;
                let chosen: Vec<_> = names
                    .iter()
                    .filter(|name| flags.contains(name) && **name != "default")
                    .collect();
                if ["save", "nosave"].iter().all(|flag| flags.contains(flag)) {
                    return Err(
                        "shutdown options SAVE and NOSAVE can't be used simultaneously".to_owned(),
                    );
                }
                Ok(if chosen.is_empty() {
                    "default".to_owned()
                } else {
                    join(chosen)
                })
            }
            Kind::Bind if words.len() > BIND_MAX => {
                Err("Too many bind addresses specified.".to_owned())
            }
            Kind::Directories => {
                let is_sound =
                    |word: &&str| word.starts_with('/') && !word.contains(char::is_whitespace);
                match words
                    .iter()
                    .find(|word| !word.is_empty() && !is_sound(word))
                {
                    Some(word) => Err(format!("{word:?} is no absolute path without blanks")),
                    None => Ok(join(words.iter().filter(|word| !word.is_empty()))),
                }
            }
            Kind::Save => save(words).ok_or("Invalid save parameters".to_owned()),
            Kind::OutputLimits => output_limits(words, current),
            Kind::ScoreAdjustments => score_adjustments(words),
            Kind::Percentiles => percentiles(words),
            Kind::ReplicaOf => replica_of(words),
            _ => Ok(join(words)),
        }
    }

    /// The lines that a configuration file needs to say `value`.
    pub fn lines(&self, name: &str, value: &str) -> Vec<String> {
        match self {
            Kind::Save if !value.is_empty() => {
                let numbers: Vec<&str> = value.split(' ').collect();
                numbers
                    .chunks(2)
                    .map(|rule| format!("{name} {}", rule.join(" ")))
                    .collect()
            }
            Kind::OutputLimits => {
                let limits = OutputLimits::from_text(value).unwrap_or_default();
                limits
                    .lines()
                    .iter()
                    .map(|line| format!("{name} {line}"))
                    .collect()
            }
            Kind::ReplicaOf if value.is_empty() => vec![], // it has no way to say "none"
            _ if self.has_words() && !value.is_empty() => vec![format!("{name} {value}")],
            _ => vec![format!("{name} {}", quoted(value))],
        }
    }
}

/// A template of the process's title with its variables replaced: `{name}`, and `{{` for a brace. `None`: it has no end, or a variable that is
/// unknown.
pub fn expand_title(template: &str, value: impl Fn(&str) -> String) -> Option<String> {
    const NAMES: [&str; 7] = [
        "title",
        "listen-addr",
        "server-mode",
        "config-file",
        "port",
        "tls-port",
        "unixsocket",
    ];
    let (mut title, mut rest) = (String::new(), template);
    while let Some((before, behind)) = rest.split_once('{') {
        title.push_str(before);
        if let Some(behind) = behind.strip_prefix('{') {
            title.push('{');
            rest = behind;
            continue;
        }
        let (name, behind) = behind.split_once('}')?;
        title.push_str(&value(NAMES.iter().find(|known| **known == name)?));
        rest = behind;
    }
    title.push_str(rest);
    Some(title)
}

/// `value` as one word of a configuration file.
pub fn quoted(value: &str) -> String {
    let is_plain = !value.is_empty()
        && !value.starts_with('#')
        && value
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\'));
    if is_plain {
        return value.to_owned();
    }
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c.is_ascii_control() => text.push_str(&format!("\\x{:02x}", c as u32)),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

fn join<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for word in words {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word.as_ref());
    }
    text
}

/// A decimal integer in canonical form.
fn integer(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|n| n.to_string() == text)
}

fn in_range<T: PartialOrd + std::fmt::Display>(n: T, min: T, max: T) -> Result<String, String> {
    match n >= min && n <= max {
        true => Ok(n.to_string()),
        false => Err(format!(
            "argument must be between {min} and {max} inclusive"
        )),
    }
}

/// Bytes with an optional unit.
pub fn memory(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit: u64 = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    // No digits at all mean 0, as they do in Redis.
    let number = if digits == 0 && text.is_empty() {
        0
    } else {
        text[..digits].parse::<u64>().ok()?
    };
    number.checked_mul(unit)
}

fn one_of(names: &[&'static str], text: &str) -> Result<&'static str, String> {
    let name = names.iter().find(|name| name.eq_ignore_ascii_case(text));
    name.copied().ok_or_else(|| {
        format!(
            "argument(s) must be one of the following: {}",
            names.join(", ")
        )
    })
}

fn save(words: &[&str]) -> Option<String> {
    if !words.len().is_multiple_of(2) {
        return None;
    }
    for rule in words.chunks_exact(2) {
        let (seconds, changes) = (integer(rule[0])?, integer(rule[1])?);
        if seconds < 1 || changes < 0 {
            return None;
        }
    }
    Some(join(words))
}

fn output_limits(words: &[&str], current: &str) -> Result<String, String> {
    if !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
    }
    let mut limits = OutputLimits::from_text(current).unwrap_or_default();
    for group in words.chunks_exact(4) {
        let class = limits
            .class_mut(group[0])
            .ok_or("Invalid client class specified in buffer limit configuration.")?;
        let parse = || {
            let soft_seconds = integer(group[3]).and_then(|n| u64::try_from(n).ok())?;
            Some(OutputLimit {
                hard_bytes: memory(group[1])?,
                soft_bytes: memory(group[2])?,
                soft_seconds,
            })
        };
        *class = parse()
            .ok_or("Error in hard, soft or soft_seconds setting in buffer limit configuration.")?;
    }
    Ok(limits.lines().join(" "))
}

fn score_adjustments(words: &[&str]) -> Result<String, String> {
    if words.len() != 3 {
        return Err("wrong number of arguments".to_owned());
    }
    for word in words {
        integer(word)
            .filter(|n| (-2000..=2000).contains(n))
            .ok_or("Invalid oom-score-adj-values, elements must be between -2000 and 2000.")?;
    }
    Ok(join(words))
}

fn percentiles(words: &[&str]) -> Result<String, String> {
    let mut texts = Vec::new();
    for word in words {
        let percentile: Option<f64> = word.parse().ok().filter(|p: &f64| p.is_finite());
        let percentile =
            percentile.ok_or("Invalid latency-tracking-info-percentiles parameters")?;
        if !(0.0..=100.0).contains(&percentile) {
            return Err(
                "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]"
                    .to_owned(),
            );
        }
        texts.push(percentile.to_string());
    }
    Ok(join(texts))
}

fn replica_of(words: &[&str]) -> Result<String, String> {
    match words {
        [] => Ok(String::new()),
        [no, one] if no.eq_ignore_ascii_case("no") && one.eq_ignore_ascii_case("one") => {
            Ok(String::new())
        }
        [host, port] => match integer(port) {
            Some(0..=65535) if !host.is_empty() && !host.contains(' ') => {
                Ok(format!("{host} {port}"))
            }
            _ => Err("Invalid master port".to_owned()),
        },
        _ => Err("wrong number of arguments".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD_TITLE: &str = "template format is invalid or contains unknown variables";

    #[test]
    fn values_have_a_canonical_text_or_a_known_error() {
        let int = Kind::Int { min: 0, max: 65535 };
        let limits = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        let flags = Kind::Flags(&["default", "save", "nosave", "now", "force"]);
        let rows: &[(&Kind, &str, Result<&str, &str>)] = &[
            (&Kind::Bool, "YES", Ok("yes")),
            (&Kind::Bool, "maybe", Err("argument must be 'yes' or 'no'")),
            (&int, "6379", Ok("6379")),
            (
                &int,
                "abc",
                Err("argument couldn't be parsed into an integer"),
            ),
            (
                &int,
                "+1",
                Err("argument couldn't be parsed into an integer"),
            ),
            (
                &int,
                "70000",
                Err("argument must be between 0 and 65535 inclusive"),
            ),
            (&Kind::Memory { min: 0 }, "1Gb", Ok("1073741824")),
            (&Kind::Memory { min: 0 }, "2k", Ok("2000")),
            (
                &Kind::Memory { min: 0 },
                "1tb",
                Err("argument must be a memory value"),
            ),
            (
                &Kind::Memory { min: 0 },
                "-5",
                Err("argument must be a memory value"),
            ),
            (
                &Kind::Memory { min: 0 },
                "99999999999gb",
                Err("argument must be a memory value"),
            ),
            (
                &Kind::Memory { min: 1 },
                "0",
                Err("argument must be between 1 and 9223372036854775807 inclusive"),
            ),
            (&Kind::MemoryOrPercent, "10%", Ok("10%")),
            (
                &Kind::MemoryOrPercent,
                "200%",
                Err("percentage argument must be less or equal to 100"),
            ),
            (
                &Kind::MemoryOrPercent,
                "x",
                Err("argument must be a memory or percent value"),
            ),
            (&Kind::Octal { max: 0o777 }, "700", Ok("700")),
            (
                &Kind::Octal { max: 0o777 },
                "9",
                Err("argument couldn't be parsed as an octal number"),
            ),
            (&Kind::Enum(&["a", "b"]), "B", Ok("b")),
            (
                &Kind::Enum(&["a", "b"]),
                "c",
                Err("argument(s) must be one of the following: a, b"),
            ),
            (&flags, "now save", Ok("save now")),
            (&flags, "default", Ok("default")),
            (
                &flags,
                "save nosave",
                Err("shutdown options SAVE and NOSAVE can't be used simultaneously"),
            ),
            (
                &flags,
                "",
                Err("argument(s) must be one of the following: default, save, nosave, now, force"),
            ),
            (&Kind::Events, "KEA", Ok("AKE")),
            (
                &Kind::Events,
                "Q",
                Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
            ),
            (&Kind::Save, "900 1 300 10", Ok("900 1 300 10")),
            (&Kind::Rounds, "0", Ok("1")),
            (&Kind::Rounds, "1000", Ok("500")),
            (&Kind::Backlog, "1kb", Ok("16384")),
            (
                &Kind::Backlog,
                "0",
                Err("argument must be between 1 and 9223372036854775807 inclusive"),
            ),
            (&Kind::Save, "", Ok("")),
            (&Kind::Save, "10 a", Err("Invalid save parameters")),
            (&Kind::Save, "-1 5", Err("Invalid save parameters")),
            (
                &Kind::OutputLimits,
                "replica 1kb 0 5",
                Ok("normal 0 0 0 slave 1024 0 5 pubsub 33554432 8388608 60"),
            ),
            (
                &Kind::OutputLimits,
                "normal 1 2",
                Err("Wrong number of arguments in buffer limit configuration."),
            ),
            (
                &Kind::OutputLimits,
                "master 0 0 0",
                Err("Invalid client class specified in buffer limit configuration."),
            ),
            (&Kind::Percentiles, "50 99.90", Ok("50 99.9")),
            (&Kind::ReplicaOf, "host 6379", Ok("host 6379")),
            (&Kind::ReplicaOf, "no one", Ok("")),
            (&Kind::ReplicaOf, "host x", Err("Invalid master port")),
            (&Kind::Title, "{{x} {port}", Ok("{{x} {port}")),
            (&Kind::Title, "x {nosuch}", Err(BAD_TITLE)),
            (&Kind::Title, "x {port", Err(BAD_TITLE)),
            (&Kind::Title, "x {", Err(BAD_TITLE)),
            (&Kind::Title, " {title} ", Err(BAD_TITLE)),
            (
                &Kind::HostName,
                "a_b",
                Err("Hostnames may only contain alphanumeric characters, hyphens or dots"),
            ),
        ];
        for (kind, text, want) in rows {
            let words: Vec<&str> = if kind.has_words() {
                text.split(' ').collect()
            } else {
                vec![text]
            };
            let got = kind.canonical(&words, limits);
            assert_eq!(
                got.as_deref().map_err(String::as_str),
                *want,
                "{kind:?} {text:?}"
            );
        }
    }

    #[test]
    fn words_are_quoted_when_they_must() {
        let rows = [
            ("plain", "plain"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("q\"\\\n", r#""q\"\\\n""#),
            ("#x", "\"#x\""),
        ];
        for (value, want) in rows {
            assert_eq!(quoted(value), want);
        }
    }
}
