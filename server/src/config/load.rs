//! Loading a configuration: `dfsnap-server [path.conf] [-] [--name value …]`.
//!
//! A file has a directive a line: words with quotes, `#` comments, `include`. The last value wins; `save` lines
//! add up once the first one has replaced the default. The command line comes after the file and wins.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use dfsnap_formats::resp::split_words;

use super::kind::Kind;
use super::rows::ROWS;
use super::sources::Sources;
use super::{Config, row_index};
use dfsnap_formats::glob;

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    Run(Box<Loaded>),
    Help,
    Version,
}

#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// The file, absolute; CONFIG REWRITE writes to it.
    pub path: Option<PathBuf>,
    /// Lines for the log: directives nobody knows.
    pub warnings: Vec<String>,
    /// The texts it was read from.
    pub sources: Sources,
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct ConfigError {
    pub place: Place,
    pub reason: String,
}

/// Where a directive stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Line { path: PathBuf, line: usize },
    CommandLine,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line { path, line } => write!(f, "{}:{line}", path.display()),
            Place::CommandLine => f.write_str("command line"),
        }
    }
}

impl Place {
    /// A directive as it is told of in an error: on the command line with its words apart.
    fn shown(&self, words: &[&str]) -> String {
        match self {
            Place::Line { .. } => words.join(" "),
            Place::CommandLine => {
                let values: Vec<String> = words[1..].iter().map(|w| format!(" {w:?}")).collect();
                format!("'{}{}'", words[0], values.concat())
            }
        }
    }
}

/// Files included by files included by …
const INCLUDE_DEPTH_MAX: usize = 16;

/// The arguments as texts, which all directives are.
pub fn texts(args: impl Iterator<Item = OsString>) -> Result<Vec<String>, ConfigError> {
    let text = |(at, arg): (usize, OsString)| {
        arg.into_string().map_err(|arg| ConfigError {
            place: Place::CommandLine,
            reason: format!("argument {} is not UTF-8: {arg:?}", at + 1),
        })
    };
    args.enumerate().map(text).collect()
}

/// Reads the arguments after the program's name, and the file they name unless `sources` has been handed it.
pub fn from_args(args: &[String], sources: Sources) -> Result<Invocation, ConfigError> {
    match args.first().map(String::as_str) {
        Some("-h" | "--help") => return Ok(Invocation::Help),
        Some("-v" | "--version") => return Ok(Invocation::Version),
        _ => {}
    }
    let mut loader = Loader {
        sources,
        ..Loader::default()
    };
    let (path, mut options) = match args.split_first() {
        Some((path, options)) if !path.starts_with('-') => {
            (Some(absolute(Path::new(path))), options)
        }
        _ => (None, args),
    };
    if let Some(path) = &path {
        loader.file(path, 0, &Place::CommandLine)?;
    }
    // `-` in front or at the end: more of the file comes from the standard input.
    let from_input = match options {
        [dash, rest @ ..] if dash == "-" => Some(rest),
        [rest @ .., dash] if dash == "-" => Some(rest),
        _ => None,
    };
    if let Some(rest) = from_input {
        options = rest;
        loader.input()?;
    }
    loader.config.file_values = loader.config.values.clone();
    for directive in directives(options)? {
        let words: Vec<&str> = directive.iter().map(String::as_str).collect();
        if !words.is_empty() {
            loader.directive(&words, &Place::CommandLine, 0)?;
        }
    }
    loader.finish(path)
}

/// Reads a configuration text; relative includes are searched from the working directory.
pub fn from_text(text: &str, path: &Path) -> Result<Loaded, ConfigError> {
    let mut loader = Loader::default();
    loader.text(text, path, 0)?;
    loader.config.file_values = loader.config.values.clone();
    match loader.finish(Some(path.to_owned()))? {
        Invocation::Run(loaded) => Ok(*loaded),
        _ => unreachable!("a loader ends in a configuration"),
    }
}

/// Splits options into directives, as Redis does: `--name` begins one, and what follows a name is its value although it may begin with
/// dashes. One argument may hold name and value; words in front of all names make a directive of their own.
fn directives(options: &[String]) -> Result<Vec<Vec<String>>, ConfigError> {
    let mut found: Vec<Vec<String>> = Vec::new();
    let mut has_value = true;
    for (at, option) in options.iter().enumerate() {
        let name = option.strip_prefix("--").filter(|_| has_value);
        has_value = true;
        let Some(name) = name else {
            match found.last_mut() {
                Some(directive) => directive.push(option.clone()),
                None => found.push(vec![option.clone()]),
            }
            continue;
        };
        let mut words =
            words_of(name).ok_or_else(|| on_command_line("unbalanced quotes", option))?;
        if words.len() < 2 {
            let next = options.get(at + 1);
            let is_bare = next.is_none_or(|next| next.starts_with("--"));
            // A list of save points that is empty, as programs write it that put lines together from lists.
            if is_bare && name.eq_ignore_ascii_case("save") {
                words.push(String::new());
            } else {
                has_value = false;
            }
        }
        found.push(words);
    }
    Ok(found)
}

fn on_command_line(what: &str, option: &str) -> ConfigError {
    ConfigError {
        place: Place::CommandLine,
        reason: format!("{what}, found {option:?}"),
    }
}

