//! What a dump file holds, flattened so that a model can be compared with it.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use dfsnap_formats::dfs::manifest::{Manifest, Sums};
use dfsnap_formats::dfs::reader::DfsReader;
use dfsnap_formats::digest::{DatasetDigest, ScoreForm, key_digest};
use dfsnap_formats::rdb::decode::DecodeLimits;
use dfsnap_formats::rdb::reader::{Options, RdbReader, Record};
use dfsnap_formats::value::{HashField, HashValue, Value, list_elements};

/// A value, or a part of a collection, as a model knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    pub text: String,
    pub expire_at_ms: Option<i64>,
}

/// A key of a dump.
pub struct Key {
    pub db: u32,
    pub key: Vec<u8>,
    pub expire_at_ms: Option<i64>,
    pub value: Value,
}

/// A whole dump.
#[derive(Default)]
pub struct Dump {
    pub keys: Vec<Key>,
    pub aux: BTreeMap<String, String>,
}

impl Dump {
    /// Reads a file, or the set whose files' names start with `path`; an error tells what a person would be told. A key that is there
    /// twice is an error.
    pub fn read(path: &Path) -> Result<Dump, String> {
        let manifest = format!("{}-manifest.json", path.display());
        if let Ok(text) = std::fs::read(manifest) {
            return Dump::read_set(path, &text);
        }
        let file = std::fs::File::open(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Dump::parse(std::io::BufReader::new(file))
    }

    fn read_set(base: &Path, manifest: &[u8]) -> Result<Dump, String> {
        let manifest = Manifest::parse(manifest).map_err(|error| error.to_string())?;
        let (mut dump, mut names) = (Dump::default(), HashSet::new());
        for file in &manifest.files {
            let path = base.with_file_name(&file.name);
            let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            if Sums::of(&bytes, manifest.block_bytes) != file.sums {
                return Err(format!("{}: not as in the manifest", path.display()));
            }
            let mut reader = DfsReader::new(&bytes[..], Default::default());
            while let Some(placed) = reader.next().map_err(|error| error.to_string())? {
                dump.take(placed.record, &mut names)?;
            }
        }
        Ok(dump)
    }

    pub fn parse(source: impl std::io::Read) -> Result<Dump, String> {
        let mut reader = RdbReader::new(source, Options::default());
        let (mut dump, mut names) = (Dump::default(), HashSet::new());
        while let Some(record) = reader.next().map_err(|error| error.to_string())? {
            dump.take(record, &mut names)?;
        }
        Ok(dump)
    }

    fn take(
        &mut self,
        record: Record<'_>,
        names: &mut HashSet<(u32, Vec<u8>)>,
    ) -> Result<(), String> {
        match record {
            Record::Aux { name, value } => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                self.aux.insert(text(&name), text(&value));
            }
            Record::Key(key) => {
                let value = key.decode(&DecodeLimits::default());
                let value = value.map_err(|error| error.to_string())?;
                if !names.insert((key.db, key.key.to_vec())) {
                    return Err(format!("key {:?} twice", String::from_utf8_lossy(key.key)));
                }
                if let Some(value) = value {
                    self.keys.push(Key {
                        db: key.db,
                        key: key.key.to_vec(),
                        expire_at_ms: key.attributes.expire_at_ms,
                        value,
                    });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Leaves out what a server drops as expired when it loads at this time. The answer tells whether there was any.
    pub fn expire(&mut self, now_ms: i64) -> bool {
        let is_alive = |at_ms: Option<i64>| at_ms.is_none_or(|at_ms| at_ms > now_ms);
        let before = self.keys.len();
        let mut has_expired = false;
        self.keys.retain_mut(|key| {
            if let Value::Hash(hash) = &mut key.value
                && hash.fields().any(|field| !is_alive(field.expire_at_ms))
            {
                has_expired = true;
                let fields = hash.fields().filter(|field| is_alive(field.expire_at_ms));
                let fields = fields.map(|field| HashField {
                    field: field.field.to_vec(),
                    value: field.value.to_vec(),
                    expire_at_ms: field.expire_at_ms,
                });
                *hash = HashValue::Fields(fields.collect());
                if hash.is_empty() {
                    return false;
                }
            }
            is_alive(key.expire_at_ms)
        });
        has_expired || self.keys.len() < before
    }

    pub fn digest(&self, form: ScoreForm) -> String {
        let mut dataset = DatasetDigest::default();
        for key in &self.keys {
            let expires = key.expire_at_ms.is_some();
            dataset.add(key.db, key_digest(&key.key, &key.value, expires, form));
        }
        dataset.finish().to_string()
    }

    /// Every string, field, member and element under a name of its own: the names are those of [`part`].
    pub fn cells(&self) -> BTreeMap<String, Cell> {
        let mut cells = BTreeMap::new();
        for key in &self.keys {
            let name = format!("{}:{}", key.db, String::from_utf8_lossy(&key.key));
            let mut put = |name: String, text: &[u8]| {
                let text = String::from_utf8_lossy(text).into_owned();
                let expire_at_ms = key.expire_at_ms;
                cells.insert(name, Cell { text, expire_at_ms });
            };
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            match &key.value {
                Value::String(bytes) => put(name, bytes),
                Value::Hash(hash) => {
                    for field in hash.fields() {
                        let part = part(&name, &text(field.field.to_vec()));
                        put(part, &field.value.to_vec());
                    }
                }
                Value::List(nodes) => {
                    for (i, element) in list_elements(nodes).enumerate() {
                        put(part(&name, &i.to_string()), &element.to_vec());
                    }
                }
                Value::Set(set) => {
                    for member in set.members() {
                        put(part(&name, &text(member.to_vec())), b"");
                    }
                }
                Value::ZSet(zset) => {
                    for (member, score) in zset.members() {
                        let part = part(&name, &text(member.to_vec()));
                        put(part, score.to_string().as_bytes());
                    }
                }
                Value::Stream(_) | Value::Module(_) | Value::Json(_) | Value::Sketch(_) => {
                    put(name, b"?");
                }
            }
        }
        cells
    }
}

/// The name of a field, a member or an element (by index) of the key `db:key`.
pub fn part(name: &str, part: &str) -> String {
    format!("{name}\0{part}")
}
