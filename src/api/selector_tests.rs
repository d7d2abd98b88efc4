use std::collections::BTreeMap;

use super::*;

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), "web".to_owned()), ("n".to_owned(), "5".to_owned())])
}

#[track_caller]
fn check(text: &str, expected: bool) {
    assert_eq!(LabelSelector::parse(text).unwrap().matches(&labels()), expected, "{text}");
}

#[test]
fn label_selectors_match() {
    for (text, expected) in [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app!=web", false),
        ("missing!=web", true),
        ("app", true),
        ("!app", false),
        ("!missing", true),
        ("app in (db, web)", true),
        ("app in (db)", false),
        ("app notin (db)", true),
        ("app notin (web),n", false),
        ("app=web, n in (5)", true),
        ("n>4", true),
        ("n<4", false),
        ("app=", false),
        ("in in (in)", false),
        ("app in ()", false),
    ] {
        check(text, expected);
    }
}

#[test]
fn label_selectors_print_sorted() {
    for (text, printed) in
        [("b=2,a=1", "a=1,b=2"), ("x in (c,a)", "x in (a,c)"), ("!x,y", "!x,y"), ("a==1,b!=2", "a=1,b!=2")]
    {
        assert_eq!(LabelSelector::parse(text).unwrap().to_string(), printed);
    }
}

#[test]
fn malformed_label_selectors_are_explained() {
    for (text, message) in [
        ("a=b,", "found '', expected: identifier after ','"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("=x", "found '=', expected: !, identifier, or 'end of string'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
    ] {
        assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), message, "{text}");
    }
    let bad_key = LabelSelector::parse("a/b/c=d").unwrap_err().to_string();
    assert!(bad_key.starts_with("unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a qualified name must"));
    let bad_value = LabelSelector::parse("a=-d").unwrap_err().to_string();
    assert!(
        bad_value.starts_with(
            "unable to parse requirement: values[0][a]: Invalid value: \"-d\": a valid label must be an empty string or"
        ),
        "{bad_value}"
    );
}

#[test]
fn an_objects_selector_selects_nothing_when_absent() {
    assert!(!LabelSelector::from_meta(None).unwrap().matches(&labels()));
    assert!(LabelSelector::from_meta(Some(&metav1::LabelSelector::default())).unwrap().matches(&labels()));
    let selector: metav1::LabelSelector = serde_json::from_value(serde_json::json!({
        "matchLabels": {"app": "web"}, "matchExpressions": [{"key": "n", "operator": "NotIn", "values": ["6"]}]
    }))
    .unwrap();
    assert!(LabelSelector::from_meta(Some(&selector)).unwrap().matches(&labels()));
    assert_eq!(format_label_selector(Some(&selector)), "app=web,n notin (6)");
    assert_eq!(format_label_selector(None), "<none>");
}

#[test]
fn an_objects_selector_that_selects_by_nothing_is_malformed() {
    #[track_caller]
    fn check(selector: serde_json::Value, expected: &str) {
        let selector: metav1::LabelSelector = serde_json::from_value(selector).unwrap();
        assert_eq!(LabelSelector::from_meta(Some(&selector)).unwrap_err().to_string(), expected);
    }
    let one = |operator: &str, values: &[&str]| serde_json::json!({"matchExpressions": [{"key": "n", "operator": operator, "values": values}]});
    let empty = "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty";
    check(one("In", &[]), empty);
    check(one("NotIn", &[]), empty);
    check(serde_json::json!({"matchExpressions": [{"key": "n", "operator": "NotIn"}]}), empty);
    let values = "values: Invalid value: [\"a\"]: values set must be empty for exists and does not exist";
    check(one("Exists", &["a"]), values);
    check(one("DoesNotExist", &["a"]), values);
    check(one("Gt", &["1"]), "\"Gt\" is not a valid label selector operator");
    let key = serde_json::json!({"matchLabels": {"a/b/c": "d"}});
    let selector: metav1::LabelSelector = serde_json::from_value(key).unwrap();
    let error = LabelSelector::from_meta(Some(&selector)).unwrap_err().to_string();
    assert!(error.starts_with("key: Invalid value: \"a/b/c\": a qualified name must"), "{error}");
}

#[test]
fn field_selectors_match_and_unescape() {
    let selector = FieldSelector::parse("status.phase=Running,metadata.name!=a\\,b").unwrap();
    assert!(selector.matches(|f| Some(if f == "status.phase" { "Running" } else { "x" })));
    assert!(!selector.matches(|f| Some(if f == "status.phase" { "Running" } else { "a,b" })));
    assert_eq!(selector.required_value("status.phase"), Some("Running"));
    assert_eq!(selector.to_string(), "status.phase=Running,metadata.name!=a\\,b");
    assert_eq!(
        FieldSelector::parse("nonsense").unwrap_err().to_string(),
        "invalid selector: 'nonsense'; can't understand 'nonsense'"
    );
    assert!(FieldSelector::parse("a=b=c").is_err());
}

#[test]
fn a_selector_has_a_bounded_number_of_requirements() {
    let text = |count: usize, one: &str| vec![one; count].join(",");
    assert!(LabelSelector::parse(&text(1_000, "a")).is_ok());
    assert_eq!(
        LabelSelector::parse(&text(1_001, "a")).unwrap_err().to_string(),
        "a selector has at most 1000 requirements"
    );
    assert!(FieldSelector::parse(&text(1_000, "a=b")).is_ok());
    assert!(FieldSelector::parse(&text(1_001, "a=b")).is_err());
}
