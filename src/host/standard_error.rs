//! Lines on standard error, which nobody may read: what would have to wait is dropped, and counted.

use std::io::{self, ErrorKind, IoSlice, IsTerminal};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::{Errno, ReadWriteFlags};

use super::locks::locked_within;
use super::per_process::PerProcess;
use super::{signals, threads};

/// Lines dropped since the last one that was written.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Held while a line is written: lines come one after the other.
static WRITING: PerProcess<Mutex<Option<Terminal>>> = PerProcess::new(Mutex::default);

/// How long a thread waits until another one has written its line, which takes some microseconds, unless it waits for a disk.
const WRITING_PATIENCE: Duration = Duration::from_millis(2);

/// Whether there is such a descriptor.
#[must_use]
pub fn is_open() -> bool {
    rustix::io::fcntl_getfd(io::stderr()) != Err(Errno::BADF)
}

/// Writes a line of at most `PIPE_BUF` bytes, if that needs no waiting.
pub fn write_line(line: &str) {
    let written = locked_within(WRITING.get(), WRITING_PATIENCE).is_some_and(|mut terminal| {
        let stream = io::stderr();
        let mut write_now = |stream: &io::Stderr, line: &str| match stream.is_terminal() {
            true => Terminal::started(&mut terminal)?.write(line),
            false => write_now(stream, line),
        };
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let note = format!("LIBDQLITE: {dropped} lines were dropped: standard error took none\n");
            if write_now(&stream, &note).is_err() {
                DROPPED.fetch_add(dropped, Ordering::Relaxed);
                return false;
            }
        }
        write_now(&stream, line).is_ok()
    });
    if !written {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// A terminal waits as long as its user likes, and cannot be told not to: a thread of its own writes to it.
struct Terminal {
    lines: Sender<String>,
    /// Lines that were sent and are not written yet.
    left: Arc<(Mutex<usize>, Condvar)>,
}

/// How long whoever has a line waits until it is written: a process that ends next would else end without it.
const TERMINAL_PATIENCE: Duration = Duration::from_millis(10);

impl Terminal {
    fn started(known: &mut Option<Terminal>) -> io::Result<&mut Terminal> {
        if known.is_none() {
            *known = Some(Terminal::start()?);
        }
        known.as_mut().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn start() -> io::Result<Terminal> {
        let (lines, to_write) = channel::<String>();
        let left = Arc::new((Mutex::new(0), Condvar::new()));
        let shared = Arc::clone(&left);
        threads::spawn("dqlite-trace", None, move || {
            for line in to_write {
                // A terminal that has gone takes no lines; nobody is left to be told.
                let _ = write_all(&io::stderr(), &line);
                let (left, changed) = &*shared;
                *left.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
                changed.notify_all();
            }
        })?;
        Ok(Terminal { lines, left })
    }

    /// Has a line written, unless the one before is still waiting.
    fn write(&mut self, line: &str) -> io::Result<()> {
        let (left, changed) = &*self.left;
        let mut waiting = left.lock().unwrap_or_else(PoisonError::into_inner);
        if *waiting > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        *waiting += 1;
        self.lines.send(line.to_owned()).map_err(|_| ErrorKind::BrokenPipe)?;
        drop(changed.wait_timeout_while(waiting, TERMINAL_PATIENCE, |left| *left > 0));
        Ok(())
    }
}

fn write_all(stream: &impl AsFd, line: &str) -> io::Result<()> {
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match rustix::io::write(stream, rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
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
