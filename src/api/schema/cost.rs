//! How much memory a body takes once it is decoded, counted while it is.
//!
//! A body of 3 MB may hold a million empty structs of two kilobytes each. So every value is charged
//! before it is made: for its place in the decoded tree and for its place in the typed struct that
//! validation reads it into. The figures are those of 64-bit machines and need not be exact: they are
//! right within a factor of two, which a unit test checks against the real structs.

use std::cell::Cell;

use serde_json::Value;

use super::canonical::zero;
use super::table::{Container, Scalar, Shape, Table, Ty, TypeId};

/// What one body may cost. Most objects at the store's limit of 1.5 MiB cost 3 to 12 MiB; those that consist of
/// nothing but tiny maps cost more, since the first node of a map takes 640 bytes. A request holds up to four
/// trees of this size at once (the object before and after, typed and not), which keeps it below 64 MiB.
pub(crate) const LIMIT: usize = 16 * 1024 * 1024;
/// What the definition of a custom resource may cost. Its schemas are tiny maps throughout, some 31 times their
/// text: `"name":{"type":"string"}`, 49 MiB at the store's limit. They are never read into structs.
const SCHEMAS_LIMIT: usize = 4 * LIMIT;

/// The first node of a map of the standard library, which has places for eleven members.
const MAP: usize = 640;
/// Members that the first node has room for before it is split.
const FIRST_NODE: usize = 6;
/// A further member of a map; nodes are half full when keys come sorted.
const MEMBER: usize = 112;
/// The least that a list allocates: four places.
const LIST: usize = 128;
const FIRST_ELEMENTS: usize = 4;
/// A further element; a list that grows has up to twice the places that it needs.
const ELEMENT: usize = 64;
/// What an allocation takes beside its bytes.
const ALLOCATION: usize = 16;
/// A list, a map or a string in a struct.
const POINTERS: usize = 24;

/// The limit was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded;

/// What is left to spend on one body.
#[derive(Debug)]
pub(crate) struct Budget {
    left: Cell<usize>,
    limit: usize,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self::within(LIMIT)
    }

    /// The budget of a body of this type.
    pub(super) fn of(table: &Table, ty: Ty) -> Self {
        let is_definition = match ty.scalar {
            Scalar::Type(id) => table.get(id).name().starts_with("io.k8s.apiextensions-apiserver."),
            _ => false,
        };
        Self::within(if is_definition { SCHEMAS_LIMIT } else { LIMIT })
    }

    fn within(limit: usize) -> Self {
        Self { left: Cell::new(limit), limit }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn take(&self, cost: usize) -> Result<(), Exceeded> {
        self.left.set(self.left.get().checked_sub(cost).ok_or(Exceeded)?);
        Ok(())
    }
}

/// A text, in the tree and in the struct.
pub(crate) fn text(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { 2 * (bytes + ALLOCATION) }
}

/// The place of a member in a map that has `before` others, in the tree.
pub(crate) fn member(before: usize) -> usize {
    match before {
        0 => MAP,
        1..FIRST_NODE => 0,
        _ => MEMBER,
    }
}

/// What an amount costs beside other members: a pod's limits are copied to its requests, and each of both is
/// parsed and printed anew at every step of a request.
const AMOUNT: usize = 4;

/// A member of a map with free keys, in the tree and in the typed map.
pub(crate) fn free_member(table: &Table, ty: Ty, key: usize, before: usize) -> usize {
    let one = text(key) + member(before) + 2 * inline(table, ty);
    let is_amount = matches!(ty.scalar, Scalar::Type(id) if table.get(id).shape() == Shape::Quantity);
    if is_amount && before >= FIRST_NODE { AMOUNT * one } else { one }
}

/// The place of an element in a list that has `before` others, in the tree.
pub(crate) fn element(before: usize) -> usize {
    match before {
        0 => LIST,
        1..FIRST_ELEMENTS => 0,
        _ => ELEMENT,
    }
}

/// What a value takes as a tree.
pub(crate) fn of_value(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(string) => text(string.len()),
        Value::Array(list) => list.iter().enumerate().map(|(i, v)| element(i) + of_value(v)).sum(),
        Value::Object(map) => {
            map.iter().enumerate().map(|(i, (key, v))| text(key.len()) + member(i) + of_value(v)).sum()
        }
    }
}

/// The place of an element of this type in a typed list or map.
pub(crate) fn inline(table: &Table, ty: Ty) -> usize {
    match (ty.container, ty.scalar) {
        (Container::List | Container::Map | Container::MapOfLists, _) | (_, Scalar::String | Scalar::Bytes) => POINTERS,
        (Container::One, Scalar::Bool) => 2,
        (Container::One, Scalar::Int32) => 8,
        (Container::One, Scalar::Int64 | Scalar::Double) => 16,
        (Container::One, Scalar::Any) => 32,
        (Container::One, Scalar::Type(id)) => table.costs[usize::from(id.0)].inline,
    }
}

