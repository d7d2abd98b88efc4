//! Webhook configurations and admission policies.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, ParamKind, ParamRef,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use serde_json::Value;

use super::Column;
use super::column::{AGE, NAME};
use super::kind::{Printed, row};
use super::text::{UNSET, plain};
use crate::selector::format_label_selector;

const WEBHOOKS: &[Column] = &[NAME, Column::integer("Webhooks", "How many webhooks the configuration has."), AGE];
const PARAM_KIND: Column = Column::text("ParamKind", "The kind of the objects that hold the policy's parameters.");
const BINDING: &[Column] = &[
    NAME,
    Column::text("PolicyName", "The policy that is bound."),
    Column::text("ParamRef", "The objects that hold the policy's parameters."),
    AGE,
];

impl Printed for MutatingWebhookConfiguration {
    const COLUMNS: &'static [Column] = WEBHOOKS;

    fn row(&self, now: Timestamp) -> Vec<Value> {
        row![self.name(), self.webhooks.as_ref().map_or(0, Vec::len), self.age(now)]
    }
}

impl Printed for ValidatingWebhookConfiguration {
    const COLUMNS: &'static [Column] = WEBHOOKS;

    fn row(&self, now: Timestamp) -> Vec<Value> {
        row![self.name(), self.webhooks.as_ref().map_or(0, Vec::len), self.age(now)]
    }
}

impl Printed for ValidatingAdmissionPolicy {
    const COLUMNS: &'static [Column] =
        &[NAME, Column::integer("Validations", "How many rules the policy has."), PARAM_KIND, AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        let rules = spec.and_then(|spec| spec.validations.as_ref()).map_or(0, Vec::len);
        row![self.name(), rules, kind(spec.and_then(|spec| spec.param_kind.as_ref())), self.age(now)]
    }
}

impl Printed for MutatingAdmissionPolicy {
    const COLUMNS: &'static [Column] =
        &[NAME, Column::integer("Mutations", "How many changes the policy makes."), PARAM_KIND, AGE];

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        let changes = spec.and_then(|spec| spec.mutations.as_ref()).map_or(0, Vec::len);
        row![self.name(), changes, kind(spec.and_then(|spec| spec.param_kind.as_ref())), self.age(now)]
    }
}

impl Printed for ValidatingAdmissionPolicyBinding {
    const COLUMNS: &'static [Column] = BINDING;

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let spec = &self.spec;
        row![self.name(), spec.policy_name.as_str(), parameters(spec.param_ref.as_ref()), self.age(now)]
    }
}

impl Printed for MutatingAdmissionPolicyBinding {
    const COLUMNS: &'static [Column] = BINDING;

    fn row(&self, now: Timestamp) -> Vec<Value> {
        let spec = self.spec.as_ref();
        let policy = plain(spec.and_then(|spec| spec.policy_name.as_ref()));
        row![self.name(), policy, parameters(spec.and_then(|spec| spec.param_ref.as_ref())), self.age(now)]
    }
}

fn kind(kind: Option<&ParamKind>) -> String {
    kind.map_or_else(
        || UNSET.to_owned(),
        |kind| format!("{}/{}", plain(kind.api_version.as_ref()), plain(kind.kind.as_ref())),
    )
}

/// Whether parameters are namespaced cannot be told from the reference, hence the `*`.
fn parameters(reference: Option<&ParamRef>) -> String {
    let Some(reference) = reference else { return UNSET.to_owned() };
    match (plain(reference.name.as_ref()), plain(reference.namespace.as_ref())) {
        ("", _) if reference.selector.is_none() => UNSET.to_owned(),
        ("", _) => format_label_selector(reference.selector.as_ref()),
        (name, "") => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    }
}
