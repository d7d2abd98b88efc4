//! The `pod-security.kubernetes.io/*` labels of a namespace: which level is enforced, audited and warned
//! of, in which version.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;

use api::field::{self, ErrorList, Path};

const PREFIX: &str = "pod-security.kubernetes.io/";
const LATEST: &str = "latest";

/// `privileged` forbids nothing and is no policy at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Baseline,
    Restricted,
}

/// A level as a label states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) level: Level,
    pub(super) version: String,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        write!(f, "{level}:{}", self.version)
    }
}

/// What is asked for beyond `privileged`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Policies {
    pub(super) enforce: Option<Policy>,
    pub(super) warn: Option<Policy>,
}

/// What the labels ask for, and what of them is no level or version. As upstream has it, an unknown level
/// to enforce is the strictest one, and an unknown level to warn of is none.
pub(super) fn read<K: Borrow<str> + Ord, V: AsRef<str>>(labels: &BTreeMap<K, V>) -> (Policies, ErrorList) {
    let mut errors = ErrorList::new();
    let mut one = |mode: &str| {
        let level = label(labels, mode, &mut errors, level_of);
        let version = label(labels, &format!("{mode}-version"), &mut errors, version_of);
        (level, version.and_then(Result::ok).unwrap_or_else(|| LATEST.to_owned()))
    };
    let ((enforce, enforce_version), _audit, (warn, warn_version)) = (one("enforce"), one("audit"), one("warn"));
    let enforce = enforce.and_then(|level| level.unwrap_or(Some(Level::Restricted)));
    let warn = warn.and_then(Result::ok).flatten();
    let policies = Policies {
        enforce: enforce.map(|level| Policy { level, version: enforce_version }),
        warn: warn.map(|level| Policy { level, version: warn_version }),
    };
    (policies, errors)
}

/// The value of a label, if it is there; what is wrong with it is added to the errors.
fn label<K: Borrow<str> + Ord, V: AsRef<str>, T>(
    labels: &BTreeMap<K, V>,
    mode: &str,
    errors: &mut ErrorList,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> Option<Result<T, &'static str>> {
    let name = format!("{PREFIX}{mode}");
    let text = labels.get(name.as_str())?.as_ref();
    let value = parse(text);
    if let Err(why) = &value {
        let metadata = Path::new("metadata");
        errors.push(field::invalid(&metadata.child("labels").key(&name), text, *why));
    }
    Some(value)
}

fn level_of(text: &str) -> Result<Option<Level>, &'static str> {
    match text {
        "privileged" => Ok(None),
        "baseline" => Ok(Some(Level::Baseline)),
        "restricted" => Ok(Some(Level::Restricted)),
        _ => Err("must be one of privileged, baseline, restricted"),
    }
}

/// `latest`, or `v1.` and a number without leading zeros.
fn version_of(text: &str) -> Result<String, &'static str> {
    let is_number = |minor: &str| {
        !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'))
    };
    if text == LATEST || text.strip_prefix("v1.").is_some_and(is_number) {
        return Ok(text.to_owned());
    }
    Err("must be \"latest\" or \"v1.x\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(labels: &[(&str, &str)], enforce: Option<&str>, warn: Option<&str>, errors: &[&str]) {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(mode, value)| (format!("{PREFIX}{mode}"), (*value).to_owned())).collect();
        let (policies, found) = read(&labels);
        let text = |policy: Option<Policy>| policy.map(|p| p.to_string());
        assert_eq!((text(policies.enforce).as_deref(), text(policies.warn).as_deref()), (enforce, warn), "{labels:?}");
        let found: Vec<String> = found.iter().map(|e| format!("{}: {}", e.field, e.body())).collect();
        assert_eq!(found, errors);
    }

    #[test]
    fn what_cannot_be_read_is_enforced_as_strictly_as_can_be() {
        check(&[], None, None, &[]);
        check(&[("enforce", "privileged"), ("warn", "baseline")], None, Some("baseline:latest"), &[]);
        check(&[("enforce", "restricted"), ("enforce-version", "v1.30")], Some("restricted:v1.30"), None, &[]);
        let levels = "must be one of privileged, baseline, restricted";
        check(
            &[("enforce", "Restricted"), ("warn", ""), ("audit", "x")],
            Some("restricted:latest"),
            None,
            &[
                &format!("metadata.labels[{PREFIX}enforce]: Invalid value: \"Restricted\": {levels}"),
                &format!("metadata.labels[{PREFIX}audit]: Invalid value: \"x\": {levels}"),
                &format!("metadata.labels[{PREFIX}warn]: Invalid value: \"\": {levels}"),
            ],
        );
        for version in ["x", "v2.0", "1.30", "v1.030", "v1."] {
            let error = format!(
                "metadata.labels[{PREFIX}enforce-version]: Invalid value: {version:?}: must be \"latest\" or \"v1.x\""
            );
            let labels = [("enforce", "baseline"), ("enforce-version", version)];
            check(&labels, Some("baseline:latest"), None, &[&error]);
        }
    }
}
