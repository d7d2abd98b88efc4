use super::*;
use serde_json::json;

#[test]
fn expansion_follows_upstreams_table() {
    let lookup = |name: &str| match name {
        "A" => Some("1".to_owned()),
        "B_C" => Some("two".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    for (input, expected) in [
        ("plain", "plain"),
        ("$(A)", "1"),
        ("x$(A)y$(B_C)z", "x1ytwoz"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(NOPE)", "$(NOPE)"),
        ("$(A", "$(A"),
        ("$A", "$A"),
        ("end$", "end$"),
        ("$(EMPTY)", ""),
        ("$()", "$()"),
        ("$$$$", "$$"),
        ("$(A)$(A", "1$(A"),
    ] {
        assert_eq!(expand(input, lookup).as_deref(), Ok(expected), "{input}");
    }
}

#[test]
fn what_the_kernel_would_not_take_is_not_made() {
    // Each doubles the one before: the last would have 2^60 letters.
    let doubled: Vec<_> =
        (1..60).map(|n| json!({"name": format!("A{n}"), "value": format!("$(A{0})$(A{0})", n - 1)})).collect();
    let env = [vec![json!({"name": "A0", "value": "x"})], doubled].concat();
    assert_eq!(env_of(&json!({"name": "c", "env": env})), Err(EnvError::TooLong(TooLong)));
    let from: Vec<_> = (0..20).map(|n| json!({"prefix": format!("P{n}"), "configMapRef": {"name": "large"}})).collect();
    assert_eq!(env_of(&json!({"name": "c", "envFrom": from})), Err(EnvError::TooLong(TooLong)));
    // None is too long by itself.
    let long = "x".repeat(100_000);
    let many: Vec<_> = (0..100).map(|n| json!({"name": format!("B{n}"), "value": "$(A)"})).collect();
    let env = [vec![json!({"name": "A", "value": long})], many].concat();
    assert_eq!(env_of(&json!({"name": "c", "env": env})), Err(EnvError::TooLong(TooLong)));
}

struct Fixed;

impl Values for Fixed {
    fn config_map(&self, name: &str) -> Result<Option<Cow<'_, ConfigMap>>, String> {
        if name == "damaged" {
            return Err("configmaps ns/damaged cannot be read".to_owned());
        }
        if name == "large" {
            let map = json!({"metadata": {"name": "large"}, "data": {"k": "x".repeat(400_000)}});
            return Ok(Some(Cow::Owned(serde_json::from_value(map).unwrap())));
        }
        Ok((name == "cm").then(|| {
            let map = json!({"metadata": {"name": "cm"}, "data": {"k": "v", "other": "o"}});
            Cow::Owned(serde_json::from_value(map).unwrap())
        }))
    }

    fn secret(&self, name: &str) -> Result<Option<Cow<'_, Secret>>, String> {
        if name == "damaged" {
            return Err("secrets ns/damaged cannot be read".to_owned());
        }
        let secret = || serde_json::from_value(json!({"metadata": {"name": "s"}, "data": {"p": "c2VjcmV0"}})).unwrap();
        Ok((name == "s").then(|| Cow::Owned(secret())))
    }

    fn volume_file(&self, _: &str, path: &str) -> Result<Option<Cow<'_, Variables>>, String> {
        Ok((path == "f").then(|| Cow::Owned(file_variables("# c\nX='quoted'\nX=second\n#Y=1\n"))))
    }
}

fn env_of(container: &serde_json::Value) -> Result<Vec<(String, String)>, EnvError> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "serviceAccountName": "default", "containers": [container]},
    }))
    .unwrap();
    let services = BTreeMap::from([("DB_SERVICE_HOST".to_owned(), "10.96.0.9".to_owned())]);
    let fields = FieldContext::for_tests();
    build(&pod, &pod.spec().containers[0], &services, &fields, &Fixed)
}

#[track_caller]
fn check(container: serde_json::Value, expected: &[(&str, &str)]) {
    let mut container = container;
    container["name"] = json!("c");
    let mut got = env_of(&container).unwrap();
    assert_eq!(got.pop(), Some(("DB_SERVICE_HOST".to_owned(), "10.96.0.9".to_owned())));
    let expected: Vec<_> = expected.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    assert_eq!(got, expected);
}

#[test]
fn env_wins_over_env_from_and_sees_services() {
    check(
        json!({
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}}],
            "env": [{"name": "P_k", "value": "mine"}, {"name": "URL", "value": "http://$(DB_SERVICE_HOST)/$(p)"}]
        }),
        &[("P_k", "mine"), ("P_other", "o"), ("p", "secret"), ("URL", "http://10.96.0.9/secret")],
    );
}

#[test]
fn references_resolve() {
    check(
        json!({"env": [
            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "nope", "optional": true}}},
            {"name": "D", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "f", "key": "X"}}},
        ]}),
        &[("A", "web"), ("B", "v"), ("D", "quoted")],
    );
}

#[test]
fn missing_references_say_what_upstream_says() {
    for (from, expected) in [
        (json!({"configMapKeyRef": {"name": "no", "key": "k"}}), "configmap \"no\" not found"),
        (json!({"configMapKeyRef": {"name": "cm", "key": "no"}}), "couldn't find key no in ConfigMap ns/cm"),
        (json!({"secretKeyRef": {"name": "no", "key": "k"}}), "secret \"no\" not found"),
        (json!({"secretKeyRef": {"name": "s", "key": "no"}}), "couldn't find key no in Secret ns/s"),
    ] {
        let error = env_of(&json!({"name": "c", "env": [{"name": "X", "valueFrom": from}]})).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn service_variables_are_docker_links() {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "redis-master"},
        "spec": {"clusterIP": "10.0.0.11", "ports": [{"name": "main-port", "port": 6379, "protocol": "TCP"}]},
    }))
    .unwrap();
    let headless: Service = serde_json::from_value(json!({
        "metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]},
    }))
    .unwrap();
    let env = service_variables(&[service, headless]);
    let expected = [
        ("REDIS_MASTER_PORT", "tcp://10.0.0.11:6379"),
        ("REDIS_MASTER_PORT_6379_TCP", "tcp://10.0.0.11:6379"),
        ("REDIS_MASTER_PORT_6379_TCP_ADDR", "10.0.0.11"),
        ("REDIS_MASTER_PORT_6379_TCP_PORT", "6379"),
        ("REDIS_MASTER_PORT_6379_TCP_PROTO", "tcp"),
        ("REDIS_MASTER_SERVICE_HOST", "10.0.0.11"),
        ("REDIS_MASTER_SERVICE_PORT", "6379"),
        ("REDIS_MASTER_SERVICE_PORT_MAIN_PORT", "6379"),
    ];
    assert_eq!(env, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn an_optional_reference_to_what_cannot_be_read_is_not_left_out() {
    for (from, what) in [
        (
            json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "damaged", "key": "k", "optional": true}}}]}),
            "configmaps",
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "damaged", "key": "k", "optional": true}}}]}),
            "secrets",
        ),
        (json!({"envFrom": [{"configMapRef": {"name": "damaged", "optional": true}}]}), "configmaps"),
        (json!({"envFrom": [{"secretRef": {"name": "damaged", "optional": true}}]}), "secrets"),
    ] {
        let mut container = from;
        container["name"] = json!("c");
        let said = format!("{what} ns/damaged cannot be read");
        assert_eq!(env_of(&container), Err(EnvError::Unreadable(said)), "{container}");
    }
}
