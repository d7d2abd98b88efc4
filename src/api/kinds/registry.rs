//! Which rules belong to which kind: one row for each.

use super::{Generation, Generic, KindRules, SelectableField, Traits};
use crate::meta::format::NameRule;

const fn field(name: &'static str, pointer: &'static str, absent: &'static str) -> SelectableField {
    SelectableField { name, pointer, absent }
}

const NAMESPACED: Traits = Traits::NAMESPACED;
const CLUSTER: Traits = Traits::CLUSTER;

macro_rules! generic {
    ($traits:expr) => {{
        static RULES: Generic = Generic($traits);
        &RULES
    }};
}

/// The rules of a kind; one that upstream knows nothing special about, or that is not known here, has
/// its metadata checked and nothing else.
#[must_use]
pub fn rules(group: &str, kind: &str) -> &'static dyn KindRules {
    match (group, kind) {
        _ => generic!(NAMESPACED),
    }
}
