//! Events in the form of their own group: the action and who reports it are mandatory.

use k8s_openapi::api::events::v1 as api;

use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;

const NAME_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

pub(crate) struct Event;

impl Kind for Event {
    type Object = api::Event;

    fn validate(&self, obj: &api::Event, errs: &mut ErrorList) {
        if obj.event_time.is_none() {
            errs.push(field::required(&Path::new("eventTime"), ""));
        }
        let kind = obj.type_.as_deref().unwrap_or("");
        if !["Normal", "Warning"].contains(&kind) {
            errs.push(field::invalid(&Path::new("type"), "", format!("has invalid value: {kind}")));
        }
        validate_update(obj, errs);
    }

    fn validate_update(&self, new: &api::Event, _old: &api::Event, errs: &mut ErrorList) {
        validate_update(new, errs);
    }
}

fn validate_update(obj: &api::Event, errs: &mut ErrorList) {
    let controller = obj.reporting_controller.as_deref().unwrap_or("");
    let path = Path::new("reportingController");
    if controller.is_empty() {
        errs.push(field::required(&path, ""));
    } else {
        field::invalid_each(&path, controller, format::qualified_name(controller), errs);
    }
    let rows = [
        ("reportingInstance", obj.reporting_instance.as_deref()),
        ("action", obj.action.as_deref()),
        ("reason", obj.reason.as_deref()),
    ];
    for (name, value) in rows {
        let (path, value) = (Path::new(name), value.unwrap_or(""));
        if value.is_empty() {
            errs.push(field::required(&path, ""));
        }
        if value.len() > NAME_MAX {
            errs.push(field::invalid(&path, "", format!("can have at most {NAME_MAX} characters")));
        }
    }
    if obj.note.as_ref().is_some_and(|n| n.len() > NOTE_MAX) {
        errs.push(field::invalid(&Path::new("note"), "", format!("can have at most {NOTE_MAX} characters")));
    }
}
