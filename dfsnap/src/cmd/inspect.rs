//! `dfsnap inspect`: what a dump contains.
//!
//! One pass over the records; values are not decoded. Everything kept is bounded: databases, types, a number of aux
//! names and of biggest keys.

use crate::cli::InspectArgs;
use crate::report::{self, Failure, Outcome};
use dfsnap_formats::rdb::reader::{KeyRecord, ModuleId, Options, RdbReader, Record};
use dfsnap_formats::rdb::{Flavor, type_code};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::Read;
use std::path::Path;

/// Names beyond this are counted only: some writers put one before every key.
const AUX_NAMES_MAX: usize = 64;
/// Longest aux value that is kept.
const AUX_VALUE_MAX: usize = 256;
/// Modules beyond this are summed up under one name.
const TYPES_MAX: usize = 1024;
/// Databases beyond this are summed up under the last.
const DATABASES_MAX: usize = 65_536;

#[derive(Debug, Default, Serialize)]
struct Report {
    file: String,
    /// `REDIS` or `VALKEY`.
    format: &'static str,
    version: u16,
    /// Name and version of the server that wrote it, as far as it says so.
    writer: Option<String>,
    /// Bytes of the dump itself.
    bytes: u64,
    /// Bytes behind it, as of an append-only file.
    bytes_after: u64,
    /// `good`, `none` (a zero is stored) or `absent` (before version 5).
    checksum: &'static str,
    aux: BTreeMap<String, Aux>,
    databases: Vec<Database>,
    types: Vec<Type>,
    expiry: Expiry,
    /// Keys with a stored access time or counter.
    idle: u64,
    freq: u64,
    functions: u64,
    module_aux: BTreeMap<String, u64>,
    biggest: Vec<Big>,
}

#[derive(Debug, Default, Serialize)]
struct Aux {
    /// The last one.
    value: String,
    times: u64,
}

#[derive(Debug, Default, Serialize)]
struct Database {
    db: u32,
    keys: u64,
    expires: u64,
}

/// Keys of one type in one encoding.
#[derive(Debug, Default, Serialize)]
struct Type {
    #[serde(rename = "type")]
    kind: String,
    encoding: String,
    code: u8,
    keys: u64,
    expires: u64,
    /// As stored: value and key.
    bytes: u64,
}

/// How long keys live from the time asked for.
#[derive(Debug, Default, Serialize)]
struct Expiry {
    at_ms: i64,
    never: u64,
    expired: u64,
    within_hour: u64,
    within_day: u64,
    within_week: u64,
    within_30_days: u64,
    within_year: u64,
    later: u64,
}

#[derive(Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Big {
    bytes: u64,
    db: u32,
    key: String,
    #[serde(rename = "type")]
    kind: String,
}

pub fn run(args: &InspectArgs) -> Result<Outcome, Failure> {
    let reader = RdbReader::new(report::open(&args.file)?, Options::default());
    let at_ms = args.at.unwrap_or_else(report::now_ms);
    let report = inspect(reader, &args.file, args.top, at_ms)?;
    let text = match args.json {
        true => report::json(&report),
        false => report.text(),
    };
    Ok(Outcome {
        text,
        finding: false,
    })
}

fn inspect(
    mut reader: RdbReader<impl Read>,
    file: &Path,
    top: usize,
    at_ms: i64,
) -> Result<Report, Failure> {
    let mut report = Report {
        file: file.display().to_string(),
        ..Report::default()
    };
    report.expiry.at_ms = at_ms;
    let mut tally = Tally {
        top,
        ..Tally::default()
    };
    let mut has_crc = false;
    while let Some(record) = reader.next().map_err(|e| Failure::read(file, &e))? {
        match record {
            Record::Header(header) => {
                report.version = header.version;
                report.format = match header.flavor {
                    Flavor::Redis | Flavor::Dragonfly => "REDIS",
                    Flavor::Valkey => "VALKEY",
                };
                has_crc = header.has_crc();
            }
            Record::Aux { name, value } => report.take_aux(&name, &value),
            Record::Function { .. } | Record::FunctionPreGa { .. } => report.functions += 1,
            Record::ModuleAux { module, .. } if report.module_aux.len() < TYPES_MAX => {
                *report.module_aux.entry(module.name()).or_default() += 1;
            }
            Record::Key(key) => {
                report.expiry.take(key.attributes.expire_at_ms);
                report.idle += u64::from(key.attributes.idle_s.is_some());
                report.freq += u64::from(key.attributes.freq.is_some());
                tally.take(&key);
            }
            Record::End(end) => {
                report.bytes = end.bytes;
                report.checksum = match (has_crc, end.crc) {
                    (false, _) => "absent",
                    (true, None) => "none",
                    (true, Some(_)) => "good",
                };
            }
            _ => {}
        }
    }
    report.bytes_after = bytes_after(reader, file)?;
    tally.finish(&mut report);
    Ok(report)
}

