//! Attributes: length, type, value, padded to four bytes, nested at will.

/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The bits of the type field that are the type.
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 4;

/// Attributes being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    /// Whatever stands in front of the attributes: a fixed header, or attributes written before.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.0.extend_from_slice(&length(HEADER + value.len()).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// A number in the host's order, as rtnetlink has them.
    pub(crate) fn host_u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// A number in the network's order, as nf_tables has them.
    pub(crate) fn net_u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A number in the network's order.
    pub(crate) fn net_u64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A string with its closing zero.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; HEADER]);
        body(self);
        let size = length(self.0.len() - start).to_ne_bytes();
        self.0[start..start + 2].copy_from_slice(&size);
        self.0[start + 2..start + HEADER].copy_from_slice(&(kind | NESTED).to_ne_bytes());
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("invariant: lists are cut into messages far below 64 KiB, all else is small")
}

/// The attributes of a received message, as type and value; stops at what is malformed.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = bytes.split_first_chunk::<HEADER>()?;
        let size = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = bytes.get(HEADER..size)?;
        bytes = bytes.get(size.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK, value))
    })
}

/// The value at the end of a path of nested attributes.
pub(crate) fn find<'a>(bytes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, &kind| attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_attributes_are_found_by_their_path() {
        let mut a = Attributes::default();
        a.string(1, "eth0");
        a.nest(2, |a| {
            a.net_u32(7, 5);
            a.nest(3, |a| a.bytes(4, &[9]));
        });
        assert_eq!(find(a.as_bytes(), &[1]), Some(&b"eth0\0"[..]));
        assert_eq!(find(a.as_bytes(), &[2, 3, 4]), Some(&[9][..]));
        assert_eq!(find(a.as_bytes(), &[2, 9]), None);
    }

    #[test]
    fn malformed_attributes_end_the_iteration() {
        for bytes in [&[1u8, 0][..], &[3, 0, 1, 0], &[200, 0, 1, 0, 0]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }
}
