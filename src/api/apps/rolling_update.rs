//! Amounts given as a number or as a percentage of the replicas.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::field::{self, ErrorList, Path};
use crate::meta::format;

/// A number from zero, or a percentage.
pub(super) fn validate_int_or_percent(value: &IntOrString, path: &Path<'_>, errs: &mut ErrorList) {
    match value {
        IntOrString::Int(number) => field::non_negative(path, i64::from(*number), errs),
        IntOrString::String(text) => field::invalid_each(path, text, format::percent(text), errs),
    }
}

pub(super) fn percent_of(value: &IntOrString) -> Option<i64> {
    match value {
        IntOrString::Int(_) => None,
        IntOrString::String(text) => text.strip_suffix('%')?.parse().ok(),
    }
}

pub(super) fn validate_at_most_all(value: &IntOrString, path: &Path<'_>, errs: &mut ErrorList) {
    if percent_of(value).is_some_and(|p| p > 100) {
        errs.push(field::invalid(path, value, "must not be greater than 100%"));
    }
}

/// The number itself, or the percentage as one; only zero matters to the callers.
pub(super) fn magnitude(value: Option<&IntOrString>) -> i64 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => i64::from(*number),
        Some(percent) => percent_of(percent).unwrap_or(0),
    }
}
