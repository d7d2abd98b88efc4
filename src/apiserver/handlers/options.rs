//! The query parameters and option bodies of the verbs.

use std::num::IntErrorKind;

use api::field;
use api::selector::{FieldSelector, LabelSelector};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::request::{parse_bool, query_pairs};

/// What to do about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// `CreateOptions`, `UpdateOptions` and `PatchOptions`.
#[derive(Clone, Debug)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
    /// The options as an object, for admission.
    pub(crate) object: Value,
}

impl WriteOptions {
    pub(crate) fn parse(query: &str, kind: &str) -> Result<Self, ApiError> {
        let mut errors = field::ErrorList::new();
        let mut object =
            Map::from_iter([("kind".to_owned(), json!(kind)), ("apiVersion".to_owned(), json!("meta.k8s.io/v1"))]);
        let mut dry_run = Vec::new();
        let mut field_validation = FieldValidation::Warn;
        for (key, value) in query_pairs(query) {
            match &*key {
                "dryRun" => dry_run.push(value),
                "fieldManager" => {
                    check_manager(&value, &mut errors);
                    object.insert(key, json!(value));
                }
                "fieldValidation" => {
                    field_validation = parse_field_validation(&value, &mut errors);
                    object.insert(key, json!(value));
                }
                "force" if kind == "PatchOptions" => {
                    let why = "may not be specified for non-apply patch";
                    errors.push(field::forbidden(&field::Path::new("force"), why));
                }
                _ => {}
            }
        }
        check_dry_run(&dry_run, &mut errors);
        if !errors.is_empty() {
            return Err(ApiError::invalid("meta.k8s.io", kind, "", &errors));
        }
        if !dry_run.is_empty() {
            object.insert("dryRun".into(), json!(dry_run));
        }
        Ok(Self { dry_run: !dry_run.is_empty(), field_validation, object: Value::Object(object) })
    }
}

fn check_manager(value: &str, errors: &mut field::ErrorList) {
    const LONGEST: usize = 128;
    if value.len() > LONGEST {
        errors.push(field::too_long(&field::Path::new("fieldManager"), LONGEST));
    }
    if value.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' ')) {
        let why = "should only contain printable characters";
        errors.push(field::invalid(&field::Path::new("fieldManager"), value, why));
    }
}

fn check_dry_run(values: &[String], errors: &mut field::ErrorList) {
    for value in values.iter().filter(|v| *v != "All") {
        errors.push(field::not_supported(&field::Path::new("dryRun"), value, &["All"]));
    }
}

fn parse_field_validation(value: &str, errors: &mut field::ErrorList) -> FieldValidation {
    match value {
        "Ignore" => FieldValidation::Ignore,
        "" | "Warn" => FieldValidation::Warn,
        "Strict" => FieldValidation::Strict,
        other => {
            let supported = ["", "Ignore", "Strict", "Warn"];
            errors.push(field::not_supported(&field::Path::new("fieldValidation"), other, &supported));
            FieldValidation::Ignore
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Preconditions {
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

/// What is to become of the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawDeleteOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    orphan_dependents: Option<bool>,
    propagation_policy: Option<String>,
    dry_run: Option<Vec<String>>,
}

/// `DeleteOptions`, from the body or, without one, from the query.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_period_seconds: Option<i64>,
    pub(crate) preconditions: Preconditions,
    pub(crate) propagation: Option<Propagation>,
    /// The older way to ask for background or orphaning was used.
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) dry_run: bool,
    pub(crate) object: Value,
}

impl DeleteOptions {
    pub(crate) fn of_body(body: Value) -> Result<Self, ApiError> {
        let raw = RawDeleteOptions::deserialize(&body).map_err(|e| ApiError::BadRequest(e.to_string()))?;
        Self::checked(raw, body)
    }

    pub(crate) fn of_query(query: &str) -> Result<Self, ApiError> {
        let mut raw = RawDeleteOptions::default();
        for (key, value) in query_pairs(query) {
            match &*key {
                "gracePeriodSeconds" => {
                    raw.grace_period_seconds = Some(value.parse().map_err(|_| not_a_number(&value))?);
                }
                "orphanDependents" => raw.orphan_dependents = Some(parse_bool(&value)),
                "propagationPolicy" => raw.propagation_policy = Some(value),
                "dryRun" => raw.dry_run.get_or_insert_default().push(value),
                _ => {}
            }
        }
        Self::checked(raw, json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}))
    }

    fn checked(raw: RawDeleteOptions, object: Value) -> Result<Self, ApiError> {
        let mut errors = field::ErrorList::new();
        if raw.orphan_dependents.is_some() && raw.propagation_policy.is_some() {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(field::invalid(&field::Path::new("propagationPolicy"), &raw.propagation_policy, detail));
        }
        let propagation = match raw.propagation_policy.as_deref() {
            None => {
                raw.orphan_dependents.map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background })
            }
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let supported = ["Background", "Foreground", "Orphan"];
                errors.push(field::not_supported(&field::Path::new("propagationPolicy"), other, &supported));
                None
            }
        };
        let dry_run = raw.dry_run.unwrap_or_default();
        check_dry_run(&dry_run, &mut errors);
        if !errors.is_empty() {
            return Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &errors));
        }
        Ok(Self {
            // Upstream treats negative periods as the shortest that is still graceful.
            grace_period_seconds: raw.grace_period_seconds.map(|s| if s < 0 { 1 } else { s }),
            preconditions: raw.preconditions.unwrap_or_default(),
            propagation,
            orphan_dependents: raw.orphan_dependents,
            dry_run: !dry_run.is_empty(),
            object,
        })
    }
}

