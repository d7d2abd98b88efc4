//! Service account tokens of one pod: bound to it, renewed at four fifths of their life.

use std::collections::HashMap;

use api::k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use api::k8s_openapi::api::core::v1::{ServiceAccount, ServiceAccountTokenProjection};
use client::{kube, status};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, PostParams};

use super::Setup;
use crate::pod::PodExt;

/// Upstream's life of a projected token that names none.
const DEFAULT_SECONDS: i64 = 3600;
/// However long a token lives, it is renewed after a day.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);

struct Token {
    text: String,
    renew_at: Timestamp,
}

/// Tokens by audience and life.
#[derive(Default)]
pub(crate) struct Tokens(HashMap<(String, i64), Token>);

impl Tokens {
    pub(super) fn refresh_at(&self) -> Option<Timestamp> {
        self.0.values().map(|t| t.renew_at).min()
    }

    /// A token that is good for a while.
    pub(super) async fn get(
        &mut self,
        cx: &Setup<'_>,
        source: &ServiceAccountTokenProjection,
    ) -> Result<String, String> {
        let audience = source.audience.clone().unwrap_or_default();
        let seconds = source.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let key = (audience.clone(), seconds);
        if let Some(token) = self.0.get(&key).filter(|t| t.renew_at > cx.now) {
            return Ok(token.text.clone());
        }
        let account = cx.pod.spec().service_account_name.as_deref().unwrap_or("default");
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(if audience.is_empty() { Vec::new() } else { vec![audience] }),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(cx.pod.name().to_owned()),
                    uid: Some(cx.pod.uid().to_owned()),
                }),
            }),
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(cx.client.clone(), cx.pod.namespace());
        let made = api
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .map_err(|e| format!("failed to fetch token: {}", status::message(&e)))?;
        let status = made.status.ok_or("failed to fetch token: the answer carries none")?;
        let expires = status.expiration_timestamp.map(|t| t.0);
        let text = status.token.unwrap_or_default();
        self.0.insert(key, Token { text: text.clone(), renew_at: renew_at(cx.now, expires, seconds) });
        Ok(text)
    }
}

fn renew_at(now: Timestamp, expires: Option<Timestamp>, asked_seconds: i64) -> Timestamp {
    let life = expires.map_or(SignedDuration::from_secs(asked_seconds), |e| e.duration_since(now));
    let age = (life / 5 * 4).clamp(SignedDuration::from_secs(1), MAX_AGE);
    now.checked_add(age).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_at_four_fifths_or_after_a_day() {
        let at = |s| Timestamp::from_second(s).unwrap();
        for (expires, asked, expected) in [
            (Some(at(1000 + 3600)), 3600, 1000 + 2880),
            (None, 600, 1000 + 480),
            (Some(at(1000 + 365 * 86400)), 3600, 1000 + 86400),
            (Some(at(900)), 3600, 1001),
        ] {
            assert_eq!(renew_at(at(1000), expires, asked), at(expected));
        }
    }
}
