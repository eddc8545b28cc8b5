//! The checksum of segments and snapshot metadata. spec: disk-format 2.

use crc::{Algorithm, Crc, Table};

/// CRC-32 that starts at 0, is not reflected and has no final xor.
const ALGORITHM: Algorithm<u32> = Algorithm {
    width: 32,
    poly: 0x04C1_1DB7,
    init: 0,
    refin: false,
    refout: false,
    xorout: 0,
    check: 0x89A1_897F,
    residue: 0,
};

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&ALGORITHM);

/// Continues the checksum `previous` (0 at the start) over `bytes`.
#[must_use]
pub fn crc32(previous: u32, bytes: &[u8]) -> u32 {
    let mut digest = CRC.digest_with_initial(previous);
    digest.update(bytes);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    // conformance: disk-format 1
    #[test]
    fn checksum_has_the_specified_check_value() {
        assert_eq!(crc32(0, b"123456789"), 0x89A1_897F);
        assert_eq!(crc32(0, &[0; 1000]), 0);
        assert_eq!(crc32(0, &[]), 0);
    }

    #[test]
    fn checksum_continues_over_several_buffers() {
        for cut in 0..=9 {
            let (first, second) = b"123456789".split_at(cut);
            assert_eq!(crc32(crc32(0, first), second), 0x89A1_897F);
        }
    }
}
