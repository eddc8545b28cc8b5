//! Lines on standard error, which nobody may read: what would have to wait is dropped, and counted.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::{Errno, ReadWriteFlags};

use super::signals;

/// Lines dropped since the last one that was written. One thread writes at a time; the others do not wait for longer than a write that
/// does not wait takes.
static DROPPED: Mutex<u64> = Mutex::new(0);

/// Writes a line of at most `PIPE_BUF` bytes, if that needs no waiting.
pub fn write_line(line: &str) {
    let mut dropped = DROPPED.lock().unwrap_or_else(PoisonError::into_inner);
    let stream = io::stderr();
    if *dropped > 0 {
        let note = format!("LIBDQLITE: {dropped} lines were dropped: standard error took none\n");
        if write_now(&stream, &note).is_err() {
            *dropped += 1;
            return;
        }
        *dropped = 0;
    }
    if write_now(&stream, line).is_err() {
        *dropped += 1;
    }
}

/// Writes what the stream takes at once.
fn write_now(stream: &impl AsFd, line: &str) -> io::Result<()> {
    let mut ready = [PollFd::new(stream, PollFlags::OUT)];
    let no_time = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut ready, Some(&no_time))? == 0 {
        return Err(ErrorKind::WouldBlock.into());
    }
    let slices = [IoSlice::new(line.as_bytes())];
    // A pipe whose reader has gone raises a signal, unless the thread takes none. Another process may have filled the pipe since:
    // then a write that may wait would. Where writes cannot be told not to wait, one as short as this does not wait for long.
    let written = signals::without_pipe_signal(|| {
        match rustix::io::pwritev2(stream, &slices, u64::MAX, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN) if is_regular(stream) => rustix::io::write(stream, line.as_bytes()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::SPIPE) => {
                rustix::io::write(stream, line.as_bytes())
            }
            written => written,
        }
    });
    written.map(|_| ()).map_err(io::Error::from)
}

/// A file, in which nobody is waited for but the disk.
fn is_regular(stream: &impl AsFd) -> bool {
    rustix::fs::fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_full_pipe_takes_no_line_and_one_that_is_read_again_does() {
        let (mut reader, writer) = io::pipe().unwrap();
        let line = format!("{}\n", "x".repeat(4095));
        let mut written = 0;
        while write_now(&writer, &line).is_ok() {
            written += 1;
            assert!(written < 10_000, "the pipe is never full");
        }

        assert!(write_now(&writer, "more\n").is_err());
        reader.read_exact(&mut vec![0; 2 * line.len()]).unwrap();

        assert!(write_now(&writer, "again\n").is_ok());
        drop(reader);
        assert_eq!(write_now(&writer, "nobody\n").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_file_takes_lines_one_after_the_other() {
        let mut file = tempfile::tempfile().unwrap();

        for _ in 0..3 {
            write_now(&file, "line\n").unwrap();
        }

        use std::io::Seek;
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "line\nline\nline\n");
    }
}
