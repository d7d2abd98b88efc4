//! From service ports to rules: a pure function.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::chain::{Chain, From, Frontend, FrontendKind, Rule, Scope, Sticky};
use super::desired::{ServicePort, TrafficPolicy};
use super::ruleset::{Ruleset, Slot, Target};

/// The rules of these ports. The DNS address is answered on this host and gets none.
pub(super) fn plan(ports: &[ServicePort], cluster_dns: Option<Ipv4Addr>) -> Ruleset {
    let mut rules = Ruleset::default();
    let of_port = |port| frontends(port, cluster_dns).into_iter().map(move |frontend| (port, frontend));
    let mut all: Vec<_> = ports.iter().flat_map(of_port).collect();
    // The addresses that services were given come before those that they claim: `externalIPs` may name any.
    all.sort_by_key(|(_, (_, access))| *access != Access::Internal);
    for (port, (frontend, access)) in all {
        if !rules.targets.contains_key(&frontend) && !rules.unserved.contains_key(&frontend) {
            rules.serve(port, frontend, access);
        }
    }
    rules
}

/// Every frontend of a port, whether or not it has endpoints.
pub(super) fn frontends(port: &ServicePort, cluster_dns: Option<Ipv4Addr>) -> Vec<(Frontend, Access)> {
    let at = |ip: Ipv4Addr| Frontend::Address(ip, port.protocol, port.port);
    let mut frontends = Vec::new();
    frontends.push((at(port.cluster_ip), Access::Internal));
    // The load balancer's addresses come first: they carry the stricter check of sources.
    frontends.extend(port.load_balancer_ips.iter().map(|ip| (at(*ip), Access::LoadBalancer)));
    frontends.extend(port.external_ips.iter().map(|ip| (at(*ip), Access::External)));
    frontends.extend(port.node_port.map(|number| (Frontend::NodePort(port.protocol, number), Access::External)));
    frontends.retain(|(frontend, _)| match frontend {
        Frontend::Address(ip, ..) => Some(*ip) != cluster_dns,
        Frontend::NodePort(..) => true,
    });
    frontends
}

/// Which of a service's policies a frontend is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Internal,
    External,
    /// External, and checked against the source ranges.
    LoadBalancer,
}

/// A service port's endpoints as one frontend sees them.
struct View<'a> {
    all: &'a [SocketAddrV4],
    /// Present under the policy `Local` for external traffic.
    local: Option<&'a [SocketAddrV4]>,
}

impl Ruleset {
    fn serve(&mut self, port: &ServicePort, frontend: Frontend, access: Access) {
        let Some(target) = self.target(port, frontend, access) else {
            self.unserved.insert(frontend, ());
            return;
        };
        let target = match access {
            Access::LoadBalancer if !port.source_ranges.is_empty() => self.limit_sources(port, frontend, target),
            Access::LoadBalancer | Access::Internal | Access::External => target,
        };
        self.targets.insert(frontend, target);
    }

    /// Where a frontend leads; absent when there is no endpoint anywhere.
    fn target(&mut self, port: &ServicePort, frontend: Frontend, access: Access) -> Option<Target> {
        if port.endpoints.is_empty() && port.local_endpoints.is_empty() {
            return None;
        }
        let view = match access {
            Access::Internal => match port.internal_policy {
                TrafficPolicy::Cluster => View { all: &port.endpoints, local: None },
                TrafficPolicy::Local => View { all: &port.local_endpoints, local: None },
            },
            Access::External | Access::LoadBalancer => match port.external_policy {
                TrafficPolicy::Cluster => View { all: &port.endpoints, local: None },
                TrafficPolicy::Local => View { all: &port.endpoints, local: Some(&port.local_endpoints) },
            },
        };
        // There are endpoints, but the policy keeps this node from using them.
        if view.all.is_empty() && view.local.is_none_or(<[_]>::is_empty) {
            return Some(Target::Drop);
        }
        let chain = match port.affinity {
            None => self.spread(frontend, access, &view),
            Some(timeout) => self.stick(port, access, timeout),
        };
        Some(Target::Chain(chain))
    }

    fn spread(&mut self, frontend: Frontend, access: Access, view: &View<'_>) -> Chain {
        let all = self.fill(frontend, Scope::Primary, view.all);
        let kind = frontend.kind();
        let chain = match (access, view.local) {
            (Access::Internal, _) => Chain::Internal(all),
            (Access::External | Access::LoadBalancer, None) => Chain::External(kind, all),
            (Access::External | Access::LoadBalancer, Some(local)) => {
                let local = self.fill(frontend, Scope::Local, local);
                Chain::ExternalLocal { kind, all, local }
            }
        };
        self.chains.entry(chain).or_insert_with(|| spread_rules(chain));
        chain
    }