fn bytes_after(reader: RdbReader<impl Read>, file: &Path) -> Result<u64, Failure> {
    let (ahead, mut source) = reader.into_parts();
    let rest = std::io::copy(&mut source, &mut std::io::sink()).map_err(|error| Failure {
        message: format!("{}: behind the dump: {error}", file.display()),
        advice: "read the file again, or copy it from its source".to_owned(),
    })?;
    Ok(ahead.len() as u64 + rest)
}

/// Sums over keys.
#[derive(Default)]
struct Tally {
    databases: BTreeMap<u32, Database>,
    /// By type code and, where there is one, by module id.
    types: BTreeMap<(u8, Option<u64>), Type>,
    top: usize,
    biggest: BinaryHeap<Reverse<Big>>,
}

impl Tally {
    fn take(&mut self, key: &KeyRecord<'_>) {
        let expires = u64::from(key.attributes.expire_at_ms.is_some());
        let bytes = (key.key.len() + key.value.len()) as u64;
        let db = match self.databases.len() < DATABASES_MAX {
            true => key.db,
            false => self
                .databases
                .range(..=key.db)
                .next_back()
                .map_or(0, |(db, _)| *db),
        };
        let database = self.databases.entry(db).or_insert(Database {
            db,
            ..Database::default()
        });
        database.keys += 1;
        database.expires += expires;

        let module = module_of(key).filter(|_| self.types.len() < TYPES_MAX);
        let module = module.map(|id| id.0);
        let sum = self
            .types
            .entry((key.type_code, module))
            .or_insert_with(|| {
                let (kind, encoding) = names(key);
                Type {
                    kind,
                    encoding,
                    code: key.type_code,
                    ..Type::default()
                }
            });
        sum.keys += 1;
        sum.expires += expires;
        sum.bytes += bytes;

        if self.top == 0 {
            return;
        }
        let full = self.biggest.len() >= self.top;
        if full
            && self
                .biggest
                .peek()
                .is_some_and(|least| least.0.bytes >= bytes)
        {
            return;
        }
        if full {
            self.biggest.pop();
        }
        self.biggest.push(Reverse(Big {
            bytes,
            db: key.db,
            key: report::key(key.key),
            kind: sum.kind.clone(),
        }));
    }

    fn finish(self, report: &mut Report) {
        report.databases = self.databases.into_values().collect();
        report.types = self.types.into_values().collect();
        report.types.sort_by_key(|sum| Reverse(sum.bytes));
        report.biggest = self.biggest.into_iter().map(|big| big.0).collect();
        report.biggest.sort_by(|a, b| {
            b.bytes
                .cmp(&a.bytes)
                .then_with(|| (a.db, &a.key).cmp(&(b.db, &b.key)))
        });
    }
}

/// The id at the start of a module's value.
fn module_of(key: &KeyRecord<'_>) -> Option<ModuleId> {
    use dfsnap_formats::rdb::length::{Length, Prefix, read};
    match (key.type_code, read(key.value)) {
        (type_code::MODULE_2, Prefix::Whole(Length::Plain(id), _)) => Some(ModuleId(id)),
        _ => None,
    }
}

/// Type and encoding: `hash` and `listpack`, `module` and `ReJSON-RL`.
fn names(key: &KeyRecord<'_>) -> (String, String) {
    if let Some(module) = module_of(key) {
        return ("module".to_owned(), module.name());
    }
    let name = type_code::name(key.type_code);
    let (kind, encoding) = match name.split_once(", ") {
        Some(parts) => parts,
        None => match key.type_code {
            type_code::ZSET_2 => ("zset", "members, binary scores"),
            type_code::ZSET => ("zset", "members, text scores"),
            type_code::STREAM => ("stream", "version 1"),
            type_code::STREAM_2 => ("stream", "version 2"),
            type_code::STREAM_3 => ("stream", "version 3"),
            type_code::HASH_METADATA => ("hash", "fields with expiry"),
            type_code::HASH => ("hash", "fields"),
            type_code::SET => ("set", "members"),
            type_code::LIST => ("list", "elements"),
            _ => (name, "plain"),
        },
    };
    (kind.to_owned(), encoding.to_owned())
}

