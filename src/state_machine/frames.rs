//! Entries of transactions as bytes: made, merged and told apart without looking at their pages. spec: state-machine 1.2.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::command::{Command, FORMAT, FRAMES, Frames};
use super::fields::little_endian;
use crate::pages::PageRef;
use crate::types::config::{DATABASE_NAME_MAX_BYTES, PAGE_SIZE};
use crate::types::{Chunk, Entry, EntryData, EntryKind, PageNumber};

/// Bytes of a FRAMES entry before its page images. spec: state-machine 1.2.
#[must_use]
pub fn frames_prefix_bytes(name: &[u8], pages: usize) -> usize {
    8 + (name.len() + 1).next_multiple_of(8) + 24 + 8 * pages
}

/// The entry of a transaction; the images are not copied.
#[must_use]
pub fn encode_frames(name: &[u8], pages: &[(PageNumber, PageRef)]) -> EntryData {
    encode(name, pages.iter().map(|(number, page)| (*number, page.chunk())))
}

fn encode(name: &[u8], pages: impl ExactSizeIterator<Item = (PageNumber, Chunk)> + Clone) -> EntryData {
    let mut prefix = BytesMut::with_capacity(frames_prefix_bytes(name, pages.len()));
    prefix.extend_from_slice(&[FORMAT, FRAMES, 0, 0, 0, 0, 0, 0]);
    prefix.extend_from_slice(name);
    prefix.resize(8 + (name.len() + 1).next_multiple_of(8), 0);
    prefix.extend_from_slice(&[0; 8]); // tx_id
    prefix.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]); // truncate, is_commit, unused
    prefix.extend_from_slice(&u32::try_from(pages.len()).unwrap_or(u32::MAX).to_le_bytes());
    prefix.extend_from_slice(&(PAGE_SIZE as u16).to_le_bytes());
    prefix.extend_from_slice(&[0; 2]);
    let mut chunks = Vec::with_capacity(1 + pages.len());
    chunks.push(Chunk::Memory(Bytes::new()));
    for (number, image) in pages {
        prefix.extend_from_slice(&u64::from(number.0).to_le_bytes());
        chunks.push(image);
    }
    chunks[0] = prefix.freeze().into();
    EntryData::from_chunks(chunks)
}

/// An entry as `encode` makes it: one chunk before the images, one for each of them.
struct Encoded<'a> {
    name: Bytes,
    numbers: Bytes,
    images: &'a [Chunk],
}

impl<'a> Encoded<'a> {
    fn of(data: &'a EntryData) -> Option<Encoded<'a>> {
        let (Chunk::Memory(prefix), images) = data.chunks().split_first()? else { return None };
        let numbers_at = prefix.len().checked_sub(8 * images.len())?;
        let end = 8 + prefix.get(8..)?.iter().position(|byte| *byte == 0)?;
        let is_frames = prefix.starts_with(&[FORMAT, FRAMES])
            && numbers_at == frames_prefix_bytes(&prefix[8..end], 0)
            && images.iter().all(|image| image.len() == PAGE_SIZE);
        is_frames.then(|| Encoded { name: prefix.slice(8..end), numbers: prefix.slice(numbers_at..), images })
    }
}

/// The database of an entry made by `encode_frames` or `merge_frames`, without looking at its pages.
#[must_use]
pub fn frames_name(data: &EntryData) -> Option<Bytes> {
    Encoded::of(data).map(|encoded| encoded.name)
}

/// One entry that does what these do one after the other; none if they are not all transactions of one database. None of
/// them may make the database smaller.
#[must_use]
pub fn merge_frames<'a>(entries: impl Iterator<Item = &'a EntryData>) -> Option<EntryData> {
    let mut name = None;
    let mut last_images = BTreeMap::new();
    for data in entries {
        let encoded = Encoded::of(data)?;
        if *name.get_or_insert_with(|| encoded.name.clone()) != encoded.name {
            return None;
        }
        for (number, image) in encoded.numbers.chunks_exact(8).zip(encoded.images) {
            last_images.insert(PageNumber(u32::try_from(little_endian(number)).ok()?), image);
        }
    }
    Some(encode(&name?, last_images.iter().map(|(number, image)| (*number, Chunk::clone(image)))))
}

