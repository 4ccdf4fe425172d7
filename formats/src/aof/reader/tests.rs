//! Units, ends, errors and holes, from bytes in memory.

use super::*;
use crate::resp::encode_command;
use proptest::prelude::*;

fn file(commands: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for command in commands {
        let words: Vec<&str> = command.split(' ').collect();
        encode_command(&mut out, &words);
    }
    out
}

/// Units as text, and the error that ended them.
fn texts<R: Read>(source: R, lenient: bool) -> (Vec<String>, Option<String>) {
    let options = Options {
        lenient,
        ..Options::default()
    };
    let mut reader = AofReader::new(source, options);
    let mut texts = Vec::new();
    loop {
        match reader.next() {
            Ok(None) => return (texts, None),
            Ok(Some(Unit::Command(command))) => {
                let words: Vec<_> = command.words.iter().map(<[u8]>::escape_ascii).collect();
                let words: Vec<_> = words.iter().map(|word| word.to_string()).collect();
                let group = command
                    .group
                    .map_or(String::new(), |at| format!(" in {at}"));
                texts.push(format!("{} {}{group}", command.offset, words.join(" ")));
            }
            Ok(Some(Unit::Timestamp { offset, unix_s })) => {
                texts.push(format!("{offset} at {unix_s}"))
            }
            Ok(Some(Unit::Annotation { offset, text })) => {
                texts.push(format!("{offset} # {}", text.escape_ascii()));
            }
            Ok(Some(Unit::Skipped { range, why })) => texts.push(format!("{range:?}: {why}")),
            Ok(Some(Unit::End(End::Whole { bytes }))) => texts.push(format!("whole at {bytes}")),
            Ok(Some(Unit::End(End::Cut {
                good_bytes,
                cut_bytes,
                what,
            }))) => {
                texts.push(format!("{cut_bytes} bytes cut in {what} at {good_bytes}"));
            }
            Ok(Some(Unit::Preamble(record))) => texts.push(format!("{record:?}")),
            Err(AofError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return (texts, Some(error.to_string())),
        }
    }
}

#[test]
fn units_come_with_their_offsets() {
    let bytes = [
        b"#TS:17\r\n".to_vec(),
        file(&["MULTI", "SET a 1", "exec"]),
        b"# note\n".to_vec(),
        file(&["GET a"]),
    ]
    .concat();
    let want = [
        "0 at 17",
        "8 MULTI in 8",
        "23 SET a 1 in 8",
        "50 exec in 8",
        "64 #  note",
        "71 GET a",
        "whole at 91",
    ];
    assert_eq!(
        texts(&bytes[..], false),
        (want.map(str::to_owned).to_vec(), None)
    );
}

#[test]
fn what_servers_overlook_is_overlooked() {
    let rows: [(&str, &[u8]); 3] = [
        ("lone LF", b"*1\n$4\nPING\r\n"),
        ("leading zero", b"*01\r\n$04\r\nPING\r\n"),
        ("bytes behind a word", b"*1\r\n$4\r\nPING#\n"),
    ];
    for (name, bytes) in rows {
        let want = ["0 PING".to_owned(), format!("whole at {}", bytes.len())];
        assert_eq!(texts(bytes, false), (want.to_vec(), None), "{name}");
    }
}

#[test]
fn no_unit_is_an_error_that_says_where() {
    let long = [&b"#"[..], &[b'x'; 2000]].concat();
    let rows: [(&str, &[u8], &str); 9] = [
        (
            "garbage",
            b"hello",
            "offset 0: command: wanted a command ('*') or an annotation ('#'), found 0x68",
        ),
        (
            "empty line",
            b"*1\r\n$1\r\nx\r\n\r\n",
            "offset 11: command: wanted a command ('*') or an annotation ('#'), found 0x0d",
        ),
        ("zeros", b"*1\r\n$1\r\nx\r\n\0\0\0", "offset 11: command"),
        (
            "no words",
            b"*0\r\n",
            "offset 1: number of words: wanted at least one word, found 0",
        ),
        (
            "negative",
            b"*-1\r\n",
            "offset 1: number of words: wanted decimal digits and a line end, found \"-1\"",
        ),
        ("letters", b"*x\r\n", "found \"x\""),
        (
            "endless number",
            &[b'*'; 40],
            "offset 0: number of words: wanted a line end",
        ),
        (
            "no word",
            b"*1\r\n+OK\r\n",
            "offset 4: word: wanted a word ('$'), found 0x2b",
        ),
        (
            "endless annotation",
            &long,
            "offset 0: annotation: wanted a line end",
        ),
    ];
    for (name, bytes, want) in rows {
        let error = texts(bytes, false).1.expect(name);
        assert!(error.contains(want), "{name}: {error}");
    }
}

#[test]
fn a_cut_tells_what_can_be_kept() {
    let rows: [(&str, Vec<u8>, &str); 5] = [
        (
            "in a word",
            file(&["SET a 1"])[..20].to_vec(),
            "20 bytes cut in a command at 0",
        ),
        (
            "in the second",
            [file(&["PING"]), b"*3".to_vec()].concat(),
            "2 bytes cut in a command at 14",
        ),
        (
            "annotation",
            [file(&["PING"]), b"#TS:1".to_vec()].concat(),
            "5 bytes cut in an annotation at 14",
        ),
        (
            "open group",
            file(&["PING", "MULTI", "PING"]),
            "29 bytes cut in a group of commands between MULTI and EXEC at 14",
        ),
        (
            "in an open group",
            [file(&["PING", "MULTI"]), b"*1\r\n$".to_vec()].concat(),
            "20 bytes cut in a group of commands between MULTI and EXEC at 14",
        ),
    ];
    for (name, bytes, want) in rows {
        let (texts, error) = texts(&bytes[..], false);
        assert_eq!(
            (texts.last().map(String::as_str), error),
            (Some(want), None),
            "{name}"
        );
    }
}

#[test]
fn a_lenient_reader_goes_on_behind_a_hole() {
    // The beginnings of what is found.
    let rows: [(&str, &str, &str, &[&str]); 3] = [
        (
            "marker",
            "$1\r\nb",
            "!1\r\nb",
            &[
                "0 SET a 1",
                "27..54: offset 40: word: wanted a word ('$'), found 0x21",
                "54 SET c 3",
                "whole",
            ],
        ),
        // The word reaches into its neighbour.
        (
            "length",
            "$1\r\na",
            "$9\r\na",
            &[
                "0..27: offset 28: word",
                "27 SET b 2",
                "54 SET c 3",
                "whole",
            ],
        ),
        (
            "length beyond the end",
            "$1\r\na",
            "$999\r\na",
            &[
                "0..29: offset 0: command: wanted",
                "29 SET b 2",
                "56 SET c 3",
                "whole",
            ],
        ),
    ];
    let whole = String::from_utf8(file(&["SET a 1", "SET b 2", "SET c 3"])).unwrap();
    for (name, old, new, want) in rows {
        let bytes = whole.replacen(old, new, 1);
        let (found, error) = texts(bytes.as_bytes(), true);
        assert_eq!(
            (error, found.len()),
            (None, want.len()),
            "{name}: {found:?}"
        );
        for (found, want) in found.iter().zip(want) {
            assert!(found.starts_with(want), "{name}: {found}, want {want}");
        }
    }
}

#[test]
fn commands_follow_a_preamble_at_once() {
    let rdb = b"REDIS0003\xfe\x00\x00\x01k\xc0\x2a\xff";
    let bytes = [&rdb[..], &file(&["DEL k"])].concat();
    let (found, error) = texts(&bytes[..], false);
    assert_eq!(error, None);
    assert_eq!(
        found[found.len() - 2..],
        ["17 DEL k".to_owned(), "whole at 37".to_owned()]
    );
    for cut in 1..rdb.len() {
        let (_, error) = texts(&bytes[..cut], false);
        // Less than a magic is a command that does not begin like one.
        assert!(error.is_some(), "cut at {cut}");
    }
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    let bytes = b"*2147483647\r\n$9223372036854775807\r\nx";
    let mut reader = AofReader::new(&bytes[..], Options::default());
    assert!(matches!(
        reader.next(),
        Ok(Some(Unit::End(End::Cut { .. })))
    ));
    assert!(reader.unit.words.capacity() < 8);
}

/// Gives `step` bytes at a time, and has none every other time.
struct Drip<'a>(&'a [u8], usize, bool);

