//! Secrets: `stringData` becomes `data` on the way in, well-known types need their keys.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as api;
use serde_json::Value;

use super::config_map::{FROZEN, SIZE_MAX};
use crate::field::{self, ErrorList, Path};
use crate::kinds::Kind;
use crate::meta::format;
use crate::schema::explain;

const SERVICE_ACCOUNT: &str = "kubernetes.io/service-account.name";

pub(crate) struct Secret;

impl Kind for Secret {
    type Object = api::Secret;

    fn default(&self, obj: &mut api::Secret) {
        if obj.type_.as_deref().unwrap_or("").is_empty() {
            obj.type_ = Some("Opaque".to_owned());
        }
        if let Some(text) = obj.string_data.take() {
            let data = obj.data.get_or_insert_default();
            data.extend(text.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes()))));
        }
    }

    fn validate(&self, obj: &api::Secret, errs: &mut ErrorList) {
        let path = Path::new("data");
        let mut size = 0;
        for (key, value) in obj.data.iter().flatten() {
            if errs.is_full() {
                return;
            }
            field::invalid_each(&path.key(key), key, format::config_map_key(key), errs);
            size += value.0.len();
        }
        if size > SIZE_MAX {
            errs.push(field::too_long(&path, SIZE_MAX));
        }
        validate_type(obj, &path, errs);
    }

    fn validate_update(&self, new: &api::Secret, old: &api::Secret, errs: &mut ErrorList) {
        let (kind, was) = (new.type_.as_deref().unwrap_or(""), old.type_.as_deref().unwrap_or(""));
        field::immutable(&Path::new("type"), &kind, &was, errs);
        if old.immutable == Some(true) {
            if new.immutable != Some(true) {
                errs.push(field::forbidden(&Path::new("immutable"), FROZEN));
            }
            if new.data != old.data {
                errs.push(field::forbidden(&Path::new("data"), FROZEN));
            }
        }
        self.validate(new, errs);
    }

    fn warnings(&self, obj: &api::Secret) -> Vec<String> {
        let empty = |key: &str| obj.data.as_ref().and_then(|d| d.get(key)).is_some_and(|v| v.0.is_empty());
        let keys: &[&str] = match obj.type_.as_deref() {
            Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
            _ => &[],
        };
        keys.iter().filter(|k| empty(k)).map(|k| format!("data[{k}]: must not be empty")).collect()
    }
}

/// Why Go reads no object out of these bytes, in its words. It takes null for an empty one.
fn object_error(bytes: &[u8]) -> Option<String> {
    let found = match serde_json::from_slice::<Value>(bytes) {
        Err(error) => return Some(explain(bytes, &error).to_string()),
        Ok(Value::Object(_) | Value::Null) => return None,
        Ok(Value::Bool(_)) => "bool",
        Ok(Value::Number(_)) => "number",
        Ok(Value::String(_)) => "string",
        Ok(Value::Array(_)) => "array",
    };
    Some(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"))
}

fn validate_type(obj: &api::Secret, path: &Path<'_>, errs: &mut ErrorList) {
    let value = |key: &str| obj.data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.as_slice());
    let require = |key: &str, errs: &mut ErrorList| errs.push(field::required(&path.key(key), ""));
    let json = |key: &str, errs: &mut ErrorList| match value(key) {
        None => require(key, errs),
        Some(bytes) => {
            if let Some(why) = object_error(bytes) {
                errs.push(field::invalid(&path.key(key), "<secret contents redacted>", why));
            }
        }
    };
    match obj.type_.as_deref().unwrap_or("") {
        "kubernetes.io/service-account-token" => {
            let annotations = obj.metadata.annotations.as_ref();
            if annotations.and_then(|a| a.get(SERVICE_ACCOUNT)).is_none_or(String::is_empty) {
                let at = Path::new("metadata.annotations");
                errs.push(field::required(&at.key(SERVICE_ACCOUNT), ""));
            }
        }
        "kubernetes.io/dockercfg" => json(".dockercfg", errs),
        "kubernetes.io/dockerconfigjson" => json(".dockerconfigjson", errs),
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            require("username", errs);
            require("password", errs);
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(<[u8]>::is_empty) => {
            require("ssh-privatekey", errs);
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if value(key).is_none() {
                    require(key, errs);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_told_in_gos_words() {
        for (text, expected) in [
            ("{\"auths\":{}}", None),
            ("null", None),
            ("nope", Some("invalid character 'o' in literal null (expecting 'u')")),
            ("xyz", Some("invalid character 'x' looking for beginning of value")),
            ("{\"auths\":{", Some("unexpected end of JSON input")),
            ("", Some("unexpected end of JSON input")),
            ("{} x", Some("invalid character 'x' after top-level value")),
            ("[]", Some("json: cannot unmarshal array into Go value of type map[string]interface {}")),
            ("\"a\"", Some("json: cannot unmarshal string into Go value of type map[string]interface {}")),
            ("7", Some("json: cannot unmarshal number into Go value of type map[string]interface {}")),
        ] {
            assert_eq!(object_error(text.as_bytes()).as_deref(), expected, "{text}");
        }
    }
}
