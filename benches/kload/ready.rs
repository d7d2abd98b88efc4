//! When a server that is just being started answers /readyz, and when its node is Ready.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::connection::Connection;
use crate::figures::Figures;
use crate::kubeconfig::Server;

const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks: the resolution of what is measured.
const STEP: Duration = Duration::from_millis(2);

#[derive(Deserialize)]
struct Nodes {
    items: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
struct NodeStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

/// The kubeconfig, as soon as the first start has written it.
pub(crate) async fn kubeconfig(path: &Path) -> Result<Server> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match Server::read(path) {
            Ok(server) => return Ok(server),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(STEP).await,
        }
    }
}

/// Sets the moments in seconds of the monotonic clock, which whoever started the server knows too.
pub(crate) async fn run(server: &Server) -> Result<Figures> {
    let deadline = Instant::now() + DEADLINE;
    let mut figures = Figures::default();
    while !answers(server, "/readyz", |_| true).await {
        ensure!(Instant::now() < deadline, "/readyz did not answer");
        sleep(STEP).await;
    }
    figures.set("readyz_at_s", now()?);
    while !answers(server, "/api/v1/nodes", a_node_is_ready).await {
        ensure!(Instant::now() < deadline, "no node became Ready");
        sleep(STEP).await;
    }
    figures.set("node_ready_at_s", now()?);
    Ok(figures)
}

/// Whether the server answers with 200 and a body that is as it should be. Until it is up it may
/// refuse connections or end them: those are no errors here.
async fn answers(server: &Server, path: &str, good: impl Fn(&[u8]) -> bool) -> bool {
    let Ok(mut connection) = Connection::open(server).await else { return false };
    let Ok(answer) = connection.call("GET", path, "").await else { return false };
    answer.status == 200 && good(answer.body)
}

fn a_node_is_ready(nodes: &[u8]) -> bool {
    let Ok(nodes) = serde_json::from_slice::<Nodes>(nodes) else { return false };
    nodes.items.iter().flat_map(|n| &n.status.conditions).any(|c| c.r#type == "Ready" && c.status == "True")
}

fn now() -> Result<f64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).context("the monotonic clock")?;
    Ok(Duration::from(time).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_whose_condition_is_true_is_ready() {
        let rows = [
            (r#"{"items":[]}"#, false),
            (r#"{"items":[{"metadata":{}}]}"#, false),
            (r#"{"items":[{"status":{"conditions":[{"type":"Ready","status":"False"}]}}]}"#, false),
            (r#"{"items":[{"status":{"conditions":[{"type":"DiskPressure","status":"True"}]}}]}"#, false),
            (r#"{"items":[{"status":{"conditions":[{"type":"Ready","status":"True"}]}}]}"#, true),
        ];
        for (nodes, expected) in rows {
            assert_eq!(a_node_is_ready(nodes.as_bytes()), expected, "{nodes}");
        }
    }
}
