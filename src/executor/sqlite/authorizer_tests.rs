use super::{FUNCTIONS, Group, PRAGMAS};
use crate::executor::sqlite::testing::opened;
use crate::executor::sqlite::{Connection, Inside, SqliteError, Statement, Step, Value};

fn prepared(connection: &Connection, sql: &str) -> Result<Statement, SqliteError> {
    connection.prepare(&mut Inside::alone(), sql.as_bytes()).map(|(statement, _)| statement.unwrap())
}

/// The first column of all rows.
fn rows(connection: &Connection, sql: &str) -> Result<Vec<String>, SqliteError> {
    let mut statement = prepared(connection, sql)?;
    let mut rows = Vec::new();
    while statement.step(&mut Inside::alone())? == Step::Row {
        rows.push(match statement.value(&Inside::alone(), 0) {
            Value::Integer(number) => number.to_string(),
            Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
            value => format!("{value:?}"),
        });
    }
    statement.finalize(&mut Inside::alone());
    Ok(rows)
}

fn refused(connection: &Connection, sql: &str) -> i32 {
    rows(connection, sql).expect_err(sql).code
}

fn names(table: &'static [Group]) -> impl Iterator<Item = &'static str> {
    table.iter().flat_map(|(_, _, names)| names.iter().copied())
}

#[test]
fn every_pragma_and_every_function_of_this_sqlite_is_decided_about() {
    let connection = opened();
    let undecided = |sql: &str, table: &'static [Group]| {
        let mut known = rows(&connection, sql).unwrap();
        assert!(known.len() > 50, "{sql}: {known:?}");
        known.retain(|name| !names(table).any(|decided| decided.eq_ignore_ascii_case(name)));
        known
    };

    assert_eq!(undecided("SELECT name FROM pragma_pragma_list", PRAGMAS), Vec::<String>::new());
    assert_eq!(undecided("SELECT DISTINCT name FROM pragma_function_list", FUNCTIONS), Vec::<String>::new());
}

#[test]
fn no_name_is_decided_about_twice_and_each_decision_has_a_reason() {
    for table in [PRAGMAS, FUNCTIONS] {
        let mut all: Vec<_> = names(table).collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(table.iter().all(|(_, reason, names)| !reason.is_empty() && !names.is_empty()));
    }
}

#[test]
fn function_pointers_of_the_process_are_neither_read_nor_set() {
    let connection = opened();
    for sql in [
        "SELECT fts3_tokenizer('simple')",
        "SELECT fts3_tokenizer(?)",
        "SELECT FTS3_Tokenizer(?, ?)",
        "CREATE TABLE t(a CHECK(fts3_tokenizer(a)))",
        "SELECT 1 WHERE EXISTS (SELECT fts3_tokenizer(?))",
        "SELECT sqlite_log(1, 'a line')",
    ] {
        assert_eq!(refused(&connection, sql), 1, "{sql}");
    }
    // A view is looked at when it is used, whoever has made it.
    connection
        .execute(&mut Inside::alone(), b"CREATE VIEW v AS SELECT fts3_tokenizer('simple') AS a")
        .unwrap();
    assert_eq!(refused(&connection, "SELECT a FROM v"), 1);
    assert_eq!(refused(&connection, "SELECT load_extension('x')"), 1);
}

#[test]
fn settings_of_the_process_are_answered_and_not_changed() {
    let connection = opened();
    for pragma in ["soft_heap_limit", "hard_heap_limit"] {
        let before = rows(&connection, &format!("PRAGMA {pragma}")).unwrap();
        assert_eq!(refused(&connection, &format!("PRAGMA {pragma} = 100000000")), 23);
        assert_eq!(refused(&connection, &format!("PRAGMA main.{pragma}(100000000)")), 23);
        assert_eq!(rows(&connection, &format!("SELECT * FROM pragma_{pragma}")).unwrap(), before);
    }
    for pragma in
        ["temp_store_directory = '/tmp'", "TEMP_STORE_DIRECTORY('/tmp')", "data_store_directory = '/tmp'"]
    {
        assert_eq!(refused(&connection, &format!("PRAGMA {pragma}")), 23);
    }
}

#[test]
fn no_file_is_mapped_and_no_thread_is_made_for_a_client() {
    let connection = opened();

    assert_eq!(rows(&connection, "PRAGMA mmap_size = 100000000").unwrap(), Vec::<String>::new());
    let fill = b"PRAGMA temp_store = FILE; PRAGMA temp.cache_size = 10; CREATE TEMP TABLE t(b);
        WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO t SELECT zeroblob(1000) FROM n";
    connection.execute(&mut Inside::alone(), fill).unwrap();
    assert_eq!(rows(&connection, "PRAGMA temp.mmap_size = 100000000").unwrap(), Vec::<String>::new());
    assert_eq!(rows(&connection, "SELECT sum(length(b)) FROM temp.t").unwrap(), ["2000000"]);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains("etilqs"), "a temporary file is mapped");
    assert_eq!(rows(&connection, "PRAGMA threads = 8").unwrap(), Vec::<String>::new());
    assert_eq!(rows(&connection, "PRAGMA threads").unwrap(), ["0"]);
}

// spec: client-protocol 11.3
#[test]
fn what_upstream_answers_is_answered_and_what_it_refuses_is_refused() {
    let connection = opened();
    for pragma in
        ["journal_mode=wal", "page_size=4096", "synchronous=1", "wal_autocheckpoint=5", "wal_checkpoint"]
    {
        assert_eq!(refused(&connection, &format!("PRAGMA {pragma}")), 23, "{pragma}");
    }
    for pragma in ["busy_timeout", "locking_mode", "read_uncommitted=1"] {
        assert_eq!(refused(&connection, &format!("PRAGMA {pragma}")), 23, "{pragma}");
    }
    assert_eq!(refused(&connection, "ATTACH 'other' AS other"), 23);
    assert_eq!(rows(&connection, "ATTACH '' AS scratch").unwrap(), Vec::<String>::new());
    for (pragma, answer) in [
        ("journal_mode", &["wal"][..]),
        ("page_size", &["4096"]),
        ("synchronous", &["0"]),
        ("foreign_keys", &["1"]),
        ("secure_delete", &["2"]),
        ("cache_size=-50000", &[]),
        ("cache_spill=0", &[]),
        ("user_version", &["0"]),
        ("no_such_pragma=1", &[]),
    ] {
        assert_eq!(rows(&connection, &format!("PRAGMA {pragma}")).unwrap(), answer, "{pragma}");
    }
}
