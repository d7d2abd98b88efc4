//! The schema table: types, their fields, and every fact about a field that is structural.
//!
//! One representation serves the built-in types (parsed once from `table.txt`) and, later, the
//! schemas of custom resources. It is compact on purpose: names are spans into one text, a field is
//! 20 bytes, and what few fields have stands in a side table.

use std::borrow::Cow;

use super::cost::TypeCost;

/// A type of a [`Table`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub(super) u16);

/// A set of types that refer to each other.
#[derive(Debug)]
pub struct Table {
    pub(super) text: Cow<'static, str>,
    pub(super) types: Vec<Type>,
    pub(super) fields: Vec<Field>,
    pub(super) extras: Vec<Extra>,
    pub(super) keys: Vec<Span>,
    /// Sorted by kind, group and version, for look-ups.
    pub(super) kinds: Vec<Kind>,
    /// By type; worked out when the table is complete.
    pub(super) costs: Vec<TypeCost>,
}

/// A piece of [`Table::text`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len: u16,
}

#[derive(Debug)]
pub(super) struct Kind {
    pub(super) kind: Span,
    pub(super) group: Span,
    pub(super) version: Span,
    pub(super) ty: TypeId,
}

#[derive(Debug)]
pub(super) struct Type {
    pub(super) name: Span,
    pub(super) union: Span,
    pub(super) first: u16,
    pub(super) count: u16,
    pub(super) shape: Shape,
    pub(super) atomic: bool,
}

/// How values of a type are written in JSON and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Struct,
    /// RFC 3339 in seconds.
    Time,
    /// RFC 3339 with six digits of fraction.
    MicroTime,
    Quantity,
    IntOrString,
    /// Any JSON value, or on the wire any bytes.
    RawExtension,
    FieldsV1,
    /// Any JSON value, null among them.
    Json,
    SchemaOrBool,
    SchemaOrArray,
    SchemaOrStrings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    One,
    List,
    Map,
    MapOfLists,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
    Any,
    Type(TypeId),
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ty {
    pub container: Container,
    pub scalar: Scalar,
}

impl Ty {
    pub(crate) fn one(scalar: Scalar) -> Self {
        Self { container: Container::One, scalar }
    }

    /// The type of the elements of a list or of the values of a map.
    pub(crate) fn element(self) -> Self {
        let container = match self.container {
            Container::MapOfLists => Container::List,
            Container::One | Container::List | Container::Map => Container::One,
        };
        Self { container, scalar: self.scalar }
    }
}

/// How server-side apply and patches see a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Nothing is said; server-side apply takes it as atomic.
    Unset,
    Atomic,
    Set,
    Map,
}

/// How strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    Unset,
    Replace,
    RetainKeys,
}

/// Protobuf numbers from the outermost embedded message inwards, ended by 0.
pub(crate) type Numbers = [u8; 3];

#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: Span,
    pub(super) ty: Ty,
    pub(super) numbers: Numbers,
    pub(super) flags: u8,
    pub(super) extra: u16,
}

impl Field {
    pub(super) const REQUIRED: u8 = 1;
    pub(super) const POINTER: u8 = 1 << 1;
    pub(super) const OMITEMPTY: u8 = 1 << 2;
    pub(super) const OMITZERO: u8 = 1 << 3;
    pub(super) const WRAPPED: u8 = 1 << 4;
}

/// What only some fields have; index 0 is the empty one.
#[derive(Debug)]
pub(super) struct Extra {
    pub(super) go: Option<Span>,
    pub(super) merge: Option<Span>,
    pub(super) default: Option<Span>,
    pub(super) list: ListType,
    pub(super) strategy: Strategy,
    pub(super) atomic: bool,
    pub(super) first_key: u16,
    pub(super) keys: u16,
}

/// A type and the table it is in.
#[derive(Clone, Copy, Debug)]
pub struct TypeRef<'t> {
    pub(crate) table: &'t Table,
    pub(crate) id: TypeId,
}

/// A field and the table it is in.
#[derive(Clone, Copy, Debug)]
pub struct FieldRef<'t> {
    pub(crate) table: &'t Table,
    field: &'t Field,
}

impl Table {
    pub(super) fn str(&self, span: Span) -> &str {
        let start = span.start as usize;
        &self.text[start..start + usize::from(span.len)]
    }

    pub(crate) fn get(&self, id: TypeId) -> TypeRef<'_> {
        TypeRef { table: self, id }
    }

    pub(crate) fn type_of(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        let find = |group: &str, version: &str| {
            let wanted = (kind, group, version);
            let key = |k: &Kind| (self.str(k.kind), self.str(k.group), self.str(k.version));
            self.kinds.binary_search_by(|k| key(k).cmp(&wanted)).ok().map(|at| self.kinds[at].ty)
        };
        find(group, version).or_else(|| find("*", "*"))
    }

    /// The kinds of the table: group, version, kind and type. Options that every group version has
    /// stand under `*`.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &str, &str, TypeId)> {
        self.kinds.iter().map(|k| (self.str(k.group), self.str(k.version), self.str(k.kind), k.ty))
    }

    /// The type of a full name.
    pub(crate) fn type_named(&self, name: &str) -> Option<TypeId> {
        let at = self.types.binary_search_by(|t| self.str(t.name).cmp(name)).ok()?;
        u16::try_from(at).ok().map(TypeId)
    }
}

