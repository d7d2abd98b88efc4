//! Protobuf's wire format: tags, varints and length-delimited fields, read with every length checked.

use super::Error;

/// One field as it stands in a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and content; nothing at the end.
    pub(crate) fn field(&mut self) -> Result<Option<(u64, Payload<'a>)>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > 0x1fff_ffff {
            return Err(Error::Malformed(format!("illegal tag {number} (wire type {})", tag & 7)));
        }
        let payload = match tag & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => {
                let (bytes, rest) = self.rest.split_first_chunk::<8>().ok_or_else(unexpected_end)?;
                self.rest = rest;
                Payload::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| unexpected_end())?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(unexpected_end)?;
                self.rest = rest;
                Payload::Bytes(bytes)
            }
            5 => {
                self.rest = self.rest.get(4..).ok_or_else(unexpected_end)?;
                Payload::Fixed32
            }
            other => return Err(Error::Malformed(format!("illegal wireType {other}"))),
        };
        Ok(Some((number, payload)))
    }

    /// A bare varint, of packed lists; nothing at the end.
    pub(super) fn packed(&mut self) -> Result<Option<u64>, Error> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { unexpected_end() } else { Error::Malformed("integer overflow".to_owned()) })
    }
}

fn unexpected_end() -> Error {
    Error::Malformed("unexpected EOF".to_owned())
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

pub(crate) fn put_varint_field(out: &mut Vec<u8>, number: u8, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

pub(crate) fn put_double_field(out: &mut Vec<u8>, number: u8, value: f64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_bytes_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a length-delimited field whose content `write` appends.
pub(crate) fn put_message_field<E>(
    out: &mut Vec<u8>,
    number: u8,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    put_varint(out, u64::from(number) << 3 | 2);
    let start = out.len();
    // Most messages are short: a length of one byte is already in place for them.
    out.push(0);
    write(out)?;
    let length = out.len() - start - 1;
    if let Ok(short @ ..0x80) = u8::try_from(length) {
        out[start] = short;
        return Ok(());
    }
    let mut varint = Vec::with_capacity(5);
    put_varint(&mut varint, length as u64);
    out.splice(start..=start, varint);
    Ok(())
}