/// The database that an entry deletes: it is page 1 alone, which tells a size of 0. spec: state-machine 2.2.
#[must_use]
pub fn deleted_database(entry: &Entry) -> Option<Bytes> {
    let longest = frames_prefix_bytes(&[0; DATABASE_NAME_MAX_BYTES], 1) + PAGE_SIZE;
    if entry.kind != EntryKind::Command || entry.data.len() > longest {
        return None;
    }
    let Ok(Command::Frames(Frames { name, pages })) = Command::decode(&entry.data) else { return None };
    let [(PageNumber(1), page)] = &pages[..] else { return None };
    // What cannot be read may be one.
    let deletes = page.read().map_or(true, |page| page.get(28..32) == Some(&[0; 4]));
    deletes.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::testing::page;
    use crate::types::Term;

    // conformance: state-machine 1, 4
    #[test]
    fn frames_have_the_specified_bytes() {
        let data = encode_frames(b"test.db", &[(PageNumber(1), page(0x53)), (PageNumber(2), page(2))]);

        assert_eq!(data.len(), 8248);
        #[rustfmt::skip]
        assert_eq!(&data.contiguous().unwrap()[..0x39], [
            0x01, 0x02, 0, 0, 0, 0, 0, 0, 0x74, 0x65, 0x73, 0x74, 0x2e, 0x64, 0x62, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0,
            2, 0, 0, 0, 0, 0x10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
            2, 0, 0, 0, 0, 0, 0, 0, 0x53,
        ]);
        assert_eq!(encode_frames(b"test.db", &[(PageNumber(2), page(0))]).len(), 4144);
        assert_eq!(data.chunks().len(), 3);
    }

    #[test]
    fn an_entry_deletes_a_database_if_it_is_page_1_alone_with_size_0() {
        let page_one = |size: u8| {
            let mut bytes = [7; PAGE_SIZE];
            bytes[28..32].copy_from_slice(&[0, 0, 0, size]);
            PageRef::new(&bytes)
        };
        let deleted = |name: &[u8], pages: &[(PageNumber, PageRef)]| {
            let data = encode_frames(name, pages);
            deleted_database(&Entry { data, kind: EntryKind::Command, ..Entry::barrier(Term(1)) })
        };

        for name in [&b"a"[..], &[b'a'; DATABASE_NAME_MAX_BYTES]] {
            assert_eq!(deleted(name, &[(PageNumber(1), page_one(0))]).as_deref(), Some(name));
        }
        assert_eq!(deleted(b"a", &[(PageNumber(1), page_one(1))]), None);
        assert_eq!(deleted(b"a", &[(PageNumber(2), page_one(0))]), None);
        assert_eq!(deleted(b"a", &[(PageNumber(1), page_one(0)), (PageNumber(2), page(0))]), None);
        assert_eq!(deleted_database(&Entry::barrier(Term(1))), None);
    }

    #[test]
    fn merged_transactions_are_the_last_images_of_their_pages_in_one() {
        let of = |name: &[u8], pages: &[(u32, u8)]| {
            let pages: Vec<_> =
                pages.iter().map(|(number, byte)| (PageNumber(*number), page(*byte))).collect();
            encode_frames(name, &pages)
        };
        let (one, two, three) = (
            of(b"eightchr", &[(1, 1), (2, 2)]),
            of(b"eightchr", &[(2, 3), (900, 4)]),
            of(b"eightchr", &[(1, 5)]),
        );

        let merged = merge_frames([&one, &two, &three].into_iter()).unwrap();

        assert_eq!(merged, of(b"eightchr", &[(1, 5), (2, 3), (900, 4)]));
        assert_eq!(
            merge_frames([&merged, &one].into_iter()).unwrap(),
            of(b"eightchr", &[(1, 1), (2, 2), (900, 4)])
        );
        assert_eq!(frames_name(&merged).unwrap(), b"eightchr"[..]);
        assert_eq!(frames_name(&one).unwrap(), b"eightchr"[..]);
        assert_eq!(frames_name(&of(b"eightch", &[(1, 1)])).unwrap(), b"eightch"[..]);
        assert!(merge_frames([&one, &of(b"other", &[(1, 1)])].into_iter()).is_none());
        // Not made here: in one piece, or no transaction.
        let received = EntryData::from_bytes(one.contiguous().unwrap());
        for other in [received, Entry::barrier(Term(1)).data, EntryData::default()] {
            assert_eq!(frames_name(&other), None);
            assert!(merge_frames([&one, &other].into_iter()).is_none());
        }
        assert!(merge_frames(std::iter::empty()).is_none());
    }

    // conformance: raft-wire 29
    #[test]
    fn every_command_fills_whole_words() {
        for length in 1..=504 {
            for pages in [1, 2, 3] {
                let pages: Vec<(PageNumber, PageRef)> =
                    (0..pages).map(|number| (PageNumber(number + 1), page(0))).collect();
                let bytes = encode_frames(&vec![b'n'; length], &pages).len();
                assert!(bytes.is_multiple_of(8) && bytes > pages.len() * PAGE_SIZE, "{length}: {bytes}");
            }
        }
    }
}
