//! Inputs for metadata and the validation of the other kinds.

use crate::inputs::{ANY_OR_500, CONFIG_MAPS, Input, many, named, post, with_metadata};

fn object(name: &str, path: &str, rest: fn() -> String) -> Input {
    post(name, path, ANY_OR_500, move || named(&rest()))
}

fn metadata(name: &str, rest: fn() -> String) -> Input {
    post(name, CONFIG_MAPS, ANY_OR_500, move || with_metadata(&rest()))
}

pub(crate) fn inputs() -> Vec<Input> {
    let mut all = of_metadata();
    all.extend(of_core());
    all.extend(of_others());
    all
}

fn of_metadata() -> Vec<Input> {
    vec![
        metadata("metadata: 100,000 bad finalizers", || {
            format!("\"finalizers\":[{}]", many(100_000, |i| format!("\"{i}\"")))
        }),
        metadata("metadata: 700,000 empty finalizers", || {
            format!("\"finalizers\":[{}]", many(700_000, |_| "\"\"".into()))
        }),
        metadata("metadata: 40,000 bad labels", || {
            format!("\"labels\":{{{}}}", many(40_000, |i| format!("\"-{i}\":\"-\"")))
        }),
        metadata("metadata: 40,000 annotations", || {
            format!("\"annotations\":{{{}}}", many(40_000, |i| format!("\"-{i}\":\"\"")))
        }),
        metadata("metadata: 9,000 owners that control", || {
            format!("\"ownerReferences\":[{}]", many(9_000, |_| r#"{"uid":"u","controller":true}"#.into()))
        }),
        metadata("metadata: owners that are events", || {
            format!("\"ownerReferences\":[{}]", many(9_000, |_| r#"{"apiVersion":"v1","kind":"Event"}"#.into()))
        }),
        post("metadata: a name of 3 MB", CONFIG_MAPS, ANY_OR_500, || {
            format!("{{\"metadata\":{{\"name\":\"{}\"}}}}", "-.".repeat(1_500_000))
        }),
        post("metadata: a label of 3 MB", CONFIG_MAPS, ANY_OR_500, || {
            with_metadata(&format!("\"labels\":{{\"a\":\"{}\"}}", "-".repeat(3_000_000)))
        }),
    ]
}

fn of_core() -> Vec<Input> {
    let services = "/api/v1/namespaces/default/services";
    vec![
        object("config maps: 70,000 bad keys", CONFIG_MAPS, || {
            format!("\"data\":{{{}}}", many(70_000, |i| format!("\"/{i}\":\"\"")))
        }),
        object("config maps: 40,000 bad keys", CONFIG_MAPS, || {
            format!("\"data\":{{{}}}", many(40_000, |i| format!("\"/{i}\":\"\"")))
        }),
        object("config maps: a value of 3 MB", CONFIG_MAPS, || {
            format!("\"data\":{{\"a\":\"{}\"}}", "x".repeat(3_000_000))
        }),
        object("config maps: binary data", CONFIG_MAPS, || {
            format!("\"binaryData\":{{\"a\":\"{}\"}}", "AAAA".repeat(700_000))
        }),
        object("secrets: 40,000 bad keys", "/api/v1/namespaces/default/secrets", || {
            format!("\"stringData\":{{{}}}", many(40_000, |i| format!("\"/{i}\":\"\"")))
        }),
        object("services: 12,000 ports", services, || {
            format!("\"spec\":{{\"ports\":[{}]}}", many(12_000, |i| format!(r#"{{"port":{}}}"#, i + 1)))
        }),
        object("services: one port 12,000 times", services, || {
            format!(
                "\"spec\":{{\"type\":\"NodePort\",\"ports\":[{}]}}",
                many(12_000, |_| r#"{"port":1,"nodePort":1}"#.into())
            )
        }),
        object("services: node ports run out", services, || {
            format!(
                "\"spec\":{{\"type\":\"NodePort\",\"ports\":[{}]}}",
                many(12_000, |i| { format!(r#"{{"name":"p{i}","port":{}}}"#, i + 1) })
            )
        }),
        object("services: 80,000 external addresses", services, || {
            format!("\"spec\":{{\"ports\":[{{\"port\":1}}],\"externalIPs\":[{}]}}", many(80_000, |_| "\"x\"".into()))
        }),
        object("services: 80,000 families", services, || {
            let families = many(80_000, |i| format!("\"f{i}\""));
            format!("\"spec\":{{\"ports\":[{{\"port\":1}}],\"ipFamilies\":[{families}],\"clusterIPs\":[{families}]}}")
        }),
        object("endpoints: 10,000 subsets", "/api/v1/namespaces/default/endpoints", || {
            format!("\"subsets\":[{}]", many(10_000, |_| r#"{"addresses":[{}],"ports":[{}]}"#.into()))
        }),
        object("nodes: 80,000 ranges", "/api/v1/nodes", || {
            format!("\"spec\":{{\"podCIDRs\":[{}]}}", many(80_000, |i| format!("\"{i}\"")))
        }),
        object("nodes: 15,000 taints", "/api/v1/nodes", || {
            format!("\"spec\":{{\"taints\":[{}]}}", many(15_000, |i| format!(r#"{{"key":"-{i}"}}"#)))
        }),
        object("limit ranges: 10,000 limits", "/api/v1/namespaces/default/limitranges", || {
            format!("\"spec\":{{\"limits\":[{}]}}", many(10_000, |i| format!(r#"{{"type":"t{i}"}}"#)))
        }),
        object("volumes: 80,000 access modes", "/api/v1/persistentvolumes", || {
            format!("\"spec\":{{\"accessModes\":[{}]}}", many(80_000, |i| format!("\"m{i}\"")))
        }),
    ]
}

fn of_others() -> Vec<Input> {
    let apps = |kind: &str| format!("/apis/apps/v1/namespaces/default/{kind}");
    let batch = |kind: &str| format!("/apis/batch/v1/namespaces/default/{kind}");
    vec![
        object("slices: 10,000 endpoints", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", || {
            format!(
                "\"addressType\":\"IPv4\",\"endpoints\":[{}]",
                many(10_000, |_| r#"{"addresses":["x","x"]}"#.into())
            )
        }),
        object("roles: 12,000 rules", "/apis/rbac.authorization.k8s.io/v1/clusterroles", || {
            format!("\"rules\":[{}]", many(12_000, |_| r#"{"verbs":[]}"#.into()))
        }),
        object("roles: a rule for 27 million permissions", "/apis/rbac.authorization.k8s.io/v1/clusterroles", || {
            let list = many(300, |i| format!("\"x{i}\""));
            format!("\"rules\":[{{\"verbs\":[{list}],\"apiGroups\":[{list}],\"resources\":[{list}]}}]")
        }),
        object("bindings: 15,000 subjects", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", || {
            let subjects = many(15_000, |_| r#"{"kind":"x"}"#.into());
            format!("\"roleRef\":{{}},\"subjects\":[{subjects}]")
        }),
        object("ingresses: 8,000 rules", "/apis/networking.k8s.io/v1/namespaces/default/ingresses", || {
            format!(
                "\"spec\":{{\"rules\":[{}]}}",
                many(8_000, |i| { format!(r#"{{"host":"*{i}","http":{{"paths":[{{}}]}}}}"#) })
            )
        }),
        object("jobs: 8,000 failure rules", &batch("jobs"), || {
            let rules = many(8_000, |_| r#"{"action":"x","onExitCodes":{"containerName":"x"}}"#.into());
            let template = "\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}";
            format!("\"spec\":{{{template},\"podFailurePolicy\":{{\"rules\":[{rules}]}}}}")
        }),
        object("jobs: 150,000 exit codes", &batch("jobs"), || {
            let codes = many(150_000, |i| i.to_string());
            let rule =
                format!("{{\"action\":\"Ignore\",\"onExitCodes\":{{\"operator\":\"In\",\"values\":[{codes}]}}}}");
            format!("\"spec\":{{\"template\":{{}},\"podFailurePolicy\":{{\"rules\":[{rule}]}}}}")
        }),
        object("cron jobs: a schedule of 3 MB", &batch("cronjobs"), || {
            format!("\"spec\":{{\"schedule\":\"{}\",\"jobTemplate\":{{}}}}", "1,".repeat(1_500_000))
        }),
        object("stateful sets: 3,000 claims", &apps("statefulsets"), || {
            let claims = many(3_000, |_| "{}".into());
            format!("\"spec\":{{\"selector\":{{}},\"template\":{{}},\"volumeClaimTemplates\":[{claims}]}}")
        }),
        object("deployments: 15,000 expressions", &apps("deployments"), || {
            let expressions = many(15_000, |_| r#"{"key":"-","operator":"In"}"#.into());
            format!("\"spec\":{{\"selector\":{{\"matchExpressions\":[{expressions}]}},\"template\":{{}}}}")
        }),
        object("deployments: 2,000 containers", &apps("deployments"), || {
            let containers = many(2_000, |i| format!(r#"{{"name":"c{i}","image":"i"}}"#));
            let template =
                format!("{{\"metadata\":{{\"labels\":{{\"a\":\"b\"}}}},\"spec\":{{\"containers\":[{containers}]}}}}");
            format!("\"spec\":{{\"selector\":{{\"matchLabels\":{{\"a\":\"b\"}}}},\"template\":{template}}}")
        }),
        object("requests: 80,000 usages", "/apis/certificates.k8s.io/v1/certificatesigningrequests", || {
            let usages = many(80_000, |i| format!("\"u{i}\""));
            format!("\"spec\":{{\"request\":\"\",\"signerName\":\"a.b/c\",\"usages\":[{usages}]}}")
        }),
        object(
            "autoscalers: 6,000 metrics",
            "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers",
            || {
                format!(
                    "\"spec\":{{\"maxReplicas\":1,\"scaleTargetRef\":{{}},\"metrics\":[{}]}}",
                    many(6_000, |_| "{}".into())
                )
            },
        ),
    ]
}
