//! What this library writes at the very end of an open segment: the index of its first entry. Entries do not say their index, and
//! open segments are counted on from the closed ones; with the mark a load sees that a segment before it is missing. Upstream reads
//! nothing behind the zeros that follow the last batch. The mark goes when the segment is closed. No I/O.

use super::checksum::crc32;
use crate::types::LogIndex;

/// Bytes of a mark.
pub(super) const MARK_BYTES: usize = 32;

/// How it begins: "dqlfirst".
const MAGIC: [u8; 8] = *b"dqlfirst";

/// The bytes of a mark: what it is, the index, their checksum, zeros.
pub(super) fn encode(first: LogIndex) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&first.0.to_le_bytes());
    let checksum = crc32(0, &bytes[..16]);
    bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The index; none if this is no whole mark.
pub(super) fn decode(bytes: &[u8]) -> Option<LogIndex> {
    let index = bytes.get(8..16)?.try_into().ok().map(u64::from_le_bytes)?;
    let first = LogIndex(index);
    (bytes == encode(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_nothing_else_is_one() {
        let mark = encode(LogIndex(0x0102_0304));
        assert_eq!(decode(&mark), Some(LogIndex(0x0102_0304)));

        for position in 0..MARK_BYTES {
            let mut torn = mark;
            torn[position] ^= 0x20;
            assert_eq!(decode(&torn), None, "{position}");
        }
        assert_eq!(decode(&mark[..31]), None);
        assert_eq!(decode(&[0; MARK_BYTES]), None);
    }
}
