//! C programs that call every node function and print what they see, against what is written down (`tests-c/*.expected`;
//! `UPDATE_EXPECTED=1` writes it), in every dialect, under AddressSanitizer, ThreadSanitizer and valgrind. The same programs
//! run on upstream's libraries in `testing/tests/upstream_programs.rs`. Lines of c-api 7 are named above their sections.

#![allow(clippy::unwrap_used)]

mod library;

use std::path::Path;
use std::process::{Command, Output};

use library::{compile, compile_unlinked, run, shared_object};

/// Programs of sections. `clock` replaces functions of the C library, which the shared object is to find.
const PROGRAMS: [&str; 6] = ["abi", "recover", "connect", "host", "clock", "databases"];

const C11: &[&str] = &["-std=c11", "-rdynamic"];

/// Runs sections of a program that has been compiled, in a folder of its own.
fn sections(command: &mut Command) -> String {
    let work = tempfile::tempdir().unwrap();
    let seen = run(command.current_dir(work.path()));
    // A test below makes a folder that nobody may write to.
    let _ = Command::new("chmod").arg("-R").arg("u+w").arg(work.path()).status();
    seen
}

fn assert_as_written_down(name: &str, seen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests-c/{name}.expected"));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, seen).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    for (number, (seen, expected)) in seen.lines().zip(expected.lines()).enumerate() {
        assert_eq!(seen, expected, "line {} of {}", number + 1, path.display());
    }
    assert_eq!(seen.lines().count(), expected.lines().count(), "{}", path.display());
}

fn assert_program(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let program = compile(&format!("{name}.c"), folder.path(), C11);

    assert_as_written_down(name, &sections(&mut Command::new(program)));
}

#[test]
fn every_function_in_and_out_of_order_does_what_is_written_down() {
    assert_program("abi");
}

#[test]
fn damaged_foreign_and_used_directories_are_treated_as_written_down() {
    assert_program("recover");
}

#[test]
fn the_connect_function_is_called_as_written_down() {
    assert_program("connect");
}

#[test]
fn a_host_with_threads_signals_and_its_own_sqlite_gets_along() {
    assert_program("host");
}

#[test]
fn nodes_do_not_care_when_the_wall_clock_jumps_by_years() {
    assert_program("clock");
}

#[test]
fn hundreds_of_databases_and_the_pragmas_of_hosts_behave_as_written_down() {
    assert_program("databases");
}

/// Sections of `guest` that need a library compiled as it is installed: another has larger frames, and ends the process where a
/// descriptor is closed by others. `make torture-host` runs them.
const OPTIMIZED: [&str; 4] =
    ["all_descriptors_closed", "one_descriptor_closed", "runtime_descriptor_closed", "small_stack"];

#[test]
fn an_unkind_host_is_not_ended_or_held_up_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let program = compile("guest.c", folder.path(), C11);

    assert_as_written_down("guest", &sections(Command::new(program).arg("--not").args(OPTIMIZED)));
}

/// Sections of a text, each with its first line `== NAME`.
fn by_section(text: &str) -> Vec<&str> {
    let begins: Vec<usize> =
        text.match_indices("== ").map(|(at, _)| at).filter(|at| is_line(text, *at)).collect();
    let ends = begins.iter().skip(1).copied().chain([text.len()]);
    begins.iter().zip(ends).map(|(begin, end)| &text[*begin..end]).collect()
}

fn is_line(text: &str, at: usize) -> bool {
    at == 0 || text.as_bytes()[at - 1] == b'\n'
}

/// `seen` with what is written down in place of what this system cannot have, which is told.
fn with_skipped(seen: &str, name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests-c/{name}.expected"));
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    let expected = by_section(&expected);
    let section = |seen: &&str| {
        let (first, rest) = seen.split_once('\n').unwrap();
        let written_down = expected.iter().find(|section| section.lines().next() == Some(first));
        match (rest.strip_prefix("skipped: "), written_down) {
            (Some(reason), Some(written_down)) => {
                eprintln!("{first}: not run: {reason}");
                (*written_down).to_owned()
            }
            _ => (*seen).to_owned(),
        }
    };
    by_section(seen).iter().map(section).collect()
}

/// Sections of `odd-hosts` that need a library compiled as it is installed, as those of `guest` do.
const ODD_OPTIMIZED: [&str; 2] = ["closed_from_3_while_running", "closed_from_3_beside_a_stop"];

