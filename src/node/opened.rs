//! What the runtimes of a node have opened themselves, which others of the process may close.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use tokio::runtime::Handle;

use crate::host::descriptors::above_standard;
use crate::host::epoll;
use crate::host::register::{Register, Ticket};

/// What runtimes themselves have opened: epolls and eventfds.
#[derive(Debug, Default)]
pub(super) struct Opened(Vec<Ticket>);

impl Opened {
    /// Enters what the named runtimes have open.
    pub(super) fn by(runtimes: &[(&Handle, &str)], register: &Register) -> Opened {
        Opened(runtimes.iter().flat_map(|(runtime, name)| of_runtime(register, runtime, name)).collect())
    }

    /// Whether all of it is there.
    pub(super) fn are_there(&self) -> bool {
        self.0.iter().all(|ticket| ticket.check().is_ok())
    }
}

/// Enters what a runtime itself has open: nobody tells, so it is found as what watches a socket that is given to it. Nothing where the
/// system has no /proc.
fn of_runtime(register: &Register, runtime: &Handle, name: &str) -> Vec<Ticket> {
    let probe = || -> io::Result<tokio::net::UnixDatagram> {
        let socket = UnixDatagram::from(above_standard(OwnedFd::from(UnixDatagram::unbound()?))?);
        socket.set_nonblocking(true)?;
        let _entered = runtime.enter();
        tokio::net::UnixDatagram::from_std(socket)
    };
    let Ok(probe) = probe() else { return Vec::new() };
    let found = epoll::watching(probe.as_raw_fd());
    let polls = found.polls.into_iter().map(|number| (number, format!("epoll of {name}")));
    let events = found.others.into_iter().map(|number| (number, format!("eventfd of {name}")));
    // One for which there is no spare is not looked at.
    polls.chain(events).filter_map(|(number, what)| register.enter_with_spare(number, &what).ok()).collect()
}
