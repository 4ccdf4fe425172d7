//! Where the verbs get their data: any dump in any format, or a live server, as one sequence of records.
//!
//! `place` says what was named on the command line, `layout` what is there, `files` which files belong to it, `set` whether they do; here each
//! kind is read, filtered, and handed out. Keys come with their value as it is stored, as data, or in pieces where it is
//! large, whatever the format gives; `Key` makes of it what the verb wants.
//!
//! Invariants
//! - Memory holds one key, or a piece of one, but for append-only files, which have to be replayed.
//! - A record that does not pass the filter is not decoded.

mod files;
mod key;
pub mod layout;
mod lookup;
mod place;
pub mod progress;
mod set;

pub use files::AofFiles;
pub use key::{Key, is_empty};
pub use place::Place;

use crate::edit::Edit;
use crate::filter::Filter;
use crate::live::{self, Url};
use crate::report::Failure;
use dfsnap_formats::aof::reader::{AofReader, Options as AofOptions};
use dfsnap_formats::aof::replay::{self, Replay};
use dfsnap_formats::dataset::{Entry, Item};
use dfsnap_formats::dfs::reader::{DfsReader, Options as DfsOptions};
use dfsnap_formats::json::{JsonReader, Options as JsonOptions};
use dfsnap_formats::rdb::large::{Next, WholeBytes};
use dfsnap_formats::rdb::parts::{Duplicates, PartWalk};
use dfsnap_formats::rdb::reader::{Options, RdbReader};
use dfsnap_formats::rdb::record::{End, Header, KeyRecord, ModuleId, Record as RdbRecord};
use progress::Progress;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a source hands out.
pub enum Record<'a> {
    /// The start of a file that tells its version.
    Header(Header),
    Aux {
        name: &'a [u8],
        value: &'a [u8],
    },
    /// The code of a function library.
    Function(&'a [u8]),
    ModuleAux {
        module: ModuleId,
        when: u64,
        raw: &'a [u8],
    },
    Key(Key<'a>),
    /// The end of such a file.
    End(End),
    /// Bytes behind the end of an RDB file, if they were asked for.
    Behind(u64),
}

/// How a source is read.
#[derive(Clone, Default)]
pub struct SourceOptions {
    /// Only keys that pass it are handed out; everything else is.
    pub filter: Filter,
    /// What becomes of those keys.
    pub edit: Edit,
    /// How far members are compared with each other.
    pub duplicates: Duplicates,
    /// Results go to the terminal as they come: no progress among them.
    pub is_silent: bool,
    /// Bytes behind an RDB file are counted.
    pub counts_behind: bool,
    /// Only this key is wanted: what may have it comes first, and may come again.
    pub wanted: Option<Vec<u8>>,
    /// Collections come in pieces also where memory would hold them, which is faster for who takes their parts or stored bytes as they come.
    pub streams: bool,
}

impl SourceOptions {
    /// Up to where values come as a whole.
    fn whole_bytes(&self) -> WholeBytes {
        let single = self.filter.whole_bytes(VALUE_BYTES_MAX);
        WholeBytes {
            single,
            collection: match self.streams {
                true => self.filter.whole_bytes(STREAMED_BYTES_MIN),
                false => single,
            },
        }
    }
}

/// Values that take more than this come in pieces.
pub const VALUE_BYTES_MAX: usize = 4 << 20;

/// Smaller collections are not streamed: what they take is in a near cache.
const STREAMED_BYTES_MIN: usize = 64 << 10;

/// Bytes of a source, whatever they come from.
pub type Bytes = Box<dyn Read>;

/// A dump that can be read.
pub struct Source {
    name: String,
    kind: Kind,
    options: SourceOptions,
    progress: Progress,
}

enum Kind {
    Rdb {
        bytes: Bytes,
        len: Option<u64>,
    },
    /// The nodes of a cluster.
    Cluster(Vec<Url>),
    /// The files of a set, the summary last.
    Dfs(Vec<PathBuf>),
    Aof(AofFiles),
    Json {
        bytes: Bytes,
        len: Option<u64>,
    },
}

impl Kind {
    /// Bytes that will be read, where that is known.
    fn total_bytes(&self) -> Option<u64> {
        let sum = |paths: &[PathBuf]| {
            let sizes = paths
                .iter()
                .map(|path| path.metadata().ok().map(|meta| meta.len()));
            sizes.sum()
        };
        match self {
            Kind::Rdb { len, .. } | Kind::Json { len, .. } => *len,
            Kind::Cluster(_) => None,
            Kind::Dfs(paths) => sum(paths),
            Kind::Aof(files) => sum(&files.paths()),
        }
    }

    /// Counts what is read of a file that is already open.
    fn watch(&mut self, progress: &Progress) {
        if let Kind::Rdb { bytes, .. } | Kind::Json { bytes, .. } = self {
            *bytes = progress.watch(std::mem::replace(bytes, Box::new(std::io::empty())));
        }
    }
}

impl Source {
    /// Finds out what a place holds, and opens it.
    pub fn open(place: &Place, options: &SourceOptions) -> Result<Source, Failure> {
        let mut kind = files::open(place)?;
        let progress = Progress::new(kind.total_bytes(), options.is_silent);
        kind.watch(&progress);
        Ok(Source {
            name: place.to_string(),
            kind,
            options: options.clone(),
            progress,
        })
    }

    /// What it is, as people call it.
    pub fn format(&self) -> &'static str {
        match &self.kind {
            Kind::Rdb { .. } | Kind::Cluster(_) => "RDB",
            Kind::Dfs(_) => "DFS set",
            Kind::Aof(_) => "AOF",
            Kind::Json { .. } => "JSON",
        }
    }

    /// Gives every record to `take`, until it fails. An empty collection, which servers skip, is left out.
    pub fn for_each(
        self,
        take: &mut dyn FnMut(Record<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Source {
            name,
            kind,
            options,
            progress,
        } = self;
        let mut hand_out = HandOut {
            progress,
            counts_behind: options.counts_behind,
            whole_bytes: options.whole_bytes(),
            filter: options.filter,
            edit: options.edit,
            walk: PartWalk::new(options.duplicates),
            node: None,
            functions: BTreeSet::new(),
            take,
        };
        match kind {
            Kind::Rdb { bytes, len } => rdb(Path::new(&name), bytes, len, &mut hand_out),
            Kind::Cluster(nodes) => cluster(&nodes, &mut hand_out),
            Kind::Dfs(paths) => {
                set::check(&paths)?;
                match options.wanted {
                    None => paths.iter().try_for_each(|path| dfs(path, &mut hand_out)),
                    Some(key) => {
                        let mut order = lookup::order(&paths, &key).into_iter();
                        order.try_for_each(|stretch| dfs_stretch(&stretch, &mut hand_out))
                    }
                }
            }
            Kind::Aof(files) => aof(&files, &mut hand_out),
            Kind::Json { bytes, .. } => json(&name, bytes, &mut hand_out),
        }
    }
}

/// The way out: past the filter, to whoever asked.
struct HandOut<'t> {
    progress: Progress,
    counts_behind: bool,
    whole_bytes: WholeBytes,
    filter: Filter,
    edit: Edit,
    walk: PartWalk,
    /// Of a cluster: which node it is, and of how many.
    node: Option<(usize, usize)>,
    /// Libraries of functions that were handed out.
    functions: BTreeSet<Vec<u8>>,
    take: &'t mut dyn FnMut(Record<'_>) -> Result<(), Failure>,
}

