//! One request as admission sees it, and the ways in which plugins answer.

use api::codec::{Decode, Encode};
use api::object::GroupResource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause};
use serde_json::{Value, json};

use crate::auth::User;
use crate::error::ApiError;

/// What is about to happen to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// One request as admission sees it.
#[derive(Debug)]
pub struct Review<'a> {
    pub operation: Operation,
    pub resource: &'a GroupResource,
    pub kind: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty when the name is still to be generated, and for a delete of a collection's members set.
    pub name: &'a str,
    pub user: &'a User,
    /// The object to be written, in its storage version; `None` for a delete.
    pub object: &'a mut Option<Value>,
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    /// `CreateOptions`, `UpdateOptions`, `PatchOptions` or `DeleteOptions`.
    pub options: &'a Value,
    /// Shown to the client in `Warning` headers.
    pub warnings: Vec<String>,
}

impl Review<'_> {
    /// Whether this is about the resource itself and not one of its subresources.
    #[must_use]
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.is_sub(group, resource, "")
    }

    #[must_use]
    pub fn is_sub(&self, group: &str, resource: &str, subresource: &str) -> bool {
        *self.resource.group == *group && *self.resource.resource == *resource && self.subresource == subresource
    }

    /// The refusal of this request, in the words that upstream puts around a plugin's.
    #[must_use]
    pub fn forbidden(&self, detail: impl std::fmt::Display) -> ApiError {
        ApiError::forbidden(self.resource, self.shown_name(), detail)
    }

    /// The name under which a refusal speaks of the object, which may have none yet.
    fn shown_name(&self) -> &str {
        if !self.name.is_empty() {
            return self.name;
        }
        let metadata = self.object.as_ref().map(|o| &o["metadata"]);
        let text = |key: &str| metadata.and_then(|m| m[key].as_str()).filter(|n| !n.is_empty());
        text("name").or_else(|| text("generateName")).unwrap_or("Unknown")
    }

    /// The object to be written.
    ///
    /// # Errors
    /// When there is none, or it is not a `K`: the schema was checked before, so both are our fault.
    pub fn typed<K: Decode>(&self) -> Result<K, ApiError> {
        let object = self.object.as_ref().ok_or_else(|| ApiError::internal("no object to admit"))?;
        K::from_value(object).map_err(ApiError::internal)
    }

    /// Takes the object to change it and to [`Self::replace`] it. Until then its names are left of it, for a
    /// refusal to name.
    ///
    /// # Errors
    /// As [`Self::typed`].
    pub fn take<K: Decode>(&mut self) -> Result<K, ApiError> {
        let object = self.object.as_mut().ok_or_else(|| ApiError::internal("no object to admit"))?;
        let metadata = &object["metadata"];
        let names = json!({"metadata": {"name": metadata["name"], "generateName": metadata["generateName"]}});
        K::take_value(std::mem::replace(object, names)).map_err(ApiError::internal)
    }

    /// The object as it is stored.
    ///
    /// # Errors
    /// As [`Self::typed`].
    pub fn typed_old<K: Decode>(&self) -> Result<K, ApiError> {
        let object = self.old.ok_or_else(|| ApiError::internal("no stored object to compare with"))?;
        K::from_value(object).map_err(ApiError::internal)
    }

    /// Puts a changed object back.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn replace<K: Encode>(&mut self, object: &K) -> Result<(), ApiError> {
        *self.object = Some(object.to_value().map_err(ApiError::internal)?);
        Ok(())
    }
}

/// Adds a cause to an error's status.
#[must_use]
pub(super) fn with_cause(error: &ApiError, reason: &str, message: String, field: &str) -> ApiError {
    let mut status = Status::from(error);
    let cause = StatusCause { reason: Some(reason.to_owned()), message: Some(message), field: Some(field.to_owned()) };
    status.details.get_or_insert_default().causes.get_or_insert_default().push(cause);
    ApiError::Status(Box::new(status))
}

#[cfg(test)]
mod tests {
    use super::super::tests::review;
    use super::*;

    #[test]
    fn an_object_that_is_taken_keeps_its_names_until_it_is_replaced() {
        let mut object = Some(json!({"metadata": {"generateName": "web-", "labels": {"a": "b"}}}));
        let mut review = review(Operation::Create, "pods", "default/", &mut object);
        let taken: Value = review.take().unwrap();
        assert_eq!(taken["metadata"]["labels"]["a"], "b");
        assert!(review.forbidden("no").to_string().contains("\"web-\""));
        review.replace(&taken).unwrap();
        assert_eq!(object, Some(taken));
    }
}
