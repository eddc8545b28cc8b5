//! System calls of a running node that fail or are late: strace, which is told which and how.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Kind;

/// What brings data to the disk: of this library, and of upstream's, which writes and syncs in one call.
const SYNCS: &str = "fdatasync,fsync,io_submit";
/// What takes space.
const WRITES: &str = "pwritev,pwritev2,pwrite64,fallocate,io_submit";
/// Longest time until all threads of a node are traced.
const ATTACH_WAIT: Duration = Duration::from_secs(20);
/// Longest time for a tracer to let go.
const DETACH_WAIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running strace. What it does ends when this is dropped.
#[derive(Debug)]
pub struct Tracer {
    strace: Child,
}

impl Tracer {
    /// Makes the disk of a process bad, if a tracer does it for this kind; returns when all its threads see it.
    ///
    /// # Errors
    /// It cannot be traced.
    pub fn start(process: u32, kind: Kind) -> io::Result<Option<Tracer>> {
        let (calls, what) = match kind {
            Kind::Full | Kind::ReadOnly => return Ok(None),
            Kind::Eio => (SYNCS, "error=EIO"),
            Kind::Enospc => (WRITES, "error=ENOSPC"),
            Kind::Slow => (SYNCS, "delay_enter=500000"),
            // Longer than any run.
            Kind::Hang => (SYNCS, "delay_enter=1800000000"),
        };
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-p", &process.to_string()])
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{what}")])
            .stdin(Stdio::null())
            .spawn()?;
        let mut tracer = Tracer { strace };
        let end = Instant::now() + ATTACH_WAIT;
        while !is_traced(process)? {
            if let Some(status) = tracer.strace.try_wait()? {
                return Err(io::Error::other(format!("strace of process {process} ended with {status}")));
            }
            if Instant::now() > end {
                return Err(io::Error::other(format!(
                    "process {process} is not traced after {ATTACH_WAIT:?}"
                )));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(Some(tracer))
    }

    /// Whether it still does what it does: the process has not ended.
    ///
    /// # Errors
    /// The operating system's.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.strace.try_wait()?.is_none())
    }

    fn stop(&mut self) -> io::Result<()> {
        if self.strace.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.strace), Signal::TERM)?;
        let end = Instant::now() + DETACH_WAIT;
        while self.strace.try_wait()?.is_none() {
            if Instant::now() > end {
                // The kernel detaches what it traced.
                self.strace.kill()?;
                self.strace.wait()?;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It ends with the namespaces at the latest.
        let _ = self.stop();
    }
}

/// Whether every thread of a process has a tracer.
fn is_traced(process: u32) -> io::Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end meanwhile.
        let Ok(status) = std::fs::read_to_string(thread?.path().join("status")) else { continue };
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        if tracer.is_some_and(|tracer| tracer.trim() == "0") {
            return Ok(false);
        }
    }
    Ok(true)
}
