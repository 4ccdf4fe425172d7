//! SLOWLOG and LATENCY.

use std::sync::atomic::Ordering;

use super::connection::Connection;
use crate::clock::now_ms;
use crate::command::{CommandError, table};
use crate::keyspace::value::canonical_i64;
use crate::stats::CommandStats;
use crate::stats::latency::Series;

pub(super) fn unknown(container: &str, word: &[u8]) -> CommandError {
    CommandError::new(format!(
        "unknown subcommand '{}'. Try {container} HELP.",
        String::from_utf8_lossy(word)
    ))
}

pub(super) fn wrong_arity(container: &str, word: &[u8]) -> CommandError {
    let name = String::from_utf8_lossy(word).to_lowercase();
    CommandError::wrong_arity(&format!("{container}|{name}"))
}

/// SLOWLOG and its subcommands.
pub fn slowlog(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
    let recorder = connection.thread.world.recorder.clone();
    let out = &mut connection.out;
    match (args[1].to_ascii_lowercase().as_slice(), &args[2..]) {
        (b"get", count @ ([] | [_])) => {
            let count =
                match count.first() {
                    None => 10,
                    Some(word) => canonical_i64(word).filter(|&count| count >= -1).ok_or(
                        CommandError::text("ERR count should be greater than or equal to -1"),
                    )?,
                };
            let entries = recorder
                .slowlog
                .newest(usize::try_from(count).unwrap_or(usize::MAX));
            out.array(entries.len());
            for entry in entries {
                out.array(6);
                out.int(entry.id as i64);
                out.int(entry.at_s);
                out.int(entry.micros as i64);
                out.array(entry.words.len());
                entry.words.iter().for_each(|word| out.bulk(word));
                out.bulk(entry.addr.as_bytes());
                out.bulk(entry.name.as_bytes());
            }
        }
        (b"len", []) => out.int(recorder.slowlog.len() as i64),
        (b"reset", []) => {
            recorder.slowlog.reset();
            out.ok();
        }
        (b"help", []) => help(
            connection,
            &[
                "SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
                "GET [<count>]",
                "    The newest entries (default: 10, -1: all). An entry is an array of",
                "    id, Unix time, duration in microseconds, the words of the command,",
                "    the client's address and its name.",
                "LEN",
                "    The number of entries.",
                "RESET",
                "    Forgets all entries.",
                "HELP",
                "    This text.",
            ],
        ),
        (b"get" | b"len" | b"reset" | b"help", _) => return Err(wrong_arity("slowlog", args[1])),
        _ => return Err(unknown("SLOWLOG", args[1])),
    }
    Ok(())
}

pub(super) fn help(connection: &mut Connection, lines: &[&str]) {
    connection.out.array(lines.len());
    lines.iter().for_each(|line| connection.out.simple(line));
}

/// What all threads have measured of commands.
pub async fn command_stats(connection: &Connection) -> CommandStats {
    let all = connection
        .thread
        .world
        .links
        .call_all(|shard| shard.stats.clone())
        .await
        .unwrap_or_default();
    let mut sum = CommandStats::default();
    all.iter().for_each(|stats| sum.add(stats));
    sum
}

/// LATENCY and its subcommands.
pub async fn latency(connection: &mut Connection, args: &[&[u8]]) -> Result<(), CommandError> {
    let recorder = connection.thread.world.recorder.clone();
    let monitor = &recorder.latency;
    match (args[1].to_ascii_lowercase().as_slice(), &args[2..]) {
        (b"latest", []) => {
            let all = monitor.all();
            connection.out.array(all.len());
            for (name, series) in all {
                let (at_s, ms) = series.samples.back().copied().unwrap_or_default();
                connection.out.array(4);
                connection.out.bulk(name.as_bytes());
                connection.out.int(at_s);
                connection.out.int(ms as i64);
                connection.out.int(series.longest_ms as i64);
            }
        }
        (b"history", [event]) => {
            let samples = monitor.samples(event);
            connection.out.array(samples.len());
            for (at_s, ms) in samples {
                connection.out.array(2);
                connection.out.int(at_s);
                connection.out.int(ms as i64);
            }
        }
        (b"reset", events) => {
            let count = monitor.reset(events);
            connection.out.int(count as i64);
        }
        (b"graph", [event]) => {
            let known = monitor.all();
            let series = known.iter().find(|(name, _)| name.as_bytes() == *event);
            let (name, series) = series.ok_or_else(|| {
                CommandError::new(format!(
                    "No samples available for event '{}'",
                    String::from_utf8_lossy(event)
                ))
            })?;
            let text = graph(name, series, now_ms() / 1000);
            connection.out.verbatim(b"txt", text.as_bytes());
        }
        (b"histogram", names) => histogram(connection, names).await,
        (b"doctor", []) => {
            let text = diagnosis(connection);
            connection.out.verbatim(b"txt", text.as_bytes());
        }
        (b"help", []) => help(
            connection,
            &[
                "LATENCY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
                "DOCTOR",
                "    What was slow, in words, and what may help.",
                "GRAPH <event>",
                "    A graph of the event's samples, in characters.",
                "HISTORY <event>",
                "    Time and duration of the event's samples.",
                "LATEST",
                "    The newest sample of each event.",
                "RESET [<event> ...]",
                "    Forgets events (default: all).",
                "HISTOGRAM [COMMAND ...]",
                "    How long runs of commands took (default: all commands), each power of two of microseconds with the runs up to it.",
                "HELP",
                "    This text.",
            ],
        ),
        (b"latest" | b"history" | b"graph" | b"doctor" | b"help", _) => {
            return Err(wrong_arity("latency", args[1]));
        }
        _ => return Err(unknown("LATENCY", args[1])),
    }
    Ok(())
}

