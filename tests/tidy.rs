//! The project's rules that neither the compiler nor clippy knows. Each failure says what to do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "tidy/decoding.rs"]
mod decoding;
#[path = "tidy/disk.rs"]
mod disk;
#[path = "tidy/files.rs"]
mod files;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;

/// Files longer than this without their tests hold more than one thought.
const FILE_LINES: usize = 800;

/// Which crates of ours each crate may use; ARCHITECTURE.md shows the same as a picture.
const ARROWS: [(&str, &[&str]); 17] = [
    ("api", &[]),
    ("statefile", &[]),
    ("wire", &[]),
    ("storage", &["statefile"]),
    ("runtime", &["statefile", "wire"]),
    ("network", &["statefile"]),
    ("client", &["api"]),
    ("apiserver", &["api", "storage", "wire"]),
    ("controllers", &["api", "client"]),
    ("scheduler", &["api", "client"]),
    ("dns", &["api", "client"]),
    ("proxy", &["api", "client", "network", "wire"]),
    ("kubelet", &["api", "client", "network", "runtime", "statefile", "wire"]),
    ("xtask", &["api"]),
    ("kload", &[]),
    (
        "appliance",
        &[
            "api",
            "apiserver",
            "client",
            "controllers",
            "dns",
            "kubelet",
            "network",
            "proxy",
            "runtime",
            "scheduler",
            "statefile",
        ],
    ),
    ("coracle", &["appliance"]),
];

#[expect(clippy::disallowed_methods, reason = "the rules are about what git tracks and cargo sees")]
fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Tracked Rust files with their text, generated ones left out.
fn sources() -> BTreeMap<String, String> {
    output("git", &["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .lines()
        .filter(|p| !p.ends_with("generated.rs"))
        .filter_map(|p| {
            let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(p)).ok()?;
            Some((p.to_owned(), text))
        })
        .collect()
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("tests.rs") || path.contains("/benches/")
}

/// The part of a file before its test module.
fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ").map_or(text, |at| &text[..at])
}

#[track_caller]
fn none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn files_hold_one_thought() {
    let long = sources()
        .iter()
        .filter(|(path, _)| !is_test_file(path))
        .map(|(path, text)| (path, without_tests(text).lines().count()))
        .filter(|(_, n)| *n > FILE_LINES)
        .map(|(path, n)| format!("{path}: {n} lines"))
        .collect::<Vec<_>>();
    none(&long, "split these files");
}

#[test]
fn files_open_with_what_they_are() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|(path, text)| !text.starts_with("//!") && !text.starts_with("#!") && !is_test_file(path))
        .map(|(path, _)| path.clone())
        .collect();
    none(&silent, "begin these files with a //! paragraph");
}

#[test]
fn names_say_what_a_file_holds() {
    let vague = ["utils.rs", "util.rs", "helpers.rs", "helper.rs", "common.rs", "misc.rs"];
    let found: Vec<String> =
        sources().into_keys().filter(|p| vague.iter().any(|v| p.rsplit('/').next() == Some(v))).collect();
    none(&found, "name these files by what they hold");
}

