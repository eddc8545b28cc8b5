//! The host's connect function. spec: c-api 3.4.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use super::{call, dqlite_node};
use crate::host::threads;
use crate::node::own_threads::{Belonging, belonging};
use crate::transport::dial::{Connector, IpConnector, Socket};

/// Connects to `address` and puts a connected stream socket into `*fd`, which the library closes; nonzero if it cannot.
pub type dqlite_connect_func =
    Option<unsafe extern "C" fn(arg: *mut c_void, address: *const c_char, fd: *mut c_int) -> c_int>;

type ConnectFunction = unsafe extern "C" fn(*mut c_void, *const c_char, *mut c_int) -> c_int;
type ConnectUnwinds = unsafe extern "C-unwind" fn(*mut c_void, *const c_char, *mut c_int) -> c_int;

/// A connect function with its argument, which is handed back as it came and never looked at.
struct HostConnector {
    function: ConnectFunction,
    argument: *mut c_void,
}

// SAFETY: the host promises that the function may be called on any thread, several times at once (spec: c-api 3.4).
unsafe impl Send for HostConnector {}
// SAFETY: as above.
unsafe impl Sync for HostConnector {}

/// A call of the host's function, on a thread that has nothing of the library on its stack.
struct Dialling {
    function: ConnectFunction,
    argument: *mut c_void,
    address: *const c_char,
    belonging: Belonging,
    descriptor: c_int,
    /// None until it returns.
    code: Option<c_int>,
}

/// Calls the function. Nothing here needs to be dropped: the function may end the thread.
///
/// # Safety
/// `dialling` is a `Dialling` that nobody else uses meanwhile.
unsafe extern "C-unwind" fn dial(dialling: *mut c_void) -> *mut c_void {
    let dialling = dialling.cast::<Dialling>();
    // SAFETY: by this function's contract.
    let Dialling { function, argument, address, belonging, .. } = unsafe { &*dialling };
    belonging.take();
    // SAFETY: the same function with another word for how it may end: `pthread_exit` unwinds through its caller.
    let function: ConnectUnwinds = unsafe { std::mem::transmute(*function) };
    // SAFETY: inside the object, by this function's contract.
    let descriptor = unsafe { &raw mut (*dialling).descriptor };
    // SAFETY: the host's own function with its own argument; all pointers live until it returns.
    let code = unsafe { function(*argument, *address, descriptor) };
    // SAFETY: by this function's contract.
    unsafe { (*dialling).code = Some(code) };
    std::ptr::null_mut()
}

impl HostConnector {
    /// What the function returns, and the descriptor that it gave.
    fn call(&self, address: &CStr) -> io::Result<(c_int, c_int)> {
        let mut dialling = Dialling {
            function: self.function,
            argument: self.argument,
            address: address.as_ptr(),
            belonging: belonging(),
            descriptor: -1,
            code: None,
        };
        // SAFETY: the object lives until the thread has ended, which is waited for, and nobody else uses it.
        if unsafe { threads::call_foreign(dial, (&raw mut dialling).cast()) }.is_err() {
            // SAFETY: as above; no thread was made.
            unsafe { dial((&raw mut dialling).cast()) };
        }
        let code =
            dialling.code.ok_or_else(|| io::Error::other("connect function: it has ended its thread"))?;
        Ok((code, dialling.descriptor))
    }
}

impl Connector for HostConnector {
    fn connect(&self, address: &str) -> io::Result<Socket> {
        let text = CString::new(address)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "address with a NUL"))?;
        let (code, descriptor) = self.call(&text)?;
        if code != 0 {
            return Err(io::Error::other(format!("connect function: code {code} for '{address}'")));
        }
        if descriptor < 0 {
            return Err(io::Error::other(format!(
                "connect function: descriptor {descriptor} for '{address}'"
            )));
        }
        // SAFETY: only asks the kernel. A descriptor that nobody has must not be owned: closing it would be a fault.
        if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
            let error = io::Error::last_os_error();
            return Err(io::Error::new(
                error.kind(),
                format!("connect function: descriptor {descriptor} for '{address}': {error}"),
            ));
        }
        // SAFETY: the function gave the descriptor away (spec: c-api 3.4).
        Socket::adopt(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

/// The connector of a function; of null the default one.
pub(super) fn connector(function: dqlite_connect_func, argument: *mut c_void) -> Arc<dyn Connector> {
    match function {
        Some(function) => Arc::new(HostConnector { function, argument }),
        None => Arc::new(IpConnector),
    }
}

/// Sets who connects to other nodes; `f` is called on threads of the library, several at once, and may block for seconds.
///
/// # Safety
/// `n` is null or a live node; `f` may be called with `arg` on any thread until the node is stopped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_connect_func(
    n: *mut dqlite_node,
    f: dqlite_connect_func,
    arg: *mut c_void,
) -> c_int {
    let connector = connector(f, arg);
    // SAFETY: null or live, by this function's contract.
    unsafe { call(n, |handle| handle.set_connector(connector)) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    unsafe extern "C" fn refuses(_: *mut c_void, _: *const c_char, _: *mut c_int) -> c_int {
        111
    }

    unsafe extern "C" fn forgets(_: *mut c_void, _: *const c_char, _: *mut c_int) -> c_int {
        0
    }

    unsafe extern "C" fn gives_a_closed_one(_: *mut c_void, _: *const c_char, fd: *mut c_int) -> c_int {
        // SAFETY: the library's pointer. No process has so many descriptors.
        unsafe { *fd = 1_000_000 };
        0
    }

    unsafe extern "C" fn gives_a_file(_: *mut c_void, _: *const c_char, fd: *mut c_int) -> c_int {
        let file = std::fs::File::open("/dev/null").unwrap();
        // SAFETY: the library's pointer.
        unsafe { *fd = file.into_raw_fd() };
        0
    }

    // conformance: c-api 54
    #[test]
    fn a_function_that_gives_no_connection_is_an_error_that_says_why() {
        let table: [(ConnectFunction, &str); 4] = [
            (refuses, "code 111"),
            (forgets, "descriptor -1"),
            (gives_a_closed_one, "1000000"),
            (gives_a_file, ""),
        ];
        for (function, text) in table {
            let connector = connector(Some(function), std::ptr::null_mut());
            let error = connector.connect("peer").unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
