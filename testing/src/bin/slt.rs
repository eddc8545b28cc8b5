//! `make torture-slt`: scripts of SQLite's sqllogictest format on a node, beside plain SQLite. Usage:
//!
//! ```text
//! slt PROGRAM LIBRARY [--records N] [--seed S] [--always] [--node-option OPTION]... [FILE]...
//! slt --print SEED
//! ```
//!
//! `--always` compares what is stored after every record. The files first, each in several ways, then generated scripts from seed S on until at least N records were run. `--print` writes a
//! generated script. Exits with 1 if anything differs, or if fewer records were run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dqlite_testing::process::{Library, NodeOptions, NodeProcess, free_address};
use dqlite_testing::slt::generate;
use dqlite_testing::slt::run::{Place, run_all};
use dqlite_testing::slt::script::Script;

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: slt PROGRAM LIBRARY [--records N] [--seed S] [--always] [--node-option OPTION]... [FILE]... | slt --print SEED";
const RECORDS_DEFAULT: u64 = 200_000;
/// Records of a generated script.
const SCRIPT_RECORDS: usize = 400;
/// How often each file is run, in other ways each time.
const FILE_RUNS: u64 = 8;
/// Scripts at once.
const WORKERS: usize = 6;

struct Plan {
    program: PathBuf,
    library: Library,
    records: u64,
    seed: u64,
    node_options: Vec<String>,
    looks_always: bool,
    files: Vec<PathBuf>,
}

fn plan(mut arguments: impl Iterator<Item = String>) -> Result<Plan, Failure> {
    let mut next = move || arguments.next();
    let (program, library) = (next().ok_or(USAGE)?.into(), Library::at(Path::new(&next().ok_or(USAGE)?)));
    let (records, seed) = (RECORDS_DEFAULT, 1);
    let mut plan = Plan {
        program,
        library,
        records,
        seed,
        node_options: Vec::new(),
        looks_always: false,
        files: Vec::new(),
    };
    while let Some(argument) = next() {
        match argument.as_str() {
            "--records" => plan.records = next().ok_or(USAGE)?.parse()?,
            "--seed" => plan.seed = next().ok_or(USAGE)?.parse()?,
            "--always" => plan.looks_always = true,
            "--node-option" => plan.node_options.push(next().ok_or(USAGE)?),
            _ => plan.files.push(argument.into()),
        }
    }
    Ok(plan)
}

fn main() -> Result<ExitCode, Failure> {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if_eq("--print").is_some() {
        let seed = arguments.next().ok_or(USAGE)?.parse()?;
        print!("{}", generate::script(seed, SCRIPT_RECORDS));
        return Ok(ExitCode::SUCCESS);
    }
    let plan = plan(arguments)?;
    let files: Vec<(String, String)> = plan
        .files
        .iter()
        .map(|file| Ok((file.display().to_string(), std::fs::read_to_string(file)?)))
        .collect::<std::io::Result<_>>()?;
    let mut scripts = Vec::new();
    for (name, text) in &files {
        for run in 0..FILE_RUNS {
            scripts.push(Script::parse(name, text, plan.seed + run)?);
        }
    }
    let folder = tempfile::tempdir()?;
    let (directory, plain) = (folder.path().join("data"), folder.path().join("plain"));
    std::fs::create_dir(&directory)?;
    std::fs::create_dir(&plain)?;
    let address = free_address()?;
    let options = NodeOptions {
        program: plan.program,
        library: plan.library,
        id: 1,
        address: address.clone(),
        directory,
        arguments: plan.node_options,
    };
    let mut node = NodeProcess::start(&options)?;
    let begin = Instant::now();
    let given = AtomicU64::new(scripts.iter().map(|script| script.steps.len() as u64).sum());
    let next = |number: usize| {
        if let Some(script) = scripts.get(number) {
            return Some(script.clone());
        }
        let seed = plan.seed + (number - scripts.len()) as u64;
        // More than asked for: a script ends early where a rowid is drawn by chance.
        if given.fetch_add(SCRIPT_RECORDS as u64, Ordering::Relaxed) >= plan.records + plan.records / 10 {
            return None;
        }
        let text = generate::script(seed, SCRIPT_RECORDS);
        // A script that is not in the format is a mistake of the generator, which its test finds.
        Some(Script::parse(&format!("seed {seed}"), &text, seed).expect("the generator keeps to the format"))
    };
    let report = run_all(
        Place { address: &address, folder: &plain, looks_always: plan.looks_always },
        WORKERS,
        &next,
    )?;
    println!("{}", report.summary());
    let took = begin.elapsed();
    println!("{took:.1?}, {:.0} records/s", report.records as f64 / took.as_secs_f64());
    let stopped = node.stop()?;
    if !stopped.success() {
        println!("the node ended with {stopped}: {}", node.error_text());
    }
    let all = report.records >= plan.records && report.differences.is_empty() && stopped.success();
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
