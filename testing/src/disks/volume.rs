//! A small file system for the data of one node: ext4 in a file, on a loop device that goes away with its mount.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Room for what a node writes in a run, several times.
const VOLUME_BYTES: u64 = 512 << 20;
/// The balloon grows in steps of these sizes.
const BALLOON_STEPS: [u64; 4] = [16 << 20, 1 << 20, 64 << 10, 4 << 10];
/// Pause before it takes again what has become free.
const BALLOON_PAUSE: Duration = Duration::from_millis(20);
/// File of the balloon, beside the data.
const BALLOON: &str = "balloon";
/// Folder of the data.
const DATA: &str = "data";

/// A mounted file system; gone when dropped.
#[derive(Debug)]
pub struct Volume {
    image: PathBuf,
    mount: PathBuf,
    balloon: Option<Balloon>,
    is_read_only: bool,
}

impl Volume {
    /// Makes it in `folder`, which must be there, and mounts it.
    ///
    /// # Errors
    /// A file system cannot be made or mounted.
    pub fn new(folder: &Path, name: &str) -> io::Result<Volume> {
        let (image, mount) = (folder.join(format!("{name}.img")), folder.join(name));
        File::create_new(&image)?.set_len(VOLUME_BYTES)?;
        std::fs::create_dir(&mount)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image))?;
        let volume = Volume { image, mount, balloon: None, is_read_only: false };
        volume.mount()?;
        std::fs::create_dir(volume.data())?;
        Ok(volume)
    }

    /// An empty folder on it.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.mount.join(DATA)
    }

    fn mount(&self) -> io::Result<()> {
        let options = ["-o", "loop,errors=remount-ro"];
        run(Command::new("mount").args(options).arg(&self.image).arg(&self.mount))
    }

    /// Takes all space, and what becomes free, until `empty`.
    ///
    /// # Errors
    /// The file system refuses for another reason than that it is full.
    pub fn fill(&mut self) -> io::Result<()> {
        self.balloon = Some(Balloon::start(&self.mount.join(BALLOON))?);
        Ok(())
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// The balloon stays.
    pub fn empty(&mut self) -> io::Result<()> {
        let Some(balloon) = self.balloon.take() else { return Ok(()) };
        drop(balloon);
        std::fs::remove_file(self.mount.join(BALLOON))
    }

    /// Makes it read-only, as the kernel does after an error, whoever has files open.
    ///
    /// # Errors
    /// The system's.
    pub fn make_read_only(&mut self) -> io::Result<()> {
        run(Command::new("mount").args(["-o", "remount,abort"]).arg(&self.mount))?;
        self.is_read_only = true;
        Ok(())
    }

    /// Whether it was made read-only: it has to be mounted anew.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Mounts it anew. No process may use it.
    ///
    /// # Errors
    /// Somebody uses it, or the system's.
    pub fn mount_again(&mut self) -> io::Result<()> {
        run(Command::new("umount").arg(&self.mount))?;
        self.mount()?;
        self.is_read_only = false;
        Ok(())
    }

    /// Bytes that are free.
    ///
    /// # Errors
    /// The system's.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let found = statvfs(&self.mount)?;
        Ok(found.f_bavail * found.f_frsize)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.balloon = None;
        // It may not be mounted, and goes with the namespace at the latest.
        let _ = Command::new("umount").arg("--lazy").arg(&self.mount).status();
        let _ = std::fs::remove_file(&self.image);
    }
}

/// A file that takes all space there is; no more when dropped.
#[derive(Debug)]
struct Balloon {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Balloon {
    fn start(path: &Path) -> io::Result<Balloon> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let mut bytes = 0;
        grow(&file, &mut bytes)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                // What it cannot take now it takes later.
                let _ = grow(&file, &mut bytes);
                std::thread::sleep(BALLOON_PAUSE);
            }
        });
        Ok(Balloon { is_over, thread: Some(thread) })
    }
}

impl Drop for Balloon {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked does not grow any more.
            let _ = thread.join();
        }
    }
}

/// Makes a file of so many bytes longer until nothing is free.
fn grow(file: &File, bytes: &mut u64) -> io::Result<()> {
    for step in BALLOON_STEPS {
        loop {
            match fallocate(file, FallocateFlags::empty(), *bytes, step) {
                Ok(()) => *bytes += step,
                Err(rustix::io::Errno::NOSPC) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Runs a program to its end.
pub(super) fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?} ended with {}: {}", output.status, text.trim())))
}
