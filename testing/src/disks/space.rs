//! Namespaces of a program's own: mounts, processes and a network with nothing but loopback. When its first process ends, the
//! kernel kills what is left in them and takes the mounts away.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Tells a program that it has its namespaces.
const INSIDE: &str = "DQLITE_BAD_DISKS_INSIDE";
/// Programs that are needed inside.
const TOOLS: [&str; 6] = ["strace", "mkfs.ext4", "mount", "umount", "ip", "unshare"];
/// The first process in the namespaces. It ends when it is told to, and all others with it.
const FIRST: &str = "ip link set lo up || exit 1; \"$@\" & trap 'exit 143' INT TERM; wait $!";

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
}

/// Why bad disks cannot be had here, if so.
#[must_use]
pub fn impossible() -> Option<String> {
    for tool in TOOLS {
        let found =
            Command::new("sh").args(["-c", &format!("command -v {tool}")]).stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            return Some(format!("there is no {tool}"));
        }
    }
    let tried = [
        ("namespaces", "true"),
        ("strace", "strace -f -qq -o /dev/null -e trace=fsync -e inject=fsync:error=EIO true"),
        (
            "a file system in a file",
            "d=$(mktemp -d) && trap 'rm -rf $d' EXIT && truncate -s 8M $d/i && mkfs.ext4 -q -F $d/i && mkdir $d/m \
             && mount -o loop $d/i $d/m && umount $d/m",
        ),
    ];
    for (what, script) in tried {
        match unshare().args(["sh", "-c", script]).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                return Some(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim()));
            }
            Err(error) => return Some(format!("{what}: {error}")),
        }
    }
    None
}

/// Whether this program has its namespaces.
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Goes on as the same program in namespaces of its own; returns when it is there.
///
/// # Errors
/// It cannot be started there.
pub fn enter() -> io::Result<()> {
    if is_inside() {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    Err(unshare().args(["sh", "-c", FIRST, "sh"]).arg(program).args(arguments).env(INSIDE, "1").exec())
}
