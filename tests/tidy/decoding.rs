//! Data that cannot be written or read is an error, never a default: a key that all share, a port that
//! seems free, a claim that seems unused.
//!
//! Text is enough to hold the rule: in one expression, the result of a call that encodes or decodes does
//! not end in `unwrap_or_default()` without a `?` between.

use std::collections::BTreeMap;

/// Calls that encode or decode.
const CODECS: [&str; 11] = [
    "serde_json::to_vec(",
    "serde_json::to_value(",
    "serde_json::to_string(",
    "serde_json::from_value(",
    "serde_json::from_slice(",
    "serde_json::from_str(",
    "from_reader(",
    "deserialize(",
    ".decode(",
    "::decode(",
    ".decode::<",
];
/// Where the default is right: who, and why.
const EXEMPT: [(&str, &str); 3] = [
    ("src/appliance/services/image_files.rs", "without its record an archive is imported again, which does no harm"),
    ("src/api/kinds/typed.rs", "validation refuses the object; there is nothing to warn of beside"),
    ("src/apiserver/auth/node_references.rs", "a node is refused what only an unreadable pod may name"),
];

/// The expression that ends at `end`: back to where its statement begins.
fn expression(text: &str, end: usize) -> &str {
    let begin = text[..end].rfind([';', '{', '}']).map_or(0, |at| at + 1);
    &text[begin..end]
}

/// Behind the arguments of the call whose name ends at `from`; `None` when they are still open at the end.
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

fn hides_an_error(expression: &str) -> bool {
    CODECS.iter().any(|codec| {
        expression.match_indices(codec).any(|(at, _)| {
            let name = at + codec.len() - 1;
            behind_arguments(expression, name).is_some_and(|end| !expression[end..].contains('?'))
        })
    })
}

/// Each place that makes an error a default.
pub(crate) fn offenders(sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources.iter().filter(|(path, _)| path.starts_with("src/") && !super::is_test_file(path)) {
        if EXEMPT.iter().any(|(exempt, _)| exempt == path) {
            continue;
        }
        let text = super::without_tests(text);
        for (at, _) in text.match_indices(".unwrap_or_default()") {
            if hides_an_error(expression(text, at)) {
                found.push(format!("{path}:{}", text[..at].lines().count()));
            }
        }
    }
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
        let at = code.find(".unwrap_or_default()").unwrap();
        assert_eq!(hides_an_error(expression(code, at)), expected, "{code}");
    }
}
