//! `tokenreviews`: says whose token one is.

use std::sync::Arc;

use async_trait::async_trait;
use axum::response::Response;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewStatus, UserInfo};

use super::answer::{Carried, Posted};
use super::{Call, SpecialHandler};
use crate::auth::User;
use crate::error::ApiError;
use crate::server::ApiServer;

const TOKEN_REVIEW: Carried = Carried { group: "authentication.k8s.io", version: "v1", kind: "TokenReview" };

pub(super) struct Handler;

#[async_trait]
impl SpecialHandler for Handler {
    async fn handle(&self, server: &Arc<ApiServer>, call: Call) -> Result<Response, ApiError> {
        let posted = Posted::read(call, TOKEN_REVIEW).await?;
        let mut review: TokenReview = posted.typed()?;
        let token = review.spec.token.clone();
        if token.is_empty() {
            return Err(ApiError::BadRequest("token is required for TokenReview in authentication".to_owned()));
        }
        let asked = review.spec.audiences.clone().filter(|a| !a.is_empty());
        let audiences = asked.clone().unwrap_or_else(|| server.auth.tokens.audiences.clone());
        let answer = server.auth.token_user(&server.registry, &token, &audiences, Timestamp::now());
        review.status = Some(match answer {
            Ok((user, shared)) => TokenReviewStatus {
                authenticated: Some(true),
                audiences: Some(shared),
                user: Some(info_of(&user)),
                error: None,
            },
            Err(error) => TokenReviewStatus {
                error: Some(format!("[invalid bearer token, {error}]")),
                ..TokenReviewStatus::default()
            },
        });
        posted.created(TOKEN_REVIEW, &review)
    }
}

pub(super) fn info_of(user: &User) -> UserInfo {
    UserInfo {
        username: Some(user.name.clone()),
        uid: Some(user.uid.clone()).filter(|u| !u.is_empty()),
        groups: Some(user.groups.clone()),
        extra: Some(user.extra.clone()).filter(|e| !e.is_empty()),
    }
}
