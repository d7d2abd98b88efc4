//! Acting as another user: the `Impersonate-*` headers, as kubectl's `--as` sends them.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;

use super::User;
use super::attributes::{Attributes, ResourceTarget};
use super::decision::{Decision, forbidden};
use super::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, service_account_groups, split_service_account};
use crate::error::ApiError;

const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// Whom the headers ask to act as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

fn text_of(value: &HeaderValue) -> Result<String, ApiError> {
    let text = std::str::from_utf8(value.as_bytes());
    text.map(str::to_owned).map_err(|_| ApiError::BadRequest("an impersonation header is not UTF-8".to_owned()))
}

/// Upstream answers 500 to it, but nothing in here failed: whoever has a token must not write the log.
fn unusable(what: &str) -> ApiError {
    tracing::debug!(what, "unusable impersonation");
    ApiError::Status(Box::new(Status::from(&ApiError::internal(what))))
}

impl Request {
    /// `None` without any such header.
    ///
    /// # Errors
    /// When something besides the user is impersonated, but no user; when a header cannot be read: it would
    /// else leave the client with more rights than it asked for.
    pub(super) fn read(headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let value = |name: &str| headers.get(name).map(text_of).transpose().map(Option::unwrap_or_default);
        let groups: Result<Vec<String>, ApiError> = headers.get_all("impersonate-group").iter().map(text_of).collect();
        let mut request = Self {
            user: value("impersonate-user")?,
            uid: value("impersonate-uid")?,
            groups: groups?,
            extra: BTreeMap::new(),
        };
        for (name, value) in headers {
            if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
                request.extra.entry(unescape(key)).or_default().push(text_of(value)?);
            }
        }
        if request == Self::default() {
            return Ok(None);
        }
        if request.user.is_empty() {
            let what = [
                (!request.groups.is_empty()).then(|| format!("groups {:?}", request.groups)),
                (!request.extra.is_empty()).then(|| format!("extra {:?}", request.extra.keys())),
                (!request.uid.is_empty()).then(|| format!("uid {:?}", request.uid)),
            ];
            let what: Vec<String> = what.into_iter().flatten().collect();
            return Err(unusable(&format!("requested {} without impersonating a user", what.join(", "))));
        }
        Ok(Some(request))
    }

    /// Asks the authorizer about each part, then takes on the identity.
    ///
    /// # Errors
    /// `Forbidden` for the first part that the real user may not impersonate.
    pub(super) fn take_on(
        self,
        real: &User,
        authorize: impl Fn(&Attributes<'_>) -> Decision,
    ) -> Result<User, ApiError> {
        let check = |target: ResourceTarget<'_>| {
            let attributes = Attributes::resource(real, "impersonate", target);
            match authorize(&attributes) {
                Decision::Allow { .. } => Ok(()),
                Decision::NoOpinion { reason } => Err(forbidden(&attributes, &reason)),
            }
        };
        let plain = |resource, name| ResourceTarget { resource, name, ..ResourceTarget::default() };
        match split_service_account(&self.user) {
            Some((namespace, name)) => check(ResourceTarget { namespace, ..plain("serviceaccounts", name) })?,
            None => check(plain("users", &self.user))?,
        }
        for group in &self.groups {
            check(plain("groups", group))?;
        }
        for (key, values) in &self.extra {
            for value in values {
                let target =
                    ResourceTarget { group: AUTHENTICATION_GROUP, subresource: key, ..plain("userextras", value) };
                check(target)?;
            }
        }
        if !self.uid.is_empty() {
            check(ResourceTarget { group: AUTHENTICATION_GROUP, ..plain("uids", &self.uid) })?;
        }
        Ok(self.into_user())
    }

    fn into_user(self) -> User {
        let mut groups = self.groups;
        if groups.is_empty()
            && let Some((namespace, _)) = split_service_account(&self.user)
        {
            groups.extend(service_account_groups(namespace));
        }
        let standing = if self.user == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
        if !groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
            groups.push(standing.to_owned());
        }
        User { name: self.user, uid: self.uid, groups, extra: self.extra }
    }
}

/// Extra keys travel in header names, percent-encoded where a header name cannot carry them.
fn unescape(key: &str) -> String {
    let mut out = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escape = (byte == b'%').then(|| tail.get(..2)).flatten();
        let decoded = escape.and_then(|e| hex::decode(e).ok());
        match decoded.as_deref() {
            Some([value]) => {
                out.push(*value);
                rest = &tail[2..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    /// The identity that results, and every question that was asked.
    fn run(pairs: &[(&str, &str)], allowed: bool) -> (Result<User, String>, Vec<String>) {
        let asked = std::cell::RefCell::new(Vec::new());
        let answer = |a: &Attributes<'_>| {
            let super::super::attributes::Target::Resource(t) = a.target else { panic!("a path") };
            asked.borrow_mut().push(format!("{}/{}/{}/{}/{}", t.group, t.namespace, t.resource, t.subresource, t.name));
            if allowed { Decision::allow() } else { Decision::none("") }
        };
        let request = Request::read(&headers(pairs)).unwrap().unwrap();
        let user = request.take_on(&User::authenticated("root", &[]), answer).map_err(|e| e.to_string());
        (user, asked.into_inner())
    }

    #[test]
    fn every_part_is_authorized() {
        let (user, asked) = run(
            &[
                ("Impersonate-User", "ann"),
                ("Impersonate-Group", "devs"),
                ("Impersonate-Uid", "7"),
                ("Impersonate-Extra-acme.com%2Fproject", "x"),
            ],
            true,
        );
        assert_eq!(
            asked,
            [
                "//users//ann",
                "//groups//devs",
                "authentication.k8s.io//userextras/acme.com/project/x",
                "authentication.k8s.io//uids//7"
            ]
        );
        let user = user.unwrap();
        assert_eq!(user.groups, ["devs", AUTHENTICATED]);
        assert_eq!(user.extra["acme.com/project"], ["x"]);
    }

    #[test]
    fn a_service_account_is_asked_for_as_one_and_gets_its_groups() {
        let (user, asked) = run(&[("Impersonate-User", "system:serviceaccount:a:sa")], true);
        assert_eq!(asked, ["/a/serviceaccounts//sa"]);
        assert_eq!(user.unwrap().groups, ["system:serviceaccounts", "system:serviceaccounts:a", AUTHENTICATED]);
    }

    #[test]
    fn a_refusal_is_upstreams() {
        let (user, _) = run(&[("Impersonate-User", "ann")], false);
        let message = r#"users "ann" is forbidden: User "root" cannot impersonate resource "users" in API group "" at the cluster scope"#;
        assert_eq!(user, Err(message.into()));
    }

    #[test]
    fn a_group_alone_is_an_error_and_nothing_is_nothing() {
        assert_eq!(Request::read(&headers(&[])).unwrap(), None);
        let error = Request::read(&headers(&[("Impersonate-Group", "devs")])).unwrap_err();
        // The log has a line for each `Internal`.
        let ApiError::Status(status) = error else { panic!("{error}") };
        let message = r#"Internal error occurred: requested groups ["devs"] without impersonating a user"#;
        assert_eq!((status.code, status.reason.as_deref()), (Some(500), Some("InternalError")));
        assert_eq!(status.message.as_deref(), Some(message));
    }
}
