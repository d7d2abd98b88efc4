//! Priority classes: the highest values belong to the system, and a value never changes.

use k8s_openapi::api::scheduling::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;

const USER_MAX: i32 = 1_000_000_000;
/// Classes that every cluster has, with their values.
const SYSTEM: &[(&str, i32)] = &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub(crate) struct PriorityClass;

impl Kind for PriorityClass {
    type Object = api::PriorityClass;

    fn default(&self, obj: &mut api::PriorityClass) {
        obj.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
    }

    fn validate(&self, obj: &api::PriorityClass, errs: &mut ErrorList) {
        let name = obj.metadata.name.as_deref().unwrap_or("");
        let value = obj.value.unwrap_or(0);
        let path = Path::new("metadata.name");
        if name.starts_with("system-") {
            match SYSTEM.iter().find(|(known, _)| *known == name) {
                None => {
                    let why = "priority class names with 'system-' prefix are reserved for system use only. error: invalid system priority class";
                    errs.push(field::forbidden(&path, why));
                }
                Some((_, wanted)) if *wanted != value => {
                    let why = format!(
                        "priority class names with 'system-' prefix are reserved for system use only. error: value of {name} PriorityClass must be {wanted}"
                    );
                    errs.push(field::forbidden(&path, why));
                }
                Some(_) => {}
            }
        } else if value > USER_MAX {
            let why = format!("maximum allowed value of a user defined priority is {USER_MAX}");
            errs.push(field::forbidden(&Path::new("value"), why));
        }
        if let Some(policy) = obj.preemption_policy.as_deref() {
            let known = &["PreemptLowerPriority", "Never"];
            crate::core::pod::validate_choice(Some(policy), known, &Path::new("preemptionPolicy"), errs);
        }
    }

    fn validate_update(&self, new: &api::PriorityClass, old: &api::PriorityClass, errs: &mut ErrorList) {
        if new.value != old.value {
            errs.push(field::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        let path = Path::new("preemptionPolicy");
        field::immutable(&path, &new.preemption_policy, &old.preemption_policy, errs);
    }
}
