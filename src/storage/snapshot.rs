//! Snapshot data files: written as a stream, raw or as one LZ4 frame, and read as a stream of plain bytes.
//!
//! Files get their names when both are whole, `.meta` first; a snapshot exists when both have one.
//! spec: disk-format 5, 6.1.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::directory::Directory;
use super::disk::{DiskFile, OpenMode};
use super::error::StorageError;
use super::new_file::NewFile;
use super::snapshot_meta::{SnapshotFile, SnapshotMeta};
use crate::types::LogIndex;

/// First bytes of an LZ4 frame. spec: disk-format 5.2.
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// Bit of the frame's flags that says that the content's size follows.
const LZ4_HAS_SIZE: u8 = 0x08;
/// Bytes written to or read from the file at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Form of the data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// One LZ4 frame.
    Lz4,
    /// The content as it is.
    None,
}

/// Writes one snapshot, in a file without a name.
pub struct SnapshotWriter {
    directory: Directory,
    meta: SnapshotMeta,
    data: NewFile,
    content_size: u64,
    written: u64,
    sink: Sink,
}

/// A snapshot whose content is whole and durable, and which does not exist yet.
pub trait Sealed: Send {
    /// Index of the last entry in it.
    fn index(&self) -> LogIndex;

    /// Its content.
    ///
    /// # Errors
    /// It cannot be read.
    fn read_back(&self) -> Result<Box<dyn Read + Send>, StorageError>;

    /// Gives `.meta` its name. Durable after a sync of the directory. Can be called again after an error.
    ///
    /// # Errors
    /// Those of the file system.
    fn name_meta(&mut self) -> Result<(), StorageError>;

    /// Gives the data its name, after `.meta` has one. Durable after a sync of the directory. Can be called again after an error.
    ///
    /// # Errors
    /// Those of the file system.
    fn name_data(&mut self) -> Result<(), StorageError>;
}

/// Makes it a snapshot of the directory: a `.meta` file without data is none, and goes at the next start. Can be called again after
/// an error.
pub(super) fn name_snapshot(directory: &Directory, snapshot: &mut dyn Sealed) -> Result<(), StorageError> {
    snapshot.name_meta()?;
    directory.sync()?;
    snapshot.name_data()?;
    directory.sync()
}

/// The files of a sealed snapshot; without their names they go away.
pub struct SealedSnapshot {
    directory: Directory,
    file: SnapshotFile,
    meta: NewFile,
    data: NewFile,
    /// Whether `.meta` has its name, and may be all that has one.
    is_half_named: bool,
}

impl SealedSnapshot {
    /// Makes it a snapshot of the directory, where nobody writes a log.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn name(mut self) -> Result<SnapshotFile, StorageError> {
        name_snapshot(&self.directory.clone(), &mut self)?;
        Ok(self.file.clone())
    }
}

impl Sealed for SealedSnapshot {
    fn index(&self) -> LogIndex {
        self.file.meta.index
    }

    fn read_back(&self) -> Result<Box<dyn Read + Send>, StorageError> {
        Ok(Box::new(plain(self.data.duplicate()?, self.data.target())?))
    }

    fn name_meta(&mut self) -> Result<(), StorageError> {
        self.meta.name()?;
        self.is_half_named = true;
        Ok(())
    }

    fn name_data(&mut self) -> Result<(), StorageError> {
        // From here on the snapshot may exist, whatever an error says.
        self.is_half_named = false;
        self.data.name()
    }
}

impl Drop for SealedSnapshot {
    fn drop(&mut self) {
        if self.is_half_named {
            // What cannot be removed here is removed by the next start.
            let _ = self.directory.remove(self.meta.target());
        }
    }
}

enum Sink {
    Lz4(Box<FrameEncoder<FileAppender>>),
    Raw(FileAppender),
}

