//! What the API server and the controllers are told about this installation.

use std::net::IpAddr;
use std::sync::Arc;

use apiserver::rest::KubeletIdentity;
use apiserver::{ApiServer, config};
use controllers::ServedResource;

use crate::config::ServerConfig;
use crate::datadir;
use crate::pki::Pki;

pub(super) fn build(server: &ServerConfig, pki: &Pki) -> apiserver::Config {
    apiserver::Config {
        store: config::Store::File {
            database: datadir::database(&server.data_dir),
            marker: Some(datadir::store_marker(&server.data_dir)),
        },
        store_limit: server.store_limit,
        version: config::Version {
            git_version: api::version::GIT_VERSION.to_owned(),
            git_commit: option_env!("CORACLE_COMMIT").unwrap_or("unknown").to_owned(),
            build_date: option_env!("CORACLE_DATE").unwrap_or("1970-01-01T00:00:00Z").to_owned(),
            platform: format!("linux/{}", architecture()),
        },
        advertise_address: IpAddr::V4(server.node_ip),
        secure_port: server.listen.port(),
        service_cidr: ipnet::IpNet::V4(server.service_cidr),
        cluster_dns: IpAddr::V4(server.cluster_dns),
        auth: apiserver::auth::Config {
            client_ca: Some(pki.authority.certificate_pem.clone()),
            service_account_key: Some(pki.service_account_key_pem.clone()),
        },
        rest: apiserver::rest::Config { kubelet: Some(kubelet_identity(pki)) },
    }
}

/// Whom the API server is to kubelets.
pub(super) fn kubelet_identity(pki: &Pki) -> KubeletIdentity {
    KubeletIdentity {
        certificate: pki.kubelet_client.certificate_pem.clone(),
        key: pki.kubelet_client.key_pem.clone(),
        ca: pki.authority.certificate_pem.clone(),
    }
}

/// As Go and so Kubernetes name it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What the namespace controller and the garbage collector look after.
pub(super) fn served_resources(server: &ApiServer) -> Arc<[ServedResource]> {
    let convert = |r: apiserver::ServedResource| ServedResource {
        group: r.group,
        version: r.version,
        resource: r.resource,
        kind: r.kind,
        namespaced: r.namespaced,
        stored: true,
    };
    server.served_resources().into_iter().map(convert).collect()
}
