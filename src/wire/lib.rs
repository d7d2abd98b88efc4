//! What lies between a socket and the protocol upon it: turns, and bounds on what the other end sends.
//!
//! A task that drives a connection reads for as long as there is something to read, and all components
//! live on a few threads. So every connection of this process is read through [`Paced`]: the other end may
//! fill its socket as fast as it likes, the task still has to line up behind all others after each few
//! kilobytes. The gates know nothing of any protocol, and a read costs no memory.

mod gate;
mod head;
mod turn;

pub use gate::{Gate, Gated};
pub use head::{Answered, EndlessHead, until_answered};
pub use turn::{Paced, Turn};
