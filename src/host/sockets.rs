//! What the operating system knows of a TCP connection.

#![allow(unsafe_code)]

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// How long the machine at the other end has let nothing be heard of it while it owes acknowledgements; None if it owes none, or if the
/// socket is not a TCP connection. A machine that lives acknowledges what it is sent, and the probes of a window that its program
/// keeps closed: the system sends these up to 120 s apart.
#[must_use]
pub fn silence(socket: &impl AsFd) -> Option<Duration> {
    let socket = socket.as_fd().as_raw_fd();
    let mut unacknowledged: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the request writes one int to where it may.
    if unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &raw mut unacknowledged) } != 0 || unacknowledged == 0 {
        return None;
    }
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and at most `length` bytes are written to `info`, which has as many.
    let got = unsafe {
        libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    if got != 0 {
        return None;
    }
    // SAFETY: it is made of integers alone, and what the system did not write is zero.
    let info = unsafe { info.assume_init() };
    // Data that comes with an old acknowledgement counts only as data.
    Some(Duration::from_millis(info.tcpi_last_ack_recv.min(info.tcpi_last_data_recv).into()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::thread::sleep;
    use std::time::Instant;

    use socket2::{SockFilter, SockRef};

    use super::*;

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// From here on nothing reaches this end, which therefore answers nothing, as if its machine were gone.
    fn vanish(socket: &TcpStream) {
        let drop_all = SockFilter::new(libc::BPF_RET as u16, 0, 0, 0);
        SockRef::from(socket).attach_filter(&[drop_all]).unwrap();
    }

    fn wait_until(what: impl Fn() -> bool) {
        let begin = Instant::now();
        while !what() {
            assert!(begin.elapsed() < Duration::from_secs(20));
            sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_machine_that_vanished_is_silent_while_it_owes_acknowledgements_and_only_then() {
        let (client, mut node) = connection();
        sleep(Duration::from_millis(300));
        assert_eq!(silence(&node), None, "nothing was sent");

        vanish(&client);
        sleep(Duration::from_millis(300));
        assert_eq!(silence(&node), None, "nothing was sent");

        node.write_all(b"rows").unwrap();
        wait_until(|| silence(&node) > Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_machine_that_lives_is_not_silent_however_long_its_program_does_not_read() {
        let (mut client, mut node) = connection();
        node.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(taken) = node.write(&[7; 65536]) {
            sent += taken;
        }
        let begin = Instant::now();
        // Probes follow each other after 200 ms at first, then after twice the time.
        while begin.elapsed() < Duration::from_secs(3) {
            let silence = silence(&node).unwrap();
            assert!(silence < Duration::from_secs(2), "{silence:?} after {:?}", begin.elapsed());
            sleep(Duration::from_millis(10));
        }
        let mut read = vec![0; sent];
        client.read_exact(&mut read).unwrap();
        wait_until(|| silence(&node).is_none());
    }

    #[test]
    fn nothing_is_known_of_other_sockets() {
        let (mut node, _client) = UnixStream::pair().unwrap();
        node.write_all(b"rows").unwrap();
        assert_eq!(silence(&node), None);
    }
}