/// The words of a line; `None` when a quote has no partner.
pub(super) fn words_of(line: &str) -> Option<Vec<String>> {
    let (mut text, mut words) = (Vec::new(), Vec::new());
    split_words(line.as_bytes(), &mut text, &mut words).ok()?;
    Some(
        words
            .into_iter()
            .map(|at| String::from_utf8_lossy(&text[at]).into_owned())
            .collect(),
    )
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[derive(Default)]
struct Loader {
    config: Config,
    save_seen: bool,
    unknown: Vec<(Place, String)>,
    sources: Sources,
}

impl Loader {
    fn file(&mut self, path: &Path, depth: usize, from: &Place) -> Result<(), ConfigError> {
        let failed = |reason: String| ConfigError {
            place: from.clone(),
            reason,
        };
        if depth > INCLUDE_DEPTH_MAX {
            return Err(failed(format!(
                "{}: includes are nested more than {INCLUDE_DEPTH_MAX} deep",
                path.display()
            )));
        }
        let text = self.sources.text(path, || fs::read(path));
        let text =
            text.map_err(|error| failed(format!("cannot read {}: {error}", path.display())))?;
        self.text(&text, path, depth)
    }

    /// Reads the standard input as a part of the configuration.
    fn input(&mut self) -> Result<(), ConfigError> {
        let name = Path::new("standard input");
        let text = self.sources.text(name, || {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let text = text.map_err(|error| ConfigError {
            place: Place::CommandLine,
            reason: format!("cannot read the standard input: {error}"),
        })?;
        self.text(&text, name, 0)
    }

    fn text(&mut self, text: &str, path: &Path, depth: usize) -> Result<(), ConfigError> {
        for (i, line) in text.lines().enumerate() {
            let place = Place::Line {
                path: path.to_owned(),
                line: i + 1,
            };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some(words) = words_of(line) else {
                return Err(ConfigError {
                    place,
                    reason: "unbalanced quotes".to_owned(),
                });
            };
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if !words.is_empty() {
                self.directive(&words, &place, depth)?;
            }
        }
        Ok(())
    }

    /// `words` is a name and its arguments.
    fn directive(
        &mut self,
        words: &[&str],
        place: &Place,
        depth: usize,
    ) -> Result<(), ConfigError> {
        let failed = |reason: String| ConfigError {
            place: place.clone(),
            reason,
        };
        let (name, args) = (words[0], &words[1..]);
        let owned = || args.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        if let Some(at) = row_index(name) {
            let value = self
                .row(at, args)
                .map_err(|reason| failed(format!("{}: {reason}", place.shown(words))))?;
            self.config.values[at] = value;
            return Ok(());
        }
        match (name.to_ascii_lowercase().as_str(), args) {
            ("include", &[pattern]) => {
                for path in included(pattern).map_err(failed)? {
                    self.file(&path, depth + 1, place)?;
                }
            }
            ("rename-command", &[old, new]) => {
                self.config
                    .renamed_commands
                    .push((old.to_owned(), new.to_owned()));
            }
            ("user", [_, ..]) => self.config.users.push(owned()),
            ("loadmodule", [_, ..]) => self.config.modules.push(owned()),
            ("include" | "rename-command" | "user" | "loadmodule", _) => {
                return Err(failed(format!("{name}: wrong number of arguments")));
            }
            _ => self.unknown.push((place.clone(), name.to_owned())),
        }
        Ok(())
    }

    fn row(&mut self, at: usize, args: &[&str]) -> Result<String, String> {
        let (row, current) = (&ROWS[at], &self.config.values[at]);
        let args = match args {
            // As Redis takes it: no snapshots.
            [] if row.name == "save" => &[""],
            // It has words of its own for that.
            [] if matches!(row.kind, Kind::Flags(_)) => &[""],
            [] => return Err("wrong number of arguments".to_owned()),
            args => args,
        };
        // A value in one pair of quotes, as CONFIG SET has it.
        let split: Vec<&str> = match args {
            [text] if row.kind.has_words() && text.contains(' ') => {
                text.split_whitespace().collect()
            }
            _ => args.to_vec(),
        };
        let value = row.kind.canonical(&split, current)?;
        if row.name != "save" {
            return Ok(value);
        }
        let adds_up = std::mem::replace(&mut self.save_seen, true)
            && !value.is_empty()
            && !current.is_empty();
        Ok(if adds_up {
            format!("{current} {value}")
        } else {
            value
        })
    }

    fn finish(mut self, path: Option<PathBuf>) -> Result<Invocation, ConfigError> {
        self.resolve_dir();
        self.config.refresh();
        if self.config.strict_config
            && let Some((place, name)) = self.unknown.first()
        {
            let reason = format!("unknown directive {name:?} (strict-config is on)");
            return Err(ConfigError {
                place: place.clone(),
                reason,
            });
        }
        let warning = |(place, name): &(Place, String)| {
            format!("{place}: unknown directive {name:?} is ignored")
        };
        let warnings = self.unknown.iter().map(warning).collect();
        Ok(Invocation::Run(Box::new(Loaded {
            config: self.config,
            path,
            warnings,
            sources: self.sources,
        })))
    }
}

impl Loader {
    /// CONFIG GET shows the folder itself, and a later change of the working directory does not move it.
    fn resolve_dir(&mut self) {
        let at = row_index("dir").expect("dir is a row");
        for values in [&mut self.config.values, &mut self.config.file_values] {
            let path = absolute(Path::new(&values[at]));
            values[at] = path
                .components()
                .collect::<PathBuf>()
                .to_string_lossy()
                .into_owned();
        }
    }
}

/// The files an `include` names. A pattern in the last part may match none; a plain name must exist.
fn included(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let path = absolute(Path::new(pattern));
    let last = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if !last.contains(['*', '?', '[']) {
        return Ok(vec![path]);
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let entries = fs::read_dir(folder)
        .map_err(|error| format!("cannot read folder {}: {error}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry =
            entry.map_err(|error| format!("cannot read folder {}: {error}", folder.display()))?;
        if glob::matches(last.as_bytes(), entry.file_name().as_encoded_bytes()) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
