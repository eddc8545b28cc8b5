//! `make bench`: see `dqlite_testing::bench`. Writes `target/bench/` and prints a table.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dqlite_testing::bench::contender::Contender;
use dqlite_testing::bench::results::Results;
use dqlite_testing::bench::{self, Failure, Settings, measure, report};

const USAGE: &str = "usage: bench PROGRAM OUTPUT_FOLDER NAME=LIBRARY_FOLDER... [--upstream FOLDER] [--rounds N] [--seconds S]
    [--nodes N,N...] [--only TEXT] [--large MIB] [--large-rounds N] [--floor PROGRAM] [--node-argument TEXT]... [--rate N]
The first library is compared with the others. --upstream takes all versions that tests/upstream/fetch.sh unpacked.";

struct Arguments {
    program: PathBuf,
    output: PathBuf,
    contenders: Vec<Contender>,
    rounds: usize,
    /// Rounds in which the large database is made, too.
    large_rounds: usize,
    floor: Option<PathBuf>,
    settings: Settings,
}

fn main() -> Result<(), Failure> {
    let arguments = parse(std::env::args().skip(1))?;
    let Arguments { program, output, contenders, rounds, large_rounds, floor, settings } = arguments;
    std::fs::create_dir_all(&output)?;
    // Not /tmp, which may be memory: a sync must be one.
    let work = output.join(format!("work-{}", std::process::id()));
    let mut names: Vec<String> = contenders.iter().map(|contender| contender.name.clone()).collect();
    if floor.is_some() {
        names.push(bench::floor::NAME.to_owned());
    }
    let mut results = Results::default();
    for round in 1..=rounds {
        if let Some(floor) = &floor {
            std::fs::create_dir_all(&work)?;
            let measured = bench::floor::measure(floor, &work, &settings, &mut results);
            std::fs::remove_dir_all(&work)?;
            measured?;
        }
        let large_mib = if round <= large_rounds { settings.large_mib } else { 0 };
        let settings = Settings { large_mib, ..settings.clone() };
        for contender in &contenders {
            eprintln!("round {round} of {rounds}: {}", contender.name);
            let measured = measure(&program, &work, contender, &settings, &mut results);
            measured.map_err(|error| format!("{}: {error}", contender.name))?;
        }
        std::fs::write(output.join("bench.csv"), report::csv(&results, &names))?;
        std::fs::write(output.join("bench.md"), report::markdown(&results, &names))?;
    }
    print!("{}", report::markdown(&results, &names));
    Ok(())
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, Failure> {
    let (Some(program), Some(output)) = (words.next(), words.next()) else { return Err(USAGE.into()) };
    let mut arguments = Arguments {
        program: program.into(),
        output: output.into(),
        contenders: Vec::new(),
        rounds: 5,
        large_rounds: 1,
        floor: None,
        settings: Settings {
            time: Duration::from_secs(1),
            warm_up: Duration::from_millis(300),
            nodes: vec![1, 3],
            only: None,
            node_arguments: Vec::new(),
            rate: None,
            large_mib: 0,
        },
    };
    while let Some(word) = words.next() {
        if let Some((name, folder)) = word.split_once('=') {
            arguments.contenders.push(Contender::new(name, Path::new(folder)));
            continue;
        }
        let value = words.next().ok_or(USAGE)?;
        match word.as_str() {
            "--upstream" => arguments.contenders.extend(upstream(Path::new(&value))?),
            "--rounds" => arguments.rounds = value.parse()?,
            "--seconds" => arguments.settings.time = Duration::from_secs_f64(value.parse()?),
            "--nodes" => arguments.settings.nodes = numbers(&value)?,
            "--only" => arguments.settings.only = Some(value),
            "--node-argument" => arguments.settings.node_arguments.push(value),
            "--rate" => arguments.settings.rate = Some(value.parse()?),
            "--large-rounds" => arguments.large_rounds = value.parse()?,
            "--floor" => arguments.floor = Some(value.into()),
            "--large" => arguments.settings.large_mib = value.parse()?,
            _ => return Err(USAGE.into()),
        }
    }
    if arguments.contenders.is_empty() { Err(USAGE.into()) } else { Ok(arguments) }
}

fn numbers(text: &str) -> Result<Vec<usize>, Failure> {
    text.split(',').filter(|part| !part.is_empty()).map(|part| Ok(part.parse()?)).collect()
}

fn upstream(folder: &Path) -> Result<Vec<Contender>, Failure> {
    let mut roots = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.join(".complete").exists() {
            roots.push(path);
        }
    }
    roots.sort();
    Ok(roots.iter().map(|root| Contender::upstream(root)).collect())
}
