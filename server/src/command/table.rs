//! All commands by name, and the names that the configuration gives them (`rename-command`).
//!
//! What clients, scripts and primaries send is looked up with [`find`]; what the server itself means by a name, with [`own`].

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use super::Command;

/// The families' rows.
static FAMILIES: &[&[Command]] = &[
    super::session::COMMANDS,
    super::pubsub::COMMANDS,
    super::blocking_lists::COMMANDS,
    super::blocking_zsets::COMMANDS,
    super::strings::COMMANDS,
    super::keys::COMMANDS,
    super::databases::COMMANDS,
    super::geo::COMMANDS,
    super::memory::COMMANDS,
    super::hyperloglog::COMMANDS,
    super::stream_claims::COMMANDS,
    super::sort::COMMANDS,
    super::dump::COMMANDS,
    super::lcs::COMMANDS,
    super::bits::COMMANDS,
    super::stream_info::COMMANDS,
    super::stream_groups::COMMANDS,
    super::streams::COMMANDS,
    super::zset_algebra::COMMANDS,
    super::zset_ranges::COMMANDS,
    super::zsets::COMMANDS,
    super::sets::COMMANDS,
    super::hashes::COMMANDS,
    super::hash_expiry::COMMANDS,
    super::expiry::COMMANDS,
    super::lists::COMMANDS,
    super::lolwut::COMMANDS,
    super::script::COMMANDS,
];

/// Longer than any command's name.
const NAME_BYTES_MAX: usize = 24;

static BY_NAME: LazyLock<HashMap<&'static [u8], &'static Command, foldhash::fast::RandomState>> =
    LazyLock::new(|| {
        all()
            .map(|command| (command.name.as_bytes(), command))
            .collect()
    });

/// Names as clients know them, where some are not the commands' own.
type Renamed = HashMap<Vec<u8>, &'static Command>;

static RENAMED: OnceLock<Renamed> = OnceLock::new();

/// Gives commands other names, before anybody looks one up. An empty one takes the command away. The error is for the operator.
pub fn rename(lines: &[(String, String)]) -> Result<(), String> {
    if lines.is_empty() {
        return Ok(());
    }
    let _ = RENAMED.set(renamed(lines)?);
    Ok(())
}

fn renamed(lines: &[(String, String)]) -> Result<Renamed, String> {
    let mut names: Renamed = all()
        .map(|command| (command.name.as_bytes().to_vec(), command))
        .collect();
    for (old, new) in lines {
        let command = names
            .remove(old.to_ascii_lowercase().as_bytes())
            .ok_or_else(|| format!("rename-command {old}: No such command in rename-command"))?;
        if new.is_empty() {
            continue;
        }
        let taken = names.insert(new.to_ascii_lowercase().into_bytes(), command);
        if taken.is_some() {
            return Err(format!(
                "rename-command {old} {new}: Target command name already exists"
            ));
        }
    }
    Ok(names)
}

/// The commands that clients can give.
pub fn listed() -> impl Iterator<Item = &'static Command> {
    let is_there = |command: &&Command| match RENAMED.get() {
        None => true,
        Some(renamed) => renamed.values().any(|known| std::ptr::eq(*known, *command)),
    };
    all().filter(is_there)
}

/// Every command.
pub fn all() -> impl Iterator<Item = &'static Command> {
    FAMILIES.iter().flat_map(|family| family.iter())
}

/// The command that goes by this name, in any case.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    match RENAMED.get() {
        None => own(name),
        Some(renamed) => renamed.get(&name.to_ascii_lowercase()).copied(),
    }
}

/// The command whose own name this is, in any case.
#[inline]
pub fn own(name: &[u8]) -> Option<&'static Command> {
    let mut lower = [0; NAME_BYTES_MAX];
    let lower = lower.get_mut(..name.len())?;
    for (to, from) in lower.iter_mut().zip(name) {
        *to = from.to_ascii_lowercase();
    }
    BY_NAME.get(&*lower).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_goes_by_its_new_name_alone_or_is_gone() {
        let line = |old: &str, new: &str| (old.to_owned(), new.to_owned());
        let long = "b840fc02d524045429941cc15f59e41cb7be6c52";
        let names = renamed(&[
            line("CONFIG", long),
            line("flushdb", ""),
            line("GET", "Set2"),
        ])
        .expect("they are there");
        let name = |word: &str| names.get(word.as_bytes()).map(|command| command.name);
        for (word, wanted) in [
            (long, Some("config")),
            ("config", None),
            ("flushdb", None),
            ("set2", Some("get")),
            ("set", Some("set")),
        ] {
            assert_eq!(name(word), wanted, "{word}");
        }
        for (lines, error) in [
            (vec![line("nosuch", "x")], "No such command"),
            (vec![line("get", "set")], "already exists"),
        ] {
            let told = renamed(&lines).err().expect(error);
            assert!(told.contains(error), "{told}");
        }
    }

    #[test]
    fn names_are_lower_case_unique_and_short() {
        let mut seen = std::collections::HashSet::new();
        for command in all() {
            assert_eq!(command.name, command.name.to_ascii_lowercase());
            assert!(command.name.len() <= NAME_BYTES_MAX, "{}", command.name);
            assert!(seen.insert(command.name), "{} twice", command.name);
            assert!(
                find(command.name.to_ascii_uppercase().as_bytes()).is_some(),
                "{}",
                command.name
            );
        }
    }
}
