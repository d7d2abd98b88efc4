//! A netlink socket. It stays in the network namespace of the thread that opened it, wherever it
//! is used afterwards.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::{setsockopt_impl, sockopt_impl};

use super::{Message, Messages, find};

const DONE: u16 = 3;
const ERROR: u16 = 2;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words on a failure.
const ERROR_TEXT: u16 = 1;
/// One batch is one datagram: 20,000 services with ten endpoints each need about 20 MB.
const SEND_BUFFER: usize = 32 << 20;
/// Dumps arrive in datagrams of at most 32 KiB; twice that is never truncated.
const RECEIVE_BUFFER: usize = 64 << 10;
/// The kernel answers before `send` returns; this only turns a lost answer into an error.
const PATIENCE: Duration = Duration::from_secs(10);

sockopt_impl!(ExtendedAcknowledgements, SetOnly, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, bool);
sockopt_impl!(ShortAcknowledgements, SetOnly, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, bool);

/// The part of the kernel that a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Links, addresses and routes.
    Route,
    /// nf_tables and conntrack.
    Netfilter,
    /// Sockets.
    SockDiag,
}

/// What the kernel said to a request that it refused.
#[derive(Debug, thiserror::Error)]
pub enum Kernel {
    /// The request of this number failed.
    #[error("netlink request {request}: {errno}{text}")]
    Refused { request: u32, errno: Errno, text: String },
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
}

impl Kernel {
    /// The error number, where the kernel refused a request.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket(_) => None,
        }
    }
}

impl From<Errno> for Kernel {
    fn from(errno: Errno) -> Self {
        Self::Socket(errno.into())
    }
}

#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(protocol: Protocol) -> Result<Self, Kernel> {
        let number = match protocol {
            Protocol::Route => SockProtocol::NetlinkRoute,
            Protocol::Netfilter => SockProtocol::NetlinkNetFilter,
            Protocol::SockDiag => SockProtocol::NetlinkSockDiag,
        };
        let fd = socket::socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, number)?;
        let seconds = i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX);
        socket::setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(seconds))?;
        socket::setsockopt(&fd, ExtendedAcknowledgements, &true)?;
        socket::setsockopt(&fd, ShortAcknowledgements, &true)?;
        if protocol == Protocol::Netfilter {
            socket::setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER)?;
        }
        Ok(Self(fd))
    }

    /// Sends all requests at once and waits for the confirmation of every one; the first refusal
    /// is the result, later requests may have been carried out.
    pub(crate) fn run_all(&self, messages: &Messages) -> Result<(), Kernel> {
        let mut first_refusal = None;
        let mut missing = messages.count();
        self.send(messages)?;
        self.receive(|message| {
            if message.kind == ERROR {
                missing = missing.saturating_sub(1);
                first_refusal = first_refusal.take().or(refusal(message));
            }
            missing == 0
        })?;
        first_refusal.map_or(Ok(()), Err)
    }

    /// Sends a transaction and waits for the confirmation of its request `last`.
    pub(crate) fn run_transaction(&self, messages: &Messages, last: u32) -> Result<(), Kernel> {
        let mut result = Ok(());
        self.send(messages)?;
        self.receive(|message| {
            if message.kind != ERROR {
                return false;
            }
            match refusal(message) {
                Some(refused) => {
                    result = Err(refused);
                    true
                }
                None => message.sequence == last,
            }
        })?;
        result
    }

    /// Sends one request for a dump and hands over each message of the answer.
    pub(crate) fn dump(&self, request: &Messages, mut each: impl FnMut(Message<'_>)) -> Result<(), Kernel> {
        let mut result = Ok(());
        self.send(request)?;
        self.receive(|message| match message.kind {
            // A dump that fails once it has begun says so at its end.
            DONE | ERROR => {
                result = refusal(message).map_or(Ok(()), Err);
                true
            }
            _ => {
                each(message);
                false
            }
        })?;
        result
    }

    fn send(&self, messages: &Messages) -> Result<(), Kernel> {
        self.discard_old_answers();
        let sent = socket::send(self.0.as_raw_fd(), messages.as_bytes(), MsgFlags::empty())?;
        if sent == messages.as_bytes().len() { Ok(()) } else { Err(Errno::EMSGSIZE.into()) }
    }

    /// A transaction that failed may have left answers to further requests.
    fn discard_old_answers(&self) {
        let mut buffer = [0; 64];
        let mut receive = || socket::recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT);
        while matches!(receive(), Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS)) {}
    }

    /// Reads messages until `finished` says so.
    fn receive(&self, mut finished: impl FnMut(Message<'_>) -> bool) -> Result<(), Kernel> {
        let mut buffer = vec![0; RECEIVE_BUFFER];
        loop {
            let size = match socket::recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(size) => size,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            for message in Message::parse(&buffer[..size]) {
                if finished(message) {
                    return Ok(());
                }
            }
        }
    }
}

/// Takes an `NLMSG_ERROR`, or the end of a dump, apart; absent when it confirms success.
fn refusal(message: Message<'_>) -> Option<Kernel> {
    /// The error number and the header of the request it is about.
    const FIXED: usize = 4 + 16;
    let number = message.payload.first_chunk::<4>().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if number == 0 {
        return None;
    }
    let text = message
        .payload
        .get(FIXED..)
        .and_then(|attributes| find(attributes, &[ERROR_TEXT]))
        .map(|text| format!(": {}", String::from_utf8_lossy(text).trim_end_matches('\0')))
        .unwrap_or_default();
    Some(Kernel::Refused { request: message.sequence, errno: Errno::from_raw(-number), text })
}
