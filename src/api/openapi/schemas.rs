//! The schemas of a document: which types it needs, and each type in a dialect.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::ResourceDoc;
use super::descriptions::Descriptions;
use super::dialect::Dialect;
use super::paths::ROOT_TYPES;
use crate::schema::{
    Container, FieldRef, ListType, Scalar, Shape, Strategy, Ty, TypeId, TypeRef, built_in, describe, type_of,
};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// The body of a patch: any object.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The name of the schema of a kind.
pub(super) fn name_of(group: &str, version: &str, kind: &str) -> Option<&'static str> {
    type_of(group, version, kind).map(|ty| describe(ty).name())
}

/// The types of a document and the group versions that its options stand for.
pub(super) struct Schemas<'a> {
    types: BTreeMap<&'static str, TypeId>,
    group_versions: Vec<(&'a str, &'a str)>,
    descriptions: Descriptions,
    dialect: Dialect,
}

impl<'a> Schemas<'a> {
    /// The types that the resources send and answer, and those of their fields.
    pub(super) fn of(rows: &[ResourceDoc<'a>], dialect: Dialect) -> Self {
        let mut types = BTreeMap::new();
        if dialect == Dialect::V2 {
            collect_roots(&mut types);
        }
        for name in ["APIResourceList", "DeleteOptions", "Status", "WatchEvent"] {
            collect(built_in().type_named(&format!("{META}.{name}")), &mut types);
        }
        let mut group_versions = vec![("", "v1")];
        for row in rows {
            group_versions.push((row.group, row.version));
            collect(type_of(row.group, row.version, row.kind), &mut types);
            collect(type_of(row.group, row.version, &format!("{}List", row.kind)), &mut types);
            for sub in row.subresources.iter().filter(|s| !s.connect) {
                collect(type_of(sub.group, sub.version, sub.kind), &mut types);
            }
        }
        group_versions.sort_unstable();
        group_versions.dedup();
        let descriptions = Descriptions::of(types.keys().copied());
        Self { types, group_versions, descriptions, dialect }
    }

    /// The types that the server's own paths answer with, as the third version describes them.
    pub(super) fn of_roots() -> Self {
        let mut types = BTreeMap::new();
        collect_roots(&mut types);
        let descriptions = Descriptions::of(types.keys().copied());
        Self { types, group_versions: vec![("", "v1")], descriptions, dialect: Dialect::V3 }
    }

    /// Each schema's name and form, sorted by name.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'static str, Value)> {
        let patch =
            json!({"description": "A patch of an object, in the form that the content type names.", "type": "object"});
        let mut patch = Some((PATCH, patch));
        self.types.iter().flat_map(move |(name, id)| {
            let before = patch.take_if(|(patch, _)| *patch < *name);
            [before, Some((*name, self.schema(describe(*id))))].into_iter().flatten()
        })
    }

