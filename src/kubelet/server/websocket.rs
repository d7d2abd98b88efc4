//! WebSocket frames (RFC 6455), the server's side: what exec, attach and logs need and no more.
//!
//! The decoder is pure and incremental; it refuses what a client must not send: unmasked or
//! oversized frames, reserved bits, fragmented control frames.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha1::{Digest, Sha1};
use thiserror::Error;

/// Clients send input in pieces of 32 KiB; this leaves room for other clients' habits.
const MAX_MESSAGE: usize = 1 << 20;
const MAX_CONTROL: usize = 125;
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The status codes of RFC 6455, section 7.4.1, that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseCode {
    Normal = 1000,
    Protocol = 1002,
    TooBig = 1009,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    Close,
}

/// The client broke the protocol.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum FrameError {
    #[error("a client's frame is not masked")]
    Unmasked,
    #[error("a reserved bit or opcode is set")]
    Reserved,
    #[error("a control frame is fragmented or too long")]
    Control,
    #[error("a continuation does not follow its beginning")]
    Continuation,
    #[error("a message is longer than {MAX_MESSAGE} bytes")]
    TooBig,
}

impl FrameError {
    pub(crate) fn close_code(self) -> CloseCode {
        match self {
            Self::TooBig => CloseCode::TooBig,
            Self::Unmasked | Self::Reserved | Self::Control | Self::Continuation => CloseCode::Protocol,
        }
    }
}

/// The answer to a client's `Sec-WebSocket-Key`.
pub(crate) fn accept_key(key: &str) -> String {
    let mut sha = Sha1::new();
    sha.update(key.trim().as_bytes());
    sha.update(GUID.as_bytes());
    STANDARD.encode(sha.finalize())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn parse(bits: u8) -> Result<Self, FrameError> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return Err(FrameError::Reserved),
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn is_control(self) -> bool {
        self.bits() >= 8
    }
}

/// Puts messages together from the bytes of a client.
#[derive(Default)]
pub(crate) struct Decoder {
    /// The message under way and whether it is text.
    partial: Option<(bool, BytesMut)>,
}

impl Decoder {
    /// The next whole message in `input`, whose bytes are consumed; `None` asks for more bytes.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Message>, FrameError> {
        while let Some((last, opcode, payload)) = frame(input)? {
            if opcode.is_control() {
                return Ok(Some(match opcode {
                    Opcode::Ping => Message::Ping(payload.freeze()),
                    Opcode::Pong => Message::Pong,
                    _ => Message::Close,
                }));
            }
            let (text, data) = match (opcode, self.partial.take()) {
                (Opcode::Continuation, Some((text, mut begun))) => {
                    if begun.len() + payload.len() > MAX_MESSAGE {
                        return Err(FrameError::TooBig);
                    }
                    begun.unsplit(payload);
                    (text, begun)
                }
                (Opcode::Continuation, None) | (_, Some(_)) => return Err(FrameError::Continuation),
                (opcode, None) => (opcode == Opcode::Text, payload),
            };
            if last {
                let data = data.freeze();
                return Ok(Some(if text { Message::Text(data) } else { Message::Binary(data) }));
            }
            self.partial = Some((text, data));
        }
        Ok(None)
    }
}

/// One frame, unmasked: whether it is the last of its message, its opcode, its payload.
fn frame(input: &mut BytesMut) -> Result<Option<(bool, Opcode, BytesMut)>, FrameError> {
    let [first, second, ..] = input[..] else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameError::Reserved);
    }
    let (last, opcode) = (first & 0x80 != 0, Opcode::parse(first & 0x0f)?);
    if second & 0x80 == 0 {
        return Err(FrameError::Unmasked);
    }
    let short = usize::from(second & 0x7f);
    if opcode.is_control() && (short > MAX_CONTROL || !last) {
        return Err(FrameError::Control);
    }
    let extended = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let header = 2 + extended + 4;
    if input.len() < header {
        return Ok(None);
    }
    let length = match extended {
        0 => short,
        n => input[2..2 + n]
            .iter()
            .try_fold(0_usize, |sum, b| sum.checked_mul(256)?.checked_add(usize::from(*b)))
            .ok_or(FrameError::TooBig)?,
    };
    if length > MAX_MESSAGE {
        return Err(FrameError::TooBig);
    }
    if input.len() < header + length {
        return Ok(None);
    }
    let mask: [u8; 4] = input[header - 4..header].try_into().expect("invariant: four bytes");
    input.advance(header);
    let mut payload = input.split_to(length);
    for (n, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[n % 4];
    }
    Ok(Some((last, opcode, payload)))
}

