//! OpenAPI documents, built on request: v3 per group version with its index, and v2 for all, as JSON and
//! as the protobuf that kubectl falls back to.
//!
//! Structure comes from the schema table, descriptions from `k8s-openapi`, paths from the rows that the
//! API server passes. A document is written piece by piece, so that no tree of it is ever held.

mod descriptions;
mod dialect;
mod document;
mod gnostic;
mod operation;
mod parameters;
mod paths;
mod schemas;

pub use document::{groups, v2_document, v2_protobuf, v3_document, v3_hash, v3_index, v3_root};

/// A served version of a resource.
#[derive(Clone, Debug, Hash)]
pub struct ResourceDoc<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub plural: &'a str,
    pub namespaced: bool,
    pub verbs: &'a [&'a str],
    pub subresources: Vec<SubresourceDoc<'a>>,
}

/// A part of a resource with a path of its own; group, version and kind are those of what is sent.
#[derive(Clone, Debug, Hash)]
pub struct SubresourceDoc<'a> {
    pub name: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
    pub verbs: &'a [&'a str],
    /// The request is handed on to a pod, a service or a node.
    pub connect: bool,
}

#[cfg(test)]
mod tests;