impl<'t> TypeRef<'t> {
    fn ty(self) -> &'t Type {
        &self.table.types[usize::from(self.id.0)]
    }

    /// The full name, such as `io.k8s.api.core.v1.Pod`.
    pub fn name(self) -> &'t str {
        self.table.str(self.ty().name)
    }

    /// The last part of the name: `Pod`.
    pub fn short_name(self) -> &'t str {
        let name = self.name();
        name.rsplit_once('.').map_or(name, |(_, short)| short)
    }

    /// The type as Go prints it: `v1.Pod`.
    pub(crate) fn go_name(self) -> &'t str {
        let name = self.name();
        let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
        let _short = dots.next();
        dots.next().map_or(name, |at| &name[at + 1..])
    }

    pub fn shape(self) -> Shape {
        self.ty().shape
    }

    /// Server-side apply owns a value of this type as a whole.
    pub fn atomic(self) -> bool {
        self.ty().atomic
    }

    /// `discriminator;field:Name;…`, empty when the type is no union.
    pub(crate) fn union(self) -> &'t str {
        self.table.str(self.ty().union)
    }

    fn field_slice(self) -> &'t [Field] {
        let ty = self.ty();
        &self.table.fields[usize::from(ty.first)..usize::from(ty.first) + usize::from(ty.count)]
    }

    /// The fields, sorted by name.
    pub fn fields(self) -> impl ExactSizeIterator<Item = FieldRef<'t>> {
        let table = self.table;
        self.field_slice().iter().map(move |field| FieldRef { table, field })
    }

    pub fn field(self, name: &str) -> Option<FieldRef<'t>> {
        self.field_at(name).map(|(_, field)| field)
    }

    /// A field and its place among its siblings.
    pub(super) fn field_at(self, name: &str) -> Option<(usize, FieldRef<'t>)> {
        let fields = self.field_slice();
        let at = fields.binary_search_by(|f| self.table.str(f.name).cmp(name)).ok()?;
        Some((at, FieldRef { table: self.table, field: &fields[at] }))
    }
}

impl<'t> FieldRef<'t> {
    fn extra(self) -> &'t Extra {
        &self.table.extras[usize::from(self.field.extra)]
    }

    fn has(self, flag: u8) -> bool {
        self.field.flags & flag != 0
    }

    pub fn name(self) -> &'t str {
        self.table.str(self.field.name)
    }

    pub fn ty(self) -> Ty {
        self.field.ty
    }

    /// The type of the field or of its elements, when that is a type of the table.
    pub fn type_ref(self) -> Option<TypeRef<'t>> {
        match self.field.ty.scalar {
            Scalar::Type(id) => Some(self.table.get(id)),
            Scalar::String
            | Scalar::Bytes
            | Scalar::Bool
            | Scalar::Int32
            | Scalar::Int64
            | Scalar::Double
            | Scalar::Any => None,
        }
    }

    pub fn required(self) -> bool {
        self.has(Field::REQUIRED)
    }

    /// A pointer in Go: its zero value differs from its absence.
    pub(crate) fn pointer(self) -> bool {
        self.has(Field::POINTER)
    }

    pub(crate) fn omitempty(self) -> bool {
        self.has(Field::OMITEMPTY)
    }

    pub(crate) fn omitzero(self) -> bool {
        self.has(Field::OMITZERO)
    }

    /// On the wire the list is inside a message of its own.
    pub(crate) fn wrapped(self) -> bool {
        self.has(Field::WRAPPED)
    }

    pub(crate) fn numbers(self) -> Numbers {
        self.field.numbers
    }

    pub fn list_type(self) -> ListType {
        self.extra().list
    }

    /// The field, map or struct, is one value to server-side apply.
    pub fn atomic(self) -> bool {
        self.extra().atomic
    }

    pub fn list_map_keys(self) -> impl ExactSizeIterator<Item = &'t str> {
        let (table, extra) = (self.table, self.extra());
        let first = usize::from(extra.first_key);
        table.keys[first..first + usize::from(extra.keys)].iter().map(|span| table.str(*span))
    }

    /// Strategic merge: the merge key, empty for a list of primitives; nothing where lists replace.
    pub fn merge_key(self) -> Option<&'t str> {
        self.extra().merge.map(|span| self.table.str(span))
    }

    pub fn strategy(self) -> Strategy {
        self.extra().strategy
    }

    /// The declared default as JSON text.
    pub fn default(self) -> Option<&'t str> {
        self.extra().default.map(|span| self.table.str(span))
    }

    /// The field's Go type as error messages print it.
    pub(crate) fn go_type(self) -> Cow<'t, str> {
        if let Some(span) = self.extra().go {
            return Cow::Borrowed(self.table.str(span));
        }
        go_type(self.table, self.field.ty)
    }
}

/// What Go calls a type that has no name of its own.
pub(super) fn go_type(table: &Table, ty: Ty) -> Cow<'_, str> {
    let scalar = match ty.scalar {
        Scalar::String => "string",
        Scalar::Bytes => "[]uint8",
        Scalar::Bool => "bool",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Double => "float64",
        Scalar::Any => "interface {}",
        Scalar::Type(id) => table.get(id).go_name(),
    };
    match ty.container {
        Container::One => Cow::Borrowed(scalar),
        Container::List => format!("[]{scalar}").into(),
        Container::Map => format!("map[string]{scalar}").into(),
        Container::MapOfLists => format!("map[string][]{scalar}").into(),
    }
}
