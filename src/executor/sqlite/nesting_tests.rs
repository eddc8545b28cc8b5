use std::fmt::Write;

use super::{Makes, Measure, check_statement, creation_weight, measured, object_weight};
use crate::executor::sqlite::testing::{opened, vfs_of, writer};
use crate::executor::sqlite::{Connection, Inside, SqliteError, Step, compile_again, step};
use crate::pages::PageStore;
use crate::types::config::{
    NESTING_LEVEL_BYTES, NESTING_PLAIN_LEVEL_BYTES, NESTING_TEXT_BYTE_BYTES, NESTING_TEXT_MAX_BYTES,
    NESTING_VIRTUAL_LEVEL_BYTES, SQL_STACK_BYTES,
};

/// Runs `work` on half of the stack that threads have which may be inside SQLite: what is not enough ends the process.
fn on_half_of_the_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(SQL_STACK_BYTES / 2).spawn(work).unwrap().join().unwrap()
}

/// Runs the statements that `text` makes of 0, 1, 2, ... until one is refused; how many were taken.
fn until_refused(
    connection: &Connection,
    most: usize,
    text: impl Fn(usize) -> String,
) -> (usize, SqliteError) {
    connection.execute(&mut Inside::alone(), b"BEGIN").unwrap();
    for number in 0..most {
        if let Err(error) = connection.execute(&mut Inside::alone(), text(number).as_bytes()) {
            assert!(
                !connection.autocommit(&Inside::alone()),
                "the transaction is lost with the statement: {error}"
            );
            connection.execute(&mut Inside::alone(), b"COMMIT").unwrap();
            return (number, error);
        }
    }
    panic!("{most} were taken");
}

fn is_nesting(error: &SqliteError) -> bool {
    error.code == 1 && String::from_utf8_lossy(&error.message).contains("too deep: ")
}

/// Any answer will do.
fn answered(connection: &Connection, sql: &str) {
    if let Ok((Some(mut statement), _)) = connection.prepare(&mut Inside::alone(), sql.as_bytes()) {
        while matches!(statement.step(&mut Inside::alone()), Ok(Step::Row)) {}
    }
}

#[test]
fn literals_and_comments_do_not_nest_and_the_first_statement_is_measured_alone() {
    let seen = |sql: &str| {
        let measure = measured(sql.as_bytes());
        [measure.selects, measure.deepest, measure.references, measure.bytes]
    };
    for (sql, expected) in [
        ("SELECT 1", [1, 0, 0, 8]),
        ("select(1)", [1, 1, 0, 9]),
        ("SELECT 'SELECT ((', \"select\", [select], `select`", [1, 0, 0, 17]),
        ("SELECT 1 -- SELECT\n, /* SELECT ( */ 2", [1, 0, 0, 15]),
        ("SELECT 1; SELECT (2)", [1, 0, 0, 8]),
        ("SELECT selected, 'it''s'", [1, 0, 0, 19]),
        ("((()))((", [0, 3, 0, 8]),
        ("SELECT 'open", [1, 0, 0, 8]),
        ("SELECT /*", [1, 0, 0, 8]),
        ("))", [0, 0, 0, 2]),
        ("CREATE TABLE t(a REFERENCES t, b References t)", [0, 1, 2, 46]),
    ] {
        assert_eq!(seen(sql), expected, "{sql}");
    }
    // Long, and flat.
    let long = format!("INSERT INTO t VALUES('{}')", "SELECT(".repeat(1_000_000));
    assert_eq!(check_statement(long.as_bytes()), Ok(()));
    assert_eq!(check_statement(format!("SELECT 1 IN ({}1)", "1,".repeat(1_000_000)).as_bytes()), Ok(()));
    assert!(check_statement("SELECT(".repeat(100_000).as_bytes()).is_err_and(|error| is_nesting(&error)));
}

