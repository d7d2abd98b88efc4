//! Label selectors as controllers use them: compiled once per reconcile and matched against the
//! labels in an object's index, so that nothing is decoded to find out whether it is selected.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The labels of an object as its index holds them.
pub(crate) type Labels = BTreeMap<Box<str>, Box<str>>;

/// A compiled selector. An empty one selects everything, as in upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
}

impl Selector {
    /// `None` when an operator is not one that the API knows; admission never lets that through.
    pub(crate) fn from_meta(selector: &LabelSelector) -> Option<Self> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::In(key.clone(), vec![value.clone()]));
        }
        for expression in selector.match_expressions.iter().flatten() {
            let key = expression.key.clone();
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(match expression.operator.as_str() {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                "DoesNotExist" => Requirement::DoesNotExist(key),
                _ => return None,
            });
        }
        Some(Self(requirements))
    }

    pub(crate) fn from_map(labels: &BTreeMap<String, String>) -> Self {
        Self(labels.iter().map(|(k, v)| Requirement::In(k.clone(), vec![v.clone()])).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.holds(|key| labels.get(key).map(|v| &**v))
    }

    pub(crate) fn matches_map(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.holds(|key| labels.and_then(|l| l.get(key)).map(String::as_str))
    }

    fn holds<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Requirement::NotIn(key, values) => label(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::DoesNotExist(key) => label(key).is_none(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    #[track_caller]
    fn check(operator: &str, values: &[&str], label: Option<&str>, expected: bool) {
        let selector = Selector::from_meta(&LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "tier".into(),
                operator: operator.into(),
                values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
            }]),
            match_labels: None,
        })
        .unwrap();
        let labels = label.map(|l| ("tier".into(), l.into())).into_iter().collect();
        assert_eq!(selector.matches(&labels), expected, "{operator} {values:?} on {label:?}");
    }

    #[test]
    fn each_operator_selects_as_the_api_says() {
        check("In", &["a", "b"], Some("b"), true);
        check("In", &["a", "b"], Some("c"), false);
        check("In", &["a"], None, false);
        check("NotIn", &["a"], Some("a"), false);
        check("NotIn", &["a"], Some("b"), true);
        check("NotIn", &["a"], None, true);
        check("Exists", &[], Some("x"), true);
        check("Exists", &[], None, false);
        check("DoesNotExist", &[], Some("x"), false);
        check("DoesNotExist", &[], None, true);
    }
}
