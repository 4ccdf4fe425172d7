//! LOLWUT: the version of this server, under a picture if one of the versions that drew is asked for.
//!
//! Redis 5 drew Schotter, rows of squares that fall into disorder, in dots of Braille; Redis 6 a skyline in letters. These are drawn
//! here likewise, with the same arguments and limits, and differently each time.

use super::words::{int, is};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};
use crate::config::REDIS_VERSION;

/// The row.
pub const COMMANDS: &[Command] = &[Command::keyed(
    "lolwut",
    -1,
    Flags::READONLY.with(Flags::FAST),
    KeySpec::None,
    lolwut,
)
.about(Group::Server, "5.0.0", "The version, and a picture.")];

/// Lines and rows that may be asked for.
const LEN_MAX: i64 = 1000;
/// Squares that may be asked for.
const SQUARES_MAX: i64 = 200;

fn lolwut(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    let (version, args) = match args {
        [_, word, version, rest @ ..] if is(word, "version") => (int(version)?, rest),
        [_, rest @ ..] => (0, rest),
        [] => (0, args),
    };
    let mut picture = match version {
        5 => {
            let [columns, across, down] = numbers(args, [66, 8, 12])?;
            let squares = [across, down].map(|n| n.clamp(1, SQUARES_MAX) as usize);
            let mut text = schotter(exec, columns.clamp(1, LEN_MAX) as usize, squares);
            text.push_str("\nGeorg Nees - schotter, plotter on paper, 1968.");
            text
        }
        6 => {
            let [columns, rows] = numbers(args, [80, 20])?;
            let size = [columns, rows].map(|n| n.clamp(1, LEN_MAX) as usize);
            let mut text = skyline(exec, size);
            text.push_str("\nDedicated to the 8 bit game developers of past and present.");
            text
        }
        _ => String::new(),
    };
    if !picture.is_empty() {
        picture.push(' ');
    }
    picture.push_str(&format!("Redis ver. {REDIS_VERSION}\n"));
    exec.reply.verbatim(b"txt", picture.as_bytes());
    Ok(Effect::None)
}

/// As many numbers as are given, the others as by default.
fn numbers<const N: usize>(args: Args<'_>, mut all: [i64; N]) -> Result<[i64; N], CommandError> {
    for (number, word) in all.iter_mut().zip(args) {
        *number = int(word)?;
    }
    Ok(all)
}

/// Dots, eight in each letter of Braille.
struct Dots {
    width: usize,
    height: usize,
    are_set: Vec<bool>,
}

impl Dots {
    fn new(width: usize, height: usize) -> Dots {
        Dots {
            width,
            height,
            are_set: vec![false; width * height],
        }
    }

    fn is_set(&self, x: usize, y: usize) -> bool {
        x < self.width && y < self.height && self.are_set[y * self.width + x]
    }

    /// A straight line; what lies outside is left out.
    fn line(&mut self, from: (f64, f64), to: (f64, f64)) {
        let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil();
        for step in 0..=steps as usize {
            let part = step as f64 / steps.max(1.0);
            let x = (from.0 + (to.0 - from.0) * part).round();
            let y = (from.1 + (to.1 - from.1) * part).round();
            if x >= 0.0 && y >= 0.0 && (x as usize) < self.width && (y as usize) < self.height {
                self.are_set[y as usize * self.width + x as usize] = true;
            }
        }
    }

    fn text(&self) -> String {
        // The bit of each dot in the letter, column by column.
        const BITS: [[u32; 4]; 2] = [[0, 1, 2, 6], [3, 4, 5, 7]];
        let mut text = String::new();
        for top in (0..self.height).step_by(4) {
            for left in (0..self.width).step_by(2) {
                let mut letter = 0x2800;
                for (x, column) in BITS.iter().enumerate() {
                    for (y, bit) in column.iter().enumerate() {
                        letter |= u32::from(self.is_set(left + x, top + y)) << bit;
                    }
                }
                text.push(char::from_u32(letter).unwrap_or(' '));
            }
            text.push('\n');
        }
        text
    }
}

