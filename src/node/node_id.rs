//! Ids of nodes. spec: c-api 3.7.

use sha1::{Digest, Sha1};

use super::opening::BOOTSTRAP_ID;
use crate::types::NodeId;
use crate::types::clock::WallClock;

/// The last eight bytes of the SHA-1 of the address and a time in nanoseconds since 1970, little endian both.
#[must_use]
pub fn digest(address: &[u8], nanoseconds: u64) -> NodeId {
    let mut hash = Sha1::new();
    hash.update(address);
    hash.update(nanoseconds.to_le_bytes());
    let hash: [u8; 20] = hash.finalize().into();
    let mut last = [0; 8];
    last.copy_from_slice(&hash[12..]);
    NodeId(u64::from_le_bytes(last))
}

/// A new id for a node at `address`. Never 0, nor an id that bootstraps.
#[must_use]
pub fn generate(address: &[u8], clock: &dyn WallClock) -> NodeId {
    let now = clock.since_epoch().as_nanos() as u64;
    let usable = |id: &NodeId| id.0 > 1 && *id != BOOTSTRAP_ID;
    // Three of 2^64 numbers are not usable, so the first one nearly always is.
    (0..).map(|later| digest(address, now.wrapping_add(later))).find(usable).unwrap_or(NodeId(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock::SystemWallClock;

    // conformance: c-api 65
    #[test]
    fn ids_are_the_digests_of_the_vectors() {
        for (address, nanoseconds, id) in [
            ("1", 0, 3_297_041_220_608_546_238),
            ("127.0.0.1:65536", 0, 17_791_327_498_928_598_451),
            ("127.0.0.1:9000", 1_700_000_000_123_456_789, 17_947_930_857_413_039_697),
            ("", 0, 16_845_441_664_289_232_300),
        ] {
            assert_eq!(digest(address.as_bytes(), nanoseconds), NodeId(id), "{address}");
        }
        assert_eq!(digest(b"1", 0), BOOTSTRAP_ID);
    }

    // conformance: c-api 65
    #[test]
    fn two_ids_of_one_address_differ() {
        assert_ne!(generate(b"1", &SystemWallClock), generate(b"1", &SystemWallClock));
    }
}
