//! Inputs for the three kinds of patches.

use crate::inputs::{ANY_OR_500, CONFIG_MAPS, Input, PODS, TOO_LARGE, input, many};

const PATCH: &str = "PATCH";
const JSON_PATCH: &str = "application/json-patch+json";

/// The large object of a collection, which stays as it is.
fn dry(collection: &str) -> String {
    format!("{collection}/large?dryRun=All")
}

fn patch(name: &str, path: &str, form: &'static str, codes: &'static [u16], body: fn() -> String) -> Input {
    input(name, (PATCH, path, form), codes, body)
}

fn json(name: &str, codes: &'static [u16], body: fn() -> String) -> Input {
    patch(name, &format!("{CONFIG_MAPS}/small"), JSON_PATCH, codes, body)
}

fn merge(name: &str, body: fn() -> String) -> Input {
    patch(name, &format!("{CONFIG_MAPS}/small"), "application/merge-patch+json", ANY_OR_500, body)
}

fn strategic(name: &str, pod: &str, body: fn() -> String) -> Input {
    patch(name, &format!("{PODS}/{pod}"), "application/strategic-merge-patch+json", ANY_OR_500, body)
}

pub(crate) fn inputs() -> Vec<Input> {
    let mut all = of_json();
    all.extend(of_merge());
    all.extend(of_strategic());
    all
}

/// A list of 50,000 elements, then operations on it.
fn on_a_long_list(count: usize, operation: &str) -> String {
    let list = many(50_000, |_| "0".into());
    let operations = many(count, |_| operation.into());
    format!("[{{\"op\":\"add\",\"path\":\"/x\",\"value\":[{list}]}},{operations}]")
}

