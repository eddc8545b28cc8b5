//! Texts of SQL as SQLite's tokenizer sees them. spec: client-protocol 8.1, 8.2.

/// What SQLite takes for the end of a text, wherever it stands.
const NUL: u8 = 0;
/// A byte order mark in UTF-8: blank to SQLite, anywhere between tokens.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Whether SQLite finds no statement in the text: nothing but blanks, semicolons, comments and byte order marks. What is
/// behind a NUL is not looked at.
pub fn is_blank(sql: &[u8]) -> bool {
    let mut rest = sql;
    loop {
        rest = match rest {
            [] | [NUL, ..] => return true,
            [b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' | b';', tail @ ..] => tail,
            [b'-', b'-', comment @ ..] => behind_line_comment(comment),
            // Without a third character SQLite takes the two for operators.
            [b'/', b'*', NUL, ..] | [b'/', b'*'] => return false,
            [b'/', b'*', comment @ ..] => behind_comment(comment),
            _ => match rest.strip_prefix(BYTE_ORDER_MARK) {
                Some(tail) => tail,
                None => return false,
            },
        };
    }
}

/// A line's comment ends with the line, or with the text.
fn behind_line_comment(comment: &[u8]) -> &[u8] {
    let end = comment.iter().position(|byte| matches!(byte, b'\n' | &NUL));
    end.map_or(&[], |end| &comment[end..])
}

/// Another comment ends with its sign, or with the text.
fn behind_comment(comment: &[u8]) -> &[u8] {
    sign_end(comment.iter().copied()).map_or(&[], |end| &comment[end..])
}

/// Where the sign ends that ends a comment, if it comes before the end of the text. It is asked for behind each statement of a
/// text, so it looks at nothing behind the sign.
fn sign_end(comment: impl Iterator<Item = u8>) -> Option<usize> {
    let mut last = NUL;
    for (at, byte) in comment.enumerate() {
        match (last, byte) {
            (_, NUL) => return None,
            (b'*', b'/') => return Some(at + 1),
            _ => last = byte,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{is_blank, sign_end};
    use crate::executor::sqlite::{Connection, Inside};
    use crate::pages::PageStore;
    use crate::vfs::{Vfs, VfsOptions};

    #[test]
    fn comments_semicolons_and_byte_order_marks_are_blank() {
        for blank in ["", " ;\n", "-- x", "/* a */ ; -- b\n ", "/* open", "\u{feff}", "; \u{feff} -- end"] {
            assert!(is_blank(blank.as_bytes()), "{blank:?}");
        }
        for text in ["SELECT 1", "-- x\nSELECT", "- 1", "/* a */ b", "\u{feff}b", "\u{a0}", "/*"] {
            assert!(!is_blank(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn a_comment_is_read_to_its_sign_and_no_further() {
        for (comment, end, looked_at) in [
            ("*/ and all that follows", Some(2), 2),
            ("/*/ b", Some(3), 3),
            ("**/*/", Some(3), 3),
            ("a\0*/", None, 2),
            ("a * / b", None, 7),
            ("", None, 0),
        ] {
            let mut count = 0;
            assert_eq!(sign_end(comment.bytes().inspect(|_| count += 1)), end, "{comment:?}");
            assert_eq!(count, looked_at, "{comment:?}");
        }
    }

    #[test]
    fn what_is_blank_is_what_sqlite_finds_no_statement_in() {
        let report = Box::new(|text: &str| panic!("{text}"));
        let vfs = Vfs::register(PageStore::new(), VfsOptions::default(), report).unwrap();
        let mut inside = Inside::alone();
        let connection = Connection::open(&mut inside, &vfs, b"test").unwrap();
        let parts: [&[u8]; 10] =
            [b" ", b";", b"-", b"/", b"*", b"\n", b"\0", b"\xef\xbb\xbf", b"\xef\xbb", b"x"];
        let mut blank = 0;
        for number in 0..parts.len().pow(5) {
            let mut text = Vec::new();
            let mut rest = number;
            while rest > 0 {
                text.extend_from_slice(parts[rest % 10]);
                rest /= 10;
            }
            let found = connection.prepare(&mut inside, &text);
            assert_eq!(is_blank(&text), matches!(found, Ok((None, _))), "{text:?}: {found:?}");
            if let Ok((Some(statement), _)) = found {
                statement.finalize(&mut inside);
            }
            blank += usize::from(is_blank(&text));
        }
        assert!(blank > 1000, "{blank}");
    }
}
