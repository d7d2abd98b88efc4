//! Services of type LoadBalancer: the nodes themselves are the load balancer, so their addresses are
//! the Service's. A Service whose port is taken on every node stays without one, with an event.

mod plan;

use api::object::{Object, ObjectKey};
use client::{Change, Cluster, Controller, EventType, Outcome, Query, Reconcile, Recorder, Writes, decode_all};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Node, Pod, Service};
use tokio_util::sync::CancellationToken;

use crate::pod_control;
use plan::{Balancer, Candidate, assign, host_ports, ingress_of, is_ours};

const ACCOUNT: &str = "service-controller";

struct Reconciler {
    cluster: Cluster,
    recorder: Recorder,
}

/// Runs the load balancer controller until cancelled.
pub(crate) async fn run(cluster: Cluster, token: CancellationToken) {
    let client = cluster.as_service_account("kube-system", ACCOUNT);
    let recorder = Recorder::new(client.clone(), ACCOUNT, "");
    let (of_nodes, of_others, of_pods) = (cluster.clone(), cluster.clone(), cluster.clone());
    Controller::new(Reconciler { cluster: cluster.clone(), recorder }, cluster, client)
        .reconciles::<Service>()
        .watches::<Service>(move |change| waiting_for(&of_others, change))
        .watches::<Node>(move |change| services_of_nodes(&of_nodes, change))
        .watches::<Pod>(move |change| services_beside(&of_pods, change))
        .run(token)
        .await;
}

fn load_balancers(cluster: &Cluster) -> Vec<Object> {
    cluster.objects::<Service>(&Query::field("spec.type", "LoadBalancer"))
}

/// The other load balancers, when one has come, gone or changed: one of them may take its port, or have
/// to wait for it.
fn waiting_for(cluster: &Cluster, change: &Change) -> Vec<ObjectKey> {
    let candidate =
        |object: &Object| object.decode::<Service>().ok().and_then(|s| Candidate::of(&object.index.key, &s));
    let differs = match change {
        Change::Applied { object, old } => candidate(object) != old.as_ref().and_then(candidate),
        Change::Deleted { object } => candidate(object).is_some(),
        Change::Synced | Change::Resync => false,
    };
    let others = if differs { load_balancers(cluster) } else { Vec::new() };
    others.iter().map(|o| o.index.key.clone()).filter(|key| Some(key) != change.key()).collect()
}

/// All load balancers, when what nodes offer has changed; heartbeats do not change it.
fn services_of_nodes(cluster: &Cluster, change: &Change) -> Vec<ObjectKey> {
    let balancer = |object: &Object| object.decode::<Node>().ok().map(|node| Balancer::of(&node));
    if let Change::Applied { object, old: Some(old) } = change
        && balancer(object) == balancer(old)
    {
        return Vec::new();
    }
    load_balancers(cluster).iter().map(|o| o.index.key.clone()).collect()
}

/// All load balancers, when a pod with ports of its node has come to it, begun to run or gone.
fn services_beside(cluster: &Cluster, change: &Change) -> Vec<ObjectKey> {
    let place =
        |o: &Object| [o.index.field("spec.nodeName"), o.index.field("status.phase")].map(|f| f.map(str::to_owned));
    let object = match change {
        Change::Applied { object, old } if old.as_ref().is_none_or(|old| place(object) != place(old)) => object,
        Change::Deleted { object } => object,
        Change::Applied { .. } | Change::Synced | Change::Resync => return Vec::new(),
    };
    let balancers = load_balancers(cluster);
    // One that cannot be read may have any port.
    if balancers.is_empty() || object.decode::<Pod>().is_ok_and(|pod| host_ports(&pod).is_empty()) {
        return Vec::new();
    }
    balancers.iter().map(|o| o.index.key.clone()).collect()
}

impl Reconcile for Reconciler {
    const NAME: &'static str = "service-lb-controller";

    async fn reconcile(&self, key: &ObjectKey, w: &mut Writes) -> kube::Result<Outcome> {
        let Some(service) = self.cluster.get::<Service>(&key.namespace, &key.name)? else {
            return Ok(Outcome::Done);
        };
        let Some(spec) = &service.spec else { return Ok(Outcome::Done) };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let balanced = spec.type_.as_deref() == Some("LoadBalancer");
        if balanced && !is_ours(spec) {
            return Ok(Outcome::Done);
        }
        let wanted = if balanced { self.ingress(key, &service)? } else { Vec::new() };
        self.write(service, wanted, w).await?;
        Ok(Outcome::Done)
    }
}

impl Reconciler {
    /// The Service's addresses among those of all others; an event tells why there are none. A node, a pod or
    /// a Service that cannot be read would seem to hold no ports, so nothing is given away then.
    fn ingress(&self, key: &ObjectKey, service: &Service) -> kube::Result<Vec<LoadBalancerIngress>> {
        let nodes: Vec<Node> = decode_all(&self.cluster.objects::<Node>(&Query::ALL))?;
        let pods: Vec<Pod> = decode_all(&self.cluster.objects::<Pod>(&Query::ALL))?;
        let nodes: Vec<Balancer> = nodes.iter().map(|node| Balancer::of(node).with_pods(&pods)).collect();
        let others = load_balancers(&self.cluster);
        let services: Vec<Service> = decode_all(&others)?;
        let candidates = others.iter().zip(&services).filter_map(|(o, s)| Candidate::of(&o.index.key, s)).collect();
        Ok(match assign(candidates, &nodes).remove(key) {
            Some(Ok(ingress)) => ingress,
            Some(Err(in_use)) => {
                let message = format!("Error syncing load balancer: failed to ensure load balancer: {in_use}");
                let about = pod_control::reference(service);
                self.recorder.event(&about, EventType::Normal, "EnsuringLoadBalancer", "Ensuring load balancer");
                self.recorder.event(&about, EventType::Warning, "SyncLoadBalancerFailed", &message);
                Vec::new()
            }
            None => Vec::new(),
        })
    }

    async fn write(&self, mut service: Service, wanted: Vec<LoadBalancerIngress>, w: &Writes) -> kube::Result<()> {
        if ingress_of(&service) == wanted {
            return Ok(());
        }
        let served = !wanted.is_empty();
        if served {
            let about = pod_control::reference(&service);
            self.recorder.event(&about, EventType::Normal, "EnsuringLoadBalancer", "Ensuring load balancer");
        }
        let balancer = LoadBalancerStatus { ingress: Some(wanted).filter(|i| !i.is_empty()) };
        service.status.get_or_insert_default().load_balancer = Some(balancer);
        let updated = w.update_status(&service).await?;
        if served {
            let about = pod_control::reference(&updated);
            self.recorder.event(&about, EventType::Normal, "EnsuredLoadBalancer", "Ensured load balancer");
        }
        Ok(())
    }
}
