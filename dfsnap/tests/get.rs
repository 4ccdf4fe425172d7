//! `dfsnap get` on sets: what cannot have the key is not read, which damage there shows.

mod dumps;

use dfsnap_formats::dataset::Entry;
use dfsnap_formats::dfs::manifest::{FileEntry, Manifest, Sums};
use dfsnap_formats::dfs::names::{Member, Name, SnapshotId};
use dfsnap_formats::dfs::placement::Placement;
use dfsnap_formats::dfs::writer::{Identity, Options, ShardFile, Summary};
use dumps::*;
use std::ops::Range;
use std::path::Path;
use tempfile::tempdir;

const BLOCK_BYTES: u64 = 1 << 20;

/// So many strings of some hundred bytes, and one of two megabytes, which is a run of its own.
fn entries(count: usize) -> Vec<Entry> {
    let text = |n: usize| format!("{n:x}").repeat(20 + n % 30);
    let mut entries: Vec<Entry> = (0..count)
        .map(|n| in_db(string(&format!("key:{n}"), &text(n)), (n % 3) as u32))
        .collect();
    entries.push(string("large", &"large ".repeat(350_000)));
    entries
}

fn read_manifest(folder: &Path) -> Manifest {
    Manifest::parse(&std::fs::read(folder.join("set-manifest.json")).unwrap()).unwrap()
}

/// Spoils bytes of a file, which stays as long as it is.
fn spoil(path: &Path, ranges: &[Range<u64>]) {
    let mut bytes = std::fs::read(path).unwrap();
    for range in ranges {
        bytes[range.start as usize..range.end as usize].fill(0x63);
    }
    std::fs::write(path, bytes).unwrap();
}

/// Spoils all runs that cannot have the key. The answer is how many bytes are left of how many.
fn spoil_others(folder: &Path, manifest: &Manifest, key: &str) -> (u64, u64) {
    let (mut left, mut all) = (0, 0);
    for file in &manifest.files {
        let others = file.runs.iter().filter(|run| !run.may_have(key.as_bytes()));
        let others: Vec<Range<u64>> = others.map(|run| run.from..run.end()).collect();
        let spoiled: u64 = others.iter().map(|range| range.end - range.start).sum();
        spoil(&folder.join(&file.name), &others);
        all += file.sums.bytes;
        left += file.sums.bytes - spoiled;
    }
    (left, all)
}

#[test]
fn runs_that_cannot_have_the_key_are_not_read() {
    let entries = entries(30_000);
    for method in ["lz4", "zstd", "none"] {
        let folder = tempdir().unwrap();
        let folder = folder.path();
        write(folder, "dump.rdb", &rdb(&entries));
        for key in ["key:0", "key:17004", "key:29999", "large"] {
            let args = [
                "convert",
                "dump.rdb",
                "set",
                "--to",
                "dfs",
                "--compression",
                method,
            ];
            let run = dfsnap(folder, &args);
            assert_eq!(run.code, Some(0), "{}", run.err);
            let want = dfsnap(folder, &["get", "dump.rdb", key]);
            assert_eq!(dfsnap(folder, &["get", "set", key]).out, want.out);
            let manifest = read_manifest(folder);
            let (left, all) = spoil_others(folder, &manifest, key);
            // One run of each hundred is read by mistake at most.
            assert!(
                key == "large" || left * 3 < all,
                "{method}, {key}: {left} of {all}"
            );
            let run = dfsnap(folder, &["get", "set", key]);
            assert_eq!(
                (run.code, run.out),
                (Some(0), want.out),
                "{method}, {key}: {}",
                run.err
            );
            // Whoever reads all of it meets the damage.
            assert_eq!(
                dfsnap(folder, &["ls", "set"]).code,
                Some(2),
                "{method}, {key}"
            );
        }
    }
}

