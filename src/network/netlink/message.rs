//! Messages: one buffer that holds several requests, and replies taken apart.

use super::Attributes;

/// Size of `struct nlmsghdr`.
const HEADER: usize = 16;
const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACK: u16 = 0x4;

/// Requests that are sent together, numbered from 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    count: u32,
    last: usize,
}

impl Messages {
    /// Adds a request: the protocol's fixed header, then attributes.
    pub(crate) fn push(&mut self, kind: u16, flags: u16, fixed: &[u8], body: impl FnOnce(&mut Attributes)) {
        let mut content = Attributes::default();
        content.extend(fixed);
        body(&mut content);
        self.last = self.bytes.len();
        self.count += 1;
        let size = u32::try_from(HEADER + content.len()).expect("invariant: attributes bound a message to 64 KiB");
        self.bytes.extend_from_slice(&size.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | FLAG_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.count.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(content.as_bytes());
    }

    /// Asks the kernel to confirm the request added last; returns its number.
    pub(crate) fn acknowledge_last(&mut self) -> u32 {
        let flags = self.last + 6..self.last + 8;
        let value = u16::from_ne_bytes([self.bytes[flags.start], self.bytes[flags.start + 1]]) | FLAG_ACK;
        self.bytes[flags].copy_from_slice(&value.to_ne_bytes());
        self.count
    }

    /// Adds a request that the kernel confirms.
    pub(crate) fn push_acknowledged(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        body: impl FnOnce(&mut Attributes),
    ) {
        self.push(kind, flags | FLAG_ACK, fixed, body);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }
}

/// One received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    /// The protocol's fixed header and attributes.
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The messages of one datagram; stops at what is malformed.
    pub(crate) fn parse(mut bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let (header, _) = bytes.split_first_chunk::<HEADER>()?;
            let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let size = usize::try_from(word(0)).ok()?;
            let payload = bytes.get(HEADER..size)?;
            bytes = bytes.get(size.next_multiple_of(4)..).unwrap_or_default();
            Some(Self { kind: u16::from_ne_bytes([header[4], header[5]]), sequence: word(8), payload })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_back_in_order_with_their_numbers() {
        let mut messages = Messages::default();
        messages.push(16, 0x400, &[1, 2, 3, 4], |a| a.host_u32(4, 1450));
        messages.push(17, 0, &[], |_| ());
        assert_eq!(messages.acknowledge_last(), 2);
        let read: Vec<_> = Message::parse(messages.as_bytes()).map(|m| (m.kind, m.sequence, m.payload.len())).collect();
        assert_eq!(read, [(16, 1, 12), (17, 2, 0)]);
        assert_eq!(messages.as_bytes()[28 + 6], 0x5);
    }

    #[test]
    fn a_truncated_message_is_not_read() {
        let mut messages = Messages::default();
        messages.push(16, 0, &[0; 8], |_| ());
        assert_eq!(Message::parse(&messages.as_bytes()[..20]).count(), 0);
    }
}
