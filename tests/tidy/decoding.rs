//! Data that cannot be written or read is an error, never a default and never absent: a key that all
//! share, a port that seems free, a claim that seems unused.
//!
//! Text is enough to hold the rule. In one expression, the result of a call that encodes or decodes does
//! not end in `unwrap_or_default()` without a `?` between. Where decisions on security or deletion are
//! made, the result of a call that decodes ends neither in `.ok()`, `.is_ok()` and `.is_ok_and()` nor
//! in a `let Ok(…)` that takes what fails for absent, unless `inspect_err` has told the error.

use std::collections::BTreeMap;

/// Calls that encode.
const ENCODERS: [&str; 3] = ["serde_json::to_vec", "serde_json::to_value", "serde_json::to_string"];
/// Calls that decode.
const DECODERS: [&str; 11] = [
    "serde_json::from_value",
    "serde_json::from_slice",
    "serde_json::from_str",
    "from_reader",
    "deserialize",
    ".decode()",
    ".decode::<",
    "Self::decode(",
    "durable::decode",
    "durable::read(",
    "read_optional",
];
/// Where a decision on security or deletion is made.
const GUARDED: [&str; 13] = [
    "src/apiserver/admission/",
    "src/apiserver/allocate/",
    "src/apiserver/auth/",
    "src/apiserver/registry/",
    "src/apiserver/rest/",
    "src/appliance/",
    "src/controllers/",
    "src/kubelet/",
    "src/network/",
    "src/runtime/contract/",
    "src/runtime/image/",
    "src/runtime/node/",
    "src/storage/",
];
/// Where it is right all the same: the file, a part of the expression, and why.
const EXEMPT: [(&str, &str, &str); 21] = [
    ("src/kubelet/node/host_ports.rs", "decode::<Service>()", "a Service that cannot be read is served to nobody"),
    ("src/controllers/service/mod.rs", "decode::<Pod>()", "a pod that cannot be read may have any port"),
    (
        "src/api/kinds/typed.rs",
        "Self::decode(obj)",
        "validation refuses the object; there is nothing to warn of beside",
    ),
    (
        "src/apiserver/allocate/mod.rs",
        "decode::<Service>()",
        "the caller refuses to allocate beside what it cannot read",
    ),
    ("src/apiserver/auth/node_references.rs", "VolumeAttachment", "a node is refused what it seems not to attach"),
    (
        "src/apiserver/auth/node_references.rs",
        "decode::<Pod>()",
        "a node is refused what only an unreadable pod may name",
    ),
    ("src/apiserver/auth/node_references.rs", "\"persistentvolumes\"), &key)", "a node is refused what no claim names"),
    ("src/apiserver/auth/node_references.rs", "PersistentVolumeClaim", "a node is refused what no volume names"),
    ("src/apiserver/auth/service_account.rs", "decode::<Deleting>()", "an end that cannot be read has passed"),
    (
        "src/apiserver/registry/encode.rs",
        "Located",
        "what this server encoded has a revision; other bytes are sent as they are",
    ),
    ("src/apiserver/rest/proxy/target.rs", "get(&pods, &key)", "no request is sent to what only such a pod may have"),
    (
        "src/appliance/services/addresses.rs",
        "service.decode()",
        "a report: one that cannot be read keeps none of the others from being told",
    ),
    (
        "src/appliance/services/node.rs",
        "let Ok(Ranged { spec }) = node.decode()",
        "a server whose one node cannot be read has to start: how else would it be mended?",
    ),
    ("src/appliance/services/parts.rs", "decode::<Node>()", "the conditions are written whole"),
    ("src/controllers/claim.rs", "let selector = o.decode()", "an owner that cannot be read takes nothing over"),
    ("src/controllers/job/orphans.rs", "decode::<Job>()", "the pods of a Job that cannot be read keep their finalizer"),
    ("src/controllers/nodelifecycle/mod.rs", "let node = object.decode", "a node that cannot be read is left alone"),
    ("src/controllers/service/mod.rs", "decode::<Service>()", "the Service's own round makes it an error"),
    ("src/controllers/service/mod.rs", "decode::<Node>()", "every change of such a node counts as one"),
    ("src/controllers/services.rs", "decode::<Service>()", "the Service's own round makes it an error"),
    ("src/kubelet/server/streams.rs", "from_slice(payload)", "what a client sends that is no size changes none"),
];

