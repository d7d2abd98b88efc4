//! The voting application: five Deployments and four Services that find each other by name.

use crate::cluster::Cluster;

pub(crate) const TESTS: &[(&str, fn(&Cluster))] = &[("voting_app_counts_a_vote", vote)];

fn deployment(name: &str, image: &str, port: u16) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}-deploy, labels: {{app: demo-voting-app}}}}\nspec:\n  replicas: 1\n  selector: {{matchLabels: {{name: {name}-pod, app: demo-voting-app}}}}\n  template:\n    metadata: {{name: {name}-pod, labels: {{name: {name}-pod, app: demo-voting-app}}}}\n    spec:\n      containers:\n      - name: {name}\n        image: {image}\n        ports: [{{containerPort: {port}}}]\n        env: [{{name: POSTGRES_USER, value: postgres}}, {{name: POSTGRES_PASSWORD, value: postgres}}]\n---\n"
    )
}

fn service(name: &str, pod: &str, port: u16, node_port: Option<u16>) -> String {
    let (kind, extra) = node_port.map_or(("ClusterIP", String::new()), |p| ("NodePort", format!(", nodePort: {p}")));
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, labels: {{app: demo-voting-app}}}}\nspec:\n  type: {kind}\n  ports: [{{port: {port}, targetPort: {port}{extra}}}]\n  selector: {{name: {pod}, app: demo-voting-app}}\n---\n"
    )
}

fn vote(c: &Cluster) {
    c.namespace("voting");
    let manifest: String = [
        deployment("voting-app", "kodekloud/examplevotingapp_vote:v1", 80),
        deployment("result-app", "kodekloud/examplevotingapp_result:v1", 80),
        deployment("worker-app", "kodekloud/examplevotingapp_worker:v1", 80),
        deployment("redis", "redis", 6379),
        deployment("postgres", "postgres", 5432),
        service("voting-service", "voting-app-pod", 80, Some(30004)),
        service("result-service", "result-app-pod", 80, Some(30005)),
        service("redis", "redis-pod", 6379, None),
        service("db", "postgres-pod", 5432, None),
    ]
    .concat();
    c.apply("voting", &manifest);
    for name in ["voting-app", "result-app", "worker-app", "redis", "postgres"] {
        c.kubectl(&["rollout", "status", "-nvoting", &format!("deployment/{name}-deploy"), "--timeout=120s"]);
    }
    c.wait("a vote can be cast", |c| {
        let mut curl = c.machine.lan("curl");
        curl.args(["-sf", "-m", "10", "-d", "vote=a&voter=ann", "http://192.168.77.2:30004/"])
            .output()
            .unwrap()
            .status
            .success()
    });
    c.wait("the vote shows", |c| {
        c.fetch_from_lan("http://192.168.77.2:30005/").is_some_and(|b| b.contains("\"a\": 1"))
    });
    c.kubectl(&["delete", "namespace", "voting", "--wait=false"]);
}
