//! What belongs to one process: a child that was forked begins with its own, since threads that it does not have may hold what is in its
//! parent's.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value for each process, made when it is first asked for. That of a parent is never dropped in its child.
#[derive(Debug)]
pub struct PerProcess<T: 'static> {
    current: AtomicPtr<Of<T>>,
    make: fn() -> T,
}

#[derive(Debug)]
struct Of<T> {
    process: u32,
    value: T,
}

impl<T: Send + Sync + 'static> PerProcess<T> {
    /// None yet.
    pub const fn new(make: fn() -> T) -> PerProcess<T> {
        PerProcess { current: AtomicPtr::new(ptr::null_mut()), make }
    }

    /// The one of the calling process.
    pub fn get(&self) -> &'static T {
        self.get_of(std::process::id())
    }

    fn get_of(&self, process: u32) -> &'static T {
        let mut current = self.current.load(Ordering::Acquire);
        loop {
            // SAFETY: null, or what was made below, which nothing frees once it is here.
            if let Some(of) = unsafe { current.as_ref() }
                && of.process == process
            {
                return &of.value;
            }
            let made = Box::into_raw(Box::new(Of { process, value: (self.make)() }));
            match self.current.compare_exchange(current, made, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: made above; nothing frees it from now on.
                Ok(_) => return unsafe { &(*made).value },
                Err(newer) => {
                    // SAFETY: made above, and nobody else knows it.
                    drop(unsafe { Box::from_raw(made) });
                    current = newer;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    static COUNTED: PerProcess<Mutex<u32>> = PerProcess::new(|| Mutex::new(0));

    #[test]
    fn a_process_has_one_and_its_child_another_though_the_parents_is_locked() {
        let parents = COUNTED.get_of(1);
        let held = parents.lock().unwrap();
        assert!(ptr::eq(COUNTED.get_of(1), parents));

        let childs = COUNTED.get_of(2);
        *childs.try_lock().unwrap() += 1;
        assert_eq!(*held, 0);
        assert!(ptr::eq(COUNTED.get_of(2), childs));
    }

    #[test]
    fn threads_that_ask_first_at_once_get_the_same() {
        static ONE: PerProcess<Mutex<u32>> = PerProcess::new(|| Mutex::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| *ONE.get().lock().unwrap() += 1);
            }
        });
        assert_eq!(*ONE.get().lock().unwrap(), 8);
    }
}
