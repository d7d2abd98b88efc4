//! Runtime classes: the handler is a label and never changes.

use k8s_openapi::api::node::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::{format, validate_labels};

pub(crate) struct RuntimeClass;

impl Kind for RuntimeClass {
    type Object = api::RuntimeClass;

    fn default(&self, obj: &mut api::RuntimeClass) {
        crate::core::pod::default_amounts(obj.overhead.as_mut().and_then(|o| o.pod_fixed.as_mut()));
    }

    fn validate(&self, obj: &api::RuntimeClass, errs: &mut ErrorList) {
        let path = Path::new("handler");
        field::invalid_each(&path, &obj.handler, format::dns1123_label(&obj.handler), errs);
        if let Some(scheduling) = obj.scheduling.as_ref() {
            let path = Path::new("scheduling");
            validate_labels(scheduling.node_selector.as_ref(), &path.child("nodeSelector"), errs);
        }
    }

    fn validate_update(&self, new: &api::RuntimeClass, old: &api::RuntimeClass, errs: &mut ErrorList) {
        field::immutable(&Path::new("handler"), &new.handler, &old.handler, errs);
    }
}
