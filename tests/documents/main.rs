//! The documentation against the library: byte examples against its encoders, decoders and a running node; tables of bounds,
//! failures and log messages against the source; links against the files.
#![allow(clippy::unwrap_used, reason = "tests")]

mod blocks;
mod files;
mod links;
mod lists;
mod node;
mod protocol;
mod source;
#[path = "../sources/mod.rs"]
mod sources;
