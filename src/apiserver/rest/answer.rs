//! What the special handlers share: reading the object of a request, admitting it, answering.

use std::sync::Arc;

use api::codec::{Decode, Encode};
use api::object::GroupResource;
use axum::response::Response;
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::{Value, json};

use super::Call;
use crate::admission::{Operation, Review};
use crate::answer::{self, ValueForm};
use crate::auth::User;
use crate::error::ApiError;
use crate::handlers::{BodyTarget, WriteOptions, decode_body};
use crate::receiving::Receiving;
use crate::request::RequestInfo;
use crate::server::ApiServer;

/// The kind of object that a request carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
}

/// A request whose object was read.
pub(super) struct Posted {
    pub(super) info: RequestInfo,
    pub(super) user: Arc<User>,
    pub(super) headers: http::HeaderMap,
    pub(super) object: Value,
    pub(super) options: WriteOptions,
    form: ValueForm,
    warnings: Vec<String>,
}

impl Posted {
    /// Reads the object of a create.
    pub(super) async fn read(call: Call, carried: Carried) -> Result<Self, ApiError> {
        if call.info.verb != "create" {
            return Err(ApiError::MethodNotAllowed);
        }
        let (parts, body) = call.request.into_parts();
        let query = parts.uri.query().unwrap_or("");
        let ty = api::schema::type_of(carried.group, carried.version, carried.kind);
        let form = ValueForm::negotiate(&parts.headers, query, ty)?;
        let options = WriteOptions::parse(query, "CreateOptions")?;
        // It was received before the handler got it.
        let bytes = Receiving::from_component(body).read().await?;
        let mut warnings = Vec::new();
        let target = BodyTarget { ty, group: carried.group, version: carried.version, kind: carried.kind };
        let object = decode_body(&parts.headers, &bytes, target, options.field_validation, &mut warnings)?;
        Ok(Self { info: call.info, user: call.user, headers: parts.headers, object, options, form, warnings })
    }

    /// The object as a typed one.
    pub(super) fn typed<K: Decode>(&self) -> Result<K, ApiError> {
        K::from_value(&self.object).map_err(|e| ApiError::BadRequest(e.to_string()))
    }

    /// Passes the object through admission.
    pub(super) async fn admit(&mut self, server: &ApiServer, kind: &str) -> Result<(), ApiError> {
        let resource = GroupResource::new(&self.info.group, &self.info.resource);
        let mut object = Some(self.object.take());
        let mut review = Review {
            operation: Operation::Create,
            resource: &resource,
            kind,
            subresource: &self.info.subresource,
            namespace: &self.info.namespace,
            name: &self.info.name,
            user: &self.user,
            object: &mut object,
            old: None,
            dry_run: self.options.dry_run,
            options: &self.options.object,
            warnings: Vec::new(),
        };
        server.admission.mutate(&server.registry, &mut review).await?;
        server.admission.validate(&server.auth, &server.registry, &mut review).await?;
        self.warnings.append(&mut review.warnings);
        self.object = object.ok_or_else(|| ApiError::internal("admission removed the object"))?;
        Ok(())
    }

    /// Answers 201 with an object of the kind that was posted.
    pub(super) fn created(&self, carried: Carried, object: &impl Encode) -> Result<Response, ApiError> {
        let mut value = object.to_value().map_err(ApiError::internal)?;
        let api_version = if carried.group.is_empty() {
            carried.version.to_owned()
        } else {
            format!("{}/{}", carried.group, carried.version)
        };
        value["apiVersion"] = json!(api_version);
        value["kind"] = json!(carried.kind);
        self.form.answer(&self.headers, StatusCode::CREATED, &api_version, &value, &self.warnings)
    }

    /// Answers 201 with a status of success.
    pub(super) fn success() -> Response {
        answer::success(&Status { status: Some("Success".to_owned()), code: Some(201), ..Status::default() })
    }
}