impl Expiry {
    fn take(&mut self, expire_at_ms: Option<i64>) {
        const HOUR: i64 = 3_600_000;
        const DAY: i64 = 24 * HOUR;
        let Some(at_ms) = expire_at_ms else {
            self.never += 1;
            return;
        };
        let left = at_ms.saturating_sub(self.at_ms);
        let bucket = match () {
            _ if left <= 0 => &mut self.expired,
            _ if left <= HOUR => &mut self.within_hour,
            _ if left <= DAY => &mut self.within_day,
            _ if left <= 7 * DAY => &mut self.within_week,
            _ if left <= 30 * DAY => &mut self.within_30_days,
            _ if left <= 365 * DAY => &mut self.within_year,
            _ => &mut self.later,
        };
        *bucket += 1;
    }

    fn rows(&self) -> Vec<Vec<String>> {
        [
            ("never", self.never),
            ("expired", self.expired),
            ("within an hour", self.within_hour),
            ("within a day", self.within_day),
            ("within a week", self.within_week),
            ("within 30 days", self.within_30_days),
            ("within a year", self.within_year),
            ("later", self.later),
        ]
        .into_iter()
        .filter(|(_, keys)| *keys > 0)
        .map(|(name, keys)| vec![name.to_owned(), keys.to_string()])
        .collect()
    }
}

impl Report {
    fn take_aux(&mut self, name: &[u8], value: &[u8]) {
        let shown = report::key(&value[..value.len().min(AUX_VALUE_MAX)]);
        let server = match name {
            b"redis-ver" => Some("Redis"),
            b"valkey-ver" => Some("Valkey"),
            _ => None,
        };
        if let Some(server) = server {
            self.writer = Some(format!("{server} {shown}"));
        }
        let name = report::key(name);
        if self.aux.len() < AUX_NAMES_MAX || self.aux.contains_key(&name) {
            let aux = self.aux.entry(name).or_default();
            aux.value = shown;
            aux.times += 1;
        }
    }

    fn text(&self) -> String {
        let keys: u64 = self.databases.iter().map(|db| db.keys).sum();
        let mut out = format!("{}\n", self.file);
        let mut line = |name: &str, value: String| out.push_str(&format!("  {name:<10} {value}\n"));
        line(
            "format",
            format!("RDB, {} version {}", self.format, self.version),
        );
        line(
            "writer",
            self.writer.clone().unwrap_or("not said".to_owned()),
        );
        line(
            "size",
            format!("{} ({} bytes)", report::bytes(self.bytes), self.bytes),
        );
        if self.bytes_after > 0 {
            line(
                "behind it",
                format!("{} bytes that are no part of the dump", self.bytes_after),
            );
        }
        line("checksum", self.checksum.to_owned());
        line("keys", keys.to_string());
        if self.functions > 0 {
            line("functions", format!("{} libraries", self.functions));
        }
        for (module, times) in &self.module_aux {
            line("module aux", format!("{module}, {times} times"));
        }
        for (name, aux) in &self.aux {
            let times = if aux.times > 1 {
                format!(" (last of {})", aux.times)
            } else {
                String::new()
            };
            line("aux", format!("{name} = {}{times}", aux.value));
        }

        let mut section = |title: &str, heading: &[&str], rows: Vec<Vec<String>>| {
            if !rows.is_empty() {
                out.push_str(&format!("\n{title}\n{}", report::table(heading, &rows)));
            }
        };
        let databases = self.databases.iter();
        let rows = databases.map(|db| {
            vec![
                db.db.to_string(),
                db.keys.to_string(),
                db.expires.to_string(),
            ]
        });
        section("Databases", &["db", "keys", "with expiry"], rows.collect());
        let rows = self.types.iter().map(|sum| {
            vec![
                format!("{}, {}", sum.kind, sum.encoding),
                sum.keys.to_string(),
                sum.expires.to_string(),
                report::bytes(sum.bytes),
            ]
        });
        section(
            "Types",
            &["stored as", "keys", "with expiry", "size"],
            rows.collect(),
        );
        section("Expiry", &["keys that expire", "keys"], self.expiry.rows());
        let rows = self.biggest.iter().map(|big| {
            vec![
                big.key.clone(),
                big.db.to_string(),
                big.kind.clone(),
                report::bytes(big.bytes),
            ]
        });
        section(
            "Biggest keys",
            &["key", "db", "type", "size"],
            rows.collect(),
        );
        out
    }
}