fn encode(opcode: Opcode, parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    let mut out = BytesMut::with_capacity(length + 10);
    out.put_u8(0x80 | opcode.bits());
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.put_u8(short),
        (_, Ok(medium)) => {
            out.put_u8(126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
    for part in parts {
        out.put_slice(part);
    }
    out.freeze()
}

/// A binary message: a channel's number and its bytes.
pub(crate) fn channel(number: u8, data: &[u8]) -> Bytes {
    encode(Opcode::Binary, &[&[number], data])
}

pub(crate) fn binary(data: &[u8]) -> Bytes {
    encode(Opcode::Binary, &[data])
}

pub(crate) fn text(data: &[u8]) -> Bytes {
    encode(Opcode::Text, &[data])
}

pub(crate) fn pong(payload: &[u8]) -> Bytes {
    encode(Opcode::Pong, &[payload])
}

pub(crate) fn close(code: CloseCode) -> Bytes {
    encode(Opcode::Close, &[&(code as u16).to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut out = vec![first];
        match payload.len() {
            n @ 0..126 => out.push(0x80 | u8::try_from(n).unwrap()),
            n @ 126..65536 => {
                out.push(0x80 | 126);
                out.extend(u16::try_from(n).unwrap().to_be_bytes());
            }
            n => {
                out.push(0x80 | 127);
                out.extend((n as u64).to_be_bytes());
            }
        }
        out.extend(mask);
        out.extend(payload.iter().enumerate().map(|(n, b)| b ^ mask[n % 4]));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Message>, FrameError> {
        let (mut decoder, mut input, mut out) = (Decoder::default(), BytesMut::new(), Vec::new());
        // One byte at a time: no frame may depend on how reads fall.
        for byte in bytes {
            input.put_u8(*byte);
            while let Some(message) = decoder.next(&mut input)? {
                out.push(message);
            }
        }
        Ok(out)
    }

    #[test]
    fn the_handshake_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_become_messages() {
        let binary = |b: &[u8]| Message::Binary(Bytes::copy_from_slice(b));
        let long = vec![7; 70_000];
        let mut fragmented = client(0x02, b"ab");
        fragmented.extend(client(0x89, b"hi"));
        fragmented.extend(client(0x80, b"cd"));
        for (bytes, expected) in [
            (client(0x82, b"\0ls"), vec![binary(b"\0ls")]),
            (client(0x81, b"x"), vec![Message::Text(Bytes::from_static(b"x"))]),
            (client(0x82, &[1; 200]), vec![binary(&[1; 200])]),
            (client(0x82, &long), vec![binary(&long)]),
            (client(0x88, &[3, 0xe8]), vec![Message::Close]),
            (client(0x8a, b""), vec![Message::Pong]),
            (fragmented, vec![Message::Ping(Bytes::from_static(b"hi")), binary(b"abcd")]),
        ] {
            assert_eq!(decode(&bytes), Ok(expected));
        }
    }

    #[test]
    fn what_a_client_must_not_send_is_refused() {
        let huge = [vec![0x82, 0x80 | 127], u64::MAX.to_be_bytes().to_vec(), vec![0; 4]].concat();
        let over = [vec![0x82, 0x80 | 127], (MAX_MESSAGE as u64 + 1).to_be_bytes().to_vec(), vec![0; 4]].concat();
        let half = client(0x02, &vec![0; MAX_MESSAGE]);
        for (bytes, expected) in [
            (vec![0x82, 1, 0], FrameError::Unmasked),
            (client(0xc2, b""), FrameError::Reserved),
            (client(0x83, b""), FrameError::Reserved),
            (client(0x09, b""), FrameError::Control),
            (client(0x89, &[0; 126]), FrameError::Control),
            (client(0x80, b""), FrameError::Continuation),
            ([client(0x02, b""), client(0x82, b"")].concat(), FrameError::Continuation),
            (huge, FrameError::TooBig),
            (over, FrameError::TooBig),
            ([half, client(0x80, b"x")].concat(), FrameError::TooBig),
        ] {
            assert_eq!(decode(&bytes), Err(expected));
        }
    }

    #[test]
    fn a_server_does_not_mask() {
        assert_eq!(&channel(1, b"hi")[..], [0x82, 3, 1, b'h', b'i']);
        assert_eq!(&channel(1, &[0; 200])[..4], [0x82, 126, 0, 201]);
        assert_eq!(&close(CloseCode::Normal)[..], [0x88, 2, 3, 0xe8]);
        assert_eq!(&channel(2, &vec![0; 70_000])[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x71]);
    }
}
