//! A pod's `/etc/resolv.conf` and `/etc/hosts`. Pure text from the pod and the node's own files.

use std::fmt::Write as _;
use std::net::IpAddr;

use api::k8s_openapi::api::core::v1::{HostAlias, Pod, PodDNSConfig};

use crate::pod::PodExt;

/// glibc reads no more name servers than this.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
const MAX_SEARCH_PATH: usize = 253;
/// The longest name that a kernel takes as a host name.
const MAX_HOSTNAME: usize = 63;
const MAX_KERNEL_HOSTNAME: usize = 64;

/// The parts of a resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) nameservers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

impl ResolvConf {
    pub(crate) fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => out.nameservers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => out.searches = words.map(|w| w.trim_end_matches('.').to_owned()).collect(),
                Some("options") => out.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        out.searches.retain(|s| !s.is_empty());
        out
    }

    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        if !self.searches.is_empty() {
            let _ = writeln!(out, "search {}", self.searches.join(" "));
        }
        for server in &self.nameservers {
            let _ = writeln!(out, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let _ = writeln!(out, "options {}", self.options.join(" "));
        }
        out
    }

    fn merge(&mut self, config: &PodDNSConfig) {
        let add = |list: &mut Vec<String>, more: &Option<Vec<String>>| {
            for item in more.iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        };
        add(&mut self.nameservers, &config.nameservers);
        add(&mut self.searches, &config.searches);
        for option in config.options.iter().flatten() {
            let Some(name) = option.name.as_deref() else { continue };
            self.options.retain(|o| o.split(':').next() != Some(name));
            self.options.push(match option.value.as_deref().filter(|v| !v.is_empty()) {
                Some(value) => format!("{name}:{value}"),
                None => name.to_owned(),
            });
        }
    }

    /// Cuts what resolvers would not read. Returns upstream's word on each list that was cut.
    fn limit(&mut self) -> Vec<String> {
        let mut cut = Vec::new();
        if self.nameservers.len() > MAX_NAMESERVERS {
            self.nameservers.truncate(MAX_NAMESERVERS);
            cut.push(format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, \
                 the applied nameserver line is: {}",
                self.nameservers.join(" ")
            ));
        }
        let before = self.searches.len();
        self.searches.truncate(MAX_SEARCHES);
        // The line is cut from its end; a path that some resolvers abort at is left out.
        let mut chars = 0;
        self.searches.retain(|s| {
            chars += s.len() + 1;
            chars <= MAX_SEARCH_CHARS + 1
        });
        self.searches.retain(|s| s.len() <= MAX_SEARCH_PATH);
        if self.searches.len() < before {
            cut.push(format!(
                "Search Line limits were exceeded, some search paths have been omitted, \
                 the applied search line is: {}",
                self.searches.join(" ")
            ));
        }
        cut
    }
}

/// The resolver settings of a pod, and the warnings of what was left out; `node` is what the node's own
/// resolv.conf says.
pub(crate) fn resolv_conf(pod: &Pod, servers: &[IpAddr], domain: &str, node: &ResolvConf) -> (ResolvConf, Vec<String>) {
    let spec = pod.spec();
    let cluster_first = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => {
            let mut own = ResolvConf::default();
            if let Some(config) = &spec.dns_config {
                own.merge(config);
            }
            let cut = own.limit();
            return (own, cut);
        }
        "ClusterFirst" => !pod.host_network(),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut out = if cluster_first && !servers.is_empty() {
        let mut searches =
            vec![format!("{}.svc.{domain}", pod.namespace()), format!("svc.{domain}"), domain.to_owned()];
        for search in &node.searches {
            if !searches.contains(search) {
                searches.push(search.clone());
            }
        }
        ResolvConf {
            nameservers: servers.iter().map(IpAddr::to_string).collect(),
            searches,
            options: vec!["ndots:5".to_owned()],
        }
    } else {
        node.clone()
    };
    if let Some(config) = &spec.dns_config {
        out.merge(config);
    }
    let cut = out.limit();
    (out, cut)
}

/// The name that the pod's kernel knows: the whole one if the pod asks for that.
///
/// # Errors
/// The kernel's names are short.
pub(crate) fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    let (host, domain) = hostname(pod, cluster_domain);
    let Some(domain) = domain.filter(|_| pod.spec().set_hostname_as_fqdn == Some(true)) else { return Ok(host) };
    let whole = format!("{host}.{domain}");
    if whole.len() > MAX_KERNEL_HOSTNAME {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {whole} is too long \
             ({MAX_KERNEL_HOSTNAME} characters is the max, {} characters requested)",
            whole.len()
        ));
    }
    Ok(whole)
}

/// The host name inside the pod, and the domain that completes it.
pub(crate) fn hostname(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    let spec = pod.spec();
    if let Some(own) = spec.hostname_override.as_deref().filter(|h| !h.is_empty()) {
        return (own.to_owned(), None);
    }
    let host = spec.hostname.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| {
        let name = pod.name();
        let cut = name.get(..MAX_HOSTNAME).unwrap_or(name);
        cut.trim_end_matches(['-', '.']).to_owned()
    });
    let domain = spec
        .subdomain
        .as_deref()
        .filter(|s| !s.is_empty())
        .map(|s| format!("{s}.{}.svc.{cluster_domain}", pod.namespace()));
    (host, domain)
}