/// What a struct takes in the tree even when it is written as `{}`: the fields that Go always writes.
pub(crate) fn floor(table: &Table, id: TypeId) -> usize {
    table.costs[usize::from(id.0)].floor
}

/// The costs of one type that do not depend on a value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TypeCost {
    inline: usize,
    floor: usize,
}

/// Works out the costs of all types of a table.
pub(super) fn of_types(table: &Table) -> Vec<TypeCost> {
    let ids = || (0..table.types.len()).filter_map(|i| u16::try_from(i).ok()).map(TypeId);
    let mut sizes = Sizes { table, known: vec![None; table.types.len()] };
    ids()
        .map(|id| TypeCost { inline: sizes.of(id), floor: of_value(&zero(table, Ty::one(Scalar::Type(id)))) })
        .collect()
}

struct Sizes<'t> {
    table: &'t Table,
    /// 8 while a type is worked out: a struct that contains itself does so by a pointer.
    known: Vec<Option<usize>>,
}

impl Sizes<'_> {
    fn of(&mut self, id: TypeId) -> usize {
        const POINTER: usize = 8;
        let slot = usize::from(id.0);
        if let Some(size) = self.known[slot] {
            return size;
        }
        self.known[slot] = Some(POINTER);
        let ty = self.table.get(id);
        let size = match ty.shape() {
            // Schemas of custom resources are never read into structs, and there are many in one object.
            Shape::Struct if ty.short_name() == "JSONSchemaProps" => POINTER,
            Shape::Struct => ty.fields().map(|field| self.field(field.ty())).sum(),
            Shape::Time | Shape::MicroTime | Shape::SchemaOrBool | Shape::SchemaOrArray | Shape::SchemaOrStrings => 16,
            Shape::Quantity => POINTERS,
            Shape::IntOrString | Shape::RawExtension | Shape::FieldsV1 | Shape::Json => 32,
        };
        self.known[slot] = Some(size);
        size
    }

    fn field(&mut self, ty: Ty) -> usize {
        match (ty.container, ty.scalar) {
            (Container::One, Scalar::Type(id)) => self.of(id),
            _ => inline(self.table, ty),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1 as apps, core::v1 as core, rbac::v1 as rbac};
    use serde_json::json;

    use super::super::built_in;
    use super::*;

    #[track_caller]
    fn check<T>(name: &str) {
        let id = built_in().type_named(name).unwrap();
        let (counted, real) = (inline(built_in(), Ty::one(Scalar::Type(id))), size_of::<T>());
        assert!(counted * 4 >= real * 3 && counted <= real * 2, "{name}: {counted} for {real}");
    }

    #[test]
    fn structs_are_counted_at_about_their_size() {
        check::<core::Pod>("io.k8s.api.core.v1.Pod");
        check::<core::Container>("io.k8s.api.core.v1.Container");
        check::<core::EphemeralContainer>("io.k8s.api.core.v1.EphemeralContainer");
        check::<core::Volume>("io.k8s.api.core.v1.Volume");
        check::<core::EnvVar>("io.k8s.api.core.v1.EnvVar");
        check::<core::ContainerStatus>("io.k8s.api.core.v1.ContainerStatus");
        check::<core::EndpointSubset>("io.k8s.api.core.v1.EndpointSubset");
        check::<core::PersistentVolumeClaim>("io.k8s.api.core.v1.PersistentVolumeClaim");
        check::<apps::Deployment>("io.k8s.api.apps.v1.Deployment");
        check::<rbac::PolicyRule>("io.k8s.api.rbac.v1.PolicyRule");
        check::<k8s_openapi::api::discovery::v1::Endpoint>("io.k8s.api.discovery.v1.Endpoint");
    }

    #[test]
    fn trees_are_counted_by_their_nodes() {
        assert_eq!(of_value(&json!(null)), 0);
        assert_eq!(of_value(&json!("ab")), 2 * 18);
        assert_eq!(of_value(&json!([1, 2, 3, 4, 5])), LIST + ELEMENT);
        assert_eq!(of_value(&json!({"ab": 1})), MAP + 36);
    }

    #[test]
    fn many_amounts_are_counted_with_their_copies_and_what_is_done_to_them() {
        let quantity = built_in().type_named("io.k8s.apimachinery.pkg.api.resource.Quantity").unwrap();
        let count = |scalar, before| free_member(built_in(), Ty::one(scalar), 5, before);
        assert_eq!(count(Scalar::Type(quantity), 0), count(Scalar::String, 0));
        assert_eq!(count(Scalar::Type(quantity), 6), AMOUNT * count(Scalar::String, 6));
    }

    #[test]
    fn a_budget_ends() {
        let budget = Budget::new();
        assert_eq!(budget.take(LIMIT), Ok(()));
        assert_eq!(budget.take(0), Ok(()));
        assert_eq!(budget.take(1), Err(Exceeded));
    }
}