#[test]
fn patterns_and_expressions_at_the_limits_of_sqlite_fit() {
    on_half_of_the_stack(|| {
        let connection = opened();
        for operator in ["LIKE", "GLOB"] {
            let sign = if operator == "LIKE" { '%' } else { '*' };
            let pattern = format!("replace(hex(zeroblob(12499)), '0', '{sign}a')");
            answered(
                &connection,
                &format!("SELECT replace(hex(zeroblob(12600)), '0', 'a') {operator} {pattern}"),
            );
        }
        for operator in ["+1", "||1", " BETWEEN 1 AND 2", " IN (1)", " LIKE 'x'", "->1", " ISNULL"] {
            answered(
                &connection,
                &format!("SELECT a{0} FROM (SELECT 1 AS a) WHERE a{0}", operator.repeat(990)),
            );
        }
        let json = format!("{}{}", "[".repeat(1900), "]".repeat(1900));
        answered(&connection, &format!("SELECT json('{json}'), json_patch('{json}', '{json}')"));
        answered(&connection, &format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(499)));
    });
}

#[test]
fn common_table_expressions_as_deep_as_a_statement_may_nest_fit() {
    on_half_of_the_stack(|| {
        let connection = opened();
        let deep = "+1".repeat(900);
        let bodies: [&dyn Fn(usize) -> String; 4] = [
            &|below| format!("SELECT a FROM c{below}"),
            &|below| format!("SELECT 1 WHERE EXISTS (SELECT 1 FROM c{below})"),
            &|below| format!("SELECT 1 WHERE 1 IN c{below}"),
            &|below| format!("SELECT (SELECT a FROM c{below}){deep}"),
        ];
        for body in bodies {
            let text = |depth: usize| {
                let mut sql = "WITH c0(a) AS (SELECT 1)".to_owned();
                for level in 1..depth {
                    write!(sql, ", c{level}(a) AS ({})", body(level - 1)).unwrap();
                }
                format!("{sql} SELECT a FROM c{}", depth - 1)
            };
            // As many as are taken.
            let mut depth = 2;
            while check_statement(text(depth * 5 / 4 + 1).as_bytes()).is_ok() {
                depth = depth * 5 / 4 + 1;
            }
            answered(&connection, &text(depth));
            assert!(depth > 50 && depth < 2000, "{depth}");
            let refused = connection.prepare(&mut Inside::alone(), text(depth * 2).as_bytes()).unwrap_err();
            assert!(is_nesting(&refused), "{refused}");
        }
    });
}

#[test]
fn views_as_deep_as_a_schema_may_nest_fit() {
    on_half_of_the_stack(|| {
        let deep = "||1".repeat(900);
        let bodies: [&dyn Fn(usize) -> String; 3] = [
            &|below| format!("SELECT * FROM v{below}"),
            &|below| format!("SELECT 1 AS a WHERE EXISTS (SELECT 1 FROM v{below})"),
            &|below| format!("SELECT (SELECT a FROM v{below}){deep} AS a"),
        ];
        for body in bodies {
            let connection = opened();
            connection.execute(&mut Inside::alone(), b"CREATE TABLE v0(a)").unwrap();
            let view = |number: usize| format!("CREATE VIEW v{} AS {}", number + 1, body(number));
            let (made, refused) = until_refused(&connection, 6000, view);

            assert!(is_nesting(&refused) && made > 50, "{made}: {refused}");
            // What is expanded in little time: plain views take time with the square of their number.
            let depth = if made > 2000 { made / 5 } else { made };
            answered(&connection, &format!("SELECT count(*) FROM v{depth}"));
            assert!(
                connection
                    .execute(&mut Inside::alone(), view(made).as_bytes())
                    .is_err_and(|error| is_nesting(&error))
            );
            // What makes room makes room.
            connection.execute(&mut Inside::alone(), b"DROP VIEW v1").unwrap();
            connection.execute(&mut Inside::alone(), view(made).as_bytes()).unwrap();
        }
    });
}

#[test]
fn chains_of_triggers_and_of_foreign_keys_fit() {
    on_half_of_the_stack(|| {
        let connection = opened();
        let trigger = |number: usize| {
            format!(
                "CREATE TABLE t{number}(a); CREATE TRIGGER r{number} AFTER INSERT ON t{number} BEGIN INSERT INTO t{} VALUES(1); END",
                number + 1
            )
        };
        let (made, refused) = until_refused(&connection, 4000, trigger);
        assert!(is_nesting(&refused) && made > 1000, "{made}: {refused}");
        answered(&connection, "INSERT INTO t0 VALUES(1)");
        answered(&connection, &format!("CREATE TABLE t{}(a); INSERT INTO t0 VALUES(1)", made + 1));

        let connection = opened();
        connection.execute(&mut Inside::alone(), b"CREATE TABLE t0(a PRIMARY KEY)").unwrap();
        let table = |number: usize| {
            format!(
                "CREATE TABLE t{}(a PRIMARY KEY REFERENCES t{number} ON DELETE CASCADE); INSERT INTO t{number} VALUES(1)",
                number + 1
            )
        };
        let (made, refused) = until_refused(&connection, 4000, table);
        assert!(is_nesting(&refused) && made > 2500, "{made}: {refused}");
        answered(&connection, "DELETE FROM t0");
    });
}

