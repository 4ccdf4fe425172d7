//! What access rules know of commands: categories, subcommands, and what a command needs of its keys.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::command::table;

/// The categories, in the order in which ACL CAT lists them.
pub const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// The number of a category, for a bit.
pub fn category(name: &[u8]) -> Option<usize> {
    CATEGORIES
        .iter()
        .position(|known| known.as_bytes().eq_ignore_ascii_case(name))
}

/// Permissions on keys, as bits.
pub const READ: u8 = 1;
/// See [`READ`].
pub const WRITE: u8 = 2;

/// A command or subcommand (`config|get`).
#[derive(Debug)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// One bit a category.
    pub categories: u32,
    /// What the first key needs, the second, and so on; the last stands for all that follow.
    pub keys: Vec<u8>,
}

static DATA: &str = include_str!("commands.txt");

static ALL: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let lines = DATA.lines().filter(|line| !line.starts_with('#'));
    let known = lines.filter_map(|line| {
        let mut words = line.split(' ');
        let (name, keys) = (words.next()?, words.next()?);
        // What this server does not have is nobody's to allow.
        table::own(name.split('|').next()?.as_bytes())?;
        let bits = words.filter_map(|word| category(word.as_bytes()));
        let need = |need: &str| {
            (u8::from(need.contains('r')) * READ) | (u8::from(need.contains('w')) * WRITE)
        };
        Some(Known {
            name,
            categories: bits.fold(0, |bits, bit| bits | 1 << bit),
            keys: keys.split(',').map(need).collect(),
        })
    });
    let mut all: Vec<Known> = known.collect();
    // Containers, and commands that are ours alone.
    for command in table::all() {
        if all.iter().any(|known| known.name == command.name) {
            continue;
        }
        let names = command.categories();
        let names = names.iter().map(|name| name.trim_start_matches('@'));
        let mut categories = names
            .filter_map(|name| category(name.as_bytes()))
            .fold(0, |bits, bit| bits | 1 << bit);
        let is_container = DATA.contains(&format!("\n{}|", command.name));
        if is_container {
            categories = 1 << category(b"slow").expect("it is in the list");
        }
        all.push(Known {
            name: command.name,
            categories,
            keys: vec![if command.is_write() { WRITE } else { READ }],
        });
    }
    all
});

static BY_NAME: LazyLock<HashMap<&'static str, usize>> = LazyLock::new(|| {
    let names = ALL.iter().enumerate();
    names.map(|(at, known)| (known.name, at)).collect()
});

/// All of them.
pub fn all() -> &'static [Known] {
    &ALL
}

/// The place of a command or subcommand in [`all`], in lower case.
pub fn position(name: &str) -> Option<usize> {
    BY_NAME.get(name).copied()
}

/// Whether a command has subcommands.
pub fn is_container(name: &str) -> bool {
    let prefix = format!("{name}|");
    ALL.iter().any(|known| known.name.starts_with(&prefix))
}

/// The place of the command of these words: of the subcommand, if it has some and this is one.
pub fn position_of(command: &'static str, args: &[&[u8]]) -> usize {
    if let Some(word) = args.get(1)
        && word.len() < 24
    {
        let name = format!("{command}|{}", String::from_utf8_lossy(word).to_lowercase());
        if let Some(at) = position(&name) {
            return at;
        }
    }
    position(command).expect("every command is known")
}
