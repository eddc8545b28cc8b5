//! Linker settings of the shared object (spec: c-api 2.1, 5.4).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // nodelete: a host that calls dlclose must not unmap code that a thread may still run.
    for argument in ["-soname,libdqlite.so.0", "-z,nodelete", "-z,now", "-z,relro"] {
        println!("cargo:rustc-cdylib-link-arg=-Wl,{argument}");
    }
}
