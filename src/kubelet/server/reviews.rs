//! Questions to the API server about the kubelet's own clients: whose token is this, and may that user
//! do this? Answers are remembered for a while, as upstream's kubelet does.

use std::collections::BTreeMap;
use std::time::Duration;

use api::k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use api::k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use client::kube::{self, Api, api::PostParams};
use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::cache::Cache;

/// Upstream's times.
const TOKEN_LIFETIME: Duration = Duration::from_secs(120);
const ALLOWED_LIFETIME: Duration = Duration::from_secs(300);
const DENIED_LIFETIME: Duration = Duration::from_secs(30);
/// A token that is nobody's now may be a new account's in a moment.
const NOBODY_LIFETIME: Duration = Duration::from_secs(10);
/// Each cache has about 300 bytes an entry; a home cluster has a handful of scrapers. Refusals have
/// caches of their own, so that strangers push nobody out but each other.
const ENTRIES: usize = 256;
/// Questions on their way at once: strangers ask with made-up tokens as quickly as they can.
const QUESTIONS: usize = 8;
/// A client waits ten seconds for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

const AUTHENTICATED: &str = "system:authenticated";

type Key = [u8; 32];

/// Who a client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    fn of(info: UserInfo) -> Option<Self> {
        let name = info.username.filter(|name| !name.is_empty())?;
        Some(Self {
            name,
            uid: info.uid.unwrap_or_default(),
            groups: info.groups.unwrap_or_default(),
            extra: info.extra.unwrap_or_default(),
        })
    }

    fn authenticated(mut self) -> Self {
        if !self.groups.iter().any(|group| group == AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("the API server did not answer in time")]
    Silent,
    #[error("the review has no status")]
    Empty,
    #[error("the question cannot be written: {0}")]
    Question(#[from] serde_json::Error),
}

/// What an answer is remembered under. A question without one is not asked: all of them would share
/// the answer to the first.
fn key_of(question: &impl Serialize) -> Result<Key, Error> {
    Ok(Sha256::digest(serde_json::to_vec(question)?).into())
}

pub(super) struct Reviews {
    client: kube::Client,
    node: String,
    room: Semaphore,
    tokens: Mutex<Cache<Key, User>>,
    nobodys: Mutex<Cache<Key, ()>>,
    allowed: Mutex<Cache<Key, ()>>,
    denied: Mutex<Cache<Key, ()>>,
}

impl Reviews {
    /// Of the clients of this node's kubelet.
    pub(super) fn new(client: kube::Client, node: String) -> Self {
        Self {
            client,
            node,
            room: Semaphore::new(QUESTIONS),
            tokens: Mutex::new(Cache::new(ENTRIES, TOKEN_LIFETIME)),
            nobodys: Mutex::new(Cache::new(ENTRIES, NOBODY_LIFETIME)),
            allowed: Mutex::new(Cache::new(ENTRIES, ALLOWED_LIFETIME)),
            denied: Mutex::new(Cache::new(ENTRIES, DENIED_LIFETIME)),
        }
    }

    /// Whose token it is; absent when it is nobody's.
    pub(super) async fn user_of(&self, token: &str) -> Result<Option<User>, Error> {
        let key: Key = Sha256::digest(token).into();
        let now = Instant::now();
        if let Some(user) = self.tokens.lock().get(&key, now) {
            return Ok(Some(user));
        }
        if self.nobodys.lock().get(&key, now).is_some() {
            return Ok(None);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), audiences: None },
            ..TokenReview::default()
        };
        let status = self.ask(&review).await?.status.ok_or(Error::Empty)?;
        let user = status.user.filter(|_| status.authenticated == Some(true)).and_then(User::of);
        match &user {
            Some(user) => self.tokens.lock().put(key, user.clone(), Instant::now()),
            None => self.nobodys.lock().put(key, (), Instant::now()),
        }
        Ok(user)
    }

    /// Whether the user may do this to a subresource of the node.
    pub(super) async fn allows(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, Error> {
        let spec = self.question(user.clone().authenticated(), verb, subresource);
        let key = key_of(&spec)?;
        let now = Instant::now();
        if self.allowed.lock().get(&key, now).is_some() {
            return Ok(true);
        }
        if self.denied.lock().get(&key, now).is_some() {
            return Ok(false);
        }
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let status = self.ask(&review).await?.status.ok_or(Error::Empty)?;
        let cache = if status.allowed { &self.allowed } else { &self.denied };
        cache.lock().put(key, (), Instant::now());
        Ok(status.allowed)
    }

    fn question(&self, user: User, verb: &str, subresource: &str) -> SubjectAccessReviewSpec {
        SubjectAccessReviewSpec {
            user: Some(user.name),
            uid: Some(user.uid).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups),
            extra: Some(user.extra).filter(|extra| !extra.is_empty()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                version: Some("v1".to_owned()),
                resource: Some("nodes".to_owned()),
                subresource: Some(subresource.to_owned()),
                name: Some(self.node.clone()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        }
    }

    async fn ask<R>(&self, review: &R) -> Result<R, Error>
    where
        R: kube::Resource + Clone + std::fmt::Debug + Serialize + serde::de::DeserializeOwned,
        R::DynamicType: Default,
    {
        let answer = async {
            let _permit = self.room.acquire().await.expect("invariant: the semaphore is never closed");
            let api: Api<R> = Api::all(self.client.clone());
            Ok(api.create(&PostParams::default(), review).await?)
        };
        timeout(PATIENCE, answer).await.map_err(|_| Error::Silent)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_cannot_be_written_has_no_key() {
        let unwritable = BTreeMap::from([(vec![1], "keys of JSON objects are strings")]);
        assert!(matches!(key_of(&unwritable), Err(Error::Question(_))));
        let question = |user: &str| SubjectAccessReviewSpec { user: Some(user.to_owned()), ..Default::default() };
        assert_ne!(key_of(&question("a")).unwrap(), key_of(&question("b")).unwrap());
    }
}
