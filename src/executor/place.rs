//! The place inside SQLite that a connection holds. SQLite looks whether a statement is to stop between its own instructions; inside
//! one of its functions it does not, and some of these take hours on long texts. A statement that was told to stop and does not goes
//! on, but in a place of nobody else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::permits::{Beside, SqlPermit};

/// The place of one connection; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Place(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    Permit(SqlPermit),
    /// The permit was given to others.
    Beside {
        _counted: Beside,
    },
}

/// Whoever is inside; the place is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Inhabited(Place);

impl Place {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes inside with a permit.
    pub(super) fn enter(&self, permit: SqlPermit) -> Inhabited {
        *self.lock() = Held::Permit(permit);
        Inhabited(self.clone())
    }

    /// Gives the permit to others, though somebody is inside: he was told to stop, and does not. Not in SQLite's single-thread mode,
    /// and not when too many have done so.
    pub(crate) fn step_aside(&self) {
        let mut held = self.lock();
        *held = match std::mem::take(&mut *held) {
            Held::Permit(permit) => match permit.step_aside() {
                Ok(counted) => {
                    tracing::warn!("a statement does not stop; its place inside SQLite is given to others");
                    Held::Beside { _counted: counted }
                }
                Err(permit) => Held::Permit(permit),
            },
            other => other,
        };
    }
}

impl Drop for Inhabited {
    fn drop(&mut self) {
        let held = std::mem::take(&mut *self.0.lock());
        drop(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::permits::SqlPermits;
    use crate::types::config::SQL_BESIDE_MAX;

    #[test]
    fn who_does_not_stop_goes_on_beside_the_others_up_to_a_bound() {
        let permits = SqlPermits::new(1);
        let enter = || {
            let place = Place::default();
            let inside = place.enter(permits.try_acquire().unwrap());
            (place, inside)
        };
        let mut stuck = Vec::new();
        for _ in 0..SQL_BESIDE_MAX {
            let (place, inside) = enter();
            place.step_aside();
            assert_eq!(permits.usage(), (0, 0));
            stuck.push(inside);
        }

        let (place, inside) = enter();
        place.step_aside();
        assert!(permits.try_acquire().is_none(), "one more than may be");
        drop(stuck.pop());
        place.step_aside();
        place.step_aside();
        assert_eq!(permits.usage(), (0, 0));
        drop(inside);
        drop(stuck);

        let (_, inside) = enter();
        assert_eq!(permits.usage(), (1, 0));
        drop(inside);
        assert_eq!(permits.usage(), (0, 0));
    }

    #[test]
    fn in_the_single_thread_mode_nobody_is_inside_beside_another() {
        let permits = SqlPermits::of_process();
        let Some(permit) = permits.try_acquire() else { return };
        let place = Place::default();
        let inside = place.enter(permit);
        place.step_aside();
        assert!(permits.try_acquire().is_none());
        drop(inside);
    }
}
