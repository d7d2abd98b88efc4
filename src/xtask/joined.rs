//! Joins what the Go sources and the published definitions tell into the schema table.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};

use crate::definitions::Definitions;
use crate::gosource::{GoField, GoType, Package, Sources};
use crate::table::{Field, Table, Type, split_containers};

/// Served kinds that the published definitions leave out, with what they need.
const UNPUBLISHED: &[(&str, &str)] = &[
    ("k8s.io/api/admission/v1", "AdmissionReview"),
    ("k8s.io/api/apidiscovery/v2", "APIGroupDiscoveryList"),
    ("k8s.io/api/core/v1", "List"),
    ("k8s.io/api/core/v1", "NodeProxyOptions"),
    ("k8s.io/api/core/v1", "PodAttachOptions"),
    ("k8s.io/api/core/v1", "PodExecOptions"),
    ("k8s.io/api/core/v1", "PodLogOptions"),
    ("k8s.io/api/core/v1", "PodPortForwardOptions"),
    ("k8s.io/api/core/v1", "PodProxyOptions"),
    ("k8s.io/api/core/v1", "RangeAllocation"),
    ("k8s.io/api/core/v1", "ServiceProxyOptions"),
    ("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", "ConversionReview"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "CreateOptions"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "GetOptions"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "ListOptions"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "PartialObjectMetadata"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "PartialObjectMetadataList"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "PatchOptions"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "Table"),
    ("k8s.io/apimachinery/pkg/apis/meta/v1", "UpdateOptions"),
    ("k8s.io/apimachinery/pkg/runtime", "TypeMeta"),
    ("k8s.io/apimachinery/pkg/runtime", "Unknown"),
];

/// Types whose JSON and wire forms the engine knows by name.
const OPAQUE: &[&str] = &[
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
];

pub(crate) fn table(upstream: &Sources, definitions: &Definitions) -> Result<Table> {
    let mut join = Join { upstream, table: Table::default(), wanted: Vec::new() };
    for name in definitions.names().filter(|n| !n.ends_with(".Patch")) {
        let (import, ty) = join.locate(name)?;
        join.wanted.push((import, ty));
    }
    for (import, ty) in UNPUBLISHED {
        join.wanted.push(((*import).to_owned(), (*ty).to_owned()));
    }
    while let Some((import, name)) = join.wanted.pop() {
        join.add(&import, &name).with_context(|| format!("{import}.{name}"))?;
    }
    for (import, name) in UNPUBLISHED.iter().filter(|(i, _)| !i.ends_with("/runtime")) {
        let gvk = unpublished_gvk(import, name);
        let ty = join.table.types.get_mut(&full_name(import, name)).context("added above")?;
        ty.gvks.push(gvk);
    }
    definitions.apply(&mut join.table)?;
    Ok(join.table)
}

fn unpublished_gvk(import: &str, name: &str) -> String {
    let group = match import.rsplit('/').nth(1) {
        Some("admission") => "admission.k8s.io",
        Some("apidiscovery") => "apidiscovery.k8s.io",
        Some("apiextensions") => "apiextensions.k8s.io",
        Some("meta") if name.starts_with("PartialObjectMetadata") || name == "Table" => "meta.k8s.io",
        Some("meta") => return format!("*/*/{name}"),
        Some(_) | None => "",
    };
    format!("{group}/{}/{name}", import.rsplit('/').next().unwrap_or(""))
}

/// `io.k8s.api.core.v1.Pod` of `k8s.io/api/core/v1` and `Pod`.
fn full_name(import: &str, name: &str) -> String {
    format!("{}.{name}", import.replacen("k8s.io", "io.k8s", 1).replace('/', "."))
}

struct Join<'a> {
    upstream: &'a Sources,
    table: Table,
    wanted: Vec<(String, String)>,
}

/// A Go type as the table names it.
struct Resolved {
    ty: String,
    pointer: bool,
    wrapped: bool,
    /// As `reflect.Type` prints it.
    go: String,
}

