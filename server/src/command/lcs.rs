//! LCS: what two strings have in common.

use super::words::{int, is};
use super::{Args, Command, CommandError, CommandResult, Effect, Exec, Flags, Group, KeySpec};

/// The rows.
#[rustfmt::skip]
pub const COMMANDS: &[Command] = &[
    Command::keyed("lcs", -3, Flags::READONLY, KeySpec::TWO, lcs)
        .about(Group::String, "7.0.0", "The longest common subsequence of two strings."),
];

/// A run of equal bytes: where it starts in either string, and how long it is.
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

/// Lengths of the longest common subsequences of all pairs of prefixes.
struct Lengths {
    cells: Vec<u32>,
    width: usize,
}

impl Lengths {
    fn new(a: &[u8], b: &[u8]) -> Lengths {
        let width = b.len() + 1;
        let mut lengths = Lengths {
            cells: vec![0; (a.len() + 1) * width],
            width,
        };
        for (i, x) in a.iter().enumerate() {
            for (j, y) in b.iter().enumerate() {
                let len = if x == y {
                    lengths.at(i, j) + 1
                } else {
                    lengths.at(i, j + 1).max(lengths.at(i + 1, j))
                };
                lengths.cells[(i + 1) * width + j + 1] = len;
            }
        }
        lengths
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.width + j]
    }

    /// The runs of one longest common subsequence, last one first.
    fn matches(&self, a: &[u8], b: &[u8]) -> Vec<Match> {
        let (mut i, mut j) = (a.len(), b.len());
        let mut runs: Vec<Match> = Vec::new();
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                match runs.last_mut() {
                    Some(run) if run.a == i + 1 && run.b == j + 1 => {
                        (run.a, run.b) = (i, j);
                        run.len += 1;
                    }
                    _ => runs.push(Match { a: i, b: j, len: 1 }),
                }
            } else if self.at(i - 1, j) > self.at(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        runs
    }
}

fn lcs(exec: &mut Exec<'_>, args: Args<'_>) -> CommandResult {
    const NO_STRINGS: CommandError =
        CommandError::text("ERR The specified keys must contain string values");
    let string = |exec: &mut Exec<'_>, key: &[u8]| -> Result<Vec<u8>, CommandError> {
        let bytes = exec.read_string(key).map_err(|_| NO_STRINGS)?;
        Ok(bytes.map_or(Vec::new(), |bytes| bytes.into_owned()))
    };
    let (a, b) = (string(exec, args[1])?, string(exec, args[2])?);
    let (mut wants_len, mut wants_index, mut with_len, mut len_min) = (false, false, false, 0);
    let mut words = args[3..].iter();
    while let Some(word) = words.next() {
        match word {
            word if is(word, "len") => wants_len = true,
            word if is(word, "idx") => wants_index = true,
            word if is(word, "withmatchlen") => with_len = true,
            word if is(word, "minmatchlen") && words.len() > 0 => {
                let number = words
                    .next()
                    .map_or(Err(CommandError::SYNTAX), |word| int(word))?;
                len_min = usize::try_from(number).unwrap_or(0);
            }
            _ => return Err(CommandError::SYNTAX),
        }
    }
    if wants_len && wants_index {
        return Err(CommandError::text(
            "ERR If you want both the length and indexes, please just use IDX.",
        ));
    }
    let cells = (a.len() as u64 + 1)
        .checked_mul(b.len() as u64 + 1)
        .and_then(|cells| cells.checked_mul(4));
    if cells.is_none_or(|bytes| bytes > exec.settings.string_bytes_max) {
        return Err(CommandError::text(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }
    let lengths = Lengths::new(&a, &b);
    let len = i64::from(lengths.at(a.len(), b.len()));
    if wants_len {
        exec.reply.int(len);
        return Ok(Effect::None);
    }
    let mut runs = lengths.matches(&a, &b);
    if !wants_index {
        let text: Vec<u8> = runs
            .iter()
            .rev()
            .flat_map(|run| &a[run.a..run.a + run.len])
            .copied()
            .collect();
        exec.reply.bulk(&text);
        return Ok(Effect::None);
    }
    runs.retain(|run| run.len >= len_min);
    exec.reply.map(2);
    exec.reply.bulk(b"matches");
    exec.reply.array(runs.len());
    for run in &runs {
        exec.reply.array(if with_len { 3 } else { 2 });
        for start in [run.a, run.b] {
            exec.reply.array(2);
            exec.reply.int(start as i64);
            exec.reply.int((start + run.len - 1) as i64);
        }
        if with_len {
            exec.reply.int(run.len as i64);
        }
    }
    exec.reply.bulk(b"len");
    exec.reply.int(len);
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use crate::command::testing::compare_with_redis;

    #[test]
    fn replies_are_those_of_redis() {
        compare_with_redis(
            r#"
            SET a ohmytext
            SET b mynewtext
            SET c AGGTAB
            SET d GXTXAYB
            RPUSH l 1
            LCS a b
            LCS a b LEN
            LCS a b IDX
            LCS a b IDX MINMATCHLEN 4
            LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN
            LCS a b IDX WITHMATCHLEN
            LCS c d
            LCS c d IDX WITHMATCHLEN
            LCS d c IDX
            LCS a a IDX
            LCS a none
            LCS a none IDX
            LCS none none LEN
            LCS a l
            LCS a b LEN IDX
            LCS a b FOO
            LCS a b MINMATCHLEN x
        "#,
        );
    }
}