/// The managed hosts file of a pod with a network of its own.
pub(crate) fn hosts_file(pod: &Pod, ips: &[IpAddr], cluster_domain: &str) -> String {
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let (host, domain) = hostname(pod, cluster_domain);
    for ip in ips {
        let _ = match &domain {
            Some(domain) => writeln!(out, "{ip}\t{host}.{domain}\t{host}"),
            None => writeln!(out, "{ip}\t{host}"),
        };
    }
    add_aliases(&mut out, pod.spec().host_aliases.as_deref().unwrap_or_default());
    out
}

/// The managed hosts file of a pod on the node's network: the node's, with the pod's aliases.
pub(crate) fn host_network_hosts_file(pod: &Pod, node_file: &str) -> String {
    let mut out = format!("# Kubernetes-managed hosts file (host network).\n{node_file}");
    add_aliases(&mut out, pod.spec().host_aliases.as_deref().unwrap_or_default());
    out
}

fn add_aliases(out: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    out.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(out, "{}\t{names}", alias.ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"metadata": {"name": "web-0", "namespace": "prod"}, "spec": spec})).unwrap()
    }

    #[test]
    fn resolv_conf_by_policy() {
        let node = ResolvConf::parse("# x\nnameserver 192.168.1.1\nsearch home.lan.\noptions edns0\n");
        let dns = ["10.96.0.10".parse().unwrap()];
        let cluster = "search prod.svc.cluster.local svc.cluster.local cluster.local home.lan\nnameserver 10.96.0.10\noptions ndots:5\n";
        let host = "search home.lan\nnameserver 192.168.1.1\noptions edns0\n";
        for (spec, expected) in [
            (json!({}), cluster),
            (json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), host),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), cluster),
            (json!({"dnsPolicy": "Default"}), host),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a.b"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
                "search a.b\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
            ),
            (
                json!({"dnsConfig": {"nameservers": ["1.1.1.1", "10.96.0.10"], "options": [{"name": "ndots", "value": "2"}]}}),
                "search prod.svc.cluster.local svc.cluster.local cluster.local home.lan\nnameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:2\n",
            ),
        ] {
            let (got, cut) = resolv_conf(&pod(spec.clone()), &dns, "cluster.local", &node);
            assert_eq!((got.render().as_str(), cut), (expected, vec![]), "{spec}");
        }
    }

    #[test]
    fn what_resolvers_would_not_read_is_left_out_with_a_warning() {
        let make = |config: serde_json::Value| {
            let pod = pod(json!({"dnsPolicy": "None", "dnsConfig": config}));
            resolv_conf(&pod, &[], "cluster.local", &ResolvConf::default())
        };
        let (got, cut) = make(json!({"nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"]}));
        assert_eq!(got.nameservers.len(), 3);
        assert_eq!(
            cut,
            ["Nameserver limits were exceeded, some nameservers have been omitted, \
              the applied nameserver line is: 1.1.1.1 2.2.2.2 3.3.3.3"]
        );
        let many: Vec<String> = (0..33).map(|n| format!("s{n}")).collect();
        let (got, cut) = make(json!({"nameservers": ["1.1.1.1"], "searches": many}));
        assert_eq!((got.searches.len(), cut.len()), (32, 1));
        assert!(cut[0].ends_with(" s30 s31"), "{cut:?}");
        let long = "x".repeat(254);
        let (got, cut) = make(json!({"nameservers": ["1.1.1.1"], "searches": [long, "home.lan"]}));
        assert_eq!(got.searches, ["home.lan"]);
        assert!(cut[0].ends_with("the applied search line is: home.lan"));
        let wide: Vec<String> = (0..20).map(|n| format!("{n:0>200}")).collect();
        let (got, cut) = make(json!({"nameservers": ["1.1.1.1"], "searches": wide}));
        assert_eq!((got.searches.len(), cut.len()), (10, 1));
    }

    #[test]
    fn host_names() {
        for (spec, host, domain) in [
            (json!({}), "web-0", None),
            (json!({"hostname": "h"}), "h", None),
            (json!({"hostname": "h", "subdomain": "s"}), "h", Some("s.prod.svc.cluster.local")),
            (json!({"hostnameOverride": "o.example", "subdomain": "s"}), "o.example", None),
        ] {
            let got = hostname(&pod(spec.clone()), "cluster.local");
            assert_eq!(got, (host.to_owned(), domain.map(str::to_owned)), "{spec}");
        }
    }

    #[test]
    fn the_kernel_gets_the_whole_name_if_the_pod_asks_and_it_fits() {
        let long = "x".repeat(37);
        let whole = format!("web-0.{long}.prod.svc.cluster.local");
        for (spec, expected) in [
            (json!({"subdomain": "s"}), Ok("web-0".to_owned())),
            (json!({"subdomain": "s", "setHostnameAsFQDN": true}), Ok("web-0.s.prod.svc.cluster.local".to_owned())),
            (json!({"setHostnameAsFQDN": true}), Ok("web-0".to_owned())),
            (
                json!({"subdomain": long, "setHostnameAsFQDN": true}),
                Err(format!(
                    "failed to construct FQDN from pod hostname and cluster domain, FQDN {whole} is too long \
                     (64 characters is the max, 66 characters requested)"
                )),
            ),
        ] {
            assert_eq!(kernel_hostname(&pod(spec.clone()), "cluster.local"), expected, "{spec}");
        }
    }

    #[test]
    fn hosts_file_names_the_pod_and_its_aliases() {
        let pod = pod(json!({"subdomain": "s", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = hosts_file(&pod, &["10.244.0.7".parse().unwrap()], "cluster.local");
        assert!(text.ends_with(
            "10.244.0.7\tweb-0.s.prod.svc.cluster.local\tweb-0\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
        ));
    }
}