impl Join<'_> {
    fn locate(&self, full: &str) -> Result<(String, String)> {
        if OPAQUE.contains(&full) {
            return Ok((String::new(), full.to_owned()));
        }
        let (package, name) = full.rsplit_once('.').context("a dotted name")?;
        let mut imports = self.upstream.packages.keys();
        let import = imports.find(|i| full_name(i, "") == format!("{package}.")).context(full.to_owned())?;
        Ok((import.clone(), name.to_owned()))
    }

    fn package(&self, import: &str) -> Result<&Package> {
        self.upstream.packages.get(import).with_context(|| format!("package {import} was not read"))
    }

    fn add(&mut self, import: &str, name: &str) -> Result<()> {
        if import.is_empty() {
            self.table.types.entry(name.to_owned()).or_default();
            return Ok(());
        }
        let full = full_name(import, name);
        if self.table.types.contains_key(&full) {
            return Ok(());
        }
        self.table.types.insert(full.clone(), Type::default());
        let mut fields = BTreeMap::new();
        self.fields(import, name, Some(&[]), &mut fields)?;
        self.table.types.insert(full, Type { fields, ..Type::default() });
        Ok(())
    }

    /// Collects the JSON fields of a struct, those of inlined structs among them. `via` are the numbers
    /// of the messages around it; nothing where an inlined struct, such as `TypeMeta`, stays off the wire.
    fn fields(
        &mut self,
        import: &str,
        name: &str,
        via: Option<&[u32]>,
        out: &mut BTreeMap<String, Field>,
    ) -> Result<()> {
        let package = self.package(import)?;
        if let Some(named) = package.named.get(name) {
            let (import, name) = self.named_struct(import, &named.expression)?;
            return self.fields(&import, &name, via, out);
        }
        let upstream = self.upstream;
        let package = upstream.packages.get(import).context("found above")?;
        for field in package.structs.get(name).with_context(|| format!("no struct {name}"))? {
            let path = via.zip(field.number).map(|(via, number)| [via, &[number]].concat());
            if field.inline {
                let (import, name) = self.named_struct(import, &field.ty)?;
                self.fields(&import, &name, path.as_deref(), out)?;
                continue;
            }
            let resolved = self.resolve(import, &field.ty, &field.ty.text)?;
            let made = self.field(package, field, path.as_deref(), resolved);
            out.insert(field.json.clone(), made);
        }
        Ok(())
    }

    fn field(&self, package: &Package, field: &GoField, path: Option<&[u32]>, resolved: Resolved) -> Field {
        let list_keys: Vec<&str> = field.markers.iter().filter_map(|m| m.strip_prefix("listMapKey=")).collect();
        let list = field.marker("listType").map(|kind| match kind {
            "map" => format!("map:{}", list_keys.join(",")),
            other => other.to_owned(),
        });
        let default = field.marker("default").map(|text| match text.strip_prefix("ref(") {
            Some(name) => package.constants.get(name.trim_end_matches(')')).cloned().unwrap_or_default(),
            None => text.to_owned(),
        });
        let number = path.map_or("-".to_owned(), |p| p.iter().map(u32::to_string).collect::<Vec<_>>().join("."));
        let strategies: Vec<&str> = field.patch_strategy.as_deref().unwrap_or("").split(',').collect();
        let expected = go_default(&resolved.ty);
        Field {
            number,
            required: !field.omitempty && !field.markers.iter().any(|m| m == "optional"),
            pointer: resolved.pointer,
            omitempty: field.omitempty,
            omitzero: field.omitzero,
            wrapped: resolved.wrapped,
            go: (resolved.go != expected).then_some(resolved.go),
            list,
            merge: strategies.contains(&"merge").then(|| field.patch_merge_key.clone().unwrap_or_default()),
            strategy: strategies.iter().find(|s| **s != "merge" && !s.is_empty()).map(|s| (*s).to_owned()),
            default,
            ty: resolved.ty,
            atomic: false,
        }
    }

    /// Where a struct that is named in `import` is declared.
    fn named_struct(&self, import: &str, ty: &GoType) -> Result<(String, String)> {
        let name = ty.text.trim_start_matches('*');
        let (import, name) = match name.split_once('.') {
            Some((alias, name)) => (ty.imports.get(alias).context("an import")?.clone(), name.to_owned()),
            None => (import.to_owned(), name.to_owned()),
        };
        match self.package(&import)?.named.get(&name) {
            Some(named) if named.alias => self.named_struct(&import, &named.expression),
            Some(_) | None => Ok((import, name)),
        }
    }

    fn resolve(&mut self, import: &str, ty: &GoType, text: &str) -> Result<Resolved> {
        if let Some(rest) = text.strip_prefix('*') {
            return Ok(Resolved { pointer: true, ..self.resolve(import, ty, rest)? });
        }
        if text == "[]byte" || text == "json.RawMessage" {
            return Ok(plain("bytes", "[]uint8"));
        }
        if let Some(rest) = text.strip_prefix("[]") {
            let inner = self.resolve(import, ty, rest)?;
            return Ok(Resolved {
                ty: format!("[]{}", inner.ty),
                go: format!("[]{}", inner.go),
                pointer: false,
                ..inner
            });
        }
        if let Some(rest) = text.strip_prefix("map[") {
            let (key, value) = rest.split_once(']').context("a map type")?;
            let (key, value) = (self.resolve(import, ty, key)?, self.resolve(import, ty, value)?);
            let go = format!("map[{}]{}", key.go, value.go);
            return Ok(Resolved { ty: format!("{{}}{}", value.ty), go, pointer: false, ..value });
        }
        Ok(match text {
            "string" | "bool" | "int32" | "int64" => plain(text, text),
            "int" | "time.Duration" => plain("int64", text),
            "uint8" => plain("int32", text),
            "float64" => plain("double", "float64"),
            "interface{}" | "Object" | "runtime.Object" => plain("any", "interface {}"),
            _ => self.resolve_named(import, ty, text)?,
        })
    }

    fn resolve_named(&mut self, import: &str, ty: &GoType, text: &str) -> Result<Resolved> {
        let (import, name) = match text.split_once('.') {
            Some((alias, name)) => (ty.imports.get(alias).with_context(|| format!("import {alias}"))?.clone(), name),
            None => (import.to_owned(), text),
        };
        let full = full_name(&import, name);
        let short = format!("{}.{name}", import.rsplit('/').next().unwrap_or(""));
        if OPAQUE.contains(&full.as_str()) {
            self.wanted.push((String::new(), full.clone()));
            return Ok(plain(&full, &short));
        }
        let package = self.upstream.packages.get(&import).with_context(|| format!("package {import}"))?;
        if let Some(named) = package.named.get(name) {
            let underlying = &named.expression;
            if named.alias {
                return self.resolve(&import, underlying, &underlying.text);
            }
            let is_name = !underlying.text.contains('[');
            if package.structs.contains_key(&underlying.text) || (is_name && underlying.text.contains('.')) {
                self.wanted.push((import.clone(), name.to_owned()));
                return Ok(plain(&full, &short));
            }
            let inner = self.resolve(&import, underlying, &underlying.text)?;
            return Ok(Resolved { go: short, wrapped: named.wrapped, ..inner });
        }
        if !package.structs.contains_key(name) {
            bail!("no type {full}");
        }
        self.wanted.push((import, name.to_owned()));
        Ok(plain(&full, &short))
    }
}

fn plain(ty: &str, go: &str) -> Resolved {
    Resolved { ty: ty.to_owned(), pointer: false, wrapped: false, go: go.to_owned() }
}

/// What Go calls a type of the table when nothing is named specially.
fn go_default(ty: &str) -> String {
    let (containers, base) = split_containers(ty);
    let base = match base {
        "bytes" => "[]uint8".to_owned(),
        "double" => "float64".to_owned(),
        "any" => "interface {}".to_owned(),
        "string" | "bool" | "int32" | "int64" => base.to_owned(),
        full => full.rsplit('.').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("."),
    };
    format!("{}{base}", containers.replace("{}", "map[string]"))
}
