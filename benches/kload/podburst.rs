//! Many pods at once: how fast a node starts them, and what each costs.

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::figures::Figures;
use crate::pods::{DEADLINE, DELETE, Stage, body, names};
use crate::podwatch::Milestone;
use crate::{Context, say};

const PODS: usize = 50;
const CONNECTIONS: usize = 10;

pub(crate) async fn run(cx: &Context) -> Result<Figures> {
    let mut stage = Stage::set(cx).await?;
    let names = names(PODS);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(&cx.server).await?);
    }
    let before = cx.meter.read()?;
    let start = Instant::now();
    let mut posts = JoinSet::new();
    for (n, connection) in connections.into_iter().enumerate() {
        let own = names.iter().skip(n).step_by(CONNECTIONS).map(|name| (name.clone(), body(name, &cx.arguments.image)));
        posts.spawn(post(connection, stage.collection.clone(), own.collect()));
    }
    let mut sent = Vec::new();
    while let Some(posted) = posts.join_next().await {
        sent.extend(posted??);
    }
    stage.watch.wait(&names, Milestone::Running, DEADLINE).await?;
    let used = cx.meter.read()?.since(&before);
    let moments = sent.iter().filter_map(|(name, at)| Some((*at, stage.watch.moment(name, Milestone::Running)?)));
    let moments: Vec<(Instant, Instant)> = moments.collect();
    let last = moments.iter().map(|(_, running)| *running).max().context("no pod ran")?;

    let mut figures = Figures::default();
    figures.set_times("running", &mut moments.iter().map(|(sent, running)| *running - *sent).collect::<Vec<_>>());
    figures.set("per_second", PODS as f64 / (last - start).as_secs_f64());
    figures.set("cpu_to_running_ms", stage.cpu_ms(&used) / PODS as f64);
    used.set_figures(&mut figures, PODS as f64);
    if cx.arguments.hold {
        hold().await?;
    }
    delete(&mut stage, &names).await?;
    figures.set("cpu_life_ms", stage.cpu_ms(&cx.meter.read()?.since(&before)) / PODS as f64);
    Ok(figures)
}

/// Creates the pods one after another; when each was sent.
async fn post(mut connection: Connection, path: String, pods: Vec<(String, String)>) -> Result<Vec<(String, Instant)>> {
    let mut sent = Vec::new();
    for (name, body) in pods {
        let at = Instant::now();
        connection.expect(201, "POST", &path, &body).await?;
        sent.push((name, at));
    }
    Ok(sent)
}

/// Lets whoever started us look at the machine while the pods run.
async fn hold() -> Result<()> {
    say(r#"{"holding":true}"#);
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    ensure!(read > 0, "the input ended during --hold");
    Ok(())
}

async fn delete(stage: &mut Stage, names: &[String]) -> Result<()> {
    for name in names {
        stage.connection.expect(200, "DELETE", &format!("{}/{name}", stage.collection), DELETE).await?;
    }
    stage.watch.wait(names, Milestone::Gone, DEADLINE).await
}
