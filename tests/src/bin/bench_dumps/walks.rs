//! What is measured: each a walk over the whole dump, at one level or into one form.

use std::fs::File;
use std::hint::black_box;
use std::path::Path;

use anyhow::{Context, bail};
use dfsnap_formats::json::{Buffer, Writer, WriterOptions};
use dfsnap_formats::parts::{Head, Part};
use dfsnap_formats::rdb::file::RdbWriter;
use dfsnap_formats::rdb::large::Next;
use dfsnap_formats::rdb::parts::PartWalk;
use dfsnap_formats::rdb::reader::{Options, RdbError, RdbReader, Record};
use dfsnap_formats::rdb::stored::{Stored, for_each_stored};
use dfsnap_formats::rdb::target::Target;

use crate::mixed::Mixed;

pub const NAMES: [&str; 7] = ["raw", "stored", "data", "values", "json", "copy", "write"];

/// Values beyond this are taken in pieces.
const VALUE_BYTES_MAX: usize = 4 << 20;

/// Runs one and prints its peak memory and what it came to.
pub fn walk(name: &str, path: &Path) -> anyhow::Result<()> {
    let found = match name {
        "write" => write()?,
        _ => {
            let mut reader = RdbReader::new(File::open(path)?, Options::default());
            match name {
                "raw" => raw(&mut reader)?,
                "stored" => stored(&mut reader)?,
                "data" => data(&mut reader)?,
                "values" => values(&mut reader)?,
                "json" => json(&mut reader)?,
                "copy" => copy(&mut reader)?,
                _ => bail!("unknown walk {name}: there are {}", NAMES.join(", ")),
            }
        }
    };
    println!("{} MB, {found}", peak_megabytes()?);
    Ok(())
}

/// The highest resident size of this process so far.
fn peak_megabytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kilobytes.context("VmHWM")?.trim().parse::<u64>()? / 1024)
}

fn raw(reader: &mut RdbReader<File>) -> anyhow::Result<String> {
    let (mut keys, mut bytes) = (0u64, 0);
    while let Some(next) = reader.next_within(VALUE_BYTES_MAX)? {
        if let Next::Record(Record::Key(key)) = next {
            keys += 1;
            bytes += key.value.len();
        }
    }
    Ok(format!("{keys} keys, {bytes} bytes of values"))
}

fn stored(reader: &mut RdbReader<File>) -> anyhow::Result<String> {
    let (mut keys, mut pieces) = (0u64, 0u64);
    while let Some(record) = reader.next()? {
        if let Record::Key(key) = record {
            keys += 1;
            for_each_stored(key.flavor, key.type_code, key.value, |piece: Stored<'_>| {
                black_box(&piece);
                pieces += 1;
                Ok::<(), dfsnap_formats::error::Damage>(())
            })?;
        }
    }
    Ok(format!("{keys} keys, {pieces} pieces"))
}

fn data(reader: &mut RdbReader<File>) -> anyhow::Result<String> {
    let mut walk = PartWalk::default();
    let (mut keys, mut parts) = (0u64, 0u64);
    let mut count = |part: &Part<'_>| {
        black_box(part);
        parts += 1;
    };
    while let Some(next) = reader.next_within(VALUE_BYTES_MAX)? {
        match next {
            Next::Record(Record::Key(key)) => {
                keys += 1;
                walk.value(key.flavor, key.type_code, key.value, |part| {
                    count(&part);
                    Ok::<(), dfsnap_formats::error::Damage>(())
                })
                .map_err(|damage| key.damaged(damage))?;
            }
            Next::Record(_) => {}
            Next::Large(_) => {
                keys += 1;
                reader.large_parts(&mut walk, |part| {
                    count(&part);
                    Ok::<(), RdbError>(())
                })?;
            }
        }
    }
    Ok(format!("{keys} keys, {parts} parts"))
}