impl HandOut<'_> {
    /// A record of an RDB file or a DFS set, its value as it is stored.
    fn record(&mut self, path: &Path, record: &RdbRecord<'_>) -> Result<(), Failure> {
        if self.is_said(record) {
            return Ok(());
        }
        match record {
            RdbRecord::Aux { name, value } => (self.take)(Record::Aux { name, value }),
            RdbRecord::Function { code } => (self.take)(Record::Function(code)),
            RdbRecord::FunctionPreGa { .. } => match Item::of_record(record, &Default::default()) {
                Ok(Some(Item::Function { code })) => (self.take)(Record::Function(&code)),
                Ok(_) => Ok(()),
                Err(error) => Err(Failure::read(path, &error)),
            },
            RdbRecord::ModuleAux { module, when, raw } => (self.take)(Record::ModuleAux {
                module: *module,
                when: *when,
                raw,
            }),
            RdbRecord::Key(key) => self.key(path, key),
            RdbRecord::Header(header) => (self.take)(Record::Header(*header)),
            RdbRecord::End(end) => (self.take)(Record::End(*end)),
            RdbRecord::SelectDb(_)
            | RdbRecord::ResizeDb { .. }
            | RdbRecord::SlotInfo { .. }
            | RdbRecord::SlotImport { .. }
            | RdbRecord::Enterprise { .. } => Ok(()),
        }
    }

    /// What each node of a cluster says, and is handed out once.
    fn is_said(&mut self, record: &RdbRecord<'_>) -> bool {
        let Some((at, count)) = self.node else {
            return false;
        };
        match record {
            RdbRecord::Header(_) | RdbRecord::Aux { .. } | RdbRecord::ModuleAux { .. } => at > 0,
            RdbRecord::Function { code } => !self.functions.insert(code.to_vec()),
            RdbRecord::End(_) => at + 1 < count,
            _ => false,
        }
    }

    fn key(&mut self, path: &Path, record: &KeyRecord<'_>) -> Result<(), Failure> {
        if !self.filter.passes_record(record) || is_empty(record) {
            return Ok(());
        }
        let HandOut {
            edit, walk, take, ..
        } = self;
        match edit.is_idle() {
            true => take(Record::Key(Key::stored(path, record, walk))),
            false => edit.record(record, |record| {
                take(Record::Key(Key::stored(path, record, walk)))
            }),
        }
    }

    fn entry(&mut self, name: &str, entry: &Entry) -> Result<(), Failure> {
        if !self.filter.passes_entry(entry) {
            return Ok(());
        }
        let path = Path::new(name);
        match self.edit.is_idle() {
            true => (self.take)(Record::Key(Key::data(path, entry))),
            false => {
                let edited = self.edit.entry(entry)?;
                (self.take)(Record::Key(Key::data(path, &edited)))
            }
        }
    }

    fn item(&mut self, name: &str, item: &Item) -> Result<(), Failure> {
        match item {
            Item::Aux { name, value } => (self.take)(Record::Aux { name, value }),
            Item::Function { code } => (self.take)(Record::Function(code)),
            Item::ModuleAux { module, when, raw } => (self.take)(Record::ModuleAux {
                module: *module,
                when: *when,
                raw,
            }),
            Item::Entry(entry) => self.entry(name, entry),
        }
    }
}

