//! Service account tokens: what they claim, how they are issued, and when they stop to hold.
//!
//! A token is bound to its account and possibly to a pod, secret or node. All of them must still be
//! there, under the same uid, each time the token is used: deleting the object revokes the token.

use std::collections::HashMap;
use std::sync::Arc;

use api::object::{GroupResource, Object, ObjectKey};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::User;
use super::jwt::{self, SigningKey, TokenError, VerifyingKey};

/// Clocks may differ by this much; upstream's leeway.
const LEEWAY_SECONDS: i64 = 60;
/// How many verified signatures are remembered: a token of every pod of a large node, twice over.
const REMEMBERED: usize = 1024;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Bound,
    pub nbf: i64,
    pub sub: String,
}

/// The private claim: the account and what the token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Ref>,
    pub serviceaccount: Ref,
    /// From then on the use of the token is worth a warning: it should have been renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// One object, told by name and uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ref {
    pub name: String,
    pub uid: String,
}

/// Why a token is refused; told to nobody but the log.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYet,
    #[error("{0} has been deleted")]
    Gone(String),
    #[error("{0} does not match the UID in the token")]
    Replaced(String),
}

/// Issues and checks tokens.
pub struct Tokens {
    key: SigningKey,
    /// Ours, then those of earlier keys.
    keys: Vec<VerifyingKey>,
    pub issuer: String,
    /// The audiences that stand for the API server itself.
    pub audiences: Vec<String>,
    verified: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// Finds a live object.
pub type Find<'f> = &'f dyn Fn(&GroupResource, &ObjectKey) -> Option<Object>;

impl Tokens {
    #[must_use]
    pub fn new(key: SigningKey, issuer: &str) -> Self {
        let keys = vec![key.public().clone()];
        let audiences = vec![issuer.to_owned()];
        Self { key, keys, issuer: issuer.to_owned(), audiences, verified: Mutex::default() }
    }

    #[must_use]
    pub fn issue(&self, claims: &Claims) -> String {
        self.key.sign(claims)
    }

    /// The public keys, as `/openid/v1/jwks` publishes them.
    #[must_use]
    pub fn key_set(&self) -> serde_json::Value {
        serde_json::json!({"keys": self.keys.iter().map(VerifyingKey::jwk).collect::<Vec<_>>()})
    }

    /// The user of a token, and the audiences that it shares with `audiences`.
    ///
    /// # Errors
    /// Why the token does not hold.
    pub fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
        find: Find<'_>,
    ) -> Result<(User, Vec<String>), Refused> {
        let claims = self.verified(token)?;
        let shared: Vec<String> = claims.aud.iter().filter(|a| audiences.contains(a)).cloned().collect();
        if claims.iss != self.issuer {
            return Err(Refused::Issuer);
        }
        if shared.is_empty() {
            return Err(Refused::Audience);
        }
        claims.check(now, find)?;
        Ok((claims.user(), shared))
    }

    fn verified(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.verified.lock().get(&digest) {
            return Ok(Arc::clone(claims));
        }
        let claims: Arc<Claims> = Arc::new(jwt::verify(token, &self.keys)?);
        let mut verified = self.verified.lock();
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(digest, Arc::clone(&claims));
        Ok(claims)
    }
}

impl Claims {
    fn check(&self, now: Timestamp, find: Find<'_>) -> Result<(), Refused> {
        if now.as_second() > self.exp.saturating_add(LEEWAY_SECONDS) {
            return Err(Refused::Expired);
        }
        if now.as_second() < self.nbf.saturating_sub(LEEWAY_SECONDS) {
            return Err(Refused::NotYet);
        }
        let bound = &self.kubernetes;
        let namespace = bound.namespace.as_str();
        check_live("serviceaccounts", namespace, &bound.serviceaccount, now, find)?;
        if let Some(secret) = &bound.secret {
            check_live("secrets", namespace, secret, now, find)?;
        }
        if let Some(pod) = &bound.pod {
            // The node of a pod's token is for information: the pod's own life decides.
            return check_live("pods", namespace, pod, now, find);
        }
        if let Some(node) = &bound.node {
            check_live("nodes", "", node, now, find)?;
        }
        Ok(())
    }

    /// The identity that the token stands for.
    #[must_use]
    pub fn user(&self) -> User {
        let bound = &self.kubernetes;
        let mut user = User::service_account(&bound.namespace, &bound.serviceaccount.name);
        user.uid.clone_from(&bound.serviceaccount.uid);
        let mut extra = |key: &str, value: &str| {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        };
        extra("credential-id", &format!("JTI={}", self.jti));
        for (kind, reference) in [("pod", &bound.pod), ("node", &bound.node)] {
            if let Some(reference) = reference {
                extra(&format!("{kind}-name"), &reference.name);
                extra(&format!("{kind}-uid"), &reference.uid);
            }
        }
        user
    }
}

/// Only the one field that the index lacks.
#[derive(Deserialize)]
struct Deleting {
    metadata: DeletingMeta,
}

api::decode!(Deleting);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeletingMeta {
    deletion_timestamp: Option<Timestamp>,
}

fn check_live(resource: &str, namespace: &str, wanted: &Ref, now: Timestamp, find: Find<'_>) -> Result<(), Refused> {
    let what = || format!("{resource} {:?}", wanted.name);
    let object = find(&GroupResource::new("", resource), &ObjectKey::new(namespace, &wanted.name))
        .ok_or_else(|| Refused::Gone(what()))?;
    if *object.index.uid != *wanted.uid {
        return Err(Refused::Replaced(what()));
    }
    if object.index.deleting {
        // A pod that is shutting down may still speak until its deletion is due.
        let due = object.decode::<Deleting>().ok().and_then(|d| d.metadata.deletion_timestamp);
        if due.is_none_or(|due| due.as_second() < now.as_second() - LEEWAY_SECONDS) {
            return Err(Refused::Gone(what()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
