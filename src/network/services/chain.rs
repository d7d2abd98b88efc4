//! The chains that elements of the maps lead to, and their rules as plain values.
//!
//! A service without affinity needs no chain of its own: one chain for each number of endpoints
//! picks a random one by looking up (address, protocol, port, random number). A service with affinity
//! has a chain and a set of clients for each endpoint.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use super::ServiceTableConfig;
use super::skeleton::{mark_for_masquerade, read_frontend};
use crate::nft::{self, Comparison, Expressions, Verdict};
use crate::protocol::Protocol;

/// What a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Frontend {
    Address(Ipv4Addr, Protocol, u16),
    /// Any address of the node.
    NodePort(Protocol, u16),
}

impl Frontend {
    pub(super) fn kind(self) -> FrontendKind {
        match self {
            Self::Address(..) => FrontendKind::Address,
            Self::NodePort(..) => FrontendKind::NodePort,
        }
    }

    pub(super) fn key(self) -> Vec<u8> {
        match self {
            Self::Address(address, protocol, port) => nft::socket_key(address, protocol, port),
            Self::NodePort(protocol, port) => nft::protocol_port(protocol, port),
        }
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address, protocol, port) => write!(f, "{address}-{}-{port}", protocol.name()),
            Self::NodePort(protocol, port) => write!(f, "{}-{port}", protocol.name()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FrontendKind {
    Address,
    NodePort,
}

/// A list of endpoints of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// The endpoints that its policy names, or all for clients that the policy does not bind.
    Primary,
    /// Those on this node, for external traffic under the policy `Local`.
    Local,
}

/// A service port with affinity, named by its cluster IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sticky(pub(super) Ipv4Addr, pub(super) Protocol, pub(super) u16);

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Frontend::Address(self.0, self.1, self.2))
    }
}

/// A chain; its `Display` is its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chain {
    /// A cluster IP with this many endpoints.
    Internal(u32),
    /// Another address, or a node port, with this many endpoints.
    External(FrontendKind, u32),
    /// The same under the policy `Local`.
    ExternalLocal {
        kind: FrontendKind,
        all: u32,
        local: u32,
    },
    StickyInternal(Sticky),
    StickyExternal(Sticky),
    StickyPick(Sticky, Scope),
    StickyEndpoint(Sticky, SocketAddrV4),
    /// Lets only some sources through to another chain.
    SourceRanges(Frontend),
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internal(n) => write!(f, "internal-{n}"),
            Self::External(FrontendKind::Address, n) => write!(f, "external-{n}"),
            Self::External(FrontendKind::NodePort, n) => write!(f, "node-port-{n}"),
            Self::ExternalLocal { kind: FrontendKind::Address, all, local } => {
                write!(f, "external-local-{local}-of-{all}")
            }
            Self::ExternalLocal { kind: FrontendKind::NodePort, all, local } => {
                write!(f, "node-port-local-{local}-of-{all}")
            }
            Self::StickyInternal(service) => write!(f, "sticky-internal-{service}"),
            Self::StickyExternal(service) => write!(f, "sticky-external-{service}"),
            Self::StickyPick(service, Scope::Primary) => write!(f, "sticky-pick-{service}"),
            Self::StickyPick(service, Scope::Local) => write!(f, "sticky-pick-local-{service}"),
            Self::StickyEndpoint(service, to) => write!(f, "sticky-to-{service}-{}-{}", to.ip(), to.port()),
            Self::SourceRanges(frontend) => write!(f, "sources-{frontend}"),
        }
    }
}

/// The map from a random number to the chain of an endpoint.
pub(super) fn pick_map(service: Sticky, scope: Scope) -> String {
    match scope {
        Scope::Primary => format!("endpoints-{service}"),
        Scope::Local => format!("endpoints-local-{service}"),
    }
}

/// The set of clients that keep to an endpoint.
pub(super) fn clients(service: Sticky, to: SocketAddrV4) -> String {
    format!("clients-{service}-{}-{}", to.ip(), to.port())
}

/// Whom a rule applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Anyone,
    /// Pods of the cluster.
    Pods,
    /// This host itself; masqueraded on the way.
    Host,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Masquerade what does not come from a pod: the endpoint must answer through this node.
    MasqueradeForeign,
    Masquerade,
    /// Translate to a random one of this many endpoints in a map.
    Spread {
        from: From,
        kind: FrontendKind,
        scope: Scope,
        over: u32,
    },
    Goto {
        from: From,
        chain: Chain,
    },
    /// Go to the endpoint's chain when the client is known to keep to it.
    Keep {
        service: Sticky,
        to: SocketAddrV4,
    },
    /// Go to the chain of a random one of this many endpoints.
    Pick {
        service: Sticky,
        scope: Scope,
        over: u32,
    },
    /// Remember that the client keeps to the endpoint.
    Remember {
        service: Sticky,
        to: SocketAddrV4,
    },
    Translate(SocketAddrV4),
    GotoFromNet {
        net: Ipv4Net,
        chain: Chain,
    },
    Drop,
}

impl Rule {
    pub(super) fn expressions(&self, config: &ServiceTableConfig) -> Expressions {
        let start = Expressions::default();
        match *self {
            Self::MasqueradeForeign => {
                mark_for_masquerade(start.source_in(0, config.cluster_cidr, Comparison::NotEqual))
            }
            Self::Masquerade => mark_for_masquerade(start),
            Self::Spread { from, kind, scope, over } => spread(limit(start, from, config), kind, scope, over),
            Self::Goto { from, chain } => limit(start, from, config).verdict(&Verdict::Goto(chain.to_string())),
            Self::Keep { service, to } => start
                .source(0)
                .found_in(&clients(service, to), 0)
                .verdict(&Verdict::Goto(Chain::StickyEndpoint(service, to).to_string())),
            Self::Pick { service, scope, over } => start.random(0, over).verdict_map(&pick_map(service, scope), 0),
            Self::Remember { service, to } => start.source(0).update(&clients(service, to), 0),
            Self::Translate(to) => {
                start.immediate(0, &to.ip().octets()).immediate(1, &to.port().to_be_bytes()).translate_destination(0, 1)
            }
            Self::GotoFromNet { net, chain } => {
                start.source_in(0, net, Comparison::Equal).verdict(&Verdict::Goto(chain.to_string()))
            }
            Self::Drop => start.verdict(&Verdict::Drop),
        }
    }
}

fn limit(start: Expressions, from: From, config: &ServiceTableConfig) -> Expressions {
    match from {
        From::Anyone => start,
        From::Pods => start.source_in(0, config.cluster_cidr, Comparison::Equal),
        From::Host => mark_for_masquerade(start.source_is_local(0)),
    }
}

fn spread(start: Expressions, kind: FrontendKind, scope: Scope, over: u32) -> Expressions {
    let (read, next) = read_frontend(start, kind);
    read.random(next, over).map(endpoint_map(kind, scope), 0, 0).translate_destination(0, 1)
}

/// The map from a frontend and a number to an endpoint.
pub(super) fn endpoint_map(kind: FrontendKind, scope: Scope) -> &'static str {
    match (kind, scope) {
        (FrontendKind::Address, Scope::Primary) => "endpoints",
        (FrontendKind::Address, Scope::Local) => "local-endpoints",
        (FrontendKind::NodePort, Scope::Primary) => "node-port-endpoints",
        (FrontendKind::NodePort, Scope::Local) => "node-port-local-endpoints",
    }
}