#[test]
fn chains_of_full_text_tables_with_rows_of_each_other_fit() {
    on_half_of_the_stack(|| {
        let connection = opened();
        connection
            .execute(
                &mut Inside::alone(),
                b"CREATE TABLE f0(a); INSERT INTO f0 VALUES('x'); PRAGMA writable_schema = ON",
            )
            .unwrap();
        let table = |number: usize| {
            format!(
                "INSERT INTO sqlite_schema VALUES('table', 'f{0}', 'f{0}', 0,
                 'CREATE VIRTUAL TABLE f{0} USING fts4(content=''f{number}'')')",
                number + 1
            )
        };
        let (made, refused) = until_refused(&connection, 4000, table);
        assert!(is_nesting(&refused) && made > 1000, "{made}: {refused}");
        connection.execute(&mut Inside::alone(), b"PRAGMA writable_schema = RESET").unwrap();

        // The first use makes them known to the connection, each within the one after it.
        let last = format!("SELECT a FROM f{made}");
        let (statement, _) = connection.prepare(&mut Inside::alone(), last.as_bytes()).unwrap();
        assert_eq!(statement.unwrap().step(&mut Inside::alone()).unwrap(), Step::Row);
    });
}

#[test]
fn a_schema_that_is_written_by_hand_is_looked_at_too_and_one_statement_is_taken_back_alone() {
    let connection = opened();
    connection
        .execute(
            &mut Inside::alone(),
            b"CREATE TABLE v0(a); PRAGMA writable_schema = ON; BEGIN; INSERT INTO v0 VALUES(1)",
        )
        .unwrap();
    let views = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
        INSERT INTO sqlite_schema SELECT 'view', 'v' || i, 'v' || i, 0, 'CREATE VIEW v' || i || ' AS SELECT * FROM v' || (i - 1) FROM n";

    let refused = connection.execute(&mut Inside::alone(), views.as_bytes()).unwrap_err();

    assert!(is_nesting(&refused), "{refused}");
    connection.execute(&mut Inside::alone(), b"COMMIT").unwrap();
    assert!(
        connection.execute(&mut Inside::alone(), views.as_bytes()).is_err_and(|error| is_nesting(&error))
    );
    assert!(connection.autocommit(&Inside::alone()));
    for sql in ["SELECT 1 FROM sqlite_schema WHERE type = 'view'", "SELECT 1 FROM v0 WHERE a IS NULL"] {
        assert_eq!(
            connection
                .prepare(&mut Inside::alone(), sql.as_bytes())
                .unwrap()
                .0
                .unwrap()
                .step(&mut Inside::alone())
                .unwrap(),
            Step::Done,
            "{sql}"
        );
    }
    assert_eq!(
        connection
            .prepare(&mut Inside::alone(), b"SELECT a FROM v0")
            .unwrap()
            .0
            .unwrap()
            .step(&mut Inside::alone())
            .unwrap(),
        Step::Row
    );
    // RETURNING would leave before the schema is looked at.
    let returning =
        b"INSERT INTO sqlite_schema VALUES('view', 'v', 'v', 0, 'CREATE VIEW v AS SELECT 1') RETURNING 1";
    assert!(connection.execute(&mut Inside::alone(), returning).is_err());
    assert!(connection.autocommit(&Inside::alone()));
    // What a dump does for a virtual table.
    connection
        .execute(
            &mut Inside::alone(),
            b"INSERT INTO sqlite_schema VALUES('table', 'f', 'f', 0, 'CREATE VIRTUAL TABLE f USING fts5(a)')",
        )
        .unwrap();
}