fn of_json() -> Vec<Input> {
    vec![
        json("json patch: remove the first of 50,000", TOO_LARGE, || {
            on_a_long_list(9_990, r#"{"op":"remove","path":"/x/0"}"#)
        }),
        json("json patch: add before 50,000", TOO_LARGE, || {
            on_a_long_list(9_990, r#"{"op":"add","path":"/x/0","value":1}"#)
        }),
        json("json patch: move the first of 50,000", TOO_LARGE, || {
            on_a_long_list(9_990, r#"{"op":"move","from":"/x/0","path":"/x/-"}"#)
        }),
        json("json patch: remove the last of 50,000", ANY_OR_500, || {
            on_a_long_list(9_990, r#"{"op":"remove","path":"/x/-1"}"#)
        }),
        json("json patch: test an element of 50,000", ANY_OR_500, || {
            on_a_long_list(9_990, r#"{"op":"test","path":"/x/25000","value":0}"#)
        }),
        json("json patch: test the whole list", ANY_OR_500, || {
            on_a_long_list(9_990, r#"{"op":"test","path":"","value":0}"#)
        }),
        json("json patch: copy a list of 50,000", ANY_OR_500, || {
            on_a_long_list(9_990, r#"{"op":"copy","from":"/x","path":"/y"}"#)
        }),
        json("json patch: copies that double", ANY_OR_500, || {
            format!(
                "[{{\"op\":\"add\",\"path\":\"/x\",\"value\":{{\"a\":{{}}}}}},{}]",
                many(60, |i| { format!(r#"{{"op":"copy","from":"/x","path":"/x/c{i}"}}"#) })
            )
        }),
        json("json patch: copies of empty maps", ANY_OR_500, || {
            let maps = many(10_000, |_| r#"{"a":1}"#.into());
            let copies = many(9_000, |i| format!(r#"{{"op":"copy","from":"/x","path":"/y{i}"}}"#));
            format!("[{{\"op\":\"add\",\"path\":\"/x\",\"value\":[{maps}]}},{copies}]")
        }),
        json("json patch: 10,001 operations", TOO_LARGE, || {
            format!("[{}]", many(10_001, |_| r#"{"op":"test","path":"/kind","value":"ConfigMap"}"#.into()))
        }),
        json("json patch: 200,000 operations", TOO_LARGE, || format!("[{}]", many(200_000, |_| "{}".into()))),
        json("json patch: a path of 3 MB", ANY_OR_500, || {
            format!("[{{\"op\":\"add\",\"path\":\"{}\",\"value\":1}}]", "/a".repeat(1_500_000))
        }),
        json("json patch: paths of 300 steps", ANY_OR_500, || {
            let deep = "/a".repeat(120);
            let adds = many(120, |i| format!(r#"{{"op":"add","path":"/x{}","value":{{}}}}"#, &deep[..2 * i]));
            format!("[{adds},{}]", many(9_000, |_| format!(r#"{{"op":"add","path":"/x{deep}","value":1}}"#)))
        }),
        patch("json patch: 9,900 moves in a large map", &dry(CONFIG_MAPS), JSON_PATCH, ANY_OR_500, || {
            let one = |i| format!(r#"{{"op":"move","from":"/data/k{i}","path":"/data/m{i}"}}"#);
            format!("[{}]", many(9_900, one))
        }),
        patch("json patch: 9,900 moves in a large list", &dry(PODS), JSON_PATCH, ANY_OR_500, || {
            let env = "/spec/containers/0/env";
            let one = format!(r#"{{"op":"move","from":"{env}/1000","path":"{env}/-"}}"#);
            format!("[{}]", many(9_900, |_| one.clone()))
        }),
        json("json patch: nesting by moves", ANY_OR_500, || {
            let one = concat!(
                r#"{"op":"add","path":"/b","value":{}},{"op":"move","from":"/x","path":"/b/x"},"#,
                r#"{"op":"move","from":"/b","path":"/x"}"#
            );
            format!("[{{\"op\":\"add\",\"path\":\"/x\",\"value\":{{}}}},{}]", many(3_300, |_| one.into()))
        }),
        json("json patch: 50,000 bad finalizers", ANY_OR_500, || {
            let list = many(50_000, |i| format!("\"{i}\""));
            format!("[{{\"op\":\"add\",\"path\":\"/metadata/finalizers\",\"value\":[{list}]}}]")
        }),
        json("json patch: 5,000 unknown fields", ANY_OR_500, || {
            format!("[{}]", many(5_000, |i| format!(r#"{{"op":"add","path":"/u{i}","value":1}}"#)))
        }),
    ]
}

fn of_merge() -> Vec<Input> {
    vec![
        merge("merge patch: 50,000 unknown keys", || format!("{{{}}}", many(50_000, |i| format!("\"k{i}\":1")))),
        merge("merge patch: 200,000 nulls", || format!("{{{}}}", many(60_000, |i| format!("\"k{i}\":null")))),
        merge("merge patch: one key 300,000 times", || format!("{{{}}}", many(300_000, |_| "\"k\":1".into()))),
        merge("merge patch: 1 million brackets", || "[".repeat(1_000_000)),
        merge("merge patch: nested maps", || format!("{}1{}", "{\"a\":".repeat(120), "}".repeat(120))),
        merge("merge patch: 40,000 bad keys of data", || {
            format!("{{\"data\":{{{}}}}}", many(40_000, |i| format!("\"/{i}\":\"\"")))
        }),
        merge("merge patch: a wrong type with 3 MB beside it", || {
            format!("{{\"immutable\":1,\"data\":{{\"a\":\"{}\"}}}}", "\\\"".repeat(1_400_000))
        }),
        patch(
            "merge patch: a large object",
            &format!("{CONFIG_MAPS}/large"),
            "application/merge-patch+json",
            ANY_OR_500,
            || "{\"immutable\":1}".into(),
        ),
    ]
}

fn of_strategic() -> Vec<Input> {
    vec![
        strategic("strategic patch: 15,000 containers", "small", || {
            let list = many(15_000, |i| format!(r#"{{"name":"c{i}"}}"#));
            format!("{{\"spec\":{{\"containers\":[{list}]}}}}")
        }),
        strategic("strategic patch: one container 10,000 times", "large", || {
            let list = many(10_000, |_| r#"{"name":"c","env":[{"name":"v0"}]}"#.into());
            format!("{{\"spec\":{{\"containers\":[{list}]}}}}")
        }),
        strategic("strategic patch: 10,000 variables", "large", || {
            let list = many(10_000, |i| format!(r#"{{"name":"v{}"}}"#, i * 2));
            format!("{{\"spec\":{{\"containers\":[{{\"name\":\"c\",\"env\":[{list}]}}]}}}}")
        }),
        strategic("strategic patch: an order of 15,000", "large", || {
            let list = many(15_000, |i| format!(r#"{{"name":"v{i}"}}"#));
            format!("{{\"spec\":{{\"containers\":[{{\"name\":\"c\",\"$setElementOrder/env\":[{list}]}}]}}}}")
        }),
        strategic("strategic patch: 10,000 deletions", "large", || {
            let list = many(10_000, |i| format!(r#"{{"$patch":"delete","name":"v{i}"}}"#));
            format!("{{\"spec\":{{\"containers\":[{{\"name\":\"c\",\"env\":[{list}]}}]}}}}")
        }),
        strategic("strategic patch: 60,000 finalizers", "small", || {
            format!("{{\"metadata\":{{\"finalizers\":[{}]}}}}", many(60_000, |i| format!("\"a/{i}\"")))
        }),
        strategic("strategic patch: values to delete", "small", || {
            let list = many(60_000, |i| format!("\"a/{i}\""));
            format!("{{\"metadata\":{{\"$deleteFromPrimitiveList/finalizers\":[{list}],\"finalizers\":[{list}]}}}}")
        }),
        strategic("strategic patch: keys to retain", "small", || {
            let keys = many(40_000, |i| format!("\"k{i}\""));
            let members = many(20_000, |i| format!("\"k{i}\":\"x\""));
            format!("{{\"metadata\":{{\"annotations\":{{\"$retainKeys\":[{keys}],{members}}}}}}}")
        }),
        strategic("strategic patch: 50,000 unknown keys", "small", || {
            format!("{{\"spec\":{{{}}}}}", many(50_000, |i| format!("\"k{i}\":1")))
        }),
        strategic("strategic patch: an unknown directive", "small", || {
            let members = many(50_000, |i| format!("\"k{i}\":1"));
            format!("{{\"spec\":{{\"$patch\":\"x\",{members}}}}}")
        }),
    ]
}
