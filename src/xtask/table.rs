//! The schema table as text: one line a type, one indented line a field.
//!
//! ```text
//! io.k8s.api.core.v1.Container gvk=…
//!  ports [].ContainerPort 6 o list=map:containerPort,protocol merge=containerPort
//! ```
//! A field line is name, type, protobuf number, flags, then attributes. Types: `string bytes bool int32
//! int64 double any`, or a type's full name, shortened to `.Name` within one package; `[]` before it is a
//! list, `{}` a map with string keys. A number `2.5` is field 5 of the message embedded as field 2; `-`
//! is no number. Flags: `r` required, `p` a pointer in Go, `o` omitempty, `z` omitzero, `w` the list is wrapped in a
//! message of its own on the wire, `-` none.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result, bail};

#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) types: BTreeMap<String, Type>,
}

#[derive(Debug, Default)]
pub(crate) struct Type {
    /// `group/version/kind`, `*` for kinds that every group version has.
    pub(crate) gvks: Vec<String>,
    /// `atomic` where server-side apply takes the whole struct as one value.
    pub(crate) atomic: bool,
    pub(crate) union: Option<String>,
    pub(crate) fields: BTreeMap<String, Field>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Field {
    pub(crate) ty: String,
    /// Protobuf numbers from the outermost embedded message inwards.
    pub(crate) number: String,
    pub(crate) required: bool,
    pub(crate) pointer: bool,
    pub(crate) omitempty: bool,
    pub(crate) omitzero: bool,
    pub(crate) wrapped: bool,
    /// The Go type as error messages print it, where `ty` does not tell.
    pub(crate) go: Option<String>,
    /// `atomic`, `set` or `map:key,key`.
    pub(crate) list: Option<String>,
    /// `atomic`: the map or struct in this field is one value to server-side apply.
    pub(crate) atomic: bool,
    /// Strategic merge: `key` of a merging list, empty for a set of primitives.
    pub(crate) merge: Option<String>,
    /// Strategic merge: `retainKeys` or `replace`, possibly besides `merge`.
    pub(crate) strategy: Option<String>,
    /// JSON text.
    pub(crate) default: Option<String>,
}

/// The package part of a type's name: `io.k8s.api.core.v1` of `io.k8s.api.core.v1.Pod`.
pub(crate) fn package(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(package, _)| package)
}

impl Table {
    pub(crate) fn field_count(&self) -> usize {
        self.types.values().map(|t| t.fields.len()).sum()
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut table = Self::default();
        let mut current = String::new();
        for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            if line.starts_with(' ') {
                let (name, field) = parse_field(&words, package(&current)).with_context(|| line.to_owned())?;
                let ty = table.types.get_mut(&current).context("a field before any type")?;
                ty.fields.insert(name, field);
            } else {
                words[0].clone_into(&mut current);
                table.types.insert(current.clone(), parse_type(&words).with_context(|| line.to_owned())?);
            }
        }
        Ok(table)
    }
}

fn parse_type(words: &[&str]) -> Result<Type> {
    let mut ty = Type::default();
    for word in &words[1..] {
        match word.split_once('=') {
            Some(("gvk", v)) => ty.gvks = v.split(',').map(str::to_owned).collect(),
            Some(("union", v)) => ty.union = Some(v.to_owned()),
            None if *word == "atomic" => ty.atomic = true,
            Some(_) | None => bail!("unknown attribute {word}"),
        }
    }
    Ok(ty)
}

fn parse_field(words: &[&str], package: &str) -> Result<(String, Field)> {
    let [name, ty, number, flags, attributes @ ..] = words else { bail!("too few words") };
    let (containers, base) = split_containers(ty);
    let ty = match base.strip_prefix('.') {
        Some(short) => format!("{containers}{package}.{short}"),
        None => (*ty).to_owned(),
    };
    let has = |flag| flags.contains(flag);
    let mut field = Field {
        ty,
        number: (*number).to_owned(),
        required: has('r'),
        pointer: has('p'),
        omitempty: has('o'),
        omitzero: has('z'),
        wrapped: has('w'),
        ..Field::default()
    };
    for word in attributes {
        match word.split_once('=') {
            Some(("go", v)) => field.go = Some(v.to_owned()),
            Some(("list", v)) => field.list = Some(v.to_owned()),
            Some(("merge", v)) => field.merge = Some(v.to_owned()),
            Some(("strategy", v)) => field.strategy = Some(v.to_owned()),
            Some(("default", v)) => field.default = Some(v.to_owned()),
            None if *word == "atomic" => field.atomic = true,
            Some(_) | None => bail!("unknown attribute {word}"),
        }
    }
    Ok(((*name).to_owned(), field))
}

/// Splits `{}[]T` into `{}[]` and `T`.
pub(crate) fn split_containers(ty: &str) -> (&str, &str) {
    let base = ty.trim_start_matches(['[', ']', '{', '}']);
    ty.split_at(ty.len() - base.len())
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Made by `xtask table`; the format is described in src/xtask/table.rs.")?;
        for (name, ty) in &self.types {
            write!(f, "{name}")?;
            if !ty.gvks.is_empty() {
                write!(f, " gvk={}", ty.gvks.join(","))?;
            }
            if ty.atomic {
                write!(f, " atomic")?;
            }
            if let Some(union) = &ty.union {
                write!(f, " union={union}")?;
            }
            writeln!(f)?;
            for (field_name, field) in &ty.fields {
                write_field(f, field_name, field, package(name))?;
            }
        }
        Ok(())
    }
}

fn write_field(f: &mut fmt::Formatter<'_>, name: &str, field: &Field, in_package: &str) -> fmt::Result {
    let (containers, base) = split_containers(&field.ty);
    let base = match base.strip_prefix(in_package).and_then(|rest| rest.strip_prefix('.')) {
        Some(short) if !short.contains('.') => format!(".{short}"),
        Some(_) | None => base.to_owned(),
    };
    let letters = [
        (field.required, 'r'),
        (field.pointer, 'p'),
        (field.omitempty, 'o'),
        (field.omitzero, 'z'),
        (field.wrapped, 'w'),
    ];
    let mut flags: String = letters.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect();
    if flags.is_empty() {
        flags.push('-');
    }
    write!(f, " {name} {containers}{base} {} {flags}", field.number)?;
    if field.atomic {
        write!(f, " atomic")?;
    }
    let attributes = [
        ("go", &field.go),
        ("list", &field.list),
        ("merge", &field.merge),
        ("strategy", &field.strategy),
        ("default", &field.default),
    ];
    for (key, value) in attributes {
        if let Some(value) = value {
            write!(f, " {key}={value}")?;
        }
    }
    writeln!(f)
}
