//! Descriptions of types and fields, as the build packed them from `k8s-openapi`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};

use flate2::read::ZlibDecoder;

/// A line for each type, compressed: its name, its description and those of its fields.
const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.zz"));

/// What lists share stands in this type too.
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

struct Type {
    description: String,
    fields: HashMap<String, String>,
}

/// The descriptions of some types and of their fields.
pub(super) struct Descriptions {
    types: HashMap<String, Type>,
}

/// The name that a line begins with, to be read without the rest of it.
fn name(line: &str) -> Option<&str> {
    line.strip_prefix("[\"")?.split('"').next()
}

impl Descriptions {
    /// Descriptions for documents that hold the named types.
    pub(super) fn of<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let wanted: Vec<&str> = names.chain([STATUS]).collect();
        let mut types = HashMap::new();
        // The build made these bytes: what cannot be read is left out of documents, which only describe.
        for line in BufReader::new(ZlibDecoder::new(PACKED)).lines().map_while(Result::ok) {
            if name(&line).is_some_and(|name| wanted.contains(&name))
                && let Ok((name, description, fields)) = serde_json::from_str(&line)
            {
                types.insert(name, Type { description, fields });
            }
        }
        Self { types }
    }

    pub(super) fn ty(&self, name: &str) -> Option<String> {
        if let Some(ty) = self.types.get(name).filter(|ty| !ty.description.is_empty()) {
            return Some(ty.description.clone());
        }
        let (_, short) = name.rsplit_once('.')?;
        short.strip_suffix("List").map(|kind| format!("{short} is a list of objects of kind {kind}."))
    }

    /// Lists have no types of their own in `k8s-openapi`.
    pub(super) fn field(&self, ty: &str, field: &str) -> Option<&str> {
        let described = |ty: &str| self.types.get(ty).and_then(|ty| ty.fields.get(field)).map(String::as_str);
        let shared = || match field {
            "items" => Some("The objects of the list."),
            _ => described(STATUS),
        };
        described(ty).or_else(|| if ty.ends_with("List") { shared() } else { None })
    }
}
