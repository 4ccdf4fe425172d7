//! Damaged copies of every real file through the fuzz targets: each byte of small ones, random bytes of large ones.
//!
//! The work is done by a second process whose address space may grow by `SLACK` and a small multiple of the file: whoever
//! believes a length and reserves memory for it ends there, and so does whoever panics. `DFSNAP_SEED` and
//! `DFSNAP_SECONDS` (for each file format) repeat and prolong it.

mod support;

#[path = "../../fuzz/src/targets.rs"]
mod targets;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::Random;

const CHILD: &str = "DFSNAP_MUTATION_CHILD";
/// What the allocator may take on top, whatever the file.
const SLACK: u64 = 64 << 20;
/// Bytes of memory for a byte of the file. LZF alone expands to 88 times, and targets hold several forms of a value.
const MULTIPLE: u64 = 400;
/// Up to here every byte is damaged.
const SMALL: usize = 1024;

/// Targets, and the endings of the files that are damaged for them.
const FORMATS: &[(&str, &[&str])] = &[
    ("rdb", &["rdb"]),
    ("rdb-lenient", &["rdb"]),
    ("aof", &["aof"]),
    ("manifest", &["manifest"]),
    ("dfs", &["dfs"]),
    ("dfs-lenient", &["dfs"]),
    ("json", &["jsonl", "ndjson"]),
];

fn files(endings: &[&str]) -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")];
    if let Some(corpus) = support::corpus::corpus() {
        folders.push(corpus);
    }
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|e| endings.iter().any(|ending| e == *ending))
            {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn mutants(bytes: &[u8], random: &mut Random) -> Vec<Vec<u8>> {
    let with = |at: usize, byte: u8| {
        let mut mutant = bytes.to_vec();
        mutant[at] = byte;
        mutant
    };
    let mut mutants = Vec::new();
    if bytes.len() <= SMALL {
        for (at, byte) in bytes.iter().enumerate() {
            mutants.extend([byte ^ 1, byte ^ 0x80, 0, 0xFF].map(|byte| with(at, byte)));
            mutants.push(bytes[..at].to_vec());
        }
    } else {
        let count = if bytes.len() > 100_000 { 1 } else { 12 };
        for _ in 0..count {
            let at = random.below(bytes.len());
            mutants.push(with(at, random.below(256) as u8));
        }
        mutants.push(bytes[..random.below(bytes.len())].to_vec());
    }
    mutants
}

/// Lets this process grow by that many bytes from now on.
fn limit_memory(bytes: u64) {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split(' ').next().unwrap().parse().unwrap();
    let current = Some(pages * rustix::param::page_size() as u64 + bytes);
    let maximum = getrlimit(Resource::As).maximum;
    setrlimit(Resource::As, Rlimit { current, maximum }).unwrap();
}

fn seed() -> u64 {
    let given = std::env::var("DFSNAP_SEED").ok();
    given.map_or(0xD1CE, |text| {
        text.parse().expect("DFSNAP_SEED is a number")
    })
}

fn damage_everything(target: &str) {
    let run = targets::TARGETS
        .iter()
        .find(|(name, _)| *name == target)
        .unwrap()
        .1;
    let endings = FORMATS.iter().find(|(name, _)| *name == target).unwrap().1;
    let seconds = std::env::var("DFSNAP_SECONDS").ok();
    let until = seconds.map(|text| Instant::now() + Duration::from_secs(text.parse().unwrap()));
    let mut random = Random(seed());
    let mut runs = 0u64;
    loop {
        for path in files(endings) {
            let bytes = std::fs::read(&path).unwrap();
            limit_memory(SLACK + MULTIPLE * bytes.len() as u64);
            for (turn, mutant) in mutants(&bytes, &mut random).iter().enumerate() {
                // The last line tells where it ended.
                println!("{} {turn}", path.display());
                run(mutant);
                runs += 1;
            }
        }
        if until.is_none_or(|until| Instant::now() >= until) {
            println!("{runs} runs");
            return;
        }
    }
}

/// Not a test of its own: what the others start.
#[test]
fn child() {
    if let Ok(target) = std::env::var(CHILD) {
        damage_everything(&target);
    }
}

#[test]
fn damaged_files_only_cause_errors() {
    println!("seed {}", seed());
    for (target, _) in FORMATS {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, target)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = said.lines().collect();
        let last = lines.iter().rev().take(8).rev();
        assert!(
            output.status.success(),
            "{target}: {}\n{}\n{}",
            output.status,
            last.copied().collect::<Vec<_>>().join("\n"),
            String::from_utf8_lossy(&output.stderr)
        );
        let runs = lines.iter().find(|line| line.ends_with(" runs"));
        println!("{target}: {}", runs.unwrap_or(&"no runs"));
    }
}
