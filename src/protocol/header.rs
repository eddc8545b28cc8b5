//! Header of every message. spec: client-protocol 3.1.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 8;

/// Header of one message, both ways.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MessageHeader {
    /// Body length in 8-byte words, header excluded.
    pub body_words: U32,
    /// Request or response type.
    pub kind: u8,
    /// Body layout revision.
    pub schema: u8,
    /// Zero when sent, ignored when received.
    pub extra: U16,
}

const _: () = assert!(size_of::<MessageHeader>() == HEADER_BYTES);

impl MessageHeader {
    /// The header in these bytes; a shorter slice reads as if zeros followed.
    #[must_use]
    pub fn read(bytes: &[u8]) -> MessageHeader {
        let mut whole = [0; HEADER_BYTES];
        for (to, from) in whole.iter_mut().zip(bytes) {
            *to = *from;
        }
        zerocopy::transmute!(whole)
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        u64::from(self.body_words.get()) * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_sql_header_has_the_specified_bytes() {
        let wire = [3, 0, 0, 0, 8, 0, 0, 0]; // 3 words, type 8 = EXEC_SQL, schema 0

        let header = MessageHeader::read(&wire);

        assert_eq!((header.body_bytes(), header.kind, header.schema), (24, 8, 0));
        assert_eq!(header.as_bytes(), wire);
    }
}
