//! What one server process runs, in the order in which the parts need each other.
//!
//! The API server needs none of the others; without its port nothing is started, and nothing written. The
//! node's parts are tried again when they cannot start, and say meanwhile what keeps them ([`parts`]). Any
//! other part that ends, for whatever reason, ends the process: systemd starts it again, and pods run on
//! meanwhile. The order at the end is the reverse: the store is closed last.

mod addresses;
mod apiserver_config;
#[cfg(test)]
pub(crate) mod fixtures;
mod image_files;
mod node;
mod node_role;
mod parts;
mod renewal;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use apiserver::ApiServer;
use client::{Cluster, Parts, Tasks};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::config::{CLUSTER_DOMAIN, ServerConfig};
use crate::datadir::Start;
use crate::exit::Final;
use crate::pki::{Pki, Subjects};
use crate::{datadir, inprocess, kubeconfig, memory};

/// Runs a server until `stop` is cancelled or a part of it fails.
///
/// # Errors
/// Says which part could not start, or ended.
pub(crate) async fn run_server(config: ServerConfig, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = listen(config.listen).await?;
    let lock = datadir::lock(&config.data_dir)?;
    let (pki, server) = open(&config, Timestamp::now()).await?;
    write_kubeconfig(&config, &pki)?;
    let mut tasks = Tasks::under(&stop);
    let result = run_parts(&config, &pki, &server, listener, &mut tasks).await;
    tasks.shutdown().await;
    let closed = server.close().await.context("closing the store");
    drop(lock);
    match (result, closed) {
        (Ok(()), closed) => closed,
        (Err(ended), Ok(())) => Err(ended),
        (Err(ended), Err(e)) => Err(ended.context(format!("{e:#}"))),
    }
}

/// Opens what the data directory has of a cluster; a first start makes it.
async fn open(config: &ServerConfig, now: Timestamp) -> anyhow::Result<(Pki, Arc<ApiServer>)> {
    let start = datadir::begin(&config.data_dir)?;
    datadir::prepare(&config.data_dir)?;
    let pki = open_pki(config, start, now)?;
    let server = ApiServer::new(apiserver_config::build(config, &pki)).await.context("starting the API server")?;
    datadir::end_first_start(&config.data_dir)?;
    Ok((pki, server))
}

/// A taken port is an error and not waited for: without the API there is no node that could say what it
/// waits for, and the service manager tries again.
async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "the API server cannot listen on {address}; if another program has this port, perhaps another Kubernetes, \
             end it or choose another port with --https-port"
        )
    })
}

async fn run_parts(
    config: &ServerConfig,
    pki: &Pki,
    server: &Arc<ApiServer>,
    listener: TcpListener,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let token = tasks.token().clone();
    let cluster = inprocess::cluster(server);
    let certificates = tls::Certificates::new(pki)?;
    let serving = tls::api_server(pki, &certificates)?;
    tasks.spawn("store", watch_store(server.clone(), token.clone()));
    tasks.spawn("apiserver", server.clone().serve(listener, serving, token.clone()));
    tasks.spawn("system-objects", server.clone().keep_system_objects(token.clone()));
    tasks.spawn("event-expiry", server.clone().expire_events(token.clone()));
    info!(listen = %config.listen, node = config.node_name, "API server ready");
    spawn_control_plane(config, pki, server, &cluster, tasks);
    let parts = Parts::default();
    let (failures, damage) = (parts.subscribe(), parts::damage(&server.set_aside(), &server.gaps()));
    let node = config.node_name.clone();
    tasks.spawn("parts", parts::show(cluster.clone(), node, failures, damage, token.clone()));
    tasks.spawn("service-addresses", addresses::report(cluster.clone(), addresses::own(config), token.clone()));
    if config.run_agent {
        node::spawn(config, pki, &certificates, &cluster, parts, tasks).context("starting the node")?;
    }
    tasks.spawn("certificate-renewal", renewal::keep(config.clone(), certificates, server.clone(), token.clone()));
    tasks.spawn("malloc-trim", memory::keep_trimmed(token.clone()));
    tasks.run().await.map_err(|part| anyhow!("{part} ended unexpectedly"))
}

/// Ends when the store was found damaged while it was in use: it is written no more, and only a start,
/// which checks all of it, can mend it.
async fn watch_store(server: Arc<ApiServer>, token: CancellationToken) {
    if token.run_until_cancelled(server.store_closed()).await.is_some() {
        error!("the store was found damaged while it was in use; the next start checks it and mends what it can");
    }
}

fn spawn_control_plane(
    config: &ServerConfig,
    pki: &Pki,
    server: &Arc<ApiServer>,
    cluster: &Cluster,
    tasks: &mut Tasks,
) {
    let token = tasks.token().clone();
    let controllers = controllers::Config {
        resources: apiserver_config::served_resources(server),
        root_ca: pki.authority.certificate_pem.clone(),
        cluster_cidr: Some(config.cluster_cidr),
    };
    let cx = cluster.clone();
    let stop = token.clone();
    tasks.spawn("controllers", async move { report("controllers", controllers::run(cx, controllers, stop).await) });
    tasks.spawn("scheduler", scheduler::run(cluster.clone(), token));
}

