//! A node in this process for the examples. It listens on an abstract socket and reaches no other node.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dqlite::node::handle::NodeHandle;
use dqlite::transport::dial::{Connector, Socket};
use dqlite::types::NodeId;

/// The address that the examples tell; nobody listens there.
pub const ADDRESS: &str = "127.0.0.1:9001";
/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Refuses every connection.
struct Nobody;

impl Connector for Nobody {
    fn connect(&self, _: &str) -> io::Result<Socket> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

/// Tells the sockets of this process apart.
static SOCKETS: AtomicU64 = AtomicU64::new(0);

/// A node that runs until it is dropped.
pub struct Node {
    /// The node.
    pub handle: NodeHandle,
    socket: String,
}

impl Node {
    /// Starts node `id` in `directory`, after `set` has changed its settings.
    pub fn start(id: u64, directory: &Path, set: impl FnOnce(&NodeHandle)) -> Node {
        let (handle, created) = NodeHandle::create(NodeId(id), ADDRESS.into(), directory.to_owned());
        created.unwrap();
        handle.change_live(|live| live.failure_domain.store(42, Ordering::Relaxed)).unwrap();
        handle.set_connector(Arc::new(Nobody)).unwrap();
        let number = SOCKETS.fetch_add(1, Ordering::Relaxed);
        let socket = format!("dqlite-documents-{}-{number}", std::process::id());
        handle.set_bind_address(format!("@{socket}")).unwrap();
        set(&handle);
        handle.start().unwrap_or_else(|_| panic!("{}", handle.error_text().to_text()));
        Node { handle, socket }
    }

    /// A connection without a handshake.
    pub fn connect(&self) -> UnixStream {
        let name = SocketAddr::from_abstract_name(&self.socket).unwrap();
        let stream = UnixStream::connect_addr(&name).unwrap();
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).unwrap();
        stream
    }
}
