//! The connection tracker's UDP flows: reading them and forgetting some.

use std::net::{Ipv4Addr, SocketAddrV4};

use nix::errno::Errno;

use crate::netlink::{Kernel, Message, Messages, Socket, find};

/// `NFNL_SUBSYS_CTNETLINK` in the upper byte of the message type.
const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const DUMP: u16 = 0x300;
/// `struct nfgenmsg` for IPv4.
const HEADER: [u8; 4] = [2, 0, 0, 0];
const UDP: u8 = 17;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_SOURCE: u16 = 1;
const IP_DESTINATION: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PORT_SOURCE: u16 = 2;
const PORT_DESTINATION: u16 = 3;

/// A UDP flow: what the client addressed, and who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) destination: SocketAddrV4,
    pub(crate) answers_from: SocketAddrV4,
}

/// A flow as the kernel names it.
struct Entry<'a> {
    flow: Flow,
    original: &'a [u8],
    zone: Option<&'a [u8]>,
}

/// Forgets the flows that are stale, so that their next packet meets today's rules; tells how many.
pub(crate) fn forget_udp(socket: &Socket, is_stale: impl Fn(&Flow) -> bool) -> Result<usize, Kernel> {
    let mut request = Messages::default();
    request.push(GET, DUMP, &HEADER, |_| ());
    let mut deletions = Vec::new();
    socket.dump(&request, |message| {
        if message.kind == NEW
            && let Some(entry) = udp_entry(message)
            && is_stale(&entry.flow)
        {
            deletions.push(deletion(&entry));
        }
    })?;
    let mut forgotten = 0;
    for request in deletions {
        match socket.run_all(&request) {
            Ok(()) => forgotten += 1,
            // It ended by itself in between.
            Err(e) if e.errno() == Some(Errno::ENOENT) => (),
            Err(e) => return Err(e),
        }
    }
    Ok(forgotten)
}

fn deletion(entry: &Entry<'_>) -> Messages {
    let mut request = Messages::default();
    request.push_acknowledged(DELETE, 0, &HEADER, |a| {
        a.nest(TUPLE_ORIGINAL, |a| a.extend(entry.original));
        if let Some(zone) = entry.zone {
            a.bytes(ZONE, zone);
        }
    });
    request
}

/// The entry, if it is of an IPv4 UDP flow.
fn udp_entry(message: Message<'_>) -> Option<Entry<'_>> {
    let attributes = message.payload.get(HEADER.len()..)?;
    let original = find(attributes, &[TUPLE_ORIGINAL])?;
    let reply = find(attributes, &[TUPLE_REPLY])?;
    if find(original, &[TUPLE_PROTOCOL, PROTOCOL_NUMBER])? != [UDP] {
        return None;
    }
    let flow = Flow {
        destination: socket_of(original, IP_DESTINATION, PORT_DESTINATION)?,
        answers_from: socket_of(reply, IP_SOURCE, PORT_SOURCE)?,
    };
    Some(Entry { flow, original, zone: find(attributes, &[ZONE]) })
}

fn socket_of(tuple: &[u8], address: u16, port: u16) -> Option<SocketAddrV4> {
    let address = find(tuple, &[TUPLE_IP, address])?.first_chunk::<4>()?;
    let port = find(tuple, &[TUPLE_PROTOCOL, port])?.first_chunk::<2>()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(*address), u16::from_be_bytes(*port)))
}
