//! The manifest of a multi-part AOF: which files of a directory belong to it, and in which order they are read.
//!
//! ```text
//! file <name> seq <number> type <b|h|i>          one line a file; b base, h history, i increment
//! ```
//! A line's words come in pairs, in any order; unknown pairs are kept and written again. `#` in the first column makes a
//! comment. Names are quoted where they hold a blank, a quote, a backslash or an unprintable byte.
//!
//! Invariants of a manifest that was parsed or built by `begin_base` and `begin_increment`
//! - At most one base; the numbers of the increments ascend; no name is a path.
//! - `parse(print())` gives the same manifest.

use crate::error::Shown;
use crate::resp::split_words;

/// The files of a multi-part AOF.
///
/// ```
/// use dfsnap_formats::aof::manifest::{BaseForm, Manifest};
/// let text = b"file a.aof.1.base.rdb seq 1 type b\nfile a.aof.1.incr.aof seq 1 type i\n";
/// let mut manifest = Manifest::parse(text).unwrap();
/// let names: Vec<_> = manifest.files_to_load().map(|file| &file.name[..]).collect();
/// assert_eq!(names, [&b"a.aof.1.base.rdb"[..], b"a.aof.1.incr.aof"]);
/// assert_eq!(manifest.begin_increment(b"a.aof"), b"a.aof.2.incr.aof");
/// assert_eq!(manifest.begin_base(b"a.aof", BaseForm::Rdb), b"a.aof.2.base.rdb");
/// assert!(manifest.print().unwrap().starts_with(b"file a.aof.2.base.rdb seq 2 type b\n"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    pub base: Option<FileInfo>,
    /// Files that are of no more use and wait to be deleted.
    pub history: Vec<FileInfo>,
    pub increments: Vec<FileInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Inside the directory of the manifest.
    pub name: Vec<u8>,
    /// Of bases and of increments, each counted on its own; not 0.
    pub seq: i64,
    /// Pairs of words that this version knows nothing about.
    pub others: Vec<(Vec<u8>, Vec<u8>)>,
}

/// In which form a base is written; readers go by its first bytes, not by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseForm {
    Rdb,
    Commands,
}

/// A line that servers refuse, and with it the manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("manifest, line {line}: {problem}")]
pub struct ManifestError {
    /// From 1.
    pub line: usize,
    pub problem: ManifestProblem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestProblem {
    #[error("wanted at least one line, found none")]
    Empty,
    #[error("wanted at most {LINE_BYTES_MAX} bytes with the line end, found more")]
    TooLong,
    #[error("wanted a line end, found the end of the file")]
    NoLineEnd,
    #[error("wanted text, found a zero byte in column {column}")]
    Zero { column: usize },
    #[error("wanted the words of a file, found an empty line")]
    EmptyLine,
    #[error("a quote has no partner, or something follows it at once")]
    Quotes,
    #[error("wanted an even number of words, 6 at least, found {found}")]
    Words { found: usize },
    #[error("wanted file, seq and type, found no {missing}")]
    Missing { missing: &'static str },
    #[error("seq: wanted a number other than 0, found {}", Shown(found))]
    Seq { found: Vec<u8> },
    #[error("type: wanted b, h or i, found {}", Shown(found))]
    Type { found: Vec<u8> },
    #[error(
        "file: wanted a name in the same directory, found the path {}",
        Shown(found)
    )]
    Path { found: Vec<u8> },
    #[error("a second base, {}, after {}", Shown(found), Shown(first))]
    SecondBase { first: Vec<u8>, found: Vec<u8> },
    #[error(
        "increment {}: wanted a number above {before}, found {found}",
        Shown(name)
    )]
    Order {
        name: Vec<u8>,
        before: i64,
        found: i64,
    },
}

/// Longest line, its end included.
const LINE_BYTES_MAX: usize = 1024;
const WORDS_MIN: usize = 6;

