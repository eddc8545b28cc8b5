//! What the tests share: a client of the wire protocol, node processes, temporary directories.
