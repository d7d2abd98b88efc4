//! What an authorizer is asked: one user, one verb, one thing.

use crate::auth::User;
use crate::request::RequestInfo;

/// One question to the authorizer. Borrowed from the request, or from an access review's spec.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    pub target: Target<'a>,
}

/// A resource or a path.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    Resource(ResourceTarget<'a>),
    Path(&'a str),
}

/// The resource part of a question. Empty strings mean "all" or "none", as in upstream's attributes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceTarget<'a> {
    pub group: &'a str,
    pub namespace: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub name: &'a str,
    pub field_selector: &'a str,
}

impl<'a> Attributes<'a> {
    #[must_use]
    pub fn of(user: &'a User, info: &'a RequestInfo) -> Self {
        let target = if info.is_resource {
            let selected = selected_name(&info.field_selector);
            Target::Resource(ResourceTarget {
                group: &info.group,
                namespace: &info.namespace,
                resource: &info.resource,
                subresource: &info.subresource,
                // A collection request that selects one name is authorized as one for that name.
                name: if info.name.is_empty() { selected.unwrap_or("") } else { &info.name },
                field_selector: &info.field_selector,
            })
        } else {
            Target::Path(&info.path)
        };
        Self { user, verb: &info.verb, target }
    }

    /// A question about an object of the API itself, such as `impersonate` on `users`.
    #[must_use]
    pub fn resource(user: &'a User, verb: &'a str, target: ResourceTarget<'a>) -> Self {
        Self { user, verb, target: Target::Resource(target) }
    }
}

/// The name in `metadata.name=x`, when the selector asks for exactly one.
fn selected_name(selector: &str) -> Option<&str> {
    selected_value(selector, "metadata.name")
}

/// The value that an equality selector demands of `field`.
#[must_use]
pub fn selected_value<'s>(selector: &'s str, field: &str) -> Option<&'s str> {
    selector.split(',').find_map(|term| {
        let value = term.strip_prefix(field)?.strip_prefix('=')?;
        Some(value.strip_prefix('=').unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equality_selects_a_value() {
        #[track_caller]
        fn check(selector: &str, expected: Option<&str>) {
            assert_eq!(selected_value(selector, "spec.nodeName"), expected, "{selector}");
        }
        check("spec.nodeName=n1", Some("n1"));
        check("status.phase!=Failed,spec.nodeName==n1", Some("n1"));
        check("spec.nodeName!=n1", None);
        check("spec.nodeNames=n1", None);
        check("", None);
    }
}
