//! What the C library's allocator keeps of memory that was freed. glibc keeps it in the arena of the thread that asked for it,
//! whoever else may need it: ten thousand connections left a gigabyte behind, and so did sixty large transactions.

#![allow(unsafe_code)]

/// Gives free memory back to the operating system, where the allocator has a call for it. Takes a while if there is much.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes a number, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
