//! What a dump is written for: a version of the format, or the product that is to load it.
//!
//! Rows say since which version something is known; the encoder and the list of losses ask here. A new version is new
//! rows.

use super::{Flavor, VERSION_DEFAULT, VERSION_VALKEY};

/// A version of the format that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    flavor: Flavor,
    version: u16,
}

/// Oldest version that is written: Redis 2.6.
pub const VERSION_WRITTEN_MIN: u16 = 6;
/// Newest version under the magic `REDIS` that is written: Redis 7.4 and 8.
pub const VERSION_WRITTEN_MAX: u16 = 12;

/// Products by name, and what each of them loads at most.
const PRODUCTS: [(&str, Target); 20] = [
    ("redis-2.6", Target::redis(6)),
    ("redis-2.8", Target::redis(6)),
    ("redis-3.0", Target::redis(6)),
    ("redis-3.2", Target::redis(7)),
    ("redis-4.0", Target::redis(8)),
    ("redis-5.0", Target::redis(9)),
    ("redis-6.0", Target::redis(9)),
    ("redis-6.2", Target::redis(9)),
    ("redis-7.0", Target::redis(10)),
    ("redis-7.2", Target::redis(11)),
    ("redis-7.4", Target::redis(12)),
    ("redis-8.0", Target::redis(12)),
    ("redis-8.2", Target::redis(12)),
    ("redis-8.4", Target::redis(12)),
    ("keydb-6", Target::redis(9)),
    ("valkey-7.2", Target::redis(11)),
    ("valkey-8.0", Target::redis(11)),
    ("valkey-8.1", Target::redis(11)),
    ("valkey-9.0", Target::VALKEY_9),
    ("dragonfly", Target::DRAGONFLY),
];

/// Something that not every version can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Records about the file and its writer.
    Aux,
    /// Lists as nodes of ziplists.
    Quicklist,
    /// Scores as eight bytes instead of text.
    BinaryScores,
    ModuleValues,
    Streams,
    /// LRU and LFU hints of keys.
    AccessHints,
    ModuleAux,
    /// Packs are listpacks; before, they are ziplists.
    Listpacks,
    /// Streams with the counters that consumer groups need for their lag.
    StreamCounters,
    Functions,
    /// Sets as listpacks.
    SetListpacks,
    /// When a consumer last got something.
    ConsumerActivity,
    FieldExpiry,
    /// Which keys belong to which slot.
    SlotInfo,
}

/// The first version under the magic `REDIS` that knows a feature.
fn first_version(feature: Feature) -> u16 {
    match feature {
        Feature::Aux | Feature::Quicklist => 7,
        Feature::BinaryScores | Feature::ModuleValues => 8,
        Feature::Streams | Feature::AccessHints | Feature::ModuleAux => 9,
        Feature::Listpacks | Feature::StreamCounters | Feature::Functions => 10,
        Feature::SetListpacks | Feature::ConsumerActivity => 11,
        Feature::FieldExpiry | Feature::SlotInfo => 12,
    }
}

impl Target {
    pub const VALKEY_9: Target = Target {
        flavor: Flavor::Valkey,
        version: VERSION_VALKEY,
    };
    /// An RDB file for Dragonfly: its magic says 9, but newer types are in it.
    pub const DRAGONFLY: Target = Target {
        flavor: Flavor::Dragonfly,
        version: 9,
    };

    const fn redis(version: u16) -> Target {
        Target {
            flavor: Flavor::Redis,
            version,
        }
    }

    /// By the version of the format: 6 to 12, or 80 for Valkey 9.
    ///
    /// ```
    /// use dfsnap_formats::rdb::target::{Feature, Target};
    /// assert!(Target::of_version(9).unwrap().knows(Feature::Streams));
    /// assert_eq!(Target::of_version(5), None);
    /// assert_eq!(Target::by_name("redis-6.2"), Target::of_version(9));
    /// assert_eq!(Target::by_name("valkey-8"), Target::of_version(11));
    /// ```
    pub fn of_version(version: u16) -> Option<Target> {
        match version {
            VERSION_WRITTEN_MIN..=VERSION_WRITTEN_MAX => Some(Target::redis(version)),
            VERSION_VALKEY => Some(Target::VALKEY_9),
            _ => None,
        }
    }

    /// By product, as in `redis-6.2`, `valkey-8` or `dragonfly`: a version that is left out in part means its first.
    pub fn by_name(name: &str) -> Option<Target> {
        let exact = PRODUCTS.iter().find(|(product, _)| *product == name);
        let begun = || {
            PRODUCTS.iter().find(|(product, _)| {
                product
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('.'))
            })
        };
        exact.or_else(begun).map(|(_, target)| *target)
    }

    /// The names that `by_name` knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PRODUCTS.iter().map(|(name, _)| *name)
    }

    pub fn flavor(self) -> Flavor {
        self.flavor
    }

    /// The number behind the magic, and in the footer of DUMP payloads.
    pub fn version(self) -> u16 {
        self.version
    }

    pub fn knows(self, feature: Feature) -> bool {
        match self.flavor {
            Flavor::Redis => self.version >= first_version(feature),
            Flavor::Valkey => true,
            Flavor::Dragonfly => !matches!(
                feature,
                Feature::SetListpacks
                    | Feature::Functions
                    | Feature::ModuleAux
                    | Feature::ModuleValues
                    | Feature::AccessHints
                    | Feature::SlotInfo
            ),
        }
    }
}

impl Default for Target {
    /// Redis 7.0: everything later reads it.
    fn default() -> Self {
        Target::redis(VERSION_DEFAULT)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.flavor {
            Flavor::Redis => write!(f, "RDB version {}", self.version),
            Flavor::Valkey => write!(f, "RDB version {} of Valkey", self.version),
            Flavor::Dragonfly => write!(f, "Dragonfly"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_versions() {
        let rows = [
            ("redis-2.6", Some(6)),
            ("redis-3", Some(6)),
            ("redis-4", Some(8)),
            ("redis-6.2", Some(9)),
            ("redis-7", Some(10)),
            ("redis-7.4", Some(12)),
            ("valkey-8", Some(11)),
            ("valkey-9", Some(80)),
            ("redis-", None),
            ("redis", None),
            ("redis-7.", None),
            ("", None),
        ];
        for (name, want) in rows {
            assert_eq!(Target::by_name(name).map(Target::version), want, "{name}");
        }
        assert!(Target::names().all(|name| Target::by_name(name).is_some()));
    }
}
