//! Connections to other nodes: the host's connect function or the default one. spec: c-api 3.4.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};

use super::address::Address;
use super::quiet::Quiet;
use super::spares::Spares;
use crate::host::descriptors::above_standard;
use crate::host::register::Kept;
use crate::types::config::{CONNECT_TIMEOUT, PEER_KEEPALIVE_IDLE, PEER_KEEPALIVE_INTERVAL, PEER_SILENCE_MAX};
use crate::types::tasks::{BlockingPool, on_pool};

/// A connection to another node, for whom it may concern.
const PEER: &str = "a connection to another node";

/// A connected stream in non-blocking mode.
#[derive(Debug)]
pub enum Socket {
    /// IPv4 or IPv6.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

/// Makes connections to other nodes. Called on a thread where it may block for seconds, several calls at once.
pub trait Connector: Send + Sync {
    /// Connects to `address`, a server's address in the raft configuration.
    ///
    /// # Errors
    /// There is no connection; the caller may try again later.
    fn connect(&self, address: &str) -> io::Result<Socket>;
}

/// Connects to numeric IPv4 and IPv6 addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct IpConnector;

/// A socket that is none of the standard streams.
pub(super) fn stream_socket(domain: socket2::Domain) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    Ok(above_standard(socket.into())?.into())
}

impl Connector for IpConnector {
    fn connect(&self, address: &str) -> io::Result<Socket> {
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
        match Address::parse(address).map_err(|error| invalid(error.to_string()))? {
            Address::Ip(ip) => {
                let socket = stream_socket(socket2::Domain::for_address(ip))?;
                socket.connect_timeout(&ip.into(), CONNECT_TIMEOUT)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Tcp(OwnedFd::from(socket).into()))
            }
            Address::Autobind | Address::Abstract(_) => {
                Err(invalid(format!("address '{address}' needs a connect function")))
            }
        }
    }
}

impl Socket {
    /// Takes a descriptor that a connect function made: a connected TCP or Unix stream, whatever its flags.
    ///
    /// # Errors
    /// It is something else; it is closed.
    pub fn adopt(descriptor: OwnedFd) -> io::Result<Socket> {
        let socket = socket2::Socket::from(descriptor);
        let domain = socket.domain()?;
        let is_ip = domain == socket2::Domain::IPV4 || domain == socket2::Domain::IPV6;
        if socket.r#type()? != socket2::Type::STREAM || !(is_ip || domain == socket2::Domain::UNIX) {
            let text = format!("descriptor of domain {domain:?} is no TCP or Unix stream");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        let descriptor = above_standard(socket.into())?;
        Ok(if is_ip { Socket::Tcp(descriptor.into()) } else { Socket::Unix(descriptor.into()) })
    }
}

/// A connection to or from a peer whose machine has gone without a word ends: when that has not taken what was sent for so long,
/// and, if nothing is sent, when it does not answer the kernel's questions.
pub(super) fn watch_peer(socket: SockRef<'_>) {
    let keepalive = TcpKeepalive::new().with_time(PEER_KEEPALIVE_IDLE).with_interval(PEER_KEEPALIVE_INTERVAL);
    // A socket that cannot be set ends when something is sent, or is the idlest when its place is wanted.
    let _ = socket.set_tcp_user_timeout(Some(PEER_SILENCE_MAX));
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// A connected stream as its two directions.
pub struct Stream {
    /// What the other side sends.
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    /// What goes there.
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
}

/// Connects to other nodes without blocking the caller.
pub trait Dial: Send + Sync {
    /// Connects to `address`, a server's address in the raft configuration.
    fn dial(&self, address: Vec<u8>) -> BoxFuture<'static, io::Result<Stream>>;
}

/// A connector, called on a pool of threads where it may block.
pub struct PooledDial {
    connector: Arc<dyn Connector>,
    pool: Arc<dyn BlockingPool>,
    spares: Arc<Spares>,
}

impl PooledDial {
    /// Calls `connector` on `pool`, once more with `spares` given up if no descriptor is left; the streams belong to the runtime
    /// that awaits the dial.
    #[must_use]
    pub fn new(
        connector: Arc<dyn Connector>,
        pool: Arc<dyn BlockingPool>,
        spares: Arc<Spares>,
    ) -> PooledDial {
        PooledDial { connector, pool, spares }
    }
}

impl std::fmt::Debug for PooledDial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PooledDial").finish_non_exhaustive()
    }
}

impl Dial for PooledDial {
    fn dial(&self, address: Vec<u8>) -> BoxFuture<'static, io::Result<Stream>> {
        let (connector, pool) = (Arc::clone(&self.connector), Arc::clone(&self.pool));
        let (spares, register) = (Arc::clone(&self.spares), self.spares.register());
        Box::pin(async move {
            let text = String::from_utf8(address)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
            let connect = move || {
                let connected = connector.connect(&text);
                // A host's function does not say why it failed.
                if connected.is_err() && spares.give_up() {
                    return connector.connect(&text);
                }
                connected
            };
            let socket = on_pool(pool.as_ref(), connect).await;
            match socket.map_err(io::Error::other)?? {
                Socket::Tcp(stream) => {
                    // Messages are whole: waiting for more gains nothing.
                    stream.set_nodelay(true)?;
                    watch_peer(SockRef::from(&stream));
                    let stream = Kept::new(tokio::net::TcpStream::from_std(stream)?, &register, PEER)?;
                    let (read, write) = stream.split(tokio::net::TcpStream::into_split);
                    Ok(Stream { read: Box::new(read), write: Box::new(Quiet(write)) })
                }
                Socket::Unix(stream) => {
                    let stream = Kept::new(tokio::net::UnixStream::from_std(stream)?, &register, PEER)?;
                    let (read, write) = stream.split(tokio::net::UnixStream::into_split);
                    Ok(Stream { read: Box::new(read), write: Box::new(Quiet(write)) })
                }
            }
        })
    }
}
