//! The controllers that make the cluster what its objects say (kube-controller-manager).
//!
//! One folder per controller. Each decides in plain functions from typed data and acts in a thin
//! shell; none calls another, they meet in API objects. All are event driven: a timer runs only
//! while something is due.

mod claim;
mod config;
mod deployment;
#[cfg(test)]
mod fixtures;
mod moment;
mod percent;
mod pod_control;
mod pods;
mod replicaset;
mod selection;
mod template_hash;

use client::{Cluster, Tasks};
pub use config::{Config, ServedResource};
use tokio_util::sync::CancellationToken;

/// A controller cannot run at all; nothing but a lost task does that.
#[derive(Debug, thiserror::Error)]
#[error("controller {0} ended before it was told to")]
pub struct Error(&'static str);

/// Runs all controllers until the token is cancelled.
///
/// # Errors
/// When a controller ends by itself.
pub async fn run(cx: Cluster, cfg: Config, token: CancellationToken) -> Result<(), Error> {
    let mut tasks = Tasks::under(&token);
    let stop = tasks.token().clone();
    tasks.spawn("replicaset-controller", replicaset::run(cx.clone(), stop.clone()));
    tasks.spawn("replication-controller", replicaset::run_replication_controller(cx.clone(), stop.clone()));
    tasks.spawn("deployment-controller", deployment::run(cx.clone(), stop.clone()));
    let _ = cfg;
    let ended = tasks.any().await;
    let cancelled = token.is_cancelled();
    tasks.shutdown().await;
    if cancelled { Ok(()) } else { Err(Error(ended.unwrap_or("unknown"))) }
}
