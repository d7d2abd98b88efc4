//! nf_tables over netlink: expressions, sets and maps, and one atomic batch.
//!
//! Numbers come from `linux/netfilter/nf_tables.h`. The types of keys are declared as `nft` knows
//! them, so that `nft list ruleset` prints what we load: nft 1.0.6 gives up on a numeric key that is
//! not a `mark`.

mod batch;
mod expression;
mod set;

pub(crate) use batch::{Batch, ChainKind, Hook};
pub(crate) use expression::{
    CONNECTION_STATUS_DNAT, Comparison, ConnectionField, Expressions, MetaField, NEW_CONNECTION, Verdict,
};
pub(crate) use set::{Element, Field, Set, Value, host_number, protocol_port, socket_key};

use crate::netlink::{Kernel, Protocol, Socket};

/// Opens an nf_tables socket in the calling thread's network namespace.
pub(crate) fn open() -> Result<Socket, Kernel> {
    Socket::open(Protocol::Netfilter)
}
