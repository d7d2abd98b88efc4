//! `selfsubjectreviews`: tells a client who it is, as `kubectl auth whoami` asks.

use std::sync::Arc;

use async_trait::async_trait;
use axum::response::Response;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, SelfSubjectReviewStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::answer::{Carried, Posted};
use super::token_review::info_of;
use super::{Call, SpecialHandler};
use crate::error::ApiError;
use crate::server::ApiServer;

const SELF_SUBJECT: Carried = Carried { group: "authentication.k8s.io", version: "v1", kind: "SelfSubjectReview" };

pub(super) struct Handler;

#[async_trait]
impl SpecialHandler for Handler {
    async fn handle(&self, _server: &Arc<ApiServer>, call: Call) -> Result<Response, ApiError> {
        let posted = Posted::read(call, SELF_SUBJECT).await?;
        let mut review: SelfSubjectReview = posted.typed()?;
        review.metadata.creation_timestamp = Some(Time(Timestamp::now()));
        review.status = Some(SelfSubjectReviewStatus { user_info: Some(info_of(&posted.user)) });
        posted.created(SELF_SUBJECT, &review)
    }
}