impl Manifest {
    /// Every rule of the servers' own parser, with the line that breaks one.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        let mut manifest = Manifest::default();
        let mut rest = text;
        let mut line = 0;
        while !rest.is_empty() {
            line += 1;
            let end = rest.iter().position(|byte| *byte == b'\n');
            let size = end.map_or(rest.len(), |at| at + 1).min(LINE_BYTES_MAX);
            // A comment may be longer: what lies beyond the limit is a line of its own, as servers see it.
            let (piece, behind) = rest.split_at(size);
            manifest
                .take_line(piece, end.is_none() && behind.is_empty())
                .map_err(|problem| ManifestError { line, problem })?;
            rest = behind;
        }
        if line == 0 {
            let problem = ManifestProblem::Empty;
            return Err(ManifestError { line: 1, problem });
        }
        Ok(manifest)
    }

    fn take_line(&mut self, line: &[u8], is_last: bool) -> Result<(), ManifestProblem> {
        if line.starts_with(b"#") {
            return Ok(());
        }
        if let Some(column) = line.iter().position(|byte| *byte == 0) {
            return Err(ManifestProblem::Zero { column: column + 1 });
        }
        if !line.ends_with(b"\n") {
            return Err(match is_last {
                true => ManifestProblem::NoLineEnd,
                false => ManifestProblem::TooLong,
            });
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            return Err(ManifestProblem::EmptyLine);
        }
        let (kind, file) = file_of_line(line)?;
        match kind {
            b'b' => {
                if let Some(base) = &self.base {
                    let first = base.name.clone();
                    let found = file.name;
                    return Err(ManifestProblem::SecondBase { first, found });
                }
                self.base = Some(file);
            }
            b'h' => self.history.push(file),
            _ => {
                let before = self.increments.last().map_or(0, |last| last.seq);
                if file.seq <= before {
                    return Err(ManifestProblem::Order {
                        name: file.name,
                        before,
                        found: file.seq,
                    });
                }
                self.increments.push(file);
            }
        }
        Ok(())
    }

    /// As servers write it: the base, then what is history, then the increments. A name that takes more than a line may
    /// have, with its escapes, is an error: neither servers nor `parse` would read it.
    pub fn print(&self) -> Result<Vec<u8>, ManifestError> {
        let mut out = Vec::new();
        let files = (self.base.iter().map(|file| (file, 'b')))
            .chain(self.history.iter().map(|file| (file, 'h')))
            .chain(self.increments.iter().map(|file| (file, 'i')));
        for (index, (file, kind)) in files.enumerate() {
            let start = out.len();
            out.extend_from_slice(b"file ");
            put_word(&mut out, &file.name);
            out.extend_from_slice(format!(" seq {} type {kind}", file.seq).as_bytes());
            for (name, value) in &file.others {
                out.push(b' ');
                put_word(&mut out, name);
                out.push(b' ');
                put_word(&mut out, value);
            }
            out.push(b'\n');
            if out.len() - start > LINE_BYTES_MAX {
                return Err(ManifestError {
                    line: index + 1,
                    problem: ManifestProblem::TooLong,
                });
            }
        }
        Ok(out)
    }

    /// What makes the dataset, in the order in which it is read. Every file must be there; only the last one may be cut.
    pub fn files_to_load(&self) -> impl Iterator<Item = &FileInfo> {
        self.base.iter().chain(&self.increments)
    }

    /// A new base takes the place of all there is, which becomes history. Returns the name of its file.
    pub fn begin_base(&mut self, prefix: &[u8], form: BaseForm) -> Vec<u8> {
        let known = self.base.iter().chain(&self.history);
        let last = known.map(|file| file.seq).max().unwrap_or(0).max(0);
        let file = FileInfo {
            name: base_name(prefix, last + 1, form),
            seq: last + 1,
            others: Vec::new(),
        };
        self.history.extend(self.base.replace(file.clone()));
        self.history.append(&mut self.increments);
        file.name
    }

    /// Another increment follows. Returns the name of its file.
    pub fn begin_increment(&mut self, prefix: &[u8]) -> Vec<u8> {
        let known = self.increments.iter().chain(&self.history);
        let last = known.map(|file| file.seq).max().unwrap_or(0).max(0);
        let file = FileInfo {
            name: increment_name(prefix, last + 1),
            seq: last + 1,
            others: Vec::new(),
        };
        let name = file.name.clone();
        self.increments.push(file);
        name
    }
}