impl SnapshotWriter {
    /// Begins a snapshot with a content of `content_size` bytes, of which about `at_once` bytes are handed to the disk at once.
    ///
    /// # Errors
    /// A file operation failed, or the snapshot exists.
    pub fn create(
        directory: &Directory,
        meta: SnapshotMeta,
        content_size: u64,
        compression: Compression,
        at_once: u64,
    ) -> Result<SnapshotWriter, StorageError> {
        let name = meta.name().data_name();
        if directory.exists(&name)? {
            return Err(StorageError::Exists(name));
        }
        let data = NewFile::create(directory, &name)?;
        let appender = FileAppender {
            file: data.duplicate()?,
            offset: 0,
            synced: 0,
            at_once,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        };
        let sink = match compression {
            Compression::None => Sink::Raw(appender),
            Compression::Lz4 => {
                let info = FrameInfo::new()
                    .block_mode(BlockMode::Linked)
                    .block_size(BlockSize::Max64KB)
                    .content_size(Some(content_size))
                    .content_checksum(true);
                Sink::Lz4(Box::new(FrameEncoder::with_frame_info(info, appender)))
            }
        };
        Ok(SnapshotWriter { directory: directory.clone(), meta, data, content_size, written: 0, sink })
    }

    /// Ends the data and makes it and its `.meta` durable; they have no names yet.
    ///
    /// # Errors
    /// A file operation failed, or the content does not have the announced size.
    pub fn seal(self) -> Result<SealedSnapshot, StorageError> {
        let SnapshotWriter { directory, meta, data, content_size, written, sink } = self;
        let failed = |source| StorageError::io("write snapshot", data.target(), source);
        if written != content_size {
            let message = format!("content has {written} bytes, announced {content_size}");
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, message)));
        }
        let finish = || {
            let mut appender = match sink {
                Sink::Raw(appender) => appender,
                Sink::Lz4(encoder) => encoder.finish().map_err(io::Error::other)?,
            };
            appender.flush()?;
            appender.file.sync_all()?;
            Ok(appender.offset)
        };
        let data_bytes = finish().map_err(failed)?;
        let mut meta_file = NewFile::create(&directory, &meta.name().meta_name())?;
        let written = meta_file.write(&[IoSlice::new(&meta.encode())]);
        written.map_err(|source| StorageError::io("write", meta_file.target(), source))?;
        let file = SnapshotFile { data_name: data.target().to_owned(), meta, data_bytes };
        Ok(SealedSnapshot { directory, file, meta: meta_file, data, is_half_named: false })
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.content_size - self.written {
            let message = format!("content longer than the announced {} bytes", self.content_size);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let count = match &mut self.sink {
            Sink::Lz4(encoder) => encoder.write(bytes)?,
            Sink::Raw(appender) => appender.write(bytes)?,
        };
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Blocks and buffers go to the file when they are full, and in `seal`.
        Ok(())
    }
}

/// Appends to a file through a buffer.
struct FileAppender {
    file: Box<dyn DiskFile>,
    offset: u64,
    synced: u64,
    at_once: u64,
    buffer: Vec<u8>,
}

impl FileAppender {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_vectored_at(&[IoSlice::new(bytes)], self.offset)?;
        self.offset += bytes.len() as u64;
        // Written out bit by bit: the log's syncs must not wait behind a whole snapshot.
        if self.offset - self.synced >= self.at_once {
            self.file.sync_data()?;
            self.synced = self.offset;
        }
        Ok(())
    }
}

impl Write for FileAppender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            self.append(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        if !buffer.is_empty() {
            self.append(&buffer)?;
        }
        self.buffer = buffer;
        self.buffer.clear();
        Ok(())
    }
}

impl SnapshotFile {
    /// Opens the data: plain content, whichever form the file has.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub fn open_data(&self, directory: &Directory) -> Result<SnapshotReader, StorageError> {
        plain(directory.open_file(&self.data_name, OpenMode::Read)?, &self.data_name)
    }

    /// Bytes that `open_data` gives.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn content_bytes(&self, directory: &Directory) -> Result<u64, StorageError> {
        let file = directory.open_file(&self.data_name, OpenMode::Read)?;
        let read = || {
            let mut start = [0; 14];
            let count = file.read_at(&mut start, 0)?;
            if !start.starts_with(&LZ4_MAGIC) {
                return Ok(self.data_bytes);
            }
            if count == start.len() && start[4] & LZ4_HAS_SIZE != 0 {
                let mut size = [0; 8];
                size.copy_from_slice(&start[6..]);
                return Ok(u64::from_le_bytes(size));
            }
            let mut reader = self.open_data(directory).map_err(io::Error::other)?;
            io::copy(&mut reader, &mut io::sink())
        };
        read().map_err(|source| StorageError::io("read snapshot", &self.data_name, source))
    }
}

