//! Privilege escalation: nobody may put into a role, or bind, what they do not hold themselves.
//!
//! The check holds unless the user has the verb `escalate` on the role, or `bind` on the role that a
//! binding refers to.

use super::rule::Rule;
use crate::auth::User;

/// Parts of one request that are compared with what its user holds. A rule stands for the product of its
/// verbs, groups, resources and names, so that a body of 10 KB can stand for millions; the largest roles
/// of well-known charts stand for some hundreds.
const PARTS_MAX: usize = 20_000;
/// Parts that a refusal names.
const SHOWN_MAX: usize = 1_000;

/// The parts of `wanted` that `held` does not cover, in upstream's compact notation; empty when the
/// user may grant all of it.
#[must_use]
pub fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<String> {
    let parts = wanted.iter().fold(0_usize, |parts, rule| parts.saturating_add(rule.parts()));
    if parts > PARTS_MAX {
        return vec![format!("{parts} permissions, of which no more than {PARTS_MAX} are looked at in one request")];
    }
    let missing = wanted.iter().flat_map(Rule::breakdown).filter(|part| !held.iter().any(|own| own.covers(part)));
    let mut missing: Vec<Rule> = missing.take(SHOWN_MAX).collect();
    merge_verbs(&mut missing);
    let mut lines: Vec<String> = missing.iter().map(compact).collect();
    lines.sort();
    lines
}

/// Upstream's sentence for a refused escalation.
#[must_use]
pub fn message(user: &User, uncovered: &[String]) -> String {
    format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted_list(&user.groups),
        uncovered.join("\n")
    )
}

/// Parts that differ only in their verb become one.
fn merge_verbs(parts: &mut Vec<Rule>) {
    let mut merged: Vec<Rule> = Vec::new();
    for part in parts.drain(..) {
        let same = merged.iter_mut().find(|m| {
            m.groups == part.groups && m.resources == part.resources && m.names == part.names && m.paths == part.paths
        });
        match same {
            Some(rule) => {
                for verb in part.verbs {
                    if !rule.verbs.contains(&verb) {
                        rule.verbs.push(verb);
                    }
                }
            }
            None => merged.push(part),
        }
    }
    *parts = merged;
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`.
fn compact(rule: &Rule) -> String {
    let fields = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.paths),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<String> = fields
        .iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, values)| format!("{name}:{}", quoted_list(values)))
        .collect();
    format!("{{{}}}", parts.join(", "))
}

fn quoted_list<S: AsRef<str>>(values: &[S]) -> String {
    let quoted: Vec<String> = values.iter().map(|v| format!("{:?}", v.as_ref())).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::rbac::v1::PolicyRule;
    use serde_json::json;

    use super::*;

    fn rule(value: serde_json::Value) -> Rule {
        let rule: PolicyRule = serde_json::from_value(value).unwrap();
        Rule::from(&rule)
    }

    #[test]
    fn what_is_not_held_is_named() {
        let held = [rule(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}))];
        let wanted = [rule(json!({"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get", "list"]}))];
        assert_eq!(
            uncovered(&held, &wanted),
            [
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#,
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}"#
            ]
        );
        assert!(uncovered(&held, &held).is_empty());
    }

    #[test]
    fn a_small_rule_that_stands_for_millions_of_permissions_is_refused() {
        let many: Vec<String> = (0..300).map(|i| format!("x{i}")).collect();
        let wanted = [rule(json!({"apiGroups": many, "resources": many, "verbs": many}))];
        let held = [rule(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["get"]}))];
        let text = "27000000 permissions, of which no more than 20000 are looked at in one request";
        assert_eq!(uncovered(&held, &wanted), [text]);
    }

    #[test]
    fn the_message_is_upstreams() {
        let user = User { name: "ann".into(), groups: vec!["a".into(), "b".into()], ..User::default() };
        assert_eq!(
            message(&user, &[r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#.into()]),
            "user \"ann\" (groups=[\"a\" \"b\"]) is attempting to grant RBAC permissions not currently held:\n\
             {NonResourceURLs:[\"/x\"], Verbs:[\"get\"]}"
        );
    }
}
