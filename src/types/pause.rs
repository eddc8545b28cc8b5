//! Points inside SQLite at which a simulation may let other things happen. Compiled in only with the cargo feature
//! `planted-faults`, and then active only on a thread that has set what happens there.

/// What happens at a point.
#[cfg(feature = "planted-faults")]
pub type AtPoint = Box<dyn Fn()>;

#[cfg(feature = "planted-faults")]
thread_local! {
    static AT_POINT: std::cell::RefCell<Option<AtPoint>> = const { std::cell::RefCell::new(None) };
}

/// Sets what happens at the points that this thread passes, or that nothing does.
#[cfg(feature = "planted-faults")]
pub fn set(at_point: Option<AtPoint>) {
    AT_POINT.set(at_point);
}

/// One of the points.
#[cfg(feature = "planted-faults")]
pub fn point() {
    AT_POINT.with_borrow(|at_point| {
        if let Some(at_point) = at_point {
            at_point();
        }
    });
}

/// One of the points: nothing happens.
#[cfg(not(feature = "planted-faults"))]
pub const fn point() {}