/// Behind the arguments of the call that begins at `from`; `None` when they are still open at the end.
fn behind_arguments(text: &str, from: usize) -> Option<usize> {
    let open = from + text[from..].find('(')?;
    let mut depth = 0_usize;
    for (at, c) in text[open..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(open + at + 1),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The expression that ends at `end`: back to where its statement begins.
fn expression(text: &str, end: usize) -> &str {
    let begin = text[..end].rfind([';', '{', '}']).map_or(0, |at| at + 1);
    &text[begin..end]
}

/// Whether the result of one of `calls` reaches the end of the expression as a `Result`.
fn ends_in_error(expression: &str, calls: &[&str]) -> bool {
    calls.iter().any(|call| {
        expression.match_indices(call).any(|(at, _)| {
            let end = behind_arguments(expression, at);
            end.is_some_and(|end| {
                !["?", "inspect_err", "map_or_else"].iter().any(|told| expression[end..].contains(told))
            })
        })
    })
}

/// Expressions that make an error of encoding or decoding a default.
fn defaults(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let calls = [ENCODERS.as_slice(), DECODERS.as_slice()].concat();
    let found = text.match_indices(".unwrap_or_default()").map(|(at, _)| (at, expression(text, at)));
    found.filter(move |(_, expression)| ends_in_error(expression, &calls))
}

/// Expressions that take what does not decode for absent.
fn absences(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let ends = [".ok()", ".is_ok()", ".is_ok_and("].into_iter().flat_map(move |end| text.match_indices(end));
    let ends = ends.map(|(at, _)| (at, expression(text, at)));
    let lets = ["let Ok(", "let Some(Ok("].into_iter().flat_map(move |begin| text.match_indices(begin));
    let lets = lets.map(|(at, _)| {
        let rest = &text[at..];
        let end = [" {\n", " else ", ";"].into_iter().filter_map(|end| rest.find(end)).min();
        (at, &rest[..end.unwrap_or(rest.len())])
    });
    ends.chain(lets).filter(|(_, expression)| ends_in_error(expression, &DECODERS))
}

/// Each place that makes an error a default or an absence, and each exemption that nothing needs.
pub(crate) fn offenders(sources: &BTreeMap<String, String>) -> Vec<String> {
    let (mut found, mut needed) = (Vec::new(), [false; EXEMPT.len()]);
    for (path, text) in sources.iter().filter(|(path, _)| path.starts_with("src/") && !super::is_test_file(path)) {
        let text = super::without_tests(text);
        let guarded = GUARDED.iter().any(|dir| path.starts_with(dir));
        for (at, expression) in defaults(text).chain(absences(text).filter(|_| guarded)) {
            match EXEMPT.iter().position(|(file, part, _)| file == path && expression.contains(part)) {
                Some(exempt) => needed[exempt] = true,
                None => found.push(format!("{path}:{}", text[..at].lines().count())),
            }
        }
    }
    let unused = EXEMPT.iter().zip(needed).filter(|(_, needed)| !needed);
    found.extend(unused.map(|((path, part, _), _)| format!("{path}: nothing is exempt by {part:?} any more")));
    found
}

#[test]
fn defaults_in_place_of_errors_are_found() {
    for (code, expected) in [
        ("let key = hash(serde_json::to_vec(&spec).unwrap_or_default());", true),
        ("let spec = object.decode::<Service>().ok().and_then(|s| s.spec).unwrap_or_default();", true),
        ("let node = |o| o\n    .decode::<Node>()\n    .map(|n| of(&n))\n    .unwrap_or_default();", true),
        ("f(LabelSelector::deserialize(json).map(|s| text(&s)).unwrap_or_default())", true),
        ("let spec = pod.decode::<Pod>().map_err(internal)?.spec.unwrap_or_default();", false),
        ("let value = serde_json::to_value(options.unwrap_or_default())?;", false),
        ("let all = record.addresses().to_vec().unwrap_or_default();", false),
        ("let a = o.decode::<A>()?; let b = c.unwrap_or_default();", false),
    ] {
        assert_eq!(defaults(code).next().is_some(), expected, "{code}");
    }
}

#[test]
fn absences_in_place_of_errors_are_found() {
    for (code, expected) in [
        ("let spec = object.decode::<Service>().ok()?.spec;", true),
        ("let used = pods.iter().filter_map(|pod| pod.decode().ok()).any(uses);", true),
        ("let bound = object.decode().is_ok_and(|v| is_bound(&v));", true),
        ("let read = durable::read_optional(&path)\n    .ok()\n    .flatten();", true),
        ("if let Ok(record) = serde_json::from_slice::<Record>(&bytes) {\n", true),
        ("let Ok(pod) = object.decode::<Pod>() else { return };", true),
        ("let pod = object.decode().inspect_err(|e| warn!(\"{e}\")).ok()?;", false),
        ("let bytes = BASE64.decode(text).ok();", false),
        ("let byte = hex::decode(text).ok();", false),
        ("let Ok(number) = text.parse() else { return };\nlet pod = object.decode()?;", false),
        ("let spec = object.decode::<Pod>()?.spec.port.parse().ok();", false),
        ("let free = object.decode().map_or(false, |v| !is_bound(&v));", false),
    ] {
        assert_eq!(absences(code).next().is_some(), expected, "{code}");
    }
}