#[test]
fn what_touches_the_schema_otherwise_does_what_it_always_did() {
    let connection = opened();
    let explained = connection
        .prepare(&mut Inside::alone(), b"EXPLAIN CREATE VIEW v AS SELECT 1")
        .unwrap()
        .0
        .unwrap()
        .step(&mut Inside::alone());
    assert_eq!(explained.unwrap(), Step::Row);
    connection.finalize_dropped(&mut Inside::alone());
    connection
        .execute(&mut Inside::alone(),
            b"CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b); CREATE TEMP TABLE u AS SELECT 1 AS a;
            CREATE VIRTUAL TABLE f USING fts5(a); CREATE INDEX i ON t(b); INSERT INTO t(b) VALUES(1), (2);
            ALTER TABLE t RENAME COLUMN b TO c; ALTER TABLE t ADD COLUMN d DEFAULT 7; ANALYZE; REINDEX; VACUUM;
            BEGIN; CREATE TABLE w(a); SAVEPOINT s; DROP TABLE w; ROLLBACK TO s; INSERT INTO w VALUES(1); COMMIT;
            ATTACH '' AS other; CREATE TABLE other.o(a); CREATE TEMP VIEW x AS SELECT a FROM o; PRAGMA optimize",
        )
        .unwrap();
    let failed = connection.execute(&mut Inside::alone(), b"CREATE TABLE t(a)").unwrap_err();
    assert_eq!((failed.code, connection.autocommit(&Inside::alone())), (1, true));
    assert_eq!(connection.changes(&Inside::alone()), 1);
    assert_eq!(
        connection
            .prepare(&mut Inside::alone(), b"SELECT d FROM t, w, x LEFT JOIN o")
            .unwrap()
            .0
            .unwrap()
            .step(&mut Inside::alone())
            .unwrap(),
        Step::Done
    );
    assert_eq!(
        connection
            .prepare(&mut Inside::alone(), b"SELECT d FROM t, w, u")
            .unwrap()
            .0
            .unwrap()
            .step(&mut Inside::alone())
            .unwrap(),
        Step::Row
    );
}

#[test]
fn a_thousand_views_and_a_flat_dump_are_taken() {
    let connection = opened();
    let mut dump = "BEGIN; CREATE TABLE t(a, b, c);".to_owned();
    for number in 0..1000 {
        write!(dump, "CREATE VIEW v{number} AS SELECT a, b + {number} AS b FROM t WHERE c = {number};")
            .unwrap();
    }
    dump.push_str("COMMIT;");

    connection.execute(&mut Inside::alone(), dump.as_bytes()).unwrap();

    // How rows were inserted before VALUES took several.
    let row = format!("SELECT {}'text', ifnull(NULL, 7)", "123456, ".repeat(30));
    let rows =
        format!("INSERT INTO t SELECT 1, 2, 3 FROM ({row}{})", format!(" UNION ALL {row}").repeat(499));
    connection.execute(&mut Inside::alone(), rows.as_bytes()).unwrap();
    assert_eq!(
        connection
            .prepare(&mut Inside::alone(), b"SELECT 1 FROM v999, v1")
            .unwrap()
            .0
            .unwrap()
            .step(&mut Inside::alone())
            .unwrap(),
        Step::Done
    );
}

/// One level for each of so many common table expressions, each of which names the one before.
fn levels(number: usize) -> String {
    let mut sql = "WITH c0(a) AS (SELECT 1)".to_owned();
    for level in 1..number {
        write!(sql, ", c{level}(a) AS (SELECT a FROM c{})", level - 1).unwrap();
    }
    format!("{sql} SELECT a FROM c{}", number - 1)
}

#[test]
fn a_trigger_is_measured_to_its_end_and_no_further() {
    let weight = |sql: &str| creation_weight(sql.as_bytes());
    let statement = |body: &str| {
        format!("CREATE TEMP TRIGGER t AFTER INSERT ON a WHEN (CASE 1 WHEN 1 THEN 1 END) BEGIN {body}; END")
    };
    let (one, many) = (
        statement("SELECT 1"),
        statement(&format!("SELECT 1; SELECT CASE 1 WHEN 1 THEN 2 END; {}", levels(500))),
    );
    assert!(weight(&many) > 300 * weight(&one), "{} {}", weight(&many), weight(&one));
    for before in ["", ";", " ; /* ; */ ", "\u{feff}", "EXPLAIN QUERY PLAN "] {
        assert_eq!(measured(format!("{before}{many}").as_bytes()).selects, 503, "{before}");
        assert_eq!(measured(format!("{before}{many} ; {}", levels(500)).as_bytes()).selects, 503, "{before}");
        assert_eq!(measured(format!("{before}SELECT 1; {}", levels(500)).as_bytes()).selects, 1, "{before}");
        assert_eq!(measured(format!("{before}{}", levels(500)).as_bytes()).selects, 501, "{before}");
    }
    // Whatever the schema calls it.
    assert!(object_weight(many.as_bytes()) > 300 * object_weight(one.as_bytes()));
    assert_eq!(object_weight(b"CREATE INDEX i ON t(a)"), 0);
}