#[test]
fn nothing_is_left_for_later() {
    // Written in two parts, so that this file does not accuse itself.
    let marks = [
        concat!("FIX", "ME"),
        concat!("XX", "X "),
        concat!("TO", "DO"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    let mut found = Vec::new();
    for (path, text) in sources() {
        for (n, line) in text.lines().enumerate() {
            if marks.iter().any(|m| line.contains(m)) {
                found.push(format!("{path}:{}: {}", n + 1, line.trim()));
            }
        }
    }
    none(&found, "finish this, or list it in docs/compatibility.md");
}

#[test]
fn lints_are_expected_not_allowed() {
    let mark = concat!("#[all", "ow(");
    let inner = concat!("#![all", "ow(");
    let mut found = Vec::new();
    for (path, text) in sources() {
        for (n, line) in text.lines().enumerate() {
            if line.trim_start().starts_with(mark) || line.trim_start().starts_with(inner) {
                found.push(format!("{path}:{}", n + 1));
            }
        }
    }
    none(&found, "write #[expect(lint, reason = \"…\")] on the one item");
}

#[test]
fn crates_use_only_what_their_layer_allows() {
    let metadata = output("cargo", &["metadata", "--no-deps", "--format-version=1", "--offline"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let allowed: HashMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let mut found = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = allowed.get(name) else {
            found.push(format!("{name} is not in the table of arrows"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if ours.contains(to) && dependency["kind"].is_null() && !allowed.contains(&to) {
                found.push(format!("{name} -> {to}"));
            }
        }
    }
    none(&found, "these crates must not depend on each other");
}

/// The name that a `pub` item introduces, if the line does.
/// A dependency that no crate names, and one that a crate names without using it.
#[test]
fn dependencies_are_used() {
    let manifests: Vec<(String, String)> = output("git", &["ls-files", "Cargo.toml", "*/Cargo.toml"])
        .lines()
        .map(|path| {
            (path.to_owned(), std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap())
        })
        .collect();
    let sources = sources();
    let named = |manifest: &str| -> Vec<String> {
        manifest.lines().filter_map(|l| l.strip_suffix(".workspace = true")).map(ToOwned::to_owned).collect()
    };
    let root = &manifests.iter().find(|(path, _)| path == "Cargo.toml").unwrap().1;
    let (_, declared) = root.split_once("[workspace.dependencies]").unwrap();
    let (declared, _) = declared.split_once("\n[").unwrap();
    let everywhere: BTreeSet<String> = manifests.iter().flat_map(|(_, text)| named(text)).collect();
    let mut found: Vec<String> = declared
        .lines()
        .filter_map(|l| l.split_once(" = "))
        .filter(|(name, _)| !everywhere.contains(*name))
        .map(|(name, _)| format!("Cargo.toml: {name}"))
        .collect();
    for (path, text) in &manifests {
        let folder = path.strip_suffix("Cargo.toml").unwrap();
        let of_crate: Vec<&String> = sources
            .iter()
            .filter(|(file, _)| folder.is_empty() || file.starts_with(folder))
            .map(|(_, text)| text)
            .collect();
        for name in
            named(text).into_iter().filter(|name| !["version", "edition", "rust-version", "license"].contains(&&**name))
        {
            let path_in_code = name.replace('-', "_");
            // A word in a message is no use of a crate: it is named in a path, an attribute or an import.
            let is_used = |text: &str| {
                text.match_indices(&path_in_code).any(|(at, _)| {
                    let (before, after) = (&text[..at], &text[at + path_in_code.len()..]);
                    !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
                        && (after.starts_with("::")
                            || (before.ends_with("use ") && after.starts_with([';', ' ']))
                            || before.ends_with("#[")
                            || before.ends_with("#[from "))
                })
            };
            if !of_crate.iter().any(|text| is_used(text)) {
                found.push(format!("{path}: {name}"));
            }
        }
    }
    none(&found, "drop these dependencies");
}

fn public_name(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let rest = rest.strip_prefix("async ").unwrap_or(rest);
    let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
    let rest = ["const fn ", "fn ", "struct ", "enum ", "trait ", "const ", "static ", "type "]
        .iter()
        .find_map(|k| rest.strip_prefix(k))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(&rest[..end])
}

#[test]
fn what_is_public_is_used() {
    let sources = sources();
    let mut count: HashMap<&str, usize> = HashMap::new();
    for text in sources.values() {
        for word in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
            *count.entry(word).or_insert(0) += 1;
        }
    }
    let mut found = Vec::new();
    for (path, text) in &sources {
        for line in without_tests(text).lines() {
            if let Some(name) = public_name(line)
                && count.get(name) == Some(&1)
            {
                found.push(format!("{path}: {name}"));
            }
        }
    }
    none(&found, "nobody uses these: delete them");
}

#[test]
fn no_package_registry_is_named() {
    // Docker's default image registry is a behaviour of the product and so may be named.
    let hosts =
        [concat!("crates", ".io"), concat!("pypi", ".org"), concat!("npmjs", ".org"), concat!("deb.debian", ".org")];
    let mut found = Vec::new();
    for path in output("git", &["ls-files"]).lines().filter(|p| *p != "Cargo.lock") {
        let Ok(text) = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)) else { continue };
        if hosts.iter().any(|h| text.contains(h)) {
            found.push(path.to_owned());
        }
    }
    none(&found, "the ordinary clients know their registries; do not name them");
}

/// One row of the table of Pod fields.
struct FieldRow {
    kind: String,
    fields: Vec<String>,
    state: String,
    tests: Vec<String>,
}

impl FieldRow {
    fn is_there(&self) -> bool {
        self.state.starts_with("there")
    }
}

fn field_rows() -> Vec<FieldRow> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md")).unwrap();
    let (_, table) = text.split_once("\n## Pod fields\n").unwrap();
    let table = table.split_once("\n## ").map_or(table, |(table, _)| table);
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect::<Vec<_>>();
    let rows = table.lines().filter(|l| l.starts_with("| ")).skip(1);
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        FieldRow {
            kind: cells[0].to_owned(),
            fields: quoted(cells[1]),
            state: cells[2].to_owned(),
            tests: quoted(cells[3]),
        }
    })
    .collect()
}

