//! COMMAND: what the server tells of its commands.

use dfsnap_formats::glob;
use dfsnap_formats::resp::Reply;

use crate::command::acl::catalog;
use crate::command::key_places::{self, Begin, Find, KeyPlace};
use crate::command::reference::{self, Argument, Kind, Subcommand, Syntax};
use crate::command::{Command, CommandError, KeySpec, Run, table};
use crate::keyspace::value::canonical_i64;

/// COMMAND and its subcommands.
pub fn command(out: &mut Reply, args: &[&[u8]]) -> Result<(), CommandError> {
    let Some(word) = args.get(1) else {
        let all: Vec<_> = table::listed().collect();
        out.array(all.len());
        all.into_iter().for_each(|command| describe(out, command));
        return Ok(());
    };
    match (word.to_ascii_lowercase().as_slice(), &args[2..]) {
        (b"count", []) => out.int(table::listed().count() as i64),
        (b"info", []) => {
            let all: Vec<_> = table::listed().collect();
            out.array(all.len());
            all.into_iter().for_each(|command| describe(out, command));
        }
        (b"info", names) => {
            out.array(names.len());
            for name in names {
                match (table::find(name), subcommand(name)) {
                    (Some(command), _) => describe(out, command),
                    (None, Some(subcommand)) => describe_subcommand(out, subcommand),
                    (None, None) => out.null_array(),
                }
            }
        }
        (b"list", filter) => {
            let chosen = filtered(filter)?;
            out.array(chosen.len());
            chosen.iter().for_each(|name| out.bulk(name.as_bytes()));
        }
        (b"help", []) => {
            out.array(HELP.len());
            HELP.iter().for_each(|line| out.simple(line));
        }
        (b"docs", names) => {
            if names.is_empty() {
                out.map(table::listed().count());
                for command in table::listed() {
                    out.bulk(command.name.as_bytes());
                    document(out, command);
                }
                return Ok(());
            }
            let is_known =
                |name: &&&[u8]| table::find(name).is_some() || subcommand(name).is_some();
            let known: Vec<_> = names.iter().filter(is_known).collect();
            out.map(known.len());
            for name in known {
                if let Some(command) = table::find(name) {
                    out.bulk(command.name.as_bytes());
                    document(out, command);
                } else if let Some(subcommand) = subcommand(name) {
                    let container = subcommand.name.split('|').next().unwrap_or_default();
                    let group = table::own(container.as_bytes()).map_or("", group_name);
                    out.bulk(subcommand.name.as_bytes());
                    let about = (subcommand.summary, subcommand.since, group);
                    document_one(out, subcommand.name, about, 0);
                }
            }
        }
        (b"getkeys", [name, ..]) => get_keys(out, name, &args[2..])?,
        (b"getkeysandflags", [name, ..]) => get_keys_and_flags(out, name, &args[2..])?,
        (b"count" | b"getkeys" | b"getkeysandflags" | b"help", _) => {
            let name = String::from_utf8_lossy(word).to_lowercase();
            return Err(CommandError::wrong_arity(&format!("command|{name}")));
        }
        _ => {
            let name = String::from_utf8_lossy(word);
            return Err(CommandError::new(format!(
                "unknown subcommand '{name}'. Try COMMAND HELP."
            )));
        }
    }
    Ok(())
}

/// What COMMAND HELP says.
const HELP: [&str; 17] = [
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand)",
    "    All commands with their properties.",
    "COUNT",
    "    The number of commands.",
    "DOCS [<command-name> ...]",
    "    What commands do (default: all).",
    "GETKEYS <full-command>",
    "    The keys of a command with its arguments.",
    "GETKEYSANDFLAGS <full-command>",
    "    The keys of a command with its arguments, and what becomes of them.",
    "INFO [<command-name> ...]",
    "    Commands with their properties (default: all).",
    "LIST [FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]",
    "    The names of commands.",
    "HELP",
    "    This text.",
];

