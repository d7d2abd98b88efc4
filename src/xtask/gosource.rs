//! Reads the facts that only upstream's Go sources tell: protobuf numbers, pointers, omitempty, Go
//! type names and defaults. A reader for gofmt's layout of type declarations, not a Go parser.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use regex::Regex;

/// Packages that declare API types: folder below the upstream directory, and the Go import path.
const PACKAGES: &[(&str, &str)] = &[
    ("apimachinery/pkg/apis/meta/v1", "k8s.io/apimachinery/pkg/apis/meta/v1"),
    ("apimachinery/pkg/runtime", "k8s.io/apimachinery/pkg/runtime"),
    ("apimachinery/pkg/types", "k8s.io/apimachinery/pkg/types"),
    ("apimachinery/pkg/version", "k8s.io/apimachinery/pkg/version"),
    ("apiextensions-apiserver/pkg/apis/apiextensions/v1", "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"),
    ("kube-aggregator/pkg/apis/apiregistration/v1", "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"),
];

#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// By import path.
    pub(crate) packages: BTreeMap<String, Package>,
}

#[derive(Debug, Default)]
pub(crate) struct Package {
    pub(crate) structs: BTreeMap<String, Vec<GoField>>,
    /// `type Name Underlying`; with the comment markers above it.
    pub(crate) named: BTreeMap<String, Named>,
    pub(crate) constants: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) expression: GoType,
    pub(crate) alias: bool,
    /// On the wire a message with the list inside.
    pub(crate) wrapped: bool,
}

/// A type expression and the imports it is to be read with.
#[derive(Debug, Clone)]
pub(crate) struct GoType {
    pub(crate) text: String,
    pub(crate) imports: std::rc::Rc<BTreeMap<String, String>>,
}

#[derive(Debug)]
pub(crate) struct GoField {
    pub(crate) json: String,
    pub(crate) inline: bool,
    pub(crate) omitempty: bool,
    pub(crate) omitzero: bool,
    pub(crate) number: Option<u32>,
    pub(crate) ty: GoType,
    pub(crate) patch_strategy: Option<String>,
    pub(crate) patch_merge_key: Option<String>,
    /// Comment markers such as `listType=map`.
    pub(crate) markers: Vec<String>,
}

impl GoField {
    pub(crate) fn marker(&self, name: &str) -> Option<&str> {
        self.markers.iter().find_map(|m| m.strip_prefix(name)?.strip_prefix('='))
    }
}

