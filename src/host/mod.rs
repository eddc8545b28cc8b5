//! The process that the library lives in, which belongs to its host: the library's threads take no signals, its descriptors leave
//! 0, 1 and 2 alone, what its threads panic of goes to the log, and a line for standard error waits for nobody. What belongs to one process is not its child's. The only place that asks the
//! operating system for threads, what it knows of a connection, and whether it may map more. architecture "The C boundary".

pub mod descriptors;
pub mod epoll;
mod locks;
mod open_file;
pub mod panics;
pub mod per_process;
pub mod pin;
pub mod register;
pub mod room;
pub mod signals;
pub mod sockets;
pub mod standard_error;
pub mod threads;
