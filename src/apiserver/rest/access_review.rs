//! The access reviews: what somebody may do, as `kubectl auth can-i` asks.

use std::sync::Arc;

use api::field::{self, Path};
use async_trait::async_trait;
use axum::response::Response;
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule,
    SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewSpec,
    SubjectAccessReviewStatus, SubjectRulesReviewStatus,
};

use super::answer::{Carried, Posted};
use super::{Call, SpecialHandler};
use crate::auth::attributes::{ResourceTarget, Target};
use crate::auth::rbac::Rule;
use crate::auth::{Attributes, Decision, User};
use crate::error::ApiError;
use crate::server::ApiServer;

const GROUP: &str = "authorization.k8s.io";

pub(super) enum Handler {
    Any,
    Own,
    Local,
    Rules,
}

#[async_trait]
impl SpecialHandler for Handler {
    async fn handle(&self, server: &Arc<ApiServer>, call: Call) -> Result<Response, ApiError> {
        let kind = match self {
            Self::Any => "SubjectAccessReview",
            Self::Own => "SelfSubjectAccessReview",
            Self::Local => "LocalSubjectAccessReview",
            Self::Rules => "SelfSubjectRulesReview",
        };
        let carried = Carried { group: GROUP, version: "v1", kind };
        let posted = Posted::read(call, carried).await?;
        match self {
            Self::Any => {
                let mut review: SubjectAccessReview = posted.typed()?;
                judge_subject(&review.spec, kind)?;
                review.status = Some(answer(server, &subject(&review.spec), &review.spec));
                posted.created(carried, &review)
            }
            Self::Local => {
                let mut review: LocalSubjectAccessReview = posted.typed()?;
                judge_subject(&review.spec, kind)?;
                judge_local(&review.spec, &posted.info.namespace)?;
                review.metadata.namespace = Some(posted.info.namespace.clone());
                review.status = Some(answer(server, &subject(&review.spec), &review.spec));
                posted.created(carried, &review)
            }
            Self::Own => {
                let mut review: SelfSubjectAccessReview = posted.typed()?;
                let spec = SubjectAccessReviewSpec {
                    resource_attributes: review.spec.resource_attributes.clone(),
                    non_resource_attributes: review.spec.non_resource_attributes.clone(),
                    ..SubjectAccessReviewSpec::default()
                };
                judge_question(&spec, kind)?;
                review.status = Some(answer(server, &posted.user, &spec));
                posted.created(carried, &review)
            }
            Self::Rules => {
                let mut review: SelfSubjectRulesReview = posted.typed()?;
                let namespace = review.spec.namespace.clone().unwrap_or_default();
                if namespace.is_empty() {
                    return Err(ApiError::BadRequest("no namespace on request".to_owned()));
                }
                let rules = server.auth.policy().rules_for(&server.registry, &posted.user, &namespace);
                review.status = Some(list_rules(&rules, posted.user.node_name().is_some()));
                posted.created(carried, &review)
            }
        }
    }
}

fn subject(spec: &SubjectAccessReviewSpec) -> User {
    User {
        name: spec.user.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    }
}

fn answer(server: &ApiServer, user: &User, spec: &SubjectAccessReviewSpec) -> SubjectAccessReviewStatus {
    let decide =
        |verb: &str, target: Target<'_>| server.auth.decide(&server.registry, &Attributes { user, verb, target });
    let decision = match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(resource), _) => decide(text(resource.verb.as_ref()), Target::Resource(target_of(resource))),
        (None, Some(path)) => decide(text(path.verb.as_ref()), Target::Path(path_of(path))),
        (None, None) => Decision::none(""),
    };
    SubjectAccessReviewStatus {
        allowed: decision.is_allowed(),
        reason: Some(decision.reason().to_owned()).filter(|r| !r.is_empty()),
        ..SubjectAccessReviewStatus::default()
    }
}

fn text(value: Option<&String>) -> &str {
    value.map(String::as_str).unwrap_or_default()
}

