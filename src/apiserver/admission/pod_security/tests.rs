use serde_json::json;

use super::*;

#[track_caller]
fn check(level: Level, spec: &Value, expected: Option<&str>) {
    let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
    let policy = Policy { level, version: "latest".into() };
    let got = judge(pod.spec.as_ref().unwrap(), None, &policy);
    assert_eq!(got.as_deref(), expected, "{spec}");
}

fn one(container: Value) -> Value {
    let mut container = container;
    container["name"] = json!("c");
    json!({"containers": [container]})
}

#[test]
fn the_baseline_refuses_what_reaches_the_host() {
    let check = |spec: &Value, expected: Option<&str>| {
        let expected = expected.map(|e| format!("\"baseline:latest\": {e}"));
        check(Level::Baseline, spec, expected.as_deref());
    };
    check(&one(json!({})), None);
    check(
        &one(json!({"securityContext": {"privileged": true}})),
        Some("privileged (container \"c\" must not set securityContext.privileged=true)"),
    );
    check(
        &json!({"containers": [], "hostNetwork": true, "hostPID": true}),
        Some("host namespaces (hostNetwork=true, hostPID=true)"),
    );
    check(
        &json!({"containers": [], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        Some("hostPath volumes (volume \"v\")"),
    );
    check(
        &one(json!({"ports": [{"containerPort": 1, "hostPort": 80}]})),
        Some("hostPort (container \"c\" uses hostPort 80)"),
    );
    check(
        &one(json!({"securityContext": {"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}})),
        Some(
            "non-default capabilities (container \"c\" must not include \"SYS_ADMIN\" in \
              securityContext.capabilities.add)",
        ),
    );
    check(
        &json!({"containers": [], "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
        Some("forbidden sysctls (kernel.msgmax)"),
    );
    check(
        &one(json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}})),
        Some("seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")"),
    );
}

#[test]
fn the_restricted_level_asks_for_the_least() {
    check(
        Level::Restricted,
        &one(json!({})),
        Some(
            "\"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" must set \
             securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
             securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
             securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
             securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ),
    );
    let good = json!({
        "containers": [{"name": "c", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "e", "emptyDir": {}}]});
    check(Level::Restricted, &good, None);
    let mut volume = good.clone();
    volume["volumes"][0] = json!({"name": "v", "hostPath": {"path": "/"}});
    let text = "\"restricted:latest\": restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")";
    check(Level::Restricted, &volume, Some(text));
    let mut root = good;
    root["securityContext"]["runAsUser"] = json!(0);
    check(Level::Restricted, &root, Some("\"restricted:latest\": runAsUser=0 (pod must not set runAsUser=0)"));
}
