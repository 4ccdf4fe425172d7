//! The benchmark of everything that reads and writes dumps, beside `redis-check-rdb` on the same file.
//!
//! Each measurement is a process of its own, pinned to one processor, in alternating rounds; ratios are of neighbouring
//! runs. `docs/benchmarks.md` says what each row means.

mod mixed;
#[path = "../bench/table.rs"]
mod table;
mod walks;

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use rustix::process::{Pid, WaitId, WaitIdOptions};
use table::{Samples, Table};

const USAGE: &str = "\
usage: bench-dumps [--mb N] [--rounds N] [--file PATH] [--check PATH]
       bench-dumps make PATH MB [large]   only writes the dump
       bench-dumps walk NAME PATH      one measurement in this process

  --mb N         size of the dump (1000)
  --profile P    mixed: small values, packs and large collections; large: large collections (mixed)
  --rounds N     how often each measurement is made (5)
  --file PATH    this dump instead of one that is made
  --check PATH   redis-check-rdb

A Markdown table goes to standard output, progress to standard error.
";

struct Plan {
    is_large: bool,
    megabytes: u64,
    rounds: usize,
    file: Option<PathBuf>,
    check: PathBuf,
}

fn plan(args: &[String]) -> anyhow::Result<Plan> {
    let mut plan = Plan {
        is_large: false,
        megabytes: 1000,
        rounds: 5,
        file: None,
        check: "redis-check-rdb".into(),
    };
    for pair in args.chunks(2) {
        let [name, value] = pair else {
            bail!("{}: a value is missing\n\n{USAGE}", pair[0]);
        };
        match name.as_str() {
            "--profile" => match value.as_str() {
                "mixed" => plan.is_large = false,
                "large" => plan.is_large = true,
                _ => bail!("{value}: there are mixed and large"),
            },
            "--mb" => plan.megabytes = value.parse().context("--mb")?,
            "--rounds" => plan.rounds = value.parse().context("--rounds")?,
            "--file" => plan.file = Some(value.into()),
            "--check" => plan.check = value.into(),
            _ => bail!("unknown option {name}\n\n{USAGE}"),
        }
    }
    Ok(plan)
}

/// CPU seconds of a run, of which others on the machine take nothing away, and what it printed.
fn run_pinned(command: &mut Command) -> anyhow::Result<(f64, String)> {
    let mut said = tempfile::tempfile()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .spawn()
        .with_context(|| format!("running {command:?}"))?;
    let pid = Pid::from_child(&child);
    // It has ended then, but its numbers are still there.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::Pid(pid), options)?;
    let schedstat = std::fs::read_to_string(format!("/proc/{}/schedstat", child.id()))?;
    let nanoseconds = schedstat.split(' ').next().unwrap_or_default();
    let nanoseconds: f64 = nanoseconds.parse().context("schedstat")?;
    let status = child.wait()?;
    let mut text = String::new();
    said.rewind()?;
    said.read_to_string(&mut text)?;
    if !status.success() {
        bail!("{command:?}: {status}: {text}");
    }
    Ok((nanoseconds / 1e9, text))
}

fn pinned(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(program);
    command
}

fn measure(plan: &Plan) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let made = folder.path().join("mixed.rdb");
    let file = match &plan.file {
        Some(file) => file,
        None => {
            eprintln!("making a dump of {} MB", plan.megabytes);
            mixed::make(&made, plan.megabytes, plan.is_large)?;
            &made
        }
    };
    let megabytes = file.metadata()?.len() as f64 / 1e6;
    let this = std::env::current_exe()?;
    let mut theirs = Samples::default();
    let mut ours: Vec<(Samples, String)> = walks::NAMES.map(|_| Default::default()).to_vec();
    for round in 0..plan.rounds {
        eprintln!("round {}", round + 1);
        theirs.push(run_pinned(pinned(&plan.check).arg(file))?.0);
        for (name, (samples, said)) in walks::NAMES.iter().zip(&mut ours) {
            let (seconds, text) = run_pinned(pinned(&this).arg("walk").arg(name).arg(file))?;
            samples.push(seconds);
            *said = text.trim().to_owned();
        }
    }
    let kind = if plan.is_large {
        "large collections"
    } else {
        "mixed"
    };
    let title = format!("One core, {kind}, a dump of {megabytes:.0} MB");
    let columns = [
        "what",
        "CPU s",
        "MB/s",
        "redis-check-rdb CPU s",
        "times as fast",
        "peak MB, and more",
    ];
    let mut table = Table::new(&title, &columns);
    for (name, (samples, said)) in walks::NAMES.iter().zip(&ours) {
        table.row(&[
            (*name).to_owned(),
            format!("{:.2}", samples.median()),
            format!("{:.0}", megabytes / samples.median()),
            format!("{:.2}", theirs.median()),
            Samples::ratio(&theirs, samples),
            said.clone(),
        ]);
    }
    table.print();
    Ok(())
}

fn run() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--help" | "-h", ..] => print!("{USAGE}"),
        ["make", path, megabytes, rest @ ..] => {
            let megabytes = megabytes.parse().context("MB")?;
            let keys = mixed::make(Path::new(path), megabytes, rest == ["large"])?;
            println!("{keys} keys");
        }
        ["walk", name, path] => walks::walk(name, Path::new(path))?,
        _ => measure(&plan(&args)?)?,
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-dumps: {error:#}");
            ExitCode::from(2)
        }
    }
}
