//! The ports that programs of this host listen on.

mod diag;
mod tables;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use tracing::debug;

use crate::Protocol;

/// The ports on which programs listen at one of these addresses or at every address, in the network
/// namespace of the thread. Loopback and the addresses of Services are left out so: a name server of the
/// host's own is usually at one of them.
///
/// # Errors
/// When the kernel does not tell.
pub fn listeners(addresses: &[IpAddr]) -> io::Result<BTreeSet<(Protocol, u16)>> {
    Ok(at_these(sockets()?, addresses))
}

fn at_these(sockets: Vec<(Protocol, SocketAddr)>, addresses: &[IpAddr]) -> BTreeSet<(Protocol, u16)> {
    let at_these = |at: &SocketAddr| at.ip().is_unspecified() || addresses.contains(&at.ip());
    sockets.into_iter().filter(|(_, at)| at_these(at)).map(|(protocol, at)| (protocol, at.port())).collect()
}

/// Where programs listen in the network namespace of the thread.
pub(crate) fn sockets() -> io::Result<Vec<(Protocol, SocketAddr)>> {
    let proc_net = Path::new(tables::PROC_NET);
    let tcp = match diag::tcp_listeners() {
        Ok(sockets) => sockets,
        // A kernel may be built without it.
        Err(error) => {
            debug!("reading the tables of sockets: {error}");
            tables::read(proc_net, tables::TCP, Protocol::Tcp)?
        }
    };
    let udp = tables::read(proc_net, tables::UDP, Protocol::Udp)?;
    let tcp = tcp.into_iter().map(|at| (Protocol::Tcp, at));
    Ok(tcp.chain(udp.into_iter().map(|at| (Protocol::Udp, at))).collect())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn listeners_at_the_nodes_address_or_at_all_are_found() {
        let sockets = ["0.0.0.0:22", "[::]:6443", "192.168.1.10:443", "127.0.0.1:3306", "10.96.0.10:53"];
        let sockets = sockets.map(|at| (Protocol::Tcp, at.parse().unwrap())).to_vec();
        let found = at_these(sockets, &["192.168.1.10".parse().unwrap()]);
        assert_eq!(found, [22, 443, 6443].map(|port| (Protocol::Tcp, port)).into());
    }

    #[test]
    fn both_ways_tell_the_same_of_sockets_that_listen() {
        let listening = ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"].map(|at| TcpListener::bind(at).unwrap());
        let ports = listening.iter().map(|socket| socket.local_addr().unwrap().port()).collect::<Vec<_>>();
        let connected = TcpStream::connect((Ipv6Addr::LOCALHOST, ports[2])).unwrap();
        let ours = |mut sockets: Vec<SocketAddr>| {
            let client = connected.local_addr().unwrap().port();
            sockets.retain(|at| ports.contains(&at.port()) || at.port() == client);
            sockets.sort();
            sockets
        };
        let mut expected: Vec<_> = listening.iter().map(|socket| socket.local_addr().unwrap()).collect();
        expected.sort();
        assert_eq!(ours(diag::tcp_listeners().unwrap()), expected);
        assert_eq!(ours(tables::read(Path::new(tables::PROC_NET), tables::TCP, Protocol::Tcp).unwrap()), expected);
        assert!(listeners(&[]).unwrap().contains(&(Protocol::Tcp, ports[1])));
    }
}
