//! What clients ask for: statements that write, read, and disturb.

use bytes::Bytes;
use dqlite::protocol::request::Value;
use rand::Rng;
use rand::rngs::SmallRng;

use super::schema::SEEN;

/// Keys of items.
const KEYS: i64 = 40;
/// Values beyond this are large.
const LARGE: u32 = 1 << 20;
/// A query that has no end.
pub const ENDLESS: &str =
    "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";
/// Words of texts.
const WORDS: [&str; 6] = ["alpha", "beta", "gamma", "delta", "omega", "rho"];

/// A statement that writes its tag.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its text.
    pub sql: String,
    /// Its parameters.
    pub values: Vec<Value>,
    /// It makes a row, whose id is told.
    pub inserts: bool,
    /// It may be refused, or find nothing to change.
    pub is_sure: bool,
}

fn words(random: &mut SmallRng) -> String {
    let count = random.random_range(1..6);
    (0..count).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect::<Vec<_>>().join(" ")
}

/// How large the changes of a history may be.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of a large value.
    pub value_max: u32,
    /// Rows of a large insert.
    pub rows_max: u32,
    /// Statements of a long text.
    pub text_max: u32,
}

/// A statement that changes at least one row whatever is there.
#[must_use]
pub fn sure_change(random: &mut SmallRng, tag: i64, sizes: Sizes) -> Change {
    let number: u16 = random.random();
    let key = random.random_range(0..KEYS);
    let change = |sql: String, inserts| Change { sql, values: Vec::new(), inserts, is_sure: true };
    match random.random_range(0..12) {
        0..=2 => change(format!("INSERT INTO item(tag, value) VALUES({tag}, {number})"), true),
        3 => change(
            format!(
                "INSERT INTO item(k, tag, value) VALUES({key}, {tag}, {number})
                 ON CONFLICT(k) DO UPDATE SET tag = excluded.tag, value = excluded.value"
            ),
            false,
        ),
        4 => {
            change(format!("INSERT OR REPLACE INTO item(k, tag, value) VALUES({key}, {tag}, {number})"), true)
        }
        5 => {
            let rows = random.random_range(1..=sizes.rows_max);
            change(
                format!(
                    "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM c WHERE x < {rows})
                     INSERT INTO item(tag, value) SELECT {tag}, x * {number} FROM c"
                ),
                true,
            )
        }
        6 => {
            let bytes = random.random_range(1..=sizes.value_max);
            change(format!("INSERT INTO item(tag, value) VALUES({tag}, zeroblob({bytes}))"), true)
        }
        7 => {
            let high = key + random.random_range(0..5);
            change(format!("INSERT INTO erase(tag, low, high) VALUES({tag}, {key}, {high})"), false)
        }
        8 => change(
            format!(
                "INSERT INTO item(tag, value) VALUES({tag}, json_object('a', {number}, 'b', json_array({key}, 'x')))"
            ),
            true,
        ),
        _ => change(format!("INSERT INTO word(tag, body) VALUES({tag}, '{}')", words(random)), true),
    }
}

