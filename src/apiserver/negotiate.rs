//! Which form of an answer a client accepts.

use http::HeaderMap;
use http::header::{ACCEPT, USER_AGENT};

use crate::error::ApiError;
use crate::request::{parse_bool, query_pairs};

pub(crate) const JSON: &str = "application/json";
pub(crate) const YAML: &str = "application/yaml";
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Yaml,
    Protobuf,
}

/// What is sent instead of the object itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    Table,
    /// `PartialObjectMetadata`, or its list.
    Metadata,
}

/// How much of each object goes into a table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    None,
    Metadata,
    Object,
}

/// The negotiated form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) media: Media,
    pub(crate) shape: Shape,
    /// The version of `meta.k8s.io` that a table or metadata is sent in.
    pub(crate) meta_version: &'static str,
    pub(crate) pretty: bool,
    pub(crate) include_object: IncludeObject,
}

/// What an endpoint can answer with, beside JSON of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) protobuf: bool,
    pub(crate) shapes: Shapes,
    /// Watches are streams, of which there are none in YAML.
    pub(crate) stream: bool,
}

/// What an endpoint can make of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shapes {
    Object,
    ObjectOrMetadata,
    All,
}

impl Offer {
    /// What a resource's own endpoints offer.
    pub(crate) fn of_resource(verb: &str, query: &str, protobuf: bool) -> Self {
        let stream = verb == "watch";
        // A bookmark, which ends the initial events, fits into no table.
        let shapes = if stream && asks_for_initial_events(query) { Shapes::ObjectOrMetadata } else { Shapes::All };
        Self { protobuf, shapes, stream }
    }

    fn not_acceptable(self) -> ApiError {
        let forms = if self.stream {
            format!("{JSON};stream=watch, {PROTOBUF};stream=watch")
        } else {
            format!("{JSON}, {YAML}, {PROTOBUF}")
        };
        ApiError::NotAcceptable(format!("only the following media types are accepted: {forms}"))
    }
}

fn asks_for_initial_events(query: &str) -> bool {
    let says = |name: &str| query_pairs(query).any(|(key, value)| key == name && parse_bool(&value));
    says("sendInitialEvents") && says("allowWatchBookmarks")
}

impl Output {
    pub(crate) const JSON: Self = Self {
        media: Media::Json,
        shape: Shape::Object,
        meta_version: "v1",
        pretty: false,
        include_object: IncludeObject::Metadata,
    };

    /// Whether objects go out as they are stored, if that is in the version that was asked for.
    pub(crate) fn is_plain_json(&self) -> bool {
        self.media == Media::Json && self.shape == Shape::Object && !self.pretty
    }

    /// Negotiates an answer.
    ///
    /// # Errors
    /// When nothing that the client accepts is on offer.
    pub(crate) fn negotiate(headers: &HeaderMap, query: &str, offer: Offer) -> Result<Self, ApiError> {
        let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
        let mut output = Self::of_accept(accept, offer)?;
        let mut pretty = None;
        for (key, value) in query_pairs(query) {
            match &*key {
                "pretty" => pretty = Some(parse_bool(&value)),
                "includeObject" => output.include_object = include_object(&value)?,
                _ => {}
            }
        }
        output.pretty = pretty.unwrap_or_else(|| is_human(headers));
        Ok(output)
    }

    fn of_accept(accept: &str, offer: Offer) -> Result<Self, ApiError> {
        if accept.trim().is_empty() {
            return Ok(Self::JSON);
        }
        let mut clauses: Vec<Clause<'_>> = accept.split(',').map(Clause::parse).collect();
        clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
        clauses.iter().find_map(|clause| clause.output(offer)).ok_or_else(|| offer.not_acceptable())
    }
}

/// The message for a request body in a form that is not understood.
pub(crate) fn unsupported_media_type(accepted: &[&str]) -> ApiError {
    ApiError::UnsupportedMediaType(format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    ))
}

fn include_object(value: &str) -> Result<IncludeObject, ApiError> {
    match value {
        "None" => Ok(IncludeObject::None),
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        "Object" => Ok(IncludeObject::Object),
        other => Err(ApiError::BadRequest(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
             'Object', 'None', or empty"
        ))),
    }
}

/// Upstream indents for command-line downloaders and browsers.
fn is_human(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
}

/// One alternative of an `Accept` header.
#[derive(Debug, Default)]
struct Clause<'a> {
    media: &'a str,
    quality: f32,
    kind: Option<&'a str>,
    group: &'a str,
    version: &'a str,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let mut clause = Self { media: parts.next().unwrap_or(""), quality: 1.0, ..Self::default() };
        for (name, value) in parts.filter_map(|p| p.split_once('=')) {
            match name {
                "q" => clause.quality = value.parse().unwrap_or(1.0),
                "as" => clause.kind = Some(value),
                "g" => clause.group = value,
                "v" => clause.version = value,
                _ => {}
            }
        }
        clause
    }

    fn output(&self, offer: Offer) -> Option<Output> {
        let media = match self.media {
            JSON | "application/*" | "*/*" => Media::Json,
            YAML if !offer.stream => Media::Yaml,
            PROTOBUF if offer.protobuf => Media::Protobuf,
            _ => return None,
        };
        let output = Output { media, ..Output::JSON };
        let Some(kind) = self.kind else { return Some(output) };
        let meta_version = match (self.group, self.version) {
            ("meta.k8s.io", "v1") => "v1",
            ("meta.k8s.io", "v1beta1") => "v1beta1",
            _ => return None,
        };
        let shape = match kind {
            "Table" => Shape::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Shape::Metadata,
            _ => return None,
        };
        let offered = match offer.shapes {
            Shapes::Object => false,
            Shapes::ObjectOrMetadata => shape == Shape::Metadata,
            Shapes::All => true,
        };
        (offered && media != Media::Protobuf).then_some(Output { shape, meta_version, ..output })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &str, protobuf: bool, expected: Option<(Media, Shape)>) {
        let offer = Offer { protobuf, shapes: Shapes::All, stream: false };
        assert_eq!(Output::of_accept(accept, offer).ok().map(|o| (o.media, o.shape)), expected, "{accept}");
    }

    #[test]
    fn the_first_form_that_can_be_made_is_taken() {
        check("", false, Some((Media::Json, Shape::Object)));
        check("*/*", false, Some((Media::Json, Shape::Object)));
        check("application/yaml", false, Some((Media::Yaml, Shape::Object)));
        check(&format!("{PROTOBUF},{JSON}"), true, Some((Media::Protobuf, Shape::Object)));
        check(&format!("{PROTOBUF},{JSON}"), false, Some((Media::Json, Shape::Object)));
        check("application/json;q=0.5,application/yaml", false, Some((Media::Yaml, Shape::Object)));
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            false,
            Some((Media::Json, Shape::Table)),
        );
        check(
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            false,
            Some((Media::Json, Shape::Metadata)),
        );
        check(
            "application/json;as=Nonsense;v=v1;g=meta.k8s.io,application/json",
            false,
            Some((Media::Json, Shape::Object)),
        );
        check("text/html", false, None);
        check(PROTOBUF, false, None);
    }
    #[test]
    fn an_endpoint_without_tables_takes_the_next_form_or_none() {
        let offer = Offer { protobuf: true, shapes: Shapes::Object, stream: false };
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        let shape = |accept: &str| Output::of_accept(accept, offer).ok().map(|o| o.shape);
        assert_eq!(shape(table), None);
        assert_eq!(shape(&format!("{table},{JSON}")), Some(Shape::Object));
    }
}
