//! Shows what is wrong with this process where administrators look: as a condition of its node, and as
//! events about it.

use std::collections::HashSet;

use api::k8s_openapi::api::core::v1::{Node, NodeCondition, ObjectReference};
use apiserver::{Gap, SetAside};
use client::{Change, Cluster, EventType, Failures, Recorder, status};
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// True while a part of this node does not work.
const CONDITION: &str = "PartFailed";
/// Events about objects that cannot be read; the log and `coracle check` name all.
const MOST_NAMED: usize = 20;
/// Who reports what is wrong with this process.
pub(super) const INSTALLER: (&str, &[&str]) = ("system:coracle-installer", &["system:masters"]);

/// Reports the objects that cannot be read, then keeps the condition true to the failures, until
/// cancelled.
pub(super) async fn show(
    cluster: Cluster,
    node: String,
    mut failures: watch::Receiver<Failures>,
    damage: Vec<String>,
    token: CancellationToken,
) {
    let client = cluster.as_user(INSTALLER.0, INSTALLER.1);
    // Its end is the end of its events: it lives as long as this task.
    let recorder = Recorder::new(client.clone(), "coracle", &node);
    for message in &damage {
        recorder.event(&about(&node), EventType::Warning, "DamagedObject", message);
    }
    let nodes: Api<Node> = Api::all(client);
    let mut changes = cluster.subscribe::<Node>();
    let mut conditions: Option<Vec<NodeCondition>> = None;
    let mut told = HashSet::new();
    loop {
        let now = failures.borrow_and_update().clone();
        for failure in &now {
            if told.insert(format!("{failure:?}")) {
                recorder.event(&about(&node), EventType::Warning, CONDITION, &text(failure));
            }
        }
        told.retain(|t| now.iter().any(|failure| format!("{failure:?}") == *t));
        if let Some(wanted) = conditions.as_ref().and_then(|c| wanted(c, &now, Timestamp::now())) {
            let patch = json!({ "status": { "conditions": [wanted] } });
            if let Err(e) = nodes.patch_status(&node, &PatchParams::default(), &Patch::Strategic(&patch)).await {
                warn!("the node's condition {CONDITION} could not be set: {}", status::message(&e));
            }
        }
        tokio::select! {
            () = token.cancelled() => return,
            changed = failures.changed() => {
                if changed.is_err() {
                    // Nothing can fail any more.
                    return token.cancelled().await;
                }
            }
            change = changes.next() => match change {
                Some(Change::Applied { object, .. }) if *object.index.key.name == *node => {
                    let status = object.decode::<Node>().ok().and_then(|node| node.status);
                    conditions = Some(status.and_then(|s| s.conditions).unwrap_or_default());
                }
                Some(_) => {}
                None => return token.cancelled().await,
            },
        }
    }
}

/// The events about objects of the store that are lost or cannot be read.
pub(super) fn damage(set_aside: &[SetAside], gaps: &[Gap]) -> Vec<String> {
    let gaps = gaps.iter().map(|gap| format!("some {gap} are lost in the store"));
    let named = set_aside
        .iter()
        .map(|entry| format!("{} is damaged in the store and was set aside: {}", entry.name, entry.reason));
    gaps.take(MOST_NAMED).chain(named.take(MOST_NAMED)).collect()
}

fn about(node: &str) -> ObjectReference {
    // The kubelet's events name the node so, too.
    ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(node.to_owned()),
        uid: Some(node.to_owned()),
        ..ObjectReference::default()
    }
}

fn text((part, message): (&&'static str, &String)) -> String {
    format!("{part}: {message}")
}

/// The condition as it has to be; `None` when it is so already. A node on which nothing ever failed
/// does not get one.
fn wanted(conditions: &[NodeCondition], failures: &Failures, now: Timestamp) -> Option<Value> {
    let known = conditions.iter().find(|c| c.type_ == CONDITION);
    let (status, reason, message) = if failures.is_empty() {
        ("False", "AllPartsWork", "every part of this node works".to_owned())
    } else {
        ("True", "PartDoesNotWork", failures.iter().map(text).collect::<Vec<_>>().join("; "))
    };
    let is_so = known.map_or(failures.is_empty(), |c| c.status == status && c.message.as_deref() == Some(&message));
    let since = known.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    (!is_so).then(|| {
        let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let since = since.map_or(json!(now), |time| json!(time));
        json!({
            "type": CONDITION, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": since,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_comes_with_the_first_failure_and_says_when_it_is_over() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        let (none, failing) = (Failures::new(), Failures::from([("dns", "cannot bind 10.96.0.10:53".to_owned())]));
        assert_eq!(wanted(&[], &none, now), None);
        let shown = wanted(&[], &failing, now).unwrap();
        assert_eq!((&shown["status"], &shown["message"]), (&json!("True"), &json!("dns: cannot bind 10.96.0.10:53")));
        let on_node: NodeCondition = serde_json::from_value(shown).unwrap();
        assert_eq!(wanted(std::slice::from_ref(&on_node), &failing, now), None);
        assert_eq!(wanted(&[on_node], &none, now).unwrap()["status"], "False");
    }
}