/// Any statement that writes its tag.
#[must_use]
pub fn change(random: &mut SmallRng, tag: i64, sizes: Sizes) -> Change {
    let number: u16 = random.random();
    let key = random.random_range(0..KEYS);
    let may = |sql: String, inserts| Change { sql, values: Vec::new(), inserts, is_sure: false };
    match random.random_range(0..14) {
        0..=5 => sure_change(random, tag, sizes),
        6 => may(format!("INSERT INTO item(k, tag, value) VALUES({key}, {tag}, {number})"), true),
        7 => {
            let policy = ["IGNORE", "ABORT", "ROLLBACK"][random.random_range(0..3)];
            may(format!("INSERT OR {policy} INTO item(k, tag, value) VALUES({key}, {tag}, {number})"), true)
        }
        8 => {
            let high = key + random.random_range(0..6);
            may(
                format!("UPDATE item SET tag = {tag}, value = {number} WHERE k BETWEEN {key} AND {high}"),
                false,
            )
        }
        9 => may(
            format!(
                "UPDATE item SET tag = {tag}, value = json_set(value, '$.a', {number}) WHERE typeof(value) = 'text' AND json_valid(value)"
            ),
            false,
        ),
        10 => {
            let body = if random.random_range(0..4) == 0 { "bad" } else { "good" };
            may(format!("INSERT INTO part(k, tag, body) VALUES({key}, {tag}, '{body}')"), true)
        }
        11 => {
            let word = ["abort", "rollback", "ignore"][random.random_range(0..3)];
            may(format!("INSERT INTO item(tag, value) VALUES({tag}, '{word}')"), true)
        }
        12 => Change {
            sql: "INSERT INTO item(k, tag, value) VALUES(?, ?, ?)".to_owned(),
            values: parameters(random, key, tag),
            inserts: true,
            is_sure: false,
        },
        _ => may(format!("UPDATE part SET tag = {tag}, k = {} WHERE k = {key}", key / 2), false),
    }
}

/// Values for a row of items.
fn parameters(random: &mut SmallRng, key: i64, tag: i64) -> Vec<Value> {
    let key = if random.random() { Value::Integer(key) } else { Value::Null };
    let value = match random.random_range(0..5) {
        0 => Value::Integer(random.random()),
        1 => Value::Float(f64::from(random.random::<u16>()) / 7.0),
        2 => Value::Text(Bytes::from(words(random))),
        3 => Value::Blob(Bytes::from(vec![7; random.random_range(0..600)])),
        _ => Value::Null,
    };
    vec![key, Value::Integer(tag), value]
}

/// A statement that writes its tag and yields the rows that it has written.
#[must_use]
pub fn returning(random: &mut SmallRng, tag: i64, sizes: Sizes) -> Change {
    let key = random.random_range(0..KEYS);
    let sql = match random.random_range(0..4) {
        0 if sizes.value_max > LARGE => {
            // More than is collected before the first row is sent.
            format!(
                "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM c WHERE x < 200)
                 INSERT INTO item(tag, value) SELECT {tag}, x FROM c RETURNING id, tag, printf('%0100000d', value)"
            )
        }
        0 => format!("INSERT INTO item(k, tag, value) VALUES({key}, {tag}, 1) RETURNING id, k, tag"),
        1 => format!("UPDATE item SET tag = {tag}, value = 2 WHERE k > {key} RETURNING id, k, tag"),
        2 => format!("INSERT INTO item(tag, value) VALUES({tag}, 3) RETURNING id, tag"),
        _ => {
            let rows = random.random_range(1..=sizes.rows_max);
            format!(
                "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM c WHERE x < {rows})
                 INSERT INTO item(tag, value) SELECT {tag}, x FROM c RETURNING id, tag, printf('%064d', value)"
            )
        }
    };
    Change { sql, values: Vec::new(), inserts: false, is_sure: false }
}

