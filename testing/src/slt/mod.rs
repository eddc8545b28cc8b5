//! Scripts in the format of SQLite's sqllogictest, run record by record on a node, through the client protocol, and in plain SQLite
//! of the same version; whatever differs is reported. Where an answer differs because the protocol says so, `documented` says
//! which sentence it is and counts how often it was needed: nothing is left out in silence.
//!
//! The record decides what is asked, a seed decides how: by which requests, and which of its literals are bound as parameters.

pub mod answer;
pub mod content;
pub mod documented;
mod draw;
pub mod generate;
pub mod literals;
pub mod node;
pub mod plain;
pub mod run;
pub mod script;