/// The one log line of a part that failed; that it ended ends the process.
pub(crate) fn report<E: std::error::Error>(part: &str, result: Result<(), E>) {
    if let Err(e) = result {
        let mut text = e.to_string();
        let mut source = e.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        error!(part, "{text}");
    }
}

fn open_pki(config: &ServerConfig, start: Start, now: Timestamp) -> anyhow::Result<Pki> {
    let subjects = Subjects {
        node_name: &config.node_name,
        node_ip: IpAddr::V4(config.node_ip),
        service_ip: IpAddr::V4(config.service_ip()),
        cluster_domain: CLUSTER_DOMAIN,
        extra: &config.tls_san,
    };
    let opened = Pki::open(&datadir::tls(&config.data_dir), &subjects, start, now);
    // A disk that is full or slow may answer the next time; files that are damaged or gone stay so.
    let by_disk = |e: &anyhow::Error| e.chain().any(|cause| cause.is::<std::io::Error>());
    opened.map_err(|e| if by_disk(&e) { e } else { Final(e).into() }).context("certificates")
}

fn write_kubeconfig(config: &ServerConfig, pki: &Pki) -> anyhow::Result<()> {
    let ip = match config.listen.ip() {
        ip if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        ip => ip,
    };
    let server = format!("https://{}", SocketAddr::new(ip, config.listen.port()));
    kubeconfig::write(&config.write_kubeconfig, &server, &pki.authority.certificate_pem, &pki.admin)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    mod state;

    #[tokio::test]
    async fn a_store_that_takes_no_more_writes_ends_the_process_and_an_orderly_stop_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let config = fixtures::config(directory.path());
        let pki = open_pki(&config, Start::First, "2026-06-01T00:00:00Z".parse().unwrap()).unwrap();
        for is_stopped in [false, true] {
            let server = fixtures::server(&config, &pki).await;
            let stop = CancellationToken::new();
            let mut tasks = Tasks::under(&stop);
            tasks.spawn("store", watch_store(server.clone(), tasks.token().clone()));
            if is_stopped {
                stop.cancel();
            }
            server.close().await.unwrap();
            let expected = if is_stopped { Ok(()) } else { Err("store") };
            assert_eq!(tasks.run().await, expected);
            tasks.shutdown().await;
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_told_before_anything_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        let config = ServerConfig { listen: taken, ..fixtures::config(&data_dir) };
        let error = run_server(config, CancellationToken::new()).await.unwrap_err();
        let said = format!("{error:#}");
        assert!(
            said.contains(&format!("cannot listen on {taken}")) && said.contains("Address already in use"),
            "{said}"
        );
        let code = format!("{:?}", crate::exit::code(&error));
        assert_eq!(code, format!("{:?}", std::process::ExitCode::FAILURE), "the service manager tries again");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_is_told_to_stop_ends_in_order_whatever_part_ends_first() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..4 {
            let stop = CancellationToken::new();
            let config = fixtures::config(directory.path());
            let kubeconfig = config.write_kubeconfig.clone();
            let told = stop.clone();
            let (ended, ()) = tokio::join!(run_server(config, stop), async move {
                // It is written once the server is about to run its parts.
                while !kubeconfig.exists() {
                    tokio::task::yield_now().await;
                }
                told.cancel();
            });
            ended.unwrap();
        }
    }

    /// Every path below `dir` with its mode.
    fn modes(dir: &std::path::Path) -> Vec<(std::path::PathBuf, u32)> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let (path, metadata) = entry.map(|e| (e.path(), e.metadata().unwrap())).unwrap();
            found.push((path.clone(), metadata.permissions().mode() & 0o777));
            if metadata.is_dir() {
                found.extend(modes(&path));
            }
        }
        found
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_server_keeps_is_for_root_alone_and_what_was_left_open_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        for is_first in [true, false] {
            let stop = CancellationToken::new();
            let config = fixtures::config(directory.path());
            let (kubeconfig, told) = (config.write_kubeconfig.clone(), stop.clone());
            let (ended, ()) = tokio::join!(run_server(config, stop), async move {
                while !kubeconfig.exists() {
                    tokio::task::yield_now().await;
                }
                told.cancel();
            });
            ended.unwrap();
            let found = modes(directory.path());
            assert!(found.iter().any(|(path, _)| path.ends_with("server/db/state.redb")), "{found:?}");
            assert!(found.iter().any(|(path, _)| path.ends_with("server/tls/ca.key")), "{found:?}");
            let open = found.iter().filter(|(_, mode)| mode & 0o077 != 0).collect::<Vec<_>>();
            assert!(open.is_empty(), "is_first {is_first}: {open:?}");
            for (path, mode) in found.iter().filter(|(path, _)| path.starts_with(directory.path().join("server"))) {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode | 0o055)).unwrap();
            }
            std::fs::remove_file(directory.path().join("kubeconfig.yaml")).unwrap();
        }
    }
}
