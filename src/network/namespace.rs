//! Reaching into the network namespace of a pod.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::netlink::{Kernel, Socket};
use crate::route;

/// Opens an rtnetlink socket inside another network namespace.
///
/// `setns` moves a thread, so a short-lived one goes in, opens the socket and ends; the socket stays
/// in that namespace. No thread that anybody else uses ever changes its namespace.
pub(crate) fn open_route_socket(namespace: &File) -> Result<Socket, Kernel> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("enter-netns".to_owned())
            .spawn_scoped(scope, || {
                setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
                route::open()
            })
            .map_err(Kernel::Socket)?
            .join()
            .map_err(|_| Kernel::Socket(io::Error::other("the thread inside the namespace panicked")))?
    })
}
