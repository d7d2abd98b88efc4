//! Taints keep pods off that do not tolerate them, and PreferNoSchedule makes nodes less liked.

use api::k8s_openapi::api::core::v1::{PodSpec, Taint, Toleration};

use crate::framework::{Candidate, Filter, Rejection, Remedy, Score, scale_inverted};

const NAME: &str = "TaintToleration";

pub(crate) struct TaintToleration<'a> {
    tolerations: &'a [Toleration],
}

impl<'a> TaintToleration<'a> {
    pub(crate) fn new(spec: &'a PodSpec) -> Self {
        Self { tolerations: spec.tolerations.as_deref().unwrap_or_default() }
    }
}

impl Filter for TaintToleration<'_> {
    fn filter(&self, candidate: Candidate<'_>) -> Result<(), Rejection> {
        let repels = |t: &&Taint| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute");
        let mut taints = candidate.node.taints.iter().filter(repels);
        if taints.any(|taint| !tolerates(self.tolerations, taint)) {
            // Since v1.35 upstream does not name the taint: nodes' taints may be confidential.
            return Err(Rejection::new(NAME, "node(s) had untolerated taint(s)", Remedy::None));
        }
        Ok(())
    }
}

impl Score for TaintToleration<'_> {
    fn weight(&self) -> i64 {
        3
    }

    fn score(&self, candidate: Candidate<'_>) -> i64 {
        let disliked = |t: &&Taint| t.effect == "PreferNoSchedule" && !tolerates(self.tolerations, t);
        i64::try_from(candidate.node.taints.iter().filter(disliked).count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale_inverted(scores);
    }
}

/// Whether any toleration covers the taint.
pub(crate) fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| {
        let effect = t.effect.as_deref().unwrap_or("");
        let key = t.key.as_deref().unwrap_or("");
        if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
            return false;
        }
        match t.operator.as_deref().unwrap_or("Equal") {
            "Exists" => true,
            "Equal" | "" => t.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        }
    }

    #[track_caller]
    fn check(toleration: Toleration, expected: bool) {
        let taint = Taint {
            key: "dedicated".to_owned(),
            value: Some("db".to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        };
        assert_eq!(tolerates(&[toleration], &taint), expected);
    }

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        check(toleration("dedicated", "Equal", "db", "NoSchedule"), true);
        check(toleration("dedicated", "", "db", ""), true);
        check(toleration("dedicated", "Equal", "web", "NoSchedule"), false);
        check(toleration("dedicated", "Exists", "", "NoExecute"), false);
        check(toleration("dedicated", "Exists", "", ""), true);
        check(toleration("", "Exists", "", ""), true);
        check(toleration("other", "Exists", "", ""), false);
    }
}
