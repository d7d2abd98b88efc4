//! Reports Services whose cluster IP is another's, as upstream's allocator does when it repairs.
//!
//! None comes about here, but one may be stored: earlier releases gave the address of cluster DNS to
//! whoever asked for it. Such a Service is answered by the other holder, and only its owner can say
//! which of the two may go. Nothing is changed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use api::k8s_openapi::api::core::v1::{ObjectReference, Service};
use client::{Cluster, EventType, Query, Recorder};
use tokio_util::sync::CancellationToken;

use super::parts::INSTALLER;
use crate::config::ServerConfig;

const COMPONENT: &str = "ipallocator-repair-controller";
const REASON: &str = "ClusterIPAlreadyAllocated";
/// Events are kept for so long.
const REPORT_EVERY: Duration = Duration::from_secs(60 * 60);

/// An address, and the namespace and name of the Service that has a right to it before all others.
pub(super) type Own = (IpAddr, (&'static str, &'static str));

/// The addresses that this server answers at.
pub(super) fn own(config: &ServerConfig) -> [Own; 2] {
    [
        (IpAddr::V4(config.service_ip()), ("default", "kubernetes")),
        (IpAddr::V4(config.cluster_dns), ("kube-system", "kube-dns")),
    ]
}

/// Reports at the start, and for as long as it stays so, until cancelled.
pub(super) async fn report(cluster: Cluster, own: [Own; 2], token: CancellationToken) {
    let recorder = Recorder::new(cluster.as_user(INSTALLER.0, INSTALLER.1), COMPONENT, "");
    loop {
        // One that cannot be read keeps none of the others from being reported.
        let services: Vec<Service> =
            cluster.objects::<Service>(&Query::ALL).iter().filter_map(|service| service.decode().ok()).collect();
        for (about, ip) in held_by_others(&services, own) {
            recorder.event(&about, EventType::Warning, REASON, &message(ip));
        }
        if token.run_until_cancelled(tokio::time::sleep(REPORT_EVERY)).await.is_none() {
            return;
        }
    }
}

fn message(ip: IpAddr) -> String {
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    format!("Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service")
}

/// Each Service that has an address to which another one, ours or an older one, has more right.
fn held_by_others(services: &[Service], own: [Own; 2]) -> Vec<(ObjectReference, IpAddr)> {
    let mut oldest_first: Vec<&Service> = services.iter().collect();
    oldest_first.sort_by_key(|s| (s.metadata.creation_timestamp.as_ref().map(|t| t.0), name_of(s)));
    let mut holders: HashMap<IpAddr, (&str, &str)> = HashMap::from(own);
    let mut found = Vec::new();
    for service in oldest_first {
        let spec = service.spec.as_ref();
        let ips = spec.and_then(|s| s.cluster_ips.as_deref()).unwrap_or_default();
        for ip in ips.iter().filter_map(|ip| ip.parse().ok()) {
            if *holders.entry(ip).or_insert_with(|| name_of(service)) != name_of(service) {
                found.push((about(service), ip));
            }
        }
    }
    found
}

fn name_of(service: &Service) -> (&str, &str) {
    let metadata = &service.metadata;
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

fn about(service: &Service) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: service.metadata.namespace.clone(),
        name: service.metadata.name.clone(),
        uid: service.metadata.uid.clone(),
        resource_version: service.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use api::k8s_openapi::api::core::v1::Event;
    use client::Change;
    use kube::api::{Api, PostParams};
    use serde_json::json;

    use super::super::{fixtures, open_pki};
    use super::*;
    use crate::inprocess;

    fn service(namespace: &str, name: &str, created: &str, ips: &[&str]) -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name, "creationTimestamp": created},
            "spec": {"clusterIP": ips.first(), "clusterIPs": ips},
        }))
        .unwrap()
    }

    #[test]
    fn an_address_belongs_to_the_server_then_to_the_oldest_service() {
        let own = own(&fixtures::config("/none".as_ref()));
        let check = |services: &[Service], expected: &[(&str, &str)]| {
            let found = held_by_others(services, own);
            let found: Vec<_> = found.iter().map(|(about, ip)| (about.name.clone().unwrap(), ip.to_string())).collect();
            let expected: Vec<_> = expected.iter().map(|(name, ip)| ((*name).to_owned(), (*ip).to_owned())).collect();
            assert_eq!(found, expected);
        };
        let (old, new) = ("2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
        let dns = service("kube-system", "kube-dns", new, &["10.96.0.10"]);
        let other = service("shop", "web", old, &["10.96.0.10"]);
        check(&[dns.clone(), service("shop", "web", old, &["10.96.0.11"])], &[]);
        check(&[dns, other.clone()], &[("web", "10.96.0.10")]);
        // A Service kube-dns of somebody's own has another address: nodes answer DNS at this one nevertheless.
        check(&[service("kube-system", "kube-dns", old, &["10.96.0.9"]), other], &[("web", "10.96.0.10")]);
        let twins = [service("a", "young", new, &["10.96.1.1"]), service("b", "old", old, &["10.96.1.1"])];
        check(&twins, &[("young", "10.96.1.1")]);
        check(&[service("a", "x", old, &["None"]), service("a", "y", old, &["None"])], &[]);
    }

    #[tokio::test]
    async fn a_service_with_the_address_of_cluster_dns_from_an_earlier_release_is_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let config = fixtures::config(directory.path());
        let pki = open_pki(&config, crate::datadir::Start::First, "2026-06-01T00:00:00Z".parse().unwrap()).unwrap();
        // A server that keeps another address for cluster DNS gives this one away, as earlier releases did.
        let before = ServerConfig { cluster_dns: [10, 96, 0, 20].into(), ..config.clone() };
        let server = fixtures::stored_server(&before, &pki).await;
        let admin = inprocess::cluster(&server).as_user(INSTALLER.0, INSTALLER.1);
        let web = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}});
        let services: Api<Service> = Api::namespaced(admin, "default");
        services.create(&PostParams::default(), &serde_json::from_value(web).unwrap()).await.unwrap();
        server.close().await.unwrap();

        let server = fixtures::stored_server(&config, &pki).await;
        let cluster = inprocess::cluster(&server);
        let mut changes = cluster.subscribe::<Event>();
        let told = async {
            loop {
                if let Some(Change::Applied { object, .. }) = changes.next().await {
                    return object.decode::<Event>().unwrap();
                }
            }
        };
        let token = CancellationToken::new();
        let event = tokio::select! {
            () = report(cluster.clone(), own(&config), token.clone()) => panic!("it reports until it is cancelled"),
            event = tokio::time::timeout(Duration::from_secs(30), told) => event.expect("an event"),
        };
        assert_eq!((event.type_.as_deref(), event.reason.as_deref()), (Some("Warning"), Some(REASON)));
        assert_eq!(
            (event.involved_object.kind.as_deref(), event.involved_object.name.as_deref()),
            (Some("Service"), Some("web"))
        );
        let message = "Cluster IP [IPv4]:10.96.0.10 was assigned to multiple services; please recreate service";
        assert_eq!(event.message.as_deref(), Some(message));
        server.close().await.unwrap();
    }
}
