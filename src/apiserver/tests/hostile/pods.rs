//! Inputs for the defaults and the validation of pods.

use crate::inputs::{ANY_OR_500, Input, JSON, PODS, TOO_LARGE, input, many, named, post};

/// A pod with these members beside a container.
fn pod(name: &str, rest: fn() -> String) -> Input {
    post(name, PODS, ANY_OR_500, move || {
        named(&format!("\"spec\":{{\"containers\":[{{\"name\":\"c\",\"image\":\"i\"}}],{}}}", rest()))
    })
}

/// A pod whose one container has these members.
fn container(name: &str, rest: fn() -> String) -> Input {
    post(name, PODS, ANY_OR_500, move || {
        named(&format!("\"spec\":{{\"containers\":[{{\"name\":\"c\",\"image\":\"i\",{}}}]}}", rest()))
    })
}

/// A pod with this list of containers.
fn containers(name: &str, codes: &'static [u16], count: usize, one: fn(usize) -> String) -> Input {
    post(name, PODS, codes, move || named(&format!("\"spec\":{{\"containers\":[{}]}}", many(count, one))))
}

pub(crate) fn inputs() -> Vec<Input> {
    let mut all = lists_of_containers();
    all.extend(in_containers());
    all.extend(in_specs());
    all
}

fn lists_of_containers() -> Vec<Input> {
    vec![
        containers("pods: 30,000 empty containers", TOO_LARGE, 30_000, |_| "{}".into()),
        containers("pods: 900,000 empty containers", TOO_LARGE, 900_000, |_| "{}".into()),
        containers("pods: 600,000 null containers", TOO_LARGE, 600_000, |_| "null".into()),
        containers("pods: 4,000 empty containers", ANY_OR_500, 4_000, |_| "{}".into()),
        containers("pods: 2,500 containers", ANY_OR_500, 2_500, |i| format!(r#"{{"name":"c{i}","image":"i"}}"#)),
        containers("pods: one container 2,500 times", ANY_OR_500, 2_500, |_| r#"{"name":"c","image":"i"}"#.into()),
        containers("pods: 1,500 containers with probes", ANY_OR_500, 1_500, |i| {
            format!(r#"{{"name":"c{i}","image":"i","livenessProbe":{{}},"readinessProbe":{{}},"lifecycle":{{}}}}"#)
        }),
        containers("pods: 2,000 containers with unknown fields", ANY_OR_500, 2_000, |i| {
            format!(r#"{{"name":"c{i}","image":"i",{}}}"#, many(100, |j| format!("\"u{j}\":1")))
        }),
        input("pods: a resize of 2,500 containers", ("PUT", &format!("{PODS}/small/resize"), JSON), ANY_OR_500, || {
            let list = many(2_500, |i| format!(r#"{{"name":"c{i}","image":"i"}}"#));
            format!("{{\"metadata\":{{\"name\":\"small\"}},\"spec\":{{\"containers\":[{list}]}}}}")
        }),
        pod("pods: 2,500 init containers", || {
            format!("\"initContainers\":[{}]", many(2_500, |i| format!(r#"{{"name":"c{i}","image":"i"}}"#)))
        }),
        pod("pods: 2,500 ephemeral containers", || {
            format!("\"ephemeralContainers\":[{}]", many(2_500, |i| format!(r#"{{"name":"e{i}","image":"i"}}"#)))
        }),
    ]
}

fn in_containers() -> Vec<Input> {
    vec![
        container("pods: 60,000 bad names of variables", || {
            format!("\"env\":[{}]", many(60_000, |i| format!(r#"{{"name":"=v{i}"}}"#)))
        }),
        container("pods: 10,000 bad names of variables", || {
            format!("\"env\":[{}]", many(10_000, |i| format!(r#"{{"name":"=v{i}"}}"#)))
        }),
        container("pods: one variable 10,000 times", || {
            format!("\"env\":[{}]", many(10_000, |_| r#"{"name":"v"}"#.into()))
        }),
        container("pods: 6,000 sources of variables", || {
            format!("\"env\":[{}]", many(6_000, |i| format!(r#"{{"name":"v{i}","valueFrom":{{}}}}"#)))
        }),
        container("pods: 30,000 ports", || {
            format!("\"ports\":[{}]", many(15_000, |i| format!(r#"{{"containerPort":{}}}"#, i + 1)))
        }),
        container("pods: one port of the host 15,000 times", || {
            format!("\"ports\":[{}]", many(15_000, |_| r#"{"containerPort":1,"hostPort":1}"#.into()))
        }),
        container("pods: mounts and devices", || {
            let mounts = many(7_000, |i| format!(r#"{{"name":"m{i}","mountPath":"/m{i}"}}"#));
            let devices = many(7_000, |i| format!(r#"{{"name":"d{i}","devicePath":"/d{i}"}}"#));
            format!("\"volumeMounts\":[{mounts}],\"volumeDevices\":[{devices}]")
        }),
        container("pods: 100,000 arguments", || format!("\"args\":[{}]", many(100_000, |_| "\"a\"".into()))),
        container("pods: 20,000 capabilities", || {
            let list = many(60_000, |i| format!("\"C{i}\""));
            format!("\"securityContext\":{{\"capabilities\":{{\"add\":[{list}]}}}}")
        }),
        container("pods: 17,000 limits", || {
            format!("\"resources\":{{\"limits\":{{{}}}}}", many(17_000, |i| format!("\"r{i}\":\"1\"")))
        }),
        container("pods: 30,000 limits", || {
            format!("\"resources\":{{\"limits\":{{{}}}}}", many(30_000, |i| format!("\"r{i}\":\"1\"")))
        }),
        container("pods: 10,000 resize policies", || {
            format!("\"resizePolicy\":[{}]", many(15_000, |i| format!(r#"{{"resourceName":"r{i}"}}"#)))
        }),
    ]
}

fn in_specs() -> Vec<Input> {
    vec![
        pod("pods: 3,000 empty volumes", || format!("\"volumes\":[{}]", many(3_000, |_| "{}".into()))),
        pod("pods: one volume 3,000 times", || {
            format!("\"volumes\":[{}]", many(3_000, |_| r#"{"name":"v","emptyDir":{}}"#.into()))
        }),
        pod("pods: 3,000 ephemeral volumes", || {
            format!("\"volumes\":[{}]", many(1_500, |i| format!(r#"{{"name":"v{i}","ephemeral":{{}}}}"#)))
        }),
        pod("pods: 30,000 items of a volume", || {
            let items = many(14_000, |i| format!(r#"{{"key":"k{i}","path":"../{i}"}}"#));
            format!("\"volumes\":[{{\"name\":\"v\",\"configMap\":{{\"name\":\"c\",\"items\":[{items}]}}}}]")
        }),
        pod("pods: 20,000 tolerations", || {
            format!("\"tolerations\":[{}]", many(14_000, |i| format!(r#"{{"key":"k{i}","operator":"x"}}"#)))
        }),
        pod("pods: 8,000 topology constraints", || {
            format!("\"topologySpreadConstraints\":[{}]", many(8_000, |i| format!(r#"{{"topologyKey":"k{i}"}}"#)))
        }),
        pod("pods: keys of an affinity", || {
            let keys = many(20_000, |i| format!("\"k{i}\""));
            let expressions = many(8_000, |i| format!(r#"{{"key":"k{i}","operator":"Exists"}}"#));
            let term = format!(
                "{{\"topologyKey\":\"t\",\"matchLabelKeys\":[{keys}],\"mismatchLabelKeys\":[{keys}],\
                 \"labelSelector\":{{\"matchExpressions\":[{expressions}]}}}}"
            );
            format!("\"affinity\":{{\"podAffinity\":{{\"requiredDuringSchedulingIgnoredDuringExecution\":[{term}]}}}}")
        }),
        pod("pods: 10,000 terms of a node affinity", || {
            let terms = many(10_000, |_| r#"{"matchFields":[{}]}"#.into());
            let required =
                format!("\"requiredDuringSchedulingIgnoredDuringExecution\":{{\"nodeSelectorTerms\":[{terms}]}}");
            format!("\"affinity\":{{\"nodeAffinity\":{{{required}}}}}")
        }),
        pod("pods: 50,000 labels of a node selector", || {
            format!("\"nodeSelector\":{{{}}}", many(45_000, |i| format!("\"-k{i}\":\"-\"")))
        }),
        pod("pods: 20,000 scheduling gates", || {
            format!("\"schedulingGates\":[{}]", many(18_000, |_| r#"{"name":"-"}"#.into()))
        }),
        pod("pods: 15,000 sysctls", || {
            let list = many(15_000, |_| r#"{"name":"-","value":""}"#.into());
            format!("\"securityContext\":{{\"sysctls\":[{list}]}}")
        }),
        pod("pods: 15,000 host aliases", || {
            format!("\"hostAliases\":[{}]", many(15_000, |_| r#"{"ip":"x","hostnames":["-"]}"#.into()))
        }),
        pod("pods: 15,000 addresses of host aliases", || {
            format!("\"hostAliases\":[{}]", many(15_000, |i| format!(r#"{{"ip":"10.0.{}.{}"}}"#, i / 250, i % 250)))
        }),
        pod("pods: 20,000 pull secrets", || {
            format!("\"imagePullSecrets\":[{}]", many(18_000, |_| r#"{"name":""}"#.into()))
        }),
        pod("pods: claims of resources", || {
            let claims = many(8_000, |i| format!(r#"{{"name":"r{i}","resourceClaimName":"x"}}"#));
            let used = many(8_000, |i| format!(r#"{{"name":"u{i}"}}"#));
            format!(
                "\"resourceClaims\":[{claims}],\"initContainers\":[{{\"name\":\"i\",\"image\":\"i\",\"resources\":{{\"claims\":[{used}]}}}}]"
            )
        }),
        pod("pods: DNS options", || {
            let options = many(15_000, |_| r#"{"name":""}"#.into());
            format!("\"dnsConfig\":{{\"options\":[{options}],\"searches\":[{}]}}", many(20_000, |_| "\"-\"".into()))
        }),
        pod("pods: readiness gates", || {
            format!("\"readinessGates\":[{}]", many(15_000, |_| r#"{"conditionType":"-"}"#.into()))
        }),
    ]
}
