//! The pages of a database as a DUMP shows them. Versions up to 1.18.2 answer with the main file and a WAL, later ones with
//! everything in the main file; both become the same pages here. spec: client-protocol 13.

use std::fmt;

use dqlite::protocol::decode::File;

/// Bytes of a page; the client protocol knows no other size.
const PAGE_BYTES: usize = 4096;
/// Bytes of a WAL's header.
const WAL_HEADER_BYTES: usize = 32;
/// Bytes of a frame's header.
const FRAME_HEADER_BYTES: usize = 24;

/// Bytes of the database's header, in front of the first page's own.
const DATABASE_HEADER_BYTES: usize = 100;
/// The first byte of a page that is a leaf of a table.
const TABLE_LEAF: u8 = 13;

/// Why the files of a DUMP are no database.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A database and its WAL are expected.
    #[error("{0} files, expected the database and its WAL")]
    FileCount(usize),
    /// The main file has no whole number of pages.
    #[error("a main file of {0} bytes")]
    Length(usize),
    /// A frame has page 0.
    #[error("frame {0} of the WAL has page 0")]
    PageZero(usize),
}

/// All pages of a database.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// Puts the committed frames of the WAL over the main file.
    ///
    /// # Errors
    /// See `ImageError`.
    pub fn of_files(files: &[File]) -> Result<Image, ImageError> {
        let [main, wal] = files else { return Err(ImageError::FileCount(files.len())) };
        if !main.content.len().is_multiple_of(PAGE_BYTES) {
            return Err(ImageError::Length(main.content.len()));
        }
        let mut bytes = main.content.to_vec();
        for (page, content, page_count) in committed_frames(&wal.content)? {
            if bytes.len() < (page + 1) * PAGE_BYTES {
                bytes.resize((page + 1) * PAGE_BYTES, 0);
            }
            bytes[page * PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(content);
            if page_count > 0 {
                bytes.resize(page_count * PAGE_BYTES, 0);
            }
        }
        Ok(Image { bytes })
    }

    /// Number of pages.
    #[must_use]
    pub fn page_count(&self) -> usize {
        self.bytes.len() / PAGE_BYTES
    }

    /// Rows of all tables, the schema's own among them. Counts right where no page is free and no row needs more than its page:
    /// in a database from which nothing is removed.
    #[must_use]
    pub fn row_count(&self) -> usize {
        let pages = self.bytes.chunks_exact(PAGE_BYTES).enumerate();
        let headers =
            pages.map(|(number, page)| if number == 0 { &page[DATABASE_HEADER_BYTES..] } else { page });
        let leaves = headers.filter(|header| header[0] == TABLE_LEAF);
        leaves.map(|header| usize::from(u16::from_be_bytes([header[3], header[4]]))).sum()
    }

    /// Numbers of the pages that differ, from 1 as SQLite counts; a page that only one has differs.
    #[must_use]
    pub fn different_pages(&self, other: &Image) -> Vec<usize> {
        let count = self.page_count().max(other.page_count());
        (1..=count).filter(|number| self.page(*number) != other.page(*number)).collect()
    }

    fn page(&self, number: usize) -> Option<&[u8]> {
        self.bytes.get((number - 1) * PAGE_BYTES..number * PAGE_BYTES)
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Image of {} pages", self.page_count())
    }
}

/// Page (from 0), content, and page count after it if a transaction ends there.
type Frame<'a> = (usize, &'a [u8], usize);

/// Frames up to the last that ends a transaction. A frame with other salts than the header's is left over from before.
fn committed_frames(wal: &[u8]) -> Result<Vec<Frame<'_>>, ImageError> {
    let Some((header, rest)) = wal.split_at_checked(WAL_HEADER_BYTES) else { return Ok(Vec::new()) };
    let word = |bytes: &[u8], at: usize| {
        bytes[at..at + 4].iter().fold(0, |value, byte| value << 8 | usize::from(*byte))
    };
    let mut frames: Vec<Frame<'_>> = Vec::new();
    let mut committed = 0;
    for (position, frame) in rest.chunks_exact(FRAME_HEADER_BYTES + PAGE_BYTES).enumerate() {
        if frame[8..16] != header[16..24] {
            break;
        }
        let page = word(frame, 0).checked_sub(1).ok_or(ImageError::PageZero(position + 1))?;
        frames.push((page, &frame[FRAME_HEADER_BYTES..], word(frame, 4)));
        if word(frame, 4) > 0 {
            committed = frames.len();
        }
    }
    frames.truncate(committed);
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn files(main: Vec<u8>, wal: Vec<u8>) -> [File; 2] {
        let file = |name: &'static str, content| File { name: name.into(), content: Bytes::from(content) };
        [file("a", main), file("a-wal", wal)]
    }

    fn frame(page: u8, page_count: u8, salt: u8, fill: u8) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        (frame[3], frame[7], frame[15]) = (page, page_count, salt);
        frame.extend_from_slice(&[fill; PAGE_BYTES]);
        frame
    }

    #[test]
    fn committed_frames_are_in_the_image_and_others_are_not() {
        let mut wal = vec![0; WAL_HEADER_BYTES];
        wal[23] = 9;
        for (page, page_count, salt, fill) in
            [(1, 0, 9, 2), (2, 2, 9, 3), (2, 3, 9, 4), (1, 0, 9, 5), (1, 1, 8, 6)]
        {
            wal.extend(frame(page, page_count, salt, fill));
        }

        let image = Image::of_files(&files(vec![1; PAGE_BYTES], wal)).unwrap();

        let expected = [[2; PAGE_BYTES], [4; PAGE_BYTES], [0; PAGE_BYTES]].concat();
        assert_eq!(image, Image::of_files(&files(expected, Vec::new())).unwrap());
    }

    #[test]
    fn rows_are_counted_on_the_leaves_of_tables() {
        let mut bytes = vec![0; 4 * PAGE_BYTES];
        let mut page = |number: usize, at: usize, kind: u8, cells: u16| {
            bytes[number * PAGE_BYTES + at] = kind;
            bytes[number * PAGE_BYTES + at + 3..][..2].copy_from_slice(&cells.to_be_bytes());
        };
        page(0, DATABASE_HEADER_BYTES, TABLE_LEAF, 1);
        page(1, 0, 5, 2);
        page(2, 0, TABLE_LEAF, 300);
        page(3, 0, TABLE_LEAF, 4);

        assert_eq!(Image::of_files(&files(bytes, Vec::new())).unwrap().row_count(), 305);
    }

    #[test]
    fn different_pages_are_named() {
        let one = Image::of_files(&files(vec![1; 3 * PAGE_BYTES], Vec::new())).unwrap();
        let mut bytes = vec![1; 4 * PAGE_BYTES];
        bytes[PAGE_BYTES] = 2;
        let two = Image::of_files(&files(bytes, Vec::new())).unwrap();

        assert_eq!(one.different_pages(&two), [2, 4]);
        assert_eq!(one.different_pages(&one), [0; 0]);
    }
}
