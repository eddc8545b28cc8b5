//! For tests: what an engine is made of, in memory, and an engine that is driven by hand.

pub(crate) mod bench;
mod parts;

pub(crate) use parts::{InlinePool, NoDial, TestDisk, TestHooks, TestMachine, TestSealed, command};
