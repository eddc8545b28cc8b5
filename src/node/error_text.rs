//! The text behind `dqlite_node_errmsg`: one buffer for the life of the node, overwritten in place. spec: c-api 3.1, 3.6.

use std::sync::atomic::{AtomicU8, Ordering};

/// Longest text in bytes; the rest is cut off. spec: c-api 3.1.
pub const ERROR_TEXT_MAX_BYTES: usize = 299;

/// A NUL-terminated text at one address. A reader in another thread sees some mix of the old and the new text, never
/// beyond its end.
#[derive(Debug)]
pub struct ErrorText {
    bytes: Box<[AtomicU8; ERROR_TEXT_MAX_BYTES + 1]>,
}

/// As much of `text` as fits into `max_bytes`, in whole characters.
#[must_use]
pub fn cut(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

impl Default for ErrorText {
    fn default() -> ErrorText {
        ErrorText { bytes: Box::new([const { AtomicU8::new(0) }; ERROR_TEXT_MAX_BYTES + 1]) }
    }
}

impl ErrorText {
    /// Overwrites the text, cut to whole characters; a NUL in it becomes a blank.
    pub fn set(&self, text: &str) {
        let end = cut(text, ERROR_TEXT_MAX_BYTES).len();
        for (slot, byte) in self.bytes.iter().zip(text.bytes().take(end)) {
            slot.store(if byte == 0 { b' ' } else { byte }, Ordering::Relaxed);
        }
        for slot in &self.bytes[end..] {
            slot.store(0, Ordering::Relaxed);
        }
    }

    /// Address of the text, the same until the object is dropped.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.bytes[0].as_ptr()
    }

    /// The text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let bytes = self.bytes.iter().map(|slot| slot.load(Ordering::Relaxed)).take_while(|byte| *byte != 0);
        String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_its_place_and_is_cut_between_characters() {
        let text = ErrorText::default();
        let place = text.as_ptr();
        assert_eq!(text.to_text(), "");

        text.set(&"ä".repeat(200));
        assert_eq!(text.to_text(), "ä".repeat(149));
        text.set("a\0b");
        assert_eq!(text.to_text(), "a b");
        assert_eq!(text.as_ptr(), place);
    }
}
