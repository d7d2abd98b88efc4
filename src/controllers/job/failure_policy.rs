//! `spec.podFailurePolicy`: what a failed pod means for the Job, by exit code or condition.

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
};

use crate::pods::{Phase, PodView};

/// What becomes of one failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Counts against the back-off limit.
    Count,
    Ignore,
    FailJob(String),
    FailIndex,
}

pub(super) fn judge(policy: Option<&PodFailurePolicy>, pod: &PodView) -> Verdict {
    // A pod that was deleted before it failed has nothing to be judged by.
    if pod.status.phase != Phase::Failed {
        return Verdict::Count;
    }
    for (at, rule) in policy.iter().flat_map(|p| &p.rules).enumerate() {
        let by_code = rule.on_exit_codes.as_ref().and_then(|r| matching_code(r, pod));
        let by_condition = || rule.on_pod_conditions.iter().flatten().find(|p| has_condition(p, pod));
        let why = match by_code {
            Some((container, code)) => {
                format!("Container {container} for pod {} failed with exit code {code}", pod.index.key)
            }
            None => match by_condition() {
                Some(pattern) => format!("Pod {} has condition {}", pod.index.key, pattern.type_),
                None => continue,
            },
        };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailJob" => Verdict::FailJob(format!("{why} matching FailJob rule at index {at}")),
            "FailIndex" => Verdict::FailIndex,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn matching_code<'a>(rule: &PodFailurePolicyOnExitCodesRequirement, pod: &'a PodView) -> Option<(&'a str, i32)> {
    let statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    statuses
        .filter(|s| rule.container_name.as_ref().is_none_or(|name| *name == s.name))
        .filter_map(|s| s.state.terminated.as_ref().map(|t| (s.name.as_str(), t.exit_code)))
        .find(|(_, code)| *code != 0 && rule.values.contains(code) == (rule.operator == "In"))
}

fn has_condition(pattern: &PodFailurePolicyOnPodConditionsPattern, pod: &PodView) -> bool {
    pod.condition(&pattern.type_).is_some_and(|c| c.status == pattern.status.as_deref().unwrap_or("True"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, pod};
    use k8s_openapi::api::batch::v1::PodFailurePolicyRule;

    fn policy(action: &str, operator: &str, values: &[i32]) -> PodFailurePolicy {
        PodFailurePolicy {
            rules: vec![PodFailurePolicyRule {
                action: action.into(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    operator: operator.into(),
                    values: values.to_vec(),
                    container_name: None,
                }),
                on_pod_conditions: None,
            }],
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let failed = pod("a").phase("Failed").exited(42, at(1)).view();
        let message = "Container c for pod default/a failed with exit code 42 matching FailJob rule at index 0";
        let rows = [
            (policy("FailJob", "In", &[42]), Verdict::FailJob(message.to_owned())),
            (policy("Ignore", "In", &[42]), Verdict::Ignore),
            (policy("Ignore", "In", &[1]), Verdict::Count),
            (policy("Ignore", "NotIn", &[1]), Verdict::Ignore),
        ];
        for (policy, expected) in rows {
            assert_eq!(judge(Some(&policy), &failed), expected);
        }
        assert_eq!(judge(None, &failed), Verdict::Count);
        let deleted = pod("b").running().deleting(at(2)).view();
        assert_eq!(judge(Some(&policy("Ignore", "NotIn", &[1])), &deleted), Verdict::Count);
    }
}
