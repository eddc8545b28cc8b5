//! Fenced blocks of a document. Those that begin with `bytes` are examples: lines of hexadecimal bytes, explained behind `#`;
//! `??` is a byte that is not told, `.. 32 bytes` are so many of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the repository.
pub fn text_of(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All documents that links and examples are looked for in.
pub fn documents() -> Vec<String> {
    let listed = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<String> = listed
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| format!("docs/{}", path.file_name().unwrap().to_str().unwrap()))
        .collect();
    found.extend(["README.md", "CHANGELOG.md"].map(str::to_owned));
    found.sort();
    found
}

/// A fenced block.
#[derive(Clone, Debug)]
pub struct Block {
    /// Document and line of its first fence.
    pub place: String,
    /// What stands behind the fence.
    pub words: Vec<String>,
    /// The lines between the fences.
    pub lines: Vec<String>,
}

impl Block {
    /// Whether it has this word.
    pub fn is(&self, word: &str) -> bool {
        self.words.iter().any(|found| found == word)
    }

    /// The value of `key=value`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// Its bytes; None where they are not told.
    pub fn bytes(&self) -> Vec<Option<u8>> {
        self.lines.iter().flat_map(|line| parse_line(line, &self.place)).collect()
    }

    /// Its bytes, all of which are told.
    pub fn whole(&self) -> Vec<u8> {
        let bytes: Option<Vec<u8>> = self.bytes().into_iter().collect();
        bytes.unwrap_or_else(|| panic!("{}: a byte is not told", self.place))
    }

    /// Whether `found` begins with the example.
    pub fn assert_begins(&self, found: &[u8]) {
        let expected = self.bytes();
        assert!(
            found.len() >= expected.len(),
            "{}: {} bytes, found {}",
            self.place,
            expected.len(),
            found.len()
        );
        for (offset, (expected, found)) in expected.iter().zip(found).enumerate() {
            if let Some(expected) = expected {
                assert_eq!(expected, found, "{}: byte {offset} of {found:02x?}", self.place);
            }
        }
    }

    /// Whether `found` is the example.
    pub fn assert_is(&self, found: &[u8]) {
        self.assert_begins(found);
        assert_eq!(found.len(), self.bytes().len(), "{}: length", self.place);
    }
}

fn parse_line(line: &str, place: &str) -> Vec<Option<u8>> {
    let told = line.split('#').next().unwrap_or_default();
    let tokens: Vec<&str> = told.split_whitespace().collect();
    if let [dots, count, "bytes"] = tokens[..]
        && dots == ".."
    {
        return vec![None; count.parse().unwrap_or_else(|_| panic!("{place}: {line}"))];
    }
    let parse = |token: &&str| match *token {
        "??" => None,
        hex => {
            assert_eq!(hex.len(), 2, "{place}: {line}");
            Some(u8::from_str_radix(hex, 16).unwrap_or_else(|_| panic!("{place}: {line}")))
        }
    };
    tokens.iter().map(parse).collect()
}

/// The fenced blocks of a document.
pub fn blocks(document: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in text_of(document).lines().enumerate() {
        if let Some(info) = line.strip_prefix("```") {
            if !open {
                let words = info.split_whitespace().map(str::to_owned).collect();
                found.push(Block { place: format!("{document}:{}", number + 1), words, lines: Vec::new() });
            }
            open = !open;
        } else if open {
            found.last_mut().unwrap().lines.push(line.to_owned());
        }
    }
    assert!(!open, "{document}: a block does not end");
    found
}

/// The examples of a document.
pub fn examples(document: &str) -> Vec<Block> {
    blocks(document)
        .into_iter()
        .filter(|block| block.words.first().is_some_and(|word| word == "bytes"))
        .collect()
}

/// Whether a line is bytes, as far as one can see.
fn looks_like_bytes(line: &str) -> bool {
    let is_byte = |token: &str| token.len() == 2 && u8::from_str_radix(token, 16).is_ok();
    let tokens: Vec<&str> = line.split_whitespace().collect();
    tokens.windows(4).any(|four| four.iter().all(|token| is_byte(token)))
}

#[test]
fn every_block_of_bytes_is_an_example_that_a_test_reads() {
    // What each document's examples may say; the tests of `protocol` and `files` look at all that do.
    let kinds = |document: &str| match document {
        "docs/protocol.md" => vec!["client", "server", "closed", "request"],
        "docs/data-directory.md" => vec!["file"],
        _ => vec![],
    };
    for document in documents() {
        for block in blocks(&document) {
            let kind = block.words.get(1).map(|word| word.split('=').next().unwrap_or_default());
            if block.words.first().is_some_and(|word| word == "bytes") {
                let known = kinds(&document);
                assert!(kind.is_some_and(|kind| known.contains(&kind)), "{}: {kind:?}", block.place);
            } else {
                let bytes = block.lines.iter().find(|line| looks_like_bytes(line));
                assert_eq!(bytes, None, "{}: bytes that nobody checks", block.place);
            }
        }
    }
}

#[test]
fn a_line_of_an_example_is_read_as_documented() {
    let block = |lines: &[&str]| Block {
        place: "here".into(),
        words: vec!["bytes".into(), "file=a".into()],
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
    };
    let all = block(&["01 ff  # one", "?? 00", ".. 3 bytes", "# nothing"]);

    assert_eq!(all.bytes(), [Some(1), Some(255), None, Some(0), None, None, None]);
    assert_eq!(all.value("file"), Some("a"));
    all.assert_is(&[1, 255, 7, 0, 1, 2, 3]);
    let wrong = |found: &[u8]| {
        let found = found.to_vec();
        let all = all.clone();
        std::panic::catch_unwind(move || all.assert_is(&found)).is_err()
    };
    assert!(
        wrong(&[1, 254, 7, 0, 1, 2, 3]) && wrong(&[1, 255, 7, 0, 1, 2]) && wrong(&[1, 255, 7, 0, 1, 2, 3, 4])
    );
}

/// A heading as a link names it.
pub fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|character| match character {
        ' ' => Some('-'),
        '-' | '_' => Some(character),
        _ if character.is_alphanumeric() => Some(character.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

/// The anchors of a document.
pub fn anchors(path: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}
