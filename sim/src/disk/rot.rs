//! Bits that fall over while nobody looks. Only where the format can tell: term and vote, and a snapshot that is not compressed, have no
//! checksum, so that of those only the words that say what they are rot here.

use std::path::Path;

use rand::Rng;
use rand::rngs::SmallRng;

use super::SimDisk;

/// Length of the name of a closed segment.
const CLOSED_NAME_BYTES: usize = 33;
/// First bytes of a compressed snapshot.
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// What rots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// A closed segment.
    Segment,
    /// A snapshot, or what is told of it.
    Snapshot,
    /// The first word of a file of term and vote.
    Votes,
}

impl Rot {
    /// All of them.
    pub const ALL: [Rot; 3] = [Rot::Segment, Rot::Snapshot, Rot::Votes];

    /// How many bytes of a file may rot.
    fn reach(self, name: &str, content: &[u8]) -> usize {
        let is_closed = name.len() == CLOSED_NAME_BYTES && name.as_bytes()[16] == b'-';
        let is_told = name.ends_with(".meta") || content.starts_with(&LZ4_MAGIC);
        match self {
            Rot::Segment if is_closed => content.len(),
            Rot::Snapshot if name.starts_with("snapshot-") && is_told => content.len(),
            Rot::Votes if name.starts_with("metadata") => content.len().min(8),
            _ => 0,
        }
    }
}

impl SimDisk {
    /// One bit of the disk of a node that does not run falls over; where.
    pub fn rot(&self, rot: Rot, random: &mut SmallRng) -> Option<String> {
        let mut state = self.lock();
        let reach = |(path, inode): (&std::path::PathBuf, &usize)| {
            let name = path.file_name()?.to_str()?.to_owned();
            let bytes = rot.reach(&name, &state.inodes[*inode].content);
            (bytes > 0).then_some((name, *inode, bytes))
        };
        let found: Vec<(String, usize, usize)> = state.names.iter().filter_map(reach).collect();
        if found.is_empty() {
            return None;
        }
        let (name, inode, bytes) = found[random.random_range(0..found.len())].clone();
        let (at, bit) = (random.random_range(0..bytes), random.random_range(0..8));
        let inode = &mut state.inodes[inode];
        inode.content[at] ^= 1 << bit;
        inode.durable.clone_from(&inode.content);
        Some(format!("bit {bit} of byte {at} of {}", Path::new(&name).display()))
    }
}