impl Read for Drip<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.2 = !self.2;
        if self.2 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let step = self.1.min(out.len());
        (&mut self.0).take(step as u64).read(out)
    }
}

fn part() -> impl Strategy<Value = Vec<u8>> {
    let command = prop::collection::vec("[a-c$*\r\n]{0,6}", 1..4).prop_map(|words| {
        let mut out = Vec::new();
        encode_command(&mut out, &words);
        out
    });
    prop_oneof![
        6 => command,
        1 => Just(file(&["MULTI"])),
        1 => Just(file(&["EXEC"])),
        1 => Just(b"#TS:5\r\n".to_vec()),
        1 => prop::collection::vec(prop::sample::select(b"*$1\r\n#x".to_vec()), 0..8),
    ]
}

proptest! {
    #[test]
    fn units_are_the_same_however_they_arrive(
        parts in prop::collection::vec(part(), 0..8), step in 1usize..9, lenient in any::<bool>(),
    ) {
        let bytes = parts.concat();
        prop_assert_eq!(texts(Drip(&bytes, step, false), lenient), texts(&bytes[..], lenient));
    }

    #[test]
    fn a_lenient_reader_leaves_no_byte_out(parts in prop::collection::vec(part(), 0..8)) {
        let bytes = parts.concat();
        let options = Options { lenient: true, ..Options::default() };
        let mut reader = AofReader::new(&bytes[..], options);
        let mut at = 0;
        while let Some(unit) = reader.next().unwrap() {
            match unit {
                Unit::Command(command) => {
                    prop_assert_eq!(command.offset, at);
                    at = command.end;
                }
                Unit::Skipped { range, .. } => {
                    prop_assert!(range.start == at && range.end > at);
                    at = range.end;
                }
                Unit::Timestamp { offset, .. } | Unit::Annotation { offset, .. } => {
                    prop_assert_eq!(offset, at);
                    at += bytes[at as usize..].iter().position(|b| *b == b'\n').unwrap() as u64 + 1;
                }
                Unit::End(End::Whole { bytes: end }) => prop_assert_eq!((end, at), (bytes.len() as u64, end)),
                Unit::End(End::Cut { good_bytes, cut_bytes, .. }) => {
                    prop_assert!(good_bytes <= at);
                    prop_assert_eq!(good_bytes + cut_bytes, bytes.len() as u64);
                }
                Unit::Preamble(_) => unreachable!("no magic"),
            }
        }
    }
}
