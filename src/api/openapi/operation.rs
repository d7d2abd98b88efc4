//! One operation of a path, and how it is written in each dialect.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::dialect::Dialect;
use super::parameters::Parameter;
use super::schemas::PATCH;

const TYPES: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: &[&str] = &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCHES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

/// What a client sends.
#[derive(Clone, Copy)]
pub(super) enum Body {
    None,
    /// An object of the named schema.
    Object(&'static str),
    /// `DeleteOptions`, which may be left out.
    Options(&'static str),
    Patch,
}

/// What the server answers.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    Object(&'static str),
    /// A list, or a stream of its changes.
    List(&'static str),
    /// Text, or whatever a pod, service or node says.
    Text,
    /// JSON and nothing else: of the named schema, or a text's.
    Json(Option<&'static str>),
}

pub(super) struct Operation<'a> {
    pub(super) method: &'static str,
    pub(super) id: String,
    pub(super) description: String,
    /// `x-kubernetes-action`.
    pub(super) action: &'static str,
    pub(super) tag: Cow<'a, str>,
    pub(super) group: &'a str,
    pub(super) version: &'a str,
    pub(super) kind: &'a str,
    pub(super) parameters: &'static [Parameter],
    pub(super) body: Body,
    pub(super) answer: Answer,
    /// Answers beside 200.
    pub(super) codes: &'static [(&'static str, &'static str)],
}

impl Operation<'_> {
    pub(super) fn render(&self, dialect: Dialect) -> Value {
        let mut parameters: Vec<Value> = self.parameters.iter().map(|p| p.render(dialect)).collect();
        let mut form = Map::new();
        let mut set = |key: &str, value: Value| {
            form.insert(key.to_owned(), value);
        };
        set("operationId", self.id.as_str().into());
        set("description", self.description.as_str().into());
        set("tags", json!([self.tag]));
        if !self.action.is_empty() {
            set("x-kubernetes-action", self.action.into());
            let gvk = json!({"group": self.group, "version": self.version, "kind": self.kind});
            set("x-kubernetes-group-version-kind", gvk);
        }
        match dialect {
            Dialect::V2 => {
                parameters.extend(self.body_parameter());
                let consumes = if matches!(self.body, Body::Patch) { PATCHES } else { &["*/*"] };
                set("consumes", consumes.into());
                set("produces", self.produces().into());
                set("schemes", json!(["https"]));
            }
            Dialect::V3 => {
                if let Some(body) = self.request_body() {
                    set("requestBody", body);
                }
            }
        }
        if !parameters.is_empty() {
            set("parameters", parameters.into());
        }
        set("responses", self.responses(dialect));
        form.into()
    }

    fn produces(&self) -> Vec<&'static str> {
        match self.answer {
            Answer::Object(_) => TYPES.to_vec(),
            Answer::List(_) => [TYPES, STREAMS].concat(),
            Answer::Text => vec!["*/*"],
            Answer::Json(_) => vec!["application/json"],
        }
    }

    fn body_schema(&self) -> Option<&'static str> {
        match self.body {
            Body::None => None,
            Body::Object(name) | Body::Options(name) => Some(name),
            Body::Patch => Some(PATCH),
        }
    }

    fn body_parameter(&self) -> Option<Value> {
        let schema = json!({"$ref": Dialect::V2.reference(self.body_schema()?)});
        let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
        if !matches!(self.body, Body::Options(_)) {
            parameter["required"] = true.into();
        }
        Some(parameter)
    }

    fn request_body(&self) -> Option<Value> {
        let schema = json!({"schema": {"$ref": Dialect::V3.reference(self.body_schema()?)}});
        let types = if matches!(self.body, Body::Patch) { PATCHES } else { &["*/*"] };
        let content: Map<String, Value> = types.iter().map(|ty| ((*ty).to_owned(), schema.clone())).collect();
        let mut body = json!({"content": content});
        if !matches!(self.body, Body::Options(_)) {
            body["required"] = true.into();
        }
        Some(body)
    }

    fn responses(&self, dialect: Dialect) -> Value {
        let schema = match self.answer {
            Answer::Object(name) | Answer::List(name) | Answer::Json(Some(name)) => {
                json!({"$ref": dialect.reference(name)})
            }
            Answer::Text | Answer::Json(None) => json!({"type": "string"}),
        };
        let mut responses = Map::new();
        let codes = [("200", "OK")].into_iter().chain(self.codes.iter().copied());
        for (code, description) in codes {
            let form = match dialect {
                Dialect::V2 => json!({"description": description, "schema": schema}),
                Dialect::V3 => {
                    let content: Map<String, Value> =
                        self.produces().iter().map(|ty| ((*ty).to_owned(), json!({"schema": schema}))).collect();
                    json!({"description": description, "content": content})
                }
            };
            responses.insert(code.to_owned(), form);
        }
        responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
        responses.into()
    }
}
