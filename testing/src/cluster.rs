//! A cluster of nodes in processes of their own, each on a library of its choice. Data directories are in one folder that is
//! removed at the end, with the processes. Every wait has a bound, and its error says what was waited for and what the
//! nodes wrote to their standard error.

mod error;
pub mod membership;
pub mod wait;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dqlite::types::Role;

pub use self::error::{ClusterError, Result};
use self::wait::{LEADER_PAUSE, LEADER_WAIT};
use crate::client::Client;
use crate::loopback::lasting_address;
use crate::process::{Library, NodeOptions, NodeProcess};

/// Longest connect and longest answer of a client that the cluster makes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The signal that ends a process whatever it does.
const SIGKILL: i32 = 9;
/// The node that starts a cluster has this id.
pub const FIRST_ID: u64 = 1;

/// One place in the cluster: how its node is started, and the process while there is one.
#[derive(Debug)]
struct Seat {
    options: NodeOptions,
    process: Option<NodeProcess>,
    /// What the last process wrote, when it has ended.
    last_words: String,
}

/// Nodes by id.
#[derive(Debug)]
pub struct Cluster {
    program: PathBuf,
    folder: PathBuf,
    arguments: Vec<String>,
    /// Data directories that are not in `folder`.
    places: BTreeMap<u64, PathBuf>,
    seats: BTreeMap<u64, Seat>,
}

impl Cluster {
    /// A cluster without nodes. `program` is the compiled `tests-c/dqlite-node.c`, `arguments` go to every node; `folder` is
    /// made here and removed at the end.
    ///
    /// # Errors
    /// The folder is there already, or cannot be made.
    pub fn new(program: &Path, folder: &Path, arguments: &[&str]) -> Result<Cluster> {
        std::fs::create_dir(folder)?;
        Ok(Cluster {
            program: program.to_owned(),
            folder: folder.to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            places: BTreeMap::new(),
            seats: BTreeMap::new(),
        })
    }

    /// The data directory of a node that is still to come: an empty one, which stays the caller's.
    pub fn set_directory(&mut self, id: u64, directory: &Path) {
        self.places.insert(id, directory.to_owned());
    }

    /// A cluster of voters, one for each of `libraries`, with the ids from 1.
    ///
    /// # Errors
    /// A node does not start or does not join.
    pub fn of_voters(
        program: &Path,
        folder: &Path,
        arguments: &[&str],
        libraries: &[Library],
    ) -> Result<Cluster> {
        let mut cluster = Cluster::new(program, folder, arguments)?;
        cluster.grow(libraries)?;
        Ok(cluster)
    }

    /// Makes a cluster without nodes one of voters, one for each of `libraries`, with the ids from 1.
    ///
    /// # Errors
    /// A node does not start or does not join.
    pub fn grow(&mut self, libraries: &[Library]) -> Result<()> {
        for (id, library) in (FIRST_ID..).zip(libraries) {
            if id == FIRST_ID {
                self.bootstrap(library)?;
            } else {
                self.join(id, library, Role::Voter)?;
            }
        }
        Ok(())
    }

    /// Starts the first node, which is a cluster of its own, and waits until it leads.
    ///
    /// # Errors
    /// It does not start or does not lead.
    pub fn bootstrap(&mut self, library: &Library) -> Result<()> {
        self.seat(FIRST_ID, library)?;
        self.start(FIRST_ID)?;
        self.leader().map(drop)
    }

    /// Starts a node with an empty directory and makes it a member with this role.
    ///
    /// # Errors
    /// It does not start, or the leader does not take it.
    pub fn join(&mut self, id: u64, library: &Library, role: Role) -> Result<()> {
        self.seat(id, library)?;
        self.start(id)?;
        self.add(id)?;
        if role == Role::Spare { Ok(()) } else { self.assign(id, role) }
    }

    fn seat(&mut self, id: u64, library: &Library) -> Result<()> {
        let directory = match self.places.get(&id) {
            Some(place) => place.clone(),
            None => {
                let directory = self.folder.join(id.to_string());
                std::fs::create_dir(&directory)?;
                directory
            }
        };
        let options = NodeOptions {
            program: self.program.clone(),
            library: library.clone(),
            id,
            address: lasting_address()?,
            directory,
            arguments: self.arguments.clone(),
        };
        self.seats.insert(id, Seat { options, process: None, last_words: String::new() });
        Ok(())
    }

