//! What a reader finds in an RDB file: its records, its end, and why it cannot be read on.

use super::decode::{DecodeLimits, decode};
use super::{Flavor, VERSION_CRC, VERSION_VALKEY, type_code};
use crate::error::{Damage, Shown};
use crate::value::Value;
use std::borrow::Cow;
use std::io;

/// The first nine bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub flavor: Flavor,
    pub version: u16,
}

impl Header {
    pub fn has_crc(self) -> bool {
        self.version >= VERSION_CRC
    }
}

/// How a file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The checksum in the file. None: the version has none, or the writer computed none (zero).
    pub crc: Option<u64>,
    /// Bytes of the file, from the magic to the checksum.
    pub bytes: u64,
}

/// One record.
#[derive(Debug, Clone, PartialEq)]
pub enum Record<'a> {
    Header(Header),
    Aux {
        name: Cow<'a, [u8]>,
        value: Cow<'a, [u8]>,
    },
    SelectDb(u32),
    /// A hint for the database selected last; it may be wrong.
    ResizeDb {
        keys: u64,
        expires: u64,
    },
    /// A hint before the keys of a slot; it may be wrong.
    SlotInfo {
        slot: u64,
        keys: u64,
        expires: u64,
    },
    /// Valkey 80: slots on their way in.
    SlotImport {
        job: Cow<'a, [u8]>,
        slots: Vec<(u64, u64)>,
    },
    Function {
        code: Cow<'a, [u8]>,
    },
    /// A function library as the release candidates of 7.0 wrote it.
    FunctionPreGa {
        name: Cow<'a, [u8]>,
        engine: Cow<'a, [u8]>,
        description: Option<Cow<'a, [u8]>>,
        code: Cow<'a, [u8]>,
    },
    /// Data of a module beside the keys; `raw` is all of it, from the id on.
    ModuleAux {
        module: ModuleId,
        when: u64,
        raw: &'a [u8],
    },
    /// Redis Enterprise: opcode 107 or 121 with its number.
    Enterprise {
        code: u8,
        number: u64,
    },
    Key(KeyRecord<'a>),
    End(End),
}

/// A key with what stood before it, its value as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyRecord<'a> {
    pub db: u32,
    pub key: &'a [u8],
    pub attributes: Attributes,
    /// Whose numbering `type_code` follows. Old documents of Dragonfly, stored under 20, come as `type_code::JSON`.
    pub flavor: Flavor,
    pub type_code: u8,
    /// Offset of the type byte in the file, or in what was compressed or in pieces: see `dfs::reader::Place`.
    pub offset: u64,
    /// Offset of the value, counted likewise.
    pub value_offset: u64,
    pub value: &'a [u8],
}

/// What stands before a key and says something about it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Absolute Unix milliseconds; zero and less are long past.
    pub expire_at_ms: Option<i64>,
    /// Seconds since the last access.
    pub idle_s: Option<u64>,
    /// LFU counter.
    pub freq: Option<u8>,
    /// Dragonfly: exempt from eviction.
    pub sticky: bool,
    /// Dragonfly: what a memcached client stored beside the value.
    pub memcached_flags: Option<u32>,
    /// Redis from version 13 on: classes of metadata that modules attached; they are passed over.
    pub meta_classes: u32,
}

impl KeyRecord<'_> {
    /// The value as data. None: an empty collection, which servers skip.
    pub fn decode(&self, limits: &DecodeLimits) -> Result<Option<Value>, RdbError> {
        decode(self.flavor, self.type_code, self.value, limits)
            .map_err(|damage| self.damaged(damage))
    }

    /// The error for this key when its value turns out to be damaged; `damage` counts from the start of the value.
    pub fn damaged(&self, damage: Damage) -> RdbError {
        RdbError::Value {
            db: self.db,
            key: self.key.to_vec(),
            type_code: self.type_code,
            damage: damage.moved(self.value_offset),
        }
    }
}

/// Name and encoding version of a module type, packed into 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModuleId(pub u64);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl ModuleId {
    /// RedisJSON, the version that stores a document as one text.
    pub const REJSON_3: ModuleId = ModuleId::new(b"ReJSON-RL", 3);

    /// The id of the module type with these nine characters; others than letters, digits, `-` and `_` count as `A`.
    pub const fn new(name: &[u8; 9], encoding_version: u16) -> Self {
        let mut id = 0;
        let mut at = 0;
        while at < name.len() {
            let mut letter = 0;
            let mut index = 0;
            while index < ALPHABET.len() {
                if ALPHABET[index] == name[at] {
                    letter = index as u64;
                }
                index += 1;
            }
            id = id << 6 | letter;
            at += 1;
        }
        ModuleId(id << 10 | (encoding_version as u64 & 0x3FF))
    }

    /// The nine characters.
    pub fn name(self) -> String {
        (0..9)
            .map(|i| char::from(ALPHABET[(self.0 >> (58 - 6 * i)) as usize & 63]))
            .collect()
    }

    /// The version of the module's own encoding.
    pub fn encoding_version(self) -> u16 {
        (self.0 & 0x3FF) as u16
    }
}

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum RdbError {
    #[error("offset {offset}: reading failed: {source}")]
    Io { offset: u64, source: io::Error },
    #[error(
        "offset 0: no RDB file: wanted REDIS or VALKEY and a version, found {}",
        Shown(found)
    )]
    Magic { found: Vec<u8> },
    #[error(
        "offset {offset}: version {version}: wanted 1 to {newest} (REDIS) or {VERSION_VALKEY} (VALKEY)"
    )]
    Version {
        offset: u64,
        version: u16,
        newest: u16,
    },
    #[error(
        "offset {offset}: {code} is neither a type nor an opcode that is known; it may be newer than version {newest}"
    )]
    UnknownCode { offset: u64, code: u8, newest: u16 },
    #[error(
        "offset {offset}: key {}: value of module {module} in the form of a 4.0 release candidate (type 6), whose length is unknown",
        Shown(key)
    )]
    ModulePreGa {
        offset: u64,
        key: Vec<u8>,
        module: String,
    },
    #[error("offset {}: value of key {} ({}) in db {db}: {}: {}", damage.offset, Shown(key), type_code::name(*type_code), damage.reading, damage.problem)]
    Value {
        db: u32,
        key: Vec<u8>,
        type_code: u8,
        damage: Damage,
    },
    #[error("{0}")]
    Record(Damage),
    #[error(
        "offset {offset}: checksum: {computed:016x} computed over the bytes before, but {stored:016x} is stored"
    )]
    Checksum {
        offset: u64,
        stored: u64,
        computed: u64,
    },
    #[error("offset {offset}: the reader failed here before")]
    Failed { offset: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_id_spells_its_name() {
        let id = ModuleId::REJSON_3;
        assert_eq!(
            (id.name().as_str(), id.encoding_version()),
            ("ReJSON-RL", 3)
        );
    }
}