fn values(reader: &mut RdbReader<File>) -> anyhow::Result<String> {
    let (mut keys, mut elements) = (0u64, 0);
    while let Some(record) = reader.next()? {
        if let Record::Key(key) = record {
            let value = key.decode(&Default::default())?;
            elements += value.map_or(0, |value| value.count());
            keys += 1;
        }
    }
    Ok(format!("{keys} keys, {elements} elements"))
}

/// Lines of JSON, values never in memory as a whole, members compared with each other: what `dfsnap convert` does.
fn json(reader: &mut RdbReader<File>) -> anyhow::Result<String> {
    let mut walk = PartWalk::default();
    let mut writer = Writer::new(WriterOptions::default());
    let mut out = Buffer::new();
    let mut bytes = 0;
    let drain = |out: &mut Buffer, bytes: &mut usize| {
        if out.len() > 1 << 20 {
            *bytes += black_box(&*out).len();
            out.clear();
        }
    };
    while let Some(next) = reader.next_within(VALUE_BYTES_MAX)? {
        match next {
            Next::Record(Record::Key(key)) => {
                writer.begin(&Head::of_key(&key));
                walk.value(key.flavor, key.type_code, key.value, |part| {
                    writer.part(&part, &mut out);
                    Ok::<(), dfsnap_formats::error::Damage>(())
                })
                .map_err(|damage| key.damaged(damage))?;
                writer.end(&mut out);
                drain(&mut out, &mut bytes);
            }
            Next::Record(_) => {}
            Next::Large(key) => {
                writer.begin(&Head::of_key(&key));
                reader.large_parts(&mut walk, |part| {
                    writer.part(&part, &mut out);
                    drain(&mut out, &mut bytes);
                    Ok::<(), RdbError>(())
                })?;
                writer.end(&mut out);
            }
        }
    }
    writer.finish(&mut out);
    Ok(format!("{} MB of text", (bytes + out.len()) / 1_000_000))
}

/// RDB to RDB, values as they are stored.
fn copy(reader: &mut RdbReader<File>) -> anyhow::Result<String> {
    let mut writer = RdbWriter::new(Target::default());
    let mut bytes = 0;
    while let Some(next) = reader.next_within(VALUE_BYTES_MAX)? {
        match next {
            Next::Record(Record::Key(key)) => {
                writer.record(&key)?;
            }
            Next::Record(_) => {}
            Next::Large(key) => {
                writer.large(&key);
                reader.large_bytes(|piece| {
                    writer.large_bytes(piece);
                    Ok::<(), RdbError>(())
                })?;
            }
        }
        if writer.pending() > 1 << 20 {
            bytes += writer.pending();
            writer.drain(|piece| {
                black_box(piece);
                Ok::<(), anyhow::Error>(())
            })?;
        }
    }
    writer.finish();
    Ok(format!("{} MB", (bytes + writer.pending()) / 1_000_000))
}

/// CPU time of this thread so far, in seconds: what else runs on the machine does not count.
fn cpu_seconds() -> anyhow::Result<f64> {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = statistics.split(' ').next().context("schedstat")?;
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}

/// Gigabytes of uncompressed dump in a second of CPU time, from values in memory.
fn write() -> anyhow::Result<String> {
    let entries: Vec<_> = Mixed::new(false).take(20_000).collect();
    let mut writer = RdbWriter::new(Target::default()).compress(false);
    let mut bytes = 0;
    let started = cpu_seconds()?;
    while bytes < 1_000_000_000 {
        for entry in &entries {
            writer.entry(entry)?;
            if writer.pending() > 1 << 20 {
                bytes += writer.pending();
                writer.drain(|piece| {
                    black_box(piece);
                    Ok::<(), anyhow::Error>(())
                })?;
            }
        }
    }
    let seconds = cpu_seconds()? - started;
    Ok(format!("{:.2} GB/s", bytes as f64 / 1e9 / seconds))
}
