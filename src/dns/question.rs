//! What a name below the cluster's domain asks for.

/// The kinds of names in the specification; parts are in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question<'a> {
    Domain,
    DnsVersion,
    /// The name that the domain's SOA and NS records point to.
    NameServer,
    /// A name that exists only because longer ones do.
    Between,
    Namespace(&'a str),
    Service {
        namespace: &'a str,
        service: &'a str,
    },
    Endpoint {
        namespace: &'a str,
        service: &'a str,
        host: &'a str,
    },
    Port {
        namespace: &'a str,
        service: &'a str,
        port: &'a str,
        protocol: &'a str,
    },
    Pod {
        namespace: &'a str,
        pod: &'a str,
    },
    Unknown,
}

impl<'a> Question<'a> {
    /// From the labels in front of the domain, in lower case.
    pub(crate) fn parse(labels: &[&'a str]) -> Self {
        match *labels {
            [] => Self::Domain,
            ["dns-version"] => Self::DnsVersion,
            ["ns", "dns"] => Self::NameServer,
            ["dns" | "svc" | "pod"] => Self::Between,
            [namespace, "svc" | "pod"] => Self::Namespace(namespace),
            [pod, namespace, "pod"] => Self::Pod { namespace, pod },
            [service, namespace, "svc"] => Self::Service { namespace, service },
            [host, service, namespace, "svc"] => Self::Endpoint { namespace, service, host },
            [port, protocol, service, namespace, "svc"] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => Self::Port { namespace, service, port, protocol },
                (None, _) | (_, None) => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}
