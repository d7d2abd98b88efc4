//! The cluster's DNS server, inside every node's process: names of Services and pods from memory,
//! everything else from the servers that the node itself uses. What CoreDNS does for kubeadm.
//!
//! `zone` keeps the few fields of Services, EndpointSlices and Namespaces that names need, `answer`
//! is the DNS specification (version 1.1.0) as a pure function over it, `upstream` forwards and
//! caches, `handler` ties them to hickory's server, `run` feeds the zone and owns the sockets.

mod answer;
mod handler;
mod question;
mod run;
mod tcp;
mod upstream;
mod zone;

pub use run::{DnsConfig, Error, run};
