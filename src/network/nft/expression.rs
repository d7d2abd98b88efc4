//! The expressions that rules are made of.
//!
//! Values travel in four-byte registers. A rule reads packet fields into registers, compares them,
//! or looks a run of registers up in a set. Registers are numbered from 0 here; the number of the
//! first is [`REGISTER`].

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::netlink::Attributes;

/// `NFT_REG32_00`.
const REGISTER: u32 = 8;
/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;
/// `RTN_LOCAL`, an address of this host in a route look-up.
const LOCAL_ADDRESS: u32 = 2;
/// `IPS_DST_NAT`.
pub(crate) const CONNECTION_STATUS_DNAT: u32 = 1 << 5;
/// The connection states invalid and untracked, as bits: such a packet has no status either, and a rule
/// that asks for one does not match it.
pub(crate) const NO_CONNECTION: u32 = 1 | 64;
/// The connection state new.
pub(crate) const FIRST_PACKET: u32 = 8;
/// All states but established and related.
pub(crate) const NEW_CONNECTION: u32 = FIRST_PACKET | NO_CONNECTION;

const NAME: u16 = 1;
const DATA: u16 = 2;
const LIST_ITEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const FAMILY_IPV4: u32 = 2;

/// What a rule or an element of a verdict map decides. Accepting is the policy of our base chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Accept,
    Jump(String),
    Goto(String),
}

impl Verdict {
    pub(super) fn encode(&self, a: &mut Attributes) {
        let (code, chain): (i32, Option<&str>) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
        };
        a.nest(DATA_VERDICT, |a| {
            a.bytes(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                a.string(2, chain);
            }
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal = 0,
    NotEqual = 1,
}

/// `NFT_META_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetaField {
    Mark = 3,
    InputName = 6,
    OutputName = 7,
    TransportProtocol = 16,
}

/// `NFT_CT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionField {
    State = 0,
    Status = 2,
}

/// The expressions of one rule, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expressions(Attributes);

