//! What SQL may not do: reach outside of its database, or inside the process. One table for PRAGMAs and one for functions; a
//! test compares both with what the SQLite in use has. What they do not name is SQLite's or the host's own business: SQLite
//! ignores unknown PRAGMAs, and a host that registers functions (`sqlite3_auto_extension`) wants its clients to call them.
//! spec: state-machine 4.3 column 1.18.6, client-protocol 11.3.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use libsqlite3_sys as sqlite;

use super::compiled::Noted;

/// What becomes of a PRAGMA or a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// SQLite carries it out.
    Allowed,
    /// Without a value SQLite carries it out, with one it is refused.
    ReadOnly,
    /// As `ReadOnly`, but with a value it does nothing and answers nothing.
    Ignored,
    /// It is refused.
    Refused,
}
use Decision::{Allowed, Ignored, ReadOnly, Refused};

/// A group of names, what becomes of them, and why.
type Group = (Decision, &'static str, &'static [&'static str]);

const PRAGMAS: &[Group] = &[
    (
        Allowed,
        "tells something about the database, the connection or the library",
        &[
            "collation_list",
            "compile_options",
            "data_version",
            "database_list",
            "foreign_key_check",
            "foreign_key_list",
            "freelist_count",
            "function_list",
            "index_info",
            "index_list",
            "index_xinfo",
            "integrity_check",
            "module_list",
            "page_count",
            "pragma_list",
            "quick_check",
            "stats",
            "table_info",
            "table_list",
            "table_xinfo",
        ],
    ),
    (
        Allowed,
        "changes how this connection works, and nothing else",
        &[
            "analysis_limit",
            "automatic_index",
            "case_sensitive_like",
            "cell_size_check",
            "count_changes",
            "defer_foreign_keys",
            "empty_result_callbacks",
            "foreign_keys",
            "full_column_names",
            "ignore_check_constraints",
            "legacy_alter_table",
            "max_page_count",
            "query_only",
            "recursive_triggers",
            "reverse_unordered_selects",
            "secure_delete",
            "short_column_names",
            "temp_store",
            "trusted_schema",
        ],
    ),
    (
        Allowed,
        "changes this database, by way of the log like every write; a wrong value spoils this database only",
        &[
            "application_id",
            "auto_vacuum",
            "default_cache_size",
            "encoding",
            "incremental_vacuum",
            "legacy_file_format",
            "optimize",
            "schema_version",
            "user_version",
            "writable_schema",
        ],
    ),
    (
        Allowed,
        "memory of this connection: at most what it reads or writes; clients set it (LXD: cache_size, cache_spill)",
        &["cache_size", "cache_spill", "shrink_memory"],
    ),
    (
        Allowed,
        "about files or locks of a kind that there is none of",
        &["checkpoint_fullfsync", "fullfsync", "journal_size_limit", "lock_status"],
    ),
    (Ignored, "SQLite would make threads: there are none but the node's, and the limit is 0", &["threads"]),
    (
        Ignored,
        "maps files, for temporary ones too: a disk that fails would end the process by SIGBUS. As upstream's it answers nothing",
        &["mmap_size"],
    ),
    // compat: 1.18.3 and later.
    (
        ReadOnly,
        "the library has set it and depends on it",
        &["journal_mode", "page_size", "synchronous", "wal_autocheckpoint"],
    ),
    // compat: 1.18.3 and later.
    (
        Refused,
        "the library does it itself",
        &["busy_timeout", "locking_mode", "read_uncommitted", "wal_checkpoint"],
    ),
    (
        ReadOnly,
        "a setting of the whole process",
        &["data_store_directory", "hard_heap_limit", "soft_heap_limit", "temp_store_directory"],
    ),
    (ReadOnly, "names a file on the host", &["lock_proxy_file"]),
    (
        Refused,
        "prints to the host's standard output, in builds for SQLite's own tests",
        &[
            "parser_trace",
            "sql_trace",
            "vdbe_addoptrace",
            "vdbe_debug",
            "vdbe_eqp",
            "vdbe_listing",
            "vdbe_trace",
        ],
    ),
];

const FUNCTIONS: &[Group] = &[
    (
        Refused,
        "reads and sets function pointers of the process, with parameters in every build",
        &["fts3_tokenizer"],
    ),
    (Refused, "writes into the host's log in the name of SQLite", &["sqlite_log"]),
    (
        Allowed,
        "is switched off for every connection: SQLite itself answers `not authorized`",
        &["load_extension"],
    ),
    (Allowed, "does nothing without a pointer, which no client can bind", &["fts5"]),
    (
        Allowed,
        "tells about the library",
        &[
            "sqlite_compileoption_get",
            "sqlite_compileoption_used",
            "sqlite_source_id",
            "sqlite_version",
            "fts5_source_id",
        ],
    ),
    (
        Allowed,
        "computes with its arguments and the connection: what it makes is at most SQLITE_LIMIT_LENGTH long",
        &[
            "->",
            "->>",
            "abs",
            "acos",
            "acosh",
            "asin",
            "asinh",
            "atan",
            "atan2",
            "atanh",
            "avg",
            "ceil",
            "ceiling",
            "changes",
            "char",
            "coalesce",
            "concat",
            "concat_ws",
            "cos",
            "cosh",
            "count",
            "cume_dist",
            "current_date",
            "current_time",
            "current_timestamp",
            "date",
            "datetime",
            "degrees",
            "dense_rank",
            "exp",
            "first_value",
            "floor",
            "format",
            "glob",
            "group_concat",
            "hex",
            "if",
            "ifnull",
            "iif",
            "instr",
            "julianday",
            "lag",
            "last_insert_rowid",
            "last_value",
            "lead",
            "length",
            "like",
            "likelihood",
            "likely",
            "ln",
            "log",
            "log10",
            "log2",
            "lower",
            "ltrim",
            "match",
            "max",
            "median",
            "min",
            "mod",
            "nth_value",
            "ntile",
            "nullif",
            "octet_length",
            "percent_rank",
            "percentile",
            "percentile_cont",
            "percentile_disc",
            "pi",
            "pow",
            "power",
            "printf",
            "quote",
            "radians",
            "random",
            "randomblob",
            "rank",
            "regexp",
            "replace",
            "round",
            "row_number",
            "rtrim",
            "sign",
            "sin",
            "sinh",
            "soundex",
            "sqlite_offset",
            "sqrt",
            "strftime",
            "string_agg",
            "substr",
            "substring",
            "subtype",
            "sum",
            "tan",
            "tanh",
            "time",
            "timediff",
            "total",
            "total_changes",
            "trim",
            "trunc",
            "typeof",
            "unhex",
            "unicode",
            "unistr",
            "unistr_quote",
            "unixepoch",
            "unlikely",
            "upper",
            "zeroblob",
        ],
    ),
    (
        Allowed,
        "JSON: nesting is bounded by SQLite",
        &[
            "json",
            "json_array",
            "json_array_insert",
            "json_array_length",
            "json_error_position",
            "json_extract",
            "json_group_array",
            "json_group_object",
            "json_insert",
            "json_object",
            "json_patch",
            "json_pretty",
            "json_quote",
            "json_remove",
            "json_replace",
            "json_set",
            "json_type",
            "json_valid",
            "jsonb",
            "jsonb_array",
            "jsonb_array_insert",
            "jsonb_extract",
            "jsonb_group_array",
            "jsonb_group_object",
            "jsonb_insert",
            "jsonb_object",
            "jsonb_patch",
            "jsonb_remove",
            "jsonb_replace",
            "jsonb_set",
        ],
    ),
    (
        Allowed,
        "of a virtual table of this database",
        &[
            "bm25",
            "fts5_get_locale",
            "fts5_insttoken",
            "fts5_locale",
            "geopoly_area",
            "geopoly_bbox",
            "geopoly_blob",
            "geopoly_ccw",
            "geopoly_contains_point",
            "geopoly_debug",
            "geopoly_group_bbox",
            "geopoly_json",
            "geopoly_overlap",
            "geopoly_regular",
            "geopoly_svg",
            "geopoly_within",
            "geopoly_xform",
            "highlight",
            "matchinfo",
            "offsets",
            "optimize",
            "rtreecheck",
            "rtreedepth",
            "rtreenode",
            "snippet",
        ],
    ),
    (Allowed, "ICU's collations, for this connection", &["icu_load_collation"]),
];

/// What the table says of a name; what it does not name is allowed. Names of what is allowed are not looked at.
fn decided(table: &[Group], name: &[u8]) -> Decision {
    table
        .iter()
        .filter(|(decision, ..)| *decision != Allowed)
        .find(|(_, _, names)| names.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name)))
        .map_or(Allowed, |(decision, ..)| *decision)
}