/// Squares in rows; the further down, the more they turn and stray.
fn schotter(exec: &mut Exec<'_>, columns: usize, [across, down]: [usize; 2]) -> String {
    let width = columns * 2;
    let margin = if width > 4 { 2 } else { 0 };
    let side = (width - 2 * margin) as f64 / across as f64;
    let mut dots = Dots::new(width, (side * down as f64) as usize + 2 * margin);
    for row in 0..down {
        let disorder = row as f64 / down as f64;
        for column in 0..across {
            let mut any = || exec.random.f64() * 2.0 - 1.0;
            let (turn, stray) = (any() * disorder, [any(), any()]);
            let at = |place: usize, stray: f64| {
                margin as f64 + side * (place as f64 + 0.5) + stray * disorder * side / 3.0
            };
            let (x, y) = (at(column, stray[0]), at(row, stray[1]));
            let corner = |n: u32| {
                let angle = turn + std::f64::consts::FRAC_PI_4 * f64::from(2 * n + 1);
                let reach = side / std::f64::consts::SQRT_2;
                (x + reach * angle.cos(), y + reach * angle.sin())
            };
            (0..4).for_each(|n| dots.line(corner(n), corner(n + 1)));
        }
    }
    dots.text()
}

/// Houses before houses, with windows, some of them lit.
fn skyline(exec: &mut Exec<'_>, [columns, rows]: [usize; 2]) -> String {
    let mut picture = vec![vec![b' '; columns]; rows];
    // Far houses are high and pale.
    for (distance, wall) in [(3, b':'), (2, b'-'), (1, b'#')] {
        let mut left = 0;
        while left < columns {
            let width = exec.random.usize(4..12);
            let height = exec.random.usize(0..=rows * (distance + 1) / 5);
            for (from_ground, row) in picture.iter_mut().rev().take(height).enumerate() {
                let right = (left + width).min(columns);
                for (x, letter) in row[left..right].iter_mut().enumerate() {
                    let is_window = distance == 1 && from_ground % 2 == 1 && x % 3 == 1;
                    *letter = match is_window {
                        true if exec.random.u8(0..3) == 0 => b'O',
                        true => b'.',
                        false => wall,
                    };
                }
            }
            left += width + exec.random.usize(0..3);
        }
    }
    let lines = picture.into_iter().map(|mut row| {
        row.push(b'\n');
        String::from_utf8_lossy(&row).into_owned()
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use crate::command::testing::{Bench, split};

    #[test]
    fn pictures_have_the_size_that_was_asked_for() {
        let mut bench = Bench::new();
        let mut ask = |line: &str| {
            let (reply, _) = bench.run_words(&split(line));
            String::from_utf8(reply).expect("a text")
        };
        for (name, line, signature, lines, columns) in [
            ("none", "LOLWUT", 1, 0, 0),
            ("of an unknown version", "LOLWUT VERSION 4", 1, 0, 0),
            ("squares", "LOLWUT VERSION 5 20 4 2", 2, 6, 20),
            (
                "squares too small to see",
                "LOLWUT version 5 1 200 1",
                2,
                0,
                1,
            ),
            ("limits", "LOLWUT VERSION 5 0 1 1", 2, 1, 1),
            ("houses", "LOLWUT VERSION 6 30 7", 2, 7, 30),
            ("one house", "LOLWUT VERSION 6 -5 -5", 2, 1, 1),
        ] {
            let reply = ask(line);
            let (_, text) = reply.split_once("\r\n").expect("a string");
            let lines_of_all: Vec<&str> = text.trim_end().lines().collect();
            let (picture, below) = lines_of_all.split_at(lines_of_all.len() - signature);
            assert!(
                below.concat().ends_with("Redis ver. 7.2.5"),
                "{name}: {text}"
            );
            assert_eq!(picture.len(), lines, "{name}: {text}");
            let widths = picture.iter().map(|line| line.chars().count());
            assert!(
                widths.into_iter().all(|width| width == columns),
                "{name}: {text}"
            );
        }
        for line in [
            "LOLWUT VERSION x",
            "LOLWUT VERSION 5 x",
            "LOLWUT VERSION 6 1 y",
        ] {
            let reply = ask(line);
            assert!(reply.contains("ERR value is not an integer"), "{reply}");
        }
    }
}