fn target_of(resource: &ResourceAttributes) -> ResourceTarget<'_> {
    ResourceTarget {
        group: text(resource.group.as_ref()),
        namespace: text(resource.namespace.as_ref()),
        resource: text(resource.resource.as_ref()),
        subresource: text(resource.subresource.as_ref()),
        name: text(resource.name.as_ref()),
        field_selector: resource.field_selector.as_ref().and_then(|s| s.raw_selector.as_deref()).unwrap_or_default(),
    }
}

fn path_of(path: &NonResourceAttributes) -> &str {
    text(path.path.as_ref())
}

fn refuse(kind: &str, error: field::Error) -> ApiError {
    ApiError::invalid(GROUP, kind, "", &[error])
}

/// A question is about a resource or a path, not both.
fn judge_question(spec: &SubjectAccessReviewSpec, kind: &str) -> Result<(), ApiError> {
    let path = Path::new("spec");
    let none = serde_json::Value::Null;
    match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(_), None) | (None, Some(_)) => Ok(()),
        (Some(_), Some(asked)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            Err(refuse(kind, field::invalid(&path.child("nonResourceAttributes"), asked, detail)))
        }
        (None, None) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            Err(refuse(kind, field::invalid(&path.child("resourceAttributes"), &none, detail)))
        }
    }
}

fn judge_subject(spec: &SubjectAccessReviewSpec, kind: &str) -> Result<(), ApiError> {
    judge_question(spec, kind)?;
    let named = !text(spec.user.as_ref()).is_empty() || spec.groups.as_ref().is_some_and(|g| !g.is_empty());
    if named {
        return Ok(());
    }
    let path = Path::new("spec");
    Err(refuse(kind, field::invalid(&path.child("user"), "", "at least one of user or group must be specified")))
}

fn judge_local(spec: &SubjectAccessReviewSpec, namespace: &str) -> Result<(), ApiError> {
    let asked = spec.resource_attributes.as_ref().map(|r| text(r.namespace.as_ref())).unwrap_or_default();
    if asked == namespace {
        return Ok(());
    }
    Err(ApiError::BadRequest(format!("spec.resourceAttributes.namespace must match namespace: {namespace}")))
}

fn list_rules(rules: &[Rule], is_node: bool) -> SubjectRulesReviewStatus {
    let strings = |list: &[Box<str>]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
    let some = |list: &[Box<str>]| Some(strings(list)).filter(|l| !l.is_empty());
    let resources = rules.iter().filter(|r| !r.resources.is_empty()).map(|r| ResourceRule {
        verbs: strings(&r.verbs),
        api_groups: some(&r.groups),
        resources: some(&r.resources),
        resource_names: some(&r.names),
    });
    let paths = rules
        .iter()
        .filter(|r| !r.paths.is_empty())
        .map(|r| NonResourceRule { verbs: strings(&r.verbs), non_resource_urls: some(&r.paths) });
    SubjectRulesReviewStatus {
        resource_rules: resources.collect(),
        non_resource_rules: paths.collect(),
        // What a node may do depends on its pods.
        incomplete: is_node,
        evaluation_error: is_node.then(|| "node authorizer does not support user rule resolution".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(spec: Value, expected: Result<(), &str>) {
        let spec: SubjectAccessReviewSpec = serde_json::from_value(spec).unwrap();
        let got = judge_subject(&spec, "SubjectAccessReview").map_err(|e| e.to_string());
        let head = "SubjectAccessReview.authorization.k8s.io \"\" is invalid: spec";
        assert_eq!(got, expected.map_err(|e| format!("{head}.{e}")), "{spec:?}");
    }

    #[test]
    fn a_question_names_one_thing_and_somebody() {
        let resource = json!({"verb": "get", "resource": "pods"});
        check(json!({"user": "a", "resourceAttributes": resource}), Ok(()));
        check(json!({"groups": ["g"], "nonResourceAttributes": {"path": "/x", "verb": "get"}}), Ok(()));
        check(
            json!({"user": "a"}),
            Err("resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or \
                 resourceAttributes must be specified"),
        );
        check(
            json!({"resourceAttributes": resource}),
            Err("user: Invalid value: \"\": at least one of user or group must be specified"),
        );
    }
}
