//! Memory and how it goes back to the system: an arena for pages, which places of a row are taken (its own, and those of the page
//! file), what the C library's allocator keeps.

pub mod allocator;
mod arena;
mod bits;
mod returned;
mod slab;
mod slots;

pub use arena::{Arena, ArenaPage};
pub use returned::Returned;
pub use slots::{Kept, Slots, Taken};
