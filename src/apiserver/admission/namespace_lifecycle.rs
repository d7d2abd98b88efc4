//! NamespaceLifecycle: objects live in namespaces that exist; nothing is created in one that is being
//! deleted; the namespaces that every cluster needs cannot be deleted.

use api::object::{GroupResource, ObjectKey};

use super::review::{Operation, Review, with_cause};
use crate::error::ApiError;
use crate::registry::Registry;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// What is known of the namespace that a request works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    Active,
    Terminating,
}

pub(super) fn admit(registry: &Registry, review: &Review<'_>) -> Result<(), ApiError> {
    let state = || {
        let key = ObjectKey::new("", review.namespace);
        match registry.get(&GroupResource::new("", "namespaces"), &key) {
            None => State::Missing,
            Some(namespace) if namespace.index.deleting => State::Terminating,
            Some(_) => State::Active,
        }
    };
    judge(review, state)
}

fn judge(review: &Review<'_>, state: impl FnOnce() -> State) -> Result<(), ApiError> {
    if *review.resource.resource == *"namespaces" && review.resource.group.is_empty() {
        let doomed = review.operation == Operation::Delete && IMMORTAL.contains(&review.name);
        return if doomed { Err(review.forbidden("this namespace may not be deleted")) } else { Ok(()) };
    }
    let exempt = review.namespace.is_empty()
        || matches!(review.operation, Operation::Delete | Operation::Connect)
        || *review.resource.resource == *"localsubjectaccessreviews";
    if exempt {
        return Ok(());
    }
    let namespace = review.namespace;
    match state() {
        State::Active => Ok(()),
        State::Missing => Err(ApiError::not_found(&GroupResource::new("", "namespaces"), namespace)),
        State::Terminating if review.operation == Operation::Create => {
            let error = review.forbidden(format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            ));
            let message = format!("namespace {namespace} is being terminated");
            Err(with_cause(&error, "NamespaceTerminating", message, "metadata.namespace"))
        }
        State::Terminating => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::tests::review;

    #[track_caller]
    fn check(operation: Operation, resource: &str, place: &str, state: State, expected: Result<(), &str>) {
        let mut object = None;
        let review = review(operation, resource, place, &mut object);
        let got = judge(&review, || state).map_err(|e| e.to_string());
        assert_eq!(got, expected.map_err(str::to_owned), "{operation:?} {resource} {place}");
    }

    #[test]
    fn the_namespace_decides() {
        use Operation::{Create, Delete, Update};
        use State::{Active, Missing, Terminating};
        check(Create, "pods", "a/p", Active, Ok(()));
        check(Create, "pods", "a/p", Missing, Err("namespaces \"a\" not found"));
        check(Update, "pods", "a/p", Missing, Err("namespaces \"a\" not found"));
        let message =
            "pods \"p\" is forbidden: unable to create new content in namespace a because it is being terminated";
        check(Create, "pods", "a/p", Terminating, Err(message));
        check(Update, "pods", "a/p", Terminating, Ok(()));
        check(Delete, "pods", "a/p", Missing, Ok(()));
        check(Create, "nodes", "/n", Missing, Ok(()));
        check(Create, "namespaces", "/n", Missing, Ok(()));
        check(Delete, "namespaces", "/n", Active, Ok(()));
        let message = "namespaces \"kube-system\" is forbidden: this namespace may not be deleted";
        check(Delete, "namespaces", "/kube-system", Active, Err(message));
    }

    #[test]
    fn a_terminating_namespace_is_named_as_the_cause() {
        let mut object = None;
        let review = review(Operation::Create, "pods", "a/p", &mut object);
        let error = judge(&review, || State::Terminating).unwrap_err();
        let status = k8s_openapi::apimachinery::pkg::apis::meta::v1::Status::from(&error);
        assert_eq!(status.code, Some(403));
        let causes = status.details.unwrap().causes.unwrap();
        assert_eq!(causes[0].reason.as_deref(), Some("NamespaceTerminating"));
    }
}
