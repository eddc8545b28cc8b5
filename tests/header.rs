//! include/dqlite.h is what cbindgen makes of src/ffi; `UPDATE_HEADER=1` writes it.

#![allow(clippy::unwrap_used)]

use std::path::Path;

fn generated() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    // cbindgen follows its `mod` items.
    let builder = cbindgen::Builder::new().with_config(config).with_src(root.join("src/ffi/mod.rs"));
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/dqlite.h");
    let generated = generated();

    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &generated).unwrap();
    }

    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == generated,
        "include/dqlite.h is not what src/ffi says: run `UPDATE_HEADER=1 cargo test --test header` and commit it"
    );
}
