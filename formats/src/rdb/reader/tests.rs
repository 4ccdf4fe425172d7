use super::*;
use crate::error::Shown;
use crate::rdb::writer;
use std::io;

/// A file with one of each record, and what it means.
fn sample() -> Vec<u8> {
    let mut file = Vec::new();
    writer::header(&mut file, 12);
    writer::aux(&mut file, b"redis-ver", b"7.4.1");
    writer::function2(&mut file, b"#!lua name=lib", None);
    file.extend_from_slice(&[
        opcode::FUNCTION_PRE_GA,
        1,
        b'n',
        1,
        b'e',
        1,
        1,
        b'd',
        1,
        b'c',
    ]);
    file.extend_from_slice(&[opcode::MODULE_AUX, 7, 2, 1, 5, 1, b'x', 3, 0, 0, 0, 0, 0]);
    writer::select_db(&mut file, 3);
    writer::resize_db(&mut file, 2, 1);
    writer::slot_info(&mut file, 9, 2, 1);
    writer::expire_ms(&mut file, 1234);
    writer::idle(&mut file, 77);
    writer::aux(&mut file, b"mvcc-tstamp", b"5");
    writer::key(&mut file, type_code::SET, b"12", None);
    writer::len(&mut file, 2);
    writer::string(&mut file, b"one", None);
    writer::string(&mut file, b"2", None);
    writer::freq(&mut file, 8);
    writer::key(&mut file, type_code::STRING, b"plain", None);
    writer::string(&mut file, b"value", None);
    file.extend_from_slice(&[opcode::ENTERPRISE_RAM_LRU, 4]);
    writer::eof(&mut file);
    let crc = crate::checksum::redis_crc(&file);
    writer::checksum(&mut file, crc);
    file
}

fn read_all(source: impl Read) -> Result<Vec<String>, RdbError> {
    let mut reader = RdbReader::new(source, Options::default());
    let mut records = Vec::new();
    while let Some(record) = reader.next()? {
        records.push(format!("{record:?}"));
    }
    Ok(records)
}

#[test]
fn records_come_in_order_with_what_they_say() {
    let file = sample();
    let mut reader = RdbReader::new(&file[..], Options::default());
    let mut seen = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        seen.push(match record {
            Record::Header(header) => format!("header {}", header.version),
            Record::Aux { name, value } => format!("aux {} {}", Shown(&name), Shown(&value)),
            Record::SelectDb(db) => format!("select {db}"),
            Record::ResizeDb { keys, expires } => format!("resize {keys} {expires}"),
            Record::SlotInfo {
                slot,
                keys,
                expires,
            } => format!("slot {slot} {keys} {expires}"),
            Record::SlotImport { .. } => "import".into(),
            Record::Function { code } => format!("function {}", Shown(&code)),
            Record::FunctionPreGa {
                name, description, ..
            } => {
                format!("pre-ga {} {}", Shown(&name), Shown(&description.unwrap()))
            }
            Record::ModuleAux { when, raw, .. } => format!("module {when} {}", raw.len()),
            Record::Enterprise { code, number } => format!("enterprise {code} {number}"),
            Record::Key(key) => format!(
                "{} {} {:?} {:?} {:?} {} {:?}",
                key.db,
                Shown(key.key),
                key.attributes.expire_at_ms,
                key.attributes.idle_s,
                key.attributes.freq,
                key.type_code,
                key.value
            ),
            Record::End(end) => format!(
                "end {} {}",
                end.crc.is_some(),
                end.bytes == file.len() as u64
            ),
        });
    }
    let want = [
        "header 12",
        "aux \"redis-ver\" \"7.4.1\"",
        "function \"#!lua name=lib\"",
        "pre-ga \"n\" \"d\"",
        "module 1 12",
        "select 3",
        "resize 2 1",
        "slot 9 2 1",
        "aux \"mvcc-tstamp\" \"5\"",
        "3 \"12\" Some(1234) Some(77) None 2 [2, 3, 111, 110, 101, 192, 2]",
        "3 \"plain\" None None Some(8) 0 [5, 118, 97, 108, 117, 101]",
        "enterprise 107 4",
        "end true true",
    ];
    assert_eq!(seen, want);
}

#[test]
fn what_follows_the_checksum_stays_in_reach() {
    let mut file = sample();
    file.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
    let mut reader = RdbReader::new(&file[..], Options::default());
    while reader.next().unwrap().is_some() {}
    let (mut rest, mut source) = reader.into_parts();
    source.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"*1\r\n$4\r\nPING\r\n");
}

#[test]
fn a_file_cut_anywhere_is_an_error_and_a_flipped_bit_too() {
    let file = sample();
    for cut in 0..file.len() {
        let error = read_all(&file[..cut]).expect_err("cut");
        assert!(error.to_string().contains(" left"), "cut at {cut}: {error}");
    }
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 0x40;
        assert!(read_all(&damaged[..]).is_err(), "flipped at {at}");
    }
}

/// Has nothing to give every other time.
struct Stutter<'a>(&'a [u8], bool);

impl Read for Stutter<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        (&mut self.0).take(1).read(out)
    }
}

#[test]
fn a_source_without_data_interrupts_and_loses_nothing() {
    let file = sample();
    let mut reader = RdbReader::new(Stutter(&file, false), Options::default());
    let mut records = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(record)) => records.push(format!("{record:?}")),
            Ok(None) => break,
            Err(RdbError::Io { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(records, read_all(&file[..]).unwrap());
}

#[test]
fn errors_name_offset_and_numbers() {
    let rows: [(&str, &[u8], &str); 10] = [
        ("empty", b"", "offset 0: magic: wanted 9 bytes, 0 left"),
        (
            "magic",
            b"RADIS0009",
            "offset 0: no RDB file: wanted REDIS or VALKEY and a version, found \"RADIS0009\"",
        ),
        (
            "future",
            b"REDIS0014",
            "offset 5: version 14: wanted 1 to 13 (REDIS) or 80 (VALKEY)",
        ),
        (
            "valkey future",
            b"VALKEY081",
            "offset 6: version 81: wanted 1 to 13 (REDIS) or 80 (VALKEY)",
        ),
        (
            "unknown type",
            b"REDIS0012\x1f\x00",
            "offset 9: 31 is neither a type nor an opcode that is known; it may be newer than version 13",
        ),
        (
            "value cut",
            b"REDIS0009\x10\x03abc\x20xyz",
            "offset 14: value of key \"abc\" (hash, listpack) in db 0: structure: wanted 33 bytes, 4 left",
        ),
        (
            "key cut",
            b"REDIS0009\x00\x05abc",
            "offset 10: key: wanted 6 bytes, 4 left",
        ),
        (
            "crc",
            b"REDIS0009\xff\x01\x00\x00\x00\x00\x00\x00\x00",
            "offset 10: checksum: ",
        ),
        (
            "no crc",
            b"REDIS0009\xff",
            "offset 10: checksum: wanted 8 bytes, 0 left",
        ),
        (
            "module before 4.0",
            b"REDIS0008\x06\x01m\x81\x00\x00\x00\x00\x00\x00\x00\x00",
            "offset 9: key \"m\": value of module AAAAAAAAA in the form of a 4.0 release candidate (type 6)",
        ),
    ];
    for (name, file, want) in rows {
        let error = read_all(file).expect_err(name).to_string();
        assert!(error.starts_with(want), "{name}: {error}");
    }
}
