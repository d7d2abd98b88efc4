//! The compiled policy of a running server, kept current with the store.

use api::codec::Decode;
use api::object::Object;
use parking_lot::RwLock;

use super::{Index, Rule};
use crate::auth::attributes::Attributes;
use crate::auth::{Decision, User};
use crate::projection::{Change, Projection};
use crate::registry::Registry;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The policy and what it was made from.
#[derive(Debug)]
pub struct Policy {
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    index: Index,
    cluster_roles: Projection,
    roles: Projection,
    cluster_role_bindings: Projection,
    role_bindings: Projection,
}

impl Default for Policy {
    fn default() -> Self {
        let state = State {
            index: Index::default(),
            cluster_roles: Projection::new(GROUP, "clusterroles"),
            roles: Projection::new(GROUP, "roles"),
            cluster_role_bindings: Projection::new(GROUP, "clusterrolebindings"),
            role_bindings: Projection::new(GROUP, "rolebindings"),
        };
        Self { state: RwLock::new(state) }
    }
}

impl Policy {
    #[must_use]
    pub fn authorize(&self, registry: &Registry, attributes: &Attributes<'_>) -> Decision {
        self.with(registry, |index| index.authorize(attributes))
    }

    #[must_use]
    pub fn rules_for(&self, registry: &Registry, user: &User, namespace: &str) -> Vec<Rule> {
        self.with(registry, |index| index.rules_for(user, namespace))
    }

    /// Runs `ask` on the policy as of now.
    pub fn with<T>(&self, registry: &Registry, ask: impl FnOnce(&Index) -> T) -> T {
        {
            let state = self.state.read();
            if !state.is_stale(registry) {
                return ask(&state.index);
            }
        }
        let mut state = self.state.write();
        state.refresh(registry);
        ask(&state.index)
    }
}

impl State {
    fn is_stale(&self, registry: &Registry) -> bool {
        [&self.cluster_roles, &self.roles, &self.cluster_role_bindings, &self.role_bindings]
            .iter()
            .any(|p| p.is_stale(registry))
    }

    fn refresh(&mut self, registry: &Registry) {
        let index = &mut self.index;
        for change in self.cluster_roles.changes(registry) {
            match decoded(&change) {
                Some((object, role)) => index.set_cluster_role(&object.index.key, &role),
                None => index.remove_role(change.key()),
            }
        }
        for change in self.roles.changes(registry) {
            match decoded(&change) {
                Some((object, role)) => index.set_role(&object.index.key, &role),
                None => index.remove_role(change.key()),
            }
        }
        for change in self.cluster_role_bindings.changes(registry) {
            match decoded(&change) {
                Some((object, binding)) => index.set_cluster_role_binding(&object.index.key, &binding),
                None => index.remove_binding(change.key()),
            }
        }
        for change in self.role_bindings.changes(registry) {
            match decoded(&change) {
                Some((object, binding)) => index.set_role_binding(&object.index.key, &binding),
                None => index.remove_binding(change.key()),
            }
        }
    }
}

/// The object of a change. One that cannot be decoded grants nothing, like one that is gone.
fn decoded<K: Decode>(change: &Change) -> Option<(&Object, K)> {
    let Change::Set(object) = change else { return None };
    match object.decode() {
        Ok(value) => Some((object, value)),
        Err(error) => {
            tracing::error!(object = %object.index.key, %error, "a stored role or binding cannot be read");
            None
        }
    }
}
