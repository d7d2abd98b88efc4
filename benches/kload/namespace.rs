//! A namespace for one test, with the objects that it begins with. It stays: the server is the test's.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use crate::configmap;
use crate::connection::Connection;
use crate::kubeconfig::Server;

/// How long the service account controller may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Makes the namespace and `count` ConfigMaps of `size` characters named `PREFIX-0`, …; what is there
/// already is left.
pub(crate) async fn make(server: &Server, test: &str, count: usize, size: usize) -> Result<String> {
    let namespace = format!("kload-{test}");
    let mut connection = Connection::open(server).await?;
    let body = format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{namespace}"}}}}"#);
    create(&mut connection, "/api/v1/namespaces", &body).await?;
    let collection = configmap::collection(&namespace);
    for n in 0..count {
        let body = configmap::body(&namespace, &format!("{test}-{n}"), None, size, n as u64);
        create(&mut connection, &collection, &body).await?;
    }
    Ok(namespace)
}

async fn create(connection: &mut Connection, path: &str, body: &str) -> Result<()> {
    let answer = connection.call("POST", path, body).await?;
    let said = String::from_utf8_lossy(answer.body);
    ensure!(matches!(answer.status, 201 | 409), "POST {path}: {} {said}", answer.status);
    Ok(())
}

/// Waits until pods can be created: their service account and the root certificate are there.
pub(crate) async fn wait_for_pods(connection: &mut Connection, namespace: &str) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
    for path in [account, format!("{}/kube-root-ca.crt", configmap::collection(namespace))] {
        while connection.call("GET", &path, "").await?.status != 200 {
            ensure!(Instant::now() < deadline, "{path} did not appear");
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}
