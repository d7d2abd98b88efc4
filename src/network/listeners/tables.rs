//! Sockets that listen, as the kernel lists them in text.
//!
//! To list the TCP sockets the kernel walks through every connection that there could be: six milliseconds
//! for each of the two tables, however few there are.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::Protocol;

/// The tables of the network namespace of the thread.
pub(super) const PROC_NET: &str = "/proc/thread-self/net";
pub(super) const TCP: [&str; 2] = ["tcp", "tcp6"];
pub(super) const UDP: [&str; 2] = ["udp", "udp6"];
/// A TCP socket that listens, and a UDP socket that is connected to nobody.
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";
/// The kernel gives these ports to sockets that ask for any (`ip_local_port_range`): a UDP socket there
/// is a client's.
const EPHEMERAL: u16 = 32768;

/// Where programs listen by these tables of a protocol. A host without IPv6 has no tables of it.
pub(super) fn read(proc_net: &Path, tables: [&str; 2], protocol: Protocol) -> io::Result<Vec<SocketAddr>> {
    let mut sockets = Vec::new();
    for table in tables {
        match std::fs::read_to_string(proc_net.join(table)) {
            Ok(text) => sockets.extend(text.lines().skip(1).filter_map(|line| listener(line, protocol))),
            Err(e) if e.kind() == io::ErrorKind::NotFound && table.ends_with('6') => {}
            Err(e) => return Err(e),
        }
    }
    Ok(sockets)
}

/// A line such as `0: 00000000:0016 00000000:0000 0A …`.
fn listener(line: &str, protocol: Protocol) -> Option<SocketAddr> {
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
    listens.then_some(SocketAddr::new(address, port))
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
    fn what_listens_is_told_from_what_is_connected() {
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
        let read = |tables, protocol| {
            let mut found: Vec<_> = read(dir.path(), tables, protocol)?.iter().map(ToString::to_string).collect();
            found.sort();
            io::Result::Ok(found)
        };
        let expected = [
            "0.0.0.0:22",
            "10.96.0.10:53",
            "127.0.0.1:3306",
            "127.0.0.1:3308",
            "192.168.1.10:443",
            "192.168.1.10:8080",
            "[::1]:3307",
            "[::]:6443",
        ];
        assert_eq!(read(TCP, Protocol::Tcp).unwrap(), expected);
        assert_eq!(read(UDP, Protocol::Udp).unwrap(), ["0.0.0.0:68", "127.0.0.53:53"]);
        std::fs::remove_file(dir.path().join("tcp6")).unwrap();
        assert_eq!(read(TCP, Protocol::Tcp).unwrap().len(), 4);
        std::fs::remove_file(dir.path().join("tcp")).unwrap();
        assert_eq!(read(TCP, Protocol::Tcp).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