    fn schema(&self, ty: TypeRef<'_>) -> Value {
        let mut schema = Map::new();
        if let Some(text) = self.descriptions.ty(ty.name()) {
            schema.insert("description".to_owned(), text.into());
        }
        self.form(ty, &mut schema);
        let kinds = self.kinds(ty);
        if !kinds.is_empty() {
            schema.insert("x-kubernetes-group-version-kind".to_owned(), kinds.into());
        }
        if ty.atomic() {
            schema.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        if !ty.union().is_empty() {
            schema.insert("x-kubernetes-unions".to_owned(), json!([union(ty.union())]));
        }
        schema.into()
    }

    fn form(&self, ty: TypeRef<'_>, schema: &mut Map<String, Value>) {
        let mut set = |key: &str, value: Value| {
            schema.insert(key.to_owned(), value);
        };
        match ty.shape() {
            Shape::Struct => {
                set("type", "object".into());
                let properties: Map<String, Value> =
                    ty.fields().map(|field| (field.name().to_owned(), self.property(ty, field))).collect();
                let required: Vec<&str> = ty.fields().filter(|f| f.required()).map(FieldRef::name).collect();
                if !properties.is_empty() {
                    set("properties", properties.into());
                }
                if !required.is_empty() {
                    set("required", required.into());
                }
            }
            Shape::Time | Shape::MicroTime => {
                set("type", "string".into());
                set("format", "date-time".into());
            }
            Shape::RawExtension | Shape::FieldsV1 => set("type", "object".into()),
            Shape::Json | Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => {}
            Shape::Quantity if self.dialect == Dialect::V3 => {
                set("oneOf", json!([{"type": "string"}, {"type": "number"}]));
            }
            Shape::Quantity => set("type", "string".into()),
            Shape::IntOrString => {
                set("format", "int-or-string".into());
                match self.dialect {
                    Dialect::V3 => set("oneOf", json!([{"type": "integer"}, {"type": "string"}])),
                    Dialect::V2 => set("type", "string".into()),
                }
            }
        }
    }

    fn kinds(&self, ty: TypeRef<'_>) -> Vec<Value> {
        let mut kinds = Vec::new();
        for (group, version, kind, _) in built_in().kinds().filter(|(.., id)| describe(*id).name() == ty.name()) {
            let gvk = |(group, version): &(&str, &str)| json!({"group": group, "version": version, "kind": kind});
            if group == "*" {
                kinds.extend(self.group_versions.iter().map(gvk));
            } else {
                kinds.push(gvk(&(group, version)));
            }
        }
        kinds
    }

    fn property(&self, owner: TypeRef<'_>, field: FieldRef<'_>) -> Value {
        let mut property = Map::new();
        self.fill(field.ty(), &mut property);
        if let Some(text) = self.descriptions.field(owner.name(), field.name()) {
            property.insert("description".to_owned(), text.into());
        }
        if self.dialect == Dialect::V3 {
            property.extend(default(field).map(|value| ("default".to_owned(), value)));
            wrap_reference(&mut property);
        }
        let extensions = [
            ("x-kubernetes-list-type", list_type(field.list_type()).map(Value::from)),
            ("x-kubernetes-list-map-keys", non_empty(field.list_map_keys().collect()).map(Value::from)),
            ("x-kubernetes-map-type", field.atomic().then(|| "atomic".into())),
            ("x-kubernetes-patch-merge-key", field.merge_key().filter(|key| !key.is_empty()).map(Value::from)),
            ("x-kubernetes-patch-strategy", strategy(field).map(Value::from)),
        ];
        property.extend(extensions.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        property.into()
    }

    /// The type of a property or of the elements in it.
    fn fill(&self, ty: Ty, property: &mut Map<String, Value>) {
        let (kind, key) = match ty.container {
            Container::One => return self.fill_scalar(ty.scalar, property),
            Container::List => ("array", "items"),
            Container::Map | Container::MapOfLists => ("object", "additionalProperties"),
        };
        let mut element = Map::new();
        self.fill(ty.element(), &mut element);
        if self.dialect == Dialect::V3 {
            element.extend(zero(ty.element()).map(|value| ("default".to_owned(), value)));
            wrap_reference(&mut element);
        }
        property.insert("type".to_owned(), kind.into());
        property.insert(key.to_owned(), element.into());
    }

    fn fill_scalar(&self, scalar: Scalar, property: &mut Map<String, Value>) {
        let (kind, format) = match scalar {
            Scalar::String => ("string", None),
            Scalar::Bytes => ("string", Some("byte")),
            Scalar::Bool => ("boolean", None),
            Scalar::Int32 => ("integer", Some("int32")),
            Scalar::Int64 => ("integer", Some("int64")),
            Scalar::Double => ("number", Some("double")),
            Scalar::Any => ("object", None),
            Scalar::Type(id) => {
                property.insert("$ref".to_owned(), self.dialect.reference(describe(id).name()).into());
                return;
            }
        };
        property.insert("type".to_owned(), kind.into());
        property.extend(format.map(|format| ("format".to_owned(), format.into())));
    }
}

fn collect_roots(types: &mut BTreeMap<&'static str, TypeId>) {
    for name in ROOT_TYPES {
        collect(built_in().type_named(name), types);
    }
}

fn collect(ty: Option<TypeId>, types: &mut BTreeMap<&'static str, TypeId>) {
    let Some(ty) = ty else { return };
    if types.insert(describe(ty).name(), ty).is_some() {
        return;
    }
    for field in describe(ty).fields() {
        collect(field.type_ref().map(|inner| inner.id), types);
    }
    if matches!(describe(ty).shape(), Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings) {
        collect(
            built_in().type_named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"),
            types,
        );
    }
}

/// In v3 a reference may have no siblings, so it goes into an `allOf`.
fn wrap_reference(property: &mut Map<String, Value>) {
    if property.len() > 1
        && let Some(reference) = property.remove("$ref")
    {
        property.insert("allOf".to_owned(), json!([{"$ref": reference}]));
    }
}

/// The declared default, or Go's zero value where Go always writes one.
fn default(field: FieldRef<'_>) -> Option<Value> {
    if let Some(text) = field.default() {
        return serde_json::from_str(text).ok();
    }
    let written = !field.omitempty() || field.type_ref().is_some();
    if field.pointer() || !written || field.ty().container != Container::One { None } else { zero(field.ty()) }
}

/// The zero value that stands as a default.
fn zero(ty: Ty) -> Option<Value> {
    match (ty.container, ty.scalar) {
        (Container::One, Scalar::String) => Some("".into()),
        (Container::One, Scalar::Bool) => Some(false.into()),
        (Container::One, Scalar::Int32 | Scalar::Int64 | Scalar::Double) => Some(0.into()),
        (Container::One, Scalar::Type(id)) => match describe(id).shape() {
            Shape::Struct => Some(json!({})),
            _ => None,
        },
        _ => None,
    }
}

fn non_empty(list: Vec<&str>) -> Option<Vec<&str>> {
    (!list.is_empty()).then_some(list)
}

fn list_type(list: ListType) -> Option<&'static str> {
    match list {
        ListType::Unset => None,
        ListType::Atomic => Some("atomic"),
        ListType::Set => Some("set"),
        ListType::Map => Some("map"),
    }
}

fn strategy(field: FieldRef<'_>) -> Option<&'static str> {
    match (field.merge_key(), field.strategy()) {
        (Some(_), Strategy::Unset | Strategy::Replace) => Some("merge"),
        (Some(_), Strategy::RetainKeys) => Some("merge,retainKeys"),
        (None, Strategy::RetainKeys) => Some("retainKeys"),
        (None, Strategy::Replace) => Some("replace"),
        (None, Strategy::Unset) => None,
    }
}

/// `discriminator;field:Name;…` of the table as upstream's extension.
fn union(text: &str) -> Value {
    let mut parts = text.split(';');
    let discriminator = parts.next().unwrap_or("");
    let fields: Map<String, Value> =
        parts.filter_map(|part| part.split_once(':')).map(|(field, name)| (field.to_owned(), name.into())).collect();
    let mut union = Map::new();
    if !discriminator.is_empty() {
        union.insert("discriminator".to_owned(), discriminator.into());
    }
    union.insert("fields-to-discriminateBy".to_owned(), fields.into());
    union.into()
}
