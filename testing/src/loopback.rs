//! Addresses for nodes that stop and start again. A port from the range of outgoing connections could be taken while its
//! node is down, or even connect to itself; these are below that range, on a loopback address that belongs to this process.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port that is tried.
const FIRST_PORT: u16 = 9001;
/// The port after the last: outgoing connections start at 32768.
const END_PORT: u16 = 30000;

static NEXT_PORT: AtomicU16 = AtomicU16::new(FIRST_PORT);

/// The loopback address of a process: 127.64.0.0 and its number.
fn host(process: u32) -> Ipv4Addr {
    let [_, high, middle, low] = process.to_be_bytes();
    Ipv4Addr::new(127, 64 | high, middle, low)
}

/// An address that no other node of this machine has, and that stays free while its node is down.
///
/// # Errors
/// No port is left.
pub fn lasting_address() -> io::Result<String> {
    let host = host(std::process::id());
    loop {
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        if port >= END_PORT {
            return Err(io::Error::other("all ports for nodes have been used"));
        }
        if TcpListener::bind((host, port)).is_ok() {
            return Ok(format!("{host}:{port}"));
        }
    }
}
