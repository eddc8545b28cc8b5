//! The shared object under test, and C programs linked with it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Cargo builds it beside the test programs before it runs them.
pub fn shared_object() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let library = program.parent().unwrap().join("libdqlite.so");
    assert!(library.exists(), "{} is missing", library.display());
    library
}

/// Runs a program; it must succeed.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stdout = String::from_utf8(stdout).unwrap();
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{}", String::from_utf8_lossy(&stderr));
    stdout
}

/// Compiles `tests-c/<source>` into `folder`, with the library under its own name there.
#[allow(dead_code, reason = "not every test program compiles")]
pub fn compile(source: &str, folder: &Path, flags: &[&str]) -> PathBuf {
    compile_with(source, folder, flags, &["-Wl,--no-as-needed", "-ldqlite", "-lsqlite3", "-ldl", "-lpthread"])
}

/// The same for a program that loads the library itself.
#[allow(dead_code, reason = "not every test program compiles")]
pub fn compile_unlinked(source: &str, folder: &Path, flags: &[&str]) -> PathBuf {
    compile_with(source, folder, flags, &["-ldl", "-lpthread"])
}

fn compile_with(source: &str, folder: &Path, flags: &[&str], libraries: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for name in ["libdqlite.so", "libdqlite.so.0"] {
        let link = folder.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(shared_object(), link).unwrap();
        }
    }
    let program = folder.join("program");
    let mut compiler = Command::new("cc");
    compiler.args(["-Wall", "-Wextra", "-Werror"]).arg("-I").arg(root.join("include"));
    compiler.args(flags).arg(root.join("tests-c").join(source)).arg("-o").arg(&program);
    // A language that the flags name is the source's alone.
    compiler.args(["-x", "none"]);
    compiler.arg("-L").arg(folder).arg(format!("-Wl,-rpath,{}", folder.display()));
    compiler.args(libraries);
    run(&mut compiler);
    program
}
