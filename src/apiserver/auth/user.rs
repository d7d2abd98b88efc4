//! Who makes a request, and the well-known names that upstream gives to users and groups.

use std::collections::BTreeMap;
use std::sync::Arc;

pub const ANONYMOUS: &str = "system:anonymous";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Members of this group may do everything; no role can take that away.
pub const MASTERS: &str = "system:masters";
pub const NODES: &str = "system:nodes";
/// The API server towards kubelets. It reaches them by `system:kubelet-api-admin` and nothing else.
pub const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
pub const NODE_PREFIX: &str = "system:node:";

/// The identity of a request, which is never read from a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// An identity that this process put on a request: no other module can make one.
#[derive(Clone)]
struct Named(Arc<User>);

/// Puts an identity on a request of this process, which no request from outside can carry.
pub fn act_as(extensions: &mut http::Extensions, user: Arc<User>) {
    extensions.insert(Named(user));
}

/// The identity that this process put on a request.
pub(super) fn named(extensions: &http::Extensions) -> Option<&Arc<User>> {
    extensions.get::<Named>().map(|Named(user)| user)
}

impl User {
    /// A user who has proved who they are: `system:authenticated` is added to their groups.
    #[must_use]
    pub fn authenticated(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|&g| g.to_owned()).collect();
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// The identity under which the server itself writes its system objects.
    #[must_use]
    pub fn loopback() -> Self {
        Self::authenticated("system:apiserver", &[MASTERS])
    }

    #[must_use]
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let groups = service_account_groups(namespace);
        Self::authenticated(&service_account_name(namespace, name), &[&groups[0], &groups[1]])
    }

    /// The identity of a node's kubelet.
    #[must_use]
    pub fn node(name: &str) -> Self {
        Self::authenticated(&format!("{NODE_PREFIX}{name}"), &[NODES])
    }

    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// `None` when this is no node; an empty name when it is one that cannot be told apart.
    #[must_use]
    pub fn node_name(&self) -> Option<&str> {
        let name = self.name.strip_prefix(NODE_PREFIX)?;
        self.is_in(NODES).then_some(name)
    }
}

/// `system:serviceaccount:<namespace>:<name>`.
#[must_use]
pub fn service_account_name(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

/// The two groups of every service account of a namespace.
#[must_use]
pub fn service_account_groups(namespace: &str) -> [String; 2] {
    [SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")]
}

/// Namespace and name of a service account's user name.
#[must_use]
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_account_names_go_both_ways() {
        let user = User::service_account("kube-system", "job-controller");
        assert_eq!(user.name, "system:serviceaccount:kube-system:job-controller");
        assert_eq!(
            user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]
        );
        assert_eq!(split_service_account(&user.name), Some(("kube-system", "job-controller")));
        for wrong in ["system:serviceaccount:a", "system:serviceaccount::b", "system:serviceaccount:a:b:c", "bob"] {
            assert_eq!(split_service_account(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_node_needs_both_the_name_and_the_group() {
        assert_eq!(User::node("n1").node_name(), Some("n1"));
        assert_eq!(User::authenticated("system:node:n1", &[]).node_name(), None);
        assert_eq!(User::authenticated("bob", &[NODES]).node_name(), None);
    }
}