impl Sources {
    pub(crate) fn read(upstream: &Path) -> Result<Self> {
        let mut sources = Self::default();
        for (folder, import) in PACKAGES {
            sources.packages.insert((*import).to_owned(), read_package(&upstream.join(folder))?);
        }
        for group in subfolders(&upstream.join("api"))? {
            for version in subfolders(&group)?.iter().filter(|v| name_of(v).starts_with('v')) {
                let import = format!("k8s.io/api/{}/{}", name_of(&group), name_of(version));
                sources.packages.insert(import, read_package(version)?);
            }
        }
        Ok(sources)
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn subfolders(path: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn read_package(folder: &Path) -> Result<Package> {
    let mut package = Package::default();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = name_of(&path);
        let generated = name.contains("generated") || name.ends_with("_test.go");
        if name.ends_with(".go") && !generated {
            FileReader::new()?.read(&std::fs::read_to_string(&path)?, &mut package)?;
        }
    }
    Ok(package)
}

struct FileReader {
    import: Regex,
    field: Regex,
    embedded: Regex,
    named: Regex,
    constant: Regex,
    tag: Regex,
}

impl FileReader {
    fn new() -> Result<Self> {
        Ok(Self {
            import: Regex::new(r#"^(?:import)?\s+(?:(\w+) )?"([\w./-]+)"$"#)?,
            field: Regex::new(r"^\t(\w+)\s+([^`\s][^`]*?)\s+`([^`]*)`")?,
            embedded: Regex::new(r"^\t([\w.*]+)\s+`([^`]*)`")?,
            named: Regex::new(r"^type (\w+) (= )?([\w.\[\]*]+)$")?,
            constant: Regex::new(r#"^\t(\w+)\s+(?:\w+\s+)?= ("[^"]*")"#)?,
            tag: Regex::new(r#"(\w+):"([^"]*)""#)?,
        })
    }

    fn read(&self, text: &str, package: &mut Package) -> Result<()> {
        let imports = std::rc::Rc::new(self.imports(text));
        let mut open: Option<(String, Vec<GoField>)> = None;
        let mut markers: Vec<String> = Vec::new();
        for line in text.lines() {
            if let Some(comment) = line.trim_start().strip_prefix("//") {
                markers.extend(comment.trim().strip_prefix('+').map(str::to_owned));
                continue;
            }
            if let Some((_, fields)) = &mut open {
                if let Some(field) = self.field(line, &imports, std::mem::take(&mut markers))? {
                    fields.push(field);
                }
                if line == "}" {
                    package.structs.extend(open.take());
                }
            } else if let Some(name) = line.strip_prefix("type ").and_then(|l| l.strip_suffix(" struct {")) {
                open = Some((name.to_owned(), Vec::new()));
                markers.clear();
            } else if let Some(name) = line.strip_prefix("type ").and_then(|l| l.strip_suffix(" struct{}")) {
                package.structs.insert(name.to_owned(), Vec::new());
            } else if let Some(found) = self.named.captures(line) {
                let wrapped = markers.iter().any(|m| m == "protobuf.nullable=true");
                let expression = GoType { text: found[3].to_owned(), imports: imports.clone() };
                let named = Named { expression, alias: found.get(2).is_some(), wrapped };
                package.named.insert(found[1].to_owned(), named);
                markers.clear();
            } else if let Some(found) = self.constant.captures(line) {
                package.constants.insert(found[1].to_owned(), found[2].to_owned());
            } else if !line.trim().is_empty() {
                markers.clear();
            }
        }
        Ok(())
    }

    fn imports(&self, text: &str) -> BTreeMap<String, String> {
        let found = text.lines().filter_map(|line| self.import.captures(line)).map(|found| {
            let path = found[2].to_owned();
            let alias = found.get(1).map_or_else(|| name_of(Path::new(&path)), |a| a.as_str().to_owned());
            (alias, path)
        });
        found.collect()
    }

    fn field(
        &self,
        line: &str,
        imports: &std::rc::Rc<BTreeMap<String, String>>,
        markers: Vec<String>,
    ) -> Result<Option<GoField>> {
        let (ty, tags) = if let Some(found) = self.embedded.captures(line) {
            (found[1].to_owned(), found[2].to_owned())
        } else if let Some(found) = self.field.captures(line) {
            (found[2].to_owned(), found[3].to_owned())
        } else {
            return Ok(None);
        };
        let tags: BTreeMap<&str, &str> =
            self.tag.captures_iter(&tags).map(|c| c.extract()).map(|(_, [key, value])| (key, value)).collect();
        let mut json = tags.get("json").copied().unwrap_or("-").split(',');
        let name = json.next().unwrap_or("").to_owned();
        if name == "-" {
            return Ok(None);
        }
        let options: Vec<&str> = json.collect();
        let number = tags.get("protobuf").and_then(|p| p.split(',').nth(1)).map(str::parse).transpose()?;
        Ok(Some(GoField {
            inline: name.is_empty(),
            json: name,
            omitempty: options.contains(&"omitempty"),
            omitzero: options.contains(&"omitzero"),
            number,
            ty: GoType { text: ty, imports: imports.clone() },
            patch_strategy: tags.get("patchStrategy").map(|s| (*s).to_owned()),
            patch_merge_key: tags.get("patchMergeKey").map(|s| (*s).to_owned()),
            markers,
        }))
    }
}
