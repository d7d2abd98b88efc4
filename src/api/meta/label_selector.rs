//! Validation of `metav1.LabelSelector` where it is a field of an object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::format;
use super::object_meta::validate_labels;
use crate::field::{self, ErrorList, Path};

pub(crate) fn validate_label_selector(selector: Option<&LabelSelector>, path: &Path<'_>, errs: &mut ErrorList) {
    let Some(selector) = selector else { return };
    validate_labels(selector.match_labels.as_ref(), &path.child("matchLabels"), errs);
    let list = path.child("matchExpressions");
    for (i, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        if errs.is_full() {
            break;
        }
        let at = list.index(i);
        let values = requirement.values.as_deref().unwrap_or_default();
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                errs.push(field::required(&at.child("values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errs.push(field::forbidden(&at.child("values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errs.push(field::invalid(&at.child("operator"), other, "not a valid selector operator")),
        }
        let key = &requirement.key;
        field::invalid_each(&at.child("key"), key, format::qualified_name(key), errs);
        let values_at = at.child("values");
        for (j, value) in values.iter().enumerate() {
            if errs.is_full() {
                break;
            }
            field::invalid_each(&values_at.index(j), value, format::label_value(value), errs);
        }
    }
}