/// The content of a data file.
fn plain(file: Box<dyn DiskFile>, name: &str) -> Result<SnapshotReader, StorageError> {
    let open = || {
        let mut file = BufReader::with_capacity(BUFFER_BYTES, FileReader { file, offset: 0 });
        Ok(if file.fill_buf()?.starts_with(&LZ4_MAGIC) {
            let decoder = FrameDecoder::new(EndWatch { file, saw_end: false });
            SnapshotReader { source: Source::Lz4(Box::new(decoder)), ended: false }
        } else {
            SnapshotReader { source: Source::Raw(file), ended: false }
        })
    };
    open().map_err(|source| StorageError::io("open snapshot", name, source))
}

/// The plain content of a snapshot. A damaged or truncated LZ4 file gives an error where it is found.
pub struct SnapshotReader {
    source: Source,
    ended: bool,
}

enum Source {
    Lz4(Box<FrameDecoder<EndWatch>>),
    Raw(BufReader<FileReader>),
}

impl Read for SnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.ended {
            return Ok(0);
        }
        match &mut self.source {
            Source::Raw(file) => file.read(buffer),
            Source::Lz4(decoder) => {
                let count = decoder.read(buffer)?;
                if count > 0 {
                    return Ok(count);
                }
                // The decoder takes the end of the file between two blocks for the end of the frame.
                if decoder.get_ref().saw_end {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the LZ4 frame is truncated"));
                }
                // What follows the frame is ignored, as upstream does (disk-format 7.5).
                self.ended = true;
                Ok(0)
            }
        }
    }
}

/// Notices that somebody read behind the end of the file.
struct EndWatch {
    file: BufReader<FileReader>,
    saw_end: bool,
}

impl Read for EndWatch {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.saw_end |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

struct FileReader {
    file: Box<dyn DiskFile>,
    offset: u64,
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::file_disk::FileDisk;
    use super::*;
    use crate::types::{Configuration, LogIndex, NodeId, Role, Server, Term};

    fn write(directory: &Directory, content: &[u8], compression: Compression) -> SnapshotFile {
        let server = Server { id: NodeId(1), address: b"127.0.0.1:29001".to_vec(), role: Role::Voter };
        let meta = SnapshotMeta {
            term: Term(2),
            index: LogIndex(7),
            timestamp: 11,
            configuration: Configuration::new(vec![server]).unwrap(),
            configuration_index: LogIndex(1),
        };
        let mut writer =
            SnapshotWriter::create(directory, meta, content.len() as u64, compression, 4096).unwrap();
        for piece in content.chunks(10_000) {
            writer.write_all(piece).unwrap();
        }
        writer.seal().unwrap().name().unwrap()
    }

    fn content() -> Vec<u8> {
        (0..200_000u32).flat_map(|number| (number / 7).to_le_bytes()).collect()
    }

    // conformance: disk-format 12
    #[test]
    fn both_forms_are_read_back() {
        for (compression, content) in
            [(Compression::Lz4, content()), (Compression::None, content()), (Compression::Lz4, Vec::new())]
        {
            let keep = tempfile::tempdir().unwrap();
            let directory = Directory::open(&FileDisk, keep.path()).unwrap();
            let file = write(&directory, &content, compression);

            let mut read = Vec::new();
            file.open_data(&directory).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, content);
            assert_eq!(file.content_bytes(&directory).unwrap(), content.len() as u64);
            assert!(keep.path().join("snapshot-2-7-11.meta").exists());
            assert_eq!(std::fs::read_dir(keep.path()).unwrap().count(), 2);
        }
    }

    // conformance: disk-format 12
    #[test]
    fn the_frame_has_the_header_of_upstream_and_any_cut_is_an_error() {
        let keep = tempfile::tempdir().unwrap();
        let directory = Directory::open(&FileDisk, keep.path()).unwrap();
        let file = write(&directory, &content(), Compression::Lz4);
        let path = keep.path().join("snapshot-2-7-11");
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole[..6], [0x04, 0x22, 0x4d, 0x18, 0x4c, 0x40]);

        let first_block = 15 + 4 + u32::from_le_bytes(whole[15..19].try_into().unwrap()) as usize;
        for cut in
            [10, 15, 17, first_block, first_block + 2, whole.len() - 8, whole.len() - 4, whole.len() - 1]
        {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut read = Vec::new();
            let result = file.open_data(&directory).and_then(|mut reader| {
                reader.read_to_end(&mut read).map_err(|error| StorageError::io("read", "it", error))
            });
            assert!(result.is_err(), "cut at {cut}");
        }
    }
}