fn not_a_number(value: &str) -> ApiError {
    ApiError::BadRequest(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))
}

/// How `resourceVersion` is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// A `resourceVersion` as it was asked for. Upstream reads it late, and each verb reports another error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestedVersion(String);

impl RequestedVersion {
    /// The one of a GET.
    pub(crate) fn of_query(query: &str) -> Self {
        let given = query_pairs(query).filter(|(key, _)| key == "resourceVersion").last();
        Self(given.map(|(_, value)| value).unwrap_or_default())
    }

    /// Whether any revision will do: none is named, or 0.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.0.as_str(), "" | "0")
    }

    /// The revision; none if none is named. 0 means any.
    ///
    /// # Errors
    /// With upstream's text when it is no number.
    pub(crate) fn parse(&self) -> Result<Option<u64>, String> {
        let text = self.0.as_str();
        if text.is_empty() {
            return Ok(None);
        }
        let why = match text.parse() {
            Ok(revision) if !text.starts_with('+') => return Ok(Some(revision)),
            Err(error) if *error.kind() == IntErrorKind::PosOverflow => "value out of range",
            Ok(_) | Err(_) => "invalid syntax",
        };
        let detail = format!("strconv.ParseUint: parsing {text:?}: {why}");
        Err(field::invalid(&field::Path::new("resourceVersion"), text, detail).to_string())
    }
}

/// `ListOptions`, for lists and watches.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions {
    pub(crate) labels: LabelSelector,
    pub(crate) fields: FieldSelector,
    pub(crate) resource_version: RequestedVersion,
    pub(crate) version_match: Option<VersionMatch>,
    pub(crate) limit: usize,
    pub(crate) continue_token: String,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
}

impl ListOptions {
    pub(crate) fn parse(query: &str, watch: bool) -> Result<Self, ApiError> {
        let mut options = Self { labels: LabelSelector::everything(), ..Self::default() };
        let mut version_match = String::new();
        for (key, value) in query_pairs(query) {
            match &*key {
                "labelSelector" => options.labels = LabelSelector::parse(&value).map_err(|e| bad_request(&e))?,
                "fieldSelector" => options.fields = FieldSelector::parse(&value).map_err(|e| bad_request(&e))?,
                "resourceVersion" => options.resource_version = RequestedVersion(value),
                "resourceVersionMatch" => version_match = value,
                "limit" if !value.is_empty() => {
                    let limit: i64 = value.parse().map_err(|_| not_a_number(&value))?;
                    options.limit = usize::try_from(limit).unwrap_or(0);
                }
                "continue" => options.continue_token = value,
                "timeoutSeconds" if !value.is_empty() => {
                    let seconds: i64 = value.parse().map_err(|_| not_a_number(&value))?;
                    options.timeout_seconds = Some(u64::try_from(seconds).unwrap_or(0));
                }
                "allowWatchBookmarks" => options.bookmarks = parse_bool(&value),
                "sendInitialEvents" => options.send_initial_events = Some(parse_bool(&value)),
                _ => {}
            }
        }
        options.check(&version_match, watch)?;
        Ok(options)
    }