/// The kind and the file that a line names.
fn file_of_line(line: &[u8]) -> Result<(u8, FileInfo), ManifestProblem> {
    let (mut text, mut ranges) = (Vec::new(), Vec::new());
    split_words(line, &mut text, &mut ranges).map_err(|_| ManifestProblem::Quotes)?;
    let found = ranges.len();
    if found < WORDS_MIN || !found.is_multiple_of(2) {
        return Err(ManifestProblem::Words { found });
    }
    let (mut name, mut seq, mut kind, mut others) = (None, None, None, Vec::new());
    for pair in ranges.chunks_exact(2) {
        let (word, value) = (&text[pair[0].clone()], text[pair[1].clone()].to_vec());
        if word.eq_ignore_ascii_case(b"file") {
            if value.iter().any(|byte| matches!(byte, b'/' | b'\\')) {
                return Err(ManifestProblem::Path { found: value });
            }
            name = Some(value);
        } else if word.eq_ignore_ascii_case(b"seq") {
            let number = crate::encoding::canonical_int(&value).filter(|number| *number != 0);
            seq = Some(number.ok_or(ManifestProblem::Seq { found: value })?);
        } else if word.eq_ignore_ascii_case(b"type") {
            match value.first() {
                Some(letter @ (b'b' | b'h' | b'i')) => kind = Some(*letter),
                _ => return Err(ManifestProblem::Type { found: value }),
            }
        } else {
            others.push((word.to_vec(), value));
        }
    }
    let missing = |missing| ManifestProblem::Missing { missing };
    let file = FileInfo {
        name: name.ok_or(missing("file"))?,
        seq: seq.ok_or(missing("seq"))?,
        others,
    };
    Ok((kind.ok_or(missing("type"))?, file))
}

