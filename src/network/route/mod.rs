//! Links, addresses and routes: the few rtnetlink requests that routed pods need.

mod change;
mod query;

pub(crate) use change::{Route, RouteChanges, Scope, Veth};
pub(crate) use query::{default_link, link_by_name, links, local_addresses, namespace_id};

use crate::netlink::{Kernel, Protocol, Socket};

/// Opens an rtnetlink socket in the calling thread's network namespace.
pub(crate) fn open() -> Result<Socket, Kernel> {
    Socket::open(Protocol::Route)
}