/// A statement that reads, with length and chain of the journal in front.
#[must_use]
pub fn reading(random: &mut SmallRng, full_text: &[&str], sizes: Sizes) -> (String, Vec<Value>) {
    let key = random.random_range(0..KEYS);
    let sql = match random.random_range(0..9) {
        0 | 1 => format!("SELECT {SEEN}, count(*), sum(k), max(id) FROM item"),
        2 => {
            let (rows, from) = (random.random_range(1..=sizes.rows_max * 4), random.random_range(0..200));
            format!(
                "SELECT {SEEN}, id, k, tag, length(value) FROM item WHERE id > {from} ORDER BY id LIMIT {rows}"
            )
        }
        3 => format!("SELECT {SEEN}, p.id, i.id FROM part p LEFT JOIN item i ON i.k = p.k ORDER BY 3, 4"),
        4 if !full_text.is_empty() => {
            let module = full_text[random.random_range(0..full_text.len())];
            let word = WORDS[random.random_range(0..WORDS.len())];
            format!("SELECT {SEEN}, count(*) FROM {module} WHERE {module} MATCH '{word}'")
        }
        5 => format!(
            "SELECT {SEEN}, json_group_array(tag) FROM (SELECT tag FROM item ORDER BY id DESC LIMIT 50)"
        ),
        6 => {
            let rows = random.random_range(1..=sizes.rows_max * 4);
            format!(
                "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM c WHERE x < {rows})
                 SELECT {SEEN}, x, printf('%0100d', x) FROM c"
            )
        }
        7 => {
            let sql = format!("SELECT {SEEN}, count(*) FROM item WHERE k > ? AND tag <> ?");
            return (sql, vec![Value::Integer(key), Value::Integer(key * 100)]);
        }
        _ => format!("SELECT {SEEN}, count(*), min(body) FROM word"),
    };
    (sql, Vec::new())
}

/// A text that changes nothing that the model knows of, or is refused.
#[must_use]
pub fn noise(random: &mut SmallRng, client: u64, full_text: &[&str]) -> String {
    let number = random.random_range(0..4);
    let name = format!("own_{client}_{number}");
    let of_full_text = |text: &dyn Fn(&str) -> String, random: &mut SmallRng| match full_text {
        [] => "SELECT 1".to_owned(),
        modules => text(modules[random.random_range(0..modules.len())]),
    };
    match random.random_range(0..28) {
        0 => format!("CREATE TABLE IF NOT EXISTS {name}(a, b)"),
        1 => format!("DROP TABLE IF EXISTS {name}"),
        2 => format!("INSERT INTO {name} VALUES(1, 2)"),
        3 => format!("CREATE INDEX IF NOT EXISTS index_{number} ON item(tag, k)"),
        4 => format!("DROP INDEX IF EXISTS index_{number}"),
        5 => format!("ALTER TABLE {name} ADD COLUMN c_{number}"),
        6 => "ANALYZE".to_owned(),
        7 => "REINDEX".to_owned(),
        8 => "VACUUM".to_owned(),
        9 => "PRAGMA optimize".to_owned(),
        10 => format!("PRAGMA user_version = {number}"),
        11 => "PRAGMA quick_check".to_owned(),
        12 => [
            "PRAGMA journal_mode = DELETE",
            "PRAGMA synchronous",
            "PRAGMA page_size = 8192",
            "PRAGMA cache_size = 3",
        ][random.random_range(0..4)]
        .to_owned(),
        13 => format!("CREATE TEMP TABLE IF NOT EXISTS temporary_{number}(a)"),
        14 => format!("INSERT INTO temporary_{number} VALUES(1), (2)"),
        15 => format!("SELECT count(*) FROM temporary_{number}"),
        16 => format!("CREATE VIEW IF NOT EXISTS view_{client}_{number} AS SELECT count(*) FROM item"),
        17 => format!("DROP VIEW IF EXISTS view_{client}_{number}"),
        18 => of_full_text(&|module| format!("INSERT INTO {module}({module}) VALUES('optimize')"), random),
        19 if full_text.contains(&"fts4") => "SELECT optimize(fts4) FROM fts4 LIMIT 1".to_owned(),
        // It writes, is taken for a read, and has rows for several messages.
        26 if full_text.contains(&"fts4") => {
            "SELECT optimize(fts4), printf('%02000d', rowid) FROM fts4".to_owned()
        }
        20 => of_full_text(&|module| format!("INSERT INTO {module}({module}) VALUES('rebuild')"), random),
        21 => "SELECT 1; ; -- nothing".to_owned(),
        22 => "SELEKT 1".to_owned(),
        23 => "ATTACH 'other' AS other".to_owned(),
        24 => String::new(),
        _ => "EXPLAIN SELECT * FROM item".to_owned(),
    }
}
