//! What is stored at the end of a script: the database that a node dumps, opened by plain SQLite, beside plain SQLite's own.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::answer::{Answer, Cell};
use super::documented::Tally;
use super::plain::Plain;

/// Everything but the pages that entries live on.
const SCHEMA: &str = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid";
/// Tables that hold rows; a virtual table's are in its shadow tables.
const TABLES: &str =
    "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow') ORDER BY name";

/// The first difference between a dumped database and the plain one of a file. `folder` gets the dump as a file.
///
/// # Errors
/// The dump cannot be written or opened.
pub fn compare(dump: &[u8], plain: &Path, folder: &Path) -> io::Result<Option<String>> {
    let file = folder.join("dump");
    std::fs::write(&file, dump)?;
    // Connections of their own: settings of a script's change what is answered.
    let open = |file: &Path| Plain::open(file, &Arc::new(Tally::default())).map_err(io::Error::other);
    let (mut dumped, mut plain) = (open(&file)?, open(plain)?);
    let found = first_difference(&mut dumped, &mut plain);
    drop(dumped);
    std::fs::remove_file(&file)?;
    Ok(found)
}

/// What is wrong with a dumped database in itself. `folder` gets the dump as a file.
///
/// # Errors
/// The dump cannot be written or opened.
pub fn unsound(dump: &[u8], folder: &Path) -> io::Result<Option<String>> {
    let file = folder.join("dump");
    std::fs::write(&file, dump)?;
    let mut dumped = Plain::open(&file, &Arc::new(Tally::default())).map_err(io::Error::other)?;
    let sound = dumped.query("PRAGMA integrity_check", &[]);
    let is_sound = matches!(&sound, Answer::Rows { rows, .. } if *rows == [[Cell::Text(b"ok".to_vec())]]);
    drop(dumped);
    std::fs::remove_file(&file)?;
    Ok((!is_sound).then(|| format!("integrity_check: {sound:?}")))
}

fn first_difference(dumped: &mut Plain, plain: &mut Plain) -> Option<String> {
    let sound = dumped.query("PRAGMA integrity_check", &[]);
    if plain.query("PRAGMA integrity_check", &[]) != sound {
        return Some(format!("integrity_check of the dump: {sound:?}"));
    }
    let (found, right) = (dumped.query(SCHEMA, &[]), plain.query(SCHEMA, &[]));
    if found != right {
        return Some(format!("the schema of the dump: {found:?}\n    plain SQLite: {right:?}"));
    }
    for name in names(&plain.query(TABLES, &[])) {
        let sql = format!("SELECT * FROM \"{}\"", name.replace('"', "\"\""));
        let (found, right) = (dumped.query(&sql, &[]), plain.query(&sql, &[]));
        if found != right {
            return Some(format!("{sql} of the dump: {found:?}\n    plain SQLite: {right:?}"));
        }
    }
    None
}

/// Whether a table has the largest rowid that there is. SQLite draws the next one by chance.
#[must_use]
pub fn has_largest_rowid(plain: &Plain) -> bool {
    let connection = plain.connection();
    let Ok(mut tables) =
        connection.prepare("SELECT name FROM pragma_table_list WHERE type IN ('table', 'shadow')")
    else {
        return false;
    };
    let Ok(names) = tables.query_map([], |row| row.get::<_, String>(0)) else { return false };
    names.flatten().any(|name| {
        let sql = format!("SELECT 1 FROM \"{}\" WHERE rowid = {}", name.replace('"', "\"\""), i64::MAX);
        // A table without a rowid has none.
        connection.prepare(&sql).and_then(|mut statement| statement.exists([])).unwrap_or(false)
    })
}

fn names(answer: &Answer) -> Vec<String> {
    let Answer::Rows { rows, .. } = answer else { return Vec::new() };
    let text = |row: &Vec<Cell>| match row.first() {
        Some(Cell::Text(name)) => Some(String::from_utf8_lossy(name).into_owned()),
        _ => None,
    };
    rows.iter().filter_map(text).collect()
}