fn put_word(out: &mut Vec<u8>, word: &[u8]) {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if !word.is_empty() && word.iter().all(is_plain) {
        out.extend_from_slice(word);
        return;
    }
    out.push(b'"');
    for byte in word {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(*byte),
            byte => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    out.push(b'"');
}

fn base_name(prefix: &[u8], seq: i64, form: BaseForm) -> Vec<u8> {
    let ending = match form {
        BaseForm::Rdb => "rdb",
        BaseForm::Commands => "aof",
    };
    [prefix, format!(".{seq}.base.{ending}").as_bytes()].concat()
}

fn increment_name(prefix: &[u8], seq: i64) -> Vec<u8> {
    [prefix, format!(".{seq}.incr.aof").as_bytes()].concat()
}

/// Name of the manifest itself; `prefix` is the server's `appendfilename`.
pub fn manifest_name(prefix: &[u8]) -> Vec<u8> {
    [prefix, b".manifest"].concat()
}

/// Name under which a manifest is written before it takes the place of the old one.
pub fn temporary_name(prefix: &[u8]) -> Vec<u8> {
    [b"temp-", prefix, b".manifest"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: &str = "file a.1.base.rdb seq 1 type b\n";
    const INCR: &str = "file a.1.incr.aof seq 1 type i\n";

    /// It used to be printed all the same, and then no server read the manifest. Found by fuzzing.
    #[test]
    fn a_name_whose_escapes_fill_a_line_is_not_printed() {
        let name = |count| Manifest {
            increments: vec![FileInfo {
                name: vec![1; count],
                seq: 1,
                others: Vec::new(),
            }],
            ..Manifest::default()
        };
        assert!(name(200).print().is_ok());
        let error = name(300).print().unwrap_err();
        assert_eq!((error.line, error.problem), (1, ManifestProblem::TooLong));
    }

    #[test]
    fn what_servers_take_is_taken() {
        let long_comment = format!("#{}\n{BASE}", "x".repeat(1000));
        let rows: [(&str, String, Option<&str>, usize); 9] = [
            (
                "base and increment",
                format!("{BASE}{INCR}"),
                Some("a.1.base.rdb"),
                1,
            ),
            ("increments alone", INCR.to_owned(), None, 1),
            (
                "comment",
                format!("# a comment\n{BASE}"),
                Some("a.1.base.rdb"),
                0,
            ),
            ("comments alone", "#\n#".to_owned(), None, 0),
            ("long comment", long_comment, Some("a.1.base.rdb"), 0),
            (
                "pairs in any order",
                "type i SEQ 7 File x\n".to_owned(),
                None,
                1,
            ),
            (
                "unknown pairs",
                "file x seq 7 type i startoffset 0\n".to_owned(),
                None,
                1,
            ),
            (
                "quotes",
                "file \"a \\x41\" seq 1 type b\r\n".to_owned(),
                Some("a A"),
                0,
            ),
            (
                "type by its first letter",
                "file x seq 1 type base\n".to_owned(),
                Some("x"),
                0,
            ),
        ];
        for (name, text, base, increments) in rows {
            let manifest =
                Manifest::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let found = manifest.base.as_ref().map(|file| &file.name[..]);
            assert_eq!(found, base.map(str::as_bytes), "{name}");
            assert_eq!(manifest.increments.len(), increments, "{name}");
        }
    }

    #[test]
    fn what_servers_refuse_is_refused_with_its_line() {
        let long = format!("{BASE}file {} seq 1 type i\n", "x".repeat(1100));
        let tail_of_comment = format!("#{}\n", "x".repeat(1100));
        let rows: [(&str, String, usize, &str); 17] = [
            ("empty file", String::new(), 1, "found none"),
            ("empty line", format!("{BASE}\n"), 2, "empty line"),
            ("blank line", format!("{BASE} \t\n"), 2, "empty line"),
            ("too few words", format!("{BASE}file x seq\n"), 2, "found 3"),
            (
                "odd words",
                "file x seq 1 type i more\n".to_owned(),
                1,
                "found 7",
            ),
            (
                "no line end",
                INCR.trim_end().to_owned(),
                1,
                "end of the file",
            ),
            ("too long", long, 2, "at most 1024"),
            ("too long a comment", tail_of_comment, 2, "found 1"),
            ("second base", format!("{BASE}{BASE}"), 2, "second base"),
            (
                "repeated number",
                format!("{INCR}{INCR}"),
                2,
                "above 1, found 1",
            ),
            (
                "negative number",
                "file x seq -1 type i\n".to_owned(),
                1,
                "above 0",
            ),
            (
                "number zero",
                "file x seq 0 type b\n".to_owned(),
                1,
                "\"0\"",
            ),
            (
                "unknown type",
                "file x seq 1 type z\n".to_owned(),
                1,
                "found \"z\"",
            ),
            (
                "path",
                "file d/x seq 1 type i\n".to_owned(),
                1,
                "path \"d/x\"",
            ),
            (
                "open quote",
                "file \"x seq 1 type i\n".to_owned(),
                1,
                "partner",
            ),
            (
                "zero byte",
                "file x\0 seq 1 type i\n".to_owned(),
                1,
                "column 7",
            ),
            ("no type", "file x seq 1 other i\n".to_owned(), 1, "no type"),
        ];
        for (name, text, line, words) in rows {
            let error = Manifest::parse(text.as_bytes()).expect_err(name);
            assert_eq!(error.line, line, "{name}: {error}");
            assert!(error.to_string().contains(words), "{name}: {error}");
        }
    }

    #[test]
    fn numbers_go_on_where_history_stopped() {
        let mut manifest = Manifest::default();
        assert_eq!(
            manifest.begin_base(b"a", BaseForm::Commands),
            b"a.1.base.aof"
        );
        assert_eq!(manifest.begin_increment(b"a"), b"a.1.incr.aof");
        assert_eq!(manifest.begin_base(b"a", BaseForm::Rdb), b"a.2.base.rdb");
        assert_eq!(manifest.begin_increment(b"a"), b"a.2.incr.aof");
        let want = "file a.2.base.rdb seq 2 type b\nfile a.1.base.aof seq 1 type h\n\
            file a.1.incr.aof seq 1 type h\nfile a.2.incr.aof seq 2 type i\n";
        assert_eq!(manifest.print().unwrap(), want.as_bytes());
    }

    proptest! {
        #[test]
        fn printed_manifests_read_back(names in prop::collection::vec(prop::collection::vec(1u8.., 1..20), 1..6)) {
            let mut manifest = Manifest::default();
            for (seq, mut name) in (1..).zip(names) {
                name.retain(|byte| !matches!(byte, b'/' | b'\\'));
                let others = vec![(b"note".to_vec(), name.clone())];
                manifest.increments.push(FileInfo { name, seq, others });
            }
            prop_assert_eq!(Manifest::parse(&manifest.print().unwrap()).unwrap(), manifest);
        }

        #[test]
        fn any_bytes_give_a_manifest_or_an_error(text in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(manifest) = Manifest::parse(&text) {
                prop_assert_eq!(Manifest::parse(&manifest.print().unwrap()).ok().unwrap_or_default(), manifest);
            }
        }
    }
}
