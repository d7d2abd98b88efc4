//! One policy rule, compiled to what matching needs.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::auth::attributes::{Attributes, ResourceTarget, Target};

/// A rule of a Role or ClusterRole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<Box<str>>,
    pub groups: Vec<Box<str>>,
    pub resources: Vec<Box<str>>,
    pub names: Vec<Box<str>>,
    pub paths: Vec<Box<str>>,
}

impl From<&PolicyRule> for Rule {
    fn from(rule: &PolicyRule) -> Self {
        fn list(values: Option<&Vec<String>>) -> Vec<Box<str>> {
            values.into_iter().flatten().map(|v| v.as_str().into()).collect()
        }
        Self {
            verbs: list(Some(&rule.verbs)),
            groups: list(rule.api_groups.as_ref()),
            resources: list(rule.resources.as_ref()),
            names: list(rule.resource_names.as_ref()),
            paths: list(rule.non_resource_urls.as_ref()),
        }
    }
}

impl Rule {
    /// Whether this rule grants what is asked.
    #[must_use]
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if !any_or_star(&self.verbs, attributes.verb) {
            return false;
        }
        match attributes.target {
            Target::Resource(target) => self.allows_resource(&target),
            Target::Path(path) => self.paths.iter().any(|p| path_matches(p, path)),
        }
    }

    fn allows_resource(&self, target: &ResourceTarget<'_>) -> bool {
        any_or_star(&self.groups, target.group)
            && self.resources.iter().any(|r| resource_matches(r, target.resource, target.subresource))
            && (self.names.is_empty() || self.names.iter().any(|n| **n == *target.name))
    }

    /// Splits a rule into parts of one verb, group, resource and name (or one verb and path) each, the
    /// unit in which coverage is decided.
    pub fn breakdown(&self) -> impl Iterator<Item = Self> + '_ {
        let paths = self.paths.iter().flat_map(move |path| {
            self.verbs.iter().map(move |verb| Self { paths: vec![path.clone()], ..Self::of_verb(verb) })
        });
        let resources = self.groups.iter().flat_map(move |group| {
            self.resources.iter().flat_map(move |resource| {
                self.verbs.iter().flat_map(move |verb| {
                    let part =
                        Self { groups: vec![group.clone()], resources: vec![resource.clone()], ..Self::of_verb(verb) };
                    let names: Vec<Self> = if self.names.is_empty() {
                        vec![part]
                    } else {
                        self.names.iter().map(|n| Self { names: vec![n.clone()], ..part.clone() }).collect()
                    };
                    names
                })
            })
        });
        resources.chain(paths)
    }

    /// How many parts [`Self::breakdown`] makes.
    pub fn parts(&self) -> usize {
        let of_resources = [self.groups.len(), self.resources.len(), self.names.len().max(1)];
        let ways = of_resources.into_iter().fold(1_usize, usize::saturating_mul).saturating_add(self.paths.len());
        ways.saturating_mul(self.verbs.len())
    }

    fn of_verb(verb: &str) -> Self {
        Self { verbs: vec![verb.into()], groups: vec![], resources: vec![], names: vec![], paths: vec![] }
    }

    /// Whether this rule grants all that `part`, a product of [`Self::breakdown`], grants.
    #[must_use]
    pub fn covers(&self, part: &Self) -> bool {
        covers_all(&self.verbs, &part.verbs)
            && covers_all(&self.groups, &part.groups)
            && part.resources.iter().all(|wanted| self.covers_resource(wanted))
            && part.paths.iter().all(|wanted| self.paths.iter().any(|p| path_covers(p, wanted)))
            && (self.names.is_empty() || (!part.names.is_empty() && part.names.iter().all(|n| self.names.contains(n))))
    }

    fn covers_resource(&self, wanted: &str) -> bool {
        self.resources.iter().any(|own| {
            **own == *"*"
                || **own == *wanted
                || own.strip_prefix("*/").is_some_and(|sub| wanted.split_once('/').is_some_and(|(_, s)| s == sub))
        })
    }
}

