//! Reaching into the network namespace of a pod.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::thread;

use nix::sched::{CloneFlags, setns};

use crate::netlink::{Kernel, Socket};
use crate::route;

/// Does some work inside another network namespace.
///
/// `setns` moves a thread, so a short-lived one goes in, works and ends. No thread that anybody else
/// uses ever changes its namespace.
pub(crate) fn inside<T, E>(namespace: &File, work: impl FnOnce() -> Result<T, E> + Send) -> Result<T, E>
where
    T: Send,
    E: From<Kernel> + Send,
{
    thread::scope(|scope| {
        thread::Builder::new()
            .name("enter-netns".to_owned())
            .spawn_scoped(scope, || {
                setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(Kernel::from)?;
                work()
            })
            .map_err(Kernel::Socket)?
            .join()
            .map_err(|_| Kernel::Socket(io::Error::other("the thread inside the namespace panicked")))?
    })
}

/// Opens an rtnetlink socket that stays in that namespace, wherever it is used.
pub(crate) fn open_route_socket(namespace: &File) -> Result<Socket, Kernel> {
    inside(namespace, route::open)
}