/// What LATENCY DOCTOR says.
fn diagnosis(connection: &Connection) -> String {
    let recorder = &connection.thread.world.recorder;
    let threshold_ms = recorder.latency.threshold_ms.load(Ordering::Relaxed);
    if threshold_ms == 0 {
        return "The latency monitor is off. CONFIG SET latency-monitor-threshold <milliseconds> turns it on.\n".into();
    }
    let all = recorder.latency.all();
    if all.is_empty() {
        return format!("Nothing has taken {threshold_ms} ms or more since the server started.\n");
    }
    let mut text = format!("Events that took {threshold_ms} ms or more:\n");
    for (name, series) in &all {
        let count = series.samples.len() as u64;
        let sum: u64 = series.samples.iter().map(|(_, ms)| ms).sum();
        let average = sum / count.max(1);
        let deviation = series.samples.iter().map(|(_, ms)| ms.abs_diff(average));
        let deviation = deviation.sum::<u64>() / count.max(1);
        let (first_s, last_s) = match (series.samples.front(), series.samples.back()) {
            (Some((first, _)), Some((last, _))) => (*first, *last),
            _ => (0, 0),
        };
        let period = (last_s - first_s) as f64 / count.saturating_sub(1).max(1) as f64;
        text.push_str(&format!(
            "\n{name}: in {count} seconds, {average} ms on the average (mean deviation {deviation} ms), every {period:.1} s; the \
             longest of all {} ms.\n",
            series.longest_ms
        ));
        text.push_str(match *name {
            "command" => " A command of linear or worse cost over many elements: SLOWLOG GET names it.\n",
            "fast-command" => " A command that costs little took long: the machine had no processor for it. See the load and, in a \
                               virtual machine, the time that others took.\n",
            _ => "",
        });
    }
    let slower_than = connection.thread.world.config().slowlog_log_slower_than;
    if slower_than < 0 || slower_than as u64 > threshold_ms * 1000 {
        text.push_str(&format!(
            "\nThe slow log misses some of these: CONFIG SET slowlog-log-slower-than {} has it keep them.\n",
            threshold_ms * 1000
        ));
    }
    text
}

async fn histogram(connection: &mut Connection, names: &[&[u8]]) {
    let stats = command_stats(connection).await;
    let is_wanted = |name: &str| {
        names.is_empty()
            || names.iter().any(|wanted| {
                let wanted = String::from_utf8_lossy(wanted).to_lowercase();
                // A container stands for its subcommands.
                name == wanted
                    || (table::own(wanted.as_bytes()).is_some()
                        && name
                            .strip_prefix(&*wanted)
                            .is_some_and(|rest| rest.starts_with('|')))
            })
    };
    let chosen: Vec<_> = stats
        .commands()
        .into_iter()
        .filter(|(name, one)| one.histogram.total() > 0 && is_wanted(name))
        .collect();
    let out = &mut connection.out;
    out.map(chosen.len());
    for (name, one) in chosen {
        out.bulk(name.as_bytes());
        out.map(2);
        out.bulk(b"calls");
        out.int(one.histogram.total() as i64);
        out.bulk(b"histogram_usec");
        let doublings = one.histogram.doublings();
        out.map(doublings.len());
        for (micros, count) in doublings {
            out.int(micros as i64);
            out.int(count as i64);
        }
    }
}

/// Rows of the graph.
const GRAPH_ROWS: u64 = 4;

/// A column for each sample, as high as it is long; below, how long ago it was.
fn graph(name: &str, series: &Series, now_s: i64) -> String {
    let longest = series.samples.iter().map(|(_, ms)| *ms).max().unwrap_or(0);
    let shortest = series.samples.iter().map(|(_, ms)| *ms).min().unwrap_or(0);
    let mut text = format!(
        "{name} - high {longest} ms, low {shortest} ms (all time high {} ms)\n",
        series.longest_ms
    );
    text.push_str(&"-".repeat(80));
    text.push('\n');
    let span = (longest - shortest).max(1);
    let height = |ms: u64| (ms - shortest) * (GRAPH_ROWS * 2 - 1) / span;
    for row in (0..GRAPH_ROWS).rev() {
        let column = |(_, ms): &(i64, u64)| match height(*ms).checked_sub(row * 2) {
            None => {
                if row == 0 {
                    '_'
                } else {
                    ' '
                }
            }
            Some(0) if row == 0 => '_',
            Some(0) => 'o',
            Some(1) => {
                if height(*ms) == row * 2 + 1 {
                    '#'
                } else {
                    '|'
                }
            }
            Some(_) => '|',
        };
        text.extend(series.samples.iter().map(column));
        text.push('\n');
    }
    text.push('\n');
    let ages: Vec<String> = series
        .samples
        .iter()
        .map(|(at_s, _)| age(now_s - at_s))
        .collect();
    for line in 0..ages.iter().map(String::len).max().unwrap_or(0) {
        let letter = |age: &String| age.chars().nth(line).unwrap_or(' ');
        text.extend(ages.iter().map(letter));
        text.push('\n');
    }
    text
}

/// How long ago, in the largest unit that fits.
fn age(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..86_400 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_has_a_column_for_each_sample() {
        let series = Series {
            samples: [(0, 10), (50, 20), (90, 30)].into_iter().collect(),
            longest_ms: 40,
        };
        let text = graph("command", &series, 100);
        assert!(
            text.starts_with("command - high 30 ms, low 10 ms (all time high 40 ms)\n"),
            "{text}"
        );
        assert!(text.ends_with("151\nm00\n ss\n"), "{text}");
    }
}
