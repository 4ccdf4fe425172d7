//! `dfsnap verify`: is a dump sound, down to the last element?
//!
//! Damage inside a value costs only that key, and the check goes on behind it; damage in the structure ends it,
//! because no record says how long it is. Findings make exit code 1, warnings do not.

use crate::cli::VerifyArgs;
use crate::report::{self, Failure, Outcome};
use dfsnap_formats::error::Shown;
use dfsnap_formats::rdb::decode::DecodeLimits;
use dfsnap_formats::rdb::reader::{Header, KeyRecord, Options, RdbError, RdbReader, Record};
use dfsnap_formats::rdb::{Flavor, type_code};
use dfsnap_formats::value::Value;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;

#[derive(Debug, Default, Serialize)]
struct Report {
    file: String,
    sound: bool,
    /// The end was reached.
    complete: bool,
    keys: u64,
    empty_collections: u64,
    expired: u64,
    bytes_after: u64,
    findings: u64,
    warnings: u64,
    /// The first of them.
    shown_findings: Vec<String>,
    shown_warnings: Vec<String>,
    #[serde(skip)]
    limit: usize,
}

pub fn run(args: &VerifyArgs) -> Result<Outcome, Failure> {
    let reader = RdbReader::new(report::open(&args.file)?, Options::default());
    let mut report = Report {
        file: args.file.display().to_string(),
        limit: args.limit,
        ..Report::default()
    };
    let mut check = Check {
        header: reader.header(),
        report: &mut report,
        now_ms: report::now_ms(),
        seen: HashSet::new(),
        db: 0,
        databases: BTreeMap::new(),
        newest_type: None,
    };
    check
        .run(reader)
        .map_err(|error| Failure::read(&args.file, &error))?;
    check.compare_hints();
    report.sound = report.findings == 0;
    let finding = !report.sound;
    let text = match args.json {
        true => report::json(&report),
        false => report.text(),
    };
    Ok(Outcome { text, finding })
}

struct Check<'r> {
    header: Header,
    report: &'r mut Report,
    now_ms: i64,
    /// Two independent hashes of each (db, key): exact keys would take the memory of the data.
    seen: HashSet<u128>,
    db: u32,
    databases: BTreeMap<u32, Database>,
    /// Highest version that a type in the file belongs to, and the type.
    newest_type: Option<(u16, u8)>,
}

#[derive(Default)]
struct Database {
    keys: u64,
    expires: u64,
    hint: Option<(u64, u64)>,
}

impl Check<'_> {
    /// A source that fails and a file that is no dump we know end the command; damage is a finding.
    fn run(&mut self, mut reader: RdbReader<impl Read>) -> Result<(), RdbError> {
        loop {
            match reader.next() {
                Ok(None) => break,
                Ok(Some(record)) => self.record(record),
                Err(
                    error @ (RdbError::Io { .. }
                    | RdbError::Magic { .. }
                    | RdbError::Version { .. }),
                ) => return Err(error),
                Err(RdbError::Failed { .. }) => return Ok(()),
                Err(error) => {
                    self.report.complete |= matches!(error, RdbError::Checksum { .. });
                    self.report.finding(error.to_string());
                }
            }
        }
        let offset = reader.offset();
        let (ahead, mut source) = reader.into_parts();
        let rest = std::io::copy(&mut source, &mut std::io::sink())
            .map_err(|source| RdbError::Io { offset, source })?;
        self.report.bytes_after = ahead.len() as u64 + rest;
        Ok(())
    }

    fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Header(header) => self.header = header,
            Record::SelectDb(db) => self.db = db,
            Record::ResizeDb { keys, expires } => {
                let hint = &mut self.databases.entry(self.db).or_default().hint;
                *hint = Some((keys, expires));
            }
            Record::Key(key) => self.key(&key),
            Record::End(_) => self.report.complete = true,
            _ => {}
        }
    }

    fn key(&mut self, key: &KeyRecord<'_>) {
        self.report.keys += 1;
        let database = self.databases.entry(key.db).or_default();
        database.keys += 1;
        database.expires += u64::from(key.attributes.expire_at_ms.is_some());
        if key
            .attributes
            .expire_at_ms
            .is_some_and(|at_ms| at_ms <= self.now_ms)
        {
            self.report.expired += 1;
        }
        let name = Shown(key.key);
        if !self.seen.insert(fingerprint(key)) {
            let (offset, db) = (key.offset, key.db);
            self.report.finding(format!(
                "offset {offset}: key {name} in db {db} is there twice"
            ));
        }
        let since = first_version(key.type_code);
        self.newest_type = self.newest_type.max(Some((since, key.type_code)));
        match key.decode(&DecodeLimits::default()) {
            Ok(Some(Value::Stream(stream))) => {
                let live = stream.entries().count() as u64;
                if live != stream.length {
                    self.report.warning(format!(
                        "offset {}: stream {name} in db {}: length {} is stored, but {live} entries are live",
                        key.offset, key.db, stream.length
                    ));
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => self.report.empty_collections += 1,
            Err(error) => self.report.finding(error.to_string()),
        }
    }

    /// Numbers that the file says about itself, and that servers ignore.
    fn compare_hints(&mut self) {
        for (db, database) in &self.databases {
            let found = (database.keys, database.expires);
            if let Some(hint) = database
                .hint
                .filter(|hint| *hint != found && self.report.complete)
            {
                self.report.warning(format!(
                    "db {db}: {} keys and {} with expiry announced, {} and {} found",
                    hint.0, hint.1, found.0, found.1
                ));
            }
        }
        if let Some((since, code)) = self.newest_type
            && self.header.flavor == Flavor::Redis
            && since > self.header.version
        {
            self.report.warning(format!(
                "version {} is stored, but type {code} ({}) belongs to version {since}",
                self.header.version,
                type_code::name(code)
            ));
        }
    }
}

fn fingerprint(key: &KeyRecord<'_>) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, key.db, key.key).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// The version that brought a type.
fn first_version(code: u8) -> u16 {
    match code {
        0..=4 => 1,
        9..=12 => 2,
        13 => 4,
        14 => 7,
        5..=8 => 8,
        15 => 9,
        16..=19 => 10,
        20 | 21 => 11,
        _ => 12,
    }
}

impl Report {
    fn finding(&mut self, text: String) {
        self.findings += 1;
        if self.shown_findings.len() < self.limit {
            self.shown_findings.push(text);
        }
    }

    fn warning(&mut self, text: String) {
        self.warnings += 1;
        if self.shown_warnings.len() < self.limit {
            self.shown_warnings.push(text);
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for finding in &self.shown_findings {
            out.push_str(&format!("damage: {finding}\n"));
        }
        for warning in &self.shown_warnings {
            out.push_str(&format!("warning: {warning}\n"));
        }
        for (name, count) in [
            (
                "empty collections, which servers skip",
                self.empty_collections,
            ),
            ("keys that have expired by now", self.expired),
            ("bytes behind the dump", self.bytes_after),
        ] {
            if count > 0 {
                out.push_str(&format!("note: {count} {name}\n"));
            }
        }
        let verdict = match (self.sound, self.complete) {
            (true, _) => "sound",
            (false, true) => "damaged",
            (false, false) => "damaged, and not readable to its end",
        };
        out.push_str(&format!(
            "{}: {verdict}; {} keys, {} findings, {} warnings\n",
            self.file, self.keys, self.findings, self.warnings
        ));
        out
    }
}