fn decide(action: c_int, first: Option<&[u8]>, second: Option<&[u8]>) -> Decision {
    match (action, first, second) {
        // compat: 1.18.2 and later take an empty name only, which VACUUM uses.
        (sqlite::SQLITE_ATTACH, Some(b""), _) => Allowed,
        (sqlite::SQLITE_ATTACH, ..) => Refused,
        (sqlite::SQLITE_PRAGMA, Some(name), value) => match decided(PRAGMAS, name) {
            ReadOnly if value.is_some() => Refused,
            ReadOnly | Ignored if value.is_none() => Allowed,
            decision => decision,
        },
        (sqlite::SQLITE_FUNCTION, _, Some(name)) => decided(FUNCTIONS, name),
        _ => Allowed,
    }
}

unsafe extern "C" fn authorize(
    noted: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    database: *const c_char,
    trigger: *const c_char,
) -> c_int {
    // SAFETY: null or a C string, by SQLite's contract.
    let first = (!first.is_null()).then(|| unsafe { CStr::from_ptr(first) }.to_bytes());
    // SAFETY: as above.
    let second = (!second.is_null()).then(|| unsafe { CStr::from_ptr(second) }.to_bytes());
    // SAFETY: as above.
    let database = (!database.is_null()).then(|| unsafe { CStr::from_ptr(database) }.to_bytes());
    // SAFETY: what `restrict` was given, which outlives the connection.
    let noted = unsafe { &*noted.cast::<Noted>() };
    if noted.is_unforeseen(action, first, !trigger.is_null()) {
        return sqlite::SQLITE_DENY;
    }
    noted.note(action, first, database, !trigger.is_null());
    match decide(action, first, second) {
        Allowed | ReadOnly => sqlite::SQLITE_OK,
        Ignored => sqlite::SQLITE_IGNORE,
        Refused => sqlite::SQLITE_DENY,
    }
}

/// Restricts what SQL may do on this connection, from the next statement on. The answer is SQLite's code.
///
/// # Safety
/// `connection` is an open connection that nobody else uses meanwhile; `noted` outlives it.
pub(super) unsafe fn restrict(connection: *mut sqlite::sqlite3, noted: *const Noted) -> c_int {
    let no_answer = ptr::null_mut::<c_int>();
    // SAFETY: an open connection, by this function's contract; this option takes an int and a place for an int or null.
    let code = unsafe {
        sqlite::sqlite3_db_config(
            connection,
            sqlite::SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION,
            0 as c_int,
            no_answer,
        )
    };
    if code != sqlite::SQLITE_OK {
        return code;
    }
    // SAFETY: as above.
    unsafe { sqlite::sqlite3_limit(connection, sqlite::SQLITE_LIMIT_WORKER_THREADS, 0) };
    // SAFETY: as above; the function has the wanted type, and its data is what it expects.
    unsafe { sqlite::sqlite3_set_authorizer(connection, Some(authorize), noted.cast_mut().cast()) }
}

#[cfg(test)]
#[path = "authorizer_tests.rs"]
mod tests;
