//! All commands by name.

use std::collections::HashMap;
use std::sync::LazyLock;

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

/// Every command.
pub fn all() -> impl Iterator<Item = &'static Command> {
    FAMILIES.iter().flat_map(|family| family.iter())
}

/// The command of this name, in any case.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
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
