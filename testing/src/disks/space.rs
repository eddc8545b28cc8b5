//! Namespaces of a program's own: mounts, processes and a network with nothing but loopback. When its first process ends, the
//! kernel kills what is left in them and takes the mounts away.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Tells a program that it has its namespaces.
const INSIDE: &str = "DQLITE_BAD_DISKS_INSIDE";
/// Programs that volumes need.
const TOOLS: [&str; 5] = ["mkfs.ext4", "mount", "umount", "ip", "unshare"];
/// The first process in the namespaces. It ends when it is told to, and all others with it.
const FIRST: &str = "ip link set lo up || exit 1; \"$@\" & trap 'exit 143' INT TERM; wait $!";

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
}

/// Whether there is such a program.
#[must_use]
pub fn has(tool: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", "command -v \"$1\"", "sh", tool]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Why this script fails in namespaces of its own, if so.
fn refused(what: &str, script: &str) -> Option<String> {
    match unshare().args(["sh", "-c", script]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("{what}: {error}")),
    }
}

/// Why file systems of one's own cannot be had here, if so.
#[must_use]
pub fn without_volumes() -> Option<String> {
    let missing = TOOLS.iter().find(|tool| !has(tool)).map(|tool| format!("there is no {tool}"));
    missing.or_else(|| refused("namespaces", "true")).or_else(|| {
        refused(
            "a file system in a file",
            "d=$(mktemp -d) && trap 'rm -rf $d' EXIT && truncate -s 8M $d/i && mkfs.ext4 -q -F $d/i && mkdir $d/m \
             && mount -o loop $d/i $d/m && umount $d/m",
        )
    })
}

/// Why bad disks cannot be had here, if so.
#[must_use]
pub fn impossible() -> Option<String> {
    without_volumes().or_else(|| (!has("strace")).then(|| "there is no strace".to_owned())).or_else(|| {
        refused("strace", "strace -f -qq -o /dev/null -e trace=fsync -e inject=fsync:error=EIO true")
    })
}

/// Whether this program has its namespaces.
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// This program with these arguments in namespaces of its own.
///
/// # Errors
/// It is not known where it is.
pub fn again(arguments: impl IntoIterator<Item = OsString>) -> io::Result<Command> {
    let mut command = unshare();
    command.args(["sh", "-c", FIRST, "sh"]).arg(std::env::current_exe()?).args(arguments).env(INSIDE, "1");
    Ok(command)
}

/// Goes on as the same program in namespaces of its own; returns when it is there.
///
/// # Errors
/// It cannot be started there.
pub fn enter() -> io::Result<()> {
    if is_inside() {
        return Ok(());
    }
    Err(again(std::env::args_os().skip(1))?.exec())
}
