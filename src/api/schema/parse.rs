//! Reads `table.txt` (format: src/xtask/table.rs) into a [`Table`].
//!
//! The text is made and checked by `xtask`, so a fault in it is a fault of the build: reading panics
//! with the line, and a unit test reads it all.

use std::borrow::Cow;
use std::collections::HashMap;

use super::cost;
use super::table::{
    Container, Extra, Field, Kind, ListType, Numbers, Scalar, Shape, Span, Strategy, Table, Ty, Type, TypeId,
};

/// Parses the committed table.
pub(super) fn parse(text: &'static str) -> Table {
    let mut reader = Reader { text, ids: HashMap::new(), table: empty(text) };
    let lines = || text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    for (index, line) in lines().filter(|l| !l.starts_with(' ')).enumerate() {
        let name = line.split(' ').next().unwrap_or("");
        reader.ids.insert(name, TypeId(u16::try_from(index).expect("the table has fewer than 65,536 types")));
    }
    let mut package = "";
    for line in lines() {
        let parsed = match line.strip_prefix(' ') {
            Some(field) => reader.field(field, package),
            None => reader.ty(line).inspect(|of| package = of).map(|_| ()),
        };
        parsed.unwrap_or_else(|| panic!("table.txt: {line}"));
    }
    let mut table = reader.table;
    let mut kinds = std::mem::take(&mut table.kinds);
    kinds.sort_by_key(|k| (table.str(k.kind), table.str(k.group), table.str(k.version)));
    table.kinds = kinds;
    table.types.shrink_to_fit();
    table.fields.shrink_to_fit();
    table.extras.shrink_to_fit();
    table.costs = cost::of_types(&table);
    table
}

fn empty(text: &'static str) -> Table {
    let none = Extra {
        go: None,
        merge: None,
        default: None,
        list: ListType::Unset,
        strategy: Strategy::Unset,
        atomic: false,
        first_key: 0,
        keys: 0,
    };
    Table {
        text: Cow::Borrowed(text),
        types: Vec::new(),
        fields: Vec::new(),
        extras: vec![none],
        keys: Vec::new(),
        kinds: Vec::new(),
        costs: Vec::new(),
    }
}

struct Reader {
    text: &'static str,
    ids: HashMap<&'static str, TypeId>,
    table: Table,
}

impl Reader {
    /// The span of a part of the text.
    fn span(&self, part: &'static str) -> Option<Span> {
        let start = (part.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)?;
        Some(Span { start: u32::try_from(start).ok()?, len: u16::try_from(part.len()).ok()? })
    }