/// Fields and their types, by the short name of the type that has them.
fn core_types() -> HashMap<String, Vec<(String, String)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/schema/table.txt");
    let mut types: HashMap<String, Vec<(String, String)>> = HashMap::new();
    let mut current = String::new();
    let short = |name: &str| name.rsplit('.').next().unwrap().to_owned();
    for line in std::fs::read_to_string(path).unwrap().lines().filter(|l| !l.starts_with('#')) {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap();
        if line.starts_with(' ') {
            let kind = words.next().unwrap();
            types.entry(current.clone()).or_default().push((first.to_owned(), short(kind)));
        } else {
            // Of types that share a short name, those of the core group and of metadata count.
            let counts = first.starts_with("io.k8s.api.core.v1.") || first.starts_with("io.k8s.apimachinery.");
            current = if counts { short(first) } else { first.to_owned() };
        }
    }
    types
}

fn snake(name: &str) -> String {
    let special = [
        ("hostIPC", "host_ipc"),
        ("hostPID", "host_pid"),
        ("hostIP", "host_ip"),
        ("downwardAPI", "downward_api"),
        ("setHostnameAsFQDN", "set_hostname_as_fqdn"),
        ("type", "type_"),
    ];
    if let Some((_, rust)) = special.iter().find(|(json, _)| *json == name) {
        return (*rust).to_owned();
    }
    name.chars().fold(String::new(), |mut out, c| {
        if c.is_uppercase() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
        out
    })
}

#[test]
fn pod_fields_are_listed_read_and_tested() {
    let (rows, types, sources) = (field_rows(), core_types(), sources());
    let read: BTreeSet<&str> = sources
        .iter()
        .filter(|(path, _)| path.starts_with("src/") && !path.contains("/validate") && !is_test_file(path))
        .flat_map(|(_, text)| without_tests(text).split(|c: char| !c.is_alphanumeric() && c != '_'))
        .collect();
    let mut found = Vec::new();
    let (mut waiting, mut seen) = (vec!["PodSpec".to_owned()], BTreeSet::new());
    while let Some(kind) = waiting.pop() {
        if !seen.insert(kind.clone()) {
            continue;
        }
        for (field, of) in types.get(&kind).into_iter().flatten() {
            let listed: Vec<&FieldRow> = rows.iter().filter(|r| r.kind == kind && r.fields.contains(field)).collect();
            let [row] = listed[..] else {
                found.push(format!("{kind}.{field}: in {} rows of docs/compatibility.md", listed.len()));
                continue;
            };
            if row.is_there() {
                waiting.push(of.clone());
                if !read.contains(&*snake(field)) {
                    found.push(format!("{kind}.{field}: nothing reads it"));
                }
            }
        }
    }
    for row in &rows {
        let known = types.get(&row.kind).into_iter().flatten().map(|(name, _)| name).collect::<Vec<_>>();
        found.extend(
            row.fields.iter().filter(|f| !known.contains(f)).map(|f| format!("{}.{f}: no such field", row.kind)),
        );
        if row.tests.is_empty() && !row.state.starts_with("no effect") {
            found.push(format!("{}.{}: no test", row.kind, row.fields.join(", ")));
        }
        for test in &row.tests {
            let names = [format!("fn {test}("), format!("\"{test}\"")];
            if !sources.values().any(|text| names.iter().any(|name| text.contains(name))) {
                found.push(format!("{}: no test {test}", row.kind));
            }
        }
    }
    none(&found, "list these fields of a pod with the test that shows them, and read them or refuse them");
}

#[test]
fn file_systems_are_asked_in_the_disk_room() {
    none(&disk::offenders(&sources()), "move this into a job of the disk room (runtime::DiskRoom)");
}

#[test]
fn files_of_ours_are_opened_without_waiting() {
    none(&files::offenders(&sources()), "open this with statefile, which says what is no file");
}

#[test]
fn what_cannot_be_read_is_no_default() {
    none(&decoding::offenders(&sources()), "make this an error, or say why the default is right");
}
