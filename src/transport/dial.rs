//! Connections to other nodes: the host's connect function or the default one. spec: c-api 3.4.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::address::Address;
use crate::types::config::CONNECT_TIMEOUT;

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

impl Connector for IpConnector {
    fn connect(&self, address: &str) -> io::Result<Socket> {
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
        match Address::parse(address).map_err(|error| invalid(error.to_string()))? {
            Address::Ip(ip) => {
                let stream = TcpStream::connect_timeout(&ip, CONNECT_TIMEOUT)?;
                stream.set_nonblocking(true)?;
                Ok(Socket::Tcp(stream))
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
        let descriptor = OwnedFd::from(socket);
        Ok(if is_ip { Socket::Tcp(descriptor.into()) } else { Socket::Unix(descriptor.into()) })
    }
}
