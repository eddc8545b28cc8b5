//! Bytes on disk and on the wire must be the same on every machine: no source asks for the machine's byte order, word length or page size, so
//! that a big-endian machine and one with pages of 64 KiB run what is tested here. `make check-architectures` runs it on such machines.

mod sources;

/// What a program asks when it depends on the machine's byte order or word length.
const ORDER: &[&str] = &[
    "_ne_bytes",
    "target_endian",
    "target_pointer_width",
    "native_endian",
    "usize::from_le",
    "usize::to_le",
];
/// What depends on the size of the machine's pages: asking for it, mapping files, and I/O that must be aligned to it. SQLite's
/// setting `mmap_size` maps nothing where the VFS does not.
const PAGES: &[&str] =
    &["_SC_PAGE", "getpagesize", "page_size()", "mmap(", "Mmap", "memmap", "madvise", "MAP_", "O_DIRECT"];
/// The arena maps memory, and gives it back in whole pages of the machine: it asks how large they are, and `slots` is tested with
/// all sizes. A pin maps a byte of a file, of whatever page that takes, and nobody reads it.
const MAY_ASK_FOR_PAGES: [&str; 2] = ["src/memory/", "src/host/pin.rs"];
/// How structs of fixed layout are made of bytes: their fields must have an order.
const LAYOUT: &str = "zerocopy";
const ORDERED: &[&str] = &["little_endian", "big_endian"];

/// Path and text without line comments.
fn sources() -> Vec<(String, String)> {
    let code = |text: &str| {
        let lines: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        lines.join("\n")
    };
    sources::sources().into_iter().map(|(path, text)| (path, code(&text))).collect()
}

/// Where one of the words is used.
fn uses(words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, code) in sources() {
        for (number, line) in code.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", path, number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn no_source_asks_for_the_machines_byte_order() {
    assert_eq!(uses(ORDER), [""; 0]);
}

#[test]
fn no_source_depends_on_the_size_of_the_machines_pages() {
    let outside: Vec<String> = uses(PAGES)
        .into_iter()
        .filter(|line| !MAY_ASK_FOR_PAGES.iter().any(|file| line.starts_with(file)))
        .collect();
    assert_eq!(outside, [""; 0]);
}

#[test]
fn structs_of_fixed_layout_have_fields_of_a_stated_order() {
    let mut seen = 0;
    for (path, code) in sources().into_iter().filter(|(_, code)| code.contains(LAYOUT)) {
        assert!(ORDERED.iter().any(|order| code.contains(order)), "{} has no field of a stated order", path);
        for line in code.lines().filter(|line| line.contains("pub ") && line.contains(':')) {
            let plain = ["u16", "u32", "u64", "usize", "i64"]
                .iter()
                .any(|plain| line.contains(&format!(": {plain},")));
            assert!(!plain, "{}: {} has the machine's order", path, line.trim());
        }
        seen += 1;
    }
    assert!(seen > 0, "no struct of fixed layout found");
}
