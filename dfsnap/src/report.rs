//! Results for people and programs, failures with a next step, and the exit code.

use crate::source::progress::Progress;
use dfsnap_formats::aof::reader::AofError;
use dfsnap_formats::aof::replay::ReplayError;
use dfsnap_formats::dfs::DfsError;
use dfsnap_formats::json::JsonError;
use dfsnap_formats::rdb::record::RdbError;
use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// What a verb came to.
pub struct Outcome {
    /// Goes to standard output.
    pub text: String,
    /// Something is not as it should be: exit code 1.
    pub finding: bool,
}

/// Why a verb could not do its work, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub advice: String,
}

impl Failure {
    /// A file that cannot be opened.
    pub fn open(path: &Path, error: &io::Error) -> Self {
        Failure {
            message: format!("{}: {error}", path.display()),
            advice: "check the path and its permissions; - reads standard input".to_owned(),
        }
    }

    /// A file that cannot be read to its end.
    pub fn read(path: &Path, error: &RdbError) -> Self {
        let name = path.display();
        let advice = match error {
            RdbError::Magic { found } if found.first() == Some(&b'*') => {
                "this starts like an append-only file; its base is the .base.rdb file in the same folder"
                    .to_owned()
            }
            RdbError::Magic { .. } => format!("file {name} shows what it is"),
            RdbError::Version { .. } | RdbError::UnknownCode { .. } => {
                "a newer dfsnap; or let the server that wrote the file save it in an older version"
                    .to_owned()
            }
            RdbError::ModulePreGa { .. } => {
                "load the file into Redis 4.0 with the module and save it again".to_owned()
            }
            RdbError::Io { .. } => "read the file again, or copy it from its source".to_owned(),
            RdbError::Checksum { .. } => {
                format!("dfsnap verify {name} shows whether the values are sound; or another copy")
            }
            RdbError::Record(_) | RdbError::Value { .. } | RdbError::Failed { .. } => {
                format!("dfsnap verify {name} lists all damage; or another copy")
            }
        };
        Failure {
            message: format!("{name}: {error}"),
            advice,
        }
    }
}

impl Failure {
    /// A file of a set that cannot be read to its end.
    pub fn dfs(path: &Path, error: &DfsError) -> Self {
        let name = path.display();
        Failure {
            message: format!("{name}: {error}"),
            advice: format!("dfsnap verify {name} lists all damage; or another copy"),
        }
    }

    /// An append-only file that cannot be read to its end.
    pub fn aof(path: &Path, error: &AofError) -> Self {
        let name = path.display();
        Failure {
            message: format!("{name}: {error}"),
            advice: format!("dfsnap salvage {name} -o FILE keeps what is whole; or another copy"),
        }
    }

    /// A command of an append-only file that cannot be applied.
    pub fn replay(path: &Path, error: &ReplayError) -> Self {
        Failure {
            message: format!("{}: {error}", path.display()),
            advice: "let the server that wrote the file load it and save an RDB file".to_owned(),
        }
    }

    /// Text that does not mean a dataset.
    pub fn json(name: &str, error: &JsonError) -> Self {
        Failure {
            message: format!("{name}: {error}"),
            advice: "docs/formats/json.md tells the shape".to_owned(),
        }
    }

    /// Standard output that does not take all of it.
    pub fn output(error: &io::Error) -> Self {
        let advice = match error.kind() {
            io::ErrorKind::BrokenPipe => "who reads it ended before the end",
            _ => "check the space where it goes; what is there is not whole",
        };
        Failure {
            message: format!("standard output: {error}"),
            advice: advice.to_owned(),
        }
    }

    /// A file that cannot be written.
    pub fn write(path: &Path, error: &io::Error) -> Self {
        Failure {
            message: format!("{}: {error}", path.display()),
            advice: "check the space and the permissions of its folder; nothing was left there"
                .to_owned(),
        }
    }
}

/// The file, or standard input for `-`.
pub fn open(path: &Path) -> Result<Box<dyn Read>, Failure> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin().lock()));
    }
    match std::fs::File::open(path) {
        Ok(file) if file.metadata().is_ok_and(|meta| meta.is_dir()) => {
            let error = io::Error::from(io::ErrorKind::IsADirectory);
            Err(Failure::open(path, &error))
        }
        Ok(file) => {
            let len = file.metadata().ok().filter(|meta| meta.is_file());
            let progress = Progress::new(len.map(|meta| meta.len()), false);
            Ok(progress.watch(Box::new(file)))
        }
        Err(error) => Err(Failure::open(path, &error)),
    }
}

/// Prints a result or a failure and gives the exit code.
pub fn exit(result: Result<Outcome, Failure>) -> ExitCode {
    match result {
        Ok(outcome) => {
            // A reader that has seen enough is no failure.
            let printed = io::stdout().lock().write_all(outcome.text.as_bytes());
            match printed {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    exit(Err(Failure::output(&error)))
                }
                _ => ExitCode::from(u8::from(outcome.finding)),
            }
        }
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            eprintln!("try: {}", failure.advice);
            ExitCode::from(2)
        }
    }
}

/// JSON with a newline.
pub fn json(value: &impl serde::Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain structs always serialize");
    text.push('\n');
    text
}

/// Rows under a heading, columns aligned: the first to the left, the others to the right.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let heading = heading.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::from(" ");
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let written = if i == 0 {
                write!(line, " {cell:<width$}")
            } else {
                write!(line, "  {cell:>width$}")
            };
            written.expect("writing to a string");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Bytes with a unit, to three digits.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if size < 10.0 => format!("{size:.2} {}", UNITS[unit]),
        _ if size < 100.0 => format!("{size:.1} {}", UNITS[unit]),
        _ => format!("{size:.0} {}", UNITS[unit]),
    }
}

/// Bytes of a key as text: printable ASCII as it is, everything else with a backslash.
pub fn key(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The clock, in Unix milliseconds.
pub fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

/// A time in Unix milliseconds as `2009-06-01 00:00:00 UTC`.
pub fn date(at_ms: i64) -> String {
    const DAY_S: i64 = 86_400;
    let at_s = at_ms.div_euclid(1000);
    let (days, second) = (at_s.div_euclid(DAY_S), at_s.rem_euclid(DAY_S));
    // Years begin in March, so that leap days come last; eras are 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = match month {
        0..10 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    let year = year + era * 400 + carry;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_show_three_digits() {
        let rows = [
            (0, "0 B"),
            (999, "999 B"),
            (1024, "1.00 KiB"),
            (10_240, "10.0 KiB"),
            (1 << 20, "1.00 MiB"),
            (u64::MAX, "16777216 TiB"),
        ];
        for (count, want) in rows {
            assert_eq!(bytes(count), want);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let rows = [
            (0, "1970-01-01 00:00:00 UTC"),
            (1_243_814_400_000, "2009-06-01 00:00:00 UTC"),
            (951_782_399_999, "2000-02-28 23:59:59 UTC"),
            (951_868_799_000, "2000-02-29 23:59:59 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
        ];
        for (at_ms, want) in rows {
            assert_eq!(date(at_ms), want);
        }
        date(i64::MAX);
        date(i64::MIN);
    }

    #[test]
    fn columns_align() {
        let rows = [
            vec!["a".to_owned(), "10".to_owned()],
            vec!["long".to_owned(), "5".to_owned()],
        ];
        let want = "  name  n\n";
        assert!(table(&["name", "n"], &rows[..0]).starts_with(want));
        assert_eq!(
            table(&["", "keys"], &rows),
            "        keys\n  a       10\n  long     5\n"
        );
    }
}