/// The names of COMMAND LIST with this filter: commands, each followed by its subcommands.
fn filtered(filter: &[&[u8]]) -> Result<Vec<&'static str>, CommandError> {
    let names = table::listed().flat_map(|command| {
        let subcommands = reference::subcommands_of(command.name);
        std::iter::once(command.name).chain(subcommands.map(|subcommand| subcommand.name))
    });
    let [word, kind, value] = filter else {
        return if filter.is_empty() {
            Ok(names.collect())
        } else {
            Err(CommandError::SYNTAX)
        };
    };
    if !word.eq_ignore_ascii_case(b"filterby") {
        return Err(CommandError::SYNTAX);
    }
    Ok(match kind.to_ascii_lowercase().as_slice() {
        // Nothing here comes from a module.
        b"module" => Vec::new(),
        b"aclcat" => {
            let category = format!("@{}", String::from_utf8_lossy(value).to_lowercase());
            names
                .filter(|name| categories(name).contains(&category))
                .collect()
        }
        b"pattern" => names
            .filter(|name| glob::matches_ignoring_case(value, name.as_bytes()))
            .collect(),
        _ => return Err(CommandError::SYNTAX),
    })
}

/// The subcommand of this name, in any case.
fn subcommand(name: &[u8]) -> Option<&'static Subcommand> {
    reference::subcommand(std::str::from_utf8(name).ok()?.to_lowercase().as_str())
}

/// The command of COMMAND GETKEYS, which must fit its words.
fn named(name: &[u8], words: &[&[u8]]) -> Result<&'static Command, CommandError> {
    let command =
        table::find(name).ok_or_else(|| CommandError::new("Invalid command specified"))?;
    if !command.arity_fits(words.len()) {
        return Err(CommandError::new(
            "Invalid number of arguments specified for command",
        ));
    }
    Ok(command)
}

/// Scripts may have no keys at all.
fn may_have_none(command: &Command) -> bool {
    matches!(command.run, Run::Script(_))
}

fn get_keys_and_flags(out: &mut Reply, name: &[u8], words: &[&[u8]]) -> Result<(), CommandError> {
    let command = named(name, words)?;
    let keys = match has_keys(command, words)? {
        true => key_places::keys(command.name, words),
        false => Vec::new(),
    };
    out.array(keys.len());
    for (key, flags) in keys {
        out.array(2);
        out.bulk(key);
        reply_flags(out, flags);
    }
    Ok(())
}

/// Flags of a key, in words.
fn reply_flags(out: &mut Reply, flags: &str) {
    out.set(flags.split_whitespace().count());
    flags.split_whitespace().for_each(|flag| out.simple(flag));
}

/// A place of keys, as COMMAND shows it.
fn reply_place(out: &mut Reply, place: &KeyPlace) {
    let pair = |out: &mut Reply, name: &str, value: i32| {
        out.bulk(name.as_bytes());
        out.int(i64::from(value));
    };
    out.map(3);
    out.bulk(b"flags");
    reply_flags(out, place.flags);
    out.bulk(b"begin_search");
    out.map(2);
    out.bulk(b"type");
    match place.begin {
        Begin::Index(index) => {
            out.bulk(b"index");
            out.bulk(b"spec");
            out.map(1);
            pair(out, "index", index);
        }
        Begin::Keyword(keyword, from) => {
            out.bulk(b"keyword");
            out.bulk(b"spec");
            out.map(2);
            out.bulk(b"keyword");
            out.bulk(keyword.as_bytes());
            pair(out, "startfrom", from);
        }
        Begin::Unknown => {
            out.bulk(b"unknown");
            out.bulk(b"spec");
            out.map(0);
        }
    }
    out.bulk(b"find_keys");
    out.map(2);
    out.bulk(b"type");
    match place.find {
        Find::Range { last, step, limit } => {
            out.bulk(b"range");
            out.bulk(b"spec");
            out.map(3);
            pair(out, "lastkey", last);
            pair(out, "keystep", step);
            pair(out, "limit", limit);
        }
        Find::Count => {
            out.bulk(b"keynum");
            out.bulk(b"spec");
            out.map(3);
            pair(out, "keynumidx", 0);
            pair(out, "firstkey", 1);
            pair(out, "keystep", 1);
        }
        Find::Unknown => {
            out.bulk(b"unknown");
            out.bulk(b"spec");
            out.map(0);
        }
    }
}

fn get_keys(out: &mut Reply, name: &[u8], words: &[&[u8]]) -> Result<(), CommandError> {
    let command = named(name, words)?;
    let mut keys = Vec::new();
    if has_keys(command, words)? {
        command.keys.visit(words, |at| keys.push(words[at]));
    }
    out.array(keys.len());
    keys.into_iter().for_each(|key| out.bulk(key));
    Ok(())
}