    /// Starts a node that is not running, on its directory and address, and waits until clients can connect.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&mut self, id: u64) -> Result<()> {
        self.start_with(id, &[])
    }

    /// `start` with more arguments of the program, for this run only; the last one of a name counts.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_with(&mut self, id: u64, arguments: &[&str]) -> Result<()> {
        let seat = self.seats.get_mut(&id).ok_or(ClusterError::NoSuchNode(id))?;
        let mut options = seat.options.clone();
        options.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        seat.process = Some(NodeProcess::start(&options)?);
        Ok(())
    }

    /// The library a node runs on from its next start.
    ///
    /// # Errors
    /// There is no such node.
    pub fn set_library(&mut self, id: u64, library: &Library) -> Result<()> {
        self.seats.get_mut(&id).ok_or(ClusterError::NoSuchNode(id))?.options.library = library.clone();
        Ok(())
    }

    /// Ends a node with SIGKILL.
    ///
    /// # Errors
    /// It does not run, or has ended by itself.
    pub fn kill(&mut self, id: u64) -> Result<()> {
        let (seat, mut process) = self.take_running(id)?;
        let status = process.kill()?;
        seat.last_words = process.error_text();
        if status.signal() == Some(SIGKILL) {
            return Ok(());
        }
        Err(ClusterError::BadEnd { id, status, stderr: seat.last_words.clone() })
    }

    /// Stops a node and waits for its end.
    ///
    /// # Errors
    /// It does not run, does not end in time, or says that it failed.
    pub fn stop(&mut self, id: u64) -> Result<()> {
        let (seat, mut process) = self.take_running(id)?;
        let status = process.stop()?;
        seat.last_words = process.error_text();
        if status.success() {
            return Ok(());
        }
        Err(ClusterError::BadEnd { id, status, stderr: seat.last_words.clone() })
    }

    /// Stops a node: how long it took. Then `free` takes away what may hold it, and when it has not ended within `bound` it is
    /// killed.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop_within(&mut self, id: u64, bound: Duration, free: impl FnOnce()) -> Result<Duration> {
        let (seat, mut process) = self.take_running(id)?;
        let begin = Instant::now();
        process.ends_within(bound);
        let took = begin.elapsed();
        free();
        process.kill()?;
        seat.last_words = process.error_text();
        Ok(took)
    }

    /// Sends a signal, such as STOP, to the process of a node.
    ///
    /// # Errors
    /// It does not run, or `kill` fails.
    pub fn signal(&self, id: u64, name: &str) -> Result<()> {
        let process = self.process(id).ok_or(ClusterError::NotRunning(id))?.id();
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status()?;
        if status.success() {
            return Ok(());
        }
        Err(ClusterError::BadEnd { id, status, stderr: format!("kill -{name}") })
    }

    /// Forgets a node: its process is killed and its directory removed. It stays a member if it was not removed.
    ///
    /// # Errors
    /// There is no such node, or the directory stays.
    pub fn forget(&mut self, id: u64) -> Result<()> {
        let seat = self.seats.remove(&id).ok_or(ClusterError::NoSuchNode(id))?;
        drop(seat.process);
        Ok(std::fs::remove_dir_all(&seat.options.directory)?)
    }

    fn take_running(&mut self, id: u64) -> Result<(&mut Seat, NodeProcess)> {
        let seat = self.seats.get_mut(&id).ok_or(ClusterError::NoSuchNode(id))?;
        let process = seat.process.take().ok_or(ClusterError::NotRunning(id))?;
        Ok((seat, process))
    }

    /// Ids of the nodes whose process runs, as far as this cluster has not ended it.
    #[must_use]
    pub fn live(&self) -> Vec<u64> {
        self.seats.iter().filter(|(_, seat)| seat.process.is_some()).map(|(id, _)| *id).collect()
    }

    /// The process of a running node.
    #[must_use]
    pub fn process(&self, id: u64) -> Option<&NodeProcess> {
        self.seats.get(&id)?.process.as_ref()
    }

    /// Addresses of all nodes, running or not.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.seats.values().map(|seat| seat.options.address.clone()).collect()
    }

    /// Address of a node.
    ///
    /// # Errors
    /// There is no such node.
    pub fn address(&self, id: u64) -> Result<&str> {
        let seat = self.seats.get(&id).ok_or(ClusterError::NoSuchNode(id))?;
        Ok(&seat.options.address)
    }

    /// Data directory of a node.
    ///
    /// # Errors
    /// There is no such node.
    pub fn directory(&self, id: u64) -> Result<&Path> {
        let seat = self.seats.get(&id).ok_or(ClusterError::NoSuchNode(id))?;
        Ok(&seat.options.directory)
    }

    /// Whether a complete snapshot lies in the directory of a node.
    ///
    /// # Errors
    /// No such node, or its directory cannot be read.
    pub fn has_snapshot(&self, id: u64) -> Result<bool> {
        let directory = self.directory(id)?;
        for entry in std::fs::read_dir(directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.strip_suffix(".meta").is_some_and(|data| directory.join(data).exists()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A connection to a node.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn client(&self, id: u64) -> Result<Client> {
        let client = Client::connect(self.address(id)?, ANSWER_TIMEOUT);
        client.map_err(|source| ClusterError::Request { what: format!("connect to node {id}"), source })
    }

    /// A connection to the leader, once there is one.
    ///
    /// # Errors
    /// No node leads in time.
    pub fn leader_client(&self) -> Result<Client> {
        let leader = self.leader()?;
        self.client(leader)
    }

    /// A connection to the leader with `database` open.
    ///
    /// # Errors
    /// No node leads in time and opens it.
    pub fn database(&self, database: &str) -> Result<Client> {
        self.wait(&format!("a leader with {database}"), LEADER_WAIT, LEADER_PAUSE, |cluster| {
            let mut client = cluster.leader_client().map_err(|error| error.to_string())?;
            // It may lead no more: a busy machine unseats leaders, too.
            client.open(database).map_err(|error| error.to_string())?;
            Ok(client)
        })
    }

    /// The number that a query gives, of whichever node leads.
    ///
    /// # Errors
    /// No node leads in time and answers.
    pub fn number(&self, database: &str, sql: &str) -> Result<i64> {
        self.wait(sql, LEADER_WAIT, LEADER_PAUSE, |cluster| {
            let mut client = cluster.database(database).map_err(|error| error.to_string())?;
            client.number(sql).map_err(|error| error.to_string())
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.seats.clear();
        // What stays is a folder of temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
