#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dqlite_testing::targets::raft_message(bytes));
