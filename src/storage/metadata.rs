//! Term and vote as `metadata1` and `metadata2` hold them. spec: disk-format 3.

use super::error::MetadataError;
use crate::types::{NodeId, Term};

/// Bytes of a metadata file.
pub const METADATA_BYTES: usize = 32;

/// The two metadata files.
pub(super) const METADATA_NAMES: [&str; 2] = ["metadata1", "metadata2"];

/// Format word.
const FORMAT: u64 = 1;

/// Content of a metadata file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Counts up with each update; 0 if there is no file.
    pub version: u64,
    /// Current term.
    pub term: Term,
    /// Node voted for in that term; 0 is nobody.
    pub voted_for: NodeId,
}

impl Metadata {
    /// Name of the file that a version is written to: odd ones to `metadata1`.
    #[must_use]
    pub const fn file_name(version: u64) -> &'static str {
        METADATA_NAMES[if version % 2 == 1 { 0 } else { 1 }]
    }

    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> [u8; METADATA_BYTES] {
        let mut bytes = [0; METADATA_BYTES];
        let words = [FORMAT, self.version, self.term.0, self.voted_for.0];
        for (target, word) in bytes.chunks_exact_mut(8).zip(words) {
            target.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// A format other than 1; version 0.
    pub fn decode(bytes: &[u8; METADATA_BYTES]) -> Result<Metadata, MetadataError> {
        let mut words = [0; 4];
        for (word, source) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*source);
        }
        let [format, version, term, voted_for] = words;
        if format != FORMAT {
            return Err(MetadataError::Format(format));
        }
        if version == 0 {
            return Err(MetadataError::ZeroVersion);
        }
        Ok(Metadata { version, term: Term(term), voted_for: NodeId(voted_for) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_of_a_vote_has_the_specified_bytes() {
        // disk-format 3, 1.18.1: version 3, term 2, vote 2.
        #[rustfmt::skip]
        let bytes = [
            1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
            2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        ];
        let metadata = Metadata { version: 3, term: Term(2), voted_for: NodeId(2) };

        assert_eq!(metadata.encode(), bytes);
        assert_eq!(Metadata::decode(&bytes), Ok(metadata));
        assert_eq!((Metadata::file_name(3), Metadata::file_name(2)), ("metadata1", "metadata2"));
    }

    #[test]
    fn format_2_and_version_0_are_refused() {
        let mut bytes = Metadata::default().encode();
        assert_eq!(Metadata::decode(&bytes), Err(MetadataError::ZeroVersion));
        bytes[0] = 2;
        assert_eq!(Metadata::decode(&bytes), Err(MetadataError::Format(2)));
    }
}
