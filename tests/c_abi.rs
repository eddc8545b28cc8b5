//! C programs against the shared object: the header, loading it, every node function in and out of order.

#![allow(clippy::unwrap_used)]

mod library;

use std::path::Path;
use std::process::Command;

use library::{compile, run, shared_object};

fn source(name: &str) -> String {
    format!("{}/tests-c/{name}", env!("CARGO_MANIFEST_DIR"))
}

// checklist c-api 5: header compiles as C99, C11, with -Wall -Werror, as C++, and with DQLITE_API predefined to nothing;
// 7: static assertions; 8: redeclaring the four weak prototypes; 9: compiles and links without -ldqlite
#[test]
fn the_header_compiles_alone_in_every_dialect_and_links_without_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let include = format!("-I{}/include", env!("CARGO_MANIFEST_DIR"));
    for (compiler, file, flags) in [
        ("cc", "header_c.c", &["-std=c99"][..]),
        ("cc", "header_c.c", &["-std=c11"]),
        ("cc", "header_c.c", &["-std=c2x"]),
        ("cc", "header_c.c", &["-std=c11", "-DDQLITE_API="]),
        ("c++", "header_cpp.cc", &["-std=c++11"]),
    ] {
        let program = folder.path().join("header");
        let mut command = Command::new(compiler);
        command
            .args(flags)
            .args(["-Wall", "-Wextra", "-Werror", &include, &source(file), "-o"])
            .arg(&program);
        run(&mut command);
        run(&mut Command::new(&program));
    }
}

// checklist c-api 3: a non-PIE C program can print it (copy relocation); prefix equals the macros; 4: the number is the header's
#[test]
fn a_program_that_is_not_position_independent_sees_the_version() {
    let folder = tempfile::tempdir().unwrap();
    let program = compile("version.c", folder.path(), &["-no-pie", "-fno-pic"]);

    assert_eq!(run(&mut Command::new(program)), "1.18.7@ 11807 11807\n");
}

// checklist c-api 10: dlopen starts no thread, opens no descriptor, prints nothing, leaves SIGPIPE and all handlers alone;
// 11: after dlopen and before create, sqlite3_config(SINGLETHREAD) and then (MULTITHREAD) both return 0
#[test]
fn loading_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("load");
    let mut compiler = Command::new("cc");
    compiler.args(["-Wall", "-Wextra", "-Werror", &source("load.c"), "-o"]).arg(&program);
    run(compiler.args(["-lsqlite3", "-ldl"]));

    let seen = run(Command::new(program).arg(shared_object()));

    let expected = "threads +0\ndescriptors +0\nhandlers 0\nsingle-thread 0\nmulti-thread 0\n";
    assert_eq!(seen, expected);
}

// The lines of checklist c-api are named above the sections of the program.
#[test]
fn every_function_in_and_out_of_order_does_what_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let work = tempfile::tempdir().unwrap();
    let program = compile("abi.c", folder.path(), &[]);

    let seen = run(Command::new(program).current_dir(work.path()));

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests-c/abi.expected");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &seen).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    for (number, (seen, expected)) in seen.lines().zip(expected.lines()).enumerate() {
        assert_eq!(seen, expected, "line {} of {}", number + 1, path.display());
    }
    assert_eq!(seen.lines().count(), expected.lines().count());
}
