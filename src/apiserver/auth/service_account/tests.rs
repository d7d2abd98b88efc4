use std::collections::BTreeMap;

use api::object::ObjectIndex;
use serde_json::json;

use super::*;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const NOW: &str = "2026-06-01T00:00:00Z";

/// Objects by `resource/name`: uid and the time at which a deletion is due.
type World = BTreeMap<&'static str, Entry>;
type Entry = (&'static str, Option<&'static str>);

fn world() -> World {
    BTreeMap::from([("serviceaccounts/sa", ("u1", None)), ("pods/web", ("u2", None)), ("secrets/s", ("u3", None))])
}

fn object(uid: &str, due: Option<&str>) -> Object {
    let json = json!({"metadata": {"deletionTimestamp": due}}).to_string();
    let index = ObjectIndex { uid: uid.into(), deleting: due.is_some(), ..ObjectIndex::default() };
    Object { json: json.into(), index: Arc::new(index) }
}

fn reference(name: &str, uid: &str) -> Ref {
    Ref { name: name.into(), uid: uid.into() }
}

fn claims() -> Claims {
    let now: Timestamp = NOW.parse().unwrap();
    Claims {
        aud: vec![ISSUER.into()],
        exp: now.as_second() + 3607,
        iat: now.as_second(),
        iss: ISSUER.into(),
        jti: "j".into(),
        kubernetes: Bound {
            namespace: "default".into(),
            pod: Some(reference("web", "u2")),
            serviceaccount: reference("sa", "u1"),
            ..Bound::default()
        },
        nbf: now.as_second(),
        sub: "system:serviceaccount:default:sa".into(),
    }
}

fn authenticate(claims: &Claims, world: &World, after: i64) -> Result<User, Refused> {
    let tokens = Tokens::new(jwt::tests::key(), ISSUER);
    let token = tokens.issue(claims);
    let now: Timestamp = NOW.parse().unwrap();
    let now = Timestamp::from_second(now.as_second() + after).unwrap();
    let find = |resource: &GroupResource, key: &ObjectKey| {
        world.get(format!("{resource}/{}", key.name).as_str()).map(|(uid, due)| object(uid, *due))
    };
    let twice = tokens.authenticate(&token, &tokens.audiences, now, &find);
    assert_eq!(tokens.authenticate(&token, &tokens.audiences, now, &find), twice, "the memory changes nothing");
    twice.map(|(user, _)| user)
}

#[test]
fn a_good_token_names_its_account_and_pod() {
    let user = authenticate(&claims(), &world(), 0).unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:default:sa", "u1"));
    let extra: Vec<(&str, &str)> = user.extra.iter().map(|(k, v)| (k.as_str(), v[0].as_str())).collect();
    assert_eq!(
        extra,
        [
            ("authentication.kubernetes.io/credential-id", "JTI=j"),
            ("authentication.kubernetes.io/pod-name", "web"),
            ("authentication.kubernetes.io/pod-uid", "u2"),
        ]
    );
}

#[test]
fn a_token_holds_for_its_time_and_a_minute_of_leeway() {
    for (after, expected) in
        [(3607 + 60, Ok(())), (3607 + 61, Err(Refused::Expired)), (-60, Ok(())), (-61, Err(Refused::NotYet))]
    {
        assert_eq!(authenticate(&claims(), &world(), after).map(drop), expected, "{after}");
    }
}

#[test]
fn deleting_what_a_token_is_bound_to_revokes_it() {
    #[track_caller]
    fn check(change: fn(&mut World) -> Option<Entry>, expected: &Result<(), Refused>) {
        let mut world = world();
        change(&mut world);
        assert_eq!(authenticate(&claims(), &world, 0).map(drop), *expected);
    }
    check(|w| w.remove("serviceaccounts/sa"), &Err(Refused::Gone("serviceaccounts \"sa\"".into())));
    check(|w| w.remove("pods/web"), &Err(Refused::Gone("pods \"web\"".into())));
    check(|w| w.insert("pods/web", ("other", None)), &Err(Refused::Replaced("pods \"web\"".into())));
    check(|w| w.insert("pods/web", ("u2", Some("2026-06-01T00:00:30Z"))), &Ok(()));
    check(|w| w.insert("pods/web", ("u2", Some("2026-05-31T23:58:00Z"))), &Err(Refused::Gone("pods \"web\"".into())));
}

#[test]
fn issuer_and_audience_must_be_ours() {
    let other = Claims { iss: "https://elsewhere".into(), ..claims() };
    assert_eq!(authenticate(&other, &world(), 0), Err(Refused::Issuer));
    let vault = Claims { aud: vec!["vault".into()], ..claims() };
    assert_eq!(authenticate(&vault, &world(), 0), Err(Refused::Audience));
}

#[test]
fn claims_are_written_as_upstream_writes_them() {
    assert_eq!(
        serde_json::to_value(claims()).unwrap()["kubernetes.io"],
        json!({"namespace": "default", "pod": {"name": "web", "uid": "u2"}, "serviceaccount": {"name": "sa", "uid": "u1"}})
    );
}
