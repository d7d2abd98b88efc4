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
    CONNECTION_STATUS_DNAT, Comparison, ConnectionField, Expressions, FIRST_PACKET, MetaField, NEW_CONNECTION,
    NO_CONNECTION, Verdict,
};
pub(crate) use set::{Element, Field, Set, Value, host_number, protocol_port, socket_key};

use nix::errno::Errno;

use crate::netlink::{Kernel, Messages, Protocol, Socket};

/// Opens an nf_tables socket in the calling thread's network namespace.
pub(crate) fn open() -> Result<Socket, Kernel> {
    Socket::open(Protocol::Netfilter)
}

/// Whether there is an IPv4 table of this name. Others may delete ours: the start of Debian's
/// nftables service flushes every table.
pub(crate) fn table_exists(socket: &Socket, name: &str) -> Result<bool, Kernel> {
    let mut request = Messages::default();
    request.push_acknowledged(batch::SUBSYSTEM | batch::GET_TABLE, 0, &[batch::FAMILY, 0, 0, 0], |a| {
        a.string(batch::TABLE, name);
    });
    match socket.run_all(&request) {
        Ok(()) => Ok(true),
        Err(e) if e.errno() == Some(Errno::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}
