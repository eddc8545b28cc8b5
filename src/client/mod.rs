//! Requests to other nodes.
