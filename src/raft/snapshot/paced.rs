//! A snapshot that is written bit by bit, so that those who serve clients get at the processor and the disk between two bits.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use crate::raft::machine::SnapshotContent;
use crate::types::config::WRITTEN_OUT_AT_ONCE_BYTES;
use crate::types::tasks::BlockingPool;

/// Content that gives way whenever it has written so much that the disk was handed something.
pub(super) struct Paced {
    pub(super) content: Box<dyn SnapshotContent>,
    pub(super) pool: Arc<dyn BlockingPool>,
}

impl SnapshotContent for Paced {
    fn content_size(&self) -> u64 {
        self.content.content_size()
    }

    fn write_to(&self, writer: &mut dyn Write) -> io::Result<()> {
        let pool = self.pool.as_ref();
        self.content.write_to(&mut PacedWriter { writer, pool, bytes: 0, since: Instant::now() })
    }
}

struct PacedWriter<'a> {
    writer: &'a mut dyn Write,
    pool: &'a dyn BlockingPool,
    /// Written since it last gave way, and when that was.
    bytes: u64,
    since: Instant,
}

impl Write for PacedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(bytes)?;
        self.bytes += count as u64;
        if self.bytes >= WRITTEN_OUT_AT_ONCE_BYTES {
            self.bytes = 0;
            if !self.pool.give_way(self.since.elapsed()) {
                return Err(io::Error::other("the node stops"));
            }
            self.since = Instant::now();
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    struct Zeros(usize);

    impl SnapshotContent for Zeros {
        fn content_size(&self) -> u64 {
            self.0 as u64
        }

        fn write_to(&self, writer: &mut dyn Write) -> io::Result<()> {
            vec![0; self.0].chunks(4096).try_for_each(|page| writer.write_all(page))
        }
    }

    /// Counts, and wants no more than so many pieces.
    struct Counting(AtomicUsize, usize);

    impl BlockingPool for Counting {
        fn run(&self, work: Box<dyn FnOnce() + Send>) {
            work();
        }

        fn give_way(&self, _worked: Duration) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed) + 1 < self.1
        }
    }

    #[test]
    fn a_snapshot_gives_way_once_for_each_piece_and_loses_nothing() {
        let pool = Arc::new(Counting(AtomicUsize::new(0), usize::MAX));
        let bytes = 10 * WRITTEN_OUT_AT_ONCE_BYTES as usize + 4096;
        let paced = Paced { content: Box::new(Zeros(bytes)), pool: pool.clone() };
        let mut written = Vec::new();

        paced.write_to(&mut written).unwrap();

        assert_eq!((paced.content_size(), written.len()), (bytes as u64, bytes));
        assert_eq!(pool.0.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn a_snapshot_that_nobody_wants_any_more_is_not_written_to_its_end() {
        let pool = Arc::new(Counting(AtomicUsize::new(0), 3));
        let paced = Paced { content: Box::new(Zeros(10 * WRITTEN_OUT_AT_ONCE_BYTES as usize)), pool };
        let mut written = Vec::new();

        let error = paced.write_to(&mut written).unwrap_err();

        assert_eq!(error.to_string(), "the node stops");
        assert_eq!(written.len(), 3 * WRITTEN_OUT_AT_ONCE_BYTES as usize);
    }
}
