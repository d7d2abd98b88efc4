//! Whole messages with descriptors between the daemon and a shim: unix sockets of the kind
//! `SOCK_SEQPACKET`, where the kernel keeps message boundaries and ties descriptors to messages.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind,
    connect, listen, recvmsg, sendmsg, socket, socketpair,
};

/// The largest message. Requests name files instead of carrying their content, so they are small;
/// a command line is the longest part.
pub(crate) const MESSAGE_MAX: usize = 64 * 1024;
/// stdin, stdout, stderr.
const DESCRIPTORS_MAX: usize = 3;

/// A received message: its length in the caller's buffer and the descriptors that came with it.
pub(crate) struct Received {
    pub len: usize,
    pub fds: Vec<OwnedFd>,
}

/// Sends one whole message. `EAGAIN` on a non-blocking socket whose peer does not read, `EMSGSIZE`
/// for a message that the peer could not take.
pub(crate) fn send(fd: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if message.len() > MESSAGE_MAX {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let raw = fds.iter().map(AsRawFd::as_raw_fd).collect::<Vec<RawFd>>();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<UnixAddr>(fd.as_raw_fd(), &[IoSlice::new(message)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one whole message; `None` at the end of the stream.
#[expect(unsafe_code, reason = "takes ownership of received descriptors")]
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<UnixAddr>(fd.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = item {
            // SAFETY: the kernel just made these descriptors for us; nobody else knows them.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
    }
    let len = message.bytes;
    Ok((len > 0 || !fds.is_empty()).then_some(Received { len, fds }))
}

fn new_socket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

/// A blocking pair, for a child's one report.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// A short name for a path of any length: socket addresses hold 107 bytes.
fn address(dir: BorrowedFd<'_>, path: &Path) -> io::Result<UnixAddr> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(UnixAddr::new(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))?)
}

fn parent(path: &Path) -> io::Result<std::fs::File> {
    std::fs::File::open(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
}

/// A non-blocking listener at `path`, replacing a stale one.
pub(crate) fn listener(path: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let dir = parent(path)?;
    let fd = new_socket()?;
    bind(fd.as_raw_fd(), &address(dir.as_fd(), path)?)?;
    listen(&fd, Backlog::new(16).expect("invariant: 16 is a valid backlog"))?;
    Ok(fd)
}

/// A non-blocking connection to the listener at `path`.
pub(crate) fn dial(path: &Path) -> io::Result<OwnedFd> {
    let dir = parent(path)?;
    let fd = new_socket()?;
    connect(fd.as_raw_fd(), &address(dir.as_fd(), path)?)?;
    Ok(fd)
}

/// The next waiting connection, non-blocking.
#[expect(unsafe_code, reason = "takes ownership of an accepted descriptor")]
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    // SAFETY: the kernel just returned this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
