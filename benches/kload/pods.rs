//! Pods one after another: from sending the create until the watch says that the container runs.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::connection::Connection;
use crate::figures::{Figures, milliseconds};
use crate::podwatch::{Milestone, PodWatch};
use crate::usage::Used;
use crate::{Context, namespace};

const PODS: usize = 20;
/// How long the idle server is measured, whose CPU is not the pods'.
const IDLE: Duration = Duration::from_secs(4);
/// Between two steps, so that the end of one is no part of the next.
const PAUSE: Duration = Duration::from_millis(250);
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const DELETE: &str = r#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":1}"#;

/// A namespace that can hold pods, and what looks at it.
pub(crate) struct Stage {
    pub connection: Connection,
    pub watch: PodWatch,
    pub collection: String,
    /// Cores that the server uses without the test.
    pub idle_cores: f64,
}

impl Stage {
    pub(crate) async fn set(cx: &Context) -> Result<Self> {
        let namespace = namespace::make(&cx.server, "pods", 0, 0).await?;
        let mut connection = Connection::open(&cx.server).await?;
        namespace::wait_for_pods(&mut connection, &namespace).await?;
        let watch = PodWatch::open(&cx.server, &namespace).await?;
        sleep(PAUSE).await;
        let before = cx.meter.read()?;
        sleep(IDLE).await;
        let idle = cx.meter.read()?.since(&before);
        let idle_cores = idle.server.as_secs_f64() / idle.wall.as_secs_f64();
        Ok(Self { connection, watch, collection: format!("/api/v1/namespaces/{namespace}/pods"), idle_cores })
    }

    /// CPU that the node spent beyond idling, in ms.
    pub(crate) fn cpu_ms(&self, used: &Used) -> f64 {
        milliseconds(used.server) - self.idle_cores * milliseconds(used.wall)
    }
}

/// Names that no earlier run used.
pub(crate) fn names(count: usize) -> Vec<String> {
    let run = jiff::Timestamp::now().as_millisecond();
    (0..count).map(|n| format!("p-{run}-{n}")).collect()
}

/// A pod of one container that sleeps.
pub(crate) fn body(name: &str, image: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","labels":{{"app":"kload"}}}},"spec":{{"terminationGracePeriodSeconds":1,"containers":[{{"name":"c","image":"{image}","imagePullPolicy":"IfNotPresent","command":["sleep","3600"]}}]}}}}"#
    )
}

pub(crate) async fn run(cx: &Context) -> Result<Figures> {
    let mut stage = Stage::set(cx).await?;
    let (mut scheduled, mut running, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    let (mut to_running, mut life) = (0.0, 0.0);
    for name in names(PODS) {
        let pod = [name];
        let [name] = &pod;
        let before = cx.meter.read()?;
        let sent = Instant::now();
        stage.connection.expect(201, "POST", &stage.collection, &body(name, &cx.arguments.image)).await?;
        stage.watch.wait(&pod, Milestone::Running, DEADLINE).await?;
        to_running += stage.cpu_ms(&cx.meter.read()?.since(&before));
        scheduled.extend(stage.watch.moment(name, Milestone::Scheduled).map(|at| at - sent));
        running.extend(stage.watch.moment(name, Milestone::Running).map(|at| at - sent));
        sleep(PAUSE).await;
        let sent = Instant::now();
        let path = format!("{}/{name}", stage.collection);
        stage.connection.expect(200, "DELETE", &path, DELETE).await?;
        stage.watch.wait(&pod, Milestone::Gone, DEADLINE).await?;
        gone.extend(stage.watch.moment(name, Milestone::Gone).map(|at| at - sent));
        sleep(PAUSE).await;
        life += stage.cpu_ms(&cx.meter.read()?.since(&before));
    }
    let mut figures = Figures::default();
    figures.set_times("scheduled", &mut scheduled);
    figures.set_times("running", &mut running);
    figures.set_times("deleted", &mut gone);
    figures.set("cpu_to_running_ms", to_running / PODS as f64);
    figures.set("cpu_life_ms", life / PODS as f64);
    figures.set("idle_cores", stage.idle_cores);
    Ok(figures)
}