impl Expressions {
    fn add(mut self, name: &str, body: impl FnOnce(&mut Attributes)) -> Self {
        self.0.nest(LIST_ITEM, |a| {
            a.string(NAME, name);
            a.nest(DATA, body);
        });
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn payload(self, register: u32, base: u32, offset: u32, length: u32) -> Self {
        self.add("payload", |a| {
            a.net_u32(1, REGISTER + register);
            a.net_u32(2, base);
            a.net_u32(3, offset);
            a.net_u32(4, length);
        })
    }

    pub(crate) fn source(self, register: u32) -> Self {
        self.payload(register, NETWORK_HEADER, 12, 4)
    }

    pub(crate) fn destination(self, register: u32) -> Self {
        self.payload(register, NETWORK_HEADER, 16, 4)
    }

    pub(crate) fn destination_port(self, register: u32) -> Self {
        self.payload(register, TRANSPORT_HEADER, 2, 2)
    }

    pub(crate) fn meta(self, register: u32, field: MetaField) -> Self {
        self.add("meta", |a| {
            a.net_u32(1, REGISTER + register);
            a.net_u32(2, field as u32);
        })
    }

    pub(crate) fn set_meta(self, register: u32, field: MetaField) -> Self {
        self.add("meta", |a| {
            a.net_u32(2, field as u32);
            a.net_u32(3, REGISTER + register);
        })
    }

    pub(crate) fn connection(self, register: u32, field: ConnectionField) -> Self {
        self.add("ct", |a| {
            a.net_u32(1, REGISTER + register);
            a.net_u32(2, field as u32);
        })
    }

    pub(crate) fn compare(self, register: u32, comparison: Comparison, value: &[u8]) -> Self {
        self.add("cmp", |a| {
            a.net_u32(1, REGISTER + register);
            a.net_u32(2, comparison as u32);
            a.nest(3, |a| a.bytes(DATA_VALUE, value));
        })
    }

    /// Keeps the bits of `mask`, then flips those of `flip`.
    pub(crate) fn mask(self, register: u32, mask: [u8; 4], flip: [u8; 4]) -> Self {
        self.add("bitwise", |a| {
            a.net_u32(1, REGISTER + register);
            a.net_u32(2, REGISTER + register);
            a.net_u32(3, 4);
            a.nest(4, |a| a.bytes(DATA_VALUE, &mask));
            a.nest(5, |a| a.bytes(DATA_VALUE, &flip));
        })
    }

    pub(crate) fn immediate(self, register: u32, value: &[u8]) -> Self {
        self.add("immediate", |a| {
            a.net_u32(1, REGISTER + register);
            a.nest(2, |a| a.bytes(DATA_VALUE, value));
        })
    }

    pub(crate) fn verdict(self, verdict: &Verdict) -> Self {
        self.add("immediate", |a| {
            a.net_u32(1, VERDICT_REGISTER);
            a.nest(2, |a| verdict.encode(a));
        })
    }

    /// Goes on when the registers are in the set.
    pub(crate) fn found_in(self, set: &str, register: u32) -> Self {
        self.add("lookup", |a| {
            a.string(1, set);
            a.net_u32(2, REGISTER + register);
        })
    }

    /// Goes on with the mapped value in `to` when the registers are in the map.
    pub(crate) fn map(self, map: &str, register: u32, to: u32) -> Self {
        self.add("lookup", |a| {
            a.string(1, map);
            a.net_u32(2, REGISTER + register);
            a.net_u32(3, REGISTER + to);
        })
    }

    /// Takes the mapped verdict when the registers are in the map.
    pub(crate) fn verdict_map(self, map: &str, register: u32) -> Self {
        self.add("lookup", |a| {
            a.string(1, map);
            a.net_u32(2, REGISTER + register);
            a.net_u32(3, VERDICT_REGISTER);
        })
    }

    /// A random number below `bound`.
    pub(crate) fn random(self, register: u32, bound: u32) -> Self {
        self.add("numgen", |a| {
            a.net_u32(1, REGISTER + register);
            a.net_u32(2, bound);
            a.net_u32(3, 1);
            a.net_u32(4, 0);
        })
    }

    /// Translates the destination to the address and port in these registers.
    pub(crate) fn translate_destination(self, address: u32, port: u32) -> Self {
        self.add("nat", |a| {
            a.net_u32(1, 1);
            a.net_u32(2, FAMILY_IPV4);
            a.net_u32(3, REGISTER + address);
            a.net_u32(5, REGISTER + port);
        })
    }

    /// Translates the source to the address of the outgoing link, with random ports: two flows
    /// that race for one port would lose a packet.
    pub(crate) fn masquerade(self) -> Self {
        const FULLY_RANDOM: u32 = 1 << 4;
        self.add("masq", |a| a.net_u32(1, FULLY_RANDOM))
    }

    pub(crate) fn reject_with_reset(self) -> Self {
        self.add("reject", |a| {
            a.net_u32(1, 1);
            a.bytes(2, &[0]);
        })
    }

    pub(crate) fn reject_as_unreachable(self) -> Self {
        const PORT_UNREACHABLE: u8 = 3;
        self.add("reject", |a| {
            a.net_u32(1, 0);
            a.bytes(2, &[PORT_UNREACHABLE]);
        })
    }

    /// Adds the key to a set that forgets, or renews its time.
    pub(crate) fn update(self, set: &str, register: u32) -> Self {
        const UPDATE: u32 = 1;
        self.add("dynset", |a| {
            a.string(1, set);
            a.net_u32(3, UPDATE);
            a.net_u32(4, REGISTER + register);
        })
    }

    fn route_type(self, register: u32, of: u32) -> Self {
        const RESULT_TYPE: u32 = 3;
        self.add("fib", |a| {
            a.net_u32(1, REGISTER + register);
            a.net_u32(2, RESULT_TYPE);
            a.net_u32(3, of);
        })
    }

    /// Goes on when the packet is for an address of this host.
    pub(crate) fn destination_is_local(self, register: u32) -> Self {
        self.route_type(register, 2).compare(register, Comparison::Equal, &LOCAL_ADDRESS.to_ne_bytes())
    }

    /// Goes on when the packet is from an address of this host.
    pub(crate) fn source_is_local(self, register: u32) -> Self {
        self.route_type(register, 1).compare(register, Comparison::Equal, &LOCAL_ADDRESS.to_ne_bytes())
    }

    pub(crate) fn source_in(self, register: u32, net: Ipv4Net, comparison: Comparison) -> Self {
        self.source(register).in_net(register, net, comparison)
    }

    pub(crate) fn destination_in(self, register: u32, net: Ipv4Net, comparison: Comparison) -> Self {
        self.destination(register).in_net(register, net, comparison)
    }

    fn in_net(self, register: u32, net: Ipv4Net, comparison: Comparison) -> Self {
        let masked = if net.prefix_len() < 32 { self.mask(register, net.netmask().octets(), [0; 4]) } else { self };
        masked.compare(register, comparison, &net.network().octets())
    }

    pub(crate) fn destination_is(self, register: u32, address: Ipv4Addr, comparison: Comparison) -> Self {
        self.destination(register).compare(register, comparison, &address.octets())
    }

    /// Goes on when the packet came in, or leaves, by the named link, or by any other.
    pub(crate) fn link_is(self, register: u32, field: MetaField, comparison: Comparison, name: &str) -> Self {
        let mut padded = [0; 16];
        let length = name.len().min(padded.len() - 1);
        padded[..length].copy_from_slice(&name.as_bytes()[..length]);
        self.meta(register, field).compare(register, comparison, &padded)
    }

    /// The same for all links whose names begin so.
    pub(crate) fn link_starts_with(
        self,
        register: u32,
        field: MetaField,
        comparison: Comparison,
        prefix: &str,
    ) -> Self {
        self.meta(register, field).compare(register, comparison, prefix.as_bytes())
    }

    /// Goes on when one of the bits is set in a field of the connection.
    pub(crate) fn connection_has(self, register: u32, field: ConnectionField, bits: u32) -> Self {
        self.connection_bits(register, field, bits, Comparison::NotEqual)
    }

    /// Goes on when none of the bits is set.
    pub(crate) fn connection_lacks(self, register: u32, field: ConnectionField, bits: u32) -> Self {
        self.connection_bits(register, field, bits, Comparison::Equal)
    }

    fn connection_bits(self, register: u32, field: ConnectionField, bits: u32, to_zero: Comparison) -> Self {
        self.connection(register, field).mask(register, bits.to_ne_bytes(), [0; 4]).compare(register, to_zero, &[0; 4])
    }
}