#[test]
fn a_host_that_is_odd_is_served_or_told_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let program = compile("odd-hosts.c", folder.path(), C11);

    let seen = sections(Command::new(program).arg("--not").args(ODD_OPTIMIZED));

    assert_as_written_down("odd-hosts", &with_skipped(&seen, "odd-hosts"));
}

#[test]
fn a_library_that_was_closed_goes_on_and_can_be_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let program = compile_unlinked("closed-library.c", folder.path(), C11);

    assert_as_written_down("closed-library", &sections(&mut Command::new(program)));
}

#[test]
fn a_host_in_python_gets_along() {
    let Ok(version) = Command::new("python3").arg("--version").output() else {
        eprintln!("not run: there is no python3");
        return;
    };
    assert!(version.status.success(), "{version:?}");
    let work = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests-c/host.py");

    let seen = run(Command::new("python3").arg(source).arg(shared_object()).arg(work.path()));

    assert_as_written_down("host.py", &seen);
}

/// How a program is built to find what a host's own part does wrong, and what the library leaves there.
#[derive(Clone, Copy, Debug)]
struct Build {
    flags: &'static [&'static str],
    environment: Option<(&'static str, &'static str)>,
}

const ADDRESS: Build = Build {
    flags: &["-g", "-fsanitize=address,undefined"],
    environment: Some(("ASAN_OPTIONS", "detect_leaks=1")),
};
/// What the library does between its own threads is not compiled for this, and is left to the Rust compiler.
const THREAD: Build = Build {
    flags: &["-g", "-fsanitize=thread"],
    environment: Some(("TSAN_OPTIONS", "ignore_noninstrumented_modules=1")),
};
/// Without a sanitizer, and with each.
const BUILDS: [Build; 3] = [Build { flags: &[], environment: None }, ADDRESS, THREAD];

impl Build {
    fn compile(self, source: &str, folder: &Path, dialect: &[&str]) -> Command {
        let mut command = Command::new(compile(source, folder, &[dialect, self.flags].concat()));
        command.envs(self.environment);
        command
    }

    /// What sections of a program, all if none are named, write to their standard error.
    fn complaints(self, name: &str, sections: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        complaints(self.compile(&format!("{name}.c"), folder.path(), &["-std=c11"]).args(sections))
    }
}

/// A program that does not print the same each time; what it says last.
fn crowd(build: Build, arguments: &[&str]) -> String {
    let (folder, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = build.compile("crowd.c", folder.path(), C11);
    let seen = run(command.args(arguments).current_dir(work.path()));
    seen.lines().last().unwrap().to_owned()
}

#[test]
fn of_many_lives_nothing_is_left() {
    for build in BUILDS {
        let seen = crowd(build, &["lives", "40"]);
        assert!(
            seen.starts_with("lives: 40, failed: 0, descriptors left: 0, threads left: 0,"),
            "{build:?}: {seen}"
        );
    }
}

#[test]
fn calls_at_random_from_many_threads_are_answered_in_time() {
    for build in BUILDS {
        let seen = crowd(build, &["calls", "12", "4", "400", "1"]);
        assert_eq!(seen, "late: 0, strange: 0, descriptors left: 0, threads left: 0", "{build:?}");
    }
}

/// What the sanitizers run of it: they have frames and threads of their own.
const GUEST_SANITIZED: [&str; 5] =
    ["full_pipe", "file_size", "calls_within_a_callback", "calls_beside_each_other", "texts"];

#[test]
fn an_unkind_host_does_nothing_wrong_itself() {
    for build in BUILDS {
        assert_eq!(build.complaints("guest", &GUEST_SANITIZED), "", "{build:?}");
    }
}

/// The same of `odd-hosts`: what limits a process limits the sanitizers, too.
const ODD_SANITIZED: [&str; 4] = ["locale", "no_files", "no_environment", "processes_that_it_starts"];

#[test]
fn an_odd_host_does_nothing_wrong_itself() {
    for build in BUILDS {
        assert_eq!(build.complaints("odd-hosts", &ODD_SANITIZED), "", "{build:?}");
    }
}

#[test]
fn every_program_is_c99_and_cpp17_too() {
    for dialect in [&["-std=c99"][..], &["-xc++", "-std=c++17"]] {
        for name in PROGRAMS {
            let folder = tempfile::tempdir().unwrap();
            let program = compile(&format!("{name}.c"), folder.path(), dialect);
            if ["recover", "host"].contains(&name) {
                assert_as_written_down(name, &sections(&mut Command::new(program)));
            }
        }
    }
}

/// What a command writes to its standard error; it must succeed.
fn complaints(command: &mut Command) -> String {
    let work = tempfile::tempdir().unwrap();
    let Output { status, stdout, stderr } = command.current_dir(work.path()).output().unwrap();
    let _ = Command::new("chmod").arg("-R").arg("u+w").arg(work.path()).status();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr).into_owned());
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    // A section that ended badly says so.
    assert!(!stdout.contains(": exit ") && !stdout.contains(": hangs"), "{stdout}\n{stderr}");
    stderr
}

