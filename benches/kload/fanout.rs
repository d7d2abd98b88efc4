//! How long until the last of many watchers has an update.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::connection::{Connection, Watch};
use crate::figures::Figures;
use crate::{Context, configmap, namespace};

const WATCHERS: usize = 100;
const UPDATES: u32 = 200;
const EVERY: Duration = Duration::from_millis(50);
const SIZE: usize = 2048;
/// Between opening the watches and the first update.
const SETTLE: Duration = Duration::from_secs(2);
/// How long the last events may take after the last update.
const DEADLINE: Duration = Duration::from_secs(10);

/// One watcher has the event of this version.
struct Seen {
    version: String,
    at: Instant,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
}

/// The version that a list is of, from which a watch goes on.
pub(crate) fn list_version(list: &[u8]) -> Result<String> {
    let list: List = serde_json::from_slice(list).context("a list's metadata")?;
    Ok(list.metadata.resource_version)
}

pub(crate) async fn run(cx: &Context) -> Result<Figures> {
    let namespace = namespace::make(&cx.server, "fan", 1, SIZE).await?;
    let collection = configmap::collection(&namespace);
    let mut connection = Connection::open(&cx.server).await?;
    let from = list_version(connection.expect(200, "GET", &collection, "").await?)?;
    let mut watchers = JoinSet::new();
    // Room for all events of the test, so that no watcher ever waits for us.
    let (sender, mut seen) = mpsc::channel(WATCHERS * UPDATES as usize);
    for _ in 0..WATCHERS {
        let watch = Connection::open(&cx.server).await?;
        let path = format!("{collection}?watch=1&resourceVersion={from}&timeoutSeconds=600");
        watchers.spawn(follow(watch.watch(&path).await?, sender.clone()));
    }
    drop(sender);
    sleep(SETTLE).await;

    let before = cx.meter.read()?;
    let updates = update(&mut connection, &namespace).await?;
    let last = collect(&mut seen, &updates).await?;
    let used = cx.meter.read()?.since(&before);
    watchers.shutdown().await;

    let mut figures = Figures::default();
    figures.set_times("put", &mut updates.values().map(|u| u.answered - u.sent).collect::<Vec<_>>());
    figures.set_times(
        "last_watcher",
        &mut last.iter().map(|(version, at)| *at - updates[version].sent).collect::<Vec<_>>(),
    );
    used.set_figures(&mut figures, f64::from(UPDATES) * WATCHERS as f64);
    Ok(figures)
}

async fn follow(mut watch: Watch, sender: mpsc::Sender<Seen>) -> Result<()> {
    while let Some(event) = watch.next().await? {
        let at = Instant::now();
        let seen = Seen { version: configmap::version(&event)?.to_owned(), at };
        if sender.send(seen).await.is_err() {
            break;
        }
    }
    Ok(())
}

struct Update {
    sent: Instant,
    answered: Instant,
}

/// Sends the updates at an even pace; by the version that each got.
async fn update(connection: &mut Connection, namespace: &str) -> Result<HashMap<String, Update>> {
    let path = format!("{}/fan-0", configmap::collection(namespace));
    let mut version = configmap::version(connection.expect(200, "GET", &path, "").await?)?.to_owned();
    let tag = jiff::Timestamp::now().as_microsecond().unsigned_abs();
    let mut updates = HashMap::new();
    let start = Instant::now();
    for n in 0..UPDATES {
        sleep_until(start + EVERY * n).await;
        let body = configmap::body(namespace, "fan-0", Some(&version), SIZE, tag + u64::from(n));
        let sent = Instant::now();
        let answer = connection.expect(200, "PUT", &path, &body).await?;
        let answered = Instant::now();
        version = configmap::version(answer)?.to_owned();
        updates.insert(version.clone(), Update { sent, answered });
    }
    Ok(updates)
}

/// When the last watcher had each update.
async fn collect(
    seen: &mut mpsc::Receiver<Seen>,
    updates: &HashMap<String, Update>,
) -> Result<HashMap<String, Instant>> {
    let deadline = Instant::now() + DEADLINE;
    let mut last = HashMap::new();
    for received in 0..WATCHERS * updates.len() {
        let next = timeout_at(deadline, seen.recv()).await.ok().flatten();
        let Seen { version, at } = next.with_context(|| format!("{received} events came, then no more"))?;
        ensure!(updates.contains_key(&version), "an event of version {version}, which no update made");
        let latest = last.entry(version).or_insert(at);
        *latest = at.max(*latest);
    }
    Ok(last)
}