fn rdb(
    path: &Path,
    bytes: Bytes,
    len: Option<u64>,
    hand_out: &mut HandOut<'_>,
) -> Result<(), Failure> {
    let options = Options {
        source_bytes: len,
        ..Options::default()
    };
    let mut reader = RdbReader::new(bytes, options);
    let failure = |error| Failure::read(path, &error);
    let mut name = Vec::new();
    loop {
        let next = reader.next_up_to(hand_out.whole_bytes);
        let large = match next.map_err(failure)? {
            None => break,
            Some(Next::Record(record)) => {
                hand_out.record(path, &record)?;
                continue;
            }
            Some(Next::Large(key)) => {
                if !hand_out.filter.passes_large(&key) {
                    continue;
                }
                name.clear();
                name.extend_from_slice(key.key);
                KeyRecord {
                    db: key.db,
                    key: &name,
                    attributes: key.attributes,
                    flavor: key.flavor,
                    type_code: key.type_code,
                    offset: key.offset,
                    value_offset: key.value_offset,
                    value: &[],
                }
            }
        };
        let HandOut {
            edit, walk, take, ..
        } = &mut *hand_out;
        edit.record(&large, |large| {
            take(Record::Key(Key::large(path, large, &mut reader, walk)))
        })?;
    }
    if hand_out.counts_behind {
        let count = behind(reader, path)?;
        (hand_out.take)(Record::Behind(count))?;
    }
    Ok(())
}

