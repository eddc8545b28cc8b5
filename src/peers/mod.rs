//! Messages between nodes: their bytes, the connections that carry them, and what is awaited from each peer.

mod connection;
pub mod dialler;
pub mod inbound;
mod known;
pub mod limits;
pub mod link;
pub mod links;
mod memory;
pub mod message;
pub mod peer;
mod places;
pub mod reader;
pub mod replicator;
pub mod set;
mod spill;

pub use dialler::Spawn;
pub use inbound::{Caller, Inbound, Refusal, Sender};
pub use limits::speakers::FENCE_BASE;
pub use links::Links;
pub use peer::{Answer, Peer};
pub use set::{Peers, PeersParts};
pub use spill::Spill;
