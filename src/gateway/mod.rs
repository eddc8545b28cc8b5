//! One client connection: handshake, requests in, responses out, in order. spec: client-protocol 1-8.
//!
//! A reader task takes frames off the socket while a request is worked on, so that an INTERRUPT and the end of the
//! stream are noticed at once; requests are answered one after the other.

mod answer;
mod connection;
mod membership;
mod reader;

pub use connection::{Connection, Gateway, GatewayParts, PeerConnection, PeerSink};
