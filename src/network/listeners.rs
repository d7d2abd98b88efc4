//! The ports that programs of this host listen on, from the kernel's tables of sockets.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::Protocol;

/// The tables of the network namespace of the process.
pub const PROC_NET: &str = "/proc/self/net";
/// Those of the thread.
pub(crate) const THREADS_PROC_NET: &str = "/proc/thread-self/net";
/// A TCP socket that listens, and a UDP socket that is connected to nobody.
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";
/// The kernel gives these ports to sockets that ask for any (`ip_local_port_range`): a UDP socket there
/// is a client's.
const EPHEMERAL: u16 = 32768;

/// The ports on which programs listen at one of these addresses or at every address. Loopback and the
/// addresses of Services are left out so: a name server of the host's own is usually at one of them.
///
/// # Errors
/// When a table cannot be read. A host without IPv6 has no tables of it.
pub fn listeners(proc_net: &Path, addresses: &[IpAddr]) -> io::Result<BTreeSet<(Protocol, u16)>> {
    let at_these = |at: &SocketAddr| at.ip().is_unspecified() || addresses.contains(&at.ip());
    let sockets = sockets(proc_net)?.into_iter().filter(|(_, at)| at_these(at));
    Ok(sockets.map(|(protocol, at)| (protocol, at.port())).collect())
}

/// Where programs listen in the network namespace whose tables these are.
pub(crate) fn sockets(proc_net: &Path) -> io::Result<Vec<(Protocol, SocketAddr)>> {
    let mut sockets = Vec::new();
    for (table, protocol) in
        [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)]
    {
        match std::fs::read_to_string(proc_net.join(table)) {
            Ok(text) => sockets.extend(text.lines().skip(1).filter_map(|line| listener(line, protocol))),
            Err(e) if e.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {}
            Err(e) => return Err(e),
        }
    }
    Ok(sockets)
}

/// A line such as `0: 00000000:0016 00000000:0000 0A …`.
fn listener(line: &str, protocol: Protocol) -> Option<(Protocol, SocketAddr)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let (_remote, state) = (fields.next()?, fields.next()?);
    let port = u16::from_str_radix(port, 16).ok()?;
    let listens = match protocol {
        Protocol::Tcp => state == LISTEN,
        Protocol::Udp => state == UNCONNECTED && port < EPHEMERAL,
        Protocol::Sctp => false,
    };
    let address = parse_address(address)?;
    listens.then_some((protocol, SocketAddr::new(address, port)))
}

/// Addresses are written as words of 32 bits in the machine's byte order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |i: usize| u32::from_str_radix(hex.get(i * 8..(i + 1) * 8)?, 16).ok().map(u32::to_ne_bytes);
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let bytes: [u8; 16] = [word(0)?, word(1)?, word(2)?, word(3)?].concat().try_into().ok()?;
    Some(Ipv6Addr::from(bytes).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_at_the_nodes_address_or_at_all_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let write = |table: &str, lines: &[&str]| {
            std::fs::write(dir.path().join(table), format!("{HEAD}{}\n", lines.join("\n"))).unwrap();
        };
        write(
            "tcp",
            &[
                "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1",
                "   1: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1",
                "   2: 0A01A8C0:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1",
                "   4: 0A00600A:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1",
                "   3: 0A01A8C0:D431 0101A8C0:0050 01 00000000:00000000 00:00000000 00000000     0        0 1 1",
            ],
        );
        write(
            "tcp6",
            &[
                "   0: 00000000000000000000000000000000:192B 00000000000000000000000000000000:0000 0A 0 0 0 0 0",
                "   1: 00000000000000000000000001000000:0CEB 00000000000000000000000000000000:0000 0A 0 0 0 0 0",
                "   2: 0000000000000000FFFF00000100007F:0CEC 00000000000000000000000000000000:0000 0A 0 0 0 0 0",
                "   3: 0000000000000000FFFF00000A01A8C0:1F90 00000000000000000000000000000000:0000 0A 0 0 0 0 0",
            ],
        );
        write(
            "udp",
            &[
                "  10: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 1",
                "  11: 00000000:C350 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 1",
                "  12: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 1",
            ],
        );
        let node = ["192.168.1.10".parse().unwrap()];
        let tcp = [22, 443, 6443, 8080].map(|port| (Protocol::Tcp, port));
        let expected = tcp.into_iter().chain([(Protocol::Udp, 68)]).collect();
        assert_eq!(listeners(dir.path(), &node).unwrap(), expected);
        std::fs::remove_file(dir.path().join("tcp")).unwrap();
        assert_eq!(listeners(dir.path(), &node).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_socket_that_listens_is_found_in_the_kernels_table() {
        let socket = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(listeners(Path::new(PROC_NET), &[]).unwrap().contains(&(Protocol::Tcp, port)));
    }
}