#[test]
fn a_manifest_that_says_nothing_or_lies_costs_time_only() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    write(folder, "dump.rdb", &rdb(&entries(20_000)));
    dfsnap(folder, &["convert", "dump.rdb", "set", "--to", "dfs"]);
    let whole = read_manifest(folder);
    let with = |change: &dyn Fn(&mut FileEntry)| {
        let mut manifest = whole.clone();
        manifest.files.iter_mut().for_each(change);
        write(folder, "set-manifest.json", manifest.to_json().as_bytes());
    };
    type Change = dyn Fn(&mut FileEntry);
    let changes: [(&str, &Change); 4] = [
        ("no runs", &|file| file.runs.clear()),
        ("no sieves", &|file| {
            file.runs.iter_mut().for_each(|run| run.keys = None);
        }),
        ("sieves of other keys", &|file| {
            let sieve = dfsnap_formats::dfs::index::Sieve::of(&[]);
            file.runs
                .iter_mut()
                .for_each(|run| run.keys = Some(sieve.clone()));
        }),
        ("runs elsewhere", &|file| {
            for run in &mut file.runs {
                run.from += 1;
                run.bytes -= 1;
            }
        }),
    ];
    for (name, change) in changes {
        with(change);
        for key in ["key:0", "key:19999", "large"] {
            let (found, want) = ("set", "dump.rdb");
            let run = dfsnap(folder, &["get", found, key]);
            // Where what is read are no records, that is told.
            if name == "runs elsewhere" && run.code == Some(2) {
                assert!(run.err.contains("try: dfsnap verify"), "{}", run.err);
                continue;
            }
            assert_eq!(
                run.out,
                dfsnap(folder, &["get", want, key]).out,
                "{name}, {key}"
            );
        }
    }
    with(&|_| {});
    let run = dfsnap(folder, &["get", "set", "nothing"]);
    assert_eq!(run.code, Some(2));
    assert!(
        run.err.contains("no key") && run.err.contains("try: dfsnap ls"),
        "{}",
        run.err
    );
    let run = dfsnap(folder, &["get", "set", "key:1", "--db", "2"]);
    assert!(run.err.contains("no key"), "{}", run.err);
    // A set without a manifest, as Dragonfly's are.
    std::fs::remove_file(folder.join("set-manifest.json")).unwrap();
    assert_eq!(dfsnap(folder, &["get", "set", "key:5"]).code, Some(0));
}

#[test]
fn of_a_set_of_our_server_the_file_of_the_shard_is_read() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    let (seed, shards) = (0x1234_5678_9abc_def0, 3);
    let placement = Placement::new(seed, usize::from(shards));
    let identity = Identity {
        snapshot_id: SnapshotId([9; 16]),
        created_at_s: 1_700_000_000,
        used_memory: 0,
        writer_version: None,
    };
    let all = entries(3000);
    let mut files = Vec::new();
    let mut put = |member: Member, keys: u64, bytes: &[u8]| {
        let name = Name::of("set", member);
        write(folder, &name, bytes);
        files.push(FileEntry {
            name,
            keys,
            sums: Sums::of(bytes, BLOCK_BYTES),
            runs: Vec::new(),
        });
    };
    for shard in 0..shards {
        let mut bytes = Vec::new();
        let mut file = ShardFile::start(&identity, shard, Options::default(), &mut bytes);
        let its = |entry: &&Entry| placement.shard_of(&entry.key) == usize::from(shard);
        for entry in all.iter().filter(its) {
            file.entry(entry, &mut bytes).unwrap();
        }
        let keys = file.finish(&mut bytes);
        assert!(keys > 900, "{keys} keys in shard {shard}");
        put(Member::Shard(shard), keys, &bytes);
    }
    let mut bytes = Vec::new();
    Summary::default().write(&identity, shards, &mut bytes);
    put(Member::Summary, 0, &bytes);
    let manifest = Manifest {
        snapshot_id: identity.snapshot_id,
        replication: None,
        block_bytes: BLOCK_BYTES,
        hash_seed: Some(seed),
        files,
    };
    write(folder, "set-manifest.json", manifest.to_json().as_bytes());
    write(folder, "dump.rdb", &rdb(&all));
    for key in ["key:0", "key:1", "key:2", "key:1500", "large"] {
        let kept = placement.shard_of(key.as_bytes());
        let saved: Vec<Vec<u8>> = manifest
            .files
            .iter()
            .map(|file| std::fs::read(folder.join(&file.name)).unwrap())
            .collect();
        for (shard, file) in manifest.files[..usize::from(shards)].iter().enumerate() {
            if shard != kept {
                let behind_the_header = 200..file.sums.bytes;
                spoil(
                    &folder.join(&file.name),
                    std::slice::from_ref(&behind_the_header),
                );
            }
        }
        let want = dfsnap(folder, &["get", "dump.rdb", key]).out;
        let run = dfsnap(folder, &["get", "set", key]);
        assert_eq!((run.code, run.out), (Some(0), want), "{key}: {}", run.err);
        for (file, bytes) in manifest.files.iter().zip(saved) {
            write(folder, &file.name, &bytes);
        }
    }
}
