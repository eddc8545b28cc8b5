//! Messages between nodes: their bytes, the connections that carry them, and what is awaited from each peer.

mod connection;
pub mod inbound;
pub mod link;
pub mod links;
pub mod message;
pub mod peer;
pub mod reader;
pub mod replicator;
pub mod set;
mod spill;

pub use inbound::{Inbound, Refusal, Sender};
pub use links::{Links, Spawn};
pub use peer::{Answer, FENCE_BASE, Peer};
pub use set::{Peers, PeersParts};
pub use spill::Spill;
