//! Deterministic simulation of whole nodes: a simulated disk, network and clock around the code of the library.