    /// Puts endpoints into a map; gives their number.
    fn fill(&mut self, frontend: Frontend, scope: Scope, endpoints: &[SocketAddrV4]) -> u32 {
        let mut count = 0;
        for (number, to) in (0..).zip(endpoints) {
            self.slots.insert(Slot { frontend, scope, number }, *to);
            count = number + 1;
        }
        count
    }

    /// The chains of a port with affinity; all its frontends share the clients' choice.
    fn stick(&mut self, port: &ServicePort, access: Access, timeout: Duration) -> Chain {
        let service = Sticky(port.cluster_ip, port.protocol, port.port);
        let all = self.pick(service, Scope::Primary, &port.endpoints, timeout);
        let uses_local = [port.internal_policy, port.external_policy].contains(&TrafficPolicy::Local);
        let local_endpoints = if uses_local { port.local_endpoints.as_slice() } else { &[] };
        let local = self.pick(service, Scope::Local, local_endpoints, timeout);
        let go = |from, chain: Option<Chain>| chain.map_or(Rule::Drop, |chain| Rule::Goto { from, chain });
        let (chain, rules) = match access {
            Access::Internal => {
                let pick = match port.internal_policy {
                    TrafficPolicy::Cluster => all,
                    TrafficPolicy::Local => local,
                };
                (Chain::StickyInternal(service), vec![Rule::MasqueradeForeign, go(From::Anyone, pick)])
            }
            Access::External | Access::LoadBalancer => {
                let rules = match port.external_policy {
                    TrafficPolicy::Cluster => vec![Rule::Masquerade, go(From::Anyone, all)],
                    TrafficPolicy::Local => all
                        .iter()
                        .flat_map(|chain| [From::Pods, From::Host].map(|from| Rule::Goto { from, chain: *chain }))
                        .chain([go(From::Anyone, local)])
                        .collect(),
                };
                (Chain::StickyExternal(service), rules)
            }
        };
        self.chains.insert(chain, rules);
        chain
    }

    /// The chain that picks one of these endpoints for a client and remembers it.
    fn pick(&mut self, service: Sticky, scope: Scope, endpoints: &[SocketAddrV4], timeout: Duration) -> Option<Chain> {
        let over = u32::try_from(endpoints.len()).ok().filter(|count| *count > 0)?;
        for to in endpoints.iter().copied() {
            self.clients.insert((service, to), timeout);
            let rules = vec![Rule::Remember { service, to }, Rule::Translate(to)];
            self.chains.insert(Chain::StickyEndpoint(service, to), rules);
        }
        let mut rules: Vec<_> = endpoints.iter().map(|to| Rule::Keep { service, to: *to }).collect();
        rules.push(Rule::Pick { service, scope, over });
        self.picks.insert((service, scope), endpoints.to_vec());
        let chain = Chain::StickyPick(service, scope);
        self.chains.insert(chain, rules);
        Some(chain)
    }

    fn limit_sources(&mut self, port: &ServicePort, frontend: Frontend, target: Target) -> Target {
        let Target::Chain(then) = target else { return target };
        let allow = |net: &ipnet::Ipv4Net| Rule::GotoFromNet { net: *net, chain: then };
        let rules = port.source_ranges.iter().map(allow).chain([Rule::Drop]).collect();
        let chain = Chain::SourceRanges(frontend);
        self.chains.insert(chain, rules);
        Target::Chain(chain)
    }
}

fn spread_rules(chain: Chain) -> Vec<Rule> {
    let spread = |from, kind, scope, over| Rule::Spread { from, kind, scope, over };
    match chain {
        Chain::Internal(all) => {
            let any = spread(From::Anyone, FrontendKind::Address, Scope::Primary, all);
            vec![Rule::MasqueradeForeign, any]
        }
        Chain::External(kind, all) => {
            vec![Rule::Masquerade, spread(From::Anyone, kind, Scope::Primary, all)]
        }
        // Pods and the host itself are inside the cluster, whatever address they use.
        Chain::ExternalLocal { kind, all, local } => {
            let inside = [From::Pods, From::Host].map(|from| spread(from, kind, Scope::Primary, all));
            let outside = if local > 0 { spread(From::Anyone, kind, Scope::Local, local) } else { Rule::Drop };
            let inside = inside.into_iter().filter(|_| all > 0);
            inside.chain([outside]).collect()
        }
        Chain::StickyInternal(_)
        | Chain::StickyExternal(_)
        | Chain::StickyPick(..)
        | Chain::StickyEndpoint(..)
        | Chain::SourceRanges(_) => Vec::new(),
    }
}
