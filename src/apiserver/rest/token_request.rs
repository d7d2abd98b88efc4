//! `serviceaccounts/token`: issues a token for a service account, bound to a pod, a secret or a node.

use std::sync::Arc;

use api::field::{self, Path};
use api::object::{GroupResource, Object, ObjectKey};
use async_trait::async_trait;
use axum::response::Response;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::answer::{Carried, Posted};
use super::{Call, SpecialHandler};
use crate::admission::TOKEN_SECONDS;
use crate::auth::service_account::{Bound, Claims, Ref, Tokens};
use crate::auth::user::service_account_name;
use crate::error::ApiError;
use crate::registry::Registry;
use crate::server::ApiServer;

const TOKEN_REQUEST: Carried = Carried { group: "authentication.k8s.io", version: "v1", kind: "TokenRequest" };
const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// Clients that read their token once must not be cut off after an hour: a pod's token holds for a
/// year, and using it late is what `warnafter` tells.
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

pub(super) struct Handler;

#[async_trait]
impl SpecialHandler for Handler {
    async fn handle(&self, server: &Arc<ApiServer>, call: Call) -> Result<Response, ApiError> {
        let mut posted = Posted::read(call, TOKEN_REQUEST).await?;
        posted.admit(server, TOKEN_REQUEST.kind).await?;
        let mut request: TokenRequest = posted.typed()?;
        let (namespace, name) = (posted.info.namespace.clone(), posted.info.name.clone());
        let accounts = GroupResource::new("", "serviceaccounts");
        let account = server
            .registry
            .get(&accounts, &ObjectKey::new(&namespace, &name))
            .ok_or_else(|| ApiError::not_found(&accounts, &name))?;
        let tokens = &server.auth.tokens;
        let mut spec = request.spec.take().unwrap_or_default();
        let audiences = spec.audiences.take().filter(|a| !a.is_empty()).unwrap_or_else(|| tokens.audiences.clone());
        let seconds = *spec.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
        judge(seconds, &name)?;
        let mut bound = Bound {
            namespace: namespace.clone(),
            serviceaccount: Ref { name: name.clone(), uid: account.index.uid.to_string() },
            ..Bound::default()
        };
        if let Some(reference) = &spec.bound_object_ref {
            bind(&server.registry, reference, &mut bound)?;
        }
        let now = Timestamp::now();
        let claims = claims(&audiences, bound, seconds, now, tokens);
        spec.audiences = Some(audiences);
        let expiry = Timestamp::from_second(now.as_second() + seconds).map_err(ApiError::internal)?;
        request.metadata.name = Some(name);
        request.metadata.namespace = Some(namespace);
        request.metadata.creation_timestamp = Some(Time(now));
        request.status =
            Some(TokenRequestStatus { expiration_timestamp: Some(Time(expiry)), token: Some(tokens.issue(&claims)) });
        request.spec = Some(spec);
        posted.created(TOKEN_REQUEST, &request)
    }
}

fn judge(seconds: i64, name: &str) -> Result<(), ApiError> {
    let detail = match seconds {
        ..MIN_SECONDS => "may not specify a duration less than 10 minutes",
        MIN_SECONDS..=MAX_SECONDS => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let spec = Path::new("spec");
    let error = field::invalid(&spec.child("expirationSeconds"), &seconds, detail);
    Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", name, &[error]))
}

fn claims(audiences: &[String], mut bound: Bound, seconds: i64, now: Timestamp, tokens: &Tokens) -> Claims {
    let now = now.as_second();
    let mut expires = now + seconds;
    let is_ours = audiences.iter().all(|a| tokens.audiences.contains(a));
    if seconds == TOKEN_SECONDS && is_ours {
        bound.warnafter = Some(expires);
        expires = now + EXTENDED_SECONDS;
    }
    Claims {
        aud: audiences.to_vec(),
        exp: expires,
        iat: now,
        iss: tokens.issuer.clone(),
        jti: uuid::Uuid::new_v4().to_string(),
        sub: service_account_name(&bound.namespace, &bound.serviceaccount.name),
        kubernetes: bound,
        nbf: now,
    }
}

/// Finds the object that the token is to live and die with.
fn bind(registry: &Registry, reference: &BoundObjectReference, bound: &mut Bound) -> Result<(), ApiError> {
    let name = reference.name.clone().unwrap_or_default();
    let find = |resource: &str, namespace: &str| -> Result<Object, ApiError> {
        let resource = GroupResource::new("", resource);
        let object = registry
            .get(&resource, &ObjectKey::new(namespace, &name))
            .ok_or_else(|| ApiError::not_found(&resource, &name))?;
        let wanted = reference.uid.as_deref().unwrap_or_default();
        if !wanted.is_empty() && *object.index.uid != *wanted {
            let detail = format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might \
                 have been deleted and then recreated"
            );
            return Err(ApiError::conflict(&resource, &name, detail));
        }
        Ok(object)
    };
    let to_ref = |object: &Object| Some(Ref { name: name.clone(), uid: object.index.uid.to_string() });
    match (reference.api_version.as_deref().unwrap_or("v1"), reference.kind.as_deref().unwrap_or_default()) {
        ("v1", "Pod") => {
            let pod = find("pods", &bound.namespace)?;
            let field = |name: &str| pod.index.field(name).unwrap_or_default();
            if field("spec.serviceAccountName") != bound.serviceaccount.name {
                return Err(ApiError::BadRequest(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    bound.serviceaccount.name
                )));
            }
            bound.pod = to_ref(&pod);
            bound.node =
                Some(field("spec.nodeName")).filter(|n| !n.is_empty()).map(|n| node_ref(registry, n.to_owned()));
        }
        ("v1", "Node") => bound.node = to_ref(&find("nodes", "")?),
        ("v1", "Secret") => bound.secret = to_ref(&find("secrets", &bound.namespace)?),
        (_, kind) => {
            return Err(ApiError::BadRequest(format!("cannot bind token to object of type {kind:?}")));
        }
    }
    Ok(())
}

/// A pod's node is named even when its object is gone.
fn node_ref(registry: &Registry, name: String) -> Ref {
    let node = registry.get(&GroupResource::new("", "nodes"), &ObjectKey::new("", &name));
    Ref { name, uid: node.map(|n| n.index.uid.to_string()).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_bounds() {
        #[track_caller]
        fn check(seconds: i64, expected: Option<&str>) {
            let head = "TokenRequest.authentication.k8s.io \"sa\" is invalid: spec.expirationSeconds: Invalid value:";
            let got = judge(seconds, "sa").err().map(|e| e.to_string());
            assert_eq!(got, expected.map(|e| format!("{head} {seconds}: {e}")));
        }
        check(600, None);
        check(599, Some("may not specify a duration less than 10 minutes"));
        check(MAX_SECONDS + 1, Some("may not specify a duration larger than 2^32 seconds"));
    }

    #[test]
    fn a_pods_token_holds_longer_than_it_says() {
        let now = Timestamp::from_second(1000).unwrap();
        let tokens = Tokens::new(crate::auth::jwt::tests::key(), "i");
        let of = |seconds, ours| {
            let audience = if ours { "i" } else { "vault" };
            claims(&[audience.to_owned()], Bound::default(), seconds, now, &tokens)
        };
        let token = of(3607, true);
        assert_eq!((token.exp, token.kubernetes.warnafter), (1000 + EXTENDED_SECONDS, Some(4607)));
        assert_eq!((of(3607, false).exp, of(3600, true).exp), (4607, 4600));
        assert_eq!(of(3600, true).kubernetes.warnafter, None);
    }
}
