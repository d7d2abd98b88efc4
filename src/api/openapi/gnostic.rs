//! OpenAPI v2 as the protobuf message `openapi.v2.Document` of google/gnostic, written from the JSON form.
//!
//! The numbers are those of gnostic's OpenAPIv2.proto; only what our documents hold is written.

use serde_json::{Map, Value};

use crate::protobuf::wire::{put_bytes_field, put_message_field, put_varint, put_varint_field};

/// A document that is written part by part, in the order of its numbers.
pub(super) struct Document {
    out: Vec<u8>,
}

impl Document {
    pub(super) fn new(info: &Value) -> Self {
        let mut out = Vec::new();
        put_bytes_field(&mut out, 1, b"2.0");
        message(&mut out, 2, |out| {
            text(out, 1, &info["title"]);
            text(out, 2, &info["version"]);
        });
        Self { out }
    }

    /// Takes what [`put_path`] wrote.
    pub(super) fn paths(&mut self, items: &[u8]) {
        put_bytes_field(&mut self.out, 8, items);
    }

    /// Takes what [`put_definition`] wrote.
    pub(super) fn definitions(&mut self, definitions: &[u8]) {
        put_bytes_field(&mut self.out, 9, definitions);
    }

    /// The schemes by name; a client may use any of them.
    pub(super) fn security(&mut self, schemes: &Value) {
        let names = || schemes.as_object().into_iter().flatten();
        for (name, _) in names() {
            message(&mut self.out, 12, |out| {
                message(out, 1, |out| {
                    put_bytes_field(out, 1, name.as_bytes());
                    message(out, 2, |_| {});
                });
            });
        }
        message(&mut self.out, 13, |out| {
            for (name, scheme) in names() {
                named(out, 1, name, |out| {
                    message(out, 2, |out| {
                        for (number, key) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
                            text(out, number, &scheme[key]);
                        }
                    });
                });
            }
        });
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }
}

fn message(out: &mut Vec<u8>, number: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let written: Result<(), std::convert::Infallible> = put_message_field(out, number, |out| {
        write(out);
        Ok(())
    });
    written.unwrap_or_else(|never| match never {});
}

/// A message of a name and a value, which is how the format writes maps.
fn named(out: &mut Vec<u8>, number: u8, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
    message(out, number, |out| {
        put_bytes_field(out, 1, name.as_bytes());
        message(out, 2, write);
    });
}

fn text(out: &mut Vec<u8>, number: u8, value: &Value) {
    if let Some(text) = value.as_str() {
        put_bytes_field(out, number, text.as_bytes());
    }
}

fn texts(out: &mut Vec<u8>, number: u8, list: &Value) {
    list.as_array().into_iter().flatten().for_each(|value| text(out, number, value));
}

fn flag(out: &mut Vec<u8>, number: u8, value: &Value) {
    if value == true {
        put_varint_field(out, number, 1);
    }
}

/// The `x-` members; their values are YAML, of which JSON is a part.
fn extensions(out: &mut Vec<u8>, number: u8, object: &Value) {
    for (name, value) in object.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
        named(out, number, name, |out| put_bytes_field(out, 2, value.to_string().as_bytes()));
    }
}

pub(super) fn put_path(out: &mut Vec<u8>, path: &str, item: &Value) {
    named(out, 2, path, |out| {
        for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
            if item[method].is_object() {
                message(out, number, |out| operation(out, &item[method]));
            }
        }
        parameters(out, 9, &item["parameters"]);
    });
}

fn operation(out: &mut Vec<u8>, operation: &Value) {
    texts(out, 1, &operation["tags"]);
    text(out, 3, &operation["description"]);
    text(out, 5, &operation["operationId"]);
    texts(out, 6, &operation["produces"]);
    texts(out, 7, &operation["consumes"]);
    parameters(out, 8, &operation["parameters"]);
    message(out, 9, |out| {
        for (code, response) in operation["responses"].as_object().into_iter().flatten() {
            named(out, 1, code, |out| {
                message(out, 1, |out| {
                    text(out, 1, &response["description"]);
                    if response["schema"].is_object() {
                        message(out, 2, |out| message(out, 1, |out| schema(out, &response["schema"])));
                    }
                });
            });
        }
    });
    texts(out, 10, &operation["schemes"]);
    extensions(out, 13, operation);
}

fn parameters(out: &mut Vec<u8>, number: u8, list: &Value) {
    for parameter in list.as_array().into_iter().flatten() {
        message(out, number, |out| message(out, 1, |out| self::parameter(out, parameter)));
    }
}

fn parameter(out: &mut Vec<u8>, parameter: &Value) {
    match parameter["in"].as_str() {
        Some("body") => message(out, 1, |out| {
            text(out, 2, &parameter["name"]);
            text(out, 3, &parameter["in"]);
            flag(out, 4, &parameter["required"]);
            message(out, 5, |out| schema(out, &parameter["schema"]));
        }),
        // Query parameters have one member more, so their later numbers are one higher.
        Some("query") => message(out, 2, |out| message(out, 3, |out| simple_parameter(out, parameter, 1))),
        Some("path") => message(out, 2, |out| message(out, 4, |out| simple_parameter(out, parameter, 0))),
        Some(_) | None => {}
    }
}

fn simple_parameter(out: &mut Vec<u8>, parameter: &Value, shift: u8) {
    flag(out, 1, &parameter["required"]);
    text(out, 2, &parameter["in"]);
    text(out, 3, &parameter["description"]);
    text(out, 4, &parameter["name"]);
    text(out, 5 + shift, &parameter["type"]);
    if parameter["uniqueItems"] == true {
        put_varint(out, u64::from(19 + shift) << 3);
        put_varint(out, 1);
    }
}

pub(super) fn put_definition(out: &mut Vec<u8>, name: &str, definition: &Value) {
    named(out, 1, name, |out| schema(out, definition));
}

fn schema(out: &mut Vec<u8>, schema: &Value) {
    text(out, 1, &schema["$ref"]);
    text(out, 2, &schema["format"]);
    text(out, 4, &schema["description"]);
    texts(out, 19, &schema["required"]);
    if schema["additionalProperties"].is_object() {
        message(out, 21, |out| message(out, 1, |out| self::schema(out, &schema["additionalProperties"])));
    }
    if schema["type"].is_string() {
        message(out, 22, |out| text(out, 1, &schema["type"]));
    }
    if schema["items"].is_object() {
        message(out, 23, |out| message(out, 1, |out| self::schema(out, &schema["items"])));
    }
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    if !properties.is_empty() {
        message(out, 25, |out| {
            for (name, property) in properties {
                named(out, 1, name, |out| self::schema(out, property));
            }
        });
    }
    extensions(out, 31, schema);
}