/// Views of v`from` on, each of the one before; the first text that is refused.
fn views_from(connection: &Connection, from: usize) -> usize {
    (from..from + 20_000)
        .find(|number| {
            let sql = format!("CREATE VIEW v{} AS SELECT * FROM v{number}", number + 1);
            connection.execute(&mut Inside::alone(), sql.as_bytes()).is_err_and(|error| is_nesting(&error))
        })
        .unwrap()
}

#[test]
fn a_statement_that_failed_tells_nothing_of_the_weight_of_the_schema() {
    let vfs = vfs_of(PageStore::new());
    let (first, second) = (writer(&vfs), writer(&vfs));
    first.execute(&mut Inside::alone(), b"CREATE TABLE v0(a)").unwrap();
    first.execute(&mut Inside::alone(), b"BEGIN").unwrap();
    let full = views_from(&first, 0);
    first.execute(&mut Inside::alone(), b"COMMIT").unwrap();

    let failing = b"CREATE TABLE x AS SELECT abs(-9223372036854775807 - 1)";
    assert!(second.execute(&mut Inside::alone(), failing).is_err_and(|error| !is_nesting(&error)));

    let sql = format!("CREATE VIEW w AS SELECT * FROM v{full}");
    let refused = second.execute(&mut Inside::alone(), sql.as_bytes()).unwrap_err();
    assert!(is_nesting(&refused), "{refused}");
}

#[test]
fn a_statement_that_has_become_a_change_of_the_schema_is_compiled_again_and_looked_at() {
    let connection = opened();
    let execute = |sql: &str| connection.execute(&mut Inside::alone(), sql.as_bytes());
    execute("CREATE TABLE v0(a); CREATE TABLE a(x); CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END")
        .unwrap();
    let prepared = |sql: &str| connection.prepare(&mut Inside::alone(), sql.as_bytes()).unwrap().0.unwrap();
    let mut trigger = prepared("CREATE TRIGGER IF NOT EXISTS t AFTER INSERT ON a BEGIN SELECT 1; END");
    let mut insert = prepared("INSERT INTO a VALUES(1)");
    execute("DROP TRIGGER t").unwrap();

    assert!(step(&mut trigger, &mut Inside::alone()).is_err());
    assert!(trigger.is_outdated());
    let _ = trigger.reset(&mut Inside::alone());
    compile_again(&mut trigger, &mut Inside::alone()).unwrap();
    assert_eq!(step(&mut trigger, &mut Inside::alone()).unwrap(), Step::Done);
    assert!(!trigger.is_outdated() && trigger.writes());

    // A schema that is full, and a trigger that goes on writing it by hand.
    execute("DROP TRIGGER t; BEGIN").unwrap();
    let full = views_from(&connection, 0);
    execute("COMMIT; PRAGMA writable_schema = ON").unwrap();
    for number in 1..20 {
        execute(&format!("DROP VIEW v{number}")).unwrap();
    }
    execute(&format!(
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN INSERT INTO sqlite_master WITH RECURSIVE n(i) AS (SELECT {full} + 1 UNION ALL SELECT i + 1 FROM n WHERE i < {full} + 100)
        SELECT 'index', 'v' || i, 'v' || i, 0, 'CREATE VIEW v' || i || ' AS SELECT * FROM v' || (i - 1) FROM n; END"
    ))
    .unwrap();
    assert!(step(&mut insert, &mut Inside::alone()).is_err());
    assert!(insert.is_outdated());
    let _ = insert.reset(&mut Inside::alone());
    compile_again(&mut insert, &mut Inside::alone()).unwrap();
    let refused = step(&mut insert, &mut Inside::alone()).unwrap_err();
    assert!(is_nesting(&refused), "{refused}");

    // A virtual table makes its own tables whenever it likes.
    execute("CREATE VIRTUAL TABLE f USING fts4(a)").unwrap();
    execute("INSERT INTO f(f) VALUES('automerge=8')").unwrap();
    for statement in [trigger, insert] {
        statement.finalize(&mut Inside::alone());
    }
}

