//! What a dump file holds, flattened so that a model can be compared with it.

use std::collections::BTreeMap;
use std::path::Path;

use dfsnap_formats::digest::{DatasetDigest, ScoreForm, key_digest};
use dfsnap_formats::rdb::Flavor;
use dfsnap_formats::rdb::decode::{DecodeLimits, decode};
use dfsnap_formats::rdb::reader::{Options, RdbReader, Record};
use dfsnap_formats::value::Value;

/// A key of a dump.
pub struct Key {
    pub db: u32,
    pub key: Vec<u8>,
    pub expire_at_ms: Option<i64>,
    pub value: Value,
}

/// A whole dump.
pub struct Dump {
    pub keys: Vec<Key>,
    pub aux: BTreeMap<String, String>,
}

impl Dump {
    /// Reads a file; an error tells what a person would be told. A key that is there twice is an error.
    pub fn read(path: &Path) -> Result<Dump, String> {
        let file = std::fs::File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Dump::parse(std::io::BufReader::new(file))
    }

    pub fn parse(source: impl std::io::Read) -> Result<Dump, String> {
        let mut reader = RdbReader::new(source, Options::default());
        let limits = DecodeLimits::default();
        let mut names = std::collections::HashSet::new();
        let mut dump = Dump {
            keys: Vec::new(),
            aux: BTreeMap::new(),
        };
        let mut flavor = Flavor::Redis;
        while let Some(record) = reader.next().map_err(|error| error.to_string())? {
            match record {
                Record::Header(header) => flavor = header.flavor,
                Record::Aux { name, value } => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    dump.aux.insert(text(&name), text(&value));
                }
                Record::Key(key) => {
                    let value = decode(flavor, key.type_code, key.value, &limits)
                        .map_err(|damage| key.damaged(damage).to_string())?;
                    if !names.insert((key.db, key.key.to_vec())) {
                        return Err(format!("key {:?} twice", String::from_utf8_lossy(key.key)));
                    }
                    let Some(value) = value else { continue };
                    dump.keys.push(Key {
                        db: key.db,
                        key: key.key.to_vec(),
                        expire_at_ms: key.expire_at_ms,
                        value,
                    });
                }
                _ => {}
            }
        }
        Ok(dump)
    }

    pub fn digest(&self, form: ScoreForm) -> String {
        let mut dataset = DatasetDigest::default();
        for key in &self.keys {
            let expires = key.expire_at_ms.is_some();
            dataset.add(key.db, key_digest(&key.key, &key.value, expires, form));
        }
        dataset.finish().to_string()
    }
}
