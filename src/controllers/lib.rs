//! The controllers that make the cluster what its objects say (kube-controller-manager).
//!
//! One folder per controller. Each decides in plain functions from typed data and acts in a thin
//! shell; none calls another, they meet in API objects. All are event driven: a timer runs only
//! while something is due.

mod claim;
mod clusterroleaggregation;
mod config;
mod cronjob;
mod daemonset;
mod deployment;
mod endpoints;
mod endpointslice;
#[cfg(test)]
mod fixtures;
mod garbagecollector;
mod generate_name;
mod history;
mod job;
mod moment;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod nodes;
mod percent;
mod pod_control;
mod podgc;
mod pods;
mod protection;
mod pvcprotection;
mod pvprotection;
mod replicaset;
mod rootca;
mod service;
mod serviceaccount;
mod services;
mod statefulset;
mod tainteviction;
mod template_hash;
mod ttlafterfinished;

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
    tasks.spawn("endpoint-controller", endpoints::run(cx.clone(), stop.clone()));
    tasks.spawn("endpointslice-controller", endpointslice::run(cx.clone(), stop.clone()));
    tasks.spawn("endpointslicemirroring-controller", endpointslice::run_mirroring(cx.clone(), stop.clone()));
    tasks.spawn("namespace-controller", namespace::run(cx.clone(), cfg.resources.clone(), stop.clone()));
    tasks.spawn("service-account-controller", serviceaccount::run(cx.clone(), stop.clone()));
    tasks.spawn("root-ca-cert-publisher", rootca::run(cx.clone(), cfg.root_ca, stop.clone()));
    tasks.spawn("generic-garbage-collector", garbagecollector::run(cx.clone(), cfg.resources, stop.clone()));
    tasks.spawn("pod-garbage-collector", podgc::run(cx.clone(), stop.clone()));
    tasks.spawn("ttl-after-finished-controller", ttlafterfinished::run(cx.clone(), stop.clone()));
    tasks.spawn("job-controller", job::run(cx.clone(), stop.clone()));
    tasks.spawn("job-controller", job::run_orphans(cx.clone(), stop.clone()));
    tasks.spawn("cronjob-controller", cronjob::run(cx.clone(), stop.clone()));
    tasks.spawn("statefulset-controller", statefulset::run(cx.clone(), stop.clone()));
    tasks.spawn("daemon-set-controller", daemonset::run(cx.clone(), stop.clone()));
    if let Some(network) = cfg.cluster_cidr {
        tasks.spawn("node-ipam-controller", nodeipam::run(cx.clone(), network, stop.clone()));
    }
    tasks.spawn("node-lifecycle-controller", nodelifecycle::run(cx.clone(), stop.clone()));
    tasks.spawn("taint-eviction-controller", tainteviction::run(cx.clone(), stop.clone()));
    tasks.spawn("persistentvolumeclaim-protection-controller", pvcprotection::run(cx.clone(), stop.clone()));
    tasks.spawn("persistentvolume-protection-controller", pvprotection::run(cx.clone(), stop.clone()));
    tasks.spawn("clusterrole-aggregation-controller", clusterroleaggregation::run(cx.clone(), stop.clone()));
    tasks.spawn("service-lb-controller", service::run(cx, stop));
    let ended = tasks.run().await;
    tasks.shutdown().await;
    ended.map_err(Error)
}
