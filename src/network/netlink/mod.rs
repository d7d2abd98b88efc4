//! Netlink as the kernel speaks it: attributes, messages and a blocking socket.
//!
//! Rtnetlink, nf_tables and conntrack share these three; what the numbers mean is theirs. The
//! kernel answers while `send` runs, so nothing here ever waits for long, and nothing is async.

mod attributes;
mod message;
mod socket;

pub(crate) use attributes::{Attributes, find};
pub(crate) use message::{Message, Messages};
pub use socket::Kernel;
pub(crate) use socket::{Protocol, Socket};
