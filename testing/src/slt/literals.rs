//! Literals of a statement turned into parameters. What comes out is another statement, which may mean something else (a bound value
//! has no position in ORDER BY, and no place in a CAST's type); both sides get the same one.

use super::answer::Cell;

/// Statements that may have parameters.
const WITH_PARAMETERS: [&str; 7] = ["SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "WITH", "VALUES"];

/// A piece of SQL text.
enum Token<'a> {
    Literal(Cell, &'a str),
    Other(&'a str),
}

/// The statement with those literals as parameters that `choose` picks, and their values. None if it cannot have any.
pub fn bind_literals(sql: &str, mut choose: impl FnMut() -> bool) -> Option<(String, Vec<Cell>)> {
    let first = sql.split_whitespace().next()?.to_ascii_uppercase();
    if !WITH_PARAMETERS.contains(&first.as_str()) || sql.contains('?') || sql.trim_end().ends_with(';') {
        return None;
    }
    let (mut text, mut values, mut rest) = (String::new(), Vec::new(), sql);
    while !rest.is_empty() {
        let (token, length) = next_token(rest);
        match token {
            Token::Literal(value, _) if choose() => {
                text.push('?');
                values.push(value);
            }
            Token::Literal(_, source) | Token::Other(source) => text.push_str(source),
        }
        rest = &rest[length..];
    }
    (!values.is_empty()).then_some((text, values))
}

fn next_token(rest: &str) -> (Token<'_>, usize) {
    let bytes = rest.as_bytes();
    let other = |length: usize| (Token::Other(&rest[..length]), length);
    match bytes[0] {
        b'\'' => {
            let (content, length) = quoted(rest, '\'');
            (Token::Literal(Cell::Text(content.into_bytes()), &rest[..length]), length)
        }
        b'x' | b'X' if bytes.get(1) == Some(&b'\'') => {
            let (content, length) = quoted(&rest[1..], '\'');
            match hexadecimal(&content) {
                Some(blob) => (Token::Literal(Cell::Blob(blob), &rest[..length + 1]), length + 1),
                None => other(length + 1),
            }
        }
        b'"' => other(quoted(rest, '"').1),
        b'`' => other(quoted(rest, '`').1),
        b'[' => other(rest.find(']').map_or(rest.len(), |end| end + 1)),
        b'-' if rest.starts_with("--") => other(rest.find('\n').unwrap_or(rest.len())),
        b'/' if rest.starts_with("/*") => other(rest.find("*/").map_or(rest.len(), |end| end + 2)),
        b'0'..=b'9' => number(rest),
        byte if byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 => {
            let in_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
            other(rest.find(|c| !in_word(c)).unwrap_or(rest.len()))
        }
        _ => other(1),
    }
}

/// What stands between quotes, and the length with them.
fn quoted(rest: &str, quote: char) -> (String, usize) {
    let mut content = String::new();
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != quote {
            content.push(character);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            content.push(quote);
        } else {
            return (content, at + 1);
        }
    }
    (content, rest.len())
}

fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect()
}

fn number(rest: &str) -> (Token<'_>, usize) {
    let bytes = rest.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut length = digits(0);
    let is_hexadecimal = length == 1 && bytes[0] == b'0' && matches!(bytes.get(1), Some(b'x' | b'X'));
    if is_hexadecimal {
        length = 2 + bytes[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        return (Token::Other(&rest[..length]), length);
    }
    let mut is_real = false;
    if bytes.get(length) == Some(&b'.') {
        is_real = true;
        length += 1 + digits(length + 1);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            is_real = true;
            length += 1 + sign + exponent;
        }
    }
    let source = &rest[..length];
    let value = match source.parse() {
        Ok(integer) if !is_real => Some(Cell::Integer(integer)),
        _ => source.parse().ok().map(|real: f64| Cell::Real(real.to_bits())),
    };
    (value.map_or(Token::Other(source), |value| Token::Literal(value, source)), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(sql: &str) -> Option<(String, Vec<Cell>)> {
        bind_literals(sql, || true)
    }

    #[test]
    fn literals_become_parameters_and_all_else_stays() {
        let sql = "SELECT 'it''s', x'00fF', -12, 1.5e3, .5, a1, \"b 2\", [c 3], 0x10 /* 4 */ FROM t -- 5";
        let (text, values) = bound(sql).unwrap();

        assert_eq!(text, "SELECT ?, ?, -?, ?, .?, a1, \"b 2\", [c 3], 0x10 /* 4 */ FROM t -- 5");
        let real = |number: f64| Cell::Real(number.to_bits());
        let expected = [
            Cell::Text(b"it's".to_vec()),
            Cell::Blob(vec![0, 255]),
            Cell::Integer(12),
            real(1500.0),
            Cell::Integer(5),
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn integers_beyond_64_bits_are_reals() {
        let (_, values) = bound("SELECT 9223372036854775807, 9223372036854775808").unwrap();
        assert_eq!(values, [Cell::Integer(i64::MAX), Cell::Real(9_223_372_036_854_775_808_f64.to_bits())]);
    }

    #[test]
    fn definitions_and_statements_with_parameters_stay_as_they_are() {
        assert!(bound("CREATE TABLE t(a DEFAULT 1)").is_none());
        assert!(bound("SELECT ?, 1").is_none());
        assert!(bound("SELECT a FROM t").is_none());
    }
}