    /// Reads a type's line; answers the package.
    fn ty(&mut self, line: &'static str) -> Option<&'static str> {
        let mut words = line.split(' ');
        let name = words.next()?;
        let (package, short) = name.rsplit_once('.')?;
        let mut ty = Type {
            name: self.span(name)?,
            union: Span::default(),
            first: u16::try_from(self.table.fields.len()).ok()?,
            count: 0,
            shape: shape(short, package),
            atomic: false,
        };
        for word in words {
            match word.split_once('=') {
                Some(("gvk", gvks)) => gvks.split(',').try_for_each(|gvk| self.kind(gvk, *self.ids.get(name)?))?,
                Some(("union", union)) => ty.union = self.span(union)?,
                None if word == "atomic" => ty.atomic = true,
                Some(_) | None => return None,
            }
        }
        self.table.types.push(ty);
        Some(package)
    }

    fn kind(&mut self, gvk: &'static str, ty: TypeId) -> Option<()> {
        let (group, rest) = gvk.split_once('/')?;
        let (version, kind) = rest.split_once('/')?;
        let kind = Kind { kind: self.span(kind)?, group: self.span(group)?, version: self.span(version)?, ty };
        self.table.kinds.push(kind);
        Some(())
    }

    fn field(&mut self, line: &'static str, package: &str) -> Option<()> {
        let mut words = line.split(' ');
        let (name, ty, numbers, letters) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let mut extra = Extra { ..empty(self.text).extras.pop()? };
        let mut any = false;
        for word in words {
            any = true;
            match word.split_once('=') {
                Some(("go", v)) => extra.go = Some(self.span(v)?),
                Some(("merge", v)) => extra.merge = Some(self.span(v)?),
                Some(("default", v)) => extra.default = Some(self.span(v)?),
                Some(("list", v)) => self.list(v, &mut extra)?,
                Some(("strategy", "retainKeys")) => extra.strategy = Strategy::RetainKeys,
                Some(("strategy", "replace")) => extra.strategy = Strategy::Replace,
                None if word == "atomic" => extra.atomic = true,
                Some(_) | None => return None,
            }
        }
        let mut field = Field {
            name: self.span(name)?,
            ty: self.field_type(ty, package)?,
            numbers: parse_numbers(numbers)?,
            flags: flags(letters)?,
            extra: 0,
        };
        if any {
            field.extra = u16::try_from(self.table.extras.len()).ok()?;
            self.table.extras.push(extra);
        }
        self.table.fields.push(field);
        let owner = self.table.types.last_mut()?;
        owner.count += 1;
        Some(())
    }

    fn list(&mut self, text: &'static str, extra: &mut Extra) -> Option<()> {
        extra.list = match text.split(':').next()? {
            "atomic" => ListType::Atomic,
            "set" => ListType::Set,
            "map" => ListType::Map,
            _ => return None,
        };
        extra.first_key = u16::try_from(self.table.keys.len()).ok()?;
        for key in text.split_once(':').map_or("", |(_, keys)| keys).split(',').filter(|k| !k.is_empty()) {
            let span = self.span(key)?;
            self.table.keys.push(span);
            extra.keys += 1;
        }
        Some(())
    }

    fn field_type(&self, text: &str, package: &str) -> Option<Ty> {
        let (container, base) = if let Some(rest) = text.strip_prefix("{}[]") {
            (Container::MapOfLists, rest)
        } else if let Some(rest) = text.strip_prefix("[]") {
            (Container::List, rest)
        } else if let Some(rest) = text.strip_prefix("{}") {
            (Container::Map, rest)
        } else {
            (Container::One, text)
        };
        let scalar = match base {
            "string" => Scalar::String,
            "bytes" => Scalar::Bytes,
            "bool" => Scalar::Bool,
            "int32" => Scalar::Int32,
            "int64" => Scalar::Int64,
            "double" => Scalar::Double,
            "any" => Scalar::Any,
            name => Scalar::Type(match name.strip_prefix('.') {
                Some(short) => *self.ids.get(format!("{package}.{short}").as_str())?,
                None => *self.ids.get(name)?,
            }),
        };
        Some(Ty { container, scalar })
    }
}

fn parse_numbers(text: &str) -> Option<Numbers> {
    let mut numbers = Numbers::default();
    if text != "-" {
        for (slot, part) in text.split('.').enumerate() {
            *numbers.get_mut(slot)? = part.parse().ok()?;
        }
    }
    Some(numbers)
}

fn flags(letters: &str) -> Option<u8> {
    letters.chars().filter(|c| *c != '-').try_fold(0, |flags, letter| {
        Some(
            flags
                | match letter {
                    'r' => Field::REQUIRED,
                    'p' => Field::POINTER,
                    'o' => Field::OMITEMPTY,
                    'z' => Field::OMITZERO,
                    'w' => Field::WRAPPED,
                    _ => return None,
                },
        )
    })
}

/// The types whose form is not that of a struct.
fn shape(short: &str, package: &str) -> Shape {
    match (package, short) {
        ("io.k8s.apimachinery.pkg.apis.meta.v1", "Time") => Shape::Time,
        ("io.k8s.apimachinery.pkg.apis.meta.v1", "MicroTime") => Shape::MicroTime,
        ("io.k8s.apimachinery.pkg.apis.meta.v1", "FieldsV1") => Shape::FieldsV1,
        ("io.k8s.apimachinery.pkg.api.resource", "Quantity") => Shape::Quantity,
        ("io.k8s.apimachinery.pkg.util.intstr", "IntOrString") => Shape::IntOrString,
        ("io.k8s.apimachinery.pkg.runtime", "RawExtension") => Shape::RawExtension,
        ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1", "JSON") => Shape::Json,
        (_, "JSONSchemaPropsOrArray") => Shape::SchemaOrArray,
        (_, "JSONSchemaPropsOrBool") => Shape::SchemaOrBool,
        (_, "JSONSchemaPropsOrStringArray") => Shape::SchemaOrStrings,
        _ => Shape::Struct,
    }
}
