//! One client connection: handshake, requests in, responses out, in order. spec: client-protocol 1-8.
//!
//! Requests are answered one after the other; frames are taken off the socket meanwhile, so that an INTERRUPT is noticed at
//! once.

mod answer;
mod attendant;
mod connection;
mod inbox;
mod membership;
mod reader;
mod stalled;
mod unproved;

pub use connection::{Connection, Gateway, GatewayParts, PeerConnection, PeerSink};
