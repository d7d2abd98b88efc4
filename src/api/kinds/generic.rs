//! The rules of kinds that have none of their own beyond their metadata.

use serde_json::Value;

use super::typed::undecodable;
use super::{KindRules, Traits, prepare};
use crate::field::ErrorList;
use crate::meta;

pub(crate) struct Generic(pub(crate) Traits);

impl KindRules for Generic {
    fn traits(&self) -> &Traits {
        &self.0
    }

    fn default(&self, _obj: &mut Value) -> Result<(), serde_json::Error> {
        Ok(())
    }

    fn prepare_create(&self, obj: &mut Value) {
        prepare::create(obj, &self.0);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        prepare::inherit_metadata(new, old);
        prepare::keep_status(new, old, &self.0);
        prepare::bump_generation(new, old, &self.0);
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        prepare::status_update(new, old, &self.0);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        match meta::meta_of(obj) {
            Ok(meta) => meta::validate_object_meta(&meta, self.0.namespaced, self.0.names),
            Err(error) => undecodable(&error),
        }
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        match (meta::meta_of(new), meta::meta_of(old)) {
            (Ok(new), Ok(old)) => meta::validate_object_meta_update(&new, &old),
            (Err(error), _) | (_, Err(error)) => undecodable(&error),
        }
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        self.validate_update(new, old)
    }

    fn warnings(&self, _obj: &Value) -> Vec<String> {
        Vec::new()
    }
}
