//! The socket a node listens on: bound when the address is set, listening when the node starts.
//! spec: c-api 3.3.

use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixListener;

use socket2::{Domain, SockAddr, Socket};

use super::address::{Address, AddressError};
use super::dial::stream_socket;
use crate::host::descriptors::{above_standard, is_standard};
use crate::host::register::{Kept, Register};

/// Why an address cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Its text.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The operating system refuses it.
    #[error("bind '{address}': {source}")]
    System {
        /// Address as it was given.
        address: String,
        /// Of the operating system.
        source: io::Error,
    },
}

/// A bound socket that does not listen yet. Dropping it frees the address.
#[derive(Debug)]
pub struct BoundSocket {
    socket: Kept<Socket>,
    family: Family,
    display_address: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ip,
    Unix,
}

/// A listening socket in non-blocking mode.
#[derive(Debug)]
pub enum Listening {
    /// IPv4 or IPv6.
    Tcp(Kept<TcpListener>),
    /// Abstract Unix socket. Only connections of the same process are to be served: see `is_from_this_process`.
    Unix(Kept<UnixListener>),
}

impl BoundSocket {
    /// Makes a socket, closed in programs that the host starts, and binds it to `text`.
    ///
    /// # Errors
    /// The text is no address; the operating system refuses it.
    pub fn bind(text: &str) -> Result<BoundSocket, BindError> {
        let address = Address::parse(text)?;
        bind(&address, text).map_err(|source| BindError::System { address: text.to_owned(), source })
    }

    /// The address as it was given; of `@` with the name that the kernel chose.
    #[must_use]
    pub fn display_address(&self) -> &str {
        &self.display_address
    }

    /// Lets clients connect. The socket is in the register of the node from here on.
    ///
    /// # Errors
    /// Those of the operating system, above all that somebody else listens on the port.
    pub fn listen(self, backlog: u32, register: &Register) -> io::Result<Listening> {
        let socket = Kept::new(self.socket.into_checked()?, register, "the listening socket")?;
        socket.set_nonblocking(true)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(match self.family {
            Family::Ip => Listening::Tcp(socket.try_map(|socket| Ok(OwnedFd::from(socket).into()))?),
            Family::Unix => Listening::Unix(socket.try_map(|socket| Ok(OwnedFd::from(socket).into()))?),
        })
    }
}

fn bind(address: &Address, text: &str) -> io::Result<BoundSocket> {
    let (socket, family) = match address {
        Address::Ip(ip) => {
            let socket = stream_socket(Domain::for_address(*ip))?;
            socket.set_reuse_address(true)?;
            socket.bind(&SockAddr::from(*ip))?;
            (socket, Family::Ip)
        }
        Address::Abstract(name) => (bind_abstract(Some(name))?, Family::Unix),
        Address::Autobind => (bind_abstract(None)?, Family::Unix),
    };
    let display_address = match address {
        Address::Autobind => chosen_name(&socket)?,
        Address::Abstract(_) | Address::Ip(_) => text.to_owned(),
    };
    let socket = Kept::new(socket, &Register::default(), "the bound socket")?;
    Ok(BoundSocket { socket, family, display_address })
}

fn bind_abstract(name: Option<&str>) -> io::Result<Socket> {
    // Without a byte of path the kernel chooses the name.
    let path = name.map_or(Vec::new(), |name| [b"\0", name.as_bytes()].concat());
    let socket = stream_socket(Domain::UNIX)?;
    socket.bind(&SockAddr::unix(OsString::from_vec(path))?)?;
    Ok(socket)
}

fn chosen_name(socket: &Socket) -> io::Result<String> {
    let address = socket.local_addr()?;
    let name = address.as_abstract_namespace().and_then(|name| std::str::from_utf8(name).ok());
    name.map(|name| format!("@{name}"))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the kernel chose no abstract name"))
}

/// Accepts a connection.
///
/// # Errors
/// Those of the operating system.
pub async fn accept_tcp(listener: &tokio::net::TcpListener) -> io::Result<tokio::net::TcpStream> {
    let (stream, _) = listener.accept().await?;
    if !is_standard(&stream) {
        return Ok(stream);
    }
    tokio::net::TcpStream::from_std(above_standard(stream.into_std()?.into())?.into())
}

/// The same of a Unix socket.
///
/// # Errors
/// Those of the operating system.
pub async fn accept_unix(listener: &tokio::net::UnixListener) -> io::Result<tokio::net::UnixStream> {
    let (stream, _) = listener.accept().await?;
    if !is_standard(&stream) {
        return Ok(stream);
    }
    tokio::net::UnixStream::from_std(above_standard(stream.into_std()?.into())?.into())
}

/// Whether the other end of an accepted Unix connection is in this process; others are not served.
///
/// # Errors
/// Those of the operating system.
pub fn is_from_this_process(stream: &tokio::net::UnixStream) -> io::Result<bool> {
    let peer = stream.peer_cred()?.pid();
    Ok(peer.and_then(|pid| u32::try_from(pid).ok()) == Some(std::process::id()))
}
