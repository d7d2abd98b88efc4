//! A server's settings in a directory of a test, and its API server over a store in memory or there.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use apiserver::{ApiServer, config::Store};

use super::apiserver_config;
use crate::config::ServerConfig;
use crate::datadir::make_private;
use crate::pki::Pki;

pub(crate) fn config(directory: &Path) -> ServerConfig {
    ServerConfig {
        data_dir: directory.to_owned(),
        write_kubeconfig: directory.join("kubeconfig.yaml"),
        node_name: "pi".to_owned(),
        node_ip: Ipv4Addr::new(192, 0, 2, 2),
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        cluster_dns: Ipv4Addr::new(10, 96, 0, 10),
        tls_san: Vec::new(),
        store_limit: u64::MAX,
        run_agent: false,
    }
}

/// Starts on what is in the directory, as far as to the store, and ends in order.
pub(crate) async fn start(directory: &Path) -> anyhow::Result<()> {
    let (_, server) = super::open(&config(directory), "2026-06-01T00:00:00Z".parse()?).await?;
    Ok(server.close().await?)
}

pub(super) async fn server(config: &ServerConfig, pki: &Pki) -> Arc<ApiServer> {
    let config = apiserver::Config { store: Store::Memory, ..apiserver_config::build(config, pki) };
    ApiServer::new(config).await.unwrap()
}

pub(super) async fn stored_server(config: &ServerConfig, pki: &Pki) -> Arc<ApiServer> {
    make_private(&config.data_dir.join("server/db")).unwrap();
    ApiServer::new(apiserver_config::build(config, pki)).await.unwrap()
}