/// Whether these words name keys; an error where they should and do not.
fn has_keys(command: &Command, words: &[&[u8]]) -> Result<bool, CommandError> {
    if matches!(command.keys, KeySpec::None) {
        return Err(CommandError::new("The command has no key arguments"));
    }
    let has_some = match command.keys {
        KeySpec::Counted { count, .. } => {
            let number = words.get(count).and_then(|word| canonical_i64(word));
            let room = words.len().saturating_sub(count + 1);
            number.is_some_and(|number| number >= 1 && number as usize <= room)
        }
        _ => {
            let mut has_some = false;
            command.keys.visit(words, |_| has_some = true);
            has_some
        }
    };
    if !has_some && !may_have_none(command) {
        return Err(CommandError::new("Invalid arguments specified for command"));
    }
    Ok(has_some)
}

fn group_name(command: &Command) -> &'static str {
    use crate::command::Group::*;
    match command.group {
        Generic => "generic",
        String => "string",
        List => "list",
        Set => "set",
        SortedSet => "sorted-set",
        Hash => "hash",
        Stream => "stream",
        Bitmap => "bitmap",
        HyperLogLog => "hyperloglog",
        Geo => "geo",
        PubSub => "pubsub",
        Transactions => "transactions",
        Scripting => "scripting",
        Connection => "connection",
        Server => "server",
        Cluster => "cluster",
    }
}

/// The ten elements that COMMAND shows of a command, and of each of its subcommands.
fn describe(out: &mut Reply, command: &Command) {
    let subcommands: Vec<_> = reference::subcommands_of(command.name).collect();
    let is_container = !subcommands.is_empty();
    out.array(10);
    out.bulk(command.name.as_bytes());
    out.int(i64::from(command.arity));
    // What a container may do, its subcommands say.
    let flags: Vec<_> = if is_container && command.name != "command" {
        Vec::new()
    } else {
        command.flags.names().collect()
    };
    reply_words(out, &flags);
    let (first, last, step) = match command.keys {
        KeySpec::Range { .. } if is_container => (0, 0, 0),
        KeySpec::Range { first, last, step } => (first as i64, last as i64, step as i64),
        KeySpec::Counted {
            dest: Some(dest), ..
        } => (dest as i64, dest as i64, 1),
        KeySpec::Counted { dest: None, .. } => (0, 0, 0),
        KeySpec::None | KeySpec::Custom(_) => first_range(key_places::of(command.name, None)),
    };
    out.int(first);
    out.int(last);
    out.int(step);
    let categories = categories(command.name);
    reply_words(out, &categories);
    reply_tips(out, command.name);
    reply_places(out, key_places::of(command.name, None));
    out.array(subcommands.len());
    for subcommand in subcommands {
        describe_subcommand(out, subcommand);
    }
}

fn describe_subcommand(out: &mut Reply, subcommand: &Subcommand) {
    let (command, word) = subcommand.name.split_once('|').unwrap_or_default();
    let places = key_places::of(command, Some(word.as_bytes()));
    out.array(10);
    out.bulk(subcommand.name.as_bytes());
    out.int(i64::from(subcommand.arity));
    reply_words(out, &subcommand.flags);
    let (first, last, step) = first_range(places);
    out.int(first);
    out.int(last);
    out.int(step);
    reply_words(out, &categories(subcommand.name));
    reply_tips(out, subcommand.name);
    reply_places(out, places);
    out.array(0);
}

/// First key, last key and step, where the first place of keys is a range of known beginning.
fn first_range(places: &[KeyPlace]) -> (i64, i64, i64) {
    match places.first() {
        Some(KeyPlace {
            begin: Begin::Index(first),
            find: Find::Range { last, step, .. },
            ..
        }) => {
            let first = i64::from(*first);
            let last = i64::from(*last);
            let last = if last >= 0 { first + last } else { last };
            (first, last, i64::from(*step))
        }
        _ => (0, 0, 0),
    }
}

fn reply_words(out: &mut Reply, words: &[impl AsRef<str>]) {
    out.set(words.len());
    words.iter().for_each(|word| out.simple(word.as_ref()));
}

fn reply_tips(out: &mut Reply, name: &str) {
    let tips = reference::syntax(name).map_or(&[][..], |syntax| &syntax.tips);
    out.array(tips.len());
    tips.iter().for_each(|tip| out.bulk(tip.as_bytes()));
}

fn reply_places(out: &mut Reply, places: &[KeyPlace]) {
    out.array(places.len());
    places.iter().for_each(|place| reply_place(out, place));
}

