//! Nodes in processes of their own: `tests-c/dqlite-node.c` over the libdqlite of a folder.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest start of a node: one in disk mode reads gigabytes, on a disk that others use, too.
const START_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest clean stop of a node.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks whether a process has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Most bytes of a node's standard error that are kept; beyond them the older half goes.
const STDERR_MAX_BYTES: usize = 1 << 20;
/// Bytes of standard error read at once.
const STDERR_CHUNK_BYTES: usize = 4096;

/// A libdqlite to run on.
#[derive(Clone, Debug)]
pub struct Library {
    /// Folders with libdqlite.so.0 and what it needs.
    pub folders: Vec<PathBuf>,
    /// The dynamic linker to start programs with, if the library needs another C library than this machine's.
    pub loader: Option<PathBuf>,
    /// Variables of the environment that the programs get.
    pub variables: Vec<(String, String)>,
}

impl Library {
    /// A library that this machine's C library suits.
    #[must_use]
    pub fn new(folder: &Path) -> Library {
        Library { folders: vec![folder.to_owned()], loader: None, variables: Vec::new() }
    }

    /// An unpacked root of Debian packages, as `tests/upstream/fetch.sh` makes it.
    #[must_use]
    pub fn of_root(root: &Path) -> Library {
        let places = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"];
        let folders: Vec<PathBuf> =
            places.iter().map(|place| root.join(place)).filter(|path| path.is_dir()).collect();
        let names = ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];
        let loader =
            folders.iter().flat_map(|folder| names.map(|name| folder.join(name))).find(|path| path.exists());
        Library { folders, loader, variables: Vec::new() }
    }

    /// The library of `place`: an unpacked root if it holds `usr`, else a folder that this machine's C library suits.
    #[must_use]
    pub fn at(place: &Path) -> Library {
        if place.join("usr").is_dir() { Library::of_root(place) } else { Library::new(place) }
    }

    fn path(&self) -> OsString {
        let mut path = OsString::new();
        for (position, folder) in self.folders.iter().enumerate() {
            if position > 0 {
                path.push(":");
            }
            path.push(folder);
        }
        path
    }

    /// The same library for programs that get this variable of the environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Library {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A command that runs `program` on this library.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = match &self.loader {
            Some(loader) => {
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(self.path()).arg(program);
                command
            }
            None => {
                let mut command = Command::new(program);
                command.env("LD_LIBRARY_PATH", self.path());
                command
            }
        };
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Compiles `source` against the header of this repository and the library in `library`.
///
/// # Errors
/// There is no C compiler, or it fails; what it says is in the error.
pub fn compile(source: &Path, library: &Path, output: &Path) -> io::Result<()> {
    compile_as(&["-std=c11"], source, library, output)
}

/// `compile` in the dialect that `flags` name, with what else they name.
///
/// # Errors
/// As `compile`.
pub fn compile_as(flags: &[&str], source: &Path, library: &Path, output: &Path) -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let made = Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror", "-O1", "-g"])
        .args(flags)
        .arg("-I")
        .arg(root.join("include"))
        .arg(source)
        // A language that the flags name is the source's alone.
        .args(["-x", "none"])
        .arg("-o")
        .arg(output)
        .arg("-L")
        .arg(library)
        .args(["-ldqlite", "-ldl", "-lpthread", "-Wl,--allow-shlib-undefined"])
        .output()?;
    if made.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()))
}

/// A free port of the loopback interface; nobody else should take it before it is used.
///
/// # Errors
/// The operating system's.
pub fn free_address() -> io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// How a node is started.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The compiled program.
    pub program: PathBuf,
    /// The library it runs on.
    pub library: Library,
    /// Id.
    pub id: u64,
    /// `IP:PORT`.
    pub address: String,
    /// Data directory.
    pub directory: PathBuf,
    /// More arguments of the program.
    pub arguments: Vec<String>,
}

/// A running node; killed when dropped.
#[derive(Debug)]
pub struct NodeProcess {
    child: Child,
    stderr: Arc<Mutex<Vec<u8>>>,
    stderr_reader: Option<JoinHandle<()>>,
    /// Where it listens.
    pub address: String,
    /// From its start to its being ready.
    pub started_in: Duration,
}

impl NodeProcess {
    /// Starts a node and waits until clients can connect.
    ///
    /// # Errors
    /// It ends or does not get ready; the error has its standard error.
    pub fn start(options: &NodeOptions) -> io::Result<NodeProcess> {
        let begin = Instant::now();
        let mut child = options
            .library
            .command(&options.program)
            .args(["--id", &options.id.to_string(), "--address", &options.address])
            .arg("--data-dir")
            .arg(&options.directory)
            .args(&options.arguments)
            .arg("--stop-on-eof")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take();
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let stderr_reader = child.stderr.take().map(|stream| {
            let kept = Arc::clone(&stderr);
            std::thread::spawn(move || keep_text(stream, &kept))
        });
        let address = options.address.clone();
        let mut node = NodeProcess { child, stderr, stderr_reader, address, started_in: Duration::ZERO };
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = stdout.map(|stream| BufReader::new(stream).read_line(&mut line));
            // The receiver may have given up.
            let _ = sender.send(read.is_some_and(|read| read.is_ok()) && line == "ready\n");
        });
        match receiver.recv_timeout(START_TIMEOUT) {
            Ok(true) => {
                node.started_in = begin.elapsed();
                Ok(node)
            }
            _ => {
                let status = node.kill()?;
                Err(io::Error::other(format!("the node did not start ({status}): {}", node.error_text())))
            }
        }
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// The process has gone.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no VmRSS"))
    }

    /// Ends the process with SIGKILL, as a crash would.
    ///
    /// # Errors
    /// The operating system's.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// Stops the node cleanly, by the end of its standard input, and waits for it.
    ///
    /// # Errors
    /// It does not end in time; then it is killed.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        drop(self.child.stdin.take());
        let end = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                self.kill()?;
                return Err(io::Error::other(format!("the node did not stop: {}", self.error_text())));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Stops the node cleanly, and looks whether it ends within `bound`. A tracer that does not let go of a thread leaves a node
    /// behind that has ended and cannot be waited for.
    pub fn ends_within(&mut self, bound: Duration) -> bool {
        drop(self.child.stdin.take());
        let end = Instant::now() + bound;
        while !self.has_ended() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        true
    }

    /// Whether the process still runs.
    ///
    /// # Errors
    /// The operating system's.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Whether the process has ended, by itself or killed, and nobody has waited for it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        // The name, in parentheses, may hold anything; the state follows.
        !stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
    }

    /// What an ended process wrote to its standard error.
    pub fn error_text(&mut self) -> String {
        if let Some(reader) = self.stderr_reader.take() {
            // What was read before a panic is the text.
            let _ = reader.join();
        }
        self.error_tail(STDERR_MAX_BYTES)
    }

    /// The last `bytes_max` bytes that the process has written to its standard error so far.
    #[must_use]
    pub fn error_tail(&self, bytes_max: usize) -> String {
        let kept = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept[kept.len().saturating_sub(bytes_max)..]).into_owned()
    }
}

/// Reads a stream to its end, or to an error, and keeps its newest bytes.
fn keep_text(mut stream: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut chunk = [0; STDERR_CHUNK_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() + count > STDERR_MAX_BYTES {
            kept.drain(..STDERR_MAX_BYTES / 2);
        }
        kept.extend_from_slice(&chunk[..count]);
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