/// One node after another.
fn cluster(nodes: &[Url], hand_out: &mut HandOut<'_>) -> Result<(), Failure> {
    for (at, node) in nodes.iter().enumerate() {
        hand_out.node = Some((at, nodes.len()));
        let bytes = Box::new(live::snapshot::snapshot(node)?);
        let bytes = hand_out.progress.watch(bytes);
        rdb(Path::new(&node.to_string()), bytes, None, hand_out)?;
    }
    Ok(())
}

fn behind(reader: RdbReader<Bytes>, path: &Path) -> Result<u64, Failure> {
    let (ahead, mut bytes) = reader.into_parts();
    let rest = std::io::copy(&mut bytes, &mut std::io::sink()).map_err(|error| Failure {
        message: format!("{}: behind the dump: {error}", path.display()),
        advice: "read the file again, or copy it from its source".to_owned(),
    })?;
    Ok(ahead.len() as u64 + rest)
}

fn dfs(path: &Path, hand_out: &mut HandOut<'_>) -> Result<(), Failure> {
    let (bytes, len) = files::open_file(path)?;
    dfs_bytes(path, bytes, len, hand_out)
}

fn dfs_stretch(stretch: &lookup::Stretch, hand_out: &mut HandOut<'_>) -> Result<(), Failure> {
    let path = &stretch.path;
    let opened = stretch.open();
    let (bytes, len) = opened.map_err(|error| Failure::open(path, &error))?;
    dfs_bytes(path, Box::new(bytes), Some(len), hand_out)
}

fn dfs_bytes(
    path: &Path,
    bytes: Bytes,
    source_bytes: Option<u64>,
    hand_out: &mut HandOut<'_>,
) -> Result<(), Failure> {
    let bytes = hand_out.progress.watch(bytes);
    let options = DfsOptions {
        source_bytes,
        ..DfsOptions::default()
    };
    let mut reader = DfsReader::new(bytes, options);
    while let Some(placed) = reader.next().map_err(|error| Failure::dfs(path, &error))? {
        hand_out.record(path, &placed.record)?;
    }
    Ok(())
}

fn aof(files: &AofFiles, hand_out: &mut HandOut<'_>) -> Result<(), Failure> {
    let mut replay = Replay::new(replay::Options {
        now_ms: Some(crate::report::now_ms()),
        ..replay::Options::default()
    });
    for path in files.paths() {
        let (bytes, _) = files::open_file(&path)?;
        let bytes = hand_out.progress.watch(bytes);
        let mut reader = AofReader::new(bytes, AofOptions::default());
        while let Some(unit) = reader.next().map_err(|error| Failure::aof(&path, &error))? {
            files::check_end(&path, &unit, files)?;
            replay
                .unit(&unit)
                .map_err(|error| Failure::replay(&path, &error))?;
        }
    }
    let name = files.name();
    for item in replay.into_items() {
        hand_out.item(&name, &item)?;
    }
    Ok(())
}

fn json(name: &str, bytes: Bytes, hand_out: &mut HandOut<'_>) -> Result<(), Failure> {
    let mut reader = JsonReader::new(bytes, JsonOptions::default());
    while let Some(item) = reader.next().map_err(|error| Failure::json(name, &error))? {
        hand_out.item(name, &item)?;
    }
    Ok(())
}