/// Categories of a command or subcommand, each with its `@`.
fn categories(name: &str) -> Vec<String> {
    let Some(at) = catalog::position(name) else {
        return Vec::new();
    };
    let bits = catalog::all()[at].categories;
    let names = catalog::CATEGORIES.iter().enumerate();
    names
        .filter(|(bit, _)| bits >> bit & 1 == 1)
        .map(|(_, name)| format!("@{name}"))
        .collect()
}

/// What COMMAND DOCS says of a command, with its subcommands.
fn document(out: &mut Reply, command: &Command) {
    let subcommands: Vec<_> = reference::subcommands_of(command.name).collect();
    let group = group_name(command);
    let about = (command.summary, command.since, group);
    document_one(out, command.name, about, subcommands.len());
    if !subcommands.is_empty() {
        out.bulk(b"subcommands");
        out.map(subcommands.len());
        for subcommand in subcommands {
            let about = (subcommand.summary, subcommand.since, group);
            out.bulk(subcommand.name.as_bytes());
            document_one(out, subcommand.name, about, 0);
        }
    }
}

/// The map of a command or subcommand; `subcommands`: a pair about them follows.
fn document_one(
    out: &mut Reply,
    name: &str,
    (summary, since, group): (&str, &str, &str),
    subcommands: usize,
) {
    let none = Syntax::default();
    let syntax = reference::syntax(name).unwrap_or(&none);
    let texts = [
        ("summary", summary),
        ("since", since),
        ("group", group),
        ("complexity", syntax.cost),
        ("deprecated_since", syntax.deprecated_since),
    ];
    let texts: Vec<_> = texts.iter().filter(|(_, text)| !text.is_empty()).collect();
    let history = reference::history(name);
    let lists = [
        syntax.doc_flags.is_empty(),
        history.is_empty(),
        syntax.arguments.is_empty(),
    ];
    let lists = lists.iter().filter(|is_empty| !**is_empty).count();
    out.map(texts.len() + lists + usize::from(subcommands > 0));
    for (name, text) in texts {
        out.bulk(name.as_bytes());
        out.bulk(text.as_bytes());
    }
    if !syntax.doc_flags.is_empty() {
        out.bulk(b"doc_flags");
        reply_words(out, &syntax.doc_flags);
    }
    if !history.is_empty() {
        out.bulk(b"history");
        out.set(history.len());
        for (version, what) in &history {
            out.array(2);
            out.bulk(version.as_bytes());
            out.bulk(what.as_bytes());
        }
    }
    if !syntax.arguments.is_empty() {
        out.bulk(b"arguments");
        reply_arguments(out, &syntax.arguments);
    }
}

fn reply_arguments(out: &mut Reply, arguments: &[Argument]) {
    out.array(arguments.len());
    for argument in arguments {
        let key = match argument.kind {
            Kind::Key(key) => Some(key),
            _ => None,
        };
        let parts = match &argument.kind {
            Kind::OneOf(parts) | Kind::Block(parts) => Some(parts),
            _ => None,
        };
        let flags: Vec<&str> = [
            (argument.is_optional, "optional"),
            (argument.is_multiple, "multiple"),
            (argument.repeats_token, "multiple_token"),
        ]
        .iter()
        .filter(|(is_set, _)| *is_set)
        .map(|(_, name)| *name)
        .collect();
        let texts = [
            ("token", argument.token),
            ("since", argument.since),
            ("deprecated_since", argument.deprecated_since),
        ];
        let texts: Vec<_> = texts
            .iter()
            .filter_map(|(name, text)| Some((name, (*text)?)))
            .collect();
        let more = usize::from(key.is_some())
            + usize::from(!flags.is_empty())
            + usize::from(parts.is_some());
        out.map(2 + texts.len() + more);
        let mut pair = |name: &str, text: &str| {
            out.bulk(name.as_bytes());
            out.bulk(text.as_bytes());
        };
        pair("name", argument.name);
        pair("type", argument.kind.name());
        texts.into_iter().for_each(|(name, text)| pair(name, text));
        if let Some(key) = key {
            out.bulk(b"key_spec_index");
            out.int(key);
        }
        if !flags.is_empty() {
            out.bulk(b"flags");
            reply_words(out, &flags);
        }
        if let Some(parts) = parts {
            out.bulk(b"arguments");
            reply_arguments(out, parts);
        }
    }
}
