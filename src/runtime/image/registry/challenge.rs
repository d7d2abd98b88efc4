//! The header `WWW-Authenticate`: what a registry wants before it answers.

use http_auth::parser::ChallengeParser;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// The best of those that a registry offers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token from the server at `realm`.
    Bearer { realm: String, service: Option<String> },
    /// Anything else is answered with a name and a password, or not at all.
    Other,
}

impl Challenge {
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut found = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            found = Some(Self::Other);
            let Ok(text) = value.to_str() else { continue };
            let bearer = ChallengeParser::new(text).map_while(Result::ok).find_map(|challenge| {
                let parameter = |name: &str| {
                    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                let realm = parameter("realm").filter(|_| challenge.scheme.eq_ignore_ascii_case("bearer"))?;
                Some(Self::Bearer { realm, service: parameter("service") })
            });
            if bearer.is_some() {
                return bearer;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[&str], expected: Option<&Challenge>) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        assert_eq!(Challenge::of(&headers).as_ref(), expected, "{values:?}");
    }

    #[test]
    fn a_token_is_preferred() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        };
        check(&[], None);
        check(&["Basic realm=\"x\""], Some(&Challenge::Other));
        check(&["garbage = ="], Some(&Challenge::Other));
        check(&["Bearer service=\"x\""], Some(&Challenge::Other));
        check(&["Basic realm=\"x\", bearer Realm=\"https://t/a?b=c\""], Some(&bearer("https://t/a?b=c", None)));
        check(&["Basic realm=\"x\"", "Bearer realm=\"r\""], Some(&bearer("r", None)));
        check(
            &["Bearer realm=\"https://t\",service=\"s, \\\"t\\\"\",scope=\"repository:a/b:pull,push\""],
            Some(&bearer("https://t", Some("s, \"t\""))),
        );
    }
}
