//! Codes and texts of FAILURE that clients match on. spec: client-protocol 14.

/// SQLITE_ERROR.
pub const ERROR: u64 = 1;
/// SQLITE_NOMEM.
pub const NO_MEMORY: u64 = 7;
/// SQLITE_NOTFOUND: no database, no statement.
pub const NOT_FOUND: u64 = 12;
/// DQLITE_NOTFOUND: DUMP of a database that is not there.
pub const DATABASE_NOT_FOUND: u64 = 1002;
/// DQLITE_PARSE: malformed input.
pub const PARSE: u64 = 1005;
/// Type of request that does not exist.
pub const UNRECOGNIZED_REQUEST_TYPE: &str = "unrecognized request type";
/// Schema that the request does not have.
pub const UNRECOGNIZED_SCHEMA: &str = "unrecognized schema version";
/// CLUSTER format above 1.
pub const UNRECOGNIZED_CLUSTER_FORMAT: &str = "unrecognized cluster format";
