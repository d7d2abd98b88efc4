//! Sets, maps and their elements.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::Verdict;
use crate::netlink::Attributes;
use crate::protocol::Protocol;

/// `NFT_DATA_VERDICT`, the value type of a verdict map.
const TYPE_VERDICT: u32 = 0xffff_ff00;
const FLAG_MAP: u32 = 0x8;
const FLAG_TIMEOUT: u32 = 0x10;
const FLAG_DYNAMIC: u32 = 0x20;
const FLAG_CONCATENATED: u32 = 0x80;

const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_VALUE_TYPE: u16 = 6;
const SET_VALUE_LENGTH: u16 = 7;
const SET_DESCRIPTION: u16 = 9;
const SET_TIMEOUT: u16 = 11;
const DESCRIPTION_CONCATENATION: u16 = 2;
const FIELD_LENGTH: u16 = 1;
const LIST_ITEM: u16 = 1;

const ELEMENT_KEY: u16 = 1;
const ELEMENT_VALUE: u16 = 2;
const DATA_VALUE: u16 = 1;

/// One part of a key, with the number that `nft` has for its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Ipv4 = 7,
    Protocol = 12,
    Port = 13,
    /// A number in the host's order.
    Mark = 19,
}

impl Field {
    fn length(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Mark => 4,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }

    /// `nft` packs the types of a concatenation into six bits each.
    fn concatenated(fields: &[Self]) -> u32 {
        fields.iter().fold(0, |packed, &field| (packed << 6) | field as u32)
    }
}

/// What a set maps its keys to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Nothing,
    Verdict,
    /// An address and a port to translate to.
    Socket,
}

/// The declaration of a set or map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: &'a [Field],
    pub(crate) value: Value,
    /// Rules add elements, which leave after this time without use.
    pub(crate) timeout: Option<Duration>,
}

impl Set<'_> {
    /// Each part of a key takes whole registers.
    fn key_length(&self) -> u32 {
        self.key.iter().map(|field| field.length().next_multiple_of(4)).sum()
    }

    pub(super) fn encode(&self, a: &mut Attributes) {
        let mut flags = 0;
        if self.key.len() > 1 {
            flags |= FLAG_CONCATENATED;
        }
        if self.value != Value::Nothing {
            flags |= FLAG_MAP;
        }
        if self.timeout.is_some() {
            flags |= FLAG_TIMEOUT | FLAG_DYNAMIC;
        }
        a.net_u32(SET_FLAGS, flags);
        a.net_u32(SET_KEY_TYPE, Field::concatenated(self.key));
        a.net_u32(SET_KEY_LENGTH, self.key_length());
        match self.value {
            Value::Nothing => (),
            Value::Verdict => a.net_u32(SET_VALUE_TYPE, TYPE_VERDICT),
            Value::Socket => {
                a.net_u32(SET_VALUE_TYPE, Field::concatenated(&[Field::Ipv4, Field::Port]));
                a.net_u32(SET_VALUE_LENGTH, 8);
            }
        }
        if self.key.len() > 1 {
            a.nest(SET_DESCRIPTION, |a| {
                a.nest(DESCRIPTION_CONCATENATION, |a| {
                    for field in self.key {
                        a.nest(LIST_ITEM, |a| a.net_u32(FIELD_LENGTH, field.length()));
                    }
                });
            });
        }
        if let Some(timeout) = self.timeout {
            a.net_u64(SET_TIMEOUT, u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        }
    }
}

/// One element: its key in register layout, and what it maps to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    Key(Vec<u8>),
    Verdict(Vec<u8>, Verdict),
    Socket(Vec<u8>, SocketAddrV4),
}

impl Element {
    pub(super) fn encode(&self, a: &mut Attributes) {
        let (Self::Key(key) | Self::Verdict(key, _) | Self::Socket(key, _)) = self;
        a.nest(LIST_ITEM, |a| {
            a.nest(ELEMENT_KEY, |a| a.bytes(DATA_VALUE, key));
            match self {
                Self::Key(_) => (),
                Self::Verdict(_, verdict) => a.nest(ELEMENT_VALUE, |a| verdict.encode(a)),
                Self::Socket(_, to) => a.nest(ELEMENT_VALUE, |a| a.bytes(DATA_VALUE, &socket(*to))),
            }
        });
    }
}

fn socket(to: SocketAddrV4) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&to.ip().octets());
    bytes[4..6].copy_from_slice(&to.port().to_be_bytes());
    bytes
}

/// The key `inet_proto . inet_service`.
pub(crate) fn protocol_port(protocol: Protocol, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![protocol.number(), 0, 0, 0, high, low, 0, 0]
}

/// The key `ipv4_addr . inet_proto . inet_service`.
pub(crate) fn socket_key(address: Ipv4Addr, protocol: Protocol, port: u16) -> Vec<u8> {
    let mut key = address.octets().to_vec();
    key.extend(protocol_port(protocol, port));
    key
}

/// The key `mark`.
pub(crate) fn host_number(number: u32) -> Vec<u8> {
    number.to_ne_bytes().to_vec()
}