#[test]
fn a_text_that_was_compiled_with_a_schema_of_the_past_does_what_it_says() {
    let vfs = vfs_of(PageStore::new());
    let (first, second) = (writer(&vfs), writer(&vfs));
    for _ in 0..3 {
        first.execute(&mut Inside::alone(), b"CREATE TABLE IF NOT EXISTS t(a)").unwrap();
        second.execute(&mut Inside::alone(), b"DROP TABLE t").unwrap();
        first
            .execute(&mut Inside::alone(), b"CREATE TABLE IF NOT EXISTS t(a); INSERT INTO t VALUES(1)")
            .unwrap();
        second.execute(&mut Inside::alone(), b"INSERT INTO t VALUES(2)").unwrap();
    }
}

#[test]
fn a_text_weighs_what_its_levels_and_its_bytes_need_and_no_more() {
    let text = |sql: &str| measured(sql.as_bytes());
    for (sql, selects, deepest, references) in [
        ("SELECT (1), (2), (3)", 1, 1, 0),
        ("SELECT ((1)) FROM (SELECT 2)", 2, 2, 0),
        (") SELECT (1)", 1, 1, 0),
        ("CREATE TABLE t(a REFERENCES u, b references v)", 0, 1, 2),
    ] {
        let measure = text(sql);
        assert_eq!(
            (measure.selects, measure.deepest, measure.references),
            (selects, deepest, references),
            "{sql}"
        );
    }

    let measure = |selects, deepest, bytes| Measure { selects, deepest, bytes, ..Measure::default() };
    for (selects, deepest, levels) in [(0, 0, 0), (3, 1, 3), (3, 2, 3), (3, 5, 6)] {
        assert_eq!(measure(selects, deepest, 0).levels(), levels, "{selects} {deepest}");
    }
    let (plain, level) = (NESTING_PLAIN_LEVEL_BYTES, NESTING_LEVEL_BYTES);
    let (byte, most) = (NESTING_TEXT_BYTE_BYTES, NESTING_TEXT_MAX_BYTES);
    for (measure, levels, weight) in [
        (measure(1, 0, 100), 1, plain + 100 * byte),
        (measure(1, 0, 1_000_000), 1, plain + most),
        (measure(3, 0, 1_000_000), 3, 3 * plain + 3 * most),
        (measure(3, 1, 10), 3, 3 * level + 10 * byte),
        (Measure { has_in: true, ..measure(3, 0, 10) }, 3, 3 * level + 10 * byte),
        (Measure { makes: Makes::Trigger, ..measure(3, 0, 10) }, 3, 3 * level + 10 * byte),
        (Measure { makes: Makes::View, ..measure(3, 0, 10) }, 3, 3 * plain + 10 * byte),
    ] {
        assert_eq!(measure.weight(levels), weight, "{measure:?}");
    }

    let view = "CREATE VIEW v AS SELECT 1";
    let table = "CREATE TEMP TABLE t(a REFERENCES u, b REFERENCES v)";
    for (sql, weight) in [
        (view, plain + text(view).bytes * byte),
        (table, 2 * level),
        ("CREATE INDEX references ON t(a)", 0),
        ("SELECT 1 AS references", 0),
        ("CREATE VIRTUAL TABLE f USING fts4(content=\"t\")", NESTING_VIRTUAL_LEVEL_BYTES),
        ("CREATE VIRTUAL TABLE f USING fts4(a, b)", 0),
        ("CREATE TABLE content(content)", 0),
    ] {
        assert_eq!(object_weight(sql.as_bytes()), weight, "{sql}");
    }
    assert_eq!(creation_weight(view.as_bytes()), plain + text(view).bytes * byte);
    assert_eq!(creation_weight(table.as_bytes()), level + text(table).bytes * byte + 2 * level);
}