#[test]
fn no_memory_is_touched_or_kept_that_should_not_be() {
    for name in ["abi", "recover", "connect", "host", "databases"] {
        assert_eq!(ADDRESS.complaints(name, &[]), "", "{name}");
    }
}

// conformance: c-api 72
#[test]
fn threads_of_a_host_do_not_race_with_those_of_its_nodes() {
    for name in ["connect", "host"] {
        assert_eq!(THREAD.complaints(name, &[]), "", "{name}");
    }
}

/// Looks at sections of programs with valgrind, and at what the library does in them.
fn assert_quiet_in_valgrind(sections: &[(&str, &[&str])]) {
    for (name, chosen) in sections {
        let folder = tempfile::tempdir().unwrap();
        let program = compile(&format!("{name}.c"), folder.path(), &["-std=c11", "-g"]);
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--quiet", "--error-exitcode=9", "--leak-check=full", "--num-callers=30"]);
        valgrind.args([
            "--errors-for-leak-kinds=definite,indirect,possible",
            "--show-leak-kinds=definite,indirect,possible",
        ]);

        let said = complaints(valgrind.arg(program).args(*chosen));

        assert_eq!(said, "", "{name}");
    }
}

#[test]
fn valgrind_finds_nothing() {
    assert_quiet_in_valgrind(&[
        ("abi", &["create", "handover"]),
        ("host", &["user_functions", "leaves_nothing"]),
    ]);
}

#[test]
#[ignore = "takes minutes: make torture-host"]
fn valgrind_finds_nothing_elsewhere() {
    assert_quiet_in_valgrind(&[
        ("abi", &["copies", "bind_again", "in_use"]),
        ("recover", &["damage", "recover", "describe", "failed_recover"]),
        ("connect", &["first_words"]),
        ("databases", &["pragmas"]),
        ("odd-hosts", &["no_environment"]),
        ("host", &["threads", "busy_timeout"]),
    ]);
}

// conformance: c-api 71
#[test]
fn nothing_is_told_unless_the_environment_asks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let program = compile("abi.c", folder.path(), C11);
    let told = |value: Option<&str>| {
        let mut command = Command::new(&program);
        command.args(["first_start", "damage", "in_use"]).env_remove("LIBDQLITE_TRACE");
        if let Some(value) = value {
            command.env("LIBDQLITE_TRACE", value);
        }
        complaints(&mut command)
    };

    assert_eq!(told(None), "");
    // 5 is above the level of everything.
    assert_eq!(told(Some("5")), "");
    for (value, wanted) in [("1", "node started"), ("", "node stopped")] {
        let told = told(Some(value));
        assert!(told.contains(wanted), "{told}");
        for line in told.lines() {
            // LIBDQLITE[000123] 2026-01-02T03:04:05.123456789 000124 INFO    handle ...
            let (process, rest) =
                line.strip_prefix("LIBDQLITE[").and_then(|line| line.split_once("] ")).unwrap();
            assert!(process.len() >= 6 && process.bytes().all(|byte| byte.is_ascii_digit()), "{line}");
            let words: Vec<&str> = rest.split_whitespace().collect();
            assert_eq!(words[0].len(), "2026-01-02T03:04:05.123456789".len(), "{line}");
            assert!(words[1].len() >= 6 && words[1].bytes().all(|byte| byte.is_ascii_digit()), "{line}");
            assert!(["DEBUG", "INFO", "WARN", "ERROR"].contains(&words[2]), "{line}");
        }
    }
}
