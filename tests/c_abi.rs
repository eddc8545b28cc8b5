//! C programs against the shared object: the header, the names of every release, loading it.

#![allow(clippy::unwrap_used)]

mod library;

use std::process::Command;

use library::{compile, run, shared_object};

fn source(name: &str) -> String {
    format!("{}/tests-c/{name}", env!("CARGO_MANIFEST_DIR"))
}

// conformance: c-api 5, 7, 8
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
        ("c++", "header_cpp.cc", &["-std=c++17"]),
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

// LXD's Makefile probes for the header so.
// conformance: c-api 9
#[test]
fn a_program_that_calls_nothing_links_without_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("probe.c");
    std::fs::write(&source, "#include <dqlite.h>\nvoid main(){dqlite_node_id n = 1;}\n").unwrap();
    let include = format!("-I{}/include", env!("CARGO_MANIFEST_DIR"));
    run(Command::new("cc").arg(include).arg("-o").arg(folder.path().join("probe")).arg(&source));
}

/// Releases of upstream whose headers differ. spec: c-api 1.1.
const RELEASES: [(u32, u32, u32); 7] =
    [(1, 9, 0), (1, 11, 1), (1, 14, 0), (1, 16, 0), (1, 17, 3), (1, 18, 1), (1, 18, 6)];

fn release(text: &str) -> (u32, u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
}

// conformance: c-api 6
#[test]
fn every_function_of_every_release_is_found_at_load() {
    let table = std::fs::read_to_string(source("prototypes.txt")).unwrap();
    let rows = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rows: Vec<Vec<&str>> = rows.map(|line| line.splitn(3, ' ').collect()).collect();
    for wanted in RELEASES {
        let declared = rows.iter().filter(|row| release(row[0]) <= wanted);
        let declared: Vec<&str> =
            declared.filter(|row| row[1] == "-" || wanted < release(row[1])).map(|row| row[2]).collect();
        let mut program = String::from(
            "#include <dqlite.h>\n#include <stdio.h>\n\
             typedef struct dqlite_vfs_frame { unsigned long page_number; void *data; } dqlite_vfs_frame;\n",
        );
        // The prototypes must agree with those of the header, as far as it has them.
        program.extend(declared.iter().map(|prototype| format!("extern {prototype};\n")));
        program.push_str("void (*const functions[])(void) = {\n");
        for prototype in &declared {
            let name = prototype.split('(').next().unwrap().rsplit([' ', '*']).next().unwrap();
            program.push_str(&format!("    (void (*)(void)){name},\n"));
        }
        program.push_str(
            "};\nint main(void) {\n    size_t found = 0;\n    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)\n\
             \x20       found += functions[i] != 0;\n    printf(\"%zu\\n\", found);\n    return 0;\n}\n",
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("addresses.c");
        std::fs::write(&path, program).unwrap();
        let program = compile(path.to_str().unwrap(), folder.path(), &["-std=c11", "-Wl,-z,now"]);

        let seen = run(Command::new(program).env("LD_BIND_NOW", "1"));

        assert_eq!(seen, format!("{}\n", declared.len()), "{wanted:?}");
    }
}

// conformance: c-api 3, 4
#[test]
fn a_program_that_is_not_position_independent_sees_the_version() {
    let folder = tempfile::tempdir().unwrap();
    let program = compile("version.c", folder.path(), &["-no-pie", "-fno-pic"]);

    assert_eq!(run(&mut Command::new(program)), "1.18.7@ 11807 11807\n");
}

// conformance: c-api 10, 11
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
