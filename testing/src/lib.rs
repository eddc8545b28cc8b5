//! What tests, the demo and the benchmarks share: a blocking client of the client protocol, and nodes in processes of
//! their own that run `tests-c/dqlite-node.c` over a libdqlite.

pub mod alone;
pub mod bed;
pub mod bench;
pub mod client;
pub mod cluster;
pub mod disks;
pub mod image;
pub mod limit;
pub mod load;
pub mod loopback;
pub mod outage;
pub mod process;
pub mod record;
pub mod roll;
pub mod sample;
pub mod slt;
pub mod stored;
pub mod targets;
pub mod upstream;
pub mod writers;
