//! Snapshot data files: written as a stream, raw or as one LZ4 frame, and read as a stream of plain bytes.
//!
//! The `.meta` file is durable before the data file gets its name; a snapshot exists when both do.
//! spec: disk-format 5, 6.1.

use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::path::PathBuf;

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::directory::Directory;
use super::disk::{DiskFile, OpenMode};
use super::error::StorageError;
use super::operations::{exists, failed, make_file, remove_if_there, rename, sync_directory};
use super::snapshot_meta::{SnapshotFile, SnapshotMeta};

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

/// Writes one snapshot; without `finish` no snapshot exists and the temporary file goes away.
pub struct SnapshotWriter {
    directory: Directory,
    meta: SnapshotMeta,
    temporary: PathBuf,
    content_size: u64,
    written: u64,
    sink: Option<Sink>,
    /// Length of the file once it is sealed.
    data_bytes: Option<u64>,
    /// Whether the data may have its name.
    named: bool,
}

enum Sink {
    Lz4(Box<FrameEncoder<FileAppender>>),
    Raw(FileAppender),
}

impl SnapshotWriter {
    /// Makes the `.meta` file of a snapshot and begins its data of `content_size` bytes, of which about `at_once` bytes are handed
    /// to the disk at once.
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
        let meta_path = directory.path().join(meta.name().meta_name());
        let data_path = directory.path().join(&name);
        if exists(directory, &meta_path)? && exists(directory, &data_path)? {
            return Err(failed("create snapshot", data_path, io::ErrorKind::AlreadyExists.into()));
        }
        let temporary_meta = directory.path().join(format!("tmp-{name}.meta"));
        make_file(directory, temporary_meta.clone(), &meta.encode())?;
        rename(directory, temporary_meta, meta_path)?;
        sync_directory(directory)?;
        let temporary = directory.path().join(format!("tmp-{name}"));
        remove_if_there(directory, temporary.clone())?;
        let opened = directory.disk().open(&temporary, OpenMode::CreateExclusive);
        let appender = FileAppender {
            file: opened.map_err(|error| failed("create snapshot", temporary.clone(), error))?,
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
        Ok(SnapshotWriter {
            directory: directory.clone(),
            meta,
            temporary,
            content_size,
            written: 0,
            sink: Some(sink),
            data_bytes: None,
            named: false,
        })
    }

    /// Ends the data, makes it durable and gives it its name.
    ///
    /// # Errors
    /// A file operation failed, or the content does not have the announced size; no snapshot exists then.
    pub fn finish(mut self) -> Result<SnapshotFile, StorageError> {
        self.seal()?;
        self.name()
    }

    /// Ends the data and makes it durable; it has no name yet.
    ///
    /// # Errors
    /// A file operation failed, or the content does not have the announced size.
    pub fn seal(&mut self) -> Result<(), StorageError> {
        let Some(sink) = self.sink.take() else { return Ok(()) };
        let finish = || {
            if self.written != self.content_size {
                let message = format!("content has {} bytes, announced {}", self.written, self.content_size);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            let mut appender = match sink {
                Sink::Raw(appender) => appender,
                Sink::Lz4(encoder) => encoder.finish().map_err(io::Error::other)?,
            };
            appender.flush()?;
            appender.file.sync_all()?;
            Ok(appender.offset)
        };
        let written = finish().map_err(|error| failed("write snapshot", self.temporary.clone(), error))?;
        self.data_bytes = Some(written);
        Ok(())
    }

    /// Reads back what was sealed.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub fn read_back(&self) -> Result<SnapshotReader, StorageError> {
        open_plain(&self.directory, &self.temporary)
    }

    /// Gives sealed data its name.
    ///
    /// # Errors
    /// A file operation failed, or the data was not sealed.
    pub fn name(mut self) -> Result<SnapshotFile, StorageError> {
        let Some(data_bytes) = self.data_bytes else {
            let error = io::Error::other("the data was not ended");
            return Err(failed("name snapshot", self.temporary.clone(), error));
        };
        let data_name = self.meta.name().data_name();
        let data = self.directory.path().join(&data_name);
        // From here on the snapshot may exist, whatever an error says.
        self.named = true;
        rename(&self.directory, self.temporary.clone(), data)?;
        sync_directory(&self.directory)?;
        Ok(SnapshotFile { meta: self.meta.clone(), data_name, data_bytes })
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.content_size - self.written {
            let message = format!("content longer than the announced {} bytes", self.content_size);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let Some(sink) = self.sink.as_mut() else { return Err(io::Error::other("the data was ended")) };
        let count = match sink {
            Sink::Lz4(encoder) => encoder.write(bytes)?,
            Sink::Raw(appender) => appender.write(bytes)?,
        };
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Blocks and buffers go to the file when they are full, and in `finish`.
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.named {
            // What cannot be removed here is removed by the next start.
            let _ = self.directory.disk().remove(&self.temporary);
            let _ = self.directory.disk().remove(&self.directory.path().join(self.meta.name().meta_name()));
        }
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
        open_plain(directory, &directory.path().join(&self.data_name))
    }

    /// Bytes that `open_data` gives.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn content_bytes(&self, directory: &Directory) -> Result<u64, StorageError> {
        let path = directory.path().join(&self.data_name);
        let read = || {
            let mut start = [0; 14];
            let file = directory.disk().open(&path, OpenMode::Read)?;
            let count = file.read_at(&mut start, 0)?;
            if !start.starts_with(&LZ4_MAGIC) {
                return Ok(self.data_bytes);
            }
            if count == start.len() && start[4] & LZ4_HAS_SIZE != 0 {
                let mut size = [0; 8];
                size.copy_from_slice(&start[6..]);
                return Ok(u64::from_le_bytes(size));
            }
            let mut reader = open_plain(directory, &path).map_err(io::Error::other)?;
            io::copy(&mut reader, &mut io::sink())
        };
        read().map_err(|error| failed("read snapshot", path.clone(), error))
    }
}

fn open_plain(directory: &Directory, path: &std::path::Path) -> Result<SnapshotReader, StorageError> {
    let open = || {
        let file = FileReader { file: directory.disk().open(path, OpenMode::Read)?, offset: 0 };
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        Ok(if file.fill_buf()?.starts_with(&LZ4_MAGIC) {
            let decoder = FrameDecoder::new(EndWatch { file, saw_end: false });
            SnapshotReader { source: Source::Lz4(Box::new(decoder)), ended: false }
        } else {
            SnapshotReader { source: Source::Raw(file), ended: false }
        })
    };
    open().map_err(|error| failed("open snapshot", path.to_owned(), error))
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
    use std::sync::Arc;

    use super::super::disk::FileDisk;
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
        writer.finish().unwrap()
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
            let directory = Directory::open(Arc::new(FileDisk), keep.path()).unwrap();
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
        let directory = Directory::open(Arc::new(FileDisk), keep.path()).unwrap();
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
                reader.read_to_end(&mut read).map_err(|error| failed("read", path.clone(), error))
            });
            assert!(result.is_err(), "cut at {cut}");
        }
    }
}
