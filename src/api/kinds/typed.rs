//! Runs the rules of a kind that are written on its typed struct.

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Admitted, KindRules, Traits, prepare};
use crate::field::{self, ErrorList, Path};
use crate::meta;
use crate::meta::address_form::forgive_old;

/// A kind with rules of its own. Metadata is checked around these hooks, by the same code for all.
pub(crate) trait Kind: Sync {
    type Object: Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned;

    /// Fills in defaults; must not change an object that has them.
    fn default(&self, _obj: &mut Self::Object) {}

    fn prepare_create(&self, _obj: &mut Self::Object) {}

    fn prepare_update(&self, _new: &mut Self::Object, _old: &Self::Object) {}

    fn validate(&self, _obj: &Self::Object, _errs: &mut ErrorList) {}

    /// What a changed object must satisfy; metadata and immutable identity are seen to already.
    fn validate_update(&self, new: &Self::Object, _old: &Self::Object, errs: &mut ErrorList) {
        self.validate(new, errs);
    }

    fn validate_status_update(&self, _new: &Self::Object, _old: &Self::Object, _errs: &mut ErrorList) {}

    /// What its author is told once, when it is made.
    fn warnings_on_create(&self, _obj: &Self::Object) -> Vec<String> {
        Vec::new()
    }

    fn warnings(&self, _obj: &Self::Object) -> Vec<String> {
        Vec::new()
    }
}

pub(crate) struct Typed<K> {
    pub(crate) traits: Traits,
    pub(crate) kind: K,
}

/// Writes the typed object back over the untyped one.
fn encode<T: Serialize>(obj: &T, into: &mut Value) -> Result<(), serde_json::Error> {
    *into = serde_json::to_value(obj)?;
    Ok(())
}

/// Reads an object that is about to be written back, moving its texts: what stands there afterwards is null.
fn take<T: DeserializeOwned>(obj: &mut Value) -> Result<T, serde_json::Error> {
    T::deserialize(obj.take())
}

/// Puts a judged object back. Of one with more errors than are told, whose size is most of its cost, only the
/// metadata is written: nobody looks at more of what is refused.
fn put_back<T: Metadata<Ty = ObjectMeta> + Serialize>(
    obj: &T,
    errors: &ErrorList,
    into: &mut Value,
) -> Result<(), serde_json::Error> {
    if !errors.is_full() {
        return encode(obj, into);
    }
    *into = serde_json::json!({ "metadata": serde_json::to_value(obj.metadata())? });
    Ok(())
}

/// What is reported for an object that is not of the kind: the schema was to keep it out.
/// What cannot be read is refused.
pub(super) fn undecodable(error: &serde_json::Error) -> ErrorList {
    field::internal(&Path::nil(), error.to_string()).into()
}

impl<K: Kind> Typed<K> {
    fn decode(value: &Value) -> Result<K::Object, serde_json::Error> {
        K::Object::deserialize(value)
    }

    fn check(&self, obj: &K::Object) -> ErrorList {
        let mut errs = meta::validate_object_meta(obj.metadata(), self.traits.namespaced, self.traits.names);
        self.kind.validate(obj, &mut errs);
        errs
    }

    fn check_update(&self, new: &K::Object, old: &K::Object) -> ErrorList {
        let mut errs = meta::validate_object_meta_update(new.metadata(), old.metadata());
        self.kind.validate_update(new, old, &mut errs);
        forgive_old(&mut errs, || serde_json::to_value(old));
        errs
    }

    fn check_two(
        new: &Value,
        old: &Value,
        check: impl FnOnce(&K::Object, &K::Object) -> ErrorList,
    ) -> Result<ErrorList, serde_json::Error> {
        Ok(check(&Self::decode(new)?, &Self::decode(old)?))
    }
}

impl<K: Kind> KindRules for Typed<K> {
    fn traits(&self) -> &Traits {
        &self.traits
    }

    fn default(&self, obj: &mut Value) -> Result<(), serde_json::Error> {
        let mut typed = take(obj)?;
        self.kind.default(&mut typed);
        encode(&typed, obj)
    }

    fn prepare_create(&self, obj: &mut Value) {
        prepare::create(obj, &self.traits);
        if let Ok(mut typed) = Self::decode(obj) {
            self.kind.prepare_create(&mut typed);
            // Encoding what was decoded from JSON cannot fail.
            let _ = encode(&typed, obj);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        prepare::inherit_metadata(new, old);
        prepare::keep_status(new, old, &self.traits);
        if let (Ok(mut typed), Ok(typed_old)) = (Self::decode(new), Self::decode(old)) {
            self.kind.prepare_update(&mut typed, &typed_old);
            // Encoding what was decoded from JSON cannot fail.
            let _ = encode(&typed, new);
        }
        prepare::bump_generation(new, old, &self.traits);
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        prepare::status_update(new, old, &self.traits);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        match Self::decode(obj) {
            Ok(typed) => self.check(&typed),
            Err(error) => undecodable(&error),
        }
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        Self::check_two(new, old, |new, old| self.check_update(new, old)).unwrap_or_else(|e| undecodable(&e))
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        let check = |new: &K::Object, old: &K::Object| {
            let mut errs = meta::validate_object_meta_update(new.metadata(), old.metadata());
            self.kind.validate_status_update(new, old, &mut errs);
            forgive_old(&mut errs, || serde_json::to_value(old));
            errs
        };
        Self::check_two(new, old, check).unwrap_or_else(|e| undecodable(&e))
    }

    fn warnings(&self, obj: &Value) -> Vec<String> {
        Self::decode(obj).map(|typed| self.kind.warnings(&typed)).unwrap_or_default()
    }

    fn admit_create(&self, obj: &mut Value) -> Result<Admitted, serde_json::Error> {
        prepare::create(obj, &self.traits);
        let mut typed = take(obj)?;
        self.kind.default(&mut typed);
        self.kind.prepare_create(&mut typed);
        let errors = self.check(&typed);
        put_back(&typed, &errors, obj)?;
        let mut warnings = Vec::new();
        if !errors.is_full() {
            warnings = self.kind.warnings_on_create(&typed);
            warnings.extend(self.kind.warnings(&typed));
        }
        Ok(Admitted { errors, warnings })
    }

    fn admit_update(&self, new: &mut Value, old: &Value) -> Result<Admitted, serde_json::Error> {
        prepare::inherit_metadata(new, old);
        prepare::keep_status(new, old, &self.traits);
        let mut typed = take(new)?;
        let typed_old = Self::decode(old)?;
        self.kind.default(&mut typed);
        self.kind.prepare_update(&mut typed, &typed_old);
        let errors = self.check_update(&typed, &typed_old);
        put_back(&typed, &errors, new)?;
        prepare::bump_generation(new, old, &self.traits);
        let warnings = if errors.is_full() { Vec::new() } else { self.kind.warnings(&typed) };
        Ok(Admitted { errors, warnings })
    }
}
