//! The authorizer's answer, and what a user who was refused is told.

use api::object::GroupResource;

use super::attributes::{Attributes, Target};
use crate::error::ApiError;

/// What an authorizer says. None of ours ever denies what another allows: without an opinion from any,
/// the request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow {
        reason: String,
    },
    /// The reason is shown to the user, as upstream does; it may be empty.
    NoOpinion {
        reason: String,
    },
}

impl Decision {
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// An allowing answer without a reason.
    #[must_use]
    pub fn allow() -> Self {
        Self::Allow { reason: String::new() }
    }

    #[must_use]
    pub fn none(reason: impl Into<String>) -> Self {
        Self::NoOpinion { reason: reason.into() }
    }

    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Allow { reason } | Self::NoOpinion { reason } => reason,
        }
    }
}

/// The error for a request that was refused for `reason`.
#[must_use]
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> ApiError {
    let mut detail = sentence(attributes);
    if !reason.is_empty() {
        detail.push_str(": ");
        detail.push_str(reason);
    }
    match attributes.target {
        Target::Path(_) => ApiError::Forbidden { resource: None, name: String::new(), detail },
        Target::Resource(target) => {
            ApiError::forbidden(&GroupResource::new(target.group, target.resource), target.name, detail)
        }
    }
}

fn sentence(attributes: &Attributes<'_>) -> String {
    let head = format!("User {:?} cannot {}", attributes.user.name, attributes.verb);
    match attributes.target {
        Target::Path(path) => format!("{head} path {path:?}"),
        Target::Resource(target) => {
            let mut resource = target.resource.to_owned();
            if !target.subresource.is_empty() {
                resource = format!("{resource}/{}", target.subresource);
            }
            let scope = if target.namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {:?}", target.namespace)
            };
            format!("{head} resource {resource:?} in API group {:?} {scope}", target.group)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::User;
    use crate::auth::attributes::ResourceTarget;

    #[track_caller]
    fn check(verb: &str, target: Target<'_>, reason: &str, expected: &str) {
        let user = User { name: "x".into(), ..User::default() };
        assert_eq!(forbidden(&Attributes { user: &user, verb, target }, reason).to_string(), expected);
    }

    #[test]
    fn messages_are_upstreams() {
        let pods = ResourceTarget { namespace: "default", resource: "pods", ..ResourceTarget::default() };
        let denied =
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#;
        check("list", Target::Resource(pods), "", denied);
        let log = ResourceTarget { name: "web", subresource: "log", ..pods };
        let denied = r#"pods "web" is forbidden: User "x" cannot get resource "pods/log" in API group "" in the namespace "default": why"#;
        check("get", Target::Resource(log), "why", denied);
        let roles = ResourceTarget {
            group: "rbac.authorization.k8s.io",
            resource: "clusterroles",
            ..ResourceTarget::default()
        };
        let denied = r#"clusterroles.rbac.authorization.k8s.io is forbidden: User "x" cannot create resource "clusterroles" in API group "rbac.authorization.k8s.io" at the cluster scope"#;
        check("create", Target::Resource(roles), "", denied);
        check("get", Target::Path("/metrics"), "", r#"forbidden: User "x" cannot get path "/metrics""#);
    }
}