    fn check(&mut self, version_match: &str, watch: bool) -> Result<(), ApiError> {
        let mut errors = field::ErrorList::new();
        if watch {
            self.check_watch(version_match, &mut errors);
        } else {
            self.check_list(version_match, &mut errors);
        }
        self.version_match = match version_match {
            "" => None,
            "Exact" => Some(VersionMatch::Exact),
            "NotOlderThan" => Some(VersionMatch::NotOlderThan),
            other => {
                let supported = ["Exact", "NotOlderThan", ""];
                let path = field::Path::new("resourceVersionMatch");
                errors.push(field::not_supported(&path, other, &supported));
                None
            }
        };
        if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &errors)) }
    }

    fn check_list(&self, version_match: &str, errors: &mut field::ErrorList) {
        let version = &self.resource_version.0;
        let path = field::Path::new("resourceVersionMatch");
        let mut forbid = |detail: &str| errors.push(field::forbidden(&path, detail));
        if !version_match.is_empty() {
            if version.is_empty() {
                forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if !self.continue_token.is_empty() {
                forbid("resourceVersionMatch is forbidden when continue is provided");
            }
            if version_match == "Exact" && version == "0" {
                forbid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
        }
        if self.send_initial_events.is_some() {
            let path = field::Path::new("sendInitialEvents");
            errors.push(field::forbidden(&path, "sendInitialEvents is forbidden for list"));
        }
    }

    fn check_watch(&self, version_match: &str, errors: &mut field::ErrorList) {
        let path = field::Path::new("resourceVersionMatch");
        let mut forbid = |detail: &str| errors.push(field::forbidden(&path, detail));
        match self.send_initial_events {
            None if !version_match.is_empty() => {
                forbid("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
            }
            Some(_) if version_match.is_empty() => {
                forbid("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
            }
            Some(_) if version_match == "Exact" => {
                let supported = ["NotOlderThan"];
                errors.push(field::not_supported(&path, version_match, &supported));
            }
            Some(_) | None => {}
        }
    }
}

fn bad_request(error: &impl ToString) -> ApiError {
    ApiError::BadRequest(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(result: Result<impl Sized, ApiError>, message: &str) {
        assert_eq!(result.err().map(|e| e.to_string()).as_deref(), Some(message));
    }

    #[test]
    fn wrong_options_are_refused_in_upstreams_words() {
        refused(
            WriteOptions::parse("dryRun=Some", "CreateOptions"),
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"Some\": supported values: \"All\"",
        );
        refused(
            WriteOptions::parse("fieldManager=a%09b", "CreateOptions"),
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: \"a\\tb\": should only contain \
             printable characters",
        );
        refused(
            WriteOptions::parse("force=true", "PatchOptions"),
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
        );
        refused(
            ListOptions::parse("resourceVersionMatch=Exact", false),
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is \
             forbidden unless resourceVersion is provided",
        );
        refused(
            ListOptions::parse("sendInitialEvents=true", true),
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires \
             setting resourceVersionMatch to NotOlderThan",
        );
        refused(
            DeleteOptions::of_query("propagationPolicy=Maybe"),
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Maybe\": supported \
             values: \"Background\", \"Foreground\", \"Orphan\"",
        );
    }

    #[test]
    fn a_revision_is_a_number() {
        #[track_caller]
        fn check(query: &str, expected: Result<Option<u64>, &str>) {
            let got = RequestedVersion::of_query(query).parse();
            assert_eq!(got.as_ref().map(|v| *v).map_err(String::as_str), expected, "{query}");
        }
        check("", Ok(None));
        check("resourceVersion=", Ok(None));
        check("resourceVersion=0&x=1", Ok(Some(0)));
        check("resourceVersion=7", Ok(Some(7)));
        for (text, why) in [
            ("abc", "invalid syntax"),
            ("-1", "invalid syntax"),
            ("%2B1", "invalid syntax"),
            ("99999999999999999999", "value out of range"),
        ] {
            let shown = text.replace("%2B", "+");
            let message =
                format!("resourceVersion: Invalid value: {shown:?}: strconv.ParseUint: parsing {shown:?}: {why}");
            check(&format!("resourceVersion={text}"), Err(&message));
        }
    }

    #[test]
    fn delete_options_are_the_same_from_body_and_query() {
        let query = DeleteOptions::of_query("gracePeriodSeconds=5&propagationPolicy=Foreground&dryRun=All").unwrap();
        let body = json!({"gracePeriodSeconds": 5, "propagationPolicy": "Foreground", "dryRun": ["All"]});
        let body = DeleteOptions::of_body(body).unwrap();
        for options in [query, body] {
            assert_eq!(options.grace_period_seconds, Some(5));
            assert_eq!(options.propagation, Some(Propagation::Foreground));
            assert!(options.dry_run);
        }
    }
}
