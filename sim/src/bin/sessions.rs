//! `sessions FIRST COUNT`: runs histories of the machine of sessions and says what they showed; exit status 1 after a violation.

use std::io::{Write, stderr};
use std::process::ExitCode;

use dqlite_sim::sessions::history;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let [first, count] = numbers[..] else {
        let _ = writeln!(stderr(), "usage: sessions FIRST COUNT [FAULT]");
        return ExitCode::from(2);
    };
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).with_writer(stderr).init();
    }
    let mut bad = 0;
    for seed in first..first + count {
        let begin = std::time::Instant::now();
        match history(seed) {
            Ok(report) => println!("{:?} {report:?}", begin.elapsed()),
            Err(error) => {
                bad += 1;
                println!("{:?} VIOLATION {error}", begin.elapsed());
            }
        }
    }
    println!("{bad} of {count}");
    ExitCode::from(u8::from(bad > 0))
}
