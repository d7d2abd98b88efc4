//! Controller revisions: snapshots of a template that never change.

use k8s_openapi::api::apps::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;

pub(crate) struct ControllerRevision;

impl Kind for ControllerRevision {
    type Object = api::ControllerRevision;

    fn validate(&self, obj: &api::ControllerRevision, errs: &mut ErrorList) {
        if obj.data.is_none() {
            errs.push(field::required(&Path::new("data"), "data is mandatory"));
        }
        field::non_negative(&Path::new("revision"), obj.revision, errs);
    }

    fn validate_update(&self, new: &api::ControllerRevision, old: &api::ControllerRevision, errs: &mut ErrorList) {
        self.validate(new, errs);
        let data = |obj: &api::ControllerRevision| obj.data.as_ref().map(|d| d.0.clone());
        field::immutable(&Path::new("data"), &data(new), &data(old), errs);
    }
}
