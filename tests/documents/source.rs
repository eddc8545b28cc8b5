//! What the source says: its constants, its log messages and the failures it sends.

use std::collections::{BTreeMap, BTreeSet};

use crate::blocks::text_of;

/// The sources of the library without their tests: path and text.
pub fn sources() -> Vec<(String, String)> {
    let is_test = |path: &str| path.ends_with("tests.rs") || path.ends_with("/testing.rs");
    // Tests are the last item of a file.
    let code = |text: String| text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    let all = crate::sources::sources().into_iter();
    let found: Vec<_> =
        all.filter(|(path, _)| !is_test(path)).map(|(path, text)| (path, code(text))).collect();
    assert!(found.len() > 100, "only {} source files", found.len());
    found
}

/// Level and message of every event, with a place where it is.
pub fn log_messages() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (path, text) in sources() {
        for level in ["error", "warn", "info", "debug", "trace"] {
            for (at, call) in text.match_indices(&format!("{level}!(")) {
                let before = text[..at].chars().next_back();
                if before.is_some_and(|character| character.is_alphanumeric() || character == '_') {
                    continue;
                }
                let message = message_of(&text[at + call.len()..]);
                let message = message
                    .unwrap_or_else(|| panic!("{path}: {level}! without a text: {}", &text[at..at + 80]));
                found.insert((level.to_uppercase(), message));
            }
        }
    }
    found
}

/// The argument of a macro that is a string by itself; `arguments` begins behind its parenthesis.
fn message_of(arguments: &str) -> Option<String> {
    let mut depth = 0;
    let mut begins_argument = true;
    let mut rest = arguments;
    while let Some(character) = rest.chars().next() {
        match character {
            '"' => {
                let end = 1 + rest[1..].find('"')?;
                if depth == 0 && begins_argument && !rest[..end].contains('\\') {
                    return Some(rest[1..end].to_owned());
                }
                rest = &rest[end..];
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return None,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        begins_argument = character == ',' || (begins_argument && character.is_whitespace());
        rest = &rest[rest.chars().next()?.len_utf8()..];
    }
    None
}

/// Every failure that the library itself makes: its code, where that is told beside the text, and the text.
pub fn failures() -> BTreeSet<(Option<u64>, String)> {
    let mut codes = BTreeMap::new();
    for path in ["src/executor/failure.rs", "src/protocol/failure.rs"] {
        for constant in text_of(path).split("pub const ").skip(1) {
            if let Some((name, value)) =
                constant.split(';').next().and_then(|line| line.split_once(": u64 = "))
            {
                codes.insert(name.to_owned(), value.parse::<u64>().unwrap());
            }
        }
    }
    let mut found = BTreeSet::new();
    for (path, text) in sources() {
        // SQLite hands on what refuses this PRAGMA, as its own SQLITE_ERROR.
        let refusals = text.split("c\"PRAGMA delete_database").skip(1);
        found.extend(refusals.map(|rest| {
            let rest = rest.split('"').next().unwrap();
            (Some(1), format!("PRAGMA delete_database{rest}"))
        }));
        let is_sender = path.starts_with("src/gateway/") || path.starts_with("src/executor/");
        let begins = ["Failure::new(", "response::failure("];
        for begin in begins.iter().filter(|_| is_sender) {
            for (at, _) in text.match_indices(begin) {
                let arguments = text[at + begin.len()..].split(')').next().unwrap_or_default();
                let code =
                    arguments.split(',').next().unwrap_or_default().rsplit("::").next().unwrap_or_default();
                // Without a text of its own it passes on another's.
                if let Some(quoted) = arguments.split('"').nth(1) {
                    let code = code.parse().ok().or_else(|| codes.get(code).copied());
                    found.insert((
                        Some(code.unwrap_or_else(|| panic!("{path}: {arguments}"))),
                        quoted.to_owned(),
                    ));
                }
            }
        }
        if path == "src/protocol/failure.rs" {
            // Their codes depend on the request.
            let texts = text.split(": &str =").skip(1).map(|rest| rest.split('"').nth(1).unwrap().to_owned());
            found.extend(texts.map(|text| (None, text)));
        }
    }
    found
}

/// A constant of the file of bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its name.
    pub name: String,
    /// Its value as the documentation writes it.
    pub value: String,
}

/// Every bound, in order.
pub fn bounds() -> Vec<Bound> {
    let (_, text) = sources().into_iter().find(|(path, _)| path == "src/types/config.rs").unwrap();
    let mut numbers = BTreeMap::new();
    let bounds = text.split("pub const ").skip(1).map(|constant| {
        let (name, rest) = constant.split_once(": ").unwrap();
        let (_, value) = rest.split_once(" = ").unwrap();
        let value = value.split(';').next().unwrap();
        let bound = Bound { name: name.to_owned(), value: shown(name, value, &numbers) };
        if !value.starts_with("Duration") {
            numbers.insert(name.to_owned(), product(value, &numbers));
        }
        bound
    });
    bounds.collect()
}

/// A value as people write it. `numbers` are the constants before it.
fn shown(name: &str, expression: &str, numbers: &BTreeMap<String, u64>) -> String {
    if let Some((unit, number)) =
        expression.strip_prefix("Duration::from_").and_then(|rest| rest.split_once('('))
    {
        let number: u64 = product(number.trim_end_matches(')'), numbers);
        return match unit {
            "secs" => format!("{number} s"),
            "millis" if number.is_multiple_of(1000) => format!("{} s", number / 1000),
            "millis" => format!("{number} ms"),
            "micros" => format!("{number} us"),
            _ => panic!("{name}: {expression}"),
        };
    }
    let number = product(expression, numbers);
    let is_bytes = name.contains("_BYTES") || name == "PAGE_SIZE";
    match number {
        _ if !is_bytes => number.to_string(),
        0 => "0 bytes".to_owned(),
        _ if number.is_multiple_of(1 << 30) => format!("{} GiB", number >> 30),
        _ if number.is_multiple_of(1 << 20) => format!("{} MiB", number >> 20),
        _ if number.is_multiple_of(1 << 10) => format!("{} KiB", number >> 10),
        _ => format!("{number} bytes"),
    }
}

fn product(expression: &str, numbers: &BTreeMap<String, u64>) -> u64 {
    let factor = |factor: &str| {
        let factor = factor.trim();
        let number = numbers.get(factor).copied().or_else(|| factor.replace('_', "").parse().ok());
        number.unwrap_or_else(|| panic!("{expression}: {factor}"))
    };
    expression.split('*').map(factor).product()
}

#[test]
fn messages_are_found_among_fields() {
    for (arguments, message) in [
        ("\"a\")", Some("a")),
        ("id = 1, %error, \"b c\")", Some("b c")),
        ("text = f(\"x\", 2), \"c\");", Some("c")),
        ("a = \"x\",\n    \"d\"\n)", Some("d")),
        ("%error)", None),
    ] {
        assert_eq!(message_of(arguments).as_deref(), message, "{arguments}");
    }
}

#[test]
fn values_are_shown_as_people_write_them() {
    for (name, expression, expected) in [
        ("A", "Duration::from_millis(30_000)", "30 s"),
        ("A", "Duration::from_micros(500)", "500 us"),
        ("A_BYTES", "4 * 1024 * 1024", "4 MiB"),
        ("A_BYTES", "504", "504 bytes"),
        ("A_MAX", "1024", "1024"),
        ("A_BYTES", "4 * PAGE_SIZE", "16 KiB"),
    ] {
        let numbers = BTreeMap::from([("PAGE_SIZE".to_owned(), 4096)]);
        assert_eq!(shown(name, expression, &numbers), expected);
    }
}