fn any_or_star(list: &[Box<str>], wanted: &str) -> bool {
    list.iter().any(|v| **v == *"*" || **v == *wanted)
}

fn covers_all(own: &[Box<str>], wanted: &[Box<str>]) -> bool {
    own.iter().any(|v| **v == *"*") || wanted.iter().all(|w| own.contains(w))
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((r, s)) => !subresource.is_empty() && s == subresource && (r == "*" || r == resource),
    }
}

/// `*` at the end of a rule's path stands for any rest.
fn path_matches(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}

fn path_covers(own: &str, wanted: &str) -> bool {
    own == "*" || own == wanted || own.strip_suffix('*').is_some_and(|p| wanted.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::User;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        fn split(text: &str) -> Vec<Box<str>> {
            text.split(' ').filter(|t| !t.is_empty()).map(|t| if t == "core" { "".into() } else { t.into() }).collect()
        }
        Rule {
            verbs: split(verbs),
            groups: split(groups),
            resources: split(resources),
            names: split(names),
            paths: vec![],
        }
    }

    #[track_caller]
    fn check(rule: &Rule, verb: &str, group: &str, resource: &str, name: &str, expected: bool) {
        let user = User::default();
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let target = ResourceTarget { group, resource, subresource, name, ..ResourceTarget::default() };
        let got = rule.allows(&Attributes::resource(&user, verb, target));
        assert_eq!(got, expected, "{verb} {group}/{resource}/{subresource} {name}");
    }

    #[test]
    fn a_rule_matches_verb_group_resource_and_name() {
        let r = rule("get list", "core apps", "pods deployments", "");
        check(&r, "get", "", "pods", "x", true);
        check(&r, "get", "apps", "pods", "x", true);
        check(&r, "delete", "", "pods", "x", false);
        check(&r, "get", "batch", "pods", "x", false);
        check(&r, "get", "", "pods/log", "x", false);
        let named = rule("get", "core", "configmaps", "a b");
        check(&named, "get", "", "configmaps", "a", true);
        check(&named, "get", "", "configmaps", "c", false);
        check(&named, "list", "", "configmaps", "", false);
    }

    #[test]
    fn stars_stand_for_everything() {
        let all = rule("*", "*", "*", "");
        check(&all, "anything", "x.example", "things/sub", "n", true);
        let scale = rule("get", "*", "*/scale", "");
        check(&scale, "get", "apps", "deployments/scale", "n", true);
        check(&scale, "get", "apps", "deployments", "n", false);
        let log = rule("get", "core", "pods/log", "");
        check(&log, "get", "", "pods/log", "n", true);
        check(&log, "get", "", "pods", "n", false);
    }

    #[test]
    fn paths_match_whole_or_by_prefix() {
        let r = Rule { paths: vec!["/healthz".into(), "/api/*".into()], ..rule("get", "", "", "") };
        let user = User::default();
        for (path, expected) in [("/healthz", true), ("/healthz/etcd", false), ("/api/v1", true), ("/apis", false)] {
            let a = Attributes { user: &user, verb: "get", target: Target::Path(path) };
            assert_eq!(r.allows(&a), expected, "{path}");
        }
    }

    #[test]
    fn coverage_is_decided_part_by_part() {
        let wanted = rule("get list", "core", "pods secrets", "");
        assert_eq!(wanted.breakdown().count(), 4);
        let own = [rule("get list watch", "core", "pods", ""), rule("*", "core", "secrets", "")];
        assert!(wanted.breakdown().all(|part| own.iter().any(|o| o.covers(&part))));
        let named = rule("get", "core", "pods", "a");
        assert!(named.breakdown().all(|p| own[0].covers(&p)));
        assert!(!rule("get", "core", "pods", "").breakdown().all(|p| named.covers(&p)));
        assert!(rule("*", "*", "*", "").covers(&rule("get", "apps", "x/scale", "")));
        assert!(rule("get", "*", "*/scale", "").covers(&rule("get", "apps", "x/scale", "")));
        assert!(!rule("get", "*", "x", "").covers(&rule("get", "apps", "x/scale", "")));
    }
}
