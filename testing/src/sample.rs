//! What the machine counts: of a process (CPU, memory, bytes written), of the disk (bytes, flushes), of the loopback interface.

use std::io;
use std::path::Path;

/// Clock ticks in a second: Linux tells user space so on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes of a sector in the kernel's counts.
const SECTOR_BYTES: u64 = 512;

/// Counts of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Seconds of CPU, user and system.
    pub cpu_seconds: f64,
    /// Times that one of its threads left a processor: because it waited, or for another thread.
    pub context_switches: u64,
    /// Bytes handed to the disk.
    pub written_bytes: u64,
    /// Resident bytes.
    pub resident_bytes: u64,
    /// Most resident bytes so far.
    pub peak_bytes: u64,
}

fn wrong(what: &str) -> io::Error {
    io::Error::other(format!("{what} is not what was expected"))
}

/// The number behind `name` in a file of lines such as `name: 17 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Over the threads that there are: the kernel counts for each of its own.
fn context_switches(id: u32) -> io::Result<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{id}/task"))? {
        // One that has ended since was idle.
        let Ok(status) = std::fs::read_to_string(thread?.path().join("status")) else { continue };
        for name in ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"] {
            sum += field(&status, name).ok_or_else(|| wrong(name))?;
        }
    }
    Ok(sum)
}

impl Process {
    /// The counts of process `id`.
    ///
    /// # Errors
    /// It has gone.
    pub fn read(id: u32) -> io::Result<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The name, in parentheses, may hold anything.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |place: usize| fields.get(place).and_then(|text| text.parse::<f64>().ok());
        let (Some(user), Some(system)) = (ticks(11), ticks(12)) else { return Err(wrong("stat")) };
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let counts = std::fs::read_to_string(format!("/proc/{id}/io"))?;
        let kib = |name| field(&status, name).map(|kib| kib * 1024).ok_or_else(|| wrong(name));
        Ok(Process {
            cpu_seconds: (user + system) / TICKS_PER_SECOND,
            context_switches: context_switches(id)?,
            written_bytes: field(&counts, "write_bytes").ok_or_else(|| wrong("write_bytes"))?,
            resident_bytes: kib("VmRSS")?,
            peak_bytes: kib("VmHWM")?,
        })
    }

    /// From here on the most resident bytes are counted anew.
    ///
    /// # Errors
    /// It has gone, or belongs to somebody else.
    pub fn forget_peak(id: u32) -> io::Result<()> {
        std::fs::write(format!("/proc/{id}/clear_refs"), "5")
    }

    /// The sum over processes.
    ///
    /// # Errors
    /// One has gone.
    pub fn sum(ids: &[u32]) -> io::Result<Process> {
        let mut sum = Process::default();
        for id in ids {
            let one = Process::read(*id)?;
            sum.cpu_seconds += one.cpu_seconds;
            sum.context_switches += one.context_switches;
            sum.written_bytes += one.written_bytes;
            sum.resident_bytes += one.resident_bytes;
            sum.peak_bytes += one.peak_bytes;
        }
        Ok(sum)
    }
}

/// Counts of a whole machine: to be read while nothing else runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine {
    /// Bytes written to the disk below a folder.
    pub disk_bytes: u64,
    /// Flushes of that disk's cache: what a sync costs.
    pub disk_flushes: u64,
    /// Bytes sent over the loopback interface.
    pub loopback_bytes: u64,
}

impl Machine {
    /// The counts of now, the disk being that of `folder`.
    ///
    /// # Errors
    /// The kernel does not tell; the disk's counts are 0 if the folder is on none.
    pub fn read(folder: &Path) -> io::Result<Machine> {
        let devices = std::fs::read_to_string("/proc/net/dev")?;
        let loopback = devices.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
        let sent =
            loopback.and_then(|line| line.split_whitespace().nth(8)).and_then(|text| text.parse().ok());
        let (disk_bytes, disk_flushes) = disk(folder).unwrap_or_default();
        Ok(Machine { disk_bytes, disk_flushes, loopback_bytes: sent.ok_or_else(|| wrong("/proc/net/dev"))? })
    }

    /// What was counted since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Machine) -> Machine {
        Machine {
            disk_bytes: self.disk_bytes.saturating_sub(earlier.disk_bytes),
            disk_flushes: self.disk_flushes.saturating_sub(earlier.disk_flushes),
            loopback_bytes: self.loopback_bytes.saturating_sub(earlier.loopback_bytes),
        }
    }
}

/// Bytes written and flushes of the block device below a folder.
fn disk(folder: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(folder).ok()?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let fields: Vec<u64> = stat.split_whitespace().filter_map(|text| text.parse().ok()).collect();
    Some((*fields.get(6)? * SECTOR_BYTES, *fields.get(15)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_this_machine_are_counted() {
        let before = Process::read(std::process::id()).unwrap();
        let memory = vec![1_u8; 64 << 20];
        let after = Process::read(std::process::id()).unwrap();

        assert!(after.resident_bytes >= before.resident_bytes + (48 << 20), "{before:?} {after:?}");
        assert!(after.peak_bytes >= after.resident_bytes);
        std::thread::sleep(std::time::Duration::from_millis(1));
        let waited = Process::read(std::process::id()).unwrap().context_switches;
        assert!(waited > after.context_switches, "{waited} after {}", after.context_switches);
        drop(memory);
        Process::forget_peak(std::process::id()).unwrap();
        assert!(Process::read(std::process::id()).unwrap().peak_bytes < after.peak_bytes);
        assert!(Machine::read(Path::new("/")).unwrap().loopback_bytes > 0 || cfg!(not(target_os = "linux")));
    }
}
